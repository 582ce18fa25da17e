//! What state an instance is in.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use super::words::{end_in_words, last_words};
use super::{CHECK, Life, MemberNote, POLL, RunBy, compose, idle, life, listeners, ports, start, workers};
use crate::app::{App, Instance, Port, Runner, Turn};
use crate::deadline::Deadline;
use crate::nginx;
use crate::outcome::{Exit, exit_of, failure, stranded};
use crate::process::{self, Owner, Pid, Process};
use crate::threads;

/// The first status of those by which an answer says that the request is to blame.
const BAD_REQUEST: u16 = 400;
/// The first status of those by which it says that the server is.
const SERVER_ERROR: u16 = 500;
/// What nginx answers when the instance's answer is of no use to it.
const BAD_GATEWAY: u16 = 502;
/// How large, in bytes, an answer's header fields may be for any nginx: as one page of memory.
const LEAST_BUFFER: usize = 4000;

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

/// Whether a port gives a healthy answer, and it is not somebody else who gives it. Err: what was wrong, in words.
pub fn answers_at(app: &App, port: Port, patience: Duration) -> Result<(), String> {
    let answer = app.config.expectation().check(port.number(), patience);
    match stranger_at(app, port) {
        Some(stranger) => Err(format!("port {port} is held by {stranger}, not by {}", app.name())),
        None => answer,
    }
}

/// Who holds a port that the app's processes are to listen on, and is another user, in words; None: nobody. Containers are
/// behind sockets of Docker's.
pub fn stranger_at(app: &App, port: Port) -> Option<String> {
    let is_process = app.runner() != Runner::Compose;
    let stranger = is_process.then(|| process::stranger(port.number(), app.owner.uid).ok().flatten()).flatten();
    stranger.map(|uid| Owner::Hidden(uid).in_words())
}

/// The ports on which nginx looks for an instance of the app as it runs.
fn all_ports(app: &App, instance: &Instance) -> Vec<Port> {
    (0..app.config.slots()).filter_map(|slot| instance.port_of(slot)).collect()
}

/// Whether nobody but the app holds any of these ports. Err: who holds one, in words.
fn no_stranger_at(app: &App, ports: &[Port]) -> Result<(), String> {
    for port in ports {
        if let Some(stranger) = stranger_at(app, *port) {
            return Err(format!("port {port} is held by {stranger}, not by {}", app.name()));
        }
    }
    Ok(())
}

/// Whether all of an instance's ports give a healthy answer. Err: what was wrong with the first that does not, in words.
pub fn answers(app: &App, instance: &Instance, patience: Duration) -> Result<(), String> {
    let (app, ports) = as_run_on(app, instance).map_err(|error| format!("{error:#}"))?;
    // nginx asks that of the slot which is free as well, when no other answers.
    let mut free = all_ports(&app, instance);
    free.retain(|port| !ports.contains(port));
    no_stranger_at(&app, &free)?;
    for (index, port) in ports.iter().enumerate() {
        answers_at(&app, *port, patience).map_err(|seen| match ports.len() {
            1 => seen,
            _ => format!("process {index}: {seen}"),
        })?;
    }
    Ok(())
}

/// The app by the settings that an instance runs by, and its ports.
fn as_run_on(app: &App, instance: &Instance) -> Result<(App, Vec<Port>)> {
    Ok((app.as_run(instance)?, ports(app, instance)?))
}

/// Checks an instance's health once: its answer, and for a container what Docker's own check says. Err: what was wrong, in
/// words.
pub fn healthy(app: &App, instance: &Instance, patience: Duration) -> Result<(), String> {
    answers(app, instance, patience)?;
    if app.runner() == Runner::Compose { compose::health(app, instance) } else { Ok(()) }
}

/// The same, asked once more when that fails: one answer that comes late says little of an instance that everything depends on.
pub fn still_healthy(app: &App, instance: &Instance) -> Result<(), String> {
    healthy(app, instance, CHECK).or_else(|_| healthy(app, instance, CHECK))
}

/// Whether an instance is up, so far as anybody can tell: one of its ports answers, and Docker does not call it unhealthy. To
/// be not up is a reason to take the traffic from it. Err: what was wrong, in words.
pub fn up(app: &App, instance: &Instance, patience: Duration) -> Result<(), String> {
    answers(app, instance, patience).or_else(|seen| {
        let any = as_run_on(app, instance).is_ok_and(|(app, ports)| {
            ports.len() > 1 && ports.iter().any(|port| answers_at(&app, *port, patience).is_ok())
        });
        if any { Ok(()) } else { Err(seen) }
    })?;
    if app.runner() == Runner::Compose { compose::not_unhealthy(app, instance) } else { Ok(()) }
}

/// Whether any of an instance's ports gives an answer, a healthy one or not.
pub fn any_answer(app: &App, instance: &Instance, patience: Duration) -> bool {
    as_run_on(app, instance).is_ok_and(|(app, ports)| {
        let expectation = app.config.expectation();
        ports.iter().any(|port| expectation.is_answered(port.number(), patience))
    })
}

/// Why clients do not get what an instance answers, in words.
#[derive(Debug)]
pub enum Unreached {
    /// Whatever is enabled: nginx does not pass their requests to the app.
    Site(String),
    /// This instance's answer does not get through.
    Answer(String),
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Unreached::Site(reason) | Unreached::Answer(reason)) = self;
        f.write_str(reason)
    }
}

/// Asks as a client does, at the site's own address, whether an instance that is enabled is what clients get.
///
/// Where nobody can ask, as with a server block of one's own and no `check` in `[nginx]`, that is taken for granted.
pub fn reaches_clients(app: &App, instance: &Instance) -> Result<(), Unreached> {
    let Some(site) = nginx::Site::of(app) else { return Ok(()) };
    site.leads_to(app, Some(instance)).map_err(Unreached::Site)?;
    // One answer that comes late is no reason to take the traffic from it.
    gets_through(app, &site, instance).or_else(|_| gets_through(app, &site, instance))
}

/// Compares what clients get with what the instance answers by itself. Where the configuration names a path, that is to be
/// answered well; on that of the health check, which may be closed to clients, only what nginx itself says in the
/// instance's place is wrong.
fn gets_through(app: &App, site: &nginx::Site, instance: &Instance) -> Result<(), Unreached> {
    let in_words = |error: anyhow::Error| Unreached::Answer(format!("{error:#}"));
    let expectation = app.as_run(instance).map_err(in_words)?.config.expectation();
    let Some(path) = site.path().or(Some(expectation.path.as_str()).filter(|path| !path.is_empty())) else {
        // The health check knows nothing that could be asked for.
        return Ok(());
    };
    let cannot = |what: String| format!("clients of {site} do not get {path} from {instance}: {what}");
    let (asked, through) = site.follow(path).map_err(|seen| Unreached::Site(cannot(seen)))?;
    let is_well = match site.path() {
        Some(_) => through.status < BAD_REQUEST || expectation.status.contains(through.status),
        None => through.status < SERVER_ERROR,
    };
    if is_well {
        return Ok(());
    }
    let port = ports(app, instance).map_err(in_words)?.into_iter().next().unwrap_or(instance.port());
    match expectation.ask(port.number(), &asked, CHECK) {
        Ok(direct) if direct.status == through.status && site.path().is_none() => Ok(()),
        Ok(direct) => {
            let size = direct.header_size();
            let hint = match through.status {
                BAD_GATEWAY if size > LEAST_BUFFER => {
                    format!("; its header fields are {size} bytes: give the server block a larger proxy_buffer_size")
                }
                _ => String::new(),
            };
            let how = format!("status {} by way of nginx, {} without it{hint}", through.status, direct.status);
            Err(Unreached::Answer(cannot(how)))
        }
        Err(seen) => {
            Err(Unreached::Answer(cannot(format!("status {} by way of nginx; without it: {seen}", through.status))))
        }
    }
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
    let watched = || {
        // Before the workers move, which takes as long as they take to end: it may die meanwhile.
        let before = life(app, new)?.with_context(|| format!("{new} does not run any more"))?;
        // An nginx that does not answer at all may do so in the end.
        if let Err(Unreached::Answer(reason)) = reaches_clients(app, new) {
            bail!(reason);
        }
        workers::follow(app, patience())?;
        soak(app, turn, new, &before)?;
        reaches_clients(app, new).map_err(|unreached| anyhow!("{unreached}"))
    };
    let Err(error) = watched() else { return Ok(()) };
    // As long as it has the traffic, its watch is not over.
    turn.doing(format_args!("taking the traffic from {new}"), Some(new));
    let returned = return_to().and_then(|old| {
        workers::follow(app, patience())?;
        old.map_or(Ok(()), |old| serves_again(app, old, patience())).map(|()| old)
    });
    match returned {
        Ok(Some(old)) => Err(match nginx::ask(app).and_then(|_| answers_again(app, old)) {
            Ok(()) => failure(Exit::RolledBack, format!("{error:#}; {old} is enabled again")),
            Err(failed) => with_what_serves(app, stranded(&error, &failed)),
        }),
        Ok(None) => Err(error),
        Err(failed) => Err(with_what_serves(app, stranded(&error, &failed))),
    }
}

/// Fails when clients do not get what an instance answers that is enabled again. What is in their way before they get to the app
/// has nothing to do with which instance that is.
fn answers_again(app: &App, old: &Instance) -> Result<()> {
    match reaches_clients(app, old) {
        Err(Unreached::Answer(reason)) => bail!(reason),
        Err(Unreached::Site(_)) | Ok(()) => Ok(()),
    }
}

/// Makes sure that an instance serves which has the traffic again: it may have died meanwhile, and is started then.
fn serves_again(app: &App, old: &Instance, deadline: Deadline) -> Result<()> {
    match up(app, old, CHECK) {
        Ok(()) => Ok(()),
        Err(_) => start(app, old, deadline).map(drop).with_context(|| format!("{old} is enabled again, but")),
    }
}

/// Adds to the error of a way back that failed where the traffic goes now.
pub(super) fn with_what_serves(app: &App, error: anyhow::Error) -> anyhow::Error {
    match exit_of(&error) {
        Exit::Stranded => failure(Exit::Stranded, format!("{error:#}; {}", what_serves(app))),
        _ => error,
    }
}

/// Which instance has the traffic, in words, with its release and its health.
fn what_serves(app: &App) -> String {
    let described = |instance: &Instance| {
        let release = app.release_of(instance).ok().flatten();
        let with = release.map_or_else(|| "without a release".to_owned(), |release| format!("with {release}"));
        let health = healthy(app, instance, CHECK);
        let health = health.map_or_else(|seen| format!("not healthy: {seen}"), |()| "healthy".to_owned());
        format!("{instance} {with}, {health}")
    };
    let linked = match nginx::enabled(app) {
        Ok(linked) => linked,
        Err(error) => return format!("what serves is unknown: {error:#}"),
    };
    let uses = nginx::ask(app).map(|answer| answer.instance);
    match (linked, uses) {
        (_, Ok(used)) => {
            let used = app.instance(&used).map_or(used.clone(), described);
            format!("now nginx uses {used}")
        }
        (Some(linked), Err(_)) => format!("nginx does not answer; enabled is {}", described(linked)),
        (None, Err(_)) => "nginx does not answer; nothing is enabled".to_owned(),
    }
}

/// Watches an instance after the cutover: for the whole soak it must not die any more than it had `before`, and nobody else may
/// have its ports; at its end it must still be healthy.
fn soak(app: &App, turn: &Turn, instance: &Instance, before: &Life) -> Result<()> {
    let deadline = Deadline::after(app.config.deploy.soak);
    let looks = {
        let (app, instance) = (app.clone(), instance.clone());
        // Where there can be no more threads, nobody looks. One that is not well is not waited for.
        threads::builder().and_then(|builder| builder.spawn(move || idle::advice(&app, &instance, deadline))).ok()
    };
    stays_well(app, instance, before, deadline)?;
    let advice = looks.and_then(|looks| looks.join().ok()).flatten();
    advice.iter().for_each(|advice| turn.say(advice));
    Ok(())
}

fn stays_well(app: &App, instance: &Instance, before: &Life, deadline: Deadline) -> Result<()> {
    let ports = all_ports(&app.as_run(instance)?, instance);
    let unhealthy = |seen: String| anyhow!("{instance} is not healthy any more after the cutover: {seen}");
    loop {
        // From the moment on in which somebody else has a port, nginx sends requests there.
        no_stranger_at(app, &ports).map_err(unhealthy)?;
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
    still_healthy(app, instance).map_err(unhealthy)
}
