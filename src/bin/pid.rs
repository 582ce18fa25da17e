//! pid: print the process that listens on an instance's port.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Parser;
use cutover::app::{App, Home};
use cutover::outcome::{self, Exit};
use cutover::process::Owner;
use cutover::{nginx, output, runner};

/// Print the process that listens on an instance's port
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version)]
struct Arguments {
    /// The instance [default: the enabled one]
    instance: Option<String>,
    #[command(flatten)]
    home: Home,
}

fn main() -> ExitCode {
    outcome::main(env!("CARGO_BIN_NAME"), run)
}

fn run(arguments: Arguments) -> Result<Exit> {
    let app = App::open(&arguments.home)?;
    let Some(instance) = nginx::named_or_enabled(&app, arguments.instance.as_deref())? else { return Ok(Exit::No) };
    let mut pids = Vec::new();
    for (port, owner) in runner::listeners(&app, instance)? {
        match owner {
            Owner::Nobody => {}
            Owner::Process(process) => pids.push(process.pid),
            hidden => bail!("cannot tell which process listens on port {port}: {}", hidden.in_words()),
        }
    }
    outcome::print(&output::lines(&pids))?;
    Ok(if pids.is_empty() { Exit::No } else { Exit::Done })
}
