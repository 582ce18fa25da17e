//! How single values of the configuration are read, and what is wrong with one: the line is told by who calls.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use regex::bytes::Regex;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::app::names::Instance;
use crate::docker;
use crate::health::StatusSet;

/// The shortest time between two questions to a repository's host.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// Reads a string and makes a value of it; what `make` finds wrong becomes an error that names the line.
fn from_text<'de, D: Deserializer<'de>, T>(
    from: D,
    make: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    let text = String::deserialize(from)?;
    make(&text).map_err(de::Error::custom)
}

pub(super) fn app_name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    from_text(from, |text| {
        let begins_well = text.starts_with(|first: char| first.is_ascii_lowercase());
        let is_plain = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        match begins_well && is_plain && text.len() <= 32 {
            true => Ok(text.to_owned()),
            false => {
                Err(format!("an app's name is a lower-case letter and up to 31 letters, digits and -, not {text:?}"))
            }
        }
    })
}

pub(super) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    from_text(from, |text| {
        humantime::parse_duration(text)
            .map_err(|_| format!("expected a duration such as \"30s\" or \"5m\", got {text:?}"))
    })
}

pub(super) fn status_set<'de, D: Deserializer<'de>>(from: D) -> Result<StatusSet, D::Error> {
    from_text(from, str::parse)
}

pub(super) fn pattern<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Regex>, D::Error> {
    from_text(from, |text| {
        Regex::new(text).map(Some).map_err(|error| format!("body is not a regular expression: {error}"))
    })
}

pub(super) fn not_empty<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    from_text(from, |text| match text.trim() {
        "" => Err("expected a command, got an empty string".to_owned()),
        _ => Ok(text.to_owned()),
    })
}

/// A word handed to git: not empty, and no option in disguise.
pub(super) fn argument<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    from_text(from, |text| match text {
        "" => Err("expected a text, got an empty string".to_owned()),
        _ if text.starts_with('-') => Err(format!("{text:?} would be taken for an option")),
        _ if text.contains(char::is_control) => Err(format!("{text:?} holds a control character")),
        _ => Ok(text.to_owned()),
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

pub(super) fn variable_name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    from_text(from, |text| {
        let begins_well = text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        match begins_well && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            true => Ok(text.to_owned()),
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
        match is_path && !text.contains(|c: char| c.is_control() || c.is_whitespace()) {
            true => Ok(text.to_owned()),
            false => Err(format!("expected a path such as \"/health\", or \"\", got {text:?}")),
        }
    })
}

pub(super) fn signal<'de, D: Deserializer<'de>>(from: D) -> Result<nix::sys::signal::Signal, D::Error> {
    from_text(from, |text| text.parse().map_err(|_| format!("expected a signal such as \"SIGTERM\", got {text:?}")))
}

/// nginx's configuration is rendered by root, so nothing in it may end a directive or open a block.
fn safe_for_nginx(text: &str) -> Result<String, String> {
    match text.trim().is_empty() || text.contains(|c: char| c.is_control() || ";{}\"'\\#$".contains(c)) {
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
