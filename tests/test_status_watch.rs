//! status --watch: on a real terminal it shows everything as it changes, and leaves the terminal as it was.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::pty::{ENTER, LEAVE, Pty};
use crate::site::{BRISK, Sample, Site, eventually};

const WORKERS: &str = "[[worker]]\nname = \"mail\"\ncommand = \"exec sleep 1000\"\ncount = 2\n";
const WIDE: (u16, u16) = (160, 40);

fn site(more: &str) -> Site {
    let site = Site::new(Sample::Static, &format!("{BRISK}{more}"));
    site.run("deploy", &[]).ok();
    site
}

fn watch(site: &Site, size: (u16, u16)) -> Pty {
    Pty::start(site, "C.UTF-8", size, "status", &["--watch"])
}

/// The line of the screen that begins like this.
#[track_caller]
fn line(screen: &[String], begin: &str) -> String {
    let found = screen.iter().find(|line| line.trim_start().starts_with(begin));
    found.unwrap_or_else(|| panic!("no line begins with {begin:?}: {screen:#?}")).clone()
}

#[track_caller]
fn fits(screen: &[String], (width, height): (u16, u16)) {
    assert!(screen.len() <= height.into(), "{screen:#?}");
    assert!(screen.iter().all(|line| line.chars().count() <= width.into()), "{screen:#?}");
}

/// Asserts that the program has ended, and that nobody can tell that it was there.
#[track_caller]
fn is_left_clean(pty: &mut Pty) {
    assert_eq!(pty.code(), Some(0), "{}", pty.written());
    eventually("the terminal is given back", || pty.written().ends_with(LEAVE));
    assert_eq!(pty.written().matches(LEAVE).count(), pty.written().matches(ENTER).count());
    assert!(pty.now() == pty.before, "{:?} {:?}", pty.now(), pty.before);
}

#[test]
fn it_shows_both_instances_their_programs_and_the_last_deploys() {
    let site = site(WORKERS);
    let mut pty = watch(&site, WIDE);
    let screen = pty.shows(&["shop: A is enabled", "nginx: 0 requests/s, 0 in flight", "UTC   q quits"]);
    assert!(pty.written().starts_with(ENTER), "{:?}", pty.written());
    fits(&screen, WIDE);
    let status = site.status();
    let told = &status["instances"][0];
    let release = told["release"].as_str().unwrap();
    assert!(line(&screen, "A  enabled, ").contains(", healthy in "), "{screen:#?}");
    assert!(line(&screen, "B  disabled, ").ends_with(" 0 connections, does not listen"), "{screen:#?}");
    let of_a = line(&screen, "version ");
    assert!(of_a.contains(&format!(", release {release}, ")) && of_a.ends_with("s old"), "{of_a}");
    line(&screen, "no release");
    let programs = [("processes", 0, "0 "), ("workers", 0, "mail.0 "), ("workers", 1, "mail.1 ")];
    for (kind, at, begin) in programs {
        let (shown, told) = (line(&screen, begin), &told[kind][at]);
        let words: Vec<&str> = shown.split_whitespace().collect();
        let port = told["port"].as_u64().map_or("-".to_owned(), |port| port.to_string());
        assert_eq!(words[1..3], [port.as_str(), &told["pid"].to_string()], "{shown}");
        assert!(shown.contains('%') && shown.contains('▁') && shown.ends_with("0  -"), "{shown}");
        assert!([" kB", " MB"].iter().any(|unit| shown.contains(unit)), "{shown}");
    }
    let deploy = screen.last().unwrap();
    assert!(deploy.contains("Z  deploy  done  ") && deploy.ends_with(&format!("  A {release}")), "{deploy}");
    pty.press("q");
    is_left_clean(&mut pty);
}

#[test]
fn it_shows_what_changes_meanwhile() {
    let site = site(WORKERS);
    let mut pty = watch(&site, WIDE);
    pty.shows(&["A is enabled", "0 requests/s"]);
    let load = site.load();
    eventually("requests are counted", || {
        let rate = pty.screen().get(1).and_then(|line| line.split(' ').nth(1)?.parse::<f64>().ok());
        rate.is_some_and(|rate| rate > 50.0)
    });
    site.commit("v2", "");
    site.run("deploy", &[]).ok();
    load.stop();
    pty.shows(&["B is enabled", "B  enabled", "A  disabled"]);
    eventually("the second deploy is written down", || {
        pty.screen().iter().filter(|line| line.contains("  deploy  done  ")).count() == 2
    });
    let worker = site.status()["instances"][1]["workers"][1]["pid"].to_string();
    site.shell(&format!("kill -9 {worker}")).ok();
    let screen = pty.shows(&["killed by SIGKILL, "]);
    assert!(line(&screen, "mail.1").contains(" 1  killed by SIGKILL, "), "{screen:#?}");
    pty.press("q");
    is_left_clean(&mut pty);
}

#[test]
fn a_program_that_computes_is_seen_to() {
    let busy = "[[worker]]\nname = \"busy\"\ncommand = \"while :; do :; done\"\n";
    let site = site(busy);
    let pty = watch(&site, WIDE);
    let percent = |begin: &str| {
        let screen = pty.screen();
        let shown = screen.iter().find(|line| line.trim_start().starts_with(begin))?;
        shown.split_once('%')?.0.rsplit(' ').next()?.parse::<f64>().ok()
    };
    eventually("one computes", || percent("busy.0").is_some_and(|percent| percent > 5.0));
    assert!(percent("0 ").unwrap() < 50.0, "{:#?}", pty.screen());
    assert!(percent("busy.0").unwrap() < 120.0, "{:#?}", pty.screen());
}

#[test]
fn it_follows_the_size_of_the_terminal_and_never_exceeds_it() {
    let site = site(WORKERS);
    let mut pty = watch(&site, WIDE);
    pty.shows(&["A is enabled"]);
    // The last one, one column in one line, has room for nothing that could be recognised.
    for (size, shown) in [((60, 12), "q quits"), ((20, 5), "A is enabled"), ((300, 100), "mail.1"), ((1, 1), "s")] {
        pty.resize(size.0, size.1);
        eventually("it is drawn in the new size", || {
            let screen = pty.screen();
            screen.len() <= size.1.into()
                && screen.iter().all(|line| line.chars().count() <= size.0.into())
                && screen.concat().contains(shown)
        });
    }
    pty.resize(60, 7);
    let screen = pty.shows(&[" lines have no room   q quits", "A  enabled", "B  disabled"]);
    fits(&screen, (60, 7));
    pty.press("q");
    is_left_clean(&mut pty);
}

#[test]
fn whatever_ends_it_the_terminal_is_left_as_it_was() {
    let site = site("");
    let ends: [fn(&mut Pty); 6] = [
        |pty| pty.press("q"),
        |pty| pty.press("xyzQ"),
        |pty| pty.press("\x03"),
        |pty| pty.signal(Signal::SIGINT),
        |pty| pty.signal(Signal::SIGTERM),
        |pty| pty.signal(Signal::SIGHUP),
    ];
    for end in ends {
        let mut pty = watch(&site, WIDE);
        pty.shows(&["A is enabled"]);
        assert!(pty.now() != pty.before, "keys are read one by one");
        end(&mut pty);
        is_left_clean(&mut pty);
    }
}

#[test]
fn a_hung_instance_does_not_hold_the_keys_back() {
    let site = site("");
    site.shell(&format!("kill -STOP {}", site.pid("A"))).ok();
    let mut pty = watch(&site, WIDE);
    eventually("it looks", || !pty.screen().is_empty());
    pty.press("q");
    is_left_clean(&mut pty);
    assert!(!pty.written().contains("is enabled"), "it waited for the hung instance: {}", pty.written());
    site.shell(&format!("kill -CONT {}", site.pid("A"))).ok();
}

#[test]
fn an_error_is_told_after_the_terminal_was_given_back() {
    let site = site("");
    let mut pty = watch(&site, WIDE);
    pty.shows(&["A is enabled"]);
    fs::remove_file(site.home.join("state/enabled")).unwrap();
    std::os::unix::fs::symlink("C", site.home.join("state/enabled")).unwrap();
    assert_eq!(pty.code(), Some(3));
    let told = |pty: &Pty| pty.written().rsplit_once(LEAVE).map(|(_, rest)| rest.to_owned()).unwrap_or_default();
    eventually("it is told", || told(&pty).ends_with("names C, no instance\r\n"));
    assert!(told(&pty).starts_with("status: cannot tell what is enabled: "), "{}", told(&pty));
    assert!(pty.now() == pty.before);
}

#[test]
fn it_can_be_stopped_and_let_go_on() {
    let site = site("");
    let shell = site.home.join("bin/stopping-shell");
    fs::write(&shell, "#!/bin/bash -m\nstatus --watch\necho stopped\nread -r line\nfg\n").unwrap();
    crate::site::chmod(Path::new(&shell), 0o755);
    let mut pty = Pty::start(&site, "C.UTF-8", WIDE, "stopping-shell", &[]);
    pty.shows(&["A is enabled"]);
    pty.press("\x1a");
    eventually("it stops", || pty.written().contains("stopped\r\n"));
    let written = pty.written();
    assert!(written.rfind(LEAVE) > written.rfind(ENTER), "{written:?}");
    assert!(pty.now() == pty.before);
    pty.press("\n");
    eventually("it goes on", || pty.written().rsplit(LEAVE).next().is_some_and(|rest| rest.contains("A is enabled")));
    pty.press("q");
    is_left_clean(&mut pty);
}

#[test]
fn bars_are_ascii_where_the_locale_is() {
    let site = site("");
    let pty = Pty::start(&site, "C", WIDE, "status", &["--watch"]);
    let screen = pty.shows(&["%", "__"]);
    assert!(screen.concat().is_ascii(), "{screen:#?}");
}

#[test]
fn without_keys_a_signal_ends_it() {
    let site = site("");
    let shell = site.home.join("bin/keyless");
    fs::write(&shell, "#!/bin/sh\nexec status --watch </dev/null\n").unwrap();
    crate::site::chmod(Path::new(&shell), 0o755);
    let mut pty = Pty::start(&site, "C.UTF-8", WIDE, "keyless", &[]);
    pty.shows(&["A is enabled", "0 requests/s"]);
    pty.signal(Signal::SIGTERM);
    is_left_clean(&mut pty);
}

/// An nginx that was laid by an earlier version of install, or cannot count.
#[test]
fn where_nginx_does_not_count_it_says_so() {
    let site = site("");
    let laid = site.home.join("nginx/conf.d/shop.conf");
    let text = fs::read_to_string(&laid).unwrap();
    assert!(text.contains("stub_status;"), "{text}");
    fs::write(&laid, text.replace("stub_status;", "return 404;")).unwrap();
    site.shell("kill -HUP $(cat .shop/nginx/nginx.pid)").ok();
    let pty = watch(&site, WIDE);
    pty.shows(&["nginx: requests not known: it does not count them; one that can does after install was run again"]);
}
