//! deploy: update the disabled instance, start it, cut over, watch it, and go back when it fails.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use cutover::app::config::Standby;
use cutover::app::{App, Home, Instance, Turn, Wait};
use cutover::deadline::Deadline;
use cutover::history::Change;
use cutover::outcome::{self, Exit, failure};
use cutover::runner::Before;
use cutover::source::{self, Wanted};
use cutover::{nginx, output, runner};

const TOOL: &str = env!("CARGO_BIN_NAME");

/// Deploy the wanted release: update the disabled instance, start it, cut over, watch it, go back when it fails
#[derive(Parser)]
#[command(name = TOOL, version)]
struct Arguments {
    #[command(flatten)]
    wanted: Wanted,
    /// Print the pipeline it would be, and do nothing
    #[arg(long)]
    dry_run: bool,
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
    if arguments.dry_run {
        return dry_run(&app, &arguments);
    }
    let turn = app.turn(TOOL, arguments.wait)?;
    let mut change = Change::begin(TOOL, &app)?;
    let result = deploy(&app, &arguments, &turn, &mut change);
    if result.is_err() {
        // However often it fails, the disk does not fill. That it failed is what must be heard.
        let _ = source::prune(&app);
    }
    if let Err(error) = change.end(&app, &result) {
        outcome::say(TOOL, format_args!("{error:#}"));
    }
    result
}

fn deploy(app: &App, arguments: &Arguments, turn: &Turn, change: &mut Change) -> Result<Exit> {
    let deadline = Deadline::after(app.config.deploy.timeout);
    runner::adopt(app, deadline)?;
    stand_in(app)?;
    let old = nginx::enabled(app)?;
    let new = old.map_or_else(|| runner::free(app), |old| Ok(app.other(old)))?;
    turn.doing("fetching what is wanted", None);
    let origin = arguments.wanted.origin(app, deadline)?;
    if let Some(release) = source::current(app, old, &origin)?
        && let Some(old) = old
        && runner::runs(app, old)?
        && !runner::runs_another_release(app, old)?
        && runner::healthy(app, old, runner::CHECK).is_ok()
    {
        outcome::say(TOOL, format_args!("already current: {old} runs {release}"));
        if turn.resumes().is_some() {
            // Whatever it was killed in, its watch was not over.
            change.leads_to(old, &release);
            watch(app, turn, old, || {
                runner::start(app, new, deadline)?;
                nginx::switch(app, new).map(|()| Some(new))
            })?;
            change.step("soak");
        }
        return finish(app, turn, new);
    }

    // Up to here and through the build nothing is touched: a failure leaves everything as it was.
    turn.doing(format_args!("making a release of {origin} for {new}"), None);
    outcome::say(TOOL, format_args!("making a release of {origin} for {new}"));
    let release = source::make(app, &origin, deadline)?;
    outcome::say(TOOL, format_args!("{release} is made, {}", output::span(change.step("update"))));
    change.leads_to(new, &release);

    // The way back until the cutover: the other instance gets its former release again, and runs if it did.
    turn.doing(format_args!("starting {new} with {release}"), None);
    let before = Before::of(app, new)?;
    let started = runner::update(app, new, &release, deadline).and_then(|()| runner::start(app, new, deadline));
    started.inspect_err(|_| go_back(app, new, &before))?;
    outcome::say(TOOL, format_args!("{new} is healthy, {}", output::span(change.step("start"))));
    turn.doing(format_args!("connecting {new}"), Some(new));
    nginx::switch(app, new).inspect_err(|_| go_back(app, new, &before))?;
    outcome::say(TOOL, format_args!("{new} is enabled, {}", output::span(change.step("connect"))));

    // The way back after the cutover: the old instance still runs, the traffic returns to it.
    watch(app, turn, new, || {
        match old {
            Some(old) => nginx::switch(app, old)?,
            None => nginx::disconnect(app)?,
        }
        go_back(app, new, &before);
        Ok(old)
    })?;
    change.step("soak");
    finish(app, turn, app.other(new))
}

/// Watches the instance that was enabled. When it does not stay well, `return_to` takes the traffic from it, and tells
/// who has it then: None when nobody had it before.
fn watch<'a>(
    app: &App,
    turn: &Turn,
    new: &Instance,
    return_to: impl FnOnce() -> Result<Option<&'a Instance>>,
) -> Result<()> {
    turn.doing(format_args!("watching {new}"), Some(new));
    let Err(error) = runner::soak(app, new) else { return Ok(()) };
    turn.doing(format_args!("taking the traffic from {new}"), None);
    match return_to().with_context(|| format!("{error:#}; and the way back failed"))? {
        Some(old) => Err(failure(Exit::RolledBack, format!("{error:#}; {old} is enabled again"))),
        None => Err(error),
    }
}

/// When the enabled instance is down, its healthy standby answers in its place: it becomes the enabled one, so that the
/// deploy goes to the instance that nobody needs. When nothing is enabled, that is a container which runs already: it may
/// be what serves so far.
fn stand_in(app: &App) -> Result<()> {
    let Some(enabled) = nginx::enabled(app)? else {
        let Some(serving) = runner::serving(app)? else { return Ok(()) };
        outcome::say(TOOL, format_args!("{serving} runs already: it is enabled"));
        return nginx::switch(app, serving);
    };
    let standby = app.other(enabled);
    if let Err(seen) = runner::up(app, enabled, runner::CHECK)
        && runner::healthy(app, standby, runner::CHECK).is_ok()
    {
        outcome::say(
            TOOL,
            format_args!("{enabled} is enabled but not healthy ({seen}); its standby {standby} takes its place"),
        );
        nginx::switch(app, standby)?;
    }
    Ok(())
}

/// Puts an instance back where it was. The failure that led here is what the user must hear of; this one is only said.
fn go_back(app: &App, instance: &Instance, before: &Before) {
    if let Err(error) = before.restore(app, instance) {
        outcome::say(TOOL, format_args!("{error:#}"));
    }
}

/// What is left to do once the new release serves: it serves, so what fails here is only said.
fn finish(app: &App, turn: &Turn, standby: &Instance) -> Result<Exit> {
    turn.doing("clearing up", None);
    let retired = match app.config.deploy.standby {
        Standby::Keep => Ok(false),
        Standby::Stop => runner::stop(app, standby, Deadline::after(app.config.deploy.timeout)),
    };
    if let Err(error) = retired.and_then(|_| source::prune(app)) {
        outcome::say(TOOL, format_args!("{error:#}"));
    }
    Ok(Exit::Done)
}

fn dry_run(app: &App, arguments: &Arguments) -> Result<Exit> {
    let new = nginx::disabled(app)?;
    let what = match (&arguments.wanted.reference, &arguments.wanted.from) {
        (Some(reference), _) => format!(" --ref {}", output::shell_word(reference)),
        (None, Some(path)) => format!(" --from {}", output::shell_word(&path.to_string_lossy())),
        (None, None) => String::new(),
    };
    let stop = match (app.config.deploy.standby, nginx::enabled(app)?) {
        (Standby::Stop, Some(old)) => format!(" && stop-instance {old}"),
        _ => String::new(),
    };
    outcome::print(&format!("update-instance {new}{what} && start-instance {new} && connect-to-nginx {new}{stop}\n"))?;
    Ok(Exit::Done)
}
