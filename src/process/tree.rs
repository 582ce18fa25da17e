//! Descendants: listing a process tree and ending all of it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::time::Duration;

use nix::sys::signal::Signal;
use procfs::process::{Process as Proc, all_processes};
use procfs::{Current, LoadAverage};

use super::{Pid, Process, is_ending, stat};
use crate::deadline::Deadline;

/// How long processes are killed again and again.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause between two rounds of that.
const ROUND: Duration = Duration::from_millis(5);
/// How often in a row the newest processes are looked at in vain before nobody is believed to be left. Of a chain of processes
/// that live for a millisecond each, one look in twenty finds none.
const LOOKS: u32 = 3;
/// The same once somebody was found.
const LOOKS_AFTER_ONE: u32 = 20;
/// The pause between two such looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);
/// How many ids back the newest processes are looked for.
const NEWEST: i32 = 200;

/// A process and all its descendants, parents first. Empty when it has gone.
pub fn tree(root: Pid) -> Vec<Process> {
    let mut found = Vec::new();
    let mut open = vec![root];
    while let Some(pid) = open.pop() {
        found.extend(Process::with_pid(pid));
        open.extend(children(pid));
    }
    found
}

/// The children of all its threads, youngest first; those that have ended and were not reaped too. The kernel lists them in
/// `/proc/PID/task/TID/children` (proc(5)).
pub fn children(pid: Pid) -> Vec<Pid> {
    let Ok(tasks) = Proc::new(pid.raw()).and_then(|process| process.tasks()) else { return Vec::new() };
    let mut found: Vec<Pid> = tasks
        .flatten()
        .filter_map(|task| task.children().ok())
        .flatten()
        .map(|child| Pid::from_raw(child.cast_signed()))
        .collect();
    found.reverse();
    found
}

/// Whether any ancestor of a process runs a program of this name; one that is dying runs nothing.
pub fn is_below(pid: Pid, program: &str) -> bool {
    let parents = std::iter::successors(stat(pid), |child| stat(Pid::from_raw(child.ppid)));
    parents.skip(1).any(|parent| parent.comm == program && !is_ending(&parent))
}

/// Those of them that still live.
pub fn living(processes: &[Process]) -> Vec<Process> {
    processes.iter().copied().filter(|process| process.is_alive()).collect()
}

/// Kills a process and all its descendants. Whoever forks meanwhile is found in the next round; it ends when a round
/// finds nobody, or after ten seconds, when what is left cannot be killed (a process stuck in the kernel).
pub fn kill_tree(root: Pid) {
    let mut known = tree(root);
    let patience = Deadline::after(PATIENCE);
    loop {
        known = living(&known);
        if known.is_empty() {
            return;
        }
        for process in &known {
            known_signal(*process);
        }
        if !patience.sleep(ROUND) {
            return;
        }
        let more: Vec<Process> = known.iter().flat_map(|process| tree(process.pid)).collect();
        for process in more {
            if !known.contains(&process) {
                known.push(process);
            }
        }
    }
}

fn known_signal(process: Process) {
    // Another user's process in the tree (sudo in a start script) is not ours to kill.
    let _ = process.signal(Signal::SIGKILL);
}

/// Kills the processes of ours which are like this, by their environment, with all that they have started: what is left of an
/// instance or a build whose parent was killed, wherever it has moved in the process tree since. Each is killed as soon as it is
/// found. Some fork, and end, faster than all processes can be looked at, so the newest are looked at again and again, which takes
/// a moment, until nobody is found any more. Returns who is left after ten seconds.
pub fn kill_like(is_it: impl Fn(Pid, &HashMap<OsString, OsString>) -> bool) -> Vec<Process> {
    let patience = Deadline::after(PATIENCE);
    let mut looks = LOOKS;
    loop {
        let mut found = kill_those(all(), &is_it);
        let mut has_found = !found.is_empty();
        let mut quiet = 0;
        while quiet < looks {
            if !patience.sleep(BETWEEN_LOOKS) {
                let left = living(&found);
                return if left.is_empty() { found } else { left };
            }
            let more = kill_those(newest().into_iter().filter_map(|pid| Proc::new(pid).ok()), &is_it);
            quiet += 1;
            if !more.is_empty() {
                (found, has_found, quiet) = (more, true, 0);
            }
        }
        if !has_found {
            return Vec::new();
        }
        looks = LOOKS_AFTER_ONE;
    }
}

fn kill_those(
    candidates: impl Iterator<Item = Proc>,
    is_it: impl Fn(Pid, &HashMap<OsString, OsString>) -> bool,
) -> Vec<Process> {
    let kill = |one: &Process| {
        // So that it forks no more while its children are being listed.
        let _ = one.signal(Signal::SIGSTOP);
        tree(one.pid).into_iter().for_each(known_signal);
    };
    like(candidates, is_it).inspect(kill).collect()
}

/// The ids that were given out last, the newest first; none where the kernel does not tell.
fn newest() -> Vec<i32> {
    let last = LoadAverage::current().map_or(0, |load| load.latest_pid.cast_signed());
    let most = procfs::sys::kernel::pid_max().unwrap_or(0);
    let before = |back| if last > back { last - back } else { last - back + most };
    (0..NEWEST).map(before).filter(|pid| *pid > 0).take(if last > 0 { usize::MAX } else { 0 }).collect()
}

/// Processes of ours whose environment is like this.
pub fn with_environment(is_it: impl Fn(&HashMap<OsString, OsString>) -> bool) -> Vec<Process> {
    like(all(), |_, environment| is_it(environment)).collect()
}

fn all() -> impl Iterator<Item = Proc> {
    all_processes().into_iter().flatten().flatten()
}

fn like(
    candidates: impl Iterator<Item = Proc>,
    is_it: impl Fn(Pid, &HashMap<OsString, OsString>) -> bool,
) -> impl Iterator<Item = Process> {
    let pid = |process: &Proc| Pid::from_raw(process.pid);
    let matches = move |process: &Proc| process.environ().is_ok_and(|environment| is_it(pid(process), &environment));
    let others = candidates.filter(move |process| pid(process) != Pid::own());
    others.filter(matches).filter_map(move |process| Process::with_pid(pid(&process)))
}
