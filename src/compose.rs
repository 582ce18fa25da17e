//! The user's Compose files, in which each instance is a service.
//!
//! The files and their .env are the user's: they are read by Compose alone, and what differs goes in by variables of the
//! environment, which win over .env. Containers are found by the labels that both generations of Compose give them.

mod described;

use std::cell::OnceCell;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::app::{App, Instance, config};
use crate::command::{self, Ended, Run};
use crate::deadline::Deadline;
use crate::docker::{self, Container, Engine};
use crate::outcome::{self, quote, quote_first, usage};

use described::Described;

/// The labels by which Compose knows its containers.
const SERVICE: &str = "com.docker.compose.service";
const PROJECT: &str = "com.docker.compose.project";
const DIRECTORY: &str = "com.docker.compose.project.working_dir";
/// The files of the container's project, separated by commas; the first generation writes them as it was given them.
const FILES: &str = "com.docker.compose.project.config_files";
/// `True` for what `run` started, which is no instance.
const ONEOFF: &str = "com.docker.compose.oneoff";

/// What a Compose file is called that nobody names, in the order in which Compose looks for it.
const NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];

/// The variables of the caller's account that Compose gets. No others: they would win over the user's .env.
const PASSED_ON: [&str; 4] = ["HOME", "USER", "LOGNAME", "PATH"];

/// How long Compose may take to read its file.
const READING: std::time::Duration = std::time::Duration::from_secs(60);
/// How many lines are quoted of what Compose finds wrong with a file: the reason may be any of them.
const QUOTED_LINES: usize = 12;
/// How many lines are quoted of a build that failed.
const QUOTED_OF_BUILD: usize = 4;
/// The tag by which is found out what becomes of the variable. No such image is ever looked for.
const PROBE: &str = "cutover-probe";

/// The instances as services.
pub struct Project {
    app: App,
    /// What the configuration says about them.
    pub settings: config::Compose,
    /// Docker's engine.
    pub engine: Engine,
    /// Looked for when it is needed first: most questions are Docker's to answer.
    found: OnceCell<Program>,
}

/// Compose, and the words that its command line begins with.
type Program = (PathBuf, &'static [&'static str]);

/// What Compose calls an instance.
struct Service {
    /// The Compose files, whether they are there or not.
    files: Vec<PathBuf>,
    /// The directory that the first lies in.
    directory: PathBuf,
    name: String,
    /// None: Compose decides.
    project: Option<String>,
    env_file: Option<PathBuf>,
}

impl Project {
    /// The app's instances as they are configured.
    pub fn of(app: &App) -> Result<Project> {
        Project::new(app.clone())
    }

    /// The app's instances by the settings that one of them runs by. Where these cannot be read, the configured ones count.
    pub fn of_instance(app: &App, instance: &Instance) -> Result<Project> {
        Project::new(app.as_run(instance).unwrap_or_else(|_| app.clone()))
    }

    fn new(app: App) -> Result<Project> {
        let settings = app.config.compose.clone();
        let settings = settings.ok_or_else(|| usage("there is no [compose] in the configuration"))?;
        let inherited = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
        let inherited = inherited.map(|host| docker::socket_of(&host)).transpose();
        let inherited = inherited.map_err(|mistake| usage(format!("cannot use DOCKER_HOST: {mistake}")))?;
        let engine = Engine::at(settings.docker_host.as_deref().or(inherited.as_deref()));
        Ok(Project { app, settings, engine, found: OnceCell::new() })
    }

    /// The container of an instance; None: there is none. Of several, which only a killed Compose leaves, it is one that
    /// runs, else the newest.
    pub fn container(&self, instance: &Instance) -> Result<Option<Container>> {
        let all = self.containers(instance)?;
        Ok(all.into_iter().max_by_key(|container| (container.is_kept(), container.created.clone())))
    }

    /// All containers of an instance, whoever started them from this file's directory. Where both instances are services of one
    /// name, they are told apart by their files, or by their projects if there is one file only.
    pub fn containers(&self, instance: &Instance) -> Result<Vec<Container>> {
        let service = self.service(instance)?;
        let other = self.service(self.app.other(instance))?;
        let mut labels = vec![format!("{SERVICE}={}", service.name), format!("{ONEOFF}=False")];
        let are_one = service.name == other.name;
        let is_in = |files: &[PathBuf], file: &Path| files.iter().any(|one| is_same(one, file));
        let others: Vec<&PathBuf> = other.files.iter().filter(|file| !is_in(&service.files, file)).collect();
        let share_files = others.is_empty() && service.files.len() == other.files.len();
        if are_one && share_files {
            labels.extend(service.project.as_ref().map(|project| format!("{PROJECT}={project}")));
        }
        let is_ours = |container: &Container| {
            let Some(directory) = container.label(DIRECTORY).map(Path::new) else { return false };
            let of_files = || {
                let files = container.label(FILES).unwrap_or_default();
                let files: Vec<PathBuf> = files.split(',').map(|file| directory.join(file)).collect();
                service.files.iter().all(|file| is_in(&files, file)) && !others.iter().any(|file| is_in(&files, file))
            };
            is_same(directory, &service.directory) && (!are_one || share_files || of_files())
        };
        Ok(self.engine.containers(&labels)?.into_iter().filter(is_ours).collect())
    }

    fn service(&self, instance: &Instance) -> Result<Service> {
        let (home, settings) = (self.app.home(), &self.settings);
        let files = settings.file.of(instance);
        let files = files.ok_or_else(|| usage(format!("file in [compose] says nothing of {instance}")))?;
        let files = files.iter().map(|file| {
            // Without the dot of a directory that is the home.
            let file: PathBuf = home.join(file).components().collect();
            if file.is_dir() { named_as_usual(&file) } else { file }
        });
        let files: Vec<PathBuf> = files.collect();
        let env_file = settings.env_file.as_ref().and_then(|env_file| env_file.of(instance));
        Ok(Service {
            directory: files.first().and_then(|file| file.parent()).unwrap_or(Path::new("/")).to_owned(),
            files,
            name: settings.service_of(instance).to_owned(),
            project: settings.project_of(self.app.name(), &self.app.config.instances, instance),
            env_file: env_file.map(|env_file| home.join(env_file)),
        })
    }

    /// Fails when a file is not there that an instance needs.
    pub fn check_files(&self) -> Result<()> {
        for instance in &self.app.config.instances {
            let Service { files, directory, env_file, .. } = self.service(instance)?;
            if let Some(missing) = files.iter().find(|file| !file.is_file()) {
                let beside = NAMES.iter().find(|name| directory.join(name).is_file());
                let beside = beside.map_or_else(String::new, |name| format!("; {name} is there"));
                let file = missing.display();
                let remedy = format!("file in [compose] says where it is{beside}");
                return Err(usage(format!("cannot find {file}, the Compose file: {remedy}")));
            }
            if let Some(missing) = env_file.filter(|env_file| !env_file.is_file()) {
                return Err(usage(format!("cannot find {}, the env_file in [compose]", missing.display())));
            }
        }
        Ok(())
    }

    /// Fails, before anything is touched, when Compose cannot use its files, an instance is no service in them, or its service
    /// would not be run as configured.
    pub fn check(&self, deadline: Deadline) -> Result<()> {
        self.engine.ping()?;
        self.check_services(deadline)
    }

    /// As [`Project::check`], without asking the engine.
    pub fn check_services(&self, deadline: Deadline) -> Result<()> {
        self.check_files()?;
        self.app.config.instances.iter().try_for_each(|instance| self.check_service(instance, deadline))
    }

    fn check_service(&self, instance: &Instance, deadline: Deadline) -> Result<()> {
        let service = self.service(instance)?;
        let (name, file) = (&service.name, service.files_in_words());
        let probe = format!("{}:{PROBE}", self.settings.image);
        let mut read = self.read(&[], instance, &probe, deadline)?;
        if read.service(name).is_none() && self.is_plug_in()? {
            // The second generation leaves out what no profile asks for; with all of them it may miss what is not needed.
            read = self.read(&["--profile", "*"], instance, &probe, deadline)?;
        }
        let Some(described) = read.service(name) else {
            let there = read.services().join(", ");
            let remedy = "[instances] names services, or service in [compose] does";
            return Err(usage(format!("cannot find service {name} in {file}: there are {there}; {remedy}")));
        };
        let checked = described.check(&self.settings, &probe, instance.port());
        checked.map_err(|mistake| usage(format!("cannot use service {name} of {file}: {mistake}")))
    }

    /// What Compose makes of an instance's file.
    fn read(&self, options: &[&str], instance: &Instance, image: &str, deadline: Deadline) -> Result<Described> {
        let file = self.service(instance)?.files_in_words();
        let question = self.compose(&[options, &["config"]].concat(), instance, image)?;
        let Ended { status, stdout, stderr } = question.finish(deadline.within(READING))?;
        if !status.success() {
            let is_warning =
                |line: &&str| line.contains("level=warning") || line.contains("Defaulting to a blank string");
            let said = quote_first(stderr.lines().filter(|line| !is_warning(line)), QUOTED_LINES);
            let said = if said.is_empty() { command::describe(status) } else { said };
            return Err(usage(format!("cannot use {file}: {}: {said}", self.name()?)));
        }
        Described::parse(&stdout)
            .with_context(|| format!("cannot understand what {} says", self.name().unwrap_or_default()))
    }

    /// Has the registry's image of this reference brought here, with its progress on a terminal.
    pub fn pull(&self, reference: &str, deadline: Deadline) -> Result<()> {
        self.bring("pull", reference, deadline).with_context(|| format!("cannot pull {reference}"))
    }

    /// Has the image of this reference built here, as the service says, with its progress on a terminal.
    pub fn build(&self, reference: &str, deadline: Deadline) -> Result<()> {
        self.bring("build", reference, deadline).with_context(|| format!("cannot build {reference}"))
    }

    fn bring(&self, subcommand: &str, reference: &str, deadline: Deadline) -> Result<()> {
        let [instance, _] = &self.app.config.instances;
        let name = self.service(instance)?.name;
        let bring = self.compose(&[subcommand, &name], instance, reference)?;
        let show = |line: &str| {
            if !line.is_empty() {
                outcome::say("compose", line)
            }
        };
        if std::io::stderr().is_terminal() {
            return bring.shown(show, deadline);
        }
        if subcommand != "build" {
            return bring.output(deadline).map(drop);
        }
        // What a build's own command says comes on either stream, and before what Compose says.
        let Ended { status, stdout, stderr } = bring.finish(deadline)?;
        match status.success() {
            true => Ok(()),
            false => bail!("{}: {}", self.name()?, quote(stdout.lines().chain(stderr.lines()), QUOTED_OF_BUILD)),
        }
    }

    /// Makes the container of an instance that has none, from this image, and starts it; what it depends on is started
    /// where it does not run. No container that is there is made anew, so the other instance is never touched.
    pub fn up(&self, instance: &Instance, image: &str, deadline: Deadline) -> Result<()> {
        self.bring_up("--no-recreate", instance, image, deadline)
    }

    /// Starts the container that an instance has, and what it depends on; one that the file describes otherwise by now is
    /// made anew, with the same volumes.
    pub fn start(&self, instance: &Instance, image: &str, deadline: Deadline) -> Result<()> {
        // As it was made it may not start, which is what the file was mended for.
        let _ = self.up(instance, image, deadline);
        self.bring_up("--no-deps", instance, image, deadline)
    }

    fn bring_up(&self, option: &str, instance: &Instance, image: &str, deadline: Deadline) -> Result<()> {
        self.check_files()?;
        let name = self.service(instance)?.name;
        // The image is here, and must be this one, whatever the service's pull_policy; the first generation knows none.
        let policy: &[&str] = if self.is_plug_in()? { &["--pull", "missing"] } else { &[] };
        let words = [&["up", "-d"], policy, &[option, &name]].concat();
        let up = self.compose(&words, instance, image)?.output(deadline);
        // What is wrong with the file is told as such.
        up.map(drop).or_else(|error| self.check_service(instance, deadline).and(Err(error)))
    }

    /// A command of Compose's about an instance, whichever generation is here.
    fn compose(&self, words: &[&str], instance: &Instance, image: &str) -> Result<Run> {
        let Service { files, directory, project, env_file, .. } = self.service(instance)?;
        let (program, subcommand) = self.program()?;
        let mut arguments: Vec<OsString> = subcommand.iter().map(OsString::from).collect();
        arguments.extend(files.into_iter().flat_map(|file| ["-f".into(), file.into_os_string()]));
        arguments.extend(project.into_iter().flat_map(|project| ["-p".into(), project.into()]));
        arguments.extend(env_file.into_iter().flat_map(|env_file| ["--env-file".into(), env_file.into_os_string()]));
        arguments.extend(words.iter().map(OsString::from));
        let variables = self.variables(instance, image)?;
        let run = Run::new(program, arguments).environment(self.environment()).environment(variables);
        Ok(run.directory(&directory).says_why_last())
    }

    /// What is configured to be given to Compose, for a container of this image.
    fn variables(&self, instance: &Instance, image: &str) -> Result<Vec<(String, String)>> {
        let value = |key| -> Result<String> {
            Ok(match key {
                "tag_variable" => tag_of(image).with_context(|| format!("image {image} has no tag"))?,
                "port_variable" => instance.port().to_string(),
                "instance_variable" => instance.name().to_owned(),
                _ => image.to_owned(),
            })
        };
        self.settings.variables().map(|(key, name)| Ok((name.to_owned(), value(key)?))).collect()
    }

    fn is_plug_in(&self) -> Result<bool> {
        Ok(!self.program()?.1.is_empty())
    }

    /// What people call the Compose that is here.
    fn name(&self) -> Result<&'static str> {
        Ok(if self.is_plug_in()? { "docker compose" } else { "docker-compose" })
    }

    fn program(&self) -> Result<&Program> {
        if self.found.get().is_none() {
            let _ = self.found.set(program(self.environment())?);
        }
        self.found.get().context("cannot find Docker Compose")
    }

    fn environment(&self) -> Vec<(OsString, OsString)> {
        let plain = self.app.plain_environment().into_iter();
        let passed_on = plain.filter(|(name, _)| PASSED_ON.iter().any(|passed| name == passed));
        // Of two files in one directory, each has the other's service for one that is left over, as a .env may want removed.
        let own = [("DOCKER_HOST", self.engine.host()), ("COMPOSE_REMOVE_ORPHANS", "false".to_owned())];
        passed_on.chain(own.map(|(name, value)| (name.into(), value.into()))).collect()
    }
}

impl Service {
    fn files_in_words(&self) -> String {
        self.files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(" and ")
    }
}

/// The file that Compose would take in a directory.
fn named_as_usual(directory: &Path) -> PathBuf {
    let there = NAMES.iter().map(|name| directory.join(name)).find(|file| file.is_file());
    there.unwrap_or_else(|| directory.join("docker-compose.yml"))
}

/// Whether two paths lead to the same file, or are the same.
fn is_same(one: &Path, other: &Path) -> bool {
    one == other || one.canonicalize().is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}

/// What stands behind `NAME:` in a reference to an image; None: it has neither a tag nor a digest. A digest needs some tag before
/// it, which Docker leaves unread.
fn tag_of(reference: &str) -> Option<String> {
    let name = reference.rsplit_once('/').map_or(reference, |(_, name)| name);
    let (name, digest) = name.split_once('@').map_or((name, None), |(name, digest)| (name, Some(digest)));
    let tag = name.split_once(':').map(|(_, tag)| tag);
    match (tag, digest) {
        (Some(tag), Some(digest)) => Some(format!("{tag}@{digest}")),
        (None, Some(digest)) => Some(format!("cutover@{digest}")),
        (tag, None) => tag.map(str::to_owned),
    }
}

/// Finds Compose: `docker compose` where Docker has that plugin, else
/// `docker-compose`.
fn program(environment: Vec<(OsString, OsString)>) -> Result<Program> {
    if let Ok(docker) = command::find("docker") {
        let asked = Run::new(&docker, ["compose", "version"]).environment(environment);
        if asked.output(Deadline::after(READING)).is_ok() {
            return Ok((docker, &["compose"]));
        }
    }
    if let Ok(compose) = command::find("docker-compose") {
        return Ok((compose, &[]));
    }
    bail!("cannot find Docker Compose: install docker-compose-v2, docker-compose-plugin or docker-compose")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_what_stands_behind_the_name() {
        let digest = "sha256:0123";
        for (reference, tag) in [
            ("user/app:v1".to_owned(), Some("v1".to_owned())),
            (format!("127.0.0.1:5000/user/app:v1@{digest}"), Some(format!("v1@{digest}"))),
            (format!("127.0.0.1:5000/user/app@{digest}"), Some(format!("cutover@{digest}"))),
            ("127.0.0.1:5000/user/app".to_owned(), None),
            ("app".to_owned(), None),
        ] {
            assert_eq!(tag_of(&reference), tag, "{reference}");
        }
    }
}
