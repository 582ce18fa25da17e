//! What people do with the tools: come from the old script, look, read logs, stop, reboot.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::engine::{Compose, Engine, IMAGE, await_that};
use crate::host::{Host, none_lost};

pub fn run(engine: &Engine) {
    for version in ["v1", "v2", "v3"] {
        engine.push(version, "", "");
    }
    // Takes its time to end, and says so.
    let stubborn = "CMD [\"/busybox\", \"sh\", \"-c\", \"trap 'echo leaving; sleep 2; echo left; exit 0' TERM; /app & while :; do sleep 0.1; done\"]";
    engine.push(
        "slow-to-leave",
        "",
        &format!("RUN [\"/busybox\", \"mkdir\", \"/bin\"]\nRUN [\"/busybox\", \"--install\", \"/bin\"]\n{stubborn}"),
    );
    for compose in engine.composes() {
        from_the_old_script(engine, compose);
        tools(engine, compose);
        volumes(engine, compose);
        reboots(engine, compose);
    }
    logs(engine);
    stopping(engine);
    by_hand_meanwhile(engine);
}

/// The script's container serves; it is taken over, and can be gone back to.
fn from_the_old_script(engine: &Engine, compose: Compose) {
    let mut host = Host::unlaid(engine, compose, "", "");
    // It was here before.
    host.users_own.push("v1");
    host.by_hand(&format!("{IMAGE}:v1"), "up -d dailry-blue");
    let theirs = engine.inspect("{{.Id}}", "dailry-blue");
    host.tool("install", &["--config", host.config().to_str().unwrap()]).ok();
    await_that("the old container is healthy", || host.instance("dailry-blue")["healthy"] == true);
    // Connected by hand, or by the first deploy.
    if compose == engine.compose() {
        host.tool("connect-to-nginx", &["dailry-blue"]).ok();
        host.serves("v1");
    }
    let load = (compose == engine.compose()).then(|| host.load());
    if load.is_none() {
        // A deploy that fails leaves it as it was: nothing is enabled, and the record tells of both switches.
        let failed = host.tool("deploy", &["--ref", "no-such-tag"]);
        assert!(
            failed.code == 3 && failed.stderr.contains("dailry-blue runs already: its image becomes "),
            "{failed:?}"
        );
        assert!(failed.stderr.ends_with("; nothing is enabled as before\n"), "{failed:?}");
        assert_eq!(host.tool("enabled-instance", &[]).code, 1);
        let history = host.tool("history", &[]).ok();
        assert_eq!((history.matches("stand-in").count(), history.matches("adoption").count()), (2, 1), "{history}");
        host.serves("v1");
        assert_eq!(engine.inspect("{{.Id}}", "dailry-blue"), theirs, "the old container was touched");
    }
    let deployed = host.tool("deploy", &["--ref", "v2"]);
    assert_eq!(deployed.stderr.contains("dailry-blue runs already: it is enabled\n"), load.is_none(), "{deployed:?}");
    deployed.ok();
    host.serves("v2");
    let load = load.unwrap_or_else(|| host.load());
    assert_eq!(host.enabled(), "dailry-green");
    assert_eq!(engine.inspect("{{.Id}}", "dailry-blue"), theirs, "the old container was touched");
    host.tool("rollback", &[]).ok();
    host.serves("v1");
    host.tool("rollback", &[]).ok();
    host.deploy("v3");
    let first = release(&host, "v1");
    host.tool("rollback", &["--to", &first]).ok();
    host.serves("v1");
    println!("    {compose:?}: from the old script: {} requests, 0 lost", none_lost(load));
    drop(host);
    engine.docker(&["image", "rm", &format!("{IMAGE}:v1")]);
}

fn release(host: &Host, tag: &str) -> String {
    let releases = std::fs::read_dir(host.home().join("releases")).unwrap().map(|entry| entry.unwrap().path());
    let is_it = |path: &std::path::PathBuf| {
        std::fs::read_to_string(path.join("image.json")).unwrap_or_default().contains(&format!("{IMAGE}:{tag}\""))
    };
    releases.into_iter().find(is_it).unwrap().file_name().unwrap().to_str().unwrap().to_owned()
}

fn tools(engine: &Engine, compose: Compose) {
    let host = Host::new(engine, compose, "", "");
    // The pipeline that a deploy is.
    let made = host.tool("update-instance", &["--ref", "v1"]).ok();
    assert!(made.ends_with('\n') && made.contains('T'), "{made:?}");
    host.tool("pid", &["dailry-blue"]).is(1, "", "");
    host.tool("start-instance", &["dailry-blue"]).ok();
    host.tool("connect-to-nginx", &["dailry-blue"]).ok();
    host.serves("v1");
    host.deploy("v2");

    let green = host.instance("dailry-green");
    let pid = engine.inspect("{{.State.Pid}}", "dailry-green");
    assert_eq!(host.tool("pid", &[]).ok(), format!("{pid}\n"));
    assert_eq!((green["pid"].to_string(), green["version"].as_str()), (pid.clone(), Some("v2")));
    assert_eq!((green["healthy"].as_bool(), green["restarts"].as_u64()), (Some(true), Some(0)));
    assert!(green["memory_bytes"].as_u64().is_some_and(|bytes| (10_000..500_000_000).contains(&bytes)), "{green}");
    assert!(green["uptime_seconds"].as_u64().is_some_and(|age| age < 60), "{green}");

    // A crash of the enabled one is covered by its standby, and Docker starts it again.
    assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
    await_that("Docker has started it again", || host.instance("dailry-green")["restarts"] == 1);
    await_that("it is healthy again", || host.instance("dailry-green")["healthy"] == true);
    let green = host.instance("dailry-green");
    assert_eq!(green["last_exit"], "killed by SIGKILL (exit code 137)", "{green}");
    host.serves("v2");

    // On a terminal a pull can be watched; elsewhere it is quiet.
    let update = host.command("update-instance", &["dailry-blue", "--ref", "v3"]);
    let words: Vec<String> = std::iter::once(update.get_program())
        .chain(update.get_args())
        .map(|word| cutover::output::shell_word(word.to_str().unwrap()))
        .collect();
    let mut on_a_terminal = Command::new("script");
    on_a_terminal.args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"]);
    on_a_terminal.env_clear().envs(update.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let shown = crate::ran::Ran::run(&mut on_a_terminal).ok();
    assert!(shown.contains("Pull"), "{shown:?}");
    let quiet = host.tool("update-instance", &["dailry-blue", "--ref", "v1"]);
    assert!(!quiet.stderr.contains("Pull"), "{quiet:?}");
    quiet.ok();
    host.tool("start-instance", &["dailry-blue"]).ok();

    // The enabled one is not stopped by mistake, and no instance under a supervise.
    host.tool("stop-instance", &[]).fails(3, &["cannot stop dailry-green: it is enabled"]);
    host.tool("supervise", &["dailry-blue"]).fails(2, &["Docker keeps containers running"]);
    host.tool("stop-instance", &["dailry-blue"]).ok();
    let blue = host.instance("dailry-blue");
    assert_eq!((blue["pid"].is_null(), blue["healthy"].as_bool()), (true, Some(false)), "{blue}");
    host.tool("connect-to-nginx", &["dailry-blue"]).fails(3, &["dailry-blue"]);
    host.tool("rollback", &[]).ok();
    host.serves("v1");
    assert_eq!(
        host.tool("deploy", &["--ref", "v3", "--dry-run"]).ok(),
        "update-instance dailry-green --ref v3 && start-instance dailry-green && connect-to-nginx dailry-green\n"
    );
}

/// A machine goes down and comes up: Docker stops with all containers, starts again, and does what the restart policies
/// say; bootup comes before that is done, or after.
fn reboots(engine: &Engine, compose: Compose) {
    // What Compose makes of a policy is the same in both.
    let policies = ["unless-stopped", "always", "\"no\""];
    let policies = if compose == engine.compose() { &policies[..] } else { &policies[2..] };
    for policy in policies {
        for standby in ["keep", "stop"] {
            let mut host = Host::new(engine, compose, "", &format!("standby = \"{standby}\"\n"));
            let text = std::fs::read_to_string(host.compose_file()).unwrap().replace("unless-stopped", policy);
            std::fs::write(host.compose_file(), text).unwrap();
            host.deploy("v1");
            host.deploy("v2");
            // The tag means another image by now, and there is no registry at boot.
            engine.docker(&["tag", &format!("{IMAGE}:v1"), &format!("{IMAGE}:v2")]);
            host.users_own.push("v2");
            engine.stop_registry();
            engine.stop_dockerd();
            engine.start_dockerd(&[]);
            host.tool("bootup", &[]).ok();
            host.serves("v2");
            let (green, blue) = (host.instance("dailry-green"), host.instance("dailry-blue"));
            assert_eq!((green["proxy"].as_str(), green["healthy"].as_bool()), (Some("enabled"), Some(true)), "{green}");
            assert_eq!(blue["healthy"], standby == "keep", "{policy}, {standby}: {blue}");
            engine.start_registry();
            drop(host);
            engine.docker(&["image", "rm", &format!("{IMAGE}:v2")]);
        }
    }
    println!("    {compose:?}: {} reboots", 2 * policies.len());
}

struct Following {
    child: Child,
    lines: Receiver<String>,
}

impl Following {
    fn of(mut command: Command) -> Following {
        let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || stdout.lines().map_while(Result::ok).all(|line| sender.send(line).is_ok()));
        Following { child, lines }
    }

    /// Waits for this line, and returns those that came before it.
    #[track_caller]
    fn until(&self, wanted: &str) -> Vec<String> {
        let mut before = Vec::new();
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(30));
            let line = line.unwrap_or_else(|_| panic!("{wanted:?} did not come; before it: {before:?}"));
            if line == wanted {
                return before;
            }
            before.push(line);
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn logs(engine: &Engine) {
    let talks = |version: &str| {
        let script = format!(
            "for n in 1 2 3; do echo {version} line $n; done; echo {version} to stderr >&2; echo {version} begins; exec /app"
        );
        engine.push(version, "", &format!("CMD [\"/busybox\", \"sh\", \"-c\", \"{script}\"]"));
    };
    talks("says1");
    talks("says2");
    let host = Host::new(engine, engine.compose(), "", "");
    host.tool("logs", &[]).is(0, "", "");
    host.deploy("says1");
    let all = host.tool("logs", &["dailry-blue"]).ok();
    let mut lines: Vec<&str> = all.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["says1 begins", "says1 line 1", "says1 line 2", "says1 line 3", "says1 to stderr"]);
    assert_eq!(host.tool("logs", &["dailry-blue", "-n", "1"]).ok().lines().count(), 1);
    assert!(host.tool("logs", &["-n", "1"]).ok().starts_with("dailry-blue | says1 "));

    // Followed across a restart and into the next container; no line comes twice, none is left out.
    let following = Following::of(host.command("logs", &["-f", "dailry-blue"]));
    following.until("says1 begins");
    engine.docker(&["restart", "dailry-blue"]);
    following.until("says1 line 1");
    let second = following.until("says1 begins");
    assert!(second.iter().filter(|line| **line == "says1 line 2").count() == 1, "{second:?}");
    for version in ["says2", "v1", "says2", "says1"] {
        host.tool("deploy", &["--ref", version]).ok();
    }
    let third = following.until("says1 begins");
    assert_eq!(third.iter().filter(|line| **line == "says1 line 3").count(), 1, "{third:?}");
}

fn stopping(engine: &Engine) {
    let host = Host::new(engine, engine.compose(), "    stop_grace_period: 20s\n", "");
    host.deploy("v1");
    host.deploy("v2");
    // Whoever is being answered gets a whole answer before the container is asked to end.
    let config =
        std::fs::read_to_string(host.config()).unwrap().replace("drain_timeout = \"300ms\"", "drain_timeout = \"20s\"");
    std::fs::write(host.config(), config).unwrap();
    host.tool("install", &["--config", host.config().to_str().unwrap()]).ok();
    let asked = thread::spawn(|| crate::load::slow(Host::address(), Duration::from_secs(3)));
    thread::sleep(Duration::from_millis(500));
    host.tool("rollback", &[]).ok();
    let began = Instant::now();
    host.tool("stop-instance", &["dailry-green"]).ok();
    let waited = began.elapsed();
    assert_eq!(asked.join().unwrap().unwrap().trim(), "v2");
    assert!(waited > Duration::from_millis(1500), "it was not drained: {waited:?}");

    // Its own way to end, and its own time for that.
    host.tool("update-instance", &["--ref", "slow-to-leave"]).ok();
    host.tool("start-instance", &["dailry-green"]).ok();
    host.tool("stop-instance", &["dailry-green"]).ok();
    let said = host.tool("logs", &["dailry-green"]).ok();
    assert!(said.ends_with("leaving\nleft\n"), "{said:?}");
    assert_eq!(engine.inspect("{{.State.ExitCode}}", "dailry-green"), "0");
}

/// What a container keeps in a volume without a name is there as long as its release.
fn volumes(engine: &Engine, compose: Compose) {
    engine.push("keeps", "", "VOLUME /kept");
    let host = Host::new(engine, compose, "", "");
    host.deploy("keeps");
    engine.docker(&["exec", "dailry-blue", "/busybox", "touch", "/kept/this"]);
    host.tool("stop-instance", &["--force"]).ok();
    host.tool("start-instance", &[]).ok();
    host.serves("keeps");
    engine.docker(&["exec", "dailry-blue", "/busybox", "ls", "/kept/this"]);
    // What the file says by now holds from the next start on, and what is kept stays.
    let text = std::fs::read_to_string(host.compose_file())
        .unwrap()
        .replace("env_file: .env", "env_file: .env\n    environment: {NEW: \"1\"}");
    std::fs::write(host.compose_file(), text).unwrap();
    host.tool("stop-instance", &["--force"]).ok();
    host.tool("start-instance", &[]).ok();
    host.serves("keeps");
    engine.docker(&["exec", "dailry-blue", "/busybox", "ls", "/kept/this"]);
    assert!(engine.inspect("{{.Config.Env}}", "dailry-blue").contains("NEW=1"));
    // It goes with the container, as soon as another release takes its place.
    host.deploy("v1");
    host.deploy("v2");
    assert_eq!(engine.docker(&["volume", "ls", "--quiet"]), "");
}

/// Somebody runs another image under an instance's name: what a release is called, it is.
fn by_hand_meanwhile(engine: &Engine) {
    let mut host = Host::new(engine, engine.compose(), "", "");
    host.users_own.push("v3");
    host.deploy("v1");
    host.deploy("v2");
    host.by_hand(&format!("{IMAGE}:v3"), "up -d dailry-blue");
    await_that("it is told", || host.instance("dailry-blue")["health"] == "healthy, but not its release");
    host.tool("rollback", &[]).ok();
    host.serves("v1");
    // Under the enabled one, too: its release is not current then.
    host.by_hand(&format!("{IMAGE}:v3"), "up -d dailry-blue");
    await_that("it is told", || host.instance("dailry-blue")["health"] == "healthy, but not its release");
    let deployed = host.tool("deploy", &["--ref", "v1"]);
    assert!(deployed.stderr.contains("dailry-green is enabled"), "{deployed:?}");
    host.serves("v1");
    drop(host);
    engine.docker(&["image", "rm", &format!("{IMAGE}:v3")]);
}
