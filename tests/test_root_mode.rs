//! Installing as root into the system's nginx, on a server of its own.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::server::{CONFIG, Server};

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
        "config.toml\nenv\nhooks\ninstances\nlogs\nreleases\nrepo.git\n",
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
    server.run(&format!("{BIN}/deploy")).ok();
    assert_eq!(server.served(), "v1\n");
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
fn links_that_the_user_has_put_in_the_way_lead_root_nowhere() {
    let Some(server) = Server::boot() else { return };
    // A directory of root's that looks like a home.
    server.run("mkdir -p /var/lib/cutover/trap/bin && cp $CONFIG /var/lib/cutover/trap/config.toml").ok();
    server.run("cp $TOOLS/pid /var/lib/cutover/trap/bin/ && ln -s /var/lib/cutover/trap /home/potados/.cafeteria").ok();
    let contents = "cd /var/lib/cutover && find trap -printf '%p %u %m %s\\n' | sort";
    let before = server.run(contents).ok();
    server.install("").fails(3, &["cannot make /home/potados/.cafeteria: Operation not permitted"]);
    assert_eq!(server.run(contents).ok(), before);

    server.run("rm /home/potados/.cafeteria").ok();
    server.install("").ok();
    server.run("mv /home/potados/.cafeteria /home/potados/away").ok();
    server.run("ln -s /var/lib/cutover/trap /home/potados/.cafeteria").ok();
    server.install("--remove --force").fails(3, &["cannot remove /home/potados/.cafeteria/bin/pid: Permission denied"]);
    assert_eq!(server.run(contents).ok(), before);
}

#[test]
fn a_place_for_nginx_files_that_the_user_can_change_is_refused() {
    let Some(server) = Server::boot() else { return };
    server.install("").ok();
    server.run("runuser -u potados -- mkdir /home/potados/conf.d").ok();
    for place in ["/home/potados/conf.d", "/tmp/../home/potados/conf.d", "/home/potados/nowhere/conf.d"] {
        let change = format!("printf '[nginx]\\nconf_dir = \"{place}\"\\n' >>/home/potados/.cafeteria/config.toml");
        server.run(&format!("cp {BIN}/../config.toml /home/kept && {change}")).ok();
        let refused = server.run("$TOOLS/install --home /home/potados/.cafeteria");
        refused.fails(2, &["cannot lay nginx's files in ", " for potados: others than root can change it"]);
        server.run(&format!("cat /home/kept >{BIN}/../config.toml && ls -A /home/potados/conf.d")).is(0, "", "");
    }
    // A state of the user's own making does not open another app's door.
    server.run("runuser -u potados -- mkdir /home/potados/.cafeteria/state").ok();
    server
        .run("mkdir -p /var/lib/cutover/other && sed -i 's/cafeteria/other/' /home/potados/.cafeteria/config.toml")
        .ok();
    let refused = server.run("$TOOLS/install --home /home/potados/.cafeteria");
    refused.fails(2, &["cannot install for potados: other is installed for root already"]);
}
