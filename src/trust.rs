//! Whose a place is: which links root may follow, and which places nobody but root decides about.
//!
//! Root is handed paths that lead through other people's directories. Whoever may write into a directory may exchange what
//! lies in it, at any moment, for a link to anywhere. So root follows no links but its own, and asks a descriptor, not a
//! path, whose something is.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use nix::unistd::Uid;

/// What decides in a home about what is run.
const ROOTS: [&str; 8] = ["config.toml", "env", "bin", "hooks", "instances", "releases", "repo.git", "run"];
/// Group and others may write.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// In a directory with this bit everybody may only remove what is his own.
const STICKY: u32 = 0o1000;

/// Whether nobody but root decides what a path leads to, as far as it exists: each part is root's, and nobody else may
/// exchange what lies in it. `/tmp` is such a place, for what root has in it is safe from others.
pub fn is_roots(path: &Path) -> bool {
    path.ancestors().filter_map(|part| part.symlink_metadata().ok()).all(|part| {
        let is_safe = part.is_symlink() || part.mode() & WRITABLE_BY_OTHERS == 0 || part.mode() & STICKY != 0;
        part.uid() == 0 && is_safe
    })
}

/// Whether a directory is there, no link leads to it, and nobody but root can change what lies in it or exchange a part of
/// its path: all are root's and closed to others.
pub fn is_closed(path: &Path) -> bool {
    let is_closed = |part: &Path| {
        part.symlink_metadata().is_ok_and(|meta| meta.uid() == 0 && meta.mode() & WRITABLE_BY_OTHERS == 0)
    };
    path.is_absolute() && open_directory(path).is_ok() && path.ancestors().all(is_closed)
}

/// Whether a directory may be root's home of an app: nobody else decides what the path leads to, nor may write into it.
///
/// Neither may anybody else have what lies in it, or one of its hooks: root would run it.
pub fn is_roots_home(path: &Path) -> bool {
    let is_closed = |path: &Path| {
        let is_closed =
            |meta: fs::Metadata| meta.uid() == 0 && (meta.is_symlink() || meta.mode() & WRITABLE_BY_OTHERS == 0);
        path.symlink_metadata().map_or_else(|error| error.kind() == io::ErrorKind::NotFound, is_closed)
    };
    let hooks = fs::read_dir(path.join("hooks")).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut run_from = ROOTS.iter().map(|name| path.join(name)).chain(hooks);
    is_roots(path) && is_closed(path) && run_from.all(|path| is_closed(&path))
}

/// The same place by its real path, which is how tools find their home, and how units must name it. Root follows only
/// links that nobody but root could have laid; the others stay in the path.
pub fn real_path(path: &Path) -> PathBuf {
    let may_follow = |there: &Path| !Uid::effective().is_root() || is_roots(there);
    let followed = path.ancestors().filter(|there| may_follow(there));
    let real = followed.filter_map(|there| Some((there, there.canonicalize().ok()?))).next();
    let joined = real.and_then(|(there, real)| Some(real.join(path.strip_prefix(there).ok()?)));
    // Joined with nothing it would end in a slash.
    joined.map_or_else(|| path.to_owned(), |joined| joined.components().collect())
}

/// Opens a directory for looking at it, without following a link in any part of its path. Fails with `NotADirectory` where
/// there is one.
pub fn open_directory(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut directory: OwnedFd = open("/", flags, Mode::empty())?;
    for part in path.components() {
        directory = match part {
            Component::RootDir | Component::CurDir => continue,
            Component::Normal(name) => openat(&directory, name, flags, Mode::empty())?,
            Component::ParentDir | Component::Prefix(_) => return Err(io::ErrorKind::InvalidInput.into()),
        };
    }
    Ok(directory.into())
}

/// Opens a file for reading, without following a link in any part of its path. Neither a pipe nor a device is waited for.
pub fn open_file(path: &Path) -> io::Result<File> {
    let directory = open_directory(path.parent().unwrap_or(path))?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    Ok(openat(&directory, name, flags, Mode::empty())?.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::not_tested::not_tested;

    #[test]
    fn a_directory_is_opened_through_no_link() {
        let place = tempfile::tempdir().unwrap();
        let place = place.path().canonicalize().unwrap();
        fs::create_dir_all(place.join("real/inner")).unwrap();
        symlink("real", place.join("link")).unwrap();
        assert!(open_directory(&place.join("real/inner")).is_ok());
        fs::write(place.join("real/file"), "x").unwrap();
        symlink("file", place.join("real/link")).unwrap();
        for path in ["link", "link/inner", "real/../real", "real/inner/none", "real/file"] {
            assert!(open_directory(&place.join(path)).is_err(), "{path}");
        }
        assert!(open_file(&place.join("real/file")).is_ok());
        for path in ["link/file", "real/link", "real/none"] {
            assert!(open_file(&place.join(path)).is_err(), "{path}");
        }
    }

    #[test]
    fn what_others_can_change_is_not_roots() {
        if !Uid::effective().is_root() {
            not_tested("which places are root's", "this is not root");
            return;
        }
        assert!(is_roots(Path::new("/tmp/not-there")) && is_closed(Path::new("/etc")));
        for path in ["/tmp", "relative", "/etc/not-there", "/proc/self/cwd", "/etc/../etc", "/etc/passwd"] {
            assert!(!is_closed(Path::new(path)), "{path}");
        }
        assert!(!is_roots_home(Path::new("/tmp")), "anybody may write there");
        let place = tempfile::tempdir().unwrap();
        assert!(is_roots_home(place.path()));
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o770)).unwrap();
        assert!(!is_roots_home(place.path()) && !is_roots(&place.path().join("below")));
    }
}
