//! dockerd, a registry, and the images in it.

use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::ran::Ran;

/// How long dockerd and the registry may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where the registry listens.
pub const REGISTRY: &str = "127.0.0.1:5000";
/// The image that is deployed.
pub const IMAGE: &str = "127.0.0.1:5000/user/dailry";

/// Which Compose there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Compose {
    /// `docker-compose` 1.29
    V1,
    /// `docker compose`
    V2,
}

/// Waits until something holds.
#[track_caller]
pub fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what} did not come true within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The cgroup below which the containers of this place are.
pub fn cgroup(place: &Path) -> String {
    format!("cutover-{}", place.file_name().unwrap().to_str().unwrap())
}

pub struct Engine {
    place: PathBuf,
    only: Option<Compose>,
    dockerd: RefCell<Option<Child>>,
    registry: RefCell<Option<Child>>,
    more_options: RefCell<Vec<&'static str>>,
    starts: Cell<u32>,
}

impl Engine {
    /// An engine at the usual socket, and an empty registry beside it; `only`: the Compose to use, None: both.
    pub fn start(place: &Path, only: Option<Compose>) -> Engine {
        let engine = Engine {
            place: place.to_owned(),
            only,
            dockerd: RefCell::default(),
            registry: RefCell::default(),
            more_options: RefCell::default(),
            starts: Cell::new(0),
        };
        engine.lay_composes();
        engine.start_dockerd(&[]);
        engine.start_registry();
        engine
    }

    /// The Composes to use, the newer one first.
    pub fn composes(&self) -> Vec<Compose> {
        [Compose::V2, Compose::V1].into_iter().filter(|one| self.only.is_none_or(|only| only == *one)).collect()
    }

    /// The one for whatever is not about Compose.
    pub fn compose(&self) -> Compose {
        self.composes()[0]
    }

    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Starts dockerd with these options beside the usual ones, and waits until it answers.
    pub fn start_dockerd(&self, more: &[&'static str]) {
        *self.more_options.borrow_mut() = more.to_vec();
        // What a killed one leaves, and then stumbles over.
        for left in ["/run/docker.pid", "/run/docker/containerd/containerd.pid"] {
            let _ = fs::remove_file(left);
        }
        self.starts.set(self.starts.get() + 1);
        let log = File::create(self.place.join(format!("dockerd-{}.log", self.starts.get()))).unwrap();
        let child = Command::new("dockerd")
            .arg("--data-root")
            .arg(self.place.join("docker"))
            .args(["--cgroup-parent", &cgroup(&self.place), "--exec-opt", "native.cgroupdriver=cgroupfs"])
            .args(["--insecure-registry", REGISTRY])
            .args(more)
            .env_remove("DOCKER_HOST")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        *self.dockerd.borrow_mut() = Some(child);
        await_that("dockerd answers", || self.try_docker(&["version"]).code == 0);
    }

    /// Ends dockerd as its service would.
    pub fn stop_dockerd(&self) {
        self.end_dockerd("TERM");
    }

    /// Kills dockerd, and nothing else.
    pub fn kill_dockerd(&self) {
        self.end_dockerd("KILL");
    }

    fn end_dockerd(&self, signal: &str) {
        let Some(mut child) = self.dockerd.borrow_mut().take() else { return };
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
        child.wait().unwrap();
    }

    pub fn start_registry(&self) {
        let config = self.place.join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: {REGISTRY}}}\n",
            self.place.join("registry").display()
        );
        fs::write(&config, text).unwrap();
        let log = File::create(self.place.join("registry.log")).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(config).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        *self.registry.borrow_mut() = Some(command.spawn().unwrap());
        await_that("the registry listens", || std::net::TcpStream::connect(REGISTRY).is_ok());
    }

    pub fn stop_registry(&self) {
        let Some(mut child) = self.registry.borrow_mut().take() else { return };
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// docker with these arguments; insists on success and returns what it printed.
    #[track_caller]
    pub fn docker(&self, arguments: &[&str]) -> String {
        self.try_docker(arguments).ok()
    }

    pub fn try_docker(&self, arguments: &[&str]) -> Ran {
        let mut docker = Command::new("/usr/bin/docker");
        Ran::run(docker.args(arguments).env_remove("DOCKER_HOST").env("DOCKER_BUILDKIT", "0"))
    }

    /// Builds a version of the sample app that behaves like this, and has more lines in its Dockerfile; it goes to the
    /// registry and is not kept here.
    pub fn push(&self, version: &str, behaviour: &str, more: &str) {
        self.build(version, version, behaviour, more);
        let name = format!("{IMAGE}:{version}");
        self.docker(&["push", "--quiet", &name]);
        self.docker(&["image", "rm", "--force", &name]);
    }

    /// Builds such a version under a tag.
    pub fn build(&self, tag: &str, version: &str, behaviour: &str, more: &str) {
        let context = self.lay_context(version, behaviour, more);
        self.docker(&["build", "--quiet", "--tag", &format!("{IMAGE}:{tag}"), context.to_str().unwrap()]);
    }

    /// Lays what such a version is built from, in a directory that is the same for all.
    pub fn lay_context(&self, version: &str, behaviour: &str, more: &str) -> PathBuf {
        let context = self.place.join("image");
        fs::create_dir_all(&context).unwrap();
        let built = Path::new(env!("CARGO_BIN_EXE_install")).parent().unwrap();
        for (from, to) in [(built.join("examples/static-app"), "app"), (busybox(), "busybox")] {
            if !context.join(to).exists() {
                fs::copy(from, context.join(to)).unwrap();
            }
        }
        fs::write(context.join("VERSION"), version).unwrap();
        fs::write(context.join("BEHAVIOUR"), behaviour).unwrap();
        let dockerfile = format!(
            "FROM scratch\nCOPY app busybox /\nWORKDIR /\nENV PORT=8080 HOST=0.0.0.0\nCMD [\"/app\"]\nCOPY VERSION BEHAVIOUR /\n{more}\n"
        );
        fs::write(context.join("Dockerfile"), dockerfile).unwrap();
        context
    }

    /// What `docker inspect` says of something.
    #[track_caller]
    pub fn inspect(&self, format: &str, what: &str) -> String {
        self.docker(&["inspect", "--format", format, what]).trim().to_owned()
    }

    /// The names of all images of this repository, but for those that cutover has given.
    pub fn tags(&self, repository: &str) -> Vec<String> {
        let is_own = |tag: &String| tag.contains(":cutover-");
        self.names(repository).into_iter().filter(|tag| !is_own(tag)).collect()
    }

    /// How many names cutover has given to images of this repository.
    pub fn own_tags(&self, repository: &str) -> usize {
        self.names(repository).len() - self.tags(repository).len()
    }

    fn names(&self, repository: &str) -> Vec<String> {
        let listed = self.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}", repository]);
        let mut names: Vec<String> = listed.lines().map(str::to_owned).collect();
        names.sort();
        names
    }

    /// A PATH in which there is this Compose and no other.
    pub fn path(&self, compose: Compose) -> String {
        let programs = self.place.join(format!("{compose:?}"));
        format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", programs.display())
    }

    /// Lays programs of the same names in front of the machine's, so that each Compose can be the only one.
    fn lay_composes(&self) {
        for compose in self.composes() {
            let directory = self.place.join(format!("{compose:?}"));
            fs::create_dir_all(&directory).unwrap();
            let script = |name: &str, text: &str| {
                let path = directory.join(name);
                fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            };
            match compose {
                Compose::V1 => {
                    script("docker", "[ \"$1\" = compose ] && exit 1\nexec /usr/bin/docker \"$@\"");
                    script("docker-compose", &format!("exec {} \"$@\"", generation("1").display()));
                }
                Compose::V2 => {
                    let plug_ins = directory.join("config/cli-plugins");
                    fs::create_dir_all(&plug_ins).unwrap();
                    // A copy: where it lies may be closed to other users.
                    fs::copy(generation("2"), plug_ins.join("docker-compose")).unwrap();
                    let config = directory.join("config");
                    script("docker", &format!("DOCKER_CONFIG={} exec /usr/bin/docker \"$@\"", config.display()));
                    script("docker-compose", "echo 'the other Compose was to be used' >&2; exit 1");
                }
            }
        }
    }
}

impl Drop for Engine {
    /// Ends the containers with their engine.
    fn drop(&mut self) {
        let running = self.try_docker(&["ps", "--quiet"]).stdout;
        for id in running.lines() {
            self.try_docker(&["kill", id]);
        }
        self.stop_dockerd();
        self.stop_registry();
    }
}

fn busybox() -> PathBuf {
    ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from).into_iter().find(|path| path.exists()).unwrap()
}

/// A Compose of this generation, which tests/set-up.sh has seen to.
fn generation(number: &str) -> PathBuf {
    let places = [
        "/usr/bin/docker-compose".to_owned(),
        "/usr/libexec/docker/cli-plugins/docker-compose".to_owned(),
        "/usr/lib/docker/cli-plugins/docker-compose".to_owned(),
        format!("{}/cutover-e2e/docker-compose", cache().display()),
    ];
    let is_it = |path: &PathBuf| {
        let asked = Command::new(path).arg("version").arg("--short").output();
        asked.is_ok_and(|asked| {
            String::from_utf8_lossy(&asked.stdout).trim_start_matches('v').starts_with(&format!("{number}."))
        })
    };
    let found = places.map(PathBuf::from).into_iter().find(is_it);
    found.unwrap_or_else(|| panic!("there is no Compose of generation {number}; --compose names the other one"))
}

fn cache() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"))
}
