//! Running a program by its argument vector, with a deadline; its stderr becomes the error.
//!
//! Programs run in a session of their own with stdin from /dev/null, so none can ask a question on a terminal, and with
//! an environment built by the caller, so none sees who called.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::deadline::Deadline;
use crate::logfile;
use crate::outcome::{Exit, exit_of, quote, quote_first, timed_out};
use crate::process::{self, Bond, Until};

/// How often a running program is looked at.
const POLL: Duration = Duration::from_millis(2);
/// How many lines of what a program wrote an error quotes.
const QUOTED_LINES: usize = 3;

/// Finds a program in PATH, or in the system directories that an ordinary user's PATH lacks.
pub fn find(program: &str) -> Result<PathBuf> {
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    let mut path = inherited;
    path.push(":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    which::which_in(program, Some(path), "/")
        .map_err(|_| anyhow!("cannot find {program}: install it, or add it to PATH"))
}

/// What a program that succeeded wrote.
#[derive(Debug)]
pub struct Output {
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// Starts a program of ours that outlives us, with nothing of the caller's environment. What it says on stderr goes into
/// `log`.
pub fn detach(program: &Path, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>, log: File) -> Result<Child> {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    process::isolate(&mut command, Bond::Free);
    command.spawn().with_context(|| format!("cannot run {}", program.display()))
}

/// Where a tool that lies beside the calling one is.
pub fn sibling(tool: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().with_context(|| format!("cannot find {tool}"))?;
    Ok(own.with_file_name(tool))
}

/// A program about to run.
pub struct Run {
    command: Command,
    name: String,
    says_why_last: bool,
}

impl Run {
    /// A program with its arguments, and nothing of the caller's environment.
    pub fn new(program: &Path, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Run {
        let mut command = Command::new(program);
        command.args(arguments.into_iter().map(Into::into)).env_clear().stdin(Stdio::null());
        process::isolate(&mut command, Bond::Leashed(Until::Ended));
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Run { command, name, says_why_last: false }
    }

    /// The environment it gets.
    pub fn environment<K: Into<OsString>, V: Into<OsString>>(
        mut self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> Run {
        self.command.envs(variables.into_iter().map(|(name, value)| (name.into(), value.into())));
        self
    }

    /// The directory it runs in.
    pub fn directory(mut self, directory: &Path) -> Run {
        self.command.current_dir(directory);
        self
    }

    /// A program that talks on stderr, and says only near the end why it failed.
    pub fn says_why_last(mut self) -> Run {
        self.says_why_last = true;
        self
    }

    /// Runs it and returns what it wrote. Anything but exit 0 is an error that quotes its stderr; a passed deadline ends
    /// the program and all it started.
    pub fn output(mut self, deadline: Deadline) -> Result<Output> {
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().with_context(|| format!("cannot run {}", self.name))?;
        let stdout = Drain::of(child.stdout.take());
        let stderr = Drain::of(child.stderr.take());
        let status = wait(&mut child, &self.name, deadline)?;
        let (stdout, stderr) = (stdout.finish(), stderr.finish());
        if !status.success() {
            let said = match self.says_why_last {
                true => reason_in(&stderr).to_owned(),
                false => quote_first(stderr.lines(), QUOTED_LINES),
            };
            bail!("{}: {}", self.name, if said.is_empty() { describe(status) } else { said });
        }
        Ok(Output { stdout, stderr })
    }

    /// Runs it with both its output streams going into a log. Anything but exit 0 is an error about `what`, which quotes the
    /// end of what it wrote.
    pub fn logged(self, what: &str, log: &Path, deadline: Deadline) -> Result<()> {
        let cannot = || format!("cannot write {}", log.display());
        let file = logfile::open(log)?;
        let start = file.metadata().with_context(cannot)?.len();
        let copy = file.try_clone().with_context(cannot)?;
        let ended = self.run_into(file, copy, deadline);
        let reason = match &ended {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => describe(*status),
            Err(error) => format!("{error:#}"),
        };
        let lines = logfile::last_lines_since(log, start).unwrap_or_default();
        let last = quote(lines.iter().map(String::as_str), QUOTED_LINES);
        let said = if last.is_empty() { last } else { format!(": {last} (all of it: {})", log.display()) };
        let message = format!("{what}: {reason}{said}");
        match ended {
            Err(error) if exit_of(&error) == Exit::TimedOut => Err(timed_out(message)),
            _ => Err(anyhow!(message)),
        }
    }

    fn run_into(mut self, stdout: File, stderr: File, deadline: Deadline) -> Result<ExitStatus> {
        self.command.stdout(stdout).stderr(stderr);
        let mut child = self.command.spawn().with_context(|| format!("cannot run {}", self.name))?;
        wait(&mut child, &self.name, deadline)
    }

    /// Runs it with both its output streams going to our stderr, a terminal. What is wrong can be read there.
    pub fn shown(mut self, deadline: Deadline) -> Result<()> {
        self.command.stdout(std::io::stderr()).stderr(std::io::stderr());
        let mut child = self.command.spawn().with_context(|| format!("cannot run {}", self.name))?;
        let status = wait(&mut child, &self.name, deadline)?;
        if status.success() { Ok(()) } else { bail!("{}: {}, as it says above", self.name, describe(status)) }
    }
}

/// The last line that is about an error, else the last line.
fn reason_in(stderr: &str) -> &str {
    let mut lines = stderr.lines().rev().map(str::trim).filter(|line| !line.is_empty());
    let last = lines.clone().next().unwrap_or_default();
    let is_reason = |line: &&str| {
        let line = line.to_ascii_lowercase();
        line.starts_with("error ") || line.starts_with("error:") || line.contains(" error: ")
    };
    lines.find(is_reason).unwrap_or(last)
}

fn wait(child: &mut Child, name: &str, deadline: Deadline) -> Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().with_context(|| format!("cannot wait for {name}"))? {
            return Ok(status);
        }
        if !deadline.sleep(POLL) {
            process::end_leashed(child);
            return Err(timed_out(format!("{name} did not end in time and was killed")));
        }
    }
}

/// What a program wrote into a pipe, read beside the wait so that a talkative program never blocks.
struct Drain {
    text: Arc<Mutex<Vec<u8>>>,
    reader: thread::JoinHandle<()>,
}

impl Drain {
    fn of(pipe: Option<impl Read + Send + 'static>) -> Drain {
        let text = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&text);
        let reader = thread::spawn(move || {
            let Some(mut pipe) = pipe else { return };
            let mut chunk = [0; 8192];
            while let Ok(count @ 1..) = pipe.read(&mut chunk) {
                lock(&shared).extend_from_slice(&chunk[..count]);
            }
        });
        Drain { text, reader }
    }

    /// All of it, once the program has ended. A daemon that it left behind may hold the pipe open for ever, so the wait
    /// for the end of the stream is short.
    fn finish(self) -> String {
        let patience = Deadline::after(Duration::from_secs(1));
        while !self.reader.is_finished() && patience.sleep(Duration::from_micros(200)) {}
        String::from_utf8_lossy(&lock(&self.text)).into_owned()
    }
}

/// The text, also when the thread that wrote it panicked: what it had read stays true.
fn lock(text: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    text.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An exit status in words: `exit status 3`, `killed by SIGSEGV`.
pub fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(number)) => {
            let name = nix::sys::signal::Signal::try_from(number).map(|signal| signal.as_str().to_owned());
            format!("killed by {}", name.unwrap_or_else(|_| format!("signal {number}")))
        }
        (None, None) => status.to_string(),
    }
}
