//! What a release is made with, besides what it is made from. A change of either makes another release.

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::store;
use crate::app::{App, ReleaseId, Runner};
use crate::bounded::{self, Links};
use crate::fingerprint::{self, Named};
use crate::hooks;

/// How large a hook may be, in bytes: it may be a program.
const MOST: u64 = 256 << 20;

/// All of it, by hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Recipe {
    /// The build's command and the hooks around it.
    builders: Named,
    /// The variables that these get. Where nothing is built they make no difference.
    variables: Named,
}

impl Recipe {
    /// What a release would be made with now.
    pub fn of(app: &App) -> anyhow::Result<Recipe> {
        let mut recipe = Recipe::default();
        if app.runner() == Runner::Compose {
            return Ok(recipe);
        }
        if let Some(command) = &app.config.build.command {
            recipe.builders.insert("[build] command".to_owned(), fingerprint::of(command.as_bytes()));
        }
        for (name, path) in hooks::of_builds(app)? {
            let hook = bounded::read(&path, Links::Followed, MOST);
            let hook = hook.with_context(|| format!("cannot read {}", path.display()))?;
            recipe.builders.insert(name, fingerprint::of(&hook));
        }
        for (name, value) in app.common_environment()? {
            recipe.variables.insert(name.to_string_lossy().into_owned(), fingerprint::of(value.as_encoded_bytes()));
        }
        Ok(recipe)
    }

    /// Which of these releases, the newest first and all made from the same, was made with it: the newest of which that is known, or
    /// the newest of all when it was not kept of that one. Err: how it differs from the newest, in words; empty: there is none.
    pub fn made<'a>(&self, app: &App, releases: &[&'a ReleaseId]) -> Result<&'a ReleaseId, String> {
        let changes: Vec<Option<String>> = releases.iter().map(|release| self.changes_since(app, release)).collect();
        let found = match changes.first() {
            Some(None) => Some(0),
            _ => changes.iter().position(|changes| changes.as_ref().is_some_and(String::is_empty)),
        };
        let last = || changes.first().cloned().flatten().unwrap_or_default();
        found.and_then(|at| releases.get(at)).copied().ok_or_else(last)
    }

    /// What is kept of it beside a release.
    pub fn text(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string(self)?)
    }

    /// How it differs from what this release was made with, in words, empty when in nothing that makes a difference; None: that was
    /// not kept, as by a version before.
    pub fn changes_since(&self, app: &App, release: &ReleaseId) -> Option<String> {
        let kept: Recipe = serde_json::from_str(&store::kept(app, release)?).ok()?;
        if kept.builders.is_empty() && self.builders.is_empty() {
            return Some(String::new());
        }
        let parts = [(&kept.builders, &self.builders), (&kept.variables, &self.variables)];
        let changes = parts.map(|(before, after)| fingerprint::changes(before, after));
        Some(changes.into_iter().filter(|changes| !changes.is_empty()).collect::<Vec<String>>().join("; "))
    }
}
