//! The bare mirror of the source: fetching it, finding the commit that a ref names, laying out its files.
//!
//! The mirror is a copy and nothing more: one that git cannot work with, as a power cut may leave it, is made anew.

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use regex::Regex;

use crate::app::App;
use crate::app::config::LATEST_TAG;
use crate::command::{self, Run};
use crate::deadline::Deadline;
use crate::durable;

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
    let url = &app.config.source.git;
    mending(app, deadline, || fetch_all(app, deadline))?;
    let unknown = || UnknownRef { reference: reference.to_owned(), source: without_password(url) }.into();
    if reference == LATEST_TAG {
        let tag = latest_tag(app, deadline)?;
        return resolve(app, &format!("refs/tags/{tag}"), deadline);
    }
    for named in [format!("refs/heads/{reference}"), format!("refs/tags/{reference}")] {
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
        fetch(app, &[url, reference], deadline).and_then(|()| resolve(app, reference, deadline)).map_err(|_| unknown())
    })
}

/// The commit that a branch, a tag or `latest-tag` is at now, as the source itself says. None: there is none of this name;
/// a commit may be meant.
pub fn remote_head(app: &App, reference: &str, deadline: Deadline) -> Result<Option<String>> {
    let url = &app.config.source.git;
    let listed = |patterns: &[String]| -> Result<String> {
        let words = [&SORTED[..], &["ls-remote", "--quiet", "--sort=-version:refname", url]].concat();
        let words = words.into_iter().chain(patterns.iter().map(String::as_str));
        let asked = without_questions(app, Run::new(&command::find("git")?, words)).output(deadline);
        Ok(asked.with_context(|| format!("cannot ask {}", without_password(url)))?.stdout)
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
        let names = names.filter(|name| !name.ends_with("^{}"));
        let latest = highest_version(names)?;
        return Ok(latest.and_then(|latest| tagged(latest).iter().find_map(|name| commit(&tags, name))));
    }
    let [peeled, tag] = tagged(reference);
    let names = [format!("refs/heads/{reference}"), peeled, tag];
    let listed = listed(&names)?;
    Ok(names.iter().find_map(|name| commit(&listed, name)))
}

/// Lays out the files of a commit in a directory.
pub fn check_out(app: &App, commit: &str, directory: &Path, deadline: Deadline) -> Result<()> {
    let index = directory.with_extension("index");
    let work_tree = directory.as_os_str().to_owned();
    let words = ["--work-tree".into(), work_tree, "read-tree".into(), "--reset".into(), "-u".into(), commit.into()];
    let lay = || {
        let reading = git(app, words.clone())?.environment([("GIT_INDEX_FILE", index.as_os_str())]);
        reading.output(deadline).map(drop).with_context(|| format!("cannot check out {commit}"))
    };
    let laid = mending(app, deadline, lay);
    let removed = durable::remove_if_there(&index).with_context(|| format!("cannot remove {}", index.display()));
    laid.and(removed)
}

/// Works on the mirror. When that fails although the source answers, it is tried once more, and then with a mirror made
/// anew; the failure that is told is the first.
fn mending(app: &App, deadline: Deadline, work: impl Fn() -> Result<()>) -> Result<()> {
    let Err(failure) = work() else { return Ok(()) };
    let question = Run::new(&command::find("git")?, ["ls-remote", "--quiet", &app.config.source.git, "HEAD"]);
    if without_questions(app, question).output(deadline).is_err() {
        return Err(failure);
    }
    let renew = || -> Result<()> {
        fs::remove_dir_all(app.mirror())?;
        fetch_all(app, deadline)?;
        work()
    };
    work().or_else(|_| renew()).map_err(|_| failure)
}

/// Brings all branches and tags of the mirror up to date.
fn fetch_all(app: &App, deadline: Deadline) -> Result<()> {
    let url = &app.config.source.git;
    fetch(app, &["--prune", "--force", url, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"], deadline)
        .with_context(|| format!("cannot fetch {}", without_password(url)))
}

fn fetch(app: &App, arguments: &[&str], deadline: Deadline) -> Result<()> {
    let mirror = app.mirror();
    if !mirror.join("HEAD").exists() {
        git(app, ["init", "--quiet", "--bare"])?.output(deadline).context("cannot make the mirror")?;
    }
    remove_stale_locks(&mirror)?;
    // Housekeeping is for when there is something new: see tidy.
    let plain = ["-c", "gc.auto=0", "-c", "maintenance.auto=false"];
    // git by itself leaves small objects to the kernel's own time.
    let flushed = ["-c", "core.fsync=all", "fetch", "--quiet"];
    git(app, plain.iter().chain(&flushed).chain(arguments))?.output(deadline).map(drop)
}

/// Packs the mirror's objects where they have become many. In the foreground: a child in the background would outlive the
/// deploy.
pub fn tidy(app: &App, deadline: Deadline) -> Result<()> {
    let words = ["-c", "gc.autoDetach=false", "-c", "core.fsync=all", "gc", "--auto", "--quiet"];
    git(app, words)?.output(deadline).map(drop).context("cannot tidy the mirror")
}

fn resolve(app: &App, named: &str, deadline: Deadline) -> Result<String> {
    let commit = format!("{named}^{{commit}}");
    let found = git(app, ["rev-parse", "--verify", "--quiet", "--end-of-options", &commit])?.output(deadline)?;
    Ok(found.stdout.trim().to_owned())
}

/// The tag with the highest version.
fn latest_tag(app: &App, deadline: Deadline) -> Result<String> {
    let listing = ["for-each-ref", "--sort=-version:refname", "--format=%(refname:strip=2)", "refs/tags"];
    let listed = git(app, SORTED.into_iter().chain(listing))?.output(deadline).context("cannot list the tags")?.stdout;
    highest_version(listed.lines())?.map(str::to_owned).ok_or_else(|| {
        anyhow!("cannot find the latest tag: {} has no tag that is a version", without_password(&app.config.source.git))
    })
}

/// git's option by which `v2-rc1` comes before `v2`.
const SORTED: [&str; 2] = ["-c", "versionsort.suffix=-"];

/// The first of these tags, which git has sorted, that is a version.
fn highest_version<'a>(mut tags: impl Iterator<Item = &'a str>) -> Result<Option<&'a str>> {
    let version = Regex::new(r"^v?\d+(\.\d+)*([-+.].*)?$").context("cannot compile the pattern of a version")?;
    Ok(tags.find(|tag| version.is_match(tag)))
}

/// git on the mirror.
fn git(app: &App, arguments: impl IntoIterator<Item = impl Into<std::ffi::OsString>>) -> Result<Run> {
    let mirror = app.mirror();
    let words =
        [std::ffi::OsString::from("--git-dir"), mirror.into()].into_iter().chain(arguments.into_iter().map(Into::into));
    Ok(without_questions(app, Run::new(&command::find("git")?, words)))
}

/// git that cannot ask anything: it has no terminal, and every question for a password is answered with nothing. Host keys
/// and credentials come from the owner's own ~/.ssh and git configuration.
fn without_questions(app: &App, git: Run) -> Run {
    let silent = [("GIT_TERMINAL_PROMPT", "0"), ("GIT_ASKPASS", "true"), ("SSH_ASKPASS_REQUIRE", "never")];
    git.environment(app.plain_environment()).environment(silent).directory(app.home())
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

/// A URL as it may be shown: without what stands between `//` and `@`.
fn without_password(url: &str) -> String {
    match url.split_once("://").map(|(scheme, rest)| (scheme, rest.split_once('@'))) {
        Some((scheme, Some((_, rest)))) => format!("{scheme}://{rest}"),
        _ => url.to_owned(),
    }
}
