//! The record of past changes: one JSON line each in logs/history.jsonl, appended, never rewritten.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::app::{App, Instance, ReleaseId};
use crate::durable;
use crate::outcome::{Exit, exit_of};
use crate::{nginx, source};

/// A change in the making: what is known at its start, and how long its steps took so far.
pub struct Change {
    tool: &'static str,
    began: Instant,
    step_began: Instant,
    seconds: Map<String, Value>,
    from: Option<Side>,
    to: Option<Side>,
}

#[derive(Serialize)]
struct Line<'a> {
    at: String,
    who: &'a str,
    what: &'static str,
    from: Option<Side>,
    to: Option<Side>,
    seconds: Map<String, Value>,
    outcome: &'static str,
    reason: Option<String>,
}

/// An instance and the release it had; None: none.
#[derive(Serialize)]
struct Side {
    instance: String,
    release: Option<ReleaseId>,
}

impl Change {
    /// A change that this tool begins now.
    pub fn begin(tool: &'static str, app: &App) -> Result<Change> {
        let from = match nginx::enabled(app)? {
            Some(instance) => {
                Some(Side { instance: instance.to_string(), release: source::release_of(app, instance)? })
            }
            None => None,
        };
        let now = Instant::now();
        Ok(Change { tool, began: now, step_began: now, seconds: Map::new(), from, to: None })
    }

    /// It is known which instance gets the traffic, and with which release. A change that never got here and did not
    /// fail changed nothing, and is not written down.
    pub fn leads_to(&mut self, instance: &Instance, release: &ReleaseId) {
        self.to = Some(Side { instance: instance.to_string(), release: Some(release.clone()) });
    }

    /// A step has ended; returns how long it took.
    pub fn step(&mut self, name: &str) -> Duration {
        let took = self.step_began.elapsed();
        self.seconds.insert(name.to_owned(), rounded(took));
        self.step_began = Instant::now();
        took
    }

    /// Writes the change down, with how it ended: `done`, `failed` or `rolled back`.
    pub fn end(mut self, app: &App, result: &Result<Exit>) -> Result<()> {
        if result.is_ok() && self.to.is_none() {
            return Ok(());
        }
        self.seconds.insert("total".to_owned(), rounded(self.began.elapsed()));
        let line = Line {
            at: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            who: &app.caller,
            what: self.tool,
            from: self.from,
            to: self.to,
            seconds: self.seconds,
            outcome: match result {
                Ok(_) => "done",
                Err(error) if exit_of(error) == Exit::RolledBack => "rolled back",
                Err(_) => "failed",
            },
            reason: result.as_ref().err().map(|error| format!("{error:#}")),
        };
        let text = serde_json::to_string(&line).context("cannot make JSON")? + "\n";
        let path = app.history();
        durable::append(&path, text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
    }
}

fn rounded(took: Duration) -> Value {
    ((took.as_secs_f64() * 1000.0).round() / 1000.0).into()
}
