//! Log files: a writer that rotates and loses nothing of what it has written, their last lines, and following them across
//! rotations.
#![deny(clippy::arithmetic_side_effects)]

mod backwards;
mod choice;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};

use crate::bounded::{self, Links};
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
/// How much a file grows until a rotation is tried again that the disk has refused, in bytes.
const RETRY_AFTER: u64 = 1000 * 1000;
/// How many things are moved aside that were in the place of a log.
const MOST_ASIDE: u32 = 100;
/// How much of a file's end is read for its last lines.
const TAIL_BYTES: u64 = 256 * 1024;

/// The source of supervise's own lines.
pub const OWN: &str = "supervise";
/// How long a time in a log is: `2026-11-21T09:30:00.000Z`.
const STAMP_LENGTH: usize = 24;
/// How much of a line is read at once, in bytes: a program that has written a file without a line's end does not fill our
/// memory with it. What is longer comes as several lines.
const LONGEST_LINE: usize = 1024 * 1024;
/// How many lines a follower hands out at once.
const AT_ONCE: usize = 4096;

/// Appends to a log file and rotates it. Nothing is flushed: a power cut may cost the last seconds of a log, and an app
/// that prints much must not wait for the disk.
///
/// What is written once is not lost by what the disk refuses later: the files before are moved only when the next one is there.
/// A log that somebody has moved, deleted or emptied is noticed before the next line.
pub struct Writer {
    path: PathBuf,
    /// None: the disk has no room for one yet.
    file: Option<File>,
    size: u64,
    /// The size at which the next rotation is tried.
    rotate_at: u64,
    ends_line: bool,
    lost: Lost,
}

/// What could not be written.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Lost {
    lines: u64,
    bytes: u64,
}

impl Writer {
    /// Opens the log for appending. A disk that has no room for it now may have some later.
    pub fn open(path: &Path) -> Result<Writer> {
        let (file, size) = match take_place(path) {
            Ok((file, size)) => (Some(file), size),
            Err(error) if is_about_room(&error) => (None, 0),
            Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
        };
        Ok(Writer { path: path.to_owned(), file, size, rotate_at: ROTATE_AT, ends_line: true, lost: Lost::default() })
    }

    /// Appends these bytes as they are. Never fails: the app must not stand still because a disk is full. What could not
    /// be written is counted, and told in the log as soon as there is room.
    pub fn append(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        self.find();
        if self.lost != Lost::default() {
            let Lost { lines, bytes } = self.lost;
            let notice = format!("{lines} lines of output lost ({bytes} bytes): the log could not be written");
            let mut line = if self.ends_line { Vec::new() } else { b"\n".to_vec() };
            Line::write(&mut line, OWN, notice.as_bytes());
            if self.write_all(&line) == line.len() {
                self.lost = Lost::default();
            }
        }
        let written = self.write_all(bytes);
        let lost = bytes.get(written..).unwrap_or_default();
        if !lost.is_empty() {
            let whole = lost.iter().filter(|byte| **byte == b'\n').count() as u64;
            let cut = u64::from(!lost.ends_with(b"\n"));
            let lines = self.lost.lines.saturating_add(whole).saturating_add(cut);
            self.lost = Lost { lines, bytes: self.lost.bytes.saturating_add(lost.len() as u64) };
        }
    }

    /// Makes sure that what is written next goes to the file that has the log's name.
    fn find(&mut self) {
        let own = self.file.as_ref().and_then(|file| file.metadata().ok());
        let named = fs::symlink_metadata(&self.path).ok();
        if let (Some(own), Some(named)) = (&own, &named)
            && is_same(own, named)
        {
            // Somebody may have emptied it.
            self.size = named.len();
            return;
        }
        if own.is_some_and(|own| own.nlink() == 0) {
            // Nobody will read it, and what it holds of the disk may be what the next one needs.
            self.file = None;
        }
        // Where there is no room for another file, the present one is better than none.
        if let Ok((file, size)) = take_place(&self.path) {
            (self.file, self.size, self.rotate_at, self.ends_line) = (Some(file), size, ROTATE_AT, true);
        }
    }

    /// Returns how much of it was written.
    fn write_all(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            match self.write(bytes.get(written..).unwrap_or_default()) {
                Ok(count) => written = written.saturating_add(count),
                Err(_) => break,
            }
        }
        written
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.size >= self.rotate_at && (self.ends_line || self.size >= self.rotate_at.saturating_add(LINE_SLACK)) {
            match rotate(&self.path, bytes).and_then(|()| append(&self.path)) {
                Ok((file, size)) if size < ROTATE_AT => {
                    (self.file, self.size, self.rotate_at) = (Some(file), size, ROTATE_AT);
                    self.ends_line = bytes.ends_with(b"\n");
                    return Ok(bytes.len());
                }
                // The present file goes on, and it is tried again when it has grown.
                _ => self.rotate_at = self.size.saturating_add(RETRY_AFTER),
            }
        }
        let file = self.file.as_mut().ok_or(io::ErrorKind::StorageFull)?;
        let count = file.write(bytes)?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.size = self.size.saturating_add(count as u64);
        self.ends_line = bytes.get(..count).is_some_and(|written| written.ends_with(b"\n"));
        Ok(count)
    }
}

/// Opens a log for appending. What is in its place and no file (a directory, a link, a pipe) is moved aside, so that the app
/// can start, and its output is where it is looked for.
fn take_place(path: &Path) -> io::Result<(File, u64)> {
    let stands_there = fs::symlink_metadata(path).is_ok_and(|meta| !meta.is_file());
    if stands_there {
        let free = (1..=MOST_ASIDE).map(|number| aside(path, number)).find(|name| fs::symlink_metadata(name).is_err());
        fs::rename(path, free.ok_or(io::ErrorKind::AlreadyExists)?)?;
    }
    append(path)
}

/// Whether these describe one file.
fn is_same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Whether the disk has no room, or none for this user, or takes nothing at all.
fn is_about_room(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | ReadOnlyFilesystem)
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

/// Gives a log's present file, and those before it, the next higher number, and its name to one that begins with these bytes.
/// When the disk has no file or no room for them, nothing is moved. Nor while another process is rotating, which is an error
/// too: the present file goes on.
fn rotate(path: &Path, begin: &[u8]) -> io::Result<()> {
    let present = File::open(path)?;
    let _turn = Flock::lock(present.try_clone()?, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error)?;
    // Another one may have just done it.
    if !is_same(&present.metadata()?, &fs::symlink_metadata(path)?) {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    let next = next(path);
    durable::remove_if_there(&next)?;
    let mut begun = OpenOptions::new().write(true).create_new(true).mode(durable::LOG_MODE).open(&next)?;
    begun.write_all(begin).inspect_err(|_| drop(fs::remove_file(&next)))?;
    // A directory that somebody has put in such a place keeps it.
    let mut places = (1..=KEPT).map(|number| rotated(path, number)).filter(|place| !place.is_dir());
    let Some(first) = places.next() else { return Err(io::ErrorKind::IsADirectory.into()) };
    let places: Vec<PathBuf> = std::iter::once(first.clone()).chain(places).collect();
    for pair in places.windows(2).rev() {
        let [from, to] = pair else { continue };
        match fs::rename(from, to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(path, &first)?;
    fs::rename(&next, path).inspect_err(|_| {
        let _ = fs::rename(&first, path);
    })
}

/// Opens a log for a program that is about to write to it directly; it is rotated before that when it is large.
pub fn open(path: &Path) -> Result<File> {
    let open = || -> io::Result<File> {
        let (file, size) = take_place(path)?;
        if size < ROTATE_AT {
            return Ok(file);
        }
        // A large file is better than none.
        Ok(rotate(path, b"").and_then(|()| append(path)).map_or(file, |(next, _)| next))
    };
    open().with_context(|| format!("cannot open {}", path.display()))
}

/// Opens an instance's log for what its supervise cannot write into it itself.
pub fn open_beside_writer(path: &Path) -> Result<File> {
    take_place(path).map(|(file, _)| file).with_context(|| format!("cannot open {}", path.display()))
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
    with_suffix(path, &number.to_string())
}

/// Where the next file of a log waits for its name.
fn next(path: &Path) -> PathBuf {
    with_suffix(path, "next")
}

/// What is called so was in the place of a log.
fn aside(path: &Path, number: u32) -> PathBuf {
    with_suffix(path, &format!("aside.{number}"))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{suffix}"));
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
    match bounded::open(path, Links::Refused) {
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
    Ok(newline.map_or(start, |at| start.saturating_add(at as u64).saturating_add(1)))
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
            let room = LONGEST_LINE.saturating_sub(self.partial.len()) as u64;
            let count = reader.take(room).read_until(b'\n', &mut self.partial);
            let is_cut = self.partial.len() >= LONGEST_LINE;
            if count.with_context(|| format!("cannot read {}", self.path.display()))? == 0 && !is_cut {
                return Ok(true);
            }
            if self.partial.ends_with(b"\n") || is_cut {
                lines.push(String::from_utf8_lossy(&self.partial).trim_end_matches('\n').to_owned());
                self.partial.clear();
            }
        }
        Ok(false)
    }

    /// The file that has taken the log's name since; None when it is still the one being read.
    fn successor(&self) -> Option<File> {
        let file = bounded::open(&self.path, Links::Refused).ok()?;
        let new = file.metadata().ok()?;
        let old = self.open.as_ref().and_then(|reader| reader.get_ref().metadata().ok());
        let same = old.is_some_and(|old| is_same(&old, &new));
        (!same).then_some(file)
    }
}
