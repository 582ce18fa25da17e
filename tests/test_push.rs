//! Push to deploy: from a `git push` to the version that is served, through the webhook, nginx and the queue.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::pushed_site::SECTION;
use crate::site::{BRISK, Ran, Sample, Site, chmod, eventually, none_lost};
use crate::watched::Watch;
use crate::webhook::{github_push, response, send, signature};

/// A site that hears of pushes, with version v1 deployed.
fn listening(extra: &str) -> Site {
    let site = Site::new(Sample::Static, &format!("{BRISK}{SECTION}{extra}"));
    site.run("deploy", &[]).ok();
    site
}

/// Builds that take as long as there is a file `held` in the home.
const HELD: &str = "[build]\ncommand = \"while [ -e ../../held ]; do sleep 0.05; done\"\n";

fn head(site: &Site) -> String {
    site.git(&["rev-parse", "HEAD"]).trim().to_owned()
}

#[test]
fn a_git_push_is_served_without_a_request_lost() {
    let site = Site::unlaid(Sample::Static, "");
    // The source is a bare repository, as at a host, that calls the webhook; people push to it from a clone.
    let bare = site.directory.path().join("shop.git");
    site.git(&["clone", "--quiet", "--bare", ".", bare.to_str().unwrap()]);
    site.git(&["remote", "add", "origin", bare.to_str().unwrap()]);
    site.write_config(&format!("{BRISK}{SECTION}[source]\ngit = {bare:?}\n"));
    site.install(&[]).ok();
    let body = r#"{\"ref\":\"$ref\",\"after\":\"$after\",\"repository\":{\"full_name\":\"octo/shop\"},\"pusher\":{\"name\":\"alice\"}}"#;
    let hook = format!(
        "#!/bin/sh\nread -r before after ref\nbody=\"{body}\"\n\
         signature=$(printf %s \"$body\" | {sign} --sign)\n\
         curl -fsS -H 'X-GitHub-Event: push' -H \"X-GitHub-Delivery: $after\" -H \"$signature\" \
         -H 'Content-Type: application/json' --data-raw \"$body\" http://{address}/.cutover/push\n",
        sign = site.home.join("bin/on-push").display(),
        address = site.address(),
    );
    fs::write(bare.join("hooks/post-receive"), hook).unwrap();
    chmod(&bare.join("hooks/post-receive"), 0o755);
    site.run("deploy", &[]).ok();

    let load = site.load();
    for version in ["v2", "v3", "v4"] {
        let commit = site.commit(version, "");
        site.git(&["push", "--quiet", "origin", "main"]);
        eventually("the pushed version is served", || site.get("/") == (200, format!("{version}\n")));
        eventually("its deploy is over", || site.has_worked_off());
        let last = site.deploys().pop().unwrap();
        assert_eq!((last["outcome"].as_str(), last["wanted"]["origin"].as_str()), (Some("done"), Some(&*commit)));
        assert_eq!(last["who"], format!("push of {} by alice", &commit[..12]));
    }
    // Another branch is none of its business, nor is one that goes.
    site.git(&["push", "--quiet", "origin", "main:feature"]);
    site.git(&["push", "--quiet", "origin", ":feature"]);
    assert!(site.has_worked_off());
    assert_eq!(site.deploys().len(), 4);
    none_lost(&load.stop());
}

#[test]
fn a_hundred_pushes_make_at_most_two_deploys_and_the_last_commit_serves() {
    let site = listening(HELD);
    let secret = site.webhook_secret();
    for _ in 0..2 {
        let before = site.deploys().len();
        fs::write(site.home.join("held"), "").unwrap();
        let accepted = AtomicU32::new(0);
        for number in 0..10 {
            let commit = site.commit(&format!("v{before}-{number}"), "");
            thread::scope(|scope| {
                for at in 0..10 {
                    let request = github_push(&secret, &commit, &format!("{commit}-{at}"));
                    let (address, accepted) = (site.address(), &accepted);
                    scope.spawn(move || {
                        accepted.fetch_add(u32::from(send(address, &request).0 == 202), Ordering::Relaxed)
                    });
                }
            });
        }
        assert_eq!(accepted.into_inner(), 100);
        fs::remove_file(site.home.join("held")).unwrap();
        eventually("all is deployed", || site.has_worked_off());
        assert_eq!(site.get("/"), (200, fs::read_to_string(site.source().join("VERSION")).unwrap()));
        let made = site.deploys().len() - before;
        assert!((1..=2).contains(&made), "{made} deploys");
    }
}

#[test]
fn the_answer_comes_before_the_deploy_and_does_not_wait_for_it() {
    let site = listening(HELD);
    fs::write(site.home.join("held"), "").unwrap();
    let commit = site.commit("v2", "");
    assert_eq!(site.tell_of_push(&commit, "one"), 202);
    eventually("the deploy is under way", || {
        site.status()["change"]["doing"].as_str().is_some_and(|doing| doing.starts_with("making"))
    });
    let queued = site.status()["queued"]["what"].clone();
    assert_eq!(queued, format!("push of {} by alice", &commit[..12]));
    assert!(site.run("status", &[]).stdout.contains(" by alice waits for its deploy, since "));
    // The one under way takes the branch as it was.
    let commit = site.commit("v3", "");
    assert_eq!(site.tell_of_push(&commit, "two"), 202);
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
    fs::remove_file(site.home.join("held")).unwrap();
    eventually("the last one serves", || site.has_worked_off());
    assert_eq!(site.get("/"), (200, "v3\n".to_owned()));
    assert!(site.status()["queued"].is_null());
}

#[test]
fn what_failed_is_not_tried_again_and_a_rollback_is_not_undone() {
    let site = listening("");
    let broken = site.commit("v2", "exit");
    assert_eq!(site.tell_of_push(&broken, "one"), 202);
    eventually("it has failed", || site.has_worked_off());
    assert_eq!((site.deploys().len(), site.get("/").1.as_str()), (2, "v1\n"));
    // The same again, as somebody who has recorded it could send it under another id, and from a timer.
    assert_eq!(site.tell_of_push(&broken, "two"), 202);
    eventually("it is seen", || site.has_worked_off());
    site.run("deploy", &["--if-new"]).is(0, "", "");
    assert_eq!(site.deploys().len(), 2);
    // A person may.
    assert_eq!(site.run("deploy", &[]).code, 3);
    assert_eq!(site.deploys().len(), 3);

    let commit = site.commit("v3", "");
    assert_eq!(site.tell_of_push(&commit, "three"), 202);
    eventually("it serves", || site.get("/").1 == "v3\n" && site.has_worked_off());
    site.run("rollback", &[]).ok();
    assert_eq!(site.tell_of_push(&commit, "four"), 202);
    eventually("it is seen", || site.has_worked_off());
    site.run("deploy", &["--if-new"]).is(0, "", "");
    assert_eq!(site.get("/").1, "v1\n");
    // A branch that was set back has moved, too.
    site.commit("v4", "");
    site.run("deploy", &["--if-new"]).ok();
    assert_eq!(site.get("/").1, "v4\n");
    site.git(&["reset", "--quiet", "--hard", &commit]);
    site.run("deploy", &["--if-new"]).ok();
    assert_eq!(site.get("/").1, "v3\n");
}

#[test]
fn a_rollback_is_not_undone_whatever_it_was_rolled_back_from() {
    let site = listening("");
    let nothing_new = |version: &str| {
        site.run("deploy", &["--if-new"]).is(0, "", "");
        assert_eq!(site.get("/").1, format!("{version}\n"));
    };
    // From a deploy by hand, tool by tool, of which the history does not know what was wanted.
    site.commit("v2", "");
    site.shell("d=$(disabled-instance); update-instance $d && start-instance $d && connect-to-nginx $d").ok();
    site.run("rollback", &[]).ok();
    nothing_new("v1");
    // From a deploy by another name.
    let commit = site.commit("v3", "");
    site.run("deploy", &["--ref", &commit]).ok();
    site.run("rollback", &[]).ok();
    nothing_new("v1");
    // Beside another deploy that was interrupted.
    site.git(&["branch", "fix"]);
    site.git(&["checkout", "--quiet", "fix"]);
    site.commit("v4", "slow 60");
    site.git(&["checkout", "--quiet", "main"]);
    let mut other = site.tool("deploy", &["--ref", "fix"]).stderr(Stdio::null()).spawn().unwrap();
    let starts =
        |status: serde_json::Value| status["change"]["doing"].as_str().is_some_and(|doing| doing.contains("starting"));
    eventually("it starts", || starts(site.status()));
    other.kill().unwrap();
    other.wait().unwrap();
    nothing_new("v1");
    // One that was killed after its cutover is finished.
    site.commit("v5", "");
    let config = site.home.join("config.toml");
    let brisk = fs::read_to_string(&config).unwrap();
    fs::write(&config, brisk.replace("soak = \"100ms\"", "soak = \"60s\"")).unwrap();
    let mut own = site.tool("deploy", &["--if-new"]).stderr(Stdio::null()).spawn().unwrap();
    let watches =
        |status: serde_json::Value| status["change"]["doing"].as_str().is_some_and(|doing| doing.contains("watching"));
    eventually("it watches", || watches(site.status()));
    own.kill().unwrap();
    own.wait().unwrap();
    fs::write(&config, brisk).unwrap();
    let finished = site.run("deploy", &["--if-new"]).said();
    assert!(finished.contains("deploy: already current: "), "{finished}");
    assert!(site.status()["change"].is_null());
    nothing_new("v5");
    // Laid out anew, nothing serves, whatever the history knows.
    site.install(&["--remove", "--force"]).ok();
    site.install(&[]).ok();
    site.run("deploy", &["--if-new"]).ok();
    nothing_new("v5");
}

#[test]
fn two_that_work_off_the_queue_do_so_one_after_the_other() {
    let site = listening(HELD);
    fs::write(site.home.join("held"), "").unwrap();
    site.commit("v2", "");
    fs::write(site.home.join("queue/push"), "").unwrap();
    let mut workers = [(); 2].map(|()| site.tool("deploy", &["--queued"]).stderr(Stdio::null()).spawn().unwrap());
    let making = || site.status()["change"]["doing"].as_str().is_some_and(|doing| doing.starts_with("making"));
    eventually("one of them deploys", making);
    assert!(
        workers.iter_mut().all(|worker| worker.try_wait().unwrap().is_none()),
        "systemd would begin it again at once"
    );
    let table = site.run("status", &[]).stdout;
    let seconds = table.trim().rsplit_once("\npush waits for its deploy, since ").unwrap().1.strip_suffix('s');
    assert!(seconds.is_some_and(|seconds| seconds.parse::<u64>().is_ok()), "{table}");
    fs::remove_file(site.home.join("held")).unwrap();
    assert!(workers.iter_mut().all(|worker| worker.wait().unwrap().success()));
    assert_eq!((site.get("/").1.as_str(), site.deploys().len()), ("v2\n", 2));
}

#[test]
fn a_push_that_waits_sees_what_was_mended() {
    let site = listening("");
    let (good, commit) = (fs::read_to_string(site.config()).unwrap(), site.commit("v2", ""));
    fs::write(site.config(), good.replace("/source\"", "/sorce\"")).unwrap();
    site.install(&[]).ok();
    assert_eq!(site.tell_of_push(&commit, "one"), 202);
    let log = || fs::read_to_string(site.home.join("logs/push.log")).unwrap();
    eventually("it was tried", || log().contains("cannot ask"));
    fs::write(site.config(), good).unwrap();
    site.install(&[]).ok();
    // Another push is tried at once, whatever the pause.
    assert_eq!(site.tell_of_push(&commit, "two"), 202);
    eventually("it serves", || site.has_worked_off() && site.get("/").1 == "v2\n");
    // A branch that has gone by then is not waited for.
    site.git(&["checkout", "--quiet", "-b", "other"]);
    site.git(&["branch", "--quiet", "-D", "main"]);
    assert_eq!(site.tell_of_push(&commit, "three"), 202);
    eventually("it is told", || site.has_worked_off() && log().contains("cannot find ref \"main\""));
    assert_eq!(site.get("/").1, "v2\n");
}

#[test]
fn a_timer_that_finds_nothing_new_is_silent_locks_nothing_and_asks_only_the_source() {
    let site = listening("");
    let locked = cutover::lock::Lock::take(&site.home.join("run/deploy.lock")).unwrap().unwrap();
    site.run("deploy", &["--if-new"]).is(0, "", "");
    site.commit("v2", "");
    site.run("deploy", &["--if-new"]).fails(75, &["holds the lock"]);
    drop(locked);
    // Somebody's own deploy of something else is not undone until the branch moves.
    site.run("deploy", &["--if-new"]).ok();
    let first = site.git(&["rev-parse", "HEAD~1"]);
    site.run("deploy", &["--ref", first.trim()]).ok();
    site.run("deploy", &["--if-new"]).is(0, "", "");
    assert_eq!(site.get("/").1, "v1\n");
    fs::rename(site.source(), site.directory.path().join("away")).unwrap();
    site.run("deploy", &["--if-new"]).fails(3, &["cannot ask"]);
    assert_eq!(site.deploys().len(), 3, "what never began is not written down");
    fs::rename(site.directory.path().join("away"), site.source()).unwrap();
}

#[test]
fn a_push_waits_for_a_source_that_does_not_answer() {
    let site = listening("");
    let commit = site.commit("v2", "");
    let away = site.directory.path().join("away");
    fs::rename(site.source(), &away).unwrap();
    assert_eq!(site.tell_of_push(&commit, "one"), 202);
    let log = || fs::read_to_string(site.home.join("logs/push.log")).unwrap();
    eventually("it was tried", || log().contains("cannot ask"));
    assert!(site.home.join("queue/push").exists());
    fs::rename(&away, site.source()).unwrap();
    eventually("it serves", || site.has_worked_off() && site.get("/").1 == "v2\n");
}

#[test]
fn a_push_waits_for_its_turn() {
    let site = listening("");
    let commit = site.commit("v2", "");
    let locked = cutover::lock::Lock::take(&site.home.join("run/deploy.lock")).unwrap().unwrap();
    assert_eq!(site.tell_of_push(&commit, "one"), 202);
    let deploys = || cutover::lock::holder(&site.home.join("run/queued-deploy.lock")).unwrap().is_some();
    eventually("its deploy has begun", deploys);
    assert_eq!(site.get("/").1, "v1\n");
    drop(locked);
    eventually("it serves", || site.has_worked_off() && site.get("/").1 == "v2\n");
}

#[test]
fn what_was_queued_when_the_machine_went_down_is_deployed_after_the_boot() {
    let site = listening("");
    let commit = site.commit("v2", "");
    // Nobody to deploy it: the lock is held by one who will not.
    let locked = cutover::lock::Lock::take(&site.home.join("run/queued-deploy.lock")).unwrap().unwrap();
    assert_eq!(site.tell_of_push(&commit, "one"), 202);
    for pid in site.processes() {
        Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    }
    drop(locked);
    eventually("all has gone", || site.processes().is_empty());
    let said = site.run("bootup", &[]);
    assert!(
        said.stderr.contains(&format!("bootup: on-push listens on {}\n", site.push_socket().display())),
        "{said:?}"
    );
    eventually("it serves", || site.has_worked_off() && site.get("/").1 == "v2\n");
    let commit = site.commit("v3", "");
    assert_eq!(site.tell_of_push(&commit, "two"), 202);
    eventually("pushes are heard of again", || site.get("/").1 == "v3\n");
    eventually("and worked off", || site.has_worked_off());
}

#[test]
fn install_begins_moves_and_ends_the_listener() {
    let site = listening("");
    let again = site.install(&[]);
    again.masked(&site).is(0, "", "install: nothing to do: shop is laid out in HOME\n");
    // An upgrade: the tool is another file.
    fs::remove_file(site.home.join("bin/on-push")).unwrap();
    let said = site.install(&[]).said();
    assert!(said.contains(&format!("install: on-push listens on {}\n", site.push_socket().display())), "{said}");
    assert_eq!(site.tell_of_push(&head(&site), "one"), 202);
    eventually("it is seen", || site.has_worked_off());
    site.run("on-push", &["--listen", "127.0.0.1:20203"]).fails(75, &["cannot listen: on-push (pid "]);

    site.write_config(BRISK);
    let said = site.install(&[]).said();
    assert!(said.contains("install: on-push listens no longer\n"), "{said}");
    assert!(!site.push_socket().exists());
    // An old worker of nginx's may answer for a moment.
    eventually("nginx knows of no webhook", || site.get("/.cutover/push").0 == 404);
    site.run("on-push", &[]).is(
        2,
        "",
        "on-push: cannot serve webhooks: set repository in [push]; see cutover-config(5)\n",
    );

    site.write_config(&format!("{BRISK}{SECTION}"));
    site.install(&[]).ok();
    eventually("nginx knows of it again", || site.tell_of_push(&head(&site), "two") == 202);
    eventually("it is seen", || site.has_worked_off());
    site.install(&["--remove", "--force"]).ok();
    eventually("nothing runs", || site.processes().is_empty());
    assert!(!site.home.join("queue").exists() && site.home.join("push-secret").exists());
}

#[test]
fn only_this_machine_is_listened_to_and_no_place_that_others_can_take() {
    let site = Site::new(Sample::Static, &format!("{BRISK}{SECTION}"));
    let listen = |place: &str| site.run("on-push", &["--listen", place]);
    listen("0.0.0.0:20203").fails(2, &["cannot listen on 0.0.0.0:20203: it is not a loopback address"]);
    listen("nonsense").fails(2, &["invalid value 'nonsense'", "expected /PATH or ADDRESS:PORT"]);
    // Whoever takes the configured port, before a boot or at any other time, hears nothing.
    let pid = cutover::lock::holder(&site.home.join("run/on-push.lock")).unwrap().unwrap().0;
    Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    eventually("nobody listens", || cutover::lock::holder(&site.home.join("run/on-push.lock")).unwrap().is_none());
    let thief = TcpListener::bind((Ipv4Addr::LOCALHOST, site.ports.push)).unwrap();
    thief.set_nonblocking(true).unwrap();
    assert_eq!(site.tell_of_push(&head(&site), "one"), 502);
    // What a killed one has left is in nobody's way.
    assert!(site.push_socket().exists());
    site.run("bootup", &[]);
    assert_eq!(site.tell_of_push(&head(&site), "two"), 202);
    assert!(thief.accept().is_err());
    eventually("it is seen", || site.has_worked_off());
    // nginx's workers may be another user: the directory is closed to changes, and the socket open to all.
    let mode = |path: &Path| path.symlink_metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&site.home.join("state")), mode(&site.push_socket())), (0o755, 0o666));
}

#[test]
fn a_listener_of_the_version_before_is_replaced() {
    let site = listening("");
    let lock = site.home.join("run/on-push.lock");
    let pid = cutover::lock::holder(&lock).unwrap().unwrap().0;
    Command::new("kill").arg(pid.to_string()).status().unwrap();
    eventually("nobody listens", || cutover::lock::holder(&lock).unwrap().is_none());
    let place = format!("127.0.0.1:{}", site.ports.push);
    let mut old = site.tool("on-push", &["--listen", &place]).stderr(Stdio::null()).spawn().unwrap();
    eventually("the old one listens", || TcpStream::connect(&place).is_ok());
    let said = site.install(&[]).said();
    assert!(said.contains(&format!("install: on-push listens on {}\n", site.push_socket().display())), "{said}");
    old.wait().unwrap();
    assert_eq!(site.tell_of_push(&head(&site), "one"), 202);
    eventually("it is seen", || site.has_worked_off());
}

#[test]
fn whoever_connects_and_says_nothing_is_in_nobodys_way() {
    let site = listening("");
    let began = Instant::now();
    let mut silent: Vec<UnixStream> = (0..32).map(|_| UnixStream::connect(site.push_socket()).unwrap()).collect();
    assert_eq!(site.tell_of_push(&head(&site), "one"), 202);
    for one in &mut silent {
        one.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert_eq!(one.read(&mut [0; 64]).unwrap(), 0, "it is ended without a word");
    }
    // Before, each could stay for ten seconds.
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    eventually("it is seen", || site.has_worked_off());
}

#[test]
fn the_listener_serves_so_many_at_once_and_the_others_when_those_are_done() {
    let site = listening("");
    let connect = || UnixStream::connect(site.push_socket()).unwrap();
    // They connect, begin, and say no more.
    let begun = |_| {
        let mut connection = connect();
        connection.write_all(b"P").unwrap();
        connection
    };
    let silent: Vec<UnixStream> = (0..60).map(begun).collect();
    let name = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let served = || site.processes().iter().filter(|pid| name(pid) == "on-push\n").count() - 1;
    eventually("32 are served", || served() == 32);
    let request = github_push(&site.webhook_secret(), &head(&site), "one");
    let mut next = connect();
    next.write_all(&request).unwrap();
    next.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    assert!(next.read(&mut [0]).is_err(), "it was served although {} are", served());
    assert_eq!(served(), 32);
    drop(silent);
    next.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(response(&mut next).map(|(status, _)| status), Some(202));
    eventually("it is seen", || site.has_worked_off());
}

/// nginx closes a connection after a thousand.
const REQUESTS_OF_A_CONNECTION: u32 = 500;

/// A thousand requests a second that somebody has made up, on connections of their own. Counts how many were answered with
/// each status: 401, 429, others.
fn flood(site: &Site, ends: &AtomicBool, counts: &[AtomicU32; 3]) {
    let forged = github_push(b"a guess", &"1".repeat(40), "guessed");
    thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                let mut pace = Instant::now();
                let mut connection = None::<TcpStream>;
                for made in 1.. {
                    if ends.load(Ordering::Relaxed) {
                        break;
                    }
                    if made % REQUESTS_OF_A_CONNECTION == 0 {
                        connection = None;
                    }
                    pace += Duration::from_millis(10);
                    thread::sleep(pace.saturating_duration_since(Instant::now()));
                    let stream = connection.get_or_insert_with(|| TcpStream::connect(site.address()).unwrap());
                    let answer = stream.write_all(&forged).ok().and_then(|()| response(stream));
                    let status = answer.map(|(status, _)| status);
                    match status {
                        Some(401) => counts[0].fetch_add(1, Ordering::Relaxed),
                        Some(429) => counts[1].fetch_add(1, Ordering::Relaxed),
                        _ => counts[2].fetch_add(1, Ordering::Relaxed),
                    };
                    if status.is_none() {
                        connection = None;
                    }
                }
            });
        }
    });
}

#[test]
fn a_flood_of_forged_requests_loses_nothing_and_deploys_nothing() {
    let site = listening("");
    let before = site.deploys().len();
    let ends = AtomicBool::new(false);
    let load = site.load();
    let counts = [AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0)];
    thread::scope(|scope| {
        scope.spawn(|| flood(&site, &ends, &counts));
        let commit = site.commit("v2", "");
        eventually("the flood is one", || counts[1].load(Ordering::Relaxed) > 1000);
        // The real host has another address.
        let told = push_from(&site, "127.0.0.2", &commit);
        eventually("the genuine push is deployed", || site.get("/").1 == "v2\n" && site.has_worked_off());
        ends.store(true, Ordering::Relaxed);
        assert_eq!(told.ok(), "202");
    });
    let [refused, limited, others] = counts.map(AtomicU32::into_inner);
    none_lost(&load.stop());
    assert!(refused > 0 && limited > refused, "refused {refused}, limited {limited}, others {others}");
    assert_eq!(others, 0, "refused {refused}, limited {limited}");
    assert_eq!(site.deploys().len(), before + 1);
    let log = fs::read_to_string(site.home.join("logs/push.log")).unwrap();
    assert!(
        log.contains("on-push: 127.0.0.1: 401, not authorized\n") && log.contains("on-push: 127.0.0.2: 202, "),
        "{log}"
    );
}

/// Tells of a push from this address of the machine's; prints the status of the answer.
fn push_from(site: &Site, source: &str, commit: &str) -> Ran {
    let request = github_push(&site.webhook_secret(), commit, source);
    let request = String::from_utf8(request).unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let mut curl = site.command(Path::new("curl"));
    curl.args([
        "--silent",
        "--interface",
        source,
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code}",
        "--data-raw",
        body,
    ]);
    let fields = head.lines().skip(1).filter(|line| !line.starts_with("Content-Length"));
    curl.args(fields.flat_map(|field| ["--header", field]));
    Ran::of(&curl.arg(format!("http://{}/.cutover/push", site.address())).stdin(Stdio::null()).output().unwrap())
}

/// What a document has between a line that holds `begin` and one that holds `end`, these included.
fn excerpt(document: &str, begin: &str, end: &str) -> String {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).unwrap();
    let lines = text.lines().skip_while(|line| !line.contains(begin));
    let mut found = Vec::new();
    for line in lines {
        found.push(line.trim().trim_start_matches("$ ").to_owned());
        if line.contains(end) {
            return found.join("\n");
        }
    }
    panic!("{document} has no {begin:?} and {end:?}");
}

#[test]
fn the_examples_of_signing_keep_the_secret_out_of_all_arguments() {
    let site = listening("");
    let secret = String::from_utf8(site.webhook_secret()).unwrap();
    let through_nginx = excerpt("docs/push.md", "on-push --sign)", "https://SERVER");
    let through_nginx = through_nginx.replace("https://SERVER", &format!("http://{}", site.address()));
    let by_hand =
        excerpt("man/on-push.1", "$(printf '' | on-push --sign)", "\"$signature\" '' | on-push").replace("\\e", "\\");
    let watch = Watch::start(&secret, "on-push");
    // Often enough to be seen.
    for _ in 0..10 {
        assert_eq!(site.shell(&through_nginx).ok(), "pong\n", "{through_nginx}");
        let ran = site.shell(&by_hand);
        assert!(
            ran.stdout.starts_with("HTTP/1.1 200 OK\r\n") && ran.stdout.ends_with("\r\n\r\npong\n"),
            "{by_hand}: {ran:?}"
        );
    }
    watch.saw_nothing();
    // The same as everybody else's signature.
    let signed = site.shell("printf 'Hello, World!' >body; on-push --sign <body").ok();
    let own = signature(secret.as_bytes(), b"Hello, World!");
    assert_eq!(signed, format!("X-Hub-Signature-256: sha256={own}\n"));
    site.run("on-push", &["--sign", "--listen", "127.0.0.1:1"]).fails(2, &["--sign"]);
    chmod(&site.home.join("push-secret"), 0o644);
    site.run("on-push", &["--sign"]).fails(3, &["others may read it; chmod 600"]);
}

#[test]
fn the_example_of_a_chat_keeps_its_url_out_of_all_arguments() {
    let place = tempfile::tempdir().unwrap();
    let chat = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let url = format!("http://{}/T0P/S3CR3T", chat.local_addr().unwrap());
    let server = thread::spawn(move || {
        let (mut client, _) = chat.accept().unwrap();
        let mut heard = Vec::new();
        while !heard.ends_with(b"{\"text\": \"x\"}") {
            let mut chunk = [0; 1024];
            let count = client.read(&mut chunk).unwrap();
            assert!(count > 0, "{}", String::from_utf8_lossy(&heard));
            heard.extend_from_slice(&chunk[..count]);
        }
        // As long as curl can be seen.
        thread::sleep(Duration::from_millis(300));
        client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").unwrap();
        String::from_utf8(heard).unwrap()
    });
    let file = place.path().join("chat");
    fs::write(&file, format!("url = \"{url}\"\n")).unwrap();
    let posting = excerpt("docs/hooks.md", "curl -fsS --max-time 10", "--config");
    let posting = posting.replace("$HOME/.cafeteria/chat", file.to_str().unwrap());
    let watch = Watch::start("S3CR3T", "--max-time");
    let ran = Ran::run(Command::new("sh").arg("-c").arg(format!("printf '{{\"text\": \"x\"}}' | {posting}")));
    watch.saw_nothing();
    assert_eq!(ran.ok(), "ok");
    assert!(server.join().unwrap().starts_with("POST /T0P/S3CR3T HTTP/1.1\r\n"));
}
