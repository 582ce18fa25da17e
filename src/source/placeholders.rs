//! Pointers of Git LFS in the places of files: an app would serve those.

use std::fs::{self, FileType};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::bounded::{self, Links};

/// How such a file begins.
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1\n";
/// What others have made, of which there is much.
const PACKAGES: &str = "node_modules";

/// All of them in a directory, so far as it can be read, but not those in packages.
pub fn all_in(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type());
        if kind.as_ref().is_ok_and(FileType::is_dir) && entry.file_name() != PACKAGES {
            found.extend(all_in(&path));
        } else if kind.is_ok_and(|kind| kind.is_file()) && is_pointer(&path) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn is_pointer(path: &Path) -> bool {
    let mut beginning = Vec::with_capacity(POINTER.len());
    let opened = bounded::open(path, Links::Refused);
    opened.is_ok_and(|file| file.take(POINTER.len() as u64).read_to_end(&mut beginning).is_ok()) && beginning == POINTER
}

/// Fails where some of these, found in a release before it was built, are there still.
pub fn refuse(release: &Path, found: &[PathBuf]) -> Result<()> {
    let mut left = found.iter().filter(|path| is_pointer(path));
    let Some(first) = left.next() else { return Ok(()) };
    let others = match left.count() {
        0 => String::new(),
        1 => " and so is 1 other".to_owned(),
        count => format!(" and so are {count} others"),
    };
    let path = first.strip_prefix(release).unwrap_or(first).display();
    let remedy = "have hooks/before-build fetch what it stands for, or hooks/after-build remove it";
    bail!("{path} is only a pointer of Git LFS{others}: {remedy}")
}
