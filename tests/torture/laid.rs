//! `install` on a fresh place, and taking everything away again, disturbed at each point: one place for each.

use std::process::Command;

use super::Outcome;
use super::interrupted::{nginx_could_start, no_orphans, words};
use super::trace::{self, Fault};
use crate::sample::Share;
use crate::site::{Ran, Sample, Site, built};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    FirstInstall,
    Remove,
}

impl Work {
    fn prepared(self) -> Site {
        let site = Site::unlaid(Sample::Static, super::interrupted::QUICK);
        if self == Work::Remove {
            site.install(&[]).ok();
            site.run("deploy", &[]).ok();
        }
        site
    }

    fn command(self, site: &Site) -> Command {
        let mut command = site.command(&built().join("install"));
        command.arg("--config").arg(site.config()).arg("--home").arg(&site.home);
        if self == Work::Remove {
            command.args(["--remove", "--force"]);
        }
        command
    }

    /// What must hold when it is done.
    fn is_done(self, site: &Site) -> Result<(), String> {
        let ran = match self {
            Work::FirstInstall => site.run("deploy", &[]),
            Work::Remove => site.shell(
                "! ls -A .shop | grep -vxE 'releases|instances|hooks|logs|config.toml|env|repo.git|bin|.cutover'",
            ),
        };
        let is_right = match self {
            Work::FirstInstall => site.get("/") == (200, "v1\n".to_owned()),
            Work::Remove => site.processes().is_empty(),
        };
        if ran.code == 0 && is_right { Ok(()) } else { Err(format!("{ran:?}")) }
    }
}

/// Disturbs it in this way, at each point or a share of them.
pub fn disturb(work: Work, fault: Fault, share: Share) -> Outcome {
    let what = if work == Work::Remove { "install --remove" } else { "install, the first" };
    let mut outcome = Outcome::of(format!("{what} {}", words(&[fault])));
    let counted = work.prepared();
    let (ran, points) = trace::points(work.command(&counted), &counted.directory.path().join("trace"));
    assert_eq!(ran.code, 0, "{ran:?}");
    for point in share.of(points.iter().filter(|point| fault.concerns(point)).collect()) {
        outcome.faults += 1;
        let site = work.prepared();
        let disturbed = trace::disturbed(work.command(&site), &site.directory.path().join("trace"), point, fault);
        let could_start = if site.home.join("nginx/nginx.conf").exists() { nginx_could_start(&site) } else { Ok(()) };
        let again = Ran::of(&work.command(&site).output().unwrap());
        let after = match again.code {
            0 => could_start.and_then(|()| work.is_done(&site)).and_then(|()| no_orphans(&site)),
            _ => Err(format!("run again, it ended with {again:?}; before: {disturbed:?}")),
        };
        outcome
            .failures
            .extend(after.err().map(|reason| format!("{fault:?} at {} {}: {reason}", point.call, point.nth)));
    }
    outcome
}
