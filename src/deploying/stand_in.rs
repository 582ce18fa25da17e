//! What happens to the traffic before a deploy begins, and its way back: the standby stands in for an enabled instance that is
//! down, so that the deploy goes to the instance that nobody needs.
//!
//! A standby whose release was rolled back is no such standby: it stands in only when nothing else gives any answer.

use anyhow::Result;

use crate::app::{App, Instance, Turn};
use crate::deadline::Deadline;
use crate::history::{self, Change};
use crate::outcome::{Exit, exit_of, failure};
use crate::{nginx, runner};

/// How the record calls the change.
const STAND_IN: &str = "stand-in";
/// How the record calls it that a container got a release, which somebody else had started.
const ADOPTION: &str = "adoption";

/// A switch that was made before a deploy began.
pub struct StandIn<'a> {
    /// The instance that was enabled before; None: none was.
    before: Option<&'a Instance>,
    /// The one that is enabled instead.
    instance: &'a Instance,
}

impl<'a> StandIn<'a> {
    /// Gives a release to each container that somebody else has started, and has the standby stand in where it must, or, where
    /// nothing is enabled, a container that runs already. All of it is said, and recorded. None: no switch was made.
    pub fn make(app: &'a App, turn: &Turn, change: &mut Change) -> Result<Option<StandIn<'a>>> {
        for (instance, release) in runner::adopt(app, Deadline::after(app.config.deploy.timeout))? {
            turn.say(format_args!("{instance} runs already: its image becomes {release}"));
            turn.forgive(change.beside(app, ADOPTION, None, Some(instance), "it ran already"));
        }
        let Some((before, instance, reason)) = needed(app)? else { return Ok(None) };
        runner::connect(app, instance, Deadline::after(app.config.deploy.timeout))?;
        turn.say(&reason);
        turn.forgive(change.beside(app, STAND_IN, before, Some(instance), &reason));
        change.begins_anew(app)?;
        Ok(Some(StandIn { before, instance }))
    }

    /// The deploy has failed for this reason: takes the traffic back to the instance that had it, if that can serve again.
    /// Otherwise the service is not as it was, and the error says what serves.
    pub fn undo(self, app: &App, turn: &Turn, change: &Change, error: anyhow::Error) -> anyhow::Error {
        let StandIn { before, instance } = self;
        if exit_of(&error) == Exit::Stranded || nginx::enabled(app).ok().flatten() != Some(instance) {
            return error;
        }
        let is_unproven = before.is_some_and(|before| is_unproven(app, turn, change, before));
        if is_unproven && exit_of(&error) == Exit::RolledBack {
            return error;
        }
        let returned = match before {
            Some(before) if is_unproven => Err(format!("{before} has not stood the test of its traffic")),
            Some(before) => runner::still_healthy(app, before)
                .map_err(|seen| format!("{before} is not healthy: {seen}"))
                .and_then(|()| {
                    let patience = Deadline::after(app.config.deploy.timeout);
                    runner::connect(app, before, patience).map_err(|failed| format!("{failed:#}"))
                }),
            None => nginx::take_back(app, None).map_err(|failed| format!("{failed:#}")),
        };
        let is_enabled = before.map_or_else(|| "nothing".to_owned(), Instance::to_string);
        match returned {
            Ok(()) => {
                let reason = format!("the deploy has failed, and {is_enabled} is enabled as before");
                turn.forgive(change.beside(app, STAND_IN, Some(instance), before, &reason));
                failure(exit_of(&error), format!("{error:#}; {is_enabled} is enabled as before"))
            }
            Err(seen) => {
                let release = app.release_of(instance).ok().flatten();
                let with = release.map_or_else(String::new, |release| format!(" with {release}"));
                failure(Exit::Stranded, format!("{error:#}; {instance} stands in{with}: {seen}"))
            }
        }
    }
}

/// Whether the release of the instance that was enabled is one that did not prove itself, though it may be healthy as long as
/// it gets no traffic: the deploy that brought it was killed before its watch was over, or it is what has just failed.
fn is_unproven(app: &App, turn: &Turn, change: &Change, before: &Instance) -> bool {
    let has_failed = |release| change.is_of(&release) || history::was_rolled_back(app, &release).unwrap_or(false);
    turn.resumes_watch_of(before) || app.release_of(before).ok().flatten().is_some_and(has_failed)
}

/// The switch that is needed before a deploy: from where, to where, and why, in words.
type Needed<'a> = (Option<&'a Instance>, &'a Instance, String);

fn needed(app: &App) -> Result<Option<Needed<'_>>> {
    let Some(enabled) = nginx::enabled(app)? else {
        let serving = runner::serving(app)?;
        return Ok(serving.map(|serving| (None, serving, format!("{serving} runs already: it is enabled"))));
    };
    let standby = app.other(enabled);
    let is_up = || runner::up(app, enabled, runner::CHECK);
    if is_up().is_ok() || runner::still_healthy(app, standby).is_err() {
        return Ok(None);
    }
    // One answer that comes late says little of an instance that serves.
    let Err(seen) = is_up() else { return Ok(None) };
    let release = app.release_of(standby)?;
    let was_rolled_back = release.map_or(Ok(false), |release| history::was_rolled_back(app, &release))?;
    // Its pages may work, whatever its health check says.
    if was_rolled_back && (runner::any_answer(app, enabled, runner::CHECK) || comes_back(app, enabled)) {
        return Ok(None);
    }
    let reason = format!("{enabled} is enabled but not healthy ({seen}); its standby {standby} takes its place");
    Ok(Some((Some(enabled), standby, reason)))
}

/// Whether an instance that is down can be had back.
fn comes_back(app: &App, instance: &Instance) -> bool {
    runner::start(app, instance, Deadline::after(app.config.deploy.timeout)).is_ok()
}
