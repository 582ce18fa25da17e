//! supervise: keep an instance running in the foreground.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use cutover::app::{App, Home};
use cutover::outcome::{self, Exit};
use cutover::runner;

/// Keep an instance running in the foreground, until SIGTERM or SIGINT
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version)]
struct Arguments {
    /// The instance
    instance: String,
    #[command(flatten)]
    home: Home,
}

fn main() -> ExitCode {
    outcome::main(env!("CARGO_BIN_NAME"), run)
}

fn run(arguments: Arguments) -> Result<Exit> {
    let app = App::open_as_run(&arguments.home)?;
    runner::supervise(&app, app.instance(&arguments.instance)?)?;
    Ok(Exit::Done)
}
