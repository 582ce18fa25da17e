//! logs: where an instance is several programs, whose line it is stands in front of each, and one can be asked for alone.

use std::fs;

use crate::site::{BRISK, Sample, Site, eventually};
use crate::test_logs::{append, follow, next};

const RUN: &str = "[run]\ncommand = \"echo begins $PROCESS_INDEX; exec ./app\"\nstop_timeout = \"5s\"\nprocesses = 2\n";
const WORKER: &str = "[[worker]]\nname = \"mail\"\ncommand = \"echo sends; exec sleep 1000\"\ncount = 2\n";

fn site() -> Site {
    Site::roomy(Sample::Static, &format!("{BRISK}{RUN}{WORKER}"))
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn each_line_tells_its_program() {
    let site = site();
    site.run("deploy", &[]).ok();
    let printed = ["A.0 | begins 0", "A.1 | begins 1", "A.mail.0 | sends", "A.mail.1 | sends"];
    eventually("all is in the log", || sorted(&site.run("logs", &["--grep", "^(begins|sends)"]).ok()) == printed);
    assert_eq!(sorted(&site.run("logs", &["A", "--grep", "^(begins|sends)"]).ok()), printed);
    // What supervise says is of no program, but about one.
    let said = site.run("logs", &["A", "--grep", "^supervise: 1: started"]).masked(&site).ok();
    assert_eq!(said, "A | supervise: 1: started RELEASE\n");
}

#[test]
fn a_program_can_be_asked_for_alone() {
    let site = site();
    site.run("deploy", &[]).ok();
    let sends = || site.run("logs", &["a.mail", "--grep", "^sends"]).ok();
    eventually("all is in the log", || sorted(&sends()) == ["A.mail.0 | sends", "A.mail.1 | sends"]);
    let of_one = |program: &str| site.run("logs", &[program]).masked(&site).ok();
    assert_eq!(of_one("A.1"), "supervise: 1: started RELEASE\nbegins 1\n");
    assert_eq!(of_one("A.mail.0"), "supervise: mail.0: started RELEASE\nsends\n");
    assert_eq!(site.run("logs", &["A.mail.1", "-n", "1"]).ok(), "sends\n");
    assert_eq!(of_one("B.0"), "");
    for (argument, reason) in [
        ("A.2", "cannot find program \"2\": of A there are 0, 1, mail.0, mail.1"),
        ("A.mail.2", "cannot find program \"mail.2\": of A there are 0, 1, mail.0, mail.1"),
        ("A.ma", "cannot find program \"ma\": of A there are 0, 1, mail.0, mail.1"),
        ("A.", "cannot find program \"\": of A there are 0, 1, mail.0, mail.1"),
        ("mail", "cannot tell which instance's lines are wanted of program mail: say A.mail or B.mail"),
        ("mail.1", "cannot tell which instance's lines are wanted of program mail.1: say A.mail.1 or B.mail.1"),
        ("C.1", "cannot find instance \"C\": there are A and B"),
    ] {
        site.run("logs", &[argument]).is(2, "", &format!("logs: {reason}\n"));
    }
    let (mut follower, lines) = follow(&site, &["-f", "B.mail"]);
    append(&site, "B.log", "2026-11-21T09:30:00.000Z mailer.0 no\n2026-11-21T09:30:00.000Z mail.1 yes\n");
    assert_eq!(next(&lines), "B.mail.1 | yes");
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[test]
fn the_only_program_of_an_instance_is_the_instance() {
    let site = Site::new(Sample::Static, BRISK);
    fs::write(site.home.join("logs/A.log"), "2026-11-21T09:30:00.000Z 0 hello\nand no time\n").unwrap();
    site.run("logs", &["A.0"]).is(0, "hello\nand no time\n", "");
    site.run("logs", &["A.1"]).is(2, "", "logs: cannot find program \"1\": of A there are 0\n");
}
