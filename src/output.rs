//! Answers for people and for programs: a table, or JSON.

use std::fmt::Display;
use std::time::Duration;

use anyhow::{Context, Result};
use comfy_table::{Cell, Table, presets};
use serde::Serialize;

use crate::harmless::{escaped_json, harmless_line};

/// A plain table: the first row is the heading, columns are padded and nothing is drawn around them. Whoever chose what
/// a cell says, it is harmless, also in a file: a table is for people.
pub fn table(rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    for row in rows {
        table.add_row(row.iter().map(|cell| Cell::new(harmless_line(cell))));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned() + "\n").collect();
    lines.concat()
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Values one below the other.
pub fn lines(values: &[impl Display]) -> String {
    values.iter().map(|value| format!("{value}\n")).collect()
}

/// One JSON document, indented, ending in a newline; in its strings, what a terminal could take for more than text is
/// escaped.
pub fn json(value: &impl Serialize) -> Result<String> {
    let json = serde_json::to_string_pretty(value).context("cannot make JSON")?;
    Ok(escaped_json(&json) + "\n")
}

/// Bytes as people read them: `41.3 MB`.
pub fn bytes(count: u64) -> String {
    match count {
        0..1_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", count as f64 / 1e6),
        _ => format!("{:.1} GB", count as f64 / 1e9),
    }
}

/// A span of time as people read it: `1.3 ms`, `412 ms`, `3.2 s`, `5m 20s`.
pub fn span(span: Duration) -> String {
    match span.as_millis() {
        0..10 => format!("{:.1} ms", span.as_secs_f64() * 1e3),
        10..1000 => format!("{} ms", span.as_millis()),
        1000..60_000 => format!("{:.1} s", span.as_secs_f64()),
        _ => age(span.as_secs()),
    }
}

/// Whole seconds as people read them: `42s`, `5m 20s`, `3h 5m`, `2d 3h`.
pub fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// A word as a shell reads it back: quoted when it must be.
pub fn shell_word(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@+,=".contains(&byte);
    match !word.is_empty() && word.bytes().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}
