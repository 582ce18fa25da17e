//! nginx of other builds and versions: nothing is rendered that the one which is installed does not know, and files that were
//! rendered for another one never lock `install` out.

use std::fs;

use crate::ran::Ran;
use crate::server::{CONFIG, Server};
use crate::site::eventually;
use crate::test_neighbours_of_ports::other;

const HOME: &str = "/home/potados/.cafeteria";
const CONF_D: &str = "/etc/nginx/conf.d";

/// Ports of an app of mallory's beside potados' cafeteria.
const PORTS: [u16; 4] = [20301, 20302, 20300, 20303];

/// Puts a program in nginx's place that is the real one, but for what the files beside it say: its version, what else it was
/// built with, and the directives that it does not know. Other builds of nginx are not at hand; this one reads its
/// configuration before it does anything, and refuses it, as they do.
const WRAP: &str = r#"
set -eu
mkdir -p real && cp "$(readlink -f "$(command -v nginx)")" real/nginx
cat >wrapped <<'end'
#!/bin/sh
beside=DIRECTORY unknown=$(cat DIRECTORY/unknown)
case " $* " in
*" -V "*)
    "$beside/real/nginx" -V 2>&1 |
        sed "s|nginx/[0-9.]*|nginx/$(cat "$beside/version")|; s|^configure arguments:.*|& $(cat "$beside/flags")|" |
        case $unknown in *stub_status*) sed 's| --with-http_stub_status_module||' ;; *) cat ;; esac >&2
    exit 0 ;;
esac
place=
[ "${1-}" != -p ] || place="-p $2 -c $4"
"$beside/real/nginx" $place -T -q 2>/dev/null | awk -v unknown="$unknown" '
    BEGIN { split(unknown, words, " "); for (at in words) lacks[words[at]] = 1 }
    /^# configuration file .*:$/ { file = substr($4, 1, length($4) - 1); line = 0; next }
    {
        line++; word = $1; sub(/;.*/, "", word)
        if (!(word in lacks)) next
        print "nginx: [emerg] unknown directive \"" word "\" in " file ":" line
        print "nginx: configuration file /etc/nginx/nginx.conf test failed"
        exit 1
    }' >&2 || exit 1
exec "$beside/real/nginx" "$@"
end
chmod 755 wrapped && mount --bind wrapped "$(readlink -f "$(command -v nginx)")"
"#;

/// A build of nginx: its version, further flags, and the directives that it does not know.
type Build = (&'static str, &'static str, &'static str);

/// As it is.
const FULL: Build = ("1.22.1", "", "");
/// Debian 11's, without what nginx-light and builds of people's own leave out.
const LIGHT: Build = (
    "1.18.0",
    "--without-http_limit_req_module --without-http_upstream_keepalive_module",
    "limit_req_zone limit_req limit_req_status limit_req_log_level keepalive stub_status keepalive_min_timeout",
);
/// Without one of them each.
const BUILDS: [Build; 4] = [
    LIGHT,
    (
        "1.14.2",
        "--without-http_limit_req_module",
        "limit_req_zone limit_req limit_req_status limit_req_log_level keepalive keepalive_timeout keepalive_min_timeout",
    ),
    ("1.27.3", "--without-http_upstream_keepalive_module", "keepalive keepalive_min_timeout"),
    ("1.26.3", "", "stub_status keepalive_min_timeout"),
];

/// Has the server's nginx be of this build from here on. The one that runs goes on with what it has read.
fn becomes(server: &Server, (version, flags, unknown): Build) {
    let beside = server.config().parent().unwrap().to_owned();
    for (file, text) in [("version", version), ("flags", flags), ("unknown", unknown)] {
        fs::write(beside.join(file), format!("{text}\n")).unwrap();
    }
    if !beside.join("wrapped").exists() {
        let place = beside.display().to_string();
        server.run(&format!("cd {place} && {}", WRAP.replace("DIRECTORY", &place))).ok();
    }
}

/// The app has webhooks, which take the directives that are seldom there.
fn with_push() -> String {
    format!("{CONFIG}[push]\nrepository = \"octo/shop\"\n")
}

/// A server on which the app is installed with webhooks, and v1 serves.
fn deployed_on(build: Build) -> Option<Server> {
    let server = Server::boot()?;
    becomes(&server, build);
    fs::write(server.config(), with_push()).unwrap();
    server.install("").ok();
    server.run(&format!("{HOME}/bin/deploy")).ok();
    assert_eq!(server.served(), "v1\n");
    Some(server)
}

/// How many lines of the app's files begin with this directive.
fn count(server: &Server, directive: &str) -> usize {
    let files = format!("cat {CONF_D}/cafeteria.conf {CONF_D}/cafeteria-server.conf {CONF_D}/cafeteria.d/*");
    server
        .run(&files)
        .ok()
        .lines()
        .filter(|line| line.split([' ', ';']).find(|word| !word.is_empty()) == Some(directive))
        .count()
}

/// nginx takes its configuration, and clients and the repository's host get to the app and the listener.
#[track_caller]
fn works(server: &Server) {
    server.run("nginx -t -q").ok();
    eventually("the site serves", || server.run("curl --silent http://127.0.0.1/").stdout == "v1\n");
    // It is not signed.
    let push = "curl --silent --output /dev/null --write-out '%{http_code}' --data '{}' http://127.0.0.1/.cutover/push";
    eventually("the listener answers", || server.run(push).stdout == "401");
}

/// nginx does not know a directive in this file.
#[track_caller]
fn is_refused(ran: &Ran, file: &str) {
    let is_told = ran.stderr.contains("unknown directive \"") && ran.stderr.contains(&format!("{file}:"));
    assert!(ran.code == 1 && is_told, "{file}: {ran:?}");
}

fn upgrade(server: &Server, home: &str) -> Ran {
    server.run(&format!("timeout 60 $TOOLS/install --home {home}"))
}

#[test]
fn a_first_installation_renders_nothing_that_nginx_does_not_know() {
    for build in BUILDS {
        let Some(server) = deployed_on(build) else { return };
        for directive in build.2.split(' ') {
            assert_eq!(count(&server, directive), 0, "{directive}: {build:?}");
        }
        works(&server);
        upgrade(&server, HOME).is(0, "", &format!("install: nothing to do: cafeteria is laid out in {HOME}\n"));
        server.run(&format!("$TOOLS/install --home {HOME} --remove --force")).ok();
        server.run(&format!("ls {CONF_D}")).is(0, "", "");
    }
}

#[test]
fn an_nginx_with_everything_gets_everything() {
    let Some(server) = deployed_on(FULL) else { return };
    for directive in ["limit_req_zone", "limit_req", "limit_req_status", "keepalive", "stub_status"] {
        assert!(count(&server, directive) > 0, "{directive}");
    }
    works(&server);
}

#[test]
fn connections_to_the_app_are_kept_as_configured() {
    let Some(server) = deployed_on(FULL) else { return };
    let kept = || {
        let found = server.run(&format!("grep -h keepalive {CONF_D}/cafeteria.conf | grep -v '#' | sort -u")).stdout;
        found.lines().map(|line| line.trim().to_owned()).collect::<Vec<String>>()
    };
    assert_eq!(kept(), ["keepalive 32;", "keepalive_timeout 1000ms;"]);
    let cases = [
        ("keepalive = 0", &[][..]),
        ("keepalive = 7\nkeepalive_timeout = \"1m 1s\"", &["keepalive 7;", "keepalive_timeout 61000ms;"][..]),
        ("keepalive_timeout = \"200ms\"", &["keepalive 32;", "keepalive_timeout 200ms;"][..]),
    ];
    for (keys, lines) in cases {
        fs::write(server.config(), with_push() + "[nginx]\n" + keys).unwrap();
        server.install("").ok();
        assert_eq!(kept(), lines, "{keys}");
        works(&server);
    }
    // What the app's user writes into its own copy counts when root's install is run.
    server.run(&format!("sed -i 's/^keepalive_timeout.*/keepalive = 9/' {HOME}/config.toml")).ok();
    let told = server.run(&format!("{HOME}/bin/deploy"));
    assert!(told.stderr.contains("install has not laid yet: [nginx] keepalive: 9 instead of 32"), "{told:?}");
}

#[test]
fn sticky_is_refused_where_nginx_cannot_divide_clients_and_nothing_is_changed() {
    let build = ("1.22.1", "--without-http_split_clients_module", "split_clients");
    let Some(server) = deployed_on(build) else { return };
    let sticky = with_push() + "[nginx]\nsticky = true\n";
    fs::write(server.config(), sticky).unwrap();
    server.install("").fails(2, &["sticky", "this nginx was built without its split_clients module"]);
    assert_eq!(server.served(), "v1\n");
    assert_eq!(count(&server, "split_clients"), 0);
}

#[test]
fn files_that_were_rendered_for_another_nginx_are_rendered_anew() {
    let Some(server) = deployed_on(FULL) else { return };
    for build in BUILDS {
        becomes(&server, build);
        for line in ["nginx -t", "nginx -s reload"] {
            is_refused(&server.run(line), "");
        }
        // What runs goes on, and nothing is in a deploy's way.
        assert_eq!(server.served(), "v1\n");
        server.run(&format!("{HOME}/bin/reload")).ok();
        let planned = server.run(&format!("$TOOLS/install --home {HOME} --dry-run")).ok();
        assert!(planned.contains("lay "), "{planned:?}");
        upgrade(&server, HOME).ok();
        works(&server);
        // And it comes up by itself.
        server.run("nginx -s stop").ok();
        eventually("nginx has ended", || server.run("pgrep --runstates DRST -x nginx").code == 1);
        server.run("nginx").ok();
        works(&server);
        becomes(&server, FULL);
        upgrade(&server, HOME).ok();
        assert!(count(&server, "limit_req") > 0 && count(&server, "keepalive") > 0, "{build:?}");
        works(&server);
    }
}

#[test]
fn a_directive_of_a_newer_rendering_in_whichever_file_does_not_lock_install_out() {
    let Some(server) = deployed_on(FULL) else { return };
    let seal = "text=$(head -n -1 FILE; echo x) text=${text%x}; sum=$(printf %s \"$text\" | sha256sum | cut -c 1-16); printf '%s# as laid: %s\\n' \"$text\" $sum >FILE.new && mv FILE.new FILE";
    let server_conf = format!("{CONF_D}/cafeteria-server.conf");
    // That is how a server block is known as one that nobody has edited.
    let before = server.run(&format!("cat {server_conf}")).ok();
    server.run(&seal.replace("FILE", &server_conf)).ok();
    assert_eq!(server.run(&format!("cat {server_conf}")).ok(), before);
    for file in [
        "cafeteria.conf",
        "cafeteria.d/choice.conf",
        "cafeteria.d/push.conf",
        "cafeteria.d/instance.conf",
        "cafeteria.d/proxy.conf",
    ] {
        server.run(&format!("echo 'directive_of_tomorrow on;' >>{CONF_D}/{file}")).ok();
        is_refused(&server.run("nginx -t"), file);
        upgrade(&server, HOME).ok();
        assert_eq!(count(&server, "directive_of_tomorrow"), 0, "{file}");
        works(&server);
    }
    server.run(&format!("sed -i 's/^    server_name .*/    directive_of_tomorrow on;/' {server_conf}")).ok();
    server.run(&seal.replace("FILE", &server_conf)).ok();
    is_refused(&server.run("nginx -t"), "cafeteria-server.conf");
    upgrade(&server, HOME).ok();
    assert_eq!(server.run(&format!("cat {server_conf}")).ok(), before);
    works(&server);
}

#[test]
fn of_two_apps_with_old_files_each_is_rendered_anew_whichever_comes_first() {
    const OTHER: &str = "/home/mallory/.other";
    let named = with_push() + "[nginx]\nserver_name = \"127.0.0.1\"\n";
    let of_another = "nginx refuses the files of another app of cutover's: run install for that app, too: ";
    for (homes, late) in [([HOME, OTHER], "other"), ([OTHER, HOME], "cafeteria")] {
        let Some(server) = Server::boot() else { return };
        becomes(&server, FULL);
        fs::write(server.config(), &named).unwrap();
        server.install("").ok();
        server.run(&format!("{HOME}/bin/deploy")).ok();
        other(&server, PORTS, "").ok();
        becomes(&server, LIGHT);
        let is_told = |ran: &Ran| {
            ran.stderr.contains("unknown directive \"") && ran.stderr.contains(&format!("\" in {CONF_D}/{late}"))
        };
        // Again: its own files are as they should be by now.
        for _ in 0..2 {
            let ran = upgrade(&server, homes[0]);
            assert!(is_told(&ran), "{ran:?}");
            ran.fails(3, &[of_another]);
            assert_eq!(server.served(), "v1\n");
        }
        // A third one is told the same, and lays nothing.
        let third = named
            .replace("\"cafeteria\"", "\"third\"")
            .replace("\"127.0.0.1\"", "\"third.example\"\nstatus_port = 20400");
        let third = third.replace("[push]\n", "[instances]\nA = 20401\nB = 20402\n[push]\nport = 20403\n");
        fs::write(server.config(), third).unwrap();
        let ran = server.install("");
        assert!(is_told(&ran), "{ran:?}");
        ran.fails(3, &[of_another]);
        server
            .run(&format!("ls -d {CONF_D}/third* /home/potados/.third /var/lib/cutover/third* 2>/dev/null"))
            .is(2, "", "");

        upgrade(&server, homes[1]).ok();
        upgrade(&server, homes[0]).ok();
        works(&server);
        server.install("").ok();
        server.run("nginx -t -q").ok();
    }
}
