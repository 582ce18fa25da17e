//! Replacing a process that holds more memory than it may, without losing a request: another one is started in the slot that
//! is free, gets the traffic as soon as it is healthy, and the old one ends when its requests have.
//!
//! nginx knows of the free slot by a mark in the state directory, as it knows of the enabled instance: see `nginx`.

use std::io::{PipeReader, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, socket};

use super::kept::{Kept, Now};
use super::{CHECK, answer_of, answers_at, holds_too_much, is_listener_within, memory};
use crate::app::{App, Instance, Member, Port};
use crate::health;
use crate::nginx;
use crate::process::{self, End, Pid};
use crate::runner::output::Output;

/// How often it is looked how much memory is held, and how many requests are left.
const LOOK: Duration = Duration::from_millis(500);
/// After one that failed, another replacement is not tried before this has passed.
const AFTER_FAILURE: Duration = Duration::from_secs(60);

/// What is being replaced, if anything.
pub struct Replacement {
    /// Whether anything has a limit.
    is_wanted: bool,
    next_look: Instant,
    /// From which program on it is looked: each has its turn, also behind one that cannot be replaced.
    first: usize,
    now: Phase,
    /// Whether it was said that the port of the free slot cannot be held.
    has_complained: bool,
    /// The port of the slot that is free, for as long as it is: nginx would ask whoever listened there.
    held: Option<OwnedFd>,
}

/// How far a replacement has come. Old and new are of one index in different slots.
enum Phase {
    /// There is none.
    None,
    /// The process that is to take over was started in this slot.
    Starting { old: Member, new: Member, healthy: PipeReader },
    /// It has taken over; the requests of the old one may finish until then.
    Draining { old: Member, until: Instant },
}

impl Replacement {
    /// Nothing is replaced yet.
    pub fn new(app: &App) -> Replacement {
        let of_workers = app.config.workers.iter().filter_map(|worker| worker.max_memory);
        let is_wanted = app.config.run.max_memory.into_iter().chain(of_workers).next().is_some();
        Replacement {
            is_wanted,
            next_look: Instant::now() + LOOK,
            first: 0,
            now: Phase::None,
            has_complained: false,
            held: None,
        }
    }

    /// Takes the port of the free slot, without listening, so that nobody else can. Where somebody has it, that is said once: no
    /// instance is healthy beside a stranger.
    pub fn hold(&mut self, app: &App, instance: &Instance, members: &[Kept], output: &mut Output) {
        if self.held.is_some() || app.config.slots() == app.config.processes() {
            return;
        }
        let port = free_slot(app, members).and_then(|slot| instance.port_of(slot));
        match port.map(|port| (port, bound(port))) {
            Some((_, Ok(socket))) => self.held = Some(socket),
            Some((port, Err(error))) if !self.has_complained => {
                self.has_complained = true;
                output.say(format_args!("cannot hold port {port}, by which processes are replaced: {error}"));
            }
            _ => {}
        }
    }

    /// How long until the next look; None: there is nothing to look at.
    pub fn pause(&self, members: &[Kept]) -> Option<Duration> {
        let is_idle = members.iter().all(|member| !matches!(member.now, Now::Running { .. }));
        let has_none = !self.is_wanted || is_idle && matches!(self.now, Phase::None);
        (!has_none).then(|| self.next_look.saturating_duration_since(Instant::now()))
    }

    /// Takes the next step, if it is time for one. One that cannot be taken is no reason to end what serves.
    pub fn step(&mut self, app: &App, instance: &Instance, members: &mut Vec<Kept>, output: &mut Output) {
        if !self.is_wanted || Instant::now() < self.next_look {
            return;
        }
        self.next_look = Instant::now() + LOOK;
        self.now = match std::mem::replace(&mut self.now, Phase::None) {
            Phase::None => {
                self.hold(app, instance, members, output);
                self.begin(app, instance, members, output)
            }
            Phase::Starting { old, new, healthy } => {
                self.take_over(app, instance, (old, new, healthy), members, output)
            }
            Phase::Draining { old, until } => drain(app, instance, old, until, members),
        };
    }

    /// Starts another process for one that holds too much. A worker that does ends and is started again.
    fn begin(&mut self, app: &App, instance: &Instance, members: &mut Vec<Kept>, output: &mut Output) -> Phase {
        let too_much = |at: usize| {
            let member = members.get(at)?;
            let (Now::Running { leash, .. }, Some(limit)) = (member.now, limit_of(app, &member.who)) else {
                return None;
            };
            let held = memory(leash);
            (held > limit).then(|| holds_too_much(held, limit))
        };
        let count = members.len();
        let mut turns = (0..count).map(|step| (self.first + step) % count);
        let Some((at, reason)) = turns.find_map(|at| Some((at, too_much(at)?))) else { return Phase::None };
        self.first = at + 1;
        let Some(member) = members.get_mut(at) else { return Phase::None };
        let old = member.who.clone();
        let Member::Process { index, .. } = old else {
            member.record(reason, output);
            member.end(app, true);
            return Phase::None;
        };

        let Some(slot) = free_slot(app, members) else { return Phase::None };
        output.say_of(&old, format_args!("{reason}: another takes its place"));
        let new = Member::Process { index, slot };
        let Some(member) = members.get(at) else { return Phase::None };
        let mut starting = Kept::in_place_of(member, new.clone(), reason);
        let is_known = nginx::check_free_slots(app);
        // The new process binds it next.
        self.held = None;
        let begun = is_known
            .and_then(|()| starting.start(app, instance, output))
            .and_then(|()| healthy_soon(app, &starting, instance));
        let phase = match begun {
            Ok(healthy) => Phase::Starting { old, new, healthy },
            Err(error) => {
                output.say_of(&old, format_args!("cannot replace it: {error:#}"));
                self.next_look = Instant::now() + AFTER_FAILURE;
                starting.end(app, false);
                Phase::None
            }
        };
        members.push(starting);
        phase
    }

    /// Gives the new process the traffic when it is healthy; ends it when it does not become so.
    fn take_over(
        &mut self,
        app: &App,
        instance: &Instance,
        (old, new, mut healthy): (Member, Member, PipeReader),
        members: &mut [Kept],
        output: &mut Output,
    ) -> Phase {
        let is_running =
            |who: &Member| members.iter().any(|member| member.who == *who && matches!(member.now, Now::Running { .. }));
        let mut said = [0];
        let is_healthy = match healthy.read(&mut said) {
            Ok(1) => said[0] == 1,
            // Neither yes nor no so far.
            Err(_) if is_running(&new) => return Phase::Starting { old, new, healthy },
            _ => false,
        };
        let (Member::Process { slot: freed, .. }, Member::Process { slot: taken, .. }) = (&old, &new) else {
            return Phase::None;
        };
        let trouble = match is_healthy {
            true => nginx::tell_free_slot(app, instance, *freed).err().map(|error| format!("{error:#}")),
            false => Some("the one that was to take its place is not healthy".to_owned()),
        };
        if let Some(trouble) = trouble {
            output.say_of(&old, format_args!("cannot replace it: {trouble}"));
            // Nothing may send requests to what is about to end.
            let _ = nginx::tell_free_slot(app, instance, *taken);
            members.iter_mut().filter(|member| member.who == new).for_each(|member| member.end(app, false));
            self.next_look = Instant::now() + AFTER_FAILURE;
            return Phase::None;
        }
        for member in members.iter_mut() {
            member.is_told = if member.who == old { false } else { member.is_told || member.who == new };
        }
        Phase::Draining { old, until: Instant::now() + app.config.deploy.drain_timeout }
    }
}

/// The slot in which there is no process; None: there is one in each.
fn free_slot(app: &App, members: &[Kept]) -> Option<usize> {
    let taken = |slot: &usize| {
        members.iter().any(|member| matches!(member.who, Member::Process { slot: other, .. } if other == *slot))
    };
    (0..app.config.slots()).find(|slot| !taken(slot))
}

/// A socket that has a port of the loopback address, and on which nobody is answered: whoever calls is refused at once.
fn bound(port: Port) -> nix::Result<OwnedFd> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, port.number()))?;
    Ok(socket)
}

/// How much a program may hold, in bytes; None: as much as it likes.
fn limit_of(app: &App, who: &Member) -> Option<u64> {
    match who {
        Member::Process { .. } => app.config.run.max_memory,
        Member::Worker { name, .. } => app.config.workers.iter().find(|worker| worker.name == *name)?.max_memory,
    }
}

/// Ends the old process when no connection to it is left, or it is time.
fn drain(app: &App, instance: &Instance, old: Member, until: Instant, members: &mut [Kept]) -> Phase {
    let Some(member) = members.iter_mut().find(|member| member.who == old) else { return Phase::None };
    let is_idle = |port: Port| process::connections(port.number(), End::Server).is_ok_and(|left| left == 0);
    if !member.is_ending() && (member.port(instance).is_none_or(is_idle) || Instant::now() >= until) {
        member.end(app, false);
    }
    Phase::Draining { old, until }
}

/// Says on a pipe whether a process has become healthy.
fn healthy_soon(app: &App, member: &Kept, instance: &Instance) -> Result<PipeReader> {
    let port = member.port(instance).context("cannot tell where it listens")?;
    let (app, began) = (app.clone(), Instant::now());
    let healthy = answer_of(move || {
        loop {
            if answers_at(&app, port, CHECK).is_ok() && is_listener_within(&app, port, Pid::own()).is_ok() {
                return [1];
            }
            if began.elapsed() >= app.config.health.timeout {
                return [0];
            }
            std::thread::sleep(health::pause(began.elapsed()));
        }
    });
    healthy.context("cannot wait until it is healthy")
}
