//! Hooks: executables of the user's in the home's hooks/, run at fixed points of a deploy, in the app's own environment.

use std::fmt::Display;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Result;
use nix::unistd::{AccessFlags, access};

use crate::app::{App, Instance, ReleaseId};
use crate::command::Run;
use crate::deadline::Deadline;
use crate::logfile;
use crate::outcome::usage;

/// When a hook is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// The release's files are laid out, and nothing is built. A failure ends the deploy.
    BeforeBuild,
    /// The release is built, and has no name yet. A failure ends the deploy.
    AfterBuild,
    /// The new instance is up and healthy, and gets no traffic. A failure ends the deploy; the old release serves on.
    BeforeConnect,
    /// The deploy is over, and the new release serves.
    AfterDeploy,
    /// The deploy has failed, and the old release serves.
    OnFailure,
}

impl Hook {
    /// All, in the order in which they come.
    pub const ALL: [Hook; 5] =
        [Hook::BeforeBuild, Hook::AfterBuild, Hook::BeforeConnect, Hook::AfterDeploy, Hook::OnFailure];

    /// The name of the file in hooks/.
    pub fn name(self) -> &'static str {
        match self {
            Hook::BeforeBuild => "before-build",
            Hook::AfterBuild => "after-build",
            Hook::BeforeConnect => "before-connect",
            Hook::AfterDeploy => "after-deploy",
            Hook::OnFailure => "on-failure",
        }
    }

    /// Whether it is a part of the build.
    fn builds(self) -> bool {
        matches!(self, Hook::BeforeBuild | Hook::AfterBuild)
    }
}

/// What hooks are told about a deploy. What is not known (yet) is None, and they get it as an empty variable.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// INSTANCE and PORT: the instance that is to get the new release.
    pub instance: Option<Instance>,
    /// RELEASE: the new release.
    pub release: Option<ReleaseId>,
    /// PREVIOUS_RELEASE: the release that served when the deploy began.
    pub previous: Option<ReleaseId>,
    /// OUTCOME: how the deploy ended, in the history's words.
    pub outcome: Option<&'static str>,
    /// REASON: why it failed.
    pub reason: Option<String>,
}

impl About {
    fn variables(&self) -> [(&'static str, String); 6] {
        let text = |value: Option<&dyn Display>| value.map_or_else(String::new, |value| value.to_string());
        let port = self.instance.as_ref().map(Instance::port);
        [
            ("INSTANCE", text(self.instance.as_ref().map(|one| one as &dyn Display))),
            ("PORT", text(port.as_ref().map(|one| one as &dyn Display))),
            ("RELEASE", text(self.release.as_ref().map(|one| one as &dyn Display))),
            ("PREVIOUS_RELEASE", text(self.previous.as_ref().map(|one| one as &dyn Display))),
            ("OUTCOME", self.outcome.unwrap_or_default().to_owned()),
            ("REASON", self.reason.clone().unwrap_or_default()),
        ]
    }
}

/// The hooks that are a part of builds, as they are called, and where they lie.
pub fn of_builds(app: &App) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for hook in Hook::ALL.into_iter().filter(|hook| hook.builds()) {
        found.extend(find(app, hook)?.map(|path| (format!("hooks/{}", hook.name()), path)));
    }
    Ok(found)
}

/// Whether there is such a hook.
pub fn is_there(app: &App, hook: Hook) -> Result<bool> {
    Ok(find(app, hook)?.is_some())
}

/// Fails when a hook is there that cannot be run: better told before a deploy than in the middle of it.
pub fn check(app: &App) -> Result<()> {
    Hook::ALL.into_iter().try_for_each(|hook| find(app, hook).map(drop))
}

/// Where a hook lies; None: there is none.
fn find(app: &App, hook: Hook) -> Result<Option<PathBuf>> {
    let path = app.hooks().join(hook.name());
    let cannot = |reason: &str| Err(usage(format!("cannot run {}: {reason}", path.display())));
    match path.metadata() {
        Ok(meta) if !meta.is_file() || access(&path, AccessFlags::X_OK).is_err() => {
            cannot("it is no executable file; chmod +x it")
        }
        Ok(_) => Ok(Some(path)),
        Err(error) if error.kind() != ErrorKind::NotFound => cannot(&error.to_string()),
        Err(_) if path.is_symlink() => cannot("it is a link to nothing"),
        Err(_) => Ok(None),
    }
}

/// Runs a hook in a directory, if there is one. Its output goes into the hooks' log; an error quotes the end of it.
pub fn run(app: &App, hook: Hook, about: &About, directory: &Path, deadline: Deadline) -> Result<()> {
    let Some(path) = find(app, hook)? else { return Ok(()) };
    let log = app.hooks_log();
    let release = about.release.as_ref().map_or("no release", ReleaseId::as_str);
    logfile::open_for(&log, &format!("{} for {release}", hook.name()))?;
    let run = Run::new(&path, [] as [&str; 0]).environment(app.common_environment()?).environment(about.variables());
    // What others do may be done for good, or go on behind the hook.
    let run = if hook.builds() { run.expendable() } else { run };
    let what = format!("hooks/{}", hook.name());
    run.directory(directory).logged(&what, &log, deadline.within(app.config.hooks.timeout))
}

/// Tells the user's hooks how a deploy has ended. The end is the same whatever they say to it.
pub fn tell(app: &App, about: &About) -> Result<()> {
    let (hook, release) = match (about.outcome, &about.reason) {
        (None, _) => return Ok(()),
        (Some(_), None) => (Hook::AfterDeploy, about.release.as_ref()),
        (Some(_), Some(_)) => (Hook::OnFailure, None),
    };
    let directory = release.map_or_else(|| app.home().to_owned(), |release| app.release(release));
    run(app, hook, about, &directory, Deadline::after(app.config.hooks.timeout))
}
