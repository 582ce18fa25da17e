//! Installing as root into the system's nginx, on a server of its own.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::not_tested::not_tested;
use crate::server::{CONFIG, Server};
use crate::site::eventually;

const BIN: &str = "/home/potados/.cafeteria/bin";

#[test]
fn root_installs_once_and_then_nothing_needs_root() {
    let Some(server) = Server::boot() else { return };
    server.install("").ok();
    let again = server.install("");
    assert!(again.stderr.contains("nothing to do"), "{again:?}");

    // By the app's user, as SSM runs it, and by root without runuser: the same.
    server.run(&format!("runuser -l potados -c {BIN}/deploy")).ok();
    assert_eq!(server.served(), "v1\n");
    server.run("cd /home/source && echo v2 >VERSION && runuser -u potados -- git -c user.name=p -c user.email=p@example.org commit --quiet --all --message v2").ok();
    let deployed = server.run(&format!("cd /usr/bin && {BIN}/deploy"));
    assert!(deployed.stdout.is_empty() && deployed.stderr.len() < 2000, "{deployed:?}");
    deployed.ok();
    assert_eq!(server.served(), "v2\n");
    server.run(&format!("runuser -l potados -c {BIN}/rollback")).ok();
    assert_eq!(server.served(), "v1\n");

    // Nothing in the home is root's, nothing of the app runs as root, and nginx's files are root's.
    server.run("find /home/potados -not -user potados").is(0, "", "");
    server.run("ps -eo user:20,args | grep -E 'supervise|server.py' | grep -v -e grep -e ^potados").is(1, "", "");
    let laid = [
        "/etc/nginx/conf.d/cafeteria.conf",
        "/etc/nginx/conf.d/cafeteria-server.conf",
        "/etc/nginx/conf.d/cafeteria.d/proxy.conf",
    ];
    for file in laid {
        let meta = fs::metadata(server.path(file)).unwrap();
        assert_eq!((meta.uid(), meta.mode() & 0o777), (0, 0o644), "{file}");
    }
    server.run("stat --format %U:%a /var/lib/cutover/cafeteria /home/potados/.cafeteria").is(
        0,
        "potados:755\npotados:750\n",
        "",
    );

    server.install("--remove --force").ok();
    server.run("ls -A /etc/nginx/conf.d /var/lib/cutover").is(0, "/etc/nginx/conf.d:\n\n/var/lib/cutover:\n", "");
    server.run("ls -A /home/potados/.cafeteria").is(
        0,
        ".cutover\nconfig.toml\nenv\nhooks\ninstances\nlogs\nreleases\nrepo.git\n",
        "",
    );
}

#[test]
fn a_state_that_nginx_may_not_search_is_named_with_its_remedy_and_nothing_changes() {
    let Some(server) = Server::boot() else { return };
    server.install("").ok();
    server.run(&format!("{BIN}/deploy")).ok();
    server.run(&format!("{BIN}/update-instance B && {BIN}/start-instance B")).ok();
    server.run("chmod 700 /var/lib/cutover/cafeteria").ok();
    let refused = server.run(&format!("{BIN}/connect-to-nginx B"));
    refused.fails(3, &["cannot connect B", "chmod o+x /var/lib/cutover/cafeteria"]);
    server.run(&format!("{BIN}/enabled-instance")).is(0, "A\n", "");
    server.run("chmod o+x /var/lib/cutover/cafeteria").ok();
    server.run(&format!("{BIN}/connect-to-nginx B && {BIN}/enabled-instance")).is(0, "B\n", "");
}

/// For each reason another remedy, and the service is as it was.
#[test]
fn what_keeps_the_link_from_being_turned_is_named_with_its_remedy() {
    let Some(server) = Server::boot() else { return };
    server.install("").ok();
    server.run(&format!("{BIN}/deploy && {BIN}/update-instance B && {BIN}/start-instance B")).ok();
    let state = "/var/lib/cutover/cafeteria";
    let connect = format!("runuser -u potados -- {BIN}/connect-to-nginx B");
    let is_named = |remedy: &str, undo: &str| {
        let refused = server.run(&connect);
        refused.fails(3, &[&format!("cannot connect B: cannot turn {state}/enabled: "), remedy]);
        assert!(!refused.stderr.contains("run install") || remedy.contains("run install"), "{refused:?}");
        server.run(&format!("{BIN}/enabled-instance")).is(0, "A\n", "");
        assert_eq!(server.served(), "v1\n");
        server.run(undo).ok();
    };
    server.run(&format!("mount --bind {state} {state} && mount -o remount,bind,ro {state}")).ok();
    is_named("Read-only file system (os error 30): mount it writable again", &format!("umount {state}"));

    // A disk that has everything but one more inode.
    let fill = format!(
        "cp -a {state} /run/full && mount -t tmpfs -o size=1m,mode=755,nr_inodes=20 none {state} && \
         cp -a /run/full/. {state} && chown potados: {state} && i=0; while touch {state}/x$i 2>/dev/null; do i=$((i+1)); done"
    );
    server.run(&fill).ok();
    is_named("No space left on device (os error 28): make room there, or free inodes", &format!("umount {state}"));

    server.run(&format!("chown root: {state}")).ok();
    is_named("Permission denied (os error 13): run install again", &format!("chown potados: {state}"));
    server.run(&connect).ok();
    server.run(&format!("{BIN}/enabled-instance")).is(0, "B\n", "");

    // Where nothing is there, there is nothing that could serve.
    server.run(&format!("mv {state} {state}.away")).ok();
    let refused = server.run(&format!("runuser -u potados -- {BIN}/connect-to-nginx A"));
    refused.fails(3, &["No such file or directory (os error 2): run install"]);
}

/// systemctl may have made these directories, or a package: they go only when nothing is left in them.
#[test]
fn directories_of_links_that_are_left_empty_go_with_the_last_link() {
    let Some(server) = Server::boot() else { return };
    server.install("").ok();
    let units = "/etc/systemd/system";
    let lay = format!(
        "mkdir -p /run/units && mount --bind /run/units {units} && cd {units} && mkdir sockets.target.wants timers.target.wants && \
         for unit in push.socket queue.path poll.timer bootup.service; do \
         echo '# Laid by cutover'\\''s install for cafeteria; a re-run of install replaces it.' >cafeteria-$unit; done; \
         ln -s {units}/cafeteria-push.socket sockets.target.wants && ln -s {units}/cafeteria-poll.timer timers.target.wants && \
         echo theirs >timers.target.wants/theirs.timer"
    );
    server.run(&lay).ok();
    server.install("--remove --force").ok();
    server.run(&format!("cd {units} && find . -mindepth 1 | sort")).is(
        0,
        "./timers.target.wants\n./timers.target.wants/theirs.timer\n",
        "",
    );
}

#[test]
fn limits_beyond_the_users_own_are_named_before_anything_is_built() {
    let Some(server) = Server::boot() else { return };
    server.install("").ok();
    let home = "/home/potados/.cafeteria";
    for (key, told) in [
        ("open_files = 5000", "cannot set open_files to 5000: this user may have 4096 (ulimit -Hn)"),
        ("nice = -1", "cannot set nice to -1: without systemd, less than 0 takes root"),
    ] {
        server.run(&format!("sed -i 's/^\\[run\\]/&\\n{key}/' {home}/config.toml")).ok();
        let deploy = format!("runuser -u potados -- sh -c 'ulimit -n 4096; {BIN}/deploy'");
        server.run(&deploy).fails(2, &[told]);
        server.run(&format!("ls {home}/releases; sed -i '/^{key}$/d' {home}/config.toml")).is(0, "", "");
    }
    // What comes back under systemd runs with as much as its unit gives it.
    let configure = format!("sed -i 's/^\\[run\\]/&\\nopen_files = 5000/' {home}/config.toml");
    server.run(&format!("{configure} && {BIN}/deploy && {BIN}/stop-instance -f A")).ok();
    let as_unit = "runuser -u potados -- sh -c 'ulimit -n 4096; exec setsid -f \"$0\" --home \"$1\" A >/dev/null 2>&1'";
    server.run(&format!("{as_unit} {BIN}/supervise {home}")).ok();
    eventually("it serves", || server.run(&format!("{BIN}/pid A")).code == 0 && server.served() == "v1\n");
    let hard = server.run(&format!("awk '/^Max open files/ {{ print $5 }}' /proc/$({BIN}/pid A)/limits"));
    hard.is(0, "4096\n", "");
    assert!(server.run(&format!("{BIN}/logs A")).ok().contains("open_files is 4096: run install again for more"));
}

#[test]
fn an_edited_server_block_is_never_touched_again() {
    let Some(server) = Server::boot() else { return };
    server.install("").ok();
    server
        .run("sed -i 's/server_name _;/server_name example.org; # by certbot/' /etc/nginx/conf.d/cafeteria-server.conf")
        .ok();
    let before = fs::read_to_string(server.path("/etc/nginx/conf.d/cafeteria-server.conf")).unwrap();
    let text = CONFIG.to_owned() + "[nginx]\nserver_name = \"other.example.org\"\nfailover = false\n";
    fs::write(server.config(), text).unwrap();
    let again = server.install("");
    assert!(again.stderr.contains("left /etc/nginx/conf.d/cafeteria-server.conf alone"), "{again:?}");
    assert_eq!(fs::read_to_string(server.path("/etc/nginx/conf.d/cafeteria-server.conf")).unwrap(), before);
    let ours = fs::read_to_string(server.path("/etc/nginx/conf.d/cafeteria.conf")).unwrap();
    assert!(!ours.contains("backup"), "{ours}");
}

#[test]
fn a_configuration_that_nginx_refuses_leaves_the_old_one() {
    let Some(server) = Server::boot() else { return };
    server.install("").ok();
    server.run(&format!("{BIN}/deploy")).ok();
    let text = CONFIG.to_owned() + "[nginx]\nlisten = [\"nonsense:port:80\"]\n";
    fs::write(server.config(), text).unwrap();
    server.install("").fails(3, &["nginx refuses the new configuration, the old one is back"]);
    assert_eq!(server.served(), "v1\n");
    server.run("nginx -t -q && nginx -s reload").ok();
    server.run(&format!("{BIN}/deploy")).ok();
    assert_eq!(server.served(), "v1\n");
}

#[test]
fn install_tries_what_sudo_lets_the_user_do() {
    let Some(server) = Server::boot() else { return };
    let directory = server.like_systemd();
    server.install("").ok();
    server.run("cat /run/orders").fails(1, &["No such file"]);

    let cannot = "install: cannot let potados start and stop the instances: sudo does not run systemctl";
    let start = format!("{cannot} start cafeteria@A.service without a password");
    let reset = format!("{cannot} reset-failed cafeteria@A.service without a password");
    let overridden = "a rule that it reads later takes back what the app's grants";
    let rules = [
        ("potados ALL=(ALL) !/usr/bin/systemctl", format!("{start}: {overridden}\n")),
        ("potados ALL=(ALL) ALL", format!("{reset}: sudo: a password is required\n")),
        ("Defaults:potados requiretty", format!("{start}: sudo: sorry, you must have a tty to run sudo\n")),
        ("Defaults:potados !root_sudo, listpw=always", format!("{start}: sudo: a password is required\n")),
    ];
    for (rule, said) in rules {
        let later = "/etc/sudoers.d/zzz-later";
        server.run(&format!("echo '{rule}' >{later} && chmod 440 {later} && visudo -c -q")).ok();
        server.install("").is(3, "", &said);
        server.run(&format!("rm {later}")).ok();
    }

    // A sudo that crashes, as Debian 13's did, cannot be had here.
    server.run(&format!("cd {directory} && printf '#!/bin/sh\\nkill -SEGV $$\\n' >crash && chmod 755 crash")).ok();
    server.run(&format!("cp /usr/bin/sudo {directory}/kept && mount --bind {directory}/crash /usr/bin/sudo")).ok();
    server.install("").is(3, "", &format!("{start}: it was killed by SIGSEGV\n"));
    server.run("umount /usr/bin/sudo").ok();
    let again = server.install("");
    assert!(again.stderr.ends_with("install: nothing to do: cafeteria is laid out in /home/potados/.cafeteria\n"));
    again.ok();
}

#[test]
fn a_directory_closed_above_the_state_is_told_by_all_and_mended_by_install() {
    let Some(server) = Server::boot() else { return };
    server.install("").ok();
    let tool = |line: &str| server.run(&format!("runuser -u potados -- {BIN}/{line}"));
    tool("deploy").ok();
    server.run("cd /home/source && echo v2 >VERSION && runuser -u potados -- git -c user.name=p -c user.email=p@example.org commit --quiet --all --message v2").ok();
    tool("deploy").ok();
    assert_eq!(server.served(), "v2\n");

    for place in ["/var/lib/cutover", "/var/lib"] {
        // As root sees it, the mode of what lies above the private places is the machine's own.
        server.run(&format!("[ {place} = /var/lib/cutover ] || {{ mkdir /run/lib && mount --rbind /var/lib /run/lib && mount -t tmpfs -o mode=755 none /var/lib && mkdir /var/lib/cutover /var/lib/nginx && mount --bind /run/lib/cutover /var/lib/cutover; }}; chmod 700 {place}")).ok();
        assert_eq!(server.served(), "v1\n", "nginx sees the link through a closed directory");
        let blind = format!(
            "others may not search {place}, so nginx's workers do not see what is enabled and use A: chmod o+x {place} as root"
        );
        let unread = format!("cannot read /var/lib/cutover/cafeteria/enabled: {blind}\n");
        let status = tool("status").ok();
        assert!(status.contains(&format!("\n{blind}\n")) && status.contains(" unknown"), "{status}");
        let json = tool("status --json").ok();
        assert!(json.contains(r#""enabled":null"#) || json.contains(r#""enabled": null"#), "{json}");
        assert!(json.contains(&blind), "{json}");
        for change in ["connect-to-nginx B", "deploy", "rollback", "reload"] {
            let name = change.split(' ').next().unwrap();
            tool(change).is(3, "", &format!("{name}: {unread}"));
        }
        tool("enabled-instance").is(3, "", &format!("enabled-instance: {unread}"));
        if place == "/var/lib" {
            let closed = "nginx's workers cannot get to /var/lib/cutover/cafeteria: others may not search /var/lib; chmod o+x /var/lib";
            server.install("").is(3, "", &format!("install: {closed}\n"));
            server.run("chmod o+x /var/lib").ok();
        } else {
            let mended = server.install("");
            assert!(
                mended.stderr.starts_with("install: lay directory /var/lib/cutover, which others may search\n"),
                "{mended:?}"
            );
            mended.ok();
            server.run("stat -c %a:%U /var/lib/cutover").is(0, "755:root\n", "");
        }
        assert_eq!(server.served(), "v2\n", "{place} is open again");
        tool("enabled-instance").is(0, "B\n", "");
    }
    let again = server.install("");
    again.is(0, "", "install: nothing to do: cafeteria is laid out in /home/potados/.cafeteria\n");
}

#[test]
fn a_user_of_another_name_service_is_found() {
    let module = ["/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib"];
    if !module.iter().any(|place| fs::exists(format!("{place}/libnss_extrausers.so.2")).unwrap()) {
        not_tested("a user of another name service", "libnss-extrausers is not installed");
        return;
    }
    let Some(server) = Server::boot() else { return };
    let directory = server.config().parent().unwrap().display().to_string();
    let set_up = r#"
set -eu
sed 's/^\(passwd\|group\):.*/\1: files extrausers/' /etc/nsswitch.conf >nsswitch && mount --bind nsswitch /etc/nsswitch.conf
mkdir -p /var/lib/extrausers && mount -t tmpfs -o mode=755 none /var/lib/extrausers
echo 'ldapu:x:16001:16000::/home/ldapu:/bin/sh' >/var/lib/extrausers/passwd
printf 'staff16:x:16000:\nmore16:x:16002:ldapu\n' >/var/lib/extrausers/group
mkdir -m 700 /home/ldapu && chown ldapu: /home/ldapu
"#;
    server.run(&format!("cd {directory} && {set_up}")).ok();
    server.run("grep -c ldapu /etc/passwd").is(1, "0\n", "");
    let install = |arguments: &str| server.run(&format!("$TOOLS/install --config $CONFIG {arguments}"));
    install("--user nobody16").is(2, "", "install: cannot find user \"nobody16\": neither /etc/passwd lists it nor does getent know it; useradd makes one\n");
    install("--user 16999").fails(2, &["cannot find user \"16999\": "]);
    for user in ["ldapu", "16001"] {
        install(&format!("--user {user}")).ok();
        server
            .run("find /home/ldapu -not -user ldapu; stat -c %U:%G /home/ldapu/.cafeteria /var/lib/cutover/cafeteria")
            .is(0, "ldapu:staff16\nldapu:staff16\n", "");
    }
    // Called by root, the tools become that user, with all its groups, and the app gets its name and home.
    server.run("chown -R ldapu /home/source").ok();
    server.run("/home/ldapu/.cafeteria/bin/deploy").ok();
    assert_eq!(server.served(), "v1\n");
    let pid = server.run("/home/ldapu/.cafeteria/bin/pid").ok();
    let environment = server
        .run(&format!("tr '\\0' '\\n' </proc/{}/environ; grep -E '^(Uid|Groups)' /proc/{0}/status", pid.trim()))
        .ok();
    for line in ["USER=ldapu", "HOME=/home/ldapu", "Groups:\t16000 16002 "] {
        assert!(environment.lines().any(|one| one == line), "{line:?} is not in {environment}");
    }
    // Where nobody can be asked, the message says so.
    server.run(&format!("cd {directory} && : >nothing && mount --bind nothing $(command -v getent)")).ok();
    install("--user ldapu").is(2, "", "install: cannot find user \"ldapu\": /etc/passwd does not list it, and there is no getent to ask a directory service with; useradd makes one\n");
}

#[test]
fn nginx_s_files_do_not_move_to_another_directory_by_themselves() {
    let Some(server) = Server::boot() else { return };
    server.install("").ok();
    server.run("/home/potados/.cafeteria/bin/deploy").ok();
    let include =
        "sed -i 's#include /etc/nginx/conf.d/\\*.conf;#& include /etc/nginx/apps.d/*.conf;#' /etc/nginx/nginx.conf";
    server.run(&format!("mkdir /etc/nginx/apps.d && {include} && nginx -s reload")).ok();
    fs::write(server.config(), format!("{CONFIG}[nginx]\nconf_dir = \"/etc/nginx/apps.d\"\n")).unwrap();
    let why = "cannot move nginx's files from /etc/nginx/conf.d to /etc/nginx/apps.d while the app is there: install --remove first";
    server.install("").fails(2, &[why]);
    server.run("ls /etc/nginx/apps.d").is(0, "", "");
    assert_eq!(server.served(), "v1\n");
    server.run("$TOOLS/install --home /home/potados/.cafeteria --remove --force").ok();
    server.install("").ok();
    server.run("/home/potados/.cafeteria/bin/deploy").ok();
    assert_eq!(server.served(), "v1\n");
}
