//! The health check asks as nginx asks for a client of the site.

use cutover::app::config::Config;

use crate::bare_home::BareHome;
use crate::site::{Sample, Site};

/// A site whose app is healthy when the request for `/headers` had this line, with these keys in `[health]`, and this server_name.
fn healthy_by(line: &str, keys: &str, server_name: &str) -> Site {
    let health = format!("[health]\npath = \"/headers\"\nbody = '(?im)^{line}$'\ntimeout = \"20s\"\n{keys}\n");
    let site = Site::unlaid(Sample::Python, "");
    let (listen, status) = (&site.ports.listen, &site.ports.status);
    let nginx =
        format!("[nginx]\nown = true\nlisten = [\"127.0.0.1:{listen}\"]\nstatus_port = {status}\n{server_name}\n");
    site.write_config(&format!("{health}{nginx}"));
    site.install(&[]).ok();
    site
}

#[test]
fn it_names_the_site_as_its_host() {
    let cases = [
        ("host: 127\\.0\\.0\\.1:[0-9]+", "", ""),
        ("host: 127\\.0\\.0\\.1:[0-9]+", "", "server_name = \"_\""),
        (
            "host: shop\\.example\\.org",
            "",
            "server_name = \"_ ~^www *.example.org .example.com shop.example.org b.example\"",
        ),
        ("host: shop\\.example\\.org:8443", "host = \"shop.example.org:8443\"", "server_name = \"other.example\""),
        ("host: \\[::1\\]", "host = \"[::1]\"", ""),
        ("x-forwarded-proto: http", "", ""),
        ("x-forwarded-proto: https", "headers = { X-Forwarded-Proto = \"https\" }", ""),
        ("authorization: Bearer abc", "headers = { Authorization = \"Bearer abc\", X-One = \"1\" }", ""),
    ];
    for (line, keys, server_name) in cases {
        let site = healthy_by(line, keys, server_name);
        site.run("deploy", &[]).ok();
        assert_eq!(site.status()["instances"][0]["healthy"], true, "{line}");
    }
    let site = healthy_by("host: nobody", "", "");
    site.run("deploy", &[]).fails(124, &["but the body does not match"]);
}

#[test]
fn it_comes_by_https_where_clients_do() {
    for (nginx, expected) in [
        ("listen = [\"80\"]", "http"),
        ("listen = [\"80\", \"443 ssl\"]", "https"),
        ("listen = [\"[::]:443 ssl http2\"]", "https"),
        ("listen = []\ncheck = \"http://shop.example.org/\"", "http"),
        ("listen = []\ncheck = \"https://shop.example.org/\"", "https"),
        (
            "listen = []\ncheck = \"https://shop.example.org/\"\n[health]\nheaders = { x-forwarded-proto = \"http\" }",
            "http",
        ),
    ] {
        let config =
            Config::parse(&format!("app = \"shop\"\n[run]\ncommand = \"exec ./app\"\n[nginx]\n{nginx}\n")).unwrap();
        assert_eq!(config.expectation().fields["x-forwarded-proto"], expected, "{nginx}");
    }
}

#[test]
fn a_path_may_hold_any_letter() {
    let health = "[health]\npath = \"/gesund/prüfung?ä=日\"\nstatus = \"404\"\nbody = \"not found\"\n";
    let site = Site::new(Sample::Python, health);
    site.run("deploy", &[]).ok();
}

#[test]
fn what_no_request_can_have_is_refused_with_its_line() {
    let cases = [
        ("host = \"\"", "expected a host such as \"shop.example.org\", got \"\""),
        ("host = \"a b\"", "expected a host such as"),
        ("host = \"me@example.org\"", "expected a host such as"),
        ("host = \"example.org/path\"", "expected a host such as"),
        ("headers = { Host = \"example.org\" }", "[health] headers has no Host: that is `host` in [health]"),
        ("headers = { \"X Y\" = \"1\" }", "\"X Y\" is no header field"),
        ("headers = { X = \"1\\r\\nY: 2\" }", "\"X\" is no header field"),
        ("headers = { Connection = \"keep-alive\" }", "\"Connection\" is no header field"),
        ("headers = [\"X\"]", "expected a map"),
    ];
    for (key, words) in cases {
        let config = "app = \"shop\"\n[source]\ngit = \"/nowhere\"\n[run]\ncommand = \"true\"\n[nginx]\nown = true\n";
        let home =
            BareHome::new(&format!("{config}health.{key}\n").replace("own = true\nhealth.", "own = true\n[health]\n"));
        home.run("disabled-instance", &[]).fails(2, &["config.toml: line ", words]);
    }
}
