//! Real servers from their first day: installed by docs/install.md, deployed to, rebooted, cut from power.
#![allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::string_slice,
    clippy::unwrap_used
)]

mod callers;
#[path = "../env_lines.rs"]
mod env_lines;
#[path = "../load/mod.rs"]
mod load;
mod machine;
mod other_stories;
mod power;
mod pushed;
#[path = "../ran.rs"]
mod ran;
#[path = "../sample.rs"]
mod sample;
mod server;
mod server_story;
mod several;
mod upgraded;
#[path = "../webhook.rs"]
#[allow(dead_code)]
mod webhook;

use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, ValueEnum};

use machine::Debian;
use sample::{Random, any_seed};

/// Boot real servers and tell whether they keep what the README promises
#[derive(Parser)]
#[command(name = "e2e")]
struct Arguments {
    /// What to tell [default: all]
    stories: Vec<Story>,
    /// On this release of Debian only; may be repeated [default: on each]
    #[arg(long = "host")]
    hosts: Vec<Debian>,
    /// How often the power is cut
    #[arg(long, default_value_t = power::CUTS)]
    cuts: u32,
    /// The server's story, and only so many of the others
    #[arg(long)]
    sample: Option<usize>,
    /// What chooses these, and when the power is cut; the same one chooses the same [default: another one each time]
    #[arg(long)]
    seed: Option<u64>,
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
    /// From one release of Debian to the next under load
    Upgraded,
}

impl Arguments {
    /// What is told on which host, in the order in which it is.
    fn stories(&self, seed: u64) -> Vec<(Story, Debian)> {
        let hosts = Debian::value_variants().iter().copied();
        let hosts: Vec<Debian> = hosts.filter(|one| self.hosts.is_empty() || self.hosts.contains(one)).collect();
        let stories = Story::value_variants().iter().copied();
        let stories = stories.filter(|one| self.stories.is_empty() || self.stories.contains(one));
        let all = stories.flat_map(|story| hosts.iter().map(move |host| (story, *host)));
        // The upgrade ends where there is none further.
        let all = all.filter(|told| *told != (Story::Upgraded, Debian::Trixie));
        let Some(count) = self.sample else { return all.collect() };
        let (servers, others): (Vec<_>, Vec<_>) = all.partition(|(story, _)| *story == Story::Server);
        servers.into_iter().chain(Random::of(seed).shuffled(others).into_iter().take(count)).collect()
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !nix::unistd::Uid::effective().is_root() {
        eprintln!("e2e: cannot boot machines: this takes root; sudo -E make e2e");
        return ExitCode::from(2);
    }
    machine::seclude_mounts();
    let seed = arguments.seed.unwrap_or_else(any_seed);
    let stories = arguments.stories(seed);
    println!("e2e: seed {seed}: {stories:?}");
    server::dist();
    let mut told = 0;
    for (story, host) in stories {
        println!("e2e: {story:?} on {host:?}");
        let began = Instant::now();
        match story {
            Story::Server => server_story::run(host),
            Story::Closed => other_stories::closed(host),
            Story::Moved => other_stories::moved(host),
            Story::Cron => other_stories::by_cron(host),
            Story::Clone => other_stories::from_a_clone(host),
            Story::Pushed => pushed::run(host),
            Story::Several => several::run(host),
            Story::Power => power::run(host, arguments.cuts, seed),
            Story::Upgraded => upgraded::run(host),
        }
        told += 1;
        println!("e2e: {story:?} on {host:?}: as promised, {:.0} s", began.elapsed().as_secs_f64());
    }
    println!("{told} passed, 0 failed");
    ExitCode::SUCCESS
}
