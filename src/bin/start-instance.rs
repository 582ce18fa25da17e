//! start-instance: start an instance and wait until it is healthy.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use cutover::app::{App, Home, Turn, Wait};
use cutover::deadline::Deadline;
use cutover::nginx;
use cutover::outcome::{self, Exit};
use cutover::runner;

const TOOL: &str = env!("CARGO_BIN_NAME");

/// Start an instance and wait until it is healthy
#[derive(Parser)]
#[command(name = TOOL, version)]
struct Arguments {
    /// The instance [default: the enabled one]
    instance: Option<String>,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    home: Home,
}

fn main() -> ExitCode {
    outcome::main(TOOL, run)
}

fn run(arguments: Arguments) -> Result<Exit> {
    let app = App::open_as_run(&arguments.home)?;
    let turn = app.turn(TOOL, arguments.wait)?;
    turn.ends_in(start(&app, &arguments, &turn))
}

fn start(app: &App, arguments: &Arguments, turn: &Turn) -> Result<Exit> {
    let Some(instance) = nginx::named_or_enabled(app, arguments.instance.as_deref())? else {
        turn.say("nothing is enabled; name an instance");
        return Ok(Exit::No);
    };
    turn.doing(format_args!("starting {instance}"), None);
    runner::start(app, instance, Deadline::after(app.config.deploy.timeout))?;
    Ok(Exit::Done)
}
