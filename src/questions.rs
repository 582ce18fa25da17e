//! What `install` asks: only what the configuration leaves open, and only on a terminal.

use std::io::{self, IsTerminal};

use anyhow::{Context, Result};
use nix::unistd::Uid;

use crate::app::config::WITHOUT_ROOT;
use crate::outcome::{self, usage};

/// Asks a question, with the answer that Enter gives; None: it must be answered. None as the answer: leave it out.
type Ask<'a> = &'a mut dyn FnMut(&str, Option<&str>) -> Result<Option<String>>;

/// The configuration's text: what there is of it already, completed by answers where there is a terminal.
pub fn configuration(present: Option<String>) -> Result<String> {
    if is_terminal() {
        return complete(present, Uid::effective().is_root(), &mut ask);
    }
    present.ok_or_else(|| usage("no configuration: say --config FILE; cutover-config(5) describes it"))
}

/// A configuration's text, completed by answers. None: there is nobody to give them.
pub fn completed(text: &str) -> Result<Option<String>> {
    let answers = is_terminal().then(|| complete(Some(text.to_owned()), Uid::effective().is_root(), &mut ask));
    answers.transpose()
}

fn is_terminal() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Adds to a configuration what it leaves open; makes a whole one from nothing. A text that is no TOML comes back as it
/// is, for the parser to complain about.
fn complete(given: Option<String>, is_root: bool, ask: Ask) -> Result<String> {
    let is_new = given.is_none();
    let mut text = given.unwrap_or_default();
    let Ok(known) = text.parse::<toml::Table>() else { return Ok(text) };
    let mut answer = |table: &str, key: &str, question: &str, default: Option<&str>| -> Result<()> {
        let place = place_for(key, table, &text, &known);
        if let Some(place) = place
            && let Some(value) = ask(question, default)?
        {
            let value = serde_json::to_string(&value).context("cannot quote the answer")?;
            text = match place {
                Place::Within(at) => {
                    let (before, after) = text.split_at_checked(at).unwrap_or((&text, ""));
                    format!("{before}{key} = {value}\n{after}")
                }
                Place::NewTable => format!("{text}\n[{table}]\n{key} = {value}\n"),
            };
        }
        Ok(())
    };
    answer("", "app", "The app's name (lower-case letters, digits, -)", None)?;
    // Containers come from a registry, and a Compose file says how they run.
    if !known.contains_key("compose") {
        // Who wrote a file without a source deploys from paths.
        if is_new || known.contains_key("source") || known.contains_key("push") {
            answer("source", "git", "The git repository it is deployed from (URL or path)", None)?;
        }
        answer("run", "command", "The command that runs it, on $PORT", Some("npm start -- --port=$PORT"))?;
    }
    if is_new {
        answer("build", "command", "The command that builds it (- for none)", Some("npm ci"))?;
        answer("health", "path", "The path that answers 2xx when it is healthy", Some("/"))?;
        if !is_root {
            text += "\n# Not installed by root: an nginx of your own, on a port that needs no privilege.\n";
            text += WITHOUT_ROOT;
        }
    }
    Ok(text)
}

/// Where a line goes.
enum Place {
    /// Before this byte of the text.
    Within(usize),
    /// Into a table that is not there yet.
    NewTable,
}

/// Where a key of this table, or with no name of the top, is to be added. None: it is there, or its table is written in a
/// way of its own, without a heading.
fn place_for(key: &str, table: &str, text: &str, known: &toml::Table) -> Option<Place> {
    if table.is_empty() {
        return (!known.contains_key(key)).then_some(Place::Within(0));
    }
    let Some(present) = known.get(table) else { return Some(Place::NewTable) };
    if present.get(key).is_some() {
        return None;
    }
    let heading = format!("[{table}]");
    let mut end = 0;
    for line in text.split_inclusive('\n') {
        end += line.len();
        if line.trim_start().starts_with(&heading) {
            return line.ends_with('\n').then_some(Place::Within(end));
        }
    }
    None
}

fn ask(question: &str, default: Option<&str>) -> Result<Option<String>> {
    let said = match default {
        Some(default) => outcome::ask(&format!("{question} [{default}]:"))?,
        None => outcome::ask(&format!("{question}:"))?,
    };
    match (said.as_deref().unwrap_or_default().trim(), default) {
        ("-", _) => Ok(None),
        ("", Some(default)) if said.is_some() => Ok(Some(default.to_owned())),
        ("", _) => Err(usage("no answer, nothing was done")),
        (given, _) => Ok(Some(given.to_owned())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::app::Config;

    fn answers(question: &str, default: Option<&str>) -> Result<Option<String>> {
        Ok(Some(match default {
            Some(default) => default.to_owned(),
            None if question.contains("name") => "shop".to_owned(),
            None => "/srv/\"odd\" shop.git".to_owned(),
        }))
    }

    #[test]
    fn answers_make_a_whole_configuration() {
        let text = complete(None, false, &mut answers).unwrap();
        let config = Config::parse(&text).unwrap();
        assert_eq!((config.app.as_str(), config.source.git.as_str()), ("shop", "/srv/\"odd\" shop.git"));
        assert_eq!(config.build.command.as_deref(), Some("npm ci"));
        assert!(config.nginx.own);
    }

    #[test]
    fn only_what_a_file_leaves_open_is_asked() {
        let given = "app = \"cafe\"\n[run]\ncommand = \"./app\"\n";
        let text = complete(Some(given.to_owned()), true, &mut answers).unwrap();
        let config = Config::parse(&text).unwrap();
        assert_eq!((config.app.as_str(), config.run.command.as_str()), ("cafe", "./app"));
        assert_eq!((config.source.git.as_str(), config.build.command), ("", None));
        let pushed = complete(Some(format!("{given}[push]\npoll = \"1m\"\n")), true, &mut answers).unwrap();
        assert_eq!(Config::parse(&pushed).unwrap().source.git, "/srv/\"odd\" shop.git");
    }

    #[test]
    fn what_a_table_leaves_open_is_added_to_it() {
        let given = "app = \"cafe\"\n[source] # ours\nref = \"x\"\n[run]\n# command = \"\"\n[[worker]]\nname = \"w\"\ncommand = \"c\"\n";
        let text = complete(Some(given.to_owned()), true, &mut answers).unwrap();
        let config = Config::parse(&text).unwrap();
        assert_eq!((config.source.git.as_str(), config.source.reference.as_str()), ("/srv/\"odd\" shop.git", "x"));
        assert_eq!((config.run.command.as_str(), config.workers.len()), ("npm start -- --port=$PORT", 1));
        // What is written in another way is left to the parser, which names the line.
        let mut nobody = |_: &str, _: Option<&str>| panic!("there is no heading to write below");
        let dotted = "app = \"cafe\"\nsource.ref = \"x\"\nrun.command = \"x\"\n";
        assert_eq!(complete(Some(dotted.to_owned()), true, &mut nobody).unwrap(), dotted);
    }

    #[test]
    fn a_complete_file_stays_as_it_is() {
        let given = "# mine\napp = \"cafe\"\n[source]\ngit = \"x\"\n[run]\ncommand = \"./app\"\n";
        let mut nobody = |_: &str, _: Option<&str>| panic!("nothing is left open");
        assert_eq!(complete(Some(given.to_owned()), false, &mut nobody).unwrap(), given);
    }
}
