//! A small share of the torture: `make torture` tries every point.

use crate::pushed_site::SECTION;
use crate::sample::Share;
use crate::site::{Sample, Site, built};
use crate::torture::crashed::{self, VICTIMS};
use crate::torture::disk::{self, TROUBLES};
use crate::torture::interrupted::{QUICK, SUBJECTS, disturb, nginx_could_start};
use crate::torture::laid::{self, Work};
use crate::torture::trace::{Point, disturbed};
use crate::torture::{Fault, Outcome, pushed};

/// So many points, always the same ones.
fn sample(count: usize) -> Share {
    Share::Sample { count, seed: 0 }
}

#[track_caller]
fn held(outcome: &Outcome) {
    assert!(outcome.has_held(), "{outcome:#?}");
    println!("{}: {} tried, {} requests, {} lost", outcome.what, outcome.faults, outcome.requests, outcome.lost);
}

/// Disturbs each of these tools once by this fault; the gate and `make proofs` do so at more points, and by more faults.
#[track_caller]
fn few(fault: Fault, is_one: fn(&str) -> bool) {
    let is_signal = matches!(fault, Fault::Signal(_));
    let subjects = SUBJECTS.iter().filter(|subject| is_signal || subject.is_tried_again);
    subjects
        .filter(|subject| !subject.goes_back() && is_one(subject.tool))
        .for_each(|subject| held(&disturb(subject, subject.faults(&[fault]), sample(1))));
}

fn deploys(tool: &str) -> bool {
    tool.starts_with("deploy")
}

#[test]
fn deploys_that_are_killed_leave_the_service_up_and_are_finished_by_the_next_run() {
    few(Fault::Signal("KILL"), deploys);
}

#[test]
fn tools_that_are_killed_leave_the_service_up_and_are_finished_by_the_next_run() {
    few(Fault::Signal("KILL"), |tool| !deploys(tool));
}

#[test]
fn deploys_that_a_disk_fails_say_so_and_leave_the_service_up() {
    few(Fault::Error("ENOSPC"), deploys);
}

#[test]
fn tools_that_a_disk_fails_say_so_and_leave_the_service_up() {
    few(Fault::Error("ENOSPC"), |tool| !deploys(tool));
}

/// Disturbs the ways back of tools at a few points.
#[track_caller]
fn ways_back(fault: Fault, count: usize) {
    let subjects = SUBJECTS.iter().filter(|subject| subject.goes_back());
    subjects.for_each(|subject| held(&disturb(subject, subject.faults(&[fault]), sample(count))));
}

#[test]
fn a_way_back_that_is_killed_leaves_the_service_up_and_is_finished_by_the_next_run() {
    ways_back(Fault::Signal("KILL"), 2);
}

#[test]
fn a_way_back_that_a_disk_fails_says_what_serves() {
    ways_back(Fault::Error("EIO"), 2);
}

#[test]
fn a_push_that_was_answered_is_deployed_whenever_on_push_is_killed() {
    held(&pushed::killed(sample(12)));
}

#[test]
fn an_installation_that_is_interrupted_is_finished_by_the_next_and_so_is_its_removal() {
    for work in [Work::FirstInstall, Work::Remove] {
        held(&laid::disturb(work, Fault::Signal("KILL"), sample(3)));
    }
}

/// The zone of the webhook and what counts in it lie in two files.
#[test]
fn nginx_could_start_wherever_an_install_with_a_webhook_or_without_it_is_killed() {
    let site = Site::new(Sample::Static, QUICK);
    for [before, wanted] in [["", SECTION], [SECTION, ""]] {
        for nth in 1.. {
            site.write_config(&format!("{QUICK}{before}"));
            site.install(&[]).ok();
            site.write_config(&format!("{QUICK}{wanted}"));
            let mut install = site.command(&built().join("install"));
            install.arg("--config").arg(site.config()).arg("--home").arg(&site.home);
            let point = Point { call: "rename".to_owned(), nth };
            let ran = disturbed(install, &site.directory.path().join("trace"), &point, Fault::Signal("KILL"));
            assert_eq!(nginx_could_start(&site), Ok(()), "{before:?} to {wanted:?}, rename {nth}");
            if ran.code == 0 {
                assert!(nth > 3, "it was not killed at all");
                break;
            }
        }
    }
}

#[test]
fn whoever_keeps_an_instance_running_may_be_killed() {
    VICTIMS.into_iter().for_each(|victims| held(&crashed::killed(victims, 1)));
}

#[test]
fn a_disk_that_goes_bad_costs_no_request() {
    for trouble in TROUBLES {
        disk::goes_bad(trouble).iter().for_each(held);
    }
}
