//! Pushes that deploy, under systemd: a git push whose hook calls the webhook through nginx, floods, kills, a power cut, and
//! a repository that is asked instead.

use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::machine::{Debian, Machine, await_that};
use crate::server::{
    NAME, PATIENCE, USER, answer, comes_to_serve, commit, config, exposures_are_stated, fresh, load, none_lost, serves,
    status, tool, unpack,
};
use crate::webhook::{github_push, response};

/// The bare repository that everybody pushes to.
const BARE: &str = "/home/potados/cafeteria.git";

pub fn run(debian: Debian) {
    let mut machine = Machine::boot(debian, 7, &[]);
    fresh(&machine, &with_push("repository = \"octo/shop\""));
    machine
        .run_as(
            USER,
            &format!(
                "git clone --quiet --bare cafeteria-server {BARE} && git -C cafeteria-server remote add origin {BARE}"
            ),
        )
        .ok();
    unpack(&machine);
    let installed = install(&machine, "--deploy");
    assert!(installed.contains("install: systemd has started cafeteria-push.socket\n"), "{installed}");
    serves(&machine, "v1");
    the_units_are_sound(&machine);
    call_the_webhook_for_each_push(&machine);
    pushes_are_served(&machine);
    floods_change_nothing(&machine);
    what_is_killed_is_begun_again(&machine);
    what_was_answered_outlasts_a_power_cut(&mut machine);
    the_repository_is_asked(&machine);
    nothing_is_left(&machine);
}

fn with_push(push: &str) -> String {
    let plain = config(&format!("[nginx]\nserver_name = \"{NAME}\""));
    plain.replace("/home/potados/cafeteria-server", BARE) + &format!("[push]\n{push}\n")
}

/// Runs install; returns what it said.
#[track_caller]
fn install(machine: &Machine, more: &str) -> String {
    let line = format!("cd cutover-*-linux && sudo ./install --config ~/cafeteria.toml --user {USER} {more}");
    let ran = machine.run_as("admin", &line);
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.stderr
}

fn the_units_are_sound(machine: &Machine) {
    let all = "cafeteria-push.socket cafeteria-push@.service cafeteria-queue.path cafeteria-queue.service";
    let verified = machine.run(&format!("systemd-analyze verify {all}"));
    assert_eq!((verified.code, verified.stderr.as_str()), (0, ""));
    let enabled = machine.run("systemctl is-enabled cafeteria-push.socket cafeteria-queue.path").ok();
    assert_eq!(enabled, "enabled\nenabled\n");
    assert_eq!(install(machine, ""), "install: nothing to do: cafeteria is laid out in /home/potados/.cafeteria\n");
    exposures_are_stated(machine);
}

/// What a host does after a push: its hook signs what it says of it, and calls the webhook from within.
fn call_the_webhook_for_each_push(machine: &Machine) {
    let hook = format!(
        "#!/usr/bin/env node\n\
         const [before, after, ref] = require('fs').readFileSync(0, 'utf8').trim().split(' ');\n\
         const secret = require('fs').readFileSync('/home/{USER}/.cafeteria/push-secret', 'utf8').trim();\n\
         const body = JSON.stringify({{ ref, before, after, repository: {{ full_name: 'octo/shop' }}, pusher: {{ name: 'alice' }} }});\n\
         const signature = require('crypto').createHmac('sha256', secret).update(body).digest('hex');\n\
         const headers = {{ Host: '{NAME}', 'Content-Type': 'application/json', 'X-GitHub-Event': 'push',\n\
           'X-GitHub-Delivery': after, 'X-Hub-Signature-256': 'sha256=' + signature }};\n\
         // Without its agent: since version 19 that keeps the connection, and Node waits until nginx closes it, after 75 s.\n\
         const options = {{ agent: false, host: '127.0.0.1', path: '/.cutover/push', method: 'POST', headers }};\n\
         require('http').request(options, (answer) => console.log('answered ' + answer.statusCode)).end(body);\n"
    );
    fs::write(machine.root().join(&BARE[1..]).join("hooks/post-receive"), hook).unwrap();
    machine.run(&format!("chmod 755 {BARE}/hooks/post-receive")).ok();
}

/// Commits a version and pushes it; returns what the hook said.
#[track_caller]
fn push(machine: &Machine, version: &str, behaviour: &str) -> String {
    commit(machine, version, behaviour);
    let pushed = machine.run_as(USER, "cd cafeteria-server && git push --quiet origin main");
    assert_eq!(pushed.code, 0, "{pushed:?}");
    pushed.stderr
}

/// Waits until nothing is queued, and nobody deploys.
#[track_caller]
fn worked_off(machine: &Machine) {
    await_that("the queue is worked off", PATIENCE, || {
        let state = machine.run("systemctl show --property=ActiveState --value cafeteria-queue.service").stdout;
        status(machine)["queued"].is_null() && state == "inactive\n"
    });
}

fn pushes_are_served(machine: &Machine) {
    let load = load(machine);
    for version in ["v2", "v3", "v4"] {
        let said = push(machine, version, "");
        assert!(said.contains("remote: answered 202"), "{said}");
        comes_to_serve(machine, version);
        worked_off(machine);
    }
    println!("    three pushes under load from outside: {}", none_lost(load));
    // Nothing of it stays.
    assert_eq!(machine.run("pgrep -x on-push; pgrep -x deploy").stdout, "");
    let said = machine.run("journalctl --quiet --output=cat --identifier=cafeteria-push").ok();
    assert_eq!(said.matches("on-push: 127.0.0.1: 202, ").count(), 3, "{said}");
    let deployed = machine.run("journalctl --quiet --output=cat --unit=cafeteria-queue.service").ok();
    assert!(deployed.contains("is enabled, "), "{deployed}");
    let history = fs::read_to_string(machine.root().join("home/potados/.cafeteria/logs/history.jsonl")).unwrap();
    assert_eq!(history.matches("\"who\":\"push of ").count(), 3, "{history}");
    // A broken one is told, and the service is as it was.
    push(machine, "v5", "exit");
    worked_off(machine);
    serves(machine, "v4");
    push(machine, "v6", "");
    comes_to_serve(machine, "v6");
    worked_off(machine);
}

/// How many requests a second a flood has, and how long it lasts.
const FLOOD: u32 = 1000;
const FLOODED: Duration = Duration::from_secs(5);

/// Sends forged requests from outside; returns how many were answered 401, 429, and otherwise or not at all.
fn flood(machine: &Machine) -> [u32; 3] {
    let target = SocketAddr::from((machine.address(), 80));
    let forged = github_push(b"a guess", &"1".repeat(40), "guessed");
    let forged = String::from_utf8(forged).unwrap().replace("shop.example.org", NAME).into_bytes();
    let ends = Instant::now() + FLOODED;
    let one = || {
        let (mut counts, mut connection) = ([0; 3], None::<TcpStream>);
        let mut pace = Instant::now();
        while pace < ends {
            pace += Duration::from_secs(10) / FLOOD;
            std::thread::sleep(pace.saturating_duration_since(Instant::now()));
            let stream = connection.get_or_insert_with(|| TcpStream::connect(target).unwrap());
            match stream.write_all(&forged).ok().and_then(|()| response(stream)) {
                Some((401, _)) => counts[0] += 1,
                Some((429, _)) => counts[1] += 1,
                other => {
                    counts[2] += 1;
                    connection = other.and(connection);
                }
            }
        }
        counts
    };
    std::thread::scope(|scope| {
        let floods: Vec<_> = (0..10).map(|_| scope.spawn(one)).collect();
        floods.into_iter().fold([0; 3], |sum, flood| {
            let counts = flood.join().unwrap();
            [0, 1, 2].map(|at| sum[at] + counts[at])
        })
    })
}

fn floods_change_nothing(machine: &Machine) {
    let before = deploys(machine);
    let traffic = load(machine);
    let [refused, limited, others] = flood(machine);
    let report = none_lost(traffic);
    println!("    forged requests: {refused} refused, {limited} limited, {others} otherwise; beside them {report}");
    assert!(refused > 0 && limited > refused && others == 0);
    let said = machine.run("journalctl --quiet --output=cat --identifier=cafeteria-push").ok();
    assert!(said.contains("on-push: 198.18.7.1: 401, not authorized\n"), "{said}");

    // Past nginx, by somebody on this machine: thousands of connections, as many at once as there may be.
    let script = "const net = require('net'); let open = 0, made = 0; const more = () => { while (open < 500 && made < 3000) { \
        made++; open++; const c = net.connect(20203, '127.0.0.1', () => c.end('POST /.cutover/push HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')); \
        c.on('error', () => {}); c.on('close', () => { open--; more(); }); c.resume(); } }; more();";
    let traffic = load(machine);
    machine.run(&format!("node -e \"{script}\"")).ok();
    println!("    3,000 connections past nginx; beside them {}", none_lost(traffic));
    assert_eq!(machine.run("systemctl is-active cafeteria-push.socket cafeteria-queue.path").ok(), "active\nactive\n");
    let failed = machine.run("systemctl list-units --all --plain --no-legend --state=failed 'cafeteria*'").ok();
    assert_eq!(failed, "");
    assert_eq!(deploys(machine), before, "something was deployed");
    assert!(push(machine, "v7", "").contains("remote: answered 202"));
    comes_to_serve(machine, "v7");
    worked_off(machine);
}

fn deploys(machine: &Machine) -> usize {
    let history = fs::read_to_string(machine.root().join("home/potados/.cafeteria/logs/history.jsonl")).unwrap();
    history.lines().count()
}

fn what_is_killed_is_begun_again(machine: &Machine) {
    let traffic = load(machine);
    assert!(push(machine, "v8", "slow 5").contains("remote: answered 202"));
    await_that("the deploy is under way", PATIENCE, || {
        status(machine)["change"]["doing"].as_str().is_some_and(|doing| doing.starts_with("starting"))
    });
    machine.run("systemctl kill --signal=KILL cafeteria-queue.service").ok();
    comes_to_serve(machine, "v8");
    worked_off(machine);
    none_lost(traffic);
}

/// Tells of a push from outside; the status of the answer.
fn tell(machine: &Machine, delivery: &str) -> u16 {
    let commit = machine.run(&format!("git -c safe.directory='*' --git-dir {BARE} rev-parse main")).ok();
    let secret = fs::read_to_string(machine.root().join("home/potados/.cafeteria/push-secret")).unwrap();
    let request = String::from_utf8(github_push(secret.trim().as_bytes(), commit.trim(), delivery)).unwrap();
    let mut connection = TcpStream::connect(SocketAddr::from((machine.address(), 80))).unwrap();
    connection.write_all(request.replace("shop.example.org", NAME).as_bytes()).unwrap();
    response(&mut connection).unwrap().0
}

fn what_was_answered_outlasts_a_power_cut(machine: &mut Machine) {
    fs::remove_file(machine.root().join(&BARE[1..]).join("hooks/post-receive")).unwrap();
    for (version, delivery) in [("v9", "nine"), ("v10", "ten")] {
        push(machine, version, "");
        machine.run("sync").ok();
        assert_eq!(tell(machine, delivery), 202);
        machine.cut_power();
        comes_to_serve(machine, version);
        worked_off(machine);
        await_that("both are up", PATIENCE, || tool(machine, "status").stdout.matches("  healthy").count() == 2);
    }
    assert_eq!(tell(machine, "ten"), 200, "it was delivered before");
}

fn the_repository_is_asked(machine: &Machine) {
    fs::write(machine.root().join("home/admin/cafeteria.toml"), with_push("poll = \"1s\"")).unwrap();
    let said = install(machine, "");
    assert!(said.contains("install: removed /etc/systemd/system/cafeteria-push.socket\n"), "{said}");
    assert!(said.contains("install: systemd has started cafeteria-poll.timer\n"), "{said}");
    machine.run("systemd-analyze verify cafeteria-poll.timer cafeteria-poll.service").ok();
    exposures_are_stated(machine);
    let traffic = load(machine);
    for version in ["v11", "v12"] {
        push(machine, version, "");
        comes_to_serve(machine, version);
    }
    none_lost(traffic);
    let rolled = || tool(machine, "rollback --wait").code;
    await_that("its turn is over, and a rollback is done", PATIENCE, || rolled() == 0);
    serves(machine, "v11");
    let asked = || machine.run("systemctl show --property=InvocationID --value cafeteria-poll.service").ok();
    let lines = || machine.run("journalctl --quiet --output=cat --unit=cafeteria-poll.service | wc -l").ok();
    let (mut last, said) = (asked(), lines());
    for _ in 0..3 {
        await_that("the repository is asked", PATIENCE, || asked() != last);
        last = asked();
    }
    assert_eq!(lines(), said, "it says something each time");
    assert_eq!(answer(machine, 80).as_deref(), Some("v11"), "the rollback was undone");
    assert_eq!(install(machine, ""), "install: nothing to do: cafeteria is laid out in /home/potados/.cafeteria\n");
}

fn nothing_is_left(machine: &Machine) {
    fs::write(machine.root().join("home/admin/cafeteria.toml"), with_push("repository = \"octo/shop\"\npoll = \"1m\""))
        .unwrap();
    install(machine, "");
    install(machine, "--remove --force");
    assert_eq!(machine.run("systemctl list-unit-files --no-legend 'cafeteria*'").stdout, "");
    assert_eq!(machine.run("systemctl list-units --all --plain --no-legend 'cafeteria*'").ok(), "");
    assert_eq!(machine.run("find /etc/systemd /etc/nginx /var/lib/cutover -name '*cafeteria*'").stdout, "");
    let left = machine.run("ls /home/potados/.cafeteria").ok();
    let left: Vec<&str> = left.split_whitespace().collect();
    assert_eq!(left, ["config.toml", "env", "hooks", "instances", "logs", "push-secret", "releases", "repo.git"]);
}
