//! A server that is upgraded to the next release of Debian while it serves, deployed to, and rebooted.

use std::process::Command;

use crate::load::Report;
use crate::machine::{Debian, Machine, await_that, host};
use crate::server::{
    NAME, PATIENCE, USER, comes_to_serve, commit, config, fresh, load, none_lost, serves, tool, unpack,
};

/// Upgrades from this release.
pub fn run(debian: Debian) {
    let mut machine = Machine::boot(debian, 9, &[]);
    fresh(&machine, &config(&format!("[nginx]\nserver_name = \"{NAME}\"")));
    unpack(&machine);
    let install = format!("cd cutover-*-linux && sudo ./install --config ~/cafeteria.toml --user {USER} --deploy");
    machine.run_as("admin", &install).ok();
    fetch_packages(&machine);

    let load = load(&machine);
    deploy(&machine, "v2");
    let before = load.settled();
    told("a deploy before it", &before);
    assert_eq!(before.failed(), 0, "{:?}", before.samples);
    let nginx = || machine.run("nginx -v 2>&1").ok().trim().to_owned();
    let old = nginx();
    // What people do who want to be asked nothing and keep their own files.
    machine
        .run(
            "DEBIAN_FRONTEND=noninteractive apt-get --yes --no-download \
             -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold full-upgrade",
        )
        .ok();
    comes_to_serve(&machine, "v2");
    let after = load.settled();
    // The package restarts nginx itself, and who asks meanwhile is refused: that is nginx's, and no tool of ours ran.
    told(&format!("the upgrade, in which {old} was replaced by {}", nginx()), &after.since(&before));
    assert!(machine.run("cat /etc/debian_version").ok().starts_with("13"));

    deploy(&machine, "v3");
    tool(&machine, "rollback").ok();
    serves(&machine, "v2");
    deploy(&machine, "v4");
    let switched = load.settled().since(&after);
    told("two deploys and a rollback after it", &switched);
    assert_eq!(switched.failed(), 0, "{:?}", switched.samples);
    drop(load);

    machine.reboot();
    comes_to_serve(&machine, "v4");
    await_that("both instances are up", PATIENCE, || tool(&machine, "status").stdout.matches("  healthy").count() == 2);
    let load = crate::server::load(&machine);
    deploy(&machine, "v5");
    told("a deploy after the reboot", &none_lost(load));
}

fn deploy(machine: &Machine, version: &str) {
    commit(machine, version, "");
    tool(machine, "deploy").ok();
    serves(machine, version);
}

fn told(when: &str, report: &Report) {
    println!("    {when}: {report}");
}

/// Names the next release in the machine's sources, and has this host fetch what the upgrade needs: the machine reaches
/// nobody.
fn fetch_packages(machine: &Machine) {
    machine.run("sed -i s/bookworm/trixie/g /etc/apt/sources.list").ok();
    let root = machine.root().to_str().unwrap();
    let apt = |words: &[&str]| {
        let places = [
            format!("Dir={root}"),
            format!("Dir::State::status={root}/var/lib/dpkg/status"),
            // A host may have none, and then the directory itself is taken for it.
            "Dir::Cache::pkgcache=pkgcache.bin".to_owned(),
            "Dir::Cache::srcpkgcache=srcpkgcache.bin".to_owned(),
            "Dir::Bin::methods=/usr/lib/apt/methods".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
        ];
        let options = places.iter().flat_map(|option| ["-o", option]);
        let mut command = Command::new("apt-get");
        command.args(["-qq", "--yes"]).args(options).args(words);
        let fetched = command.output().unwrap();
        assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stderr));
    };
    apt(&["update"]);
    apt(&["--download-only", "full-upgrade"]);
    println!("    {} to fetch", host("du", &["-sh", &format!("{root}/var/cache/apt/archives")]).trim());
}
