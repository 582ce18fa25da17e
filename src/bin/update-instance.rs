//! update-instance: build the wanted release, then stop an instance and point it there.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use cutover::app::{App, Home, ReleaseId, Turn, Wait};
use cutover::deadline::Deadline;
use cutover::hooks::{self, About};
use cutover::outcome::{self, Exit};
use cutover::source::{self, Wanted};
use cutover::{nginx, runner};

const TOOL: &str = env!("CARGO_BIN_NAME");

/// Build the wanted release, then stop an instance and point it there; print the release
#[derive(Parser)]
#[command(name = TOOL, version)]
struct Arguments {
    /// The instance [default: the disabled one]
    instance: Option<String>,
    #[command(flatten)]
    wanted: Wanted,
    /// Update it even if it is the enabled one
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
    let app = App::open(&arguments.home)?;
    hooks::check(&app)?;
    app.check_env_file()?;
    let turn = app.turn(TOOL, arguments.wait)?;
    let id = turn.ends_in(update(&app, &arguments, &turn))?;
    outcome::print(&format!("{id}\n"))?;
    Ok(Exit::Done)
}

fn update(app: &App, arguments: &Arguments, turn: &Turn) -> Result<ReleaseId> {
    let deadline = Deadline::after(app.config.deploy.timeout);
    let instance = nginx::named_or_disabled(app, arguments.instance.as_deref())?;
    if nginx::enabled(app)? == Some(instance) {
        outcome::allow(
            arguments.force,
            &format!("cannot update {instance}: it is enabled, the service would be down"),
        )?;
    }
    turn.doing(format_args!("making a release for {instance}"), None);
    let origin = arguments.wanted.origin(app, deadline)?;
    let serving = nginx::enabled(app)?.map(|enabled| app.release_of(enabled)).transpose()?.flatten();
    let mut about = About { instance: Some(instance.clone()), previous: serving, ..About::default() };
    let id = source::make(app, &origin, arguments.wanted.again, &mut about, deadline)?;
    source::lacking(app, &origin, &id, deadline).iter().for_each(|lack| turn.say(lack));
    turn.doing(format_args!("giving {instance} the release {id}"), None);
    runner::update(app, instance, &id, deadline)?;
    Ok(id)
}
