//! Running a program by its argument vector, with a deadline; its stderr becomes the error.
//!
//! Programs run in a session of their own with stdin from /dev/null, so none can ask a question on a terminal. They get
//! PATH, LANG and what the module that runs them adds, and nothing of the caller's environment.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::deadline::Deadline;
use crate::logfile;
use crate::outcome::{Exit, exit_of, quote, quote_tool, timed_out};
use crate::process::{self, Bond, Kills, Until};

/// How often a running program is looked at.
const POLL: Duration = Duration::from_millis(2);
/// How many lines of what a program wrote an error quotes.
const QUOTED_LINES: usize = 3;
/// How much of what a program writes is kept, in bytes; the rest is read and forgotten.
const MOST_KEPT: usize = 64 * 1024 * 1024;
/// How much of a line of a program's is shown in one piece, in bytes.
const LONGEST_SHOWN: usize = 4096;
/// How long the end of a program's output may take after its own.
const AFTERWARDS: Duration = Duration::from_secs(1);
/// How much a pipe can hold, in bytes (pipe(7): more takes a privilege).
const LARGEST_PIPE: usize = 1024 * 1024;

/// The environment that every program gets at least. It is never empty: there are versions of sudo that crash without a
/// single variable (Debian 13's 1.9.16p2-3+deb13u5).
pub const ENVIRONMENT: [(&str, &str); 2] = [("PATH", SYSTEM_PATH), ("LANG", "C.UTF-8")];
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command with a program and its arguments, [`ENVIRONMENT`] and no input. Every program that the library runs is
/// started by way of this.
pub fn prepare(program: &Path, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(ENVIRONMENT).stdin(Stdio::null());
    command
}

/// Finds a program in PATH, or in the system directories that an ordinary user's PATH lacks.
pub fn find(program: &str) -> Result<PathBuf> {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":");
    path.push(SYSTEM_PATH);
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

/// How a program ended, and what it wrote.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

/// Starts a program of ours that outlives us, with nothing of the caller's environment, priorities and limits. What it says on stderr goes into
/// `log`.
pub fn detach(
    program: &Path,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    log: impl Into<Stdio>,
) -> Result<Child> {
    let mut command = prepare(program, arguments);
    command.current_dir("/").stdout(Stdio::null()).stderr(log);
    process::isolate(&mut command, Bond::Free);
    process::unlimit(&mut command);
    command.spawn().with_context(|| format!("cannot run {}", program.display()))
}

/// Where a tool that lies beside the calling one is.
pub fn sibling(tool: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().with_context(|| format!("cannot find {tool}"))?;
    Ok(own.with_file_name(tool))
}

/// What a program that is bounded may have of a small machine's memory, in bytes.
const LEAST_BOUND: u64 = 512 << 20;

/// A program about to run.
pub struct Run {
    command: Command,
    name: String,
    says_why_last: bool,
    is_expendable: bool,
}

impl Run {
    /// A program with its arguments, and nothing of the caller's environment.
    pub fn new(program: &Path, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Run {
        let mut command = prepare(program, arguments);
        process::isolate(&mut command, Bond::Leashed(Until::Ended));
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Run { command, name, says_why_last: false, is_expendable: false }
    }

    /// Variables that it gets besides [`ENVIRONMENT`], or in their place.
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

    /// A program that may not fill the machine's memory: it gets half of it.
    pub fn bounded(mut self) -> Run {
        process::bound_memory(&mut self.command, (process::machine_memory() / 2).max(LEAST_BOUND));
        self
    }

    /// A program that the kernel should kill before all others when memory runs out: the app serves, this one can be
    /// run again.
    pub fn expendable(mut self) -> Run {
        process::expendable(&mut self.command);
        self.is_expendable = true;
        self
    }

    /// Runs it and returns what it wrote. Anything but exit 0 is an error that quotes its stderr; a passed deadline ends
    /// the program and all it started.
    pub fn output(self, deadline: Deadline) -> Result<Output> {
        let (name, says_why_last) = (self.name.clone(), self.says_why_last);
        let kills = self.kills();
        let Ended { status, stdout, stderr } = self.finish(deadline)?;
        if !status.success() {
            let said = match says_why_last {
                true => reason_in(&stderr),
                false => quote_tool(stderr.lines(), QUOTED_LINES),
            };
            let memory = memory(kills, status);
            bail!("{name}: {}{memory}", if said.is_empty() { describe(status) } else { said });
        }
        Ok(Output { stdout, stderr })
    }

    /// Runs it and returns how it ended and what it wrote, also when it failed. A passed deadline ends the program and
    /// all it started, and is an error.
    pub fn finish(mut self, deadline: Deadline) -> Result<Ended> {
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().with_context(|| format!("cannot run {}", self.name))?;
        let pipes = (child.stdout.take().map(OwnedFd::from), child.stderr.take().map(OwnedFd::from));
        let drains = Drain::of(pipes.0).and_then(|out| Ok((out, Drain::of(pipes.1)?)));
        let (mut stdout, mut stderr) = drains
            .inspect_err(|_| process::end_leashed(&mut child))
            .with_context(|| format!("cannot read what {} writes", self.name))?;
        let mut read = || [&mut stdout, &mut stderr].into_iter().for_each(|drain| drain.read());
        let status = wait(&mut child, &self.name, deadline, &mut read)?;
        let text = |drain: Drain| String::from_utf8_lossy(&drain.text).into_owned();
        read_to_end([&mut stdout, &mut stderr]);
        Ok(Ended { status, stdout: text(stdout), stderr: text(stderr) })
    }

    /// Runs it with both its output streams going into a log. Anything but exit 0 is an error about `what`, which quotes the
    /// end of what it wrote.
    pub fn logged(self, what: &str, log: &Path, deadline: Deadline) -> Result<()> {
        let cannot = || format!("cannot write {}", log.display());
        let file = logfile::open(log)?;
        let start = file.metadata().with_context(cannot)?.len();
        let copy = file.try_clone().with_context(cannot)?;
        let kills = self.kills();
        let ended = self.run_into(file, copy, deadline);
        let reason = match &ended {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => describe(*status) + memory(kills, *status),
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

    /// What the kernel has killed before this program runs; None: it would be no wonder if this one were spared.
    fn kills(&self) -> Option<Kills> {
        self.is_expendable.then(Kills::so_far)
    }

    fn run_into(mut self, stdout: File, stderr: File, deadline: Deadline) -> Result<ExitStatus> {
        self.command.stdout(stdout).stderr(stderr);
        let mut child = self.command.spawn().with_context(|| format!("cannot run {}", self.name))?;
        wait(&mut child, &self.name, deadline, &mut || ())
    }

    /// Runs it, and hands each line that it writes to `show`, as soon as it is whole. Anything but exit 0 is an error that
    /// leaves the reason to what was shown.
    pub fn shown(self, show: impl Fn(&str), deadline: Deadline) -> Result<()> {
        let name = self.name.clone();
        let status = self.relayed(show, deadline)?;
        if status.success() { Ok(()) } else { bail!("{name}: {}, as it says above", describe(status)) }
    }

    /// Runs it, and hands each line that it writes to `show`, as soon as it is whole. Returns how it ended. For as long as `show`
    /// takes, the deadline is not looked at.
    pub fn relayed(mut self, show: impl Fn(&str), deadline: Deadline) -> Result<ExitStatus> {
        let (said, end) = io::pipe().context("cannot make a pipe")?;
        self.command.stdout(end.try_clone().context("cannot make a pipe")?).stderr(end);
        let mut child = self.command.spawn().with_context(|| format!("cannot run {}", self.name))?;
        let name = self.name.clone();
        // It holds the other ends of the pipe.
        drop(self);
        let mut said = Drain::of(Some(said.into()))
            .inspect_err(|_| process::end_leashed(&mut child))
            .with_context(|| format!("cannot read what {name} writes"))?;
        let mut relay = || {
            said.read();
            said.take_lines().iter().for_each(|line| show(line));
        };
        let status = wait(&mut child, &name, deadline, &mut relay);
        // What a program has asked that hangs is in a line without an end.
        let patience = Deadline::after(AFTERWARDS);
        loop {
            said.read();
            said.take_lines().iter().for_each(|line| show(line));
            if said.pipe.is_none() || status.is_err() || !patience.sleep(Duration::from_micros(200)) {
                break;
            }
        }
        if !said.text.is_empty() {
            said.text.push(b'\n');
            said.take_lines().iter().for_each(|line| show(line));
        }
        status
    }
}

/// What is to be said besides when a program has failed because memory ran out.
fn memory(before: Option<Kills>, status: ExitStatus) -> &'static str {
    let is_why = before.is_some_and(|before| before.explain(status));
    if is_why { ", because memory ran out and the kernel killed a process of it" } else { "" }
}

/// The last line that is about an error, with all behind it, which may hold the reason; else the last line.
fn reason_in(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let is_reason = |line: &&str| {
        let line = line.to_ascii_lowercase();
        line.starts_with("error ") || line.starts_with("error:") || line.contains(" error: ")
    };
    let begin = lines.iter().rposition(is_reason).unwrap_or(lines.len().saturating_sub(1));
    lines.into_iter().skip(begin).collect::<Vec<_>>().join(" | ")
}

/// Waits for the end of a program, and does this meanwhile, again and again.
fn wait(child: &mut Child, name: &str, deadline: Deadline, meanwhile: &mut impl FnMut()) -> Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait().with_context(|| format!("cannot wait for {name}"))? {
            return Ok(status);
        }
        meanwhile();
        if !deadline.sleep(POLL) {
            process::end_leashed(child);
            return Err(timed_out(format!("{name} did not end in time and was killed")));
        }
    }
}

/// What a program writes into a pipe, read by whoever waits for its end, so that a talkative program never blocks.
struct Drain {
    /// None: whoever could write into it has closed it.
    pipe: Option<File>,
    text: Vec<u8>,
}

impl Drain {
    fn of(pipe: Option<OwnedFd>) -> io::Result<Drain> {
        let pipe = pipe.map(File::from);
        if let Some(pipe) = &pipe {
            fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok(Drain { pipe, text: Vec::new() })
    }

    /// Reads what is there, as much as a pipe can hold. Of a program that writes for ever this is not all.
    fn read(&mut self) {
        let mut chunk = [0; 8192];
        for _ in 0..LARGEST_PIPE / chunk.len() {
            let Some(pipe) = &mut self.pipe else { return };
            match pipe.read(&mut chunk) {
                Ok(count @ 1..) => {
                    let room = MOST_KEPT.saturating_sub(self.text.len());
                    self.text.extend(chunk.iter().take(count.min(room)));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(0) | Err(_) => self.pipe = None,
            }
        }
    }

    /// Takes the lines that are whole; of a line that is too long, pieces.
    fn take_lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut rest = self.text.as_slice();
        loop {
            let end = rest.iter().take(LONGEST_SHOWN).position(|byte| *byte == b'\n').map(|at| at.saturating_add(1));
            let Some((line, behind)) = rest.split_at_checked(end.unwrap_or(LONGEST_SHOWN)) else { break };
            lines.push(String::from_utf8_lossy(line).trim_end().to_owned());
            rest = behind;
        }
        self.text = rest.to_vec();
        lines
    }
}

/// Reads the rest, once the program has ended: what it wrote itself is in the pipes by then. What it left behind may write on,
/// and hold them open for ever, so the wait for the end of the streams is short.
fn read_to_end<const N: usize>(mut drains: [&mut Drain; N]) {
    let patience = Deadline::after(AFTERWARDS);
    loop {
        drains.iter_mut().for_each(|drain| drain.read());
        if drains.iter().all(|drain| drain.pipe.is_none()) || !patience.sleep(Duration::from_micros(200)) {
            return;
        }
    }
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn shell(script: &str) -> Run {
        Run::new(Path::new("/bin/sh"), ["-c", script])
    }

    #[test]
    fn what_a_program_wrote_is_whole_however_much_and_whatever_it_leaves_behind() -> Result<()> {
        let patience = || Deadline::after(Duration::from_secs(60));
        let much = shell("head -c 5000000 /dev/zero; head -c 3000000 /dev/zero >&2; exit 3").finish(patience())?;
        assert_eq!((much.stdout.len(), much.stderr.len(), much.status.code()), (5_000_000, 3_000_000, Some(3)));
        // The most that a pipe holds, written by who has ended before anybody reads.
        assert_eq!(shell("head -c 65536 /dev/zero").finish(patience())?.stdout.len(), 65536);
        assert_eq!(shell("setsid sleep 5 & echo all of it").finish(patience())?.stdout, "all of it\n");
        let endless = shell("yes").finish(Deadline::after(Duration::from_millis(200)));
        assert_eq!(endless.err().map(|error| exit_of(&error)), Some(Exit::TimedOut));
        Ok(())
    }

    #[test]
    fn lines_are_handed_on_as_they_are_whole() -> Result<()> {
        let lines = RefCell::new(Vec::new());
        let long = "x".repeat(LONGEST_SHOWN + 1);
        let script = format!("echo one; echo; printf 'tw'; sleep 0.1; echo o >&2; echo {long}; printf end");
        let show = |line: &str| lines.borrow_mut().push(line.to_owned());
        assert!(shell(&script).relayed(show, Deadline::after(Duration::from_secs(60)))?.success());
        assert_eq!(lines.take(), ["one", "", "two", &"x".repeat(LONGEST_SHOWN), "x", "end"]);
        let asks =
            shell("echo one; printf Password:; sleep 60").relayed(show, Deadline::after(Duration::from_millis(500)));
        assert_eq!((asks.is_err(), lines.take()), (true, vec!["one".to_owned(), "Password:".to_owned()]));
        Ok(())
    }

    #[test]
    fn the_reason_is_the_last_error_with_all_behind_it() {
        for (said, reason) in [
            ("a Pulling\nb Error\nError response from daemon: no such tag", "Error response from daemon: no such tag"),
            (
                "ERROR: for a  no\n\nERROR: The file is invalid because:\nname: no\n\nFor more see",
                "ERROR: The file is invalid because: | name: no | For more see",
            ),
            ("yaml: line 3: no\n", "yaml: line 3: no"),
            ("", ""),
        ] {
            assert_eq!(reason_in(said), reason);
        }
    }
}
