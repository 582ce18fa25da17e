//! The `compose` runner: Docker runs an instance's container, and starts it again as the service's restart policy says.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Error, Result, anyhow, bail};

use super::{Life, MemberNote, POLL, RunBy};
use crate::app::{App, Instance, ReleaseId};
use crate::compose::Project;
use crate::deadline::Deadline;
use crate::docker::{self, Container, Health};
use crate::durable;
use crate::hooks::About;
use crate::logfile::{Choice, Line};
use crate::outcome::{exit_of, failure, usage};
use crate::process::{Pid, Process};
use crate::source::image::{self, Image, Present};
use crate::source::{self, Origin};
use crate::threads;

/// How many lines are kept of what a container printed that failed to start.
const KEPT_LINES: usize = 2000;
/// How long Docker may take to learn why a container was killed.
const KNOWN: Duration = Duration::from_secs(1);
/// How often it is asked whether an instance whose output is followed has a new container.
const NEXT: Duration = Duration::from_millis(200);

/// The present life of an instance; None: its container does not run, or there is none.
pub fn life(app: &App, instance: &Instance) -> Result<Option<Life>> {
    let project = Project::of_instance(app, instance)?;
    let Some(container) = project.container(instance)?.filter(Container::is_kept) else { return Ok(None) };
    let last_exit = if container.restart_count > 0 { last_exit(&project, &container)? } else { None };
    let itself = MemberNote {
        name: "0".to_owned(),
        port: Some(instance.port()),
        leash: None,
        restarts: container.restart_count,
        last_exit,
        last_exit_at: None,
        last_words: None,
        is_ending: false,
    };
    Ok(Some(Life { by: RunBy::Docker(container.id), members: vec![itself] }))
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
    let project = Project::of_instance(app, instance)?;
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
    let container = Project::of_instance(app, instance)?.container(instance)?;
    let pid = container.map(|container| container.state.pid).filter(|pid| *pid > 0);
    Ok(pid.and_then(|pid| Process::with_pid(Pid::from_raw(pid))))
}

/// What an instance's container holds of memory, in bytes; None: it does not run.
pub fn memory(app: &App, instance: &Instance) -> Result<Option<u64>> {
    let project = Project::of_instance(app, instance)?;
    let container = project.container(instance)?.filter(|container| container.state.running);
    container.map(|container| project.engine.memory(&container)).transpose().map(Option::flatten)
}

/// Whether an instance that runs has another image than its release. One without a release may run what it likes.
pub fn runs_another_release(app: &App, instance: &Instance) -> Result<bool> {
    let Some(release) = app.release_of(instance)? else { return Ok(false) };
    let Some(image) = image::of_release(app, &release)? else { return Ok(false) };
    let project = Project::of_instance(app, instance)?;
    let Some(container) = project.container(instance)?.filter(Container::is_kept) else { return Ok(false) };
    if container.image == image.id {
        return Ok(false);
    }
    let present = image::present(app, &project, &release, &image)?;
    Ok(present.is_none_or(|present| present.id != container.image))
}

/// Makes a release of what an instance runs that has none, because somebody else started it: the way back to it.
/// None: none was needed.
pub fn adopt(app: &App, instance: &Instance, deadline: Deadline) -> Result<Option<ReleaseId>> {
    if app.release_of(instance)?.is_some() {
        return Ok(None);
    }
    let project = Project::of_instance(app, instance)?;
    let Some(container) = project.container(instance)?.filter(Container::is_kept) else { return Ok(None) };
    let Some(image) = Image::of_container(&project, &container)? else { return Ok(None) };
    let release = source::make(app, &Origin::Image(image), false, &mut About::default(), deadline)?;
    source::assign(app, instance, &release)?;
    Ok(Some(release))
}

/// Has Compose make a container for an instance, which has none that runs, and start it.
pub fn start(app: &App, instance: &Instance, release: &ReleaseId, deadline: Deadline) -> Result<()> {
    let project = Project::of_instance(app, instance)?;
    let image = image::of_release(app, release)?;
    let image = image.ok_or_else(|| anyhow!("release {release} is no image; update-instance {instance} makes one"))?;
    let Present { name, id } = image::ensure(app, &project, release, &image, deadline)?;
    let present = project.containers(instance)?;
    let up = match present.as_slice() {
        // What it keeps in volumes without a name stays, as when Compose or Docker starts it.
        [container] if container.image == id => project.start(instance, &name, deadline),
        _ => remove(app, instance).and_then(|()| project.up(instance, &name, deadline)),
    };
    // What is wrong with what was made may be why it could not be started.
    let made = project.container(instance)?;
    made.as_ref().map_or(Ok(()), |container| is_as_configured(container, &project, instance, &image, &id))?;
    up?;
    made.map(drop).context("Compose made no container for it")
}

/// Whether a container is what the configuration says: the image, of which the engine's id is `id`, and the port.
fn is_as_configured(
    container: &Container,
    project: &Project,
    instance: &Instance,
    image: &Image,
    id: &str,
) -> Result<()> {
    let (port, here) = (instance.port(), container.name.trim_start_matches('/'));
    if container.image != id {
        let (wanted, written) = (&image.reference, project.settings.image_as_written());
        let remedy = format!("{written} should be its image in the Compose file");
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
    let engine = Project::of_instance(app, instance)?.engine;
    for container in all_containers(app, instance)? {
        // Nobody else names an image by both its tag and its digest, by its id, or by a tag of ours.
        let image = &container.config.image;
        let is_ours = image.starts_with("sha256:")
            || image.contains("@sha256:")
            || image.contains(&format!(":{}", image::own_tag(app)));
        // Volumes go in the same step, so that one killed in between leaves none that nobody knows; but for those that
        // Compose handed on from an older container, which are the engine's no more.
        engine.remove(&container, is_ours)?;
        if is_ours {
            container.volumes_without_name().try_for_each(|volume| engine.remove_volume(volume))?;
        }
    }
    Ok(())
}

/// Ends an instance's containers, each within its own grace period. They stay until the next start, for what they have
/// printed.
pub fn stop(app: &App, instance: &Instance) -> Result<()> {
    let engine = Project::of_instance(app, instance)?.engine;
    for container in all_containers(app, instance)?.iter().filter(|container| container.is_kept()) {
        engine.stop(container)?;
    }
    Ok(())
}

/// The containers of an instance by the settings of each of its releases, and by those of config.toml: where `[compose]` has
/// changed, one may be left that those of the present release do not find, and that has its name or its port. None is the other
/// instance's.
fn all_containers(app: &App, instance: &Instance) -> Result<Vec<Container>> {
    let present = Project::of_instance(app, instance)?;
    let mut found = present.containers(instance)?;
    let mut looked = vec![present];
    for before in app.as_ever_run(instance) {
        let project = Project::of(&before)?;
        if !looked.iter().any(|other| other.settings.is_run_like(&project.settings)) {
            found.extend(project.containers(instance)?);
            looked.push(project);
        }
    }
    let other = app.other(instance);
    let others = if looked.len() > 1 { Project::of_instance(app, other)?.containers(other)? } else { Vec::new() };
    found.retain(|container| others.iter().all(|other| other.id != container.id));
    found.sort_by(|one, other| one.id.cmp(&other.id));
    found.dedup_by(|one, other| one.id == other.id);
    Ok(found)
}

/// What Docker's own health check says, where the image declares one. Err: what is not healthy, in words.
pub fn health(app: &App, instance: &Instance) -> Result<(), String> {
    let container = Project::of_instance(app, instance).and_then(|project| project.container(instance));
    let container = container.map_err(|error| format!("{error:#}"))?;
    match container.filter(|container| container.state.running) {
        Some(container) => container.state.health.map_or(Ok(()), |health| health.check()),
        None => Err("its container does not run".to_owned()),
    }
}

/// The same, when it is sure: neither a check that has not succeeded yet, nor a Docker that does not answer, says anything.
pub fn not_unhealthy(app: &App, instance: &Instance) -> Result<(), String> {
    let container = Project::of_instance(app, instance).and_then(|project| project.container(instance)).ok().flatten();
    let health = container.and_then(|container| container.state.health).filter(Health::is_unhealthy);
    health.map_or(Ok(()), |health| health.check())
}

/// An error of an instance's start that says where more of its output is: its container is gone as soon as it starts again.
pub fn with_output_kept(app: &App, instance: &Instance, error: Error) -> Error {
    let kept = || -> Result<PathBuf> {
        let release = app.release_of(instance)?.context("it has no release")?;
        let lines = lines(app, instance, &Choice::last(KEPT_LINES))?;
        let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
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

/// The wanted ones of the lines that an instance's container has printed, oldest first.
pub fn lines(app: &App, instance: &Instance, choice: &Choice) -> Result<Vec<Line>> {
    let project = Project::of_instance(app, instance)?;
    let container = project.container(instance)?;
    container.map_or_else(|| Ok(Vec::new()), |container| Ok(printed(&project, &container, choice)?.0))
}

/// The wanted ones of a container's lines, and how far they reach.
fn printed(project: &Project, container: &Container, choice: &Choice) -> Result<(Vec<Line>, Mark)> {
    let mut mark = Mark { id: container.id.clone(), since: choice.since.map(rfc3339), at_once: 0 };
    // One at least, which tells where to go on.
    let most = choice.most.filter(|_| choice.pattern.is_none()).map(|most| most.max(1));
    let mut kept = VecDeque::new();
    for line in project.engine.printed(container, most, choice.since.unwrap_or(UNIX_EPOCH))?.map_while(Result::ok) {
        mark.reach(&line);
        kept.extend(Some(dated(line)).filter(|line| choice.fits(line)));
        if kept.len() > choice.most.unwrap_or(usize::MAX) {
            kept.pop_front();
        }
    }
    Ok((kept.into(), mark))
}

fn rfc3339(moment: SystemTime) -> String {
    humantime::format_rfc3339_nanos(moment).to_string()
}

/// A line as other logs hold it: of which program it is, Docker does not tell.
fn dated(line: docker::Line) -> Line {
    Line { at: humantime::parse_rfc3339(&line.time).ok(), source: String::new(), text: line.text }
}

/// The last `count` lines of a container's present life only, or of the last one in which it printed anything: for errors,
/// which quote a few.
pub fn last_lines_of_life(app: &App, instance: &Instance, count: usize) -> Result<Vec<String>> {
    let project = Project::of_instance(app, instance)?;
    let Some(container) = project.container(instance)? else { return Ok(Vec::new()) };
    let ends = project.engine.ends(&container)?;
    let begins = std::iter::once(UNIX_EPOCH).chain(ends.iter().map(|end| end.at));
    for begin in begins.rev() {
        let lines = project.engine.printed(&container, Some(count), begin)?.map_while(Result::ok);
        let lines: Vec<String> = lines.map(|line| line.text).collect();
        if !lines.is_empty() {
            return Ok(lines);
        }
    }
    Ok(Vec::new())
}

/// How far a container's output was read.
struct Mark {
    /// The container.
    id: String,
    /// The moment of the last line that was read, or from which on lines are wanted; None: nothing was read.
    since: Option<String>,
    /// How many lines of that moment were read.
    at_once: usize,
}

impl Mark {
    fn reach(&mut self, line: &docker::Line) {
        if line.time.is_empty() {
            return;
        }
        let is_as_before = self.since.as_ref() == Some(&line.time);
        self.at_once = if is_as_before { self.at_once + 1 } else { 1 };
        self.since = Some(line.time.clone());
    }
}

/// Reads what an instance prints from now on, in one container after the other.
pub struct Follower {
    lines: Receiver<Result<Line>>,
}

impl Follower {
    /// The wanted ones of the lines so far, and what goes on right behind them.
    pub fn of(app: &App, instance: &Instance, choice: &Choice) -> Result<(Vec<Line>, Follower)> {
        let project = Project::of_instance(app, instance)?;
        project.engine.ping()?;
        let begun = project.container(instance)?.map(|container| printed(&project, &container, choice)).transpose()?;
        let (known, mark) = begun.unzip();
        let (app, instance) = (app.clone(), instance.clone());
        let (sender, lines) = channel();
        let follower = threads::builder().and_then(|builder| {
            builder.spawn(move || {
                if let Err(error) = follow(&app, &instance, mark, &sender) {
                    let _ = sender.send(Err(error));
                }
            })
        });
        follower.context("cannot follow the container's log")?;
        Ok((known.unwrap_or_default(), Follower { lines }))
    }

    /// The lines that have come since the last call.
    pub fn new_lines(&mut self) -> Result<Vec<Line>> {
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

/// Sends what an instance prints behind a mark until nobody listens any more.
fn follow(app: &App, instance: &Instance, mut mark: Option<Mark>, sender: &Sender<Result<Line>>) -> Result<()> {
    let project = Project::of_instance(app, instance)?;
    loop {
        if let Some(container) = project.container(instance)? {
            let known = mark.take().filter(|mark| mark.id == container.id);
            let mut reached = known.unwrap_or(Mark { id: container.id.clone(), since: None, at_once: 0 });
            let (since, mut known) = (reached.since.clone(), reached.at_once);
            for line in project.engine.follow(&container, since.as_deref())?.map_while(Result::ok) {
                if since.as_ref() == Some(&line.time) && known > 0 {
                    known -= 1;
                    continue;
                }
                reached.reach(&line);
                if sender.send(Ok(dated(line))).is_err() {
                    return Ok(());
                }
            }
            mark = Some(reached);
        }
        thread::sleep(NEXT);
    }
}
