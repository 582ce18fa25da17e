//! SIGINT as a terminal has it.

use nix::sys::signal::{SigHandler, Signal, signal};

/// Has what is started from now on heed SIGINT: it ignores it where this was started in the background of a script.
pub fn are_heeded() {
    // SAFETY: no handler is installed.
    #[allow(unsafe_code)]
    unsafe { signal(Signal::SIGINT, SigHandler::SigDfl) }.unwrap();
}
