//! What is told about an ecosystem file, a line each. What is the same of several apps is told once.

use crate::harmless::harmless_line;

/// How many apps a line names.
const NAMED: usize = 3;

/// Lines in the making.
#[derive(Default)]
pub struct Notes(Vec<Note>);

enum Note {
    /// What becomes of a key of these apps.
    Key { key: String, apps: Vec<String>, becomes: String },
    /// Something else.
    Sentence(String),
}

impl Notes {
    /// Notes what becomes of a key of this app, in words that go on from `pm2's KEY of APP`.
    pub fn add(&mut self, key: &str, app: &str, becomes: &str) {
        let is_same =
            |note: &&mut Note| matches!(note, Note::Key { key: of, becomes: is, .. } if of == key && is == becomes);
        match self.0.iter_mut().find(is_same) {
            Some(Note::Key { apps, .. }) => apps.push(app.to_owned()),
            _ => {
                self.0.push(Note::Key { key: key.to_owned(), apps: vec![app.to_owned()], becomes: becomes.to_owned() })
            }
        }
    }

    /// Notes that a key of this app has no counterpart, and what to do instead.
    pub fn lost(&mut self, key: &str, app: &str, instead: &str) {
        self.add(key, app, &format!("has no counterpart: {instead}"));
    }

    /// Notes what is about no single key.
    pub fn say(&mut self, sentence: impl Into<String>) {
        let sentence = sentence.into();
        if !self.0.iter().any(|note| matches!(note, Note::Sentence(said) if *said == sentence)) {
            self.0.push(Note::Sentence(sentence));
        }
    }

    /// The lines. What the file's author has called things cannot break one.
    pub fn lines(&self) -> Vec<String> {
        let line = |note: &Note| match note {
            Note::Key { key, apps, becomes } => format!("pm2's {key} of {} {becomes}", listed(apps)),
            Note::Sentence(sentence) => sentence.clone(),
        };
        self.0.iter().map(|note| harmless_line(&line(note))).collect()
    }
}

/// Some of these names, in words: `a`, `a, b`, `a, b, c and 13 others`.
pub fn listed(names: &[String]) -> String {
    let named = names.get(..NAMED).unwrap_or(names).join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => named,
        1 => format!("{named} and 1 other"),
        more => format!("{named} and {more} others"),
    }
}
