//! What is somebody else's is never overwritten nor removed, and two apps never meet: names, units, directories and
//! ports beside those that are known.

use std::fs;

use crate::ran::Ran;
use crate::server::{CONFIG, Server};
use crate::site::eventually;

const CONF_D: &str = "/etc/nginx/conf.d";
const PUSH: &str = "[push]\nrepository = \"a/b\"\npoll = \"1m\"\n";

/// A configuration of another app, with other ports; `more` follows in its `[nginx]`.
fn other(app: &str, instances: &str, more: &str) -> String {
    let text = CONFIG.replace("\"cafeteria\"", &format!("\"{app}\""));
    format!("{text}{PUSH}port = 20303\n[instances]\n{instances}[nginx]\nstatus_port = 20300\n{more}")
}

const AB: &str = "A = 20301\nB = 20302\n";

fn install(server: &Server, text: &str, user: &str) -> Ran {
    fs::write(server.config(), text).unwrap();
    server.run(&format!("timeout 60 $TOOLS/install --config $CONFIG --user {user}"))
}

/// All that lies where installations lie, by name, owner, mode and target.
fn laid(server: &Server) -> String {
    let places = "/etc/nginx /etc/systemd /etc/sudoers.d /var/lib/cutover /home";
    server.run(&format!("find {places} -printf '%p %U %m %s %l\\n' | sort")).ok()
}

/// A systemctl that also knows whose a unit is: the first file of its name in the places that systemd looks at.
fn like_systemd(server: &Server) {
    let directory = server.like_systemd();
    let units = "/etc/systemd/system /run/systemd/system /usr/lib/systemd/system";
    let script = format!(
        "#!/bin/sh\nif [ \"$1 $2 $3\" = 'show --property=FragmentPath --value' ]; then\n\
         template=$(echo \"$4\" | sed 's/@.*\\./@./')\nfor place in {units}; do for name in $4 $template; do\n\
         [ ! -e $place/$name ] || {{ echo $place/$name; exit; }}\ndone; done; exit\nfi\nexec {directory}/systemctl \"$@\"\n"
    );
    let path = server.config().parent().unwrap().join("knowing");
    fs::write(&path, script).unwrap();
    // The vendor's units are the machine's own, where nothing may be left.
    let vendor =
        "mkdir vendor && cp -a /usr/lib/systemd/system/. vendor/ && mount --bind vendor /usr/lib/systemd/system";
    let line = "chmod 755 knowing && systemctl=$(command -v systemctl) && umount $systemctl && mount --bind knowing $systemctl";
    server.run(&format!("cd {directory} && {vendor} && {line}")).ok();
}

#[test]
fn whatever_lies_in_the_place_of_one_of_our_files_is_refused_by_name_and_stays() {
    let Some(server) = Server::boot() else { return };
    server.like_systemd();
    for (made, place) in [
        ("ln -s /dev/null F", format!("{CONF_D}/cafeteria.conf")),
        ("ln -s /etc/passwd F", format!("{CONF_D}/cafeteria.conf")),
        ("ln -s /nowhere F", format!("{CONF_D}/cafeteria.conf")),
        ("mkdir F", format!("{CONF_D}/cafeteria.conf")),
        ("mkfifo F", format!("{CONF_D}/cafeteria-server.conf")),
        ("mkdir -p F", format!("{CONF_D}/cafeteria.d/push.conf")),
        ("ln -s /dev/null F", "/etc/systemd/system/cafeteria@.service".to_owned()),
        ("ln -s /dev/null F", "/etc/systemd/system/cafeteria-queue.path".to_owned()),
        ("mkdir F", "/etc/systemd/system/cafeteria-bootup.service".to_owned()),
        ("mkdir F", "/etc/sudoers.d/zz-cutover-cafeteria".to_owned()),
        ("ln -s /etc/shadow F", "/etc/sudoers.d/zz-cutover-cafeteria".to_owned()),
        ("touch F", "/etc/sudoers.d/zz-cutover-cafeteria".to_owned()),
    ] {
        let made = made.replace('F', &place);
        server.run(&format!("mkdir -p $(dirname {place}) && {made}")).ok();
        let before = laid(&server);
        let ran = install(&server, &format!("{CONFIG}{PUSH}"), "potados");
        assert!(ran.code == 2 || ran.code == 3, "{made}: {ran:?}");
        ran.fails(ran.code, &[&format!("cannot lay {place}: "), "; move it away"]);
        assert_eq!(laid(&server), before, "{made}");
        // Where nothing of ours is, a removal takes nothing away.
        server.run("timeout 60 $TOOLS/install --config $CONFIG --user potados --remove --purge --force");
        server.run(&format!("[ -e {place} ] || [ -L {place} ]")).ok();
        server.run(&format!("rm -r {place} && rm -rf {CONF_D}/cafeteria.d")).ok();
    }
}

#[test]
fn what_is_in_the_place_of_the_state_or_the_record_is_not_taken_over() {
    let Some(server) = Server::boot() else { return };
    server.run("mkdir -m 755 /run/precious && echo kept >/run/precious/file").ok();
    for made in [
        "touch /var/lib/cutover/cafeteria",
        "mkdir /var/lib/cutover/cafeteria",
        "ln -s /run/precious /var/lib/cutover/cafeteria",
        "mkdir -m 755 /var/lib/cutover/cafeteria && chown mallory: /var/lib/cutover/cafeteria",
        "mkdir /var/lib/cutover/cafeteria.record",
        "ln -s /run/precious/new /var/lib/cutover/cafeteria.record",
        "ln -s /run/precious/file /var/lib/cutover/cafeteria.record",
        "mkfifo /var/lib/cutover/cafeteria.record",
        "echo 'user = \"root\"' >/var/lib/cutover/cafeteria.record",
        "head -c 9000000 /dev/zero >/var/lib/cutover/cafeteria.record",
    ] {
        server.run(made).ok();
        let before = laid(&server);
        for more in ["", " --remove --purge --force"] {
            let ran = install(&server, CONFIG, &format!("potados{more}"));
            assert!(ran.code == 2 || ran.code == 3, "{made}: {ran:?}");
            ran.fails(ran.code, &["install: cannot ", "/var/lib/cutover/cafeteria"]);
            assert_eq!(laid(&server), before, "{made}");
        }
        server.run("cat /run/precious/file; ls /run/precious").is(0, "kept\nfile\n", "");
        server.run("rm -r /var/lib/cutover/*").ok();
    }
}

#[test]
fn a_unit_of_the_systems_is_not_put_out_of_effect() {
    let Some(server) = Server::boot() else { return };
    like_systemd(&server);
    for (app, unit) in [
        ("postgresql", "/usr/lib/systemd/system/postgresql@.service"),
        ("wg-quick", "/usr/lib/systemd/system/wg-quick@.service"),
        ("openvpn", "/run/systemd/system/openvpn@.service"),
        ("shop", "/usr/lib/systemd/system/shop-bootup.service"),
        ("shop", "/etc/systemd/system/shop@A.service"),
    ] {
        server.run(&format!("printf '[Service]\\nExecStart=/bin/true\\n' >{unit}")).ok();
        let before = laid(&server);
        let ran =
            install(&server, &format!("{}{PUSH}", CONFIG.replace("\"cafeteria\"", &format!("\"{app}\""))), "potados");
        assert!(ran.code == 2 || ran.code == 3, "{unit}: {ran:?}");
        assert!(ran.stderr.contains(unit.rsplit('/').next().unwrap()) || ran.stderr.contains(unit), "{unit}: {ran:?}");
        assert_eq!(laid(&server), before, "{unit}");
        server.run(&format!("rm {unit}")).ok();
    }
}

#[test]
fn apps_whose_names_and_instances_nearly_meet_do_not() {
    let Some(server) = Server::boot() else { return };
    let conf = || {
        server
            .run(&format!(
                "cat {CONF_D}/*.conf {CONF_D}/*.d/* 2>/dev/null; find {CONF_D} /var/lib/cutover /home/mallory ! -type d"
            ))
            .stdout
    };
    let pairs: [(&str, &str, &str, &str); 10] = [
        ("shop", AB, "shop-server", AB),
        ("shop-server", AB, "shop", AB),
        ("shop", AB, "shop-queue", AB),
        ("shop-bootup", AB, "shop", AB),
        ("shop-server-server", AB, "shop-server", AB),
        // Instances' names may hold what joins names elsewhere.
        ("shop", "x_A = 20301\nx_B = 20302\n", "shop-x", AB),
        ("shop", "x-A = 20301\nx-B = 20302\n", "shop-x", AB),
        ("a-b", AB, "a", "b_A = 20301\nb_B = 20302\n"),
        ("a", "instance = 20301\ngroup = 20302\n", "a-instance", AB),
        ("a--b", AB, "a-b", AB),
    ];
    for (first, instances, second, others) in pairs {
        install(&server, &other(first, instances, "server_name = \"one\"\n"), "mallory").ok();
        let before = conf();
        let text = other(second, others, "server_name = \"two\"\n").replace("= 203", "= 204");
        let ran = install(&server, &text, "potados");
        let names = format!("{first} and {second}: {ran:?}");
        assert!(ran.code == 0 || ran.code == 2 && ran.stderr.contains("cannot use the name"), "{names}");
        server.run("nginx -t -q").ok();
        let home = format!("/home/potados/.{second}");
        if ran.code == 0 {
            server.run(&format!("$TOOLS/install --home {home} --remove --purge --force")).ok();
        }
        assert_eq!(conf(), before, "{names}");
        server.run(&format!("$TOOLS/install --home /home/mallory/.{first} --remove --purge --force")).ok();
        // nginx's old workers answer a moment longer.
        let answers = |port: u16| server.run(&format!("curl --silent http://127.0.0.1:{port}/")).code == 0;
        eventually("nginx has left the apps' ports", || !answers(20300) && !answers(20400));
    }
}

#[test]
fn a_directory_with_a_purpose_of_its_own_is_no_home() {
    let Some(server) = Server::boot() else { return };
    for (app, lay) in [
        ("local", "mkdir -p H/share && echo mine >H/share/file"),
        ("gnupg", "mkdir H && echo mine >H/pubring.kbx"),
        ("kube", "mkdir H && echo mine >H/config"),
        ("profile", "echo mine >H"),
        ("netrc", "echo mine >H"),
        ("bashrc", "mkdir -p away && echo mine >away/file && ln -s away H"),
        // One that another app's mark is in, and one with nothing but a hidden file.
        ("shop", "mkdir H && echo \"Laid by cutover's install for desk\" >H/.cutover && echo mine >H/file"),
        ("vim", "mkdir H && echo mine >H/.netrwhist"),
    ] {
        let home = format!("/home/potados/.{app}");
        let lay = lay.replace('H', &home);
        server.run(&format!("cd /home/potados && runuser -u potados -- sh -c \"{}\"", lay.replace('"', "\\\""))).ok();
        let before = server.run("find /home/potados -printf '%p %U %m %l\\n'").ok();
        let text = CONFIG.replace("\"cafeteria\"", &format!("\"{app}\""));
        for arguments in ["potados", "potados --remove --purge --force"] {
            let ran = install(&server, &text, arguments);
            ran.fails(2, &["install: cannot ", &home]);
        }
        assert_eq!(server.run("find /home/potados -printf '%p %U %m %l\\n'").ok(), before, "{app}");
        server.run(&format!("rm -r {home}")).ok();
    }
}

#[test]
fn a_directory_for_nginxs_files_is_one_that_only_root_can_change_and_nginx_reads() {
    let Some(server) = Server::boot() else { return };
    let directory = server.config().parent().unwrap().display().to_string();
    let places = "conf/group conf/user conf/deep/x conf/sticky conf/open/inner";
    let modes = "chown :potados conf/group && chmod 775 conf/group && chown potados conf/user && chmod 1777 conf/sticky && chmod 777 conf/open";
    server
        .run(&format!(
            "cd {directory} && mkdir -p {places} && {modes} && mkdir /run/conf && mount --bind conf /run/conf"
        ))
        .ok();
    let included = ["group", "user", "sticky", "open/inner", "deep/*"];
    let lines: String = included.map(|place| format!("include /run/conf/{place}/*.conf;")).concat();
    server.run(&format!("sed -i 's#include {CONF_D}/\\*.conf;#&{lines}include {CONF_D}/only-*.conf;#' /etc/nginx/nginx.conf && nginx -t -q && nginx -s reload")).ok();
    let by_root = "that nobody but root can change";
    for (place, why) in [
        ("/run/conf/sticky", by_root),
        ("/run/conf/group", by_root),
        ("/run/conf/user", by_root),
        ("/run/conf/open/inner", by_root),
        ("", by_root),
        ("~/conf.d", by_root),
        ("/dev/fd", by_root),
        ("/proc/1/root/etc/nginx/conf.d", by_root),
        (&format!("{CONF_D}/new"), by_root),
        (&format!("{CONF_D}/*"), by_root),
        ("/", "nginx includes no "),
        ("/etc/nginx", "nginx includes no /etc/nginx/*.conf in its http block"),
        // Outside of the http block.
        ("/etc/nginx/modules-enabled", "nginx includes no /etc/nginx/modules-enabled/*.conf in its http block"),
    ] {
        let before = laid(&server);
        install(&server, &format!("{CONFIG}[nginx]\nconf_dir = \"{place}\"\n"), "potados")
            .fails(2, &["cannot lay ", why]);
        assert_eq!(laid(&server), before, "{place}");
    }
    // The same directory in another spelling is either refused or the same; it never gets our files twice.
    for place in [format!("{CONF_D}/"), format!("{CONF_D}/."), format!("/{CONF_D}"), "/etc/nginx//conf.d".to_owned()] {
        let ran = install(&server, &format!("{CONFIG}[nginx]\nconf_dir = \"{place}\"\n"), "potados");
        assert!(ran.code == 0 || ran.code == 2, "{place}: {ran:?}");
        server.run("nginx -t -q").ok();
        let listed = "cafeteria-server.conf\ncafeteria.conf\ncafeteria.d\n";
        let found = server.run(&format!("ls {CONF_D}")).ok();
        assert!(found == if ran.code == 0 { listed } else { "" }, "{place}: {found}");
        if ran.code == 0 {
            server.run("$TOOLS/install --home /home/potados/.cafeteria --remove --purge --force").ok();
        }
    }
}

#[test]
fn a_name_of_another_site_is_refused_in_any_spelling_and_a_wider_one_takes_nothing() {
    let Some(server) = Server::boot() else { return };
    install(&server, &format!("{CONFIG}[nginx]\nserver_name = \"cafe.example.org\"\n"), "potados").ok();
    server.run("/home/potados/.cafeteria/bin/deploy").ok();
    let served =
        || server.run("curl --silent --max-time 20 --header 'Host: cafe.example.org' http://127.0.0.1/").stdout;
    for (name, is_refused) in [
        ("CAFE.Example.ORG", true),
        ("other.example.org cafe.example.org", true),
        ("*.example.org", false),
        (".example.org", false),
        ("cafe.*", false),
        ("~^cafe", false),
        ("~.", false),
    ] {
        let ran = install(&server, &other("aaa", AB, &format!("server_name = \"{name}\"\n")), "mallory");
        if is_refused {
            ran.fails(
                3,
                &["conflicting server name \"cafe.example.org\"", "give the app another server_name in [nginx]"],
            );
        } else {
            ran.ok();
        }
        eventually("nginx has the new files", || served() == "v1\n");
        (0..8).for_each(|_| assert_eq!(served(), "v1\n", "{name}"));
        server.run("$TOOLS/install --home /home/mallory/.aaa --remove --purge --force");
        server.run(&format!("ls {CONF_D}")).is(0, "cafeteria-server.conf\ncafeteria.conf\ncafeteria.d\n", "");
    }
}
