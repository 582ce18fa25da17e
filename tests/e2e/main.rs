//! Real servers from their first day: installed by the README's lines, deployed to, rebooted, cut from power.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod callers;
#[path = "../load/mod.rs"]
mod load;
mod machine;
mod other_stories;
mod power;
mod pushed;
#[path = "../ran.rs"]
mod ran;
mod server;
mod server_story;
mod several;
#[path = "../webhook.rs"]
#[allow(dead_code)]
mod webhook;

use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};

/// Boot real servers and tell whether they keep what the README promises
#[derive(Parser)]
#[command(name = "e2e")]
struct Arguments {
    /// What to tell [default: all]
    stories: Vec<Story>,
    /// How often the power is cut
    #[arg(long, default_value_t = power::CUTS)]
    cuts: u32,
    /// Said by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Story {
    /// A server's whole life, under systemd
    Server,
    /// A home that nobody may look into, and another low port; from the Debian package
    Closed,
    /// Moved from the direct runner to systemd's, and not back while it runs
    Moved,
    /// Without root, started at boot by cron
    Cron,
    /// Built on the machine, from a clone
    Clone,
    /// Pushes that deploy
    Pushed,
    /// Several processes and workers
    Several,
    /// Power cuts in the middle of deploys
    Power,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("e2e: cannot boot machines: this takes root; sudo -E make e2e");
        return ExitCode::from(2);
    }
    server::dist();
    let all = Story::value_variants();
    let mut told = 0;
    for story in all.iter().filter(|one| arguments.stories.is_empty() || arguments.stories.contains(one)) {
        println!("e2e: {story:?}");
        let began = Instant::now();
        match story {
            Story::Server => server_story::run(),
            Story::Closed => other_stories::closed(),
            Story::Moved => other_stories::moved(),
            Story::Cron => other_stories::by_cron(),
            Story::Clone => other_stories::from_a_clone(),
            Story::Pushed => pushed::run(),
            Story::Several => several::run(),
            Story::Power => power::run(arguments.cuts),
        }
        told += 1;
        println!("e2e: {story:?}: as promised, {:.0} s", began.elapsed().as_secs_f64());
    }
    println!("{told} passed, 0 failed");
    ExitCode::SUCCESS
}
