//! What a deploy sees, while it soaks, of how the app treats connections that nginx keeps.

use std::fs;

use crate::site::{Sample, Site};

/// Closes what has been idle for a time in milliseconds; 0: never.
const NODE: &str = "\
const server = require('http').createServer((request, response) => response.end('well'));
server.keepAliveTimeout = Number(process.argv[2]);
server.listen(process.env.PORT, '127.0.0.1');
";
/// A few threads, each of which waits on the connection that it has answered on: for a time in seconds, and then it closes it.
const THREADS: &str = "\
import os, socket, sys, threading
count, patience = int(sys.argv[1]), float(sys.argv[2])
listener = socket.create_server(('127.0.0.1', int(os.environ['PORT'])), backlog=128)
ANSWER = b'HTTP/1.1 200 OK\\r\\nContent-Length: 4\\r\\n\\r\\nwell'
def serve():
    while True:
        connection, _ = listener.accept()
        connection.settimeout(patience)
        try:
            while connection.recv(65536):
                connection.sendall(ANSWER)
        except OSError:
            pass
        connection.close()
for _ in range(count):
    threading.Thread(target=serve).start()
";

fn site(command: &str, nginx: &str, soak: &str) -> Site {
    let site = Site::unlaid(Sample::Static, "");
    fs::write(site.source().join("server.js"), NODE).unwrap();
    fs::write(site.source().join("threads.py"), THREADS).unwrap();
    site.commit("v1", "");
    let (listen, status) = (site.ports.listen, site.ports.status);
    site.write_config(&format!(
        "[nginx]\nown = true\nlisten = [\"127.0.0.1:{listen}\"]\nstatus_port = {status}\n{nginx}\n\
         [run]\ncommand = \"exec {command}\"\nstop_timeout = \"1s\"\n[deploy]\nsoak = \"{soak}\"\n"
    ));
    site.install(&[]).ok();
    site
}

/// What a deploy says beside its steps.
fn said(site: &Site) -> Vec<String> {
    let ran = site.run("deploy", &["--again"]);
    ran.is(0, "", &ran.stderr);
    ran.stderr.lines().filter(|line| line.contains(" in [nginx]")).map(str::to_owned).collect()
}

/// What one of some deploys says: on a machine that is busy, not each has the time to see it.
fn told(site: &Site) -> String {
    let said = (0..5).map(|_| said(site)).find(|said| !said.is_empty()).expect("it says nothing");
    let [line] = &said[..] else { panic!("{said:?}") };
    line.clone()
}

#[test]
fn an_app_that_closes_idle_connections_before_nginx_does_is_told_of() {
    for (command, nginx, remedies) in [
        // Node adds up to a second of its own.
        ("node server.js 300", "keepalive_timeout = \"2s\"", &["200ms", "600ms", "700ms"][..]),
        ("python3 threads.py 40 1.5", "keepalive_timeout = \"2s\"", &["700ms", "800ms"]),
        ("python3 threads.py 40 0.4", "", &["100ms", "200ms"]),
    ] {
        let site = site(command, nginx, "5s");
        let line = told(&site);
        assert!(line.contains(" closes an idle connection after "), "{command}: {line}");
        assert!(line.contains("so that requests can be lost: set keepalive_timeout = "), "{command}: {line}");
        assert!(remedies.iter().any(|remedy| line.contains(&format!("\"{remedy}\""))), "{command}: {line}");
        // With what was said there is nothing to say.
        let remedy = line.split("set ").last().unwrap().trim_end_matches(" in [nginx]");
        let config = fs::read_to_string(site.home.join("config.toml")).unwrap();
        let config =
            config.replace("keepalive_timeout = \"2s\"\n", "").replace("[nginx]\n", &format!("[nginx]\n{remedy}\n"));
        fs::write(site.config(), config).unwrap();
        site.install(&[]).ok();
        site.commit("v2", "");
        assert_eq!(self::said(&site), [""; 0], "{command}");
    }
}

#[test]
fn an_app_whose_threads_wait_on_kept_connections_is_told_of() {
    for (count, patience) in [("3", "0.2"), ("2", "5"), ("5", "60")] {
        let site = site(&format!("python3 threads.py {count} {patience}"), "", "5s");
        let line = told(&site);
        assert!(line.contains(" answers after "), "{line}");
        assert!(line.ends_with(" while connections to it are kept: set keepalive = 0 in [nginx]"), "{line}");
    }
}

#[test]
fn of_an_app_that_gets_along_with_nginx_nothing_is_said() {
    for (command, nginx, soak) in [
        ("node server.js 5000", "", "3s"),
        ("node server.js 0", "", "3s"),
        // No connection is kept: by nginx, by the app, by HTTP/1.0.
        ("python3 threads.py 3 0.2", "keepalive = 0", "3s"),
        ("python3 -m http.server $PORT", "", "3s"),
        // Threads enough for all that nginx keeps.
        ("python3 threads.py 3 5", "keepalive = 2", "3s"),
        // There is no time to see anything.
        ("python3 threads.py 40 0.4", "", "100ms"),
    ] {
        let site = site(command, nginx, soak);
        assert_eq!(said(&site), [""; 0], "{command} {nginx}");
    }
}
