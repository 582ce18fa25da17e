//! Several people and schedulers at once, clocks that go back, homes that move, links where files are expected.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::site::{BRISK, Ran, Sample, Site, eventually, get, none_lost};

/// How many deploy at once.
const CROWD: usize = 20;

fn begun(site: &Site, tool: &str, arguments: &[&str]) -> Child {
    site.tool(tool, arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn ended(child: Child) -> Ran {
    Ran::of(&child.wait_with_output().unwrap())
}

/// Version `v1` serves; the commit of `v2` waits.
fn served(extra: &str) -> Site {
    let site = Site::new(Sample::Static, extra);
    site.run("deploy", &[]).ok();
    site.commit("v2", "");
    site
}

/// Looks at the status over and over while `work` goes on; returns what was under way.
fn watched<T>(site: &Site, work: impl FnOnce() -> T) -> (T, Vec<String>) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut seen = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                seen.extend(site.status()["change"]["doing"].as_str().map(str::to_owned));
            }
            seen
        });
        let result = work();
        is_over.store(true, Ordering::Relaxed);
        (result, watcher.join().unwrap())
    })
}

#[test]
fn of_twenty_deploys_at_once_one_runs_and_the_others_give_up() {
    let site = served("[deploy]\nsoak = \"5s\"\n");
    let load = site.load();
    let (all, seen) = watched(&site, || {
        let first = begun(&site, "deploy", &[]);
        eventually("the first has the lock", || site.status()["change"]["pid"] == first.id());
        let others: Vec<Child> = (1..CROWD).map(|_| begun(&site, "deploy", &[])).collect();
        let others: Vec<Ran> = others.into_iter().map(ended).collect();
        (ended(first), others)
    });
    assert_eq!(all.0.code, 0, "{all:?}");
    for other in &all.1 {
        other.fails(75, &["deploy: cannot begin: deploy (pid ", ") holds the lock; --wait waits for it"]);
    }
    assert!(seen.iter().any(|doing| doing == "watching B"), "{seen:?}");
    assert_eq!(site.get("/"), (200, "v2\n".to_owned()));
    none_lost(&load.stop());
}

#[test]
fn twenty_deploys_that_wait_follow_in_turn_and_find_nothing_left_to_do() {
    let site = served(BRISK);
    let load = site.load();
    let (all, _) = watched(&site, || {
        let all: Vec<Child> = (0..CROWD).map(|_| begun(&site, "deploy", &["--wait"])).collect();
        all.into_iter().map(ended).collect::<Vec<Ran>>()
    });
    assert!(all.iter().all(|one| one.code == 0), "{all:?}");
    let current = all.iter().filter(|one| one.stderr.starts_with("deploy: already current: B runs ")).count();
    assert_eq!(current, CROWD - 1, "{all:?}");
    none_lost(&load.stop());
}

#[test]
fn a_deploy_during_bootup_gives_up_and_a_bootup_during_a_deploy_waits() {
    let site = served("[health]\ntimeout = \"20s\"\n[deploy]\nsoak = \"100ms\"\n");
    site.commit("v2", "ready 4");
    site.run("deploy", &[]).ok();
    site.run("stop-instance", &["--force"]).ok();
    let bootup = begun(&site, "bootup", &[]);
    eventually("bootup has the lock", || site.status()["change"]["tool"] == "bootup");
    site.run("deploy", &[]).fails(75, &["bootup"]);
    assert_eq!(ended(bootup).code, 0);
    site.run("deploy", &[]).ok();

    site.commit("v3", "ready 4");
    let deploy = begun(&site, "deploy", &[]);
    eventually("deploy has the lock", || site.status()["change"]["tool"] == "deploy");
    let bootup = ended(begun(&site, "bootup", &[]));
    assert_eq!((bootup.code, ended(deploy).code), (0, 0), "{bootup:?}");
    assert_eq!(site.get("/"), (200, "v3\n".to_owned()));
}

#[test]
fn a_stop_during_a_start_gives_up_or_waits() {
    let site = served(BRISK);
    site.commit("v2", "ready 4");
    site.run("update-instance", &["B"]).ok();
    let start = begun(&site, "start-instance", &["B"]);
    eventually("start-instance has the lock", || site.status()["change"]["doing"] == "starting B");
    site.run("stop-instance", &["B"]).fails(75, &["start-instance"]);
    site.run("stop-instance", &["B", "--wait"]).is(0, "", "");
    assert_eq!(ended(start).code, 0);
    assert_eq!(site.run("pid", &["B"]).code, 1);
}

#[test]
fn an_instance_that_was_started_by_hand_is_in_the_way_until_it_is_ended_by_hand() {
    let site = served(BRISK);
    let mut app = site.command(&site.source().join("app"));
    let mut by_hand = app.current_dir(site.source()).env("PORT", site.ports.second.to_string()).spawn().unwrap();
    eventually("it answers", || get(site.ports.second, "/").0 == 200);
    site.run("deploy", &[]).fails(3, &["app (pid ", " on port ", "was not started by start-instance; stop it by hand"]);
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
    by_hand.kill().unwrap();
    by_hand.wait().unwrap();
    site.run("deploy", &[]).ok();
    assert_eq!(site.get("/"), (200, "v2\n".to_owned()));
}

/// A clock that was set back gives a release an older name than those that are there.
#[test]
fn with_the_clock_set_back_a_new_release_is_kept_and_gone_back_to() {
    let site = served("[deploy]\nsoak = \"100ms\"\ndrain_timeout = \"100ms\"\nkeep_releases = 2\n");
    let first = site.status()["instances"][0]["release"].as_str().unwrap().to_owned();
    for number in 0..3 {
        let path = site.home.join("releases").join(format!("20991231T23590{number}Z-00000000000{number}"));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("VERSION"), "v0\n").unwrap();
    }
    site.run("deploy", &[]).ok();
    assert_eq!(site.get("/"), (200, "v2\n".to_owned()));
    let releases = site.releases();
    assert!(releases.contains(&first), "{releases:?}");
    site.run("rollback", &[]).ok();
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
    site.run("deploy", &[]).ok();
    assert_eq!(site.get("/"), (200, "v2\n".to_owned()));
}

#[test]
fn a_home_may_move_once_it_is_installed_again() {
    let mut site = served(BRISK);
    site.shell("stop-instance --force A; kill $(cat .shop/nginx/nginx.pid)").ok();
    eventually("nginx has gone", || !site.home.join("nginx/nginx.pid").exists());
    let moved = site.directory.path().join(".moved");
    fs::rename(&site.home, &moved).unwrap();
    site.home = moved;
    site.install(&[]).ok();
    site.run("bootup", &[]).ok();
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
    site.run("deploy", &[]).ok();
    assert_eq!(site.get("/"), (200, "v2\n".to_owned()));
}

/// Makes a link to a file of somebody else's where ours is expected, and runs a tool.
fn with_link_at(site: &Site, place: &str, tool: &str) -> Ran {
    let victim = site.directory.path().join("victim");
    fs::write(&victim, "precious\n").unwrap();
    let path = site.home.join(place);
    let saved = site.directory.path().join("saved");
    let existed = fs::rename(&path, &saved).is_ok();
    symlink(&victim, &path).unwrap();
    let ran = site.run(tool, &[]);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious\n", "{place}: {ran:?}");
    if fs::symlink_metadata(&path).is_ok() {
        fs::remove_file(&path).unwrap();
    }
    if existed {
        fs::rename(&saved, &path).unwrap();
    }
    ran
}

#[test]
fn a_link_where_a_file_is_expected_is_not_followed() {
    let site = served("[build]\ncommand = \"true\"\n[deploy]\nsoak = \"100ms\"\ndrain_timeout = \"100ms\"\n");
    site.run("stop-instance", &["B"]).ok();
    with_link_at(&site, "run/deploy.lock", "deploy").fails(3, &["cannot lock", "run/deploy.lock", "Too many levels"]);
    with_link_at(&site, "run/B.lock", "deploy").fails(3, &["cannot ask who holds", "run/B.lock", "Too many levels"]);
    // What is only recorded does not hold a deploy up.
    let ran = with_link_at(&site, "logs/history.jsonl", "deploy");
    assert!(ran.code == 0 && ran.stderr.contains("cannot write"), "{ran:?}");
    assert_eq!(site.get("/"), (200, "v2\n".to_owned()));
    // Temporary names are made anew.
    site.commit("v3", "");
    with_link_at(&site, "instances/.A.new", "deploy").ok();
    with_link_at(&site, "state/.enabled.new", "rollback").ok();
    assert_eq!(site.get("/"), (200, "v2\n".to_owned()));
    // A log that is none is moved aside.
    site.run("stop-instance", &["A"]).ok();
    with_link_at(&site, "logs/A.log", "deploy").ok();
    assert!(site.home.join("logs/A.log.aside.1").is_symlink());
    assert_eq!(site.get("/"), (200, "v3\n".to_owned()));
}

#[test]
fn links_that_lead_out_of_the_home_are_refused() {
    let site = served(BRISK);
    let point = |link: &str, target: &str| {
        let path = site.home.join(link);
        fs::remove_file(&path).unwrap_or_default();
        symlink(target, path).unwrap();
    };
    point("instances/B", "/etc");
    site.run("start-instance", &["B"]).fails(3, &["cannot tell the release of B"]);
    fs::remove_file(site.home.join("instances/B")).unwrap();
    let enabled = fs::read_link(site.home.join("state/enabled")).unwrap();
    point("state/enabled", "/etc");
    site.run("deploy", &[]).fails(3, &["cannot tell what is enabled", "state/enabled names /etc, no instance"]);
    point("state/enabled", enabled.to_str().unwrap());
    site.run("deploy", &[]).ok();
    assert_eq!(site.get("/"), (200, "v2\n".to_owned()));
}

#[test]
fn refs_may_have_any_name_and_none_is_an_option() {
    let site = served(BRISK);
    for name in ["feature/ünï'cödé", "v2.0+build", "-dash"] {
        site.git(&["update-ref", &format!("refs/heads/{name}"), "HEAD"]);
        site.run("update-instance", &[&format!("--ref={name}")]).ok();
    }
    for name in
        ["", " ", "no such\nbranch", "--upload-pack=touch x", "HEAD~1", "main:VERSION", "../main", "@{0}", "\u{7}"]
    {
        let ran = site.run("update-instance", &[&format!("--ref={name}")]);
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.lines().count()), (3, "", 1), "{name:?}: {ran:?}");
        assert!(ran.stderr.contains(&format!("cannot find ref {name:?}")), "{name:?}: {ran:?}");
    }
    assert!(!site.directory.path().join("x").exists() && !site.home.join("x").exists());
}

#[test]
fn a_path_to_deploy_from_may_have_any_name() {
    let site = served(BRISK);
    for name in ["-dash", "with space", "qu'o\"te", "new\nline", "ünï"] {
        let path = site.directory.path().join(name);
        let copied = site.command(Path::new("cp")).arg("-r").arg(site.source()).arg(&path).status().unwrap();
        assert!(copied.success());
        site.run("deploy", &[&format!("--from={name}")]).ok();
    }
    assert_eq!(site.get("/"), (200, "v2\n".to_owned()));
}

#[test]
fn a_home_may_have_a_strange_name_or_is_refused_before_anything_is_laid() {
    let place = tempfile::Builder::new().prefix("cutover-test-").tempdir().unwrap();
    for (name, is_fine) in [
        ("with space", true),
        ("it's ünï", true),
        ("a; {name}", true),
        ("a \"quoted\" $name", false),
        ("new\nline", false),
    ] {
        let inside = place.path().join(name);
        fs::create_dir(&inside).unwrap();
        let site = Site::unlaid_in(&inside, Sample::Static, BRISK);
        let ran = site.install(&[]);
        if is_fine {
            assert_eq!(ran.code, 0, "{name:?}: {ran:?}");
            site.run("deploy", &[]).ok();
            assert_eq!(site.get("/"), (200, "v1\n".to_owned()), "{name:?}");
        } else {
            ran.fails(2, &["install: cannot "]);
            let said = ["choose a path without", "holds a control character"];
            assert!(said.iter().any(|reason| ran.stderr.contains(reason)), "{ran:?}");
            assert!(!site.home.exists(), "{name:?}");
        }
    }
}
