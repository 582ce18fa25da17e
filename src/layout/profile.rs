//! The line in ~/.profile that puts the tools into the PATH of login shells.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};

use crate::bounded::{self, Links};
use crate::durable;
use crate::output::shell_word;

/// The permission bits of a ~/.profile that was not there before.
const MODE: u32 = 0o644;

/// The line. What the system has of the same name, such as coreutils' install, goes before.
fn line(bin: &Path) -> String {
    format!("PATH=$PATH:{} # laid by cutover's install", shell_word(&bin.to_string_lossy()))
}

/// As version 0.1.0 had it.
fn old_line(bin: &Path) -> String {
    format!("PATH={}:$PATH # laid by cutover's install", shell_word(&bin.to_string_lossy()))
}

/// A text without either line.
fn without_line(text: &str, bin: &Path) -> String {
    let lines = [line(bin), old_line(bin)];
    text.split_inclusive('\n')
        .filter(|present| !lines.iter().any(|line| present.trim_end_matches('\n') == line))
        .collect()
}

/// Fails when the file is there and cannot be read.
pub fn check(profile: &Path) -> Result<()> {
    read(profile).map(drop)
}

fn read(profile: &Path) -> Result<String> {
    match bounded::read_text(profile, Links::Followed, bounded::LARGE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read.with_context(|| format!("cannot read {}", profile.display())),
    }
}

/// Whether the line is there.
pub fn has(profile: &Path, bin: &Path) -> bool {
    read(profile).is_ok_and(|text| text.lines().any(|present| present == line(bin)))
}

/// Adds the line.
pub fn add(profile: &Path, bin: &Path) -> Result<()> {
    let mut text = without_line(&read(profile)?, bin);
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    write(profile, &format!("{text}{}\n", line(bin)))
}

/// Takes the line out again; true when it was there.
pub fn take_out(profile: &Path, bin: &Path) -> Result<bool> {
    let text = read(profile)?;
    let kept = without_line(&text, bin);
    if kept == text {
        return Ok(false);
    }
    write(profile, &kept).map(|()| true)
}

/// A ~/.profile that is a link, as in a repository of dotfiles, stays one: what it points to is rewritten.
fn write(profile: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let real = fs::canonicalize(profile).unwrap_or_else(|_| profile.to_owned());
    let mode = fs::metadata(&real).map_or(MODE, |meta| meta.mode() & 0o777);
    durable::write(&real, text.as_bytes(), mode)
}
