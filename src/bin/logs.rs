//! logs: the instances' output.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use cutover::app::{App, Home, Instance};
use cutover::outcome::{self, Exit};
use cutover::runner::Tail;

/// How often a followed log is looked at.
const POLL: Duration = Duration::from_millis(100);

/// Print the instances' output
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version)]
struct Arguments {
    /// The instance [default: both, each line after its name]
    instance: Option<String>,
    /// Go on printing what is appended, across rotations and deploys
    #[arg(short, long)]
    follow: bool,
    /// Begin this many lines before the end
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 200)]
    lines: usize,
    #[command(flatten)]
    home: Home,
}

fn main() -> ExitCode {
    outcome::main(env!("CARGO_BIN_NAME"), run)
}

fn run(arguments: Arguments) -> Result<Exit> {
    let app = App::open(&arguments.home)?;
    let shown: Vec<&Instance> = match &arguments.instance {
        Some(name) => vec![app.instance(name)?],
        None => app.config.instances.iter().collect(),
    };
    let prefix = |instance: &Instance| if shown.len() > 1 { format!("{instance} | ") } else { String::new() };
    if !arguments.follow {
        for instance in &shown {
            print(&prefix(instance), &Tail::last_lines(&app, instance, arguments.lines)?)?;
        }
        return Ok(Exit::Done);
    }
    let mut followed = Vec::new();
    for instance in &shown {
        let (lines, follower) = Tail::of(&app, instance, arguments.lines)?;
        print(&prefix(instance), &lines)?;
        followed.push((prefix(instance), follower));
    }
    loop {
        std::thread::sleep(POLL);
        for (prefix, follower) in &mut followed {
            print(prefix, &follower.new_lines()?)?;
        }
    }
}

fn print(prefix: &str, lines: &[String]) -> Result<()> {
    let text: String = lines.iter().map(|line| format!("{prefix}{line}\n")).collect();
    if text.is_empty() { Ok(()) } else { outcome::print(&text) }
}
