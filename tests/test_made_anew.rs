//! What a release is made from and with: what builds may rely on, and what makes another release of the same commit.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use crate::site::{BRISK, Ran, Sample, Site, chmod, eventually};

/// A site whose build writes down what it was given.
fn site(build: &str) -> Site {
    let site = Site::new(Sample::Static, &format!("[build]\ncommand = {build:?}\n{BRISK}"));
    site.write_env("COLOUR=blue\nSECRET=hush\n");
    site
}

const NOTING: &str = "echo $COLOUR >VERSION";

fn release(site: &Site, instance: &str) -> String {
    let link = fs::read_link(site.home.join("instances").join(instance)).unwrap();
    link.file_name().unwrap().to_str().unwrap().to_owned()
}

/// The lines that a tool has said, without those that each deploy says.
fn beside(ran: &Ran) -> Vec<&str> {
    let usual = ["is made, ", " is healthy, ", " is enabled, ", "making a release of "];
    ran.stderr.lines().filter(|line| !usual.iter().any(|usual| line.contains(usual))).collect()
}

fn hook(site: &Site, name: &str, script: &str) {
    let path = site.home.join("hooks").join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    chmod(&path, 0o755);
}

#[test]
fn a_build_may_write_its_own_path_into_files() {
    // As venv, Bundler and artisan do.
    let site = Site::new(
        Sample::Static,
        &format!(
            "[build]\ncommand = '''mkdir bin && printf '#!/bin/sh\\nexec %s/app \"$@\"\\n' \"$PWD\" >bin/start && chmod +x bin/start'''\n\
             [run]\ncommand = \"exec bin/start\"\n{BRISK}"
        ),
    );
    hook(&site, "before-build", "pwd >before");
    hook(&site, "after-build", "pwd >after");
    for version in ["v1", "v2"] {
        site.commit(version, "");
        site.run("deploy", &[]).ok();
        assert_eq!(site.get("/").1, format!("{version}\n"));
        let instance = site.run("enabled-instance", &[]).ok();
        let place = fs::canonicalize(site.home.join("instances").join(instance.trim())).unwrap();
        for hook in ["before", "after"] {
            let told = fs::read_to_string(place.join(hook)).unwrap();
            assert_eq!(Path::new(told.trim()), place, "{hook}");
        }
    }
}

#[test]
fn a_release_in_the_making_is_none_wherever_its_build_is_killed() {
    let site = site("touch begun; until test -e ../../go; do sleep 0.02; done");
    let go = site.home.join("go");
    fs::write(&go, "").unwrap();
    site.run("deploy", &[]).ok();
    let first = release(&site, "A");
    fs::remove_file(&go).unwrap();
    site.commit("v2", "");
    let mut deploy = site.tool("deploy", &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let half = || site.releases().into_iter().find(|name| !name.starts_with('.') && *name != first);
    eventually("it builds", || half().is_some_and(|half| site.home.join("releases").join(half).join("begun").exists()));
    let half = half().unwrap();
    assert_eq!(site.run("history", &["--releases"]).stdout, "");
    site.run("rollback", &["--to", &half]).fails(75, &[]);
    deploy.kill().unwrap();
    deploy.wait().unwrap();
    assert_eq!(site.run("history", &["--releases"]).stdout, "");
    site.run("rollback", &["--to", &half]).fails(3, &["there is no such release"]);
    fs::write(&go, "").unwrap();
    site.run("deploy", &[]).ok();
    assert_eq!(site.releases(), [first.clone(), release(&site, "B")]);
    assert_eq!(site.run("history", &["--releases"]).stdout, format!("{first}\n"));
    // A power cut may keep the mark and the directory apart.
    fs::write(site.home.join("releases/.making-20200101T000000Z-abcdef123456"), "").unwrap();
    let second = release(&site, "B");
    site.commit("v3", "");
    site.run("deploy", &[]).ok();
    assert_eq!(site.releases(), [first, second, release(&site, "A")]);
}

#[test]
fn what_a_build_is_made_with_makes_another_release_of_the_same_commit() {
    let site = site(NOTING);
    site.run("deploy", &[]).ok();
    assert_eq!(site.get("/").1, "blue\n");
    site.run("deploy", &[]).masked(&site).is(0, "", "deploy: already current: A runs RELEASE\n");

    site.write_env("COLOUR=red\nSECRET=hush\n");
    let ran = site.run("deploy", &[]);
    assert_eq!((ran.code, beside(&ran)), (0, vec!["deploy: COLOUR changed: it is made anew"]), "{ran:?}");
    assert_eq!(site.get("/").1, "red\n");

    // Back to what the first release was made with: that one is taken.
    let first = release(&site, "A");
    site.write_env("COLOUR=blue\nSECRET=hush\n");
    let ran = site.run("deploy", &[]);
    assert_eq!((ran.code, beside(&ran)), (0, vec![]), "{ran:?}");
    assert_eq!((release(&site, "A"), site.get("/").1.as_str()), (first, "blue\n"));

    site.reconfigure("echo $COLOUR", "echo very $COLOUR");
    let ran = site.run("deploy", &[]);
    assert_eq!(beside(&ran), ["deploy: [build] command changed: it is made anew"]);
    assert_eq!(site.get("/").1, "very blue\n");

    hook(&site, "after-build", "sed -i 's/$/ hooked/' VERSION");
    let ran = site.run("deploy", &[]);
    assert_eq!(beside(&ran), ["deploy: hooks/after-build added: it is made anew"]);
    assert_eq!(site.get("/").1, "very blue hooked\n");
    hook(&site, "after-build", "sed -i 's/$/ HOOKED/' VERSION");
    site.write_env("SECRET=louder\n");
    let ran = site.run("deploy", &[]);
    let told = "deploy: hooks/after-build changed; SECRET changed; COLOUR removed: it is made anew";
    assert_eq!(beside(&ran), [told]);
    assert!(!format!("{ran:?}").contains("louder") && !format!("{ran:?}").contains("hush"), "{ran:?}");
    site.run("deploy", &[]).masked(&site).is(0, "", "deploy: already current: B runs RELEASE\n");
}

#[test]
fn a_deploy_that_failed_for_its_build_goes_through_once_that_is_mended() {
    let site = Site::new(
        Sample::Static,
        &format!("[build]\ncommand = \"true\"\n[run]\ncommand = \"test -e made && exec ./app\"\n{BRISK}"),
    );
    site.run("deploy", &[]).fails(3, &["cannot start A"]);
    site.reconfigure("command = \"true\"", "command = \"touch made\"");
    let ran = site.run("deploy", &[]);
    assert_eq!((ran.code, beside(&ran)), (0, vec!["deploy: [build] command changed: it is made anew"]), "{ran:?}");
}

#[test]
fn where_nothing_is_built_no_variable_makes_another_release() {
    let site = Site::new(Sample::Static, BRISK);
    site.write_env("COLOUR=blue\n");
    site.run("deploy", &[]).ok();
    let first = release(&site, "A");
    site.write_env("COLOUR=red\n");
    let ran = site.run("deploy", &[]).masked(&site);
    let reload = "what is configured has changed since it was started: reload brings that into service";
    ran.is(0, "", &format!("deploy: already current: A runs RELEASE\ndeploy: {reload}\n"));
    site.run("reload", &[]).ok();
    assert_eq!(release(&site, "B"), first);
}

#[test]
fn a_reload_says_that_it_builds_nothing() {
    let site = site(NOTING);
    site.run("deploy", &[]).ok();
    site.write_env("COLOUR=red\nSECRET=hush\n");
    let ran = site.run("reload", &[]).masked(&site);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains("reload: environment: COLOUR changed\n"), "{ran:?}");
    assert!(
        ran.stderr.contains("reload: RELEASE stays as it was built; deploy builds it as configured now\n"),
        "{ran:?}"
    );
    assert_eq!(site.get("/").1, "blue\n");
}

#[test]
fn again_makes_what_is_current_anew_and_loses_nothing() {
    let site = site("date +%s%N >VERSION");
    site.run("deploy", &[]).ok();
    let load = site.load();
    let mut seen = vec![site.get("/").1];
    for arguments in [&["--again"][..], &["A"], &["b"], &["instanceA", "--again"]] {
        site.run("deploy", arguments).ok();
        let now = site.get("/").1;
        assert!(!seen.contains(&now), "{arguments:?}: {now}");
        seen.push(now);
    }
    crate::site::none_lost(&load.stop());
    let enabled = site.run("enabled-instance", &[]).ok();
    let ran = site.run("deploy", &[enabled.trim()]);
    let other = site.run("enabled-instance", &[]).ok();
    let told = format!("deploy: {} is enabled and serves on: {} gets it", enabled.trim(), other.trim());
    assert_eq!((ran.code, beside(&ran)), (0, vec![told.as_str()]), "{ran:?}");
    assert_ne!(enabled, other);

    let (before, made) = (release(&site, enabled.trim()), site.run("update-instance", &["--again"]).ok());
    assert_ne!(before, made.trim());
    assert_eq!(site.run("update-instance", &[]).ok(), made);
    site.run("deploy", &["--again", "--if-new"]).fails(2, &["cannot be used with"]);
    site.run("deploy", &["C"]).fails(2, &["cannot find instance \"C\""]);
    let pipeline = site.run("deploy", &["--dry-run", "--again"]).ok();
    assert!(pipeline.starts_with(&format!("update-instance {} --again && ", enabled.trim())), "{pipeline}");
}

#[test]
fn the_first_deploy_goes_where_it_is_told() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("deploy", &["B"]).ok();
    assert_eq!(site.run("enabled-instance", &[]).ok(), "B\n");
}

#[test]
fn a_poll_does_not_build_what_has_only_another_environment() {
    let site = site(NOTING);
    site.run("deploy", &[]).ok();
    site.write_env("COLOUR=red\n");
    site.run("deploy", &["--if-new"]).is(0, "", "");
    assert_eq!(site.get("/").1, "blue\n");
}

#[test]
fn a_release_of_which_nothing_was_kept_is_taken_as_it_is() {
    // As one that an older version has made.
    let site = site(NOTING);
    site.run("deploy", &[]).ok();
    site.shell("rm .shop/releases/.made-*").ok();
    site.reconfigure("echo $COLOUR", "echo very $COLOUR");
    site.run("deploy", &[]).masked(&site).is(0, "", "deploy: already current: A runs RELEASE\n");
    site.run("deploy", &["--again"]).ok();
    assert_eq!(site.get("/").1, "very blue\n");
}

#[test]
fn what_a_release_was_made_with_goes_with_it() {
    let site = Site::new(Sample::Static, &format!("{BRISK}keep_releases = 1\n"));
    for version in ["v1", "v2", "v3", "v4", "v5"] {
        site.commit(version, "");
        site.run("deploy", &[]).ok();
    }
    let entries = fs::read_dir(site.home.join("releases")).unwrap();
    let names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let mut expected: Vec<String> = site.releases();
    expected.extend(site.releases().iter().map(|release| format!(".made-{release}")));
    assert_eq!(site.releases().len(), 2);
    expected.sort();
    let mut names = names;
    names.sort();
    assert_eq!(names, expected);
    for name in names.iter().filter(|name| name.starts_with('.')) {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(site.home.join("releases").join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}
