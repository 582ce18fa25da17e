//! Power cuts at random instants of a deploy, which lose what is not on the disk yet. After each boot exactly one whole
//! release serves, without anybody's help, and the next deploy works.

use std::process::Stdio;
use std::time::Instant;

use crate::machine::{Debian, Machine, await_that};
use crate::sample::Random;
use crate::server::{NAME, PATIENCE, USER, answer, commit, config, fresh, status, tool};

/// How often the power is cut at least.
pub const CUTS: u32 = 25;

pub fn run(debian: Debian, cuts: u32, seed: u64) {
    let mut machine = Machine::boot(debian, 5, &[]);
    fresh(&machine, &config(&format!("[nginx]\nserver_name = \"{NAME}\"")));
    crate::server::unpack(&machine);
    machine
        .run_as("admin", "cd cutover-*-linux && sudo ./install --config ~/cafeteria.toml --user potados --deploy")
        .ok();
    let mut serving = "v1".to_owned();
    let mut random = Random::of(seed);
    // How long a deploy takes here: cuts fall anywhere within it, and a little behind it.
    commit(&machine, "v2", "");
    let began = Instant::now();
    tool(&machine, "deploy").ok();
    let whole = began.elapsed();
    serving.replace_range(.., "v2");
    let (mut old, mut new) = (0, 0);
    for cut in 0..cuts {
        let version = format!("v{}", cut + 3);
        commit(&machine, &version, "");
        machine.run("sync").ok();
        let after = whole.mul_f64(1.1 * random.fraction());
        let mut deploy = machine.command_as(USER, ".cafeteria/bin/deploy");
        let mut deploy = deploy.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(after);
        machine.cut_power();
        let _ = deploy.wait();
        let told = |what: &str| {
            format!("cut {cut}, {:.2} s into a deploy of {:.2} s: {what}", after.as_secs_f64(), whole.as_secs_f64())
        };

        await_that(&told("the app serves again by itself"), PATIENCE, || answer(&machine, 80).is_some());
        let served = answer(&machine, 80).unwrap();
        assert!(served == serving || served == version, "{}", told(&format!("{served} is served")));
        if served == version {
            new += 1
        } else {
            old += 1
        }
        await_that(&told("bootup has ended"), PATIENCE, || {
            machine.run("systemctl is-active --quiet cafeteria-bootup").code == 0
        });
        assert_eq!(
            answer(&machine, 80).as_deref(),
            Some(&served[..]),
            "{}",
            told("another release is served after bootup")
        );
        whole_releases(&machine, &told("releases are whole"));

        let again = tool(&machine, "deploy");
        assert_eq!(again.code, 0, "{}", told(&format!("{again:?}")));
        assert_eq!(answer(&machine, 80).as_deref(), Some(&version[..]), "{}", told("the next deploy"));
        let seen = status(&machine);
        assert!(
            seen["instances"].as_array().unwrap().iter().all(|one| one["health"] == "healthy"),
            "{}",
            told(&format!("{seen:#}"))
        );
        assert!(seen["change"].is_null(), "{}", told(&format!("{seen:#}")));
        serving = version;
    }
    println!(
        "    {cuts} power cuts in deploys of {:.1} s: {old} times the old release served after the boot, {new} times the new one",
        whole.as_secs_f64()
    );
    assert!(cuts < CUTS || old > 0 && new > 0, "all cuts fell on the same side of the cutover");
}

/// What looks like a release is one: every file that its commit has, with what that commit has in it.
fn whole_releases(machine: &Machine, told: &str) {
    let script = "cd .cafeteria/releases && for release in *; do \
        test ! -e .making-$release || continue; \
        GIT_DIR=$HOME/cafeteria-server/.git GIT_WORK_TREE=$release GIT_INDEX_FILE=/tmp/index-$$ sh -c \"git read-tree ${release#*-} && git update-index --refresh\" || exit 1; \
        done";
    let checked = machine.run_as(USER, script);
    assert_eq!(checked.code, 0, "{told}: {checked:?}");
}
