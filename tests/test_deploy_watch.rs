//! deploy --watch: a directory is deployed again whenever its files have changed and are quiet, and never else.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cutover::watching::{LONGEST, QUIET};
use serde_json::Value;
use tempfile::TempDir;

use crate::site::{BRISK, Ran, Sample, Site, chmod, eventually, none_lost};

/// Requests in flight may take this long before their instance is stopped all the same.
const PATIENT: &str = "[deploy]\nsoak = \"100ms\"\ndrain_timeout = \"1s\"\n";
/// A build that lasts until the file `go` is in the home.
const HELD: &str = "[build]\ncommand = \"until test -e ../../go; do sleep 0.05; done\"\n";

/// A `deploy --watch` that runs. What it says goes to a file that lies in no directory under test.
struct Watch<'a> {
    site: &'a Site,
    directory: PathBuf,
    tool: Child,
    said: PathBuf,
    _place: TempDir,
}

impl<'a> Watch<'a> {
    /// Watches the sample's sources, which are a git repository, and waits for the first deploy to end.
    #[track_caller]
    fn of(site: &'a Site) -> Watch<'a> {
        let watch = Watch::begun(site, &site.source());
        watch.has_deployed(1);
        watch
    }

    fn begun(site: &'a Site, directory: &Path) -> Watch<'a> {
        let place = tempfile::tempdir().unwrap();
        let said = place.path().join("said");
        let mut command = site.tool("deploy", &["--watch", directory.to_str().unwrap()]);
        let tool = command.stdout(Stdio::piped()).stderr(File::create(&said).unwrap()).spawn().unwrap();
        Watch { site, directory: directory.to_owned(), tool, said, _place: place }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap()
    }

    /// How many deploys have ended, those included that found nothing to do.
    fn deployed(&self) -> usize {
        self.said().matches("deploy: watching ").count()
    }

    /// Waits until so many deploys have ended.
    #[track_caller]
    fn has_deployed(&self, times: usize) {
        eventually(&format!("{times} deploys, after {}", self.said()), || self.deployed() >= times);
        assert_eq!(self.deployed(), times, "{}", self.said());
    }

    /// Waits until no deploy is under way.
    #[track_caller]
    fn rests(&self) {
        let rests = || self.said().lines().last().is_some_and(|line| line.starts_with("deploy: watching "));
        eventually("no deploy is under way", rests);
    }

    /// Asserts that nothing is deployed for longer than it takes to notice a change.
    #[track_caller]
    fn stays_quiet(&self) {
        let before = self.said();
        let end = Instant::now() + 4 * QUIET;
        while Instant::now() < end {
            assert_eq!(self.said(), before);
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.directory.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A file of the release that serves.
    fn serves(&self, file: &str) -> PathBuf {
        let enabled = self.site.run("enabled-instance", &[]).ok();
        self.site.home.join("instances").join(enabled.trim()).join(file)
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.tool.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }

    /// Asks it to end. Returns what it did in all.
    fn end(mut self, signal: &str) -> Ran {
        self.signal(signal);
        self.ended()
    }

    /// Waits for its end.
    fn ended(&mut self) -> Ran {
        let tool = &mut self.tool;
        eventually("deploy --watch ends", || tool.try_wait().unwrap().is_some());
        let (mut stdout, status) = (String::new(), tool.wait().unwrap());
        std::io::Read::read_to_string(tool.stdout.as_mut().unwrap(), &mut stdout).unwrap();
        let output = std::process::Output { status, stdout: stdout.into(), stderr: self.said().into() };
        Ran::of(&output)
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let _ = self.tool.kill();
        let _ = self.tool.wait();
    }
}

fn history(site: &Site) -> Vec<Value> {
    let text = fs::read_to_string(site.home.join("logs/history.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Does something again and again for a while, which counts, and returns how often there was a pause in which files could
/// count as quiet: on a busy machine there may be one.
fn steadily(mut work: impl FnMut(usize)) -> usize {
    let (began, mut pauses, mut number) = (Instant::now(), 0, 0);
    while began.elapsed() < 4 * QUIET {
        let last = Instant::now();
        work(number);
        number += 1;
        thread::sleep(Duration::from_millis(10));
        pauses += usize::from(last.elapsed() > QUIET / 2);
    }
    assert!(number > 4, "this machine is too busy");
    pauses
}

#[test]
fn each_change_is_deployed_under_load_and_no_request_is_lost() {
    let site = Site::new(Sample::Static, PATIENT);
    let watch = Watch::of(&site);
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
    let load = site.load();
    for number in 2..=5 {
        let version = format!("v{number}");
        watch.write("VERSION", &version);
        watch.has_deployed(number);
        let deployed = load.settled();
        let later: Vec<String> = load.settled().since(&deployed).bodies.into_keys().collect();
        assert_eq!(later, [version]);
    }
    none_lost(&load.stop());

    let changes = history(&site);
    let user = site.shell("id -un").ok();
    for change in &changes {
        assert_eq!((&change["who"], &change["what"]), (&user.trim().into(), &"deploy".into()));
        assert_eq!((&change["wanted"]["ref"], &change["outcome"]), (&Value::Null, &"done".into()));
        assert_eq!(change["wanted"]["origin"], site.source().to_str().unwrap());
    }
    assert_eq!(changes.len(), 5);
    let ran = watch.end("TERM").masked(&site);
    let deploy = |instance: &str| {
        format!(
            "deploy: making a release of SITE/source for {instance}\ndeploy: RELEASE is made, TIME\n\
             deploy: {instance} is healthy, TIME\ndeploy: {instance} is enabled, TIME\ndeploy: watching SITE/source\n"
        )
    };
    ran.is(0, "", &(["A", "B", "A", "B", "A"].map(deploy).concat() + "deploy: asked to end\n"));
}

#[test]
fn many_writes_in_a_row_are_one_deploy_of_the_last() {
    let site = Site::new(Sample::Static, BRISK);
    let watch = Watch::of(&site);
    let mut last = String::new();
    let pauses = steadily(|number| {
        last = format!("v{number}\n");
        watch.write("VERSION", &last);
    });
    eventually("the last is served", || site.get("/") == (200, last.clone()));
    watch.rests();
    assert!((2..=2 + pauses).contains(&history(&site).len()), "{pauses} pauses: {}", watch.said());
}

#[test]
fn a_file_that_is_written_slowly_is_deployed_when_it_is_whole() {
    let site = Site::new(Sample::Static, BRISK);
    let watch = Watch::of(&site);
    let mut file = File::create(watch.directory.join("archive")).unwrap();
    let pauses = steadily(|_| file.write_all(b"some").unwrap());
    let whole = file.metadata().unwrap().len();
    drop(file);
    eventually("it is deployed", || watch.serves("archive").metadata().is_ok_and(|held| held.len() == whole));
    watch.rests();
    assert!((2..=2 + pauses).contains(&history(&site).len()), "{pauses} pauses: {}", watch.said());
}

#[test]
fn a_file_that_stays_open_deploys_nothing() {
    let site = Site::new(Sample::Static, BRISK);
    let watch = Watch::of(&site);
    let mut log = File::create(watch.directory.join("log")).unwrap();
    watch.has_deployed(2);
    steadily(|_| log.write_all(b"some").unwrap());
    watch.stays_quiet();
    assert_eq!(watch.deployed(), 2);
}

#[test]
fn files_that_never_are_quiet_are_deployed_all_the_same() {
    let site = Site::new(Sample::Static, BRISK);
    let watch = Watch::of(&site);
    let began = Instant::now();
    while watch.deployed() < 2 {
        watch.write("counter", &format!("{:?}", began.elapsed()));
        assert!(began.elapsed() < 4 * LONGEST, "{}", watch.said());
        thread::sleep(Duration::from_millis(10));
    }
    assert!(began.elapsed() >= QUIET);
}

#[test]
fn what_is_ignored_deploys_nothing() {
    let site = Site::new(Sample::Static, BRISK);
    let watch = Watch::of(&site);
    for file in [".npmrc", ".config/app", "node_modules/x/index.js", "lib/node_modules/x/index.js", "lib/index.js"] {
        watch.write(file, "one");
    }
    watch.has_deployed(2);
    watch.stays_quiet();
    let before = watch.said();
    for file in [".npmrc", ".config/app", "node_modules/x/index.js", "lib/node_modules/x/index.js"] {
        watch.write(file, "two");
        watch.stays_quiet();
    }
    site.git(&["commit", "--quiet", "--allow-empty", "--message", "nothing"]);
    watch.write(".VERSION.swp", "an editor's");
    watch.write(".new/sub/file", "");
    fs::rename(watch.directory.join(".new"), watch.directory.join(".old")).unwrap();
    fs::remove_dir_all(watch.directory.join("node_modules")).unwrap();
    site.shell("cat source/* source/.npmrc >/dev/null; ls -lR source >/dev/null").ok();
    watch.stays_quiet();
    assert_eq!(watch.said(), before);

    // Hidden files are the app's as well: the next release has them.
    watch.write("VERSION", "v2");
    eventually("v2 is served", || site.get("/") == (200, "v2\n".to_owned()));
    assert_eq!(fs::read_to_string(watch.serves(".npmrc")).unwrap(), "two");
    assert_eq!(fs::read_to_string(watch.serves(".config/app")).unwrap(), "two");
    for left_out in [".git", "node_modules", "lib/node_modules"] {
        assert!(!watch.serves(left_out).exists(), "{left_out}");
    }
    assert!(watch.serves("lib/index.js").exists());
}

#[test]
fn what_holds_the_same_as_before_is_not_deployed_again() {
    let site = Site::new(Sample::Static, BRISK);
    let watch = Watch::of(&site);
    let pids = (site.pid("A"), site.run("pid", &["B"]).code);
    watch.write("VERSION", "v1\n");
    watch.has_deployed(2);
    site.shell("touch source/app && touch source/new && rm source/new && chmod 700 source/app && chmod 755 source/app")
        .ok();
    watch.has_deployed(3);
    assert_eq!((site.pid("A"), site.run("pid", &["B"]).code), pids);
    assert_eq!(watch.said().matches("deploy: already current: A runs ").count(), 2);
    assert_eq!((history(&site).len(), site.releases().len()), (1, 1));
    // What it held before is a release already.
    watch.write("VERSION", "v2\n");
    watch.has_deployed(4);
    watch.write("VERSION", "v1\n");
    watch.has_deployed(5);
    assert_eq!((history(&site).len(), site.releases().len()), (3, 2));
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
    // The same holds for the next one that watches.
    watch.end("INT");
    let watch = Watch::of(&site);
    assert!(watch.said().starts_with("deploy: already current: A runs "), "{}", watch.said());
    // But not permissions.
    chmod(&site.source().join("VERSION"), 0o600);
    watch.has_deployed(2);
    assert_eq!(site.releases().len(), 3);
}

#[test]
fn a_change_during_a_deploy_leads_to_one_more() {
    let site = Site::new(Sample::Static, &format!("{HELD}{BRISK}"));
    let watch = Watch::begun(&site, &site.source());
    let is_mark = |name: &String| name.starts_with(".making-");
    let builds = || watch.said().ends_with(" for A\n") && site.releases().iter().any(is_mark);
    eventually("the first deploy builds", builds);
    for version in ["v2", "v3"] {
        watch.write("VERSION", version);
    }
    watch.stays_quiet();
    fs::write(site.home.join("go"), "").unwrap();
    watch.has_deployed(2);
    assert_eq!(site.get("/"), (200, "v3\n".to_owned()));
    watch.stays_quiet();
    assert_eq!(history(&site).len(), 2);
}

#[test]
fn so_many_changes_that_some_are_not_heard_of_are_all_deployed() {
    let site = Site::new(Sample::Static, &format!("{HELD}{BRISK}"));
    let watch = Watch::begun(&site, &site.source());
    eventually("the first deploy builds", || watch.said().ends_with(" for A\n"));
    let limit: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    for number in 0..=limit {
        let file = watch.directory.join(format!("file{}", number % 2));
        fs::write(&file, "").unwrap();
        fs::remove_file(&file).unwrap();
    }
    // Nobody hears of these.
    watch.write("late/sub/file", "one");
    fs::write(site.home.join("go"), "").unwrap();
    watch.has_deployed(2);
    assert!(watch.serves("late/sub/file").exists());
    watch.write("late/sub/file", "two");
    watch.has_deployed(3);
    assert_eq!(fs::read_to_string(watch.serves("late/sub/file")).unwrap(), "two");
}

#[test]
fn directories_that_come_and_go_are_watched_as_long_as_they_are_there() {
    let site = Site::new(Sample::Static, BRISK);
    let watch = Watch::of(&site);
    let elsewhere = site.directory.path().join("elsewhere");
    fs::create_dir_all(elsewhere.join("inner")).unwrap();
    let (moved, renamed) = (watch.directory.join("moved"), watch.directory.join("renamed"));
    let mut deployed = 1;
    let mut leads_to = |change: &dyn Fn(), file: &str, text: Option<&str>| {
        change();
        deployed += 1;
        watch.has_deployed(deployed);
        assert_eq!(fs::read_to_string(watch.serves(file)).ok().as_deref(), text, "{file}");
    };
    leads_to(&|| watch.write("a/b/c/file", "one"), "a/b/c/file", Some("one"));
    leads_to(&|| watch.write("a/b/c/file", "two"), "a/b/c/file", Some("two"));
    leads_to(&|| fs::rename(&elsewhere, &moved).unwrap(), "moved/file", None);
    leads_to(&|| watch.write("moved/inner/file", "one"), "moved/inner/file", Some("one"));
    leads_to(&|| fs::rename(&moved, &renamed).unwrap(), "renamed/inner/file", Some("one"));
    leads_to(&|| watch.write("renamed/inner/file", "two"), "renamed/inner/file", Some("two"));
    leads_to(&|| fs::rename(&renamed, &elsewhere).unwrap(), "renamed/inner/file", None);
    leads_to(&|| fs::remove_dir_all(watch.directory.join("a")).unwrap(), "a/b/c/file", None);
    leads_to(&|| watch.write("a/b/c/file", "three"), "a/b/c/file", Some("three"));
    leads_to(&|| fs::remove_file(watch.directory.join("a/b/c/file")).unwrap(), "a/b/c/file", None);
    leads_to(&|| watch.write("a/file", "four"), "a/file", Some("four"));
    leads_to(&|| fs::rename(watch.directory.join("a/file"), elsewhere.join("file")).unwrap(), "a/file", None);
    // It has left.
    fs::write(elsewhere.join("inner/file"), "three").unwrap();
    watch.stays_quiet();
}

#[test]
fn a_directory_that_is_filled_slowly_is_deployed_once() {
    let site = Site::new(Sample::Static, BRISK);
    let watch = Watch::of(&site);
    let mut last = String::new();
    let pauses = steadily(|number| {
        last = format!("new/{number}/file");
        watch.write(&last, "");
    });
    eventually("the last is served", || watch.serves(&last).exists());
    watch.rests();
    assert!((2..=2 + pauses).contains(&history(&site).len()), "{pauses} pauses: {}", watch.said());
}

#[test]
fn files_are_saved_as_editors_do_it() {
    let site = Site::new(Sample::Static, BRISK);
    let watch = Watch::of(&site);
    let scripts = [
        "echo v2 >VERSION.tmp && mv VERSION.tmp VERSION",
        "mv VERSION VERSION~ && echo v3 >VERSION && rm VERSION~",
        "touch 4913 && rm 4913 && cp VERSION VERSION~ && echo v4 >VERSION && rm VERSION~",
        "echo v5 >.VERSION.new && sync .VERSION.new && mv .VERSION.new VERSION",
        "ln VERSION saved && echo v6 >saved && rm saved",
    ];
    for (number, script) in scripts.iter().enumerate() {
        site.shell(&format!("cd source && {script}")).ok();
        watch.has_deployed(number + 2);
        assert_eq!(site.get("/"), (200, format!("v{}\n", number + 2)), "{script}");
    }
    assert_eq!(history(&site).len(), scripts.len() + 1);
}

#[test]
fn links_are_deployed_as_they_are_and_not_followed() {
    let site = Site::new(Sample::Static, BRISK);
    let outside = site.directory.path().join("outside");
    fs::create_dir(&outside).unwrap();
    symlink("../outside", site.source().join("link")).unwrap();
    symlink("nowhere", site.source().join("dangling")).unwrap();
    let watch = Watch::of(&site);
    assert_eq!(fs::read_link(watch.serves("link")).unwrap(), Path::new("../outside"));
    assert_eq!(fs::read_link(watch.serves("dangling")).unwrap(), Path::new("nowhere"));
    fs::write(outside.join("file"), "").unwrap();
    watch.stays_quiet();
    site.shell("ln -sfn ../elsewhere source/link").ok();
    watch.has_deployed(2);
    assert_eq!(fs::read_link(watch.serves("link")).unwrap(), Path::new("../elsewhere"));
    // Neither is what nobody could copy.
    site.shell("mkfifo source/pipe").ok();
    watch.has_deployed(3);
    assert!(!watch.serves("pipe").exists());
}

/// A site whose home lies in the directory that is watched, under this name.
fn home_inside(name: &str) -> Site {
    let mut site = Site::unlaid(Sample::Static, BRISK);
    site.home = site.directory.path().join(name);
    site.install(&[]).ok();
    for file in ["app", "VERSION"] {
        fs::copy(site.source().join(file), site.directory.path().join(file)).unwrap();
    }
    site
}

#[test]
fn a_home_in_the_directory_is_neither_watched_nor_copied() {
    for name in ["shop", ".shop"] {
        let site = home_inside(name);
        let watch = Watch::begun(&site, site.directory.path());
        watch.has_deployed(1);
        watch.stays_quiet();
        watch.write("VERSION", "v2");
        watch.has_deployed(2);
        watch.stays_quiet();
        fs::write(site.home.join("logs/a.log"), "").unwrap();
        site.run("rollback", &[]).ok();
        watch.stays_quiet();
        assert!(watch.serves("source/VERSION").exists() && !watch.serves(name).exists());
        assert_eq!(watch.end("TERM").code, 0);
    }
}

#[test]
fn a_deploy_that_fails_is_told_and_the_next_change_is_deployed() {
    let site = Site::new(Sample::Static, BRISK);
    let watch = Watch::of(&site);
    watch.write("VERSION", "v2");
    watch.has_deployed(2);
    let load = site.load();
    watch.write("BEHAVIOUR", "exit");
    watch.has_deployed(3);
    let reason = "\ndeploy: cannot start A: it died: exit status 3: v2 opens its database";
    assert_eq!(watch.said().matches(reason).count(), 1, "{}", watch.said());
    // Saved again as it is, perhaps since something else was mended.
    watch.write("BEHAVIOUR", "exit");
    watch.has_deployed(4);
    assert_eq!(watch.said().matches(reason).count(), 2, "{}", watch.said());
    assert_eq!(load.snapshot().bodies.keys().collect::<Vec<_>>(), ["v2"]);
    watch.write("BEHAVIOUR", "");
    watch.write("VERSION", "v3");
    watch.has_deployed(5);
    assert_eq!(site.get("/"), (200, "v3\n".to_owned()));
    none_lost(&load.stop());
    let outcomes: Vec<Value> = history(&site).iter().map(|change| change["outcome"].clone()).collect();
    assert_eq!(outcomes, ["done", "done", "failed", "failed", "done"]);
}

#[test]
fn also_after_a_first_deploy_that_fails_files_are_watched() {
    let site = Site::new(Sample::Static, BRISK);
    fs::write(site.source().join("BEHAVIOUR"), "exit").unwrap();
    let watch = Watch::of(&site);
    assert!(watch.said().contains("\ndeploy: cannot start A: it died: "), "{}", watch.said());
    watch.write("BEHAVIOUR", "");
    watch.has_deployed(2);
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
    // The configuration may be wrong for a while as well.
    let config = fs::read_to_string(site.home.join("config.toml")).unwrap();
    fs::write(site.home.join("config.toml"), format!("{config}\nwrong")).unwrap();
    watch.write("VERSION", "v2");
    watch.has_deployed(3);
    assert!(watch.said().contains("/config.toml:"), "{}", watch.said());
    fs::write(site.home.join("config.toml"), config).unwrap();
    watch.write("VERSION", "v3");
    watch.has_deployed(4);
    assert_eq!(site.get("/"), (200, "v3\n".to_owned()));
}

#[test]
fn it_waits_for_its_turn_once_it_watches() {
    let site = Site::new(Sample::Static, &format!("{HELD}{BRISK}"));
    let work = site.directory.path().join("work");
    site.shell("cp -r source work").ok();
    let go = site.home.join("go");
    let builds = || {
        let mut command = site.tool("update-instance", &[]);
        let other = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("somebody else builds", || site.status()["change"]["pid"] == other.id());
        other
    };
    let mut other = builds();
    let busy = format!("deploy: cannot begin: update-instance (pid {}) holds the lock", other.id());
    Watch::begun(&site, &work).ended().fails(75, &[&busy]);
    fs::write(&go, "").unwrap();
    assert!(other.wait().unwrap().success());

    let mut watch = Watch::begun(&site, &work);
    watch.has_deployed(1);
    let meanwhile = |commit: &str, change: &dyn Fn()| {
        fs::remove_file(&go).unwrap();
        site.commit(commit, "");
        let mut other = builds();
        change();
        fs::write(&go, "").unwrap();
        assert!(other.wait().unwrap().success());
    };
    let change_to = |version: &str| {
        watch.write("VERSION", version);
        watch.stays_quiet();
    };
    meanwhile("c2", &|| change_to("v2"));
    watch.has_deployed(2);
    assert_eq!(site.get("/"), (200, "v2\n".to_owned()));
    // What is there by then is deployed, and if that is nothing, that is told.
    meanwhile("c3", &|| {
        change_to("v3");
        fs::remove_dir_all(&work).unwrap();
    });
    let ran = watch.ended().masked(&site);
    assert!(ran.stderr.contains("\ndeploy: cannot list SITE/work: No such file or directory"), "{ran:?}");
    ran.fails(3, &["deploy: cannot watch SITE/work: "]);
    assert_eq!(site.get("/"), (200, "v2\n".to_owned()));
}

#[test]
fn asked_to_end_it_ends_at_once_and_what_it_deployed_serves() {
    let site = Site::new(Sample::Static, BRISK);
    for signal in ["INT", "TERM"] {
        let watch = Watch::of(&site);
        watch.write("VERSION", signal);
        watch.has_deployed(2);
        let ran = watch.end(signal);
        assert_eq!((ran.code, ran.stdout.as_str()), (0, ""));
        assert!(ran.stderr.ends_with("/source\ndeploy: asked to end\n"), "{ran:?}");
        assert_eq!(site.get("/"), (200, format!("{signal}\n")));
    }
}

#[test]
fn a_deploy_that_is_ended_half_way_is_finished_by_the_next() {
    let site = Site::new(Sample::Static, &format!("{HELD}{BRISK}"));
    for (signal, code) in [("TERM", 143), ("KILL", 137)] {
        let watch = Watch::begun(&site, &site.source());
        let builds = || site.status()["change"]["doing"].as_str().is_some_and(|doing| doing.starts_with("making a "));
        eventually("it builds", builds);
        assert_eq!(watch.end(signal).code, code);
    }
    fs::write(site.home.join("go"), "").unwrap();
    let _watch = Watch::of(&site);
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
    assert_eq!(site.releases().len(), 1);
}

#[test]
fn a_directory_that_goes_away_ends_it() {
    let site = Site::new(Sample::Static, BRISK);
    let (work, away) = (site.directory.path().join("work"), site.directory.path().join("away"));
    let gone: [&dyn Fn(); 2] = [&|| fs::remove_dir_all(&work).unwrap(), &|| fs::rename(&work, &away).unwrap()];
    for goes in gone {
        site.shell("cp -r source work").ok();
        let mut watch = Watch::begun(&site, &work);
        watch.has_deployed(1);
        goes();
        watch.ended().masked(&site).fails(3, &["deploy: cannot watch SITE/work: No such file or directory"]);
        assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
    }
    // Another one in its place is watched from then on.
    let watch = Watch::begun(&site, &away);
    watch.has_deployed(1);
    site.shell("cp -r source new && echo v2 >new/VERSION && mv away old && mv new away").ok();
    watch.has_deployed(2);
    watch.write("VERSION", "v3");
    watch.has_deployed(3);
    assert_eq!(site.get("/"), (200, "v3\n".to_owned()));
}

#[test]
fn what_cannot_be_watched_is_told_before_anything_is_deployed() {
    let site = Site::new(Sample::Static, BRISK);
    let mistake = |directory: &str, reason: &str| {
        let said = format!("deploy: invalid value '{directory}' for '--watch <DIR>': {reason}; see deploy --help\n");
        site.run("deploy", &["--watch", directory]).is(2, "", &said);
    };
    mistake("nowhere", "No such file or directory (os error 2)");
    mistake("shop.toml", "not a directory");
    for inside in [site.home.clone(), site.home.join("releases")] {
        let ran = site.run("deploy", &["--watch", inside.to_str().unwrap()]);
        let reason = format!("deploy: cannot watch {}: it lies in the app's home\n", inside.display());
        ran.is(2, "", &reason);
    }
    for other in [&["--ref", "main"][..], &["--from", "."], &["--if-new"], &["--queued"], &["--dry-run"]] {
        let ran = site.run("deploy", &[&["--watch", "source"], other].concat());
        ran.fails(2, &["deploy: the argument ", "'--watch <DIR>'", " cannot be used with ", other[0]]);
    }
    assert!(!site.home.join("logs/history.jsonl").exists());
}

#[test]
fn a_limit_of_the_systems_is_told_with_its_remedy() {
    let site = Site::new(Sample::Static, BRISK);
    let log = site.directory.path().join("trace");
    let limited = |call: &str, error: &str| {
        let mut command = site.command(Path::new("strace"));
        command.arg("-o").arg(&log).args(["-e", &format!("inject={call}:error={error}:when=2+")]);
        command.arg(site.home.join("bin/deploy")).args(["--watch", "source"]);
        Ran::of(&command.output().unwrap())
    };
    fs::create_dir(site.source().join("sub")).unwrap();
    let now: u64 = fs::read_to_string("/proc/sys/fs/inotify/max_user_watches").unwrap().trim().parse().unwrap();
    let remedy = format!("raise fs.inotify.max_user_watches as root: sysctl fs.inotify.max_user_watches={}", 2 * now);
    let ran = limited("inotify_add_watch", "ENOSPC").masked(&site);
    ran.is(3, "", &format!("deploy: cannot watch SITE/source/sub: this user watches too many already; {remedy}\n"));
}
