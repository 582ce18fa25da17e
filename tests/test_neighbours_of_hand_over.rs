//! `supervise --hand-over`, attacked: killed, called at wrong times, with nobody to hand over to, and with marks that can
//! neither be laid nor removed. Its unit calls it before it ends the instance, and goes on whatever became of it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::load::{Load, Plan};
use crate::ran::Ran;
use crate::site::{BRISK, Sample, Site, chmod, eventually, none_lost};
use crate::test_max_memory::{LIMIT, config, have_replaced};
use crate::test_several::pids;

/// Its health check fails while a file in the home, named after the version, says so.
const APP: &str = r#"
import http.server, os
VERSION = open("VERSION").read()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        is_ill = self.path == "/health" and os.path.exists("../../ill-" + VERSION.strip())
        self.send_response(503 if is_ill else 200)
        self.end_headers()
        self.wfile.write(VERSION.encode())
    def log_message(self, *arguments):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;

/// v2 serves from B, v1 is its standby A.
fn site() -> Site {
    Site::new(Sample::Static, BRISK).with_standby()
}

fn frail() -> Site {
    let run = "[run]\ncommand = \"exec python3 app.py\"\nstop_timeout = \"2s\"\n[health]\npath = \"/health\"\ntimeout = \"5s\"\n";
    let site = Site::unlaid(Sample::Static, &format!("{BRISK}{run}"));
    fs::write(site.source().join("app.py"), APP).unwrap();
    site.commit("v1", "");
    site.install(&[]).ok();
    site.with_standby()
}

/// As the unit calls it.
fn call(site: &Site, instance: &str) -> Command {
    let mut command = site.tool("supervise", &["--hand-over", instance]);
    command.env("MAINPID", "1").stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn hand_over(site: &Site, instance: &str) -> Ran {
    Ran::run(&mut call(site, instance))
}

fn mark(site: &Site, instance: &str) -> PathBuf {
    site.home.join("state").join(instance).join("0.processes")
}

fn is_marked(site: &Site, instance: &str) -> bool {
    fs::symlink_metadata(mark(site, instance)).is_ok()
}

/// What systemd does next.
fn end(site: &Site, instance: &str) {
    site.shell(&format!("kill {}", site.supervise(instance))).ok();
    eventually("it has ended", || site.run("pid", &[instance]).code == 1);
}

fn serves(site: &Site, version: &str) {
    for _ in 0..8 {
        assert_eq!(site.get("/"), (200, format!("{version}\n")));
    }
}

/// Starts an instance that is away; it serves again a moment after it is healthy.
fn start(site: &Site, instance: &str) {
    site.run("start-instance", &[instance]).ok();
    eventually("it is back", || !is_marked(site, instance));
}

/// Begins a hand-over and kills it as soon as it has laid its mark.
fn killed_behind_its_mark(site: &Site, instance: &str) {
    // A request that takes its time: the hand-over waits for its end.
    let held = begin(site, "/slow?ms=3000");
    let mut called = call(site, instance).spawn().unwrap();
    eventually("the mark is laid", || is_marked(site, instance));
    called.kill().unwrap();
    called.wait().unwrap();
    drop(held);
}

/// A request that is not waited for.
struct Begun(Child);

impl Drop for Begun {
    fn drop(&mut self) {
        let _ = self.0.wait();
    }
}

fn begin(site: &Site, path: &str) -> Begun {
    let url = format!("http://{}{path}", site.address());
    Begun(Command::new("curl").args(["--silent", "--output", "/dev/null", &url]).spawn().unwrap())
}

#[test]
fn an_instance_that_is_ended_after_it_and_started_again_loses_nothing() {
    let site = site();
    let load = site.load();
    for _ in 0..3 {
        hand_over(&site, "B").is(0, "", "");
        serves(&site, "v1");
        end(&site, "B");
        start(&site, "B");
        serves(&site, "v2");
        assert_eq!(site.run("enabled-instance", &[]).ok(), "B\n");
    }
    none_lost(&load.stop());
}

#[test]
fn one_that_is_killed_behind_its_mark_costs_nothing_and_the_next_start_ends_it() {
    let site = site();
    let load = site.load();
    let remark = "\nB was about to stop, so the other instance answers in its place, until B is healthy after its next start; \
                  connect-to-nginx B ends it at once\n";
    assert!(!site.run("status", &[]).stdout.contains(remark));
    killed_behind_its_mark(&site, "B");
    assert!(site.run("status", &[]).stdout.contains(remark));
    serves(&site, "v1");
    end(&site, "B");
    serves(&site, "v1");
    site.run("bootup", &[]).ok();
    eventually("it is back", || !is_marked(&site, "B"));
    serves(&site, "v2");
    // Begun anew, it ends as if nothing had been.
    killed_behind_its_mark(&site, "B");
    hand_over(&site, "B").is(0, "", "");
    end(&site, "B");
    none_lost(&load.stop());
}

#[test]
fn the_instance_itself_answers_for_the_other_one_for_as_long_as_it_lives() {
    let site = site();
    hand_over(&site, "B").ok();
    serves(&site, "v1");
    site.shell(&format!("kill -9 {}", site.supervise("A"))).ok();
    eventually("A is down", || site.run("pid", &["A"]).code == 1);
    serves(&site, "v2");
}

#[test]
fn a_deploy_beside_a_mark_that_was_left_behind_loses_nothing() {
    let site = site();
    // What nginx sends only once.
    let load = Load::start(Plan { post_share: 100, pace: None, ..Plan::on(site.address()) });
    for version in ["v3", "v4", "v5"] {
        killed_behind_its_mark(&site, site.run("enabled-instance", &[]).ok().trim());
        site.commit(version, "");
        site.run("deploy", &[]).ok();
        serves(&site, version);
        assert!(!is_marked(&site, "A") && !is_marked(&site, "B"));
    }
    none_lost(&load.stop());
}

#[test]
fn a_cutover_and_a_way_back_mean_what_they_say_beside_a_mark() {
    let site = site();
    hand_over(&site, "B").ok();
    let load = site.load();
    for (tool, arguments, version) in [
        // It is enabled, and away.
        ("connect-to-nginx", ["B"].as_slice(), "v2"),
        ("connect-to-nginx", &["A"], "v1"),
        ("rollback", &[], "v2"),
        ("rollback", &[], "v1"),
    ] {
        site.run(tool, arguments).ok();
        serves(&site, version);
    }
    none_lost(&load.stop());
    // Also where the one that is enabled next was away already.
    fs::write(mark(&site, "B"), "").unwrap();
    site.run("connect-to-nginx", &["B"]).ok();
    serves(&site, "v2");
}

#[test]
fn nothing_is_handed_to_one_that_is_ill_or_down() {
    let site = frail();
    fs::write(site.home.join("ill-v1"), "").unwrap();
    hand_over(&site, "B").is(0, "", "");
    assert!(!is_marked(&site, "B"));
    serves(&site, "v2");
    fs::remove_file(site.home.join("ill-v1")).unwrap();
    // It was ill for a moment.
    hand_over(&site, "B").is(0, "", "");
    serves(&site, "v1");
    site.run("connect-to-nginx", &["B"]).ok();
    site.run("stop-instance", &["A"]).ok();
    hand_over(&site, "B").is(0, "", "");
    assert!(!is_marked(&site, "B"));
    serves(&site, "v2");
}

#[test]
fn nothing_is_handed_over_by_the_standby_or_when_supervise_has_ended_by_itself() {
    let site = site();
    hand_over(&site, "A").is(0, "", "");
    call(&site, "B").env_remove("MAINPID").status().unwrap();
    assert!(!is_marked(&site, "A") && !is_marked(&site, "B"));
    serves(&site, "v2");
    hand_over(&site, "C").fails(2, &["C"]);
    // With nothing enabled either.
    let bare = Site::new(Sample::Static, BRISK);
    hand_over(&bare, "A").is(0, "", "");
    assert!(!is_marked(&bare, "A"));
}

#[test]
fn two_at_once_and_one_for_an_instance_that_does_not_run_do_what_one_does() {
    let site = site();
    let load = site.load();
    let both = [call(&site, "B").spawn().unwrap(), call(&site, "B").spawn().unwrap()];
    for called in both {
        Ran::of(&called.wait_with_output().unwrap()).is(0, "", "");
    }
    end(&site, "B");
    hand_over(&site, "B").is(0, "", "");
    hand_over(&site, "A").is(0, "", "");
    assert!(!is_marked(&site, "A"), "nobody would answer in its place");
    serves(&site, "v1");
    start(&site, "B");
    serves(&site, "v2");
    none_lost(&load.stop());
}

#[test]
fn a_systemctl_that_fails_or_is_not_there_keeps_nobody_from_handing_over() {
    let site = site();
    let fakes = site.directory.path().join("fakes");
    fs::create_dir(&fakes).unwrap();
    for script in
        ["exit 1", "kill -9 $$", "echo 'Failed to connect to bus' >&2; exit 1", "echo nonsense", "yes | head -c 100000"]
    {
        fs::write(fakes.join("systemctl"), format!("#!/bin/sh\n{script}\n")).unwrap();
        chmod(&fakes.join("systemctl"), 0o755);
        let path = format!("{}:/usr/bin:/bin", fakes.display());
        Ran::run(call(&site, "B").env("PATH", path)).is(0, "", "");
        serves(&site, "v1");
        site.run("connect-to-nginx", &["B"]).ok();
        serves(&site, "v2");
    }
}

#[test]
fn one_that_is_about_to_be_restarted_too_is_waited_for_until_it_answers() {
    let site = site();
    let fakes = site.directory.path().join("fakes");
    fs::create_dir(&fakes).unwrap();
    // A job of A's for as long as a file says so; B has none.
    let job = "case $* in *shop@A*) test ! -e coming || echo '7 shop@A.service restart waiting' ;; esac";
    fs::write(fakes.join("systemctl"), format!("#!/bin/sh\n{job}\n")).unwrap();
    chmod(&fakes.join("systemctl"), 0o755);
    fs::write(site.directory.path().join("coming"), "").unwrap();
    let path = format!("{}:/usr/bin:/bin", fakes.display());
    let mut called = call(&site, "B").env("PATH", path).current_dir(site.directory.path()).spawn().unwrap();
    site.run("stop-instance", &["A"]).ok();
    assert!(!is_marked(&site, "B") && called.try_wait().unwrap().is_none());
    site.run("start-instance", &["A"]).ok();
    serves(&site, "v2");
    assert!(!is_marked(&site, "B") && called.try_wait().unwrap().is_none(), "its job is not done");
    fs::remove_file(site.directory.path().join("coming")).unwrap();
    assert!(called.wait().unwrap().success());
    serves(&site, "v1");
}

#[test]
fn a_mark_that_cannot_be_laid_is_told_and_the_end_costs_no_get() {
    let site = site();
    symlink("/nowhere/at/all", mark(&site, "B")).unwrap();
    hand_over(&site, "B").fails(3, &["supervise: cannot lay ", "0.processes: No such file"]);
    serves(&site, "v2");
    end(&site, "B");
    serves(&site, "v1");
    start(&site, "B");
    serves(&site, "v2");
}

#[test]
fn a_mark_that_cannot_be_removed_keeps_no_instance_from_starting_and_is_told() {
    let site = site();
    fs::create_dir(mark(&site, "B")).unwrap();
    serves(&site, "v1");
    hand_over(&site, "B").fails(3, &["cannot lay "]);
    end(&site, "B");
    // It stands by at least.
    site.run("start-instance", &["B"]).ok();
    site.run("connect-to-nginx", &["B"]).fails(3, &["cannot connect B: cannot remove ", "0.processes"]);
    serves(&site, "v1");
    fs::remove_dir(mark(&site, "B")).unwrap();
    serves(&site, "v2");
    // What a deploy says of it is so.
    fs::create_dir(mark(&site, "A")).unwrap();
    site.commit("v3", "");
    site.run("deploy", &[]).fails(3, &["cannot connect A: cannot remove "]);
    serves(&site, "v2");
}

/// As systemd starts it: the mark goes when the app is healthy, not before, and systemd hears of it afterwards.
#[test]
fn a_mark_goes_when_its_instance_is_healthy_again_and_before_systemd_hears_of_that() {
    let site = frail();
    hand_over(&site, "B").ok();
    end(&site, "B");
    fs::write(site.home.join("ill-v2"), "").unwrap();
    let socket = site.directory.path().join("notify");
    let heard = UnixDatagram::bind(&socket).unwrap();
    heard.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let home = site.home.to_str().unwrap();
    let mut command = site.tool("supervise", &["--home", home, "B"]);
    let mut supervise =
        command.env("NOTIFY_SOCKET", &socket).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("B answers", || site.run("status", &["--json"]).stdout.contains("503"));
    assert!(is_marked(&site, "B"));
    serves(&site, "v1");
    fs::remove_file(site.home.join("ill-v2")).unwrap();
    let mut said = [0; 1000];
    while !said.starts_with(b"READY=1") {
        said = [0; 1000];
        heard.recv(&mut said).unwrap();
    }
    assert!(!is_marked(&site, "B"));
    serves(&site, "v2");
    end(&site, "B");
    supervise.wait().unwrap();
}

#[test]
fn a_configuration_that_nobody_can_read_any_more_keeps_nobody_from_handing_over() {
    let site = site();
    fs::write(site.home.join("config.toml"), "app = \n").unwrap();
    assert_eq!(hand_over(&site, "B").code, 0);
    serves(&site, "v1");
}

#[test]
fn without_failover_nothing_changes_for_clients() {
    let site = Site::unlaid(Sample::Static, "");
    let (listen, status) = (site.ports.listen, site.ports.status);
    let nginx = format!("[nginx]\nown = true\nlisten = [\"127.0.0.1:{listen}\"]\nstatus_port = {status}\n");
    site.write_config(&format!("{BRISK}{nginx}failover = false\n"));
    site.install(&[]).ok();
    let site = site.with_standby();
    hand_over(&site, "B").ok();
    serves(&site, "v2");
    // Nor does a mark from then count for what is installed later.
    end(&site, "B");
    start(&site, "B");
}

#[test]
fn an_upgrade_in_the_meantime_leaves_it_handed_over() {
    let site = site();
    hand_over(&site, "B").ok();
    end(&site, "B");
    site.install(&[]).ok();
    serves(&site, "v1");
    fs::remove_file(site.home.join("nginx/conf.d/shop.d/choice.conf")).unwrap();
    site.install(&[]).ok();
    serves(&site, "v1");
    start(&site, "B");
    serves(&site, "v2");
}

#[test]
fn requests_follow_to_where_a_process_of_the_other_one_was_replaced() {
    let site = Site::roomy(Sample::Static, &config(1, LIMIT));
    site.run("deploy", &[]).ok();
    have_replaced(&site, site.ports.first, site.ports.first + 10);
    site.commit("v2", "");
    site.run("deploy", &[]).ok();
    let load = site.load();
    hand_over(&site, "B").is(0, "", "");
    serves(&site, "v1");
    end(&site, "B");
    serves(&site, "v1");
    none_lost(&load.stop());
}

#[test]
fn the_other_one_may_have_another_number_of_processes() {
    let site = Site::roomy(Sample::Static, &format!("{BRISK}[run]\ncommand = \"exec ./app\"\nprocesses = 3\n"));
    site.run("deploy", &[]).ok();
    site.reconfigure("processes = 3", "processes = 1");
    site.commit("v2", "");
    site.run("deploy", &[]).ok();
    let answering = || -> BTreeSet<i32> { (0..40).map(|_| site.get("/pid").1.trim().parse().unwrap()).collect() };
    for (instance, other) in [("B", "A"), ("A", "B")] {
        site.run("connect-to-nginx", &[instance]).ok();
        hand_over(&site, instance).ok();
        assert_eq!(answering(), pids(&site, other).into_iter().collect(), "those of {other}");
    }
    // One of them is enough.
    site.run("connect-to-nginx", &["B"]).ok();
    site.shell(&format!("kill -STOP {}", pids(&site, "A")[0])).ok();
    site.shell(&format!("kill -9 {}", pids(&site, "A")[1])).ok();
    let begun = Instant::now();
    assert_eq!(hand_over(&site, "B").code, 0);
    assert!(is_marked(&site, "B"), "after {:?}", begun.elapsed());
    site.shell(&format!("kill -CONT {}", pids(&site, "A")[0])).ok();
}

#[test]
fn each_client_that_sticks_has_one_process_of_the_other_instance_meanwhile() {
    let site = Site::unlaid_roomy(Sample::Static, "");
    let (listen, status) = (site.ports.listen, site.ports.status);
    let nginx =
        format!("[nginx]\nown = true\nlisten = [\"127.0.0.1:{listen}\"]\nstatus_port = {status}\nsticky = true\n");
    site.write_config(&format!("{BRISK}{nginx}[run]\ncommand = \"exec ./app\"\nprocesses = 3\n"));
    site.install(&[]).ok();
    let site = site.with_standby();
    let pid = || site.get("/pid").1.trim().parse::<i32>().unwrap();
    hand_over(&site, "B").ok();
    let first = pid();
    assert!(pids(&site, "A").contains(&first));
    end(&site, "B");
    assert!((0..20).all(|_| pid() == first));
}
