//! Listening where no systemd does it: one process for each connection, as inetd did, and not too many at once.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, SyncSender};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use crate::app::App;
use crate::command;
use crate::deadline::Deadline;
use crate::lock::{self, Lock};
use crate::logfile;
use crate::outcome::{Exit, failure, quote, usage};
use crate::process::{self, Bond, Process};

/// The tool that listens, and that serves a connection.
const ON_PUSH: &str = "on-push";
/// How many requests are served at once; the others wait to be accepted.
const AT_ONCE: usize = 32;
/// The pause after a connection that could not be accepted or served, as when there are too many open files.
const RECOVERY: Duration = Duration::from_millis(100);
/// How long a listener may take to be there.
const STARTING: Duration = Duration::from_secs(30);
/// How long one may take to be gone before it is killed.
const ENDING: Duration = Duration::from_secs(5);
/// The pause between two looks for that.
const POLL: Duration = Duration::from_millis(10);

/// One of the connections that may be served at once; free again when it is dropped.
struct Place(SyncSender<()>);

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// Serves each connection by a process of its own, until somebody ends this one. What goes wrong with one is told to
/// `complain`. Only on a loopback address: TLS, limits and the client's address are nginx's business.
pub fn listen(app: &App, address: SocketAddr, complain: impl Fn(&anyhow::Error)) -> Result<()> {
    if !address.ip().is_loopback() {
        let reason = "it is not a loopback address, and nginx is to stand in front";
        return Err(usage(format!("cannot listen on {address}: {reason}")));
    }
    let path = app.listener_lock();
    let Some(lock) = Lock::take(&path)? else {
        let holder = lock::holder(&path)?.map_or_else(|| "another".to_owned(), |(pid, _)| process::describe(pid));
        return Err(failure(Exit::Busy, format!("cannot listen: {holder} does already")));
    };
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    lock.note(&address.to_string())?;
    // By its path: after an upgrade it is another file.
    let tool = command::sibling(ON_PUSH)?;
    let (free, places) = mpsc::sync_channel(AT_ONCE);
    (0..AT_ONCE).for_each(|_| drop(Place(free.clone())));
    loop {
        places.recv().context("cannot count what is served")?;
        let place = Place(free.clone());
        let accepted = listener.accept().context("cannot accept a connection");
        match accepted.and_then(|(connection, _)| serve(app, &tool, connection)) {
            Ok(mut child) => drop(thread::spawn(move || {
                let _ = child.wait();
                drop(place);
            })),
            Err(error) => {
                complain(&error);
                thread::sleep(RECOVERY);
            }
        }
    }
}

fn serve(app: &App, tool: &Path, connection: TcpStream) -> Result<Child> {
    // A log that cannot be written is no reason to miss a push.
    let log = logfile::open_for(&app.push_log(), "request").map_or_else(|_| Stdio::null(), Stdio::from);
    let copy = connection.try_clone().context("cannot duplicate a connection")?;
    let mut command = Command::new(tool);
    command.arg("--home").arg(app.home()).env_clear().current_dir("/");
    command.stdin(Stdio::from(OwnedFd::from(copy))).stdout(Stdio::from(OwnedFd::from(connection))).stderr(log);
    process::isolate(&mut command, Bond::Free);
    command.spawn().with_context(|| format!("cannot run {}", tool.display()))
}

/// Where the listener is to be, as a flag takes it; None: nowhere, for there is no webhook, or systemd listens.
fn wanted(app: &App) -> Option<SocketAddr> {
    let push = app.config.webhook().filter(|_| !app.has_queue_unit())?;
    Some(SocketAddr::from((Ipv4Addr::LOCALHOST, push.port.number())))
}

/// Starts or ends the listener, so that there is one where one is wanted. Returns what was done, in words; None: nothing.
pub fn adjust(app: &App) -> Result<Option<String>> {
    let (wanted, present) = (wanted(app), lock::holder(&app.listener_lock())?);
    if let Some((pid, note)) = &present {
        if wanted.is_some_and(|address| address.to_string() == *note) && !process::is_replaced(*pid) {
            return Ok(None);
        }
        end(app)?;
    }
    let Some(address) = wanted else { return Ok(present.map(|_| "on-push listens no longer".to_owned())) };
    let log = app.push_log();
    let arguments = ["--home".into(), app.home().as_os_str().to_owned(), "--listen".into(), address.to_string().into()];
    let mut child = command::detach(&app.bin().join(ON_PUSH), arguments, logfile::open(&log)?)?;
    let patience = Deadline::after(STARTING);
    while lock::holder(&app.listener_lock())?.is_none_or(|(_, note)| note.is_empty()) {
        let ended = child.try_wait().context("cannot wait for on-push")?;
        if ended.is_some() || !patience.sleep(POLL) {
            let lines = logfile::last_lines(&log, 1).unwrap_or_default();
            bail!("on-push does not listen on {address}: {}", quote(lines.iter().map(String::as_str), 1));
        }
    }
    Ok(Some(format!("on-push listens on {address}")))
}

/// Ends the listener, if there is one. Requests that are being served are served.
pub fn end(app: &App) -> Result<()> {
    let Some((pid, _)) = lock::holder(&app.listener_lock())? else { return Ok(()) };
    let Some(listener) = Process::with_pid(pid) else { return Ok(()) };
    let patience = Deadline::after(ENDING);
    // Its port outlives its lock.
    while listener.is_alive() {
        listener.signal(if patience.passed() { Signal::SIGKILL } else { Signal::SIGTERM })?;
        thread::sleep(POLL);
    }
    Ok(())
}
