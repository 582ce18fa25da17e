//! status: both instances side by side.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use cutover::app::{App, Home};
use cutover::outcome::{self, Exit};
use cutover::output;
use cutover::overview::Overview;

/// How often a watched status is drawn again.
const REDRAW: Duration = Duration::from_secs(1);
/// Terminal control: to the upper left corner, and clear what is below.
const HOME_AND_CLEAR: &str = "\x1b[H\x1b[J";

/// Show both instances side by side
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version)]
struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// On a terminal, draw again every second
    #[arg(long, conflicts_with = "json")]
    watch: bool,
    #[command(flatten)]
    home: Home,
}

fn main() -> ExitCode {
    outcome::main(env!("CARGO_BIN_NAME"), run)
}

fn run(arguments: Arguments) -> Result<Exit> {
    let app = App::open(&arguments.home)?;
    while arguments.watch && std::io::stdout().is_terminal() {
        outcome::print(&format!("{HOME_AND_CLEAR}{}", Overview::of(&app)?.table()))?;
        std::thread::sleep(REDRAW);
    }
    let overview = Overview::of(&app)?;
    outcome::print(&if arguments.json { output::json(&overview)? } else { overview.table() })?;
    Ok(Exit::Done)
}
