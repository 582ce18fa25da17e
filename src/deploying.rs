//! One deploy: its steps in their order, the way back beside each, and what is left of it: the record, and the hooks. When
//! one is made, and of what, is for the tools to say; it tells its steps in the name of the one that makes it.

pub mod directory;
pub mod queue;
mod stand_in;

use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::app::config::Standby;
use crate::app::{App, Instance, ReleaseId, Turn, Wait};
use crate::deadline::Deadline;
use crate::history::{self, Change};
use crate::hooks::{self, About, Hook};
use crate::outcome::{self, Exit, exit_of};
use crate::runner::{self, Before};
use crate::source::{self, UnknownRef, Wanted};
use crate::{nginx, output};

use stand_in::StandIn;

/// How long a drain may take without a word.
const UNTOLD: Duration = Duration::from_secs(1);

/// One deploy, in a turn of its own.
pub struct Attempt {
    /// The tool that makes it: it has the turn, the record names it, and what is told begins with it.
    pub tool: &'static str,
    /// What is to be deployed.
    pub wanted: Wanted,
    /// The instance that is named for it; None: the one that is not enabled. Where that one has it already, it is made again.
    pub instance: Option<Instance>,
    /// Whether it waits for its turn.
    pub wait: Wait,
    /// Whether there is something to do only when what is wanted is new.
    pub is_for_news: bool,
    /// Who asked for it, in words; None: who called.
    pub asked_by: Option<String>,
    /// Whether it came so far that it is known what is wanted.
    pub has_begun: bool,
}

impl Attempt {
    /// One that a tool makes because it was called.
    pub fn of(tool: &'static str, wanted: Wanted, wait: Wait) -> Attempt {
        Attempt { tool, wanted, instance: None, wait, is_for_news: false, asked_by: None, has_begun: false }
    }

    /// Makes it, writes down what became of it, and tells the hooks.
    pub fn make(&mut self, app: &App) -> Result<Exit> {
        check(app)?;
        let turn = app.turn(self.tool, self.wait)?;
        let mut change = Change::begin(self.tool, app, self.asked_by.as_deref())?;
        let mut about = About { previous: change.previous().cloned(), ..About::default() };
        app.unlaid.iter().for_each(|unlaid| turn.say(unlaid));
        let result = deploy(app, self, &turn, &mut change, &mut about);
        let result = turn.ends_in(result.map_err(|error| source::explained(app, error)));
        if result.is_err() {
            // However often it fails, the disk does not fill. That it failed is what must be heard.
            turn.forgive(prune(app));
            if self.is_for_news && !self.has_begun {
                // It will be tried again, nobody waits for it.
                return result;
            }
        }
        conclude(self.tool, app, turn, change, about, &result);
        result
    }
}

/// Starts the other instance with the release that the enabled one has, as everything is configured now, and cuts over.
pub fn reload(tool: &'static str, app: &App, wait: Wait) -> Result<Exit> {
    check(app)?;
    let turn = app.turn(tool, wait)?;
    let mut change = Change::begin(tool, app, None)?;
    let mut about = About { previous: change.previous().cloned(), ..About::default() };
    app.unlaid.iter().for_each(|unlaid| turn.say(unlaid));
    let result = start_afresh(app, &turn, &mut change, &mut about);
    let result = turn.ends_in(result.map_err(|error| source::explained(app, error)));
    conclude(tool, app, turn, change, about, &result);
    result
}

/// Fails when there is something that would stop a deploy half-way and can be known before it.
fn check(app: &App) -> Result<()> {
    hooks::check(app)?;
    app.check_env_file()?;
    nginx::Site::of(app).map_or(Ok(()), |site| site.check_means())?;
    runner::check_configured(app)
}

/// Writes down what became of a change, and tells the hooks.
fn conclude(tool: &str, app: &App, turn: Turn, change: Change, mut about: About, result: &Result<Exit>) {
    about.outcome = change.outcome(result);
    about.reason = result.as_ref().err().map(|error| format!("{error:#}"));
    let written = change.end(app, result);
    // They may want a turn of their own.
    drop(turn);
    for error in [written, hooks::tell(app, &about)].into_iter().filter_map(Result::err) {
        outcome::say(tool, format_args!("{error:#}"));
    }
}

fn deploy(app: &App, attempt: &mut Attempt, turn: &Turn, change: &mut Change, about: &mut About) -> Result<Exit> {
    runner::settle(app, turn, nginx::enabled(app)?)?;
    let stand_in = StandIn::make(app, turn, change)?;
    let result = bring_in(app, attempt, turn, change, about);
    result.map_err(|error| undo(stand_in, app, turn, change, error))
}

/// Undoes what was done before a deploy that has failed.
fn undo(made: Option<StandIn>, app: &App, turn: &Turn, change: &Change, error: anyhow::Error) -> anyhow::Error {
    match made {
        Some(made) => made.undo(app, turn, change, error),
        None => error,
    }
}

/// Makes what is wanted serve.
fn bring_in(app: &App, attempt: &mut Attempt, turn: &Turn, change: &mut Change, about: &mut About) -> Result<Exit> {
    let deadline = Deadline::after(app.config.deploy.timeout);
    let old = nginx::enabled(app)?;
    let named = attempt.instance.as_ref().map(|named| app.instance(named.name())).transpose()?;
    let new = match (old, named) {
        (Some(old), _) => app.other(old),
        (None, Some(named)) => named,
        (None, None) => runner::free(app)?,
    };
    if let Some(enabled) = named.filter(|named| Some(*named) == old) {
        turn.say(format_args!("{enabled} is enabled and serves on: {new} gets it"));
    }
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
    let again = attempt.wanted.again || named.is_some();
    let current = match current {
        Some(release) if !again && source::is_made_as_configured(app, &release)? => Some(release),
        _ => None,
    };
    if let Some(release) = &current
        && let Some(old) = old
        && runner::runs(app, old)?
        && !runner::runs_another_release(app, old)?
        && runner::healthy(app, old, runner::CHECK).is_ok()
    {
        turn.say(format_args!("already current: {old} runs {release}"));
        if runner::differences::of(app, old)?.is_some_and(|differences| !differences.is_empty()) {
            turn.say("what is configured has changed since it was started: reload brings that into service");
        }
        if is_unfinished {
            (about.instance, about.release) = (Some(old.clone()), Some(release.clone()));
            return watch_again(app, turn, change, old, release);
        }
        runner::reaches_clients(app, old).map_err(|unreached| anyhow!("nothing is to be done, but {unreached}"))?;
        runner::workers::follow(app, deadline)?;
        return finish(app, turn, new);
    }

    if let Some(release) = &current
        && let Some(old) = old
        && can_go_back(app, turn, old)
    {
        turn.say(format_args!("already switched: {old} has {release}"));
        (about.instance, about.release) = (Some(old.clone()), Some(release.clone()));
        return watch_again(app, turn, change, old, release);
    }

    // Up to here and through the build nothing is touched: a failure leaves everything as it was.
    turn.doing(format_args!("making a release of {origin} for {new}"), None);
    turn.say(format_args!("making a release of {origin} for {new}"));
    if let (Some(configured), None, None) = (reference, &attempt.wanted.reference, &attempt.asked_by)
        && let Some(last) = history::last_reference(app).ok().flatten()
        && last != *configured
        && !attempt.is_for_news
    {
        turn.say(format_args!("{configured} is wanted, as configured; the last deploy was of {last}"));
    }
    if let Some(changes) = source::changes(app, &origin, old)? {
        turn.say(format_args!("{changes}: it is made anew"));
    }
    let release = source::make(app, &origin, again, about, deadline)?;
    turn.say(format_args!("{release} is made, {}", output::span(change.step("update"))));
    source::lacking(app, &origin, &release, deadline).iter().for_each(|lack| turn.say(lack));
    change.leads_to(new, &release);

    let update = || {
        if !runner::has(app, new, &release)? {
            tell_of_drain(app, turn, new)?;
        }
        runner::update(app, new, &release, deadline)
    };
    cut_over(app, turn, (change, about), (old, new), &release, update)
}

fn start_afresh(app: &App, turn: &Turn, change: &mut Change, about: &mut About) -> Result<Exit> {
    let before = nginx::enabled(app)?;
    runner::settle(app, turn, before)?;
    let stand_in = StandIn::make(app, turn, change)?;
    let result = start_other(app, turn, change, about, before);
    result.map_err(|error| undo(stand_in, app, turn, change, error))
}

/// Has the other instance take the traffic with the release of the one that was enabled `before`.
fn start_other(
    app: &App,
    turn: &Turn,
    change: &mut Change,
    about: &mut About,
    before: Option<&Instance>,
) -> Result<Exit> {
    let deadline = Deadline::after(app.config.deploy.timeout);
    let Some(old) = nginx::enabled(app)? else {
        turn.say("nothing is enabled; deploy makes the first release");
        return Ok(Exit::No);
    };
    // Also when the standby has just taken its place: that may be of an older one.
    let current = before.unwrap_or(old);
    let release = app.release_of(current)?;
    let release = release.with_context(|| format!("cannot reload: {current} has no release"))?;
    let new = app.other(old);
    let differences = runner::differences::of(app, old)?;
    let is_as_configured = differences.as_ref().is_some_and(Vec::is_empty);
    let has_switched = current == old && turn.resumes_watch_of(old);
    // Asked once: one whose processes die and come back is well now, and ill a moment later.
    let is_well = has_switched && runner::healthy(app, old, runner::CHECK).is_ok();
    // Of an instance that is down, or a container, nobody can tell how it was started. One that has failed is no reason to touch
    // the other.
    let is_to_be_watched = match is_as_configured {
        true => is_well || can_go_back(app, turn, old),
        false => differences.is_none() && !is_well && can_go_back(app, turn, old),
    };
    if has_switched && is_to_be_watched {
        let how = if is_as_configured { "runs as configured" } else { "is down" };
        turn.say(format_args!("already switched: {old} {how}"));
        (about.instance, about.release) = (Some(old.clone()), Some(release.clone()));
        return watch_again(app, turn, change, old, &release);
    }
    if is_as_configured {
        turn.say("nothing has changed since it was started");
    }
    if !source::is_made_as_configured(app, &release)? {
        turn.say(format_args!("{release} stays as it was built; deploy builds it as configured now"));
    }
    differences.iter().flatten().for_each(|line| turn.say(line));
    (about.instance, about.release) = (Some(new.clone()), Some(release.clone()));
    change.leads_to(new, &release);
    let update = || {
        tell_of_drain(app, turn, new)?;
        // Also when it runs this release already: it was started with what was configured then.
        runner::stop(app, new, deadline)?;
        runner::update(app, new, &release, deadline)
    };
    cut_over(app, turn, (change, about), (Some(old), new), &release, update)
}

/// Gives an instance a release, by `update`, starts it, and has it take the traffic of the old one.
fn cut_over(
    app: &App,
    turn: &Turn,
    (change, about): (&mut Change, &mut About),
    (old, new): (Option<&Instance>, &Instance),
    release: &ReleaseId,
    update: impl FnOnce() -> Result<()>,
) -> Result<Exit> {
    let deadline = Deadline::after(app.config.deploy.timeout);
    // The way back until the cutover: the other instance gets its former release again, and runs if it did.
    let before = Before::of(app, turn, new, release)?;
    turn.doing(format_args!("starting {new} with {release}"), None);
    let started = update().and_then(|()| runner::start(app, new, deadline));
    started.inspect_err(|_| go_back(turn, app, new, &before))?;
    turn.say(format_args!("{new} is healthy, {}", output::span(change.step("start"))));
    turn.doing(format_args!("preparing {new}"), None);
    if hooks::is_there(app, Hook::BeforeConnect)? {
        turn.say(format_args!("running hooks/{}", Hook::BeforeConnect.name()));
    }
    let prepared = hooks::run(app, Hook::BeforeConnect, about, &app.release(release), deadline);
    prepared.with_context(|| format!("cannot connect {new}")).inspect_err(|_| go_back(turn, app, new, &before))?;
    turn.doing(format_args!("connecting {new}"), Some(new));
    runner::switch(app, new).inspect_err(|error| {
        if exit_of(error) != Exit::Stranded {
            go_back(turn, app, new, &before);
        }
    })?;
    turn.say(format_args!("{new} is enabled, {}", output::span(change.step("connect"))));

    // The way back after the cutover: the old instance still runs, the traffic returns to it, and the workers.
    runner::watch(app, turn, new, || {
        nginx::take_back(app, old)?;
        let followed = runner::workers::follow(app, deadline);
        go_back(turn, app, new, &before);
        followed.map(|()| old)
    })?;
    change.step("soak");
    finish(app, turn, app.other(new))
}

/// Whether a tool has cut over to this instance that was killed since, and what stands by is well: that is the way back when this one
/// is not, and no place for the same once more.
fn can_go_back(app: &App, turn: &Turn, enabled: &Instance) -> bool {
    turn.resumes_watch_of(enabled) && runner::still_healthy(app, app.other(enabled)).is_ok()
}

/// Watches an instance to which a tool has cut over that was killed since: whatever it was killed in, its watch was not over.
fn watch_again(app: &App, turn: &Turn, change: &mut Change, enabled: &Instance, release: &ReleaseId) -> Result<Exit> {
    let other = app.other(enabled);
    change.leads_to(enabled, release);
    runner::watch(app, turn, enabled, || {
        runner::start(app, other, Deadline::after(app.config.deploy.timeout))?;
        nginx::take_back(app, Some(other)).map(|()| Some(other))
    })?;
    change.step("soak");
    finish(app, turn, other)
}

/// Puts an instance back where it was. The failure that led here is what the user must hear of; this one is only said.
fn go_back(turn: &Turn, app: &App, instance: &Instance, before: &Before) {
    turn.forgive(before.restore(app, instance));
}

/// Says that an instance has connections which are to end before it does, when they do not at once: that can take a while in which
/// nothing else is told.
fn tell_of_drain(app: &App, turn: &Turn, instance: &Instance) -> Result<()> {
    let patience = app.config.deploy.drain_timeout;
    if patience <= UNTOLD || !runner::runs(app, instance)? {
        return Ok(());
    }
    runner::drain(app, instance, Deadline::after(UNTOLD))?;
    let left = runner::connections(app, instance)?;
    if left > 0 {
        let patience = output::span(patience);
        turn.say(format_args!(
            "connections of {instance} that are open: {left}; they have up to {patience} (drain_timeout)"
        ));
    }
    Ok(())
}

/// Removes old releases. Where it cannot be told which of them served, all may have.
fn prune(app: &App) -> Result<()> {
    let served = history::served(app).ok().filter(|served| !served.is_empty());
    source::prune(app, served.as_ref())
}

/// What is left to do once the new release serves: it serves, so what fails here is only said.
fn finish(app: &App, turn: &Turn, standby: &Instance) -> Result<Exit> {
    turn.doing("clearing up", Some(app.other(standby)));
    let retired = match app.config.deploy.standby {
        Standby::Keep => Ok(false),
        Standby::Stop => tell_of_drain(app, turn, standby)
            .and_then(|()| runner::stop(app, standby, Deadline::after(app.config.deploy.timeout))),
    };
    turn.forgive(retired.and_then(|_| prune(app)));
    Ok(Exit::Done)
}

/// The small tools that do the same by hand, as a line for a shell.
pub fn pipeline(app: &App, wanted: &Wanted) -> Result<String> {
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
    let again = if wanted.again { " --again" } else { "" };
    Ok(format!("update-instance {new}{what}{again} && start-instance {new} && connect-to-nginx {new}{stop}"))
}
