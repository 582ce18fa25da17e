//! Counts of requests and of how they were lost, added up over loads and single exchanges.

use std::collections::BTreeMap;

use crate::load::{Failure, Kind, Report};

/// How many failures are quoted.
const QUOTED: usize = 5;

/// What became of many requests.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub requests: u64,
    kinds: BTreeMap<Kind, u64>,
    quoted: Vec<String>,
}

impl Tally {
    /// Counts one exchange.
    pub fn count(&mut self, result: Result<(), Failure>) {
        self.requests += 1;
        if let Err(failure) = result {
            *self.kinds.entry(failure.kind).or_default() += 1;
            self.quote(failure.to_string());
        }
    }

    /// Adds another tally to this one.
    pub fn add(&mut self, other: &Tally) {
        self.requests += other.requests;
        for (kind, count) in &other.kinds {
            *self.kinds.entry(*kind).or_default() += count;
        }
        other.quoted.iter().cloned().for_each(|failure| self.quote(failure));
    }

    pub fn failed(&self) -> u64 {
        self.kinds.values().sum()
    }

    /// How they were lost: `82 closed, 3 reset`.
    pub fn kinds(&self) -> String {
        let kinds: Vec<String> = self.kinds.iter().map(|(kind, count)| format!("{count} {}", kind.name())).collect();
        kinds.join(", ")
    }

    /// The first failures in words.
    pub fn quoted(&self) -> &[String] {
        &self.quoted
    }

    fn quote(&mut self, failure: String) {
        if self.quoted.len() < QUOTED {
            self.quoted.push(failure);
        }
    }
}

impl From<Report> for Tally {
    fn from(report: Report) -> Tally {
        let quoted = report.quoted().take(QUOTED).collect();
        Tally { requests: report.requests, kinds: report.kinds, quoted }
    }
}
