//! on-push is killed at each point: what it has answered for is deployed, and what it has not is when it is sent again.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use super::Outcome;
use super::trace::{self, Fault, Point};
use crate::pushed_site::SECTION;
use crate::sample::Share;
use crate::site::{Ran, Sample, Site};
use crate::torture::interrupted::QUICK;
use crate::webhook::github_push;

/// How long the deploy that on-push has started may take. Of what git fetches it waits until it is on the disk.
const PATIENCE: Duration = Duration::from_secs(60);

/// Kills on-push before each system call that changes something.
pub fn killed(share: Share) -> Outcome {
    let site = Site::new(Sample::Static, &format!("{QUICK}{SECTION}"));
    site.run("deploy", &[]).ok();
    let log = site.directory.path().join("trace");
    let mut number = 2;
    tell_of(&site, number);
    let (ran, points) = trace::points(on_push(&site), &log);
    assert_eq!(ran.code, 0, "{ran:?}");
    has_come(&site, number).unwrap();
    assert!(points.len() > 5, "{points:?}");
    let mut outcome = Outcome::of("on-push KILL");
    for point in share.of(points.iter().collect()) {
        number += 1;
        outcome.faults += 1;
        if let Err(reason) = one(&site, number, point) {
            outcome.failures.push(format!("at {} {}: {reason}", point.call, point.nth));
        }
    }
    outcome
}

/// Has a version pushed, and its webhook's request ready.
fn tell_of(site: &Site, number: usize) {
    let commit = site.commit(&format!("v{number}"), "");
    let request = github_push(&site.webhook_secret(), &commit, &commit);
    fs::write(site.directory.path().join("request"), request).unwrap();
}

/// on-push, with that request on its stdin.
fn on_push(site: &Site) -> Command {
    let mut command = site.command("/bin/sh".as_ref());
    command.args(["-c", "exec \"$0\" <\"$1\""]).arg(site.home.join("bin/on-push"));
    command.arg(site.directory.path().join("request"));
    command
}

fn one(site: &Site, number: usize, point: &Point) -> Result<(), String> {
    tell_of(site, number);
    let ran = trace::disturbed(on_push(site), &site.directory.path().join("trace"), point, Fault::Signal("KILL"));
    if ran.stdout.contains("HTTP/1.1 202 ") {
        // As bootup does, or the next push.
        site.run("deploy", &["--queued"]).ok();
    } else {
        let again = Ran::of(&on_push(site).output().unwrap());
        if again.code != 0 {
            return Err(format!("sent again, it was not taken: {again:?}"));
        }
    }
    has_come(site, number)
}

/// The version serves, and nothing is left in the queue.
fn has_come(site: &Site, number: usize) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    while !(site.has_worked_off() && site.get("/").1 == format!("v{number}\n")) {
        if Instant::now() > deadline {
            let log = fs::read_to_string(site.home.join("logs/push.log")).unwrap_or_default();
            return Err(format!("v{number} does not serve: {}, {log}", site.status()));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
