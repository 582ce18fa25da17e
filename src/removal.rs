//! Removing trees whatever permissions their directories have: what a build leaves behind can be removed (Go's module cache,
//! for one, is read-only), and nothing outside the tree is ever touched.
//!
//! Everything is done by descriptors, no link is followed, and a tree may be as deep as it likes.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

/// How deep a directory may lie before it is moved up: each level above holds a descriptor.
const DEEPEST: usize = 64;
/// What the owner of a directory needs in order to empty it.
const OWNERS: u32 = 0o700;

/// Why something could not be removed, and what.
#[derive(Debug)]
pub struct Left {
    /// What could not be removed first; there may be more.
    pub path: PathBuf,
    /// Why.
    pub error: io::Error,
}

impl std::fmt::Display for Left {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.error)
    }
}

impl std::error::Error for Left {}

/// Removes a file, a link or a tree; that it is not there is fine. What cannot be removed is left, everything else goes.
pub fn tree(path: &Path) -> Result<(), Left> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Left { path: path.to_owned(), error: io::ErrorKind::InvalidInput.into() });
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let opened = openat(AT_FDCWD, parent, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    let opened = match opened {
        Err(Errno::ENOENT) => return Ok(()),
        opened => opened.map_err(|error| Left { path: parent.to_owned(), error: error.into() })?,
    };
    let mut removal = Removal { root: opened.as_fd(), name, moved: Vec::new(), count: 0, left: None };
    removal.remove(opened.as_fd(), name, path, 0);
    while let Some(moved) = removal.moved.pop() {
        removal.remove(opened.as_fd(), OsStr::new(&moved), &path.with_file_name(&moved), 0);
    }
    removal.left.map_or(Ok(()), Err)
}

struct Removal<'a> {
    /// The directory in which the tree lies.
    root: BorrowedFd<'a>,
    /// What the tree is called there.
    name: &'a OsStr,
    /// What was moved up beside the tree, because it lay too deep.
    moved: Vec<String>,
    /// How many were.
    count: usize,
    /// The first thing that could not be removed.
    left: Option<Left>,
}

impl Removal<'_> {
    fn remove(&mut self, directory: BorrowedFd, name: &OsStr, path: &Path, depth: usize) {
        match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => return,
            // What a directory answers depends on the file system.
            Err(Errno::EISDIR | Errno::EPERM | Errno::EACCES | Errno::EROFS) => {}
            Err(error) => return self.leave(path, error),
        }
        let opened = openat(
            directory,
            name,
            OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
            Mode::empty(),
        );
        let inside = match opened {
            Ok(inside) => inside,
            Err(Errno::ENOENT) => return,
            // It is no directory: what keeps it is the one that it lies in, or a flag of its own.
            Err(Errno::ENOTDIR | Errno::ELOOP) => {
                return match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
                    Ok(()) | Err(Errno::ENOENT) => {}
                    Err(error) => self.leave(path, error),
                };
            }
            Err(error) => return self.leave(path, error),
        };
        if depth >= DEEPEST && self.move_up(directory, name, &inside) {
            return;
        }
        self.empty(&inside, path, depth);
        match unlinkat(directory, name, UnlinkatFlags::RemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(error) => self.leave(path, error),
        }
    }

    fn empty(&mut self, inside: &OwnedFd, path: &Path, depth: usize) {
        let names = allow(inside).and_then(|place| {
            let entries = fs::read_dir(place)?;
            Ok(entries.flatten().map(|entry| entry.file_name()).collect::<Vec<_>>())
        });
        match names {
            Ok(names) => {
                names.iter().for_each(|name| self.remove(inside.as_fd(), name, &path.join(name), depth + 1));
            }
            Err(error) => self.leave(path, error),
        }
    }

    /// Moves a directory beside the tree that it is a part of.
    fn move_up(&mut self, directory: BorrowedFd, name: &OsStr, inside: &OwnedFd) -> bool {
        // A directory that is moved is written to as well.
        let _ = allow(inside);
        let name_of_tree = self.name.to_string_lossy();
        let moved = format!(".{}.{}.{}", name_of_tree.trim_start_matches('.'), std::process::id(), self.count);
        self.count += 1;
        let has_moved = renameat(directory, name, self.root, moved.as_str()).is_ok();
        if has_moved {
            self.moved.push(moved);
        }
        has_moved
    }

    fn leave(&mut self, path: &Path, error: impl Into<io::Error>) {
        self.left.get_or_insert(Left { path: path.to_owned(), error: error.into() });
    }
}

/// Lets the owner of a directory do with it what he likes, and returns where it can be read, whatever is done to its name
/// meanwhile.
fn allow(directory: &OwnedFd) -> io::Result<PathBuf> {
    let place = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    let mode = fs::metadata(&place)?.mode();
    if mode & OWNERS != OWNERS {
        // Where that is not allowed, what is tried next says so.
        let _ = fs::set_permissions(&place, fs::Permissions::from_mode(mode & 0o7777 | OWNERS));
    }
    Ok(place)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn nothing_outside_the_tree_is_touched() {
        let place = tempfile::tempdir().unwrap();
        let (outside, inside) = (place.path().join("outside"), place.path().join("inside"));
        fs::create_dir_all(outside.join("full")).unwrap();
        fs::create_dir_all(inside.join("read-only/deeper")).unwrap();
        symlink(&outside, inside.join("link")).unwrap();
        symlink("../../outside", inside.join("read-only/link")).unwrap();
        fs::hard_link(
            {
                fs::write(outside.join("file"), "kept").unwrap();
                outside.join("file")
            },
            inside.join("read-only/deeper/same file"),
        )
        .unwrap();
        for (path, mode) in
            [(inside.join("read-only/deeper"), 0o000), (inside.join("read-only"), 0o555), (outside.clone(), 0o500)]
        {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        tree(&inside).unwrap();
        assert!(fs::symlink_metadata(&inside).is_err());
        assert_eq!((mode(&outside), fs::read_to_string(outside.join("file")).unwrap().as_str()), (0o500, "kept"));
        assert!(outside.join("full").is_dir());
        // A link is removed, and not what it leads to; what is not there is removed already.
        symlink(&outside, &inside).unwrap();
        tree(&inside).unwrap();
        tree(&inside).unwrap();
        tree(&place.path().join("no/such/place")).unwrap();
        assert!(outside.join("full").is_dir());
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_tree_may_be_deeper_than_there_are_descriptors() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("deep");
        fs::create_dir(&root).unwrap();
        let mut directory = openat(AT_FDCWD, &root, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
        for _ in 0..5000 {
            nix::sys::stat::mkdirat(&directory, "below", Mode::S_IRWXU).unwrap();
            directory = openat(&directory, "below", OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
        }
        drop(directory);
        tree(&root).unwrap();
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }
}
