//! The part of a configuration that root's own files depend on. Root takes it from its record of the app, in which it lies
//! as it was accepted, and not from config.toml, which the app's user can change at any time.

use toml::{Table, Value};

use super::{Compose, Config, Health, Nginx, Push, Run};

/// How many files systemd lets a service open that asks for it (systemd.exec(5)).
pub const OPEN_FILES: u64 = 524_288;

/// What stands for a value that is not root's, and that a configuration must have.
pub(super) const PLACEHOLDER: &str = "recorded";

/// The keys of each section that are root's. None: all of them.
const SECTIONS: [(&str, Option<&[&str]>); 5] = [
    ("instances", None),
    (
        "nginx",
        Some(&[
            "listen",
            "server_name",
            "status_port",
            "failover",
            "sticky",
            "keepalive",
            "keepalive_timeout",
            "send_timeout",
            "read_timeout",
            "trusted_proxies",
            "conf_dir",
            "own",
        ]),
    ),
    ("run", Some(&["processes", "max_memory", "open_files", "nice", "stop_timeout"])),
    ("health", Some(&["timeout"])),
    ("push", Some(&["repository", "port", "poll"])),
];
/// The keys of each worker that are root's, for the memory that all of an instance may have is a limit of its unit.
const OF_WORKERS: [&str; 3] = ["name", "count", "max_memory"];

/// Root's part of a configuration's text. The error is of a text that is no TOML.
pub fn roots_part(text: &str) -> Result<Table, String> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| error.message().to_owned())?;
    let mut part = Table::new();
    for key in ["app", "runner"] {
        part.extend(table.get(key).map(|value| (key.to_owned(), value.clone())));
    }
    for (section, keys) in SECTIONS {
        if let Some(Value::Table(all)) = table.get(section) {
            part.insert(section.to_owned(), Value::Table(chosen(all, keys)));
        }
    }
    if table.contains_key("compose") {
        part.insert("compose".to_owned(), Value::Table(Table::new()));
    }
    if let Some(Value::Array(workers)) = table.get("worker") {
        let of = |worker: &Value| worker.as_table().map(|all| Value::Table(chosen(all, Some(&OF_WORKERS))));
        part.insert("worker".to_owned(), Value::Array(workers.iter().filter_map(of).collect()));
    }
    Ok(part)
}

fn chosen(all: &Table, keys: Option<&[&str]>) -> Table {
    let is_chosen = |key: &String| keys.is_none_or(|keys| keys.contains(&key.as_str()));
    all.iter().filter(|(key, _)| is_chosen(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

impl Config {
    /// The configuration that holds root's part and nothing else that means anything.
    pub fn of_roots_part(mut part: Table) -> Result<Config, String> {
        for (section, key) in [("source", "git"), ("run", "command")] {
            let table = part.entry(section).or_insert_with(|| Value::Table(Table::new()));
            if let Some(table) = table.as_table_mut() {
                table.entry(key).or_insert_with(|| PLACEHOLDER.into());
            }
        }
        if let Some(Value::Table(compose)) = part.get_mut("compose") {
            compose.insert("image_variable".to_owned(), "IMAGE".into());
            compose.insert("image".to_owned(), "image".into());
        }
        for worker in part.get_mut("worker").and_then(Value::as_array_mut).into_iter().flatten() {
            worker.as_table_mut().map(|worker| worker.insert("command".to_owned(), PLACEHOLDER.into()));
        }
        let config: Config =
            Value::Table(part).try_into().map_err(|error: toml::de::Error| error.message().to_owned())?;
        config.check("")?;
        Ok(config)
    }

    /// This configuration with root's part as it was accepted.
    pub fn with_roots_part(self, accepted: &Config) -> Config {
        let Run { processes, max_memory, open_files, nice, stop_timeout, .. } = accepted.run;
        let laid = self.with_laid(accepted);
        Config {
            workers: accepted.workers.clone(),
            run: Run { processes, max_memory, open_files, nice, stop_timeout, ..laid.run },
            health: Health { timeout: accepted.health.timeout, ..laid.health },
            ..laid
        }
    }

    /// This configuration with the part as it was laid that nginx's files and units depend on, and that is not a matter of a
    /// release.
    pub fn with_laid(self, laid: &Config) -> Config {
        // Whether there is a webhook, and how often the repository is asked, is root's; what a push deploys is not.
        let push = laid.push.clone().map(|laid| {
            let Push { repository, port, poll, .. } = laid;
            match self.push.clone() {
                Some(own) => Push { repository, port, poll, ..own },
                None => Push { repository, port, poll, ..Push::default() },
            }
        });
        let compose = laid.compose.clone().map(|placeholder| self.compose.clone().unwrap_or(placeholder));
        Config {
            app: laid.app.clone(),
            runner: laid.runner,
            instances: laid.instances.clone(),
            // What the tools ask as the user is nothing to root.
            nginx: Nginx { check: self.nginx.check, ..laid.nginx.clone() },
            push,
            compose,
            ..self
        }
    }

    /// What differs in root's part from what was accepted, a line each.
    pub fn differences_from(&self, accepted: &Config) -> Vec<String> {
        let differing = self.differing(accepted);
        differing.map(|(name, own, accepted)| format!("{name}: {own}, accepted was {accepted}")).collect()
    }

    /// What differs from what was laid in the part of [`Config::with_laid`], and what of a release's limits takes root and was not
    /// laid.
    pub fn unlaid(&self, laid: &Config) -> Vec<String> {
        let of_release = ["[run]", "[health]", "memory"];
        let nice = |config: &Config| config.run.nice.unwrap_or_default().min(0);
        let open_files = |config: &Config| config.run.open_files.unwrap_or_default().max(OPEN_FILES);
        let differing = self.differing(laid).filter(|(name, ..)| match *name {
            "[run] nice" => nice(self) < nice(laid),
            "[run] open_files" => open_files(self) > open_files(laid),
            _ => !of_release.iter().any(|part| name.starts_with(part)),
        });
        differing.map(|(name, own, laid)| format!("{name}: {own} instead of {laid}")).collect()
    }

    /// The settings of root's part that differ: the name, the value here, and the other one.
    fn differing(&self, other: &Config) -> impl Iterator<Item = (&'static str, String, String)> {
        let pairs = self.settings_of_root().into_iter().zip(other.settings_of_root());
        let differing = pairs.filter(|(own, other)| own != other);
        differing.map(|((name, own), (_, other))| (name, own, other))
    }

    /// Root's part in words, setting by setting.
    fn settings_of_root(&self) -> Vec<(&'static str, String)> {
        let Nginx { listen, server_name, status_port, failover, sticky, conf_dir, own, .. } = &self.nginx;
        let Nginx { keepalive, keepalive_timeout, send_timeout, read_timeout, trusted_proxies, .. } = &self.nginx;
        let Run { processes, max_memory, open_files, nice, stop_timeout, .. } = &self.run;
        let push = self.push.as_ref();
        let number = |number: Option<u64>| number.map_or("none".to_owned(), |number| number.to_string());
        let instances = self.instances.each_ref().map(|instance| format!("{instance} = {}", instance.port()));
        let compose = |compose: &Option<Compose>| if compose.is_some() { "containers" } else { "processes" };
        vec![
            ("app", self.app.clone()),
            ("runner", self.runner.map_or("none".to_owned(), |runner| format!("{runner:?}").to_lowercase())),
            ("[compose]", compose(&self.compose).to_owned()),
            ("[instances]", instances.join(", ")),
            ("[nginx] listen", format!("{listen:?}")),
            ("[nginx] server_name", server_name.clone()),
            ("[nginx] status_port", status_port.to_string()),
            ("[nginx] failover", failover.to_string()),
            ("[nginx] sticky", sticky.to_string()),
            ("[nginx] keepalive", keepalive.to_string()),
            ("[nginx] keepalive_timeout", humantime::format_duration(*keepalive_timeout).to_string()),
            ("[nginx] send_timeout", humantime::format_duration(*send_timeout).to_string()),
            ("[nginx] read_timeout", humantime::format_duration(*read_timeout).to_string()),
            ("[nginx] trusted_proxies", format!("{trusted_proxies:?}")),
            ("[nginx] conf_dir", conf_dir.display().to_string()),
            ("[nginx] own", own.to_string()),
            ("[run] processes", processes.to_string()),
            ("[run] max_memory", number(*max_memory)),
            ("[run] open_files", number(*open_files)),
            ("[run] nice", nice.map_or("none".to_owned(), |nice| nice.to_string())),
            ("[run] stop_timeout", humantime::format_duration(*stop_timeout).to_string()),
            ("[health] timeout", humantime::format_duration(self.health.timeout).to_string()),
            ("memory of all workers and processes", number(self.memory())),
            ("[push] repository", push.and_then(|push| push.repository.clone()).unwrap_or("none".to_owned())),
            ("[push] port", push.map_or("none".to_owned(), |push| push.port.to_string())),
            (
                "[push] poll",
                push.and_then(|push| push.poll)
                    .map_or("never".to_owned(), |poll| humantime::format_duration(poll).to_string()),
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const WHOLE: &str = r#"
app = "shop"
[instances]
blue = 1001
green = 1002
[source]
git = "https://user:secret@example.org/shop.git"
[run]
command = "SECRET=1 ./app"
processes = 2
nice = 3
env_file = "other"
[[worker]]
name = "mail"
command = "./mail --password x"
max_memory = "30M"
count = 2
[health]
path = "/up"
timeout = "5s"
[nginx]
listen = ["81"]
server_name = "shop.example.org"
[push]
repository = "a/b"
branch = "next"
port = 1003
"#;

    fn config(text: &str) -> Config {
        Config::parse(text).unwrap()
    }

    #[test]
    fn roots_part_holds_what_root_renders_and_no_secret() {
        let part = roots_part(WHOLE).unwrap();
        let text = part.to_string();
        for absent in ["secret", "SECRET", "password", "env_file", "/up", "next", "source"] {
            assert!(!text.contains(absent), "{absent} is in {text}");
        }
        let accepted = Config::of_roots_part(text.parse().unwrap()).unwrap();
        assert_eq!(config(WHOLE).differences_from(&accepted), Vec::<String>::new());
    }

    #[test]
    fn a_change_of_root_s_part_is_told_and_not_taken_and_any_other_is_taken() {
        let accepted = Config::of_roots_part(roots_part(WHOLE).unwrap()).unwrap();
        let text = WHOLE
            .replace("[\"81\"]", "[\"82\"]")
            .replace("= 1002", "= 1012")
            .replace("nice = 3", "nice = -20\nopen_files = 600000");
        let text = text.replace("/up", "/other").replace("SECRET=1", "SECRET=2").replace("1003", "1004");
        let own = config(&text.replace("\"30M\"", "\"90M\"").replace("\"5s\"", "\"9s\""));
        let differences = own.differences_from(&accepted);
        let names = [
            "[instances]: blue = 1001, green = 1012, accepted was blue = 1001, green = 1002",
            "[nginx] listen: [\"82\"], accepted was [\"81\"]",
            "[run] open_files: 600000, accepted was none",
            "[run] nice: -20, accepted was 3",
            "[health] timeout: 9s, accepted was 5s",
            "[push] port: 1004, accepted was 1003",
        ];
        assert_eq!(differences, names);
        let unlaid = own.unlaid(&accepted);
        let names: Vec<_> = unlaid.iter().map(|one| one.split_once(':').unwrap().0).collect();
        assert_eq!(names, ["[instances]", "[nginx] listen", "[run] open_files", "[run] nice", "[push] port"]);
        // What supervise sets by itself is a matter of the release.
        let less = config(&WHOLE.replace("nice = 3", "nice = 0\nopen_files = 524288"));
        assert_eq!(less.unlaid(&accepted), Vec::<String>::new());
        let taken = own.with_roots_part(&accepted);
        assert_eq!(taken.differences_from(&accepted), Vec::<String>::new());
        assert_eq!((taken.run.command.as_str(), taken.expectation().path.as_str()), ("SECRET=2 ./app", "/other"));
        assert_eq!(taken.pushed_branch(), "next");
    }

    #[test]
    fn containers_and_processes_are_told_apart_and_a_webhook_from_none() {
        let containers = "app = \"shop\"\n[compose]\nimage_variable = \"SHOP_IMAGE\"\nimage = \"a/shop\"\n";
        let accepted = Config::of_roots_part(roots_part(containers).unwrap()).unwrap();
        assert!(accepted.runs_containers());
        let taken = config(WHOLE).with_roots_part(&accepted);
        assert!(taken.runs_containers() && taken.webhook().is_none());
        let differences = config(WHOLE).differences_from(&accepted);
        assert!(differences.contains(&"[compose]: processes, accepted was containers".to_owned()), "{differences:?}");
        assert!(differences.contains(&"[push] repository: a/b, accepted was none".to_owned()), "{differences:?}");
        let taken = config(containers).with_roots_part(&accepted);
        assert_eq!(taken.compose.unwrap().image, "a/shop");
    }
}
