//! Owns one HTTP/1.1 connection, written by hand on a blocking socket.
//!
//! By hand on purpose: a client library pools, retries and folds errors together, and what is
//! measured here is exactly that: whether a request had to be repeated, and how it was lost.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::failure::{Failure, Kind};

/// Longer than any header line of a sane server.
const LONGEST_LINE: usize = 64 * 1024;

/// A connection, and how far the exchange on it has come.
pub struct Connection {
    reader: BufReader<TcpStream>,
    host: String,
    timeout: Duration,
    deadline: Instant,
    /// Whether a byte of the current answer has arrived: it parts "closed" from "cut short".
    answering: bool,
}

/// An answer up to the empty line.
pub struct Head {
    pub status: u16,
    version: String,
    headers: Vec<(String, String)>,
}

/// A whole answer.
pub struct Response {
    pub head: Head,
    pub body: Vec<u8>,
}

impl Connection {
    /// Connects; each exchange afterwards may take up to `timeout`.
    pub fn open(target: SocketAddr, host: &str, timeout: Duration) -> Result<Self, Failure> {
        let stream = TcpStream::connect_timeout(&target, timeout)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        Ok(Connection {
            reader: BufReader::with_capacity(64 * 1024, stream),
            host: host.to_owned(),
            timeout,
            deadline: Instant::now() + timeout,
            answering: false,
        })
    }

    /// Sends a request with its body in one piece and receives the whole answer.
    pub fn exchange(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, Failure> {
        let mut request = self.head_of_request(method, path, headers, body.len());
        request.extend_from_slice(body);
        self.expect_silence()?;
        self.begin();
        self.send(&request)?;
        let head = self.receive_head()?;
        let mut body = Vec::new();
        self.receive_body(&head, |piece| body.extend_from_slice(piece))?;
        Ok(Response { head, body })
    }

    /// A request up to the empty line; `length` bytes of body are to follow it.
    pub fn head_of_request(&self, method: &str, path: &str, headers: &[(&str, &str)], length: usize) -> Vec<u8> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.host);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if length > 0 || method == "POST" {
            head.push_str(&format!("Content-Length: {length}\r\n"));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// Nothing may follow an answer before the next request.
    fn expect_silence(&self) -> Result<(), Failure> {
        if self.reader.buffer().is_empty() {
            return Ok(());
        }
        let detail = "the previous answer was followed by more bytes than it announced";
        Err(Failure::new(Kind::Other, detail))
    }

    /// Starts an exchange: its time runs from here.
    pub fn begin(&mut self) {
        self.deadline = Instant::now() + self.timeout;
        self.answering = false;
    }

    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        Ok(self.reader.get_mut().write_all(bytes)?)
    }

    /// Receives a status line and headers, passing over interim answers (1xx) but 101.
    pub fn receive_head(&mut self) -> Result<Head, Failure> {
        loop {
            let head = self.receive_any_head()?;
            if head.status >= 200 || head.status == 101 {
                return Ok(head);
            }
        }
    }

    fn receive_any_head(&mut self) -> Result<Head, Failure> {
        let first = self.line()?;
        let no_http = || Failure::new(Kind::Other, format!("no HTTP status line: {first:?}"));
        let mut words = first.split(' ');
        let version = words.next().filter(|word| word.starts_with("HTTP/1."));
        let status = words.next().and_then(|word| word.parse().ok());
        let (version, status) = version.zip(status).ok_or_else(no_http)?;
        let mut head = Head { status, version: version.to_owned(), headers: Vec::new() };
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(head);
            }
            let (name, value) =
                line.split_once(':').ok_or_else(|| Failure::new(Kind::Other, format!("no header: {line:?}")))?;
            let (name, value) = (name.to_ascii_lowercase(), value.trim().to_owned());
            head.headers.push((name, value));
        }
    }

    /// Receives the body that `head` announces, piece by piece.
    pub fn receive_body(&mut self, head: &Head, mut sink: impl FnMut(&[u8])) -> Result<(), Failure> {
        if matches!(head.status, 101 | 204 | 304) {
            return Ok(());
        }
        if head.says("transfer-encoding", "chunked") {
            return self.receive_chunks(sink);
        }
        if let Some(length) = head.header("content-length") {
            return self.receive_exactly(number(length, 10)?, sink);
        }
        // Without a length the end of the connection is the end of the body.
        while let Some(piece) = self.piece()? {
            sink(piece);
            let length = piece.len();
            self.reader.consume(length);
        }
        Ok(())
    }

    fn receive_chunks(&mut self, mut sink: impl FnMut(&[u8])) -> Result<(), Failure> {
        loop {
            let line = self.line()?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = number(size, 16)?;
            if size == 0 {
                break;
            }
            self.receive_exactly(size, &mut sink)?;
            if !self.line()?.is_empty() {
                return Err(Failure::new(Kind::Other, "a chunk longer than it announced"));
            }
        }
        // Trailers, up to an empty line.
        while !self.line()?.is_empty() {}
        Ok(())
    }

    /// Receives `length` bytes, no more and no fewer.
    pub fn receive_exactly(&mut self, length: u64, mut sink: impl FnMut(&[u8])) -> Result<(), Failure> {
        let mut missing = length;
        while missing > 0 {
            let piece = self.some_piece()?;
            let wanted = usize::try_from(missing).unwrap_or(usize::MAX);
            let piece = &piece[..piece.len().min(wanted)];
            sink(piece);
            let length = piece.len();
            missing -= length as u64;
            self.reader.consume(length);
        }
        Ok(())
    }

    /// After what time the server closes the connection when nothing is asked on it; None: it keeps it for longer than `limit`.
    pub fn closed_after(&mut self, limit: Duration) -> Result<Option<Duration>, Failure> {
        self.expect_silence()?;
        let began = Instant::now();
        self.deadline = began + limit;
        self.reader.get_ref().set_read_timeout(Some(limit))?;
        match self.piece() {
            Ok(None) => Ok(Some(began.elapsed())),
            Ok(Some(_)) => Err(Failure::new(Kind::Other, "the server speaks without being asked")),
            Err(failure) => match failure.kind {
                Kind::Reset => Ok(Some(began.elapsed())),
                Kind::TimedOut => Ok(None),
                _ => Err(failure),
            },
        }
    }

    fn line(&mut self) -> Result<String, Failure> {
        let mut line = Vec::new();
        loop {
            let piece = self.some_piece()?;
            let end = piece.iter().position(|byte| *byte == b'\n');
            let length = end.map_or(piece.len(), |end| end + 1);
            line.extend_from_slice(&piece[..length]);
            self.reader.consume(length);
            if end.is_some() {
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            if line.len() > LONGEST_LINE {
                return Err(Failure::new(Kind::Other, "a header line without an end"));
            }
        }
    }

    /// The bytes at hand, at least one; the end of the connection is a failure.
    fn some_piece(&mut self) -> Result<&[u8], Failure> {
        let end = if self.answering {
            Failure::new(Kind::CutShort, "the connection ended within the answer")
        } else {
            Failure::new(Kind::Closed, "the connection ended before the answer")
        };
        self.piece()?.ok_or(end)
    }

    /// The bytes at hand, waiting for some; `None` at the end of the connection.
    fn piece(&mut self) -> Result<Option<&[u8]>, Failure> {
        while self.reader.buffer().is_empty() {
            // The socket's own timeout bounds one wait; this, a server that answers in drips.
            if Instant::now() >= self.deadline {
                return Err(Failure::new(Kind::TimedOut, "the answer is not whole in time"));
            }
            match self.reader.fill_buf() {
                Ok([]) => return Ok(None),
                Ok(_) => self.answering = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(self.reader.buffer()))
    }
}

impl Head {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        let found = headers.find(|(key, _)| key == name)?;
        Some(&found.1)
    }

    /// Whether a header's comma-separated list holds the word.
    fn says(&self, name: &str, word: &str) -> bool {
        let list = self.header(name).unwrap_or_default();
        list.split(',').any(|item| item.trim().eq_ignore_ascii_case(word))
    }

    /// Whether the server will take another request on this connection.
    pub fn keeps_alive(&self) -> bool {
        let delimited = self.says("transfer-encoding", "chunked")
            || self.header("content-length").is_some()
            || matches!(self.status, 204 | 304);
        let willing = if self.version == "HTTP/1.0" {
            self.says("connection", "keep-alive")
        } else {
            !self.says("connection", "close")
        };
        delimited && willing
    }
}

impl Response {
    /// The first line of the body, at most 64 characters.
    pub fn first_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        text.lines().next().unwrap_or_default().chars().take(64).collect()
    }

    /// Fails unless the status is 2xx, saying what the server said instead.
    pub fn expect_success(&self) -> Result<(), Failure> {
        match self.head.status {
            200..=299 => Ok(()),
            status => {
                let detail = format!("{status} {}", self.first_line());
                Err(Failure::new(Kind::WrongStatus, detail.trim_end()))
            }
        }
    }
}

fn number(text: &str, radix: u32) -> Result<u64, Failure> {
    u64::from_str_radix(text, radix).map_err(|_| Failure::new(Kind::Other, format!("{text:?} is no length of a body")))
}
