//! Which lines of the logs are wanted, merged in the order of their times, and as they are to be printed: what the instances
//! print, what builds do, and what the tools say that change something.

mod build;
mod look;
mod name;

use std::time::{Duration, SystemTime};

use anyhow::Result;
use clap::Args;
use regex::Regex;

use crate::app::{App, Instance, ReleaseId};
use crate::harmless::Painted;
use crate::logfile::{self, Backwards, Choice, Line};
use crate::runner::Tail;

use look::Look;
use name::Name;

/// How many lines are printed when nobody says how many.
const USUAL: usize = 200;

/// What is to be printed of which log.
#[derive(Args)]
pub struct Wanted {
    /// The instance, or a program of it, such as A.1 or A.mail [default: both instances]
    #[arg(conflicts_with_all = ["build", "deploys"])]
    instance: Option<String>,
    /// Print what the build of this release has printed [default: of the newest one]
    #[arg(long, value_name = "RELEASE", num_args = 0..=1, conflicts_with_all = ["deploys", "since", "timestamps"])]
    build: Option<Option<ReleaseId>>,
    /// Print what the tools have said that change something: deploy, rollback and the others
    #[arg(long)]
    deploys: bool,
    /// Go on printing what is appended, across rotations and deploys
    #[arg(short, long)]
    follow: bool,
    /// Begin this many lines before the end [default: 200; of a build, or since a time, all]
    #[arg(short = 'n', long, value_name = "COUNT")]
    lines: Option<usize>,
    /// Begin at a time, such as 2026-11-21T09:30:00Z, or so long ago, such as 10m
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<SystemTime>,
    /// Print only lines in which this regular expression finds something; -n counts those
    #[arg(long, value_name = "REGEX", value_parser = pattern)]
    grep: Option<Regex>,
    /// Print in front of each line when it was printed
    #[arg(short, long)]
    timestamps: bool,
}

/// Logs that are followed.
pub struct Following {
    logs: Vec<(Log, Follower)>,
    look: Look,
}

/// One log, and what is wanted of it.
struct Log {
    what: What,
    name: Option<Name>,
    choice: Choice,
}

enum What {
    Instance(Instance),
    /// None: the newest build.
    Build(Option<ReleaseId>),
    Deploys,
}

enum Follower {
    Instance(Tail),
    Build(Box<build::Follower>),
    Deploys(logfile::Follower),
}

impl Wanted {
    /// What is to be printed of what there is; and what follows it, where that is wanted.
    pub fn begin(&self, app: &App) -> Result<(Painted, Option<Following>)> {
        let look = Look::of_stdout(self.timestamps || self.deploys);
        let logs = self.logs(app)?;
        let (mut lines, mut followers) = (Vec::new(), Vec::new());
        for log in &logs {
            let (known, follower) = if self.follow { log.follow(app)? } else { (log.lines(app)?, None) };
            lines.push(known);
            followers.extend(follower);
        }
        let mut lines = merged(lines);
        lines.drain(..lines.len().saturating_sub(self.most().unwrap_or(usize::MAX)));
        let text = text(&lines, &look, |log| logs.get(log)?.name.as_ref());
        let following = Following { logs: logs.into_iter().zip(followers).collect(), look };
        Ok((text, self.follow.then_some(following)))
    }

    fn most(&self) -> Option<usize> {
        self.lines.or_else(|| (self.since.is_none() && self.build.is_none()).then_some(USUAL))
    }

    fn logs(&self, app: &App) -> Result<Vec<Log>> {
        let choice = Choice { most: self.most(), since: self.since, pattern: self.grep.clone(), ..Choice::default() };
        if let Some(release) = &self.build {
            return Ok(vec![Log { what: What::Build(release.clone()), name: None, choice }]);
        }
        if self.deploys {
            return Ok(vec![Log { what: What::Deploys, name: None, choice }]);
        }
        let named = match &self.instance {
            Some(argument) => vec![Name::meant_by(app, argument)?],
            None => app.config.instances.iter().map(|instance| Name::of_one_of_both(app, instance)).collect(),
        };
        let log = |name: Name| Log {
            what: What::Instance(name.instance().clone()),
            choice: Choice { program: name.program().cloned(), ..choice.clone() },
            name: Some(name),
        };
        Ok(named.into_iter().map(log).collect())
    }
}

impl Log {
    /// The wanted lines that there are.
    fn lines(&self, app: &App) -> Result<Vec<Line>> {
        match &self.what {
            What::Instance(instance) => Tail::lines(app, instance, &self.choice),
            What::Build(release) => build::lines(app, release.as_ref(), &self.choice),
            What::Deploys => self.choice.of_newest_first(said(Backwards::of(&app.deploy_log())?)),
        }
    }

    /// The same, and what follows them.
    fn follow(&self, app: &App) -> Result<(Vec<Line>, Option<Follower>)> {
        let (lines, follower) = match &self.what {
            What::Instance(instance) => {
                let (lines, tail) = Tail::of(app, instance, &self.choice)?;
                (lines, Follower::Instance(tail))
            }
            What::Build(release) => {
                let (lines, follower) = build::Follower::of(app, release.as_ref(), &self.choice)?;
                (lines, Follower::Build(Box::new(follower)))
            }
            What::Deploys => {
                let (lines, follower) = logfile::Follower::of(&app.deploy_log())?;
                (self.choice.of_newest_first(said(lines))?, Follower::Deploys(follower))
            }
        };
        Ok((lines, Some(follower)))
    }
}

impl Follower {
    fn new_lines(&mut self) -> Result<Vec<Line>> {
        match self {
            Follower::Instance(tail) => tail.new_lines(),
            Follower::Build(follower) => follower.new_lines(),
            Follower::Deploys(follower) => Ok(follower.new_lines()?.iter().map(|line| as_said(line)).collect()),
        }
    }
}

impl Following {
    /// What is to be printed of what has come since the last call.
    pub fn new_text(&mut self) -> Result<Painted> {
        let mut new = Vec::new();
        for (log, follower) in &mut self.logs {
            let mut lines = follower.new_lines()?;
            lines.retain(|line| log.choice.fits(line));
            new.push(lines);
        }
        Ok(text(&merged(new), &self.look, |log| self.logs.get(log)?.0.name.as_ref()))
    }
}

/// Lines of the deploys' log, as people read them.
fn said(lines: Backwards) -> impl Iterator<Item = Result<Line>> {
    lines.map(|line| line.map(|line| as_said(&line)))
}

/// Who has said it is part of what a tool says.
fn as_said(line: &str) -> Line {
    let line = Line::parse(line);
    match line.source.is_empty() {
        true => line,
        false => Line { at: line.at, text: format!("{}: {}", line.source, line.text), source: String::new() },
    }
}

/// The lines of several logs in the order of their times, each with the place of its log. Those of one log keep their order,
/// and one without a time stays behind the one before it.
fn merged(logs: Vec<Vec<Line>>) -> Vec<(usize, Line)> {
    let mut dated = Vec::new();
    for (log, lines) in logs.into_iter().enumerate() {
        let mut reached = None;
        for line in lines {
            reached = line.at.max(reached);
            dated.push((reached, log, line));
        }
    }
    dated.sort_by_key(|(at, ..)| *at);
    dated.into_iter().map(|(_, log, line)| (log, line)).collect()
}

fn text<'a>(lines: &[(usize, Line)], look: &Look, name: impl Fn(usize) -> Option<&'a Name>) -> Painted {
    let mut text = look.nothing();
    for (log, line) in lines {
        look.add(&mut text, name(*log).and_then(|name| name.label(line)).as_ref(), line);
    }
    text
}

/// A duration that has passed since, or a time.
fn moment(text: &str) -> Result<SystemTime, String> {
    let ago = humantime::parse_duration(text).ok().and_then(|ago| SystemTime::now().checked_sub(ago));
    let at = ago.or_else(|| time(text)).map(|at| at.max(SystemTime::UNIX_EPOCH));
    at.ok_or_else(|| "expected a time such as 2026-11-21T09:30:00Z, or 10m".to_owned())
}

/// A time as RFC 3339 writes it; without an offset, in UTC.
fn time(text: &str) -> Option<SystemTime> {
    let date = "2026-11-21".len();
    let sign = text.rfind(['+', '-']).filter(|at| *at > date);
    let Some((local, zone)) = sign.and_then(|at| text.split_at_checked(at)) else {
        return humantime::parse_rfc3339_weak(text).ok();
    };
    let local = humantime::parse_rfc3339_weak(local).ok()?;
    let (hours, minutes) = zone.strip_prefix(['+', '-'])?.split_once(':')?;
    let number = |digits: &str| digits.parse::<u8>().ok().map(u64::from);
    let offset = Duration::from_secs(60 * (60 * number(hours)? + number(minutes)?));
    if zone.starts_with('+') { local.checked_sub(offset) } else { local.checked_add(offset) }
}

/// A regular expression, or what is wrong with it in one line.
fn pattern(text: &str) -> Result<Regex, String> {
    Regex::new(text).map_err(|error| {
        let said = error.to_string();
        said.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_line_without_a_time_keeps_its_place() {
        let line = |text: &str| Line {
            at: text.parse().ok().map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds)),
            source: String::new(),
            text: text.to_owned(),
        };
        let logs =
            [&["begins", "2", "2 goes on", "5", "4 for the clock was set back"][..], &["1", "1 goes on", "2", "3"]];
        let merged = merged(logs.iter().map(|lines| lines.iter().map(|text| line(text)).collect()).collect());
        let texts: Vec<&str> = merged.iter().map(|(_, line)| line.text.as_str()).collect();
        let expected = ["begins", "1", "1 goes on", "2", "2 goes on", "2", "3", "5", "4 for the clock was set back"];
        assert_eq!(texts, expected);
        assert_eq!(merged.iter().map(|(log, _)| *log).collect::<Vec<_>>(), [0, 1, 1, 0, 0, 1, 1, 0, 0]);
    }

    #[test]
    fn times_are_understood_in_any_zone() {
        let at = humantime::parse_rfc3339("2026-11-21T09:30:00Z").unwrap();
        for text in [
            "2026-11-21T09:30:00Z",
            "2026-11-21T09:30:00",
            "2026-11-21 09:30:00",
            "2026-11-21T09:30:00.000Z",
            "2026-11-21T18:30:00+09:00",
            "2026-11-21T07:00:00-02:30",
        ] {
            assert_eq!(moment(text), Ok(at), "{text}");
        }
        for text in ["", "soon", "2026-11-21", "10", "2026-11-21T09:30:00+9", "2026-11-21T09:30:00+999:00", "09:30-1:0"]
        {
            assert!(moment(text).is_err(), "{text}");
        }
        let ago = SystemTime::now().duration_since(moment("1h 30m").unwrap()).unwrap();
        assert!(ago.as_secs().abs_diff(5400) < 10, "{ago:?}");
        // No log goes back that far.
        assert_eq!(moment("60y"), Ok(UNIX_EPOCH));
    }
}
