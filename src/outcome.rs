//! What a tool says when it ends: exit codes, the `main` wrapper, the one form of error messages, and progress lines.
//!
//! The only module that writes to the standard streams on behalf of all tools.
#![allow(clippy::print_stderr)]

use std::ffi::OsString;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use clap::error::ErrorKind;
use nix::sys::signal::{SigSet, Signal};

use crate::harmless::{self, Painted, is_harmful};
use crate::process;
use crate::telling::telling;

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
    /// 5: failed after the cutover, and the way back failed too.
    Stranded = 5,
    /// 75: another deploy holds the lock (`EX_TEMPFAIL`).
    Busy = 75,
    /// 124: timed out, as timeout(1) says it.
    TimedOut = 124,
}

impl Exit {
    /// How a tool ended that ended with this code; None: none of ours does.
    pub fn of_code(code: i32) -> Option<Exit> {
        use Exit::{Busy, Done, Failed, No, RolledBack, Stranded, TimedOut, Usage};
        [Done, No, Usage, Failed, RolledBack, Stranded, Busy, TimedOut].into_iter().find(|exit| *exit as i32 == code)
    }
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

/// A failure after a cutover, and why the way back failed as well (exit 5).
pub fn stranded(reason: &anyhow::Error, way_back: &anyhow::Error) -> anyhow::Error {
    failure(Exit::Stranded, format!("{reason:#}; and the way back failed: {way_back:#}"))
}

/// A deadline that passed (exit 124).
pub fn timed_out(message: impl Into<String>) -> anyhow::Error {
    failure(Exit::TimedOut, message)
}

/// How many bytes a message may have: a character of Korean has three. All that a failed deploy prints must fit into SSM's 2,500 bytes.
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
    // A write behind the caller's limit of a file's size is an error that can be told then.
    let _ = SigSet::from(Signal::SIGXFSZ).thread_block();
    process::hear_of_children();
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
/// output are joined by ` | `; what could act on a terminal, as an argument or a file name may, is escaped; of a very long
/// message the middle is left out.
pub fn one_line(message: &str) -> String {
    let lines: Vec<&str> = message.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let escaped = harmless::escaped(&lines.join(" | "));
    if escaped.len() <= LONGEST_MESSAGE {
        return escaped;
    }
    let is_boundary = |at: &usize| escaped.is_char_boundary(*at);
    let end_of_head = (0..=LONGEST_MESSAGE * 2 / 3).rev().find(is_boundary).unwrap_or_default();
    let tail = (escaped.len() - LONGEST_MESSAGE / 3..=escaped.len()).find(is_boundary).unwrap_or_default();
    format!("{} … {}", escaped.get(..end_of_head).unwrap_or_default(), escaped.get(tail..).unwrap_or_default())
}

/// How many characters of a line are quoted: of what an app prints, and of what a tool says that fails.
const SHORT: usize = 200;
const LONG: usize = 500;

/// The last `count` lines of a text that say what is wrong, or of all when none may do so, as an error quotes them: joined by ` | `,
/// each cut to 200 characters, without colours and other control characters. All that a failed deploy prints must fit into SSM's
/// 2,500 bytes.
pub fn quote<'a>(lines: impl IntoIterator<Item = &'a str>, count: usize) -> String {
    let lines: Vec<&str> = lines.into_iter().collect();
    let telling = readable(telling(&lines), SHORT);
    let mut all = if telling.is_empty() { readable(lines, SHORT) } else { telling };
    all.drain(..all.len().saturating_sub(count));
    all.join(" | ")
}

/// The same of the first `count` lines.
pub fn quote_first<'a>(lines: impl IntoIterator<Item = &'a str>, count: usize) -> String {
    first(lines, count, SHORT)
}

/// The same of what a tool says that fails: what is wrong first, and then what follows from it. Each line is cut to 500 characters:
/// behind long paths stands the line where it is.
pub fn quote_tool<'a>(lines: impl IntoIterator<Item = &'a str>, count: usize) -> String {
    first(lines, count, LONG)
}

fn first<'a>(lines: impl IntoIterator<Item = &'a str>, count: usize, most: usize) -> String {
    let mut all = readable(lines, most);
    all.truncate(count);
    all.join(" | ")
}

/// Lines without what harms, and none that is empty then.
fn readable<'a>(lines: impl IntoIterator<Item = &'a str>, most: usize) -> Vec<String> {
    lines.into_iter().map(|line| plain(line, most)).filter(|line| !line.is_empty()).collect()
}

/// A line without escape sequences (`ESC [ … letter`) and harmful characters, cut to this many characters.
fn plain(line: &str, most: usize) -> String {
    let mut kept = String::new();
    let mut characters = line.trim().chars();
    while let Some(character) = characters.next() {
        if character == '\u{1b}' {
            let _ = characters.by_ref().find(char::is_ascii_alphabetic);
        } else if !is_harmful(character) {
            kept.push(character);
        }
    }
    if let Some((at, _)) = kept.char_indices().nth(most) {
        kept.truncate(at);
        kept.push('…');
    }
    kept
}

/// Writes an answer to standard output, whole: for a program as it is, for a terminal harmless. A closed pipe comes back
/// as an error that [`main`] knows.
pub fn print(text: &str) -> Result<()> {
    let mut answer = Painted::new(io::stdout().is_terminal());
    answer.add(text);
    print_painted(&answer)
}

/// [`print`] for an answer that has colours, or moves the cursor.
pub fn print_painted(answer: &Painted) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(answer.as_str().as_bytes()).and_then(|()| out.flush()).context("cannot write to standard output")
}

/// Tells, on stderr, what a tool is doing: `tool: text`, in one line. Nothing is lost when nobody listens.
pub fn say(tool: &str, text: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{tool}: {}", one_line(&text.to_string()));
}

/// Puts a question on the terminal that stderr is, and waits for it to be answered in a line; None: nobody will.
pub fn ask(question: &str) -> io::Result<Option<String>> {
    write!(io::stderr(), "{} ", harmless::escaped(question))?;
    let mut answer = String::new();
    let ended = io::stdin().read_line(&mut answer)? == 0;
    Ok((!ended).then_some(answer))
}

/// Passes on, to stderr, a line that another tool of ours has said.
pub fn relay(line: &str) {
    let _ = writeln!(io::stderr(), "{}", one_line(line));
}

/// Asks y/N on the terminal before something that can take the service down; without a terminal on stdin and stderr
/// nothing is asked and the answer is no.
pub fn confirm(question: &str) -> bool {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return false;
    }
    let answer = ask(&format!("{question} [y/N]")).ok().flatten();
    answer.is_some_and(|answer| matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Lets a step pass that can take the service down: with `--force`, or when the person at the terminal says yes. A
/// refusal ends in 3: the service is as it was.
pub fn allow(force: bool, danger: &str) -> Result<()> {
    if force || confirm(&format!("{danger}. Go on?")) {
        return Ok(());
    }
    Err(failure(Exit::Failed, format!("{danger}; --force does it all the same")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_any_script_has_so_many_bytes_and_its_beginning_and_end() {
        for letter in ["x", "\u{e9}", "\u{d55c}", "\u{fffd}", "\u{1f680}"] {
            let message = one_line(&format!("cannot start A: {}: the end", letter.repeat(5000)));
            assert!(
                (LONGEST_MESSAGE - 8..=LONGEST_MESSAGE + 5).contains(&message.len()),
                "{letter}: {}",
                message.len()
            );
            assert!(message.starts_with("cannot start A: ") && message.ends_with(": the end"), "{message}");
        }
        let short = "\u{d55c}".repeat(400);
        assert_eq!(one_line(&short), short);
    }
}
