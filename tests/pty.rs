//! A program on a terminal of its own: what it draws there, and what it leaves of it.

// Each program that includes this uses a part of it.
#![allow(dead_code)]

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::fcntl::OFlag;
use nix::pty::{grantpt, openpty, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{Termios, tcgetattr};
use nix::unistd::Pid;
use rustix::termios::{Winsize, tcsetwinsize};

use crate::site::{Site, eventually};

/// Takes the terminal over: another screen, no cursor, no wrapping.
pub const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
/// Gives it back.
pub const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// What is seen, in the end, of a program on a terminal on which these keys are pressed.
pub fn typed(mut program: Command, keys: &str) -> String {
    // No child of another test may hold it open.
    let mut master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let slave = File::options().read(true).write(true).open(ptsname_r(&master).unwrap()).unwrap();
    let end = || Stdio::from(slave.try_clone().unwrap());
    let mut child = program.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
    drop((program, slave));
    master.write_all(keys.as_bytes()).unwrap();
    let mut seen = Vec::new();
    // It ends, with an error, when the other end is closed.
    let _ = master.read_to_end(&mut seen);
    child.wait().unwrap();
    String::from_utf8_lossy(&seen).into_owned()
}

/// A terminal with a program on it.
pub struct Pty {
    master: File,
    slave: OwnedFd,
    child: Child,
    written: Arc<Mutex<Vec<u8>>>,
    /// As the terminal was when the program began.
    pub before: Termios,
}

impl Pty {
    /// Starts a tool of the site's, in this locale, on a terminal with so many columns and lines.
    pub fn start(site: &Site, locale: &str, (width, height): (u16, u16), tool: &str, arguments: &[&str]) -> Pty {
        let pty = openpty(None, None).unwrap();
        let (master, slave) = (File::from(pty.master), pty.slave);
        set_size(&master, width, height);
        let before = tcgetattr(&slave).unwrap();
        // The terminal becomes the one that sends the program signals.
        let mut command = site.command(Path::new("setsid"));
        command.args(["--ctty", "--wait"]).arg(site.home.join("bin").join(tool)).args(arguments);
        let end = || Stdio::from(slave.try_clone().unwrap());
        let mut path = site.home.join("bin").into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap());
        command.env("PATH", path).env("LANG", locale).stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().unwrap();
        let written = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, kept) = (master.try_clone().unwrap(), Arc::clone(&written));
        thread::spawn(move || {
            let mut chunk = [0; 4096];
            // It ends, with an error, when the other end is closed.
            while let Ok(count) = reader.read(&mut chunk) {
                kept.lock().unwrap().extend_from_slice(&chunk[..count]);
            }
        });
        Pty { master, slave, child, written, before }
    }

    /// The process.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// All that was written so far.
    pub fn written(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned()
    }

    /// The lines that were drawn last, without what makes them bold; none before the first ones.
    pub fn screen(&self) -> Vec<String> {
        let written = self.written();
        let whole = |frame: &str| frame.split_once("\x1b[J").map(|(frame, _)| frame.to_owned());
        let frame = written.rsplit("\x1b[H").filter(|frame| !frame.contains(ENTER)).find_map(whole).unwrap_or_default();
        let plain = frame.replace("\x1b[K", "").replace("\x1b[1m", "").replace("\x1b[0m", "").replace('\r', "");
        assert!(!plain.contains('\x1b'), "{plain:?}");
        plain.lines().map(str::to_owned).collect()
    }

    /// Waits until all of these are on the screen; returns it.
    #[track_caller]
    pub fn shows(&self, parts: &[&str]) -> Vec<String> {
        let mut screen = Vec::new();
        eventually(&format!("{parts:?} on the screen"), || {
            screen = self.screen();
            let text = screen.join("\n");
            parts.iter().all(|part| text.contains(part))
        });
        screen
    }

    /// Changes the terminal's size.
    pub fn resize(&self, width: u16, height: u16) {
        set_size(&self.master, width, height);
    }

    /// Types this.
    pub fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Waits for the program's end; returns its exit code, None when a signal ended it.
    #[track_caller]
    pub fn code(&mut self) -> Option<i32> {
        let mut ended = None;
        eventually("the program on the terminal ends", || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        ended.unwrap().code()
    }

    /// As the terminal is now.
    pub fn now(&self) -> Termios {
        tcgetattr(&self.slave).unwrap()
    }
}

fn set_size(terminal: &impl AsFd, width: u16, height: u16) {
    let size = Winsize { ws_row: height, ws_col: width, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).unwrap();
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
