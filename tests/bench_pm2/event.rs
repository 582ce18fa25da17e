//! What came of something that happened again and again under load.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::load::Report;
use crate::tally::Tally;
use crate::timing::Times;

/// What came of it, over all rounds.
#[derive(Default)]
pub struct Event {
    times: u64,
    tally: Tally,
    pub gets_lost: u64,
    pub posts_lost: u64,
    pub took: Times,
    codes: BTreeSet<i32>,
    answers: BTreeSet<&'static str>,
}

impl Event {
    /// Counts one more: the load around it, how long it took, the command's exit code, and what answers afterwards.
    pub fn add(&mut self, report: &Report, took: Duration, code: i32, answers: &'static str) {
        self.times += 1;
        self.gets_lost += report.get_failed;
        self.posts_lost += report.post_failed;
        self.tally.add(&report.clone().into());
        self.took.push(took);
        self.codes.insert(code);
        self.answers.insert(answers);
    }

    /// How many requests were made around it.
    pub fn requests(&self) -> String {
        counted(self.tally.requests)
    }

    pub fn lost(&self) -> u64 {
        self.gets_lost + self.posts_lost
    }

    /// How many of all requests were lost, how many each time, and how: `36 of 9,120 (7.2 each): 30 closed, 6 reset`.
    pub fn losses(&self) -> String {
        let (lost, requests) = (self.lost(), self.requests());
        match lost {
            0 => format!("0 of {requests}"),
            _ => {
                let each = lost as f64 / self.times as f64;
                format!("{} of {requests} ({each:.1} each): {}", counted(lost), self.tally.kinds())
            }
        }
    }

    /// The first losses in words.
    pub fn quoted(&self) -> &[String] {
        self.tally.quoted()
    }

    /// The exit code; several, where it was not always the same.
    pub fn codes(&self) -> String {
        let codes: Vec<String> = self.codes.iter().map(i32::to_string).collect();
        codes.join(", ")
    }

    /// What answered afterwards; several, where it was not always the same.
    pub fn answers(&self) -> String {
        self.answers.iter().copied().collect::<Vec<_>>().join("; ")
    }
}

/// A count with its thousands apart.
fn counted(count: u64) -> String {
    let digits = count.to_string();
    let apart = |(at, digit): (usize, char)| {
        let comma = at > 0 && (digits.len() - at).is_multiple_of(3);
        comma.then_some(',').into_iter().chain([digit])
    };
    digits.chars().enumerate().flat_map(apart).collect()
}
