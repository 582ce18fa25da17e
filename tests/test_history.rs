//! history: what was changed, by whom, and how it ended; and what one can go back to.

use std::fs;
use std::os::unix::fs::symlink;

use regex::Regex;
use serde_json::{Value, json};

use crate::bare_home::BareHome;
use crate::site::{BRISK, Ran, Sample, Site, explains_itself};

#[test]
fn it_explains_itself() {
    explains_itself("history", "Print past deploys and rollbacks, the newest first");
    let home = BareHome::numbered(1);
    let reason = "invalid value '0' for '--lines <COUNT>': number would be zero for non-zero type; see history --help";
    home.run("history", &["-n", "0"]).is(2, "", &format!("history: {reason}\n"));
    let reason = "the argument '--releases' cannot be used with '--json'; see history --help";
    home.run("history", &["--releases", "--json"]).is(2, "", &format!("history: {reason}\n"));
}

#[test]
fn it_says_no_when_there_is_nothing_to_tell() {
    let home = BareHome::numbered(1);
    home.run("history", &[]).is(1, "", "history: nothing is recorded yet\n");
    home.run("history", &["--json"]).is(1, "[]\n", "history: nothing is recorded yet\n");
    home.run("history", &["--releases"]).is(1, "", "history: there is no release to go back to\n");
}

#[test]
fn a_table_for_people_and_what_was_recorded_for_programs() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("deploy", &[]).ok();
    site.commit("v2", "");
    site.shell("d=$(disabled-instance); update-instance $d && start-instance $d && connect-to-nginx $d").ok();
    site.run("rollback", &[]).ok();
    site.commit("v3", "exit");
    assert_eq!(site.run("deploy", &["--ref", "main"]).code, 3);

    let user = site.shell("id -un").ok();
    let user = user.trim();
    let died =
        "cannot start B: it died: exit status 3: v3 opens its database | cannot open database: connection refused";
    let expected = [
        "when what outcome took who from to wanted reason".to_owned(),
        format!("WHEN deploy failed TIME {user} A RELEASE B RELEASE main {died}"),
        format!("WHEN rollback done TIME {user} B RELEASE A RELEASE - -"),
        format!("WHEN connect-to-nginx done TIME {user} A RELEASE B RELEASE - -"),
        format!("WHEN deploy done TIME {user} - A RELEASE main -"),
    ];
    let shown = |arguments: &[&str]| lines(&site.run("history", arguments).masked(&site));
    assert_eq!(shown(&[]), expected);
    assert_eq!(shown(&["-n", "2"]), expected[..3]);

    let recorded = fs::read_to_string(site.home.join("logs/history.jsonl")).unwrap();
    let mut recorded: Vec<&str> = recorded.lines().collect();
    recorded.reverse();
    let told = |arguments: &[&str]| {
        let all: Vec<Value> = serde_json::from_str(&site.run("history", arguments).ok()).unwrap();
        all.iter().map(Value::to_string).collect::<Vec<_>>()
    };
    assert_eq!(told(&["--json"]), recorded);
    assert_eq!(told(&["--json", "--lines=1"]), recorded[..1]);
    site.run_unread("history", &[]).is(0, "", "");
}

#[test]
fn one_can_go_back_to_each_release_that_it_names() {
    let site = Site::new(Sample::Static, BRISK);
    for version in ["v1", "v2", "v3"] {
        site.commit(version, "");
        site.run("deploy", &[]).ok();
    }
    site.commit("v4", "exit");
    assert_eq!(site.run("deploy", &[]).code, 3);
    let versions = |releases: &str| {
        let version = |id: &str| fs::read_to_string(site.home.join("releases").join(id).join("VERSION")).unwrap();
        releases.lines().map(version).collect::<String>()
    };
    assert_eq!(
        versions(&site.run("history", &["--releases"]).ok()),
        "v2\nv1\n",
        "neither what serves nor what never did"
    );
    site.shell("rollback --to $(history --releases | tail -n 1)").ok();
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
    assert_eq!(versions(&site.run("history", &["--releases"]).ok()), "v3\nv2\n");
}

#[test]
fn a_release_to_go_back_to_has_served_or_is_the_standbys_and_is_still_there() {
    let home = BareHome::numbered(1);
    let id = |number: u8| format!("20260101T00000{number}Z-abc");
    for number in 1..=7 {
        if number != 2 {
            fs::create_dir(home.path().join("releases").join(id(number))).unwrap();
        }
    }
    let give = |instance: &str, number: u8| {
        symlink(format!("../releases/{}", id(number)), home.path().join("instances").join(instance)).unwrap();
    };
    give("A1", 6);
    let side = |number: u8| json!({"instance": "A1", "release": id(number)});
    record(
        &home,
        &[
            change(json!({"from": side(1), "to": side(2), "outcome": "done"})),
            change(json!({"from": side(2), "to": side(3), "outcome": "failed"})),
            change(json!({"from": side(2), "to": side(4), "outcome": "rolled back"})),
            change(json!({"from": {"instance": "B1", "release": null}, "to": side(5), "outcome": "done"})),
            change(json!({"from": side(5), "to": side(6), "outcome": "done"})),
        ],
    );
    home.run("history", &["--releases"]).is(0, &format!("{}\n{}\n", id(5), id(1)), "");
    give("B1", 7);
    home.run("history", &["--releases"]).is(0, &format!("{}\n{}\n{}\n", id(7), id(5), id(1)), "");
    home.enable("B1");
    home.run("history", &["--releases"]).is(0, &format!("{}\n{}\n{}\n", id(6), id(5), id(1)), "");
    home.enable("C");
    home.run("history", &["--releases"]).fails(3, &["history: cannot tell what is enabled: ", " names C, no instance"]);
}

#[test]
fn what_is_no_whole_line_is_skipped_and_rotated_files_are_read() {
    let home = BareHome::numbered(1);
    let whole = |who: &str| change(json!({"who": who}));
    let torn = &whole("torn")[..40];
    record(&home, &[whole("one"), torn.to_owned(), "\0\0".to_owned(), "5".to_owned(), "{}".to_owned(), whole("two")]);
    let log = home.path().join("logs/history.jsonl");
    fs::rename(&log, log.with_extension("jsonl.1")).unwrap();
    record(&home, &[whole("three"), torn.to_owned()]);
    let who = |arguments: &[&str]| {
        let told: Vec<Value> = serde_json::from_str(&home.run("history", arguments).ok()).unwrap();
        told.iter().map(|change| change["who"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(who(&["--json"]), ["three", "two", "one"]);
    assert_eq!(who(&["--json", "-n", "2"]), ["three", "two"]);
}

#[test]
fn a_record_behind_half_a_record_is_a_line_of_its_own() {
    let site = Site::new(Sample::Static, BRISK);
    fs::write(site.home.join("logs/history.jsonl"), "{\"at\":\"2026-01-01T00:0").unwrap();
    site.run("deploy", &[]).ok();
    let told: Value = serde_json::from_str(&site.run("history", &["--json"]).ok()).unwrap();
    assert_eq!(told.as_array().unwrap().len(), 1);
    site.run("deploy", &["--if-new"]).is(0, "", "");
}

#[test]
fn whatever_is_recorded_is_a_line_and_cannot_command_the_terminal() {
    let home = BareHome::numbered(1);
    let reason = format!("first \u{1b}[31mred\u{7}\nsecond {}", "x".repeat(500));
    let origin = "/tmp/a\u{1b}]0;title\u{7}";
    record(
        &home,
        &[
            change(json!({"who": "a\nb", "reason": reason, "wanted": {"ref": null, "origin": origin}})),
            change(json!({"seconds": {"total": -1.0}, "reason": "y".repeat(500)})),
            change(json!({"seconds": {"total": 1e300}, "later": "unknown"})),
            change(json!({"seconds": {"total": "long"}, "from": null, "to": null})),
        ],
    );
    let told = home.run("history", &[]);
    assert_eq!((told.code, told.stderr.as_str()), (0, ""));
    let long = "y".repeat(200);
    assert_eq!(
        lines(&told)[1..],
        [
            "WHEN deploy done - me - - - -".to_owned(),
            "WHEN deploy done - me - A1 - - -".to_owned(),
            format!("WHEN deploy done - me - A1 - - {long}…"),
            "WHEN deploy done 1.0 s a - A1 - /tmp/aitle first red".to_owned(),
        ]
    );
    let all: Value = serde_json::from_str(&home.run("history", &["--json"]).ok()).unwrap();
    assert_eq!((&all[3]["reason"], &all[1]["later"]), (&json!(reason), &json!("unknown")));
}

/// A line of the record in which these keys have these values.
fn change(keys: Value) -> String {
    let mut line = json!({
        "at": "2026-01-01T00:00:00Z", "who": "me", "what": "deploy", "wanted": null, "from": null,
        "to": {"instance": "A1", "release": null}, "seconds": {"total": 1.0}, "outcome": "done", "reason": null
    });
    line.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    line.to_string()
}

/// Writes a record of these lines; the last one has no end.
fn record(home: &BareHome, lines: &[String]) {
    fs::write(home.path().join("logs/history.jsonl"), lines.join("\n")).unwrap();
}

/// The lines of a table with its columns closed up, and the times replaced.
fn lines(ran: &Ran) -> Vec<String> {
    let time = Regex::new("^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z").unwrap();
    let close = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    ran.stdout.lines().map(|line| time.replace(&close(line), "WHEN").into_owned()).collect()
}
