//! logs: what the instances print, what builds do, and what the tools say.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use cutover::app::{App, Home};
use cutover::harmless::Painted;
use cutover::logs::Wanted;
use cutover::outcome::{self, Exit};

/// How often a followed log is looked at.
const POLL: Duration = Duration::from_millis(100);

/// Print what the instances print, what builds do, and what the tools say
#[derive(Parser)]
#[command(name = env!("CARGO_BIN_NAME"), version)]
struct Arguments {
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    home: Home,
}

fn main() -> ExitCode {
    outcome::main(env!("CARGO_BIN_NAME"), run)
}

fn run(arguments: Arguments) -> Result<Exit> {
    let app = App::open(&arguments.home)?;
    let (text, following) = arguments.wanted.begin(&app)?;
    print(&text)?;
    let Some(mut following) = following else { return Ok(Exit::Done) };
    loop {
        std::thread::sleep(POLL);
        print(&following.new_text()?)?;
    }
}

fn print(text: &Painted) -> Result<()> {
    if text.as_str().is_empty() { Ok(()) } else { outcome::print_painted(text) }
}
