//! Workers: they run beside the enabled instance only, move with a cutover, none doubled and none missing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::site::{BRISK, Ran, Sample, Site, eventually, none_lost};

/// What workers connect to: it knows who is connected, and who ever was at the same time as another of its name.
struct Peer {
    addresses: Vec<SocketAddr>,
    seen: Arc<Mutex<Seen>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    /// Who is connected: to which address, names, and versions.
    present: Vec<(usize, String, String)>,
    /// Names that were connected to an address twice at some moment.
    doubled: Vec<String>,
    /// Versions that were connected at some moment.
    ever: BTreeSet<String>,
}

impl Peer {
    fn start() -> Peer {
        Peer::on(&["127.0.0.1".to_owned()])
    }

    /// One that listens on these addresses, on a port of each.
    fn on(hosts: &[String]) -> Peer {
        let listeners: Vec<TcpListener> =
            hosts.iter().map(|host| TcpListener::bind((host.as_str(), 0)).unwrap()).collect();
        let addresses = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        listeners.iter().for_each(|listener| listener.set_nonblocking(true).unwrap());
        let (seen, ends) = (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicBool::new(false)));
        let (noted, over) = (Arc::clone(&seen), Arc::clone(&ends));
        let thread = thread::spawn(move || {
            let mut open: Vec<(TcpStream, usize, String)> = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let accepted = listeners.iter().enumerate().filter_map(|(at, one)| Some((one.accept().ok()?.0, at)));
                let news: Vec<(TcpStream, usize)> = accepted.collect();
                // Whoever has ended did so before whoever is new began: the end was there first.
                open.retain_mut(|(stream, _, said)| !has_ended(stream, said));
                open.extend(news.into_iter().map(|(stream, at)| {
                    stream.set_nonblocking(true).unwrap();
                    (stream, at, String::new())
                }));
                for (stream, _, said) in &mut open {
                    has_ended(stream, said);
                }
                let who = |(_, at, said): &(TcpStream, usize, String)| {
                    let (name, version) = said.trim().split_once(' ')?;
                    Some((*at, name.to_owned(), version.to_owned()))
                };
                let present: Vec<(usize, String, String)> = open.iter().filter_map(who).collect();
                let mut seen = noted.lock().unwrap();
                let is_double = |(at, (to, name, _)): &(usize, &(usize, String, String))| {
                    present[..*at].iter().any(|(other_to, other, _)| (other_to, other) == (to, name))
                };
                let twice = present.iter().enumerate().filter(is_double);
                seen.ever.extend(present.iter().map(|(_, _, version)| version.clone()));
                seen.doubled.extend(twice.map(|(_, (_, name, _))| name.clone()));
                seen.present = present;
                drop(seen);
                thread::sleep(Duration::from_millis(1));
            }
        });
        Peer { addresses, seen, ends, thread: Some(thread) }
    }

    /// How many of each version are connected.
    fn versions(&self) -> BTreeMap<String, usize> {
        let mut versions = BTreeMap::new();
        for (_, _, version) in &self.seen.lock().unwrap().present {
            *versions.entry(version.clone()).or_default() += 1;
        }
        versions
    }

    fn doubled(&self) -> usize {
        self.seen.lock().unwrap().doubled.len()
    }

    #[track_caller]
    fn has(&self, version: &str, count: usize) {
        eventually(&format!("{count} workers of {version}, and no others"), || {
            self.versions() == BTreeMap::from([(version.to_owned(), count)])
        });
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Reads what there is. True: the other end is closed.
fn has_ended(stream: &mut TcpStream, said: &mut String) -> bool {
    let mut chunk = [0; 256];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return true,
            Ok(count) => said.push_str(&String::from_utf8_lossy(&chunk[..count])),
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}

fn worker(name: &str, peer: &Peer, more: &str) -> String {
    let port = peer.addresses[0].port();
    format!(
        "[[worker]]\nname = \"{name}\"\ncommand = \"exec ./app work\"\nargs = [\"127.0.0.1\", \"{port}\"]\n{more}\n"
    )
}

fn site(workers: &str) -> Site {
    Site::new(Sample::Static, &format!("{BRISK}{workers}"))
}

/// The example's sixteen workers, each with a connection to a server of its own, deployed five times.
#[test]
fn sixteen_workers_with_their_own_arguments_are_never_doubled_and_never_missing() {
    let groups = [("single", 1), ("multi", 2)];
    let servers: Vec<(String, String, usize)> = groups
        .iter()
        .flat_map(|(kind, net)| {
            (1..=8).map(move |number| (format!("{kind}{number:02}"), format!("0.{net}.{number}"), 9000 + number))
        })
        .collect();
    // All of 127.0.0.0/8 is this machine.
    let hosts: Vec<String> = servers.iter().map(|(_, host, _)| format!("127.{host}")).collect();
    let peer = Peer::on(&hosts);
    let example = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/push-server.toml")).unwrap();
    let mut workers =
        example[example.find("[[worker]]").unwrap()..].replace("exec node bin/main.js", "exec ./app work");
    for ((_, host, port), address) in servers.iter().zip(&peer.addresses) {
        let (there, here) = (format!("\"10.{host}\", \"{port}\""), format!("\"127.{host}\", \"{}\"", address.port()));
        assert!(workers.contains(&there), "{there}");
        workers = workers.replace(&there, &here);
    }
    let each_has_its_own = || {
        let mut present = peer.seen.lock().unwrap().present.clone();
        present.sort();
        let connected: Vec<(usize, String)> = present.into_iter().map(|(to, name, _)| (to, name)).collect();
        connected == servers.iter().map(|(name, ..)| name.clone()).enumerate().collect::<Vec<_>>()
    };
    let site = site(&workers);
    site.run("deploy", &[]).ok();
    peer.has("v1", 16);
    assert!(each_has_its_own());
    let load = site.load();
    for version in ["v2", "v3", "v4", "v5", "v6"] {
        site.commit(version, "");
        site.run("deploy", &[]).ok();
        peer.has(version, 16);
        assert!(each_has_its_own());
    }
    site.run("rollback", &[]).ok();
    peer.has("v5", 16);
    none_lost(&load.stop());
    assert_eq!(peer.doubled(), 0);
    let told = |instance: usize| site.status()["instances"][instance]["workers"].as_array().unwrap().len();
    let enabled = site.run("enabled-instance", &[]).ok();
    assert_eq!(if enabled == "A\n" { (told(0), told(1)) } else { (told(1), told(0)) }, (16, 0));
    let table = site.run("status", &[]).ok();
    assert!(table.contains("single01.0") && table.contains("multi08.0"), "{table}");
    // Standby and enabled alike are up; only one of them has workers.
    site.run("stop-instance", &["--force"]).ok();
    eventually("they end with their instance", || peer.versions().is_empty());
    site.run("start-instance", &[]).ok();
    peer.has("v5", 16);
}

#[test]
fn a_worker_has_its_own_environment_and_its_lines_in_the_log() {
    let config = "[[worker]]\nname = \"mail\"\ncommand = \"env | grep -E '^(WORKER|PORT|PROCESS|INSTANCE)' | sort; exec sleep 1000 #\"\nargs = [\"a b\", \"$HOME\"]\ncount = 2\n";
    let site = site(config);
    site.run("deploy", &[]).ok();
    let port = site.ports.first;
    let expected = |index: usize| format!("INSTANCE=A\nPORT={port}\nWORKER=mail\nWORKER_INDEX={index}\n");
    eventually("both have said it", || {
        let log = fs::read_to_string(site.home.join("logs/A.log")).unwrap();
        (0..2).all(|index| {
            let source = format!("Z mail.{index} ");
            let lines: Vec<&str> = log.lines().filter_map(|line| Some(line.split_once(&source)?.1)).collect();
            lines.join("\n") + "\n" == expected(index)
        })
    });
}

#[test]
fn workers_that_overlap_begin_before_the_old_ones_end() {
    let peer = Peer::start();
    // What does not hear that it is to end stays for a second more.
    let deaf = |text: String| text.replace("exec ./app work", "trap '' TERM; exec ./app work");
    let workers = deaf(format!("{}{}", worker("late", &peer, ""), worker("soon", &peer, "overlap = true")));
    let site = site(&format!("[run]\ncommand = \"exec ./app\"\nstop_timeout = \"1s\"\n{workers}"));
    site.run("deploy", &[]).ok();
    peer.has("v1", 2);
    site.commit("v2", "");
    site.run("deploy", &[]).ok();
    peer.has("v2", 2);
    let doubled = peer.seen.lock().unwrap().doubled.clone();
    assert!(!doubled.is_empty() && doubled.iter().all(|name| name == "soon"), "{doubled:?}");
}

#[test]
fn a_release_whose_workers_do_not_stay_up_is_rolled_back_with_them() {
    let peer = Peer::start();
    let site = Site::new(
        Sample::Static,
        &format!("[deploy]\nsoak = \"2s\"\ndrain_timeout = \"100ms\"\n{}", worker("mail", &peer, "count = 2")),
    );
    for version in ["v0", "v1"] {
        site.commit(version, "");
        site.run("deploy", &[]).ok();
        peer.has(version, 2);
    }
    peer.seen.lock().unwrap().ever.clear();
    let load = site.load();
    site.commit("v2", "idle 0.5");
    let ran = site.run("deploy", &[]);
    ran.fails(4, &["A died after the cutover: mail.", "exit status 7", "B is enabled again"]);
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
    peer.has("v1", 2);
    eventually("A is as it was", || site.status()["instances"][0]["healthy"] == true);
    // A has v0 again, but nobody's traffic, and no workers.
    let ever: Vec<String> = peer.seen.lock().unwrap().ever.iter().cloned().collect();
    assert_eq!(ever, ["v1", "v2"]);
    none_lost(&load.stop());
}

#[test]
fn a_worker_that_dies_is_started_again_alone() {
    let peer = Peer::start();
    let site = site(&worker("mail", &peer, "count = 3"));
    site.run("deploy", &[]).ok();
    peer.has("v1", 3);
    let pids = || -> Vec<i64> {
        let status = site.status();
        let workers = status["instances"][0]["workers"].as_array().unwrap();
        workers.iter().filter_map(|worker| worker["pid"].as_i64()).collect()
    };
    let before = pids();
    site.shell(&format!("kill -9 {}", before[1])).ok();
    let mut after = Vec::new();
    eventually("it is back", || {
        after = pids();
        after.len() == 3 && after[1] != before[1]
    });
    assert_eq!((after[0], after[2]), (before[0], before[2]));
    peer.has("v1", 3);
    let table = site.run("status", &[]).ok();
    assert!(table.contains("restarts 1 (last: killed by SIGKILL, "), "{table}");
}

/// Killed at any point, the next deploy has the workers where they belong.
#[test]
fn a_deploy_that_is_killed_leaves_no_worker_behind() {
    let peer = Peer::start();
    let workers: String = ["one", "two", "three", "four"].map(|name| worker(name, &peer, "")).concat();
    let site = site(&workers);
    site.run("deploy", &[]).ok();
    peer.has("v1", 4);
    for (number, milliseconds) in (2..).zip([20, 60, 100, 140, 180, 220, 260, 300, 400]) {
        let version = format!("v{number}");
        site.commit(&version, "");
        let mut deploy = site.tool("deploy", &[]);
        deploy.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut child = deploy.spawn().unwrap();
        // The moment is what differs; whichever step it meets, the outcome is the same.
        thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
        Ran::of(&site.tool("deploy", &[]).output().unwrap()).ok();
        peer.has(&version, 4);
    }
    assert_eq!(peer.doubled(), 0);
}
