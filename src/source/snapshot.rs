//! Snapshots: what a directory that somebody works in holds at one moment. It is copied, for it may change at any time, and
//! is known by its content, for it has no commit.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::REPOSITORY;
use crate::app::App;
use crate::bounded::{self, Links};
use crate::deadline::Deadline;
use crate::outcome::timed_out;
use crate::output::hex;
use crate::removal;

/// What is not copied, wherever it lies: the repository is not the app, and the modules are the build's to make. Both are
/// large, and git changes its own files while nobody works.
const LEFT_OUT: [&str; 2] = [REPOSITORY, "node_modules"];
/// How much of a file is read at once, in bytes.
const CHUNK: usize = 64 * 1024;
/// What each directory of a copy allows its owner: it is to be filled.
const WRITABLE: u32 = 0o700;

/// What a directory held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The directory.
    pub directory: PathBuf,
    /// The hash of all that it held, names and permissions included, in hexadecimal.
    pub hash: String,
}

/// Takes a snapshot, in the place of the last one. Only to be called under the deploy lock.
pub fn take(app: &App, directory: &Path, deadline: Deadline) -> Result<Snapshot> {
    remove(app)?;
    let place = app.snapshot();
    fs::create_dir(&place).with_context(|| format!("cannot make {}", place.display()))?;
    let mut copy = Copy { from: directory, to: &place, left_out: &app.own_places(), deadline, content: Sha256::new() };
    copy.make()?;
    let hash = hex(&copy.content.finalize());
    Ok(Snapshot { directory: directory.to_owned(), hash })
}

/// Gives the files of the last snapshot to a release, whose directory is empty.
pub fn lay_out(app: &App, directory: &Path) -> Result<()> {
    fs::rename(app.snapshot(), directory).with_context(|| format!("cannot lay out {}", directory.display()))
}

/// Removes the last snapshot, if no release has it.
pub fn remove(app: &App) -> Result<()> {
    let place = app.snapshot();
    removal::tree(&place).with_context(|| format!("cannot remove {}", place.display()))
}

/// A copy in the making, and the hash of what it holds so far: of the copy, whatever becomes of the directory meanwhile.
struct Copy<'a> {
    from: &'a Path,
    to: &'a Path,
    left_out: &'a [PathBuf],
    deadline: Deadline,
    content: Sha256,
}

impl Copy<'_> {
    /// What vanishes while it is made was not there.
    fn make(&mut self) -> Result<()> {
        let mut directories = vec![PathBuf::new()];
        while let Some(directory) = directories.pop() {
            for name in self.names_in(&directory)? {
                let inside = directory.join(name);
                if self.deadline.passed() {
                    return Err(timed_out(format!("cannot copy {}: it takes too long", self.from.display())));
                }
                match self.copy(&inside) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    copied => copied.with_context(|| format!("cannot copy {}", self.from.join(&inside).display()))?,
                }
                if self.to.join(&inside).symlink_metadata().is_ok_and(|copy| copy.is_dir()) {
                    directories.push(inside);
                }
            }
        }
        Ok(())
    }

    /// The names in one of the directories that are to be copied, in an order that depends on nothing else.
    fn names_in(&self, inside: &Path) -> Result<Vec<OsString>> {
        let directory: PathBuf = self.from.components().chain(inside.components()).collect();
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && directory != self.from => return Ok(Vec::new()),
            read => read.with_context(|| format!("cannot list {}", directory.display()))?,
        };
        let mut names: Vec<OsString> = entries.flatten().map(|entry| entry.file_name()).collect();
        names.retain(|name| !LEFT_OUT.iter().any(|left_out| name == left_out));
        names.retain(|name| !self.left_out.contains(&directory.join(name)));
        names.sort();
        Ok(names)
    }

    /// Copies a file, a link, or a directory without what is in it. Sockets, pipes and devices are nothing that a release
    /// could hold.
    fn copy(&mut self, inside: &Path) -> io::Result<()> {
        let (from, to) = (self.from.join(inside), self.to.join(inside));
        let meta = from.symlink_metadata()?;
        if meta.is_symlink() {
            let target = fs::read_link(&from)?;
            symlink(&target, to)?;
            self.note(b'l', 0, inside, target.as_os_str().as_bytes());
        } else if meta.is_dir() {
            let mode = meta.permissions().mode() | WRITABLE;
            fs::create_dir(&to)?;
            fs::set_permissions(to, Permissions::from_mode(mode))?;
            self.note(b'd', mode, inside, b"");
        } else if meta.is_file() {
            let (mode, hash) = self.copy_file(&from, &to)?;
            self.note(b'f', mode, inside, &hash);
        }
        Ok(())
    }

    /// Returns the file's mode, and the hash of its content.
    fn copy_file(&self, from: &Path, to: &Path) -> io::Result<(u32, Vec<u8>)> {
        // Something else may have taken the place of the file.
        let mut file = bounded::open(from, Links::Refused)?;
        let mut copy = File::create_new(to)?;
        let (mut content, mut chunk) = (Sha256::new(), vec![0; CHUNK]);
        loop {
            let count = file.read(&mut chunk)?;
            if count == 0 {
                break;
            }
            let read = chunk.get(..count).unwrap_or_default();
            content.update(read);
            copy.write_all(read)?;
        }
        let meta = file.metadata()?;
        copy.set_permissions(meta.permissions())?;
        copy.set_modified(meta.modified()?)?;
        Ok((meta.permissions().mode(), content.finalize().to_vec()))
    }

    /// Adds to the hash. The lengths in front keep two different copies from being the same bytes.
    fn note(&mut self, kind: u8, mode: u32, inside: &Path, content: &[u8]) {
        self.content.update([kind]);
        self.content.update(mode.to_le_bytes());
        for part in [inside.as_os_str().as_bytes(), content] {
            self.content.update(part.len().to_le_bytes());
            self.content.update(part);
        }
    }
}
