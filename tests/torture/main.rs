//! The torture: faults of all kinds at every point where they can strike, and one table of what became of them.
#![allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::string_slice,
    clippy::unwrap_used
)]

#[path = "../interrupts.rs"]
mod interrupts;
#[path = "../load/mod.rs"]
mod load;
#[path = "../not_tested.rs"]
mod not_tested;
#[path = "../pushed_site.rs"]
#[allow(dead_code)]
mod pushed_site;
#[path = "../ran.rs"]
mod ran;
#[path = "../sample.rs"]
mod sample;
#[path = "../site.rs"]
#[allow(dead_code)]
mod site;
#[path = "mod.rs"]
mod torture;
#[path = "../webhook.rs"]
#[allow(dead_code)]
mod webhook;

use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use clap::{Parser, ValueEnum};

use sample::{Share, any_seed};
use torture::interrupted::{self, SUBJECTS, Subject};
use torture::laid::{self, Work};
use torture::{Fault, Outcome, crashed, disk, pushed};

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
    /// What chooses these points; the same one chooses the same points [default: another one each time]
    #[arg(long, requires = "sample")]
    seed: Option<u64>,
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

impl Arguments {
    fn share(&self) -> Share {
        self.sample.map_or(Share::All, |count| Share::Sample { count, seed: self.seed.unwrap_or_default() })
    }
}

/// How often what keeps an instance running is killed.
const CRASHES: usize = 20;
/// How many things are tried at the same time: much of it is waiting.
const LANES: usize = 3;

/// What is tried at the same time as others: each thing in a site of its own.
type Job = Box<dyn FnOnce() -> Outcome + Send>;

fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    interrupts::are_heeded();
    if let Some(count) = arguments.sample {
        let seed = *arguments.seed.get_or_insert_with(any_seed);
        println!(
            "torture: {count} points for each tool and fault; the same ones again: --sample {count} --seed {seed}"
        );
    }
    let is_wanted = |section: &Section| arguments.sections.is_empty() || arguments.sections.contains(section);
    let sections: Vec<Section> = Section::value_variants().iter().copied().filter(is_wanted).collect();
    let mut outcomes = side_by_side(sections.iter().flat_map(|section| jobs(&arguments, *section)).collect());
    // Last, for from here on this process sees file systems of its own.
    if sections.contains(&Section::Disk) {
        for trouble in disk::TROUBLES {
            outcomes.extend(disk::goes_bad(trouble));
        }
    }
    print!("{}", table(&outcomes));
    let held = outcomes.iter().all(Outcome::has_held);
    if held && !outcomes.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What there is to do in a section, except with disks.
fn jobs(arguments: &Arguments, section: Section) -> Vec<Job> {
    let share = arguments.share();
    match section {
        Section::Killed => {
            let mut jobs = disturbing(arguments, &[Fault::Signal("KILL"), Fault::Signal("TERM"), Fault::Signal("INT")]);
            if arguments.tool.as_deref().is_none_or(|tool| tool == "on-push") {
                jobs.push(Box::new(move || pushed::killed(share)));
            }
            jobs
        }
        Section::Failed => disturbing(arguments, &[Fault::Error("ENOSPC"), Fault::Error("EIO")]),
        Section::Laid => {
            let faults = [Fault::Signal("KILL"), Fault::Error("ENOSPC")];
            let job = |work, fault| -> Job { Box::new(move || laid::disturb(work, fault, share)) };
            [Work::FirstInstall, Work::Remove].iter().flat_map(|work| faults.map(|fault| job(*work, fault))).collect()
        }
        Section::Crashed => {
            let times = arguments.sample.unwrap_or(CRASHES);
            crashed::VICTIMS.map(|victims| -> Job { Box::new(move || crashed::killed(victims, times)) }).into()
        }
        Section::Disk => Vec::new(),
    }
}

fn disturbing(arguments: &Arguments, faults: &'static [Fault]) -> Vec<Job> {
    let share = arguments.share();
    let wanted = |subject: &&Subject| arguments.tool.as_deref().is_none_or(|tool| tool == subject.tool);
    let is_signal = |fault: &Fault| matches!(fault, Fault::Signal(_));
    let befalls = |subject: &&Subject| subject.is_tried_again || faults.iter().all(is_signal);
    let job = |subject: &'static Subject| -> Job {
        Box::new(move || interrupted::disturb(subject, subject.faults(faults), share))
    };
    SUBJECTS.iter().filter(wanted).filter(befalls).map(job).collect()
}

/// Does jobs, some at a time, and returns what became of them in their order.
fn side_by_side(jobs: Vec<Job>) -> Vec<Outcome> {
    let waiting = Mutex::new(jobs.into_iter().enumerate());
    let ended = Mutex::new(Vec::new());
    let lane = || {
        loop {
            let next = waiting.lock().unwrap().next();
            let Some((at, job)) = next else { return };
            let began = Instant::now();
            let outcome = job();
            let (what, faults, lost) = (&outcome.what, outcome.faults, outcome.lost);
            eprintln!("torture: {what}: {faults} tried, {lost} lost, {}", cutover::output::span(began.elapsed()));
            outcome.failures.iter().for_each(|failure| eprintln!("torture: FAILURE: {failure:.1000}"));
            ended.lock().unwrap().push((at, outcome));
        }
    };
    thread::scope(|scope| (0..LANES).for_each(|_| drop(scope.spawn(lane))));
    let mut ended = ended.into_inner().unwrap();
    ended.sort_by_key(|(at, _)| *at);
    ended.into_iter().map(|(_, outcome)| outcome).collect()
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
