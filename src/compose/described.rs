//! A Compose file as Compose itself reads it, and what in it would not do what is configured.

use anyhow::{Context, Result};
use yaml_rust2::{Yaml, YamlLoader};

use crate::app::Port;
use crate::app::config::{Compose, Pull};
use crate::docker::is_reached_by_loopback;

/// What `docker compose config` prints, and `docker-compose config`: one form, however the file is written.
pub struct Described(Yaml);

/// A service of it.
pub struct Service<'a>(&'a Yaml);

impl Described {
    /// Reads it.
    pub fn parse(text: &str) -> Result<Described> {
        YamlLoader::load_from_str(text)?.into_iter().next().map(Described).context("it says nothing")
    }

    /// The names of its services.
    pub fn services(&self) -> Vec<&str> {
        let services = self.0["services"].as_hash();
        services.into_iter().flat_map(|services| services.keys()).filter_map(Yaml::as_str).collect()
    }

    /// A service by its name; None: there is none.
    pub fn service(&self, name: &str) -> Option<Service<'_>> {
        let service = &self.0["services"][name];
        service.as_hash().map(|_| Service(service))
    }
}

impl Service<'_> {
    /// Whether a container of it would be of the image that its variable was given, `probe`, and be reached at the port. Err: what is
    /// wrong, and the remedy.
    pub fn check(&self, settings: &Compose, probe: &str, port: Port) -> Result<(), String> {
        self.check_image(settings, probe)?;
        if settings.pull == Pull::Build && self.0["build"].is_badvalue() {
            return Err("it has no `build`, which pull = \"build\" in [compose] needs".to_owned());
        }
        self.check_port(settings, port)
    }

    fn check_image(&self, settings: &Compose, probe: &str) -> Result<(), String> {
        let (_, tag) = probe.rsplit_once(':').unwrap_or_default();
        let (key, variable) = settings.variable_of_image();
        let written = settings.image_as_written();
        let Some(image) = self.0["image"].as_str() else {
            return Err(format!("it has no image: write {written}, beside `build` if it has that"));
        };
        // What goes without saying on Docker Hub.
        let short = image.strip_prefix("docker.io/").unwrap_or(image);
        let short = short.strip_prefix("library/").unwrap_or(short);
        if short == probe {
            return Ok(());
        }
        if !image.contains(tag) {
            return Err(format!(
                "its image is {image}, whatever {variable} says, but must come from {key}: write {written}"
            ));
        }
        match settings.image_variable.is_some() {
            true if image.ends_with(&format!(":{probe}")) => Err(format!(
                "{variable} is only the tag of its image, but image_variable must be all of it: set tag_variable = \"{variable}\" instead, or write {written}"
            )),
            false if image == tag => Err(format!(
                "{variable} is its whole image, and not the tag alone: set image_variable = \"{variable}\" instead of tag_variable"
            )),
            _ => Err(format!("its image becomes {image} with the tag {tag}, but must become {probe}: write {written}")),
        }
    }

    fn check_port(&self, settings: &Compose, port: Port) -> Result<(), String> {
        let Some(published) = self.published() else { return Ok(()) };
        let is_it = |(address, given): &(String, String)| {
            // Of a range Docker chooses one, which is seen when the container is there.
            is_reached_by_loopback(address) && (*given == port.to_string() || given.contains('-'))
        };
        if published.iter().any(is_it) {
            return Ok(());
        }
        let in_words = |(address, given): &(String, String)| match address.as_str() {
            "" => given.clone(),
            address => format!("{address}:{given}"),
        };
        let words: Vec<String> = published.iter().map(in_words).collect();
        let published = if words.is_empty() { "no port".to_owned() } else { format!("port {}", words.join(" and ")) };
        let remedy = match &settings.port_variable {
            Some(variable) => format!("write `ports: [\"${{{variable}}}:…\"]`"),
            None => "make them the same, or set port_variable in [compose]".to_owned(),
        };
        Err(format!("it publishes {published}, but [instances] says {port}: {remedy}"))
    }

    /// The addresses and ports of the host that it publishes; None: it uses the host's network.
    fn published(&self) -> Option<Vec<(String, String)>> {
        if self.0["network_mode"].as_str() == Some("host") {
            return None;
        }
        let ports = self.0["ports"].as_vec().map(Vec::as_slice).unwrap_or_default();
        Some(ports.iter().filter_map(binding).collect())
    }
}

/// Where on the host a port is published, as the long syntax or the short one says; None: Docker chooses.
fn binding(port: &Yaml) -> Option<(String, String)> {
    if let Some(text) = text_of(port) {
        let text = text.split_once('/').map_or(text.as_str(), |(text, _)| text);
        let (host, _) = text.rsplit_once(':')?;
        let (address, given) = host.rsplit_once(':').unwrap_or(("", host));
        return (!given.is_empty()).then(|| (address.to_owned(), given.to_owned()));
    }
    let given = text_of(&port["published"]).filter(|given| !given.is_empty())?;
    Some((text_of(&port["host_ip"]).unwrap_or_default(), given))
}

fn text_of(value: &Yaml) -> Option<String> {
    value.as_str().map(str::to_owned).or_else(|| value.as_i64().map(|number| number.to_string()))
}
