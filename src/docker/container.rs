//! A container as the engine describes it.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::outcome::quote;

/// How a container ended that was killed, for whatever reason.
pub const KILLED: &str = "killed by SIGKILL (exit code 137)";
/// How many lines of a health check's output are quoted.
const QUOTED_LINES: usize = 2;

/// A container.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its name, after a `/`.
    pub name: String,
    /// When it was made, in RFC 3339: later ones sort behind earlier ones.
    pub created: String,
    /// The id of its image.
    pub image: String,
    /// How often the engine has started it again, as its restart policy says.
    #[serde(default)]
    pub restart_count: u64,
    /// What it is doing.
    pub state: State,
    /// What it was made from.
    pub config: Config,
    host_config: HostConfig,
    #[serde(default)]
    mounts: Vec<Mount>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Mount {
    #[serde(default, rename = "Type")]
    kind: String,
    #[serde(default)]
    name: Option<String>,
}

/// What a container is doing.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct State {
    /// Whether its main process runs.
    pub running: bool,
    /// Whether the engine is about to start it again.
    pub restarting: bool,
    /// The main process as the host sees it; 0: it does not run.
    pub pid: i32,
    exit_code: i64,
    #[serde(rename = "OOMKilled", default)]
    out_of_memory: bool,
    /// Why the engine could not start it; empty: it could.
    #[serde(default)]
    error: String,
    /// None: its image declares no health check.
    #[serde(default)]
    pub health: Option<Health>,
}

/// What the health check that an image declares has found.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Health {
    status: String,
    #[serde(default)]
    log: Option<Vec<Probe>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Probe {
    output: String,
}

/// What a container was made from.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Config {
    /// The image as it was asked for.
    pub image: String,
    /// Labels by their names.
    #[serde(default)]
    pub labels: Option<BTreeMap<String, String>>,
    /// How long it may take to end, in seconds; None: nobody said; less than 0: without end.
    #[serde(default)]
    pub stop_timeout: Option<i64>,
    /// Whether it prints to a terminal.
    #[serde(default)]
    pub tty: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostConfig {
    network_mode: String,
    #[serde(default)]
    port_bindings: Option<BTreeMap<String, Option<Vec<Binding>>>>,
}

/// Where on the host a container's port is to be had.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Binding {
    #[serde(default)]
    host_ip: String,
    #[serde(default)]
    host_port: String,
}

impl Container {
    /// Whether the engine keeps it running.
    pub fn is_kept(&self) -> bool {
        self.state.running || self.state.restarting
    }

    /// A label's value.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.config.labels.as_ref()?.get(name).map(String::as_str)
    }

    /// The addresses of the host under which its ports are published, `0.0.0.0:8081`, in words; None: it uses the host's
    /// network, and listens where it likes.
    pub fn published(&self) -> Option<Vec<String>> {
        if self.host_config.network_mode == "host" {
            return None;
        }
        let addresses = self.bindings().map(|binding| match binding.host_ip.as_str() {
            "" => binding.host_port.clone(),
            address => format!("{address}:{}", binding.host_port),
        });
        Some(addresses.collect())
    }

    /// Whether this port of the host's loopback leads to it.
    pub fn publishes(&self, port: u16) -> bool {
        let is_it =
            |binding: &Binding| is_reached_by_loopback(&binding.host_ip) && binding.host_port == port.to_string();
        self.host_config.network_mode == "host" || self.bindings().any(is_it)
    }

    /// Its volumes that nobody has given a name: theirs are 64 digits. Compose hands them on from one container to the next.
    pub fn volumes_without_name(&self) -> impl Iterator<Item = &str> {
        let is_digits = |name: &&str| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let volumes = self.mounts.iter().filter(|mount| mount.kind == "volume");
        volumes.filter_map(|mount| mount.name.as_deref()).filter(is_digits)
    }

    fn bindings(&self) -> impl Iterator<Item = &Binding> {
        self.host_config.port_bindings.iter().flat_map(BTreeMap::values).flatten().flatten()
    }

    /// How it ended, or why it could not even begin.
    pub fn end_in_words(&self) -> String {
        let State { exit_code, out_of_memory, error, .. } = &self.state;
        match error.is_empty() {
            true => exit_in_words(*exit_code, *out_of_memory),
            false => quote(error.lines(), 1),
        }
    }
}

impl Health {
    /// Whether it has failed too often, as opposed to not having succeeded yet.
    pub fn is_unhealthy(&self) -> bool {
        self.status == "unhealthy"
    }

    /// Err: what is not healthy, in words.
    pub fn check(&self) -> Result<(), String> {
        match self.status.as_str() {
            "healthy" | "none" | "" => Ok(()),
            "starting" => Err("Docker's health check has not succeeded yet".to_owned()),
            status => {
                let last = self.log.as_ref().and_then(|probes| probes.last());
                let said = last.map(|probe| quote(probe.output.lines(), QUOTED_LINES)).unwrap_or_default();
                let said = if said.is_empty() { said } else { format!(": {said}") };
                Err(format!("Docker's health check says {status}{said}"))
            }
        }
    }
}

/// Whether what is published on an address of the host is reached at 127.0.0.1.
pub fn is_reached_by_loopback(address: &str) -> bool {
    matches!(address, "" | "0.0.0.0" | "::" | "127.0.0.1")
}

/// An exit code in words.
pub fn exit_in_words(code: i64, out_of_memory: bool) -> String {
    match (code, out_of_memory) {
        (_, true) => format!("out of memory: killed at its memory limit (exit code {code})"),
        // A shell's way to say which signal it was.
        (137, false) => KILLED.to_owned(),
        (143, false) => "killed by SIGTERM (exit code 143)".to_owned(),
        (code, false) => format!("exit code {code}"),
    }
}
