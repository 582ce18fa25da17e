//! Where supervise puts what the app prints, and what it has to say itself.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::Stdio;

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::app::{App, Instance, Member, Runner};
use crate::command;
use crate::logfile::{Line, OWN, Writer};

/// How supervise's own lines begin.
pub const PREFIX: &str = "supervise: ";
/// A line that is longer goes into the log in parts of this length, in bytes.
const LONGEST_LINE: usize = 16 * 1024;
/// So many reads, so that an app which never stops writing cannot keep supervise from its other work.
const READS_AT_ONCE: usize = 512;

/// Where the app's output goes, and what supervise has to say.
pub enum Output {
    /// Through pipes into the log, each line with its time and source.
    Logged {
        /// The log.
        log: Writer,
        /// What programs write to.
        pipes: Vec<Pipe>,
        /// Whether supervise's own lines name the program that they are about.
        has_several: bool,
    },
    /// To supervise's own standard output, which is the journal's under systemd.
    Journalled {
        /// How the journal is to call the lines of each program; None: there is one, whose lines are the unit's.
        identifier: Option<String>,
    },
}

/// What a program writes to.
pub struct Pipe {
    source: String,
    output: PipeReader,
    app_end: PipeWriter,
    /// The beginning of a line that is not whole yet.
    begun: Vec<u8>,
}

impl Output {
    /// Where the runner wants an instance's output.
    pub fn of(app: &App, instance: &Instance, has_several: bool) -> Result<Output> {
        if app.runner() == Runner::Systemd {
            let identifier = has_several.then(|| app.journal_identifier(instance));
            return Ok(Output::Journalled { identifier });
        }
        let log = Writer::open(&app.instance_log(instance))?;
        Ok(Output::Logged { log, pipes: Vec::new(), has_several })
    }

    /// What tells that a program has written something; none: that is none of supervise's business.
    pub fn pending(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let pipes = match self {
            Output::Logged { pipes, .. } => pipes.as_slice(),
            Output::Journalled { .. } => &[],
        };
        pipes.iter().map(|pipe| pipe.output.as_fd())
    }

    /// The ends that a program writes to, its output and its errors.
    pub fn ends(&mut self, who: &Member) -> Result<(Stdio, Stdio)> {
        let Output::Logged { pipes, .. } = self else { return Ok((io::stdout().into(), io::stdout().into())) };
        let source = who.to_string();
        let at = match pipes.iter().position(|pipe| pipe.source == source) {
            Some(at) => at,
            None => {
                pipes.push(Pipe::new(source)?);
                pipes.len() - 1
            }
        };
        let end = &pipes[at].app_end;
        Ok((end.try_clone()?.into(), end.try_clone()?.into()))
    }

    /// The program, with its arguments, through which the journal learns whose lines these are; none where it need not.
    pub fn wrapper(&self, who: &Member) -> Result<Vec<OsString>> {
        let Output::Journalled { identifier: Some(identifier) } = self else { return Ok(Vec::new()) };
        let identifier = format!("--identifier={identifier}.{who}");
        Ok(vec![command::find("systemd-cat")?.into_os_string(), identifier.into(), "--".into()])
    }

    /// Moves what programs have written into the log.
    pub fn copy(&mut self) {
        let Output::Logged { log, pipes, .. } = self else { return };
        for pipe in pipes {
            let (mut chunk, mut lines) = ([0; 8 * 1024], Vec::new());
            for _ in 0..READS_AT_ONCE {
                match pipe.output.read(&mut chunk) {
                    Ok(count @ 1..) => pipe.add(&chunk[..count], &mut lines),
                    _ => break,
                }
                log.append(&lines);
                lines.clear();
            }
        }
    }

    /// Says something in a line of its own.
    pub fn say(&mut self, text: impl Display) {
        match self {
            Output::Logged { log, .. } => {
                let mut line = Vec::new();
                Line::write(&mut line, OWN, text.to_string().as_bytes());
                log.append(&line);
            }
            // A journal that is gone is no reason to stop.
            Output::Journalled { .. } => drop(writeln!(io::stdout(), "{PREFIX}{text}")),
        }
    }

    /// Says something about a program; which it is goes without saying where there is one.
    pub fn say_of(&mut self, who: &Member, text: impl Display) {
        if let Output::Logged { pipes, log, .. } = self
            && let Some(pipe) = pipes.iter_mut().find(|pipe| pipe.source == who.to_string())
        {
            let mut rest = Vec::new();
            pipe.end_line(&mut rest);
            log.append(&rest);
        }
        match self {
            Output::Logged { has_several: true, .. } | Output::Journalled { identifier: Some(_) } => {
                self.say(format_args!("{who}: {text}"));
            }
            _ => self.say(text),
        }
    }
}

impl Pipe {
    fn new(source: String) -> Result<Pipe> {
        let (output, app_end) = io::pipe().context("cannot make a pipe")?;
        fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("cannot set up a pipe")?;
        Ok(Pipe { source, output, app_end, begun: Vec::new() })
    }

    /// Adds what was read; lines that are whole by now go behind `lines`.
    fn add(&mut self, bytes: &[u8], lines: &mut Vec<u8>) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(part);
            if self.begun.ends_with(b"\n") || self.begun.len() >= LONGEST_LINE {
                self.end_line(lines);
            }
        }
    }

    fn end_line(&mut self, lines: &mut Vec<u8>) {
        if self.begun.is_empty() {
            return;
        }
        let text = self.begun.strip_suffix(b"\n").unwrap_or(&self.begun);
        Line::write(lines, &self.source, text);
        self.begun.clear();
    }
}
