//! history: past deploys and rollbacks, the newest first.

use std::num::NonZeroUsize;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use cutover::app::{App, Home};
use cutover::outcome::{self, Exit};
use cutover::{history, output};

const TOOL: &str = env!("CARGO_BIN_NAME");
const LINES: NonZeroUsize = NonZeroUsize::new(20).unwrap();

/// Print past deploys and rollbacks, the newest first
#[derive(Parser)]
#[command(name = TOOL, version)]
struct Arguments {
    /// Print this many, if there are so many
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = LINES)]
    lines: NonZeroUsize,
    /// Print JSON: what was recorded, with each whole reason
    #[arg(long)]
    json: bool,
    /// Print the releases that `rollback --to` can go back to instead, a line each
    #[arg(long, conflicts_with_all = ["lines", "json"])]
    releases: bool,
    #[command(flatten)]
    home: Home,
}

fn main() -> ExitCode {
    outcome::main(TOOL, run)
}

fn run(arguments: Arguments) -> Result<Exit> {
    let app = App::open(&arguments.home)?;
    if arguments.releases {
        return print_releases(&app);
    }
    let past = history::past(&app, arguments.lines.get())?;
    if arguments.json {
        outcome::print(&output::json(&past)?)?;
    } else if !past.is_empty() {
        outcome::print(&history::table(&past))?;
    }
    if past.is_empty() {
        outcome::say(TOOL, "nothing is recorded yet");
        return Ok(Exit::No);
    }
    Ok(Exit::Done)
}

fn print_releases(app: &App) -> Result<Exit> {
    let releases = history::releases(app)?;
    if releases.is_empty() {
        outcome::say(TOOL, "there is no release to go back to");
        return Ok(Exit::No);
    }
    let lines: String = releases.iter().map(|id| format!("{id}\n")).collect();
    outcome::print(&lines)?;
    Ok(Exit::Done)
}
