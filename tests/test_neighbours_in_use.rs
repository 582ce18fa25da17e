//! Neighbours of known faults, written by whoever knew the contract alone; each failed at first.

use std::fs;

use crate::server::Server;
use crate::site::{BRISK, Sample, Site, eventually};
use crate::test_neighbours_of_faults::during_the_soak;
use crate::test_neighbours_of_limits::{limited, site as of_user};
use crate::watched::Watch;

#[test]
fn a_client_cannot_say_that_it_came_by_https() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("deploy", &[]).ok();
    let mut passed = Vec::new();
    for field in [
        "X-Forwarded-Ssl: on",
        "X-Forwarded-Scheme: https",
        "X-Forwarded-Protocol: https",
        "X-Url-Scheme: https",
        "Front-End-Https: on",
        "X-Forwarded: for=203.0.113.9",
        "Forwarded-For: 203.0.113.9",
    ] {
        let url = format!("http://127.0.0.1:{}/headers", site.ports.listen);
        let seen = site.shell(&format!("curl --silent --fail -H '{field}' {url}")).ok();
        passed.extend(seen.contains(&field.to_lowercase()).then_some(field));
    }
    assert_eq!(passed, Vec::<&str>::new());
}

#[test]
fn fields_of_one_connection_do_not_reach_the_app() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("deploy", &[]).ok();
    let mut passed = Vec::new();
    for field in [
        "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
        "Proxy-Connection: keep-alive",
        "Proxy-Authorization: Basic eA==",
        "Trailer: X-End",
    ] {
        let url = format!("http://127.0.0.1:{}/headers", site.ports.listen);
        let seen = site.shell(&format!("curl --silent --fail -H '{field}' {url}")).ok();
        passed.extend(seen.to_lowercase().contains(&field.to_lowercase()).then_some(field));
    }
    assert_eq!(passed, Vec::<&str>::new());
}

#[test]
fn a_password_behind_three_slashes_is_hidden_as_well() {
    let secret = "q8-three-slashes";
    let source = format!("[source]\ngit = \"http:///deployer:{secret}@127.0.0.1:9/x.git\"\n");
    let site = Site::unlaid(Sample::Static, &format!("{source}{BRISK}"));
    let installed = site.install(&[]);
    if installed.code == 2 {
        assert!(!installed.stderr.contains(secret), "{installed:?}");
        return;
    }
    let watch = Watch::start(secret, "git");
    let ran = site.run("deploy", &[]);
    assert_eq!(watch.seen().0, Vec::<String>::new());
    assert!(matches!(ran.code, 2 | 3) && !ran.stderr.contains(secret), "{ran:?}");
}

#[test]
fn an_nginx_that_does_not_answer_on_the_way_back_ends_with_5_and_what_serves() {
    let site = Site::new(Sample::Static, "[deploy]\nsoak = \"60s\"\ndrain_timeout = \"100ms\"\n");
    site.reconfigure("soak = \"60s\"", "soak = \"50ms\"");
    site.run("deploy", &[]).ok();
    site.reconfigure("soak = \"50ms\"", "soak = \"60s\"");
    site.commit("v2", "");
    let nginx = "$(cat .shop/nginx/nginx.pid)";
    let workers = format!("$(cat /proc/{nginx}/task/{nginx}/children)");
    let stop = format!("kill -STOP {nginx} {workers}; kill -KILL $(pid B)");
    let states = format!("for pid in {nginx} {workers}; do cut -d ' ' -f 3 /proc/$pid/stat; done | sort | uniq");
    let ran = during_the_soak(&site, || {
        site.shell(&stop).ok();
        site.shell(&states).is(0, "T\n", "");
    });
    site.shell(&states).is(0, "T\n", "");
    site.shell(&format!("kill -CONT {nginx} {workers}")).ok();
    ran.fails(5, &["B died after the cutover: ", "; and the way back failed: ", "nginx does not answer"]);
    assert!(ran.stderr.lines().last().unwrap().contains(" is A with ") || ran.stderr.contains("uses A"), "{ran:?}");
    let history = fs::read_to_string(site.home.join("logs/history.jsonl")).unwrap();
    assert!(history.lines().last().unwrap().contains(r#""outcome":"stranded""#), "{history}");
    eventually("v1 serves", || site.get("/") == (200, "v1\n".to_owned()));
    site.run("enabled-instance", &[]).is(0, "A\n", "");
}

#[test]
fn the_app_has_nothing_of_a_callers_oddities() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("deploy", &[]).ok();
    let bin = site.home.join("bin");
    let facts = |pid: i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let names = ["Umask", "SigBlk", "SigIgn", "NoNewPrivs", "Cpus_allowed_list", "Seccomp"];
        let lines: Vec<&str> = status.lines().filter(|line| names.iter().any(|name| line.starts_with(name))).collect();
        let file = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let stat = file("stat");
        let numbers: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        // proc_pid_stat(5): priority and niceness, and the policy of scheduling.
        let (nice, policy) = (&numbers[15..17], numbers[38]);
        let disk = site.shell(&format!("ionice -p {pid}")).ok();
        format!("{lines:?} {nice:?} {policy} {disk} {} {}", file("limits"), file("oom_score_adj"))
    };
    let expected = facts(site.pid("A"));
    for caller in [
        "nice -n 19 ionice -c 3 CMD",
        "taskset -c 0 CMD",
        "prlimit --nofile=64: --core=1000: --fsize=10000000: --cpu=600: CMD",
        "sh -c 'umask 777; trap \"\" INT QUIT PIPE CHLD USR1 HUP; exec CMD'",
        "sh -c 'echo 900 >/proc/self/oom_score_adj; exec CMD'",
        "chrt --idle 0 CMD",
        "python3 -c 'import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 64)); os.execv(sys.argv[1], sys.argv[1:])' CMD",
        "sh -c 'exec CMD <&- >&- 2>&-'",
        "env LD_PRELOAD=/nowhere.so BASH_ENV=/nowhere TZ=/nowhere IFS=x GIT_DIR=/nowhere GIT_SSH_COMMAND=false TMPDIR=/nowhere HOME=/nowhere CMD",
        "sh -c 'mkdir gone && cd gone && rmdir ../gone && exec CMD'",
    ] {
        let ran = site.shell(&caller.replace("CMD", &format!("{} A", bin.join("start-instance").display())));
        assert_eq!(ran.code, 0, "{caller}: {ran:?}");
        site.run("stop-instance", &["A", "--force"]).ok();
        let ran = site.shell(&caller.replace("CMD", &format!("{} A", bin.join("start-instance").display())));
        assert_eq!(ran.code, 0, "{caller}: {ran:?}");
        let environment = fs::read_to_string(format!("/proc/{}/environ", site.pid("A"))).unwrap();
        assert!(!environment.contains("/nowhere"), "{caller}: {environment:?}");
        let app = site.pid("A");
        assert_eq!(facts(app), expected, "{caller}");
        site.shell(&format!("kill -9 {app}")).ok();
        eventually("it is back", || site.run("pid", &["A"]).stdout.trim().parse().is_ok_and(|pid: i32| pid != app));
        assert_eq!(facts(site.pid("A")), expected, "{caller}, started again");
    }
}

#[test]
fn a_limit_of_the_size_of_files_is_an_error_and_no_signal() {
    let user = 61253;
    let Some(site) = of_user(user) else { return };
    let from = site.source();
    let from = from.to_str().unwrap();
    site.run("deploy", &["--from", from]).ok();
    let mut silent = Vec::new();
    for bytes in [0, 10, 4096, 100_000] {
        let limits = [format!("--fsize={bytes}:{bytes}")];
        for (tool, arguments) in [
            ("deploy", &["--from", from][..]),
            ("update-instance", &["--from", from]),
            ("stop-instance", &["B"]),
            ("connect-to-nginx", &["A"]),
            ("reload", &[]),
        ] {
            let ran = limited(&site, user, &limits, tool, arguments);
            let is_said = [0, 1, 2, 3, 124].contains(&ran.code) && (ran.code == 0 || !ran.stderr.is_empty());
            silent.extend((!is_said).then(|| format!("{tool} with {bytes}: {}", ran.code)));
            assert_eq!(site.get("/"), (200, "v1\n".to_owned()), "{tool} with {bytes}");
        }
    }
    assert_eq!(silent, Vec::<String>::new());
}

/// What the owner, or the machine, has set for people who work with repositories.
#[test]
fn nobodys_git_configuration_changes_the_files_of_a_release() {
    let Some(server) = Server::boot() else { return };
    let commit = "cd /home/source && printf 'one\\ntwo\\n' >text.txt && printf 'three\\n' >other.md && \
                  printf '*.txt filter=shout\\n*.md ident\\n' >.gitattributes && git add . && \
                  git -c user.name=p -c user.email=p@example.org commit --quiet --message files";
    server.run(&format!("runuser -u potados -- sh -c \"{commit}\"")).ok();
    let configuration = "[core]\n\tautocrlf = true\n\teol = crlf\n\tattributesFile = /home/attributes\n\
        [filter \"shout\"]\n\tsmudge = tr a-z A-Z\n\trequired = true\n[init]\n\ttemplateDir = /home/template\n";
    fs::write(server.path("/home/potados/.gitconfig"), configuration).unwrap();
    fs::write(server.path("/home/attributes"), "*.md filter=shout\n").unwrap();
    let template = "mkdir -p /home/template/info /home/template/hooks /home/potados/.config/git && \
                    echo '*.md filter=shout' | tee /home/template/info/attributes >/home/potados/.config/git/attributes && \
                    printf '#!/bin/sh\\nexit 1\\n' >/home/template/hooks/reference-transaction && chmod 755 /home/template/hooks/* && \
                    chown -R potados: /home/potados/.gitconfig /home/potados/.config";
    server.run(template).ok();
    server.install("").ok();
    server.run("/home/potados/.cafeteria/bin/deploy").ok();
    let laid = server
        .run("cd /home/potados/.cafeteria/instances/A && cat text.txt other.md && ls -A ../../repo.git/hooks")
        .stdout;
    assert_eq!(laid, "one\ntwo\nthree\n");
}

/// git's answers are read, however its owner wants to see them.
#[test]
fn nobodys_git_configuration_hides_what_git_says() {
    let Some(server) = Server::boot() else { return };
    let configuration = "[color]\n\tui = always\n\tgrep = always\n[grep]\n\tlineNumber = true\n[column]\n\tui = always\n\
        [core]\n\tquotePath = true\n\tpager = false\n[tag]\n\tsort = -creatordate\n[log]\n\tdecorate = full\n";
    fs::write(server.path("/home/potados/.gitconfig"), configuration).unwrap();
    server.install("").ok();
    server.run("/home/potados/.cafeteria/bin/deploy").ok();
    let git = "git -c user.name=p -c user.email=p@example.org";
    let commit = |make: &str, tag: &str| {
        let lines =
            format!("cd /home/source; {make}; {git} add .; {git} commit --quiet --message files; {git} tag {tag}");
        server.run(&format!("runuser -u potados -- sh -ec '{lines}'")).ok();
    };
    let deploy = |reference: &str| server.run(&format!("/home/potados/.cafeteria/bin/deploy --ref {reference}"));
    commit(&format!("git init -q b; {git} -C b commit --quiet --allow-empty --message b"), "v1.0.0");
    let ran = deploy("latest-tag");
    assert!(ran.code == 0 && ran.stderr.contains("deploy: b is a git submodule"), "{ran:?}");
    let pointer = "version https://git-lfs.github.com/spec/v1\\noid sha256:4d7a2146\\n";
    commit(&format!("echo \"*.png filter=lfs\" >.gitattributes; printf \"{pointer}\" >\u{e4}.png"), "v1.0.1");
    deploy("main").fails(3, &["\u{e4}.png is only a pointer of Git LFS: "]);
}
