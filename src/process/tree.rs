//! Descendants: listing a process tree and ending all of it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use procfs::process::{Process as Proc, all_processes};

use super::{Pid, Process, is_ending, stat};

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
    for _ in 0..2000 {
        known = living(&known);
        if known.is_empty() {
            return;
        }
        for process in &known {
            known_signal(*process);
        }
        thread::sleep(Duration::from_millis(5));
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

/// Processes of ours whose environment is like this: what is left of an instance or a build whose parent was killed,
/// wherever it has moved in the process tree since.
pub fn with_environment(is_it: impl Fn(&HashMap<OsString, OsString>) -> bool) -> Vec<Process> {
    let Ok(all) = all_processes() else { return Vec::new() };
    let matches = |process: &Proc| process.environ().is_ok_and(|environment| is_it(&environment));
    let ours = all.flatten().filter(|process| process.pid != Pid::own().raw()).filter(matches);
    ours.filter_map(|process| Process::with_pid(Pid::from_raw(process.pid))).collect()
}
