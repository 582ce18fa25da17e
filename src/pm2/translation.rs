//! What becomes of each thing in an ecosystem file: a line of the configuration, a variable, a note.

use std::path::PathBuf;
use std::time::Duration;

use super::command;
use super::draft::{Draft, Worker};
use super::entry::{self, Entry, Instances};
use super::file::File;
use super::keys;
use super::notes::Notes;
use super::place::Place;
use super::roles::{self, Roles};
use super::variables::{self, Variables};
use crate::account::Account;
use crate::app::config::Processes;

/// The configuration takes no less as the memory that a process may hold, in bytes.
const LEAST_MEMORY: u64 = 1 << 20;

/// What becomes of an ecosystem file.
#[derive(Default)]
pub struct Translation {
    /// The configuration.
    pub draft: Draft,
    /// What is told.
    pub notes: Notes,
    /// What goes into the env file.
    pub variables: Variables,
}

impl Translation {
    /// What becomes of this one.
    pub fn of(file: File, owner: &Account) -> Translation {
        let mut translation = Translation::default();
        translation.add_file(file, owner);
        translation
    }

    fn add_file(&mut self, file: File, owner: &Account) {
        for key in &file.others {
            self.notes.say(match key.as_str() {
                "deploy" => "pm2's deploy has no counterpart: [source] and [build] say what deploy does".to_owned(),
                other => format!("pm2's {other} is not known, and left out"),
            });
        }
        let roles = Roles::of(file.entries, &mut self.notes);
        let place = Place::of(roles.all().next().map(|(_, entry)| entry), &file.directory, owner);
        self.add_source(&place);
        match &roles.web_app {
            Some((name, entry)) => self.add_web_app(name, entry, &place),
            None => self.add_no_web_app(&place),
        }
        for (name, entry) in &roles.workers {
            self.add_worker(name, entry, &place);
        }
        self.draft.variables = self.variables.keys().cloned().collect();
    }

    fn add_source(&mut self, place: &Place) {
        if place.origin.as_ref().is_some_and(|origin| origin.is_shortened) {
            self.notes.say("the password in origin's URL is left out: let git's credential helper tell it");
        }
        self.draft.git = place.origin.as_ref().map(|origin| origin.url.clone());
        self.draft.branch.clone_from(&place.branch);
    }

    fn add_web_app(&mut self, name: &str, entry: &Entry, place: &Place) {
        self.draft.app = name.to_owned();
        let (directory, command) = self.command(name, entry, place);
        let command = match entry.is_for_a_shell() {
            true => command,
            false => command::with_arguments(&command, &entry.words("args")),
        };
        self.note_port(name, entry, command::with_our_port(&command).is_some());
        self.draft.command = Some(command::with_our_port(&command).unwrap_or(command));
        self.draft.build = place.build(&directory);
        self.draft.processes = self.processes(name, entry);
        self.draft.max_memory = self.max_memory(name, entry);
        self.draft.start_timeout = milliseconds(entry, "listen_timeout");
        self.add_common(name, entry, true);
        if directory.join(".env").exists() {
            self.notes.say("a release has no .env that is not in git: write the lines of this one into the env file");
        }
    }

    fn add_no_web_app(&mut self, place: &Place) {
        self.draft.app = roles::plain_name(&place.name(), "app");
        self.draft.build = place.build(place.usual());
    }

    fn add_worker(&mut self, name: &str, entry: &Entry, place: &Place) {
        let (_, command) = self.command(name, entry, place);
        let arguments = if entry.is_for_a_shell() { Vec::new() } else { entry.words("args") };
        let count = self.processes(name, entry).count();
        let max_memory = self.max_memory(name, entry);
        if entry.settings().contains_key("listen_timeout") {
            self.notes.lost("listen_timeout", name, "a worker serves no HTTP, and nobody waits for it to listen");
        }
        self.add_common(name, entry, false);
        self.draft.workers.push(Worker { name: name.to_owned(), command, arguments, count, max_memory });
    }

    /// What both kinds have.
    fn add_common(&mut self, name: &str, entry: &Entry, is_web_app: bool) {
        if entry.settings().get("wait_ready") == Some(&true.into()) {
            let instead = "the health check tells what is ready; process.send is undefined here and a call of it \
                           crashes: write process.send?.('ready')";
            self.notes.lost("wait_ready", name, instead);
        }
        variables::add(&mut self.variables, entry, name, &mut self.notes);
        keys::note_lost(entry, name, is_web_app, &mut self.notes);
        // There is one for all.
        self.draft.stop_timeout = self.draft.stop_timeout.max(milliseconds(entry, "kill_timeout"));
    }

    /// The directory that an app runs in, on this machine, and what runs it there.
    fn command(&mut self, name: &str, entry: &Entry, place: &Place) -> (PathBuf, String) {
        let directory = place.directory(entry).unwrap_or_else(|instead| {
            let reason = "it lies outside of the repository, and each release has a directory of its own";
            self.notes.lost("cwd", name, reason);
            instead
        });
        let script = place.script(entry, &directory).unwrap_or_else(|script| {
            self.notes.add("script", name, "lies outside of the repository: it is the same for all releases");
            script
        });
        let command = command::of(entry, &script, &directory);
        let command = format!("{}{command}", place.way_to(&directory));
        (directory, command)
    }

    fn processes(&mut self, name: &str, entry: &Entry) -> Processes {
        let most = Processes::MOST.unsigned_abs() as usize;
        match entry.instances() {
            Instances::Number(number) if number > most => {
                self.notes.add("instances", name, &format!("becomes {most}, the most there can be"));
                Processes::Number(most)
            }
            Instances::Number(number) => Processes::Number(number),
            Instances::Max => Processes::Max,
            Instances::MaxBut(fewer) => {
                self.notes.add("instances", name, &format!("becomes one for each processor, not for all but {fewer}"));
                Processes::Max
            }
        }
    }

    fn max_memory(&mut self, name: &str, entry: &Entry) -> Option<String> {
        let given = entry.settings().get("max_memory_restart").map(entry::plain)?;
        let size = size(&given);
        if size.is_none() {
            self.notes.add("max_memory_restart", name, "is left out: it is no size of at least 1M");
        }
        size
    }

    /// Tells how the web app comes to its port.
    fn note_port(&mut self, name: &str, entry: &Entry, has_argument: bool) {
        let has_variable =
            entry.variables("env").any(|(name, _)| name == "PORT") || entry.settings().contains_key("port");
        match has_variable || has_argument {
            true => {
                self.notes.add("port", name, "is left out: PORT tells each process its own; nginx listens for people")
            }
            false => self.notes.say(format!("nothing tells {name} its port: it must listen on the one in PORT")),
        }
    }
}

/// A number of milliseconds; None: there is none, or zero, which pm2 takes for none.
fn milliseconds(entry: &Entry, key: &str) -> Option<Duration> {
    let number = entry.number(key).and_then(|number| u64::try_from(number).ok());
    number.filter(|number| *number > 0).map(Duration::from_millis)
}

/// A size as the configuration takes it, from one of pm2's: bytes, or with K, M or G behind the number. None: it is none.
fn size(given: &str) -> Option<String> {
    let given = given.trim().to_ascii_uppercase();
    let digits = given.trim_end_matches(['K', 'M', 'G']);
    let factor = match given.get(digits.len()..)? {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return None,
    };
    let bytes = digits.parse::<u64>().ok()?.checked_mul(factor).filter(|bytes| *bytes >= LEAST_MEMORY)?;
    let in_units =
        |(name, unit)| (bytes.checked_rem(unit)? == 0).then_some(format!("{}{name}", bytes.checked_div(unit)?));
    let whole = [("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)].into_iter().find_map(in_units);
    Some(whole.unwrap_or_else(|| bytes.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_in_the_largest_unit_that_divides_them() {
        for (given, told) in [
            ("300M", Some("300M")),
            ("1g", Some("1G")),
            ("2048K", Some("2M")),
            ("314572800", Some("300M")),
            ("1500001", Some("1500001")),
            ("1048575", None),
            ("many", None),
            ("1.5G", None),
            ("", None),
            ("99999999999G", None),
        ] {
            assert_eq!(size(given).as_deref(), told, "{given}");
        }
    }
}
