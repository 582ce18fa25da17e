//! deploy is killed before each call that changes something or asks Docker to: the service stays up on one release, and
//! the same command run again finishes.

use std::collections::BTreeSet;

use crate::engine::{Compose, Engine, IMAGE, await_that};
use crate::host::{Host, none_lost};
use crate::load;
use crate::ran::Ran;
use crate::sample::Share;
use crate::trace::{self, Fault, Point};

/// At how many points of a deploy.
pub const POINTS: usize = 40;

/// `count` points that this seed chooses; 0: all.
pub fn run(engine: &Engine, count: usize, seed: u64) {
    let share = |part: usize| if count == 0 { Share::All } else { Share::Sample { count: count.div_ceil(part), seed } };
    for version in ["v0", "v1", "v2"] {
        engine.push(version, "", "VOLUME /scratch");
    }
    for compose in engine.composes() {
        killed(engine, compose, share(if compose == engine.compose() { 1 } else { 4 }));
    }
    first_deploys(engine, share(5));
    removals(engine, share(5));
}

/// The first deploy on a machine where the old script's container serves: whatever becomes of it, that one goes on.
fn first_deploys(engine: &Engine, share: Share) {
    let old = |more: &str| {
        let mut host = Host::unlaid(engine, engine.compose(), "", more);
        host.users_own.push("v0");
        host.by_hand(&format!("{IMAGE}:v0"), "up -d dailry-blue");
        host.tool("install", &["--config", host.config().to_str().unwrap()]).ok();
        await_that("the old container serves", || Host::answer().as_deref() == Some("v0"));
        host
    };
    let host = old("");
    let (ran, points) =
        trace::points(host.command("deploy", &["--ref", "v1"]), &host.project().with_file_name("trace"));
    ran.ok();
    drop(host);
    let (mut tried, mut requests) = (0, 0);
    for point in share.of(points.iter().collect()) {
        let host = old("");
        let load = host.load();
        trace::disturbed(
            host.command("deploy", &["--ref", "v1"]),
            &host.project().with_file_name("trace"),
            point,
            Fault::Signal("KILL"),
        );
        host.tool("deploy", &["--ref", "v1"]).ok();
        host.serves("v1");
        requests += none_lost(load);
        tried += 1;
    }
    engine.docker(&["image", "rm", &format!("{IMAGE}:v0")]);
    println!("    first deploy: killed at {tried} of {} points, {requests} requests, 0 lost", points.len());
}

/// A removal that is killed is finished by the next; the Host insists on that when it is dropped.
fn removals(engine: &Engine, share: Share) {
    let deployed = || {
        let host = Host::new(engine, engine.compose(), "", "");
        host.deploy("v0");
        host.deploy("v1");
        host
    };
    let remove = ["--remove", "--purge", "--force"];
    let host = deployed();
    let log = host.project().with_file_name("trace");
    let (ran, points) = trace::points(host.command("install", &remove), &log);
    ran.ok();
    host.tool("install", &["--config", host.config().to_str().unwrap()]).ok();
    drop(host);
    let mut tried = 0;
    for point in share.of(points.iter().collect()) {
        let host = deployed();
        let log = host.project().with_file_name("trace");
        trace::disturbed(host.command("install", &remove), &log, point, Fault::Signal("KILL"));
        if !host.home().join("config.toml").exists() {
            host.tool("install", &["--config", host.config().to_str().unwrap()]).ok();
        }
        tried += 1;
    }
    println!("    removal: killed at {tried} of {} points", points.len());
}

fn killed(engine: &Engine, compose: Compose, share: Share) {
    let host = Host::new(engine, compose, "", "keep_releases = 1\n");
    host.deploy("v0");
    host.deploy("v1");
    let log = host.project().with_file_name("trace");
    let (ran, points) = trace::points(host.command("deploy", &["--ref", "v2"]), &log);
    ran.ok();
    let load = host.load();
    let mut tried = 0;
    for (number, point) in (1..).zip(share.of(points.iter().collect())) {
        // In turn, so that each deploy has all its work to do: neither instance has this one.
        let version = format!("v{}", (number + 2) % 3);
        let command = || host.command("deploy", &["--ref", &version]);
        let ran = trace::disturbed(command(), &log, point, Fault::Signal("KILL"));
        one_release_serves(&host, point);
        let again = Ran::run(&mut command());
        assert_eq!(again.code, 0, "after {point:?} {ran:?}: {again:?}");
        host.serves(&version);
        assert!(host.status()["change"].is_null(), "{point:?}: {}", host.status());
        whole(&host, point, &again);
        tried += 1;
    }
    let requests = none_lost(load);
    println!("    {compose:?}: killed at {tried} of {} points, {requests} requests, 0 lost", points.len());
}

/// Requests are answered by one release, the enabled instance's.
fn one_release_serves(host: &Host, point: &Point) {
    let answers: BTreeSet<String> =
        (0..12).map(|_| load::slow(Host::address(), std::time::Duration::ZERO).unwrap().trim().to_owned()).collect();
    assert_eq!(answers.len(), 1, "{point:?}: {answers:?}");
    let enabled = host.instance(&host.enabled());
    assert_eq!(enabled["version"].as_str(), answers.first().map(String::as_str), "{point:?}: {enabled}");
}

/// Nothing is left of what was begun: no release, container, volume or image that nobody has.
fn whole(host: &Host, point: &Point, ran: &Ran) {
    let releases = std::fs::read_dir(host.home().join("releases")).unwrap();
    let half: Vec<String> = releases
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with('.') && !name.starts_with(".made-"))
        .collect();
    assert!(half.is_empty(), "{point:?}: {half:?}");
    let containers = host.engine.docker(&["ps", "--all", "--format", "{{.Names}}"]);
    let mut names: Vec<&str> = containers.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["dailry-blue", "dailry-db", "dailry-green"], "{point:?}");
    // One for each instance.
    let volumes = host.engine.docker(&["volume", "ls", "--quiet"]).lines().count();
    assert_eq!(volumes, 2, "{point:?}: {ran:?}");
    let version = |instance: &str| format!("{IMAGE}:{}", host.instance(instance)["version"].as_str().unwrap());
    let mut expected = vec![format!("{IMAGE}:db"), version("dailry-blue"), version("dailry-green")];
    expected.sort();
    assert_eq!(host.engine.tags(IMAGE), expected, "{point:?}");
    assert_eq!(host.engine.own_tags(IMAGE), 2, "{point:?}: {ran:?}");
}
