//! Threads where memory may have run out: a thread that cannot be had is an error, and one that cannot begin ends the whole program.

use std::hint::black_box;
use std::io;
use std::thread::Builder;

/// What a thread takes to begin: the stack that the standard library gives it, and the one on which it hears of an overflow.
const BEGIN: usize = (2 << 20) + (256 << 10);

/// What starts a thread. Fails where there is no memory for one to begin with.
pub fn builder() -> io::Result<Builder> {
    let mut room: Vec<u8> = Vec::new();
    // Also for the one that was begun just before, and may not have come so far yet.
    room.try_reserve_exact(2 * BEGIN).map_err(|_| io::ErrorKind::OutOfMemory)?;
    // Asked for, though nothing is kept there.
    black_box(&mut room);
    Ok(Builder::new())
}
