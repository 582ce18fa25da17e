//! Which promises were measured, and which of them were not kept.

use std::fmt;

/// What was found of the promises so far.
#[derive(Default)]
pub struct Promises {
    measured: usize,
    missed: Vec<String>,
}

impl Promises {
    /// Records whether a promise was kept; returns the word for a table's last column.
    pub fn judge(&mut self, what: &str, is_kept: bool) -> &'static str {
        self.measured += 1;
        if is_kept {
            return "ok";
        }
        self.missed.push(what.to_owned());
        "MISSED"
    }

    /// Whether none was missed.
    pub fn all_kept(&self) -> bool {
        self.missed.is_empty()
    }
}

impl fmt::Display for Promises {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for missed in &self.missed {
            writeln!(f, "MISSED: {missed}")?;
        }
        writeln!(f, "{} of {} promises kept", self.measured - self.missed.len(), self.measured)
    }
}
