//! nginx stops, is restarted or is misconfigured by somebody else, in the middle of a deploy.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use crate::server::Server;
use crate::site::{BRISK, Ran, Sample, Site, eventually};

/// Version `v1` serves, and a deploy of `v2` builds until the file `go` is there.
fn building() -> (Site, Child) {
    let build = "[build]\ncommand = \"until test -e ../../go; do sleep 0.02; done\"\n";
    let site = Site::new(Sample::Static, &format!("{build}{BRISK}"));
    fs::write(site.home.join("go"), "").unwrap();
    site.run("deploy", &[]).ok();
    fs::remove_file(site.home.join("go")).unwrap();
    site.commit("v2", "");
    let deploy = site.tool("deploy", &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("it builds", || {
        site.status()["change"]["doing"].as_str().is_some_and(|doing| doing.starts_with("making a release"))
    });
    (site, deploy)
}

fn go_on(site: &Site, deploy: Child) -> Ran {
    fs::write(site.home.join("go"), "").unwrap();
    Ran::of(&deploy.wait_with_output().unwrap())
}

fn nginx(site: &Site, arguments: &[&str]) -> Ran {
    let mut command = site.command(&cutover::command::find("nginx").unwrap());
    command.arg("-p").arg(site.home.join("nginx")).args(["-c", "nginx.conf", "-e", "logs/error.log"]).args(arguments);
    Ran::of(&command.output().unwrap())
}

fn stop_nginx(site: &Site) {
    let pid = fs::read_to_string(site.home.join("nginx/nginx.pid")).unwrap();
    site.shell(&format!("kill {}", pid.trim())).ok();
    eventually("nginx has gone", || !PathBuf::from(format!("/proc/{}", pid.trim())).exists());
}

#[test]
fn an_nginx_that_stops_during_a_deploy_fails_it_and_nothing_has_changed() {
    let (site, deploy) = building();
    stop_nginx(&site);
    go_on(&site, deploy)
        .fails(3, &["deploy: cannot connect B: nginx does not answer on its status port", "run bootup"]);
    assert_eq!(site.run("enabled-instance", &[]).ok(), "A\n");
    site.run("bootup", &[]).ok();
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
    site.run("deploy", &[]).ok();
    assert_eq!(site.get("/"), (200, "v2\n".to_owned()));
}

#[test]
fn an_nginx_that_is_restarted_during_a_deploy_does_not_matter() {
    let (site, deploy) = building();
    stop_nginx(&site);
    assert_eq!(nginx(&site, &[]).code, 0);
    assert_eq!(go_on(&site, deploy).code, 0);
    assert_eq!(site.get("/"), (200, "v2\n".to_owned()));
}

/// As after `systemctl restart nginx && install`, on a machine that is slow.
#[test]
fn an_nginx_that_is_only_just_starting_takes_up_what_is_installed() {
    let Some(server) = Server::boot() else { return };
    // Its master has written down its pid then, and does not wait for signals yet.
    let slowly = "kill $(cat /run/nginx.pid); while [ -e /run/nginx.pid ]; do sleep 0.05; done; \
        strace -f -qq -o /run/trace -e trace=?dup2,?dup3 -e inject=?dup2,?dup3:delay_exit=1200000 nginx >/dev/null 2>&1 & \
        until [ -s /run/nginx.pid ]; do sleep 0.01; done";
    server.run(slowly).ok();
    server.install("").ok();
    server.run("runuser -u potados -- /home/potados/.cafeteria/bin/deploy").ok();
    assert_eq!(server.served(), "v1\n");
}

#[test]
fn a_configuration_that_somebody_broke_stops_no_deploy_and_an_install_says_where_it_is_broken() {
    let (site, deploy) = building();
    let server = server_file(&site);
    let good = fs::read_to_string(&server).unwrap();
    fs::write(&server, format!("{good}\nno_such_directive on;\n")).unwrap();
    assert_eq!(go_on(&site, deploy).code, 0);
    assert_eq!(site.get("/"), (200, "v2\n".to_owned()));

    site.write_config(&format!("[build]\ncommand = \"true\"\n{BRISK}"));
    fs::remove_file(site.home.join("nginx/conf.d/shop.d/proxy.conf")).unwrap();
    site.install(&[]).fails(3, &["no_such_directive"]);
    assert_eq!(site.get("/"), (200, "v2\n".to_owned()));
    fs::write(&server, good).unwrap();
    site.install(&[]).ok();
    site.run("rollback", &[]).ok();
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
}

fn server_file(site: &Site) -> PathBuf {
    let directory = site.home.join("nginx/conf.d");
    let is_server = |path: &Path| {
        fs::read_to_string(path).is_ok_and(|text| text.contains("server {") && text.contains("proxy.conf"))
    };
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    files.into_iter().find(|path| is_server(path)).unwrap()
}
