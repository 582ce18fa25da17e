//! Laying everything out on a machine, and taking it away again: what `install` does.
//!
//! A layout is a list of steps, each of which knows whether it is done already. So installing twice changes nothing the
//! second time, a dry run prints exactly what a run would do, and a killed run is finished by the next one.

mod check;
mod neighbours;
mod profile;
mod read;
mod remove;
mod step;
mod system;

pub use check::{check_change, check_overwritten};
pub use remove::remove;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::sys::stat::{Mode, umask};
use nix::unistd::Uid;

use crate::account::Account;
use crate::app::{self, App, CLOSED, Config, LAID, Record, Runner, SYSTEM_STATE, Turn, Wait, environment};
use crate::command::{self, Run};
use crate::deadline::Deadline;
use crate::lock::{self, Lock};
use crate::nginx::{self, Files, Nginx};
use crate::outcome::{Exit, exit_of, failure, usage};
use crate::pm2::{Ecosystem, Variables};
use crate::process;
use crate::push;
use crate::questions;
use crate::runner;
use crate::trust;

use neighbours::Neighbours;
use step::Step;

/// The tools that go into the home's bin/.
pub const TOOLS: [&str; 19] = [
    "bootup",
    "connect-to-nginx",
    "deploy",
    "disabled-instance",
    "disabled-port",
    "enabled-instance",
    "enabled-port",
    "history",
    "install",
    "logs",
    "on-push",
    "pid",
    "reload",
    "rollback",
    "start-instance",
    "status",
    "stop-instance",
    "supervise",
    "update-instance",
];

/// What a deploy may take beyond its own deadline before `install` ends it.
const DEPLOY_SLACK: Duration = Duration::from_secs(60);

/// The lock of root's `install`, of whatever app.
const INSTALLING: &str = "/run/cutover-install.lock";
/// How long another install is waited for.
const OTHERS: Duration = Duration::from_secs(120);

/// Where the configuration comes from.
#[derive(Clone, Copy)]
pub enum Given<'a> {
    /// From the home, which has one already.
    Nothing,
    /// From this file.
    Config(&'a Path),
    /// From what pm2 was told.
    Ecosystem(&'a Ecosystem),
}

/// What is meant to be laid out or taken away.
pub struct Plan {
    /// The app; root's part of its configuration is as root has accepted it.
    pub app: App,
    /// Its configuration, as it will lie in its home.
    config_text: String,
    /// The same, parsed.
    wanted: Config,
    /// What root has not accepted of it, a line each; empty where root's record agrees, or there is nothing to accept.
    pub unaccepted: Vec<String>,
    /// Whether the configuration was named by the caller, and so is accepted.
    is_named: bool,
    /// What goes into an env file that is not there yet.
    variables: Variables,
    /// The owner's home directory; None: it is not known.
    home_directory: Option<PathBuf>,
}

impl Plan {
    /// What these arguments mean. With neither a configuration nor a home named, it is the home that the calling tool
    /// lies in. The owner is the user that is named, else for root whom its record of the app names, and else who called.
    ///
    /// What is to be taken away is known from root's record, where nothing better is there.
    pub fn of(given: Given, home: Option<&Path>, user: Option<&str>, is_removal: bool) -> Result<Plan> {
        let named = home.map(|home| std::path::absolute(home).context("cannot find --home")).transpose()?;
        let is_named = !matches!(given, Given::Nothing);
        let home = named.or_else(|| if is_named { None } else { app::surrounding_home() });
        let home = home.map(|home| app::check_plain(trust::real_path(&home))).transpose()?;
        let owner = owner(user, home.as_deref())?;
        let home_directory = home_directory(&owner);
        let source = given.source(home.as_deref());
        let read = given.text(home.as_deref(), &owner).and_then(|text| {
            let wanted = Config::parse(&text).map_err(|mistake| usage(format!("cannot use {source}: {mistake}")))?;
            Ok((text, wanted))
        });
        let (config_text, wanted) = read.or_else(|error| {
            let record = home.as_deref().filter(|_| is_removal && Uid::effective().is_root()).map(Record::of_home);
            record.transpose()?.flatten().map(|record| (String::new(), record.accepted)).ok_or(error)
        })?;
        let default = || home_directory.as_ref().map(|directory| directory.join(format!(".{}", wanted.app)));
        let home = home.or_else(|| default().map(|home| trust::real_path(&home)));
        let home = home.ok_or_else(|| usage(format!("cannot tell where {} lives; say --home DIR", owner.name)))?;
        check_place(&home, &owner)?;
        let record = if Uid::effective().is_root() { Record::of_home(&home)? } else { None };
        let (config, unaccepted) = match record {
            Some(record) if !is_named => {
                let unaccepted = wanted.differences_from(&record.accepted);
                (wanted.clone().with_roots_part(&record.accepted), unaccepted)
            }
            Some(record) if record.accepted.app != wanted.app => {
                let (there, app) = (home.display(), &record.accepted.app);
                return Err(usage(format!("cannot install {} in {there}: it is the home of {app}", wanted.app)));
            }
            _ => (wanted.clone(), Vec::new()),
        };
        let app = App::planned(home, owner, config);
        let mut plan =
            Plan { app, config_text, wanted, unaccepted, is_named, variables: given.variables(), home_directory };
        if !is_named && plan.lacks_record()? {
            plan.unaccepted.push(format!("root has no record of {} yet", plan.app.name()));
        }
        Ok(plan)
    }

    /// Accepts what the home's own configuration says.
    pub fn accept(&mut self) {
        self.app = App::planned(self.app.home().to_owned(), self.app.owner.clone(), self.wanted.clone());
        self.is_named = true;
        self.unaccepted.clear();
    }

    /// How to accept what root has not, in words.
    pub fn remedy(&self) -> String {
        format!("--config {} accepts what it says", self.app.config_file().display())
    }

    /// Whether root's part of the app rests on a record, and there is none. Fails when the app's name is another home's.
    pub fn lacks_record(&self) -> Result<bool> {
        if !has_record(&self.app) {
            return Ok(false);
        }
        match Record::of_app(self.app.name())? {
            Some(record) if record.home != self.app.home() => Err(usage(format!(
                "cannot use the name {} for {}: it is the name of the app of {} in {}; give the app another name",
                self.app.name(),
                self.app.home().display(),
                record.owner.name,
                record.home.display()
            ))),
            record => Ok(record.is_none()),
        }
    }
}

/// Whether root keeps a record of an app: of each that root installs for somebody else, or with files of root's own.
fn has_record(app: &App) -> bool {
    let has_files = app.state().starts_with(SYSTEM_STATE) || app.config.runner == Some(Runner::Systemd);
    Uid::effective().is_root() && (has_files || !app.owner.uid.is_root())
}

/// Fails unless an app of this owner may live there.
fn check_place(home: &Path, owner: &Account) -> Result<()> {
    if !Uid::effective().is_root() {
        return Ok(());
    }
    if home.symlink_metadata().is_err() {
        return match owner.uid.is_root() && !trust::is_roots_home(home) {
            true => Err(usage(format!(
                "cannot make {} a home of root's: others can change what lies there; say --user NAME",
                home.display()
            ))),
            false => Ok(()),
        };
    }
    let present = app::owner_for_root(home)?;
    match present.uid == owner.uid {
        true => Ok(()),
        false => Err(usage(format!(
            "cannot use {} as the home of an app of {}: it belongs to {}",
            home.display(),
            owner.name,
            present.name
        ))),
    }
}

impl Given<'_> {
    /// The configuration's text, completed by answers where there is a terminal.
    fn text(self, home: Option<&Path>, owner: &Account) -> Result<String> {
        match self {
            Given::Nothing => {
                let present = home.map(|home| home.join("config.toml"));
                // Whatever is in its place, reading it says what that is.
                let is_missing = |error: std::io::Error| error.kind() == std::io::ErrorKind::NotFound;
                let is_there = |file: &PathBuf| !file.symlink_metadata().is_err_and(is_missing);
                let present = present.filter(|present| owner.lend(|| Ok(is_there(present))).unwrap_or_default());
                questions::configuration(present.map(|file| read::own(&file, owner)).transpose()?)
            }
            Given::Config(file) => questions::configuration(Some(read::named(file, owner)?)),
            Given::Ecosystem(found) if found.is_complete() => Ok(found.text.clone()),
            Given::Ecosystem(found) => questions::completed(&found.text)?.ok_or_else(|| found.incomplete()),
        }
    }

    /// What errors in the configuration call it.
    fn source(self, home: Option<&Path>) -> String {
        match (self, home) {
            (Given::Config(file), _) => file.display().to_string(),
            (Given::Nothing, Some(home)) => home.join("config.toml").display().to_string(),
            (Given::Nothing | Given::Ecosystem(_), _) => "the configuration".to_owned(),
        }
    }

    fn variables(self) -> Variables {
        if let Given::Ecosystem(found) = self { found.variables.clone() } else { Variables::new() }
    }
}

/// A plan that was checked.
pub struct Layout {
    app: App,
    config_text: String,
    /// Of each instance that has a release from before settings were recorded: where, and what.
    settings: Vec<(PathBuf, String)>,
    /// What `install` lays of the configuration, where root has no record of it.
    laid: String,
    /// What root's record is to say; None: it stays as it is, or there is none.
    record: Option<String>,
    variables: Variables,
    /// Those of them that the env file, which is the user's, lacks.
    lacking: Vec<String>,
    /// What a deploy would not find, in words.
    missing: Option<String>,
    /// The files of login shells that get the tools' place.
    profiles: Vec<PathBuf>,
    nginx: Nginx,
    files: Files,
    neighbours: Neighbours,
    /// What systemd and sudo are told; None: nothing, supervise is on its own.
    system: Option<Vec<Step>>,
}

impl Layout {
    /// Checks, before anything is changed, what must be there: a working nginx, the programs that deploys need, free
    /// ports, room on the disk.
    pub fn check(plan: Plan) -> Result<Layout> {
        if plan.lacks_record()? && !plan.is_named {
            let (app, remedy) = (plan.app.name(), plan.remedy());
            return Err(usage(format!("cannot upgrade {app}: root has no record of it yet; {remedy}")));
        }
        let Plan { app, config_text, is_named, variables, home_directory, .. } = plan;
        let config = &app.config;
        if !is_system(&app) && !config.nginx.own {
            let writable = nix::unistd::access(&config.nginx.conf_dir, nix::unistd::AccessFlags::W_OK).is_ok();
            if !writable {
                let reason = format!("cannot write into {}: run install with sudo", config.nginx.conf_dir.display());
                return Err(usage(format!("{reason}, or set own = true in [nginx] for an nginx of your own")));
            }
        }
        check::home(&app)?;
        if is_system(&app) {
            check::name(&app)?;
            check::state(&app)?;
        }
        let system = match (config.runner, app.runner()) {
            (Some(Runner::Systemd), _) if Uid::effective().is_root() => Some(system::steps(&app)?),
            (Some(Runner::Systemd), _) => return Err(usage("cannot use the systemd runner: run install with sudo")),
            (None, _) | (_, Runner::Compose) if is_system(&app) && system::is_booted() => Some(system::steps(&app)?),
            _ => None,
        };
        check::place_of_nginx_files(&app)?;
        check::searchable(&app)?;
        // One that is not there yet is about to be laid.
        app.owner.lend(|| if app.env_file().exists() { app.check_env_file() } else { Ok(()) })?;
        let missing = check::programs(&app, &variables)?;
        check::services(&app)?;
        check::room(&app)?;
        let profiles = match &home_directory {
            Some(directory) => {
                check::home_directory(&app.owner, directory)?;
                app.owner.lend(|| Ok(profile::files(directory, app.owner.shell.as_deref())))?
            }
            None => Vec::new(),
        };
        profiles.iter().try_for_each(|profile| app.owner.lend(|| profile::check(profile)))?;
        let neighbours = Neighbours::of(&app)?;
        neighbours.check(&app)?;
        check::ports(&app, system.is_some())?;
        let lacking = lacking(&app, &variables)?;
        let settings = app.owner.lend(|| app.unrecorded_settings())?;
        let nginx = Nginx::find(&app)?;
        let upstream = push::upstream(&app, system.is_some())?;
        let files = as_nginx(&app, || nginx::files(&app, nginx.build()?, &neighbours.ports(), &upstream))?;
        as_nginx(&app, || nginx.check(&app, &files))?;
        let servers = as_nginx(&app, || Ok(nginx.servers_beside(&files)))?;
        servers.map_or(Ok(()), |servers| neighbours::check_servers(&app, &servers))?;
        let record = (is_named && has_record(&app))
            .then(|| Record::text(app.name(), &app.owner, app.home(), &config_text))
            .transpose()?;
        let laid = app::laid_text(&config_text)?;
        Ok(Layout {
            app,
            config_text,
            settings,
            laid,
            record,
            variables,
            lacking,
            missing,
            profiles,
            nginx,
            files,
            neighbours,
            system,
        })
    }

    /// The places that everything else needs.
    fn places(&self) -> Vec<Step> {
        let app = &self.app;
        let mark = format!("{LAID} for {}\n", app.name());
        let mut steps = vec![Step::home(app.home()), Step::file(app.mark(), mark.into_bytes(), 0o644)];
        for directory in [app.releases(), app.instances(), app.hooks(), app.logs(), app.run()] {
            steps.push(Step::directory(directory, CLOSED));
        }
        if app.config.webhook().is_some() {
            steps.push(Step::directory(app.queue(), CLOSED));
        }
        steps.push(Step::directory(app.bin(), 0o755));
        if is_system(app) && Path::new(app::SYSTEM_STATE).is_dir() {
            steps.push(Step::open_directory(app::SYSTEM_STATE.into()));
        }
        steps.push(Step::state(app.state(), is_system(app)));
        for instance in &app.config.instances {
            let directory = app.state().join(instance.name());
            steps.push(Step::directory(directory.clone(), 0o755));
            steps.push(Step::file(directory.join(instance.name()), Vec::new(), 0o644));
        }
        if app.config.nginx.own {
            let prefix = app.own_nginx();
            steps
                .extend([prefix.join("logs"), prefix.join("temp")].map(|directory| Step::directory(directory, CLOSED)));
        }
        steps
    }

    /// What goes into them, once nginx has accepted its part. `tools` is the directory that the tools are copied from.
    fn contents(&self, tools: &Path) -> Vec<Step> {
        let app = &self.app;
        let record =
            self.record.iter().map(|text| Step::root_file(Record::path(app.name()), text.clone().into(), 0o644));
        let mut steps: Vec<Step> = record.collect();
        if !has_record(app) {
            steps.push(Step::file(app.laid_file(), self.laid.clone().into_bytes(), 0o600));
        }
        steps.push(Step::key(app.key_file()));
        steps.push(Step::tools(tools.to_owned(), app.bin(), &TOOLS));
        steps.extend(
            self.settings.iter().map(|(file, text)| Step::file(file.clone(), text.clone().into_bytes(), 0o600)),
        );
        steps.push(Step::file(app.config_file(), self.config_text.clone().into_bytes(), 0o600));
        // One that lies elsewhere is somebody else's to lay, and containers have what their Compose file says.
        if app.env_file().starts_with(app.home()) && app.runner() != Runner::Compose {
            steps.push(Step::secret(app.env_file(), self.variables.clone()));
        }
        if let Some(push) = app.config.webhook()
            && app.secret_file(push).starts_with(app.home())
        {
            steps.push(Step::webhook_secret(app.secret_file(push)));
        }
        steps.extend(self.profiles.iter().map(|profile| Step::path_in_profile(profile.clone(), app.bin())));
        steps
    }

    /// What a run would lay, a line each.
    pub fn pending(&self, tools: &Path) -> Result<Vec<String>> {
        let pending = |steps: &[Step]| -> Vec<String> {
            let open = steps.iter().filter(|step| !step.is_done(&self.app.owner));
            open.map(|step| format!("lay {step}")).collect()
        };
        let mut lines = pending(&self.places());
        let nginx = as_nginx(&self.app, || self.nginx.pending(&self.files))?;
        lines.extend(nginx.into_iter().map(|path| format!("lay {}", path.display())));
        lines.extend(pending(&self.contents(tools)));
        lines.extend(pending(self.system.as_deref().unwrap_or_default()));
        Ok(lines)
    }

    /// Does what is not done yet; returns what came of it.
    pub fn lay(&self, tools: &Path) -> Result<Vec<String>> {
        umask(Mode::from_bits_truncate(0o022));
        let _turn = turn(&self.app, "laying everything out")?;
        self.act(&self.places())?;
        let mut effects = self.lay_nginx()?;
        let changed = self.act(&self.contents(tools))?;
        match &self.system {
            Some(steps) => {
                let laid = self.act(steps)?;
                effects.extend(remove::systems(&self.app, &system::unwanted(&self.app))?);
                // Before systemd takes its port.
                effects.extend(self.app.owner.lend(|| push::adjust(&self.app))?);
                effects.extend(system::take_up(&self.app, laid)?);
                system::try_orders(&self.app)?;
            }
            None if is_system(&self.app) => effects.extend(remove::systems(&self.app, &system::all(&self.app))?),
            None => {}
        }
        effects.extend(self.app.owner.lend(|| push::adjust(&self.app))?);
        effects.extend(check::containers(&self.app));
        effects.extend(self.missing.clone());
        effects.extend(as_nginx(&self.app, || Ok(self.nginx.troubles(&self.app)))?);
        if !self.lacking.is_empty() {
            let (file, lacking) = (self.app.env_file(), self.lacking.join(", "));
            effects.push(format!("left {} alone: of what pm2 was told it lacks {lacking}", file.display()));
        }
        effects.extend(check::poll(&self.app).filter(|_| changed && self.system.is_none()));
        effects.extend(check::unasked(&self.app).filter(|_| changed));
        Ok(effects)
    }

    /// Asks as a client whether the site is this app's now, and whether clients get what the enabled instance answers. An nginx
    /// that does not run yet is not asked.
    pub fn ask(&self) -> Result<()> {
        let app = &self.app;
        let is_running = as_nginx(app, || Ok(self.nginx.is_running(app)))?;
        let Some(site) = nginx::Site::of(app).filter(|_| is_running) else { return Ok(()) };
        let enabled = app.owner.lend(|| nginx::enabled(app))?;
        if enabled.is_none() && app.config.nginx.listen.is_empty() {
            // Whoever has a server block of his own includes in it what has just been laid.
            return Ok(());
        }
        app.owner.lend(|| Ok(site.leads_to(app, enabled)))?.map_err(|reason| {
            let others = as_nginx(app, || Ok(self.nginx.in_front_on(&self.files, site.port()))).unwrap_or_default();
            let others = if others.is_empty() { String::new() } else { format!("; {} is in front", others.join(", ")) };
            anyhow!("{} is laid out, but {reason}{others}", app.name())
        })?;
        app.owner.lend(|| {
            // What is down, or not well, is no matter of nginx's.
            match enabled.filter(|enabled| runner::healthy(app, enabled, runner::CHECK).is_ok()) {
                Some(enabled) => {
                    // A worker of the configuration before may be about to end.
                    let patience = Deadline::after(nginx::HANDOVER);
                    let mut reached = runner::reaches_clients(app, enabled);
                    while reached.is_err() && patience.sleep(nginx::POLL) {
                        reached = runner::reaches_clients(app, enabled);
                    }
                    reached.map_err(|unreached| anyhow!("{unreached}"))
                }
                None => Ok(()),
            }
        })
    }

    /// Does these steps where they are not done. True: there was one to do.
    fn act(&self, steps: &[Step]) -> Result<bool> {
        let mut acted = false;
        for step in steps.iter().filter(|step| !step.is_done(&self.app.owner)) {
            step.act(&self.app.owner)?;
            acted = true;
        }
        Ok(acted)
    }

    /// The app that is laid out.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Lays nginx's files and makes nginx use them; returns what came of it.
    fn lay_nginx(&self) -> Result<Vec<String>> {
        as_nginx(&self.app, || {
            let app = &self.app;
            let mut reached = self.neighbours.reached();
            let is_reached =
                |present: App| nginx::Site::of(&present).is_some_and(|site| site.leads_to(&present, None).is_ok());
            reached.extend(check::present(app)?.is_some_and(is_reached).then_some(app));
            let laid = self.nginx.lay(app, &self.files, &reached)?;
            let mut said: Vec<String> = Vec::new();
            said.extend(laid.left_alone.map(|path| format!("left {} alone: it was edited", path.display())));
            said.extend(laid.warnings);
            said.extend(laid.effect.map(str::to_owned));
            Ok(said)
        })
    }
}

/// Deploys, as the app's user, by the tool in the home; hands on each line that it says. That tool may be any program of the
/// user's by now: it gets nothing of root's, neither the terminal nor the environment, and runs on its own account.
pub fn deploy(app: &App, tell: impl Fn(&str) + Send + 'static) -> Result<Exit> {
    let person = std::env::var("SUDO_USER").ok().map(|person| ("SUDO_USER".into(), person.into()));
    let run = Run::new(&app.bin().join("deploy"), ["--home".as_ref(), app.home().as_os_str()]);
    let run = run.environment(app.plain_environment().into_iter().chain(person));
    // It has a deadline of its own, and may wait as long for another one.
    let patience = Deadline::after(2 * app.config.deploy.timeout + DEPLOY_SLACK);
    let status = app.owner.lend(|| run.relayed(tell, patience))?;
    status.code().and_then(Exit::of_code).ok_or_else(|| anyhow!("deploy: {}", command::describe(status)))
}

/// Keeps other runs of root's `install` away, which might give another app the same ports meanwhile, for as long as the lock is
/// held. None: who is not root changes nothing that others share.
pub fn alone() -> Result<Option<Lock>> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    let lock = Lock::wait(Path::new(INSTALLING), Deadline::after(OTHERS))?;
    lock.map(Some).ok_or_else(|| failure(Exit::Busy, format!("cannot begin: another install holds {INSTALLING}")))
}

/// Keeps deploys away while something is laid or taken away; None: there never was one.
fn turn(app: &App, what: &str) -> Result<Option<Turn>> {
    let begin =
        || if app.deploy_lock().exists() { app.turn("install", Wait { wait: false }).map(Some) } else { Ok(None) };
    let turn = app.owner.lend(begin)?;
    Ok(turn.inspect(|turn| turn.doing(what, None)))
}

/// [`turn`] for taking everything away, which whatever runs as the app's user is not to prevent: only a tool of ours can.
fn last_turn(app: &App, what: &str) -> Result<Option<Turn>> {
    turn(app, what).or_else(|error| {
        let holder = app.owner.lend(|| lock::holder(&app.deploy_lock()))?;
        let program = holder.and_then(|(pid, _)| process::program(pid));
        // The kernel cuts names off behind fifteen bytes.
        let is_tool = |program: &String| TOOLS.iter().any(|tool| tool.get(..15).unwrap_or(tool) == program);
        if exit_of(&error) == Exit::Busy && !program.as_ref().is_some_and(is_tool) { Ok(None) } else { Err(error) }
    })
}

/// Does what has to do with nginx's files as whoever they belong to: an nginx of the user's own may read what it likes.
fn as_nginx<T>(app: &App, work: impl FnOnce() -> Result<T>) -> Result<T> {
    if is_system(app) { work() } else { app.owner.lend(work) }
}

/// Whether this is an installation by root into the system's nginx.
fn is_system(app: &App) -> bool {
    Uid::effective().is_root() && !app.config.nginx.own
}

/// The names of those variables that an env file, if there is one, does not set.
fn lacking(app: &App, variables: &Variables) -> Result<Vec<String>> {
    if variables.is_empty() {
        return Ok(Vec::new());
    }
    let file = app.env_file();
    let present = app.owner.lend(|| Ok(if file.exists() { Some(environment::read(&file, true)?) } else { None }))?;
    let is_lacking = |name: &&String| present.as_ref().is_some_and(|present| !present.contains_key(OsStr::new(name)));
    Ok(variables.keys().filter(is_lacking).cloned().collect())
}

/// The account that is to own the app. For root: the one named, else that of root's record of the home, else for a home that
/// is root's root, else who called through sudo. A home of somebody else's without a record is nobody's until he is named.
pub fn owner(user: Option<&str>, home: Option<&Path>) -> Result<Account> {
    let caller = Account::current();
    let find = |name| Account::named(name).ok_or_else(|| usage(Account::unknown(name)));
    let named = user.map(find).transpose()?;
    if !caller.uid.is_root() {
        let present = home.filter(|home| home.is_dir()).map(Account::owning).transpose()?;
        let owner = named.or(present).unwrap_or_else(|| caller.clone());
        return match owner.uid == caller.uid {
            true => Ok(owner),
            false => Err(usage(format!("cannot install for {} as {}; run install with sudo", owner.name, caller.name))),
        };
    }
    let record = home.map(Record::of_home).transpose()?.flatten();
    match (named, record, home.filter(|home| home.symlink_metadata().is_ok())) {
        (Some(named), Some(record), _) if named.uid != record.owner.uid => {
            let place = record.home.display();
            Err(usage(format!(
                "cannot install for {}: {place} is installed for {} already",
                named.name, record.owner.name
            )))
        }
        (Some(named), ..) => Ok(named),
        (None, Some(record), _) => record.check_owner().map(|()| record.owner),
        (None, None, Some(home)) => {
            let present = app::owner_for_root(home)?;
            let unknown = || format!("cannot tell whose app {} is: root has no record of it", home.display());
            match present.uid.is_root() {
                true => Ok(present),
                false => Err(usage(format!("{}; say --user {}", unknown(), present.name))),
            }
        }
        (None, None, None) => match std::env::var("SUDO_USER").ok() {
            Some(name) => find(&name),
            None => Ok(caller),
        },
    }
}

/// Where that account lives: for the caller itself $HOME, for another what /etc/passwd says.
fn home_directory(owner: &Account) -> Option<PathBuf> {
    let own = std::env::var_os("HOME").filter(|home| !home.is_empty() && owner.uid == Uid::effective());
    own.map(PathBuf::from).or_else(|| owner.home.clone())
}

#[cfg(test)]
mod tests;
