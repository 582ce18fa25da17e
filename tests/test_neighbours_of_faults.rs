//! What is said is so, and what failed is mended: neighbours of the known faults of nginx's files, the state directory, last
//! words, the way back and the standby that stands in.

use std::fs;
use std::process::Stdio;

use crate::ran::Ran;
use crate::server::Server;
use crate::site::{BRISK, Sample, Site, eventually};

const HOME: &str = "/home/potados/.cafeteria";

#[test]
fn whatever_became_of_one_of_nginxs_files_install_puts_it_back_and_nginx_uses_it() {
    let Some(server) = Server::boot() else { return };
    server.install("").ok();
    server.run(&format!("{HOME}/bin/deploy")).ok();
    let served = || server.run("for i in 1 2 3 4; do curl --silent --max-time 5 http://127.0.0.1/; done").stdout;
    let ours = "/etc/nginx/conf.d/cafeteria";
    for harm in [
        "rm O.d/choice.conf",
        "rm O.d/instance.conf",
        "sed -i '$d' O.d/proxy.conf",
        "rm -r O.d",
        "rm O.conf O-server.conf && rm -r O.d",
        // nginx would choose the other instance, or nobody.
        "sed -i 's/enabled/disabled/' O.d/choice.conf",
        "sed -i 's/127.0.0.1:20201/127.0.0.1:9/' O.conf",
    ] {
        server.run(&format!("{}; nginx -s reload; true", harm.replace('O', ours))).ok();
        let ran = server.run(&format!("$TOOLS/install --home {HOME}"));
        assert!(!ran.stderr.contains("nothing to do"), "{harm}: {ran:?}");
        assert_eq!(ran.code, 0, "{harm}: {ran:?}");
        eventually(&format!("the site is back after {harm}"), || served() == "v1\n".repeat(4));
        server.run("nginx -t -q").ok();
        let again = server.run(&format!("$TOOLS/install --home {HOME}"));
        assert!(again.stderr.contains("nothing to do"), "{harm}: {again:?}");
    }
}

#[test]
fn a_state_directory_that_nginx_cannot_see_into_is_told_and_mended_at_every_level() {
    let Some(server) = Server::boot() else { return };
    server.install("").ok();
    let tool = |line: &str| server.run(&format!("timeout 60 runuser -u potados -- {HOME}/bin/{line}"));
    tool("deploy").ok();
    let git = "runuser -u potados -- git -c user.name=p -c user.email=p@example.org";
    server.run(&format!("cd /home/source && echo v2 >VERSION && {git} commit --quiet --all --message v2")).ok();
    tool("deploy").ok();
    assert_eq!(server.served(), "v2\n");
    let state = "/var/lib/cutover/cafeteria";
    for harm in ["chmod 0 S", "chmod 700 S", "chmod 600 S/B", "chmod 0 S/B", "rm S/B/B", "rm -r S/B"] {
        server.run(&harm.replace('S', state)).ok();
        assert_eq!(server.served(), "v1\n", "{harm}: nginx falls back to the first instance");
        let status = tool("status");
        let said = format!("{}{}", status.stdout, status.stderr);
        assert!(said.contains(state) || said.contains("nginx uses A"), "{harm}: {status:?}");
        // What cannot be confirmed is no success.
        let connected = tool("connect-to-nginx B");
        assert!(connected.code == 3 || connected.code == 0 && server.served() == "v2\n", "{harm}: {connected:?}");
        server.run(&format!("$TOOLS/install --home {HOME}")).ok();
        assert_eq!(server.served(), "v2\n", "{harm}: install mends it");
        tool("enabled-instance").is(0, "B\n", "");
    }
}

#[test]
fn the_reason_of_a_failed_start_is_there_however_the_program_ends() {
    for (command, reason) in [
        ("printf 'one\\r\\ntwo\\r\\n'; exit 3", "exit status 3: one | two"),
        ("printf 'a\\0b\\n'; exit 3", "exit status 3: a"),
        ("echo gone; exec >&- 2>&-; exit 3", "exit status 3: gone"),
        ("echo gone; kill -SEGV $$", "killed by SIGSEGV: gone"),
        ("echo fine; exit 0", "exit status 0: fine"),
        ("echo before; exec /nowhere/app", "exit status 127: before | "),
        ("echo mine; setsid sh -c 'sleep 0.05; echo later' & exit 3", "exit status 3: mine"),
        ("sh -c 'echo child; exit 9'; exit 4", "exit status 4: child"),
        ("head -c 3000000 /dev/zero | tr '\\0' ' '; echo; echo the end; exit 3", "exit status 3: "),
        ("yes no | head -n 100000; echo the end; exit 3", "no | no | no | no | the end"),
    ] {
        let site = Site::new(Sample::Static, &format!("[run]\ncommand = '''{command}'''\n{BRISK}"));
        site.run("update-instance", &["A"]).ok();
        for _ in 0..3 {
            let ran = site.run("start-instance", &["A"]);
            ran.fails(3, &["start-instance: cannot start A: it died: ", reason]);
            assert!(ran.stderr.lines().count() == 1 && ran.stderr.len() < 4000, "{command}: {ran:?}");
        }
    }
}

/// The health check of v1 looks at a database; those of later versions do not. `down` in the home is one that is down.
const APP: &str = r#"
import http.server, os
VERSION = open("VERSION").read()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        is_ill = self.path == "/health" and VERSION == "v1\n" and os.path.exists("../../down")
        is_ill = is_ill or self.path == "/health" and os.path.exists("../../ill-" + VERSION.strip())
        self.send_response(503 if is_ill else 200)
        self.end_headers()
        self.wfile.write(b"no database" if is_ill else VERSION.encode())
    def log_message(self, *arguments):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;

/// v1 serves from A.
fn judged(soak: &str) -> Site {
    let run = "[run]\ncommand = \"exec python3 app.py\"\nstop_timeout = \"2s\"\n[health]\npath = \"/health\"\ntimeout = \"3s\"\n";
    let deploy = format!("[deploy]\nsoak = \"{soak}\"\ndrain_timeout = \"100ms\"\n");
    let site = Site::unlaid(Sample::Static, &format!("{deploy}{run}[build]\ncommand = \"test ! -e FAILS\"\n"));
    fs::write(site.source().join("app.py"), APP).unwrap();
    site.commit("v1", "");
    site.install(&[]).ok();
    site.run("deploy", &[]).ok();
    site
}

fn serves(site: &Site, instance: &str, version: &str) {
    assert_eq!(site.run("enabled-instance", &[]).ok(), format!("{instance}\n"));
    assert_eq!(site.get("/"), (200, format!("{version}\n")));
}

/// Begins a deploy, and does something to it while it watches the new instance.
pub fn during_the_soak(site: &Site, harm: impl FnOnce()) -> Ran {
    let deploy = site.tool("deploy", &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("B is being watched", || {
        let change = &site.status()["change"]["doing"];
        change.as_str().is_some_and(|doing| doing.starts_with("watching "))
    });
    harm();
    Ran::of(&deploy.wait_with_output().unwrap())
}

#[test]
fn a_release_that_went_back_in_its_soak_does_not_stand_in_either() {
    let site = judged("2s");
    site.commit("v2", "");
    let ran = during_the_soak(&site, || fs::write(site.home.join("ill-v2"), "").unwrap());
    ran.fails(4, &["A is enabled again"]);
    fs::remove_file(site.home.join("ill-v2")).unwrap();
    serves(&site, "A", "v1");
    // v2 runs as the standby, and is well now; v1's check fails for a while.
    fs::write(site.home.join("down"), "").unwrap();
    fs::write(site.source().join("FAILS"), "").unwrap();
    site.commit("v3", "");
    for _ in 0..2 {
        let failed = site.run("deploy", &[]);
        failed.fails(3, &["deploy: cannot build "]);
        assert!(!failed.stderr.contains("takes its place"), "{failed:?}");
        serves(&site, "A", "v1");
    }
    site.run("deploy", &["--ref", "no-such-branch"]).fails(3, &["cannot find ref"]);
    site.run("deploy", &["--from", "/nowhere"]);
    serves(&site, "A", "v1");
}

#[test]
fn a_hook_that_fails_before_the_cutover_undoes_a_stand_in_or_says_that_it_stays() {
    let site = judged("100ms");
    site.commit("v2", "");
    site.run("deploy", &[]).ok();
    site.commit("v1", "");
    site.run("deploy", &[]).ok();
    // v1 serves from A again, and v2, which was never rolled back, is its standby.
    serves(&site, "A", "v1");
    let hook = site.home.join("hooks/before-connect");
    for (script, code) in [("rm -f ../../down; exit 1", 3), ("exit 1", 5)] {
        fs::write(site.home.join("down"), "").unwrap();
        fs::write(&hook, format!("#!/bin/sh\n{script}\n")).unwrap();
        crate::site::chmod(&hook, 0o755);
        site.commit("v4", script);
        let failed = site.run("deploy", &[]);
        assert_eq!(failed.code, code, "{failed:?}");
        let (instance, version) = if code == 3 { ("A", "v1") } else { ("B", "v2") };
        serves(&site, instance, version);
        let _ = fs::remove_file(site.home.join("down"));
        fs::remove_file(&hook).unwrap();
    }
}

#[test]
fn a_record_that_cannot_be_written_changes_no_exit_code() {
    for harm in [
        "rm -rf logs && ln -s /dev/full logs",
        "rm -f logs/history.jsonl && mkdir logs/history.jsonl",
        "rm -rf logs && touch logs",
    ] {
        let site = Site::new(Sample::Static, BRISK);
        site.run("deploy", &[]).ok();
        site.run("stop-instance", &["B"]).ok();
        site.commit("v2", "exit");
        site.shell(&format!("cd .shop && {harm}")).ok();
        assert_eq!(site.run("deploy", &[]).code, 3, "{harm}");
        serves(&site, "A", "v1");
    }
}
