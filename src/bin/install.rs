//! install: lay everything out, upgrade it, or take it away.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use cutover::layout::{self, Layout, Plan};
use cutover::outcome::{self, Exit};

const TOOL: &str = env!("CARGO_BIN_NAME");

/// Lay everything out: directories, tools, configuration, nginx's files. Run again, it changes only what differs
#[derive(Parser)]
#[command(name = TOOL, version)]
struct Arguments {
    /// The configuration; what it leaves open is asked on a terminal
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The app's home [default: .APP in the user's home directory]
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// The user who owns and runs the app [default: who called, also through sudo]
    #[arg(long)]
    user: Option<String>,
    /// Print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do also what can take the service down
    #[arg(long)]
    force: bool,
    /// Stop the app and take away what was laid, but not releases, secrets, hooks, logs and configuration
    #[arg(long)]
    remove: bool,
    /// With --remove: take away the whole home
    #[arg(long, requires = "remove")]
    purge: bool,
}

fn main() -> ExitCode {
    outcome::main(TOOL, run)
}

fn run(arguments: Arguments) -> Result<Exit> {
    let plan = Plan::of(arguments.config.as_deref(), arguments.home.as_deref(), arguments.user.as_deref())?;
    if arguments.remove {
        outcome::allow(arguments.force, &format!("cannot remove {}: it would be stopped", plan.app.name()))?;
        layout::remove(&plan, arguments.purge)?.iter().for_each(|done| outcome::say(TOOL, done));
        return Ok(Exit::Done);
    }
    layout::check_change(&plan.app, arguments.force)?;
    let layout = Layout::check(plan)?;
    let tools = std::env::current_exe().context("cannot find the tools")?.with_file_name("");
    if arguments.dry_run {
        outcome::print(&layout.pending(&tools)?)?;
        return Ok(Exit::Done);
    }
    let app = layout.app();
    match layout.lay(&tools, |done| outcome::say(TOOL, done))? {
        0 => outcome::say(TOOL, format_args!("nothing to do: {} is laid out in {}", app.name(), app.home().display())),
        _ => {
            outcome::say(TOOL, format_args!("{} is laid out; next: {}", app.name(), app.bin().join("deploy").display()))
        }
    }
    Ok(Exit::Done)
}
