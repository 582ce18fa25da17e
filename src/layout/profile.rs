//! The line that puts the tools into the PATH of login shells: in ~/.profile, and in what bash and zsh read instead.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::bounded::{self, Links};
use crate::durable;
use crate::output::shell_word;

/// What bash reads instead of ~/.profile, the first one that is there, as on RHEL (bash(1), INVOCATION).
const OF_BASH: [&str; 2] = [".bash_profile", ".bash_login"];
/// What zsh reads in its place, which never reads that (zsh(1), STARTUP/SHUTDOWN FILES).
const OF_ZSH: &str = ".zprofile";
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

/// The files in a home directory that are to have the line.
pub fn files(home: &Path, shell: Option<&Path>) -> Vec<PathBuf> {
    let is_there = |file: &PathBuf| file.exists();
    let of_bash = OF_BASH.map(|name| home.join(name)).into_iter().find(is_there);
    let is_zsh = shell.and_then(Path::file_name).is_some_and(|name| name == "zsh");
    let of_zsh = Some(home.join(OF_ZSH)).filter(|file| is_zsh || is_there(file));
    std::iter::once(home.join(".profile")).chain(of_bash).chain(of_zsh).collect()
}

/// Those that may have it: there may have been others when it was laid.
pub fn all_files(home: &Path) -> Vec<PathBuf> {
    let names = OF_BASH.into_iter().chain([".profile", OF_ZSH]);
    names.map(|name| home.join(name)).filter(|file| file.exists()).collect()
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
