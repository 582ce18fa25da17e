//! logs of deploys: what the tools said that change something, and what builds printed.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;

use regex::Regex;

use crate::site::{BRISK, Ran, Sample, Site, eventually};
use crate::test_logs::{append, follow, next};

/// What a tool said, as `logs --deploys` prints it, without times and pids.
fn recorded(site: &Site) -> String {
    let text = site.run("logs", &["--deploys"]).ok();
    let begin = Regex::new(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{3}Z ([a-z-]+)\[[1-9][0-9]*\]: ").unwrap();
    let lines = text.lines().map(|line| {
        assert!(begin.is_match(line), "{line:?}");
        begin.replace(line, "$1: ").into_owned() + "\n"
    });
    lines.collect()
}

#[test]
fn what_the_tools_say_is_recorded_with_time_and_pid() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("logs", &["--deploys"]).is(0, "", "");
    let mut said = String::new();
    let mut run = |code: i32, tool: &str, arguments: &[&str]| {
        let ran: Ran = site.run(tool, arguments);
        assert_eq!(ran.code, code, "{ran:?}");
        said += &ran.stderr;
    };
    run(0, "deploy", &[]);
    run(0, "deploy", &[]);
    run(1, "rollback", &[]);
    site.commit("v2", "exit");
    run(3, "deploy", &[]);
    run(3, "stop-instance", &[]);
    run(3, "update-instance", &["A"]);
    run(3, "connect-to-nginx", &["B"]);
    run(3, "start-instance", &["B"]);
    site.commit("v3", "");
    run(0, "deploy", &[]);
    run(0, "rollback", &[]);
    run(0, "bootup", &[]);
    assert_eq!(recorded(&site), said);
    assert!(said.lines().count() > 12, "{said}");
    let last = site.run("logs", &["--deploys", "-n", "1", "--grep", r"^rollback\[[0-9]+\]: A is enabled"]).ok();
    assert_eq!(last.lines().count(), 1);
    assert_eq!(site.run("logs", &["--deploys", "--since", "10m"]).ok().lines().count(), said.lines().count());
}

#[test]
fn what_is_in_the_place_of_the_record_is_moved_aside() {
    let site = Site::new(Sample::Static, BRISK);
    let log = site.home.join("logs/deploy.log");
    symlink("elsewhere", &log).unwrap();
    site.run("deploy", &[]).ok();
    assert!(!site.home.join("logs/elsewhere").exists() && log.is_file());
    fs::remove_file(&log).unwrap();
    fs::create_dir(&log).unwrap();
    site.commit("v2", "");
    site.run("deploy", &[]).ok();
    assert!(log.is_file());
}

#[test]
fn the_record_is_rotated_and_followed() {
    let site = Site::new(Sample::Static, BRISK);
    append(&site, "deploy.log", &"2026-11-21T09:30:00.000Z deploy[7] said\n".repeat(250_000));
    let (mut follower, lines) = follow(&site, &["--deploys", "--follow", "-n", "1"]);
    assert_eq!(next(&lines), "2026-11-21T09:30:00.000Z deploy[7]: said");
    let said = site.run("deploy", &[]).said();
    for expected in said.lines() {
        let line = next(&lines);
        assert_eq!(line.split_once("]: ").unwrap().1, expected.split_once(": ").unwrap().1);
    }
    assert!(site.home.join("logs/deploy.log.1").exists());
    assert_eq!(fs::read_to_string(site.home.join("logs/deploy.log")).unwrap().lines().count(), said.lines().count());
    follower.kill().unwrap();
    follower.wait().unwrap();
}

/// A site whose builds say a word and wait for a file.
fn building() -> Site {
    let command = "cat VERSION; until [ -e ../../go ]; do sleep 0.05; done; echo 2026-11-21T09:30:00.000Z built it";
    Site::new(Sample::Static, &format!("{BRISK}[build]\ncommand = \"{command}\"\n"))
}

#[test]
fn a_builds_log_is_printed_of_the_newest_or_the_named_one() {
    let site = building();
    site.run("logs", &["--build"]).is(1, "", "logs: no build has a log\n");
    fs::write(site.home.join("go"), "").unwrap();
    let first = site.run("update-instance", &["A"]).ok().trim().to_owned();
    let built = "2026-11-21T09:30:00.000Z built it\n";
    site.run("logs", &["--build"]).is(0, &format!("v1\n{built}"), "");
    site.commit("v2", "");
    site.run("update-instance", &["A"]).ok();
    site.run("logs", &["--build"]).is(0, &format!("v2\n{built}"), "");
    site.run("logs", &["--build", &first]).is(0, &format!("v1\n{built}"), "");
    site.run("logs", &["--build", &first, "-n1"]).is(0, built, "");
    site.run("logs", &["--build", "--grep", "^v"]).is(0, "v2\n", "");
    let unknown = "20261121T093000Z-1a2b3c4d5e6f";
    site.run("logs", &["--build", unknown]).is(1, "", &format!("logs: the build of {unknown} has no log\n"));
    site.run("logs", &["--build", "A"]).fails(2, &["invalid value 'A' for '--build [<RELEASE>]'"]);
    site.run("logs", &["A", "--build"]).fails(2, &["cannot be used with"]);
    // It is whole, however long.
    let long = "x\n".repeat(1000);
    append(&site, &format!("build-{first}.log"), &long);
    assert_eq!(site.run("logs", &["--build", &first]).ok().lines().count(), 1002);
}

#[test]
fn a_build_under_way_is_followed_and_the_next_one_after_it() {
    let site = building();
    let (mut follower, lines) = follow(&site, &["--build", "-f"]);
    for version in ["v1", "v2"] {
        site.commit(version, "");
        let mut update = site.tool("update-instance", &["A"]).stdout(Stdio::null()).spawn().unwrap();
        assert_eq!(next(&lines), version);
        let mut second = follow(&site, &["-f", "--build"]);
        assert_eq!(next(&second.1), version);
        fs::write(site.home.join("go"), "").unwrap();
        for lines in [&lines, &second.1] {
            assert_eq!(next(lines), "2026-11-21T09:30:00.000Z built it");
        }
        assert!(update.wait().unwrap().success());
        second.0.kill().unwrap();
        second.0.wait().unwrap();
        fs::remove_file(site.home.join("go")).unwrap();
    }
    eventually("it goes on until it is interrupted", || follower.try_wait().unwrap().is_none());
    follower.kill().unwrap();
    follower.wait().unwrap();
}
