//! A small share of the torture: `make torture` tries every point.

use crate::torture::interrupted::{SUBJECTS, disturb};
use crate::torture::{Fault, Share};

/// Disturbs each tool at a few points.
#[track_caller]
fn few(faults: &[Fault]) {
    for subject in &SUBJECTS {
        let outcome = disturb(subject, faults, Share::Sample(5));
        assert!(outcome.has_held(), "{outcome:#?}");
    }
}

#[test]
fn tools_that_are_killed_leave_the_service_up_and_are_finished_by_the_next_run() {
    few(&[Fault::Signal("KILL"), Fault::Signal("TERM")]);
}

#[test]
fn tools_whose_disk_fails_say_so_and_leave_the_service_up() {
    few(&[Fault::Error("ENOSPC"), Fault::Error("EIO")]);
}
