//! Reading the record: what was changed, and what one can go back to.

use std::collections::HashSet;
use std::fmt;
use std::iter;
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{DONE, Line, SEARCHED_LINES, Side};
use crate::app::{App, ReleaseId};
use crate::logfile::Backwards;
use crate::{nginx, outcome, output, source};

/// What the columns of the table are called.
const HEADING: [&str; 9] = ["when", "what", "outcome", "took", "who", "from", "to", "wanted", "reason"];

/// How much of the record is read, from its end, in bytes: more changes than anybody makes.
const MOST_READ: usize = 64 * 1024 * 1024;

/// A past change; as JSON it is what was recorded, whichever version of the tools has recorded it.
#[derive(Serialize)]
#[serde(transparent)]
pub struct Past {
    recorded: Value,
    #[serde(skip)]
    line: Line,
}

impl Past {
    /// Reads a recorded line. None: it is no whole one.
    pub fn read(text: &str) -> Option<Past> {
        let recorded: Value = serde_json::from_str(text).ok()?;
        Some(Past { line: Line::deserialize(&recorded).ok()?, recorded })
    }

    /// The change where there is little room: when, what, how it ended, how long it took, who asked for it, and why it
    /// failed or else what it led to.
    pub fn summary(&self) -> [String; 6] {
        let Line { at, what, outcome, who, .. } = &self.line;
        let took = self.line.took().map_or_else(|| "-".to_owned(), output::span);
        let led_to = || self.line.to.as_ref().map(Side::to_string);
        let end = self.line.reason.clone().or_else(led_to).unwrap_or_default();
        [at.clone(), what.clone(), outcome.clone(), took, who.clone(), end]
    }
}

/// The last `count` changes, the newest first; empty when there is no record yet. What is no whole line is skipped: a full
/// disk or a power cut may have left a part of one.
pub fn past(app: &App, count: usize) -> Result<Vec<Past>> {
    read(app)?.take(count).collect()
}

/// The releases that one can go back to, the newest first: those that are still there and have served before, or are the
/// standby's, but not the one that serves now.
pub fn releases(app: &App) -> Result<Vec<ReleaseId>> {
    let mut candidates = served(app)?;
    candidates.extend(app.release_of(nginx::disabled(app)?)?);
    let enabled = nginx::enabled(app)?;
    let serving = enabled.map(|enabled| app.release_of(enabled)).transpose()?.flatten();
    let is_candidate = |id: &ReleaseId| candidates.contains(id) && serving.as_ref() != Some(id);
    Ok(source::releases(app)?.into_iter().filter(is_candidate).collect())
}

/// The releases that are known to have served.
pub fn served(app: &App) -> Result<HashSet<ReleaseId>> {
    let mut served = HashSet::new();
    for past in lines(app)? {
        served.extend(past?.served());
    }
    Ok(served)
}

/// What the last deploy that went well was of, by its name; None: none is known, or it was of a path.
pub fn last_reference(app: &App) -> Result<Option<String>> {
    let is_deploy =
        |past: &Result<Line>| past.as_ref().map_or(true, |past| past.what == "deploy" && past.outcome == DONE);
    let last = lines(app)?.take(SEARCHED_LINES).find(is_deploy).transpose()?;
    Ok(last.and_then(|past| past.wanted?.reference))
}

/// A table for people: a line for each change, and of each reason as much as fits in a line.
pub fn table(past: &[Past]) -> String {
    let heading = HEADING.map(str::to_owned).to_vec();
    let rows: Vec<Vec<String>> = iter::once(heading).chain(past.iter().map(|past| past.line.row())).collect();
    output::table(&rows)
}

/// All changes, the newest first.
pub(super) fn lines(app: &App) -> Result<impl Iterator<Item = Result<Line>>> {
    Ok(read(app)?.map(|past| Ok(past?.line)))
}

fn read(app: &App) -> Result<impl Iterator<Item = Result<Past>>> {
    let mut room = MOST_READ;
    let lines = Backwards::of(&app.history())?.take_while(move |line| {
        let length = line.as_ref().map_or(0, String::len);
        room = room.saturating_sub(length.saturating_add(1));
        room > 0
    });
    Ok(lines.filter_map(|line| line.map(|text| Past::read(&text)).transpose()))
}

impl Line {
    /// The releases that are known to have served before it or since.
    fn served(self) -> impl Iterator<Item = ReleaseId> {
        let to = self.to.filter(|_| self.outcome == DONE);
        [self.from, to].into_iter().flatten().filter_map(|side| side.release)
    }

    fn row(&self) -> Vec<String> {
        let wanted = self.wanted.as_ref().map(|wanted| wanted.reference.as_ref().unwrap_or(&wanted.origin));
        let cells = [
            Some(self.at.clone()),
            Some(self.what.clone()),
            Some(self.outcome.clone()),
            self.took().map(output::span),
            Some(self.who.clone()),
            self.from.as_ref().map(Side::to_string),
            self.to.as_ref().map(Side::to_string),
            wanted.cloned(),
            self.reason.clone(),
        ];
        let shown = |text: String| outcome::quote_first(text.lines(), 1);
        cells.into_iter().map(|cell| cell.map_or_else(|| "-".to_owned(), shown)).collect()
    }

    fn took(&self) -> Option<Duration> {
        Duration::try_from_secs_f64(self.seconds.get("total")?.as_f64()?).ok()
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let release = self.release.as_ref().map_or("-", ReleaseId::as_str);
        write!(f, "{} {release}", self.instance)
    }
}
