//! A Docker that misbehaves. A real one cannot be made to, so somebody else answers on its socket here; what a real one does
//! is told by `make e2e-docker`.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread;

use nix::sys::socket::{AddressFamily, Backlog, SockType, UnixAddr, listen};
use serde_json::json;

use crate::bare_home::BareHome;
use crate::site::chmod;

/// A home whose Docker listens on a socket in it.
fn home() -> (BareHome, PathBuf) {
    let socket = std::env::temp_dir().join(format!("cutover-{}-{:?}.sock", std::process::id(), thread::current().id()));
    let config = format!(
        "app = \"shop\"\nnginx.own = true\n[compose]\nimage = \"user/shop\"\nimage_variable = \"SHOP_IMAGE\"\ndocker_host = \"unix://{}\"\n",
        socket.display()
    );
    let home = BareHome::new(&config);
    home.enable("A");
    (home, socket)
}

/// Answers every question in this way, in the background, until its socket is removed.
fn answering(socket: &PathBuf, answer: impl Fn(&mut UnixStream) + Send + Sync + 'static) {
    answering_each(socket, move |_, stream| answer(stream));
}

/// Answers each question, of which it gets the text, in this way.
fn answering_each(socket: &PathBuf, answer: impl Fn(&str, &mut UnixStream) + Send + Sync + 'static) {
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut question = [0; 4096];
            let length = stream.read(&mut question).unwrap_or_default();
            answer(&String::from_utf8_lossy(&question[..length]), &mut stream);
        }
    });
}

fn says(status: &str, body: &str) -> impl Fn(&mut UnixStream) + Send + Sync + 'static {
    let text = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    move |stream| drop(stream.write_all(text.as_bytes()))
}

#[test]
fn a_refusal_is_told_in_dockers_own_words() {
    let (home, socket) = home();
    answering(&socket, says("500 Internal Server Error", "{\"message\":\"the disk is on fire\\nand more\"}"));
    home.run("pid", &[]).fails(3, &["pid: Docker refuses (500 Internal Server Error): the disk is on fire"]);
    fs::remove_file(socket).unwrap();
}

/// That is known when its output is asked for, and not before: Compose has taken it away in that moment.
#[test]
fn a_container_that_is_just_going_has_printed_nothing_and_is_no_error() {
    for gone in [
        says("409 Conflict", r#"{"message":"can not get logs from container which is dead or marked for removal"}"#),
        says("404 Not Found", r#"{"message":"No such container: 1"}"#),
    ] {
        let (home, socket) = home();
        let container = json!({
            "Id": "1", "Name": "/A", "Created": "2026-11-21T09:30:00Z", "Image": "sha256:1",
            "State": { "Running": false, "Restarting": false, "Pid": 0, "ExitCode": 0 },
            "Config": {
                "Image": "user/shop",
                "Labels": { "com.docker.compose.project.working_dir": home.path().to_str().unwrap() },
            },
            "HostConfig": { "NetworkMode": "bridge" },
        });
        let (list, container) = (says("200 OK", r#"[{"Id": "1"}]"#), says("200 OK", &container.to_string()));
        answering_each(&socket, move |question, stream| match question {
            one if one.contains("/logs") => gone(stream),
            one if one.contains("/1/json") => container(stream),
            _ => list(stream),
        });
        home.run("logs", &["A"]).is(0, "", "");
        fs::remove_file(socket).unwrap();
    }
}

/// Longer than the clock reaches, the longest that Docker can say, and without end.
#[test]
fn a_container_with_the_longest_grace_period_is_stopped() {
    for seconds in [1 << 40, i64::MAX, -1] {
        let (home, socket) = home();
        let container = json!({
            "Id": "1", "Name": "/A", "Created": "2026-11-21T09:30:00Z", "Image": "sha256:1",
            "State": { "Running": true, "Restarting": false, "Pid": 0, "ExitCode": 0 },
            "Config": {
                "Image": "user/shop", "StopTimeout": seconds,
                "Labels": { "com.docker.compose.project.working_dir": home.path().to_str().unwrap() },
            },
            "HostConfig": { "NetworkMode": "bridge" },
        });
        let (list, container) = (says("200 OK", r#"[{"Id": "1"}]"#), says("200 OK", &container.to_string()));
        let stopped = says("304 Not Modified", "");
        answering_each(&socket, move |question, stream| match question {
            one if one.contains("/1/stop") => stopped(stream),
            one if one.contains("/1/json") => container(stream),
            _ => list(stream),
        });
        home.run("stop-instance", &["A", "--force"]).is(0, "", "");
        fs::remove_file(socket).unwrap();
    }
}

#[test]
fn what_is_no_answer_of_dockers_is_told() {
    for (status, body) in [("200 OK", "<html>"), ("200 OK", "[1, 2]"), ("200 OK", "[{\"Id\": 7}]"), ("200 OK", "")] {
        let (home, socket) = home();
        answering(&socket, says(status, body));
        home.run("pid", &[]).fails(3, &["cannot understand Docker's answer"]);
        fs::remove_file(socket).unwrap();
    }
}

#[test]
fn a_docker_that_hangs_up_is_told() {
    let (home, socket) = home();
    answering(&socket, |_| {});
    home.run("pid", &[]).fails(3, &["cannot reach Docker at ", &socket.display().to_string()]);
    fs::remove_file(socket).unwrap();
}

#[test]
fn a_docker_that_does_not_answer_is_waited_for_and_then_told() {
    let (home, socket) = home();
    answering(&socket, |stream| drop(stream.read_to_end(&mut Vec::new())));
    home.run("pid", &[]).fails(124, &["cannot reach Docker at ", "no answer within 20.0 s"]);
    fs::remove_file(socket).unwrap();
}

#[test]
fn a_docker_that_takes_no_connections_any_more_is_not_waited_for_for_ever() {
    let (home, socket) = home();
    let flags = nix::sys::socket::SockFlag::empty();
    let full = nix::sys::socket::socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap();
    nix::sys::socket::bind(full.as_raw_fd(), &UnixAddr::new(&socket).unwrap()).unwrap();
    listen(&full, Backlog::new(0).unwrap()).unwrap();
    let _waiting = UnixStream::connect(&socket).unwrap();
    home.run("pid", &[]).fails(124, &["cannot reach Docker at ", "no answer within 20.0 s"]);
    fs::remove_file(socket).unwrap();
}

#[test]
fn a_docker_that_is_not_there_is_told_and_status_still_answers() {
    let (home, socket) = home();
    let said = format!("cannot reach Docker at {}: there is no such socket; is Docker running?", socket.display());
    home.run("pid", &[]).is(3, "", &format!("pid: {said}\n"));
    let shown = home.run("status", &["--json"]).ok();
    let status: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(status["instances"][1]["health"], *said, "{status}");
    assert!(status["instances"][1]["pid"].is_null());

    // Left over from a Docker that has gone.
    drop(UnixListener::bind(&socket).unwrap());
    home.run("pid", &[]).fails(3, &["connection refused; is Docker running?"]);
    fs::remove_file(socket).unwrap();
}

#[test]
fn a_release_that_says_nothing_sensible_of_its_image_is_named() {
    let (home, socket) = home();
    answering(&socket, says("200 OK", "[]"));
    let release = home.path().join("releases/20260101T000000Z-abcdef");
    fs::create_dir(&release).unwrap();
    symlink(&release, home.path().join("instances/A")).unwrap();
    let file = home.path().canonicalize().unwrap().join("releases/20260101T000000Z-abcdef/image.json");
    home.run("start-instance", &["A"])
        .fails(3, &["release 20260101T000000Z-abcdef is no image; update-instance A makes one"]);
    fs::write(&file, "{").unwrap();
    home.run("start-instance", &["A"]).fails(3, &[&format!("cannot understand {}", file.display())]);
    chmod(&file, 0o640);
    fs::remove_file(socket).unwrap();
}
