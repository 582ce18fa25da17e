//! The kernel's TCP table: who listens on a port, how many connections it has.

use std::collections::HashSet;

use anyhow::{Context, Result};
use procfs::net::{TcpNetEntry, TcpState, tcp, tcp6};
use procfs::process::{FDTarget, Process as Proc, all_processes};

use super::{Pid, Process, tree};

/// Who listens on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Nobody.
    Nobody,
    /// This process; the first in the tree when several share the socket.
    Process(Process),
    /// Somebody whose descriptors we may not see: a process of another user.
    Hidden,
}

fn table() -> Result<Vec<TcpNetEntry>> {
    let mut entries = tcp().context("cannot read /proc/net/tcp")?;
    // A kernel without IPv6 has no such table.
    entries.extend(tcp6().unwrap_or_default());
    Ok(entries)
}

fn listening_inodes(port: u16) -> Result<HashSet<u64>> {
    let listening =
        table()?.into_iter().filter(|entry| entry.local_address.port() == port && entry.state == TcpState::Listen);
    Ok(listening.map(|entry| entry.inode).collect())
}

/// Whether anybody listens on this port, on whatever address.
pub fn is_listening(port: u16) -> Result<bool> {
    Ok(!listening_inodes(port)?.is_empty())
}

/// How many connections to this port are open on the server's side: answers may still be under way on them.
pub fn connections(port: u16) -> Result<usize> {
    let open = [TcpState::Established, TcpState::SynRecv, TcpState::CloseWait];
    let entries = table()?;
    Ok(entries.iter().filter(|entry| entry.local_address.port() == port && open.contains(&entry.state)).count())
}

/// Who listens on this port. `likely` is the root of the tree where it is looked for first, which spares a walk over
/// all the machine's processes.
pub fn owner(port: u16, likely: Option<Pid>) -> Result<Owner> {
    let inodes = listening_inodes(port)?;
    if inodes.is_empty() {
        return Ok(Owner::Nobody);
    }
    let near = likely.map(tree).unwrap_or_default();
    let holds = |process: &Process| Proc::new(process.pid.raw()).is_ok_and(|proc| holds_any(&proc, &inodes));
    if let Some(found) = near.into_iter().find(holds) {
        return Ok(Owner::Process(found));
    }
    let all = all_processes().context("cannot read /proc")?;
    let found = all.flatten().find(|proc| holds_any(proc, &inodes));
    let process = found.and_then(|proc| Process::with_pid(Pid::from_raw(proc.pid)));
    Ok(process.map_or(Owner::Hidden, Owner::Process))
}

fn holds_any(proc: &Proc, inodes: &HashSet<u64>) -> bool {
    let Ok(descriptors) = proc.fd() else { return false };
    descriptors
        .flatten()
        .any(|descriptor| matches!(descriptor.target, FDTarget::Socket(inode) if inodes.contains(&inode)))
}
