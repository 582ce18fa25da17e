//! Apps that do what no app should: flood their log, run out of memory, listen elsewhere, answer without end.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use cutover::process::{self, Pid, Process};
use nix::sys::signal::Signal;

use crate::not_tested::not_tested;
use crate::site::{BRISK, Sample, Site, eventually, get, none_lost};

/// A site whose first release is the sample app with this command in front of it, in the shell that becomes the app.
fn beside(command: &str) -> Site {
    let run = format!("[run]\ncommand = \"\"\"{command} exec ./app\"\"\"\nstop_timeout = \"2s\"\n");
    let site = Site::new(Sample::Static, &format!("{run}{BRISK}"));
    site.run("deploy", &[]).ok();
    site
}

/// A site with a server of its own in Python instead of the sample app.
fn served_by(script: &str, configuration: &str) -> Site {
    let run = "[run]\ncommand = \"exec python3 odd.py\"\nstop_timeout = \"2s\"\n";
    let site = Site::new(Sample::Static, &format!("{run}{configuration}{BRISK}"));
    fs::write(site.source().join("odd.py"), script).unwrap();
    site.commit("v1", "");
    site
}

/// What a process keeps for itself. How much of its program's file the kernel maps with a page of it is the kernel's business.
fn anonymous_kilobytes(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    value.trim().trim_end_matches(" kB").parse().unwrap()
}

fn bytes_in(directory: PathBuf) -> u64 {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().metadata().map_or(0, |meta| meta.len())).sum()
}

#[test]
fn a_flood_of_output_fills_neither_disk_nor_memory_and_the_app_stays_in_hand() {
    let site = beside("yes 'a line that says nothing, over and over' &");
    let load = site.load();
    eventually("the log was rotated out more than once", || site.home.join("logs/A.log.5").exists());
    let supervise = site.supervise("A");
    assert!(bytes_in(site.home.join("logs")) < 66_000_000);
    // Beside a moment in which it asks whether the app is healthy.
    eventually("it holds little", || anonymous_kilobytes(supervise) < 1024);
    assert_eq!(site.status()["instances"][0]["healthy"], true);
    assert_eq!(site.run("logs", &["-n", "3"]).ok().lines().count(), 3);
    none_lost(&load.stop());
    site.run("stop-instance", &["--force"]).is(0, "", "");
}

#[test]
fn binary_output_and_lines_without_end_are_kept_and_never_reach_a_terminal_raw() {
    for output in ["cat /dev/urandom &", "tr '\\\\0' x </dev/zero &"] {
        let site = beside(output);
        eventually("there is a log", || site.home.join("logs/A.log.1").exists());
        assert_eq!(site.status()["instances"][0]["healthy"], true);
        site.run("logs", &["-n", "3"]).ok();
        site.run("stop-instance", &["--force"]).is(0, "", "");
        // What an error quotes of it is one short line of plain characters.
        site.write_config(&format!(
            "[run]\ncommand = \"timeout 0.2 {}; exit 3\"\n{BRISK}",
            output.trim_end_matches('&').replace('\\', "\\\\")
        ));
        site.install(&[]).ok();
        site.run("update-instance", &["A", "--force"]).ok();
        let ran = site.run("start-instance", &["A"]);
        assert_eq!(ran.code, 3, "{ran:?}");
        assert!(ran.stderr.contains("cannot start A: it died: exit status 3"), "{ran:?}");
        assert!(ran.stderr.len() < 2000 && !ran.stderr.trim_end().contains(char::is_control), "{ran:?}");
    }
}

/// A memory cgroup of the test's own; None: that needs root and cgroups that can be written to.
struct Cgroup(PathBuf);

impl Cgroup {
    fn limited_to(megabytes: u64) -> Option<Cgroup> {
        // The first version has a hierarchy for memory alone; the second has one for all, which may have to be told.
        let (first, second) = (Path::new("/sys/fs/cgroup/memory"), Path::new("/sys/fs/cgroup"));
        let (hierarchy, limit) = match first.is_dir() {
            true => (first, "memory.limit_in_bytes"),
            false => (second, "memory.max"),
        };
        if hierarchy == second {
            let _ = fs::write(second.join("cgroup.subtree_control"), "+memory");
        }
        let name = format!("cutover-test-{}-{megabytes}", std::process::id());
        let place = hierarchy.join(name);
        fs::create_dir(&place).ok()?;
        let cgroup = Cgroup(place);
        fs::write(cgroup.0.join(limit), (megabytes << 20).to_string()).ok()?;
        Some(cgroup)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

const EATS_MEMORY: &str = r#"
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/eat":
            eaten = []
            while True:
                eaten.append(b"x" * 10_000_000)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"fed\n")
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;

#[test]
fn an_app_that_the_kernel_kills_for_its_memory_is_stood_in_for_and_back() {
    let Some(cgroup) = Cgroup::limited_to(100) else {
        return not_tested("an app that runs out of memory", "there is no memory cgroup to limit it in");
    };
    let site = served_by(EATS_MEMORY, "").with_standby();
    // Only the enabled instance is limited.
    for pid in [site.supervise("B"), site.leash("B"), site.pid("B")] {
        fs::write(cgroup.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }
    let eater = site.pid("B");
    assert_eq!(get(site.ports.second, "/eat").0, 0, "it died before it had an answer");
    assert_eq!(site.get("/"), (200, "fed\n".to_owned()));
    eventually("it is back", || {
        let instance = site.status()["instances"][1].clone();
        instance["healthy"] == true && instance["pid"] != eater
    });
    let instance = site.status()["instances"][1].clone();
    assert_eq!((&instance["restarts"], &instance["last_exit"]), (&1.into(), &"killed by SIGKILL".into()));
    drop(site);
}

/// Has a server hold 150 MB.
const HOLDS: &str = "held = b'x' * 150_000_000\n";

/// Eight processes, each smaller than that server, which eat memory until one of them is killed.
const BUILD: &str = r#"
import os, time
children = []
for _ in range(8):
    child = os.fork()
    if child == 0:
        held = [b"x" * 1_000_000 for _ in range(60)]
        time.sleep(60)
    children.append(child)
os.wait()
for child in children:
    try:
        os.kill(child, 9)
    except ProcessLookupError:
        pass
raise SystemExit("a worker of the build died")
"#;

#[test]
fn a_build_that_runs_out_of_memory_is_killed_before_the_app_and_the_message_says_memory() {
    let Some(cgroup) = Cgroup::limited_to(400) else {
        return not_tested("a build that runs out of memory", "there is no memory cgroup to limit it in");
    };
    let site =
        served_by(&format!("{HOLDS}{EATS_MEMORY}"), "[build]\ncommand = \"[ ! -e build.py ] || python3 build.py\"\n");
    site.run("deploy", &[]).ok();
    for pid in [site.supervise("A"), site.leash("A"), site.pid("A")] {
        fs::write(cgroup.0.join("cgroup.procs"), pid.to_string()).unwrap();
    }
    let serving = site.pid("A");
    let limited = |tool: &str| {
        let line = format!("echo $$ >{}/cgroup.procs; exec {}/bin/{tool}", cgroup.0.display(), site.home.display());
        crate::site::Ran::of(&site.command(Path::new("sh")).args(["-c", &line]).output().unwrap())
    };
    let told = ", because memory ran out and the kernel killed a process of it: ";
    let builds = [
        // A worker of it, so that the build itself fails in its own words.
        (BUILD, "exit status 1", "a worker of the build died"),
        // Itself, at once.
        ("print('begun', flush=True)\nheld = [b'x' * 1_000_000 for _ in range(600)]\n", "exit status 137", "begun"),
        // It outlives the loss of a child, and fails for another reason later.
        (
            "import subprocess\nsubprocess.run(['python3', '-c', 'held = [b\"x\" * 1_000_000 for _ in range(600)]'])\nraise SystemExit('no result')\n",
            "exit status 1",
            "no result",
        ),
    ];
    for (script, status, last) in builds {
        fs::write(site.source().join("build.py"), script).unwrap();
        site.commit("v2", "");
        let ran = limited("deploy");
        ran.fails(3, &["deploy: cannot build ", &format!("{status}{told}"), last]);
        let instance = site.status()["instances"][0].clone();
        assert_eq!((&instance["pid"], &instance["restarts"]), (&serving.into(), &0.into()), "the app was killed");
    }
    // One that fails by itself does not blame the memory, nor does one that outlives the loss.
    fs::write(site.source().join("build.py"), "raise SystemExit('a typing error')\n").unwrap();
    site.commit("v2", "");
    let ran = limited("deploy");
    ran.fails(3, &[": exit status 1: ", "a typing error"]);
    assert!(!ran.stderr.contains("memory"), "{ran:?}");
    // The same for a hook that builds.
    fs::remove_file(site.source().join("build.py")).unwrap();
    site.commit("v2", "");
    let hook = site.home.join("hooks/after-build");
    fs::write(&hook, "#!/usr/bin/python3\nheld = [b'x' * 1_000_000 for _ in range(600)]\n").unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    limited("deploy").fails(3, &["hooks/after-build: killed by SIGKILL, because memory ran out"]);
    assert_eq!(site.pid("A"), serving);
    fs::remove_file(&hook).unwrap();
    limited("deploy").ok();
    assert_eq!(site.get("/"), (200, "fed\n".to_owned()));
    drop(site);
}

#[test]
fn only_what_makes_a_release_is_killed_before_others() {
    let tell = |what: &str| format!("cat /proc/self/oom_score_adj >>scores-{what}");
    let site = Site::new(
        Sample::Static,
        &format!("[build]\ncommand = \"{}\"\n[run]\ncommand = \"{}; exec ./app\"\n{BRISK}", tell("build"), tell("run")),
    );
    for name in ["before-build", "after-build", "before-connect", "after-deploy"] {
        let hook = site.home.join("hooks").join(name);
        fs::write(&hook, format!("#!/bin/sh\n{}\n", tell(name))).unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    }
    // As GitHub's runner starts it.
    let line = format!("echo 500 >/proc/self/oom_score_adj; exec {}/bin/deploy", site.home.display());
    crate::site::Ran::of(&site.command(Path::new("sh")).args(["-c", &line]).output().unwrap()).ok();
    let score = |what: &str| fs::read_to_string(site.home.join("instances/A").join(format!("scores-{what}"))).unwrap();
    let expected = [
        ("before-build", 800),
        ("build", 800),
        ("after-build", 800),
        ("before-connect", 0),
        ("run", 0),
        ("after-deploy", 0),
    ];
    assert_eq!(
        expected.map(|(what, _)| (what, score(what))),
        expected.map(|(what, score)| (what, format!("{score}\n")))
    );
}

/// Has a server hold memory that takes the kernel a while to take back: in small pages.
const HOARDS: &str = r#"
import mmap
hoard = mmap.mmap(-1, 400_000_000)
hoard.madvise(mmap.MADV_NOHUGEPAGE)
for page in range(0, len(hoard), mmap.PAGESIZE):
    hoard[page] = 1
"#;

#[test]
fn an_app_that_takes_long_to_die_is_waited_for_when_its_supervise_was_killed() {
    let site = served_by(&format!("{HOARDS}{EATS_MEMORY}"), "");
    site.run("deploy", &[]).ok();
    let mut seen_dying = 0;
    for _ in 0..5 {
        let pid = Pid::from_raw(site.pid("A"));
        let process = Process::with_pid(pid).unwrap();
        Process::with_pid(Pid::from_raw(site.supervise("A"))).unwrap().signal(Signal::SIGKILL).unwrap();
        // Its memory goes before its sockets do, and with it its environment, by which it is known.
        eventually("it is dying", || process::environment(pid).is_none_or(|left| left.is_empty()));
        seen_dying += u32::from(process.is_alive());
        site.run("start-instance", &["A"]).is(0, "", "");
        assert_ne!(site.pid("A"), pid.raw());
    }
    assert!(seen_dying > 0, "it was always gone at once: this shows nothing");
}

#[test]
fn an_app_on_the_wrong_port_is_a_timeout_that_says_that_nobody_listens() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let run = format!("[run]\ncommand = \"PORT={elsewhere} exec ./app\"\n[health]\ntimeout = \"1s\"\n{BRISK}");
    let site = Site::new(Sample::Static, &run);
    let before = site.processes();
    site.run("deploy", &[]).fails(124, &["deploy: cannot start A: not healthy within 1", "connection refused"]);
    assert_eq!(site.processes(), before);
}

#[test]
fn an_app_may_listen_on_all_addresses() {
    let site = served_by(&EATS_MEMORY.replace("127.0.0.1", "0.0.0.0"), "");
    site.run("deploy", &[]).ok();
    assert_eq!(site.get("/"), (200, "fed\n".to_owned()));
    let command = fs::read_to_string(format!("/proc/{}/cmdline", site.pid("A"))).unwrap();
    assert!(command.starts_with("python3\0"), "{command:?}");
    site.run("stop-instance", &["--force"]).is(0, "", "");
}

#[test]
fn an_app_that_leaks_descriptors_is_found_and_stopped_all_the_same() {
    let leak = "import os\nleaked = [os.open('/dev/null', os.O_RDONLY) for _ in range(900)]\n";
    let site = served_by(&format!("{leak}{EATS_MEMORY}"), "");
    site.run("deploy", &[]).ok();
    let descriptors = fs::read_dir(format!("/proc/{}/fd", site.pid("A"))).unwrap().count();
    assert!(descriptors > 900, "{descriptors}");
    site.run("stop-instance", &["--force"]).is(0, "", "");
}

const ANSWERS_ODDLY: &str = r#"
import os, socket, time
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("127.0.0.1", int(os.environ["PORT"])))
server.listen()
while True:
    client, _ = server.accept()
    client.recv(10_000)
    try:
        ANSWER
    except OSError:
        pass
    client.close()
"#;

#[test]
fn a_health_check_answered_with_ten_megabytes_is_an_answer() {
    let answer = r#"client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n" + b"y" * 10_000_000)"#;
    let site = served_by(&ANSWERS_ODDLY.replace("ANSWER", answer), "");
    site.run("deploy", &[]).ok();
    assert_eq!(site.status()["instances"][0]["healthy"], true);
}

#[test]
fn a_health_check_answered_with_a_byte_a_second_is_given_up() {
    for answer in [
        // In the head, and in the body.
        r#"[(client.sendall(bytes([byte])), time.sleep(1)) for byte in b"HTTP/1.1 200 OK and so on and on"]"#,
        r#"(client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n"), [(client.sendall(b"y"), time.sleep(1)) for _ in range(60)])"#,
    ] {
        let script = ANSWERS_ODDLY.replace("ANSWER", answer);
        let site = served_by(&script, "[health]\ntimeout = \"2s\"\n");
        site.run("deploy", &[]).fails(124, &["deploy: cannot start A: not healthy within ", "answer within "]);
    }
}

#[test]
fn a_program_that_is_no_app_at_all_is_an_error_that_says_so() {
    let site = Site::new(Sample::Static, &format!("[run]\ncommand = \"./missing --now\"\n{BRISK}"));
    site.run("deploy", &[]).fails(3, &["deploy: cannot start A: it died: exit status 127: ", "missing"]);
    fs::set_permissions(site.source().join("app"), fs::Permissions::from_mode(0o644)).unwrap();
    site.write_config(&format!("[run]\ncommand = \"./app\"\n{BRISK}"));
    site.install(&[]).ok();
    site.commit("v1", "");
    site.run("deploy", &[]).fails(3, &["deploy: cannot start A: it died: exit status 126: ", "ermission denied"]);
}
