//! Exchanges that take long on purpose, to be in flight while switches happen.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::Duration;

use crate::load::{self, Failure, Pace};
use crate::tally::Tally;

/// How long a slow answer takes.
const SLOW: Duration = Duration::from_secs(2);
/// How long a download or upload takes.
const TRANSFER: Duration = Duration::from_secs(4);
const DOWNLOAD: u64 = 50_000_000;
const UPLOAD: u64 = 5_000_000;
/// The pause between two messages on a WebSocket, and after a failure.
const PAUSE: Duration = Duration::from_millis(20);

/// What is in flight: its name, and how many at the same time.
const EXCHANGES: [(&str, usize); 4] = [
    ("slow answers (2 s)", 16),
    ("downloads (50 MB in 4 s)", 2),
    ("uploads (5 MB in 4 s)", 2),
    ("messages on open WebSockets", 4),
];

/// Keeps exchanges of each kind in flight, the next one beginning as soon as one ends, while `meanwhile` runs.
pub fn during(target: SocketAddr, meanwhile: impl FnOnce()) -> Vec<(&'static str, Tally)> {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let exchanges: [fn(SocketAddr) -> Result<(), Failure>; 3] = [
            |target| load::slow(target, SLOW).map(drop),
            |target| load::download(target, DOWNLOAD, &Pace::Over(TRANSFER)),
            |target| load::upload(target, UPLOAD, &Pace::Over(TRANSFER)),
        ];
        let mut groups: Vec<Vec<_>> = Vec::new();
        for ((_, count), exchange) in EXCHANGES.iter().zip(exchanges) {
            groups.push((0..*count).map(|_| repeat(scope, target, exchange, &ended)).collect());
        }
        let (_, count) = EXCHANGES[3];
        groups.push((0..count).map(|_| scope.spawn(|| converse(target, &ended))).collect());

        thread::sleep(PAUSE * 10);
        meanwhile();
        ended.store(true, Ordering::Release);
        EXCHANGES.iter().zip(groups).map(|((name, _), group)| (*name, sum(group))).collect()
    })
}

fn repeat<'scope>(
    scope: &'scope Scope<'scope, '_>,
    target: SocketAddr,
    exchange: fn(SocketAddr) -> Result<(), Failure>,
    ended: &'scope AtomicBool,
) -> ScopedJoinHandle<'scope, Tally> {
    scope.spawn(move || {
        let mut tally = Tally::default();
        while !ended.load(Ordering::Acquire) {
            tally.count(exchange(target).inspect_err(|_| thread::sleep(PAUSE)));
        }
        tally
    })
}

/// One WebSocket that stays open for all the time; a new one only follows one that broke.
fn converse(target: SocketAddr, ended: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    while !ended.load(Ordering::Acquire) {
        let mut talk = || -> Result<(), Failure> {
            let mut socket = load::websocket(target)?;
            while !ended.load(Ordering::Acquire) {
                socket.ping()?;
                tally.count(Ok(()));
                thread::sleep(PAUSE);
            }
            socket.close()
        };
        let talked = talk().inspect_err(|_| thread::sleep(PAUSE));
        tally.count(talked);
    }
    tally
}

fn sum(group: Vec<ScopedJoinHandle<'_, Tally>>) -> Tally {
    let mut all = Tally::default();
    for thread in group {
        all.add(&thread.join().unwrap());
    }
    all
}
