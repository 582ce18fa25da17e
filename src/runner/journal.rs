//! An instance's output in systemd's journal, read by journalctl(1) as root: what a service of an ordinary user has
//! written is not always that user's to read.

use std::io::{self, BufRead, BufReader, Read};
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::output::PREFIX;
use super::systemd::Order;
use crate::app::{App, Instance};
use crate::logfile::{Choice, Line, OWN};
use crate::outcome::quote_first;

/// How long journalctl may take to find the next entry.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many lines of journalctl's are read before anybody wants them.
const AHEAD: usize = 256;

/// An entry, as journalctl prints it in JSON.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "__CURSOR")]
    cursor: String,
    /// None: whoever wrote it left it out.
    #[serde(rename = "MESSAGE", default)]
    message: Option<Message>,
    /// When the journal got it, in microseconds since 1970.
    #[serde(rename = "__REALTIME_TIMESTAMP", default)]
    at: Option<String>,
    /// `shop@A`, or of one of several programs `shop@A.mail.0`.
    #[serde(rename = "SYSLOG_IDENTIFIER", default)]
    identifier: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Message {
    Text(String),
    /// What is not UTF-8 comes as its bytes.
    Bytes(Vec<u8>),
    Other(serde::de::IgnoredAny),
}

impl Entry {
    fn lines(&self, unit: &str) -> Vec<Line> {
        let text = match &self.message {
            Some(Message::Text(text)) => text.into(),
            Some(Message::Bytes(bytes)) => String::from_utf8_lossy(bytes),
            Some(Message::Other(_)) | None => "".into(),
        };
        let at = self.at.as_deref().and_then(|at| at.parse().ok());
        let at = at.map(|micros| SystemTime::UNIX_EPOCH + Duration::from_micros(micros));
        let program =
            self.identifier.as_deref().and_then(|identifier| identifier.strip_prefix(unit)?.strip_prefix('.'));
        let line = |text: &str| match (program, text.strip_prefix(PREFIX)) {
            (None, Some(said)) => Line { at, source: OWN.to_owned(), text: said.to_owned() },
            (program, _) => Line { at, source: program.unwrap_or_default().to_owned(), text: text.to_owned() },
        };
        text.lines().map(line).collect()
    }
}

/// A running journalctl.
struct Reading {
    child: Child,
    lines: Receiver<io::Result<String>>,
}

impl Reading {
    fn start(order: Order, app: &App, instance: &Instance) -> Result<Reading> {
        let mut child = order.command(app, instance)?.spawn().context("cannot run journalctl")?;
        let stdout = child.stdout.take().context("cannot read from journalctl")?;
        // Bounded: what nobody wants is not read, and journalctl ends when nobody reads any more.
        let (sender, lines) = sync_channel(AHEAD);
        thread::spawn(move || BufReader::new(stdout).lines().all(|line| sender.send(line).is_ok()));
        Ok(Reading { child, lines })
    }

    /// The next entry, as soon as there is one; None: there will be no more.
    fn next(&mut self) -> Result<Option<Entry>> {
        self.lines.recv().ok().map(understand).transpose()
    }

    /// The next entry of those that are there already, which journalctl should not take long for.
    fn next_in_time(&mut self) -> Result<Option<Entry>> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => understand(line).map(Some),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => bail!("cannot read the journal: journalctl does not answer"),
        }
    }

    /// What it complained about, now that it has ended.
    fn complaint(&mut self) -> Result<()> {
        let mut said = String::new();
        if let Some(mut stderr) = self.child.stderr.take() {
            stderr.read_to_string(&mut said).context("cannot read from journalctl")?;
        }
        match self.child.wait().context("cannot wait for journalctl")?.success() {
            true => Ok(()),
            false => bail!("cannot read the journal: {}", quote_first(said.lines(), 1)),
        }
    }
}

fn understand(line: io::Result<String>) -> Result<Entry> {
    serde_json::from_str(&line.context("cannot read from journalctl")?).context("cannot understand journalctl")
}

/// The wanted ones of the lines that an instance printed, oldest first, and where the newest entry stands; None: there is
/// none.
fn read(app: &App, instance: &Instance, choice: &Choice) -> Result<(Vec<Line>, Option<String>)> {
    let mut reading = Reading::start(Order::Read, app, instance)?;
    let unit = app.journal_identifier(instance);
    let Some(newest) = reading.next_in_time()? else { return reading.complaint().map(|()| (Vec::new(), None)) };
    let mut ready = newest.lines(&unit);
    let lines = std::iter::from_fn(|| {
        while ready.is_empty() {
            match reading.next_in_time() {
                Ok(Some(entry)) => ready = entry.lines(&unit),
                Ok(None) => return reading.complaint().err().map(Err),
                Err(error) => return Some(Err(error)),
            }
        }
        ready.pop().map(Ok)
    });
    Ok((choice.of_newest_first(lines)?, Some(newest.cursor)))
}

/// The wanted ones of the lines that an instance printed, oldest first.
pub fn lines(app: &App, instance: &Instance, choice: &Choice) -> Result<Vec<Line>> {
    read(app, instance, choice).map(|(lines, _)| lines)
}

/// The wanted ones of the lines so far. What is followed goes on behind them.
fn begin(following: &mut Reading, app: &App, instance: &Instance, choice: &Choice) -> Result<Vec<Line>> {
    let mut entry = following.next()?;
    let (lines, last) = read(app, instance, choice)?;
    while entry.is_some_and(|entry| last.as_ref().is_some_and(|last| *last != entry.cursor)) {
        entry = following.next()?;
    }
    Ok(lines)
}

/// Reads what an instance prints from now on.
pub struct Follower {
    lines: Receiver<Result<Vec<Line>>>,
}

impl Follower {
    /// The wanted ones of the lines so far, and what goes on right behind them: each line comes once.
    ///
    /// journalctl is asked to follow first, and tells the newest entry; what came before is read after that, so the entry
    /// that was the newest then comes by once more, and from there on all are new. Where there is no entry yet, the first one
    /// is waited for.
    pub fn of(app: &App, instance: &Instance, choice: &Choice) -> Result<(Vec<Line>, Follower)> {
        let mut reading = Reading::start(Order::Follow, app, instance)?;
        let (sender, lines) = channel();
        let (_, newest) = read(app, instance, &Choice::last(0))?;
        let known = newest.map(|_| begin(&mut reading, app, instance, choice)).transpose()?;
        let (app, instance, has_begun) = (app.clone(), instance.clone(), known.is_some());
        thread::spawn(move || {
            let mut go_on = || -> Result<()> {
                if !has_begun {
                    let _ = sender.send(Ok(begin(&mut reading, &app, &instance, &Choice::default())?));
                }
                let unit = app.journal_identifier(&instance);
                while let Some(entry) = reading.next()? {
                    if sender.send(Ok(entry.lines(&unit))).is_err() {
                        return Ok(());
                    }
                }
                reading.complaint()
            };
            if let Err(error) = go_on() {
                let _ = sender.send(Err(error));
            }
        });
        Ok((known.unwrap_or_default(), Follower { lines }))
    }

    /// The lines that have come since the last call.
    pub fn new_lines(&mut self) -> Result<Vec<Line>> {
        let mut lines = Vec::new();
        loop {
            match self.lines.try_recv() {
                Ok(more) => lines.extend(more?),
                Err(TryRecvError::Empty) => return Ok(lines),
                Err(TryRecvError::Disconnected) if !lines.is_empty() => return Ok(lines),
                Err(TryRecvError::Disconnected) => bail!("cannot follow the journal: journalctl has ended"),
            }
        }
    }
}
