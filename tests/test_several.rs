//! Several processes as one instance: each on its port, all of them behind nginx, each restarted alone.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::load::Report;
use crate::site::{BRISK, Sample, Site, eventually, get, none_lost};

/// The connections of a site's load: the most POSTs that can be in flight.
const CONNECTIONS: u64 = 20;

fn run(command: &str, more: &str) -> String {
    format!("{BRISK}[run]\ncommand = \"{command}\"\nstop_timeout = \"5s\"\n{more}\n")
}

fn site(count: usize, more: &str) -> Site {
    Site::roomy(Sample::Static, &run("exec ./app", &format!("processes = {count}\n{more}")))
}

fn numbers(text: &str) -> Vec<i32> {
    text.lines().map(|line| line.parse().unwrap()).collect()
}

pub fn pids(site: &Site, instance: &str) -> Vec<i32> {
    numbers(&site.run("pid", &[instance]).ok())
}

pub fn ports(first: u16, count: u16) -> String {
    (0..count).map(|slot| format!("{}\n", first + 10 * slot)).collect()
}

/// The processes that nginx spreads requests over.
pub fn answering(site: &Site) -> BTreeSet<i32> {
    (0..40).flat_map(|_| numbers(&site.get("/pid").1)).collect()
}

#[track_caller]
fn no_get_lost(report: &Report) {
    assert_eq!(report.get_failed, 0, "{report}: {:#?}", report.quoted().collect::<Vec<_>>());
    assert!(report.post_failed <= CONNECTIONS, "{report}");
}

#[test]
fn that_the_first_process_is_down_is_no_change_of_the_environment() {
    let command = "test ! -e ../../down.$PROCESS_INDEX || exit 1; exec ./app";
    let site = Site::roomy(Sample::Static, &run(command, "processes = 2"));
    site.run("deploy", &[]).ok();
    fs::write(site.home.join("down.0"), "").unwrap();
    site.shell(&format!("kill {}", pids(&site, "A")[0])).ok();
    let restarts = || site.status()["instances"][0]["processes"][0]["restarts"].as_u64().unwrap();
    eventually("it is left alone for some seconds", || restarts() >= 6);
    let ran = site.run("reload", &[]);
    assert!(ran.code == 3 && ran.stderr.starts_with("reload: nothing has changed since it was started\n"), "{ran:?}");
}

#[test]
fn a_death_while_others_are_being_started_is_heard_of() {
    // The first dies in the milliseconds in which the others are started, sooner or later in one of these runs at least.
    let command = "test $PROCESS_INDEX != 0 || exit 7; exec ./app";
    let site = Site::roomy(Sample::Static, &format!("{}[health]\ntimeout = \"5s\"\n", run(command, "processes = 5")));
    site.run("update-instance", &["A"]).ok();
    for _ in 0..20 {
        site.run("start-instance", &["A"]).fails(3, &["cannot start A: it died: 0: exit status 7"]);
    }
}

#[test]
fn each_process_has_its_port_and_nginx_spreads_requests_over_all() {
    let site = site(4, "");
    site.run("enabled-port", &[]).is(1, "", "");
    site.run("disabled-port", &[]).is(0, &ports(site.ports.first, 4), "");
    site.run("pid", &["A"]).is(1, "", "");
    site.run("deploy", &[]).ok();
    site.run("enabled-port", &[]).is(0, &ports(site.ports.first, 4), "");
    site.run("disabled-port", &[]).is(0, &ports(site.ports.second, 4), "");
    for index in 0..4 {
        let environment = get(site.ports.first + 10 * index, "/env").1;
        let port = site.ports.first + 10 * index;
        assert!(environment.contains(&format!("PORT={port}\nPROCESS_INDEX={index}\n")), "{environment}");
    }
    let all: BTreeSet<i32> = pids(&site, "A").into_iter().collect();
    assert_eq!((all.len(), &answering(&site)), (4, &all));
    let status = site.status();
    let processes = status["instances"][0]["processes"].as_array().unwrap();
    let names: Vec<&str> = processes.iter().map(|process| process["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["0", "1", "2", "3"]);
    let told: BTreeSet<i32> = processes.iter().map(|process| process["pid"].as_i64().unwrap() as i32).collect();
    assert_eq!(told, all);
    site.run("stop-instance", &["--force"]).ok();
    eventually("all of them are gone", || site.run("pid", &["A"]).code == 1);
}

#[test]
fn max_is_one_for_each_processor() {
    let site = Site::roomy(Sample::Static, &run("exec ./app", "processes = \"max\""));
    let cores = std::thread::available_parallelism().unwrap().get();
    // As many as there is room for in the test's ports.
    if cores <= 5 {
        site.run("deploy", &[]).ok();
        assert_eq!(pids(&site, "A").len(), cores);
    }
    assert_eq!(site.run("disabled-port", &[]).ok().lines().count(), cores);
}

#[test]
fn one_that_dies_is_started_again_alone_and_no_get_is_lost() {
    let site = site(3, "");
    site.run("deploy", &[]).ok();
    let before = pids(&site, "A");
    let load = site.load();
    for (index, killed) in before.iter().enumerate() {
        assert!(Command::new("kill").args(["-9", &killed.to_string()]).status().unwrap().success());
        eventually("it is back", || {
            let now = site.run("pid", &["A"]).stdout;
            now.lines().count() == 3 && !now.lines().any(|pid| pid == killed.to_string())
        });
        let restarts: Vec<u64> = site.status()["instances"][0]["processes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|process| process["restarts"].as_u64().unwrap())
            .collect();
        let expected: Vec<u64> = (0..3).map(|other| u64::from(other <= index)).collect();
        assert_eq!(restarts, expected, "the others were left alone");
    }
    let after: BTreeSet<i32> = pids(&site, "A").into_iter().collect();
    assert!(before.iter().all(|pid| !after.contains(pid)));
    assert_eq!(answering(&site), after);
    no_get_lost(&load.stop());
}

#[test]
fn another_number_is_a_deploy_that_loses_nothing_and_needs_no_reload() {
    let site = site(2, "");
    site.run("deploy", &[]).ok();
    let nginx = fs::read_to_string(site.home.join("nginx/nginx.pid")).unwrap();
    let workers = || {
        let children = format!("/proc/{0}/task/{0}/children", nginx.trim());
        fs::read_to_string(children).unwrap()
    };
    let before = workers();
    let load = site.load();
    for (version, old, new) in [("v2", 2, 4), ("v3", 4, 1), ("v4", 1, 3), ("v5", 3, 3)] {
        site.reconfigure(&format!("processes = {old}"), &format!("processes = {new}"));
        // It is the deploy that changes it.
        assert_eq!(site.run("enabled-port", &[]).ok().lines().count(), old);
        site.commit(version, "");
        site.run("deploy", &[]).ok();
        assert_eq!(site.run("enabled-port", &[]).ok().lines().count(), new);
        let now = site.run("enabled-instance", &[]).ok();
        assert_eq!(answering(&site), pids(&site, now.trim()).into_iter().collect());
    }
    site.run("rollback", &[]).ok();
    assert_eq!(site.run("enabled-port", &[]).ok().lines().count(), 3);
    none_lost(&load.stop());
    assert_eq!(workers(), before, "nginx was reloaded");
}

#[test]
fn an_instance_is_healthy_when_all_are() {
    let site = site(3, "");
    site.run("deploy", &[]).ok();
    let load = site.load();
    site.reconfigure("exec ./app", "test $PROCESS_INDEX = 2 && exec sleep 1000; exec ./app");
    let config = fs::read_to_string(site.home.join("config.toml")).unwrap();
    fs::write(site.home.join("config.toml"), format!("{config}[health]\ntimeout = \"2s\"\n")).unwrap();
    site.commit("v2", "");
    site.run("deploy", &[]).fails(124, &["cannot start B: not healthy within 2", "process 2: connection refused"]);
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
    // One that dies at its start: its words are quoted, not another's.
    site.reconfigure("&& exec sleep 1000", "&& { echo no such table; exit 5; }");
    site.run("deploy", &[]).fails(3, &["cannot start B: it died: 2: exit status 5: no such table"]);
    assert_eq!(site.run("enabled-instance", &[]).ok(), "A\n");
    none_lost(&load.stop());
}

#[test]
fn a_release_of_which_one_process_dies_in_the_soak_is_rolled_back() {
    let site = site(3, "");
    site.run("deploy", &[]).ok();
    let load = site.load();
    site.reconfigure("soak = \"100ms\"", "soak = \"3s\"");
    let enabled = "until [ $(readlink ../../state/enabled) = B ]; do sleep 0.05; done";
    let crash = &format!("test $PROCESS_INDEX = 1 && {{ ({enabled}; sleep 1; kill $$) & }}; exec ./app");
    site.reconfigure("exec ./app", crash);
    site.commit("v2", "");
    site.run("deploy", &[]).fails(4, &["B died after the cutover: 1: killed by SIGTERM", "A is enabled again"]);
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
    no_get_lost(&load.stop());
}

#[test]
fn open_files_and_nice_are_as_configured() {
    let site = site(1, "open_files = 333\nnice = 7");
    site.run("deploy", &[]).ok();
    let pid = site.pid("A");
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(files.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["333", "333"]);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    assert_eq!(stat.rsplit_once(") ").unwrap().1.split(' ').nth(16), Some("7"));
}

#[test]
fn more_processes_than_nginx_knows_of_are_refused_before_anything_is_touched() {
    let site = site(1, "").with_standby();
    site.reconfigure("processes = 1", "processes = 9");
    let standby = site.pid("A");
    site.commit("v3", "");
    for tool in ["reload", "deploy"] {
        site.run(tool, &[]).fails(2, &["nginx does not know of 9 processes yet: run install again"]);
    }
    assert_eq!((site.get("/").1.as_str(), site.pid("A")), ("v2\n", standby));

    // What brings the app back does so, with as many as the release was deployed with.
    let nginx = fs::read_to_string(site.home.join("nginx/nginx.pid")).unwrap();
    site.shell(&format!("kill {}; stop-instance A --force && stop-instance B --force", nginx.trim())).ok();
    eventually("all has gone", || site.processes().is_empty());
    site.run("bootup", &[]).ok();
    assert_eq!(site.get("/").1, "v2\n");
    let all = pids(&site, "B");
    assert_eq!((all.len(), answering(&site)), (1, BTreeSet::from([all[0]])));
    let status = site.run("status", &[]).ok();
    assert!(status.ends_with("\nnginx does not know of 9 processes yet: run install again\n"), "{status}");
    site.run("rollback", &[]).ok();
    assert_eq!(site.get("/").1, "v1\n");
}

/// One that is down for a moment is no reason to take the traffic from the others.
#[test]
fn a_deploy_while_one_process_is_down_leaves_the_traffic_to_the_others() {
    let site = site(2, "");
    for version in ["v1", "v2"] {
        site.commit(version, "");
        site.run("deploy", &[]).ok();
    }
    // Each time it stays down for longer.
    let mut killed = 0;
    for _ in 0..6 {
        let mut present = Vec::new();
        eventually("both are there", || {
            present = pids(&site, "B");
            present.len() == 2 && present[1] != killed
        });
        killed = present[1];
        site.shell(&format!("kill -9 {killed}")).ok();
    }
    site.commit("v3", "");
    let deployed = site.run("deploy", &[]);
    assert!(!deployed.stderr.contains("takes its place"), "{deployed:?}");
    deployed.is(0, "", &deployed.stderr);
    assert_eq!((site.run("enabled-instance", &[]).ok().as_str(), site.get("/").1.as_str()), ("A\n", "v3\n"));
}
