//! A log from its end towards its beginning: who wants the last lines of a large one need not read the rest.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{KEPT, LONGEST_LINE, open_if_there, rotated};

/// How much is read at once, in bytes.
const CHUNK: u64 = 256 * 1024;

/// How much of a log is read at the most, in bytes: all that rotation leaves of one, and what can be held in memory.
const MOST: u64 = 64 * 1024 * 1024;

/// The lines of a log, the newest first, reaching back into rotated files. Bytes that are not UTF-8 become U+FFFD.
pub struct Backwards {
    path: PathBuf,
    /// What is still to be read, the next one last: a file, and where that part of it ends.
    files: Vec<(File, u64)>,
    /// Lines that were read, the next one last.
    ready: Vec<String>,
    /// The end of a line whose beginning was not read yet.
    rest: Vec<u8>,
    /// How much may still be read, in bytes.
    left: u64,
}

impl Backwards {
    /// The lines of a log; none when it does not exist.
    pub fn of(path: &Path) -> Result<Backwards> {
        match open_if_there(path)? {
            Some(file) => {
                let end = file.metadata().with_context(|| format!("cannot read {}", path.display()))?.len();
                Backwards::before(path, file, end)
            }
            None => Ok(Backwards::of_files(path, Vec::new())),
        }
    }

    pub(super) fn of_files(path: &Path, files: Vec<(File, u64)>) -> Backwards {
        Backwards { path: path.to_owned(), files, ready: Vec::new(), rest: Vec::new(), left: MOST }
    }

    /// The lines that stand before `end` in a log's present file, and those in the rotated ones before it.
    pub(super) fn before(path: &Path, file: File, end: u64) -> Result<Backwards> {
        let cannot = || format!("cannot read {}", path.display());
        let present = file.metadata().with_context(cannot)?.ino();
        let mut files = vec![(file, end)];
        for number in 1..=KEPT {
            let Some(older) = open_if_there(&rotated(path, number))? else { continue };
            let meta = older.metadata().with_context(cannot)?;
            // The file that is being read may be rotated away meanwhile; and somebody may have put a directory there.
            if meta.ino() != present && meta.is_file() {
                files.push((older, meta.len()));
            }
        }
        files.reverse();
        Ok(Backwards::of_files(path, files))
    }

    /// Reads what stands before that which was read. False: nothing does.
    fn fill(&mut self) -> Result<bool> {
        let Some((file, end)) = self.files.last_mut() else { return Ok(false) };
        if self.left == 0 {
            return Ok(false);
        }
        let start = end.saturating_sub(CHUNK.min(self.left));
        self.left = self.left.saturating_sub(end.saturating_sub(start));
        let read = read_range(file, start, *end);
        let mut bytes = read.with_context(|| format!("cannot read {}", self.path.display()))?;
        bytes.append(&mut self.rest);
        *end = start;
        let whole = match start {
            0 => 0,
            // The first line that was read is the end of one.
            _ => match bytes.iter().position(|byte| *byte == b'\n') {
                Some(at) => at.saturating_add(1),
                None if bytes.len() < LONGEST_LINE => bytes.len(),
                None => 0,
            },
        };
        if start == 0 {
            self.files.pop();
        }
        self.rest = bytes.drain(..whole).collect();
        self.ready = String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect();
        Ok(true)
    }
}

impl Iterator for Backwards {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Result<String>> {
        loop {
            if let Some(line) = self.ready.pop() {
                return Some(Ok(line));
            }
            match self.fill() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// What a file holds from `start` to `end`. Where it is read on afterwards stays the same.
pub(super) fn read_range(file: &File, start: u64, end: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(end.saturating_sub(start))?];
    let mut filled = 0;
    while let Some(room) = bytes.get_mut(filled..).filter(|room| !room.is_empty()) {
        match file.read_at(room, start.saturating_add(filled as u64)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(0) => break,
            read => filled = filled.saturating_add(read?),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;

    /// A log of these files, the oldest first, and a directory that holds it.
    fn log(files: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        for (number, text) in (0..).zip(files.iter().rev()) {
            let name = if number == 0 { path.clone() } else { rotated(&path, number) };
            fs::write(name, text).unwrap();
        }
        (directory, path)
    }

    #[test]
    fn lines_of_any_length_come_whole_and_in_order() {
        // Around and beyond what is read at once.
        let lengths = [0, 1, 7, 262_142, 262_143, 262_144, 262_145, 600_000, 3, 100_000, 0];
        let lines: Vec<String> = lengths.iter().map(|length| "x".repeat(*length)).collect();
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        for begin in [0, 5, 10] {
            let (_directory, path) = log(&[&"y\n".repeat(begin), &text]);
            let mut read: Vec<String> = Backwards::of(&path).unwrap().map(Result::unwrap).collect();
            read.reverse();
            assert_eq!(read[..begin], vec!["y"; begin]);
            assert!(read[begin..] == lines, "{:?}", read.iter().map(String::len).collect::<Vec<_>>());
        }
    }
}
