//! A load on a web server that counts lost requests honestly.
//!
//! One thread per connection sends one request after the other and checks each answer. Nothing
//! is ever sent twice: a kept-alive connection that ends without the server having announced it
//! is a lost request, for that is what a client would see.
//!
//! `Load` is the running load and `Report` its counts; `slow`, `download`, `upload` and
//! `websocket` are single long exchanges, to have in flight while something happens.

// Each crate that includes this library uses a part of it.
#![allow(dead_code, unused_imports)]

mod client;
mod failure;
mod http;
mod long;
mod report;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use client::Client;
pub use failure::{Failure, Kind};
pub use http::Connection;
pub use long::{Pace, WebSocket, download, held, slow, upload, websocket};
pub use report::{Report, Sample};

/// What to send, and where.
#[derive(Clone, Debug)]
pub struct Plan {
    pub target: SocketAddr,
    /// The `Host` header.
    pub host: String,
    /// What the GETs ask for; the POSTs go to `/echo`.
    pub path: String,
    /// Connections that are used again and again, until the server announces their end.
    pub kept_alive: usize,
    /// Connections that make one request each, and are followed by a new one.
    pub fresh: usize,
    /// How many of a hundred requests are POSTs.
    pub post_share: u8,
    /// The pause between two requests of a connection, to leave the processors to others.
    pub pace: Option<Duration>,
    /// How long a request may take.
    pub timeout: Duration,
}

impl Plan {
    /// A middling load on `target`: 16 kept-alive connections, 4 fresh ones, a quarter POSTs. The scheduler of a busy
    /// machine keeps an app waiting for ten seconds at times; a lost request is still lost after sixty.
    pub fn on(target: SocketAddr) -> Plan {
        Plan {
            target,
            host: target.to_string(),
            path: "/".to_owned(),
            kept_alive: 16,
            fresh: 4,
            post_share: 25,
            pace: Some(Duration::from_millis(2)),
            timeout: Duration::from_secs(60),
        }
    }
}

/// A running load. Dropping it ends it.
pub struct Load {
    shared: Arc<Shared>,
    workers: Vec<Worker>,
}

/// What the threads of a load have in common.
struct Shared {
    plan: Plan,
    started: Instant,
    stopping: AtomicBool,
    report: Mutex<Report>,
}

struct Worker {
    thread: JoinHandle<()>,
    /// How many requests it has finished and recorded.
    finished: Arc<AtomicU64>,
}

impl Load {
    pub fn start(plan: Plan) -> Load {
        let connections = plan.kept_alive + plan.fresh;
        let shared = Arc::new(Shared {
            plan,
            started: Instant::now(),
            stopping: AtomicBool::new(false),
            report: Mutex::default(),
        });
        let workers = (0..connections).map(|number| Worker::start(Arc::clone(&shared), number)).collect();
        Load { shared, workers }
    }

    /// The counts now, without the requests in flight.
    pub fn snapshot(&self) -> Report {
        let mut report = self.shared.report().clone();
        report.elapsed = self.shared.started.elapsed();
        report
    }

    /// Waits until every request in flight is answered or lost, and then gives the counts. What
    /// a later report has since this one are only requests that began after the call.
    pub fn settled(&self) -> Report {
        let finished = |worker: &Worker| worker.finished.load(Ordering::Acquire);
        let before: Vec<u64> = self.workers.iter().map(finished).collect();
        for (worker, before) in self.workers.iter().zip(before) {
            while finished(worker) == before && !worker.thread.is_finished() {
                worker.thread.thread().unpark();
                thread::sleep(Duration::from_micros(200));
            }
        }
        self.snapshot()
    }

    /// Lets the requests in flight finish, ends the load and gives the counts.
    pub fn stop(mut self) -> Report {
        self.end();
        self.snapshot()
    }

    fn end(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        for worker in &self.workers {
            worker.thread.thread().unpark();
        }
        for worker in self.workers.drain(..) {
            // A worker does not panic, and one that did has shown why on stderr.
            let _ = worker.thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn report(&self) -> std::sync::MutexGuard<'_, Report> {
        self.report.lock().expect("nothing panics while it counts")
    }
}

impl Worker {
    fn start(shared: Arc<Shared>, number: usize) -> Worker {
        let finished = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&finished);
        let thread = thread::spawn(move || Worker::run(&shared, number, &counter));
        Worker { thread, finished }
    }

    fn run(shared: &Shared, number: usize, finished: &AtomicU64) {
        let mut client = Client::new(&shared.plan, number);
        while !shared.stopping.load(Ordering::Acquire) {
            let outcome = client.next_request();
            shared.report().record(shared.started.elapsed(), outcome);
            finished.fetch_add(1, Ordering::Release);
            if let Some(pause) = shared.plan.pace.max(client.pause_after_refusal()) {
                thread::park_timeout(pause);
            }
        }
    }
}
