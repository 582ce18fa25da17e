//! What is asked to end does so: what is stopped is woken for it, and of what forks faster than one can look nothing is left.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use cutover::process::{Pid, Process};
use nix::sys::signal::Signal;

use crate::ran::Ran;
use crate::site::{BRISK, Sample, Site, eventually, parent};

/// Longer than any test may take, so that waiting for it shows.
const STOP_TIMEOUT: Duration = Duration::from_secs(45);
const PATIENT: &str = "[run]\ncommand = \"exec ./app\"\nstop_timeout = \"45s\"\n";

/// Four chains of processes, each of which forks and ends every few milliseconds, beside the app. They tell that they live by
/// files that grow.
const CHAINS: &str = r#"
import os, sys, time
number, end = sys.argv[1], time.time() + 120
while time.time() < end and not os.path.exists("../../end"):
    time.sleep(0.004)
    with open("../../beat." + number, "a") as beat:
        beat.write("x")
    if os.fork():
        os._exit(0)
"#;

fn signal(pid: i32, signal: Signal) {
    Process::with_pid(Pid::from_raw(pid)).unwrap().signal(signal).unwrap();
}

fn stops_at_once(site: &Site, tool: &str, arguments: &[&str]) {
    let began = Instant::now();
    site.run(tool, arguments).ok();
    assert!(began.elapsed() < STOP_TIMEOUT / 2, "{:?}", began.elapsed());
}

#[test]
fn a_stopped_app_ends_when_it_is_asked_to() {
    let site = Site::new(Sample::Static, &format!("{BRISK}{PATIENT}"));
    site.run("deploy", &[]).ok();
    signal(site.pid("A"), Signal::SIGSTOP);
    stops_at_once(&site, "stop-instance", &["A", "--force"]);
}

#[test]
fn a_stopped_supervise_and_a_stopped_leash_end_when_they_are_asked_to() {
    let site = Site::new(Sample::Static, &format!("{BRISK}{PATIENT}"));
    site.run("deploy", &[]).ok();
    let (app, leash, supervise) = (site.pid("A"), site.leash("A"), site.supervise("A"));
    for pid in [app, leash, supervise] {
        signal(pid, Signal::SIGSTOP);
    }
    stops_at_once(&site, "stop-instance", &["A", "--force"]);
    assert!([app, leash, supervise].into_iter().all(|pid| Process::with_pid(Pid::from_raw(pid)).is_none()));
}

#[test]
fn stopped_workers_move() {
    let worker = "[[worker]]\nname = \"mail\"\ncommand = \"exec sleep 1000\"\n";
    let site = Site::new(Sample::Static, &format!("{BRISK}{PATIENT}{worker}"));
    site.run("deploy", &[]).ok();
    let status = site.status();
    let worker = status["instances"][0]["workers"][0]["pid"].as_i64().unwrap();
    signal(i32::try_from(worker).unwrap(), Signal::SIGSTOP);
    site.commit("v2", "");
    stops_at_once(&site, "deploy", &[]);
}

#[test]
fn a_stopped_build_ends_with_its_time() {
    let build = "[build]\ncommand = \"echo $$ > ../../build; exec sleep 1000\"\ntimeout = \"2s\"\n";
    let site = Site::new(Sample::Static, &format!("{BRISK}{build}"));
    let deploy =
        site.tool("deploy", &[]).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn();
    let mut build = String::new();
    eventually("it is built", || {
        build = fs::read_to_string(site.home.join("build")).unwrap_or_default();
        build.ends_with('\n')
    });
    let build: i32 = build.trim().parse().unwrap();
    let leash = parent(build);
    signal(build, Signal::SIGSTOP);
    signal(leash, Signal::SIGSTOP);
    let began = Instant::now();
    Ran::of(&deploy.unwrap().wait_with_output().unwrap()).fails(124, &["sh did not end in time and was killed"]);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert!([build, leash].into_iter().all(|pid| Process::with_pid(Pid::from_raw(pid)).is_none()));
}

/// How many chains live: their files grow.
fn beating(site: &Site) -> usize {
    let sizes =
        || (0..4).map(|number| fs::metadata(site.home.join(format!("beat.{number}"))).map_or(0, |meta| meta.len()));
    let before: Vec<u64> = sizes().collect();
    std::thread::sleep(Duration::from_millis(300));
    sizes().zip(before).filter(|(now, before)| now > before).count()
}

fn with_chains() -> Site {
    let command = "for n in 0 1 2 3; do python3 chain.py $n & done; exec ./app";
    let site = Site::unlaid(Sample::Static, &format!("{BRISK}[run]\ncommand = \"{command}\"\nstop_timeout = \"1s\"\n"));
    fs::write(site.source().join("chain.py"), CHAINS).unwrap();
    site.commit("v1", "");
    site.install(&[]).ok();
    site.run("deploy", &[]).ok();
    eventually("all chains live", || beating(&site) == 4);
    site
}

#[test]
fn chains_of_forks_end_with_their_instance() {
    let site = with_chains();
    site.run("stop-instance", &["A", "--force"]).ok();
    assert_eq!(beating(&site), 0);
}

#[test]
fn chains_of_forks_that_nobody_keeps_any_more_are_ended() {
    let site = with_chains();
    let (leash, supervise) = (site.leash("A"), site.supervise("A"));
    signal(supervise, Signal::SIGSTOP);
    signal(leash, Signal::SIGKILL);
    signal(supervise, Signal::SIGKILL);
    eventually("supervise is gone", || Process::with_pid(Pid::from_raw(supervise)).is_none());
    assert_eq!(beating(&site), 4);
    site.run("stop-instance", &["A", "--force"]).ok();
    assert_eq!(beating(&site), 0);
    // The next start has its own only.
    site.run("start-instance", &["A"]).ok();
    eventually("all chains live", || beating(&site) == 4);
    site.run("stop-instance", &["A", "--force"]).ok();
    assert_eq!(beating(&site), 0);
}

#[test]
fn what_cannot_be_ended_is_named() {
    let site = Site::new(Sample::Static, &format!("{BRISK}[run]\ncommand = \"sleep 1000 & exec ./app\"\n"));
    site.run("deploy", &[]).ok();
    let (leash, supervise) = (site.leash("A"), site.supervise("A"));
    signal(supervise, Signal::SIGSTOP);
    signal(leash, Signal::SIGKILL);
    signal(supervise, Signal::SIGKILL);
    eventually("supervise is gone", || Process::with_pid(Pid::from_raw(supervise)).is_none());
    let stop = site.tool("stop-instance", &["A", "--force"]);
    let mut strace = site.command(Path::new("strace"));
    strace.arg("-o").arg(site.directory.path().join("trace")).args([
        "-e",
        "trace=kill",
        "-e",
        "inject=kill:error=EPERM",
    ]);
    let ran = Ran::of(&strace.arg(stop.get_program()).args(stop.get_args()).output().unwrap());
    ran.fails(3, &["stop-instance: cannot stop A: 1 of its processes cannot be ended: sleep (pid "]);
    site.run("stop-instance", &["A", "--force"]).ok();
    let left: Vec<i32> = site.processes();
    let name = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    assert!(left.iter().all(|pid| name(pid) == "nginx\n"), "{left:?}");
}
