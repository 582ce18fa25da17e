//! The settings that an instance runs by: those that were configured when it got its release, whatever config.toml says since.
//!
//! They lie beside the instance's link, in a file named after the instance and the release. So the turn of the link turns both,
//! the way back writes nothing, and a release that an instance had before is run again as it was run then.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use super::{App, Config, Instance, ReleaseId, config};
use crate::bounded::{self, Links};
use crate::durable;
use crate::outcome::usage;

/// How the name of such a file ends.
const SUFFIX: &str = ".toml";
/// How the name ends of the settings that others are about to replace.
const BEFORE: &str = ".before";
/// The directory of the instances' links, in the home.
pub(super) const INSTANCES: &str = "instances";
/// Commands may hold secrets.
const MODE: u32 = 0o600;
/// The sections by which a running instance goes; a container also by `[compose]`.
pub const SETTINGS: [&str; 3] = ["run", "health", "worker"];
/// What the files say of themselves.
const HEADING: &str = "\
# What an instance runs by: config.toml, without the source's address, as it was when the instance got its release.
# To change it, change config.toml, and run reload or deploy.
";

/// The settings that an instance had before a change: the way back.
#[derive(Debug)]
pub struct Saved {
    /// Where they lie.
    file: PathBuf,
    /// What they say; None: there are none.
    text: Option<String>,
}

impl App {
    /// The release that an instance has; None when it has none yet.
    pub fn release_of(&self, instance: &Instance) -> Result<Option<ReleaseId>> {
        release_at(&self.instance_link(instance)).with_context(|| format!("cannot tell the release of {instance}"))
    }

    /// Where the settings lie by which an instance runs a release.
    pub fn settings_file(&self, instance: &Instance, release: &ReleaseId) -> PathBuf {
        self.instances().join(format!("{instance}.{release}{SUFFIX}"))
    }

    /// This app with the settings by which an instance runs its release, or would. Where none are recorded, as for a container
    /// that somebody else has started, the configured ones count.
    pub fn as_run(&self, instance: &Instance) -> Result<App> {
        let Some(release) = self.release_of(instance)? else { return Ok(self.clone()) };
        let file = self.settings_file(instance, &release);
        let Some(text) = read(&file)? else { return Ok(self.clone()) };
        let recorded = Config::recorded(&text).map_err(|mistake| {
            usage(format!("cannot use {}: {mistake}; without it, config.toml counts", file.display()))
        })?;
        Ok(self.by(recorded))
    }

    /// This app with the settings of each release that an instance has, or had, and with those of config.toml, by which one may have
    /// failed to start; as far as they can be read.
    pub fn as_ever_run(&self, instance: &Instance) -> Vec<App> {
        let files = fs::read_dir(self.instances()).into_iter().flatten().flatten().map(|entry| entry.path());
        let of_instance = files.filter(|file| {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            name.strip_suffix(SUFFIX).and_then(|name| name.split_once('.')).is_some_and(|(of, _)| of == instance.name())
        });
        let recorded =
            of_instance.chain([self.config_file()]).filter_map(|file| Config::recorded(&read(&file).ok()??).ok());
        recorded.map(|recorded| self.by(recorded)).collect()
    }

    /// This app with recorded settings. Those of a container say nothing of processes, nor the other way round.
    fn by(&self, recorded: Config) -> App {
        let fits = recorded.runs_containers() == self.config.runs_containers();
        let config = if fits { self.config.clone().with_settings(recorded) } else { self.config.clone() };
        App { config, ..self.clone() }
    }

    /// Whether an instance runs its release by what is configured now, so far as is known.
    pub fn runs_as_wanted(&self, instance: &Instance) -> Result<bool> {
        let Some(release) = self.release_of(instance)? else { return Ok(true) };
        let recorded = read(&self.settings_file(instance, &release))?;
        Ok(recorded.is_none_or(|text| sections(&text) == sections(&self.config.text)))
    }

    /// Records what is configured now as the settings by which an instance runs a release, from its next start on.
    pub fn record_settings(&self, instance: &Instance, release: &ReleaseId) -> Result<()> {
        let file = self.settings_file(instance, release);
        let text = settings_text(&self.config.text)?;
        // The way back is a rename, which a full disk does not prevent.
        let before = before(&file);
        let _ = durable::remove_if_there(&before);
        if read(&file).ok().flatten().as_ref() == Some(&text) {
            return Ok(());
        }
        let _ = fs::hard_link(&file, &before);
        durable::write(&file, text.as_bytes(), MODE)
    }

    /// Records them unless there are any. That this fails, on a full disk, is no reason not to run the instance.
    pub fn record_settings_once(&self, instance: &Instance, release: &ReleaseId) {
        if !self.settings_file(instance, release).exists() {
            let _ = self.record_settings(instance, release);
        }
    }

    /// Has an instance run a release by the settings by which the other one has run it; else by what is configured.
    pub fn take_over_settings(&self, instance: &Instance, release: &ReleaseId) -> Result<()> {
        let own = self.settings_file(instance, release);
        if own.exists() {
            return Ok(());
        }
        match read(&self.settings_file(self.other(instance), release))? {
            Some(text) => durable::write(&own, text.as_bytes(), MODE),
            None => self.record_settings(instance, release),
        }
    }

    /// Remembers the settings by which an instance runs a release.
    pub fn saved_settings(&self, instance: &Instance, release: &ReleaseId) -> Result<Saved> {
        let file = self.settings_file(instance, release);
        read(&file).map(|text| Saved { file, text })
    }

    /// Whether a change of the settings by which an instance runs a release was left undone.
    pub fn has_replaced_settings(&self, instance: &Instance, release: &ReleaseId) -> bool {
        before(&self.settings_file(instance, release)).exists()
    }

    /// Gives an instance back the settings by which it ran a release before a change that was left undone; where there were none,
    /// those that the change has brought go, unless `keep`.
    pub fn undo_settings(&self, instance: &Instance, release: &ReleaseId, keep: bool) -> Result<()> {
        let file = self.settings_file(instance, release);
        let undone = match before(&file).exists() {
            true => take_back(&file),
            false if keep => Ok(()),
            false => durable::remove_if_there(&file),
        };
        undone.with_context(|| format!("cannot put {} back", file.display()))
    }

    /// Removes the settings of releases that there are no more, and what changes have replaced.
    pub fn prune_settings(&self, releases: &[ReleaseId]) -> io::Result<()> {
        for entry in fs::read_dir(self.instances())?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_needed = match name.strip_suffix(SUFFIX).and_then(|name| name.split_once('.')) {
                Some((_, release)) => releases.iter().any(|kept| kept.as_str() == release),
                None => !name.ends_with(BEFORE),
            };
            if !is_needed {
                durable::remove_if_there(&entry.path())?;
            }
        }
        Ok(())
    }

    /// What lies in the home of an app that runs by older settings than are recorded: config.toml's text as it is now, for each
    /// instance that has a release and no settings, with its place.
    pub fn unrecorded_settings(&self) -> Result<Vec<(PathBuf, String)>> {
        let Some(present) = read(&self.config_file())?.filter(|text| Config::parse(text).is_ok()) else {
            return Ok(Vec::new());
        };
        let mut unrecorded = Vec::new();
        for instance in &self.config.instances {
            let Some(release) = self.release_of(instance)? else { continue };
            let file = self.settings_file(instance, &release);
            if !file.exists() {
                unrecorded.push((file, settings_text(&present)?));
            }
        }
        Ok(unrecorded)
    }
}

impl Saved {
    /// Whether the instance has others by now.
    pub fn differ(&self) -> Result<bool> {
        Ok(read(&self.file)? != self.text)
    }

    /// Gives the instance its settings back.
    pub fn restore(&self) -> Result<()> {
        let restored = match &self.text {
            None => durable::remove_if_there(&self.file),
            Some(text) if read(&before(&self.file)).ok().flatten().as_ref() == Some(text) => take_back(&self.file),
            Some(text) => return durable::write(&self.file, text.as_bytes(), MODE),
        };
        restored.with_context(|| format!("cannot put {} back", self.file.display()))
    }
}

/// The configuration by which the app of a home runs, as it is recorded with its instances: with that of the enabled one where
/// `is_enabled` tells which that is. None: nothing is recorded that can be used.
pub(super) fn recorded(home: &Path, is_enabled: impl Fn(&Config, &Instance) -> bool) -> Option<Config> {
    let mut found = Vec::new();
    for entry in fs::read_dir(home.join(INSTANCES)).ok()?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some((instance, release)) = name.strip_suffix(SUFFIX).and_then(|name| name.split_once('.')) else {
            continue;
        };
        let present = release_at(&home.join(INSTANCES).join(instance)).ok().flatten();
        if present.is_some_and(|present| present.as_str() == release) {
            let config = read(&entry.path()).ok().flatten().and_then(|text| Config::recorded(&text).ok());
            found.extend(config.map(|config| (instance.to_owned(), config)));
        }
    }
    let enabled = found.iter().position(|(name, config)| {
        config.instances.iter().any(|instance| instance.name() == name && is_enabled(config, instance))
    });
    (!found.is_empty()).then(|| found.swap_remove(enabled.unwrap_or(0)).1)
}

/// The release that a link leads to; None: there is no link.
fn release_at(link: &Path) -> Result<Option<ReleaseId>> {
    let target = match fs::read_link(link) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.with_context(|| link.display().to_string())?,
    };
    target.file_name().unwrap_or_default().to_string_lossy().parse().map(Some)
}

/// What a file holds; None: there is none.
fn read(file: &Path) -> Result<Option<String>> {
    match bounded::read_text(file, Links::Refused, bounded::LARGE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some).with_context(|| format!("cannot read {}", file.display())),
    }
}

/// Where the settings lie that others are about to replace.
fn before(file: &Path) -> PathBuf {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    file.with_file_name(format!("{name}{BEFORE}"))
}

/// Puts settings in the place of those that have replaced them. That takes no room.
fn take_back(file: &Path) -> io::Result<()> {
    fs::rename(before(file), file).and_then(|()| durable::sync_directory_of(file))
}

/// What is recorded of a configuration: all but the address of the source, which may hold a password.
fn settings_text(config: &str) -> Result<String> {
    let mut table: toml::Table = config.parse().map_err(|error: toml::de::Error| anyhow!("{}", error.message()))?;
    if let Some(source) = table.get_mut("source").and_then(toml::Value::as_table_mut) {
        source.remove("git");
    }
    Ok(format!("{HEADING}{table}"))
}

/// The sections by which a running instance goes; those that are not there are None.
fn sections(text: &str) -> Vec<Option<toml::Value>> {
    let mut table: toml::Table = text.parse().unwrap_or_default();
    let mut sections: Vec<_> = SETTINGS.iter().map(|section| table.remove(*section)).collect();
    let runner = table.get("runner").and_then(toml::Value::as_str);
    if let (None | Some("compose"), Some(toml::Value::Table(compose))) = (runner, table.get("compose")) {
        let mut run_by = compose.clone();
        run_by.retain(|key, _| !config::OF_IMAGES.contains(&key));
        sections.push(Some(run_by.into()));
    }
    sections
}
