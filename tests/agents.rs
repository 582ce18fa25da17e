//! What runs a deploy where no person does: AWS CodeDeploy's agent and GitHub's runner. They are emulated, for they work
//! only for an account of AWS's or GitHub's; each step names the file of their sources that it follows.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::interrupts;
use crate::site::{Ran, Site};

/// How long anything may take here that the agents would wait for much longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a script's streams may stay open here after its end. CodeDeploy's agent gives them what is left of the
/// hook's timeout.
const AFTERWARDS: Duration = Duration::from_secs(5);
/// ProcessInvoker.cs: how long the runner reads on after a step's end.
const STILL_READ: Duration = Duration::from_secs(5);
/// ProcessInvoker.cs: what a cancelled step gets, and how long it then has before the next. After them: SIGKILL.
const CANCELLATION: [(Signal, Duration); 2] =
    [(Signal::SIGINT, Duration::from_millis(7500)), (Signal::SIGTERM, Duration::from_millis(2500))];

/// An output of a program, read until every copy of its other end is closed, or until it is let go.
struct Output {
    is_let_go: Arc<AtomicBool>,
    reader: JoinHandle<String>,
}

impl Output {
    fn of(mut pipe: impl Read + AsFd + Send + 'static) -> Output {
        let is_let_go = Arc::new(AtomicBool::new(false));
        let watched = Arc::clone(&is_let_go);
        let reader = thread::spawn(move || {
            let (mut text, mut part) = (Vec::new(), [0; 4096]);
            while !watched.load(Ordering::Relaxed) {
                let mut waiting = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
                if poll(&mut waiting, PollTimeout::from(10u8)).unwrap() == 0 {
                    continue;
                }
                match pipe.read(&mut part).unwrap() {
                    0 => break,
                    length => text.extend(&part[..length]),
                }
            }
            String::from_utf8(text).unwrap()
        });
        Output { is_let_go, reader }
    }

    fn is_closed(&self) -> bool {
        self.reader.is_finished()
    }

    /// Closes this end, if the other one is not closed yet; what came until then.
    fn end(self) -> String {
        self.is_let_go.store(true, Ordering::Relaxed);
        self.reader.join().unwrap()
    }
}

/// A program that an agent runs: its input is at its end, its outputs are read.
pub struct Running {
    child: Child,
    stdout: Output,
    stderr: Output,
}

impl Running {
    fn begin(command: &mut Command) -> Running {
        interrupts::are_heeded();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop(child.stdin.take());
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        Running { child, stdout: Output::of(stdout), stderr: Output::of(stderr) }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Waits for its end for so long.
    fn exited_within(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            match self.child.try_wait().unwrap() {
                None if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
                status => return status,
            }
        }
    }

    /// The outputs that somebody still holds open after this time.
    fn left_open_after(&self, patience: Duration) -> Vec<&'static str> {
        let deadline = Instant::now() + patience;
        loop {
            let both = [("STDOUT", &self.stdout), ("STDERR", &self.stderr)];
            let open: Vec<&str> = both.iter().filter(|(_, end)| !end.is_closed()).map(|(name, _)| *name).collect();
            if open.is_empty() || Instant::now() >= deadline {
                return open;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// What it did, once it has ended.
    fn ran(mut self) -> Ran {
        let status = self.child.wait().unwrap();
        let output = |text: String| text.into_bytes();
        Ran::of(&std::process::Output { status, stdout: output(self.stdout.end()), stderr: output(self.stderr.end()) })
    }
}

/// AWS CodeDeploy's agent, and the deployment group that its host belongs to.
pub struct CodeDeploy {
    root: TempDir,
    deployments: u32,
}

/// A script of a hook's, as appspec.yml names it.
#[derive(Clone, Debug)]
pub struct Script {
    pub event: String,
    pub location: String,
    /// In seconds.
    pub timeout: u64,
}

impl CodeDeploy {
    pub fn on(site: &Site) -> CodeDeploy {
        let root = tempfile::Builder::new().prefix("deployment-root-").tempdir_in(site.directory.path()).unwrap();
        CodeDeploy { root, deployments: 0 }
    }

    /// The event DownloadBundle (command_executor.rb, linux_util.rb): unpacks what was committed last.
    pub fn download(&mut self, site: &Site) -> PathBuf {
        self.deployments += 1;
        let deployment = self.root.path().join(format!("d-{}", self.deployments));
        let (bundle, archive) = (deployment.join("bundle.tar"), deployment.join("deployment-archive"));
        fs::create_dir_all(&archive).unwrap();
        site.git(&["archive", "--output", bundle.to_str().unwrap(), "HEAD"]);
        let mut tar = site.command(Path::new("/bin/tar"));
        Ran::run(tar.arg("-xpsf").arg(&bundle).current_dir(&archive)).ok();
        archive
    }

    /// Begins a script of an unpacked revision (hook_executor.rb, codedeploy-agent.service).
    pub fn begin(&self, site: &Site, archive: &Path, script: &Script) -> Running {
        let mut command = site.command(&archive.join(&script.location));
        // systemd gives a service of root's no HOME and no USER.
        command.env_remove("HOME").envs([("LANG", "C.UTF-8"), ("PWD", "/"), ("SHLVL", "0")]);
        command.envs([
            ("LIFECYCLE_EVENT", script.event.as_str()),
            ("DEPLOYMENT_ID", archive.parent().unwrap().file_name().unwrap().to_str().unwrap()),
            ("APPLICATION_NAME", "shop"),
            ("DEPLOYMENT_GROUP_NAME", "production"),
            ("DEPLOYMENT_GROUP_ID", "7b0a2a5e-5f33-4f4c-8ef5-1a2b3c4d5e6f"),
            ("BUNDLE_COMMIT", site.git(&["rev-parse", "HEAD"]).trim()),
        ]);
        Running::begin(command.current_dir("/").process_group(0))
    }

    /// Waits for a script, and then for its outputs to be closed (hook_executor.rb, thread_joiner.rb).
    pub fn wait(&self, mut script: Running) -> Result<Ran, String> {
        let status = script.exited_within(PATIENCE).expect("the script ends");
        if let Some(output) = script.left_open_after(AFTERWARDS).first() {
            return Err(format!("failed to close {output}: {:?}", script.ran()));
        }
        match status.code() {
            Some(0) => Ok(script.ran()),
            code => Err(format!("failed with exit code {}: {}", code.unwrap_or_default(), script.ran().stderr)),
        }
    }

    /// The script's time is over: SIGTERM to its group, its outputs are closed, and it is waited for (hook_executor.rb and
    /// Ruby's Open3; there is no SIGKILL).
    pub fn time_out(&self, script: Running) {
        let Running { mut child, stdout, stderr } = script;
        killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
        stdout.end();
        stderr.end();
        let deadline = Instant::now() + PATIENCE;
        while child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the script does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A job of a workflow's, on GitHub's runner.
pub struct Job<'a> {
    site: &'a Site,
    environment: BTreeMap<&'static str, String>,
    /// What ran before it: pids and names.
    before: HashSet<(i32, String)>,
    steps: u32,
}

/// How a step of a job's ended.
#[derive(Debug)]
pub struct Ended {
    pub ran: Ran,
    /// What kept the runner waiting after the step's end.
    pub left_open: Vec<&'static str>,
}

impl Job<'_> {
    /// Begins a job (JobExtension.cs, TempDirectoryManager.cs).
    pub fn begin(site: &Site) -> Job<'_> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let work = site.directory.path().join("actions-runner/_work");
        let (workspace, temporary) = (work.join("shop/shop"), work.join("_temp"));
        let _ = fs::remove_dir_all(&temporary);
        fs::create_dir_all(&temporary).unwrap();
        fs::create_dir_all(&workspace).unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let environment = BTreeMap::from([
            ("LANG", "C.UTF-8".to_owned()),
            ("RUNNER_TRACKING_ID", format!("github_{:08x}-58cc-4372-a567-{number:012x}", std::process::id())),
            ("CI", "true".to_owned()),
            ("GITHUB_ACTIONS", "true".to_owned()),
            ("GITHUB_EVENT_NAME", "push".to_owned()),
            ("GITHUB_REF_NAME", "main".to_owned()),
            ("GITHUB_RUN_ID", number.to_string()),
            ("GITHUB_SHA", site.git(&["rev-parse", "HEAD"]).trim().to_owned()),
            ("GITHUB_WORKSPACE", text(&workspace)),
            ("RUNNER_OS", "Linux".to_owned()),
            ("RUNNER_TEMP", text(&temporary)),
            ("RUNNER_WORKSPACE", text(&work.join("shop"))),
        ]);
        let before = processes().into_iter().map(|pid| (pid, name(pid))).collect();
        Job { site, environment, before, steps: 0 }
    }

    fn workspace(&self) -> PathBuf {
        PathBuf::from(&self.environment["GITHUB_WORKSPACE"])
    }

    /// What actions/checkout leaves, which is an action of its own: the commit in the workspace, and what others put there
    /// gone.
    pub fn check_out(&self) {
        let workspace = self.workspace();
        fs::remove_dir_all(&workspace).unwrap();
        let source = format!("file://{}", self.site.source().display());
        self.site.git(&["clone", "--quiet", "--depth=1", &source, workspace.to_str().unwrap()]);
    }

    /// Begins a step's `run:` with the job's `env:` (ScriptHandler.cs, ScriptHandlerHelpers.cs, ProcessInvoker.cs).
    pub fn begin_step(&mut self, run: &str, variables: &BTreeMap<String, String>) -> Running {
        self.steps += 1;
        let script = Path::new(&self.environment["RUNNER_TEMP"]).join(format!("step-{}.sh", self.steps));
        fs::write(&script, run).unwrap();
        let shell = which::which("bash").or_else(|_| which::which("sh")).unwrap();
        let mut command = self.site.command(&shell);
        command.arg("-e").arg(&script).envs(&self.environment).envs(variables).current_dir(self.workspace());
        let step = Running::begin(&mut command);
        // Of all its processes, the system is to run out of memory for these first.
        let _ = fs::write(format!("/proc/{}/oom_score_adj", step.pid()), "500");
        step
    }

    /// Waits for a step's end, and for a while for its outputs to be closed (ProcessInvoker.cs).
    pub fn wait(&self, mut step: Running) -> Ended {
        step.exited_within(PATIENCE).expect("the step ends");
        let left_open = step.left_open_after(STILL_READ);
        Ended { left_open, ran: step.ran() }
    }

    /// Cancels a step (ProcessInvoker.cs): signals to its first process alone. Returns the one that ended it.
    pub fn cancel(&self, mut step: Running) -> Signal {
        for (signal, patience) in CANCELLATION {
            let deadline = Instant::now() + patience;
            kill(step.pid(), signal).unwrap();
            let exited = step.exited_within(patience).is_some();
            if exited && step.left_open_after(deadline.saturating_duration_since(Instant::now())).is_empty() {
                return signal;
            }
        }
        // The process only, whatever its name in the runner says.
        let _ = step.child.kill();
        let _ = self.wait(step);
        Signal::SIGKILL
    }

    /// What still has the job's RUNNER_TRACKING_ID, and was not there before it (JobExtension.cs).
    pub fn orphans(&self) -> Vec<i32> {
        let mark = format!("RUNNER_TRACKING_ID={}", self.environment["RUNNER_TRACKING_ID"]);
        let has_mark = |pid: &i32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        };
        let own = std::process::id().cast_signed();
        let is_new = |pid: &i32| *pid != own && !self.before.contains(&(*pid, name(*pid)));
        processes().into_iter().filter(is_new).filter(has_mark).collect()
    }

    /// Ends the job, and its orphans (JobExtension.cs). Returns the names of what it killed.
    pub fn end(&self) -> Vec<String> {
        let killed = |pid: i32| {
            let name = name(pid);
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            name
        };
        self.orphans().into_iter().map(killed).collect()
    }
}

/// All processes of the machine.
fn processes() -> Vec<i32> {
    fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// A process's name; empty when it has gone.
fn name(pid: i32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}
