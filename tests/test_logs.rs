//! logs: what the instances print, of both or of one, at its end or as it comes. What is chosen of it, how it looks on a
//! terminal, and other logs have modules of their own.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use crate::site::{BRISK, Sample, Site, eventually, explains_itself};

const TALKATIVE: &str = "[run]\ncommand = \"echo one; echo two; exec ./app\"\nstop_timeout = \"5s\"\n";

#[test]
fn it_explains_itself() {
    explains_itself("logs", "Print what the instances print, what builds do, and what the tools say");
    let site = Site::new(Sample::Static, BRISK);
    site.run("logs", &[]).is(0, "", "");
    site.run("logs", &["A"]).is(0, "", "");
    site.run("logs", &["C"]).is(2, "", "logs: cannot find instance \"C\": there are A and B\n");
    let reason = "invalid value 'few' for '--lines <COUNT>': invalid digit found in string; see logs --help";
    site.run("logs", &["-n", "few"]).is(2, "", &format!("logs: {reason}\n"));
    fs::create_dir(site.home.join("logs/A.log")).unwrap();
    site.run("logs", &["A"]).fails(3, &["logs: cannot read ", "A.log: Is a directory"]);
    fs::remove_dir(site.home.join("logs/A.log")).unwrap();
}

#[test]
fn it_prints_one_instance_as_it_is_and_both_after_their_names() {
    let site = Site::new(Sample::Static, &format!("{TALKATIVE}{BRISK}"));
    site.run("deploy", &[]).ok();
    eventually("all is in the log", || site.run("logs", &["A", "-n", "1"]).ok() == "two\n");
    let port = site.ports.first;
    let all = format!("supervise: keeping shop A on port {port}\nsupervise: started RELEASE\none\ntwo\n");
    site.run("logs", &["a"]).masked(&site).is(0, &all, "");
    site.run("logs", &["A", "-n", "1"]).is(0, "two\n", "");
    site.run("logs", &["A", "--lines", "2"]).is(0, "one\ntwo\n", "");
    site.run("logs", &["A", "-n", "0"]).is(0, "", "");
    site.run("logs", &["-n", "2"]).is(0, "A | one\nA | two\n", "");
    site.commit("v2", "");
    site.run("deploy", &[]).ok();
    eventually("all is in the logs", || site.run("logs", &["-n", "1"]).ok() == "B | two\n");
    let all = site.run("logs", &[]).ok();
    let of_a = all.lines().filter(|line| line.starts_with("A | ")).count();
    assert_eq!((of_a, all.lines().count()), (4, 8), "{all}");
}

#[test]
fn lines_are_counted_back_into_rotated_files() {
    let site = Site::new(Sample::Static, BRISK);
    let log = |name: &str, text: &[u8]| fs::write(site.home.join("logs").join(name), text).unwrap();
    log("A.log.2", b"1\n2\n");
    log("A.log.1", b"3\n4\n");
    log("A.log", b"5\n\xff6");
    site.run("logs", &["A"]).is(0, "1\n2\n3\n4\n5\n\u{fffd}6\n", "");
    site.run("logs", &["A", "-n3"]).is(0, "4\n5\n\u{fffd}6\n", "");
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let site = Site::new(Sample::Static, &format!("{TALKATIVE}{BRISK}"));
    site.run("deploy", &[]).ok();
    eventually("all is in the log", || site.run("logs", &["A", "-n", "1"]).ok() == "two\n");
    site.shell("logs A -n 2 | head -1").is(0, "one\n", "");
    site.run_unread("logs", &[]).is(0, "", "");
}

#[test]
fn it_follows_across_a_restart_and_prints_each_line_once() {
    let site = Site::new(Sample::Static, &format!("{TALKATIVE}{BRISK}"));
    site.run("deploy", &[]).ok();
    eventually("all is in the log", || site.run("logs", &["A", "-n", "1"]).ok() == "two\n");
    let (mut follower, lines) = follow(&site, &["-f", "A", "-n", "1"]);
    assert_eq!(next(&lines), "two");
    site.run("stop-instance", &["A", "--force"]).ok();
    assert_eq!(next(&lines), "supervise: stopped");
    site.run("start-instance", &["A"]).ok();
    assert_eq!(next(&lines), format!("supervise: keeping shop A on port {}", site.ports.first));
    assert!(next(&lines).starts_with("supervise: started "));
    assert_eq!((next(&lines), next(&lines)), ("one".to_owned(), "two".to_owned()));
    follower.kill().unwrap();
    follower.wait().unwrap();
    assert_eq!(lines.recv(), Err(std::sync::mpsc::RecvError), "there are more lines than were printed");
}

#[test]
fn it_follows_both_from_before_their_first_line_and_through_a_rotation() {
    let site = Site::new(Sample::Static, BRISK);
    append(&site, "B.log", "before\n");
    let (mut follower, lines) = follow(&site, &["--follow"]);
    assert_eq!(next(&lines), "B | before");
    append(&site, "A.log", "1\n");
    assert_eq!(next(&lines), "A | 1");
    append(&site, "B.log", "half of a l");
    append(&site, "A.log", "2\n");
    assert_eq!(next(&lines), "A | 2");
    append(&site, "B.log", "ine\n");
    assert_eq!(next(&lines), "B | half of a line");
    fs::rename(site.home.join("logs/A.log"), site.home.join("logs/A.log.1")).unwrap();
    append(&site, "A.log", "3\n");
    assert_eq!(next(&lines), "A | 3");

    drop(lines);
    eventually("a follower that nobody reads ends", || {
        append(&site, "B.log", "and more\n");
        follower.try_wait().unwrap().is_some()
    });
    assert_eq!(follower.wait().unwrap().code(), Some(0));
    let mut stderr = String::new();
    follower.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(stderr, "");
}

#[test]
fn a_line_that_is_not_whole_when_it_begins_to_follow_is_not_broken_in_two() {
    let site = Site::new(Sample::Static, BRISK);
    append(&site, "B.log", "before\nhalf of a l");
    let (mut follower, lines) = follow(&site, &["--follow", "B"]);
    assert_eq!(next(&lines), "before");
    append(&site, "B.log", "ine\n");
    assert_eq!(next(&lines), "half of a line");
    follower.kill().unwrap();
    follower.wait().unwrap();
}

#[test]
fn of_a_log_that_grows_while_it_begins_to_follow_each_line_comes_once() {
    let site = Site::new(Sample::Static, BRISK);
    let path = site.home.join("logs/A.log");
    for round in 1..=3 {
        let mut log = fs::File::create(&path).unwrap();
        writeln!(log, "0").unwrap();
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            // Fast enough for a line to come within any of its steps.
            let mut numbers = (1..5_000_000).take_while(|_| !is_over.load(Ordering::Relaxed));
            scope
                .spawn(move || numbers.try_for_each(|number| log.write_all(format!("{number}\n").as_bytes())).unwrap());
            let (mut follower, lines) = follow(&site, &["-f", "A", "-n", "20"]);
            let came: Vec<u64> = (0..500).map(|_| next(&lines).parse().unwrap()).collect();
            follower.kill().unwrap();
            follower.wait().unwrap();
            is_over.store(true, Ordering::Relaxed);
            let broken = came.windows(2).find(|pair| pair[1] != pair[0] + 1);
            assert_eq!(broken, None, "round {round}");
        });
        fs::remove_file(&path).unwrap();
    }
}

/// Appends to a log.
pub fn append(site: &Site, log: &str, text: &str) {
    let path = site.home.join("logs").join(log);
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// A running `logs`, and its lines as they come; its output is closed once they are dropped.
pub fn follow(site: &Site, arguments: &[&str]) -> (Child, Receiver<String>) {
    let mut command = site.tool("logs", arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let (sender, receiver) = channel();
    thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    (child, receiver)
}

/// The next line of a running `logs`.
#[track_caller]
pub fn next(lines: &Receiver<String>) -> String {
    lines.recv_timeout(Duration::from_secs(60)).expect("a line within a minute")
}
