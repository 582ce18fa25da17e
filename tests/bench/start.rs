//! The sample app's own start-up: the time from its start to its first answer, without any of the tools.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::load;
use crate::site::{Ports, Site};
use crate::timing;

/// How often an app that is not there yet is asked.
const POLL: Duration = Duration::from_micros(500);
/// How long an app may take to be there.
const PATIENCE: Duration = Duration::from_secs(20);

/// Starts the app by hand, as `[run] command` does, waits for its first answer and kills it.
pub fn up(site: &Site, ports: &Ports) -> Duration {
    let mut command = timing::program(Path::new("/bin/sh"), &["-c", "exec ./app"]);
    command.current_dir(site.source()).env("PORT", ports.first.to_string());
    let began = Instant::now();
    let mut app = command.spawn().unwrap();
    await_answer(ports.first);
    let took = began.elapsed();
    app.kill().unwrap();
    app.wait().unwrap();
    took
}

/// Waits until the app behind this port answers.
#[track_caller]
pub fn await_answer(port: u16) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let deadline = Instant::now() + PATIENCE;
    while let Err(failure) = load::slow(address, Duration::ZERO) {
        assert!(Instant::now() < deadline, "no answer on port {port}: {failure}");
        thread::sleep(POLL);
    }
}
