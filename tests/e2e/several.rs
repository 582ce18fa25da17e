//! Several processes and workers as units of systemd's: their limits, their lines in the journal, a boot, a replacement for
//! one that holds too much memory.

use std::fs;

use crate::machine::{Debian, Machine, await_that};
use crate::server::{
    NAME, PATIENCE, USER, comes_to_serve, commit, config, fresh, load, none_lost, serves, status, tool, unpack,
};

/// Holds 500 MB as soon as a file named after its port is there.
const HOG: &str = "(until [ -e ../../hog.$PORT ]; do sleep 0.2; done; \
                   { head -c 500000000 /dev/zero; sleep 1000; } | tail >/dev/null) & exec npm start -- --port=$PORT";

pub fn run(debian: Debian) {
    let mut machine = Machine::boot(debian, 8, &[]);
    let plain = config(&format!("[nginx]\nserver_name = \"{NAME}\""));
    let run = "stop_timeout = \"5s\"\nprocesses = 2\nmax_memory = \"400M\"\nopen_files = 4096\nnice = -5\n";
    let worker = "[[worker]]\nname = \"mail\"\ncommand = \"echo mailing as $WORKER_INDEX; exec sleep infinity\"\ncount = 2\nmax_memory = \"100M\"\n";
    let text = plain.replace("stop_timeout = \"5s\"\n", run).replace("npm start -- --port=$PORT", HOG);
    fresh(&machine, &format!("{text}{worker}"));
    unpack(&machine);
    let install = format!("cd cutover-*-linux && sudo ./install --config ~/cafeteria.toml --user {USER} --deploy");
    machine.run_as("admin", &install).ok();
    serves(&machine, "v1");
    let shown = |property: &str| machine.run(&format!("systemctl show --value -p {property} cafeteria@A.service")).ok();
    assert_eq!((shown("LimitNOFILE").trim(), shown("Nice").trim()), ("524288", "-5"));
    assert_eq!(limits(&machine), ("4096".to_owned(), "-5".to_owned()));
    assert_eq!(shown("MemoryMax").trim(), (2u64 * (3 * 400 + 2 * 100) * 1024 * 1024).to_string());

    let mailers = || machine.run("pgrep --count --exact --full 'sleep infinity'").stdout.trim().to_owned();
    assert_eq!((tool(&machine, "pid").ok().lines().count(), mailers().as_str()), (2, "2"));
    for index in 0..2 {
        let journal = format!("journalctl --output=cat --identifier=cafeteria@A.mail.{index}");
        await_that("its line is in the journal", PATIENCE, || {
            machine.run(&journal).stdout.contains(&format!("mailing as {index}\n"))
        });
    }
    let load = load(&machine);
    for version in ["v2", "v3", "v4"] {
        commit(&machine, version, "");
        tool(&machine, "deploy").ok();
        serves(&machine, version);
        assert_eq!((tool(&machine, "pid").ok().lines().count(), mailers().as_str()), (2, "2"));
    }
    // B has the traffic by now.
    let port = 20202;
    fs::write(machine.root().join(format!("home/{USER}/.cafeteria/hog.{port}")), "").unwrap();
    await_that("another process has taken over", PATIENCE, || {
        let ports = tool(&machine, "enabled-port").ok();
        ports.lines().count() == 2 && !ports.lines().any(|line| line == port.to_string())
    });
    await_that("the one that held too much is gone", PATIENCE, || {
        machine.run(&format!("ss --no-header --listening --tcp 'sport = {port}'")).stdout.is_empty()
    });
    machine.run_as(USER, "echo COLOUR=blue >>.cafeteria/env").ok();
    let reloaded = tool(&machine, "reload");
    assert!(reloaded.stderr.contains("environment: COLOUR added"), "{reloaded:?}");
    reloaded.ok();
    none_lost(load);

    fs::remove_file(machine.root().join(format!("home/{USER}/.cafeteria/hog.{port}"))).unwrap();
    machine.reboot();
    comes_to_serve(&machine, "v4");
    await_that("all is back", PATIENCE, || {
        let status = status(&machine);
        let instance =
            status["instances"].as_array().unwrap().iter().find(|one| one["proxy"] == "enabled").unwrap().clone();
        let up = |what: &str| instance[what].as_array().unwrap().iter().filter(|one| one["pid"].is_i64()).count();
        (up("processes"), up("workers")) == (2, 2)
    });
    assert_eq!(machine.run("pgrep --count --exact --full 'sleep infinity'").stdout.trim(), "2");

    // What a release is run by comes back with it, whatever install has laid since.
    for (version, open_files, nice) in [("v5", "16384", "5"), ("v6", "2048", "10")] {
        let text = text.replace("4096", open_files).replace("nice = -5", &format!("nice = {nice}"));
        fs::write(machine.root().join("home/admin/cafeteria.toml"), format!("{text}{worker}")).unwrap();
        machine.run_as("admin", &install.replace(" --deploy", "")).ok();
        commit(&machine, version, "");
        tool(&machine, "deploy").ok();
        serves(&machine, version);
        assert_eq!(limits(&machine), (open_files.to_owned(), nice.to_owned()));
    }
    tool(&machine, "disabled-instance | xargs stop-instance").ok();
    tool(&machine, "rollback").ok();
    serves(&machine, "v5");
    assert_eq!(limits(&machine), ("16384".to_owned(), "5".to_owned()));
}

/// How many files the first process of the app may open, and how nice it is.
fn limits(machine: &Machine) -> (String, String) {
    let pid = tool(machine, "pid").ok().lines().next().unwrap().to_owned();
    let said = |line: &str| machine.run(line).ok().trim().to_owned();
    (said(&format!("awk '/^Max open files/ {{ print $4 }}' /proc/{pid}/limits")), said(&format!("ps -o ni= -p {pid}")))
}
