//! max_memory: what holds too much is replaced, and no request is lost.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use cutover::process::{self, Pid, Process};

use crate::site::{BRISK, Sample, Site, eventually, get, none_lost};
use crate::test_several::{answering, pids, ports};

pub const LIMIT: &str = "max_memory = \"100M\"";

fn site(count: usize, more: &str) -> Site {
    Site::roomy(Sample::Static, &config(count, more))
}

pub fn config(count: usize, more: &str) -> String {
    format!("{BRISK}[run]\ncommand = \"{HOG}\"\nstop_timeout = \"5s\"\nprocesses = {count}\n{more}\n")
}

/// A program that holds 200 MB as soon as a file named after its port is there.
const HOG: &str = "(until [ -e ../../hog.$PORT ]; do sleep 0.1; done; \
                   exec python3 -c 'import time; x = bytearray(200_000_000); time.sleep(1000)') & exec ./app";

fn hog(site: &Site, port: u16) {
    fs::write(site.home.join(format!("hog.{port}")), "").unwrap();
}

/// Has a process that listens there replaced by one that listens elsewhere.
#[track_caller]
pub fn have_replaced(site: &Site, port: u16, by: u16) {
    hog(site, port);
    eventually("another listens in its place", || {
        let ports = site.run("enabled-port", &[]).ok();
        ports.lines().any(|line| line == by.to_string()) && !ports.lines().any(|line| line == port.to_string())
    });
    eventually("the old one is gone", || get(port, "/").0 == 0);
    fs::remove_file(site.home.join(format!("hog.{port}"))).unwrap();
}

#[test]
fn a_process_that_holds_too_much_is_replaced_without_losing_a_request() {
    for count in [1, 3] {
        let site = site(count, LIMIT);
        site.run("deploy", &[]).ok();
        let before = pids(&site, "A");
        let load = site.load();
        let mut free = site.ports.first + 10 * count as u16;
        for index in 0..count {
            let port = site.ports.first + 10 * index as u16;
            have_replaced(&site, port, free);
            let environment = get(free, "/env").1;
            assert!(environment.contains(&format!("PORT={free}\nPROCESS_INDEX={index}\n")), "{environment}");
            free = port;
        }
        let after: BTreeSet<i32> = pids(&site, "A").into_iter().collect();
        assert!(before.iter().all(|pid| !after.contains(pid)), "{before:?} {after:?}");
        eventually("nginx asks those that there are", || answering(&site) == after);
        let status = site.status();
        let told = &status["instances"][0]["processes"][0];
        assert_eq!(told["restarts"], 0, "it was no crash: {told}");
        assert!(told["last_exit"].as_str().unwrap().starts_with("it held "), "{told}");
        none_lost(&load.stop());
        let log = site.run("logs", &["A"]).ok();
        assert_eq!(log.matches("max_memory is 104.9 MB: another takes its place").count(), count, "{log}");
        // The next start is as the first one was.
        site.run("stop-instance", &["--force"]).ok();
        site.run("start-instance", &[]).ok();
        assert_eq!(site.run("enabled-port", &[]).ok(), ports(site.ports.first, count as u16));
        assert_eq!(answering(&site).len(), count);
    }
}

/// Until nginx knows the port behind the last one's, nothing is replaced, for it would be asked nothing.
#[test]
fn what_nginx_has_not_heard_of_is_not_done() {
    let site = site(1, "");
    let (first, second) = (site.ports.first, site.ports.second);
    site.run("deploy", &[]).ok();
    site.reconfigure("processes = 1", &format!("processes = 1\n{LIMIT}"));
    site.run("reload", &[]).ok();
    let pid = site.pid("B");
    hog(&site, second);
    let said = "cannot replace it: nginx does not know yet that processes are replaced: run install again";
    eventually("that is said", || site.run("logs", &["B"]).ok().contains(said));
    assert_eq!((site.get("/").0, site.pid("B")), (200, pid));
    fs::remove_file(site.home.join(format!("hog.{second}"))).unwrap();
    site.write_config(&config(1, LIMIT));
    site.install(&[]).ok();
    site.run("reload", &[]).ok();
    have_replaced(&site, first, first + 10);
    assert_eq!(site.get("/").0, 200);
}

#[test]
fn a_mark_that_cannot_be_laid_costs_nothing() {
    let site = site(1, LIMIT);
    site.run("deploy", &[]).ok();
    fs::create_dir(site.home.join("state/A/1.without.0")).unwrap();
    let pid = site.pid("A");
    hog(&site, site.ports.first);
    eventually("that is said", || site.run("logs", &["A"]).ok().contains("cannot replace it: cannot lay "));
    eventually("the new one is gone", || get(site.ports.first + 10, "/").0 == 0);
    assert_eq!((site.pid("A"), site.get("/").0), (pid, 200));
}

#[test]
fn install_leaves_what_was_replaced_its_traffic() {
    let site = site(1, LIMIT);
    site.run("deploy", &[]).ok();
    have_replaced(&site, site.ports.first, site.ports.first + 10);
    for (count, more) in [(1, ""), (2, LIMIT), (1, LIMIT)] {
        site.write_config(&config(count, more));
        site.install(&[]).ok();
        assert_eq!(site.get("/").0, 200, "{count} {more}");
    }
}

#[test]
fn a_standby_whose_process_was_replaced_stands_in_all_the_same() {
    let site = site(1, LIMIT);
    site.run("deploy", &[]).ok();
    have_replaced(&site, site.ports.first, site.ports.first + 10);
    site.commit("v2", "");
    site.run("deploy", &[]).ok();
    for _ in 0..3 {
        eventually("B serves", || site.get("/").1 == "v2\n");
        site.shell(&format!("kill -9 {}", site.pid("B"))).ok();
        assert_eq!(site.get("/").0, 200);
    }
}

/// One that is to end looks at no process's memory any more, however long it takes to end.
#[test]
fn ending_during_a_replacement_takes_no_processor_time() {
    let stubborn = "[[worker]]\nname = \"stubborn\"\ncommand = \"trap '' TERM; while :; do sleep 100; done\"\n";
    let site = site(1, &format!("{LIMIT}\n{stubborn}"));
    site.run("deploy", &[]).ok();
    let supervise = Process::with_pid(Pid::from_raw(site.supervise("A"))).unwrap();
    hog(&site, site.ports.first);
    eventually("it is being replaced", || site.run("logs", &["A"]).ok().contains("another takes its place"));
    let before = process::processor_time(&[supervise]);
    let mut spent = before;
    let mut stop = site.tool("stop-instance", &["--force"]).spawn().unwrap();
    while supervise.is_alive() {
        spent = spent.max(process::processor_time(&[supervise]));
        thread::sleep(Duration::from_millis(10));
    }
    assert!(stop.wait().unwrap().success());
    // Of the five seconds that it takes, with what its programs have used.
    assert!(spent - before < Duration::from_secs(2), "{before:?} {spent:?}");
}

/// nginx chooses a process when the head of a request has come, and asks it when all of the body has.
#[test]
fn a_request_that_arrives_slowly_is_answered_by_the_process_that_has_taken_over() {
    let site = site(1, LIMIT);
    site.run("deploy", &[]).ok();
    let mut stream = TcpStream::connect(("127.0.0.1", site.ports.listen)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
        .write_all(b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 10\r\n\r\nfirst")
        .unwrap();
    have_replaced(&site, site.ports.first, site.ports.first + 10);
    stream.write_all(b" then").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn a_worker_that_holds_too_much_is_started_again_and_does_not_pass_the_soak() {
    let holds = "grep -q v2 VERSION && exec python3 -c 'import time; x = bytearray(200_000_000); time.sleep(1000)'";
    let worker = format!("[[worker]]\nname = \"mail\"\ncommand = \"{holds}; exec sleep 1000\"\n{LIMIT}\n");
    let site = Site::new(Sample::Static, &format!("[deploy]\nsoak = \"4s\"\n{worker}"));
    site.run("deploy", &[]).ok();
    site.commit("v2", "");
    site.run("deploy", &[]).fails(4, &["B died after the cutover: mail.0: it held ", "A is enabled again"]);
    assert_eq!(site.status()["instances"][0]["workers"][0]["restarts"], 0);
}
