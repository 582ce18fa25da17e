//! The way back from a change of an instance.

use anyhow::{Context, Result};

use crate::app::{App, Instance, ReleaseId};
use crate::deadline::Deadline;
use crate::source;

use super::{drain, end, runs, start};

/// What an instance was before a change: the way back.
#[derive(Debug)]
pub struct Before {
    release: Option<ReleaseId>,
    ran: bool,
}

impl Before {
    /// Remembers what an instance is now.
    pub fn of(app: &App, instance: &Instance) -> Result<Before> {
        Ok(Before { release: source::release_of(app, instance)?, ran: runs(app, instance)? })
    }

    /// Gives the instance back the release it had, and runs it again if it ran; one that still is what it was is left
    /// alone. Requests that it still answers may finish.
    pub fn restore(&self, app: &App, instance: &Instance) -> Result<()> {
        self.undo(app, instance).with_context(|| format!("cannot put {instance} back"))
    }

    fn undo(&self, app: &App, instance: &Instance) -> Result<()> {
        let has_its_release = source::release_of(app, instance)? == self.release;
        if !has_its_release || !self.ran {
            drain(app, instance, Deadline::after(app.config.deploy.drain_timeout))?;
            end(app, instance)?;
        }
        if !has_its_release {
            match &self.release {
                Some(release) => source::assign(app, instance, release)?,
                None => source::unassign(app, instance)?,
            }
        }
        if self.ran {
            start(app, instance, Deadline::after(app.config.deploy.timeout))?;
        }
        Ok(())
    }
}
