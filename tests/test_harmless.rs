//! Nothing that others have chosen acts on a person's terminal, whichever tool shows it and wherever it comes from.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::thread;

use serde_json::{Value, json};

use crate::bare_home::BareHome;
use crate::pty::{Pty, typed};
use crate::site::{BRISK, Ports, Sample, Site, built};

/// A title, the clipboard, a cleared screen in 7 and in 8 bits, reversed and hidden text.
const HOSTILE: &str = "\u{1b}]0;t\u{7}\u{1b}]52;c;aGk=\u{1b}\\\u{1b}[2J\u{9b}2J\u{90}q\u{9c} \u{202e}gpj\u{2066}\u{200b}\u{feff}\u{e0041}";

/// Asserts that a text can do nothing but be read, and has something to be read.
#[track_caller]
fn is_harmless(what: &str, text: &str, part: &str) {
    let hidden = "\u{200b}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}\u{feff}\u{e0041}";
    let acts = |c: char| c.is_control() && !matches!(c, '\n' | '\t') || hidden.contains(c);
    let text = text.replace("\r\n", "\n");
    assert!(!text.contains(acts), "{what}: {text:?}");
    assert!(text.contains(part), "{what}: {part:?} is not in {text:?}");
}

/// What a tool prints on a terminal, output and errors.
fn on_terminal(home: &Path, tool: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(built().join(tool));
    command.env_clear().current_dir("/").arg("--home").arg(home).args(arguments);
    typed(command, "")
}

/// A home about which everybody lies who can: an nginx on the status port, a killed tool, whoever pushed, a caller.
fn lied_to() -> (BareHome, Ports) {
    let ports = Ports::claim();
    let (first, second, status) = (ports.first, ports.second, ports.status);
    let home = BareHome::new(&format!(
        "app = \"shop\"\n[instances]\nA = {first}\nB = {second}\n[source]\ngit = \"/nowhere\"\n[run]\ncommand = \"true\"\n\
         [nginx]\nown = true\nstatus_port = {status}\n"
    ));
    home.enable("A");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, status)).unwrap();
    thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let _ = client.read(&mut [0; 1024]);
            let body = format!("nginx {HOSTILE}");
            let head = format!("HTTP/1.1 200 OK\r\nCutover-App: shop\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = client.write_all((head + &body).as_bytes());
        }
    });
    let path = |inside: &str| home.path().join(inside);
    let doing = json!({"tool": format!("tool {HOSTILE}"), "what": HOSTILE, "target": null, "since": 1});
    fs::write(path("run/deploy.lock"), format!("1 {doing}\n")).unwrap();
    fs::create_dir(path("queue")).unwrap();
    let queued = json!({"at": 1, "by": 1, "what": format!("push {HOSTILE}")});
    fs::write(path("queue/push"), queued.to_string()).unwrap();
    let past = json!({
        "at": "2026-11-21T09:30:04Z", "who": format!("who {HOSTILE}"), "what": "deploy", "outcome": "failed",
        "wanted": {"ref": format!("wanted {HOSTILE}"), "origin": "x"}, "from": null, "to": null, "seconds": {"total": 3.136},
        "reason": format!("reason {HOSTILE}"),
    });
    fs::write(path("logs/history.jsonl"), format!("{past}\n")).unwrap();
    (home, ports)
}

#[test]
fn status_and_history_show_what_others_chose_harmlessly() {
    let (home, _ports) = lied_to();
    for (tool, parts) in
        [("status", &["nginx uses nginx ", "tool ", "push "][..]), ("history", &["who ", "wanted ", "reason "])]
    {
        let (shown, piped) = (on_terminal(home.path(), tool, &[]), home.run(tool, &[]).ok());
        for part in parts {
            is_harmless("on a terminal", &shown, part);
            is_harmless("in a file", &piped, part);
        }
        // For programs it is what it was, and harmless all the same.
        let json = home.run(tool, &["--json"]).ok();
        is_harmless("as JSON", &json, "{");
        // Seconds pass meanwhile.
        let timeless = |json: &str| json.replace("\r\n", "\n").replace(|c: char| c.is_ascii_digit() || c == '.', "");
        assert_eq!(timeless(&on_terminal(home.path(), tool, &["--json"])), timeless(&json));
        let read: Value = serde_json::from_str(&json).unwrap();
        let said = if tool == "status" { &read["queued"]["what"] } else { &read[0]["who"] };
        assert!(said.as_str().unwrap().ends_with(HOSTILE), "{said:?}");
    }
}

#[test]
fn status_that_is_watched_shows_what_others_chose_harmlessly() {
    let site = Site::new(Sample::Static, BRISK);
    let doing = json!({"tool": format!("tool {HOSTILE}"), "what": HOSTILE, "target": null, "since": 1});
    fs::write(site.home.join("run/deploy.lock"), format!("1 {doing}\n")).unwrap();
    let pty = Pty::start(&site, "C.UTF-8", (160, 40), "status", &["--watch"]);
    is_harmless("watched", &pty.shows(&["tool "]).join("\n"), "tool ");
}

#[test]
fn the_label_of_a_line_is_harmless_too() {
    let worker = "[[worker]]\nname = \"mail\"\ncommand = \"sleep 9\"\n";
    let home = BareHome::new(&format!(
        "app = \"shop\"\n[source]\ngit = \"/nowhere\"\n[run]\ncommand = \"true\"\n{worker}[nginx]\nown = true\n"
    ));
    let source = HOSTILE.replace(' ', "");
    fs::write(home.path().join("logs/A.log"), format!("2026-11-21T09:30:00.000Z {source} text\n")).unwrap();
    let shown = on_terminal(home.path(), "logs", &["A"]);
    let (label, text) = shown.split_once(" |\u{1b}[0m ").unwrap_or_else(|| panic!("{shown:?}"));
    let colour = label.find("mA.").unwrap_or_else(|| panic!("{shown:?}"));
    is_harmless("behind its colour", &label[colour + 1..], "A.");
    is_harmless("behind its label", text, "text");
    is_harmless("in a file", &home.run("logs", &["A"]).ok(), "| text\n");
}

#[test]
fn errors_and_steps_show_arguments_names_and_paths_harmlessly() {
    let home = BareHome::numbered(7);
    let nowhere = format!("/nowhere/{HOSTILE}");
    for (tool, arguments) in [
        ("deploy", &["--from", &nowhere][..]),
        ("deploy", &["--ref", HOSTILE]),
        ("start-instance", &[HOSTILE]),
        ("logs", &["--grep", &format!("({HOSTILE}")]),
        (HOSTILE, &[]),
    ] {
        let ran = match tool {
            HOSTILE => home.run("status", &[HOSTILE]),
            tool => home.run(tool, arguments),
        };
        assert_ne!(ran.code, 0, "{ran:?}");
        is_harmless(tool, &ran.stderr, ": ");
        assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
    }
}

#[test]
fn install_shows_the_path_of_a_home_harmlessly() {
    let site = Site::unlaid(Sample::Static, "");
    let home = site.directory.path().join("\u{1b}]52;c;aGk=\u{7}\u{1b}[2J\u{9b}2J\u{202e}x").join("home");
    let mut install = site.command(&built().join("install"));
    install.arg("--config").arg(site.config()).arg("--home").arg(&home).arg("--dry-run");
    is_harmless("install --dry-run", &typed(install, ""), "home");
    // The same without a dry run, on stderr.
    let mut install = site.command(&built().join("install"));
    install.arg("--config").arg(site.config()).arg("--home").arg(&home);
    is_harmless("install", &typed(install, "\n"), "home");
}

#[test]
fn words_and_paths_in_a_configuration_hold_nothing_that_acts_on_a_terminal() {
    let base = "app = \"shop\"\n[source]\ngit = \"/nowhere\"\nref = \"main\"\n[run]\ncommand = \"true\"\nenv_file = \"env\"\n\
                [nginx]\nown = true\nserver_name = \"_\"\nconf_dir = \"/etc/nginx\"\n[health]\npath = \"/\"\n\
                [[worker]]\nname = \"mail\"\ncommand = \"true\"\nargs = [\"--all\"]\n\
                [push]\nrepository = \"a/b\"\nbranch = \"main\"\nsecret_file = \"secret\"\n";
    let with_compose = "app = \"shop\"\nrunner = \"compose\"\n[compose]\nfile = \"compose.yml\"\nimage_variable = \"IMAGE\"\n\
                        image = \"user/app\"\nref = \"latest\"\n[nginx]\nown = true\n";
    let keys = [
        (base, "git = \"/nowhere\"", 3),
        (base, "ref = \"main\"", 4),
        (base, "command = \"true\"\nenv", 6),
        (base, "env_file = \"env\"", 7),
        (base, "server_name = \"_\"", 10),
        (base, "conf_dir = \"/etc/nginx\"", 11),
        (base, "path = \"/\"", 13),
        (base, "args = [\"--all\"]", 17),
        (base, "repository = \"a/b\"", 19),
        (base, "branch = \"main\"", 20),
        (base, "secret_file = \"secret\"", 21),
        (with_compose, "file = \"compose.yml\"", 4),
        (with_compose, "image_variable = \"IMAGE\"", 5),
        (with_compose, "image = \"user/app\"", 6),
        (with_compose, "ref = \"latest\"", 7),
    ];
    for (base, setting, line) in keys {
        for hostile in ["\\u001b]52;c;aGk=\\u0007", "\\u009b2J", "\\u0000", "\\u007f", "\\u202e", "\\u2066", "\\u200b"]
        {
            let quote = setting.find('"').unwrap() + 1;
            let changed = format!("{}{hostile}{}", &setting[..quote], &setting[quote..]);
            let home = BareHome::new(&base.replacen(setting, &changed, 1));
            let ran = home.run("status", &[]);
            ran.fails(2, &["status: cannot use ", &format!("config.toml: line {line}: ")]);
            is_harmless(&changed, &ran.stderr, "config.toml");
        }
    }
    // Line ends and tabs belong to commands.
    let command = base.replace("command = \"true\"\nenv", "command = \"true &&\\n\\ttrue\"\nenv");
    assert_ne!(BareHome::new(&command).run("status", &[]).code, 2);
}
