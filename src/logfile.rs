//! Log files: a writer that rotates without losing a byte, their last lines, and following them across rotations.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

use crate::durable;

/// The size at which a file is rotated, in bytes.
pub const ROTATE_AT: u64 = 10 * 1000 * 1000;
/// How many rotated files are kept beside the current one.
pub const KEPT: u32 = 5;
/// How far past its limit a file may grow while it waits for the end of a line.
const LINE_SLACK: u64 = 64 * 1024;
/// How much of a file's end is read for its last lines.
const TAIL_BYTES: u64 = 256 * 1024;

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
            let notice = format!("\nsupervise: {} bytes of output lost: the log could not be written\n", self.lost);
            if self.write(notice.as_bytes()).is_ok() {
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

    /// Whether the last byte written ended a line.
    pub fn ends_line(&self) -> bool {
        self.ends_line
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
    let Some(mut file) = open_if_there(path)? else { return Ok(Vec::new()) };
    let cannot = || format!("cannot read {}", path.display());
    let size = file.metadata().with_context(cannot)?.len();
    lines_before(path, &mut file, size, count).with_context(cannot)
}

/// The last lines of what was appended to a log's present file behind `start`, a place in bytes.
pub fn last_lines_since(path: &Path, start: u64) -> Result<Vec<String>> {
    let Some(mut file) = open_if_there(path)? else { return Ok(Vec::new()) };
    let mut read = || -> Result<Vec<String>> {
        let end = file.metadata()?.len();
        let bytes = read_range(&mut file, start.max(end.saturating_sub(TAIL_BYTES)), end)?;
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

/// The last `count` lines that stand before `end` in a log's present file, or in the rotated ones before it.
fn lines_before(path: &Path, file: &mut File, end: u64, count: usize) -> Result<Vec<String>> {
    let mut lines: VecDeque<String> = last_lines_of(file, end, count)?.into();
    let present = file.metadata()?.ino();
    for number in 1..=KEPT {
        if lines.len() >= count {
            break;
        }
        let Some(mut older) = open_if_there(&rotated(path, number))? else { break };
        let meta = older.metadata()?;
        // The file that is being read may be rotated away meanwhile.
        if meta.ino() != present {
            let earlier = last_lines_of(&mut older, meta.len(), count - lines.len())?;
            earlier.into_iter().rev().for_each(|line| lines.push_front(line));
        }
    }
    Ok(lines.into())
}

fn last_lines_of(file: &mut File, end: u64, count: usize) -> Result<Vec<String>> {
    let mut wanted = TAIL_BYTES;
    loop {
        let start = end.saturating_sub(wanted);
        let bytes = read_range(file, start, end)?;
        let text = String::from_utf8_lossy(&bytes);
        // Unless the read began at the start of the file, its first line is the end of one.
        let lines: Vec<String> = text.lines().skip(usize::from(start > 0)).map(str::to_owned).collect();
        if start == 0 || lines.len() >= count {
            let skipped = lines.len().saturating_sub(count);
            return Ok(lines[skipped..].to_vec());
        }
        wanted *= 4;
    }
}

fn read_range(file: &mut File, start: u64, end: u64) -> Result<Vec<u8>> {
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(end - start).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Where a file's last whole line ends; 0 when it has none within the part that is looked at.
fn end_of_last_line(file: &mut File) -> Result<u64> {
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
    /// The last `count` whole lines of a log, and a follower that goes on right behind them: each line comes once, and
    /// whole. A log that does not exist yet is read from its beginning once it does.
    pub fn of(path: &Path, count: usize) -> Result<(Vec<String>, Follower)> {
        let mut follower = Follower { path: path.to_owned(), open: None, partial: Vec::new() };
        let Some(mut file) = open_if_there(path)? else { return Ok((Vec::new(), follower)) };
        let cannot = || format!("cannot read {}", path.display());
        let end = end_of_last_line(&mut file).with_context(cannot)?;
        let lines = lines_before(path, &mut file, end, count).with_context(cannot)?;
        file.seek(SeekFrom::Start(end)).with_context(cannot)?;
        follower.open = Some(BufReader::new(file));
        Ok((lines, follower))
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
