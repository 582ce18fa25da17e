//! HTTP over a Unix socket.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, socket};

use ureq::unversioned::transport::{ConnectionDetails, Connector, NextTimeout};
use ureq::{Agent, Error};

use crate::deadline::Deadline;
use crate::http::Loopback;
use crate::http::connection::Connection;

/// How often a socket is tried on which nobody takes connections.
const FULL: Duration = Duration::from_millis(20);

/// An agent that asks whoever listens on this socket, whatever host is named.
pub fn agent(socket: &Path) -> Agent {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent(concat!("cutover/", env!("CARGO_PKG_VERSION")))
        .build();
    Agent::with_parts(config, Socket(socket.to_owned()), Loopback)
}

#[derive(Debug)]
struct Socket(PathBuf);

impl Connector for Socket {
    type Out = Connection;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<Connection>, Error> {
        let stream = connect(&self.0, details.timeout)?;
        Ok(Some(Connection::new(stream.into(), details)))
    }
}

/// Connects in time: where nobody takes connections any more, the kernel lets the next one wait for ever.
fn connect(path: &Path, timeout: NextTimeout) -> Result<UnixStream, Error> {
    let patience = timeout.not_zero().map(|left| Deadline::after(*left));
    let address = UnixAddr::new(path).map_err(io::Error::from)?;
    loop {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None).map_err(io::Error::from)?;
        match nix::sys::socket::connect(socket.as_raw_fd(), &address) {
            Err(Errno::EAGAIN) if patience.is_none_or(|patience| patience.sleep(FULL)) => {}
            Err(Errno::EAGAIN) => return Err(Error::Timeout(timeout.reason)),
            connected => {
                connected.map_err(io::Error::from)?;
                let stream = UnixStream::from(socket);
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
        }
    }
}
