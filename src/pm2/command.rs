//! The shell command that runs an app as pm2 runs its script.

use std::io::Read;
use std::path::Path;

use regex::Regex;

use super::entry::{Entry, PORT_ARGUMENT};
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

/// What runs an app's script in this directory, without its arguments.
pub fn of(entry: &Entry, script: &str, directory: &Path) -> String {
    if entry.is_for_a_shell() {
        return script.to_owned();
    }
    let mut words = match interpreter(entry, script, directory) {
        Some(interpreter) => [vec![interpreter], entry.words("node_args")].concat(),
        None => Vec::new(),
    };
    let lies_here = words.is_empty() && !script.contains('/') && directory.join(script).is_file();
    words.push(if lies_here { format!("./{script}") } else { script.to_owned() });
    format!("exec {}", joined(&words))
}

/// The same with its arguments.
pub fn with_arguments(command: &str, arguments: &[String]) -> String {
    if arguments.is_empty() { command.to_owned() } else { format!("{command} {}", joined(arguments)) }
}

/// A command with $PORT in the place of a port that its arguments tell; None: they tell none.
pub fn with_our_port(command: &str) -> Option<String> {
    let pattern = Regex::new(PORT_ARGUMENT).ok()?;
    pattern.is_match(command).then(|| pattern.replace(command, "${1}${2}$$PORT${4}").into_owned())
}

/// What the script is handed to; None: it is a program itself.
fn interpreter(entry: &Entry, script: &str, directory: &Path) -> Option<String> {
    match entry.text("exec_interpreter") {
        Some("none") => return None,
        // node@20.1.0: nvm's.
        Some(named) if !named.is_empty() => return named.split('@').next().map(str::to_owned),
        _ => {}
    }
    let known = INTERPRETERS.iter().find(|(ending, _)| script.ends_with(ending)).map(|(_, interpreter)| *interpreter);
    known.or_else(|| is_text(&directory.join(script)).then_some("node")).map(str::to_owned)
}

/// Whether this is a file that is there and no program of the machine's.
fn is_text(path: &Path) -> bool {
    let mut beginning = Vec::new();
    let read = bounded::open(path, Links::Followed).and_then(|file| file.take(LOOKED_AT).read_to_end(&mut beginning));
    read.is_ok() && !beginning.contains(&0)
}

fn joined(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| shell_word(word)).collect();
    words.join(" ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_script_is_run_as_pm2_would() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("www"), "#!/usr/bin/env node\n").unwrap();
        std::fs::write(place.path().join("server"), b"\x7fELF\0\0").unwrap();
        for (said, command) in [
            (json!({ "script": "dist/main.js" }), "exec node dist/main.js"),
            (json!({ "script": "a b.js" }), "a b.js"),
            (json!({ "script": "it's.js" }), r"exec node 'it'\''s.js'"),
            (
                json!({ "script": "x.js", "node_args": "--harmony -r dotenv/config" }),
                "exec node --harmony -r dotenv/config x.js",
            ),
            (json!({ "script": "x.js", "interpreter": "/usr/bin/deno" }), "exec /usr/bin/deno x.js"),
            (json!({ "script": "x.js", "interpreter": "node@18.1.0" }), "exec node x.js"),
            (json!({ "script": "job.py" }), "exec python3 job.py"),
            (json!({ "script": "job.sh" }), "exec bash job.sh"),
            (json!({ "script": "npm" }), "exec npm"),
            (json!({ "script": "npm run start:prod" }), "npm run start:prod"),
            (json!({ "script": "www" }), "exec node www"),
            (json!({ "script": "./server" }), "exec ./server"),
            (json!({ "script": "server" }), "exec ./server"),
            (json!({ "script": "server", "exec_interpreter": "none" }), "exec ./server"),
            (json!({ "script": "target/release/server" }), "exec target/release/server"),
        ] {
            let entry = Entry::of(said.clone()).unwrap();
            assert_eq!(of(&entry, entry.script(), place.path()), command, "{said}");
        }
    }

    #[test]
    fn a_port_in_the_arguments_becomes_ours() {
        let ours = |command: &str| with_our_port(command);
        assert_eq!(ours("exec npm start -- --port=3000").unwrap(), "exec npm start -- --port=$PORT");
        assert_eq!(ours("next start -p 3000 -H x").unwrap(), "next start -p $PORT -H x");
        assert_eq!(ours("exec node x.js --port 3000").unwrap(), "exec node x.js --port $PORT");
        assert_eq!(ours("exec node x.js --ports=3000 3000"), None);
        assert_eq!(with_arguments("exec node x.js", &["a b".into(), "$HOME".into()]), "exec node x.js 'a b' '$HOME'");
    }
}
