//! Words that others choose, where nobody has looked for them yet: what builds, hooks, apps, health checks, git servers,
//! branches, releases and webhooks say does nothing to the terminal of the person who reads it.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::git_server::{GitServer, Serves};
use crate::pty::typed;
use crate::ran::Ran;
use crate::site::{BRISK, Sample, Site, chmod, eventually};
use crate::webhook::signature;

/// For printf: a title, the clipboard with both ends, a cleared screen in 7 bits, in UTF-8 and as a bare byte, a carriage
/// return over the line, reversed and hidden text, a tag, no UTF-8, and the end of an alternate screen.
const HOSTILE: &str = r"\033]0;t\007\033]52;c;aGk=\033\134\033[2J\302\2332J\2332J begin\rover \342\200\256gpj\342\201\246\342\200\213\357\273\277\363\240\201\201\377\376\033[?1049l\033Pq\302\234 \033[8m end";

/// The same as text, of which git lets branches have the part above U+007F.
const BRANCH: &str = "odd\u{9b}2J\u{202e}gpj\u{2066}\u{200b}\u{feff}\u{e0041}\u{85}end";

/// Asserts that a text can do nothing but be read, and that the part is there to be read.
#[track_caller]
fn is_harmless(what: &str, text: &str, part: &str) {
    let hidden = "\u{200b}\u{200e}\u{200f}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}\u{feff}\u{e0041}\u{2028}\u{2029}";
    let acts = |c: char| c.is_control() && !matches!(c, '\n' | '\t') || hidden.contains(c);
    let text = text.replace("\r\n", "\n");
    assert!(!text.contains(acts), "{what}: {text:?}");
    assert!(text.contains(part), "{what}: {part:?} is not in {text:?}");
}

/// What a tool shows on a terminal, without the colours of its own where it has some.
fn on_terminal(site: &Site, tool: &str, arguments: &[&str]) -> String {
    let mut command = site.tool(tool, arguments);
    command.env("NO_COLOR", "1");
    typed(command, "")
}

/// Asserts that all tools that tell what has happened tell it harmlessly.
#[track_caller]
fn looks_are_harmless(what: &str, site: &Site, part: &str) {
    for (tool, arguments, part) in [
        ("history", &[][..], part),
        ("status", &[], "shop"),
        ("logs", &["--deploys", "-n", "50"], "deploy"),
        ("logs", &["--build"], ""),
        ("logs", &["A"], ""),
        ("logs", &["B"], ""),
    ] {
        is_harmless(&format!("{what}: {tool} {arguments:?}"), &on_terminal(site, tool, arguments), part);
    }
    for tool in ["history", "status"] {
        is_harmless(&format!("{what}: {tool} --json"), &on_terminal(site, tool, &["--json"]), "");
    }
}

/// A site whose first release serves, and whose next deploy does this.
fn served(extra: &str) -> Site {
    let site = Site::new(Sample::Static, &format!("{BRISK}{extra}"));
    site.run("deploy", &[]).ok();
    site
}

#[test]
fn a_build_that_fails_says_so_harmlessly() {
    let site = served("[build]\ncommand = \"test ! -e talk || sh talk\"\n");
    fs::write(site.source().join("talk"), format!("printf '{HOSTILE}'\nprintf '{HOSTILE}\\n' >&2\nexit 3\n")).unwrap();
    site.commit("v2", "");
    let shown = on_terminal(&site, "deploy", &[]);
    is_harmless("deploy", &shown, "exit status 3: ");
    looks_are_harmless("a build", &site, "exit status 3: ");
    is_harmless("update-instance", &on_terminal(&site, "update-instance", &[]), "exit status 3: ");
}

#[test]
fn a_hook_that_fails_says_so_harmlessly() {
    let site = served("");
    for hook in ["before-build", "before-connect", "after-deploy", "on-failure"] {
        let path = site.home.join("hooks").join(hook);
        fs::write(&path, format!("#!/bin/sh\nprintf '{HOSTILE}\\n'\nexit 4\n")).unwrap();
        chmod(&path, 0o755);
        // The last one runs when a deploy fails.
        site.commit(hook, if hook == "on-failure" { "exit" } else { "" });
        is_harmless(hook, &on_terminal(&site, "deploy", &[]), "exit status 4");
        looks_are_harmless(hook, &site, "");
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn an_app_that_dies_says_so_harmlessly_whenever_it_dies() {
    let run = "[run]\ncommand = \"test ! -e talk || sh talk; exec ./app\"\nstop_timeout = \"2s\"\n";
    let site = served(run);
    fs::write(site.source().join("talk"), format!("printf '{HOSTILE}' >&2\nkill -9 $PPID; exit 3\n")).unwrap();
    site.commit("v2", "");
    is_harmless("deploy", &on_terminal(&site, "deploy", &[]), "killed by SIGKILL");
    looks_are_harmless("an app", &site, "killed by SIGKILL");
    site.run("update-instance", &[]).ok();
    is_harmless("start-instance", &on_terminal(&site, "start-instance", &["B"]), "killed by SIGKILL");
    is_harmless("rollback", &on_terminal(&site, "rollback", &[]), "killed by SIGKILL");
}

/// It answers with what is hostile, in a field and in its body.
const ILL: &str = r#"
import os, socket
text = open("hostile", "rb").read()
listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
while True:
    client = listener.accept()[0]
    client.recv(65536)
    client.sendall(b"HTTP/1.1 503 Ill\r\nLocation: /\xe2\x80\xaegpj\xc2\x9b2J\xff\r\nContent-Length: %d\r\n\r\n" % len(text) + text)
    client.close()
"#;

#[test]
fn a_health_checks_answer_is_shown_harmlessly() {
    let run = "[run]\ncommand = \"test ! -e ill.py || exec python3 ill.py; exec ./app\"\nstop_timeout = \"2s\"\n";
    let site = served(&format!("{run}[health]\ntimeout = \"2s\"\n"));
    fs::write(site.source().join("ill.py"), ILL).unwrap();
    site.shell(&format!("printf '{HOSTILE}' >source/hostile")).ok();
    site.commit("v2", "");
    is_harmless("deploy", &on_terminal(&site, "deploy", &[]), "status 503: ");
    looks_are_harmless("a health check", &site, "status 503: ");
    site.run("update-instance", &[]).ok();
    // It is asked about on a terminal.
    site.reconfigure("timeout = \"2s\"", "timeout = \"60s\"");
    let mut start = site.tool("start-instance", &["B"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("it answers", || site.status()["instances"][1]["health"].as_str().unwrap().starts_with("status 503"));
    looks_are_harmless("an ill instance", &site, "status 503: ");
    start.kill().unwrap();
    start.wait().unwrap();
    is_harmless("connect-to-nginx", &typed(site.tool("connect-to-nginx", &["B"]), "n\n"), "status 503: ");
}

#[test]
fn a_branch_and_a_tag_may_have_any_name_and_are_shown_harmlessly() {
    let site = served("");
    for (number, kind) in ["heads", "tags"].iter().enumerate() {
        site.commit(&format!("v{}", number + 2), "");
        site.git(&["update-ref", &format!("refs/{kind}/{BRANCH}"), "HEAD"]);
        is_harmless(kind, &on_terminal(&site, "deploy", &["--ref", BRANCH]), "is enabled");
        site.git(&["update-ref", "-d", &format!("refs/{kind}/{BRANCH}")]);
        looks_are_harmless(kind, &site, "odd");
        let piped = site.run("deploy", &["--ref", &format!("{BRANCH}-none")]);
        assert_eq!(piped.code, 3, "{piped:?}");
        is_harmless(kind, &piped.stderr, "cannot find ref");
    }
    // What a commit is called is nobody's business.
    site.git(&["commit", "--quiet", "--allow-empty", "--message", &format!("\u{1b}]52;c;aGk=\u{7}{BRANCH}")]);
    is_harmless("a commit's subject", &on_terminal(&site, "deploy", &[]), "is enabled");
}

#[test]
fn whatever_lies_among_the_releases_is_shown_harmlessly() {
    let site = served("").with_standby();
    let releases = site.home.join("releases");
    for name in
        ["20261121T093000Z-\u{1b}[2J\u{9b}2J\u{202e}", "20261121T093001Z-abc\rover", "\u{7}", ".left-\u{1b}]0;t\u{7}"]
    {
        fs::create_dir(releases.join(name)).unwrap();
        let ran = site.run("rollback", &["--to", name]);
        assert!(ran.code != 0, "{ran:?}");
        is_harmless(name, &on_terminal(&site, "rollback", &["--to", name]), "rollback: ");
    }
    is_harmless("history --releases", &on_terminal(&site, "history", &["--releases"]), "");
    // An instance's link may lead anywhere below them.
    let link = site.home.join("instances/A");
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("../releases/20261121T093000Z-\u{1b}[2J\u{9b}2J\u{202e}", &link).unwrap();
    for tool in ["status", "start-instance", "rollback", "logs"] {
        is_harmless(tool, &on_terminal(&site, tool, if tool == "start-instance" { &["A"] } else { &[] }), "");
    }
}

#[test]
fn what_a_git_server_says_is_shown_harmlessly() {
    let says = "no \u{1b}]52;c;aGk=\u{7}\u{1b}[2J\u{9b}2J\u{202e}x\rover\n".repeat(3);
    let server = GitServer::start(Serves::Refusal { says }, Duration::ZERO);
    let source = format!("[source]\ngit = \"http://127.0.0.1:{}/p.git\"\n", server.port);
    let site = Site::new(Sample::Static, &format!("{source}{BRISK}"));
    for (tool, arguments) in [("deploy", &[][..]), ("deploy", &["--if-new"]), ("update-instance", &["--ref", "v1"])] {
        is_harmless(tool, &on_terminal(&site, tool, arguments), "cannot ");
    }
    looks_are_harmless("a git server", &site, "");
}

#[test]
fn a_variable_with_an_odd_name_is_told_harmlessly() {
    let site = served("");
    for name in ["A\u{1b}[2J", "A\u{9b}2J", "\u{202e}A", "A\rB", "A\u{200b}"] {
        site.write_env(&format!("{name}=secret-value\n"));
        let ran = site.run("reload", &[]);
        assert!(!ran.stderr.contains("secret-value"), "{ran:?}");
        is_harmless(name, &on_terminal(&site, "reload", &[]), "reload: ");
        looks_are_harmless(name, &site, "");
    }
}

/// What on-push says of a signed request with these words in it.
fn pushed(site: &Site, event: &str, body: &str, more: &str) -> Ran {
    let secret = fs::read_to_string(site.home.join("push-secret")).unwrap();
    let request = format!(
        "POST /.cutover/push HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nX-GitHub-Event: {event}\r\n{more}\
         X-Hub-Signature-256: sha256={}\r\nContent-Length: {}\r\n\r\n{body}",
        signature(secret.trim().as_bytes(), body.as_bytes()),
        body.len()
    );
    let file = site.directory.path().join("request");
    fs::write(&file, request).unwrap();
    let mut command: Command = site.tool("on-push", &[]);
    Ran::of(&command.stdin(fs::File::open(file).unwrap()).output().unwrap())
}

#[test]
fn what_a_webhook_says_is_told_harmlessly() {
    let site = Site::new(Sample::Static, &format!("{BRISK}[push]\nrepository = \"octo/shop\"\nport = PUSH_PORT\n"));
    site.run("deploy", &[]).ok();
    let odd = "a\\u001b]52;c;aGk=\\u0007\\u009b2J\\u202eb\\r\\nover\\u200b";
    let commit = "6113728f27ae82c7b1a177c8d03f9e96e0adf246";
    for (event, reference, after, repository, name, more) in [
        ("push", "refs/heads/main", commit, "octo/shop", odd, ""),
        ("push", &*format!("refs/heads/{odd}"), commit, "octo/shop", "alice", ""),
        ("push", "refs/heads/main", odd, "octo/shop", "alice", ""),
        ("push", "refs/heads/main", commit, odd, "alice", ""),
        ("ping", "refs/heads/main", commit, "octo/shop", odd, "X-GitHub-Delivery: a\u{9b}2J\u{202e}\r\n"),
        ("od\u{9b}2J\u{202e}d", "refs/heads/main", commit, "octo/shop", odd, ""),
    ] {
        let body = format!(
            r#"{{"ref":"{reference}","after":"{after}","deleted":false,"repository":{{"full_name":"{repository}"}},"pusher":{{"name":"{name}"}}}}"#
        );
        let ran = pushed(&site, event, &body, more);
        is_harmless(event, &ran.stderr, "on-push: ");
        assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
        is_harmless(event, &on_terminal(&site, "status", &[]), "shop");
    }
    eventually("the push is worked off", || site.has_worked_off());
    looks_are_harmless("a webhook", &site, "");
    let log = fs::read_to_string(site.home.join("logs/push.log")).unwrap_or_default();
    is_harmless("push.log", &log, "");
}
