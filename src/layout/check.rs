//! What must hold before anything is laid.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::statvfs::statvfs;
use nix::unistd::{Gid, Uid};

use super::read;
use crate::account::Account;
use crate::app::{self, App, Config, Record, Runner, SYSTEM_STATE, config};
use crate::bounded::{self, Links};
use crate::command::{self, Run};
use crate::compose::Project;
use crate::deadline::Deadline;
use crate::lock;
use crate::nginx;
use crate::outcome::{self, Exit, exit_of, usage};
use crate::output;
use crate::pm2::Variables;
use crate::process::{self, Owner, Pid};
use crate::runner;
use crate::trust;

/// How the mark of a home is called while it is written.
const BEGUN_MARK: &str = "..cutover.new";
/// How long Compose may take to read the files of both instances.
const READING: Duration = Duration::from_secs(60);
/// The least room that a few releases of a small app need, in bytes.
const ROOM: u64 = 100_000_000;

/// The programs that deploys need must be there, and those that the configuration names first in its commands in the app's own PATH.
/// As long as there is no env file, which may set that, the latter is only told: what is returned. `variables` are what is about to go
/// into one. Containers need Compose only.
pub fn programs(app: &App, variables: &Variables) -> Result<Option<String>> {
    nginx::Site::of(app).map_or(Ok(()), |site| site.check_means())?;
    if app.runner() == Runner::Compose {
        // Not run: a plug-in of the user's would run as root.
        let compose = command::find("docker").or_else(|_| command::find("docker-compose"));
        return compose.map(|_| None).context("containers need Docker and Docker Compose");
    }
    let git = (!app.config.source.git.is_empty()).then_some("git");
    for program in ["sh", "tar", "cp"].into_iter().chain(git) {
        command::find(program)?;
    }
    let config = &app.config;
    let build = config.build.command.as_ref().map(|command| ("[build]", command));
    let commands = build.into_iter().chain([("[run]", &config.run.command)]);
    let programs = commands.filter_map(|(section, command)| Some((section, first_program(command)?)));
    let Some((section, program)) = app.owner.lend(|| first_missing(app, variables, programs))? else { return Ok(None) };
    let env = app.env_file();
    let reason = format!(
        "cannot find {program}, which command in {section} begins with, in the PATH that the app gets: install it, or set PATH in {}",
        env.display()
    );
    if app.owner.lend(|| Ok(env.exists()))? {
        bail!(reason)
    }
    Ok(Some(reason))
}

/// The first of some programs that the app would not find. As root or not, it is looked for by a shell that has the app's PATH and
/// nothing else of it.
fn first_missing<'a>(
    app: &App,
    laid: &Variables,
    mut programs: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<Option<(&'a str, &'a str)>> {
    let sh = command::find("sh")?;
    let variables = match app.env_file().exists() {
        true => app.common_environment()?,
        false => app
            .plain_environment()
            .into_iter()
            .chain(laid.iter().map(|(name, value)| (name.into(), value.into())))
            .collect(),
    };
    let path: Vec<_> = variables.into_iter().filter(|(name, _)| name == "PATH").collect();
    Ok(programs.find(|(_, program)| {
        let looked = Run::new(&sh, ["-c", "command -v -- \"$1\"", "sh", program]);
        let looked = looked.environment(app.plain_environment()).environment(path.clone());
        looked.output(Deadline::after(runner::CHECK)).is_err()
    }))
}

/// The program that a shell command begins with, behind what only changes the directory or sets variables; None: that takes a shell to
/// tell, or it lies in the release.
fn first_program(command: &str) -> Option<&str> {
    let mut steps = command.split("&&").map(|step| step.trim().trim_start_matches('('));
    let step =
        steps.find(|step| !step.starts_with("cd ") && (!step.starts_with("export ") || step.contains("PATH=")))?;
    let word = step.split_whitespace().find(|word| *word != "exec")?;
    let is_plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte));
    (is_plain && !word.starts_with('-')).then_some(word)
}

/// A home must be new, empty, or one of this app's: what somebody else keeps in a directory of that name is not ours to use,
/// nor to remove.
pub fn home(app: &App) -> Result<()> {
    let is_ours = app.owner.lend(|| Ok(is_home(app)))?;
    let place = app.home().display();
    is_ours.then_some(()).ok_or_else(|| {
        usage(format!("cannot use {place} as the home of {}: it is there and is none; say --home DIR", app.name()))
    })
}

/// Whether the home is not there, empty, marked, or one of a version that set no marks.
pub fn is_home(app: &App) -> bool {
    let home = app.home();
    let Ok(mut entries) = fs::read_dir(home) else { return home.symlink_metadata().is_err() };
    let marked = bounded::read_text(&app.mark(), Links::Refused, bounded::SMALL);
    match marked {
        Ok(text) => app.is_marked(&text),
        Err(_) => {
            let of_old = || {
                let text = bounded::read_text(&app.config_file(), Links::Refused, bounded::LARGE);
                let is_app = |text: String| Config::parse(&text).is_ok_and(|config| config.app == app.config.app);
                app.releases().is_dir() && app.instances().is_dir() && text.is_ok_and(is_app)
            };
            // The mark comes first: of an installation that was killed in it, there is nothing else.
            let is_begun = |entry: io::Result<fs::DirEntry>| entry.is_ok_and(|entry| entry.file_name() == BEGUN_MARK);
            entries.all(is_begun) || of_old()
        }
    }
}

/// An app that is new may not have a name that the units of another one's webhooks would have.
pub fn name(app: &App) -> Result<()> {
    let is_there = || Ok(Record::of_app(app.name())?.is_some()) as Result<bool>;
    if !app.name().ends_with("-push") || app.has_unit() || is_there()? {
        return Ok(());
    }
    let reason = "it ends in -push, as the units of another app's webhooks do";
    Err(usage(format!("cannot use the name {}: {reason}; give the app another name", app.name())))
}

/// The state directory must be the owner's, if it is there, and nginx's files must go where nginx looks for them and nobody
/// but root can change them.
pub fn state(app: &App) -> Result<()> {
    state_owner(app)?;
    let (conf_dir, owner) = (&app.config.nginx.conf_dir, &app.owner);
    if !owner.uid.is_root() && !trust::is_closed(conf_dir) {
        let place = conf_dir.display();
        return Err(usage(format!(
            "cannot lay nginx's files in {place} for {}: it must be a directory by its real path that nobody but root can change",
            owner.name
        )));
    }
    Ok(())
}

/// Fails when the state directory of this app's name is another user's.
pub fn state_owner(app: &App) -> Result<()> {
    let Ok(meta) = app.state().symlink_metadata() else { return Ok(()) };
    let (uid, name) = (Uid::from_raw(meta.uid()), app.name());
    if meta.is_dir() && uid == app.owner.uid {
        return Ok(());
    }
    let present = Account::of(uid, Gid::from_raw(meta.gid())).name;
    Err(usage(format!("cannot install {name} for {}: {} belongs to {present}", app.owner.name, app.state().display())))
}

/// nginx's workers must be able to search the directories above what they look at. Those of our making are opened later.
pub fn searchable(app: &App) -> Result<()> {
    match super::as_nginx(app, || Ok(nginx::closed_directory(app)))? {
        Some(closed) if !closed.starts_with(SYSTEM_STATE) && app.state().starts_with(SYSTEM_STATE) => {
            let (state, closed) = (app.state(), closed.display());
            bail!(
                "nginx's workers cannot get to {}: others may not search {closed}; chmod o+x {closed}",
                state.display()
            )
        }
        _ => Ok(()),
    }
}

/// There must be room for releases.
pub fn room(app: &App) -> Result<()> {
    let there = app.home().ancestors().find(|directory| directory.is_dir()).unwrap_or(Path::new("/"));
    let usage = statvfs(there).with_context(|| format!("cannot look at {}", there.display()))?;
    let free = usage.blocks_available() * usage.fragment_size();
    if free < ROOM {
        let (free, needed) = (output::bytes(free), output::bytes(ROOM));
        bail!("cannot install into {}: {free} are free there, a few releases need {needed}", app.home().display());
    }
    Ok(())
}

/// The instances' ports must be free or the instances' own, the status port and those that nginx is to listen on free or
/// nginx's; where systemd `has_units`, so must be the port for webhooks.
pub fn ports(app: &App, has_units: bool) -> Result<()> {
    nginx::check_status_port(app)?;
    for instance in &app.config.instances {
        // An engine that is not there yet cannot be asked: Compose tells when it comes to that.
        if app.owner.lend(|| runner::runs(app, instance)).unwrap_or(app.runner() == Runner::Compose) {
            continue;
        }
        if let Some((port, holder)) = runner::holder_of_ports(app, instance)? {
            let holder = holder.in_words();
            bail!("cannot give port {port} to {instance}: {holder} holds it; choose another in [instances]");
        }
    }
    if let Some(push) = app.config.webhook().filter(|_| has_units)
        && let Owner::Process(holder) = process::owner(push.port.number(), None)?
        && !is_our_listener(app, holder.pid)?
    {
        let (port, holder) = (push.port, process::describe(holder.pid));
        bail!("cannot listen for webhooks on port {port}: {holder} holds it; choose another in [push]");
    }
    for port in app.config.nginx.listen.iter().filter_map(|listen| config::port_of_listen(listen)) {
        if let Owner::Process(holder) = process::owner(port, None)?
            && process::program(holder.pid).is_some_and(|program| program != "nginx")
        {
            let holder = process::describe(holder.pid);
            bail!("nginx cannot listen on port {port}: {holder} holds it; choose another in [nginx] listen");
        }
    }
    Ok(())
}

/// Whether this is what listens for this app's webhooks: its `on-push`, or systemd for its socket. Another app's may have
/// the same port in its configuration.
fn is_our_listener(app: &App, pid: Pid) -> Result<bool> {
    let own = app.owner.lend(|| lock::holder(&app.listener_lock()))?;
    let is_systemd = pid == Pid::from_raw(1) && app.push_unit_file("-push.socket").exists();
    Ok(is_systemd || own.is_some_and(|(own, _)| own == pid))
}

/// What nobody finds out where the server block is the user's own and its address is not known.
pub fn unasked(app: &App) -> Option<String> {
    let nginx = &app.config.nginx;
    let is_unknown = nginx.check == config::Check::Listen && nginx.listen.is_empty();
    is_unknown.then(|| {
        "nobody asks the site as its clients do: with a server block of your own, set check in [nginx] to its address"
            .to_owned()
    })
}

/// What a deploy of containers would fail for as things are: that is told, and can be mended later.
pub fn containers(app: &App) -> Option<String> {
    if app.runner() != Runner::Compose {
        return None;
    }
    let checked = app.owner.lend(|| {
        let project = Project::of(app)?;
        project.check_files()?;
        project.engine.ping()
    });
    checked.err().map(|error| format!("deploys will fail until this is mended: {error:#}"))
}

/// Fails when a Compose file that is there does not do what is configured: a service that ignores the variable of its image would
/// deploy, and not go back. What Compose, which runs as the owner, does not answer for another reason is told by a deploy.
pub fn services(app: &App) -> Result<()> {
    if app.runner() != Runner::Compose {
        return Ok(());
    }
    app.owner.lend(|| {
        let project = Project::of(app)?;
        let checked = project.check_files().map_or(Ok(()), |()| project.check_services(Deadline::after(READING)));
        checked.or_else(|error| if exit_of(&error) == Exit::Usage { Err(error) } else { Ok(()) })
    })
}

/// How the repository is to be asked now and then where no systemd does it; None: nobody wants it.
pub fn poll(app: &App) -> Option<String> {
    let poll = humantime::format_duration(app.config.poll()?);
    let line = format!("* * * * * {}/deploy --if-new", app.bin().display());
    Some(format!("no systemd asks the repository every {poll}: put `{line}` into the crontab"))
}

/// Refuses, unless forced, to lay a configuration over another one that was not what it is made from.
pub fn check_overwritten(app: &App, text: &str, force: bool) -> Result<()> {
    let path = app.config_file();
    if read::own(&path, &app.owner).is_ok_and(|present| present != text) {
        let what = format!("cannot make {} from pm2's file: what is there would be lost", path.display());
        outcome::allow(force, &what)?;
    }
    Ok(())
}

/// Fails when root could not lay anything for a user into his home directory without making it, or where it is not his.
pub fn home_directory(owner: &Account, directory: &Path) -> Result<()> {
    if !Uid::effective().is_root() || owner.uid.is_root() {
        return Ok(());
    }
    let place = directory.display();
    let is_his = fs::metadata(directory).is_ok_and(|meta| meta.is_dir() && meta.uid() == owner.uid.as_raw());
    match directory.is_absolute() && is_his {
        true => Ok(()),
        false => Err(usage(format!(
            "cannot install for {0}: the home directory {place} is no directory of {0}'s; make it one (usermod --home), or say --user",
            owner.name
        ))),
    }
}

/// Refuses, unless forced, what instances that run would not follow: other names or ports, or leaving systemd.
pub fn check_change(app: &App, force: bool) -> Result<()> {
    let Some(present) = present(app)? else { return Ok(()) };
    let present = &present;
    let leaves_systemd = matches!(app.runner(), Runner::Direct | Runner::Compose) && app.unit_file().exists();
    let moves = present.config.instances != app.config.instances;
    if !moves && !leaves_systemd {
        return Ok(());
    }
    for instance in &present.config.instances {
        if present.owner.lend(|| runner::runs(present, instance))? {
            let danger = match moves {
                true => format!("cannot change [instances]: {instance} runs on port {}", instance.port()),
                false => format!("cannot take the app from systemd: {instance} runs"),
            };
            return outcome::allow(force, &danger).context("stop the instances first");
        }
    }
    Ok(())
}

/// The app as it is laid out in this one's home until now; None: it is not.
pub fn present(app: &App) -> Result<Option<App>> {
    // Version 0.1.0 has left nothing but the user's file.
    let of_file = || read::own(&app.config_file(), &app.owner).ok().and_then(|text| Config::parse(&text).ok());
    let present = app.owner.lend(|| Ok(app::laid(app.home())))?.or_else(of_file);
    Ok(present.map(|present| App::planned(app.home().to_owned(), app.owner.clone(), present)))
}

/// Fails when nginx's files lie elsewhere than they are to: nginx would have both, or neither, between two steps of moving them.
pub fn place_of_nginx_files(app: &App) -> Result<()> {
    let Some(present) = present(app)? else { return Ok(()) };
    let (from, to) = (nginx::conf_dir(&present), nginx::conf_dir(app));
    let is_laid = || Ok(nginx::instance_file(&present).exists());
    if from == to || !super::as_nginx(&present, is_laid)? {
        return Ok(());
    }
    let (from, to) = (from.display(), to.display());
    Err(usage(format!(
        "cannot move nginx's files from {from} to {to} while the app is there: install --remove first, which keeps its releases"
    )))
}

#[cfg(test)]
mod tests {
    use super::first_program;

    #[test]
    fn the_first_program_of_a_command_is_found_behind_what_leads_to_it() {
        for (command, program) in [
            ("exec node x.js", Some("node")),
            ("npm ci && npm run build", Some("npm")),
            ("cd web && exec pnpm start", Some("pnpm")),
            ("cd web && export SERVER_PORT=$PORT && exec bun x.ts", Some("bun")),
            ("(cd web && yarn install) && npm ci", Some("yarn")),
            ("export PATH=$HOME/bin:$PATH && node x.js", Some("export")),
            ("cd web && exec ./server", None),
            ("A=b node x.js", None),
            ("cd web", None),
        ] {
            assert_eq!(first_program(command), program, "{command}");
        }
    }
}
