//! A deploy that fails leaves the service as it was, also where the standby had to stand in before it began; a release that was
//! rolled back gets no traffic unasked; and each switch is in the record.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::load::{Load, Plan};
use crate::site::{BRISK, Sample, Site, eventually, none_lost};

/// The health check of v1 looks at a database, as many do; those of other versions do not. `down` in the home is a
/// database that is down, and `late` one that keeps the next answer waiting for longer than a check does.
const APP: &str = r#"
import http.server, os, time
VERSION = open("VERSION").read()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/health" and VERSION == "v1\n" and os.path.exists("../../late"):
            os.remove("../../late")
            time.sleep(6)
        is_ill = self.path == "/health" and VERSION == "v1\n" and os.path.exists("../../down")
        self.send_response(503 if is_ill else 200)
        self.end_headers()
        self.wfile.write(b"no database" if is_ill else VERSION.encode())
    def log_message(self, *arguments):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;
const FAILS: &str = "[build]\ncommand = \"test ! -e FAILS\"\n";

/// v1 serves from A; v2 has served from B.
fn site() -> Site {
    let run = "[run]\ncommand = \"exec python3 app.py\"\nstop_timeout = \"2s\"\n[health]\npath = \"/health\"\ntimeout = \"3s\"\n";
    let site = Site::unlaid(Sample::Static, &format!("{BRISK}{run}{FAILS}"));
    fs::write(site.source().join("app.py"), APP).unwrap();
    site.commit("v1", "");
    site.install(&[]).ok();
    site.run("deploy", &[]).ok();
    site.commit("v2", "");
    site.run("deploy", &[]).ok();
    site
}

fn database_goes(site: &Site) {
    fs::write(site.home.join("down"), "").unwrap();
}

fn database_returns(site: &Site) {
    fs::remove_file(site.home.join("down")).unwrap();
}

fn kill(site: &Site, instance: &str) {
    let (leash, supervise) = (site.leash(instance), site.supervise(instance));
    site.shell(&format!("kill -9 {supervise} {leash}")).ok();
    eventually("it is down", || site.run("pid", &[instance]).code == 1);
}

fn serves(site: &Site, instance: &str, version: &str) {
    assert_eq!(site.run("enabled-instance", &[]).ok(), format!("{instance}\n"));
    assert_eq!(site.get("/"), (200, format!("{version}\n")));
}

/// The last lines of the record, the oldest first: what, outcome, from and to.
fn record(site: &Site, count: usize) -> Vec<[String; 4]> {
    let history: Value = serde_json::from_str(&site.run("history", &["--json"]).ok()).unwrap();
    let side = |side: &Value| side["instance"].as_str().unwrap_or("-").to_owned();
    let line = |line: &Value| {
        let word = |name: &str| line[name].as_str().unwrap().to_owned();
        [word("what"), word("outcome"), side(&line["from"]), side(&line["to"])]
    };
    let mut lines: Vec<[String; 4]> = history.as_array().unwrap().iter().take(count).map(line).collect();
    lines.reverse();
    lines
}

fn line(what: &str, outcome: &str, from: &str, to: &str) -> [String; 4] {
    [what, outcome, from, to].map(str::to_owned)
}

#[test]
fn a_standby_whose_answer_comes_late_once_stands_in_all_the_same() {
    let site = site();
    kill(&site, "B");
    let load = Load::start(Plan { post_share: 0, pace: Some(Duration::from_millis(20)), ..Plan::on(site.address()) });
    fs::write(site.home.join("late"), "").unwrap();
    site.commit("v3", "");
    let deployed = site.run("deploy", &[]);
    assert!(!site.home.join("late").exists() && deployed.code == 0, "{deployed:?}");
    assert!(deployed.stderr.contains("its standby A takes its place"), "{deployed:?}");
    serves(&site, "B", "v3");
    none_lost(&load.stop());
}

#[test]
fn a_release_that_was_rolled_back_does_not_stand_in_for_one_that_answers() {
    let site = site();
    site.run("rollback", &[]).ok();
    database_goes(&site);
    site.commit("v3", "");
    fs::write(site.source().join("FAILS"), "").unwrap();
    site.commit("v3", "");
    let failed = site.run("deploy", &[]);
    failed.fails(3, &["deploy: cannot build "]);
    assert!(!failed.stderr.contains("takes its place"), "{failed:?}");
    serves(&site, "A", "v1");
    assert_eq!(record(&site, 1), [line("deploy", "failed", "A", "-")]);

    // Neither one that somebody left by hand, nor for a reload.
    database_returns(&site);
    site.run("rollback", &[]).ok();
    serves(&site, "B", "v2");
    site.run("connect-to-nginx", &["A"]).ok();
    database_goes(&site);
    let reloaded = site.run("reload", &[]);
    reloaded.fails(124, &["reload: cannot start B: not healthy", "status 503: no database"]);
    assert!(!reloaded.stderr.contains("takes its place"), "{reloaded:?}");
    serves(&site, "A", "v1");
}

#[test]
fn a_release_that_was_rolled_back_does_not_stand_in_for_one_that_can_be_started() {
    let site = site();
    site.run("rollback", &[]).ok();
    kill(&site, "A");
    fs::write(site.source().join("FAILS"), "").unwrap();
    site.commit("v3", "");
    site.run("deploy", &[]).fails(3, &["deploy: cannot build "]);
    serves(&site, "A", "v1");
    // Where nothing else is left, it is better than nothing.
    kill(&site, "A");
    fs::remove_file(site.home.join("instances/A/app.py")).unwrap();
    let failed = site.run("deploy", &[]);
    failed.fails(5, &["deploy: cannot build ", "; B stands in with ", ": A is not healthy: connection refused"]);
    assert!(failed.stderr.contains("its standby B takes its place\n"), "{failed:?}");
    serves(&site, "B", "v2");
    assert_eq!(record(&site, 2), [line("stand-in", "done", "A", "B"), line("deploy", "stranded", "B", "-")]);
}

#[test]
fn a_stand_in_is_undone_when_the_deploy_fails_and_what_served_is_well_again() {
    let site = site();
    // v1 is deployed again: its standby v2 was not rolled back.
    site.commit("v1", "");
    site.run("deploy", &[]).ok();
    serves(&site, "A", "v1");
    database_goes(&site);
    site.reconfigure("test ! -e FAILS", "rm -f ../../down; test ! -e FAILS");
    fs::write(site.source().join("FAILS"), "").unwrap();
    site.commit("v3", "");
    let failed = site.run("deploy", &[]);
    failed.fails(3, &["deploy: cannot build ", "; A is enabled as before"]);
    assert!(failed.stderr.contains("its standby B takes its place\n"), "{failed:?}");
    serves(&site, "A", "v1");
    let lines =
        [line("stand-in", "done", "A", "B"), line("stand-in", "done", "B", "A"), line("deploy", "failed", "B", "-")];
    assert_eq!(record(&site, 3), lines);
}

#[test]
fn a_stand_in_that_cannot_be_undone_ends_with_5_and_what_serves() {
    let site = site();
    site.commit("v1", "");
    site.run("deploy", &[]).ok();
    database_goes(&site);
    fs::write(site.source().join("FAILS"), "").unwrap();
    site.commit("v3", "");
    let reasons = ["deploy: cannot build ", "; B stands in with ", ": A is not healthy: status 503: no database"];
    site.run("deploy", &[]).fails(5, &reasons);
    serves(&site, "B", "v2");
    assert_eq!(record(&site, 2), [line("stand-in", "done", "A", "B"), line("deploy", "stranded", "B", "-")]);
    // Once it is well, a deploy that works finds everything in order.
    database_returns(&site);
    fs::remove_file(site.source().join("FAILS")).unwrap();
    site.commit("v4", "");
    site.run("deploy", &[]).ok();
    serves(&site, "A", "v4");
}

#[test]
fn a_deploy_that_works_leaves_the_stand_in_in_the_record() {
    let site = site();
    site.commit("v1", "");
    site.run("deploy", &[]).ok();
    database_goes(&site);
    site.commit("v3", "");
    site.run("deploy", &[]).ok();
    serves(&site, "A", "v3");
    assert_eq!(record(&site, 2), [line("stand-in", "done", "A", "B"), line("deploy", "done", "B", "A")]);
}

/// It is healthy as long as it gets no traffic.
#[test]
fn a_stand_in_is_not_undone_for_a_release_that_dies_of_its_traffic() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("deploy", &[]).ok();
    site.reconfigure("soak = \"100ms\"", "soak = \"60s\"");
    site.commit("v2", "dies 1");
    let deploy = site.tool("deploy", &[]).stderr(Stdio::null()).spawn();
    eventually("B is being watched", || site.status()["change"]["doing"] == "watching B");
    let mut deploy = deploy.unwrap();
    deploy.kill().unwrap();
    deploy.wait().unwrap();
    eventually("B is down", || site.status()["instances"][1]["healthy"] == false);
    site.run("deploy", &[]).fails(4, &["B died after the cutover: exit status 1; A is enabled again"]);
    serves(&site, "A", "v1");
}
