//! Pushes to the repository: whether a webhook's request tells of one that is to be deployed, and the queue in which it
//! waits for its deploy.
//!
//! GitHub, Gitea (Forgejo), Gogs and Bitbucket sign the body with the secret, GitLab sends the secret itself. Nothing in a request
//! is believed, nor even parsed, before that is verified.
#![deny(clippy::arithmetic_side_effects)]

mod listener;
mod queue;

pub use listener::{Place, adjust, end, listen, upstream};
pub use queue::{Added, Queued, add, queued, work_off};

use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use sha2::Sha256;

use crate::app::config::LATEST_TAG;
use crate::app::{App, Config};
use crate::bounded::{self, Links};
use crate::command;
use crate::deadline::Deadline;
use crate::harmless::is_harmful;
use crate::http::request::{Length, Refusal, Request};
use crate::lock::{self, Lock};
use crate::logfile;
use crate::output::hex;

/// Where webhooks are served.
pub const PATH: &str = "/.cutover/push";
/// How long a body may be, in bytes: GitHub sends no more (its documentation of webhook events).
pub const LIMIT: u64 = 25 * 1024 * 1024;
/// A body that may be read beside any number of others, in bytes. Usual ones have some ten thousand.
const SMALL: u64 = 256 * 1024;
/// What a form's field is called in which GitHub sends the payload.
const FORM_FIELD: &str = "payload";
/// The commit that a deleted branch is said to be at consists of this digit alone.
const NO_COMMIT: char = '0';
/// How long a name or an id may be that goes into records, in characters.
const LONGEST_NAME: usize = 100;

/// A push that is to be deployed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// Who pushed; None: the payload does not say.
    pub who: Option<String>,
    /// The commit that the branch is at now, shortened; when its deploy begins it may have moved on.
    pub commit: String,
    /// By this the host's sending it again is known; None: it has no such thing.
    pub delivery: Option<String>,
}

/// What a verified request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A deploy.
    Deploy(Push),
    /// Nothing; in words, why.
    Nothing(String),
}

/// The secret that the repository's host and we share.
pub struct Secret(Vec<u8>);

impl Secret {
    /// The secret of these bytes; white space around them does not count. An empty one is an error: everybody knows it.
    pub fn new(bytes: &[u8]) -> Result<Secret> {
        match bytes.trim_ascii() {
            [] => bail!("it is empty"),
            secret => Ok(Secret(secret.to_vec())),
        }
    }

    /// Reads the secret's file, which nobody but its owner may read.
    pub fn read(path: &Path) -> Result<Secret> {
        let read = || -> Result<Secret> {
            let file = bounded::open(path, Links::Followed)?;
            if file.metadata()?.mode() & 0o077 != 0 {
                bail!("others may read it; chmod 600 {}", path.display());
            }
            Secret::new(&bounded::all_of(file, bounded::SMALL)?)
        };
        read().with_context(|| format!("cannot use the secret in {}", path.display()))
    }

    fn mac(&self, message: &[u8]) -> Option<Hmac<Sha256>> {
        Some(Hmac::new_from_slice(&self.0).ok()?.chain_update(message))
    }

    /// Whether this is the signature of this body, written in hexadecimal. How long that takes does not depend on where a
    /// wrong one differs.
    pub fn has_signed(&self, body: &[u8], signature: &str) -> bool {
        let Some(signature) = bytes_of_hex(signature) else { return false };
        self.mac(body).is_some_and(|mac| mac.verify_slice(&signature).is_ok())
    }

    /// Whether this is the secret itself; as above, and without a hint of its length.
    pub fn is(&self, token: &str) -> bool {
        let (Some(own), Some(theirs)) = (self.mac(&self.0), self.mac(token.as_bytes())) else { return false };
        theirs.verify_slice(&own.finalize().into_bytes()).is_ok()
    }
}

fn bytes_of_hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let byte = |pair: &[u8]| u8::try_from(digit(pair.first()?)? << 4 | digit(pair.get(1)?)?).ok();
    pairs.map(byte).collect()
}

/// The fields in which the body's signature stands, and what stands before its digits: GitHub's, Bitbucket's, Gitea's, Gogs'.
const SIGNATURES: [(&str, &str); 4] = [
    ("x-hub-signature-256", "sha256="),
    (HUB_SIGNATURE, "sha256="),
    ("x-gitea-signature", ""),
    ("x-gogs-signature", ""),
];
/// Bitbucket's proof. GitHub sends one of SHA-1 by this name beside its own, which proves nothing any more.
const HUB_SIGNATURE: &str = "x-hub-signature";
/// GitLab's proof.
const TOKEN: &str = "x-gitlab-token";

/// The signatures that a request has, in which each must hold: the fields, and what stands before the digits.
fn signatures<R: Read>(request: &Request<R>) -> impl Iterator<Item = (&'static str, &'static str)> {
    let proves = |field: &str| {
        let is_weak = || request.field(field).is_some_and(|text| text.starts_with("sha1="));
        request.has(field) && !(field == HUB_SIGNATURE && is_weak())
    };
    SIGNATURES.into_iter().filter(move |(field, _)| proves(field))
}

/// Whether a request has anything that could prove who sent it. One that has not need not be read.
pub fn is_signed<R: Read>(request: &Request<R>) -> bool {
    request.has(TOKEN) || signatures(request).next().is_some()
}

/// Whether whoever sent this request knows the secret. Every proof that is there must hold.
pub fn is_genuine<R: Read>(secret: &Secret, request: &Request<R>, body: &[u8]) -> bool {
    let has_signed = |digits: &str| secret.has_signed(body, digits);
    let holds = |(field, kind): (&str, &str)| {
        request.field(field).and_then(|text| text.strip_prefix(kind)).is_some_and(has_signed)
    };
    is_signed(request)
        && signatures(request).all(holds)
        && (!request.has(TOKEN) || request.field(TOKEN).is_some_and(|token| secret.is(token)))
}

/// The header field by which a request with this body proves that its sender knows the secret.
pub fn signature(app: &App, body: &[u8]) -> Result<String> {
    let Some(push) = app.config.webhook() else { bail!("cannot sign: [push] names no repository") };
    let path = app.secret_file(push);
    let mac = Secret::read(&path)?.mac(body).with_context(|| format!("cannot use the secret in {}", path.display()))?;
    Ok(format!("X-Hub-Signature-256: sha256={}", hex(&mac.finalize().into_bytes())))
}

/// What a request has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code of the response.
    pub status: u16,
    /// What the response says.
    pub text: String,
}

impl Answer {
    fn new(status: u16, text: impl Into<String>) -> Answer {
        Answer { status, text: text.into() }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Answer {
        Answer::new(refusal.status, refusal.reason)
    }
}

/// Serves a request: verifies it, and queues what it asks for. The body is read on the way; whoever waits to be told to
/// send it is told on `output`.
pub fn serve<R: Read>(
    app: &App,
    request: &mut Request<R>,
    output: &mut impl Write,
    deadline: Deadline,
) -> Result<Answer> {
    let unauthorized = Refusal::new(401, "not authorized");
    if request.path != PATH {
        return Ok(Refusal::new(404, "there is nothing here").into());
    }
    if request.method != "POST" {
        return Ok(Refusal::new(405, "webhooks are sent by POST").into());
    }
    if !is_signed(request) {
        return Ok(unauthorized.into());
    }
    let Some(push) = app.config.webhook() else { bail!("cannot serve a webhook: [push] names no repository") };
    let secret = Secret::read(&app.secret_file(push))?;
    let is_large = match request.length() {
        Ok(Length::Known(length)) => length > SMALL && length <= LIMIT,
        Ok(Length::Chunked) => true,
        // It is refused without being read.
        Err(_) => false,
    };
    // However many large ones come at once, only one of them is in memory.
    let alone = if is_large { Some(Lock::wait(&app.large_body_lock(), deadline)?) } else { None };
    if let Some(None) = alone {
        return Ok(Refusal::new(503, "other large requests are being read").into());
    }
    let body = match request.body(LIMIT, output) {
        Ok(body) => body,
        Err(refusal) => return Ok(refusal.into()),
    };
    if !is_genuine(&secret, request, &body) {
        return Ok(unauthorized.into());
    }
    let push = match asked(&app.config, request, &body) {
        Ok(Asked::Deploy(push)) => push,
        Ok(Asked::Nothing(why)) => return Ok(Answer::new(200, why)),
        Err(refusal) => return Ok(refusal.into()),
    };
    Ok(match add(app, &push)? {
        Added::Queued => Answer::new(202, format!("{} waits for its deploy", push.commit)),
        Added::Replayed => Answer::new(200, "nothing to do: this was delivered before"),
    })
}

/// Starts the deploy of what is queued, unless one is under way, or systemd starts it.
pub fn start_deploy(app: &App) -> Result<()> {
    // One that is under way looks again when it has ended.
    if app.has_queue_unit() || queued(app)?.is_none() || lock::holder(&app.queued_deploy_lock())?.is_some() {
        return Ok(());
    }
    let arguments = ["--home".as_ref(), app.home().as_os_str(), "--queued".as_ref()];
    let log = logfile::open_for(&app.push_log(), "deploy")?;
    command::detach(&command::sibling("deploy")?, arguments, log).map(drop)
}

/// What the hosts' payloads say, under the names that GitHub, Gitea and Gogs, GitLab, or Bitbucket gives it.
#[derive(Deserialize)]
struct Payload {
    #[serde(rename = "ref")]
    reference: Option<String>,
    after: Option<String>,
    #[serde(default)]
    deleted: bool,
    #[serde(default)]
    repository: Repository,
    #[serde(default)]
    project: Project,
    #[serde(default)]
    pusher: Person,
    #[serde(default)]
    user_username: Option<String>,
    /// Bitbucket's.
    #[serde(default)]
    actor: Person,
    /// Bitbucket's, in the cloud.
    push: Option<Changes>,
    /// Bitbucket's on a server of one's own.
    #[serde(default)]
    changes: Vec<Moved>,
}

#[derive(Default, Deserialize)]
struct Repository {
    full_name: Option<String>,
    slug: Option<String>,
    #[serde(default)]
    project: Project,
}

#[derive(Default, Deserialize)]
struct Project {
    path_with_namespace: Option<String>,
    key: Option<String>,
}

#[derive(Default, Deserialize)]
struct Person {
    name: Option<String>,
    login: Option<String>,
    nickname: Option<String>,
}

#[derive(Deserialize)]
struct Changes {
    changes: Vec<Replaced>,
}

/// What a branch or a tag was, and is; None: it was not there, or is there no more.
#[derive(Deserialize)]
struct Replaced {
    old: Option<Head>,
    new: Option<Head>,
}

#[derive(Deserialize)]
struct Head {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    target: Target,
}

#[derive(Deserialize)]
struct Target {
    hash: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Moved {
    ref_id: String,
    to_hash: String,
}

/// A branch or a tag that was pushed to, and the commit that it is at; None: it was deleted.
struct Change {
    reference: String,
    after: Option<String>,
}

impl Change {
    fn to(reference: String, after: String) -> Change {
        let is_there = after.chars().any(|digit| digit != NO_COMMIT);
        Change { reference, after: Some(after).filter(|_| is_there) }
    }
}

impl Replaced {
    fn change(self) -> Option<Change> {
        let Head { kind, name, target } = self.new.or_else(|| {
            let gone = |old: Head| Head { target: Target { hash: String::new() }, ..old };
            self.old.map(gone)
        })?;
        let place = if kind.contains("tag") { "tags" } else { "heads" };
        Some(Change::to(format!("refs/{place}/{name}"), target.hash))
    }
}

impl Payload {
    /// The repository as its host calls it; None: it is not named.
    fn repository(&mut self) -> Option<String> {
        let Repository { full_name, slug, project } = std::mem::take(&mut self.repository);
        let of_server = project.key.zip(slug).map(|(project, slug)| format!("{project}/{slug}"));
        full_name.or(of_server).or(self.project.path_with_namespace.take())
    }

    fn who(&mut self) -> Option<String> {
        let Person { name, login, .. } = std::mem::take(&mut self.pusher);
        let actor = std::mem::take(&mut self.actor);
        name.or(login).or(self.user_username.take()).or(actor.nickname).or(actor.name)
    }

    /// What was pushed to; None: the payload does not say.
    fn changes(self) -> Option<Vec<Change>> {
        if let Some(push) = self.push {
            return Some(push.changes.into_iter().filter_map(Replaced::change).collect());
        }
        if let (Some(reference), Some(after)) = (self.reference, self.after) {
            return Some(vec![Change::to(reference, if self.deleted { String::new() } else { after })]);
        }
        let moved = self.changes.into_iter().map(|Moved { ref_id, to_hash }| Change::to(ref_id, to_hash));
        Some(moved.collect()).filter(|changes: &Vec<Change>| !changes.is_empty())
    }
}

/// In which fields the event stands.
const EVENTS: [&str; 5] = ["x-gitlab-event", "x-gitea-event", "x-gogs-event", "x-github-event", "x-event-key"];
/// What a push is called there.
const PUSHES: [&str; 5] = ["push", "Push Hook", "Tag Push Hook", "repo:push", "repo:refs_changed"];
/// What asks only whether somebody is there.
const PINGS: [&str; 2] = ["ping", "diagnostics:ping"];
/// By what one delivery is told from another. Not GitLab's X-Gitlab-Event-UUID: pushes of a bot that a webhook has woken have
/// that one's.
const DELIVERIES: [&str; 6] =
    ["x-github-delivery", "x-gitea-delivery", "x-gogs-delivery", "idempotency-key", "x-request-uuid", "x-request-id"];

/// What a genuine request asks for. Refused: it makes no sense.
pub fn asked<R: Read>(config: &Config, request: &Request<R>, body: &[u8]) -> Result<Asked, Refusal> {
    let nothing = |why: String| Ok(Asked::Nothing(format!("nothing to do: {why}")));
    match EVENTS.iter().find_map(|field| request.field(field)) {
        Some(event) if PUSHES.contains(&event) => {}
        Some(event) if PINGS.contains(&event) => return Ok(Asked::Nothing("pong".to_owned())),
        Some(other) => return nothing(format!("the event is {}, not push", plain(other))),
        None => return Err(Refusal::new(400, "no event is named")),
    }
    let mut payload = payload(request.field("content-type").unwrap_or_default(), body)?;
    let repository = payload.repository().ok_or_else(|| Refusal::new(400, "the payload names no repository"))?;
    let wanted = config.push.as_ref().and_then(|push| push.repository.as_deref()).unwrap_or_default();
    if !repository.eq_ignore_ascii_case(wanted) {
        let renamed = "if it was renamed, set repository in [push] and run install";
        return nothing(format!("the repository is {}, not {wanted}; {renamed}", plain(&repository)));
    }
    let who = payload.who().map(|who| plain(&who));
    let changes = payload.changes().ok_or_else(|| Refusal::new(400, "the payload names no branch"))?;
    let reference = config.pushed_branch();
    let is_wanted = |change: &&Change| match reference {
        LATEST_TAG => change.reference.starts_with("refs/tags/"),
        branch => change.reference.strip_prefix("refs/heads/") == Some(branch),
    };
    let mut wanted = changes.iter().filter(is_wanted).peekable();
    if wanted.peek().is_none() {
        let pushed = changes.first().map_or("nothing", |change| change.reference.as_str());
        return nothing(format!("{} was pushed to, not {reference}", plain(pushed)));
    }
    let Some(after) = wanted.find_map(|change| change.after.as_deref()) else {
        let deleted = changes.iter().find(is_wanted).map_or(reference, |change| change.reference.as_str());
        return nothing(format!("{} was deleted", plain(deleted)));
    };
    Ok(Asked::Deploy(Push {
        who,
        commit: plain(after).chars().take(12).collect(),
        delivery: DELIVERIES.iter().find_map(|field| request.field(field)).map(plain).filter(|id| !id.is_empty()),
    }))
}

/// The payload in a body: the body itself, or a field of a form.
fn payload(content_type: &str, body: &[u8]) -> Result<Payload, Refusal> {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let parsed = match kind.as_str() {
        "application/json" => serde_json::from_slice(body),
        "application/x-www-form-urlencoded" => {
            let mut fields = form_urlencoded::parse(body).filter(|(name, _)| name == FORM_FIELD);
            let Some((_, json)) = fields.next() else {
                return Err(Refusal::new(400, "the form has no payload"));
            };
            serde_json::from_str(&json)
        }
        _ => return Err(Refusal::new(415, "the body is neither JSON nor a form")),
    };
    parsed.map_err(|error| Refusal::new(400, format!("the payload makes no sense: {}", plain(&error.to_string()))))
}

/// A text of somebody else's as it may go into a record: in one short line.
fn plain(text: &str) -> String {
    text.chars().filter(|character| !is_harmful(*character)).take(LONGEST_NAME).collect()
}
