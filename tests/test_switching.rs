//! The switch in the company of others: an administrator's nginx with a file cache, two apps in one server block, names of
//! all kinds, and what the app learns of the request.

use std::fs;
use std::path::{Path, PathBuf};

use crate::load::{Load, Plan};
use crate::site::{BRISK, Ports, Ran, Sample, Site, built, eventually, none_lost};

/// An administrator's nginx, which is no app's own: a program of that name in a PATH of its own runs the real one with a
/// directory of its own. It belongs to the first site, and ends with it.
struct Shared {
    directory: PathBuf,
    ports: Ports,
}

impl Shared {
    /// Starts it with these directives in its http block.
    fn start(site: &Site, http: &str) -> Shared {
        let directory = site.directory.path().join("nginx");
        let shared = Shared { ports: Ports::claim(), directory };
        for part in ["conf.d", "bin", "temp"] {
            fs::create_dir_all(shared.directory.join(part)).unwrap();
        }
        let place = shared.directory.display();
        let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {place}/temp/{kind};\n"))
            .concat();
        // Its workers are root's where root runs it: these sites lie in a directory that is closed to others.
        let user = if site.shell("id -u").stdout == "0\n" { "user root;" } else { "" };
        let text = format!(
            "{user}\npid {place}/nginx.pid;\nerror_log {place}/error.log;\nevents {{}}\nhttp {{\naccess_log off;\n{temp}{http}\n\
             include {place}/conf.d/*.conf;\n}}\n"
        );
        fs::write(shared.directory.join("nginx.conf"), text).unwrap();
        let real = site.shell("PATH=$PATH:/usr/sbin:/sbin command -v nginx").ok();
        let program = shared.directory.join("bin/nginx");
        fs::write(&program, format!("#!/bin/sh\nexec {} -p {place} -c nginx.conf \"$@\"\n", real.trim())).unwrap();
        crate::site::chmod(&program, 0o755);
        shared.run(site, &program, &[]).ok();
        shared
    }

    /// Runs a program that finds this nginx.
    fn run(&self, site: &Site, program: &Path, arguments: &[&str]) -> Ran {
        let path = format!("{}:{}", self.directory.join("bin").display(), std::env::var("PATH").unwrap());
        let mut command = site.command(program);
        Ran::of(&command.args(arguments).env("PATH", path).output().unwrap())
    }

    /// Lays out a site under this name, without a server block of its own.
    fn lay_out(&self, site: &Site, app: &str) {
        let (conf_dir, status) = (self.directory.join("conf.d"), site.ports.status);
        let nginx = format!("[nginx]\nlisten = []\nstatus_port = {status}\nconf_dir = {conf_dir:?}\n");
        site.write_config(&format!("{BRISK}{nginx}"));
        let config = fs::read_to_string(site.config()).unwrap();
        fs::write(site.config(), config.replace("app = \"shop\"", &format!("app = \"{app}\""))).unwrap();
        // The state lies in the home, where it needs no root.
        fs::create_dir_all(site.home.join("state")).unwrap();
        fs::write(site.home.join(".cutover"), format!("Laid by cutover's install for {app}\n")).unwrap();
        let (config, home) = (site.config(), site.home.to_str().unwrap());
        let arguments = ["--config", config.to_str().unwrap(), "--home", home];
        self.run(site, &built().join("install"), &arguments).ok();
        // Without its installer a site ends without looking for the machine's nginx.
        fs::remove_file(site.home.join("bin/install")).unwrap();
    }

    /// Lays a server block of the administrator's, and makes nginx use it.
    fn serve(&self, site: &Site, body: &str) {
        let (port, text) = (self.ports.listen, body.replace("DIR", self.directory.join("conf.d").to_str().unwrap()));
        let server = format!("server {{\nlisten 127.0.0.1:{port};\n{text}\n}}\n");
        fs::write(self.directory.join("conf.d/admin.conf"), server).unwrap();
        self.run(site, &self.directory.join("bin/nginx"), &["-t", "-q"]).ok();
        self.run(site, &self.directory.join("bin/nginx"), &["-s", "reload"]).ok();
        eventually("the administrator's server answers", || self.get("/") != 0);
    }

    fn get(&self, path: &str) -> u16 {
        crate::site::get(self.ports.listen, path).0
    }

    fn body(&self, path: &str) -> String {
        let (status, body) = crate::site::get(self.ports.listen, path);
        assert_eq!(status, 200, "{body}");
        body
    }

    fn load(&self) -> Load {
        Load::start(Plan::on(([127, 0, 0, 1], self.ports.listen).into()))
    }
}

#[test]
fn a_file_cache_of_the_administrators_does_not_delay_the_switch() {
    let site = Site::unlaid(Sample::Static, "");
    let cache = "open_file_cache max=1000 inactive=600s;\nopen_file_cache_valid 600s;\nopen_file_cache_errors on;";
    let nginx = Shared::start(&site, cache);
    nginx.lay_out(&site, "shop");
    nginx.serve(&site, "include DIR/shop.d/instance.conf;\nlocation / { include DIR/shop.d/proxy.conf; }");
    site.run("deploy", &[]).ok();
    assert_eq!(nginx.body("/"), "v1\n");
    site.commit("v2", "");
    site.run("deploy", &[]).ok();
    let load = nginx.load();
    for round in 0..50 {
        let version = ["v2", "v1"][round % 2];
        assert_eq!(nginx.body("/"), format!("{version}\n"), "in round {round}");
        site.run("connect-to-nginx", &[]).ok();
    }
    none_lost(&load.stop());
}

#[test]
fn two_apps_in_one_server_block_switch_each_for_itself() {
    let (shop, desk) = (Site::unlaid_roomy(Sample::Static, ""), Site::unlaid_roomy(Sample::Static, ""));
    let nginx = Shared::start(&shop, "");
    nginx.lay_out(&shop, "shop");
    nginx.lay_out(&desk, "front-desk");
    let both = "include DIR/shop.d/instance.conf;\ninclude DIR/front-desk.d/choice.conf;\n\
                location / { include DIR/shop.d/proxy.conf; }\nlocation = /slow { include DIR/front-desk.d/proxy.conf; }";
    nginx.serve(&shop, both);
    for site in [&shop, &desk] {
        site.run("deploy", &[]).ok();
        site.commit("v2", "");
    }
    let served = || (nginx.body("/"), nginx.body("/slow?ms=0"));
    let versions = |shop: &str, desk: &str| (format!("{shop}\n"), format!("{desk}\n"));
    assert_eq!(served(), versions("v1", "v1"));
    let load = nginx.load();
    shop.run("deploy", &[]).ok();
    assert_eq!(served(), versions("v2", "v1"));
    desk.run("deploy", &[]).ok();
    assert_eq!(served(), versions("v2", "v2"));
    shop.run("rollback", &[]).ok();
    assert_eq!(served(), versions("v1", "v2"));
    desk.run("rollback", &[]).ok();
    assert_eq!(served(), versions("v1", "v1"));
    none_lost(&load.stop());
}

#[test]
fn the_app_learns_who_asked_for_what() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("deploy", &[]).ok();
    let port = site.ports.listen;
    let ask = |headers: &[&str]| {
        let given: String = headers.iter().map(|header| format!(" -H '{header}'")).collect();
        site.shell(&format!("curl --silent --fail{given} 'http://127.0.0.1:{port}/headers'")).ok()
    };
    let expected = |host: &str, forwarded: &str| {
        format!(
            "accept: */*\nhost: {host}\nuser-agent: test\nx-forwarded-for: {forwarded}\nx-forwarded-host: {host}\n\
             x-forwarded-port: {port}\nx-forwarded-proto: http\nx-real-ip: 127.0.0.1\n"
        )
    };
    let direct = ask(&["User-Agent: test"]);
    assert_eq!(direct, expected(&format!("127.0.0.1:{port}"), "127.0.0.1"));
    let proxied = ask(&["User-Agent: test", "Host: shop.example:8443", "X-Forwarded-For: 203.0.113.9"]);
    assert_eq!(proxied, expected("shop.example:8443", "203.0.113.9, 127.0.0.1"));
    // What only a proxy may say, a client cannot.
    let lying = ["User-Agent: test", "X-Real-IP: 203.0.113.9", "X-Forwarded-Proto: https", "X-Forwarded-Host: evil"];
    assert_eq!(ask(&lying), expected(&format!("127.0.0.1:{port}"), "127.0.0.1"));
}

#[test]
fn the_request_itself_passes_through_unchanged() {
    // An app that shows the request line as it came.
    let script = "import http.server as h, os\nclass Echo(h.BaseHTTPRequestHandler):\n  protocol_version = 'HTTP/1.1'\n  \
        def do_GET(self):\n    body = self.requestline.encode()\n    self.send_response(200)\n    \
        self.send_header('Content-Length', str(len(body)))\n    self.end_headers()\n    self.wfile.write(body)\n\
        h.ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), Echo).serve_forever()\n";
    let site = Site::new(Sample::Static, &format!("{BRISK}[run]\ncommand = \"exec python3 echo.py\"\n"));
    fs::write(site.source().join("echo.py"), script).unwrap();
    site.commit("v1", "");
    site.run("deploy", &[]).ok();
    for uri in ["/a%2Fb/%C3%A9?x=%20y&z", "//double//slash", "/a/./b/../c?a=/../d", "/q?enabled/B", "/;p=1"] {
        let url = format!("http://127.0.0.1:{}{uri}", site.ports.listen);
        let echoed = site.shell(&format!("curl --silent --fail --path-as-is '{url}'")).ok();
        assert_eq!(echoed, format!("GET {uri} HTTP/1.1"));
    }
}

#[test]
fn instances_may_have_any_names() {
    let site = Site::unlaid(Sample::Static, BRISK);
    let Ports { first, second, .. } = site.ports;
    let config = fs::read_to_string(site.config()).unwrap();
    let named = config
        .replace(&format!("A = {first}"), &format!("dailry-blue = {first}"))
        .replace(&format!("B = {second}"), &format!("dailry-green = {second}"));
    fs::write(site.config(), named).unwrap();
    site.install(&[]).ok();
    assert_eq!(site.run("disabled-instance", &[]).ok(), "dailry-blue\n");
    site.run("deploy", &[]).ok();
    assert_eq!(site.run("enabled-instance", &[]).ok(), "dailry-blue\n");
    let load = site.load();
    for (version, enabled) in [("v2", "dailry-green"), ("v3", "dailry-blue"), ("v4", "dailry-green")] {
        site.commit(version, "");
        site.run("deploy", &[]).ok();
        assert_eq!(site.run("enabled-instance", &[]).ok(), format!("{enabled}\n"));
        assert_eq!(site.get("/"), (200, format!("{version}\n")));
    }
    site.run("connect-to-nginx", &["DAILRY-Blue"]).ok();
    assert_eq!(site.get("/"), (200, "v3\n".to_owned()));
    site.run("connect-to-nginx", &["instancedailry-green"]).ok();
    assert_eq!(site.get("/"), (200, "v4\n".to_owned()));
    assert_eq!(site.pid("dailry-green").to_string(), site.get("/pid").1.trim());
    none_lost(&load.stop());
    assert!(site.home.join("logs/dailry-blue.log").exists());
}
