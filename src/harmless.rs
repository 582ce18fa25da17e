//! What a terminal or a reader may be shown of text that others have chosen: the one place that takes escape sequences,
//! control characters, and characters that reorder or hide text out of it.
#![deny(clippy::arithmetic_side_effects)]

use std::iter::Peekable;
use std::str::Chars;

/// Whether a character can do something else than be seen: a control character (C0, DEL, C1), or an invisible one that
/// reorders text (bidi), breaks lines or words, or hides in a name.
///
/// U+200C and U+200D count as well, although scripts and emoji need them: see [`harmless`] for when they stay.
pub fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(
            u32::from(character),
            // Soft hyphen, combining grapheme joiner, Arabic letter mark.
            0xad | 0x34f | 0x61c
            // Fillers, which are letters that nobody sees.
            | 0x115f | 0x1160 | 0x3164 | 0xffa0
            // Mongolian and Khmer ones.
            | 0x17b4 | 0x17b5 | 0x180b..=0x180f
            // Zero-width spaces and joiners, marks, separators, embeddings, overrides, isolates.
            | 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f
            | 0xfeff | 0xfff9..=0xfffb
            // Shorthand and musical format characters, tags, selectors in which data is hidden.
            | 0x1bca0..=0x1bca3 | 0x1d173..=0x1d17a | 0xe0000..=0xe0fff
        )
}

/// Text as a terminal may have it: without escape sequences (`ESC [ … letter`), and with U+FFFD for each other harmful
/// character but line ends and tabs. A carriage return before a line's end goes with it. The joiners U+200C and U+200D stay
/// behind what is not ASCII.
pub fn harmless(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(harmless_in_line).collect();
    lines.join("\n")
}

/// [`harmless`] for what has a place in a line: a line's end is harmful as well, and a tab becomes a space.
pub fn harmless_line(text: &str) -> String {
    harmless(text).replace('\n', "\u{fffd}").replace('\t', " ")
}

fn harmless_in_line(line: &str) -> String {
    let mut kept = String::with_capacity(line.len());
    let mut characters = line.trim_end_matches('\r').chars().peekable();
    while let Some(character) = characters.next() {
        let is_joined = matches!(character, '\u{200c}' | '\u{200d}') && kept.ends_with(|last: char| !last.is_ascii());
        match character {
            '\u{1b}' if characters.next_if_eq(&'[').is_some() => skip_sequence(&mut characters),
            '\t' => kept.push('\t'),
            character if is_harmful(character) && !is_joined => kept.push(char::REPLACEMENT_CHARACTER),
            character => kept.push(character),
        }
    }
    kept
}

/// The rest of `ESC [ … letter`.
fn skip_sequence(characters: &mut Peekable<Chars>) {
    while characters.next_if(|parameter| (' '..='?').contains(parameter)).is_some() {}
    let _ = characters.next_if(|letter| ('@'..='~').contains(letter));
}

/// Text with every harmful character written out, `\u{1b}`: for messages, of which nothing may be hidden.
pub fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, character| {
        match is_harmful(character) {
            true => escaped.extend(character.escape_default()),
            false => escaped.push(character),
        }
        escaped
    })
}

/// JSON with every harmful character in its strings escaped, which says the same. Line ends stay: JSON has them only
/// between its parts.
pub fn escaped_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        match is_harmful(character) && character != '\n' {
            true => character.encode_utf16(&mut [0; 2]).iter().for_each(|unit| escaped += &format!("\\u{unit:04x}")),
            false => escaped.push(character),
        }
    }
    escaped
}

/// Text for standard output that has escape sequences of our own, and no others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Painted {
    text: String,
    is_for_terminal: bool,
}

impl Painted {
    /// Nothing so far. For a terminal all that is added is made harmless; for a program it stays as it is, and has no escape
    /// sequences of ours.
    pub fn new(is_for_terminal: bool) -> Painted {
        Painted { text: String::new(), is_for_terminal }
    }

    /// Adds text that others may have chosen.
    pub fn add(&mut self, text: &str) {
        match self.is_for_terminal {
            true => self.text += &harmless(text),
            false => self.text += text,
        }
    }

    /// Adds an escape sequence of our own.
    pub fn paint(&mut self, sequence: &'static str) {
        if self.is_for_terminal {
            self.text += sequence;
        }
    }

    /// Adds what is painted already.
    pub fn append(&mut self, other: &Painted) {
        self.text += &other.text;
    }

    /// The whole.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_could_act_on_a_terminal_or_lie_is_replaced() {
        for (text, shown) in [
            ("plain é 日本 \u{1f600}\ttab\n", "plain é 日本 \u{1f600}\ttab\n"),
            ("\u{1b}[31mred\u{1b}[0m \u{1b}[2J\u{1b}[?1049h", "red "),
            ("\u{1b}]52;c;aGk=\u{7}\u{1b}\\", "\u{fffd}]52;c;aGk=\u{fffd}\u{fffd}\\"),
            ("\u{1b}\u{1b}[m[2J", "\u{fffd}[2J"),
            ("\u{9b}2J \u{90}q\u{9c} \u{85}", "\u{fffd}2J \u{fffd}q\u{fffd} \u{fffd}"),
            ("half\rline\r\nnul\0 del\u{7f}", "half\u{fffd}line\nnul\u{fffd} del\u{fffd}"),
            ("gpj.\u{202e}exe \u{2066}x\u{2069} \u{200f}", "gpj.\u{fffd}exe \u{fffd}x\u{fffd} \u{fffd}"),
            ("in\u{200b}stall a\u{200d}b \u{feff}", "in\u{fffd}stall a\u{fffd}b \u{fffd}"),
            ("\u{1f468}\u{200d}\u{1f469} \u{645}\u{200c}\u{645}", "\u{1f468}\u{200d}\u{1f469} \u{645}\u{200c}\u{645}"),
            ("tag\u{e0041} line\u{2028}", "tag\u{fffd} line\u{fffd}"),
        ] {
            assert_eq!(harmless(text), shown, "{text:?}");
        }
        assert_eq!(harmless_line("a\r\nb\tc\n"), "a\u{fffd}b c\u{fffd}");
        assert_eq!(escaped("a\u{1b}[m\n\u{202e}\u{9b}é"), "a\\u{1b}[m\\n\\u{202e}\\u{9b}é");
    }

    #[test]
    fn painted_text_has_our_own_sequences_and_no_others() {
        let add = |is_for_terminal: bool| {
            let mut painted = Painted::new(is_for_terminal);
            painted.paint("\u{1b}[1m");
            painted.add("a\u{1b}[31m\u{7}");
            painted.paint("\u{1b}[0m");
            painted.as_str().to_owned()
        };
        assert_eq!(add(true), "\u{1b}[1ma\u{fffd}\u{1b}[0m");
        assert_eq!(add(false), "a\u{1b}[31m\u{7}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_harmful_is_left_of_any_text(text in "([\u{0}-\u{9f}]|\u{1b}\\[|[\u{2000}-\u{206f}]|.){0,40}") {
            let is_left = |c: char| is_harmful(c) && !matches!(c, '\n' | '\t' | '\u{200c}' | '\u{200d}');
            let shown = harmless(&text);
            prop_assert!(!shown.contains(is_left), "{shown:?}");
            prop_assert_eq!(harmless(&shown), shown);
            prop_assert!(!escaped(&text).contains(is_harmful));
            let json = serde_json::to_string(&text).unwrap_or_default();
            let read: String = serde_json::from_str(&escaped_json(&json)).unwrap_or_default();
            prop_assert!(!escaped_json(&json).contains(is_harmful));
            prop_assert_eq!(read, text);
        }
    }
}
