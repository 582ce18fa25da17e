//! What root lends and reads, beside the known: a deploy at the end of install, users of odd kinds, and a journal in which
//! others write.

use std::fs;
use std::process::Command;

use crate::server::{CONFIG, Server};

const HOME: &str = "/home/potados/.cafeteria";

/// What a build says of the process that it is: nothing in it may be root's.
const PROBE: &str = r#"
exec >/home/source/seen 2>&1
grep -E '^(Uid|Gid|Groups|CapInh|CapEff|CapPrm|CapAmb|SigBlk|Umask)' /proc/self/status
(: </dev/tty) 2>/dev/null && echo a terminal
for fd in /proc/self/fd/*; do readlink $fd; done | grep -E 'pts|tty|/root|precious' && echo a descriptor
tr '\0' '\n' </proc/self/environ | grep -E 'AWS|SUDO|ROOT|SSH' && echo a variable
readlink /proc/self/cwd | grep root && echo a place
kill -0 $PPID 2>/dev/null || echo a parent of somebody else
# Nothing that runs as root and waits for this may be read.
for pid in /proc/[0-9]*; do
    [ "$(stat -c %u $pid 2>/dev/null)" = 0 ] && (: <$pid/environ) 2>/dev/null && echo an environment of root
done
echo end
"#;

#[test]
fn a_build_at_the_end_of_install_is_the_users_from_every_side() {
    let Some(server) = Server::boot() else { return };
    fs::write(server.path("/home/source/probe"), PROBE).unwrap();
    fs::write(server.config(), format!("{CONFIG}[build]\ncommand = \"sh probe\"\n")).unwrap();
    server.run("cd /home/source && chown potados: probe && runuser -u potados -- git -c user.name=p -c user.email=p@example.org add probe && runuser -u potados -- git -c user.name=p -c user.email=p@example.org commit --quiet --message probe").ok();
    let install = "umask 000; cd /root; exec 7</etc/shadow; AWS_SECRET_ACCESS_KEY=x SUDO_USER=root SSH_AUTH_SOCK=/root/x exec $TOOLS/install --config $CONFIG --user potados --deploy";
    server.run(&format!("script --quiet --return --command '{install}' /dev/null")).ok();
    let seen = fs::read_to_string(server.path("/home/source/seen")).unwrap();
    let mut lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines.pop(), Some("end"), "{seen}");
    for line in [
        "Uid:\t15000\t15000\t15000\t15000",
        "Gid:\t15000\t15000\t15000\t15000",
        "CapEff:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapInh:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "SigBlk:\t0000000000000000",
        "Umask:\t0022",
    ] {
        assert!(lines.contains(&line), "{line:?} is not in {seen}");
        lines.retain(|seen| *seen != line);
    }
    assert!(lines.iter().all(|line| line.trim_end() == "Groups:\t15000"), "{seen}");
    assert_eq!(server.served(), "v1\n");
}

#[test]
fn a_user_is_found_by_what_it_is_called_and_nobody_else_is() {
    let Some(server) = Server::boot() else { return };
    let accounts = "twin:x:15000:15000::/home/twin:/bin/sh\n0:x:15012:15000::/home/zero:/bin/sh\nbig:x:4294967296:15000::/home/big:/bin/sh\nneg:x:-1:15000::/home/neg:/bin/sh\n";
    server.run(&format!("printf '{accounts}' >>/etc/passwd && mkdir /home/twin /home/zero && chown 15000 /home/twin && chown 15012 /home/zero")).ok();
    for user in
        ["''", "'potados '", "'potados:x'", "../potados", "4294967295", "4294967296", "big", "neg", "'a\nb'", "'po*'"]
    {
        let ran = server.run(&format!("timeout 30 $TOOLS/install --config $CONFIG --user {user}"));
        assert!(ran.code == 2 && ran.stderr.contains("install: cannot find user "), "{user}: {ran:?}");
    }
    // A name goes before a number, and of two names of one user each has its own home.
    for (user, home, uid) in [("0", "/home/zero/.cafeteria", "15012"), ("twin", "/home/twin/.cafeteria", "15000")] {
        server.run(&format!("$TOOLS/install --config $CONFIG --user {user}")).ok();
        server.run(&format!("find {home} /var/lib/cutover/cafeteria ! -uid {uid}")).is(0, "", "");
        server.run(&format!("$TOOLS/install --home {home} --remove --purge --force")).ok();
    }
}

/// A field of an entry as journalctl exports it, of any bytes.
fn any(name: &str, value: &[u8]) -> Vec<u8> {
    [name.as_bytes(), b"\n", &(value.len() as u64).to_le_bytes(), value, b"\n"].concat()
}

/// What journalctl exports of entries that somebody else has written, the newest first.
fn entries() -> Vec<u8> {
    let long = vec![b'x'; 5_000_000];
    [
        b"__CURSOR=s=13\n__REALTIME_TIMESTAMP=1764000000000008\nMESSAGE=last\nSYSLOG_IDENTIFIER=cafeteria@A\n\n"
            .to_vec(),
        b"\n\n\nno field at all=\n\n".to_vec(),
        b"__CURSOR=s=12\n\n__REALTIME_TIMESTAMP=1\n\nMESSAGE=no cursor\n\n".to_vec(),
        b"__CURSOR=s=9\nMESSAGE=no time\n\n__CURSOR=s=8\n__REALTIME_TIMESTAMP=99999999999999999999999\nMESSAGE=x\n\n"
            .to_vec(),
        b"__CURSOR=s=7\n__REALTIME_TIMESTAMP=-1\nMESSAGE=\nSYSLOG_IDENTIFIER=\n\n".to_vec(),
        [b"__CURSOR=s=6\n".to_vec(), any("MESSAGE", &long), any("SYSLOG_IDENTIFIER", &long), b"\n".to_vec()].concat(),
        [b"__CURSOR=s=5\n".to_vec(), any("MESSAGE", b"__CURSOR=x\n\nMESSAGE=\x1b[2J\xff\0"), b"\n".to_vec()].concat(),
        [b"__CURSOR=s=4\nMESSAGE=".to_vec(), long.clone(), b"\nMESSAGE=again\n\n".to_vec()].concat(),
        [b"__CURSOR=s=3\n".to_vec(), b"A=1\n".repeat(100_000), b"\n".to_vec()].concat(),
        b"__CURSOR=s=1\n__REALTIME_TIMESTAMP=1764000000000000\nMESSAGE=first\n_PID=1\n\n".to_vec(),
    ]
    .concat()
}

#[test]
fn no_entry_of_a_journal_hides_the_others() {
    let Some(server) = Server::boot() else { return };
    let directory = server.like_systemd();
    server.install("").ok();
    fs::write(server.path(&format!("{directory}/entries")), entries()).unwrap();
    // The fake that like_systemd has laid is the file that is mounted there.
    let script = format!("#!/bin/sh\nexec cat {directory}/entries\n");
    fs::write(server.path(&format!("{directory}/journalctl")), script).unwrap();
    for line in [
        "logs A -n 100",
        "logs -n 100",
        "logs A -t -n 100",
        "logs A --since 2025-11-24T00:00:00Z",
        "logs A --grep last",
    ] {
        let ran = server.run(&format!("timeout 30 runuser -u potados -- {HOME}/bin/{line}"));
        assert_eq!(ran.code, 0, "{line}: {:.3000}", format!("{ran:?}"));
        assert!(ran.stdout.trim_end().ends_with("last"), "{line}: {:.3000}", format!("{ran:?}"));
        assert!(ran.stdout.len() < 300_000, "{line}: {} bytes", ran.stdout.len());
        assert!(line.contains("grep") || ran.stdout.contains("first"), "{line}: {:.3000}", format!("{ran:?}"));
    }
}

/// The script of the document in ssm/, with its parameters filled in as SSM does it; None: a pattern refuses one.
fn document(home: &str, reference: &str) -> Option<String> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/ssm/cutover.json")).unwrap();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let lines = document["mainSteps"][0]["inputs"]["runCommand"].as_array().unwrap();
    let mut script = lines.iter().map(|line| line.as_str().unwrap()).collect::<Vec<_>>().join("\n");
    for (name, about) in document["parameters"].as_object().unwrap() {
        let given = [("Home", home), ("Ref", reference)].into_iter().find(|(given, _)| given == name);
        let value = given.map(|(_, value)| value).or(about["default"].as_str()).unwrap();
        let pattern = about["allowedPattern"].as_str();
        if pattern.is_some_and(|pattern| !regex::Regex::new(pattern).unwrap().is_match(value)) {
            return None;
        }
        script = script.replace(&format!("{{{{ {name} }}}}"), value);
    }
    Some(script)
}

#[test]
fn the_ssm_document_takes_what_people_call_their_branches_and_no_more() {
    for reference in ["feature/#123-login", "fix(1)", "#7", "v1.2.3+build", "release@2026", "a=b,c!d%e&f", "latest-tag"]
    {
        let script = document(HOME, reference).unwrap_or_else(|| panic!("{reference} is refused"));
        let line = script.lines().next().unwrap();
        let shown = Command::new("sh").args(["-c", &format!("{line}; printf %s \"$ref\"")]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&shown.stdout), reference);
    }
    for reference in ["a'b", "a\"b", "$(id)", "`id`", "{{ Home }}", "-x", "a b", "a\nb", "a\\b", "a;b", "a|b", "(a"] {
        assert!(document(HOME, reference).is_none(), "{reference}");
    }
}

#[test]
fn the_ssm_document_runs_nothing_as_root_however_its_home_is_written() {
    let Some(server) = Server::boot() else { return };
    server.install("").ok();
    // A tool of mallory's in a place that all may write to, where links of potados' lead.
    let evil = "mkdir -p /run/open/.cafeteria/bin && printf '#!/bin/sh\\nid -u >>/run/open/proof\\n' >/run/open/.cafeteria/bin/status && chmod 755 /run/open/.cafeteria/bin/status && for t in deploy rollback logs history; do cp /run/open/.cafeteria/bin/status /run/open/.cafeteria/bin/$t; done";
    server.run(&format!("mkdir -m 1777 /run/open && {evil} && : >/run/open/proof && chmod 666 /run/open/proof")).ok();
    server.run(&format!("mv {HOME} /home/potados/kept && ln -s /run/open/.cafeteria {HOME} && ln -s /run/open /home/potados/way && chown -h potados: {HOME} /home/potados/way")).ok();
    let mut tried = 0;
    for home in [
        HOME.to_owned(),
        format!("{HOME}/"),
        format!("{HOME}/."),
        format!("{HOME}/bin/.."),
        format!("/{HOME}"),
        "/home/./potados/.cafeteria".to_owned(),
        "/home/potados/../potados/.cafeteria".to_owned(),
        "/home/potados/way/.cafeteria".to_owned(),
        "/run/open/.cafeteria".to_owned(),
        "/proc/self/cwd".to_owned(),
        "~potados/.cafeteria".to_owned(),
        format!("{HOME}\n/run/open/.cafeteria"),
        format!("{HOME};id"),
        format!("{HOME}$(id)"),
        "-h".to_owned(),
        String::new(),
    ] {
        for reference in ["", "main", "-x", "$(id)", "main\nid", "`id`", "main --home /run/open/.cafeteria"] {
            let Some(script) = document(&home, reference) else { continue };
            tried += 1;
            fs::write(server.path("/run/script"), script).unwrap();
            let ran = server.run("cd /usr/bin && timeout 60 sh /run/script");
            assert!(!ran.stdout.contains("uid=") && !ran.stderr.contains("uid="), "{home:?} {reference:?}: {ran:?}");
            let proof = fs::read_to_string(server.path("/run/open/proof")).unwrap();
            assert!(proof.lines().all(|uid| uid == "15000"), "{home:?} {reference:?}: {proof}");
        }
    }
    assert!(tried > 0);
}
