//! All tests of the tools, in one program: real tools, a real nginx, real git repositories, real apps.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]

mod load;
#[path = "load/selftest.rs"]
mod selftest;
mod site;
mod test_root_mode;
mod test_switch;
