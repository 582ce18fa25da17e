//! The shell command that runs an app as pm2 runs its script.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::entry::Entry;
use super::notes::Notes;
use super::place::Place;
use super::programs;
use crate::account::Account;
use crate::bounded::{self, Links};
use crate::output::shell_word;

/// Which program pm2 runs a script with (its lib/API/interpreter.json), by its name's ending.
const INTERPRETERS: [(&str, &str); 11] = [
    (".js", "node"),
    (".cjs", "node"),
    (".mjs", "node"),
    (".py", "python3"),
    (".sh", "bash"),
    (".rb", "ruby"),
    (".php", "php"),
    (".pl", "perl"),
    (".coffee", "coffee"),
    (".ts", "bun"),
    (".tsx", "bun"),
];
/// How many bytes tell a text from a program.
const LOOKED_AT: u64 = 8192;
/// Where packages of Node's have their programs.
const OF_PACKAGES: &str = "node_modules/.bin";
/// The option that has Node read variables from a file.
const ENV_FILE: &str = "--env-file=";

/// What runs an app.
pub struct Command {
    /// What a shell is given, without the app's own arguments.
    pub text: String,
    /// The app's own arguments.
    pub arguments: Vec<String>,
    /// What must lie in a release, by its whole path in the clone.
    pub needs: Vec<PathBuf>,
    /// The program that runs it, by its name.
    pub program: String,
}

impl Command {
    /// What runs this app in this directory of the clone.
    pub fn of(
        entry: &Entry,
        app: &str,
        directory: &Path,
        place: &Place,
        owner: &Account,
        notes: &mut Notes,
    ) -> Command {
        if entry.is_for_a_shell() {
            let program = entry.script().split(' ').next().unwrap_or_default().to_owned();
            return Command { text: entry.script().to_owned(), arguments: Vec::new(), needs: Vec::new(), program };
        }
        let mut making = Making { app, directory, place, owner, notes, needs: Vec::new() };
        let words = making.words(entry);
        let program = words.first().map(|word| word.trim_matches('\'').to_owned()).unwrap_or_default();
        let theirs = entry.words("args");
        let arguments = theirs.iter().map(|word| making.argument(word)).collect();
        let jar = theirs.iter().skip_while(|word| *word != "-jar").nth(1);
        making.needs.extend(jar.map(|jar| place.here(jar, directory)).filter(|jar| jar.starts_with(&place.root)));
        let needs = making.needs;
        Command { text: format!("exec {}", words.join(" ")), arguments, needs, program }
    }

    /// All of it, in one line for a shell.
    pub fn whole(&self) -> String {
        let words = std::iter::once(self.text.clone()).chain(self.arguments.iter().map(|word| shell_word(word)));
        words.collect::<Vec<_>>().join(" ")
    }
}

/// A command in the making.
struct Making<'a> {
    app: &'a str,
    directory: &'a Path,
    place: &'a Place,
    owner: &'a Account,
    notes: &'a mut Notes,
    needs: Vec<PathBuf>,
}

impl Making<'_> {
    /// The interpreter, its arguments and the script, each as a shell reads it.
    fn words(&mut self, entry: &Entry) -> Vec<String> {
        let script = entry.script();
        let there = self.place.here(script, self.directory);
        let is_named = INTERPRETERS.iter().any(|(ending, _)| script.ends_with(ending));
        let lies_here = script.contains('/') || is_named || there.is_file();
        let options = self.node_options(entry);
        let interpreter = self.interpreter(entry, script, &there, options.is_empty());
        if lies_here {
            self.needs.extend(there.starts_with(&self.place.root).then_some(there));
            let called = self.called("script", script);
            return match interpreter {
                Some(interpreter) => [vec![interpreter], options, vec![shell_word(&called)]].concat(),
                None if called.contains('/') => vec![shell_word(&called)],
                None => vec![shell_word(&format!("./{called}"))],
            };
        }
        // pm2 looks it up in PATH. What the app's own packages bring goes before what the machine has.
        let of_package = self.of_package(script);
        match interpreter {
            None => vec![shell_word(&of_package.unwrap_or_else(|| script.to_owned()))],
            Some(python) if is_python(&python) && !script.contains('-') => {
                [vec![python], options, vec!["-m".to_owned(), shell_word(script)]].concat()
            }
            Some(interpreter) => {
                let in_path = || format!("\"$(command -v {})\"", shell_word(script));
                let program = of_package.map_or_else(in_path, |program| shell_word(&program));
                [vec![interpreter], options, vec![program]].concat()
            }
        }
    }

    /// What the script is handed to, as a shell reads it; None: it is a program itself.
    fn interpreter(&mut self, entry: &Entry, script: &str, there: &Path, has_no_options: bool) -> Option<String> {
        match entry.text("exec_interpreter") {
            Some("none") => return None,
            Some(named) if !named.is_empty() => return Some(shell_word(&self.named_interpreter(named))),
            _ => {}
        }
        // pnpm's programs there are for a shell.
        if script.contains(OF_PACKAGES) && has_no_options {
            return None;
        }
        let known =
            INTERPRETERS.iter().find(|(ending, _)| script.ends_with(ending)).map(|(_, interpreter)| *interpreter);
        let is_text = || is_text(there) || script.contains("node_modules/");
        known.or_else(|| is_text().then_some("node")).map(str::to_owned)
    }

    fn named_interpreter(&mut self, named: &str) -> String {
        // node@20.1.0: nvm's.
        if let Some((name, version)) = named.split_once('@').filter(|(name, _)| *name == "node") {
            return programs::node(version, self.owner).map_or_else(
                || {
                    let reason = format!("asks for node {version}, which nvm has not here: it is the one in PATH");
                    self.notes.add("interpreter", self.app, &reason);
                    name.to_owned()
                },
                |node| node.display().to_string(),
            );
        }
        if !named.contains('/') {
            return named.to_owned();
        }
        let there = self.place.here(named, self.directory);
        self.needs.extend(there.starts_with(&self.place.root).then_some(there));
        self.place.called(named, self.directory).unwrap_or_else(|outside| outside)
    }

    /// Node's own options, as a shell reads them.
    fn node_options(&mut self, entry: &Entry) -> Vec<String> {
        let mut options = Vec::new();
        for option in entry.words("node_args") {
            let file = option.strip_prefix(ENV_FILE).map(|file| self.place.here(file, self.directory));
            match file.filter(|file| !self.place.has(file)) {
                Some(_) => self.notes.add(
                    "--env-file",
                    self.app,
                    "is left out: the file is not in git; write its lines into the env file",
                ),
                None => options.push(shell_word(&self.argument(&option))),
            }
        }
        options
    }

    /// A path of the file's as it is called in a release.
    fn called(&mut self, key: &str, path: &str) -> String {
        self.place.called(path, self.directory).unwrap_or_else(|outside| {
            self.notes.add(key, self.app, "lies outside of the repository: it is the same for all releases");
            outside
        })
    }

    /// An argument; what lies in the clone is called as in a release.
    fn argument(&self, word: &str) -> String {
        match word.starts_with('/') {
            true => self.place.called(word, self.directory).unwrap_or_else(|_| word.to_owned()),
            false => word.to_owned(),
        }
    }

    /// The program of that name that the packages of the app have installed; None: there is none in the clone.
    fn of_package(&mut self, program: &str) -> Option<String> {
        let above = self.place.upwards(self.directory);
        let found = above.map(|above| above.join(OF_PACKAGES).join(program)).find(|path| path.is_file())?;
        let called = self.place.way(self.directory, &found);
        self.needs.push(found);
        called
    }
}

/// Whether this is a file that is there and no program of the machine's.
fn is_text(path: &Path) -> bool {
    let mut beginning = Vec::new();
    let read = bounded::open(path, Links::Followed).and_then(|file| file.take(LOOKED_AT).read_to_end(&mut beginning));
    read.is_ok() && !beginning.contains(&0)
}

/// Whether an interpreter is Python.
pub fn is_python(interpreter: &str) -> bool {
    interpreter.rsplit('/').next().unwrap_or_default().starts_with("python")
}
