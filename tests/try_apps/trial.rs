//! One app: laid out as the page says, deployed, and then deployed again, rolled back, reloaded and killed under load.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use cutover::output;
use toml::{Table, Value};

use crate::apps::App;
use crate::idle::Idle;
use crate::load::{Kind, Load, Plan, Report};
use crate::page::Page;
use crate::ran::Ran;
use crate::site::Site;
use crate::stream::{Service, Stream};

/// Whose home the page's paths are in.
const PAGES_HOME: &str = "/home/potados";
/// Where Redis listens by default, as in the page.
const REDIS: &str = "127.0.0.1:6379";
/// php-fpm as Debian 12 calls it, and where its pool begins, in the page.
const PHP_FPM: [&str; 2] = ["php-fpm8.2", "[www]\n"];
/// How long a killed instance may take until it is healthy again, beside a load and whatever else the machine does.
const START: Duration = Duration::from_secs(180);
/// Connections that are used again and again, and those made anew for each request.
const KEPT_ALIVE: usize = 12;
const FRESH: usize = 4;

/// What became of an app.
pub struct Outcome {
    app: &'static App,
    /// Whether the first deploy did it.
    is_right_first: bool,
    requests: u64,
    /// Those that were lost, but for the next ones.
    lost: u64,
    /// Those that were with the instance when it was killed, and could not be sent to the standby.
    killed: u64,
    /// The most that an instance held after a step, in bytes.
    memory: u64,
    /// How long the first deploy took, and the second, under load.
    first: Duration,
    again: Duration,
    /// How long all took.
    took: Duration,
    idle: Option<Idle>,
    /// What was not as promised.
    pub failures: Vec<String>,
}

impl Outcome {
    /// Nothing yet.
    pub fn of(app: &'static App) -> Outcome {
        let [first, again, took] = [Duration::ZERO; 3];
        let (is_right_first, idle, failures) = (false, None, Vec::new());
        Outcome { app, is_right_first, requests: 0, lost: 0, killed: 0, memory: 0, first, again, took, idle, failures }
    }

    pub fn in_words(&self) -> String {
        format!("{} requests, {} lost, {}", self.requests, self.lost, output::span(self.took))
    }

    /// Its row of the table.
    pub fn row(&self) -> Vec<String> {
        let right = if self.is_right_first { "right" } else { "WRONG" };
        let count = self.failures.len();
        let idle = self.idle.as_ref().map(|idle| (idle.in_words().0, idle.asked())).unwrap_or_default();
        vec![
            self.app.name.to_owned(),
            self.app.what.to_owned(),
            right.to_owned(),
            self.requests.to_string(),
            self.lost.to_string(),
            self.killed.to_string(),
            output::bytes(self.memory),
            output::span(self.first),
            output::span(self.again),
            output::span(self.took),
            idle.0,
            idle.1,
            if count == 0 { String::new() } else { format!("{count} FAILURES") },
        ]
    }
}

/// Tries the app.
pub fn run(outcome: &mut Outcome, page: &Page) {
    let began = Instant::now();
    let app = outcome.app;
    let mut trial = Trial { site: Site::for_app(app.name), app, page, outcome, last: Report::default() };
    if let Err(failure) = trial.run() {
        trial.outcome.failures.push(failure);
    }
    outcome.took = began.elapsed();
}

/// An app under trial.
struct Trial<'a> {
    site: Site,
    app: &'static App,
    page: &'a Page,
    outcome: &'a mut Outcome,
    /// The load's counts after the last step.
    last: Report,
}

impl Trial<'_> {
    fn run(&mut self) -> Result<(), String> {
        self.lay()?;
        let _service = (!self.app.service.is_empty()).then(|| Service::start(&self.site, self.app.service));
        let began = Instant::now();
        self.deploy_first()?;
        self.outcome.first = began.elapsed();
        self.serves("v1")?;
        self.is_as_the_page_says()?;

        let load = self.load();
        let mut stream = (!self.app.stream.is_empty()).then(|| Stream::open(&self.site, self.app.stream));
        self.write_sources("v2");
        self.site.commit("v2", "");
        let began = Instant::now();
        self.step(&load, "deploy", "v2")?;
        self.outcome.again = began.elapsed();
        self.step(&load, "rollback", "v1")?;
        if stream.as_mut().is_some_and(|stream| !stream.goes_on()) {
            self.outcome.failures.push("a stream ended at a cutover".to_owned());
        }
        drop(stream);
        self.write_env("TRIED=again\n");
        self.step(&load, "reload", "v1")?;
        self.kill(&load)?;
        self.write_sources("v3");
        self.site.commit("v3", "");
        self.step(&load, "deploy", "v3")?;
        let report = load.stop();
        if report.requests < 100 { Err(format!("that was no load: {report}")) } else { Ok(()) }
    }

    /// The user's directory.
    fn home(&self) -> &Path {
        self.site.directory.path()
    }

    /// What the page or a source says, for this place and version.
    fn here(&self, text: &str, version: &str) -> String {
        let nginx = self.site.home.join("nginx/conf.d");
        text.replace("@VERSION@", version)
            .replace(PAGES_HOME, self.home().to_str().unwrap())
            .replace("/etc/nginx/conf.d", nginx.to_str().unwrap())
            .replace(REDIS, &format!("127.0.0.1:{}", self.site.ports.push))
            .replace("listen 80;", &format!("listen {};", self.site.address()))
            .replace(PHP_FPM[0], &php_fpm()[0])
            .replace(PHP_FPM[1], &php_fpm()[1])
    }

    /// Lays what the user has: tools in the home, the repository, the configuration, the env file, the server block.
    fn lay(&self) -> Result<(), String> {
        // Where rustup has put cargo: what it needs of that does not depend on the home.
        for name in [".cargo", ".rustup"] {
            let there = std::env::home_dir().unwrap_or_default().join(name);
            if there.exists() {
                symlink(there, self.home().join(name)).unwrap();
            }
        }
        self.shell(self.app.laid, self.home())?;
        self.write_sources("v1");
        self.shell(self.app.lock, &self.site.source())?;
        self.site.commit("v1", "");
        fs::write(self.site.config(), toml::to_string(&self.configuration()).unwrap()).unwrap();
        succeeded("install", self.site.install(&[]))?;
        self.write_env("");
        for (path, text) in self.files("v1") {
            if path.starts_with("/etc/nginx") {
                fs::write(self.here(path.to_str().unwrap(), ""), text).unwrap();
                self.reload_nginx()?;
            }
        }
        Ok(())
    }

    /// The page's configuration.
    fn shown_configuration(&self) -> Table {
        self.here(self.page.configuration(self.app.name), "").parse().unwrap()
    }

    /// The same with what this machine needs: ports that are free, an nginx of its own, this repository.
    fn configuration(&self) -> Table {
        let mut config = self.shown_configuration();
        let ports = &self.site.ports;
        let number = |port: u16| Value::Integer(port.into());
        config.insert("runner".to_owned(), "direct".into());
        let instances = [("A", ports.first), ("B", ports.second)].map(|(name, port)| (name.to_owned(), number(port)));
        config.insert("instances".to_owned(), Table::from_iter(instances).into());
        config["source"]["git"] = self.site.source().to_str().unwrap().into();
        let nginx = config.entry("nginx").or_insert_with(|| Table::new().into()).as_table_mut().unwrap();
        nginx.insert("own".to_owned(), true.into());
        nginx.insert("status_port".to_owned(), number(ports.status));
        let address = self.site.address().to_string();
        if nginx.contains_key("listen") {
            nginx.insert("check".to_owned(), format!("http://{address}").into());
        } else {
            nginx.insert("listen".to_owned(), vec![address].into());
        }
        config
    }

    /// The files that the page shows for the app, as they are here.
    fn files(&self, version: &str) -> Vec<(PathBuf, String)> {
        let files = self.page.files(self.app.name).into_iter();
        files.map(|shown| (shown.path, self.here(&shown.text, version))).collect()
    }

    /// Writes the app's sources, and what the page shows of them.
    fn write_sources(&self, version: &str) {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/try_apps").join(self.app.name);
        self.copy(&from, &self.site.source(), version);
        for (path, text) in self.files(version).into_iter().filter(|(path, _)| path.components().count() == 1) {
            fs::write(self.site.source().join(path), text).unwrap();
        }
    }

    fn copy(&self, from: &Path, into: &Path, version: &str) {
        fs::create_dir_all(into).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let to = into.join(path.file_name().unwrap());
            if path.is_dir() {
                self.copy(&path, &to, version);
            } else {
                fs::write(to, self.here(&fs::read_to_string(path).unwrap(), version)).unwrap();
            }
        }
    }

    /// Writes the env file as the page shows it, and these lines. What package managers keep is kept below target, so that
    /// the next trial has it.
    fn write_env(&self, more: &str) {
        let own = self.files("").into_iter().filter(|(path, _)| path.ends_with("env")).map(|(_, text)| text);
        let kept = self.kept().into_iter().map(|(name, value)| format!("{name}={value}\n"));
        let text: String = own.chain(kept).chain([more.to_owned()]).collect();
        self.site.write_env(&text);
    }

    /// The user's home, where caches are, and the certificates that the tester's network asks to be trusted.
    fn kept(&self) -> Vec<(&'static str, String)> {
        let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/try-apps").display().to_string();
        let home = self.home().display().to_string();
        let certificates = ["NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE"].map(|name| Some((name, std::env::var(name).ok()?)));
        let own = [("HOME", home), ("npm_config_cache", format!("{cache}/npm")), ("XDG_CACHE_HOME", cache)];
        own.into_iter().chain(certificates.into_iter().flatten()).collect()
    }

    /// Runs a line as the app's user or developer does.
    fn shell(&self, line: &str, directory: &Path) -> Result<(), String> {
        let mut command: Command = self.site.command("/bin/sh".as_ref());
        command.args(["-c", line]).envs(self.kept()).current_dir(directory);
        succeeded(line, Ran::run(&mut command))
    }

    fn reload_nginx(&self) -> Result<(), String> {
        let mut command = self.site.command(&cutover::command::find("nginx").unwrap());
        command.arg("-p").arg(self.site.home.join("nginx")).args(["-c", "nginx.conf", "-s", "reload"]);
        succeeded("nginx -s reload", Ran::run(&mut command))
    }

    /// Deploys; once more where that fails, to tell what is wrong from what was not there for a moment.
    fn deploy_first(&mut self) -> Result<(), String> {
        let ran = self.site.run("deploy", &[]);
        self.outcome.is_right_first = ran.code == 0;
        if ran.code != 0 {
            succeeded("deploy", self.site.run("deploy", &["--again"]))?;
        }
        Ok(())
    }

    /// What the app's clients name as its host.
    fn host(&self) -> String {
        let config = self.shown_configuration();
        let named = config.get("nginx").and_then(|nginx| nginx.get("server_name")).and_then(Value::as_str);
        named.map_or_else(|| self.site.address().to_string(), str::to_owned)
    }

    fn load(&self) -> Load {
        let target = self.site.address();
        Load::start(Plan {
            host: self.host(),
            path: self.app.get.to_owned(),
            kept_alive: KEPT_ALIVE,
            fresh: FRESH,
            post_share: if self.app.echoes { 25 } else { 0 },
            pace: Some(Duration::from_millis(self.app.pace)),
            ..Plan::on(target)
        })
    }

    /// Asks the site until this version answers, as after a reload of nginx.
    fn serves(&self, version: &str) -> Result<(), String> {
        let ask = || {
            let url = format!("http://{}{}", self.site.address(), self.app.get);
            let host = format!("Host: {}", self.host());
            Ran::run(Command::new("curl").args(["--silent", "--max-time", "20", "--header", &host, &url])).stdout
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut answer = ask();
        while !answer.contains(version) && Instant::now() < deadline {
            answer = ask();
        }
        if answer.contains(version) { Ok(()) } else { Err(format!("{version} does not serve, but {answer:.300}")) }
    }

    /// Runs a tool under load; then this version is to serve, and no request is to be lost.
    fn step(&mut self, load: &Load, tool: &str, version: &str) -> Result<(), String> {
        let ran = self.site.run(tool, &[]);
        self.count(load, tool, 0);
        succeeded(tool, ran)?;
        self.serves(version)
    }

    /// Kills the enabled instance: its standby answers until it is back.
    fn kill(&mut self, load: &Load) -> Result<(), String> {
        let enabled = self.site.run("enabled-instance", &[]).ok().trim().to_owned();
        let pids = || self.site.run("pid", &[&enabled]).stdout.lines().map(str::to_owned).collect::<Vec<_>>();
        let killed = pids();
        Ran::run(Command::new("kill").arg("-9").args(&killed)).ok();
        let is_back = || {
            let now = pids();
            let instances = self.site.status()["instances"].clone();
            let healthy = instances.as_array().unwrap().iter().all(|one| one["health"] == "healthy");
            !now.is_empty() && now.iter().all(|pid| !killed.contains(pid)) && healthy
        };
        let deadline = Instant::now() + START;
        while !is_back() {
            if Instant::now() > deadline {
                return Err(format!("{enabled} is not back within {}: {}", output::span(START), self.site.status()));
            }
            thread::sleep(Duration::from_millis(50));
        }
        self.count(load, "kill -9", (KEPT_ALIVE + FRESH) as u64);
        self.serves("v1")
    }

    /// Counts what the load has lost since the last step. So many may have been with an instance that was killed.
    fn count(&mut self, load: &Load, step: &str, may_lose: u64) {
        let now = load.settled();
        let report = now.since(&self.last);
        self.last = now;
        self.outcome.requests += report.requests;
        // nginx sends a GET to the standby unless its answer has begun; a POST is never sent again.
        let begun = report.get_failed.min(report.of(Kind::CutShort));
        let killed = if may_lose == 0 { 0 } else { report.post_failed + begun };
        let lost = report.failed() - killed;
        self.outcome.lost += lost;
        self.outcome.killed += killed;
        if lost > 0 || killed > may_lose {
            let quoted: Vec<String> = report.quoted().collect();
            self.outcome.failures.push(format!("{step}: {report}: {}", quoted.join("; ")));
        }
        let instances = self.site.status()["instances"].clone();
        let held = instances.as_array().unwrap().iter().filter_map(|one| one["memory_bytes"].as_u64());
        self.outcome.memory = self.outcome.memory.max(held.max().unwrap_or(0));
    }

    /// Measures how the app's server treats idle connections, where the page says something of it.
    fn is_as_the_page_says(&mut self) -> Result<(), String> {
        let Some((closed, waits)) = self.page.server(self.app.name) else { return Ok(()) };
        let port = self.site.run("enabled-port", &[]).ok().lines().next().unwrap().parse().unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let measured = Idle::measure(address, &self.host(), self.app.get);
        let idle = measured.map_err(|failure| format!("idle connections: {failure}"))?;
        let found = idle.in_words();
        if !idle.is_as_said(&closed, &waits) {
            let said = format!("the page says of its server: {closed}, {waits}; found: {}, {}", found.0, idle.asked());
            self.outcome.failures.push(said);
        }
        self.outcome.idle = Some(idle);
        Ok(())
    }
}

/// What a program said, if it failed.
fn succeeded(what: &str, ran: Ran) -> Result<(), String> {
    if ran.code == 0 { Ok(()) } else { Err(format!("{what} ended with {}: {}{}", ran.code, ran.stdout, ran.stderr)) }
}

/// The same here: by its version, and as root, which it runs as only when told twice.
fn php_fpm() -> [String; 2] {
    let names = fs::read_dir("/usr/sbin").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let name = names.filter(|name| name.starts_with("php-fpm")).max();
    let name = name.unwrap_or_else(|| PHP_FPM[0].to_owned());
    match nix::unistd::Uid::effective().is_root() {
        true => [format!("{name} --allow-to-run-as-root"), format!("{}user = root\n", PHP_FPM[1])],
        false => [name, PHP_FPM[1].to_owned()],
    }
}
