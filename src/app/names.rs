//! Types for what must not be mixed: an instance, its port, a release's id.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

use anyhow::bail;
use serde::{Deserialize, Serialize};

/// A TCP port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(try_from = "i64")]
pub struct Port(NonZeroU16);

impl Port {
    /// The number.
    pub fn number(self) -> u16 {
        self.0.get()
    }
}

impl TryFrom<i64> for Port {
    type Error = String;

    fn try_from(number: i64) -> Result<Port, String> {
        let port = u16::try_from(number).ok().and_then(NonZeroU16::new);
        port.map(Port).ok_or_else(|| format!("a port is a number from 1 to 65535, not {number}"))
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One of the two instances of the app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    name: String,
    port: Port,
}

/// Files of the app's that lie beside those of an instance: links beside its marks, locks beside its lock, logs beside its log.
const TAKEN: [&str; 8] = ["workers", "deploy", "queue", "queued-deploy", "on-push", "large-body", "hooks", "push"];

impl Instance {
    /// An instance of this name on this port. The name goes into file names and nginx's configuration: letters, digits,
    /// `-` and `_`, at most 32, beginning with a letter or digit.
    pub fn new(name: &str, port: Port) -> Result<Instance, String> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let begins_well = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if !begins_well || name.len() > 32 || !name.bytes().all(plain) {
            return Err(format!("an instance's name is 1 to 32 letters, digits, - and _, not {name:?}"));
        }
        if name.eq_ignore_ascii_case("enabled") {
            return Err("no instance can be named `enabled`: the link that says which one is has that name".to_owned());
        }
        let is_build_log = name.strip_prefix("build-").is_some_and(|id| id.parse::<ReleaseId>().is_ok());
        if TAKEN.contains(&name) || is_build_log {
            return Err(format!("no instance can be named `{name}`: a file of the tools' own has that name"));
        }
        Ok(Instance { name: name.to_owned(), port })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The port it listens on.
    pub fn port(&self) -> Port {
        self.port
    }

    /// The port of one of its slots, of which each holds a process: the first has the instance's own port, and each other
    /// lies [`Instance::STEP`] above the one before. None: there is no such port.
    pub fn port_of(&self, slot: usize) -> Option<Port> {
        let number = i64::from(self.port.number()) + i64::try_from(slot * Self::STEP).ok()?;
        Port::try_from(number).ok()
    }

    /// From one slot's port to the next one's.
    pub const STEP: usize = 10;

    /// Whether a person who writes `argument` means this instance: `A`, `a`, `instanceA` and `instancea` are one, whichever of them is
    /// its name.
    pub fn is_meant_by(&self, argument: &str) -> bool {
        short(&self.name).eq_ignore_ascii_case(short(argument))
    }
}

/// A name without an `instance` in front of the rest.
fn short(name: &str) -> &str {
    match name.split_at_checked("instance".len()) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case("instance") && !rest.is_empty() => rest,
        _ => name,
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// One of the programs that run as an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Member {
    /// Serves on the port of a slot. Which of the instance's processes it is stays the same when another takes its place in
    /// another slot; both are counted from 0.
    Process {
        /// Which of the processes it is.
        index: usize,
        /// Where it listens.
        slot: usize,
    },
    /// A worker of this name, counted from 0.
    Worker {
        /// Its name.
        name: String,
        /// Which of those of this name it is.
        index: usize,
    },
}

impl fmt::Display for Member {
    /// As log lines and people call it: `0`, `mail.0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Member::Process { index, .. } => index.fmt(f),
            Member::Worker { name, index } => write!(f, "{name}.{index}"),
        }
    }
}

/// A release's name: UTC time of its making and what it was made from, `20261121T093000Z-1a2b3c4d5e6f`. Ids sort by age.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReleaseId(String);

impl ReleaseId {
    /// The id of a release made now from this commit or content.
    pub fn new(unix_seconds: u64, origin: &str) -> ReleaseId {
        let time =
            humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + std::time::Duration::from_secs(unix_seconds));
        let time = time.to_string().replace(['-', ':'], "");
        ReleaseId(format!("{time}-{}", origin.get(..Self::ORIGIN_LENGTH).unwrap_or(origin)))
    }

    /// How much of a commit's hash an id holds.
    const ORIGIN_LENGTH: usize = 12;

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// When it was made, to the second: `20261121T093000Z`.
    pub fn time(&self) -> &str {
        self.0.split('-').next().unwrap_or_default()
    }

    /// When it was made, in seconds since 1970; None: no calendar has that time.
    pub fn made_at(&self) -> Option<u64> {
        let part = |from: usize, to: usize| self.0.get(from..to).unwrap_or_default();
        let date = format!("{}-{}-{}", part(0, 4), part(4, 6), part(6, 8));
        let time = format!("{date}T{}:{}:{}Z", part(9, 11), part(11, 13), part(13, 15));
        let since = humantime::parse_rfc3339(&time).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        Some(since.as_secs())
    }

    /// What it was made from: the short commit, or the short content hash.
    pub fn origin(&self) -> &str {
        self.0.split_once('-').map_or("", |(_, origin)| origin)
    }

    /// Whether it was made from this commit or content.
    pub fn is_of(&self, origin: &str) -> bool {
        origin.starts_with(self.origin())
    }
}

impl TryFrom<String> for ReleaseId {
    type Error = anyhow::Error;

    fn try_from(text: String) -> anyhow::Result<ReleaseId> {
        text.parse()
    }
}

impl From<ReleaseId> for String {
    fn from(id: ReleaseId) -> String {
        id.0
    }
}

impl FromStr for ReleaseId {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<ReleaseId> {
        let is_plain = text.bytes().enumerate().all(|(at, byte)| match at {
            8 => byte == b'T',
            15 => byte == b'Z',
            16 => byte == b'-',
            0..16 => byte.is_ascii_digit(),
            _ => byte.is_ascii_alphanumeric(),
        });
        if !is_plain || text.len() <= 17 {
            bail!("{text:?} is not a release such as 20261121T093000Z-1a2b3c4d5e6f");
        }
        Ok(ReleaseId(text.to_owned()))
    }
}

impl fmt::Display for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_instance_is_meant_by_its_name_in_any_case_with_instance_in_front_or_without() {
        for name in ["A", "a", "instanceA", "INSTANCEa"] {
            let instance = Instance::new(name, Port::try_from(20201).unwrap()).unwrap();
            for argument in ["A", "a", "instanceA", "instancea", "InstanceA"] {
                assert!(instance.is_meant_by(argument), "{name} {argument}");
            }
            for argument in ["B", "instance", "", "instanceinstanceA", "Ainstance"] {
                assert!(!instance.is_meant_by(argument), "{name} {argument}");
            }
        }
        let instance = Instance::new("instance", Port::try_from(20201).unwrap()).unwrap();
        assert!(instance.is_meant_by("Instance") && !instance.is_meant_by(""));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_release_that_is_made_is_a_release(seconds in 0u64..250_000_000_000, commit in "[0-9a-f]{40}") {
            let id = ReleaseId::new(seconds, &commit);
            prop_assert_eq!(&id.as_str().parse::<ReleaseId>().unwrap(), &id);
            prop_assert!(id.is_of(&commit));
            prop_assert_eq!(id.made_at(), Some(seconds));
        }

        #[test]
        fn later_releases_sort_behind_earlier_ones(one in 0u64..250_000_000_000, other in 0u64..250_000_000_000) {
            let (one_id, other_id) = (ReleaseId::new(one, "a"), ReleaseId::new(other, "a"));
            prop_assert_eq!(one.cmp(&other), one_id.cmp(&other_id));
        }

        #[test]
        fn no_other_text_becomes_a_path(text in "\\PC{0,40}|[0-9TZ-]{16,19}[./a-z0-9]{0,9}") {
            if let Ok(id) = text.parse::<ReleaseId>() {
                prop_assert!(id.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
                prop_assert!(!id.origin().is_empty());
            }
        }
    }
}
