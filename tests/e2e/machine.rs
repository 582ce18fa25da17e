//! A machine to test on: a Debian of its own on a disk of its own, booted by systemd-nspawn with systemd as PID 1, with a
//! network of its own that only this host reaches. It can be rebooted, and its power can be cut.

use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::ran::Ran;

/// How long a boot may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// ext4's ioctl to go down at once, from linux/ext4.h, and its wish to lose all that is not on the disk yet.
const EXT4_IOC_SHUTDOWN: libc::c_ulong = 0x8004_587d;
const NOLOGFLUSH: u32 = 2;
/// What nspawn ends with when the machine wants to be booted again.
const REBOOT: i32 = 133;

nix::ioctl_write_ptr_bad!(shut_down, EXT4_IOC_SHUTDOWN, u32);

/// Runs a program and insists on its success; returns what it printed.
#[track_caller]
pub fn host(program: &str, arguments: &[&str]) -> String {
    let ran = Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert!(ran.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

/// Waits until something holds.
#[track_caller]
pub fn await_that(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < patience, "{what} did not come true within {patience:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// From here on nobody else sees what is mounted: a namespace that others make meanwhile would keep a disk mounted, and
/// write to it later, though the machine's power was cut.
pub fn seclude_mounts() {
    let nothing: Option<&Path> = None;
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).unwrap();
}

/// The release of Debian on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Debian {
    /// 12
    Bookworm,
    /// 13
    Trixie,
}

impl Debian {
    fn suite(self) -> &'static str {
        match self {
            Debian::Bookworm => "bookworm",
            Debian::Trixie => "trixie",
        }
    }
}

/// The disk that every machine's with this release is a copy of, made once.
fn base_disk(debian: Debian) -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/host.sh");
    PathBuf::from(host(script, &[debian.suite()]).trim())
}

/// A disk, mounted as long as this lives.
struct Mount {
    directory: tempfile::TempDir,
}

impl Mount {
    fn of(disk: &Path) -> Mount {
        let directory = tempfile::Builder::new().prefix("cutover-e2e-").tempdir().unwrap();
        let place = directory.path().to_str().unwrap();
        host("mount", &["-o", "loop", disk.to_str().unwrap(), place]);
        Mount { directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let place = self.directory.path().to_owned();
        let unmounted = || Command::new("umount").arg(&place).stderr(Stdio::null()).status().is_ok_and(|s| s.success());
        let began = Instant::now();
        while !unmounted() && began.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// A machine that is running.
pub struct Machine {
    name: String,
    disk: PathBuf,
    mount: Option<Mount>,
    nspawn: Child,
    leader: u32,
    number: u8,
    binds: Vec<String>,
}

impl Machine {
    /// A fresh one with this release of Debian. `number` tells it from others that run at the same time; `binds` are nspawn's options for directories
    /// of the host's that it sees.
    pub fn boot(debian: Debian, number: u8, binds: &[String]) -> Machine {
        let name = format!("e2e-{}-{number}", std::process::id());
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/e2e");
        fs::create_dir_all(&directory).unwrap();
        let disk = directory.join(format!("{name}.ext4"));
        host("cp", &["--sparse=always", base_disk(debian).to_str().unwrap(), disk.to_str().unwrap()]);
        let mount = Mount::of(&disk);
        fs::write(mount.path().join("etc/hostname"), "shop\n").unwrap();
        fs::write(mount.path().join("etc/hosts"), "127.0.0.1 localhost shop\n").unwrap();
        let end = |side: char| format!("e2e{}{side}{number}", std::process::id() % 100_000);
        let (host_end, guest_end) = (end('h'), end('g'));
        host("ip", &["netns", "add", &name]);
        host("ip", &["link", "add", &host_end, "type", "veth", "peer", "name", &guest_end, "netns", &name]);
        host("ip", &["address", "add", &format!("198.18.{number}.1/30"), "dev", &host_end]);
        host("ip", &["link", "set", &host_end, "up"]);
        let address = format!("198.18.{number}.2/30");
        host("ip", &["-n", &name, "address", "add", &address, "dev", &guest_end]);
        host("ip", &["-n", &name, "link", "set", &guest_end, "up"]);
        host("ip", &["-n", &name, "link", "set", "lo", "up"]);
        let nspawn = start(&name, &disk, mount.path(), binds);
        let mut machine = Machine { name, disk, mount: Some(mount), nspawn, leader: 0, number, binds: binds.to_vec() };
        machine.await_boot();
        machine
    }

    /// Where it is reached from here.
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.number, 2)
    }

    /// Its root directory, as seen from here.
    pub fn root(&self) -> &Path {
        self.mount.as_ref().unwrap().path()
    }

    fn await_boot(&mut self) {
        let pid = self.nspawn.id();
        let mut leader = None;
        await_that("the machine's first process", PATIENCE, || {
            leader = descendants(pid).into_iter().find(|pid| is_first(*pid));
            leader.is_some()
        });
        self.leader = leader.unwrap();
        await_that("the machine's boot", PATIENCE, || {
            let state = self.run("systemctl is-system-running").stdout;
            ["running", "degraded"].contains(&state.trim())
        });
    }

    /// A command for the machine's shell, run by root with an environment such as a service has.
    pub fn command(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args([
            "-t",
            &self.leader.to_string(),
            "-m",
            "-u",
            "-i",
            "-n",
            "-p",
            "--",
            "/bin/sh",
            "-c",
            &format!("cd /; {script}"),
        ]);
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.stdin(Stdio::null());
        command
    }

    /// Runs a script as root.
    pub fn run(&self, script: &str) -> Ran {
        Ran::of(&self.command(script).output().unwrap())
    }

    /// Runs a script as somebody who has logged in.
    pub fn run_as(&self, user: &str, script: &str) -> Ran {
        Ran::of(&self.command_as(user, script).output().unwrap())
    }

    /// The same, not started yet.
    pub fn command_as(&self, user: &str, script: &str) -> Command {
        let mut command = self.command("exec runuser -l \"$0\" -c \"$1\"");
        command.args([user, script]);
        command
    }

    /// Reboots it, and waits until it is up again.
    pub fn reboot(&mut self) {
        self.run("systemctl reboot");
        let ended = self.nspawn.wait().unwrap();
        assert_eq!(ended.code(), Some(REBOOT), "{ended:?}");
        self.nspawn = start(&self.name, &self.disk, self.root(), &self.binds);
        self.await_boot();
    }

    /// Cuts the power: what is not on the disk is lost. Then the power comes back.
    pub fn cut_power(&mut self) {
        {
            let root = fs::File::open(self.root()).unwrap();
            // SAFETY: the ioctl reads one u32, which outlives the call.
            #[allow(unsafe_code)]
            unsafe {
                shut_down(root.as_raw_fd(), &NOLOGFLUSH).unwrap();
            }
        }
        self.kill();
        drop(self.mount.take());
        self.mount = Some(Mount::of(&self.disk));
        self.nspawn = start(&self.name, &self.disk, self.root(), &self.binds);
        self.await_boot();
    }

    fn kill(&mut self) {
        let leader = nix::unistd::Pid::from_raw(self.leader.cast_signed());
        let _ = nix::sys::signal::kill(leader, nix::sys::signal::Signal::SIGKILL);
        let _ = self.nspawn.wait();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
        drop(self.mount.take());
        let _ = fs::remove_file(&self.disk);
        if !std::thread::panicking() {
            // What its console said, of use when something failed.
            let _ = fs::remove_file(self.disk.with_extension("log"));
        }
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
        for directory in cgroups(&self.name) {
            // What systemd made below goes first; the kernel removes only empty ones.
            let _ = Command::new("find")
                .args([&directory, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"])
                .stderr(Stdio::null())
                .status();
        }
    }
}

/// Boots what lies in this directory.
fn start(name: &str, disk: &Path, root: &Path, binds: &[String]) -> Child {
    let places = cgroups(name);
    for place in &places {
        fs::create_dir_all(place).unwrap();
    }
    // systemd needs a place of its own in these hierarchies.
    let entered: Vec<String> = places.iter().map(|place| format!("echo $$ >{place}/cgroup.procs")).collect();
    let script = format!("{}; exec systemd-nspawn \"$@\"", entered.join(" && "));
    let log = fs::File::options().create(true).append(true).open(disk.with_extension("log")).unwrap();
    let mut nspawn = Command::new("sh");
    nspawn.args(["-c", &script, "sh", "--quiet", "--boot", "--register=no", "--keep-unit", "--console=pipe"]);
    nspawn.arg(format!("--network-namespace-path=/run/netns/{name}")).arg("--directory").arg(root).args(binds);
    nspawn.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    nspawn.spawn().unwrap()
}

fn cgroups(name: &str) -> Vec<String> {
    let hierarchies = ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
    let there = hierarchies.iter().filter(|place| Path::new(place).join("cgroup.procs").exists());
    there.map(|place| format!("{place}/{name}")).collect()
}

fn descendants(pid: u32) -> Vec<u32> {
    let listed = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children: Vec<u32> = listed.split_whitespace().filter_map(|child| child.parse().ok()).collect();
    children.into_iter().flat_map(|child| std::iter::once(child).chain(descendants(child))).collect()
}

/// Whether this is the first process of a namespace of its own.
fn is_first(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    let pids: Vec<&str> = pids.split_whitespace().collect();
    pids.len() > 1 && pids.last() == Some(&"1")
}
