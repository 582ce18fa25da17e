//! Starting, stopping and watching an instance. [`supervise`] keeps an instance running and holds its lock; all others
//! learn from that lock whether and under which pid it runs. The runners differ in who starts supervise, and in where the
//! output goes. The compose runner has no supervise: Docker keeps the container running, and is asked.

mod before;
mod compose;
pub mod differences;
mod direct;
mod hand_over;
mod idle;
mod journal;
mod log;
mod output;
mod supervise;
pub mod systemd;
mod watch;
mod words;
pub mod workers;

pub use before::{Before, settle};
pub use hand_over::hand_over;
pub use log::Tail;
pub use supervise::{MemberNote, Note, supervise};
pub use watch::{Program, State, Unreached, any_answer, healthy, reaches_clients, state, still_healthy, up, watch};

use std::io::Read;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::Uid;

use crate::app::{App, Instance, Member, Port, ReleaseId, Runner, config};
use crate::deadline::Deadline;
use crate::health;
use crate::lock;
use crate::nginx;
use crate::outcome::{Exit, failure, quote_first, stranded, timed_out, usage};
use crate::output::span;
use crate::process::{self, End, Owner, Pid};
use crate::source;

/// How long one health check may take.
pub const CHECK: Duration = Duration::from_secs(5);
/// How long a health check may take when the time for all of them is nearly up: enough for an answer that tells more than
/// that none came.
const SHORTEST_CHECK: Duration = Duration::from_secs(1);
/// How often a stop looks whether it is done.
const POLL: Duration = Duration::from_millis(10);
/// How long systemd may take to learn that an instance is ready which is.
const TOLD: Duration = Duration::from_secs(2);
/// How long supervise may take to write down what it has begun to write down.
const NOTED: Duration = Duration::from_millis(500);
/// How long somebody may keep a port who may be about to end.
const ENDING: Duration = Duration::from_secs(5);
/// How long a process that is dying may keep its sockets: the kernel takes its memory back before.
const DYING: Duration = Duration::from_secs(60);
/// What listens in place of a container. Docker ends it a moment after the container.
const PROXY: &str = "docker-proxy";
/// How many of the processes that cannot be ended an error names.
const NAMED: usize = 5;
/// What supervise may take beyond the app's own stop_timeout before it is killed itself.
const SUPERVISE_SLACK: Duration = Duration::from_secs(5);

/// What keeps an instance running.
#[derive(Clone, Debug, PartialEq, Eq)]
enum RunBy {
    /// A supervise.
    Supervise(Pid),
    /// Docker; the container's id.
    Docker(String),
}

/// An instance's life since it was started.
#[derive(Clone, Debug)]
struct Life {
    by: RunBy,
    /// What is kept running of it; of a container, itself.
    members: Vec<MemberNote>,
}

impl Life {
    /// How often its programs were restarted, workers included.
    fn restarts(&self) -> u64 {
        self.members.iter().map(|member| member.restarts).sum()
    }

    /// How often its processes were restarted.
    fn restarts_of_processes(&self) -> u64 {
        self.members.iter().filter(|member| member.port.is_some()).map(|member| member.restarts).sum()
    }
}

/// The present life of an instance; None when it is not run.
fn life(app: &App, instance: &Instance) -> Result<Option<Life>> {
    if app.runner() == Runner::Compose {
        return compose::life(app, instance);
    }
    let supervisor = supervisor(app, instance)?;
    Ok(supervisor.map(|(pid, Note { members, .. })| Life { by: RunBy::Supervise(pid), members }))
}

/// The ports that an instance's processes listen on; of one that is not run, those that they are to listen on.
pub fn ports(app: &App, instance: &Instance) -> Result<Vec<Port>> {
    let life = if app.runner() == Runner::Compose { None } else { life(app, instance)? };
    let present: Vec<Port> = life.into_iter().flat_map(|life| life.members).filter_map(|member| member.port).collect();
    if present.is_empty() { planned_ports(app, instance) } else { Ok(present) }
}

/// The ports that an instance's processes are to listen on when it is started.
fn planned_ports(app: &App, instance: &Instance) -> Result<Vec<Port>> {
    let count = app.as_run(instance)?.config.processes();
    Ok((0..count).filter_map(|slot| instance.port_of(slot)).collect())
}

/// Whether an instance is kept running.
pub fn runs(app: &App, instance: &Instance) -> Result<bool> {
    Ok(life(app, instance)?.is_some())
}

/// Whether what is kept running is not the instance's release, as it can be with a container: somebody started another
/// image by hand, or Docker did at boot after a tool was killed.
pub fn runs_another_release(app: &App, instance: &Instance) -> Result<bool> {
    match app.runner() {
        Runner::Compose => compose::runs_another_release(app, instance),
        Runner::Direct | Runner::Systemd => Ok(false),
    }
}

/// Whether the supervise that keeps an instance is another program than the one that its next start takes, as after an
/// upgrade; None: no supervise keeps it.
pub fn is_supervise_replaced(app: &App, instance: &Instance) -> Result<Option<bool>> {
    let holder = lock::holder(&app.instance_lock(instance))?;
    Ok(holder.map(|(pid, _)| process::is_replaced(pid)))
}

/// The supervise of an instance and its note; None when the instance is not run.
fn supervisor(app: &App, instance: &Instance) -> Result<Option<(Pid, Note)>> {
    let patience = Deadline::after(NOTED);
    loop {
        let Some((pid, text)) = lock::holder(&app.instance_lock(instance))? else { return Ok(None) };
        let note = Note::read(&text);
        if note.is_some() || !patience.sleep(POLL) {
            return Ok(Some((pid, note.unwrap_or_default())));
        }
    }
}

/// Who listens on each port of an instance; of a container, behind which Docker itself listens, its main process.
pub fn listeners(app: &App, instance: &Instance) -> Result<Vec<(Port, Owner)>> {
    if app.runner() == Runner::Compose {
        let owner = compose::main_process(app, instance)?.map_or(Owner::Nobody, Owner::Process);
        return Ok(vec![(instance.port(), owner)]);
    }
    let supervisor = supervisor(app, instance)?;
    // Below the leash of the process that is to listen, there are fewer to look at than below all of supervise.
    let likely = |port: Port| {
        let (pid, note) = supervisor.as_ref()?;
        let member = note.processes().find(|member| member.port == Some(port));
        Some(member.and_then(|member| member.leash).map_or(*pid, Pid::from_raw))
    };
    let owner = |port: Port| Ok((port, process::owner(port.number(), likely(port))?));
    ports(app, instance)?.into_iter().map(owner).collect()
}

/// Starts an instance, unless it runs, and waits until it is healthy; returns how long that took. When it dies instead,
/// or is not healthy in time, what was started here is stopped again and the error says what was seen last.
pub fn start(app: &App, instance: &Instance, deadline: Deadline) -> Result<Duration> {
    let (began, began_at) = (Instant::now(), process::unix_now());
    let cannot = || format!("cannot start {instance}");
    let release = app.release_of(instance).with_context(cannot)?;
    release.iter().for_each(|release| app.record_settings_once(instance, release));
    let app = &app.as_run(instance).with_context(cannot)?;
    let patience = || deadline.within(app.config.health.timeout);
    if let Some(life) = life(app, instance)?
        && !runs_another_release(app, instance)?
    {
        // It may have died a moment ago, without its supervise having said so yet: that is forgiven.
        let healthy =
            await_healthy(app, instance, None, began_at, life.restarts_of_processes().saturating_add(1), patience());
        if healthy.is_ok() || runs(app, instance)? {
            return healthy.map(|()| began.elapsed()).with_context(cannot);
        }
        // Its supervise was just ending.
    }
    let release = release.ok_or_else(|| anyhow!("it has no release yet; update-instance {instance} makes one"));
    let mut child = release.and_then(|release| spawn(app, instance, &release, deadline)).with_context(cannot)?;
    let mut healthy = await_healthy(app, instance, child.as_mut(), began_at, 0, patience());
    if healthy.is_err() {
        let has_come = app.runner() != Runner::Direct || supervisor(app, instance)?.is_some();
        if let Some(child) = child.as_mut().filter(|_| !has_come) {
            // It has not come to keep the instance yet, and is not to begin once nobody waits for it.
            let _ = child.kill().and_then(|()| child.wait());
        }
        end(app, instance)?;
        if app.runner() == Runner::Compose {
            healthy = healthy.map_err(|error| compose::with_output_kept(app, instance, error));
        }
    } else if let Some(child) = child.as_mut().filter(|_| app.runner() == Runner::Systemd) {
        // systemd learns it at the same time as we; what is asked of it next finds the unit active.
        let patience = Deadline::after(TOLD);
        while child.try_wait().is_ok_and(|ended| ended.is_none()) && patience.sleep(POLL) {}
    }
    healthy.map(|()| began.elapsed()).with_context(cannot)
}

/// Has an instance started whose port must be free. The child tells by its end that this failed; None: it is started.
fn spawn(app: &App, instance: &Instance, release: &ReleaseId, deadline: Deadline) -> Result<Option<Child>> {
    if app.runner() != Runner::Compose {
        let first = Member::Process { index: 0, slot: 0 };
        app.environment(release, Some((instance, &first)))?;
    }
    check_limits(app)?;
    // What is left of it; and systemd may be about to start it again.
    end(app, instance)?;
    if let Some((port, holder)) = holder_of_ports(app, instance)? {
        let remedy = if is_proxy(app, holder) { "; if no container has it (docker ps), restart Docker" } else { "" };
        bail!("port {port} is held by {}{remedy}", holder.in_words());
    }
    match app.runner() {
        Runner::Direct => direct::start(app, instance).map(Some),
        Runner::Systemd => systemd::start(app, instance).map(Some),
        Runner::Compose => {
            let started = compose::start(app, instance, release, deadline);
            // What Compose had begun is not to run on.
            started.inspect_err(|_| drop(end(app, instance)))?;
            Ok(None)
        }
    }
}

/// Fails when an instance would not serve as it is configured, for nginx or the machine would not go along. For what gives
/// an instance the traffic anew; what brings one back is content with less.
pub fn check_configured(app: &App) -> Result<()> {
    nginx::check_count(app)?;
    check_limits(app)
}

/// Fails when the machine does not let us have what is configured for processes.
fn check_limits(app: &App) -> Result<()> {
    let config::Run { open_files, nice, .. } = app.config.run;
    if app.runner() != Runner::Direct || Uid::effective().is_root() {
        return Ok(());
    }
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot tell how many files may be open")?;
    if let Some(wanted) = open_files.filter(|wanted| *wanted > most) {
        return Err(usage(format!("cannot set open_files to {wanted}: this user may have {most} (ulimit -Hn)")));
    }
    match nice {
        Some(nice @ ..0) => Err(usage(format!("cannot set nice to {nice}: without systemd, less than 0 takes root"))),
        _ => Ok(()),
    }
}

/// Whether it is Docker that holds a port. One that was killed while it started or removed a container may do so for a
/// container that there is not, until it is restarted.
fn is_proxy(app: &App, owner: Owner) -> bool {
    match owner {
        Owner::Process(holder) => process::program(holder.pid).as_deref() == Some(PROXY),
        // It is root's, and shows others its name only.
        Owner::Hidden(uid) => {
            uid.is_root() && app.runner() == Runner::Compose && !process::of_program(PROXY).is_empty()
        }
        Owner::Nobody => false,
    }
}

/// The first of the ports that an instance is to have which somebody holds, and who does; None: they are free. Who is just
/// ending is waited for: one that is dying, or that we should see and cannot any more, whose socket is gone in a moment; or
/// Docker's proxy, whose container has ended.
pub fn holder_of_ports(app: &App, instance: &Instance) -> Result<Option<(Port, Owner)>> {
    for port in app.owner.lend(|| planned_ports(app, instance))? {
        let holder = holder_of(app, port)?;
        if holder != Owner::Nobody {
            return Ok(Some((port, holder)));
        }
    }
    Ok(None)
}

fn holder_of(app: &App, port: Port) -> Result<Owner> {
    let (ending, dying) = (Deadline::after(ENDING), Deadline::after(DYING));
    loop {
        let owner = process::owner(port.number(), None)?;
        let patience = match owner {
            Owner::Process(process) if process.is_ending() => Some(dying),
            Owner::Hidden(uid) if uid == Uid::effective() || Uid::effective().is_root() => Some(ending),
            owner => is_proxy(app, owner).then_some(ending),
        };
        if !patience.is_some_and(|patience| patience.sleep(POLL)) {
            return Ok(owner);
        }
    }
}

/// Waits until an instance is healthy, it dies once more than it is forgiven, or the deadline passes. `child` is its
/// supervise when started here, after `began_at`, in seconds since 1970.
fn await_healthy(
    app: &App,
    instance: &Instance,
    mut child: Option<&mut Child>,
    began_at: u64,
    forgiven: u64,
    deadline: Deadline,
) -> Result<()> {
    let began = Instant::now();
    let mut has_lived = child.is_none();
    let mut seen = "nothing yet".to_owned();
    loop {
        let ended = child.as_mut().and_then(|child| reason_of_end(app, instance, child));
        let life = life(app, instance)?;
        match &life {
            Some(life) if life.restarts_of_processes() > forgiven => {
                bail!("it died: {}", words::last_words(app, instance, life))
            }
            Some(_) => has_lived = true,
            // Whichever is seen first, that it has gone or that its child has, it is told in the same words.
            None => match ended {
                Some(reason) => bail!(words::end_of_start(app, instance, reason, began_at)),
                None if has_lived => bail!(words::end_of_start(app, instance, words::end(app, instance), began_at)),
                None => {}
            },
        }
        if deadline.passed() {
            let waited = span(began.elapsed());
            let elsewhere = life.as_ref().and_then(|life| words::elsewhere(app, instance, life)).unwrap_or_default();
            return Err(timed_out(format!("not healthy within {waited}; its last health check: {seen}{elsewhere}")));
        }
        let checked = healthy(app, instance, CHECK.min(deadline.left().max(SHORTEST_CHECK)));
        match (checked, life) {
            (Ok(()), Some(Life { by: RunBy::Supervise(pid), .. })) => {
                return ports(app, instance)?.into_iter().try_for_each(|port| is_listener_within(app, port, pid));
            }
            (Ok(()), Some(_)) => return Ok(()),
            (Ok(()), None) => {}
            (Err(reason), _) => seen = reason,
        }
        deadline.sleep(health::pause(began.elapsed()));
    }
}

/// Why the child that was to have supervise started has failed; None: it has not.
fn reason_of_end(app: &App, instance: &Instance, child: &mut Child) -> Option<String> {
    let status = child.try_wait().ok().flatten()?;
    if app.runner() == Runner::Direct {
        return Some(words::end(app, instance));
    }
    let mut said = String::new();
    let _ = child.stderr.take().map(|mut stderr| stderr.read_to_string(&mut said));
    (!status.success()).then(|| quote_first(said.lines(), 1))
}

/// Makes sure that it was the instance which answered, and not somebody who took its port meanwhile.
fn is_listener_within(app: &App, port: Port, supervise: Pid) -> Result<()> {
    match process::owner(port.number(), Some(supervise))? {
        Owner::Process(listener) if !process::tree(supervise).contains(&listener) => {
            bail!("port {port} is answered by {}, not by {}", process::describe(listener.pid), app.name())
        }
        _ => Ok(()),
    }
}

/// Lets requests in flight finish, asks the instance to end, and kills what does not. True when it did run.
pub fn stop(app: &App, instance: &Instance, deadline: Deadline) -> Result<bool> {
    if !runs(app, instance)? {
        end(app, instance)?;
        if let Some((port, holder @ Owner::Process(_))) = holder_of_ports(app, instance)? {
            let holder = holder.in_words();
            bail!("cannot stop {instance}: {holder} on port {port} was not started by start-instance; stop it by hand");
        }
        return Ok(false);
    }
    give_back_before_end(app, instance).with_context(|| format!("cannot stop {instance}"))?;
    drain(app, instance, deadline)?;
    end(app, instance)?;
    Ok(true)
}

/// Has the other instance answer for itself again where this one does in its place though that is well, as after a hand-over
/// that was killed: else requests would go on coming here. One that is in the midst of its hand-over is well, too.
fn give_back_before_end(app: &App, instance: &Instance) -> Result<()> {
    let other = app.other(instance);
    let is_ending = || app.runner() == Runner::Systemd && systemd::has_job(app, other);
    match nginx::is_away(app, other) && !is_ending() && up(app, other, CHECK).is_ok() {
        true => nginx::come_back(app, other),
        false => Ok(()),
    }
}

/// Removes what is kept of an instance that was stopped: its container, which Docker might start at the next boot.
pub fn discard(app: &App, instance: &Instance) -> Result<()> {
    match app.runner() {
        Runner::Compose => compose::remove(app, instance).with_context(|| format!("cannot remove {instance}")),
        Runner::Direct | Runner::Systemd => Ok(()),
    }
}

/// Waits until no connection to an instance is left, or drain_timeout or the deadline has passed.
pub fn drain(app: &App, instance: &Instance, deadline: Deadline) -> Result<()> {
    let deadline = deadline.within(app.config.deploy.drain_timeout);
    while connections(app, instance)? > 0 && deadline.sleep(POLL) {}
    Ok(())
}

/// How many connections to an instance are open.
pub fn connections(app: &App, instance: &Instance) -> Result<usize> {
    // A container's end of a connection is in a network of its own.
    let end = if app.runner() == Runner::Compose { End::Client } else { End::Server };
    let ports = app.owner.lend(|| ports(app, instance))?;
    ports.into_iter().map(|port| process::connections(port.number(), end)).sum()
}

/// Ends an instance without waiting for its requests.
fn end(app: &App, instance: &Instance) -> Result<()> {
    let cannot = || format!("cannot stop {instance}");
    // What cannot be read of its settings is no reason to let it run.
    let app = &app.as_run(instance).unwrap_or_else(|_| app.clone());
    // Whatever the configuration says now: each may have been started when it said something else.
    if app.runner() == Runner::Compose {
        compose::stop(app, instance).with_context(cannot)?;
    }
    systemd::stop(app, instance).with_context(cannot)?;
    if let Some((supervise, _)) = supervisor(app, instance)? {
        direct::stop(app, supervise).with_context(cannot)?;
    }
    end_leftovers(app, instance).with_context(cannot)
}

/// Kills what is left of an instance whose supervise was killed. What runs as this instance says so in its environment; so
/// may another app of the same user that is of the same commit, but then it has a supervise. One of this instance that is still
/// there has lost its lock, by somebody who has removed the file. Fails when something is left.
fn end_leftovers(app: &App, instance: &Instance) -> Result<()> {
    let left = process::kill_like(|pid, environment| {
        app.is_of_instance(instance, environment) && !process::is_below(pid, supervise::PROGRAM)
            || process::arguments(pid).is_some_and(|words| supervise::is_of(&words, app, instance))
    });
    if left.is_empty() {
        return Ok(());
    }
    let named: Vec<String> = left.iter().take(NAMED).map(|one| process::describe(one.pid)).collect();
    bail!("{} of its processes cannot be ended: {}", left.len(), named.join(", "))
}

/// Gives each instance a release that runs something which nobody deployed, as only containers can. Returns which got one.
pub fn adopt(app: &App, deadline: Deadline) -> Result<Vec<(&Instance, ReleaseId)>> {
    let mut adopted = Vec::new();
    for instance in app.config.instances.iter().filter(|_| app.runner() == Runner::Compose) {
        let release = compose::adopt(app, instance, deadline);
        let release = release.with_context(|| format!("cannot tell what {instance} runs"))?;
        adopted.extend(release.map(|release| (instance, release)));
    }
    Ok(adopted)
}

/// The container that serves although nothing is enabled; None: none does.
pub fn serving(app: &App) -> Result<Option<&Instance>> {
    let is_compose = app.runner() == Runner::Compose;
    for instance in app.config.instances.iter().filter(|_| is_compose) {
        if runs(app, instance)? && healthy(app, instance, CHECK).is_ok() {
            return Ok(Some(instance));
        }
    }
    Ok(None)
}

/// Cuts over to an instance, and has the workers follow. When either fails, the traffic and the workers are where they were,
/// or the exit code is [`Exit::Stranded`](crate::outcome::Exit::Stranded) and the error says what serves.
pub fn connect(app: &App, target: &Instance, deadline: Deadline) -> Result<()> {
    let before = nginx::enabled(app)?;
    switch(app, target)?;
    workers::follow(app, deadline).map_err(|error| {
        // The time for the way there may be up; the way back has its own.
        let patience = Deadline::after(app.config.deploy.timeout);
        let returned = nginx::take_back(app, before).and_then(|()| workers::follow(app, patience));
        match returned {
            Ok(()) => error,
            Err(failed) => watch::with_what_serves(app, stranded(&error, &failed)),
        }
    })
}

/// Cuts over as [`connect`] does, and asks as a client whether that is what clients get. When only this instance's answers do
/// not get through, the one that was enabled before is enabled again
/// ([`Exit::RolledBack`](crate::outcome::Exit::RolledBack)). When none would, the instance stays enabled, for whoever mends nginx:
/// the exit code is [`Exit::Stranded`](crate::outcome::Exit::Stranded).
pub fn connect_for_clients(app: &App, target: &Instance, deadline: Deadline) -> Result<()> {
    let before = nginx::enabled(app)?;
    connect(app, target, deadline)?;
    let unreached = match watch::reaches_clients(app, target) {
        Ok(()) => return Ok(()),
        Err(unreached) => unreached,
    };
    if before == Some(target) {
        // Nothing was switched.
        return Err(anyhow!("{unreached}"));
    }
    match (unreached, before) {
        (Unreached::Answer(reason), Some(old)) => {
            let patience = Deadline::after(app.config.deploy.timeout);
            let returned = nginx::take_back(app, Some(old)).and_then(|()| workers::follow(app, patience));
            Err(match returned {
                Ok(()) => failure(Exit::RolledBack, format!("{reason}; {old} is enabled again")),
                Err(failed) => watch::with_what_serves(app, stranded(&anyhow!(reason), &failed)),
            })
        }
        (unreached, _) => Err(watch::with_what_serves(app, failure(Exit::Stranded, unreached.to_string()))),
    }
}

/// Cuts over to an instance. When that fails, the traffic is where it was; or the exit code is
/// [`Exit::Stranded`](crate::outcome::Exit::Stranded), and the error says what serves.
pub fn switch(app: &App, target: &Instance) -> Result<()> {
    nginx::switch(app, target).map_err(|error| watch::with_what_serves(app, error))
}

/// The instance for a deploy when nothing is enabled: the first, unless its container runs and the other's does not.
pub fn free(app: &App) -> Result<&Instance> {
    let [first, second] = &app.config.instances;
    let is_taken = app.runner() == Runner::Compose && runs(app, first)? && !runs(app, second)?;
    Ok(if is_taken { second } else { first })
}

/// Whether an instance has this release already, to be run by what is configured now.
pub fn has(app: &App, instance: &Instance, release: &ReleaseId) -> Result<bool> {
    Ok(app.release_of(instance)?.as_ref() == Some(release) && app.runs_as_wanted(instance)?)
}

/// Gives an instance a release, to be run by what is configured now; the instance is stopped first if it runs.
pub fn update(app: &App, instance: &Instance, release: &ReleaseId, deadline: Deadline) -> Result<()> {
    if has(app, instance, release)? {
        return Ok(());
    }
    stop(app, instance, deadline)?;
    app.record_settings(instance, release)?;
    source::assign(app, instance, release)
}

/// Gives an instance a release that was made before, to be run by the settings by which it was run; the instance is stopped
/// first if it runs another one.
pub fn bring_back(app: &App, instance: &Instance, release: &ReleaseId, deadline: Deadline) -> Result<()> {
    if app.release_of(instance)?.as_ref() == Some(release) {
        return Ok(());
    }
    stop(app, instance, deadline)?;
    app.take_over_settings(instance, release)?;
    source::assign(app, instance, release)
}
