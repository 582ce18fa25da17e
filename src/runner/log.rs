//! What an instance has printed, and goes on printing: in its log file, in systemd's journal, or in Docker's
//! keeping.

use anyhow::Result;

use super::{compose, journal};
use crate::app::{App, Instance, Runner};
use crate::logfile::{self, Backwards, Choice, Line};

/// Follows an instance's output from now on.
pub enum Tail {
    /// In its log file.
    File(logfile::Follower),
    /// In the journal.
    Journal(journal::Follower),
    /// In what Docker keeps of the container's.
    Container(compose::Follower),
}

impl Tail {
    /// The last `count` lines that an instance printed, oldest first.
    pub fn last_lines(app: &App, instance: &Instance, count: usize) -> Result<Vec<Line>> {
        Tail::lines(app, instance, &Choice::last(count))
    }

    /// The wanted ones of the lines that an instance printed, oldest first.
    pub fn lines(app: &App, instance: &Instance, choice: &Choice) -> Result<Vec<Line>> {
        match app.runner() {
            Runner::Direct => choice.of_newest_first(parsed(Backwards::of(&app.instance_log(instance))?)),
            Runner::Systemd => journal::lines(app, instance, choice),
            Runner::Compose => compose::lines(app, instance, choice),
        }
    }

    /// The same, and what goes on right behind them: each line comes once.
    pub fn of(app: &App, instance: &Instance, choice: &Choice) -> Result<(Vec<Line>, Tail)> {
        Ok(match app.runner() {
            Runner::Direct => {
                let (lines, follower) = logfile::Follower::of(&app.instance_log(instance))?;
                (choice.of_newest_first(parsed(lines))?, Tail::File(follower))
            }
            Runner::Systemd => {
                let (lines, follower) = journal::Follower::of(app, instance, choice)?;
                (lines, Tail::Journal(follower))
            }
            Runner::Compose => {
                let (lines, follower) = compose::Follower::of(app, instance, choice)?;
                (lines, Tail::Container(follower))
            }
        })
    }

    /// The lines that have come since the last call, wanted or not.
    pub fn new_lines(&mut self) -> Result<Vec<Line>> {
        match self {
            Tail::File(follower) => Ok(follower.new_lines()?.iter().map(|line| Line::parse(line)).collect()),
            Tail::Journal(follower) => follower.new_lines(),
            Tail::Container(follower) => follower.new_lines(),
        }
    }
}

/// Lines of a log file.
fn parsed(lines: Backwards) -> impl Iterator<Item = Result<Line>> {
    lines.map(|line| line.map(|line| Line::parse(&line)))
}
