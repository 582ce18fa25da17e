//! What root tells systemd: to run bootup when the machine starts, and for the `systemd` runner how to run an instance, with
//! what sudo lets the app's user do about that.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::step::{self, Step};
use crate::app::config::OPEN_FILES;
use crate::app::{App, Config, LAID, Runner};
use crate::command::{self, Run};
use crate::deadline::Deadline;
use crate::durable;
use crate::outcome::usage;
use crate::runner::systemd::{self, Order};

/// Is there when systemd is PID 1, as sd_booted(3) says.
const BOOTED: &str = "/run/systemd/system";
/// How long systemd may take to read its units again.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many files systemd lets a service open at first (systemd.exec(5)).
const FEW_OPEN_FILES: u64 = 1024;
/// What systemd adds to the time that the app has, so that it never comes before our own deadlines.
const SLACK: Duration = Duration::from_secs(10);

/// How long bootup may wait for a deploy that is under way, and how long for an image that has gone.
const WAIT: Duration = Duration::from_secs(5 * 60);
const PULL: Duration = Duration::from_secs(30 * 60);

/// What runs, or lets somebody in, when the owner logs in.
const LOGIN_FILES: [&str; 12] = [
    ".profile",
    ".bash_profile",
    ".bash_login",
    ".bash_logout",
    ".bashrc",
    ".zshenv",
    ".zprofile",
    ".zshrc",
    ".zlogin",
    ".config/fish",
    ".ssh",
    ".config/systemd",
];

/// What ties bootup to Docker: one that died and was started again has stopped its containers, and leaves them so.
const WITH_DOCKER: &str =
    "# A Docker that is started again may have left its containers stopped.\nPartOf=docker.service\n";

/// Where packages, and people, lay pages for man(1).
const MANUALS: [&str; 2] = ["/usr/share/man", "/usr/local/share/man"];

/// Whether systemd runs this machine.
pub fn is_booted() -> bool {
    Path::new(BOOTED).is_dir()
}

/// A file that systemd or sudo reads.
struct Part {
    file: PathBuf,
    template: &'static str,
    /// The links by which systemd starts it at boot, or with Docker.
    links: Vec<PathBuf>,
    /// Whether this configuration asks for it.
    is_wanted: bool,
    kind: Kind,
}

/// What systemd does with a part.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing: it is sudo's.
    Sudoers,
    /// It runs each instance in a unit of its own.
    Instances,
    /// It is started by tools, at boot, or by another part.
    Passive,
    /// It is started as soon as it is laid, and waits for something.
    Waiting,
}

/// All parts, the grant first and the instances' template, by which the tools know that systemd runs the app, last.
fn parts(app: &App) -> Vec<Part> {
    let is_compose = app.runner() == Runner::Compose;
    let (is_webhook, is_polled) = (app.config.webhook().is_some(), app.config.poll().is_some());
    let part = |file: PathBuf, template, is_wanted, kind| Part { file, template, links: Vec::new(), is_wanted, kind };
    let push = |suffix: &str, template, is_wanted, kind| part(app.push_unit_file(suffix), template, is_wanted, kind);
    let wanted_by = |target: &str, part: Part| {
        let link = app.wants_link(target, &part.file);
        Part { links: vec![link], ..part }
    };
    let mut bootup = wanted_by(
        "multi-user.target",
        part(app.bootup_unit_file(), include_str!("../../systemd/bootup.service"), true, Kind::Passive),
    );
    if is_compose {
        bootup.links.push(app.wants_link("docker.service", &bootup.file));
    }
    let socket = push("-push.socket", include_str!("../../systemd/push.socket"), is_webhook, Kind::Waiting);
    let path = push("-queue.path", include_str!("../../systemd/queue.path"), is_webhook, Kind::Waiting);
    let timer = push("-poll.timer", include_str!("../../systemd/poll.timer"), is_polled, Kind::Waiting);
    vec![
        part(app.sudoers_file(), include_str!("../../systemd/sudoers"), !is_compose, Kind::Sudoers),
        bootup,
        push("-push@.service", include_str!("../../systemd/push.service"), is_webhook, Kind::Passive),
        push("-queue.service", include_str!("../../systemd/queue.service"), is_webhook, Kind::Passive),
        push("-poll.service", include_str!("../../systemd/poll.service"), is_polled, Kind::Passive),
        wanted_by("sockets.target", socket),
        wanted_by("paths.target", path),
        wanted_by("timers.target", timer),
        part(app.unit_file(), include_str!("../../systemd/instance.service"), !is_compose, Kind::Instances),
    ]
}

/// The steps that lay it. Fails when the app's place cannot be written in systemd's language, when a program is missing, or
/// when something of somebody else's is in the way.
pub fn steps(app: &App) -> Result<Vec<Step>> {
    if !is_booted() {
        let remedy = "set runner = \"direct\"";
        return Err(usage(format!("cannot use the systemd runner: systemd does not run this machine; {remedy}")));
    }
    let values = values(app)?;
    let mut steps = Vec::new();
    for part in parts(app).into_iter().filter(|part| part.is_wanted) {
        let Part { file, template, links, kind, .. } = part;
        if file.symlink_metadata().is_ok() && !is_laid(&file) {
            bail!("cannot lay {}: one that is not of cutover's making is there; move it away", file.display());
        }
        if is_laid(&file) && !is_ours(app, &file) {
            bail!("cannot lay {}: it is another app's, or another home's; give the app another name", file.display());
        }
        for link in &links {
            let is_free = link.symlink_metadata().is_err();
            if !is_free && fs::read_link(link).ok().as_ref() != Some(&file) {
                bail!("cannot lay {}: something that is not this app's is there; move it away", link.display());
            }
        }
        if let Some(unit) = units_of(app, &file, kind).first() {
            let question = ["show", "--property=FragmentPath", "--value", unit].map(str::to_owned);
            let present = systemctl(question)?.trim().to_owned();
            if !present.is_empty() && Path::new(&present) != file {
                bail!("cannot call a unit {unit}: {present} is one already; give the app another name");
            }
        }
        let filled = values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(name, value));
        steps.push(match kind {
            Kind::Sudoers => {
                step::check_sudoers(filled.as_bytes())?;
                Step::sudoers(file.clone(), filled.into_bytes())
            }
            _ => Step::root_file(file.clone(), filled.into_bytes(), 0o644),
        });
        steps.extend(links.into_iter().map(|link| Step::root_link(link, file.clone())));
    }
    Ok(steps)
}

/// The units that a file is there for; none for one that is started for each connection anew.
fn units_of(app: &App, file: &Path, kind: Kind) -> Vec<String> {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match kind {
        Kind::Sudoers => Vec::new(),
        Kind::Instances => app.config.instances.iter().map(|one| app.instance_unit(one)).collect(),
        Kind::Passive | Kind::Waiting if name.contains('@') => Vec::new(),
        Kind::Passive | Kind::Waiting => vec![name],
    }
}

/// Whether a file is one of ours.
fn is_laid(path: &Path) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.contains(LAID))
}

/// Whether a file of ours is this app's. Those of version 0.1.0 do not say whose they are: of them the templates name the
/// home, and the other names are one app's only.
fn is_ours(app: &App, file: &Path) -> bool {
    let text = fs::read_to_string(file).unwrap_or_default();
    let is_of_old = text.contains(&format!("{LAID};")) || text.contains(&format!("{LAID}."));
    let is_ours_of_old = is_of_old && (!file.to_string_lossy().contains('@') || app.is_laid_for_us(file));
    app.is_marked(&text) || is_ours_of_old
}

/// What sudo calls the commands that the app's user may run: all files of sudoers(5) share these names.
pub fn alias(app: &App) -> String {
    format!("CUTOVER_{}", app.name().to_uppercase().replace('-', "_"))
}

/// What the templates' `{{names}}` stand for.
fn values(app: &App) -> Result<Vec<(&'static str, String)>> {
    let account = &app.owner;
    // A name that sudo or systemd might read otherwise is given as a number.
    let is_plain = account.name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        // ALL is everybody to sudo, and a name of capitals an alias.
        && account.name.bytes().any(|byte| byte.is_ascii_lowercase())
        && account.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    let number = account.uid.to_string();
    let mut commands = Vec::new();
    for instance in app.config.instances.iter().filter(|_| app.runner() != Runner::Compose) {
        for order in Order::ALL {
            let program = command::find(order.program())?.display().to_string();
            let words: Vec<String> = order.arguments(app, instance).iter().map(|word| sudoers_word(word)).collect();
            commands.push(format!("{program} {}", words.join(" ")));
        }
    }
    if !commands.is_empty() {
        command::find("sudo")?;
    }
    let config = &app.config;
    Ok(vec![
        ("{{app}}", app.name().to_owned()),
        ("{{user}}", if is_plain { account.name.clone() } else { number.clone() }),
        ("{{group}}", account.gid.to_string()),
        ("{{owner}}", if is_plain { account.name.clone() } else { format!("user {number}") }),
        ("{{sudo_user}}", if is_plain { account.name.clone() } else { format!("#{number}") }),
        ("{{alias}}", alias(app)),
        ("{{bin}}", unit_path(&app.bin())?),
        ("{{home}}", unit_path(app.home())?),
        ("{{login_files}}", login_files(app)?),
        ("{{with_docker}}\n", if app.runner() == Runner::Compose { WITH_DOCKER } else { "" }.to_owned()),
        ("{{push_port}}", config.webhook().map_or_else(String::new, |push| push.port.to_string())),
        ("{{poll_seconds}}", config.poll().map_or_else(String::new, |poll| poll.as_secs_f64().to_string())),
        ("{{commands}}", commands.join(", \\\n    ")),
        ("{{limits}}\n", limits(config)),
        ("{{documentation}}\n", documentation(&MANUALS.map(Path::new)).to_owned()),
        ("{{bootup_seconds}}", bootup_seconds(app).to_string()),
        ("{{start_seconds}}", (config.health.timeout + SLACK).as_secs().to_string()),
        ("{{stop_seconds}}", (config.run.stop_timeout + SLACK).as_secs().to_string()),
    ])
}

/// Where a unit says that more can be read: nowhere, when the machine has no such page, as after an installation from the
/// archive. systemctl(1) and systemd-analyze(1) report one that is missing.
fn documentation(manuals: &[&Path]) -> &'static str {
    let pages = ["man7/cutover.7", "man7/cutover.7.gz"];
    let has_page = |manual: &&Path| pages.iter().any(|page| manual.join(page).is_file());
    if manuals.iter().any(has_page) { "Documentation=man:cutover(7)\n" } else { "" }
}

/// What an instance may have of the machine, as a unit says it. Before systemd ends a process for its memory, supervise has
/// replaced it: there is room for all programs, each at its limit, twice. The rest supervise sets by the settings of the
/// instance's release; the unit only lets it do what needs root.
fn limits(config: &Config) -> String {
    let run = &config.run;
    let lines = [
        config.memory().map(|bytes| format!("MemoryMax={}\n", bytes.saturating_mul(2))),
        run.open_files.map(|count| format!("LimitNOFILE={FEW_OPEN_FILES}:{}\n", count.max(OPEN_FILES))),
        run.nice.filter(|nice| *nice < 0).map(|nice| format!("Nice={nice}\n")),
    ];
    lines.into_iter().flatten().collect()
}

/// What decides how the owner's next login goes, as a unit takes it: where it is there, the app may not write it either.
fn login_files(app: &App) -> Result<String> {
    let Some(home) = &app.owner.home else { return Ok(String::new()) };
    let home = unit_path(home)?;
    Ok(LOGIN_FILES.iter().map(|file| format!(" -{home}/{file}")).collect())
}

/// A path as a unit file takes it.
fn unit_path(path: &Path) -> Result<String> {
    let is_fine = |c: char| !c.is_control() && !c.is_whitespace() && !"\"'\\$;".contains(c);
    let text = path.to_str().filter(|text| text.chars().all(is_fine));
    let cannot = || format!("cannot write {} into a unit of systemd's: choose a path without spaces", path.display());
    Ok(text.ok_or_else(|| usage(format!("{}, quotes, \\ $ ;", cannot())))?.replace('%', "%%"))
}

/// How long bootup may take: to start both instances, and whatever comes before.
fn bootup_seconds(app: &App) -> u64 {
    let before = if app.runner() == Runner::Compose { PULL } else { WAIT };
    (before + 2 * (app.config.health.timeout + SLACK)).as_secs()
}

/// An argument as sudoers(5) takes it.
fn sudoers_word(word: &str) -> String {
    word.chars().fold(String::new(), |text, c| match c {
        ',' | ':' | '=' | '\\' => text + "\\" + c.encode_utf8(&mut [0; 4]),
        _ => text + c.encode_utf8(&mut [0; 4]),
    })
}

/// Makes systemd read the units again where something was `laid`, and start those that wait for something. Returns what
/// came of it, in words.
pub fn take_up(app: &App, laid: bool) -> Result<Vec<String>> {
    let mut effects = Vec::new();
    let parts: Vec<Part> = parts(app).into_iter().filter(|part| part.is_wanted).collect();
    let units = parts.iter().flat_map(|part| units_of(app, &part.file, part.kind));
    let question = ["show".to_owned(), "--property=NeedDaemonReload".to_owned()];
    let is_old = systemctl(question.into_iter().chain(units))?.contains("=yes");
    if is_old || laid {
        systemctl(["daemon-reload".to_owned()])?;
    }
    if is_old {
        effects.push("systemd uses its new units".to_owned());
    }
    for part in parts.iter().filter(|part| part.kind == Kind::Waiting) {
        for unit in units_of(app, &part.file, part.kind) {
            let question = ["show", "--property=ActiveState", "--value", &unit].map(str::to_owned);
            let is_active = systemctl(question)?.trim() == "active";
            if !is_active || is_old {
                systemctl(["restart".to_owned(), unit.clone()]).with_context(|| format!("cannot start {unit}"))?;
                effects.push(format!("systemd has started {unit}"));
            }
        }
    }
    Ok(effects)
}

/// Checks as the app's user, who will need it in every deploy, whether sudo grants what was laid for that.
pub fn try_orders(app: &App) -> Result<()> {
    if app.runner() == Runner::Compose {
        return Ok(());
    }
    let cannot = || format!("cannot let {} start and stop the instances", app.owner.name);
    app.owner.lend(|| systemd::try_orders(app)).with_context(cannot)
}

/// The files that this configuration does not ask for.
pub fn unwanted(app: &App) -> Vec<PathBuf> {
    parts(app).into_iter().filter(|part| !part.is_wanted).map(|part| part.file).collect()
}

/// All that is laid here.
pub fn all(app: &App) -> Vec<PathBuf> {
    parts(app).into_iter().map(|part| part.file).collect()
}

/// Stops the units of these files, takes the files away, and makes systemd forget them; returns what is gone.
pub fn take_away(app: &App, files: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let ours: Vec<Part> =
        parts(app).into_iter().filter(|part| files.contains(&part.file) && is_ours(app, &part.file)).collect();
    // What waits first: it would start others.
    let mut stopped: Vec<&Part> = ours.iter().collect();
    stopped.sort_by_key(|part| part.kind != Kind::Waiting);
    let stopped: Vec<String> = stopped.into_iter().flat_map(|part| units_of(app, &part.file, part.kind)).collect();
    if is_booted() && !stopped.is_empty() {
        let patience = app.config.run.stop_timeout + PATIENCE;
        systemctl_within(patience, std::iter::once("stop".to_owned()).chain(stopped.clone()))?;
    }
    let links = ours.iter().flat_map(|part| {
        let of_docker = app.wants_link("docker.service", &part.file);
        part.links.iter().cloned().chain([of_docker]).collect::<std::collections::BTreeSet<PathBuf>>()
    });
    let links: Vec<PathBuf> =
        links.filter(|link| fs::read_link(link).is_ok_and(|target| files.contains(&target))).collect();
    let gone: Vec<PathBuf> = links.iter().cloned().chain(ours.iter().map(|part| part.file.clone())).collect();
    for path in &gone {
        durable::remove(path)?;
    }
    for directory in links.iter().filter_map(|link| link.parent()) {
        // Only if it is empty: others have their links there too.
        let _ = fs::remove_dir(directory);
    }
    if is_booted() && !gone.is_empty() {
        systemctl(["daemon-reload".to_owned()])?;
        // What was ended in the middle of its work has failed, in systemd's eyes, and would be remembered.
        let _ = systemctl(std::iter::once("reset-failed".to_owned()).chain(stopped));
    }
    Ok(gone)
}

fn systemctl(arguments: impl IntoIterator<Item = String>) -> Result<String> {
    systemctl_within(PATIENCE, arguments)
}

fn systemctl_within(patience: Duration, arguments: impl IntoIterator<Item = String>) -> Result<String> {
    let run = Run::new(&command::find("systemctl")?, arguments).output(Deadline::after(patience));
    run.map(|output| output.stdout).context("cannot talk to systemd")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn units_name_the_page_only_where_there_is_one() {
        let manuals = tempfile::tempdir().unwrap();
        let none = manuals.path().join("none");
        assert_eq!(documentation(&[&none, manuals.path()]), "");
        fs::create_dir(manuals.path().join("man7")).unwrap();
        fs::write(manuals.path().join("man7/cutover.7.gz"), "").unwrap();
        assert_eq!(documentation(&[&none, manuals.path()]), "Documentation=man:cutover(7)\n");
    }
}
