//! Releases: what is wanted, making it from git or from a path, which instance has which, pruning.

mod build;
mod git;
pub mod image;
mod snapshot;

pub use build::make;
pub use git::UnknownRef;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::builder::{PathBufValueParser, TypedValueParser};

use crate::app::{App, Instance, ReleaseId, Runner};
use crate::deadline::Deadline;
use crate::durable;
use crate::outcome::usage;
use crate::process;

use image::Image;
use snapshot::Snapshot;

/// What a release is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A commit of the source, by its full hash.
    Commit(String),
    /// A directory, a .tar.gz, or a single file.
    Path(PathBuf),
    /// What a directory held when it was looked at.
    Snapshot(Snapshot),
    /// An image.
    Image(Image),
}

impl Origin {
    /// What tells it from every other, for records: the full commit, the path, the image's id.
    pub fn identity(&self) -> String {
        match self {
            Origin::Commit(commit) => commit.clone(),
            Origin::Path(path) | Origin::Snapshot(Snapshot { directory: path, .. }) => path.display().to_string(),
            Origin::Image(image) => image.id.clone(),
        }
    }

    /// Whether this release was made from it. What a path held then cannot be told, so a path is always new.
    pub fn is_of(&self, id: &ReleaseId) -> bool {
        match self {
            Origin::Commit(commit) => id.is_of(commit),
            Origin::Image(image) => id.is_of(image.hash()),
            Origin::Snapshot(snapshot) => id.is_of(&snapshot.hash),
            Origin::Path(_) => false,
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::Commit(commit) => f.write_str(&commit[..commit.len().min(12)]),
            Origin::Path(path) | Origin::Snapshot(Snapshot { directory: path, .. }) => path.display().fmt(f),
            Origin::Image(image) => f.write_str(&image.reference),
        }
    }
}

/// What the user asks for. A path is looked up while the arguments are read: a mistake in it is told before anything is
/// begun.
#[derive(clap::Args, Default)]
pub struct Wanted {
    /// Branch, tag, commit or latest-tag, or the tag of an image [default: ref in the configuration]
    #[arg(long = "ref", value_name = "REF", conflicts_with = "from")]
    pub reference: Option<String>,
    /// Make the release from a directory, a .tar.gz or a single file instead of git
    #[arg(long, value_name = "PATH", value_parser = PathBufValueParser::new().try_map(fs::canonicalize::<PathBuf>))]
    pub from: Option<PathBuf>,
    /// A directory that somebody works in: what it holds when the release is made.
    #[arg(skip)]
    pub worked_in: Option<PathBuf>,
}

impl Wanted {
    /// What that is now: the path, or the directory's content, which is copied; else the commit that the reference, or the
    /// configured one, names, or the image, which is brought here.
    pub fn origin(&self, app: &App, deadline: Deadline) -> Result<Origin> {
        if let (Runner::Compose, Some(compose)) = (app.runner(), &app.config.compose) {
            if self.is_path() {
                let remedy = "`docker load` or `docker tag` it, set pull = \"missing\" in [compose], and say --ref";
                return Err(usage(format!("cannot make an image from a path: {remedy}")));
            }
            let tag = self.reference.as_deref().unwrap_or(&compose.reference);
            return image::wanted(app, tag, deadline).map(Origin::Image);
        }
        if let Some(from) = &self.from {
            return Ok(Origin::Path(from.clone()));
        }
        if let Some(directory) = &self.worked_in {
            return snapshot::take(app, directory, deadline).map(Origin::Snapshot);
        }
        git::commit(app, self.reference(app).unwrap_or_default(), deadline).map(Origin::Commit)
    }

    /// The reference, or the configured one; None: a path is wanted.
    pub fn reference<'a>(&'a self, app: &'a App) -> Option<&'a str> {
        let configured = match (app.runner(), &app.config.compose) {
            (Runner::Compose, Some(compose)) => &compose.reference,
            _ => &app.config.source.reference,
        };
        let named = self.reference.as_deref().or(Some(configured));
        named.filter(|_| !self.is_path())
    }

    fn is_path(&self) -> bool {
        self.from.is_some() || self.worked_in.is_some()
    }
}

/// What a reference names at the source now, without fetching it. None: that takes a fetch to tell.
pub fn remote_head(app: &App, reference: &str, deadline: Deadline) -> Result<Option<Origin>> {
    match app.runner() {
        Runner::Compose => Ok(None),
        Runner::Direct | Runner::Systemd => Ok(git::remote_head(app, reference, deadline)?.map(Origin::Commit)),
    }
}

/// All whole releases, the newest first.
pub fn releases(app: &App) -> Result<Vec<ReleaseId>> {
    Ok(newest_first(names_in(&app.releases())?.iter().filter_map(|name| name.parse().ok())))
}

/// The release that an instance has; None when it has none yet.
pub fn release_of(app: &App, instance: &Instance) -> Result<Option<ReleaseId>> {
    let link = app.instance_link(instance);
    let target = match fs::read_link(&link) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.with_context(|| format!("cannot read {}", link.display()))?,
    };
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    name.parse().map(Some).with_context(|| format!("cannot tell the release of {instance}"))
}

/// What a release was made from, for people: the tag of its image, else the short commit.
pub fn version(app: &App, release: &ReleaseId) -> String {
    let image = image::of_release(app, release).ok().flatten();
    image.map_or_else(|| release.origin().to_owned(), |image| image.version().to_owned())
}

/// The release that an instance has, if it was made from what is wanted.
pub fn current(app: &App, instance: Option<&Instance>, wanted: &Origin) -> Result<Option<ReleaseId>> {
    let release = instance.map(|instance| release_of(app, instance)).transpose()?.flatten();
    Ok(release.filter(|release| wanted.is_of(release)))
}

/// Gives an instance, which must not run, a release. The change survives a power cut.
pub fn assign(app: &App, instance: &Instance, id: &ReleaseId) -> Result<()> {
    durable::link(&app.instance_link(instance), &Path::new("../releases").join(id.as_str()))
}

/// Takes an instance's release away again, as on the first day.
pub fn unassign(app: &App, instance: &Instance) -> Result<()> {
    durable::remove(&app.instance_link(instance))
}

/// Removes what is too old: all releases but the newest `keep_releases` and those that instances have, with their build
/// logs. A release loses its name before its files, so that half of one never looks like a whole one. None of this is
/// flushed: what a power cut brings back is removed again, and on a journalling file system no file goes before its name.
pub fn prune(app: &App) -> Result<()> {
    sweep(app)?;
    snapshot::remove(app)?;
    let all = releases(app)?;
    let mut kept: Vec<ReleaseId> = all.iter().take(app.config.deploy.keep_releases).cloned().collect();
    for instance in &app.config.instances {
        kept.extend(release_of(app, instance)?);
    }
    for id in all.iter().filter(|id| !kept.contains(id)) {
        let (path, doomed) = (app.release(id), app.releases().join(format!(".removed-{id}")));
        fs::rename(&path, &doomed)
            .and_then(|()| fs::remove_dir_all(&doomed))
            .with_context(|| format!("cannot remove {}", path.display()))?;
    }
    if app.runner() == Runner::Compose {
        image::prune(app)?;
    }
    // A failed build leaves no release, but a log: as many of those are kept as of releases.
    let mut logged = build_logs(app)?;
    logged.retain(|id| !kept.contains(id));
    for id in logged.iter().skip(app.config.deploy.keep_releases) {
        durable::remove_if_there(&app.build_log(id)).with_context(|| format!("cannot remove the build log of {id}"))?;
    }
    Ok(())
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

/// Removes what a killed tool left half made or half removed, and ends the build that may still run in it. Only to be
/// called under the deploy lock.
fn sweep(app: &App) -> Result<()> {
    let directory = app.releases();
    let entries = fs::read_dir(&directory).with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with('.')) else { continue };
        let id = name.trim_start_matches(build::BUILDING);
        let path = entry.path();
        if path == app.snapshot() {
            continue;
        }
        let builds = |environment: &HashMap<OsString, OsString>| {
            environment.get(OsStr::new("RELEASE")).is_some_and(|release| release == id)
        };
        let builders = process::with_environment(builds).into_iter();
        // Another app's release has the same name when it was made in the same second, from a path or the same commit.
        let ours = builders.filter(|builder| process::works_in(builder.pid, &path));
        ours.for_each(|builder| process::kill_tree(builder.pid));
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}
