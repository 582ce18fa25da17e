//! logs on a terminal: colours tell instances and programs apart, and nothing that an app prints gets hold of the terminal.

use std::collections::BTreeSet;
use std::fs;

use regex::Regex;

use crate::site::{BRISK, Sample, Site};

/// What a command in a shell prints on a terminal.
fn on_terminal(site: &Site, command: &str) -> String {
    let printed = site.shell(&format!("script --quiet --return --command {command:?} /dev/null")).ok();
    printed.replace("\r\n", "\n")
}

fn several() -> Site {
    let run = "[run]\ncommand = \"exec ./app\"\nprocesses = 2\n[[worker]]\nname = \"mail\"\ncommand = \"sleep 9\"\n";
    let site = Site::roomy(Sample::Static, &format!("{BRISK}{run}"));
    let sources = ["supervise", "0", "1", "mail.0"];
    let text: String = sources.iter().map(|source| format!("2026-11-21T09:30:00.000Z {source} text\n")).collect();
    for log in ["A.log", "B.log"] {
        fs::write(site.home.join("logs").join(log), text.repeat(2)).unwrap();
    }
    site
}

#[test]
fn each_instance_and_program_has_its_colour() {
    let site = several();
    let coloured = Regex::new("^\u{1b}\\[([0-9]+)m([AB][.a-z0-9]*) \\|\u{1b}\\[0m (supervise: )?text$").unwrap();
    let text = on_terminal(&site, "logs");
    let found: Vec<(String, String)> = text
        .lines()
        .map(|line| {
            let parts = coloured.captures(line).unwrap_or_else(|| panic!("{line:?}"));
            (parts[2].to_owned(), parts[1].to_owned())
        })
        .collect();
    let distinct: BTreeSet<&(String, String)> = found.iter().collect();
    let colours: BTreeSet<&String> = distinct.iter().map(|(_, colour)| colour).collect();
    assert_eq!((found.len(), distinct.len(), colours.len()), (16, 8, 8), "{text}");
    // The same when fewer are shown.
    assert_eq!(on_terminal(&site, "logs B.mail"), "text\ntext\n");
    let of_b: String = text.lines().filter(|line| line.contains("mB")).map(|line| format!("{line}\n")).collect();
    assert_eq!(on_terminal(&site, "logs B"), of_b);
}

#[test]
fn there_are_no_colours_where_nobody_wants_them() {
    let site = several();
    let plain = site.run("logs", &[]).ok();
    assert!(plain.starts_with("A | supervise: text\nA.0 | text\n") && !plain.contains('\u{1b}'), "{plain:?}");
    assert_eq!(on_terminal(&site, "NO_COLOR=1 logs"), plain);
    assert!(on_terminal(&site, "NO_COLOR= logs").contains('\u{1b}'));
}

#[test]
fn what_an_app_prints_does_not_get_hold_of_the_terminal() {
    let site = Site::new(Sample::Static, BRISK);
    let hostile =
        "\u{1b}[31mred\u{1b}[0m \u{1b}]0;title\u{7} tab\tnul\0 back\u{8} c1\u{9b}2J half\rline\r\n\u{1b}c\u{1b}\n";
    let lines: String = hostile.lines().map(|line| format!("2026-11-21T09:30:00.000Z 0 {line}\n")).collect();
    fs::write(site.home.join("logs/A.log"), &lines).unwrap();
    fs::write(site.home.join("logs/deploy.log"), &lines).unwrap();
    fs::write(site.home.join("logs/build-20261121T093000Z-1a2b3c4d5e6f.log"), &lines).unwrap();
    let expected =
        "red \u{fffd}]0;title\u{fffd} tab\tnul\u{fffd} back\u{fffd} c1\u{fffd}2J half\u{fffd}line\n\u{fffd}c\u{fffd}\n";
    assert_eq!(on_terminal(&site, "NO_COLOR=1 logs A"), expected);
    for logs in ["logs", "logs A -t", "logs --build", "logs --deploys", "timeout 5 logs -f A; true"] {
        let shown = on_terminal(&site, &format!("NO_COLOR=1; export NO_COLOR; {logs}"));
        assert_eq!(shown.lines().count(), 2, "{shown:?}");
        assert!(!shown.contains(|c: char| c.is_control() && c != '\n' && c != '\t'), "{logs}: {shown:?}");
    }
    // A program gets what there is.
    assert_eq!(site.run("logs", &["A"]).ok(), hostile.replace("\r\n", "\n"));
}
