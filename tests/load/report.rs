//! Owns the counts of a load: what was asked, what was answered and what was lost.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::failure::{Failure, Kind};

/// How many failures a report quotes.
const QUOTED: usize = 10;

/// How many failures are kept in words: more than are quoted, so that a report since an earlier
/// one still has some of its own.
const KEPT: usize = 200;

/// The counts at one moment. `requests` is always `ok` plus the failed ones; a request in flight
/// is in none of them until it is answered or lost.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub elapsed: Duration,
    pub requests: u64,
    pub ok: u64,
    pub get_failed: u64,
    pub post_failed: u64,
    /// The failed ones by kind.
    pub kinds: BTreeMap<Kind, u64>,
    /// Every whole answer by its status.
    pub statuses: BTreeMap<u16, u64>,
    /// The successful GETs by the first line of their bodies: which version answered.
    pub bodies: BTreeMap<String, u64>,
    /// The first failures.
    pub samples: Vec<Sample>,
}

/// A failure in words, with its time since the load's start.
#[derive(Clone, Debug)]
pub struct Sample {
    pub at: Duration,
    pub request: &'static str,
    pub failure: String,
}

/// What became of one request.
pub(super) struct Outcome {
    pub method: &'static str,
    pub status: Option<u16>,
    /// The first line of the body, or how the request was lost.
    pub result: Result<String, Failure>,
}

impl Report {
    pub fn failed(&self) -> u64 {
        self.get_failed + self.post_failed
    }

    /// How many requests failed in this way.
    pub fn of(&self, kind: Kind) -> u64 {
        self.kinds.get(&kind).copied().unwrap_or(0)
    }

    /// What was added after `earlier`, a report of the same load.
    pub fn since(&self, earlier: &Report) -> Report {
        Report {
            elapsed: self.elapsed.saturating_sub(earlier.elapsed),
            requests: self.requests - earlier.requests,
            ok: self.ok - earlier.ok,
            get_failed: self.get_failed - earlier.get_failed,
            post_failed: self.post_failed - earlier.post_failed,
            kinds: added(&self.kinds, &earlier.kinds),
            statuses: added(&self.statuses, &earlier.statuses),
            bodies: added(&self.bodies, &earlier.bodies),
            samples: self.samples[earlier.samples.len()..].to_vec(),
        }
    }

    /// The first failures, one line each.
    pub fn quoted(&self) -> impl Iterator<Item = String> {
        self.samples.iter().take(QUOTED).map(Sample::to_string)
    }

    pub fn to_json(&self) -> Value {
        let kinds = Kind::ALL.map(|kind| (kind.name().replace(' ', "_"), self.of(kind)));
        json!({
            "seconds": self.elapsed.as_secs_f64(),
            "requests": self.requests,
            "ok": self.ok,
            "failed": self.failed(),
            "get_failed": self.get_failed,
            "post_failed": self.post_failed,
            "kinds": BTreeMap::from(kinds),
            "statuses": self.statuses,
            "bodies": self.bodies,
            "samples": self.quoted().collect::<Vec<_>>(),
        })
    }

    pub(super) fn record(&mut self, at: Duration, outcome: Outcome) {
        self.requests += 1;
        if let Some(status) = outcome.status {
            *self.statuses.entry(status).or_default() += 1;
        }
        match outcome.result {
            Ok(first_line) => {
                self.ok += 1;
                if outcome.method == "GET" {
                    *self.bodies.entry(first_line).or_default() += 1;
                }
            }
            Err(failure) => self.record_failure(at, outcome.method, &failure),
        }
    }

    fn record_failure(&mut self, at: Duration, method: &'static str, failure: &Failure) {
        match method {
            "POST" => self.post_failed += 1,
            _ => self.get_failed += 1,
        }
        *self.kinds.entry(failure.kind).or_default() += 1;
        if self.samples.len() < KEPT {
            self.samples.push(Sample { at, request: method, failure: failure.to_string() });
        }
    }
}

fn added<K: Ord + Clone>(now: &BTreeMap<K, u64>, then: &BTreeMap<K, u64>) -> BTreeMap<K, u64> {
    let difference = |(key, count): (&K, &u64)| {
        let more = count - then.get(key).copied().unwrap_or(0);
        (more > 0).then(|| (key.clone(), more))
    };
    now.iter().filter_map(difference).collect()
}

impl fmt::Display for Report {
    /// One line: `12034 requests, 3 failed (1 refused, 2 reset)`.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} requests, {} failed", self.requests, self.failed())?;
        if !self.kinds.is_empty() {
            let kinds = self.kinds.iter();
            let kinds: Vec<_> = kinds.map(|(kind, count)| format!("{count} {}", kind.name())).collect();
            write!(out, " ({})", kinds.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.at.as_secs_f64();
        write!(out, "at {seconds:.3} s, {}: {}", self.request, self.failure)
    }
}
