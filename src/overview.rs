//! What `status` shows: nginx's view, and both instances, asked at the same time.

pub mod live;

use std::fmt;
use std::path::PathBuf;
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use serde::Serialize;

use crate::app::{Activity, App, Instance, Port, ReleaseId};
use crate::harmless::harmless_line;
use crate::process::Process;
use crate::runner::{Program, State};
use crate::threads;
use crate::{nginx, output, process, push, runner, source};

/// How long an instance may take to answer before it is shown as silent.
const PATIENCE: Duration = Duration::from_secs(2);

/// Everything at one glance. What is not known is null, never missing.
#[derive(Debug, Serialize)]
pub struct Overview {
    app: String,
    /// The instance that the link names; None: none, or it cannot be read.
    enabled: Option<String>,
    /// What keeps nginx from seeing the link, or us.
    state_error: Option<String>,
    /// What nginx says it uses; None when it does not answer.
    nginx: Option<String>,
    /// Why nginx does not answer.
    nginx_error: Option<String>,
    /// What nginx has not heard of that is configured.
    #[serde(skip)]
    nginx_lacks: Option<String>,
    /// Whether the other instance answers in the place of the enabled one.
    #[serde(skip)]
    is_away: bool,
    /// What is being changed now, or was when a tool was killed.
    change: Option<Change>,
    /// The last push that waits for its deploy, or whose deploy is under way; None: none does.
    queued: Option<Queued>,
    instances: Vec<View>,
}

/// A push in the queue.
#[derive(Debug, Serialize)]
struct Queued {
    /// Which, and by whom: `push of 1a2b3c4d5e6f by alice`.
    what: String,
    /// How long ago it came.
    seconds: u64,
}

/// A change under way, or one that was interrupted.
#[derive(Debug, Serialize)]
struct Change {
    tool: String,
    doing: String,
    /// Who is doing it; None: it was interrupted.
    pid: Option<i32>,
    /// How long ago this step began.
    seconds: u64,
}

/// One instance.
#[derive(Debug, Serialize)]
struct View {
    name: String,
    port: Port,
    /// Where its release lies.
    path: Option<PathBuf>,
    release: Option<ReleaseId>,
    /// The commit it was made from, shortened, or the tag of its image.
    version: Option<String>,
    /// `enabled` or `disabled`; `unknown` when the link cannot be read.
    proxy: &'static str,
    healthy: bool,
    /// `healthy`, or what was wrong.
    health: String,
    /// How long the health check took; None when it failed.
    health_milliseconds: Option<f64>,
    /// That of the first process.
    pid: Option<i32>,
    /// That of the first process.
    uptime_seconds: Option<u64>,
    /// Of all its programs together.
    memory_bytes: Option<u64>,
    /// Of all its programs together.
    restarts: Option<u64>,
    /// How one of its programs ended last.
    last_exit: Option<String>,
    /// When that was, in seconds since 1970.
    last_exit_at: Option<u64>,
    /// Whether an upgrade has replaced the program of its supervise since that was started; None: no supervise keeps it.
    supervise_replaced: Option<bool>,
    processes: Vec<ProgramView>,
    workers: Vec<ProgramView>,
}

/// One program of an instance.
#[derive(Debug, Serialize)]
struct ProgramView {
    /// `0`, or of a worker `mail.0`.
    name: String,
    /// None: it is a worker.
    port: Option<Port>,
    pid: Option<i32>,
    uptime_seconds: Option<u64>,
    memory_bytes: Option<u64>,
    /// It means something only beside an earlier one.
    #[serde(skip)]
    processor_time: Option<Duration>,
    restarts: Option<u64>,
    last_exit: Option<String>,
    last_exit_at: Option<u64>,
}

/// A look at one thing, beside others.
enum Look<'scope, T> {
    UnderWay(ScopedJoinHandle<'scope, T>),
    /// There was no thread to be had for it.
    Over(T),
}

impl<'scope, T: Send + 'scope> Look<'scope, T> {
    fn begin<'env>(scope: &'scope Scope<'scope, 'env>, look: impl FnOnce() -> T + Copy + Send + 'scope) -> Self {
        threads::builder()
            .and_then(|builder| builder.spawn_scoped(scope, look))
            .map_or_else(|_| Look::Over(look()), Look::UnderWay)
    }

    fn end(self) -> thread::Result<T> {
        match self {
            Look::UnderWay(thread) => thread.join(),
            Look::Over(seen) => Ok(seen),
        }
    }
}

impl Overview {
    /// Asks nginx and both instances, all at once: a hung one costs its own patience, not that of all.
    pub fn of(app: &App) -> Result<Overview> {
        let (link, state_error) = (nginx::enabled(app), nginx::blindness(app));
        let is_known = link.is_ok();
        // Where a closed directory is why, everything else can be shown.
        let enabled = if state_error.is_some() { link.unwrap_or_default() } else { link? };
        let [first, second] = &app.config.instances;
        let (said, first, second) = thread::scope(|scope| {
            let said = Look::begin(scope, || nginx::ask(app));
            let first = Look::begin(scope, || View::of(app, first, enabled));
            let second = Look::begin(scope, || View::of(app, second, enabled));
            (said.end(), first.end(), second.end())
        });
        let panicked = |_| anyhow!("cannot look at everything: a look ended early");
        let said = said.map_err(panicked)?;
        Ok(Overview {
            app: app.name().to_owned(),
            enabled: enabled.map(Instance::to_string),
            state_error,
            nginx_error: said.as_ref().err().map(|error| format!("{error:#}")),
            nginx_lacks: said.as_ref().ok().and_then(|answer| answer.lacks(app)),
            is_away: said.as_ref().is_ok_and(|answer| answer.knows_of_absence())
                && enabled.is_some_and(|enabled| nginx::is_away(app, enabled)),
            nginx: said.ok().map(|answer| answer.instance),
            change: app.activity()?.map(Change::of),
            queued: push::queued(app)?.map(|push| Queued { seconds: push.seconds(), what: push.what }),
            instances: [first, second]
                .into_iter()
                .map(|view| {
                    let view = view.map_err(panicked)??;
                    Ok(if is_known { view } else { View { proxy: "unknown", ..view } })
                })
                .collect::<Result<_>>()?,
        })
    }

    /// A table for people: a column for each instance, and below it what does not fit together.
    pub fn table(&self) -> String {
        let mut rows = vec![self.row(&self.app, |view| view.name.clone())];
        rows.push(self.row("port", View::ports));
        rows.push(self.row("path", |view| or_dash(view.path.as_ref().map(|path| path.display()))));
        rows.push(self.row("release", |view| or_dash(view.release.as_ref())));
        rows.push(self.row("version", |view| or_dash(view.version.as_ref())));
        rows.push(self.row("proxy", |view| view.proxy.to_owned()));
        rows.push(self.row("health", |view| view.health.clone()));
        rows.push(self.row("pid", |view| view.of_each(|process| process.pid)));
        rows.push(self.row("uptime", |view| or_dash(view.uptime_seconds.map(output::age))));
        rows.push(self.row("memory", |view| or_dash(view.memory_bytes.map(output::bytes))));
        rows.push(self.row("restarts", |view| restarts(view.restarts, view.last_exit.as_ref(), view.last_exit_at)));
        for name in self.worker_names() {
            rows.push(self.row(name, |view| view.worker(name)));
        }
        let remarks: String = self.remarks().iter().map(|remark| format!("\n{}\n", harmless_line(remark))).collect();
        output::table(&rows) + &remarks
    }

    /// What is being changed, and what does not fit together.
    fn remarks(&self) -> Vec<String> {
        let mut remarks: Vec<String> = self.change.iter().map(Change::to_string).collect();
        if let Some(Queued { what, seconds }) = &self.queued {
            remarks.push(format!("{what} waits for its deploy, since {}", output::age(*seconds)));
        }
        remarks.extend(self.state_error.clone());
        if let Some(error) = &self.nginx_error {
            remarks.push(error.clone());
        } else if self.enabled.is_some() && self.nginx != self.enabled {
            let (link, said) = (or_dash(self.enabled.as_ref()), or_dash(self.nginx.as_ref()));
            remarks.push(format!("{link} is enabled, but nginx uses {said}; connect-to-nginx {link} finds out why"));
        }
        if let Some(enabled) = self.enabled.as_ref().filter(|_| self.is_away) {
            let until =
                format!("until {enabled} is healthy after its next start; connect-to-nginx {enabled} ends it at once");
            remarks.push(format!("{enabled} was about to stop, so the other instance answers in its place, {until}"));
        }
        remarks.extend(self.nginx_lacks.clone());
        let outdated = self.instances.iter().filter(|view| view.supervise_replaced == Some(true));
        remarks.extend(outdated.map(|view| {
            let remedy = "its next start, as by a deploy, takes the new one";
            format!("{} still runs under the supervise from before an upgrade; {remedy}", view.name)
        }));
        remarks
    }

    /// The names of all workers, of either instance.
    fn worker_names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for worker in self.instances.iter().flat_map(|view| &view.workers) {
            if !names.contains(&worker.name.as_str()) {
                names.push(&worker.name);
            }
        }
        names
    }

    fn row(&self, heading: &str, value: impl Fn(&View) -> String) -> Vec<String> {
        std::iter::once(heading.to_owned()).chain(self.instances.iter().map(value)).collect()
    }
}

impl Change {
    fn of(activity: Activity) -> Change {
        let (pid, doing) = match activity {
            Activity::UnderWay(pid, doing) => (Some(pid.raw()), doing),
            Activity::Interrupted(doing) => (None, doing),
        };
        Change { tool: doing.tool, doing: doing.what, pid, seconds: process::unix_now().saturating_sub(doing.since) }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Change { tool, doing, seconds, .. } = self;
        let age = output::age(*seconds);
        match self.pid {
            Some(pid) => write!(f, "{tool} (pid {pid}) is {doing}, since {age}"),
            None => write!(f, "{tool} was interrupted while {doing}, {age} ago; {tool} again finishes that"),
        }
    }
}

impl View {
    fn of(app: &App, instance: &Instance, enabled: Option<&Instance>) -> Result<View> {
        let release = app.release_of(instance)?;
        let state = runner::state(app, instance);
        let began = Instant::now();
        let (state, health) = match state {
            Ok(state) if state.listens => (state, runner::healthy(app, instance, PATIENCE)),
            Ok(state) => (state, Err("does not listen".to_owned())),
            // Docker does not answer, say: then this is what there is to be seen.
            Err(error) => (State::default(), Err(format!("{error:#}"))),
        };
        let took = began.elapsed();
        let programs = || state.processes.iter().chain(&state.workers);
        let last = programs().filter(|program| program.last_exit.is_some()).max_by_key(|program| program.last_exit_at);
        let first = state.processes.first().map(ProgramView::of);
        let is_another = health.is_ok() && runner::runs_another_release(app, instance).unwrap_or(false);
        Ok(View {
            name: instance.to_string(),
            port: instance.port(),
            path: release.as_ref().map(|release| app.release(release)),
            version: release.as_ref().map(|release| source::version(app, release)),
            release,
            proxy: if enabled == Some(instance) { "enabled" } else { "disabled" },
            healthy: health.is_ok(),
            health_milliseconds: health.is_ok().then(|| (took.as_secs_f64() * 1e5).round() / 100.0),
            health: match health {
                Err(seen) => seen,
                Ok(()) if is_another => "healthy, but not its release".to_owned(),
                Ok(()) => "healthy".to_owned(),
            },
            pid: first.as_ref().and_then(|first| first.pid),
            uptime_seconds: first.and_then(|first| first.uptime_seconds),
            memory_bytes: sum(programs().map(|program| program.memory)),
            restarts: sum(programs().map(|program| program.restarts)),
            last_exit: last.and_then(|last| last.last_exit.clone()),
            last_exit_at: last.and_then(|last| last.last_exit_at),
            supervise_replaced: runner::is_supervise_replaced(app, instance).ok().flatten(),
            processes: state.processes.iter().map(ProgramView::of).collect(),
            workers: state.workers.iter().map(ProgramView::of).collect(),
        })
    }

    fn ports(&self) -> String {
        if self.processes.is_empty() { self.port.to_string() } else { self.of_each(|process| process.port) }
    }

    /// Something of each process, in one cell.
    fn of_each<T: ToString>(&self, value: impl Fn(&ProgramView) -> Option<T>) -> String {
        let values: Vec<String> = self.processes.iter().map(|process| or_dash(value(process))).collect();
        match values.iter().all(|value| value == "-") {
            true => "-".to_owned(),
            false => values.join(" "),
        }
    }

    /// How a worker fares, in one cell.
    fn worker(&self, name: &str) -> String {
        let Some(worker) = self.workers.iter().find(|worker| worker.name == name) else { return "-".to_owned() };
        let is_new = |count: &u64| *count > 0;
        let restarted = worker.restarts.filter(is_new).map(|count| {
            format!(", restarts {}", restarts(Some(count), worker.last_exit.as_ref(), worker.last_exit_at))
        });
        match worker.pid {
            Some(pid) => {
                format!(
                    "pid {pid}, {}{}",
                    or_dash(worker.memory_bytes.map(output::bytes)),
                    restarted.unwrap_or_default()
                )
            }
            None => format!("down{}", restarted.unwrap_or_default()),
        }
    }
}

impl ProgramView {
    fn of(program: &Program) -> ProgramView {
        ProgramView {
            name: program.name.clone(),
            port: program.port,
            pid: program.process.map(|process| process.pid.raw()),
            uptime_seconds: program.process.and_then(Process::uptime).map(|age| age.as_secs()),
            memory_bytes: program.memory,
            processor_time: program.processor_time,
            restarts: program.restarts,
            last_exit: program.last_exit.clone(),
            last_exit_at: program.last_exit_at,
        }
    }
}

/// The sum of what is known; None: nothing is.
fn sum(values: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    values.flatten().reduce(u64::saturating_add)
}

/// How often something was restarted, how it ended last, and when.
fn restarts(count: Option<u64>, last: Option<&String>, at: Option<u64>) -> String {
    let ago = at.map(|at| format!(", {} ago", output::age(process::unix_now().saturating_sub(at))));
    match (count, last) {
        (Some(count), Some(exit)) => format!("{count} (last: {exit}{})", ago.unwrap_or_default()),
        (count, _) => or_dash(count),
    }
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
