//! Whose turn it is to change something, and what is being done: for those who ask meanwhile, and for those who come
//! after a tool that was killed.

use std::cell::RefCell;
use std::fmt::Display;
use std::fs::{self, DirBuilder, Permissions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{App, Instance, ReleaseId, Wait};
use crate::deadline::Deadline;
use crate::lock::{self, Holder, Lock};
use crate::logfile::{self, Line};
use crate::outcome::{self, Exit, exit_of, failure};
use crate::process::{self, Pid};

/// The mode of directories that are nobody's business but the owner's, and the owner's group's.
pub const CLOSED: u32 = 0o750;

/// The mode of the directory that nginx looks at.
const OPEN: u32 = 0o755;
/// What an owner may do with a directory of its own.
const OWNERS: u32 = 0o700;

/// What a tool is doing, or was when it was killed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Doing {
    /// The tool.
    pub tool: String,
    /// The step, in words: `starting B`.
    pub what: String,
    /// The instance that gets the traffic if all goes well; None: as before, or it is not known yet.
    pub target: Option<String>,
    /// When the step began, in seconds since 1970.
    pub since: u64,
    /// The way back of an instance that gets another release; None: none does, or that of a version that did not say so.
    #[serde(default)]
    pub way_back: Option<WayBack>,
}

/// What an instance was before it got another release.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct WayBack {
    /// Its name.
    pub instance: String,
    /// The release that it had; None: none.
    pub release: Option<ReleaseId>,
    /// The one that it gets.
    pub gets: ReleaseId,
    /// Whether it ran.
    pub ran: bool,
}

/// What is being done, or was left undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Activity {
    /// This process is doing it.
    UnderWay(Pid, Doing),
    /// Whoever did it was killed.
    Interrupted(Doing),
}

/// A turn: the lock that everything takes which changes something. It ends when it is dropped.
#[derive(Debug)]
pub struct Turn {
    tool: &'static str,
    lock: Lock,
    found: Option<Doing>,
    keeps_what_it_found: bool,
    way_back: RefCell<Option<WayBack>>,
    log: PathBuf,
}

impl App {
    /// Begins a turn. Whoever comes second ends with 75, or waits for as long as a deploy may take.
    pub fn turn(&self, tool: &'static str, wait: Wait) -> Result<Turn> {
        self.make_places();
        let path = self.deploy_lock();
        let patience = if wait.wait { self.config.deploy.timeout } else { Duration::ZERO };
        let Some(lock) = Lock::wait(&path, Deadline::after(patience))? else {
            // Of a lock that belongs to an open file, and to no process, the kernel names no holder: it is none of ours.
            let holder = lock::holder(&path).ok().flatten().map(|(pid, _)| pid).filter(|pid| *pid > Pid::from_raw(0));
            let unknown = || format!("a program that is none of ours (lsof {} names it)", path.display());
            let holder = holder.map_or_else(unknown, process::describe);
            return Err(failure(Exit::Busy, format!("cannot begin: {holder} holds the lock; --wait waits for it")));
        };
        let found = parse(&lock.read_note());
        let log = self.deploy_log();
        let turn = Turn { tool, lock, found, keeps_what_it_found: false, way_back: RefCell::default(), log };
        self.complaint.iter().for_each(|complaint| turn.say(complaint));
        Ok(turn)
    }

    /// Makes the directories that `install` has made, where a build or anybody else has removed one, and opens those that were
    /// closed to their owner. Whoever needs one that cannot be had says so.
    fn make_places(&self) {
        if !self.mark().exists() {
            return;
        }
        let places =
            [self.run(), self.logs(), self.releases(), self.instances(), self.hooks()].map(|place| (place, CLOSED));
        for (place, mode) in places.into_iter().chain([(self.state(), OPEN)]) {
            let _ = match place.symlink_metadata() {
                Err(_) if mode == CLOSED => DirBuilder::new().mode(mode).create(place),
                Ok(meta) if meta.is_dir() && meta.mode() & OWNERS != OWNERS => {
                    fs::set_permissions(place, Permissions::from_mode(mode))
                }
                _ => Ok(()),
            };
        }
    }

    /// What is being done now, or was left undone; None: nothing.
    pub fn activity(&self) -> Result<Option<Activity>> {
        let Some(Holder { pid, note }) = lock::last_holder(&self.deploy_lock())? else { return Ok(None) };
        Ok(parse(&note).map(|doing| match pid {
            Some(pid) => Activity::UnderWay(pid, doing),
            None => Activity::Interrupted(doing),
        }))
    }
}

impl Turn {
    /// What the turn before this one left undone, if it was this tool's own; None: nothing.
    pub fn resumes(&self) -> Option<&Doing> {
        self.found.as_ref().filter(|found| found.tool == self.tool)
    }

    /// The way back of what was left undone, whichever tool's it was; None: there is none.
    pub fn way_back(&self) -> Option<&WayBack> {
        self.found.as_ref()?.way_back.as_ref()
    }

    /// Notes the way back of what is about to be done, for whoever comes after a kill.
    pub fn leaves(&self, way_back: WayBack) {
        *self.way_back.borrow_mut() = Some(way_back);
    }

    /// Whether the tool that did not come to its end had cut over to this instance: whatever it was killed in, its watch was not
    /// over.
    pub fn resumes_watch_of(&self, instance: &Instance) -> bool {
        self.resumes().is_some_and(|undone| undone.target.as_deref() == Some(instance.name()))
    }

    /// Leaves what was found undone as undone: for a turn that nobody decided on, at boot.
    pub fn keep_what_was_found(&mut self) {
        self.keeps_what_it_found = true;
    }

    /// Tells what is being done from here on. That cannot fail: on a full disk the work still goes on. Only with a way back is it
    /// flushed: after a power cut it may be an earlier step, or nothing, and nothing but `status` is the poorer for it.
    pub fn doing(&self, what: impl Display, target: Option<&Instance>) {
        let target = target.map(Instance::to_string);
        let way_back = self.way_back.borrow().clone();
        let (tool, what) = (self.tool.to_owned(), what.to_string());
        let has_way_back = way_back.is_some();
        self.tell(&Doing { tool, what, target, since: process::unix_now(), way_back });
        if has_way_back {
            let _ = self.lock.keep_note();
        }
    }

    /// Says, on stderr and in the deploys' log, what has been done or what is about to be.
    pub fn say(&self, text: impl Display) {
        outcome::say(self.tool, &text);
        self.log(&text.to_string());
    }

    /// Says what has failed that is no reason to end.
    pub fn forgive<T>(&self, result: Result<T>) {
        if let Err(error) = result {
            self.say(format_args!("{error:#}"));
        }
    }

    /// Passes a result on; when it is an error, which is said at the tool's end, the deploys' log has it from here. What is
    /// wrong with the caller's words is the caller's alone.
    pub fn ends_in<T>(&self, result: Result<T>) -> Result<T> {
        result.inspect_err(|error| {
            if exit_of(error) != Exit::Usage {
                self.log(&format!("{error:#}"));
            }
        })
    }

    /// Writes a line to the deploys' log. That cannot fail either.
    fn log(&self, text: &str) {
        let mut line = Vec::new();
        let source = format!("{}[{}]", self.tool, std::process::id());
        Line::write(&mut line, &source, outcome::one_line(text).as_bytes());
        let _ = logfile::open(&self.log).map(|mut log| log.write_all(&line));
    }

    fn tell(&self, doing: &Doing) {
        let note = serde_json::to_string(doing).unwrap_or_default();
        let _ = self.lock.note(&note);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let kept = self.found.take().filter(|found| self.keeps_what_it_found && found.tool != self.tool);
        match kept {
            Some(found) => self.tell(&found),
            None => drop(self.lock.note("")),
        }
    }
}

fn parse(note: &str) -> Option<Doing> {
    serde_json::from_str(note).ok()
}
