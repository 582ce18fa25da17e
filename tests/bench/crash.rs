//! How soon an app is back after SIGKILL, beside its own start-up.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::promises::Promises;
use crate::site::{Ports, Site};
use crate::timing::{Times, ms, whole_ms};
use crate::{Scale, note, print_table, row, start, warm_site};

/// How often both instances are killed.
const ROUNDS: u64 = 10;
/// What being back may take beyond the app's start-up.
const LIMIT: Duration = Duration::from_millis(200);

pub fn measure(scale: Scale, promises: &mut Promises) {
    note("the way back after SIGKILL");
    let site = warm_site("");
    let ports = Ports::claim();
    let (mut start_up, mut back) = (Times::default(), Times::default());
    for _ in 0..scale.of(ROUNDS) {
        for (instance, port) in [("A", site.ports.first), ("B", site.ports.second)] {
            // A supervise of its own for each crash: from one to the next the pause before a restart doubles.
            site.run("stop-instance", &[instance, "--force"]).ok();
            site.run("start-instance", &[instance]).ok();
            start_up.push(start::up(&site, &ports));
            back.push(until_back(&site, instance, port));
        }
    }
    let (start_up, back) = (start_up.median(), back.median());
    let verdict = promises.judge("after a crash: back within the start-up and 200 ms", back <= start_up + LIMIT);
    let limit = format!("start-up + {}", whole_ms(LIMIT));
    let rows = [
        row(["", "takes", "limit", ""]),
        row(["start-up, by hand", &ms(start_up), "", ""]),
        row(["from SIGKILL to the next answer", &ms(back), &limit, verdict]),
    ];
    print_table("A crash, medians", &rows);
}

fn until_back(site: &Site, instance: &str, port: u16) -> Duration {
    let app = Pid::from_raw(site.pid(instance));
    let began = Instant::now();
    kill(app, Signal::SIGKILL).unwrap();
    // The old process may still be on its way out: it must not be taken for the new one.
    while kill(app, None).is_ok() {
        std::thread::yield_now();
    }
    start::await_answer(port);
    began.elapsed()
}
