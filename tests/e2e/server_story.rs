//! A server's life: installed by docs/install.md, deployed to under load, used, restarted, upgraded, and cleaned.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::env_lines::PLAIN;
use crate::machine::{Debian, Machine, await_that};
use crate::server::{
    NAME, PATIENCE, USER, answer, comes_to_serve, commit, config, copy_archive, exposures_are_stated, fresh,
    lines_for_a_server, load, none_lost, serves, status, tool,
};

pub fn run(debian: Debian) {
    let mut machine = Machine::boot(debian, 1, &[]);
    fresh(&machine, &config(&format!("[nginx]\nserver_name = \"{NAME}\"")));
    let before = files(&machine, "");
    install(&machine);
    nothing_changes_the_second_time(&machine);
    what_sudo_takes_back_is_named(&machine);
    the_units_are_sound(&machine);
    deploys_under_load_lose_nothing(&machine);
    the_tools_are_the_same(&machine);
    the_app_keeps_to_what_is_its_own(&machine);
    what_a_browser_needs_is_opened_as_the_page_says(&machine);
    lines_of_an_env_file_are_read_as_systemd_reads_them(&machine);
    supervise_and_start_limits(&machine);
    broken_releases_change_nothing(&machine);
    crate::callers::run(&machine);
    reboots(&mut machine);
    removed(&machine, &before);
}

/// The archive is there, as if it had been copied; the rest is as docs/install.md says.
fn install(machine: &Machine) {
    copy_archive(machine);
    let lines = lines_for_a_server();
    assert_eq!(lines.len(), 3, "{lines:?}");
    let [unpack, install, deploy] = [&lines[0], &lines[1], &lines[2]];

    let before = files(machine, "");
    let dry = machine.run_as("admin", &format!("{unpack} && {install} --dry-run"));
    assert!(dry.stdout.contains("lay /etc/systemd/system/cafeteria@.service\n"), "{dry:?}");
    assert!(dry.stdout.contains("lay /etc/sudoers.d/zz-cutover-cafeteria, which lets"), "{dry:?}");
    dry.ok();
    same(&before, &files(machine, ""));

    // Nothing of it is there when something is amiss.
    let refused = machine.run_as("admin", &format!("{unpack} && sudo mv /usr/bin/git /usr/bin/git.away; {install}; code=$?; sudo mv /usr/bin/git.away /usr/bin/git; exit $code"));
    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(refused.stderr.contains("install: cannot find git"), "{refused:?}");
    // Somebody else's units are left alone.
    let theirs = "/etc/systemd/system/cafeteria@.service";
    machine.run(&format!("printf '[Service]\\nExecStart=/bin/true\\n' >{theirs}")).ok();
    let refused = machine.run_as("admin", &format!("{unpack} && {install}"));
    assert!(
        refused.stderr.contains(&format!("cannot lay {theirs}: one that is not of cutover's making")),
        "{refused:?}"
    );
    machine.run(&format!("rm {theirs}")).ok();
    let taken = format!(
        "{unpack} && sed 's/^app = .*/app = \"user\"/' ~/cafeteria.toml >~/user.toml && sudo ./install --config ~/user.toml --user potados"
    );
    let refused = machine.run_as("admin", &taken);
    assert!(
        refused.stderr.contains("lib/systemd/system/user@.service is one already; give the app another name"),
        "{refused:?}"
    );
    machine.run("mkdir -p /mnt/small && mount -t tmpfs -o size=50m none /mnt/small").ok();
    let refused = machine.run_as("admin", &format!("{unpack} && {install} --home /mnt/small/.cafeteria"));
    machine.run("umount /mnt/small && rmdir /mnt/small").ok();
    assert!(
        refused.stderr.contains("cannot install into /mnt/small/.cafeteria: 52.4 MB are free there"),
        "{refused:?}"
    );
    assert_eq!(refused.code, 3);
    machine.run("echo 'broken;' >/etc/nginx/conf.d/broken.conf").ok();
    let refused = machine.run_as("admin", &format!("{unpack} && {install}"));
    assert!(refused.stderr.contains("install: nginx refuses its present configuration"), "{refused:?}");
    machine.run("rm /etc/nginx/conf.d/broken.conf").ok();
    same(&before, &files(machine, ""));

    let installed = machine.run_as("admin", &format!("{unpack} && {install}"));
    assert!(installed.stderr.contains("install: cafeteria is laid out; next: "), "{installed:?}");
    installed.ok();
    let deployed = machine.run_as("admin", deploy);
    assert!(deployed.stderr.contains("deploy: A is enabled"), "{deployed:?}");
    deployed.ok();
    serves(machine, "v1");
}

/// Every file with its size, owner, mode and time. What runs by itself is left out, and what `but` names.
fn files(machine: &Machine, but: &str) -> BTreeSet<String> {
    let roots = "/etc /home /opt /root /srv /usr /var";
    let own = "-path /var/log -o -path /var/lib/systemd -o -path /var/cache -o -path /home/admin -o -path /var/tmp -o -path /var/lib/nginx -o -path '*/run/deploy.lock' -o -path '*/.profile'";
    let own = if but.is_empty() { own.to_owned() } else { format!("{own} {but}") };
    let listed = machine.run(&format!("find {roots} \\( {own} \\) -prune -o ! -type d -printf '%p %s %u %m %T@\\n' -o -type d -printf '%p %u %m\\n' | sort")).ok();
    listed.lines().map(str::to_owned).collect()
}

#[track_caller]
fn same(before: &BTreeSet<String>, now: &BTreeSet<String>) {
    let (gone, new): (Vec<_>, Vec<_>) = (before.difference(now).collect(), now.difference(before).collect());
    assert!(gone.is_empty() && new.is_empty(), "gone: {gone:#?}, new: {new:#?}");
}

fn nothing_changes_the_second_time(machine: &Machine) {
    let workers = "pgrep -u www-data nginx";
    let (before, nginx) = (files(machine, ""), machine.run(workers).ok());
    let again =
        machine.run_as("admin", "cd cutover-*-linux && sudo ./install --config ~/cafeteria.toml --user potados");
    assert_eq!(again.stderr, "install: nothing to do: cafeteria is laid out in /home/potados/.cafeteria\n");
    again.ok();
    same(&before, &files(machine, ""));
    assert_eq!(machine.run(workers).ok(), nginx, "nginx was reloaded");
}

/// install tries each order as potados, by the machine's own sudo and systemd.
fn what_sudo_takes_back_is_named(machine: &Machine) {
    let later = "/etc/sudoers.d/zzz-later";
    let cannot = "install: cannot let potados start and stop the instances: sudo does not run systemctl";
    for (rule, order) in [("!/usr/bin/systemctl", "start"), ("ALL", "reset-failed")] {
        machine.run(&format!("echo 'potados ALL=(ALL) {rule}' >{later} && chmod 440 {later}")).ok();
        let refused = machine.run("/home/potados/.cafeteria/bin/install --home /home/potados/.cafeteria");
        let told = format!("{cannot} {order} cafeteria@A.service without a password: ");
        assert!(refused.code == 3 && refused.stderr.starts_with(&told), "{refused:?}");
        machine.run(&format!("rm {later}")).ok();
    }
}

fn the_units_are_sound(machine: &Machine) {
    machine.run("visudo -c -q").ok();
    let verified = machine.run("systemd-analyze verify cafeteria@A.service cafeteria-bootup.service");
    assert_eq!((verified.code, verified.stderr.as_str()), (0, ""));
    let stated = exposures_are_stated(machine);
    let [instance, bootup] = ["cafeteria@A.service", "cafeteria-bootup.service"].map(|unit| &stated[unit]);
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/install.md")).unwrap();
    let said = format!("rates its exposure {instance}, and that of the units that run the tools {bootup}");
    assert!(page.replace('\n', " ").contains(&said), "docs/install.md does not say that systemd {said}");
    let shown =
        machine.run("systemctl show cafeteria@A.service -p ActiveState -p Type -p User -p KillMode -p NRestarts").ok();
    assert_eq!(
        shown,
        "Type=notify\nNRestarts=0\nUser=potados\nKillMode=mixed\nActiveState=active\n".to_owned(),
        "{shown}"
    );
    assert_eq!(machine.run("systemctl is-enabled cafeteria-bootup.service").ok(), "enabled\n");
    // What sudo lets the user do ends here.
    for words in [
        "systemctl stop nginx.service",
        "systemctl restart cafeteria@A.service",
        "systemctl start cafeteria@A.service nginx.service",
        "journalctl",
        "id",
    ] {
        let asked = machine.run_as(USER, &format!("sudo -n {words}"));
        assert_eq!(asked.code, 1, "{words}: {asked:?}");
    }
}

fn deploys_under_load_lose_nothing(machine: &Machine) {
    let load = load(machine);
    for version in ["v2", "v3"] {
        commit(machine, version, "");
        tool(machine, "deploy").ok();
        serves(machine, version);
    }
    tool(machine, "rollback").ok();
    serves(machine, "v2");
    tool(machine, "deploy").ok();
    let report = none_lost(load);
    println!("    two deploys, a rollback and a deploy under load from outside: {report}");
}

fn the_tools_are_the_same(machine: &Machine) {
    let enabled = tool(machine, "enabled-instance").ok().trim().to_owned();
    let standby = tool(machine, "disabled-instance").ok().trim().to_owned();
    let unit = format!("cafeteria@{enabled}.service");
    // The pid is one of the unit's, and the unit is no caller's.
    let pid = tool(machine, "pid").ok().trim().to_owned();
    let cgroup = machine.run(&format!("cat /proc/{pid}/cgroup")).ok();
    assert!(cgroup.contains(&unit), "{cgroup}");
    let seen = status(machine);
    assert!(seen["instances"].as_array().unwrap().iter().all(|one| one["health"] == "healthy"), "{seen:#}");

    // The standby ends and starts again.
    tool(machine, &format!("stop-instance {standby}")).ok();
    assert_eq!(tool(machine, &format!("pid {standby}")).code, 1);
    assert_eq!(machine.run(&format!("systemctl is-active cafeteria@{standby}.service")).stdout, "inactive\n");
    tool(machine, &format!("start-instance {standby}")).ok();
    assert_eq!(machine.run(&format!("systemctl is-active cafeteria@{standby}.service")).stdout, "active\n");
    // systemd's own way: started means healthy.
    machine.run(&format!("systemctl restart cafeteria@{standby}.service")).ok();
    tool(machine, &format!("pid {standby}")).ok();

    // What the app prints is in the journal, and logs shows it.
    let said = tool(machine, &format!("logs {enabled} -n 3")).ok();
    let journal = machine.run(&format!("journalctl --quiet --output=cat --lines=20 _SYSTEMD_UNIT={unit}")).ok();
    assert_eq!(said.lines().count(), 3);
    assert!(said.lines().all(|line| journal.lines().any(|written| written == line)), "{said} {journal}");
    let recent = tool(machine, &format!("logs {enabled} --since 1h -t")).ok();
    let is_recent = |line: &str| recent.lines().any(|dated| dated.ends_with(&format!("Z {line}")));
    assert!(said.lines().all(is_recent), "{said} {recent}");
    tool(machine, "logs --since 2100-01-01T00:00:00Z").is(0, "", "");
    let both = tool(machine, "logs").ok();
    assert!(both.contains(&format!("{enabled} | supervise: started ")), "{both}");
    let mut follow = machine.command_as(USER, &format!("timeout 20 .cafeteria/bin/logs -f -n 2 {standby} | sed -u 4q"));
    let mut follow = follow.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines().map(Result::unwrap);
    let before: Vec<String> = lines.by_ref().take(2).collect();
    tool(machine, &format!("stop-instance {standby}")).ok();
    tool(machine, &format!("start-instance {standby}")).ok();
    let after: Vec<String> = lines.collect();
    assert_eq!(
        after,
        [
            "supervise: stopped".to_owned(),
            format!("supervise: keeping cafeteria {standby} on port {}", port_of(machine, &standby))
        ],
        "{before:?}"
    );
    assert!(follow.wait().unwrap().success());
    await_that("journalctl ends with its reader", PATIENCE, || machine.run("pgrep journalctl").code == 1);
}

/// What somebody tries who has broken into the app, each line in a shell of its own; then what the app may do.
const TRIED: &str = r#"
touch HOME/bin/x
cp /bin/true HOME/bin/deploy
rm HOME/bin/deploy
mv HOME/bin HOME/bin.away
chmod 777 HOME/bin
touch HOME/hooks/before-build
rm -r HOME/hooks
mv HOME/hooks HOME/hooks.away
echo >>HOME/config.toml
mv HOME/config.toml HOME/config.away
rm HOME/config.toml
echo X=1 >>HOME/env
cat /dev/null >HOME/env
mkdir HOME/queue
touch HOME/queue/push
touch HOME/instances/x
ln -sfn /tmp HOME/instances/A
ln -sfn /tmp HOME/instances/B
rm HOME/instances/A
touch HOME/repo.git/hooks/x
echo >>HOME/repo.git/config
mkdir HOME/releases/20300101T000000Z-abc
touch HOME/instances/OTHER/x
rm HOME/instances/OTHER/server.js
mv HOME/releases HOME/releases.away
touch HOME/x
touch HOME/.cutover
mv HOME /home/potados/away
mv HOME/nginx HOME/nginx.away || mkdir HOME/nginx
chmod 777 HOME
echo >>/home/potados/.profile
rm /home/potados/.profile
mv /home/potados/.profile /home/potados/away
echo >>/home/potados/.bashrc
echo >>/var/lib/cutover/cafeteria.record
touch /var/lib/cutover/x
touch /etc/x
touch /usr/local/bin/x
touch /etc/nginx/conf.d/x.conf
mount -o remount,rw,bind HOME
mount --bind /tmp HOME
umount HOME
unshare --user --map-root-user --mount true
nsenter --target 1 --mount true
sudo -n systemctl reset-failed cafeteria@A.service
systemctl stop cafeteria@OTHER.service
echo '* * * * * true' | crontab -
test -w HOME/run/deploy.lock && touch HOME/run/x
touch HOME/logs/x
touch HOME/instances/$INSTANCE/x
touch /var/lib/cutover/cafeteria/x
touch /tmp/of-the-app
"#;
/// How many of them, from the last one on, are to be done.
const ALLOWED: usize = 5;

/// Has the app itself try, in its own unit, as it starts.
fn the_app_keeps_to_what_is_its_own(machine: &Machine) {
    let (enabled, standby) = (tool(machine, "enabled-instance").ok(), tool(machine, "disabled-instance").ok());
    let (enabled, standby) = (enabled.trim(), standby.trim());
    let home = format!("/home/{USER}/.cafeteria");
    let id = machine.run(&format!("basename $(readlink {home}/instances/{standby})")).ok();
    let release = machine.root().join(format!("home/{USER}/.cafeteria/releases/{}", id.trim()));
    let lines: Vec<String> =
        TRIED.trim().lines().map(|line| line.replace("HOME", &home).replace("OTHER", enabled)).collect();
    fs::write(release.join("tried"), lines.join("\n") + "\n").unwrap();
    let script = "while read -r line; do sh -c \"$line\" </dev/null >/dev/null 2>&1 && printf '%s\\n' \"$line\" >>done; done <tried\necho >>done\n";
    fs::write(release.join("try.sh"), script).unwrap();
    let package = fs::read_to_string(release.join("package.json")).unwrap();
    fs::write(release.join("package.json"), package.replace("node server.js", "sh try.sh; exec node server.js"))
        .unwrap();
    let but =
        "-o -path /home/potados/.cafeteria/run -o -path /home/potados/.cafeteria/logs -o -path /home/potados/.npm";
    let before = files(machine, but);
    tool(machine, &format!("stop-instance {standby}")).ok();
    tool(machine, &format!("start-instance {standby}")).ok();
    let done = fs::read_to_string(release.join("done")).unwrap();
    assert_eq!(done.trim().lines().collect::<Vec<_>>(), lines[lines.len() - ALLOWED..]);
    machine.run(&format!("cd {home} && rm run/x logs/x instances/{standby}/x /var/lib/cutover/cafeteria/x /tmp/of-the-app instances/{standby}/done")).ok();
    // Nothing else has changed either.
    same(&before, &files(machine, but));
    // Who logs in may do all of that.
    for line in lines.iter().filter(|line| line.starts_with("touch ") && line.contains(&home)) {
        let path = line.rsplit(' ').next().unwrap();
        let is_there = machine.run(&format!("test -e {path}")).code == 0;
        let parent = machine.run(&format!("test -d $(dirname {path})")).code == 0;
        if parent && !is_there {
            machine.run_as(USER, &format!("touch {path} && rm {path}")).ok();
        }
    }
    fs::write(release.join("package.json"), package).unwrap();
    machine.run(&format!("cd {home}/instances/{standby} && rm tried try.sh && chown {USER}: package.json")).ok();
    tool(machine, &format!("stop-instance {standby}")).ok();
    tool(machine, &format!("start-instance {standby}")).ok();
}

/// Has the sandbox of Chromium, so far as it is refused, tried by the app with the lines of docs/apps.md and without them.
fn what_a_browser_needs_is_opened_as_the_page_says(machine: &Machine) {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/apps.md")).unwrap();
    let blocks = page.split("```ini\n").skip(1).filter_map(|rest| rest.split("```").next());
    let lines = blocks.filter(|block| block.starts_with("[Service]\n")).collect::<Vec<_>>();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let standby = tool(machine, "disabled-instance").ok();
    let standby = standby.trim();
    let release = format!("/home/{USER}/.cafeteria/instances/{standby}");
    let kept = machine.run(&format!("cat {release}/package.json")).ok();
    let tried = "unshare --user --map-root-user chroot / true; echo $? >tried; exec node server.js";
    machine.run(&format!("cd {release} && sed -i 's|node server.js|{tried}|' package.json")).ok();
    let code = || {
        tool(machine, &format!("stop-instance {standby}")).ok();
        tool(machine, &format!("start-instance {standby}")).ok();
        machine.run(&format!("cat {release}/tried")).ok().trim().parse::<u8>().unwrap()
    };
    assert_ne!(code(), 0, "the unit refuses nothing");
    let place = "/etc/systemd/system/cafeteria@.service.d";
    machine
        .run(&format!("mkdir {place} && printf '%s' '{}' >{place}/override.conf && systemctl daemon-reload", lines[0]))
        .ok();
    assert_eq!(code(), 0);
    machine.run(&format!("rm -r {place} {release}/tried && systemctl daemon-reload")).ok();
    fs::write(machine.root().join("srv/package.json"), kept).unwrap();
    machine.run(&format!("cat /srv/package.json >{release}/package.json && rm /srv/package.json")).ok();
    tool(machine, &format!("stop-instance {standby}")).ok();
    tool(machine, &format!("start-instance {standby}")).ok();
}

/// Has systemd read each line that is taken: nobody is to find another value in its EnvironmentFile.
fn lines_of_an_env_file_are_read_as_systemd_reads_them(machine: &Machine) {
    // To systemd that is another variable, which it does not take.
    for (line, value) in PLAIN.iter().filter(|(line, _)| !line.starts_with("export ")) {
        fs::write(machine.root().join("srv/lines"), format!("# before\n\n{line}\nAFTER=1\n")).unwrap();
        let read = machine.run("systemd-run --quiet --pipe --wait -p EnvironmentFile=/srv/lines env").ok();
        assert!(read.contains(&format!("A={value}\n")) && read.contains("AFTER=1\n"), "{line}: {read}");
    }
    machine.run("rm /srv/lines").ok();
}

/// What supervise takes under systemd, for the record.
fn tell_memory(machine: &Machine, unit: &str) {
    let main = machine.run(&format!("systemctl show --property=MainPID --value {unit}")).ok();
    let status = machine.run(&format!("grep -E '^(VmRSS|RssAnon)' /proc/{}/status", main.trim())).ok();
    println!("    supervise: {}", status.split_whitespace().collect::<Vec<_>>().join(" "));
}

fn port_of(machine: &Machine, instance: &str) -> u64 {
    let seen = status(machine);
    let found = seen["instances"].as_array().unwrap().iter().find(|one| one["name"] == instance).cloned();
    found.unwrap()["port"].as_u64().unwrap()
}

fn restarts(machine: &Machine, instance: &str) -> u64 {
    let seen = status(machine);
    let found = seen["instances"].as_array().unwrap().iter().find(|one| one["name"] == instance).cloned();
    found.unwrap()["restarts"].as_u64().unwrap_or(0)
}

fn supervise_and_start_limits(machine: &Machine) {
    let enabled = tool(machine, "enabled-instance").ok().trim().to_owned();
    let unit = format!("cafeteria@{enabled}.service");
    // The app dies: supervise starts it again, and tells.
    machine.run("kill -9 $(runuser -l potados -c '.cafeteria/bin/pid')").ok();
    await_that("supervise has restarted the app", PATIENCE, || restarts(machine, &enabled) == 1);
    await_that("it is healthy", PATIENCE, || tool(machine, "pid").code == 0);
    tell_memory(machine, &unit);
    // supervise dies, and all of the app with it: systemd starts it again, however often.
    let main = format!("systemctl show --property=MainPID --value {unit}");
    for _ in 0..7 {
        let before = machine.run(&main).ok();
        machine.run(&format!("kill -9 {}", before.trim())).ok();
        await_that("systemd starts supervise again", PATIENCE, || {
            let now = machine.run(&main).ok();
            now != before && now.trim() != "0"
        });
    }
    await_that("it is healthy", PATIENCE, || tool(machine, "status").stdout.matches("  healthy").count() == 2);
    // An admin sets a limit, and it is hit: start-instance starts it all the same.
    let dropin = format!("/etc/systemd/system/{unit}.d");
    machine.run(&format!("mkdir {dropin} && printf '[Unit]\\nStartLimitIntervalSec=600\\nStartLimitBurst=2\\n' >{dropin}/limit.conf && systemctl daemon-reload")).ok();
    let mut killed = 0;
    await_that("the start limit is hit", PATIENCE, || {
        let pid = machine.run(&main).ok();
        if pid.trim() != "0" {
            machine.run(&format!("kill -9 {}", pid.trim()));
            killed += 1;
        }
        machine.run(&format!("systemctl is-failed {unit}")).code == 0
    });
    assert_ne!(machine.run(&format!("systemctl start {unit}")).code, 0, "the limit does not hold");
    // The standby answers meanwhile.
    serves(machine, "v2");
    tool(machine, "start-instance").ok();
    serves(machine, "v3");
    machine.run(&format!("rm -r {dropin} && systemctl daemon-reload")).ok();
    tool(machine, "pid").ok();
}

fn broken_releases_change_nothing(machine: &Machine) {
    commit(machine, "v4", "exit");
    let failed = tool(machine, "deploy");
    assert_eq!(failed.code, 3, "{failed:?}");
    assert!(failed.stderr.contains("cannot open database: connection refused"), "{failed:?}");
    serves(machine, "v3");
    let seen = status(machine);
    assert!(seen["instances"].as_array().unwrap().iter().all(|one| one["health"] == "healthy"), "{seen:#}");
    // One that never answers: timed out, and systemd does not go on with it.
    commit(machine, "v4b", "hang");
    let failed = tool(machine, "deploy");
    assert_eq!(failed.code, 124, "{failed:?}");
    assert!(failed.stderr.contains("not healthy within 30."), "{failed:?}");
    let seen = status(machine);
    assert!(seen["instances"].as_array().unwrap().iter().all(|one| one["health"] == "healthy"), "{seen:#}");
    serves(machine, "v3");
    a_busy_journal_is_waited_for(machine);
    commit(machine, "v5", "");
}

/// As at boot, when all begin at once: what the app said as it died comes into the journal seconds later.
fn a_busy_journal_is_waited_for(machine: &Machine) {
    let standby = tool(machine, "disabled-instance").ok().trim().to_owned();
    let behaviour = format!("/home/{USER}/.cafeteria/instances/{standby}/BEHAVIOUR");
    tool(machine, &format!("stop-instance {standby}")).ok();
    machine.run(&format!("echo exit >{behaviour}")).ok();
    let journald = machine.run("systemctl show --property=MainPID --value systemd-journald.service").ok();
    let journald = journald.trim();
    machine.run(&format!("kill -STOP {journald}; (sleep 5; kill -CONT {journald}) >/dev/null 2>&1 &")).ok();
    // As root: sudo would wait for the journal before it starts anything.
    let failed = machine.run(&format!("/home/{USER}/.cafeteria/bin/start-instance {standby}"));
    assert_eq!(failed.code, 3, "{failed:?}");
    assert!(failed.stderr.contains("cannot open database: connection refused"), "{failed:?}");
    machine.run(&format!("echo >{behaviour}")).ok();
    tool(machine, &format!("start-instance {standby}")).ok();
}

fn reboots(machine: &mut Machine) {
    machine.reboot();
    comes_to_serve(machine, "v5");
    await_that("both instances are up", PATIENCE, || tool(machine, "status").stdout.matches("  healthy").count() == 2);
    let bootup = machine.run("systemctl show --property=ActiveState --property=SubState cafeteria-bootup.service").ok();
    assert_eq!(bootup, "ActiveState=active\nSubState=exited\n");

    // What was enabled does not start any more: the standby takes its place, and it is said aloud.
    let (enabled, standby) = (tool(machine, "enabled-instance").ok(), tool(machine, "disabled-instance").ok());
    let (enabled, standby) = (enabled.trim(), standby.trim());
    machine.run(&format!("echo exit >/home/{USER}/.cafeteria/instances/{enabled}/BEHAVIOUR")).ok();
    machine.reboot();
    await_that("the standby serves", PATIENCE, || answer(machine, 80).is_some());
    await_that("bootup is done", PATIENCE, || machine.run("systemctl is-active cafeteria-bootup.service").code == 0);
    assert_eq!(tool(machine, "enabled-instance").ok().trim(), standby);
    let said = machine.run("journalctl --quiet --boot --output=cat --unit=cafeteria-bootup.service").ok();
    assert!(said.contains(&format!("falling back to the standby {standby}")), "{said}");
    assert!(said.contains("cannot open database: connection refused"), "{said}");
    machine.run(&format!("echo >/home/{USER}/.cafeteria/instances/{enabled}/BEHAVIOUR")).ok();

    // Neither starts at first: bootup goes on trying.
    for instance in [enabled, standby] {
        machine.run(&format!("echo exit >/home/{USER}/.cafeteria/instances/{instance}/BEHAVIOUR")).ok();
    }
    machine.reboot();
    await_that("bootup has failed once", PATIENCE, || {
        machine.run("systemctl show --property=NRestarts --value cafeteria-bootup.service").stdout != "0\n"
            || machine
                .run("journalctl --quiet --boot --output=cat --unit=cafeteria-bootup.service")
                .stdout
                .contains("bootup: cannot start")
    });
    for instance in [enabled, standby] {
        machine.run(&format!("echo >/home/{USER}/.cafeteria/instances/{instance}/BEHAVIOUR")).ok();
    }
    await_that("the app serves in the end", 2 * PATIENCE, || answer(machine, 80).is_some());
    await_that("bootup is done", PATIENCE, || machine.run("systemctl is-active cafeteria-bootup.service").code == 0);
}

fn removed(machine: &Machine, before: &BTreeSet<String>) {
    let upgraded = machine.run_as("admin", "cd cutover-*-linux && sudo ./install --home /home/potados/.cafeteria");
    assert!(upgraded.stderr.contains("nothing to do"), "{upgraded:?}");
    let refused =
        machine.run_as("admin", "cd cutover-*-linux && sudo ./install --home /home/potados/.cafeteria --remove");
    assert_eq!(refused.code, 3, "{refused:?}");
    machine
        .run_as("admin", "cd cutover-*-linux && sudo ./install --home /home/potados/.cafeteria --remove --force")
        .ok();
    machine.run(&format!("cmp /etc/skel/.profile /home/{USER}/.profile")).ok();
    // The default site has its port again.
    assert!(answer(machine, 80).unwrap().contains("Welcome to nginx"));
    assert_eq!(machine.run(&format!("pgrep -u {USER}")).code, 1, "processes are left");
    assert_eq!(machine.run("systemctl list-units --all --plain --no-legend 'cafeteria*'").ok(), "");
    // What is left is the user's.
    let left = files(
        machine,
        "-o -path /home/potados/.cafeteria -o -path /home/potados/cafeteria-server -o -path /home/potados/.npm",
    );
    let kept = before.iter().filter(|line| !line.contains("/home/potados/cafeteria-server")).cloned().collect();
    same(&kept, &left);
    let home = machine.run(&format!("ls /home/{USER}/.cafeteria")).ok();
    assert_eq!(
        home.split_whitespace().collect::<Vec<_>>(),
        ["config.toml", "env", "hooks", "instances", "logs", "releases", "repo.git"]
    );
    // And with --purge not even that: laid out once more, and taken away whole.
    machine
        .run_as("admin", "cd cutover-*-linux && sudo ./install --config ~/cafeteria.toml --user potados --deploy")
        .ok();
    serves(machine, "v5");
    machine
        .run_as(
            "admin",
            "cd cutover-*-linux && sudo ./install --home /home/potados/.cafeteria --remove --purge --force",
        )
        .ok();
    assert_eq!(machine.run(&format!("ls /home/{USER}/.cafeteria")).code, 2);
    machine.run("test ! -e /var/lib/cutover/cafeteria").ok();
}
