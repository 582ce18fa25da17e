//! pm2, as npm installed it, with a home of its own: the sample app in cluster mode, as pm2's documentation says that it
//! reloads without downtime.

use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cutover::process;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::PROCESSES;
use crate::keeper::Keeper;
use crate::ran::Ran;
use crate::site::{Ports, samples};

/// What the app is called.
const APP: &str = "shop";
/// How long `pm2 kill` may take to end what pm2 keeps.
const PATIENCE: Duration = Duration::from_secs(10);

/// pm2's daemon and its app. Dropping it ends both, whatever has happened.
pub struct Pm2 {
    directory: TempDir,
    ports: Ports,
}

impl Pm2 {
    /// Where `make bench-pm2` installs it.
    pub fn installed() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("target/pm2/node_modules/.bin/pm2")
    }

    /// Starts the daemon, and the app in its version `v1`.
    pub fn start() -> Pm2 {
        let directory = tempfile::Builder::new().prefix("bench-pm2-").tempdir().unwrap();
        let pm2 = Pm2 { directory, ports: Ports::claim() };
        fs::create_dir(pm2.source()).unwrap();
        for name in ["package.json", "server.js"] {
            fs::copy(samples().join("node").join(name), pm2.source().join(name)).unwrap();
        }
        pm2.write("v1", "");
        let file = pm2.directory.path().join("ecosystem.json");
        fs::write(&file, pm2.ecosystem().to_string()).unwrap();
        Ran::run(&mut pm2.command(&["start", file.to_str().unwrap()])).ok();
        pm2
    }

    /// The app as pm2 is told of it: a worker is waited for until it says that it is ready, ten times as long as it needs,
    /// and one that is to end may answer what it has begun.
    fn ecosystem(&self) -> Value {
        json!({ "apps": [{
            "name": APP,
            "script": "server.js",
            "cwd": self.source(),
            "exec_mode": "cluster",
            "instances": PROCESSES,
            "wait_ready": true,
            "listen_timeout": 10_000,
            "kill_timeout": 5_000,
            "env": { "PORT": self.ports.first.to_string() },
        }] })
    }

    /// Where the app's code lies: the same directory for each release.
    fn source(&self) -> PathBuf {
        self.directory.path().join("source")
    }

    fn write(&self, version: &str, behaviour: &str) {
        fs::write(self.source().join("VERSION"), version).unwrap();
        fs::write(self.source().join("BEHAVIOUR"), behaviour).unwrap();
    }

    /// pm2 with these arguments, about to run. It asks nobody whether there is a newer one.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(Pm2::installed());
        command.args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command
            .env("HOME", self.directory.path())
            .env("PM2_HOME", self.home())
            .env("PM2_DISABLE_VERSION_CHECK", "true");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir(self.directory.path());
        command
    }

    fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    /// Where the app listens for its clients.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.first))
    }

    /// The process that stays.
    pub fn daemon(&self) -> i32 {
        fs::read_to_string(self.home().join("pm2.pid")).unwrap().trim().parse().unwrap()
    }

    /// The daemon and all that descends from it.
    fn left(&self) -> Vec<process::Process> {
        process::with_environment(|environment| {
            environment.get(OsStr::new("PM2_HOME")).is_some_and(|home| Path::new(home) == self.home())
        })
    }
}

impl Keeper for Pm2 {
    /// The code is replaced where it lies, as a `git pull` does it.
    fn release(&self, version: &str, behaviour: &str) -> Ran {
        self.write(version, behaviour);
        Ran::run(self.command(&["reload", APP]).stdout(Stdio::piped()).stderr(Stdio::piped()))
    }

    fn processes(&self) -> Vec<i32> {
        let told = Ran::run(self.command(&["jlist"]).stdout(Stdio::piped())).ok();
        let apps: Vec<Value> = serde_json::from_str(&told).unwrap();
        apps.iter().map(|app| app["pid"].as_i64().unwrap() as i32).collect()
    }

    fn ports(&self) -> Vec<u16> {
        vec![self.ports.first]
    }
}

impl Drop for Pm2 {
    fn drop(&mut self) {
        let began = Instant::now();
        let ending = self.command(&["kill"]).spawn();
        while !self.left().is_empty() && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(50));
        }
        for process in self.left() {
            let _ = process.signal(Signal::SIGKILL);
        }
        if let Ok(mut ending) = ending {
            let _ = ending.wait();
        }
    }
}
