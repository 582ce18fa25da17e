//! The account that owns the app's home: who it is, and becoming it.
//!
//! Reads /etc/passwd and /etc/group itself: a statically linked program cannot load the C library's name service
//! plugins. An account known only to a directory service works too, under its numbers and without extra groups.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::unistd::{Gid, Uid, setegid, seteuid, setgid, setgroups, setuid};

/// An account of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The login name; the uid in digits when /etc/passwd does not list it.
    pub name: String,
    /// The user id.
    pub uid: Uid,
    /// The primary group.
    pub gid: Gid,
    /// The home directory; None when /etc/passwd does not list the account.
    pub home: Option<PathBuf>,
}

impl Account {
    /// The account with this name; None when /etc/passwd does not list it.
    pub fn named(name: &str) -> Option<Account> {
        passwd().find(|account| account.name == name)
    }

    /// The account with this user id.
    pub fn of(uid: Uid, gid: Gid) -> Account {
        let known = passwd().find(|account| account.uid == uid);
        known.unwrap_or_else(|| Account { name: uid.to_string(), uid, gid, home: None })
    }

    /// The account that this process acts for.
    pub fn current() -> Account {
        Account::of(Uid::effective(), Gid::effective())
    }

    /// The account that owns a file or directory.
    pub fn owning(path: &Path) -> Result<Account> {
        let meta = fs::metadata(path).with_context(|| format!("cannot look at {}", path.display()))?;
        Ok(Account::of(Uid::from_raw(meta.uid()), Gid::from_raw(meta.gid())))
    }

    /// Gives up root for good and becomes this account, so that nothing in the app's home ever becomes root's. Does
    /// nothing for who is not root, or already is this account.
    pub fn assume(&self) -> Result<()> {
        if !Uid::effective().is_root() || self.uid.is_root() {
            return Ok(());
        }
        setgroups(&self.groups())
            .and_then(|()| setgid(self.gid))
            .and_then(|()| setuid(self.uid))
            .with_context(|| format!("cannot become {}", self.name))
    }

    /// Runs `work` as this account and comes back as root. For `install`, which must lay files of both. Does nothing
    /// special for who is not root, or already is this account.
    pub fn lend<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        if !Uid::effective().is_root() || self.uid.is_root() {
            return work();
        }
        let cannot = || format!("cannot become {}", self.name);
        setgroups(&self.groups()).with_context(cannot)?;
        setegid(self.gid).with_context(cannot)?;
        seteuid(self.uid).with_context(cannot)?;
        let result = work();
        seteuid(Uid::from_raw(0)).context("cannot become root again")?;
        setegid(Gid::from_raw(0)).context("cannot become root again")?;
        setgroups(&[Gid::from_raw(0)]).context("cannot become root again")?;
        result
    }

    /// The primary and all supplementary groups, from /etc/group.
    fn groups(&self) -> Vec<Gid> {
        let listed = fs::read_to_string("/etc/group").unwrap_or_default();
        let member_of = listed.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let is_member = fields.get(3)?.split(',').any(|member| member == self.name);
            let gid = fields.get(2)?.parse().ok()?;
            is_member.then_some(Gid::from_raw(gid))
        });
        let mut groups: Vec<Gid> = std::iter::once(self.gid).chain(member_of).collect();
        groups.sort_by_key(|gid| gid.as_raw());
        groups.dedup();
        groups
    }
}

fn passwd() -> impl Iterator<Item = Account> {
    let listed = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let accounts: Vec<Account> = listed.lines().filter_map(parse_passwd).collect();
    accounts.into_iter()
}

fn parse_passwd(line: &str) -> Option<Account> {
    let fields: Vec<&str> = line.split(':').collect();
    Some(Account {
        name: (*fields.first()?).to_owned(),
        uid: Uid::from_raw(fields.get(2)?.parse().ok()?),
        gid: Gid::from_raw(fields.get(3)?.parse().ok()?),
        home: Some(PathBuf::from(fields.get(5)?)),
    })
}
