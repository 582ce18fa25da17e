//! Deploys under load: none of them costs a request, with whichever Compose, and the disk does not fill.

use std::fs;
use std::time::{Duration, Instant};

use crate::engine::{Compose, Engine, IMAGE};
use crate::host::{Host, none_lost};

/// How many deploys are made with `docker compose`; a fifth as many with docker-compose, which takes longer.
pub const COUNT: u32 = 50;

pub fn run(engine: &Engine, count: u32) {
    for number in 1..=count {
        // A volume without a name comes with each of its containers.
        engine.push(&format!("v{number}"), "", "VOLUME /scratch");
    }
    for compose in engine.composes() {
        under_load(engine, compose, if compose == engine.compose() { count } else { count.div_ceil(5) });
    }
    rollbacks(engine);
}

fn under_load(engine: &Engine, compose: Compose, count: u32) {
    let host = Host::new(engine, compose, "", "keep_releases = 3\n");
    let files = || [".env", "docker-compose.yml"].map(|file| fs::read_to_string(host.project().join(file)).unwrap());
    let before = files();
    host.deploy("v1");
    let load = host.load();
    let (mut images, mut used) = (Vec::new(), Vec::new());
    for number in 2..=count {
        let (enabled, old) = (host.enabled(), engine.inspect("{{.Id}} {{.State.StartedAt}}", &host.enabled()));
        let deployed = host.tool("deploy", &["--ref", &format!("v{number}")]);
        assert!(deployed.stderr.len() < 2000, "{deployed:?}");
        deployed.ok();
        host.serves(&format!("v{number}"));
        assert_eq!(engine.inspect("{{.Id}} {{.State.StartedAt}}", &enabled), old, "the enabled instance was touched");
        assert_eq!(engine.inspect("{{.Config.Image}}", &host.enabled()), exact(engine, &format!("v{number}")));
        images.push(engine.tags(IMAGE).len());
        used.push((volumes(engine), layers(engine)));
    }
    let requests = none_lost(load);
    assert_eq!(files(), before, "the team's files were changed");
    // What is kept, what the instances have, and the database's.
    let most = *images.iter().max().unwrap();
    assert!(most <= 3 + 1 + 1, "images: {images:?}");
    if count > 10 {
        let (early, late) = (used[8], used[used.len() - 1]);
        assert_eq!(early, late, "volumes and layers pile up: {used:?}");
    }
    println!("    {compose:?}: {count} deploys, {requests} requests, 0 lost, {most} images at most");
}

/// A tag with the digest that it had: what a container is to be made from.
fn exact(engine: &Engine, tag: &str) -> String {
    let digests = engine.inspect("{{index .RepoDigests 0}}", &format!("{IMAGE}:{tag}"));
    format!("{IMAGE}:{tag}@{}", digests.split_once('@').unwrap().1)
}

fn volumes(engine: &Engine) -> usize {
    engine.docker(&["volume", "ls", "--quiet"]).lines().count()
}

fn layers(engine: &Engine) -> usize {
    fs::read_dir(engine.place().join("docker/overlay2")).unwrap().count()
}

/// Rollbacks to a warm standby under load. Their time is that of starting a program, of which as many are timed in turn.
fn rollbacks(engine: &Engine) {
    let host = Host::new(engine, engine.compose(), "", "");
    host.deploy("v1");
    host.deploy("v2");
    let load = host.load();
    let (mut back, mut nothing) = (Duration::ZERO, Duration::ZERO);
    for number in 0..20 {
        let began = Instant::now();
        host.tool("rollback", &[]).ok();
        back += began.elapsed();
        host.serves(if number % 2 == 0 { "v1" } else { "v2" });
        let began = Instant::now();
        engine.docker(&["version"]);
        nothing += began.elapsed();
    }
    let requests = none_lost(load);
    println!(
        "    20 rollbacks, {requests} requests, 0 lost; {:.1} ms each, {:.2} of what `docker version` takes",
        back.as_secs_f64() * 1000.0 / 20.0,
        back.as_secs_f64() / nothing.as_secs_f64()
    );
}
