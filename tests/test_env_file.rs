//! The env file: what counts of it, and the lines that are refused because others would read something else.

use std::fs;
use std::process::Command;

use crate::env_lines::PLAIN;
use crate::site::{BRISK, Sample, Site, chmod, eventually};

/// Lines that are read in different ways.
const DOUBTFUL: [(&str, &str); 21] = [
    ("A=x # comment", "a # in a value without quotes"),
    ("A=x#y", "a # in a value without quotes"),
    ("A=#fff", "a # in a value without quotes"),
    ("A='x' # comment", "quotes do not end with it"),
    ("A=\"x\" # comment", "quotes do not end with it"),
    ("A='it's'", "quotes do not end with it"),
    ("A=\"x\"y\"", "quotes do not end with it"),
    ("A=\"x", "quotes do not end with it"),
    ("A='x", "quotes do not end with it"),
    ("A=\"", "quotes do not end with it"),
    ("A=`x`", "quotes do not end with it"),
    ("A=`x`y", "quotes do not end with it"),
    ("A=\"a\\nb\"", "a backslash in double quotes"),
    ("A=a\\ b", "a backslash without quotes"),
    ("A='x\\'", "quotes do not end with it"),
    ("A=~/.shop/key.json", "~ is not expanded here; write the whole path"),
    ("export A=~", "~ is not expanded here"),
    ("export A=mysql://root:$PASSWORD@localhost/x", "what a shell would expand is not expanded here"),
    ("export A=\"${HOME}/x\"", "what a shell would expand is not expanded here"),
    ("export A=$(hostname)", "what a shell would expand is not expanded here"),
    ("export A=\"`hostname`\"", "what a shell would expand is not expanded here"),
];

/// What Node's own reader of such files takes a line for.
fn of_node(lines: &[&str]) -> Vec<Option<String>> {
    let script = "const { parseEnv } = require('util'); \
        console.log(JSON.stringify(JSON.parse(process.argv[1]).map(line => parseEnv(line + '\\n').A ?? null)))";
    let lines = serde_json::to_string(lines).unwrap();
    let ran = Command::new("node").args(["-e", script, &lines]).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    serde_json::from_slice(&ran.stdout).unwrap()
}

#[test]
fn a_line_that_is_taken_is_read_as_by_others() {
    let site = Site::new(Sample::Static, BRISK);
    let lines: Vec<&str> = PLAIN.iter().map(|(line, _)| *line).collect();
    let theirs = of_node(&lines);
    for ((line, value), theirs) in PLAIN.iter().zip(theirs) {
        site.write_env(&format!("# before\n\n{line}\nAFTER=1\n"));
        site.run("deploy", &["--again"]).ok();
        let environment = site.get("/env").1;
        assert!(
            environment.contains(&format!("\nA={value}\n")) || environment.starts_with(&format!("A={value}\n")),
            "{line}: {environment}"
        );
        assert!(environment.contains("AFTER=1\n"), "{line}: {environment}");
        assert_eq!(theirs.as_deref(), Some(*value), "{line}");
    }
}

#[test]
fn a_line_that_others_would_read_otherwise_is_refused_by_its_number() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("deploy", &[]).ok();
    let env = site.home.join("env");
    for (line, why) in DOUBTFUL {
        site.write_env(&format!("# secret\nSECRET=hush\n{line}\n"));
        let told = format!("cannot read env file {} line 3: ", env.display());
        for tool in ["deploy", "reload", "update-instance"] {
            let ran = site.run(tool, &[]);
            ran.fails(2, &[&told, why]);
            assert!(!ran.stderr.contains("hush"), "{ran:?}");
        }
        site.install(&[]).fails(2, &[&told, why]);
    }
    assert_eq!(site.get("/").1, "v1\n");
}

#[test]
fn what_only_the_tools_can_know_is_refused_and_keeps_nothing_from_coming_back() {
    let site = Site::new(Sample::Static, BRISK).with_standby();
    for name in ["PORT", "INSTANCE", "RELEASE", "PROCESS_INDEX", "WORKER", "WORKER_INDEX"] {
        site.write_env(&format!("{name}=3000\n"));
        let told = format!(" line 1: {name} is what the tools give each process");
        site.run("deploy", &[]).fails(2, &[&told]);
    }
    for (text, number) in [
        ("\u{feff}A=x\nB=y\n", 1),
        ("KEY=-----BEGIN KEY-----\nabcd/efgh==\n-----END KEY-----\n", 2),
        ("A: x\n", 1),
        ("set A=x\n", 1),
    ] {
        site.write_env(text);
        let told = format!(" line {number}: expected KEY=VALUE, all of it on one line");
        site.run("deploy", &[]).fails(2, &[&told]);
    }
    site.write_env("PORT=3000\nA=x # comment\n");
    site.run("rollback", &[]).ok();
    site.run("stop-instance", &["--force", "A"]).ok();
    site.run("start-instance", &["A"]).ok();
    site.run("bootup", &[]).ok();
    assert_eq!(site.get("/").1, "v1\n");
    let environment = site.get("/env").1;
    assert!(environment.contains(&format!("PORT={}\n", site.ports.first)), "{environment}");
    assert!(environment.contains("A=x # comment\n"), "{environment}");
}

#[test]
fn host_of_the_env_file_counts_and_what_runs_is_found_all_the_same() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("deploy", &[]).ok();
    assert!(site.get("/env").1.contains("HOST=127.0.0.1\n"));
    site.write_env("HOST=0.0.0.0\n");
    let ran = site.run("reload", &[]);
    assert!(ran.stderr.contains("reload: environment: HOST changed\n"), "{ran:?}");
    ran.ok();
    let environment = site.get("/env").1;
    assert!(environment.contains("HOST=0.0.0.0\n") && !environment.contains("127.0.0.1"), "{environment}");
    // Whoever finds instances by what they were given finds this one.
    let (app, supervise) = (site.pid("B"), site.supervise("B"));
    // It has been told to die by then, and may not have yet.
    site.shell(&format!("kill -9 {supervise}")).ok();
    let new = || {
        site.run("bootup", &[]).ok() == String::new()
            && ![String::new(), format!("{app}\n")].contains(&site.run("pid", &["B"]).stdout)
    };
    eventually("it is back", new);
    // Whoever has to reap it may take a moment.
    eventually("the old one has gone", || !fs::exists(format!("/proc/{app}")).unwrap());
    assert!(site.get("/env").1.contains("HOST=0.0.0.0\n"));
}

#[test]
fn a_program_that_writes_over_its_environment_has_not_changed() {
    // As those do that set their title.
    let script = "import ctypes, os, sys\n\
        from http.server import BaseHTTPRequestHandler, HTTPServer\n\
        start = int(open('/proc/self/stat').read().rsplit(')', 1)[1].split()[47])\n\
        end = int(open('/proc/self/stat').read().rsplit(')', 1)[1].split()[48])\n\
        ctypes.memset(start, ord('x'), end - start)\n\
        class Handler(BaseHTTPRequestHandler):\n\
        \x20   def do_GET(self):\n\
        \x20       self.send_response(200); self.end_headers(); self.wfile.write(b'v\\n')\n\
        HTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()\n";
    let site = Site::new(Sample::Static, &format!("[run]\ncommand = \"exec python3 server.py $PORT\"\n{BRISK}"));
    fs::write(site.source().join("server.py"), script).unwrap();
    site.commit("v1", "");
    site.write_env("COLOUR=blue\n");
    site.run("deploy", &[]).ok();
    let shown = fs::read(format!("/proc/{}/environ", site.pid("A"))).unwrap();
    assert!(shown.starts_with(b"xxx"), "the test's app shows its environment: {:?}", String::from_utf8_lossy(&shown));
    site.run("deploy", &[]).masked(&site).is(0, "", "deploy: already current: A runs RELEASE\n");
    site.write_env("COLOUR=red\n");
    let ran = site.run("reload", &[]);
    assert!(ran.stderr.starts_with("reload: environment: COLOUR changed\n"), "{ran:?}");
}

#[test]
fn what_was_given_counts_until_each_process_was_given_something_else() {
    let site = Site::roomy(Sample::Static, &format!("[run]\ncommand = \"exec ./app\"\nprocesses = 2\n{BRISK}"));
    site.write_env("COLOUR=blue\n");
    site.run("deploy", &[]).ok();
    site.write_env("COLOUR=red\n");
    let told = "what is configured has changed since it was started";
    let restart = |at: usize| {
        let before = crate::test_several::pids(&site, "A");
        site.shell(&format!("kill -9 {}", before[at])).ok();
        crate::site::eventually("it is back", || {
            let ran = site.run("pid", &["A"]);
            ran.stdout.lines().count() == 2 && !ran.stdout.lines().any(|pid| pid == before[at].to_string())
        });
    };
    restart(0);
    assert!(site.run("deploy", &[]).stderr.contains(told), "one has the old value");
    restart(1);
    assert!(!site.run("deploy", &[]).stderr.contains(told), "both have the new one");
}

#[test]
fn programs_are_looked_for_in_the_path_of_the_env_file() {
    let site = Site::unlaid(Sample::Static, &format!("[run]\ncommand = \"exec our-node server.js\"\n{BRISK}"));
    let programs = site.directory.path().join("programs");
    fs::create_dir(&programs).unwrap();
    let program = programs.join("our-node");
    fs::write(&program, "#!/bin/sh\nexec ./app\n").unwrap();
    chmod(&program, 0o755);
    let env = site.home.join("env");
    let missing = "cannot find our-node, which command in [run] begins with, in the PATH that the app gets: install it, or set PATH in ";
    // There is no file yet that could say so.
    let first = site.install(&[]);
    assert!(first.code == 0 && first.stderr.contains(&format!("install: {missing}{}\n", env.display())), "{first:?}");
    site.install(&[]).fails(3, &[missing]);
    site.write_env(&format!("PATH={}:/usr/local/bin:/usr/bin:/bin\n", programs.display()));
    let again = site.install(&[]);
    assert!(again.code == 0 && !again.stderr.contains("cannot"), "{again:?}");
    site.run("deploy", &[]).ok();
    assert_eq!(site.get("/").1, "v1\n");
}

#[test]
fn an_env_file_that_is_named_is_laid_by_the_first_install_and_must_be_there_afterwards() {
    let site =
        Site::unlaid(Sample::Static, &format!("[run]\ncommand = \"exec ./app\"\nenv_file = \"secrets\"\n{BRISK}"));
    site.install(&[]).ok();
    site.run("deploy", &[]).ok();
    fs::remove_file(site.home.join("secrets")).unwrap();
    site.commit("v2", "");
    site.run("deploy", &[]).fails(2, &["it is named by env_file in [run]"]);
    assert_eq!(site.get("/").1, "v1\n");
    site.install(&[]).ok();
    site.run("deploy", &[]).ok();
    assert_eq!(site.get("/").1, "v2\n");
}
