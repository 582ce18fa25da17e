//! Before an instance's unit is stopped by anybody: the other instance answers in its place, so that no request is lost, also where
//! both units are restarted in one call.

use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::{CHECK, POLL, drain, supervise, systemd, up};
use crate::app::{App, Instance};
use crate::deadline::Deadline;
use crate::nginx;

/// How long a request that has just begun may take beyond the time for which nginx keeps a connection. What takes longer is
/// finished while the app ends.
const LONGEST: Duration = Duration::from_secs(1);
/// How long nginx's connections are waited for at the most.
const MOST: Duration = Duration::from_secs(10);

/// Waits until the other instance can answer in the place of one that is about to end, if it is about to come back itself, and has
/// it answer. Where there is no other, there is nothing to be done.
pub fn hand_over(app: &App, instance: &Instance) -> Result<()> {
    let other = app.other(instance);
    // supervise has ended by itself: there is nothing left to be handed over.
    if std::env::var_os("MAINPID").is_none() {
        return Ok(());
    }
    let wait = || {
        supervise::extend_timeout(app.config.health.timeout);
        thread::sleep(POLL);
    };
    let is_up = || up(app, other, CHECK).is_ok();
    if nginx::enabled(app)? != Some(instance) {
        // It answers in the other one's place, or is about to, until that is back.
        while systemd::is_coming(app, other) && (nginx::is_away(app, other) || !is_up()) {
            wait();
        }
        return Ok(());
    }
    loop {
        while systemd::is_coming(app, other) {
            wait();
        }
        if !is_up() {
            return Ok(());
        }
        nginx::leave(app, instance)?;
        // Its unit may have been told to end before it could see that.
        if !systemd::is_coming(app, other) {
            break;
        }
        nginx::come_back(app, instance)?;
    }
    drain(app, instance, Deadline::after((app.config.nginx.keepalive_timeout + LONGEST).min(MOST)))
}
