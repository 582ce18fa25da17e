//! The apps: which there are, what each needs, and what is asked of it. How each is configured is in docs/apps.md.

/// An app. Its sources lie in the directory of its name, with `@VERSION@` where its version belongs.
#[derive(Debug)]
pub struct App {
    /// Its name: in the page, in its configuration, and of its directory.
    pub name: &'static str,
    /// What it runs on, for the table.
    pub what: &'static str,
    /// What it needs of the system, as tests/set-up.sh names it.
    pub needs: &'static [&'static str],
    /// What its user has laid into the home before: a line for the shell that runs there.
    pub laid: &'static str,
    /// How its developer makes the lock of its dependencies: a line for the shell that runs in the repository. It is made each
    /// time, because locks are long; what is asked for by name is pinned.
    pub lock: &'static str,
    /// What GETs ask for; the answer holds the version.
    pub get: &'static str,
    /// Whether it echoes POSTs to /echo.
    pub echoes: bool,
    /// The pause between two requests of a connection, in milliseconds.
    pub pace: u64,
    /// Whether the gate has the time for it.
    pub is_light: bool,
}

/// Most apps.
const APP: App =
    App { name: "", what: "", needs: &[], laid: "", lock: "", get: "/", echoes: true, pace: 20, is_light: false };

/// Those that are tried, in their order.
pub const APPS: &[App] = &[App { name: "php", what: "PHP's own server", needs: &["php"], is_light: true, ..APP }];
