//! The other side: one request read from a stream, and one response written to another, as inetd's services did it.
//!
//! It is strict. A request whose length could be read in two ways is refused, because somebody in front of us may have
//! read it in the other (RFC 9112, 6.3 and 11.2); what follows the request is never read, for the connection ends with
//! the response.
#![deny(clippy::arithmetic_side_effects)]

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

use crate::deadline::{Deadline, poll_timeout};

/// How long the head may be, request line and header fields together, in bytes.
const HEAD_LIMIT: u64 = 16 * 1024;
/// How many header fields there may be.
const MOST_FIELDS: usize = 64;
/// How long a chunk's size line, with its extensions, may be, in bytes.
const CHUNK_LINE_LIMIT: u64 = 256;
/// How long the trailer behind the last chunk may be, in bytes.
const TRAILER_LIMIT: u64 = 4 * 1024;

/// Why a request is not served: the status of the response, and the reason in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status code.
    pub status: u16,
    /// For whoever asks, and for the log. It tells nothing that they do not know.
    pub reason: String,
}

impl Refusal {
    /// A refusal with this status, for this reason.
    pub fn new(status: u16, reason: impl Into<String>) -> Refusal {
        Refusal { status, reason: reason.into() }
    }
}

/// Reads from a descriptor for as long as a deadline allows; then every read fails with [`ErrorKind::TimedOut`].
pub struct Timed<F> {
    file: F,
    deadline: Deadline,
}

impl<F> Timed<F> {
    /// A reader of `file` until `deadline`.
    pub fn new(file: F, deadline: Deadline) -> Timed<F> {
        Timed { file, deadline }
    }
}

impl<F: Read + AsFd> Read for Timed<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = poll_timeout(Some(self.deadline.left()));
        let mut question = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
        match poll(&mut question, left) {
            Ok(0) => Err(ErrorKind::TimedOut.into()),
            Ok(_) => self.file.read(buffer),
            Err(Errno::EINTR) => Err(ErrorKind::Interrupted.into()),
            Err(error) => Err(error.into()),
        }
    }
}

/// How the end of a request's body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// By its length, in bytes.
    Known(u64),
    /// By a last chunk.
    Chunked,
}

/// A request's head, with the body still to be read.
#[derive(Debug)]
pub struct Request<R> {
    /// GET, POST and the like, as it was sent.
    pub method: String,
    /// The path, without what follows a `?`.
    pub path: String,
    fields: Vec<(String, String)>,
    is_old: bool,
    input: BufReader<R>,
}

impl<R: Read> Request<R> {
    /// Reads a head. None: whoever connected said nothing at all.
    pub fn read(input: R) -> Result<Option<Request<R>>, Refusal> {
        let mut input = BufReader::new(input);
        let mut head = Vec::new();
        loop {
            let line = head.len();
            let room = HEAD_LIMIT.saturating_sub(line as u64);
            if room == 0 {
                return Err(Refusal::new(431, "the head is too long"));
            }
            let count = input.by_ref().take(room).read_until(b'\n', &mut head).map_err(|error| cut_short(&error))?;
            match head.get(line..).unwrap_or_default() {
                [] if line == 0 => return Ok(None),
                b"\r\n" if line > 0 => break,
                [.., b'\r', b'\n'] => {}
                [.., b'\n'] => return Err(Refusal::new(400, "a line does not end in CR LF")),
                _ if count as u64 == room => return Err(Refusal::new(431, "the head is too long")),
                _ => return Err(Refusal::new(400, "the head is cut short")),
            }
        }
        let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
        let mut parsed = httparse::Request::new(&mut fields);
        match parsed.parse(&head) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(Refusal::new(400, "the head is cut short")),
            Err(httparse::Error::TooManyHeaders) => return Err(Refusal::new(431, "there are too many header fields")),
            Err(error) => return Err(Refusal::new(400, format!("not a request: {error}"))),
        }
        let (method, target) = (parsed.method.unwrap_or_default(), parsed.path.unwrap_or_default());
        let is_old = parsed.version == Some(0);
        let fields = parsed.headers.iter().map(|field| {
            // No other white space: a length behind a no-break space is no length to anybody else.
            let value = String::from_utf8_lossy(field.value).trim_matches([' ', '\t']).to_owned();
            (field.name.to_ascii_lowercase(), value)
        });
        let request = Request {
            method: method.to_owned(),
            path: target.split('?').next().unwrap_or_default().to_owned(),
            fields: fields.collect(),
            is_old,
            input,
        };
        if !is_old && request.values("host").count() != 1 {
            return Err(Refusal::new(400, "there must be one Host"));
        }
        Ok(Some(request))
    }

    /// All values of a header field, whose name is given in lower case.
    fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.fields.iter().filter(move |(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// The value of a header field, whose name is given in lower case. None: there is no such field, or more than one, of
    /// which nobody can say which is meant.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut values = self.values(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// Whether a header field is there at all.
    pub fn has(&self, name: &str) -> bool {
        self.values(name).next().is_some()
    }

    /// How long the body is said to be. A request without one has the length 0.
    pub fn length(&self) -> Result<Length, Refusal> {
        if self.has("transfer-encoding") {
            let is_alone = !self.has("content-length") && !self.is_old;
            return match self.field("transfer-encoding") {
                Some(coding) if is_alone && coding.eq_ignore_ascii_case("chunked") => Ok(Length::Chunked),
                Some(_) if is_alone => Err(Refusal::new(501, "the only transfer coding known here is chunked")),
                _ => Err(Refusal::new(400, "the length can be read in two ways")),
            };
        }
        match (self.field("content-length"), self.has("content-length")) {
            (None, true) => Err(Refusal::new(400, "the length can be read in two ways")),
            (None, false) => Ok(Length::Known(0)),
            (Some(text), _) => {
                let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                let number = text.parse().ok().filter(|_| is_number);
                number.map(Length::Known).ok_or_else(|| Refusal::new(400, "the length is not a number"))
            }
        }
    }

    /// Reads the body, of at most `limit` bytes. A client that waits to be told to go on is told so on `output`.
    pub fn body(&mut self, limit: u64, output: &mut impl Write) -> Result<Vec<u8>, Refusal> {
        let length = self.length()?;
        if matches!(length, Length::Known(length) if length > limit) {
            return Err(too_long(limit));
        }
        match self.field("expect") {
            None if self.has("expect") => return Err(Refusal::new(417, "there is more than one Expect")),
            Some(other) if !other.eq_ignore_ascii_case("100-continue") => {
                return Err(Refusal::new(417, "the only expectation known here is 100-continue"));
            }
            // To one that has begun already there is no need to say so.
            Some(_) if !self.is_old && self.input.buffer().is_empty() => {
                let told = output.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").and_then(|()| output.flush());
                told.map_err(|error| cut_short(&error))?;
            }
            _ => {}
        }
        let mut body = Vec::new();
        match length {
            Length::Known(length) => self.read_exactly(length, &mut body)?,
            Length::Chunked => self.read_chunks(limit, &mut body)?,
        }
        Ok(body)
    }

    fn read_exactly(&mut self, length: u64, body: &mut Vec<u8>) -> Result<(), Refusal> {
        // Room is made as it is needed: what is announced may never come.
        let read = self.input.by_ref().take(length).read_to_end(body).map_err(|error| cut_short(&error))?;
        if (read as u64) < length {
            return Err(Refusal::new(400, "the body is cut short"));
        }
        Ok(())
    }

    fn read_chunks(&mut self, limit: u64, body: &mut Vec<u8>) -> Result<(), Refusal> {
        loop {
            let line = self.line(CHUNK_LINE_LIMIT)?;
            let size = match httparse::parse_chunk_size(&line) {
                // No digit at all is a 0 to the parser.
                Ok(httparse::Status::Complete((_, size))) if line.first().is_some_and(u8::is_ascii_hexdigit) => size,
                _ => return Err(Refusal::new(400, "a chunk's size is not a number")),
            };
            if size == 0 {
                return self.skip_trailer();
            }
            if size > limit.saturating_sub(body.len() as u64) {
                return Err(too_long(limit));
            }
            self.read_exactly(size, body)?;
            if self.line(2)? != b"\r\n" {
                return Err(Refusal::new(400, "a chunk is longer than its size"));
            }
        }
    }

    /// Reads over the header fields behind the last chunk: nothing here wants one.
    fn skip_trailer(&mut self) -> Result<(), Refusal> {
        let mut room = TRAILER_LIMIT;
        loop {
            let line = self.line(room)?;
            if line == b"\r\n" {
                return Ok(());
            }
            room = room.saturating_sub(line.len() as u64);
        }
    }

    /// A line with its end, of at most `limit` bytes.
    fn line(&mut self, limit: u64) -> Result<Vec<u8>, Refusal> {
        let mut line = Vec::new();
        self.input.by_ref().take(limit).read_until(b'\n', &mut line).map_err(|error| cut_short(&error))?;
        match line.ends_with(b"\r\n") {
            true => Ok(line),
            false => Err(Refusal::new(400, "the body is cut short, or not in chunks")),
        }
    }
}

fn too_long(limit: u64) -> Refusal {
    Refusal::new(413, format!("the body is longer than {limit} bytes"))
}

fn cut_short(error: &io::Error) -> Refusal {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Refusal::new(408, "the request took too long"),
        _ => Refusal::new(400, "the connection broke"),
    }
}

/// Writes a response with a line of text, after which the connection ends.
pub fn respond(output: &mut impl Write, status: u16, text: &str) -> io::Result<()> {
    let allow = if status == 405 { "Allow: POST\r\n" } else { "" };
    let reason = ureq::http::StatusCode::from_u16(status).ok().and_then(|code| code.canonical_reason());
    let head = format!(
        "HTTP/1.1 {status} {}\r\n{allow}Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        reason.unwrap_or_default(),
        text.len().saturating_add(1),
    );
    // In one piece, so that it leaves in one packet.
    output.write_all((head + text + "\n").as_bytes())?;
    output.flush()
}
