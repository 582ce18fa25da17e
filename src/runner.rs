//! Starting, stopping and watching an instance. [`supervise`] keeps an instance running and holds its lock; all others
//! learn from that lock whether and under which pid it runs. The runners differ in who starts supervise, and in where the
//! output goes. The compose runner has no supervise: Docker keeps the container running, and is asked.

mod compose;
mod direct;
mod journal;
mod log;
mod output;
mod supervise;
pub mod systemd;
mod watch;

pub use log::Tail;
pub use supervise::{Note, supervise};
pub use watch::{State, healthy, state, up, watch};

use std::io::Read;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::unistd::Uid;

use crate::app::{App, Instance, ReleaseId, Runner};
use crate::deadline::Deadline;
use crate::health;
use crate::lock;
use crate::nginx;
use crate::outcome::{quote, quote_first, timed_out};
use crate::output::span;
use crate::process::{self, End, Owner, Pid};
use crate::source;

/// How many of the last lines of an instance's output an error quotes.
const QUOTED_LINES: usize = 5;
/// How far back in an instance's log the beginning of its present life is looked for.
const SEARCHED_LINES: usize = 200;
/// How long one health check may take.
pub const CHECK: Duration = Duration::from_secs(5);
/// How long a health check may take when the time for all of them is nearly up: enough for an answer that tells more than
/// that none came.
const SHORTEST_CHECK: Duration = Duration::from_secs(1);
/// How often a stop looks whether it is done.
const POLL: Duration = Duration::from_millis(10);
/// How long systemd may take to learn that an instance is ready which is.
const TOLD: Duration = Duration::from_secs(2);
/// How long the journal may take to have what was written to it.
const JOURNALLED: Duration = Duration::from_secs(1);
/// How long a process that is ending may keep its sockets.
const ENDING: Duration = Duration::from_secs(5);
/// What listens in place of a container. Docker ends it a moment after the container.
const PROXY: &str = "docker-proxy";
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
    /// How often it was restarted.
    restarts: u64,
    /// How it ended last; None: it has not.
    last_exit: Option<String>,
}

/// The present life of an instance; None when it is not run.
fn life(app: &App, instance: &Instance) -> Result<Option<Life>> {
    if app.runner() == Runner::Compose {
        return compose::life(app, instance);
    }
    let supervisor = supervisor(app, instance)?;
    Ok(supervisor.map(|(pid, Note { restarts, last_exit })| Life { by: RunBy::Supervise(pid), restarts, last_exit }))
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

/// The supervise of an instance and its note; None when the instance is not run.
fn supervisor(app: &App, instance: &Instance) -> Result<Option<(Pid, Note)>> {
    let holder = lock::holder(&app.instance_lock(instance))?;
    Ok(holder.map(|(pid, note)| (pid, Note::read(&note))))
}

/// The process that listens on an instance's port; of a container, behind which Docker itself listens, its main one.
pub fn listener(app: &App, instance: &Instance) -> Result<Owner> {
    if app.runner() == Runner::Compose {
        return Ok(compose::main_process(app, instance)?.map_or(Owner::Nobody, Owner::Process));
    }
    let likely = supervisor(app, instance)?.map(|(pid, _)| pid);
    process::owner(instance.port().number(), likely)
}

/// Starts an instance, unless it runs, and waits until it is healthy; returns how long that took. When it dies instead,
/// or is not healthy in time, what was started here is stopped again and the error says what was seen last.
pub fn start(app: &App, instance: &Instance, deadline: Deadline) -> Result<Duration> {
    let began = Instant::now();
    let cannot = || format!("cannot start {instance}");
    let patience = || deadline.within(app.config.health.timeout);
    if let Some(life) = life(app, instance)?
        && !runs_another_release(app, instance)?
    {
        // It may have died a moment ago, without its supervise having said so yet: that is forgiven.
        let healthy = await_healthy(app, instance, None, life.restarts + 1, patience());
        if healthy.is_ok() || runs(app, instance)? {
            return healthy.map(|()| began.elapsed()).with_context(cannot);
        }
        // Its supervise was just ending.
    }
    let mut child = spawn(app, instance, deadline).with_context(cannot)?;
    let mut healthy = await_healthy(app, instance, child.as_mut(), 0, patience());
    if healthy.is_err() {
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
fn spawn(app: &App, instance: &Instance, deadline: Deadline) -> Result<Option<Child>> {
    let release = source::release_of(app, instance)?;
    let release = release.ok_or_else(|| anyhow!("it has no release yet; update-instance {instance} makes one"))?;
    if app.runner() != Runner::Compose {
        app.environment(&release, Some(instance))?;
    }
    // What is left of it; and systemd may be about to start it again.
    end(app, instance)?;
    let holder = holder_of_port(instance)?;
    if holder != Owner::Nobody {
        let remedy = if is_proxy(holder) { "; if no container has it (docker ps), restart Docker" } else { "" };
        bail!("port {} is held by {}{remedy}", instance.port(), holder.in_words());
    }
    match app.runner() {
        Runner::Direct => direct::start(app, instance).map(Some),
        Runner::Systemd => systemd::start(app, instance).map(Some),
        Runner::Compose => {
            let started = compose::start(app, instance, &release, deadline);
            // What Compose had begun is not to run on.
            started.inspect_err(|_| drop(end(app, instance)))?;
            Ok(None)
        }
    }
}

/// Whether it is Docker that holds a port. One that was killed while it started or removed a container may do so for a
/// container that there is not, until it is restarted.
fn is_proxy(owner: Owner) -> bool {
    matches!(owner, Owner::Process(holder) if process::program(holder.pid).as_deref() == Some(PROXY))
}

/// Who holds an instance's port. Who is just ending is waited for: one of ours that cannot be seen any more, and whose
/// socket is gone in a moment; or Docker's proxy, whose container has ended.
pub fn holder_of_port(instance: &Instance) -> Result<Owner> {
    let patience = Deadline::after(ENDING);
    loop {
        let owner = process::owner(instance.port().number(), None)?;
        let is_ending = is_proxy(owner) || matches!(owner, Owner::Hidden(uid) if uid == Uid::effective());
        if !is_ending || !patience.sleep(POLL) {
            return Ok(owner);
        }
    }
}

/// Waits until an instance is healthy, it dies once more than it is forgiven, or the deadline passes. `child` is its
/// supervise when started here.
fn await_healthy(
    app: &App,
    instance: &Instance,
    mut child: Option<&mut Child>,
    forgiven: u64,
    deadline: Deadline,
) -> Result<()> {
    let began = Instant::now();
    let mut has_lived = child.is_none();
    let mut seen = "nothing yet".to_owned();
    loop {
        let ended = child.as_mut().and_then(|child| reason_of_end(app, child));
        let life = life(app, instance)?;
        match &life {
            Some(life) if life.restarts > forgiven => bail!("it died: {}", last_words(app, instance, life)),
            Some(_) => has_lived = true,
            None => match ended {
                Some(reason) => bail!("{reason}: {}", last_lines(app, instance)),
                None if has_lived => bail!("{}", end_in_words(app, instance)),
                None => {}
            },
        }
        if deadline.passed() {
            let waited = span(began.elapsed());
            return Err(timed_out(format!("not healthy within {waited}; its last health check: {seen}")));
        }
        let checked = healthy(app, instance, CHECK.min(deadline.left().max(SHORTEST_CHECK)));
        match (checked, life) {
            (Ok(()), Some(Life { by: RunBy::Supervise(pid), .. })) => {
                return is_listener_within(app, instance, pid);
            }
            (Ok(()), Some(_)) => return Ok(()),
            (Ok(()), None) => {}
            (Err(reason), _) => seen = reason,
        }
        deadline.sleep(health::pause(began.elapsed()));
    }
}

/// Why the child that was to have supervise started has failed; None: it has not.
fn reason_of_end(app: &App, child: &mut Child) -> Option<String> {
    let status = child.try_wait().ok().flatten()?;
    if app.runner() == Runner::Direct {
        return Some("its supervise ended".to_owned());
    }
    let mut said = String::new();
    let _ = child.stderr.take().map(|mut stderr| stderr.read_to_string(&mut said));
    (!status.success()).then(|| quote_first(said.lines(), 1))
}

/// Makes sure that it was the instance which answered, and not somebody who took its port meanwhile.
fn is_listener_within(app: &App, instance: &Instance, supervise: Pid) -> Result<()> {
    match process::owner(instance.port().number(), Some(supervise))? {
        Owner::Process(listener) if !process::tree(supervise).contains(&listener) => {
            bail!("port {} is answered by {}, not by {}", instance.port(), process::describe(listener.pid), app.name())
        }
        _ => Ok(()),
    }
}

/// How an instance's app ended last, and the last lines that it had printed since it was started.
fn last_words(app: &App, instance: &Instance, life: &Life) -> String {
    let of_container = (app.runner() == Runner::Compose).then(|| compose::end_in_words(app, instance).ok()).flatten();
    let exit = of_container.as_deref().or(life.last_exit.as_deref()).unwrap_or("it was restarted");
    // The journal may have it a moment later than the note.
    let patience = Deadline::after(JOURNALLED);
    let ended = format!("{}{exit}", output::PREFIX);
    while app.runner() == Runner::Systemd && patience.sleep(POLL) {
        let lines = Tail::last_lines(app, instance, SEARCHED_LINES).unwrap_or_default();
        let started = lines.iter().rposition(|line| line.starts_with(supervise::STARTED)).unwrap_or(0);
        if lines[started..].contains(&ended) {
            break;
        }
    }
    let lines = last_lines(app, instance);
    if lines.is_empty() { exit.to_owned() } else { format!("{exit}: {lines}") }
}

/// How an instance ended for good.
fn end_in_words(app: &App, instance: &Instance) -> String {
    let how = match app.runner() {
        Runner::Compose => match compose::end_in_words(app, instance) {
            Ok(exit) => format!("its container ended, {exit}"),
            Err(error) => format!("{error:#}"),
        },
        Runner::Direct | Runner::Systemd => "its supervise ended".to_owned(),
    };
    let lines = last_lines(app, instance);
    if lines.is_empty() { how } else { format!("{how}: {lines}") }
}

/// The last lines of what an instance's app has printed since it was started last, or of what supervise said when it
/// could not start it at all.
fn last_lines(app: &App, instance: &Instance) -> String {
    if app.runner() == Runner::Compose {
        let lines = compose::last_lines_of_life(app, instance, QUOTED_LINES).unwrap_or_default();
        return quote(lines.iter().map(String::as_str), QUOTED_LINES);
    }
    let lines = Tail::last_lines(app, instance, SEARCHED_LINES).unwrap_or_default();
    let started = lines.iter().rposition(|line| line.starts_with(supervise::STARTED));
    match started {
        Some(at) => {
            let said = lines[at + 1..].iter().map(String::as_str);
            quote(said.filter(|line| !line.starts_with(output::PREFIX)), QUOTED_LINES)
        }
        None => quote(lines.last().map(String::as_str), 1),
    }
}

/// Lets requests in flight finish, asks the instance to end, and kills what does not. True when it did run.
pub fn stop(app: &App, instance: &Instance, deadline: Deadline) -> Result<bool> {
    if !runs(app, instance)? {
        end(app, instance)?;
        let holder = holder_of_port(instance)?;
        if matches!(holder, Owner::Process(_)) {
            let (holder, port) = (holder.in_words(), instance.port());
            bail!("cannot stop {instance}: {holder} on port {port} was not started by start-instance; stop it by hand");
        }
        return Ok(false);
    }
    drain(app, instance, deadline)?;
    end(app, instance)?;
    Ok(true)
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
    // A container's end of a connection is in a network of its own.
    let end = if app.runner() == Runner::Compose { End::Client } else { End::Server };
    while process::connections(instance.port().number(), end)? > 0 && deadline.sleep(POLL) {}
    Ok(())
}

/// Ends an instance without waiting for its requests.
fn end(app: &App, instance: &Instance) -> Result<()> {
    let cannot = || format!("cannot stop {instance}");
    // Whatever the configuration says now: each may have been started when it said something else.
    if app.runner() == Runner::Compose {
        compose::stop(app, instance).with_context(cannot)?;
    }
    systemd::stop(app, instance).with_context(cannot)?;
    if let Some((supervise, _)) = supervisor(app, instance)? {
        direct::stop(app, supervise).with_context(cannot)?;
    }
    end_leftovers(app, instance);
    Ok(())
}

/// Kills what is left of an instance whose supervise was killed. What runs as this instance says so in its environment.
fn end_leftovers(app: &App, instance: &Instance) {
    let left = process::with_environment(&app.instance_marks(instance));
    left.into_iter().for_each(|one| process::kill_tree(one.pid));
}

/// Gives each instance a release that runs something which nobody deployed, as only containers can.
pub fn adopt(app: &App, deadline: Deadline) -> Result<()> {
    for instance in app.config.instances.iter().filter(|_| app.runner() == Runner::Compose) {
        compose::adopt(app, instance, deadline).with_context(|| format!("cannot tell what {instance} runs"))?;
    }
    Ok(())
}

/// The container that serves although nothing is enabled; None: none does.
fn serving(app: &App) -> Result<Option<&Instance>> {
    let is_compose = app.runner() == Runner::Compose;
    for instance in app.config.instances.iter().filter(|_| is_compose) {
        if runs(app, instance)? && healthy(app, instance, CHECK).is_ok() {
            return Ok(Some(instance));
        }
    }
    Ok(None)
}

/// When the enabled instance is down, its healthy standby answers in its place: it becomes the enabled one, so that a
/// deploy goes to the instance that nobody needs. When nothing is enabled, that is a container which runs already: it may
/// be what serves so far. Returns what was done, in words; None: nothing.
pub fn stand_in(app: &App) -> Result<Option<String>> {
    let Some(enabled) = nginx::enabled(app)? else {
        let Some(serving) = serving(app)? else { return Ok(None) };
        nginx::switch(app, serving)?;
        return Ok(Some(format!("{serving} runs already: it is enabled")));
    };
    let standby = app.other(enabled);
    let Err(seen) = up(app, enabled, CHECK) else { return Ok(None) };
    if healthy(app, standby, CHECK).is_err() {
        return Ok(None);
    }
    nginx::switch(app, standby)?;
    Ok(Some(format!("{enabled} is enabled but not healthy ({seen}); its standby {standby} takes its place")))
}

/// The instance for a deploy when nothing is enabled: the first, unless its container runs and the other's does not.
pub fn free(app: &App) -> Result<&Instance> {
    let [first, second] = &app.config.instances;
    let is_taken = app.runner() == Runner::Compose && runs(app, first)? && !runs(app, second)?;
    Ok(if is_taken { second } else { first })
}

/// Gives an instance a release; the instance is stopped first if it runs.
pub fn update(app: &App, instance: &Instance, release: &ReleaseId, deadline: Deadline) -> Result<()> {
    if source::release_of(app, instance)?.as_ref() == Some(release) {
        return Ok(());
    }
    stop(app, instance, deadline)?;
    source::assign(app, instance, release)
}

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
