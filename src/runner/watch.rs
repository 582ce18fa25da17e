//! What state an instance is in.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{CHECK, Life, POLL, RunBy, compose, end_in_words, last_words, life, listener};
use crate::app::{App, Instance, Runner, Turn};
use crate::deadline::Deadline;
use crate::outcome::{Exit, failure};
use crate::process::{self, Owner, Process};

/// An instance as it is now.
#[derive(Debug, Default)]
pub struct State {
    /// The process that listens on its port; None: none, or one that we may not see.
    pub pid: Option<Process>,
    /// Whether anybody listens on its port.
    pub listens: bool,
    /// Resident memory of its processes in bytes, supervise not counted, or what its container's cgroup holds; None when
    /// it does not run.
    pub memory: Option<u64>,
    /// How often it was restarted since it was started; None when it does not run.
    pub restarts: Option<u64>,
    /// How it ended last; None when it has not since it was started.
    pub last_exit: Option<String>,
}

/// Looks at an instance's processes.
pub fn state(app: &App, instance: &Instance) -> Result<State> {
    let life = life(app, instance)?;
    let owner = listener(app, instance)?;
    let pid = match owner {
        Owner::Process(process) => Some(process),
        Owner::Nobody | Owner::Hidden(_) => None,
    };
    Ok(State {
        pid,
        listens: owner != Owner::Nobody,
        memory: memory(app, instance, life.as_ref(), pid)?,
        restarts: life.as_ref().map(|life| life.restarts),
        last_exit: life.and_then(|life| life.last_exit),
    })
}

fn memory(app: &App, instance: &Instance, life: Option<&Life>, listener: Option<Process>) -> Result<Option<u64>> {
    // Below supervise and the leash, or below whatever listens without them.
    let processes: Vec<Process> = match (life.map(|life| &life.by), listener) {
        (Some(RunBy::Docker(_)), _) => return compose::memory(app, instance),
        (Some(RunBy::Supervise(supervise)), _) => process::tree(*supervise).into_iter().skip(2).collect(),
        (None, Some(listener)) => process::tree(listener.pid),
        (None, None) => return Ok(None),
    };
    Ok(Some(process::memory(&processes)))
}

/// Whether an instance's port gives a healthy answer. Err: what was wrong, in words.
pub fn answers(app: &App, instance: &Instance, patience: Duration) -> Result<(), String> {
    app.config.health.expectation().check(instance.port().number(), patience)
}

/// Checks an instance's health once: its answer, and for a container what Docker's own check says. Err: what was wrong, in
/// words.
pub fn healthy(app: &App, instance: &Instance, patience: Duration) -> Result<(), String> {
    answers(app, instance, patience)?;
    if app.runner() == Runner::Compose { compose::health(app, instance) } else { Ok(()) }
}

/// Whether an instance is up, so far as anybody can tell: it answers, and Docker does not call it unhealthy. To be not up is
/// a reason to take the traffic from it. Err: what was wrong, in words.
pub fn up(app: &App, instance: &Instance, patience: Duration) -> Result<(), String> {
    answers(app, instance, patience)?;
    if app.runner() == Runner::Compose { compose::not_unhealthy(app, instance) } else { Ok(()) }
}

/// Watches the instance that was enabled. When it does not stay well, `return_to` takes the traffic from it, and tells
/// who has it then: None when nobody had it before.
pub fn watch<'a>(
    app: &App,
    turn: &Turn,
    new: &Instance,
    return_to: impl FnOnce() -> Result<Option<&'a Instance>>,
) -> Result<()> {
    turn.doing(format_args!("watching {new}"), Some(new));
    let Err(error) = soak(app, new) else { return Ok(()) };
    turn.doing(format_args!("taking the traffic from {new}"), None);
    match return_to().with_context(|| format!("{error:#}; and the way back failed"))? {
        Some(old) => Err(failure(Exit::RolledBack, format!("{error:#}; {old} is enabled again"))),
        None => Err(error),
    }
}

/// Watches an instance after the cutover: for the whole soak it must not die, and at its end it must still be healthy.
fn soak(app: &App, instance: &Instance) -> Result<()> {
    let Some(before) = life(app, instance)? else { bail!("{instance} does not run any more") };
    let deadline = Deadline::after(app.config.deploy.soak);
    loop {
        match life(app, instance)? {
            Some(life) if life.by == before.by && life.restarts == before.restarts => {}
            Some(life) => bail!("{instance} died after the cutover: {}", last_words(app, instance, &life)),
            None => bail!("{instance} went down after the cutover: {}", end_in_words(app, instance)),
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
