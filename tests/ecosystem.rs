//! An ecosystem file in a repository of its own on a server of its own: what install makes of it is deployed, and asked through nginx.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::server::Server;
use crate::site::Ran;

/// Has a Node program answer what made it, where and with which MODE.
pub const SERVE: &str = "const serve = (port, ...rest) => require('http').createServer((request, response) => \
    response.end(`${require('path').basename(__filename)} ${process.env.MODE || '-'}`)).listen(port, ...rest);\n";

/// A repository, and what is to become of the ecosystem file in it.
#[derive(Default)]
pub struct Shape<'a> {
    /// Files by name and content; what lies in `bin` may be executed.
    pub files: &'a [(&'a str, &'a str)],
    /// The ecosystem file's name; empty: `ecosystem.config.js`.
    pub name: &'a str,
    /// What it exports.
    pub ecosystem: &'a str,
    /// What its owner has done in the clone before anything is committed, in a shell.
    pub before: &'a str,
    /// What he has done there since, and not pushed.
    pub since: &'a str,
    /// What happens to the machine before install, as root.
    pub hidden: &'a str,
    /// Further arguments of install.
    pub arguments: &'a str,
    /// What install says, in its lines.
    pub told: &'a [&'a str],
    /// What is done as those lines say, in the home and with the clone in `shop`, after a deploy that fails or is not possible. Empty:
    /// the first one succeeds.
    pub remedy: &'a str,
    /// What clients get.
    pub answer: &'a str,
}

impl Shape<'_> {
    /// Tries it; returns what install has said.
    #[track_caller]
    pub fn tried(&self) -> String {
        let Some(server) = Server::boot() else { return String::new() };
        self.lay(&server);
        server.run(self.hidden).ok();
        let name = if self.name.is_empty() { "ecosystem.config.js" } else { self.name };
        let install = format!("$TOOLS/install --user potados {} --from-pm2 shop/{name}", self.arguments);
        let said = server.run(&format!("cd /home/potados && {install}"));
        for told in self.told {
            assert!(said.stderr.contains(told), "{told:?} is not in {said:?}");
        }
        // Quicker than usual; and what cannot become healthy is not waited for as long.
        let deploy = "cd /home/potados && for config in /home/potados/.*/config.toml; do grep -q '^.deploy.' $config || { \
                      sed -i 's/^.health.$/[health]\\ntimeout = \"20s\"/' $config; \
                      printf '[deploy]\\nsoak = \"100ms\"\\ndrain_timeout = \"100ms\"\\n' >>$config; }; \
                      runuser -u potados -- ${config%/*}/bin/deploy; done";
        let mut deployed = if said.code == 0 { server.run(deploy) } else { said_no(&said) };
        if !self.remedy.is_empty() {
            assert_ne!(deployed.code, 0, "{said:?}, {deployed:?}");
            let remedied = server.run(&format!("set -eu; cd /home/potados; install=\"{install}\"; {}", self.remedy));
            assert_eq!(remedied.code, 0, "{remedied:?} after {said:?}");
            deployed = server.run(deploy);
        }
        assert_eq!(deployed.code, 0, "{deployed:?} after {said:?}");
        let (answer, expected) = (server.served(), self.answer);
        assert_eq!(answer.trim_end(), expected, "{said:?}");
        said.stderr
    }

    /// Lays the repository, its origin and what is to be found beside them.
    fn lay(&self, server: &Server) {
        let clone = server.path("/home/potados/shop");
        fs::create_dir(&clone).unwrap();
        let name = if self.name.is_empty() { "ecosystem.config.js" } else { self.name };
        let ecosystem = match name.ends_with(".js") || name.ends_with(".cjs") {
            true => format!("module.exports = {};\n", self.ecosystem),
            false => self.ecosystem.to_owned(),
        };
        for (name, content) in self.files.iter().chain(&[(name, ecosystem.as_str()), ("VERSION", "v1\n")]) {
            let path = clone.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        // They may lie where the app's user cannot go.
        let [js, wheels] = [managers(), wheels()].map(Path::display);
        let laid = server.run(&format!(
            "set -eu; mkdir /home/js /home/wheels; mount --bind {js} /home/js; mount --bind {wheels} /home/wheels; \
             chown -R potados:potados /home/potados; cd /home/potados/shop; test ! -d bin || chmod +x bin/*; \
             exec runuser -u potados -- env HOME=/home/potados PATH=$PATH:/home/js/node_modules/.bin sh -euc '{}'",
            self.script().replace('\'', r"'\''"),
        ));
        assert_eq!(laid.code, 0, "{laid:?}");
    }

    fn script(&self) -> String {
        format!(
            "git config --global user.name p; git config --global user.email p@example.org
             git init --quiet --initial-branch=main
             git init --quiet --bare --initial-branch=main ../origin.git
             git remote add origin ../origin.git
             {}
             git add --all; git commit --quiet --message v1; git push --quiet --set-upstream origin main
             {}",
            self.before, self.since
        )
    }
}

fn said_no(said: &Ran) -> Ran {
    Ran { code: said.code, stdout: said.stdout.clone(), stderr: said.stderr.clone() }
}

/// Where yarn, pnpm and bun are, which npm installs below target once, and in `berry` the yarn of today.
pub fn managers() -> &'static Path {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    PLACE.get_or_init(|| {
        let place = below_target("js");
        let install = |place: &Path, packages: &[&str]| {
            let mut install = Command::new("npm");
            install.arg("install").arg("--prefix").arg(place).args(["--no-audit", "--no-fund", "--loglevel=error"]);
            Ran::run(install.args(packages)).ok();
        };
        if !place.join("node_modules/.bin/bun").exists() {
            install(&place, &["yarn@1.22.22", "pnpm@9.15.9", "bun@1.3.3"]);
        }
        let berry = place.join("berry");
        if !berry.join("node_modules/.bin/yarn").exists() {
            install(&berry, &["@yarnpkg/cli-dist@4.18.1"]);
        }
        place
    })
}

/// Where packages of Python's are that a server without a network installs, which pip gets once.
pub fn wheels() -> &'static Path {
    static PLACE: OnceLock<PathBuf> = OnceLock::new();
    PLACE.get_or_init(|| {
        let place = below_target("wheels");
        if !place.is_dir() {
            let got = place.with_extension(std::process::id().to_string());
            let mut get = Command::new("/usr/bin/python3");
            get.args(["-m", "pip", "download", "--quiet", "--dest"]).arg(&got).args(["gunicorn", "uvicorn"]);
            Ran::run(&mut get).ok();
            let _ = fs::rename(&got, &place);
        }
        place
    })
}

fn below_target(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(name)
}
