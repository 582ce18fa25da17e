//! What the stories have in common: a server with a user, a repository and an app, and what is expected of it.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::load::{Load, Plan, Report};
use crate::machine::{Machine, await_that, host};
use crate::ran::Ran;

/// The name under which the app is asked for.
pub const NAME: &str = "cafeteria.example";
/// The app's user.
pub const USER: &str = "potados";
/// How long things may take that take a moment.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The configuration, in the admin's home. `more` is appended to it.
pub fn config(more: &str) -> String {
    format!(
        "app = \"cafeteria\"\n{more}\n[source]\ngit = \"/home/{USER}/cafeteria-server\"\n\
         [build]\ncommand = \"npm ci\"\n[run]\ncommand = \"npm start -- --port=$PORT\"\nstop_timeout = \"5s\"\n\
         [health]\ntimeout = \"30s\"\n[deploy]\ndrain_timeout = \"2s\"\nsoak = \"1s\"\n"
    )
}

/// A server with an admin, the app's user, and version 1 of a Node app in a repository of that user's.
pub fn fresh(machine: &Machine, config: &str) {
    let home = format!("home/{USER}/cafeteria-server");
    machine
        .run(&format!("useradd --create-home --shell /bin/bash {USER} && useradd --create-home --groups sudo admin"))
        .ok();
    machine.run("echo 'admin ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/admin && chmod 440 /etc/sudoers.d/admin").ok();
    let repository = machine.root().join(home);
    fs::create_dir(&repository).unwrap();
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/apps/node");
    for file in ["package.json", "package-lock.json", "server.js"] {
        fs::copy(sample.join(file), repository.join(file)).unwrap();
    }
    machine.run(&format!("chown -R {USER}: /home/{USER}/cafeteria-server")).ok();
    machine.run_as(USER, "cd cafeteria-server && git init --quiet --initial-branch=main && git config user.name p && git config user.email p@example.org").ok();
    commit(machine, "v1", "");
    fs::write(machine.root().join("home/admin/cafeteria.toml"), config).unwrap();
}

/// Commits a version that behaves like this; empty: well.
pub fn commit(machine: &Machine, version: &str, behaviour: &str) {
    let script = format!(
        "cd cafeteria-server && echo {version} >VERSION && echo '{behaviour}' >BEHAVIOUR && git add . && git commit --quiet -m {version}"
    );
    machine.run_as(USER, &script).ok();
}

/// The archive and the package, made of the tools that all tests have.
pub fn dist() {
    host("make", &["--quiet", "-C", env!("CARGO_MANIFEST_DIR"), "dist", "BUILD=--bins --examples"]);
}

/// Copies the archive to the admin's home and unpacks it there.
pub fn unpack(machine: &Machine) {
    copy_archive(machine);
    machine.run_as("admin", "tar -xf cutover-*.tar.gz").ok();
}

/// Copies the archive to the admin's home.
pub fn copy_archive(machine: &Machine) {
    let archive = made("tar.gz");
    let to = machine.root().join("home/admin").join(archive.file_name().unwrap());
    fs::copy(&archive, to).unwrap();
}

/// What `make dist` made of this kind.
pub fn made(extension: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/dist");
    let found = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    found.into_iter().find(|path| path.to_str().unwrap().ends_with(extension)).unwrap()
}

/// The lines of docs/install.md for a server, which are its first block.
pub fn lines_for_a_server() -> Vec<String> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/install.md")).unwrap();
    let block = page.lines().skip_while(|line| !line.starts_with("    ")).take_while(|line| line.starts_with("    "));
    block.map(|line| line.trim().to_owned()).collect()
}

/// A tool of the app's, run by its user.
pub fn tool(machine: &Machine, words: &str) -> Ran {
    machine.run_as(USER, &format!(".cafeteria/bin/{words}"))
}

/// What `status --json` says.
pub fn status(machine: &Machine) -> Value {
    serde_json::from_str(&tool(machine, "status --json").ok()).unwrap()
}

/// What the app answers from outside; None: nothing good.
pub fn answer(machine: &Machine, port: u16) -> Option<String> {
    let url = format!("http://{}:{port}/", machine.address());
    let host = format!("Host: {NAME}");
    let asked = Command::new("curl").args(["-fsS", "--max-time", "30", "-H", &host, &url]).output().unwrap();
    asked.status.success().then(|| String::from_utf8_lossy(&asked.stdout).trim().to_owned())
}

/// Insists that this version is served now.
#[track_caller]
pub fn serves(machine: &Machine, version: &str) {
    assert_eq!(answer(machine, 80).as_deref(), Some(version));
}

/// Waits until this version is served.
#[track_caller]
pub fn comes_to_serve(machine: &Machine, version: &str) {
    await_that(&format!("{version} is served"), PATIENCE, || answer(machine, 80).as_deref() == Some(version));
}

/// Insists that SECURITY.md states of every unit that is laid, and nothing else than systemd rates it; returns what it states.
#[track_caller]
pub fn exposures_are_stated(machine: &Machine) -> BTreeMap<String, String> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("SECURITY.md")).unwrap();
    let mut stated = BTreeMap::new();
    for row in page.lines().filter(|line| line.starts_with("| `APP")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let units = cells[1].split('`').filter(|part| part.starts_with("APP"));
        stated.extend(units.map(|unit| (unit.replace("APP", "cafeteria"), cells[2].to_owned())));
    }
    let laid = machine.run("cd /etc/systemd/system && ls cafeteria*.service").ok();
    assert!(laid.lines().count() >= 2, "{laid}");
    for file in laid.lines() {
        // The template of the instances is no unit of its own.
        let units =
            if file == "cafeteria@.service" { vec!["cafeteria@A.service", "cafeteria@B.service"] } else { vec![file] };
        for unit in units {
            let rated = machine.run(&format!("systemd-analyze security --no-pager {unit}")).ok();
            let rating = rated.lines().last().unwrap();
            println!("    {rating}");
            let score = rating.rsplit_once(": ").unwrap().1.split_whitespace().next().unwrap();
            assert_eq!(stated.get(unit).map(String::as_str), Some(score), "SECURITY.md says otherwise than {rating}");
        }
    }
    stated
}

/// A load from outside.
pub fn load(machine: &Machine) -> Load {
    let Plan { kept_alive, fresh, .. } = Plan::on(SocketAddr::from((machine.address(), 80)));
    load_of(machine, kept_alive, fresh)
}

/// The same from so many connections that are used again, and so many that are not.
pub fn load_of(machine: &Machine, kept_alive: usize, fresh: usize) -> Load {
    let target = SocketAddr::from((machine.address(), 80));
    Load::start(Plan { host: NAME.to_owned(), kept_alive, fresh, ..Plan::on(target) })
}

/// Ends a load, and insists that nothing of it was lost.
#[track_caller]
pub fn none_lost(load: Load) -> Report {
    let report = load.stop();
    assert!(report.requests > 100 && report.failed() == 0, "{report}: {:?}", report.samples);
    report
}
