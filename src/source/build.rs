//! Making a release: files laid out, built, flushed, and only then a release.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::placeholders;
use super::recipe::Recipe;
use super::room::{explained, with_room};
use super::{Origin, REPOSITORY, git, image, is_made_from, snapshot, store};
use crate::app::{App, ReleaseId, Runner};
use crate::command::{self, Run};
use crate::deadline::Deadline;
use crate::hooks::{self, About, Hook};
use crate::outcome::quote;
use crate::process;
use crate::removal;

/// How far a clock may be set back, in seconds, for the order of releases to stay that of their making.
const STEP_BACK: u64 = 60 * 60;

/// Makes a release. One that was made before from the same commit or content, by what builds are configured to be now, is taken
/// instead, unless it is to be made `again`. Only to be called under the deploy lock. `about` is what the hooks are told; the
/// release is written into it. When the disk is full, old releases make room, and it is tried once more.
pub fn make(app: &App, origin: &Origin, again: bool, about: &mut About, deadline: Deadline) -> Result<ReleaseId> {
    with_room(app, || make_once(app, origin, again, about, deadline))
}

fn make_once(app: &App, origin: &Origin, again: bool, about: &mut About, deadline: Deadline) -> Result<ReleaseId> {
    // What cannot be removed is no reason not to make one.
    store::sweep(app)?;
    let known = store::releases(app)?;
    let recipe = Recipe::of(app)?;
    let of_origin: Vec<&ReleaseId> = known.iter().filter(|id| is_made_from(app, id, origin)).collect();
    if let (Ok(made), false) = (recipe.made(app, &of_origin), again) {
        about.release = Some(made.clone());
        return Ok(made.clone());
    }
    let id = new_id(app, origin, &known);
    about.release = Some(id.clone());
    let directory = store::begin(app, &id, &recipe.text()?)?;
    let hook = |hook| match origin {
        // An image was built elsewhere.
        Origin::Image(_) => Ok(()),
        _ => hooks::run(app, hook, about, &directory, deadline).with_context(|| format!("cannot build {id}")),
    };
    let built = |pointers: &[PathBuf]| {
        hook(Hook::BeforeBuild)
            .and_then(|()| build(app, &id, &directory, deadline))
            .and_then(|()| hook(Hook::AfterBuild))
            .and_then(|()| placeholders::refuse(&directory, pointers).with_context(|| format!("cannot build {id}")))
    };
    let made = lay_out(app, origin, &directory, deadline)
        .and_then(|()| built(&placeholders::all_in(&directory)))
        .and_then(|()| match origin {
            Origin::Commit(commit) => git::keep(app, &id, commit, deadline),
            Origin::Image(_) | Origin::Path(_) | Origin::Snapshot(_) => Ok(()),
        })
        .and_then(|()| store::finish(app, &id));
    made.map_err(|error| {
        let error = explained(app, error);
        store::abandon(app, &id);
        error
    })?;
    if matches!(origin, Origin::Commit(_)) {
        // A mirror that grows is no reason not to deploy.
        let _ = git::tidy(app, deadline);
    }
    Ok(id)
}

/// An id with a time that no release has: of two made within a second the later one gets the next second's, so that
/// their order is that of their names.
fn new_id(app: &App, origin: &Origin, known: &[ReleaseId]) -> ReleaseId {
    let short = match origin {
        Origin::Commit(commit) => commit,
        Origin::Snapshot(snapshot) => &snapshot.hash,
        Origin::Path(_) => "local",
        Origin::Image(image) => image.hash(),
    };
    // A clock that was set back a little, as those of virtual machines are, does not turn the order round.
    let newest = known.first().and_then(ReleaseId::made_at).filter(|newest| *newest < process::unix_now() + STEP_BACK);
    let mut seconds = newest.map_or(0, |newest| newest + 1).max(process::unix_now());
    loop {
        let id = ReleaseId::new(seconds, short);
        let is_free = fs::symlink_metadata(app.release(&id)).is_err();
        if is_free && known.iter().all(|other| other.time() != id.time()) {
            return id;
        }
        seconds += 1;
    }
}

fn lay_out(app: &App, origin: &Origin, directory: &Path, deadline: Deadline) -> Result<()> {
    let path = match origin {
        Origin::Commit(commit) => return git::check_out(app, commit, directory, deadline),
        Origin::Image(image) => return image::lay_out(image, directory),
        Origin::Snapshot(_) => return snapshot::lay_out(app, directory),
        Origin::Path(path) => path,
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let into = directory.as_os_str();
    let copied = if path.is_dir() {
        let all = path.join(".");
        Run::new(&command::find("cp")?, ["-a".as_ref(), "--".as_ref(), all.as_os_str(), into])
    } else if name.ends_with(".tar.gz") || name.ends_with(".tgz") {
        Run::new(&command::find("tar")?, ["-xzf".as_ref(), path.as_os_str(), "-C".as_ref(), into])
    } else {
        Run::new(&command::find("cp")?, ["-p".as_ref(), "--".as_ref(), path.as_os_str(), into])
    };
    let copied = copied.environment(app.plain_environment()).output(deadline).map(drop);
    copied.and_then(|()| remove_repositories(directory)).with_context(|| format!("cannot lay out {}", path.display()))
}

/// Removes the repositories in a release, and those of submodules: an app that serves its own directory would serve them, with
/// the password that a CI may have written into the configuration of one.
fn remove_repositories(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name() == REPOSITORY {
            removal::tree(&entry.path())?;
        } else if entry.file_type()?.is_dir() {
            remove_repositories(&entry.path())?;
        }
    }
    Ok(())
}

fn build(app: &App, id: &ReleaseId, directory: &Path, deadline: Deadline) -> Result<()> {
    let command = app.config.build.command.as_ref().filter(|_| app.runner() != Runner::Compose);
    let Some(command) = command else { return Ok(()) };
    let what = format!("cannot build {id}: {}", quote(command.lines(), 1));
    Run::new(&command::find("sh")?, ["-c", command])
        .environment(app.environment(id, None)?)
        .directory(directory)
        .expendable()
        .logged(&what, &app.build_log(id), deadline.within(app.config.build.timeout))
}
