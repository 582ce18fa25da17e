//! What cannot be done is told in one line with the right exit code, and the service is untouched.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::thread;

use crate::engine::{Engine, IMAGE, REGISTRY};
use crate::host::{Host, none_lost};
use crate::ran::Ran;

pub fn run(engine: &Engine) {
    for version in ["v1", "v2", "v3"] {
        engine.push(version, "", "");
    }
    for compose in engine.composes() {
        let host = Host::new(engine, compose, "", "");
        host.deploy("v1");
        host.deploy("v2");
        let before = host.state();
        let load = host.load();
        references(&host);
        registries(&host);
        compose_files(&host);
        composes(&host);
        assert_eq!(host.state(), before);
        println!("    {compose:?}: {} requests, 0 lost", none_lost(load));
    }
    ports(engine);
    sockets(engine);
    dead_engines(engine);
    configurations(engine);
}

/// Runs a deploy that must fail, and change nothing.
#[track_caller]
fn refused(host: &Host, arguments: &[&str], code: i32, parts: &[&str]) {
    let before = host.state();
    let ran = host.tool("deploy", arguments);
    ran.fails(code, parts);
    assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
    assert_eq!(host.state(), before);
    host.serves("v2");
}

fn references(host: &Host) {
    refused(host, &["--ref", "nope"], 3, &[&format!("cannot pull {IMAGE}:nope: "), "manifest", "not found"]);
    refused(host, &["--ref", "a b"], 2, &["cannot use \"a b\" as an image's tag: expected letters"]);
    refused(host, &["--ref", "-x"], 2, &[]);
    refused(
        host,
        &["--ref", "sha256:12"],
        2,
        &["cannot use \"sha256:12\" as an image's digest: expected sha256: and 64 digits"],
    );
    let unknown = format!("sha256:{}", "0".repeat(64));
    refused(host, &["--ref", &unknown], 3, &[&format!("cannot pull {IMAGE}@{unknown}: ")]);
    for path in [["--from", "/etc/hosts"], ["--watch", "/etc"]] {
        refused(host, &path, 2, &["cannot make an image from a path"]);
    }
    // No tag is `latest`, as for Docker, and there is none.
    refused(host, &[], 3, &[&format!("cannot pull {IMAGE}:latest")]);
    host.tool("rollback", &["--to", "20200101T000000Z-0123456789ab"]).fails(3, &["there is no such release"]);
}

fn registries(host: &Host) {
    host.engine.stop_registry();
    refused(host, &["--ref", "v3"], 3, &[&format!("cannot pull {IMAGE}:v3: "), "connection refused"]);
    // One that wants to know who asks.
    let listener = TcpListener::bind(REGISTRY).unwrap();
    let refusing = thread::spawn(move || {
        listener.set_nonblocking(false).unwrap();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let count = std::io::Read::read(&mut stream, &mut request).unwrap_or(0);
            if request[..count].starts_with(b"END") {
                return;
            }
            let answer = "HTTP/1.1 401 Unauthorized\r\nDocker-Distribution-Api-Version: registry/2.0\r\nWWW-Authenticate: Basic realm=\"team\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
            let _ = std::io::Write::write_all(&mut stream, answer.as_bytes());
        }
    });
    refused(host, &["--ref", "v3"], 3, &[&format!("cannot pull {IMAGE}:v3: "), "auth"]);
    let mut end = std::net::TcpStream::connect(REGISTRY).unwrap();
    std::io::Write::write_all(&mut end, b"END").unwrap();
    refusing.join().unwrap();
    host.engine.start_registry();
}

fn compose_files(host: &Host) {
    let file = host.compose_file();
    let text = fs::read_to_string(&file).unwrap();
    let path = file.display().to_string();
    let with = |text: &str, code: i32, parts: &[&str]| {
        fs::write(&file, text).unwrap();
        refused(host, &["--ref", "v3"], code, parts);
    };
    with(
        &text.replace("  dailry-green:", "  dailry-grun:"),
        2,
        &[&format!("cannot find service dailry-green in {path}"), "dailry-grun"],
    );
    with("services: [", 2, &[&format!("cannot use {path}: ")]);
    with("services:\n  dailry-blue:\n    colour: blue\n", 2, &[&format!("cannot use {path}: ")]);
    fs::remove_file(&file).unwrap();
    refused(host, &["--ref", "v3"], 2, &[&format!("cannot find {path}, the Compose file")]);
    // The image is not the variable's.
    for (image, said) in [
        (
            format!("image: {IMAGE}:v1"),
            "whatever DAILRY_IMAGE says, but must come from image_variable: write `image: ${DAILRY_IMAGE}`",
        ),
        (format!("image: {IMAGE}:${{DAILRY_IMAGE}}"), "DAILRY_IMAGE is only the tag of its image"),
        (
            "image: ${DAILRY_IMAGE}:latest".to_owned(),
            ":cutover-probe:latest with the tag cutover-probe, but must become",
        ),
        ("build: .".to_owned(), "it has no image: write `image: ${DAILRY_IMAGE}`, beside `build`"),
    ] {
        with(
            &text.replace("image: ${DAILRY_IMAGE}", &image),
            2,
            &[&format!("cannot use service dailry-blue of {path}: "), said],
        );
    }
    // Compose says what is wrong behind what it says first, in several lines, or beside warnings.
    with(&text.replace("ports:", "portz:"), 2, &["portz"]);
    with(&format!("nonsense: {{}}\n{text}"), 2, &["nonsense"]);
    with(
        &text.replace("env_file: .env", "env_file: .env\n    labels: {a: \"${UNKNOWN}\", b: \"${NEEDED:?say it}\"}"),
        2,
        &["NEEDED", "say it"],
    );
    fs::write(&file, text).unwrap();
}

/// A machine without Compose.
fn composes(host: &Host) {
    let hidden: Vec<&str> = ["/usr/bin/docker-compose", "/usr/local/bin/docker-compose"]
        .into_iter()
        .filter(|path| Path::new(path).exists())
        .collect();
    let run = |program: &str, words: &[&str]| assert!(Command::new(program).args(words).status().unwrap().success());
    // In this namespace only.
    hidden.iter().for_each(|path| run("mount", &["--bind", "/dev/null", path]));
    let mut command = host.command("deploy", &["--ref", "v3"]);
    // No Compose lies beside this docker.
    let path = host.engine.place().join("without");
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("docker"), "#!/bin/sh\nexit 1\n").unwrap();
    fs::set_permissions(path.join("docker"), fs::Permissions::from_mode(0o755)).unwrap();
    let ran = Ran::run(command.env("PATH", &path));
    hidden.iter().for_each(|path| run("umount", &[path]));
    ran.fails(3, &["cannot find Docker Compose: install"]);
}

/// What a service publishes must be what nginx is told.
fn ports(engine: &Engine) {
    let host = Host::new(engine, engine.compose(), "", "");
    host.deploy("v1");
    host.deploy("v2");
    let file = host.compose_file();
    let text = fs::read_to_string(&file).unwrap();
    for (published, said) in [
        ("9999:8080", "publishes port 9999, but [instances] says 8081"),
        ("127.0.0.9:8081:8080", "publishes port 127.0.0.9:8081, but [instances] says 8081"),
        ("8080", "but [instances] says 8081"),
        // The enabled instance's.
        ("8082:8080", "publishes port 8082, but [instances] says 8081"),
    ] {
        fs::write(&file, text.replace("8081:8080", published)).unwrap();
        let before = engine.inspect("{{.Id}}", "dailry-green");
        let ran = host.tool("deploy", &["--ref", "v3"]);
        assert!(ran.stderr.lines().any(|line| line.contains(said)), "{ran:?}");
        assert_eq!(ran.code, 2, "{ran:?}");
        host.serves("v2");
        assert_eq!(engine.inspect("{{.Id}}", "dailry-green"), before, "the enabled instance was touched");
        assert_eq!(host.enabled(), "dailry-green");
    }
    // With its file mended all is as before, and goes on.
    fs::write(&file, text).unwrap();
    host.deploy("v3");
}

/// A user who may not use Docker.
fn sockets(engine: &Engine) {
    let host = Host::unlaid(engine, engine.compose(), "", "");
    let directory = host.home().parent().unwrap().to_owned();
    let number = 4711;
    let user = ["--uid", &number.to_string(), "--no-create-home", "--home-dir", directory.to_str().unwrap(), "potados"];
    assert!(Command::new("useradd").args(user).status().unwrap().success());
    chown(&directory, Some(number), Some(number)).unwrap();
    for path in directory.ancestors().take_while(|path| path.exists()) {
        let mode = fs::metadata(path).unwrap().permissions().mode();
        assert!(
            mode & 0o001 != 0 || path == directory,
            "{} is closed to others: this story needs the project in an open place",
            path.display()
        );
    }
    let config = host.config();
    let installed = host.tool("install", &["--config", config.to_str().unwrap(), "--user", "potados"]);
    assert!(
        installed.stderr.contains(
            "deploys will fail until this is mended: cannot reach Docker at /var/run/docker.sock: permission denied"
        ),
        "{installed:?}"
    );
    installed.ok();
    let said = "cannot reach Docker at /var/run/docker.sock: permission denied; `usermod -aG docker potados` lets potados use it";
    host.tool("deploy", &["--ref", "v1"]).fails(3, &[said]);
    let status = host.status();
    assert!(status["instances"][0]["health"].as_str().unwrap().contains("permission denied"), "{status}");
    assert!(Command::new("usermod").args(["-aG", "docker", "potados"]).status().unwrap().success());
    host.deploy("v1");
}

/// An engine that is dead, or hangs.
fn dead_engines(engine: &Engine) {
    let host = Host::new(engine, engine.compose(), "", "");
    host.deploy("v1");
    host.deploy("v2");
    let before = host.state();
    engine.stop_dockerd();
    for (tool, arguments) in [
        ("deploy", &["--ref", "v3"][..]),
        ("update-instance", &["--ref", "v3"]),
        ("start-instance", &[]),
        ("stop-instance", &["--force"]),
        ("rollback", &[]),
        ("pid", &[]),
        ("logs", &[]),
        ("bootup", &[]),
    ] {
        let ran = host.tool(tool, arguments);
        ran.fails(3, &["cannot reach Docker at /var/run/docker.sock: ", "is Docker running?"]);
    }
    let status = host.status();
    assert!(status["instances"][0]["health"].as_str().unwrap().contains("is Docker running?"), "{status}");
    assert_eq!(host.enabled(), "dailry-green");
    // Installing again is no business of Docker's.
    let again = host.tool("install", &["--config", host.config().to_str().unwrap()]);
    assert!(again.stderr.contains("deploys will fail until this is mended"), "{again:?}");
    assert_eq!(again.code, 0, "{again:?}");
    engine.start_dockerd(&[]);
    host.tool("bootup", &[]).ok();
    host.serves("v2");
    let links = |state: &[String]| state.iter().filter(|line| line.contains(": ")).cloned().collect::<Vec<_>>();
    assert_eq!(links(&host.state()), links(&before));
}

/// Mistakes in the configuration are named with their line.
fn configurations(engine: &Engine) {
    let host = Host::unlaid(engine, engine.compose(), "", "");
    let text = fs::read_to_string(host.config()).unwrap();
    let with = |from: &str, to: &str, part: &str| {
        assert!(text.contains(from), "{from}");
        fs::write(host.config(), text.replace(from, to)).unwrap();
        let ran = host.tool("install", &["--config", host.config().to_str().unwrap()]);
        ran.fails(2, &[part]);
    };
    with("image_variable = \"DAILRY_IMAGE\"", "image_variable = \"DAILRY-IMAGE\"", "expected a variable's name");
    with("image_variable = \"DAILRY_IMAGE\"\n", "", "missing key `image_variable`");
    with(&format!("image = \"{IMAGE}\""), &format!("image = \"{IMAGE}:v1\""), "expected an image without a tag");
    with("[compose]", "[compose]\ndocker_host = \"tcp://10.0.0.1:2375\"", "expected unix:///PATH");
    with("[compose]", "[compose]\npull = \"sometimes\"", "unknown variant `sometimes`");
    with("[compose]", "[composed]", "unknown key `composed`");
    fs::write(host.config(), "app = \"dailry\"\nrunner = \"compose\"\n").unwrap();
    host.tool("install", &["--config", host.config().to_str().unwrap()]).fails(2, &["missing key `compose`"]);
    // Laid out after all, so that there is something to take away.
    fs::write(host.config(), text).unwrap();
    host.tool("install", &["--config", host.config().to_str().unwrap()]).ok();
}
