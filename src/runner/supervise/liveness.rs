//! Ending and starting a process that runs and has not been healthy for too long: a hang is an outage that no exit tells of.
//!
//! Each process is asked as a deploy asks it. What is wrong with both instances is wrong with what they need, such as a database,
//! and no start mends it.

use std::io::{ErrorKind, PipeReader, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::kept::{Kept, Now};
use super::{CHECK, answer_of, answers_at};
use crate::app::{App, Instance, Member};
use crate::output::span;
use crate::runner::output::Output;
use crate::runner::{runs, watch};

/// How often a process is asked that is well.
const LOOK: Duration = Duration::from_secs(5);
/// How often one is asked that is not.
const LOOK_AT_ILL: Duration = Duration::from_secs(1);
/// How many answers must be wrong, or missing, in a row.
const LEAST_FAILURES: u32 = 2;
/// How long a process that hangs may take to end; then it is killed.
const LET_END: Duration = Duration::from_secs(1);
/// The longest time between two restarts of one process; it doubles from one to the next.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);
/// How the reason begins of a process that listens no more, or not yet.
const REFUSED: &str = "connection refused";

/// How it begins of one that does not answer.
const UNANSWERED: &str = "no answer";

/// What is known of the health of all processes.
pub struct Liveness {
    app: Arc<App>,
    watched: Vec<Watched>,
}

/// A process, over all its lives.
struct Watched {
    who: Member,
    /// When its present life began; None: it is down, or about to end.
    since: Option<Instant>,
    /// When it was last healthy in this life; None: not yet.
    well_at: Option<Instant>,
    /// How often it was not since.
    failures: u32,
    /// What was wrong last, and when that was asked.
    seen: String,
    seen_at: Instant,
    /// What is being asked of it, and of the other instance.
    own: Option<Question>,
    others: Option<Question>,
    /// When it, and the other instance, is asked next.
    next: Instant,
    next_of_other: Instant,
    /// When another process, or the other instance, was first seen well while this one was not; None: not yet.
    well_elsewhere_at: Option<Instant>,
    /// Until when it has time to become well again that was ended for its health; None: it was not, or is well.
    recovers_until: Option<Instant>,
    /// When it may be ended for that again, and how long the next time is from there.
    not_before: Option<Instant>,
    pause: Option<Duration>,
    /// Whether it was said that it is not restarted.
    has_said: bool,
}

/// A question that a thread asks, whose answer comes on a pipe; empty: all is well.
struct Question {
    asked_at: Instant,
    answer: PipeReader,
    text: Vec<u8>,
}

impl Liveness {
    /// Nothing is known yet.
    pub fn new(app: &App) -> Liveness {
        Liveness { app: Arc::new(app.clone()), watched: Vec::new() }
    }

    /// Where answers come.
    pub fn pending(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let questions = self.watched.iter().flat_map(|watched| watched.own.iter().chain(&watched.others));
        questions.map(|question| question.answer.as_fd())
    }

    /// How long until there is something to ask or to do; None: until an answer comes, or something else happens.
    pub fn pause(&self) -> Option<Duration> {
        let patience = self.app.config.health.restart_after?;
        let moments = self.watched.iter().filter_map(|watched| watched.next_moment(&self.app, patience));
        moments.min().map(|moment| moment.saturating_duration_since(Instant::now()))
    }

    /// Takes the next steps: reads answers, asks, and ends what is to be started again, one process at a time. True: an answer came.
    pub fn step(&mut self, instance: &Instance, members: &mut [Kept], output: &mut Output) -> bool {
        let Some(patience) = self.app.config.health.restart_after else { return false };
        self.follow(members);
        let mut has_heard = false;
        let is_only = self.watched.len() == 1;
        for at in 0..self.watched.len() {
            let is_one_recovering = self.watched.iter().any(Watched::is_recovering);
            // What keeps one process from answering and another not is no matter of what both need.
            let is_one_well = self.watched.iter().enumerate().any(|(of, other)| of != at && other.is_well());
            let Some(watched) = self.watched.get_mut(at) else { break };
            let Some(member) = members.iter_mut().find(|member| member.who == watched.who) else { continue };
            has_heard |= watched.hear(&self.app);
            watched.ask(&self.app, instance, member, patience, is_only);
            let now = Instant::now();
            let due = watched.due(&self.app, patience).filter(|due| *due <= now + lead(patience));
            let Some(due) = due.filter(|_| !is_one_recovering) else {
                (watched.others, watched.well_elsewhere_at) = (None, None);
                watched.next_of_other = if is_one_recovering { now + LOOK_AT_ILL } else { watched.next_of_other };
                continue;
            };
            if is_one_well {
                watched.well_elsewhere_at.get_or_insert(now);
            }
            match watched.look_elsewhere(&self.app, instance) {
                _ if now < due || watched.failures < LEAST_FAILURES => {}
                // What all had may just have ended: it counts what this one is asked after that.
                Some(Ok(well_at)) if watched.seen_at > well_at => watched.restart(&self.app, member, output),
                Some(Err(seen)) if !watched.has_said => {
                    watched.has_said = true;
                    let (own, other) = (&watched.seen, self.app.other(instance));
                    output.say_of(
                        &watched.who,
                        format_args!("not healthy ({own}), and neither is {other} ({seen}): it is not restarted"),
                    );
                }
                _ => {}
            }
        }
        has_heard
    }

    /// Knows the processes that serve, each in its present life.
    fn follow(&mut self, members: &[Kept]) {
        let serve = |member: &&Kept| matches!(member.who, Member::Process { .. }) && member.is_told;
        self.watched.retain(|watched| members.iter().filter(serve).any(|member| member.who == watched.who));
        for member in members.iter().filter(serve) {
            let since = match member.now {
                Now::Running { since, .. } => Some(since),
                Now::Down { .. } | Now::Ending { .. } | Now::Gone => None,
            };
            match self.watched.iter_mut().find(|watched| watched.who == member.who) {
                Some(watched) if watched.since == since => {}
                Some(watched) => watched.begin(since),
                None => self.watched.push(Watched::of(member.who.clone(), since)),
            }
        }
    }
}

impl Watched {
    fn of(who: Member, since: Option<Instant>) -> Watched {
        let now = Instant::now();
        Watched {
            who,
            since,
            well_at: None,
            failures: 0,
            seen: String::new(),
            seen_at: now,
            own: None,
            others: None,
            next: now + LOOK_AT_ILL,
            next_of_other: now,
            well_elsewhere_at: None,
            recovers_until: None,
            not_before: None,
            pause: None,
            has_said: false,
        }
    }

    /// Its life has ended, or another has begun.
    fn begin(&mut self, since: Option<Instant>) {
        let Watched { who, recovers_until, not_before, pause, .. } = self;
        let next = Watched::of(who.clone(), since);
        *self = Watched { recovers_until: *recovers_until, not_before: *not_before, pause: *pause, ..next };
    }

    /// Whether it was ended for its health and may still become well: it does not hold up the others for ever.
    fn is_recovering(&self) -> bool {
        self.recovers_until.is_some_and(|until| Instant::now() < until)
    }

    /// Whether it was healthy when it was asked last.
    fn is_well(&self) -> bool {
        self.since.is_some() && self.well_at.is_some() && self.failures == 0
    }

    /// When it will have been ill for too long; None: it is not ill, or does not run. Before it was healthy for the first time, it
    /// has as long as any start.
    fn due(&self, app: &App, patience: Duration) -> Option<Instant> {
        let ill_since = self.well_at.or(self.since.map(|since| since + app.config.health.timeout))?;
        let due = self.since.and(Some(ill_since + patience)).filter(|_| self.failures > 0);
        due.map(|due| self.not_before.map_or(due, |not_before| not_before.max(due)))
    }

    fn next_moment(&self, app: &App, patience: Duration) -> Option<Instant> {
        let to_ask = self.since.filter(|_| self.own.is_none()).map(|_| self.next);
        let due = self.due(app, patience);
        // What waits, for another process or for the other instance, is looked at again.
        let to_look = due.filter(|_| self.others.is_none() && self.well_elsewhere_at.is_none());
        let to_look = to_look.map(|due| due.checked_sub(lead(patience)).unwrap_or(due).max(self.next_of_other));
        let to_decide = due.filter(|due| *due > Instant::now());
        to_ask.into_iter().chain(to_look).chain(to_decide).min()
    }

    /// Reads the answer to what it was asked. False: it is not there yet.
    fn hear(&mut self, app: &App) -> bool {
        let Some((seen, asked_at)) = answer_to(&mut self.own) else { return false };
        let now = Instant::now();
        let ill = pause_within(LOOK_AT_ILL, app);
        if !seen.is_empty() {
            (self.seen, self.seen_at) = (seen, asked_at);
            (self.failures, self.next) = (self.failures.saturating_add(1), now + ill);
            return true;
        }
        (self.well_at, self.failures, self.next) = (Some(now), 0, now + pause_within(LOOK, app));
        (self.recovers_until, self.has_said) = (None, false);
        (self.others, self.well_elsewhere_at) = (None, None);
        // It has been well for so long that the next time is the first one again.
        let is_well_for = self.since.map(|since| now.saturating_duration_since(since));
        if is_well_for.zip(self.pause).is_some_and(|(time, pause)| time > pause) {
            (self.pause, self.not_before) = (None, None);
        }
        true
    }

    /// Asks it, if it is time. Where nobody could answer in its place, an answer that is late is better than none: it has as long for
    /// one as it may be ill.
    fn ask(&mut self, app: &Arc<App>, instance: &Instance, member: &Kept, patience: Duration, is_only: bool) {
        let now = Instant::now();
        if self.since.is_none() || self.own.is_some() || now < self.next {
            return;
        }
        let Some(port) = member.port(instance) else { return };
        let (app, other, is_ill) = (Arc::clone(app), app.other(instance).clone(), self.failures > 0);
        self.own = Question::ask(move || {
            let is_alone = is_ill && is_only && matches!(runs(&app, &other), Ok(false));
            let patience = if is_alone { patience } else { patience_of_check(patience) };
            answers_at(&app, port, patience).err().unwrap_or_default()
        });
        self.next = now + LOOK_AT_ILL;
    }

    /// When it was first seen that what this one has is not everywhere; Err: what is wrong with the other instance in the same way;
    /// None: that is not known yet.
    fn look_elsewhere(&mut self, app: &Arc<App>, instance: &Instance) -> Option<Result<Instant, String>> {
        if let Some(well_at) = self.well_elsewhere_at {
            return Some(Ok(well_at));
        }
        let now = Instant::now();
        if let Some((seen, _)) = answer_to(&mut self.others) {
            self.next_of_other = now + LOOK;
            self.well_elsewhere_at = seen.is_empty().then_some(now);
            return Some(self.well_elsewhere_at.ok_or(seen));
        }
        if self.others.is_none() && now >= self.next_of_other {
            let (app, instance, refuses) = (Arc::clone(app), instance.clone(), self.seen.contains(REFUSED));
            self.next_of_other = now + LOOK_AT_ILL;
            self.others = Question::ask(move || {
                let other = app.other(&instance);
                match runs(&app, other) {
                    // One that does not listen has just been started, or is down; that is not what this one has.
                    Ok(true) => watch::up(&app, other, CHECK)
                        .err()
                        .filter(|seen| seen.contains(REFUSED) == refuses)
                        .unwrap_or_default(),
                    Ok(false) => String::new(),
                    // As long as that cannot be told, nothing is ended.
                    Err(error) => format!("{error:#}"),
                }
            });
        }
        None
    }

    /// Ends it, to be started again.
    fn restart(&mut self, app: &App, member: &mut Kept, output: &mut Output) {
        let now = Instant::now();
        let ill_since = self.well_at.or(self.since).unwrap_or(now);
        let ill_for = span(now.saturating_duration_since(ill_since));
        member.record(format!("it was not healthy for {ill_for}: {}", self.seen), output);
        // One that still answers something may have requests that it can finish.
        let patience = if self.seen.starts_with(UNANSWERED) { LET_END } else { app.config.run.stop_timeout };
        member.end_within(app, true, patience);
        let pause = self.pause.unwrap_or_else(|| 2 * app.config.health.restart_after.unwrap_or_default());
        (self.not_before, self.pause) = (Some(now + pause), Some((2 * pause).min(LONGEST_PAUSE)));
        self.recovers_until = Some(now + patience + app.config.health.timeout);
    }
}

/// How long one answer may take, where a process is to be ended after so much.
fn patience_of_check(patience: Duration) -> Duration {
    CHECK.min(patience / 3)
}

/// How long before a process is ended it is looked elsewhere: it is asked once more from its beginning to its end in that time.
fn lead(patience: Duration) -> Duration {
    2 * patience_of_check(patience) + LOOK_AT_ILL
}

/// How long to the next question, where a process is to be ended after less.
fn pause_within(usual: Duration, app: &App) -> Duration {
    app.config.health.restart_after.map_or(usual, |patience| usual.min(patience / 4))
}

impl Question {
    /// Has a thread ask; None: there can be no more threads, and it is asked another time.
    fn ask(question: impl FnOnce() -> String + Send + 'static) -> Option<Question> {
        let asked_at = Instant::now();
        answer_of(question).ok().map(|answer| Question { asked_at, answer, text: Vec::new() })
    }
}

/// The answer to a question, which is none any more then, and when it was asked; None: there is no question, or no answer yet.
fn answer_to(asked: &mut Option<Question>) -> Option<(String, Instant)> {
    let question = asked.as_mut()?;
    match question.answer.read_to_end(&mut question.text) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
        _ => {}
    }
    asked.take().map(|question| (String::from_utf8_lossy(&question.text).into_owned(), question.asked_at))
}
