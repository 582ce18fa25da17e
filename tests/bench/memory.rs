//! The memory of single processes, as the kernel counts it.

use std::fs;

/// A line of a process's smaps_rollup, in kB; 0 when the process has gone.
pub fn of(pid: i32, line: &str) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|one| one.strip_prefix(line));
    line.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}
