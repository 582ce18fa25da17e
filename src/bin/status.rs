//! status: both instances side by side.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use cutover::app::{App, Home};
use cutover::outcome::{self, Exit};
use cutover::output;
use cutover::overview::{Overview, live};

/// Show both instances side by side
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version)]
struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// On a terminal, show everything as it changes, until q is pressed
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
    if arguments.watch && std::io::stdout().is_terminal() {
        live::watch(&app)?;
        return Ok(Exit::Done);
    }
    let overview = Overview::of(&app)?;
    outcome::print(&if arguments.json { output::json(&overview)? } else { overview.table() })?;
    Ok(Exit::Done)
}
