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

/// Where the programs of an instance are to listen, unless the env file says otherwise.
pub const HOST: (&str, &str) = ("HOST", "127.0.0.1");
/// The variables of which each program of an instance has one.
pub const OF_MEMBERS: [&str; 2] = ["PROCESS_INDEX", "WORKER"];
/// What only the tools can know, and an env file cannot set.
const GIVEN: [&str; 6] = ["PORT", "INSTANCE", "RELEASE", "PROCESS_INDEX", "WORKER", "WORKER_INDEX"];

/// Variables in the order of their names.
pub type Variables = BTreeMap<OsString, OsString>;

/// What every program gets: HOME USER LOGNAME PATH LANG TZ, the last one where the machine's time zone has a name.
pub fn base(owner: &Account, app_home: &Path) -> Variables {
    let home = owner.home.as_deref().or(app_home.parent()).unwrap_or(app_home);
    let time_zone = time_zone();
    let pairs: [(&str, &OsStr); 3] =
        [("HOME", home.as_os_str()), ("USER", owner.name.as_ref()), ("LOGNAME", owner.name.as_ref())];
    let usual = command::ENVIRONMENT.map(|(name, value)| (name, OsStr::new(value)));
    let zone = time_zone.iter().map(|zone| ("TZ", zone.as_ref()));
    pairs.into_iter().chain(usual).chain(zone).map(|(name, value)| (name.into(), value.to_owned())).collect()
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

/// What is the same for all programs of an instance, whatever the env file says.
pub fn of_instance(instance: &Instance) -> Vec<(OsString, OsString)> {
    vec![("INSTANCE".into(), instance.name().into())]
}

/// The machine's time zone by name (`Asia/Seoul`), from where /etc/localtime leads; UTC where there is no such file. None: it is a
/// copy, which tells its zone to whoever reads it, and no name.
fn time_zone() -> Option<String> {
    let place = Path::new("/etc/localtime");
    let link = match fs::read_link(place) {
        Ok(link) => link,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Some("UTC".to_owned()),
        Err(_) => return None,
    };
    let named = |path: &Path| path.to_str()?.split_once("zoneinfo/").map(|(_, zone)| zone.to_owned());
    // It may lead to another link, as update-alternatives makes them.
    named(&link).or_else(|| named(&fs::canonicalize(place).ok()?))
}

/// Reads the env file: KEY=VALUE lines, `#` comments, an optional `export `, optional quotes around the whole value.
/// Errors name the file and the line, never a value. A file that is not `required` may be missing.
pub fn read(path: &Path, required: bool) -> Result<Variables> {
    variables(&text(path, required)?).map_err(|line| cannot_read(path, &no_variable(line)))
}

/// Fails at the first line of an env file that other readers of such files would take for another value, or that sets what only the
/// tools can know. What brings something back does without this: what it was started with before is to be good enough.
pub fn check(path: &Path, required: bool) -> Result<()> {
    let text = text(path, required)?;
    variables(&text).map_err(|line| cannot_read(path, &no_variable(line)))?;
    let doubtful = numbered(&text).find_map(|(number, line)| Some((number, doubt(line)?)));
    doubtful.map_or(Ok(()), |(number, doubt)| Err(cannot_read(path, &format!(" line {number}: {doubt}"))))
}

fn no_variable(line: usize) -> String {
    format!(" line {line}: expected KEY=VALUE, all of it on one line")
}

fn cannot_read(path: &Path, reason: &str) -> anyhow::Error {
    usage(format!("cannot read env file {}{reason}", path.display()))
}

fn text(path: &Path, required: bool) -> Result<Vec<u8>> {
    let failed = |error: io::Error| cannot_read(path, &format!(": {error}; it is named by env_file in [run]"));
    let file = match bounded::open(path, Links::Followed) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !required => return Ok(Vec::new()),
        opened => opened.map_err(failed)?,
    };
    if file.metadata().map_err(failed)?.mode() & 0o077 != 0 {
        return Err(cannot_read(path, &format!(": others may read it; chmod 600 {}", path.display())));
    }
    bounded::all_of(file, bounded::LARGE).map_err(failed)
}

/// The lines of an env file's text that are to set something, each with its number.
fn numbered(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    (1..).zip(lines).filter(|(_, line)| !line.is_empty() && !line.starts_with(b"#"))
}

/// The variables of an env file's text. Err: the number of the line that is none.
fn variables(text: &[u8]) -> Result<Variables, usize> {
    let mut variables = Variables::new();
    for (number, line) in numbered(text) {
        let (name, value) = parse(line).ok_or(number)?;
        variables.insert(OsString::from(name), OsString::from_vec(value.to_vec()));
    }
    Ok(variables)
}

/// Why a line is not what it may seem to be; None: dotenv, systemd and we read the same, or it is no line at all. dotenv ends a value
/// without quotes at a #; in double quotes, and without any, a backslash means something to one of them and not to the other. A shell,
/// for which a line with `export` was written, would expand more than either.
fn doubt(line: &[u8]) -> Option<String> {
    let (name, _) = parse(line)?;
    if GIVEN.contains(&name) {
        return Some(format!("{name} is what the tools give each process, and cannot be set here"));
    }
    let value = line.splitn(2, |byte| *byte == b'=').nth(1)?.trim_ascii();
    let ends_early = |inside: &[u8], quote: u8| inside.contains(&quote);
    let is_expanded = |pair: &[u8]| {
        matches!(pair, [b'$', next] if next.is_ascii_alphabetic() || b"_{(".contains(next))
            || (pair.len() == 2 && pair.contains(&b'`'))
    };
    if line.starts_with(b"export ") && !value.starts_with(b"'") && value.windows(2).any(is_expanded) {
        return Some(
            "what a shell would expand is not expanded here; write the value itself, or use single quotes".to_owned(),
        );
    }
    let doubt = match value {
        [b'\'', inside @ .., b'\''] if !ends_early(inside, b'\'') && !inside.ends_with(b"\\") => return None,
        [b'"', inside @ .., b'"'] if !ends_early(inside, b'"') => {
            let reason = "a backslash in double quotes is read in different ways; use single quotes";
            return inside.contains(&b'\\').then(|| reason.to_owned());
        }
        [b'~'] | [b'~', b'/', ..] => "~ is not expanded here; write the whole path, or use single quotes",
        [b'\'' | b'"' | b'`', ..] => "the value's quotes do not end with it, or are in it once more",
        _ if value.contains(&b'#') => "a # in a value without quotes may begin a comment; put quotes around the value",
        _ if value.contains(&b'\\') => "a backslash without quotes is read in different ways; use single quotes",
        _ => return None,
    };
    Some(doubt.to_owned())
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
    let quotes = if is_plain { &[""][..] } else { &["'", "\"", ""] };
    let lines = quotes.iter().map(|quote| format!("{name}={quote}{value}{quote}"));
    let is_read_back =
        |line: &String| parse(line.as_bytes()) == Some((name, value.as_bytes())) && doubt(line.as_bytes()).is_none();
    lines.filter(|_| !value.contains(['\n', '\r'])).find(is_read_back)
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
                // What needs quotes of both kinds, or a backslash in them.
                None => prop_assert!(!is_name || value.contains(['\n', '\r', '\'', '\\'])),
            }
        }
    }
}
