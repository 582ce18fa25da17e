//! install: lay everything out, upgrade it, or take it away.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use cutover::layout::{self, Given, Layout, Plan};
use cutover::outcome::{self, Exit};
use cutover::pm2::Ecosystem;

const TOOL: &str = env!("CARGO_BIN_NAME");

/// Lay everything out: directories, tools, configuration, nginx's files. Run again, it changes only what differs
#[derive(Parser)]
#[command(name = TOOL, version)]
struct Arguments {
    /// The configuration; what it leaves open is asked on a terminal
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Make the configuration from pm2's ecosystem file, and tell what has no counterpart
    #[arg(long, value_name = "FILE", conflicts_with_all = ["config", "remove"])]
    from_pm2: Option<PathBuf>,
    /// With --from-pm2: take the variables of env_NAME as well, as pm2 does with --env NAME
    #[arg(long, value_name = "NAME", requires = "from_pm2")]
    env: Option<String>,
    /// The app's home [default: .APP in the user's home directory]
    #[arg(long, value_name = "DIR")]
    home: Option<PathBuf>,
    /// The user who owns and runs the app [default: who called, also through sudo]
    #[arg(long)]
    user: Option<String>,
    /// Print what would be done, with --from-pm2 the configuration, and do nothing
    #[arg(long, conflicts_with = "remove")]
    dry_run: bool,
    /// End by deploying
    #[arg(long, conflicts_with_all = ["dry_run", "remove"])]
    deploy: bool,
    /// Do also what can take the service down
    #[arg(short, long)]
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
    let (home, user) = (arguments.home.as_deref(), arguments.user.as_deref());
    let environment = arguments.env.as_deref();
    let read = |file| Ecosystem::read(file, environment, &layout::owner(user, home)?);
    let ecosystem = arguments.from_pm2.as_deref().map(read).transpose()?;
    ecosystem.iter().flat_map(|ecosystem| &ecosystem.notes).for_each(|note| outcome::say(TOOL, note));
    let given = match (&ecosystem, &arguments.config) {
        (Some(ecosystem), _) if arguments.dry_run => return outcome::print(&ecosystem.text).map(|()| Exit::Done),
        (Some(ecosystem), _) => Given::Ecosystem(ecosystem),
        (None, Some(file)) => Given::Config(file),
        (None, None) => Given::Nothing,
    };
    let alone = layout::alone()?;
    let mut plan = Plan::of(given, home, user, arguments.remove)?;
    if arguments.remove {
        outcome::allow(arguments.force, &format!("cannot remove {}: it would be stopped", plan.app.name()))?;
        layout::remove(&plan, arguments.purge)?.iter().for_each(|done| outcome::say(TOOL, done));
        return Ok(Exit::Done);
    }
    if !plan.unaccepted.is_empty() {
        plan.unaccepted.iter().for_each(|line| outcome::say(TOOL, line));
        match !arguments.dry_run && outcome::confirm("Accept what the configuration in the home says?") {
            true => plan.accept(),
            false if plan.lacks_record()? => {}
            false => outcome::say(TOOL, format_args!("it stays as it was accepted; {}", plan.remedy())),
        }
    }
    if let Some(ecosystem) = &ecosystem {
        layout::check_overwritten(&plan.app, &ecosystem.text, arguments.force)?;
    }
    layout::check_change(&plan.app, arguments.force)?;
    let layout = Layout::check(plan)?;
    let tools = std::env::current_exe().context("cannot find the tools")?.with_file_name("");
    let pending = layout.pending(&tools)?;
    if arguments.dry_run {
        outcome::print(&pending.iter().map(|line| format!("{line}\n")).collect::<String>())?;
        return Ok(Exit::Done);
    }
    let (app, say) = (layout.app(), |line: &String| outcome::say(TOOL, line));
    pending.iter().for_each(say);
    let effects = layout.lay(&tools)?;
    effects.iter().for_each(say);
    layout.ask()?;
    drop(alone);
    let home = app.home().display();
    if pending.is_empty() && effects.is_empty() {
        outcome::say(TOOL, format_args!("nothing to do: {} is laid out in {home}", app.name()));
    } else if !arguments.deploy {
        outcome::say(TOOL, format_args!("{} is laid out; next: {home}/bin/deploy", app.name()));
    }
    if arguments.deploy {
        // Its words and its exit code are deploy's.
        return layout::deploy(app, outcome::relay);
    }
    Ok(Exit::Done)
}
