//! Which lines of a log are wanted.

use std::time::SystemTime;

use anyhow::Result;
use regex::Regex;

use super::Line;

/// What is wanted of a log; by default all.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// At most so many lines, the last ones; None: any number.
    pub most: Option<usize>,
    /// None that are older; None: however old. A line without a time is as old as the one before it.
    pub since: Option<SystemTime>,
    /// Only those that it finds something in; None: all.
    pub pattern: Option<Regex>,
    /// Only those of this program, or of all workers of this name; None: all.
    pub program: Option<String>,
}

impl Choice {
    /// The last lines.
    pub fn last(count: usize) -> Choice {
        Choice { most: Some(count), ..Choice::default() }
    }

    /// Whether a line is wanted, as far as that can be told from itself alone, whatever its age.
    pub fn fits(&self, line: &Line) -> bool {
        self.program.as_ref().is_none_or(|wanted| is_or_is_one_of(line.program(), wanted))
            && self.pattern.as_ref().is_none_or(|pattern| pattern.is_match(&line.to_string()))
    }

    /// The wanted ones of a log's lines, which come the newest first; of these, no more are taken than need be. Returns them
    /// oldest first.
    pub fn of_newest_first(&self, mut lines: impl Iterator<Item = Result<Line>>) -> Result<Vec<Line>> {
        let most = self.most.unwrap_or(usize::MAX);
        // The last ones of those chosen may be too old: that the line before them tells.
        let (mut chosen, mut certain) = (Vec::new(), 0);
        while chosen.len() < most || certain < chosen.len() {
            let Some(line) = lines.next().transpose()? else { break };
            if line.at.zip(self.since).is_some_and(|(at, since)| at < since) {
                break;
            }
            let tells_age = line.at.is_some() || self.since.is_none();
            if chosen.len() < most && self.fits(&line) {
                chosen.push(line);
            }
            if tells_age {
                certain = chosen.len();
            }
        }
        chosen.truncate(certain);
        chosen.reverse();
        Ok(chosen)
    }
}

/// Whether a program has this name, or is one of the workers that have.
pub fn is_or_is_one_of(program: &str, name: &str) -> bool {
    program.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::arithmetic_side_effects, clippy::unwrap_used)]
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    /// Lines as numbers of seconds; 0: one without a time, called by its place.
    fn chosen(choice: &Choice, seconds: &[u64]) -> Vec<String> {
        let line = |(at, second): (usize, &u64)| Line {
            at: (*second > 0).then(|| UNIX_EPOCH + Duration::from_secs(*second)),
            source: "0".to_owned(),
            text: if *second > 0 { second.to_string() } else { format!("after {at}") },
        };
        let lines: Vec<Line> = seconds.iter().enumerate().map(line).collect();
        let found = choice.of_newest_first(lines.into_iter().rev().map(Ok)).unwrap();
        found.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn a_line_without_a_time_is_as_old_as_the_one_before_it() {
        let since = |second| Choice { since: Some(UNIX_EPOCH + Duration::from_secs(second)), ..Choice::default() };
        let log = [0, 1, 0, 2, 0, 0, 3, 0];
        assert_eq!(chosen(&since(2), &log), ["2", "after 4", "after 5", "3", "after 7"]);
        assert_eq!(chosen(&since(3), &log), ["3", "after 7"]);
        assert_eq!(chosen(&since(4), &log), [] as [&str; 0]);
        assert_eq!(chosen(&since(1), &log).len(), 7);
        for (most, second, expected) in [(1, 3, &["after 7"][..]), (1, 4, &[]), (2, 2, &["3", "after 7"]), (0, 1, &[])]
        {
            let choice = Choice { most: Some(most), ..since(second) };
            assert_eq!(chosen(&choice, &log), expected);
        }
        assert_eq!(chosen(&Choice::last(3), &log), ["after 5", "3", "after 7"]);
        assert_eq!(chosen(&Choice::default(), &log).len(), log.len());
    }
}
