//! supervise: an instance kept running in the foreground, and all of it gone when asked.

use std::process::{Child, Stdio};

use serde_json::Value;

use crate::site::{BRISK, Ran, Sample, Site, eventually, explains_itself, get};

#[test]
fn it_explains_itself() {
    explains_itself("supervise", "Keep an instance running in the foreground, until SIGTERM or SIGINT");
    let site = Site::new(Sample::Static, BRISK);
    let reason = "the following required arguments were not provided: <INSTANCE>; see supervise --help";
    site.run("supervise", &[]).is(2, "", &format!("supervise: {reason}\n"));
    site.run("supervise", &["C"]).is(2, "", "supervise: cannot find instance \"C\": there are A and B\n");
    site.run("supervise", &["A"]).is(3, "", "supervise: cannot run A: it has no release\n");
}

#[test]
fn it_runs_in_the_foreground_until_it_is_asked_to_end() {
    let site = Site::new(Sample::Static, BRISK);
    let before = site.processes();
    site.run("update-instance", &["A"]).ok();
    for signal in ["TERM", "INT"] {
        let supervise = run(&site);
        eventually("the app answers", || get(site.ports.first, "/").0 == 200);
        site.run("start-instance", &["A"]).is(0, "", "");
        let busy = format!("supervise: cannot supervise A: it is already supervised by pid {}\n", supervise.id());
        site.run("supervise", &["A"]).is(75, "", &busy);
        assert_eq!(site.processes().len(), before.len() + 3);

        site.shell(&format!("kill -{signal} {}", supervise.id())).ok();
        Ran::of(&supervise.wait_with_output().unwrap()).is(0, "", "");
        assert_eq!(site.processes(), before);
    }
}

#[test]
fn an_app_that_crashes_is_started_again_and_the_restarts_are_counted() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("deploy", &[]).ok();
    for restarts in 1..=2 {
        let crashed = site.pid("A");
        site.shell(&format!("kill -9 {crashed}")).ok();
        eventually("the app is back", || {
            let ran = site.run("pid", &["A"]);
            ran.code == 0 && ran.stdout.trim() != crashed.to_string()
        });
        let status: Value = serde_json::from_str(&site.run("status", &["--json"]).ok()).unwrap();
        let instance = &status["instances"][0];
        assert_eq!((&instance["restarts"], &instance["last_exit"]), (&restarts.into(), &"killed by SIGKILL".into()));
        let table = site.run("status", &[]).ok();
        assert!(table.contains(&format!("{restarts} (last: killed by SIGKILL, ")), "{table}");
    }
    let log = site.run("logs", &["A"]).masked(&site).ok();
    let life = "supervise: started RELEASE\n";
    let crash = |pause: &str| format!("supervise: killed by SIGKILL\nsupervise: starting it again in {pause}\n");
    // The spans are masked: what counts is that each crash is told once, between two lives.
    let told = format!("{life}{}{life}{}{life}", crash("TIME"), crash("TIME"));
    assert!(log.ends_with(&told), "{log}");
}

#[test]
fn what_the_app_leaves_behind_when_it_dies_is_killed_before_it_is_started_again() {
    let site = Site::new(Sample::Static, BRISK);
    site.commit("v1", "stubborn");
    site.run("update-instance", &["A"]).ok();
    site.run("start-instance", &["A"]).ok();
    let all = site.processes().len();
    let crashed = site.pid("A");
    site.shell(&format!("kill -9 {crashed}")).ok();
    eventually("the app is back", || {
        site.run("pid", &["A"]).stdout.trim().parse().is_ok_and(|pid: i32| pid != crashed)
    });
    assert_eq!(site.processes().len(), all, "the first life's child is still there");
    site.shell("kill -9 $(pid A)").ok();
}

#[test]
fn what_a_killed_supervise_kept_ends_with_it() {
    let site = Site::new(Sample::Static, BRISK);
    let before = site.processes();
    site.commit("v1", "stubborn");
    site.run("update-instance", &["A"]).ok();
    let mut supervise = run(&site);
    eventually("the app answers", || get(site.ports.first, "/").0 == 200);
    supervise.kill().unwrap();
    supervise.wait().unwrap();
    eventually("the app and its child are gone", || site.processes() == before);
    site.run("start-instance", &["A"]).is(0, "", "");
    site.run("stop-instance", &["A"]).is(0, "", "");
}

#[test]
fn an_app_whose_leash_is_killed_is_started_again() {
    let site = Site::new(Sample::Static, BRISK);
    site.commit("v1", "stubborn");
    site.run("update-instance", &["A"]).ok();
    site.run("start-instance", &["A"]).ok();
    let all = site.processes().len();
    let app = site.pid("A");
    site.shell(&format!("kill -9 {}", site.leash("A"))).ok();
    eventually("the app is back", || site.run("pid", &["A"]).stdout.trim().parse().is_ok_and(|pid: i32| pid != app));
    assert_eq!(site.processes().len(), all, "something of the first life is still there");
}

#[test]
fn the_next_start_ends_what_is_left_when_supervise_and_leash_are_killed() {
    let site = Site::new(Sample::Static, BRISK);
    let before = site.processes();
    site.commit("v1", "stubborn");
    site.run("update-instance", &["A"]).ok();
    let mut supervise = run(&site);
    eventually("the app answers", || get(site.ports.first, "/").0 == 200);
    let leash = site.leash("A");
    site.shell(&format!("kill -STOP {leash}; kill -9 {} {leash}", supervise.id())).ok();
    supervise.wait().unwrap();
    eventually("the app dies with its leash", || site.run("pid", &["A"]).code == 1);
    eventually("its child does not", || site.processes().len() == before.len() + 1);
    site.run("start-instance", &["A"]).is(0, "", "");
    assert_eq!(site.processes().len(), before.len() + 4);
    site.shell("kill -9 $(pid A)").ok();
}

/// supervise of A, in the foreground.
fn run(site: &Site) -> Child {
    site.tool("supervise", &["A"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}
