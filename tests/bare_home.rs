//! A home that no install laid: a configuration, and the link that says what is enabled. It is enough for tools that
//! only look, and for mistakes in the configuration; nothing of it runs.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::site::{Ran, built};

/// A home, gone when it is dropped.
pub struct BareHome {
    directory: TempDir,
}

impl BareHome {
    /// A home with this configuration.
    pub fn new(config: &str) -> BareHome {
        let directory = tempfile::Builder::new().prefix("cutover-test-").tempdir().unwrap();
        for name in ["bin", "instances", "logs", "releases", "run", "state"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        fs::write(directory.path().join("config.toml"), config).unwrap();
        BareHome { directory }
    }

    /// The home whose instances are named and numbered after `number`: `A1 = 20101` and `B1 = 20102`. The first is enabled.
    pub fn numbered(number: u16) -> BareHome {
        let instances = format!("A{number} = 20{number}01\nB{number} = 20{number}02\n");
        let home = BareHome::new(&format!(
            "app = \"shop\"\n[instances]\n{instances}[source]\ngit = \"/nowhere\"\n[run]\ncommand = \"true\"\n[nginx]\nown = true\n"
        ));
        home.enable(&format!("A{number}"));
        home
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Points the enabled link at this name.
    pub fn enable(&self, name: &str) {
        let link = self.path().join("state/enabled");
        let _ = fs::remove_file(&link);
        symlink(name, link).unwrap();
    }

    /// Copies a tool into its bin/.
    pub fn with_tool(&self, tool: &str) -> PathBuf {
        let path = self.path().join("bin").join(tool);
        // By another process: while this one has the file open for writing, any thread's child may hold it open too, and
        // a file that is open for writing cannot be run.
        let copied = Command::new("cp").arg(built().join(tool)).arg(&path).status().unwrap();
        assert!(copied.success());
        path
    }

    /// Runs a tool as built, with --home and nothing in the environment.
    pub fn run(&self, tool: &str, arguments: &[&str]) -> Ran {
        self.run_with(tool, &arguments.iter().map(OsStr::new).collect::<Vec<_>>())
    }

    /// The same with arguments that need not be text. A tool that has not ended after a minute is killed: 137.
    pub fn run_with(&self, tool: &str, arguments: &[&OsStr]) -> Ran {
        let mut command = bare_command(Path::new("/usr/bin/timeout"));
        command.args(["--signal=KILL", "60"]).arg(built().join(tool));
        Ran::of(&command.arg("--home").arg(self.path()).args(arguments).output().unwrap())
    }
}

/// A program with nothing in its environment, in the root directory.
fn bare_command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().current_dir("/").stdin(Stdio::null());
    command
}

/// Asserts that a tool which only tells something finds its home by --home, else by $CUTOVER_HOME, else by its own place.
/// `answer` is what it tells of the home with this number.
#[track_caller]
pub fn finds_its_home(tool: &str, answer: fn(u16) -> String) {
    let homes = [1, 2, 3].map(BareHome::numbered);
    let own = homes[0].with_tool(tool);
    let run = |command: &mut Command| Ran::of(&command.output().unwrap());
    run(&mut bare_command(&own)).is(0, &answer(1), "");
    run(bare_command(&own).env("CUTOVER_HOME", "")).is(0, &answer(1), "");
    run(bare_command(&own).env("CUTOVER_HOME", homes[1].path())).is(0, &answer(2), "");
    let by_flag = run(bare_command(&own).env("CUTOVER_HOME", homes[1].path()).arg("--home").arg(homes[2].path()));
    by_flag.is(0, &answer(3), "");
    // A link in another directory, as people put one into ~/bin, leads to the home all the same.
    let link = homes[1].path().join("logs").join(tool);
    symlink(&own, &link).unwrap();
    run(&mut bare_command(&link)).is(0, &answer(1), "");
}

/// Asserts what a tool which only tells something says when there is nothing sound to look at, or nobody to tell.
#[track_caller]
pub fn says_what_is_wrong(tool: &str) {
    let lost = Ran::of(&bare_command(&built().join(tool)).output().unwrap());
    lost.is(
        2,
        "",
        &format!(
            "{tool}: cannot find the app's home: this tool does not lie in one; say --home DIR or set CUTOVER_HOME\n"
        ),
    );
    let nowhere = Ran::of(&bare_command(&built().join(tool)).args(["--home", "/nowhere"]).output().unwrap());
    nowhere.is(2, "", &format!("{tool}: cannot open home /nowhere: No such file or directory (os error 2)\n"));

    let home = BareHome::numbered(1);
    home.run(tool, &["A1", "B1"])
        .fails(2, &[&format!("{tool}: unexpected argument '"), &format!("; see {tool} --help")]);
    home.enable("C");
    let link = home.path().canonicalize().unwrap().join("state/enabled");
    let reason = format!("{tool}: cannot tell what is enabled: {} names C, no instance\n", link.display());
    home.run(tool, &[]).is(3, "", &reason);

    home.enable("A1");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut unread = bare_command(&built().join(tool));
    Ran::of(&unread.arg("--home").arg(home.path()).stdout(writer).output().unwrap()).is(0, "", "");
}
