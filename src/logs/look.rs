//! How lines look: for a terminal, which must neither be confused by what an app prints nor lack colours, or for a program.

use std::env;
use std::io::{self, IsTerminal};

use crate::harmless::Painted;
use crate::logfile::Line;

/// Colours as terminals number them, so that the first ones of both halves differ most.
const COLOURS: [&str; 10] = [
    "\u{1b}[36m",
    "\u{1b}[32m",
    "\u{1b}[35m",
    "\u{1b}[34m",
    "\u{1b}[33m",
    "\u{1b}[93m",
    "\u{1b}[95m",
    "\u{1b}[96m",
    "\u{1b}[94m",
    "\u{1b}[92m",
];
/// The end of a colour.
const PLAIN: &str = "\u{1b}[0m";

/// What stands in front of a line.
pub struct Label {
    /// Whose it is.
    pub text: String,
    /// Which of the two instances it is of.
    pub instance: usize,
    /// Which of the instance's programs it is of, counted from 1; 0: of none in particular.
    pub program: usize,
}

/// How lines look.
pub struct Look {
    is_for_terminal: bool,
    has_colours: bool,
    has_times: bool,
}

impl Look {
    /// As lines on standard output are to look. Colours are for terminals, and not wanted where `NO_COLOR` says so
    /// (no-color.org).
    pub fn of_stdout(has_times: bool) -> Look {
        let is_for_terminal = io::stdout().is_terminal();
        let has_colours = is_for_terminal && env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
        Look { is_for_terminal, has_colours, has_times }
    }

    /// No lines yet.
    pub fn nothing(&self) -> Painted {
        Painted::new(self.is_for_terminal)
    }

    /// Puts a line behind others.
    pub fn add(&self, text: &mut Painted, label: Option<&Label>, line: &Line) {
        if self.has_times {
            text.add(&line.at.map_or_else(|| "-".to_owned(), |at| humantime::format_rfc3339_millis(at).to_string()));
            text.add(" ");
        }
        if let Some(label) = label {
            if self.has_colours {
                text.paint(label.colour());
            }
            text.add(&format!("{} |", label.text));
            if self.has_colours {
                text.paint(PLAIN);
            }
            text.add(" ");
        }
        text.add(&line.to_string());
        text.add("\n");
    }
}

impl Label {
    fn colour(&self) -> &'static str {
        COLOURS.iter().cycle().nth(self.instance * COLOURS.len() / 2 + self.program % COLOURS.len()).unwrap_or(&PLAIN)
    }
}
