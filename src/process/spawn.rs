//! What happens in a child between fork and exec, and to a process's own memory: with the leash's fork the only unsafe
//! code of the library.
#![allow(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::SigSet;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{getegid, geteuid, setresgid, setresuid, setsid};
use procfs::process::{MMPermissions, MMapPath, MemoryMap};

use super::Pid;
use super::leash::{self, Until};

/// How many descriptors a process usually may have.
const SEALED_ONE_BY_ONE: i32 = 1024;

/// ioprio_set(2): for one process.
const IOPRIO_WHO_PROCESS: i32 = 1;

/// The oom_score_adj of programs that may be killed for the app: a build of a few megabytes goes before an app that holds
/// most of the memory.
const EXPENDABLE: &str = "800";

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
            // GitHub's runner, for one, has its jobs' processes killed first, with 500.
            set_memory_badness("0");
            reset_signals()?;
            seal_descriptors();
            Ok(())
        });
    }
}

/// Has this program hear how its children end, though whoever started it may ignore that of his own (wait(2)). To be called once,
/// before there are any: of one that has ended already, what waits to be heard would be discarded (POSIX, sigaction).
pub fn hear_of_children() {
    reset_signal(libc::SIGCHLD);
}

/// What a program may have of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// How many files it may have open; None: as many as whoever starts it.
    pub open_files: Option<u64>,
    /// How readily it gives way to others, from -20 to 19; None: as readily as whoever starts it, and no less than by itself.
    pub nice: Option<i32>,
}

impl Limits {
    /// As many of these as this process may give to a program.
    pub fn possible(self) -> Limits {
        if geteuid().is_root() {
            return self;
        }
        // SAFETY: a system call without memory of ours. Its errors are those of other processes.
        let own = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        // 20 - nice, setrlimit(2) says.
        let granted = getrlimit(Resource::RLIMIT_NICE).map_or(0, |(soft, _)| soft.min(40));
        let least = own.min(20 - i32::try_from(granted).unwrap_or_default());
        let most = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(_, hard)| hard);
        Limits { open_files: self.open_files.map(|count| count.min(most)), nice: self.nice.map(|nice| nice.max(least)) }
    }
}

/// Makes `command` start with these limits. Where the machine does not allow them, the start fails.
pub fn limit(command: &mut Command, limits: Limits) {
    // SAFETY: what runs between fork and exec makes system calls only.
    unsafe {
        command.pre_exec(move || {
            if let Some(count) = limits.open_files {
                setrlimit(Resource::RLIMIT_NOFILE, count, count)?;
            }
            let nice = limits.nice.unwrap_or_else(|| libc::getpriority(libc::PRIO_PROCESS, 0).max(0));
            match libc::setpriority(libc::PRIO_PROCESS, 0, nice) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
}

/// What a program gets that nobody limits: how many files may be open, and how large a stack may grow, in bytes.
const OPEN_FILES: u64 = 524_288;
const STACK: u64 = 8 << 20;

/// Makes `command` start with the priorities, the processors and the limits that a program has by itself, whatever those of the
/// caller are: a job that runs with lower ones would pass them on to the app, for as long as that runs. What only root may take
/// back stays, where the caller is not.
pub fn unlimit(command: &mut Command) {
    let most_open = std::fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|most| most.trim().parse().ok());
    let most_open: u64 = most_open.unwrap_or(OPEN_FILES);
    // SAFETY: what runs between fork and exec makes system calls only.
    unsafe {
        command.pre_exec(move || {
            let normal = libc::sched_param { sched_priority: 0 };
            let every = [u8::MAX; 128];
            // Each may be refused, and then stays as it is.
            libc::sched_setscheduler(0, libc::SCHED_OTHER, &raw const normal);
            libc::setpriority(libc::PRIO_PROCESS, 0, 0);
            libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, 0);
            libc::syscall(libc::SYS_sched_setaffinity, 0, every.len(), every.as_ptr());
            let grant = |resource, soft: u64, hard: u64| {
                let (_, most) = getrlimit(resource).unwrap_or((soft, hard));
                let raised = setrlimit(resource, soft, most.max(hard));
                let _ = raised.or_else(|_| setrlimit(resource, soft.min(most), most));
            };
            let any = nix::sys::resource::RLIM_INFINITY;
            for resource in [
                Resource::RLIMIT_AS,
                Resource::RLIMIT_CPU,
                Resource::RLIMIT_DATA,
                Resource::RLIMIT_FSIZE,
                Resource::RLIMIT_NPROC,
                Resource::RLIMIT_RSS,
            ] {
                grant(resource, any, any);
            }
            grant(Resource::RLIMIT_CORE, 0, any);
            grant(Resource::RLIMIT_STACK, STACK, any);
            grant(Resource::RLIMIT_NOFILE, OPEN_FILES, most_open);
            Ok(())
        });
    }
}

/// Makes `command` start with so many bytes of memory of its own at the most, and so each program that it starts.
pub fn bound_memory(command: &mut Command, bytes: u64) {
    // SAFETY: what runs between fork and exec makes a system call.
    unsafe {
        command.pre_exec(move || Ok(setrlimit(Resource::RLIMIT_DATA, bytes, bytes)?));
    }
}

/// Makes `command`, with all that it starts, what the kernel kills first when memory runs out. To be called after
/// [`isolate`].
pub fn expendable(command: &mut Command) {
    // SAFETY: what runs between fork and exec opens, writes and closes a file.
    unsafe {
        command.pre_exec(|| {
            set_memory_badness(EXPENDABLE);
            Ok(())
        });
    }
}

/// Lets every signal do what it does by default, and blocks none.
fn reset_signals() -> std::io::Result<()> {
    // All 64 of Linux, the real-time ones included.
    (1..=64).for_each(reset_signal);
    Ok(SigSet::empty().thread_set_mask()?)
}

/// Says how readily the kernel should kill this process when memory runs out (proc(5), oom_score_adj). Where that is not
/// allowed, it stays as it is.
fn set_memory_badness(adjustment: &str) {
    let _ = std::fs::write("/proc/self/oom_score_adj", adjustment);
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

/// Gives back the pages of this program's code, constants and heap that were needed to get started; those still needed come back
/// from the page cache. For a program that stays: most of what it is made of reads arguments and configuration.
pub fn release_startup_code() {
    // What reading the configuration took on the heap as well.
    #[cfg(target_env = "gnu")]
    // SAFETY: gives free pages of the heap back, and moves nothing.
    unsafe {
        libc::malloc_trim(0);
    }
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
