//! One program of an instance, from start to start.

use std::ffi::OsString;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;

use super::{KILL_ROUND, MemberNote, STARTED};
use crate::app::config::StopSignalTo;
use crate::app::{App, Instance, Member, Port, config};
use crate::command;
use crate::fingerprint::Named;
use crate::process::{self, Bond, LET_END, Limits, Pid, Process, Until};
use crate::runner::differences;
use crate::runner::output::Output;

/// The first pause before a restart; it doubles from crash to crash.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause before a restart.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// What lived this long has recovered: the next pause is the first one again.
const RECOVERED: Duration = Duration::from_secs(30);

/// A program that is kept running.
pub struct Kept {
    /// Which.
    pub who: Member,
    /// Where it is in its life.
    pub now: Now,
    /// Whether the other tools are told of it.
    pub is_told: bool,
    pause: Duration,
    restarts: u64,
    last_exit: Option<LastExit>,
    /// What it was given when it was started last; None: it was not yet, or that cannot be noted.
    pub environment: Option<Named>,
}

/// How a program ended.
#[derive(Clone)]
struct LastExit {
    how: String,
    /// In seconds since 1970.
    at: u64,
    /// The last lines that it had printed.
    words: String,
}

/// Where a program is in its life.
#[derive(Clone, Copy, Debug)]
pub enum Now {
    /// It runs, below this leash, which ends as it ends.
    Running { leash: Pid, since: Instant },
    /// It is down, and started at this moment.
    Down { until: Instant },
    /// It was asked to end; what is left at this moment is killed. Afterwards it may be started again.
    Ending { leash: Pid, kill_at: Instant, again: bool },
    /// It has ended for good.
    Gone,
}

impl Kept {
    /// One that is about to be started.
    pub fn new(who: Member) -> Kept {
        let now = Now::Down { until: Instant::now() };
        Kept { who, now, is_told: true, pause: FIRST_PAUSE, restarts: 0, last_exit: None, environment: None }
    }

    /// One that is to take the place of another, which ends for this reason: its record goes on.
    pub fn in_place_of(old: &Kept, who: Member, reason: String) -> Kept {
        let last_exit = Some(LastExit { how: reason, at: process::unix_now(), words: String::new() });
        Kept { is_told: false, restarts: old.restarts, last_exit, ..Kept::new(who) }
    }

    /// Where it listens; None: it is a worker.
    pub fn port(&self, instance: &Instance) -> Option<Port> {
        match self.who {
            Member::Process { slot, .. } => instance.port_of(slot),
            Member::Worker { .. } => None,
        }
    }

    /// Its leash; None: it is down.
    pub fn leash(&self) -> Option<Pid> {
        match self.now {
            Now::Running { leash, .. } | Now::Ending { leash, .. } => Some(leash),
            Now::Down { .. } | Now::Gone => None,
        }
    }

    /// Whether it was asked to end for good.
    pub fn is_ending(&self) -> bool {
        matches!(self.now, Now::Ending { again: false, .. } | Now::Gone)
    }

    /// What the other tools are told.
    pub fn note(&self, instance: &Instance) -> MemberNote {
        MemberNote {
            name: self.who.to_string(),
            port: self.port(instance),
            leash: self.leash().map(Pid::raw),
            restarts: self.restarts,
            last_exit: self.last_exit.as_ref().map(|exit| exit.how.clone()),
            last_exit_at: self.last_exit.as_ref().map(|exit| exit.at),
            last_words: self.last_exit.as_ref().map(|exit| exit.words.clone()),
            is_ending: self.is_ending(),
        }
    }

    /// How long it can be left alone; None: until something happens.
    pub fn pause(&self) -> Option<Duration> {
        match self.now {
            Now::Running { .. } | Now::Gone => None,
            Now::Down { until } => Some(until.saturating_duration_since(Instant::now())),
            Now::Ending { kill_at, .. } => Some(kill_at.saturating_duration_since(Instant::now()).max(KILL_ROUND)),
        }
    }

    /// Does what is to be done at this moment. It is started only where nothing is left of an earlier life.
    pub fn step(&mut self, app: &App, instance: &Instance, output: &mut Output, may_start: bool) {
        match self.now {
            // When that fails (a release or an env file that cannot be read), it is tried again later: whoever mends it need
            // not know that supervise has to be told.
            Now::Down { until } if may_start && Instant::now() >= until => {
                if let Err(failure) = self.start(app, instance, output) {
                    self.record(format!("{failure:#}"), output);
                    self.back_off(output);
                }
            }
            Now::Ending { leash, kill_at, .. } if Instant::now() >= kill_at => {
                // Its leash as well has to go on in order to see them end.
                let _ = Process::with_pid(leash).map(|leash| leash.signal(Signal::SIGCONT));
                end(leash, usize::MAX, Signal::SIGKILL);
            }
            _ => {}
        }
    }

    /// Starts it in the release that the instance has now.
    pub fn start(&mut self, app: &App, instance: &Instance, output: &mut Output) -> Result<()> {
        let release = app.release_of(instance)?.ok_or_else(|| anyhow!("cannot run {instance}: it has no release"))?;
        // What it says from here on, and nothing of an earlier life, is why this one ends.
        let (stdout, stderr) = output.ends(&self.who)?;
        let mut command = self.command(app)?;
        let environment = app.environment(&release, Some((instance, &self.who)))?;
        self.environment = differences::given(app, &environment);
        command.envs(environment).current_dir(app.release(&release));
        command.stdout(stdout).stderr(stderr);
        process::isolate(&mut command, Bond::Leashed(Until::AllEnded));
        let config::Run { open_files, nice, .. } = app.config.run;
        let wanted = Limits { open_files, nice };
        // A release that comes back may have had more than install has laid last; deploy tells of what it has not laid yet.
        let possible = wanted.possible();
        process::limit(&mut command, possible);
        let child = command.spawn().with_context(|| format!("cannot run {release}"))?;
        if let (Some(count), true) = (possible.open_files, possible.open_files != wanted.open_files) {
            output.say_of(&self.who, format_args!("open_files is {count}: run install again for more"));
        }
        if let (Some(nice), true) = (possible.nice, possible.nice != wanted.nice) {
            output.say_of(&self.who, format_args!("nice is {nice}: run install again for less"));
        }
        output.say_of(&self.who, format_args!("{STARTED}{release}"));
        self.now = Now::Running { leash: Pid::of(&child), since: Instant::now() };
        Ok(())
    }

    /// Its command line.
    fn command(&self, app: &App) -> Result<Command> {
        let (line, arguments) = match &self.who {
            Member::Process { .. } => (app.config.run.command.clone(), &[][..]),
            Member::Worker { name, .. } => {
                let worker = app.config.workers.iter().find(|worker| worker.name == *name);
                let worker = worker.with_context(|| format!("cannot find worker {name}"))?;
                let arguments = worker.args.as_slice();
                let passed_on = if arguments.is_empty() { "" } else { " \"$@\"" };
                (format!("{}{passed_on}", worker.command), arguments)
            }
        };
        let mut words: Vec<OsString> = vec!["-c".into(), line.into()];
        if !arguments.is_empty() {
            words.push("sh".into());
            words.extend(arguments.iter().map(Into::into));
        }
        Ok(command::prepare(&command::find("sh")?, words))
    }

    /// Its leash has ended, and with it all that it started.
    pub fn has_ended(&mut self, status: WaitStatus, output: &mut Output) {
        output.copy();
        match self.now {
            Now::Ending { again: false, .. } => self.now = Now::Gone,
            Now::Ending { again: true, .. } => self.back_off(output),
            Now::Running { since, .. } => {
                self.recover(since);
                self.record(exit_in_words(status), output);
                self.back_off(output);
            }
            Now::Down { .. } | Now::Gone => {}
        }
    }

    /// Asks it to end, within the time that the configuration gives it.
    pub fn end(&mut self, app: &App, again: bool) {
        self.end_within(app, again, app.config.run.stop_timeout);
    }

    /// Asks it to end, and has it killed when it has not within this time.
    pub fn end_within(&mut self, app: &App, again: bool, patience: Duration) {
        self.now = match self.now {
            Now::Running { leash, since } => {
                self.recover(since);
                if let Some(leash) = Process::with_pid(leash) {
                    let _ = leash.ask_to_end(LET_END);
                }
                let asked = match self.stop_signal_to(app) {
                    StopSignalTo::Group => usize::MAX,
                    StopSignalTo::Main => 1,
                };
                end(leash, asked, app.config.run.stop_signal);
                Now::Ending { leash, kill_at: Instant::now() + patience, again }
            }
            Now::Ending { leash, kill_at, again: before } => Now::Ending { leash, kill_at, again: before && again },
            Now::Down { .. } | Now::Gone => Now::Gone,
        };
    }

    /// Who of its processes is asked to end.
    fn stop_signal_to(&self, app: &App) -> StopSignalTo {
        let own = match &self.who {
            Member::Process { .. } => None,
            Member::Worker { name, .. } => app.config.workers.iter().find(|worker| worker.name == *name),
        };
        own.and_then(|worker| worker.stop_signal_to).unwrap_or(app.config.run.stop_signal_to)
    }

    fn recover(&mut self, since: Instant) {
        if since.elapsed() >= RECOVERED {
            self.pause = FIRST_PAUSE;
        }
    }

    /// Remembers how it ended, or why it is about to, and says so.
    pub fn record(&mut self, exit: String, output: &mut Output) {
        let words = output.last_words(&self.who);
        output.say_of(&self.who, &exit);
        self.restarts += 1;
        self.remember(exit, words);
    }

    /// Remembers how it ended, and the last lines that it had printed.
    pub fn remember(&mut self, how: String, words: String) {
        self.last_exit = Some(LastExit { how, at: process::unix_now(), words });
    }

    fn back_off(&mut self, output: &mut Output) {
        output.say_of(&self.who, format_args!("starting it again in {} ms", self.pause.as_millis()));
        self.now = Now::Down { until: Instant::now() + self.pause };
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

/// Asks the first so many processes below a leash to end, by this signal.
fn end(leash: Pid, count: usize, signal: Signal) {
    for process in process::tree(leash).into_iter().skip(1).take(count) {
        // One that has gone, or changed its user, is no reason not to ask the others.
        let _ = process.ask_to_end(signal);
    }
}

fn exit_in_words(status: WaitStatus) -> String {
    match status {
        WaitStatus::Exited(_, code) => format!("exit status {code}"),
        WaitStatus::Signaled(_, signal, _) => format!("killed by {signal}"),
        _ => "all its processes ended".to_owned(),
    }
}
