//! The bench: measures what the README promises, prints it as tables, and fails when a promise is not kept.
//!
//! Times say more about the machine than about the tools, so every limit compares two things that were measured in turn
//! in the same run: a tool beside /bin/true, a switch beside a reload, a deploy beside the sum of its parts.
#![allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::string_slice,
    clippy::unwrap_used
)]

mod crash;
mod crowd;
mod deploys;
mod flight;
mod footprint;
mod latency;
#[path = "../load/mod.rs"]
mod load;
mod loss;
mod memory;
mod promises;
#[path = "../pty.rs"]
mod pty;
mod push;
#[path = "../pushed_site.rs"]
#[allow(dead_code)]
mod pushed_site;
#[path = "../ran.rs"]
mod ran;
mod reload;
#[path = "../site.rs"]
#[allow(dead_code)]
mod site;
mod start;
mod tally;
mod timing;
mod watch;
#[path = "../webhook.rs"]
mod webhook;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use promises::Promises;
use site::{Sample, Site};

/// Measure what the README promises, and fail when a promise is not kept
#[derive(Parser)]
#[command(name = "bench")]
struct Arguments {
    /// What to measure [default: all of it]
    sections: Vec<Section>,
    /// Measure a tenth as often: enough to find what is broken, too little to quote
    #[arg(long)]
    quick: bool,
    /// Said by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// What can be measured, in the order in which it is: the load leaves the kernel with many closed connections, which a
/// while later are gone.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    Deploy,
    Crash,
    Footprint,
    Watch,
    Latency,
    Push,
    Loss,
}

/// How often things are measured.
#[derive(Clone, Copy)]
pub struct Scale {
    divisor: u64,
}

impl Scale {
    /// `full`, or a tenth of it.
    pub fn of(self, full: u64) -> u64 {
        full.div_ceil(self.divisor)
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let sample = site::built().join("examples/static-app");
    if !sample.exists() {
        eprintln!("bench: cannot find {}: run cargo build --release --bins --examples first", sample.display());
        return ExitCode::from(2);
    }

    let scale = Scale { divisor: if arguments.quick { 10 } else { 1 } };
    let mut promises = Promises::default();
    let all = Section::value_variants();
    for section in all.iter().filter(|one| arguments.sections.is_empty() || arguments.sections.contains(one)) {
        match section {
            Section::Deploy => deploys::measure(scale, &mut promises),
            Section::Crash => crash::measure(scale, &mut promises),
            Section::Footprint => footprint::measure(&mut promises),
            Section::Watch => watch::measure(scale, &mut promises),
            Section::Latency => latency::measure(scale, &mut promises),
            Section::Push => push::measure(scale, &mut promises),
            Section::Loss => loss::measure(scale, &mut promises),
        }
    }

    print!("{promises}");
    if promises.all_kept() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A site whose two instances both run, A with `v1` and B, the enabled one, with `v2`.
fn warm_site(extra: &str) -> Site {
    let site = Site::new(Sample::Static, extra);
    site.run("deploy", &[]).ok();
    site.commit("v2", "");
    site.run("deploy", &[]).ok();
    site
}

/// Says what is being measured, for who watches.
fn note(words: &str) {
    eprintln!("bench: {words}");
}

/// Prints a table: its title, and rows of which the first is the heading.
fn print_table(title: &str, rows: &[Vec<String>]) {
    print!("\n{title}\n\n{}\n", cutover::output::table(rows));
}

/// A table's row.
fn row<const COLUMNS: usize>(cells: [&str; COLUMNS]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}
