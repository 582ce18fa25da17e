//! That a failed deploy says what is wrong, and a slow one what it waits for.

use std::fs;
use std::net::TcpStream;

use crate::site::{BRISK, Sample, Site, chmod};

/// A site whose source has this file besides, run and built by these commands.
fn site(name: &str, text: &str, run: &str, build: &str) -> Site {
    let health = "[health]\ntimeout = \"3s\"\n";
    let site =
        Site::new(Sample::Static, &format!("[run]\ncommand = {run:?}\n[build]\ncommand = {build:?}\n{health}{BRISK}"));
    fs::write(site.source().join(name), text).unwrap();
    site.commit("v1", "");
    site
}

#[test]
fn what_is_quoted_is_the_reason_and_no_stack_or_epilogue() {
    let deep = "function deep(n) { if (!n) throw new Error('connect ECONNREFUSED 127.0.0.1:5432'); deep(n - 1); }\n\
        process.on('uncaughtException', error => { console.error(error.stack); process.exit(1); });\ndeep(12);\n";
    let python = "def deep(n):\n    if n == 0:\n        raise RuntimeError('no database')\n    deep(n - 1)\ndeep(30)\n";
    let package = "{\"name\":\"x\",\"version\":\"1.0.0\",\"dependencies\":{\"express\":\"4\"}}";
    let cases = [
        ("missing.js", "require('express');", "exec node missing.js", "true", "Error: Cannot find module 'express'"),
        ("deep.js", deep, "exec node deep.js", "true", "Error: connect ECONNREFUSED 127.0.0.1:5432"),
        ("deep.py", python, "exec python3 deep.py", "true", "RuntimeError: no database"),
        ("package.json", package, "exec ./app", "npm ci", "can only install with an existing package-lock.json"),
    ];
    for (name, text, run, build, reason) in cases {
        let ran = site(name, text, run, build).run("deploy", &[]);
        ran.fails(3, &[reason]);
        for noise in ["requireStack", "    at ", " | at ", "A complete log", "Node.js v", "File \""] {
            assert!(!ran.stderr.contains(noise), "{noise:?} is in {ran:?}");
        }
    }
}

#[test]
fn an_app_that_listens_elsewhere_is_told_where() {
    let site = Site::unlaid(Sample::Static, "");
    let (other, wanted) = (site.ports.push, site.ports.first);
    site.write_config(&format!("[run]\ncommand = \"exec ./app --port={other}\"\n[health]\ntimeout = \"2s\"\n{BRISK}"));
    site.install(&[]).ok();
    let told = format!(
        "connection refused; it listens on 127.0.0.1:{other}, where nobody asks: it must be port {wanted} of 127.0.0.1"
    );
    site.run("deploy", &[]).fails(124, &["not healthy within 2.", &told]);
    let serving = "exec python3 -m http.server $PORT --bind ::1";
    site.write_config(&format!("[run]\ncommand = \"{serving}\"\n[health]\ntimeout = \"2s\"\n{BRISK}"));
    site.install(&[]).ok();
    let told = format!("it listens on [::1]:{wanted}, where nobody asks: it must be port {wanted} of 127.0.0.1");
    site.run("deploy", &[]).fails(124, &["not healthy within 2.", &told]);
}

#[test]
fn a_drain_and_a_hook_are_told_as_they_begin() {
    let site = Site::new(Sample::Static, "[deploy]\nsoak = \"100ms\"\ndrain_timeout = \"3s\"\n").with_standby();
    let hook = site.home.join("hooks/before-connect");
    fs::write(&hook, "#!/bin/sh\nexit 0\n").unwrap();
    chmod(&hook, 0o755);
    let held = TcpStream::connect(("127.0.0.1", site.ports.first)).unwrap();
    site.commit("v3", "");
    let ran = site.run("deploy", &[]);
    drop(held);
    assert_eq!(ran.code, 0, "{ran:?}");
    for line in [
        "deploy: connections of A that are open: 1; they have up to 3.0 s (drain_timeout)\n",
        "deploy: running hooks/before-connect\n",
    ] {
        assert!(ran.stderr.contains(line), "{line:?} is not in {ran:?}");
    }
    // Where there is nothing to wait for, nothing is said.
    site.commit("v4", "");
    let ran = site.run("deploy", &[]);
    assert!(ran.code == 0 && !ran.stderr.contains("drain_timeout"), "{ran:?}");
}
