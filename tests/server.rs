//! A server of a test's own: namespaces in which /etc/nginx, /var/lib/cutover, /home, /run, the accounts and the network
//! are private. Needs root, as the installation that it is for does.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::not_tested::not_tested;
use crate::site::{Ran, built, samples};

/// What makes the namespaces a fresh server: nginx with its packaged configuration but no default site, a user
/// `potados` with a closed home, another user `mallory`, and a git repository of the app.
const SET_UP: &str = r#"
set -eu
mkdir -p nginx accounts tools
cp -a /etc/nginx/. nginx/ && rm -f nginx/sites-enabled/default && mount --bind nginx /etc/nginx
cp -a /etc/passwd /etc/group accounts/
echo 'potados:x:15000:15000::/home/potados:/bin/sh' >>accounts/passwd
echo 'potados:x:15000:' >>accounts/group
echo 'mallory:x:15001:15001::/home/mallory:/bin/sh' >>accounts/passwd
echo 'mallory:x:15001:' >>accounts/group
mount --bind accounts/passwd /etc/passwd && mount --bind accounts/group /etc/group
mkdir -p /var/lib/cutover
for place in /run /home /var/lib/cutover; do mount -t tmpfs -o mode=755 none $place; done
ip link set lo up
mkdir -m 700 /home/potados && mkdir -m 755 /home/mallory && mkdir /home/source
chown 15001:15001 /home/mallory
echo v1 >/home/source/VERSION && cp "$SAMPLES/python/server.py" /home/source/
chown -R 15000:15000 /home/potados /home/source
git() { runuser -u potados -- git -C /home/source -c user.name=p -c user.email=p@example.org "$@"; }
git init --quiet --initial-branch=main && git add --all && git commit --quiet --message v1
nginx
# Before it has workers it loses signals.
until pgrep -P "$(cat /run/nginx.pid)"; do sleep 0.01; done >/dev/null 2>&1
echo ready
exec cat
"#;

/// Makes it a machine that systemd has booted, so far as the tools look at it: without systemd as PID 1, systemctl must be
/// a fake, which starts what a unit would, restarts nothing, and has met no unit before. The journal is one that is behind
/// for ever. sudo and its rules are real.
const LIKE_SYSTEMD: &str = r#"
set -eu
mkdir -p /run/systemd/system sudoers systemd
cp -a /etc/sudoers.d/. sudoers/ && mount --bind sudoers /etc/sudoers.d
cp -a /etc/shadow shadow && echo 'potados:*:19000:0:99999:7:::' >>shadow && mount --bind shadow /etc/shadow
cp -a /etc/systemd/. systemd/ && mount --bind systemd /etc/systemd
cat >systemctl <<'end'
#!/bin/sh
instance=${2#cafeteria@} instance=${instance%.service} bin=/home/potados/.cafeteria/bin
case $1 in
reset-failed) echo "Failed to reset failed state of unit $2: Unit $2 not loaded." >&2; exit 1 ;;
start)
    echo "$*" >>/run/orders
    setsid setpriv --reuid potados --regid potados --init-groups $bin/supervise --home ${bin%/bin} $instance >>/run/output-$instance 2>&1 &
    ;;
stop)
    for pid in $(pgrep -f "supervise --home .*/.cafeteria $instance\$"); do
        kill $pid 2>/dev/null
        while [ -e /proc/$pid/exe ]; do sleep 0.01; done
    done
    ;;
esac
end
printf '#!/bin/sh\n' >journalctl
for program in systemctl journalctl; do chmod 755 $program && mount --bind $program $(command -v $program); done
"#;

/// The configuration of that app.
pub const CONFIG: &str = r#"
app = "cafeteria"
[source]
git = "/home/source"
[run]
command = "exec python3 server.py --port=$PORT"
[deploy]
soak = "100ms"
"#;

/// The server; dropping it ends all its processes, for they live in a process namespace of its own.
pub struct Server {
    directory: TempDir,
    init: Child,
    leader: String,
}

impl Server {
    /// A server that has come up; None where this is not root.
    pub fn boot() -> Option<Server> {
        if !nix::unistd::Uid::effective().is_root() {
            not_tested("installing as root", "this is not root");
            return None;
        }
        let directory = tempfile::Builder::new().prefix("cutover-server-").tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(directory.path().join("cafeteria.toml"), CONFIG).unwrap();
        let namespaces = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", SET_UP];
        let mut init = Command::new("unshare")
            .args(namespaces)
            .env("SAMPLES", samples())
            .current_dir(directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(init.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "the server did not come up");
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", init.id())).unwrap();
        Some(Server { directory, init, leader: children.trim().to_owned() })
    }

    /// Makes it one that systemd seems to have booted; returns the directory, seen from outside and inside, of its parts.
    pub fn like_systemd(&self) -> String {
        let directory = self.directory.path().display().to_string();
        self.run(&format!("cd {directory} && {LIKE_SYSTEMD}")).ok();
        directory
    }

    /// Runs a shell line inside, as root, from the environment that SSM gives.
    pub fn run(&self, line: &str) -> Ran {
        Ran::of(&self.command(line).output().unwrap())
    }

    /// The same, not started yet.
    pub fn command(&self, line: &str) -> Command {
        let enter = ["--target", &self.leader, "--mount", "--net", "--pid", "--", "sh", "-c", line];
        let mut command = Command::new("nsenter");
        command.args(enter).env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("TOOLS", built()).env("CONFIG", self.config()).env("SAMPLES", samples());
        command.stdin(Stdio::null());
        command
    }

    /// The configuration's file, which lies outside.
    pub fn config(&self) -> PathBuf {
        self.directory.path().join("cafeteria.toml")
    }

    /// Installs the app for potados.
    pub fn install(&self, arguments: &str) -> Ran {
        self.run(&format!("$TOOLS/install --config $CONFIG --user potados {arguments}"))
    }

    /// A path inside, as seen from outside.
    pub fn path(&self, inside: &str) -> PathBuf {
        Path::new("/proc").join(&self.leader).join("root").join(inside.trim_start_matches('/'))
    }

    /// What nginx answers.
    pub fn served(&self) -> String {
        self.run("curl --silent --max-time 30 http://127.0.0.1/").ok()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.init.kill();
        let _ = self.init.wait();
    }
}
