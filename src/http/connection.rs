//! Connections of ureq's over sockets that it does not make by itself: of Docker's, and from an address of choice.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::socket::sockopt::SendTimeout;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket};
use nix::sys::time::TimeVal;
use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};

/// Connects to an address of this machine's from the same one: nginx tells by that who asks from this machine.
#[derive(Debug)]
pub struct FromTheSame;

impl Connector for FromTheSame {
    type Out = Connection;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<Connection>, Error> {
        let stream = connect_to(details)?;
        Ok(Some(Connection::new(stream.into(), details)))
    }
}

fn connect_to(details: &ConnectionDetails) -> Result<TcpStream, Error> {
    let Some(at) = details.addrs.iter().next() else { return Err(Error::HostNotFound) };
    let patience = details.timeout.not_zero().map_or(LONGEST, |patience| *patience);
    connect(*at, patience).map_err(|error| in_time(error, details.timeout))
}

/// Connects in the same way, and keeps the connection open.
#[derive(Debug, Default)]
pub struct Keeping(Kept);

/// A connection that is kept, once there is one.
#[derive(Clone, Debug, Default)]
pub struct Kept(Arc<Mutex<Option<TcpStream>>>);

impl Keeping {
    /// Where it can be had.
    pub fn kept(&self) -> Kept {
        self.0.clone()
    }
}

impl Kept {
    /// The connection; None: none was made.
    pub fn take(&self) -> Option<TcpStream> {
        self.0.lock().ok()?.take()
    }
}

impl Connector for Keeping {
    type Out = Connection;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<Connection>, Error> {
        let stream = connect_to(details)?;
        if let Ok(mut kept) = self.0.0.lock() {
            *kept = Some(stream.try_clone()?);
        }
        Ok(Some(Connection::new(stream.into(), details)))
    }
}

/// How long a connection may take that nobody has given a time.
const LONGEST: Duration = Duration::from_secs(60);

/// Connects to an address, from the same one if it is one of this machine's.
pub fn connect(at: SocketAddr, patience: Duration) -> io::Result<TcpStream> {
    // The kernel chooses that one by itself.
    if at.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) || !is_local(at.ip()) {
        return TcpStream::connect_timeout(&at, patience);
    }
    let family = if at.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // How long a write may take is how long a connection may.
    let seconds = i64::try_from(patience.as_secs()).unwrap_or(i64::MAX);
    setsockopt(&socket, SendTimeout, &TimeVal::new(seconds, patience.subsec_micros().into()))?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(at.ip(), 0)))?;
    nix::sys::socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(at))?;
    Ok(TcpStream::from(socket))
}

/// Whether an address is one of this machine's.
pub fn is_local(ip: IpAddr) -> bool {
    UdpSocket::bind(SocketAddr::new(ip, 0)).is_ok()
}

/// A connection, over whatever kind of socket.
pub struct Connection {
    stream: UnixStream,
    buffers: LazyBuffers,
}

impl Connection {
    /// A connection by a socket that is connected.
    pub fn new(socket: OwnedFd, details: &ConnectionDetails) -> Connection {
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        // The standard library has no type for a stream of any kind; what is called of this one asks for none.
        Connection { stream: UnixStream::from(socket), buffers }
    }
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.set_write_timeout(timeout.not_zero().map(|left| *left))?;
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        self.stream.write_all(output).map_err(|error| in_time(error, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.set_read_timeout(timeout.not_zero().map(|left| *left))?;
        let count = loop {
            match self.stream.read(self.buffers.input_append_buf()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read.map_err(|error| in_time(error, timeout))?,
            }
        };
        self.buffers.input_appended(count);
        Ok(count > 0)
    }

    fn is_open(&mut self) -> bool {
        // Whoever was restarted meanwhile has closed it: what was kept is not used again.
        false
    }
}

/// A socket's timeout is told as "would block".
fn in_time(error: io::Error, timeout: NextTimeout) -> Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::Timeout(timeout.reason),
        _ => Error::Io(error),
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("stream", &self.stream).finish_non_exhaustive()
    }
}
