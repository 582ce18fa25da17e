//! What is asked of both, cutover and pm2: a release, and which processes there are.

use crate::PROCESSES;
use crate::ran::Ran;
use crate::site::{Sample, Site};

/// What keeps an app running, in several processes.
pub trait Keeper {
    /// Brings a version of the app that behaves like this into service, or tries to.
    fn release(&self, version: &str, behaviour: &str) -> Ran;

    /// The app's processes that serve.
    fn processes(&self) -> Vec<i32>;

    /// The ports on which these listen.
    fn ports(&self) -> Vec<u16>;
}

impl Keeper for Site {
    fn release(&self, version: &str, behaviour: &str) -> Ran {
        self.commit(version, behaviour);
        self.run("deploy", &[])
    }

    fn processes(&self) -> Vec<i32> {
        let enabled = self.run("enabled-instance", &[]).ok();
        numbers(&self.run("pid", &[enabled.trim()]).ok())
    }

    fn ports(&self) -> Vec<u16> {
        numbers(&self.run("enabled-port", &[]).ok())
    }
}

/// A site of cutover's on which `v1` is deployed, with everything that is not said here as it is by default.
pub fn cutover() -> Site {
    let run = format!("command = \"exec node server.js --port=$PORT\"\nprocesses = {PROCESSES}\nstop_timeout = \"5s\"");
    let site = Site::roomy(Sample::Node, &format!("[build]\n[run]\n{run}\n[deploy]\n"));
    site.run("deploy", &[]).ok();
    site
}

/// Numbers, one on each line.
pub fn numbers<T: std::str::FromStr<Err: std::fmt::Debug>>(lines: &str) -> Vec<T> {
    lines.lines().map(|line| line.parse().unwrap()).collect()
}
