//! nginx's configuration files, rendered from the templates in the project's `nginx/` directory.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;
use sha2::{Digest, Sha256};

use super::marks::{self, Mark};
use crate::app::{App, Instance};
use crate::outcome::usage;
use crate::output::hex;

/// A version, as `nginx -v` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

/// What an nginx can, as `nginx -V` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Build {
    /// Its version.
    pub version: Version,
    /// Whether it was built to count requests (`--with-http_stub_status_module`).
    pub counts: bool,
}

/// nginx got keepalive_min_timeout in 1.27.4: idle client connections outlive a reload by that long.
const MIN_TIMEOUT_SINCE: Version = Version(1, 27, 4);

/// Where an nginx that counts requests says how many they are.
const COUNTS: &str = "
    # What this nginx has served, all its sites together.
    location = /nginx {
        stub_status;
    }
";
/// What push.conf is where no webhook is served.
const NO_PUSH: &str =
    "# server level. Laid by cutover's install for {{app}}: [push] in its configuration names no repository.\n";
/// A file to lay: its path and what it holds.
pub type File = (PathBuf, String);

/// All files that an app's nginx reads.
pub struct Files {
    /// Ours: replaced whenever they differ.
    pub ours: Vec<File>,
    /// The server block, the user's once edited; None when the user has one elsewhere (`listen = []`).
    pub server: Option<File>,
    /// Tells this rendering from all others; nginx says it on the status port.
    pub digest: String,
}

/// Where nginx's http block includes our files from.
pub fn conf_dir(app: &App) -> PathBuf {
    if app.config.nginx.own { app.own_nginx().join("conf.d") } else { app.config.nginx.conf_dir.clone() }
}

/// Renders all files. Fails when the app's place cannot be written in nginx's language.
pub fn files(app: &App, build: Build) -> Result<Files> {
    let includes = conf_dir(app).join(format!("{}.d", app.name()));
    let values = Values::of(app, &includes, build)?;
    let push = match app.config.webhook() {
        Some(_) => include_str!("../../nginx/push.conf"),
        None => NO_PUSH,
    };
    // In an order in which nginx could be started at any moment between two of them: what is included, and the zone that
    // push.conf counts in, come first.
    let mut ours = vec![
        (includes.join("choice.conf"), values.fill(include_str!("../../nginx/choice.conf"))),
        (conf_dir(app).join(format!("{}.conf", app.name())), values.fill(include_str!("../../nginx/upstreams.conf"))),
        (includes.join("push.conf"), values.fill(push)),
        (includes.join("instance.conf"), values.fill(include_str!("../../nginx/instance.conf"))),
        (includes.join("proxy.conf"), values.fill(include_str!("../../nginx/proxy.conf"))),
    ];
    if app.config.nginx.own {
        ours.push((app.own_nginx().join("nginx.conf"), values.fill(include_str!("../../nginx/nginx.conf"))));
    }
    let server = (!app.config.nginx.listen.is_empty()).then(|| {
        let path = conf_dir(app).join(format!("{}-server.conf", app.name()));
        (path, sealed(&values.fill(include_str!("../../nginx/server.conf"))))
    });
    let mut hash = Sha256::new();
    ours.iter().chain(&server).for_each(|(_, text)| hash.update(text));
    let digest = hex(&hash.finalize())[..16].to_owned();
    for (_, text) in &mut ours {
        *text = text.replace("{{digest}}", &digest);
    }
    Ok(Files { ours, server, digest })
}

/// What the templates' `{{names}}` stand for.
struct Values(Vec<(&'static str, String)>);

impl Values {
    fn of(app: &App, includes: &Path, build: Build) -> Result<Values> {
        let nginx = &app.config.nginx;
        let push = app.config.webhook();
        let known = marks::known(app);
        let [first, second] = &app.config.instances;
        let listen: Vec<String> = nginx.listen.iter().map(|listen| format!("    listen {listen};")).collect();
        let min_timeout = if build.version >= MIN_TIMEOUT_SINCE { "keepalive_min_timeout 5s;" } else { "" };
        // Workers of a root-started nginx would be `nobody`; where root owns the home, they may only look as root.
        let user = if app.owner.uid.is_root() { "user root;" } else { "" };
        Ok(Values(vec![
            ("push_port", push.map_or_else(String::new, |push| push.port.to_string())),
            ("app", app.name().to_owned()),
            ("variable", app.name().replace('-', "_")),
            ("first", first.name().to_owned()),
            ("second", second.name().to_owned()),
            ("upstreams", upstreams(app, &known)),
            ("groups", groups(app, &known)?),
            ("marks", known.iter().map(Mark::to_string).collect::<Vec<String>>().join(" ")),
            ("status_port", nginx.status_port.to_string()),
            ("server_name", nginx.server_name.clone()),
            ("listen", listen.join("\n")),
            ("keepalive_min_timeout", min_timeout.to_owned()),
            ("user", user.to_owned()),
            ("counts", if build.counts { COUNTS.to_owned() } else { String::new() }),
            ("includes", quotable(includes)?),
            ("state", quotable(&app.state())?),
        ]))
    }

    fn fill(&self, template: &str) -> String {
        let text = self
            .0
            .iter()
            .fold(template.to_owned(), |text, (name, value)| text.replace(&format!("{{{{{name}}}}}"), value));
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        lines.join("\n") + "\n"
    }
}

/// What follows an instance's name in its upstream's.
fn suffix(mark: Option<Mark>) -> String {
    mark.map_or_else(String::new, |mark| format!(".{mark}"))
}

/// An upstream for each mark of each instance, and one for no mark.
fn upstreams(app: &App, known: &BTreeSet<Mark>) -> String {
    let server = |instance: &Instance, slot: usize, more: &str| {
        // There are no processes for which there are no ports.
        instance.port_of(slot).map(|port| format!("    server 127.0.0.1:{port} max_fails=0{more};\n"))
    };
    let mut text = String::new();
    for mark in std::iter::once(None).chain(known.iter().copied().map(Some)) {
        let (count, slots) = mark.map_or((1, vec![0]), |mark| (mark.count(), mark.slots()));
        let is_replaced = known.iter().any(|mark| matches!(mark, Mark::Without { .. }) && mark.count() == count);
        let reach = count + usize::from(is_replaced);
        let free = (0..reach).filter(|slot| !slots.contains(slot));
        for instance in &app.config.instances {
            let servers: String = slots.iter().filter_map(|slot| server(instance, *slot, "")).collect();
            // A request may have begun before a process was replaced, and need one after that.
            let first_of_all = " backup weight=1000";
            let replaced: String = free.clone().filter_map(|slot| server(instance, slot, first_of_all)).collect();
            let other = app.other(instance);
            // As far as anybody can tell it has as many.
            let backups: String = (0..reach).filter_map(|slot| server(other, slot, " backup")).collect();
            let backups =
                if app.config.nginx.failover { backups } else { "    # No fallback: failover = false.\n".to_owned() };
            let suffix = suffix(mark);
            text += &format!("upstream {}_{instance}{suffix} {{\n{servers}{replaced}{backups}", app.name());
            text += "    keepalive 32;\n    keepalive_timeout 3s;\n}\n\n";
        }
    }
    text.trim_end().to_owned()
}

/// What chooses the upstream: the last one whose mark there is.
fn groups(app: &App, known: &BTreeSet<Mark>) -> Result<String> {
    let (state, variable) = (quotable(&app.state())?, app.name().replace('-', "_"));
    let mut text = String::new();
    for mark in known {
        let suffix = suffix(Some(*mark));
        text += &format!(
            "if (-e \"{state}/${{{variable}_instance}}/{mark}\") {{\n    set ${variable}_group ${{{variable}_instance}}{suffix};\n}}\n"
        );
    }
    Ok(text.trim_end().to_owned())
}

/// A path that can stand between double quotes in nginx's configuration.
fn quotable(path: &Path) -> Result<String> {
    let text = path.to_str().filter(|text| !text.contains(|c: char| c.is_control() || "\"\\$*?[]".contains(c)));
    let cannot = || {
        usage(format!(
            "cannot write {} into nginx's configuration: choose a path without \" \\ $ * ? [ ]",
            path.display()
        ))
    };
    text.map(str::to_owned).ok_or_else(cannot)
}

const SEAL: &str = "# as laid: ";

/// A text with a last line that tells whether it was edited since.
fn sealed(text: &str) -> String {
    format!("{text}{SEAL}{}\n", &hex(&Sha256::digest(text))[..16])
}

/// Whether a file is still as it was laid.
pub fn is_as_laid(text: &str) -> bool {
    text.rfind(SEAL).is_some_and(|at| sealed(&text[..at]) == text)
}
