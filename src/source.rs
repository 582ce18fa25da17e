//! Releases: what is wanted, making it from git or from a path, which instance has which, pruning.

pub mod address;
mod build;
mod git;
pub mod image;
mod placeholders;
mod recipe;
mod room;
mod snapshot;
mod store;
mod version;

pub use build::make;
pub use git::UnknownRef;
pub use room::explained;
pub use store::{build_logs, prune, releases};

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::builder::{PathBufValueParser, TypedValueParser};

use crate::app::{App, Instance, ReleaseId, Runner};
use crate::deadline::Deadline;
use crate::durable;
use crate::outcome::usage;

use image::Image;
use recipe::Recipe;
use snapshot::Snapshot;

/// What git calls the directory, or in a submodule the file, of a repository.
const REPOSITORY: &str = ".git";

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
    /// Make it anew, though there is a release of it
    #[arg(long)]
    pub again: bool,
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

/// Whether a release was made with what it would be made with now, as far as that was kept.
pub fn is_made_as_configured(app: &App, release: &ReleaseId) -> Result<bool> {
    Ok(Recipe::of(app)?.changes_since(app, release).unwrap_or_default().is_empty())
}

/// What has changed of what releases are made with, when that is why there is none yet of what is wanted, in words: since the one was
/// made that an instance has, or else the last one.
pub fn changes(app: &App, wanted: &Origin, instance: Option<&Instance>) -> Result<Option<String>> {
    let (known, recipe) = (releases(app)?, Recipe::of(app)?);
    let of_origin: Vec<&ReleaseId> = known.iter().filter(|id| is_made_from(app, id, wanted)).collect();
    let Err(since_last) = recipe.made(app, &of_origin) else { return Ok(None) };
    let since_current = current(app, instance, wanted)?.and_then(|release| recipe.changes_since(app, &release));
    Ok(Some(since_current.unwrap_or(since_last)).filter(|changes| !changes.is_empty()))
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

/// What a release lacks although its commit names it, in words: the files of submodules. None: nothing, or nobody knows.
pub fn lacking(app: &App, origin: &Origin, release: &ReleaseId, deadline: Deadline) -> Option<String> {
    let Origin::Commit(commit) = origin else { return None };
    // A deploy does not fail because of a remark.
    let submodules = git::submodules(app, commit, deadline).unwrap_or_default();
    let is_empty = |path: &String| {
        let directory = app.release(release).join(path);
        fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none())
    };
    let mut empty = submodules.into_iter().filter(is_empty);
    let first = empty.next()?;
    let others = match empty.count() {
        0 => "is a git submodule, which is not fetched".to_owned(),
        count => format!("and {count} more are git submodules, which are not fetched"),
    };
    Some(format!("{first} {others}: have hooks/before-build do that"))
}

/// Gives an instance, which must not run, a release. The change survives a power cut.
pub fn assign(app: &App, instance: &Instance, id: &ReleaseId) -> Result<()> {
    durable::link(&app.instance_link(instance), &Path::new("../releases").join(id.as_str()))
}

/// Takes an instance's release away again, as on the first day.
pub fn unassign(app: &App, instance: &Instance) -> Result<()> {
    durable::remove(&app.instance_link(instance))
}
