//! nginx's worker processes: which of them take requests. After a reload those of the configuration before go on for a moment.

use crate::deadline::Deadline;
use crate::process::{self, Pid, Process};

use super::POLL;

/// What nginx's program is called.
pub const PROGRAM: &str = "nginx";
/// How the title of a worker begins, and what it is from the moment on in which it takes no more requests.
const WORKER: &[u8] = b"nginx: worker process";
const LEAVING: &[u8] = b"nginx: worker process is shutting down";

/// How the titles of nginx's processes begin. A master sets its title once it has blocked the signals that it waits for
/// (ngx_process_cycle.c). It handles a signal that arrives earlier only when the next one arrives.
const TITLED: &[u8] = b"nginx: ";

/// Waits until each nginx of the machine has got so far that it loses no reload.
pub fn await_started(patience: Deadline) {
    let is_starting = |nginx: &Process| {
        let title = process::title(nginx.pid);
        !title.is_empty() && !title.starts_with(TITLED)
    };
    while process::of_program(PROGRAM).iter().any(is_starting) && patience.sleep(POLL) {}
}

/// The workers that took requests at one moment, of all nginxes of the machine.
pub struct Workers(Vec<Process>);

impl Workers {
    /// Those that take requests now.
    pub fn now() -> Workers {
        let mut all = process::of_program(PROGRAM);
        all.retain(|process| {
            let title = process::title(process.pid);
            title.starts_with(WORKER) && !title.starts_with(LEAVING)
        });
        Workers(all)
    }

    /// Waits until there are others than these.
    pub fn await_others(&self, patience: Deadline) {
        while Workers::now().0.iter().all(|worker| self.0.contains(worker)) && patience.sleep(POLL) {}
    }

    /// Waits until those of these take no requests any more in whose place others have come.
    pub fn await_leave(&self, patience: Deadline) {
        let is_left = || {
            let (left, new): (Vec<_>, Vec<_>) = Workers::now().0.into_iter().partition(|one| self.0.contains(one));
            let masters: Vec<Pid> = new.into_iter().filter_map(Process::parent).collect();
            left.into_iter().filter_map(Process::parent).any(|master| masters.contains(&master))
        };
        while is_left() && patience.sleep(POLL) {}
    }
}
