//! Where supervise puts what the app prints, and what it has to say itself. All that programs print passes through supervise,
//! which remembers the last lines of each one's present life: they are the reason when it dies.

mod recent;
mod stream;

use std::fmt::Display;
use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::Stdio;

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::PollFlags;

use crate::app::{App, Instance, Member, Runner};
use crate::logfile::{Line, OWN, Writer};

use recent::Recent;
use stream::Stream;

/// How supervise's own lines begin in the journal.
pub const PREFIX: &str = "supervise: ";
/// A line that is longer goes into the log in parts of this length, in bytes.
const LONGEST_LINE: usize = 16 * 1024;
/// How much a pipe holds, in bytes, as far as pipe(7) lets any user have: a program may print more at once than is read meanwhile
/// and end. Node drops of its own last words what does not fit, and prints the line of the source first, which is all of a
/// bundle.
const ROOM: i32 = 1 << 20;
/// So many reads, so that an app which never stops writing cannot keep supervise from its other work.
const READS_AT_ONCE: usize = 512;

/// Where the programs' output goes, and what supervise has to say.
pub struct Output {
    /// What programs write to.
    pipes: Vec<Pipe>,
    sink: Sink,
    /// Whether supervise's own lines name the program that they are about.
    has_several: bool,
}

enum Sink {
    /// The log, each line with its time and source.
    Log(Writer),
    /// supervise's own standard output, which is the journal's under systemd. Of several programs, each has a stream of
    /// its own, which the journal calls by this and the program's name.
    Journal { own: Stream, identifier: String },
}

/// What a program writes to.
struct Pipe {
    source: String,
    output: PipeReader,
    app_end: PipeWriter,
    /// The beginning of a line that is not whole yet, on its way into the log.
    begun: Vec<u8>,
    /// To the journal; None: it takes supervise's own way.
    stream: Option<Stream>,
    recent: Recent,
}

impl Output {
    /// Where the runner wants an instance's output.
    pub fn of(app: &App, instance: &Instance, has_several: bool) -> Result<Output> {
        let sink = match app.runner() {
            Runner::Systemd => {
                Sink::Journal { own: Stream::of_standard_output()?, identifier: app.journal_identifier(instance) }
            }
            Runner::Direct | Runner::Compose => Sink::Log(Writer::open(&app.instance_log(instance))?),
        };
        Ok(Output { pipes: Vec::new(), sink, has_several })
    }

    /// What tells that a program has written something or, where the journal is behind, that it takes more.
    pub fn pending(&self) -> impl Iterator<Item = (BorrowedFd<'_>, PollFlags)> {
        let own = match &self.sink {
            Sink::Journal { own, .. } => Some(own),
            Sink::Log(_) => None,
        };
        let blocked = |stream: &Stream| stream.is_behind();
        let own_is_behind = own.filter(|own| blocked(own)).map(|own| (own.as_fd(), PollFlags::POLLOUT));
        let pipes = self.pipes.iter().filter_map(move |pipe| match pipe.stream.as_ref().or(own) {
            Some(stream) if !blocked(stream) => Some((pipe.output.as_fd(), PollFlags::POLLIN)),
            Some(_) => pipe.stream.as_ref().map(|stream| (stream.as_fd(), PollFlags::POLLOUT)),
            None => Some((pipe.output.as_fd(), PollFlags::POLLIN)),
        });
        pipes.chain(own_is_behind)
    }

    /// The ends that a program writes to, its output and its errors. A new life of it begins.
    pub fn ends(&mut self, who: &Member) -> Result<(Stdio, Stdio)> {
        let source = who.to_string();
        if !self.pipes.iter().any(|pipe| pipe.source == source) {
            let stream = match &self.sink {
                Sink::Journal { identifier, .. } if self.has_several => {
                    Some(Stream::of_journal(&format!("{identifier}.{source}"))?)
                }
                _ => None,
            };
            self.pipes.push(Pipe::new(source.clone(), stream)?);
        }
        let pipe = self.pipes.iter_mut().find(|pipe| pipe.source == source);
        let pipe = pipe.context("cannot find a pipe that was just made")?;
        pipe.recent = Recent::default();
        let end = &pipe.app_end;
        Ok((end.try_clone()?.into(), end.try_clone()?.into()))
    }

    /// Moves what programs have written to where it belongs.
    pub fn copy(&mut self) {
        let Output { pipes, sink, .. } = self;
        pipes.iter_mut().for_each(|pipe| pipe.copy(sink, false));
        if let Sink::Journal { own, .. } = sink {
            own.send();
        }
    }

    /// The last lines that a program which has ended printed in its life, as an error quotes them.
    pub fn last_words(&mut self, who: &Member) -> String {
        let Output { pipes, sink, .. } = self;
        let Some(pipe) = pipes.iter_mut().find(|pipe| pipe.source == who.to_string()) else { return String::new() };
        // Also where the journal is behind: a dead program writes no more than its pipe holds.
        pipe.copy(sink, true);
        pipe.recent.quote()
    }

    /// Says something in a line of its own.
    pub fn say(&mut self, text: impl Display) {
        match &mut self.sink {
            Sink::Log(log) => {
                let mut line = Vec::new();
                Line::write(&mut line, OWN, text.to_string().as_bytes());
                log.append(&line);
            }
            Sink::Journal { own, .. } => own.put_line(&format!("{PREFIX}{text}")),
        }
    }

    /// Says something about a program; which it is goes without saying where there is one.
    pub fn say_of(&mut self, who: &Member, text: impl Display) {
        if let Sink::Log(log) = &mut self.sink
            && let Some(pipe) = self.pipes.iter_mut().find(|pipe| pipe.source == who.to_string())
        {
            let mut rest = Vec::new();
            pipe.end_line(&mut rest);
            log.append(&rest);
        }
        match self.has_several {
            true => self.say(format_args!("{who}: {text}")),
            false => self.say(text),
        }
    }

    /// Moves what is left, for supervise is about to end. A journal that does not take it is not waited for long.
    pub fn finish(&mut self) {
        self.copy();
        let own = match &mut self.sink {
            Sink::Journal { own, .. } => Some(own),
            Sink::Log(_) => None,
        };
        self.pipes.iter_mut().filter_map(|pipe| pipe.stream.as_mut()).chain(own).for_each(Stream::finish);
    }
}

impl Pipe {
    fn new(source: String, stream: Option<Stream>) -> Result<Pipe> {
        let (output, app_end) = io::pipe().context("cannot make a pipe")?;
        fcntl(&output, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("cannot set up a pipe")?;
        // A user who has many pipes already gets a small one.
        let _ = fcntl(&output, FcntlArg::F_SETPIPE_SZ(ROOM));
        Ok(Pipe { source, output, app_end, begun: Vec::new(), stream, recent: Recent::default() })
    }

    /// Reads what is there. Where the journal is behind, the program waits as if it wrote to the journal itself, unless all
    /// of it is wanted.
    fn copy(&mut self, sink: &mut Sink, all: bool) {
        let (mut chunk, mut lines) = ([0; 8 * 1024], Vec::new());
        for _ in 0..READS_AT_ONCE {
            if let Sink::Journal { own, .. } = sink {
                let stream = self.stream.as_mut().unwrap_or(own);
                stream.send();
                if stream.is_behind() && !all {
                    return;
                }
            }
            let Ok(count @ 1..) = self.output.read(&mut chunk) else { return };
            let bytes = chunk.get(..count).unwrap_or_default();
            self.recent.add(bytes);
            match sink {
                Sink::Log(log) => {
                    self.add(bytes, &mut lines);
                    log.append(&lines);
                    lines.clear();
                }
                Sink::Journal { own, .. } => self.stream.as_mut().unwrap_or(own).put(bytes),
            }
        }
    }

    /// Adds what was read; lines that are whole by now go behind `lines`.
    fn add(&mut self, bytes: &[u8], lines: &mut Vec<u8>) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.begun.extend_from_slice(part);
            if self.begun.ends_with(b"\n") || self.begun.len() >= LONGEST_LINE {
                self.end_line(lines);
            }
        }
    }

    fn end_line(&mut self, lines: &mut Vec<u8>) {
        if self.begun.is_empty() {
            return;
        }
        let text = self.begun.strip_suffix(b"\n").unwrap_or(&self.begun);
        Line::write(lines, &self.source, text);
        self.begun.clear();
    }
}
