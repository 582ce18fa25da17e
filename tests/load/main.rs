//! The `load` command: a load on a web server, for a duration or until its stdin ends, and a
//! line of figures for each step of whatever happens meanwhile.
#![allow(clippy::disallowed_methods, clippy::indexing_slicing)]

#[path = "mod.rs"]
mod load;
#[cfg(test)]
mod selftest;

use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use serde_json::json;

use load::{Load, Plan, Report};

/// Put a load on a web server and count the requests it loses
///
/// Exits 0 when every request was answered rightly, and 1 when one was lost or none was made.
#[derive(Parser)]
#[command(name = "load")]
struct Arguments {
    /// The address and port of the server
    #[arg(long)]
    target: SocketAddr,
    /// The Host header [default: the target]
    #[arg(long)]
    host: Option<String>,
    /// What the GETs ask for; the POSTs go to /echo
    #[arg(long, default_value = "/")]
    path: String,
    /// Connections used again and again
    #[arg(long, default_value_t = 16)]
    kept_alive: usize,
    /// Connections made anew for each request
    #[arg(long, default_value_t = 4)]
    fresh: usize,
    /// How many of a hundred requests are POSTs
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u8).range(0..=100))]
    post_share: u8,
    /// The pause between two requests of a connection; 0s for none
    #[arg(long, default_value = "2ms", value_parser = duration)]
    pace: Duration,
    /// How long a request may take
    #[arg(long, default_value = "10s", value_parser = duration)]
    timeout: Duration,
    /// How long to go on
    #[arg(long, default_value = "5s", value_parser = duration)]
    duration: Duration,
    /// Go on until stdin ends; a line on it is a label, answered with the figures since the last
    #[arg(long, conflicts_with = "duration")]
    until_eof: bool,
    /// Print the figures as JSON, an object on a line
    #[arg(long)]
    json: bool,
    /// Print a line on stderr this often
    #[arg(long, value_parser = duration)]
    every: Option<Duration>,
}

/// What can happen while the load runs.
enum Event {
    Label(String),
    Progress,
    End,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let events = Events::of(&arguments);
    let load = Load::start(Plan {
        host: arguments.host.unwrap_or_else(|| arguments.target.to_string()),
        path: arguments.path,
        kept_alive: arguments.kept_alive,
        fresh: arguments.fresh,
        post_share: arguments.post_share,
        pace: Some(arguments.pace).filter(|pause| !pause.is_zero()),
        timeout: arguments.timeout,
        target: arguments.target,
    });

    let mut last = Report::default();
    for event in events {
        match event {
            Event::Label(label) => {
                let report = load.settled();
                print(&label, &report.since(&last), arguments.json)?;
                last = report;
            }
            Event::Progress => {
                let report = load.snapshot();
                note(&format!("{:.1} s: {report}", report.elapsed.as_secs_f64()));
            }
            Event::End => break,
        }
    }

    let total = load.stop();
    for failure in total.quoted() {
        note(&failure);
    }
    print("total", &total, arguments.json)?;
    let right = total.failed() == 0 && total.requests > 0;
    Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Says something on stderr; nobody needs to be there to hear it.
fn note(words: &str) {
    let _ = writeln!(io::stderr(), "load: {words}");
}

fn print(label: &str, report: &Report, json: bool) -> Result<()> {
    let mut out = io::stdout().lock();
    let written = if json {
        writeln!(out, "{}", json!({ "label": label, "report": report.to_json() }))
    } else {
        writeln!(out, "{label}: {report}")
    };
    written.context("cannot write the figures")
}

/// The labels from stdin, the ticks of the progress and the end, in the order of time.
struct Events {
    labels: Option<Receiver<String>>,
    every: Option<Duration>,
    next_progress: Option<Instant>,
    end: Option<Instant>,
}

impl Events {
    fn of(arguments: &Arguments) -> Events {
        let now = Instant::now();
        Events {
            labels: arguments.until_eof.then(lines_of_stdin),
            every: arguments.every,
            next_progress: arguments.every.map(|every| now + every),
            end: (!arguments.until_eof).then(|| now + arguments.duration),
        }
    }

    /// Waits for a label until `until`, or for ever.
    fn wait(&self, until: Option<Instant>) -> Result<String, RecvTimeoutError> {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        match (&self.labels, left) {
            (Some(labels), Some(left)) => labels.recv_timeout(left),
            (Some(labels), None) => labels.recv().map_err(|_| RecvTimeoutError::Disconnected),
            (None, left) => {
                thread::sleep(left.unwrap_or_default());
                Err(RecvTimeoutError::Timeout)
            }
        }
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        let next = [self.next_progress, self.end].into_iter().flatten().min();
        Some(match self.wait(next) {
            Ok(label) => Event::Label(label),
            Err(RecvTimeoutError::Disconnected) => Event::End,
            Err(RecvTimeoutError::Timeout) if next == self.end => Event::End,
            Err(RecvTimeoutError::Timeout) => {
                self.next_progress = next.zip(self.every).map(|(at, every)| at + every);
                Event::Progress
            }
        })
    }
}

/// The lines of stdin as they come; the channel is disconnected when they end.
fn lines_of_stdin() -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// A duration as people write it: `500us`, `2ms`, `5s`, `1m`.
fn duration(text: &str) -> Result<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit());
    let (count, unit) = text.split_at(digits.unwrap_or(text.len()));
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => bail!("a duration is a number with us, ms, s or m"),
    };
    let count: u32 = count.parse().context("a duration begins with a number")?;
    Ok(Duration::from_secs_f64(f64::from(count) * seconds))
}
