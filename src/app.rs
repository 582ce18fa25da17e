//! The app as it is configured: its home, its two instances, every name and path. Parsed and checked once; no other
//! module joins a path inside the home or reads the configuration.

pub mod config;
pub mod environment;
mod laid;
mod names;
mod record;
mod settings;
mod turn;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Uid};

use crate::account::Account;
use crate::outcome::usage;
use crate::trust;

pub use config::{Config, Runner};
pub use laid::{laid, laid_text};
pub use names::{Instance, Member, Port, ReleaseId};
pub use record::Record;
pub use settings::{SETTINGS, Saved};
pub use turn::{Activity, CLOSED, Doing, Turn, WayBack};

/// Where a root installation keeps what nginx looks at: homes are often closed to nginx's workers.
pub const SYSTEM_STATE: &str = "/var/lib/cutover";

/// Where an administrator's units lie.
const SYSTEM_UNITS: &str = "/etc/systemd/system";
/// Where packages and administrators put parts of sudo's configuration.
const SYSTEM_SUDOERS: &str = "/etc/sudoers.d";

/// The file that says in a home that it is one.
const MARK: &str = ".cutover";
/// What each file of root's says by which it is known as laid by `install`.
pub const LAID: &str = "Laid by cutover's install";

/// The option that every tool takes.
#[derive(Args, Clone, Debug)]
pub struct Home {
    /// The app's home [default: $CUTOVER_HOME, else the home this tool lies in]
    #[arg(long = "home", value_name = "DIR")]
    pub path: Option<PathBuf>,
}

/// The option of every tool that changes something.
#[derive(Args, Clone, Copy, Debug)]
pub struct Wait {
    /// Wait for another deploy to end instead of giving up (exit 75)
    #[arg(long)]
    pub wait: bool,
}

/// The app: its configuration and its places.
#[derive(Clone, Debug)]
pub struct App {
    /// The checked configuration.
    pub config: Config,
    /// The account that owns the home, and runs the app.
    pub owner: Account,
    /// Who called, in words, for the record: the account, and behind sudo the person.
    pub caller: String,
    /// Why config.toml cannot be used, and what is recorded with the instances counts instead; None: it can.
    pub complaint: Option<String>,
    /// What config.toml says otherwise than what `install` has laid, which counts, in words; None: nothing.
    pub unlaid: Option<String>,
    home: PathBuf,
    state: PathBuf,
}

impl App {
    /// Finds the home, becomes its owner when called by root, and reads the configuration.
    ///
    /// Root becomes the user that its own record of the app names, or where there is none the owner of the directory; it
    /// stays root only for a home that nobody else can exchange or write into. Else it is refused (exit 2).
    pub fn open(home: &Home) -> Result<App> {
        App::opened(home, |home| Ok((Config::read(&home.join("config.toml"))?, None)))
    }

    /// [`App::open`] for what goes by the settings that are recorded with the instances: where config.toml cannot be used, it
    /// goes by them alone, and [`App::complaint`] says why.
    pub fn open_as_run(home: &Home) -> Result<App> {
        App::opened(home, |home| {
            let is_enabled = |config: &Config, instance: &Instance| {
                let enabled = fs::read_link(state(home, config, false).join("enabled"));
                enabled.is_ok_and(|enabled| enabled.as_os_str() == instance.name())
            };
            let unusable = match Config::read(&home.join("config.toml")) {
                Ok(config) => return Ok((config, None)),
                Err(unusable) => unusable,
            };
            let recorded = settings::recorded(home, is_enabled).ok_or_else(|| usage(format!("{unusable:#}")))?;
            Ok((recorded, Some(format!("{unusable:#}; going by what is recorded with the instances"))))
        })
    }

    fn opened(home: &Home, read: impl FnOnce(&Path) -> Result<(Config, Option<String>)>) -> Result<App> {
        let home = find_home(home)?;
        let owner = if Uid::effective().is_root() { owner_for_root(&home)? } else { Account::owning(&home)? };
        let caller = caller(&owner);
        owner.assume()?;
        umask(Mode::from_bits_truncate(0o027));
        let (config, complaint) = read(&home)?;
        let laid = laid(&home);
        let unlaid = laid.as_ref().map(|laid| config.unlaid(laid)).filter(|unlaid| !unlaid.is_empty());
        let unlaid = unlaid.map(|unlaid| format!("install has not laid yet: {}", unlaid.join("; ")));
        let config = laid.iter().fold(config, Config::with_laid);
        let state = state(&home, &config, false);
        Ok(App { config, owner, caller, complaint, unlaid, home, state })
    }

    /// The app that `install` is about to lay out.
    pub fn planned(home: PathBuf, owner: Account, config: Config) -> App {
        let state = state(&home, &config, Uid::effective().is_root() && !owner.uid.is_root());
        App { config, caller: caller(&owner), complaint: None, unlaid: None, owner, home, state }
    }

    /// The home itself.
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// What a push deploys: the branch that was pushed to, or the tag of the image that is made of it elsewhere.
    pub fn pushed_reference(&self) -> String {
        match (self.runner(), &self.config.compose) {
            (Runner::Compose, Some(compose)) => compose.reference.clone(),
            _ => self.config.pushed_branch().to_owned(),
        }
    }

    /// What runs the instances: as the configuration says, else systemd where `install` has laid its unit.
    pub fn runner(&self) -> Runner {
        match self.config.runner {
            _ if self.config.runs_containers() => Runner::Compose,
            Some(runner) => runner,
            None if self.has_unit() => Runner::Systemd,
            None => Runner::Direct,
        }
    }

    /// Whether systemd has a unit for this app's instances; one of another app's, or of somebody's own, is none.
    pub fn has_unit(&self) -> bool {
        self.is_laid_for_us(&self.unit_file())
    }

    /// Whether a file is one that `install` has laid for this home.
    pub fn is_laid_for_us(&self, unit: &Path) -> bool {
        let home = self.home.display().to_string().replace('%', "%%");
        let is_ours = |text: &str| {
            let parts: Vec<&str> = text.split(&home).collect();
            let mut places = parts.iter().zip(parts.iter().skip(1));
            places.any(|(before, after)| before.ends_with([' ', '=']) && after.starts_with([' ', '/']))
        };
        fs::read_to_string(unit).is_ok_and(|text| text.contains(LAID) && is_ours(&text))
    }

    /// The app's name.
    pub fn name(&self) -> &str {
        &self.config.app
    }

    /// Where the tools lie.
    pub fn bin(&self) -> PathBuf {
        self.home.join("bin")
    }

    /// Says in a home that it is one, and of which app.
    pub fn mark(&self) -> PathBuf {
        self.home.join(MARK)
    }

    /// Whether a text says that `install` has laid it for this app. Server blocks of version 0.1.0 say it in other words.
    pub fn is_marked(&self, text: &str) -> bool {
        let name = self.name();
        let marks = text.split("aid by cutover's install for ").skip(1);
        let ends_there = |rest: &str| !rest.starts_with(|next: char| next.is_ascii_alphanumeric() || next == '-');
        let is_ours = marks.filter_map(|behind| behind.strip_prefix(name)).any(ends_there);
        is_ours || text.contains(&format!("# A server for {name}, laid by cutover's install."))
    }

    /// The configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.home.join("config.toml")
    }

    /// The app's secrets.
    pub fn env_file(&self) -> PathBuf {
        self.home.join(self.config.run.env_file.as_deref().unwrap_or(Path::new("env")))
    }

    /// The bare mirror of the source.
    pub fn mirror(&self) -> PathBuf {
        self.home.join("repo.git")
    }

    /// The images that deploys have pulled, a line each with the reference and the id: what may be removed again.
    pub fn pulled(&self) -> PathBuf {
        self.home.join("pulled")
    }

    /// Says, in the directory of a release that is an image, which one.
    pub const IMAGE_FILE: &str = "image.json";

    /// Where the releases lie.
    pub fn releases(&self) -> PathBuf {
        self.home.join("releases")
    }

    /// A release's directory.
    pub fn release(&self, id: &ReleaseId) -> PathBuf {
        self.releases().join(id.as_str())
    }

    /// The directory of the instances' links.
    pub fn instances(&self) -> PathBuf {
        self.home.join(settings::INSTANCES)
    }

    /// What a directory held that somebody works in, until a release has it. It lies with the releases, for it becomes one by
    /// a rename.
    pub fn snapshot(&self) -> PathBuf {
        self.releases().join(".snapshot")
    }

    /// Where the tools write: nobody's files but the app's lie there.
    pub fn own_places(&self) -> [PathBuf; 2] {
        [self.home.clone(), self.state()]
    }

    /// The link that says which release an instance has.
    pub fn instance_link(&self, instance: &Instance) -> PathBuf {
        self.instances().join(instance.name())
    }

    /// Executables of the user's.
    pub fn hooks(&self) -> PathBuf {
        self.home.join("hooks")
    }

    /// Holds the secret that webhooks are signed with.
    pub fn secret_file(&self, push: &config::Push) -> PathBuf {
        self.home.join(&push.secret_file)
    }

    /// Where pushes wait for their deploy.
    pub fn queue(&self) -> PathBuf {
        self.home.join("queue")
    }

    /// Is there for as long as a push waits for its deploy.
    pub fn queued(&self) -> PathBuf {
        self.queue().join("push")
    }

    /// The deliveries of the last pushes, by which one that is sent again is known.
    pub fn deliveries(&self) -> PathBuf {
        self.queue().join("deliveries")
    }

    /// The lock of whoever reads or writes the queue.
    pub fn queue_lock(&self) -> PathBuf {
        self.run().join("queue.lock")
    }

    /// The lock of the deploy that works off the queue.
    pub fn queued_deploy_lock(&self) -> PathBuf {
        self.run().join("queued-deploy.lock")
    }

    /// The key by which secrets are compared without being told.
    pub fn key_file(&self) -> PathBuf {
        self.run().join("key")
    }

    /// The lock of the `on-push` that listens.
    pub fn listener_lock(&self) -> PathBuf {
        self.run().join("on-push.lock")
    }

    /// The lock of the `on-push` that reads a large body: one at a time does.
    pub fn large_body_lock(&self) -> PathBuf {
        self.run().join("large-body.lock")
    }

    /// The logs' directory.
    pub fn logs(&self) -> PathBuf {
        self.home.join("logs")
    }

    /// What an instance prints.
    pub fn instance_log(&self, instance: &Instance) -> PathBuf {
        self.logs().join(format!("{}.log", instance.name()))
    }

    /// What a release's build printed, or its container when it failed to start.
    pub fn build_log(&self, id: &ReleaseId) -> PathBuf {
        self.logs().join(format!("build-{id}.log"))
    }

    /// What tools have said that change something.
    pub fn deploy_log(&self) -> PathBuf {
        self.logs().join("deploy.log")
    }

    /// What the user's hooks print.
    pub fn hooks_log(&self) -> PathBuf {
        self.logs().join("hooks.log")
    }

    /// What `on-push` and the deploys that it starts say, where systemd does not keep it.
    pub fn push_log(&self) -> PathBuf {
        self.logs().join("push.log")
    }

    /// The record of past deploys.
    pub fn history(&self) -> PathBuf {
        self.logs().join("history.jsonl")
    }

    /// The lock files' directory.
    pub fn run(&self) -> PathBuf {
        self.home.join("run")
    }

    /// The lock of whoever changes something.
    pub fn deploy_lock(&self) -> PathBuf {
        self.run().join("deploy.lock")
    }

    /// The lock that an instance's supervise holds.
    pub fn instance_lock(&self, instance: &Instance) -> PathBuf {
        self.run().join(format!("{}.lock", instance.name()))
    }

    /// The name of the unit in which systemd runs an instance.
    pub fn instance_unit(&self, instance: &Instance) -> String {
        format!("{}@{instance}.service", self.name())
    }

    /// How the journal calls the lines of that unit; those of one of several programs have its name behind a dot.
    pub fn journal_identifier(&self, instance: &Instance) -> String {
        format!("{}@{instance}", self.name())
    }

    /// The template of these units.
    pub fn unit_file(&self) -> PathBuf {
        Path::new(SYSTEM_UNITS).join(format!("{}@.service", self.name()))
    }

    /// The name of the unit that runs bootup.
    pub fn bootup_unit(&self) -> String {
        format!("{}-bootup.service", self.name())
    }

    /// Its file.
    pub fn bootup_unit_file(&self) -> PathBuf {
        Path::new(SYSTEM_UNITS).join(self.bootup_unit())
    }

    /// The link by which systemd starts a unit with another.
    pub fn wants_link(&self, other: &str, unit: &Path) -> PathBuf {
        Path::new(SYSTEM_UNITS).join(format!("{other}.wants")).join(unit.file_name().unwrap_or_default())
    }

    /// The file of one of the units that deploy what is pushed; `suffix` is `-push.socket` and the like.
    pub fn push_unit_file(&self, suffix: &str) -> PathBuf {
        Path::new(SYSTEM_UNITS).join(format!("{}{suffix}", self.name()))
    }

    /// Whether systemd deploys what is queued; else `on-push` starts that deploy itself.
    pub fn has_queue_unit(&self) -> bool {
        self.is_laid_for_us(&self.push_unit_file("-queue.path"))
    }

    /// What the app's user may do through sudo; read last, for the last rule that fits is the one that counts.
    pub fn sudoers_file(&self) -> PathBuf {
        Path::new(SYSTEM_SUDOERS).join(format!("zz-cutover-{}", self.name()))
    }

    /// The prefix of an nginx of the app's own.
    pub fn own_nginx(&self) -> PathBuf {
        self.home.join("nginx")
    }

    /// What nginx looks at: in the home for an nginx of the user's own, else where its workers may look.
    pub fn state(&self) -> PathBuf {
        self.state.clone()
    }

    /// The link that names the enabled instance.
    pub fn enabled_link(&self) -> PathBuf {
        self.state().join("enabled")
    }

    /// The link that names the instance beside which workers run; while they move, both.
    pub fn workers_link(&self) -> PathBuf {
        self.state().join("workers")
    }

    /// Where marks lie that tell nginx about an instance.
    pub fn marks(&self, instance: &Instance) -> PathBuf {
        self.state().join(instance.name())
    }

    /// The instance that an argument means: its name, in any case, also after `instance` (`a`, `instanceA`).
    pub fn instance(&self, argument: &str) -> Result<&Instance> {
        let found = self.config.instances.iter().find(|instance| instance.is_meant_by(argument));
        found.ok_or_else(|| {
            let [first, second] = &self.config.instances;
            usage(format!("cannot find instance {argument:?}: there are {} and {}", first.name(), second.name()))
        })
    }

    /// The other one of the two.
    pub fn other(&self, instance: &Instance) -> &Instance {
        let [first, second] = &self.config.instances;
        if instance == first { second } else { first }
    }

    /// The environment that the app's programs run in, built from nothing. `release` and `member` are what is being built or
    /// run; a build is of no instance.
    pub fn environment(
        &self,
        release: &ReleaseId,
        member: Option<(&Instance, &Member)>,
    ) -> Result<Vec<(OsString, OsString)>> {
        let mut variables = self.common_environment()?;
        variables.push(("RELEASE".into(), release.as_str().into()));
        let (host, address) = environment::HOST;
        if member.is_some() && !variables.iter().any(|(name, _)| name == host) {
            variables.push((host.into(), address.into()));
        }
        variables.extend(member.into_iter().flat_map(|(instance, member)| environment::of_member(instance, member)));
        Ok(variables)
    }

    /// The part of [`App::environment`] that is the same for all releases and instances.
    pub fn common_environment(&self) -> Result<Vec<(OsString, OsString)>> {
        let mut variables = environment::base(&self.owner, &self.home);
        variables.extend(environment::read(&self.env_file(), self.config.run.env_file.is_some())?);
        Ok(variables.into_iter().collect())
    }

    /// Fails where the env file has a line that is not what it may seem to be. For what brings something new into service.
    pub fn check_env_file(&self) -> Result<()> {
        match self.runner() {
            Runner::Compose => Ok(()),
            Runner::Direct | Runner::Systemd => {
                environment::check(&self.env_file(), self.config.run.env_file.is_some())
            }
        }
    }

    /// Whether a process with this environment runs as this instance. Another app of the same user may have an instance of
    /// the same name, and one's own port where this one's second slot would be: then the release tells them apart.
    pub fn is_of_instance(&self, instance: &Instance, environment: &HashMap<OsString, OsString>) -> bool {
        let text = |name: &str| environment.get(OsStr::new(name)).and_then(|value| value.to_str());
        // Hooks are told the instance too, and are not of it.
        let is_member = environment::OF_MEMBERS.iter().any(|name| environment.contains_key(OsStr::new(name)));
        let mut marks = environment::of_instance(instance);
        marks.extend(environment::base(&self.owner, &self.home).remove_entry(OsStr::new("HOME")));
        let port = text("PORT").and_then(|port| port.parse::<usize>().ok());
        let above = port.and_then(|port| port.checked_sub(usize::from(instance.port().number())));
        let is_our_release =
            || text("RELEASE").and_then(|id| id.parse().ok()).is_some_and(|id| self.release(&id).is_dir());
        is_member
            && marks.iter().all(|(name, value)| environment.get(name) == Some(value))
            && above.is_some_and(|above| above == 0 || above % Instance::STEP == 0 && is_our_release())
    }

    /// The environment for programs that are not the app's, such as git: no secrets.
    pub fn plain_environment(&self) -> Vec<(OsString, OsString)> {
        environment::base(&self.owner, &self.home).into_iter().collect()
    }
}

/// Where the state of an app lies. In the home without root's help too, if `install` could write into nginx's directory; what
/// the user has made there is nothing to root.
fn state(home: &Path, config: &Config, is_for_another: bool) -> PathBuf {
    let (inside, system) = (home.join("state"), Path::new(SYSTEM_STATE).join(&config.app));
    let has_inside = || !is_for_another && inside.is_dir() && !system.is_dir();
    if config.nginx.own || has_inside() { inside } else { system }
}

fn caller(owner: &Account) -> String {
    let account = Account::current().name;
    let person = std::env::var("SUDO_USER").ok().filter(|person| !person.is_empty()).unwrap_or(account);
    if person == owner.name { person } else { format!("{person} as {}", owner.name) }
}

/// `--home`, else $CUTOVER_HOME, else the directory above the one this tool lies in; by its real path, for which root follows
/// no links of others.
fn find_home(home: &Home) -> Result<PathBuf> {
    let given =
        home.path.clone().or_else(|| std::env::var_os("CUTOVER_HOME").filter(|set| !set.is_empty()).map(PathBuf::from));
    if let Some(given) = given {
        let cannot = |error: std::io::Error| usage(format!("cannot open home {}: {error}", given.display()));
        fs::metadata(&given).map_err(cannot)?;
        let real = std::path::absolute(&given).map(|given| trust::real_path(&given)).map_err(cannot)?;
        return check_plain(real);
    }
    surrounding_home().ok_or_else(|| {
        usage("cannot find the app's home: this tool does not lie in one; say --home DIR or set CUTOVER_HOME")
    })
}

/// Fails for a path with `..` in it: root does not follow that through directories of others, and systemd refuses it.
pub fn check_plain(home: PathBuf) -> Result<PathBuf> {
    match home.components().any(|part| part == Component::ParentDir) {
        true => Err(usage(format!("cannot use {} as a home: say it without ..", home.display()))),
        false => Ok(home),
    }
}

/// Whom root becomes for the app with this home.
pub fn owner_for_root(home: &Path) -> Result<Account> {
    let place = home.display();
    let directory = trust::open_directory(home).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotADirectory => usage(format!(
            "cannot open home {place} as root: a part of its path is a link that is not root's, or no directory; say where it leads"
        )),
        _ => usage(format!("cannot open home {place}: {error}: is --home right?")),
    })?;
    let meta = directory.metadata().with_context(|| format!("cannot look at {place}"))?;
    let present = Account::of(Uid::from_raw(meta.uid()), Gid::from_raw(meta.gid()));
    match Record::of_home(home)? {
        Some(record) if record.owner.uid == present.uid => record.check_owner().map(|()| record.owner),
        Some(record) => Err(usage(format!(
            "cannot use {place} as root: it is installed for {}, and belongs to {}",
            record.owner.name, present.name
        ))),
        None if present.uid.is_root() && !trust::is_roots_home(home) => {
            Err(usage(format!("cannot use {place} as root: it is root's, and others can change what lies there")))
        }
        None => Ok(present),
    }
}

/// The home whose bin/ this tool lies in; None when it lies elsewhere.
pub fn surrounding_home() -> Option<PathBuf> {
    let own_place = std::env::current_exe().ok()?;
    let above = own_place.parent()?.parent()?;
    [MARK, "config.toml"].iter().any(|name| above.join(name).exists()).then(|| above.to_owned())
}
