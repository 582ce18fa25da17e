//! What `status --watch` takes of a processor, with an instance of two processes and sixteen workers beside another one.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::promises::Promises;
use crate::pty::Pty;
use crate::site::{Sample, Site};
use crate::{Scale, note, print_table, row};

const CONFIG: &str = "[run]\ncommand = \"exec ./app\"\nprocesses = 2\nstop_timeout = \"5s\"\n\
                      [[worker]]\nname = \"mail\"\ncommand = \"exec sleep 1000\"\ncount = 16\n";
/// For how many seconds it is watched.
const SECONDS: u64 = 30;
/// The share of a processor, in percent.
const LIMIT: f64 = 1.0;

pub fn measure(scale: Scale, promises: &mut Promises) {
    note("watch");
    let site = Site::roomy(Sample::Static, CONFIG);
    site.run("deploy", &[]).ok();
    site.commit("v2", "");
    site.run("deploy", &[]).ok();
    let mut pty = Pty::start(&site, "C.UTF-8", (160, 50), "status", &["--watch"]);
    pty.shows(&["B is enabled", "mail.15", "0 requests/s"]);
    let (began, before) = (Instant::now(), ticks(pty.pid()));
    thread::sleep(Duration::from_secs(scale.of(SECONDS)));
    let took = began.elapsed().as_secs_f64();
    // The kernel counts in hundredths of a second.
    let percent = (ticks(pty.pid()) - before) as f64 / took;
    pty.press("q");
    assert_eq!(pty.code(), Some(0));
    let verdict = promises.judge("status --watch: under 1 % of a processor", percent < LIMIT);
    let what = "status --watch, 2 x 2 processes and 16 workers";
    let rows = [
        row(["", "of a processor", "limit", ""]),
        row([what, &format!("{percent:.2} %"), &format!("{LIMIT} %"), verdict]),
    ];
    print_table("What watching takes", &rows);
}

/// The processor time that a process has used, in ticks of the clock.
fn ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit_once(") ").unwrap().1.split(' ');
    fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}
