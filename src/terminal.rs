//! A terminal as a screen: taken over, drawn on, and given back as it was, whichever way that ends. What is drawn is
//! nothing to it.

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{InputFlags, LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr};
use nix::unistd;

use crate::harmless::Painted;
use crate::outcome;

/// To the alternate screen, without a cursor, and lines that are too long are cut.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
/// The same undone.
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/// To the upper left corner.
const CORNER: &str = "\x1b[H";
/// Clears the rest of a line.
const CLEAR_LINE: &str = "\x1b[K";
/// To the beginning of the next line.
const NEXT_LINE: &str = "\r\n";
/// Clears everything below.
const CLEAR_BELOW: &str = "\x1b[J";

/// What happens to a screen that would otherwise happen to the process.
const SIGNALS: [Signal; 7] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGTSTP,
    Signal::SIGCONT,
    Signal::SIGWINCH,
];

/// How much there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Characters in a line.
    pub width: usize,
    /// Lines.
    pub height: usize,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// There is something to be read where it was waited for.
    News,
    /// The screen is to be drawn again: its size may have changed.
    Stale,
    /// Somebody wants it to end.
    End,
}

/// Standard output as a screen, until this is dropped. Signals that would end the process meanwhile are events.
pub struct Screen {
    signals: SignalFd,
    /// The signals that were blocked before.
    blocked: SigSet,
    /// How standard input was; None: it is no terminal, and nobody can press a key.
    keyboard: Option<Termios>,
}

impl Screen {
    /// Takes the terminal over. Only threads that are started after that leave the signals to it.
    pub fn open() -> Result<Screen> {
        let set: SigSet = SIGNALS.into_iter().collect();
        let blocked = set.thread_swap_mask(SigmaskHow::SIG_BLOCK).context("cannot hold signals back")?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC).context("cannot listen for signals")?;
        let mut screen = Screen { signals, blocked, keyboard: None };
        screen.enter()?;
        Ok(screen)
    }

    /// How much there is room for now.
    pub fn size(&self) -> Size {
        // A terminal that was not told, such as a serial line, says 0.
        let told = rustix::termios::tcgetwinsize(io::stdout()).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
        told.map_or(Size { width: 80, height: 24 }, |size| Size {
            width: size.ws_col.into(),
            height: size.ws_row.into(),
        })
    }

    /// Draws these lines over what is there, in one write.
    pub fn draw(&self, lines: &[Painted]) -> Result<()> {
        let mut screen = painted(CORNER);
        for (at, line) in lines.iter().enumerate() {
            if at > 0 {
                screen.paint(NEXT_LINE);
            }
            screen.append(line);
            screen.paint(CLEAR_LINE);
        }
        screen.paint(CLEAR_BELOW);
        outcome::print_painted(&screen)
    }

    /// Waits until something happens, or there is something to be read from `news`.
    pub fn wait(&mut self, news: &impl AsFd) -> Result<Event> {
        loop {
            let stdin = io::stdin();
            let mut asked = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            asked.push(PollFd::new(news.as_fd(), PollFlags::POLLIN));
            if self.keyboard.is_some() {
                asked.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
            }
            match poll(&mut asked, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                polled => polled.context("cannot wait for the terminal")?,
            };
            let happened: Vec<bool> = asked.iter().map(|one| one.any().unwrap_or(false)).collect();
            if happened.first() == Some(&true) {
                return self.on_signal();
            }
            if happened.get(2) == Some(&true) && is_end(&stdin) {
                return Ok(Event::End);
            }
            if happened.get(1) == Some(&true) {
                return Ok(Event::News);
            }
        }
    }

    fn on_signal(&mut self) -> Result<Event> {
        let signal = self.signals.read_signal().context("cannot read a signal")?;
        let number = signal.map_or(0, |signal| signal.ssi_signo.cast_signed());
        match Signal::try_from(number) {
            Ok(Signal::SIGTSTP) => self.stop().map(|()| Event::Stale),
            // Whoever let it go on, a shell say, may have changed the terminal.
            Ok(Signal::SIGCONT) => self.take_keys().map(|()| Event::Stale),
            Ok(Signal::SIGWINCH) => Ok(Event::Stale),
            _ => Ok(Event::End),
        }
    }

    /// Stops the process as Ctrl-Z does. Where nobody could let it go on, the kernel does not stop it.
    fn stop(&mut self) -> Result<()> {
        self.leave();
        self.keyboard = None;
        let stop = SigSet::from(Signal::SIGTSTP);
        raise(Signal::SIGTSTP).and_then(|()| stop.thread_unblock()).context("cannot stop")?;
        stop.thread_block().context("cannot hold signals back")?;
        self.enter()
    }

    fn enter(&mut self) -> Result<()> {
        self.take_keys()?;
        outcome::print_painted(&painted(ENTER))
    }

    /// Has keys come one by one and unseen. Those that send a signal go on doing so, and none holds output back.
    fn take_keys(&mut self) -> Result<()> {
        let cannot = "cannot set the terminal up";
        let stdin = io::stdin();
        if stdin.is_terminal() {
            let before = match self.keyboard.take() {
                Some(before) => before,
                None => tcgetattr(&stdin).context(cannot)?,
            };
            let mut keys = before.clone();
            self.keyboard = Some(before);
            keys.local_flags -= LocalFlags::ICANON | LocalFlags::ECHO;
            keys.input_flags -= InputFlags::IXON;
            for (index, value) in [(SpecialCharacterIndices::VMIN, 1), (SpecialCharacterIndices::VTIME, 0)] {
                keys.control_chars.get_mut(index as usize).into_iter().for_each(|key| *key = value);
            }
            tcsetattr(&stdin, SetArg::TCSANOW, &keys).context(cannot)?;
        }
        Ok(())
    }

    /// Gives the terminal back. One that has gone needs nothing.
    fn leave(&self) {
        let _ = outcome::print_painted(&painted(LEAVE));
        if let Some(before) = &self.keyboard {
            let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, before);
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.leave();
        let _ = self.blocked.thread_set_mask();
    }
}

fn painted(sequence: &'static str) -> Painted {
    let mut painted = Painted::new(true);
    painted.paint(sequence);
    painted
}

/// Reads the keys that were pressed: whether one of them is `q`, or the terminal has gone.
fn is_end(stdin: &io::Stdin) -> bool {
    let mut keys = [0; 64];
    match unistd::read(stdin, &mut keys) {
        Ok(0) => true,
        Ok(count) => keys.iter().take(count).any(|key| b"qQ".contains(key)),
        Err(error) => !matches!(error, Errno::EINTR | Errno::EAGAIN),
    }
}

/// Whether the terminal shows more than ASCII, as the locale of the environment says.
pub fn shows_unicode() -> bool {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default().to_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}
