//! stop-instance: let an instance's requests finish, then end it with all its processes.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use cutover::app::{App, Home, Turn, Wait};
use cutover::deadline::Deadline;
use cutover::nginx;
use cutover::outcome::{self, Exit};
use cutover::runner;

const TOOL: &str = env!("CARGO_BIN_NAME");

/// Let an instance's requests finish, then end it with all its processes
#[derive(Parser)]
#[command(name = TOOL, version)]
struct Arguments {
    /// The instance [default: the enabled one]
    instance: Option<String>,
    /// Stop it even if it is the enabled one
    #[arg(short, long)]
    force: bool,
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
    turn.ends_in(stop(&app, &arguments, &turn))
}

fn stop(app: &App, arguments: &Arguments, turn: &Turn) -> Result<Exit> {
    let Some(instance) = nginx::named_or_enabled(app, arguments.instance.as_deref())? else {
        turn.say("nothing is enabled; name an instance");
        return Ok(Exit::No);
    };
    if nginx::enabled(app)? == Some(instance) {
        outcome::allow(arguments.force, &format!("cannot stop {instance}: it is enabled, the service would be down"))?;
    }
    turn.doing(format_args!("stopping {instance}"), None);
    runner::stop(app, instance, Deadline::after(app.config.deploy.timeout))?;
    Ok(Exit::Done)
}
