//! deploy: all steps in order, and back when one fails. That no request is lost meanwhile is shown elsewhere.

use std::fs;
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::pty::typed;
use crate::site::{BRISK, Ran, Sample, Site, eventually, explains_itself};

#[test]
fn it_explains_itself() {
    explains_itself(
        "deploy",
        "Deploy the wanted release: update the disabled instance, start it, cut over, watch it, go back when it fails",
    );
    let site = Site::new(Sample::Static, BRISK);
    let reason = "the argument '--ref <REF>' cannot be used with '--from <PATH>'; see deploy --help";
    site.run("deploy", &["--ref", "main", "--from", "."]).is(2, "", &format!("deploy: {reason}\n"));
}

#[test]
fn it_says_each_step_on_stderr_in_few_bytes_and_nothing_on_stdout() {
    let site = Site::new(Sample::Static, BRISK);
    let ran = site.run("deploy", &[]);
    assert!(ran.stderr.len() < 2000, "{ran:?}");
    let said = "deploy: making a release of COMMIT for A\ndeploy: RELEASE is made, TIME\n\
                deploy: A is healthy, TIME\ndeploy: A is enabled, TIME\n";
    ran.masked(&site).is(0, "", said);
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));

    let pid = site.pid("A");
    site.run("deploy", &[]).masked(&site).is(0, "", "deploy: already current: A runs RELEASE\n");
    assert_eq!(site.pid("A"), pid);
    site.run("pid", &["B"]).is(1, "", "");
    assert_eq!(history(&site).len(), 1, "what changed nothing is no change");

    site.commit("v2", "");
    site.run("deploy", &[]).ok();
    assert_eq!((site.get("/"), site.pid("A")), ((200, "v2\n".to_owned()), pid), "the standby is kept running");
}

#[test]
fn the_steps_run_by_hand_are_a_deploy() {
    let site = Site::new(Sample::Static, BRISK);
    let by_hand = "d=$(disabled-instance); update-instance $d && start-instance $d && connect-to-nginx $d";
    site.shell(by_hand).masked(&site).is(0, "RELEASE\n", "");
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
    site.commit("v2", "");
    site.shell(by_hand).masked(&site).is(0, "RELEASE\n", "");
    assert_eq!(site.get("/"), (200, "v2\n".to_owned()));
    site.run("enabled-instance", &[]).is(0, "B\n", "");
}

#[test]
fn a_dry_run_prints_the_pipeline_that_it_would_be_and_does_nothing() {
    let site = Site::new(Sample::Static, &format!("{BRISK}standby = \"stop\"\n"));
    let before = site.processes();
    let dry = site.run("deploy", &["--dry-run"]);
    dry.is(0, "update-instance A && start-instance A && connect-to-nginx A\n", "");
    assert_eq!(site.processes(), before);
    assert!(!site.home.join("repo.git").exists() && !site.home.join("logs/history.jsonl").exists());
    site.shell(&dry.stdout).masked(&site).is(0, "RELEASE\n", "");
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));

    site.commit("v2", "");
    site.git(&["branch", "a;b"]);
    let dry = site.run("deploy", &["--dry-run", "--ref", "a;b"]);
    dry.is(0, "update-instance B --ref 'a;b' && start-instance B && connect-to-nginx B && stop-instance A\n", "");
    site.shell(&dry.stdout).masked(&site).is(0, "RELEASE\n", "");
    assert_eq!(site.get("/"), (200, "v2\n".to_owned()));
    site.run("pid", &["A"]).is(1, "", "");

    fs::write(site.directory.path().join("it's here"), "").unwrap();
    let dry = site.run("deploy", &["--dry-run", "--from", "it's here"]);
    dry.masked(&site).is(
        0,
        "update-instance A --from 'SITE/it'\\''s here' && start-instance A && connect-to-nginx A && stop-instance B\n",
        "",
    );
}

#[test]
fn the_second_deploy_gives_up_at_once_or_waits_when_told_to() {
    let build = "[build]\ncommand = \"until test -e ../../go; do sleep 0.05; done\"\n";
    let site = Site::new(Sample::Static, &format!("{build}{BRISK}"));
    let first = site.tool("deploy", &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("the first deploy builds", || is_building(&site));
    for tool in ["deploy", "rollback", "update-instance", "start-instance", "stop-instance", "connect-to-nginx"] {
        let busy = format!("{tool}: cannot begin: deploy (pid {}) holds the lock; --wait waits for it\n", first.id());
        site.run(tool, &[]).is(75, "", &busy);
    }
    let second = site.tool("deploy", &["--wait"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    fs::write(site.home.join("go"), "").unwrap();
    assert_eq!(ended(first).code, 0);
    ended(second).masked(&site).is(0, "", "deploy: already current: A runs RELEASE\n");
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
}

#[test]
fn what_another_app_runs_is_left_alone_though_its_release_has_the_same_name() {
    let [first, second] = [(); 2].map(|()| Site::new(Sample::Static, BRISK));
    first.run("deploy", &["--from", "source"]).ok();
    let release = fs::read_link(first.home.join("instances/A")).unwrap();
    let release = release.file_name().unwrap().to_str().unwrap();
    let pid = first.pid("A");
    // Made in the same second, and killed.
    let half_made = second.home.join("releases").join(release);
    fs::create_dir(&half_made).unwrap();
    let half = half_made.join("half");
    fs::write(&half, "").unwrap();
    fs::write(second.home.join(format!("releases/.making-{release}")), "").unwrap();
    second.run("deploy", &["--from", "source"]).ok();
    // The second one may have been made in the same second, and have this name.
    assert!(!half.exists());
    assert_eq!((first.pid("A"), first.get("/").0), (pid, 200));
}

#[test]
fn each_change_is_one_line_of_the_history() {
    let site = Site::new(Sample::Static, BRISK).with_standby();
    site.run("rollback", &[]).ok();
    site.commit("v3", "exit");
    assert_eq!(site.run("deploy", &[]).code, 3);

    let changes = history(&site);
    let told = |key: &str| changes.iter().map(|change| change[key].clone()).collect::<Vec<Value>>();
    for change in &changes {
        let keys: Vec<&String> = change.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["at", "who", "what", "wanted", "from", "to", "seconds", "outcome", "reason"]);
        let at = change["at"].as_str().unwrap();
        assert!(at.len() == 20 && at.starts_with("20") && at.ends_with('Z'), "{at}");
        assert!(change["seconds"]["total"].as_f64().unwrap() > 0.0, "{change}");
    }
    assert_eq!(told("what"), ["deploy", "deploy", "rollback", "deploy"]);
    assert_eq!(told("outcome"), ["done", "done", "done", "failed"]);
    assert_eq!(changes[0]["from"], Value::Null);
    assert_eq!(changes[1]["from"], changes[0]["to"]);
    assert_eq!(changes[2]["to"], changes[0]["to"]);
    let instances: Vec<&Value> = changes.iter().map(|change| &change["to"]["instance"]).collect();
    assert_eq!(instances, ["A", "B", "A", "B"]);
    let steps: Vec<&String> = changes[1]["seconds"].as_object().unwrap().keys().collect();
    assert_eq!(steps, ["update", "start", "connect", "soak", "total"]);
    assert_eq!(told("reason")[..3], [Value::Null, Value::Null, Value::Null]);
    assert!(told("reason")[3].as_str().unwrap().starts_with("cannot start B: it died: exit status 3: v3 opens"));
    let user = site.shell("id -un").ok();
    assert_eq!(changes[0]["who"], user.trim());
}

#[test]
fn a_release_that_does_not_start_leaves_both_instances_as_they_were() {
    let site = Site::new(Sample::Static, BRISK);
    site.commit("v0", "exit");
    site.run("deploy", &[]).fails(3, &["deploy: cannot start A: it died: exit status 3: v0 opens its database | "]);
    site.run("enabled-instance", &[]).is(1, "", "");
    assert!(!site.home.join("instances/A").exists());
    for version in ["v1", "v2"] {
        site.commit(version, "");
        site.run("deploy", &[]).ok();
    }
    let enabled = site.pid("B");
    site.commit("v3", "exit");
    let ran = site.run("deploy", &[]);
    ran.fails(3, &["deploy: cannot start A: it died: exit status 3: v3 opens its database | "]);
    assert!(ran.stderr.len() < 2000, "{ran:?}");
    assert_eq!((site.pid("B"), site.get("/")), (enabled, (200, "v2\n".to_owned())));
    site.run("rollback", &[]).ok();
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()), "the standby is warm again, with its former release");
    site.commit("v4", "");
    site.run("deploy", &[]).ok();
    assert_eq!(site.get("/"), (200, "v4\n".to_owned()));
}

#[test]
fn a_release_that_dies_while_it_is_watched_gives_the_traffic_back() {
    let site = Site::new(Sample::Static, "[deploy]\nsoak = \"30s\"\ndrain_timeout = \"100ms\"\n");
    site.commit("v0", "dies 1");
    let first = site.run("deploy", &[]);
    first.fails(3, &["deploy: A died after the cutover: exit status 1"]);
    site.run("enabled-instance", &[]).is(1, "", "");

    site.write_config(BRISK);
    site.install(&[]).ok();
    site.commit("v1", "");
    site.run("deploy", &[]).ok();
    site.write_config("[deploy]\nsoak = \"30s\"\ndrain_timeout = \"100ms\"\n");
    site.install(&[]).ok();
    site.commit("v2", "dies 1");
    site.run("deploy", &[]).fails(4, &["deploy: B died after the cutover: exit status 1; A is enabled again"]);
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
    site.run("enabled-instance", &[]).is(0, "A\n", "");
    site.run("pid", &["B"]).is(1, "", "");
    assert_eq!(history(&site).last().unwrap()["outcome"], "rolled back");
}

#[test]
fn a_standby_that_is_not_to_be_kept_is_stopped_and_old_releases_are_pruned() {
    let site = Site::new(Sample::Static, &format!("{BRISK}standby = \"stop\"\nkeep_releases = 1\n"));
    for version in ["v1", "v2", "v3", "v4"] {
        site.commit(version, "");
        site.run("deploy", &[]).ok();
        assert_eq!(site.get("/"), (200, format!("{version}\n")));
    }
    site.run("pid", &["A"]).is(1, "", "");
    assert_eq!(site.releases().len(), 2, "what the instances have is kept");
    site.run("rollback", &[]).ok();
    assert_eq!(site.get("/"), (200, "v3\n".to_owned()));
}

#[test]
fn a_ref_or_a_path_may_be_deployed_instead_of_the_configured_ref() {
    let site = Site::new(Sample::Static, BRISK);
    site.git(&["tag", "v1"]);
    site.commit("v2", "");
    site.run("deploy", &["--ref", "v1"]).ok();
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
    fs::write(site.source().join("VERSION"), "not committed\n").unwrap();
    site.run("deploy", &["--from", "source"]).ok();
    assert_eq!(site.get("/"), (200, "not committed\n".to_owned()));
    site.run("deploy", &["--ref", "v9"]).fails(3, &["deploy: cannot find ref \"v9\": "]);
    site.run("deploy", &["--from", "nowhere"])
        .fails(2, &["deploy: invalid value 'nowhere' for '--from <PATH>': No such file or directory"]);
    assert_eq!(site.get("/"), (200, "not committed\n".to_owned()));
}

#[test]
fn on_a_terminal_it_ends_with_the_table_of_status() {
    let site = Site::new(Sample::Static, BRISK);
    let seen = typed(site.tool("deploy", &[]), "").replace('\r', "");
    let table = site.run("status", &[]).ok();
    let (told, shown) = seen.split_once(table.lines().next().unwrap()).unwrap_or_else(|| panic!("{seen}"));
    assert!(told.contains("deploy: A is enabled, "), "{seen}");
    assert_eq!(shown.lines().count(), table.lines().count(), "{seen}\n{table}");
    let failed = typed(site.tool("deploy", &["--ref", "nothing"]), "");
    assert_eq!(failed.lines().count(), 1, "{failed}");
}

#[test]
fn an_app_that_is_deployed_from_paths_needs_no_source() {
    let site = Site::unlaid(Sample::Static, BRISK);
    let text = fs::read_to_string(site.config()).unwrap();
    let lines = text.lines().filter(|line| *line != "[source]" && !line.starts_with("git = "));
    fs::write(site.config(), lines.collect::<Vec<&str>>().join("\n")).unwrap();
    site.install(&[]).ok();
    for version in ["one", "two"] {
        fs::write(site.source().join("VERSION"), version).unwrap();
        site.run("deploy", &["--from", "source"]).ok();
        assert_eq!(site.get("/"), (200, format!("{version}\n")));
    }
    let reason = "cannot tell what to deploy: say --from PATH, or name the repository in [source] of the configuration";
    for words in [&["deploy"][..], &["deploy", "--ref", "main"], &["deploy", "--if-new"], &["update-instance"]] {
        site.run(words[0], &words[1..]).is(2, "", &format!("{}: {reason}\n", words[0]));
    }
    site.run("rollback", &[]).ok();
    site.run("reload", &[]).ok();
    site.run("bootup", &[]).ok();
    assert_eq!(site.get("/"), (200, "one\n".to_owned()));
}

fn is_building(site: &Site) -> bool {
    let releases = fs::read_dir(site.home.join("releases")).unwrap();
    let making =
        releases.flatten().filter_map(|one| Some(one.file_name().to_str()?.strip_prefix(".making-")?.to_owned()));
    { making }.any(|release| site.home.join("releases").join(release).join("app").exists())
}

fn ended(child: Child) -> Ran {
    Ran::of(&child.wait_with_output().unwrap())
}

fn history(site: &Site) -> Vec<Value> {
    let text = fs::read_to_string(site.home.join("logs/history.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
