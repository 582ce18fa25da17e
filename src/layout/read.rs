//! Reading the configuration that `install` is to use, so that root never reads for somebody what he may not read himself.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Result;
use nix::unistd::Uid;

use crate::account::Account;
use crate::bounded::{self, Links};
use crate::outcome::usage;
use crate::trust;

/// The configuration that lies in the app's home: as its owner, and not through a link.
pub fn own(file: &Path, owner: &Account) -> Result<String> {
    let read = || bounded::read_text(file, Links::Refused, bounded::LARGE);
    owner.lend(|| Ok(read())).and_then(|read| {
        read.map_err(|error| usage(format!("cannot read {}: {error}; --config FILE takes another", file.display())))
    })
}

/// The configuration that the caller has named: as the owner, and what the owner may not read, as root, if it is root's or
/// that of the person behind sudo, and no link of others leads there.
pub fn named(file: &Path, owner: &Account) -> Result<String> {
    let of_owner = owner.lend(|| Ok(bounded::read_text(file, Links::Followed, bounded::LARGE)))?;
    let text = match of_owner {
        Err(refused) if Uid::effective().is_root() && refused.kind() != io::ErrorKind::InvalidInput => {
            of_root(file).unwrap_or(Err(refused))
        }
        read => read,
    };
    text.map_err(|error| usage(format!("cannot read {}: {error}", file.display())))
}

/// None: it is neither root's nor that person's, or cannot be opened.
fn of_root(file: &Path) -> Option<io::Result<String>> {
    let path = trust::real_path(&std::path::absolute(file).ok()?);
    let file = trust::open_file(&path).ok()?;
    let meta = file.metadata().ok().filter(fs::Metadata::is_file)?;
    let behind_sudo = std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse::<u32>().ok());
    let is_theirs = meta.uid() == 0 || Some(meta.uid()) == behind_sudo;
    let text = bounded::all_of(file, bounded::LARGE);
    is_theirs.then(|| text.and_then(|text| String::from_utf8(text).map_err(io::Error::other)))
}
