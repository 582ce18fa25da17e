//! rollback: back to what served before, in one command.

use std::fs;

use crate::site::{BRISK, Sample, Site, explains_itself};

#[test]
fn it_explains_itself() {
    explains_itself("rollback", "Connect the other instance again; it is started if need be");
    let site = Site::new(Sample::Static, BRISK);
    let reason = "invalid value 'yesterday' for '--to <RELEASE>': \"yesterday\" is not a release such as \
                  20261121T093000Z-1a2b3c4d5e6f; see rollback --help";
    site.run("rollback", &["--to", "yesterday"]).is(2, "", &format!("rollback: {reason}\n"));
}

#[test]
fn it_says_no_when_there_is_nothing_to_go_back_to() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("rollback", &[]).is(1, "", "rollback: nothing is enabled\n");
    site.run("deploy", &[]).ok();
    site.run("rollback", &[]).is(1, "", "rollback: there is nothing to go back to: B has no release\n");
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
    let history = fs::read_to_string(site.home.join("logs/history.jsonl")).unwrap();
    assert_eq!(history.lines().count(), 1, "a rollback that changed nothing is no change: {history}");
}

#[test]
fn with_a_warm_standby_it_only_switches_and_again_switches_back() {
    let site = two_versions("");
    let pids = (site.pid("A"), site.pid("B"));
    site.run("rollback", &[]).masked(&site).is(0, "", "rollback: A is enabled with RELEASE, TIME\n");
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
    site.run("rollback", &[]).masked(&site).is(0, "", "rollback: B is enabled with RELEASE, TIME\n");
    assert_eq!(site.get("/"), (200, "v2\n".to_owned()));
    assert_eq!((site.pid("A"), site.pid("B")), pids);
}

#[test]
fn a_standby_that_was_stopped_is_started() {
    let site = two_versions("standby = \"stop\"\n");
    site.run("pid", &["A"]).is(1, "", "");
    site.run("rollback", &[]).masked(&site).is(0, "", "rollback: A is enabled with RELEASE, TIME\n");
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
}

#[test]
fn it_goes_back_to_any_release_that_is_kept() {
    let site = two_versions("");
    let releases = releases(&site);
    let [first, second] = &releases[..] else { panic!("{releases:?}") };
    site.commit("v3", "");
    site.run("deploy", &[]).ok();

    site.run("rollback", &["--to", first]).masked(&site).is(0, "", "rollback: B is enabled with RELEASE, TIME\n");
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
    let stderr = format!("rollback: already there: B runs {first}\n");
    site.run("rollback", &["--to", first]).is(0, "", &stderr);
    site.run("rollback", &["--to", second]).ok();
    assert_eq!(site.get("/"), (200, "v2\n".to_owned()));

    site.run("rollback", &["--to", "20200101T000000Z-abcdef"]).masked(&site).is(
        3,
        "",
        "rollback: cannot go back to RELEASE: there is no such release; ls HOME/releases shows them\n",
    );
    assert_eq!(site.get("/"), (200, "v2\n".to_owned()));
}

#[test]
fn a_release_that_does_not_start_any_more_leaves_the_service_as_it_was() {
    let site = two_versions("standby = \"stop\"\n");
    fs::write(site.home.join("instances/A/BEHAVIOUR"), "exit\n").unwrap();
    let pid = site.pid("B");
    site.run("rollback", &[]).fails(3, &["rollback: cannot start A: it died: exit status 3: v1 opens its database | "]);
    assert_eq!((site.pid("B"), site.get("/")), (pid, (200, "v2\n".to_owned())));
    site.run("enabled-instance", &[]).is(0, "B\n", "");
    site.run("pid", &["A"]).is(1, "", "");
    let history = fs::read_to_string(site.home.join("logs/history.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(history.lines().last().unwrap()).unwrap();
    assert_eq!((last["what"].as_str(), last["outcome"].as_str()), (Some("rollback"), Some("failed")));
}

/// A site with v1 deployed to A, then v2 to B. `deploy` is added to `[deploy]`.
fn two_versions(deploy: &str) -> Site {
    Site::new(Sample::Static, &format!("{BRISK}{deploy}")).with_standby()
}

/// The releases, the oldest first. Those of one second may have changed places, so their versions are looked at.
fn releases(site: &Site) -> Vec<String> {
    let mut names = site.releases();
    names.sort_by_key(|name| fs::read_to_string(site.home.join("releases").join(name).join("VERSION")).unwrap());
    names
}
