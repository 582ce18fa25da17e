//! Changes to the file system that are whole or not there at all, also after a power cut.
//!
//! Everything is written under a temporary name beside its place, flushed, renamed over it, and the directory flushed.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::bounded::{self, Links};

/// Writes a file whole, with these permission bits.
pub fn write(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    make(path, mode, |file| file.write_all(content))
}

/// Writes a file whole, as a copy of what another holds, with these permission bits.
///
/// The kernel copies, in small pieces. What is written in one piece newer kernels (6.18) keep in one, and a program that
/// touches any of it has all of it in its memory.
pub fn copy(mut from: &File, path: &Path, mode: u32) -> Result<()> {
    make(path, mode, |file| io::copy(&mut from, file).map(drop))
}

fn make(path: &Path, mode: u32, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    let temporary = beside(path);
    remove_if_there(&temporary).with_context(cannot)?;
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        fill(&mut file)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_directory_of(path)
    };
    write().with_context(cannot).inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })
}

/// The permission bits of a log.
pub const LOG_MODE: u32 = 0o640;

/// Opens a log for appending; anything else in its place than a file, such as a link or a pipe, is refused.
pub fn open_log(path: &Path) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let log = OpenOptions::new().append(true).create(true).mode(LOG_MODE).custom_flags(flags).open(path)?;
    match log.metadata()?.is_file() {
        true => Ok(log),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file")),
    }
}

/// Appends a record, a line, to a log in one write, and flushes it, and the directory as well, for the log may be new. What
/// a full disk has left of the record before it stays a line of its own.
pub fn append(path: &Path, record: &[u8]) -> io::Result<()> {
    let mut file = open_log(path)?;
    let separator: &[u8] = if ends_line(path)? { b"" } else { b"\n" };
    file.write_all(&[separator, record].concat())?;
    file.sync_data()?;
    sync_directory_of(path)
}

/// Whether a file's last byte ends a line; so it is when there is none.
fn ends_line(path: &Path) -> io::Result<bool> {
    let mut file = bounded::open(path, Links::Refused)?;
    let mut last = [b'\n'];
    if file.metadata()?.len() > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    Ok(last == [b'\n'])
}

/// Points the symbolic link `path` at `target`; at every instant it is the old link or the new one.
pub fn link(path: &Path, target: &Path) -> Result<()> {
    swap_link(path, target)
        .and_then(|()| sync_directory_of(path))
        .with_context(|| format!("cannot link {}", path.display()))
}

fn swap_link(path: &Path, target: &Path) -> io::Result<()> {
    let temporary = beside(path);
    remove_if_there(&temporary)?;
    symlink(target, &temporary)?;
    fs::rename(&temporary, path)
}

/// Points the symbolic link `path` at `target`, a plain name, and keeps the link that it replaces beside it: to point it back
/// needs no room on the disk, not even an inode. At every instant `path` is the old link or the new one. Nothing is flushed,
/// because the caller has more to do before the change must survive a power cut.
pub fn turn_link(path: &Path, target: &str) -> io::Result<()> {
    if fs::read_link(path).is_ok_and(|present| present == Path::new(target)) {
        return Ok(());
    }
    let spare = spare(path, target);
    // What a killed tool has left there may lead elsewhere.
    if fs::read_link(&spare).ok().as_deref() != Some(Path::new(target)) {
        remove_if_there(&spare)?;
        symlink(target, &spare)?;
    }
    let before = match fs::read_link(path) {
        Ok(before) => before.to_string_lossy().into_owned(),
        Err(_) => return fs::rename(&spare, path),
    };
    match renameat2(AT_FDCWD, &spare, AT_FDCWD, path, RenameFlags::RENAME_EXCHANGE) {
        // The link is turned; that it cannot be kept under its name costs only the next one an inode.
        Ok(()) => drop(fs::rename(&spare, self::spare(path, &before))),
        // A file system that cannot exchange two names. An inode has just become free.
        Err(Errno::EINVAL | Errno::ENOSYS) => {
            fs::rename(&spare, path)?;
            let kept = self::spare(path, &before);
            let _ = remove_if_there(&kept).and_then(|()| symlink(before, kept));
        }
        Err(error) => return Err(error.into()),
    }
    Ok(())
}

/// Where the link waits that leads to `target`, to take the place of `path`.
fn spare(path: &Path, target: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{target}"))
}

/// Flushes the directory that holds `path`, which makes a rename in it survive a power cut.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    File::open(parent)?.sync_all()
}

/// Removes a file or link for good; that it is not there is fine.
pub fn remove(path: &Path) -> Result<()> {
    remove_if_there(path)
        .and_then(|()| sync_directory_of(path))
        .with_context(|| format!("cannot remove {}", path.display()))
}

/// [`remove`] without the flush: for what does no harm when a power cut brings it back.
pub fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Where the next version of `path` is prepared. One name, so that what a killed tool left is overwritten by the next.
pub fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_link_that_leads_there_already_takes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("enabled");
        let names = || {
            let entries = fs::read_dir(directory.path()).unwrap().flatten();
            let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        for (target, left) in [
            ("A", vec!["enabled"]),
            ("A", vec!["enabled"]),
            ("B", vec![".enabled.A", "enabled"]),
            ("B", vec![".enabled.A", "enabled"]),
            ("A", vec![".enabled.B", "enabled"]),
        ] {
            turn_link(&path, target).unwrap();
            assert_eq!(
                (fs::read_link(&path).unwrap(), names()),
                (PathBuf::from(target), left.iter().map(ToString::to_string).collect())
            );
        }
    }
}
