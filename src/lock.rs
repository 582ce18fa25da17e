//! Lock files that the kernel frees when their holder ends, however it ends, and that tell who holds them, or
//! held them last.
//!
//! These are fcntl(2) record locks: they belong to the process, so no child inherits them, and F_GETLK names the holder.
//! The other side of that coin: a process that opens and closes a file it has locked loses the lock, so no process asks
//! for the holder of a lock of its own.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use crate::bounded::{self, Links};
use crate::deadline::Deadline;
use crate::process::Pid;

/// How often a waiter looks.
const POLL: Duration = Duration::from_millis(20);

/// A lock held by this process until the guard is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock of this file, which is made when it is not there. None: somebody else holds it.
    pub fn take(path: &Path) -> Result<Option<Lock>> {
        let cannot = || format!("cannot lock {}", path.display());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o640)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)
            .with_context(cannot)?;
        if !file.metadata().with_context(cannot)?.is_file() {
            bail!("{}: it is no file", cannot());
        }
        match fcntl(&file, FcntlArg::F_SETLK(&whole_file())) {
            Ok(_) => Ok(Some(Lock { file })),
            Err(Errno::EACCES | Errno::EAGAIN) => Ok(None),
            Err(error) => Err(error).with_context(cannot),
        }
    }

    /// Takes the lock as soon as it is free. None: it was not before the deadline.
    pub fn wait(path: &Path, deadline: Deadline) -> Result<Option<Lock>> {
        loop {
            if let Some(lock) = Lock::take(path)? {
                return Ok(Some(lock));
            }
            if !deadline.sleep(POLL) {
                return Ok(None);
            }
        }
    }

    /// Leaves a note in the file, in one write that covers an earlier note; of a long one, whoever reads it at this moment may
    /// see a part. It stays when the holder is killed, and names
    /// who wrote it: whoever takes the lock next has not said anything yet.
    pub fn note(&self, note: &str) -> Result<()> {
        let mut present = self.file.metadata().context("cannot look at the lock file")?.len();
        if present > LONGEST_NOTE {
            // That is no note of ours.
            self.file.set_len(LONGEST_NOTE).context("cannot cut the lock file")?;
            present = LONGEST_NOTE;
        }
        let width = usize::try_from(present)?.saturating_sub(1).max(NOTE_WIDTH);
        let mut padded = format!("{} {note}", Pid::own()).into_bytes();
        padded.resize(padded.len().max(width), b' ');
        padded.push(b'\n');
        self.file.write_all_at(&padded, 0).context("cannot write a note into the lock file")
    }

    /// Has the disk keep the note.
    pub fn keep_note(&self) -> Result<()> {
        self.file.sync_data().context("cannot flush the lock file")
    }

    /// The note that is there: the own one, or what an earlier holder left. Empty when there is none.
    pub fn read_note(&self) -> String {
        let mut bytes = [0; NOTE_WIDTH];
        let length = self.file.read_at(&mut bytes, 0).unwrap_or(0);
        split(&String::from_utf8_lossy(bytes.get(..length).unwrap_or_default())).1.to_owned()
    }
}

/// Who wrote a note, and the note.
fn split(text: &str) -> (&str, &str) {
    text.trim().split_once(' ').unwrap_or_default()
}

/// The room for a note, in bytes.
const NOTE_WIDTH: usize = 1023;
/// How long a note can be that is read, in bytes: those of many programs are long.
const LONGEST_NOTE: u64 = 1024 * 1024;

/// Who holds a lock, or held it last.
#[derive(Debug)]
pub struct Holder {
    /// The process that holds the lock; None: nobody does.
    pub pid: Option<Pid>,
    /// The note of this or, when nobody holds it, of the last holder; empty when there is none.
    pub note: String,
}

/// Who holds the lock of this file, or held it last; None when nobody ever did.
pub fn last_holder(path: &Path) -> Result<Option<Holder>> {
    let cannot = || format!("cannot ask who holds {}", path.display());
    // Neither a link is followed nor a pipe waited for: root may be asking, in a home of somebody else's.
    let file = match bounded::open(path, Links::Refused) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.with_context(cannot)?,
    };
    let mut question = whole_file();
    fcntl(&file, FcntlArg::F_GETLK(&mut question)).with_context(cannot)?;
    let is_held = question.l_type != libc::F_UNLCK as libc::c_short;
    let pid = is_held.then(|| Pid::from_raw(question.l_pid));
    let mut text = Vec::new();
    (&file).take(LONGEST_NOTE).read_to_end(&mut text).with_context(cannot)?;
    let text = String::from_utf8_lossy(&text);
    let (writer, note) = split(&text);
    let is_theirs = pid.is_none_or(|pid| pid.to_string() == writer);
    Ok(Some(Holder { pid, note: if is_theirs { note.to_owned() } else { String::new() } }))
}

/// The process that holds the lock of this file, and its note; None when nobody does.
pub fn holder(path: &Path) -> Result<Option<(Pid, String)>> {
    Ok(last_holder(path)?.and_then(|holder| Some((holder.pid?, holder.note))))
}

/// A write lock from the first byte to the end of the file, however long it grows.
fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}
