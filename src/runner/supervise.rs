//! Keeping one instance running in the foreground: start, restart with backoff, log, and on request end the whole tree.
//!
//! The app runs on a leash (see `process`), which ends it should supervise be killed. supervise is the subreaper (prctl(2))
//! of both, so nothing leaves its tree, and "all gone" is what waitpid(2) says when there is no child left.

use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use serde::{Deserialize, Serialize};

use crate::app::{App, Instance, Runner};
use crate::command;
use crate::health;
use crate::lock::{self, Lock};
use crate::outcome::{Exit, failure, usage};
use crate::process::{self, Bond, Pid, Until};
use crate::source;

use super::output::{Output, PREFIX};
use super::watch::answers;
use super::{CHECK, is_listener_within};

/// How the line begins after which the output of the app's present life stands.
pub const STARTED: &str = "supervise: started ";
/// The first pause before a restart; it doubles from crash to crash.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause before a restart.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// An app that lived this long has recovered: the next pause is the first one again.
const RECOVERED: Duration = Duration::from_secs(30);
/// What supervise asks systemd for beyond the app's own time.
const SLACK: Duration = Duration::from_secs(10);
/// How often a tree that is being killed is looked at, for processes that forked meanwhile.
const KILL_ROUND: Duration = Duration::from_millis(10);

/// What supervise tells the other tools, in its lock file: true while it holds the lock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Note {
    /// How often the app was restarted, or is about to be, since supervise was started.
    pub restarts: u64,
    /// How the app ended last; None: it has not.
    pub last_exit: Option<String>,
}

impl Note {
    /// Reads a note; one that cannot be read counts as empty, for supervise may just be about to write it.
    pub fn read(text: &str) -> Note {
        serde_json::from_str(text).unwrap_or_default()
    }
}

/// Keeps an instance running until SIGTERM or SIGINT asks for its end.
pub fn supervise(app: &App, instance: &Instance) -> Result<()> {
    if app.runner() == Runner::Compose {
        return Err(usage(format!("cannot supervise {instance}: Docker keeps containers running")));
    }
    let path = app.instance_lock(instance);
    let lock = Lock::take(&path)?.ok_or_else(|| {
        let holder = lock::holder(&path).ok().flatten().map_or_else(String::new, |(pid, _)| format!(" by pid {pid}"));
        failure(Exit::Busy, format!("cannot supervise {instance}: it is already supervised{holder}"))
    })?;
    lock.note(&serde_json::to_string(&Note::default())?)?;
    prctl::set_child_subreaper(true).context("cannot become the reaper of the app's processes")?;
    let mut keeper = Keeper::new(app, instance, lock)?;
    keeper.output.say(format_args!("keeping {} {instance} on port {}", app.name(), instance.port()));
    tell_when_ready(app, instance);
    keeper.run()
}

/// Tells systemd, if it was systemd that started us, as soon as the app is healthy: until then its start takes.
fn tell_when_ready(app: &App, instance: &Instance) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    extend_timeout(app.config.health.timeout);
    let (app, instance, began) = (app.clone(), instance.clone(), Instant::now());
    thread::spawn(move || {
        while answers(&app, &instance, CHECK).is_err() || is_listener_within(&app, &instance, Pid::own()).is_err() {
            thread::sleep(health::pause(began.elapsed()));
        }
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        process::release_startup_code();
    });
}

/// Asks systemd, if it was systemd that started us, for this much time from now on and a little more: the unit may have been
/// laid before the configuration was changed.
fn extend_timeout(time: Duration) {
    let micros = u32::try_from((time + SLACK).as_micros()).unwrap_or(u32::MAX);
    // Without systemd there is nobody to ask.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::ExtendTimeoutUsec(micros)]);
}

/// Where the app is in its life.
#[derive(Clone, Copy)]
enum Phase {
    /// It runs; `main` is its leash, which ends as the app ends.
    Running { main: Pid, since: Instant },
    /// Its main process has ended; what it left behind is being killed.
    Clearing { lived: Duration },
    /// It is gone, and started again at this moment.
    Pausing { until: Instant },
    /// It was asked to end; what is left at this moment is killed.
    Stopping { kill_at: Instant },
}

struct Keeper<'a> {
    app: &'a App,
    instance: &'a Instance,
    lock: Lock,
    output: Output,
    signals: SignalFd,
    note: Note,
    pause: Duration,
}

impl<'a> Keeper<'a> {
    fn new(app: &'a App, instance: &'a Instance, lock: Lock) -> Result<Keeper<'a>> {
        let output = Output::of(app, instance)?;
        let handled = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD, Signal::SIGHUP]);
        handled.thread_block().context("cannot block signals")?;
        let signals = SignalFd::with_flags(&handled, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC);
        let signals = signals.context("cannot receive signals")?;
        Ok(Keeper { app, instance, lock, output, signals, note: Note::default(), pause: FIRST_PAUSE })
    }

    fn run(&mut self) -> Result<()> {
        let mut phase = self.start()?;
        loop {
            self.wait(phase)?;
            self.output.copy();
            if self.is_asked_to_stop() && !matches!(phase, Phase::Stopping { .. }) {
                extend_timeout(self.app.config.run.stop_timeout);
                self.signal_all(self.app.config.run.stop_signal);
                phase = Phase::Stopping { kill_at: Instant::now() + self.app.config.run.stop_timeout };
            }
            let Some(next) = self.step(phase)? else {
                self.output.copy();
                self.output.say("stopped");
                return Ok(());
            };
            phase = next;
        }
    }

    /// Sleeps until something happens, or the phase has something to do.
    fn wait(&self, phase: Phase) -> Result<()> {
        let pause = match phase {
            Phase::Running { .. } => None,
            Phase::Clearing { .. } => Some(KILL_ROUND),
            Phase::Pausing { until } => Some(until.saturating_duration_since(Instant::now())),
            Phase::Stopping { kill_at } => Some(kill_at.saturating_duration_since(Instant::now()).max(KILL_ROUND)),
        };
        // Rounded up to the next millisecond: rounded down, the last one would be spent in a busy loop.
        let timeout = pause.map_or(PollTimeout::NONE, |pause| {
            PollTimeout::try_from(pause.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX)
        });
        let mut watched = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        watched.extend(self.output.pending().map(|written| PollFd::new(written, PollFlags::POLLIN)));
        match poll(&mut watched, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error).context("cannot wait for the app"),
        }
    }

    /// Takes one step in the app's life. None: it was asked to end, and all of it is gone.
    fn step(&mut self, phase: Phase) -> Result<Option<Phase>> {
        let main = match phase {
            Phase::Running { main, .. } => Some(main),
            _ => None,
        };
        let reaped = reap(main)?;
        Ok(match phase {
            Phase::Running { since, .. } => Some(match reaped {
                Reaped { main: None, all_gone: false } => phase,
                Reaped { main, .. } => {
                    self.record_exit(exit_in_words(main))?;
                    self.signal_all(Signal::SIGKILL);
                    Phase::Clearing { lived: since.elapsed() }
                }
            }),
            Phase::Clearing { lived } if reaped.all_gone => {
                self.pause = if lived >= RECOVERED { FIRST_PAUSE } else { self.pause };
                Some(self.back_off())
            }
            Phase::Clearing { .. } => {
                self.signal_all(Signal::SIGKILL);
                Some(phase)
            }
            Phase::Pausing { until } if Instant::now() >= until => Some(self.start_or_pause()?),
            Phase::Pausing { .. } => Some(phase),
            Phase::Stopping { .. } if reaped.all_gone => None,
            Phase::Stopping { kill_at } => {
                if Instant::now() >= kill_at {
                    self.signal_all(Signal::SIGKILL);
                }
                Some(phase)
            }
        })
    }

    /// Starts the app; when that fails (a release or an env file that cannot be read), it is tried again later: whoever
    /// mends it need not know that supervise has to be told.
    fn start_or_pause(&mut self) -> Result<Phase> {
        let failure = match self.start() {
            Ok(phase) => return Ok(phase),
            Err(failure) => format!("{failure:#}"),
        };
        self.record_exit(failure)?;
        Ok(self.back_off())
    }

    fn back_off(&mut self) -> Phase {
        self.output.say(format_args!("starting it again in {} ms", self.pause.as_millis()));
        let until = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Phase::Pausing { until }
    }

    /// Starts the app in the release that the instance has now.
    fn start(&mut self) -> Result<Phase> {
        let instance = self.instance;
        let release = source::release_of(self.app, instance)?
            .ok_or_else(|| anyhow!("cannot run {instance}: it has no release"))?;
        let mut command = Command::new(command::find("sh")?);
        command.args(["-c", &self.app.config.run.command]);
        command.env_clear().envs(self.app.environment(&release, Some(instance))?);
        command.current_dir(self.app.release(&release)).stdin(Stdio::null());
        command.stdout(self.output.end()?).stderr(self.output.end()?);
        process::isolate(&mut command, Bond::Leashed(Until::AllEnded));
        let child = command.spawn().with_context(|| format!("cannot run {release}"))?;
        let main = Pid::of(&child);
        self.output.say(format_args!("{}{release}", &STARTED[PREFIX.len()..]));
        process::release_startup_code();
        Ok(Phase::Running { main, since: Instant::now() })
    }

    /// Tells everybody that the app has ended, and how.
    fn record_exit(&mut self, exit: String) -> Result<()> {
        self.output.copy();
        self.output.say(&exit);
        self.note.restarts += 1;
        self.note.last_exit = Some(exit);
        self.lock.note(&serde_json::to_string(&self.note)?)
    }

    fn is_asked_to_stop(&self) -> bool {
        let mut asked = false;
        while let Ok(Some(signal)) = self.signals.read_signal() {
            asked |= [libc::SIGTERM, libc::SIGINT].contains(&signal.ssi_signo.cast_signed());
        }
        asked
    }

    fn signal_all(&self, signal: Signal) {
        for process in process::tree(Pid::own()).into_iter().skip(1) {
            // One that has gone, or changed its user, is no reason not to signal the others.
            let _ = process.signal(signal);
        }
    }
}

fn exit_in_words(main: Option<WaitStatus>) -> String {
    match main {
        Some(WaitStatus::Exited(_, code)) => format!("exit status {code}"),
        Some(WaitStatus::Signaled(_, signal, _)) => format!("killed by {signal}"),
        _ => "all its processes ended".to_owned(),
    }
}

/// What reaping found.
struct Reaped {
    /// How the main process ended; None: it has not, or there is none.
    main: Option<WaitStatus>,
    /// Whether no child is left.
    all_gone: bool,
}

fn reap(main: Option<Pid>) -> Result<Reaped> {
    let mut reaped = Reaped { main: None, all_gone: false };
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return Ok(reaped),
            Ok(status) if status.pid().map(|pid| Pid::from_raw(pid.as_raw())) == main => reaped.main = Some(status),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => {
                reaped.all_gone = true;
                return Ok(reaped);
            }
            Err(error) => bail!("cannot wait for the app: {error}"),
        }
    }
}
