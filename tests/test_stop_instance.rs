//! stop-instance: requests in flight are answered, then all of the instance is gone.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::holder::Holder;
use crate::site::{BRISK, Sample, Site, eventually, explains_itself, get};

#[test]
fn it_explains_itself() {
    explains_itself("stop-instance", "Let an instance's requests finish, then end it with all its processes");
}

#[test]
fn it_says_no_to_nobody_and_is_content_with_an_instance_that_does_not_run() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("stop-instance", &[]).is(1, "", "stop-instance: nothing is enabled; name an instance\n");
    site.run("stop-instance", &["C"]).is(2, "", "stop-instance: cannot find instance \"C\": there are A and B\n");
    site.run("stop-instance", &["A"]).is(0, "", "");
}

#[test]
fn the_enabled_instance_is_stopped_only_by_force() {
    let site = Site::new(Sample::Static, BRISK);
    let before = site.processes();
    site.run("deploy", &[]).ok();
    let pid = site.pid("A");
    let reason =
        "stop-instance: cannot stop A: it is enabled, the service would be down; --force does it all the same\n";
    site.run("stop-instance", &[]).is(3, "", reason);
    site.run("stop-instance", &["a"]).is(3, "", reason);
    assert_eq!((site.pid("A"), site.get("/")), (pid, (200, "v1\n".to_owned())));
    site.run("stop-instance", &["-f"]).is(0, "", "");
    site.run("pid", &["A"]).is(1, "", "");
    assert_eq!(site.processes(), before);
    site.run("stop-instance", &["--force"]).is(0, "", "");
    site.run("enabled-instance", &[]).is(0, "A\n", "");
}

#[test]
fn a_request_in_flight_is_answered_whole() {
    let site = Site::new(Sample::Static, "");
    site.run("deploy", &[]).ok();
    thread::scope(|scope| {
        let slow = scope.spawn(|| site.get("/slow?ms=1500"));
        eventually("the request is in flight", || connections(site.ports.first) > 0);
        site.run("stop-instance", &["--force"]).is(0, "", "");
        assert_eq!(slow.join().unwrap(), (200, "v1\n".to_owned()));
    });
    site.run("pid", &["A"]).is(1, "", "");
}

#[test]
fn a_request_that_takes_longer_than_the_drain_timeout_is_not_waited_for() {
    let site = Site::new(Sample::Static, "[deploy]\nsoak = \"100ms\"\ndrain_timeout = \"600ms\"\n");
    site.run("deploy", &[]).ok();
    thread::scope(|scope| {
        let slow = scope.spawn(|| get(site.ports.first, "/slow?ms=15000"));
        eventually("the request is in flight", || connections(site.ports.first) > 0);
        let began = Instant::now();
        site.run("stop-instance", &["--force"]).is(0, "", "");
        let took = began.elapsed();
        assert!((Duration::from_millis(600)..Duration::from_secs(8)).contains(&took), "{took:?}");
        assert_eq!(slow.join().unwrap(), (0, String::new()));
    });
}

#[test]
fn an_app_that_ignores_the_signal_is_killed_with_its_children_after_the_stop_timeout() {
    let run = "[run]\ncommand = \"exec ./app\"\nstop_timeout = \"500ms\"\n";
    let site = Site::new(Sample::Static, &format!("{run}{BRISK}"));
    let before = site.processes();
    site.commit("v1", "stubborn");
    site.run("update-instance", &["A"]).ok();
    site.run("start-instance", &["A"]).ok();
    assert_eq!(site.processes().len(), before.len() + 4, "supervise, the leash, the app and its child");
    let began = Instant::now();
    site.run("stop-instance", &["A"]).is(0, "", "");
    let took = began.elapsed();
    assert!((Duration::from_millis(500)..Duration::from_secs(4)).contains(&took), "{took:?}");
    assert_eq!(site.processes(), before);
}

#[test]
fn the_configured_signal_is_what_asks_the_app_to_end() {
    let command = "trap 'echo asked politely; exit' USR1; ./app & while :; do wait; done";
    let run = format!("[run]\ncommand = \"{command}\"\nstop_signal = \"SIGUSR1\"\nstop_timeout = \"5s\"\n");
    let site = Site::new(Sample::Static, &format!("{run}{BRISK}"));
    site.run("update-instance", &["A"]).ok();
    site.run("start-instance", &["A"]).ok();
    site.run("stop-instance", &["A"]).is(0, "", "");
    let said = site.run("logs", &["A"]).ok();
    assert!(said.contains("asked politely\n") && said.ends_with("supervise: stopped\n"), "{said}");
}

/// A pool: its jobs are in processes that end when they are asked, and the main one waits for them.
const POOL: &str = "\
import http.server, os, signal, sys, threading, time
pids = []
for job in range(2):
    pid = os.fork()
    if pid == 0:
        open(f'{sys.argv[1]}.begun.{job}', 'w').close()
        time.sleep(2)
        open(f'{sys.argv[1]}.done.{job}', 'w').close()
        os._exit(0)
    pids.append(pid)
if 'WORKER' not in os.environ:
    server = http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
def finish(*_):
    for pid in pids:
        os.waitpid(pid, 0)
    sys.exit(0)
signal.signal(signal.SIGTERM, finish)
while True:
    signal.pause()
";

#[test]
fn a_pool_finishes_its_jobs_where_only_its_main_process_is_asked_to_end() {
    for (run, worker, [of_app, of_worker]) in
        [("", "", [0, 0]), ("main", "", [2, 2]), ("group", "main", [0, 2]), ("main", "group", [2, 0])]
    {
        let key = |to: &str| if to.is_empty() { String::new() } else { format!("stop_signal_to = {to:?}\n") };
        let (of_run, to_worker) = (key(run), key(worker));
        let site = Site::unlaid(
            Sample::Static,
            &format!(
                "[run]\ncommand = \"exec python3 pool.py ../../app\"\n{of_run}stop_timeout = \"20s\"\n\
                 [[worker]]\nname = \"jobs\"\ncommand = \"exec python3 pool.py ../../worker\"\n{to_worker}{BRISK}"
            ),
        );
        fs::write(site.source().join("pool.py"), POOL).unwrap();
        site.commit("v1", "");
        site.install(&[]).ok();
        site.run("deploy", &[]).ok();
        let count = |what: &str| {
            let names = fs::read_dir(&site.home).unwrap().flatten().map(|entry| entry.file_name());
            names.filter(|name| name.to_str().unwrap().starts_with(what)).count()
        };
        eventually("the jobs have begun", || count("app.begun") == 2 && count("worker.begun") == 2);
        let begun = Instant::now();
        site.run("stop-instance", &["A", "--force"]).ok();
        assert!(begun.elapsed() < Duration::from_secs(15), "{run} {worker}: nobody is killed");
        assert_eq!([count("app.done"), count("worker.done")], [of_app, of_worker], "{run} {worker}");
        assert!(site.processes().iter().all(|one| !format!("{one:?}").contains("pool.py")), "{run} {worker}");
    }
}

#[test]
fn what_it_did_not_start_it_does_not_stop() {
    let site = Site::new(Sample::Static, BRISK);
    let holder = Holder::of(site.ports.first);
    let (port, described) = (site.ports.first, holder.described());
    let reason = format!(
        "stop-instance: cannot stop A: {described} on port {port} was not started by start-instance; stop it by hand\n"
    );
    site.run("stop-instance", &["A"]).is(3, "", &reason);
}

/// How many connections to this port its server has open.
fn connections(port: u16) -> usize {
    let local = format!("0100007F:{port:04X}");
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields.filter(|fields| fields[1] == local && fields[3] == "01").count()
}
