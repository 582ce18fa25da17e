//! The other apps of this machine: the ports that are theirs, whether or not anybody listens on them at the moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use regex::Regex;

use crate::app::{App, Config, LAID, Record, config};
use crate::bounded::{self, Links};
use crate::nginx;

/// Ports, and whose each is in words.
type Ports = BTreeMap<u16, String>;

/// The ports of all other apps.
pub struct Neighbours {
    /// Those that root has accepted for them.
    recorded: Ports,
    /// Those on which nginx listens for their visitors.
    served: Ports,
    /// Those that nginx's files name which were laid for them. An app of version 0.1.0 has nothing else; and some are of
    /// processes that an app could have and has not.
    rendered: Ports,
    /// Those that nginx's files name which were laid for this app before.
    own: BTreeSet<u16>,
    /// They themselves, so far as root has recorded them.
    apps: Vec<App>,
}

impl Neighbours {
    /// Looks for them in root's records, and where nginx reads its files.
    pub fn of(app: &App) -> Result<Neighbours> {
        let (mut recorded, mut served, mut apps) = (Ports::new(), Ports::new(), Vec::new());
        let mut places = BTreeSet::from([app.config.nginx.conf_dir.clone()]);
        // A record that cannot be used is told when its own app is installed.
        for record in Record::all()?.into_iter().flatten().filter(|record| record.home != app.home()) {
            let whose = format!("the app {} in {}", record.accepted.app, record.home.display());
            recorded.extend(ports_of(&record.accepted).into_iter().map(|port| (port, whose.clone())));
            let listen = record.accepted.nginx.listen.iter().filter_map(|listen| config::port_of_listen(listen));
            served.extend(listen.map(|port| (port, whose.clone())));
            places.insert(record.accepted.nginx.conf_dir.clone());
            apps.push(App::planned(record.home, record.owner, record.accepted));
        }
        let (mut rendered, mut own) = (Ports::new(), BTreeSet::new());
        for file in places.iter().flat_map(|place| files_in(place)) {
            let Ok(text) = bounded::read_text(&file, Links::Refused, bounded::LARGE) else {
                continue;
            };
            let ports = ports_in(&text);
            match text.contains(LAID) {
                true if app.is_marked(&text) => own.extend(ports),
                true => rendered.extend(ports.into_iter().map(|port| (port, format!("the app of {}", file.display())))),
                false => {}
            }
        }
        Ok(Neighbours { recorded, served, rendered, own, apps })
    }

    /// All their ports.
    pub fn ports(&self) -> BTreeSet<u16> {
        self.recorded.keys().chain(self.rendered.keys()).copied().collect()
    }

    /// Those whose clients get to them now. One that is slow to answer is given a moment: nobody would see to it that they still do.
    pub fn reached(&self) -> Vec<&App> {
        let is_reached = |app: &&App| nginx::Site::of(app).is_some_and(|site| site.leads_to(app, None).is_ok());
        self.apps.iter().filter(is_reached).collect()
    }

    /// Fails when a port that the app is to have is another one's. One that it has already may stand among those of processes
    /// that another app has not.
    pub fn check(&self, app: &App) -> Result<()> {
        // nginx serves many apps on one port, but not on one that a process of an app's, or of nginx's for it, listens on.
        let listen = app.config.nginx.listen.iter().filter_map(|listen| config::port_of_listen(listen));
        for port in ports_of(&app.config).into_iter().chain(listen) {
            let rendered = self.rendered.get(&port).filter(|_| !self.own.contains(&port));
            let served = self.served.get(&port).filter(|_| ports_of(&app.config).contains(&port));
            if let Some(whose) = self.recorded.get(&port).or(rendered).or(served) {
                bail!("cannot use port {port}: it is that of {whose}; choose another in the configuration");
            }
        }
        let others = self.apps.iter().filter(|_| !app.config.nginx.own);
        others.map(|other| Other::of_app(other, app)).try_for_each(|other| check_listen(app, &other))
    }
}

/// Somebody whose server block nginx has beside this app's.
struct Other<'a> {
    /// Who it is, in words.
    name: String,
    listen: Vec<Listen<'a>>,
    /// Whether clients ask for it by no name.
    is_nameless: bool,
    /// Whether nginx reads it after this app's.
    is_behind: bool,
}

impl<'a> Other<'a> {
    fn of_app(other: &'a App, app: &App) -> Other<'a> {
        Other {
            name: other.name().to_owned(),
            listen: other.config.nginx.listen.iter().filter_map(|words| Listen::read(words)).collect(),
            is_nameless: is_nameless(&other.config.nginx.server_name),
            is_behind: app.name() < other.name(),
        }
    }

    fn of_server((server, is_behind): &'a (nginx::Server, bool)) -> Other<'a> {
        Other {
            name: format!("the server in {}", server.file),
            listen: server.listen.iter().filter_map(|words| Listen::read(words)).collect(),
            is_nameless: server.names.iter().all(|name| is_nameless(name)),
            is_behind: *is_behind,
        }
    }
}

/// Fails when nginx would answer requests by this app's server that are answered by one that is not cutover's.
pub fn check_servers(app: &App, servers: &[(nginx::Server, bool)]) -> Result<()> {
    servers.iter().try_for_each(|server| check_listen(app, &Other::of_server(server)))
}

/// Fails when nginx would answer requests by this app's server that are answered by the other's, by what both listen on.
fn check_listen(app: &App, other: &Other) -> Result<()> {
    for own in app.config.nginx.listen.iter().filter_map(|words| Listen::read(words)) {
        let on_port: Vec<&Listen> = other.listen.iter().filter(|their| their.port == own.port).collect();
        let same = on_port.iter().find(|their| their.host == own.host);
        let name = &other.name;
        let is_narrower = own.host != ANY && on_port.iter().any(|their| their.host == ANY);
        let trouble = match same {
            None if is_narrower => format!("requests to {} would not get to {name} any more", own.host),
            Some(their) if their.options != own.options => {
                format!("{name} listens there as well, and one of the two says {}", own.differing(their).join(", "))
            }
            // It is named by its clients, whoever is the default.
            _ if !other.is_nameless => continue,
            Some(_) if own.is_default => format!("{name} is what answers there for any name"),
            Some(their) if !their.is_default && other.is_behind => format!(
                "{name} answers there for any name, and would not any more: give it `default_server` in listen, or a server_name"
            ),
            _ => continue,
        };
        bail!("cannot listen on {:?}: {trouble}", own.words);
    }
    Ok(())
}

/// The address of a `listen` without one.
const ANY: &str = "*";
/// What all servers of a socket have in common.
const OF_SOCKETS: [&str; 4] = ["http2", "proxy_protocol", "quic", "ssl"];

/// What nginx listens on for an app.
struct Listen<'a> {
    words: &'a str,
    host: &'a str,
    port: u16,
    is_default: bool,
    options: BTreeSet<&'a str>,
}

impl<'a> Listen<'a> {
    /// None: it is no port.
    fn read(words: &'a str) -> Option<Listen<'a>> {
        let address = words.split_whitespace().next()?;
        let host = address.rsplit_once(':').map_or(ANY, |(host, _)| host);
        let options: BTreeSet<&str> = words.split_whitespace().skip(1).collect();
        Some(Listen {
            words,
            host: if host == "0.0.0.0" { ANY } else { host },
            port: config::port_of_listen(words)?,
            is_default: options.contains("default_server"),
            options: options.into_iter().filter(|option| OF_SOCKETS.contains(option)).collect(),
        })
    }

    /// The options that only one of the two has.
    fn differing(&self, other: &Listen<'a>) -> Vec<&'a str> {
        self.options.symmetric_difference(&other.options).copied().collect()
    }
}

/// Whether a server has no name by which clients ask for it.
fn is_nameless(server_name: &str) -> bool {
    matches!(server_name, "" | "_")
}

/// All ports that a configuration names: of the instances with all their processes, of nginx, and of webhooks.
fn ports_of(config: &Config) -> BTreeSet<u16> {
    let of_instances =
        config.instances.iter().flat_map(|instance| (0..config.slots()).filter_map(|at| instance.port_of(at)));
    let push = config.webhook().map(|push| push.port);
    let ports = of_instances.chain([config.nginx.status_port]).chain(push);
    let listen = config.nginx.listen.iter().filter(|_| config.nginx.own);
    ports.map(|port| port.number()).chain(listen.filter_map(|listen| config::port_of_listen(listen))).collect()
}

/// The files with upstreams, status ports and webhooks of each app.
fn files_in(place: &Path) -> Vec<PathBuf> {
    let list = |place: &Path| fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path());
    list(place)
        .flat_map(|path| match path.extension().and_then(|ending| ending.to_str()) {
            Some("conf") => vec![path],
            Some("d") => vec![path.join("push.conf")],
            _ => Vec::new(),
        })
        .collect()
}

fn ports_in(text: &str) -> BTreeSet<u16> {
    let Ok(address) = Regex::new(r"\b127\.0\.0\.1:([0-9]+)\b") else { return BTreeSet::new() };
    let found = address.captures_iter(text).filter_map(|found| found.get(1)?.as_str().parse().ok());
    found.collect()
}
