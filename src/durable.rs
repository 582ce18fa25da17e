//! Changes to the file system that are whole or not there at all, also after a power cut.
//!
//! Everything is written under a temporary name beside its place, flushed, renamed over it, and the directory flushed.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

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

/// Opens a log for appending; a link in its place is refused.
pub fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o640).custom_flags(libc::O_NOFOLLOW).open(path)
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
    let mut file = File::open(path)?;
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

/// [`link`] without the flush, for who has more to do before the change must survive a power cut.
pub fn swap_link(path: &Path, target: &Path) -> io::Result<()> {
    let temporary = beside(path);
    remove_if_there(&temporary)?;
    symlink(target, &temporary)?;
    fs::rename(&temporary, path)
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
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}
