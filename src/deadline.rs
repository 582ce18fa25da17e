//! A moment after which work is given up, handed down so that no step outlives the whole.

use std::time::{Duration, Instant};

/// A moment after which work is given up.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline that lies `span` from now.
    pub fn after(span: Duration) -> Deadline {
        Deadline(Instant::now() + span)
    }

    /// The earlier of this deadline and one that lies `span` from now.
    pub fn within(self, span: Duration) -> Deadline {
        Deadline(self.0.min(Instant::now() + span))
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
