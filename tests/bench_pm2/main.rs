//! Side by side with pm2: the same app under the same load in one run, in turns, so that what else the machine does falls
//! on both alike. It prints a table and fails when cutover does not keep what it promises; pm2 is measured, not judged.
#![allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::string_slice,
    clippy::unwrap_used
)]

mod event;
mod keeper;
#[path = "../load/mod.rs"]
mod load;
#[path = "../bench/memory.rs"]
mod memory;
mod pm2;
#[path = "../bench/promises.rs"]
mod promises;
#[path = "../ran.rs"]
mod ran;
#[path = "../bench/reload.rs"]
#[allow(dead_code)]
mod reload;
mod side;
#[path = "../site.rs"]
#[allow(dead_code)]
mod site;
mod still;
mod table;
#[path = "../bench/tally.rs"]
#[allow(dead_code)]
mod tally;
#[path = "../bench/timing.rs"]
#[allow(dead_code)]
mod timing;
mod versions;

use std::process::ExitCode;

use clap::Parser;

use keeper::Keeper;
use pm2::Pm2;
use promises::Promises;
use reload::Reload;
use side::Side;
use site::Site;
use still::{Looks, Memory};
use table::Table;

/// How many processes the app has on either side.
const PROCESSES: u16 = 2;
/// How often the tools that only tell something run in each round.
const LOOKS: u64 = 4;

/// Measure cutover beside pm2, and fail when cutover does not keep what it promises
#[derive(Parser)]
#[command(name = "bench-pm2")]
struct Arguments {
    /// How often everything is done
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    rounds: u64,
    /// Said by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let Arguments { rounds, .. } = Arguments::parse();
    if !Pm2::installed().exists() {
        eprintln!("bench-pm2: cannot find {}: make bench-pm2 installs it", Pm2::installed().display());
        return ExitCode::from(2);
    }

    note("starting both");
    let (site, pm2) = (keeper::cutover(), Pm2::start());
    let mut promises = Promises::default();
    let table = measure(&site, &pm2, rounds, &mut promises);
    println!("{}\n\n{table}\n{promises}", versions::in_words(&pm2, rounds));
    if promises.all_kept() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn measure(site: &Site, pm2: &Pm2, rounds: u64, promises: &mut Promises) -> Table {
    let front = Reload::before(site, pm2.address().port());
    let mut sides = [
        Side::new("cutover", site.address(), site),
        Side::new("pm2", pm2.address(), pm2),
        Side::new("pm2 behind nginx", front.address(), pm2),
    ];
    for round in 1..=rounds {
        sides.iter_mut().for_each(|side| side.round(round));
    }
    let ours = &sides[0];
    for lost in [&ours.released, &ours.broken].into_iter().flat_map(|event| event.quoted()) {
        note(&format!("cutover lost a request: {lost}"));
    }

    note("without a load");
    // The instance whose turn it was has the broken release: with this one both are up again.
    for keeper in [site as &dyn Keeper, pm2] {
        keeper.release("last", "").ok();
    }
    let mut table = Table::new(&sides);
    table.losses(&sides, promises);
    table.looks(&Looks::take(site, pm2, rounds * LOOKS), promises);
    remembered(site, pm2, &mut table, promises);
    table
}

/// The memory of what stays running.
fn remembered(site: &Site, pm2: &Pm2, table: &mut Table, promises: &mut Promises) {
    let (ours, theirs) = (Memory::of_cutover(site), Memory::of_pm2(pm2));
    let verdict = promises.judge("cutover needs less memory than pm2's daemon", ours.resident < theirs.resident);
    table.memory("resident memory of what keeps the app running", &ours, &theirs, &format!("less: {verdict}"));
    table.nginx(&Memory::of_nginx(site));
    table.memory("resident memory of the app", &Memory::of_both_instances(site), &Memory::of_workers(pm2), "");
}

/// Says what is being measured, for who watches.
fn note(words: &str) {
    eprintln!("bench-pm2: {words}");
}
