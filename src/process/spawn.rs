//! What happens in a child between fork and exec, and to a process's own memory: with the leash's fork the only unsafe
//! code of the library.
#![allow(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::SigSet;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{getegid, geteuid, setresgid, setresuid, setsid};
use procfs::process::{MMPermissions, MMapPath, MemoryMap};

use super::Pid;
use super::leash::{self, Until};

/// How many descriptors a process usually may have.
const SEALED_ONE_BY_ONE: i32 = 1024;

/// What becomes of a child when its parent dies, however that died.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Bond {
    /// It is killed with all that it started: it is kept on a leash for so long.
    Leashed(Until),
    /// It outlives its parent.
    Free,
}

/// Makes `command` start in a session of its own (no terminal to ask on, no signals meant for the caller), with the
/// usual umask and oom_score_adj, all signals as on the first day (nohup, for one, ignores some), and with none of the
/// caller's descriptors but the three standard streams: SSM's agent, for one, waits for every copy of its pipes to close.
pub fn isolate(command: &mut Command, bond: Bond) {
    let parent = Pid::own();
    // Who was started with it ignored would never hear how a child has ended (wait(2)), nor would the leash.
    reset_signal(libc::SIGCHLD);
    // SAFETY: what runs between fork and exec makes system calls and takes no lock of this program's; the memory that the
    // leash allocates later is its own, and the C library's fork leaves its allocator usable.
    unsafe {
        command.pre_exec(move || {
            setsid()?;
            // What was lent (see account) is given for good: a child must not find the way back to root.
            setresgid(getegid(), getegid(), getegid())?;
            setresuid(geteuid(), geteuid(), geteuid())?;
            if let Bond::Leashed(until) = bond {
                leash::put(parent, until)?;
                // Of its own as well: what the program does to its process group must not reach the leash.
                setsid()?;
            }
            umask(Mode::from_bits_truncate(0o022));
            reset_memory_badness();
            reset_signals()?;
            seal_descriptors();
            Ok(())
        });
    }
}

/// What a program may have of the machine; None: as much as whoever starts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// How many files it may have open.
    pub open_files: Option<u64>,
    /// How readily it gives way to others, from -20 to 19.
    pub nice: Option<i32>,
}

/// Makes `command` start with these limits. Where the machine does not allow them, the start fails.
pub fn limit(command: &mut Command, limits: Limits) {
    // SAFETY: what runs between fork and exec makes system calls only.
    unsafe {
        command.pre_exec(move || {
            if let Some(count) = limits.open_files {
                setrlimit(Resource::RLIMIT_NOFILE, count, count)?;
            }
            match limits.nice {
                Some(nice) if libc::setpriority(libc::PRIO_PROCESS, 0, nice) != 0 => {
                    Err(std::io::Error::last_os_error())
                }
                _ => Ok(()),
            }
        });
    }
}

/// Lets every signal do what it does by default, and blocks none.
fn reset_signals() -> std::io::Result<()> {
    // All 64 of Linux, the real-time ones included.
    (1..=64).for_each(reset_signal);
    Ok(SigSet::empty().thread_set_mask()?)
}

/// Takes back what a caller wished for when memory runs out: GitHub's runner has its jobs' processes killed first, with
/// 500. Where that is not allowed, it stays.
fn reset_memory_badness() {
    let _ = std::fs::write("/proc/self/oom_score_adj", "0");
}

/// Gives a signal its default action.
pub fn reset_signal(signal: i32) {
    // SAFETY: no handler of this program's is taken away that it needs: the process is about to be replaced, or to end.
    // SIGKILL and SIGSTOP refuse, and have no other action.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

/// Closes all descriptors.
pub fn close_descriptors() {
    // SAFETY: the process that calls this, a leash, uses none of its descriptors any more.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 0u32, u32::MAX, 0u32) };
    if closed == 0 {
        return;
    }
    for descriptor in 0..SEALED_ONE_BY_ONE {
        // SAFETY: as above; a number that is not open fails with EBADF and nothing happens.
        unsafe { libc::close(descriptor) };
    }
}

/// Marks every descriptor above the standard streams close-on-exec. Kernels before 5.11 lack close_range(2)'s flag; there
/// the descriptors are marked one by one.
fn seal_descriptors() {
    // SAFETY: changes a flag of descriptors that the process about to be replaced owns; touches no memory.
    let sealed = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if sealed == 0 {
        return;
    }
    for descriptor in 3..SEALED_ONE_BY_ONE {
        // SAFETY: as above; a number that is not open fails with EBADF and nothing happens.
        unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Gives back the pages of this program's code and constants that were needed to get started; those still needed come back
/// from the page cache. For a program that stays: most of what it is made of reads arguments and configuration.
pub fn release_startup_code() {
    let Ok(maps) = procfs::process::Process::myself().and_then(|own| own.maps()) else { return };
    let program = std::env::current_exe().unwrap_or_default();
    let constant = MMPermissions::READ | MMPermissions::PRIVATE;
    let is_as_in_the_file = |map: &MemoryMap| {
        // The file's beginning holds its constants. Another part that is only read was written before, by relocation.
        let is_constant = map.perms == constant && map.offset == 0;
        let is_code = map.perms == constant | MMPermissions::EXECUTE;
        matches!(&map.pathname, MMapPath::Path(path) if *path == program) && (is_constant || is_code)
    };
    for map in maps.into_iter().filter(is_as_in_the_file) {
        let length = (map.address.1 - map.address.0) as usize;
        // SAFETY: the range is a private, never written mapping of this program's own file: a page dropped from it is
        // read again from the file, unchanged, when it is needed.
        unsafe { libc::madvise(map.address.0 as *mut libc::c_void, length, libc::MADV_DONTNEED) };
    }
}
