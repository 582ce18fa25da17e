//! Listening where no systemd does it: one process for each connection, as inetd did, and not too many at once.

use std::fmt;
use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::str::FromStr;
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::app::App;
use crate::command;
use crate::deadline::Deadline;
use crate::durable;
use crate::lock::{self, Lock};
use crate::logfile;
use crate::outcome::{Exit, failure, quote, usage};
use crate::process::{self, Bond, Process};
use crate::threads;

/// The tool that listens, and that serves a connection.
const ON_PUSH: &str = "on-push";
/// How many requests are served at once; the others wait to be accepted.
const AT_ONCE: usize = 32;
/// The pause after a connection that could not be accepted or served, as when there are too many open files.
const RECOVERY: Duration = Duration::from_millis(100);
/// What a connection is answered that cannot be served.
const UNAVAILABLE: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 10\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
/// How long that may take, at each step.
const REFUSAL: Duration = Duration::from_millis(500);
/// How long a listener may take to be there.
const STARTING: Duration = Duration::from_secs(30);
/// How long one may take to be gone before it is killed.
const ENDING: Duration = Duration::from_secs(5);
/// The pause between two looks for that.
const POLL: Duration = Duration::from_millis(10);

/// The name of the socket's file in the state directory, which nginx may search and only the app's user may change.
const SOCKET: &str = "push.sock";
/// Everybody may connect, as to a port on loopback: nginx's workers are a user of their own, and who is to be heard signs.
const SOCKET_MODE: u32 = 0o666;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A socket in the file system: nobody else can take its place before we do.
    Unix(PathBuf),
    /// A loopback address and a port.
    Tcp(SocketAddr),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Place, String> {
        match text.starts_with('/') {
            true => Ok(Place::Unix(text.into())),
            false => text.parse().map(Place::Tcp).map_err(|_| "expected /PATH or ADDRESS:PORT".to_owned()),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Unix(path) => path.display().fmt(f),
            Place::Tcp(address) => address.fmt(f),
        }
    }
}

/// A socket that listens.
enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    /// Only to be called under the listener's lock: a socket that is there has been left by a listener that was killed.
    fn bind(place: &Place) -> io::Result<Listener> {
        match place {
            Place::Tcp(address) => TcpListener::bind(address).map(Listener::Tcp),
            Place::Unix(path) => {
                durable::remove_if_there(path)?;
                let listener = UnixListener::bind(path)?;
                fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
                Ok(Listener::Unix(listener))
            }
        }
    }

    fn accept(&self) -> io::Result<OwnedFd> {
        match self {
            Listener::Unix(listener) => listener.accept().map(|(connection, _)| connection.into()),
            Listener::Tcp(listener) => listener.accept().map(|(connection, _)| connection.into()),
        }
    }
}

/// One of the connections that may be served at once; free again when it is dropped.
struct Turn(SyncSender<()>);

impl Drop for Turn {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// Serves each connection by a process of its own, until somebody ends this one. What goes wrong with one is told to
/// `complain`. Only where others on this machine reach it: TLS, limits and the client's address are nginx's business.
pub fn listen(app: &App, place: &Place, complain: impl Fn(&anyhow::Error)) -> Result<()> {
    if let Place::Tcp(address) = place
        && !address.ip().is_loopback()
    {
        let reason = "it is not a loopback address, and nginx is to stand in front";
        return Err(usage(format!("cannot listen on {address}: {reason}")));
    }
    let path = app.listener_lock();
    let Some(lock) = Lock::take(&path)? else {
        let holder = lock::holder(&path)?.map_or_else(|| "another".to_owned(), |(pid, _)| process::describe(pid));
        return Err(failure(Exit::Busy, format!("cannot listen: {holder} does already")));
    };
    let listener = Listener::bind(place).with_context(|| format!("cannot listen on {place}"))?;
    lock.note(&place.to_string())?;
    // By its path: after an upgrade it is another file.
    let tool = command::sibling(ON_PUSH)?;
    let (free, places) = mpsc::sync_channel(AT_ONCE);
    (0..AT_ONCE).for_each(|_| drop(Turn(free.clone())));
    loop {
        places.recv().context("cannot count what is served")?;
        let turn = Turn(free.clone());
        let accepted = listener.accept().context("cannot accept a connection");
        let served = accepted.and_then(|connection| {
            let child = serve(app, &tool, &connection).inspect_err(|_| refuse(connection))?;
            await_end(child, turn)
        });
        if let Err(error) = served {
            complain(&error);
            thread::sleep(RECOVERY);
        }
    }
}

/// Frees a place when the child that serves in it has ended.
fn await_end(child: Child, turn: Turn) -> Result<()> {
    let awaited = Arc::new(Mutex::new((child, Some(turn))));
    let await_it = |awaited: &Mutex<(Child, Option<Turn>)>| {
        let mut awaited = awaited.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = awaited.0.wait();
        awaited.1 = None;
    };
    let shared = Arc::clone(&awaited);
    let begun = threads::builder().and_then(|builder| builder.spawn(move || await_it(&shared)));
    // Where there is no thread to be had, the next connection is accepted when this one has been served.
    begun.map(drop).inspect_err(|_| await_it(&awaited)).context("cannot serve several connections at once")
}

/// Answers that it cannot be served now. A sender tries again, or shows it to somebody.
fn refuse(connection: OwnedFd) {
    // What is asked of it here is asked alike of a socket in the file system.
    let mut connection = TcpStream::from(connection);
    let _ = connection.set_read_timeout(Some(REFUSAL)).and_then(|()| connection.set_write_timeout(Some(REFUSAL)));
    let _ = connection.write_all(UNAVAILABLE).and_then(|()| connection.shutdown(Shutdown::Write));
    // What is not read when it is closed takes the answer with it.
    let patience = Deadline::after(REFUSAL);
    let mut unread = [0; 8192];
    while !patience.passed() && matches!(connection.read(&mut unread), Ok(1..)) {}
}

fn serve(app: &App, tool: &Path, connection: &OwnedFd) -> Result<Child> {
    // A log that cannot be written is no reason to miss a push.
    let log = logfile::open_for(&app.push_log(), "request").map_or_else(|_| Stdio::null(), Stdio::from);
    let copy = || connection.try_clone().context("cannot duplicate a connection");
    let mut command = command::prepare(tool, ["--home".as_ref(), app.home().as_os_str()]);
    command.current_dir("/").stdin(Stdio::from(copy()?)).stdout(Stdio::from(copy()?)).stderr(log);
    process::isolate(&mut command, Bond::Free);
    command.spawn().with_context(|| format!("cannot run {}", tool.display()))
}

/// Where the listener is to be, as a flag takes it; None: nowhere, for there is no webhook, or systemd listens.
fn wanted(app: &App) -> Option<Place> {
    app.config.webhook().filter(|_| !app.has_queue_unit())?;
    Some(Place::Unix(socket(app)))
}

fn socket(app: &App) -> PathBuf {
    app.state().join(SOCKET)
}

/// What nginx passes requests to, as it writes it behind `http://`: systemd's port, or the socket.
pub fn upstream(app: &App, is_systemds: bool) -> Result<String> {
    let path = socket(app).display().to_string();
    match app.config.webhook() {
        Some(push) if is_systemds => Ok(format!("127.0.0.1:{}", push.port)),
        Some(_) if path.contains([':', '"', '\\', '$']) => {
            Err(usage(format!("cannot write {path} into nginx's configuration: choose a path without : \" \\ $")))
        }
        Some(_) => Ok(format!("unix:{path}:")),
        None => Ok(String::new()),
    }
}

/// Starts or ends the listener, so that there is one where one is wanted. Returns what was done, in words; None: nothing.
pub fn adjust(app: &App) -> Result<Option<String>> {
    let (wanted, present) = (wanted(app), lock::holder(&app.listener_lock())?);
    if let Some((pid, note)) = &present {
        if wanted.as_ref().is_some_and(|place| place.to_string() == *note) && !process::is_replaced(*pid) {
            return Ok(None);
        }
        end(app)?;
    }
    let Some(place) = wanted else { return Ok(present.map(|_| "on-push listens no longer".to_owned())) };
    let log = app.push_log();
    let arguments = ["--home".into(), app.home().as_os_str().to_owned(), "--listen".into(), place.to_string().into()];
    let mut child = command::detach(&app.bin().join(ON_PUSH), arguments, logfile::open(&log)?)?;
    let patience = Deadline::after(STARTING);
    while lock::holder(&app.listener_lock())?.is_none_or(|(_, note)| note.is_empty()) {
        let ended = child.try_wait().context("cannot wait for on-push")?;
        if ended.is_some() || !patience.sleep(POLL) {
            let lines = logfile::last_lines(&log, 1).unwrap_or_default();
            bail!("on-push does not listen on {place}: {}", quote(lines.iter().map(String::as_str), 1));
        }
    }
    Ok(Some(format!("on-push listens on {place}")))
}

/// Ends the listener, if there is one. Requests that are being served are served.
pub fn end(app: &App) -> Result<()> {
    let Some((pid, _)) = lock::holder(&app.listener_lock())? else { return Ok(()) };
    let Some(listener) = Process::with_pid(pid) else { return Ok(()) };
    let patience = Deadline::after(ENDING);
    // Its port outlives its lock.
    while listener.is_alive() {
        listener.ask_to_end(if patience.passed() { Signal::SIGKILL } else { Signal::SIGTERM })?;
        thread::sleep(POLL);
    }
    let socket = socket(app);
    durable::remove_if_there(&socket).with_context(|| format!("cannot remove {}", socket.display()))
}
