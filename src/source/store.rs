//! What lies in releases/: whole releases, those in the making, and what is left of old ones.
//!
//! A release is made in its place, for builds write their own paths into files. Beside it lies a file that tells with what it
//! is made, and by its name whether it is whole.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{git, image, snapshot};
use crate::app::{App, ReleaseId, Runner};
use crate::durable;
use crate::process;
use crate::removal::{self, Left};

/// How the name begins of the file beside a release in the making, and beside one that is whole. One that has none is whole.
const MAKING: &str = ".making-";
const MADE: &str = ".made-";
/// The permission bits of that file: it tells of secrets, if only their hashes.
const MODE: u32 = 0o600;
/// How the name of a release begins that is being removed.
const REMOVED: &str = ".removed-";
/// How the name begins of what could not be removed.
const LEFT: &str = ".left-";
/// How many things of one name are set aside.
const MOST_LEFT: usize = 100;

/// Begins a release, of which this is to be kept, and returns its empty directory. Only to be called under the deploy lock.
pub fn begin(app: &App, id: &ReleaseId, kept: &str) -> Result<PathBuf> {
    let directory = app.release(id);
    durable::write(&beside(app, MAKING, id), kept.as_bytes(), MODE)?;
    fs::create_dir(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    Ok(directory)
}

/// Makes it a whole one, after everything in it has reached the disk: after a power cut it is whole or none.
pub fn finish(app: &App, id: &ReleaseId) -> Result<()> {
    let (directory, made) = (app.release(id), beside(app, MADE, id));
    let flushed = File::open(&directory).and_then(|opened| Ok(nix::unistd::syncfs(opened)?));
    flushed
        .and_then(|()| fs::rename(beside(app, MAKING, id), &made))
        .and_then(|()| durable::sync_directory_of(&made))
        .with_context(|| format!("cannot keep {}", directory.display()))
}

/// Removes one that is not whole, so far as that is possible; the next sweep goes on.
pub fn abandon(app: &App, id: &ReleaseId) {
    match take_name(app, id) {
        // As long as it has its name, it must be known as what it is.
        Err(error) if error.kind() != io::ErrorKind::NotFound => return,
        _ => drop(durable::remove_if_there(&beside(app, MAKING, id))),
    }
    let _ = removal::tree(&beside(app, REMOVED, id));
}

/// What was kept of a release as it was begun; None: nothing was.
pub fn kept(app: &App, id: &ReleaseId) -> Option<String> {
    fs::read_to_string(beside(app, MADE, id)).ok()
}

fn beside(app: &App, prefix: &str, id: &ReleaseId) -> PathBuf {
    app.releases().join(format!("{prefix}{id}"))
}

/// All whole releases, the newest first.
pub fn releases(app: &App) -> Result<Vec<ReleaseId>> {
    let names = names_in(&app.releases())?;
    let making: Vec<ReleaseId> = names.iter().filter_map(|name| id_behind(MAKING, name)).collect();
    let whole = names.iter().filter_map(|name| name.parse().ok()).filter(|id| !making.contains(id));
    Ok(newest_first(whole))
}

fn id_behind(prefix: &str, name: &str) -> Option<ReleaseId> {
    name.strip_prefix(prefix)?.parse().ok()
}

/// Removes what is too old: all releases but the newest `keep_releases` and those that instances have, with their build
/// logs. Those that never served take no place among them: of them only the newest release of all is kept. `served` are those that
/// did; None: that is not known. A release loses its name before its files, so that half of one never looks like a whole one. None of this is
/// flushed: what a power cut brings back is removed again, and on a journalling file system no file goes before its name.
///
/// What cannot be removed is no reason not to remove the rest. The error tells of it, once: it is called `.left-…` from then on.
pub fn prune(app: &App, served: Option<&HashSet<ReleaseId>>) -> Result<()> {
    let mut failed = Vec::new();
    for id in old(app, app.config.deploy.keep_releases, served)? {
        failed.extend(take_name(app, &id).err().map(|error| format!("{}: {error}", app.release(&id).display())));
        git::forget(app, &id);
    }
    let kept = releases(app)?;
    failed.extend(sweep(app)?.into_iter().filter_map(|(path, left)| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let aside = set_aside(app, &path)?;
        Some(format!("{left}; what is left of {name} is {}", aside.display()))
    }));
    if let Err(error) = snapshot::remove(app) {
        failed.push(format!("{error:#}"));
    }
    failed.extend(app.prune_settings(&kept).err().map(|error| format!("{}: {error}", app.instances().display())));
    if app.runner() == Runner::Compose {
        failed.extend(image::prune(app).err().map(|error| format!("old images: {error:#}")));
    }
    // A failed build leaves no release, but a log: as many of those are kept as of releases.
    let mut logged = build_logs(app)?;
    logged.retain(|id| !kept.contains(id));
    for id in logged.iter().skip(app.config.deploy.keep_releases) {
        let path = app.build_log(id);
        failed.extend(durable::remove_if_there(&path).err().map(|error| format!("{}: {error}", path.display())));
    }
    if failed.is_empty() { Ok(()) } else { bail!("cannot remove {}", failed.join("; ")) }
}

/// Calls what cannot be removed by a name that says so. Returns it; None: it has such a name, or cannot have one.
fn set_aside(app: &App, path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?.trim_start_matches('.');
    if name.starts_with(LEFT.trim_start_matches('.')) {
        return None;
    }
    let free = (0..).map(|number| match number {
        0 => app.releases().join(format!("{LEFT}{name}")),
        _ => app.releases().join(format!("{LEFT}{name}-{number}")),
    });
    let aside = free.take(MOST_LEFT).find(|aside| fs::symlink_metadata(aside).is_err())?;
    fs::rename(path, &aside).ok()?;
    Some(aside)
}

/// All releases but the `keep` newest of those that served, the newest of all, and those that instances have.
fn old(app: &App, keep: usize, served: Option<&HashSet<ReleaseId>>) -> Result<Vec<ReleaseId>> {
    let held: Vec<ReleaseId> = app
        .config
        .instances
        .iter()
        .filter_map(|instance| app.release_of(instance).transpose())
        .collect::<Result<_>>()?;
    let (mut old, mut counted) = (Vec::new(), 0);
    for (at, id) in releases(app)?.into_iter().enumerate() {
        let is_held = held.contains(&id);
        let takes_place = is_held || served.is_none_or(|served| served.contains(&id));
        counted += usize::from(takes_place);
        let is_kept = if takes_place { counted <= keep } else { at == 0 };
        if !is_kept && !is_held {
            old.push(id);
        }
    }
    Ok(old)
}

/// Makes a release none, by its name. Its files go with the next sweep.
fn take_name(app: &App, id: &ReleaseId) -> io::Result<()> {
    fs::rename(app.release(id), beside(app, REMOVED, id))
}

/// Removes the old ones; returns those that are gone.
pub fn remove_old(app: &App, keep: usize) -> Result<Vec<ReleaseId>> {
    let mut gone = old(app, keep, None)?;
    gone.retain(|id| take_name(app, id).is_ok());
    sweep(app)?;
    Ok(gone)
}

/// All builds that have a log, the newest first.
pub fn build_logs(app: &App) -> Result<Vec<ReleaseId>> {
    let names = names_in(&app.logs())?;
    let ids = names.iter().filter_map(|name| name.strip_prefix("build-")?.strip_suffix(".log")?.parse().ok());
    Ok(newest_first(ids))
}

fn names_in(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.with_context(|| format!("cannot list {}", directory.display()))?,
    };
    Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

fn newest_first(ids: impl Iterator<Item = ReleaseId>) -> Vec<ReleaseId> {
    let mut ids: Vec<ReleaseId> = ids.collect();
    ids.sort();
    ids.reverse();
    ids
}

/// Removes what a killed tool left half made or half removed, and ends the build that may still run in it. Returns what cannot
/// be removed, which is no release and in nobody's way. Only to be called under the deploy lock.
pub fn sweep(app: &App) -> Result<Vec<(PathBuf, Left)>> {
    let directory = app.releases();
    for id in names_in(&directory)?.iter().filter_map(|name| id_behind(MAKING, name)) {
        let path = app.release(&id);
        // Another app's release has the same name when it was made in the same second, from a path or the same commit.
        process::kill_like(|pid, environment| {
            let builds = environment.get(OsStr::new("RELEASE")).is_some_and(|release| release == id.as_str());
            builds && process::works_in(pid, &path)
        });
        abandon(app, &id);
    }
    let mut left = Vec::new();
    for name in names_in(&directory)?.iter().filter(|name| name.starts_with('.')) {
        let path = directory.join(name);
        let of = [MAKING, MADE].into_iter().find_map(|prefix| id_behind(prefix, name));
        if path != app.snapshot() && of.is_none_or(|id| fs::symlink_metadata(app.release(&id)).is_err()) {
            left.extend(removal::tree(&path).err().map(|error| (path, error)));
        }
    }
    Ok(left)
}
