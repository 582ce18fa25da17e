//! How single values of the configuration are read, and what is wrong with one: the line is told by who calls.
#![deny(clippy::arithmetic_side_effects)]

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use regex::bytes::Regex;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use ureq::http::uri::Authority;
use ureq::http::{HeaderName, HeaderValue};

use super::{Check, Each, Processes, Worker};
use crate::app::names::Instance;
use crate::docker;
use crate::harmless::{harmless, is_harmful};
use crate::health::StatusSet;

/// The shortest time between two questions to a repository's host.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);
/// The shortest time for which a process can be ill before it is started again: a few questions must fit in.
const LEAST_RESTART_AFTER: Duration = Duration::from_secs(5);
/// The longest time that anything can be given: there are sums of several.
const LONGEST_DURATION: Duration = Duration::from_secs(10 * 366 * 24 * 60 * 60);
/// The most connections that nginx keeps to an instance.
const MOST_KEPT: u16 = 512;
/// No program runs in less memory, in bytes.
const LEAST_MEMORY: u64 = 1 << 20;

/// Reads a string and makes a value of it; what `make` finds wrong becomes an error that names the line.
fn from_text<'de, D: Deserializer<'de>, T>(
    from: D,
    make: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    let text = String::deserialize(from)?;
    make(&text).map_err(de::Error::custom)
}

/// A name that goes into file names, other programs' configuration and log lines.
fn plain_name<'de, D: Deserializer<'de>>(from: D, whose: &str) -> Result<String, D::Error> {
    from_text(from, |text| {
        let begins_well = text.starts_with(|first: char| first.is_ascii_lowercase());
        let is_plain = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        match begins_well && is_plain && text.len() <= 32 {
            true => Ok(text.to_owned()),
            false => {
                Err(format!("{whose} name is a lower-case letter and up to 31 letters, digits and -, not {text:?}"))
            }
        }
    })
}

pub(super) fn app_name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    plain_name(from, "an app's")
}

pub(super) fn worker_name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    plain_name(from, "a worker's")
}

pub(super) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    from_text(from, |text| {
        let given = humantime::parse_duration(text).ok().filter(|given| *given <= LONGEST_DURATION);
        given.ok_or_else(|| format!("expected a duration such as \"30s\" or \"5m\", got {text:?}"))
    })
}

/// How long a process may be ill: long enough for a few questions. `never` is None.
pub(super) fn restart_after<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    from_text(from, |text| {
        let given = humantime::parse_duration(text).ok();
        match given.filter(|given| (LEAST_RESTART_AFTER..=LONGEST_DURATION).contains(given)) {
            None if text != "never" => {
                Err(format!("expected a duration of at least \"5s\", or \"never\", got {text:?}"))
            }
            given => Ok(given),
        }
    })
}

/// A number of processes, or `max`.
pub(super) fn processes<'de, D: Deserializer<'de>>(from: D) -> Result<Processes, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        Number(i64),
        Text(String),
    }
    match Given::deserialize(from) {
        Ok(Given::Text(text)) if text == "max" => Ok(Processes::Max),
        Ok(Given::Number(number)) if (1..=Processes::MOST).contains(&number) => Ok(Processes::Number(number as usize)),
        _ => Err(de::Error::custom(format!("expected a number from 1 to {}, or \"max\"", Processes::MOST))),
    }
}

/// A size as systemd takes it: bytes, or with K, M or G behind the number multiples of 1024.
pub(super) fn size<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    from_text(from, |text| {
        let units = [(['k', 'K'], 1 << 10), (['m', 'M'], 1 << 20), (['g', 'G'], 1 << 30)];
        let with_unit = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
        let (digits, factor) = with_unit.unwrap_or((text, 1));
        let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
        let bytes = bytes.filter(|bytes| *bytes >= LEAST_MEMORY);
        bytes.map(Some).ok_or_else(|| format!("expected a size of at least \"1M\", such as \"300M\", got {text:?}"))
    })
}

pub(super) fn open_files<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    match i64::deserialize(from)? {
        number @ 16.. => Ok(Some(number.cast_unsigned())),
        number => Err(de::Error::custom(format!("expected a number of at least 16, got {number}"))),
    }
}

pub(super) fn nice<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i32>, D::Error> {
    match i64::deserialize(from)? {
        number @ -20..=19 => Ok(Some(number as i32)),
        number => Err(de::Error::custom(format!("expected a number from -20 to 19, got {number}"))),
    }
}

pub(super) fn worker_count<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    match i64::deserialize(from)? {
        number if (1..=Processes::MOST).contains(&number) => Ok(number as usize),
        number => Err(de::Error::custom(format!("expected a number from 1 to {}, got {number}", Processes::MOST))),
    }
}

/// `[[worker]]`: all with names of their own.
pub(super) fn workers<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Worker>, D::Error> {
    let workers = Vec::<Worker>::deserialize(from)?;
    let names: Vec<&str> = workers.iter().map(|worker| worker.name.as_str()).collect();
    match names.iter().enumerate().find(|(at, name)| names.iter().take(*at).any(|other| other == *name)) {
        Some((_, name)) => Err(de::Error::custom(format!("two workers are called {name:?}"))),
        None => Ok(workers),
    }
}

pub(super) fn status_set<'de, D: Deserializer<'de>>(from: D) -> Result<StatusSet, D::Error> {
    from_text(from, str::parse)
}

pub(super) fn pattern<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Regex>, D::Error> {
    from_text(from, |text| {
        shown_as_it_is(text)?;
        Regex::new(text).map(Some).map_err(|error| format!("body is not a regular expression: {error}"))
    })
}

/// A command, or arguments for one: any text, in which nothing acts on the terminal of whoever is shown it.
fn shown_as_it_is(text: &str) -> Result<(), String> {
    match harmless(text) == text.replace("\r\n", "\n") {
        true => Ok(()),
        false => Err(format!("{text:?} holds a control character, or one that hides or reorders text")),
    }
}

/// A path or another word, which is shown in messages and has no use for such characters.
fn plain_word(text: &str) -> Result<String, String> {
    match text.contains(is_harmful) {
        false => Ok(text.to_owned()),
        true => Err(format!("{text:?} holds a control character, or one that hides or reorders text")),
    }
}

pub(super) fn path<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    from_text(from, plain_word).map(PathBuf::from)
}

pub(super) fn optional_path<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    path(from).map(Some)
}

pub(super) fn optional_command<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    from_text(from, |text| shown_as_it_is(text).map(|()| Some(text.to_owned())))
}

pub(super) fn arguments<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let arguments = Vec::<String>::deserialize(from)?;
    arguments.iter().try_for_each(|argument| shown_as_it_is(argument)).map_err(de::Error::custom)?;
    Ok(arguments)
}

pub(super) fn not_empty<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    from_text(from, |text| match text.trim() {
        "" => Err("expected a command, got an empty string".to_owned()),
        _ => shown_as_it_is(text).map(|()| text.to_owned()),
    })
}

/// A word handed to git: not empty, and no option in disguise.
pub(super) fn argument<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    from_text(from, argument_of)
}

fn argument_of(text: &str) -> Result<String, String> {
    match text {
        "" => Err("expected a text, got an empty string".to_owned()),
        _ if text.starts_with('-') => Err(format!("{text:?} would be taken for an option")),
        _ => plain_word(text),
    }
}

/// [`argument`] for what may hold a password: it is not shown.
pub(super) fn source_address<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    from_text(from, |text| match text {
        "" => Err("expected a URL or a path, got an empty string".to_owned()),
        _ if text.starts_with('-') && !text.contains(['@', '?']) => argument_of(text),
        _ if text.starts_with('-') => Err("a URL that begins with - would be taken for an option".to_owned()),
        _ => plain_word(text)
            .map_err(|_| "the URL holds a control character, or one that hides or reorders text".to_owned()),
    })
}

pub(super) fn optional_argument<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    argument(from).map(Some)
}

/// A repository as its host names it: `owner/name`, on GitLab also with groups within groups.
pub(super) fn repository<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    from_text(from, |text| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let parts: Vec<&str> = text.split('/').collect();
        match parts.len() >= 2 && parts.iter().all(|part| !part.is_empty() && part.bytes().all(plain)) {
            true => Ok(Some(text.to_owned())),
            false => Err(format!("expected a repository such as \"owner/name\", got {text:?}")),
        }
    })
}

pub(super) fn interval<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let interval = duration(from)?;
    match interval >= SHORTEST_INTERVAL {
        true => Ok(Some(interval)),
        false => Err(de::Error::custom("expected a duration of at least \"1s\"")),
    }
}

pub(super) fn docker_host<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    from_text(from, |text| docker::socket_of(text).map(Some))
}

/// One value for both instances, or a table with one for each.
fn each<'de, D: Deserializer<'de>, G: Deserialize<'de>, T>(
    from: D,
    expected: &str,
    make: fn(G) -> Result<T, String>,
) -> Result<Each<T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given<G> {
        Both(G),
        Own(BTreeMap<String, G>),
    }
    let mistake = || format!("expected {expected}, or one for each instance such as {{ A = …, B = … }}");
    let made = match Given::deserialize(from).map_err(|_| de::Error::custom(mistake()))? {
        Given::Both(given) => make(given).map(Each::Both),
        Given::Own(given) => {
            let made = given.into_iter().map(|(name, given)| Ok((name, make(given)?)));
            made.collect::<Result<_, String>>().map(Each::Own)
        }
    };
    made.map_err(de::Error::custom)
}

fn path_of(text: &str) -> Result<PathBuf, String> {
    match text {
        "" => Err("expected a path, got an empty string".to_owned()),
        _ => plain_word(text).map(PathBuf::from),
    }
}

/// A path, or a list of some.
#[derive(Deserialize)]
#[serde(untagged)]
enum Paths {
    One(String),
    Several(Vec<String>),
}

pub(super) fn files<'de, D: Deserializer<'de>>(from: D) -> Result<Each<Vec<PathBuf>>, D::Error> {
    each(from, "a path, or a list of paths", |paths| match paths {
        Paths::One(path) => Ok(vec![path_of(&path)?]),
        Paths::Several(paths) if paths.is_empty() => Err("expected a path, got an empty list".to_owned()),
        Paths::Several(paths) => paths.iter().map(|path| path_of(path)).collect(),
    })
}

pub(super) fn env_files<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Each<PathBuf>>, D::Error> {
    each(from, "a path", |path: String| path_of(&path)).map(Some)
}

/// As the Compose Specification has it.
pub(super) fn services<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Each<String>>, D::Error> {
    let make = |text: String| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        match text.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_') && text.bytes().all(plain) {
            true => Ok(text),
            false => Err(format!("expected a service's name such as \"app\", got {text:?}")),
        }
    };
    each(from, "a name", make).map(Some)
}

/// As both generations of Compose take it: what it makes of another name differs.
pub(super) fn projects<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Each<String>>, D::Error> {
    let make = |text: String| {
        let begins_well = text.starts_with(|first: char| first.is_ascii_lowercase() || first.is_ascii_digit());
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
        match begins_well && text.bytes().all(plain) {
            true => Ok(text),
            false => Err(format!("a project's name is lower-case letters, digits, - and _, not {text:?}")),
        }
    };
    each(from, "a name", make).map(Some)
}

pub(super) fn optional_variable_name<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    from_text(from, |text| {
        let begins_well = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        match begins_well && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            true => Ok(Some(text.to_owned())),
            false => Err(format!("expected a variable's name such as \"APP_IMAGE\", got {text:?}")),
        }
    })
}

/// An image's name as distribution/reference has it, without a tag or digest: the part after the last `/` has no `:`.
pub(super) fn image_name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    from_text(from, |text| {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        let (registry, name) = text.rsplit_once('/').unwrap_or(("", text));
        let is_name = !name.is_empty() && name.bytes().all(plain);
        let is_registry =
            registry.bytes().all(|byte| plain(byte) || byte.is_ascii_uppercase() || b"/:".contains(&byte));
        // What goes without saying on Docker Hub, Docker never says.
        let short = text.strip_prefix("docker.io/").unwrap_or(text);
        let short = short.strip_prefix("library/").unwrap_or(short);
        match is_name && is_registry && text.starts_with(|first: char| first.is_ascii_alphanumeric()) {
            true => Ok(short.to_owned()),
            false => Err(format!("expected an image without a tag, such as \"user/app\", got {text:?}")),
        }
    })
}

pub(super) fn health_path<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    from_text(from, |text| {
        let is_path = text.is_empty() || text.starts_with('/');
        match is_path && !text.contains(|c: char| is_harmful(c) || c.is_whitespace()) {
            true => Ok(text.to_owned()),
            false => Err(format!("expected a path such as \"/health\", or \"\", got {text:?}")),
        }
    })
}

/// What stands in a request's `Host`.
pub(super) fn host<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    from_text(from, |text| {
        let is_host =
            text.parse::<Authority>().is_ok_and(|authority| !text.contains('@') && !authority.host().is_empty());
        match is_host {
            true => Ok(Some(text.to_owned())),
            false => Err(format!("expected a host such as \"shop.example.org\", got {text:?}")),
        }
    })
}

/// Header fields, with their names in lower case.
pub(super) fn headers<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let given = BTreeMap::<String, String>::deserialize(from)?;
    let checked = given.into_iter().map(|(name, value)| {
        let lower = name.to_ascii_lowercase();
        if lower == "host" {
            return Err("[health] headers has no Host: that is `host` in [health]".to_owned());
        }
        let is_of_connection = ["connection", "content-length", "transfer-encoding"].contains(&lower.as_str());
        // What it holds may be a secret.
        match HeaderName::from_bytes(name.as_bytes()).is_ok()
            && HeaderValue::from_str(&value).is_ok()
            && !is_of_connection
        {
            true => Ok((lower, value)),
            false => Err(format!("{name:?} is no header field that a request can have with this value")),
        }
    });
    checked.collect::<Result<_, _>>().map_err(de::Error::custom)
}

pub(super) fn signal<'de, D: Deserializer<'de>>(from: D) -> Result<nix::sys::signal::Signal, D::Error> {
    from_text(from, |text| text.parse().map_err(|_| format!("expected a signal such as \"SIGTERM\", got {text:?}")))
}

/// nginx's configuration is rendered by root, so nothing in it may end a directive or open a block.
fn safe_for_nginx(text: &str) -> Result<String, String> {
    match text.trim().is_empty() || text.contains(|c: char| is_harmful(c) || ";{}\"'\\#$".contains(c)) {
        false => Ok(text.to_owned()),
        true => Err(format!("{text:?} cannot stand in nginx's configuration")),
    }
}

pub(super) fn nginx_word<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    from_text(from, safe_for_nginx)
}

pub(super) fn nginx_words<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let words = Vec::<String>::deserialize(from)?;
    words.iter().map(|word| safe_for_nginx(word).map_err(de::Error::custom)).collect()
}

/// How many connections nginx keeps: more than a worker of its may have open by default are none.
pub(super) fn keepalive<'de, D: Deserializer<'de>>(from: D) -> Result<u16, D::Error> {
    let given = i64::deserialize(from)?;
    let number = u16::try_from(given).ok().filter(|number| *number <= MOST_KEPT);
    number.ok_or_else(|| de::Error::custom(format!("expected a number from 0 to {MOST_KEPT}, got {given}")))
}

pub(super) fn keepalive_timeout<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let given = duration(from)?;
    match given >= Duration::from_millis(1) {
        true => Ok(given),
        false => Err(de::Error::custom("expected a duration of at least \"1ms\"; keepalive = 0 keeps no connection")),
    }
}

/// A time that nginx can count: whole milliseconds, and not none at all.
pub(super) fn nginx_time<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let given = duration(from)?;
    match given >= Duration::from_millis(1) {
        true => Ok(given),
        false => Err(de::Error::custom("expected a duration of at least \"1ms\"")),
    }
}

/// Addresses, and networks as `10.0.0.0/8`.
pub(super) fn networks<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let given = Vec::<String>::deserialize(from)?;
    let is_network = |text: &&String| {
        let (address, length) =
            text.split_once('/').map_or((text.as_str(), None), |(address, length)| (address, Some(length)));
        let Ok(address) = address.parse::<IpAddr>() else { return false };
        let most = if address.is_ipv4() { 32 } else { 128 };
        length.is_none_or(|length| length.parse::<u8>().is_ok_and(|length| length <= most))
    };
    match given.iter().find(|text| !is_network(text)) {
        Some(wrong) => {
            Err(de::Error::custom(format!("expected an address, or a network such as \"10.0.0.0/8\", got {wrong:?}")))
        }
        None => Ok(given),
    }
}

pub(super) fn check<'de, D: Deserializer<'de>>(from: D) -> Result<Check, D::Error> {
    from_text(from, str::parse)
}

/// `[instances]` in the file's order: exactly two, with different names and ports.
pub(super) fn instances<'de, D: Deserializer<'de>>(from: D) -> Result<[Instance; 2], D::Error> {
    struct Two;

    impl<'de> Visitor<'de> for Two {
        type Value = [Instance; 2];

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("exactly two instances, such as A = 20201 and B = 20202")
        }

        fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<[Instance; 2], M::Error> {
            let mut found = Vec::new();
            while let Some(name) = map.next_key::<String>()? {
                let instance = Instance::new(&name, map.next_value()?).map_err(de::Error::custom)?;
                found.push(instance);
            }
            let count = found.len();
            let two: [Instance; 2] = found.try_into().map_err(|_| de::Error::invalid_length(count, &self))?;
            let [first, second] = &two;
            if first.port() == second.port() {
                return Err(de::Error::custom(format!(
                    "instances {first} and {second} have the same port {}",
                    first.port()
                )));
            }
            if first.is_meant_by(second.name()) || second.is_meant_by(first.name()) {
                return Err(de::Error::custom(format!("instances {first} and {second} cannot be told apart")));
            }
            Ok(two)
        }
    }

    from.deserialize_map(Two)
}
