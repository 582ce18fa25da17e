//! reload: new variables and settings take effect without a new release, and no request is lost.

use std::fs;

use crate::site::{BRISK, Sample, Site, explains_itself, none_lost};

#[test]
fn it_explains_itself() {
    explains_itself(
        "reload",
        "Have the configuration and the environment take effect without a new release: start the other instance, cut over",
    );
    let site = Site::new(Sample::Static, BRISK);
    site.run("reload", &[]).is(1, "", "reload: nothing is enabled; deploy makes the first release\n");
}

#[test]
fn new_variables_take_effect_and_are_told_by_name() {
    let site = Site::new(Sample::Static, BRISK);
    site.write_env("KEPT=same\nTOKEN=hunter2\nOLD=yesterday\n");
    site.run("deploy", &[]).ok();
    let release = site.status()["instances"][0]["release"].clone();
    let load = site.load();
    site.write_env("KEPT=same\nTOKEN=correcthorse\nNEW=today\n");
    site.reconfigure("stop_timeout = \"5s\"", "stop_timeout = \"6s\"\nnice = 3");
    let hint = "deploy: already current: A runs RELEASE\n\
                deploy: what is configured has changed since it was started: reload brings that into service\n";
    site.run("deploy", &[]).masked(&site).is(0, "", hint);
    let told = "reload: environment: NEW added; TOKEN changed; OLD removed\n\
                reload: configuration: run.nice added; run.stop_timeout changed\n\
                reload: B is healthy, TIME\nreload: B is enabled, TIME\n";
    site.run("reload", &[]).masked(&site).is(0, "", told);
    let environment = site.get("/env").1;
    assert!(environment.contains("\nNEW=today\n") && environment.contains("\nTOKEN=correcthorse\n"), "{environment}");
    assert!(!environment.contains("OLD="), "{environment}");
    let status = site.status();
    assert_eq!((&status["enabled"], &status["instances"][1]["release"]), (&"B".into(), &release));

    // Both run the release by now; the next one is started afresh all the same.
    let before = site.pid("A");
    site.write_env("KEPT=same\nTOKEN=correcthorse\nNEW=tomorrow\n");
    let ran = site.run("reload", &[]);
    assert!(ran.stderr.starts_with("reload: environment: NEW changed\nreload: A is healthy"), "{ran:?}");
    assert!(site.get("/env").1.contains("\nNEW=tomorrow\n"));
    assert_ne!(site.pid("A"), before);
    let ran = site.run("reload", &[]);
    assert!(ran.stderr.starts_with("reload: nothing has changed since it was started\n"), "{ran:?}");

    // What was before is one command away.
    site.run("rollback", &[]).ok();
    assert!(site.get("/env").1.contains("\nNEW=tomorrow\n"));
    none_lost(&load.stop());
    let history = fs::read_to_string(site.home.join("logs/history.jsonl")).unwrap();
    assert_eq!(history.matches("\"what\":\"reload\"").count(), 3);
    for text in [history, site.run("logs", &[]).ok(), fs::read_to_string(site.home.join("run/A.lock")).unwrap()] {
        assert!(!["hunter2", "correcthorse", "tomorrow"].iter().any(|secret| text.contains(secret)), "{text}");
    }
}

#[test]
fn what_the_standby_stands_in_for_is_started_afresh_and_not_the_standbys_release() {
    let site = Site::new(Sample::Static, BRISK).with_standby();
    let stopped = site.pid("B");
    site.shell(&format!("kill -STOP {stopped}")).ok();
    let ran = site.run("reload", &[]);
    site.shell(&format!("kill -CONT {stopped} || true")).ok();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.starts_with("reload: B is enabled but not healthy (no answer within "), "{ran:?}");
    assert!(ran.stderr.contains("; its standby A takes its place\n"), "{ran:?}");
    assert_eq!((site.get("/").1, site.run("enabled-instance", &[]).ok()), ("v2\n".to_owned(), "B\n".to_owned()));
    assert_ne!(site.pid("B"), stopped);
}

#[test]
fn what_does_not_start_leaves_the_service_as_it_was() {
    let site = Site::new(Sample::Static, BRISK).with_standby();
    let load = site.load();
    let standing = |site: &Site| (site.status()["enabled"].clone(), site.status()["instances"][0]["release"].clone());
    let before = standing(&site);
    site.reconfigure("exec ./app", "echo no such port; exit 9");
    let ran = site.run("reload", &[]);
    ran.fails(3, &["reload: cannot start A: it died: exit status 9: no such port"]);
    assert!(ran.stderr.starts_with("reload: configuration: run.command changed\n"), "{ran:?}");
    assert_eq!(standing(&site), before);
    site.reconfigure("echo no such port; exit 9", "exec ./app");
    fs::write(site.home.join("env"), "no variable\n").unwrap();
    site.run("reload", &[]).fails(2, &["reload: cannot read env file ", "line 1: expected KEY=VALUE"]);
    assert_eq!(standing(&site), before);
    none_lost(&load.stop());
}
