//! An instance's output in systemd's journal, read by journalctl(1) as root: what a service of an ordinary user has
//! written is not always that user's to read.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::systemd::Order;
use crate::app::{App, Instance};
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
    fn lines(&self) -> Vec<String> {
        let text = match &self.message {
            Some(Message::Text(text)) => text.into(),
            Some(Message::Bytes(bytes)) => String::from_utf8_lossy(bytes),
            Some(Message::Other(_)) | None => "".into(),
        };
        text.lines().map(str::to_owned).collect()
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
    fn complaint(mut self) -> Result<()> {
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

/// The newest entries that hold `count` lines, oldest first.
fn newest(app: &App, instance: &Instance, count: usize) -> Result<VecDeque<Entry>> {
    let mut reading = Reading::start(Order::Read, app, instance)?;
    let mut entries = VecDeque::new();
    let mut lines = 0;
    while lines < count {
        let Some(entry) = reading.next_in_time()? else {
            reading.complaint()?;
            break;
        };
        lines += entry.lines().len();
        entries.push_front(entry);
    }
    Ok(entries)
}

/// The last `count` lines that an instance printed, oldest first.
pub fn last_lines(app: &App, instance: &Instance, count: usize) -> Result<Vec<String>> {
    let entries = newest(app, instance, count)?;
    let lines: Vec<String> = entries.iter().flat_map(Entry::lines).collect();
    Ok(lines[lines.len().saturating_sub(count)..].to_vec())
}

/// Reads what an instance prints from now on.
pub struct Follower {
    lines: Receiver<Result<Vec<String>>>,
}

impl Follower {
    /// Begins `count` lines before the end: each line comes once.
    ///
    /// journalctl is asked to follow first, and tells the newest entry; what came before is read after that, so the entry
    /// that was the newest then comes by once more, and from there on all are new.
    pub fn of(app: &App, instance: &Instance, count: usize) -> Result<Follower> {
        let mut reading = Reading::start(Order::Follow, app, instance)?;
        let (app, instance) = (app.clone(), instance.clone());
        let (sender, lines) = channel();
        thread::spawn(move || {
            let mut begin = || -> Result<Option<Entry>> {
                let Some(mut entry) = reading.next()? else { return Ok(None) };
                let before = newest(&app, &instance, count.max(1))?;
                let known: Vec<String> = before.iter().flat_map(Entry::lines).collect();
                let _ = sender.send(Ok(known[known.len().saturating_sub(count)..].to_vec()));
                let last = before.back().map(|entry| entry.cursor.clone());
                while last.as_ref().is_some_and(|last| *last != entry.cursor) {
                    let Some(next) = reading.next()? else { return Ok(None) };
                    entry = next;
                }
                Ok(Some(entry))
            };
            let mut next = begin();
            while let Ok(Some(_)) = next {
                next = reading.next();
                if let Ok(Some(entry)) = &next
                    && sender.send(Ok(entry.lines())).is_err()
                {
                    return;
                }
            }
            let _ = sender.send(next.and_then(|_| reading.complaint()).map(|()| Vec::new()));
        });
        Ok(Follower { lines })
    }

    /// The lines that have come since the last call.
    pub fn new_lines(&mut self) -> Result<Vec<String>> {
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
