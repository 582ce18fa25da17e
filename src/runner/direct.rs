//! The `direct` runner: a tool detaches supervise, which then belongs to nobody.

use std::process::Child;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use super::{POLL, SUPERVISE_SLACK, supervise};
use crate::app::{App, Instance};
use crate::command;
use crate::deadline::Deadline;
use crate::durable;
use crate::process::{self, Pid, Process};

/// Detaches a supervise for an instance. What it cannot write into the log itself goes there too.
pub fn start(app: &App, instance: &Instance) -> Result<Child> {
    let path = app.instance_log(instance);
    let log = durable::open_log(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let arguments = ["--home".as_ref(), app.home().as_os_str(), instance.name().as_ref()];
    command::detach(&command::sibling(supervise::PROGRAM)?, arguments, log)
}

/// Asks a supervise to end, and kills it with all its tree when it does not.
pub fn stop(app: &App, supervise: Pid) -> Result<()> {
    let Some(supervise) = Process::with_pid(supervise) else { return Ok(()) };
    supervise.signal(Signal::SIGTERM)?;
    let patience = Deadline::after(app.config.run.stop_timeout + SUPERVISE_SLACK);
    while supervise.is_alive() {
        if !patience.sleep(POLL) {
            process::kill_tree(supervise.pid);
        }
    }
    Ok(())
}
