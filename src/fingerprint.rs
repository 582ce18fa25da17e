//! What is compared without being told, for it may be secret: values by name, or hashes of them.

use std::collections::{BTreeMap, BTreeSet};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::output::hex;

/// How much of a hash is kept, in hexadecimal digits.
const DIGITS: usize = 12;

/// Values or their hashes, by name.
pub type Named = BTreeMap<String, String>;

/// The hash of a value.
pub fn of(value: &[u8]) -> String {
    hex(&Sha256::digest(value)).chars().take(DIGITS).collect()
}

/// The hash of a value that nobody without the key can guess from it.
pub fn keyed(key: &[u8], value: &[u8]) -> String {
    let hash = Hmac::<Sha256>::new_from_slice(key).map(|mac| mac.chain_update(value).finalize().into_bytes());
    // Any length of key will do.
    hex(&hash.map(|bytes| bytes.to_vec()).unwrap_or_default()).chars().take(DIGITS).collect()
}

/// Which names are new, have other values, or are gone, in words; empty: all is as before.
pub fn changes(before: &Named, after: &Named) -> String {
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
