//! One app of an ecosystem file, under pm2's own names of its keys, whatever alias and type they were written with.

use regex::Regex;
use serde_json::{Map, Value};

use super::{keys, port};

/// What pm2 calls its own server of static files, as a script.
const STATIC_SERVER: &str = "serve";
/// Programs that serve HTTP, whatever else is known of them.
const SERVERS: [&str; 14] = [
    "daphne",
    "gunicorn",
    "http-server",
    "hypercorn",
    "next",
    "nuxt",
    "puma",
    "rails",
    "serve",
    "streamlit",
    "uvicorn",
    "uwsgi",
    "vite",
    "waitress-serve",
];
/// The words of a text, as pm2 splits it: what is quoted is one, and so is `name="with spaces"`.
const WORDS: &str = r#"([\w-]+="[^"]*"|[\w-]+='[^']*')|"([^"]*)"|'([^']*)'|(\S+)"#;

/// An app.
pub struct Entry {
    settings: Map<String, Value>,
}

/// How many processes pm2 runs of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instances {
    /// So many.
    Number(usize),
    /// One for each processor.
    Max,
    /// So many less.
    MaxBut(usize),
}

impl Entry {
    /// The app that this says; None: it says none that could be run. With an environment, its variables are `env_NAME`'s on top
    /// of `env`'s, as pm2 has them with `--env NAME`.
    pub fn of(said: Value, environment: Option<&str>) -> Option<Entry> {
        let Value::Object(said) = said else { return None };
        let mut settings = Map::new();
        for (key, value) in said.into_iter().filter(|(_, value)| !value.is_null()) {
            settings.entry(keys::own_name(&key)).or_insert(value);
        }
        let mut entry = Entry { settings };
        entry.text("script").filter(|script| !script.trim().is_empty())?;
        if let Some(Value::Object(chosen)) = environment.and_then(|name| entry.settings.remove(&format!("env_{name}")))
        {
            let mut variables =
                entry.settings.remove("env").and_then(|env| env.as_object().cloned()).unwrap_or_default();
            variables.extend(chosen);
            entry.settings.insert("env".to_owned(), variables.into());
        }
        Some(entry)
    }

    /// The names of the environments that it has besides its usual one.
    pub fn environments(&self) -> impl Iterator<Item = &str> {
        self.settings.keys().filter_map(|key| key.strip_prefix("env_").filter(|name| *name != "file"))
    }

    /// Whether it is pm2's own server of static files.
    pub fn is_static(&self) -> bool {
        self.script() == STATIC_SERVER
    }

    /// What is set.
    pub fn settings(&self) -> &Map<String, Value> {
        &self.settings
    }

    /// A text; None: there is none.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.settings.get(key)?.as_str()
    }

    /// A number, which may be written as a text.
    pub fn number(&self, key: &str) -> Option<i64> {
        let value = self.settings.get(key)?;
        let written = value.as_str().and_then(|text| text.trim().parse().ok());
        // Milliseconds that were computed may have a fraction.
        value.as_f64().map(|number| number as i64).or(written)
    }

    /// Words, written as a list or as a text.
    pub fn words(&self, key: &str) -> Vec<String> {
        match self.settings.get(key) {
            Some(Value::Array(words)) => words.iter().map(plain).collect(),
            Some(Value::String(text)) => split(text),
            _ => Vec::new(),
        }
    }

    /// Variables, in the file's order.
    pub fn variables(&self, key: &str) -> impl Iterator<Item = (&String, &Value)> {
        self.settings.get(key).and_then(Value::as_object).into_iter().flatten()
    }

    /// What runs.
    pub fn script(&self) -> &str {
        self.text("script").unwrap_or_default().trim()
    }

    /// Whether a shell runs the script: pm2 gives it one when there is a space in it, and then no arguments.
    pub fn is_for_a_shell(&self) -> bool {
        self.script().contains(' ')
    }

    /// What pm2 calls the app: by default the script's name without its extension.
    pub fn name(&self) -> String {
        let file = self.script().rsplit('/').next().unwrap_or_default();
        let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
        self.settings.get("name").map(plain).filter(|name| !name.is_empty()).unwrap_or_else(|| stem.to_owned())
    }

    /// How many processes of it run.
    pub fn instances(&self) -> Instances {
        match (self.text("instances"), self.number("instances")) {
            (_, Some(number @ 1..)) => Instances::Number(number as usize),
            (_, Some(number @ ..0)) => Instances::MaxBut(number.unsigned_abs() as usize),
            (_, Some(0)) | (Some(_), None) => Instances::Max,
            (None, None) => Instances::Number(1),
        }
    }

    /// Whether pm2 starts it again when it ends.
    pub fn is_kept_running(&self) -> bool {
        self.settings.get("autorestart") != Some(&Value::Bool(false))
    }

    /// Whether it looks as if it served HTTP: what pm2 shares a port among, waits for, or tells a port, and servers by their names.
    pub fn seems_to_serve(&self) -> bool {
        // Several processes share a port, unless they are told apart.
        let shares =
            self.text("exec_mode").map_or(self.instances() != Instances::Number(1), |mode| mode.starts_with("cluster"));
        let waits = self.settings.get("wait_ready") == Some(&Value::Bool(true));
        let has_port = |key: &String| {
            key.starts_with("env") && self.variables(key).any(|(name, value)| port::is_told_by(name, value))
        };
        let mut words = vec![self.script().to_owned()];
        words.extend(self.words("args"));
        let programs = words.iter().take(2).map(|word| word.rsplit('/').next().unwrap_or_default());
        shares
            || waits
            || self.settings.contains_key("port")
            || self.settings.keys().any(has_port)
            || programs.into_iter().any(|program| SERVERS.contains(&program))
            || port::of_command(&words.join(" ")).is_some()
    }
}

/// A value as an argument or a variable has it.
pub fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn split(text: &str) -> Vec<String> {
    let Ok(pattern) = Regex::new(WORDS) else { return Vec::new() };
    let word = |found: regex::Captures| found.iter().skip(1).flatten().next().map(|word| word.as_str().to_owned());
    pattern.captures_iter(text).filter_map(word).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(mut said: Value) -> Entry {
        said["script"] = "app.js".into();
        Entry::of(said, None).unwrap()
    }

    #[test]
    fn words_are_split_as_pm2_splits_them() {
        let words = |args: &str| entry(json!({ "args": args })).words("args");
        assert_eq!(words("  -a 13\t--b 'c d' \"e  f\" "), ["-a", "13", "--b", "c d", "e  f"]);
        assert_eq!(words("--name=\"a b\" x"), ["--name=\"a b\"", "x"]);
        assert_eq!(entry(json!({ "args": ["a b", 3000, true] })).words("args"), ["a b", "3000", "true"]);
        assert_eq!(words(""), Vec::<String>::new());
    }

    #[test]
    fn instances_may_be_counted_from_either_end() {
        let instances = |count: Value| entry(json!({ "instances": count })).instances();
        for all in [json!("max"), json!(0), json!("0"), json!("all")] {
            assert_eq!(instances(all), Instances::Max);
        }
        assert_eq!(instances(json!(-1)), Instances::MaxBut(1));
        assert_eq!([instances(json!(4)), instances(json!("4"))], [Instances::Number(4); 2]);
        assert_eq!([instances(json!(1)), entry(json!({})).instances()], [Instances::Number(1); 2]);
    }

    #[test]
    fn what_serves_is_known_by_its_mode_its_processes_its_readiness_or_its_port() {
        for serving in [
            json!({ "exec_mode": "cluster_mode" }),
            json!({ "execMode": "cluster" }),
            json!({ "instances": "max" }),
            json!({ "instances": 2 }),
            json!({ "wait_ready": true }),
            json!({ "env": { "PORT": 3000 } }),
            json!({ "env_production": { "PORT": 3000 } }),
            json!({ "port": 3000 }),
            json!({ "args": "--port=3000" }),
            json!({ "args": ["start", "-p", "3000"] }),
            json!({ "args": "-w 2 -b 0.0.0.0:8000" }),
            json!({ "env": { "NITRO_PORT": 3000 } }),
            json!({ "args": "serve -s build" }),
        ] {
            assert!(entry(serving.clone()).seems_to_serve(), "{serving}");
        }
        for other in [
            json!({}),
            json!({ "instances": 1, "wait_ready": false }),
            json!({ "instances": 4, "exec_mode": "fork" }),
            json!({ "args": ["10.0.0.1", "9001"] }),
            json!({ "args": "--ports 3000" }),
            json!({ "env": { "PORTAL": "x", "REDIS_PORT": 6379 } }),
        ] {
            assert!(!entry(other.clone()).seems_to_serve(), "{other}");
        }
    }
}
