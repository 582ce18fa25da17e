//! The sample app as one static binary: says its version, moves large bodies, speaks WebSocket,
//! and misbehaves on request. Only std: `rustc -O -C target-feature=+crt-static app.rs -o app`.
//!
//! The files VERSION and BEHAVIOUR in the working directory say what it answers and how it fails.

// Two C functions that std does not offer are declared below; both are declared safe to call.
#![allow(unsafe_code)]
// An app says and ends what it likes; the lints are the tools'.
#![allow(clippy::disallowed_methods, clippy::exit, clippy::indexing_slicing, clippy::print_stderr)]

mod websocket;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{self, Command};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

/// Longer than a proxy in front keeps its idle connections, so that the proxy closes first.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// std listens with a backlog of 128, which a storm of fresh connections overflows.
const BACKLOG: i32 = 1024;

const SIGTERM: i32 = 15;
const SIG_IGN: usize = 1;

unsafe extern "C" {
    safe fn listen(socket: i32, backlog: i32) -> i32;
    safe fn signal(signal: i32, action: usize) -> usize;
}

/// What the working directory says the app is.
struct App {
    version: String,
    behaviour: String,
    /// The number after the behaviour's name.
    takes: Duration,
    started: Instant,
}

struct Request {
    method: String,
    path: String,
    query: String,
    headers: Vec<(String, String)>,
}

fn main() -> io::Result<()> {
    let app = Arc::new(App::in_working_directory());
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let ["work", host, port] = arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        return work(&app, &format!("{host}:{port}"), &env::var("WORKER").unwrap_or_default());
    }
    match app.behaviour.as_str() {
        "exit" => {
            eprintln!("{} opens its database", app.version);
            eprintln!("cannot open database: connection refused");
            process::exit(3);
        }
        "deaf" => sleep_for_ever(),
        "slow" => thread::sleep(app.takes),
        "stubborn" => refuse_to_stop()?,
        "dies" => die_after(app.takes),
        _ => {}
    }

    if process::id() == 1 {
        // In a container: the kernel keeps signals from a first process that does not ask for them.
        signal(SIGTERM, end as *const () as usize);
    }
    let host = env::var("HOST").unwrap_or_else(|_| "127.0.0.1".to_owned());
    let listener = TcpListener::bind((host, port()))?;
    listen(listener.as_raw_fd(), BACKLOG);
    for stream in listener.incoming() {
        let (stream, app) = (stream?, Arc::clone(&app));
        // A client that went away is none of the app's business.
        thread::spawn(move || app.converse(stream).unwrap_or_default());
    }
    Ok(())
}

/// The port of `--port=N`, `--port N` or PORT.
fn port() -> u16 {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let given = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--port", port] => Some(port.to_owned()),
        [argument] => argument.strip_prefix("--port=").map(str::to_owned),
        _ => None,
    };
    let port = given.or_else(|| env::var("PORT").ok());
    port.map_or(8080, |port| port.parse().expect("the port is a number"))
}

fn first_line(file: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    Some(text.lines().next()?.trim().to_owned())
}

fn sleep_for_ever() -> ! {
    loop {
        thread::park();
    }
}

/// A worker: holds a connection to a peer, to which it says its name and version.
fn work(app: &App, peer: &str, name: &str) -> io::Result<()> {
    let mut peer = TcpStream::connect(peer)?;
    writeln!(peer, "{name} {}", app.version)?;
    match app.behaviour.as_str() {
        "idle" => {
            thread::sleep(app.takes);
            process::exit(7);
        }
        _ => io::copy(&mut peer, &mut io::sink()).map(drop),
    }
}

extern "C" fn end(_: i32) {
    process::exit(0);
}

/// Neither it nor its child, which inherits this, can be asked to stop.
fn refuse_to_stop() -> io::Result<()> {
    signal(SIGTERM, SIG_IGN);
    Command::new("sleep").arg("infinity").spawn().map(drop)
}

/// Ends after a delay that begins when it is the enabled instance; where it cannot see that, at once.
fn die_after(delay: Duration) {
    thread::spawn(move || {
        while !may_be_enabled() {
            thread::sleep(Duration::from_millis(10));
        }
        thread::sleep(delay);
        process::exit(1);
    });
}

fn may_be_enabled() -> bool {
    let enabled = fs::read_link("../../state/enabled").ok();
    let own = env::var_os("INSTANCE");
    enabled.is_some_and(|enabled| own.is_some_and(|own| enabled == own)) || !Path::new("../../state").is_dir()
}

impl App {
    fn in_working_directory() -> App {
        let behaviour = first_line("BEHAVIOUR").unwrap_or_default();
        let (name, argument) = behaviour.split_once(' ').unwrap_or((&behaviour, "0"));
        App {
            version: first_line("VERSION").unwrap_or_else(|| "v0".to_owned()),
            behaviour: name.to_owned(),
            takes: Duration::from_secs_f64(argument.parse().expect("a number of seconds")),
            started: Instant::now(),
        }
    }

    /// Answers one request after the other until the client has no more.
    fn converse(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(IDLE_TIMEOUT))?;
        let mut client = BufReader::with_capacity(64 * 1024, stream);
        while let Some(request) = Request::read(&mut client)? {
            if self.behaviour == "hang" {
                sleep_for_ever();
            }
            if request.path == "/ws" {
                return websocket::serve(&mut client, request.header("sec-websocket-key"));
            }
            self.respond(&request, &mut client)?;
            if request.header("connection").eq_ignore_ascii_case("close") {
                break;
            }
        }
        Ok(())
    }

    fn respond(&self, request: &Request, client: &mut BufReader<TcpStream>) -> io::Result<()> {
        let mut body = client.take(request.length());
        let uploaded = match request.path.as_str() {
            "/echo" => read_all(&mut body)?,
            _ => io::copy(&mut body, &mut io::sink())?.to_string().into_bytes(),
        };
        let out = client.get_mut();
        match self.behaviour.as_str() {
            "500" => {
                return answer(out, "500 Internal Server Error", b"database password wrong\n");
            }
            "301" => return answer(out, "301 Moved Permanently\r\nLocation: /login", b""),
            "ready" if self.started.elapsed() < self.takes => {
                return answer(out, "503 Service Unavailable", b"starting\n");
            }
            _ => {}
        }
        match (request.method.as_str(), request.path.as_str()) {
            ("POST", "/echo" | "/upload") => answer(out, "200 OK", &uploaded),
            ("GET", "/big") => send_pattern(out, request.parameter("bytes")),
            ("GET", path) => match self.text(path, request) {
                Some(text) => answer(out, "200 OK", text.as_bytes()),
                None => answer(out, "404 Not Found", b"not found\n"),
            },
            _ => answer(out, "404 Not Found", b"not found\n"),
        }
    }

    /// What the paths that answer in text say.
    fn text(&self, path: &str, request: &Request) -> Option<String> {
        match path {
            "/" => {}
            "/slow" => thread::sleep(Duration::from_millis(request.parameter("ms"))),
            "/held" => {
                // Until the file that the query names is there.
                let began = Instant::now();
                while !Path::new(&request.query).exists() && began.elapsed() < Duration::from_secs(60) {
                    thread::sleep(Duration::from_millis(5));
                }
            }
            "/pid" => return Some(format!("{}\n", process::id())),
            "/env" => {
                let variables = env::vars_os()
                    .map(|(name, value)| format!("{}={}\n", name.to_string_lossy(), value.to_string_lossy()));
                return Some(sorted(variables.collect()));
            }
            "/headers" => {
                let headers = request.headers.iter();
                let headers = headers.map(|(name, value)| format!("{name}: {value}\n"));
                return Some(sorted(headers.collect()));
            }
            _ => return None,
        }
        Some(format!("{}\n", self.version))
    }
}

impl Request {
    /// Reads a request up to its body; `None` when the client has no more.
    fn read(client: &mut impl BufRead) -> io::Result<Option<Request>> {
        let mut line = String::new();
        client.read_line(&mut line)?;
        let mut words = line.split_whitespace();
        let (method, target) = match (words.next(), words.next()) {
            (Some(method), Some(target)) => (method.to_owned(), target),
            _ => return Ok(None),
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (path, query) = (path.to_owned(), query.to_owned());
        let mut headers = Vec::new();
        loop {
            line.clear();
            client.read_line(&mut line)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) => {
                    headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
                }
                None => break,
            }
        }
        Ok(Some(Request { method, path, query, headers }))
    }

    fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value)
    }

    /// The length of the body; a chunked one is not understood and taken for none.
    fn length(&self) -> u64 {
        self.header("content-length").parse().unwrap_or(0)
    }

    /// A number of the query, `NAME=NUMBER`.
    fn parameter(&self, name: &str) -> u64 {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        let mut values = pairs.filter(|(key, _)| *key == name);
        values.next().map_or(0, |(_, value)| value.parse().unwrap_or(0))
    }
}

fn read_all(body: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    body.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn sorted(mut lines: Vec<String>) -> String {
    lines.sort();
    lines.concat()
}

/// Sends a whole answer in a single write.
fn answer(out: &mut TcpStream, status: &str, body: &[u8]) -> io::Result<()> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n");
    out.write_all(&[head.as_bytes(), body].concat())
}

/// Streams a body that repeats the bytes 0 to 250, which a client can check at any offset.
fn send_pattern(out: &mut TcpStream, bytes: u64) -> io::Result<()> {
    const PERIOD: u64 = 251;
    write!(out, "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {bytes}\r\n\r\n")?;
    let periods: Vec<u8> = (0..PERIOD * 256).map(|at| (at % PERIOD) as u8).collect();
    let mut left = bytes;
    while left > 0 {
        let length = left.min(periods.len() as u64);
        out.write_all(&periods[..length as usize])?;
        left -= length;
    }
    Ok(())
}
