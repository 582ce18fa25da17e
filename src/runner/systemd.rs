//! The `systemd` runner: a template unit runs supervise, in a cgroup of its own that no caller's end reaches.
//!
//! systemd takes orders from root only. `install` grants the app's user these few through sudo, argument by argument.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::Uid;

use super::SUPERVISE_SLACK;
use crate::app::{App, Instance};
use crate::command::{self, Run};
use crate::deadline::Deadline;
use crate::process::{self, Bond};

/// What systemd, and sudo before it, may take beyond the time that a unit has.
const SYSTEMD_SLACK: Duration = Duration::from_secs(30);

/// What root does for the app's user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Starts an instance's unit; ends when it is ready.
    Start,
    /// Stops it; ends when it is down.
    Stop,
    /// Forgets how often it has failed: a start limit blocks starts by hand as well.
    ResetFailed,
    /// Prints what it has written to the journal, the newest first.
    Read,
    /// Prints the newest line and goes on with what follows.
    Follow,
}

impl Order {
    /// All of them.
    pub const ALL: [Order; 5] = [Order::Start, Order::Stop, Order::ResetFailed, Order::Read, Order::Follow];

    /// The program that carries it out.
    pub fn program(self) -> &'static str {
        match self {
            Order::Start | Order::Stop | Order::ResetFailed => "systemctl",
            Order::Read | Order::Follow => "journalctl",
        }
    }

    /// The program's arguments.
    pub fn arguments(self, app: &App, instance: &Instance) -> Vec<String> {
        let unit = app.instance_unit(instance);
        let written = format!("_SYSTEMD_UNIT={unit}");
        let journal = ["--all", "--output=json", "--output-fields=MESSAGE,SYSLOG_IDENTIFIER", "--no-pager", "--quiet"];
        let words = match self {
            Order::Start => vec!["start", &unit],
            Order::Stop => vec!["stop", &unit],
            Order::ResetFailed => vec!["reset-failed", &unit],
            Order::Read => [&[&written[..]], &journal[..], &["--reverse"]].concat(),
            Order::Follow => [&[&written[..]], &journal[..], &["--follow", "--lines=1"]].concat(),
        };
        words.into_iter().map(str::to_owned).collect()
    }

    /// A program and its arguments by which the caller may give it.
    fn words(self, app: &App, instance: &Instance) -> Result<(std::path::PathBuf, Vec<String>)> {
        let program = command::find(self.program())?;
        let arguments = self.arguments(app, instance);
        if Uid::effective().is_root() {
            return Ok((program, arguments));
        }
        let asked = ["--non-interactive".to_owned(), "--".to_owned(), program.display().to_string()];
        Ok((command::find("sudo")?, asked.into_iter().chain(arguments).collect()))
    }

    /// The command that gives it, not started yet; its stdout and stderr are piped.
    pub fn command(self, app: &App, instance: &Instance) -> Result<Command> {
        let (program, arguments) = self.words(app, instance)?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        process::isolate(&mut command, Bond::Free);
        Ok(command)
    }

    fn give(self, app: &App, instance: &Instance) -> Result<()> {
        let (program, arguments) = self.words(app, instance)?;
        let patience = app.config.run.stop_timeout + 2 * SUPERVISE_SLACK + SYSTEMD_SLACK;
        Run::new(&program, arguments).output(Deadline::after(patience)).map(drop)
    }
}

/// Starts an instance's unit. The child is systemctl: it ends well when the instance is ready, and tells on stderr why not
/// otherwise.
pub fn start(app: &App, instance: &Instance) -> Result<Child> {
    // It fails for a unit that systemd has not met yet, which has no failures either.
    let _ = Order::ResetFailed.give(app, instance);
    Order::Start.command(app, instance)?.spawn().context("cannot run systemctl")
}

/// Stops an instance's unit; also one that is down for a moment, about to be started again.
pub fn stop(app: &App, instance: &Instance) -> Result<()> {
    match app.has_unit() {
        true => Order::Stop.give(app, instance),
        false => Ok(()),
    }
}
