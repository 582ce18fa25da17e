//! bootup: after a reboot, what was enabled runs, then its standby; and if it cannot, the standby takes its place.

use std::fs;

use serde_json::{Value, json};

use crate::site::{BRISK, Sample, Site, eventually, explains_itself};

#[test]
fn it_explains_itself() {
    explains_itself("bootup", "Start what was enabled, then the standby; waits for a deploy that is under way");
}

#[test]
fn with_nothing_enabled_there_is_nothing_to_start() {
    let site = Site::new(Sample::Static, BRISK);
    let said = "bootup: nothing is enabled, so there is nothing to start; deploy makes the first release\n";
    site.run("bootup", &[]).is(0, "", said);
    site.run("bootup", &["A"]).is(2, "", "bootup: unexpected argument 'A' found; see bootup --help\n");
}

#[test]
fn it_starts_nginx_the_enabled_instance_and_the_standby() {
    let site = two_versions("");
    let nginx = fs::read_to_string(site.home.join("nginx/nginx.pid")).unwrap();
    site.shell(&format!("kill {}; stop-instance A --force && stop-instance B --force", nginx.trim())).ok();
    eventually("all has gone", || site.processes().is_empty());

    let said = "bootup: nginx is started\nbootup: B is healthy, TIME\nbootup: A is healthy, TIME\n";
    site.run("bootup", &[]).masked(&site).is(0, "", said);
    assert_eq!(site.get("/"), (200, "v2\n".to_owned()));
    let pids = (site.pid("A"), site.pid("B"));
    site.run("bootup", &[]).masked(&site).is(0, "", "bootup: B is healthy, TIME\nbootup: A is healthy, TIME\n");
    assert_eq!((site.pid("A"), site.pid("B")), pids);
    site.run("rollback", &[]).ok();
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
}

#[test]
fn a_standby_that_is_not_to_be_kept_is_not_started() {
    let site = two_versions("standby = \"stop\"\n");
    site.run("stop-instance", &["--force"]).ok();
    site.run("bootup", &[]).masked(&site).is(0, "", "bootup: B is healthy, TIME\n");
    site.run("pid", &["A"]).is(1, "", "");
}

#[test]
fn the_standby_takes_the_place_of_an_enabled_instance_that_does_not_start() {
    let site = two_versions("");
    site.shell("stop-instance A --force && stop-instance B --force").ok();
    fs::write(site.home.join("instances/B/BEHAVIOUR"), "exit\n").unwrap();
    let died = "it died: exit status 3: v2 opens its database | cannot open database: connection refused";
    let said = format!("bootup: cannot start B: {died}; falling back to the standby A\nbootup: A is healthy, TIME\n");
    site.run("bootup", &[]).masked(&site).is(0, "", &said);
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
    site.run("enabled-instance", &[]).is(0, "A\n", "");
    site.run("pid", &["B"]).is(1, "", "");
    let told: Value = serde_json::from_str(&site.run("history", &["--json"]).ok()).unwrap();
    assert_eq!((&told[0]["what"], &told[0]["to"]), (&json!("bootup"), &told[1]["from"]));
    assert_eq!((&told[0]["from"], &told[0]["outcome"]), (&told[1]["to"], &json!("done")));
}

#[test]
fn a_standby_whose_release_was_rolled_back_gets_no_traffic_unasked() {
    let site = two_versions("");
    site.run("rollback", &[]).ok();
    site.shell("stop-instance A --force && stop-instance B --force").ok();
    fs::write(site.home.join("instances/A/BEHAVIOUR"), "exit\n").unwrap();
    let release = fs::read_link(site.home.join("instances/B")).unwrap();
    let release = release.file_name().unwrap().to_string_lossy().into_owned();
    let why = format!(
        "bootup: {release} of the standby B was rolled back: `rollback` gives it the traffic: cannot start A: it died"
    );
    site.run("bootup", &[]).fails(3, &[&why]);
    assert_eq!((site.run("enabled-instance", &[]).ok().as_str(), site.run("pid", &["B"]).code), ("A\n", 1));
    // Whoever asks for it gets it.
    site.run("rollback", &[]).ok();
    assert_eq!(site.get("/"), (200, "v2\n".to_owned()));
}

#[test]
fn a_standby_that_does_not_start_is_told_of_and_the_app_serves_without() {
    let site = two_versions("");
    site.shell("stop-instance A --force && stop-instance B --force").ok();
    fs::write(site.home.join("instances/A/BEHAVIOUR"), "exit\n").unwrap();
    let died = "it died: exit status 3: v1 opens its database | cannot open database: connection refused";
    let said = format!("bootup: B is healthy, TIME\nbootup: cannot start A: {died}; B serves without a standby\n");
    site.run("bootup", &[]).masked(&site).is(0, "", &said);
    assert_eq!(site.get("/"), (200, "v2\n".to_owned()));
}

#[test]
fn when_nothing_starts_it_fails_and_says_why() {
    let site = two_versions("");
    site.shell("stop-instance A --force && stop-instance B --force").ok();
    for instance in ["A", "B"] {
        fs::write(site.home.join("instances").join(instance).join("BEHAVIOUR"), "exit\n").unwrap();
    }
    site.run("bootup", &[]).fails(3, &["bootup: cannot start A: it died: exit status 3: v1 opens its database | "]);
    site.run("enabled-instance", &[]).is(0, "B\n", "");
    assert!(!site.run("history", &[]).ok().contains("bootup"), "which may be tried all night");

    // The next boot, with the cause mended, needs nothing else.
    fs::write(site.home.join("instances/B/BEHAVIOUR"), "\n").unwrap();
    assert_eq!(site.run("bootup", &[]).stdout, "");
    assert_eq!(site.get("/"), (200, "v2\n".to_owned()));
}

/// A site with v1 deployed to A, then v2 to B. `deploy` is added to `[deploy]`.
fn two_versions(deploy: &str) -> Site {
    Site::new(Sample::Static, &format!("{BRISK}{deploy}")).with_standby()
}
