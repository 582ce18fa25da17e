//! Coming from pm2: what an ecosystem file says, as a configuration of ours, and what of it has no counterpart here.
//!
//! Of the file's apps the first one that seems to serve HTTP is the web app; the others become workers. The values of
//! their variables are secrets: they go into the env file, and only their names are told.
#![deny(clippy::arithmetic_side_effects)]

mod build;
mod clone;
mod command;
mod draft;
mod entry;
mod file;
mod keys;
mod notes;
mod place;
mod port;
mod programs;
mod roles;
mod scripts;
mod translation;
mod variables;

pub use variables::Variables;

use std::path::{Path, PathBuf};

use anyhow::Result;
use nix::unistd::Uid;

use crate::account::Account;
use crate::outcome::usage;

use translation::Translation;

/// What an ecosystem file says.
pub struct Ecosystem {
    /// A configuration, which may leave keys open that have no default.
    pub text: String,
    /// What is different from now on, or has no counterpart, a line each.
    pub notes: Vec<String>,
    /// What goes into the env file.
    pub variables: Variables,
    file: PathBuf,
    open: Vec<&'static str>,
}

impl Ecosystem {
    /// Reads one by Node, as its owner-to-be: the file is a program. With an environment, as pm2 does with `--env`.
    pub fn read(file: &Path, environment: Option<&str>, owner: &Account) -> Result<Ecosystem> {
        let is_roots = Uid::effective().is_root();
        owner.lend(|| {
            let read = file::read(file, environment, owner)?;
            let Translation { mut draft, notes, variables } = Translation::of(read, owner);
            draft.is_roots = is_roots;
            draft.file = file.file_name().unwrap_or_default().to_string_lossy().replace(char::is_control, "");
            let (text, open) = (draft.text(), draft.open());
            Ok(Ecosystem { text, notes: notes.lines(), variables, file: file.to_owned(), open })
        })
    }

    /// Whether the configuration has all that it needs.
    pub fn is_complete(&self) -> bool {
        self.open.is_empty()
    }

    /// The error that it has not.
    pub fn incomplete(&self) -> anyhow::Error {
        let (file, open) = (self.file.display(), self.open.join(" and "));
        let remedy = "--dry-run prints a configuration: complete it, and say --config";
        usage(format!("cannot install from {file}: it does not tell {open}; {remedy}"))
    }
}
