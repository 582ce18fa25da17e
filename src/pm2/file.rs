//! Reading an ecosystem file, by the Node that pm2 would read it with.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use super::entry::{self, Entry};
use super::programs;
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
    /// Where it lies, in a directory by its real path.
    pub path: PathBuf,
    /// Its apps; none only where it has static sites.
    pub entries: Vec<Entry>,
    /// The static sites that pm2 would serve by itself, by their names.
    pub sites: Vec<String>,
    /// What it has beside its apps.
    pub others: Map<String, Value>,
    /// The environments that its apps have besides the usual one, where none was chosen.
    pub environments: Vec<String>,
}

/// Reads one, for this environment of pm2's. The caller has become its user: the file is a program.
pub fn read(file: &Path, environment: Option<&str>, owner: &Account) -> Result<File> {
    let cannot = |reason: String| usage(format!("cannot read {}: {reason}", file.display()));
    let path = find(file).map_err(cannot)?;
    let directory = path.parent().unwrap_or(&path);
    let node = command::find("node").or_else(|error| programs::at_home("node", owner).ok_or(error));
    let node = node.with_context(|| format!("cannot read {}", file.display()))?;
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
    let sites = sites(others.get("static"));
    let of_deploys = environment.and_then(|name| others.get("deploy")?.get(name)?.get("env")?.as_object());
    let is_there = |name: &&str| apps.iter().any(|app| app.get(format!("env_{name}")).is_some());
    let no_environment = environment.filter(|name| of_deploys.is_none() && !is_there(name));
    let entries: Option<Vec<Entry>> =
        apps.into_iter().map(|app| Entry::of(with_variables(app, of_deploys), environment)).collect();
    let entries = match entries {
        None => return Err(cannot("an app in it has no script".to_owned())),
        Some(entries) if entries.is_empty() && sites.is_empty() => {
            return Err(cannot("there is no app in it".to_owned()));
        }
        Some(entries) => entries,
    };
    let mut environments: Vec<String> = entries.iter().flat_map(Entry::environments).map(str::to_owned).collect();
    environments.sort();
    environments.dedup();
    if let Some(name) = no_environment {
        let others = if environments.is_empty() { "no other than env".to_owned() } else { environments.join(", ") };
        return Err(cannot(format!("it has no env_{name}; --env takes {others}")));
    }
    environments.retain(|_| environment.is_none());
    Ok(File { path, entries, sites, others, environments })
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

/// The apps, and what lies beside them: the file is an object with `apps` or `pm2`, a list of them, or one.
fn apps(said: Value) -> (Vec<Value>, Map<String, Value>) {
    let listed = |value: Value| if let Value::Array(apps) = value { apps } else { vec![value] };
    match said {
        Value::Object(mut file) => match ["apps", "pm2"].into_iter().find_map(|key| file.remove(key)) {
            Some(apps) => (listed(apps), file),
            None if file.contains_key("static") => (Vec::new(), file),
            None => (vec![file.into()], Map::new()),
        },
        said => (listed(said), Map::new()),
    }
}

/// An app with these variables below its own.
fn with_variables(mut app: Value, variables: Option<&Map<String, Value>>) -> Value {
    if let (Some(variables), Some(app)) = (variables, app.as_object_mut()) {
        let mut all = variables.clone();
        all.extend(app.remove("env").and_then(|env| env.as_object().cloned()).unwrap_or_default());
        app.insert("env".to_owned(), all.into());
    }
    app
}

/// What pm2 calls the static sites that a file lists.
fn sites(listed: Option<&Value>) -> Vec<String> {
    let text = |site: &Value, key: &str| site.get(key).map(entry::plain);
    let name = |site: &Value| {
        text(site, "name").unwrap_or_else(|| format!("static-page-server-{}", text(site, "port").unwrap_or_default()))
    };
    listed.and_then(Value::as_array).into_iter().flatten().map(name).collect()
}
