//! What is laid for two apps never has the same name, whatever they are called.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use nix::unistd::{Gid, Uid};
use regex::Regex;

use super::*;
use crate::app::Instance;
use crate::nginx::{Build, Version};
use crate::runner::systemd::Order;

/// Names that other names are made of, that mean something to nginx, systemd or a home directory, and plain ones.
const NAMES: [&str; 36] = [
    "shop",
    "shop-server",
    "shop-server-server",
    "shop-push",
    "shop-push-push",
    "shop-queue",
    "shop-poll",
    "shop-bootup",
    "shop-d",
    "shop-app",
    "shop-conf",
    "shop-record",
    "shop-instance",
    "shop-group",
    "shop-connection",
    "shop-upgrade",
    "shop-port",
    "shop-a",
    "shop-b",
    "s",
    "s-hop",
    "default",
    "http",
    "http-x",
    "arg",
    "cookie",
    "sent-http",
    "upstream",
    "config",
    "ssh",
    "cutover",
    "cutover-shop",
    "server",
    "push",
    "nginx",
    "a-1-processes",
];

/// Names of instances: plain ones, ones that are made of what other names are made of, and ones that files and directories
/// have.
const INSTANCES: [&str; 40] = [
    "A",
    "B",
    "blue",
    "green",
    "0",
    "1",
    "64",
    "a-1",
    "a_1",
    "A_B",
    "Shop",
    "shop",
    "shop_A",
    "shop-A",
    "hop_A",
    "server_A",
    "server",
    "http",
    "instanceX",
    "X",
    "2-processes",
    "d",
    "conf",
    "group",
    "upgrade",
    "zone",
    "push",
    "queue",
    "queued-deploy",
    "on-push",
    "large-body",
    "deploy",
    "hooks",
    "workers",
    "enabled",
    "build",
    "build-20261121T093000Z-a",
    "history",
    "bootup",
    "poll",
];

/// What configures an app of this name whose instances have these; None: it is refused.
fn config_of(name: &str, [one, other]: [&str; 2]) -> Option<Config> {
    let text = format!(
        "app = \"{name}\"\n[instances]\n{one} = 20201\n{other} = 20202\n[source]\ngit = \"x\"\n[run]\ncommand = \"x\"\nprocesses = 2\nmax_memory = \"9M\"\n[push]\nrepository = \"a/b\"\npoll = \"1m\"\n"
    );
    Config::parse(&text).ok()
}

fn app(name: &str) -> App {
    let owner = Account::of(Uid::from_raw(4711), Gid::from_raw(4711));
    App::planned(PathBuf::from(format!("/home/u/.{name}")), owner, config_of(name, ["A", "B"]).unwrap())
}

/// What configures apps of this name so that each instance is one of them.
fn configs(name: &str) -> impl Iterator<Item = Config> {
    INSTANCES.iter().flat_map(move |one| ["A", "other"].into_iter().find_map(|other| config_of(name, [one, other])))
}

/// What a line of nginx's files gives a name to, and the name.
fn named(line: &str) -> Option<(&'static str, &str)> {
    let line = line.trim_start();
    let (kind, rest) = match line.split_once(' ')? {
        ("set", rest) => ("variable", rest.trim_start_matches(['$', '{'])),
        ("map", rest) => ("variable", rest.split_once(" $")?.1),
        ("limit_req_zone" | "limit_req", rest) => ("zone", rest.split_once("zone=")?.1),
        ("upstream", rest) => ("upstream", rest),
        ("location", rest) => {
            ("mark path", rest.strip_prefix("= ").filter(|path| path.starts_with("/.cutover/instance"))?)
        }
        _ => return None,
    };
    Some((kind, rest.split([' ', ';', ':', '}']).next()?))
}

/// All names by which something of an app is known on a machine, each with its kind.
fn names(app: &App) -> BTreeSet<String> {
    let build = Build {
        version: Version(1, 28, 0),
        counts: true,
        limits: true,
        keeps: true,
        refuses: nginx::Refuses::default(),
        takes_addresses: true,
        splits: true,
    };
    let files = nginx::files(app, build, &BTreeSet::new(), "127.0.0.1:9").unwrap();
    let mut found: BTreeSet<String> = files.paths().map(|path| format!("file {}", path.display())).collect();
    for (_, text) in files.ours.iter().chain(&files.server) {
        // nginx takes capitals for small letters in all of them.
        let all = text.lines().filter_map(named);
        found.extend(all.map(|(kind, name)| format!("{kind} {}", name.to_lowercase())));
    }
    found.extend(system::all(app).iter().map(|path| format!("file {}", path.display())));
    found.insert(format!("alias {}", system::alias(app)));
    for instance in &app.config.instances {
        found.insert(format!("unit {}", app.instance_unit(instance)));
        found.insert(format!("identifier {}", app.journal_identifier(instance)));
        let orders = Order::ALL.iter().map(|order| order.arguments(app, instance).join(" "));
        found.extend(orders.map(|words| format!("command {words}")));
    }
    found.extend(
        [app.state(), Record::path(app.name()), app.home().to_owned()].map(|path| format!("file {}", path.display())),
    );
    found
}

const KINDS: [&str; 9] =
    ["file", "variable", "zone", "upstream", "mark path", "alias", "unit", "identifier", "command"];

#[test]
fn no_two_apps_have_anything_of_one_name_whatever_their_instances_are_called() {
    let all_of = |name: &'static str| {
        let mut app = app(name);
        let of = |config| {
            app.config = config;
            names(&app)
        };
        (name, configs(name).flat_map(of).collect::<BTreeSet<String>>())
    };
    let all: Vec<(&str, BTreeSet<String>)> = NAMES.into_iter().map(all_of).collect();
    for kind in KINDS {
        assert!(all.iter().all(|(_, names)| names.iter().any(|name| name.starts_with(kind))), "no {kind} was found");
    }
    for (at, (one, of_one)) in all.iter().enumerate() {
        for (other, of_other) in &all[at + 1..] {
            let shared: Vec<&String> = of_one.intersection(of_other).collect();
            // That is why such a name is refused.
            let is_refused = [one, other].iter().any(|name| check::name(&app(name)).is_err());
            assert!(shared.is_empty() || is_refused, "{one} and {other} share {shared:?}");
        }
    }
}

#[test]
fn an_alias_is_one_that_sudo_takes_and_of_one_app() {
    let pattern = Regex::new("^[A-Z][A-Z0-9_]*$").unwrap();
    let all: BTreeSet<String> = NAMES.iter().map(|name| system::alias(&app(name))).collect();
    assert_eq!(all.len(), NAMES.len());
    assert!(all.iter().all(|alias| pattern.is_match(alias) && alias != "ALL"), "{all:?}");
}

/// The paths that are an instance's own.
fn of_instance(app: &App, instance: &Instance) -> [PathBuf; 4] {
    [app.instance_link(instance), app.instance_log(instance), app.instance_lock(instance), app.marks(instance)]
}

/// The paths that are the app's, or a release's.
fn of_app(app: &App) -> Vec<PathBuf> {
    let id = "20261121T093000Z-a".parse().unwrap();
    let mut paths = vec![
        app.deploy_lock(),
        app.queue_lock(),
        app.queued_deploy_lock(),
        app.listener_lock(),
        app.large_body_lock(),
        app.deploy_log(),
        app.hooks_log(),
        app.push_log(),
        app.history(),
        app.build_log(&id),
        app.enabled_link(),
        app.workers_link(),
        app.mirror(),
        app.snapshot(),
        app.release(&id),
        app.queued(),
        app.deliveries(),
    ];
    paths.extend(system::all(app));
    paths
}

#[test]
fn nothing_of_an_instance_has_the_name_of_anything_else_of_its_app() {
    let (mut app, mut refused) = (app("shop"), BTreeSet::new());
    for (at, one) in INSTANCES.iter().enumerate() {
        for other in &INSTANCES[at + 1..] {
            let Some(config) = config_of("shop", [one, other]) else {
                refused.extend([*one, *other]);
                continue;
            };
            app.config = config;
            let [first, second] = &app.config.instances;
            let all: Vec<PathBuf> = [of_instance(&app, first), of_instance(&app, second)]
                .into_iter()
                .flatten()
                .chain(of_app(&app))
                .collect();
            let unlike: BTreeSet<&PathBuf> = all.iter().collect();
            assert_eq!(unlike.len(), all.len(), "{one} and {other}: {all:?}");
            assert_ne!(app.instance_unit(first), app.instance_unit(second));
        }
    }
    // The others can be instances: each is one beside A or B.
    let taken: Vec<&str> = INSTANCES
        .into_iter()
        .filter(|one| configs("shop").all(|config| config.instances.iter().all(|instance| instance.name() != *one)))
        .collect();
    assert_eq!(
        taken,
        [
            "push",
            "queue",
            "queued-deploy",
            "on-push",
            "large-body",
            "deploy",
            "hooks",
            "workers",
            "enabled",
            "build-20261121T093000Z-a"
        ]
    );
    assert!(taken.iter().all(|name| refused.contains(name)));
}

#[test]
fn the_names_of_nginx_s_own_variables_are_left_alone() {
    for name in NAMES {
        for found in names(&app(name)).iter().filter_map(|found| found.strip_prefix("variable ")) {
            assert!(found.starts_with("cutover_"), "{found}");
        }
    }
}

#[test]
fn a_mark_names_one_app_and_no_other() {
    let apps = NAMES.map(app);
    for one in NAMES {
        for (app, other) in apps.iter().zip(NAMES) {
            let text = format!("# http level. {LAID} for {one}; a re-run of install replaces it.\n");
            assert_eq!(app.is_marked(&text), one == other, "{one} {other}");
            let text = format!("# A server for {one}, laid by cutover's install. It is yours: edit it.\n");
            assert_eq!(app.is_marked(&text), one == other, "{one} {other}");
        }
    }
}
