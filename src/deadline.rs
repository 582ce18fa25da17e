//! A moment after which work is given up, handed down so that no step outlives the whole.

use std::time::{Duration, Instant};

use nix::poll::PollTimeout;

/// What a span too long for the clock is taken for: a century.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// A span as poll(2) takes it; None: without an end. Rounded up to the next millisecond: rounded down, the last one would be
/// spent in a busy loop.
pub fn poll_timeout(span: Option<Duration>) -> PollTimeout {
    span.map_or(PollTimeout::NONE, |span| {
        PollTimeout::try_from(span.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX)
    })
}

/// A moment after which work is given up.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline that lies `span` from now.
    pub fn after(span: Duration) -> Deadline {
        let now = Instant::now();
        Deadline(now.checked_add(span).unwrap_or(now + FOREVER))
    }

    /// The earlier of this deadline and one that lies `span` from now.
    pub fn within(self, span: Duration) -> Deadline {
        Deadline(self.0.min(Deadline::after(span).0))
    }

    /// What is left; zero once it has passed.
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether it has passed.
    pub fn passed(self) -> bool {
        self.left().is_zero()
    }

    /// Sleeps for `pause`, or for what is left when that is less. False when the deadline has passed.
    pub fn sleep(self, pause: Duration) -> bool {
        std::thread::sleep(pause.min(self.left()));
        !self.passed()
    }
}
