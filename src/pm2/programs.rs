//! Programs that lie in a user's home, where version managers and installers put them, and not in the PATH that apps get.

use std::fs;
use std::path::{Path, PathBuf};

use crate::account::Account;
use crate::command;

/// Where Node's version managers keep each version, and where in it the programs are.
const VERSIONS: [(&str, &str); 2] =
    [(".nvm/versions/node", "bin"), (".local/share/fnm/node-versions", "installation/bin")];
/// Other directories of programs.
const DIRECTORIES: [&str; 7] = [
    ".volta/bin",
    ".asdf/shims",
    ".local/share/mise/shims",
    ".bun/bin",
    ".local/share/pnpm",
    ".deno/bin",
    ".local/bin",
];
/// The PATH that apps get where the env file sets none.
const USUAL: &str = command::ENVIRONMENT[0].1;

/// A program of this name in a user's home; None: there is none.
pub fn at_home(program: &str, owner: &Account) -> Option<PathBuf> {
    let home = owner.home.as_deref()?;
    let versions = VERSIONS.iter().filter_map(|(place, bin)| Some(newest(&home.join(place))?.join(bin)));
    let directories = versions.chain(DIRECTORIES.iter().map(|place| home.join(place)));
    directories.map(|directory| directory.join(program)).find(|path| path.is_file())
}

/// Node of this version, as nvm has it; None: it does not.
pub fn node(version: &str, owner: &Account) -> Option<PathBuf> {
    let place = owner.home.as_deref()?.join(VERSIONS[0].0);
    let is_it = |found: &PathBuf| {
        let name = found.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let wanted = format!("v{}", version.trim_start_matches('v'));
        name == wanted || name.starts_with(&format!("{wanted}."))
    };
    let found = versions(&place).into_iter().rfind(is_it)?;
    Some(found.join("bin/node")).filter(|node| node.is_file())
}

/// The PATH by which these programs are found, which is the usual one with directories of the home before it. None: the usual one
/// does, or what it lacks lies nowhere.
pub fn path_for<'a>(programs: impl IntoIterator<Item = &'a str>, owner: &Account) -> Option<String> {
    let mut directories: Vec<String> = Vec::new();
    for program in programs {
        let is_usual = USUAL.split(':').any(|directory| Path::new(directory).join(program).is_file());
        let found = at_home(program, owner).filter(|_| !is_usual);
        let directory = found.and_then(|found| Some(found.parent()?.display().to_string()));
        directories.extend(directory.filter(|directory| !directories.contains(directory)));
    }
    directories.push(USUAL.to_owned());
    (directories.len() > 1).then(|| directories.join(":"))
}

/// The newest version in a directory of versions.
fn newest(place: &Path) -> Option<PathBuf> {
    versions(place).pop()
}

/// The versions in a directory, the newest last.
fn versions(place: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path());
    let numbers = |path: &PathBuf| -> Vec<u64> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.trim_start_matches('v').split('.').filter_map(|number| number.parse().ok()).collect()
    };
    let mut all: Vec<PathBuf> = entries.collect();
    all.sort_by_key(numbers);
    all
}
