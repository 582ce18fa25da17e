//! Users who may start no more processes: nothing aborts, and what can still be done is done.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use cutover::lock;
use cutover::process::Process;

use crate::not_tested::not_tested;
use crate::pushed_site::SECTION;
use crate::ran::Ran;
use crate::site::{BRISK, Sample, Site, eventually, get};

/// A site whose home is this user's, who has no other processes.
fn site(user: u32, more: &str) -> Option<Site> {
    if !nix::unistd::Uid::effective().is_root() {
        not_tested("limits of another user", "this is not root");
        return None;
    }
    let site = Site::new(Sample::Static, &format!("{BRISK}{more}"));
    // The listener that install has started is root's.
    if let Some((listener, _)) = lock::holder(&site.home.join("run/on-push.lock")).unwrap() {
        site.shell(&format!("kill {listener}")).ok();
        eventually("the listener is gone", || Process::with_pid(listener).is_none());
    }
    fs::set_permissions(site.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut chown = Command::new("chown");
    assert!(chown.args(["-R", &format!("{user}:{user}")]).arg(&site.home).status().unwrap().success());
    Some(site)
}

/// A tool as the home's user, who may have so many processes in all.
fn limited(site: &Site, count: usize, tool: &str, arguments: &[&str]) -> Command {
    let user = fs::metadata(&site.home).unwrap().uid();
    let mut command = site.command(Path::new("setpriv"));
    command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups", "prlimit"]);
    command.arg(format!("--nproc={count}")).arg(site.home.join("bin").join(tool)).args(arguments);
    command
}

/// The statuses of so many requests, one after the other, to a listener that may have so many processes.
fn answers(site: &Site, processes: usize, requests: usize) -> Vec<u16> {
    let port = site.ports.push;
    let address = format!("127.0.0.1:{port}");
    let mut listener: Child =
        limited(site, processes, "on-push", &["--listen", &address]).stderr(Stdio::null()).spawn().unwrap();
    eventually("it listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    let answers = (0..requests).map(|_| get(port, "/x").0).collect();
    assert!(listener.try_wait().unwrap().is_none(), "the listener has ended");
    listener.kill().unwrap();
    listener.wait().unwrap();
    answers
}

#[test]
fn a_listener_without_threads_serves_one_after_the_other() {
    let Some(site) = site(61240, SECTION) else { return };
    assert_eq!(answers(&site, 2, 4), [404; 4]);
}

#[test]
fn a_listener_without_processes_says_503_and_goes_on() {
    let Some(site) = site(61241, SECTION) else { return };
    assert_eq!(answers(&site, 1, 4), [503; 4]);
}

#[test]
fn status_needs_no_threads() {
    let Some(site) = site(61245, "") else { return };
    let ran = Ran::of(&limited(&site, 1, "status", &[]).output().unwrap());
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    assert!(ran.stdout.contains("shop"), "{ran:?}");
}

#[test]
fn a_tool_that_may_start_nothing_says_what() {
    let Some(site) = site(61246, "") else { return };
    let from = site.source();
    let deploy =
        |count| Ran::of(&limited(&site, count, "deploy", &["--from", from.to_str().unwrap()]).output().unwrap());
    let lacking = "Resource temporarily unavailable";
    deploy(1).fails(3, &["deploy: cannot lay out ", &format!(": cannot run cp: {lacking}")]);
    // The tool and the leash, but no program.
    deploy(2).fails(3, &["deploy: cannot lay out ", &format!(": cannot run cp: {lacking}")]);
    // With one more cp runs. The instance needs as many: the tool, its supervise and its leash leave none for the app.
    deploy(3).fails(3, &["deploy: cannot start ", ": its supervise ended: cannot run ", lacking]);
}
