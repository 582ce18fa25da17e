//! Where an ecosystem file's apps lie: their git repository, and their directories in it.

use std::fs;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::entry::Entry;
use crate::account::Account;
use crate::app::environment;
use crate::bounded::{self, Links};
use crate::command::{self, Run};
use crate::deadline::Deadline;
use crate::output::shell_word;
use crate::source::address::Address;

/// How long git may take to look at a clone.
const PATIENCE: Duration = Duration::from_secs(10);

/// What installs the packages of a project that has this file; the first one counts.
const INSTALLERS: [(&str, &str); 5] = [
    ("package-lock.json", "npm ci"),
    ("npm-shrinkwrap.json", "npm ci"),
    ("yarn.lock", "yarn install --frozen-lockfile"),
    ("pnpm-lock.yaml", "pnpm install --frozen-lockfile"),
    ("package.json", "npm install"),
];

/// The place of the apps.
pub struct Place {
    /// The clone's root, which is what a release's directory holds a copy of.
    root: PathBuf,
    /// Where the ecosystem file lies.
    beside: PathBuf,
    /// What `~` means.
    home: Option<PathBuf>,
    /// The repository that the clone was made from; None: there is none.
    pub origin: Option<Origin>,
    /// The branch that is checked out; None: there is none.
    pub branch: Option<String>,
}

/// The repository that a clone was made from.
pub struct Origin {
    /// Its URL, without what is between `://` and `@` of one that http serves: that may be a password.
    pub url: String,
    /// Whether something was left out of it.
    pub is_shortened: bool,
}

impl Place {
    /// The place of a file in `beside`, whose web app, or else first app, is `entry`.
    pub fn of(entry: Option<&Entry>, beside: &Path, owner: &Account) -> Place {
        let (root, beside) = (beside.to_owned(), beside.to_owned());
        let mut place = Place { root, beside, home: owner.home.clone(), origin: None, branch: None };
        let git = |directory: &Path, words: &[&str]| ask_git(directory, words, owner);
        let clone = |directory: PathBuf| Some(PathBuf::from(git(&directory, &["rev-parse", "--show-toplevel"])?));
        let wanted = entry.map(|entry| place.wanted(entry)).into_iter();
        if let Some(root) = wanted.chain([place.beside.clone()]).find_map(clone) {
            let url = git(&root, &["config", "--get", "remote.origin.url"]);
            place.origin = url.map(|url| Origin::of(&url, &root));
            place.branch = git(&root, &["symbolic-ref", "--quiet", "--short", "HEAD"]);
            place.root = root;
        }
        place
    }

    /// What the clone's directory is called.
    pub fn name(&self) -> String {
        self.root.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The directory of the clone in which apps run that name none.
    pub fn usual(&self) -> &Path {
        if self.beside.starts_with(&self.root) { &self.beside } else { &self.root }
    }

    /// The directory that pm2 runs an app in.
    fn wanted(&self, entry: &Entry) -> PathBuf {
        let Some(directory) = entry.text("cwd") else { return self.beside.clone() };
        let at_home = self.home.as_ref().filter(|_| directory == "~" || directory.starts_with("~/"));
        let path = match at_home {
            Some(home) => home.join(directory.trim_start_matches(['~', '/'])),
            None => self.beside.join(directory),
        };
        fs::canonicalize(&path).unwrap_or_else(|_| without_dots(&path))
    }

    /// The directory of the clone that an app runs in. Err: the one that pm2 runs it in lies elsewhere; this one instead.
    pub fn directory(&self, entry: &Entry) -> Result<PathBuf, PathBuf> {
        let wanted = self.wanted(entry);
        if wanted.starts_with(&self.root) { Ok(wanted) } else { Err(self.usual().to_owned()) }
    }

    /// What a script is called in this directory of the clone. Err: it lies elsewhere.
    pub fn script(&self, entry: &Entry, directory: &Path) -> Result<String, String> {
        let script = entry.script();
        if entry.is_for_a_shell() || !script.starts_with('/') {
            return Ok(script.to_owned());
        }
        if let Ok(here) = Path::new(script).strip_prefix(directory) {
            return Ok(here.display().to_string());
        }
        let depth = directory.strip_prefix(&self.root).map_or(0, |within| within.components().count());
        match Path::new(script).strip_prefix(&self.root) {
            Ok(within) => Ok(format!("{}{}", "../".repeat(depth), within.display())),
            Err(_) => Err(script.to_owned()),
        }
    }

    /// What leads a shell from a release's directory to what is this directory of the clone; empty: nothing is needed.
    pub fn way_to(&self, directory: &Path) -> String {
        match directory.strip_prefix(&self.root) {
            Ok(within) if !within.as_os_str().is_empty() => format!("cd {} && ", shell_word(&within.to_string_lossy())),
            _ => String::new(),
        }
    }

    /// What builds the app in this directory; None: it has no packages.
    pub fn build(&self, directory: &Path) -> Option<String> {
        let project = [directory, &self.root].into_iter().find(|there| there.join("package.json").is_file())?;
        let (_, install) = INSTALLERS.iter().find(|(file, _)| project.join(file).is_file())?;
        let way = self.way_to(project);
        Some(match (has_build_script(project), install.starts_with("npm ")) {
            (false, _) => format!("{way}{install}"),
            // With NODE_ENV=production npm leaves out what such scripts mostly need.
            (true, true) => format!("{way}{install} --include=dev && npm run build"),
            (true, false) => format!("{way}{install} && npm run build"),
        })
    }
}

impl Origin {
    fn of(url: &str, clone: &Path) -> Origin {
        let shortened = Some(Address::of(url).to_string()).filter(|plain| plain != url);
        let is_path = !url.contains(':') && !url.starts_with('/');
        let url = match &shortened {
            Some(shortened) => shortened.clone(),
            None if is_path => without_dots(&clone.join(url)).display().to_string(),
            None => url.to_owned(),
        };
        Origin { url, is_shortened: shortened.is_some() }
    }
}

/// What git says in a clone; None: nothing.
fn ask_git(directory: &Path, words: &[&str], owner: &Account) -> Option<String> {
    let run = Run::new(&command::find("git").ok()?, words.iter().copied());
    let run = run.environment(environment::base(owner, directory)).directory(directory);
    let said = run.output(Deadline::after(PATIENCE)).ok()?.stdout;
    Some(said.trim_end_matches('\n').to_owned()).filter(|said| !said.is_empty())
}

fn has_build_script(project: &Path) -> bool {
    let said = bounded::read(&project.join("package.json"), Links::Followed, bounded::LARGE).unwrap_or_default();
    serde_json::from_slice::<Value>(&said)
        .is_ok_and(|package| package.pointer("/scripts/build").is_some_and(Value::is_string))
}

/// The path that a path with `.` and `..` means, where there are no links.
fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            part => plain.push(part),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_told_without_a_password_and_by_its_whole_path() {
        for (url, told) in [
            ("https://example.org/shop.git", "https://example.org/shop.git"),
            ("https://me:token@example.org/a@b.git", "https://example.org/a@b.git"),
            ("https://token@example.org:8443/shop.git", "https://example.org:8443/shop.git"),
            ("ssh://git@example.org/shop.git", "ssh://git@example.org/shop.git"),
            ("git@example.org:shop.git", "git@example.org:shop.git"),
            ("/srv/shop.git", "/srv/shop.git"),
            ("../shop.git", "/srv/shop.git"),
        ] {
            let origin = Origin::of(url, Path::new("/srv/clone"));
            assert_eq!((origin.url.as_str(), origin.is_shortened), (told, url.contains("token")), "{url}");
        }
    }
}
