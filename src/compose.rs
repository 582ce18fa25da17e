//! The user's Compose project, in which each instance is a service.
//!
//! The Compose file and its .env are the user's: they are read by Compose alone, and the image goes in by a variable of
//! the environment, which wins over .env. Containers are found by the labels that both generations of Compose give them.

use std::cell::OnceCell;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::app::{App, Instance, config};
use crate::command::{self, Run};
use crate::deadline::Deadline;
use crate::docker::{self, Container, Engine};
use crate::outcome::{self, Exit, exit_of, usage};

/// The labels by which Compose knows its containers.
const SERVICE: &str = "com.docker.compose.service";
const DIRECTORY: &str = "com.docker.compose.project.working_dir";
/// `True` for what `run` started, which is no instance.
const ONEOFF: &str = "com.docker.compose.oneoff";

/// The variables of the caller's account that Compose gets. No others: they would win over the user's .env.
const PASSED_ON: [&str; 4] = ["HOME", "USER", "LOGNAME", "PATH"];

/// How long Compose may take to read its file.
const READING: std::time::Duration = std::time::Duration::from_secs(60);

/// The project.
pub struct Project<'a> {
    app: &'a App,
    /// What the configuration says about it.
    pub settings: &'a config::Compose,
    /// Docker's engine.
    pub engine: Engine,
    file: PathBuf,
    /// Looked for when it is needed first: most questions are Docker's to answer.
    found: OnceCell<Program>,
}

/// Compose, and the words that its command line begins with.
type Program = (PathBuf, &'static [&'static str]);

impl<'a> Project<'a> {
    /// The app's project.
    pub fn of(app: &'a App) -> Result<Project<'a>> {
        let settings =
            app.config.compose.as_ref().ok_or_else(|| usage("there is no [compose] in the configuration"))?;
        let inherited = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
        let inherited = inherited.map(|host| docker::socket_of(&host)).transpose();
        let inherited = inherited.map_err(|mistake| usage(format!("cannot use DOCKER_HOST: {mistake}")))?;
        let engine = Engine::at(settings.docker_host.as_deref().or(inherited.as_deref()));
        Ok(Project { app, settings, engine, file: app.compose_file(settings), found: OnceCell::new() })
    }

    /// The container of an instance; None: there is none. Of several, which only a killed Compose leaves, it is one that
    /// runs, else the newest.
    pub fn container(&self, instance: &Instance) -> Result<Option<Container>> {
        let all = self.containers(instance)?;
        Ok(all.into_iter().max_by_key(|container| (container.is_kept(), container.created.clone())))
    }

    /// All containers of an instance, whoever started them from this file's directory.
    pub fn containers(&self, instance: &Instance) -> Result<Vec<Container>> {
        let labels = [format!("{SERVICE}={instance}"), format!("{ONEOFF}=False")];
        let all = self.engine.containers(&labels)?;
        let here = self.directory();
        let is_ours = |container: &Container| {
            let directory = container.label(DIRECTORY).map(Path::new);
            directory.is_some_and(|one| {
                one == here || one.canonicalize().is_ok_and(|one| Some(one) == here.canonicalize().ok())
            })
        };
        Ok(all.into_iter().filter(is_ours).collect())
    }

    /// The Compose file, which must be there.
    pub fn file(&self) -> Result<&Path> {
        match self.file.is_file() {
            true => Ok(&self.file),
            false => Err(usage(format!(
                "cannot find {}, the Compose file: file in [compose] says where it is",
                self.file.display()
            ))),
        }
    }

    /// Fails, before anything is touched, when Compose cannot use its file, or an instance is no service in it.
    pub fn check(&self, deadline: Deadline) -> Result<()> {
        self.engine.ping()?;
        self.file()?;
        // Some image must be in place of the variable; this one is never asked for.
        let question = self.compose(&["config", "--services"], &self.settings.image)?;
        let listed = question.output(deadline.within(READING)).map_err(|error| match exit_of(&error) {
            Exit::TimedOut => error,
            _ => usage(format!("cannot use {}: {error:#}", self.file.display())),
        })?;
        let services: Vec<&str> = listed.stdout.lines().map(str::trim).collect();
        for instance in &self.app.config.instances {
            if !services.contains(&instance.name()) {
                let (file, there) = (self.file.display(), services.join(", "));
                return Err(usage(format!(
                    "cannot find service {instance} in {file}: there are {there}; [instances] names services"
                )));
            }
        }
        Ok(())
    }

    /// Has the registry's image of this reference brought here, with its progress on a terminal.
    pub fn pull(&self, reference: &str, deadline: Deadline) -> Result<()> {
        let [service, _] = &self.app.config.instances;
        let words = ["pull", service.name()];
        let show = |line: &str| {
            if !line.is_empty() {
                outcome::say("compose", line)
            }
        };
        match std::io::stderr().is_terminal() {
            true => self.compose(&words, reference)?.shown(show, deadline),
            false => self.compose(&words, reference)?.output(deadline).map(drop),
        }
        .with_context(|| format!("cannot pull {reference}"))
    }

    /// Makes the container of an instance that has none, from this image, and starts it; what it depends on is started
    /// where it does not run. No container that is there is made anew, so the other instance is never touched.
    pub fn up(&self, instance: &Instance, image: &str, deadline: Deadline) -> Result<()> {
        self.bring_up(&["--no-recreate", instance.name()], image, deadline)
    }

    /// Starts the container that an instance has, and what it depends on; one that the file describes otherwise by now is
    /// made anew, with the same volumes.
    pub fn start(&self, instance: &Instance, image: &str, deadline: Deadline) -> Result<()> {
        // As it was made it may not start, which is what the file was mended for.
        let _ = self.up(instance, image, deadline);
        self.bring_up(&["--no-deps", instance.name()], image, deadline)
    }

    fn bring_up(&self, words: &[&str], image: &str, deadline: Deadline) -> Result<()> {
        // The image is here, and must be this one, whatever the service's pull_policy; the first generation knows none.
        let policy: &[&str] = if self.is_plug_in()? { &["--pull", "missing"] } else { &[] };
        let up = self.compose(&[&["up", "-d"], policy, words].concat(), image)?.output(deadline);
        // What is wrong with the file is told as such.
        up.map(drop).or_else(|error| self.check(deadline).and(Err(error)))
    }

    /// A command of Compose's, whichever generation is here.
    fn compose(&self, words: &[&str], image: &str) -> Result<Run> {
        let (program, subcommand) = self.program()?;
        let file = ["-f".into(), self.file.clone().into_os_string()];
        let words = words.iter().map(OsString::from);
        let arguments = subcommand.iter().map(OsString::from).chain(file).chain(words);
        let run = Run::new(program, arguments).environment(self.environment(image)).directory(self.directory());
        Ok(run.says_why_last())
    }

    fn is_plug_in(&self) -> Result<bool> {
        Ok(!self.program()?.1.is_empty())
    }

    fn program(&self) -> Result<&Program> {
        if self.found.get().is_none() {
            let _ = self.found.set(program(self.environment(&self.settings.image))?);
        }
        self.found.get().context("cannot find Docker Compose")
    }

    fn environment(&self, image: &str) -> Vec<(OsString, OsString)> {
        let plain = self.app.plain_environment().into_iter();
        let passed_on = plain.filter(|(name, _)| PASSED_ON.iter().any(|passed| name == passed));
        let added = [(self.settings.image_variable.as_str(), image), ("DOCKER_HOST", &self.engine.host())];
        passed_on.chain(added.map(|(name, value)| (name.into(), value.into()))).collect()
    }

    fn directory(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new("/"))
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
