//! What keeps an instance running is killed: its supervise, its leash, the app, all at once.

use std::process::Command;

use super::Outcome;
use super::interrupted::{QUICK, no_orphans, one_release_serves};
use crate::load::{Load, Plan};
use crate::site::{Sample, Site, eventually};

/// Who is killed: in words, and the pids.
pub type Victims = (&'static str, fn(&Site, &str) -> Vec<i32>);

/// All of them.
pub const VICTIMS: [Victims; 4] = [
    ("supervise", |site, instance| vec![site.supervise(instance)]),
    ("leash", |site, instance| vec![site.leash(instance)]),
    ("app", |site, instance| vec![site.pid(instance)]),
    ("supervise, leash and app", |site, instance| {
        vec![site.supervise(instance), site.leash(instance), site.pid(instance)]
    }),
];

/// Kills them for the enabled instance under a load of GETs, so often. The standby answers; nothing lingers; the next
/// start works.
pub fn killed((who, victims): Victims, times: usize) -> Outcome {
    let site = Site::new(Sample::Static, QUICK);
    for version in ["v1", "v2"] {
        site.commit(version, "");
        site.run("deploy", &[]).ok();
    }
    let load = Load::start(Plan { kept_alive: 6, fresh: 2, post_share: 0, ..Plan::on(site.address()) });
    let mut outcome = Outcome::of(format!("SIGKILL of the enabled instance's {who}"));
    for _ in 0..times {
        outcome.faults += 1;
        let pids: Vec<String> = victims(&site, "B").iter().map(i32::to_string).collect();
        assert!(Command::new("kill").arg("-9").args(&pids).status().unwrap().success());
        let mut after = no_orphans(&site);
        let started = site.run("start-instance", &["B"]);
        if started.code != 0 {
            after = Err(format!("{started:?}"));
        }
        eventually("B answers for itself", || site.status()["instances"][1]["healthy"] == true);
        after = after.and_then(|()| no_orphans(&site)).and_then(|()| one_release_serves(&site));
        outcome.failures.extend(after.err());
        // Started afresh, so that the pause before its next restart is the first one again.
        site.run("rollback", &[]).ok();
        site.run("stop-instance", &["B"]).ok();
        site.run("rollback", &[]).ok();
    }
    let report = load.stop();
    outcome.requests = report.requests;
    outcome.lost = report.failed();
    outcome.failures.extend(report.quoted());
    outcome
}
