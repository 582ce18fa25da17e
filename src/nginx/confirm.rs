//! Asking nginx on its status port which instance its workers use, and finding out why it is another one.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::marks::Mark;
use crate::app::{App, Instance};
use crate::deadline::Deadline;
use crate::http;
use crate::process::{self, Owner};

/// Where the numbers of people's accounts begin (login.defs(5), UID_MIN); those below are root's and services'.
const PEOPLE: u32 = 1000;
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(2);
/// How long an nginx that is just restarting is waited for.
const RESTART: Duration = Duration::from_secs(1);
/// The pause between two questions.
const POLL: Duration = Duration::from_millis(20);
/// How often one is asked at least that is so slow that no answer comes.
const TIMES: u32 = 5;

/// What nginx says of itself.
pub struct Answer {
    /// The instance that the worker which answered would use.
    pub instance: String,
    /// Which rendering of the configuration it runs.
    pub configuration: String,
    /// The marks that it knows.
    marks: String,
}

impl Answer {
    /// Whether nginx goes by this mark.
    pub fn knows(&self, mark: Mark) -> bool {
        self.marks.split(' ').any(|known| known == mark.to_string())
    }

    /// Whether it has the other instance answer in the place of one that is away.
    pub fn knows_of_absence(&self) -> bool {
        self.knows(Mark::Away)
    }

    /// What nginx has not heard of that is configured, in words; None: nothing. Until then it uses one process.
    pub fn lacks(&self, app: &App) -> Option<String> {
        let count = app.config.processes();
        let lacks = count > 1 && !self.knows(Mark::Processes(count));
        lacks.then(|| format!("nginx does not know of {count} processes yet: run install again"))
    }
}

/// Why there is no answer of ours.
pub enum Refusal {
    /// The status port did not answer.
    Silent(String),
    /// Somebody else answered on it.
    Stranger(String),
    /// It uses another instance than it should.
    Elsewhere(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Refusal::Silent(reason) | Refusal::Stranger(reason) | Refusal::Elsewhere(reason)) = self;
        f.write_str(reason)
    }
}

/// Asks once.
pub fn ask(app: &App) -> Result<Answer, Refusal> {
    let port = app.config.nginx.status_port;
    // nginx listens as root, as a service, or as the app's own user. A person who does so could say whatever nginx would.
    let listener = process::stranger(port.number(), app.owner.uid).ok().flatten();
    if let Some(stranger) = listener.filter(|uid| uid.as_raw() >= PEOPLE) {
        return Err(Refusal::Stranger(format!(
            "{} answers on nginx's status port 127.0.0.1:{port}: end it, and start nginx",
            Owner::Hidden(stranger).in_words()
        )));
    }
    let answer = http::get(port.number(), "/instance", ANSWER).map_err(|reason| {
        let remedy = if app.config.nginx.own { "run bootup" } else { "start nginx" };
        Refusal::Silent(format!(
            "nginx does not answer on its status port 127.0.0.1:{port} ({reason}): {remedy}, or run install again if it runs"
        ))
    })?;
    let header =
        |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    if header("cutover-app") != app.name() {
        let reason = format!(
            "another server answers on 127.0.0.1:{port} (status {}): give [nginx] status_port a free port and run install again",
            answer.status
        );
        return Err(Refusal::Stranger(reason));
    }
    let instance = String::from_utf8_lossy(&answer.body).trim().to_owned();
    Ok(Answer { instance, configuration: header("cutover-configuration"), marks: header("cutover-marks") })
}

/// Makes sure that nginx uses `target`. An nginx that does not answer is given a moment, in case it is restarting, and a
/// few more when it is only slow.
pub fn confirm(app: &App, target: &Instance) -> Result<(), Refusal> {
    let patience = Deadline::after(RESTART);
    let mut asked = 0;
    loop {
        asked += 1;
        match ask(app) {
            Ok(answer) if answer.instance == target.name() => return Ok(()),
            Ok(answer) => {
                let reason = format!("nginx still uses {}: {}", answer.instance, diagnose(app));
                return Err(Refusal::Elsewhere(reason));
            }
            Err(Refusal::Silent(_)) if asked < TIMES || !patience.passed() => thread::sleep(POLL),
            Err(refusal) => return Err(refusal),
        }
    }
}

fn diagnose(app: &App) -> String {
    match closed_directory(app) {
        Some(closed) => format!("its workers may not search {0}; chmod o+x {0}", closed.display()),
        None => format!(
            "another configuration is in the way of the one that looks at {}; run install again",
            app.state().display()
        ),
    }
}

/// The first directory on the way to what nginx looks at that others may not search, nginx's workers among them; None: none
/// is closed, or nginx is the user's own.
pub fn closed_directory(app: &App) -> Option<PathBuf> {
    if app.config.nginx.own {
        return None;
    }
    let state = app.state();
    // Where the caller may not search it either, there is no other path to it that can be told.
    let real = fs::canonicalize(&state).unwrap_or(state);
    let mut ancestors: Vec<&Path> = real.ancestors().collect();
    ancestors.reverse();
    let closed =
        ancestors.into_iter().find(|directory| fs::metadata(directory).is_ok_and(|meta| meta.mode() & 0o001 == 0));
    closed.map(Path::to_owned)
}
