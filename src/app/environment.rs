//! The environment of the app's programs, built from nothing, so that it is the same whoever calls.
#![deny(clippy::arithmetic_side_effects)]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Result;

use super::names::{Instance, Member};
use crate::account::Account;
use crate::bounded::{self, Links};
use crate::command;
use crate::outcome::usage;

/// Variables in the order of their names.
pub type Variables = BTreeMap<OsString, OsString>;

/// What every program gets: HOME USER LOGNAME PATH LANG TZ.
pub fn base(owner: &Account, app_home: &Path) -> Variables {
    let home = owner.home.as_deref().or(app_home.parent()).unwrap_or(app_home);
    let time_zone = time_zone();
    let pairs: [(&str, &OsStr); 4] = [
        ("HOME", home.as_os_str()),
        ("USER", owner.name.as_ref()),
        ("LOGNAME", owner.name.as_ref()),
        ("TZ", time_zone.as_ref()),
    ];
    let usual = command::ENVIRONMENT.map(|(name, value)| (name, OsStr::new(value)));
    pairs.into_iter().chain(usual).map(|(name, value)| (name.into(), value.to_owned())).collect()
}

/// What tells the programs of an instance which instance they are, and which of its programs.
pub fn of_member(instance: &Instance, member: &Member) -> Vec<(OsString, OsString)> {
    let (slot, which) = match member {
        Member::Process { index, slot } => (*slot, vec![("PROCESS_INDEX".into(), index.to_string().into())]),
        Member::Worker { name, index } => {
            (0, vec![("WORKER".into(), name.into()), ("WORKER_INDEX".into(), index.to_string().into())])
        }
    };
    // The configuration was refused if there were too few ports.
    let port = instance.port_of(slot).unwrap_or_else(|| instance.port());
    let mut variables = of_instance(instance);
    variables.push(("PORT".into(), port.to_string().into()));
    variables.extend(which);
    variables
}

/// What is the same for all programs of an instance.
pub fn of_instance(instance: &Instance) -> Vec<(OsString, OsString)> {
    vec![("HOST".into(), "127.0.0.1".into()), ("INSTANCE".into(), instance.name().into())]
}

/// The machine's time zone by name (`Asia/Seoul`), from where /etc/localtime points; UTC when it does not say.
fn time_zone() -> String {
    let link = fs::read_link("/etc/localtime").unwrap_or_default();
    let zone = link.to_str().and_then(|path| path.split_once("zoneinfo/")).map(|(_, zone)| zone.to_owned());
    zone.unwrap_or_else(|| "UTC".to_owned())
}

/// Reads the env file: KEY=VALUE lines, `#` comments, an optional `export `, optional quotes around the whole value.
/// Errors name the file and the line, never a value. A file that is not `required` may be missing.
pub fn read(path: &Path, required: bool) -> Result<Variables> {
    let cannot = |reason: String| usage(format!("cannot read env file {}{reason}", path.display()));
    let failed = |error: io::Error| cannot(format!(": {error}; it is named by env_file in [run]"));
    let file = match bounded::open(path, Links::Followed) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !required => return Ok(Variables::new()),
        opened => opened.map_err(failed)?,
    };
    if file.metadata().map_err(failed)?.mode() & 0o077 != 0 {
        return Err(cannot(format!(": others may read it; chmod 600 {}", path.display())));
    }
    let text = bounded::all_of(file, bounded::LARGE).map_err(failed)?;
    variables(&text).map_err(|line| cannot(format!(" line {line}: expected KEY=VALUE")))
}

/// The variables of an env file's text. Err: the number of the line that is none.
fn variables(text: &[u8]) -> Result<Variables, usize> {
    let mut variables = Variables::new();
    for (number, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let (name, value) = parse(line).ok_or(number.saturating_add(1))?;
        variables.insert(OsString::from(name), OsString::from_vec(value.to_vec()));
    }
    Ok(variables)
}

fn parse(line: &[u8]) -> Option<(&str, &[u8])> {
    let line = line.strip_prefix(b"export ").unwrap_or(line);
    let (name, value) = line.split_at_checked(line.iter().position(|byte| *byte == b'=')?)?;
    let name = std::str::from_utf8(name.trim_ascii()).ok()?;
    let is_name = !name.is_empty()
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let value = unquote(value.strip_prefix(b"=")?.trim_ascii());
    let is_value = !value.contains(&0);
    (is_name && is_value).then_some((name, value))
}

/// The line of an env file that sets this variable; None: no line can.
pub fn line(name: &str, value: &str) -> Option<String> {
    let is_plain = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./:@+,=".contains(&byte));
    let line = if is_plain { format!("{name}={value}") } else { format!("{name}='{value}'") };
    let is_read_back = !value.contains('\n') && parse(line.as_bytes()) == Some((name, value.as_bytes()));
    is_read_back.then_some(line)
}

fn unquote(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inside @ .., b'"'] | [b'\'', inside @ .., b'\''] => inside,
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_are_variables_or_the_number_of_a_line(text: Vec<u8>) {
            let lines = text.split(|byte| *byte == b'\n').count();
            match variables(&text) {
                Ok(variables) => prop_assert!(variables.keys().all(|name| !name.is_empty())),
                Err(line) => prop_assert!((1..=lines).contains(&line)),
            }
        }

        #[test]
        fn what_is_written_is_read(name in "[A-Za-z_][A-Za-z0-9_]{0,20}", value in "[^\\x00\n]*", export: bool) {
            let line = format!("# before\n{}{name}='{value}'\n", if export { "export " } else { "" });
            let read = variables(line.as_bytes()).unwrap();
            prop_assert_eq!(read[OsStr::new(&name)].to_str(), Some(value.as_str()));
        }

        #[test]
        fn a_line_is_read_back_or_there_is_none(name in "[A-Za-z_][A-Za-z0-9_]{0,9}|\\PC{0,9}", value in "[^\\x00]*") {
            let text = line(&name, &value).map(|line| format!("# before\n{line}\nAFTER=1\n"));
            let is_name = parse(format!("{name}=x").as_bytes()) == Some((name.as_str(), b"x"));
            match text.map(|text| variables(text.as_bytes()).unwrap()) {
                Some(read) => prop_assert_eq!(read[OsStr::new(&name)].to_str(), Some(value.as_str())),
                None => prop_assert!(!is_name || value.contains('\n')),
            }
        }
    }
}
