//! Reading files that somebody else may have made or exchanged: regular files only, and no more of one than makes sense.
//!
//! A pipe would be waited for, a device may have no end, and a link may lead to a file of another owner's.
#![deny(clippy::arithmetic_side_effects)]

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;

/// What a small file of our own may hold at most, in bytes: a note, a queue, a record of few words.
pub const SMALL: u64 = 64 * 1024;
/// What a file that people write may hold at most, in bytes.
pub const LARGE: u64 = 4 * 1024 * 1024;

/// What becomes of a link in a file's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// It is refused: the file is one that only we make.
    Refused,
    /// It is followed: people keep such a file elsewhere.
    Followed,
}

/// Opens a regular file for reading. It is never waited for, whatever lies there. Of a directory the first read says what
/// it is.
pub fn open(path: &Path, links: Links) -> io::Result<File> {
    let no_link = if links == Links::Refused { libc::O_NOFOLLOW } else { 0 };
    // Neither flag changes anything for a regular file.
    let flags = no_link | libc::O_NONBLOCK | libc::O_NOCTTY;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(path);
    let file = opened.map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENXIO) => refused("it is no file"),
        _ => error,
    })?;
    let kind = file.metadata()?.file_type();
    match kind.is_file() || kind.is_dir() {
        true => Ok(file),
        false => Err(refused("it is no file")),
    }
}

/// What a regular file holds, of at most `limit` bytes; one that holds more is an error.
pub fn read(path: &Path, links: Links, limit: u64) -> io::Result<Vec<u8>> {
    all_of(open(path, links)?, limit)
}

/// [`read`] for text. What is not UTF-8 is an error.
pub fn read_text(path: &Path, links: Links, limit: u64) -> io::Result<String> {
    let text = String::from_utf8(read(path, links, limit)?);
    text.map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not UTF-8"))
}

/// All that can be read from here, of at most `limit` bytes; more is an error.
pub fn all_of(from: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let count = from.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    match count as u64 > limit {
        true => Err(io::Error::new(ErrorKind::FileTooLarge, format!("it holds more than {limit} bytes"))),
        false => Ok(bytes),
    }
}

fn refused(reason: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, reason)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_regular_files_of_a_sensible_size_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("file"), "0123456789").unwrap();
        fs::write(path("odd"), b"\xff").unwrap();
        symlink("file", path("link")).unwrap();
        symlink("/dev/zero", path("zero")).unwrap();
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _socket = UnixListener::bind(path("socket")).unwrap();
        let read = |name: &str, links: Links, limit: u64| {
            read_text(&path(name), links, limit).map_err(|error| error.to_string())
        };
        let refused = |reason: &str| Err(reason.to_owned());
        assert_eq!(read("file", Links::Refused, 10), Ok("0123456789".to_owned()));
        assert_eq!(read("file", Links::Refused, 9), refused("it holds more than 9 bytes"));
        assert_eq!(read("link", Links::Followed, 10), Ok("0123456789".to_owned()));
        assert_eq!(read("link", Links::Refused, 10), refused("Too many levels of symbolic links (os error 40)"));
        assert_eq!(read("zero", Links::Refused, 10), refused("Too many levels of symbolic links (os error 40)"));
        assert_eq!(read("odd", Links::Refused, 10), refused("it is not UTF-8"));
        for (name, links) in [("zero", Links::Followed), ("fifo", Links::Refused), ("socket", Links::Refused)] {
            assert_eq!(read(name, links, 10), refused("it is no file"), "{name}");
        }
        assert_eq!(read_text(&path(""), Links::Refused, 10).unwrap_err().kind(), ErrorKind::IsADirectory);
        assert_eq!(read_text(&path("none"), Links::Refused, 10).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
