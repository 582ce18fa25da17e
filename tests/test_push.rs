//! Push to deploy: from a `git push` to the version that is served, through the webhook, nginx and the queue.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::pushed_site::SECTION;
use crate::site::{BRISK, Ran, Sample, Site, chmod, eventually, none_lost};
use crate::webhook::{github_push, response, send};

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
         signature=$(printf %s \"$body\" | openssl dgst -sha256 -hmac \"$(cat {secret})\" | sed 's/.* //')\n\
         curl -fsS -H 'X-GitHub-Event: push' -H \"X-GitHub-Delivery: $after\" -H \"X-Hub-Signature-256: sha256=$signature\" \
         -H 'Content-Type: application/json' --data-raw \"$body\" http://{address}/.cutover/push\n",
        secret = site.home.join("push-secret").display(),
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
    assert!(said.stderr.contains(&format!("bootup: on-push listens on 127.0.0.1:{}\n", site.ports.push)), "{said:?}");
    eventually("it serves", || site.has_worked_off() && site.get("/").1 == "v2\n");
    let commit = site.commit("v3", "");
    assert_eq!(site.tell_of_push(&commit, "two"), 202);
    eventually("pushes are heard of again", || site.get("/").1 == "v3\n");
    eventually("and worked off", || site.has_worked_off());
}

#[test]
fn install_begins_moves_and_ends_the_listener() {
    let site = listening("");
    let port = site.ports.push;
    let again = site.install(&[]);
    again.masked(&site).is(0, "", "install: nothing to do: shop is laid out in HOME\n");
    // An upgrade: the tool is another file.
    fs::remove_file(site.home.join("bin/on-push")).unwrap();
    let said = site.install(&[]).said();
    assert!(said.contains(&format!("install: on-push listens on 127.0.0.1:{port}\n")), "{said}");
    assert_eq!(site.tell_of_push(&head(&site), "one"), 202);
    eventually("it is seen", || site.has_worked_off());
    site.run("on-push", &["--listen", &format!("127.0.0.1:{}", port + 1)]).fails(75, &["cannot listen: on-push (pid "]);

    site.write_config(BRISK);
    let said = site.install(&[]).said();
    assert!(said.contains("install: on-push listens no longer\n"), "{said}");
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
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
fn only_loopback_is_listened_on_and_only_free_ports() {
    let site = Site::new(Sample::Static, &format!("{BRISK}{SECTION}"));
    let listen = |address: &str| site.run("on-push", &["--listen", address]);
    listen("0.0.0.0:20203").fails(2, &["cannot listen on 0.0.0.0:20203: it is not a loopback address"]);
    listen("nonsense").fails(2, &["invalid value 'nonsense'"]);
    site.install(&["--remove", "--force"]).ok();
    let _taken = crate::holder::Holder::of(site.ports.push);
    let reason = format!("cannot listen for webhooks on port {}: python3 (pid ", site.ports.push);
    site.install(&[]).fails(3, &[&reason, "choose another in [push]"]);
    // Another app's listener is not one's own.
    let other = listening("");
    let theirs = format!("[push]\nrepository = \"octo/other\"\nport = {}\n", other.ports.push);
    site.write_config(&format!("{BRISK}{theirs}"));
    let reason = format!("cannot listen for webhooks on port {}: on-push (pid ", other.ports.push);
    site.install(&[]).fails(3, &[&reason, "choose another in [push]"]);
}

#[test]
fn the_listener_serves_so_many_at_once_and_the_others_when_those_are_done() {
    let site = listening("");
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, site.ports.push));
    // They connect and say nothing.
    let silent: Vec<TcpStream> = (0..60).map(|_| TcpStream::connect(address).unwrap()).collect();
    let name = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let served = || site.processes().iter().filter(|pid| name(pid) == "on-push\n").count() - 1;
    eventually("32 are served", || served() == 32);
    let request = github_push(&site.webhook_secret(), &head(&site), "one");
    let mut next = TcpStream::connect(address).unwrap();
    next.write_all(&request).unwrap();
    next.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    assert!(next.peek(&mut [0]).is_err(), "it was served although {} are", served());
    assert_eq!(served(), 32);
    drop(silent);
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
