//! Log files: a writer that rotates without losing a byte, their last lines, and following them across rotations.

mod backwards;
mod choice;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

use crate::durable;

use backwards::read_range;

pub use backwards::Backwards;
pub use choice::{Choice, is_or_is_one_of};

/// The size at which a file is rotated, in bytes.
pub const ROTATE_AT: u64 = 10 * 1000 * 1000;
/// How many rotated files are kept beside the current one.
pub const KEPT: u32 = 5;
/// How far past its limit a file may grow while it waits for the end of a line.
const LINE_SLACK: u64 = 64 * 1024;
/// How much of a file's end is read for its last lines.
const TAIL_BYTES: u64 = 256 * 1024;

/// The source of supervise's own lines.
pub const OWN: &str = "supervise";
/// How long a time in a log is: `2026-11-21T09:30:00.000Z`.
const STAMP_LENGTH: usize = 24;
/// How many lines a follower hands out at once.
const AT_ONCE: usize = 4096;

/// Appends to a log file and rotates it. Nothing is flushed: a power cut may cost the last seconds of a log, and an app
/// that prints much must not wait for the disk.
pub struct Writer {
    path: PathBuf,
    file: File,
    size: u64,
    ends_line: bool,
    lost: u64,
}

impl Writer {
    /// Opens the log for appending.
    pub fn open(path: &Path) -> Result<Writer> {
        let (file, size) = append(path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Writer { path: path.to_owned(), file, size, ends_line: true, lost: 0 })
    }

    /// Appends these bytes as they are. Never fails: the app must not stand still because a disk is full. What could not
    /// be written is counted, and told in the log as soon as there is room.
    pub fn append(&mut self, bytes: &[u8]) {
        if self.lost > 0 {
            let notice = format!("{} bytes of output lost: the log could not be written", self.lost);
            let mut line = b"\n".to_vec();
            Line::write(&mut line, OWN, notice.as_bytes());
            if self.write(&line).is_ok() {
                self.lost = 0;
            }
        }
        let mut written = 0;
        while written < bytes.len() {
            match self.write(&bytes[written..]) {
                Ok(count) => written += count,
                Err(_) => {
                    self.lost += (bytes.len() - written) as u64;
                    return;
                }
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.size >= ROTATE_AT && (self.ends_line || self.size >= ROTATE_AT + LINE_SLACK) {
            self.rotate()?;
        }
        let count = self.file.write(bytes)?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.size += count as u64;
        self.ends_line = bytes[count - 1] == b'\n';
        Ok(count)
    }

    fn rotate(&mut self) -> io::Result<()> {
        rotate(&self.path)?;
        (self.file, self.size) = append(&self.path)?;
        Ok(())
    }
}

/// A line of a log: when it was written, the name of what has written it, and the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When; None: nobody has noted that.
    pub at: Option<SystemTime>,
    /// By what: `supervise`, `0`, `mail.0`; empty when nobody has noted that.
    pub source: String,
    /// What it says. Bytes that are not UTF-8 become U+FFFD.
    pub text: String,
}

impl fmt::Display for Line {
    /// The text; supervise's own after its name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source.as_str() {
            OWN => write!(f, "{OWN}: {}", self.text),
            _ => f.write_str(&self.text),
        }
    }
}

impl Line {
    /// A line as a log file holds it.
    pub fn parse(line: &str) -> Line {
        let noted = line.split_once(' ').and_then(|(at, rest)| {
            let at = humantime::parse_rfc3339(at).ok().filter(|_| at.len() == STAMP_LENGTH)?;
            let (source, text) = rest.split_once(' ')?;
            Some(Line { at: Some(at), source: source.to_owned(), text: text.to_owned() })
        });
        noted.unwrap_or_else(|| Line { at: None, source: String::new(), text: line.to_owned() })
    }

    /// The name of the program that it is of: the one that printed it, or that supervise says something about. Empty: of
    /// none in particular.
    pub fn program(&self) -> &str {
        match self.source.as_str() {
            OWN => self.text.split_once(": ").map_or("", |(program, _)| program),
            source => source,
        }
    }

    /// Puts a line, written now, behind others.
    pub fn write(into: &mut Vec<u8>, source: &str, text: &[u8]) {
        // Memory does not refuse.
        let _ = write!(into, "{} {source} ", humantime::format_rfc3339_millis(SystemTime::now()));
        into.extend_from_slice(text);
        into.push(b'\n');
    }
}

/// Gives a log's present file, and those before it, the next higher number.
fn rotate(path: &Path) -> io::Result<()> {
    for number in (1..KEPT).rev() {
        match fs::rename(rotated(path, number), rotated(path, number + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    match fs::rename(path, rotated(path, 1)) {
        // Somebody else has just done it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        renamed => renamed,
    }
}

/// Opens a log for a program that is about to write to it directly; it is rotated before that when it is large.
pub fn open(path: &Path) -> Result<File> {
    let open = || {
        let (file, size) = append(path)?;
        if size < ROTATE_AT {
            return Ok(file);
        }
        rotate(path)?;
        append(path).map(|(file, _)| file)
    };
    open().with_context(|| format!("cannot open {}", path.display()))
}

/// The same, and says first when and for what.
pub fn open_for(path: &Path, what: &str) -> Result<File> {
    let mut file = open(path)?;
    let now = humantime::format_rfc3339_seconds(SystemTime::now());
    let said = file.write_all(format!("--- {now} {what}\n").as_bytes());
    said.with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file)
}

fn append(path: &Path) -> io::Result<(File, u64)> {
    let file = durable::open_log(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

fn rotated(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// The last `count` lines of a log, oldest first, reaching back into rotated files; bytes that are not UTF-8 become
/// U+FFFD. Empty when there is no log yet.
pub fn last_lines(path: &Path, count: usize) -> Result<Vec<String>> {
    let mut lines = Backwards::of(path)?.take(count).collect::<Result<Vec<String>>>()?;
    lines.reverse();
    Ok(lines)
}

/// The last lines of what was appended to a log's present file behind `start`, a place in bytes.
pub fn last_lines_since(path: &Path, start: u64) -> Result<Vec<String>> {
    let Some(file) = open_if_there(path)? else { return Ok(Vec::new()) };
    let read = || -> Result<Vec<String>> {
        let end = file.metadata()?.len();
        let bytes = read_range(&file, start.max(end.saturating_sub(TAIL_BYTES)), end)?;
        Ok(String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect())
    };
    read().with_context(|| format!("cannot read {}", path.display()))
}

fn open_if_there(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some).with_context(|| format!("cannot open {}", path.display())),
    }
}

/// Where a file's last whole line ends; 0 when it has none within the part that is looked at.
fn end_of_last_line(file: &File) -> Result<u64> {
    let size = file.metadata()?.len();
    let start = size.saturating_sub(TAIL_BYTES);
    let bytes = read_range(file, start, size)?;
    let newline = bytes.iter().rposition(|byte| *byte == b'\n');
    Ok(newline.map_or(start, |at| start + at as u64 + 1))
}

/// Reads what is appended to a log from now on, across its rotations.
pub struct Follower {
    path: PathBuf,
    open: Option<BufReader<File>>,
    partial: Vec<u8>,
}

impl Follower {
    /// The whole lines of a log, and a follower that goes on right behind them: each line comes once, and whole. A log that
    /// does not exist yet is read from its beginning once it does.
    pub fn of(path: &Path) -> Result<(Backwards, Follower)> {
        let mut follower = Follower::from_beginning(path);
        let Some(mut file) = open_if_there(path)? else {
            return Ok((Backwards::of_files(path, Vec::new()), follower));
        };
        let cannot = || format!("cannot read {}", path.display());
        let end = end_of_last_line(&file).with_context(cannot)?;
        file.seek(SeekFrom::Start(end)).with_context(cannot)?;
        let lines = Backwards::before(path, file.try_clone().with_context(cannot)?, end)?;
        follower.open = Some(BufReader::new(file));
        Ok((lines, follower))
    }

    /// A follower that begins at the beginning of a log's present file, once there is one.
    pub fn from_beginning(path: &Path) -> Follower {
        Follower { path: path.to_owned(), open: None, partial: Vec::new() }
    }

    /// The whole lines that have come since the last call; of very many, the first few thousand, the rest next time.
    pub fn new_lines(&mut self) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        while self.read_on(&mut lines)? {
            let Some(successor) = self.successor() else { break };
            // The writer never writes to a file that it has renamed away: what is read now is the old file's end.
            if self.read_on(&mut lines)? {
                self.open = Some(BufReader::new(successor));
            }
        }
        Ok(lines)
    }

    /// Reads lines until there is no more, or enough. True: there is no more.
    fn read_on(&mut self, lines: &mut Vec<String>) -> Result<bool> {
        let Some(reader) = &mut self.open else { return Ok(true) };
        while lines.len() < AT_ONCE {
            let count = reader.read_until(b'\n', &mut self.partial);
            if count.with_context(|| format!("cannot read {}", self.path.display()))? == 0 {
                return Ok(true);
            }
            if self.partial.ends_with(b"\n") {
                lines.push(String::from_utf8_lossy(&self.partial).trim_end_matches('\n').to_owned());
                self.partial.clear();
            }
        }
        Ok(false)
    }

    /// The file that has taken the log's name since; None when it is still the one being read.
    fn successor(&self) -> Option<File> {
        let file = File::open(&self.path).ok()?;
        let new = file.metadata().ok()?;
        let old = self.open.as_ref().and_then(|reader| reader.get_ref().metadata().ok());
        let same = old.is_some_and(|old| old.ino() == new.ino() && old.dev() == new.dev());
        (!same).then_some(file)
    }
}
