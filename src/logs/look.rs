//! How lines look: for a terminal, which must neither be confused by what an app prints nor lack colours, or for a program.

use std::env;
use std::io::{self, IsTerminal};

use crate::logfile::Line;
use crate::output;

/// Colours as terminals number them, so that the first ones of both halves differ most.
const COLOURS: [u8; 10] = [36, 32, 35, 34, 33, 93, 95, 96, 94, 92];

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

    /// Puts a line behind others.
    pub fn add(&self, text: &mut String, label: Option<&Label>, line: &Line) {
        if self.has_times {
            *text += &line.at.map_or_else(|| "-".to_owned(), |at| humantime::format_rfc3339_millis(at).to_string());
            *text += " ";
        }
        if let Some(label) = label {
            *text += &match self.has_colours {
                true => format!("\u{1b}[{}m{} |\u{1b}[0m ", label.colour(), label.text),
                false => format!("{} | ", label.text),
            };
        }
        let said = line.to_string();
        *text += &if self.is_for_terminal { output::harmless(&said) } else { said };
        *text += "\n";
    }
}

impl Label {
    fn colour(&self) -> u8 {
        COLOURS[(self.instance * COLOURS.len() / 2 + self.program) % COLOURS.len()]
    }
}
