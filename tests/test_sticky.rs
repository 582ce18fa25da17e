//! sticky: a client's requests go to one of several processes, for as long as that one answers.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use crate::site::{BRISK, Sample, Site, eventually, none_lost};
use crate::test_several::pids;

const CLIENTS: u8 = 24;

fn site(count: usize, more: &str) -> Site {
    let site = Site::unlaid_roomy(Sample::Static, "");
    let (listen, status) = (site.ports.listen, site.ports.status);
    let nginx = format!("own = true\nlisten = [\"127.0.0.1:{listen}\"]\nstatus_port = {status}\nsticky = true\n");
    let command = "test ! -e ../../down.$PROCESS_INDEX || exit 1; exec ./app";
    let run = format!("{BRISK}[run]\ncommand = \"{command}\"\nprocesses = {count}\n{more}\n");
    site.write_config(&format!("[nginx]\n{nginx}{run}"));
    site.install(&[]).ok();
    site.run("deploy", &[]).ok();
    site
}

/// Which process answers a client of this address.
fn of_client(site: &Site, client: u8) -> i32 {
    let url = format!("http://127.0.0.1:{}/pid", site.ports.listen);
    let from = format!("127.0.0.{client}");
    let asked =
        Command::new("curl").args(["--silent", "--max-time", "10", "--interface", &from, &url]).output().unwrap();
    String::from_utf8(asked.stdout).unwrap().trim().parse().unwrap()
}

/// Which process answers each of them.
fn of_all(site: &Site) -> BTreeMap<u8, i32> {
    (2..2 + CLIENTS).map(|client| (client, of_client(site, client))).collect()
}

fn clients_of(all: &BTreeMap<u8, i32>, pid: i32) -> Vec<u8> {
    all.iter().filter(|(_, of)| **of == pid).map(|(client, _)| *client).collect()
}

#[test]
fn each_client_stays_with_one_process_and_all_processes_have_some() {
    for count in [2, 3] {
        let site = site(count, "");
        let load = site.load();
        let first = of_all(&site);
        for _ in 0..4 {
            assert_eq!(of_all(&site), first);
        }
        for pid in pids(&site, "A") {
            assert!(!clients_of(&first, pid).is_empty(), "{first:?}");
        }
        // It is so of the next release, and after the way back.
        site.commit("v2", "");
        site.run("deploy", &[]).ok();
        let second = of_all(&site);
        assert!(second.values().all(|pid| pids(&site, "B").contains(pid)), "{second:?}");
        assert_eq!(of_all(&site), second);
        site.run("rollback", &[]).ok();
        assert_eq!(of_all(&site), first);
        none_lost(&load.stop());
    }
}

#[test]
fn only_the_clients_of_a_process_that_is_down_go_to_another_of_its_instance() {
    let site = site(2, "");
    site.commit("v2", "");
    site.run("deploy", &[]).ok();
    let before = of_all(&site);
    let [gone, left] = pids(&site, "B")[..] else { panic!("{before:?}") };
    let down = site.home.join("down.0");
    fs::write(&down, "").unwrap();
    site.shell(&format!("kill -9 {gone}")).ok();
    eventually("it is down", || site.run("pid", &["B"]).stdout == format!("{left}\n"));
    let during = of_all(&site);
    assert!(during.values().all(|pid| *pid == left), "{during:?}");
    fs::remove_file(&down).unwrap();
    eventually("it is back", || site.run("pid", &["B"]).stdout.lines().count() == 2);
    let after = of_all(&site);
    let back = pids(&site, "B")[0];
    assert_eq!(clients_of(&after, back), clients_of(&before, gone));
    assert_eq!(clients_of(&after, left), clients_of(&before, left));
}

#[test]
fn one_that_is_replaced_takes_its_clients_along() {
    let site = site(3, "max_memory = \"1G\"");
    let before = of_all(&site);
    let processes = pids(&site, "A");
    // As supervise does it, and nginx sees it: the third is where the free port was, and its own is free.
    fs::write(site.home.join("state/A/3.without.2"), "").unwrap();
    let during = of_all(&site);
    for (client, pid) in &during {
        // Nobody listens on that port; nginx asks the next one, of the same instance.
        let expected = (before[client] != processes[2]).then_some(before[client]);
        assert!(expected.is_none_or(|expected| *pid == expected), "{client}: {during:?}");
        assert!(processes.contains(pid), "{during:?}");
    }
}

#[test]
fn processes_beyond_what_nginx_can_be_told_are_refused() {
    let site = site(2, "");
    site.reconfigure("processes = 2", "processes = 17");
    site.run("deploy", &[]).fails(2, &["sticky", "at most 16 processes"]);
}
