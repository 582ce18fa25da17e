//! What builds and apps leave behind, and what callers do: nothing of it stays, stands in the way, or gets further than it may.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use cutover::process::{Pid, Process};
use nix::sys::signal::Signal;

use crate::not_tested::not_tested;
use crate::site::{BRISK, Sample, Site, chmod, eventually};
use crate::test_housekeeping::{chown, deploy, left, site_of_user};

/// A site whose home is a user's; a build fails where VERSION says `bad`, after it has run this script.
fn site(script: &str, more: &str) -> Option<Site> {
    let sections = "[build]\ncommand = \"sh leave && ! grep -q bad VERSION\"\n[run]\ncommand = \"exec ./app\"\nstop_timeout = \"2s\"\n";
    let site = site_of_user(&format!("{more}{sections}"))?;
    fs::write(site.source().join("leave"), script).unwrap();
    Some(site)
}

/// What can be left that its owner can remove.
const LEAVINGS: [(&str, &str); 7] = [
    (
        "a deep tree without permissions",
        "d=x; for i in $(seq 200); do mkdir $d; cd $d; done; cd ../..; while [ \"$(pwd)\" != \"$OLDPWD\" ] && chmod 0 x; do cd ..; [ -d x ] || break; done",
    ),
    (
        "a path longer than a path may be",
        "n=$(printf '%0250d' 7); for i in $(seq 40); do mkdir $n && cd -P $n || exit 1; done",
    ),
    (
        "names of 255 bytes and of no UTF-8",
        "touch \"$(printf '%0255d' 7)\" \"$(printf '\\377\\376')\" \"$(printf 'a\\nb')\" ' ' ./-rf",
    ),
    (
        "modes of every kind",
        "mkdir a b c d; touch a/f b/f c/f d/f; chmod 0000 a; chmod 0111 b; chmod 0444 c; chmod 1555 d",
    ),
    (
        "what is no file",
        "mkfifo p; python3 -c 'import socket as s; s.socket(s.AF_UNIX).bind(\"s\")'; ln -s /nowhere l; ln -s l m; ln -s . n; chmod 0555 .",
    ),
    ("twenty thousand files", "mkdir m && cd m && seq 20000 | xargs touch && chmod a-w ."),
    ("hard links and no permissions", "mkdir h && echo x >h/a && ln h/a h/b && chmod 0 h/a h"),
];

#[test]
fn whatever_a_failed_build_leaves_of_its_own_is_removed() {
    for (what, script) in LEAVINGS {
        let Some(site) = site(&format!("grep -q bad VERSION || exit 0\nset -e\n{script}"), "") else { return };
        deploy(&site, "v1").ok();
        deploy(&site, "bad").fails(3, &["deploy: cannot build "]);
        let again = deploy(&site, "v2");
        assert!(!again.stderr.contains("cannot"), "{what}: {again:?}");
        again.ok();
        assert_eq!(left(&site), Vec::<String>::new(), "{what}");
        assert_eq!(site.get("/"), (200, "v2\n".to_owned()), "{what}");
    }
}

#[test]
fn whatever_an_old_release_holds_is_removed() {
    for (what, script) in LEAVINGS {
        let Some(site) = site(&format!("set -e\nmkdir -p built; cd built\n{script}"), "keep_releases = 1\n") else {
            return;
        };
        for version in ["v1", "v2", "v3", "v4"] {
            let ran = deploy(&site, version);
            assert!(!ran.stderr.contains("cannot remove"), "{what}: {ran:?}");
            ran.ok();
        }
        assert_eq!(left(&site), Vec::<String>::new(), "{what}");
        assert_eq!(site.releases().len(), 2, "{what}");
    }
}

#[test]
fn nothing_outside_of_a_release_is_removed_or_opened_with_it() {
    let Some(site) =
        site("mkdir in; ln -s ../../../outside in/out; ln -s ../../outside out; chmod 0555 in", "keep_releases = 1\n")
    else {
        return;
    };
    let outside = site.home.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "kept\n").unwrap();
    chown(&outside);
    chmod(&outside.join("file"), 0o400);
    chmod(&outside, 0o500);
    for version in ["v1", "v2", "bad", "v3", "bad", "v4"] {
        deploy(&site, version);
    }
    assert_eq!(site.releases().len(), 2);
    assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "kept\n");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&outside), mode(&outside.join("file"))), (0o500, 0o400));
    chmod(&outside, 0o700);
}

#[test]
fn what_cannot_be_removed_is_told_and_stops_no_deploy() {
    let chattr = |flag: &str, path: &Path| {
        Command::new("chattr").arg(flag).arg(path).status().is_ok_and(|status| status.success())
    };
    let flags = [("+i", "-i"), ("+a", "-a")];
    for (set, clear) in flags {
        for what in ["file", "directory"] {
            let Some(site) = site("mkdir -p keep/full; touch keep/full/file", "keep_releases = 1\n") else { return };
            deploy(&site, "v1").ok();
            let kept = fs::canonicalize(site.home.join("instances/A")).unwrap().join("keep");
            let path = if what == "file" { kept.join("full/file") } else { kept.clone() };
            if !chattr(set, &path) {
                not_tested("an immutable file", "this file system has none");
                return;
            }
            let ran = ["v2", "v3", "v4", "v5"].map(|version| (deploy(&site, version), site.get("/"), version));
            for name in left(&site) {
                let inside = site.home.join("releases").join(name).join("keep");
                chattr(clear, &inside);
                chattr(clear, &inside.join("full/file"));
            }
            chattr(clear, &path);
            for (ran, answer, version) in &ran {
                assert_eq!(ran.code, 0, "{set} {what}: {ran:?}");
                assert_eq!(*answer, (200, format!("{version}\n")), "{set} {what}");
            }
            let tells = ran.iter().filter(|(ran, ..)| ran.stderr.contains("cannot remove")).count();
            assert_eq!(tells, 1, "{set} {what}: it is told once");
            deploy(&site, "v6").ok();
            assert_eq!(left(&site), Vec::<String>::new(), "{set} {what}");
        }
    }
}

#[test]
fn a_log_that_cannot_be_appended_to_holds_no_app_up() {
    let run = "[run]\ncommand = \"(while sleep 0.02; do echo tick; done) & exec ./app\"\nstop_timeout = \"2s\"\n";
    for (harm, undo) in [
        ("chattr +i logs/A.log", "chattr -i logs/A.log"),
        ("mv logs away && mkdir logs && chattr +i logs", "chattr -i logs"),
        ("rm -r logs && touch logs", "rm logs && mkdir logs"),
        ("rm -r logs && ln -s /nowhere/at/all logs", "rm logs && mkdir logs"),
    ] {
        let site = Site::new(Sample::Static, &format!("{BRISK}{run}"));
        site.run("deploy", &[]).ok();
        site.run("stop-instance", &["A", "--force"]).ok();
        site.run("start-instance", &["A"]).ok();
        let hurt = site.shell(&format!("cd .shop && {harm}"));
        if harm.contains("chattr") && hurt.code != 0 {
            not_tested("an immutable file", "this file system has none");
            return;
        }
        let pid = site.pid("A");
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!((site.pid("A"), site.get("/")), (pid, (200, "v1\n".to_owned())), "{harm}");
        let stopped = site.run("stop-instance", &["A", "--force"]);
        site.shell(&format!("cd .shop && {undo}")).ok();
        assert_eq!(stopped.code, 0, "{harm}: {stopped:?}");
        site.run("start-instance", &["A"]).ok();
        eventually("the log goes on", || site.run("logs", &["A", "-n", "1"]).stdout == "tick\n");
    }
}

fn kill(pid: i32, signal: Signal) {
    Process::with_pid(Pid::from_raw(pid)).unwrap().signal(signal).unwrap();
}

/// Programs that do not want to end, or to be found; each holds the app's port or stays beside it.
pub const STUBBORN: [(&str, &str); 6] = [
    ("ignores TERM and stops itself", "trap '' TERM INT HUP; (sleep 0.3; kill -STOP $$) & exec ./app"),
    ("a child that stops itself", "sh -c 'trap \"\" TERM; kill -STOP $$; sleep 1000' & exec ./app"),
    ("a daemon in a session of its own", "(setsid sh -c 'sleep 1000' >/dev/null 2>&1 &) ; exec ./app"),
    (
        "a daemon with another name, place and environment",
        "(cd / && setsid env -i PATH=$PATH sh -c 'exec sleep 1000' </dev/null >/dev/null 2>&1 &); exec ./app",
    ),
    (
        "a daemon of a daemon",
        "(setsid sh -c '(setsid sh -c \"trap \\\"\\\" TERM; sleep 1000\" &) ; exit' &); exec ./app",
    ),
    ("a child that serves and a parent that waits", "./app & wait; trap '' TERM; sleep 1000"),
];

#[test]
fn a_program_that_does_not_want_to_end_ends_with_its_instance() {
    for (what, command) in STUBBORN {
        let run = format!("[run]\ncommand = '''{command}'''\nstop_timeout = \"1s\"\n");
        let site = Site::new(Sample::Static, &format!("{BRISK}{run}[health]\npath = \"\"\ntimeout = \"5s\"\n"));
        site.run("update-instance", &["A"]).ok();
        site.run("start-instance", &["A"]).ok();
        let below = || descendants(site.supervise("A"));
        let is_stopped =
            |pid: &i32| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") T "));
        eventually(what, || !what.contains("stops itself") || below().iter().any(is_stopped));
        let before = below();
        let began = Instant::now();
        site.run("stop-instance", &["A", "--force"]).ok();
        assert!(began.elapsed() < Duration::from_secs(20), "{what}: {:?}", began.elapsed());
        let alive: Vec<i32> =
            before.into_iter().filter(|pid| Process::with_pid(Pid::from_raw(*pid)).is_some()).collect();
        assert_eq!(alive, Vec::<i32>::new(), "{what}");
    }
}

/// All processes below one, as the kernel tells it.
fn descendants(pid: i32) -> Vec<i32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children: Vec<i32> = children.split_whitespace().map(|child| child.parse().unwrap()).collect();
    let below: Vec<i32> = children.iter().flat_map(|child| descendants(*child)).collect();
    [children, below].concat()
}

#[test]
fn what_outlives_a_killed_supervise_is_ended_or_named_by_the_next_start() {
    let hides = |what: &str| what == "a daemon with another name, place and environment";
    for (what, command) in STUBBORN.into_iter().skip(1).filter(|(what, _)| !hides(what)) {
        outlives(what, command);
    }
}

/// Asserts that of such a program nothing is left once its supervise was killed and it is started again, or that the start
/// names what is.
pub fn outlives(what: &str, command: &str) {
    let run = format!("[run]\ncommand = '''{command}'''\nstop_timeout = \"1s\"\n");
    let site = Site::new(Sample::Static, &format!("{BRISK}{run}[health]\npath = \"\"\ntimeout = \"5s\"\n"));
    site.run("deploy", &[]).ok();
    let (leash, supervise) = (site.leash("A"), site.supervise("A"));
    let before = descendants(leash);
    kill(supervise, Signal::SIGSTOP);
    kill(leash, Signal::SIGKILL);
    kill(supervise, Signal::SIGKILL);
    eventually("supervise is gone", || Process::with_pid(Pid::from_raw(supervise)).is_none());
    let started = site.run("start-instance", &["A"]);
    let alive: Vec<i32> = before.into_iter().filter(|pid| Process::with_pid(Pid::from_raw(*pid)).is_some()).collect();
    let named = alive.iter().all(|pid| started.stderr.contains(&format!("(pid {pid})")));
    alive.iter().for_each(|pid| kill(*pid, Signal::SIGKILL));
    assert!(started.code == 0 && alive.is_empty() || started.code == 3 && named, "{what}: {alive:?}: {started:?}");
}
