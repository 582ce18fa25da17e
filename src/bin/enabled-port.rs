//! enabled-port: print the port of the instance that gets the traffic.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use cutover::app::{App, Home};
use cutover::outcome::{self, Exit};
use cutover::{nginx, output, runner};

/// Print the port of the instance that gets the traffic
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version)]
struct Arguments {
    #[command(flatten)]
    home: Home,
}

fn main() -> ExitCode {
    outcome::main(env!("CARGO_BIN_NAME"), run)
}

fn run(arguments: Arguments) -> Result<Exit> {
    let app = App::open(&arguments.home)?;
    let Some(instance) = nginx::enabled(&app)? else { return Ok(Exit::No) };
    outcome::print(&output::lines(&runner::ports(&app, instance)?))?;
    Ok(Exit::Done)
}
