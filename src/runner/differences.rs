//! What an instance that runs was started with, against what it would be started with now: the names of variables and of
//! settings that differ. Values are never told.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use anyhow::Result;
use sha2::{Digest, Sha256};

use super::supervisor;
use crate::app::{App, Config, Instance, Member, Runner, SETTINGS};
use crate::output::hex;
use crate::process::{self, Pid};

/// What shells set on their own account.
const OF_SHELLS: [&str; 4] = ["PWD", "OLDPWD", "SHLVL", "_"];
/// How much of a value's hash is kept, in hexadecimal digits.
const DIGITS: usize = 12;

/// What an instance was started with, by the keys' names: hashes of the values.
pub type Settings = BTreeMap<String, String>;

/// The settings that an instance started by this configuration has.
pub fn settings(config: &Config) -> Settings {
    let table: toml::Table = config.text.parse().unwrap_or_default();
    let mut settings = Settings::new();
    for section in SETTINGS {
        match table.get(section) {
            Some(toml::Value::Table(keys)) => add(&mut settings, section, keys),
            Some(toml::Value::Array(workers)) => {
                for keys in workers.iter().filter_map(toml::Value::as_table) {
                    let name = keys.get("name").and_then(toml::Value::as_str).unwrap_or_default();
                    add(&mut settings, &format!("{section} {name}"), keys);
                }
            }
            _ => {}
        }
    }
    settings
}

fn add(settings: &mut Settings, section: &str, keys: &toml::Table) {
    for (key, value) in keys {
        let hash = hex(&Sha256::digest(format!("{value:?}")));
        settings.insert(format!("{section}.{key}"), hash.chars().take(DIGITS).collect());
    }
}

/// What differs, in words, a line for the environment and one for the configuration. None: it cannot be told, for the
/// instance does not run, or in a container.
pub fn of(app: &App, instance: &Instance) -> Result<Option<Vec<String>>> {
    if app.runner() == Runner::Compose {
        return Ok(None);
    }
    let (Some((_, note)), Some(release)) = (supervisor(app, instance)?, app.release_of(instance)?) else {
        return Ok(None);
    };
    let leash = note.processes().find_map(|process| process.leash);
    let main = leash.and_then(|leash| process::tree(Pid::from_raw(leash)).into_iter().nth(1));
    let Some(present) = main.and_then(|main| process::environment(main.pid)) else { return Ok(None) };
    let first = Member::Process { index: 0, slot: 0 };
    let names = |variables: Vec<(OsString, OsString)>| {
        let text = |word: OsString| word.to_string_lossy().into_owned();
        let of_app = variables.into_iter().map(|(name, value)| (text(name), text(value)));
        of_app.filter(|(name, _)| !OF_SHELLS.contains(&name.as_str())).collect::<BTreeMap<String, String>>()
    };
    let mut wanted = names(app.environment(&release, Some((instance, &first)))?);
    let mut present = names(present.into_iter().collect());
    // In which of its ports it is may have changed since; and the first may be down just now, and this another one.
    for name in ["PORT", "PROCESS_INDEX"] {
        wanted.remove(name);
        present.remove(name);
    }
    let lines =
        [("environment", told(&present, &wanted)), ("configuration", told(&note.settings, &settings(&app.config)))];
    Ok(Some(
        lines
            .into_iter()
            .filter(|(_, what)| !what.is_empty())
            .map(|(whose, what)| format!("{whose}: {what}"))
            .collect(),
    ))
}

/// Which names are new, have other values, or are gone; empty: all is as before.
fn told(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> String {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let with = |is_it: fn(Option<&String>, Option<&String>) -> bool, how: &str| {
        let such = names.iter().filter(|name| is_it(before.get(**name), after.get(**name)));
        let such: Vec<&str> = such.map(|name| name.as_str()).collect();
        (!such.is_empty()).then(|| format!("{} {how}", such.join(", ")))
    };
    let parts = [
        with(|before, after| before.is_none() && after.is_some(), "added"),
        with(|before, after| before.is_some() && after.is_some() && before != after, "changed"),
        with(|before, after| before.is_some() && after.is_none(), "removed"),
    ];
    parts.into_iter().flatten().collect::<Vec<String>>().join("; ")
}
