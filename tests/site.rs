//! A site to test on: a home laid out by `install` in a directory of its own, with an nginx of its own, ports of its own,
//! and a git repository that its app is deployed from. Dropping it ends everything that it started.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use regex::Regex;
use serde_json::Value;
use tempfile::TempDir;

use crate::load::{Load, Plan, Report};
pub use crate::ran::Ran;

/// Where the tools and examples under test were built.
pub fn built() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_install")).parent().unwrap()
}

/// The sample apps' sources.
pub fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps")
}

/// A `[deploy]` section for tests that have no request in flight when an instance stops: nginx keeps idle connections to
/// an instance for seconds, and a stop waits for all connections.
pub const BRISK: &str = "[deploy]\nsoak = \"100ms\"\ndrain_timeout = \"100ms\"\n";

/// Which sample app a site deploys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sample {
    /// Node, started by npm, as in the project's seeds.
    Node,
    /// Python's standard library.
    Python,
    /// A static binary.
    Static,
}

impl Sample {
    /// The `[build]` and `[run]` sections.
    fn sections(self) -> &'static str {
        match self {
            Sample::Node => {
                "[build]\ncommand = \"npm ci\"\n[run]\ncommand = \"npm start -- --port=$PORT\"\nstop_timeout = \"5s\"\n"
            }
            Sample::Python => "[run]\ncommand = \"exec python3 server.py --port=$PORT\"\nstop_timeout = \"5s\"\n",
            Sample::Static => "[run]\ncommand = \"exec ./app\"\nstop_timeout = \"5s\"\n",
        }
    }

    fn copy_into(self, directory: &Path) {
        let copy = |from: PathBuf, name: &str| {
            fs::copy(&from, directory.join(name))
                .unwrap_or_else(|error| panic!("cannot copy {}: {error}", from.display()));
        };
        match self {
            Sample::Node => {
                for name in ["package.json", "package-lock.json", "server.js"] {
                    copy(samples().join("node").join(name), name);
                }
            }
            Sample::Python => copy(samples().join("python/server.py"), "server.py"),
            Sample::Static => copy(built().join("examples/static-app"), "app"),
        }
    }
}

/// Five ports that no other test uses, for as long as this lives: a sixth is held open as the claim.
pub struct Ports {
    pub first: u16,
    pub second: u16,
    pub status: u16,
    pub listen: u16,
    pub push: u16,
    _claims: Vec<TcpListener>,
}

impl Ports {
    /// Claims the next free block of six below the kernel's own range.
    pub fn claim() -> Ports {
        Ports::claim_blocks(1)
    }

    /// Claims so many free blocks in a row. Where there are nine, no claim is in the way of an instance's further ports.
    fn claim_blocks(count: u16) -> Ports {
        static NEXT: Mutex<u16> = Mutex::new(0);
        let mut next = NEXT.lock().unwrap();
        loop {
            // Different processes begin at different places.
            let block = (std::process::id() as u16 % 97 * 11 + *next) % (1000 - count);
            *next += count;
            let base = 24_000 + block * 6;
            let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok();
            let claims: Vec<TcpListener> = (0..count).filter_map(|at| free(base + at * 6 + 5)).collect();
            let is_free = |at: u16| at % 6 == 5 || free(base + at).is_some();
            if claims.len() == usize::from(count) && (0..count * 6).all(is_free) {
                let [first, status, second, listen, push] = [0, 1, 2, 3, 4].map(|at| base + at);
                return Ports { first, second, status, listen, push, _claims: claims };
            }
        }
    }
}

impl Ran {
    /// The same with what differs from run to run replaced: the home, release ids, commits, pids and spans of time.
    pub fn masked(&self, site: &Site) -> Ran {
        let mask = |text: &str| {
            let text = text.replace(site.home.to_str().unwrap(), "HOME");
            let text = text.replace(site.directory.path().to_str().unwrap(), "SITE");
            let volatile = [
                ("[0-9]{8}T[0-9]{6}Z-[0-9a-z]+", "RELEASE"),
                ("[0-9a-f]{12}", "COMMIT"),
                ("pid [0-9]+", "pid PID"),
                (r"[0-9]+(\.[0-9])? m?s", "TIME"),
            ];
            volatile
                .iter()
                .fold(text, |text, (pattern, name)| Regex::new(pattern).unwrap().replace_all(&text, *name).into_owned())
        };
        Ran { code: self.code, stdout: mask(&self.stdout), stderr: mask(&self.stderr) }
    }
}

/// A laid out site.
pub struct Site {
    pub directory: TempDir,
    pub home: PathBuf,
    pub ports: Ports,
    pub sample: Sample,
}

impl Site {
    /// A site whose nginx runs, with version `v1` of the sample committed and nothing deployed. `extra` is appended to
    /// the configuration; its `[deploy]` has a short soak.
    pub fn new(sample: Sample, extra: &str) -> Site {
        Site::new_in(&std::env::temp_dir(), sample, extra)
    }

    /// The same, before install.
    pub fn unlaid(sample: Sample, extra: &str) -> Site {
        Site::unlaid_in(&std::env::temp_dir(), sample, extra)
    }

    /// A site below this directory.
    pub fn new_in(place: &Path, sample: Sample, extra: &str) -> Site {
        let site = Site::unlaid_in(place, sample, extra);
        site.install(&[]).ok();
        site
    }

    pub fn unlaid_in(place: &Path, sample: Sample, extra: &str) -> Site {
        Site::unlaid_on(Ports::claim(), place, sample, extra)
    }

    /// A site whose instances have room for several processes each: nginx is told of those ports in any case, so that only
    /// such sites can share an nginx.
    pub fn unlaid_roomy(sample: Sample, extra: &str) -> Site {
        Site::unlaid_on(Ports::claim_blocks(9), &std::env::temp_dir(), sample, extra)
    }

    /// A site whose instances have room for so many processes.
    pub fn unlaid_for(processes: u16, sample: Sample, extra: &str) -> Site {
        Site::unlaid_on(Ports::claim_blocks(processes * 10 / 6 + 2), &std::env::temp_dir(), sample, extra)
    }

    /// The same as [`Site::unlaid_roomy`], laid out.
    pub fn roomy(sample: Sample, extra: &str) -> Site {
        let site = Site::unlaid_roomy(sample, extra);
        site.install(&[]).ok();
        site
    }

    /// Deploys v1 and v2: v2 serves from B, v1 is its warm standby A.
    #[track_caller]
    pub fn with_standby(self) -> Site {
        self.run("deploy", &[]).ok();
        self.commit("v2", "");
        self.run("deploy", &[]).ok();
        self
    }

    fn unlaid_on(ports: Ports, place: &Path, sample: Sample, extra: &str) -> Site {
        let site = Site::empty(ports, place, "shop", sample);
        sample.copy_into(&site.source());
        site.commit("v1", "");
        site.write_config(extra);
        site
    }

    /// A site for an app that the caller has the sources and the configuration of: roomy, its repository empty, not laid out.
    // Only try-apps has such.
    #[allow(dead_code)]
    pub fn for_app(app: &str) -> Site {
        Site::empty(Ports::claim_blocks(9), &std::env::temp_dir(), app, Sample::Static)
    }

    fn empty(ports: Ports, place: &Path, app: &str, sample: Sample) -> Site {
        let directory = tempfile::Builder::new().prefix("cutover-test-").tempdir_in(place).unwrap();
        let home = directory.path().join(format!(".{app}"));
        let site = Site { home, ports, sample, directory };
        fs::create_dir(site.source()).unwrap();
        site.git(&["init", "--quiet", "--initial-branch=main"]);
        site
    }

    /// The site's configuration file, as handed to install.
    pub fn config(&self) -> PathBuf {
        self.directory.path().join("shop.toml")
    }

    /// Writes the configuration. Sections that `extra` holds replace the default ones; `PUSH_PORT` in it is the port for
    /// webhooks.
    pub fn write_config(&self, extra: &str) {
        let Ports { first, second, status, listen, push, .. } = &self.ports;
        let extra = &extra.replace("PUSH_PORT", &push.to_string());
        let mut text = format!("app = \"shop\"\nrunner = \"direct\"\n[instances]\nA = {first}\nB = {second}\n");
        let mut section = |heading: &str, body: &str| {
            if !extra.contains(heading) {
                text += &format!("{heading}\n{body}\n");
            }
        };
        section("[source]", &format!("git = {:?}", self.source()));
        let sections = self.sample.sections();
        let run = sections.find("[run]").unwrap();
        if !sections[..run].is_empty() {
            section("[build]", sections[..run].trim_start_matches("[build]\n"));
        }
        section("[run]", sections[run..].trim_start_matches("[run]\n"));
        section("[nginx]", &format!("own = true\nlisten = [\"127.0.0.1:{listen}\"]\nstatus_port = {status}"));
        section("[deploy]", "soak = \"100ms\"");
        fs::write(self.config(), text + extra).unwrap();
    }

    /// Changes what the home's own configuration says.
    #[track_caller]
    pub fn reconfigure(&self, old: &str, new: &str) {
        let path = self.home.join("config.toml");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(old), "{old:?} is not in the configuration, so this changes nothing");
        fs::write(path, text.replace(old, new)).unwrap();
    }

    /// Writes the env file, which nobody else may read.
    pub fn write_env(&self, text: &str) {
        let path = self.home.join("env");
        fs::write(&path, text).unwrap();
        chmod(&path, 0o600);
    }

    /// Runs install as built, with these further arguments.
    pub fn install(&self, arguments: &[&str]) -> Ran {
        let mut command = self.command(&built().join("install"));
        command.arg("--config").arg(self.config()).arg("--home").arg(&self.home).args(arguments);
        Ran::of(&command.output().unwrap())
    }

    /// What lies in releases/, in the order of the names, but for the files that tell with what each release was made.
    pub fn releases(&self) -> Vec<String> {
        let entries = fs::read_dir(self.home.join("releases")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| !name.starts_with(".made-")).collect();
        names.sort();
        names
    }

    /// The git repository that the app is deployed from.
    pub fn source(&self) -> PathBuf {
        self.directory.path().join("source")
    }

    /// Commits a version of the app that behaves like this (`""`: well); returns the commit.
    pub fn commit(&self, version: &str, behaviour: &str) -> String {
        fs::write(self.source().join("VERSION"), format!("{version}\n")).unwrap();
        fs::write(self.source().join("BEHAVIOUR"), format!("{behaviour}\n")).unwrap();
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", version]);
        self.git(&["rev-parse", "HEAD"]).trim().to_owned()
    }

    /// Runs git in the source repository.
    #[track_caller]
    pub fn git(&self, arguments: &[&str]) -> String {
        let identity = ["-c", "user.name=Tester", "-c", "user.email=tester@example.org"];
        let mut command = self.command(Path::new("git"));
        command.arg("-C").arg(self.source()).args(identity).args(arguments);
        Ran::of(&command.output().unwrap()).ok()
    }

    /// A program with nothing of the tester's environment but PATH, and the site's directory as HOME.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", self.directory.path());
        command.stdin(Stdio::null()).current_dir(self.directory.path());
        command
    }

    /// A tool of the home, about to run.
    pub fn tool(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = self.command(&self.home.join("bin").join(name));
        command.args(arguments);
        command
    }

    /// Runs a tool of the home.
    pub fn run(&self, name: &str, arguments: &[&str]) -> Ran {
        Ran::run(&mut self.tool(name, arguments))
    }

    /// Runs a tool of the home whose reader has gone before the first byte.
    pub fn run_unread(&self, name: &str, arguments: &[&str]) -> Ran {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Ran::of(&self.tool(name, arguments).stdout(writer).output().unwrap())
    }

    /// Runs a pipeline in a shell that has the tools in its PATH.
    pub fn shell(&self, script: &str) -> Ran {
        let mut path = self.home.join("bin").into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap());
        Ran::of(&self.command(Path::new("/bin/sh")).args(["-c", script]).env("PATH", path).output().unwrap())
    }

    /// Where nginx listens for the app's users.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.listen))
    }

    /// What nginx answers on this path: status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        get(self.ports.listen, path)
    }

    /// The pid that a tool tells.
    #[track_caller]
    pub fn pid(&self, instance: &str) -> i32 {
        self.run("pid", &[instance]).ok().trim().parse().unwrap()
    }

    /// The leash between an instance's supervise and its app.
    #[track_caller]
    pub fn leash(&self, instance: &str) -> i32 {
        let supervise = self.supervise(instance);
        let found: Vec<i32> = self.processes().into_iter().filter(|pid| parent(*pid) == supervise).collect();
        assert_eq!(found.len(), 1, "the leashes of {instance}: {found:?}");
        found[0]
    }

    /// What `status --json` says.
    #[track_caller]
    pub fn status(&self) -> Value {
        serde_json::from_str(&self.run("status", &["--json"]).ok()).unwrap()
    }

    /// The supervise that keeps an instance.
    #[track_caller]
    pub fn supervise(&self, instance: &str) -> i32 {
        let is_it = |pid: &i32| {
            let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.contains("/supervise\0") && words.ends_with(&format!("\0{instance}\0"))
        };
        let all: Vec<i32> = self.processes().into_iter().filter(is_it).collect();
        // Not the leash, a fork of it.
        let found: Vec<i32> = all.iter().copied().filter(|pid| !all.contains(&parent(*pid))).collect();
        assert_eq!(found.len(), 1, "the supervises of {instance}: {found:?}");
        found[0]
    }

    /// A load of 16 kept-alive and 4 fresh connections, each of which pauses for so long between two requests that a deploy
    /// finds processor time beside it; `make proofs` has them pause for less.
    pub fn load(&self) -> Load {
        let pause = std::env::var("PAUSE_MS").map_or(20, |millis| millis.parse().unwrap());
        Load::start(Plan { pace: Some(Duration::from_millis(pause)), ..Plan::on(self.address()) })
    }

    /// All processes that belong to this site: their environment or arguments name its directory.
    pub fn processes(&self) -> Vec<i32> {
        let place = self.directory.path().to_str().unwrap().as_bytes().to_vec();
        let mentions =
            |file: PathBuf| fs::read(file).is_ok_and(|text| text.windows(place.len()).any(|part| part == place));
        let is_zombie = |pid: i32| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_none_or(|rest| rest.starts_with('Z') || rest.is_empty())
        };
        let pids =
            fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let own = std::process::id() as i32;
        let belongs = |pid: &i32| {
            let proc = PathBuf::from(format!("/proc/{pid}"));
            let at_home = fs::read_link(proc.join("cwd")).is_ok_and(|cwd| cwd.starts_with(self.directory.path()));
            *pid != own
                && !is_zombie(*pid)
                && (at_home || mentions(proc.join("cmdline")) || mentions(proc.join("environ")))
        };
        pids.filter(belongs).collect()
    }
}

impl Drop for Site {
    /// Ends nginx and both instances the way a user would, and kills what is left after that.
    fn drop(&mut self) {
        if self.home.join("bin/install").exists() {
            let _ = self.install(&["--remove", "--force"]);
        }
        for pid in self.processes() {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
        let _ = Command::new("chmod").args(["-R", "u+rwX"]).arg(self.directory.path()).status();
    }
}

/// Asserts what a tool answers to --help and --version, and to a flag that it does not know. Nothing of that needs a home.
#[track_caller]
pub fn explains_itself(tool: &str, about: &str) {
    let run = |argument: &str| {
        let mut command = Command::new(built().join(tool));
        Ran::of(&command.arg(argument).env_clear().current_dir("/").stdin(Stdio::null()).output().unwrap())
    };
    let help = run("--help");
    assert_eq!((help.code, help.stderr.as_str(), help.stdout.lines().next()), (0, "", Some(about)));
    assert!(help.stdout.contains(&format!("\nUsage: {tool} ")), "{help:?}");
    run("--version").is(0, &format!("{tool} {}\n", env!("CARGO_PKG_VERSION")), "");
    let reason = format!("{tool}: unexpected argument '--bogus' found; see {tool} --help\n");
    run("--bogus").is(2, "", &reason);
}

/// One GET with curl: status and body; status 0 when there was no answer.
pub fn get(port: u16, path: &str) -> (u16, String) {
    let url = format!("http://127.0.0.1:{port}{path}");
    let output = Command::new("curl")
        .args(["--silent", "--max-time", "20", "--write-out", "\n%{http_code}", &url])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (status.parse().unwrap(), body.to_owned())
}

/// Asserts that a load lost nothing, and was one.
#[track_caller]
pub fn none_lost(report: &Report) {
    assert!(report.requests > 0, "no request was made");
    assert_eq!(report.failed(), 0, "{report}: {:#?}", report.quoted().collect::<Vec<_>>());
}

/// Polls until something holds; fails the test after a minute, which is long for a machine that is busy with much else.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Gives a file this mode.
pub fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A process's parent; 0 when it has gone.
pub fn parent(pid: i32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    fields.split(' ').nth(1).and_then(|parent| parent.parse().ok()).unwrap_or(0)
}
