//! pm2's keys (its lib/API/schema.json): their aliases, and those that have no counterpart here, with what there is
//! instead.

use serde_json::Value;

use super::entry::Entry;
use super::notes::Notes;

/// Other names of keys, without those that differ in their spelling only: pm2 takes `killTimeout` for `kill_timeout`.
const ALIASES: [(&str, &str); 17] = [
    ("exec", "script"),
    ("cmd", "script"),
    ("command", "script"),
    ("interpreter", "exec_interpreter"),
    ("interpreter_args", "node_args"),
    ("out", "out_file"),
    ("output", "out_file"),
    ("out_log", "out_file"),
    ("error", "error_file"),
    ("err", "error_file"),
    ("err_file", "error_file"),
    ("err_log", "error_file"),
    ("log", "log_file"),
    ("pid", "pid_file"),
    ("cron", "cron_restart"),
    ("combine_logs", "merge_logs"),
    ("user", "uid"),
];

/// Keys with a counterpart.
const KNOWN: [&str; 15] = [
    "name",
    "treekill",
    "script",
    "args",
    "cwd",
    "env",
    "port",
    "exec_interpreter",
    "node_args",
    "exec_mode",
    "instances",
    "kill_timeout",
    "listen_timeout",
    "max_memory_restart",
    "wait_ready",
];

/// Keys that change nothing about how an app runs, or ask for what is so here anyway.
const IDLE: [&str; 15] = [
    "append_env_to_name",
    "automation",
    "disable_source_map_support",
    "disable_trace",
    "execute_command",
    "filter_env",
    "force",
    "kill_retry_time",
    "name_prefix",
    "namespace",
    "pmx",
    "username",
    "vizion",
    "windows_hide",
    "write",
];

const DEPLOYS: &str = "deploy brings new code, by hand or, with [push], at each push; where you work, deploy --watch";
const LOGS: &str = "logs shows what it prints, which lies in the home's logs or in the journal";
const RESTARTS: &str = "what ends is started again for ever, after 100 ms at first and 10 s at last";
const REPORTS: &str = "nothing reports to pm2.io; status --json tells pids, memory, health and restarts";
const TIMES: &str = "logs --timestamps prints when each line was printed";
const OWNER: &str = "all of it runs as the home's owner: install --user";

/// Keys without a counterpart, and what to do instead.
const INSTEAD: [(&str, &str); 32] = [
    ("watch", DEPLOYS),
    ("ignore_watch", DEPLOYS),
    ("watch_options", DEPLOYS),
    ("watch_delay", DEPLOYS),
    ("out_file", LOGS),
    ("error_file", LOGS),
    ("log_file", LOGS),
    ("merge_logs", LOGS),
    ("log_type", LOGS),
    ("disable_logs", LOGS),
    ("log_date_format", TIMES),
    ("time", TIMES),
    ("pid_file", "pid prints it"),
    ("autorestart", RESTARTS),
    ("max_restarts", RESTARTS),
    ("min_uptime", RESTARTS),
    ("restart_delay", RESTARTS),
    ("exp_backoff_restart_delay", RESTARTS),
    ("stop_exit_codes", RESTARTS),
    ("source_map_support", "put node's --enable-source-maps into the command"),
    ("instance_var", "PROCESS_INDEX counts an instance's processes, and WORKER_INDEX a worker's"),
    ("increment_var", "each process has a port of its own in PORT, and its number in PROCESS_INDEX"),
    ("shutdown_with_message", "no message comes: stop_signal in [run] asks it to end"),
    ("post_update", "put its commands into [build] command"),
    ("uid", OWNER),
    ("gid", OWNER),
    ("trace", REPORTS),
    ("v8", REPORTS),
    ("event_loop_inspector", REPORTS),
    ("deep_monitoring", REPORTS),
    ("io", REPORTS),
    ("env_file", "write its lines into the env file"),
];

/// The name by which pm2 itself knows a key.
pub fn own_name(key: &str) -> String {
    // What follows in env_NAME is the user's.
    if key.starts_with("env_") {
        return key.to_owned();
    }
    let mut plain = String::new();
    for character in key.chars() {
        if character.is_ascii_uppercase() {
            plain.push('_');
        }
        plain.push(character.to_ascii_lowercase());
    }
    let alias = ALIASES.iter().find(|(alias, _)| *alias == plain);
    alias.map_or(plain, |(_, name)| (*name).to_owned())
}

/// What there is instead of `cron_restart`, for the web app and for a worker.
const CRON_OF_WEB_APP: &str = "put reload into the crontab: it starts everything afresh, and loses no request";
const CRON_OF_WORKER: &str = "a worker that ends by itself is started again; what is a job belongs into the crontab";

/// Notes what of an app is lost.
pub fn note_lost(entry: &Entry, app: &str, is_web_app: bool, notes: &mut Notes) {
    for (key, _) in entry.settings().iter().filter(|(key, value)| has_effect(key, value)) {
        if let Some((_, instead)) = INSTEAD.iter().find(|(known, _)| known == key) {
            notes.lost(key, app, instead);
        } else if key == "cron_restart" {
            notes.lost(key, app, if is_web_app { CRON_OF_WEB_APP } else { CRON_OF_WORKER });
        } else if !KNOWN.contains(&key.as_str()) && !IDLE.contains(&key.as_str()) && !key.starts_with("env_") {
            notes.add(key, app, "is not known, and left out");
        }
    }
}

/// Whether a key's value makes a difference: some are on unless they are switched off.
fn has_effect(key: &str, value: &Value) -> bool {
    match (key, value) {
        ("autorestart", value) => *value == Value::Bool(false),
        ("cron_restart", Value::Number(_)) => false,
        (_, Value::Bool(is_on)) => *is_on,
        (_, Value::String(text)) => !text.is_empty(),
        (_, Value::Array(list)) => !list.is_empty(),
        (_, Value::Object(map)) => !map.is_empty(),
        (_, Value::Number(_) | Value::Null) => true,
    }
}
