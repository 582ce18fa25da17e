//! A server whose app is containers: the team's own Compose file and .env, a home, and an nginx of its own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::engine::{Compose, Engine, IMAGE};
use crate::load::{Load, Plan};
use crate::ran::Ran;

/// Where nginx listens.
pub const PORT: u16 = 8888;

pub struct Host<'a> {
    pub engine: &'a Engine,
    pub compose: Compose,
    /// Tags that are there when all is over, for they are the user's own.
    pub users_own: Vec<&'static str>,
    directory: TempDir,
}

impl<'a> Host<'a> {
    /// A host with the team's files and everything laid out, and nothing deployed. `service` is added to both services,
    /// `config` to the configuration.
    pub fn new(engine: &'a Engine, compose: Compose, service: &str, config: &str) -> Host<'a> {
        let host = Host::unlaid(engine, compose, service, config);
        host.tool("install", &["--config", host.config().to_str().unwrap()]).ok();
        host
    }

    /// The same, before install.
    pub fn unlaid(engine: &'a Engine, compose: Compose, service: &str, config: &str) -> Host<'a> {
        let directory = tempfile::Builder::new().prefix("host").tempdir_in(engine.place()).unwrap();
        let host = Host { engine, compose, users_own: vec!["db"], directory };
        fs::create_dir(host.project()).unwrap();
        host.write_compose_file(service);
        fs::write(host.project().join(".env"), "SECRET=hunter2\nTZ=Asia/Seoul\nDAILRY_IMAGE=!@#$%\n").unwrap();
        let file = host.compose_file();
        let soak = if config.contains("soak =") { "" } else { "soak = \"100ms\"\n" };
        let text = format!(
            "app = \"dailry\"\nrunner = \"compose\"\n[instances]\ndailry-blue = 8081\ndailry-green = 8082\n\
             [nginx]\nown = true\nlisten = [\"127.0.0.1:{PORT}\"]\nstatus_port = 8889\n\
             [compose]\nfile = \"{}\"\nimage_variable = \"DAILRY_IMAGE\"\nimage = \"{IMAGE}\"\n\
             [deploy]\ndrain_timeout = \"300ms\"\n{soak}{config}",
            file.display()
        );
        fs::write(host.config(), text).unwrap();
        host
    }

    /// A host with Compose files of another shape, before install: the instances are `blue` and `green`. `PROJECT` in the texts is
    /// the directory of the files, and `keys` what `[compose]` has besides the image.
    pub fn with(engine: &'a Engine, compose: Compose, files: &[(&str, &str)], keys: &str) -> Host<'a> {
        let directory = tempfile::Builder::new().prefix("host").tempdir_in(engine.place()).unwrap();
        let host = Host { engine, compose, users_own: vec!["db"], directory };
        for (name, text) in files {
            host.write(name, text);
        }
        host.configure(keys);
        host
    }

    /// Writes a file of the team's.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.project().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, self.filled(text)).unwrap();
    }

    /// Writes a configuration with these keys in `[compose]`.
    pub fn configure(&self, keys: &str) {
        let text = format!(
            "app = \"dailry\"\n[instances]\nblue = 8081\ngreen = 8082\n\
             [nginx]\nown = true\nlisten = [\"127.0.0.1:{PORT}\"]\nstatus_port = 8889\n\
             [deploy]\ndrain_timeout = \"300ms\"\nsoak = \"100ms\"\n[compose]\nimage = \"{IMAGE}\"\n{keys}"
        );
        fs::write(self.config(), self.filled(&text)).unwrap();
    }

    fn filled(&self, text: &str) -> String {
        text.replace("PROJECT", self.project().to_str().unwrap()).replace("IMAGE_NAME", IMAGE)
    }

    /// Installs by the configuration that is there.
    pub fn install(&self) -> Ran {
        self.tool("install", &["--config", self.config().to_str().unwrap()])
    }

    pub fn write_compose_file(&self, service: &str) {
        let one = |name: &str, port: u16| {
            format!(
                "  {name}:\n    image: ${{DAILRY_IMAGE}}\n    container_name: {name}\n    ports: [\"{port}:8080\"]\n    env_file: .env\n    restart: unless-stopped\n    depends_on: [db]\n{service}"
            )
        };
        let (blue, green) = (one("dailry-blue", 8081), one("dailry-green", 8082));
        let db = format!("  db:\n    image: {IMAGE}:db\n    container_name: dailry-db\n");
        fs::write(self.compose_file(), format!("version: \"2.4\"\nservices:\n{blue}{green}{db}")).unwrap();
    }

    pub fn project(&self) -> PathBuf {
        self.directory.path().join("project")
    }

    pub fn compose_file(&self) -> PathBuf {
        self.project().join("docker-compose.yml")
    }

    pub fn config(&self) -> PathBuf {
        self.directory.path().join("dailry.toml")
    }

    pub fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    /// A tool, about to be run.
    pub fn command(&self, tool: &str, arguments: &[&str]) -> Command {
        let built = Path::new(env!("CARGO_BIN_EXE_install")).parent().unwrap();
        let mut command = Command::new(built.join(tool));
        command.arg("--home").arg(self.home()).args(arguments);
        command.env_clear().env("HOME", self.directory.path()).env("PATH", self.engine.path(self.compose));
        command.current_dir("/");
        command
    }

    pub fn tool(&self, tool: &str, arguments: &[&str]) -> Ran {
        Ran::run(&mut self.command(tool, arguments))
    }

    /// Deploys a tag, and insists that it serves.
    #[track_caller]
    pub fn deploy(&self, tag: &str) {
        self.tool("deploy", &["--ref", tag]).ok();
        self.serves(tag);
    }

    /// What the team's own script says to Compose.
    #[track_caller]
    pub fn by_hand(&self, image: &str, words: &str) -> String {
        let compose = if self.compose == Compose::V1 { "docker-compose" } else { "docker compose" };
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{compose} {words}")]).current_dir(self.project()).env("DAILRY_IMAGE", image);
        command.env("PATH", self.engine.path(self.compose)).env_remove("DOCKER_HOST");
        Ran::run(&mut command).ok()
    }

    #[track_caller]
    pub fn status(&self) -> Value {
        serde_json::from_str(&self.tool("status", &["--json"]).ok()).unwrap()
    }

    /// What `status` says of an instance.
    #[track_caller]
    pub fn instance(&self, name: &str) -> Value {
        let status = self.status();
        status["instances"].as_array().unwrap().iter().find(|one| one["name"] == name).unwrap().clone()
    }

    pub fn enabled(&self) -> String {
        self.tool("enabled-instance", &[]).stdout.trim().to_owned()
    }

    pub fn address() -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))
    }

    /// What the app answers; None: nothing good.
    pub fn answer() -> Option<String> {
        let url = format!("http://127.0.0.1:{PORT}/");
        let asked = Command::new("curl").args(["-fsS", "--max-time", "10", &url]).output().unwrap();
        asked.status.success().then(|| String::from_utf8_lossy(&asked.stdout).trim().to_owned())
    }

    #[track_caller]
    pub fn serves(&self, version: &str) {
        assert_eq!(Host::answer().as_deref(), Some(version), "{}", self.status());
    }

    /// A load of kept-alive and fresh connections, a quarter POSTs.
    pub fn load(&self) -> Load {
        Load::start(Plan { pace: Some(std::time::Duration::from_millis(5)), ..Plan::on(Host::address()) })
    }

    /// Whatever a deploy can change, the standby's container being as good as another of the same image.
    #[track_caller]
    pub fn state(&self) -> Vec<String> {
        let link = |path: &str| format!("{path}: {:?}", fs::read_link(self.home().join(path)).ok());
        let mut state: Vec<String> =
            ["state/enabled", "instances/dailry-blue", "instances/dailry-green"].map(link).to_vec();
        let running = self.engine.docker(&["ps", "--no-trunc", "--format", "{{.Names}} {{.Image}}"]);
        state.extend(running.lines().map(str::to_owned));
        state.push(self.engine.inspect("{{.Id}} {{.State.StartedAt}}", &self.enabled()));
        state.sort();
        state
    }
}

impl Drop for Host<'_> {
    fn drop(&mut self) {
        let removed = self.tool("install", &["--remove", "--purge", "--force"]);
        let all = self.engine.try_docker(&["ps", "--all", "--quiet"]).stdout;
        for id in all.lines() {
            self.engine.try_docker(&["rm", "--force", "--volumes", id]);
        }
        // Those of containers that somebody else started stay by design; the next story begins without.
        self.engine.try_docker(&["volume", "prune", "--force"]);
        if !std::thread::panicking() {
            assert_eq!(removed.code, 0, "{removed:?}");
            let expected: Vec<String> = self.users_own.iter().map(|tag| format!("{IMAGE}:{tag}")).collect();
            assert_eq!(self.engine.tags(IMAGE), expected, "images are left behind, or gone");
            assert_eq!(self.engine.own_tags(IMAGE), 0, "names are left behind");
        }
    }
}

/// Asserts that a load lost nothing, and was one.
#[track_caller]
pub fn none_lost(load: Load) -> u64 {
    let report = load.stop();
    assert!(report.requests > 100 && report.failed() == 0, "{report}: {:#?}", report.quoted().collect::<Vec<_>>());
    report.requests
}
