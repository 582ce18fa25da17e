//! What happens in a child between fork and exec, and to a process's own memory: the only unsafe code of the library.
#![allow(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{getegid, geteuid, setresgid, setresuid, setsid};
use procfs::process::{MMPermissions, MMapPath, MemoryMap};

/// Whether a child ends with its parent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Bond {
    /// The kernel kills it when its parent dies, however that died.
    Mortal,
    /// It outlives its parent.
    Free,
}

/// Makes `command` start in a session of its own (no terminal to ask on, no signals meant for the caller), with the
/// usual umask, all signals as on the first day (nohup, for one, ignores some), and with none of the caller's descriptors but the three standard streams: SSM's agent, for one, waits
/// for every copy of its pipes to close.
pub fn isolate(command: &mut Command, bond: Bond) {
    // SAFETY: between fork and exec only async-signal-safe calls are made (setsid, prctl, setresgid, setresuid, umask, signal, sigprocmask, close_range), nothing
    // is allocated, and no lock is taken.
    unsafe {
        command.pre_exec(move || {
            setsid()?;
            if bond == Bond::Mortal {
                prctl::set_pdeathsig(Signal::SIGKILL)?;
            }
            // What was lent (see account) is given for good: a child must not find the way back to root.
            setresgid(getegid(), getegid(), getegid())?;
            setresuid(geteuid(), geteuid(), geteuid())?;
            umask(Mode::from_bits_truncate(0o022));
            reset_signals()?;
            seal_descriptors();
            Ok(())
        });
    }
}

/// Lets every signal do what it does by default, and blocks none.
fn reset_signals() -> std::io::Result<()> {
    // All 64 of Linux, the real-time ones included.
    for signal in 1..=64 {
        // SAFETY: gives a signal its default action in a process that is about to be replaced. SIGKILL and SIGSTOP
        // refuse, and have no other action.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    Ok(SigSet::empty().thread_set_mask()?)
}

/// Marks every descriptor above the standard streams close-on-exec. Kernels before 5.11 lack close_range(2)'s flag; there
/// the descriptors are marked one by one up to the limit that a process usually has.
fn seal_descriptors() {
    // SAFETY: changes a flag of descriptors that the process about to be replaced owns; touches no memory.
    let sealed = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if sealed == 0 {
        return;
    }
    for descriptor in 3..1024 {
        // SAFETY: as above; a number that is not open fails with EBADF and nothing happens.
        unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Gives back the pages of this program's code that were needed to get started; those still needed come back from the
/// page cache. For a program that stays: most of what it is made of reads arguments and configuration.
pub fn release_startup_code() {
    let Ok(maps) = procfs::process::Process::myself().and_then(|own| own.maps()) else { return };
    let program = std::env::current_exe().unwrap_or_default();
    let is_code = |map: &MemoryMap| {
        matches!(&map.pathname, MMapPath::Path(path) if *path == program)
            && map.perms == MMPermissions::READ | MMPermissions::EXECUTE | MMPermissions::PRIVATE
    };
    for map in maps.into_iter().filter(is_code) {
        let length = (map.address.1 - map.address.0) as usize;
        // SAFETY: the range is a private, never written mapping of this program's own file: a page dropped from it is
        // read again from the file, unchanged, when it is needed.
        unsafe { libc::madvise(map.address.0 as *mut libc::c_void, length, libc::MADV_DONTNEED) };
    }
}
