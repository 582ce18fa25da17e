//! cutover deploys one web app on one Linux host behind nginx, blue-green, without losing a request.
//!
//! Two instances of the app run side by side; nginx sends the traffic to one of them, the enabled one. This library
//! is what the tools in `src/bin` share. Its modules stand in strict layers, and imports go down only:
//!
//! | layer | modules |
//! |---|---|
//! | 0 | [`outcome`], [`deadline`], [`harmless`], [`output`], [`bounded`], [`durable`], [`removal`], [`trust`] |
//! | 1 | mechanisms that know nothing of the app: [`command`], [`process`], [`account`], [`lock`], [`http`], [`health`], [`logfile`], [`terminal`], [`watching`], [`docker`] |
//! | 2 | [`app`]: the home, the configuration, all names and paths |
//! | 3 | [`nginx`]: which instance gets the traffic; [`compose`]: the instances as services; [`hooks`]: the user's own programs; [`push`]: what a webhook asks for, and its queue |
//! | 4 | [`source`]: which release an instance has |
//! | 5 | [`runner`]: running an instance; [`history`]: what was deployed, and what is new; [`questions`]; [`pm2`]: its ecosystem files |
//! | 6 | [`deploying`]: one deploy, step by step, or one for each push or change; [`overview`]: everything at one glance, or as it changes; [`logs`]: what was printed and said; [`layout`]: laying everything out |
//! | 7 | the tools: arguments, order of steps, printing |
//!
//! The library returns and the tools speak: nothing here prints to standard output, exits, or changes the directory. Only
//! [`deploying`] tells its steps as it takes them.

// A test that is out of range fails, as it should.
#![cfg_attr(test, allow(clippy::indexing_slicing, clippy::string_slice))]

pub mod account;
pub mod app;
pub mod bounded;
pub mod command;
pub mod compose;
pub mod deadline;
pub mod deploying;
pub mod docker;
pub mod durable;
pub mod fingerprint;
pub mod harmless;
pub mod health;
pub mod history;
pub mod hooks;
pub mod http;
pub mod layout;
pub mod lock;
pub mod logfile;
pub mod logs;
pub mod nginx;
#[cfg(test)]
#[path = "../tests/not_tested.rs"]
#[allow(clippy::print_stderr)]
mod not_tested;
pub mod outcome;
pub mod output;
pub mod overview;
pub mod pm2;
pub mod process;
pub mod push;
pub mod questions;
pub mod removal;
pub mod runner;
pub mod source;
pub mod telling;
pub mod terminal;
mod threads;
pub mod trust;
pub mod watching;
