//! Releases: what is wanted, making it from git or from a path, which instance has which, pruning.

pub mod address;
mod build;
mod git;
pub mod image;
mod room;
mod snapshot;
mod version;

pub use build::make;
pub use git::UnknownRef;
pub use room::explained;

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::builder::{PathBufValueParser, TypedValueParser};

use crate::app::{App, Instance, ReleaseId, Runner};
use crate::deadline::Deadline;
use crate::durable;
use crate::outcome::usage;
use crate::process;
use crate::removal::{self, Left};

use image::Image;
use snapshot::Snapshot;

/// What git calls the directory, or in a submodule the file, of a repository.
const REPOSITORY: &str = ".git";
/// How the name of a release begins that is being removed.
const REMOVED: &str = ".removed-";
/// How the name begins of what could not be removed.
const LEFT: &str = ".left-";
/// How many things of one name are set aside.
const MOST_LEFT: usize = 100;

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
            Origin::Commit(commit) => write!(f, "{commit:.12}"),
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
        room::with_room(app, || self.look_up(app, deadline))
    }

    fn look_up(&self, app: &App, deadline: Deadline) -> Result<Origin> {
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

/// What a release was made from, for people: the tag of its image, else the short commit.
pub fn version(app: &App, release: &ReleaseId) -> String {
    // In a release from a repository a file of that name is the app's.
    let is_image = app.runner() == Runner::Compose;
    let image = is_image.then(|| image::of_release(app, release).ok().flatten()).flatten();
    image.map_or_else(|| release.origin().to_owned(), |image| image.version().to_owned())
}

/// The release that an instance has, if it was made from what is wanted.
pub fn current(app: &App, instance: Option<&Instance>, wanted: &Origin) -> Result<Option<ReleaseId>> {
    let release = instance.map(|instance| app.release_of(instance)).transpose()?.flatten();
    Ok(release.filter(|release| is_made_from(app, release, wanted)))
}

/// Whether a release was made from what is wanted. Its name tells so much of that as somebody can forge; what was kept beside it
/// tells the rest.
fn is_made_from(app: &App, release: &ReleaseId, wanted: &Origin) -> bool {
    wanted.is_of(release)
        && match wanted {
            Origin::Commit(commit) => git::kept(app, release).is_none_or(|kept| kept == *commit),
            Origin::Image(image) => {
                image::of_release(app, release).ok().flatten().is_none_or(|kept| kept.id == image.id)
            }
            Origin::Path(_) | Origin::Snapshot(_) => true,
        }
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
///
/// What cannot be removed is no reason not to remove the rest. The error tells of it, once: it is called `.left-…` from then on.
pub fn prune(app: &App) -> Result<()> {
    let mut failed = Vec::new();
    for id in old(app, app.config.deploy.keep_releases)? {
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

/// All releases but the `keep` newest and those that instances have.
fn old(app: &App, keep: usize) -> Result<Vec<ReleaseId>> {
    let mut old: Vec<ReleaseId> = releases(app)?.into_iter().skip(keep).collect();
    for instance in &app.config.instances {
        let kept = app.release_of(instance)?;
        old.retain(|id| Some(id) != kept.as_ref());
    }
    Ok(old)
}

/// Makes a release none, by its name. Its files go with the next sweep.
fn take_name(app: &App, id: &ReleaseId) -> io::Result<()> {
    fs::rename(app.release(id), app.releases().join(format!("{REMOVED}{id}")))
}

/// Removes the old ones; returns those that are gone.
fn remove_old(app: &App, keep: usize) -> Result<Vec<ReleaseId>> {
    let mut gone = old(app, keep)?;
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
fn sweep(app: &App) -> Result<Vec<(PathBuf, Left)>> {
    let directory = app.releases();
    let entries = fs::read_dir(&directory).with_context(|| format!("cannot list {}", directory.display()))?;
    let mut left = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| name.starts_with('.')) else { continue };
        let path = entry.path();
        if path == app.snapshot() {
            continue;
        }
        if let Some(id) = name.strip_prefix(build::BUILDING) {
            // Another app's release has the same name when it was made in the same second, from a path or the same commit.
            process::kill_like(|pid, environment| {
                let builds = environment.get(OsStr::new("RELEASE")).is_some_and(|release| release == id);
                builds && process::works_in(pid, &path)
            });
        }
        left.extend(removal::tree(&path).err().map(|error| (path, error)));
    }
    Ok(left)
}
