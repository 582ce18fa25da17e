//! dockerd is killed and comes back.

use std::time::Duration;

use crate::engine::{Engine, await_that};
use crate::host::Host;
use crate::load::Report;

/// Docker's own settings under which what it publishes does not go with it.
const STEADY: [&str; 2] = ["--live-restore", "--userland-proxy=false"];

pub fn run(engine: &Engine) {
    for version in ["v1", "v2", "v3"] {
        engine.push(version, "", "");
    }
    as_it_comes(engine, "unless-stopped");
    as_it_comes(engine, "\"no\"");
    in_the_middle_of_a_deploy(engine);
    steady(engine);
}

/// As Docker comes, its end takes away what it publishes, and when it is back it ends the containers that lived on. Some
/// releases of it leave them so whatever their policy: bootup, which systemd runs again with Docker, starts them.
fn as_it_comes(engine: &Engine, policy: &str) {
    let host = Host::new(engine, engine.compose(), "", "");
    let text = std::fs::read_to_string(host.compose_file()).unwrap().replace("unless-stopped", policy);
    std::fs::write(host.compose_file(), text).unwrap();
    host.deploy("v1");
    host.deploy("v2");
    let links = links(&host);
    engine.kill_dockerd();
    host.tool("deploy", &["--ref", "v3"]).fails(3, &["cannot reach Docker"]);
    assert_eq!(self::links(&host), links);
    engine.start_dockerd(&[]);
    host.tool("bootup", &[]).ok();
    host.serves("v2");
    assert_eq!(host.instance("dailry-blue")["healthy"], true);
    assert_eq!(self::links(&host), links);
    host.deploy("v3");
}

/// Whatever it is doing, the deploy ends, says why, and can be run again. Docker itself may have lost track of a port by
/// then, for which there is one remedy.
fn in_the_middle_of_a_deploy(engine: &Engine) {
    let host = Host::new(engine, engine.compose(), "", "soak = \"3s\"\n");
    host.deploy("v1");
    host.deploy("v2");
    let moments = [100, 400, 550, 600, 650, 700, 750, 800, 1500];
    let mut lost_ports = 0;
    for (version, milliseconds) in ["v3", "v1", "v2"].into_iter().cycle().zip(moments) {
        let mut command = host.command("deploy", &["--ref", version]);
        command
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let child = command.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        engine.kill_dockerd();
        let ran = crate::ran::Ran::of(&child.wait_with_output().unwrap());
        // With Docker its proxies end, by which both instances are reached.
        assert!([3, 4, 5].contains(&ran.code) && ran.stderr.contains("cannot"), "{ran:?}");
        engine.start_dockerd(&[]);
        host.tool("bootup", &[]).ok();
        assert!(Host::answer().is_some());
        let again = host.tool("deploy", &["--ref", version]);
        if again.stderr.contains("docker-proxy") {
            again.fails(3, &["; if no container has it (docker ps), restart Docker"]);
            lost_ports += 1;
            engine.stop_dockerd();
            engine.start_dockerd(&[]);
            host.tool("bootup", &[]).ok();
            host.deploy(version);
        } else {
            again.ok();
        }
        host.serves(version);
    }
    println!("    killed in the middle of {} deploys; Docker lost track of {lost_ports} ports", moments.len());
}

/// With live-restore and without the proxy its end costs no request, nor does a deploy after its return. While it returns
/// it lays its rules for the network anew, and a connection may find none.
fn steady(engine: &Engine) {
    engine.stop_dockerd();
    engine.start_dockerd(&STEADY);
    let host = Host::new(engine, engine.compose(), "", "");
    host.deploy("v1");
    host.deploy("v2");
    let load = host.load();
    let none_lost_since = |before: &Report| {
        let since = load.settled().since(before);
        assert_eq!(since.failed(), 0, "{since}: {:#?}", since.quoted().collect::<Vec<_>>());
    };
    let mut lost = 0;
    for version in ["v3", "v1", "v2"] {
        let before = load.snapshot();
        engine.kill_dockerd();
        host.tool("deploy", &["--ref", version]).fails(3, &["cannot reach Docker"]);
        await_that("requests go on", || load.snapshot().since(&before).ok > 500);
        none_lost_since(&before);
        let before = load.settled();
        engine.start_dockerd(&STEADY);
        lost += load.settled().since(&before).failed();
        let before = load.settled();
        host.deploy(version);
        none_lost_since(&before);
    }
    let report = load.stop();
    println!(
        "    live-restore, no proxy: dockerd killed 3 times, {} requests, 0 lost; {lost} as it came back",
        report.requests
    );
    drop(host);
    engine.stop_dockerd();
    engine.start_dockerd(&[]);
}

fn links(host: &Host) -> Vec<Option<std::path::PathBuf>> {
    let paths = ["state/enabled", "instances/dailry-blue", "instances/dailry-green"];
    paths.map(|path| std::fs::read_link(host.home().join(path)).ok()).to_vec()
}
