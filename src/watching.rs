//! Files that somebody works on: telling when they have changed, and are quiet again, by inotify(7).
//!
//! It knows neither what the files are for nor what is in them. It does not follow symbolic links, and does not hear of what
//! other machines do to a network's file system.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::deadline::poll_timeout;

/// How long nothing may change until the files count as quiet: an editor, or a formatter after it, writes again sooner.
pub const QUIET: Duration = Duration::from_millis(300);
/// How long changes may go on until they are told all the same.
pub const LONGEST: Duration = Duration::from_secs(5);
/// A directory of this name is not looked into, and neither is a hidden one.
const MODULES: &str = "node_modules";

/// What changes files. Reading them does not.
const CHANGES: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_MOVED_TO);
/// What takes a directory away.
const ENDS: AddWatchFlags = AddWatchFlags::IN_DELETE_SELF.union(AddWatchFlags::IN_MOVE_SELF);

/// A directory whose files are watched, those in it and in all directories below.
#[derive(Debug)]
pub struct Watched {
    directory: PathBuf,
    left_out: Vec<PathBuf>,
    inotify: Inotify,
    watches: HashSet<WatchDescriptor>,
}

/// What was heard of the files; the later one counts more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Heard {
    Nothing,
    /// A file is being written: a log, perhaps, that stays open. It is told once it is closed.
    Writing,
    Change,
}

/// Changes that are not over yet.
#[derive(Clone, Copy)]
struct Unrest {
    first: Instant,
    last: Instant,
}

impl Watched {
    /// Watches a directory from now on, without these ones in it. Neither path may have symbolic links in it.
    pub fn new(directory: &Path, left_out: impl Into<Vec<PathBuf>>) -> Result<Watched> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).map_err(|error| match error {
            Errno::EMFILE => anyhow!("cannot watch files: {}; {}", error.desc(), raise("instances")),
            error => anyhow!("cannot watch files: {}", error.desc()),
        })?;
        let (directory, left_out) = (directory.to_owned(), left_out.into());
        let mut watched = Watched { directory, left_out, inotify, watches: HashSet::new() };
        watched.look_around()?;
        Ok(watched)
    }

    /// Waits until files have changed, since the last call too, and have then been quiet for a while; but not for ever, for
    /// there may be one that is written again and again. False: this process was asked to end, by SIGINT or SIGTERM.
    pub fn settle(&mut self) -> Result<bool> {
        let requests = Requests::receive()?;
        let mut unrest: Option<Unrest> = None;
        loop {
            self.wait(&requests, unrest.map(Unrest::end))?;
            if requests.any() {
                return Ok(false);
            }
            let (heard, now) = (self.hear()?, Instant::now());
            unrest = match (heard, unrest) {
                (Heard::Change, None) => Some(Unrest { first: now, last: now }),
                (Heard::Change | Heard::Writing, Some(unrest)) => Some(Unrest { last: now, ..unrest }),
                (_, unrest) => unrest,
            };
            let Some(over) = unrest.filter(|unrest| unrest.end() <= now) else { continue };
            // Somebody may still be filling a directory that is new.
            let has_grown = self.look_around()?;
            if !has_grown || now >= over.first + LONGEST {
                return Ok(!requests.any());
            }
            unrest = Some(Unrest { last: now, ..over });
        }
    }

    /// Sleeps until something is heard, or this moment has come.
    fn wait(&self, requests: &Requests, until: Option<Instant>) -> Result<()> {
        let timeout = poll_timeout(until.map(|until| until.saturating_duration_since(Instant::now())));
        let ends = [self.inotify.as_fd(), requests.signals.as_fd()];
        match poll(&mut ends.map(|end| PollFd::new(end, PollFlags::POLLIN)), timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error).context("cannot wait for changes"),
        }
    }

    /// What has happened since the last time, or a part of it.
    fn hear(&self) -> Result<Heard> {
        match self.inotify.read_events() {
            Ok(events) => Ok(events.iter().map(meaning).max().unwrap_or(Heard::Nothing)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(Heard::Nothing),
            Err(error) => Err(error).context("cannot hear of changes"),
        }
    }

    /// Watches all directories that are there now, and no others. True: there are new ones.
    fn look_around(&mut self) -> Result<bool> {
        let mut found = HashSet::new();
        let mut directories = vec![self.directory.clone()];
        while let Some(directory) = directories.pop() {
            // Before it is looked into: whatever comes later is heard of.
            let Some(watch) = self.watch(&directory)? else { continue };
            found.insert(watch);
            let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
            let inner = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            let inner = inner.filter(|entry| !is_ignored(&entry.file_name())).map(|entry| entry.path());
            directories.extend(inner.filter(|path| !self.left_out.contains(path)));
        }
        for gone in self.watches.difference(&found) {
            // One whose directory was removed has gone by itself.
            let _ = self.inotify.rm_watch(*gone);
        }
        let has_grown = found.difference(&self.watches).next().is_some();
        self.watches = found;
        Ok(has_grown)
    }

    /// Watches one directory, which may be watched already. None: it has gone, or may not be read; should that change, the
    /// directory around it is told.
    fn watch(&self, directory: &Path) -> Result<Option<WatchDescriptor>> {
        let only_itself = AddWatchFlags::IN_ONLYDIR | AddWatchFlags::IN_DONT_FOLLOW;
        let told = CHANGES | ENDS | AddWatchFlags::IN_MODIFY | only_itself;
        match self.inotify.add_watch(directory, told) {
            Ok(watch) => Ok(Some(watch)),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES) if directory != self.directory => Ok(None),
            Err(Errno::ENOSPC) => {
                bail!("cannot watch {}: this user watches too many already; {}", directory.display(), raise("watches"))
            }
            Err(error) => bail!("cannot watch {}: {}", directory.display(), error.desc()),
        }
    }
}

/// What the system's administrator can do about a limit.
fn raise(limit: &str) -> String {
    let name = format!("fs.inotify.max_user_{limit}");
    let now = fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))).unwrap_or_default();
    let more = now.trim().parse().map_or(0, |now: u64| now.saturating_mul(2));
    format!("raise {name} as root: sysctl {name}={more}")
}

impl Unrest {
    fn end(self) -> Instant {
        (self.last + QUIET).min(self.first + LONGEST)
    }
}

/// An event without a name is about the directory itself, or says that others were lost.
fn meaning(event: &InotifyEvent) -> Heard {
    match event.mask {
        _ if event.name.as_deref().is_some_and(is_ignored) => Heard::Nothing,
        mask if mask.contains(AddWatchFlags::IN_IGNORED) => Heard::Nothing,
        mask if mask.contains(AddWatchFlags::IN_MODIFY) => Heard::Writing,
        _ => Heard::Change,
    }
}

/// Whether a file or directory of this name may change without being told of.
fn is_ignored(name: &OsStr) -> bool {
    name == MODULES || name.as_encoded_bytes().starts_with(b".")
}

/// Requests to end, by SIGINT or SIGTERM. While this lives they wait to be read; before and after they end the process.
struct Requests {
    signals: SignalFd,
    mask: SigSet,
}

impl Requests {
    fn receive() -> Result<Requests> {
        let both = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
        let mask = both.thread_swap_mask(SigmaskHow::SIG_BLOCK).context("cannot block signals")?;
        let signals = SignalFd::with_flags(&both, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC);
        Ok(Requests { signals: signals.context("cannot receive signals")?, mask })
    }

    fn any(&self) -> bool {
        matches!(self.signals.read_signal(), Ok(Some(_)))
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        let _ = self.mask.thread_set_mask();
    }
}
