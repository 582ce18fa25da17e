//! Workers: the programs that belong to a release and serve no HTTP. They run beside one instance, the enabled one.
//!
//! Beside which, a link says, in the state directory. The supervise of each instance reads it at its start and whenever it is
//! told that workers move, and starts or ends its own. So it holds whoever is killed when, and after a boot.

use std::fs;
use std::io;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::supervise::{MemberNote, WORKERS_MOVED};
use super::{POLL, SUPERVISE_SLACK, end_leftovers, supervisor};
use crate::app::{App, Instance, config};
use crate::deadline::Deadline;
use crate::durable;
use crate::nginx;
use crate::process::Process;

/// Stands between the two instances' names while workers move from one to the other.
const MOVING: char = '+';

/// Where workers may run, as the link says: nowhere when it is empty, beside the instance of this name, or, while they are
/// about to move, those that may overlap beside both and the others nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Place(String);

impl Place {
    fn beside(instance: &Instance) -> Place {
        Place(instance.to_string())
    }

    fn is_nowhere(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this worker may run beside this instance.
    pub fn may_run(&self, instance: &Instance, worker: &config::Worker) -> bool {
        self.0 == instance.name() || worker.overlap && self.0.contains(MOVING)
    }
}

/// Where workers may run now.
pub fn place(app: &App) -> Result<Place> {
    let link = app.workers_link();
    match fs::read_link(&link) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Place::default()),
        read => {
            let target = read.with_context(|| format!("cannot read {}", link.display()))?;
            Ok(Place(target.to_string_lossy().into_owned()))
        }
    }
}

/// Makes the workers run beside the enabled instance and nowhere else: those of the other one end before its own begin, or,
/// where they overlap, after.
pub fn follow(app: &App, deadline: Deadline) -> Result<()> {
    let present = place(app)?;
    let [first, second] = &app.config.instances;
    // What cannot be read of the settings of one instance is no reason to leave the traffic with it.
    let has_none = |instance| app.as_run(instance).is_ok_and(|app| app.config.workers.is_empty());
    if present.is_nowhere() && has_none(first) && has_none(second) {
        return Ok(());
    }
    match nginx::enabled(app)? {
        Some(enabled) if present != Place::beside(enabled) => {
            move_to(app, &format!("{first}{MOVING}{second}"), deadline)?;
            move_to(app, enabled.name(), deadline)
        }
        Some(_) => settle(app, deadline),
        None => {
            durable::remove(&app.workers_link())?;
            settle(app, deadline)
        }
    }
}

fn move_to(app: &App, place: &str, deadline: Deadline) -> Result<()> {
    let link = app.workers_link();
    durable::turn_link(&link, place)
        .and_then(|()| durable::sync_directory_of(&link))
        .with_context(|| format!("cannot link {}", link.display()))?;
    settle(app, deadline)
}

/// Tells both instances that workers have moved, and waits until each has those that it may have, and no others.
fn settle(app: &App, deadline: Deadline) -> Result<()> {
    let place = place(app)?;
    for instance in &app.config.instances {
        let as_run = app.as_run(instance).unwrap_or_else(|_| app.clone());
        let patience = deadline.within(as_run.config.run.stop_timeout + SUPERVISE_SLACK);
        let mut told = None;
        // One that ends meanwhile takes its workers with it.
        while let Some((supervise, note)) = supervisor(app, instance)? {
            if told != Some(supervise) {
                let process = Process::with_pid(supervise);
                process.map_or(Ok(()), |process| process.signal(WORKERS_MOVED))?;
                told = Some(supervise);
            }
            if note.place == place && note.workers().all(MemberNote::is_settled) {
                break;
            }
            if !patience.sleep(POLL) {
                bail!("cannot move the workers of {instance}: they do not follow; logs {instance} tells more");
            }
        }
        if told.is_none() {
            end_leftovers(app, instance).with_context(|| format!("cannot end the workers of {instance}"))?;
        }
    }
    Ok(())
}
