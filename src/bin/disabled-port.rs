//! disabled-port: print the port of the instance that gets no traffic.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use cutover::app::{App, Home};
use cutover::outcome::{self, Exit};
use cutover::{nginx, output, runner};

/// Print the port of the instance that gets no traffic; that of the first one when nothing is enabled
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
    outcome::print(&output::lines(&runner::ports(&app, nginx::disabled(&app)?)?))?;
    Ok(Exit::Done)
}
