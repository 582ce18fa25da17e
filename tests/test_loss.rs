//! Promise 1: a cutover loses no request. Whole deploys of real apps, one after the other, while a load goes on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::load::{self, Failure, Load, Pace};
use crate::site::{BRISK, Sample, Site, eventually, none_lost};

/// How many whole deploys in a row; `make proofs` makes it more of them.
fn deploys() -> usize {
    std::env::var("DEPLOYS").map_or(12, |count| count.parse().unwrap())
}

/// How many commits they go round: with four, an instance never has the next release already, and is restarted each time.
const COMMITS: usize = 4;
/// How many where each one waits for nginx's idle connections to the old instance to end.
const DRAINED_DEPLOYS: usize = 3;
/// How long requests in flight may take before their instance is stopped all the same: on a busy machine an answer can
/// take some tenths of a second. Waiting for nginx's idle connections as well would take a second for each deploy.
const PATIENT: &str = "[deploy]\nsoak = \"100ms\"\ndrain_timeout = \"1s\"\n";
/// SSM shows the first 2,500 bytes of what a command printed.
const QUIET: usize = 2000;

/// Deploys `commit`, which is version `new`, in the place of `old`. Answers during the deploy must come from one of the
/// two, and those to requests made after it only from the new one.
fn deploy_in_place_of(site: &Site, load: &Load, commit: &str, old: &str, new: &str) {
    let before = load.settled();
    let said = site.run("deploy", &["--ref", commit]);
    let after = load.settled();
    let later = load.settled();
    assert_eq!((said.code, said.stdout.as_str()), (0, ""), "{said:?}");
    assert!(said.stderr.len() < QUIET, "{said:?}");
    let during: Vec<String> = after.since(&before).bodies.into_keys().collect();
    assert!(during.iter().all(|version| version == old || version == new), "{old} to {new}: {during:?}");
    let afterwards: Vec<String> = later.since(&after).bodies.into_keys().collect();
    assert_eq!(afterwards, [new], "after {new} was deployed in the place of {old}");
}

/// So many deploys in a row that alternate two versions, with not one request lost. Every deploy has a commit of its own
/// to fetch and build, or the releases are used again after the first round.
fn deploys_in_a_row(sample: Sample, builds: Builds) {
    let site = Site::new(sample, PATIENT);
    let mut commits = vec![site.git(&["rev-parse", "HEAD"]).trim().to_owned()];
    site.run("deploy", &[]).ok();
    let load = site.load();
    let (mut old, mut new) = ("v1", "v2");
    let (began, count) = (Instant::now(), deploys());
    for round in 1..=count {
        if builds == Builds::Each || round < COMMITS {
            commits.push(site.commit(new, ""));
        }
        deploy_in_place_of(&site, &load, &commits[round % commits.len()], old, new);
        (old, new) = (new, old);
    }
    let report = load.stop();
    println!("{sample:?}: {count} deploys in {:.1} s: {report}", began.elapsed().as_secs_f64());
    none_lost(&report);
    let history = std::fs::read_to_string(site.home.join("logs/history.jsonl")).unwrap();
    assert_eq!(history.matches(r#""outcome":"done""#).count(), count + 1);
    // None of them found its instance running the wanted release already.
    let starts = ["A.log", "B.log"].map(|log| {
        let log = std::fs::read_to_string(site.home.join("logs").join(log)).unwrap();
        log.matches(" supervise started ").count()
    });
    assert_eq!(starts.iter().sum::<usize>(), count + 1);
}

#[derive(PartialEq)]
enum Builds {
    Each,
    FirstRound,
}

#[test]
fn deploys_of_a_node_app_lose_nothing() {
    deploys_in_a_row(Sample::Node, Builds::FirstRound);
}

#[test]
fn deploys_of_a_python_app_lose_nothing() {
    deploys_in_a_row(Sample::Python, Builds::Each);
}

#[test]
fn deploys_of_a_static_binary_lose_nothing() {
    deploys_in_a_row(Sample::Static, Builds::Each);
}

#[test]
fn deploys_without_a_fallback_lose_nothing() {
    let site = Site::unlaid(Sample::Static, "");
    let (listen, status) = (site.ports.listen, site.ports.status);
    let nginx =
        format!("own = true\nlisten = [\"127.0.0.1:{listen}\"]\nstatus_port = {status}\nfailover = false\n{PATIENT}");
    site.write_config(&format!("[nginx]\n{nginx}"));
    site.install(&[]).ok();
    site.run("deploy", &[]).ok();
    let load = site.load();
    for round in 1..=10 {
        let new = format!("v{}", round + 1);
        deploy_in_place_of(&site, &load, &site.commit(&new, ""), &format!("v{round}"), &new);
    }
    none_lost(&load.stop());
}

#[test]
fn an_old_instance_that_is_drained_and_stopped_each_time_loses_nothing() {
    let site = Site::new(Sample::Static, "[deploy]\nsoak = \"100ms\"\nstandby = \"stop\"\n");
    site.run("deploy", &[]).ok();
    let load = site.load();
    let (mut old, mut new) = ("v1", "v2");
    for _ in 0..DRAINED_DEPLOYS {
        let running = site.run("enabled-instance", &[]).ok();
        let address = site.address();
        let slow = thread::spawn(move || load::slow(address, Duration::from_secs(4)));
        let commit = site.commit(new, "");
        deploy_in_place_of(&site, &load, &commit, old, new);
        // The old instance, which has no handler for SIGTERM, was there until its last answer, and no longer.
        assert!(slow.is_finished(), "the old instance was stopped before its last answer");
        assert_eq!(slow.join().unwrap().unwrap(), old);
        assert_eq!(site.run("pid", &[running.trim()]).code, 1, "{running} was to be stopped");
        (old, new) = (new, old);
    }
    none_lost(&load.stop());
}

/// How many connections to this port are open, by the kernel's table.
fn connections(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!(":{port:04X}");
    let open = |line: &&str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words[1].ends_with(&local) && words[3] == "01"
    };
    table.lines().skip(1).filter(open).count()
}

#[test]
fn long_exchanges_outlive_a_deploy() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("deploy", &[]).ok();
    let address = site.address();
    let mut socket = load::websocket(address).unwrap();
    socket.ping().unwrap();
    let go_on = site.home.join("go-on");
    let held = thread::spawn({
        let go_on = go_on.clone();
        move || load::held(address, &go_on)
    });
    let transfers = Transfers::begin(address);
    eventually("nginx has all four", || connections(site.ports.listen) >= 4);
    eventually("the app has the held request and the WebSocket", || connections(site.ports.first) >= 2);
    site.commit("v2", "");
    site.run("deploy", &[]).ok();
    assert_eq!(site.get("/"), (200, "v2\n".to_owned()));
    assert!(!held.is_finished(), "the held request had an answer too early");
    socket.ping().unwrap();
    std::fs::write(go_on, "").unwrap();
    assert_eq!(held.join().unwrap().unwrap(), "v1");
    transfers.end_whole();
    socket.ping().unwrap();
    socket.close().unwrap();
}

/// A download and an upload that are in flight until they are told to end.
struct Transfers {
    go_on: Arc<AtomicBool>,
    both: [JoinHandle<Result<(), Failure>>; 2],
}

impl Transfers {
    fn begin(address: SocketAddr) -> Transfers {
        let go_on = Arc::new(AtomicBool::new(false));
        let pace = [(); 2].map(|()| Pace::HalfUntil(Arc::clone(&go_on)));
        let [one, other] = pace;
        let download = thread::spawn(move || load::download(address, 50_000_000, &one));
        let upload = thread::spawn(move || load::upload(address, 20_000_000, &other));
        Transfers { go_on, both: [download, upload] }
    }

    /// They must still be in flight, and come through whole.
    fn end_whole(self) {
        assert!(self.both.iter().all(|transfer| !transfer.is_finished()), "a transfer ended too early");
        self.go_on.store(true, Ordering::Relaxed);
        for transfer in self.both {
            transfer.join().unwrap().unwrap();
        }
    }
}

/// An upload and a download begin with the first instance; when the deploys are done, they go on. nginx reads a whole
/// upload before it passes it on, to the instance that was enabled when it began.
fn slow_transfers_outlive_their_instance(configuration: &str, versions: &[&str]) {
    let site = Site::new(Sample::Static, configuration);
    site.run("deploy", &[]).ok();
    let transfers = Transfers::begin(site.address());
    eventually("nginx reads both", || connections(site.ports.listen) >= 2);
    for version in versions {
        site.commit(version, "");
        site.run("deploy", &[]).ok();
    }
    transfers.end_whole();
    assert_eq!(site.get("/"), (200, format!("{}\n", versions.last().unwrap())));
}

#[test]
fn slow_transfers_outlive_the_replacement_of_the_instance_that_they_began_with() {
    slow_transfers_outlive_their_instance("[deploy]\nsoak = \"100ms\"\n", &["v2", "v3"]);
}

#[test]
fn slow_transfers_outlive_the_stop_of_the_instance_that_they_began_with() {
    slow_transfers_outlive_their_instance("[deploy]\nsoak = \"100ms\"\nstandby = \"stop\"\n", &["v2"]);
}

/// gunicorn's threads close a connection on which nothing has come for two seconds. A POST that nginx sends just then is lost: it
/// cannot be sent again.
#[test]
fn an_app_that_closes_idle_connections_after_two_seconds_loses_no_post() {
    let site = Site::new(Sample::Python, BRISK);
    site.shell(
        "sed -i 's/^IDLE_TIMEOUT = 10$/IDLE_TIMEOUT = 2/' source/server.py && grep -q 'TIMEOUT = 2' source/server.py",
    )
    .ok();
    site.commit("v1", "");
    site.run("deploy", &[]).ok();
    let plan = load::Plan { kept_alive: 20, fresh: 0, post_share: 100, ..load::Plan::on(site.address()) };
    let pauses = (1994..2002).map(Duration::from_millis);
    let loads: Vec<Load> = pauses.map(|pause| Load::start(load::Plan { pace: Some(pause), ..plan.clone() })).collect();
    let sent = |load: &Load| load.snapshot().requests;
    eventually("each has sent five", || loads.iter().all(|load| sent(load) >= 5 * 20));
    loads.into_iter().for_each(|load| none_lost(&load.stop()));
}
