//! Processes as the kernel shows them: who listens on a port, who descends from whom, spawning, signalling, waiting
//! until gone. A process that vanishes while one looks at it is a normal answer everywhere here, never an error.

mod leash;
mod memory;
mod socket;
mod spawn;
mod tree;

pub use leash::{LET_END, Until, end_leashed};
pub use memory::{Kills, machine_memory};
pub use socket::{End, Owner, connections, listening, owner, stranger};
pub use spawn::{
    Bond, Limits, bound_memory, expendable, hear_of_children, isolate, limit, release_startup_code, unlimit,
};
pub use tree::{children, is_below, kill_like, kill_tree, living, tree, with_environment};

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{self, Signal};
use procfs::Current;
use procfs::process::{FDTarget, Stat, StatFlags};

/// A process id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pid(i32);

impl Pid {
    /// The id as the kernel gave it.
    pub fn from_raw(raw: i32) -> Pid {
        Pid(raw)
    }

    /// The id of a child of ours.
    pub fn of(child: &Child) -> Pid {
        Pid(child.id().cast_signed())
    }

    /// This process.
    pub fn own() -> Pid {
        Pid(std::process::id().cast_signed())
    }

    /// The number.
    pub fn raw(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One process for as long as it lives: its id together with its start time, so that a reused id is not mistaken for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: Pid,
    /// Clock ticks from boot to its start (proc(5), stat field 22).
    start: u64,
}

impl Process {
    /// The process that has this id now; None when there is none, or only a zombie is left of it.
    pub fn with_pid(pid: Pid) -> Option<Process> {
        let stat = stat(pid)?;
        // Its first thread may end before the others: only together with them is it gone, and its sockets with it.
        let gone = matches!(stat.state, 'Z' | 'X') && stat.num_threads <= 1;
        (!gone).then_some(Process { pid, start: stat.starttime })
    }

    /// Whether it still lives.
    pub fn is_alive(self) -> bool {
        Process::with_pid(self.pid) == Some(self)
    }

    /// Whether it is dying or has gone: it does nothing any more, though the kernel may be giving back what it held for a
    /// while yet, its memory first, its sockets later.
    pub fn is_ending(self) -> bool {
        stat(self.pid).is_none_or(|stat| is_ending(&stat))
    }

    /// Sends it a signal, unless it has gone. A process that we may not signal is an error.
    pub fn signal(self, signal: Signal) -> Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        match signal::kill(nix::unistd::Pid::from_raw(self.pid.raw()), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot signal {}", describe(self.pid))),
        }
    }

    /// Asks it to end with this signal, also when it was stopped (SIGSTOP): what is stopped hears of nothing until it goes on.
    pub fn ask_to_end(self, signal: Signal) -> Result<()> {
        self.signal(signal)?;
        self.signal(Signal::SIGCONT)
    }

    /// Who started it, or has taken it over since; None when it has gone.
    pub fn parent(self) -> Option<Pid> {
        stat(self.pid).map(|stat| Pid::from_raw(stat.ppid))
    }

    /// How long it has run, by the clock that never steps back. None when it has gone.
    pub fn uptime(self) -> Option<Duration> {
        let since_boot = procfs::Uptime::current().ok()?.uptime_duration();
        let started = Duration::from_millis(self.start.saturating_mul(1000) / procfs::ticks_per_second());
        Some(since_boot.saturating_sub(started))
    }
}

/// How the kernel describes a process; None: it has gone.
fn stat(pid: Pid) -> Option<Stat> {
    procfs::process::Process::new(pid.raw()).and_then(|process| process.stat()).ok()
}

/// What the kernel says of a process that is dying (proc(5), stat field 9).
fn is_ending(stat: &Stat) -> bool {
    stat.flags & StatFlags::PF_EXITING.bits() != 0
}

/// Whether a process's working directory is this one or below it; not for another user's process, or one that has gone.
pub fn works_in(pid: Pid, directory: &Path) -> bool {
    let working = procfs::process::Process::new(pid.raw()).and_then(|process| process.cwd());
    working.is_ok_and(|working| working.starts_with(directory))
}

/// The environment that a process was started with; None: it has gone, or we may not look.
pub fn environment(pid: Pid) -> Option<HashMap<OsString, OsString>> {
    procfs::process::Process::new(pid.raw()).and_then(|process| process.environ()).ok()
}

/// A process in words: `node (pid 4711)`.
pub fn describe(pid: Pid) -> String {
    match program(pid) {
        Some(program) => format!("{program} (pid {pid})"),
        None => format!("pid {pid}"),
    }
}

/// The name of a process's program; None: the process has gone.
pub fn program(pid: Pid) -> Option<String> {
    stat(pid).map(|stat| stat.comm)
}

/// How a process shows itself in lists: its arguments, each with a NUL behind it, or what it has written in their place; empty when
/// it has gone, or they are not to be seen.
pub fn title(pid: Pid) -> Vec<u8> {
    std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

/// A process's arguments, with the program's name as the first; None: the process has gone, or they are not to be seen.
pub fn arguments(pid: Pid) -> Option<Vec<OsString>> {
    let title = title(pid);
    let words = title.strip_suffix(b"\0").unwrap_or(&title);
    let words = words.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec()));
    (!title.is_empty()).then(|| words.collect())
}

/// Whether another file has taken the place of the one that a process was started from, as an upgrade does it.
pub fn is_replaced(pid: Pid) -> bool {
    let program = procfs::process::Process::new(pid.raw()).and_then(|process| process.exe());
    program.is_ok_and(|path| path.to_string_lossy().ends_with(" (deleted)"))
}

/// Whether a process holds this file open. False for one that has gone, or that we may not look into.
pub fn has_open(pid: Pid, path: &Path) -> bool {
    let Ok(descriptors) = procfs::process::Process::new(pid.raw()).and_then(|process| process.fd()) else {
        return false;
    };
    descriptors.flatten().any(|descriptor| matches!(descriptor.target, FDTarget::Path(open) if open == path))
}

/// The processes of the machine that run a program of this name.
pub fn of_program(name: &str) -> Vec<Process> {
    let all = procfs::process::all_processes().into_iter().flatten().flatten();
    let stats = all.filter_map(|process| process.stat().ok()).filter(|stat| stat.comm == name);
    stats.filter_map(|stat| Process::with_pid(Pid::from_raw(stat.pid))).collect()
}

/// Resident memory of these processes together, in bytes. Pages that they share count once for each.
pub fn memory(processes: &[Process]) -> u64 {
    let resident = processes.iter().filter_map(|one| procfs::process::Process::new(one.pid.raw()).ok()?.statm().ok());
    resident.map(|statm| statm.resident * procfs::page_size()).sum()
}

/// Processor time that these processes have used together, and those of their children that have ended and were reaped.
pub fn processor_time(processes: &[Process]) -> Duration {
    let stats = processes.iter().filter_map(|one| stat(one.pid));
    let of_children = |ticks: i64| u64::try_from(ticks).unwrap_or(0);
    let ticks: u64 =
        stats.map(|stat| stat.utime + stat.stime + of_children(stat.cutime) + of_children(stat.cstime)).sum();
    Duration::from_millis(ticks.saturating_mul(1000) / procfs::ticks_per_second())
}

/// Seconds since 1970, for names and records; 0 when the clock stands before that.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
