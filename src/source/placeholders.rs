//! Files that stand for others: what git keeps of a file that one of its filters would have made whole. An app would serve those.

use std::fs::{self, File, FileType};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// How such a file begins, and what it is.
const KINDS: [(&[u8], &str); 2] = [
    (b"version https://git-lfs.github.com/spec/v1\n", "only a pointer of Git LFS"),
    (b"\0GITCRYPT\0", "encrypted by git-crypt"),
];

/// A file that stands for another.
pub struct Placeholder {
    path: PathBuf,
    what: &'static str,
}

/// All of them in a directory, so far as it can be read.
pub fn all_in(directory: &Path) -> Vec<Placeholder> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type());
        if kind.as_ref().is_ok_and(FileType::is_dir) {
            found.extend(all_in(&path));
        } else if kind.is_ok_and(|kind| kind.is_file())
            && let Some(what) = what_is(&path)
        {
            found.push(Placeholder { path, what });
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

/// What a file is; None: a file like any other, or none that can be read.
fn what_is(path: &Path) -> Option<&'static str> {
    let longest = KINDS.iter().map(|(beginning, _)| beginning.len()).max().unwrap_or_default();
    let mut beginning = Vec::with_capacity(longest);
    File::open(path).ok()?.take(longest as u64).read_to_end(&mut beginning).ok()?;
    KINDS.iter().find(|(of_kind, _)| beginning.starts_with(of_kind)).map(|(_, what)| *what)
}

/// Fails where some of these, found in a release before it was built, are there still.
pub fn refuse(release: &Path, found: &[Placeholder]) -> Result<()> {
    let mut left = found.iter().filter(|one| what_is(&one.path) == Some(one.what));
    let Some(Placeholder { path, what }) = left.next() else { return Ok(()) };
    let others = match left.count() {
        0 => String::new(),
        1 => " and so is 1 other".to_owned(),
        count => format!(" and so are {count} others"),
    };
    let path = path.strip_prefix(release).unwrap_or(path).display();
    let remedy = "have hooks/before-build fetch what it stands for, or hooks/after-build remove it";
    bail!("{path} is {what}{others}: {remedy}")
}
