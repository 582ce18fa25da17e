//! The `systemd` runner: a template unit runs supervise, in a cgroup of its own that no caller's end reaches.
//!
//! systemd takes orders from root only. `install` grants the app's user these few through sudo, argument by argument.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::unistd::Uid;

use super::SUPERVISE_SLACK;
use crate::app::{App, Instance};
use crate::command::{self, Run};
use crate::deadline::Deadline;
use crate::outcome::quote;
use crate::process::{self, Bond};

/// What systemd, and sudo before it, may take beyond the time that a unit has.
const SYSTEMD_SLACK: Duration = Duration::from_secs(30);
/// How many lines of what sudo says an error quotes.
const QUOTED_LINES: usize = 2;
/// How long sudo may take to tell whether it lets the user give an order.
const TRIAL: Duration = Duration::from_secs(30);

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
        // An app of this name may have been another user's before.
        let by_owner = format!("_UID={}", app.owner.uid);
        let journal = ["--output=export", "--output-fields=MESSAGE,SYSLOG_IDENTIFIER", "--no-pager", "--quiet"];
        let words = match self {
            Order::Start => vec!["start", &unit],
            Order::Stop => vec!["stop", &unit],
            Order::ResetFailed => vec!["reset-failed", &unit],
            Order::Read => [&[written.as_str(), &by_owner], journal.as_slice(), &["--reverse"]].concat(),
            Order::Follow => [&[written.as_str(), &by_owner], journal.as_slice(), &["--follow", "--lines=1"]].concat(),
        };
        words.into_iter().map(str::to_owned).collect()
    }

    /// A program and its arguments by which the caller may give it.
    fn words(self, app: &App, instance: &Instance) -> Result<(PathBuf, Vec<String>)> {
        match Uid::effective().is_root() {
            true => Ok((command::find(self.program())?, self.arguments(app, instance))),
            false => self.by_sudo(app, instance, &["--non-interactive"]),
        }
    }

    /// sudo with these options, and the program that it is to run with its arguments.
    fn by_sudo(self, app: &App, instance: &Instance, options: &[&str]) -> Result<(PathBuf, Vec<String>)> {
        let program = command::find(self.program())?.display().to_string();
        let words = options.iter().map(|option| (*option).to_owned()).chain(["--".to_owned(), program]);
        Ok((command::find("sudo")?, words.chain(self.arguments(app, instance)).collect()))
    }

    /// Checks whether sudo lets the caller, who is not root, give it: asks sudo, and gives it where that does no harm.
    fn try_out(self, app: &App, instance: &Instance) -> Result<()> {
        let granted = self.is_listed(app, instance).and_then(|()| match self {
            // What takes a password is listed as well, and this one can be given at any time.
            Order::ResetFailed => self.is_obeyed(app, instance),
            _ => Ok(()),
        });
        let words = self.arguments(app, instance).join(" ");
        granted.with_context(|| format!("sudo does not run {} {words} without a password", self.program()))
    }

    fn is_listed(self, app: &App, instance: &Instance) -> Result<()> {
        let (sudo, words) = self.by_sudo(app, instance, &["--non-interactive", "--list"])?;
        let ended = Run::new(&sudo, words).finish(Deadline::after(TRIAL))?;
        let said = quote(ended.stderr.lines(), QUOTED_LINES);
        match ended.status.code() {
            Some(0) => Ok(()),
            // It has no --list, like the first versions of sudo-rs.
            Some(_) if ended.stderr.to_lowercase().contains("usage") => Ok(()),
            Some(_) if said.is_empty() => bail!("a rule that it reads later takes back what the app's grants"),
            Some(_) => bail!(said),
            None => bail!("it was {}", command::describe(ended.status)),
        }
    }

    fn is_obeyed(self, app: &App, instance: &Instance) -> Result<()> {
        let (sudo, words) = self.by_sudo(app, instance, &["--non-interactive"])?;
        let ended = Run::new(&sudo, words).finish(Deadline::after(TRIAL))?;
        let said = quote(ended.stderr.lines(), QUOTED_LINES);
        match ended.status.code() {
            // Then it was systemctl that failed: systemd has not met the unit yet.
            Some(code) if code == 0 || ended.stderr.lines().any(|line| line.starts_with("Failed to ")) => Ok(()),
            Some(_) if !said.is_empty() => bail!(said),
            _ => bail!("it was {}", command::describe(ended.status)),
        }
    }

    /// The command that gives it, not started yet; its stdout and stderr are piped.
    pub fn command(self, app: &App, instance: &Instance) -> Result<Command> {
        let (program, arguments) = self.words(app, instance)?;
        let mut command = command::prepare(&program, arguments);
        command.current_dir("/").stdout(Stdio::piped()).stderr(Stdio::piped());
        process::isolate(&mut command, Bond::Free);
        Ok(command)
    }

    fn give(self, app: &App, instance: &Instance) -> Result<()> {
        let (program, arguments) = self.words(app, instance)?;
        let patience = app.config.run.stop_timeout + 2 * SUPERVISE_SLACK + SYSTEMD_SLACK;
        Run::new(&program, arguments).output(Deadline::after(patience)).map(drop)
    }
}

/// Checks whether sudo lets the caller give every order about every instance; an error names the first that it does not.
/// Root needs no leave.
pub fn try_orders(app: &App) -> Result<()> {
    if Uid::effective().is_root() {
        return Ok(());
    }
    let instances = app.config.instances.iter();
    let mut orders = instances.flat_map(|instance| Order::ALL.map(|order| (order, instance)));
    orders.try_for_each(|(order, instance)| order.try_out(app, instance))
}

/// Whether systemd is about to start an instance's unit, or to restart it. Where it cannot be asked, it is not.
pub fn is_coming(app: &App, instance: &Instance) -> bool {
    jobs(app, instance).iter().any(|kind| kind != "stop")
}

/// Whether systemd is about to change an instance's unit, be it that it ends it. Where it cannot be asked, it is not.
pub fn has_job(app: &App, instance: &Instance) -> bool {
    !jobs(app, instance).is_empty()
}

/// The kinds of what systemd has still to do with an instance's unit.
fn jobs(app: &App, instance: &Instance) -> Vec<String> {
    let unit = app.instance_unit(instance);
    let words = ["list-jobs", "--no-legend", "--no-pager", "--plain", &unit];
    let asked = command::find("systemctl").and_then(|program| Run::new(&program, words).output(Deadline::after(TRIAL)));
    // JOB UNIT TYPE STATE
    let jobs = asked.map(|output| output.stdout).unwrap_or_default();
    let jobs = jobs.lines().map(|line| line.split_whitespace().collect::<Vec<&str>>());
    let kind = |job: Vec<&str>| match job[..] {
        [_, of, kind, ..] if of == unit => Some(kind.to_owned()),
        _ => None,
    };
    jobs.filter_map(kind).collect()
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
