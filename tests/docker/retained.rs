//! Images that stay, and images that go.

use crate::engine::{Engine, IMAGE};
use crate::host::Host;

pub fn run(engine: &Engine) {
    for number in 1..=8 {
        engine.push(&format!("v{number}"), "", "");
    }
    kept_releases(engine);
    moving_tags(engine);
    built_here(engine);
    broken_images_do_not_pile_up(engine);
}

fn kept_releases(engine: &Engine) {
    let host = Host::new(engine, engine.compose(), "", "keep_releases = 3\n");
    // The user's own: an image that was here before, one with another name, one that a container needs.
    engine.docker(&["pull", "--quiet", &format!("{IMAGE}:v2")]);
    host.deploy("v1");
    engine.docker(&["tag", &format!("{IMAGE}:v1"), "kept/by-the-user:1"]);
    host.deploy("v2");
    host.deploy("v3");
    engine.docker(&["run", "--detach", "--name", "the-users-own", &format!("{IMAGE}:v3")]);
    for number in 4..=8 {
        host.deploy(&format!("v{number}"));
    }
    // v6 to v8 are kept, v7 and v8 run; v2 was here before; v3 is needed; v1 has another name.
    let expected = ["db", "v2", "v3", "v6", "v7", "v8"].map(|tag| format!("{IMAGE}:{tag}"));
    assert_eq!(engine.tags(IMAGE), expected);
    assert_eq!(engine.own_tags(IMAGE), 3);
    assert_eq!(engine.tags("kept/by-the-user"), ["kept/by-the-user:1"]);

    // What is kept can be gone back to without a registry.
    engine.stop_registry();
    let six = release_of(&host, "v6");
    host.tool("rollback", &["--to", &six]).ok();
    host.serves("v6");
    // Whatever the tag means by now.
    engine.docker(&["tag", &format!("{IMAGE}:v8"), &format!("{IMAGE}:v6")]);
    let enabled = host.enabled();
    host.tool("stop-instance", &[&enabled, "--force"]).ok();
    host.tool("start-instance", &[&enabled]).ok();
    host.serves("v6");
    engine.start_registry();

    // Once nobody needs it any more, it goes.
    engine.docker(&["rm", "--force", "the-users-own"]);
    engine.docker(&["image", "rm", &format!("{IMAGE}:v2"), &format!("{IMAGE}:v6"), "kept/by-the-user:1"]);
    host.deploy("v8");
    assert!(!engine.tags(IMAGE).contains(&format!("{IMAGE}:v3")), "{:?}", engine.tags(IMAGE));
}

/// The release that was made of a tag.
fn release_of(host: &Host, tag: &str) -> String {
    let releases = std::fs::read_dir(host.home().join("releases")).unwrap();
    let of_tag = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path.join("image.json")).unwrap_or_default();
        text.contains(&format!("{IMAGE}:{tag}\""))
    };
    let found = releases.map(|entry| entry.unwrap().path()).find(of_tag).unwrap();
    found.file_name().unwrap().to_str().unwrap().to_owned()
}

/// One tag for every release, as many have it: what it meant before stays as long as its release.
fn moving_tags(engine: &Engine) {
    let host = Host::new(engine, engine.compose(), "", "keep_releases = 2\n");
    let move_to = |version: &str| {
        engine.docker(&["pull", "--quiet", &format!("{IMAGE}:{version}")]);
        engine.docker(&["tag", &format!("{IMAGE}:{version}"), &format!("{IMAGE}:latest")]);
        engine.docker(&["push", "--quiet", &format!("{IMAGE}:latest")]);
        engine.docker(&["image", "rm", &format!("{IMAGE}:latest")]);
        engine.try_docker(&["image", "rm", &format!("{IMAGE}:{version}")]);
    };
    for version in ["v1", "v2", "v3", "v4"] {
        move_to(version);
        // No --ref: the configuration's is `latest`.
        host.tool("deploy", &[]).ok();
        host.serves(version);
        let again = host.tool("deploy", &[]);
        assert!(again.stderr.contains("already current"), "{again:?}");
        // What Docker's own clearing up leaves is enough to go back.
        engine.docker(&["image", "prune", "--force"]);
    }
    engine.stop_registry();
    host.tool("rollback", &[]).ok();
    host.serves("v3");
    engine.start_registry();
    assert_eq!(engine.tags(IMAGE), ["db", "latest"].map(|tag| format!("{IMAGE}:{tag}")));
    assert_eq!(engine.own_tags(IMAGE), 2);
    // By its digest, whatever tag it has.
    let digest = engine.inspect("{{index .RepoDigests 0}}", &format!("{IMAGE}:latest"));
    host.tool("deploy", &["--ref", digest.split_once('@').unwrap().1]).ok();
    host.serves("v4");
}

/// Images that were never pushed.
fn built_here(engine: &Engine) {
    let mut host = Host::new(engine, engine.compose(), "", "");
    host.users_own.push("mine");
    let config = std::fs::read_to_string(host.config()).unwrap().replace("[compose]", "[compose]\npull = \"missing\"");
    std::fs::write(host.config(), config).unwrap();
    host.tool("install", &["--config", host.config().to_str().unwrap()]).ok();
    // Not to be had yet, which is no reason to take it from the user later.
    host.tool("update-instance", &["--ref", "mine"]).fails(3, &["cannot pull"]);
    engine.build("mine", "first", "", "");
    host.tool("deploy", &["--ref", "mine"]).ok();
    host.serves("first");
    let image = engine.inspect("{{.Image}} {{.Config.Image}}", &host.enabled());
    let (id, name) = image.split_once(' ').unwrap();
    assert_eq!(id, name, "what no registry knows is started by its id");
    engine.build("mine", "second", "", "");
    host.tool("deploy", &["--ref", "mine"]).ok();
    host.serves("second");
    engine.docker(&["image", "prune", "--force"]);
    host.tool("rollback", &[]).ok();
    host.serves("first");
    let enabled = host.enabled();
    host.tool("stop-instance", &[&enabled, "--force"]).ok();
    host.tool("start-instance", &[&enabled]).ok();
    host.serves("first");
    // Those are the user's to remove.
    host.deploy("v3");
    drop(host);
    engine.docker(&["image", "rm", &format!("{IMAGE}:mine")]);
}

/// Deploys that fail bring images as well.
fn broken_images_do_not_pile_up(engine: &Engine) {
    let host = Host::new(engine, engine.compose(), "", "keep_releases = 1\n");
    host.deploy("v1");
    host.deploy("v2");
    for number in 1..=4 {
        let tag = format!("broken{number}");
        engine.push(&tag, "exit", &format!("LABEL number={number}"));
        host.tool("deploy", &["--ref", &tag]).fails(3, &["exit code 3"]);
    }
    assert!(engine.tags(IMAGE).len() <= 4, "{:?}", engine.tags(IMAGE));
    host.serves("v2");
    host.tool("rollback", &[]).ok();
    host.serves("v1");
}
