//! Where supervise puts what the app prints, and what it has to say itself.

use std::fmt::Display;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::Stdio;

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::app::{App, Instance, Runner};
use crate::logfile::Writer;

/// How supervise's own lines begin.
pub const PREFIX: &str = "supervise: ";

/// Where the app's output goes, and what supervise has to say.
pub enum Output {
    /// Through a pipe into the log.
    Logged { log: Writer, output: PipeReader, app_end: PipeWriter },
    /// To supervise's own standard output, which is the journal's under systemd.
    Inherited,
}

impl Output {
    /// Where the runner wants an instance's output.
    pub fn of(app: &App, instance: &Instance) -> Result<Output> {
        if app.runner() == Runner::Systemd {
            return Ok(Output::Inherited);
        }
        let log = Writer::open(&app.instance_log(instance))?;
        let (output, app_end) = io::pipe().context("cannot make a pipe")?;
        fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("cannot set up a pipe")?;
        Ok(Output::Logged { log, output, app_end })
    }

    /// What tells that the app has written something; None: that is none of supervise's business.
    pub fn pending(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Output::Logged { output, .. } => Some(output.as_fd()),
            Output::Inherited => None,
        }
    }

    /// The end that the app writes to.
    pub fn end(&self) -> Result<Stdio> {
        Ok(match self {
            Output::Logged { app_end, .. } => app_end.try_clone()?.into(),
            Output::Inherited => io::stdout().into(),
        })
    }

    /// Moves what the app has written into the log.
    pub fn copy(&mut self) {
        let Output::Logged { log, output, .. } = self else { return };
        let mut chunk = [0; 8 * 1024];
        // Bounded, so that an app which never stops writing cannot keep supervise from its other work.
        for _ in 0..512 {
            match output.read(&mut chunk) {
                Ok(count @ 1..) => log.append(&chunk[..count]),
                _ => return,
            }
        }
    }

    /// Says something in a line of its own.
    pub fn say(&mut self, text: impl Display) {
        match self {
            Output::Logged { log, .. } => {
                let line_end = if log.ends_line() { "" } else { "\n" };
                log.append(format!("{line_end}{PREFIX}{text}\n").as_bytes());
            }
            // A journal that is gone is no reason to stop.
            Output::Inherited => drop(writeln!(io::stdout(), "{PREFIX}{text}")),
        }
    }
}
