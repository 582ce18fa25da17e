//! The `compose` runner: Docker runs an instance's container, and starts it again as the service's restart policy says.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Error, Result, anyhow, bail};

use super::{Life, POLL, RunBy};
use crate::app::{App, Instance, ReleaseId};
use crate::compose::Project;
use crate::deadline::Deadline;
use crate::docker::{self, Container, Health};
use crate::durable;
use crate::hooks::About;
use crate::outcome::{exit_of, failure, usage};
use crate::process::{Pid, Process};
use crate::source::image::{self, Image};
use crate::source::{self, Origin};

/// How many lines are kept of what a container printed that failed to start.
const KEPT_LINES: usize = 2000;
/// How long Docker may take to learn why a container was killed.
const KNOWN: Duration = Duration::from_secs(1);
/// How often it is asked whether an instance whose output is followed has a new container.
const NEXT: Duration = Duration::from_millis(200);

/// The present life of an instance; None: its container does not run, or there is none.
pub fn life(app: &App, instance: &Instance) -> Result<Option<Life>> {
    let project = Project::of(app)?;
    let Some(container) = project.container(instance)?.filter(Container::is_kept) else { return Ok(None) };
    let last_exit = if container.restart_count > 0 { last_exit(&project, &container)? } else { None };
    let restarts = container.restart_count;
    Ok(Some(Life { by: RunBy::Docker(container.id), restarts, last_exit }))
}

/// How a container ended last; None: it has not.
fn last_exit(project: &Project, container: &Container) -> Result<Option<String>> {
    if !container.state.running {
        return Ok(Some(container.end_in_words()));
    }
    Ok(project.engine.ends(container)?.pop().map(|end| end.how))
}

/// How an instance's container ended last. That its memory was at its limit may be known a little later than its end.
pub fn end_in_words(app: &App, instance: &Instance) -> Result<String> {
    let project = Project::of(app)?;
    let patience = Deadline::after(KNOWN);
    loop {
        let Some(container) = project.container(instance)? else { return Ok("its container is gone".to_owned()) };
        let exit = last_exit(&project, &container)?.unwrap_or_else(|| "it was restarted".to_owned());
        if exit != docker::KILLED || !patience.sleep(POLL) {
            return Ok(exit);
        }
    }
}

/// The main process of an instance's container; None: it does not run.
pub fn main_process(app: &App, instance: &Instance) -> Result<Option<Process>> {
    let container = Project::of(app)?.container(instance)?;
    let pid = container.map(|container| container.state.pid).filter(|pid| *pid > 0);
    Ok(pid.and_then(|pid| Process::with_pid(Pid::from_raw(pid))))
}

/// What an instance's container holds of memory, in bytes; None: it does not run.
pub fn memory(app: &App, instance: &Instance) -> Result<Option<u64>> {
    let project = Project::of(app)?;
    let container = project.container(instance)?.filter(|container| container.state.running);
    container.map(|container| project.engine.memory(&container)).transpose().map(Option::flatten)
}

/// Whether an instance that runs has another image than its release. One without a release may run what it likes.
pub fn runs_another_release(app: &App, instance: &Instance) -> Result<bool> {
    let Some(image) = image::of_instance(app, instance)? else { return Ok(false) };
    let container = Project::of(app)?.container(instance)?.filter(Container::is_kept);
    Ok(container.is_some_and(|container| container.image != image.id))
}

/// Makes a release of what an instance runs that has none, because somebody else started it: the way back to it.
pub fn adopt(app: &App, instance: &Instance, deadline: Deadline) -> Result<()> {
    if source::release_of(app, instance)?.is_some() {
        return Ok(());
    }
    let project = Project::of(app)?;
    let Some(container) = project.container(instance)?.filter(Container::is_kept) else { return Ok(()) };
    let Some(image) = Image::of_container(&project, &container)? else { return Ok(()) };
    let release = source::make(app, &Origin::Image(image), &mut About::default(), deadline)?;
    source::assign(app, instance, &release)
}

/// Has Compose make a container for an instance, which has none that runs, and start it.
pub fn start(app: &App, instance: &Instance, release: &ReleaseId, deadline: Deadline) -> Result<()> {
    let project = Project::of(app)?;
    let image = image::of_release(app, release)?;
    let image = image.ok_or_else(|| anyhow!("release {release} is no image; update-instance {instance} makes one"))?;
    let name = image::ensure(app, &project, &image, deadline)?;
    let present = project.containers(instance)?;
    let up = match present.as_slice() {
        // What it keeps in volumes without a name stays, as when Compose or Docker starts it.
        [container] if container.image == image.id => project.start(instance, &name, deadline),
        _ => remove(app, instance).and_then(|()| project.up(instance, &name, deadline)),
    };
    // What is wrong with what was made may be why it could not be started.
    let made = project.container(instance)?;
    made.as_ref().map_or(Ok(()), |container| is_as_configured(container, &project, instance, &image))?;
    up?;
    made.map(drop).context("Compose made no container for it")
}

/// Whether a container is what the configuration says: the image, and the port.
fn is_as_configured(container: &Container, project: &Project, instance: &Instance, image: &Image) -> Result<()> {
    let (port, here) = (instance.port(), container.name.trim_start_matches('/'));
    if container.image != image.id {
        let (wanted, variable) = (&image.reference, &project.settings.image_variable);
        let remedy = format!("`image: ${{{variable}}}` should be its image in the Compose file");
        return Err(usage(format!("{here} runs another image than {wanted}: {remedy}")));
    }
    if !container.publishes(port.number()) {
        let published = container.published().unwrap_or_default();
        let published =
            if published.is_empty() { "no port".to_owned() } else { format!("port {}", published.join(" and ")) };
        return Err(usage(format!("{here} publishes {published}, but [instances] says {port}: make them the same")));
    }
    Ok(())
}

/// Removes an instance's containers. What was made for them without a name goes too, when it was we who had them made:
/// in a volume without a name that is older, there may be what somebody wants.
pub fn remove(app: &App, instance: &Instance) -> Result<()> {
    let project = Project::of(app)?;
    for container in project.containers(instance)? {
        // Nobody else names an image by both its tag and its digest, or by its id.
        let image = &container.config.image;
        let is_ours = image.starts_with("sha256:") || image.contains("@sha256:");
        // Volumes go in the same step, so that one killed in between leaves none that nobody knows; but for those that
        // Compose handed on from an older container, which are the engine's no more.
        project.engine.remove(&container, is_ours)?;
        if is_ours {
            container.volumes_without_name().try_for_each(|volume| project.engine.remove_volume(volume))?;
        }
    }
    Ok(())
}

/// Ends an instance's containers, each within its own grace period. They stay until the next start, for what they have
/// printed.
pub fn stop(app: &App, instance: &Instance) -> Result<()> {
    let project = Project::of(app)?;
    for container in project.containers(instance)?.iter().filter(|container| container.is_kept()) {
        project.engine.stop(container)?;
    }
    Ok(())
}

/// What Docker's own health check says, where the image declares one. Err: what is not healthy, in words.
pub fn health(app: &App, instance: &Instance) -> Result<(), String> {
    let container = Project::of(app).and_then(|project| project.container(instance));
    let container = container.map_err(|error| format!("{error:#}"))?;
    match container.filter(|container| container.state.running) {
        Some(container) => container.state.health.map_or(Ok(()), |health| health.check()),
        None => Err("its container does not run".to_owned()),
    }
}

/// The same, when it is sure: neither a check that has not succeeded yet, nor a Docker that does not answer, says anything.
pub fn not_unhealthy(app: &App, instance: &Instance) -> Result<(), String> {
    let container = Project::of(app).and_then(|project| project.container(instance)).ok().flatten();
    let health = container.and_then(|container| container.state.health).filter(Health::is_unhealthy);
    health.map_or(Ok(()), |health| health.check())
}

/// An error of an instance's start that says where more of its output is: its container is gone as soon as it starts again.
pub fn with_output_kept(app: &App, instance: &Instance, error: Error) -> Error {
    let kept = || -> Result<PathBuf> {
        let release = source::release_of(app, instance)?.context("it has no release")?;
        let lines: String = last_lines(app, instance, KEPT_LINES)?.iter().map(|line| format!("{line}\n")).collect();
        if lines.is_empty() {
            bail!("it has printed nothing");
        }
        let path = app.build_log(&release);
        durable::write(&path, lines.as_bytes(), 0o640)?;
        Ok(path)
    };
    match kept() {
        Ok(path) => failure(exit_of(&error), format!("{error:#} (more of it: {})", path.display())),
        // There is enough to be told.
        Err(_) => error,
    }
}

/// The last `count` lines that an instance's container has printed, oldest first.
pub fn last_lines(app: &App, instance: &Instance, count: usize) -> Result<Vec<String>> {
    let project = Project::of(app)?;
    let container = project.container(instance)?;
    container.map_or_else(|| Ok(Vec::new()), |container| project.engine.last_lines(&container, count, UNIX_EPOCH))
}

/// The same of its present life only, or of the last one in which it printed anything: for errors, which quote a few.
pub fn last_lines_of_life(app: &App, instance: &Instance, count: usize) -> Result<Vec<String>> {
    let project = Project::of(app)?;
    let Some(container) = project.container(instance)? else { return Ok(Vec::new()) };
    let ends = project.engine.ends(&container)?;
    let begins = std::iter::once(UNIX_EPOCH).chain(ends.iter().map(|end| end.at));
    for begin in begins.rev() {
        let lines = project.engine.last_lines(&container, count, begin)?;
        if !lines.is_empty() {
            return Ok(lines);
        }
    }
    Ok(Vec::new())
}

/// Reads what an instance prints from now on, in one container after the other.
pub struct Follower {
    lines: Receiver<Result<String>>,
}

impl Follower {
    /// Begins `count` lines before the end.
    pub fn of(app: &App, instance: &Instance, count: usize) -> Result<Follower> {
        Project::of(app)?.engine.ping()?;
        let (app, instance) = (app.clone(), instance.clone());
        let (sender, lines) = channel();
        thread::spawn(move || {
            if let Err(error) = follow(&app, &instance, count, &sender) {
                let _ = sender.send(Err(error));
            }
        });
        Ok(Follower { lines })
    }

    /// The lines that have come since the last call.
    pub fn new_lines(&mut self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        loop {
            match self.lines.try_recv() {
                Ok(line) => lines.push(line?),
                Err(TryRecvError::Empty) => return Ok(lines),
                Err(TryRecvError::Disconnected) if !lines.is_empty() => return Ok(lines),
                Err(TryRecvError::Disconnected) => bail!("cannot follow: nobody reads the container's log any more"),
            }
        }
    }
}

/// Sends what an instance prints until nobody listens any more.
fn follow(app: &App, instance: &Instance, count: usize, sender: &Sender<Result<String>>) -> Result<()> {
    let project = Project::of(app)?;
    // The container that was read last, the moment of its last line, and how many lines had that moment.
    let mut read: Option<(String, String, usize)> = None;
    let mut first = true;
    loop {
        if let Some(container) = project.container(instance)? {
            let known = read.take().filter(|(id, ..)| *id == container.id);
            let since = known.as_ref().map(|(_, time, _)| time.as_str());
            let count = first.then_some(count);
            let (mut time, mut at_once) =
                known.as_ref().map_or((String::new(), 0), |(_, time, count)| (time.clone(), *count));
            let mut skipped = at_once;
            for line in project.engine.follow(&container, count, since)? {
                let Ok(line) = line else { break };
                if Some(line.time.as_str()) == since && skipped > 0 {
                    skipped -= 1;
                    continue;
                }
                at_once = if line.time == time { at_once + 1 } else { 1 };
                time = line.time;
                if sender.send(Ok(line.text)).is_err() {
                    return Ok(());
                }
            }
            read = Some((container.id, time, at_once)).filter(|(_, time, _)| !time.is_empty());
        }
        first = false;
        thread::sleep(NEXT);
    }
}
