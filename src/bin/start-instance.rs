//! start-instance: start an instance and wait until it is healthy.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use cutover::app::{App, Home, Wait};
use cutover::deadline::Deadline;
use cutover::nginx;
use cutover::outcome::{self, Exit};
use cutover::runner;

/// Start an instance and wait until it is healthy
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version)]
struct Arguments {
    /// The instance [default: the enabled one]
    instance: Option<String>,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    home: Home,
}

fn main() -> ExitCode {
    outcome::main(env!("CARGO_BIN_NAME"), run)
}

fn run(arguments: Arguments) -> Result<Exit> {
    let app = App::open(&arguments.home)?;
    let _lock = app.lock(arguments.wait)?;
    let Some(instance) = nginx::named_or_enabled(&app, arguments.instance.as_deref())? else {
        outcome::say(env!("CARGO_BIN_NAME"), "nothing is enabled; name an instance");
        return Ok(Exit::No);
    };
    runner::start(&app, instance, Deadline::after(app.config.health.timeout))?;
    Ok(Exit::Done)
}
