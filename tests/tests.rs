//! All tests of the tools, in one program: real tools, a real nginx, real git repositories, real apps.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]

mod agents;
mod bare_home;
mod holder;
mod load;
mod ran;
#[path = "load/selftest.rs"]
mod selftest;
mod site;
mod test_agents;
mod test_bad_input;
mod test_bootup;
mod test_broken_release;
mod test_config;
mod test_connect_to_nginx;
mod test_crash;
mod test_deploy;
mod test_disabled_instance;
mod test_disabled_port;
mod test_docker;
mod test_documentation;
mod test_enabled_instance;
mod test_enabled_port;
mod test_hostile_apps;
mod test_install;
mod test_logs;
mod test_loss;
mod test_nginx_faults;
mod test_people;
mod test_pid;
mod test_processes;
mod test_rollback;
mod test_root_mode;
mod test_secrets;
mod test_start_instance;
mod test_status;
mod test_stop_instance;
mod test_supervise;
mod test_switch;
mod test_switching;
mod test_torture;
mod test_update_instance;
mod torture;
