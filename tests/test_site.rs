//! What is said to serve is what clients get: install, deploy, reload, rollback and connect-to-nginx ask the app through nginx, on
//! the site's own address and name.

use std::fs;

use crate::server::{CONFIG, Server};
use crate::site::{BRISK, Sample, Site, eventually, none_lost};

const HOME: &str = "/home/potados/.cafeteria";

/// An app whose pages have as many bytes of header fields as the release's file HEADERS says, and which answers `/status/NUMBER`
/// with that status.
const APP: &str = "import http.server as h, os\n\
    class App(h.BaseHTTPRequestHandler):\n  protocol_version = 'HTTP/1.1'\n  def log_message(self, *a): pass\n  \
    def do_POST(self):\n    self.answer(self.rfile.read(int(self.headers['Content-Length'])))\n  \
    def do_GET(self):\n    self.answer(open('VERSION', 'rb').read())\n  \
    def answer(self, body):\n    \
    self.send_response(int(self.path[8:]) if self.path.startswith('/status/') else 200)\n    \
    self.send_header('Link', 'x' * int(open('HEADERS').read()))\n    \
    self.send_header('Content-Length', str(len(body)))\n    self.end_headers()\n    self.wfile.write(body)\n\
    h.ThreadingHTTPServer(('127.0.0.1', int(os.environ['PORT'])), App).serve_forever()\n";
const RUN: &str = "[run]\ncommand = \"exec python3 app.py\"\n";

fn release(site: &Site, version: &str, header_bytes: usize) {
    fs::write(site.source().join("app.py"), APP).unwrap();
    fs::write(site.source().join("HEADERS"), header_bytes.to_string()).unwrap();
    site.commit(version, "");
}

/// A site with v1 deployed, of few header fields.
fn site(more: &str) -> Site {
    let site = Site::unlaid(Sample::Static, &format!("{BRISK}{RUN}{more}"));
    release(&site, "v1", 10);
    site.install(&[]).ok();
    site.run("deploy", &[]).ok();
    site
}

#[test]
fn a_release_whose_header_fields_are_too_big_for_nginx_is_taken_back_and_named() {
    let site = site("");
    // As large as browsers' cookies get, in our own server block.
    release(&site, "v2", 12_000);
    site.run("deploy", &[]).ok();
    assert_eq!(site.get("/").1, "v2\n");
    release(&site, "v3", 40_000);
    let failed = site.run("deploy", &[]);
    failed.fails(
        4,
        &[
            &format!("deploy: clients of http://127.0.0.1:{} do not get / from A: status 502 by way of nginx, 200 without it", site.ports.listen),
            "its header fields are 40",
            "give the server block a larger proxy_buffer_size; B is enabled again",
        ],
    );
    assert_eq!((site.get("/").1.as_str(), site.run("enabled-instance", &[]).ok().as_str()), ("v2\n", "B\n"));
    assert!(site.run("history", &[]).ok().contains("rolled back"), "{}", site.run("history", &[]).ok());
    // By hand as well: the release is warm in neither instance any more.
    site.shell("update-instance A && start-instance A").ok();
    for tool in ["rollback", "connect-to-nginx"] {
        site.run(tool, &[]).fails(4, &["do not get / from A", "B is enabled again"]);
        assert_eq!((site.get("/").1.as_str(), site.run("enabled-instance", &[]).ok().as_str()), ("v2\n", "B\n"));
    }
    // Who forces it gets it.
    site.run("connect-to-nginx", &["--force", "A"]).ok();
    assert_eq!(site.get("/").0, 502);
    site.run("rollback", &[]).ok();
}

#[test]
fn an_app_that_answers_badly_by_itself_is_no_matter_of_nginx_s() {
    // A check that expects the app to be unavailable, and nothing through nginx that the app would not say itself.
    let site = site("[health]\npath = \"/status/503\"\nstatus = \"503\"\n");
    assert_eq!(site.get("/").0, 200);
}

/// A site whose server block is the administrator's, on the port that the site would have.
fn own_block(check: &str, block: &str) -> Site {
    let site = Site::unlaid(Sample::Static, "");
    let (status, listen) = (site.ports.status, site.ports.listen);
    let nginx = format!("{BRISK}{RUN}[nginx]\nown = true\nlisten = []\nstatus_port = {status}\n{check}\n");
    site.write_config(&nginx.replace("PORT", &listen.to_string()));
    release(&site, "v1", 10);
    // Nobody listens there yet.
    site.install(&[]).ok();
    serve(&site, block);
    site
}

/// Lays the administrator's server block, and has nginx use it.
fn serve(site: &Site, block: &str) {
    let included = site.home.join("nginx/conf.d/shop.d");
    let text = block.replace("DIR", included.to_str().unwrap()).replace("PORT", &site.ports.listen.to_string());
    fs::write(site.home.join("nginx/conf.d/own.conf"), text).unwrap();
    site.shell(&format!("nginx -p {0}/nginx -c nginx.conf -s reload", site.home.display())).ok();
    eventually("nginx listens", || site.get("/").0 != 0);
}

const GOOD: &str = "server { listen 127.0.0.1:PORT; server_name shop.example; include DIR/instance.conf; location / { include DIR/proxy.conf; } }";

#[test]
fn a_server_block_of_one_s_own_is_asked_where_the_configuration_says() {
    let site = own_block("check = \"http://shop.example:PORT\"", GOOD);
    let load = site.load();
    site.run("deploy", &[]).ok();
    site.commit("v2", "");
    site.run("deploy", &[]).ok();
    drop(load);
    site.run("rollback", &[]).ok();
    site.run("rollback", &[]).ok();

    let wrong = [
        // Without what chooses the instance, another name in front, another port, a block that is closed.
        ("server { listen 127.0.0.1:PORT; location / { proxy_pass http://127.0.0.1:9; } }", "does not include"),
        (
            "server { listen 127.0.0.1:PORT default_server; server_name shop.example; return 200 hello; }\n\
             server { listen 127.0.0.1:PORT; server_name shop2.example; include DIR/instance.conf; location / { include DIR/proxy.conf; } }",
            "another server block answers, with status 200",
        ),
        (
            "server { listen 127.0.0.1:PORT; server_name shop.example; return 301 http://elsewhere.example$request_uri; }",
            "another server block answers, with status 301",
        ),
    ];
    for (block, why) in wrong {
        serve(&site, block);
        let reached = format!("clients of http://shop.example:{} do not get there: ", site.ports.listen);
        site.commit("v3", "");
        site.run("deploy", &[]).fails(4, &[&reached, why, "B is enabled again"]);
        assert_eq!(site.run("enabled-instance", &[]).ok(), "B\n");
        // A way back that leaves the traffic where it is asked for: no other instance would be better.
        let stranded = site.run("rollback", &[]);
        stranded.fails(5, &[&reached, why, "now nginx uses A"]);
        assert_eq!(site.run("enabled-instance", &[]).ok(), "A\n");
        site.run("connect-to-nginx", &["--force", "B"]).ok();
        site.run("bootup", &[]).fails(3, &["B runs, but ", &reached, why]);
        site.install(&[]).fails(3, &["shop is laid out, but ", &reached, why]);
        serve(&site, GOOD);
        site.install(&[]).ok();
    }
    site.reconfigure("check = \"http", "check = \"off\" # \"http");
    serve(&site, wrong[0].0);
    site.run("rollback", &[]).ok();
}

#[test]
fn the_path_that_check_names_is_to_be_answered_well() {
    let site =
        own_block("check = \"http://127.0.0.1:PORT/status/404\"", &GOOD.replace("server_name shop.example;", ""));
    site.run("deploy", &[]).fails(3, &["do not get /status/404 from A: status 404"]);
    assert_eq!(site.run("enabled-instance", &[]).code, 1);
    site.reconfigure("/status/404", "/status/302");
    site.run("deploy", &[]).ok();
}

#[test]
fn a_redirect_to_https_is_followed_as_clients_follow_it() {
    let site = own_block("check = \"http://shop.example:PORT\"", GOOD);
    let dir = site.directory.path().display();
    let tls = site.ports.push;
    site.shell(&format!(
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=shop.example -keyout {dir}/key -out {dir}/cert 2>&1"
    ))
    .ok();
    serve(
        &site,
        &format!(
            "server {{ listen 127.0.0.1:PORT; server_name shop.example; return 301 https://shop.example:{tls}$request_uri; }}\n\
             server {{ listen 127.0.0.1:{tls} ssl; server_name shop.example; ssl_certificate {dir}/cert; ssl_certificate_key {dir}/key; \
             include DIR/instance.conf; location / {{ include DIR/proxy.conf; }} }}"
        ),
    );
    site.run("deploy", &[]).ok();
    site.reconfigure(
        &format!("http://shop.example:{}", site.ports.listen),
        &format!("https://shop.example:{tls}/status/200"),
    );
    site.commit("v2", "");
    site.run("deploy", &[]).ok();
    site.reconfigure("/status/200", "/status/500");
    site.commit("v3", "");
    // Nor do they from the one before.
    let why = "the way back failed: clients of https://shop.example";
    site.run("deploy", &[]).fails(5, &["do not get /status/500 from A: status 500", why, "now nginx uses B"]);
}

#[test]
fn what_a_client_of_another_machine_is_not_told() {
    let Some(server) = Server::boot() else { return };
    server.install("").ok();
    server.run(&format!("{HOME}/bin/deploy")).ok();
    let ask = |from: &str| {
        let line = format!(
            "ip address add 192.0.2.7/32 dev lo 2>/dev/null; curl --silent --interface {from} --include http://192.0.2.7/.cutover/instance/cafeteria"
        );
        server.run(&line).stdout
    };
    let own = ask("192.0.2.7");
    assert!(own.contains("Cutover-Instance: A\r\n"), "{own}");
    let other = ask("127.0.0.1");
    assert!(other.starts_with("HTTP/1.1 404") && !other.contains("Cutover"), "{other}");
}

#[test]
fn a_default_site_in_front_is_named_by_install() {
    let Some(server) = Server::boot() else { return };
    // As nginx.org's package lays it: read before `shop` and the like, and so the port's default server.
    let default = "server { listen 80 default_server; server_name localhost; return 200 welcome; }";
    server.run(&format!("echo '{default}' >/etc/nginx/conf.d/default.conf; nginx -s reload")).ok();
    let why = "cafeteria is laid out, but clients of http://127.0.0.1 do not get there: another server block answers, with status 200, \
        or one that does not include /etc/nginx/conf.d/cafeteria.d/instance.conf; /etc/nginx/conf.d/default.conf is in front";
    fs::write(server.config(), CONFIG).unwrap();
    let install = "$TOOLS/install --config $CONFIG --user potados";
    server.run(install).fails(3, &[why]);
    server.run("rm /etc/nginx/conf.d/default.conf; nginx -s reload").ok();
    server.run(install).ok();
}

#[test]
fn asking_costs_no_request() {
    let site = Site::new(Sample::Static, BRISK).with_standby();
    let load = site.load();
    site.commit("v3", "");
    site.run("deploy", &[]).ok();
    for _ in 0..4 {
        site.run("rollback", &[]).ok();
    }
    none_lost(&load.stop());
}

#[test]
fn that_nothing_is_to_be_done_is_no_answer_to_whether_clients_get_it() {
    let site = site("");
    release(&site, "v2", 10);
    site.run("deploy", &[]).ok();
    let release = fs::read_link(site.home.join("instances/B")).unwrap();
    let release = release.file_name().unwrap().to_string_lossy().into_owned();
    site.run("deploy", &[]).ok();
    site.run("rollback", &["--to", &release]).ok();
    site.shell("kill $(cat .shop/nginx/nginx.pid); while [ -e .shop/nginx/nginx.pid ]; do sleep 0.01; done").ok();
    let why = format!("nothing is to be done, but clients of http://127.0.0.1:{} do not get there", site.ports.listen);
    site.run("deploy", &[]).fails(3, &["deploy: ", &why]);
    site.run("rollback", &["--to", &release]).fails(3, &["rollback: ", &why]);
    site.run("bootup", &[]).ok();
    site.run("deploy", &[]).ok();
    site.run("rollback", &["--to", &release]).ok();
}

#[test]
fn a_configuration_by_which_clients_do_not_get_there_any_more_is_taken_back() {
    let Some(server) = Server::boot() else { return };
    server.install("").ok();
    server.run(&format!("{HOME}/bin/deploy")).ok();
    // The administrator's site, which is asked there for any name.
    let admin = "server { listen 81 default_server; location / { return 200 \"admin\\n\"; } }";
    server.run(&format!("printf '{admin}' >/etc/nginx/conf.d/admin.conf && nginx -s reload")).ok();
    let before = server.run(&format!("cat {HOME}/config.toml /etc/nginx/conf.d/caf*.conf /etc/nginx/conf.d/*/*")).ok();
    fs::write(server.config(), format!("{CONFIG}[nginx]\nlisten = [\"81\"]\n")).unwrap();
    server
        .install("")
        .fails(3, &["the old one is back: clients of http://127.0.0.1:81 do not get there", "until now they did"]);
    assert_eq!(
        server.run(&format!("cat {HOME}/config.toml /etc/nginx/conf.d/caf*.conf /etc/nginx/conf.d/*/*")).ok(),
        before
    );
    eventually("the site is there as before", || server.served() == "v1\n");
    server.run("curl --silent http://127.0.0.1:81/").is(0, "admin\n", "");
    fs::write(server.config(), format!("{CONFIG}[nginx]\nlisten = [\"81\"]\nserver_name = \"cafe.test\"\n")).unwrap();
    server.install("").ok();
    server.run("curl --silent -H 'Host: cafe.test' http://127.0.0.1:81/").is(0, "v1\n", "");
}

#[test]
fn whoever_has_a_server_block_of_his_own_is_told_that_nobody_asks_it() {
    let site = Site::unlaid(Sample::Static, "");
    let status = site.ports.status;
    let config = |check: &str| format!("{BRISK}[nginx]\nown = true\nlisten = []\nstatus_port = {status}\n{check}");
    let why = "nobody asks the site as its clients do: with a server block of your own, set check in [nginx]";
    site.write_config(&config(""));
    let told = site.install(&[]);
    assert!(told.code == 0 && told.stderr.contains(why), "{told:?}");
    site.write_config(&config("check = \"off\"\n"));
    let told = site.install(&[]);
    assert!(told.code == 0 && !told.stderr.contains(why), "{told:?}");
}

#[test]
fn a_site_that_is_not_cutover_s_keeps_its_requests() {
    let Some(server) = Server::boot() else { return };
    let block = |listen: &str, name: &str| {
        format!("server {{ listen {listen}; {name} location / {{ return 200 \"admin\\n\"; }} }}")
    };
    // Theirs, ours, and why not. Files of conf.d are read in the order of their names, and before sites-enabled.
    let cases = [
        ("conf.d/z.conf", block("80", ""), "listen = [\"80 default_server\"]", "is what answers there for any name"),
        (
            "conf.d/a.conf",
            block("80", "server_name _;"),
            "listen = [\"80 default_server\"]",
            "answers there for any name",
        ),
        (
            "conf.d/a.conf",
            block("80 default_server", ""),
            "listen = [\"80 default_server\"]",
            "answers there for any name",
        ),
        ("conf.d/z.conf", block("80", ""), "listen = [\"80\"]", "answers there for any name, and would not any more"),
        (
            "sites-enabled/a",
            block("80", ""),
            "server_name = \"cafe.test\"",
            "answers there for any name, and would not any more",
        ),
        (
            "conf.d/a.conf",
            block("80", "server_name cafe.test;"),
            "listen = [\"127.0.0.1:80\"]\nserver_name = \"cafe.test\"",
            "requests to 127.0.0.1 would not get to the server in",
        ),
        (
            "conf.d/a.conf",
            block("80", "server_name admin.test;"),
            "listen = [\"127.0.0.1:80\"]",
            "requests to 127.0.0.1 would not get to the server in",
        ),
    ];
    for (file, theirs, ours, why) in cases {
        let file = format!("/etc/nginx/{file}");
        server.run(&format!("cat >{file} <<'END'\n{theirs}\nEND\nnginx -s reload")).ok();
        eventually("they answer", || server.run("curl --silent --max-time 30 http://127.0.0.1/").stdout == "admin\n");
        fs::write(server.config(), format!("{CONFIG}[nginx]\n{ours}\n")).unwrap();
        server.install("").fails(3, &["cannot listen on ", &file, why]);
        server.run("ls /etc/nginx/conf.d/caf*").fails(2, &[]);
        assert_eq!(server.served(), "admin\n");
        server.run(&format!("rm {file}")).ok();
    }
    // Beside those that keep theirs it may be.
    let cases = [
        ("conf.d/a.conf", block("80", ""), "server_name = \"cafe.test\""),
        ("conf.d/z.conf", block("80 default_server", ""), "server_name = \"cafe.test\""),
        ("conf.d/z.conf", block("80", "server_name admin.test;"), "server_name = \"cafe.test\""),
        ("conf.d/z.conf", block("127.0.0.1:8080", ""), "server_name = \"cafe.test\""),
    ];
    for (file, theirs, ours) in cases {
        let file = format!("/etc/nginx/{file}");
        server.run(&format!("cat >{file} <<'END'\n{theirs}\nEND\nnginx -s reload")).ok();
        fs::write(server.config(), format!("{CONFIG}[nginx]\n{ours}\n")).unwrap();
        server.install("").ok();
        server.run(&format!("rm {file}; $TOOLS/install --home {HOME} --remove --force --purge")).ok();
    }
}

#[test]
fn a_server_of_several_names_is_asked_by_the_first_that_can_be_asked_for() {
    let Some(server) = Server::boot() else { return };
    let front = "server { listen 80 default_server; return 404; }";
    server.run(&format!("echo '{front}' >/etc/nginx/conf.d/zz.conf; nginx -s reload")).ok();
    for names in ["cafe.example www.cafe.example", "_ cafe.example", "~^caf cafe.example"] {
        fs::write(server.config(), format!("{CONFIG}[nginx]\nserver_name = \"{names}\"\n")).unwrap();
        server.install("").ok();
        server.run(&format!("{HOME}/bin/deploy")).ok();
        server.run("curl --silent -H 'Host: cafe.example' http://127.0.0.1/").is(0, "v1\n", "");
    }
}

#[test]
fn a_site_at_any_address_of_this_machine_s_is_asked_from_there() {
    let Some(server) = Server::boot() else { return };
    server.run("ip address add 192.0.2.1/24 dev lo; ip address add 192.0.2.2/24 dev lo").ok();
    for address in ["192.0.2.2:80", "127.0.0.5:81", "[::1]:82"] {
        fs::write(server.config(), format!("{CONFIG}[nginx]\nlisten = [\"{address}\"]\n")).unwrap();
        server.install("").ok();
        server.run(&format!("{HOME}/bin/deploy")).ok();
        server.run(&format!("curl --silent --globoff http://{address}/")).is(0, "v1\n", "");
        server.run(&format!("$TOOLS/install --home {HOME} --remove --purge --force")).ok();
    }
}

/// Edits the server block that install has laid, and has nginx use it.
fn edit(site: &Site, edited: impl FnOnce(String) -> String) {
    let path = site.home.join("nginx/conf.d/shop-server.conf");
    fs::write(&path, edited(fs::read_to_string(&path).unwrap())).unwrap();
    site.shell("nginx -p .shop/nginx -c nginx.conf -s reload 2>&1").ok();
}

/// Makes a certificate; returns the directives that use it.
fn certificate(site: &Site) -> String {
    let dir = site.directory.path().display();
    let make = format!(
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=shop.example -keyout {dir}/key -out {dir}/cert 2>&1"
    );
    site.shell(&make).ok();
    format!("ssl_certificate {dir}/cert; ssl_certificate_key {dir}/key;")
}

#[test]
fn a_server_block_that_was_edited_is_asked_where_it_listens_now() {
    let site = site("");
    let (listen, other) = (site.ports.listen, site.ports.push);
    edit(&site, |text| text.replace(&format!("listen 127.0.0.1:{listen};"), &format!("listen 127.0.0.1:{other};")));
    eventually("it listens there", || site.shell(&format!("curl --silent http://127.0.0.1:{other}/")).stdout == "v1\n");
    release(&site, "v2", 10);
    site.run("deploy", &[]).ok();
    site.run("rollback", &[]).ok();
    site.install(&[]).ok();
    assert_eq!(site.shell(&format!("curl --silent http://127.0.0.1:{other}/")).stdout, "v1\n");
}

#[test]
fn what_certbot_makes_of_a_server_block_is_asked_over_tls() {
    let site = site("");
    let (listen, tls, certificate) = (site.ports.listen, site.ports.push, certificate(&site));
    let plain = format!("listen 127.0.0.1:{listen};");
    edit(&site, |text| {
        text.replace(&plain, &format!("listen 127.0.0.1:{tls} ssl; {certificate}"))
            + &format!("server {{ {plain} return 301 https://127.0.0.1:{tls}$request_uri; }}\n")
    });
    let get = || site.shell(&format!("curl --silent --insecure https://127.0.0.1:{tls}/")).stdout;
    eventually("it listens there", || get() == "v1\n");
    release(&site, "v2", 40_000);
    let why =
        format!("clients of https://127.0.0.1:{tls} do not get / from B: status 502 by way of nginx, 200 without it");
    site.run("deploy", &[]).fails(4, &[&why, "A is enabled again"]);
    assert_eq!(get(), "v1\n");
}

#[test]
fn a_redirect_within_the_site_is_followed_to_what_clients_get() {
    let site = own_block("check = \"http://shop.example:PORT/in\"", GOOD);
    let redirecting = GOOD.replace("location / {", "location = /in { return 302 /status/STATUS; } location / {");
    for (status, code) in [("200", 0), ("500", 5), ("404", 5), ("302", 0)] {
        // The release that was enabled before is not answered well there either.
        serve(&site, &redirecting.replace("STATUS", status));
        release(&site, status, 10);
        assert_eq!(site.run("deploy", &[]).code, code, "{status}");
    }
}

#[test]
fn an_app_whose_health_check_knows_no_path_is_asked_for_none() {
    let site = Site::unlaid(Sample::Static, &format!("{BRISK}{RUN}[health]\npath = \"\"\n"));
    release(&site, "v1", 10);
    // It never answers a request that is none for a WebSocket.
    let silent = APP.replace("def do_GET(self):\n", "def do_GET(self):\n    import time; time.sleep(1000)\n");
    assert_ne!(silent, APP);
    fs::write(site.source().join("app.py"), silent).unwrap();
    site.commit("v2", "");
    site.install(&[]).ok();
    site.run("deploy", &[]).masked(&site).is(
        0,
        "",
        "deploy: making a release of COMMIT for A\ndeploy: RELEASE is made, TIME\ndeploy: A is healthy, TIME\ndeploy: A is enabled, TIME\n",
    );
}

#[test]
fn what_the_user_has_for_curl_changes_no_question() {
    let site = own_block("check = \"https://[::1]:PORT\"", GOOD);
    let certificate = certificate(&site);
    let block = "server { listen [::1]:PORT ssl; CERTIFICATE include DIR/instance.conf; location / { include DIR/proxy.conf; } }";
    serve(&site, &block.replace("CERTIFICATE", &certificate));
    let profile = site.directory.path().join("kept");
    fs::write(&profile, "kept").unwrap();
    let options = ["ipv4", "remote-name", "interface = eth9", "cert = client.pem", "connect-to = ::127.0.0.1:9"];
    let output = format!("output = \"{}\"", profile.display());
    for (number, option) in options.into_iter().chain([output.as_str()]).enumerate() {
        fs::write(site.directory.path().join(".curlrc"), format!("{option}\n")).unwrap();
        release(&site, &format!("v{number}"), 10);
        site.run("deploy", &[]).ok();
    }
    assert_eq!(fs::read_to_string(profile).unwrap(), "kept");
}
