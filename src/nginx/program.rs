//! The nginx program: finding it, testing and laying its configuration, starting, reloading and stopping it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use super::confirm;
use super::parse;
use super::render::{
    Build, Files, KEEPS_FOR_A_TIME_SINCE, Refuses, Version, choice_file, instance_file, is_as_laid, proxy_file,
};
use super::site::Site;
use super::workers::{self, PROGRAM, Workers};
use super::{HANDOVER, POLL};
use crate::app::App;
use crate::bounded::{self, Links};
use crate::command::{self, Output, Run};
use crate::deadline::Deadline;
use crate::durable;
use crate::outcome::{quote, usage};
use crate::process::{self, Pid};

/// How long nginx may take to test its configuration, or to act on a signal.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long to wait for an nginx that is starting and does not handle signals yet. One without a master process never seems to:
/// after this time it gets the signal anyway.
const STARTING: Duration = Duration::from_secs(5);
/// What to do when nginx does not take what an older or a newer cutover, or one for another nginx, has laid for another app.
const OF_ANOTHER_APP: &str = "nginx refuses the files of another app of cutover's: run install for that app, too";

/// What to do when nginx does not take what somebody else wrote.
const REFUSES_PRESENT: &str = "nginx refuses its present configuration: mend that first";
/// What became of ours that nginx does not take.
const REFUSES_NEW: &str = "nginx refuses the new configuration, the old one is back";

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
        Ok(Nginx { binary: command::find(PROGRAM)?, prefix })
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
                let lacks = |module: &str| said.contains(&format!("--without-http_{module}_module"));
                if let Some(module) = ["rewrite", "map", "proxy"].into_iter().find(|module| lacks(module)) {
                    bail!("cannot use this nginx: it was built without its {module} module");
                }
                let version = Version(major, minor, patch);
                Ok(Build {
                    version,
                    splits: !lacks("split_clients"),
                    counts: said.contains("--with-http_stub_status_module"),
                    limits: !lacks("limit_req"),
                    keeps: !lacks("upstream_keepalive") && version >= KEEPS_FOR_A_TIME_SINCE,
                    refuses: Refuses {
                        by_address: !lacks("access"),
                        by_password: !lacks("auth_basic"),
                        by_question: said.contains("--with-http_auth_request_module"),
                    },
                    takes_addresses: said.contains("--with-http_realip_module"),
                })
            }
            _ => bail!("cannot tell nginx's version from {said:?}"),
        }
    }

    /// Fails, before anything is changed, when a file of somebody else's is where one of ours is to be, when nginx would not
    /// read what is laid, or when it refuses the configuration that is there already for another reason than our own files:
    /// those are about to be rendered anew.
    pub fn check(&self, app: &App, files: &Files) -> Result<()> {
        refuse_foreign(app, files)?;
        if self.prefix.is_some() {
            return Ok(());
        }
        let text = match self.run(&["-T", "-q"]) {
            Ok(output) => output.stdout,
            Err(refusal) if is_about(&refusal, files.paths()) || is_half_laid(files)? => return Ok(()),
            Err(refusal) if is_about_ours(&refusal) => return Err(refusal.context(OF_ANOTHER_APP)),
            Err(refusal) => return Err(refusal.context(REFUSES_PRESENT)),
        };
        let conf_dir = &app.config.nginx.conf_dir;
        if parse::includes_in_http(&text).iter().any(|pattern| parse::takes_all_in(pattern, conf_dir)) {
            return Ok(());
        }
        let place = conf_dir.display();
        Err(usage(format!(
            "cannot lay files in {place}: nginx includes no {place}/*.conf in its http block; set conf_dir in [nginx]"
        )))
    }

    /// The files that [`Nginx::lay`] would change.
    pub fn pending(&self, files: &Files) -> Result<Vec<PathBuf>> {
        Ok(differing(files)?.into_iter().filter(|one| !one.is_edited).map(|one| one.path.to_owned()).collect())
    }

    /// Lays what differs, lets nginx test it, and makes it take effect. When nginx refuses it, everything is put back.
    ///
    /// `reached` are apps whose clients get to them, this one among them if its do. When they do not any more, because another
    /// server is asked in one's place, that is a refusal too.
    pub fn lay(&self, app: &App, files: &Files, reached: &[&App]) -> Result<Laid> {
        // Once more: somebody may have laid one meanwhile.
        refuse_foreign(app, files)?;
        let before = self.complaints();
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
        let taken = self.take_up(app, files, &before, &mut laid);
        let taken = taken.and_then(|()| match laid.effect {
            Some(_) => still_reached(app, reached).inspect_err(|_| laid.effect = None),
            None => Ok(()),
        });
        match taken {
            Ok(()) => Ok(laid),
            // What another app of ours has there is as old, and waits for its own install: together they are in nobody's way.
            Err(refusal) if before.is_none() && !is_about(&refusal, files.paths()) && is_about_ours(&refusal) => {
                Err(refusal.context(OF_ANOTHER_APP))
            }
            Err(refusal) => {
                put_back(undo)?;
                remove_empty_includes(files);
                let mut is_reached = Ok(());
                // It may have taken it up already.
                if self.is_running(app) {
                    self.reload_for_good();
                    is_reached = still_reached(app, reached);
                }
                Err(match laid.left_alone {
                    Some(_) if self.run(&["-t", "-q"]).is_err() => refusal.context(REFUSES_PRESENT),
                    Some(path) if is_reached.is_err() => {
                        // By these files nginx says that it has read the edit: else the next run would not undo it.
                        for (path, text) in &files.ours {
                            durable::write(path, text.as_bytes(), 0o644)?;
                        }
                        self.reload_for_good();
                        refusal.context(format!("nginx uses what {} was edited to: mend that", path.display()))
                    }
                    _ => refusal.context(REFUSES_NEW),
                })
            }
        }
    }

    /// Reloads a running nginx. One that is still starting would lose the signal. (It does not lose `quit`: its workers inherit
    /// that, and wake it by their end.)
    fn reload(&self) -> Result<()> {
        workers::await_started(Deadline::after(STARTING));
        self.run(&["-s", "reload"]).map(drop)
    }

    /// Reloads a running nginx, and waits until no worker uses the former files any more.
    fn reload_for_good(&self) {
        let old = Workers::now();
        if self.reload().is_ok() {
            old.await_others(Deadline::after(PATIENCE));
            old.await_leave(Deadline::after(PATIENCE));
        }
    }

    /// Makes nginx use its files: tested first, and confirmed by nginx afterwards, for `-s reload` returns before it takes
    /// effect, and an nginx that refuses a file then only says so in its log.
    fn take_up(&self, app: &App, files: &Files, before: &Option<Vec<String>>, laid: &mut Laid) -> Result<()> {
        let old = Workers::now();
        if !laid.changed.is_empty() {
            let tested = self.run(&["-t"])?;
            let warnings: Vec<&str> = warnings_in(&tested.stderr).collect();
            let is_new =
                |warning: &&&str| before.as_ref().is_none_or(|before| !before.iter().any(|one| one == **warning));
            if let Some(conflict) =
                warnings.iter().filter(is_new).find(|warning| warning.contains("conflicting server name"))
            {
                let remedy = "another site has that name; give the app another server_name in [nginx]";
                bail!("{}: {remedy}", quote([*conflict], 1));
            }
            laid.warnings = warnings.iter().map(|line| format!("nginx warns: {}", quote([*line], 1))).collect();
        }
        if self.is_running(app) {
            // Each file counts: of what was put back as it was before, the answer knows nothing.
            if laid.changed.is_empty() && self.uses(app, files) {
                return Ok(());
            }
            self.reload()?;
        } else if self.prefix.is_some() {
            self.run(&[])?;
        } else {
            let idle = "nginx does not run: start it, and it will use its new files";
            laid.effect = (!laid.changed.is_empty()).then_some(idle);
            return Ok(());
        }
        self.await_configuration(app, files)?;
        old.await_leave(Deadline::after(PATIENCE));
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
            if let Some(text) = read(path)?.filter(|text| app.is_marked(text)) {
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
                self.reload()?;
            }
        }
        remove_empty_includes(files);
        Ok(gone)
    }

    /// What nginx warns of in the configuration that is there; None: it refuses it.
    fn complaints(&self) -> Option<Vec<String>> {
        let tested = self.run(&["-t"]).ok()?;
        Some(warnings_in(&tested.stderr).map(str::to_owned).collect())
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

    /// The server blocks of others, and whether nginx reads each after that of this app; None where nginx refuses its
    /// configuration, or has that server block already.
    pub fn servers_beside(&self, files: &Files) -> Option<Vec<(parse::Server, bool)>> {
        let (path, _) = files.server.as_ref()?;
        let printed = self.run(&["-T", "-q"]).ok()?.stdout;
        // An edited one is left alone.
        differing(files).ok()?.iter().find(|one| one.path == path && !one.is_edited)?;
        let path = path.display().to_string();
        let servers = parse::servers(&printed).into_iter();
        let others = servers.filter(|server| files.paths().all(|own| own != Path::new(&server.file)));
        let beside = others.map(|server| {
            let is_behind = parse::is_read_before(&printed, &path, &server.file);
            (server, is_behind)
        });
        Some(beside.collect())
    }

    /// The files of others that may answer on a port in the app's place, because they do for any name.
    pub fn in_front_on(&self, files: &Files, port: u16) -> Vec<String> {
        let text = self.run(&["-T", "-q"]).map(|output| output.stdout).unwrap_or_default();
        let mut others = parse::default_servers(&text, port);
        others.retain(|path| files.paths().all(|own| own != Path::new(path)));
        others
    }

    /// What is wrong with server blocks that pass requests to this app, in words.
    pub fn troubles(&self, app: &App) -> Vec<String> {
        let text = self.run(&["-T", "-q"]).map(|output| output.stdout).unwrap_or_default();
        let path = |path: PathBuf| path.display().to_string();
        let (proxy, choice) = (path(proxy_file(app)), path(choice_file(app)));
        let in_words = |trouble| match trouble {
            parse::Trouble::Doubled { file, fields } => {
                format!("{file} sets {} beside {proxy}, which sends them twice: take them out of it", fields.join(", "))
            }
            parse::Trouble::Lacking { file } => format!(
                "{file} includes {proxy} in a server block without {}: clients get 502 there",
                instance_file(app).display()
            ),
        };
        parse::troubles(&text, &proxy, &[choice]).into_iter().map(in_words).collect()
    }

    /// Whether it runs. An nginx of the user's own is known by the error log that its master holds open.
    pub fn is_running(&self, app: &App) -> bool {
        match &self.prefix {
            Some(prefix) => {
                let pid =
                    bounded::read_text(&prefix.join("nginx.pid"), Links::Refused, bounded::SMALL).unwrap_or_default();
                let log = prefix.join("logs/error.log");
                pid.trim().parse().is_ok_and(|pid| process::has_open(Pid::from_raw(pid), &log))
            }
            None => confirm::ask(app).is_ok() || !process::of_program(PROGRAM).is_empty(),
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

/// Fails when the clients of one of these apps, which may be `app` itself, do not get to it any more.
fn still_reached(app: &App, apps: &[&App]) -> Result<()> {
    // An nginx that has been restarted or reloaded by somebody else meanwhile may still answer by the configuration before.
    let handover = Deadline::after(HANDOVER);
    let sites: Vec<(&App, Site)> = apps.iter().filter_map(|app| Some((*app, Site::of(app)?))).collect();
    let all_reached = || sites.iter().all(|(app, site)| site.leads_to_at_once(app));
    while all_reached() && !sites.is_empty() && handover.sleep(POLL) {}
    for (reached, site) in sites {
        site.leads_to(reached, None).map_err(|reason| match reached.name() {
            name if name == app.name() => anyhow!("{reason}; until now they did"),
            name => anyhow!(
                "{reason}: the site of the app {name} would be answered here; give {name} a server_name, or default_server \
                in listen"
            ),
        })?;
    }
    Ok(())
}

/// Removes the directory of what is included, unless something lies there.
fn remove_empty_includes(files: &Files) {
    if let Some(includes) = files.ours.first().and_then(|(path, _)| path.parent()) {
        let _ = fs::remove_dir(includes);
    }
}

/// The lines in which nginx warns of something.
fn warnings_in(said: &str) -> impl Iterator<Item = &str> {
    said.lines().filter(|line| line.contains("[warn]"))
}

/// Whether nginx refuses one of these files.
fn is_about<'a>(refusal: &anyhow::Error, mut paths: impl Iterator<Item = &'a Path>) -> bool {
    let said = format!("{refusal:#}");
    paths.any(|path| said.contains(&format!("in {}:", path.display())))
}

/// Whether nginx refuses a file of any app's that is of our making.
fn is_about_ours(refusal: &anyhow::Error) -> bool {
    let said = format!("{refusal:#}");
    let named = said.rsplit_once(" in ").and_then(|(_, place)| place.split_once(':')).map(|(path, _)| Path::new(path));
    let text = named.and_then(|path| read(path).ok().flatten());
    text.is_some_and(|text| text.contains(crate::app::LAID))
}

/// Whether some of the files are there, and some are missing or others: nginx may refuse the former for want of the latter.
fn is_half_laid(files: &Files) -> Result<bool> {
    Ok(files.paths().any(Path::exists) && differing(files)?.iter().any(|one| !one.is_edited))
}

/// Fails when a file that is to be laid or removed is there and was not laid for this app.
fn refuse_foreign(app: &App, files: &Files) -> Result<()> {
    for path in files.paths() {
        if path.symlink_metadata().is_ok_and(|meta| !meta.is_file()) {
            return Err(usage(format!(
                "cannot lay {}: something that is no file is there; move it away",
                path.display()
            )));
        }
        if read(path)?.is_some_and(|text| !app.is_marked(&text)) {
            let remedy = format!("move it away, or give the app another name than {}", app.name());
            return Err(usage(format!("cannot lay {}: one that is not this app's is there; {remedy}", path.display())));
        }
    }
    if let Some(includes) = files.ours.first().and_then(|(path, _)| path.parent()) {
        let is_there = includes.symlink_metadata();
        let is_directory = is_there.as_ref().is_ok_and(|meta| meta.is_dir());
        let entries: Vec<PathBuf> = match is_directory {
            true => fs::read_dir(includes)?.flatten().map(|entry| entry.path()).collect(),
            false => Vec::new(),
        };
        // What a killed install has begun to write.
        let begun: Vec<PathBuf> = files.paths().map(durable::beside).collect();
        let entries: Vec<PathBuf> = entries.into_iter().filter(|entry| !begun.contains(entry)).collect();
        let is_marked = |path: &PathBuf| read(path).is_ok_and(|text| text.is_some_and(|text| app.is_marked(&text)));
        if is_there.is_ok() && !is_directory || !entries.is_empty() && !entries.iter().any(is_marked) {
            let remedy = format!("move it away, or give the app another name than {}", app.name());
            return Err(usage(format!("cannot lay files in {}: it is not this app's; {remedy}", includes.display())));
        }
    }
    Ok(())
}

/// The text of a file; None: there is none. What is no file is not waited for.
fn read(path: &Path) -> Result<Option<String>> {
    match bounded::read_text(path, Links::Refused, bounded::LARGE) {
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
