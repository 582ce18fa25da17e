//! What becomes of each thing in an ecosystem file: a line of the configuration, a variable, a note.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

use super::build::{self, Needs};
use super::command::Command;
use super::draft::{Draft, Worker};
use super::entry::{self, Entry, Instances};
use super::file::File;
use super::keys;
use super::notes::Notes;
use super::place::Place;
use super::port::{self, Listening};
use super::programs;
use super::roles::{self, Roles};
use super::scripts;
use super::variables::{self, Variables};
use crate::account::Account;
use crate::app::config::{Health, Processes};

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

/// An app with what runs it, in its directory of the clone.
struct Program<'a> {
    name: &'a str,
    entry: &'a Entry,
    directory: PathBuf,
    command: Command,
}

impl Translation {
    /// What becomes of this one.
    pub fn of(file: File, owner: &Account) -> Translation {
        let mut translation = Translation::default();
        translation.add_file(file, owner);
        translation
    }

    fn add_file(&mut self, file: File, owner: &Account) {
        self.note_others(&file.others);
        if !file.environments.is_empty() {
            let names = file.environments.join(" or ");
            self.notes.say(format!("the variables are those of env alone: --env {names} adds those of the other"));
        }
        let roles = Roles::of(file.entries, &file.sites, &mut self.notes);
        let entries: Vec<&Entry> = roles.all().map(|(_, entry)| entry).collect();
        let place = Place::of(&entries, file.path.parent().unwrap_or(&file.path), owner, &mut self.notes);
        if let Some(clone) = &place.clone {
            clone.note(&file.path, &mut self.notes);
            self.draft.git = clone.origin.as_ref().map(|origin| origin.url.clone());
            self.draft.reference.clone_from(&clone.reference);
        }
        let programs: Vec<Program> =
            roles.all().map(|(name, entry)| self.program(name, entry, &place, owner)).collect();
        self.draft.build = self.build(&programs, &place);
        let mut programs = programs.into_iter();
        match roles.web_app.as_ref().and_then(|_| programs.next()) {
            Some(web_app) => self.add_web_app(&web_app, &place),
            None => self.draft.app = roles::plain_name(&place.name(), "app"),
        }
        for worker in programs {
            self.add_worker(worker, &place);
        }
        self.add_path(owner);
        self.draft.variables = self.variables.keys().cloned().collect();
    }

    fn note_others(&mut self, others: &Map<String, Value>) {
        for (key, value) in others.iter().filter(|(key, _)| *key != "static") {
            self.notes.say(match key.as_str() {
                "deploy" => {
                    let besides = scripts::besides_builds(value);
                    let besides = if besides.is_empty() { besides } else { format!("; yours does besides: {besides}") };
                    format!("pm2's deploy has no counterpart: [source] and [build] say what deploy does{besides}")
                }
                other => format!("pm2's {other} is not known, and left out"),
            });
        }
    }

    fn add_web_app(&mut self, app: &Program, place: &Place) {
        let (name, entry) = (app.name, app.entry);
        self.draft.app = name.to_owned();
        let listening = Listening::of(entry);
        let theirs = app.command.whole();
        let ours = port::with_ours(&theirs);
        self.note_port(name, entry, ours.is_some() || !listening.ours.is_empty());
        let whole = ours.unwrap_or(theirs);
        self.note_listening(name, &listening);
        if let Some((script, package)) = scripts::on_a_port_of_its_own(&whole, &app.directory) {
            let reason = format!(
                "{script} in {package} names a port, by which each instance would go: write $PORT in its place"
            );
            self.notes.say(reason);
        }
        let variables = listening.ours.iter().map(|(name, value)| format!("export {name}={value}"));
        let words = place.way_to(&app.directory).into_iter().chain(variables).chain([whole]);
        self.draft.command = Some(words.collect::<Vec<_>>().join(" && "));
        self.draft.processes = self.processes(name, entry);
        self.draft.max_memory = self.max_memory(name, entry);
        self.draft.start_timeout =
            milliseconds(entry, "listen_timeout").filter(|timeout| *timeout > Health::default().timeout);
        self.draft.is_signal_to_main = is_signal_to_main(entry);
        self.add_common(name, entry, &listening.ours, true);
    }

    fn add_worker(&mut self, app: Program, place: &Place) {
        let Program { name, entry, directory, command } = app;
        let count = self.processes(name, entry).count();
        let max_memory = self.max_memory(name, entry);
        if entry.settings().contains_key("listen_timeout") {
            self.notes.lost("listen_timeout", name, "a worker serves no HTTP, and nobody waits for it to listen");
        }
        self.add_common(name, entry, &[], false);
        let words = place.way_to(&directory).into_iter().chain([command.text]);
        let text = words.collect::<Vec<_>>().join(" && ");
        self.draft.workers.push(Worker {
            name: name.to_owned(),
            command: text,
            arguments: command.arguments,
            count,
            max_memory,
            is_signal_to_main: is_signal_to_main(entry),
        });
    }

    /// What both kinds have.
    fn add_common(&mut self, name: &str, entry: &Entry, of_command: &[(String, String)], is_web_app: bool) {
        if entry.settings().get("wait_ready") == Some(&true.into()) {
            let instead = "the health check tells what is ready; process.send is undefined here and a call of it \
                           crashes: write process.send?.('ready')";
            self.notes.lost("wait_ready", name, instead);
        }
        variables::add(&mut self.variables, entry, name, of_command, &mut self.notes);
        keys::note_lost(entry, name, is_web_app, &mut self.notes);
        // There is one for all.
        self.draft.stop_timeout = self.draft.stop_timeout.max(milliseconds(entry, "kill_timeout"));
    }

    /// What runs an app, and where.
    fn program<'a>(&mut self, name: &'a str, entry: &'a Entry, place: &Place, owner: &Account) -> Program<'a> {
        let directory = place.directory(entry).unwrap_or_else(|instead| {
            let reason = "it lies outside of the repository, and each release has a directory of its own";
            self.notes.lost("cwd", name, reason);
            instead
        });
        let command = Command::of(entry, name, &directory, place, owner, &mut self.notes);
        Program { name, entry, directory, command }
    }

    fn build(&mut self, programs: &[Program], place: &Place) -> Option<String> {
        let of_program = |program: &Program| Needs {
            app: program.name.to_owned(),
            directory: program.directory.clone(),
            program: program.command.program.clone(),
            paths: program.command.needs.clone(),
        };
        let mut needs: Vec<Needs> = programs.iter().map(of_program).collect();
        if needs.is_empty() {
            needs.push(Needs { directory: place.usual().to_owned(), ..Needs::default() });
        }
        build::of(&needs, place, &mut self.notes)
    }

    /// Has programs of the user's home found where the file does not say how.
    fn add_path(&mut self, owner: &Account) {
        if self.variables.contains_key("PATH") {
            return;
        }
        let workers = self.draft.workers.iter().map(|worker| worker.command.as_str());
        let commands: Vec<&str> =
            self.draft.build.iter().chain(&self.draft.command).map(String::as_str).chain(workers).collect();
        if let Some(path) = programs::path_for(commands.iter().flat_map(|command| scripts::programs(command)), owner) {
            self.notes.say(format!("PATH in the env file is {path}: what runs the app lies there"));
            self.variables.insert("PATH".to_owned(), path);
        }
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
    fn note_port(&mut self, name: &str, entry: &Entry, is_told: bool) {
        let has_variable =
            entry.variables("env").any(|(name, _)| name == "PORT") || entry.settings().contains_key("port");
        match has_variable || is_told {
            true => {
                self.notes.add("port", name, "is left out: PORT tells each process its own; nginx listens for people")
            }
            false => self.notes.say(format!("nothing tells {name} its port: it must listen on the one in PORT")),
        }
    }

    /// Tells which variables have to do with the port.
    fn note_listening(&mut self, name: &str, listening: &Listening) {
        for (variable, _) in &listening.ours {
            self.notes.add(&format!("env {variable}"), name, "is set by the command, from PORT");
        }
        for variable in &listening.doubtful {
            let reason =
                "may be a port on which both instances would listen: if so, take it from the env file and put \
                          `export NAME=$PORT && ` before the command in [run]"
                    .replace("NAME", variable);
            self.notes.add(&format!("env {variable}"), name, &reason);
        }
    }
}

/// Whether the signal that ends an app goes to its first process alone.
fn is_signal_to_main(entry: &Entry) -> bool {
    entry.settings().get("treekill") == Some(&false.into())
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
