//! The record of past changes, one JSON line each in logs/history.jsonl, appended, never rewritten; reading it again, and
//! what is new beside it.

mod past;

pub use past::{Past, last_reference, past, releases, served, table};

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::app::{Activity, App, Instance, ReleaseId};
use crate::deadline::Deadline;
use crate::durable;
use crate::nginx;
use crate::outcome::{Exit, exit_of};
use crate::source::{self, Origin};

/// The outcome of what went well.
const DONE: &str = "done";
/// The outcome of what failed after the cutover.
const ROLLED_BACK: &str = "rolled back";
/// The outcome of what failed after the cutover, and whose way back failed.
const STRANDED: &str = "stranded";
/// How long the source may take to say where a branch is.
const QUESTION: Duration = Duration::from_secs(60);
/// How many changes back the last deploy of a reference is looked for.
const SEARCHED_LINES: usize = 500;

/// A change in the making: what is known at its start, and how long its steps took so far.
pub struct Change {
    tool: &'static str,
    began: Instant,
    step_began: Instant,
    seconds: Map<String, Value>,
    who: Option<String>,
    wanted: Option<Wanted>,
    from: Option<Side>,
    to: Option<Side>,
}

/// A change as it is recorded.
#[derive(Deserialize, Serialize)]
struct Line {
    at: String,
    who: String,
    what: String,
    wanted: Option<Wanted>,
    from: Option<Side>,
    to: Option<Side>,
    seconds: Map<String, Value>,
    outcome: String,
    reason: Option<String>,
}

/// What was asked for, and what that was.
#[derive(Deserialize, Serialize)]
struct Wanted {
    /// The branch, tag or commit; None: a path.
    #[serde(rename = "ref")]
    reference: Option<String>,
    /// The full commit, the path, or the image's id.
    origin: String,
}

/// An instance and the release it had; None: none.
#[derive(Deserialize, Serialize)]
struct Side {
    instance: String,
    release: Option<ReleaseId>,
}

impl Change {
    /// A change that this tool begins now, asked for by `who`; None: by who called.
    pub fn begin(tool: &'static str, app: &App, who: Option<&str>) -> Result<Change> {
        let from = nginx::enabled(app)?.map(|instance| Side::of(app, instance)).transpose()?;
        let now = Instant::now();
        Ok(Change {
            tool,
            began: now,
            step_began: now,
            seconds: Map::new(),
            who: who.map(str::to_owned),
            wanted: None,
            from,
            to: None,
        })
    }

    /// Another one is enabled than when it began.
    pub fn begins_anew(&mut self, app: &App) -> Result<()> {
        self.from = nginx::enabled(app)?.map(|instance| Side::of(app, instance)).transpose()?;
        Ok(())
    }

    /// Writes down another change, which was made for the sake of this one: `what` was done, and why.
    pub fn beside(
        &self,
        app: &App,
        what: &str,
        from: Option<&Instance>,
        to: Option<&Instance>,
        reason: &str,
    ) -> Result<()> {
        let side = |instance: Option<&Instance>| instance.map(|instance| Side::of(app, instance)).transpose();
        write(
            app,
            &Line {
                at: now(),
                who: self.who.clone().unwrap_or_else(|| app.caller.clone()),
                what: what.to_owned(),
                wanted: None,
                from: side(from)?,
                to: side(to)?,
                seconds: Map::new(),
                outcome: DONE.to_owned(),
                reason: Some(reason.to_owned()),
            },
        )
    }

    /// It is known what is wanted: what this reference names now, or a path.
    pub fn wants(&mut self, reference: Option<&str>, origin: &Origin) {
        self.wanted = Some(Wanted { reference: reference.map(str::to_owned), origin: origin.identity() });
    }

    /// The release that served when the change began; None: none did.
    pub fn previous(&self) -> Option<&ReleaseId> {
        self.from.as_ref().and_then(|side| side.release.as_ref())
    }

    /// It is known which instance gets the traffic, and with which release, if it has one. A change that never got here
    /// and did not fail changed nothing, and is not written down.
    pub fn leads_to<'a>(&mut self, instance: &Instance, release: impl Into<Option<&'a ReleaseId>>) {
        self.to = Some(Side { instance: instance.to_string(), release: release.into().cloned() });
    }

    /// Whether this is the release that it leads to.
    pub fn is_of(&self, release: &ReleaseId) -> bool {
        self.to.as_ref().is_some_and(|side| side.release.as_ref() == Some(release))
    }

    /// A step has ended; returns how long it took.
    pub fn step(&mut self, name: &str) -> Duration {
        let took = self.step_began.elapsed();
        self.seconds.insert(name.to_owned(), rounded(took));
        self.step_began = Instant::now();
        took
    }

    /// How a change has ended that came to this: `done`, `failed`, `rolled back` or `stranded`. None: nothing has changed.
    pub fn outcome(&self, result: &Result<Exit>) -> Option<&'static str> {
        match result {
            Ok(_) if self.to.is_none() => None,
            Ok(_) => Some(DONE),
            Err(error) => Some(match exit_of(error) {
                Exit::RolledBack => ROLLED_BACK,
                Exit::Stranded => STRANDED,
                _ => "failed",
            }),
        }
    }

    /// Writes the change down, with how it ended.
    pub fn end(mut self, app: &App, result: &Result<Exit>) -> Result<()> {
        let Some(outcome) = self.outcome(result) else { return Ok(()) };
        self.seconds.insert("total".to_owned(), rounded(self.began.elapsed()));
        let line = Line {
            at: now(),
            who: self.who.unwrap_or_else(|| app.caller.clone()),
            what: self.tool.to_owned(),
            wanted: self.wanted,
            from: self.from,
            to: self.to,
            seconds: self.seconds,
            outcome: outcome.to_owned(),
            reason: result.as_ref().err().map(|error| format!("{error:#}")),
        };
        write(app, &line)
    }
}

impl Side {
    fn of(app: &App, instance: &Instance) -> Result<Side> {
        Ok(Side { instance: instance.to_string(), release: app.release_of(instance)? })
    }
}

fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

fn write(app: &App, line: &Line) -> Result<()> {
    let text = serde_json::to_string(line).context("cannot make JSON")? + "\n";
    let path = app.history();
    durable::append(&path, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

/// Whether a release was rolled back when it served last: by a tool, or by somebody who connected an older one.
pub fn was_rolled_back(app: &App, release: &ReleaseId) -> Result<bool> {
    let is = |side: &Option<Side>| side.as_ref().is_some_and(|side| side.release.as_ref() == Some(release));
    let verdict = |past: Line| {
        let is_by_hand = ["rollback", "connect-to-nginx"].contains(&past.what.as_str());
        let is_older = past.to.as_ref().is_some_and(|to| to.release.as_ref() < Some(release));
        match past.outcome.as_str() {
            DONE if is(&past.to) => Some(false),
            DONE if is(&past.from) && is_by_hand && is_older => Some(true),
            ROLLED_BACK | STRANDED if is(&past.to) => Some(true),
            _ => None,
        }
    };
    for past in past::lines(app)?.take(SEARCHED_LINES) {
        if let Some(verdict) = verdict(past?) {
            return Ok(verdict);
        }
    }
    Ok(false)
}

/// Whether the source has something under the wanted name that is new, or that `tool` has begun and not finished, as far as
/// that can be told without fetching it. Nothing is locked, and next to nothing asked, to find out.
pub fn has_moved(app: &App, wanted: &source::Wanted, tool: &str) -> Result<bool> {
    let Some(reference) = wanted.reference(app) else { return Ok(true) };
    let deadline = Deadline::after(app.config.deploy.timeout).within(QUESTION);
    let Some(head) = source::remote_head(app, reference, deadline)? else { return Ok(true) };
    if source::current(app, nginx::enabled(app)?, &head)?.is_some() {
        return Ok(matches!(app.activity()?, Some(Activity::Interrupted(doing)) if doing.tool == tool));
    }
    is_untried(app, Some(reference), &head)
}

/// Whether this was not what the last deploy under its name wanted, however that ended, nor what was rolled back since: what
/// failed then fails again, and a rollback is not undone.
pub fn is_untried(app: &App, reference: Option<&str>, origin: &Origin) -> Result<bool> {
    let is_it = |past: &Line| {
        let left = past.from.as_ref().filter(|_| past.what == "rollback").and_then(|from| from.release.as_ref());
        let wanted = past.wanted.as_ref();
        wanted.is_some_and(|wanted| wanted.origin == origin.identity()) || left.is_some_and(|left| origin.is_of(left))
    };
    let is_namesake = |past: &Line| past.wanted.as_ref().is_some_and(|wanted| wanted.reference.as_deref() == reference);
    let is_looked_for = |past: &Result<Line>| past.as_ref().map_or(true, |past| is_it(past) || is_namesake(past));
    let last = past::lines(app)?.take(SEARCHED_LINES).find(is_looked_for).transpose()?;
    // What was deployed well serves, unless everything was taken away since.
    let was_taken_away =
        |last: &Line| last.outcome == DONE && nginx::enabled(app).is_ok_and(|enabled| enabled.is_none());
    Ok(last.is_none_or(|last| !is_it(&last) || was_taken_away(&last)))
}

fn rounded(took: Duration) -> Value {
    ((took.as_secs_f64() * 1000.0).round() / 1000.0).into()
}
