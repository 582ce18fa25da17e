//! Owns the ways in which a request can be lost, and how a socket's error becomes one of them.

use std::fmt;
use std::io;

/// How a request was lost. The order is the order in which a report names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Nobody listened (`ECONNREFUSED`).
    Refused,
    /// The peer reset the connection (`ECONNRESET`, `EPIPE`), before or within its answer.
    Reset,
    /// The peer closed the connection in an orderly way, before the first byte of an answer.
    Closed,
    /// The answer began, and ended before it was whole.
    CutShort,
    /// A whole answer whose status is not the wanted one.
    WrongStatus,
    /// A whole answer with the right status and the wrong content.
    WrongBody,
    /// No whole answer within the time allowed.
    TimedOut,
    /// Anything else: an answer that is no HTTP, an error of the client's own machine.
    Other,
}

impl Kind {
    /// Every kind, in the order of a report.
    pub const ALL: [Kind; 8] = [
        Kind::Refused,
        Kind::Reset,
        Kind::Closed,
        Kind::CutShort,
        Kind::WrongStatus,
        Kind::WrongBody,
        Kind::TimedOut,
        Kind::Other,
    ];

    /// The kind in words, as a report prints it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Refused => "refused",
            Kind::Reset => "reset",
            Kind::Closed => "closed",
            Kind::CutShort => "cut short",
            Kind::WrongStatus => "wrong status",
            Kind::WrongBody => "wrong body",
            Kind::TimedOut => "timed out",
            Kind::Other => "other",
        }
    }
}

/// One lost request: how, and what exactly was seen.
#[derive(Clone, Debug)]
pub struct Failure {
    pub kind: Kind,
    pub detail: String,
}

impl Failure {
    pub fn new(kind: Kind, detail: impl Into<String>) -> Failure {
        let detail = detail.into();
        Failure { kind, detail }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.kind.name(), self.detail)
    }
}

impl std::error::Error for Failure {}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        let kind = match error.kind() {
            io::ErrorKind::ConnectionRefused => Kind::Refused,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => Kind::Reset,
            // A socket's own timeout shows as WouldBlock, that of a connect as TimedOut.
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Kind::TimedOut,
            _ => Kind::Other,
        };
        Failure::new(kind, error.to_string())
    }
}
