//! What an instance has printed, and goes on printing: in its log file, in systemd's journal, or in Docker's
//! keeping.

use anyhow::Result;

use super::{compose, journal};
use crate::app::{App, Instance, Runner};
use crate::logfile;

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
    /// The last `count` lines that an instance printed, oldest first; bytes that are not UTF-8 become U+FFFD.
    pub fn last_lines(app: &App, instance: &Instance, count: usize) -> Result<Vec<String>> {
        match app.runner() {
            Runner::Direct => logfile::last_lines(&app.instance_log(instance), count),
            Runner::Systemd => journal::last_lines(app, instance, count),
            Runner::Compose => compose::last_lines(app, instance, count),
        }
    }

    /// Begins `count` lines before the end.
    pub fn of(app: &App, instance: &Instance, count: usize) -> Result<(Vec<String>, Tail)> {
        Ok(match app.runner() {
            Runner::Direct => {
                let (lines, follower) = logfile::Follower::of(&app.instance_log(instance), count)?;
                (lines, Tail::File(follower))
            }
            Runner::Systemd => (Vec::new(), Tail::Journal(journal::Follower::of(app, instance, count)?)),
            Runner::Compose => (Vec::new(), Tail::Container(compose::Follower::of(app, instance, count)?)),
        })
    }

    /// The lines that have come since the last call.
    pub fn new_lines(&mut self) -> Result<Vec<String>> {
        match self {
            Tail::File(follower) => follower.new_lines(),
            Tail::Journal(follower) => follower.new_lines(),
            Tail::Container(follower) => follower.new_lines(),
        }
    }
}
