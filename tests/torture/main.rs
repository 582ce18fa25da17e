//! The torture: faults of all kinds at every point where they can strike, and one table of what became of them.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

#[path = "../load/mod.rs"]
mod load;
#[path = "../pushed_site.rs"]
#[allow(dead_code)]
mod pushed_site;
#[path = "../ran.rs"]
mod ran;
#[path = "../site.rs"]
#[allow(dead_code)]
mod site;
#[path = "mod.rs"]
mod torture;
#[path = "../webhook.rs"]
#[allow(dead_code)]
mod webhook;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use torture::interrupted::{self, SUBJECTS};
use torture::laid::{self, Work};
use torture::{Fault, Outcome, Share, crashed, disk, pushed};

/// Try faults of all kinds, and fail when one is not survived
#[derive(Parser)]
#[command(name = "torture")]
struct Arguments {
    /// What to try [default: all of it]
    sections: Vec<Section>,
    /// Only the tool of this name
    #[arg(long)]
    tool: Option<String>,
    /// Only so many points for each tool and fault
    #[arg(long)]
    sample: Option<usize>,
    /// Said by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    /// Tools that are killed
    Killed,
    /// Tools that a disk fails
    Failed,
    /// A first installation, and its removal, killed and failed
    Laid,
    /// What keeps an instance running is killed
    Crashed,
    /// Disks that are full or read-only
    Disk,
}

/// How often what keeps an instance running is killed.
const CRASHES: usize = 20;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let all = Section::value_variants();
    let mut outcomes = Vec::new();
    for section in all.iter().filter(|one| arguments.sections.is_empty() || arguments.sections.contains(one)) {
        match section {
            Section::Killed => {
                disturb(
                    &arguments,
                    &[Fault::Signal("KILL"), Fault::Signal("TERM"), Fault::Signal("INT")],
                    &mut outcomes,
                );
                if arguments.tool.as_deref().is_none_or(|tool| tool == "on-push") {
                    add(pushed::killed(arguments.sample.map_or(Share::All, Share::Sample)), &mut outcomes);
                }
            }
            Section::Failed => disturb(&arguments, &[Fault::Error("ENOSPC"), Fault::Error("EIO")], &mut outcomes),
            Section::Laid => {
                let share = arguments.sample.map_or(Share::All, Share::Sample);
                for work in [Work::FirstInstall, Work::Remove] {
                    for fault in [Fault::Signal("KILL"), Fault::Error("ENOSPC")] {
                        add(laid::disturb(work, fault, share), &mut outcomes);
                    }
                }
            }
            Section::Crashed => {
                for victims in crashed::VICTIMS {
                    add(crashed::killed(victims, arguments.sample.unwrap_or(CRASHES)), &mut outcomes);
                }
            }
            // Last, for from here on this process sees file systems of its own.
            Section::Disk => {
                for trouble in disk::TROUBLES {
                    match disk::goes_bad(trouble) {
                        Some(outcome) => add(outcome, &mut outcomes),
                        None => eprintln!("NOT TESTED: {trouble:?} disk, for this is not root"),
                    }
                }
            }
        }
    }
    print!("{}", table(&outcomes));
    let held = outcomes.iter().all(Outcome::has_held);
    if held && !outcomes.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn disturb(arguments: &Arguments, faults: &[Fault], outcomes: &mut Vec<Outcome>) {
    let share = arguments.sample.map_or(Share::All, Share::Sample);
    let wanted = |subject: &&interrupted::Subject| arguments.tool.as_deref().is_none_or(|tool| tool == subject.tool);
    let is_signal = |fault: &Fault| matches!(fault, Fault::Signal(_));
    let befalls = |subject: &&interrupted::Subject| subject.is_tried_again || faults.iter().all(is_signal);
    for subject in SUBJECTS.iter().filter(wanted).filter(befalls) {
        eprintln!("torture: {}", subject.tool);
        add(interrupted::disturb(subject, subject.faults(faults), share), outcomes);
    }
}

fn add(outcome: Outcome, outcomes: &mut Vec<Outcome>) {
    eprintln!("torture: {}: {} tried, {} lost", outcome.what, outcome.faults, outcome.lost);
    outcome.failures.iter().for_each(|failure| eprintln!("torture: FAILURE: {failure:.300}"));
    outcomes.push(outcome);
}

fn table(outcomes: &[Outcome]) -> String {
    let heading = ["fault", "tried", "requests", "lost", "state after"].map(str::to_owned).to_vec();
    let rows = outcomes.iter().map(|outcome| {
        let state = match outcome.failures.len() {
            0 => "as promised".to_owned(),
            count => format!("{count} FAILURES"),
        };
        vec![
            outcome.what.clone(),
            outcome.faults.to_string(),
            outcome.requests.to_string(),
            outcome.lost.to_string(),
            state,
        ]
    });
    let total = vec![
        "all".to_owned(),
        outcomes.iter().map(|outcome| outcome.faults).sum::<usize>().to_string(),
        outcomes.iter().map(|outcome| outcome.requests).sum::<u64>().to_string(),
        outcomes.iter().map(|outcome| outcome.lost).sum::<u64>().to_string(),
        String::new(),
    ];
    cutover::output::table(&std::iter::once(heading).chain(rows).chain([total]).collect::<Vec<_>>()) + "\n"
}
