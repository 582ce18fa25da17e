//! What an instance that runs was started with, against what it would be started with now: the names of variables and of
//! settings that differ. Values are never told, nor kept.

use std::ffi::OsString;

use anyhow::Result;

use super::supervisor;
use crate::app::{App, Config, Instance, Member, Runner, SETTINGS};
use crate::bounded::{self, Links};
use crate::fingerprint::{self, Named, changes};

/// What differs between the processes of an instance.
const OF_PROCESSES: [&str; 2] = ["PORT", "PROCESS_INDEX"];
/// What an instance was started with, by the keys' names: hashes of the values.
pub type Settings = Named;

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
        let hash = fingerprint::of(format!("{value:?}").as_bytes());
        settings.insert(format!("{section}.{key}"), hash);
    }
}

/// The environment that a process was given, for a note that others may read: by hashes that take a key to make. None: there is no
/// key, as in a home of a version before. What the process shows of it itself is not to be relied on: some write over it.
pub fn given(app: &App, variables: &[(OsString, OsString)]) -> Option<Named> {
    let key = bounded::read(&app.key_file(), Links::Refused, bounded::SMALL).ok().filter(|key| !key.is_empty())?;
    let of_all = variables.iter().filter(|(name, _)| OF_PROCESSES.iter().all(|own| name != own));
    let hash = |value: &OsString| fingerprint::keyed(&key, value.as_encoded_bytes());
    Some(of_all.map(|(name, value)| (name.to_string_lossy().into_owned(), hash(value))).collect())
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
    let first = Member::Process { index: 0, slot: 0 };
    // Of one that has noted nothing, nothing is told.
    let wanted = given(app, &app.environment(&release, Some((instance, &first)))?);
    let changed =
        |wanted: Named| note.environments.iter().map(|present| changes(present, &wanted)).find(|what| !what.is_empty());
    let environment = wanted.and_then(changed);
    let configuration = changes(&note.settings, &settings(&app.config));
    let lines = [("environment", environment.unwrap_or_default()), ("configuration", configuration)];
    Ok(Some(
        lines
            .into_iter()
            .filter(|(_, what)| !what.is_empty())
            .map(|(whose, what)| format!("{whose}: {what}"))
            .collect(),
    ))
}
