//! The text of a configuration that was made from an ecosystem file: TOML, with a word about what its reader must know.

use std::time::Duration;

use serde_json::Value;

use crate::app::config::{Processes, WITHOUT_ROOT};

/// What the configuration says. None: nothing, the default holds; where there is none, it is left open.
#[derive(Default)]
pub struct Draft {
    /// The file that it was made from.
    pub file: String,
    /// The app's name.
    pub app: String,
    /// The repository.
    pub git: Option<String>,
    /// The branch, or the commit where none is checked out.
    pub reference: Option<String>,
    /// What builds a release.
    pub build: Option<String>,
    /// What runs the web app.
    pub command: Option<String>,
    /// How many processes of it.
    pub processes: Processes,
    /// How much memory each may hold, as the configuration writes it.
    pub max_memory: Option<String>,
    /// How long it may take to end.
    pub stop_timeout: Option<Duration>,
    /// How long it may take to start.
    pub start_timeout: Option<Duration>,
    /// Whether the signal that ends it goes to its first process alone.
    pub is_signal_to_main: bool,
    /// The variables that go into the env file.
    pub variables: Vec<String>,
    /// The workers.
    pub workers: Vec<Worker>,
    /// Whether root installs it.
    pub is_roots: bool,
}

/// A worker.
pub struct Worker {
    /// Its name.
    pub name: String,
    /// What runs it.
    pub command: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// How many of it.
    pub count: usize,
    /// How much memory each may hold, as the configuration writes it.
    pub max_memory: Option<String>,
    /// Whether the signal that ends it goes to its first process alone.
    pub is_signal_to_main: bool,
}

impl Draft {
    /// The keys without a default that it leaves open.
    pub fn open(&self) -> Vec<&'static str> {
        let keys = [("git in [source]", self.git.is_none()), ("command in [run]", self.command.is_none())];
        keys.into_iter().filter(|(_, is_open)| *is_open).map(|(key, _)| key).collect()
    }

    /// The text.
    pub fn text(&self) -> String {
        let mut lines = Lines(format!("# Made from pm2's {}; see cutover-config(5)\n", self.file));
        lines.key("app", self.app.as_str(), "");
        lines.heading("[source]");
        lines.required("git", self.git.as_deref(), "the repository that is deployed: a URL, or a path on this host");
        lines.optional("ref", self.reference.as_deref(), "");
        if let Some(build) = &self.build {
            lines.heading("[build]");
            lines.key("command", build.as_str(), "");
        }
        self.add_run(&mut lines);
        lines.heading("[health]");
        lines.key("path", "/", "must answer 2xx once the app can serve; \"\": it is enough that it listens");
        let timeout = self.start_timeout.map(in_words);
        lines.optional("timeout", timeout, "listen_timeout; pm2 goes on then anyway, a deploy fails");
        self.add_nginx(&mut lines);
        self.add_workers(&mut lines);
        lines.0
    }

    fn add_run(&self, lines: &mut Lines) {
        lines.heading("[run]");
        if !self.variables.is_empty() {
            let names = self.variables.join(", ");
            lines.comment(&format!("Into the env file, by you where it is not install --from-pm2: {names}"));
        }
        lines.required("command", self.command.as_deref(), "what runs the web app, on the port in PORT");
        match self.processes {
            Processes::Number(1) => {}
            Processes::Number(number) => lines.key("processes", number, ""),
            Processes::Max => lines.key("processes", "max", ""),
        }
        lines.optional("max_memory", self.max_memory.as_deref(), "");
        lines.key("stop_signal", "SIGINT", "what pm2 sends");
        lines.optional("stop_signal_to", self.is_signal_to_main.then_some("main"), "");
        lines.optional("stop_timeout", self.stop_timeout.map(in_words), "");
    }

    fn add_nginx(&self, lines: &mut Lines) {
        if self.is_roots {
            lines.heading("[nginx]");
            lines.comment("listen = []: with a server block of your own, see cutover-config(5)");
        } else {
            lines.0 += &format!("\n{WITHOUT_ROOT}");
        }
    }

    fn add_workers(&self, lines: &mut Lines) {
        for worker in &self.workers {
            lines.heading("[[worker]]");
            lines.key("name", worker.name.as_str(), "");
            lines.key("command", worker.command.as_str(), "");
            let arguments = Some(worker.arguments.clone()).filter(|arguments| !arguments.is_empty());
            lines.optional("args", arguments, "");
            lines.optional("count", Some(worker.count).filter(|count| *count != 1), "");
            lines.optional("max_memory", worker.max_memory.as_deref(), "");
            lines.optional("stop_signal_to", worker.is_signal_to_main.then_some("main"), "");
        }
    }
}

/// A duration as the configuration writes it.
fn in_words(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// Lines of TOML.
struct Lines(String);

impl Lines {
    fn heading(&mut self, heading: &str) {
        self.0 += &format!("\n{heading}\n");
    }

    fn comment(&mut self, text: &str) {
        self.0 += &format!("# {text}\n");
    }

    /// JSON's strings, numbers and lists of strings are TOML's as well.
    fn key(&mut self, key: &str, value: impl Into<Value>, comment: &str) {
        let comment = if comment.is_empty() { String::new() } else { format!("  # {comment}") };
        self.0 += &format!("{key} = {}{comment}\n", value.into());
    }

    fn optional(&mut self, key: &str, value: Option<impl Into<Value>>, comment: &str) {
        if let Some(value) = value {
            self.key(key, value, comment);
        }
    }

    /// What must be there, or be written there.
    fn required(&mut self, key: &str, value: Option<&str>, meaning: &str) {
        match value {
            Some(value) => self.key(key, value, ""),
            None => self.comment(&format!("{key} = \"…\": {meaning}")),
        }
    }
}
