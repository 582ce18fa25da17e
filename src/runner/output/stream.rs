//! What goes to systemd's journal. supervise never waits for a journal that is behind.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, poll};

use crate::deadline::poll_timeout;

/// Where the journal takes streams of lines.
const JOURNAL: &str = "/run/systemd/journal/stdout";
/// How much is written at once, in bytes: a pipe or socket that takes anything takes this much.
const PART: usize = 4096;
/// How long the journal may take for each part that is left when supervise ends.
const LEFT: Duration = Duration::from_secs(1);

/// A stream of lines.
pub struct Stream {
    to: File,
    /// What has not been taken yet.
    unsent: Vec<u8>,
    /// Whether the next byte begins a line.
    ends_line: bool,
}

impl Stream {
    /// The way of our own standard output.
    pub fn of_standard_output() -> Result<Stream> {
        let to = io::stdout().as_fd().try_clone_to_owned().context("cannot write to standard output")?;
        Ok(Stream::to(to))
    }

    /// One of its own, whose lines the journal calls so; without a journal, the way of our own standard output.
    pub fn of_journal(identifier: &str) -> Result<Stream> {
        connect(identifier).map(Stream::to).or_else(|_| Stream::of_standard_output())
    }

    fn to(to: OwnedFd) -> Stream {
        Stream { to: to.into(), unsent: Vec::new(), ends_line: true }
    }

    /// Whether the journal has not taken everything yet.
    pub fn is_behind(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Sends these bytes as they are.
    pub fn put(&mut self, bytes: &[u8]) {
        self.ends_line = bytes.last().map_or(self.ends_line, |last| *last == b'\n');
        self.unsent.extend_from_slice(bytes);
        self.send();
    }

    /// Sends a line of its own.
    pub fn put_line(&mut self, line: &str) {
        let end = if self.ends_line { "" } else { "\n" };
        self.put(format!("{end}{line}\n").as_bytes());
    }

    /// Sends as much as is taken at once.
    pub fn send(&mut self) {
        self.send_within(Duration::ZERO);
    }

    /// Sends what is left.
    pub fn finish(&mut self) {
        self.send_within(LEFT);
    }

    fn send_within(&mut self, patience: Duration) {
        let mut sent = 0;
        while sent < self.unsent.len() && self.takes_more(patience) {
            let part = self.unsent.get(sent..).unwrap_or_default();
            match self.to.write(part.get(..PART).unwrap_or(part)) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A journal that is gone is no reason to stop.
                Err(_) => sent = self.unsent.len(),
            }
        }
        self.unsent.drain(..sent);
    }

    fn takes_more(&self, patience: Duration) -> bool {
        let mut watched = [PollFd::new(self.to.as_fd(), PollFlags::POLLOUT)];
        poll(&mut watched, poll_timeout(Some(patience))).is_ok_and(|ready| ready > 0)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.to.as_fd()
    }
}

/// Opens a stream as sd_journal_stream_fd(3) does: its lines are of this identifier and of priority 6 (informational) unless
/// they begin with another one, and are not forwarded.
fn connect(identifier: &str) -> io::Result<OwnedFd> {
    let mut stream = UnixStream::connect(JOURNAL)?;
    stream.shutdown(Shutdown::Read)?;
    // The empty line is the unit's, which the journal knows.
    stream.write_all(format!("{identifier}\n\n6\n1\n0\n0\n0\n").as_bytes())?;
    Ok(stream.into())
}
