//! How an instance ended, in words, and what it had printed before that.

use std::net::{Ipv4Addr, SocketAddr};

use crate::app::{App, Instance, Port, Runner};
use crate::lock;
use crate::logfile::{self, Line};
use crate::outcome::quote;
use crate::process;

use super::log::Tail;
use super::supervise::{MemberNote, Note};
use super::{Life, RunBy, compose, ports, supervise};

/// How many of the last lines of an instance's output an error quotes.
const QUOTED_LINES: usize = 5;
/// How far back in an instance's log the beginning of its present life is looked for.
const SEARCHED_LINES: usize = 200;

/// How an instance's app ended last, and the last lines that it had printed since it was started: as its supervise saw it,
/// whatever has become of the app since.
pub fn last_words(app: &App, instance: &Instance, life: &Life) -> String {
    if app.runner() == Runner::Compose {
        let exit = compose::end_in_words(app, instance).unwrap_or_else(|_| "it was restarted".to_owned());
        return with_lines(exit, &last_lines(app, instance, None));
    }
    let Some(ended) = last_to_end(&life.members) else {
        return with_lines("it was restarted".to_owned(), &last_lines(app, instance, None));
    };
    let whose = if life.members.len() > 1 { format!("{}: ", ended.name) } else { String::new() };
    let lines = ended.last_words.clone().unwrap_or_else(|| last_lines(app, instance, Some(&ended.name)));
    format!("{whose}{}", with_lines(ended.last_exit.clone().unwrap_or_default(), &lines))
}

/// Where the processes of an instance listen in place of where they should, in words; None: they do listen there, or nowhere.
pub fn elsewhere(app: &App, instance: &Instance, life: &Life) -> Option<String> {
    let RunBy::Supervise(supervise) = life.by else { return None };
    let wanted: Vec<u16> = ports(app, instance).ok()?.into_iter().map(Port::number).collect();
    let is_right = |address: &SocketAddr| {
        let ip = address.ip().to_canonical();
        wanted.contains(&address.port()) && (ip.is_unspecified() || ip == Ipv4Addr::LOCALHOST)
    };
    let addresses = process::listening(&process::tree(supervise));
    let (right, addresses): (Vec<_>, Vec<_>) = addresses.into_iter().partition(is_right);
    if addresses.is_empty() || wanted.iter().all(|port| right.iter().any(|address| address.port() == *port)) {
        return None;
    }
    let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    Some(format!(
        "; it listens on {}, where nobody asks: it must be port {} of 127.0.0.1",
        addresses.join(" and "),
        wanted.first()?
    ))
}

/// Why a start has failed whose supervise or container ended in this way: what supervise could not start at this moment or
/// later, in seconds since 1970, else the last lines.
pub fn end_of_start(app: &App, instance: &Instance, how: String, since: u64) -> String {
    with_lines(how, &failure_of_start(app, instance, since).unwrap_or_else(|| last_lines(app, instance, None)))
}

/// Why a supervise that has ended could not start a program, when that was at this moment or later, in seconds since 1970;
/// None: it did not say so.
fn failure_of_start(app: &App, instance: &Instance, since: u64) -> Option<String> {
    let note = Note::read(&lock::last_holder(&app.instance_lock(instance)).ok()??.note)?;
    let failed = last_to_end(&note.members).filter(|member| member.last_exit_at.is_some_and(|at| at >= since))?;
    failed.last_exit.clone()
}

/// The program that ended last; None: none has.
fn last_to_end(members: &[MemberNote]) -> Option<&MemberNote> {
    members.iter().filter(|member| member.last_exit.is_some()).max_by_key(|member| member.last_exit_at)
}

fn with_lines(how: String, lines: &str) -> String {
    if lines.is_empty() { how } else { format!("{how}: {lines}") }
}

/// How an instance ended for good, with the last lines that it had printed.
pub fn end_in_words(app: &App, instance: &Instance) -> String {
    with_lines(end(app, instance), &last_lines(app, instance, None))
}

/// How an instance ended for good.
pub fn end(app: &App, instance: &Instance) -> String {
    match app.runner() {
        Runner::Compose => match compose::end_in_words(app, instance) {
            Ok(exit) => format!("its container ended, {exit}"),
            Err(error) => format!("{error:#}"),
        },
        Runner::Direct | Runner::Systemd => "its supervise ended".to_owned(),
    }
}

/// What supervise says in a line about a program, without the name of that program.
fn about<'a>(text: &'a str, who: Option<&String>) -> &'a str {
    who.and_then(|who| text.strip_prefix(who.as_str())?.strip_prefix(": ")).unwrap_or(text)
}

/// Whether a line says that a program was started; None: any.
fn is_start(line: &Line, who: Option<&String>) -> bool {
    let said = match who {
        Some(_) => about(&line.text, who),
        None => line.text.split_once(": ").map_or(line.text.as_str(), |(_, said)| said),
    };
    line.source == logfile::OWN && said.starts_with(supervise::STARTED)
}

/// The last lines of what a program of an instance has printed since it was started last, or of what supervise said when it
/// could not start it at all. None: of whichever program.
pub fn last_lines(app: &App, instance: &Instance, who: Option<&String>) -> String {
    if app.runner() == Runner::Compose {
        let lines = compose::last_lines_of_life(app, instance, SEARCHED_LINES).unwrap_or_default();
        return quote(lines.iter().map(String::as_str), QUOTED_LINES);
    }
    let lines = Tail::last_lines(app, instance, SEARCHED_LINES).unwrap_or_default();
    let started = lines.iter().rposition(|line| is_start(line, who));
    match started {
        Some(at) => {
            let is_its = |line: &&Line| {
                line.source != logfile::OWN && who.is_none_or(|who| line.source.is_empty() || line.source == *who)
            };
            quote(lines.iter().skip(at + 1).filter(is_its).map(|line| line.text.as_str()), QUOTED_LINES)
        }
        None => quote(lines.last().map(|line| line.text.as_str()), 1),
    }
}
