//! What is done with a test that this machine cannot run.

/// Says that `what` was not tested, and why. Under CI, where all must be, that is a failure.
#[track_caller]
pub fn not_tested(what: &str, reason: &str) {
    let is_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    assert!(!is_ci, "cannot test {what}: {reason}");
    eprintln!("NOT TESTED: {what}: {reason}");
}
