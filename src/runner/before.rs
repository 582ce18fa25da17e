//! The way back from a change of an instance.

use anyhow::{Context, Result};

use crate::app::{App, Instance, ReleaseId, Saved, Turn, WayBack};
use crate::deadline::Deadline;
use crate::source;

use super::{CHECK, drain, end, runs, start, up};

/// What an instance was before it gets another release: the way back.
#[derive(Debug)]
pub struct Before {
    release: Option<ReleaseId>,
    /// The settings by which it ran that release.
    settings: Option<Saved>,
    /// Those by which it ran the one that it gets, when it had that before.
    replaced: Saved,
    ran: bool,
}

impl Before {
    /// Remembers what an instance is now, also for whoever comes after a kill.
    pub fn of(app: &App, turn: &Turn, instance: &Instance, gets: &ReleaseId) -> Result<Before> {
        let release = app.release_of(instance)?;
        let settings = release.as_ref().map(|release| app.saved_settings(instance, release)).transpose()?;
        let replaced = app.saved_settings(instance, gets)?;
        // One that a tool was killed in bringing back may not run yet.
        let found = turn.way_back().filter(|found| found.instance == instance.name() && found.release == release);
        let ran = runs(app, instance)? || found.is_some_and(|found| found.ran);
        let instance = instance.name().to_owned();
        turn.leaves(WayBack { instance, release: release.clone(), gets: gets.clone(), ran });
        Ok(Before { release, settings, replaced, ran })
    }

    /// Gives the instance back the release it had, with its settings, and runs it again if it ran; one that still is what it was
    /// is left alone. Requests that it still answers may finish.
    pub fn restore(&self, app: &App, instance: &Instance) -> Result<()> {
        self.undo(app, instance).with_context(|| format!("cannot put {instance} back"))
    }

    fn undo(&self, app: &App, instance: &Instance) -> Result<()> {
        let has_its_release = app.release_of(instance)? == self.release;
        let has_its_settings = self.settings.as_ref().map_or(Ok(true), |saved| saved.differ().map(|differ| !differ))?;
        if !has_its_release || !has_its_settings || !self.ran {
            drain(app, instance, Deadline::after(app.config.deploy.drain_timeout))?;
            end(app, instance)?;
        }
        for saved in self.settings.iter().chain([&self.replaced]) {
            if saved.differ()? {
                saved.restore()?;
            }
        }
        give_back(app, instance, self.release.as_ref())?;
        if self.ran {
            start(app, instance, Deadline::after(app.config.deploy.timeout))?;
        }
        Ok(())
    }
}

/// Gives an instance back the release and the settings that it had before a change that was left undone, unless it was enabled
/// since. It is started only where `enabled` is down, if it ran: what comes next may well bring it another one.
pub fn settle(app: &App, turn: &Turn, enabled: Option<&Instance>) -> Result<()> {
    let Some(found) = turn.way_back() else { return Ok(()) };
    let Ok(instance) = app.instance(&found.instance) else { return Ok(()) };
    let current = app.release_of(instance)?;
    let is_known = current == found.release || current.as_ref() == Some(&found.gets);
    let is_there = found.release.as_ref().is_none_or(|release| app.release(release).exists());
    if enabled == Some(instance) || !is_known || !is_there {
        return Ok(());
    }
    let is_same = found.release.as_ref() == Some(&found.gets);
    if current != found.release || is_same && app.has_replaced_settings(instance, &found.gets) {
        end(app, instance)?;
    }
    app.undo_settings(instance, &found.gets, is_same)?;
    give_back(app, instance, found.release.as_ref())?;
    let is_needed = found.ran && enabled.is_some_and(|enabled| up(app, enabled, CHECK).is_err());
    if is_needed {
        turn.forgive(start(app, instance, Deadline::after(app.config.deploy.timeout)));
    }
    Ok(())
}

fn give_back(app: &App, instance: &Instance, release: Option<&ReleaseId>) -> Result<()> {
    match release {
        _ if app.release_of(instance)?.as_ref() == release => Ok(()),
        Some(release) => source::assign(app, instance, release),
        None => source::unassign(app, instance),
    }
}
