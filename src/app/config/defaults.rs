//! What holds where the configuration leaves a key out.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Build, Check, Deploy, Each, Health, Hooks, Nginx, Processes, Push, Run, Standby, StopSignalTo};
use crate::app::names::{Instance, Port};
use crate::health::StatusSet;

/// The branch that is deployed when none is named.
pub const DEFAULT_REF: &str = "main";

impl Default for Build {
    fn default() -> Build {
        Build { command: None, timeout: Duration::from_secs(15 * 60) }
    }
}

impl Default for Run {
    fn default() -> Run {
        Run {
            command: String::new(),
            env_file: None,
            stop_signal: default_stop_signal(),
            stop_signal_to: StopSignalTo::default(),
            stop_timeout: default_stop_timeout(),
            processes: Processes::default(),
            max_memory: None,
            open_files: None,
            nice: None,
        }
    }
}

impl Default for Health {
    fn default() -> Health {
        Health {
            path: "/".to_owned(),
            status: StatusSet::success(),
            body: None,
            host: None,
            headers: BTreeMap::new(),
            timeout: Duration::from_secs(60),
            restart_after: Some(Duration::from_secs(30)),
        }
    }
}

impl Default for Nginx {
    fn default() -> Nginx {
        Nginx {
            listen: vec!["80".to_owned()],
            server_name: "_".to_owned(),
            status_port: port(20200),
            failover: true,
            sticky: false,
            keepalive: 32,
            // Servers that are common close them after two seconds (gunicorn) or later.
            keepalive_timeout: Duration::from_secs(1),
            send_timeout: Duration::from_secs(60),
            read_timeout: Duration::from_secs(300),
            trusted_proxies: Vec::new(),
            conf_dir: PathBuf::from("/etc/nginx/conf.d"),
            own: false,
            check: Check::default(),
        }
    }
}

impl Default for Push {
    fn default() -> Push {
        Push {
            repository: None,
            branch: None,
            secret_file: default_secret_file(),
            port: default_push_port(),
            poll: None,
        }
    }
}

impl Default for Hooks {
    fn default() -> Hooks {
        Hooks { timeout: Duration::from_secs(5 * 60) }
    }
}

impl Default for Deploy {
    fn default() -> Deploy {
        Deploy {
            keep_releases: 5,
            standby: Standby::Keep,
            drain_timeout: Duration::from_secs(30),
            soak: Duration::from_secs(3),
            timeout: Duration::from_secs(30 * 60),
        }
    }
}

pub fn port(number: i64) -> Port {
    Port::try_from(number).expect("a default port lies between 1 and 65535")
}

pub fn default_instances() -> [Instance; 2] {
    ["A", "B"].map(|name| {
        let number = if name == "A" { 20201 } else { 20202 };
        Instance::new(name, port(number)).expect("a default name is a valid one")
    })
}

pub fn default_worker_count() -> usize {
    1
}

pub fn default_ref() -> String {
    DEFAULT_REF.to_owned()
}

pub fn default_secret_file() -> PathBuf {
    PathBuf::from("push-secret")
}

pub fn default_push_port() -> Port {
    port(20203)
}

pub fn default_compose_file() -> Each<Vec<PathBuf>> {
    Each::Both(vec![PathBuf::from(".")])
}

pub fn default_tag() -> String {
    "latest".to_owned()
}

pub fn default_stop_signal() -> Signal {
    Signal::SIGTERM
}

pub fn default_stop_timeout() -> Duration {
    Duration::from_secs(30)
}
