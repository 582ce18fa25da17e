//! What a build leaves behind never stands in the way of a deploy, whatever permissions it has and whoever owns it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::not_tested::not_tested;
use crate::ran::Ran;
use crate::site::{BRISK, Sample, Site};

/// A user who is not root: root may remove everything.
pub const USER: &str = "61234";

/// A site whose home is a user's, as which the tools run, with these sections of its configuration.
pub fn site_of_user(sections: &str) -> Option<Site> {
    if !nix::unistd::Uid::effective().is_root() {
        not_tested("a home of another user", "this is not root");
        return None;
    }
    let site = Site::new(Sample::Static, &format!("{BRISK}{sections}"));
    fs::set_permissions(site.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    chown(&site.home);
    Some(site)
}

/// One whose releases are built like this.
fn site(build: &str, more: &str) -> Option<Site> {
    site_of_user(&format!(
        "{more}[build]\ncommand = \"{build}\"\n[run]\ncommand = \"exec ./app\"\nstop_timeout = \"2s\"\n"
    ))
}

/// Gives all that lies there to the user.
pub fn chown(path: &Path) {
    let mut chown = Command::new("chown");
    assert!(chown.args(["-Rh", &format!("{USER}:{USER}")]).arg(path).status().unwrap().success());
}

/// Deploys the source's directory as this version.
pub fn deploy(site: &Site, version: &str) -> Ran {
    fs::write(site.source().join("VERSION"), format!("{version}\n")).unwrap();
    site.run("deploy", &["--from", site.source().to_str().unwrap()])
}

/// What is in the directory of releases and is none, in the order of the names.
pub fn left(site: &Site) -> Vec<String> {
    let mut left = site.releases();
    left.retain(|name| name.starts_with('.'));
    left
}

const READ_ONLY: &str = "mkdir -p cache/mod/x && touch cache/mod/x/go.mod && chmod -R a-w cache && chmod 0 cache/mod/x";

#[test]
fn read_only_directories_of_a_failed_build_are_removed() {
    let Some(site) = site(&format!("{READ_ONLY}; ! grep -q bad VERSION"), "") else { return };
    deploy(&site, "v1").ok();
    deploy(&site, "bad").fails(3, &["deploy: cannot build "]);
    assert_eq!(left(&site), Vec::<String>::new());
    deploy(&site, "v2").ok();
    assert_eq!(site.get("/"), (200, "v2\n".to_owned()));
}

#[test]
fn read_only_directories_of_old_releases_are_removed() {
    let Some(site) = site(READ_ONLY, "keep_releases = 1\n") else { return };
    for version in ["v1", "v2", "v3", "v4", "v5"] {
        let ran = deploy(&site, version);
        assert!(!ran.stderr.contains("cannot"), "{ran:?}");
        ran.ok();
        assert_eq!(left(&site), Vec::<String>::new());
    }
    assert_eq!(site.releases().len(), 2);
}

#[test]
fn files_of_somebody_else_are_left_and_told_once() {
    let Some(site) = site("true", "keep_releases = 1\n") else { return };
    deploy(&site, "v1").ok();
    // As a container in a build may leave them.
    let foreign = fs::canonicalize(site.home.join("instances/A")).unwrap().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("file"), "root's\n").unwrap();
    deploy(&site, "v2").ok();
    let release = foreign.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
    let third = deploy(&site, "v3");
    let told = format!(
        "deploy: cannot remove {}/.removed-{release}/foreign/file: Permission denied",
        site.home.join("releases").display()
    );
    assert!(third.stderr.contains(&told), "{third:?}");
    assert!(third.stderr.contains(&format!("/releases/.left-removed-{release}\n")), "{third:?}");
    third.ok();
    for version in ["v4", "v5"] {
        let ran = deploy(&site, version);
        assert!(!ran.stderr.contains("cannot"), "{ran:?}");
        ran.ok();
        assert_eq!(left(&site), [format!(".left-removed-{release}")]);
    }
    // Once it can be removed, it is.
    fs::remove_dir_all(site.home.join(format!("releases/.left-removed-{release}/foreign"))).unwrap();
    deploy(&site, "v6").ok();
    assert_eq!(left(&site), Vec::<String>::new());
}

#[test]
fn immutable_files_of_a_failed_build_are_left_and_told_once() {
    let Some(site) = site("! grep -q bad VERSION", "") else { return };
    deploy(&site, "v1").ok();
    let half = "20261121T093000Z-abcdef123456";
    let building = site.home.join("releases").join(half);
    let mark = site.home.join(format!("releases/.making-{half}"));
    fs::create_dir(&building).unwrap();
    fs::write(&mark, "").unwrap();
    chown(&mark);
    let file = building.join("immutable");
    fs::write(&file, "").unwrap();
    chown(&building);
    let chattr = |flag: &str, file: &Path| {
        Command::new("chattr").arg(flag).arg(file).status().is_ok_and(|status| status.success())
    };
    if !chattr("+i", &file) {
        not_tested("an immutable file", "this file system has none");
        return;
    }
    let failed = deploy(&site, "bad");
    let moved = site.home.join("releases/.left-removed-20261121T093000Z-abcdef123456/immutable");
    let again = deploy(&site, "v2");
    let names = left(&site);
    assert!(chattr("-i", &moved), "{failed:?}, {again:?}, {names:?}");
    failed.fails(3, &["deploy: cannot build "]);
    assert!(failed.stderr.contains("/immutable: Operation not permitted"), "{failed:?}");
    assert!(!again.stderr.contains("cannot"), "{again:?}");
    again.ok();
    assert_eq!(site.get("/"), (200, "v2\n".to_owned()));
    assert!(!mark.exists() && !building.exists(), "what was left of it looks like a release");
}
