//! What must hold of a configuration beyond each key's own value, and where in the file it does not.

use super::{Compose, Config, Each, Runner};
use crate::app::names::{Instance, Port};

/// The most processes among which clients are divided: nginx gets an upstream for each of each number of them.
const MOST_STICKY: usize = 16;

impl Config {
    /// Checks a configuration that was read from this text. The error names the line.
    pub fn check(&self, text: &str) -> Result<(), String> {
        self.has_what_runs_it()?;
        if let Some(compose) = self.compose.as_ref().filter(|_| self.runs_containers()) {
            self.tells_containers_apart(compose, text)?;
        }
        self.has_ports_of_its_own(text)?;
        if self.nginx.sticky && self.processes() > MOST_STICKY {
            let at = at_line(text, "nginx", "sticky").unwrap_or_default();
            let count = self.processes();
            return Err(format!("{at}sticky is for at most {MOST_STICKY} processes, and [run] has {count}"));
        }
        if self.push.as_ref().is_some_and(|push| push.repository.is_none() && push.poll.is_none()) {
            let at = at_line(text, "push", "").unwrap_or_default();
            return Err(format!("{at}[push] asks for nothing: set repository, poll, or both; see cutover-config(5)"));
        }
        Ok(())
    }

    /// Each kind of runner needs sections of its own.
    fn has_what_runs_it(&self) -> Result<(), String> {
        // Of the whole, as the parser would tell it.
        let missing = |key| Err(format!("line 1: missing key `{key}`; see cutover-config(5)"));
        match self.runner {
            _ if self.runs_containers() && !self.workers.is_empty() => Err(
                "[[worker]] is not for containers: a worker is a service of its own in the Compose file; see cutover-config(5)"
                    .to_owned(),
            ),
            _ if self.runs_containers() => Ok(()),
            Some(Runner::Compose) => missing("compose"),
            // What a push deploys comes from there.
            _ if self.source.git.is_empty() && self.push.is_some() => missing("source"),
            _ if self.run.command.is_empty() => missing("run"),
            _ => Ok(()),
        }
    }

    /// What differs between the instances is said for both; they are two containers; and each variable holds one thing.
    fn tells_containers_apart(&self, compose: &Compose, text: &str) -> Result<(), String> {
        let mistake = |key: &str, what: String| {
            let at = at_line(text, "compose", key).or_else(|| at_line(text, "compose", ""));
            let at = at.unwrap_or_default();
            Err(format!("{at}[compose] {what}; see cutover-config(5)"))
        };
        let names = self.instances.each_ref().map(Instance::name);
        for (key, given) in [
            ("file", named(Some(&compose.file))),
            ("service", named(compose.service.as_ref())),
            ("project", named(compose.project.as_ref())),
            ("env_file", named(compose.env_file.as_ref())),
        ] {
            let Some(given) = given else { continue };
            if let Some(unknown) = given.iter().find(|name| !names.contains(name)) {
                let [first, second] = names;
                return mistake(key, format!("{key} names {unknown:?}: the instances are {first} and {second}"));
            }
            if let Some(missing) = names.iter().find(|name| !given.contains(name)) {
                return mistake(key, format!("{key} says nothing of {missing}"));
            }
        }
        let [first, second] = self.instances.each_ref().map(|instance| {
            (compose.service_of(instance), compose.project_of(self.app.as_str(), &self.instances, instance))
        });
        if first == second {
            let (service, project) = (first.0, first.1.unwrap_or_default());
            let what = format!("both instances are service {service} of project {project}: give each a project");
            return mistake("project", what);
        }
        let variables: Vec<(&str, &str)> = compose.variables().collect();
        match (&compose.image_variable, &compose.tag_variable) {
            (None, None) => {
                return mistake("", "missing key `image_variable`, or `tag_variable` for the tag alone".to_owned());
            }
            (Some(_), Some(_)) => {
                return mistake("tag_variable", "has both image_variable and tag_variable: choose one".to_owned());
            }
            _ => {}
        }
        for (at, (key, name)) in variables.iter().enumerate() {
            if let Some((other, _)) = variables.iter().take(at).find(|(_, other)| other == name) {
                return mistake(key, format!("{key} and {other} are both {name}"));
            }
        }
        Ok(())
    }

    /// The ports that are not the instances' must not be theirs, nor each other's.
    fn has_ports_of_its_own(&self, text: &str) -> Result<(), String> {
        let status = ("nginx", "status_port", self.nginx.status_port);
        let push = self.webhook().map(|push| ("push", "port", push.port));
        let mut taken: Vec<(Port, String)> = Vec::new();
        for instance in &self.instances {
            for slot in 0..self.slots() {
                let port = instance.port_of(slot).ok_or_else(|| {
                    format!(
                        "[run] processes: there are no ports for so many behind {}, of instance {instance}",
                        instance.port()
                    )
                })?;
                let whose = match slot {
                    0 => format!("the port of instance {instance}"),
                    _ => format!("the port of process {slot} of instance {instance}"),
                };
                if let Some((_, owner)) = taken.iter().find(|(other, _)| *other == port) {
                    return Err(format!("[instances] {port} is {whose}, and {owner}: see Ports in cutover-config(5)"));
                }
                taken.push((port, whose));
            }
        }
        for listen in &self.nginx.listen {
            if let Some((_, owner)) = taken.iter().find(|(port, _)| takes(listen, *port)) {
                let at = at_line(text, "nginx", "listen").unwrap_or_default();
                return Err(format!("{at}listen {listen:?} takes {owner}; give nginx another"));
            }
        }
        for (section, key, port) in std::iter::once(status).chain(push) {
            if let Some((_, owner)) = taken.iter().find(|(other, _)| *other == port) {
                let at = at_line(text, section, key).unwrap_or_else(|| format!("[{section}] "));
                return Err(format!("{at}{key} {port} is {owner}; give it a port of its own"));
            }
            taken.push((port, format!("{key} in [{section}]")));
        }
        Ok(())
    }
}

/// The instances for which there is a value each; None: there is one for both, or none.
fn named<T>(given: Option<&Each<T>>) -> Option<Vec<&str>> {
    match given {
        Some(Each::Own(values)) => Some(values.keys().map(String::as_str).collect()),
        Some(Each::Both(_)) | None => None,
    }
}

/// The port of what `listen` in `[nginx]` says: `80`, `127.0.0.1:8080`, `[::]:443 ssl`; None: it is a path.
pub fn port_of_listen(listen: &str) -> Option<u16> {
    let address = listen.split_whitespace().next()?;
    address.rsplit(':').next()?.parse().ok()
}

/// Whether an nginx that listens there takes a port of the loopback interface.
fn takes(listen: &str, port: Port) -> bool {
    let address = listen.split_whitespace().next().unwrap_or_default();
    let host = address.rsplit_once(':').map_or("*", |(host, _)| host);
    port_of_listen(listen) == Some(port.number()) && ["*", "0.0.0.0", "127.0.0.1", "localhost", "[::]"].contains(&host)
}

/// How a mistake begins that is where a section sets a key, or, with no key, begins; None: it does not, the default holds.
fn at_line(text: &str, section: &str, key: &str) -> Option<String> {
    line_of(text, section, key).map(|line| format!("line {line}: "))
}

/// The line on which a section sets a key, or, with no key, begins; None: it does not, the default holds.
fn line_of(text: &str, section: &str, key: &str) -> Option<usize> {
    let tables: toml::Table = text.parse().ok()?;
    let table = tables.get(section)?;
    if !key.is_empty() {
        table.get(key)?;
    }
    let heading = regex::Regex::new(&format!(r"^\s*\[\s*{section}\s*\]")).ok()?;
    let line = regex::Regex::new(&format!(r"^\s*{key}\s*=|^\s*{section}\s*[.=].*{key}")).ok()?;
    let after = text.lines().position(|line| heading.is_match(line));
    match (after, key) {
        (Some(after), "") => Some(after + 1),
        (after, _) => {
            let skipped = after.unwrap_or(0);
            let found = text.lines().skip(skipped).position(|text| line.is_match(text))?;
            Some(skipped + found + 1)
        }
    }
}

/// What the parser has found wrong, with the line.
pub fn describe(text: &str, error: &toml::de::Error) -> String {
    let lines: Vec<&str> = error.message().lines().collect();
    let message = lines.join(" ").replace("unknown field", "unknown key").replace("missing field", "missing key");
    let line = error.span().and_then(|span| text.get(..span.start)).map(|before| before.matches('\n').count() + 1);
    match line {
        Some(line) => format!("line {line}: {message}; see cutover-config(5)"),
        // It is about the whole.
        None => format!("line 1: {message}; see cutover-config(5)"),
    }
}
