//! Ports: another local user's listeners of every kind, and the ports of another app in every role.

use std::fs;

use crate::ran::Ran;
use crate::server::{CONFIG, Server};
use crate::site::eventually;

const BIN: &str = "/home/potados/.cafeteria/bin";

/// Listens on an address and a port, in a way, and answers as the app would.
const LISTENER: &str = r#"
import os, socket, sys
address, port, ways = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
if ":" in address:
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, "only" in ways)
if "shared" in ways:
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((address, port))
listener.listen(50)
if "orphan" in ways and os.fork():
    os._exit(0)
while True:
    client = listener.accept()[0]
    client.recv(65536)
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\nHIJACKED")
    client.close()
"#;

/// A server on which v1 serves from A, with mallory's program at hand.
pub fn deployed() -> Option<Server> {
    let server = Server::boot()?;
    server.install("").ok();
    server.run(&format!("{BIN}/deploy")).ok();
    fs::write(server.path("/home/mallory/listener.py"), LISTENER).unwrap();
    // An address that is not the loopback's, as every server has one.
    server.run("ip addr add 192.0.2.1/32 dev lo").ok();
    Some(server)
}

/// Has mallory listen like this: address, port and ways.
pub fn mallory_listens(server: &Server, how: &str) {
    server.run(&format!("runuser -u mallory -- python3 /home/mallory/listener.py {how} >/dev/null 2>&1 &")).ok();
    let words: Vec<&str> = how.split(' ').collect();
    let host = match words[0] {
        "0.0.0.0" | "::ffff:127.0.0.1" => "127.0.0.1",
        "::" | "::1" => "[::1]",
        host => host,
    };
    let ask = format!("curl --globoff --silent --max-time 5 http://{host}:{}/", words[1]);
    eventually("mallory listens", || server.run(&ask).stdout == "HIJACKED");
}

pub fn mallory_goes(server: &Server) {
    server.run("pkill -KILL -u mallory");
    // An orphan stays as a zombie: the server's first process reaps none.
    eventually("mallory is gone", || server.run("pgrep --runstates DRST -u mallory").code == 1);
}

pub fn commit(server: &Server, version: &str) {
    let git = "runuser -u potados -- git -c user.name=p -c user.email=p@example.org";
    server
        .run(&format!("cd /home/source && echo {version} >VERSION && {git} commit --quiet --all --message {version}"))
        .ok();
}

#[test]
fn a_listener_of_another_user_is_named_however_it_listens() {
    let Some(server) = deployed() else { return };
    server.run(&format!("{BIN}/update-instance B")).ok();
    for how in [
        "127.0.0.1 20202 orphan",
        "127.0.0.1 20202 shared",
        "0.0.0.0 20202",
        "0.0.0.0 20202 shared",
        ":: 20202",
        "::ffff:127.0.0.1 20202",
    ] {
        mallory_listens(&server, how);
        let status = server.run(&format!("{BIN}/status")).ok();
        assert!(
            status.contains("port 20202 is held by a process of user mallory, not by cafeteria"),
            "{how}: {status}"
        );
        let json: serde_json::Value = serde_json::from_str(&server.run(&format!("{BIN}/status --json")).ok()).unwrap();
        assert_eq!((&json["instances"][0]["healthy"], &json["instances"][1]["healthy"]), (&true.into(), &false.into()));
        server.run(&format!("{BIN}/pid B")).fails(3, &["port 20202: a process of user mallory"]);
        commit(&server, &format!("v-{}", how.replace([' ', ':', '.'], "-")));
        for tool in ["deploy", "start-instance B", "connect-to-nginx B", "rollback", "reload"] {
            let ran = server.run(&format!("timeout 60 {BIN}/{tool}"));
            assert!(ran.code == 3 && ran.stderr.contains("mallory"), "{how}: {tool}: {ran:?}");
            assert_eq!(server.served(), "v1\n", "{how}: {tool}");
        }
        mallory_goes(&server);
    }
    server.run(&format!("{BIN}/deploy")).ok();
    assert!(server.served().starts_with("v-"));
}

#[test]
fn a_listener_of_another_user_that_is_in_nobodys_way_is_none() {
    let Some(server) = deployed() else { return };
    for (number, how) in ["::1 20201 only", "192.0.2.1 20201", "::1 20200 only", "127.0.0.2 20200"].iter().enumerate() {
        mallory_listens(&server, how);
        commit(&server, &format!("w{number}"));
        server.run(&format!("timeout 60 {BIN}/deploy")).ok();
        assert_eq!(server.served(), format!("w{number}\n"), "{how}");
        let status = server.run(&format!("{BIN}/status")).ok();
        assert!(!status.contains("mallory"), "{how}: {status}");
        // A is watched again, and the next deploy goes to B.
        server.run(&format!("{BIN}/rollback")).ok();
        mallory_goes(&server);
    }
}

/// Another app of mallory's with these ports.
pub fn other(server: &Server, [a, b, status, push]: [u16; 4], more: &str) -> Ran {
    let text = CONFIG.replace("\"cafeteria\"", "\"other\"");
    let ports = format!(
        "[instances]\nA = {a}\nB = {b}\n[push]\nrepository = \"a/b\"\nport = {push}\n[nginx]\nstatus_port = {status}\n\
         server_name = \"other.example\"\n{more}"
    );
    fs::write(server.config(), text + &ports).unwrap();
    server.run("timeout 60 $TOOLS/install --config $CONFIG --user mallory")
}

#[test]
fn a_port_of_another_app_is_refused_in_every_role() {
    let Some(server) = Server::boot() else { return };
    server.like_systemd();
    let run = "[run]\nprocesses = 2\nmax_memory = \"300M\"\n";
    let text = CONFIG.replace("[run]\n", run) + "[push]\nrepository = \"a/b\"\nport = 20203\n";
    fs::write(server.config(), text).unwrap();
    server.install("").ok();
    for (ports, taken) in [
        // Webhooks' port as an instance's, as nginx's, as webhooks'; an instance's as webhooks'.
        ([20203, 20302, 20300, 20303], 20203),
        ([20301, 20302, 20203, 20303], 20203),
        ([20301, 20302, 20300, 20203], 20203),
        ([20301, 20302, 20300, 20201], 20201),
        ([20301, 20302, 20300, 20202], 20202),
        // nginx's own.
        ([20301, 20302, 20300, 20200], 20200),
        ([20200, 20302, 20300, 20303], 20200),
        // Those of the second process, and of the one that takes another's place.
        ([20301, 20212, 20300, 20303], 20212),
        ([20301, 20302, 20221, 20303], 20221),
        ([20301, 20302, 20300, 20222], 20222),
    ] {
        let ran = other(&server, ports, "");
        ran.fails(3, &[&format!("cannot use port {taken}: it is that of the app")]);
        server.run("ls -A /home/mallory /etc/nginx/conf.d | grep -c other").is(1, "0\n", "");
    }
    // Its own further processes reach into the first one's.
    let text = fs::read_to_string(server.config()).unwrap().replace("[run]\n", "[run]\nprocesses = 4\n");
    fs::write(server.config(), text.replace("A = 20301", "A = 20171").replace("port = 20222", "port = 20303")).unwrap();
    let ran = server.run("timeout 60 $TOOLS/install --config $CONFIG --user mallory");
    ran.fails(3, &["cannot use port 20201: it is that of the app"]);
}

/// Serves until it is told to leave its port, and then does what its first argument says.
const LEAVER: &str = r#"
import http.server, os, sys, threading, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"v2\n")
    def log_message(self, *_):
        pass
port = int(sys.argv[1].split("=")[1])
server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
while not os.path.exists("/run/open/leave"):
    time.sleep(0.005)
if open("/run/open/leave").read() == "dies":
    os._exit(1)
server.shutdown()
server.server_close()
time.sleep(1000)
"#;

/// Takes a port as soon as nobody has it, and answers as the app would.
const TAKER: &str = r#"
import socket, time
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
while True:
    try:
        listener.bind(("127.0.0.1", 20202))
        listener.listen(50)
        break
    except OSError:
        time.sleep(0.0002)
open("/run/open/taken", "w").close()
while True:
    client = listener.accept()[0]
    client.recv(65536)
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\nHIJACKED")
    client.close()
"#;

#[test]
fn a_listener_of_another_user_that_takes_the_port_in_the_soak_sends_the_deploy_back() {
    for how in ["dies", "stops listening"] {
        let Some(server) = deployed() else { return };
        // Longer than anything here is waited for: what is seen at its end only is seen too late.
        server.run(&format!("sed -i 's/soak = .*/soak = \"10m\"/' {BIN}/../config.toml")).ok();
        server.run("mkdir -m 1777 /run/open").ok();
        fs::write(server.path("/home/mallory/taker.py"), TAKER).unwrap();
        fs::write(server.path("/home/source/server.py"), LEAVER).unwrap();
        commit(&server, "v2");
        server.run(&format!("({BIN}/deploy >/run/said 2>&1; echo $? >/run/code) >/dev/null 2>&1 &")).ok();
        eventually("B is enabled", || server.run(&format!("{BIN}/enabled-instance")).stdout == "B\n");
        assert_eq!(server.served(), "v2\n");
        server.run("runuser -u mallory -- python3 /home/mallory/taker.py >/dev/null 2>&1 &").ok();
        eventually("mallory waits", || server.run("pgrep -u mallory").code == 0);
        fs::write(server.path("/run/open/leave.new"), how).unwrap();
        server.run("mv /run/open/leave.new /run/open/leave").ok();
        eventually("mallory has the port", || server.path("/run/open/taken").exists());
        eventually("the deploy has ended", || server.run("cat /run/code").code == 0);
        let said = server.run("cat /run/said /run/code").ok();
        let taken = "B is not healthy any more after the cutover: port 20202 is held by a process of user mallory, not by cafeteria";
        // Of one that dies, either is seen first.
        let reasons = if how == "dies" { vec!["B died after the cutover: exit status 1", taken] } else { vec![taken] };
        let is_told = |reason: &&str| said.ends_with(&format!("{reason}; A is enabled again\n4\n"));
        assert!(reasons.iter().any(is_told), "{how}: {said}");
        for _ in 0..20 {
            assert_eq!(server.served(), "v1\n", "{how}");
        }
        let status = server.run(&format!("{BIN}/status")).ok();
        assert!(status.contains("port 20202 is held by a process of user mallory"), "{how}: {status}");
    }
}
