//! What an attack from outside has found: each a class of fault, tried at the places where it was.

use std::fs;
use std::process::Command;

use crate::server::{CONFIG, Server};
use crate::site::{BRISK, Sample, Site, eventually};

const HOME: &str = "/home/potados/.cafeteria";

/// A server on which the app is installed and deployed for potados.
fn deployed() -> Option<Server> {
    let server = Server::boot()?;
    server.install("").ok();
    server.run(&format!("{HOME}/bin/deploy")).ok();
    Some(server)
}

#[test]
fn options_that_contradict_each_other_do_nothing() {
    let Some(server) = deployed() else { return };
    for more in ["--dry-run", "--deploy", "--from-pm2 /tmp/x.js"] {
        let both = server.run(&format!("$TOOLS/install --home {HOME} --remove --force {more}"));
        both.fails(2, &["cannot be used with"]);
    }
    assert_eq!(server.served(), "v1\n");
}

#[test]
fn a_lock_that_no_tool_holds_is_told_as_such() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("deploy", &[]).ok();
    let hold = "import fcntl, os, struct, sys, time\n\
        file = os.open(sys.argv[1], os.O_RDWR)\n\
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack('hhqqi', fcntl.F_WRLCK, 0, 0, 0, 0))\n\
        print(flush=True)\ntime.sleep(60)\n";
    let lock = site.home.join("run/deploy.lock");
    let mut holder =
        Command::new("python3").args(["-c", hold]).arg(&lock).stdout(std::process::Stdio::piped()).spawn().unwrap();
    std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    let why = format!("cannot begin: a program that is none of ours (lsof {} names it) holds the lock", lock.display());
    site.run("deploy", &[]).fails(75, &[&why]);
    holder.kill().and_then(|()| holder.wait()).unwrap();
    site.run("deploy", &[]).ok();
}

#[test]
fn git_runs_no_hook_of_the_user_s_configuration_and_gets_half_of_the_memory() {
    let Some(server) = deployed() else { return };
    let hook = "mkdir /tmp/h; printf '#!/bin/sh\\nid >/tmp/ran\\n' >/tmp/h/reference-transaction; chmod 755 /tmp/h /tmp/h/*; rm -f /tmp/ran";
    let user = |line: &str| server.run(&format!("runuser -u potados -- sh -c \"$(cat <<'END'\n{line}\nEND\n)\""));
    server.run(hook).ok();
    user("git config --global core.hooksPath /tmp/h; git config --global core.fsmonitor 'id >/tmp/ran'").ok();
    server.run("runuser -u potados -- git -C /home/source -c core.hooksPath= -c user.name=p -c user.email=p@example.org commit --quiet --allow-empty -m v2; rm -f /tmp/ran").ok();
    server.run(&format!("{HOME}/bin/deploy")).ok();
    server.run("ls /tmp/ran").fails(2, &[]);

    user("git config --global core.sshCommand \"sh -c 'ulimit -d >/tmp/limit; exit 1' --\"").ok();
    server
        .run(&format!("sed -i 's|git = .*|git = \"git@example.org:x.git\"|' {HOME}/config.toml; rm -f /tmp/limit"))
        .ok();
    assert_eq!(server.run(&format!("{HOME}/bin/deploy")).code, 3);
    let limit: u64 = server.run("cat /tmp/limit").ok().trim().parse().expect("a number of KiB");
    let half: u64 = server.run("awk '/MemTotal/ {print int($2 / 2)}' /proc/meminfo").ok().trim().parse().unwrap();
    assert_eq!(limit, half);
    server.run("rm -rf /tmp/h /tmp/limit /tmp/ran").ok();
}

#[test]
fn what_the_user_lays_into_the_state_decides_nothing_of_root_s() {
    let Some(server) = deployed() else { return };
    let before = server.run("cat /etc/nginx/conf.d/cafeteria.conf").ok();
    let state = "/var/lib/cutover/cafeteria";
    for lay in [
        format!("touch {state}/A/64.processes {state}/B/9.without.3"),
        format!("for i in $(seq 2 64); do for j in $(seq 0 $((i - 1))); do touch {state}/A/$i.without.$j; done; done"),
        format!("mv {state}/A /tmp/A && ln -s /etc {state}/A"),
    ] {
        server.run(&format!("runuser -u potados -- sh -c '{lay}'")).ok();
        let again = server.run(&format!("$TOOLS/install --home {HOME}"));
        assert!([0, 3].contains(&again.code), "{again:?}");
        assert_eq!(server.run("cat /etc/nginx/conf.d/cafeteria.conf").ok(), before);
    }
    server.run("rm -rf /tmp/A").ok();
}

#[test]
fn root_stays_root_in_no_home_in_which_others_have_a_say() {
    let Some(server) = Server::boot() else { return };
    let config = CONFIG.replace("[run]", "[build]\ncommand = \"id >/tmp/proof\"\n[run]");
    let home = "/var/lib/cutover/root-home";
    for (harm, mend) in [
        (format!("chmod 777 {home}/hooks"), format!("chmod 750 {home}/hooks")),
        (
            format!(
                "echo 'id >/tmp/proof' >{home}/hooks/before-build; chmod 755 {home}/hooks/before-build; chown mallory {home}/hooks/before-build"
            ),
            format!("rm {home}/hooks/before-build"),
        ),
        (format!("chown mallory {home}/config.toml"), format!("chown root {home}/config.toml")),
        (format!("chmod 666 {home}/config.toml"), format!("chmod 600 {home}/config.toml")),
        (format!("chown mallory {home}/releases"), format!("chown root {home}/releases")),
        (format!("chown mallory {home}/env"), format!("chown root {home}/env")),
    ] {
        server.run(&format!("mkdir -p {home}/hooks {home}/releases; touch {home}/env; chmod -R go-w {home}")).ok();
        fs::write(server.path(&format!("{home}/config.toml")), &config).unwrap();
        server.run(&harm).ok();
        let refused = server.run(&format!("$TOOLS/update-instance --home {home}"));
        refused.fails(2, &[&format!("cannot use {home} as root"), "others can change"]);
        server.run(&mend).ok();
    }
    server.run("ls /tmp/proof").fails(2, &[]);
}

#[test]
fn a_tag_that_is_no_commit_is_passed_over() {
    let site = Site::new(Sample::Static, BRISK);
    let commit = site.commit("first", "");
    site.git(&["tag", "v1.0.0"]);
    site.git(&["tag", "--annotate", "--message", "x", "v1.1.0"]);
    site.git(&["tag", "--annotate", "--message", "a tag of a tag", "v1.2.0", "v1.1.0"]);
    site.git(&["tag", "v9.0.0", "HEAD:VERSION"]);
    site.git(&["tag", "v9.1.0", "HEAD^{tree}"]);
    site.git(&["tag", "--annotate", "--message", "a key", "v9.2.0", "HEAD:VERSION"]);
    let made = site.run("update-instance", &["--ref", "latest-tag"]).ok();
    assert_eq!(made.trim().rsplit('-').next(), Some(&commit[..12]));
}

#[test]
fn a_mirror_with_something_else_than_files_in_it_is_made_anew() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("deploy", &[]).ok();
    let mirror = site.home.join("repo.git").display().to_string();
    for harm in [
        format!("mkfifo {mirror}/FETCH_HEAD"),
        format!("rm {mirror}/HEAD; mkfifo {mirror}/HEAD"),
        format!("rm -r {mirror}/refs/heads; mkdir {mirror}/refs/heads; mkfifo {mirror}/refs/heads/main"),
        format!("mkfifo {mirror}/packed-refs.fifo; ln -sf packed-refs.fifo {mirror}/packed-refs"),
        format!("mkfifo {mirror}/objects/pack/pack-0123456789012345678901234567890123456789.idx"),
        format!("rm {mirror}/config; mkfifo {mirror}/config"),
        format!("rm -r {mirror}; mkfifo {mirror}"),
    ] {
        site.shell(&format!("rm -f {mirror}/FETCH_HEAD; {harm}")).ok();
        let version = site.commit(&harm.len().to_string(), "");
        site.run("deploy", &[]).ok();
        assert_eq!(site.get("/").1, format!("{}\n", harm.len()), "{version} after {harm}");
    }
}

/// Has mallory listen on an address of that server for a while.
fn mallory_listens(server: &Server, address: &str, port: u16) {
    let family = if address.contains(':') { "AF_INET6" } else { "AF_INET" };
    let script = format!(
        "import socket, time; s = socket.create_server((\"{address}\", {port}), family=socket.{family}); \
         open(\"/home/mallory/listens\", \"w\"); time.sleep(60)"
    );
    let line =
        format!("rm -f /home/mallory/listens; setsid runuser -u mallory -- python3 -c '{script}' >/dev/null 2>&1 &");
    server.run(&line).ok();
    eventually("mallory listens", || server.path("/home/mallory/listens").exists());
}

/// Ends that again.
fn mallory_ends(server: &Server) {
    server.run("pkill -u mallory; while pgrep -u mallory; do sleep 0.05; done").stdout.clear();
}

#[test]
fn a_listener_on_another_address_is_nobody_s_business() {
    let Some(server) = deployed() else { return };
    for address in ["127.0.0.2", "127.1.2.3", "::1"] {
        mallory_listens(&server, address, 20201);
        let status = server.run(&format!("{HOME}/bin/status --json")).ok();
        mallory_ends(&server);
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        assert_eq!(status["instances"][0]["healthy"], true, "{address}: {status}");
    }
}

#[test]
fn tools_whose_locks_are_removed_stop_no_deploy() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("deploy", &[]).ok();
    for version in ["v2", "v3", "v4"] {
        site.shell(&format!("rm {}/run/*.lock", site.home.display())).ok();
        site.commit(version, "");
        site.run("deploy", &[]).ok();
        assert_eq!(site.get("/").1, format!("{version}\n"));
    }
}

#[test]
fn a_login_file_that_is_no_file_is_refused_before_anything_is_laid() {
    let Some(server) = Server::boot() else { return };
    for lay in ["mkfifo", "ln -s /dev/zero", "truncate -s 60G", "mkdir"] {
        server.run(&format!("rm -rf /home/potados/.profile; runuser -u potados -- {lay} /home/potados/.profile")).ok();
        server
            .run("timeout 20 $TOOLS/install --config $CONFIG --user potados")
            .fails(3, &["cannot read /home/potados/.profile: "]);
        server.run("ls -A /home/potados /etc/nginx/conf.d").is(
            0,
            "/etc/nginx/conf.d:\n\n/home/potados:\n.profile\n",
            "",
        );
    }
}

#[test]
fn root_removes_an_app_whatever_its_user_has_done_to_its_configuration() {
    for harm in [
        "rm HOME/config.toml",
        "echo '[[[' >HOME/config.toml",
        "rm HOME/config.toml; mkfifo HOME/config.toml",
        "mv HOME /home/potados/away",
        "rm -r HOME/bin HOME/run HOME/instances",
    ] {
        let Some(server) = deployed() else { return };
        server.run(&format!("runuser -u potados -- sh -c '{}'", harm.replace("HOME", HOME))).ok();
        server.run(&format!("timeout 60 $TOOLS/install --home {HOME} --remove --force")).ok();
        server.run("ls /etc/nginx/conf.d /var/lib/cutover 2>/dev/null").is(
            0,
            "/etc/nginx/conf.d:\n\n/var/lib/cutover:\n",
            "",
        );
    }
}

#[test]
fn a_record_of_somebody_who_is_another_now_is_refused() {
    let Some(server) = deployed() else { return };
    let record = "/var/lib/cutover/cafeteria.record";
    for (harm, why) in [
        ("s/^potados:/someone:/", "it is of potados with uid 15000, and there is no such user"),
        ("s/^potados:x:15000:/potados:x:15009:/", "it is of potados with uid 15000, and that user has uid 15009"),
    ] {
        server.run(&format!("cp /etc/passwd /run/passwd; sed '{harm}' /run/passwd >/etc/passwd")).ok();
        for tool in ["status", "install", "deploy"] {
            let refused = server.run(&format!("$TOOLS/{tool} --home {HOME}"));
            refused.fails(2, &[&format!("cannot use {record}: {why}")]);
        }
        server.run("cat /run/passwd >/etc/passwd").ok();
    }
    server.run(&format!("$TOOLS/install --home {HOME}")).ok();
}

#[test]
fn nobody_else_gets_the_port_by_which_processes_are_replaced() {
    let site = Site::roomy(Sample::Static, &format!("{BRISK}[run]\ncommand = \"exec ./app\"\nmax_memory = \"100M\"\n"));
    site.run("deploy", &[]).ok();
    let spare = site.ports.first + 10;
    let refused = std::net::TcpListener::bind(("127.0.0.1", spare)).map(drop).map_err(|error| error.kind());
    assert_eq!(refused, Err(std::io::ErrorKind::AddrInUse));
    let called = std::net::TcpStream::connect(("127.0.0.1", spare)).map(drop).map_err(|error| error.kind());
    assert_eq!(called, Err(std::io::ErrorKind::ConnectionRefused));
    site.run("stop-instance", &["--force"]).ok();
    assert!(std::net::TcpListener::bind(("127.0.0.1", spare)).is_ok());
}

#[test]
fn a_stranger_on_the_port_by_which_processes_are_replaced_makes_no_instance_healthy() {
    let Some(server) = Server::boot() else { return };
    fs::write(server.config(), CONFIG.replace("[run]", "[run]\nmax_memory = \"100M\"")).unwrap();
    server.install("").ok();
    mallory_listens(&server, "127.0.0.1", 20211);
    let short = format!("sed -i 's/^.deploy.$/[health]\\ntimeout = \"2s\"\\n[deploy]/' {HOME}/config.toml");
    server.run(&short).ok();
    let failed = server.run(&format!("{HOME}/bin/deploy"));
    failed.fails(124, &["port 20211 is held by a process of user mallory, not by cafeteria"]);
    mallory_ends(&server);
    server.run(&format!("{HOME}/bin/deploy")).ok();
}

#[test]
fn somebody_who_answers_in_nginx_s_place_confirms_nothing() {
    let Some(server) = deployed() else { return };
    server
        .run("nginx -s stop; while curl --silent http://127.0.0.1:20200/ >/dev/null; do sleep 0.05; done")
        .stdout
        .clear();
    mallory_listens(&server, "127.0.0.1", 20200);
    let why = "a process of user mallory answers on nginx's status port 127.0.0.1:20200: end it, and start nginx";
    let status = server.run(&format!("{HOME}/bin/status"));
    assert!(status.stdout.contains(why), "{status:?}");
    for tool in ["connect-to-nginx A", "rollback --to $(readlink /home/potados/.cafeteria/instances/A | cut -d/ -f3)"] {
        let ran = server.run(&format!("timeout 30 {HOME}/bin/{tool}"));
        let is_told = ran.stderr.contains(if tool.starts_with("rollback") {
            "nothing is to be done, but clients of"
        } else {
            why
        });
        assert!(ran.code != 0 && is_told, "{ran:?}");
    }
    mallory_ends(&server);
}

#[test]
fn a_home_is_named_without_turning_back() {
    let Some(server) = Server::boot() else { return };
    for home in ["/home/potados/../potados/.x", "/home/potados/.x/.."] {
        for tool in ["install --config $CONFIG --user potados", "status"] {
            let refused = server.run(&format!("$TOOLS/{tool} --home {home}"));
            assert_eq!(refused.code, 2, "{refused:?}");
        }
        server.run("ls -A /home/potados").is(0, "", "");
    }
}

#[test]
fn logs_hold_no_more_of_a_build_than_fits_into_memory() {
    let site = Site::new(
        Sample::Static,
        &format!("{BRISK}[build]\ncommand = \"head -c 300000000 /dev/zero | tr '\\\\0' A\"\n"),
    );
    site.run("update-instance", &[]).ok();
    let peak = |arguments: &str| -> u64 {
        let script = format!(
            "import resource, subprocess, sys; subprocess.run(['{}/bin/logs'] + '{arguments}'.split(), \
            stdout=subprocess.DEVNULL); print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)",
            site.home.display()
        );
        site.shell(&format!("python3 -c \"{script}\"")).ok().trim().parse().unwrap()
    };
    assert!(peak("--build") < 300_000, "{} kB", peak("--build"));
    assert!(peak("--build -n 2") < 30_000, "{} kB", peak("--build -n 2"));
    site.shell(&format!("truncate -s 20G {}/logs/deploy.log", site.home.display())).ok();
    for arguments in ["--deploys -n 5", "--deploys --since 10m"] {
        assert!(peak(arguments) < 300_000, "{} kB", peak(arguments));
    }
}

#[test]
fn a_directory_of_the_home_that_a_build_has_removed_is_made_again() {
    let site = Site::new(Sample::Static, BRISK).with_standby();
    for (at, place) in ["releases/../hooks", "logs", "run"].iter().enumerate() {
        site.shell(&format!("rm -rf {}/{place}", site.home.display())).ok();
        let version = format!("w{at}");
        site.commit(&version, "");
        site.run("deploy", &[]).ok();
        assert_eq!(site.get("/").1, format!("{version}\n"));
    }
    let broken = "rm -rf ../../releases && false";
    site.shell(&format!("printf '[build]\\ncommand = \"{broken}\"\\n' >>{}/config.toml", site.home.display())).ok();
    site.commit("x", "");
    assert_eq!(site.run("deploy", &[]).code, 3);
    site.reconfigure(broken, "true");
    site.commit("y", "");
    site.run("deploy", &[]).ok();
    assert_eq!(site.get("/").1, "y\n");
}

#[test]
fn a_whole_hash_is_the_commit_whatever_a_branch_is_called() {
    let site = Site::new(Sample::Static, BRISK);
    let reviewed = site.commit("reviewed", "");
    site.commit("evil", "");
    site.git(&["branch", &format!("refs/heads/{reviewed}")]);
    site.git(&["update-ref", &format!("refs/heads/{reviewed}"), "HEAD"]);
    site.git(&["update-ref", &format!("refs/tags/{reviewed}"), "HEAD"]);
    site.run("deploy", &["--ref", &reviewed]).ok();
    assert_eq!(site.get("/").1, "reviewed\n");
    site.run("deploy", &["--if-new", "--ref", &reviewed]).ok();
    assert_eq!(site.get("/").1, "reviewed\n");
}

#[test]
fn directories_that_were_closed_to_their_owner_are_opened_again() {
    let Some(server) = deployed() else { return };
    let user = |line: &str| server.run(&format!("runuser -u potados -- sh -c '{line}'"));
    for (at, place) in [
        format!("{HOME}/run"),
        format!("{HOME}/logs"),
        format!("{HOME}/releases"),
        "/var/lib/cutover/cafeteria".to_owned(),
    ]
    .iter()
    .enumerate()
    {
        user(&format!("chmod 0 {place}")).ok();
        server.run(&format!("runuser -u potados -- git -C /home/source -c user.name=p -c user.email=p@example.org commit --quiet --allow-empty -m {at}")).ok();
        user(&format!("{HOME}/bin/deploy")).ok();
        assert_eq!(server.served(), "v1\n");
    }
}

#[test]
fn a_hooks_log_that_is_no_file_is_moved_aside() {
    let site = Site::new(Sample::Static, BRISK);
    site.shell(&format!(
        "cd {} && printf '#!/bin/sh\\necho hooked\\n' >hooks/before-connect && chmod 755 hooks/before-connect",
        site.home.display()
    ))
    .ok();
    for (at, lay) in ["mkfifo", "mkdir", "ln -s /dev/full"].iter().enumerate() {
        site.shell(&format!("cd {}/logs && rm -rf hooks.log && {lay} hooks.log", site.home.display())).ok();
        site.commit(&format!("v{at}"), "");
        site.run("deploy", &[]).ok();
        assert!(fs::read_to_string(site.home.join("logs/hooks.log")).unwrap().contains("hooked\n"));
    }
}

#[test]
fn a_limit_of_the_callers_on_files_is_told_and_not_died_of() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("deploy", &[]).ok();
    site.commit("v2", "");
    let ran = site.shell("prlimit --fsize=0:0 deploy");
    assert!(ran.code == 3 && ran.stderr.contains("File too large"), "{ran:?}");
    assert_eq!(site.get("/").1, "v1\n");
}

#[test]
fn two_installs_at_the_same_time_do_not_take_the_same_ports() {
    let Some(server) = Server::boot() else { return };
    let other = CONFIG.replace("\"cafeteria\"", "\"other\"") + "[nginx]\nlisten = [\"81\"]\nstatus_port = 20300\n";
    fs::write(server.path("/home/source/other.toml"), other).unwrap();
    let both = "$TOOLS/install --config $CONFIG --user potados >/run/one 2>&1 & one=$!; \
        $TOOLS/install --config /home/source/other.toml --user mallory >/run/two 2>&1; two=$?; wait $one; echo $? $two; cat /run/one /run/two";
    let said = server.run(both).stdout;
    let codes: Vec<&str> = said.lines().next().unwrap().split(' ').collect();
    assert!(codes == ["0", "3"] || codes == ["3", "0"], "{said}");
    assert!(said.contains("cannot use port 20201: it is that of the app"), "{said}");
}

#[test]
fn a_user_called_as_sudo_calls_everybody_gets_nobody_anything() {
    let Some(server) = Server::boot() else { return };
    server.like_systemd();
    server
        .run(
            "echo 'ALL:x:15020:15020::/home/all:/bin/sh' >>/etc/passwd; echo 'ALL:x:15020:' >>/etc/group; \
        echo 'ALL:*:19000:0:99999:7:::' >>/etc/shadow; mkdir /home/all; chown 15020 /home/all",
        )
        .ok();
    server.run("$TOOLS/install --config $CONFIG --user ALL").stdout.clear();
    let rules = server.run("cat /etc/sudoers.d/zz-cutover-cafeteria").ok();
    assert!(rules.contains("#15020 ") && !rules.contains("ALL ALL"), "{rules}");
}

/// Two commits that begin with the same twelve digits take minutes to make. That a release is of one and is wanted for the other is
/// the same to the tools when what they have kept beside it says so.
#[test]
fn a_commit_is_not_taken_for_another_that_begins_alike() {
    let site = Site::new(Sample::Static, BRISK);
    let other = site.commit("other", "");
    let commit = site.commit("wanted", "");
    site.run("deploy", &[]).ok();
    let release = site.status()["instances"][0]["release"].as_str().unwrap().to_owned();
    let mirror = site.home.join("repo.git").display().to_string();
    let kept = |words: &str| site.shell(&format!("git --git-dir {mirror} {words}")).ok();
    assert_eq!(kept(&format!("rev-parse refs/cutover/{release}")).trim(), commit);
    site.run("deploy", &[]).is(0, "", &format!("deploy: already current: A runs {release}\n"));
    kept(&format!("update-ref refs/cutover/{release} {other}"));
    site.run("deploy", &[]).ok();
    let status = site.status();
    assert_eq!(status["enabled"], "B");
    assert_ne!(status["instances"][1]["release"], release.as_str());
    // What is pruned is forgotten.
    site.reconfigure("soak = \"100ms\"", "soak = \"100ms\"\nkeep_releases = 1");
    for version in ["x", "y", "z"] {
        site.commit(version, "");
        site.run("deploy", &[]).ok();
    }
    assert_eq!(kept("for-each-ref refs/cutover").lines().count(), 2);
}

#[test]
fn the_tools_come_last_in_a_login_s_path() {
    let site = Site::unlaid(Sample::Static, BRISK);
    let home = site.directory.path().display().to_string();
    let bin = site.home.join("bin").display().to_string();
    let profile = site.directory.path().join(".profile");
    fs::write(&profile, format!("A=1\nPATH={bin}:$PATH # laid by cutover's install\nB=2\n")).unwrap();
    let config = site.config().display().to_string();
    let install = format!(
        "HOME={home} {} --config {config} --home {}",
        crate::site::built().join("install").display(),
        site.home.display()
    );
    site.shell(&install).ok();
    let text = fs::read_to_string(&profile).unwrap();
    assert_eq!(text, format!("A=1\nB=2\nPATH=$PATH:{bin} # laid by cutover's install\n"));
    let found =
        site.shell(&format!("env -i HOME={home} PATH=/usr/bin:/bin bash -lc 'type -P install; type -P deploy'")).ok();
    assert_eq!(found, format!("/usr/bin/install\n{bin}/deploy\n"));
    site.shell(&format!("{install} --remove --force")).ok();
    assert_eq!(fs::read_to_string(&profile).unwrap(), "A=1\nB=2\n");
}
