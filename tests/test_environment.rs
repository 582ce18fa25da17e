//! The environment in which the tools run other programs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::server::Server;
use crate::site::{BRISK, Sample, Site, built, eventually};

/// Every program that was executed below a trace: its path and its variables.
fn executed(trace: &str) -> Vec<(String, Vec<String>)> {
    let words = |list: &str| list.split("\", \"").map(|word| word.trim_matches('"').to_owned()).collect();
    let programs = trace.lines().filter_map(|line| line.split_once("execve(\"")).map(|(_, call)| {
        let (program, rest) = call.split_once("\", ").unwrap();
        let list = rest.rsplit_once(']').unwrap().0.rsplit_once(", [").unwrap().1;
        (program.to_owned(), words(list))
    });
    programs.collect()
}

#[test]
fn no_program_gets_an_empty_environment_or_the_callers() {
    let site = Site::unlaid(Sample::Static, BRISK);
    let [trace, done, hook] =
        ["trace", "done", ".shop/hooks/after-deploy"].map(|name| site.directory.path().join(name));
    let bin = site.home.join("bin");
    let install = format!("{}/install --config shop.toml --home .shop", built().display());
    let hook = format!("echo '#!/bin/sh' >{0}; chmod +x {0}", hook.display());
    let tools = ["deploy", "status", "logs", "stop-instance A", "bootup"];
    let tools: String = tools.iter().map(|tool| format!("{}/{tool}; ", bin.display())).collect();
    let script = format!("{install}; {hook}; {tools} echo >{}", done.display());
    let mut command = site.command(Path::new("strace"));
    command.args(["-f", "--seccomp-bpf", "-v", "-s", "65536", "-e", "trace=execve", "-o"]).arg(&trace);
    command.args(["sh", "-c", &script]).env("LANG", "ko_KR.UTF-8").env("SECRET", "of the caller");
    let mut strace = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    eventually("the tools have run", || done.exists());
    // It waits for all that the tools have started.
    site.install(&["--remove", "--force"]).ok();
    strace.wait().unwrap();

    let is_a_shells = |variables: &[String]| variables.iter().any(|variable| variable.starts_with("SECRET="));
    let executed = executed(&fs::read_to_string(&trace).unwrap());
    let (by_the_shell, by_tools): (Vec<_>, Vec<_>) = executed.iter().partition(|(_, variables)| is_a_shells(variables));
    for (program, _) in &by_the_shell[1..] {
        let is_tool = Path::new(program).starts_with(&bin) || Path::new(program).starts_with(built());
        assert!(is_tool || program.ends_with("/chmod"), "{program} got the caller's environment");
    }
    let names: Vec<&str> = by_tools.iter().map(|(program, _)| program.rsplit('/').next().unwrap()).collect();
    for name in ["git", "sh", "nginx", "supervise", "app", "after-deploy"] {
        assert!(names.contains(&name), "{name} was not run: {names:?}");
    }
    for (program, variables) in &by_tools {
        for name in ["PATH=/", "LANG=C.UTF-8"] {
            assert!(variables.iter().any(|variable| variable.starts_with(name)), "{program}: {variables:?}");
        }
    }
}

#[test]
fn the_app_has_the_time_zone_of_the_machine_however_that_is_written() {
    let zones = "/usr/share/zoneinfo";
    for (written, variable, offset) in [
        (format!("cp {zones}/Asia/Seoul $etc/localtime"), "", "+0900"),
        (format!("cp {zones}/Asia/Seoul $etc/localtime; echo Europe/Paris >$etc/timezone"), "", "+0900"),
        (format!("ln -s {zones}/Asia/Seoul $etc/localtime"), "TZ=Asia/Seoul", "+0900"),
        ("ln -s ../usr/share/zoneinfo/Asia/Kolkata $etc/localtime".to_owned(), "TZ=Asia/Kolkata", "+0530"),
        (
            format!(
                "ln -s {zones}/Asia/Seoul $etc/alternatives/localtime; ln -s alternatives/localtime $etc/localtime"
            ),
            "TZ=Asia/Seoul",
            "+0900",
        ),
        (format!("cp {zones}/Asia/Seoul $etc/seoul; ln -s seoul $etc/localtime"), "", "+0900"),
        ("ln -s nowhere $etc/localtime".to_owned(), "", "+0000"),
        ("true".to_owned(), "TZ=UTC", "+0000"),
    ] {
        let Some(server) = Server::boot() else { return };
        let copy =
            format!("etc=/run/etc; cp -a /etc $etc && rm -f $etc/localtime && {written} && mount --bind $etc /etc");
        server.run(&copy).ok();
        server.install("").ok();
        let run = |line: &str| server.run(&format!("runuser -u potados -- /home/potados/.cafeteria/bin/{line}"));
        run("deploy").ok();
        let given = format!("tr '\\0' '\\n' </proc/{}/environ | grep ^TZ=", run("pid").ok().trim());
        assert_eq!(server.run(&given).stdout.trim(), variable, "{written}");
        let shown = format!("env -i $({given}) date +%z");
        assert_eq!(server.run(&shown).stdout.trim(), offset, "{written}");
    }
}

#[test]
fn one_place_makes_the_environment_of_programs() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut directories, mut files) = (vec![source.clone()], Vec::<PathBuf>::new());
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { directories.push(path) } else { files.push(path) }
        }
    }
    let holding = |word: &str| {
        let hold = |path: &&PathBuf| fs::read_to_string(path).unwrap().contains(word);
        let mut found: Vec<&Path> = files.iter().filter(hold).map(|path| path.strip_prefix(&source).unwrap()).collect();
        found.sort();
        found
    };
    assert_eq!(holding("env_clear"), [Path::new("command.rs")]);
    assert_eq!(holding("Command::new("), [Path::new("command.rs")]);
}
