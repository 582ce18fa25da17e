//! cutover deploys one web app on one Linux host behind nginx, blue-green, without losing a request.
//!
//! Two instances of the app run side by side; nginx sends the traffic to one of them, the enabled one. This library
//! is what the tools in `src/bin` share. Its modules stand in strict layers, and imports go down only:
//!
//! | layer | modules |
//! |---|---|
//! | 0 | [`outcome`], [`deadline`], [`output`], [`account`], [`durable`] |
//! | 1 | mechanisms that know nothing of the app: [`command`], [`process`], [`lock`], [`http`], [`health`], [`logfile`] |
//! | 2 | [`app`]: the home, the configuration, all names and paths |
//! | 3 | [`nginx`]: which instance gets the traffic; [`source`]: which release an instance has |
//! | 4 | [`runner`]: running an instance; [`history`]; [`questions`] |
//! | 5 | [`overview`]: everything at one glance; [`layout`]: laying everything out |
//! | 6 | the tools: arguments, order of steps, printing |
//!
//! The library returns and the tools speak: nothing here prints to standard output, exits, or changes the directory.

pub mod account;
pub mod app;
pub mod command;
pub mod deadline;
pub mod durable;
pub mod health;
pub mod history;
pub mod http;
pub mod layout;
pub mod lock;
pub mod logfile;
pub mod nginx;
pub mod outcome;
pub mod output;
pub mod overview;
pub mod process;
pub mod questions;
pub mod runner;
pub mod source;
