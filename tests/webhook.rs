//! Webhooks as a repository's host sends them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// The signature of a body, in hexadecimal.
pub fn signature(secret: &[u8], body: &[u8]) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret).unwrap().chain_update(body);
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What GitHub says of a push to `main` of octo/shop, as far as anybody here reads it.
pub fn payload(commit: &str) -> String {
    format!(
        r#"{{"ref":"refs/heads/main","before":"{}","after":"{commit}","created":false,"deleted":false,"forced":false,
        "repository":{{"id":186853002,"name":"shop","full_name":"octo/shop","private":true}},
        "pusher":{{"name":"alice","email":"alice@example.org"}},"commits":[{{"id":"{commit}","message":"more"}}]}}"#,
        "0".repeat(40)
    )
}

/// A push to `main` of octo/shop as GitHub sends it, signed with this secret.
pub fn github_push(secret: &[u8], commit: &str, delivery: &str) -> Vec<u8> {
    let body = payload(commit);
    let signature = signature(secret, body.as_bytes());
    format!(
        "POST /.cutover/push HTTP/1.1\r\nHost: shop.example.org\r\nUser-Agent: GitHub-Hookshot/044aadd\r\n\
         Accept: */*\r\nContent-Type: application/json\r\nX-GitHub-Event: push\r\nX-GitHub-Delivery: {delivery}\r\n\
         X-GitHub-Hook-ID: 292430182\r\nX-Hub-Signature-256: sha256={signature}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Sends a request, and reads the response: status and body; status 0 when there was none.
pub fn send(address: SocketAddr, request: &[u8]) -> (u16, String) {
    let exchange = || {
        let mut connection = TcpStream::connect(address).ok()?;
        connection.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
        connection.write_all(request).ok()?;
        response(&mut connection)
    };
    exchange().unwrap_or_default()
}

/// Reads a response off a connection, which may be kept alive; None: there was none.
pub fn response(connection: &mut impl Read) -> Option<(u16, String)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        connection.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?.to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1)?.split("\r\n").next()?.parse().ok()?;
    let mut body = vec![0; length];
    connection.read_exact(&mut body).ok()?;
    Some((head.split(' ').nth(1)?.parse().ok()?, String::from_utf8(body).ok()?))
}
