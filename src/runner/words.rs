//! How an instance ended, in words, and what it had printed before that.

use std::time::Duration;

use crate::app::{App, Instance, Runner};
use crate::deadline::Deadline;
use crate::logfile::{self, Line};
use crate::outcome::quote;

use super::log::Tail;
use super::{Life, POLL, compose, supervise};

/// How many of the last lines of an instance's output an error quotes.
const QUOTED_LINES: usize = 5;
/// How far back in an instance's log the beginning of its present life is looked for.
const SEARCHED_LINES: usize = 200;
/// How long the journal may take to have what was written to it: at boot, when all begin at once, it is seconds behind.
const JOURNALLED: Duration = Duration::from_secs(10);

/// How an instance's app ended last, and the last lines that it had printed since it was started.
pub fn last_words(app: &App, instance: &Instance, life: &Life) -> String {
    if app.runner() == Runner::Compose {
        let exit = compose::end_in_words(app, instance).unwrap_or_else(|_| "it was restarted".to_owned());
        return with_lines(exit, &last_lines(app, instance, None));
    }
    let Some((who, exit)) = life.last_to_end().and_then(|member| Some((&member.name, member.last_exit.clone()?)))
    else {
        return with_lines("it was restarted".to_owned(), &last_lines(app, instance, None));
    };
    // The journal may have it a moment later than the note. Each look costs it more lines, of sudo's: with longer pauses.
    let (patience, mut pause) = (Deadline::after(JOURNALLED), POLL);
    while app.runner() == Runner::Systemd && patience.sleep(pause) {
        pause *= 2;
        let lines = Tail::last_lines(app, instance, SEARCHED_LINES).unwrap_or_default();
        let is_end = |line: &Line| line.source == logfile::OWN && about(&line.text, Some(who)) == exit;
        let started = lines.iter().rposition(|line| is_start(line, Some(who))).unwrap_or(0);
        if lines[started..].iter().any(is_end) {
            break;
        }
    }
    let whose = if life.members.len() > 1 { format!("{who}: ") } else { String::new() };
    format!("{whose}{}", with_lines(exit, &last_lines(app, instance, Some(who))))
}

fn with_lines(how: String, lines: &str) -> String {
    if lines.is_empty() { how } else { format!("{how}: {lines}") }
}

/// How an instance ended for good.
pub fn end_in_words(app: &App, instance: &Instance) -> String {
    let how = match app.runner() {
        Runner::Compose => match compose::end_in_words(app, instance) {
            Ok(exit) => format!("its container ended, {exit}"),
            Err(error) => format!("{error:#}"),
        },
        Runner::Direct | Runner::Systemd => "its supervise ended".to_owned(),
    };
    with_lines(how, &last_lines(app, instance, None))
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
        let lines = compose::last_lines_of_life(app, instance, QUOTED_LINES).unwrap_or_default();
        return quote(lines.iter().map(String::as_str), QUOTED_LINES);
    }
    let lines = Tail::last_lines(app, instance, SEARCHED_LINES).unwrap_or_default();
    let started = lines.iter().rposition(|line| is_start(line, who));
    match started {
        Some(at) => {
            let is_its = |line: &&Line| {
                line.source != logfile::OWN && who.is_none_or(|who| line.source.is_empty() || line.source == *who)
            };
            quote(lines[at + 1..].iter().filter(is_its).map(|line| line.text.as_str()), QUOTED_LINES)
        }
        None => quote(lines.last().map(|line| line.text.as_str()), 1),
    }
}
