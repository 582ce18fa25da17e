//! What keeps an instance running is killed: its supervise, its leash, the app, all at once.

use cutover::process::{Pid, Process};
use nix::sys::signal::Signal;

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
        let killed: Vec<_> =
            victims(&site, "B").into_iter().filter_map(|pid| Process::with_pid(Pid::from_raw(pid))).collect();
        killed.iter().for_each(|victim| victim.signal(Signal::SIGKILL).unwrap());
        eventually("they have ended", || !killed.iter().any(|victim| victim.is_alive()));
        let mut after = no_orphans(&site);
        let started = site.run("start-instance", &["B"]);
        if started.code != 0 {
            after = after.and(Err(format!("{started:?}")));
            site.run("start-instance", &["B"]).ok();
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
