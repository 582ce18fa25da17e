//! status: both instances side by side, for people and for programs.

use std::fs;
use std::io::ErrorKind::ConnectionRefused;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::site::{BRISK, Ran, Sample, Site, eventually, explains_itself};

#[test]
fn it_explains_itself() {
    explains_itself("status", "Show both instances side by side");
    let site = Site::new(Sample::Static, BRISK);
    let reason = "the argument '--json' cannot be used with '--watch'; see status --help";
    site.run("status", &["--json", "--watch"]).is(2, "", &format!("status: {reason}\n"));
    fs::write(site.home.join("config.toml"), "").unwrap();
    site.run("status", &[]).fails(2, &["status: cannot use ", "config.toml: line 1: missing key `app`"]);
    site.install(&[]).ok();
}

#[test]
fn a_table_for_people_and_json_for_programs() {
    let site = Site::new(Sample::Static, BRISK);
    let (first, second) = (site.ports.first, site.ports.second);
    let nothing = "path - - | release - - | version - - | proxy disabled disabled | health does not listen does not listen \
                   | pid - - | uptime - - | memory - - | restarts - -";
    let table = site.run("status", &[]);
    assert_eq!(words(&table), format!("shop A B | port {first} {second} | {nothing}"));
    assert_eq!((table.code, table.stderr.as_str()), (0, ""));
    site.run("status", &["--watch"]).is(0, &table.stdout, "");

    let id = site.run("update-instance", &[]).ok();
    let commit = id.trim().split_once('-').unwrap().1;
    site.run("deploy", &[]).ok();
    let status = json(&site);
    let looked = &status["instances"][0];
    let path = site.home.join("releases").join(id.trim());
    let expected = json!({
        "app": "shop", "enabled": "A", "state_error": null, "nginx": "A", "nginx_error": null, "change": null, "queued": null,
        "instances": [
            {
                "name": "A", "port": first, "path": path, "release": id.trim(), "version": commit, "proxy": "enabled",
                "healthy": true, "health": "healthy", "health_milliseconds": looked["health_milliseconds"],
                "pid": site.pid("A"), "uptime_seconds": looked["uptime_seconds"], "memory_bytes": looked["memory_bytes"],
                "restarts": 0, "last_exit": null, "last_exit_at": null, "supervise_replaced": false,
                "processes": [{
                    "name": "0", "port": first, "pid": site.pid("A"), "uptime_seconds": looked["uptime_seconds"],
                    "memory_bytes": looked["memory_bytes"], "restarts": 0, "last_exit": null, "last_exit_at": null
                }],
                "workers": []
            },
            {
                "name": "B", "port": second, "path": null, "release": null, "version": null, "proxy": "disabled",
                "healthy": false, "health": "does not listen", "health_milliseconds": null,
                "pid": null, "uptime_seconds": null, "memory_bytes": null, "restarts": null, "last_exit": null,
                "last_exit_at": null, "supervise_replaced": null,
                "processes": [{
                    "name": "0", "port": second, "pid": null, "uptime_seconds": null, "memory_bytes": null,
                    "restarts": null, "last_exit": null, "last_exit_at": null
                }],
                "workers": []
            }
        ]
    });
    assert_eq!(status, expected);
    assert!((0.0..2000.0).contains(&looked["health_milliseconds"].as_f64().unwrap()), "{looked}");
    assert!(looked["uptime_seconds"].as_u64().unwrap() < 60, "{looked}");
    assert!(looked["memory_bytes"].as_u64().unwrap() > 10_000, "{looked}");

    let table = words(&site.run("status", &[]));
    for row in [
        format!("shop A B | port {first} {second} | path {} - | release {} - ", path.display(), id.trim()),
        format!(
            " | version {commit} - | proxy enabled disabled | health healthy does not listen | pid {} - ",
            site.pid("A")
        ),
        " | restarts 0 -".to_owned(),
    ] {
        assert!(table.contains(&row), "{row:?} is not in {table:?}");
    }
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let site = Site::new(Sample::Static, BRISK);
    site.shell("status | head -1 | tr -s ' '").is(0, "shop A B\n", "");
    site.run_unread("status", &[]).is(0, "", "");
    site.run_unread("status", &["--json"]).is(0, "", "");
}

#[test]
fn what_does_not_fit_together_is_said_below() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("deploy", &[]).ok();
    let ended = |status: &Ran| status.stdout.split_once("\n\n").map(|(_, text)| text.to_owned());
    assert_eq!(ended(&site.run("status", &[])), None);

    fs::remove_file(site.home.join("state/enabled")).unwrap();
    std::os::unix::fs::symlink("B", site.home.join("state/enabled")).unwrap();
    fs::remove_file(site.home.join("state/B/B")).unwrap();
    let said = "B is enabled, but nginx uses A; connect-to-nginx B finds out why\n";
    assert_eq!(ended(&site.run("status", &[])).as_deref(), Some(said));

    site.shell("kill $(cat .shop/nginx/nginx.pid)").ok();
    eventually("nginx has gone", || {
        TcpStream::connect(("127.0.0.1", site.ports.status)).is_err_and(|error| error.kind() == ConnectionRefused)
    });
    assert_eq!(json(&site)["nginx"], Value::Null);
    let said = format!(
        "nginx does not answer on its status port 127.0.0.1:{} (connection refused): run bootup, or run install again if it runs\n",
        site.ports.status
    );
    let status = site.run("status", &[]);
    assert_eq!((status.code, ended(&status)), (0, Some(said)));
}

#[test]
fn a_supervise_whose_program_was_replaced_is_named_until_its_instance_is_started_again() {
    let site = Site::new(Sample::Static, BRISK).with_standby();
    let below = || site.run("status", &[]).ok().split_once("\n\n").map(|(_, text)| text.to_owned());
    assert_eq!(below(), None);
    // As an upgrade does it.
    site.shell("cp .shop/bin/supervise .shop/bin/.supervise.new && mv .shop/bin/.supervise.new .shop/bin/supervise")
        .ok();
    let said =
        "A still runs under the supervise from before an upgrade; its next start, as by a deploy, takes the new one\n";
    assert_eq!(below(), Some(format!("{said}\n{}", said.replacen('A', "B", 1))));
    let old = |instance: usize| site.status()["instances"][instance]["supervise_replaced"].clone();
    assert_eq!([old(0), old(1)], [json!(true), json!(true)]);
    site.run("stop-instance", &["A"]).ok();
    assert_eq!([old(0), old(1)], [Value::Null, json!(true)]);
    site.run("start-instance", &["A"]).ok();
    assert_eq!(below(), Some(said.replacen('A', "B", 1)));
    assert_eq!([old(0), old(1)], [json!(false), json!(true)]);
    site.run("reload", &[]).ok();
    site.run("reload", &[]).ok();
    assert_eq!(below(), None);
}

#[test]
fn two_hung_instances_cost_one_short_timeout() {
    let site = Site::new(Sample::Static, BRISK).with_standby();
    let pids = format!("{} {}", site.pid("A"), site.pid("B"));
    site.shell(&format!("kill -STOP {pids}")).ok();
    let asked = || {
        let began = Instant::now();
        let status = json(&site);
        for instance in status["instances"].as_array().unwrap() {
            assert_eq!((&instance["healthy"], &instance["health"]), (&json!(false), &json!("no answer within 2.0 s")));
            assert_eq!(instance["health_milliseconds"], Value::Null);
        }
        began.elapsed()
    };
    // A busy machine may stand still for a while, but not each time.
    let fastest = (0..5).map(|_| asked()).find(|took| *took < Duration::from_secs(4));
    site.shell(&format!("kill -CONT {pids}")).ok();
    assert!(fastest.is_some(), "one after the other");
}

/// A table with its columns closed up and its lines joined.
fn words(ran: &Ran) -> String {
    let lines: Vec<String> =
        ran.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    lines.join(" | ")
}

fn json(site: &Site) -> Value {
    serde_json::from_str(&site.run("status", &["--json"]).ok()).unwrap()
}
