//! Real apps, installed from the registries, each deployed as docs/apps.md says: deployed again under load, rolled back,
//! reloaded, killed. It prints a table and fails when a request was lost to a cutover, a rollback or a reload, or when the
//! page is wrong.
#![allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::string_slice,
    clippy::unwrap_used
)]

mod apps;
mod idle;
#[path = "../load/mod.rs"]
mod load;
mod page;
#[path = "../ran.rs"]
mod ran;
#[path = "../sample.rs"]
mod sample;
#[path = "../site.rs"]
#[allow(dead_code)]
mod site;
mod stream;
mod trial;

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::thread;

use clap::Parser;
use cutover::output;

use apps::{APPS, App};
use page::Page;
use sample::{Share, any_seed};
use trial::Outcome;

/// Try real apps, and fail when one loses a request
#[derive(Parser)]
#[command(name = "try-apps")]
struct Arguments {
    /// Only the app of this name; may be said again
    #[arg(long)]
    app: Vec<String>,
    /// Only those that are built in a minute, as the gate takes them
    #[arg(long)]
    light: bool,
    /// Only so many of them
    #[arg(long)]
    sample: Option<usize>,
    /// What chooses these; the same one chooses the same [default: another one each time]
    #[arg(long, requires = "sample")]
    seed: Option<u64>,
    /// Said by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// How many apps are tried at the same time: half of it is waiting.
const LANES: usize = 2;

fn main() -> ExitCode {
    let page = Page::read();
    let known: BTreeSet<&str> = APPS.iter().map(|app| app.name).collect();
    let shown = page.apps();
    assert_eq!(shown.iter().map(String::as_str).collect::<BTreeSet<_>>(), known, "docs/apps.md and the apps differ");
    let arguments = Arguments::parse();
    if let Some(name) = arguments.app.iter().find(|name| !known.contains(name.as_str())) {
        eprintln!("try-apps: cannot find the app {name}: there are {}", shown.join(", "));
        return ExitCode::from(2);
    }
    let chosen = chosen(&arguments);
    let outcomes = side_by_side(chosen, &page);
    println!("{}", table(&outcomes));
    let is_held = !outcomes.is_empty() && outcomes.iter().all(|outcome| outcome.failures.is_empty());
    if is_held { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn chosen(arguments: &Arguments) -> Vec<&'static App> {
    let is_wanted = |app: &&App| {
        (arguments.app.is_empty() || arguments.app.iter().any(|name| name == app.name))
            && (app.is_light || !arguments.light)
    };
    let all: Vec<&App> = APPS.iter().filter(is_wanted).collect();
    let Some(count) = arguments.sample else { return all };
    let seed = arguments.seed.unwrap_or_else(any_seed);
    println!("try-apps: {count} of {} apps; the same ones again: --sample {count} --seed {seed}", all.len());
    Share::Sample { count, seed }.of(all)
}

/// Tries apps, some at a time, and returns what became of them in their order.
fn side_by_side(apps: Vec<&'static App>, page: &Page) -> Vec<Outcome> {
    set_up(&apps);
    let waiting = Mutex::new(apps.into_iter().enumerate());
    let ended = Mutex::new(Vec::new());
    let lane = || {
        loop {
            let next = waiting.lock().unwrap().next();
            let Some((at, app)) = next else { return };
            let mut outcome = Outcome::of(app);
            if catch_unwind(AssertUnwindSafe(|| trial::run(&mut outcome, page))).is_err() {
                outcome.failures.push("it panicked, as above".to_owned());
            }
            eprintln!("try-apps: {}: {}", app.name, outcome.in_words());
            outcome.failures.iter().for_each(|failure| eprintln!("try-apps: FAILURE: {}: {failure:.2000}", app.name));
            ended.lock().unwrap().push((at, outcome));
        }
    };
    thread::scope(|scope| (0..LANES).for_each(|_| drop(scope.spawn(lane))));
    let mut ended = ended.into_inner().unwrap();
    ended.sort_by_key(|(at, _)| *at);
    ended.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Installs what these apps need of the system.
fn set_up(apps: &[&App]) {
    let needs: BTreeSet<&str> = apps.iter().flat_map(|app| app.needs).copied().collect();
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/set-up.sh"));
    assert!(command.args(needs).status().unwrap().success(), "what the apps need cannot be installed");
}

fn table(outcomes: &[Outcome]) -> String {
    let heading =
        ["app", "is", "first time", "requests", "lost", "lost to kill -9", "memory", "deploy", "again", "all"];
    let idle = ["closes an idle connection", "32 kept ones make others wait", ""];
    let heading = heading.into_iter().chain(idle).map(str::to_owned).collect();
    let rows = outcomes.iter().map(Outcome::row);
    output::table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>())
}
