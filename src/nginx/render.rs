//! nginx's configuration files, rendered from the templates in the project's `nginx/` directory.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use sha2::{Digest, Sha256};

use super::marks::{self, Mark};
use crate::app::config::Nginx;
use crate::app::{App, Instance};
use crate::bounded::{self, Links};
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
    /// Whether it can divide clients among processes (`--without-http_split_clients_module` leaves that out).
    pub splits: bool,
    /// Whether it was built to count requests (`--with-http_stub_status_module`).
    pub counts: bool,
    /// Whether it can limit how many requests come (`--without-http_limit_req_module` leaves that out, as Debian's nginx-light
    /// does).
    pub limits: bool,
    /// Whether it can keep connections to an upstream (`--without-http_upstream_keepalive_module` leaves that out), and end them
    /// before the app does.
    pub keeps: bool,
    /// Whether it can refuse addresses, ask for passwords, and have another server asked whom to let in: what a server block may
    /// say for all its locations.
    pub refuses: Refuses,
    /// Whether it can take the client's address from what a proxy in front says.
    pub takes_addresses: bool,
}

/// By what an nginx can refuse clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refuses {
    /// `deny`.
    pub by_address: bool,
    /// `auth_basic`.
    pub by_password: bool,
    /// `auth_request`.
    pub by_question: bool,
}

impl Refuses {
    /// What lets everybody into a location, whatever its server block says.
    fn lifted(self) -> String {
        let lines = [
            (self.by_address, "    allow all;\n"),
            (self.by_password, "    auth_basic off;\n"),
            (self.by_question, "    auth_request off;\n"),
        ];
        lines.into_iter().filter(|(can, _)| *can).map(|(_, line)| line).collect()
    }
}

/// nginx got keepalive_timeout for upstreams in 1.15.3: before, it kept connections for as long as the app did.
pub const KEEPS_FOR_A_TIME_SINCE: Version = Version(1, 15, 3);
/// From 1.29.7 on, nginx keeps connections to an upstream by itself.
const KEEPS_BY_ITSELF_SINCE: Version = Version(1, 29, 7);
/// nginx got keepalive_min_timeout in 1.27.4: idle client connections outlive a reload by that long.
const MIN_TIMEOUT_SINCE: Version = Version(1, 27, 4);

/// Where an nginx that counts requests says how many they are.
const COUNTS: &str = "
    # What this nginx has served, all its sites together.
    location = /nginx {
        stub_status;
    }
";
/// Backups that are asked before all others, and those that are asked next. nginx chooses by weighted shares, and counts as long as a
/// worker lives, servers that refuse included. The weights are so far apart that no worker lives to see the order reverse, and their
/// sum still fits nginx's integer; on 32 bits it would not.
#[cfg(target_pointer_width = "64")]
const FIRST: &str = " backup weight=1000000000000000";
#[cfg(target_pointer_width = "64")]
const SECOND: &str = " backup weight=1000000";
#[cfg(not(target_pointer_width = "64"))]
const FIRST: &str = " backup weight=100000000";
#[cfg(not(target_pointer_width = "64"))]
const SECOND: &str = " backup weight=1000";
/// What counts the webhooks of an address.
const PUSH_ZONE: &str = "
# How many webhooks an address may send.
limit_req_zone $binary_remote_addr zone={{app}}_push:1m rate=10r/s;
";
/// What refuses more than that.
const PUSH_LIMIT: &str = "    limit_req zone={{app}}_push burst=200 nodelay;
    limit_req_status 429;
    limit_req_log_level info;
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
    /// Tells this rendering, and what the server block was edited to, from all others; nginx says it on the status port.
    pub digest: String,
}

impl Files {
    /// Where all of them lie.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.ours.iter().chain(&self.server).map(|(path, _)| path.as_path())
    }
}

/// Where nginx's http block includes our files from.
pub fn conf_dir(app: &App) -> PathBuf {
    if app.config.nginx.own { app.own_nginx().join("conf.d") } else { app.config.nginx.conf_dir.clone() }
}

/// Where the upstreams lie. The server block of an app `shop` is shop-server.conf, so the upstreams of an app `shop-server` have
/// another name, unless version 0.1.0 has laid them there already.
fn upstreams_file(app: &App) -> PathBuf {
    let usual = conf_dir(app).join(format!("{}.conf", app.name()));
    let text = bounded::read_text(&usual, Links::Refused, bounded::LARGE);
    match app.name().ends_with("-server") && !text.is_ok_and(|text| app.is_marked(&text)) {
        true => conf_dir(app).join(format!("{}.app.conf", app.name())),
        false => usual,
    }
}

/// Where nginx tells a client on this machine that it is this app's site, and which instance it uses.
pub fn mark_path(app: &App) -> String {
    format!("/.cutover/instance/{}", app.name())
}

/// What a server block includes that passes requests to the app.
pub fn instance_file(app: &App) -> PathBuf {
    includes(app).join("instance.conf")
}

/// What it includes, and what asks which instance is enabled.
pub fn choice_file(app: &App) -> PathBuf {
    includes(app).join("choice.conf")
}

/// What a location includes that passes requests to the app.
pub fn proxy_file(app: &App) -> PathBuf {
    includes(app).join("proxy.conf")
}

/// Where the server block lies that `install` lays.
pub fn server_file(app: &App) -> PathBuf {
    conf_dir(app).join(format!("{}-server.conf", app.name()))
}

/// Where lies what server blocks include.
fn includes(app: &App) -> PathBuf {
    conf_dir(app).join(format!("{}.d", app.name()))
}

/// Renders all files. Fails when the app's place cannot be written in nginx's language.
///
/// `others` are the ports of other apps: nothing of this app's leads there. `push_upstream` is what webhooks are passed to.
pub fn files(app: &App, build: Build, others: &BTreeSet<u16>, push_upstream: &str) -> Result<Files> {
    if app.config.nginx.sticky && !build.splits {
        return Err(usage("cannot render sticky: this nginx was built without its split_clients module".to_owned()));
    }
    let includes = includes(app);
    let values = Values::of(app, &includes, build, others, push_upstream)?;
    let push = match app.config.webhook() {
        Some(_) => include_str!("../../nginx/push.conf"),
        None => NO_PUSH,
    };
    let upstreams = (upstreams_file(app), values.fill(include_str!("../../nginx/upstreams.conf")));
    let push = (includes.join("push.conf"), values.fill(push));
    // In an order in which nginx could be started at any moment between two of them: what is included comes first, and the
    // zone that push.conf counts in is there before push.conf counts, and goes after it has ceased to.
    let [one, other] = if counts_pushes(app, build) { [upstreams, push] } else { [push, upstreams] };
    let mut ours = vec![
        (choice_file(app), values.fill(include_str!("../../nginx/choice.conf"))),
        one,
        other,
        (instance_file(app), values.fill(include_str!("../../nginx/instance.conf"))),
        (proxy_file(app), values.fill(include_str!("../../nginx/proxy.conf"))),
    ];
    if app.config.nginx.own {
        ours.push((app.own_nginx().join("nginx.conf"), values.fill(include_str!("../../nginx/nginx.conf"))));
    }
    let server = (!app.config.nginx.listen.is_empty())
        .then(|| (server_file(app), sealed(&values.fill(include_str!("../../nginx/server.conf")))));
    let mut hash = Sha256::new();
    ours.iter().chain(&server).for_each(|(_, text)| hash.update(text));
    // What its user has edited is not laid, and is to be taken up.
    let present = server.iter().find_map(|(path, _)| bounded::read_text(path, Links::Refused, bounded::LARGE).ok());
    present.filter(|text| !is_as_laid(text)).inspect(|text| hash.update(text));
    let digest: String = hex(&hash.finalize()).chars().take(16).collect();
    for (_, text) in &mut ours {
        *text = text.replace("{{digest}}", &digest);
    }
    Ok(Files { ours, server, digest })
}

/// Whether nginx counts this app's webhooks, and refuses too many.
fn counts_pushes(app: &App, build: Build) -> bool {
    app.config.webhook().is_some() && build.limits
}

/// What the templates' `{{names}}` stand for.
struct Values(Vec<(&'static str, String)>);

impl Values {
    fn of(app: &App, includes: &Path, build: Build, others: &BTreeSet<u16>, push_upstream: &str) -> Result<Values> {
        let nginx = &app.config.nginx;
        let known = marks::known(app, others);
        let [first, second] = &app.config.instances;
        let listen: Vec<String> = nginx.listen.iter().map(|listen| format!("    listen {listen};")).collect();
        let min_timeout = if build.version >= MIN_TIMEOUT_SINCE { "keepalive_min_timeout 5s;" } else { "" };
        // Workers of a root-started nginx would be `nobody`; where root owns the home, they may only look as root.
        let user = if app.owner.uid.is_root() { "user root;" } else { "" };
        Ok(Values(vec![
            ("push_zone", if counts_pushes(app, build) { PUSH_ZONE.to_owned() } else { String::new() }),
            ("push_limit", if counts_pushes(app, build) { PUSH_LIMIT.to_owned() } else { String::new() }),
            ("push_upstream", push_upstream.to_owned()),
            ("open", build.refuses.lifted()),
            ("trusted", trusted(app, build)),
            ("clients", clients(app, &known)),
            ("real_ip", real_ip(app, build)),
            ("proto", told(app, "$scheme", "proto")),
            ("host", told(app, &format!("$host${}_port", variable(app)), "host")),
            ("server_port", told(app, "$server_port", "port")),
            ("send_timeout", time(nginx.send_timeout)),
            ("read_timeout", time(nginx.read_timeout)),
            ("app", app.name().to_owned()),
            ("variable", variable(app)),
            ("mark_path", mark_path(app)),
            ("first", first.name().to_owned()),
            ("second", second.name().to_owned()),
            ("upstreams", upstreams(app, &known, build)),
            ("away", away(app, &known)?),
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

/// What the names of the app's variables begin with. nginx has variables of its own that begin with `http_`, `arg_`, `cookie_`
/// and the like, and so might an app's name.
fn variable(app: &App) -> String {
    format!("cutover_{}", app.name().replace('-', "_"))
}

/// How many ports of an instance requests may need while it has these processes: those that it has, and one that is free while
/// processes are replaced.
fn reach(known: &BTreeSet<Mark>, count: usize) -> usize {
    let is_replaced = known.iter().any(|mark| matches!(mark, Mark::Without { .. }) && mark.count() == count);
    count + usize::from(is_replaced)
}

/// The upstreams of both instances: one for no mark and one for each; or, where clients stick, one for each process.
fn upstreams(app: &App, known: &BTreeSet<Mark>, build: Build) -> String {
    let keepalive = keepalive(&app.config.nginx, build);
    // What follows the instance's name, the ports of the processes, and how many ports it may be in all.
    let one = (String::new(), vec![0], reach(known, 1));
    let processes = known.iter().filter(|mark| **mark != Mark::Away);
    let several: Vec<(String, Vec<usize>, usize)> = match app.config.nginx.sticky {
        true => {
            let counts: BTreeSet<usize> = processes.map(|mark| mark.count()).collect();
            let of_count = |count| {
                let reach = reach(known, count);
                (0..reach).map(move |slot| (format!(".{count}.{slot}"), vec![slot], reach))
            };
            counts.into_iter().flat_map(of_count).collect()
        }
        false => processes.map(|mark| (format!(".{mark}"), mark.slots(), reach(known, mark.count()))).collect(),
    };
    let server = |instance: &Instance, slot: usize, more: &str| {
        // There are no processes for which there are no ports.
        instance.port_of(slot).map(|port| format!("    server 127.0.0.1:{port} max_fails=0{more};\n"))
    };
    let mut text = String::new();
    for (suffix, slots, reach) in std::iter::once(one).chain(several) {
        let free = (0..reach).filter(|slot| !slots.contains(slot));
        for instance in &app.config.instances {
            let servers: String = slots.iter().filter_map(|slot| server(instance, *slot, "")).collect();
            // A request may have begun before a process was replaced, and need one after that.
            let replaced: String = free.clone().filter_map(|slot| server(instance, slot, FIRST)).collect();
            let other = app.other(instance);
            // A client that sticks has one process of the other instance, too.
            let order = |slot| if app.config.nginx.sticky && slots.contains(&slot) { SECOND } else { " backup" };
            // As far as anybody can tell it has as many.
            let backups: String = (0..reach).filter_map(|slot| server(other, slot, order(slot))).collect();
            let backups =
                if app.config.nginx.failover { backups } else { "    # No fallback: failover = false.\n".to_owned() };
            text += &format!("upstream {}_{instance}{suffix} {{\n{servers}{replaced}{backups}", app.name());
            text += &format!("{keepalive}}}\n\n");
        }
    }
    text.trim_end().to_owned()
}

/// What tells, of each request, which of several processes is its client's; nothing where clients do not stick.
fn clients(app: &App, known: &BTreeSet<Mark>) -> String {
    let mut text = String::new();
    for mark in known.iter().filter(|mark| app.config.nginx.sticky && **mark != Mark::Away) {
        let count = mark.count();
        // Where one was replaced by another on the free port, its clients go there.
        let slot = |part: usize| match mark {
            Mark::Without { free, .. } if *free == part => count,
            _ => part,
        };
        let shares = (0..count).map(|part| match part + 1 < count {
            true => format!("    {}.{:02}% {count}.{};\n", 100 / count, 10_000 / count % 100, slot(part)),
            false => format!("    * {count}.{};\n", slot(part)),
        });
        let shares: String = shares.collect();
        text += &format!("split_clients $remote_addr ${} {{\n{shares}}}\n", process_variable(app, *mark));
    }
    text
}

/// The variable that tells it: the number of processes, and the slot of the one. nginx takes no long names.
fn process_variable(app: &App, mark: Mark) -> String {
    let variable = variable(app);
    match mark {
        Mark::Processes(count) => format!("{variable}_slot_{count}"),
        Mark::Without { count, free } => format!("{variable}_slot_{count}_{free}"),
        Mark::Away => format!("{variable}_slot_none"),
    }
}

/// What tells, of each request, which field of a proxy in front is believed; nothing where there is none to be believed.
fn trusted(app: &App, build: Build) -> String {
    let (variable, proxies) = (variable(app), &app.config.nginx.trusted_proxies);
    if proxies.is_empty() {
        return String::new();
    }
    // Where the client's address is taken from a field, this one is still the proxy's.
    let source = if build.takes_addresses { "$realip_remote_addr " } else { "" };
    let networks: String = proxies.iter().map(|network| format!("    {network} 1;\n")).collect();
    let mut text = format!(
        "# Which proxies in front are believed what they say of the client.\ngeo {source}${variable}_trusted {{\n    default 0;\n{networks}}}\n"
    );
    let own_host = format!("\"$host${variable}_port\"");
    for (name, own, pattern) in [
        ("proto", "$scheme", "https?"),
        ("host", own_host.as_str(), "[][:.0-9A-Za-z-]+"),
        ("port", "$server_port", "[0-9]+"),
    ] {
        text += &format!(
            "map \"${variable}_trusted $http_x_forwarded_{name}\" ${variable}_seen_{name} {{\n    default {own};\n    \"~^1 ({pattern})(,|$)\" $1;\n}}\n"
        );
    }
    text
}

/// What takes the client's address from what such a proxy says.
fn real_ip(app: &App, build: Build) -> String {
    let proxies = &app.config.nginx.trusted_proxies;
    if proxies.is_empty() || !build.takes_addresses {
        return String::new();
    }
    let from: String = proxies.iter().map(|network| format!("set_real_ip_from {network};\n")).collect();
    format!("{from}real_ip_header X-Forwarded-For;\nreal_ip_recursive on;")
}

/// What the app is told: what nginx sees itself, or what a proxy in front says that is believed.
fn told(app: &App, own: &str, name: &str) -> String {
    match app.config.nginx.trusted_proxies.is_empty() {
        true => own.to_owned(),
        false => format!("${}_seen_{name}", variable(app)),
    }
}

/// A time as nginx takes it.
fn time(time: Duration) -> String {
    match time.subsec_nanos() {
        0 => format!("{}s", time.as_secs()),
        _ => format!("{}ms", time.as_millis()),
    }
}

/// What keeps connections to an instance, or has nginx keep none.
fn keepalive(nginx: &Nginx, build: Build) -> String {
    let Nginx { keepalive, keepalive_timeout, .. } = nginx;
    match keepalive {
        _ if !build.keeps => String::new(),
        0 if build.version < KEEPS_BY_ITSELF_SINCE => String::new(),
        0 => "    keepalive 0;\n".to_owned(),
        _ => format!("    keepalive {keepalive};\n    keepalive_timeout {}ms;\n", keepalive_timeout.as_millis()),
    }
}

/// What has the other instance answer while the enabled one is away.
fn away(app: &App, known: &BTreeSet<Mark>) -> Result<String> {
    let (state, variable) = (quotable(&app.state())?, variable(app));
    let text = format!(
        "if (-e \"{state}/${{{variable}_instance}}/{}\") {{\n    set ${variable}_answers ${variable}_other;\n}}",
        Mark::Away
    );
    Ok(if known.contains(&Mark::Away) { text } else { "# No other: failover = false.".to_owned() })
}

/// What chooses the upstream: the last one whose mark there is.
fn groups(app: &App, known: &BTreeSet<Mark>) -> Result<String> {
    let (state, variable) = (quotable(&app.state())?, variable(app));
    let mut text = String::new();
    for mark in known.iter().filter(|mark| **mark != Mark::Away) {
        let suffix = match app.config.nginx.sticky {
            true => format!(".${}", process_variable(app, *mark)),
            false => format!(".{mark}"),
        };
        text += &format!(
            "if (-e \"{state}/${{{variable}_answers}}/{mark}\") {{\n    set ${variable}_group ${{{variable}_answers}}{suffix};\n}}\n"
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
    format!("{text}{SEAL}{:.16}\n", hex(&Sha256::digest(text)))
}

/// Whether a file is still as it was laid.
pub fn is_as_laid(text: &str) -> bool {
    text.rsplit_once(SEAL).is_some_and(|(before, _)| sealed(before) == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// nginx before 1.29.7 refuses a 0, and later ones keep 32 by themselves.
    #[test]
    fn a_connection_is_kept_by_no_version_of_nginx_when_none_is_to_be() {
        let none = Nginx { keepalive: 0, ..Nginx::default() };
        let build = |version, keeps| Build {
            version,
            keeps,
            splits: true,
            counts: true,
            limits: true,
            refuses: Refuses::default(),
            takes_addresses: false,
        };
        for (version, keeps, text) in [
            (Version(1, 14, 2), false, ""),
            (Version(1, 15, 3), true, ""),
            (Version(1, 29, 6), true, ""),
            (Version(1, 29, 7), true, "    keepalive 0;\n"),
            (Version(1, 30, 0), false, ""),
        ] {
            assert_eq!(keepalive(&none, build(version, keeps)), text, "{version:?}");
        }
        let kept = keepalive(&Nginx::default(), build(Version(1, 30, 0), true));
        assert_eq!(kept, "    keepalive 32;\n    keepalive_timeout 1000ms;\n");
    }
}
