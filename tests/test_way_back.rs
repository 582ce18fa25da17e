//! The way back after a cutover: it takes no room on the disk, it ends with an instance that serves, and where it fails the
//! exit code is 5 and the message says what serves.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};

use cutover::process::{Pid, Process};
use nix::sys::signal::Signal;

use crate::not_tested::not_tested;
use crate::ran::Ran;
use crate::site::{BRISK, Sample, Site, eventually};
use crate::torture::disk::{Disk, Trouble};

/// A watch that only a death ends.
const WATCHED: &str = "[deploy]\nsoak = \"60s\"\ndrain_timeout = \"100ms\"\n";
const WORKER: &str = "[[worker]]\nname = \"mail\"\ncommand = \"exec sleep 1000\"\n";

/// Deploys v1, and v2 as far as its watch.
fn watching(site: &Site) -> Child {
    site.reconfigure("soak = \"60s\"", "soak = \"50ms\"");
    site.run("deploy", &[]).ok();
    site.reconfigure("soak = \"50ms\"", "soak = \"60s\"");
    site.commit("v2", "");
    let deploy = site.tool("deploy", &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("B is being watched", || {
        let status = site.status();
        // Where there are workers, they move first.
        let have_moved = fs::read_link(site.home.join("state/workers")).map_or(true, |beside| beside == Path::new("B"));
        have_moved && status["change"]["doing"] == "watching B" && status["instances"][1]["healthy"] == true
    });
    deploy
}

/// Has deploys watch for so long.
fn soak(site: &Site, time: &str) {
    let path = site.home.join("config.toml");
    let config = fs::read_to_string(&path).unwrap();
    let lines = config
        .lines()
        .map(|line| if line.starts_with("soak = ") { format!("soak = \"{time}\"") } else { line.to_owned() });
    fs::write(path, lines.collect::<Vec<String>>().join("\n") + "\n").unwrap();
}

fn kill(pid: i32) {
    Process::with_pid(Pid::from_raw(pid)).unwrap().signal(Signal::SIGKILL).unwrap();
}

/// What was served before is the only thing known to be good: it is not started anew with what has just failed.
#[test]
fn a_reload_that_was_killed_on_its_way_back_leaves_the_instance_alone_that_it_was_to_go_back_to() {
    let site = Site::new(Sample::Static, WATCHED);
    soak(&site, "50ms");
    site.run("deploy", &[]).ok();
    site.write_env("NEW=1\n");
    soak(&site, "60s");
    let (good, mut strace) = (site.pid("A"), site.command(Path::new("strace")));
    strace.args(["-qq", "-o"]).arg(site.directory.path().join("trace"));
    strace.args(["-e", "trace=fdatasync", "-e", "inject=fdatasync:delay_enter=2000000"]);
    let mut reload = strace.arg(site.home.join("bin/reload")).stderr(Stdio::null()).spawn().unwrap();
    let is_doing = |what: &str| site.status()["change"]["doing"] == what;
    eventually("it has noted that it goes back", || {
        if is_doing("watching B") {
            site.shell("kill -9 $(pid B)");
        }
        is_doing("taking the traffic from B")
    });
    kill(site.status()["change"]["pid"].as_i64().unwrap().try_into().unwrap());
    reload.wait().unwrap();
    assert_eq!(site.run("enabled-instance", &[]).ok(), "B\n");
    eventually("B is well again", || site.status()["instances"][1]["healthy"] == true);
    soak(&site, "50ms");
    site.run("reload", &[]).is(0, "", "reload: already switched: B runs as configured\n");
    assert_eq!(site.pid("A"), good);
}

/// Deploys a release that dies in its watch after the disk has gone bad.
fn on_a_bad_disk(trouble: Trouble, more: &str, check: impl FnOnce(&Site, Ran)) {
    let Some(disk) = Disk::mounted() else {
        not_tested(&format!("{trouble:?} disk"), "this is not root");
        return;
    };
    let site = Site::new_in(disk.directory.path(), Sample::Static, &format!("{WATCHED}{more}"));
    let deploy = watching(&site);
    disk.go_bad(trouble);
    kill(site.pid("B"));
    let ran = Ran::of(&deploy.wait_with_output().unwrap());
    check(&site, ran);
    disk.recover(trouble);
}

fn goes_back(site: &Site, ran: Ran) {
    ran.fails(4, &["B died after the cutover: ", "killed by SIGKILL; A is enabled again"]);
    assert_eq!(site.run("enabled-instance", &[]).ok(), "A\n");
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
}

#[test]
fn the_way_back_takes_no_inode() {
    on_a_bad_disk(Trouble::OutOfInodes, "", goes_back);
}

#[test]
fn the_way_back_takes_no_room() {
    on_a_bad_disk(Trouble::Full, "", goes_back);
}

#[test]
fn the_way_back_of_workers_takes_no_inode() {
    on_a_bad_disk(Trouble::OutOfInodes, WORKER, |site, ran| {
        goes_back(site, ran);
        let status = site.status();
        let has_worker = |at: usize| {
            let workers = status["instances"][at]["workers"].as_array().unwrap();
            workers.iter().any(|worker| worker["pid"].is_number())
        };
        assert_eq!([0, 1].map(has_worker), [true, false], "{status}");
    });
}

#[test]
fn a_rollback_takes_no_inode() {
    let Some(disk) = Disk::mounted() else {
        not_tested("a disk without inodes", "this is not root");
        return;
    };
    let site = Site::new_in(disk.directory.path(), Sample::Static, BRISK).with_standby();
    disk.go_bad(Trouble::OutOfInodes);
    for version in ["v1", "v2", "v1"] {
        assert_eq!(site.run("rollback", &[]).code, 0);
        assert_eq!(site.get("/"), (200, format!("{version}\n")));
    }
    disk.recover(Trouble::OutOfInodes);
}

#[test]
fn a_link_that_cannot_be_put_back_ends_with_5_and_what_serves() {
    on_a_bad_disk(Trouble::ReadOnly, "", |site, ran| {
        let enabled = "enabled could not be put back: Read-only file system (os error 30); now nginx uses B with ";
        ran.fails(5, &["B died after the cutover: killed by SIGKILL; and the way back failed: ", enabled]);
        assert_eq!(site.run("enabled-instance", &[]).ok(), "B\n");
    });
}

#[test]
fn an_old_instance_that_has_died_is_started_on_the_way_back() {
    let site = Site::new(Sample::Static, WATCHED);
    let deploy = watching(&site);
    kill(site.leash("A"));
    kill(site.supervise("A"));
    eventually("A is down", || site.run("pid", &["A"]).code == 1);
    kill(site.pid("B"));
    goes_back(&site, Ran::of(&deploy.wait_with_output().unwrap()));
}

#[test]
fn a_release_that_is_not_well_when_its_deploy_is_made_again_goes_back_to_the_standby_that_is() {
    for (tool, more) in [("deploy", ""), ("reload", "NUMBER=2\n")] {
        let site = Site::roomy(Sample::Static, &format!("{WATCHED}[run]\ncommand = \"exec ./app\"\nprocesses = 2\n"));
        soak(&site, "50ms");
        site.run("deploy", &[]).ok();
        soak(&site, "60s");
        match tool {
            "deploy" => drop(site.commit("v2", "")),
            _ => site.write_env(more),
        }
        let mut killed = site.tool(tool, &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("B is being watched", || site.status()["change"]["doing"] == "watching B");
        killed.kill().and_then(|()| killed.wait()).unwrap();
        // One of two is not well, and nginx has the other one.
        fs::write(site.home.join("instances/B/BEHAVIOUR"), "ready 1000\n").unwrap();
        let pids = || site.run("pid", &["B"]).stdout;
        kill(pids().lines().last().unwrap().parse().unwrap());
        eventually("it is back, and not well", || {
            pids().lines().count() == 2 && site.status()["instances"][1]["healthy"] == false
        });
        soak(&site, "100ms");
        site.run(tool, &[]).fails(4, &[" B", "; A is enabled again"]);
        assert_eq!(site.run("enabled-instance", &[]).ok(), "A\n");
        assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
        assert!(site.status()["change"].is_null());
    }
}

#[test]
fn an_old_instance_that_cannot_serve_any_more_ends_with_5_and_is_named() {
    let site = Site::new(Sample::Static, WATCHED);
    let deploy = watching(&site);
    kill(site.leash("A"));
    kill(site.supervise("A"));
    eventually("A is down", || site.run("pid", &["A"]).code == 1);
    fs::remove_file(site.home.join("instances/A/app")).unwrap();
    kill(site.pid("B"));
    let reasons = [
        "B died after the cutover: killed by SIGKILL; and the way back failed: A is enabled again, but: cannot start A: ",
        "; now nginx uses A with ",
        ", not healthy: connection refused",
    ];
    Ran::of(&deploy.wait_with_output().unwrap()).fails(5, &reasons);
    let history = fs::read_to_string(site.home.join("logs/history.jsonl")).unwrap();
    assert!(history.lines().last().unwrap().contains(r#""outcome":"stranded""#), "{history}");
}

/// nginx does not answer, and from the second exchange of names on the disk fails: the link is turned, and not back.
#[test]
fn every_tool_that_cuts_over_ends_with_5_when_its_way_back_fails() {
    for (tool, arguments) in [("connect-to-nginx", vec!["A"]), ("rollback", vec![]), ("deploy", vec![])] {
        let site = Site::new(Sample::Static, BRISK).with_standby();
        site.commit("v3", "");
        site.shell("kill $(cat .shop/nginx/nginx.pid)").ok();
        eventually("nginx is gone", || site.get("/").0 == 0);
        let tool = site.tool(tool, &arguments);
        let mut strace = site.command(std::path::Path::new("strace"));
        strace.arg("-o").arg(site.directory.path().join("trace"));
        strace.args(["-e", "trace=renameat2", "-e", "inject=renameat2:error=EIO:when=2+"]);
        let ran = Ran::of(&strace.arg(tool.get_program()).args(tool.get_args()).output().unwrap());
        let reasons = [
            ": cannot connect A: nginx does not answer on its status port",
            "; and the way back failed: ",
            "enabled could not be put back: Input/output error (os error 5); nginx does not answer; enabled is A with ",
            ", healthy",
        ];
        ran.fails(5, &reasons);
        assert_eq!(site.run("enabled-instance", &[]).ok(), "A\n");
    }
}

#[test]
fn one_that_is_ill_and_well_by_turns_does_not_cost_the_standby_that_is_well() {
    let server = "const fs = require('fs'), version = fs.readFileSync('VERSION', 'utf8');\n\
        let count = 0;\n\
        require('http').createServer((request, response) => {\n\
        \x20 const isDirect = request.url === '/health' && !request.headers['x-forwarded-for'];\n\
        \x20 const flips = isDirect && fs.existsSync('../../flips.' + process.env.INSTANCE);\n\
        \x20 if (flips && count++ % 2 === 0) response.statusCode = 500;\n\
        \x20 response.end(version);\n\
        }).listen(process.env.PORT, '127.0.0.1');\n";
    for tool in ["deploy", "reload"] {
        let site = Site::unlaid(
            Sample::Static,
            "[run]\ncommand = \"exec node server.js\"\n[health]\npath = \"/health\"\nrestart_after = \"never\"\n\
             [deploy]\nsoak = \"30s\"\ndrain_timeout = \"100ms\"\n",
        );
        fs::write(site.source().join("server.js"), server).unwrap();
        site.commit("v1", "");
        site.install(&[]).ok();
        site.reconfigure("soak = \"30s\"", "soak = \"100ms\"");
        site.run("deploy", &[]).ok();
        site.reconfigure("soak = \"100ms\"", "soak = \"30s\"");
        match tool {
            "deploy" => drop(site.commit("v2", "")),
            _ => site.write_env("COLOUR=red\n"),
        }
        let mut killed = site.tool(tool, &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("it watches B", || site.status()["change"]["doing"] == "watching B");
        killed.kill().unwrap();
        killed.wait().unwrap();
        fs::write(site.home.join("flips.B"), "").unwrap();
        site.reconfigure("soak = \"30s\"", "soak = \"100ms\"");
        let standby = site.pid("A");
        let ran = site.run(tool, &[]);
        assert!(ran.code == 0 && ran.stderr.contains(&format!("{tool}: already switched: B ")), "{ran:?}");
        assert_eq!((site.run("enabled-instance", &[]).ok().as_str(), site.pid("A")), ("B\n", standby), "{tool}");
    }
}
