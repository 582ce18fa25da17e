//! deploy: update the disabled instance, start it, cut over, watch it, and go back when it fails.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::{fs, io};

use anyhow::Result;
use clap::Parser;
use clap::builder::{PathBufValueParser, TypedValueParser};
use cutover::app::{App, Home, Wait};
use cutover::deploying::{self, Attempt};
use cutover::history;
use cutover::outcome::{self, Exit};
use cutover::overview::Overview;
use cutover::source::Wanted;

const TOOL: &str = env!("CARGO_BIN_NAME");

/// Deploy the wanted release: update the disabled instance, start it, cut over, watch it, go back when it fails
#[derive(Parser)]
#[command(name = TOOL, version)]
struct Arguments {
    /// The instance that is to have it [default: the disabled one]; what is current is made again
    #[arg(conflicts_with_all = ["if_new", "queued", "watch", "dry_run"])]
    instance: Option<String>,
    #[command(flatten)]
    wanted: Wanted,
    /// Do nothing, and say nothing, unless the branch has moved since it was deployed last
    #[arg(long, conflicts_with_all = ["from", "again", "dry_run"])]
    if_new: bool,
    /// Deploy what was pushed and waits in the queue, until nothing does
    #[arg(long, conflicts_with_all = ["reference", "from", "again", "if_new", "dry_run", "wait"])]
    queued: bool,
    /// Print the pipeline it would be, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Deploy this directory, and again whenever files in it have changed
    #[arg(long, value_name = "DIR", value_parser = PathBufValueParser::new().try_map(directory),
        conflicts_with_all = ["reference", "from", "again", "if_new", "queued", "dry_run"])]
    watch: Option<PathBuf>,
    #[command(flatten)]
    wait: Wait,
    #[command(flatten)]
    home: Home,
}

fn main() -> ExitCode {
    outcome::main(TOOL, run)
}

fn run(arguments: Arguments) -> Result<Exit> {
    let app = App::open(&arguments.home)?;
    let wanted = arguments.wanted;
    if arguments.dry_run {
        outcome::print(&format!("{}\n", deploying::pipeline(&app, &wanted)?))?;
        return Ok(Exit::Done);
    }
    if arguments.queued {
        return deploying::queue::work_off(TOOL, &app, &arguments.home);
    }
    if let Some(directory) = arguments.watch {
        return deploying::directory::watch(TOOL, &app, &arguments.home, &directory, arguments.wait);
    }
    if !arguments.if_new {
        let instance = arguments.instance.map(|name| app.instance(&name).cloned()).transpose()?;
        let exit = Attempt { instance, ..Attempt::of(TOOL, wanted, arguments.wait) }.make(&app)?;
        // Who sits there wants to see what became of it; that this cannot be told is no failure of the deploy.
        if io::stdout().is_terminal() {
            let _ = Overview::of(&app).and_then(|overview| outcome::print(&overview.table()));
        }
        return Ok(exit);
    }
    let wanted = Wanted { reference: wanted.reference.or(Some(app.pushed_reference())), ..Wanted::default() };
    match history::has_moved(&app, &wanted, TOOL)? {
        true => Attempt { is_for_news: true, ..Attempt::of(TOOL, wanted, arguments.wait) }.make(&app),
        false => Ok(Exit::Done),
    }
}

/// A directory, without symbolic links in its path.
fn directory(path: PathBuf) -> io::Result<PathBuf> {
    let path = fs::canonicalize(path)?;
    if path.is_dir() { Ok(path) } else { Err(io::ErrorKind::NotADirectory.into()) }
}
