//! What is read from shell commands: those of package.json, of pm2's deploys, and our own.

use std::path::Path;

use serde_json::Value;

use super::port;
use crate::bounded::{self, Links};

/// Programs that run a script of package.json by its name.
const RUNNERS: [&str; 4] = ["npm", "yarn", "pnpm", "bun"];
/// What commands of a deploy begin with that a deploy of ours does by itself, or that set up what it has anyway.
const USUAL: [&str; 22] = [
    "pm2",
    "npx pm2",
    "git",
    "cd",
    "source",
    ".",
    "export",
    "echo",
    "nvm",
    "npm install",
    "npm i",
    "npm ci",
    "npm run build",
    "yarn",
    "yarn install",
    "yarn build",
    "pnpm install",
    "pnpm i",
    "pnpm build",
    "pnpm run build",
    "bun install",
    "bun run build",
];

/// The commands in the `post-deploy` of pm2's deploys that neither install, build nor start; empty: there are none.
pub fn besides_builds(deploys: &Value) -> String {
    let deploys = deploys.as_object().into_iter().flat_map(|deploys| deploys.values());
    let texts = deploys.filter_map(|deploy| deploy.get("post-deploy")?.as_str());
    let commands = texts.flat_map(|text| text.split("&&").flat_map(|part| part.split([';', '\n']))).map(str::trim);
    let is_usual = |command: &&str| {
        let words = |count: usize| command.split_whitespace().take(count).collect::<Vec<_>>().join(" ");
        // yarn alone installs, and with another word runs that.
        command.is_empty()
            || *command == "yarn"
            || USUAL
                .iter()
                .any(|usual| *usual != "yarn" && (words(1) == *usual || words(2) == *usual || words(3) == *usual))
    };
    let mut found: Vec<&str> = commands.filter(|command| !is_usual(command)).collect();
    found.dedup();
    found.join(", ")
}

/// The script of a package.json that a command runs and that names a port of its own, and the file it is in; None: there is none.
pub fn on_a_port_of_its_own(command: &str, directory: &Path) -> Option<(String, String)> {
    let words: Vec<&str> = command.split_whitespace().filter(|word| *word != "exec").collect();
    let (runner, rest) = words.split_first()?;
    let script = rest.iter().find(|word| **word != "run" && !word.starts_with('-'))?;
    // What comes behind may name ours.
    let is_plain = RUNNERS.contains(runner) && !command.contains("$PORT");
    let text = bounded::read_text(&directory.join("package.json"), Links::Followed, bounded::LARGE).ok()?;
    let package: Value = serde_json::from_str(&text).ok()?;
    let body = package.get("scripts")?.get(script)?.as_str()?;
    (is_plain && port::of_command(body).is_some()).then(|| (format!("the script {script}"), "package.json".to_owned()))
}

/// The programs that a command of ours begins with, one for each of its steps.
pub fn programs(command: &str) -> impl Iterator<Item = &str> {
    let steps = command.split("&&").map(|step| step.trim().trim_start_matches('('));
    let steps = steps.filter(|step| !step.starts_with("cd ") && !step.starts_with("export "));
    steps
        .filter_map(|step| step.split_whitespace().find(|word| *word != "exec"))
        .filter(|word| !word.contains(['/', '$', '\'', '"']))
}
