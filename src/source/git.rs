//! The bare mirror of the source: fetching it, finding the commit that a ref names, laying out its files.
//!
//! The mirror is a copy and nothing more: one that git cannot work with, as a power cut may leave it, is made anew.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::address::Address;
use super::version::{self, Latest};
use crate::app::config::LATEST_TAG;
use crate::app::{App, ReleaseId};
use crate::command::{self, Output, Run};
use crate::deadline::Deadline;
use crate::durable;
use crate::outcome::{exit_of, failure, usage};
use crate::removal;

/// How long git may take to look something up in the mirror.
const LOCAL: Duration = Duration::from_secs(20);

/// There is nothing of this name.
#[derive(Debug)]
pub struct UnknownRef {
    reference: String,
    source: String,
}

impl fmt::Display for UnknownRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let UnknownRef { reference, source } = self;
        write!(f, "cannot find ref {reference:?}: no branch, tag or commit of {source}")
    }
}

impl std::error::Error for UnknownRef {}

/// Brings the mirror up to date and finds the commit that `reference` names: a branch, a tag, a commit, or `latest-tag`.
pub fn commit(app: &App, reference: &str, deadline: Deadline) -> Result<String> {
    let source = configured(app)?;
    mending(app, deadline, || fetch_all(app, deadline))?;
    let unknown = || UnknownRef { reference: reference.to_owned(), source: source.to_string() }.into();
    if reference == LATEST_TAG {
        let tag = latest_tag(app, deadline)?;
        return resolve(app, &format!("refs/tags/{tag}"), deadline);
    }
    // A whole hash is the commit, whatever somebody may have called a branch.
    let names = [format!("refs/heads/{reference}"), format!("refs/tags/{reference}")];
    for named in names.into_iter().filter(|_| !is_whole_hash(reference)) {
        if let Ok(commit) = resolve(app, &named, deadline) {
            return Ok(commit);
        }
    }
    let is_hash = (4..=64).contains(&reference.len()) && reference.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hash {
        return Err(unknown());
    }
    resolve(app, reference, deadline).or_else(|_| {
        // A commit that no branch or tag leads to: servers give it out when it is asked for by its full hash.
        fetch(app, &[&source.to_string(), reference], deadline)
            .and_then(|()| resolve(app, reference, deadline))
            .map_err(|_| unknown())
    })
}

/// The commit that a branch, a tag or `latest-tag` is at now, as the source itself says. None: there is none of this name;
/// a commit may be meant.
pub fn remote_head(app: &App, reference: &str, deadline: Deadline) -> Result<Option<String>> {
    if is_whole_hash(reference) {
        return Ok(None);
    }
    let source = configured(app)?;
    let listed = |patterns: &[String]| -> Result<String> {
        let asked = list(app, patterns, deadline);
        Ok(asked.with_context(|| format!("cannot ask {source}"))?.stdout)
    };
    let commit = |listed: &str, name: &String| {
        let mut lines = listed.lines().filter_map(|line| line.split_once('\t'));
        lines.find(|(_, listed)| listed == name).map(|(commit, _)| commit.to_owned())
    };
    // In the order in which they count; `^{}` is what an annotated tag points to.
    let tagged = |tag: &str| [format!("refs/tags/{tag}^{{}}"), format!("refs/tags/{tag}")];
    if reference == LATEST_TAG {
        let tags = listed(&["refs/tags/*".to_owned()])?;
        let names = tags.lines().filter_map(|line| line.split_once("\trefs/tags/")).map(|(_, name)| name);
        let Latest::Tag(latest) = version::latest(names.filter(|name| !name.ends_with("^{}")))? else {
            return Ok(None);
        };
        return Ok(tagged(latest).iter().find_map(|name| commit(&tags, name)));
    }
    let [peeled, tag] = tagged(reference);
    let names = [format!("refs/heads/{reference}"), peeled, tag];
    let listed = listed(&names)?;
    Ok(names.iter().find_map(|name| commit(&listed, name)))
}

/// Lays out the files of a commit in a directory.
pub fn check_out(app: &App, commit: &str, directory: &Path, deadline: Deadline) -> Result<()> {
    // By its name it goes with the next sweep, should this be killed.
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    let index = directory.with_file_name(format!(".index-{name}"));
    let work_tree = directory.as_os_str().to_owned();
    let words = ["--work-tree".into(), work_tree, "read-tree".into(), "--reset".into(), "-u".into(), commit.into()];
    let lay = || {
        let reading = git(app, words.clone())?.environment([("GIT_INDEX_FILE", index.as_os_str())]);
        output(app, reading, deadline).map(drop).with_context(|| format!("cannot check out {commit}"))
    };
    let laid = mending(app, deadline, lay);
    let removed = durable::remove_if_there(&index).with_context(|| format!("cannot remove {}", index.display()));
    laid.and(removed)
}

/// Where a commit has submodules: only their commits are in it, not their files.
pub fn submodules(app: &App, commit: &str, deadline: Deadline) -> Result<Vec<String>> {
    let listed = output(app, git(app, ["ls-tree", "-r", "-z", "--full-tree", commit])?, deadline)?.stdout;
    let entries = listed.split_terminator('\0').filter_map(|entry| entry.split_once('\t'));
    Ok(entries.filter(|(about, _)| about.starts_with("160000 ")).map(|(_, path)| path.to_owned()).collect())
}

/// Works on the mirror. When that fails although the source answers, it is tried once more, and then with a mirror made
/// anew; the failure that is told is the first.
fn mending(app: &App, deadline: Deadline, work: impl Fn() -> Result<()>) -> Result<()> {
    let Err(failure) = work() else { return Ok(()) };
    if list(app, &["HEAD".to_owned()], deadline).is_err() {
        return Err(failure);
    }
    let renew = || -> Result<()> {
        removal::tree(&app.mirror())?;
        fetch_all(app, deadline)?;
        work()
    };
    work().or_else(|_| renew()).map_err(|_| failure)
}

/// Brings all branches and tags of the mirror up to date.
fn fetch_all(app: &App, deadline: Deadline) -> Result<()> {
    let source = address(app).to_string();
    fetch(app, &["--prune", "--force", &source, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"], deadline)
        .with_context(|| format!("cannot fetch {source}"))
}

fn fetch(app: &App, arguments: &[&str], deadline: Deadline) -> Result<()> {
    let mirror = app.mirror();
    if !is_sound(&mirror) {
        removal::tree(&mirror)?;
    }
    if !mirror.join("HEAD").exists() {
        // Which hashes it has, its owner may have configured.
        output(app, on_mirror(app, ["init", "--quiet", "--bare", "--template="])?, deadline)
            .context("cannot make the mirror")?;
    }
    remove_stale_locks(&mirror)?;
    // Housekeeping is for when there is something new: see tidy.
    let plain = ["-c", "gc.auto=0", "-c", "maintenance.auto=false"];
    // git by itself leaves small objects to the kernel's own time.
    let flushed = ["-c", "core.fsync=all", "fetch", "--quiet"];
    let source = address(app);
    let words = plain.iter().chain(&flushed).chain(arguments).map(OsString::from);
    let fetching = on_mirror(app, source.options().into_iter().chain(words))?.environment(source.environment());
    output(app, fetching, deadline).map(drop)
}

/// Packs the mirror's objects where they have become many. In the foreground: a child in the background would outlive the
/// deploy.
pub fn tidy(app: &App, deadline: Deadline) -> Result<()> {
    let words = ["-c", "gc.autoDetach=false", "-c", "core.fsync=all", "gc", "--auto", "--quiet"];
    output(app, git(app, words)?, deadline).map(drop).context("cannot tidy the mirror")
}

/// Keeps in the mirror of which commit a release is: its name has twelve digits of that only, and such a twin of a commit can be
/// made.
pub fn keep(app: &App, release: &ReleaseId, commit: &str, deadline: Deadline) -> Result<()> {
    let kept = output(app, git(app, ["update-ref", &kept_as(release), commit])?, deadline);
    kept.map(drop).with_context(|| format!("cannot keep of which commit {release} is"))
}

/// The commit that was kept for a release; None: none was, or the mirror was made anew since.
pub fn kept(app: &App, release: &ReleaseId) -> Option<String> {
    resolve(app, &kept_as(release), Deadline::after(LOCAL)).ok()
}

/// Forgets it. One that stays costs nothing but its commit.
pub fn forget(app: &App, release: &ReleaseId) {
    let _ = git(app, ["update-ref", "-d", &kept_as(release)]).and_then(|git| output(app, git, Deadline::after(LOCAL)));
}

fn kept_as(release: &ReleaseId) -> String {
    format!("refs/cutover/{release}")
}

fn resolve(app: &App, named: &str, deadline: Deadline) -> Result<String> {
    let commit = format!("{named}^{{commit}}");
    let found = git(app, ["rev-parse", "--verify", "--quiet", "--end-of-options", &commit])?;
    let found = output(app, found, deadline)?;
    Ok(found.stdout.trim().to_owned())
}

/// Whether a reference is a whole hash, of SHA-1 or SHA-256.
fn is_whole_hash(reference: &str) -> bool {
    [40, 64].contains(&reference.len()) && reference.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The tag with the highest version that is for everybody.
fn latest_tag(app: &App, deadline: Deadline) -> Result<String> {
    let listing = ["for-each-ref", "--format=%(objecttype) %(*objecttype) %(refname:strip=2)", "refs/tags"];
    let listed = output(app, git(app, listing)?, deadline).context("cannot list the tags")?.stdout;
    // A tag may be on anything, such as a key; and on another tag, which has to be followed to tell.
    let of_commits = listed.lines().filter_map(|line| match line.splitn(3, ' ').collect::<Vec<&str>>()[..] {
        ["commit", _, name] | [_, "commit" | "tag", name] => Some(name),
        _ => None,
    });
    let source = address(app);
    match version::latest(of_commits)? {
        Latest::Tag(tag) => Ok(tag.to_owned()),
        Latest::PreRelease(tag) => Err(anyhow!(
            "cannot find the latest tag: {source} has pre-releases only, such as {tag}; name the one that is wanted as the ref"
        )),
        Latest::None => Err(anyhow!("cannot find the latest tag: {source} has no tag that is a version")),
    }
}

/// The source's address, if there is one that can be used.
fn configured(app: &App) -> Result<Address> {
    if app.config.source.git.is_empty() {
        let remedy = "say --from PATH, or name the repository in [source] of the configuration";
        return Err(usage(format!("cannot tell what to deploy: {remedy}")));
    }
    let source = address(app);
    source.check()?;
    Ok(source)
}

fn address(app: &App) -> Address {
    Address::of(&app.config.source.git)
}

/// What git says that the source has of these names.
fn list(app: &App, patterns: &[String], deadline: Deadline) -> Result<Output> {
    let source = address(app);
    let words = ["ls-remote", "--quiet"].into_iter().map(OsString::from);
    let words = source.options().into_iter().chain(words).chain([source.to_string().into()]);
    let listing = without_questions(app, words.chain(patterns.iter().map(OsString::from)))?;
    output(app, listing.environment(source.environment()), deadline)
}

/// Runs git. What is secret in the source's URL is in no error, whatever git, or the server through it, has said.
fn output(app: &App, git: Run, deadline: Deadline) -> Result<Output> {
    let source = address(app);
    git.output(deadline).map_err(|error| failure(exit_of(&error), source.hide(&format!("{error:#}"))))
}

/// git on the mirror, as it is on any account and machine: no configuration of theirs changes line ends, filters, or what git
/// prints.
fn git(app: &App, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Run> {
    let mirror = app.mirror();
    let nowhere = [("HOME", mirror.as_os_str()), ("XDG_CONFIG_HOME", mirror.as_os_str())];
    let alone = ["GIT_CONFIG_NOSYSTEM", "GIT_ATTR_NOSYSTEM"].map(|name| (name, OsStr::new("1")));
    Ok(on_mirror(app, arguments)?.environment(nowhere).environment(alone))
}

/// git on the mirror, with what its owner has configured.
fn on_mirror(app: &App, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Run> {
    let words = [OsString::from("--git-dir"), app.mirror().into()];
    without_questions(app, words.into_iter().chain(arguments.into_iter().map(Into::into)))
}

/// git that cannot ask anything: it has no terminal, and every question for a password is answered with nothing. Host keys
/// and credentials come from the owner's own ~/.ssh and git configuration; hooks that this configuration names are not run: the
/// app can write it, from within its unit.
fn without_questions(app: &App, words: impl IntoIterator<Item = OsString>) -> Result<Run> {
    let without_hooks = ["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false"].map(OsString::from);
    let silent = [("GIT_TERMINAL_PROMPT", "0"), ("GIT_ASKPASS", "true"), ("SSH_ASKPASS_REQUIRE", "never")];
    let git = Run::new(&command::find("git")?, without_hooks.into_iter().chain(words));
    // Packing objects takes as much memory as a build; and a server may never stop sending what git keeps in memory.
    Ok(git.environment(app.plain_environment()).environment(silent).directory(app.home()).expendable().bounded())
}

/// Whether a mirror, if it is there, holds files and directories only, as git has made them. A pipe in a file's place, which a
/// build could have left, would be waited for, by each deploy anew.
fn is_sound(directory: &Path) -> bool {
    fs::read_dir(directory).into_iter().flatten().flatten().all(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => is_sound(&entry.path()),
        kind => kind.is_ok_and(|kind| kind.is_file()),
    })
}

/// Removes the lock files that a killed git left. Nobody else works on the mirror: the caller holds the deploy lock, and
/// git dies with the tool that ran it.
fn remove_stale_locks(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?.flatten() {
        let path = entry.path();
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_directory && entry.file_name() != "objects" {
            remove_stale_locks(&path)?;
        } else if path.extension().is_some_and(|extension| extension == "lock") {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}
