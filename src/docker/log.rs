//! What a container prints, as the engine hands it out.
#![deny(clippy::arithmetic_side_effects)]

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, ErrorKind, Read};

/// The longest part of a line that is kept; what is longer comes in several.
const LONGEST: usize = 64 * 1024;

/// A line that a container printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When, in RFC 3339 with nanoseconds.
    pub time: String,
    /// The text; bytes that are not UTF-8 have become U+FFFD.
    pub text: String,
}

/// A container's lines as they come.
pub struct Lines {
    source: Source,
    ready: VecDeque<Line>,
}

enum Source {
    /// Both streams of a container, each piece behind a header: the stream, three zeroes, its length in four bytes.
    Framed { reader: Box<dyn Read + Send>, unfinished: [Vec<u8>; 2] },
    /// A terminal's one stream, as it is.
    Raw(BufReader<Box<dyn Read + Send>>),
}

impl Lines {
    /// The lines of an answer to a question for logs with timestamps; `tty`: the container prints to a terminal.
    pub fn of(reader: impl Read + Send + 'static, tty: bool) -> Lines {
        let reader: Box<dyn Read + Send> = Box::new(reader);
        let source = match tty {
            true => Source::Raw(BufReader::new(reader)),
            false => Source::Framed { reader, unfinished: [Vec::new(), Vec::new()] },
        };
        Lines { source, ready: VecDeque::new() }
    }

    /// Reads one piece more. False: there will be no more.
    fn fill(&mut self) -> io::Result<bool> {
        match &mut self.source {
            Source::Raw(reader) => {
                let mut line = Vec::new();
                let count = reader.take(LONGEST as u64).read_until(b'\n', &mut line)?;
                if count > 0 {
                    self.ready.push_back(understand(&line));
                }
                Ok(count > 0)
            }
            Source::Framed { reader, unfinished } => {
                let mut header = [0; 8];
                match reader.read_exact(&mut header) {
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                        let rest = unfinished.iter_mut().map(std::mem::take).filter(|rest| !rest.is_empty());
                        self.ready.extend(rest.map(|rest| understand(&rest)));
                        return Ok(!self.ready.is_empty());
                    }
                    read => read?,
                }
                let [stream, .., a, b, c, d] = header;
                let length = u64::from(u32::from_be_bytes([a, b, c, d]));
                let [output, errors] = unfinished;
                let text = if stream == 2 { errors } else { output };
                // Never more at once than came: the length is only what somebody says.
                let begin = text.len();
                if reader.take(length).read_to_end(text)? as u64 != length {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                // A long line comes in pieces, each of which has its time in front.
                if begin > 0
                    && let Some(time) = text.get(begin..).and_then(time_in_front)
                {
                    text.drain(begin..begin.saturating_add(time));
                }
                while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = text.drain(..=end).collect();
                    self.ready.push_back(understand(&line));
                }
                if text.len() > LONGEST {
                    self.ready.push_back(understand(&std::mem::take(text)));
                }
                Ok(true)
            }
        }
    }
}

impl Iterator for Lines {
    type Item = io::Result<Line>;

    fn next(&mut self) -> Option<io::Result<Line>> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return Some(Ok(line));
            }
            match self.fill() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// The moment and the text of a line, with a space between them.
fn understand(line: &[u8]) -> Line {
    let line = String::from_utf8_lossy(line);
    let line = line.trim_end_matches(['\n', '\r']);
    match line.split_once(' ') {
        Some((time, text)) if is_time(time) => Line { time: time.to_owned(), text: text.to_owned() },
        _ if is_time(line) => Line { time: line.to_owned(), text: String::new() },
        _ => Line { time: String::new(), text: line.to_owned() },
    }
}

/// How long the time with its space is with which a piece begins; None: it begins otherwise.
fn time_in_front(piece: &[u8]) -> Option<usize> {
    let space = piece.iter().position(|byte| *byte == b' ')?;
    std::str::from_utf8(piece.get(..space)?).is_ok_and(is_time).then_some(space.saturating_add(1))
}

fn is_time(word: &str) -> bool {
    word.len() >= 20
        && word.ends_with('Z')
        && word.as_bytes().get(10) == Some(&b'T')
        && word.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const TIME: &str = "2026-11-21T09:30:00.123456789Z";

    fn frame(stream: u8, text: &str) -> Vec<u8> {
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        [&[stream, 0, 0, 0], &length[..], text.as_bytes()].concat()
    }

    fn texts(bytes: Vec<u8>, tty: bool) -> Vec<String> {
        Lines::of(io::Cursor::new(bytes), tty).map(|line| line.unwrap().text).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_was_printed_is_read(printed in prop::collection::vec(("[ -~]{0,40}", 1u8..3), 0..9)) {
            let framed = printed.iter().flat_map(|(text, stream)| frame(*stream, &format!("{TIME} {text}\n"))).collect();
            let expected: Vec<String> = printed.iter().map(|(text, _)| text.clone()).collect();
            prop_assert_eq!(texts(framed, false), expected.clone());
            let raw = printed.iter().map(|(text, _)| format!("{TIME} {text}\r\n")).collect::<String>();
            prop_assert_eq!(texts(raw.into_bytes(), true), expected);
        }

        #[test]
        fn any_bytes_end(bytes: Vec<u8>, tty: bool) {
            for line in Lines::of(io::Cursor::new(bytes), tty) {
                if line.is_err() {
                    break;
                }
            }
        }
    }

    #[test]
    fn the_time_of_a_piece_is_no_part_of_its_line() {
        let pieces = [frame(1, &format!("{TIME} begin")), frame(1, &format!("{TIME} ning\n"))];
        assert_eq!(texts(pieces.concat(), false), ["beginning"]);
    }

    #[test]
    fn a_line_in_two_pieces_is_one_line_and_one_without_an_end_is_not_lost() {
        let pieces = [frame(1, &format!("{TIME} one ")), frame(2, &format!("{TIME} err\n")), frame(1, "line\nrest")];
        assert_eq!(texts(pieces.concat(), false), ["err", "one line", "rest"]);
    }
}
