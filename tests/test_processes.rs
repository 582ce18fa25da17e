//! Promise 6: an app gets the same environment, whoever calls, and nothing else of the caller's. And what `supervise` owes
//! the app: the whole tree kept and ended, the log rotated without losing a byte, next to no memory.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::site::{BRISK, Ran, Sample, Site, eventually};

/// A file of /proc about a process.
fn proc(pid: i32, name: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap()
}

/// A line of /proc/PID/status.
fn status(pid: i32, name: &str) -> String {
    let text = proc(pid, "status");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).trim().to_owned()
}

fn names(variables: &str) -> BTreeSet<String> {
    variables.lines().filter_map(|line| Some(line.split_once('=')?.0.to_owned())).collect()
}

/// What an app of this site must find in its environment, in the form that the sample shows it.
fn expected_environment(site: &Site, instance: &str, port: u16) -> String {
    let home = site.home.display();
    let release = fs::read_link(site.home.join("instances").join(instance)).unwrap();
    let release = release.file_name().unwrap().to_str().unwrap();
    let account = Command::new("sh").args(["-c", "getent passwd $(id -u)"]).output().unwrap().stdout;
    let account = String::from_utf8(account).unwrap();
    let fields: Vec<&str> = account.trim().split(':').collect();
    let (user, user_home) = (fields[0], fields[5]);
    let zone = fs::read_link("/etc/localtime").unwrap_or_default();
    let zone = zone.to_str().unwrap().split_once("zoneinfo/").map_or("UTC", |(_, zone)| zone).to_owned();
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    // Set by the shell that runs the command.
    let directory = format!("{home}/releases/{release}");
    let mut lines = vec![
        format!("HOME={user_home}"),
        "HOST=127.0.0.1".to_owned(),
        format!("INSTANCE={instance}"),
        "LANG=C.UTF-8".to_owned(),
        format!("LOGNAME={user}"),
        format!("PATH={path}"),
        format!("PORT={port}"),
        "PROCESS_INDEX=0".to_owned(),
        format!("PWD={directory}"),
        format!("RELEASE={release}"),
        "SECRET=kept in the env file".to_owned(),
        format!("TZ={zone}"),
        format!("USER={user}"),
    ];
    // A shell that is bash sets these two more.
    let shell = Command::new("sh").args(["-c", "exec env"]).env_clear().output().unwrap().stdout;
    let shell = names(&String::from_utf8(shell).unwrap());
    lines.extend(
        [("SHLVL", "SHLVL=0"), ("_", "_=./app")]
            .iter()
            .filter(|(n, _)| shell.contains(*n))
            .map(|(_, l)| (*l).to_owned()),
    );
    lines.sort();
    lines.join("\n") + "\n"
}

#[test]
fn an_app_gets_the_same_environment_and_nothing_else_whoever_calls() {
    let site = Site::new(Sample::Static, BRISK);
    site.write_env("# comment\nSECRET=\"kept in the env file\"\n");
    site.run("deploy", &[]).ok();
    let start = site.home.join("bin/start-instance");
    let start = start.to_str().unwrap();
    let callers = [
        format!("cd / && exec {start}"),
        format!("umask 077; exec env -i {start}"),
        format!("trap '' HUP INT TERM CHLD PIPE USR1 40; exec {start}"),
        format!("exec 7<\"$HOME/.shop/config.toml\" 8>\"$HOME/marker\" 9>&8; exec {start}"),
        format!("export FOO=bar LD_LIBRARY_PATH=/x BASH_ENV=/x NODE_OPTIONS=--x PORT=1 INSTANCE=Z; exec {start}"),
        format!("RUNNER_TRACKING_ID=github_1 HOME=/nowhere USER=mallory TZ=Mars LANG=xx PATH=/bin exec {start}"),
        format!("exec nohup {start}"),
        format!("exec setsid {start}"),
        format!("exec nice -n 0 env -C / {start}"),
    ];
    for caller in &callers {
        site.run("stop-instance", &["--force"]).ok();
        site.shell(caller).ok();
        assert_eq!(site.get("/env").1, expected_environment(&site, "A", site.ports.first), "{caller}");
        let (app, supervise) = (site.pid("A"), site.supervise("A"));
        is_on_its_own(&site, app, supervise, caller);
    }
}

#[test]
fn a_caller_that_ignores_the_end_of_its_children_gets_its_deploy() {
    let site = Site::new(Sample::Static, BRISK);
    let ignores = "import os, signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execvp('deploy', ['deploy'])";
    site.shell(&format!("timeout 60 python3 -c \"{ignores}\"")).ok();
    assert_eq!(site.get("/").1, "v1\n");
}

/// Checks what a process has besides its environment.
fn is_on_its_own(site: &Site, app: i32, supervise: i32, caller: &str) {
    let release = fs::canonicalize(site.home.join("instances/A")).unwrap();
    assert_eq!(fs::read_link(format!("/proc/{app}/cwd")).unwrap(), release, "{caller}");
    assert_eq!(fs::read_link(format!("/proc/{supervise}/cwd")).unwrap(), PathBuf::from("/"), "{caller}");
    for pid in [app, supervise] {
        let stat = proc(pid, "stat");
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        let (session, terminal) = (fields[3], fields[4]);
        assert_eq!((session, terminal), (pid.to_string().as_str(), "0"), "{caller}");
    }
    assert_eq!(status(app, "Umask"), "0022", "{caller}");
    assert_eq!(status(app, "SigBlk"), "0000000000000000", "{caller}");
    // Rust's runtime ignores SIGPIPE, the 13th, in every program; the 32nd and 33rd are the C library's own, which its
    // posix_spawn(3) ignores in every child.
    let ignored = u64::from_str_radix(&status(app, "SigIgn"), 16).unwrap() & !(1 << 31 | 1 << 32);
    assert_eq!(format!("{ignored:#x}"), format!("{:#x}", 1 << 12), "{caller}");
    for pid in [app, supervise] {
        for descriptor in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
            let Ok(open) = fs::read_link(descriptor.path()) else { continue };
            let open = open.to_str().unwrap().to_owned();
            let own =
                ["/dev/null", "pipe:", "socket:", "anon_inode:[signalfd]"].iter().any(|own| open.starts_with(own));
            let log = open.starts_with(site.home.join("logs").to_str().unwrap());
            let lock = open == site.home.join("run/A.lock").to_str().unwrap();
            assert!(own || (pid == supervise && (log || lock)), "{caller}: {pid} has {open} open");
        }
    }
    let app_pipe = fs::read_link(format!("/proc/{app}/fd/1")).unwrap();
    assert_eq!(pipes(app), BTreeSet::from([app_pipe.clone()]), "{caller}");
    // For a moment, now and then, it has another one on which it hears whether the app is healthy.
    let only = BTreeSet::from([app_pipe]);
    eventually("supervise has the app's pipe alone", || pipes(supervise) == only);
}

/// The pipes that a process has open.
fn pipes(pid: i32) -> BTreeSet<PathBuf> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let open = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    open.filter(|open| open.to_str().is_some_and(|open| open.starts_with("pipe:"))).collect()
}

#[test]
fn a_deploy_lets_go_of_its_callers_pipes_though_the_app_runs_on() {
    for sample in [Sample::Static, Sample::Node] {
        let site = Site::new(sample, BRISK);
        // As SSM's agent runs a command.
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let script = format!("env -i {path} {}", site.home.join("bin/deploy").display());
        let mut command = site.command("/bin/sh".as_ref());
        command.args(["-c", &script]).current_dir("/usr/bin").env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (done, ended) = mpsc::channel();
        // Ends once every copy of both pipes is closed.
        thread::spawn(move || done.send(command.output().unwrap()));
        let output = ended.recv_timeout(Duration::from_secs(60)).expect("the pipes are closed");
        Ran::of(&output).ok();
        assert!(output.stderr.len() < 2000);
        assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
    }
}

#[test]
fn a_variable_that_was_removed_from_the_env_file_is_gone_after_the_next_deploy() {
    let site = Site::new(Sample::Static, BRISK);
    site.write_env("SECRET=1\nEXTRA=2\n");
    site.run("deploy", &[]).ok();
    let before = names(&site.get("/env").1);
    assert!(before.contains("SECRET") && before.contains("EXTRA"));
    site.write_env("export SECRET='3'\n");
    site.commit("v2", "");
    site.run("deploy", &[]).ok();
    let after = site.get("/env").1;
    assert!(after.contains("\nSECRET=3\n") && !names(&after).contains("EXTRA"), "{after}");
    // Nor has anything else of the environment a copy of it.
    assert!(!proc(site.supervise("B"), "environ").contains("SECRET"));
}

#[test]
fn a_log_is_rotated_without_losing_a_byte() {
    const LINES: usize = 420_000;
    // 64 bytes a line, and as it stands in the log, behind the time and the process.
    const LOGGED: usize = 64 + "2026-11-21T09:30:00.000Z 0 ".len();
    // 38 MB in all, before the app listens.
    let write = format!("awk 'BEGIN {{ for (i = 1; i <= {LINES}; i++) printf \\\"%063d\\\\n\\\", i }}'; exec ./app");
    let site = Site::new(Sample::Static, &format!("{BRISK}[run]\ncommand = \"{write}\"\n"));
    site.run("deploy", &[]).ok();
    let numbers = || -> Vec<usize> {
        let logs = (1..=9).rev().map(|number| format!("A.log.{number}")).chain(["A.log".to_owned()]);
        let texts = logs.filter_map(|log| fs::read_to_string(site.home.join("logs").join(log)).ok());
        let text: String = texts.collect();
        text.lines().filter_map(|line| Some(line.split_once("Z 0 ")?.1.parse().unwrap())).collect()
    };
    let files = || -> Vec<u64> {
        let entries = fs::read_dir(site.home.join("logs")).unwrap().flatten();
        let of_instance = entries.filter(|entry| entry.file_name().to_str().unwrap().starts_with("A.log"));
        of_instance.map(|entry| entry.metadata().unwrap().len()).collect()
    };
    eventually("all lines are in the log", || numbers().len() >= LINES);
    assert!(numbers().into_iter().eq(1..=LINES), "a line is lost, doubled or torn");
    assert_eq!(files().len(), LINES * LOGGED / 10_000_000 + 1);
    // What it keeps for itself. How much of the program the kernel brings in with a page of it is the kernel's business.
    let anonymous = status(site.supervise("A"), "RssAnon");
    assert!(kilobytes(&anonymous) < 1024, "after copying 38 MB: {anonymous}");

    // Twice more: what is too old goes, and nothing else.
    for _ in 0..2 {
        site.run("stop-instance", &["--force"]).ok();
        site.run("start-instance", &[]).ok();
    }
    eventually("all lines are in the log", || numbers().ends_with(&[LINES - 1, LINES]));
    let kept = numbers();
    let begun = kept[0];
    assert!(kept.len() * LOGGED > 50_000_000, "{} lines kept", kept.len());
    let follows = |pair: &[usize]| pair[1] == pair[0] % LINES + 1;
    assert!(kept.windows(2).all(follows), "a line is lost, doubled or torn after {begun}");
    let sizes = files();
    assert_eq!(sizes.len(), 6, "{sizes:?}");
    assert!(sizes.iter().all(|size| *size <= 10_200_000), "{sizes:?}");
}

fn kilobytes(value: &str) -> u64 {
    value.trim_end_matches(" kB").parse().unwrap()
}
