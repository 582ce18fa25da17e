//! What must hold before anything is laid.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::sys::statvfs::statvfs;

use crate::app::{App, Config, Runner, config};
use crate::command::{self, Run};
use crate::compose::Project;
use crate::deadline::Deadline;
use crate::lock;
use crate::nginx;
use crate::outcome;
use crate::output;
use crate::process::{self, Owner, Pid};
use crate::runner;

/// The least room that a few releases of a small app need, in bytes.
const ROOM: u64 = 100_000_000;

/// The programs that deploys need, and those that the configuration names first in its commands, must be there in the
/// app's own PATH. Containers need Compose only.
pub fn programs(app: &App) -> Result<()> {
    if app.runner() == Runner::Compose {
        // Not run: a plug-in of the user's would run as root.
        let compose = command::find("docker").or_else(|_| command::find("docker-compose"));
        return compose.map(drop).context("containers need Docker and Docker Compose");
    }
    for program in ["sh", "git", "tar", "cp"] {
        command::find(program)?;
    }
    let sh = command::find("sh")?;
    let config = &app.config;
    let build = config.build.command.as_ref().map(|command| ("[build]", command));
    for (section, command) in build.into_iter().chain([("[run]", &config.run.command)]) {
        let Some(program) = first_program(command) else { continue };
        let looked = Run::new(&sh, ["-c", "command -v -- \"$1\"", "sh", program]).environment(app.plain_environment());
        if looked.output(Deadline::after(runner::CHECK)).is_err() {
            let path = "in the PATH that the app gets, /usr/local/bin:/usr/bin:/bin";
            bail!("cannot find {program}, which command in {section} begins with, {path}: install it");
        }
    }
    Ok(())
}

/// The program that a shell command begins with; None: that takes a shell to tell, or it lies in the release.
fn first_program(command: &str) -> Option<&str> {
    let word = command.split_whitespace().find(|word| *word != "exec")?;
    let is_plain = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte));
    (is_plain && !word.starts_with('-')).then_some(word)
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
/// nginx's.
pub fn ports(app: &App) -> Result<()> {
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
    if let Some(push) = app.config.webhook()
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

/// What a deploy of containers would fail for as things are: that is told, and can be mended later.
pub fn containers(app: &App) -> Option<String> {
    if app.runner() != Runner::Compose {
        return None;
    }
    let checked = app.owner.lend(|| {
        let project = Project::of(app)?;
        project.file()?;
        project.engine.ping()
    });
    checked.err().map(|error| format!("deploys will fail until this is mended: {error:#}"))
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
    let present = app.owner.lend(|| Ok(fs::read_to_string(&path)?));
    if present.is_ok_and(|present| present != text) {
        let what = format!("cannot make {} from pm2's file: what is there would be lost", path.display());
        outcome::allow(force, &what)?;
    }
    Ok(())
}

/// Refuses, unless forced, what instances that run would not follow: other names or ports, or leaving systemd.
pub fn check_change(app: &App, force: bool) -> Result<()> {
    let Ok(present) = Config::read(&app.config_file()) else { return Ok(()) };
    let leaves_systemd = matches!(app.runner(), Runner::Direct | Runner::Compose) && app.unit_file().exists();
    let moves = present.instances != app.config.instances;
    if !moves && !leaves_systemd {
        return Ok(());
    }
    let present = App::planned(app.home().to_owned(), app.owner.clone(), present);
    for instance in &present.config.instances {
        if present.owner.lend(|| runner::runs(&present, instance))? {
            let danger = match moves {
                true => format!("cannot change [instances]: {instance} runs on port {}", instance.port()),
                false => format!("cannot take the app from systemd: {instance} runs"),
            };
            return outcome::allow(force, &danger).context("stop the instances first");
        }
    }
    Ok(())
}
