//! An instance's output in systemd's journal, read by journalctl(1) as root: what a service of an ordinary user has
//! written is not always that user's to read.
#![deny(clippy::arithmetic_side_effects)]

use std::io::{self, BufRead, BufReader, Read as _};
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel, sync_channel};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};

use super::output::PREFIX;
use super::systemd::Order;
use crate::app::{App, Instance};
use crate::logfile::{Choice, Line, OWN};
use crate::outcome::quote_first;
use crate::threads;

/// How long journalctl may take to find the next entry.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many lines of journalctl's are read before anybody wants them.
const AHEAD: usize = 256;

/// No clock is later than the end of the year 9999, and no time behind that can be printed.
const LATEST: Duration = Duration::from_secs(253_402_300_800);
/// How much of a field is read, in bytes; the rest of a longer one, which only the app itself can have written, is passed over.
const LONGEST_FIELD: u64 = 64 * 1024;
/// How many fields of an entry are read.
const MOST_FIELDS: usize = 256;

/// An entry, as journalctl exports it (systemd.io, Journal Export Formats).
struct Entry {
    cursor: String,
    /// Empty: whoever wrote it left it out.
    message: String,
    /// When the journal got it; None: that cannot be told.
    at: Option<SystemTime>,
    /// `shop@A`, or of one of several programs `shop@A.mail.0`; empty: none was given.
    identifier: String,
}

impl Entry {
    /// Reads an entry, most of which the app can choose. None: it makes no sense.
    fn understand(fields: &[(String, String)]) -> Option<Entry> {
        let all = |name: &str| -> Vec<&str> {
            fields.iter().filter(|(other, _)| other == name).map(|(_, value)| value.as_str()).collect()
        };
        let first = |name: &str| all(name).first().map(|value| (*value).to_owned());
        let micros = first("__REALTIME_TIMESTAMP").and_then(|micros| micros.parse().ok());
        let at = micros.and_then(|micros| SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(micros)));
        let at = at.filter(|at| at.duration_since(SystemTime::UNIX_EPOCH).is_ok_and(|since| since < LATEST));
        // Given more than once, each has a line here.
        let message = all("MESSAGE").join("\n");
        Some(Entry {
            cursor: first("__CURSOR")?,
            message,
            at,
            identifier: first("SYSLOG_IDENTIFIER").unwrap_or_default(),
        })
    }

    fn lines(&self, unit: &str) -> Vec<Line> {
        let at = self.at;
        let program = self.identifier.strip_prefix(unit).and_then(|rest| rest.strip_prefix('.'));
        let line = |text: &str| match (program, text.strip_prefix(PREFIX)) {
            (None, Some(said)) => Line { at, source: OWN.to_owned(), text: said.to_owned() },
            (program, _) => Line { at, source: program.unwrap_or_default().to_owned(), text: text.to_owned() },
        };
        self.message.lines().map(line).collect()
    }
}

/// A running journalctl.
struct Reading {
    child: Child,
    entries: Receiver<io::Result<Entry>>,
}

impl Reading {
    fn start(order: Order, app: &App, instance: &Instance) -> Result<Reading> {
        let mut child = order.command(app, instance)?.spawn().context("cannot run journalctl")?;
        let stdout = child.stdout.take().context("cannot read from journalctl")?;
        // Bounded: what nobody wants is not read, and journalctl ends when nobody reads any more.
        let (sender, entries) = sync_channel(AHEAD);
        let read = move || read_entries(BufReader::new(stdout), |entry| sender.send(entry).is_ok());
        // journalctl ends when nobody reads.
        threads::builder().and_then(|builder| builder.spawn(read)).context("cannot read from journalctl")?;
        Ok(Reading { child, entries })
    }

    /// The next entry, as soon as there is one; None: there will be no more.
    fn next(&mut self) -> Result<Option<Entry>> {
        self.entries.recv().ok().transpose().context("cannot read from journalctl")
    }

    /// The next entry of those that are there already, which journalctl should not take long for.
    fn next_in_time(&mut self) -> Result<Option<Entry>> {
        match self.entries.recv_timeout(PATIENCE) {
            Ok(entry) => entry.map(Some).context("cannot read from journalctl"),
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

/// Hands on each entry that is understood, until nobody wants more. The app can write what is not: it is skipped, and hides
/// no other.
fn read_entries(mut from: impl BufRead, mut wanted: impl FnMut(io::Result<Entry>) -> bool) {
    let mut fields = Vec::new();
    loop {
        match read_field(&mut from) {
            Ok(Read::Field(name, value)) if fields.len() < MOST_FIELDS => fields.push((name, value)),
            Ok(Read::Field(..)) => {}
            Ok(end @ (Read::EndOfEntry | Read::End)) => {
                if Entry::understand(&fields).is_some_and(|entry| !wanted(Ok(entry))) || matches!(end, Read::End) {
                    return;
                }
                fields.clear();
            }
            Err(error) => {
                wanted(Err(error));
                return;
            }
        }
    }
}

/// What comes next.
enum Read {
    /// A field with its value, what is not UTF-8 of it replaced.
    Field(String, String),
    EndOfEntry,
    End,
}

/// Reads a field: `NAME=value`, or, for a value that holds more than plain text, the name, its length in eight bytes, and itself.
fn read_field(from: &mut impl BufRead) -> io::Result<Read> {
    let mut line = Vec::new();
    from.by_ref().take(LONGEST_FIELD).read_until(b'\n', &mut line)?;
    let is_whole = line.pop_if(|last| *last == b'\n').is_some();
    let text = String::from_utf8_lossy(&line).into_owned();
    match (line.is_empty(), is_whole, text.split_once('=')) {
        (true, false, _) => Ok(Read::End),
        (true, true, _) => Ok(Read::EndOfEntry),
        (_, is_whole, Some((name, value))) => {
            if !is_whole {
                from.skip_until(b'\n')?;
            }
            Ok(Read::Field(name.to_owned(), value.to_owned()))
        }
        (_, false, None) => Err(io::ErrorKind::InvalidData.into()),
        (_, true, None) => {
            let mut length = [0; 8];
            from.read_exact(&mut length)?;
            let length = u64::from_le_bytes(length);
            let mut value = Vec::new();
            from.by_ref().take(length.min(LONGEST_FIELD)).read_to_end(&mut value)?;
            let rest = length.saturating_sub(LONGEST_FIELD).saturating_add(1);
            io::copy(&mut from.by_ref().take(rest), &mut io::sink())?;
            Ok(Read::Field(text, String::from_utf8_lossy(&value).into_owned()))
        }
    }
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
        let follower = threads::builder().and_then(|builder| {
            builder.spawn(move || {
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
            })
        });
        follower.context("cannot follow the journal")?;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// The lines of what journalctl prints.
    fn lines(exported: &[u8]) -> Vec<(String, String)> {
        let mut lines = Vec::new();
        read_entries(exported, |entry| {
            lines.extend(entry.unwrap().lines("shop@A").into_iter().map(|line| (line.source, line.text)));
            true
        });
        lines
    }

    /// A field of plain text.
    fn plain(name: &str, value: &str) -> Vec<u8> {
        format!("{name}={value}\n").into_bytes()
    }

    /// A field of any bytes.
    fn any(name: &str, value: &[u8]) -> Vec<u8> {
        [name.as_bytes(), b"\n", &(value.len() as u64).to_le_bytes(), value, b"\n"].concat()
    }

    /// An entry with these fields, which the app can choose.
    fn entry(fields: &[Vec<u8>]) -> Vec<u8> {
        let own = b"__CURSOR=s=1;i=2\n__REALTIME_TIMESTAMP=1795253400000000\n_PID=7\n".to_vec();
        [own, fields.concat(), b"\n".to_vec()].concat()
    }

    #[test]
    fn every_form_of_a_field_is_understood() {
        let line = |source: &str, text: &str| vec![(source.to_owned(), text.to_owned())];
        let name = |value: &str| plain("SYSLOG_IDENTIFIER", value);
        for (fields, expected) in [
            (vec![name("shop@A"), plain("MESSAGE", "hello")], line("", "hello")),
            (vec![name("shop@A.mail.0"), plain("MESSAGE", "hel=lo")], line("mail.0", "hel=lo")),
            (vec![name("shop@A"), any("MESSAGE", b"hi\xff")], line("", "hi\u{fffd}")),
            (vec![any("SYSLOG_IDENTIFIER", b"shop@A.\x1b"), plain("MESSAGE", "x")], line("\u{1b}", "x")),
            (vec![name("shop@A"), name("other"), plain("MESSAGE", "x")], line("", "x")),
            (vec![plain("MESSAGE", "x")], line("", "x")),
            (vec![name("shop@A"), plain("MESSAGE", "supervise: x")], line(OWN, "x")),
            (vec![plain("MESSAGE", "")], vec![]),
            (vec![any("MESSAGE", b"")], vec![]),
            (vec![], vec![]),
        ] {
            assert_eq!(lines(&entry(&fields)), expected, "{fields:?}");
        }
        let several = entry(&[plain("MESSAGE", "one"), any("MESSAGE", b"two\nthree"), any("MESSAGE", b"\n\n")]);
        let expected = ["one", "two", "three", "", ""].map(|text| line("", text)).concat();
        assert_eq!(lines(&several), expected);
    }

    #[test]
    fn an_entry_that_is_not_understood_hides_no_other() {
        let good = |text: &str| entry(&[plain("MESSAGE", text)]);
        let long = vec![b'x'; 50 * LONGEST_FIELD as usize];
        for (bad, shown) in [
            (b"\n\n".to_vec(), 0),
            (b"MESSAGE=no cursor\n\n".to_vec(), 0),
            (entry(&[any("MESSAGE", &long)]), 1),
            (entry(&[plain("MESSAGE", &String::from_utf8(long.clone()).unwrap())]), 1),
            (entry(&[any("X", &long), plain("MESSAGE", "x")]), 1),
            (entry(&vec![plain("MESSAGE", "x"); 10 * MOST_FIELDS]), MOST_FIELDS - 3),
            (entry(&[any("MESSAGE", b"__CURSOR=other\n\nMESSAGE=forged\n")]), 3),
        ] {
            let read = lines(&[good("before"), bad, good("after")].concat());
            let texts: Vec<&str> = read.iter().map(|(_, text)| text.as_str()).collect();
            assert_eq!((texts.first(), texts.last(), texts.len()), (Some(&"before"), Some(&"after"), shown + 2));
            assert!(texts.iter().all(|text| text.len() <= LONGEST_FIELD as usize));
        }
        // A time that no clock can have is none.
        for time in ["18446744073709551615", "-1", "x"] {
            let odd = format!("__CURSOR=s\n__REALTIME_TIMESTAMP={time}\nMESSAGE=x\n\n");
            assert_eq!(lines(odd.as_bytes()).len(), 1);
        }
    }

    #[test]
    fn what_is_cut_off_ends_the_reading() {
        let whole = entry(&[any("MESSAGE", b"one")]);
        for end in 1..whole.len() {
            let mut entries = 0;
            read_entries(whole.get(..end).unwrap(), |entry| {
                entries += usize::from(entry.is_ok());
                true
            });
            assert!(entries <= 1);
        }
    }
}
