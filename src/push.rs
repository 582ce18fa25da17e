//! Pushes to the repository: whether a webhook's request tells of one that is to be deployed, and the queue in which it
//! waits for its deploy.
//!
//! GitHub and Gitea (Forgejo) sign the body with the secret, GitLab sends the secret itself. Nothing in a request is
//! believed, nor even parsed, before that is verified.
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

/// Whether a request has anything that could prove who sent it. One that has not need not be read.
fn is_signed<R: Read>(request: &Request<R>) -> bool {
    request.has("x-hub-signature-256") || request.has("x-gitea-signature") || request.has("x-gitlab-token")
}

/// Whether whoever sent this request knows the secret. Every proof that is there must hold.
pub fn is_genuine<R: Read>(secret: &Secret, request: &Request<R>, body: &[u8]) -> bool {
    let holds =
        |field: &str, holds: &dyn Fn(&str) -> bool| !request.has(field) || request.field(field).is_some_and(holds);
    let is_signature = |text: &str| secret.has_signed(body, text);
    is_signed(request)
        && holds("x-hub-signature-256", &|text| text.strip_prefix("sha256=").is_some_and(is_signature))
        && holds("x-gitea-signature", &is_signature)
        && holds("x-gitlab-token", &|text| secret.is(text))
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

/// What the hosts' payloads have in common, under the names that GitHub and Gitea, or GitLab, give it.
#[derive(Deserialize)]
struct Payload {
    #[serde(rename = "ref")]
    reference: String,
    after: String,
    #[serde(default)]
    deleted: bool,
    #[serde(default)]
    repository: Repository,
    #[serde(default)]
    project: Project,
    #[serde(default)]
    pusher: Pusher,
    #[serde(default)]
    user_username: Option<String>,
}

#[derive(Default, Deserialize)]
struct Repository {
    full_name: Option<String>,
}

#[derive(Default, Deserialize)]
struct Project {
    path_with_namespace: Option<String>,
}

#[derive(Default, Deserialize)]
struct Pusher {
    name: Option<String>,
    login: Option<String>,
}

/// What a genuine request asks for. Refused: it makes no sense.
pub fn asked<R: Read>(config: &Config, request: &Request<R>, body: &[u8]) -> Result<Asked, Refusal> {
    let nothing = |why: String| Ok(Asked::Nothing(why));
    let event = ["x-gitlab-event", "x-gitea-event", "x-github-event"].iter().find_map(|field| request.field(field));
    match event {
        Some("push" | "Push Hook" | "Tag Push Hook") => {}
        Some("ping") => return nothing("pong".to_owned()),
        Some(other) => return nothing(format!("nothing to do: the event is {}, not push", plain(other))),
        None => return Err(Refusal::new(400, "no event is named")),
    }
    let payload = payload(request.field("content-type").unwrap_or_default(), body)?;
    let repository = payload.repository.full_name.or(payload.project.path_with_namespace);
    let repository = repository.ok_or_else(|| Refusal::new(400, "the payload names no repository"))?;
    let wanted = config.push.as_ref().and_then(|push| push.repository.as_deref()).unwrap_or_default();
    if !repository.eq_ignore_ascii_case(wanted) {
        return nothing(format!("nothing to do: the repository is {}, not {wanted}", plain(&repository)));
    }
    let reference = config.pushed_branch();
    let is_wanted = match reference {
        LATEST_TAG => payload.reference.starts_with("refs/tags/"),
        branch => payload.reference.strip_prefix("refs/heads/") == Some(branch),
    };
    if !is_wanted {
        return nothing(format!("nothing to do: {} was pushed to, not {reference}", plain(&payload.reference)));
    }
    if payload.deleted || payload.after.chars().all(|digit| digit == NO_COMMIT) {
        return nothing(format!("nothing to do: {} was deleted", plain(&payload.reference)));
    }
    // Not GitLab's X-Gitlab-Event-UUID: pushes of a bot that a webhook has woken have that one's.
    let deliveries = ["x-github-delivery", "x-gitea-delivery", "idempotency-key"];
    Ok(Asked::Deploy(Push {
        who: payload.pusher.name.or(payload.pusher.login).or(payload.user_username).map(|who| plain(&who)),
        commit: plain(&payload.after).chars().take(12).collect(),
        delivery: deliveries.iter().find_map(|field| request.field(field)).map(plain).filter(|id| !id.is_empty()),
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
