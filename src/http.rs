//! HTTP, as much as is needed of it: one GET over loopback, for the health check and for nginx's confirmation; and, in
//! [`request`], one request served.

pub mod request;

use std::io::Read;
use std::time::Duration;

use ureq::Agent;
use ureq::http::HeaderMap;

use crate::output;

/// How much of an answer's body is read; an app may answer a health check with megabytes.
const BODY_LIMIT: u64 = 64 * 1024;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The answer's header fields.
    pub headers: HeaderMap,
    /// The first 64 KiB of the body.
    pub body: Vec<u8>,
}

/// Asks `http://127.0.0.1:PORT/PATH` once. Redirects are not followed and proxies of the environment are not used: the
/// question is what this very port answers. The error is in words, such as `connection refused`.
pub fn get(port: u16, path: &str, timeout: Duration) -> Result<Answer, String> {
    let agent: Agent = Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent(concat!("cutover/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let asked = agent.get(format!("http://127.0.0.1:{port}{path}")).header("Connection", "close").call();
    let response = asked.map_err(|error| in_words(&error, timeout))?;
    let (parts, body) = response.into_parts();
    let mut read = Vec::new();
    let received = body.into_reader().take(BODY_LIMIT).read_to_end(&mut read);
    received.map_err(|error| match ureq::Error::from(error) {
        ureq::Error::Timeout(_) => format!("no whole answer within {}", output::span(timeout)),
        error => format!("no whole answer: {}", in_words(&error, timeout)),
    })?;
    Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body: read })
}

fn in_words(error: &ureq::Error, timeout: Duration) -> String {
    match error {
        ureq::Error::Io(io) => match io.kind() {
            std::io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            std::io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
            std::io::ErrorKind::UnexpectedEof => "connection closed without an answer".to_owned(),
            _ => io.to_string(),
        },
        ureq::Error::Timeout(_) => format!("no answer within {}", output::span(timeout)),
        other => other.to_string(),
    }
}
