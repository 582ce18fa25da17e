//! What `status` shows: nginx's view, and both instances, asked at the same time.

use std::fmt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use serde::Serialize;

use crate::app::{Activity, App, Instance, Port, ReleaseId};
use crate::runner::State;
use crate::{nginx, output, process, push, runner, source};

/// How long an instance may take to answer before it is shown as silent.
const PATIENCE: Duration = Duration::from_secs(2);

/// Everything at one glance. What is not known is null, never missing.
#[derive(Debug, Serialize)]
pub struct Overview {
    app: String,
    /// The instance that the link names.
    enabled: Option<String>,
    /// What nginx says it uses; None when it does not answer.
    nginx: Option<String>,
    /// Why nginx does not answer.
    nginx_error: Option<String>,
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
    /// `enabled` or `disabled`.
    proxy: &'static str,
    healthy: bool,
    /// `healthy`, or what was wrong.
    health: String,
    /// How long the health check took; None when it failed.
    health_milliseconds: Option<f64>,
    pid: Option<i32>,
    uptime_seconds: Option<u64>,
    memory_bytes: Option<u64>,
    restarts: Option<u64>,
    last_exit: Option<String>,
}

impl Overview {
    /// Asks nginx and both instances, all at once: a hung one costs its own patience, not that of all.
    pub fn of(app: &App) -> Result<Overview> {
        let enabled = nginx::enabled(app)?;
        let [first, second] = &app.config.instances;
        let (said, first, second) = thread::scope(|scope| {
            let said = scope.spawn(|| nginx::asked(app));
            let first = scope.spawn(|| View::of(app, first, enabled));
            let second = scope.spawn(|| View::of(app, second, enabled));
            (said.join(), first.join(), second.join())
        });
        let panicked = |_| anyhow!("cannot look at everything: a look ended early");
        let said = said.map_err(panicked)?;
        Ok(Overview {
            app: app.name().to_owned(),
            enabled: enabled.map(Instance::to_string),
            nginx_error: said.as_ref().err().map(|error| format!("{error:#}")),
            nginx: said.ok(),
            change: app.activity()?.map(Change::of),
            queued: push::queued(app)?.map(|push| Queued { seconds: push.seconds(), what: push.what }),
            instances: vec![first.map_err(panicked)??, second.map_err(panicked)??],
        })
    }

    /// A table for people: a column for each instance, and below it what does not fit together.
    pub fn table(&self) -> String {
        let mut rows = vec![self.row(&self.app, |view| view.name.clone())];
        rows.push(self.row("port", |view| view.port.to_string()));
        rows.push(self.row("path", |view| or_dash(view.path.as_ref().map(|path| path.display()))));
        rows.push(self.row("release", |view| or_dash(view.release.as_ref())));
        rows.push(self.row("version", |view| or_dash(view.version.as_ref())));
        rows.push(self.row("proxy", |view| view.proxy.to_owned()));
        rows.push(self.row("health", |view| view.health.clone()));
        rows.push(self.row("pid", |view| or_dash(view.pid)));
        rows.push(self.row("uptime", |view| or_dash(view.uptime_seconds.map(output::age))));
        rows.push(self.row("memory", |view| or_dash(view.memory_bytes.map(output::bytes))));
        rows.push(self.row("restarts", View::restarts));
        let mut text = output::table(&rows);
        if let Some(change) = &self.change {
            text += &format!("\n{change}\n");
        }
        if let Some(Queued { what, seconds }) = &self.queued {
            text += &format!("\n{what} waits for its deploy, since {}\n", output::age(*seconds));
        }
        if let Some(error) = &self.nginx_error {
            text += &format!("\n{error}\n");
        } else if self.enabled.is_some() && self.nginx != self.enabled {
            let (link, said) = (or_dash(self.enabled.as_ref()), or_dash(self.nginx.as_ref()));
            text += &format!("\n{link} is enabled, but nginx uses {said}; connect-to-nginx {link} finds out why\n");
        }
        text
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
        let release = source::release_of(app, instance)?;
        let state = runner::state(app, instance);
        let began = Instant::now();
        let (state, health) = match state {
            Ok(state) if state.listens => (state, runner::healthy(app, instance, PATIENCE)),
            Ok(state) => (state, Err("does not listen".to_owned())),
            // Docker does not answer, say: then this is what there is to be seen.
            Err(error) => (State::default(), Err(format!("{error:#}"))),
        };
        let took = began.elapsed();
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
            pid: state.pid.map(|process| process.pid.raw()),
            uptime_seconds: state.pid.and_then(|process| process.uptime()).map(|age| age.as_secs()),
            memory_bytes: state.memory,
            restarts: state.restarts,
            last_exit: state.last_exit,
        })
    }

    fn restarts(&self) -> String {
        match (self.restarts, &self.last_exit) {
            (Some(count), Some(exit)) => format!("{count} (last: {exit})"),
            (count, _) => or_dash(count),
        }
    }
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}
