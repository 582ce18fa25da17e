//! logs: which lines are printed, by their number, their age and what stands in them, of one instance or merged of both.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::ran::Ran;
use crate::site::{BRISK, Sample, Site};
use crate::test_logs::{append, follow, next};

/// A line as supervise writes it, of so many minutes ago.
pub fn line(minutes: u64, source: &str, text: &str) -> String {
    let at = SystemTime::now() - Duration::from_secs(60 * minutes);
    format!("{} {source} {text}\n", humantime::format_rfc3339_millis(at))
}

/// A site whose instances have printed this, though they never ran.
fn printed(logs: &[(&str, &str)]) -> Site {
    let site = Site::new(Sample::Static, BRISK);
    for (log, text) in logs {
        fs::write(site.home.join("logs").join(log), text).unwrap();
    }
    site
}

/// A morning of both.
fn morning() -> Site {
    let at = |time: &str, rest: &str| format!("2026-11-21T09:{time}.000Z {rest}\n");
    let of_a = ["no time\n".to_owned(), at("30:00", "0 one"), "and more\n".to_owned(), at("30:04", "0 four")].concat();
    let of_b = [at("30:00", "0 also one"), at("30:02", "supervise started"), at("30:05", "0 five")].concat();
    printed(&[("A.log", &of_a), ("B.log", &of_b)])
}

#[test]
fn both_are_merged_by_time_and_counted_together() {
    let site = morning();
    let all = "A | no time\nA | one\nA | and more\nB | also one\nB | supervise: started\nA | four\nB | five\n";
    site.run("logs", &[]).is(0, all, "");
    site.run("logs", &["-n", "3"]).is(0, "B | supervise: started\nA | four\nB | five\n", "");
    let many = (0..150).map(|number| line(200 - number, "0", "x")).collect::<String>();
    let site = printed(&[("A.log", &many), ("B.log", &many)]);
    assert_eq!(site.run("logs", &[]).ok().lines().count(), 200);
    assert_eq!(site.run("logs", &["A"]).ok().lines().count(), 150);
    assert_eq!(site.run("logs", &["--since", "1d"]).ok().lines().count(), 300);
}

#[test]
fn times_are_printed_when_asked_for() {
    let site = morning();
    let expected = "- no time\n2026-11-21T09:30:00.000Z one\n- and more\n2026-11-21T09:30:04.000Z four\n";
    site.run("logs", &["A", "-t"]).is(0, expected, "");
    let last = "2026-11-21T09:30:05.000Z B | five\n";
    site.run("logs", &["--timestamps", "-n1"]).is(0, last, "");
}

#[test]
fn since_is_an_age_or_a_time() {
    let site = morning();
    let late = "B | supervise: started\nA | four\nB | five\n";
    for time in ["2026-11-21T09:30:02Z", "2026-11-21T18:30:02+09:00", "2026-11-21 09:30:01"] {
        site.run("logs", &["--since", time]).is(0, late, "");
    }
    // What has no time is as old as the line before it.
    site.run("logs", &["A", "--since", "2026-11-21T09:30:00Z"]).is(0, "one\nand more\nfour\n", "");
    site.run("logs", &["--since", "2026-11-21T09:30:02Z", "-n", "1"]).is(0, "B | five\n", "");
    site.run("logs", &["--since", "2026-11-21T09:31:00Z"]).is(0, "", "");
    let reason = "invalid value 'soon' for '--since <TIME>': expected a time such as 2026-11-21T09:30:00Z, or 10m";
    site.run("logs", &["--since", "soon"]).is(2, "", &format!("logs: {reason}; see logs --help\n"));

    let site = printed(&[("A.log", &[line(20, "0", "old"), line(8, "0", "young"), line(1, "0", "new")].concat())]);
    site.run("logs", &["A", "--since", "10m"]).is(0, "young\nnew\n", "");
    site.run("logs", &["A", "--since", "1h 30m"]).is(0, "old\nyoung\nnew\n", "");
}

#[test]
fn grep_prints_what_fits_and_counts_that() {
    let text: String = (0..2000).map(|number| line(3000 - number, "0", &format!("GET /{number}"))).collect();
    let site = printed(&[("A.log.1", &text), ("A.log", &text), ("B.log", &line(1, "supervise", "started GET"))]);
    site.run("logs", &["A", "--grep", "T /1.00$", "-n", "3"]).is(0, "GET /1700\nGET /1800\nGET /1900\n", "");
    // Reaching back as far as need be.
    assert_eq!(site.run("logs", &["A", "--grep", "/1.00$"]).ok().lines().count(), 20);
    site.run("logs", &["--grep", "^supervise: .*GET"]).is(0, "B | supervise: started GET\n", "");
    site.run("logs", &["--grep", "POST"]).is(0, "", "");
    let reason = "invalid value '(' for '--grep <REGEX>': unclosed group; see logs --help";
    site.run("logs", &["--grep", "("]).is(2, "", &format!("logs: {reason}\n"));
}

#[test]
fn of_large_logs_no_more_is_read_than_need_be() {
    let recent = [line(2, "0", "two"), line(1, "0", "one")].concat();
    let older = line(90, "0", "ninety");
    let site = printed(&[("A.log.1", &older), ("A.log", &[line(30, "0", "thirty"), recent].concat())]);
    let trace = site.directory.path().join("trace");
    let reads_older = |arguments: &[&str], printed: &str| {
        let logs = site.tool("logs", arguments);
        let mut strace = site.command(Path::new("strace"));
        strace.arg("-o").arg(&trace).args(["-e", "trace=pread64", "-P"]).arg(site.home.join("logs/A.log.1"));
        let ran = Ran::of(&strace.arg(logs.get_program()).args(logs.get_args()).output().unwrap());
        assert_eq!((ran.code, ran.stdout.as_str()), (0, printed), "{ran:?}");
        fs::read_to_string(&trace).unwrap().contains("pread64(")
    };
    assert!(!reads_older(&["A", "-n", "2"], "two\none\n"));
    assert!(!reads_older(&["A", "-n", "1", "--grep", "two"], "two\n"));
    assert!(!reads_older(&["A", "--since", "10m"], "two\none\n"));
    assert!(reads_older(&["A"], "ninety\nthirty\ntwo\none\n"));
    assert!(reads_older(&["A", "--since", "1h"], "thirty\ntwo\none\n"));
}

#[test]
fn what_follows_is_chosen_as_well() {
    let site = printed(&[("A.log", &[line(20, "0", "x old"), line(8, "0", "x young"), line(7, "0", "y")].concat())]);
    let (mut follower, lines) = follow(&site, &["-f", "--since", "10m", "--grep", "x", "-n5"]);
    assert_eq!(next(&lines), "A | x young");
    append(&site, "B.log", &[line(0, "0", "y"), line(0, "0", "x of B")].concat());
    assert_eq!(next(&lines), "B | x of B");
    append(&site, "A.log", &[line(0, "0", "y"), line(0, "supervise", "x of A")].concat());
    assert_eq!(next(&lines), "A | supervise: x of A");
    follower.kill().unwrap();
    follower.wait().unwrap();
}
