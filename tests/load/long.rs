//! Owns the single long exchanges: a slow answer, a download, an upload and a WebSocket, which
//! take time on purpose and must come through whole whatever happens meanwhile.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::failure::{Failure, Kind};
use super::http::{Connection, Head, Response};

/// How long an exchange may take beyond the time it takes on purpose.
const PATIENCE: Duration = Duration::from_secs(30);

/// A piece of a paced transfer.
const PIECE: usize = 64 * 1024;

/// The sample app's download repeats the bytes 0 to 250: a prime length, so that no lost or
/// doubled piece of a usual size leaves the rest in step.
const PERIOD: u64 = 251;

/// How a transfer takes its time.
#[derive(Clone)]
pub enum Pace {
    /// Evenly, over so long.
    Over(Duration),
    /// Half of it at once, and the other half when this is true.
    HalfUntil(Arc<AtomicBool>),
}

impl Pace {
    /// How long the transfer takes on purpose.
    fn takes(&self) -> Duration {
        match self {
            Pace::Over(time) => *time,
            Pace::HalfUntil(_) => PATIENCE,
        }
    }

    /// Sleeps as long as `done` of `whole` is ahead of its time, in a transfer that began at `began`.
    fn keep(&self, began: Instant, done: u64, whole: u64) {
        match self {
            Pace::Over(time) => {
                let due = time.mul_f64(done as f64 / whole.max(1) as f64);
                thread::sleep(due.saturating_sub(began.elapsed()));
            }
            Pace::HalfUntil(released) => {
                while done >= whole / 2 && !released.load(Ordering::Relaxed) && began.elapsed() < PATIENCE {
                    thread::sleep(Duration::from_millis(5));
                }
            }
        }
    }
}

/// `GET /held`, which answers when this file is there; gives the version that answered.
pub fn held(target: SocketAddr, until: &Path) -> Result<String, Failure> {
    version(target, &format!("/held?{}", until.display()), PATIENCE)
}

/// `GET /slow`, which answers after `delay`; gives the version that answered.
pub fn slow(target: SocketAddr, delay: Duration) -> Result<String, Failure> {
    version(target, &format!("/slow?ms={}", delay.as_millis()), delay)
}

fn version(target: SocketAddr, path: &str, takes: Duration) -> Result<String, Failure> {
    let response = open(target, takes)?.exchange("GET", path, &[], &[])?;
    response.expect_success()?;
    Ok(response.first_line())
}

/// `GET /big`: receives `bytes` bytes, at this pace, and checks each of them.
pub fn download(target: SocketAddr, bytes: u64, pace: &Pace) -> Result<(), Failure> {
    let mut connection = open(target, pace.takes())?;
    let path = format!("/big?bytes={bytes}");
    let request = connection.head_of_request("GET", &path, &[], 0);
    connection.send(&request)?;
    let head = connection.receive_head()?;

    let (began, mut received, mut wrong_at) = (Instant::now(), 0, None);
    let expected: Vec<u8> = (0..PIECE as u64 + PERIOD).map(|at| (at % PERIOD) as u8).collect();
    let mut said = Vec::new();
    let success = head.status == 200;
    connection.receive_body(&head, |piece| {
        if !success {
            said.extend_from_slice(piece);
            return;
        }
        let offset = (received % PERIOD) as usize;
        if piece != &expected[offset..offset + piece.len()] {
            wrong_at.get_or_insert(received);
        }
        received += piece.len() as u64;
        pace.keep(began, received, bytes);
    })?;

    let response = Response { head, body: said };
    response.expect_success()?;
    if let Some(offset) = wrong_at {
        let detail = format!("the download differs within 64 KiB after byte {offset}");
        return Err(Failure::new(Kind::WrongBody, detail));
    }
    if received != bytes {
        let detail = format!("a download of {received} bytes for {bytes} asked");
        return Err(Failure::new(Kind::WrongBody, detail));
    }
    Ok(())
}

/// `POST /upload`: sends `bytes` bytes, at this pace; the answer must count them.
pub fn upload(target: SocketAddr, bytes: u64, pace: &Pace) -> Result<(), Failure> {
    let mut connection = open(target, pace.takes())?;
    let length = usize::try_from(bytes).expect("an upload that fits the address space");
    let request = connection.head_of_request("POST", "/upload", &[], length);
    connection.send(&request)?;

    // Small uploads come in pieces too: twenty at least.
    let largest = PIECE.min(length.div_ceil(20)).max(1);
    let piece = vec![b'u'; largest];
    let (began, mut sent) = (Instant::now(), 0);
    while sent < length {
        let next = largest.min(length - sent);
        connection.send(&piece[..next])?;
        sent += next;
        pace.keep(began, sent as u64, bytes);
    }

    let head = connection.receive_head()?;
    let mut body = Vec::new();
    connection.receive_body(&head, |piece| body.extend_from_slice(piece))?;
    let response = Response { head, body };
    response.expect_success()?;
    match response.first_line() {
        count if count == bytes.to_string() => Ok(()),
        count => Err(Failure::new(Kind::WrongBody, format!("{bytes} bytes sent, and the app counted {count:?}"))),
    }
}

/// Opens a WebSocket on `/ws`, where the app echoes each message.
pub fn websocket(target: SocketAddr) -> Result<WebSocket, Failure> {
    let mut connection = open(target, Duration::ZERO)?;
    let request = connection.head_of_request("GET", "/ws", &WebSocket::HANDSHAKE, 0);
    connection.send(&request)?;
    let head = connection.receive_head()?;
    WebSocket::check(&head)?;
    let pings = 0;
    Ok(WebSocket { connection, pings })
}

/// An open WebSocket (RFC 6455).
pub struct WebSocket {
    connection: Connection,
    pings: u64,
}

impl WebSocket {
    /// The RFC's own key, whose acceptance the RFC gives too: nothing to compute.
    const HANDSHAKE: [(&str, &str); 4] = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    const ACCEPTANCE: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

    /// A final frame of text, or that closes.
    const TEXT: u8 = 0x81;
    const CLOSE: u8 = 0x88;
    const MASKED: u8 = 0x80;
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    fn check(head: &Head) -> Result<(), Failure> {
        if head.status != 101 {
            let detail = format!("{} for a WebSocket's handshake", head.status);
            return Err(Failure::new(Kind::WrongStatus, detail));
        }
        match head.header("sec-websocket-accept") {
            Some(Self::ACCEPTANCE) => Ok(()),
            other => Err(Failure::new(Kind::WrongBody, format!("the WebSocket's acceptance is {other:?}"))),
        }
    }

    /// Sends a text no earlier ping has sent, and checks its echo.
    pub fn ping(&mut self) -> Result<(), Failure> {
        self.pings += 1;
        let text = format!("ping {}", self.pings);
        self.connection.begin();
        self.send(Self::TEXT, text.as_bytes())?;
        let (opcode, echo) = self.receive()?;
        if opcode == Self::TEXT && echo == text.as_bytes() {
            return Ok(());
        }
        let echo = String::from_utf8_lossy(&echo);
        let detail = format!("frame {opcode:#04x} {echo:?} for {text:?}");
        let closed = opcode == Self::CLOSE;
        let kind = if closed { Kind::Closed } else { Kind::WrongBody };
        Err(Failure::new(kind, detail))
    }

    /// Closes it in the orderly way: each side says so.
    pub fn close(mut self) -> Result<(), Failure> {
        self.connection.begin();
        self.send(Self::CLOSE, &[])?;
        match self.receive()? {
            (Self::CLOSE, _) => Ok(()),
            (opcode, _) => Err(Failure::new(Kind::WrongBody, format!("frame {opcode:#04x} for a close"))),
        }
    }

    /// A frame below 126 bytes; a client must mask what it sends.
    fn send(&mut self, opcode: u8, payload: &[u8]) -> Result<(), Failure> {
        assert!(payload.len() < 126, "a longer frame has another header");
        let mut frame = vec![opcode, Self::MASKED | payload.len() as u8];
        frame.extend_from_slice(&Self::MASK);
        let masked = payload.iter().zip(Self::MASK.iter().cycle());
        frame.extend(masked.map(|(byte, mask)| byte ^ mask));
        self.connection.send(&frame)
    }

    fn receive(&mut self) -> Result<(u8, Vec<u8>), Failure> {
        let mut header = Vec::new();
        self.connection.receive_exactly(2, |piece| header.extend_from_slice(piece))?;
        let length = match header[1] {
            length @ 0..126 => u64::from(length),
            _ => return Err(Failure::new(Kind::Other, "a frame longer than any sent")),
        };
        let mut payload = Vec::new();
        self.connection.receive_exactly(length, |piece| payload.extend_from_slice(piece))?;
        Ok((header[0], payload))
    }
}

fn open(target: SocketAddr, takes: Duration) -> Result<Connection, Failure> {
    Connection::open(target, &target.to_string(), takes + PATIENCE)
}
