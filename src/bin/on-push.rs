//! on-push: answer one webhook request on stdin, and queue the deploy that it asks for.

use std::fs::File;
use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use cutover::app::{App, Home};
use cutover::deadline::Deadline;
use cutover::http::request::{Refusal, Request, Timed, respond};
use cutover::outcome::{self, Exit, usage};
use cutover::push;

const TOOL: &str = env!("CARGO_BIN_NAME");

/// How long a whole request may take; GitHub waits so long for the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a client may go on sending what nobody wants to know, so that it can read the answer.
const LINGERING: Duration = Duration::from_secs(2);

/// Answer one webhook request on stdin, and queue the deploy that it asks for
#[derive(Parser)]
#[command(name = TOOL, version)]
struct Arguments {
    /// Listen on a loopback address instead, and run one process for each connection
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
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
    match arguments.listen {
        Some(address) => {
            push::listen(&app, address, |error| outcome::say(TOOL, format_args!("{error:#}")))?;
            Ok(Exit::Done)
        }
        None => serve(&app),
    }
}

fn serve(app: &App) -> Result<Exit> {
    let (input, mut output) = (duplicate(io::stdin())?, File::from(duplicate(io::stdout())?));
    let (peer, rest) = (TcpStream::from(duplicate(io::stdin())?), File::from(duplicate(io::stdin())?));
    let deadline = Deadline::after(PATIENCE);
    let mut source = peer.peer_addr().map_or_else(|_| "stdin".to_owned(), |address| address.ip().to_string());
    let (answer, mut result) = match Request::read(Timed::new(File::from(input), deadline)) {
        Ok(None) => return Ok(Exit::No),
        Err(refusal) => (refusal.into(), Ok(Exit::No)),
        Ok(Some(mut request)) => {
            // nginx tells who is behind it. Somebody else on this machine may tell anything.
            if let Some(client) = request.field("x-real-ip").filter(|_| is_local(&peer)) {
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

/// Whether the other end is on this machine, as nginx is.
fn is_local(peer: &TcpStream) -> bool {
    peer.peer_addr().is_ok_and(|address| address.ip().is_loopback())
}
