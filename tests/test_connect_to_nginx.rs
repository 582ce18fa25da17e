//! connect-to-nginx: the cutover, confirmed by nginx, or the link as it was.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::thread;

use serde_json::{Value, json};

use crate::site::{BRISK, Sample, Site, eventually, explains_itself};

const UNHEALTHY: &str =
    "connect-to-nginx: cannot connect B: it is not healthy: connection refused; --force does it all the same\n";

#[test]
fn it_explains_itself() {
    explains_itself("connect-to-nginx", "Cut over to an instance, confirmed by nginx");
}

#[test]
fn it_switches_to_the_disabled_instance_or_the_one_that_is_named() {
    let site = two_versions();
    site.run("connect-to-nginx", &[]).is(0, "", "");
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
    site.run("connect-to-nginx", &["instanceb"]).is(0, "", "");
    assert_eq!(site.get("/"), (200, "v2\n".to_owned()));
    site.run("connect-to-nginx", &["B"]).is(0, "", "");
    assert_eq!((link(&site), site.get("/")), ("B".into(), (200, "v2\n".to_owned())));
    let reason = "connect-to-nginx: cannot find instance \"C\": there are A and B\n";
    site.run("connect-to-nginx", &["C"]).is(2, "", reason);
}

#[test]
fn each_switch_is_recorded_and_no_other_run_is() {
    let site = two_versions();
    site.run("connect-to-nginx", &[]).ok();
    site.run("connect-to-nginx", &["A"]).ok();
    stop_nginx(&site);
    assert_eq!(site.run("connect-to-nginx", &["B"]).code, 3);
    let told: Value = serde_json::from_str(&site.run("history", &["--json", "-n", "3"]).ok()).unwrap();
    let said = |change: &Value| (change["what"].clone(), change["outcome"].clone(), change["to"].clone());
    let [failed, done, deploy] = &told.as_array().unwrap()[..] else { panic!("{told}") };
    assert_eq!(said(failed), (json!("connect-to-nginx"), json!("failed"), deploy["to"].clone()));
    assert_eq!(said(done), (json!("connect-to-nginx"), json!("done"), deploy["from"].clone()));
    assert_eq!(done["from"], deploy["to"]);
    assert!(done["seconds"]["connect"].is_number(), "{done}");
    assert!(failed["reason"].as_str().unwrap().starts_with("cannot connect B: nginx does not answer"), "{failed}");
}

#[test]
fn an_unhealthy_instance_is_connected_only_by_force() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("connect-to-nginx", &["B"]).is(3, "", UNHEALTHY);
    site.run("enabled-instance", &[]).is(1, "", "");
    site.run("deploy", &[]).ok();
    site.run("connect-to-nginx", &[]).is(3, "", UNHEALTHY);
    assert_eq!((link(&site), site.get("/")), ("A".into(), (200, "v1\n".to_owned())));
    site.run("connect-to-nginx", &["-f"]).is(0, "", "");
    assert_eq!(link(&site), PathBuf::from("B"));
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()), "the other instance answers in its place");
}

#[test]
fn without_nginx_the_link_stays_and_the_remedy_is_told() {
    let site = two_versions();
    stop_nginx(&site);
    let reason = format!(
        "connect-to-nginx: cannot connect A: nginx does not answer on its status port 127.0.0.1:{} \
         (connection refused): run bootup, or run install again if it runs\n",
        site.ports.status
    );
    site.run("connect-to-nginx", &[]).is(3, "", &reason);
    assert_eq!(link(&site), PathBuf::from("B"));
    fs::remove_file(site.home.join("state/enabled")).unwrap();
    site.run("connect-to-nginx", &["A"]).is(3, "", &reason);
    site.run("enabled-instance", &[]).is(1, "", "");
    site.run("bootup", &[]).ok();
    site.run("connect-to-nginx", &["A"]).is(0, "", "");
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
}

#[test]
fn another_server_on_the_status_port_is_not_taken_for_nginx() {
    let site = two_versions();
    stop_nginx(&site);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, site.ports.status)).unwrap();
    let stranger = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nA\n");
    });
    let reason = format!(
        "connect-to-nginx: cannot connect A: another server answers on 127.0.0.1:{} (status 200): \
         give [nginx] status_port a free port and run install again\n",
        site.ports.status
    );
    site.run("connect-to-nginx", &[]).is(3, "", &reason);
    stranger.join().unwrap();
    assert_eq!(link(&site), PathBuf::from("B"));
}

#[test]
fn an_nginx_that_looks_elsewhere_does_not_confirm_and_the_link_is_put_back() {
    let site = two_versions();
    // What nginx looks for is whether the second instance's marker is there.
    fs::remove_file(site.home.join("state/B/B")).unwrap();
    site.run("connect-to-nginx", &["A"]).is(0, "", "");
    let ran = site.run("connect-to-nginx", &["B"]);
    ran.fails(3, &["connect-to-nginx: cannot connect B: nginx still uses A: ", "run install again"]);
    assert_eq!((link(&site), site.get("/")), ("A".into(), (200, "v1\n".to_owned())));
    site.install(&[]).ok();
    site.run("connect-to-nginx", &["B"]).is(0, "", "");
}

/// A site whose A runs v1 and whose B runs v2, B enabled.
fn two_versions() -> Site {
    Site::new(Sample::Static, BRISK).with_standby()
}

fn link(site: &Site) -> PathBuf {
    fs::read_link(site.home.join("state/enabled")).unwrap()
}

/// Stops the site's nginx as a crash would.
fn stop_nginx(site: &Site) {
    let pid = fs::read_to_string(site.home.join("nginx/nginx.pid")).unwrap();
    site.shell(&format!("kill {}", pid.trim())).ok();
    eventually("nginx has gone", || {
        std::net::TcpStream::connect(site.address()).is_err()
            && !PathBuf::from(format!("/proc/{}", pid.trim())).exists()
    });
}
