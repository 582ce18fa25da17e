//! Faults of all kinds, and what must hold after each: the service answers with one release, nothing lingers, nothing
//! half done looks done, and the same command run again finishes.

pub mod crashed;
pub mod disk;
pub mod interrupted;
pub mod laid;
pub mod pushed;
mod trace;

pub use trace::Fault;

/// How much of it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Every point: for `make torture`.
    #[allow(dead_code)]
    All,
    /// So many, spread evenly.
    Sample(usize),
}

impl Share {
    /// This share of all of them.
    pub fn of<T>(self, all: Vec<T>) -> Vec<T> {
        let Share::Sample(wanted) = self else { return all };
        let count = all.len();
        let step = count.div_ceil(wanted).max(1);
        // From the middle of each stretch: the first and the last calls are of least interest.
        let chosen = |at: &usize| at % step == step / 2;
        all.into_iter().enumerate().filter(|(at, _)| chosen(at)).map(|(_, one)| one).collect()
    }
}

/// What became of one kind of fault.
#[derive(Debug)]
pub struct Outcome {
    /// The fault, in words.
    pub what: String,
    /// How often it was tried.
    pub faults: usize,
    pub requests: u64,
    pub lost: u64,
    /// What did not hold afterwards.
    pub failures: Vec<String>,
}

impl Outcome {
    pub fn of(what: impl Into<String>) -> Outcome {
        Outcome { what: what.into(), faults: 0, requests: 0, lost: 0, failures: Vec::new() }
    }

    /// Whether something was tried, and everything held.
    pub fn has_held(&self) -> bool {
        self.faults > 0 && self.failures.is_empty() && self.lost == 0
    }
}
