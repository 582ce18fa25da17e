//! Whether the kernel has killed a program because memory ran out. It tells nobody but its own log; it counts.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;

use nix::sys::signal::Signal;
use procfs::Current;

/// Where version 2 of the cgroups is mounted, alone or beside version 1, and where version 1's memory controller is.
const MOUNTS: [(&str, &str); 3] = [
    ("/sys/fs/cgroup", "memory.events"),
    ("/sys/fs/cgroup/unified", "memory.events"),
    ("/sys/fs/cgroup/memory", "memory.oom_control"),
];
/// What the line with the count begins with, in each of the files.
const COUNT: &str = "oom_kill ";

/// How much memory the machine has, in bytes; 0 when that cannot be told.
pub fn machine_memory() -> u64 {
    procfs::Meminfo::current().map_or(0, |memory| memory.mem_total)
}

/// How many processes the kernel has killed so far because memory ran out.
#[derive(Clone, Copy, Debug)]
pub struct Kills {
    /// Those in the cgroup of this process; None: nobody counts them.
    own: Option<u64>,
    /// Those of the whole machine; None: the kernel does not tell.
    all: Option<u64>,
}

impl Kills {
    /// Until now.
    pub fn so_far() -> Kills {
        Kills { own: in_own_cgroup(), all: count(Path::new("/proc/vmstat")) }
    }

    /// Whether that is why a program failed which this process has started since, and which has just ended like this. In a
    /// cgroup of its own, the program is known by the signal that killed it.
    pub fn explain(self, status: ExitStatus) -> bool {
        let now = Kills::so_far();
        let was_killed =
            status.signal() == Some(Signal::SIGKILL as i32) || status.code() == Some(128 + Signal::SIGKILL as i32);
        let more = |now: Option<u64>, before: Option<u64>| now.zip(before).is_some_and(|(now, before)| now > before);
        more(now.own, self.own) || more(now.all, self.all) && (was_killed || self.own.is_none())
    }
}

fn in_own_cgroup() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let groups: Vec<Vec<&str>> = groups.lines().map(|line| line.splitn(3, ':').collect()).collect();
    MOUNTS.iter().find_map(|(mount, file)| {
        let controller = if file.ends_with("events") { "" } else { "memory" };
        let group = groups
            .iter()
            .find(|group| group.get(1).is_some_and(|names| names.split(',').any(|name| name == controller)))?;
        count(&Path::new(mount).join(group.get(2)?.trim_start_matches('/')).join(file))
    })
}

fn count(file: &Path) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| line.strip_prefix(COUNT))?.trim().parse().ok()
}
