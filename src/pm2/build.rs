//! What builds a release: the packages that its apps' projects name, and the projects' own build scripts.

use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;
use serde_json::Value;

use super::command::is_python;
use super::notes::Notes;
use super::place::Place;
use crate::bounded::{self, Links};
use crate::output::shell_word;

/// A program that installs Node's packages. With NODE_ENV=production each would leave out what builds, and runners such as tsx,
/// mostly are; hence the options.
struct Manager {
    name: &'static str,
    locks: &'static [&'static str],
    /// Installs what the lock file says.
    exact: &'static str,
    /// Installs where there is none.
    any: &'static str,
}

const MANAGERS: [Manager; 4] = [
    Manager {
        name: "npm",
        locks: &["package-lock.json", "npm-shrinkwrap.json"],
        exact: "npm ci --include=dev",
        any: "npm install --include=dev",
    },
    Manager {
        name: "yarn",
        locks: &["yarn.lock"],
        exact: "yarn install --frozen-lockfile --production=false",
        any: "yarn install --production=false",
    },
    Manager {
        name: "pnpm",
        locks: &["pnpm-lock.yaml"],
        exact: "pnpm install --frozen-lockfile --prod=false",
        any: "pnpm install --prod=false",
    },
    Manager {
        name: "bun",
        locks: &["bun.lock", "bun.lockb"],
        exact: "bun install --frozen-lockfile",
        any: "bun install",
    },
];
/// What yarn's lock file has from version 2 on, which knows neither option, and how that installs.
const MODERN_YARN: (&str, &str) = ("__metadata:", "yarn install --immutable");
/// How deep the packages of a workspace are looked for below its root.
const DEPTH: usize = 4;
/// The keys of a package.json that name other packages.
const DEPENDENCIES: [&str; 3] = ["dependencies", "devDependencies", "optionalDependencies"];

/// Packages that start a browser with a sandbox of its own.
const OF_BROWSERS: [&str; 5] = ["puppeteer", "puppeteer-core", "playwright", "playwright-core", "playwright-chromium"];

/// What an app needs of a release.
#[derive(Default)]
pub struct Needs {
    /// Its name.
    pub app: String,
    /// The directory in which it runs.
    pub directory: PathBuf,
    /// The program that runs it.
    pub program: String,
    /// What must be there, by its whole path in the clone.
    pub paths: Vec<PathBuf>,
}

/// A build in the making.
struct Steps<'a> {
    place: &'a Place,
    notes: &'a mut Notes,
    /// Commands and the directories in which they run, in their order.
    steps: Vec<(PathBuf, String)>,
}

/// What builds these apps; None: nothing is to be built. What they need and nothing makes is told.
pub fn of(apps: &[Needs], place: &Place, notes: &mut Notes) -> Option<String> {
    let mut steps = Steps { place, notes, steps: Vec::new() };
    for app in apps {
        steps.add(app);
    }
    steps.command()
}

impl Steps<'_> {
    fn add(&mut self, app: &Needs) {
        let is_own = |path: &&PathBuf| path.starts_with(&app.directory) && !is_package(path) && venv(path).is_none();
        let script = app.paths.iter().find(is_own).and_then(|path| path.parent());
        let start = script.unwrap_or(&app.directory).to_owned();
        let is_of_node = !is_python(&app.program) && app.program != "php";
        let package = self.above(&start, "package.json").filter(|package| is_of_node || *package == app.directory);
        let has_build = package.as_ref().is_some_and(|package| self.add_node(package));
        let makes_packages = package.is_some();
        if app.program == "php" && self.above(&start, "composer.json").is_some() {
            self.add_php(&start);
        }
        if is_python(&app.program) && app.paths.iter().all(|path| venv(path).is_none()) {
            self.note_python(app, &start);
        }
        for path in app.paths.iter().filter(|path| !self.place.has(path)) {
            let is_made = match venv(path) {
                Some(venv) => self.add_python(&venv, &start),
                None => has_build || (is_package(path) && makes_packages),
            };
            if !is_made {
                let name = path.strip_prefix(&self.place.root).unwrap_or(path).display();
                let reason =
                    format!("needs {name}, which is not in git and nothing makes: put what does into [build] command");
                self.notes.say(format!("{} {reason}", app.app));
            }
        }
    }

    /// The nearest directory from `start` upwards that has this file.
    fn above(&self, start: &Path, name: &str) -> Option<PathBuf> {
        self.place.upwards(start).find(|above| self.place.has(&above.join(name))).map(Path::to_owned)
    }

    fn push(&mut self, directory: &Path, command: String) {
        let step = (directory.to_owned(), command);
        if !self.steps.contains(&step) {
            self.steps.push(step);
        }
    }

    /// Installs and builds the package in this directory. Whether it has a build script.
    fn add_node(&mut self, package: &Path) -> bool {
        self.note_browser(package);
        let has_lock = |directory: &Path| MANAGERS.iter().any(|manager| self.lock(directory, manager).is_some());
        let is_workspace = |above: &&Path| has_lock(above) && holds(above, package);
        let above = self.place.upwards(package).skip(1).find(is_workspace).filter(|_| !has_lock(package));
        let root = above.unwrap_or(package).to_owned();
        let (manager, install) = self.manager(&root);
        self.push(&root, install);
        let run = format!("{manager} run build");
        if root != package && has_build(&root) {
            self.push(&root, run);
            return true;
        }
        let members = members(self.place, &root);
        let mut built: Vec<&PathBuf> = Vec::new();
        let package = package.to_owned();
        in_order(&package, &members, &mut Vec::new(), &mut built);
        for member in built {
            self.push(member, run.clone());
        }
        if members.iter().all(|(_, member)| *member != package) && has_build(&package) {
            self.push(&package, run);
        }
        has_build(&package)
    }

    /// Tells that a package has a browser started, which takes more than a unit allows.
    fn note_browser(&mut self, directory: &Path) {
        let json = package(directory);
        let used = json.get("dependencies").and_then(Value::as_object);
        if let Some(name) = used.and_then(|used| used.keys().find(|name| OF_BROWSERS.contains(&name.as_str()))) {
            let remedy = "under systemd its unit refuses that; \"A browser in an app\" in docs/apps.md has the lines that allow it";
            self.notes.say(format!("{name} may start a browser with a sandbox: {remedy}"));
        }
    }

    /// The lock file of this manager's in a directory; None: there is none.
    fn lock(&self, directory: &Path, manager: &Manager) -> Option<PathBuf> {
        manager.locks.iter().map(|lock| directory.join(lock)).find(|lock| self.place.has(lock))
    }

    /// The manager of the packages in this directory, and how it installs them: the one that package.json names, else the one of the
    /// lock file, else npm.
    fn manager(&mut self, directory: &Path) -> (&'static str, String) {
        let named =
            package(directory).pointer("/packageManager").and_then(Value::as_str).unwrap_or_default().to_owned();
        let is_named = |manager: &&Manager| named.split('@').next() == Some(manager.name);
        let with_lock: Vec<&Manager> = MANAGERS.iter().filter(|one| self.lock(directory, one).is_some()).collect();
        let named = MANAGERS.iter().find(is_named);
        let manager = named.or(with_lock.first().copied()).unwrap_or(&MANAGERS[0]);
        if named.is_none() && with_lock.len() > 1 {
            let names: Vec<&str> = with_lock.iter().map(|manager| manager.name).collect();
            let names = names.join(" and ");
            self.notes.say(format!("there are lock files of {names}: {} installs the packages", manager.name));
        }
        let is_modern = |lock: &PathBuf| manager.name == "yarn" && text(lock).contains(MODERN_YARN.0);
        let install = match self.lock(directory, manager) {
            Some(lock) if is_modern(&lock) => MODERN_YARN.1,
            Some(_) => manager.exact,
            None => manager.any,
        };
        (manager.name, install.to_owned())
    }

    fn add_php(&mut self, start: &Path) {
        let Some(project) = self.above(start, "composer.json") else { return };
        if !self.place.has(&project.join("vendor")) {
            self.push(&project, "composer install --no-dev --no-interaction".to_owned());
        }
    }

    /// Makes a virtual environment. False: nothing says what is to be in it.
    fn add_python(&mut self, venv: &Path, start: &Path) -> bool {
        let listed = [("requirements.txt", "-r requirements.txt"), ("pyproject.toml", ".")];
        let found = listed.iter().find_map(|(file, what)| Some((self.above(start, file)?, *what)));
        let Some((project, what)) = found else { return false };
        let Some(venv) = self.place.way(&project, venv) else { return false };
        let venv = shell_word(&venv);
        self.push(&project, format!("python3 -m venv {venv}"));
        self.push(&project, format!("{venv}/bin/pip install --quiet {what}"));
        true
    }

    /// Tells where the packages of an app come from that has no virtual environment.
    fn note_python(&mut self, app: &Needs, start: &Path) {
        if self.above(start, "requirements.txt").is_some() {
            self.notes.say(format!(
                "{} runs with the packages that this machine's {} has, not with those of each release's requirements.txt: \
                 a virtual environment made in [build] has them",
                app.app, app.program
            ));
        }
    }

    /// All of it for a shell.
    fn command(&self) -> Option<String> {
        let mut groups: Vec<(&Path, Vec<&str>)> = Vec::new();
        for (directory, command) in &self.steps {
            match groups.last_mut() {
                Some((last, commands)) if last == directory => commands.push(command),
                _ => groups.push((directory, vec![command])),
            }
        }
        let is_one = groups.len() == 1;
        let group = |(directory, commands): &(&Path, Vec<&str>)| {
            let commands = commands.join(" && ");
            match self.place.way_to(directory) {
                None => commands,
                Some(way) if is_one => format!("{way} && {commands}"),
                Some(way) => format!("({way} && {commands})"),
            }
        };
        let groups: Vec<String> = groups.iter().map(group).collect();
        (!groups.is_empty()).then(|| groups.join(" && "))
    }
}

/// Whether this lies in a package that was installed.
fn is_package(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "node_modules")
}

/// The virtual environment that a program lies in; None: it lies in none.
fn venv(program: &Path) -> Option<PathBuf> {
    let bin = program.parent().filter(|bin| bin.ends_with("bin"))?;
    let is_one = bin.join("activate").exists()
        || bin
            .parent()?
            .file_name()
            .is_some_and(|name| ["venv", ".venv", "env", ".env", "virtualenv"].iter().any(|one| name == *one));
    is_one.then(|| bin.parent().map(Path::to_owned))?
}

/// What a file holds; nothing where it cannot be read.
fn text(file: &Path) -> String {
    bounded::read_text(file, Links::Followed, bounded::LARGE).unwrap_or_default()
}

/// The package.json of this directory.
fn package(directory: &Path) -> Value {
    serde_json::from_str(&text(&directory.join("package.json"))).unwrap_or_default()
}

fn has_build(directory: &Path) -> bool {
    package(directory).pointer("/scripts/build").is_some_and(Value::is_string)
}

/// The patterns by which the package in this directory names others below it as one workspace.
fn patterns(directory: &Path) -> Vec<String> {
    let package = package(directory);
    let listed = package.pointer("/workspaces/packages").or(package.get("workspaces")).and_then(Value::as_array);
    let listed = listed.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    let of_pnpm = text(&directory.join("pnpm-workspace.yaml"));
    let items = Regex::new(r#"(?m)(?:^\s*-|[\[,])\s*["']?([^"'\s#,\]]+)"#).ok();
    let items = items.iter().flat_map(|items| items.captures_iter(&of_pnpm)).map(|found| found[1].to_owned());
    listed.chain(items.collect::<Vec<_>>()).collect()
}

/// Whether the package in a directory is one of the workspace in another.
fn holds(workspace: &Path, package: &Path) -> bool {
    let Ok(within) = package.strip_prefix(workspace) else { return false };
    let within = within.to_string_lossy();
    let is_meant = |pattern: &str| {
        let pattern = regex::escape(pattern.trim_start_matches("./").trim_end_matches('/'));
        let pattern = pattern.replace(r"\*\*", ".+").replace(r"\*", "[^/]+");
        Regex::new(&format!("^{pattern}$")).is_ok_and(|pattern| pattern.is_match(&within))
    };
    let (not, meant): (Vec<String>, Vec<String>) =
        patterns(workspace).into_iter().partition(|one| one.starts_with('!'));
    meant.iter().any(|pattern| is_meant(pattern))
        && !not.iter().any(|pattern| is_meant(pattern.trim_start_matches('!')))
}

/// The packages of a workspace by their names, with their directories.
fn members(place: &Place, workspace: &Path) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    let mut open = vec![(workspace.to_owned(), 0)];
    while let Some((directory, depth)) = open.pop() {
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten().map(|entry| entry.path());
        let is_looked_into = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            path.is_dir() && !path.is_symlink() && !name.starts_with('.') && name != "node_modules" && place.has(path)
        };
        for path in entries.filter(is_looked_into) {
            if path.join("package.json").is_file() && holds(workspace, &path) {
                let name = package(&path).get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
                found.push((name, path.clone()));
            }
            if depth < DEPTH {
                open.push((path, depth.saturating_add(1)));
            }
        }
    }
    found
}

/// Puts a member of a workspace into `built`, if it has a build script, behind those that it depends on.
fn in_order<'a>(
    package_directory: &Path,
    members: &'a [(String, PathBuf)],
    seen: &mut Vec<&'a Path>,
    built: &mut Vec<&'a PathBuf>,
) {
    let Some((_, member)) = members.iter().find(|(_, member)| member == package_directory) else { return };
    if seen.contains(&member.as_path()) {
        return;
    }
    seen.push(member);
    let json = package(member);
    for name in dependencies(&json) {
        if let Some((_, other)) = members.iter().find(|(one, _)| one == name) {
            in_order(other, members, seen, built);
        }
    }
    if has_build(member) {
        built.push(member);
    }
}

/// The packages that a package.json names.
fn dependencies(json: &Value) -> impl Iterator<Item = &str> {
    DEPENDENCIES.iter().filter_map(|key| json.get(key)?.as_object()).flat_map(|named| named.keys().map(String::as_str))
}
