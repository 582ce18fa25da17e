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
    /// Keep nothing running, but have the other instance answer in its place before its unit ends
    #[arg(long)]
    hand_over: bool,
    #[command(flatten)]
    home: Home,
}

fn main() -> ExitCode {
    outcome::main(env!("CARGO_BIN_NAME"), run)
}

fn run(arguments: Arguments) -> Result<Exit> {
    let app = App::open_as_run(&arguments.home)?;
    let instance = app.instance(&arguments.instance)?;
    match arguments.hand_over {
        true => runner::hand_over(&app, instance)?,
        false => runner::supervise(&app, instance)?,
    }
    Ok(Exit::Done)
}
