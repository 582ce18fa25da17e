//! A deploy of a trivial app beside the sum of its parts: what cutover adds of its own.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::promises::Promises;
use crate::site::{Ports, Site};
use crate::timing::{self, Times, ms, whole_ms};
use crate::{Scale, note, print_table, row, start, warm_site};

const DEPLOYS: u64 = 20;
const SOAK: Duration = Duration::from_millis(200);
/// What a deploy may take beyond its parts.
const LIMIT: Duration = Duration::from_millis(150);
/// The steps that deploy writes down, with what belongs to each.
const STEPS: [(&str, &str); 4] = [
    ("update", "of it: fetching, laying the release out"),
    ("start", "of it: stopping the standby, starting the new release"),
    ("connect", "of it: the switch"),
    ("soak", "of it: soak"),
];

pub fn measure(scale: Scale, promises: &mut Promises) {
    note("a deploy and its parts");
    let site = warm_site(&format!("[deploy]\nsoak = \"{}ms\"\n", SOAK.as_millis()));
    let ports = Ports::claim();
    let deploys = scale.of(DEPLOYS).max(3);
    fetch_by_hand(&site);

    let [mut whole, mut fetch, mut start_up, mut above] = [(); 4].map(|()| Times::default());
    for number in 0..deploys {
        site.commit(&format!("v{}", number + 3), "");
        let fetched = fetch_by_hand(&site);
        let started = start::up(&site, &ports);
        let deployed = timing::of_process(&mut timing::program(&site.home.join("bin/deploy"), &[]));
        above.push(deployed.saturating_sub(fetched + started + SOAK));
        whole.push(deployed);
        fetch.push(fetched);
        start_up.push(started);
    }

    let above = above.median();
    let verdict = promises.judge("a deploy: at most 150 ms above its parts", above <= LIMIT);
    let mut rows = vec![row(["", "takes", "limit", ""])];
    rows.push(row(["deploy", &ms(whole.median()), "", ""]));
    rows.push(row(["git fetch, by hand", &ms(fetch.median()), "", ""]));
    rows.push(row(["build: none", &whole_ms(Duration::ZERO), "", ""]));
    rows.push(row(["start-up, by hand", &ms(start_up.median()), "", ""]));
    rows.push(row(["soak, as configured", &whole_ms(SOAK), "", ""]));
    rows.push(row(["deploy above the sum of these", &ms(above), &whole_ms(LIMIT), verdict]));
    let history = fs::read_to_string(site.home.join("logs/history.jsonl")).unwrap();
    for (step, words) in STEPS {
        rows.push(row([words, &ms(median_of_step(&history, deploys as usize, step)), "", ""]));
    }
    print_table(&format!("A deploy of a trivial app, medians of {deploys}"), &rows);
}

/// What git alone takes for the new commit, in a mirror of its own that is as far behind as that of the tools.
fn fetch_by_hand(site: &Site) -> Duration {
    let mirror = site.directory.path().join("by-hand.git");
    let (mirror, source) = (mirror.to_str().unwrap(), site.source());
    let git = cutover::command::find("git").unwrap();
    let run = |arguments: &[&str]| timing::of_process(&mut timing::program(&git, arguments));
    if !Path::new(mirror).exists() {
        run(&["init", "--quiet", "--bare", mirror]);
    }
    let source = source.to_str().unwrap();
    let fetch = ["--git-dir", mirror, "fetch", "--quiet", "--prune", "--force", source];
    run(&[&fetch[..], &["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]].concat())
}

/// The median of one step's time in the last lines of the history.
fn median_of_step(history: &str, lines: usize, step: &str) -> Duration {
    let seconds =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["seconds"][step].as_f64().unwrap();
    let times: Times = history.lines().rev().take(lines).map(|line| Duration::from_secs_f64(seconds(line))).collect();
    times.median()
}
