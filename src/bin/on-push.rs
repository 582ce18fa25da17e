//! on-push: answer one webhook request on stdin, and queue the deploy that it asks for.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use cutover::app::{App, Home};
use cutover::bounded;
use cutover::deadline::Deadline;
use cutover::http::request::{Refusal, Request, Timed, respond};
use cutover::outcome::{self, Exit, usage};
use cutover::push;

const TOOL: &str = env!("CARGO_BIN_NAME");

/// How long a whole request may take; GitHub waits so long for the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a client may take to begin.
const FIRST_BYTE: Duration = Duration::from_secs(1);
/// How long a client may go on sending what nobody wants to know, so that it can read the answer.
const LINGERING: Duration = Duration::from_secs(2);

/// Answer one webhook request on stdin, and queue the deploy that it asks for
#[derive(Parser)]
#[command(name = TOOL, version)]
struct Arguments {
    /// Listen on a Unix socket or a loopback address instead, and run one process for each connection
    #[arg(long, value_name = "PLACE")]
    listen: Option<push::Place>,
    /// Print the header field that signs the body on stdin, and exit
    #[arg(long, conflicts_with = "listen")]
    sign: bool,
    #[command(flatten)]
    home: Home,
}

fn main() -> ExitCode {
    outcome::main(TOOL, run)
}

fn run(arguments: Arguments) -> Result<Exit> {
    let app = App::open(&arguments.home)?;
    if app.config.webhook().is_none() {
        return Err(usage("cannot serve webhooks: set repository in [push]; see cutover-config(5)"));
    }
    if arguments.sign {
        let body = bounded::all_of(io::stdin(), push::LIMIT).context("cannot sign what is on stdin")?;
        outcome::print(&format!("{}\n", push::signature(&app, &body)?))?;
        return Ok(Exit::Done);
    }
    match arguments.listen {
        Some(place) => {
            push::listen(&app, &place, |error| outcome::say(TOOL, format_args!("{error:#}")))?;
            Ok(Exit::Done)
        }
        None => serve(&app),
    }
}

fn serve(app: &App) -> Result<Exit> {
    let (input, mut output) = (duplicate(io::stdin())?, File::from(duplicate(io::stdout())?));
    let (peer, rest) = (TcpStream::from(duplicate(io::stdin())?), File::from(duplicate(io::stdin())?));
    let deadline = Deadline::after(PATIENCE);
    let is_unix = UnixStream::from(duplicate(io::stdin())?).local_addr().is_ok();
    let address = peer.peer_addr().ok().map(|address| address.ip());
    let mut source = address.map_or_else(|| "stdin".to_owned(), |address| address.to_string());
    // systemd's socket has room for more.
    if is_unix && !has_begun(&peer)? {
        return Ok(Exit::No);
    }
    let (answer, mut result) = match Request::read(Timed::new(File::from(input), deadline)) {
        Ok(None) => return Ok(Exit::No),
        Err(refusal) => (refusal.into(), Ok(Exit::No)),
        Ok(Some(mut request)) => {
            // nginx tells who is behind it. Somebody else on this machine may tell anything.
            if let Some(client) =
                request.field("x-real-ip").filter(|_| is_unix || address.is_some_and(|address| address.is_loopback()))
            {
                source = outcome::quote([client], 1);
            }
            match push::serve(app, &mut request, &mut output, deadline) {
                Ok(answer) if answer.status < 300 => (answer, Ok(Exit::Done)),
                Ok(answer) => (answer, Ok(Exit::No)),
                Err(error) => (Refusal::new(503, "not now").into(), Err(error)),
            }
        }
    };
    // One that does not wait for its answer has queued its push all the same.
    let _ = respond(&mut output, answer.status, &answer.text);
    outcome::say(TOOL, format_args!("{source}: {}, {}", answer.status, answer.text));
    // Also for one that was delivered before: whoever took it may have been killed before this.
    result = result.and_then(|exit| push::start_deploy(app).map(|()| exit));
    // Whoever still sends may miss an answer that is followed by the end of the connection.
    let _ = peer.shutdown(Shutdown::Write);
    drop(output);
    let _ = io::copy(&mut Timed::new(rest, Deadline::after(LINGERING)).take(push::LIMIT), &mut io::sink());
    result
}

/// The descriptor below one of the standard streams: what std has read ahead would be missed.
fn duplicate(stream: impl AsFd) -> Result<OwnedFd> {
    stream.as_fd().try_clone_to_owned().context("cannot use the connection")
}

/// Whether a client begins to say something, or ends, in time. nginx sends as soon as it has connected; whoever does not
/// is in the way of others.
fn has_begun(peer: &TcpStream) -> Result<bool> {
    peer.set_read_timeout(Some(FIRST_BYTE)).context("cannot set up the connection")?;
    let peeked = peer.peek(&mut [0]);
    peer.set_read_timeout(None).context("cannot set up the connection")?;
    let is_late = |error: &io::Error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
    Ok(!peeked.is_err_and(|error| is_late(&error)))
}
