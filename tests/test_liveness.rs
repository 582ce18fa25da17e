//! Processes that run and do not answer: they are ended and started again, unless the other instance has the same trouble.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use crate::site::{Sample, Site, eventually};

/// The app of these tests. It hangs when it is asked to, and when what both instances depend on is slow or broken, so is it.
const SERVER: &str = "\
const fs = require('fs');
const version = fs.readFileSync('VERSION', 'utf8');
const broken = name => fs.existsSync('../../' + name);
require('http').createServer((request, response) => {
  if (request.url === '/block') for (;;);
  if (request.method === 'POST') return request.pipe(response);
  if (broken('down')) { response.statusCode = 500; return response.end('the database is down'); }
  if (broken('late')) return setTimeout(() => response.end(version), 3000);
  if (broken('slow')) return setTimeout(() => response.end(version), 20000);
  response.end(request.url === '/pid' ? process.pid + '\\n' : version);
}).listen(process.env.PORT, '127.0.0.1');
";
/// One thread answers all, until it waits for itself.
const ONE_THREAD: &str = "\
import os, sys, threading, time
from http.server import BaseHTTPRequestHandler, HTTPServer
lock = threading.Lock()
class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        if self.path == '/sleep':
            time.sleep(3600)
        if self.path == '/lock':
            lock.acquire()
            lock.acquire()
        body = open('VERSION', 'rb').read()
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.send_header('Connection', 'close')
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        length = self.headers['Content-Length']
        self.send_response(200)
        self.send_header('Content-Length', length)
        self.send_header('Connection', 'close')
        self.end_headers()
        self.wfile.write(self.rfile.read(int(length)))
class Server(HTTPServer):
    request_queue_size = 128
Server(('127.0.0.1', int(os.environ['PORT'])), Handler).serve_forever()
";
const PATIENCE: Duration = Duration::from_secs(5);

fn laid(command: &str, health: &str, more: &str) -> Site {
    let site = Site::unlaid_roomy(
        Sample::Static,
        &format!(
            "[run]\ncommand = \"exec {command}\"\n{more}\n[health]\nrestart_after = \"5s\"\n{health}\n\
             [deploy]\nsoak = \"3s\"\ndrain_timeout = \"100ms\"\n"
        ),
    );
    fs::write(site.source().join("server.js"), SERVER).unwrap();
    fs::write(site.source().join("server.py"), ONE_THREAD).unwrap();
    site.commit("v1", "");
    site.install(&[]).ok();
    site
}

fn site(command: &str, health: &str, more: &str) -> Site {
    laid(command, health, more).with_standby()
}

fn site_alone(command: &str) -> Site {
    let site = laid(command, "", "");
    site.run("deploy", &[]).ok();
    site
}

fn restarts(site: &Site, instance: &str) -> u64 {
    let status = site.status();
    let instances = status["instances"].as_array().unwrap();
    let own = instances.iter().find(|one| one["name"] == instance).unwrap();
    own["processes"].as_array().unwrap().iter().map(|process| process["restarts"].as_u64().unwrap()).sum()
}

fn log(site: &Site, instance: &str) -> Vec<String> {
    let text = fs::read_to_string(site.home.join(format!("logs/{instance}.log"))).unwrap();
    text.lines().filter(|line| line.contains(" supervise ")).map(str::to_owned).collect()
}

fn signal(signal: &str, pid: i32) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

/// Asks a port for what never comes.
fn ask_in_vain(port: u16, path: &str) {
    let url = format!("http://127.0.0.1:{port}{path}");
    let asked = Command::new("curl").args(["--silent", "--max-time", "1", &url]).output().unwrap();
    assert_eq!(asked.status.code(), Some(28), "it was to hang: {asked:?}");
}

#[test]
fn whatever_makes_an_app_hang_it_is_started_again_once_and_only_its_own_requests_are_lost() {
    for (command, how) in [
        ("node server.js", "/block"),
        ("node server.js", "STOP"),
        ("python3 server.py", "/sleep"),
        ("python3 server.py", "/lock"),
    ] {
        let site = site(command, "", "");
        let load = site.load();
        let before = site.pid("B");
        let hung_at = Instant::now();
        match how {
            "STOP" => signal("-STOP", before),
            path => ask_in_vain(site.ports.second, path),
        }
        eventually("it is another process", || {
            let now = site.run("pid", &["B"]).stdout;
            !now.is_empty() && now.trim() != before.to_string()
        });
        let took = hung_at.elapsed();
        assert!(took >= PATIENCE - Duration::from_secs(2), "{how}: {took:?}");
        let begun = load.settled();
        thread::sleep(Duration::from_secs(1));
        let after = load.settled().since(&begun);
        assert_eq!((after.failed(), after.ok > 0), (0, true), "{how}: {after}");
        let report = load.stop();
        // A POST that it had may have been done.
        assert!(
            report.get_failed == 0 && report.post_failed <= 20,
            "{how}: {report}: {:#?}",
            report.quoted().collect::<Vec<_>>()
        );
        assert_eq!((restarts(&site, "B"), restarts(&site, "A")), (1, 0), "{how}");
        let log = log(&site, "B");
        let told = log.iter().filter(|line| line.contains("it was not healthy for ")).collect::<Vec<_>>();
        assert!(told.len() == 1 && told[0].contains(": no answer within "), "{how}: {log:?}");
        let exit = site.status()["instances"][1]["last_exit"].as_str().unwrap().to_owned();
        assert!(exit.starts_with("it was not healthy for "), "{how}: {exit}");
    }
}

#[test]
fn what_both_instances_have_is_no_fault_of_theirs_and_is_told_once() {
    for trouble in ["down", "slow"] {
        let site = site("node server.js", "", "");
        let pids = [site.pid("A"), site.pid("B")];
        fs::write(site.home.join(trouble), "").unwrap();
        let is_told = |instance: &str| log(&site, instance).iter().any(|line| line.contains(": it is not restarted"));
        eventually("both say so", || is_told("A") && is_told("B"));
        // Twice the time after which one alone would have been started again.
        thread::sleep(2 * PATIENCE);
        for (instance, other) in [("A", "B"), ("B", "A")] {
            let log = log(&site, instance);
            let told: Vec<_> = log.iter().filter(|line| line.contains("not healthy (")).collect();
            assert_eq!(told.len(), 1, "{trouble}: {log:?}");
            assert!(told[0].contains(&format!(", and neither is {other} (")), "{told:?}");
        }
        assert_eq!((restarts(&site, "A"), restarts(&site, "B")), (0, 0), "{trouble}");
        fs::remove_file(site.home.join(trouble)).unwrap();
        eventually("it serves again", || site.get("/") == (200, "v2\n".to_owned()));
        thread::sleep(PATIENCE);
        assert_eq!([site.pid("A"), site.pid("B")], pids, "{trouble}");
        // The next time it is told again.
        fs::write(site.home.join(trouble), "").unwrap();
        let told = || log(&site, "B").iter().filter(|line| line.contains("not healthy (")).count();
        eventually("it is told again", || told() == 2);
    }
}

/// What was asked before the end of a trouble may be answered, or not, after it.
#[test]
fn a_trouble_of_both_that_ends_for_one_a_moment_earlier_costs_no_restart() {
    let site = site("node server.js", "", "");
    let pids = [site.pid("A"), site.pid("B")];
    let is_told = |instance: &str, times: usize| {
        log(&site, instance).iter().filter(|line| line.contains(": it is not restarted")).count() == times
    };
    for round in 1..=5 {
        fs::write(site.home.join("slow"), "").unwrap();
        eventually("both say so", || is_told("A", round) && is_told("B", round));
        // Somewhere between two questions.
        thread::sleep(Duration::from_millis(700 * u64::try_from(round).unwrap()));
        fs::remove_file(site.home.join("slow")).unwrap();
        eventually("it serves again", || site.get("/") == (200, "v2\n".to_owned()));
        thread::sleep(PATIENCE);
        assert_eq!([site.pid("A"), site.pid("B")], pids, "round {round}: {:?} {:?}", log(&site, "A"), log(&site, "B"));
    }
}

/// Where nobody could answer in its place, as while its next release is built on a machine that is too small for it.
#[test]
fn an_only_instance_that_answers_late_is_left_alone_and_one_that_hangs_is_not() {
    let site = site_alone("node server.js");
    let before = site.pid("A");
    fs::write(site.home.join("late"), "").unwrap();
    thread::sleep(5 * PATIENCE);
    assert_eq!((site.get("/"), site.pid("A"), restarts(&site, "A")), ((200, "v1\n".to_owned()), before, 0));
    fs::remove_file(site.home.join("late")).unwrap();
    signal("-STOP", before);
    eventually("it is another process", || {
        site.run("pid", &["A"]).stdout.trim().parse().is_ok_and(|now: i32| now != before)
    });
    assert_eq!(restarts(&site, "A"), 1);
}

#[test]
fn a_standby_that_hangs_is_started_again_too() {
    let site = site("node server.js", "", "");
    let before = site.pid("A");
    signal("-STOP", before);
    eventually("it is another process", || {
        site.run("pid", &["A"]).stdout.trim().parse().is_ok_and(|now: i32| now != before)
    });
    assert_eq!((restarts(&site, "A"), restarts(&site, "B")), (1, 0));
}

#[test]
fn several_that_hang_are_started_again_one_after_the_other() {
    let site = site("node server.js", "", "processes = 3");
    let before = crate::test_several::pids(&site, "B");
    for pid in &before {
        signal("-STOP", *pid);
    }
    eventually("all are other processes", || {
        let now = site.run("pid", &["B"]).stdout;
        now.lines().count() == 3 && before.iter().all(|pid| !now.lines().any(|one| one == pid.to_string()))
    });
    assert_eq!(restarts(&site, "B"), 3);
    // Each has been started before the next is ended.
    let log = log(&site, "B");
    let ends = log.iter().filter(|line| line.contains("it was not healthy for ") || line.contains(": started "));
    let kinds: Vec<bool> = ends.skip(3).map(|line| line.contains(": started ")).collect();
    assert_eq!(kinds, [false, true, false, true, false, true], "{log:?}");
}

#[test]
fn between_two_restarts_of_one_process_lies_more_and_more_time() {
    // It answers well for some seconds, and then no more.
    let site = site("node server.js", "", "");
    fs::write(
        site.source().join("hangs.js"),
        "const begun = Date.now();\n\
         require('http').createServer((request, response) => {\n\
         \x20 if (Date.now() - begun < 6000) response.end('v3\\n');\n\
         }).listen(process.env.PORT, '127.0.0.1');\n",
    )
    .unwrap();
    site.reconfigure("node server.js", "node hangs.js");
    site.commit("v3", "");
    site.run("deploy", &[]).ok();
    assert_eq!(site.run("enabled-instance", &[]).ok(), "A\n");
    eventually("it was started again three times", || restarts(&site, "A") >= 3);
    let at: Vec<f64> = log(&site, "A")
        .iter()
        .filter(|line| line.contains("it was not healthy for "))
        .map(|line| {
            let time = line.split('T').nth(1).unwrap().split('Z').next().unwrap();
            let parts: Vec<f64> = time.split(':').map(|part| part.parse().unwrap()).collect();
            parts[0] * 3600.0 + parts[1] * 60.0 + parts[2]
        })
        .collect();
    let pauses: Vec<f64> = at.windows(2).map(|pair| (pair[1] - pair[0]).rem_euclid(86_400.0)).collect();
    assert!(pauses[0] >= 9.9 && pauses[1] >= 19.9, "{at:?}");
}

#[test]
fn a_supervise_that_stood_still_itself_blames_nobody() {
    let site = site("node server.js", "", "");
    let (app, supervise) = (site.pid("B"), site.supervise("B"));
    signal("-STOP", supervise);
    thread::sleep(2 * PATIENCE);
    signal("-CONT", supervise);
    thread::sleep(PATIENCE);
    assert_eq!((site.pid("B"), restarts(&site, "B")), (app, 0));
}

#[test]
fn never_is_never_and_less_than_a_few_questions_is_refused() {
    let site = site("node server.js", "", "");
    site.reconfigure("restart_after = \"5s\"", "restart_after = \"never\"");
    site.run("reload", &[]).ok();
    let before = site.pid("A");
    signal("-STOP", before);
    thread::sleep(3 * PATIENCE);
    signal("-CONT", before);
    assert_eq!((site.pid("A"), restarts(&site, "A")), (before, 0));
    for bad in ["4s", "0s", "soon", ""] {
        site.reconfigure("restart_after = \"never\"", &format!("restart_after = \"{bad}\""));
        site.run("deploy", &[]).fails(2, &["expected a duration of at least \"5s\", or \"never\""]);
        site.reconfigure(&format!("restart_after = \"{bad}\""), "restart_after = \"never\"");
    }
}

#[test]
fn one_that_is_slow_to_start_again_has_as_long_as_any_start() {
    // After a crash it answers badly for longer than a process that serves may.
    let site = site("node server.js", "timeout = \"40s\"", "");
    fs::write(
        site.source().join("server.js"),
        "const fs = require('fs'), begun = Date.now(), again = fs.existsSync('../../again');\n\
         require('http').createServer((request, response) => {\n\
         \x20 response.statusCode = again && Date.now() - begun < 12000 ? 503 : 200; response.end('v3\\n');\n\
         }).listen(process.env.PORT, '127.0.0.1');\n",
    )
    .unwrap();
    site.commit("v3", "");
    site.run("deploy", &[]).ok();
    fs::write(site.home.join("again"), "").unwrap();
    signal("-KILL", site.pid("A"));
    thread::sleep(3 * PATIENCE);
    assert_eq!(restarts(&site, "A"), 1);
    eventually("it is healthy", || site.status()["instances"][0]["healthy"] == true);
}
