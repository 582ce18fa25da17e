//! Compose files as people have them: each is deployed, deployed again and rolled back under load, and none of that costs a
//! request; and what would not do what is configured is refused at install.

use std::fs;
use std::process::Command;
use std::time::Instant;

use crate::engine::{Compose, Engine, IMAGE, await_that};
use crate::host::{Host, none_lost};
use crate::ran::Ran;

/// Files of a team's, and what `[compose]` says of them.
struct SetUp {
    name: &'static str,
    files: &'static [(&'static str, &'static str)],
    keys: &'static str,
}

const BLUE_AND_GREEN: &str = "\
services:
  blue: {image: \"${APP_IMAGE}\", ports: [\"8081:8080\"], restart: unless-stopped, depends_on: [db]}
  green: {image: \"${APP_IMAGE}\", ports: [\"8082:8080\"], restart: unless-stopped, depends_on: [db]}
  db: {image: \"IMAGE_NAME:db\"}
";

const ALL: [SetUp; 9] = [
    SetUp {
        name: "one file, two services, under another of Compose's names",
        files: &[("compose.yaml", BLUE_AND_GREEN)],
        keys: "file = \"PROJECT\"\nimage_variable = \"APP_IMAGE\"\n",
    },
    SetUp {
        name: "two files, two services",
        files: &[
            (
                "docker-compose.blue.yml",
                "services:\n  app-blue:\n    image: ${APP_IMAGE}\n    container_name: app-blue\n    ports: [\"8081:8080\"]\n    restart: always\n",
            ),
            (
                "docker-compose.green.yml",
                "services:\n  app-green:\n    image: ${APP_IMAGE}\n    container_name: app-green\n    ports: [\"8082:8080\"]\n    restart: always\n",
            ),
            (".env", "COMPOSE_REMOVE_ORPHANS=true\n"),
        ],
        keys: "file = { blue = \"PROJECT/docker-compose.blue.yml\", green = \"PROJECT/docker-compose.green.yml\" }\n\
               service = { blue = \"app-blue\", green = \"app-green\" }\nimage_variable = \"APP_IMAGE\"\n",
    },
    SetUp {
        name: "two files, one service",
        files: &[
            (
                "docker-compose.blue.yml",
                "services:\n  app:\n    image: IMAGE_NAME:${TAG:-latest}\n    container_name: app-blue\n    ports: [\"127.0.0.1:8081:8080\"]\n    restart: unless-stopped\n",
            ),
            (
                "docker-compose.green.yml",
                "services:\n  app:\n    image: IMAGE_NAME:${TAG:-latest}\n    container_name: app-green\n    ports: [\"127.0.0.1:8082:8080\"]\n    restart: unless-stopped\n",
            ),
        ],
        keys: "file = { blue = \"PROJECT/docker-compose.blue.yml\", green = \"PROJECT/docker-compose.green.yml\" }\n\
               service = \"app\"\ntag_variable = \"TAG\"\n",
    },
    SetUp {
        name: "two directories, one service",
        files: &[
            (
                "blue/app/docker-compose.yaml",
                "services:\n  web:\n    image: ${APP_IMAGE}\n    ports: [\"8081:8080\"]\n",
            ),
            (
                "green/app/docker-compose.yaml",
                "services:\n  web:\n    image: ${APP_IMAGE}\n    ports: [\"8082:8080\"]\n",
            ),
        ],
        keys: "file = { blue = \"PROJECT/blue/app\", green = \"PROJECT/green/app\" }\nservice = \"web\"\nimage_variable = \"APP_IMAGE\"\n",
    },
    SetUp {
        name: "one service run twice, its port and its name by variables",
        files: &[(
            "docker-compose.yml",
            "services:\n  app:\n    image: ${APP_IMAGE}\n    container_name: app-${COLOR}\n    ports: [\"${PORT}:8080\"]\n    restart: unless-stopped\n",
        )],
        keys: "file = \"PROJECT/docker-compose.yml\"\nservice = \"app\"\nimage_variable = \"APP_IMAGE\"\nport_variable = \"PORT\"\ninstance_variable = \"COLOR\"\n",
    },
    SetUp {
        name: "one service run twice, its port by an env file of each",
        files: &[
            (
                "compose.yml",
                "services:\n  app:\n    image: ${REPO}:${TAG}\n    ports: [\"${PORT}:8080\"]\n    restart: unless-stopped\n",
            ),
            (".env.blue", "PORT=8081\nREPO=IMAGE_NAME\nTAG=none\n"),
            (".env.green", "PORT=8082\nREPO=IMAGE_NAME\nTAG=none\n"),
        ],
        keys: "file = \"PROJECT/compose.yml\"\nservice = \"app\"\nproject = { blue = \"shop1\", green = \"shop2\" }\ntag_variable = \"TAG\"\n\
               env_file = { blue = \"PROJECT/.env.blue\", green = \"PROJECT/.env.green\" }\n",
    },
    SetUp {
        name: "a file for both, and one more for each",
        files: &[
            ("compose.yml", "services:\n  app:\n    image: ${APP_IMAGE}\n    restart: unless-stopped\n"),
            ("blue.yml", "services:\n  app:\n    container_name: app-blue\n    ports: [\"8081:8080\"]\n"),
            ("green.yml", "services:\n  app:\n    container_name: app-green\n    ports: [\"8082:8080\"]\n"),
        ],
        keys: "file = { blue = [\"PROJECT/compose.yml\", \"PROJECT/blue.yml\"], green = [\"PROJECT/compose.yml\", \"PROJECT/green.yml\"] }\n\
               service = \"app\"\nimage_variable = \"APP_IMAGE\"\n",
    },
    SetUp {
        name: "profiles and extends",
        files: &[
            ("base.yml", "services:\n  base:\n    image: ${REPO}:${TAG}\n    restart: unless-stopped\n"),
            (
                "docker-compose.yml",
                "services:\n  blue:\n    extends: {file: base.yml, service: base}\n    profiles: [blue]\n    ports: [\"8081:8080\"]\n  green:\n    extends: {file: base.yml, service: base}\n    profiles: [green]\n    ports: [\"8082:8080\"]\n",
            ),
            (".env", "REPO=IMAGE_NAME\nTAG=none\n"),
        ],
        keys: "file = \"PROJECT/docker-compose.yml\"\ntag_variable = \"TAG\"\n",
    },
    SetUp {
        name: "built on the host",
        files: &[(
            "docker-compose.yml",
            "services:\n  blue:\n    build: PROJECT/../../image\n    image: ${APP_IMAGE}\n    ports: [\"8081:8080\"]\n  green:\n    build: PROJECT/../../image\n    image: ${APP_IMAGE}\n    ports: [\"8082:8080\"]\n",
        )],
        keys: "file = \"PROJECT/docker-compose.yml\"\nimage_variable = \"APP_IMAGE\"\npull = \"build\"\n",
    },
];

pub fn run(engine: &Engine) {
    for version in ["v1", "v2", "v3"] {
        engine.push(version, "", "");
    }
    engine.push("ends", "exit", "");
    // The team's database, which not every set-up has.
    engine.docker(&["pull", "--quiet", &format!("{IMAGE}:db")]);
    for compose in engine.composes() {
        for set_up in &ALL {
            let requests = under_load(engine, compose, set_up);
            println!("    {compose:?}: {}: {requests} requests, 0 lost", set_up.name);
        }
        by_hand(engine, compose);
        redrawn(engine, compose);
        refused(engine, compose);
    }
    built_with_a_tag(engine);
    hung(engine);
}

/// Deploys a tag, which is built for that where the set-up says so.
#[track_caller]
fn deploy(host: &Host, version: &str) {
    host.engine.lay_context(version, "", "");
    host.deploy(version);
}

fn under_load(engine: &Engine, compose: Compose, set_up: &SetUp) -> u64 {
    let host = Host::with(engine, compose, set_up.files, set_up.keys);
    host.install().ok();
    deploy(&host, "v1");
    let load = host.load();
    for version in ["v2", "v3", "v1", "v3"] {
        let enabled = container(&host, &host.enabled());
        deploy(&host, version);
        assert_eq!(container(&host, other(&host.enabled())), enabled, "the enabled instance was touched");
    }
    host.tool("rollback", &[]).ok();
    host.serves("v1");
    // The way back of a container that is gone.
    let standby = other(&host.enabled());
    host.tool("stop-instance", &[standby]).ok();
    host.engine.docker(&["rm", &container(&host, standby)]);
    host.tool("rollback", &[]).ok();
    host.serves("v3");
    host.tool("bootup", &[]).ok();
    let requests = none_lost(load);
    assert_eq!(apps(engine).len(), 2, "{:?}", apps(engine));
    let instance = host.instance(&host.enabled());
    assert_eq!((instance["healthy"].as_bool(), instance["version"].as_str()), (Some(true), Some("v3")), "{instance}");
    requests
}

fn other(instance: &str) -> &'static str {
    if instance == "blue" { "green" } else { "blue" }
}

/// The containers that publish a port, as the app's do: their ids.
fn apps(engine: &Engine) -> Vec<String> {
    let all = engine.docker(&["ps", "--all", "--no-trunc", "--quiet"]);
    let publishes = |id: &&str| engine.inspect("{{json .HostConfig.PortBindings}}", id).contains("HostPort");
    all.lines().filter(publishes).map(str::to_owned).collect()
}

/// The id of the container that has an instance's port.
#[track_caller]
fn container(host: &Host, instance: &str) -> String {
    let port = if instance == "blue" { "8081" } else { "8082" };
    let has_port = |id: &String| host.engine.inspect("{{json .HostConfig.PortBindings}}", id).contains(port);
    apps(host.engine).into_iter().find(has_port).unwrap_or_else(|| panic!("{instance} has no container"))
}

/// What the team's own script has started, one project for each file, is taken over.
fn by_hand(engine: &Engine, compose: Compose) {
    let two_files = &ALL[2];
    let mut host = Host::with(engine, compose, two_files.files, two_files.keys);
    host.users_own.push("v1");
    engine.docker(&["pull", "--quiet", &format!("{IMAGE}:v1")]);
    let program = if compose == Compose::V1 { "docker-compose" } else { "docker compose" };
    let mut script = Command::new("sh");
    script.args(["-c", &format!("{program} -p web-blue -f docker-compose.blue.yml up -d")]);
    script.current_dir(host.project()).env("TAG", "v1").env("PATH", engine.path(compose)).env_remove("DOCKER_HOST");
    Ran::run(&mut script).ok();
    let theirs = container(&host, "blue");
    host.install().ok();
    host.tool("connect-to-nginx", &["blue"]).ok();
    host.serves("v1");
    let load = host.load();
    host.deploy("v2");
    assert_eq!((container(&host, "blue"), host.enabled().as_str()), (theirs, "green"));
    host.tool("rollback", &[]).ok();
    host.serves("v1");
    let digests = engine.inspect("{{index .RepoDigests 0}}", &format!("{IMAGE}:v2"));
    host.deploy("v3");
    host.tool("deploy", &["--ref", digests.split_once('@').unwrap().1]).ok();
    host.serves("v2");
    println!("    {compose:?}: from a script: {} requests, 0 lost", none_lost(load));
    assert_eq!(apps(engine).len(), 2, "{:?}", apps(engine));
    drop(host);
    engine.docker(&["image", "rm", &format!("{IMAGE}:v1")]);
}

/// The team rewrites its one file as two, with containers of the same names: what runs is found, and goes back, as it was started.
fn redrawn(engine: &Engine, compose: Compose) {
    let named = BLUE_AND_GREEN
        .replace("blue: {", "blue: {container_name: app-blue, ")
        .replace("green: {", "green: {container_name: app-green, ");
    let keys = "file = \"PROJECT/compose.yml\"\nimage_variable = \"APP_IMAGE\"\n";
    let host = Host::with(engine, compose, &[("compose.yml", &named)], keys);
    host.install().ok();
    host.deploy("v1");
    host.deploy("v2");
    let load = host.load();
    let before = apps(engine);
    let two_files = &ALL[2];
    two_files.files.iter().for_each(|(name, text)| host.write(name, text));
    host.configure(two_files.keys);
    host.install().ok();
    assert_eq!(apps(engine), before);
    let green = host.instance("green");
    assert_eq!((green["healthy"].as_bool(), green["version"].as_str()), (Some(true), Some("v2")), "{green}");
    host.tool("rollback", &[]).ok();
    host.serves("v1");
    host.tool("stop-instance", &["green"]).ok();
    host.tool("rollback", &[]).ok();
    host.serves("v2");
    // A release that does not come up leaves its standby as it was.
    host.tool("deploy", &["--ref", "ends"]).fails(3, &["exit code 3"]);
    host.tool("rollback", &[]).ok();
    host.serves("v1");
    host.deploy("v3");
    host.tool("rollback", &[]).ok();
    host.serves("v1");
    host.deploy("v2");
    host.deploy("v3");
    println!("    {compose:?}: one file made two: {} requests, 0 lost", none_lost(load));
    assert_eq!(apps(engine).len(), 2, "{:?}", apps(engine));
}

/// What would deploy, and not go back, or not start, is told before anything is laid; what Compose says is quoted whole.
fn refused(engine: &Engine, compose: Compose) {
    let host = Host::with(engine, compose, &[], "");
    let one = |image: &str, more: &str| {
        let service = |name: &str, port: &str| format!("  {name}:\n    {image}\n    ports: [\"{port}:8080\"]\n");
        format!("services:\n{}{}{more}", service("blue", "8081"), service("green", "8082"))
    };
    let by_image = "file = \"PROJECT\"\nimage_variable = \"V\"\n";
    let by_tag = "file = \"PROJECT\"\ntag_variable = \"V\"\n";
    let both_apps = "services: {app: {image: \"${V}\", ports: [\"8081:8080\"]}}\n";
    let cases: [(String, String, &[&str]); 14] = [
        (
            one("image: IMAGE_NAME", ""),
            by_image.to_owned(),
            &["cannot use service blue of ", "its image is", "must come from image_variable: write `image: ${V}`"],
        ),
        (
            one("image: IMAGE_NAME:v1", ""),
            by_tag.to_owned(),
            &["must come from tag_variable: write `image: ", "/user/dailry:${V}`"],
        ),
        (
            one("image: IMAGE_NAME:${V:-latest}", ""),
            by_image.to_owned(),
            &["V is only the tag of its image", "set tag_variable = \"V\" instead"],
        ),
        (one("image: ${V}:${T:-latest}", ""), by_image.to_owned(), &["becomes", "cutover-probe:latest"]),
        (one("image: ${V}", ""), by_tag.to_owned(), &["set image_variable = \"V\" instead of tag_variable"]),
        (
            one("image: other/app:${V}", ""),
            by_tag.to_owned(),
            &["its image becomes other/app:cutover-probe", "must become"],
        ),
        (one("build: .", ""), by_image.to_owned(), &["it has no image: write `image: ${V}`, beside `build`"]),
        (
            one("image: ${V}", ""),
            format!("{by_image}pull = \"build\"\n"),
            &["it has no `build`, which pull = \"build\" in [compose] needs"],
        ),
        (
            one("image: ${V}", "").replace("8082", "8083"),
            by_image.to_owned(),
            &["cannot use service green", "publishes port 8083, but [instances] says 8082"],
        ),
        (
            both_apps.to_owned(),
            format!("{by_image}service = \"app\"\n"),
            &["publishes port 8081, but [instances] says 8082", "set port_variable in [compose]"],
        ),
        (
            both_apps.to_owned(),
            format!("{by_image}service = \"app\"\nport_variable = \"PORT\"\n"),
            &["says 8082: write `ports: [\"${PORT}:"],
        ),
        (
            both_apps.to_owned(),
            by_image.to_owned(),
            &["cannot find service blue in ", "there are app", "service in [compose]"],
        ),
        (one("imago: ${V}", ""), by_image.to_owned(), &["cannot use ", "imago"]),
        (
            one("image: ${V}\n    command: \"${UNSET} ${NEEDED:?must be set}\"", ""),
            by_image.to_owned(),
            &["NEEDED", "must be set"],
        ),
    ];
    for (text, keys, said) in &cases {
        host.write("compose.yml", text);
        host.configure(keys);
        host.install().fails(2, said);
        assert!(!host.home().exists(), "{text}");
    }
    if compose == Compose::V1 {
        host.write("compose.yml", &format!("name: shop\nversion: \"3.8\"\n{}", one("image: ${V}", "")));
        host.configure(by_image);
        host.install().fails(2, &["docker-compose: The Compose file ", " is invalid because: | ", "name"]);
    }
    // What comes later, or is not there yet, is no reason to refuse.
    fs::remove_file(host.project().join("compose.yml")).unwrap();
    host.configure(by_image);
    host.install().ok();
    // A file that was right at install can be wrong at the first deploy.
    host.write("docker-compose.yaml", &one("image: IMAGE_NAME", ""));
    host.tool("deploy", &["--ref", "v1"]).fails(2, &["must come from image_variable"]);
    host.write("docker-compose.yaml", &one("image: ${V}", ""));
    host.deploy("v1");
}

/// Without a name for it each deploy builds `latest`; what was built is kept as long as its release, under no name but ours.
fn built_with_a_tag(engine: &Engine) {
    let file = "services:\n  app:\n    build: PROJECT/../../image\n    image: IMAGE_NAME:${TAG}\n    ports: [\"${PORT}:8080\"]\n";
    let keys =
        "file = \"PROJECT\"\nservice = \"app\"\ntag_variable = \"TAG\"\nport_variable = \"PORT\"\npull = \"build\"\n";
    for compose in engine.composes() {
        let host = Host::with(engine, compose, &[("compose.yaml", file)], keys);
        host.install().ok();
        let build = |version: &str, behaviour: &str, more: &str| {
            engine.lay_context(version, behaviour, more);
            host.tool("deploy", &[])
        };
        build("first", "", "").ok();
        host.serves("first");
        let load = host.load();
        build("second", "", "").ok();
        host.serves("second");
        let green = container(&host, "green");
        // The same again is the same image.
        build("second", "", "").ok();
        assert_eq!(container(&host, "green"), green);
        build("ends", "exit", "").fails(3, &["exit code 3"]);
        build("broken", "", "RUN [\"/busybox\", \"ls\", \"/no/such/file\"]")
            .fails(3, &["cannot build", "/no/such/file"]);
        host.tool("deploy", &["--ref", &format!("sha256:{}", "0".repeat(64))])
            .fails(2, &["cannot build", "name a tag"]);
        host.serves("second");
        host.tool("rollback", &[]).ok();
        host.serves("first");
        for version in ["third", "fourth", "fifth"] {
            build(version, "", "").ok();
            host.serves(version);
        }
        println!("    {compose:?}: built as latest: {} requests, 0 lost", none_lost(load));
    }
}

/// With the health check of docs/containers.md, Docker starts again what only hangs.
fn hung(engine: &Engine) {
    let more = "init: true, healthcheck: {test: [CMD, /busybox, sh, -c, \"/busybox timeout 2 /busybox wget -q -O /dev/null \
                http://127.0.0.1:8080/ || /busybox kill -9 -1\"], interval: 1s, timeout: 5s}, image:";
    let file = BLUE_AND_GREEN.replace("image: \"${", &format!("{more} \"${{"));
    let keys = "file = \"PROJECT\"\nimage_variable = \"APP_IMAGE\"\n";
    let host = Host::with(engine, engine.compose(), &[("compose.yaml", &file)], keys);
    host.install().ok();
    host.deploy("v1");
    host.deploy("v2");
    let enabled = host.enabled();
    let init = engine.inspect("{{.State.Pid}}", &container(&host, &enabled));
    let began = Instant::now();
    assert!(Command::new("pkill").args(["-STOP", "-P", &init]).status().unwrap().success());
    await_that("it is started again", || host.instance(&enabled)["restarts"] == 1);
    await_that("it is healthy again", || host.instance(&enabled)["healthy"] == true);
    host.serves("v2");
    println!("    hung, and served again after {:.1} s", began.elapsed().as_secs_f64());
}
