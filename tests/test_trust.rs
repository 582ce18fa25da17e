//! Whom root trusts: nothing that the app's user, or anybody else, can change decides what root reads, writes or becomes.

use std::collections::BTreeMap;
use std::fs;

use crate::pty::typed;
use crate::ran::Ran;
use crate::server::{CONFIG, Server};
use crate::site::eventually;

const HOME: &str = "/home/potados/.cafeteria";
const RECORD: &str = "/var/lib/cutover/cafeteria.record";

/// A server on which the app is installed for potados.
fn installed() -> Option<Server> {
    let server = Server::boot()?;
    server.install("").ok();
    Some(server)
}

/// Runs a line as this user.
fn run_as(server: &Server, user: &str, line: &str) -> Ran {
    server.run(&format!("runuser -u {user} -- sh -c \"$(cat <<'END'\n{line}\nEND\n)\""))
}

/// What root has where a trick could put something: each file with its content's hash.
fn of_root(server: &Server) -> String {
    let files = "find /etc /var/lib/cutover /var/spool/cron -xdev -user root -type f ! -path '/etc/nginx/*'";
    server.run(&format!("({files}; ls -d /root/.[a-z]*) | sort | xargs -d '\\n' sha256sum 2>&1")).stdout
}

#[test]
fn root_keeps_a_record_and_upgrades_by_it_and_not_by_what_the_user_writes() {
    let Some(server) = installed() else { return };
    server.run(&format!("stat --format %U:%a {RECORD}")).is(0, "root:644\n", "");
    let record = server.run(&format!("cat {RECORD}")).ok();
    for line in ["user = \"potados\"\n", "home = \"/home/potados/.cafeteria\"\n", "app = \"cafeteria\"\n"] {
        assert!(record.contains(line), "{line:?} is not in {record}");
    }
    assert!(!record.contains("/home/source"), "{record}");
    let upgrade = format!("$TOOLS/install --home {HOME}");
    server.run(&upgrade).is(0, "", &format!("install: nothing to do: cafeteria is laid out in {HOME}\n"));

    let more = "[nginx]\nlisten = [\"81\"]\nstatus_port = 20200\n[health]\npath = \"/other\"\n";
    run_as(&server, "potados", &format!("printf '{more}' >>{HOME}/config.toml")).ok();
    let kept = server.run(&upgrade);
    for line in [
        "install: [nginx] listen: [\"81\"], accepted was [\"80\"]\n",
        "install: it stays as it was accepted; --config /home/potados/.cafeteria/config.toml accepts what it says\n",
    ] {
        assert!(kept.stderr.contains(line), "{line:?} is not in {kept:?}");
    }
    assert!(!kept.stderr.contains("/other"), "what is the user's own to say is no difference: {kept:?}");
    kept.ok();
    assert_eq!(server.run(&format!("cat {RECORD}")).ok(), record);
    server.run("grep -c 'listen 81;' /etc/nginx/conf.d/cafeteria-server.conf").is(1, "0\n", "");

    server.run(&format!("{upgrade} --config {HOME}/config.toml")).ok();
    server.run("grep -c 'listen 81;' /etc/nginx/conf.d/cafeteria-server.conf").is(0, "1\n", "");
    let again = server.run(&upgrade);
    assert!(again.stderr.contains("nothing to do"), "{again:?}");
    server.run(&format!("{upgrade} --remove --force")).ok();
    assert!(!server.path(RECORD).exists());
}

/// What `install` asks root on a terminal.
const QUESTION: &str = "Accept what the configuration in the home says? [y/N]";

#[test]
fn an_upgrade_on_a_terminal_takes_what_the_user_has_changed_after_a_yes_and_only_then() {
    let Some(server) = installed() else { return };
    let record = server.run(&format!("cat {RECORD}")).ok();
    let more = "[nginx]\nlisten = [\"81\"]\nstatus_port = 20200\n";
    run_as(&server, "potados", &format!("printf '{more}' >>{HOME}/config.toml")).ok();
    let upgrade = format!("$TOOLS/install --home {HOME}");
    let difference = "install: [nginx] listen: [\"81\"], accepted was [\"80\"]";
    let listens_on = |port: u16| {
        let line = format!("grep -c 'listen {port};' /etc/nginx/conf.d/cafeteria-server.conf");
        server.run(&line).stdout == "1\n"
    };
    // The last one is the end of what is typed.
    for answer in ["no\n", "\n", "n\n", "yes, but not now\n", "\u{4}"] {
        // What is typed is shown as well, in the midst of a line if it comes early.
        let seen = typed(server.command(&upgrade), answer).replace(['\r', '\n'], "");
        for part in [difference, QUESTION, "install: it stays as it was accepted; --config "] {
            assert!(seen.contains(part), "{answer:?}: {part:?} is not in {seen}");
        }
        assert_eq!(server.run(&format!("cat {RECORD}")).ok(), record, "{answer:?}");
        assert!(listens_on(80) && !listens_on(81), "{answer:?}");
    }
    // What changes nothing asks nothing.
    let planned = typed(server.command(&format!("{upgrade} --dry-run")), "yes\n");
    assert!(planned.contains(difference) && !planned.contains(QUESTION), "{planned}");
    // Neither is asked what nobody could see, or who cannot answer.
    for line in [format!("{upgrade} 2>/dev/null"), format!("{upgrade} </dev/null")] {
        let seen = typed(server.command(&line), "yes\n");
        assert!(!seen.contains(QUESTION) && listens_on(80), "{line}: {seen}");
    }
    let seen = typed(server.command(&upgrade), "yes\n");
    assert!(seen.contains(difference) && seen.contains("install: cafeteria is laid out"), "{seen}");
    assert!(listens_on(81) && !listens_on(80));
    assert_ne!(server.run(&format!("cat {RECORD}")).ok(), record);
    server.run(&upgrade).is(0, "", &format!("install: nothing to do: cafeteria is laid out in {HOME}\n"));
}

#[test]
fn an_installation_without_a_record_is_upgraded_on_a_terminal_after_a_yes_and_only_then() {
    let Some(server) = installed() else { return };
    server.run(&format!("rm {RECORD}")).ok();
    let upgrade = format!("$TOOLS/install --home {HOME} --user potados");
    for answer in ["no\n", "\n"] {
        let seen = typed(server.command(&upgrade), answer);
        for part in [QUESTION, "install: cannot upgrade cafeteria: root has no record of it yet; --config "] {
            assert!(seen.contains(part), "{answer:?}: {part:?} is not in {seen}");
        }
        assert!(!server.path(RECORD).exists(), "{answer:?}");
    }
    let seen = typed(server.command(&upgrade), "y\n");
    assert!(seen.contains("install: root has no record of cafeteria yet") && server.path(RECORD).exists(), "{seen}");
    let again = server.run(&format!("$TOOLS/install --home {HOME}"));
    again.is(0, "", &format!("install: nothing to do: cafeteria is laid out in {HOME}\n"));
}

#[test]
fn an_installation_without_a_record_is_upgraded_when_somebody_accepts_its_configuration() {
    let Some(server) = installed() else { return };
    // As version 0.1.0 left it.
    server.run(&format!("rm {RECORD} {HOME}/.cutover")).ok();
    let upgrade = format!("$TOOLS/install --home {HOME}");
    server.run(&upgrade).fails(2, &["cannot tell whose app /home/potados/.cafeteria is", "say --user potados"]);
    let why = "cannot upgrade cafeteria: root has no record of it yet; --config /home/potados/.cafeteria/config.toml";
    server.run(&format!("{upgrade} --user potados")).fails(2, &[why]);
    server.run(&format!("{upgrade} --user potados --config {HOME}/config.toml")).ok();
    server.run(&upgrade).is(0, "", &format!("install: nothing to do: cafeteria is laid out in {HOME}\n"));
}

#[test]
fn a_home_that_the_user_has_exchanged_makes_root_nobody_else() {
    let Some(server) = installed() else { return };
    server.run(&format!("{HOME}/bin/deploy")).ok();
    run_as(&server, "potados", &format!("mv {HOME} /home/potados/away")).ok();
    let config = "app = \"cafeteria\"\n[source]\ngit = \"/home/source\"\n[build]\ncommand = \"id >/tmp/proof\"\n[run]\ncommand = \"x\"\n[nginx]\nown = true\nlisten = [\"8080\"]\n";
    let before = of_root(&server);
    for place in ["/tmp", "/var/tmp", "/dev/shm"] {
        run_as(
            &server,
            "potados",
            &format!("printf '%s' '{config}' >{place}/config.toml; mkdir -p {place}/bin; ln -sfn {place} {HOME}"),
        )
        .ok();
        let place_mode = server.run(&format!("stat --format %U:%a {place}")).ok();
        for line in [
            format!("$TOOLS/install --home {HOME}"),
            format!("$TOOLS/install --home {HOME}/"),
            format!("$TOOLS/install --home {HOME} --config {HOME}/config.toml"),
            format!("$TOOLS/install --home {HOME} --remove --force"),
            format!("$TOOLS/install --home {HOME} --remove --purge --force"),
            format!("$TOOLS/deploy --home {HOME}"),
            format!("$TOOLS/status --home {HOME}/."),
            format!("CUTOVER_HOME={HOME} $TOOLS/bootup"),
            format!("$TOOLS/install --home {place}"),
            format!("$TOOLS/deploy --home {place}"),
        ] {
            let refused = server.run(&line);
            assert_eq!(refused.code, 2, "{line}: {refused:?}");
        }
        assert_eq!(server.run(&format!("stat --format %U:%a {place}")).ok(), place_mode);
        server.run("ls /tmp/proof /root/.profile.new").fails(2, &[]);
        server.run(&format!("rm -r {place}/config.toml {place}/bin")).ok();
    }
    assert_eq!(of_root(&server), before);
    // And another user's home is not this one's either.
    server.run("mkdir -m 755 /home/mallory/.shop && touch /home/mallory/.shop/precious && chown -R mallory: /home/mallory/.shop").ok();
    run_as(&server, "potados", &format!("ln -sfn /home/mallory/.shop {HOME}")).ok();
    server.run(&format!("$TOOLS/install --home {HOME} --remove --purge --force")).fails(2, &[]);
    server.run("ls /home/mallory/.shop").is(0, "precious\n", "");
}

#[test]
fn root_makes_nobody_but_the_named_user_the_owner() {
    let Some(server) = Server::boot() else { return };
    // Not made yet, in a place that is not root's.
    let refused = server.run("$TOOLS/install --config $CONFIG --home /home/potados/.cafeteria");
    refused.fails(2, &["cannot make /home/potados/.cafeteria a home of root's", "say --user NAME"]);
    // Made, and of somebody else's than the one named.
    run_as(&server, "mallory", "mkdir /home/mallory/.cafeteria").ok();
    let refused = server.run("$TOOLS/install --config $CONFIG --user potados --home /home/mallory/.cafeteria");
    refused.fails(2, &["cannot use /home/mallory/.cafeteria as the home of an app of potados: it belongs to mallory"]);
    server.install("").ok();
    let refused = server.run(&format!("$TOOLS/install --config $CONFIG --user mallory --home {HOME}"));
    refused.fails(2, &["cannot install for mallory: /home/potados/.cafeteria is installed for potados already"]);
    // The name is taken, too.
    let refused = server.run("$TOOLS/install --config $CONFIG --user mallory");
    refused.fails(2, &["cannot use the name cafeteria for /home/mallory/.cafeteria", "of potados"]);
}

#[test]
fn what_root_reads_for_a_user_is_what_that_user_may_read() {
    let Some(server) = Server::boot() else { return };
    let secret = "app = \"shop\"\n[source]\ngit = \"https://bob:ghp_secret@example.org/x\"\n[run]\ncommand = \"x\"\n";
    fs::write(server.path("/home/mallory/config.toml"), secret).unwrap();
    server.run("chown mallory: /home/mallory/config.toml && chmod 600 /home/mallory/config.toml && mkdir -m 700 /run/x && cp /home/mallory/config.toml /run/x/").ok();
    for target in ["/home/mallory/config.toml", "/run/x/config.toml", "/dev/zero", "/proc/kmsg"] {
        run_as(&server, "potados", &format!("ln -sf {target} /home/potados/shop.toml")).ok();
        let refused = server.run("timeout 20 $TOOLS/install --config /home/potados/shop.toml --user potados --dry-run");
        assert!(refused.code == 2 && !refused.stderr.contains("ghp_"), "{target}: {refused:?}");
    }
    run_as(&server, "potados", "rm /home/potados/shop.toml && mkfifo /home/potados/shop.toml").ok();
    server
        .run("timeout 20 $TOOLS/install --config /home/potados/shop.toml --user potados")
        .fails(2, &["it is no file"]);
    // In an installed home neither.
    server.install("").ok();
    run_as(&server, "potados", &format!("ln -sf /home/mallory/config.toml {HOME}/config.toml")).ok();
    server
        .run(&format!("$TOOLS/install --home {HOME}"))
        .fails(2, &["cannot read /home/potados/.cafeteria/config.toml: Too many levels of symbolic links"]);
}

#[test]
fn files_of_others_are_refused_by_name_before_anything_is_changed_and_never_removed() {
    let Some(server) = Server::boot() else { return };
    let conf_d = "/etc/nginx/conf.d";
    let theirs = "server { listen 8089; }\n";
    let config = |app: &str| CONFIG.replace("\"cafeteria\"", &format!("\"{app}\""));
    for (app, file) in [
        ("default", "default.conf"),
        ("shop", "shop-server.conf"),
        ("shop", "shop.d/proxy.conf"),
        ("cafe", "cafe.conf"),
    ] {
        server.run(&format!("mkdir -p $(dirname {conf_d}/{file}) && printf '{theirs}' >{conf_d}/{file}")).ok();
        fs::write(server.config(), config(app)).unwrap();
        let refused = server.install("");
        refused.fails(2, &[&format!("cannot lay {conf_d}/{file}: one that is not this app's is there; move it away")]);
        server.run(&format!("cat {conf_d}/{file}; ls -A /home/potados /var/lib/cutover")).is(
            0,
            &format!("{theirs}/home/potados:\n\n/var/lib/cutover:\n"),
            "",
        );
        server.run(&format!("rm {conf_d}/{file}; rmdir {conf_d}/*.d 2>/dev/null || true")).ok();
    }
    // An app whose files would have the names of another's.
    fs::write(server.config(), config("shop")).unwrap();
    server.install("").ok();
    let other = config("shop-server").replace(
        "[source]",
        "[instances]\nA = 20301\nB = 20302\n[nginx]\nstatus_port = 20300\nlisten = [\"81\"]\n[source]",
    );
    fs::write(server.config(), other).unwrap();
    let shop = server.run(&format!("cat {conf_d}/shop-server.conf {conf_d}/shop.conf")).ok();
    server.run("$TOOLS/install --config $CONFIG --user mallory").ok();
    assert_eq!(server.run(&format!("cat {conf_d}/shop-server.conf {conf_d}/shop.conf")).ok(), shop);
    server.run("$TOOLS/install --home /home/mallory/.shop-server --remove --force").ok();
    assert_eq!(server.run(&format!("cat {conf_d}/shop-server.conf {conf_d}/shop.conf")).ok(), shop);
    // What was put in the place of ours is not removed with it.
    server.run(&format!("printf '{theirs}' >{conf_d}/shop-server.conf")).ok();
    server.run("$TOOLS/install --home /home/potados/.shop --remove --force").ok();
    server.run(&format!("cat {conf_d}/shop-server.conf; ls {conf_d}")).is(
        0,
        &format!("{theirs}shop-server.conf\n"),
        "",
    );
}

#[test]
fn a_directory_that_is_no_home_is_not_made_one_nor_removed() {
    let Some(server) = Server::boot() else { return };
    for (app, file) in [("config", "some/settings"), ("ssh", "id_ed25519"), ("cargo", "config.toml"), ("npm", "x")] {
        let home = format!("/home/potados/.{app}");
        run_as(&server, "potados", &format!("mkdir -p $(dirname {home}/{file}) && echo mine >{home}/{file}")).ok();
        fs::write(server.config(), CONFIG.replace("\"cafeteria\"", &format!("\"{app}\""))).unwrap();
        let why = format!("cannot use {home} as the home of {app}: it is there and is none; say --home DIR");
        server.install("").fails(2, &[&why]);
        server.install("--remove --purge --force").fails(2, &[&why]);
        server.run(&format!("cd {home} && find . -type f | xargs cat")).is(0, "mine\n", "");
    }
    // An empty one is as good as a new one.
    run_as(&server, "potados", "mkdir /home/potados/.cafeteria").ok();
    fs::write(server.config(), CONFIG).unwrap();
    server.install("").ok();
}

#[test]
fn nginx_s_files_go_only_where_nginx_reads_them_and_root_alone_can_write() {
    let Some(server) = Server::boot() else { return };
    server
        .run("mkdir -m 1777 /run/open && mkdir /run/open/x /run/other.d && ln -s /etc/nginx/conf.d /run/linked.d")
        .ok();
    for (place, why) in [
        ("/run/open/x/y", "that nobody but root can change"),
        ("/run/open/x", "that nobody but root can change"),
        ("conf.d", "that nobody but root can change"),
        ("/proc/self/cwd", "that nobody but root can change"),
        ("/run/linked.d", "by its real path"),
        ("/etc/nginx/../nginx/conf.d", "by its real path"),
        ("/run/other.d", "nginx includes no /run/other.d/*.conf in its http block"),
        ("/etc", "nginx includes no /etc/*.conf in its http block"),
    ] {
        fs::write(server.config(), format!("{CONFIG}[nginx]\nconf_dir = \"{place}\"\n")).unwrap();
        let refused = server.install("");
        assert!(refused.code == 2 && refused.stderr.contains(why), "{place}: {refused:?}");
        server.run("ls -A /home/potados /run/open/x /run/other.d").is(
            0,
            "/home/potados:\n\n/run/open/x:\n\n/run/other.d:\n",
            "",
        );
    }
}

#[test]
fn another_site_s_name_is_refused() {
    let Some(server) = installed() else { return };
    server.run(&format!("sed -i 's/server_name _/server_name cafe.example.org/' {HOME}/config.toml")).ok();
    let named = format!("{CONFIG}[nginx]\nserver_name = \"cafe.example.org\"\n");
    fs::write(server.config(), &named).unwrap();
    server.install("").ok();
    let other = named.replace("\"cafeteria\"", "\"aaa\"");
    let other = other.replace("[source]", "[instances]\nA = 20301\nB = 20302\n[source]") + "status_port = 20300\n";
    fs::write(server.config(), other).unwrap();
    let refused = server.run("$TOOLS/install --config $CONFIG --user mallory");
    refused.fails(3, &["conflicting server name \"cafe.example.org\"", "give the app another server_name in [nginx]"]);
    server.run("ls /etc/nginx/conf.d").is(0, "cafeteria-server.conf\ncafeteria.conf\ncafeteria.d\n", "");
}

#[test]
fn a_port_of_another_app_is_refused_though_nobody_listens_there() {
    let Some(server) = installed() else { return };
    let install = |processes: usize, a: u16, b: u16, status: u16| {
        let text = CONFIG.replace("\"cafeteria\"", "\"other\"");
        let text = text.replace("[run]\n", &format!("[run]\nprocesses = {processes}\n"));
        let ports = format!("[instances]\nA = {a}\nB = {b}\n[nginx]\nstatus_port = {status}\nlisten = [\"81\"]\n");
        fs::write(server.config(), text + &ports).unwrap();
        server.run("$TOOLS/install --config $CONFIG --user mallory")
    };
    for (processes, a, b, status, taken) in [
        (1, 20201, 20302, 20300, 20201),
        (1, 20302, 20202, 20300, 20202),
        // That of a second process, which the first app has not, and which this one's first would be.
        (1, 20211, 20302, 20300, 20211),
        (2, 20191, 20302, 20300, 20201),
        (1, 20301, 20302, 20200, 20200),
    ] {
        let why = format!("cannot use port {taken}: it is that of the app");
        install(processes, a, b, status).fails(3, &[&why]);
        server.run("ls -A /home/mallory").is(0, "", "");
    }
    install(1, 20301, 20302, 20300).ok();
}

#[test]
fn what_was_edited_or_deleted_of_nginx_s_files_is_put_back_and_used() {
    let Some(server) = installed() else { return };
    server.run(&format!("{HOME}/bin/deploy")).ok();
    for harm in
        ["rm /etc/nginx/conf.d/cafeteria.d/proxy.conf", "echo 'return 503;' >>/etc/nginx/conf.d/cafeteria.d/proxy.conf"]
    {
        server.run(&format!("{harm}; nginx -s reload; true")).ok();
        server.run(&format!("$TOOLS/install --home {HOME}")).ok();
        eventually("nginx uses the files that were put back", || {
            let all = "for i in 1 2 3 4 5 6 7 8; do curl --silent http://127.0.0.1/; done";
            server.run(all).stdout == "v1\n".repeat(8)
        });
    }
}

#[test]
fn a_deploy_at_the_end_of_install_gets_nothing_of_root_s() {
    let Some(server) = installed() else { return };
    let hook = "#!/bin/sh\ncat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | grep -c AWS_SECRET >/home/potados/seen\nls -l /proc/*/fd 2>/dev/null | grep -c /root/open >>/home/potados/seen\ntrue\n";
    fs::write(server.path(&format!("{HOME}/hooks/before-build")), hook).unwrap();
    server.run(&format!("chmod 755 {HOME}/hooks/before-build && touch /root/open")).ok();
    let install =
        "AWS_SECRET_ACCESS_KEY=AWS_SECRET $TOOLS/install --config $CONFIG --user potados --deploy 7</root/open";
    let deployed = server.run(install);
    assert!(deployed.stderr.contains("deploy: A is enabled, "), "{deployed:?}");
    deployed.ok();
    assert_eq!(server.served(), "v1\n");
    server.run("cat /home/potados/seen").is(0, "0\n0\n", "");
    server.run("cd /home/source && rm server.py && runuser -u potados -- git -c user.name=p -c user.email=p@example.org commit --quiet --all --message v2").ok();
    server.run(install).fails(3, &["deploy: cannot start B: it died: "]);
}

#[test]
fn somebody_else_on_an_instance_s_port_is_no_answer_of_the_app_s() {
    let Some(server) = installed() else { return };
    server.run(&format!("{HOME}/bin/deploy")).ok();
    let hijack = "import http.server\\nclass H(http.server.BaseHTTPRequestHandler):\\n  def do_GET(self):\\n    self.send_response(200)\\n    self.end_headers()\\n    self.wfile.write(b\\\"HIJACKED\\\")\\nhttp.server.HTTPServer((\\\"127.0.0.1\\\",20202),H).serve_forever()\\n";
    server
        .run(&format!(
            "printf \"{hijack}\" >/home/mallory/hijack.py && runuser -u mallory -- python3 /home/mallory/hijack.py >/dev/null 2>&1 &"
        ))
        .ok();
    eventually("mallory listens", || server.run("curl --silent http://127.0.0.1:20202/").stdout == "HIJACKED");
    let status = server.run(&format!("{HOME}/bin/status"));
    assert!(status.stdout.contains("port 20202 is held by a process of user mallory, not by cafeteria"), "{status:?}");
    server.run("cd /home/source && echo v2 >VERSION && runuser -u potados -- git -c user.name=p -c user.email=p@example.org commit --quiet --all --message v2").ok();
    let deployed = server.run(&format!("{HOME}/bin/deploy"));
    deployed.fails(3, &["a process of user mallory"]);
    server.run(&format!("{HOME}/bin/connect-to-nginx B")).fails(3, &["mallory"]);
    assert_eq!(server.served(), "v1\n");
}

/// What root looked at, opened or changed below the home while a command ran, a line each.
///
/// Each process has the user id that its parent had when it made it, until it says otherwise.
fn by_root_below(server: &Server, command: &str, home: &str) -> Vec<String> {
    let trace = "/run/trace";
    // An nginx that it starts goes on, and strace with it, until it is told to end.
    let strace = format!("strace -I1 -f -qq -s 300 -o {trace} -e trace=%file,%process,setresuid");
    let ran = server.run(&format!(
        "rm -f /run/code; {strace} sh -c '{command}; echo $? >/run/code' & \
        while ! test -s /run/code; do sleep 0.05; done; kill $! 2>/dev/null; exit $(cat /run/code)"
    ));
    assert_eq!(ran.code, 0, "{ran:?}");
    let text = server.run(&format!("cat {trace}; rm {trace}")).ok();
    let calls = whole_calls(&text);
    let mut user_of: BTreeMap<&str, bool> = BTreeMap::new();
    let mut parent_of: BTreeMap<&str, &str> = BTreeMap::new();
    for (pid, call) in &calls {
        let is_new = ["clone", "fork", "vfork"].iter().any(|name| call.starts_with(name));
        if let Some((_, child)) = call.rsplit_once(" = ").filter(|_| is_new) {
            parent_of.insert(child, pid);
        }
    }
    let mut found = Vec::new();
    for (pid, call) in &calls {
        let of_parent = parent_of.get(pid).and_then(|parent| user_of.get(parent)).copied().unwrap_or(true);
        let is_root = user_of.entry(pid).or_insert(of_parent);
        if let Some(ids) = call.strip_prefix("setresuid(").filter(|_| call.ends_with("= 0")) {
            match ids.split([',', ')']).nth(1).map(str::trim) {
                Some("-1") | None => {}
                Some(effective) => *is_root = effective == "0",
            }
        }
        if *is_root && call.contains(&format!("\"{home}/")) && !call.starts_with("execve(\"/usr/bin/strace") {
            found.push(format!("{pid} {call}"));
        }
    }
    found
}

/// The calls of a trace, each with its process's id. strace tells of one in two parts when another process is seen meanwhile.
fn whole_calls(trace: &str) -> Vec<(&str, String)> {
    let mut begun: BTreeMap<&str, &str> = BTreeMap::new();
    let mut calls = Vec::new();
    for (pid, call) in trace.lines().filter_map(|line| line.split_once(' ')) {
        let call = call.trim_start();
        if let Some(first) = call.strip_suffix(" <unfinished ...>") {
            begun.insert(pid, first);
        } else if let Some((_, rest)) = call.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>")) {
            calls.push((pid, format!("{}{rest}", begun.remove(pid).unwrap_or_default())));
        } else {
            calls.push((pid, call.to_owned()));
        }
    }
    calls
}

#[test]
fn root_looks_at_nothing_below_a_home() {
    let Some(server) = Server::boot() else { return };
    server.install("").ok();
    server.run(&format!("{HOME}/bin/deploy")).ok();
    fs::write(server.config(), format!("{CONFIG}timeout = \"50s\"\n")).unwrap();
    for command in [
        format!("$TOOLS/install --config $CONFIG --user potados --home {HOME}"),
        format!("$TOOLS/install --home {HOME}"),
        format!("$TOOLS/install --home {HOME} --dry-run"),
        format!("$TOOLS/install --home {HOME} --remove --force"),
        format!("$TOOLS/install --config $CONFIG --user potados --home {HOME}"),
        format!("$TOOLS/install --home {HOME} --remove --force --purge"),
    ] {
        let found = by_root_below(&server, &command, HOME);
        assert!(found.is_empty(), "{command}: {found:#?}");
    }
}

#[test]
fn an_nginx_of_the_user_s_own_is_run_by_the_user_alone() {
    let Some(server) = Server::boot() else { return };
    let own = "[nginx]\nown = true\nlisten = [\"8080\"]\nstatus_port = 20300\n";
    fs::write(server.config(), format!("{CONFIG}{own}")).unwrap();
    let install = format!("$TOOLS/install --config $CONFIG --user potados --home {HOME}");
    assert_eq!(by_root_below(&server, &install, HOME), Vec::<String>::new());
    server.run(&format!("{HOME}/bin/deploy")).ok();
    // What the user has in it, root must not open: and somebody else answers in the app's place, which is looked into.
    let conf = format!("{HOME}/nginx/conf.d/a.conf");
    run_as(&server, "potados", &format!("printf 'access_log /home/potados/as-whom;\\nserver {{ listen 8080 default_server; return 404; }}\\n' >{conf}")).ok();
    run_as(&server, "potados", &format!("nginx -p {HOME}/nginx -c nginx.conf -s reload")).ok();
    eventually("the other answers", || server.run("curl --silent --fail http://127.0.0.1:8080/").code == 22);
    fs::write(server.config(), format!("{CONFIG}timeout = \"50s\"\n{own}")).unwrap();
    server.run(&install).fails(3, &["/nginx/conf.d/a.conf is in front"]);
    server.run("stat --format %U /home/potados/as-whom").is(0, "potados\n", "");
    // A file that never ends, or never begins, in place of its number holds nobody up.
    for what in ["mkfifo", "ln -s /dev/zero"] {
        run_as(&server, "potados", &format!("cd {HOME}/nginx && mv nginx.pid pid && {what} nginx.pid")).ok();
        let ran = server.run(&format!("timeout 60 $TOOLS/install --home {HOME} --user potados --config $CONFIG"));
        assert_ne!(ran.code, 124, "{ran:?}");
        run_as(&server, "potados", &format!("cd {HOME}/nginx && mv pid nginx.pid")).ok();
    }
}

#[test]
fn the_script_for_codedeploy_becomes_the_recorded_user_whatever_the_home_has_become() {
    let Some(server) = installed() else { return };
    server.run(&format!("{HOME}/bin/deploy")).ok();
    // What the agent has unpacked, as root.
    server.run("mkdir -m 1777 /run/open && mkdir /run/archive && cp /home/source/* /run/archive/").ok();
    fs::copy(
        concat!(env!("CARGO_MANIFEST_DIR"), "/examples/codedeploy/deploy.sh"),
        server.path("/run/archive/deploy.sh"),
    )
    .unwrap();
    server.run("echo v2 >/run/archive/VERSION").ok();
    let deploys = || server.run("cd / && timeout 60 /run/archive/deploy.sh");
    deploys().ok();
    assert_eq!(server.served(), "v2\n");

    // A program in each place that tells whose it is run as.
    fs::write(server.path("/run/open/deploy"), "#!/bin/sh\nid -u >>/run/open/ran; id -G >>/run/open/ran\n").unwrap();
    server.run("chmod 755 /run/open/deploy && mkdir -p /run/roots/bin && cp /run/open/deploy /run/roots/bin/").ok();
    for (user, place) in
        [("potados", "/run/open/own"), ("potados", "/home/potados/own"), ("mallory", "/home/mallory/own")]
    {
        run_as(&server, user, &format!("mkdir -p {place}/bin && cp /run/open/deploy {place}/bin/")).ok();
    }
    run_as(&server, "potados", &format!("mv {HOME} /home/potados/away && chmod 755 /home/potados")).ok();
    for becomes in [
        format!("ln -sfn /run/open/own {HOME}"),
        format!("ln -sfn /home/mallory/own {HOME}"),
        format!("ln -sfn /run/roots {HOME}"),
        format!("rm {HOME} && mv /home/potados/own {HOME}"),
        format!("ln -sf /run/roots/bin/deploy {HOME}/bin/deploy"),
    ] {
        run_as(&server, "potados", &becomes).ok();
        deploys().ok();
        let ran = server.run("cat /run/open/ran; rm -f /run/open/ran");
        ran.is(0, "15000\n15000\n", "");
    }
    // Without a record nobody is known, whoever has the home.
    for harm in [
        format!("mv {RECORD} /run/record"),
        format!("sed 's|^home = .*|home = \"/home/potados\"|' /run/record >{RECORD}"),
    ] {
        server.run(&harm).ok();
        deploys().fails(2, &["cannot tell whose app /home/potados/.cafeteria is: root has not installed one there"]);
        server.run("ls /run/open/ran").fails(2, &[]);
    }
}

#[test]
fn no_app_s_record_can_be_taken_for_another_s() {
    let Some(server) = installed() else { return };
    let record = server.run(&format!("cat {RECORD}")).ok();
    for line in ["home = \\\"/home/potados/.cafeteria\\\"", "user = \\\"mallory\\\""] {
        for (key, value) in [
            ("server_name", format!("\"x\\n{line}\\n\"")),
            ("listen", format!("[\"81\", \"x\\n{line}\\n\"]")),
            ("check", format!("\"x\\n{line}\\n\"")),
            ("conf_dir", format!("\"/x\\n{line}\\n\"")),
        ] {
            let text = CONFIG.replace("\"cafeteria\"", "\"other\"");
            let ports = "[instances]\nA = 20301\nB = 20302\n[nginx]\nstatus_port = 20300\n";
            fs::write(server.config(), format!("{text}{ports}{key} = {value}\n")).unwrap();
            let refused = server.run("$TOOLS/install --config $CONFIG --user mallory");
            assert_eq!(refused.code, 2, "{key}: {refused:?}");
            let alike = "grep -lxF 'home = \"/home/potados/.cafeteria\"' /var/lib/cutover/*.record";
            server.run(alike).is(0, &format!("{RECORD}\n"), "");
        }
    }
    assert_eq!(server.run(&format!("cat {RECORD}")).ok(), record);
}
