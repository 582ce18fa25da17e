//! Neighbours of known faults, written by whoever knew the contract alone; each failed at first.

use std::fs;

use crate::server::{CONFIG, Server};
use crate::site::{Ran, eventually};
use crate::test_neighbours_of_ports::{commit, deployed, mallory_goes, mallory_listens, other};

const HOME: &str = "/home/potados/.cafeteria";

/// An app of mallory's with ports of its own beside potados' cafeteria.
const PORTS: [u16; 4] = [20301, 20302, 20300, 20303];

#[test]
fn a_link_to_a_unit_that_is_not_ours_is_refused_and_stays() {
    let Some(server) = Server::boot() else { return };
    server.like_systemd();
    let text = format!("{CONFIG}[push]\nrepository = \"a/b\"\npoll = \"1m\"\n");
    for (made, place) in [
        ("ln -s /etc/passwd", "multi-user.target.wants/cafeteria-bootup.service"),
        ("touch", "multi-user.target.wants/cafeteria-bootup.service"),
        ("ln -s /etc/passwd", "sockets.target.wants/cafeteria-push.socket"),
        ("ln -s /etc/passwd", "timers.target.wants/cafeteria-poll.timer"),
        ("ln -s /etc/passwd", "paths.target.wants/cafeteria-queue.path"),
    ] {
        let place = format!("/etc/systemd/system/{place}");
        server.run(&format!("mkdir -p $(dirname {place}) && {made} {place}")).ok();
        fs::write(server.config(), &text).unwrap();
        let ran = server.install("");
        let kept = server.run(&format!("stat --format %N {place}")).stdout;
        server.run(&format!("$TOOLS/install --home {HOME} --remove --purge --force; rm -f {place}"));
        assert!(ran.code == 2 || ran.code == 3, "{made} {place}: {ran:?}");
        ran.fails(ran.code, &[&format!("cannot lay {place}: "), "move it away"]);
        assert!(!kept.contains("/etc/systemd/system/cafeteria"), "{kept}");
    }
}

#[test]
fn a_link_in_place_of_nginx_s_directory_is_refused() {
    let Some(server) = Server::boot() else { return };
    server.run("mkdir /run/theirs && ln -s /run/theirs /etc/nginx/conf.d/cafeteria.d").ok();
    let ran = server.install("");
    server.run("ls -A /run/theirs").is(0, "", "");
    assert!(ran.code == 2 || ran.code == 3, "{ran:?}");
    ran.fails(ran.code, &["/etc/nginx/conf.d/cafeteria.d"]);
}

/// cafeteria serves v1 under this name; then mallory's app is installed with this in its `[nginx]`.
fn beside(name: &str, listen: &str) {
    let Some(server) = Server::boot() else { return };
    fs::write(server.config(), format!("{CONFIG}[nginx]\nserver_name = \"{name}\"\n")).unwrap();
    server.install("").ok();
    server.run(&format!("{HOME}/bin/deploy")).ok();
    let served =
        || server.run("curl --silent --max-time 10 --header 'Host: cafe.example.org' http://127.0.0.1/").stdout;
    assert_eq!(served(), "v1\n");
    // Its file is read before cafeteria's.
    let text = CONFIG.replace("\"cafeteria\"", "\"aaa\"");
    let nginx = format!("[nginx]\nstatus_port = 20300\nserver_name = \"other.example\"\nlisten = [\"{listen}\"]\n");
    fs::write(server.config(), format!("{text}[instances]\nA = 20301\nB = 20302\n{nginx}")).unwrap();
    let ran = server.run("timeout 60 $TOOLS/install --config $CONFIG --user mallory");
    for _ in 0..10 {
        assert_eq!(served(), "v1\n", "listen = {listen:?}: {ran:?}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn an_exact_address_does_not_take_another_sites_requests() {
    beside("cafe.example.org", "127.0.0.1:80");
}

#[test]
fn an_app_whose_name_comes_first_does_not_take_what_no_name_claims() {
    beside("_", "80");
}

#[test]
fn a_default_server_does_not_take_what_another_app_gets() {
    beside("_", "80 default_server");
}

#[test]
fn options_of_a_shared_socket_do_not_cut_another_site_off() {
    beside("cafe.example.org", "80 http2");
    beside("cafe.example.org", "80 proxy_protocol");
}

#[test]
fn nginx_does_not_listen_on_another_apps_port() {
    let Some(server) = deployed() else { return };
    for port in [20202, 20211, 20200] {
        for listen in [format!("{port}"), format!("127.0.0.1:{port}"), format!("[::]:{port}")] {
            let ran = other(&server, PORTS, &format!("listen = [\"{listen}\"]\n"));
            server.run("$TOOLS/install --home /home/mallory/.other --remove --purge --force");
            ran.fails(3, &[&format!("cannot use port {port}: it is that of the app")]);
        }
    }
}

#[test]
fn a_mistake_in_a_configuration_names_its_file_and_its_line() {
    let Some(server) = Server::boot() else { return };
    server.install("").ok();
    server.run(&format!("echo 'oops = 1' >>{HOME}/config.toml")).ok();
    let line = server.run(&format!("wc -l <{HOME}/config.toml")).ok();
    let place = format!("{HOME}/config.toml: line {}: ", line.trim());
    server.run(&format!("$TOOLS/install --home {HOME}")).fails(2, &[&place]);
    server.run("python3 -c 'print(\".\".join(\"a\" * 20000) + \"=1\")' >/home/source/deep.toml").ok();
    let ran = server.run("$TOOLS/install --user potados --config /home/source/deep.toml");
    ran.fails(2, &["cannot use /home/source/deep.toml: line 1: "]);
}

#[test]
fn what_is_there_instead_of_a_configuration_is_said() {
    let Some(server) = Server::boot() else { return };
    server.install("").ok();
    server.run(&format!("cd {HOME} && rm config.toml && ln -s config.toml config.toml")).ok();
    server.run(&format!("$TOOLS/install --home {HOME}")).fails(2, &["config.toml: Too many levels of symbolic links"]);
    server.run(&format!("rm -r {HOME} && runuser -u potados -- mkfifo {HOME}")).ok();
    let ran = server.run(&format!("$TOOLS/install --home {HOME}"));
    assert!(ran.code == 2 && !ran.stderr.contains("no configuration"), "{ran:?}");
}

#[test]
fn ports_that_the_user_changes_do_not_hold_an_upgrade_up() {
    let Some(server) = deployed() else { return };
    for instances in ["A = 20201\nB = 20212\n", "A = 20202\nB = 20201\n", "X = 20201\nY = 20202\n"] {
        fs::write(server.config(), format!("{CONFIG}[instances]\n{instances}")).unwrap();
        server.run(&format!("cat $CONFIG >{HOME}/config.toml")).ok();
        let ran = server.run(&format!("$TOOLS/install --home {HOME}"));
        assert!(ran.stderr.contains("it stays as it was accepted"), "{ran:?}");
        ran.ok();
    }
}

#[test]
fn a_running_instance_is_healthy_whoever_listens_on_another_address_of_its_port() {
    let Some(server) = deployed() else { return };
    mallory_listens(&server, "127.0.0.2 20201");
    let status = server.run(&format!("{HOME}/bin/status")).ok();
    assert!(!status.contains("mallory"), "{status}");
    mallory_goes(&server);
    // Nor can she make a deploy go back that nothing is wrong with.
    server.run(&format!("sed -i 's/soak = .*/soak = \"3s\"/' {HOME}/config.toml")).ok();
    commit(&server, "v2");
    let deploy = format!("({HOME}/bin/deploy >/run/said 2>&1; echo $? >/run/code) >/dev/null 2>&1 &");
    server.run(&deploy).ok();
    eventually("B is enabled", || server.run(&format!("{HOME}/bin/enabled-instance")).stdout == "B\n");
    mallory_listens(&server, "127.0.0.2 20202");
    eventually("the deploy has ended", || server.run("cat /run/code").code == 0);
    let said = server.run("cat /run/said /run/code").ok();
    assert!(said.ends_with("\n0\n"), "{said}");
    assert_eq!(server.served(), "v2\n");
}

#[test]
fn one_of_our_files_that_is_gone_does_not_lock_install_out() {
    let Some(server) = deployed() else { return };
    for gone in ["cafeteria.conf", "cafeteria.conf /etc/nginx/conf.d/cafeteria.d/choice.conf"] {
        server.run(&format!("rm /etc/nginx/conf.d/{gone}")).ok();
        server.run(&format!("$TOOLS/install --home {HOME}")).ok();
        server.run("nginx -t -q").ok();
        eventually("the site is back", || server.run("curl --silent http://127.0.0.1/").stdout == "v1\n");
    }
}

#[test]
fn a_user_without_a_usable_home_is_refused_before_anything_is_laid() {
    let Some(server) = Server::boot() else { return };
    server.run("mkdir -m 755 /home/closed /home/group && ln -s /run/open /home/linked && mkdir -m 1777 /run/open").ok();
    for (number, home) in
        ["/home/missing/deep", "/home/closed", "home/relative", "/home/linked"].into_iter().enumerate()
    {
        let user = format!("user{number}");
        server.run(&format!("echo '{user}:x:{}:15000::{home}:/bin/sh' >>/etc/passwd", 15100 + number)).ok();
        let before = server.run("find /home /run/open /etc/nginx /var/lib/cutover | sort").ok();
        let ran = server.run(&format!("cd /run/open && $TOOLS/install --config $CONFIG --user {user}"));
        let after = server.run("find /home /run/open /etc/nginx /var/lib/cutover | sort").ok();
        assert!(ran.code == 2 || ran.code == 3, "{home}: {ran:?}");
        assert_eq!(after, before, "{home}: {ran:?}");
    }
}

/// Answers on the status port what nginx answered there before, for whatever instance the link names.
const IMPOSTOR: &str = r#"
import os, socket
answer = open("/run/open/answer", "rb").read()
listener = socket.create_server(("127.0.0.1", 20200))
while True:
    client = listener.accept()[0]
    client.recv(65536)
    client.sendall(answer + os.readlink("/var/lib/cutover/cafeteria/enabled").encode())
    client.close()
"#;

#[test]
fn another_user_on_the_status_port_is_not_taken_for_nginx() {
    let Some(server) = deployed() else { return };
    server.run("mkdir -m 755 /run/open && curl --silent --include http://127.0.0.1:20200/instance | head -c -1 >/run/open/answer").ok();
    fs::write(server.path("/run/open/impostor.py"), IMPOSTOR).unwrap();
    server.run("nginx -s stop").ok();
    eventually("nginx is gone", || server.run("curl --silent http://127.0.0.1:20200/instance").code == 7);
    server.run("runuser -u mallory -- python3 /run/open/impostor.py >/dev/null 2>&1 &").ok();
    eventually("mallory answers", || server.run("curl --silent http://127.0.0.1:20200/instance").stdout == "A");
    commit(&server, "v2");
    let tool = |line: &str| server.run(&format!("timeout 60 runuser -u potados -- {HOME}/bin/{line}"));
    let status = tool("status");
    assert!(status.stdout.contains("mallory") || status.stdout.contains("nginx does not answer"), "{status:?}");
    for line in ["deploy", "connect-to-nginx A"] {
        let ran = tool(line);
        assert!(
            ran.code == 3 && server.run(&format!("{HOME}/bin/enabled-instance")).stdout == "A\n",
            "{line}: {ran:?}"
        );
    }
    assert_ne!(server.run(&format!("$TOOLS/install --home {HOME}")).code, 0);
}

#[test]
fn of_two_installations_at_once_one_finds_the_ports_taken() {
    let Some(server) = Server::boot() else { return };
    for _ in 0..5 {
        let begun = [("one", "potados", 20200), ("two", "mallory", 20300)].map(|(app, user, status)| {
            let text = CONFIG.replace("\"cafeteria\"", &format!("\"{app}\""));
            let nginx = format!("[nginx]\nstatus_port = {status}\nserver_name = \"{app}.example\"\n");
            let home = format!("/home/{user}/.{app}");
            fs::write(server.path(&format!("/run/{app}.toml")), text + &nginx).unwrap();
            (format!("$TOOLS/install --config /run/{app}.toml --user {user}"), home)
        });
        let [(first, one), (second, two)] = &begun;
        server.run(&format!("{first} >/run/one 2>&1 & {second} >/run/two 2>&1; wait")).ok();
        let said = server.run("cat /run/one /run/two").ok();
        let laid = said.matches(" is laid out").count();
        for home in [one, two] {
            server.run(&format!("$TOOLS/install --home {home} --remove --purge --force"));
        }
        assert_eq!(laid, 1, "{said}");
        assert!(said.contains(": it is that of the app"), "{said}");
        let answers = |port: u16| server.run(&format!("curl --silent http://127.0.0.1:{port}/")).code == 0;
        eventually("nginx has left the apps' ports", || !answers(20200) && !answers(20300));
    }
}

/// A server on which cafeteria serves, and install is about to lay an app of mallory's whose name takes every request. Nothing in
/// what the two listen on tells: what answers has to be asked, after nginx has taken it up.
fn before_a_name_for_all() -> Option<(Server, &'static str)> {
    let server = Server::boot()?;
    fs::write(server.config(), CONFIG).unwrap();
    server.install("").ok();
    server.run(&format!("{HOME}/bin/deploy")).ok();
    let text = CONFIG.replace("\"cafeteria\"", "\"zzz\"");
    let nginx = "[nginx]\nstatus_port = 20300\nserver_name = \"~.\"\n";
    fs::write(server.config(), format!("{text}[instances]\nA = 20301\nB = 20302\n{nginx}")).unwrap();
    Some((server, "timeout 60 $TOOLS/install --config $CONFIG --user mallory"))
}

#[track_caller]
fn is_taken_back(server: &Server, installed: &Ran) {
    installed.fails(
        3,
        &[
            "nginx refuses the new configuration, the old one is back",
            "the site of the app cafeteria would be answered here",
        ],
    );
    server.run("ls -d /etc/nginx/conf.d/zzz* 2>/dev/null").is(2, "", "");
    for _ in 0..10 {
        assert_eq!(server.served(), "v1\n");
    }
}

#[test]
fn a_name_that_takes_every_request_is_taken_back_when_the_other_site_is_not_reached_any_more() {
    let Some((server, install)) = before_a_name_for_all() else { return };
    is_taken_back(&server, &server.run(install));
}

#[test]
fn a_site_that_is_slow_when_it_is_asked_is_not_taken_for_one_that_nobody_reaches() {
    let Some((server, install)) = before_a_name_for_all() else { return };
    // nginx stands still until one question has waited in vain for its five seconds.
    let asked = "ss --no-header --tcp --numeric state established '( dport = :80 )' | grep -q .";
    let installed = server.run(&format!(
        "workers=$(pgrep -f '^nginx: worker'); kill -STOP $workers; {install} & \
        until {asked}; do sleep 0.05; done; sleep 5.5; kill -CONT $workers; wait $!"
    ));
    is_taken_back(&server, &installed);
}
