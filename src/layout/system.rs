//! What root tells systemd: to run bootup when the machine starts, and for the `systemd` runner how to run an instance, with
//! what sudo lets the app's user do about that.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::step::{self, Step};
use crate::app::{App, LAID, Runner};
use crate::command::{self, Run};
use crate::deadline::Deadline;
use crate::durable;
use crate::outcome::usage;
use crate::runner::systemd::Order;

/// Is there when systemd is PID 1, as sd_booted(3) says.
const BOOTED: &str = "/run/systemd/system";
/// How long systemd may take to read its units again.
const PATIENCE: Duration = Duration::from_secs(60);
/// What systemd adds to the time that the app has, so that it never comes before our own deadlines.
const SLACK: Duration = Duration::from_secs(10);

/// What ties bootup to Docker: one that died and was started again has stopped its containers, and leaves them so.
const WITH_DOCKER: &str =
    "# A Docker that is started again may have left its containers stopped.\nPartOf=docker.service\n";

/// Whether systemd runs this machine.
pub fn is_booted() -> bool {
    Path::new(BOOTED).is_dir()
}

/// The steps that lay it, the grant first and the template, by which the tools know that systemd runs the app, last.
/// Fails when the app's place cannot be written in systemd's language, when a program is missing, or when something of
/// somebody else's is in the way.
pub fn steps(app: &App) -> Result<Vec<Step>> {
    if !is_booted() {
        let remedy = "set runner = \"direct\"";
        return Err(usage(format!("cannot use the systemd runner: systemd does not run this machine; {remedy}")));
    }
    let values = values(app)?;
    let fill = |template: &str| {
        let filled = values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(name, value));
        filled.into_bytes()
    };
    for path in [app.unit_file(), app.bootup_unit_file(), app.sudoers_file()] {
        if path.symlink_metadata().is_ok() && !is_laid(&path) {
            bail!("cannot lay {}: one that is not of cutover's making is there; move it away", path.display());
        }
    }
    for (unit, file) in
        [(app.instance_unit(&app.config.instances[0]), app.unit_file()), (app.bootup_unit(), app.bootup_unit_file())]
    {
        let question = ["show", "--property=FragmentPath", "--value", &unit].map(str::to_owned);
        let present = systemctl(question)?.trim().to_owned();
        if !present.is_empty() && Path::new(&present) != file {
            bail!("cannot call a unit {unit}: {present} is one already; give the app another name");
        }
    }
    let bootup = app.bootup_unit_file();
    let mut steps = vec![
        Step::root_file(bootup.clone(), fill(include_str!("../../systemd/bootup.service")), 0o644),
        Step::root_link(app.bootup_unit_link(), bootup.clone()),
    ];
    if app.runner() == Runner::Compose {
        steps.push(Step::root_link(app.bootup_docker_link(), bootup));
    } else {
        let sudoers = fill(include_str!("../../systemd/sudoers"));
        step::check_sudoers(&sudoers)?;
        steps.insert(0, Step::sudoers(app.sudoers_file(), sudoers));
        steps.push(Step::root_file(app.unit_file(), fill(include_str!("../../systemd/instance.service")), 0o644));
    }
    Ok(steps)
}

/// Whether a file is one of ours.
fn is_laid(path: &Path) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.contains(LAID))
}

/// What the templates' `{{names}}` stand for.
fn values(app: &App) -> Result<Vec<(&'static str, String)>> {
    let account = &app.owner;
    // A name that sudo or systemd might read otherwise is given as a number.
    let is_plain = account.name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && account.name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    let number = account.uid.to_string();
    let alias = format!("CUTOVER_{}", app.name().to_uppercase().replace('-', "_"));
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
        ("{{alias}}", alias),
        ("{{bin}}", unit_path(&app.bin())?),
        ("{{home}}", unit_path(app.home())?),
        ("{{with_docker}}\n", if app.runner() == Runner::Compose { WITH_DOCKER } else { "" }.to_owned()),
        ("{{commands}}", commands.join(", \\\n    ")),
        ("{{start_seconds}}", (config.health.timeout + SLACK).as_secs().to_string()),
        ("{{stop_seconds}}", (config.run.stop_timeout + SLACK).as_secs().to_string()),
    ])
}

/// A path as a unit file takes it.
fn unit_path(path: &Path) -> Result<String> {
    let is_fine = |c: char| !c.is_control() && !c.is_whitespace() && !"\"'\\$;".contains(c);
    let text = path.to_str().filter(|text| text.chars().all(is_fine));
    let cannot = || format!("cannot write {} into a unit of systemd's: choose a path without spaces", path.display());
    Ok(text.ok_or_else(|| usage(format!("{}, quotes, \\ $ ;", cannot())))?.replace('%', "%%"))
}

/// An argument as sudoers(5) takes it.
fn sudoers_word(word: &str) -> String {
    word.chars().fold(String::new(), |text, c| match c {
        ',' | ':' | '=' | '\\' => text + "\\" + c.encode_utf8(&mut [0; 4]),
        _ => text + c.encode_utf8(&mut [0; 4]),
    })
}

/// The units of an app.
fn units(app: &App) -> [String; 3] {
    let [first, second] = &app.config.instances;
    [app.instance_unit(first), app.instance_unit(second), app.bootup_unit()]
}

/// Makes systemd read the units again where it knows another version of them. True when that was needed.
pub fn take_up(app: &App) -> Result<bool> {
    let question = ["show".to_owned(), "--property=NeedDaemonReload".to_owned()];
    let is_old = systemctl(question.into_iter().chain(units(app)))?.contains("=yes");
    if is_old {
        systemctl(["daemon-reload".to_owned()])?;
    }
    Ok(is_old)
}

/// What the systemd runner alone needs.
pub fn of_instances(app: &App) -> [PathBuf; 2] {
    [app.unit_file(), app.sudoers_file()]
}

/// All that is laid here.
pub fn all(app: &App) -> [PathBuf; 3] {
    [app.bootup_unit_file(), app.unit_file(), app.sudoers_file()]
}

/// Stops the units of these files, takes the files away, and makes systemd forget them; returns what is gone.
pub fn take_away(app: &App, files: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut ours: Vec<PathBuf> = files.iter().filter(|path| is_laid(path)).cloned().collect();
    let [first, second, bootup] = units(app);
    let instances = [first, second].into_iter().filter(|_| ours.contains(&app.unit_file()));
    let stopped: Vec<String> =
        instances.chain(Some(bootup).filter(|_| ours.contains(&app.bootup_unit_file()))).collect();
    if is_booted() && !stopped.is_empty() {
        systemctl(std::iter::once("stop".to_owned()).chain(stopped))?;
    }
    for link in [app.bootup_unit_link(), app.bootup_docker_link()] {
        if fs::read_link(&link).is_ok_and(|target| ours.contains(&target)) {
            ours.insert(0, link);
        }
    }
    for path in &ours {
        durable::remove(path)?;
    }
    if is_booted() && !ours.is_empty() {
        systemctl(["daemon-reload".to_owned()])?;
    }
    Ok(ours)
}

fn systemctl(arguments: impl IntoIterator<Item = String>) -> Result<String> {
    let run = Run::new(&command::find("systemctl")?, arguments).output(Deadline::after(PATIENCE));
    run.map(|output| output.stdout).context("cannot talk to systemd")
}
