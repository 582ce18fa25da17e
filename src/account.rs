//! The account that owns the app's home: who it is, and becoming it.
//!
//! Reads /etc/passwd and /etc/group itself: a statically linked program cannot load the C library's name service
//! plugins. Of an account that is not listed there, as those of a directory service, getent(1) and id(1) tell, where they
//! are; one that they do not know works too, under its numbers and without extra groups.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::{Gid, Uid, setegid, seteuid, setgid, setgroups, setuid};

use crate::command::{self, Run};
use crate::deadline::Deadline;

/// How long a directory service may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// An account of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The login name; the uid in digits when nobody knows it.
    pub name: String,
    /// The user id.
    pub uid: Uid,
    /// The primary group.
    pub gid: Gid,
    /// The home directory; None when nobody knows the account.
    pub home: Option<PathBuf>,
    /// The login shell; None when nobody knows the account, or names no shell.
    pub shell: Option<PathBuf>,
    /// All its groups, as a directory service tells them; None: /etc/group does.
    groups: Option<Vec<Gid>>,
}

impl Account {
    /// The account with this name, or with this user id in digits; None when nobody knows it.
    pub fn named(name: &str) -> Option<Account> {
        let uid = name.parse().ok().map(Uid::from_raw);
        let listed = passwd().find(|account| account.name == name);
        listed
            .or_else(|| passwd().find(|account| Some(account.uid) == uid))
            .or_else(|| asked(name).filter(|account| account.name == name || Some(account.uid) == uid))
    }

    /// That nobody knows an account of this name, in words.
    pub fn unknown(name: &str) -> String {
        let asked = match command::find("getent") {
            Ok(_) => "neither /etc/passwd lists it nor does getent know it",
            Err(_) => "/etc/passwd does not list it, and there is no getent to ask a directory service with",
        };
        format!("cannot find user {name:?}: {asked}; useradd makes one")
    }

    /// The account with this user id.
    pub fn of(uid: Uid, gid: Gid) -> Account {
        let listed = passwd().find(|account| account.uid == uid);
        let known = listed.or_else(|| asked(&uid.to_string()).filter(|account| account.uid == uid));
        known.unwrap_or_else(|| Account { name: uid.to_string(), uid, gid, home: None, shell: None, groups: None })
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

    /// The primary and all supplementary groups.
    fn groups(&self) -> Vec<Gid> {
        if let Some(groups) = &self.groups {
            return groups.clone();
        }
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
        shell: fields.get(6).map(PathBuf::from),
        groups: None,
    })
}

/// The account that getent(1) finds by this name or number; None: there is none, or nobody answers.
fn asked(key: &str) -> Option<Account> {
    let said = answer("getent", &["passwd", "--", key])?;
    let account = parse_passwd(said.lines().next()?)?;
    // Only root can give itself groups.
    let groups = Uid::effective().is_root().then(|| groups_told(&account)).flatten();
    Some(Account { groups, ..account })
}

fn groups_told(account: &Account) -> Option<Vec<Gid>> {
    let said = answer("id", &["-G", "--", &account.name])?;
    let groups: Option<Vec<Gid>> = said.split_whitespace().map(|gid| Some(Gid::from_raw(gid.parse().ok()?))).collect();
    groups.filter(|groups| !groups.is_empty())
}

/// What a program answers; None: it is not there, or does not know.
fn answer(program: &str, words: &[&str]) -> Option<String> {
    let run = Run::new(&command::find(program).ok()?, words);
    run.output(Deadline::after(PATIENCE)).ok().map(|output| output.stdout)
}
