//! What a program did that was run, and what is asserted about it.

// Each program that includes this uses a part of it.
#![allow(dead_code)]

use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// What a program did.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code, or 128 and the number of the signal that killed it, as a shell says it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// What a program left behind when it ended.
    pub fn of(output: &Output) -> Ran {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap());
        Ran { code, stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// Runs a program to its end. One that was written a moment ago may still be open for writing in what another test
    /// is about to execute: that is waited for.
    #[track_caller]
    pub fn run(command: &mut Command) -> Ran {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match command.stdin(Stdio::null()).output() {
                Ok(output) => return Ran::of(&output),
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(5));
                }
                Err(error) => panic!("{command:?}: {error}"),
            }
        }
    }

    /// Asserts success; returns stdout.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stdout
    }

    /// Asserts success; returns stderr.
    #[track_caller]
    pub fn said(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.stderr
    }

    /// Asserts the three things a script can see.
    #[track_caller]
    pub fn is(&self, code: i32, stdout: &str, stderr: &str) {
        assert_eq!((self.code, self.stdout.as_str(), self.stderr.as_str()), (code, stdout, stderr));
    }

    /// Asserts a failure: its code, nothing on stdout, and one line that holds all of `parts`.
    #[track_caller]
    pub fn fails(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        let last = self.stderr.lines().last().unwrap_or_default();
        for part in parts {
            assert!(last.contains(part), "{part:?} is not in the last line of {self:?}");
        }
    }
}
