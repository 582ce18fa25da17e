//! A web server that serves a git repository as real ones do, by git's own http-backend, to whoever knows a password.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What a server does with a request.
#[derive(Clone)]
pub enum Serves {
    /// Serves repositories below a directory to whoever sends this header; the others get 401.
    Repositories { below: PathBuf, authorization: String },
    /// Sends everybody on to the same path of another server.
    Redirect { port: u16 },
    /// Refuses everybody, and says this.
    Refusal { says: String },
}

/// A running server, until the test ends.
pub struct GitServer {
    pub port: u16,
    /// The `Authorization` fields that it was sent; empty where a request had none.
    heard: Arc<Mutex<Vec<String>>>,
}

impl GitServer {
    /// Starts one that takes its time for each request.
    pub fn start(serves: Serves, pause: Duration) -> GitServer {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (port, heard) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(Vec::new())));
        let noted = Arc::clone(&heard);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (serves, noted) = (serves.clone(), Arc::clone(&noted));
                thread::spawn(move || {
                    thread::sleep(pause);
                    // A client that goes away is nothing to a server.
                    let _ = answer(client, &serves, &noted);
                });
            }
        });
        GitServer { port, heard }
    }

    /// The `Authorization` fields so far that were not empty.
    pub fn authorizations(&self) -> Vec<String> {
        self.heard.lock().unwrap().iter().filter(|field| !field.is_empty()).cloned().collect()
    }

    /// How many requests came so far.
    pub fn requests(&self) -> usize {
        self.heard.lock().unwrap().len()
    }
}

fn answer(client: TcpStream, serves: &Serves, noted: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? <= 2 {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let field = |name: &str| {
        let fields = lines.iter().filter_map(|line| line.split_once(": "));
        let found =
            fields.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).next();
        found.unwrap_or_default()
    };
    noted.lock().unwrap().push(field("authorization"));
    let mut body = vec![0; field("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let words: Vec<&str> = lines.first().map(|line| line.split(' ').collect()).unwrap_or_default();
    let (method, target) = (words[0], words[1]);
    let mut output = client;
    let mut say = |status: &str, fields: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{fields}\r\n", body.len());
        output.write_all(&[head.as_bytes(), body].concat())
    };
    match serves {
        Serves::Redirect { port } => say("302 Found", &format!("Location: http://127.0.0.1:{port}{target}\r\n"), b""),
        Serves::Refusal { says } => say("403 Forbidden", "Content-Type: text/plain\r\n", says.as_bytes()),
        Serves::Repositories { authorization, .. } if field("authorization") != *authorization => {
            say("401 Unauthorized", "WWW-Authenticate: Basic realm=\"git\"\r\n", b"")
        }
        Serves::Repositories { below, .. } => {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let served = serve(below, method, path, query, &field, &body);
            let end = served.windows(4).position(|part| part == b"\r\n\r\n").unwrap();
            let fields = String::from_utf8_lossy(&served[..end + 2]).into_owned();
            let status = fields.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK").to_owned();
            say(&status, &fields, &served[end + 4..])
        }
    }
}

/// What git's http-backend says.
fn serve(below: &Path, method: &str, path: &str, query: &str, field: &dyn Fn(&str) -> String, body: &[u8]) -> Vec<u8> {
    let mut backend = Command::new("git");
    backend.arg("http-backend").env("GIT_PROJECT_ROOT", below).env("GIT_HTTP_EXPORT_ALL", "1");
    backend.env("REQUEST_METHOD", method).env("PATH_INFO", path).env("QUERY_STRING", query);
    backend.env("CONTENT_TYPE", field("content-type")).env("CONTENT_LENGTH", body.len().to_string());
    backend.env("HTTP_CONTENT_ENCODING", field("content-encoding")).env("GIT_PROTOCOL", field("git-protocol"));
    // The repository is another user's to git, when tests run as root.
    backend.env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", "safe.directory").env("GIT_CONFIG_VALUE_0", "*");
    let mut child = backend.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(body).unwrap();
    child.wait_with_output().unwrap().stdout
}
