//! Limits that callers and disks set: nothing panics or dies of a signal, and what a tool says is what came of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::not_tested::not_tested;
use crate::ran::Ran;
use crate::site::{BRISK, Sample, Site, eventually};

/// A site whose home is this user's, who has no other processes.
pub fn site(user: u32) -> Option<Site> {
    if !nix::unistd::Uid::effective().is_root() {
        not_tested("limits of another user", "this is not root");
        return None;
    }
    let site = Site::new(Sample::Static, BRISK);
    fs::set_permissions(site.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let owner = format!("{user}:{user}");
    assert!(Command::new("chown").args(["-R", &owner]).arg(&site.home).status().unwrap().success());
    Some(site)
}

/// Runs a tool as the home's user within limits that prlimit(1) sets.
pub fn limited(site: &Site, user: u32, limits: &[String], tool: &str, arguments: &[&str]) -> Ran {
    let mut command = site.command(Path::new("timeout"));
    command.args(["--signal=KILL", "60", "setpriv", &format!("--reuid={user}"), &format!("--regid={user}")]);
    command.args(["--clear-groups", "prlimit"]).args(limits).arg(site.home.join("bin").join(tool)).args(arguments);
    Ran::run(&mut command)
}

/// Whether a tool has; an app may, where it gets no thread, and is quoted.
fn has_panicked(ran: &Ran) -> bool {
    ran.stderr.split(" died").next().unwrap().contains("panicked")
}

#[track_caller]
fn ends_well(what: &str, ran: &Ran) {
    assert!([0, 1, 2, 3, 124].contains(&ran.code) && !has_panicked(ran), "{what}: {ran:?}");
    assert!(ran.code == 0 || !ran.stderr.is_empty(), "{what}: {ran:?}");
}

#[test]
fn a_user_with_hardly_any_process_left_gets_an_error_and_no_abort() {
    let user = 61251;
    let Some(site) = site(user) else { return };
    let from = site.source();
    let from = from.to_str().unwrap();
    for count in 1..9 {
        let limits = [format!("--nproc={count}")];
        for (tool, arguments) in [
            ("update-instance", &["A", "--from", from][..]),
            ("start-instance", &["A"]),
            ("status", &[]),
            ("logs", &[]),
            ("history", &[]),
            ("stop-instance", &["A", "--force"]),
            ("bootup", &[]),
        ] {
            ends_well(&format!("{tool} with {count}"), &limited(&site, user, &limits, tool, arguments));
        }
        site.run("stop-instance", &["A", "--force"]);
        site.run("stop-instance", &["B", "--force"]);
        let is_apps = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name != "nginx\n");
        assert_eq!(site.processes().into_iter().filter(is_apps).collect::<Vec<_>>(), Vec::<i32>::new(), "{count}");
    }
    site.run("deploy", &["--from", from]).ok();
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
}

#[test]
fn tools_with_hardly_any_descriptor_or_memory_say_so() {
    let user = 61252;
    let Some(site) = site(user) else { return };
    let from = site.source();
    let from = from.to_str().unwrap();
    site.run("deploy", &["--from", from]).ok();
    let files = (3..24).map(|count| format!("--nofile={count}:{count}"));
    let memory = [2, 4, 8, 16, 64].map(|megabytes| format!("--as={}", megabytes << 20));
    for limit in files.chain(memory) {
        for (tool, arguments) in [
            ("status", &["--json"][..]),
            ("logs", &["-n", "5"]),
            ("history", &[]),
            ("pid", &[]),
            ("enabled-port", &[]),
            ("deploy", &["--from", from]),
            ("stop-instance", &["B"]),
        ] {
            let ran = limited(&site, user, std::slice::from_ref(&limit), tool, arguments);
            // What the dynamic loader or the runtime itself cannot do, no program can say.
            let is_before_main = limit.starts_with("--as=") && ran.stdout.is_empty() && ran.code >= 126;
            assert!(is_before_main || [0, 1, 2, 3, 4, 124].contains(&ran.code), "{tool} {limit}: {ran:?}");
            assert!(!has_panicked(&ran), "{tool} {limit}: {ran:?}");
        }
        assert_eq!(site.get("/").0, 200, "{limit}");
    }
}

#[test]
fn a_state_directory_that_turns_immutable_is_told_and_what_serves_is_named() {
    let site = Site::new(Sample::Static, "[deploy]\nsoak = \"60s\"\ndrain_timeout = \"100ms\"\n");
    site.reconfigure("soak = \"60s\"", "soak = \"50ms\"");
    site.run("deploy", &[]).ok();
    site.reconfigure("soak = \"50ms\"", "soak = \"60s\"");
    if site.shell("chattr +i .shop/state && chattr -i .shop/state").code != 0 {
        not_tested("an immutable directory", "this file system has none");
        return;
    }
    site.commit("v2", "");
    let deploy = site.tool("deploy", &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("B is being watched", || site.status()["change"]["doing"] == "watching B");
    site.shell("chattr +i .shop/state && kill -KILL $(pid B)").ok();
    let ran = Ran::of(&deploy.wait_with_output().unwrap());
    let tries = ["connect-to-nginx", "rollback"].map(|tool| site.run(tool, &[]));
    site.shell("chattr -i .shop/state").ok();
    ran.fails(
        5,
        &[
            "B died after the cutover: ",
            "; and the way back failed: ",
            "Operation not permitted",
            "now nginx uses B with ",
        ],
    );
    for tried in &tries {
        assert!(tried.code == 3 && tried.stderr.contains("Operation not permitted"), "{tried:?}");
    }
    site.run("enabled-instance", &[]).is(0, "B\n", "");
    let history = fs::read_to_string(site.home.join("logs/history.jsonl")).unwrap();
    assert!(history.contains(r#""outcome":"stranded""#), "{history}");
    assert_eq!(site.run("rollback", &[]).code, 0);
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
}
