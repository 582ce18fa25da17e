//! The `direct` runner: a tool detaches supervise, which then belongs to nobody.

use std::process::{Child, Stdio};

use anyhow::{Result, bail};
use nix::sys::signal::Signal;

use super::{POLL, SUPERVISE_SLACK, supervise};
use crate::app::{App, Instance};
use crate::command;
use crate::deadline::Deadline;
use crate::logfile;
use crate::process::{self, Pid, Process};

/// Detaches a supervise for an instance. What it cannot write into the log itself goes there too.
pub fn start(app: &App, instance: &Instance) -> Result<Child> {
    // It starts without one as well: what it says there is for whoever looks for the reason when it does not.
    let log = logfile::open_beside_writer(&app.instance_log(instance));
    let log = log.map_or_else(|_| Stdio::null(), Stdio::from);
    let arguments = ["--home".as_ref(), app.home().as_os_str(), instance.name().as_ref()];
    command::detach(&command::sibling(supervise::PROGRAM)?, arguments, log)
}

/// Asks a supervise to end, and kills it with all its tree when it does not.
pub fn stop(app: &App, supervise: Pid) -> Result<()> {
    let Some(supervise) = Process::with_pid(supervise) else { return Ok(()) };
    supervise.ask_to_end(Signal::SIGTERM)?;
    let patience = Deadline::after(app.config.run.stop_timeout + SUPERVISE_SLACK);
    while supervise.is_alive() {
        if !patience.sleep(POLL) {
            // It takes a while itself where it does not succeed at once.
            process::kill_tree(supervise.pid);
            if supervise.is_alive() {
                bail!("{} cannot be killed", process::describe(supervise.pid));
            }
        }
    }
    Ok(())
}
