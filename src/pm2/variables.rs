//! The variables that pm2 gives its apps, for the one env file that all have here. Of their values nothing is told.

use std::collections::BTreeMap;

use serde_json::Value;

use super::entry::{self, Entry};
use super::notes::Notes;
use crate::app::environment;

/// What the tools themselves tell each process.
const OURS: [&str; 6] = ["HOST", "INSTANCE", "RELEASE", "PROCESS_INDEX", "WORKER", "WORKER_INDEX"];

/// Variables by their names.
pub type Variables = BTreeMap<String, String>;

/// Adds those of an app but for PORT and what its command sets. Where they differ from another's, the first ones count.
pub fn add(variables: &mut Variables, entry: &Entry, app: &str, of_command: &[(String, String)], notes: &mut Notes) {
    let is_of_command = |name: &String| name == "PORT" || of_command.iter().any(|(other, _)| other == name);
    for (name, value) in entry.variables("env").filter(|(name, _)| !is_of_command(name)) {
        let key = format!("env {name}");
        if OURS.contains(&name.as_str()) {
            notes.add(&key, app, "is left out: it is told by what runs the app; see cutover(7)");
        } else if value.is_null() {
            notes.add(&key, app, "has no value here: it comes from the environment; write it into the env file");
        } else if entry::plain(value).split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == "undefined") {
            let reason = "is left out: it was made with a variable that is not there; write it into the env file";
            notes.add(&key, app, reason);
        } else if environment::line(name, &entry::plain(value)).is_none() {
            notes.add(&key, app, "is left out: an env file cannot hold it");
        } else if *variables.entry(name.clone()).or_insert_with(|| entry::plain(value)) != entry::plain(value) {
            let reason = "is left out: another app has another value, and there is one env file; set it in the command";
            notes.add(&key, app, reason);
        }
    }
    if let Some(Value::String(_)) = entry.settings().get("env") {
        notes.lost("env", app, "it is a text; write it into the env file, a variable on each line");
    }
}
