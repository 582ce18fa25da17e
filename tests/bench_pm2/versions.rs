//! What was measured, of which version, when and on what.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use crate::pm2::Pm2;
use crate::ran::Ran;

/// All of it in a line.
pub fn in_words(pm2: &Pm2, rounds: u64) -> String {
    let day = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!(
        "{}: cutover {}, pm2 {}, Node {}, {}, Linux {}, {cores} processors, rounds: {rounds}",
        day.split('T').next().unwrap_or_default(),
        env!("CARGO_PKG_VERSION"),
        said(pm2.command(&["--version"])),
        said(program("node", "--version")),
        said(program("nginx", "-v")),
        said(program("uname", "-r")),
    )
}

fn program(name: &str, argument: &str) -> Command {
    let mut command = Command::new(cutover::command::find(name).unwrap_or(Path::new(name).to_owned()));
    command.arg(argument);
    command
}

/// The last line of what a program says of itself; nginx says it on standard error.
fn said(mut command: Command) -> String {
    let ran = Ran::run(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let all = format!("{}{}", ran.stdout, ran.stderr);
    all.lines().last().unwrap_or_default().trim_start_matches("nginx version: ").to_owned()
}
