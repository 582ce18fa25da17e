//! One step of a layout: what it lays, whether that is done already, and doing it.

use std::fmt;
use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::unistd::Uid;

use super::profile;
use crate::account::Account;
use crate::durable;

/// The bits of a mode that are permissions.
const PERMISSIONS: u32 = 0o7777;

/// The mode of directories that are nobody's business but the owner's, and the owner's group's.
pub const CLOSED: u32 = 0o750;

/// One step.
pub struct Step {
    path: PathBuf,
    what: What,
}

enum What {
    /// A directory of the owner's.
    Directory { mode: u32 },
    /// A directory of the owner's in a place where only root may make one.
    GrantedDirectory { mode: u32 },
    /// A file with this content.
    File { content: Vec<u8>, mode: u32 },
    /// A file that only has to be there, and be closed to others: what it holds is the user's.
    Secret,
    /// Copies of programs.
    Tools { from: PathBuf, names: &'static [&'static str] },
    /// A line in ~/.profile.
    PathInProfile { bin: PathBuf },
}

impl Step {
    /// The app's home.
    pub fn home(path: &Path) -> Step {
        Step { path: path.to_owned(), what: What::GrantedDirectory { mode: CLOSED } }
    }

    /// What nginx looks at; below /var/lib when `system`.
    pub fn state(path: PathBuf, system: bool) -> Step {
        let mode = 0o755;
        Step { path, what: if system { What::GrantedDirectory { mode } } else { What::Directory { mode } } }
    }

    /// A directory of the owner's.
    pub fn directory(path: PathBuf, mode: u32) -> Step {
        Step { path, what: What::Directory { mode } }
    }

    /// A file with this content.
    pub fn file(path: PathBuf, content: Vec<u8>, mode: u32) -> Step {
        Step { path, what: What::File { content, mode } }
    }

    /// The file for the app's secrets, empty at first.
    pub fn secret(path: PathBuf) -> Step {
        Step { path, what: What::Secret }
    }

    /// Copies of programs from one directory in another. A running one goes on running: its name is given to a new file.
    pub fn tools(from: PathBuf, to: PathBuf, names: &'static [&'static str]) -> Step {
        Step { path: to, what: What::Tools { from, names } }
    }

    /// The tools' directory in the PATH of login shells.
    pub fn path_in_profile(profile: PathBuf, bin: PathBuf) -> Step {
        Step { path: profile, what: What::PathInProfile { bin } }
    }

    /// Whether there is nothing to do.
    pub fn is_done(&self, owner: &Account) -> bool {
        let has_mode = |wanted: u32| {
            fs::symlink_metadata(&self.path)
                .is_ok_and(|meta| meta.mode() & PERMISSIONS == wanted && meta.uid() == owner.uid.as_raw())
        };
        match &self.what {
            // A directory that its owner closed further stays so.
            What::Directory { mode } | What::GrantedDirectory { mode } => {
                self.path.is_dir() && (has_mode(*mode) || *mode == CLOSED && has_mode(0o700))
            }
            What::File { content, mode } => {
                has_mode(*mode) && fs::read(&self.path).is_ok_and(|present| present == *content)
            }
            What::Secret => self.path.exists(),
            What::Tools { from, names } => names.iter().all(|name| is_same(&from.join(name), &self.path.join(name))),
            What::PathInProfile { bin } => profile::has(&self.path, bin),
        }
    }

    /// Does it, as the owner; as root only where the owner may not.
    pub fn act(&self, owner: &Account) -> Result<()> {
        let path = &self.path;
        match &self.what {
            What::Directory { mode } => owner.lend(|| make_directory(path, *mode)),
            What::GrantedDirectory { mode } => owner.lend(|| make_directory(path, *mode)).or_else(|refused| {
                if !Uid::effective().is_root() {
                    return Err(refused);
                }
                make_directory(path, *mode)?;
                let (uid, gid) = (owner.uid.as_raw(), owner.gid.as_raw());
                lchown(path, Some(uid), Some(gid))
                    .with_context(|| format!("cannot give {} to {}", path.display(), owner.name))
            }),
            What::File { content, mode } => owner.lend(|| durable::write(path, content, *mode)),
            What::Secret => owner.lend(|| durable::write(path, b"", 0o600)),
            What::Tools { from, names } => {
                for name in *names {
                    let (from, to) = (from.join(name), path.join(name));
                    let program = fs::read(&from).with_context(|| format!("cannot read {}", from.display()))?;
                    owner.lend(|| durable::write(&to, &program, 0o755))?;
                }
                Ok(())
            }
            What::PathInProfile { bin } => owner.lend(|| profile::add(path, bin)),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.what {
            What::Directory { .. } | What::GrantedDirectory { .. } => write!(f, "directory {path}"),
            What::File { .. } => write!(f, "{path}"),
            What::Tools { names, .. } => write!(f, "{} tools in {path}", names.len()),
            What::Secret => write!(f, "{path}, for the app's secrets"),
            What::PathInProfile { bin } => write!(f, "{} in the PATH of {path}", bin.display()),
        }
    }
}

/// Makes a directory, with what is missing above it, and gives it its mode whatever the umask.
fn make_directory(path: &Path, mode: u32) -> Result<()> {
    let make = || {
        DirBuilder::new().recursive(true).mode(0o755).create(path)?;
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        durable::sync_directory_of(path)
    };
    make().with_context(|| format!("cannot make {}", path.display()))
}

fn is_same(one: &Path, other: &Path) -> bool {
    match (fs::read(one), fs::read(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}
