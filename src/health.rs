//! The health check: one question to a port, and what the answer must be like.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use regex::bytes::Regex;

use crate::http::{self, Answer};
use crate::outcome::quote;

/// How many bytes of an unexpected body are quoted.
const QUOTED_BYTES: usize = 200;
/// How many lines of it at the most.
const QUOTED_LINES: usize = 5;

/// What a healthy answer is like.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// The path asked for; empty: it is enough that the port accepts a connection.
    pub path: String,
    /// The request's header fields beyond those of every request, their names in lower case.
    pub fields: BTreeMap<String, String>,
    /// The status codes that are fine.
    pub status: StatusSet,
    /// What the body must match, in its first 64 KiB; None: anything.
    pub body: Option<Regex>,
}

impl Expectation {
    /// Checks a port of this machine once. Ok: the expected answer came within `timeout`. Err: what came instead, in
    /// words (`connection refused`, `status 500: database password wrong`).
    pub fn check(&self, port: u16, timeout: Duration) -> Result<(), String> {
        if self.path.is_empty() {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let connected = TcpStream::connect_timeout(&address, timeout);
            return connected.map(drop).map_err(|error| match error.kind() {
                std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
                _ => error.to_string(),
            });
        }
        let answer = self.ask(port, &self.path, timeout)?;
        if !self.status.contains(answer.status) {
            return Err(unexpected_status(&answer));
        }
        match &self.body {
            Some(pattern) if !pattern.is_match(&answer.body) => Err(format!(
                "status {}, but the body does not match `{pattern}`{}",
                answer.status,
                quoted(&answer.body)
            )),
            _ => Ok(()),
        }
    }

    /// Whether there is an answer at all, whatever it is.
    pub fn is_answered(&self, port: u16, timeout: Duration) -> bool {
        if self.path.is_empty() {
            self.check(port, timeout).is_ok()
        } else {
            self.ask(port, &self.path, timeout).is_ok()
        }
    }

    /// Asks a port of this machine for another path in the same way. The error is in words.
    pub fn ask(&self, port: u16, path: &str, timeout: Duration) -> Result<Answer, String> {
        http::get_with(port, path, &self.fields, timeout)
    }
}

fn unexpected_status(answer: &Answer) -> String {
    let location = answer.headers.get("location").and_then(|value| value.to_str().ok());
    match location {
        Some(location) => format!("status {} to {location}", answer.status),
        None => format!("status {}{}", answer.status, quoted(&answer.body)),
    }
}

/// The beginning of a body on one line, after `: `; nothing for an empty one.
fn quoted(body: &[u8]) -> String {
    let start = String::from_utf8_lossy(body.get(..QUOTED_BYTES).unwrap_or(body));
    let said = quote(start.lines(), QUOTED_LINES);
    if said.is_empty() { said } else { format!(": {said}") }
}

/// A set of status codes, written as people write it: `2xx`, `200`, `200,204,3xx`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusSet(Vec<(u16, u16)>);

impl StatusSet {
    /// 2xx.
    pub fn success() -> StatusSet {
        StatusSet(vec![(200, 299)])
    }

    /// Whether a status code is in the set.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&status))
    }
}

impl std::str::FromStr for StatusSet {
    type Err = String;

    fn from_str(text: &str) -> Result<StatusSet, String> {
        let ranges = text.split(',').map(str::trim).map(|part| {
            if let Some(class) = part.strip_suffix("xx").and_then(|class| class.parse::<u16>().ok())
                && (1..=5).contains(&class)
            {
                return Ok((class * 100, class * 100 + 99));
            }
            match part.parse::<u16>() {
                Ok(code @ 100..=599) => Ok((code, code)),
                _ => Err(format!("expected a status such as 2xx or 200,204, got `{text}`")),
            }
        });
        ranges.collect::<Result<_, _>>().map(StatusSet)
    }
}

/// How long to wait before the next check, `waited` into the wait: a fast app is noticed within 5 ms, a slow one is
/// asked at most four times a second.
pub fn pause(waited: Duration) -> Duration {
    (waited / 20).clamp(Duration::from_millis(5), Duration::from_millis(250))
}
