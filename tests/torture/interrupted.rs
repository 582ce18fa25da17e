//! A tool is disturbed at each system call that changes something, one run for each.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use cutover::lock;

use super::Outcome;
use super::trace::{self, Fault, Point};
use crate::load::{self, Load, Plan};
use crate::pushed_site::SECTION;
use crate::sample::Share;
use crate::site::{Ran, Sample, Site, built, parent};

/// How long processes without an owner may take to be gone.
const ORPHANS: Duration = Duration::from_secs(5);
/// How many requests one after the other must have the same release's answer.
const ALIKE: usize = 12;

/// A tool in a situation in which it has all its work to do.
pub struct Subject {
    pub tool: &'static str,
    /// What is configured beyond what all have.
    config: &'static str,
    /// Brings the situation about; it is numbered, so that each can have a version of its own.
    prepare: fn(&Site, usize),
    command: fn(&Site) -> Command,
    /// What must hold when it is done, `other` being the instance that was disabled before.
    is_done: fn(&Site, other: &str) -> bool,
    /// The exit code that it ends with when nothing disturbs it.
    code: i32,
    /// The connections of the load; None: the situation is one in which nothing is served.
    load: Option<Connections>,
    /// Whether a run after one that has failed, not one that was killed, is to finish it.
    pub is_tried_again: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Connections {
    KeptAliveAndFresh,
    /// A reload of nginx ends kept-alive ones.
    Fresh,
    /// A release that dies takes with it what it has in flight.
    None,
}

impl Subject {
    /// Which of these faults are tried: where there is much to start and to stop, the first of those that a tool takes alike,
    /// unless it goes back.
    pub fn faults<'a>(&self, all: &'a [Fault]) -> &'a [Fault] {
        if self.config.is_empty() || self.goes_back() { all } else { &all[..1] }
    }

    /// Whether what it does when nothing disturbs it is to go back after its cutover.
    pub fn goes_back(&self) -> bool {
        self.code == 4
    }
}

/// All tools that change something.
pub static SUBJECTS: [Subject; 16] = [
    Subject {
        tool: "deploy",
        config: "",
        prepare: |site, number| drop(site.commit(&format!("v{number}"), "")),
        command: |site| site.tool("deploy", &[]),
        is_done: |site, other| is_enabled(site, other) && serves_head(site) && both_run(site),
        code: 0,
        load: Some(Connections::KeptAliveAndFresh),
        is_tried_again: true,
    },
    Subject {
        tool: "deploy, of what is queued",
        config: "",
        prepare: |site, number| {
            site.commit(&format!("v{number}"), "");
            fs::create_dir_all(site.home.join("queue")).unwrap();
            fs::write(site.home.join("queue/push"), "").unwrap();
        },
        command: |site| site.tool("deploy", &["--queued"]),
        is_done: |site, other| {
            is_enabled(site, other) && serves_head(site) && both_run(site) && !site.home.join("queue/push").exists()
        },
        code: 0,
        load: Some(Connections::KeptAliveAndFresh),
        is_tried_again: false,
    },
    Subject {
        tool: "deploy, of processes and workers",
        config: TEAM,
        prepare: |site, number| drop(site.commit(&format!("v{number}"), "")),
        command: |site| site.tool("deploy", &[]),
        is_done: |site, other| {
            is_enabled(site, other) && serves_head(site) && both_run(site) && members(site, other) == TEAM_MEMBERS
        },
        code: 0,
        load: Some(Connections::KeptAliveAndFresh),
        is_tried_again: true,
    },
    Subject {
        tool: "deploy, of a release that dies in its soak",
        config: "",
        prepare: a_release_that_dies,
        command: |site| site.tool("deploy", &[]),
        is_done: |site, other| !is_enabled(site, other) && serves_the_good_one(site),
        code: 4,
        load: Some(Connections::None),
        is_tried_again: true,
    },
    Subject {
        tool: "deploy, of processes and workers that die in their soak",
        config: TEAM,
        prepare: a_release_that_dies,
        command: |site| site.tool("deploy", &[]),
        is_done: |site, other| {
            !is_enabled(site, other) && serves_the_good_one(site) && members(site, &enabled(site)) == TEAM_MEMBERS
        },
        code: 4,
        load: Some(Connections::None),
        is_tried_again: true,
    },
    Subject {
        tool: "reload, to variables with which processes die in their soak",
        config: MORTAL_TEAM,
        prepare: |site, number| {
            // Whatever the run before has left, the release serves with good variables.
            soak(site, "50ms");
            site.write_env(&format!("NUMBER={number}\n"));
            site.run("reload", &[]).ok();
            soak(site, "20s");
            site.write_env(&format!("NUMBER={number}\nDIES=1\n"));
        },
        command: |site| site.tool("reload", &[]),
        is_done: |site, other| {
            let enabled = enabled(site);
            !is_enabled(site, other)
                && serves_head(site)
                && members(site, &enabled) == TEAM_MEMBERS
                && none_dies(site, &enabled)
        },
        code: 4,
        load: Some(Connections::None),
        is_tried_again: true,
    },
    Subject {
        tool: "reload",
        config: TEAM,
        prepare: |site, number| site.write_env(&format!("NUMBER={number}\n")),
        command: |site| site.tool("reload", &[]),
        is_done: |site, other| {
            is_enabled(site, other)
                && both_run(site)
                && has_its_environment(site, other)
                && members(site, other) == TEAM_MEMBERS
        },
        code: 0,
        load: Some(Connections::KeptAliveAndFresh),
        is_tried_again: true,
    },
    Subject {
        tool: "rollback",
        config: "",
        prepare: |_, _| {},
        command: |site| site.tool("rollback", &[]),
        is_done: |site, other| is_enabled(site, other) && both_run(site),
        code: 0,
        load: Some(Connections::KeptAliveAndFresh),
        is_tried_again: true,
    },
    Subject {
        tool: "rollback, to a standby that is down",
        config: "",
        prepare: |site, _| drop(site.shell("stop-instance $(disabled-instance)").ok()),
        command: |site| site.tool("rollback", &[]),
        is_done: |site, other| is_enabled(site, other) && both_run(site),
        code: 0,
        load: Some(Connections::KeptAliveAndFresh),
        is_tried_again: true,
    },
    Subject {
        tool: "connect-to-nginx",
        config: "",
        prepare: |_, _| {},
        command: |site| site.tool("connect-to-nginx", &[]),
        is_done: |site, other| is_enabled(site, other) && both_run(site),
        code: 0,
        load: Some(Connections::KeptAliveAndFresh),
        is_tried_again: true,
    },
    Subject {
        tool: "start-instance",
        config: "",
        prepare: |site, _| drop(site.shell("stop-instance $(disabled-instance)").ok()),
        command: |site| site.tool("start-instance", &[&disabled(site)]),
        is_done: |site, other| !is_enabled(site, other) && both_run(site),
        code: 0,
        load: Some(Connections::KeptAliveAndFresh),
        is_tried_again: true,
    },
    Subject {
        tool: "stop-instance",
        config: "",
        prepare: |site, _| drop(site.shell("start-instance $(disabled-instance)").ok()),
        command: |site| site.tool("stop-instance", &[&disabled(site)]),
        is_done: |site, other| !is_enabled(site, other) && site.run("pid", &[other]).code == 1,
        code: 0,
        load: Some(Connections::KeptAliveAndFresh),
        is_tried_again: true,
    },
    Subject {
        tool: "update-instance",
        config: "",
        prepare: |site, number| drop(site.commit(&format!("v{number}"), "")),
        command: |site| site.tool("update-instance", &[]),
        is_done: |site, other| {
            let head = site.git(&["rev-parse", "HEAD"]);
            let link = fs::read_link(site.home.join("instances").join(other)).unwrap_or_default();
            !is_enabled(site, other) && link.to_str().unwrap().ends_with(&head[..12])
        },
        code: 0,
        load: Some(Connections::KeptAliveAndFresh),
        is_tried_again: true,
    },
    Subject {
        tool: "bootup",
        config: "",
        prepare: |site, _| {
            // One that is still ending would be taken for one that runs. It takes its pid file away at its very end.
            let end = "kill $(cat .shop/nginx/nginx.pid); timeout 10 sh -c 'while [ -e .shop/nginx/nginx.pid ]; do sleep 0.01; done'";
            drop(site.shell(&format!("stop-instance --force A; stop-instance --force B; {end}")))
        },
        command: |site| site.tool("bootup", &[]),
        is_done: |site, other| !is_enabled(site, other) && both_run(site),
        code: 0,
        load: None,
        is_tried_again: true,
    },
    Subject {
        tool: "install",
        config: "",
        prepare: |site, number| {
            site.write_config(&format!(
                "{QUICK}[health]\ntimeout = \"{}s\"\n[run]\ncommand = \"exec ./app\"\n",
                20 + number
            ));
            fs::remove_file(site.home.join("bin/logs")).unwrap_or_default();
            fs::remove_dir(site.home.join("hooks")).unwrap_or_default();
            fs::remove_file(site.home.join("nginx/shop.d/proxy.conf")).unwrap_or_default();
        },
        command: install,
        is_done: is_laid_out,
        code: 0,
        load: Some(Connections::Fresh),
        is_tried_again: true,
    },
    Subject {
        tool: "install, of a webhook or without it",
        config: "",
        prepare: |site, number| {
            let push = if number.is_multiple_of(2) { SECTION } else { "" };
            site.write_config(&format!("{QUICK}[run]\ncommand = \"exec ./app\"\n{push}"));
        },
        command: install,
        is_done: is_laid_out,
        code: 0,
        load: Some(Connections::Fresh),
        is_tried_again: true,
    },
];

/// Has a good release serve, whatever the run before has left, with the one before it as its standby, and commits one that
/// dies as soon as it is enabled.
fn a_release_that_dies(site: &Site, number: usize) {
    soak(site, "50ms");
    site.commit(&format!("v{number}"), "");
    site.run("deploy", &[]).ok();
    soak(site, "20s");
    site.commit(&format!("v{number}-dies"), "dies 0");
}

/// Has deploys watch for so long.
fn soak(site: &Site, time: &str) {
    let path = site.home.join("config.toml");
    let config = fs::read_to_string(&path).unwrap();
    let others = ["50ms", "20s"].map(|other| format!("soak = \"{other}\""));
    let changed = others.iter().fold(config, |text, other| text.replace(other, &format!("soak = \"{time}\"")));
    fs::write(path, changed).unwrap();
}

/// Whether the release before the one that dies is served.
fn serves_the_good_one(site: &Site) -> bool {
    let version = fs::read_to_string(site.source().join("VERSION")).unwrap();
    site.get("/") == (200, version.replace("-dies", ""))
}

/// Whether no process of an instance has the variable with which it dies.
fn none_dies(site: &Site, instance: &str) -> bool {
    site.run("pid", &[instance]).ok().lines().all(|pid| {
        let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap_or_default();
        !environment.split('\0').any(|variable| variable == "DIES=1")
    })
}

/// Quick deploys; a drain that leaves time for an answer on a busy machine.
pub const QUICK: &str = "[deploy]\nsoak = \"50ms\"\ndrain_timeout = \"500ms\"\nkeep_releases = 2\n";

/// Several processes, and workers.
macro_rules! team {
    ($command:literal) => {
        concat!(
            "\n[run]\ncommand = ",
            $command,
            "\nprocesses = 2\n[[worker]]\nname = \"mail\"\ncommand = \"exec sleep 1000\"\ncount = 2\n",
            "[[worker]]\nname = \"news\"\ncommand = \"exec sleep 1000\"\n"
        )
    };
}
const TEAM: &str = team!("\"exec ./app\"");
/// The same, of which each process dies as soon as it is enabled with a variable that says so.
const MORTAL_TEAM: &str = team!(
    r#""[ -z \"$DIES\" ] || (until [ x$(readlink ../../state/enabled) = x$INSTANCE ]; do sleep 0.01; done; kill -9 $$) & exec ./app""#
);
/// What runs of them beside the enabled instance.
const TEAM_MEMBERS: [&str; 5] = ["0", "1", "mail.0", "mail.1", "news.0"];

/// The programs of an instance that are up.
fn members(site: &Site, instance: &str) -> Vec<String> {
    let status = site.status();
    let views = status["instances"].as_array().unwrap();
    let view = views.iter().find(|view| view["name"] == instance).unwrap();
    let programs = ["processes", "workers"].map(|kind| view[kind].as_array().unwrap());
    let up = programs.into_iter().flatten().filter(|program| program["pid"].is_number());
    up.map(|program| program["name"].as_str().unwrap().to_owned()).collect()
}

/// Whether all that an instance runs was started with the env file as it is.
fn has_its_environment(site: &Site, instance: &str) -> bool {
    let wanted = fs::read_to_string(site.home.join("env")).unwrap();
    site.run("pid", &[instance]).ok().lines().all(|pid| {
        let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split('\0').any(|variable| variable == wanted.trim())
    })
}

/// No worker runs twice.
fn none_doubled(site: &Site) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for pid in site.processes() {
        let environment = fs::read_to_string(format!("/proc/{pid}/environ")).unwrap_or_default();
        let of =
            |name: &str| environment.split('\0').find_map(|variable| variable.strip_prefix(name).map(str::to_owned));
        let Some(worker) = of("WORKER=").zip(of("WORKER_INDEX=")) else { continue };
        if !seen.insert(worker.clone()) {
            return Err(format!("{worker:?} runs twice"));
        }
    }
    Ok(())
}

fn install(site: &Site) -> Command {
    let mut command = site.command(&built().join("install"));
    command.arg("--config").arg(site.config()).arg("--home").arg(&site.home);
    command
}

fn is_laid_out(site: &Site, other: &str) -> bool {
    !is_enabled(site, other) && both_run(site) && site.install(&["--dry-run"]).stdout.is_empty()
}

fn disabled(site: &Site) -> String {
    site.run("disabled-instance", &[]).ok().trim().to_owned()
}

fn enabled(site: &Site) -> String {
    site.run("enabled-instance", &[]).ok().trim().to_owned()
}

fn is_enabled(site: &Site, instance: &str) -> bool {
    site.run("enabled-instance", &[]).stdout.trim() == instance
}

fn serves_head(site: &Site) -> bool {
    let version = fs::read_to_string(site.source().join("VERSION")).unwrap();
    site.get("/") == (200, version)
}

fn both_run(site: &Site) -> bool {
    site.status()["instances"].as_array().unwrap().iter().all(|instance| instance["healthy"] == true)
}

/// Disturbs a tool in these ways at each point, or at a share of them.
pub fn disturb(subject: &Subject, faults: &[Fault], share: Share) -> Outcome {
    let site = match subject.config {
        "" => Site::new(Sample::Static, QUICK),
        more => Site::roomy(Sample::Static, &format!("{QUICK}{more}")),
    };
    for version in ["v1", "v2"] {
        site.commit(version, "");
        site.run("deploy", &[]).ok();
    }
    let load = subject.load.filter(|connections| *connections != Connections::None).map(|connections| {
        let kept_alive = if connections == Connections::Fresh { 0 } else { 6 };
        Load::start(Plan { kept_alive, fresh: 2, pace: Some(Duration::from_millis(5)), ..Plan::on(site.address()) })
    });
    let log = site.directory.path().join("trace");

    let mut number = 3;
    (subject.prepare)(&site, number);
    let other = disabled(&site);
    let (ran, points) = trace::points((subject.command)(&site), &log);
    assert_eq!(ran.code, subject.code, "{ran:?}");
    assert!((subject.is_done)(&site, &other), "{} undisturbed", subject.tool);
    assert!(points.len() >= 3, "{points:?}");

    let mut outcome = Outcome::of(format!("{} {}", subject.tool, words(faults)));
    let baseline = site.processes().len();
    for fault in faults {
        let concerned = points.iter().filter(|point| fault.concerns(point)).collect();
        for point in share.of(concerned) {
            number += 1;
            outcome.faults += 1;
            // From where it takes its word back on it has done its work.
            let last_word = points.iter().rposition(|one| one.call == "pwrite64");
            let is_leaving = points.iter().position(|one| one == point) >= last_word;
            if let Err(reason) = one(subject, &site, number, (point, *fault), is_leaving) {
                outcome.failures.push(format!("{fault:?} at {} {}: {reason}", point.call, point.nth));
            }
            let is_alike = !["stop-instance", "install, of a webhook or without it"].contains(&subject.tool);
            if is_alike && !subject.goes_back() && !come_to(&site, baseline) {
                let now: Vec<String> = site.processes().into_iter().map(command_line).collect();
                outcome.failures.push(format!("{fault:?} at {point:?}: not the processes of before, but {now:?}"));
            }
        }
    }
    if let Some(load) = load {
        let report = load.stop();
        outcome.requests = report.requests;
        outcome.lost = report.failed();
        outcome.failures.extend(report.quoted());
    }
    outcome
}

pub fn words(faults: &[Fault]) -> String {
    let names: Vec<&str> = faults.iter().map(|(Fault::Signal(name) | Fault::Error(name))| *name).collect();
    names.join(", ")
}

fn one(
    subject: &Subject,
    site: &Site,
    number: usize,
    (point, fault): (&Point, Fault),
    is_leaving: bool,
) -> Result<(), String> {
    let log = site.directory.path().join("trace");
    (subject.prepare)(site, number);
    let other = disabled(site);
    let before = State::of(site);
    let ran = trace::disturbed((subject.command)(site), &log, point, fault);
    if let Fault::Error(_) = fault {
        let is_told = ran.code == 0 || ran.stderr.lines().last().is_some_and(|line| line.contains(": cannot "));
        // Unless what failed was telling it.
        let is_mute = point.call == "write" && ran.stderr.is_empty();
        if ![0, 2, 3, 4, 5, 124].contains(&ran.code) || !(is_told || is_mute || subject.code != 0) {
            return Err(format!("it ended with {ran:?}"));
        }
        is_true(site, &before, &ran)?;
    }

    no_orphans(site)?;
    none_doubled(site)?;
    whole_releases(site)?;
    nginx_could_start(site)?;
    // Of a tool that was killed before its way back nobody takes the traffic from a release that dies and comes back.
    let may_be_dying = subject.goes_back() && (matches!(fault, Fault::Signal(_)) || ran.code == 5);
    if subject.load.is_some() && !may_be_dying {
        one_release_serves(site)?;
    }
    let after = State::of(site);
    let status = site.status();
    let is_told = status["change"]["doing"].is_string() && status["change"]["pid"].is_null();
    // One that needed fewer calls than the one counted was not disturbed.
    let may_be_done = ran.code == subject.code || matches!(fault, Fault::Signal(_)) && is_leaving;
    if may_be_done && status["change"].is_null() && (subject.is_done)(site, &other) {
        return Ok(());
    }
    let again = Ran::of(&(subject.command)(site).output().unwrap());
    if again.code != subject.code {
        return Err(format!("run again, it ended with {again:?}; before: {ran:?}"));
    }
    let finished = State::of(site);
    if matches!(fault, Fault::Signal(_)) && !is_told && after != before && after != finished {
        return Err(format!("status did not tell of it: {status}"));
    }
    if !(subject.is_done)(site, &other) {
        return Err(format!("run again, it did not finish: {again:?}, {}", site.status()));
    }
    if !site.status()["change"].is_null() {
        return Err(format!("run again, it left word of being interrupted: {}", site.status()));
    }
    if let Some(left) = finished.releases.iter().find(|name| name.starts_with('.')) {
        return Err(format!("{left} is left in releases"));
    }
    no_orphans(site)?;
    none_doubled(site)?;
    whole_releases(site)?;
    if subject.load.is_some() { one_release_serves(site) } else { Ok(()) }
}

/// The exit code says what serves: as before, but for success and for a way back that has failed; that one names it.
fn is_true(site: &Site, before: &State, ran: &Ran) -> Result<(), String> {
    let (now, then) = (&State::of(site).links[0], &before.links[0]);
    match ran.code {
        3 | 4 | 124 if now != then => Err(format!("it ended with {ran:?}, but {now:?} serves instead of {then:?}")),
        5 if !["now nginx uses ", "; enabled is ", " stands in with "].iter().any(|word| ran.stderr.contains(word)) => {
            Err(format!("it does not say what serves: {ran:?}"))
        }
        _ => Ok(()),
    }
}

/// What a tool can change.
#[derive(Debug, PartialEq, Eq)]
struct State {
    links: Vec<Option<std::path::PathBuf>>,
    releases: BTreeSet<String>,
    supervises: Vec<Option<i32>>,
}

impl State {
    fn of(site: &Site) -> State {
        let links = ["state/enabled", "instances/A", "instances/B"];
        let releases = fs::read_dir(site.home.join("releases")).unwrap();
        State {
            links: links.iter().map(|link| fs::read_link(site.home.join(link)).ok()).collect(),
            releases: releases
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .filter(|name| !name.starts_with(".made-"))
                .collect(),
            supervises: supervises(site).to_vec(),
        }
    }
}

fn supervises(site: &Site) -> [Option<i32>; 2] {
    ["A", "B"].map(|instance| {
        let holder = lock::holder(&site.home.join(format!("run/{instance}.lock"))).unwrap();
        holder.map(|(pid, _)| pid.raw())
    })
}

fn command_line(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ")
}

/// Whether the site comes to have so many processes: those that end may take a moment.
fn come_to(site: &Site, count: usize) -> bool {
    let deadline = Instant::now() + ORPHANS;
    while site.processes().len() != count {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
    true
}

/// Every process of the site is nginx's, or belongs to a supervise that holds its lock.
pub fn no_orphans(site: &Site) -> Result<(), String> {
    let deadline = Instant::now() + ORPHANS;
    loop {
        let owners: Vec<i32> = supervises(site).into_iter().flatten().collect();
        let is_owned = |pid: i32| {
            let mut ancestor = pid;
            while ancestor > 1 {
                if owners.contains(&ancestor) {
                    return true;
                }
                ancestor = parent(ancestor);
            }
            false
        };
        let name = |pid: i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let is_listener = |pid: i32| {
            let holder = lock::holder(&site.home.join("run/on-push.lock")).unwrap();
            holder.is_some_and(|(listener, _)| listener.raw() == pid)
        };
        let orphans: Vec<String> = site
            .processes()
            .into_iter()
            .filter(|pid| name(*pid) != "nginx\n" && !is_owned(*pid) && !is_listener(*pid))
            .map(|pid| format!("{pid} {}", name(pid).trim()))
            .collect();
        if orphans.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("orphans: {orphans:?}"));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Whatever looks like a release has all its files, with all they hold.
pub fn whole_releases(site: &Site) -> Result<(), String> {
    let app = fs::metadata(site.source().join("app")).unwrap().len();
    for entry in fs::read_dir(site.home.join("releases")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with('.') || path.with_file_name(format!(".making-{name}")).exists() {
            continue;
        }
        let size = |name: &str| fs::metadata(path.join(name)).map_or(0, |meta| meta.len());
        if size("VERSION") == 0 || size("BEHAVIOUR") == 0 || size("app") != app {
            return Err(format!("half a release: {}", path.display()));
        }
    }
    Ok(())
}

/// nginx accepts its files as they are: the machine may go down now.
pub fn nginx_could_start(site: &Site) -> Result<(), String> {
    let mut nginx = site.command(&cutover::command::find("nginx").unwrap());
    nginx.arg("-t").arg("-q").arg("-p").arg(site.home.join("nginx")).args(["-c", "nginx.conf"]);
    let tested = Ran::of(&nginx.output().unwrap());
    if tested.code == 0 { Ok(()) } else { Err(format!("nginx could not start: {tested:?}")) }
}

/// Requests are answered by one release, and nginx and the link agree on whose.
pub fn one_release_serves(site: &Site) -> Result<(), String> {
    let answers: Result<BTreeSet<String>, _> = (0..ALIKE).map(|_| load::slow(site.address(), Duration::ZERO)).collect();
    let answers = answers.map_err(|failure| format!("not served: {failure}"))?;
    if answers.len() != 1 {
        return Err(format!("answers of more than one release: {answers:?}"));
    }
    let status = site.status();
    let link = fs::read_link(site.home.join("state/enabled")).unwrap();
    if status["nginx"] != status["enabled"] || Path::new(status["nginx"].as_str().unwrap_or_default()) != link {
        return Err(format!("nginx and the link differ: {status}"));
    }
    Ok(())
}
