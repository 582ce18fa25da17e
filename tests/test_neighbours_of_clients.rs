//! What a client may say of itself: fields in odd spellings, odd Host fields and odd Upgrades, as the app sees them.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::site::{BRISK, Sample, Site};

/// An app that answers with the fields that it got, and switches protocols for whoever it sees an Upgrade of.
const ECHO: &str = r#"
import http.server, os
class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = "".join("%s: %s\n" % (name.lower(), value) for name, value in self.headers.items()).encode()
        upgrade = self.headers.get("Upgrade")
        self.send_response(101 if upgrade else 200)
        if upgrade:
            self.send_header("Upgrade", upgrade)
            self.send_header("Connection", "upgrade")
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = self.close_connection or bool(upgrade)
    do_POST = do_GET
    def log_message(self, *arguments):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Echo).serve_forever()
"#;

fn echo() -> Site {
    let run = "[run]\ncommand = \"exec python3 echo.py\"\nstop_timeout = \"2s\"\n";
    let site = Site::unlaid(Sample::Static, &format!("{BRISK}{run}"));
    fs::write(site.source().join("echo.py"), ECHO).unwrap();
    site.commit("v1", "");
    site.install(&[]).ok();
    site.run("deploy", &[]).ok();
    site
}

/// Sends these bytes; the status line and the body until the connection ends.
fn answer(site: &Site, request: &str) -> (String, String) {
    let mut connection = TcpStream::connect(site.address()).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // In Latin-1: each character up to U+00FF is a byte.
    let bytes: Vec<u8> = request.chars().map(|character| u8::try_from(u32::from(character)).unwrap()).collect();
    connection.write_all(&bytes).unwrap();
    let mut all = Vec::new();
    connection.read_to_end(&mut all).unwrap();
    let all = String::from_utf8_lossy(&all).into_owned();
    let (head, body) = all.split_once("\r\n\r\n").unwrap_or(("", &all));
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

/// What the app gets of a request with these lines; None: nginx refused it.
fn seen(site: &Site, request_line: &str, fields: &str) -> Option<Vec<String>> {
    let (status, body) = answer(site, &format!("{request_line}\r\n{fields}Connection: close\r\n\r\n"));
    if status.contains(" 400 ") {
        return None;
    }
    assert!(status.contains(" 200 ") || request_line == "GET /x", "{fields:?}: {status} {body}");
    Some(body.lines().map(str::to_owned).collect())
}

/// What the app gets of a request that says nothing odd.
fn plain(site: &Site, host: &str) -> Vec<String> {
    let port = site.ports.listen;
    let lines = [
        format!("host: {host}"),
        "x-real-ip: 127.0.0.1".to_owned(),
        "x-forwarded-for: 127.0.0.1".to_owned(),
        "x-forwarded-proto: http".to_owned(),
        format!("x-forwarded-host: {host}"),
        format!("x-forwarded-port: {port}"),
    ];
    lines.into()
}

#[test]
fn fields_that_only_a_proxy_may_send_are_left_out_however_they_are_spelt() {
    let site = echo();
    for field in [
        "FORWARDED: for=203.0.113.9",
        "fOrWaRdEd: for=203.0.113.9\r\nForwarded: for=203.0.113.8",
        "Forwarded:",
        "X-ORIGINAL-URL: /admin",
        "x-original-url: /admin\r\nX-Original-URL: /admin",
        "X_Original_URL: /admin",
        "x-rewrite-url: /admin",
        "X-Rewrite-Url: /a\r\nX-Rewrite-URL: /b",
        "X_Rewrite_URL: /admin",
        "PROXY: http://evil.example",
        "Proxy: a\r\nproxy: b\r\npRoXy: c",
        "X-FORWARDED-PREFIX: /a\r\nx-forwarded-prefix: /b",
        "x-forwarded-SERVER: evil.example",
        "X_Forwarded_Proto: https",
        "X_Forwarded_For: 203.0.113.9",
        "X_Real_IP: 203.0.113.9",
        "x-real-ip: 203.0.113.9\r\nX-REAL-IP: 203.0.113.8",
        "X-FORWARDED-PROTO: https\r\nx-forwarded-proto: wss",
        "X-Forwarded-Host: evil.example\r\nX-Forwarded-Host: worse.example",
        "x-forwarded-port: 443",
        "TE: trailers",
        "Keep-Alive: timeout=600",
        "For\u{ff}warded: for=203.0.113.9",
    ] {
        let fields = format!("Host: shop.example\r\n{field}\r\n");
        assert_eq!(
            seen(&site, "GET /x HTTP/1.1", &fields).as_deref(),
            Some(&*plain(&site, "shop.example")),
            "{field:?}"
        );
    }
    // What could be read in two ways is no request.
    for field in ["Forwarded : for=1", " Forwarded: for=1", "X-Forwarded-For:\r\n 203.0.113.9", "Forwarded\u{b}: for=1"]
    {
        assert_eq!(seen(&site, "GET /x HTTP/1.1", &format!("Host: shop.example\r\n{field}\r\n")), None, "{field:?}");
    }
}

#[test]
fn a_client_cannot_have_the_proxys_own_fields_taken_away() {
    let site = echo();
    for named in
        ["X-Real-IP", "X-Forwarded-For, X-Forwarded-Proto", "Host", "x-forwarded-host, close", "keep-alive, X-Real-IP"]
    {
        let (status, body) = answer(
            &site,
            &format!(
                "GET /x HTTP/1.1\r\nHost: shop.example\r\nConnection: {named}\r\nX-End: 1\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
            ),
        );
        let expected = plain(&site, "shop.example");
        assert!(status.contains(" 200 "), "{named}: {status}");
        assert!(expected.iter().all(|line| body.contains(line)), "{named}: {body}");
    }
}

#[test]
fn host_is_the_one_that_nginx_goes_by_and_never_empty() {
    let site = echo();
    for (line, fields, host) in [
        ("GET http://good.example/x HTTP/1.1", "Host: evil.example\r\n", Some("good.example")),
        ("GET http://GOOD.example/x HTTP/1.1", "Host: evil.example\r\n", Some("good.example")),
        ("GET https://good.example/x HTTP/1.1", "Host: evil.example\r\n", Some("good.example")),
        ("GET http://good.example/x HTTP/1.0", "", Some("good.example")),
        ("GET /x HTTP/1.1", "Host: GOOD.Example:8080\r\n", Some("good.example:8080")),
        ("GET /x HTTP/1.1", "Host: good.example.\r\n", Some("good.example")),
        ("GET /x HTTP/1.1", "Host: [::1]:8080\r\n", Some("[::1]:8080")),
        ("GET /x HTTP/1.1", "Host: good.example\r\nHost_: evil.example\r\n", Some("good.example")),
        ("GET /x HTTP/1.1", "", None),
        ("GET /x HTTP/1.1", "Host:\r\n", None),
        ("GET /x HTTP/1.1", "Host: :80\r\n", None),
        ("GET /x HTTP/1.1", "Host: a.example\r\nHost: b.example\r\n", None),
        ("GET /x HTTP/1.1", "Host: a.example, b.example\r\n", None),
        ("GET /x HTTP/1.1", "Host: a\u{1}b\r\n", None),
        ("GET http://u:p@good.example/x HTTP/1.1", "Host: evil.example\r\n", None),
    ] {
        let expected = host.map(|host| plain(&site, host));
        assert_eq!(seen(&site, line, fields), expected, "{line} {fields:?}");
    }
    // Where a client names none, there is one all the same.
    for line in ["GET /x HTTP/1.0", "GET /x"] {
        let fields = seen(&site, line, "").unwrap();
        let host = fields.iter().find_map(|field| field.strip_prefix("host: ")).unwrap_or_default();
        assert!(!host.trim().is_empty(), "{line}: {fields:?}");
        assert!(fields.contains(&format!("x-forwarded-host: {host}")), "{line}: {fields:?}");
    }
}

#[test]
fn no_other_upgrade_than_to_a_websocket_reaches_the_app_in_any_spelling() {
    let site = echo();
    let ask = |upgrade: &str, connection: &str| {
        answer(
            &site,
            &format!(
                "GET /x HTTP/1.1\r\nHost: shop.example\r\nConnection: {connection}\r\nUpgrade: {upgrade}\r\n\
                 X-End: 1\r\n\r\n"
            ),
        )
    };
    for upgrade in ["websocket", "WebSocket", "WEBSOCKET", " websocket "] {
        let (status, body) = ask(upgrade, "Upgrade, close");
        assert!(
            status.contains(" 101 ") && body.to_lowercase().contains("upgrade: websocket\n"),
            "{upgrade:?}: {status} {body}"
        );
    }
    for upgrade in [
        "H2C",
        "websocket,h2c",
        "h2c,websocket",
        "websocket h2c",
        "websocket;h2c",
        "websocket/13",
        "websockets",
        "xwebsocket",
        "\"websocket\"",
        "websocket,",
        ",websocket",
        "websocket\t",
        "websocket\u{b}",
        "\u{a0}websocket",
        "TLS/1.0",
        "HTTP/2.0",
        "connect-udp",
        "h2c\r\nUpgrade: websocket",
        "",
    ] {
        for connection in ["close, Upgrade", "close, Upgrade, HTTP2-Settings", "close"] {
            let (status, body) = ask(upgrade, connection);
            assert!(
                status.contains(" 200 ") && !body.contains("upgrade"),
                "{upgrade:?}, {connection}: {status} {body}"
            );
        }
    }
    // The first of two counts; the second one does not reach the app.
    let (status, body) = ask("websocket\r\nUpgrade: h2c", "Upgrade, close");
    assert!(status.contains(" 101 ") && !body.contains("h2c"), "{status} {body}");
}
