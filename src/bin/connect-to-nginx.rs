//! connect-to-nginx: cut over to an instance, confirmed by nginx.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use cutover::app::{App, Home, Turn, Wait};
use cutover::deadline::Deadline;
use cutover::history::Change;
use cutover::outcome::{self, Exit};
use cutover::{nginx, runner};

const TOOL: &str = env!("CARGO_BIN_NAME");

/// Cut over to an instance, confirmed by nginx
#[derive(Parser)]
#[command(name = TOOL, version)]
struct Arguments {
    /// The instance [default: the disabled one]
    instance: Option<String>,
    /// Connect it even if it is unhealthy
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
    turn.ends_in(connect(&app, &arguments, &turn))
}

fn connect(app: &App, arguments: &Arguments, turn: &Turn) -> Result<Exit> {
    // One that was killed after the switch would otherwise switch back.
    let unfinished = turn.resumes().and_then(|undone| undone.target.as_deref());
    let instance = nginx::named_or_disabled(app, arguments.instance.as_deref().or(unfinished))?;
    if let Err(seen) = runner::healthy(app, instance, runner::CHECK) {
        outcome::allow(arguments.force, &format!("cannot connect {instance}: it is not healthy: {seen}"))?;
    }
    let mut change = Change::begin(TOOL, app, None)?;
    if nginx::enabled(app)? != Some(instance) {
        change.leads_to(instance, app.release_of(instance)?.as_ref());
    }
    turn.doing(format_args!("connecting {instance}"), Some(instance));
    let deadline = Deadline::after(app.config.deploy.timeout);
    // Whoever forces it knows that clients may not like it.
    let connected = match arguments.force {
        true => runner::connect(app, instance, deadline),
        false => runner::connect_for_clients(app, instance, deadline),
    };
    let result = connected.map(|()| Exit::Done);
    change.step("connect");
    turn.forgive(change.end(app, &result));
    result
}
