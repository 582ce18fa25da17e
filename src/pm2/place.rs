//! Where an ecosystem file's apps lie: their directories in the clone, and how a release's programs find their way there.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use super::clone::Clone;
use super::entry::Entry;
use super::notes::Notes;
use crate::account::Account;
use crate::output::shell_word;

/// Files of which one lies where a project begins.
const BEGINNINGS: [&str; 9] = [
    "package.json",
    "requirements.txt",
    "pyproject.toml",
    "composer.json",
    "manage.py",
    "pom.xml",
    "go.mod",
    "Cargo.toml",
    "Gemfile",
];

/// The place of the apps.
pub struct Place {
    /// The clone's root, or the file's directory where there is no clone.
    pub root: PathBuf,
    /// The clone; None: there is none.
    pub clone: Option<Clone>,
    /// What relative paths start from.
    base: PathBuf,
    /// What `~` means.
    home: Option<PathBuf>,
    /// The directory that the clone is called in the file, which was written for another machine.
    elsewhere: Option<PathBuf>,
}

impl Place {
    /// The place of a file in `beside` with these apps, of which the first one tells where the clone is.
    pub fn of(entries: &[&Entry], beside: &Path, owner: &Account, notes: &mut Notes) -> Place {
        let (root, base) = (beside.to_owned(), beside.to_owned());
        let mut place = Place { root, clone: None, base, home: owner.home.clone(), elsewhere: None };
        let wanted = entries.first().map(|entry| place.wanted(entry)).into_iter();
        place.clone = wanted.chain([beside.to_owned()]).find_map(|directory| Clone::around(&directory, owner));
        if let Some(clone) = &place.clone {
            place.root.clone_from(&clone.root);
        }
        place.elsewhere = place.of_other_machine(entries);
        if let Some(elsewhere) = &place.elsewhere {
            notes.say(format!("{} is not here: the repository is taken for it", elsewhere.display()));
        }
        if let Some(base) = place.better_base(entries) {
            let name =
                |path: &Path| path.strip_prefix(&place.root).map_or(String::new(), |path| path.display().to_string());
            let (from, lies) = (name(&base), name(&place.base));
            let from = if from.is_empty() { "the repository's root".to_owned() } else { from };
            notes.say(format!(
                "pm2 takes script and cwd from where it is called: that is taken to be {from}, not {lies}"
            ));
            place.base = base;
        }
        place
    }

    /// What the clone's directory is called.
    pub fn name(&self) -> String {
        self.root.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The directory of the clone in which apps run that name none.
    pub fn usual(&self) -> &Path {
        if self.base.starts_with(&self.root) { &self.base } else { &self.root }
    }

    /// Whether a release has this file or directory.
    pub fn has(&self, path: &Path) -> bool {
        path.exists() && !self.clone.as_ref().is_some_and(|clone| clone.ignores(path))
    }

    /// The directory that pm2 runs an app in.
    fn wanted(&self, entry: &Entry) -> PathBuf {
        let Some(directory) = entry.text("cwd") else { return self.base.clone() };
        let path = self.here(directory, &self.base);
        fs::canonicalize(&path).unwrap_or_else(|_| without_dots(&path))
    }

    /// The directory of the clone that an app runs in. Err: the one that pm2 runs it in lies elsewhere; this one instead.
    pub fn directory(&self, entry: &Entry) -> Result<PathBuf, PathBuf> {
        let wanted = self.wanted(entry);
        if wanted.starts_with(&self.root) { Ok(wanted) } else { Err(self.usual().to_owned()) }
    }

    /// Where a path of the file's leads on this machine, for an app that runs in `directory`.
    pub fn here(&self, path: &str, directory: &Path) -> PathBuf {
        if let (Some(home), Some(within)) = (&self.home, path.strip_prefix('~')) {
            return home.join(within.trim_start_matches('/'));
        }
        let within = self.elsewhere.as_ref().and_then(|elsewhere| Path::new(path).strip_prefix(elsewhere).ok());
        without_dots(&within.map_or_else(|| directory.join(path), |within| self.root.join(within)))
    }

    /// What a path of the file's is called in this directory of a release. Err: it lies outside of the repository, there.
    pub fn called(&self, path: &str, directory: &Path) -> Result<String, String> {
        if !path.starts_with(['/', '~']) {
            return Ok(path.to_owned());
        }
        let there = self.here(path, directory);
        // What a link in a clone leads to, as the programs of a virtual environment do, may lie outside of it.
        let parent = there.parent().and_then(|parent| fs::canonicalize(parent).ok());
        let there = parent.map_or(there.clone(), |parent| parent.join(there.file_name().unwrap_or_default()));
        self.way(directory, &there).ok_or_else(|| there.display().to_string())
    }

    /// The relative way from a directory of the clone to a path; None: that lies outside.
    pub fn way(&self, directory: &Path, path: &Path) -> Option<String> {
        if let Ok(here) = path.strip_prefix(directory) {
            return Some(here.display().to_string());
        }
        let within = path.strip_prefix(&self.root).ok()?;
        let depth = directory.strip_prefix(&self.root).map_or(0, |within| within.components().count());
        Some(format!("{}{}", "../".repeat(depth), within.display()))
    }

    /// What leads a shell from a release's directory to what is this directory of the clone; None: nothing is needed.
    pub fn way_to(&self, directory: &Path) -> Option<String> {
        let within = directory.strip_prefix(&self.root).ok().filter(|within| !within.as_os_str().is_empty())?;
        Some(format!("cd {}", shell_word(&within.to_string_lossy())))
    }

    /// A directory and those above it in the clone.
    pub fn upwards<'a>(&'a self, directory: &'a Path) -> impl Iterator<Item = &'a Path> {
        directory.ancestors().take_while(|above| above.starts_with(&self.root))
    }

    /// The directory that stands for the clone in paths that are not here; None: there are no such paths, or none fits.
    fn of_other_machine(&self, entries: &[&Entry]) -> Option<PathBuf> {
        let is_elsewhere = |path: &&Path| path.is_absolute() && !path.exists() && !path.starts_with(&self.root);
        let of_key = |key: &'static str| {
            let apps = entries.iter().filter(|entry| !(key == "script" && entry.is_for_a_shell()));
            apps.filter_map(|entry| entry.text(key)).map(Path::new).filter(is_elsewhere).collect::<Vec<_>>()
        };
        let directories = of_key("cwd");
        let paths = [directories.clone(), of_key("script"), of_key("exec_interpreter")].concat();
        let mut found: BTreeMap<&Path, usize> = BTreeMap::new();
        for (path, above) in paths.iter().flat_map(|path| path.ancestors().skip(1).map(move |above| (path, above))) {
            if path.strip_prefix(above).is_ok_and(|rest| self.root.join(rest).exists()) {
                let count = found.entry(above).or_default();
                *count = count.saturating_add(1);
            }
        }
        let best = found.into_iter().max_by_key(|(above, count)| (*count, Reverse(above.as_os_str().len())));
        let around =
            || directories.iter().find(|above| directories.iter().all(|path| path.starts_with(above))).copied();
        best.map(|(above, _)| above).or_else(around).map(Path::to_owned)
    }

    /// The directory above the file's from which more of its relative paths lead to something, or in which there is a project when
    /// none does; None: there is none better.
    fn better_base(&self, entries: &[&Entry]) -> Option<PathBuf> {
        let relative: Vec<&&Entry> =
            entries.iter().filter(|entry| !entry.text("cwd").is_some_and(|cwd| cwd.starts_with(['/', '~']))).collect();
        let candidates: Vec<&Path> = self.upwards(&self.base).collect();
        if relative.is_empty() || candidates.is_empty() {
            return None;
        }
        let leads = |base: &Path, entry: &Entry| {
            let directory = entry.text("cwd").map_or(base.to_owned(), |cwd| base.join(cwd));
            let is_moved = entry.text("cwd").is_some_and(|cwd| !cwd.trim_matches(['.', '/']).is_empty());
            (is_moved && directory.is_dir()) || (!entry.is_for_a_shell() && directory.join(entry.script()).is_file())
        };
        let score = |base: &Path| relative.iter().filter(|entry| leads(base, entry)).count();
        // Of several the last one is taken, which is the nearest.
        let best = candidates.iter().rev().max_by_key(|base| score(base)).filter(|base| score(base) > 0);
        let begins = |base: &&&Path| BEGINNINGS.iter().any(|name| self.has(&base.join(name)));
        let best = best.or_else(|| candidates.iter().find(begins))?;
        (*best != self.base).then(|| (*best).to_owned())
    }
}

/// The path that a path with `.` and `..` means, where there are no links.
pub fn without_dots(path: &Path) -> PathBuf {
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
