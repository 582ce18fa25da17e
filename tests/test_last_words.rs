//! The reason of a failed start: what supervise itself saw of the life that ended.

use std::fs;
use std::path::Path;

use crate::server::{CONFIG, Server};
use crate::site::{BRISK, Ran, Sample, Site, eventually};

/// A site whose app is this shell command.
fn run_by(command: &str) -> Site {
    let site = Site::new(Sample::Static, &format!("[run]\ncommand = '''{command}'''\n{BRISK}"));
    site.run("update-instance", &["A"]).ok();
    site
}

#[test]
fn whatever_a_program_prints_before_it_dies_is_the_reason() {
    let cases = [
        ("echo one; echo; echo two >&2; exit 3", "exit status 3: one | two"),
        ("exit 3", "exit status 3"),
        ("printf 'no end of a line'; exit 3", "exit status 3: no end of a line"),
        ("kill -9 $$", "killed by SIGKILL"),
        ("for i in 1 2 3 4 5 6 7; do echo $i; done; exit 1", "exit status 1: 3 | 4 | 5 | 6 | 7"),
        ("printf '\\033[31mred\\033[0m \\377\\001\\n'; exit 3", "exit status 3: red \u{fffd}"),
        ("(sleep 0.1; echo late) & echo early; exit 3", "exit status 3: early"),
        ("echo early; sleep 1; echo FATAL no database; exit 1", "exit status 1: early | FATAL no database"),
        ("sleep 1; head -c 70000 /dev/zero | tr '\\0' .; echo; echo FATAL; exit 1", "exit status 1: FATAL"),
    ];
    for (command, reason) in cases {
        let site = run_by(command);
        let said = format!("start-instance: cannot start A: it died: {reason}\n");
        // Many lives, each of a millisecond, are no reason to miss one's end.
        for _ in 0..5 {
            site.run("start-instance", &["A"]).is(3, "", &said);
        }
    }
    let site = run_by("head -c 300000 /dev/zero | tr '\\0' x; exit 3");
    let said = format!("start-instance: cannot start A: it died: exit status 3: {}…\n", "x".repeat(200));
    site.run("start-instance", &["A"]).is(3, "", &said);
    let site = run_by("head -c 300000 /dev/urandom; exit 3");
    let ran = site.run("start-instance", &["A"]);
    assert!(ran.stderr.starts_with("start-instance: cannot start A: it died: exit status 3: "), "{ran:?}");
    assert!(ran.stderr.len() < 4000 && !ran.stderr.trim_end().contains(char::is_control), "{ran:?}");
}

#[test]
fn a_program_that_cannot_even_be_started_is_told_by_its_supervise() {
    let site = run_by("exec ./app");
    site.shell("rm -r .shop/releases/*").ok();
    let said = "start-instance: cannot start A: its supervise ended: cannot run RELEASE: No such file or directory \
        (os error 2)\n";
    site.run("start-instance", &["A"]).masked(&site).is(3, "", said);
    // Also where it is seen between having told that and its end.
    let start = site.tool("start-instance", &["A"]);
    let mut strace = site.command(Path::new("strace"));
    strace.args(["-f", "-qq", "-o"]).arg(site.directory.path().join("trace"));
    strace.args(["-e", "trace=exit_group", "-e", "inject=exit_group:delay_enter=500ms"]);
    let mut ran = Ran::run(strace.arg(start.get_program()).args(start.get_args())).masked(&site);
    // It complains when two delays end at the same time.
    ran.stderr = ran.stderr.split_inclusive('\n').filter(|line| !line.starts_with("strace: ")).collect();
    ran.is(3, "", said);
}

#[test]
fn the_error_of_a_node_app_that_is_one_long_line_is_not_lost() {
    let site = Site::new(Sample::Node, &format!("[run]\ncommand = \"exec node bundle.js\"\n{BRISK}"));
    let bundle = format!("{}throw new Error('cannot reach the database')\n", "var a=1;".repeat(40_000));
    fs::write(site.source().join("bundle.js"), bundle).unwrap();
    site.commit("v2", "");
    site.run("update-instance", &["A"]).ok();
    for _ in 0..5 {
        site.run("start-instance", &["A"]).fails(3, &["cannot start A: it died: exit status 1: "]);
        assert!(site.run("logs", &["A"]).ok().contains("Error: cannot reach the database"));
    }
}

#[test]
fn a_workers_last_words_are_its_own() {
    let worker = "[[worker]]\nname = \"mail\"\ncommand = \"echo mail is down; exit 4\"\n";
    let site = Site::new(Sample::Static, &format!("[deploy]\nsoak = \"30s\"\n{worker}"));
    let ran = site.run("deploy", &[]);
    ran.fails(3, &["A died after the cutover: mail.0: exit status 4: mail is down"]);
}

#[test]
fn the_reason_does_not_wait_for_the_journal() {
    let Some(server) = Server::boot() else { return };
    server.like_systemd();
    server.install("").ok();
    let tool = |line: &str| server.run(&format!("runuser -u potados -- /home/potados/.cafeteria/bin/{line}"));
    tool("deploy").ok();
    assert_eq!(server.served(), "v1\n");
    let change = "cd /home/source && printf 'import sys\\nprint(\"no database\", file=sys.stderr)\\nsys.exit(3)\\n' >server.py && runuser -u potados -- git -c user.name=p -c user.email=p@example.org commit --quiet --all --message v2";
    server.run(change).ok();
    for _ in 0..3 {
        let ran = tool("deploy");
        ran.fails(3, &["deploy: cannot start B: it died: exit status 3: no database"]);
    }
    // What goes to standard output, the journal's under systemd, is as it was printed, and a line of supervise's own is one.
    let printed = server.run("cat /run/output-B").ok();
    assert!(printed.contains("\nno database\nsupervise: exit status 3\nsupervise: starting it again in "), "{printed}");
    tool("stop-instance --force A").ok();
    let printed = server.run("cat /run/output-A").ok();
    assert!(printed.ends_with("supervise: stopped\n"), "{printed}");
}

/// A journal as systemd's takes streams: it writes down what each says, after its first seven lines; with an argument, it
/// accepts and reads nothing.
const JOURNAL: &str = r#"
import os, socket, sys, threading
os.makedirs("/run/systemd/journal", exist_ok=True)
journal = socket.socket(socket.AF_UNIX)
journal.bind("/run/systemd/journal/stdout")
os.chmod("/run/systemd/journal/stdout", 0o666)
journal.listen()
def keep(stream):
    lines = stream.makefile("rb")
    header = [next(lines).strip().decode() for _ in range(7)]
    with open("/run/journal", "ab", 0) as file:
        file.write(("header %s\n" % " ".join(header)).encode())
        for line in lines:
            file.write(header[0].encode() + b" " + line)
streams = []
print("ready", flush=True)
while True:
    streams.append(journal.accept()[0])
    if len(sys.argv) == 1:
        threading.Thread(target=keep, args=[streams[-1]]).start()
"#;

/// Such a journal of a server's.
fn journal(server: &Server, argument: &str) -> Ran {
    let directory = server.config().parent().unwrap().join("journal.py");
    fs::write(&directory, JOURNAL).unwrap();
    let line = format!("setsid python3 {} {argument} >/run/ready 2>&1 &", directory.display());
    let ran = server.run(&line);
    eventually("the journal listens", || server.run("cat /run/ready").stdout == "ready\n");
    ran
}

#[test]
fn each_of_several_programs_has_a_stream_of_the_journal() {
    let Some(server) = Server::boot() else { return };
    server.like_systemd();
    journal(&server, "").ok();
    let worker = "[[worker]]\nname = \"mail\"\ncommand = \"echo '<3>mail is up'; printf half; exec sleep 1000\"\n";
    fs::write(server.config(), format!("{CONFIG}{worker}")).unwrap();
    server.install("").ok();
    server.run("runuser -u potados -- /home/potados/.cafeteria/bin/deploy").ok();
    server.run("runuser -u potados -- /home/potados/.cafeteria/bin/stop-instance --force A").ok();
    eventually("the journal has it all", || server.run("cat /run/journal").stdout.contains("mail.0 half"));
    let kept = server.run("sort /run/journal").ok();
    for line in ["header cafeteria@A.mail.0  6 1 0 0 0", "cafeteria@A.mail.0 <3>mail is up", "cafeteria@A.mail.0 half"]
    {
        assert!(kept.lines().any(|kept| kept == line), "{line:?} is not in {kept}");
    }
    let own = server.run("cat /run/output-A").ok();
    assert!(own.contains("\nsupervise: mail.0: started ") && !own.contains("mail is up"), "{own}");
}

#[test]
fn a_journal_that_reads_nothing_holds_up_neither_supervise_nor_the_reason() {
    let Some(server) = Server::boot() else { return };
    server.like_systemd();
    journal(&server, "deaf").ok();
    let worker = "[[worker]]\nname = \"mail\"\ncommand = \"yes flood | head -c 3000000; echo the end; exit 4\"\n";
    fs::write(server.config(), format!("{CONFIG}{worker}").replace("soak = \"100ms\"", "soak = \"3s\"")).unwrap();
    server.install("").ok();
    let tool = |line: &str| server.run(&format!("runuser -u potados -- /home/potados/.cafeteria/bin/{line}"));
    // The flood waits for the journal; everything else goes on.
    tool("deploy").ok();
    assert_eq!(server.served(), "v1\n");
    tool("stop-instance --force A").ok();
    tool("pid A").is(1, "", "");
    // As much as the journal and the pipe take without being read, and then death.
    let worker = worker.replace("3000000", "69996");
    fs::write(server.config(), format!("{CONFIG}{worker}").replace("soak = \"100ms\"", "soak = \"30s\"")).unwrap();
    server.install("").ok();
    let ran = tool("deploy");
    ran.fails(4, &["B died after the cutover: mail.0: exit status 4: flood | flood | flood | flood | the end"]);
}
