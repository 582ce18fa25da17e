//! Keeping an instance running in the foreground: start its programs, restart each with backoff, log, replace what holds too
//! much memory, and on request end all of it.
//!
//! Each program runs on a leash (see `process`), which ends as the program and all that it started have ended, and ends it
//! should supervise be killed. supervise is the subreaper (prctl(2)) of all, so nothing leaves its tree.

mod kept;
mod liveness;
mod replacement;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use serde::{Deserialize, Serialize};

use crate::app::{App, Instance, Member, Port, Runner};
use crate::deadline::poll_timeout;
use crate::fingerprint::Named;
use crate::health;
use crate::lock::{self, Lock};
use crate::nginx;
use crate::outcome::{Exit, failure, usage};
use crate::output;
use crate::process::{self, Pid};
use crate::threads;

use super::differences::{self, Settings};
use super::output::Output;
use super::watch::answers_at;
use super::workers::{self, Place};
use super::{CHECK, is_listener_within};

use kept::{Kept, Now};
use liveness::Liveness;
use replacement::Replacement;

/// The tool's name.
pub const PROGRAM: &str = "supervise";
/// How the line begins after which the output of a program's present life stands.
pub const STARTED: &str = "started ";
/// What supervise asks systemd for beyond the app's own time.
const SLACK: Duration = Duration::from_secs(10);
/// How often processes that are being killed are looked at, for some may have forked meanwhile.
const KILL_ROUND: Duration = Duration::from_millis(10);
/// What tells supervise that workers have moved.
pub const WORKERS_MOVED: Signal = Signal::SIGHUP;

/// What supervise tells the other tools, in its lock file: true while it holds the lock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Note {
    /// What is kept running.
    pub members: Vec<MemberNote>,
    /// Where workers may run, so far as supervise has heard and acted on it.
    pub place: Place,
    /// What it was started with.
    pub settings: Settings,
    /// The environments that its processes were given, each that differs from the others; empty: its supervise is of a version
    /// that did not tell.
    #[serde(default)]
    pub environments: Vec<Named>,
}

/// One program that is kept running.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct MemberNote {
    /// What it is called: `0`, `mail.0`.
    pub name: String,
    /// Where it listens; None: it is a worker.
    pub port: Option<Port>,
    /// Its leash, below which its processes are; None: it is down at the moment.
    pub leash: Option<i32>,
    /// How often it was restarted, or is about to be, since supervise was started.
    pub restarts: u64,
    /// How it ended last; None: it has not.
    pub last_exit: Option<String>,
    /// When that was, in seconds since 1970.
    pub last_exit_at: Option<u64>,
    /// The last lines that it had printed by then, as an error quotes them, empty when there were none; None: it has not
    /// ended, or its supervise is of a version that did not tell.
    #[serde(default)]
    pub last_words: Option<String>,
    /// Whether it was asked to end for good.
    pub is_ending: bool,
}

impl MemberNote {
    /// Whether it was started, however that went, and is to stay.
    pub fn is_settled(&self) -> bool {
        !self.is_ending && (self.leash.is_some() || self.restarts > 0)
    }
}

impl Note {
    /// Reads a note. None: it cannot be read, for supervise is just about to write it.
    pub fn read(text: &str) -> Option<Note> {
        serde_json::from_str(text).ok()
    }

    /// The processes that serve.
    pub fn processes(&self) -> impl Iterator<Item = &MemberNote> {
        self.members.iter().filter(|member| member.port.is_some())
    }

    /// The workers.
    pub fn workers(&self) -> impl Iterator<Item = &MemberNote> {
        self.members.iter().filter(|member| member.port.is_none())
    }
}

/// Whether a process with these arguments keeps this instance.
pub fn is_of(words: &[OsString], app: &App, instance: &Instance) -> bool {
    let [program, option, home, name] = words else { return false };
    Path::new(program).file_name() == Some(PROGRAM.as_ref())
        && option == "--home"
        && home == app.home()
        && name == instance.name()
}

/// Keeps an instance running, by the settings that belong to its release, until SIGTERM or SIGINT asks for its end.
pub fn supervise(app: &App, instance: &Instance) -> Result<()> {
    if app.runner() == Runner::Compose {
        return Err(usage(format!("cannot supervise {instance}: Docker keeps containers running")));
    }
    // Before anybody can know of us and send one.
    let signals = receive_signals()?;
    let path = app.instance_lock(instance);
    let lock = Lock::take(&path)?.ok_or_else(|| {
        let holder = lock::holder(&path).ok().flatten().map_or_else(String::new, |(pid, _)| format!(" by pid {pid}"));
        failure(Exit::Busy, format!("cannot supervise {instance}: it is already supervised{holder}"))
    })?;
    prctl::set_child_subreaper(true).context("cannot become the reaper of the app's processes")?;
    let app = &app.as_run(instance)?;
    let mut keeper = Keeper::new(app, instance, lock, signals)?;
    app.complaint.iter().for_each(|complaint| keeper.output.say(complaint));
    let ports = keeper.ports();
    let listed: Vec<String> = ports.iter().map(Port::to_string).collect();
    let on = if listed.len() > 1 { "ports" } else { "port" };
    keeper.output.say(format_args!("keeping {} {instance} on {on} {}", app.name(), listed.join(", ")));
    nginx::tell_count(app, instance, ports.len())?;
    keeper.replacement.hold(app, instance, &keeper.members, &mut keeper.output);
    keeper.start_all()?;
    tell_when_ready(app, instance, ports)?;
    keeper.run()
}

/// From now on, signals wait until they are asked for.
fn receive_signals() -> Result<SignalFd> {
    let handled = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD, WORKERS_MOVED]);
    handled.thread_block().context("cannot block signals")?;
    let signals = SignalFd::with_flags(&handled, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC);
    signals.context("cannot receive signals")
}

/// As soon as the app is healthy, has nginx send requests here again, if the other instance has them, and tells systemd, if it
/// was systemd that started us: until then its start takes.
fn tell_when_ready(app: &App, instance: &Instance, ports: Vec<Port>) -> Result<()> {
    if std::env::var_os("NOTIFY_SOCKET").is_none() && !nginx::is_away(app, instance) {
        return Ok(());
    }
    extend_timeout(app.config.health.timeout);
    let (app, instance, began) = (app.clone(), instance.clone(), Instant::now());
    let teller = threads::builder().and_then(|builder| {
        builder.spawn(move || {
            let is_ready = |port: &Port| {
                answers_at(&app, *port, CHECK).is_ok() && is_listener_within(&app, *port, Pid::own()).is_ok()
            };
            while !ports.iter().all(is_ready) {
                thread::sleep(health::pause(began.elapsed()));
            }
            // Where that fails, it is behind the other one in any case.
            let _ = nginx::come_back(&app, &instance);
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
            process::release_startup_code();
        })
    });
    teller.map(drop).context("cannot wait until the app is healthy")
}

/// Asks systemd, if it was systemd that started us, for this much time from now on and a little more: the unit may have been
/// laid before the configuration was changed.
pub fn extend_timeout(time: Duration) {
    let micros = u32::try_from((time + SLACK).as_micros()).unwrap_or(u32::MAX);
    // Without systemd there is nobody to ask.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::ExtendTimeoutUsec(micros)]);
}

/// What signals ask for.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    to_end: bool,
    about_workers: bool,
}

struct Keeper<'a> {
    app: &'a App,
    instance: &'a Instance,
    lock: Lock,
    output: Output,
    signals: SignalFd,
    members: Vec<Kept>,
    replacement: Replacement,
    liveness: Liveness,
    place: Place,
    settings: Settings,
    told: Note,
    ends: bool,
    /// How many processes were found that a leash has left behind.
    orphans: usize,
}

impl<'a> Keeper<'a> {
    fn new(app: &'a App, instance: &'a Instance, lock: Lock, signals: SignalFd) -> Result<Keeper<'a>> {
        let count = app.config.processes();
        let output = Output::of(app, instance, count > 1 || !app.config.workers.is_empty())?;
        let members = (0..count).map(|index| Kept::new(Member::Process { index, slot: index })).collect();
        let (replacement, liveness) = (Replacement::new(app), Liveness::new(app));
        let (place, settings) = (Place::default(), differences::settings(&app.config));
        let (told, ends, orphans) = (Note::default(), false, 0);
        let keeper = Keeper {
            app,
            instance,
            lock,
            output,
            signals,
            members,
            replacement,
            liveness,
            place,
            settings,
            told,
            ends,
            orphans,
        };
        keeper.lock.note(&serde_json::to_string(&keeper.note())?)?;
        Ok(keeper)
    }

    /// The ports of its processes.
    fn ports(&self) -> Vec<Port> {
        self.members.iter().filter_map(|member| member.port(self.instance)).collect()
    }

    fn note(&self) -> Note {
        let told = self.members.iter().filter(|member| member.is_told);
        let of_processes = told.clone().filter(|member| member.port(self.instance).is_some() && !member.is_ending());
        let environments: BTreeSet<&Named> = of_processes.filter_map(|member| member.environment.as_ref()).collect();
        Note {
            environments: environments.into_iter().cloned().collect(),
            members: told.map(|member| member.note(self.instance)).collect(),
            place: self.place.clone(),
            settings: self.settings.clone(),
        }
    }

    /// Starts all processes, and the workers if they are to be beside this instance. That the first cannot be started at
    /// all is told at once.
    fn start_all(&mut self) -> Result<()> {
        let start = |member: &mut Kept| {
            let started = member.start(self.app, self.instance, &mut self.output);
            // For those who wait for it, and find nobody. It is no death: nobody starts it again.
            started.inspect_err(|failure| member.remember(format!("{failure:#}"), String::new()))
        };
        self.members.iter_mut().try_for_each(start).inspect_err(|_| self.tell())?;
        self.move_workers()?;
        self.tell();
        Ok(())
    }

    fn run(&mut self) -> Result<()> {
        // It may be long before something happens.
        self.liveness.step(self.instance, &mut self.members, &mut self.output);
        loop {
            self.wait()?;
            self.output.copy();
            let asked = self.asked();
            if asked.to_end && !self.ends {
                self.ends = true;
                extend_timeout(self.app.config.run.stop_timeout);
                self.members.iter_mut().for_each(|member| member.end(self.app, false));
            }
            if asked.about_workers && !self.ends {
                self.move_workers().unwrap_or_else(|error| self.output.say(format_args!("{error:#}")));
            }
            // Only who has ended leaves orphans.
            if self.reap()? || self.orphans > 0 {
                self.orphans = self.kill_orphans();
            }
            for member in &mut self.members {
                member.step(self.app, self.instance, &mut self.output, self.orphans == 0);
            }
            self.members.retain(|member| !matches!(member.now, Now::Gone));
            if !self.ends {
                self.replacement.step(self.app, self.instance, &mut self.members, &mut self.output);
                if self.liveness.step(self.instance, &mut self.members, &mut self.output) {
                    // What it takes to ask is not needed again for some seconds.
                    process::release_startup_code();
                }
            }
            self.tell();
            if self.members.is_empty() && self.orphans == 0 {
                self.output.copy();
                self.output.say("stopped");
                self.output.finish();
                return Ok(());
            }
        }
    }

    /// Sleeps until something happens, or there is something to do.
    fn wait(&self) -> Result<()> {
        let goes_on = !self.ends;
        let replacement = goes_on.then(|| self.replacement.pause(&self.members)).flatten();
        let liveness = goes_on.then(|| self.liveness.pause()).flatten();
        let pauses = self.members.iter().filter_map(Kept::pause).chain(replacement).chain(liveness);
        let orphans = (self.orphans > 0).then_some(KILL_ROUND);
        let pause = pauses.chain(orphans).min();
        let mut watched = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        watched.extend(self.output.pending().map(|(end, what)| PollFd::new(end, what)));
        let answers = self.liveness.pending().filter(|_| goes_on);
        watched.extend(answers.map(|answer| PollFd::new(answer, PollFlags::POLLIN)));
        match poll(&mut watched, poll_timeout(pause)) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error).context("cannot wait for the app"),
        }
    }

    fn asked(&self) -> Asked {
        let mut asked = Asked::default();
        while let Ok(Some(signal)) = self.signals.read_signal() {
            let number = signal.ssi_signo.cast_signed();
            asked.to_end |= [libc::SIGTERM, libc::SIGINT].contains(&number);
            asked.about_workers |= number == WORKERS_MOVED as i32;
        }
        asked
    }

    /// Starts the workers that are to be beside this instance, and ends those that are not.
    fn move_workers(&mut self) -> Result<()> {
        self.place = workers::place(self.app)?;
        for worker in &self.app.config.workers {
            let is_wanted = self.place.may_run(self.instance, worker);
            for index in 0..worker.count {
                let who = Member::Worker { name: worker.name.clone(), index };
                let present = self.members.iter_mut().find(|member| member.who == who && !member.is_ending());
                match (is_wanted, present) {
                    (false, Some(present)) => present.end(self.app, false),
                    (true, None) => self.members.push(Kept::new(who)),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Learns which programs have ended. True: at least one process has.
    fn reap(&mut self) -> Result<bool> {
        let mut any = false;
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(any),
                Err(Errno::EINTR) => {}
                Err(error) => bail!("cannot wait for the app: {error}"),
                Ok(status) => {
                    any = true;
                    let pid = status.pid().map(|pid| Pid::from_raw(pid.as_raw()));
                    let ended =
                        self.members.iter_mut().find(|member| member.leash().is_some() && member.leash() == pid);
                    if let Some(member) = ended {
                        member.has_ended(status, &mut self.output);
                    }
                }
            }
        }
    }

    /// What a leash that was killed has left behind.
    fn orphans(&self) -> impl Iterator<Item = Pid> {
        let leashes: Vec<Pid> = self.members.iter().filter_map(Kept::leash).collect();
        process::children(Pid::own()).into_iter().filter(move |child| !leashes.contains(child))
    }

    fn kill_orphans(&self) -> usize {
        let orphans: Vec<process::Process> = self.orphans().flat_map(process::tree).collect();
        for orphan in &orphans {
            // One that has gone, or changed its user, is no reason not to kill the others.
            let _ = orphan.signal(Signal::SIGKILL);
        }
        orphans.len()
    }

    /// Tells everybody what has changed.
    fn tell(&mut self) {
        let note = self.note();
        if note == self.told {
            return;
        }
        // Where that fails, for the disk is full, it is tried again when something else has happened: the app goes on.
        let text = serde_json::to_string(&note).unwrap_or_default();
        if self.lock.note(&text).is_ok() {
            self.told = note;
            // Something was started, or has ended: what that took is not needed for long.
            process::release_startup_code();
        }
    }
}

/// How much memory a program holds with all its children, in bytes.
fn memory(leash: Pid) -> u64 {
    let below: Vec<process::Process> = process::tree(leash).into_iter().skip(1).collect();
    process::memory(&below)
}

/// That a process holds more than it may.
fn holds_too_much(held: u64, limit: u64) -> String {
    format!("it held {}, max_memory is {}", output::bytes(held), output::bytes(limit))
}

/// A pipe on which a thread says what has come of some work. Nobody has to wait for it: there is nothing to be read before.
fn answer_of<A: AsRef<[u8]>>(work: impl FnOnce() -> A + Send + 'static) -> io::Result<io::PipeReader> {
    let (answer, mut end) = io::pipe()?;
    fcntl(&answer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    threads::builder().and_then(|builder| builder.spawn(move || io::Write::write_all(&mut end, work().as_ref())))?;
    Ok(answer)
}
