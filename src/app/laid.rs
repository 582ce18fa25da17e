//! What `install` has laid of the configuration: names, ports, and whatever else nginx's files and the units depend on. Until
//! `install` is run again it counts, whatever config.toml says since.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::config::roots_part;
use super::{App, Config, Record};
use crate::bounded::{self, Links};
use crate::outcome::usage;

/// Its name in the home.
const FILE: &str = ".laid.toml";

impl App {
    /// Where it lies when root has no record of it.
    pub fn laid_file(&self) -> PathBuf {
        self.home().join(FILE)
    }
}

/// What is laid of a configuration's text.
pub fn laid_text(config: &str) -> Result<String> {
    let part = roots_part(config).map_err(usage)?;
    Ok(format!("# What install has laid of config.toml: until install is run again, this counts.\n{part}"))
}

/// What was laid for the app of this home, as root has recorded it, or as it lies there; None: nobody knows.
pub fn laid(home: &Path) -> Option<Config> {
    let recorded = Record::all().into_iter().flatten().flatten().find(|record| record.home == home);
    recorded.map(|record| record.accepted).or_else(|| {
        let text = bounded::read_text(&home.join(FILE), Links::Refused, bounded::LARGE).ok()?;
        Config::of_roots_part(text.parse().ok()?).ok()
    })
}
