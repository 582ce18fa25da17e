//! Completion in bash, zsh and fish: what each of them offers, asked at a terminal, as people ask it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use cutover::layout::TOOLS;

use crate::bare_home::BareHome;
use crate::not_tested::not_tested;
use crate::pty::typed;
use crate::site::{BRISK, Ran, Sample, Site, built, chmod};

/// bash's start-up file. When OFFERED is set, a Tab writes into that file what is offered, and ends the shell.
const BASHRC: &str = r#"
. COMPLETIONS/cutover.bash
bind '"\eq": kill-whole-line'
[[ ! $OFFERED ]] || eval "real$(declare -f _cutover)
_cutover() { real_cutover \"\$@\"; printf '%s\\n' \"\${COMPREPLY[@]}\" >\"\$OFFERED\"; exit; }"
"#;

/// zsh's: the same.
const ZSHRC: &str = r#"
fpath=(COMPLETIONS $fpath)
autoload -Uz compinit && compinit -u
bindkey '\eq' kill-whole-line
if [[ -n $OFFERED ]]; then
    compadd() {
        local -a offered
        if [[ ${@[1,(i)(-|--)]} != *-(O|A|D)\ * ]]; then
            builtin compadd -O offered "$@"
            print -rl -- $offered >>$OFFERED
        fi
        builtin compadd "$@"
    }
    offer() { _main_complete; exit }
    zle -C offer complete-word offer
    bindkey '^I' offer
fi
"#;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

use Shell::{Bash, Fish, Zsh};

/// A site whose owner has the tools in the PATH, and completion in every shell, as docs/install.md says.
struct Desk {
    site: Site,
}

impl Desk {
    fn new() -> Desk {
        let site = Site::new(Sample::Static, BRISK);
        let (home, completions) = (site.directory.path(), completions());
        let with_place = |text: &str| text.replace("COMPLETIONS", completions.to_str().unwrap());
        fs::write(home.join(".bashrc"), with_place(BASHRC)).unwrap();
        fs::write(home.join(".zshrc"), with_place(ZSHRC)).unwrap();
        fs::create_dir_all(home.join(".config/fish/conf.d")).unwrap();
        fs::copy(completions.join("cutover.fish"), home.join(".config/fish/conf.d/cutover.fish")).unwrap();
        Desk { site }
    }

    /// A shell that takes the terminal which it is given, about to run.
    fn interactive(&self, shell: Shell) -> Command {
        let words: &[&str] = match shell {
            Bash => &["bash", "--rcfile", ".bashrc", "-i"],
            Zsh => &["zsh", "-d", "-i"],
            Fish => &["fish", "-i"],
        };
        self.program(&[&["setsid", "--ctty"], words].concat())
    }

    /// A program of the owner's, about to run, and killed if it has not ended after a minute.
    fn program(&self, words: &[&str]) -> Command {
        let mut command = self.site.command(Path::new("timeout"));
        command.args(["--signal=KILL", "60"]).args(words);
        let path = std::env::join_paths([self.site.home.join("bin"), "/usr/bin".into(), "/bin".into()]).unwrap();
        command.env("PATH", path).env("TERM", "dumb").env("LANG", "C.UTF-8");
        command
    }

    /// What is seen of a shell in which these keys are pressed.
    fn typed(&self, shell: Shell, keys: &str) -> String {
        typed(self.interactive(shell), &format!("{keys}\nexit\n"))
    }

    /// What a shell offers for the last word of a line.
    fn offered(&self, shell: Shell, line: &str) -> Vec<String> {
        if shell == Fish {
            let told = Ran::run(&mut self.program(&["fish", "-c", "complete -C $argv[1]", line])).ok();
            return told.lines().map(|offer| offer.split('\t').next().unwrap().to_owned()).collect();
        }
        let file = self.site.directory.path().join("offered");
        fs::write(&file, "").unwrap();
        let mut command = self.interactive(shell);
        command.env("OFFERED", &file);
        typed(command, &format!("{line}\t\u{1b}qexit\n"));
        fs::read_to_string(&file).unwrap().lines().filter(|offer| !offer.is_empty()).map(str::to_owned).collect()
    }

    #[track_caller]
    fn offers(&self, line: &str, expected: &[&str]) {
        for shell in [Bash, Zsh, Fish] {
            // fish offers the whole word.
            let option =
                line.rsplit(' ').next().unwrap().split_inclusive('=').next().filter(|word| word.ends_with('='));
            let offered = self.offered(shell, line);
            let values = offered.iter().map(|word| option.and_then(|option| word.strip_prefix(option)).unwrap_or(word));
            assert_eq!(values.collect::<Vec<_>>(), expected, "{shell:?}: {line}");
        }
    }

    /// Asserts what is seen of all shells in which these keys are pressed.
    #[track_caller]
    fn shows(&self, keys: &str, expected: &str) {
        for shell in [Bash, Zsh, Fish] {
            let seen = self.typed(shell, keys);
            assert!(seen.contains(expected), "{shell:?}: {keys:?} does not show {expected:?}: {seen}");
        }
    }
}

fn completions() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("completions")
}

/// The long options that a tool's help lists.
fn options(tool: &str) -> BTreeSet<String> {
    let help = Ran::run(Command::new(built().join(tool)).arg("--help")).ok();
    let signatures = help.lines().filter_map(|line| line.trim_start().split("  ").next());
    let words = signatures.filter(|signature| signature.starts_with('-')).flat_map(|signature| signature.split(' '));
    words.filter(|word| word.starts_with("--")).map(str::to_owned).collect()
}

#[test]
fn each_shell_knows_each_tool_and_offers_its_options() {
    let desk = Desk::new();
    for tool in TOOLS {
        let expected = options(tool);
        assert!(expected.contains("--help"), "{expected:?}");
        for shell in [Bash, Zsh, Fish] {
            let offered: BTreeSet<String> = desk.offered(shell, &format!(".shop/bin/{tool} --")).into_iter().collect();
            // To what fish knows of its own history, whatever it is called by, one can only add.
            let is_right = if (shell, tool) == (Fish, "history") { BTreeSet::is_superset } else { BTreeSet::eq };
            assert!(is_right(&offered, &expected), "{shell:?}: {tool}: {offered:?}");
        }
    }
}

#[test]
fn values_are_those_of_the_home_that_the_tool_finds() {
    let desk = Desk::new();
    desk.offers("start-instance ", &["A", "B"]);
    for version in ["v1", "v2", "v3"] {
        desk.site.commit(version, "");
        desk.site.run("deploy", &[]).ok();
    }
    let releases = desk.site.run("history", &["--releases"]).ok();
    let releases: Vec<&str> = releases.lines().collect();
    assert_eq!(releases.len(), 2);
    desk.offers("rollback --to ", &releases);
    desk.offers("~/.shop/bin/rollback --wait --to=", &releases);
    desk.site.git(&["branch", "feature/x"]);
    desk.site.git(&["tag", "v1.0"]);
    desk.site.run("deploy", &["--ref", "feature/x"]).ok();
    desk.offers("deploy --ref ", &["feature/x", "main", "v1.0", "latest-tag"]);
    desk.offers("update-instance --wait --ref=f", &["feature/x"]);
    desk.offers("logs -n ", &[]);

    let other = BareHome::numbered(1);
    let place = other.path().to_str().unwrap();
    desk.offers(&format!("logs --home {place} -f "), &["A1", "B1"]);
    desk.offers(&format!("logs --home={place} "), &["A1", "B1"]);
    desk.offers(&format!("rollback --home {place} --to "), &[]);
    let [older, newer] = ["20260101T000001Z-def", "20260101T000002Z-abc"];
    for release in [older, newer] {
        fs::write(other.path().join(format!("logs/build-{release}.log")), "").unwrap();
    }
    desk.offers(&format!("logs --home {place} --build 2"), &[newer, older]);
    desk.offers(&format!("logs --home {place} --build --gr"), &["--grep"]);
    desk.offers("logs --build 2", &[]);
    desk.offers(&format!("deploy --home {place} --ref "), &[]);
    desk.shows(&format!("export CUTOVER_HOME={place}\nstart-instance B\t\n"), "cannot start B1: ");
    fs::write(other.path().join("config.toml"), "app = \"shop\"\n").unwrap();
    desk.offers(&format!("logs --home {place} "), &["A", "B"]);
    for shell in [Bash, Zsh, Fish] {
        let users = desk.offered(shell, "install --user ro");
        assert!(users.contains(&"root".to_owned()), "{shell:?}: {users:?}");
    }
}

#[test]
fn files_and_directories_are_completed_as_the_shell_does() {
    let desk = Desk::new();
    let at_home = |name: &str| desk.site.directory.path().join(name);
    fs::create_dir(at_home("with space")).unwrap();
    desk.site.run("deploy", &[]).ok();
    desk.shows("deploy --dry-run --from so\t\n", &format!(" --from {}", at_home("source").display()));
    desk.shows("deploy --dry-run --from=wi\t\n", &format!(" --from '{}'", at_home("with space").display()));
    let config = fs::read_to_string(desk.site.config()).unwrap();
    fs::write(at_home("other.toml"), format!("surely-unknown = 1\n{config}")).unwrap();
    desk.shows("install --dry-run --config ot\t\n", "install: cannot use other.toml: ");
    // A file is no home.
    fs::write(at_home(".shy"), "").unwrap();
    desk.shows("enabled-instance --home .sh\t\n", "A\r\n");
}

#[test]
fn what_a_branch_is_called_is_not_run() {
    let desk = Desk::new();
    let name = "$(touch${IFS}pwned)";
    desk.site.git(&["branch", name]);
    desk.site.run("deploy", &[]).ok();
    desk.shows("deploy --dry-run --ref \\$\t\n", &format!("update-instance B --ref '{name}' && "));
    assert!(!desk.site.directory.path().join("pwned").exists());
}

#[test]
fn another_program_of_a_tools_name_is_not_called() {
    let desk = Desk::new();
    let other = desk.site.directory.path().join("other");
    fs::create_dir(&other).unwrap();
    for tool in ["deploy", "install"] {
        fs::write(other.join(tool), "#!/bin/sh\ntouch called\n").unwrap();
        chmod(&other.join(tool), 0o755);
    }
    for line in ["other/deploy --", "other/install --", "history --re", "other/rollback --to "] {
        for shell in [Bash, Zsh, Fish] {
            let offered = desk.offered(shell, line);
            let is_ours = |word: &String| ["--version", "--releases"].contains(&word.as_str());
            assert!(!offered.iter().any(is_ours), "{shell:?}: {line}: {offered:?}");
        }
    }
    assert!(!desk.site.directory.path().join("called").exists());
    // The archive has an install beside the tools' directory, which calls the tool.
    symlink(built(), other.join("bin")).unwrap();
    for shell in [Bash, Zsh, Fish] {
        assert!(desk.offered(shell, "other/install --").contains(&"--purge".to_owned()), "{shell:?}");
    }
    assert!(!desk.site.directory.path().join("called").exists());
}

#[test]
fn a_tool_of_another_users_is_not_called() {
    if !nix::unistd::Uid::effective().is_root() {
        return not_tested("completing another user's tools", "this is not root");
    }
    let desk = Desk::new();
    desk.offers("deploy --dr", &["--dry-run"]);
    chown(desk.site.home.join("bin/deploy"), Some(65534), None).unwrap();
    for shell in [Bash, Zsh, Fish] {
        assert_eq!(desk.offered(shell, "deploy --dr"), Vec::<String>::new(), "{shell:?}");
    }
}

#[test]
fn git_is_not_run_in_a_repository_of_another_users() {
    if !nix::unistd::Uid::effective().is_root() {
        return not_tested("completing in another user's home", "this is not root");
    }
    let desk = Desk::new();
    let home = desk.site.directory.path().join("other");
    fs::create_dir(&home).unwrap();
    fs::copy(desk.site.home.join("config.toml"), home.join("config.toml")).unwrap();
    desk.site.git(&["clone", "--quiet", "--bare", ".", home.join("repo.git").to_str().unwrap()]);
    // It is in the PATH before git itself.
    let (git, called) = (desk.site.home.join("bin/git"), desk.site.directory.path().join("called"));
    fs::write(&git, format!("#!/bin/sh\ntouch {}\nexec /usr/bin/git \"$@\"\n", called.display())).unwrap();
    chmod(&git, 0o755);
    let line = "deploy --home other --ref ";
    desk.offers(line, &["main", "latest-tag"]);
    fs::remove_file(&called).unwrap();
    for theirs in [&["other"][..], &["other/repo.git"], &["other", "other/repo.git"]] {
        for place in theirs {
            chown(desk.site.directory.path().join(place), Some(65534), None).unwrap();
        }
        for shell in [Bash, Zsh, Fish] {
            let offered = desk.offered(shell, line);
            assert!(!offered.contains(&"main".to_owned()), "{shell:?}: {theirs:?}: {offered:?}");
        }
        assert!(!called.exists(), "{theirs:?}");
        for place in theirs {
            chown(desk.site.directory.path().join(place), Some(0), None).unwrap();
        }
    }
    desk.offers(line, &["main", "latest-tag"]);
}
