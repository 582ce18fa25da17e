//! The leash: a small process between us and a program that we run, the reaper of all that the program starts. When we
//! die, however that happened, it ends them all, so that nothing lingers that nobody owns; otherwise it ends as the
//! program ends. It is a fork of ours without a program file of its own.
#![allow(unsafe_code)]

use std::io;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, raise, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, getppid};

use super::{Pid, Process, kill_tree, tree};

/// What the kernel tells the leash when its parent has ended.
const PARENT_ENDED: Signal = Signal::SIGHUP;
/// Says to a leash that its program was asked to end: all that it started may take as long as it needs.
pub const LET_END: Signal = Signal::SIGUSR1;
/// Asks a leash to end all that its program started, and itself. Killing it first would leave them to nobody.
const END_ALL: Signal = Signal::SIGUSR2;
/// How long processes that do not die (stuck in the kernel, or another user's) are killed again and again.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause between two rounds of killing.
const ROUND: Duration = Duration::from_millis(2);

/// How long the leash stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// As long as the program itself; what it leaves behind is the caller's to reap.
    Ended,
    /// As long as anything that the program started, if that ends well, for it has left its work to a child, as daemons
    /// do; or if it was asked to end. Otherwise what it leaves behind is killed.
    AllEnded,
}

/// Forks. The new process returns from here and becomes the program; this one becomes its leash and never returns.
/// `parent` is who started this process.
pub fn put(parent: Pid, until: Until) -> io::Result<()> {
    SigSet::all().thread_set_mask()?;
    prctl::set_child_subreaper(true)?;
    prctl::set_pdeathsig(PARENT_ENDED)?;
    // SAFETY: this process has one thread, for it was forked itself a moment ago.
    match unsafe { fork() }? {
        // Should the leash be killed together with its parent, the kernel ends at least the program itself.
        ForkResult::Child => Ok(prctl::set_pdeathsig(Signal::SIGKILL)?),
        ForkResult::Parent { child } => hold(parent, Pid::from_raw(child.as_raw()), until),
    }
}

/// Ends a program with all that it started, by its leash; a leash that does not do so is killed.
pub fn end_leashed(leash: &mut Child) {
    let _ = Process::with_pid(Pid::of(leash)).map(|process| process.ask_to_end(END_ALL));
    let began = Instant::now();
    while matches!(leash.try_wait(), Ok(None)) {
        if began.elapsed() > 2 * PATIENCE {
            kill_tree(Pid::of(leash));
        }
        thread::sleep(ROUND);
    }
}

fn hold(parent: Pid, program: Pid, until: Until) -> ! {
    super::spawn::close_descriptors();
    let _ = prctl::set_name(c"leash");
    let mut wakes = SigSet::empty();
    wakes.add(Signal::SIGCHLD);
    wakes.add(PARENT_ENDED);
    wakes.add(LET_END);
    wakes.add(END_ALL);
    let (mut ended, mut was_asked) = (None, false);
    loop {
        // Asked each time: the same signal may have been meant for the app.
        if getppid().as_raw() != parent.raw() {
            end_all();
        }
        let all_gone = reap(program, &mut ended);
        // It comes before what the program itself is sent, so it is there by now.
        was_asked |= is_pending(LET_END);
        let stays = until == Until::AllEnded && (was_asked || matches!(ended, Some(WaitStatus::Exited(_, 0))));
        if let Some(status) = ended.filter(|_| all_gone || !stays) {
            if until == Until::AllEnded {
                kill_all();
            }
            end_like(status);
        }
        match wakes.wait() {
            Ok(END_ALL) => end_all(),
            woken => was_asked |= woken == Ok(LET_END),
        }
    }
}

/// Reaps whoever has ended and notes how the program did. True: there is no child left.
fn reap(program: Pid, ended: &mut Option<WaitStatus>) -> bool {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return false,
            Ok(status) if status.pid().is_some_and(|pid| pid.as_raw() == program.raw()) => *ended = Some(status),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return true,
        }
    }
}

/// Whether a signal has come that was not waited for yet.
fn is_pending(signal: Signal) -> bool {
    let mut pending = *SigSet::empty().as_ref();
    // SAFETY: the kernel writes the set that it is given, which is this function's own.
    let asked = unsafe { libc::sigpending(&raw mut pending) };
    // SAFETY: reads the same set; the signal is one of the kernel's.
    asked == 0 && unsafe { libc::sigismember(&raw const pending, signal as i32) } == 1
}

/// Kills all that the program started, and ends.
fn end_all() -> ! {
    kill_all();
    exit(1)
}

/// Kills all that the program started. Whoever forks meanwhile is found in the next round.
fn kill_all() {
    let began = Instant::now();
    while !reap(Pid::own(), &mut None) && began.elapsed() < PATIENCE {
        for process in tree(Pid::own()).into_iter().skip(1) {
            let _ = process.signal(Signal::SIGKILL);
        }
        thread::sleep(ROUND);
    }
}

/// Ends with the same exit status, or by the same signal.
fn end_like(status: WaitStatus) -> ! {
    if let WaitStatus::Signaled(_, signal, _) = status {
        // The program has left its core already.
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
        super::spawn::reset_signal(signal as i32);
        let _ = raise(signal);
        let _ = sigprocmask(SigmaskHow::SIG_UNBLOCK, Some(&SigSet::from_iter([signal])), None);
        exit(128 + signal as i32);
    }
    match status {
        WaitStatus::Exited(_, code) => exit(code),
        _ => exit(1),
    }
}

/// Ends without the things that a whole program does at its end: this is half of one.
fn exit(code: i32) -> ! {
    // SAFETY: ends the process at once and touches nothing.
    unsafe { libc::_exit(code) }
}
