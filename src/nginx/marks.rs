//! Marks in the state directory by which nginx knows, request by request, in which slots an instance's processes are.
//!
//! What no mark says is the least: one process, in the first slot.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};

use crate::app::config::{Processes, cores};
use crate::app::{App, Instance, Record, SYSTEM_STATE};
use crate::durable;

/// The numbers of processes that nginx knows at the least.
const LEAST_KNOWN: usize = 4;
/// The name of the mark that there are none.
const AWAY: &str = "0.processes";

/// What a mark says: its name does. One that comes later in this order counts more where both are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// There are so many processes, in the first slots.
    Processes(usize),
    /// There are so many, and of one slot more than that this one is free.
    Without { count: usize, free: usize },
    /// They are about to end, and the other instance has their requests.
    Away,
}

impl Mark {
    /// How many processes there are.
    pub fn count(self) -> usize {
        match self {
            Mark::Processes(count) | Mark::Without { count, .. } => count,
            Mark::Away => 0,
        }
    }

    /// The slots in which they are.
    pub fn slots(self) -> Vec<usize> {
        match self {
            Mark::Processes(count) => (0..count).collect(),
            Mark::Without { count, free } => (0..=count).filter(|slot| *slot != free).collect(),
            Mark::Away => Vec::new(),
        }
    }

    /// What a file of this name says; None: it is no mark.
    fn read(name: &str) -> Option<Mark> {
        if name == AWAY {
            return Some(Mark::Away);
        }
        let (count, what) = name.split_once('.')?;
        let count = count.parse().ok().filter(|count| (1..=Processes::MOST as usize).contains(count))?;
        let mark = match what.strip_prefix("without.") {
            Some(free) => Mark::Without { count, free: free.parse().ok().filter(|free| *free < count)? },
            None => Mark::Processes(count),
        };
        (mark.to_string() == name).then_some(mark)
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mark::Processes(count) => write!(f, "{count}.processes"),
            Mark::Without { count, free } => write!(f, "{count}.without.{free}"),
            Mark::Away => f.write_str(AWAY),
        }
    }
}

/// All marks that nginx is to know: those of what is configured; of fewer processes and of some more, up to which the
/// configuration can be changed without root, and without a reload, unless their ports are other apps'; and those that lie
/// there, for they are gone by.
pub fn known(app: &App, others: &BTreeSet<u16>) -> BTreeSet<Mark> {
    let count = app.config.processes();
    let is_others = |slot: usize| {
        let mut ports = app.config.instances.iter().filter_map(|instance| instance.port_of(slot));
        ports.any(|port| others.contains(&port.number()))
    };
    let most = count.max(cores()).max(LEAST_KNOWN);
    let most = (count..most).find(|slot| is_others(*slot)).unwrap_or(most);
    let mut known: BTreeSet<Mark> = (2..=most).map(Mark::Processes).collect();
    known.extend(of_count(count, app.config.slots()));
    known.extend(app.config.nginx.failover.then_some(Mark::Away));
    known.extend(gone_by(app));
    known
}

/// The marks that instances may go by which were started before the configuration was changed. Root believes its own record of
/// what was configured, and not what lies in a directory of the user's.
fn gone_by(app: &App) -> BTreeSet<Mark> {
    if app.state().starts_with(SYSTEM_STATE) {
        let before = Record::of_app(app.name()).ok().flatten().map(|record| record.accepted);
        return before.iter().flat_map(|config| of_count(config.processes(), config.slots())).collect();
    }
    let entries = app.config.instances.iter().flat_map(|instance| fs::read_dir(app.marks(instance)));
    entries.flatten().flatten().filter_map(|entry| Mark::read(entry.file_name().to_str()?)).collect()
}

/// The marks of so many processes with so many ports.
fn of_count(count: usize, slots: usize) -> BTreeSet<Mark> {
    let replaced = (0..count).filter(|_| slots > count).map(|free| Mark::Without { count, free });
    (2..=count).map(Mark::Processes).chain(replaced).collect()
}

/// Tells nginx that an instance which is about to start has so many processes, in the first slots.
pub fn tell_count(app: &App, instance: &Instance, count: usize) -> Result<()> {
    let wanted = (count > 1).then_some(Mark::Processes(count));
    tell(&app.marks(instance), &wanted.into_iter().collect::<Vec<Mark>>())
}

/// Tells nginx that it is this slot of an instance's which is free.
pub fn tell_free_slot(app: &App, instance: &Instance, free: usize) -> Result<()> {
    let count = app.config.processes();
    let wanted =
        [(count > 1).then_some(Mark::Processes(count)), (free < count).then_some(Mark::Without { count, free })];
    tell(&app.marks(instance), &wanted.into_iter().flatten().collect::<Vec<Mark>>())
}

/// Has nginx send an instance's requests to the other one, from this moment on.
pub fn leave(app: &App, instance: &Instance) -> Result<()> {
    lay(&app.marks(instance).join(AWAY))
}

/// Has nginx send an instance's requests to that one again.
pub fn come_back(app: &App, instance: &Instance) -> Result<()> {
    let path = app.marks(instance).join(AWAY);
    durable::remove_if_there(&path).with_context(|| format!("cannot remove {}", path.display()))
}

/// Whether nginx sends them to the other one.
pub fn is_away(app: &App, instance: &Instance) -> bool {
    fs::symlink_metadata(app.marks(instance).join(AWAY)).is_ok()
}

fn lay(path: &Path) -> Result<()> {
    let laid = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path);
    laid.map(drop).with_context(|| format!("cannot lay {}", path.display()))
}

/// Lays these marks, and takes the others away after that: in between both are there, and nginx goes by either.
fn tell(directory: &Path, wanted: &[Mark]) -> Result<()> {
    let wanted: Vec<String> = wanted.iter().map(Mark::to_string).collect();
    for name in &wanted {
        lay(&directory.join(name))?;
    }
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        read => read.with_context(|| format!("cannot list {}", directory.display()))?,
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // No instance's name has a dot, nor has its own mark. What is away comes back when it is healthy.
        if name.contains('.') && name != AWAY && !wanted.contains(&name) {
            let path = entry.path();
            durable::remove_if_there(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}
