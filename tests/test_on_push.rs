//! on-push: requests as GitHub, Gitea, Gogs, GitLab and Bitbucket send them, and as nobody should.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use cutover::lock::Lock;
use cutover::push::{LIMIT, Secret};
use serde_json::json;

use crate::bare_home::BareHome;
use crate::site::{Ran, built, chmod, explains_itself};
use crate::webhook::signature;

#[path = "fuzz/properties.rs"]
mod properties;

const SECRET: &str = "It's a Secret to Everybody";
const COMMIT: &str = "6113728f27ae82c7b1a177c8d03f9e96e0adf246";
const NO_COMMIT: &str = "0000000000000000000000000000000000000000";
const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

/// A home with a webhook, in which nothing is deployed.
struct Hook {
    home: BareHome,
    // Whoever holds this lock works off the queue: on-push leaves what it has queued to that process, which is this one,
    // and starts no deploy.
    _deploy: Lock,
}

impl Hook {
    fn new() -> Hook {
        let home = BareHome::new(
            "app = \"shop\"\n[source]\ngit = \"/nowhere\"\n[run]\ncommand = \"true\"\n[nginx]\nown = true\n[push]\nrepository = \"octo/shop\"\n",
        );
        fs::create_dir_all(home.path().join("queue")).unwrap();
        let deploy = Lock::take(&home.path().join("run/queued-deploy.lock")).unwrap().unwrap();
        let hook = Hook { home, _deploy: deploy };
        hook.write_secret(&format!("{SECRET}\n"), 0o600);
        hook
    }

    fn secret(&self) -> PathBuf {
        self.home.path().join("push-secret")
    }

    fn write_secret(&self, secret: &str, mode: u32) {
        fs::write(self.secret(), secret).unwrap();
        chmod(&self.secret(), mode);
    }

    /// Starts on-push between these two.
    fn start(&self, input: impl Into<Stdio>, output: impl Into<Stdio>) -> Child {
        let mut command = Command::new(built().join("on-push"));
        command.arg("--home").arg(self.home.path()).env_clear().current_dir("/");
        command.stdin(input).stdout(output).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// `on-push < request`
    fn start_with(&self, request: &[u8]) -> Child {
        self.start(file_of(request), Stdio::piped())
    }

    fn run(&self, request: &[u8]) -> Ran {
        Ran::of(&self.start_with(request).wait_with_output().unwrap())
    }

    /// A connection, and the on-push at its other end.
    fn connect(&self) -> (TcpStream, Child) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let server = OwnedFd::from(listener.accept().unwrap().0);
        let copy = server.try_clone().unwrap();
        (client, self.start(copy, server))
    }

    /// What is in the queue's directory, by its name.
    fn queue(&self) -> Vec<String> {
        let entries = fs::read_dir(self.home.path().join("queue")).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// What is queued, in words.
    fn queued(&self) -> String {
        let text = fs::read(self.home.path().join("queue/push")).unwrap();
        let queued: serde_json::Value = serde_json::from_slice(&text).unwrap();
        queued["what"].as_str().unwrap().to_owned()
    }

    fn deliveries(&self) -> Vec<String> {
        let text = fs::read_to_string(self.home.path().join("queue/deliveries")).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// Asserts the one answer, what goes with it, and that a push was queued when it is 202 and none otherwise. The
    /// queue is empty before and afterwards. Returns what the answer says.
    #[track_caller]
    fn answers(&self, what: &str, request: &[u8], status: u16) -> String {
        self.is_answered(what, &self.run(request), status)
    }

    #[track_caller]
    fn is_answered(&self, what: &str, ran: &Ran, status: u16) -> String {
        let text = said(what, &ran.stdout, status);
        let code = if status < 300 { 0 } else { 1 };
        assert_eq!((ran.code, ran.stderr.as_str()), (code, &*format!("on-push: stdin: {status}, {text}\n")), "{what}");
        let queue: &[&str] = if status == 202 { &["deliveries", "push"] } else { &[] };
        assert_eq!(self.queue(), queue, "{what}: {ran:?}");
        for name in queue {
            fs::remove_file(self.home.path().join("queue").join(name)).unwrap();
        }
        text
    }
}

/// Asserts that this is one whole response with this status, and nothing else; returns what it says.
#[track_caller]
fn said(what: &str, response: &str, status: u16) -> String {
    let (head, text) = response.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{what}: no response in {response:?}"));
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {status} is not in {response:?}");
    assert!(
        head.ends_with(&format!("\r\nContent-Length: {}\r\nConnection: close", text.len())),
        "{what}: {response:?}"
    );
    assert_eq!(head.contains("\r\nAllow: POST\r\n"), status == 405, "{what}: {response:?}");
    assert!(response.len() < 1000, "{what}: {response:?}");
    text.strip_suffix('\n').unwrap().to_owned()
}

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

/// A request to be sent, correct until a test makes it wrong.
#[derive(Clone)]
struct Sent {
    line: String,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Sent {
    fn new(fields: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Sent {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let sent = Sent { line: "POST /.cutover/push HTTP/1.1".to_owned(), fields, body: Vec::new() };
        sent.with("Host", "shop.example.org").with_body(body)
    }

    fn at(mut self, line: &str) -> Sent {
        self.line = line.to_owned();
        self
    }

    fn without(mut self, name: &str) -> Sent {
        self.fields.retain(|(other, _)| other != name);
        self
    }

    /// One more field of this name.
    fn and(mut self, name: &str, value: &str) -> Sent {
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    fn with(self, name: &str, value: &str) -> Sent {
        self.without(name).and(name, value)
    }

    /// With this body, its length, and its signature where there is one.
    fn with_body(mut self, body: impl Into<Vec<u8>>) -> Sent {
        self.body = body.into();
        let (length, signature) = (self.body.len().to_string(), signature(SECRET.as_bytes(), &self.body));
        for (name, value) in &mut self.fields {
            match name.as_str() {
                "X-Hub-Signature-256" => *value = format!("sha256={signature}"),
                "X-Gitea-Signature" | "X-Gogs-Signature" => value.clone_from(&signature),
                "X-Hub-Signature" if value.starts_with("sha256=") => *value = format!("sha256={signature}"),
                _ => {}
            }
        }
        self.with("Content-Length", &length)
    }

    /// With the same body in chunks of this size, each with `extension`, and with `trailer` behind the last.
    fn in_chunks(&self, size: usize, extension: &str, trailer: &str) -> Vec<u8> {
        let mut body = Vec::new();
        for chunk in self.body.chunks(size) {
            body.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
            body.extend_from_slice(chunk);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(format!("0{extension}\r\n{trailer}\r\n").as_bytes());
        let chunked = self.clone().without("Content-Length").and("Transfer-Encoding", "chunked");
        [chunked.head().as_bytes(), &body].concat()
    }

    fn head(&self) -> String {
        let fields: String = self.fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("{}\r\n{fields}\r\n", self.line)
    }

    fn bytes(&self) -> Vec<u8> {
        [self.head().as_bytes(), &self.body].concat()
    }

    /// The same with another text in its head.
    #[track_caller]
    fn edited(&self, from: &str, to: &str) -> Vec<u8> {
        assert_eq!(self.head().matches(from).count(), 1, "{from:?}");
        [self.head().replace(from, to).as_bytes(), &self.body].concat()
    }
}

/// What GitHub sends, with these in the payload.
fn payload(repository: &str, reference: &str, after: &str, padding: usize) -> String {
    json!({
        "ref": reference,
        "before": "9049f1265b7d61be4a8904a9a27120d2064dab3b",
        "after": after,
        "created": false,
        "deleted": after == NO_COMMIT,
        "commits": [{ "id": after, "message": "x".repeat(padding), "added": ["a b&c=d+é"] }],
        "repository": { "id": 186853002, "full_name": repository, "owner": { "login": "octo" } },
        "pusher": { "name": "ann", "email": "ann@example.org" },
        "sender": { "login": "ann", "id": 21031067 },
    })
    .to_string()
}

fn github_event(event: &str, content_type: &str, body: impl Into<Vec<u8>>) -> Sent {
    let fields = [
        ("User-Agent", "GitHub-Hookshot/044aadd"),
        ("Accept", "*/*"),
        ("Content-Type", content_type),
        ("X-GitHub-Delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
        ("X-GitHub-Event", event),
        ("X-GitHub-Hook-ID", "292430182"),
        ("X-GitHub-Hook-Installation-Target-ID", "186853002"),
        ("X-GitHub-Hook-Installation-Target-Type", "repository"),
        ("X-Hub-Signature", "sha1=7d38cdd689735b008b3c702edd92eea23791c5f6"),
        ("X-Hub-Signature-256", ""),
    ];
    Sent::new(&fields, body)
}

/// GitHub's push to the branch that is deployed.
fn push() -> Sent {
    github_event("push", JSON, payload("octo/shop", "refs/heads/main", COMMIT, 0))
}

/// The same with a body of this many bytes.
fn push_of(length: u64, delivery: &str) -> Sent {
    let padding = usize::try_from(length).unwrap() - push().body.len();
    let body = payload("octo/shop", "refs/heads/main", COMMIT, padding);
    assert_eq!(body.len() as u64, length);
    github_event("push", JSON, body).with("X-GitHub-Delivery", delivery)
}

fn gitea() -> Sent {
    let body = json!({
        "ref": "refs/heads/main",
        "after": COMMIT,
        "repository": { "full_name": "octo/shop", "owner": { "login": "octo" } },
        "pusher": { "login": "bob", "username": "bob" },
    });
    let fields = [
        ("Content-Type", JSON),
        ("X-Forgejo-Event", "push"),
        ("X-Forgejo-Signature", "0"),
        ("X-Gitea-Delivery", "f6266f16-1bf3-46a5-9ea4-602e06ead473"),
        ("X-Gitea-Event", "push"),
        ("X-Gitea-Signature", ""),
        ("X-Gogs-Event", "push"),
        ("X-GitHub-Delivery", "f6266f16-1bf3-46a5-9ea4-602e06ead473"),
        ("X-GitHub-Event", "push"),
        ("X-Hub-Signature", "sha1=0"),
        ("X-Hub-Signature-256", ""),
    ];
    Sent::new(&fields, body.to_string())
}

fn gitlab(after: &str) -> Sent {
    let body = json!({
        "object_kind": "push",
        "ref": "refs/heads/main",
        "after": after,
        "user_username": "cyd",
        "project": { "path_with_namespace": "octo/shop" },
        "repository": { "name": "shop", "url": "git@example.org:octo/shop.git" },
    });
    let fields = [
        ("Content-Type", JSON),
        ("User-Agent", "GitLab/17.0.0"),
        ("Idempotency-Key", "f5e5f430-f57b-4e6e-9fac-d9128cd7232f"),
        ("X-Gitlab-Event", "Push Hook"),
        ("X-Gitlab-Event-UUID", "13792a34-cac6-4fda-95a8-c58e00a3954e"),
        ("X-Gitlab-Token", SECRET),
    ];
    Sent::new(&fields, body.to_string())
}

fn gogs() -> Sent {
    let body = json!({
        "ref": "refs/heads/main",
        "before": NO_COMMIT,
        "after": COMMIT,
        "repository": { "name": "shop", "full_name": "octo/shop" },
        "pusher": { "login": "eve", "username": "eve" },
        "sender": { "login": "eve" },
    });
    let fields = [
        ("Content-Type", JSON),
        ("User-Agent", "GogsServer"),
        ("X-Gogs-Delivery", "1b4e28ba-2fa1-11d2-883f-0016d3cca427"),
        ("X-Gogs-Event", "push"),
        ("X-Gogs-Signature", ""),
    ];
    Sent::new(&fields, body.to_string())
}

/// Bitbucket's from the cloud: what was pushed to, of which kind, and at which commit it is now.
fn bitbucket(changes: &[(&str, &str, Option<&str>)]) -> Sent {
    let changes = changes.iter().map(|(kind, name, hash)| {
        let head = |hash: &str| json!({ "type": kind, "name": name, "target": { "type": "commit", "hash": hash } });
        json!({ "old": head(NO_COMMIT), "new": hash.map(head), "created": false, "closed": hash.is_none() })
    });
    let body = json!({
        "push": { "changes": changes.collect::<Vec<_>>() },
        "repository": { "type": "repository", "name": "Shop", "full_name": "octo/shop", "project": { "key": "SHOP" } },
        "actor": { "type": "user", "display_name": "Fay Example", "nickname": "fay" },
    });
    let fields = [
        ("Content-Type", JSON),
        ("User-Agent", "Bitbucket-Webhooks/2.0"),
        ("X-Attempt-Number", "1"),
        ("X-Event-Key", "repo:push"),
        ("X-Hook-UUID", "8a1fcc3e-1bf3-46a5-9ea4-602e06ead473"),
        ("X-Hub-Signature", "sha256="),
        ("X-Request-UUID", "b7e0c4ab-1bf3-46a5-9ea4-602e06ead473"),
    ];
    Sent::new(&fields, body.to_string())
}

/// The same from a server of one's own.
fn bitbucket_server(reference: &str, hash: &str) -> Sent {
    let body = json!({
        "eventKey": "repo:refs_changed",
        "actor": { "name": "gil", "displayName": "Gil Example" },
        "repository": { "slug": "shop", "id": 84, "name": "Shop", "project": { "key": "OCTO", "name": "Octo" } },
        "changes": [{
            "ref": { "id": reference, "displayId": "main", "type": "BRANCH" },
            "refId": reference, "fromHash": NO_COMMIT, "toHash": hash, "type": "UPDATE",
        }],
    });
    let fields = [
        ("Content-Type", "application/json; charset=utf-8"),
        ("X-Event-Key", "repo:refs_changed"),
        ("X-Hub-Signature", "sha256="),
        ("X-Request-Id", "e9cb4f1d-59ae-4b0e-b9e4-4d4c8a4c1f11"),
    ];
    Sent::new(&fields, body.to_string())
}

fn form(payload: &str) -> String {
    form_urlencoded::Serializer::new(String::new()).append_pair("payload", payload).finish()
}

#[test]
fn it_explains_itself() {
    explains_itself("on-push", "Answer one webhook request on stdin, and queue the deploy that it asks for");
}

#[test]
fn verifies_the_signature_that_github_publishes() {
    // docs.github.com, "Validating webhook deliveries"
    let published = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let secret = Secret::new(SECRET.as_bytes()).unwrap();
    assert!(secret.has_signed(b"Hello, World!", published));
    assert!(!secret.has_signed(b"Hello, World", published));
    assert!(!Secret::new(b"another").unwrap().has_signed(b"Hello, World!", published));
    for at in 0..published.len() {
        let digit = if published[at..].starts_with('0') { "1" } else { "0" };
        let wrong = format!("{}{digit}{}", &published[..at], &published[at + 1..]);
        assert!(!secret.has_signed(b"Hello, World!", &wrong), "{wrong}");
        assert!(!secret.has_signed(b"Hello, World!", &published[..at]), "{at} digits");
    }
    assert!(!secret.has_signed(b"Hello, World!", &format!("{published}00")));
}

#[test]
fn queues_pushes_as_their_hosts_send_them() {
    let hook = Hook::new();
    let as_form = github_event("push", FORM, form(&payload("octo/shop", "refs/heads/main", COMMIT, 0)));
    let digest = signature(SECRET.as_bytes(), &push().body);
    let extended = push().in_chunks(100, " ;name=\"a value\"", "X-Checksum: 1\r\nX-Other: 2\r\n");
    let cases = [
        ("GitHub", push().bytes(), "ann"),
        ("GitHub, by a form", as_form.bytes(), "ann"),
        ("GitHub, with a charset", push().with("Content-Type", "Application/JSON ; charset=utf-8").bytes(), "ann"),
        ("in chunks", push().in_chunks(7, "", ""), "ann"),
        ("in chunks, with extensions and a trailer", extended, "ann"),
        ("a query", push().at("POST /.cutover/push?a=b&c HTTP/1.1").bytes(), "ann"),
        ("an empty line first", [b"\r\n", &push().bytes()[..]].concat(), "ann"),
        ("HTTP/1.0", push().at("POST /.cutover/push HTTP/1.0").without("Host").bytes(), "ann"),
        ("upper-case digits", push().edited(&digest, &digest.to_uppercase()), "ann"),
        ("nothing around the values", push().edited("Host: ", "Host:"), "ann"),
        (
            "another repository's letters",
            { push().with_body(payload("Octo/Shop", "refs/heads/main", COMMIT, 0)).bytes() },
            "ann",
        ),
        (
            "more than is needed, and deep",
            {
                let deep = format!("{{\"deep\":{}{},", "[".repeat(100_000), "]".repeat(100_000));
                push().with_body(payload("octo/shop", "refs/heads/main", COMMIT, 0).replacen('{', &deep, 1)).bytes()
            },
            "ann",
        ),
        ("Gitea and Forgejo", gitea().bytes(), "bob"),
        ("Gitea, with its own signature only", gitea().without("X-Hub-Signature-256").bytes(), "bob"),
        ("GitLab", gitlab(COMMIT).bytes(), "cyd"),
        ("Gogs", gogs().bytes(), "eve"),
        ("Bitbucket", bitbucket(&[("branch", "main", Some(COMMIT))]).bytes(), "fay"),
        (
            "Bitbucket, with others beside it",
            bitbucket(&[("branch", "dev", Some(NO_COMMIT)), ("tag", "main", None), ("branch", "main", Some(COMMIT))])
                .bytes(),
            "fay",
        ),
        ("Bitbucket's own server", bitbucket_server("refs/heads/main", COMMIT).bytes(), "gil"),
    ];
    for (what, request, who) in cases {
        let ran = hook.run(&request);
        assert_eq!(ran.code, 0, "{what}: {ran:?}");
        assert_eq!(hook.queued(), format!("push of {} by {who}", &COMMIT[..12]), "{what}");
        let text = hook.is_answered(what, &ran, 202);
        assert_eq!(text, format!("{} waits for its deploy", &COMMIT[..12]), "{what}");
    }
}

#[test]
fn says_why_there_is_nothing_to_do() {
    let hook = Hook::new();
    let other = |repository, reference, after| push().with_body(payload(repository, reference, after, 0));
    let named = payload("octo/shop", "refs/heads/main", COMMIT, 0);
    let long = named.replace("octo/shop", &"\u{7}é".repeat(500));
    let cases = [
        ("ping", github_event("ping", JSON, "{\"zen\":\"Keep it logically awesome.\"}"), "pong"),
        ("another event", push().with("X-GitHub-Event", "issues"), "the event is issues, not push"),
        ("GitLab's event", gitlab(COMMIT).with("X-Gitlab-Event", "Note Hook"), "the event is Note Hook, not push"),
        ("branch", other("octo/shop", "refs/heads/dev", COMMIT), "refs/heads/dev was pushed to, not main"),
        ("a longer branch", other("octo/shop", "refs/heads/main2", COMMIT), "refs/heads/main2 was pushed to, not main"),
        ("a tag of this name", other("octo/shop", "refs/tags/main", COMMIT), "refs/tags/main was pushed to, not main"),
        ("repository", other("octo/other", "refs/heads/main", COMMIT), "the repository is octo/other, not octo/shop"),
        ("a fork", other("cat/shop", "refs/heads/main", COMMIT), "the repository is cat/shop, not octo/shop"),
        ("a hostile name", push().with_body(long.replace('\u{7}', "\\u0007")), "the repository is éééé"),
        ("a deletion", other("octo/shop", "refs/heads/main", NO_COMMIT), "refs/heads/main was deleted"),
        ("GitLab's deletion", gitlab(NO_COMMIT), "refs/heads/main was deleted"),
        (
            "a renamed repository",
            other("octo/store", "refs/heads/main", COMMIT),
            "if it was renamed, set repository in [push]",
        ),
        ("Bitbucket's branch", bitbucket(&[("branch", "dev", Some(COMMIT))]), "refs/heads/dev was pushed to, not main"),
        ("Bitbucket's tag", bitbucket(&[("tag", "main", Some(COMMIT))]), "refs/tags/main was pushed to, not main"),
        ("Bitbucket's deletion", bitbucket(&[("branch", "main", None)]), "refs/heads/main was deleted"),
        ("Bitbucket's nothing", bitbucket(&[]), "nothing was pushed to, not main"),
        ("its own server's deletion", bitbucket_server("refs/heads/main", NO_COMMIT), "refs/heads/main was deleted"),
        ("its own server's branch", bitbucket_server("refs/heads/x", COMMIT), "refs/heads/x was pushed to, not main"),
        ("its ping", bitbucket_server("refs/heads/main", COMMIT).with("X-Event-Key", "diagnostics:ping"), "pong"),
    ];
    for (what, request, reason) in cases {
        let text = hook.answers(what, &request.bytes(), 200);
        assert!(text.contains(reason), "{what}: {text:?}");
    }
}

#[test]
fn a_delivery_that_was_seen_before_is_not_queued_again() {
    let bitbucket = bitbucket(&[("branch", "main", Some(COMMIT))]);
    for request in [push(), gitea(), gogs(), gitlab(COMMIT), bitbucket, bitbucket_server("refs/heads/main", COMMIT)] {
        let hook = Hook::new();
        hook.run(&request.bytes()).ok();
        fs::remove_file(hook.home.path().join("queue/push")).unwrap();
        let again = hook.run(&request.bytes());
        said("again", &again.stdout, 200);
        assert_eq!((again.code, hook.queue()), (0, vec!["deliveries".to_owned()]), "{again:?}");
    }
    // GitLab before 17.4 has nothing that tells one delivery from another.
    let hook = Hook::new();
    for _ in 0..2 {
        said("GitLab of old", &hook.run(&gitlab(COMMIT).without("Idempotency-Key").bytes()).stdout, 202);
        assert_eq!(hook.queue(), ["push"]);
    }
    let hook = Hook::new();
    let known: Vec<String> = (0..1000).map(|number| format!("d{number}")).collect();
    fs::write(hook.home.path().join("queue/deliveries"), known.join("\n") + "\n").unwrap();
    let sent = |delivery: &str| hook.run(&push().with("X-GitHub-Delivery", delivery).bytes()).stdout;
    said("known", &sent("d0"), 200);
    said("new", &sent("new"), 202);
    said("forgotten for the new one", &sent("d0"), 202);
    said("still known", &sent("d999"), 200);
    assert_eq!(hook.deliveries().len(), 1000);
    // Without an id, or with one that is none, every delivery is a new one.
    for _ in 0..2 {
        said("an empty id", &sent(""), 202);
        said("no id", &hook.run(&push().without("X-GitHub-Delivery").bytes()).stdout, 202);
    }
}

#[test]
fn who_does_not_know_the_secret_gets_no_hint() {
    let hook = Hook::new();
    let (body, right) = (push().body, signature(SECRET.as_bytes(), &push().body));
    let signed = |value: &str| push().with("X-Hub-Signature-256", value);
    let zero = "0".repeat(64);
    let cases = [
        ("none", push().without("X-Hub-Signature-256")),
        ("only by SHA-1", push().without("X-Hub-Signature-256").with("X-Hub-Signature", &format!("sha1={right}"))),
        ("empty", signed("")),
        ("no digits", signed("sha256=")),
        ("wrong", signed(&format!("sha256={zero}"))),
        (
            "the last digit is wrong",
            signed(&format!("sha256={}{}", &right[..63], if right.ends_with('0') { 1 } else { 0 })),
        ),
        ("the first digit is missing", signed(&format!("sha256={}", &right[1..]))),
        ("truncated by a digit", signed(&format!("sha256={}", &right[..63]))),
        ("truncated by a byte", signed(&format!("sha256={}", &right[..62]))),
        ("truncated to a byte", signed(&format!("sha256={}", &right[..2]))),
        ("too long", signed(&format!("sha256={right}00"))),
        ("twice in one", signed(&format!("sha256={right}, sha256={right}"))),
        ("a sign for a digit", signed(&format!("sha256=+{}", &right[1..]))),
        ("not hexadecimal", signed(&format!("sha256={}", "é".repeat(32)))),
        ("without its kind", signed(&right)),
        ("of another kind", signed(&format!("sha1={right}"))),
        ("its kind in capitals", signed(&format!("SHA256={right}"))),
        ("doubled", signed(&format!("sha256={right}")).and("X-Hub-Signature-256", &format!("sha256={right}"))),
        ("right, then wrong", signed(&format!("sha256={right}")).and("X-Hub-Signature-256", &format!("sha256={zero}"))),
        ("wrong, then right", signed(&format!("sha256={zero}")).and("X-Hub-Signature-256", &format!("sha256={right}"))),
        ("another secret's", signed(&format!("sha256={}", signature(b"another", &body)))),
        ("an empty secret's", signed(&format!("sha256={}", signature(b"", &body)))),
        ("of no body", signed(&format!("sha256={}", signature(SECRET.as_bytes(), b"")))),
        ("the secret itself", signed(&format!("sha256={SECRET}"))),
        ("Gitea's is wrong beside a right one", gitea().with("X-Gitea-Signature", &zero)),
        ("a wrong one beside Gitea's", gitea().with("X-Hub-Signature-256", &format!("sha256={zero}"))),
        (
            "Gitea's has a kind",
            gitea().without("X-Hub-Signature-256").with("X-Gitea-Signature", &format!("sha256={right}")),
        ),
        ("Gogs' is wrong", gogs().with("X-Gogs-Signature", &zero)),
        ("Gogs' is wrong beside a right one", push().and("X-Gogs-Signature", &zero)),
        (
            "Bitbucket's is wrong",
            bitbucket_server("refs/heads/main", COMMIT).with("X-Hub-Signature", &format!("sha256={zero}")),
        ),
        (
            "Bitbucket's of SHA-1",
            bitbucket_server("refs/heads/main", COMMIT).with("X-Hub-Signature", &format!("sha1={right}")),
        ),
        ("Bitbucket's without a kind", bitbucket_server("refs/heads/main", COMMIT).with("X-Hub-Signature", &right)),
        ("a wrong one of Bitbucket's beside a right one", push().and("X-Hub-Signature", &format!("sha256={zero}"))),
        (
            "a weak one and a wrong one",
            push().and("X-Hub-Signature", "sha1=0").and("X-Hub-Signature", &format!("sha256={zero}")),
        ),
        ("a wrong token beside a signature", push().and("X-Gitlab-Token", "wrong")),
        ("a wrong token", gitlab(COMMIT).with("X-Gitlab-Token", "wrong")),
        ("an empty token", gitlab(COMMIT).with("X-Gitlab-Token", "")),
        ("a part of the token", gitlab(COMMIT).with("X-Gitlab-Token", &SECRET[..25])),
        ("more than the token", gitlab(COMMIT).with("X-Gitlab-Token", &format!("{SECRET}.{SECRET}"))),
        ("a token in other letters", gitlab(COMMIT).with("X-Gitlab-Token", &SECRET.to_lowercase())),
        ("the token twice", gitlab(COMMIT).and("X-Gitlab-Token", SECRET)),
        ("a ping", github_event("ping", JSON, "{}").with("X-Hub-Signature-256", &format!("sha256={zero}"))),
        ("no payload", signed(&format!("sha256={zero}")).with("Content-Type", "text/plain")),
    ];
    for (what, request) in cases {
        assert_eq!(hook.answers(what, &request.bytes(), 401), "not authorized", "{what}");
    }
    let mut other = push();
    *other.body.last_mut().unwrap() = b' ';
    hook.answers("another body", &other.bytes(), 401);
}

#[test]
fn a_secret_that_cannot_be_used_is_the_owners_business() {
    let hook = Hook::new();
    let place = hook.secret().canonicalize().unwrap();
    let is_closed = |reason: &str| {
        for request in
            [push(), push().with("X-Hub-Signature-256", "sha256=00"), gitlab(COMMIT).with("X-Gitlab-Token", "")]
        {
            let ran = hook.run(&request.bytes());
            assert_eq!((ran.code, said(reason, &ran.stdout, 503).as_str()), (3, "not now"), "{ran:?}");
            let cause = format!("on-push: cannot use the secret in {}: {reason}\n", place.display());
            assert_eq!(ran.stderr, format!("on-push: stdin: 503, not now\n{cause}"));
            assert_eq!(hook.queue(), [""; 0]);
        }
        hook.answers("unsigned", &push().without("X-Hub-Signature-256").bytes(), 401);
    };
    for mode in [0o640, 0o604, 0o620, 0o666] {
        hook.write_secret(SECRET, mode);
        is_closed(&format!("others may read it; chmod 600 {}", place.display()));
    }
    for nothing in ["", "\n", " \t\r\n"] {
        hook.write_secret(nothing, 0o600);
        is_closed("it is empty");
    }
    fs::remove_file(hook.secret()).unwrap();
    is_closed("No such file or directory (os error 2)");
    hook.write_secret(SECRET, 0o400);
    hook.answers("it is there again", &push().bytes(), 202);
}

#[test]
fn only_a_post_to_its_own_path_is_served() {
    let hook = Hook::new();
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "post", "PRI"] {
        hook.answers(method, &push().at(&format!("{method} /.cutover/push HTTP/1.1")).bytes(), 405);
    }
    let targets = [
        "/",
        "*",
        "/.cutover",
        "/.cutover/push/",
        "/.cutover/pushed",
        "//.cutover/push",
        "/./.cutover/push",
        "/.cutover/%70ush",
        "/.CUTOVER/push",
        "/.cutover/push#a",
        "/.cutover/push;a",
        "/?/.cutover/push",
        "http://shop.example.org/.cutover/push",
        "shop.example.org:443",
    ];
    for target in targets {
        hook.answers(target, &push().at(&format!("POST {target} HTTP/1.1")).bytes(), 404);
    }
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    let hook = Hook::new();
    let length = format!("Content-Length: {}\r\n", push().body.len());
    let cases = [
        ("Accept: */*", "Accept: *\0*", 400),
        ("Accept: */*", "Accept: *\r*", 400),
        ("Accept: */*", "Accept: *\u{b}*", 400),
        ("Accept: */*", "Accept", 400),
        ("Accept: */*", ": */*", 400),
        ("Accept: */*", "Acc\0ept: */*", 400),
        ("Accept: */*", "Ac cept: */*", 400),
        ("Accept: */*\r\n", "Accept: */*\n", 400),
        ("Accept: */*\r\n", "Accept: */*\r\n\tfolded\r\n", 400),
        ("Accept: */*\r\n", "Accept: */*\r\n folded: 1\r\n", 400),
        ("Accept: */*\r\n", "Accept: */*\r\r\n", 400),
        ("\r\n\r\n", "\n\n", 400),
        ("\r\n\r\n", "\r\n\n", 400),
        ("Host: ", "Host : ", 400),
        ("Host: shop.example.org\r\n", "", 400),
        ("Host: shop.example.org\r\n", "Host: shop.example.org\r\nHost: shop.example.org\r\n", 400),
        ("Host: shop.example.org\r\n", "Host: shop.example.org\r\nhOST: example.org\r\n", 400),
        ("POST /", " POST /", 400),
        ("POST /", "POST  /", 400),
        ("POST /", "POST\t/", 400),
        ("POST /.cutover/push", "POST /.cutover/push a", 400),
        (" HTTP/1.1", "", 400),
        (" HTTP/1.1", " HTTP/1.2", 400),
        (" HTTP/1.1", " HTTP/2.0", 400),
        (" HTTP/1.1", " HTTP/1.1 ", 400),
        (" HTTP/1.1", " http/1.1", 400),
        (&length, "", 401),
        (&length, "Content-Length: 0\r\n", 401),
        (&length, &format!("{length}{length}"), 400),
        (&length, &format!("{length}Content-Length: 0\r\n"), 400),
        (&length, &format!("{length}Transfer-Encoding: chunked\r\n"), 400),
        (&length, &format!("Transfer-Encoding: chunked\r\n{length}"), 400),
        (&length, &format!("{length}transfer-encoding: identity\r\n"), 400),
        (&length, &length.replace(": ", " : "), 400),
        (&length, &length.replace(": ", ": +"), 400),
        (&length, &length.replace(": ", ": -"), 400),
        (&length, &length.replace(": ", ": 0x"), 400),
        (&length, &length.replace(": ", ": \u{a0}"), 400),
        (&length, &length.replace(": ", ": \u{3000}"), 400),
        (&length, &length.replace(": ", ": 5, "), 400),
        (&length, &length.replace("\r\n", ".0\r\n"), 400),
        (&length, &length.replace("\r\n", "\u{b2}\r\n"), 400),
        (&length, "Content-Length:\r\n", 400),
        (&length, "Content-Length: 99999999999999999999\r\n", 400),
        (&length, "Transfer-Encoding: gzip\r\n", 501),
        (&length, "Transfer-Encoding: identity\r\n", 501),
        (&length, "Transfer-Encoding: gzip, chunked\r\n", 501),
        (&length, "Transfer-Encoding: chunked, identity\r\n", 501),
        (&length, "Transfer-Encoding: chunked, chunked\r\n", 501),
        (&length, "Transfer-Encoding: xchunked\r\n", 501),
        (&length, "Transfer-Encoding: \"chunked\"\r\n", 501),
        (&length, "Transfer-Encoding: chunked;a=b\r\n", 501),
        (&length, "Transfer-Encoding: \u{a0}chunked\r\n", 501),
        (&length, "Transfer-Encoding:\r\n", 501),
        (&length, "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
        (&length, "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", 400),
        (&length, "Transfer-Encoding : chunked\r\n", 400),
        (&length, "Transfer-Encoding: \u{b}chunked\r\n", 400),
        (&length, "Transfer-Encoding\r\n : chunked\r\n", 400),
        // White space that may stand there; but what follows is not in chunks.
        (&length, "Transfer-Encoding: \t chunked \r\n", 400),
        (&length, &format!("{length}Expect: a-miracle\r\n"), 417),
        (&length, &format!("{length}Expect: 100-continue\r\nExpect: 100-continue\r\n"), 417),
    ];
    for (from, to, status) in cases {
        hook.answers(&format!("{from:?} became {to:?}"), &push().edited(from, to), status);
    }
    let old = push().at("POST /.cutover/push HTTP/1.0").in_chunks(100, "", "");
    hook.answers("HTTP/1.0 in chunks", &old, 400);
    let mut two = push().in_chunks(100, "", "");
    two.splice(30..30, *b"Content-Length: 5\r\n");
    hook.answers("chunks with a length", &two, 400);
}

#[test]
fn chunks_that_are_none_are_refused() {
    let hook = Hook::new();
    let request = push();
    let (head, size) =
        (request.clone().without("Content-Length").and("Transfer-Encoding", "chunked").head(), request.body.len());
    let body = std::str::from_utf8(&request.body).unwrap();
    let cases = [
        format!("{size}g\r\n{body}\r\n0\r\n\r\n"),
        format!("0x{size:x}\r\n{body}\r\n0\r\n\r\n"),
        format!("+{size:x}\r\n{body}\r\n0\r\n\r\n"),
        format!("-{size:x}\r\n{body}\r\n0\r\n\r\n"),
        format!(" {size:x}\r\n{body}\r\n0\r\n\r\n"),
        format!("{size:x}\n{body}\r\n0\r\n\r\n"),
        format!("{size:x};a\n\r\n{body}\r\n0\r\n\r\n"),
        format!("{size:x};{}\r\n{body}\r\n0\r\n\r\n", "a".repeat(300)),
        format!("{:x}\r\n{body}\r\n0\r\n\r\n", size - 1),
        format!("{:x}\r\n{body}\r\n0\r\n\r\n", size + 1),
        format!("{size:x}\r\n{body}0\r\n\r\n"),
        format!("{size:x}\r\n{body}\n0\r\n\r\n"),
        format!("{size:x}\r\n{body}\r\n0\n\n"),
        format!("{size:x}\r\n{body}\r\n\r\n\r\n"),
        format!("{size:x}\r\n{body}\r\n;a\r\n\r\n"),
        format!("{size:x}\r\n{body}\r\n0\r\n"),
        format!("{size:x}\r\n{body}\r\n0\r\na: b\r\n"),
        format!("{size:x}\r\n{body}\r\n0\r\na: b\n\r\n"),
        format!("{size:x}\r\n{body}\r\n0\r\n{}\r\n", "a: b\r\n".repeat(1000)),
        format!("{size:x}\r\n{body}\r\n"),
        format!("10000000000000000{size:x}\r\n{body}\r\n0\r\n\r\n"),
        "\r\n\r\n".to_owned(),
    ];
    for chunks in cases {
        hook.answers(&chunks, &[head.as_bytes(), chunks.as_bytes()].concat(), 400);
    }
    for huge in ["ffffffffffffffff", "7fffffffffffffff", "1900001"] {
        hook.answers(huge, format!("{head}{huge}\r\n").as_bytes(), 413);
    }
}

#[test]
fn what_is_too_long_or_no_request_is_refused() {
    let hook = Hook::new();
    let long = push().with("User-Agent", &"a".repeat(17 * 1024));
    let many = (0..200).fold(push(), |sent, number| sent.and(&format!("X-{number}"), "a"));
    let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0xa5; 507]].concat();
    let cases: [(&str, Vec<u8>, u16); 10] = [
        ("a long field", long.bytes(), 431),
        ("a long line", push().at(&format!("POST /{} HTTP/1.1", "a".repeat(17 * 1024))).bytes(), 431),
        ("a line without an end", vec![b'a'; 20_000], 431),
        ("many fields", many.bytes(), 431),
        ("TLS", hello, 400),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(), 400),
        ("HTTP/0.9", b"GET /.cutover/push\r\n\r\n".to_vec(), 400),
        ("zeros", vec![0; 4096], 400),
        ("binary lines", b"\xff\xfe\r\n\xff\xfe: \xff\r\n\r\n".to_vec(), 400),
        ("empty lines", b"\r\n\r\n\r\n\r\n".to_vec(), 400),
    ];
    for (what, request, status) in cases {
        hook.answers(what, &request, status);
    }
    hook.run(b"").is(1, "", "");
    let (whole, head) = (push().bytes(), push().head().len());
    let cuts = (1..whole.len()).step_by(61).chain([head - 4, head - 2, head - 1, head, whole.len() - 1]);
    for cut in cuts {
        hook.answers(&format!("cut after {cut}"), &whole[..cut], 400);
    }
}

#[test]
fn a_genuine_payload_that_makes_no_sense_is_refused() {
    let hook = Hook::new();
    let body = payload("octo/shop", "refs/heads/main", COMMIT, 0);
    let with = |from: &str, to: &str| {
        assert!(body.contains(from), "{from}");
        body.replacen(from, to, 1).into_bytes()
    };
    let bytes = |from: &str, to: &[u8]| {
        let (before, after) = body.split_once(from).unwrap();
        [before.as_bytes(), to, after.as_bytes()].concat()
    };
    let cases = [
        ("nothing", Vec::new()),
        ("null", b"null".to_vec()),
        ("a number", b"1e999".to_vec()),
        ("a text", format!("{body:?}").into_bytes()),
        ("an empty object", b"{}".to_vec()),
        ("an array", format!("[{body}]").into_bytes()),
        ("an array without end", "[".repeat(1_000_000).into_bytes()),
        ("an object without end", "{\"a\":".repeat(1_000_000).into_bytes()),
        ("two", format!("{body}{body}").into_bytes()),
        ("something behind it", format!("{body}\0").into_bytes()),
        ("a byte order mark", format!("\u{feff}{body}").into_bytes()),
        ("a part", body.as_bytes()[..body.len() - 1].to_vec()),
        ("a key twice", with("{", "{\"ref\":\"refs/heads/main\",")),
        ("a deep key twice", with("\"full_name\"", "\"full_name\":\"octo/shop\",\"full_name\"")),
        ("a deep ref", with("\"refs/heads/main\"", &format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)))),
        ("no ref", with("\"ref\"", "\"REF\"")),
        ("no commit", with("\"after\"", "\"AFTER\"")),
        ("no repository", with("\"full_name\"", "\"name\"")),
        ("null for a repository", with("\"octo/shop\"", "null")),
        ("a number for a repository", with("\"octo/shop\"", "1")),
        ("a long text for a bool", with("\"deleted\":false", &format!("\"deleted\":\"{}\"", "a".repeat(100_000)))),
        ("lines for a bool", with("\"deleted\":false", "\"deleted\":\"a\\nb\\u001b[2J\"")),
        ("not UTF-8", bytes("refs/heads/main", b"refs/heads/\xff\xfe")),
        ("half a character", with("refs/heads/main", "refs/heads/\\ud800")),
        ("a zero byte", with("refs/heads/main", "refs/heads/main\0")),
        ("binary", (0..=255).collect()),
        ("a form", form(&body).into_bytes()),
    ];
    for (what, body) in cases {
        hook.answers(what, &push().with_body(body).bytes(), 400);
    }
    let as_form = |text: &str| github_event("push", FORM, text).bytes();
    for text in
        ["", "payload", "payload=", "payload=%", "a=b", "Payload=1", "payload=%ff%fe", &body, &form(&form(&body))]
    {
        hook.answers(text, &as_form(text), 400);
    }
    hook.answers("no event", &push().without("X-GitHub-Event").bytes(), 400);
    hook.answers("two events", &push().and("X-GitHub-Event", "push").bytes(), 400);
    for kind in
        ["text/plain", "", "application/jsonp", "multipart/form-data; boundary=a", "text/plain; application/json"]
    {
        hook.answers(kind, &push().with("Content-Type", kind).bytes(), 415);
    }
    hook.answers("no type", &push().without("Content-Type").bytes(), 415);
    hook.answers("two types", &push().and("Content-Type", JSON).bytes(), 415);
}

#[test]
fn what_follows_a_request_is_never_answered() {
    let hook = Hook::new();
    let second = push().with("X-GitHub-Delivery", "second");
    for first in [push().bytes(), push().in_chunks(50, "", ""), push().edited("push HTTP", "push?a HTTP")] {
        let ran = hook.run(&[&first[..], &second.bytes()].concat());
        assert_eq!(hook.deliveries(), ["72d3162e-cc78-11e3-81ab-4c9367dc0958"], "{ran:?}");
        hook.is_answered("the first", &ran, 202);
    }
    // Nor when the first is refused, and least of all a request in the body of one.
    for first in
        [push().without("X-Hub-Signature-256"), push().at("GET / HTTP/1.1"), push().with("Content-Length", "0")]
    {
        let status = if first.line.starts_with("GET") { 404 } else { 401 };
        hook.answers("refused", &[first.bytes(), second.bytes()].concat(), status);
    }
    let inner = push().with_body(second.bytes()).with("X-Hub-Signature-256", "sha256=00");
    hook.answers("a request within", &inner.bytes(), 401);
}

#[test]
fn who_waits_to_be_told_to_send_is_told() {
    let hook = Hook::new();
    let request = push().and("Expect", "100-Continue");
    let (mut client, child) = hook.connect();
    client.write_all(request.head().as_bytes()).unwrap();
    let mut told = [0; 25];
    client.read_exact(&mut told).unwrap();
    assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(hook.queue(), [""; 0]);
    client.write_all(&request.body).unwrap();
    said("told", &answer(&mut client), 202);
    drop(client);
    let ran = Ran::of(&child.wait_with_output().unwrap());
    ran.is(0, "", &format!("on-push: 127.0.0.1: 202, {} waits for its deploy\n", &COMMIT[..12]));
    fs::remove_dir_all(hook.home.path().join("queue")).unwrap();
    fs::create_dir(hook.home.path().join("queue")).unwrap();

    // What is refused by its head alone is refused before the body is sent, or even asked for.
    let _large = Lock::take(&hook.home.path().join("run/large-body.lock")).unwrap().unwrap();
    let too_long = (LIMIT + 1).to_string();
    let cases = [
        (request.clone().with("Content-Length", &too_long), 413),
        (push().with("Content-Length", &too_long), 413),
        (request.clone().and("Content-Length", "1"), 400),
        (request.clone().with("Content-Length", &(LIMIT + 1).to_string()).without("X-Hub-Signature-256"), 401),
        (request.clone().without("X-Hub-Signature-256"), 401),
        (request.clone().at("PUT /.cutover/push HTTP/1.1"), 405),
        (request.clone().with("Expect", "200-ok"), 417),
    ];
    for (request, status) in cases {
        let (mut client, child) = hook.connect();
        let request = request.and("X-Real-IP", "203.0.113.7");
        client.write_all(request.head().as_bytes()).unwrap();
        let text = said("refused", &answer(&mut client), status);
        drop(client);
        let ran = Ran::of(&child.wait_with_output().unwrap());
        // The address that nginx tells.
        ran.is(1, "", &format!("on-push: 203.0.113.7: {status}, {text}\n"));
        assert_eq!(hook.queue(), [""; 0]);
    }
}

/// All that comes until the other end closes.
#[track_caller]
fn answer(client: &mut TcpStream) -> String {
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn who_takes_too_long_is_not_waited_for() {
    let (head, chunked) = (push().head().len(), push().in_chunks(20, "", ""));
    // How much comes at once; the rest comes byte by byte, and is never whole.
    let cases = [
        ("silence", push().bytes(), 0, false),
        ("half a head", push().bytes(), head / 2, false),
        ("half a body", push().bytes(), head + 100, false),
        ("half a chunk", chunked.clone(), head + 50, false),
        ("a head in drops", push().bytes(), 10, true),
        ("a body in drops", push().bytes(), head + 10, true),
        ("chunks in drops", chunked, head + 10, true),
        ("a body in drops, unsigned in the end", push().with("X-Hub-Signature-256", "sha256=00").bytes(), head, true),
    ];
    thread::scope(|scope| {
        for (what, request, at_once, drops) in cases {
            scope.spawn(move || {
                // One each: of bodies in chunks only one is read at a time.
                let hook = Hook::new();
                let begin = Instant::now();
                let (mut client, child) = hook.connect();
                client.write_all(&request[..at_once]).unwrap();
                let pause = Duration::from_millis(100);
                client.set_read_timeout(Some(pause)).unwrap();
                let mut rest = request[at_once..].iter();
                let mut response = Vec::new();
                while begin.elapsed() < Duration::from_secs(30) {
                    if let Some(byte) = rest.next().filter(|_| drops) {
                        client.write_all(&[*byte]).unwrap();
                    }
                    let mut some = [0; 1024];
                    match client.read(&mut some) {
                        Ok(0) => break,
                        Ok(count) => response.extend_from_slice(&some[..count]),
                        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{what}"),
                    }
                }
                let took = begin.elapsed().as_secs();
                assert!((9..20).contains(&took), "{what}: {took} s");
                said(what, &String::from_utf8(response).unwrap(), 408);
                drop(client);
                let ran = Ran::of(&child.wait_with_output().unwrap());
                ran.is(1, "", "on-push: 127.0.0.1: 408, the request took too long\n");
                assert_eq!(hook.queue(), [""; 0], "{what}");
            });
        }
        // Somebody else's large body is being read all the time; one that is small does not mind.
        let hook = Hook::new();
        let _large = Lock::take(&hook.home.path().join("run/large-body.lock")).unwrap().unwrap();
        let large = hook.start_with(&push_of(1024 * 1024, "large").bytes());
        hook.answers("small", &push().bytes(), 202);
        let ran = Ran::of(&large.wait_with_output().unwrap());
        hook.is_answered("large", &ran, 503);
    });
}

#[test]
fn large_pushes_are_read_one_at_a_time() {
    let hook = Hook::new();
    let deliveries = ["a", "b", "c"];
    let lock = Lock::take(&hook.home.path().join("run/large-body.lock")).unwrap().unwrap();
    let mut large = deliveries.map(|delivery| hook.start_with(&push_of(LIMIT, delivery).bytes()));
    hook.answers("a small one meanwhile", &push().bytes(), 202);
    assert!(large.iter_mut().all(|child| child.try_wait().unwrap().is_none()));
    assert_eq!(hook.queue(), [""; 0]);
    drop(lock);
    for child in large {
        said("large", &Ran::of(&child.wait_with_output().unwrap()).ok(), 202);
    }
    let mut remembered = hook.deliveries();
    remembered.sort();
    assert_eq!(remembered, deliveries);

    let hook = Hook::new();
    let chunked = push_of(LIMIT, "d").in_chunks(5_000_000, "", "");
    hook.answers("in chunks", &chunked, 202);
    let too_long = push_of(LIMIT + 1, "e");
    hook.answers("too long", &too_long.bytes(), 413);
    hook.answers("too long in chunks", &too_long.in_chunks(5_000_000, "", ""), 413);
}

#[test]
fn a_hundred_at_once_are_one_deploy() {
    let hook = Hook::new();
    let ids: Vec<String> = (100..200).map(|number| format!("delivery-{number}")).collect();
    let start = |id: &String| hook.start_with(&push().with("X-GitHub-Delivery", id).bytes());
    let children: Vec<Child> = ids.iter().map(start).collect();
    for child in children {
        said("one of many", &Ran::of(&child.wait_with_output().unwrap()).ok(), 202);
    }
    assert_eq!(hook.queue(), ["deliveries", "push"]);
    let mut remembered = hook.deliveries();
    remembered.sort();
    assert_eq!(remembered, ids);
}

#[test]
fn what_the_fuzzers_have_found_holds() {
    let replay = |name: &str, holds: fn(&[u8])| {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
        let files: Vec<PathBuf> = fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(files.len() > 10, "{files:?}");
        for file in files {
            println!("{}", file.display());
            holds(&fs::read(file).unwrap());
        }
    };
    replay("request", properties::request);
    replay("push", properties::push);
}
