//! Room on the disk: what a failure for want of it is called, and what is removed to make some.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Error, Result};
use nix::sys::statvfs::statvfs;

use super::store::remove_old;
use crate::app::App;
use crate::outcome::{Exit, exit_of};
use crate::output::bytes;

/// A disk with less is full, in bytes: whoever failed there may have removed what did not fit.
const FULL: u64 = 1_000_000;
/// How programs say that there was no room, in their messages.
const NO_SPACE: &str = "no space left on device";
/// The same of a user's share of the disk.
const NO_QUOTA: &str = "quota exceeded";

/// An error that came about because a disk is full.
#[derive(Debug)]
struct NoRoom(String);

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NoRoom {}

/// Does what needs room. When there is none, the releases that the next one will push out are removed, and it is done once
/// more.
pub fn with_room<T>(app: &App, mut work: impl FnMut() -> Result<T>) -> Result<T> {
    let error = match work().map_err(|error| explained(app, error)) {
        Err(error) if error.is::<NoRoom>() => error,
        other => return other,
    };
    match remove_old(app, app.config.deploy.keep_releases.saturating_sub(1)) {
        Ok(removed) if !removed.is_empty() => work().map_err(|error| explained(app, error)),
        // What must be heard is why the work failed.
        _ => Err(error),
    }
}

/// An error that says so when a full disk is why, with the place and what is free there. To be called before anything is
/// removed that did not fit.
pub fn explained(app: &App, error: Error) -> Error {
    if error.is::<NoRoom>() || exit_of(&error) != Exit::Failed {
        return error;
    }
    let said = format!("{error:#}");
    match shortage(app, &said.to_lowercase()) {
        Some(shortage) => NoRoom(format!("{said}; {shortage}")).into(),
        None => error,
    }
}

/// What is used up, in words; None: nothing is.
fn shortage(app: &App, said: &str) -> Option<String> {
    let releases = app.releases();
    let keep = app.config.deploy.keep_releases;
    let remedy = format!("make room there, or lower keep_releases, which is {keep}, in [deploy]");
    if let Some(lack) = lack(&releases) {
        return Some(format!("{lack}: {remedy}"));
    }
    let home = app.owner.home.clone();
    let others = home.into_iter().chain(["/tmp", "/var/tmp"].map(PathBuf::from));
    let elsewhere = || others.into_iter().find_map(|place| lack(&place));
    if said.contains(NO_SPACE) {
        let free = || {
            Some(format!(
                "the disk was full, and {} are free now in {}: {remedy}",
                bytes(free(&releases)?.0),
                releases.display()
            ))
        };
        return elsewhere().or_else(free);
    }
    said.contains(NO_QUOTA)
        .then(|| format!("what {} may have of the disk of {} is used up: {remedy}", app.owner.name, releases.display()))
}

/// What a place lacks, in words; None: nothing, or nobody can tell.
fn lack(place: &Path) -> Option<String> {
    let (space, files) = free(place)?;
    let place = place.display();
    match files {
        _ if space < FULL => Some(format!("the disk is full, {} are free in {place}", bytes(space))),
        Some(0) => Some(format!("the disk can hold no more files, there is no inode left in {place}")),
        _ => None,
    }
}

/// How many bytes and how many files a place has room for; None: no certain number of files, or there is no such place.
fn free(place: &Path) -> Option<(u64, Option<u64>)> {
    let usage = statvfs(place).ok()?;
    let files = (usage.files() > 0).then(|| usage.files_available());
    Some((usage.blocks_available().saturating_mul(usage.fragment_size()), files))
}
