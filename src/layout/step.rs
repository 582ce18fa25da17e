//! One step of a layout: what it lays, whether that is done already, and doing it.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::Uid;

use super::profile;
use crate::account::Account;
use crate::app::{CLOSED, environment};
use crate::bounded::{self, Links};
use crate::command::{self, Run};
use crate::deadline::Deadline;
use crate::durable;
use crate::output::hex;
use crate::pm2::Variables;
use crate::trust;

/// The bits of a mode that are permissions.
const PERMISSIONS: u32 = 0o7777;

/// Where sudo finds what it is to check: a directory that only root writes to, and that is empty after a boot.
const DRAFT: &str = "/run/cutover-sudoers.draft";
/// How long sudo may take to check its configuration.
const PATIENCE: Duration = Duration::from_secs(20);

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
    /// A file that only has to be there, and be closed to others, with these variables at first: then it is the user's.
    Secret { variables: Variables },
    /// The same, with a secret in it that nobody knows, and what it is for.
    Random { what: &'static str },
    /// Copies of programs.
    Tools { from: PathBuf, names: &'static [&'static str] },
    /// A line in ~/.profile.
    PathInProfile { bin: PathBuf },
    /// A directory of root's that everybody may search.
    OpenDirectory,
    /// A file of root's.
    RootFile { content: Vec<u8>, mode: u32 },
    /// A link of root's.
    RootLink { target: PathBuf },
    /// A part of sudo's configuration, which sudo must find sound: a mistake in it would lock everybody out.
    Sudoers { content: Vec<u8> },
}

/// The mode of sudo's configuration.
const SUDOERS: u32 = 0o440;

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

    /// The file for the app's secrets, with these at first.
    pub fn secret(path: PathBuf, variables: Variables) -> Step {
        Step { path, what: What::Secret { variables } }
    }

    /// Copies of programs from one directory in another. A running one goes on running: its name is given to a new file.
    pub fn tools(from: PathBuf, to: PathBuf, names: &'static [&'static str]) -> Step {
        Step { path: to, what: What::Tools { from, names } }
    }

    /// The file with the secret that webhooks are signed with: a random one at first.
    pub fn webhook_secret(path: PathBuf) -> Step {
        Step { path, what: What::Random { what: "a new secret for the webhook" } }
    }

    /// The file with the key by which secrets are compared without being told.
    pub fn key(path: PathBuf) -> Step {
        Step { path, what: What::Random { what: "a key for hashes of secrets" } }
    }

    /// The tools' directory in the PATH of login shells.
    pub fn path_in_profile(profile: PathBuf, bin: PathBuf) -> Step {
        Step { path: profile, what: What::PathInProfile { bin } }
    }

    /// A directory of root's above what nginx looks at, which everybody may search.
    pub fn open_directory(path: PathBuf) -> Step {
        Step { path, what: What::OpenDirectory }
    }

    /// A file of root's with this content.
    pub fn root_file(path: PathBuf, content: Vec<u8>, mode: u32) -> Step {
        Step { path, what: What::RootFile { content, mode } }
    }

    /// A symbolic link of root's.
    pub fn root_link(path: PathBuf, target: PathBuf) -> Step {
        Step { path, what: What::RootLink { target } }
    }

    /// A part of sudo's configuration.
    pub fn sudoers(path: PathBuf, content: Vec<u8>) -> Step {
        Step { path, what: What::Sudoers { content } }
    }

    /// Whether there is nothing to do. What is the owner's is looked at as the owner.
    pub fn is_done(&self, owner: &Account) -> bool {
        let root = Uid::from_raw(0);
        let by_owner = |look: &dyn Fn() -> bool| owner.lend(|| Ok(look())).unwrap_or_default();
        let path = &self.path;
        match &self.what {
            // A directory that its owner closed further stays so.
            What::Directory { mode } | What::GrantedDirectory { mode } => by_owner(&|| {
                let has_mode = |mode| has_mode(path, mode, owner.uid);
                path.is_dir() && (has_mode(*mode) || *mode == CLOSED && has_mode(0o700))
            }),
            What::OpenDirectory => path.symlink_metadata().is_ok_and(|meta| meta.is_dir() && meta.mode() & 0o001 != 0),
            What::File { content, mode } => by_owner(&|| has_mode(path, *mode, owner.uid) && holds(path, content)),
            What::RootFile { content, mode } => has_mode(path, *mode, root) && holds(path, content),
            What::Sudoers { content } => has_mode(path, SUDOERS, root) && holds(path, content),
            What::RootLink { target } => fs::read_link(path).is_ok_and(|present| present == *target),
            What::Secret { .. } | What::Random { .. } => by_owner(&|| path.exists()),
            What::Tools { from, names } => names.iter().all(|name| {
                let wanted = fs::read(from.join(name));
                wanted.is_ok_and(|wanted| by_owner(&|| holds(&path.join(name), &wanted)))
            }),
            What::PathInProfile { bin } => by_owner(&|| profile::has(path, bin)),
        }
    }

    /// Does it, as the owner; as root only where the owner may not.
    pub fn act(&self, owner: &Account) -> Result<()> {
        let path = &self.path;
        match &self.what {
            What::Directory { mode } => owner.lend(|| make_directory(path, *mode)),
            What::GrantedDirectory { mode } => owner.lend(|| make_directory(path, *mode)).or_else(|refused| {
                if !Uid::effective().is_root() || !trust::is_roots(path) {
                    return Err(refused);
                }
                grant_directory(path, *mode, owner)
            }),
            What::OpenDirectory => make_directory(path, 0o755),
            What::File { content, mode } => owner.lend(|| durable::write(path, content, *mode)),
            What::Secret { variables } => {
                let lines = variables.iter().filter_map(|(name, value)| environment::line(name, value));
                let text: String = lines.map(|line| line + "\n").collect();
                owner.lend(|| durable::write(path, text.as_bytes(), 0o600))
            }
            What::Random { .. } => {
                let secret = random()?;
                owner.lend(|| durable::write(path, secret.as_bytes(), 0o600))
            }
            What::Tools { from, names } => {
                for name in *names {
                    let (from, to) = (from.join(name), path.join(name));
                    let program = File::open(&from).with_context(|| format!("cannot read {}", from.display()))?;
                    owner.lend(|| durable::copy(&program, &to, 0o755))?;
                }
                Ok(())
            }
            What::PathInProfile { bin } => owner.lend(|| profile::add(path, bin)),
            What::RootFile { content, mode } => {
                make_parent(path)?;
                durable::write(path, content, *mode)
            }
            What::RootLink { target } => {
                make_parent(path)?;
                durable::link(path, target)
            }
            What::Sudoers { content } => {
                check_sudoers(content)?;
                durable::write(path, content, SUDOERS)
            }
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.what {
            What::Directory { .. } | What::GrantedDirectory { .. } => write!(f, "directory {path}"),
            What::OpenDirectory => write!(f, "directory {path}, which others may search"),
            What::File { .. } => write!(f, "{path}"),
            What::RootFile { .. } | What::RootLink { .. } => write!(f, "{path}"),
            What::Sudoers { .. } => write!(f, "{path}, which lets the owner start and stop the instances"),
            What::Tools { names, .. } => write!(f, "{} tools in {path}", names.len()),
            What::Secret { variables } if variables.is_empty() => write!(f, "{path}, for the app's secrets"),
            What::Secret { variables } => {
                let names: Vec<&str> = variables.keys().map(String::as_str).collect();
                write!(f, "{path}, for the app's secrets, with {}", names.join(", "))
            }
            What::Random { what } => write!(f, "{path}, {what}"),
            What::PathInProfile { bin } => write!(f, "{} in the PATH of {path}", bin.display()),
        }
    }
}

fn make_parent(path: &Path) -> Result<()> {
    let directory = path.parent().unwrap_or(path);
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))
}

/// A line of 32 random bytes, in hexadecimal.
fn random() -> Result<String> {
    let mut bytes = [0; 32];
    let source = fs::File::open("/dev/urandom").and_then(|mut source| source.read_exact(&mut bytes));
    source.context("cannot make a secret: /dev/urandom")?;
    Ok(hex(&bytes) + "\n")
}

/// Asks sudo whether it would take this as a part of its configuration.
pub fn check_sudoers(content: &[u8]) -> Result<()> {
    let draft = Path::new(DRAFT);
    durable::write(draft, content, SUDOERS)?;
    let words = ["-c".as_ref(), "-q".as_ref(), "-f".as_ref(), draft.as_os_str()];
    let checked = Run::new(&command::find("visudo")?, words).output(Deadline::after(PATIENCE));
    durable::remove_if_there(draft).with_context(|| format!("cannot remove {DRAFT}"))?;
    checked.map(drop).context("sudo refuses what it is to be told")
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

/// The same by root, for the owner.
fn grant_directory(path: &Path, mode: u32, owner: &Account) -> Result<()> {
    let grant = || {
        DirBuilder::new().recursive(true).mode(0o755).create(path)?;
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let directory = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        directory.set_permissions(Permissions::from_mode(mode))?;
        fchown(&directory, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))?;
        durable::sync_directory_of(path)
    };
    grant().with_context(|| format!("cannot make {} for {}", path.display(), owner.name))
}

/// Whether it has exactly these permissions, and this owner.
fn has_mode(path: &Path, mode: u32, owner: Uid) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.mode() & PERMISSIONS == mode && meta.uid() == owner.as_raw())
}

/// Whether this is a file with this content. What the owner may have put in its place, a device or a pipe, is not read.
fn holds(path: &Path, content: &[u8]) -> bool {
    let is_alike = |file: &File| file.metadata().is_ok_and(|meta| meta.len() == content.len() as u64);
    let present = bounded::open(path, Links::Refused).ok().filter(is_alike).and_then(|file| {
        let mut present = Vec::with_capacity(content.len());
        file.take(content.len() as u64).read_to_end(&mut present).ok().map(|_| present)
    });
    present.is_some_and(|present| present == content)
}
