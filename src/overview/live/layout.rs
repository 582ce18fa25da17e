//! Lines on a screen: aligned, cut to its width, and the least important left out where it is too low.

use crate::harmless::{Painted, harmless_line};
use crate::terminal::Size;

/// What stands between two columns.
const GAP: &str = "  ";

/// How important a line is, the most important first: the last of the least important ones is left out first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    Instance,
    Trouble,
    Process,
    Requests,
    Release,
    LastDeploy,
    Worker,
    Heading,
    Deploy,
    Blank,
}

/// A line, and how important it is.
#[derive(Clone, Debug)]
pub struct Line {
    pub rank: Rank,
    pub text: String,
}

impl Line {
    pub fn new(rank: Rank, text: impl Into<String>) -> Line {
        Line { rank, text: text.into() }
    }

    /// As it is drawn: those that say what an instance is stand out.
    pub fn drawn(&self, width: usize) -> Painted {
        painted(&cut(&self.text, width), self.rank == Rank::Instance)
    }
}

/// Leaves out lines until they fit; returns how many.
pub fn fit(lines: &mut Vec<Line>, height: usize) -> usize {
    let mut hidden = 0;
    while lines.len() > height {
        let Some((least, _)) = lines.iter().enumerate().max_by_key(|(_, line)| line.rank) else { break };
        // Of those that are alike this is the last one.
        if lines.remove(least).rank != Rank::Blank {
            hidden += 1;
        }
    }
    hidden
}

/// A title with something at the right edge.
pub fn title(left: &str, right: &str, size: Size) -> Painted {
    let room = size.width.saturating_sub(right.chars().count() + 1);
    let text = if left.chars().count() > room { left.to_owned() } else { format!("{left:<room$} {right}") };
    painted(&cut(&text, size.width), true)
}

/// As many characters as there is room for. None of them moves the cursor: an app or a person chose some of them.
fn cut(text: &str, width: usize) -> String {
    harmless_line(text).chars().take(width).collect()
}

fn painted(text: &str, is_bold: bool) -> Painted {
    let mut painted = Painted::new(true);
    if is_bold {
        painted.paint("\x1b[1m");
    }
    painted.add(text);
    if is_bold {
        painted.paint("\x1b[0m");
    }
    painted
}

/// On which side of its column a cell stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Left,
    Right,
}

/// How wide each column is.
pub fn widths<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> [usize; COLUMNS] {
    let mut widths = [0; COLUMNS];
    for row in rows {
        let wider = |(width, cell): (&mut usize, &String)| *width = cell.chars().count().max(*width);
        widths.iter_mut().zip(row).for_each(wider);
    }
    widths
}

/// A row's cells in their columns.
pub fn aligned<const COLUMNS: usize>(
    row: &[String; COLUMNS],
    widths: [usize; COLUMNS],
    sides: [Side; COLUMNS],
) -> String {
    let cells = row.iter().zip(widths).zip(sides).map(|((cell, width), side)| {
        // A format's width has a limit, and a cell that somebody else has filled has none.
        let room = " ".repeat(width.saturating_sub(cell.chars().count()));
        match side {
            Side::Left => format!("{cell}{room}"),
            Side::Right => format!("{room}{cell}"),
        }
    });
    cells.collect::<Vec<String>>().join(GAP).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_the_least_important_goes_first() {
        let ranks = [Rank::Instance, Rank::Worker, Rank::Worker, Rank::Blank, Rank::Deploy];
        let all: Vec<Line> = ranks.iter().zip('a'..).map(|(rank, name)| Line::new(*rank, name)).collect();
        for (height, left, hidden) in
            [(9, "abcde", 0), (4, "abce", 0), (3, "abc", 1), (2, "ab", 2), (1, "a", 3), (0, "", 4)]
        {
            let mut lines = all.clone();
            assert_eq!(fit(&mut lines, height), hidden);
            assert_eq!(lines.iter().map(|line| line.text.as_str()).collect::<String>(), left);
        }
    }

    #[test]
    fn nothing_that_is_shown_moves_the_cursor() {
        assert_eq!(Line::new(Rank::Trouble, "status 500: \x1b[2Jé\r\n!").drawn(16).as_str(), "status 500: é\u{fffd}!");
        assert_eq!(Line::new(Rank::Instance, "A").drawn(3).as_str(), "\x1b[1mA\x1b[0m");
        assert_eq!(title("shop", "q", Size { width: 8, height: 1 }).as_str(), "\x1b[1mshop   q\x1b[0m");
        assert_eq!(title("shop", "q", Size { width: 5, height: 1 }).as_str(), "\x1b[1mshop\x1b[0m");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["0", "5"], ["mail.0", "12"]].map(|row| row.map(str::to_owned));
        let drawn = rows.each_ref().map(|row| aligned(row, widths(&rows), [Side::Left, Side::Right]));
        assert_eq!(drawn, ["0        5", "mail.0  12"]);
        let rows = [["x".repeat(70_000), "1".to_owned()], ["y".to_owned(), "2".to_owned()]];
        let drawn = aligned(&rows[1], widths(&rows), [Side::Right, Side::Left]);
        assert_eq!(drawn.len(), 70_003);
    }
}
