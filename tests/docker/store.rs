//! Docker's image store is exchanged, as for containerd's. None of the images that were here is in the new one, and each has
//! another id there.

use std::fs;

use crate::engine::{Engine, IMAGE};
use crate::host::Host;

/// Where the settings lie that choose containerd's store.
const SETTINGS: &str = "/etc/docker/containerd-store.json";
const OTHER_STORE: [&str; 2] = ["--config-file", SETTINGS];
/// Another place for the images, for an engine that has one kind of store only.
const OTHER_PLACE: [&str; 1] = ["--data-root=/run/cutover-other-store"];
/// The first release of Docker with containerd's store.
const FIRST_WITH_TWO: u32 = 24;

pub fn run(engine: &Engine) {
    fs::create_dir_all("/etc/docker").unwrap();
    fs::write(SETTINGS, r#"{ "features": { "containerd-snapshotter": true } }"#).unwrap();
    for version in ["v1", "v2", "v3"] {
        engine.push(version, "", "");
    }
    pulled_images_come_back(engine);
    images_built_here_are_named_and_loaded(engine);
}

fn has_two(engine: &Engine) -> bool {
    let version = engine.docker(&["version", "--format", "{{.Server.Version}}"]);
    version.split('.').next().unwrap().parse::<u32>().unwrap() >= FIRST_WITH_TWO
}

fn exchange(engine: &Engine, host: &Host) {
    let has_two = has_two(engine);
    restart(engine, host, has_two, if has_two { &OTHER_STORE } else { &OTHER_PLACE });
    let driver = engine.docker(&["info", "--format", "{{.DriverStatus}}"]);
    assert_eq!(driver.contains("io.containerd.snapshotter"), has_two, "{driver}");
    println!("    the store is {}", if has_two { "containerd's" } else { "another of the same kind" });
}

/// Back to the store that was there first. What the other one has stays out of sight.
fn back(engine: &Engine, host: &Host) {
    remove_all(engine, &["ps", "--all", "--quiet"], &["rm", "--force"]);
    restart(engine, host, has_two(engine), &[]);
}

/// Where both stores are of the same kind, they give an image the same id: the recorded ids become ones that neither has.
fn restart(engine: &Engine, host: &Host, has_two: bool, options: &[&'static str]) {
    engine.stop_dockerd();
    for release in fs::read_dir(host.home().join("releases")).unwrap().filter(|_| !has_two) {
        let file = release.unwrap().path().join("image.json");
        if !file.exists() {
            continue;
        }
        let mut image: serde_json::Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        let digits = image["id"].as_str().unwrap().trim_start_matches("sha256:");
        image["id"] = format!("sha256:{}", digits.chars().rev().collect::<String>()).into();
        fs::write(file, image.to_string()).unwrap();
    }
    engine.start_dockerd(options);
}

fn remove_all(engine: &Engine, list: &[&str], remove: &[&str]) {
    for id in engine.docker(list).lines() {
        engine.try_docker(&[remove, &[id]].concat());
    }
}

fn both_are_healthy(host: &Host) {
    for name in ["dailry-blue", "dailry-green"] {
        assert_eq!(host.instance(name)["health"], "healthy", "{}", host.status());
    }
}

fn pulled_images_come_back(engine: &Engine) {
    let mut host = Host::new(engine, engine.compose(), "", "");
    host.deploy("v1");
    host.deploy("v2");
    exchange(engine, &host);
    host.tool("bootup", &[]).ok();
    host.serves("v2");
    both_are_healthy(&host);
    // What runs is what is to run: nothing is made anew.
    let containers = engine.docker(&["ps", "--quiet", "--no-trunc"]);
    host.tool("bootup", &[]).ok();
    host.tool("start-instance", &[&host.enabled()]).ok();
    assert_eq!(engine.docker(&["ps", "--quiet", "--no-trunc"]), containers);
    host.tool("rollback", &[]).ok();
    host.serves("v1");
    host.deploy("v3");
    both_are_healthy(&host);

    // An image that is nowhere is no mistake in the configuration.
    engine.stop_registry();
    remove_all(engine, &["ps", "--all", "--quiet"], &["rm", "--force"]);
    remove_all(engine, &["image", "ls", "--quiet"], &["image", "rm", "--force"]);
    let gone = [
        format!("image {IMAGE}:v3 (sha256:"),
        ") is gone from this machine: ".to_owned(),
        format!("`docker load` it as {IMAGE}:cutover-dailry-"),
        ", or deploy".to_owned(),
    ];
    let gone: Vec<&str> = gone.iter().map(String::as_str).collect();
    host.tool("start-instance", &[&host.enabled()]).fails(3, &gone);
    host.tool("bootup", &[]).fails(3, &["is gone from this machine: "]);
    engine.start_registry();
    host.tool("bootup", &[]).ok();
    host.serves("v3");

    back(engine, &host);
    host.tool("bootup", &[]).ok();
    host.serves("v3");
    both_are_healthy(&host);
    // The deploy in the other store could not know of what this one had pulled.
    host.users_own.extend(["v1", "v2"]);
    drop(host);
    for version in ["v1", "v2"] {
        engine.docker(&["image", "rm", &format!("{IMAGE}:{version}")]);
    }
}

fn images_built_here_are_named_and_loaded(engine: &Engine) {
    let mut host = Host::new(engine, engine.compose(), "", "");
    host.users_own.push("mine");
    let config = fs::read_to_string(host.config()).unwrap().replace("[compose]", "[compose]\npull = \"missing\"");
    fs::write(host.config(), config).unwrap();
    host.tool("install", &["--config", host.config().to_str().unwrap()]).ok();
    engine.build("mine", "first", "", "");
    host.tool("deploy", &["--ref", "mine"]).ok();
    host.serves("first");
    let saved = engine.place().join("saved.tar");
    let release = host.instance(&host.enabled())["release"].as_str().unwrap().to_owned();
    let name = format!("{IMAGE}:cutover-dailry-{release}");
    engine.docker(&["save", "--output", saved.to_str().unwrap(), &name]);
    exchange(engine, &host);
    let gone = format!("is gone from this machine: `docker load` it as {name}, or deploy");
    host.tool("bootup", &[]).fails(3, &[&format!("image {IMAGE}:mine (sha256:"), &gone]);
    engine.docker(&["load", "--input", saved.to_str().unwrap()]);
    host.tool("bootup", &[]).ok();
    host.serves("first");
    assert_eq!(host.instance(&host.enabled())["health"], "healthy", "{}", host.status());
    back(engine, &host);
    host.tool("bootup", &[]).ok();
    host.serves("first");
    drop(host);
    engine.docker(&["image", "rm", &format!("{IMAGE}:mine")]);
}
