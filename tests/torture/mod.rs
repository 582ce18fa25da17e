//! Faults of all kinds, and what must hold after each: the service answers with one release, nothing lingers, nothing
//! half done looks done, and the same command run again finishes.

pub mod crashed;
pub mod disk;
pub mod interrupted;
pub mod laid;
pub mod pushed;
pub mod trace;

pub use trace::Fault;

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
