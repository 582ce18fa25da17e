//! The queue: one file, which is there for as long as something that was pushed waits for its deploy. A deploy takes the
//! branch as it is when it begins, so all pushes that come before that need only one; those that come later leave another
//! word in the file, and need one more. The file goes when its deploy has ended: killed at any point, it is still there.
#![deny(clippy::arithmetic_side_effects)]

use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

use super::Push;
use crate::app::App;
use crate::bounded::{self, Links};
use crate::deadline::Deadline;
use crate::durable;
use crate::lock::Lock;
use crate::outcome::Exit;
use crate::process::Pid;

/// How many deliveries are remembered.
const REMEMBERED: usize = 1000;
/// How long the queue may be somebody else's: whoever has it writes two small files, on a disk that may be slow. It is less
/// than systemd gives a request.
const PATIENCE: Duration = Duration::from_secs(20);

/// The pauses after a deploy that could not be begun.
const SHORTEST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(5 * 60);
/// How often a waiting process looks at the queue.
const LOOK: Duration = Duration::from_millis(500);

/// The last push that waits for its deploy.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Queued {
    /// When it came, in nanoseconds since 1970; with `by` it tells this push from every other.
    at: u128,
    /// The process that queued it.
    by: i32,
    /// What was pushed, and by whom, in words.
    pub what: String,
}

/// What became of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It waits for its deploy.
    Queued,
    /// It was delivered before, and is not deployed again.
    Replayed,
}

impl Queued {
    fn of(push: &Push) -> Queued {
        let who = push.who.as_ref().map_or_else(String::new, |who| format!(" by {who}"));
        Queued {
            at: nanoseconds(SystemTime::now()),
            by: Pid::own().raw(),
            what: format!("push of {}{who}", push.commit),
        }
    }

    /// How long it has been waiting, in seconds.
    pub fn seconds(&self) -> u64 {
        let now = nanoseconds(SystemTime::now());
        u64::try_from(now.saturating_sub(self.at) / 1_000_000_000).unwrap_or(0)
    }
}

/// Queues a push, unless it was delivered before. When this returns, no crash loses it.
pub fn add(app: &App, push: &Push) -> Result<Added> {
    let _lock = lock(app)?;
    let deliveries = deliveries(app)?;
    if push.delivery.as_ref().is_some_and(|delivery| deliveries.contains(delivery)) {
        return Ok(Added::Replayed);
    }
    let queued = serde_json::to_string(&Queued::of(push)).context("cannot make JSON")?;
    durable::write(&app.queued(), queued.as_bytes(), 0o640)?;
    // Afterwards: one that is queued and not remembered could be queued twice, which does no harm.
    if let Some(delivery) = &push.delivery {
        let forgotten = deliveries.len().saturating_add(1).saturating_sub(REMEMBERED);
        let kept = deliveries.iter().skip(forgotten).chain(std::iter::once(delivery));
        let text: String = kept.map(|delivery| format!("{delivery}\n")).collect();
        durable::write(&app.deliveries(), text.as_bytes(), 0o640)?;
    }
    Ok(Added::Queued)
}

fn deliveries(app: &App) -> Result<Vec<String>> {
    let path = app.deliveries();
    match bounded::read_text(&path, Links::Refused, bounded::LARGE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => {
            let text = read.with_context(|| format!("cannot read {}", path.display()))?;
            Ok(text.lines().map(str::to_owned).collect())
        }
    }
}

/// The last push that waits for its deploy; None: none does.
pub fn queued(app: &App) -> Result<Option<Queued>> {
    let path = app.queued();
    let text = match bounded::read(&path, Links::Refused, bounded::SMALL) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.with_context(|| format!("cannot read {}", path.display()))?,
    };
    // Whatever else is there, by hand say, asks for a deploy as well.
    let by_hand = || {
        let written = fs::metadata(&path).and_then(|meta| meta.modified()).unwrap_or(UNIX_EPOCH);
        Queued { at: nanoseconds(written), by: 0, what: "push".to_owned() }
    };
    Ok(Some(serde_json::from_slice(&text).unwrap_or_else(|_| by_hand())))
}

/// Since 1970.
fn nanoseconds(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos())
}

fn lock(app: &App) -> Result<Lock> {
    let path = app.queue_lock();
    Lock::wait(&path, Deadline::after(PATIENCE))?.ok_or_else(|| anyhow!("cannot queue: {} is locked", path.display()))
}

/// Deploys what is queued, by `deploy`, until nothing is; returns what became of the last one. What could not be begun
/// (`deploy` says None) stays queued, and is tried again, after longer and longer pauses. Only one process at a time does
/// all this: any other waits for it.
pub fn work_off(app: &App, mut deploy: impl FnMut(&Queued) -> Option<Exit>) -> Result<Exit> {
    let mut last = Exit::Done;
    // A push that comes between the last look and the end of the lock is left to us by who queued it: we look again.
    while queued(app)?.is_some() {
        let Some(_lock) = Lock::take(&app.queued_deploy_lock())? else {
            thread::sleep(LOOK);
            continue;
        };
        let mut pause = SHORTEST_PAUSE;
        while let Some(next) = queued(app)? {
            let Some(exit) = deploy(&next) else {
                let patience = Deadline::after(pause);
                // For another push it may be different.
                while queued(app)?.as_ref() == Some(&next) && patience.sleep(LOOK) {}
                pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                continue;
            };
            (last, pause) = (exit, SHORTEST_PAUSE);
            let _queue = lock(app)?;
            if queued(app)?.as_ref() == Some(&next) {
                durable::remove(&app.queued())?;
            }
        }
    }
    Ok(last)
}
