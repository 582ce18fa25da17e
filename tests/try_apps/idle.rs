//! How an app's server treats kept-alive connections: how long it keeps one on which nothing is asked, and whether others
//! wait because of those that are kept.

use std::net::SocketAddr;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::load::{Connection, Failure};

/// How long a server is watched. Tomcat's 60 s are within it.
const LIMIT: Duration = Duration::from_secs(65);
/// How many connections nginx keeps by default.
const KEPT: usize = 32;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is more than a busy machine's delay.
const LONG: Duration = Duration::from_millis(600);

/// What was found.
pub struct Idle {
    /// After what time an idle connection is closed; None: not within `LIMIT`.
    closed_after: Option<Duration>,
    /// How long one request on each of the kept connections takes, all made at once.
    asked: Duration,
}

impl Idle {
    /// Asks a server on its own port.
    pub fn measure(address: SocketAddr, host: &str, path: &str) -> Result<Idle, Failure> {
        let open = || -> Result<(Connection, bool), Failure> {
            let mut connection = Connection::open(address, host, PATIENCE)?;
            let keeps_alive = connection.exchange("GET", path, &[], &[])?.head.keeps_alive();
            Ok((connection, keeps_alive))
        };
        if !open()?.1 {
            return Ok(Idle { closed_after: Some(Duration::ZERO), asked: Duration::ZERO });
        }
        let mut kept = (0..KEPT).map(|_| Ok(open()?.0)).collect::<Result<Vec<Connection>, Failure>>()?;
        let asked = ask_all(&mut kept, path)?;
        drop(kept);
        Ok(Idle { closed_after: open()?.0.closed_after(LIMIT)?, asked })
    }

    /// As the page's table says it: after what time one is closed, and whether others wait.
    pub fn in_words(&self) -> (String, String) {
        let closed = match self.closed_after {
            None => format!("not within {} s", LIMIT.as_secs()),
            Some(time) if time < Duration::from_millis(100) => "at once".to_owned(),
            Some(time) => format!("after {:.0} s", time.as_secs_f64()),
        };
        let wait = if self.asked > LONG { "yes" } else { "no" };
        (closed, wait.to_owned())
    }

    /// Whether the page says that. It may be a second off: versions differ, and servers look only now and then.
    pub fn is_as_said(&self, closed: &str, waits: &str) -> bool {
        let seconds = |text: &str| text.strip_prefix("after ")?.strip_suffix(" s")?.parse::<i64>().ok();
        let found = self.in_words();
        let is_near = seconds(closed).zip(seconds(&found.0)).is_some_and(|(said, found)| (said - found).abs() <= 1);
        (is_near || closed == found.0) && waits == found.1
    }

    /// Whether others wait, with the figure.
    pub fn asked(&self) -> String {
        format!("{} ({:.2} s)", self.in_words().1, self.asked.as_secs_f64())
    }
}

/// Makes a request on each connection at the same moment; returns after what time the last one was answered.
fn ask_all(connections: &mut [Connection], path: &str) -> Result<Duration, Failure> {
    let together = Barrier::new(connections.len());
    let ask = |connection: &mut Connection| {
        together.wait();
        let began = Instant::now();
        connection.exchange("GET", path, &[], &[])?;
        Ok(began.elapsed())
    };
    thread::scope(|scope| {
        let asked: Vec<_> = connections.iter_mut().map(|connection| scope.spawn(|| ask(connection))).collect();
        let mut times = asked.into_iter().map(|thread| thread.join().unwrap());
        times.try_fold(Duration::ZERO, |longest, time: Result<Duration, Failure>| Ok(longest.max(time?)))
    })
}
