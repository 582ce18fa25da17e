//! The nginx program: finding it, testing and laying its configuration, starting, reloading and stopping it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::confirm;
use super::render::{Build, Files, Version, is_as_laid};
use crate::app::App;
use crate::command::{self, Output, Run};
use crate::deadline::Deadline;
use crate::durable;
use crate::outcome::quote;
use crate::process::{self, Pid};

/// How long nginx may take to test its configuration, or to act on a signal.
const PATIENCE: Duration = Duration::from_secs(20);

/// nginx as this app uses it: the system's, or one of the user's own.
pub struct Nginx {
    binary: PathBuf,
    prefix: Option<PathBuf>,
}

/// What laying the files came to.
#[derive(Debug, Default)]
pub struct Laid {
    /// The files that changed.
    pub changed: Vec<PathBuf>,
    /// The user's server block, edited and therefore left alone.
    pub left_alone: Option<PathBuf>,
    /// What nginx finds odd in its whole configuration, such as another server block of the same name.
    pub warnings: Vec<String>,
    /// What became of nginx itself; None: it used these files already.
    pub effect: Option<&'static str>,
}

impl Nginx {
    /// Finds the program.
    pub fn find(app: &App) -> Result<Nginx> {
        let prefix = app.config.nginx.own.then(|| app.own_nginx());
        Ok(Nginx { binary: command::find("nginx")?, prefix })
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        let mut words: Vec<std::ffi::OsString> = Vec::new();
        if let Some(prefix) = &self.prefix {
            words.extend(["-p".into(), prefix.into(), "-c".into(), "nginx.conf".into()]);
        }
        words.extend(arguments.iter().map(Into::into));
        Run::new(&self.binary, words).output(Deadline::after(PATIENCE))
    }

    /// What it can.
    pub fn build(&self) -> Result<Build> {
        let said = self.run(&["-V"])?.stderr;
        let numbers = said.split_once("nginx/").map(|(_, rest)| rest.split_whitespace().next().unwrap_or_default());
        let mut parts = numbers.unwrap_or_default().split('.').map(str::parse);
        match (parts.next(), parts.next(), parts.next()) {
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch))) => {
                let counts = said.contains("--with-http_stub_status_module");
                Ok(Build { version: Version(major, minor, patch), counts })
            }
            _ => bail!("cannot tell nginx's version from {said:?}"),
        }
    }

    /// Fails when nginx refuses the configuration that is there already; the system's, for one's own is all of our making.
    pub fn check(&self) -> Result<()> {
        if self.prefix.is_some() {
            return Ok(());
        }
        self.run(&["-t", "-q"]).map(drop).context("nginx refuses its present configuration: mend that first")
    }

    /// The files that [`Nginx::lay`] would change.
    pub fn pending(&self, files: &Files) -> Result<Vec<PathBuf>> {
        Ok(differing(files)?.into_iter().filter(|one| !one.is_edited).map(|one| one.path.to_owned()).collect())
    }

    /// Lays what differs, lets nginx test it, and makes it take effect. When nginx refuses it, everything is put back.
    pub fn lay(&self, app: &App, files: &Files) -> Result<Laid> {
        let mut laid = Laid::default();
        let mut undo: Vec<(PathBuf, Option<String>)> = Vec::new();
        for Differing { path, text, present, is_edited } in differing(files)? {
            if is_edited {
                laid.left_alone = Some(path.to_owned());
                continue;
            }
            fs::create_dir_all(path.parent().unwrap_or(path))
                .with_context(|| format!("cannot make the directory of {}", path.display()))?;
            durable::write(path, text.as_bytes(), 0o644)?;
            undo.push((path.to_owned(), present));
            laid.changed.push(path.to_owned());
        }
        match self.take_up(app, files, &mut laid) {
            Ok(()) => Ok(laid),
            Err(refusal) => {
                put_back(undo)?;
                Err(refusal.context("nginx refuses the new configuration, the old one is back"))
            }
        }
    }

    /// Makes nginx use its files: tested first, and confirmed by nginx afterwards, for `-s reload` returns before it takes
    /// effect, and an nginx that refuses a file then only says so in its log.
    fn take_up(&self, app: &App, files: &Files, laid: &mut Laid) -> Result<()> {
        if !laid.changed.is_empty() {
            let tested = self.run(&["-t"])?;
            let warnings = tested.stderr.lines().filter(|line| line.contains("[warn]"));
            laid.warnings = warnings.map(|line| format!("nginx warns: {}", quote([line], 1))).collect();
        }
        if self.is_running(app) {
            if self.uses(app, files) {
                return Ok(());
            }
            self.run(&["-s", "reload"])?;
        } else if self.prefix.is_some() {
            self.run(&[])?;
        } else {
            let idle = "nginx does not run: start it, and it will use its new files";
            laid.effect = (!laid.changed.is_empty()).then_some(idle);
            return Ok(());
        }
        self.await_configuration(app, files)?;
        laid.effect = Some("nginx uses them");
        Ok(())
    }

    /// Removes our files, and the server block unless it was edited, and makes nginx forget them. When nginx then cannot
    /// do without them, because somebody's server block includes them, they are put back.
    pub fn take_away(&self, app: &App, files: &Files) -> Result<Vec<PathBuf>> {
        // One of the user's own has no other sites to serve, and cannot be told to stop without its files.
        self.stop(app)?;
        let mut undo = Vec::new();
        let server = files.server.iter();
        let is_unedited = |path: &Path| read(path).ok().flatten().is_some_and(|text| is_as_laid(&text));
        let server = server.filter(|(path, _)| self.prefix.is_some() || is_unedited(path));
        // What includes others goes before them, so that nginx could be started at any moment between two of them.
        for (path, _) in server.chain(files.ours.iter().rev()) {
            if let Some(text) = read(path)? {
                durable::remove_if_there(path).with_context(|| format!("cannot remove {}", path.display()))?;
                undo.push((path.to_owned(), Some(text)));
            }
        }
        let gone: Vec<PathBuf> = undo.iter().map(|(path, _)| path.clone()).collect();
        if self.prefix.is_none() {
            if let Err(refusal) = self.run(&["-t", "-q"]) {
                put_back(undo)?;
                let remedy = "a server block of yours still includes them: take the include lines out of it first";
                return Err(refusal.context(format!("cannot remove nginx's files: {remedy}")));
            }
            if self.is_running(app) {
                self.run(&["-s", "reload"])?;
            }
        }
        if let Some(includes) = files.ours.first().and_then(|(path, _)| path.parent()) {
            // Whatever else lies there is not ours.
            let _ = fs::remove_dir(includes);
        }
        Ok(gone)
    }

    /// Whether the running nginx says that it uses this rendering.
    fn uses(&self, app: &App, files: &Files) -> bool {
        confirm::ask(app).is_ok_and(|answer| answer.configuration == files.digest)
    }

    /// Starts an nginx of the user's own, unless it runs.
    pub fn start(&self, app: &App) -> Result<bool> {
        if self.prefix.is_none() {
            bail!("cannot start the system's nginx: it is not the app's own");
        }
        if self.is_running(app) {
            return Ok(false);
        }
        self.run(&[])?;
        Ok(true)
    }

    /// Stops an nginx of the user's own once its requests are answered; the system's is left alone.
    fn stop(&self, app: &App) -> Result<()> {
        // Without its file it was told so already, by a removal that was interrupted, and is about to end.
        let has_file = self.prefix.as_ref().is_some_and(|prefix| prefix.join("nginx.conf").exists());
        if has_file && self.is_running(app) {
            self.run(&["-s", "quit"])?;
        }
        Ok(())
    }

    /// Whether it runs. An nginx of the user's own is known by the error log that its master holds open.
    fn is_running(&self, app: &App) -> bool {
        match &self.prefix {
            Some(prefix) => {
                let pid = fs::read_to_string(prefix.join("nginx.pid")).unwrap_or_default();
                let log = prefix.join("logs/error.log");
                pid.trim().parse().is_ok_and(|pid| process::has_open(Pid::from_raw(pid), &log))
            }
            None => confirm::ask(app).is_ok() || process::any_is_program("nginx"),
        }
    }

    /// Waits until nginx says that it uses this rendering.
    fn await_configuration(&self, app: &App, files: &Files) -> Result<()> {
        let deadline = Deadline::after(PATIENCE);
        loop {
            let reason = match confirm::ask(app) {
                Ok(answer) if answer.configuration == files.digest => return Ok(()),
                Ok(_) => "nginx keeps its old configuration; its error log says why".to_owned(),
                Err(confirm::Refusal::Stranger(reason)) => bail!("{reason}"),
                Err(silent) => silent.to_string(),
            };
            if !deadline.sleep(Duration::from_millis(10)) {
                bail!("{reason}");
            }
        }
    }
}

fn read(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// A file that is not as it should be.
struct Differing<'a> {
    path: &'a Path,
    text: &'a str,
    present: Option<String>,
    /// Whether it is the server block, and the user has edited it.
    is_edited: bool,
}

fn differing(files: &Files) -> Result<Vec<Differing<'_>>> {
    let ours = files.ours.iter().map(|file| (file, false));
    let server = files.server.iter().map(|file| (file, true));
    let mut found = Vec::new();
    for ((path, text), is_server) in ours.chain(server) {
        let present = read(path)?;
        if present.as_ref() != Some(text) {
            let is_edited = is_server && present.as_deref().is_some_and(|edited| !is_as_laid(edited));
            found.push(Differing { path, text, present, is_edited });
        }
    }
    Ok(found)
}

/// Puts files back as they were; None: they were not there.
fn put_back(files: Vec<(PathBuf, Option<String>)>) -> Result<()> {
    for (path, before) in files.into_iter().rev() {
        match before {
            Some(text) => durable::write(&path, text.as_bytes(), 0o644)?,
            None => durable::remove_if_there(&path).with_context(|| format!("cannot remove {}", path.display()))?,
        }
    }
    Ok(())
}
