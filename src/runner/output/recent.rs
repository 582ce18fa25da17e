//! The last lines that a program has printed.

use std::collections::VecDeque;

use crate::outcome::quote;
use crate::telling::is_telling;

/// How many lines are kept.
const LINES: usize = 5;
/// How much of a line is kept, in bytes: more than an error quotes of it.
const LINE: usize = 1024;

/// The last lines of a program, without blank ones.
#[derive(Default)]
pub struct Recent {
    /// Those that may say what is wrong, and the last one, whatever it says.
    lines: VecDeque<Vec<u8>>,
    /// The others.
    others: VecDeque<Vec<u8>>,
    /// Whether the last line is whole.
    is_whole: bool,
}

impl Recent {
    /// Adds what the program has printed.
    pub fn add(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.is_whole || self.lines.is_empty() {
                self.begin();
            }
            if let Some(line) = self.lines.back_mut() {
                let room = LINE.saturating_sub(line.len());
                line.extend(part.iter().take(room));
                self.is_whole = part.ends_with(b"\n");
            }
        }
    }

    /// Begins a line, in the place of the last one if that says nothing, or of the oldest.
    fn begin(&mut self) {
        let unused = match self.lines.back() {
            Some(last) if last.trim_ascii().is_empty() => self.lines.pop_back(),
            Some(last) if !is_telling(&String::from_utf8_lossy(last)) => {
                self.others.extend(self.lines.pop_back());
                if self.others.len() > LINES { self.others.pop_front() } else { None }
            }
            _ if self.lines.len() > LINES => self.lines.pop_front(),
            _ => None,
        };
        let mut line = unused.unwrap_or_default();
        line.clear();
        self.lines.push_back(line);
        self.is_whole = false;
    }

    /// The lines as an error quotes them; empty: there are none.
    pub fn quote(&self) -> String {
        // The last one comes after both.
        let lines: Vec<_> = self.others.iter().chain(&self.lines).map(|line| String::from_utf8_lossy(line)).collect();
        quote(lines.iter().map(AsRef::as_ref), LINES)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn quoted(parts: &[&[u8]]) -> String {
        let mut recent = Recent::default();
        parts.iter().for_each(|part| recent.add(part));
        recent.quote()
    }

    #[test]
    fn the_last_lines_are_quoted_however_they_came() {
        assert_eq!(quoted(&[]), "");
        assert_eq!(quoted(&[b"one\ntwo"]), "one | two");
        assert_eq!(quoted(&[b"on", b"e\n", b"\n \n", b"two\n", b"\n"]), "one | two");
        assert_eq!(quoted(&[b"1\n2\n3\n4\n5\n6\n7\n"]), "3 | 4 | 5 | 6 | 7");
        assert_eq!(quoted(&[b"no database\n\tat x\n\tat y\n\tat z\n\tat x\n\tat y\n\tat z\n}\n"]), "no database");
        assert_eq!(quoted(&[b"\tat x\n}\n"]), "at x | }");
        assert_eq!(quoted(&[b"\xff\x00\x1b[31mred\x1b[0m\n"]), "\u{fffd}red");
        let long = [b'x'; 300_000];
        assert_eq!(quoted(&[&long, b"\nthe end\n"]), format!("{}… | the end", "x".repeat(200)));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_parts_make_no_difference(text in "([a-c \n]|\tat x\n|\\}\n){0,100}", at in 0usize..200) {
            let (one, other) = text.as_bytes().split_at(at.min(text.len()));
            prop_assert_eq!(quoted(&[one, other]), quoted(&[text.as_bytes()]));
            prop_assert_eq!(quoted(&[one, other]), quote(text.lines(), LINES));
        }

        #[test]
        fn whatever_is_printed_little_is_kept(parts: Vec<Vec<u8>>) {
            let mut recent = Recent::default();
            parts.iter().for_each(|part| recent.add(part));
            let lines = recent.lines.iter().chain(&recent.others);
            prop_assert!(recent.lines.len() <= LINES + 1 && recent.others.len() <= LINES);
            prop_assert!(lines.into_iter().all(|line| line.len() <= LINE));
        }
    }
}
