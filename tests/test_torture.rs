//! A small share of the torture: `make torture` tries every point.

use crate::torture::crashed::{self, VICTIMS};
use crate::torture::disk::{self, TROUBLES};
use crate::torture::interrupted::{SUBJECTS, disturb};
use crate::torture::laid::{self, Work};
use crate::torture::{Fault, Outcome, Share, pushed};

#[track_caller]
fn held(outcome: &Outcome) {
    assert!(outcome.has_held(), "{outcome:#?}");
    println!("{}: {} tried, {} requests, {} lost", outcome.what, outcome.faults, outcome.requests, outcome.lost);
}

/// Disturbs each tool at a few points.
#[track_caller]
fn few(faults: &[Fault]) {
    let signals = faults.iter().any(|fault| matches!(fault, Fault::Signal(_)));
    let subjects = SUBJECTS.iter().filter(|subject| signals || subject.is_tried_again);
    subjects.for_each(|subject| held(&disturb(subject, subject.faults(faults), Share::Sample(4))));
}

#[test]
fn tools_that_are_killed_leave_the_service_up_and_are_finished_by_the_next_run() {
    few(&[Fault::Signal("KILL"), Fault::Signal("TERM")]);
}

#[test]
fn a_push_that_was_answered_is_deployed_whenever_on_push_is_killed() {
    held(&pushed::killed(Share::Sample(12)));
}

#[test]
fn tools_that_a_disk_fails_say_so_and_leave_the_service_up() {
    few(&[Fault::Error("ENOSPC"), Fault::Error("EIO")]);
}

#[test]
fn an_installation_that_is_interrupted_is_finished_by_the_next_and_so_is_its_removal() {
    for work in [Work::FirstInstall, Work::Remove] {
        held(&laid::disturb(work, Fault::Signal("KILL"), Share::Sample(6)));
    }
}

#[test]
fn whoever_keeps_an_instance_running_may_be_killed() {
    VICTIMS.into_iter().for_each(|victims| held(&crashed::killed(victims, 1)));
}

#[test]
fn a_disk_that_goes_bad_costs_no_request() {
    for trouble in TROUBLES {
        match disk::goes_bad(trouble) {
            Some(outcome) => held(&outcome),
            None => eprintln!("NOT TESTED: {trouble:?} disk, for this is not root"),
        }
    }
}
