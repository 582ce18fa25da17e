//! Whom root trusts: what lies beside the known tricks with homes, the parts of a home, the state directory and files that
//! root reads for a user.

use std::fs;

use crate::ran::Ran;
use crate::server::{CONFIG, Server};

const HOME: &str = "/home/potados/.cafeteria";
const STATE: &str = "/var/lib/cutover/cafeteria";

/// A server on which the app is installed for potados and deployed.
fn deployed() -> Option<Server> {
    let server = Server::boot()?;
    server.install("").ok();
    server.run(&format!("{HOME}/bin/deploy")).ok();
    Some(server)
}

/// Runs a line as this user.
fn run_as(server: &Server, user: &str, line: &str) -> Ran {
    server.run(&format!("runuser -u {user} -- sh -c \"$(cat <<'END'\n{line}\nEND\n)\""))
}

/// Runs a tool as root with little memory and little time; 137 when either is not enough.
fn confined(server: &Server, line: &str) -> Ran {
    server.run(&format!("timeout --signal=KILL 30 prlimit --as=400000000 --core=0 -- $TOOLS/{line}"))
}

/// What root has where a trick could change something, by name, owner, mode, size and target.
fn of_root(server: &Server) -> String {
    let places = "/etc /run/precious /var/lib/cutover /var/spool/cron";
    let what = "-printf '%p %U %m %s %l\\n'";
    server
        .run(&format!("(find {places} -xdev ! -path '{STATE}/*' {what}; stat -c '%n %U %a' /tmp /dev/shm) | sort"))
        .ok()
}

/// A file and a directory of root's that nobody else may read.
fn lay_precious(server: &Server) {
    server.run("mkdir -m 700 /run/precious && echo kept >/run/precious/file && chmod 600 /run/precious/file").ok();
}

#[test]
fn a_link_in_the_middle_of_a_homes_path_leads_root_nowhere() {
    let Some(server) = deployed() else { return };
    server.run("mount -t tmpfs -o mode=1777 none /dev/shm").ok();
    lay_precious(&server);
    for made in [
        // A link to the user's own directory, one to a place that all may write to, one that leads up, a long chain.
        "mkdir real && cp -a .cafeteria real/ && ln -s real way",
        "mkdir /dev/shm/.cafeteria && cp -a .cafeteria/. /dev/shm/.cafeteria && ln -s /dev/shm shm",
        "mkdir -p up/inner && cp -a .cafeteria up/ && ln -s .. up/inner/back",
        "ln -s real one && ln -s one two && ln -s two three",
    ] {
        run_as(&server, "potados", &format!("cd /home/potados && {made}")).ok();
    }
    let before = of_root(&server);
    for home in ["way", "shm", "up/inner/back", "three"].map(|way| format!("/home/potados/{way}/.cafeteria")) {
        for line in [
            format!("install --home {home}"),
            format!("install --home {home} --remove --purge --force"),
            format!("install --home {home} --config $CONFIG --user potados"),
            format!("deploy --home {home}"),
            format!("history --home {home}"),
            format!("logs --home {home}"),
        ] {
            confined(&server, &line).fails(2, &["cannot open home ", &home, "a part of its path is a link"]);
        }
    }
    assert_eq!(of_root(&server), before);
    assert_eq!(server.served(), "v1\n");
}

#[test]
fn what_is_no_home_of_the_owners_is_refused_whatever_it_is() {
    let Some(server) = deployed() else { return };
    run_as(&server, "potados", &format!("mv {HOME} /home/potados/kept")).ok();
    let before = of_root(&server);
    for (made, user) in [
        ("touch {H}", "potados"),
        ("mkfifo {H}", "potados"),
        ("ln -s /nowhere {H}", "potados"),
        ("ln -s {H} {H}", "potados"),
        ("ln -s /dev/zero {H}", "potados"),
        // By root's hand: a copy that is another user's, and one that is root's.
        ("cp -a /home/potados/kept {H} && chown -R mallory: {H}", "root"),
        ("cp -a /home/potados/kept {H} && chown -R root: {H}", "root"),
    ] {
        run_as(&server, user, &made.replace("{H}", HOME)).ok();
        for line in ["install", "install --remove --purge --force", "deploy", "status", "bootup"] {
            let ran = confined(&server, &format!("{line} --home {HOME}"));
            assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{made}: {line}: {ran:?}");
        }
        assert_eq!(of_root(&server), before, "{made}");
        server.run(&format!("rm -r {HOME}")).ok();
    }
    assert_eq!(server.served(), "v1\n");
}

#[test]
fn a_link_in_place_of_a_part_of_a_home_costs_nobody_else_anything() {
    let Some(server) = deployed() else { return };
    lay_precious(&server);
    run_as(&server, "mallory", "mkdir -m 700 /home/mallory/own && echo mine >/home/mallory/own/file").ok();
    let before = of_root(&server);
    for part in
        ["bin", "releases", "instances", "hooks", "logs", "run", "queue", "env", ".cutover", "repo.git", "bin/install"]
    {
        for target in ["/run/precious", "/run/precious/file", "/home/mallory/own", "/etc"] {
            let place = format!("{HOME}/{part}");
            let swap = format!("{{ [ ! -e {place} ] || mv {place} /home/potados/saved; }} && ln -s {target} {place}");
            run_as(&server, "potados", &swap).ok();
            for line in ["install", "update-instance", "status", "logs"] {
                let ran = confined(&server, &format!("{line} --home {HOME}"));
                assert!([0, 1, 2, 3].contains(&ran.code), "{part} is a link to {target}: {line}: {ran:?}");
                assert!(!ran.stdout.contains("kept") && !ran.stderr.contains("panicked"), "{part}: {line}: {ran:?}");
            }
            let back = format!("rm -rf {place}; [ ! -e /home/potados/saved ] || mv /home/potados/saved {place}");
            run_as(&server, "potados", &back).ok();
        }
        assert_eq!(of_root(&server), before, "{part}");
        server.run("cat /run/precious/file /home/mallory/own/file; ls /home/mallory/own").is(
            0,
            "kept\nmine\nfile\n",
            "",
        );
    }
    server.run(&format!("$TOOLS/install --home {HOME}")).ok();
    assert_eq!(server.served(), "v1\n");
}

#[test]
fn whatever_the_user_makes_of_the_state_directory_nothing_outside_is_touched() {
    let Some(server) = deployed() else { return };
    lay_precious(&server);
    let before = of_root(&server);
    for trick in [
        "rm -r {S}/A && ln -s /run/precious {S}/A",
        "rm {S}/A/A && ln -s /run/precious/file {S}/A/A",
        "ln -sfn /run/precious {S}/enabled",
        "rm {S}/enabled && mkdir -p {S}/enabled/full",
        "rm -r {S}/B && mkfifo {S}/B",
        "ln -s /run/precious {S}/.enabled.new && ln -s /run/precious {S}/.A.new && ln -s /run/precious/file {S}/A/.A.new",
        "rm {S}/A/A && mkdir {S}/A/A && ln -s /run/precious/file {S}/A/A/link",
        "ln -s /run/precious {S}/workers && ln -s /run/precious/file {S}/A/4.processes && ln -s /run/precious {S}/push.sock",
        "ln -sfn ../cafeteria.record {S}/enabled",
        "mkdir -p {S}/deep/$(seq -s / 300) && chmod 0 {S}/deep",
    ] {
        run_as(&server, "potados", &trick.replace("{S}", STATE)).ok();
        for line in ["install", "status", "enabled-instance", "install --remove --force"] {
            let ran = confined(&server, &format!("{line} --home {HOME}"));
            assert!([0, 1, 2, 3].contains(&ran.code) && !ran.stderr.contains("panicked"), "{trick}: {line}: {ran:?}");
        }
        server.run("cat /run/precious/file && stat -c '%U %a' /run/precious/file /run/precious").is(
            0,
            "kept\nroot 600\nroot 700\n",
            "",
        );
        assert!(!server.path(STATE).exists(), "{trick}: the state directory is removed all the same");
        server.install("").ok();
        server.run(&format!("{HOME}/bin/deploy")).ok();
    }
    assert_eq!(of_root(&server), before);
}

/// What may lie where a file is expected. {G} is a good configuration, {F} the place.
const KINDS: [(&str, &str, &str); 14] = [
    ("a pipe", "mkfifo {F}", "it is no file"),
    ("a socket", "python3 -c 'import socket as s; s.socket(s.AF_UNIX).bind(\"{F}\")'", "it is no file"),
    ("a directory", "mkdir {F}", "Is a directory"),
    ("a terminal behind a link", "ln -s /dev/tty {F}", ""),
    ("standard input behind a link", "ln -s /dev/stdin {F}", ""),
    ("root's environment behind a link", "ln -s /proc/self/environ {F}", ""),
    ("a sparse file of 2 GB", "truncate -s 2G {F}", "it holds more than"),
    ("a file that its owner may not read", "cp {G} {F} && chmod 0 {F}", "Permission denied"),
    ("no UTF-8", "printf 'app = \"\\377\"' >{F}", "it is not UTF-8"),
    ("a null byte", "printf 'app = \"x\\000y\"' >{F}", "line 1: "),
    ("a deep array", "python3 -c 'print(\"a=\" + \"[\" * 100000)' >{F}", "max recursion depth met"),
    ("a deep table", "python3 -c 'print(\"a=\" + \"{a=\" * 100000)' >{F}", "max recursion depth met"),
    ("twenty thousand workers", "python3 -c 'print(\"[[worker]]\\n\" * 20000)' >{F}", "missing key `name`"),
    ("3 MB of comments", "head -c 3000000 /dev/zero | tr '\\000' '#' >{F}", "missing key `app`"),
];

#[test]
fn no_kind_of_file_in_place_of_a_configuration_holds_root_up_or_is_read_for_somebody_else() {
    let Some(server) = deployed() else { return };
    run_as(&server, "potados", &format!("cp {HOME}/config.toml /home/potados/good")).ok();
    for (kind, made, reason) in KINDS {
        for (place, lines) in [
            ("/home/potados/c.toml", &["install --user potados --config /home/potados/c.toml"][..]),
            (&format!("{HOME}/config.toml"), &["install", "install --dry-run", "status", "deploy --dry-run"]),
        ] {
            let made = made.replace("{G}", "/home/potados/good").replace("{F}", place);
            run_as(&server, "potados", &format!("rm -rf {place} && {made}")).ok();
            for line in lines {
                let ran = confined(&server, &format!("{line} --home {HOME} <&-"));
                ran.fails(2, &["cannot ", reason]);
                assert!(!ran.stderr.contains("PATH="), "{kind}: {line}: {ran:?}");
            }
        }
    }
    server.run(&format!("$TOOLS/install --home {HOME} --config $CONFIG")).ok();
    assert_eq!(server.served(), "v1\n");
}

#[test]
fn what_the_user_writes_into_its_configuration_is_not_what_root_goes_by() {
    let Some(server) = deployed() else { return };
    let record = server.run("cat /var/lib/cutover/cafeteria.record").stdout;
    let nginx = server.run("cat /etc/nginx/conf.d/cafeteria*.conf /etc/nginx/conf.d/cafeteria.d/*").ok();
    let section = |section: &str, line: &str| CONFIG.replace(&format!("{section}\n"), &format!("{section}\n{line}\n"));
    for (text, difference) in [
        (CONFIG.replace("\"cafeteria\"", "\"other\""), "app: "),
        (format!("{CONFIG}[nginx]\nlisten = [\"unix:/etc/nginx/x.sock\"]\n"), "[nginx] listen: "),
        (format!("{CONFIG}[nginx]\nserver_name = \"bank.example\"\n"), "[nginx] server_name: "),
        (format!("{CONFIG}[nginx]\nconf_dir = \"/etc/nginx/modules-enabled\"\n"), "[nginx] conf_dir: "),
        (format!("{CONFIG}[nginx]\nown = true\nlisten = [\"8080\"]\n"), "[nginx] own: "),
        (section("[run]", "nice = -20"), "[run] nice: "),
        (section("[run]", "open_files = 1000000"), "[run] open_files: "),
        (format!("{CONFIG}[push]\nrepository = \"a/b\"\n"), "[push]"),
    ] {
        fs::write(server.path("/home/potados/new.toml"), &text).unwrap();
        run_as(&server, "potados", &format!("cat /home/potados/new.toml >{HOME}/config.toml")).ok();
        let kept = confined(&server, &format!("install --home {HOME}"));
        assert!(kept.stderr.contains(&format!("install: {difference}")), "{difference:?}: {kept:?}");
        assert!(kept.stderr.contains(", accepted was ") && kept.code == 0, "{difference:?}: {kept:?}");
        assert_eq!(server.run("cat /var/lib/cutover/cafeteria.record").stdout, record, "{difference}");
        let laid = server.run("cat /etc/nginx/conf.d/cafeteria*.conf /etc/nginx/conf.d/cafeteria.d/*").ok();
        assert_eq!(laid, nginx, "{difference}");
    }
}
