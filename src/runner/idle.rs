//! What an app makes of connections that are kept, as nginx keeps them: it may close them first, and then a request that is sent at
//! that moment is lost; or its threads wait on them, and then other requests wait for a thread.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::POLL;
use crate::app::config::Config;
use crate::app::{App, Instance};
use crate::deadline::Deadline;
use crate::http;
use crate::output::span;

/// How many connections are kept at the most, whatever nginx keeps.
const MOST: u16 = 32;
/// How many requests on connections of their own tell how fast the app is.
const ALONE: u16 = 16;
/// How late an answer is that waited for a thread: Puma's threads wait for 200 ms. Of an app that always takes as long it cannot be
/// told.
const LATE: Duration = Duration::from_millis(100);
/// How many such answers are no chance.
const LEAST_LATE: usize = 3;
/// After so long it is not waited for an answer any more.
const PATIENCE: Duration = Duration::from_millis(500);
/// An app that closes connections so much later than nginx does is asked no longer.
const MARGIN: f64 = 1.25;
/// A connection that is closed within so much was never to be kept, as with HTTP/1.0.
const AT_ONCE: Duration = Duration::from_millis(50);

/// What is wrong with connections that are kept to an instance, and what to set; None: nothing, or there was no time to see.
pub fn advice(app: &App, instance: &Instance, deadline: Deadline) -> Option<String> {
    let port = super::ports(app, instance).ok()?.into_iter().next()?.number();
    let config = app.as_run(instance).ok()?.config;
    let (keepalive, kept_for) = (app.config.nginx.keepalive, app.config.nginx.keepalive_timeout);
    if keepalive == 0 || config.expectation().path.is_empty() {
        return None;
    }
    // One that says so itself, or speaks HTTP/1.0, is kept by nobody.
    let kept = keep(&config, port, PATIENCE).ok()?;
    drop(kept?);
    // What is seen once may be another program's work.
    let look = || waits(&config, port, keepalive.min(MOST), deadline);
    if let Some(late) = look().and_then(|_| look()) {
        return Some(format!(
            "{instance} answers after {} while connections to it are kept: set keepalive = 0 in [nginx]",
            span(late)
        ));
    }
    let closed_after = closes_after(&config, port, kept_for.mul_f64(MARGIN), deadline)?;
    let remedy = match closed_after / 2 {
        half if half >= LATE => format!("keepalive_timeout = \"{}ms\"", half.as_millis() / 100 * 100),
        _ => "keepalive = 0".to_owned(),
    };
    Some(format!(
        "{instance} closes an idle connection after {}, and nginx keeps it for {}, so that requests can be lost: set {remedy} in [nginx]",
        span(closed_after),
        span(kept_for)
    ))
}

/// A connection on which the app has answered; None: it is one that the app does not keep.
fn keep(config: &Config, port: u16, patience: Duration) -> Result<Option<TcpStream>, String> {
    let expectation = config.expectation();
    http::get_and_keep(port, &expectation.path, &expectation.fields, patience)
}

/// How late the app answers beside so many connections that are kept; None: not late, or that cannot be told, because other requests
/// or other programs have it answer late in any case.
fn waits(config: &Config, port: u16, count: u16, deadline: Deadline) -> Option<Duration> {
    let time = || {
        let begun = Instant::now();
        (keep(config, port, PATIENCE), begun.elapsed())
    };
    // Each on a connection of its own, which is closed at once.
    while !(0..ALONE).map(|_| time()).all(|(answered, took)| answered.is_ok() && took < LATE) {
        if !deadline.sleep(POLL) {
            return None;
        }
    }
    let (mut kept, mut late) = (Vec::new(), Vec::new());
    while kept.len() < count.into() && late.len() < LEAST_LATE && !deadline.passed() {
        let (answered, took) = time();
        late.extend((took > LATE).then_some(took));
        match answered {
            Ok(connection) => kept.push(connection),
            Err(_) => return Some(took).filter(|took| *took >= PATIENCE),
        }
    }
    let is_chance = late.len() < LEAST_LATE;
    late.into_iter().max().filter(|_| !is_chance)
}

/// After how long the app closes a connection on which nothing happens; None: not within `most`, or there was not so much time.
fn closes_after(config: &Config, port: u16, most: Duration, deadline: Deadline) -> Option<Duration> {
    let mut connection = keep(config, port, PATIENCE).ok()??;
    let begun = Instant::now();
    connection.set_read_timeout(Some(most.min(deadline.left()))).ok()?;
    let is_closed = match connection.read(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    };
    // One that is closed with the answer is one that is not kept.
    Some(begun.elapsed()).filter(|time| is_closed && *time > AT_ONCE)
}
