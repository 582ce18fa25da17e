//! The comparison as a Markdown table, and what is promised of cutover in it. Of pm2 nothing is: what it does is told.

use crate::promises::Promises;
use crate::side::Side;
use crate::still::{Looks, Memory};
use crate::timing::ms;

/// The rows so far, the first of which is the heading.
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(sides: &[Side]) -> Table {
        let names = sides.iter().map(|side| side.name.to_owned());
        let heading = ["".to_owned()].into_iter().chain(names).chain(["promised".to_owned()]);
        Table { rows: vec![heading.collect()] }
    }

    /// What clients lost, a cell for each side.
    pub fn losses(&mut self, sides: &[Side], promises: &mut Promises) {
        let ours = &sides[0];
        let none_in = |promises: &mut Promises, what: &str, lost: u64| {
            format!("0: {}", promises.judge(&format!("cutover loses no request {what}"), lost == 0))
        };
        let verdict = none_in(promises, "in a deploy", ours.released.lost());
        self.of_each("a new version: requests lost", sides, |side| side.released.losses(), &verdict);
        self.of_each("the command takes", sides, |side| ms(side.released.took.median()), "");

        let verdict = none_in(promises, "over a broken release", ours.broken.lost());
        self.of_each("a version that exits at its start: requests lost", sides, |side| side.broken.losses(), &verdict);
        let verdict = promises.judge("deploy of a broken release ends with 3", ours.broken.codes() == "3");
        self.of_each("the command's exit code", sides, |side| side.broken.codes(), &format!("3: {verdict}"));
        self.of_each("what answers then", sides, |side| side.broken.answers(), "");

        let verdict = promises.judge("cutover loses no GET when a process is killed", ours.killed.gets_lost == 0);
        let verdict = format!("0: {verdict}");
        self.of_each("SIGKILL of one of two: GETs lost", sides, |side| side.killed.gets_lost.to_string(), &verdict);
        self.of_each("POSTs lost", sides, |side| side.killed.posts_lost.to_string(), "");
        self.of_each("requests meanwhile", sides, |side| side.killed.requests(), "");
        self.of_each("until a new process answers", sides, |side| ms(side.killed.took.median()), "");
    }

    /// How long the tools take to tell how things are.
    pub fn looks(&mut self, looks: &Looks, promises: &mut Promises) {
        let (status, list) = (looks.status.median(), looks.list.median());
        let verdict = promises.judge("status is faster than pm2 list", status < list);
        self.of_both("`status`; `pm2 list`", &ms(status), &ms(list), &format!("faster: {verdict}"));
        let (json, jlist) = (ms(looks.json.median()), ms(looks.jlist.median()));
        self.of_both("`status --json`; `pm2 jlist`", &json, &jlist, "");
    }

    /// What stays in memory.
    pub fn memory(&mut self, what: &str, ours: &Memory, theirs: &Memory, verdict: &str) {
        self.of_both(what, &ours.in_words(), &theirs.in_words(), verdict);
    }

    /// What cutover cannot do without, and pm2 can.
    pub fn nginx(&mut self, memory: &Memory) {
        let cells = ["resident memory of nginx", &memory.in_words(), "none", "not measured", ""];
        self.rows.push(cells.map(str::to_owned).to_vec());
    }

    fn of_each(&mut self, what: &str, sides: &[Side], cell: impl Fn(&Side) -> String, verdict: &str) {
        let cells = sides.iter().map(cell);
        self.rows.push([what.to_owned()].into_iter().chain(cells).chain([verdict.to_owned()]).collect());
    }

    /// Where it is the same for pm2 behind nginx and without.
    fn of_both(&mut self, what: &str, ours: &str, theirs: &str, verdict: &str) {
        self.rows.push([what, ours, theirs, "the same", verdict].map(str::to_owned).to_vec());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (number, row) in self.rows.iter().enumerate() {
            writeln!(f, "| {} |", row.join(" | "))?;
            if number == 0 {
                writeln!(f, "|{}", "---|".repeat(row.len()))?;
            }
        }
        Ok(())
    }
}
