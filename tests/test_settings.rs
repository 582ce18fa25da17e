//! Settings belong to a release: what config.toml says after an instance was started changes neither what runs, nor what comes
//! back, nor the way back.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::site::{BRISK, Sample, Site, eventually, none_lost};

/// An app that answers `/up-NAME` and `/name` for the name in its command, and any other path with its version.
const APP: &str = "import http.server as h, os, sys\n\
    class App(h.BaseHTTPRequestHandler):\n  protocol_version = 'HTTP/1.1'\n  def log_message(self, *a): pass\n  \
    def do_POST(self):\n    self.answer(self.rfile.read(int(self.headers['Content-Length'])))\n  \
    def do_GET(self):\n    name = sys.argv[1]\n    \
    known = {'/up-' + name: b'up', '/name': name.encode(), '/secret': os.environ.get('SECRET', '').encode()}\n    \
    body = known.get(self.path, open('VERSION', 'rb').read())\n    \
    self.answer(body, 404 if self.path.startswith('/up-') and self.path not in known else 200)\n  \
    def answer(self, body, status=200):\n    self.send_response(status)\n    \
    self.send_header('Content-Length', str(len(body)))\n    self.end_headers()\n    self.wfile.write(body)\n\
    h.ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), App).serve_forever()\n";

/// v1 by the name `one` is the standby A, v2 by the name `two` is enabled as B. Each is healthy by its own name only.
fn moved() -> Site {
    let site = Site::unlaid(
        Sample::Static,
        &format!(
            "{BRISK}[run]\ncommand = \"exec python3 app.py one\"\n[health]\npath = \"/up-one\"\ntimeout = \"10s\"\n"
        ),
    );
    fs::write(site.source().join("app.py"), APP).unwrap();
    site.commit("v1", "");
    site.install(&[]).ok();
    site.run("deploy", &[]).ok();
    site.commit("v2", "");
    rename(&site, "one", "two");
    site.run("deploy", &[]).ok();
    assert_eq!((site.get("/"), site.get("/name").1.as_str()), ((200, "v2\n".to_owned()), "two"));
    site
}

/// Gives the app another name in the configuration, by which it is run and healthy.
fn rename(site: &Site, from: &str, to: &str) {
    site.reconfigure(&format!("app.py {from}"), &format!("app.py {to}"));
    site.reconfigure(&format!("/up-{from}"), &format!("/up-{to}"));
}

/// As a power cut leaves it: nothing runs.
fn power_cut(site: &Site) {
    site.processes().into_iter().for_each(|pid| drop(site.shell(&format!("kill -9 {pid}"))));
    eventually("all has gone", || site.processes().is_empty());
    site.shell(&format!("rm -f {}/nginx/nginx.pid", site.home.display())).ok();
}

#[test]
fn a_rollback_to_a_warm_standby_only_switches_whatever_is_configured() {
    let site = moved();
    let (pid, load) = (site.pid("A"), site.load());
    site.run("rollback", &[]).masked(&site).is(0, "", "rollback: A is enabled with RELEASE, TIME\n");
    assert_eq!((site.get("/").1.as_str(), site.get("/name").1.as_str(), site.pid("A")), ("v1\n", "one", pid));
    // And by the small tools, forth and back.
    site.run("connect-to-nginx", &["B"]).ok();
    site.run("connect-to-nginx", &["A"]).ok();
    let instances = site.status()["instances"].clone();
    assert_eq!((&instances[0]["healthy"], &instances[1]["healthy"]), (&true.into(), &true.into()));
    none_lost(&load.stop());
}

#[test]
fn what_was_rolled_back_to_serves_after_a_restart_and_a_boot_too() {
    let site = moved();
    site.run("rollback", &[]).ok();
    rename(&site, "two", "three");
    site.shell(&format!("kill -9 {}", site.pid("A"))).ok();
    eventually("supervise has started it again", || site.get("/name") == (200, "one".to_owned()));
    site.shell("stop-instance A --force && start-instance A").ok();
    assert_eq!(site.get("/name").1, "one");
    power_cut(&site);
    site.run("bootup", &[]).ok();
    assert_eq!((site.get("/").1.as_str(), site.get("/name").1.as_str()), ("v1\n", "one"));
    assert_eq!(site.run("enabled-instance", &[]).ok(), "A\n");
    site.run("rollback", &[]).ok();
    assert_eq!((site.get("/").1.as_str(), site.get("/name").1.as_str()), ("v2\n", "two"));
}

#[test]
fn reload_and_deploy_bring_what_is_configured_and_the_pipeline_as_well() {
    let site = moved();
    rename(&site, "two", "three");
    let load = site.load();
    let told = site.run("reload", &[]);
    assert!(told.stderr.contains("reload: configuration: health.path, run.command changed\n"), "{told:?}");
    assert_eq!((site.get("/").1.as_str(), site.get("/name").1.as_str()), ("v2\n", "three"));
    // B is the standby, and has this very release, by older settings.
    rename(&site, "three", "four");
    site.shell("d=$(disabled-instance); update-instance $d && start-instance $d && connect-to-nginx $d").ok();
    assert_eq!((site.get("/").1.as_str(), site.get("/name").1.as_str()), ("v2\n", "four"));
    site.run("rollback", &[]).ok();
    assert_eq!(site.get("/name").1, "three");
    none_lost(&load.stop());
    // What says nothing about how it is run makes no instance another one.
    site.run("rollback", &[]).ok();
    site.shell("update-instance A && start-instance A").ok();
    let pid = site.pid("A");
    site.reconfigure("soak = \"100ms\"", "soak = \"200ms\"");
    site.run("update-instance", &["A"]).ok();
    assert_eq!(site.pid("A"), pid);
}

#[test]
fn a_reload_that_fails_gives_the_standby_its_settings_back() {
    let site = moved();
    let recorded = || {
        let mut all: Vec<_> = fs::read_dir(site.home.join("instances")).unwrap().flatten().map(|e| e.path()).collect();
        all.sort();
        all.iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap_or_default())).collect::<Vec<_>>()
    };
    // Now both have the same release by different settings.
    rename(&site, "two", "three");
    site.run("reload", &[]).ok();
    let before = recorded();
    for broken in ["exit 7", "sleep 3600"] {
        site.reconfigure("exec python3 app.py three", broken);
        site.reconfigure("timeout = \"10s\"", "timeout = \"1s\"");
        let failed = site.run("reload", &[]);
        assert!([3, 124].contains(&failed.code), "{failed:?}");
        assert_eq!(recorded(), before);
        assert_eq!(
            (site.get("/name").1.as_str(), site.status()["instances"][1]["healthy"].clone()),
            ("three", true.into())
        );
        site.reconfigure(broken, "exec python3 app.py three");
        site.reconfigure("timeout = \"1s\"", "timeout = \"10s\"");
    }
    site.run("rollback", &[]).ok();
    assert_eq!(site.get("/name").1, "two");
}

#[test]
fn an_older_release_is_run_again_as_it_was_run() {
    let site = moved();
    let first = site.status()["instances"][0]["release"].as_str().unwrap().to_owned();
    for (version, name) in [("v3", "three"), ("v4", "four")] {
        site.commit(version, "");
        let text = fs::read_to_string(site.home.join("config.toml")).unwrap();
        let old = text.split("app.py ").nth(1).unwrap().split('"').next().unwrap().to_owned();
        rename(&site, &old, name);
        site.run("deploy", &[]).ok();
    }
    // It was A's; now B is enabled, and A has v3.
    site.run("rollback", &["--to", &first]).ok();
    assert_eq!((site.get("/").1.as_str(), site.get("/name").1.as_str()), ("v1\n", "one"));
    // And where the other instance is the one to run it.
    site.run("connect-to-nginx", &["B"]).ok();
    site.run("connect-to-nginx", &["A"]).ok();
    let third = site.run("history", &["--json"]).ok();
    assert!(third.contains(&first), "{third}");
}

#[test]
fn with_a_configuration_that_cannot_be_read_the_app_boots_and_goes_back_all_the_same() {
    let site = moved();
    let config = site.home.join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    for broken in ["[run\ncommand = \"x\"\n".to_owned(), text.replace("[health]", "[heatlh]"), String::new()] {
        fs::write(&config, &broken).unwrap();
        power_cut(&site);
        let booted = site.run("bootup", &[]);
        let complaint = format!("bootup: cannot use {}: ", config.display());
        assert!(booted.stderr.starts_with(&complaint), "{booted:?}");
        assert!(booted.stderr.contains("; going by what is recorded with the instances\n"), "{booted:?}");
        booted.ok();
        assert_eq!((site.get("/").1.as_str(), site.get("/name").1.as_str()), ("v2\n", "two"));
        for (tool, now) in [("rollback", "one"), ("rollback", "two")] {
            site.run(tool, &[]).ok();
            assert_eq!(site.get("/name").1, now);
        }
        site.shell("stop-instance A && start-instance A && connect-to-nginx A && connect-to-nginx B").ok();
        // What is wanted cannot be known.
        for tool in ["deploy", "reload", "update-instance"] {
            let refused = site.run(tool, &[]);
            assert_eq!((refused.code, refused.stderr.contains("config.toml: ")), (2, true), "{refused:?}");
        }
    }
    fs::remove_file(&config).unwrap();
    site.run("rollback", &[]).ok();
    assert_eq!(site.get("/name").1, "one");
    fs::write(&config, text).unwrap();
}

#[test]
fn other_numbers_of_processes_and_other_workers_come_and_go_with_their_release() {
    let worker = |name: &str| format!("[[worker]]\nname = \"{name}\"\ncommand = \"exec sleep 1000\"\n");
    let run = "[run]\ncommand = \"exec python3 app.py one\"\nprocesses = 2\n";
    let site = Site::roomy(Sample::Static, &format!("{BRISK}{run}{}", worker("mail")));
    fs::write(site.source().join("app.py"), APP).unwrap();
    site.commit("v1", "");
    site.run("deploy", &[]).ok();
    site.commit("v2", "");
    site.reconfigure("processes = 2", "processes = 3");
    site.reconfigure("name = \"mail\"", "name = \"post\"");
    site.run("deploy", &[]).ok();
    let programs = |instance: usize| {
        let status = site.status();
        let of = |kind: &str| -> Vec<String> {
            let all = status["instances"][instance][kind].as_array().unwrap().iter();
            all.map(|one| one["name"].as_str().unwrap().to_owned()).collect()
        };
        (of("processes").len(), of("workers"))
    };
    assert_eq!((programs(0), programs(1)), ((2, vec![]), (3, vec!["post.0".to_owned()])));
    let load = site.load();
    site.run("rollback", &[]).ok();
    assert_eq!((programs(0), programs(1)), ((2, vec!["mail.0".to_owned()]), (3, vec![])));
    site.shell("stop-instance A --force && start-instance A").ok();
    assert_eq!(programs(0), (2, vec!["mail.0".to_owned()]));
    assert_eq!(site.run("enabled-port", &[]).ok().lines().count(), 2);
    drop(load);
    // Without any, as configured, those of the release still run.
    let text = fs::read_to_string(site.home.join("config.toml")).unwrap();
    fs::write(site.home.join("config.toml"), text.split("[[worker]]").next().unwrap()).unwrap();
    site.run("rollback", &[]).ok();
    assert_eq!((programs(0), programs(1)), ((2, vec![]), (3, vec!["post.0".to_owned()])));
}

#[test]
fn the_env_file_is_live() {
    let site = moved();
    site.write_env("SECRET=new\n");
    site.run("rollback", &[]).ok();
    assert_eq!(site.get("/secret").1, "");
    site.shell("stop-instance A --force && start-instance A").ok();
    assert_eq!((site.get("/secret").1.as_str(), site.get("/name").1.as_str()), ("new", "one"));
}

#[test]
fn settings_lie_closed_beside_the_instances_without_the_sources_address_and_go_with_their_release() {
    let site = moved();
    let files = || -> Vec<String> {
        let entries = fs::read_dir(site.home.join("instances")).unwrap().flatten();
        let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let release = |at: usize| site.status()["instances"][at]["release"].as_str().unwrap().to_owned();
    let (first, second) = (release(0), release(1));
    assert_eq!(files(), ["A", &format!("A.{first}.toml"), "B", &format!("B.{second}.toml")]);
    for name in files().iter().filter(|name| name.ends_with(".toml")) {
        let path = site.home.join("instances").join(name);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let text = fs::read_to_string(path).unwrap();
        assert!(text.contains("app.py") && !text.contains(site.source().to_str().unwrap()), "{text}");
    }
    site.reconfigure("soak = \"100ms\"", "soak = \"100ms\"\nkeep_releases = 1");
    for version in ["v3", "v4", "v5"] {
        site.commit(version, "");
        site.run("deploy", &[]).ok();
    }
    assert_eq!(files(), ["A", &format!("A.{}.toml", release(0)), "B", &format!("B.{}.toml", release(1))]);
}

#[test]
fn install_records_how_present_instances_run_before_it_lays_another_configuration() {
    let site = moved();
    // As version 0.1.0 left it.
    site.shell(&format!("rm {}/instances/*.toml", site.home.display())).ok();
    let text = fs::read_to_string(site.home.join("config.toml")).unwrap();
    fs::write(site.config(), text.replace("app.py two", "app.py three").replace("/up-two", "/up-three")).unwrap();
    site.install(&[]).ok();
    power_cut(&site);
    site.run("bootup", &[]).ok();
    assert_eq!((site.get("/").1.as_str(), site.get("/name").1.as_str()), ("v2\n", "two"));
}

fn release_of(site: &Site, instance: &str) -> String {
    let link = fs::read_link(site.home.join("instances").join(instance)).unwrap();
    link.file_name().unwrap().to_string_lossy().into_owned()
}

fn settings(site: &Site, instance: &str, release: &str) -> String {
    fs::read_to_string(site.home.join(format!("instances/{instance}.{release}.toml"))).unwrap()
}

#[test]
fn a_deploy_that_was_killed_and_fails_when_it_is_run_again_leaves_the_way_back() {
    let site = moved();
    rename(&site, "two", "three");
    site.reconfigure("/up-three", "/up-never");
    site.reconfigure("timeout = \"10s\"", "timeout = \"2s\"");
    site.commit("v3", "");
    let head = site.shell("git -C source rev-parse --short=12 HEAD").ok();
    let standby = release_of(&site, "A");
    for again in ["deploy", "rollback"] {
        let mut deploy = site.tool("deploy", &[]).spawn().unwrap();
        eventually("it waits for v3", || {
            release_of(&site, "A").ends_with(head.trim()) && site.run("pid", &["A"]).code == 0
        });
        deploy.kill().and_then(|()| deploy.wait()).unwrap();
        if again == "deploy" {
            site.run("deploy", &[]).fails(124, &["cannot start A: not healthy within 2"]);
            assert_eq!((release_of(&site, "A"), site.get("/name").1.as_str()), (standby.clone(), "two"));
            site.run("pid", &["A"]).ok();
        }
        // Also when nobody has run it again.
        site.run("rollback", &[]).ok();
        assert_eq!((site.get("/").1.as_str(), site.get("/name").1.as_str()), ("v1\n", "one"), "{again}");
        site.run("rollback", &[]).ok();
        assert_eq!((site.get("/").1.as_str(), site.get("/name").1.as_str()), ("v2\n", "two"), "{again}");
    }
    // And after a boot, which starts what the standby was.
    let mut deploy = site.tool("deploy", &[]).spawn().unwrap();
    eventually("it waits for v3", || {
        release_of(&site, "A").ends_with(head.trim()) && site.run("pid", &["A"]).code == 0
    });
    deploy.kill().and_then(|()| deploy.wait()).unwrap();
    power_cut(&site);
    site.run("bootup", &[]).masked(&site).is(
        0,
        "",
        "bootup: nginx is started\nbootup: B is healthy, TIME\nbootup: A is healthy, TIME\n",
    );
    assert_eq!(release_of(&site, "A"), standby);
}

#[test]
fn a_reload_that_failed_or_was_killed_changes_nothing_of_how_a_release_is_run_again() {
    let site = moved();
    // v2 runs on both, A by the name `four`.
    rename(&site, "two", "four");
    site.run("reload", &[]).ok();
    let release = release_of(&site, "A");
    let before = [settings(&site, "A", &release), settings(&site, "B", &release)];
    assert_eq!(site.get("/name").1, "four");
    // Now one by which it does not become healthy: it fails, is killed, and fails after it was killed.
    site.reconfigure("app.py four", "app.py five");
    site.reconfigure("timeout = \"10s\"", "timeout = \"2s\"");
    let wrong = |text: &str| text.contains("app.py five");
    site.run("reload", &[]).fails(124, &["cannot start B: not healthy"]);
    assert_eq!([settings(&site, "A", &release), settings(&site, "B", &release)], before);
    let mut reload = site.tool("reload", &[]).spawn().unwrap();
    eventually("it waits", || wrong(&settings(&site, "B", &release)) && site.run("pid", &["B"]).code == 0);
    reload.kill().and_then(|()| reload.wait()).unwrap();
    site.run("reload", &[]).fails(124, &["cannot start B: not healthy"]);
    assert_eq!([settings(&site, "A", &release), settings(&site, "B", &release)], before);
    site.run("rollback", &[]).ok();
    assert_eq!(site.get("/name").1, "two");
    site.run("rollback", &[]).ok();

    // A release that is not the standby's any more is run by what it was run by, not by what has failed.
    site.reconfigure("/up-four", "/up-five");
    site.commit("v5", "");
    site.run("deploy", &[]).ok();
    site.run("deploy", &[]).ok();
    rename(&site, "five", "six");
    site.reconfigure("/up-six", "/up-never");
    site.run("reload", &[]).fails(124, &["cannot start A: not healthy"]);
    site.run("rollback", &[]).ok();
    assert_eq!((site.get("/").1.as_str(), site.get("/name").1.as_str()), ("v2\n", "four"));
}

#[test]
fn ports_in_the_configuration_change_nothing_until_install_is_run() {
    let site = moved();
    let (a, b, free) = (site.ports.first, site.ports.second, [site.ports.push, site.ports.first]);
    let config = site.home.join("config.toml");
    let original = fs::read_to_string(&config).unwrap();
    for [to_a, to_b] in [[b, a], free] {
        let ports = format!("A = {to_a}\nB = {to_b}\n");
        fs::write(&config, original.replace(&format!("A = {a}\nB = {b}\n"), &ports)).unwrap();
        assert_ne!(fs::read_to_string(&config).unwrap(), original);
        power_cut(&site);
        site.run("bootup", &[]).ok();
        let version = site.get("/").1;
        let enabled = site.run("enabled-instance", &[]).ok();
        let release = site.home.join("instances").join(enabled.trim()).join("VERSION");
        assert_eq!(version, fs::read_to_string(release).unwrap());
        assert_eq!(site.status()["instances"][0]["port"], u64::from(a));
        site.run("rollback", &[]).ok();
        assert_ne!(site.get("/").1, version);
        site.run("rollback", &[]).ok();
        let next = format!("v-{to_a}");
        site.commit(&next, "");
        let told = site.run("deploy", &[]);
        let why = format!("install has not laid yet: [instances]: A = {to_a}, B = {to_b} instead of A = {a}, B = {b}");
        assert!(told.code == 0 && told.stderr.contains(&why), "{told:?}");
        assert_eq!(site.get("/").1, format!("{next}\n"));
    }
    // Install changes them, for instances that do not run.
    fs::copy(&config, site.config()).unwrap();
    site.install(&[]).fails(3, &["cannot change [instances]: ", "runs on port"]);
    site.shell("stop-instance A --force; stop-instance B --force").ok();
    site.install(&[]).ok();
    site.run("bootup", &[]).ok();
    assert_eq!((site.get("/").0, &site.status()["instances"][0]["port"]), (200, &u64::from(free[0]).into()));
}

#[test]
fn what_cannot_be_read_of_one_instances_settings_keeps_no_traffic_from_the_other() {
    let site = moved();
    let file = |instance: &str| format!("instances/{instance}.{}.toml", release_of(&site, instance));
    let (a, b) = (site.home.join(file("A")), site.home.join(file("B")));
    let good = fs::read_to_string(&a).unwrap();
    fs::write(&a, format!("unknown = 1\n{good}")).unwrap();
    site.run("connect-to-nginx", &["B"]).ok();
    fs::write(&a, good).unwrap();
    let good = fs::read_to_string(&b).unwrap();
    fs::write(&b, format!("unknown = 1\n{good}")).unwrap();
    site.run("rollback", &[]).ok();
    assert_eq!((site.get("/").1.as_str(), site.run("enabled-instance", &[]).ok().as_str()), ("v1\n", "A\n"));
    fs::write(&b, &good).unwrap();
    site.run("rollback", &[]).ok();
    fs::write(&b, format!("unknown = 1\n{good}")).unwrap();
    power_cut(&site);
    let booted = site.run("bootup", &[]);
    assert!(booted.code == 0 && booted.stderr.contains("falling back to the standby A"), "{booted:?}");
    assert_eq!(site.get("/").1, "v1\n");
}

#[test]
fn what_is_not_laid_yet_changes_neither_the_way_back_nor_what_a_boot_brings() {
    let site = moved();
    let config = site.home.join("config.toml");
    let original = fs::read_to_string(&config).unwrap();
    let (status, listen) = (site.ports.status, site.ports.listen);
    let edits = [
        (format!("status_port = {status}"), format!("status_port = {}", site.ports.push)),
        ("A = ".to_owned(), "blue = ".to_owned()),
        ("runner = \"direct\"".to_owned(), "runner = \"systemd\"".to_owned()),
        ("own = true".to_owned(), "own = false".to_owned()),
        ("app = \"shop\"".to_owned(), "app = \"shop2\"".to_owned()),
        (format!("127.0.0.1:{listen}"), format!("127.0.0.1:{}", site.ports.push)),
        ("app = ".to_owned(), "[[[".to_owned()),
    ];
    for (old, new) in edits {
        let edited = original.replacen(&old, &new, 1);
        assert_ne!(edited, original, "{old}");
        fs::write(&config, &edited).unwrap();
        let version = site.get("/").1;
        site.run("rollback", &[]).ok();
        assert_ne!(site.get("/").1, version, "{new}");
        power_cut(&site);
        site.run("bootup", &[]).ok();
        assert_eq!((site.get("/").0, site.get("/").1 != version), (200, true), "{new}");
        site.run("rollback", &[]).ok();
    }
    fs::write(&config, original).unwrap();
}

#[test]
fn a_standby_that_a_killed_deploy_was_replacing_stands_in_for_an_instance_that_is_down() {
    let site = moved();
    rename(&site, "two", "three");
    site.reconfigure("/up-three", "/up-never");
    site.reconfigure("timeout = \"10s\"", "timeout = \"2s\"");
    site.commit("v3", "");
    let standby = release_of(&site, "A");
    let mut deploy = site.tool("deploy", &[]).spawn().unwrap();
    eventually("it waits for v3", || release_of(&site, "A") != standby && site.run("pid", &["A"]).code == 0);
    deploy.kill().and_then(|()| deploy.wait()).unwrap();
    // Nobody keeps v2 running any more, and it does not come back.
    fs::remove_file(site.home.join("instances/B/app.py")).unwrap();
    site.shell(&format!("pkill -KILL -f \"supervise --home {} B$\"", site.home.display())).ok();
    eventually("v2 is down", || site.run("pid", &["B"]).code == 1);
    let failed = site.run("deploy", &[]);
    assert_ne!(failed.code, 0);
    assert!(failed.stderr.contains("B is enabled but not healthy"), "{failed:?}");
    assert_eq!((site.get("/").1.as_str(), site.get("/name").1.as_str()), ("v1\n", "one"));
    assert_eq!(release_of(&site, "A"), standby);
}
