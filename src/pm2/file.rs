//! Reading an ecosystem file, by the Node that pm2 would read it with.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use super::entry::Entry;
use crate::account::Account;
use crate::app::environment;
use crate::bounded::{self, Links};
use crate::command::{self, Run};
use crate::deadline::Deadline;
use crate::outcome::{Exit, exit_of, usage};

/// What Node runs.
const EVALUATE: &str = include_str!("evaluate.js");
/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What an ecosystem file holds.
pub struct File {
    /// The directory in which it lies, by its real path.
    pub directory: PathBuf,
    /// Its apps, at least one.
    pub entries: Vec<Entry>,
    /// What it has beside its apps.
    pub others: Vec<String>,
}

/// Reads one. The caller has become its user: the file is a program.
pub fn read(file: &Path, owner: &Account) -> Result<File> {
    let cannot = |reason: String| usage(format!("cannot read {}: {reason}", file.display()));
    let path = find(file).map_err(cannot)?;
    let directory = path.parent().unwrap_or(&path);
    let node = command::find("node").with_context(|| format!("cannot read {}", file.display()))?;
    let run = Run::new(&node, [OsStr::new("-e"), OsStr::new(EVALUATE), path.as_os_str()]);
    let run = run.environment(environment::base(owner, directory)).directory(directory);
    let output = run.output(Deadline::after(PATIENCE)).map_err(|error| match exit_of(&error) {
        Exit::TimedOut => error.context(format!("cannot read {}", file.display())),
        _ => cannot(format!("{error:#}")),
    })?;
    let last = output.stdout.lines().last().unwrap_or_default();
    let said =
        serde_json::from_str(last).map_err(|error| cannot(format!("what node says of it is no JSON: {error}")))?;
    let (apps, others) = apps(said);
    let entries: Option<Vec<Entry>> = apps.into_iter().map(Entry::of).collect();
    match entries {
        None => Err(cannot("an app in it has no script".to_owned())),
        Some(entries) if entries.is_empty() => Err(cannot("there is no app in it".to_owned())),
        Some(entries) => Ok(File { directory: directory.to_owned(), entries, others }),
    }
}

/// The file's path, with a directory that no link leads to, if it can be read. Err: why not.
fn find(file: &Path) -> Result<PathBuf, String> {
    match file.extension().and_then(OsStr::to_str) {
        Some("js" | "cjs" | "mjs" | "json") => {}
        Some("yml" | "yaml") => return Err("YAML is not understood; write it as JSON or JavaScript".to_owned()),
        _ => return Err("expected a file that ends in .js, .cjs, .mjs or .json".to_owned()),
    }
    let find = || -> io::Result<PathBuf> {
        let path = std::path::absolute(file)?;
        let directory = fs::canonicalize(path.parent().unwrap_or(Path::new("/")))?;
        Ok(directory.join(path.file_name().unwrap_or_default()))
    };
    let path = find().map_err(|error| error.to_string())?;
    // Node would tell it less plainly, and read from a pipe for ever.
    match fs::metadata(&path).map(|meta| meta.is_file()) {
        Ok(false) => Err("it is no file".to_owned()),
        _ => bounded::open(&path, Links::Followed).map(|_| path).map_err(|error| error.to_string()),
    }
}

/// The apps, and the names of what lies beside them: the file is an object with `apps`, a list of them, or one.
fn apps(said: Value) -> (Vec<Value>, Vec<String>) {
    let listed = |value: Value| if let Value::Array(apps) = value { apps } else { vec![value] };
    match said {
        Value::Object(mut file) if file.contains_key("apps") => {
            let apps = file.remove("apps").map_or_else(Vec::new, listed);
            (apps, names(file))
        }
        said => (listed(said), Vec::new()),
    }
}

fn names(map: Map<String, Value>) -> Vec<String> {
    map.into_iter().map(|(name, _)| name).collect()
}
