//! Root's record of an app that root has installed: whose it is, where its home lies, and the part of its configuration that
//! root's own files depend on, as root accepted it. Only root writes it, by `install --config`, and everybody may read it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use nix::unistd::{Gid, Uid};
use toml::{Table, Value};

use super::config::roots_part;
use super::{Config, LAID, SYSTEM_STATE};
use crate::account::Account;
use crate::bounded::{self, Links};
use crate::outcome::usage;

/// What a record's file name ends in; an app's name has no dot.
const SUFFIX: &str = ".record";

/// What root knows of an app.
#[derive(Clone, Debug)]
pub struct Record {
    /// The user who owns the app and runs it.
    pub owner: Account,
    /// The app's home, by its real path.
    pub home: PathBuf,
    /// The configuration of which root's part counts, and nothing else.
    pub accepted: Config,
}

impl Record {
    /// Where the record of an app of this name lies.
    pub fn path(app: &str) -> PathBuf {
        Path::new(SYSTEM_STATE).join(format!("{app}{SUFFIX}"))
    }

    /// The record of the app that has this home, by its real path; None: root has not installed one there.
    pub fn of_home(home: &Path) -> Result<Option<Record>> {
        for record in Record::all()? {
            let record = record?;
            if record.home == home {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    /// The record of the app of this name; None: root has not installed it.
    pub fn of_app(app: &str) -> Result<Option<Record>> {
        let path = Record::path(app);
        if path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            return Ok(None);
        }
        Record::read(&path).map(Some)
    }

    /// Fails when the owner's name and number do not belong together any more: somebody else may have the number.
    pub fn check_owner(&self) -> Result<()> {
        let Account { name, uid, .. } = &self.owner;
        let present = Account::named(name).map(|present| present.uid);
        if present == Some(*uid) || *name == uid.to_string() {
            return Ok(());
        }
        let now = present.map_or_else(|| "there is no such user".to_owned(), |now| format!("that user has uid {now}"));
        let path = Record::path(&self.accepted.app);
        Err(usage(format!(
            "cannot use {}: it is of {name} with uid {uid}, and {now}; remove it if it is out of date",
            path.display()
        )))
    }

    /// All records of this machine; one that cannot be used is an error in its place.
    pub fn all() -> Result<Vec<Result<Record>>> {
        let entries = match fs::read_dir(SYSTEM_STATE) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read.with_context(|| format!("cannot list {SYSTEM_STATE}"))?,
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(SUFFIX)));
        paths.sort();
        Ok(paths.iter().map(|path| Record::read(path)).collect())
    }

    /// What a record says of an app that is owned by `owner`, has this home, and is configured by this text.
    pub fn text(app: &str, owner: &Account, home: &Path, config: &str) -> Result<String> {
        let number = |id: u32| Value::Integer(i64::from(id));
        let place = home.to_str().ok_or_else(|| usage(format!("cannot record {}: it is no UTF-8", home.display())))?;
        let mut table = Table::new();
        table.insert("user".to_owned(), owner.name.clone().into());
        table.insert("uid".to_owned(), number(owner.uid.as_raw()));
        table.insert("gid".to_owned(), number(owner.gid.as_raw()));
        table.insert("home".to_owned(), place.into());
        table.extend(roots_part(config).map_err(|error| anyhow!("cannot record the configuration: {error}"))?);
        Ok(format!(
            "# Who owns {app}, and what root has accepted of its configuration. {LAID} for {app}; only install --config changes it.\n{table}"
        ))
    }

    fn read(path: &Path) -> Result<Record> {
        let cannot = || format!("cannot use {}", path.display());
        let file = bounded::open(path, Links::Refused).with_context(cannot)?;
        let meta = file.metadata().with_context(cannot)?;
        if meta.uid() != 0 || meta.mode() & 0o022 != 0 {
            return Err(anyhow!("{}: others than root can change it", cannot()));
        }
        let text = bounded::all_of(file, bounded::LARGE).with_context(cannot)?;
        let text = String::from_utf8(text).map_err(|_| anyhow!("{}: it is not UTF-8", cannot()))?;
        Record::parse(&text).map_err(|mistake| anyhow!("{}: {mistake}", cannot()))
    }

    fn parse(text: &str) -> Result<Record, String> {
        let mut table: Table = text.parse().map_err(|error: toml::de::Error| error.message().to_owned())?;
        let mut word = |key: &str| table.remove(key).ok_or_else(|| format!("missing key `{key}`"));
        let text = |value: Value| value.as_str().map(str::to_owned).ok_or_else(|| "expected a text".to_owned());
        let number = |value: Value| {
            let number = value.as_integer().and_then(|number| u32::try_from(number).ok());
            number.ok_or_else(|| "expected a number".to_owned())
        };
        let (name, home) = (text(word("user")?)?, text(word("home")?)?);
        let (uid, gid) = (Uid::from_raw(number(word("uid")?)?), Gid::from_raw(number(word("gid")?)?));
        let mut owner = Account::of(uid, gid);
        (owner.name, owner.gid) = (name, gid);
        Ok(Record { owner, home: home.into(), accepted: Config::of_roots_part(table)? })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_recorded_is_read() {
        let config = "app = \"shop\"\n[source]\ngit = \"https://x:y@z\"\n[run]\ncommand = \"x\"\nnice = 4\n";
        let mut owner = Account::of(Uid::from_raw(4711), Gid::from_raw(12));
        owner.name = "o'neil".to_owned();
        let home = Path::new("/home/o'neil/.shop");
        let text = Record::text("shop", &owner, home, config).unwrap();
        assert!(text.contains("Laid by cutover's install for shop;") && !text.contains("x:y"), "{text}");
        let read = Record::parse(&text).unwrap();
        assert_eq!((&read.owner, read.home.as_path(), read.accepted.run.nice), (&owner, home, Some(4)));
        assert!(Record::parse(&text.replace("uid", "gud")).is_err());
    }
}
