//! HTTP, as much as is needed of it: one GET over loopback, for the health check and for nginx's confirmation; and, in
//! [`request`], one request served.
#![deny(clippy::arithmetic_side_effects)]

pub mod connection;
pub mod request;

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use ureq::Agent;
use ureq::config::Config;
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Connector, NextTimeout};

use crate::output;
use connection::{FromTheSame, Keeping};

/// How much of an answer's body is read; an app may answer a health check with megabytes.
const BODY_LIMIT: u64 = 64 * 1024;
/// HTTP's own port.
pub const PORT: u16 = 80;

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

impl Answer {
    /// How large its header fields are, in bytes.
    pub fn header_size(&self) -> usize {
        let parts = self.headers.iter().flat_map(|(name, value)| [name.as_str().len(), value.len(), ": \r\n".len()]);
        parts.fold(0, usize::saturating_add)
    }
}

/// Asks `http://127.0.0.1:PORT/PATH` once. Redirects are not followed and proxies of the environment are not used: the
/// question is what this very port answers. The error is in words, such as `connection refused`.
pub fn get(port: u16, path: &str, timeout: Duration) -> Result<Answer, String> {
    get_with(port, path, &BTreeMap::new(), timeout)
}

/// [`get`] with further header fields, a `host` in the place of its own among them.
pub fn get_with(port: u16, path: &str, fields: &BTreeMap<String, String>, timeout: Duration) -> Result<Answer, String> {
    call(&format!("http://127.0.0.1:{port}{}", encoded(path)), &closing(fields), (Loopback, FromTheSame), timeout)
}

/// [`get_with`], on a connection that is kept; None: the app says that it keeps none, or its answer is too large to be read whole.
pub fn get_and_keep(
    port: u16,
    path: &str,
    fields: &BTreeMap<String, String>,
    timeout: Duration,
) -> Result<Option<TcpStream>, String> {
    let connector = Keeping::default();
    let kept = connector.kept();
    let answer = call(&format!("http://127.0.0.1:{port}{}", encoded(path)), fields, (Loopback, connector), timeout)?;
    let closes = |value: &HeaderValue| value.to_str().is_ok_and(|value| value.to_ascii_lowercase().contains("close"));
    let is_kept = answer.body.len() < BODY_LIMIT as usize && !answer.headers.get_all("connection").iter().any(closes);
    Ok(kept.take().filter(|_| is_kept))
}

/// [`get`] from a server that is reached at this address and called by this host, which a port may follow.
pub fn ask(at: SocketAddr, host: &str, path: &str, timeout: Duration) -> Result<Answer, String> {
    call(&format!("http://{host}{}", encoded(path)), &closing(&BTreeMap::new()), (At(at), FromTheSame), timeout)
}

/// A path as a request can name it: letters that are not ASCII's by their bytes (RFC 3986, 2.5).
fn encoded(path: &str) -> String {
    let escaped = |letter: char| -> String {
        let mut bytes = [0; 4];
        letter.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02X}")).collect()
    };
    path.chars().map(|letter| if letter.is_ascii() { letter.to_string() } else { escaped(letter) }).collect()
}

/// Header fields by which an app learns that there will be no other request.
fn closing(fields: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut fields = fields.clone();
    fields.insert("connection".to_owned(), "close".to_owned());
    fields
}

fn call(
    url: &str,
    fields: &BTreeMap<String, String>,
    (resolver, connector): (impl Resolver, impl Connector),
    timeout: Duration,
) -> Result<Answer, String> {
    let config = Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent(concat!("cutover/", env!("CARGO_PKG_VERSION")))
        .build();
    let agent = Agent::with_parts(config, connector, resolver);
    let request = fields.iter().fold(agent.get(url), |request, (name, value)| request.header(name, value));
    let asked = request.call();
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

/// Finds every host here. The usual resolver starts a thread for each question, and panics where there is none to be had.
#[derive(Debug)]
pub(crate) struct Loopback;

impl Resolver for Loopback {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut found = self.empty();
        found.push(SocketAddr::from((Ipv4Addr::LOCALHOST, uri.port_u16().unwrap_or(PORT))));
        Ok(found)
    }
}

/// Finds every host at one address.
#[derive(Debug)]
struct At(SocketAddr);

impl Resolver for At {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut found = self.empty();
        found.push(self.0);
        Ok(found)
    }
}

/// Reads the head of an answer, with at most this many fields; its body is not there. None: it is no HTTP.
pub fn read_head(head: &[u8], fields: usize) -> Option<Answer> {
    let mut read = vec![httparse::EMPTY_HEADER; fields];
    let mut response = httparse::Response::new(&mut read);
    response.parse(head).ok()?;
    let headers = response.headers.iter().filter_map(|field| {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        Some((name, HeaderValue::from_bytes(field.value).ok()?))
    });
    Some(Answer { status: response.code?, headers: headers.collect(), body: Vec::new() })
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
