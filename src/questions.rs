//! What `install` asks: only what the configuration leaves open, and only on a terminal.

use std::fs;
use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;

use anyhow::{Context, Result};

use crate::outcome::usage;

/// The keys without a default: their table, their key, and how one asks for them.
const OPEN: [(&str, &str, &str); 3] = [
    ("", "app", "The app's name (lower-case letters, digits, -)"),
    ("source", "git", "The git repository it is deployed from (URL or path)"),
    ("run", "command", "The command that runs it, listening on $PORT (such as: npm start -- --port=$PORT)"),
];

/// The configuration's text: that of `file`, or of the one that `home` has already, completed by answers.
pub fn configuration(file: Option<&Path>, home: Option<&Path>) -> Result<String> {
    let present = home.map(|home| home.join("config.toml")).filter(|present| present.exists());
    let text = match file.or(present.as_deref()) {
        Some(file) => {
            fs::read_to_string(file).map_err(|error| usage(format!("cannot read {}: {error}", file.display())))?
        }
        None if io::stdin().is_terminal() => String::new(),
        None => return Err(usage("no configuration: say --config FILE; cutover-config(5) describes it")),
    };
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(text);
    }
    complete(text, ask)
}

/// Adds to a configuration what it leaves open, as `answer` gives it. A text that is no TOML comes back as it is, for
/// the parser to complain about.
fn complete(mut text: String, mut answer: impl FnMut(&str) -> Result<String>) -> Result<String> {
    let Ok(given) = text.parse::<toml::Table>() else { return Ok(text) };
    for (table, key, question) in OPEN {
        let has_table = table.is_empty() || given.contains_key(table);
        let holds = if table.is_empty() { given.contains_key(key) } else { has_table };
        if holds {
            continue;
        }
        let value = serde_json::to_string(&answer(question)?).context("cannot quote the answer")?;
        text = match table {
            "" => format!("{key} = {value}\n{text}"),
            _ => format!("{text}\n[{table}]\n{key} = {value}\n"),
        };
    }
    Ok(text)
}

fn ask(question: &str) -> Result<String> {
    let mut terminal = io::stderr();
    write!(terminal, "{question}: ")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim() {
        "" => Err(usage("no answer, nothing was done")),
        given => Ok(given.to_owned()),
    }
}
