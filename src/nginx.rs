//! nginx's side: which instance it uses, switching and confirming, and laying its configuration.

mod confirm;
mod marks;
mod parse;
mod program;
mod render;
mod site;
mod traffic;
mod workers;

pub use confirm::{Answer, closed_directory};
pub use marks::{come_back, is_away, leave, tell_count, tell_free_slot};
pub use parse::Server;
pub use program::{Laid, Nginx};
pub use render::{Build, Files, Refuses, Version, conf_dir, files, instance_file};
pub use site::Site;
pub use traffic::{Traffic, traffic};

use std::fs;
use std::io;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::app::{App, Instance};
use crate::deadline::Deadline;
use crate::durable;
use crate::outcome::{stranded, usage};

use confirm::Refusal;
use marks::Mark;

/// How long workers of the configuration before may still answer after a reload, on a slow machine.
pub const HANDOVER: Duration = Duration::from_secs(1);
/// The pause between two looks for that.
pub const POLL: Duration = Duration::from_millis(20);

/// The instance that the enabled link names; None when nothing is enabled yet.
pub fn enabled(app: &App) -> Result<Option<&Instance>> {
    let link = app.enabled_link();
    let target = match fs::read_link(&link) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            let reason = blindness(app).unwrap_or_else(|| error.to_string());
            return Err(anyhow!("cannot read {}: {reason}", link.display()));
        }
        Ok(target) => target,
    };
    let named = app.config.instances.iter().find(|instance| target.as_os_str() == instance.name());
    let unknown = || anyhow!("cannot tell what is enabled: {} names {}, no instance", link.display(), target.display());
    named.map(Some).ok_or_else(unknown)
}

/// What keeps nginx from seeing which instance is enabled, in words, with the remedy; None: nothing.
///
/// Nothing that nginx can be told would bring back the traffic: to its workers, no instance is enabled.
pub fn blindness(app: &App) -> Option<String> {
    let closed = closed_directory(app)?;
    let [first, _] = &app.config.instances;
    Some(format!(
        "others may not search {0}, so nginx's workers do not see what is enabled and use {first}: chmod o+x {0} as root",
        closed.display()
    ))
}

/// The instance that gets no traffic; the first one when nothing is enabled.
pub fn disabled(app: &App) -> Result<&Instance> {
    let [first, _] = &app.config.instances;
    Ok(enabled(app)?.map_or(first, |enabled| app.other(enabled)))
}

/// The instance that an argument names, else the enabled one; None when there is neither.
pub fn named_or_enabled<'a>(app: &'a App, argument: Option<&str>) -> Result<Option<&'a Instance>> {
    argument.map_or_else(|| enabled(app), |name| app.instance(name).map(Some))
}

/// The instance that an argument names, else the disabled one.
pub fn named_or_disabled<'a>(app: &'a App, argument: Option<&str>) -> Result<&'a Instance> {
    argument.map_or_else(|| disabled(app), |name| app.instance(name))
}

/// Cuts over to `target`: one rename, then nginx itself is asked, and the rename flushed. When nginx does not confirm, or
/// the disk fails, the old link is put back and the error says why; the service is as it was. That it cannot be put back is
/// [`Exit::Stranded`].
pub fn switch(app: &App, target: &Instance) -> Result<()> {
    let link = app.enabled_link();
    let cannot = || format!("cannot connect {target}");
    let before = enabled(app)?;
    // Its unit may have been stopped while it was enabled, and it was started by something else.
    if marks::is_away(app, target) {
        marks::come_back(app, target).with_context(cannot)?;
    }
    if before != Some(target) {
        durable::turn_link(&link, target.name())
            .map_err(|error| anyhow!("{}: cannot turn {}: {error}{}", cannot(), link.display(), remedy(app, &error)))?;
    }
    let flush = || durable::sync_directory_of(&link).with_context(|| format!("cannot flush {}", link.display()));
    let confirmed = confirm::confirm(app, target).map_err(|refusal| anyhow!("{refusal}"));
    let Err(reason) = confirmed.and_then(|()| flush()) else { return Ok(()) };
    let reason = reason.context(cannot());
    Err(match point_back(app, before) {
        Ok(()) => reason,
        Err(failed) => stranded(&reason, &failed),
    })
}

/// What is to be done about an error of the link's directory, behind a colon; empty: nothing that could be named.
fn remedy(app: &App, error: &io::Error) -> String {
    let state = app.state();
    match error.kind() {
        io::ErrorKind::NotFound => format!(": run install, which makes {}", state.display()),
        io::ErrorKind::PermissionDenied => {
            format!(": run install again, which gives {} to {}", state.display(), app.owner.name)
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            ": mount it writable again; the kernel's log says why it is not".to_owned()
        }
        io::ErrorKind::StorageFull => ": make room there, or free inodes (df, df -i)".to_owned(),
        io::ErrorKind::QuotaExceeded => format!(": {} has used up the quota there", app.owner.name),
        _ => String::new(),
    }
}

/// Takes the traffic back to the instance that had it; None: nobody had. An nginx that does not answer is no reason to leave
/// it where it must not stay: it goes by the link as soon as it does anything.
pub fn take_back(app: &App, before: Option<&Instance>) -> Result<()> {
    point_back(app, before)?;
    match before.map_or(Ok(()), |old| confirm::confirm(app, old)) {
        Ok(()) | Err(Refusal::Silent(_)) => Ok(()),
        Err(refusal) => Err(anyhow!("{refusal}")),
    }
}

/// Has the enabled link lead to where it led before. A disk that fails is asked a few times more: nothing else could be done.
fn point_back(app: &App, before: Option<&Instance>) -> Result<()> {
    let link = app.enabled_link();
    let back = || match before {
        Some(old) => durable::turn_link(&link, old.name()),
        None => durable::remove_if_there(&link),
    };
    let patience = Deadline::after(HANDOVER);
    let mut pointed = back();
    while pointed.is_err() && patience.sleep(POLL) {
        pointed = back();
    }
    pointed.with_context(|| format!("{} could not be put back", link.display()))?;
    // What was not flushed may come back after a power cut; there is nothing better to do about it than to go on.
    let _ = durable::sync_directory_of(&link);
    Ok(())
}

/// Fails when somebody else answers on the status port.
pub fn check_status_port(app: &App) -> Result<()> {
    match confirm::ask(app) {
        Err(Refusal::Stranger(reason)) => Err(anyhow!("{reason}")),
        _ => Ok(()),
    }
}

/// Fails when nginx has not heard of instances with as many processes as are configured. One that does not answer is given
/// the benefit of the doubt.
pub fn check_count(app: &App) -> Result<()> {
    // One it always knows, and need not be asked.
    if app.config.processes() == 1 {
        return Ok(());
    }
    // A worker of the configuration before may be about to end.
    let patience = Deadline::after(HANDOVER);
    loop {
        let lacks = confirm::ask(app).ok().and_then(|answer| answer.lacks(app));
        let Some(lacks) = lacks else { return Ok(()) };
        if !patience.sleep(POLL) {
            return Err(usage(lacks));
        }
    }
}

/// Fails when nginx would not go by what [`tell_free_slot`] tells it.
pub fn check_free_slots(app: &App) -> Result<()> {
    let count = app.config.processes();
    let answer = ask(app)?;
    let knows_all = (0..count).all(|free| answer.knows(Mark::Without { count, free }));
    knows_all.then_some(()).context("nginx does not know yet that processes are replaced: run install again")
}

/// Asks nginx what it uses, and what it knows; the error says why there is no answer.
pub fn ask(app: &App) -> Result<Answer> {
    confirm::ask(app).map_err(|refusal| anyhow!("{refusal}"))
}
