//! Laying everything out on a machine, and taking it away again: what `install` does.
//!
//! A layout is a list of steps, each of which knows whether it is done already. So installing twice changes nothing the
//! second time, a dry run prints exactly what a run would do, and a killed run is finished by the next one.

mod check;
mod profile;
mod remove;
mod step;
mod system;

pub use check::{check_change, check_overwritten};
pub use remove::remove;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::sys::stat::{Mode, umask};
use nix::unistd::Uid;

use crate::account::Account;
use crate::app::{self, App, Config, Runner, Turn, Wait, environment};
use crate::nginx::{self, Files, Nginx};
use crate::outcome::usage;
use crate::pm2::{Ecosystem, Variables};
use crate::push;
use crate::questions;

use step::{CLOSED, Step};

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
    /// The app.
    pub app: App,
    /// Its configuration, as it will lie in its home.
    config_text: String,
    /// What goes into an env file that is not there yet.
    variables: Variables,
    /// The owner's ~/.profile; None: the owner has no known home directory.
    profile: Option<PathBuf>,
}

impl Plan {
    /// What these arguments mean. With neither a configuration nor a home named, it is the home that the calling tool
    /// lies in; without a user, it is who owns that home, or who called.
    pub fn of(given: Given, home: Option<&Path>, user: Option<&str>) -> Result<Plan> {
        let named = home.map(|home| std::path::absolute(home).context("cannot find --home")).transpose()?;
        let is_nothing = matches!(given, Given::Nothing);
        let home = named.or_else(|| is_nothing.then(app::surrounding_home).flatten());
        let owner = owner(user, home.as_deref())?;
        let home_directory = home_directory(&owner);
        let config_text = given.text(home.as_deref())?;
        let source = given.source();
        let config = Config::parse(&config_text).map_err(|mistake| usage(format!("cannot use {source}: {mistake}")))?;
        let default = || home_directory.as_ref().map(|directory| directory.join(format!(".{}", config.app)));
        let home = home.or_else(default);
        let home = home.ok_or_else(|| usage(format!("cannot tell where {} lives; say --home DIR", owner.name)))?;
        let home = without_links(&home);
        let profile = home_directory.map(|directory| directory.join(".profile"));
        let variables = given.variables();
        Ok(Plan { app: App::planned(home, owner, config), config_text, variables, profile })
    }
}

impl Given<'_> {
    /// The configuration's text, completed by answers where there is a terminal.
    fn text(self, home: Option<&Path>) -> Result<String> {
        match self {
            Given::Nothing => questions::configuration(None, home),
            Given::Config(file) => questions::configuration(Some(file), home),
            Given::Ecosystem(found) if found.is_complete() => Ok(found.text.clone()),
            Given::Ecosystem(found) => questions::completed(&found.text)?.ok_or_else(|| found.incomplete()),
        }
    }

    /// What errors in the configuration call it.
    fn source(self) -> String {
        match self {
            Given::Config(file) => file.display().to_string(),
            Given::Nothing | Given::Ecosystem(_) => "the configuration".to_owned(),
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
    variables: Variables,
    /// Those of them that the env file, which is the user's, lacks.
    lacking: Vec<String>,
    profile: Option<PathBuf>,
    nginx: Nginx,
    files: Files,
    /// What systemd and sudo are told; None: nothing, supervise is on its own.
    system: Option<Vec<Step>>,
}

impl Layout {
    /// Checks, before anything is changed, what must be there: a working nginx, the programs that deploys need, free
    /// ports, room on the disk.
    pub fn check(Plan { app, config_text, variables, profile }: Plan) -> Result<Layout> {
        let config = &app.config;
        if !is_system(&app) && !config.nginx.own {
            let writable = nix::unistd::access(&config.nginx.conf_dir, nix::unistd::AccessFlags::W_OK).is_ok();
            if !writable {
                let reason = format!("cannot write into {}: run install with sudo", config.nginx.conf_dir.display());
                return Err(usage(format!("{reason}, or set own = true in [nginx] for an nginx of your own")));
            }
        }
        if is_system(&app) && app.state().is_dir() {
            let present = Account::owning(&app.state())?;
            if present.uid != app.owner.uid {
                let reason = format!("{} is installed for {} already", app.name(), present.name);
                return Err(usage(format!(
                    "cannot install for {}: {reason}; say --user {}",
                    app.owner.name, present.name
                )));
            }
        }
        if is_system(&app) && !app.owner.uid.is_root() && !step::is_roots(&config.nginx.conf_dir) {
            let (place, owner) = (config.nginx.conf_dir.display(), &app.owner.name);
            return Err(usage(format!(
                "cannot lay nginx's files in {place} for {owner}: others than root can change it"
            )));
        }
        let system = match (config.runner, app.runner()) {
            (Some(Runner::Systemd), _) if Uid::effective().is_root() => Some(system::steps(&app)?),
            (Some(Runner::Systemd), _) => return Err(usage("cannot use the systemd runner: run install with sudo")),
            (None, _) | (_, Runner::Compose) if is_system(&app) && system::is_booted() => Some(system::steps(&app)?),
            _ => None,
        };
        check::programs(&app)?;
        check::room(&app)?;
        check::ports(&app)?;
        let lacking = lacking(&app, &variables)?;
        let nginx = Nginx::find(&app)?;
        nginx.check()?;
        let files = nginx::files(&app, nginx.build()?)?;
        Ok(Layout { app, config_text, variables, lacking, profile, nginx, files, system })
    }

    /// The places that everything else needs.
    fn places(&self) -> Vec<Step> {
        let app = &self.app;
        let mut steps = vec![Step::home(app.home())];
        for directory in [app.releases(), app.instances(), app.hooks(), app.logs(), app.run()] {
            steps.push(Step::directory(directory, CLOSED));
        }
        if app.config.webhook().is_some() {
            steps.push(Step::directory(app.queue(), CLOSED));
        }
        steps.push(Step::directory(app.bin(), 0o755));
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
        let mut steps = vec![Step::tools(tools.to_owned(), app.bin(), &TOOLS)];
        steps.push(Step::file(app.config_file(), self.config_text.clone().into_bytes(), 0o640));
        // One that lies elsewhere is somebody else's to lay, and containers have what their Compose file says.
        if app.env_file().starts_with(app.home()) && app.runner() != Runner::Compose {
            steps.push(Step::secret(app.env_file(), self.variables.clone()));
        }
        if let Some(push) = app.config.webhook()
            && app.secret_file(push).starts_with(app.home())
        {
            steps.push(Step::webhook_secret(app.secret_file(push)));
        }
        if let Some(profile) = &self.profile {
            steps.push(Step::path_in_profile(profile.clone(), app.bin()));
        }
        steps
    }

    /// What a run would lay, a line each.
    pub fn pending(&self, tools: &Path) -> Result<Vec<String>> {
        let pending = |steps: &[Step]| -> Vec<String> {
            let open = steps.iter().filter(|step| !step.is_done(&self.app.owner));
            open.map(|step| format!("lay {step}")).collect()
        };
        let mut lines = pending(&self.places());
        lines.extend(self.nginx.pending(&self.files)?.into_iter().map(|path| format!("lay {}", path.display())));
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
            }
            None if is_system(&self.app) => effects.extend(remove::systems(&self.app, &system::all(&self.app))?),
            None => {}
        }
        effects.extend(self.app.owner.lend(|| push::adjust(&self.app))?);
        effects.extend(check::containers(&self.app));
        if !self.lacking.is_empty() {
            let (file, lacking) = (self.app.env_file(), self.lacking.join(", "));
            effects.push(format!("left {} alone: of what pm2 was told it lacks {lacking}", file.display()));
        }
        effects.extend(check::poll(&self.app).filter(|_| changed && self.system.is_none()));
        Ok(effects)
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
        let lay = || -> Result<Vec<String>> {
            let app = &self.app;
            let laid = self.nginx.lay(app, &self.files)?;
            let mut said: Vec<String> = Vec::new();
            said.extend(laid.left_alone.map(|path| format!("left {} alone: it was edited", path.display())));
            said.extend(laid.warnings);
            said.extend(laid.effect.map(str::to_owned));
            Ok(said)
        };
        if is_system(&self.app) { lay() } else { self.app.owner.lend(lay) }
    }
}

/// The same place by its real path, which is how the tools find their home, and how units must name it. Root follows only
/// the links that nobody but root could have laid.
fn without_links(path: &Path) -> PathBuf {
    let may_follow = |there: &Path| !Uid::effective().is_root() || step::is_roots(there);
    let followed = path.ancestors().filter(|there| may_follow(there));
    let real = followed.filter_map(|there| Some((there, there.canonicalize().ok()?))).next();
    let joined = real.and_then(|(there, real)| Some(real.join(path.strip_prefix(there).ok()?)));
    // Joined with nothing it would end in a slash.
    joined.map_or_else(|| path.to_owned(), |joined| joined.components().collect())
}

/// Keeps deploys away while something is laid or taken away; None: there never was one.
fn turn(app: &App, what: &str) -> Result<Option<Turn>> {
    let is_there = app.deploy_lock().exists();
    let turn = is_there.then(|| app.owner.lend(|| app.turn("install", Wait { wait: false }))).transpose()?;
    Ok(turn.inspect(|turn| turn.doing(what, None)))
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

/// The account that is to own the app: `user`, else the owner of a home that is there already, else who called, also
/// through sudo.
pub fn owner(user: Option<&str>, home: Option<&Path>) -> Result<Account> {
    let caller = Account::current();
    let behind_sudo = std::env::var("SUDO_USER").ok().filter(|_| caller.uid.is_root());
    let account = match (user.map(str::to_owned), home.filter(|home| home.is_dir()), behind_sudo) {
        (None, Some(home), _) => Account::owning(home)?,
        (Some(name), ..) | (None, None, Some(name)) => {
            Account::named(&name).ok_or_else(|| usage(format!("cannot find user {name:?}; useradd makes one")))?
        }
        (None, None, None) => return Ok(caller),
    };
    match account.uid == caller.uid || caller.uid.is_root() {
        true => Ok(account),
        false => Err(usage(format!("cannot install for {} as {}; run install with sudo", account.name, caller.name))),
    }
}

/// Where that account lives: for the caller itself $HOME, for another what /etc/passwd says.
fn home_directory(owner: &Account) -> Option<PathBuf> {
    let own = std::env::var_os("HOME").filter(|home| !home.is_empty() && owner.uid == Uid::effective());
    own.map(PathBuf::from).or_else(|| owner.home.clone())
}
