//! What state an instance is in.

use std::time::Duration;

use anyhow::{Result, bail};

use super::{CHECK, POLL, last_lines, last_words, supervisor};
use crate::app::{App, Instance};
use crate::deadline::Deadline;
use crate::process::{self, Owner, Process};

/// An instance as it is now.
#[derive(Debug)]
pub struct State {
    /// The process that listens on its port; None: none, or one that we may not see.
    pub pid: Option<Process>,
    /// Whether anybody listens on its port.
    pub listens: bool,
    /// Resident memory of its processes in bytes, supervise not counted; None when it does not run.
    pub memory: Option<u64>,
    /// How often it was restarted since it was started; None when it does not run.
    pub restarts: Option<u64>,
    /// How it ended last; None when it has not since it was started.
    pub last_exit: Option<String>,
}

/// Looks at an instance's processes.
pub fn state(app: &App, instance: &Instance) -> Result<State> {
    let supervisor = supervisor(app, instance)?;
    let owner = process::owner(instance.port().number(), supervisor.as_ref().map(|(pid, _)| *pid))?;
    let pid = match owner {
        Owner::Process(process) => Some(process),
        Owner::Nobody | Owner::Hidden(_) => None,
    };
    // Below supervise and the leash, or below whatever listens without them.
    let processes = match (&supervisor, pid) {
        (Some((supervise, _)), _) => Some(process::tree(*supervise).into_iter().skip(2).collect()),
        (None, listener) => listener.map(|listener| process::tree(listener.pid)),
    };
    let note = supervisor.map(|(_, note)| note);
    Ok(State {
        pid,
        listens: owner != Owner::Nobody,
        memory: processes.map(|processes: Vec<Process>| process::memory(&processes)),
        restarts: note.as_ref().map(|note| note.restarts),
        last_exit: note.and_then(|note| note.last_exit),
    })
}

/// Checks an instance's health once. Err: what was wrong, in words.
pub fn healthy(app: &App, instance: &Instance, patience: Duration) -> Result<(), String> {
    app.config.health.expectation().check(instance.port().number(), patience)
}

/// Watches an instance after the cutover: for the whole soak it must not die, and at its end it must still be healthy.
pub fn soak(app: &App, instance: &Instance) -> Result<()> {
    let Some((watched, before)) = supervisor(app, instance)? else { bail!("{instance} does not run any more") };
    let deadline = Deadline::after(app.config.deploy.soak);
    loop {
        match supervisor(app, instance)? {
            Some((pid, note)) if pid == watched && note.restarts == before.restarts => {}
            Some((_, note)) => {
                bail!("{instance} died after the cutover: {}", last_words(app, instance, &note))
            }
            None => bail!("{instance} was stopped after the cutover: {}", last_lines(app, instance)),
        }
        if !deadline.sleep(POLL) {
            break;
        }
    }
    match healthy(app, instance, CHECK) {
        Ok(()) => Ok(()),
        Err(seen) => bail!("{instance} is not healthy any more after the cutover: {seen}"),
    }
}
