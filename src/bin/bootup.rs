//! bootup: the boot-time one-shot: start what was enabled, then the standby.

use std::process::ExitCode;

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use cutover::app::config::Standby;
use cutover::app::{App, Home, Instance, Runner, Turn, Wait};
use cutover::deadline::Deadline;
use cutover::history::{self, Change};
use cutover::outcome::{self, Exit};
use cutover::{nginx, output, push, runner};

const TOOL: &str = env!("CARGO_BIN_NAME");

/// Start what was enabled, then the standby; waits for a deploy that is under way
#[derive(Parser)]
#[command(name = TOOL, version)]
struct Arguments {
    #[command(flatten)]
    home: Home,
}

fn main() -> ExitCode {
    outcome::main(TOOL, run)
}

fn run(arguments: Arguments) -> Result<Exit> {
    let app = App::open_as_run(&arguments.home)?;
    let mut turn = app.turn(TOOL, Wait { wait: true })?;
    turn.keep_what_was_found();
    turn.ends_in(boot(&app, &turn))
}

fn boot(app: &App, turn: &Turn) -> Result<Exit> {
    if app.config.nginx.own && nginx::Nginx::find(app)?.start(app)? {
        turn.say("nginx is started");
    }
    listen(app, turn);
    let Some(enabled) = nginx::enabled(app)? else {
        turn.say("nothing is enabled, so there is nothing to start; deploy makes the first release");
        return Ok(Exit::Done);
    };
    turn.forgive(runner::settle(app, turn, Some(enabled)));
    let standby = app.other(enabled);
    let has_standby = app.release_of(standby)?.is_some();
    if let Err(error) = start(app, turn, enabled) {
        let Some(release) = app.release_of(standby)? else { return Err(error) };
        // What cannot be read of the history is no reason to serve nothing.
        if history::was_rolled_back(app, &release).unwrap_or_default() {
            let remedy = format!("{release} of the standby {standby} was rolled back: `rollback` gives it the traffic");
            return Err(error.context(remedy));
        }
        turn.say(format_args!("{error:#}; falling back to the standby {standby}"));
        return fall_back(app, turn, standby);
    }
    turn.forgive(runner::workers::follow(app, Deadline::after(app.config.deploy.timeout)));
    // The app is back: to try again and again what fails here would only keep the next deploy waiting.
    let tried = match app.config.deploy.standby {
        Standby::Keep if has_standby => start(app, turn, standby),
        // Docker has started what it was not to, as its restart policy says.
        Standby::Stop if app.runner() == Runner::Compose => {
            runner::stop(app, standby, Deadline::after(app.config.deploy.timeout)).map(drop)
        }
        Standby::Keep | Standby::Stop => Ok(()),
    };
    if let Err(error) = tried {
        turn.say(format_args!("{error:#}; {enabled} serves without a standby"));
    }
    reaches_clients(app, enabled)
}

/// That all runs is no answer to whether clients get it.
fn reaches_clients(app: &App, enabled: &Instance) -> Result<Exit> {
    let reached = runner::reaches_clients(app, enabled);
    reached.map(|()| Exit::Done).map_err(|unreached| anyhow!("{enabled} runs, but {unreached}"))
}

/// Gives the traffic to the standby, and writes that down: nobody was there to see it. A failure is not written down, for
/// systemd tries again and again.
fn fall_back(app: &App, turn: &Turn, standby: &Instance) -> Result<Exit> {
    let mut change = Change::begin(TOOL, app, None)?;
    change.leads_to(standby, app.release_of(standby)?.as_ref());
    start(app, turn, standby)?;
    change.step("start");
    runner::connect(app, standby, Deadline::after(app.config.deploy.timeout)).context("cannot fall back")?;
    change.step("connect");
    turn.forgive(change.end(app, &Ok(Exit::Done)));
    reaches_clients(app, standby)
}

/// Hears of pushes again, and deploys what was queued before. The app starts all the same when that fails.
fn listen(app: &App, turn: &Turn) {
    let listens = push::adjust(app).and_then(|done| push::start_deploy(app).map(|()| done));
    turn.forgive(listens.map(|done| done.iter().for_each(|done| turn.say(done))));
}

fn start(app: &App, turn: &Turn, instance: &Instance) -> Result<()> {
    turn.doing(format_args!("starting {instance}"), None);
    let took = runner::start(app, instance, Deadline::after(app.config.deploy.timeout))?;
    turn.say(format_args!("{instance} is healthy, {}", output::span(took)));
    Ok(())
}
