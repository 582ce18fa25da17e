//! Times of the tools that answer at once, each beside what it cannot be faster than.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use cutover::app::{App, Home};
use cutover::nginx;

use crate::crowd::{self, Crowd};
use crate::promises::Promises;
use crate::site::Site;
use crate::timing::{self, Times, ms, ratio, whole_ms};
use crate::{Scale, load, note, print_table, row, start, warm_site};

/// The program that does nothing.
const TRUE: &str = "/bin/true";
/// How often each tool runs beside it.
const PAIRS: u64 = 200;
/// How often what takes a tenth of a second and more is run.
const SLOW_PAIRS: u64 = 40;
const SWITCHES: u64 = 400;
const STARTS: u64 = 40;
const CROWD: u64 = 5_000;
/// What a busy proxy leaves behind it within a few seconds.
const CLOSED_CONNECTIONS: u64 = 20_000;

/// What each may take.
const ENABLED_INSTANCE_LIMIT: f64 = 1.5;
const PID_LIMIT: f64 = 3.0;
const STATUS_LIMIT: (u32, Duration) = (3, Duration::from_millis(5));
const SWITCH_LIMIT: Duration = Duration::from_millis(2);
const READINESS_LIMIT: Duration = Duration::from_millis(10);

pub fn measure(scale: Scale, promises: &mut Promises) {
    let site = warm_site("");
    let mut table = Table { rows: vec![row(["", "takes", "beside", "takes", "ratio", "limit", ""])], promises };
    note("latency, single tools");
    let pairs = scale.of(PAIRS);
    table.beside_true(&site, "enabled-instance", "", pairs, ENABLED_INSTANCE_LIMIT);
    table.beside_true(&site, "pid", "", pairs, PID_LIMIT);
    table.lsof(&site, "", scale.of(SLOW_PAIRS));

    let crowd_size = scale.of(CROWD);
    note(&format!("latency, {crowd_size} more processes"));
    let crowd = Crowd::gather(crowd_size);
    let among = format!(", {crowd_size} more processes");
    table.beside_true(&site, "pid", &among, pairs, PID_LIMIT);
    table.lsof(&site, &among, scale.of(SLOW_PAIRS));
    drop(crowd);

    note("latency, noticing readiness");
    table.readiness(&site, scale.of(STARTS));

    note("latency, status and the switch");
    table.status(&site, Duration::ZERO, pairs);
    let slow = Duration::from_millis(100);
    site.write_config(&format!("[health]\npath = \"/slow?ms={}\"\n", slow.as_millis()));
    site.install(&[]).ok();
    table.status(&site, slow, scale.of(SLOW_PAIRS));
    table.switch(&site, scale.of(SWITCHES));

    // At the end, for these stay in the kernel's table for a minute.
    let closed = scale.of(CLOSED_CONNECTIONS);
    note(&format!("latency, {closed} closed connections"));
    crowd::close_connections(closed);
    table.beside_true(&site, "pid", &format!(", {closed} closed connections more"), pairs, PID_LIMIT);
    print_table("Times of whole processes, medians", &table.rows);
}

struct Table<'a> {
    rows: Vec<Vec<String>>,
    promises: &'a mut Promises,
}

impl Table<'_> {
    fn beside_true(&mut self, site: &Site, tool: &str, among: &str, pairs: u64, limit: f64) {
        let mut run = timing::program(&site.home.join("bin").join(tool), &[]);
        let (one, least) = beside_true(pairs, &mut || timing::of_process(&mut run));
        let what = format!("{tool}{among}");
        let ratio = ratio(one, least);
        let verdict = self.promises.judge(&format!("{what}: at most {limit} x {TRUE}"), ratio <= limit);
        let (one, least, ratio) = (ms(one), ms(least), format!("{ratio:.2}"));
        self.rows.push(row([&what, &one, TRUE, &least, &ratio, &format!("{limit} x"), verdict]));
    }

    /// The seed's way to a port's process, for comparison, where lsof is installed.
    fn lsof(&mut self, site: &Site, among: &str, pairs: u64) {
        let Ok(lsof) = cutover::command::find("lsof") else { return };
        let port = format!("tcp:{}", site.ports.second);
        let mut run = timing::program(&lsof, &["-t", "-i", &port, "-s", "tcp:listen"]);
        let (one, least) = beside_true(pairs, &mut || timing::of_process(&mut run));
        let what = format!("(lsof -t -i tcp:PORT{among})");
        self.rows.push(row([&what, &ms(one), TRUE, &ms(least), &format!("{:.2}", ratio(one, least)), "-", ""]));
    }

    /// `status` beside the slower of the two health answers that it waits for.
    fn status(&mut self, site: &Site, answer: Duration, pairs: u64) {
        let mut run = timing::program(&site.home.join("bin/status"), &[]);
        let ask = |port| {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            timing::of(|| drop(load::slow(address, answer).unwrap()))
        };
        let [one, first, second] = timing::in_turns(
            pairs,
            [&mut || timing::of_process(&mut run), &mut || ask(site.ports.first), &mut || ask(site.ports.second)],
        );
        let (one, slower) = (one.median(), first.median().max(second.median()));
        let (times, more) = STATUS_LIMIT;
        let is_kept = one <= slower * times + more;
        let what = format!("status, health answers after {}", whole_ms(answer));
        let verdict = self.promises.judge(&what, is_kept);
        let limit = format!("{times} x + {}", whole_ms(more));
        let ratio = format!("{:.2}", ratio(one, slower));
        self.rows.push(row([&what, &ms(one), "slower answer", &ms(slower), &ratio, &limit, verdict]));
    }

    /// How long after an app's first answer `start-instance` has ended: somebody beside it asks the app all the time.
    fn readiness(&mut self, site: &Site, starts: u64) {
        site.commit("v3", "ready 0.1");
        site.run("update-instance", &["A"]).ok();
        let mut noticed = Times::default();
        for _ in 0..starts {
            site.run("stop-instance", &["A"]).ok();
            let mut tool = timing::program(&site.home.join("bin/start-instance"), &["A"]).spawn().unwrap();
            start::await_answer(site.ports.first);
            noticed.push(timing::of(|| assert!(tool.wait().unwrap().success())));
        }
        let (median, worse) = (noticed.median(), noticed.percentile(95));
        let limit = format!("within {}", whole_ms(READINESS_LIMIT));
        let what = "start-instance, after the first answer of an app that takes 100 ms";
        let verdict = self.promises.judge("readiness: noticed within 10 ms", median <= READINESS_LIMIT);
        self.rows.push(row([what, &ms(median), "95th percentile", &ms(worse), "-", &limit, verdict]));
    }

    /// The switch itself as the tools do it: rename, nginx's confirmation, flush.
    fn switch(&mut self, site: &Site, switches: u64) {
        let app = App::open(&Home { path: Some(site.home.clone()) }).unwrap();
        let switch = |turn: u64| {
            let instance = &app.config.instances[turn as usize % 2];
            timing::of(|| nginx::switch(&app, instance).unwrap())
        };
        let times: Times = (0..switches).map(switch).collect();
        let (median, worse) = (times.median(), times.percentile(95));
        let limit = format!("under {}", whole_ms(SWITCH_LIMIT));
        let verdict = self.promises.judge("the switch itself: under 2 ms", median < SWITCH_LIMIT);
        let what = "the switch itself, nginx's confirmation included";
        self.rows.push(row([what, &ms(median), "95th percentile", &ms(worse), "-", &limit, verdict]));
    }
}

/// The medians of something and of /bin/true, in turns.
fn beside_true(pairs: u64, run: &mut dyn FnMut() -> Duration) -> (Duration, Duration) {
    let mut least = timing::program(Path::new(TRUE), &[]);
    let [one, least] = timing::in_turns(pairs, [run, &mut || timing::of_process(&mut least)]);
    (one.median(), least.median())
}
