//! reload: have the configuration and the environment take effect, without a new release.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use cutover::app::{App, Home, Wait};
use cutover::deploying;
use cutover::outcome::{self, Exit};

const TOOL: &str = env!("CARGO_BIN_NAME");

/// Have the configuration and the environment take effect without a new release: start the other instance, cut over
#[derive(Parser)]
#[command(name = TOOL, version)]
struct Arguments {
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    home: Home,
}

fn main() -> ExitCode {
    outcome::main(TOOL, run)
}

fn run(arguments: Arguments) -> Result<Exit> {
    let app = App::open(&arguments.home)?;
    deploying::reload(TOOL, &app, arguments.wait)
}
