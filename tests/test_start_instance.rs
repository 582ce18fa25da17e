//! start-instance: running and healthy when it returns, or an error that says why not, and nothing left behind.

use std::time::{Duration, Instant};

use crate::holder::Holder;
use crate::site::{BRISK, Sample, Site, explains_itself, get};

#[test]
fn it_explains_itself() {
    explains_itself("start-instance", "Start an instance and wait until it is healthy");
}

#[test]
fn it_says_no_to_nobody_and_what_to_do_about_an_instance_without_a_release() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("start-instance", &[]).is(1, "", "start-instance: nothing is enabled; name an instance\n");
    let reason = "start-instance: cannot find instance \"C\": there are A and B\n";
    site.run("start-instance", &["C"]).is(2, "", reason);
    let reason = "start-instance: cannot start A: it has no release yet; update-instance A makes one\n";
    site.run("start-instance", &["A"]).is(3, "", reason);
}

#[test]
fn it_returns_when_the_instance_is_healthy_and_at_once_when_it_was() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("update-instance", &["A"]).ok();
    site.run("start-instance", &["A"]).is(0, "", "");
    assert_eq!(get(site.ports.first, "/"), (200, "v1\n".to_owned()));
    let pid = site.pid("A");
    site.run("start-instance", &["instancea"]).is(0, "", "");
    assert_eq!(site.pid("A"), pid);

    site.run("connect-to-nginx", &["A"]).ok();
    site.run("stop-instance", &["A", "--force"]).ok();
    site.run("start-instance", &[]).is(0, "", "");
    assert_ne!(site.pid("A"), pid);
}

#[test]
fn it_waits_for_an_app_that_listens_before_it_is_ready() {
    let site = Site::new(Sample::Static, BRISK);
    site.commit("v1", "ready 1");
    site.run("update-instance", &["A"]).ok();
    let began = Instant::now();
    site.run("start-instance", &["A"]).is(0, "", "");
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(get(site.ports.first, "/").0, 200);
}

#[test]
fn the_app_gets_its_own_environment_and_nothing_of_the_callers() {
    let site = Site::new(Sample::Static, BRISK);
    let env = site.home.join("env");
    std::fs::write(&env, "# the shop's\nexport SECRET='a b'\n").unwrap();
    let release = site.run("update-instance", &["A"]).ok();
    // What would be refused now counts for nothing when an instance is only brought back.
    std::fs::write(&env, "# the shop's\nexport SECRET='a b'\nPORT=1\n").unwrap();
    let mut start = site.tool("start-instance", &["A"]);
    assert!(start.env("STRAY", "1").env("LANG", "tlh").status().unwrap().success());
    let (_, environment) = get(site.ports.first, "/env");
    let names: Vec<&str> = environment.lines().map(|line| line.split_once('=').unwrap().0).collect();
    let expected = [
        "HOME",
        "HOST",
        "INSTANCE",
        "LANG",
        "LOGNAME",
        "PATH",
        "PORT",
        "PROCESS_INDEX",
        "RELEASE",
        "SECRET",
        "TZ",
        "USER",
    ];
    // A shell adds PWD on its own account.
    assert_eq!(names.into_iter().filter(|name| *name != "PWD").collect::<Vec<_>>(), expected);
    let port = site.ports.first.to_string();
    for (name, value) in
        [("HOST", "127.0.0.1"), ("INSTANCE", "A"), ("PORT", &port), ("RELEASE", release.trim()), ("SECRET", "a b")]
    {
        assert!(environment.lines().any(|line| line == format!("{name}={value}")), "no {name}={value}: {environment}");
    }
}

#[test]
fn an_app_that_dies_at_its_start_is_an_error_at_once_with_its_last_words() {
    let site = Site::new(Sample::Static, BRISK);
    let before = site.processes();
    site.commit("v1", "exit");
    site.run("update-instance", &["A"]).ok();
    let began = Instant::now();
    let said = "v1 opens its database | cannot open database: connection refused";
    let reason = format!("start-instance: cannot start A: it died: exit status 3: {said}\n");
    site.run("start-instance", &["A"]).is(3, "", &reason);
    assert!(began.elapsed() < Duration::from_secs(30), "its health is waited for up to a minute");
    assert_eq!(site.processes(), before);
}

#[test]
fn what_has_not_come_to_start_the_app_when_the_time_is_up_does_not_start_it_later() {
    let slow = "[run]\ncommand = \"sleep 1; exec ./app\"\nstop_timeout = \"5s\"\n[health]\ntimeout = \"1ms\"\n";
    let site = Site::new(Sample::Static, &format!("{slow}{BRISK}"));
    let before = site.processes();
    site.run("update-instance", &["A"]).ok();
    for _ in 0..5 {
        site.run("start-instance", &["A"]).fails(124, &["cannot start A: not healthy within "]);
        assert_eq!(site.processes(), before);
    }
}

#[test]
fn an_app_that_never_is_healthy_is_a_timeout_that_says_what_the_last_check_saw() {
    let site = Site::new(Sample::Static, &format!("[health]\ntimeout = \"2s\"\n{BRISK}"));
    let before = site.processes();
    let cases = [
        ("deaf", "connection refused"),
        ("500", "status 500: database password wrong"),
        ("301", "status 301 to /login"),
        ("hang", "no answer within TIME"),
    ];
    for (behaviour, seen) in cases {
        site.commit("v1", behaviour);
        site.run("update-instance", &["A"]).ok();
        let reason =
            format!("start-instance: cannot start A: not healthy within TIME; its last health check: {seen}\n");
        site.run("start-instance", &["A"]).masked(&site).is(124, "", &reason);
        assert_eq!(site.processes(), before, "{behaviour}");
    }
}

#[test]
fn a_port_that_somebody_else_holds_is_an_error_that_names_the_holder() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("update-instance", &["A"]).ok();
    let holder = Holder::of(site.ports.first);
    let (port, described) = (site.ports.first, holder.described());
    let reason = format!("start-instance: cannot start A: port {port} is held by {described}\n");
    site.run("start-instance", &["A"]).is(3, "", &reason);
    drop(holder);
    site.run("start-instance", &["A"]).is(0, "", "");
}
