//! Drawing: the lines of a screen, made of nothing but what was seen and how much room there is.

use super::super::{ProgramView, View, or_dash};
use super::bars::{Glyphs, KEPT};
use super::course::{Course, Sample, Traces};
use super::layout::{Line, Rank, Side, aligned, fit, title, widths};
use crate::harmless::Painted;
use crate::history::Past;
use crate::output;
use crate::terminal::Size;

/// What stands before the lines of an instance.
const INDENT: &str = "   ";
/// Bars that are fewer than this tell nothing.
const FEWEST_BARS: usize = 4;
/// How many bars the requests have.
const REQUEST_BARS: usize = 30;
/// A processor that is used less than this, in percent, has low bars.
const LEAST_PERCENT: f64 = 10.0;
/// The same of requests per second.
const LEAST_RATE: f64 = 10.0;
/// How many of the characters of how something ended have room in its column.
const EXIT_WIDTH: usize = 40;

/// What is told of a program; where bars belong the cell is empty.
const HEADING: [&str; 10] = ["NAME", "PORT", "PID", "CPU", "", "MEMORY", "", "UP", "RESTARTS", "LAST EXIT"];
const SIDES: [Side; 10] = [
    Side::Left,
    Side::Right,
    Side::Right,
    Side::Right,
    Side::Left,
    Side::Right,
    Side::Left,
    Side::Right,
    Side::Right,
    Side::Left,
];
/// Where the bars belong.
const PROCESSOR_BARS: usize = 4;
const MEMORY_BARS: usize = 6;
type Row = [String; 10];

/// The screen's lines: never more than its height, none with more characters than its width.
pub fn lines(course: &Course, size: Size, glyphs: Glyphs) -> Vec<Painted> {
    let Some(seen) = &course.last else {
        return vec![title(&format!("{}: looking", course.app), "q quits", size)];
    };
    let mut lines = body(course, seen, size, glyphs);
    let hidden = fit(&mut lines, size.height.saturating_sub(1));
    let enabled = match &seen.overview.enabled {
        Some(enabled) => format!("{}: {enabled} is enabled", course.app),
        None => format!("{}: nothing is enabled", course.app),
    };
    let right = match hidden {
        0 => format!("{}   q quits", clock(seen.unix)),
        1 => "1 line has no room   q quits".to_owned(),
        _ => format!("{hidden} lines have no room   q quits"),
    };
    let drawn = lines.iter().map(|line| line.drawn(size.width));
    std::iter::once(title(&enabled, &right, size)).chain(drawn).collect()
}

fn body(course: &Course, seen: &Sample, size: Size, glyphs: Glyphs) -> Vec<Line> {
    let mut lines = vec![Line::new(Rank::Requests, requests(course, seen, glyphs))];
    lines.extend(seen.overview.remarks().into_iter().map(|remark| Line::new(Rank::Trouble, remark)));
    let table = Table::of(course, seen, size, glyphs);
    lines.push(Line::new(Rank::Blank, ""));
    lines.push(Line::new(Rank::Heading, table.line(&HEADING.map(str::to_owned))));
    for (view, connections) in seen.overview.instances.iter().zip(&seen.connections) {
        lines.push(Line::new(Rank::Instance, state(view, *connections)));
        lines.push(Line::new(Rank::Release, release(view, seen.unix)));
        for program in view.processes.iter().chain(&view.workers) {
            let is_well = program.port.is_none() && program.pid.is_some();
            let rank = if is_well { Rank::Worker } else { Rank::Process };
            let traces = course.traces(&view.name, &program.name);
            lines.push(Line::new(rank, table.line(&table.with_bars(program, &traces, seen.unix, glyphs))));
        }
    }
    lines.extend(deploys(&seen.deploys));
    lines
}

/// What nginx serves, and for whom.
fn requests(course: &Course, seen: &Sample, glyphs: Glyphs) -> String {
    let whose = if course.shares_nginx { "nginx, all its sites" } else { "nginx" };
    match &seen.traffic {
        Err(reason) => format!("{whose}: requests not known: {reason}"),
        Ok(traffic) => {
            let rate = course.requests.latest().map_or("-".to_owned(), |rate| format!("{rate:.0}"));
            let bars = course.requests.above_nothing(REQUEST_BARS, LEAST_RATE, glyphs);
            format!("{whose}: {rate} requests/s, {} in flight  {}", traffic.in_flight, bars.trim_start())
        }
    }
}

/// How an instance fares.
fn state(view: &View, connections: Option<usize>) -> String {
    let took = view.health_milliseconds.map(|took| format!(" in {took:.1} ms")).unwrap_or_default();
    let connections = match connections {
        Some(1) => "1 connection".to_owned(),
        other => format!("{} connections", or_dash(other)),
    };
    format!("{}  {}, {connections}, {}{took}", view.name, view.proxy, view.health)
}

/// What an instance is.
fn release(view: &View, now: u64) -> String {
    let Some(release) = &view.release else { return format!("{INDENT}no release") };
    let age = release.made_at().map(|made| format!(", {} old", output::age(now.saturating_sub(made))));
    let version = or_dash(view.version.as_ref());
    format!("{INDENT}version {version}, release {release}{}", age.unwrap_or_default())
}

/// The columns of all programs.
struct Table {
    widths: [usize; 10],
}

impl Table {
    fn of(course: &Course, seen: &Sample, size: Size, glyphs: Glyphs) -> Table {
        let mut table = Table { widths: [0; 10] };
        let mut rows = vec![HEADING.map(str::to_owned)];
        for view in &seen.overview.instances {
            let programs = view.processes.iter().chain(&view.workers);
            let row = |program: &ProgramView| {
                table.with_bars(program, &course.traces(&view.name, &program.name), seen.unix, glyphs)
            };
            rows.extend(programs.map(row));
        }
        let without_bars = widths(&rows);
        let gaps = 2 * (HEADING.len() - 1);
        let taken = INDENT.len() + without_bars.iter().sum::<usize>() + gaps;
        let bars = (size.width.saturating_sub(taken) / 2).min(KEPT);
        table.widths = without_bars;
        if bars >= FEWEST_BARS {
            table.widths[PROCESSOR_BARS] = bars;
            table.widths[MEMORY_BARS] = bars;
        }
        table
    }

    fn with_bars(&self, program: &ProgramView, traces: &Traces, now: u64, glyphs: Glyphs) -> Row {
        let percent = traces.processor.latest().map(|percent| format!("{percent:.1}%"));
        [
            program.name.clone(),
            or_dash(program.port),
            program.pid.map_or("down".to_owned(), |pid| pid.to_string()),
            or_dash(percent),
            traces.processor.above_nothing(self.widths[PROCESSOR_BARS], LEAST_PERCENT, glyphs),
            or_dash(program.memory_bytes.map(output::bytes)),
            traces.memory.above_lowest(self.widths[MEMORY_BARS], glyphs),
            or_dash(program.uptime_seconds.map(output::age)),
            or_dash(program.restarts),
            last_exit(program, now),
        ]
    }

    fn line(&self, row: &Row) -> String {
        format!("{INDENT}{}", aligned(row, self.widths, SIDES))
    }
}

/// How a program ended last, and when.
fn last_exit(program: &ProgramView, now: u64) -> String {
    let Some(exit) = &program.last_exit else { return "-".to_owned() };
    let ago = program.last_exit_at.map(|at| format!(", {} ago", output::age(now.saturating_sub(at))));
    format!("{exit}{}", ago.unwrap_or_default()).chars().take(EXIT_WIDTH).collect()
}

/// The last deploys, the latest first.
fn deploys(past: &[Past]) -> Vec<Line> {
    let rows: Vec<[String; 6]> = past.iter().map(Past::summary).collect();
    let widths = widths(&rows);
    let sides = [Side::Left, Side::Left, Side::Left, Side::Right, Side::Left, Side::Left];
    let mut lines = vec![Line::new(Rank::Blank, "")];
    for (at, row) in rows.iter().enumerate() {
        let rank = if at == 0 { Rank::LastDeploy } else { Rank::Deploy };
        lines.push(Line::new(rank, aligned(row, widths, sides)));
    }
    lines
}

/// The time of day, UTC.
fn clock(unix: u64) -> String {
    let [hours, minutes, seconds] = [unix / 3600 % 24, unix / 60 % 60, unix % 60];
    format!("{hours:02}:{minutes:02}:{seconds:02} UTC")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::*;
    use crate::app::Port;
    use crate::nginx::Traffic;
    use crate::overview::Overview;

    const WIDE: Size = Size { width: 140, height: 30 };

    fn program(name: &str, port: Option<i64>, used: Duration, exit: Option<&str>) -> ProgramView {
        ProgramView {
            name: name.to_owned(),
            port: port.map(|port| Port::try_from(port).unwrap()),
            pid: Some(4711),
            uptime_seconds: Some(320),
            memory_bytes: Some(41_300_000),
            processor_time: Some(used),
            restarts: Some(0),
            last_exit: exit.map(str::to_owned),
            last_exit_at: exit.map(|_| 1_795_253_400),
        }
    }

    fn view(name: &str, health: &str, processes: Vec<ProgramView>, workers: Vec<ProgramView>) -> View {
        View {
            name: name.to_owned(),
            port: Port::try_from(20201).unwrap(),
            path: None,
            release: "20261121T093000Z-1a2b3c4d5e6f".parse().ok(),
            version: Some("1a2b3c4d5e6f".to_owned()),
            proxy: "enabled",
            healthy: true,
            health: health.to_owned(),
            health_milliseconds: Some(1.31),
            pid: None,
            uptime_seconds: None,
            memory_bytes: None,
            restarts: None,
            last_exit: None,
            last_exit_at: None,
            supervise_replaced: None,
            processes,
            workers,
        }
    }

    /// What is seen `second` seconds after the beginning.
    fn sample(began: Instant, second: u64, requests: u64, instances: Vec<View>) -> Sample {
        let past = r#"{"at":"2026-11-21T09:30:04Z","who":"ann","what":"deploy","wanted":null,"from":null,
                       "to":{"instance":"A","release":null},"seconds":{"total":3.136},"outcome":"done","reason":null}"#;
        Sample {
            connections: instances.iter().map(|_| Some(1)).collect(),
            overview: Overview {
                is_away: false,
                app: "shop".to_owned(),
                enabled: Some("A".to_owned()),
                nginx: Some("A".to_owned()),
                state_error: None,
                nginx_error: None,
                nginx_lacks: None,
                change: None,
                queued: None,
                instances,
            },
            traffic: Ok(Traffic { requests, in_flight: 3 }),
            deploys: vec![Past::read(past).unwrap()],
            at: began + Duration::from_secs(second),
            unix: 1_795_253_405 + second,
        }
    }

    fn seen(moments: &[(u64, Duration)]) -> Course {
        let (mut course, began) = (Course::new("shop", true), Instant::now());
        for (second, (requests, used)) in (0..).zip(moments) {
            let processes = vec![program("0", Some(20201), *used, None)];
            let workers = vec![program("mail.0", None, *used, Some("exit status 1"))];
            course.add(sample(began, second, *requests, vec![view("A", "healthy", processes, workers)]));
        }
        course
    }

    fn shown(moments: &[(u64, Duration)]) -> String {
        let drawn = lines(&seen(moments), WIDE, Glyphs::ASCII);
        drawn.iter().map(Painted::as_str).collect::<Vec<&str>>().join("\n")
    }

    #[test]
    fn everything_has_its_place() {
        let moments = [(100, Duration::ZERO), (152, Duration::from_millis(250))];
        let drawn = shown(&moments);
        let plain = drawn.replace("\x1b[1m", "").replace("\x1b[0m", "");
        let told: Vec<String> =
            plain.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            told,
            [
                "shop: A is enabled 09:30:06 UTC q quits",
                "nginx, all its sites: 50 requests/s, 3 in flight #",
                "",
                "NAME PORT PID CPU MEMORY UP RESTARTS LAST EXIT",
                "A enabled, 1 connection, healthy in 1.3 ms",
                "version 1a2b3c4d5e6f, release 20261121T093000Z-1a2b3c4d5e6f, 6s old",
                "0 20201 4711 25.0% # 41.3 MB __ 5m 20s 0 -",
                "mail.0 - 4711 25.0% # 41.3 MB __ 5m 20s 0 exit status 1, 6s ago",
                "",
                "2026-11-21T09:30:04Z deploy done 3.1 s ann A -",
            ]
        );
    }

    #[test]
    fn what_began_again_is_not_counted_backwards() {
        let used = Duration::from_secs(9);
        let drawn = shown(&[(100, used), (7, Duration::from_secs(2))]);
        assert!(drawn.contains(": - requests/s") && drawn.contains(" 0.0% "), "{drawn}");
        let drawn = shown(&[(100, used), (101, used)]);
        assert!(drawn.contains(": 0 requests/s"), "{drawn}");
        assert!(shown(&[(100, used)]).contains(": - requests/s"));
    }

    #[test]
    fn nothing_is_drawn_before_the_first_look() {
        let drawn = lines(&Course::new("shop", true), Size { width: 30, height: 1 }, Glyphs::ASCII);
        assert_eq!(drawn.len(), 1);
        assert_eq!(drawn[0].as_str(), "\x1b[1mshop: looking          q quits\x1b[0m");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_exceeds_the_screen(
            width in 1usize..250, height in 1usize..70, workers in 0usize..40, text in "\\PC{0,60}|[\\x00-\\x7f]{0,60}",
        ) {
            let mut course = Course::new("shop", false);
            let began = Instant::now();
            for second in 0..3 {
                let workers = (0..workers).map(|at| program(&format!("mail.{at}"), None, Duration::ZERO, Some(&text)));
                let view = view("A", &text, vec![program("0", Some(20201), Duration::ZERO, None)], workers.collect());
                course.add(sample(began, second, 100 * second, vec![view]));
            }
            let drawn = lines(&course, Size { width, height }, Glyphs::UNICODE);
            prop_assert!(drawn.len() <= height);
            for line in drawn {
                let plain = line.as_str().replace("\x1b[1m", "").replace("\x1b[0m", "");
                prop_assert!(plain.chars().count() <= width && !plain.contains(char::is_control), "{plain:?}");
            }
        }
    }
}
