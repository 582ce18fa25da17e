//! One column of the comparison: what happens to its clients while a version is released, while a broken one is, and while
//! a process is killed.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::event::Event;
use crate::keeper::Keeper;
use crate::load::{Load, Plan};
use crate::{note, site};

/// The pause between two requests of a connection: both processors are needed by what is measured, too.
const PACE: Duration = Duration::from_millis(5);
/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long the load is on before something happens, and how long it stays on afterwards.
const BEFORE: Duration = Duration::from_secs(1);
const AFTERWARDS: Duration = Duration::from_secs(2);
/// How often a killed process is asked for, and how long an answer may take: a connection can be lost with the process to
/// which it was just handed.
const POLL: Duration = Duration::from_millis(1);
const ANSWER: Duration = Duration::from_millis(250);
/// How long a process may take to be back.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who is compared, and what was found of it so far.
pub struct Side<'a> {
    pub name: &'static str,
    address: SocketAddr,
    keeper: &'a dyn Keeper,
    pub released: Event,
    pub broken: Event,
    pub killed: Event,
}

impl<'a> Side<'a> {
    /// What this keeps, for clients that connect here.
    pub fn new(name: &'static str, address: SocketAddr, keeper: &'a dyn Keeper) -> Side<'a> {
        let [released, broken, killed] = [(); 3].map(|()| Event::default());
        Side { name, address, keeper, released, broken, killed }
    }

    /// Everything that is measured, once.
    pub fn round(&mut self, number: u64) {
        note(&format!("round {number}, {}", self.name));
        let version = format!("{number} of {}", self.name);
        self.release(&version);
        self.kill();
        self.release_broken(&format!("broken {version}"), &version);
    }

    /// Releases a version that is well.
    fn release(&mut self, version: &str) {
        let load = self.load();
        let began = Instant::now();
        let ran = self.keeper.release(version, "");
        let took = began.elapsed();
        thread::sleep(AFTERWARDS);
        let report = load.stop();
        assert!(report.bodies.contains_key(version), "nobody got {version}: {ran:?}, {:?}", report.bodies);
        self.released.add(&report, took, ran.code, "the new version");
    }

    /// Releases a version that exits as it starts. Where nothing answers then, somebody has to come and release a good one.
    fn release_broken(&mut self, version: &str, last: &str) {
        let load = self.load();
        let began = Instant::now();
        let ran = self.keeper.release(version, "exit");
        let took = began.elapsed();
        thread::sleep(AFTERWARDS);
        let report = load.stop();
        let serves = site::get(self.address.port(), "/") == (200, format!("{last}\n"));
        let afterwards = if serves { "the version before it" } else { "nothing, until somebody comes" };
        self.broken.add(&report, took, ran.code, afterwards);
        if !serves {
            self.keeper.release(last, "").ok();
        }
    }

    /// Kills one of the processes.
    fn kill(&mut self) {
        let (before, ports) = (self.keeper.processes(), self.keeper.ports());
        let load = self.load();
        let began = Instant::now();
        kill(Pid::from_raw(before[0]), Signal::SIGKILL).unwrap();
        while !ports.iter().filter_map(|port| answering(*port)).any(|pid| !before.contains(&pid)) {
            assert!(began.elapsed() < PATIENCE, "{}: the killed process does not come back", self.name);
            thread::sleep(POLL);
        }
        let took = began.elapsed();
        thread::sleep(AFTERWARDS);
        self.killed.add(&load.stop(), took, 0, "both processes");
    }

    /// The same load for all: 16 kept-alive and 4 fresh connections, a quarter POSTs.
    fn load(&self) -> Load {
        let load = Load::start(Plan { pace: Some(PACE), timeout: TIMEOUT, ..Plan::on(self.address) });
        thread::sleep(BEFORE);
        load
    }
}

/// The process that answers on this port; None: none does.
fn answering(port: u16) -> Option<i32> {
    let mut connection = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    connection.set_read_timeout(Some(ANSWER)).ok()?;
    connection.write_all(b"GET /pid HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).ok()?;
    answer.lines().last()?.parse().ok()
}
