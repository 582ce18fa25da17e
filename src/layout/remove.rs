//! Taking away what was laid, and nothing that is the user's.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::unistd::Uid;

use super::{Plan, TOOLS, as_nginx, check, has_record, is_system, last_turn, profile, system};
use crate::app::{App, Instance, Record, Runner};
use crate::command;
use crate::compose::Project;
use crate::deadline::Deadline;
use crate::durable;
use crate::nginx::{self, Nginx};
use crate::push;
use crate::removal::{self, Left};
use crate::runner;
use crate::source::image;

/// Stops the app and takes away nginx's files, the state, the tools and the PATH line. Releases, secrets, hooks, logs and
/// the configuration stay, unless `purge`. Says what it did.
pub fn remove(Plan { app, home_directory, .. }: &Plan, purge: bool) -> Result<Vec<String>> {
    check::home(app)?;
    if is_system(app) {
        check::state_owner(app)?;
    }
    let _turn = last_turn(app, "taking everything away")?;
    let running = running(app)?;
    // nginx first: when it cannot do without its files, nothing has happened yet.
    let nginx = Nginx::find(app)?;
    let upstream = push::upstream(app, app.has_queue_unit())?;
    let files = as_nginx(app, || nginx::files(app, nginx.build()?, &BTreeSet::new(), &upstream))?;
    let taken = as_nginx(app, || nginx.take_away(app, &files))?;
    let mut said: Vec<String> = taken.iter().map(|path| format!("removed {}", path.display())).collect();
    app.owner.lend(|| push::end(app))?;
    let patience = Deadline::after(app.config.deploy.timeout);
    for instance in running.iter().flatten() {
        runner::drain(app, instance, patience)?;
        said.push(format!("stopped {instance}"));
    }
    if Uid::effective().is_root() {
        // By root, with the units: the grant by which the owner could may be gone.
        said.extend(systems(app, &system::all(app))?);
    }
    if running.is_none() {
        said.push("left its containers alone: Docker is gone".to_owned());
    } else {
        for instance in &app.config.instances {
            app.owner.lend(|| runner::stop(app, instance, patience).and_then(|_| runner::discard(app, instance)))?;
        }
        if purge && app.runner() == Runner::Compose {
            app.owner.lend(|| image::remove_all(app))?;
        }
    }
    if app.config.poll().is_some() && !system::is_booted() {
        said.push(format!("take {}/deploy out of the crontab, if it is there", app.bin().display()));
    }
    // Before anything that a second run needs in order to know what to do.
    if let Some(directory) = home_directory {
        for file in app.owner.lend(|| Ok(profile::all_files(directory)))? {
            if app.owner.lend(|| profile::take_out(&file, &app.bin()))? {
                said.push(format!("took {} out of {}", app.bin().display(), file.display()));
            }
        }
    }
    let mut gone: Vec<PathBuf> = vec![app.state(), app.queue(), app.run(), app.laid_file()];
    if app.config.nginx.own {
        gone.push(app.own_nginx());
    }
    gone.extend(TOOLS.map(|tool| app.bin().join(tool)));
    if purge && app.home().is_dir() {
        // The configuration last: without it a second run would not know what is left.
        let listed = fs::read_dir(app.home()).with_context(|| format!("cannot list {}", app.home().display()))?;
        let others = listed.flatten().map(|entry| entry.path()).filter(|path| *path != app.config_file());
        gone.extend(others);
        gone.extend([app.config_file(), app.home().to_owned()]);
    }
    for path in gone {
        // What lies directly below a directory of root's can only be removed by root, once it is empty. Anything else lies
        // below the owner's, who may have put links in the way: root must not follow them.
        let is_granted = path == app.home() || is_system(app) && path == app.state();
        let removed = app.owner.lend(|| remove_path(&path)).or_else(|refused| {
            if !is_granted || !Uid::effective().is_root() {
                return Err(refused);
            }
            fs::remove_dir(&path).map(|()| true).map_err(|_| refused)
        })?;
        if removed {
            said.push(format!("removed {}", path.display()));
        }
    }
    if has_record(app) {
        let record = Record::path(app.name());
        durable::remove_if_there(&record).with_context(|| format!("cannot remove {}", record.display()))?;
    }
    if is_system(app)
        && let Some(parent) = app.state().parent()
    {
        // Other apps may have theirs there.
        let _ = fs::remove_dir(parent);
    }
    // Only if it is empty: tools of the user's own may lie there.
    let _ = app.owner.lend(|| Ok(fs::remove_dir(app.bin())?));
    Ok(said)
}

/// The instances that run; None: their containers are gone with the Docker that had them.
fn running(app: &App) -> Result<Option<Vec<&Instance>>> {
    let has_gone = || {
        let is_there = Project::of(app).is_ok_and(|project| project.engine.has_socket());
        app.runner() == Runner::Compose && !is_there && command::find("docker").is_err()
    };
    let runs = |one| Ok(runner::runs(app, one)?.then_some(one));
    let running = app.owner.lend(|| app.config.instances.iter().filter_map(|one| runs(one).transpose()).collect());
    running.map(Some).or_else(|error| if has_gone() { Ok(None) } else { Err(error) })
}

/// Takes away what systemd and sudo were told in these files; returns what was done.
pub fn systems(app: &App, files: &[PathBuf]) -> Result<Vec<String>> {
    Ok(system::take_away(app, files)?.iter().map(|path| format!("removed {}", path.display())).collect())
}

fn remove_path(path: &Path) -> Result<bool> {
    let removed = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Ok(_) => removal::tree(path),
        Err(error) => Err(Left { path: path.to_owned(), error }),
    };
    removed.map(|()| true).with_context(|| format!("cannot remove {}", path.display()))
}
