//! Running a tool under strace(1), which can do something to it at a system call of choice.

// Not every program that includes this makes calls fail.
#![allow(dead_code)]

use std::path::Path;
use std::process::Command;

use crate::ran::Ran;

/// The system calls that change something outside the tool. Which of two of the same kind exists depends on the
/// processor; `?` makes strace pass over those that do not.
const CHANGING: &str = "?rename,?renameat,?renameat2,?symlink,?symlinkat,?link,?linkat,?unlink,?unlinkat,?mkdir,?mkdirat,\
    ?rmdir,?write,?pwrite64,?writev,?copy_file_range,?sendfile,?ftruncate,?fsync,?fdatasync,?syncfs,?chmod,?fchmod,\
    ?fchmodat,?chown,?lchown,?fchown,?fchownat,?fork,?vfork,?clone,?clone3,?kill,?tgkill,?connect,?setns";

/// A system call of a tool's run: the `nth` of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    pub call: String,
    pub nth: usize,
}

/// What happens at a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The tool gets this signal before the call.
    Signal(&'static str),
    /// The call fails with this error and does nothing.
    Error(&'static str),
}

impl Fault {
    /// Whether it can befall this call. Files can fail for want of room; processes and connections cannot.
    pub fn concerns(self, point: &Point) -> bool {
        let is_of_a_file = !["fork", "clone", "kill", "connect"].iter().any(|part| point.call.contains(part));
        matches!(self, Fault::Signal(_)) || is_of_a_file
    }
}

/// Runs a tool undisturbed and lists the points of its run.
pub fn points(tool: Command, log: &Path) -> (Ran, Vec<Point>) {
    let ran = traced(tool, log, &["-e", &format!("trace={CHANGING}")]);
    let mut points: Vec<Point> = Vec::new();
    for line in std::fs::read_to_string(log).unwrap().lines() {
        let Some((call, _)) = line.split_once('(') else { continue };
        if !call.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_') {
            continue;
        }
        let nth = points.iter().filter(|point| point.call == call).count() + 1;
        points.push(Point { call: call.to_owned(), nth });
    }
    (ran, points)
}

/// Runs a tool to which this happens there. A run that needs fewer calls than the one counted is not disturbed.
pub fn disturbed(tool: Command, log: &Path, point: &Point, fault: Fault) -> Ran {
    let what = match fault {
        Fault::Signal(name) => format!("signal={name}"),
        Fault::Error(name) => format!("error={name}"),
    };
    let Point { call, nth } = point;
    traced(tool, log, &["-e", &format!("trace={call}"), "-e", &format!("inject={call}:{what}:when={nth}")])
}

fn traced(tool: Command, log: &Path, options: &[&str]) -> Ran {
    let mut command = Command::new("strace");
    command.arg("-o").arg(log).args(options).arg(tool.get_program()).args(tool.get_args());
    command.env_clear().envs(tool.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(std::process::Stdio::null()).current_dir(tool.get_current_dir().unwrap());
    Ran::of(&command.output().unwrap())
}
