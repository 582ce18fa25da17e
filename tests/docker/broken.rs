//! Images that fail in all ways: each deploy says why, in one line, and the service is as it was.

use std::fs;
use std::process::Command;

use crate::engine::{Compose, Engine, await_that};
use crate::host::Host;

/// A broken release: its behaviour, more of its Dockerfile, and what the deploy of it must come to.
struct Broken {
    name: &'static str,
    behaviour: &'static str,
    dockerfile: &'static str,
    code: i32,
    said: &'static [&'static str],
}

const ALL: [Broken; 9] = [
    Broken {
        name: "ends",
        behaviour: "exit",
        dockerfile: "",
        code: 3,
        said: &[
            "it died: exit code 3: ends opens its database | cannot open database: connection refused (more of it: ",
        ],
    },
    Broken {
        name: "deaf",
        behaviour: "deaf",
        dockerfile: "",
        code: 124,
        said: &["not healthy within", "its last health check: connection "],
    },
    Broken {
        name: "hangs",
        behaviour: "hang",
        dockerfile: "",
        code: 124,
        said: &["not healthy within", "no answer within"],
    },
    Broken {
        name: "sick",
        behaviour: "500",
        dockerfile: "",
        code: 124,
        said: &["not healthy within", "status 500: database password wrong"],
    },
    Broken {
        name: "hungry",
        behaviour: "",
        dockerfile: "CMD [\"/busybox\", \"tail\", \"/dev/zero\"]",
        code: 3,
        said: &["it died: out of memory: killed at its memory limit (exit code 137)"],
    },
    Broken {
        name: "empty",
        behaviour: "",
        dockerfile: "CMD [\"/nothing\"]",
        code: 3,
        said: &["/nothing", "no such file or directory"],
    },
    Broken {
        name: "unhealthy",
        behaviour: "",
        dockerfile: "HEALTHCHECK --interval=300ms --timeout=10s --retries=2 CMD [\"/busybox\", \"sh\", \"-c\", \"echo no disk; exit 1\"]",
        code: 124,
        said: &["not healthy within", "Docker's health check says unhealthy: no disk"],
    },
    Broken {
        name: "undecided",
        behaviour: "",
        dockerfile: "HEALTHCHECK --interval=1h CMD [\"/busybox\", \"true\"]",
        code: 124,
        said: &["not healthy within", "Docker's health check has not succeeded yet"],
    },
    Broken {
        name: "dies",
        behaviour: "dies 4",
        dockerfile: "",
        code: 4,
        said: &["died after the cutover: exit code 1", "is enabled again"],
    },
];

pub fn run(engine: &Engine) {
    for version in ["v1", "v2"] {
        engine.push(version, "", "");
    }
    for broken in &ALL {
        engine.push(broken.name, broken.behaviour, broken.dockerfile);
    }
    // What its own health check takes is waited for.
    engine.push(
        "slowly",
        "",
        "HEALTHCHECK --interval=1s CMD [\"/busybox\", \"wget\", \"-q\", \"-O-\", \"http://127.0.0.1:8080/\"]",
    );
    for compose in engine.composes() {
        deployed(engine, compose);
    }
    without_a_restart_policy(engine);
    let check = "HEALTHCHECK --interval=5s CMD [\"/busybox\", \"true\"]";
    engine.push("slowlier", "", check);
    undecided_again(engine);
}

fn deployed(engine: &Engine, compose: Compose) {
    let config = "soak = \"6s\"\n[health]\ntimeout = \"6s\"\n";
    let host = Host::new(engine, compose, "    mem_limit: 24m\n", config);
    host.deploy("v1");
    host.deploy("v2");
    let before = host.state();
    let load = host.load();
    let mut before_the_last = load.snapshot();
    for broken in &ALL {
        if broken.code == 4 {
            before_the_last = load.settled();
        }
        let deployed = host.tool("deploy", &["--ref", broken.name]);
        deployed.fails(broken.code, broken.said);
        assert_eq!(host.state(), before, "{}", broken.name);
        host.serves("v2");
    }
    assert_eq!(before_the_last.failed(), 0, "{before_the_last}");
    // Docker's proxy takes a request to a dead app and drops it: nginx may not send a POST twice.
    let report = load.stop();
    assert_eq!(report.get_failed, 0, "{report}: {:#?}", report.quoted().collect::<Vec<_>>());
    // All that a container printed which failed can still be read.
    let logs = fs::read_dir(host.home().join("logs")).unwrap().map(|entry| entry.unwrap().path());
    let texts: Vec<String> = logs.map(|log| fs::read_to_string(log).unwrap()).collect();
    assert!(texts.iter().any(|text| text.contains("cannot open database: connection refused\n")), "{texts:?}");

    host.tool("deploy", &["--ref", "slowly"]).ok();
    host.serves("slowly");
    assert_eq!(engine.inspect("{{.State.Health.Status}}", &host.enabled()), "healthy");
    let (count, requests, posts) = (ALL.len(), report.requests, report.post_failed);
    println!(
        "    {compose:?}: {count} broken images, {requests} requests, 0 lost but {posts} POSTs to the one that died when enabled"
    );
}

/// While Docker has not made up its mind about a container that was started again, that is no reason to leave it.
fn undecided_again(engine: &Engine) {
    let host = Host::new(engine, engine.compose(), "", "");
    host.deploy("slowly");
    host.deploy("slowlier");
    let pid = host.tool("pid", &[]).ok();
    assert!(Command::new("kill").args(["-9", pid.trim()]).status().unwrap().success());
    await_that("it is started again", || host.instance(&host.enabled())["restarts"] == 1 && Host::answer().is_some());
    let before = host.state();
    host.tool("deploy", &["--ref", "ends"]).fails(3, &["exit code 3"]);
    assert_eq!(host.state(), before);
    host.serves("slowlier");
}

/// A container that nobody starts again has ended for good.
fn without_a_restart_policy(engine: &Engine) {
    let host = Host::new(engine, engine.compose(), "", "soak = \"10s\"\n");
    let text = fs::read_to_string(host.compose_file()).unwrap().replace("unless-stopped", "\"no\"");
    fs::write(host.compose_file(), text).unwrap();
    host.deploy("v1");
    let before = host.state();
    let said = "its container ended, exit code 3: ends opens its database | cannot open database: connection refused";
    host.tool("deploy", &["--ref", "ends"]).fails(3, &[said]);
    assert_eq!(host.state(), before);
    let said = "went down after the cutover: its container ended, exit code 1";
    host.tool("deploy", &["--ref", "dies"]).fails(4, &[said, "dailry-blue is enabled again"]);
    assert_eq!(host.state(), before);
    host.serves("v1");
}
