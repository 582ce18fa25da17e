//! Deploys of what was pushed and waits in the queue.

use anyhow::Result;

use super::Attempt;
use crate::app::{App, Home, Wait};
use crate::outcome::{self, Exit, exit_of};
use crate::source::Wanted;
use crate::{history, push};

/// Deploys what waits in the queue, until nothing does.
pub fn work_off(tool: &'static str, app: &App, home: &Home) -> Result<Exit> {
    push::work_off(app, |queued| deploy(tool, home, &queued.what))
}

/// Deploys what a push asked for, as the configuration is by now. None: that could not be begun, for the source does not
/// answer, say, or others deploy. How it ended is told here, for other pushes may wait behind this one.
fn deploy(tool: &'static str, home: &Home, what: &str) -> Option<Exit> {
    let said = |error: &anyhow::Error| outcome::say(tool, format_args!("{what}: {error:#}"));
    let app = &App::open(home).inspect_err(said).ok()?;
    let wanted = Wanted { reference: Some(app.pushed_reference()), ..Wanted::default() };
    if !history::has_moved(app, &wanted, tool).inspect_err(said).ok()? {
        outcome::say(tool, format_args!("{what}: nothing is new"));
        return Some(Exit::Done);
    }
    let mut attempt = Attempt {
        is_for_news: true,
        asked_by: Some(what.to_owned()),
        ..Attempt::of(tool, wanted, Wait { wait: true })
    };
    let ended = attempt.make(app).inspect_err(said);
    attempt.has_begun.then(|| ended.unwrap_or_else(|error| exit_of(&error)))
}
