//! All tests of the tools, in one program: real tools, a real nginx, real git repositories, real apps.
#![allow(
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::string_slice,
    clippy::unwrap_used,
    missing_docs
)]

mod agents;
mod bare_home;
mod ecosystem;
mod env_lines;
mod git_server;
mod holder;
mod interrupts;
mod load;
mod not_tested;
mod pty;
mod pushed_site;
mod ran;
mod sample;
#[path = "load/selftest.rs"]
mod selftest;
mod server;
mod site;
mod test_agents;
mod test_attacks;
mod test_bad_input;
mod test_bootup;
mod test_broken_release;
mod test_completions;
mod test_config;
mod test_connect_to_nginx;
mod test_crash;
mod test_deploy;
mod test_deploy_watch;
mod test_disabled_instance;
mod test_disabled_port;
mod test_docker;
mod test_documentation;
mod test_ecosystems;
mod test_enabled_instance;
mod test_enabled_port;
mod test_ends;
mod test_env_file;
mod test_environment;
mod test_exhausted;
mod test_from_pm2;
mod test_full_disk;
mod test_harmless;
mod test_health;
mod test_history;
mod test_hooks;
mod test_hostile_apps;
mod test_hostile_files;
mod test_housekeeping;
mod test_idle;
mod test_in_front;
mod test_install;
mod test_last_words;
mod test_liveness;
mod test_logs;
mod test_logs_choice;
mod test_logs_deploys;
mod test_logs_programs;
mod test_logs_terminal;
mod test_loss;
mod test_made_anew;
mod test_max_memory;
mod test_neighbours_at_install;
mod test_neighbours_in_use;
mod test_neighbours_of_clients;
mod test_neighbours_of_faults;
mod test_neighbours_of_files;
mod test_neighbours_of_hand_over;
mod test_neighbours_of_leftovers;
mod test_neighbours_of_limits;
mod test_neighbours_of_names;
mod test_neighbours_of_ports;
mod test_neighbours_of_root;
mod test_neighbours_of_secrets;
mod test_neighbours_of_sticky;
mod test_neighbours_of_trust;
mod test_neighbours_of_words;
mod test_nginx_builds;
mod test_nginx_faults;
mod test_on_push;
mod test_people;
mod test_pid;
mod test_processes;
mod test_push;
mod test_reasons;
mod test_reload;
mod test_rollback;
mod test_root_mode;
mod test_rotation;
mod test_sample;
mod test_secrets;
mod test_settings;
mod test_several;
mod test_site;
mod test_stand_in;
mod test_start_instance;
mod test_status;
mod test_status_watch;
mod test_sticky;
mod test_stop_instance;
mod test_supervise;
mod test_switch;
mod test_switching;
mod test_torture;
mod test_trust;
mod test_update_instance;
mod test_way_back;
mod test_what_is_kept;
mod test_workers;
mod torture;
mod watched;
mod webhook;
