//! The examples of examples/, run as AWS CodeDeploy's agent and GitHub's runner run them: the environment, the signals,
//! the outputs that are read until nobody holds them, and the killing of what a job leaves behind.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use cutover::account::Account;
use cutover::app::{Config, Record};
use nix::sys::signal::Signal;
use yaml_rust2::{Yaml, YamlLoader};

use crate::agents::{CodeDeploy, Job, Running, Script};
use crate::site::{Ran, Sample, Site, eventually, none_lost};

/// A build that goes on for as long as the release holds HOLD and the home no `go`.
const HOLDS: &str = "[build]\ncommand = \"until test ! -e HOLD || test -e ../../go; do sleep 0.05; done\"\n";

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

fn yaml(file: &str) -> Yaml {
    let text = fs::read_to_string(example(file)).unwrap();
    let mut documents = YamlLoader::load_from_str(&text).unwrap();
    assert_eq!(documents.len(), 1, "{file}");
    documents.remove(0)
}

/// The keys of a table.
fn keys(table: &Yaml) -> Vec<&str> {
    table.as_hash().unwrap().keys().map(|key| key.as_str().unwrap()).collect()
}

/// How long a deploy may take by default, and a deploy that waits for another one.
fn longest_deploy() -> Duration {
    let least = "app = \"x\"\n[source]\ngit = \"x\"\n[run]\ncommand = \"x\"\n";
    2 * Config::parse(least).unwrap().deploy.timeout
}

/// Replaces a word that an example says once.
fn with(text: &str, word: &str, replacement: &str) -> String {
    assert_eq!(text.matches(word).count(), 1, "{word:?} in {text}");
    text.replace(word, replacement)
}

/// The script of the one hook in appspec.yml.
fn hook() -> Script {
    let specification = yaml("codedeploy/appspec.yml");
    let hooks = &specification["hooks"];
    let [event] = keys(hooks)[..] else { panic!("{hooks:?}") };
    let [script] = &hooks[event].as_vec().unwrap()[..] else { panic!("{hooks:?}") };
    assert_eq!(keys(script), ["location", "timeout"]);
    let timeout = script["timeout"].as_i64().unwrap().cast_unsigned();
    Script { event: event.to_owned(), location: script["location"].as_str().unwrap().to_owned(), timeout }
}

/// A site whose repository holds the example for CodeDeploy, made its own.
fn site() -> Site {
    let site = Site::new(Sample::Static, HOLDS);
    let script = fs::read_to_string(example("codedeploy/deploy.sh")).unwrap();
    let home = site.home.to_str().unwrap();
    // As root keeps one of each app that it installs for somebody else; here the app is the tester's own.
    let record = site.directory.path().join("shop.record");
    let config = fs::read_to_string(site.config()).unwrap();
    fs::write(&record, Record::text("shop", &Account::current(), &site.home, &config).unwrap()).unwrap();
    for (name, text) in [
        ("appspec.yml", fs::read_to_string(example("codedeploy/appspec.yml")).unwrap()),
        (
            "deploy.sh",
            with(
                &with(&script, "/home/potados/.cafeteria", home),
                "/var/lib/cutover/*.record",
                record.to_str().unwrap(),
            ),
        ),
    ] {
        let path = site.source().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::metadata(example("codedeploy").join(name)).unwrap().permissions()).unwrap();
    }
    site.commit("v1", "");
    site
}

/// The same with an agent, which has deployed `v1`.
fn served() -> (Site, CodeDeploy) {
    let site = site();
    let mut agent = CodeDeploy::on(&site);
    deployed(&site, &mut agent).unwrap();
    (site, agent)
}

/// Has the agent deploy what was committed last, from the download to the hook's end.
fn deployed(site: &Site, agent: &mut CodeDeploy) -> Result<Ran, String> {
    let archive = agent.download(site);
    agent.wait(agent.begin(site, &archive, &hook()))
}

/// The workflow's steps after the checkout, and the variables of its job, made the site's own.
fn workflow() -> (Vec<String>, BTreeMap<String, String>) {
    let workflow = yaml("github-actions.yml");
    let job = &workflow["jobs"]["deploy"];
    let variables = job["env"].as_hash().unwrap().iter();
    let variables: BTreeMap<String, String> = variables
        .map(|(name, value)| (name.as_str().unwrap().to_owned(), with(value.as_str().unwrap(), "cafeteria", "shop")))
        .collect();
    let steps = job["steps"].as_vec().unwrap().iter().skip(1);
    (steps.map(|step| step["run"].as_str().unwrap().to_owned()).collect(), variables)
}

/// Begins a job's last step, after the others.
fn begun(job: &mut Job) -> Running {
    job.check_out();
    let (mut steps, variables) = workflow();
    let last = steps.pop().unwrap();
    for step in steps {
        let running = job.begin_step(&step, &variables);
        job.wait(running).ran.ok();
    }
    job.begin_step(&last, &variables)
}

/// Runs a whole job; returns what became of its last step.
fn job(site: &Site) -> Ran {
    let mut job = Job::begin(site);
    let last = begun(&mut job);
    let ended = job.wait(last);
    assert!(ended.left_open.is_empty(), "something outlives the step and holds its output: {ended:?}");
    assert_eq!(job.end(), Vec::<String>::new(), "orphans were killed");
    ended.ran
}

/// Asserts what serves, and that both instances run: `A` and `B` under these pids.
#[track_caller]
fn serve(site: &Site, version: &str, pids: [i32; 2]) {
    assert_eq!(site.get("/"), (200, format!("{version}\n")));
    assert_eq!(["A", "B"].map(|instance| site.pid(instance)), pids);
}

/// Where a deploy is when it is stopped.
#[derive(Clone, Copy, Debug)]
enum Point {
    Building,
    Starting,
}

const POINTS: [Point; 2] = [Point::Building, Point::Starting];

impl Point {
    /// Commits a version whose deploy stays here for a while.
    fn commit(self, site: &Site, version: &str) {
        let _ = fs::remove_file(site.home.join("go"));
        match self {
            Point::Building => fs::write(site.source().join("HOLD"), "").unwrap(),
            Point::Starting => drop(fs::remove_file(site.source().join("HOLD"))),
        }
        site.commit(version, if matches!(self, Point::Building) { "" } else { "slow 4" });
    }

    fn await_it(self, site: &Site) {
        eventually("the deploy is under way", || {
            let status = site.status();
            let doing = status["change"]["doing"].as_str().unwrap_or_default();
            match self {
                Point::Building => doing.starts_with("making a release") && is_building(site),
                Point::Starting => doing.starts_with("starting "),
            }
        });
    }
}

/// Whether a build runs.
fn is_building(site: &Site) -> bool {
    let is_in_one = |pid: i32| {
        let directory = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
        let name = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        site.home.join(format!("releases/.making-{name}")).exists()
    };
    site.processes().into_iter().any(is_in_one)
}

/// Asserts that a deploy was interrupted, and that the old version serves.
#[track_caller]
fn interrupted(site: &Site, version: &str) {
    let status = site.status();
    assert!(status["change"]["doing"].is_string() && status["change"]["pid"].is_null(), "{status}");
    assert_eq!(site.get("/"), (200, format!("{version}\n")));
}

/// The same, and that its build has ended with it.
#[track_caller]
fn stopped(site: &Site, version: &str) {
    interrupted(site, version);
    eventually("the build has ended", || !is_building(site));
}

#[test]
fn the_appspec_is_one_that_the_agent_takes() {
    let specification = yaml("codedeploy/appspec.yml");
    // application_specification.rb compares the numbers.
    assert_eq!(specification["version"], Yaml::Real("0.0".to_owned()));
    assert_eq!(specification["os"].as_str(), Some("linux"));
    assert_eq!(keys(&specification), ["version", "os", "hooks"]);
    let script = hook();
    // command_poller.rb; hook_executor.rb runs the other events' scripts from the revision before.
    let events = ["BeforeInstall", "AfterInstall", "ApplicationStart", "ValidateService"];
    assert!(events.contains(&script.event.as_str()), "{script:?}");
    let mode = fs::metadata(example("codedeploy").join(&script.location)).unwrap().permissions().mode();
    assert_eq!(mode & 0o111, 0o111, "{script:?}");
    // The service allows no more than an hour for an event.
    assert!(script.timeout <= 3600 && script.timeout >= longest_deploy().as_secs(), "{script:?}");
}

#[test]
fn a_hook_of_codedeploys_deploys_and_leaves_nothing_open() {
    let (site, mut agent) = served();
    let load = site.load();
    site.commit("v2", "");
    let a = site.pid("A");
    let ran = deployed(&site, &mut agent).unwrap();
    // script_log.rb keeps the last 2,048 characters.
    assert!(ran.stdout.is_empty() && ran.stderr.len() < 2000, "{ran:?}");
    serve(&site, "v2", [a, site.pid("B")]);
    none_lost(&load.stop());
}

#[test]
fn a_release_that_does_not_start_fails_the_hook_and_the_step() {
    let (site, mut agent) = served();
    let load = site.load();
    site.commit("v2", "exit");
    let failed = deployed(&site, &mut agent).unwrap_err();
    assert!(failed.starts_with("failed with exit code 3: ") && failed.contains("cannot open database"), "{failed}");
    job(&site).fails(3, &["deploy: cannot start B: it died: exit status 3: v2 opens its database"]);
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
    none_lost(&load.stop());
}

/// Interrupts a deploy at each point under load: `interrupt` begins and ends it there, `finish` is the same call again.
#[track_caller]
fn at_each_point(site: &Site, mut interrupt: impl FnMut(Point, &str), mut finish: impl FnMut()) {
    let load = site.load();
    let mut old = "v1";
    for (point, new) in POINTS.into_iter().zip(["v2", "v3"]) {
        point.commit(site, new);
        interrupt(point, old);
        fs::write(site.home.join("go"), "").unwrap();
        finish();
        serve(site, new, [site.pid("A"), site.pid("B")]);
        eventually("no build is left", || !is_building(site));
        old = new;
    }
    none_lost(&load.stop());
}

#[test]
fn a_hook_that_times_out_leaves_the_old_release_and_the_next_one_finishes() {
    let (site, agent) = served();
    let agent = RefCell::new(agent);
    let time_out = |point: Point, old: &str| {
        let mut agent = agent.borrow_mut();
        let archive = agent.download(&site);
        let running = agent.begin(&site, &archive, &hook());
        point.await_it(&site);
        agent.time_out(running);
        stopped(&site, old);
    };
    at_each_point(&site, time_out, || drop(deployed(&site, &mut agent.borrow_mut()).unwrap()));
}

#[test]
fn a_revision_with_its_repository_is_refused() {
    let (site, mut agent) = served();
    let archive = agent.download(&site);
    fs::create_dir(archive.join(".git")).unwrap();
    let failed = agent.wait(agent.begin(&site, &archive, &hook())).unwrap_err();
    assert!(failed.starts_with("failed with exit code 2: ") && failed.contains(": it holds .git; "), "{failed}");
    site.run("pid", &["B"]).is(1, "", "");
}

#[test]
fn the_workflow_is_one_for_a_server() {
    let workflow = yaml("github-actions.yml");
    assert_eq!(workflow["concurrency"]["cancel-in-progress"].as_bool(), Some(false));
    assert!(workflow["concurrency"]["group"].as_str().is_some());
    // Not for the pull requests of strangers.
    assert_eq!(keys(&workflow["on"]), ["push", "workflow_dispatch"]);
    assert_eq!(keys(&workflow["jobs"]), ["deploy"]);
    let job = &workflow["jobs"]["deploy"];
    assert_eq!(job["runs-on"].as_str(), Some("self-hosted"));
    let minutes = job["timeout-minutes"].as_i64().unwrap().cast_unsigned();
    assert!(minutes * 60 > longest_deploy().as_secs(), "{minutes}");
    let checkout = &job["steps"][0];
    assert!(checkout["uses"].as_str().unwrap().starts_with("actions/checkout@"));
    assert_eq!(checkout["with"]["persist-credentials"].as_bool(), Some(false));
    let (steps, _) = self::workflow();
    assert!(!steps.is_empty() && steps.iter().all(|step| !step.contains("${{")), "{steps:?}");
}

#[test]
fn a_job_of_githubs_runner_deploys_and_its_end_spares_both_instances() {
    let site = site();
    job(&site).ok();
    let load = site.load();
    site.commit("v2", "");
    let a = site.pid("A");
    let ran = job(&site);
    assert!(ran.code == 0 && ran.stdout.is_empty(), "{ran:?}");
    let pids = [a, site.pid("B")];
    // Nor does the runner's wish that its children be killed first when memory runs out reach the app.
    let badness = |pid| fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    assert_eq!(pids.map(badness), ["0\n", "0\n"]);
    // What the job's end kills, it kills at once.
    load.settled();
    serve(&site, "v2", pids);
    none_lost(&load.stop());
    let release = fs::canonicalize(site.home.join("instances/B")).unwrap();
    assert!(!release.join(".git").exists() && release.join("app").exists());
}

#[test]
fn a_cancelled_job_leaves_the_old_release_and_the_next_one_finishes() {
    let site = site();
    job(&site).ok();
    let cancel = |point: Point, old: &str| {
        let mut cancelled = Job::begin(&site);
        let running = begun(&mut cancelled);
        point.await_it(&site);
        assert_eq!(cancelled.cancel(running), Signal::SIGINT, "{point:?}");
        stopped(&site, old);
        // The runner has more to do before it looks for orphans, such as the other half of the checkout.
        eventually("nothing of the deploy is left", || cancelled.orphans().is_empty());
        assert_eq!(cancelled.end(), Vec::<String>::new(), "{point:?}");
    };
    at_each_point(&site, cancel, || drop(job(&site).ok()));
}

#[test]
fn a_deploy_that_a_jobs_end_kills_leaves_the_old_release_and_the_next_one_finishes() {
    let site = site();
    job(&site).ok();
    let kill = |point: Point, old: &str| {
        let mut ended = Job::begin(&site);
        let running = begun(&mut ended);
        point.await_it(&site);
        let killed = ended.end();
        // With it its leash may go, and the build runs on until the next deploy; the app and its supervise stay.
        assert!(killed.contains(&"deploy".to_owned()), "{point:?}: {killed:?}");
        assert!(killed.iter().all(|name| name == "deploy" || name == "leash"), "{point:?}: {killed:?}");
        assert_eq!(ended.wait(running).ran.code, 128 + 9);
        interrupted(&site, old);
    };
    at_each_point(&site, kill, || drop(job(&site).ok()));
}

/// Asserts that a deploy of an agent's which comes while somebody deploys by hand follows that one.
#[track_caller]
fn follows(site: &Site, begin: impl FnOnce() -> Running) -> Running {
    Point::Building.commit(site, "v2");
    let by_hand = site.tool("deploy", &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    Point::Building.await_it(site);
    site.commit("v3", "");
    let agents = begin();
    eventually("the agent's deploy waits", || is_waiting(site));
    fs::write(site.home.join("go"), "").unwrap();
    Ran::of(&by_hand.wait_with_output().unwrap()).ok();
    agents
}

/// Whether a deploy runs that waits for its turn if it has to.
fn is_waiting(site: &Site) -> bool {
    let is_it = |pid: &i32| {
        let words = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.starts_with(site.home.to_str().unwrap()) && words.contains("/bin/deploy\0--wait\0")
    };
    site.processes().iter().any(is_it)
}

#[test]
fn a_hook_waits_for_another_deploy() {
    let (site, mut agent) = served();
    let running = follows(&site, || {
        let archive = agent.download(&site);
        agent.begin(&site, &archive, &hook())
    });
    agent.wait(running).unwrap();
    assert_eq!(site.get("/"), (200, "v3\n".to_owned()));
}

#[test]
fn a_step_waits_for_another_deploy() {
    let site = site();
    job(&site).ok();
    let mut second = Job::begin(&site);
    let running = follows(&site, || begun(&mut second));
    second.wait(running).ran.ok();
    assert_eq!(site.get("/"), (200, "v3\n".to_owned()));
}
