//! sticky, attacked: many clients, also behind a proxy, while processes and instances come, go and die.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::load::{Connection, Load, Plan};
use crate::site::{BRISK, Sample, Site, eventually, none_lost};
use crate::test_several::pids;

/// Does not start while a file in the home, named after the process, says so.
const COMMAND: &str = "test ! -e ../../down.$PROCESS_INDEX || exit 1; exec ./app";
const PATIENCE: Duration = Duration::from_secs(60);

fn config(site: &Site, count: u16, nginx: &str, more: &str) -> String {
    let (listen, status) = (site.ports.listen, site.ports.status);
    let own = format!("own = true\nlisten = [\"127.0.0.1:{listen}\"]\nstatus_port = {status}\nsticky = true\n");
    format!("{BRISK}[nginx]\n{own}{nginx}\n[run]\ncommand = \"{COMMAND}\"\nprocesses = {count}\n{more}\n")
}

/// A site whose clients are those that a proxy on this machine names.
fn site(count: u16, more: &str) -> Site {
    let site = Site::unlaid_for(count + 1, Sample::Static, "");
    site.write_config(&config(&site, count, "trusted_proxies = [\"127.0.0.1\"]", more));
    site.install(&[]).ok();
    site.run("deploy", &[]).ok();
    site
}

fn connection(site: &Site) -> Connection {
    Connection::open(site.address(), "shop.example", PATIENCE).unwrap()
}

/// Which process answers a client on this connection.
#[track_caller]
fn asked(connection: &mut Connection, client: &str) -> i32 {
    let answer = connection.exchange("GET", "/pid", &[("X-Forwarded-For", client)], &[]).unwrap();
    answer.first_line().parse().unwrap_or_else(|_| panic!("{client}: {}", answer.first_line()))
}

/// Clients of both kinds of addresses.
fn clients(count: usize) -> Vec<String> {
    let fourth = |at: usize| format!("198.51.{}.{}", at / 250, at % 250 + 1);
    (0..count).map(|at| if at % 2 == 0 { fourth(at) } else { format!("2001:db8::{at:x}") }).collect()
}

/// Which process answers each of them.
fn of_all(site: &Site, clients: &[String]) -> BTreeMap<String, i32> {
    let mut connection = connection(site);
    clients.iter().map(|client| (client.clone(), asked(&mut connection, client))).collect()
}

fn kill(pid: i32) {
    let pid = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// Ends a process that is not to come back before [`rises`].
fn falls(site: &Site, instance: &str, index: usize) -> i32 {
    fs::write(site.home.join(format!("down.{index}")), "").unwrap();
    let pid = pids(site, instance)[index];
    kill(pid);
    eventually("it is down", || !site.run("pid", &[instance]).stdout.lines().any(|line| line == pid.to_string()));
    pid
}

fn rises(site: &Site, instance: &str, index: usize, count: usize) {
    fs::remove_file(site.home.join(format!("down.{index}"))).unwrap();
    eventually("it is back", || site.run("pid", &[instance]).stdout.lines().count() == count);
}

#[test]
fn clients_that_a_proxy_names_are_spread_evenly_and_each_stays() {
    let clients = clients(640);
    // As many as there may be, with a port that is free in addition.
    for (count, more) in [(2, ""), (3, "max_memory = \"1G\""), (16, "max_memory = \"1G\"")] {
        let site = site(count, more);
        let first = of_all(&site, &clients);
        assert_eq!(of_all(&site, &clients), first, "one connection, on which the proxy sends one after the other");
        for (client, pid) in first.iter().take(20) {
            assert_eq!(asked(&mut connection(&site), client), *pid, "a connection of its own");
        }
        let fair = clients.len() / usize::from(count);
        for pid in pids(&site, "A") {
            let share = first.values().filter(|of| **of == pid).count();
            assert!(
                (fair / 2..fair * 2).contains(&share),
                "{share} of {} clients, of {count} processes",
                clients.len()
            );
        }
    }
}

#[test]
fn a_client_does_not_choose_its_process() {
    let trusting = site(4, "");
    let mut proxy = connection(&trusting);
    let own = asked(&mut proxy, "198.51.100.7");
    // What the client says itself stands before what the proxy has seen.
    let claims = clients(40);
    assert!(claims.iter().all(|claim| asked(&mut proxy, &format!("{claim}, 198.51.100.7")) == own));
    drop(trusting);
    let site = Site::unlaid_for(5, Sample::Static, "");
    site.write_config(&config(&site, 4, "", ""));
    site.install(&[]).ok();
    site.run("deploy", &[]).ok();
    assert_eq!(of_all(&site, &claims).into_values().collect::<BTreeSet<i32>>().len(), 1, "nobody's word counts");
}

#[test]
fn a_client_from_an_address_of_ipv6_stays() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        crate::not_tested::not_tested("clients with addresses of IPv6", "this machine has none");
        return;
    }
    let site = Site::unlaid_for(3, Sample::Static, "");
    let listen = format!("listen = [\"127.0.0.1:{0}\", \"[::1]:{0}\"]", site.ports.listen);
    let text = config(&site, 3, "", "").replace(&format!("listen = [\"127.0.0.1:{}\"]", site.ports.listen), &listen);
    site.write_config(&text);
    site.install(&[]).ok();
    site.run("deploy", &[]).ok();
    let target = SocketAddr::from((Ipv6Addr::LOCALHOST, site.ports.listen));
    let asked = |_| asked(&mut Connection::open(target, "shop.example", PATIENCE).unwrap(), "198.51.100.7");
    assert_eq!((0..40).map(asked).collect::<BTreeSet<i32>>().len(), 1);
}

/// Asks as each client, on and on, on connections that are kept for a while, during `during`; which processes have answered
/// each, one after the other.
fn seen_by(site: &Site, clients: &[String], during: impl FnOnce(&dyn Fn())) -> Vec<Vec<i32>> {
    let seen: Vec<Mutex<Vec<i32>>> = clients.iter().map(|_| Mutex::default()).collect();
    let is_over = AtomicBool::new(false);
    // Also where `during` panics: the clients are waited for.
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    thread::scope(|scope| {
        let _over = Over(&is_over);
        for (client, seen) in clients.iter().zip(&seen) {
            let is_over = &is_over;
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let mut connection = connection(site);
                    for _ in 0..10 {
                        let pid = asked(&mut connection, client);
                        let mut seen = seen.lock().unwrap();
                        if seen.last() != Some(&pid) {
                            seen.push(pid);
                        }
                    }
                }
            });
        }
        // All of them see what there is now.
        let settled = || {
            let now = of_all(site, clients);
            let last = || seen.iter().map(|seen| seen.lock().unwrap().last().copied()).collect::<Vec<_>>();
            eventually("all clients see it", || last() == clients.iter().map(|one| Some(now[one])).collect::<Vec<_>>());
        };
        settled();
        during(&settled);
    });
    seen.into_iter().map(|seen| seen.into_inner().unwrap()).collect()
}

#[test]
fn a_client_has_one_process_at_each_moment_of_a_deploy_a_rollback_and_a_reload() {
    let site = site(3, "");
    site.write_env("COLOUR=red\n");
    let mut instances = vec![pids(&site, "A")];
    let seen = seen_by(&site, &clients(8), |settled| {
        site.commit("v2", "");
        for (tool, instance) in [("deploy", "B"), ("rollback", "A"), ("rollback", "B"), ("reload", "A")] {
            if tool == "reload" {
                site.write_env("COLOUR=blue\n");
            }
            site.run(tool, &[]).ok();
            settled();
            instances.push(pids(&site, instance));
        }
    });
    for seen in seen {
        assert_eq!(seen.len(), instances.len(), "one of each instance: {seen:?} of {instances:?}");
        assert!(seen.iter().zip(&instances).all(|(pid, of)| of.contains(pid)), "{seen:?} of {instances:?}");
        assert_eq!((seen[0], seen[1]), (seen[2], seen[3]), "after the way back it is the one from before");
    }
}

#[test]
fn the_clients_of_a_process_that_is_down_for_long_never_get_the_other_instance() {
    let site = site(2, "").with_standby();
    let clients = clients(12);
    let before = of_all(&site, &clients);
    let processes = pids(&site, "B");
    let gone = falls(&site, "B", 0);
    let homeless = before.iter().find(|(_, pid)| **pid == gone).unwrap().0;
    let mut connection = connection(&site);
    // nginx closes a connection after a thousand.
    for request in 0..900 {
        assert_eq!(asked(&mut connection, homeless), processes[1], "request {request}");
    }
    rises(&site, "B", 0, 2);
    let after = of_all(&site, &clients);
    let back = pids(&site, "B")[0];
    for (client, pid) in before {
        assert_eq!(after[&client], if pid == gone { back } else { pid }, "{client}");
    }
}

#[test]
fn the_standby_keeps_each_client_too_while_the_whole_instance_is_dead() {
    let site = site(3, "").with_standby();
    let clients = clients(24);
    let (before, processes) = (of_all(&site, &clients), pids(&site, "B"));
    site.shell(&format!("kill -9 {}", site.supervise("B"))).ok();
    eventually("it is dead", || site.run("pid", &["B"]).code == 1);
    let standby = pids(&site, "A");
    let during = of_all(&site, &clients);
    assert!(during.values().all(|pid| standby.contains(pid)), "{during:?} of {standby:?}");
    assert_eq!(during.values().collect::<BTreeSet<_>>().len(), 3, "all of them are needed");
    for _ in 0..3 {
        assert_eq!(of_all(&site, &clients), during);
    }
    site.run("start-instance", &["B"]).ok();
    let slots = |all: BTreeMap<String, i32>, processes: &[i32]| -> Vec<Option<usize>> {
        all.into_values().map(|pid| processes.iter().position(|of| *of == pid)).collect()
    };
    assert_eq!(slots(of_all(&site, &clients), &pids(&site, "B")), slots(before, &processes), "they are back");
}

#[test]
fn deploys_with_other_numbers_of_processes_and_with_workers_divide_the_clients_anew() {
    let worker = "[[worker]]\nname = \"mail\"\ncommand = \"exec sleep 1000\"\n";
    let site = Site::unlaid_for(4, Sample::Static, "");
    site.write_config(&config(&site, 2, "trusted_proxies = [\"127.0.0.1\"]", worker));
    site.install(&[]).ok();
    site.run("deploy", &[]).ok();
    let clients = clients(48);
    let load = site.load();
    for (version, old, new) in [("v2", 2, 3), ("v3", 3, 1), ("v4", 1, 2)] {
        site.reconfigure(&format!("processes = {old}"), &format!("processes = {new}"));
        site.commit(version, "");
        site.run("deploy", &[]).ok();
        let enabled = site.run("enabled-instance", &[]).ok();
        let all = of_all(&site, &clients);
        assert_eq!(of_all(&site, &clients), all);
        let processes: BTreeSet<i32> = pids(&site, enabled.trim()).into_iter().collect();
        assert_eq!((processes.len(), all.into_values().collect()), (new, processes), "{version}");
    }
    // The other instance has another number.
    site.run("rollback", &[]).ok();
    assert_eq!(of_all(&site, &clients).into_values().collect::<BTreeSet<i32>>().len(), 1);
    none_lost(&load.stop());
}

#[test]
fn more_processes_than_can_be_divided_are_refused_before_anything_changes() {
    let site = site(2, "");
    let clients = clients(12);
    let before = of_all(&site, &clients);
    site.write_config(&config(&site, 17, "trusted_proxies = [\"127.0.0.1\"]", ""));
    site.install(&[]).fails(2, &["sticky", "at most 16 processes"]);
    assert_eq!(of_all(&site, &clients), before);
    site.reconfigure("processes = 2", "processes = 17");
    site.commit("v2", "");
    site.run("deploy", &[]).fails(2, &["sticky", "at most 16 processes"]);
    assert_eq!(of_all(&site, &clients), before);
    // Without sticky there may be as many.
    site.write_config(&config(&site, 17, "", "").replace("sticky = true", "sticky = false"));
    let checked = site.install(&["--dry-run"]);
    assert!(!checked.stderr.contains("at most 16"), "{checked:?}");
}

#[test]
fn install_turns_it_on_and_off_below_processes_that_go_on() {
    let site = Site::unlaid_for(3, Sample::Static, "");
    let sticky = config(&site, 3, "trusted_proxies = [\"127.0.0.1\"]", "");
    let spread = sticky.replace("sticky = true", "sticky = false");
    site.write_config(&spread);
    site.install(&[]).ok();
    site.run("deploy", &[]).ok();
    let processes = pids(&site, "A");
    let of_one = || (0..30).map(|_| asked(&mut connection(&site), "198.51.100.7")).collect::<BTreeSet<i32>>().len();
    for (text, expected) in [(&spread, 3), (&sticky, 1), (&spread, 3), (&sticky, 1)] {
        site.write_config(text);
        site.install(&[]).ok();
        eventually("nginx goes by it", || of_one() == expected);
        assert_eq!(pids(&site, "A"), processes);
        assert_eq!(of_all(&site, &clients(40)).into_values().collect::<BTreeSet<i32>>().len(), 3);
    }
}

#[test]
fn a_server_block_of_ones_own_keeps_each_client_in_all_its_locations() {
    let site = Site::unlaid_for(3, Sample::Static, "");
    let listen = format!("listen = [\"127.0.0.1:{}\"]", site.ports.listen);
    let text = config(&site, 3, "trusted_proxies = [\"127.0.0.1\"]", "").replace(&listen, "listen = []");
    site.write_config(&text);
    site.install(&[]).ok();
    let (included, port) = (site.home.join("nginx/conf.d/shop.d"), site.ports.listen);
    let included = included.display();
    let locations =
        ["/", "= /pid"].map(|path| format!("location {path} {{ include {included}/proxy.conf; }}")).concat();
    let block = format!("server {{ listen 127.0.0.1:{port}; include {included}/instance.conf; {locations} }}");
    fs::write(site.home.join("nginx/conf.d/own.conf"), block).unwrap();
    site.shell(&format!("nginx -p {0}/nginx -c nginx.conf -s reload", site.home.display())).ok();
    eventually("nginx listens", || site.get("/").0 != 0);
    site.run("deploy", &[]).ok();
    let mut proxy = connection(&site);
    for client in clients(24) {
        let own = asked(&mut proxy, &client);
        let elsewhere = proxy.exchange("GET", "/env", &[("X-Forwarded-For", &client)], &[]).unwrap();
        let text = String::from_utf8_lossy(&elsewhere.body).into_owned();
        let index: usize = text.lines().find_map(|line| line.strip_prefix("PROCESS_INDEX=")).unwrap().parse().unwrap();
        assert_eq!(pids(&site, "A")[index], own, "{client}");
    }
}

/// Writes down each body that it gets, and dies of some.
const MORTAL: &str = r#"
import http.server, os
class Mortal(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.answer(b"%d\n" % os.getpid())
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with open("../../posts", "ab") as posts:
            posts.write(body + b"\n")
        if body.startswith(b"die"):
            os.kill(os.getpid(), 9)
        self.answer(body)
    def log_message(self, *arguments):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Mortal).serve_forever()
"#;

#[test]
fn a_post_of_which_a_process_dies_is_sent_to_no_other() {
    let site = Site::unlaid_for(3, Sample::Static, "");
    let text = config(&site, 3, "trusted_proxies = [\"127.0.0.1\"]", "");
    site.write_config(&text.replace("exec ./app", "exec python3 mortal.py"));
    fs::write(site.source().join("mortal.py"), MORTAL).unwrap();
    site.commit("v1", "");
    site.install(&[]).ok();
    let site = site.with_standby();
    let post = |client: &str, body: &str| {
        let sent = connection(&site).exchange("POST", "/", &[("X-Forwarded-For", client)], body.as_bytes());
        sent.map(|answer| answer.head.status).unwrap()
    };
    let clients = clients(6);
    for client in &clients {
        eventually("all run", || site.run("pid", &["B"]).stdout.lines().count() == 3);
        assert_eq!(post(client, &format!("die {client}")), 502);
    }
    // One that is down takes nothing, so the next may have it.
    eventually("all run", || site.run("pid", &["B"]).stdout.lines().count() == 3);
    falls(&site, "B", 0);
    clients.iter().for_each(|client| assert_eq!(post(client, &format!("live {client}")), 200));
    let posts = fs::read_to_string(site.home.join("posts")).unwrap();
    let expected = ["die", "live"].map(|word| clients.iter().map(|one| format!("{word} {one}\n")).collect::<String>());
    assert_eq!(posts, expected.concat());
}

#[test]
fn no_get_of_its_clients_is_lost_while_a_process_is_asked_to_end_again_and_again() {
    let site = Site::unlaid_for(2, Sample::Static, "");
    site.write_config(&config(&site, 2, "", ""));
    site.install(&[]).ok();
    site.run("deploy", &[]).ok();
    // All of this load is one client.
    let pace = Some(Duration::from_millis(20));
    let load = Load::start(Plan { post_share: 0, pace, ..Plan::on(site.address()) });
    for _ in 0..5 {
        let pid: i32 = site.get("/pid").1.trim().parse().unwrap();
        site.shell(&format!("kill {pid}")).ok();
        eventually("it is another", || {
            let now = site.run("pid", &["A"]).stdout;
            now.lines().count() == 2 && !now.lines().any(|line| line == pid.to_string())
        });
        load.settled();
    }
    none_lost(&load.stop());
}
