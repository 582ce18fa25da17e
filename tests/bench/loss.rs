//! Lost requests: switches by the tools beside switches by the seed's way, under the same loads.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::load::{Load, Plan};
use crate::promises::Promises;
use crate::reload::Reload;
use crate::tally::Tally;
use crate::{Scale, flight, note, print_table, row, warm_site};

/// A load under which is switched.
struct Scenario {
    name: &'static str,
    kept_alive: usize,
    fresh: usize,
    /// Over how many requests the switches by the tools are spread, at least.
    requests: u64,
}

const SCENARIOS: [Scenario; 3] = [
    Scenario { name: "32 kept-alive connections", kept_alive: 32, fresh: 0, requests: 400_000 },
    Scenario { name: "256 kept-alive connections", kept_alive: 256, fresh: 0, requests: 400_000 },
    Scenario { name: "32 connections, each made anew", kept_alive: 0, fresh: 32, requests: 250_000 },
];
/// A third of the requests are POSTs, whose body must come back.
const POST_SHARE: u8 = 33;
/// Switches by the tools in each of them.
const SWITCHES: u64 = 350;
/// Reloads in each of them. A reload takes a while after its command has returned, hence the pause.
const RELOADS: u64 = 50;
const RELOAD_PAUSE: Duration = Duration::from_millis(250);

/// Switches while long exchanges are in flight. The pauses give both ways the same time.
const FLIGHT_SWITCHES: u64 = 50;
const FLIGHT_SWITCH_PAUSE: Duration = Duration::from_millis(240);
const FLIGHT_RELOADS: u64 = 25;
const FLIGHT_RELOAD_PAUSE: Duration = Duration::from_millis(480);

/// What all of it must come to.
const ALL_SWITCHES: u64 = 1_000;
const ALL_REQUESTS: u64 = 1_000_000;

/// How often a load is looked at.
const POLL: Duration = Duration::from_millis(1);

/// What one way of switching came to.
#[derive(Default)]
struct Found {
    switches: u64,
    tally: Tally,
}

pub fn measure(scale: Scale, promises: &mut Promises) {
    let site = warm_site("");
    let reload = Reload::before(&site, site.ports.second);
    let mut by_tool = || drop(site.run("connect-to-nginx", &[]).ok());
    let mut ports = [site.ports.first, site.ports.second].into_iter().cycle();
    let mut by_reload = || reload.connect(ports.next().unwrap());

    let mut rows =
        vec![row(["", "switches", "requests", "failed", "reloads", "requests", "failed", "per reload", "how"])];
    let (mut ours, mut theirs) = (Found::default(), Found::default());
    let mut record = |name, ours_here: Found, theirs_here: Found| {
        ours.tally.add(&ours_here.tally);
        theirs.tally.add(&theirs_here.tally);
        rows.push(cells(name, &ours_here, &theirs_here));
    };

    for scenario in &SCENARIOS {
        note(&format!("requests lost, {}", scenario.name));
        let (switches, reloads) = (scale.of(SWITCHES), scale.of(RELOADS));
        let requests = scale.of(scenario.requests);
        let ours_here = scenario.run(site.address(), switches, requests, Duration::ZERO, &mut by_tool);
        let theirs_here = scenario.run(reload.address(), reloads, 0, RELOAD_PAUSE, &mut by_reload);
        record(scenario.name, ours_here, theirs_here);
    }

    note("requests lost, long exchanges in flight");
    let (switches, reloads) = (scale.of(FLIGHT_SWITCHES), scale.of(FLIGHT_RELOADS));
    let ours_here = flight::during(site.address(), || paced(switches, FLIGHT_SWITCH_PAUSE, &mut by_tool));
    let theirs_here = flight::during(reload.address(), || paced(reloads, FLIGHT_RELOAD_PAUSE, &mut by_reload));
    for ((name, ours_here), (_, theirs_here)) in ours_here.into_iter().zip(theirs_here) {
        let ours_here = Found { switches, tally: ours_here };
        record(name, ours_here, Found { switches: reloads, tally: theirs_here });
    }

    ours.switches = SCENARIOS.len() as u64 * scale.of(SWITCHES) + switches;
    theirs.switches = SCENARIOS.len() as u64 * scale.of(RELOADS) + reloads;
    rows.push(cells("total", &ours, &theirs));
    print_table("Requests lost: switches by connect-to-nginx, and by nginx -s reload under the same loads", &rows);
    judge(&ours, scale, promises);
}

impl Scenario {
    /// Puts the load on, switches this often, spread over at least this many requests, with at least this pause between.
    fn run(
        &self,
        target: SocketAddr,
        switches: u64,
        requests: u64,
        pause: Duration,
        switch: &mut impl FnMut(),
    ) -> Found {
        let load = Load::start(Plan {
            kept_alive: self.kept_alive,
            fresh: self.fresh,
            post_share: POST_SHARE,
            pace: None,
            ..Plan::on(target)
        });
        for turn in 1..=switches {
            await_requests(&load, requests * turn / (switches + 1), pause);
            switch();
        }
        await_requests(&load, requests, pause);
        let report = load.stop();
        let answered_by = |version| report.bodies.get(version).copied().unwrap_or(0);
        assert!(answered_by("v1") > 0 && answered_by("v2") > 0, "not both instances answered: {:?}", report.bodies);
        Found { switches, tally: report.into() }
    }
}

/// Waits until the load has made this many requests, and at least for `pause`.
fn await_requests(load: &Load, requests: u64, pause: Duration) {
    let began = Instant::now();
    while began.elapsed() < pause || load.snapshot().requests < requests {
        thread::sleep(POLL);
    }
}

fn paced(switches: u64, pause: Duration, switch: &mut impl FnMut()) {
    for _ in 0..switches {
        switch();
        thread::sleep(pause);
    }
}

fn cells(name: &str, ours: &Found, theirs: &Found) -> Vec<String> {
    let mut cells = vec![name.to_owned()];
    for Found { switches, tally } in [ours, theirs] {
        cells.extend([*switches, tally.requests, tally.failed()].map(|count| count.to_string()));
    }
    cells.push(format!("{:.1}", theirs.tally.failed() as f64 / theirs.switches as f64));
    cells.push(theirs.tally.kinds());
    cells
}

fn judge(ours: &Found, scale: Scale, promises: &mut Promises) {
    let Found { switches, tally } = ours;
    let failed = tally.failed();
    let verdict = promises.judge("a switch loses no request", failed == 0);
    println!("connect-to-nginx lost {failed} of {} requests in {switches} switches: {verdict}", tally.requests);
    for failure in tally.quoted() {
        println!("    {failure}");
    }
    let (all_switches, all_requests) = (scale.of(ALL_SWITCHES), scale.of(ALL_REQUESTS));
    let is_enough = *switches >= all_switches && tally.requests >= all_requests;
    let verdict = promises.judge("the switches and requests are as many as was said", is_enough);
    println!("at least {all_switches} switches and {all_requests} requests: {verdict}\n");
}
