//! pid: the process that listens on an instance's port, or no.

use std::fs;

use crate::site::{BRISK, Sample, Site, explains_itself};

#[test]
fn it_explains_itself() {
    explains_itself("pid", "Print the process that listens on an instance's port");
}

#[test]
fn it_says_no_when_nothing_listens_and_tells_the_listener_when_something_does() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("pid", &[]).is(1, "", "");
    site.run("pid", &["A"]).is(1, "", "");
    site.run("pid", &["C"]).is(2, "", "pid: cannot find instance \"C\": there are A and B\n");

    site.run("deploy", &[]).ok();
    let (status, told_by_the_app) = site.get("/pid");
    assert_eq!(status, 200);
    for arguments in [&[][..], &["A"], &["a"], &["instanceA"], &["instancea"]] {
        site.run("pid", arguments).is(0, &told_by_the_app, "");
    }
    site.run("pid", &["B"]).is(1, "", "");
    site.run_unread("pid", &[]).is(0, "", "");
    site.shell("pid | head -0").is(0, "", "");
    site.shell("kill -9 $(pid) && pid B").is(1, "", "");
}

#[test]
fn it_tells_the_listener_and_not_the_npm_above_it() {
    let site = Site::new(Sample::Node, BRISK);
    site.run("deploy", &[]).ok();
    let (_, told_by_the_app) = site.get("/pid");
    site.run("pid", &[]).is(0, &told_by_the_app, "");
    let parent = parent(told_by_the_app.trim());
    let above = fs::read_to_string(format!("/proc/{}/comm", self::parent(&parent))).unwrap();
    assert_ne!(above, "supervise\n", "npm is not between supervise and the app, so this shows nothing");
}

#[test]
fn a_link_that_names_no_instance_is_an_error() {
    let site = Site::new(Sample::Static, BRISK);
    std::os::unix::fs::symlink("C", site.home.join("state/enabled")).unwrap();
    let reason = "pid: cannot tell what is enabled: HOME/state/enabled names C, no instance\n";
    site.run("pid", &[]).masked(&site).is(3, "", reason);
}

fn parent(pid: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:\t")).unwrap().to_owned()
}
