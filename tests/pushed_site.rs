//! A site that hears of pushes.

use std::fs;
use std::path::PathBuf;

use crate::site::Site;
use crate::webhook::{github_push, send};

/// The configuration of a site that hears of pushes to `main` of octo/shop.
pub const SECTION: &str = "[push]\nrepository = \"octo/shop\"\nport = PUSH_PORT\n";

impl Site {
    /// The secret that `install` has made for the site's webhook.
    pub fn webhook_secret(&self) -> Vec<u8> {
        fs::read_to_string(self.home.join("push-secret")).unwrap().trim().as_bytes().to_vec()
    }

    /// Where its `on-push` listens.
    pub fn push_socket(&self) -> PathBuf {
        self.home.join("state/push.sock")
    }

    /// Tells the site through nginx that `main` is at this commit; the status of the answer.
    pub fn tell_of_push(&self, commit: &str, delivery: &str) -> u16 {
        send(self.address(), &github_push(&self.webhook_secret(), commit, delivery)).0
    }

    /// Whether no push waits for its deploy, and none is being deployed.
    pub fn has_worked_off(&self) -> bool {
        let lock = self.home.join("run/queued-deploy.lock");
        !self.home.join("queue/push").exists() && cutover::lock::holder(&lock).unwrap().is_none()
    }

    /// The deploys that the history knows, oldest first.
    pub fn deploys(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.home.join("logs/history.jsonl")).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.filter(|line| line["what"] == "deploy").collect()
    }
}
