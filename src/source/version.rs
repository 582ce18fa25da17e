//! Tags that are versions, and which of them is the latest.

use anyhow::{Context, Result};
use regex::Regex;

/// A version that is meant for everybody: numbers, and behind them nothing, a letter as OpenSSL's patches have it, or a word by
/// which it comes after the one without it. What stands behind a + says how it was built.
const FINAL: &str = r"(?ix) ^ v? (\d+ (?: \. \d+)*)
    (?: ([a-z]) | [-._]? (final|release|ga|stable|lts|post|patch|hotfix|sp) [-._]? (\d*) )?
    (?: \+ .* )? $";
/// Any version, also one that is not meant for everybody: `v2.0.0-rc.1`, `2.0.0b2`.
const ANY: &str = r"(?i)^v?\d";

/// The latest version among tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Latest<'a> {
    /// This tag.
    Tag(&'a str),
    /// There are pre-releases only, such as this one.
    PreRelease(&'a str),
    /// No tag is a version.
    None,
}

/// Finds it. A pre-release is never the latest by itself.
pub fn latest<'a>(tags: impl Iterator<Item = &'a str>) -> Result<Latest<'a>> {
    let compile = |pattern| Regex::new(pattern).context("cannot compile the pattern of a version");
    let (whole, any) = (compile(FINAL)?, compile(ANY)?);
    let mut finals = Vec::new();
    let mut pre_release = Latest::None;
    for tag in tags {
        match rank(&whole, tag) {
            Some(rank) => finals.push((rank, tag)),
            None if any.is_match(tag) => pre_release = Latest::PreRelease(tag),
            None => {}
        }
    }
    Ok(finals.into_iter().max().map_or(pre_release, |(_, tag)| Latest::Tag(tag)))
}

/// What is compared of a final version: its numbers, and what follows them. None: it is none.
fn rank<'a>(whole: &Regex, tag: &'a str) -> Option<(Vec<Number<'a>>, String, Number<'a>)> {
    let parts = whole.captures(tag)?;
    let part = |at| parts.get(at).map_or("", |part| part.as_str());
    let (numbers, letter) = (part(1), part(2));
    // `3d` is no patch of a version 3.
    if !letter.is_empty() && !numbers.contains('.') {
        return None;
    }
    let mut numbers: Vec<Number> = numbers.split('.').map(number).collect();
    // 2.0 is 2.0.0.
    while numbers.last().is_some_and(|(digits, _)| *digits == 0) {
        numbers.pop();
    }
    Some((numbers, format!("{letter}{}", part(3)).to_lowercase(), number(part(4))))
}

/// Digits, however many: how many there are without leading zeros, and which.
type Number<'a> = (usize, &'a str);

fn number(digits: &str) -> Number<'_> {
    let digits = digits.trim_start_matches('0');
    (digits.len(), digits)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn latest_of<'a>(tags: &[&'a str]) -> Latest<'a> {
        latest(tags.iter().copied()).unwrap()
    }

    #[test]
    fn versions_are_in_the_order_in_which_they_come() {
        let in_order = [
            "0.9",
            "v1",
            "1.0.1",
            "v1.0.1a",
            "1.0.1b",
            "1.0.1.post1",
            "1.0.1.post10",
            "v1.0.2-final",
            "v1.1.1",
            "v1.1.1k",
            "1.9.0",
            "v1.10.0",
            "2.0",
            "V2.0.1+build.7",
            "10.0.0",
            "2024.01.15",
            "v20240115",
            "99999999999999999999999999",
            "100000000000000000000000000",
        ];
        for (at, later) in in_order.iter().enumerate() {
            for earlier in in_order.iter().take(at) {
                assert_eq!(latest_of(&[later, earlier]), Latest::Tag(later), "{earlier}");
                assert_eq!(latest_of(&[earlier, later]), Latest::Tag(later), "{earlier}");
            }
        }
    }

    #[test]
    fn a_pre_release_is_not_the_latest_by_itself() {
        for tag in [
            "v2.0.0-rc.1",
            "2.0.0-1",
            "2.0rc1",
            "2.0.0b2",
            "2.0.0.rc1",
            "2.0.0.beta",
            "v2-next",
            "2.0.0.dev0",
            "2.0.0-SNAPSHOT",
            "2.0.0-rc.1+build.5",
            "2.0.0_pre1",
            "3d",
        ] {
            assert_eq!(latest_of(&[tag, "v1.0"]), Latest::Tag("v1.0"), "{tag}");
            assert_eq!(latest_of(&["no-version", tag]), Latest::PreRelease(tag));
        }
        for tag in ["v2.0.0+build.5", "V2", "2.0.0.Final", "2.0.0-RELEASE", "2.0.0-ga", "1.1.1k", "2.0.post3"] {
            assert_eq!(latest_of(&[tag, "v1.0"]), Latest::Tag(tag));
        }
    }

    #[test]
    fn what_is_no_version_is_none() {
        for tag in ["", "v", "main", "release-1.0", ".1", "-1", "+1", "vv1", "é1"] {
            assert_eq!(latest_of(&[tag]), Latest::None, "{tag}");
        }
    }
}
