//! Deploys of a directory that somebody works in.

use std::path::Path;

use anyhow::Result;

use super::Attempt;
use crate::app::{App, Home, Wait};
use crate::outcome::{self, Exit, exit_of, usage};
use crate::source::Wanted;
use crate::watching::Watched;

/// Deploys a directory, and again whenever files in it have changed, until asked to end.
pub fn watch(tool: &'static str, app: &App, home: &Home, directory: &Path, wait: Wait) -> Result<Exit> {
    if directory.starts_with(app.home()) {
        return Err(usage(format!("cannot watch {}: it lies in the app's home", directory.display())));
    }
    // From before the first deploy: what changes during one leads to another.
    let mut watched = Watched::new(directory, app.own_places())?;
    let mut ended = deploy(tool, home, directory, wait);
    if ended.as_ref().is_err_and(|error| matches!(exit_of(error), Exit::Usage | Exit::Busy)) {
        return ended;
    }
    loop {
        if let Err(error) = ended {
            outcome::say(tool, format_args!("{error:#}"));
        }
        outcome::say(tool, format_args!("watching {}", directory.display()));
        if !watched.settle()? {
            outcome::say(tool, "asked to end");
            return Ok(Exit::Done);
        }
        ended = deploy(tool, home, directory, Wait { wait: true });
    }
}

/// Deploys what a directory holds by now, as the configuration is by now.
fn deploy(tool: &'static str, home: &Home, directory: &Path, wait: Wait) -> Result<Exit> {
    let wanted = Wanted { worked_in: Some(directory.to_owned()), ..Wanted::default() };
    Attempt::of(tool, wanted, wait).make(&App::open(home)?)
}
