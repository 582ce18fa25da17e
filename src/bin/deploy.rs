//! deploy: update the disabled instance, start it, cut over, watch it, and go back when it fails.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use cutover::app::config::Standby;
use cutover::app::{App, Home, Instance, Turn, Wait};
use cutover::deadline::Deadline;
use cutover::history::{self, Change};
use cutover::hooks::{self, About, Hook};
use cutover::outcome::{self, Exit, exit_of};
use cutover::runner::Before;
use cutover::source::{self, UnknownRef, Wanted};
use cutover::{nginx, output, push, runner};

const TOOL: &str = env!("CARGO_BIN_NAME");

/// Deploy the wanted release: update the disabled instance, start it, cut over, watch it, go back when it fails
#[derive(Parser)]
#[command(name = TOOL, version)]
struct Arguments {
    #[command(flatten)]
    wanted: Wanted,
    /// Do nothing, and say nothing, unless the branch has moved since it was deployed last
    #[arg(long, conflicts_with_all = ["from", "dry_run"])]
    if_new: bool,
    /// Deploy what was pushed and waits in the queue, until nothing does
    #[arg(long, conflicts_with_all = ["reference", "from", "if_new", "dry_run", "wait"])]
    queued: bool,
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
    let wanted = arguments.wanted;
    if arguments.dry_run {
        return dry_run(&app, &wanted);
    }
    if arguments.queued {
        return push::work_off(&app, |queued| deploy_queued(&arguments.home, &queued.what));
    }
    if !arguments.if_new {
        return Attempt::of(wanted, arguments.wait).make(&app);
    }
    let wanted = Wanted { reference: wanted.reference.or(Some(app.pushed_reference())), from: None };
    match history::has_moved(&app, &wanted, TOOL)? {
        true => Attempt { is_for_news: true, ..Attempt::of(wanted, arguments.wait) }.make(&app),
        false => Ok(Exit::Done),
    }
}

/// Deploys what a push asked for, as the configuration is by now. None: that could not be begun, for the source does not
/// answer, say, or others deploy. How it ended is told here, for other pushes may wait behind this one.
fn deploy_queued(home: &Home, what: &str) -> Option<Exit> {
    let said = |error: &anyhow::Error| outcome::say(TOOL, format_args!("{what}: {error:#}"));
    let app = &App::open(home).inspect_err(said).ok()?;
    let wanted = Wanted { reference: Some(app.pushed_reference()), from: None };
    if !history::has_moved(app, &wanted, TOOL).inspect_err(said).ok()? {
        outcome::say(TOOL, format_args!("{what}: nothing is new"));
        return Some(Exit::Done);
    }
    let mut attempt =
        Attempt { is_for_news: true, asked_by: Some(what.to_owned()), ..Attempt::of(wanted, Wait { wait: true }) };
    let ended = attempt.make(app).inspect_err(said);
    attempt.has_begun.then(|| ended.unwrap_or_else(|error| exit_of(&error)))
}

/// One deploy, in a turn of its own.
struct Attempt {
    wanted: Wanted,
    wait: Wait,
    /// Whether there is something to do only when what is wanted is new.
    is_for_news: bool,
    /// Who asked for it, in words; None: who called.
    asked_by: Option<String>,
    /// Whether it came so far that it is known what is wanted.
    has_begun: bool,
}

impl Attempt {
    fn of(wanted: Wanted, wait: Wait) -> Attempt {
        Attempt { wanted, wait, is_for_news: false, asked_by: None, has_begun: false }
    }

    /// Makes it, writes down what became of it, and tells the hooks.
    fn make(&mut self, app: &App) -> Result<Exit> {
        hooks::check(app)?;
        let turn = app.turn(TOOL, self.wait)?;
        let mut change = Change::begin(TOOL, app, self.asked_by.as_deref())?;
        let mut about = About { previous: change.previous().cloned(), ..About::default() };
        let result = deploy(app, self, &turn, &mut change, &mut about);
        if result.is_err() {
            // However often it fails, the disk does not fill. That it failed is what must be heard.
            let _ = source::prune(app);
            if self.is_for_news && !self.has_begun {
                // It will be tried again, nobody waits for it.
                return result;
            }
        }
        about.outcome = change.outcome(&result);
        about.reason = result.as_ref().err().map(|error| format!("{error:#}"));
        let written = change.end(app, &result);
        // They may want a turn of their own.
        drop(turn);
        for error in [written, hooks::tell(app, &about)].into_iter().filter_map(Result::err) {
            outcome::say(TOOL, format_args!("{error:#}"));
        }
        result
    }
}

fn deploy(app: &App, attempt: &mut Attempt, turn: &Turn, change: &mut Change, about: &mut About) -> Result<Exit> {
    let deadline = Deadline::after(app.config.deploy.timeout);
    runner::adopt(app, deadline)?;
    if let Some(done) = runner::stand_in(app)? {
        outcome::say(TOOL, done);
    }
    let old = nginx::enabled(app)?;
    let new = old.map_or_else(|| runner::free(app), |old| Ok(app.other(old)))?;
    about.instance = Some(new.clone());
    turn.doing("fetching what is wanted", None);
    let reference = attempt.wanted.reference(app);
    let origin = attempt.wanted.origin(app, deadline).inspect_err(|error| {
        // The source has answered: there will be no other answer.
        attempt.has_begun = error.is::<UnknownRef>();
    })?;
    change.wants(reference, &origin);
    attempt.has_begun = true;
    let current = source::current(app, old, &origin)?;
    let is_unfinished = current.is_some() && turn.resumes().is_some();
    if attempt.is_for_news && !is_unfinished && (current.is_some() || !history::is_untried(app, reference, &origin)?) {
        return Ok(Exit::Done);
    }
    if let Some(release) = current
        && let Some(old) = old
        && runner::runs(app, old)?
        && !runner::runs_another_release(app, old)?
        && runner::healthy(app, old, runner::CHECK).is_ok()
    {
        outcome::say(TOOL, format_args!("already current: {old} runs {release}"));
        if is_unfinished {
            // Whatever it was killed in, its watch was not over.
            (about.instance, about.release) = (Some(old.clone()), Some(release.clone()));
            change.leads_to(old, &release);
            runner::watch(app, turn, old, || {
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
    let release = source::make(app, &origin, about, deadline)?;
    outcome::say(TOOL, format_args!("{release} is made, {}", output::span(change.step("update"))));
    change.leads_to(new, &release);

    // The way back until the cutover: the other instance gets its former release again, and runs if it did.
    turn.doing(format_args!("starting {new} with {release}"), None);
    let before = Before::of(app, new)?;
    let started = runner::update(app, new, &release, deadline).and_then(|()| runner::start(app, new, deadline));
    started.inspect_err(|_| go_back(app, new, &before))?;
    outcome::say(TOOL, format_args!("{new} is healthy, {}", output::span(change.step("start"))));
    turn.doing(format_args!("preparing {new}"), None);
    let prepared = hooks::run(app, Hook::BeforeConnect, about, &app.release(&release), deadline);
    prepared.with_context(|| format!("cannot connect {new}")).inspect_err(|_| go_back(app, new, &before))?;
    turn.doing(format_args!("connecting {new}"), Some(new));
    nginx::switch(app, new).inspect_err(|_| go_back(app, new, &before))?;
    outcome::say(TOOL, format_args!("{new} is enabled, {}", output::span(change.step("connect"))));

    // The way back after the cutover: the old instance still runs, the traffic returns to it.
    runner::watch(app, turn, new, || {
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

fn dry_run(app: &App, wanted: &Wanted) -> Result<Exit> {
    let new = nginx::disabled(app)?;
    let what = match (&wanted.reference, &wanted.from) {
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
