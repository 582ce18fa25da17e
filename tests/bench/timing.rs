//! Taking times: of whole processes, in turns, and what is typical among them.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Many times of the same thing.
#[derive(Default)]
pub struct Times(Vec<Duration>);

impl Times {
    pub fn push(&mut self, took: Duration) {
        self.0.push(took);
    }

    pub fn median(&self) -> Duration {
        self.percentile(50)
    }

    /// The time that this share, in percent, of all times does not exceed.
    pub fn percentile(&self, share: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort();
        sorted[(sorted.len() - 1) * share / 100]
    }
}

impl FromIterator<Duration> for Times {
    fn from_iter<I: IntoIterator<Item = Duration>>(times: I) -> Times {
        Times(times.into_iter().collect())
    }
}

/// A program that is about to run with an environment as small as can be, and nobody to read what it writes.
pub fn program(path: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(path);
    command.args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Runs a program from its start to its end, which must be a success.
#[track_caller]
pub fn of_process(command: &mut Command) -> Duration {
    let began = Instant::now();
    let status = command.status().unwrap();
    let took = began.elapsed();
    assert!(status.success(), "{command:?}: {status}");
    took
}

/// Times some work.
pub fn of(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

/// Takes the times of several things in turns, so that what else the machine does falls on all of them alike.
pub fn in_turns<const THINGS: usize>(
    turns: u64,
    mut things: [&mut dyn FnMut() -> Duration; THINGS],
) -> [Times; THINGS] {
    // The first turn finds cold caches.
    for thing in &mut things {
        thing();
    }
    let mut times = [(); THINGS].map(|()| Times::default());
    for _ in 0..turns {
        for (thing, times) in things.iter_mut().zip(&mut times) {
            times.push(thing());
        }
    }
    times
}

/// A time in milliseconds, as the tables show it.
pub fn ms(time: Duration) -> String {
    let decimals = if time < Duration::from_millis(20) { 2 } else { 0 };
    format!("{:.decimals$} ms", time.as_secs_f64() * 1e3)
}

/// A limit in milliseconds: a whole number.
pub fn whole_ms(limit: Duration) -> String {
    format!("{} ms", limit.as_millis())
}

/// How many times the second is the first.
pub fn ratio(one: Duration, other: Duration) -> f64 {
    one.as_secs_f64() / other.as_secs_f64()
}
