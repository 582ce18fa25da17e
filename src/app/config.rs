//! config.toml: every key, its type, its default, and what is checked about it. cutover-config(5) is the same for people.

mod accepted;
mod address;
mod check;
mod defaults;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use regex::bytes::Regex;
use serde::Deserialize;

use super::names::{Instance, Member, Port};
use crate::bounded::{self, Links};
use crate::health::{Expectation, StatusSet};
use crate::outcome::usage;

pub use accepted::{OPEN_FILES, roots_part};
pub use address::{Address, Check};
pub use check::port_of_listen;

// The attributes below name them.
use defaults::*;
use values::*;

/// The ref that stands for the tag with the highest version.
pub const LATEST_TAG: &str = "latest-tag";

/// What a configuration needs where somebody else than root installs: an nginx of one's own, on a port that needs no
/// privilege.
pub const WITHOUT_ROOT: &str = "[nginx]\nown = true\nlisten = [\"8080\"]\n";

/// The whole configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The app's name; it goes into nginx's configuration and file names.
    #[serde(deserialize_with = "app_name")]
    pub app: String,
    /// What runs the instances; None: Compose where it is configured, else systemd where it runs and root installs, else
    /// nobody but supervise.
    pub runner: Option<Runner>,
    /// The two instances, in the file's order.
    #[serde(default = "default_instances", deserialize_with = "instances")]
    pub instances: [Instance; 2],
    /// The instances as containers; None: they are processes.
    pub compose: Option<Compose>,
    /// Where releases come from. Not used by the compose runner, and then empty where it is missing.
    #[serde(default)]
    pub source: Source,
    /// How a release is built.
    #[serde(default)]
    pub build: Build,
    /// How an instance is run. Not used by the compose runner, and then empty where it is missing.
    #[serde(default)]
    pub run: Run,
    /// The programs that run beside the enabled instance and serve no HTTP.
    #[serde(rename = "worker", default, deserialize_with = "workers")]
    pub workers: Vec<Worker>,
    /// When an instance is healthy.
    #[serde(default)]
    pub health: Health,
    /// nginx's side.
    #[serde(default)]
    pub nginx: Nginx,
    /// How a deploy goes.
    #[serde(default)]
    pub deploy: Deploy,
    /// The user's hooks.
    #[serde(default)]
    pub hooks: Hooks,
    /// Deploys that a push asks for; None: nobody does.
    pub push: Option<Push>,
    /// What it was parsed from; empty for one that was put together.
    #[serde(skip)]
    pub text: String,
}

/// What runs the instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runner {
    /// `start-instance` detaches `supervise`.
    Direct,
    /// A unit of systemd's runs `supervise`.
    Systemd,
    /// Docker runs a container, as Compose was told.
    Compose,
}

/// `[compose]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compose {
    /// The Compose files, of which a later one adds to those before it; or the directory in which it has one of Compose's own names.
    /// In the home or absolute.
    #[serde(default = "default_compose_file", deserialize_with = "files")]
    pub file: Each<Vec<PathBuf>>,
    /// The service that an instance is; None: the one of its name.
    #[serde(default, deserialize_with = "services")]
    pub service: Option<Each<String>>,
    /// The project that the service is in; None: as [`Compose::project_of`] has it.
    #[serde(default, deserialize_with = "projects")]
    pub project: Option<Each<String>>,
    /// What Compose reads instead of `.env`, in the home or absolute; None: `.env`.
    #[serde(default, deserialize_with = "env_files")]
    pub env_file: Option<Each<PathBuf>>,
    /// The variable that stands for the image in that file; None: there is one for the tag.
    #[serde(default, deserialize_with = "optional_variable_name")]
    pub image_variable: Option<String>,
    /// The variable that stands for the image's tag; None: there is one for the whole image.
    #[serde(default, deserialize_with = "optional_variable_name")]
    pub tag_variable: Option<String>,
    /// The variable that is given the instance's port; None: none is.
    #[serde(default, deserialize_with = "optional_variable_name")]
    pub port_variable: Option<String>,
    /// The variable that is given the instance's name; None: none is.
    #[serde(default, deserialize_with = "optional_variable_name")]
    pub instance_variable: Option<String>,
    /// The image, without a tag.
    #[serde(deserialize_with = "image_name")]
    pub image: String,
    /// The tag, or the digest, that is deployed when none is named.
    #[serde(rename = "ref", default = "default_tag", deserialize_with = "argument")]
    pub reference: String,
    /// When the registry is asked.
    #[serde(default)]
    pub pull: Pull,
    /// The socket on which Docker listens, written `unix:///run/user/1000/docker.sock`; None: where DOCKER_HOST says, else
    /// the usual place.
    #[serde(default, deserialize_with = "docker_host")]
    pub docker_host: Option<PathBuf>,
}

/// The keys of `[compose]` that say where an image comes from, and nothing of how a container of it is run.
pub const OF_IMAGES: [&str; 4] = ["image", "ref", "pull", "docker_host"];

/// A value for both instances, or one for each by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Each<T> {
    /// The same for both.
    Both(T),
    /// For each its own.
    Own(BTreeMap<String, T>),
}

impl<T> Each<T> {
    /// The value for an instance; None: there is none, as for one that was renamed.
    pub fn of(&self, instance: &Instance) -> Option<&T> {
        match self {
            Each::Both(value) => Some(value),
            Each::Own(values) => values.get(instance.name()),
        }
    }
}

impl Compose {
    /// The service that an instance is.
    pub fn service_of<'a>(&'a self, instance: &'a Instance) -> &'a str {
        self.service.as_ref().and_then(|service| service.of(instance)).map_or(instance.name(), String::as_str)
    }

    /// The project of an instance of the app. Two instances that are one service need one each: it is called after both the app
    /// and the instance then, unless configured. None: it is Compose's to say.
    pub fn project_of(&self, app: &str, instances: &[Instance; 2], instance: &Instance) -> Option<String> {
        let configured = self.project.as_ref().and_then(|project| project.of(instance)).cloned();
        let [first, second] = instances;
        let are_one = self.service_of(first) == self.service_of(second);
        configured.or_else(|| are_one.then(|| format!("{app}-{instance}").to_ascii_lowercase()))
    }

    /// The key and the name of the variable by which an image goes in.
    pub fn variable_of_image(&self) -> (&'static str, &str) {
        self.variables().next().unwrap_or_default()
    }

    /// How a service has its image in the Compose file.
    pub fn image_as_written(&self) -> String {
        match self.variable_of_image() {
            ("tag_variable", variable) => format!("`image: {}:${{{variable}}}`", self.image),
            (_, variable) => format!("`image: ${{{variable}}}`"),
        }
    }

    /// The variables that Compose is given, by their keys.
    pub fn variables(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let keys = [
            ("image_variable", &self.image_variable),
            ("tag_variable", &self.tag_variable),
            ("port_variable", &self.port_variable),
            ("instance_variable", &self.instance_variable),
        ];
        keys.into_iter().filter_map(|(key, name)| Some((key, name.as_deref()?)))
    }

    /// Whether containers are run and found in the same way by both.
    pub fn is_run_like(&self, other: &Compose) -> bool {
        self.clone().run_as(other.clone()) == *self
    }

    /// These settings with what recorded ones say of how a container is run.
    fn run_as(self, recorded: Compose) -> Compose {
        let Compose { image, reference, pull, docker_host, .. } = self;
        Compose { image, reference, pull, docker_host, ..recorded }
    }
}

/// When the registry is asked for an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pull {
    /// For each deploy: a tag may have moved.
    #[default]
    Always,
    /// Only for an image that the machine does not have.
    Missing,
    /// Not at all: images are built or loaded here.
    Never,
    /// Not at all: Compose builds the image for each deploy, as the service's `build` says.
    Build,
}

/// `[source]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The repository: a URL or a path.
    #[serde(deserialize_with = "source_address")]
    pub git: String,
    /// Branch, tag, commit, or `latest-tag`.
    #[serde(rename = "ref", default = "default_ref", deserialize_with = "argument")]
    pub reference: String,
}

/// `[build]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Build {
    /// Run by `sh -c` in the release's directory; None: nothing to build.
    #[serde(deserialize_with = "optional_command")]
    pub command: Option<String>,
    /// How long a build may take.
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
}

/// `[run]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// Run by `sh -c` in the release's directory.
    #[serde(deserialize_with = "not_empty")]
    pub command: String,
    /// The app's secrets, in the home or absolute. None: `env`, which then may be missing.
    #[serde(default, deserialize_with = "optional_path")]
    pub env_file: Option<PathBuf>,
    /// What asks the app to end.
    #[serde(default = "default_stop_signal", deserialize_with = "signal")]
    pub stop_signal: nix::sys::signal::Signal,
    /// Who gets it.
    #[serde(default)]
    pub stop_signal_to: StopSignalTo,
    /// How long it may take to end before it is killed.
    #[serde(default = "default_stop_timeout", deserialize_with = "duration")]
    pub stop_timeout: Duration,
    /// How many processes serve together as an instance, each on a port of its own.
    #[serde(default, deserialize_with = "processes")]
    pub processes: Processes,
    /// How much memory a process with all its children may hold, in bytes, before another takes its place; None: any.
    #[serde(default, deserialize_with = "size")]
    pub max_memory: Option<u64>,
    /// How many files a process may have open; None: as many as the machine lets it.
    #[serde(default, deserialize_with = "open_files")]
    pub open_files: Option<u64>,
    /// How readily the processes give way to others, from -20 to 19; None: as usual.
    #[serde(default, deserialize_with = "nice")]
    pub nice: Option<i32>,
}

/// Which processes of a program are asked to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StopSignalTo {
    /// All of them.
    #[default]
    Group,
    /// The first one, which has the others end.
    Main,
}

/// How many processes an instance has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processes {
    /// So many.
    Number(usize),
    /// One for each processor that the machine has online.
    Max,
}

impl Processes {
    /// The most that can be asked for.
    pub const MOST: i64 = 64;

    /// The number.
    pub fn count(self) -> usize {
        match self {
            Processes::Number(number) => number,
            Processes::Max => cores().min(Processes::MOST.unsigned_abs() as usize),
        }
    }
}

impl fmt::Display for Processes {
    /// As the configuration has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Processes::Number(number) => number.fmt(f),
            Processes::Max => f.write_str("max"),
        }
    }
}

impl Default for Processes {
    fn default() -> Processes {
        Processes::Number(1)
    }
}

/// How many processors the machine lets us use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// `[[worker]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    /// What it is called; no other worker is called the same.
    #[serde(deserialize_with = "worker_name")]
    pub name: String,
    /// Run by `sh -c` in the release's directory.
    #[serde(deserialize_with = "not_empty")]
    pub command: String,
    /// Follow the command as they are: no shell reads them.
    #[serde(default, deserialize_with = "arguments")]
    pub args: Vec<String>,
    /// How many of it run.
    #[serde(default = "default_worker_count", deserialize_with = "worker_count")]
    pub count: usize,
    /// Whether the new release's begin before the old one's have ended.
    #[serde(default)]
    pub overlap: bool,
    /// Who is asked to end; None: as `[run]` says.
    #[serde(default)]
    pub stop_signal_to: Option<StopSignalTo>,
    /// How much memory one with all its children may hold, in bytes, before it is started again; None: any.
    #[serde(default, deserialize_with = "size")]
    pub max_memory: Option<u64>,
}

/// `[health]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// The path that is asked for; empty: it is enough that the port accepts a connection.
    #[serde(deserialize_with = "health_path")]
    path: String,
    #[serde(deserialize_with = "status_set")]
    status: StatusSet,
    #[serde(deserialize_with = "pattern")]
    body: Option<Regex>,
    /// What the request says in its `Host`; None: as [`Config::expectation`] has it.
    #[serde(deserialize_with = "host")]
    host: Option<String>,
    /// Further header fields of the request, their names in lower case.
    #[serde(deserialize_with = "headers")]
    headers: BTreeMap<String, String>,
    /// How long an instance may take from its start until it is healthy.
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
    /// After how long without a healthy answer a process is started again; None: never.
    #[serde(deserialize_with = "restart_after")]
    pub restart_after: Option<Duration>,
}

/// Whether a name of nginx's `server_name` is one that clients can ask for, and no pattern.
fn is_host_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
}

/// `[nginx]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Nginx {
    /// What the app's server block listens on, as nginx's `listen` takes it; none: the server block is the user's.
    #[serde(deserialize_with = "nginx_words")]
    pub listen: Vec<String>,
    /// As nginx's `server_name` takes it.
    #[serde(deserialize_with = "nginx_word")]
    pub server_name: String,
    /// The loopback port on which nginx tells which instance it uses.
    pub status_port: Port,
    /// Whether the standby answers when the enabled instance does not.
    pub failover: bool,
    /// Whether each client, by its address, gets one of several processes as long as that one answers.
    pub sticky: bool,
    /// How many idle connections to an instance each of nginx's workers keeps; 0: none.
    #[serde(deserialize_with = "keepalive")]
    pub keepalive: u16,
    /// How long it keeps one.
    #[serde(deserialize_with = "keepalive_timeout")]
    pub keepalive_timeout: Duration,
    /// How long nginx waits until the app takes the next part of a request.
    #[serde(deserialize_with = "nginx_time")]
    pub send_timeout: Duration,
    /// How long it waits until the app gives the next part of an answer.
    #[serde(deserialize_with = "nginx_time")]
    pub read_timeout: Duration,
    /// The proxies in front, addresses or networks, whose word on the client counts.
    #[serde(deserialize_with = "networks")]
    pub trusted_proxies: Vec<String>,
    /// Where nginx's http block includes `*.conf` from.
    #[serde(deserialize_with = "path")]
    pub conf_dir: PathBuf,
    /// Whether the app's user runs an nginx of its own.
    pub own: bool,
    /// Where clients reach the app, for the question whether they do.
    #[serde(deserialize_with = "check")]
    pub check: Check,
}

/// `[deploy]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Deploy {
    /// How many releases are kept, besides those that instances use.
    pub keep_releases: usize,
    /// What becomes of the old instance.
    pub standby: Standby,
    /// How long requests in flight may take before an instance is stopped all the same.
    #[serde(deserialize_with = "duration")]
    pub drain_timeout: Duration,
    /// How long the new instance is watched after the cutover.
    #[serde(deserialize_with = "duration")]
    pub soak: Duration,
    /// How long a whole deploy may take.
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
}

/// What becomes of the old instance after a deploy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standby {
    /// It keeps running: it answers if the enabled one crashes, and a rollback takes milliseconds.
    Keep,
    /// It is drained and stopped.
    Stop,
}

/// `[hooks]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hooks {
    /// How long each hook may take.
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
}

/// `[push]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Push {
    /// The repository whose pushes are heard of, as its host calls it: `owner/name`; None: no webhook is served.
    #[serde(default, deserialize_with = "repository")]
    pub repository: Option<String>,
    /// The branch that is deployed when it was pushed to; None: what `ref` says in `[source]`.
    #[serde(default, deserialize_with = "optional_argument")]
    branch: Option<String>,
    /// Holds the secret that the repository's host signs with, in the home or absolute.
    #[serde(default = "default_secret_file", deserialize_with = "path")]
    pub secret_file: PathBuf,
    /// The loopback port to which nginx passes the webhook's requests.
    #[serde(default = "default_push_port")]
    pub port: Port,
    /// How often the repository is asked whether the branch has moved; None: never.
    #[serde(default, deserialize_with = "interval")]
    pub poll: Option<Duration>,
}

impl Config {
    /// What a healthy answer is like, and how it is asked for: as nginx asks for a client of the site. The site's name is the first
    /// in `server_name` that is no pattern, else the one in `check`; where there is neither, the request names its own address.
    pub fn expectation(&self) -> Expectation {
        let Health { path, status, body, host, headers, .. } = &self.health;
        let site = match &self.nginx.check {
            Check::At(address) => Some(address),
            Check::Listen | Check::Off => None,
        };
        let named = || self.nginx.server_name.split_whitespace().find(|name| is_host_name(name)).map(str::to_owned);
        let host = host.clone().or_else(named).or_else(|| site.map(Address::authority));
        let listens_with_tls =
            self.nginx.listen.iter().any(|listen| listen.split_whitespace().any(|word| word == "ssl"));
        let scheme = if listens_with_tls || site.is_some_and(|site| site.is_tls) { "https" } else { "http" };
        let mut fields = headers.clone();
        fields.extend(host.map(|host| ("host".to_owned(), host)));
        fields.entry("x-forwarded-proto".to_owned()).or_insert_with(|| scheme.to_owned());
        Expectation { path: path.clone(), fields, status: status.clone(), body: body.clone() }
    }

    /// Reads and checks a configuration file. Every error names the file and the line (exit 2).
    pub fn read(path: &Path) -> Result<Config> {
        let text = bounded::read_text(path, Links::Refused, bounded::LARGE).map_err(|error| {
            usage(format!("cannot read configuration {}: {error}; install --config FILE lays it", path.display()))
        })?;
        Config::parse(&text).map_err(|mistake| usage(format!("cannot use {}: {mistake}", path.display())))
    }

    /// Parses and checks a configuration. The error names the line.
    pub fn parse(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|error| check::describe(text, &error))?;
        config.check(text)?;
        Ok(Config { text: text.to_owned(), ..config })
    }

    /// Parses what is recorded with an instance: a configuration without the address of its source.
    pub fn recorded(text: &str) -> Result<Config, String> {
        let mut table: toml::Table = text.parse().map_err(|error| check::describe(text, &error))?;
        let source = table.entry("source").or_insert_with(|| toml::Table::new().into());
        source.as_table_mut().map(|source| source.insert("git".to_owned(), accepted::PLACEHOLDER.into()));
        let config: Config = table.try_into().map_err(|error| check::describe("", &error))?;
        config.check(text)?;
        Ok(Config { text: text.to_owned(), ..config })
    }

    /// This configuration with the settings by which an instance is run: they belong to its release.
    pub fn with_settings(self, recorded: Config) -> Config {
        let Config { run, health, workers, text, compose: run_as, .. } = recorded;
        let compose = match (self.compose, run_as) {
            (Some(own), Some(run_as)) => Some(own.run_as(run_as)),
            (own, _) => own,
        };
        Config { run, health, workers, text, compose, ..self }
    }

    /// Whether the instances are containers.
    pub fn runs_containers(&self) -> bool {
        matches!((self.runner, &self.compose), (Some(Runner::Compose) | None, Some(_)))
    }

    /// How much memory all of an instance's programs may hold, in bytes; None: some may hold any.
    pub fn memory(&self) -> Option<u64> {
        let processes = self.run.max_memory?.saturating_mul(self.slots() as u64);
        self.workers.iter().try_fold(processes, |sum, worker| {
            Some(sum.saturating_add(worker.max_memory?.saturating_mul(worker.count as u64)))
        })
    }

    /// How many processes an instance has: one where it is a container.
    pub fn processes(&self) -> usize {
        if self.runs_containers() { 1 } else { self.run.processes.count() }
    }

    /// How many ports each instance has: one for each process, and one where the next process begins that takes another's
    /// place.
    pub fn slots(&self) -> usize {
        self.processes() + usize::from(self.run.max_memory.is_some())
    }

    /// What the programs are called that run as an instance: `0`, `mail.0`.
    pub fn programs(&self) -> Vec<String> {
        let processes = (0..self.processes()).map(|index| Member::Process { index, slot: index });
        let of_worker = |worker: &Worker| {
            let name = worker.name.clone();
            (0..worker.count).map(move |index| Member::Worker { name: name.clone(), index })
        };
        processes.chain(self.workers.iter().flat_map(of_worker)).map(|member| member.to_string()).collect()
    }

    /// What a webhook may ask for; None: none is served.
    pub fn webhook(&self) -> Option<&Push> {
        self.push.as_ref().filter(|push| push.repository.is_some())
    }

    /// How often the repository is asked; None: never.
    pub fn poll(&self) -> Option<Duration> {
        self.push.as_ref().and_then(|push| push.poll)
    }

    /// What a push is to be to: a branch, or any tag when that is `latest-tag`.
    pub fn pushed_branch(&self) -> &str {
        let named = self.push.as_ref().and_then(|push| push.branch.as_deref());
        let configured = Some(self.source.reference.as_str()).filter(|reference| !reference.is_empty());
        named.or(configured).unwrap_or(DEFAULT_REF)
    }
}
