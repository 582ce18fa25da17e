//! Other servers: a closed home and an nginx on another low port, from the Debian package; one without systemd's help; one
//! that builds cutover itself.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::machine::{Debian, Machine, await_that, host};
use crate::server::{
    NAME, PATIENCE, USER, answer, commit, config, fresh, load, load_of, made, none_lost, serves, tool, unpack,
};

/// A home that nobody else may look into, below a user id that is a system's, and nginx on port 81; from the package.
pub fn closed(debian: Debian) {
    let mut machine = Machine::boot(debian, 2, &[]);
    fresh(&machine, &config(&format!("[nginx]\nlisten = [\"81\"]\nserver_name = \"{NAME}\"")));
    machine.run(&format!("chmod 0700 /home/{USER}")).ok();
    fs::copy(made(".deb"), machine.root().join("home/admin/cutover.deb")).unwrap();
    machine.run("dpkg --install /home/admin/cutover.deb").ok();
    let whole = "cd / && md5sum --check --quiet --strict var/lib/dpkg/info/cutover.md5sums && cd usr/share/doc/cutover && \
                 test -s copyright && zcat changelog.gz";
    let changes = machine.run(whole).ok();
    assert!(changes.starts_with("cutover (") && changes.contains("\n -- "), "{changes}");
    machine.run_as("admin", "man --where cutover cutover-config cutover-deploy").ok();
    let installed = machine
        .run_as("admin", &format!("sudo /usr/lib/cutover/install --config cafeteria.toml --user {USER} --deploy"));
    assert!(installed.stderr.contains("deploy: A is enabled"), "{installed:?}");
    installed.ok();
    assert_eq!(answer(&machine, 81).as_deref(), Some("v1"));
    commit(&machine, "v2", "");
    tool(&machine, "deploy").ok();
    assert_eq!(answer(&machine, 81).as_deref(), Some("v2"));
    // Upgrading or removing the package leaves the app alone.
    let pid = tool(&machine, "pid").ok();
    machine.run("dpkg --install /home/admin/cutover.deb && dpkg --remove cutover").ok();
    assert_eq!(tool(&machine, "pid").ok(), pid);
    // Completion lies where the shells look, and knows options, instances and releases.
    machine.run("dpkg --install /home/admin/cutover.deb").ok();
    let directories = ["/etc/bash_completion.d", "/usr/share/zsh/vendor-completions", "/usr/share/fish/vendor_conf.d"];
    for (directory, name) in directories.iter().zip(["cutover", "_cutover", "cutover.fish"]) {
        machine.run(&format!("grep -q enabled-instance {directory}/{name}")).ok();
    }
    let complete = |words: &str| {
        let script = format!(
            "set -- {words}; . /dev/stdin; COMP_WORDS=(\"$@\"); _cutover \"$1\" \"${{@: -1}}\" \"${{@: -2:1}}\"; echo \"${{COMPREPLY[@]}}\""
        );
        let text = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/completions/cutover.bash")).unwrap();
        fs::write(machine.root().join("srv/completion"), text).unwrap();
        machine.run_as(USER, &format!("bash -c {} </srv/completion", shell_quoted(&script))).ok()
    };
    machine.run_as(USER, "git --git-dir .cafeteria/repo.git branch '$(touch${IFS}pwned)' main").ok();
    assert_eq!(complete("deploy --ref '$'"), "\\$\\(touch\\$\\{IFS\\}pwned\\)\n");
    machine.run(&format!("test ! -e /home/{USER}/pwned && test ! -e /pwned")).ok();
    assert_eq!(complete("start-instance ''"), "A B\n");
    assert_eq!(complete("deploy --d"), "--dry-run\n");
    assert_eq!(complete("rollback --to ''"), tool(&machine, "history --releases").ok());
    assert_eq!(complete("deploy --ref m"), "main\n");
    machine.reboot();
    await_that("it serves after a reboot", PATIENCE, || answer(&machine, 81).as_deref() == Some("v2"));
}

fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Begun without systemd, and moved to it without losing a request; not back while it runs.
pub fn moved(debian: Debian) {
    let machine = Machine::boot(debian, 6, &[]);
    let of_systemd = config(&format!("[nginx]\nserver_name = \"{NAME}\"\n[push]\nrepository = \"octo/shop\""));
    fresh(&machine, &format!("runner = \"direct\"\n{of_systemd}"));
    unpack(&machine);
    let install = |more: &str| {
        machine.run_as(
            "admin",
            &format!("cd cutover-*-linux && sudo ./install --config ~/cafeteria.toml --user {USER} {more}"),
        )
    };
    install("--deploy").ok();
    assert_eq!(machine.run("systemctl is-active cafeteria@A.service").stdout, "inactive\n");
    // nginx is reloaded, for the webhook's listener is another one from here on, and that closes connections which clients keep.
    let fresh = load_of(&machine, 0, 20);
    fs::write(machine.root().join("home/admin/cafeteria.toml"), &of_systemd).unwrap();
    install("").ok();
    let load = load(&machine);
    for version in ["v2", "v3"] {
        commit(&machine, version, "");
        tool(&machine, "deploy").ok();
        serves(&machine, version);
    }
    none_lost(fresh);
    none_lost(load);
    machine.run("systemctl is-active cafeteria@A.service cafeteria@B.service cafeteria-push.socket").ok();
    assert_eq!(machine.run("pgrep -x on-push").stdout, "", "systemd listens now");
    fs::write(machine.root().join("home/admin/cafeteria.toml"), format!("runner = \"direct\"\n{of_systemd}")).unwrap();
    let refused = install("");
    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(
        refused.stderr.contains("stop the instances first: cannot take the app from systemd: A runs"),
        "{refused:?}"
    );
    install("--force").ok();
    assert_eq!(machine.run("systemctl list-unit-files --no-legend 'cafeteria*'").stdout, "");
    machine.run("test ! -e /etc/sudoers.d/zz-cutover-cafeteria").ok();
    assert_eq!(machine.run("pgrep -x on-push | wc -l").stdout, "1\n");
    tool(&machine, "bootup").ok();
    serves(&machine, "v3");
    docker_comes_back(&machine);
}

/// bootup is run again whenever Docker was started again. No Docker runs within this machine, where /proc/sys cannot be
/// written: another unit has its name here.
fn docker_comes_back(machine: &Machine) {
    machine.run("printf '#!/bin/sh\\nexit 1\\n' >/usr/bin/docker && chmod 755 /usr/bin/docker").ok();
    let unit = "[Service]\nExecStart=/bin/sleep infinity\nRestart=always\nRestartSec=100ms\n";
    fs::write(machine.root().join("etc/systemd/system/docker.service"), unit).unwrap();
    let config = "app = \"dailry\"\n[instances]\nblue = 8081\ngreen = 8082\n[compose]\nimage = \"user/dailry\"\n\
                  image_variable = \"DAILRY_IMAGE\"\n[nginx]\nlisten = []\nstatus_port = 8079\n";
    fs::write(machine.root().join("home/admin/dailry.toml"), config).unwrap();
    let install = |more: &str| {
        machine.run_as(
            "admin",
            &format!("cd cutover-*-linux && sudo ./install --config ~/dailry.toml --user {USER} {more}"),
        )
    };
    let installed = install("");
    assert!(installed.stderr.contains("deploys will fail until this is mended: cannot find "), "{installed:?}");
    installed.ok();
    machine.run("test ! -e /etc/sudoers.d/zz-cutover-dailry && test ! -e /etc/systemd/system/dailry@.service").ok();
    let verified = machine.run("systemd-analyze verify dailry-bootup.service");
    assert_eq!((verified.code, verified.stderr.as_str()), (0, ""));
    assert_eq!(machine.run("systemctl is-enabled dailry-bootup.service").ok(), "enabled\n");

    machine.run("systemctl daemon-reload && systemctl start docker.service dailry-bootup.service").ok();
    let runs = || {
        let said = machine.run("journalctl --quiet --unit dailry-bootup.service --output cat").ok();
        said.matches("nothing is enabled").count()
    };
    await_that("bootup has run", PATIENCE, || runs() == 1);
    machine.run("systemctl kill --signal=KILL docker.service").ok();
    await_that("bootup has run again", PATIENCE, || runs() == 2);
    machine.run("systemctl restart docker.service").ok();
    await_that("bootup has run once more", PATIENCE, || runs() == 3);
    machine.run("systemctl stop docker.service && systemctl start docker.service").ok();
    await_that("bootup has run a fourth time", PATIENCE, || runs() == 4);

    // Docker may only be down: its containers would come back with it, and nobody would be there to end them.
    let refused = install("--remove --force");
    assert!(refused.code == 3 && refused.stderr.contains("install: cannot reach Docker"), "{refused:?}");
    machine.run("rm /usr/bin/docker").ok();
    let removed = install("--remove --force");
    assert!(removed.stderr.contains("left its containers alone: Docker is gone"), "{removed:?}");
    removed.ok();
    assert_eq!(machine.run("systemctl list-unit-files --no-legend 'dailry*'").stdout, "");
}

/// Without root: an nginx of the user's own, the direct runner, and cron for the boot.
pub fn by_cron(debian: Debian) {
    let mut machine = Machine::boot(debian, 3, &[]);
    fresh(&machine, &config("[nginx]\nown = true\nlisten = [\"8080\"]"));
    let tools = machine.root().join("home/potados/tools");
    fs::create_dir(&tools).unwrap();
    let built = Path::new(env!("CARGO_BIN_EXE_install")).parent().unwrap();
    for tool in cutover::layout::TOOLS {
        fs::copy(built.join(tool), tools.join(tool)).unwrap();
    }
    machine.run("cp /home/admin/cafeteria.toml /srv").ok();
    machine.run_as(USER, "tools/install --config /srv/cafeteria.toml --deploy").ok();
    assert_eq!(answer(&machine, 8080).as_deref(), Some("v1"));
    commit(&machine, "v2", "");
    tool(&machine, "deploy").ok();
    // The line of docs/install.md.
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/install.md")).unwrap();
    let line = page.lines().find_map(|line| line.strip_prefix("    @reboot ")).unwrap();
    machine.run_as(USER, &format!("echo '@reboot {line}' | crontab -")).ok();
    machine.reboot();
    await_that("it serves after a reboot", PATIENCE, || answer(&machine, 8080).as_deref() == Some("v2"));
    await_that("both instances are up", PATIENCE, || tool(&machine, "status").stdout.matches("  healthy").count() == 2);
    tool(&machine, "rollback").ok();
    assert_eq!(answer(&machine, 8080).as_deref(), Some("v1"));
}

/// From a clone: the same line as in docs/install.md, which then builds the tools on the machine itself.
pub fn from_a_clone(debian: Debian) {
    // The toolchain and the crates are the host's: nothing is downloaded here.
    let cargo_home =
        std::env::var("CARGO_HOME").unwrap_or_else(|_| format!("{}/.cargo", std::env::var("HOME").unwrap()));
    let sysroot = host("rustc", &["--print", "sysroot"]);
    let binds =
        [format!("--bind-ro={}:/opt/rust", sysroot.trim()), format!("--bind-ro={cargo_home}/registry:/opt/registry")];
    let machine = Machine::boot(debian, 4, &binds);
    fresh(&machine, &config(&format!("runner = \"systemd\"\n[nginx]\nserver_name = \"{NAME}\"")));
    let clone = machine.root().join("home/admin/cutover");
    fs::create_dir(&clone).unwrap();
    let listed = Command::new("git").current_dir(env!("CARGO_MANIFEST_DIR")).args(["ls-files", "-z"]).output().unwrap();
    for name in listed.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let name = Path::new(std::str::from_utf8(name).unwrap());
        let to = clone.join(name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join(name), to).unwrap();
    }
    machine.run("cd /home/admin && mkdir .cargo && ln -s /opt/rust/bin .cargo/bin && cp -r /opt/registry .cargo/ && printf '[net]\\noffline = true\\n' >.cargo/config.toml && chown -R admin: .").ok();
    let line = crate::server::lines_for_a_server()[1].clone();
    let installed = machine.run_as("admin", &format!("cd cutover && {line} --deploy"));
    assert!(installed.stderr.contains("deploy: A is enabled"), "{installed:?}");
    installed.ok();
    assert_eq!(answer(&machine, 80).as_deref(), Some("v1"));
    machine.run("find /home/admin ! -user admin | grep . && exit 1 || exit 0").ok();
}
