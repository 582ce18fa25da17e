//! Shows that the load tells apart every way a request can be lost, against servers that each
//! misbehave in exactly one way.
//!
//! For a crate that has the library as `crate::load`.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::load::{self, Failure, Kind, Load, Pace, Plan, Report};

/// A server of one thread per connection, which treats each in the given way.
fn server(treat: fn(TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || treat(stream));
        }
    });
    address
}

/// Reads one request of the load; its body, or `None` when the client has no more.
fn request(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let end = loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        bytes.push(byte[0]);
        if bytes.ends_with(b"\r\n\r\n") {
            break bytes.len();
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let length = length.map_or(0, |length| length.parse().expect("a length"));
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(body)
}

fn say(stream: &mut TcpStream, answer: impl AsRef<[u8]>) {
    // The client may be gone already; that is its own affair.
    let _ = stream.write_all(answer.as_ref());
}

fn answer(stream: &mut TcpStream, body: &[u8]) {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    say(stream, [head.as_bytes(), body].concat());
}

/// A server that is as it should be: GETs get a version, POSTs their echo.
fn well_behaved(mut stream: TcpStream) {
    while let Some(body) = request(&mut stream) {
        let echo = if body.is_empty() { b"v1\nmore" } else { &body[..] };
        answer(&mut stream, echo);
    }
}

fn reads_and_closes(mut stream: TcpStream) {
    request(&mut stream);
}

/// Closing with a request unread makes the kernel reset the connection.
fn resets(stream: TcpStream) {
    let _ = stream.peek(&mut [0]);
}

fn cuts_the_body_short(mut stream: TcpStream) {
    request(&mut stream);
    say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nv1\n");
}

fn cuts_the_head_short(mut stream: TcpStream) {
    request(&mut stream);
    say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Le");
}

fn cuts_the_chunks_short(mut stream: TcpStream) {
    request(&mut stream);
    say(&mut stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nv1\n\r\n");
}

fn is_unavailable(mut stream: TcpStream) {
    while request(&mut stream).is_some() {
        say(&mut stream, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 8\r\n\r\nno app\r\n");
    }
}

fn redirects(mut stream: TcpStream) {
    while request(&mut stream).is_some() {
        say(&mut stream, "HTTP/1.1 301 Moved\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n");
    }
}

fn echoes_something_else(mut stream: TcpStream) {
    while let Some(mut body) = request(&mut stream) {
        if let Some(last) = body.last_mut() {
            *last ^= 1;
        }
        answer(&mut stream, &body);
    }
}

fn never_answers(mut stream: TcpStream) {
    while request(&mut stream).is_some() {}
}

/// Always a byte before the socket's own timeout, never the end.
fn answers_in_drips(mut stream: TcpStream) {
    request(&mut stream);
    say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n");
    for _ in 0..100 {
        say(&mut stream, "v");
        thread::sleep(Duration::from_millis(20));
    }
}

fn speaks_no_http(mut stream: TcpStream) {
    request(&mut stream);
    say(&mut stream, "SSH-2.0-OpenSSH_9.2\r\n");
}

/// What nginx does to its clients on a reload: the idle connection ends without a word.
fn closes_after_three(mut stream: TcpStream) {
    for _ in 0..3 {
        if let Some(body) = request(&mut stream) {
            answer(&mut stream, &body);
        }
    }
}

/// What nginx does after keepalive_requests: it says so in the last answer.
fn announces_the_end(mut stream: TcpStream) {
    if request(&mut stream).is_some() {
        answer(&mut stream, b"v1\n");
    }
    if request(&mut stream).is_some() {
        say(&mut stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nv2\n");
    }
}

/// Every lawful way to delimit a body, one after the other, the last by the connection's end.
fn delimits_in_every_way(mut stream: TcpStream) {
    let answers = [
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nv1\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nv1\r\n1\r\n\n\r\n0\r\nA: b\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\nv1\nuntil the end",
    ];
    for answer in answers {
        if request(&mut stream).is_some() {
            say(&mut stream, answer);
        }
    }
}

/// One connection's load until it has made a few requests, and for a moment at least.
fn load_on(target: SocketAddr, post_share: u8, kept_alive: bool) -> Report {
    load_until(12, Duration::from_secs(60), target, post_share, kept_alive)
}

fn load_until(enough: u64, timeout: Duration, target: SocketAddr, post_share: u8, kept_alive: bool) -> Report {
    let load = Load::start(Plan {
        kept_alive: usize::from(kept_alive),
        fresh: usize::from(!kept_alive),
        post_share,
        pace: Some(Duration::from_millis(1)),
        timeout,
        ..Plan::on(target)
    });
    thread::sleep(Duration::from_millis(150));
    has_made(&load, enough);
    load.stop()
}

/// Waits until a load has made so many requests.
fn has_made(load: &Load, requests: u64) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while load.snapshot().requests < requests {
        assert!(Instant::now() < deadline, "not {requests} requests within a minute");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Asserts that each request of a load is lost in this way and counted once everywhere.
fn assert_all_lost(treat: fn(TcpStream), kind: Kind) {
    let address = server(treat);
    for (post_share, kept_alive) in [(0, true), (100, true), (0, false), (100, false)] {
        // What never comes is not waited for as long as what comes late.
        let report = match kind {
            Kind::TimedOut => load_until(1, Duration::from_millis(500), address, post_share, kept_alive),
            _ => load_on(address, post_share, kept_alive),
        };
        let failed = [report.get_failed, report.post_failed];
        assert!(report.requests > 0, "no request was made");
        assert_eq!(report.ok, 0, "{report}");
        assert_eq!(report.of(kind), report.requests, "{report} {:?}", report.samples);
        assert_eq!(failed[usize::from(post_share > 0)], report.requests);
        assert_eq!(report.failed(), report.requests);
    }
}

#[test]
fn a_well_behaved_server_loses_nothing() {
    for kept_alive in [true, false] {
        let report = load_on(server(well_behaved), 25, kept_alive);
        assert_eq!(report.failed(), 0, "{report} {:?}", report.samples);
        assert_eq!(report.statuses[&200], report.requests);
        assert_eq!(report.ok, report.requests);
        let gets = report.bodies["v1"];
        assert!(gets < report.requests && gets * 2 > report.requests, "a quarter are POSTs");
        assert_eq!(report.to_string(), format!("{} requests, 0 failed", report.requests));
    }
}

#[test]
fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    drop(listener);
    let report = load_on(address, 50, true);
    assert!(report.requests > 1);
    assert_eq!(report.of(Kind::Refused), report.requests, "{report}");
}

#[test]
fn the_connection_is_reset() {
    assert_all_lost(resets, Kind::Reset);
}

#[test]
fn the_connection_is_closed_before_the_answer() {
    assert_all_lost(reads_and_closes, Kind::Closed);
}

#[test]
fn the_answer_is_cut_short() {
    assert_all_lost(cuts_the_body_short, Kind::CutShort);
    assert_all_lost(cuts_the_head_short, Kind::CutShort);
    assert_all_lost(cuts_the_chunks_short, Kind::CutShort);
}

#[test]
fn the_status_is_wrong() {
    assert_all_lost(is_unavailable, Kind::WrongStatus);
    assert_all_lost(redirects, Kind::WrongStatus);
    let report = load_on(server(is_unavailable), 0, true);
    assert_eq!(report.statuses[&502], report.requests);
    assert!(report.samples[0].failure.ends_with("502 no app"));
}

#[test]
fn the_echo_is_another() {
    let report = load_on(server(echoes_something_else), 100, true);
    assert!(report.requests > 0);
    assert_eq!(report.of(Kind::WrongBody), report.requests, "{report}");
}

#[test]
fn the_answer_never_comes() {
    assert_all_lost(never_answers, Kind::TimedOut);
    assert_all_lost(answers_in_drips, Kind::TimedOut);
}

#[test]
fn the_answer_is_no_http() {
    assert_all_lost(speaks_no_http, Kind::Other);
}

#[test]
fn a_kept_alive_connection_that_ends_silently_is_a_loss() {
    let report = load_on(server(closes_after_three), 0, true);
    let rounds = report.of(Kind::Closed);
    assert!(rounds > 1, "{report}");
    assert_eq!(report.failed(), rounds);
    assert!(report.ok.abs_diff(rounds * 3) <= 3, "{report}, {} ok", report.ok);
}

#[test]
fn a_kept_alive_connection_whose_end_is_announced_is_none() {
    let report = load_on(server(announces_the_end), 0, true);
    assert_eq!(report.failed(), 0, "{report} {:?}", report.samples);
    assert!(report.bodies["v1"].abs_diff(report.bodies["v2"]) <= 1);
}

#[test]
fn after_what_time_an_idle_connection_is_closed() {
    fn closes_soon(mut stream: TcpStream) {
        request(&mut stream);
        answer(&mut stream, b"v1");
        thread::sleep(Duration::from_millis(200));
    }
    let idle = |treat: fn(TcpStream), limit| {
        let mut connection = load::Connection::open(server(treat), "here", Duration::from_secs(10)).unwrap();
        connection.exchange("GET", "/", &[], &[]).unwrap();
        connection.closed_after(limit).unwrap()
    };
    let closed = idle(closes_soon, Duration::from_secs(10)).unwrap();
    assert!((Duration::from_millis(150)..Duration::from_secs(10)).contains(&closed), "{closed:?}");
    assert_eq!(idle(well_behaved, Duration::from_millis(100)), None);
}

#[test]
fn every_lawful_body_is_understood() {
    let report = load_on(server(delimits_in_every_way), 0, true);
    assert_eq!(report.failed(), 0, "{report} {:?}", report.samples);
    assert!(report.statuses[&204] > 0);
    assert!(report.bodies["v1"] > 2 * report.statuses[&204]);
}

#[test]
fn a_report_since_another_has_only_what_came_after() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    let load = Load::start(Plan { timeout: Duration::from_secs(2), ..Plan::on(address) });
    // Within the first step nobody answers; the requests wait in the kernel's queue.
    thread::sleep(Duration::from_millis(50));
    assert_eq!(load.snapshot().requests, 0);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || well_behaved(stream));
        }
    });
    let first = load.settled();
    assert!(first.requests >= 20, "each connection was waited for");
    thread::sleep(Duration::from_millis(100));
    let second = load.settled();
    let since = second.since(&first);
    assert_eq!(since.requests + first.requests, second.requests);
    assert!(since.requests > 0 && since.elapsed < second.elapsed);
    assert!(load.stop().requests >= second.requests);
}

#[test]
fn a_stopped_load_stops_at_once() {
    let load = Load::start(Plan { pace: Some(Duration::from_secs(60)), ..Plan::on(server(well_behaved)) });
    has_made(&load, 20);
    let stopping = Instant::now();
    assert_eq!(load.stop().requests, 20);
    assert!(stopping.elapsed() < Duration::from_secs(5));
}

#[test]
fn failures_are_quoted_and_shown_by_kind() {
    let report = load_on(server(resets), 0, true);
    let (count, json) = (report.requests, report.to_json());
    assert_eq!(report.to_string(), format!("{count} requests, {count} failed ({count} reset)"));
    assert_eq!(json["kinds"]["reset"], count);
    assert_eq!(json["kinds"]["cut_short"], 0);
    assert_eq!(json["failed"], count);
    let samples = json["samples"].as_array().expect("a list");
    assert!((1..=10).contains(&samples.len()));
    let sample = samples[0].as_str().expect("words");
    assert!(sample.starts_with("at ") && sample.contains(" s, GET: reset: "), "{sample}");
}

fn kind<T>(result: Result<T, Failure>) -> Option<Kind> {
    result.err().map(|failure| failure.kind)
}

#[test]
fn a_download_is_checked_byte_by_byte() {
    fn wrong_byte(mut stream: TcpStream) {
        request(&mut stream);
        let mut body: Vec<u8> = (0..1000u32).map(|at| (at % 251) as u8).collect();
        body[700] ^= 1;
        answer(&mut stream, &body);
    }
    fn too_short(mut stream: TcpStream) {
        request(&mut stream);
        answer(&mut stream, &[0, 1, 2]);
    }
    let get = |treat| load::download(server(treat), 1000, &Pace::Over(Duration::ZERO));
    assert_eq!(kind(get(wrong_byte)), Some(Kind::WrongBody));
    assert_eq!(kind(get(too_short)), Some(Kind::WrongBody));
    assert_eq!(kind(get(cuts_the_body_short)), Some(Kind::CutShort));
    assert_eq!(kind(get(is_unavailable)), Some(Kind::WrongStatus));
    assert_eq!(kind(get(resets)), Some(Kind::Reset));
}

#[test]
fn an_upload_is_counted_by_the_app() {
    fn counts(mut stream: TcpStream) {
        let body = request(&mut stream).expect("a whole upload");
        answer(&mut stream, body.len().to_string().as_bytes());
    }
    fn counts_wrong(mut stream: TcpStream) {
        request(&mut stream);
        answer(&mut stream, b"7");
    }
    /// Goes away in the middle of the upload.
    fn hangs_up(mut stream: TcpStream) {
        let _ = stream.read(&mut [0; 64]);
        let _ = stream.shutdown(Shutdown::Both);
    }
    let over = Duration::from_millis(100);
    let put = |treat| load::upload(server(treat), 100_000, &Pace::Over(over));
    let began = Instant::now();
    assert_eq!(kind(put(counts)), None);
    assert!(began.elapsed() >= over, "it takes as long as it is told to");
    assert_eq!(kind(put(counts_wrong)), Some(Kind::WrongBody));
    assert_eq!(kind(put(hangs_up)), Some(Kind::Reset));
}

#[test]
fn a_web_socket_shows_its_end() {
    const ACCEPTS: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    fn echoes_once(mut stream: TcpStream) {
        request(&mut stream);
        say(&mut stream, ACCEPTS);
        let _ = stream.read(&mut [0; 64]);
        say(&mut stream, b"\x81\x06ping 1");
        let _ = stream.read(&mut [0; 64]);
    }
    fn says_close(mut stream: TcpStream) {
        request(&mut stream);
        say(&mut stream, [ACCEPTS.as_bytes(), b"\x88\x02\x03\xe9"].concat());
        let _ = stream.read(&mut [0; 64]);
    }
    let mut socket = load::websocket(server(echoes_once)).expect("a handshake");
    assert_eq!(kind(socket.ping()), None);
    assert_eq!(kind(socket.ping()), Some(Kind::Closed));
    let mut socket = load::websocket(server(says_close)).expect("a handshake");
    assert_eq!(kind(socket.ping()), Some(Kind::Closed));
    assert_eq!(kind(load::websocket(server(is_unavailable))), Some(Kind::WrongStatus));
}
