//! Disks that are full, out of inodes, or read-only: a site on a real file system of its own, which goes bad under load.

use std::fs;
use std::io::Write;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

use super::Outcome;
use super::interrupted::{QUICK, no_orphans, one_release_serves, whole_releases};
use crate::load::{Load, Plan};
use crate::not_tested::not_tested;
use crate::site::{Sample, Site, built, eventually};

/// How a disk goes bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    Full,
    OutOfInodes,
    ReadOnly,
}

/// All of them.
pub const TROUBLES: [Trouble; 3] = [Trouble::Full, Trouble::OutOfInodes, Trouble::ReadOnly];

impl Trouble {
    /// What the system says of it.
    fn reason(self) -> &'static str {
        match self {
            Trouble::Full | Trouble::OutOfInodes => "No space left on device",
            Trouble::ReadOnly => "Read-only file system",
        }
    }
}

/// A file system of its own, which only the calling thread and its children see.
pub struct Disk {
    pub directory: TempDir,
}

impl Disk {
    /// One for a site. None: mounting needs root.
    pub fn mounted() -> Option<Disk> {
        // Tools that were built to be debugged are large.
        let tools = 20 * fs::metadata(built().join("install")).unwrap().len();
        Disk::of_size((160 << 20) + tools)
    }

    /// One of so many bytes. None: mounting needs root.
    pub fn of_size(size: u64) -> Option<Disk> {
        if !nix::unistd::Uid::effective().is_root() {
            return None;
        }
        let directory = tempfile::Builder::new().prefix("cutover-disk-").tempdir().unwrap();
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let nothing: Option<&Path> = None;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).unwrap();
        let limits = format!("size={size},nr_inodes=2000");
        let limits = Some(limits.as_str());
        mount(Some("none"), directory.path(), Some("tmpfs"), MsFlags::empty(), limits).unwrap();
        Some(Disk { directory })
    }

    fn ballast(&self) -> std::path::PathBuf {
        self.directory.path().join("ballast")
    }

    pub fn go_bad(&self, trouble: Trouble) {
        match trouble {
            Trouble::Full => {
                let mut ballast = fs::File::create(self.ballast()).unwrap();
                for size in [1 << 20, 1 << 12, 1] {
                    while ballast.write_all(&vec![b'.'; size]).is_ok() {}
                }
            }
            Trouble::OutOfInodes => {
                fs::create_dir(self.ballast()).unwrap();
                let mut number = 0;
                while fs::File::create(self.ballast().join(format!("{number}"))).is_ok() {
                    number += 1;
                }
            }
            Trouble::ReadOnly => self.cover_read_only(),
        }
    }

    pub fn recover(&self, trouble: Trouble) {
        match trouble {
            Trouble::Full => fs::remove_file(self.ballast()).unwrap(),
            Trouble::OutOfInodes => fs::remove_dir_all(self.ballast()).unwrap(),
            Trouble::ReadOnly => umount2(self.directory.path(), MntFlags::MNT_DETACH).unwrap(),
        }
    }

    /// Mounts it over itself, read-only: a file system with files open for writing refuses to become read-only.
    fn cover_read_only(&self) {
        let (nothing, place): (Option<&Path>, _) = (None, self.directory.path());
        mount(Some(place), place, nothing, MsFlags::MS_BIND, nothing).unwrap();
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        mount(nothing, place, nothing, flags, nothing).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(self.directory.path(), MntFlags::MNT_DETACH);
    }
}

/// A site's disk goes bad under load; what can work works, what cannot says why, and afterwards all is well. None: this
/// needs root.
pub fn goes_bad(trouble: Trouble) -> Option<Outcome> {
    let Some(disk) = Disk::mounted() else {
        not_tested(&format!("{trouble:?} disk"), "this is not root");
        return None;
    };
    // Beside the app something prints all the time, a thousand zeros a line.
    let chatter = "[run]\ncommand = \"(while sleep 0.01; do printf '%01000d\\\\n' 0; done) & exec ./app\"\nstop_timeout = \"2s\"\n";
    let site = Site::new_in(disk.directory.path(), Sample::Static, &format!("{chatter}{QUICK}"));
    for version in ["v1", "v2"] {
        site.commit(version, "");
        site.run("deploy", &[]).ok();
    }
    site.commit("v3", "");
    let load = Load::start(Plan { kept_alive: 6, fresh: 2, ..Plan::on(site.address()) });
    let mut outcome = Outcome::of(format!("{trouble:?} disk"));
    let mut check = |what: &str, held: Result<(), String>| {
        outcome.faults += 1;
        outcome.failures.extend(held.err().map(|reason| format!("{what}: {reason}")));
    };

    disk.go_bad(trouble);
    check("deploy", refused(&site, "deploy", trouble));
    check("deploy", serves(&site, "v2"));
    // The link to the standby is there already: to turn to it takes no room.
    let may_switch = trouble != Trouble::ReadOnly;
    check("rollback", if may_switch { works(&site, "rollback") } else { refused(&site, "rollback", trouble) });
    check("rollback", serves(&site, if may_switch { "v1" } else { "v2" }));
    for tool in ["status", "enabled-instance", "disabled-port", "pid", "logs"] {
        check(tool, works(&site, tool));
    }
    // Its log cannot be written, and it comes back all the same.
    site.shell("kill -9 $(pid $(disabled-instance))").ok();
    eventually("the standby is back", || {
        site.status()["instances"].as_array().unwrap().iter().all(|instance| instance["healthy"] == true)
    });
    check("a crash", no_orphans(&site));

    disk.recover(trouble);
    if trouble == Trouble::Full {
        check("the log", tells_of_a_loss(&site));
    }
    check("deploy afterwards", works(&site, "deploy"));
    check("deploy afterwards", serves(&site, "v3"));
    check("deploy afterwards", whole_releases(&site).and_then(|()| no_orphans(&site)));
    let report = load.stop();
    outcome.requests = report.requests;
    outcome.lost = report.failed();
    outcome.failures.extend(report.quoted());
    drop(site);
    Some(outcome)
}

/// What could not be written is told once there is room, and what comes then is written.
fn tells_of_a_loss(site: &Site) -> Result<(), String> {
    let log = || site.run("logs", &["A", "-n", "100000"]).stdout;
    eventually("the log goes on", || log().ends_with("00\n") && log().contains(" lines of output lost ("));
    let log = log();
    // Where something is lost, it may be a part of a line; no line is longer, for nothing is joined that was apart.
    let is_line =
        |line: &str| line.starts_with("supervise: ") || line.len() <= 1000 && line.bytes().all(|byte| byte == b'0');
    let odd = log.lines().find(|line| !is_line(line));
    odd.map_or(Ok(()), |line| Err(format!("{line:?}")))
}

fn works(site: &Site, tool: &str) -> Result<(), String> {
    let ran = site.run(tool, &[]);
    if ran.code == 0 { Ok(()) } else { Err(format!("{ran:?}")) }
}

fn refused(site: &Site, tool: &str, trouble: Trouble) -> Result<(), String> {
    let ran = site.run(tool, &[]);
    if ran.code == 3 && ran.stderr.contains(trouble.reason()) { Ok(()) } else { Err(format!("{ran:?}")) }
}

fn serves(site: &Site, version: &str) -> Result<(), String> {
    one_release_serves(site)?;
    let answer = site.get("/");
    if answer == (200, format!("{version}\n")) { Ok(()) } else { Err(format!("{answer:?} for {version}")) }
}
