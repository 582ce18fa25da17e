//! What is measured without a load: how soon the tools tell how things are, and the memory of what stays running.

use std::fs;
use std::time::Duration;

use cutover::process::{self, Pid};

use crate::keeper::{Keeper, numbers};
use crate::memory;
use crate::pm2::Pm2;
use crate::site::Site;
use crate::timing::{self, Times};

/// The times of both, taken in turns.
pub struct Looks {
    pub status: Times,
    pub list: Times,
    pub json: Times,
    pub jlist: Times,
}

impl Looks {
    /// Takes this many of each.
    pub fn take(site: &Site, pm2: &Pm2, turns: u64) -> Looks {
        let status = site.home.join("bin/status");
        let mut commands = [
            timing::program(&status, &[]),
            pm2.command(&["list"]),
            timing::program(&status, &["--json"]),
            pm2.command(&["jlist"]),
        ];
        let [status, list, json, jlist] = &mut commands;
        let mut runs = [status, list, json, jlist].map(|command| move || timing::of_process(command));
        let [status, list, json, jlist] =
            timing::in_turns(turns, runs.each_mut().map(|run| run as &mut dyn FnMut() -> Duration));
        Looks { status, list, json, jlist }
    }
}

/// The memory of some processes together, in kB.
pub struct Memory {
    processes: usize,
    /// Resident. What several of them share is counted as often.
    pub resident: u64,
    /// The part of it that they share with nobody.
    own: u64,
}

impl Memory {
    fn of(pids: &[i32]) -> Memory {
        let sum = |line| pids.iter().map(|pid| memory::of(*pid, line)).sum::<u64>();
        Memory { processes: pids.len(), resident: sum("Rss:"), own: sum("Private_Clean:") + sum("Private_Dirty:") }
    }

    /// As the table shows it.
    pub fn in_words(&self) -> String {
        let mb = |kilobytes: u64| format!("{:.1} MB", kilobytes as f64 / 1e3);
        let (resident, own) = (mb(self.resident), mb(self.own));
        let processes = if self.processes == 1 { "process" } else { "processes" };
        format!("{resident} in {} {processes}, {own} of it not shared", self.processes)
    }

    /// What keeps cutover's site running: supervises and leashes.
    pub fn of_cutover(site: &Site) -> Memory {
        let named = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let is_ours = |pid: &i32| ["supervise", "leash"].contains(&named(pid).trim());
        Memory::of(&site.processes().into_iter().filter(is_ours).collect::<Vec<_>>())
    }

    /// What keeps pm2's app running: the daemon.
    pub fn of_pm2(pm2: &Pm2) -> Memory {
        Memory::of(&[pm2.daemon()])
    }

    /// cutover's nginx.
    pub fn of_nginx(site: &Site) -> Memory {
        let master = fs::read_to_string(site.home.join("nginx/nginx.pid")).unwrap().trim().parse().unwrap();
        let workers = process::children(Pid::from_raw(master)).into_iter().map(Pid::raw);
        Memory::of(&workers.chain([master]).collect::<Vec<_>>())
    }

    /// The app itself on cutover's site: the instance that serves, and the standby; one that is down needs none.
    pub fn of_both_instances(site: &Site) -> Memory {
        let pids = |instance| numbers(&site.run("pid", &[instance]).stdout);
        Memory::of(&[pids("A"), pids("B")].concat())
    }

    /// The app itself under pm2.
    pub fn of_workers(pm2: &Pm2) -> Memory {
        Memory::of(&pm2.processes())
    }
}
