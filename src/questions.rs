//! What `install` asks: only what the configuration leaves open, and only on a terminal.

use std::fs;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;

use anyhow::{Context, Result};
use nix::unistd::Uid;

use crate::outcome::usage;

/// Asks a question, with the answer that Enter gives; None: it must be answered. None as the answer: leave it out.
type Ask<'a> = &'a mut dyn FnMut(&str, Option<&str>) -> Result<Option<String>>;

/// The configuration's text: that of `file`, or of the one that `home` has already, completed by answers.
pub fn configuration(file: Option<&Path>, home: Option<&Path>) -> Result<String> {
    let present = home.map(|home| home.join("config.toml")).filter(|present| present.is_file());
    let text = file.or(present.as_deref()).map(|file| {
        fs::read_to_string(file).map_err(|error| usage(format!("cannot read {}: {error}", file.display())))
    });
    let text = text.transpose()?;
    if io::stdin().is_terminal() && io::stderr().is_terminal() {
        return complete(text, Uid::effective().is_root(), &mut ask);
    }
    text.ok_or_else(|| usage("no configuration: say --config FILE; cutover-config(5) describes it"))
}

/// Adds to a configuration what it leaves open; makes a whole one from nothing. A text that is no TOML comes back as it
/// is, for the parser to complain about.
fn complete(given: Option<String>, is_root: bool, ask: Ask) -> Result<String> {
    let is_new = given.is_none();
    let mut text = given.unwrap_or_default();
    let Ok(known) = text.parse::<toml::Table>() else { return Ok(text) };
    let mut answer = |table: &str, key: &str, question: &str, default: Option<&str>| -> Result<()> {
        let is_known = if table.is_empty() { known.contains_key(key) } else { known.contains_key(table) };
        if !is_known && let Some(value) = ask(question, default)? {
            let value = serde_json::to_string(&value).context("cannot quote the answer")?;
            text = match table {
                "" => format!("{key} = {value}\n{text}"),
                _ => format!("{text}\n[{table}]\n{key} = {value}\n"),
            };
        }
        Ok(())
    };
    answer("", "app", "The app's name (lower-case letters, digits, -)", None)?;
    // Containers come from a registry, and a Compose file says how they run.
    if !known.contains_key("compose") {
        answer("source", "git", "The git repository it is deployed from (URL or path)", None)?;
        answer("run", "command", "The command that runs it, on $PORT", Some("npm start -- --port=$PORT"))?;
    }
    if is_new {
        answer("build", "command", "The command that builds it (- for none)", Some("npm ci"))?;
        answer("health", "path", "The path that answers 2xx when it is healthy", Some("/"))?;
        if !is_root {
            text += "\n# Not installed by root: an nginx of your own, on a port that needs no privilege.\n[nginx]\nown = true\nlisten = [\"8080\"]\n";
        }
    }
    Ok(text)
}

fn ask(question: &str, default: Option<&str>) -> Result<Option<String>> {
    let mut terminal = io::stderr();
    match default {
        Some(default) => write!(terminal, "{question} [{default}]: ")?,
        None => write!(terminal, "{question}: ")?,
    }
    let mut line = String::new();
    let ended = io::stdin().lock().read_line(&mut line)? == 0;
    match (line.trim(), default) {
        ("-", _) => Ok(None),
        ("", Some(default)) if !ended => Ok(Some(default.to_owned())),
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
        assert_eq!(config.build.command, None);
    }

    #[test]
    fn a_complete_file_stays_as_it_is() {
        let given = "# mine\napp = \"cafe\"\n[source]\ngit = \"x\"\n[run]\ncommand = \"./app\"\n";
        let mut nobody = |_: &str, _: Option<&str>| panic!("nothing is left open");
        assert_eq!(complete(Some(given.to_owned()), false, &mut nobody).unwrap(), given);
    }
}
