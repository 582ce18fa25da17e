//! What a tool says when it ends: exit codes, the `main` wrapper, the one form of error messages, and progress lines.
//!
//! The only module that writes to the standard streams on behalf of all tools.
#![allow(clippy::print_stderr)]

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use clap::error::ErrorKind;

/// How a tool ended. The numbers are a contract with scripts; 137, 168, 169 and 194 are never used, because SSM's
/// agent gives them meanings of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done, or yes.
    Done = 0,
    /// 1: no (nothing enabled, nothing listens).
    No = 1,
    /// 2: usage or configuration.
    Usage = 2,
    /// 3: failed; the service is as it was.
    Failed = 3,
    /// 4: failed after the cutover; rolled back.
    RolledBack = 4,
    /// 75: another deploy holds the lock (`EX_TEMPFAIL`).
    Busy = 75,
    /// 124: timed out, as timeout(1) says it.
    TimedOut = 124,
}

/// An error that knows the exit code it must end in. Any other error ends in [`Exit::Failed`].
#[derive(Debug)]
pub struct Failure {
    /// The exit code the tool ends with.
    pub exit: Exit,
    message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// An error of the user's making: arguments or configuration (exit 2).
pub fn usage(message: impl Into<String>) -> anyhow::Error {
    failure(Exit::Usage, message)
}

/// A deadline that passed (exit 124).
pub fn timed_out(message: impl Into<String>) -> anyhow::Error {
    failure(Exit::TimedOut, message)
}

/// How many characters a message may have. All that a failed deploy prints must fit into SSM's 2,500 bytes.
const LONGEST_MESSAGE: usize = 1200;

/// An error with the exit code it must end in.
pub fn failure(exit: Exit, message: impl Into<String>) -> anyhow::Error {
    Failure { exit, message: message.into() }.into()
}

/// The exit code that an error ends in: that of the first [`Failure`] in its chain.
pub fn exit_of(error: &anyhow::Error) -> Exit {
    let coded = error.chain().find_map(|cause| cause.downcast_ref::<Failure>());
    coded.map_or(Exit::Failed, |failure| failure.exit)
}

/// Runs a tool: parses its arguments, calls `run`, and turns what comes back into one line on stderr and an exit code.
///
/// A reader that went away (`| head -1`) is not an error: the tool ends quietly with 0, as the pipeline wanted no more.
pub fn main<A: Parser>(tool: &'static str, run: fn(A) -> Result<Exit>) -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let outcome = match A::try_parse_from(arguments) {
        Ok(parsed) => run(parsed),
        Err(error) => answer_usage(tool, &error),
    };
    let exit = match outcome {
        Ok(exit) => exit,
        Err(error) if is_broken_pipe(&error) => Exit::Done,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{tool}: {}", one_line(&format!("{error:#}")));
            exit_of(&error)
        }
    };
    ExitCode::from(exit as u8)
}

/// `--help` and `--version` are answers; everything else clap says is an error of usage, told in our one-line form.
fn answer_usage(tool: &str, error: &clap::Error) -> Result<Exit> {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        print(&error.render().to_string())?;
        return Ok(Exit::Done);
    }
    let text = error.render().to_string();
    let said: Vec<&str> = text.split("\n\n").next().unwrap_or_default().lines().map(str::trim).collect();
    let said = said.join(" ");
    let reason = said.strip_prefix("error: ").unwrap_or(&said);
    Err(usage(format!("{reason}; see {tool} --help")))
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    causes.any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// Folds a message into one line, so that a log reader never has to guess where it ends. Quoted lines of a child's
/// output are joined by ` | `; control characters, which an argument may hold, are escaped; of a very long message the
/// middle is left out.
pub fn one_line(message: &str) -> String {
    let lines: Vec<&str> = message.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let escaped = lines.join(" | ").chars().fold(String::new(), |text, character| match character.is_control() {
        true => text + &character.escape_default().to_string(),
        false => text + character.encode_utf8(&mut [0; 4]),
    });
    let count = escaped.chars().count();
    if count <= LONGEST_MESSAGE {
        return escaped;
    }
    let part = |from, length| escaped.chars().skip(from).take(length).collect::<String>();
    format!("{} … {}", part(0, LONGEST_MESSAGE * 2 / 3), part(count - LONGEST_MESSAGE / 3, LONGEST_MESSAGE / 3))
}

/// The last `count` lines of a text, as an error quotes them: joined by ` | `, each cut to 200 characters,
/// without colours and other control characters. All that a failed deploy prints must fit into SSM's 2,500 bytes.
pub fn quote<'a>(lines: impl IntoIterator<Item = &'a str>, count: usize) -> String {
    let all = readable(lines);
    all[all.len().saturating_sub(count)..].join(" | ")
}

/// The same of the first `count` lines: a tool that fails says what is wrong first, and then what follows from it.
pub fn quote_first<'a>(lines: impl IntoIterator<Item = &'a str>, count: usize) -> String {
    let all = readable(lines);
    all[..all.len().min(count)].join(" | ")
}

fn readable<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    lines.into_iter().map(plain).filter(|line| !line.is_empty()).collect()
}

/// A line without escape sequences (`ESC [ … letter`) and control characters, cut to 200 characters.
fn plain(line: &str) -> String {
    let mut kept = String::new();
    let mut characters = line.trim().chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            let _ = characters.by_ref().find(char::is_ascii_alphabetic);
        } else if !character.is_control() {
            kept.push(character);
        }
    }
    match kept.char_indices().nth(200) {
        Some((at, _)) => kept[..at].to_owned() + "…",
        None => kept,
    }
}

/// Writes an answer to standard output, whole. A closed pipe comes back as an error that [`main`] knows.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to standard output")
}

/// Tells, on stderr, what a tool is doing: `tool: text`. Nothing is lost when nobody listens.
pub fn say(tool: &str, text: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{tool}: {text}");
}

/// Asks y/N on the terminal before something that can take the service down; without a terminal on stdin and stderr
/// nothing is asked and the answer is no.
pub fn confirm(question: &str) -> bool {
    use std::io::IsTerminal;
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return false;
    }
    let _ = write!(io::stderr(), "{question} [y/N] ");
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

/// Lets a step pass that can take the service down: with `--force`, or when the person at the terminal says yes. A
/// refusal ends in 3: the service is as it was.
pub fn allow(force: bool, danger: &str) -> Result<()> {
    if force || confirm(&format!("{danger}. Go on?")) {
        return Ok(());
    }
    Err(failure(Exit::Failed, format!("{danger}; --force does it all the same")))
}
