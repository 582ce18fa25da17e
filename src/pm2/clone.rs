//! What git says of the clone that an ecosystem file's apps run in: where it comes from, and what of it no release would have.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::notes::{Notes, listed};
use crate::account::Account;
use crate::app::environment;
use crate::command::{self, Run};
use crate::deadline::Deadline;
use crate::source::address::Address;

/// How long git may take to look at a clone.
const PATIENCE: Duration = Duration::from_secs(30);
/// What is made anew by installing, building and running, or belongs to an editor: nobody misses it in a release.
const MADE: [&str; 32] = [
    ".DS_Store",
    ".cache",
    ".idea",
    ".mypy_cache",
    ".next",
    ".nuxt",
    ".output",
    ".parcel-cache",
    ".pm2",
    ".pnpm-store",
    ".pytest_cache",
    ".svelte-kit",
    ".turbo",
    ".venv",
    ".vite",
    ".vscode",
    ".yarn",
    "__pycache__",
    "bower_components",
    "build",
    "coverage",
    "dist",
    "env",
    "log",
    "logs",
    "node_modules",
    "out",
    "target",
    "temp",
    "tmp",
    "vendor",
    "venv",
];
/// The endings of names of which the same holds.
const MADE_ENDINGS: [&str; 5] = [".log", ".pid", ".pyc", ".swp", ".tsbuildinfo"];

/// A clone.
pub struct Clone {
    /// Its root, which is what a release's directory holds a copy of.
    pub root: PathBuf,
    /// The repository that it was made from; None: it was made from none.
    pub origin: Option<Origin>,
    /// What is deployed of it: the branch at the origin that the one that is checked out follows, or the commit where no branch is.
    /// None: nothing is committed.
    pub reference: Option<String>,
    /// The remote's name.
    remote: String,
    /// The branch that is checked out; None: none is.
    branch: Option<String>,
    /// Commits that only the clone has, and that only the origin has; None: the origin has no such branch, so far as is known.
    apart: Option<(usize, usize)>,
    /// Files that were changed and not committed.
    changed: Vec<String>,
    /// What is not in git and not ignored either.
    untracked: Vec<String>,
    /// What is ignored; a directory ends in a slash.
    ignored: Vec<String>,
}

/// The repository that a clone was made from.
pub struct Origin {
    /// Its URL, without what is between `://` and `@` of one that http serves: that may be a password.
    pub url: String,
    /// Whether something was left out of it.
    pub is_shortened: bool,
}

impl Clone {
    /// The clone that this directory lies in; None: it lies in none.
    pub fn around(directory: &Path, owner: &Account) -> Option<Clone> {
        let root = PathBuf::from(ask(directory, &["rev-parse", "--show-toplevel"], owner)?.trim_end());
        let git = |words: &[&str]| ask(&root, words, owner).map(|said| said.trim_end().to_owned());
        let branch = git(&["symbolic-ref", "--quiet", "--short", "HEAD"]);
        let of_branch = |key: &str| git(&["config", "--get", &format!("branch.{}.{key}", branch.as_deref()?)]);
        let only = || git(&["remote"]).filter(|remotes| !remotes.contains('\n'));
        let remote = of_branch("remote").filter(|remote| remote != ".").or_else(only).unwrap_or("origin".to_owned());
        let followed = of_branch("merge").and_then(|name| Some(name.strip_prefix("refs/heads/")?.to_owned()));
        let followed = followed.or_else(|| branch.clone());
        let apart = followed.as_ref().and_then(|followed| {
            let range = format!("refs/remotes/{remote}/{followed}...HEAD");
            let said = git(&["rev-list", "--left-right", "--count", &range])?;
            let (theirs, ours) = said.split_once('\t')?;
            Some((ours.parse().ok()?, theirs.parse().ok()?))
        });
        let url = git(&["config", "--get", &format!("remote.{remote}.url")]);
        let mut clone = Clone {
            origin: url.map(|url| Origin::of(&url, &root)),
            reference: followed.or_else(|| git(&["rev-parse", "--verify", "--quiet", "HEAD"])),
            remote,
            branch,
            apart,
            changed: Vec::new(),
            untracked: Vec::new(),
            ignored: Vec::new(),
            root,
        };
        clone.look(owner);
        Some(clone)
    }

    /// Sorts out what git has not of it.
    fn look(&mut self, owner: &Account) {
        let words = ["status", "--porcelain", "-z", "--untracked-files=normal", "--ignored", "--no-renames"];
        let said = ask(&self.root, &words, owner).unwrap_or_default();
        for (kind, name) in said.split('\0').filter_map(|line| line.split_at_checked(3)) {
            let list = match kind {
                "!! " => &mut self.ignored,
                "?? " => &mut self.untracked,
                _ => &mut self.changed,
            };
            list.push(name.to_owned());
        }
    }

    /// Whether releases lack what lies there for good: git ignores it, or it is made anew anyway.
    pub fn ignores(&self, path: &Path) -> bool {
        let Ok(within) = path.strip_prefix(&self.root) else { return false };
        let made = self.untracked.iter().filter(|name| is_made(name));
        self.ignored.iter().chain(made).any(|name| within.starts_with(name.trim_end_matches('/')))
    }

    /// Tells in what the releases would differ from what runs. The ecosystem file itself is not missed.
    pub fn note(&self, file: &Path, notes: &mut Notes) {
        if self.origin.as_ref().is_some_and(|origin| origin.is_shortened) {
            notes.say("the password in origin's URL is left out: let git's credential helper tell it");
        }
        let (remote, branch) = (&self.remote, self.branch.as_deref().unwrap_or_default());
        match (&self.branch, self.apart) {
            (None, _) => notes.say(
                "no branch is checked out: ref is the commit that is; write the branch, tag or latest-tag that is to be deployed",
            ),
            _ if self.origin.is_none() => {}
            (_, None) => notes.say(format!(
                "{branch} is not at {remote}, so far as the clone knows: git push --set-upstream {remote} {branch}"
            )),
            (_, Some((ours, theirs))) => {
                if ours > 0 {
                    let commits = commits(ours, "is", "are");
                    notes.say(format!("{commits} not at {remote}, so in no release: git push"));
                }
                if theirs > 0 {
                    let commits = commits(theirs, "is", "are");
                    notes.say(format!("{commits} at {remote} and not in the clone: the first deploy brings what does not run yet"));
                }
            }
        }
        let file = file.strip_prefix(&self.root).map(|within| within.display().to_string()).unwrap_or_default();
        let missed = |list: &[String]| -> Vec<String> {
            list.iter().filter(|name| **name != file && !is_made(name)).cloned().collect()
        };
        let changed = missed(&self.changed);
        if !changed.is_empty() {
            notes.say(format!("changed and not committed, so in no release: {}", listed(&changed)));
        }
        let (env_files, others): (Vec<String>, Vec<String>) =
            missed(&self.untracked).into_iter().chain(missed(&self.ignored)).partition(|name| is_env_file(name));
        if !env_files.is_empty() {
            notes.say(format!(
                "not in git, so in no release: {}; write its lines into the env file",
                listed(&env_files)
            ));
        }
        if !others.is_empty() {
            notes.say(format!(
                "not in git, so in no release: {}; commit what the app needs, and keep what it writes outside of the repository",
                listed(&others)
            ));
        }
    }
}

impl Origin {
    fn of(url: &str, clone: &Path) -> Origin {
        let shortened = Some(Address::of(url).to_string()).filter(|plain| plain != url);
        let is_path = !url.contains(':') && !url.starts_with('/');
        let url = match &shortened {
            Some(shortened) => shortened.clone(),
            None if is_path => super::place::without_dots(&clone.join(url)).display().to_string(),
            None => url.to_owned(),
        };
        Origin { url, is_shortened: shortened.is_some() }
    }
}

/// What git says in a clone; None: nothing.
fn ask(directory: &Path, words: &[&str], owner: &Account) -> Option<String> {
    let run = Run::new(&command::find("git").ok()?, words.iter().copied());
    let run = run.environment(environment::base(owner, directory)).directory(directory);
    Some(run.output(Deadline::after(PATIENCE)).ok()?.stdout).filter(|said| !said.trim().is_empty())
}

fn commits(count: usize, one: &str, several: &str) -> String {
    if count == 1 { format!("1 commit {one}") } else { format!("{count} commits {several}") }
}

/// The last part of a path that git prints.
fn last(name: &str) -> &str {
    name.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

fn is_made(name: &str) -> bool {
    MADE.contains(&last(name)) || MADE_ENDINGS.iter().any(|ending| last(name).ends_with(ending))
}

fn is_env_file(name: &str) -> bool {
    last(name) == ".env" || last(name).starts_with(".env.")
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
