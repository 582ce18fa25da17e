//! What was seen at one moment, and how things went from one moment to the next.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::super::{Overview, ProgramView, View};
use super::bars::Trace;
use crate::app::App;
use crate::history::{self, Past};
use crate::nginx::{self, Traffic};
use crate::process::{self, End};

/// How many of the last deploys are shown.
const DEPLOYS: usize = 5;
/// What nginx is asked at each look, which nobody wants to see counted.
const OWN_QUESTIONS: u64 = 2;

/// How often connections are counted: for that the kernel looks through all those that are open, or were closed a moment
/// ago, and those are many on a busy server.
const COUNTING: Duration = Duration::from_secs(5);

/// The connections to each instance as they were counted last; None: they could not be.
#[derive(Default)]
pub struct Counted {
    at: Option<Instant>,
    connections: Vec<Option<usize>>,
}

impl Counted {
    fn now(&mut self, views: &[View]) -> Vec<Option<usize>> {
        if self.at.is_none_or(|at| at.elapsed() >= COUNTING) {
            self.at = Some(Instant::now());
            self.connections = views.iter().map(View::connections).collect();
        }
        self.connections.clone()
    }
}

/// What was seen at one moment.
pub struct Sample {
    pub overview: Overview,
    /// The connections to each instance; None: they could not be counted.
    pub connections: Vec<Option<usize>>,
    /// What nginx counts; Err: why it does not.
    pub traffic: Result<Traffic, String>,
    /// The last changes, the latest first.
    pub deploys: Vec<Past>,
    /// When that was.
    pub at: Instant,
    /// The same in seconds since 1970.
    pub unix: u64,
}

impl Sample {
    /// Looks at everything.
    pub fn take(app: &App, counted: &mut Counted) -> Result<Sample> {
        let at = Instant::now();
        let overview = Overview::of(app)?;
        Ok(Sample {
            connections: counted.now(&overview.instances),
            overview,
            traffic: nginx::traffic(app).map_err(|error| format!("{error:#}")),
            deploys: history::past(app, DEPLOYS)?,
            at,
            unix: process::unix_now(),
        })
    }
}

impl View {
    /// How many connections its processes have open, those that wait for another request among them.
    fn connections(&self) -> Option<usize> {
        let ports = self.processes.iter().filter_map(|process| process.port);
        ports.map(|port| process::connections(port.number(), End::Server).ok()).sum()
    }
}

/// How a program went.
#[derive(Clone, Default)]
pub struct Traces {
    /// Percent of a processor.
    pub processor: Trace,
    /// Bytes.
    pub memory: Trace,
    before: Option<(i32, Duration)>,
}

impl Traces {
    fn add(&mut self, program: &ProgramView, elapsed: Duration) {
        let now = program.pid.zip(program.processor_time);
        // Another process has begun at nothing. What a process's children used that have just left it is not its own any more.
        let used = now.zip(self.before).filter(|((pid, _), (before, _))| pid == before);
        let used = used.map(|((_, now), (_, before))| now.saturating_sub(before).as_secs_f64());
        self.processor.add(used.map(|seconds| seconds / elapsed.as_secs_f64() * 100.0));
        self.memory.add(program.memory_bytes.map(|bytes| bytes as f64));
        self.before = now;
    }
}

/// What is seen, and how it went before.
pub struct Course {
    /// The app's name.
    pub app: String,
    /// Whether nginx serves other sites too, for all that is known.
    pub shares_nginx: bool,
    /// None: nothing was seen yet.
    pub last: Option<Sample>,
    /// Requests per second.
    pub requests: Trace,
    traces: HashMap<(String, String), Traces>,
}

impl Course {
    /// Nothing was seen yet.
    pub fn new(app: &str, shares_nginx: bool) -> Course {
        Course { app: app.to_owned(), shares_nginx, last: None, requests: Trace::default(), traces: HashMap::new() }
    }

    /// Adds what was seen last.
    pub fn add(&mut self, sample: Sample) {
        let elapsed = self.last.as_ref().map_or(Duration::ZERO, |last| sample.at.duration_since(last.at));
        let before = self.last.as_ref().and_then(|last| last.traffic.as_ref().ok());
        let rate = before.zip(sample.traffic.as_ref().ok()).and_then(|(before, now)| {
            // An nginx that was started again counts from nothing.
            let requests = now.requests.checked_sub(before.requests)?;
            Some(requests.saturating_sub(OWN_QUESTIONS) as f64 / elapsed.as_secs_f64())
        });
        self.requests.add(rate);
        let mut earlier = std::mem::take(&mut self.traces);
        for view in &sample.overview.instances {
            for program in view.processes.iter().chain(&view.workers) {
                let key = (view.name.clone(), program.name.clone());
                let mut traces = earlier.remove(&key).unwrap_or_default();
                traces.add(program, elapsed);
                self.traces.insert(key, traces);
            }
        }
        self.last = Some(sample);
    }

    /// How a program of an instance went.
    pub fn traces(&self, instance: &str, program: &str) -> Traces {
        self.traces.get(&(instance.to_owned(), program.to_owned())).cloned().unwrap_or_default()
    }
}
