//! Containers on a real engine: what README promises of the compose runner, with dockerd, a registry, and images of our own.
//!
//! All of it runs in namespaces of its own: the network, the processes, and the places that dockerd and the tools write to.
//! When the first process of these ends, whatever is left ends with it.
#![allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::string_slice,
    clippy::unwrap_used
)]

mod broken;
mod daemon;
mod deploys;
mod engine;
mod host;
mod killed;
#[path = "../load/mod.rs"]
mod load;
mod people;
#[path = "../ran.rs"]
mod ran;
mod refusals;
mod retained;
#[path = "../sample.rs"]
mod sample;
mod setups;
mod store;
#[path = "../torture/trace.rs"]
mod trace;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use clap::{Parser, ValueEnum};

use engine::{Compose, Engine};
use sample::{Random, any_seed};

/// Run a real Docker and tell whether containers get what the README promises
#[derive(Parser)]
#[command(name = "e2e-docker")]
struct Arguments {
    /// What to tell [default: all]
    stories: Vec<Story>,
    /// With this Compose only [default: both generations]
    #[arg(long)]
    compose: Option<Compose>,
    /// Show a deploy, a broken image, a crash and a rollback, and prove nothing else
    #[arg(long)]
    demo: bool,
    /// How many deploys are made under load
    #[arg(long, default_value_t = deploys::COUNT)]
    deploys: u32,
    /// At how many points a deploy is killed; 0: at all
    #[arg(long, default_value_t = killed::POINTS)]
    points: usize,
    /// Deploys, kills, and only so many of the other stories
    #[arg(long)]
    sample: Option<usize>,
    /// What chooses the points and the other stories; the same one chooses the same [default: another one each time]
    #[arg(long)]
    seed: Option<u64>,
    /// Said by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Story {
    /// Deploys under load, with both generations of Compose
    Deploys,
    /// Compose files of all shapes, with both generations of Compose
    Setups,
    /// Images that fail in all ways
    Broken,
    /// What cannot be done, and how that is told
    Refusals,
    /// Images that stay and images that go
    Retained,
    /// What people do beside it: the old script, reboots, logs
    People,
    /// deploy, killed at each step
    Killed,
    /// dockerd, killed and back
    Daemon,
    /// dockerd with another image store
    Store,
}

impl Arguments {
    /// What is told, in the order in which it is.
    fn stories(&self, seed: u64) -> Vec<Story> {
        let all = Story::value_variants().iter().copied();
        let wanted = all.filter(|one| self.stories.is_empty() || self.stories.contains(one));
        let Some(count) = self.sample else { return wanted.collect() };
        let (always, others): (Vec<_>, Vec<_>) = wanted.partition(|one| matches!(one, Story::Deploys | Story::Killed));
        let chosen = Random::of(seed).shuffled(others).into_iter().take(count);
        always.into_iter().chain(chosen).collect()
    }
}

/// Says to the program that it is inside, and where its place is.
const INSIDE: &str = "CUTOVER_E2E_DOCKER";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("e2e-docker: cannot run an engine: this takes root; sudo -E make e2e-docker");
        return ExitCode::from(2);
    }
    let Some(place) = std::env::var_os(INSIDE).map(PathBuf::from) else { return go_inside() };
    seclude(&place);
    let engine = Engine::start(&place, arguments.compose);
    if arguments.demo {
        return demo(&engine);
    }
    // Once: the same again would be another image, and leave this one without a name.
    engine.push("db", "", "");
    let seed = arguments.seed.unwrap_or_else(any_seed);
    let stories = arguments.stories(seed);
    println!("e2e-docker: seed {seed}: {stories:?}");
    let mut told = 0;
    for story in stories {
        println!("e2e-docker: {story:?}");
        let began = Instant::now();
        match story {
            Story::Deploys => deploys::run(&engine, arguments.deploys),
            Story::Setups => setups::run(&engine),
            Story::Broken => broken::run(&engine),
            Story::Refusals => refusals::run(&engine),
            Story::Retained => retained::run(&engine),
            Story::People => people::run(&engine),
            Story::Killed => killed::run(&engine, arguments.points, seed),
            Story::Daemon => daemon::run(&engine),
            Story::Store => store::run(&engine),
        }
        told += 1;
        println!("e2e-docker: {story:?}: as promised, {:.0} s", began.elapsed().as_secs_f64());
    }
    drop(engine);
    println!("{told} passed, 0 failed");
    ExitCode::SUCCESS
}

/// Runs the demo in here, with three images in the registry.
fn demo(engine: &Engine) -> ExitCode {
    for (version, behaviour) in [("v1", ""), ("v2", ""), ("v3", "exit")] {
        engine.push(version, behaviour, "");
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/docker/demo.sh");
    let mut command = Command::new(script);
    command.arg(Path::new(env!("CARGO_BIN_EXE_install")).parent().unwrap()).arg(engine::IMAGE);
    command.env("PATH", engine.path(engine.compose())).env("HOME", engine.place()).env_remove("DOCKER_HOST");
    let status = command.stdin(Stdio::null()).status().unwrap();
    ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap())
}

/// Runs this program once more in namespaces of its own, and clears up behind it.
fn go_inside() -> ExitCode {
    let id = std::process::id();
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/e2e-docker-{id}"));
    fs::create_dir_all(&place).unwrap();
    // The shell is there to reap what loses its parent.
    let status = Command::new("unshare")
        .args([
            "--mount",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "sh",
            "-c",
            "\"$@\"; exit $?",
            "sh",
        ])
        .arg(std::env::current_exe().unwrap())
        .args(std::env::args_os().skip(1))
        .env(INSIDE, &place)
        .stdin(Stdio::null())
        .status()
        .unwrap();
    fs::remove_dir_all(&place).unwrap();
    let groups = format!("find /sys/fs/cgroup -depth -type d -path '*/{}*' -exec rmdir {{}} +", engine::cgroup(&place));
    assert!(Command::new("sh").args(["-c", &groups]).status().unwrap().success(), "cgroups are left behind");
    ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap())
}

/// Hides the places that are written to behind ones that are gone when this ends: in memory, for the engine flushes much.
fn seclude(place: &Path) {
    let script = r#"
        set -e
        ip link set lo up
        mount -t tmpfs none "$1"
        cd "$1"
        mount -t tmpfs none /run
        mkdir -p upper/etc work/etc upper/lib work/lib
        mount -t overlay -o lowerdir=/etc,upperdir=upper/etc,workdir=work/etc none /etc
        mount -t overlay -o lowerdir=/var/lib,upperdir=upper/lib,workdir=work/lib none /var/lib
    "#;
    let status = Command::new("sh").args(["-c", script, "sh"]).arg(place).status().unwrap();
    assert!(status.success(), "cannot hide the machine's own places");
}
