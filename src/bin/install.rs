//! install: lay everything out, upgrade it, or take it away.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use cutover::app::{App, Config};
use cutover::layout::{self, Layout};
use cutover::outcome::{self, Exit, usage};
use cutover::questions;

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
    let owner = layout::owner(arguments.user.as_deref())?;
    let home_directory = layout::home_directory(&owner);
    let text = questions::configuration(arguments.config.as_deref(), arguments.home.as_deref())?;
    let source =
        arguments.config.as_deref().map_or_else(|| "the configuration".into(), |file| file.display().to_string());
    let config = Config::parse(&text).map_err(|mistake| usage(format!("cannot use {source}: {mistake}")))?;
    let home = match (arguments.home, &home_directory) {
        (Some(home), _) => std::path::absolute(home).context("cannot find --home")?,
        (None, Some(directory)) => directory.join(format!(".{}", config.app)),
        (None, None) => return Err(usage(format!("cannot tell where {} lives; say --home DIR", owner.name))),
    };
    let profile = home_directory.map(|directory| directory.join(".profile"));
    let app = App::planned(home, owner, config);
    if arguments.remove {
        outcome::allow(arguments.force, &format!("cannot remove {}: it would be stopped", app.name()))?;
        layout::remove(&app, profile.as_deref(), arguments.purge)?.iter().for_each(|done| outcome::say(TOOL, done));
        return Ok(Exit::Done);
    }
    layout::check_change(&app, arguments.force)?;
    let layout = Layout::check(app, text, profile)?;
    let tools = std::env::current_exe().context("cannot find the tools")?.with_file_name("");
    if arguments.dry_run {
        outcome::print(&layout.pending(&tools)?)?;
        return Ok(Exit::Done);
    }
    let done = layout.lay(&tools, |done| outcome::say(TOOL, done))?;
    outcome::say(
        TOOL,
        match done {
            0 => format!("nothing to do: {} is laid out in {}", layout.app().name(), layout.app().home().display()),
            _ => format!("{} is laid out; next: {}", layout.app().name(), layout.app().bin().join("deploy").display()),
        },
    );
    Ok(Exit::Done)
}
