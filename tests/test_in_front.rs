//! What stands in front of the app: a load balancer that is trusted or not, and server blocks as administrators have them.

use std::fs;

use crate::pushed_site::SECTION;
use crate::site::{BRISK, Sample, Site, eventually};

/// A site with an nginx of its own, and these keys in `[nginx]`.
fn site(keys: &str, more: &str) -> Site {
    let site = Site::unlaid(Sample::Static, "");
    let (status, listen) = (site.ports.status, site.ports.listen);
    site.write_config(&format!(
        "{BRISK}{more}[nginx]\nown = true\nlisten = [\"127.0.0.1:{listen}\"]\nstatus_port = {status}\n{keys}\n"
    ));
    site.install(&[]).ok();
    site.run("deploy", &[]).ok();
    site
}

/// What the app is told of a request with these fields.
fn told(site: &Site, fields: &[&str]) -> String {
    let given: String = fields.iter().map(|field| format!(" -H '{field}'")).collect();
    let url = format!("http://127.0.0.1:{}/headers", site.ports.listen);
    site.shell(&format!("curl --silent --fail -H 'User-Agent: test' -H 'Host: shop.example'{given} {url}")).ok()
}

#[track_caller]
fn has(told: &str, lines: &[&str]) {
    for line in lines {
        assert!(told.lines().any(|one| one == *line), "{line:?} is not in:\n{told}");
        let name = line.split(':').next().unwrap();
        assert_eq!(told.lines().filter(|one| one.starts_with(&format!("{name}:"))).count(), 1, "{name} in:\n{told}");
    }
}

const OF_PROXY: [&str; 4] = [
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: www.example.org",
    "X-Forwarded-Port: 443",
    "X-Forwarded-For: 203.0.113.9, 198.51.100.7",
];

#[test]
fn a_trusted_proxy_is_believed_what_it_says_of_the_client_and_nobody_else() {
    let site = site("trusted_proxies = [\"127.0.0.0/8\", \"::1\", \"198.51.100.7\"]", "");
    let of_proxy = told(&site, &OF_PROXY);
    has(
        &of_proxy,
        &[
            "host: shop.example",
            "x-forwarded-proto: https",
            "x-forwarded-host: www.example.org",
            "x-forwarded-port: 443",
        ],
    );
    let build = site.shell("nginx -V 2>&1").ok();
    if build.contains("--with-http_realip_module") {
        has(&of_proxy, &["x-real-ip: 203.0.113.9", "x-forwarded-for: 203.0.113.9, 198.51.100.7, 203.0.113.9"]);
    }
    // The first of several counts, and what makes no sense does not.
    has(&told(&site, &["X-Forwarded-Proto: https, http"]), &["x-forwarded-proto: https"]);
    let listen = format!("x-forwarded-port: {}", site.ports.listen);
    for nonsense in
        ["X-Forwarded-Proto: gopher", "X-Forwarded-Port: x", "X-Forwarded-Host: a b", "X-Forwarded-Host: <x>"]
    {
        let told = told(&site, &[nonsense]);
        has(&told, &["x-forwarded-proto: http", "x-forwarded-host: shop.example", &listen]);
    }
    has(&told(&site, &[]), &["x-forwarded-proto: http", "x-forwarded-host: shop.example", &listen]);

    site.reconfigure("\"127.0.0.0/8\", \"::1\", ", "");
    fs::copy(site.home.join("config.toml"), site.config()).unwrap();
    site.install(&[]).ok();
    let of_nobody = told(&site, &OF_PROXY);
    has(&of_nobody, &["x-forwarded-proto: http", "x-forwarded-host: shop.example", "x-real-ip: 127.0.0.1", &listen]);
}

#[test]
fn what_is_no_network_is_refused() {
    let site = Site::unlaid(Sample::Static, "");
    for wrong in ["shop.example", "10.0.0.0/33", "::/129", "10.0.0.0/", "", "10.0.0.1;}", "all"] {
        site.write_config(&format!("[nginx]\nown = true\nlisten = [\"8080\"]\ntrusted_proxies = [{wrong:?}]\n{BRISK}"));
        site.install(&[]).fails(2, &["expected an address, or a network such as \"10.0.0.0/8\""]);
    }
    for wrong in ["0s", "soon"] {
        site.write_config(&format!("[nginx]\nown = true\nlisten = [\"8080\"]\nread_timeout = {wrong:?}\n{BRISK}"));
        site.install(&[]).fails(2, &["expected a duration"]);
    }
}

#[test]
fn the_timeouts_are_keys() {
    let site = site("read_timeout = \"1h\"\nsend_timeout = \"1500ms\"", "");
    let proxy = fs::read_to_string(site.home.join("nginx/conf.d/shop.d/proxy.conf")).unwrap();
    assert!(
        proxy.contains("\nproxy_read_timeout 3600s;\n") && proxy.contains("\nproxy_send_timeout 1500ms;\n"),
        "{proxy}"
    );
    site.reconfigure("read_timeout = \"1h\"", "read_timeout = \"500ms\"");
    fs::copy(site.home.join("config.toml"), site.config()).unwrap();
    site.install(&[]).ok();
    // The standby, which is asked then, has not been deployed.
    assert_eq!(site.get("/slow?ms=3000").0, 502);
    assert_eq!(site.get("/slow?ms=100").0, 200);
}

/// Has the site's nginx use this as the text of its server block, which `install` leaves alone from then on.
fn edit(site: &Site, edit: impl Fn(&str) -> String) {
    let path = site.home.join("nginx/conf.d/shop-server.conf");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, edit(&text)).unwrap();
    site.shell(&format!(
        "nginx -p {0}/nginx -c nginx.conf -t -q && nginx -p {0}/nginx -c nginx.conf -s reload",
        site.home.display()
    ))
    .ok();
}

#[test]
fn the_including_block_can_say_what_the_app_is_told() {
    let site = site("", "");
    edit(&site, |text| {
        text.replace("    location / {\n", "    location / {\n        set $cutover_shop_forwarded_proto https;\n        set $cutover_shop_forwarded_port 443;\n")
    });
    // A worker of before may answer once more.
    let is_told = || told(&site, &[]).contains("x-forwarded-proto: https\n");
    eventually("it is told", || (0..10).all(|_| is_told()));
    has(&told(&site, &[]), &["x-forwarded-proto: https", "x-forwarded-port: 443", "x-forwarded-host: shop.example"]);
}

#[test]
fn fields_that_would_be_sent_twice_and_a_block_without_its_include_are_told() {
    let site = site("", "");
    let again = || site.install(&[]).stderr;
    assert!(!again().contains("twice") && !again().contains("502"));
    fs::write(
        site.home.join("nginx/proxy_params"),
        "proxy_set_header Host $http_host;\nproxy_set_header X-Real-IP $remote_addr;\n",
    )
    .unwrap();
    edit(&site, |text| text.replace("proxy.conf\";\n", "proxy.conf\";\n        include proxy_params;\n"));
    let said = again();
    let params = site.home.join("nginx/proxy_params");
    assert!(said.contains(&format!("install: {} sets Host, X-Real-IP beside ", params.display())), "{said}");
    edit(&site, |text| text.replace("        include proxy_params;\n", ""));
    assert!(!again().contains("twice"));

    let other = site.home.join("nginx/conf.d/other.conf");
    let listen = site.ports.listen;
    fs::write(&other, format!("server {{ listen 127.0.0.1:{listen}; server_name other; location / {{ include conf.d/shop.d/proxy.conf; }} }}\n")).unwrap();
    let said = again();
    assert!(
        said.contains(&format!("install: {} includes ", other.display())) && said.contains("clients get 502 there"),
        "{said}"
    );
}

#[test]
fn a_block_lacks_its_include_whichever_way_it_includes_the_rest() {
    let site = site("", "");
    let (listen, files) = (site.ports.listen, "conf.d/shop.d");
    let server =
        |name: &str, lines: &str| format!("server {{ listen 127.0.0.1:{listen}; server_name {name}; {lines} }}\n");
    let location = format!("location / {{ include {files}/proxy.conf; }}");
    let nginx = site.home.join("nginx");
    fs::write(nginx.join("common"), format!("include {files}/instance.conf;\n")).unwrap();
    fs::write(nginx.join("passed"), format!("{location}\n")).unwrap();
    for (servers, is_told) in [
        (server("one", &format!("include {files}/instance.conf; {location}")), false),
        (server("one", &format!("include {files}/choice.conf; {location}")), false),
        (server("one", &format!("include common; {location}")), false),
        (server("one", "include common; include passed;"), false),
        (server("one", "include passed;"), true),
        (server("one", &format!("include common; {location}")) + &server("two", &location), true),
        (
            server(
                "one",
                &format!("location /api/ {{ location /api/v1/ {{ include {files}/proxy.conf; }} return 404; }}"),
            ),
            true,
        ),
        (server("one", "location / { return 404; }"), false),
    ] {
        fs::write(nginx.join("conf.d/other.conf"), &servers).unwrap();
        let said = site.install(&[]).stderr;
        assert_eq!(
            said.contains("other.conf includes ") && said.contains("clients get 502 there"),
            is_told,
            "{servers}: {said}"
        );
    }
}

#[test]
fn a_password_and_a_deny_of_the_site_s_keep_neither_webhooks_out_nor_the_question_who_answers() {
    let site = site("", SECTION);
    fs::write(site.home.join("nginx/passwords"), "ann:{PLAIN}secret\n").unwrap();
    edit(&site, |text| {
        text.replace("    location / {\n", "    auth_basic shop;\n    auth_basic_user_file passwords;\n    deny all;\n    satisfy all;\n\n    location / {\n")
    });
    eventually("the site is closed", || site.get("/").0 == 403);
    assert_eq!(site.tell_of_push(site.git(&["rev-parse", "HEAD"]).trim(), "1"), 202);
    let (status, _) = site.get("/.cutover/instance/shop");
    assert_eq!(status, 200);
    eventually("the deploy is over", || site.has_worked_off());
}

#[test]
fn files_of_a_page_that_is_still_open_come_from_the_standby() {
    let site = Site::unlaid(Sample::Static, "");
    site.write_config(&format!("[run]\ncommand = \"exec python3 -m http.server $PORT --bind $HOST\"\n{BRISK}"));
    site.install(&[]).ok();
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/apps.md")).unwrap();
    let recipe =
        page.split("```nginx\n").find_map(|rest| rest.split("```").next().filter(|block| block.contains("@before")));
    let files = site.home.join("nginx/conf.d/shop.d").display().to_string();
    let recipe = recipe.unwrap().replace("/etc/nginx/conf.d/shop.d", &files);
    edit(&site, |text| text.replace("    location / {\n", &format!("{recipe}\n    location / {{\n")));
    site.install(&[]).ok();
    let build = |version: &str| {
        site.shell("rm -rf source/assets && mkdir source/assets").ok();
        fs::write(site.source().join(format!("assets/{version}.js")), version).unwrap();
        site.commit(version, "");
        site.run("deploy", &[]).ok();
    };
    let asked = |version: &str| site.get(&format!("/assets/{version}.js"));
    let found = |version: &str| assert_eq!(asked(version), (200, version.to_owned()));
    build("v1");
    found("v1");
    assert_eq!(asked("v0").0, 404);
    build("v2");
    ["v1", "v2"].iter().for_each(|version| found(version));
    site.run("rollback", &[]).ok();
    ["v1", "v2"].iter().for_each(|version| found(version));
    build("v3");
    ["v1", "v3"].iter().for_each(|version| found(version));
    assert_eq!(asked("v2").0, 404);
    // What is no such file is not asked for twice, and without a standby there is none.
    assert_eq!(site.get("/v1.js").0, 404);
    let standby = site.run("disabled-instance", &[]).ok();
    site.run("stop-instance", &[standby.trim()]).ok();
    found("v3");
    assert_eq!(asked("v1").0, 404);
}

#[test]
fn whatever_closes_the_site_lets_webhooks_in() {
    let build = Site::unlaid(Sample::Static, "").shell("nginx -V 2>&1").ok();
    let mut closing = vec![
        "deny all;",
        "allow 192.0.2.1; deny all;",
        "auth_basic shop; auth_basic_user_file passwords; satisfy any; deny all;",
    ];
    if build.contains("--with-http_auth_request_module") {
        closing.push("auth_request /gone;");
    }
    for lines in closing {
        let site = site("", SECTION);
        fs::write(site.home.join("nginx/passwords"), "ann:{PLAIN}secret\n").unwrap();
        edit(&site, |text| {
            text.replace(
                "    location / {\n",
                &format!("    {lines}\n    location = /gone {{ return 403; }}\n    location / {{\n"),
            )
        });
        site.install(&[]);
        eventually("the site is closed", || [401, 403].contains(&site.get("/").0));
        assert_eq!(site.tell_of_push(site.git(&["rev-parse", "HEAD"]).trim(), "1"), 202, "{lines}");
        assert_eq!(site.get("/.cutover/instance/shop").0, 200, "{lines}");
        eventually("the deploy is over", || site.has_worked_off());
    }
    // What answers for all locations does for this one, too.
    let site = site("", SECTION);
    edit(&site, |text| {
        text.replace("    location / {\n", "    return 301 https://shop.example.org$request_uri;\n    location / {\n")
    });
    site.install(&[]);
    eventually("the site redirects", || site.get("/").0 == 301);
    assert_eq!(site.tell_of_push(site.git(&["rev-parse", "HEAD"]).trim(), "1"), 301);
}
