//! What state an instance is in.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::words::{end_in_words, last_words};
use super::{CHECK, Life, MemberNote, POLL, RunBy, compose, life, listeners, ports, workers};
use crate::app::{App, Instance, Port, Runner, Turn};
use crate::deadline::Deadline;
use crate::outcome::{Exit, failure};
use crate::process::{self, Owner, Pid, Process};

/// An instance as it is now.
#[derive(Debug, Default)]
pub struct State {
    /// Its processes; of a container, its main one.
    pub processes: Vec<Program>,
    /// Its workers.
    pub workers: Vec<Program>,
    /// Whether anybody listens on any of its ports.
    pub listens: bool,
    /// Whether it is kept running.
    pub runs: bool,
}

/// A program of an instance.
#[derive(Debug)]
pub struct Program {
    /// What it is called: `0`, `mail.0`.
    pub name: String,
    /// Where it listens; None: it is a worker.
    pub port: Option<Port>,
    /// The process that listens on its port, or a worker's first one; None: none, or one that we may not see.
    pub process: Option<Process>,
    /// All its processes.
    pub tree: Vec<Process>,
    /// Resident memory of its processes in bytes, or what its container's cgroup holds; None when it does not run.
    pub memory: Option<u64>,
    /// Processor time that its processes have used; None when it does not run.
    pub processor_time: Option<Duration>,
    /// How often it was restarted since the instance was started; None when that is not run.
    pub restarts: Option<u64>,
    /// How it ended last; None when it has not since the instance was started.
    pub last_exit: Option<String>,
    /// When that was, in seconds since 1970.
    pub last_exit_at: Option<u64>,
}

/// Looks at an instance's processes.
pub fn state(app: &App, instance: &Instance) -> Result<State> {
    let life = life(app, instance)?;
    let listeners = listeners(app, instance)?;
    let mut state = State { runs: life.is_some(), ..State::default() };
    state.listens = listeners.iter().any(|(_, owner)| *owner != Owner::Nobody);
    let members = life.as_ref().map(|life| life.members.as_slice()).unwrap_or_default();
    for (index, (port, owner)) in listeners.into_iter().enumerate() {
        let process = match owner {
            Owner::Process(process) => Some(process),
            Owner::Nobody | Owner::Hidden(_) => None,
        };
        let note = members.iter().find(|member| member.port == Some(port));
        let name = note.map_or_else(|| index.to_string(), |note| note.name.clone());
        let mut program = Program { port: Some(port), process, ..Program::of(name, note) };
        if let (None, Some(listener)) = (note, process) {
            // Whatever listens without supervise.
            program.tree = process::tree(listener.pid);
        }
        program.measure();
        if let Some(Life { by: RunBy::Docker(_), .. }) = &life {
            program.memory = compose::memory(app, instance)?;
            program.processor_time = process.map(|main| process::processor_time(&process::tree(main.pid)));
        }
        state.processes.push(program);
    }
    for note in members.iter().filter(|member| member.port.is_none()) {
        let mut program = Program::of(note.name.clone(), Some(note));
        program.process = program.tree.first().copied();
        program.measure();
        state.workers.push(program);
    }
    Ok(state)
}

impl Program {
    /// What its supervise says of it; None: nothing.
    fn of(name: String, note: Option<&MemberNote>) -> Program {
        let leash = note.and_then(|note| note.leash).map(Pid::from_raw);
        Program {
            name,
            port: None,
            process: None,
            tree: leash.map(|leash| process::tree(leash).into_iter().skip(1).collect()).unwrap_or_default(),
            memory: None,
            processor_time: None,
            restarts: note.map(|note| note.restarts),
            last_exit: note.and_then(|note| note.last_exit.clone()),
            last_exit_at: note.and_then(|note| note.last_exit_at),
        }
    }

    /// Finds out what its processes hold and have used.
    fn measure(&mut self) {
        let is_up = !self.tree.is_empty();
        self.memory = is_up.then(|| process::memory(&self.tree));
        self.processor_time = is_up.then(|| process::processor_time(&self.tree));
    }
}

/// Whether a port gives a healthy answer. Err: what was wrong, in words.
pub fn answers_at(app: &App, port: Port, patience: Duration) -> Result<(), String> {
    app.config.health.expectation().check(port.number(), patience)
}

/// Whether all of an instance's ports give a healthy answer. Err: what was wrong with the first that does not, in words.
pub fn answers(app: &App, instance: &Instance, patience: Duration) -> Result<(), String> {
    let ports = ports(app, instance).map_err(|error| format!("{error:#}"))?;
    for (index, port) in ports.iter().enumerate() {
        answers_at(app, *port, patience).map_err(|seen| match ports.len() {
            1 => seen,
            _ => format!("process {index}: {seen}"),
        })?;
    }
    Ok(())
}

/// Checks an instance's health once: its answer, and for a container what Docker's own check says. Err: what was wrong, in
/// words.
pub fn healthy(app: &App, instance: &Instance, patience: Duration) -> Result<(), String> {
    answers(app, instance, patience)?;
    if app.runner() == Runner::Compose { compose::health(app, instance) } else { Ok(()) }
}

/// Whether an instance is up, so far as anybody can tell: one of its ports answers, and Docker does not call it unhealthy. To
/// be not up is a reason to take the traffic from it. Err: what was wrong, in words.
pub fn up(app: &App, instance: &Instance, patience: Duration) -> Result<(), String> {
    answers(app, instance, patience).or_else(|seen| {
        let ports = ports(app, instance).unwrap_or_default();
        let any = ports.len() > 1 && ports.iter().any(|port| answers_at(app, *port, patience).is_ok());
        if any { Ok(()) } else { Err(seen) }
    })?;
    if app.runner() == Runner::Compose { compose::not_unhealthy(app, instance) } else { Ok(()) }
}

/// Has the workers follow to the instance that was enabled, and watches both. When they do not stay well, `return_to` takes
/// the traffic from it, and tells who has it then: None when nobody had it before.
pub fn watch<'a>(
    app: &App,
    turn: &Turn,
    new: &Instance,
    return_to: impl FnOnce() -> Result<Option<&'a Instance>>,
) -> Result<()> {
    turn.doing(format_args!("watching {new}"), Some(new));
    let patience = || Deadline::after(app.config.deploy.timeout);
    let Err(error) = workers::follow(app, patience()).and_then(|()| soak(app, new)) else { return Ok(()) };
    turn.doing(format_args!("taking the traffic from {new}"), None);
    let returned = return_to().and_then(|old| workers::follow(app, patience()).map(|()| old));
    match returned.with_context(|| format!("{error:#}; and the way back failed"))? {
        Some(old) => Err(failure(Exit::RolledBack, format!("{error:#}; {old} is enabled again"))),
        None => Err(error),
    }
}

/// Watches an instance after the cutover: for the whole soak it must not die, and at its end it must still be healthy.
fn soak(app: &App, instance: &Instance) -> Result<()> {
    let Some(before) = life(app, instance)? else { bail!("{instance} does not run any more") };
    let deadline = Deadline::after(app.config.deploy.soak);
    loop {
        match life(app, instance) {
            Ok(Some(life)) if life.by == before.by && life.restarts() == before.restarts() => {}
            Ok(Some(life)) => bail!("{instance} died after the cutover: {}", last_words(app, instance, &life)),
            Ok(None) => bail!("{instance} went down after the cutover: {}", end_in_words(app, instance)),
            // A Docker that does not answer says nothing of it, as long as it answers in the end.
            Err(error) if deadline.passed() => return Err(error),
            Err(_) => {}
        }
        if !deadline.sleep(POLL) {
            break;
        }
    }
    // One answer that comes late is no reason to take the traffic from it.
    match healthy(app, instance, CHECK).or_else(|_| healthy(app, instance, CHECK)) {
        Ok(()) => Ok(()),
        Err(seen) => bail!("{instance} is not healthy any more after the cutover: {seen}"),
    }
}
