//! A broken release never takes the place of a good one: each way to be broken ends with the right exit code and the
//! reason in one line, the service is untouched under load, both instances are as before, and the next good deploy works.

use std::fs;
use std::net::TcpListener;
use std::process::Stdio;

use cutover::process::{self, Pid, Process};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::load::{Load, Report};
use crate::ran::Ran;
use crate::site::{BRISK, Sample, Site, eventually, none_lost, samples};

/// What each instance must still be after a failed deploy: everything that `status` tells, but for what passes by itself.
fn standing(site: &Site) -> Value {
    let mut status = site.status();
    for instance in status["instances"].as_array_mut().unwrap() {
        let instance = instance.as_object_mut().unwrap();
        for passing in ["uptime_seconds", "memory_bytes", "health_milliseconds"] {
            assert!(instance.remove(passing).is_some(), "status --json lacks {passing}");
        }
        let processes = instance.remove("processes").unwrap();
        let [process] = processes.as_array().unwrap().as_slice() else { panic!("there is one process: {processes}") };
        assert_eq!((&process["port"], &process["restarts"]), (&instance["port"], &instance["restarts"]));
        if instance["proxy"] == "disabled" {
            // It was stopped for the new release and started again with its former one.
            assert!(instance.remove("pid").unwrap().is_i64());
        }
    }
    status
}

/// A site that serves v2 from B, with v1 as the warm standby A, under load.
struct Served {
    load: Load,
    site: Site,
}

impl Served {
    fn new(configuration: &str) -> Served {
        let site = Site::new(Sample::Static, &format!("{BRISK}{configuration}")).with_standby();
        Served { load: site.load(), site }
    }

    /// Runs a deploy that must fail like this, and leave no trace.
    #[track_caller]
    fn refuses(&self, arguments: &[&str], code: i32, reasons: &[&str]) {
        let (before, begun) = (standing(&self.site), self.load.settled());
        self.site.run("deploy", arguments).fails(code, reasons);
        let served = self.load.settled().since(&begun);
        none_lost(&served);
        assert_eq!(served.bodies.keys().collect::<Vec<_>>(), ["v2"]);
        assert_eq!(standing(&self.site), before);
        assert_eq!(self.site.run("enabled-instance", &[]).ok(), "B\n");
        let history = fs::read_to_string(self.site.home.join("logs/history.jsonl")).unwrap();
        assert!(history.lines().last().unwrap().contains(r#""outcome":"failed""#), "{history}");
        let left = self.site.releases();
        assert!(left.iter().all(|name| !name.starts_with('.')), "{left:?}");
    }

    /// Deploys a good release after it, and ends the load.
    #[track_caller]
    fn recovers(self) -> Report {
        self.site.commit("v9", "");
        self.site.run("deploy", &[]).ok();
        let deployed = self.load.settled();
        let later = self.load.settled().since(&deployed);
        assert_eq!(later.bodies.keys().collect::<Vec<_>>(), ["v9"]);
        assert_eq!(self.site.run("enabled-instance", &[]).ok(), "A\n");
        self.load.stop()
    }
}

/// A release that behaves like this fails with these words, and nothing else changes.
#[track_caller]
fn is_refused(behaviour: &str, configuration: &str, code: i32, reasons: &[&str]) {
    let served = Served::new(configuration);
    served.site.commit("v3", behaviour);
    served.refuses(&[], code, reasons);
    none_lost(&served.recovers());
}

const IMPATIENT: &str = "[health]\ntimeout = \"4s\"\n";

#[test]
fn a_release_that_exits_at_start_is_refused() {
    let reasons = ["cannot start A: it died: exit status 3: ", "cannot open database: connection refused"];
    is_refused("exit", "", 3, &reasons);
}

#[test]
fn a_release_that_never_listens_is_refused() {
    is_refused("deaf", IMPATIENT, 124, &["cannot start A: not healthy within 4", "connection refused"]);
}

#[test]
fn a_release_that_answers_500_is_refused() {
    is_refused("500", IMPATIENT, 124, &["cannot start A: not healthy", "status 500: database password wrong"]);
}

#[test]
fn a_release_that_redirects_to_a_login_page_is_refused() {
    is_refused("301", IMPATIENT, 124, &["cannot start A: not healthy", "status 301 to /login"]);
}

#[test]
fn a_release_that_never_answers_is_refused() {
    is_refused("hang", IMPATIENT, 124, &["cannot start A: not healthy within 4", "no answer within"]);
}

#[test]
fn a_release_that_takes_too_long_to_listen_is_refused() {
    is_refused("slow 40", IMPATIENT, 124, &["cannot start A: not healthy within 4", "connection refused"]);
}

#[test]
fn a_release_that_takes_too_long_to_be_ready_is_refused() {
    is_refused("ready 40", IMPATIENT, 124, &["cannot start A: not healthy within 4", "status 503: starting"]);
}

#[test]
fn a_release_that_is_ready_in_time_is_none_of_those() {
    let served = Served::new("[health]\ntimeout = \"20s\"\n");
    served.site.commit("v3", "ready 2");
    served.site.run("deploy", &[]).ok();
    assert_eq!(served.site.get("/"), (200, "v3\n".to_owned()));
    // Now B is the one to be updated.
    none_lost(&served.load.stop());
}

#[test]
fn a_release_that_cannot_be_built_is_refused() {
    let build = "if grep -q unbuildable BEHAVIOUR; then echo 'type error in line 7'; exit 9; fi";
    let reasons = ["cannot build ", "exit status 9: type error in line 7", "/build-"];
    is_refused("unbuildable", &format!("[build]\ncommand = \"{build}\"\n"), 3, &reasons);
}

#[test]
fn a_build_that_takes_too_long_is_ended_with_all_its_processes() {
    let build = "echo resolving; if grep -q endless BEHAVIOUR; then (setsid sleep 4711; true); fi";
    let served = Served::new(&format!("[build]\ntimeout = \"1s\"\ncommand = \"{build}\"\n"));
    served.site.commit("v3", "endless");
    served.refuses(&[], 124, &["cannot build ", "did not end in time and was killed: resolving"]);
    let is_build = |pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words == b"sleep\x004711\0");
    assert_eq!(served.site.processes().into_iter().filter(is_build).count(), 0);
    none_lost(&served.recovers());
}

#[test]
fn a_ref_that_does_not_exist_is_refused() {
    let served = Served::new("");
    served.refuses(&["--ref", "nonsense"], 3, &["cannot find ref \"nonsense\": no branch, tag or commit of "]);
    served.refuses(&["--ref", "latest-tag"], 3, &["cannot find the latest tag: "]);
    served.refuses(&["--ref", "0123456789012345678901234567890123456789"], 3, &["cannot find ref \"0123456789"]);
    none_lost(&served.recovers());
}

#[test]
fn a_remote_that_is_not_there_is_refused() {
    let served = Served::new("");
    let (source, elsewhere) = (served.site.source(), served.site.directory.path().join("elsewhere"));
    fs::rename(&source, &elsewhere).unwrap();
    served.refuses(&[], 3, &["cannot fetch ", source.to_str().unwrap(), "does not appear to be a git repository"]);
    fs::rename(&elsewhere, &source).unwrap();

    // A port that refuses every connection: bound, so that nobody else takes it, then closed.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = fs::read_to_string(served.site.config()).unwrap();
    let url = format!("http://someone:secret@127.0.0.1:{port}/shop.git");
    fs::write(served.site.config(), config.replace(source.to_str().unwrap(), &url)).unwrap();
    served.site.install(&[]).ok();
    served.refuses(&[], 3, &[&format!("cannot fetch http://127.0.0.1:{port}/shop.git: ")]);
    assert!(!served.site.run("deploy", &[]).stderr.contains("secret"));
    fs::write(served.site.config(), config).unwrap();
    served.site.install(&[]).ok();
    none_lost(&served.recovers());
}

#[test]
fn a_release_that_dies_after_the_cutover_is_rolled_back() {
    let served = Served::new("");
    let config = fs::read_to_string(served.site.config()).unwrap();
    fs::write(served.site.config(), config.replace("soak = \"100ms\"", "soak = \"5s\"")).unwrap();
    served.site.install(&[]).ok();
    let (site, load) = (&served.site, &served.load);
    let (before, begun) = (standing(site), load.settled());
    site.commit("v3", "dies 1");
    site.run("deploy", &[]).fails(4, &["A died after the cutover: exit status 1", "B is enabled again"]);
    let returned = load.settled();
    let during = returned.since(&begun);
    assert_eq!(during.bodies.keys().collect::<Vec<_>>(), ["v2", "v3"]);
    // Nothing can save a POST that the dying instance had read: there is at most one on each connection.
    assert_eq!(during.get_failed, 0, "{:#?}", during.quoted().collect::<Vec<_>>());
    assert!(during.post_failed <= 20, "{during}");
    assert_eq!(standing(site), before);
    assert_eq!(site.get("/"), (200, "v2\n".to_owned()));
    let history = fs::read_to_string(site.home.join("logs/history.jsonl")).unwrap();
    assert!(history.lines().last().unwrap().contains(r#""outcome":"rolled back""#), "{history}");
    none_lost(&served.recovers().since(&returned));
}

/// The Python sample, healthy for three seconds; then all its answers are still good ones, but not the health check's.
/// POSTs take a while, and it has no handler for SIGTERM: what it is answering when the signal comes would be lost.
const ILL: &str = r#"import os, threading, time, server

BEGUN = time.monotonic()

class Ill(server.Handler):
    def respond(self):
        if self.path == "/headers" and time.monotonic() - BEGUN > 3:
            self.answer(500, "cache is cold\n")
        else:
            time.sleep(0.3 if self.command == "POST" else 0)
            super().respond()

server.Handler = Ill
server.serve(int(os.environ["PORT"]))
threading.Event().wait()
"#;

/// The Python sample, whose second and fourth answer to the health check come late: it writes down which.
const LATE: &str = r#"import itertools, os, threading, time, server

CHECKS = itertools.count(1)

class Late(server.Handler):
    def respond(self):
        check = next(CHECKS) if self.path == "/headers" else 0
        if check in (2, 4):
            with open("../../late", "a") as late:
                late.write(f"{check} ")
            time.sleep(6)
        super().respond()

server.Handler = Late
server.serve(int(os.environ["PORT"]))
threading.Event().wait()
"#;

/// A site that serves v1 of the usual sample under load, and whose v2 is to be this server in Python.
fn with_odd_server(server: &str, deploy: &str) -> (Site, Load) {
    let run = "[run]\ncommand = \"if [ -e odd.py ]; then exec python3 odd.py; else exec ./app; fi\"\n";
    let site = Site::new(Sample::Static, &format!("{run}[health]\npath = \"/headers\"\n{deploy}"));
    site.run("deploy", &[]).ok();
    fs::write(site.source().join("odd.py"), server).unwrap();
    fs::copy(samples().join("python/server.py"), site.source().join("server.py")).unwrap();
    site.commit("v2", "");
    let load = site.load();
    (site, load)
}

#[test]
fn a_release_that_falls_ill_after_the_cutover_is_rolled_back_without_a_loss() {
    let (site, load) = with_odd_server(ILL, "[deploy]\nsoak = \"4s\"\n");
    let reason = "B is not healthy any more after the cutover: status 500: cache is cold; A is enabled again";
    site.run("deploy", &[]).fails(4, &[reason]);
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
    let report = load.stop();
    assert!(report.bodies["v2"] > 0, "v2 never served");
    none_lost(&report);
}

#[test]
fn one_answer_that_comes_late_is_no_reason_to_go_back() {
    let (site, load) = with_odd_server(LATE, BRISK);
    site.run("deploy", &[]).ok();
    // The next deploy finds it late once more.
    let again = site.run("deploy", &[]);
    again.masked(&site).is(0, "", "deploy: already current: B runs RELEASE\n");
    assert_eq!(fs::read_to_string(site.home.join("late")).unwrap(), "2 4 ");
    none_lost(&load.stop());
}

#[test]
fn an_nginx_that_does_not_answer_does_not_keep_a_release_that_dies() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("deploy", &[]).ok();
    site.reconfigure("soak = \"100ms\"", "soak = \"60s\"");
    site.commit("v2", "");
    let deploy = site.tool("deploy", &[]).stderr(Stdio::piped()).spawn().unwrap();
    eventually("B is being watched", || site.status()["change"]["doing"] == "watching B");
    let master = fs::read_to_string(site.home.join("nginx/nginx.pid")).unwrap();
    let nginx = process::tree(Pid::from_raw(master.trim().parse().unwrap()));
    nginx.iter().for_each(|one| one.signal(Signal::SIGSTOP).unwrap());
    Process::with_pid(Pid::from_raw(site.pid("B"))).unwrap().signal(Signal::SIGKILL).unwrap();
    let ran = Ran::of(&deploy.wait_with_output().unwrap());
    nginx.iter().for_each(|one| one.signal(Signal::SIGCONT).unwrap());
    // It goes by the link once it does anything; that it does, nobody could say.
    let silent = "and the way back failed: nginx does not answer on its status port";
    ran.fails(5, &["B died after the cutover: killed by SIGKILL", silent, "enabled is A with "]);
    assert_eq!(site.run("enabled-instance", &[]).ok(), "A\n");
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
}

#[test]
fn a_first_deploy_that_fails_leaves_nothing_behind() {
    let site = Site::new(Sample::Static, &format!("{BRISK}{IMPATIENT}"));
    site.commit("v1", "500");
    site.run("deploy", &[]).fails(124, &["cannot start A: not healthy", "status 500"]);
    assert_eq!(site.run("enabled-instance", &[]).code, 1);
    assert_eq!(site.run("pid", &["A"]).code, 1);
    assert_eq!(site.status()["instances"][0]["release"], Value::Null);
    site.commit("v2", "dies 1");
    let config = fs::read_to_string(site.config()).unwrap();
    fs::write(site.config(), config.replace("soak = \"100ms\"", "soak = \"5s\"")).unwrap();
    site.install(&[]).ok();
    site.run("deploy", &[]).fails(3, &["A died after the cutover: exit status 1"]);
    assert_eq!(site.run("enabled-instance", &[]).code, 1);
    eventually("A is gone", || site.run("pid", &["A"]).code == 1);
    site.commit("v3", "");
    site.run("deploy", &[]).ok();
    assert_eq!(site.get("/"), (200, "v3\n".to_owned()));
}
