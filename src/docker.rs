//! Docker's engine, asked over its socket in the words of its API.
//!
//! The engine is where containers and images are known; what it says is believed each time it is asked. Fields and status
//! codes are those of Docker Engine API v1.41 (Docker 20.10), which later engines still answer.
#![deny(clippy::arithmetic_side_effects)]

mod container;
mod log;
mod socket;

pub use container::{Container, Health, KILLED, is_reached_by_loopback};
pub use log::{Line, Lines};

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, bail};
use nix::unistd::Uid;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use ureq::http::{Method, StatusCode};
use ureq::{Agent, Body};

use crate::account::Account;
use crate::deadline::Deadline;
use crate::outcome::{Exit, failure, quote_first, timed_out};
use crate::output::span;

/// Where the engine listens unless somebody says otherwise.
const USUAL_SOCKET: &str = "/var/run/docker.sock";
/// How long the engine may take for an answer that it has at hand.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it may take to remove what has many files.
const REMOVAL: Duration = Duration::from_secs(300);
/// How often it is asked whether something is gone.
const POLL: Duration = Duration::from_millis(50);
/// Docker gives a container this long to end when nobody said how long, in seconds.
const USUAL_GRACE: i64 = 10;
/// What a longer time is taken for, or one without end, in seconds: a century. The clock takes no more than some.
const LONGEST_GRACE: u64 = 100 * 365 * 86_400;
/// The longest line of the engine's own that is read.
const ANSWER_LIMIT: u64 = 64 * 1024 * 1024;

/// The engine.
#[derive(Clone, Debug)]
pub struct Engine {
    socket: PathBuf,
    agent: Agent,
}

/// An image that the engine has.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Image {
    /// Its id, `sha256:…`.
    pub id: String,
    /// The tags that name it, `user/app:v1`.
    #[serde(default, deserialize_with = "or_none")]
    pub repo_tags: Vec<String>,
    /// The names under which registries know it, `user/app@sha256:…`; none for what was built here.
    #[serde(default, deserialize_with = "or_none")]
    pub repo_digests: Vec<String>,
}

/// An end of a container's main process.
#[derive(Clone, Debug)]
pub struct End {
    /// When it was.
    pub at: SystemTime,
    /// How it ended, in words.
    pub how: String,
}

/// What an engine's list holds of a container.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
}

/// How the engine explains a refusal.
#[derive(Deserialize)]
struct Refusal {
    message: String,
}

impl Engine {
    /// The engine behind a socket; None: the usual one.
    pub fn at(socket: Option<&Path>) -> Engine {
        let socket = socket.unwrap_or(Path::new(USUAL_SOCKET));
        Engine { socket: socket.to_owned(), agent: socket::agent(socket) }
    }

    /// Where it is, as Docker's own programs want to be told.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Whether there is a socket at all.
    pub fn has_socket(&self) -> bool {
        self.socket.exists()
    }

    /// Fails when the engine does not answer, and says why.
    pub fn ping(&self) -> Result<()> {
        self.ask(Method::GET, "/_ping", &[], PATIENCE).map(drop)
    }

    /// All containers that have these labels, whether they run or not.
    pub fn containers(&self, labels: &[String]) -> Result<Vec<Container>> {
        let filters = json!({ "label": labels }).to_string();
        let listed: Vec<Listed> = self.read("/containers/json", &[("all", "true"), ("filters", &filters)])?;
        let looked = listed.iter().map(|one| self.container(&one.id));
        looked.filter_map(Result::transpose).collect()
    }

    /// A container by its id; None: there is none, or none any more.
    pub fn container(&self, id: &str) -> Result<Option<Container>> {
        self.find(&format!("/containers/{id}/json"))
    }

    /// Ends a container as its own configuration says: its stop signal, then SIGKILL after its grace period. What does not
    /// run, or is gone, is ended.
    pub fn stop(&self, container: &Container) -> Result<()> {
        let seconds = container.config.stop_timeout.unwrap_or(USUAL_GRACE);
        let grace = Duration::from_secs(u64::try_from(seconds).unwrap_or(LONGEST_GRACE).min(LONGEST_GRACE));
        let path = format!("/containers/{}/stop", container.id);
        let fine = [StatusCode::NOT_MODIFIED, StatusCode::NOT_FOUND];
        self.attempt(Method::POST, &path, &[], grace.saturating_add(PATIENCE), &fine)
    }

    /// Removes a container, which is killed if it runs. With it go, if `with_volumes`, those volumes that the engine itself
    /// made for it without a name.
    pub fn remove(&self, container: &Container, with_volumes: bool) -> Result<()> {
        let query = [("force", "true"), ("v", if with_volumes { "true" } else { "false" })];
        let path = format!("/containers/{}", container.id);
        let patience = Deadline::after(REMOVAL);
        loop {
            let (status, body) = self.response(Method::DELETE, &path, &query, REMOVAL)?;
            match status {
                StatusCode::NOT_FOUND => return Ok(()),
                // Somebody who was killed meanwhile has asked for it before, and it is under way.
                StatusCode::CONFLICT if patience.sleep(POLL) => {}
                status => return accepted(status, body).map(drop),
            }
        }
    }

    /// Removes a volume, unless a container uses it.
    pub fn remove_volume(&self, name: &str) -> Result<()> {
        let fine = [StatusCode::NOT_FOUND, StatusCode::CONFLICT];
        self.attempt(Method::DELETE, &format!("/volumes/{name}"), &[], REMOVAL, &fine)
    }

    /// What a container's cgroup holds in bytes, without the page cache that can be given back, as `docker stats` counts
    /// it; None: it does not run.
    pub fn memory(&self, container: &Container) -> Result<Option<u64>> {
        let path = format!("/containers/{}/stats", container.id);
        let stats: Value = self.read(&path, &[("stream", "false"), ("one-shot", "true")])?;
        let number = |path: &str| stats.pointer(path).and_then(Value::as_u64);
        let cache =
            number("/memory_stats/stats/total_inactive_file").or_else(|| number("/memory_stats/stats/inactive_file"));
        Ok(number("/memory_stats/usage").map(|usage| usage.saturating_sub(cache.unwrap_or(0))))
    }

    /// How often a container has ended since it was made, and how, as far as the engine remembers; oldest first.
    pub fn ends(&self, container: &Container) -> Result<Vec<End>> {
        let filters = json!({ "container": [container.id], "event": ["die", "oom"] }).to_string();
        let now = unix(SystemTime::now());
        let query = [("since", "0"), ("until", now.as_str()), ("filters", filters.as_str())];
        let body = self.ask(Method::GET, "/events", &query, PATIENCE)?;
        let lines = BufReader::new(body.into_reader()).lines().map_while(Result::ok);
        let (mut ends, mut out_of_memory) = (Vec::new(), false);
        for event in lines.filter_map(|line| serde_json::from_str::<Value>(&line).ok()) {
            if event.get("Action").is_some_and(|action| action == "oom") {
                out_of_memory = true;
                continue;
            }
            let code = event.pointer("/Actor/Attributes/exitCode").and_then(Value::as_str);
            let code = code.and_then(|code| code.parse().ok());
            let nanoseconds = event.get("timeNano").and_then(Value::as_u64).map(Duration::from_nanos);
            let at = nanoseconds.and_then(|since| UNIX_EPOCH.checked_add(since));
            if let (Some(code), Some(at)) = (code, at) {
                ends.push(End { at, how: container::exit_in_words(code, out_of_memory) });
            }
            out_of_memory = false;
        }
        Ok(ends)
    }

    /// What a container has printed, oldest first, none of it before `since`: its last `count` lines; None: all, however long
    /// that takes.
    pub fn printed(&self, container: &Container, count: Option<usize>, since: SystemTime) -> Result<Lines> {
        let patience = if count.is_some() { PATIENCE } else { Duration::MAX };
        let count = count.map_or_else(|| "all".to_owned(), |count| count.to_string());
        self.lines(container, &[("tail", &count), ("since", &unix(since))], patience)
    }

    /// What a container has printed from the moment `since` on, in RFC 3339, or else all; and what it goes on to print, until
    /// it ends.
    pub fn follow(&self, container: &Container, since: Option<&str>) -> Result<Lines> {
        let since = since.and_then(|time| humantime::parse_rfc3339(time).ok()).map(unix);
        let begin = since.map_or_else(|| ("tail", "all".to_owned()), |since| ("since", since));
        self.lines(container, &[("follow", "true"), (begin.0, &begin.1)], Duration::MAX)
    }

    /// None come of a container that has gone meanwhile, or is just going.
    fn lines(&self, container: &Container, query: &[(&str, &str)], patience: Duration) -> Result<Lines> {
        let path = format!("/containers/{}/logs", container.id);
        let all = [&[("stdout", "true"), ("stderr", "true"), ("timestamps", "true")], query].concat();
        let (status, body) = self.response(Method::GET, &path, &all, patience)?;
        Ok(match status {
            StatusCode::NOT_FOUND | StatusCode::CONFLICT => Lines::of(io::empty(), false),
            _ => Lines::of(accepted(status, body)?.into_reader(), container.config.tty),
        })
    }

    /// An image by its id, tag or digest; None: the engine does not have it.
    pub fn image(&self, reference: &str) -> Result<Option<Image>> {
        self.find(&format!("/images/{reference}/json"))
    }

    /// All images with a tag that fits the pattern, `user/app:v*`.
    pub fn images(&self, pattern: &str) -> Result<Vec<Image>> {
        let filters = json!({ "reference": [pattern] }).to_string();
        self.read("/images/json", &[("filters", &filters)])
    }

    /// Gives an image one more name.
    pub fn tag(&self, image: &str, repository: &str, tag: &str) -> Result<()> {
        let path = format!("/images/{image}/tag");
        self.ask(Method::POST, &path, &[("repo", repository), ("tag", tag)], PATIENCE).map(drop)
    }

    /// Takes a name from an image, and removes what no other name or container needs. False: a container needs it.
    pub fn untag(&self, reference: &str) -> Result<bool> {
        let (status, _) = self.response(Method::DELETE, &format!("/images/{reference}"), &[], REMOVAL)?;
        match status {
            StatusCode::CONFLICT => Ok(false),
            StatusCode::NOT_FOUND => Ok(true),
            status if status.is_success() => Ok(true),
            status => bail!("cannot remove image {reference}: Docker answers {status}"),
        }
    }

    fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>> {
        let (status, body) = self.response(Method::GET, path, &[], PATIENCE)?;
        match status {
            StatusCode::NOT_FOUND => Ok(None),
            _ => parse(accepted(status, body)?).map(Some),
        }
    }

    fn read<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T> {
        parse(self.ask(Method::GET, path, query, PATIENCE)?)
    }

    /// Does something after which all is well also when the engine answers with one of `fine`.
    fn attempt(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        patience: Duration,
        fine: &[StatusCode],
    ) -> Result<()> {
        let (status, body) = self.response(method, path, query, patience)?;
        if fine.contains(&status) { Ok(()) } else { accepted(status, body).map(drop) }
    }

    fn ask(&self, method: Method, path: &str, query: &[(&str, &str)], patience: Duration) -> Result<Body> {
        let (status, body) = self.response(method, path, query, patience)?;
        accepted(status, body)
    }

    fn response(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        patience: Duration,
    ) -> Result<(StatusCode, Body)> {
        let patience = (patience != Duration::MAX).then_some(patience);
        // The host is only what HTTP wants to have; an address spares the look-up of a name.
        let uri = format!("http://127.0.0.1{path}");
        let query = query.iter().copied();
        let agent = &self.agent;
        let answer = match method {
            Method::GET => agent.get(&uri).query_pairs(query).config().timeout_global(patience).build().call(),
            Method::DELETE => agent.delete(&uri).query_pairs(query).config().timeout_global(patience).build().call(),
            _ => agent.post(&uri).query_pairs(query).config().timeout_global(patience).build().send_empty(),
        };
        let answer = answer.map_err(|error| self.unreachable(&error, patience.unwrap_or_default()))?;
        let (parts, body) = answer.into_parts();
        Ok((parts.status, body))
    }

    /// Why the engine cannot be asked, and what to do about it.
    fn unreachable(&self, error: &ureq::Error, patience: Duration) -> anyhow::Error {
        let socket = self.socket.display();
        let reason = match error {
            ureq::Error::Timeout(_) => {
                return timed_out(format!("cannot reach Docker at {socket}: no answer within {}", span(patience)));
            }
            ureq::Error::Io(error) => match error.kind() {
                io::ErrorKind::NotFound => "there is no such socket; is Docker running?".to_owned(),
                io::ErrorKind::ConnectionRefused => "connection refused; is Docker running?".to_owned(),
                io::ErrorKind::PermissionDenied => {
                    let user = Account::of(Uid::effective(), nix::unistd::Gid::effective()).name;
                    let group = group_of(&self.socket).unwrap_or_else(|| "docker".to_owned());
                    format!("permission denied; `usermod -aG {group} {user}` lets {user} use it")
                }
                _ => error.to_string(),
            },
            other => other.to_string(),
        };
        failure(Exit::Failed, format!("cannot reach Docker at {socket}: {reason}"))
    }
}

/// The socket that a host such as `unix:///var/run/docker.sock` names. Err: what is wrong with it.
pub fn socket_of(host: &str) -> Result<PathBuf, String> {
    let path = host.strip_prefix("unix://").filter(|path| path.starts_with('/'));
    path.map(PathBuf::from)
        .ok_or_else(|| format!("expected unix:///PATH, for instances run on this machine, got {host:?}"))
}

/// A moment as the engine wants to be told it: seconds since 1970.
fn unix(moment: SystemTime) -> String {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:09}", since.as_secs(), since.subsec_nanos())
}

/// The name of the group that may use a socket; None: that cannot be told.
fn group_of(socket: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let meta = fs::metadata(socket).ok().filter(|meta| meta.file_type().is_socket())?;
    let groups = fs::read_to_string("/etc/group").ok()?;
    let gid = meta.gid().to_string();
    let line = groups.lines().find(|line| line.split(':').nth(2) == Some(&gid))?;
    line.split(':').next().filter(|name| *name != "root").map(str::to_owned)
}

/// The body of an answer, or the engine's reason for refusing.
fn accepted(status: StatusCode, mut body: Body) -> Result<Body> {
    if status.is_success() {
        return Ok(body);
    }
    let said = body.read_to_string().unwrap_or_default();
    let reason = serde_json::from_str(&said).map_or(said, |refusal: Refusal| refusal.message);
    Err(anyhow!("Docker refuses ({status}): {}", quote_first(reason.lines(), 1)))
}

fn parse<T: DeserializeOwned>(mut body: Body) -> Result<T> {
    let read = body.with_config().limit(ANSWER_LIMIT).reader();
    serde_json::from_reader(BufReader::new(read)).context("cannot understand Docker's answer")
}

/// A list that older and newer engines leave out, or say null for, when it is empty.
fn or_none<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}
