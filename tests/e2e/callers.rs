//! Whoever calls: SSM's agent as root or through runuser, killed or restarted meanwhile, and people who log out.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::machine::{Machine, await_that};
use crate::ran::Ran;
use crate::server::{PATIENCE, USER, commit, load, none_lost, serves, status, tool};

pub fn run(machine: &Machine) {
    the_agent_calls(machine);
    the_document_is_sound(machine);
    the_agent_kills_what_it_called(machine);
    others_restart(machine);
    callers_end(machine);
}

/// A script as the agent runs it: by root, in /usr/bin, with little environment, in a process group of its own, and its
/// output is read until nobody holds it open any more.
fn by_the_agent(machine: &Machine, script: &str) -> Command {
    let mut command = machine.command("cd /usr/bin && exec sh -c \"$0\"");
    command.arg(script).env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin");
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    command
}

fn called(machine: &Machine, script: &str) -> Ran {
    let began = Instant::now();
    let ran = Ran::of(&by_the_agent(machine, script).spawn().unwrap().wait_with_output().unwrap());
    assert!(began.elapsed() < Duration::from_secs(60), "its output stayed open: {ran:?}");
    assert!(ran.stdout.len() + ran.stderr.len() < 2000, "{ran:?}");
    ran
}

fn the_agent_calls(machine: &Machine) {
    let bin = format!("/home/{USER}/.cafeteria/bin");
    let calls = [format!("runuser -l {USER} -c '{bin}/deploy'"), format!("{bin}/deploy")];
    for (call, version) in calls.iter().zip(["v6", "v7"]) {
        commit(machine, version, "");
        let load = load(machine);
        called(machine, call).ok();
        none_lost(load);
        serves(machine, version);
    }
    let foreign = machine.run(&format!("find /home/{USER} ! -user {USER}")).ok();
    assert_eq!(foreign, "", "something in the home is not the user's");
    commit(machine, "v8", "exit");
    for call in &calls {
        assert_eq!(called(machine, call).code, 3);
    }
    assert_eq!(called(machine, &format!("{bin}/deploy --nonsense")).code, 2);
    serves(machine, "v7");
    commit(machine, "v9", "");
}

/// The script of the document in ssm/, with its parameters filled in as SSM does it.
fn document(parameters: &[(&str, &str)]) -> String {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/ssm/cutover.json")).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let lines = document["mainSteps"][0]["inputs"]["runCommand"].as_array().unwrap();
    let script: Vec<&str> = lines.iter().map(|line| line.as_str().unwrap()).collect();
    let declared = document["parameters"].as_object().unwrap();
    declared.iter().fold(script.join("\n"), |script, (name, about)| {
        let given = parameters.iter().find(|(given, _)| given == name).map(|(_, value)| *value);
        let value = given.or(about["default"].as_str()).unwrap();
        if let Some(pattern) = about["allowedPattern"].as_str() {
            assert!(regex::Regex::new(pattern).unwrap().is_match(value), "{name} may not be {value}");
        }
        if let Some(allowed) = about["allowedValues"].as_array() {
            assert!(allowed.iter().any(|one| one == value), "{name} may not be {value}");
        }
        script.replace(&format!("{{{{ {name} }}}}"), value)
    })
}

fn the_document_is_sound(machine: &Machine) {
    let home = ("Home", "/home/potados/.cafeteria");
    let shown = called(machine, &document(&[home])).ok();
    assert!(shown.starts_with("cafeteria"), "{shown}");
    called(machine, &document(&[home, ("Action", "deploy"), ("Ref", "main")])).ok();
    serves(machine, "v9");
    called(machine, &document(&[home, ("Action", "rollback"), ("Wait", "yes")])).ok();
    serves(machine, "v7");
    let standby = tool(machine, "disabled-instance").ok();
    let seen = status(machine);
    let standby = seen["instances"].as_array().unwrap().iter().find(|one| one["name"] == standby.trim()).unwrap();
    let release = standby["release"].as_str().unwrap();
    called(machine, &document(&[home, ("Action", "rollback"), ("Release", release)])).ok();
    serves(machine, "v9");
    assert_eq!(called(machine, &document(&[home, ("Action", "deploy"), ("Ref", "no-such-branch")])).code, 3);
    called(machine, &document(&[home, ("Action", "deploy")])).ok();
    serves(machine, "v9");
}

/// Cancelled, or timed out: SIGKILL to the group. What goes on behind runuser finishes or ends by its own deadline.
fn the_agent_kills_what_it_called(machine: &Machine) {
    let bin = format!("/home/{USER}/.cafeteria/bin");
    for (version, call) in [("v10", format!("runuser -l {USER} -c '{bin}/deploy'")), ("v11", format!("{bin}/deploy"))] {
        commit(machine, version, "ready 1");
        let load = load(machine);
        let mut agent = by_the_agent(machine, &call).spawn().unwrap();
        await_that("the deploy is under way", PATIENCE, || status(machine)["change"]["tool"] == "deploy");
        let group = nix::unistd::Pid::from_raw(agent.id().cast_signed());
        nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGKILL).unwrap();
        agent.wait().unwrap();
        let began = Instant::now();
        await_that("the lock is free", PATIENCE, || machine.run(&format!("pgrep -u {USER} -x deploy")).code == 1);
        println!("    killed by the agent, the deploy was over after {:.1} s", began.elapsed().as_secs_f64());
        let next = called(machine, &call);
        assert_eq!(next.code, 0, "{next:?}");
        serves(machine, version);
        none_lost(load);
    }
}

/// needrestart restarts all that uses a library in one call, and people restart what they like.
fn others_restart(machine: &Machine) {
    // It takes seconds to start, in which the other one has to answer.
    for version in ["v14", "v15"] {
        commit(machine, version, "ready 3");
        tool(machine, "deploy").ok();
    }
    let enabled = tool(machine, "enabled-instance").ok().trim().to_owned();
    let standby = tool(machine, "disabled-instance").ok().trim().to_owned();
    let unit = |name: &str| format!("cafeteria@{name}.service");
    for units in [
        format!("{} {}", unit("A"), unit("B")),
        format!("{} {}", unit("B"), unit("A")),
        "'cafeteria@*.service'".to_owned(),
        unit(&enabled),
        unit(&standby),
    ] {
        let pids = || tool(machine, "pid A").stdout + &tool(machine, "pid B").stdout;
        let before = pids();
        let load = load(machine);
        let begun = Instant::now();
        machine.run(&format!("systemctl restart {units}")).ok();
        println!("    restarted {units} in {:.1} s: {}", begun.elapsed().as_secs_f64(), load.settled());
        assert_ne!(pids(), before);
        serves(machine, "v15");
        none_lost(load);
        assert_eq!(tool(machine, "enabled-instance").ok().trim(), enabled);
    }
    // Who stops the enabled one by hand loses nothing either, and it serves again as soon as it is back.
    let load = load(machine);
    machine.run(&format!("systemctl stop {}", unit(&enabled))).ok();
    serves(machine, "v14");
    machine.run(&format!("systemctl start {}", unit(&enabled))).ok();
    serves(machine, "v15");
    none_lost(load);
    let begun = Instant::now();
    machine.run(&format!("systemctl stop {} {}", unit(&standby), unit(&enabled))).ok();
    assert!(begun.elapsed() < Duration::from_secs(20), "nobody is waited for who does not come: {:?}", begun.elapsed());
    tool(machine, "bootup").ok();
    serves(machine, "v15");
}

/// The agent's service is restarted, or a person logs out, on a machine that then ends all that was theirs.
fn callers_end(machine: &Machine) {
    commit(machine, "v12", "");
    machine.run("printf '[Service]\\nExecStart=sleep infinity\\n' >/run/systemd/system/agent.service && systemctl daemon-reload").ok();
    let script = format!("runuser -l {USER} -c '/home/{USER}/.cafeteria/bin/deploy'; sleep infinity");
    machine
        .run(&format!("systemd-run --quiet --unit=agent-now --property=KillMode=control-group sh -c \"{script}\""))
        .ok();
    await_that("the agent's deploy is done", PATIENCE, || crate::server::answer(machine, 80).as_deref() == Some("v12"));
    await_that("it has ended", PATIENCE, || status(machine)["change"].is_null());
    let load = load(machine);
    machine.run("systemctl stop agent-now.service").ok();
    serves(machine, "v12");

    commit(machine, "v13", "");
    machine.run("mkdir -p /etc/systemd/logind.conf.d && printf '[Login]\\nKillUserProcesses=yes\\n' >/etc/systemd/logind.conf.d/kill.conf && systemctl restart systemd-logind").ok();
    machine.run(&format!("su -l {USER} -c '.cafeteria/bin/deploy && sleep 0.1'")).ok();
    await_that("the session is over", PATIENCE, || {
        machine.run(&format!("loginctl list-sessions --no-legend | grep {USER}")).code == 1
    });
    serves(machine, "v13");
    tool(machine, "pid").ok();
    none_lost(load);
    machine.run("rm -r /etc/systemd/logind.conf.d && systemctl restart systemd-logind && rm /run/systemd/system/agent.service && systemctl daemon-reload").ok();
    // The rest of the story goes on with the version that it knows.
    commit(machine, "v5", "");
    tool(machine, "deploy").ok();
    serves(machine, "v5");
}
