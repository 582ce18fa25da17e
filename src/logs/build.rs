//! What builds print: each has a log of its own.

use anyhow::Result;

use crate::app::{App, ReleaseId};
use crate::logfile::{self, Backwards, Choice, Line};
use crate::outcome::{Exit, failure};
use crate::source;

/// The wanted lines of a release's build; None: of the newest one. That there are none is an error: nobody has printed
/// anything.
pub fn lines(app: &App, release: Option<&ReleaseId>, choice: &Choice) -> Result<Vec<Line>> {
    let release = match release {
        Some(release) => Some(release.clone()),
        None => newest(app)?,
    };
    let log = release.as_ref().map(|release| app.build_log(release)).filter(|log| log.exists());
    match (log, release) {
        (Some(log), _) => choice.of_newest_first(Backwards::of(&log)?.map(|line| line.map(plain))),
        (None, Some(release)) => Err(failure(Exit::No, format!("the build of {release} has no log"))),
        (None, None) => Err(failure(Exit::No, "no build has a log")),
    }
}

/// Follows a build; unless it was named, each newer one after it.
pub struct Follower {
    app: App,
    named: Option<ReleaseId>,
    current: Option<(ReleaseId, logfile::Follower)>,
}

impl Follower {
    /// The wanted lines so far, and what goes on right behind them. None: of the newest build; where there is none, the first
    /// one is waited for.
    pub fn of(app: &App, release: Option<&ReleaseId>, choice: &Choice) -> Result<(Vec<Line>, Follower)> {
        let mut follower = Follower { app: app.clone(), named: release.cloned(), current: None };
        let release = match release {
            Some(release) => Some(release.clone()),
            None => newest(app)?,
        };
        let Some(release) = release else { return Ok((Vec::new(), follower)) };
        let (lines, current) = logfile::Follower::of(&app.build_log(&release))?;
        follower.current = Some((release, current));
        Ok((choice.of_newest_first(lines.map(|line| line.map(plain)))?, follower))
    }

    /// The lines that have come since the last call.
    pub fn new_lines(&mut self) -> Result<Vec<Line>> {
        let newer = match &self.named {
            Some(_) => None,
            None => newest(&self.app)?.filter(|newest| self.current.as_ref().is_none_or(|(id, _)| newest > id)),
        };
        // The build before has ended by then: this is the end of its log.
        let lines = self.current.as_mut().map_or_else(|| Ok(Vec::new()), |(_, follower)| follower.new_lines())?;
        if let Some(newer) = newer.filter(|_| lines.is_empty()) {
            let follower = logfile::Follower::from_beginning(&self.app.build_log(&newer));
            self.current = Some((newer, follower));
        }
        Ok(lines.into_iter().map(plain).collect())
    }
}

fn newest(app: &App) -> Result<Option<ReleaseId>> {
    Ok(source::build_logs(app)?.into_iter().next())
}

/// A line of which nothing but its text is known.
fn plain(text: String) -> Line {
    Line { at: None, source: String::new(), text }
}
