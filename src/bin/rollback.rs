//! rollback: connect the other instance again.

use std::process::ExitCode;

use anyhow::{Result, anyhow, bail};
use clap::Parser;
use cutover::app::{App, Home, Instance, ReleaseId, Turn, Wait};
use cutover::deadline::Deadline;
use cutover::history::{self, Change};
use cutover::outcome::{self, Exit, exit_of};
use cutover::runner::Before;
use cutover::{nginx, output, runner, source};

const TOOL: &str = env!("CARGO_BIN_NAME");

/// Connect the other instance again; it is started if need be
#[derive(Parser)]
#[command(name = TOOL, version)]
struct Arguments {
    /// Go back to this release, whichever instance has it [default: the other instance's]
    #[arg(long, value_name = "RELEASE")]
    to: Option<ReleaseId>,
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
    let mut change = Change::begin(TOOL, &app, None)?;
    let result = turn.ends_in(roll_back(&app, arguments.to.as_ref(), &turn, &mut change));
    turn.forgive(change.end(&app, &result));
    result
}

fn roll_back(app: &App, to: Option<&ReleaseId>, turn: &Turn, change: &mut Change) -> Result<Exit> {
    let Some(enabled) = nginx::enabled(app)? else {
        turn.say("nothing is enabled");
        return Ok(Exit::No);
    };
    runner::settle(app, turn, Some(enabled))?;
    let unfinished = turn.resumes().and_then(|undone| undone.target.as_deref());
    if to.is_none() && unfinished == Some(enabled.name()) {
        reaches_clients(app, enabled)?;
        turn.say(format_args!("{enabled} is enabled: the interrupted rollback was done"));
        return Ok(Exit::Done);
    }
    let target = app.other(enabled);
    let Some(release) = to.cloned().or(app.release_of(target)?) else {
        turn.say(format_args!("there is nothing to go back to: {target} has no release"));
        return Ok(Exit::No);
    };
    if to.is_some() && app.release_of(enabled)?.as_ref() == to && runner::healthy(app, enabled, runner::CHECK).is_ok() {
        reaches_clients(app, enabled)?;
        turn.say(format_args!("already there: {enabled} runs {release}"));
        return Ok(Exit::Done);
    }
    if !source::releases(app)?.contains(&release) {
        bail!("cannot go back to {release}: there is no such release; ls {} shows them", app.releases().display());
    }
    let is_same = to.is_none() && app.release_of(enabled)?.as_ref() == Some(&release);
    change.leads_to(target, &release);
    let before = Before::of(app, turn, target, &release)?;
    connect(app, target, &release, turn, change).inspect_err(|error| {
        // It may be what serves.
        if exit_of(error) != Exit::Stranded {
            turn.forgive(before.restore(app, target));
        }
    })?;
    turn.say(format_args!("{target} is enabled with {release}, {}", output::span(change.step("connect"))));
    let older = || history::releases(app).ok()?.into_iter().find(|older| *older < release);
    if let Some(older) = is_same.then(older).flatten() {
        let hint = format!("rollback --to {older} goes to the one before");
        turn.say(format_args!("that is the same release, as it ran before the reload; {hint}"));
    }
    Ok(Exit::Done)
}

/// That nothing is to be done is no answer to whether clients get it.
fn reaches_clients(app: &App, enabled: &Instance) -> Result<()> {
    runner::reaches_clients(app, enabled).map_err(|unreached| anyhow!("nothing is to be done, but {unreached}"))
}

fn connect(app: &App, target: &Instance, release: &ReleaseId, turn: &Turn, change: &mut Change) -> Result<()> {
    let deadline = Deadline::after(app.config.deploy.timeout);
    turn.doing(format_args!("starting {target} with {release}"), None);
    runner::bring_back(app, target, release, deadline)?;
    runner::start(app, target, deadline)?;
    change.step("start");
    turn.doing(format_args!("connecting {target}"), Some(target));
    runner::connect_for_clients(app, target, deadline)
}
