//! connect-to-nginx: cut over to an instance, confirmed by nginx.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use cutover::app::{App, Home, Wait};
use cutover::outcome::{self, Exit};
use cutover::{nginx, runner};

/// Cut over to an instance, confirmed by nginx
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version)]
struct Arguments {
    /// The instance [default: the disabled one]
    instance: Option<String>,
    /// Connect it even if it is unhealthy
    #[arg(long)]
    force: bool,
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
    let instance = nginx::named_or_disabled(&app, arguments.instance.as_deref())?;
    if let Err(seen) = runner::healthy(&app, instance, runner::CHECK) {
        outcome::allow(arguments.force, &format!("cannot connect {instance}: it is not healthy: {seen}"))?;
    }
    nginx::switch(&app, instance)?;
    Ok(Exit::Done)
}
