//! Tags that are versions, and which of them is the latest.

use std::cmp::Ordering;

/// What stands behind the numbers of a version that comes after the one without it, and not before.
const AFTER: [&str; 9] = ["final", "release", "ga", "stable", "lts", "post", "patch", "hotfix", "sp"];

/// A tag that is a version: `v1.10.0`, `2.0`, `2.0.0-rc.1`, `1.0.0b2`, `1.0.post1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version<'a> {
    /// As it is written.
    pub tag: &'a str,
    /// Whether it is meant for everybody, and no release candidate or the like.
    pub is_final: bool,
    numbers: Vec<&'a str>,
    rest: &'a str,
}

impl<'a> Version<'a> {
    /// Reads a tag; None: it is no version.
    fn read(tag: &'a str) -> Option<Version<'a>> {
        let text = tag.strip_prefix(['v', 'V']).unwrap_or(tag);
        // What stands behind a + says how it was built.
        let text = text.split('+').next().unwrap_or(text);
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (numbers, rest) = text.split_at_checked(end)?;
        // `1.0.rc1`: the dot is what separates the rest.
        let (numbers, rest) = match (numbers.strip_suffix('.'), rest) {
            (Some(_), "") => return None,
            (Some(numbers), rest) => (numbers, rest),
            (None, rest) => (numbers, rest),
        };
        let numbers: Vec<&str> = numbers.split('.').collect();
        let is_number = |number: &&str| !number.is_empty();
        // OpenSSL's patches have a letter.
        let is_patch = numbers.len() > 1 && rest.len() == 1 && rest.starts_with(|c: char| c.is_ascii_alphabetic());
        let is_final = is_patch || rest.is_empty() || words(rest).next().is_some_and(is_after);
        numbers.iter().all(is_number).then_some(Version { tag, is_final, numbers, rest })
    }

    /// What counts when two are compared: whoever is final, the numbers, what follows them, and how it is written.
    fn key(&self) -> (bool, Vec<Number<'a>>, Vec<Word<'a>>, &'a str) {
        let mut numbers: Vec<Number> = self.numbers.iter().map(|digits| Number::of(digits)).collect();
        // 2.0 is 2.0.0.
        while numbers.last().is_some_and(|number| number.0.is_empty()) {
            numbers.pop();
        }
        (self.is_final, numbers, words(self.rest).map(Word::of).collect(), self.tag)
    }
}

impl Ord for Version<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Version<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The latest of these tags: of those that are final, else of the others. None: none is a version.
pub fn latest<'a>(tags: impl Iterator<Item = &'a str>) -> Option<Version<'a>> {
    tags.filter_map(Version::read).max()
}

/// Whether a word says that a version comes after the one without it.
fn is_after(word: &str) -> bool {
    AFTER.iter().any(|after| word.eq_ignore_ascii_case(after))
}

/// The words and the numbers that a text is made of, without what separates them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric()).flat_map(|part| {
        let mut rest = part;
        std::iter::from_fn(move || {
            let is_digit = rest.chars().next()?.is_ascii_digit();
            let end = rest.find(|c: char| c.is_ascii_digit() != is_digit).unwrap_or(rest.len());
            let (word, after) = rest.split_at_checked(end)?;
            rest = after;
            Some(word)
        })
    })
}

/// Digits without leading zeros, however many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Number<'a>(&'a str);

impl<'a> Number<'a> {
    fn of(digits: &'a str) -> Number<'a> {
        Number(digits.trim_start_matches('0'))
    }
}

impl Ord for Number<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.0.len(), self.0).cmp(&(other.0.len(), other.0))
    }
}

impl PartialOrd for Number<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A part of what follows the numbers; numbers come before words, as semver.org has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Word<'a> {
    Number(Number<'a>),
    Word(String),
}

impl<'a> Word<'a> {
    fn of(word: &'a str) -> Word<'a> {
        match word.starts_with(|first: char| first.is_ascii_digit()) {
            true => Word::Number(Number::of(word)),
            false => Word::Word(word.to_lowercase()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(tag: &str) -> Version<'_> {
        Version::read(tag).unwrap_or_else(|| panic!("{tag} is no version"))
    }

    #[test]
    fn versions_are_in_the_order_in_which_they_come() {
        let in_order = [
            "v2.0.0-alpha",
            "v2.0.0-alpha.1",
            "2.0.0-beta.2",
            "v2.0.0-beta.11",
            "v2.0.0-rc.1",
            "2.0.0rc2",
            "0.9",
            "v1",
            "1.0.1",
            "v1.0.1a",
            "1.0.1.post1",
            "v1.0.2-final",
            "v1.1.1",
            "v1.1.1k",
            "1.9.0",
            "v1.10.0",
            "2.0",
            "v2.0.1",
            "10.0.0",
            "2024.01.15",
            "v20240115",
            "99999999999999999999999999",
            "100000000000000000000000000",
        ];
        for (at, earlier) in in_order.iter().enumerate() {
            for later in in_order.iter().skip(at + 1) {
                assert!(read(earlier) < read(later), "{earlier} {later}");
                assert_eq!(latest([*later, *earlier].into_iter()).unwrap().tag, *later);
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
        ] {
            assert!(!read(tag).is_final, "{tag}");
            assert_eq!(latest([tag, "v1.0"].into_iter()).unwrap().tag, "v1.0");
            assert_eq!(latest([tag, "no-version"].into_iter()).unwrap().tag, tag);
        }
        for tag in ["v2.0.0+build.5", "V2", "2.0.0.Final", "2.0.0-RELEASE", "2.0.0-ga", "1.1.1k", "2.0.post3"] {
            assert!(read(tag).is_final, "{tag}");
        }
    }

    #[test]
    fn what_is_no_version_is_none() {
        for tag in ["", "v", "main", "release-1.0", ".1", "1..2", "1.", "v1.", "-1", "+1", "vv1", "é1"] {
            assert_eq!(latest([tag].into_iter()), None, "{tag}");
        }
    }
}
