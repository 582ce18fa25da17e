//! update-instance: a release is made and an instance has it; stdout is the release and nothing else.

use std::fs;
use std::thread;
use std::time::Duration;

use crate::site::{BRISK, Ran, Sample, Site, explains_itself};

#[test]
fn it_explains_itself() {
    explains_itself(
        "update-instance",
        "Build the wanted release, then stop an instance and point it there; print the release",
    );
    let site = Site::new(Sample::Static, BRISK);
    let both = site.run("update-instance", &["--ref", "main", "--from", "."]);
    let reason = "the argument '--ref <REF>' cannot be used with '--from <PATH>'; see update-instance --help";
    both.is(2, "", &format!("update-instance: {reason}\n"));
    let reason = "update-instance: cannot find instance \"C\": there are A and B\n";
    site.run("update-instance", &["C"]).is(2, "", reason);
}

#[test]
fn it_prints_the_release_and_makes_each_commit_only_once() {
    let site = Site::new(Sample::Static, BRISK);
    let commit = site.git(&["rev-parse", "HEAD"]);
    let ran = site.run("update-instance", &[]);
    ran.masked(&site).is(0, "RELEASE\n", "");
    assert_eq!(made_from(&ran), &commit[..12]);
    assert_eq!(version(&site, "A"), "v1");
    assert_eq!(site.releases().len(), 1);

    site.run("update-instance", &["A"]).is(0, &ran.stdout, "");
    site.run("update-instance", &["instanceB"]).is(0, &ran.stdout, "");
    assert_eq!(version(&site, "B"), "v1");
    assert_eq!(site.releases().len(), 1);
    site.run_unread("update-instance", &[]).is(0, "", "");
}

#[test]
fn a_ref_is_a_branch_a_tag_a_commit_or_the_latest_tag() {
    let site = Site::new(Sample::Static, BRISK);
    let commit_and_tag = |version: &str, tag: &str| {
        let commit = site.commit(version, "");
        site.git(&["tag", tag]);
        commit
    };
    let first = commit_and_tag("first", "v1.2.0");
    let tenth = commit_and_tag("tenth", "v1.10.0");
    commit_and_tag("candidate", "v1.10.0-rc1");
    for (at, tag) in ["v1.9.9", "1.2.9", "v2.0.0-rc.1", "2.0.0b2", "3.0.0.beta1"].into_iter().enumerate() {
        commit_and_tag(&format!("other {at}"), tag);
    }
    let nightly = commit_and_tag("nightly", "nightly");
    site.git(&["checkout", "--quiet", "-b", "feature/cart", &first]);
    let cart = site.commit("cart", "");
    site.git(&["tag", "--annotate", "--message", "the cart", "annotated"]);
    let cases = [
        ("latest-tag", &tenth),
        ("main", &nightly),
        ("feature/cart", &cart),
        ("v1.2.0", &first),
        ("annotated", &cart),
        (&first[..7], &first),
        (&nightly[..], &nightly),
    ];
    for (reference, commit) in cases {
        let ran = site.run("update-instance", &["A", "--ref", reference]);
        ran.masked(&site).is(0, "RELEASE\n", "");
        assert_eq!(made_from(&ran), &commit[..12], "{reference}");
    }
    assert_eq!(version(&site, "A"), "nightly");

    site.run("update-instance", &["A", "--ref", "v9"]).masked(&site).is(
        3,
        "",
        "update-instance: cannot find ref \"v9\": no branch, tag or commit of SITE/source\n",
    );
    let reason = "update-instance: unexpected argument '-v' found; see update-instance --help\n";
    site.run("update-instance", &["A", "--ref", "-v"]).is(2, "", reason);
    assert_eq!(version(&site, "A"), "nightly");
}

#[test]
fn releases_made_within_a_second_are_ordered_as_they_were_made() {
    let site = Site::new(Sample::Static, BRISK);
    let ids: Vec<String> = (0..8)
        .map(|number| {
            site.commit(&format!("v{number}"), "");
            site.run("update-instance", &["A"]).stdout
        })
        .collect();
    assert!(ids.is_sorted_by(|one, next| one[..16] < next[..16]), "{ids:?}");
}

#[test]
fn a_release_is_made_from_a_directory_an_archive_or_a_file_as_well() {
    let site = Site::new(Sample::Static, BRISK);
    let built = site.directory.path().join("built");
    fs::create_dir_all(built.join("sub")).unwrap();
    fs::write(built.join("VERSION"), "from a path\n").unwrap();
    fs::write(built.join("sub/.hidden"), "").unwrap();
    site.shell("tar -C built -czf built.tar.gz . && echo all >shop.jar").ok();

    for from in ["built", "built.tar.gz"] {
        let ran = site.run("update-instance", &["A", "--from", from]);
        ran.masked(&site).is(0, "RELEASE\n", "");
        assert_eq!(made_from(&ran), "local");
        assert_eq!(version(&site, "A"), "from a path");
        assert!(site.home.join("instances/A/sub/.hidden").exists());
    }
    site.run("update-instance", &["A", "--from", "shop.jar"]).masked(&site).is(0, "RELEASE\n", "");
    let held: Vec<_> =
        fs::read_dir(site.home.join("instances/A")).unwrap().map(|one| one.unwrap().file_name()).collect();
    assert_eq!(held, ["shop.jar"]);

    let mistake = "invalid value 'nowhere' for '--from <PATH>': No such file or directory (os error 2)";
    let reason = format!("update-instance: {mistake}; see update-instance --help\n");
    site.run("update-instance", &["--from", "nowhere"]).is(2, "", &reason);
    fs::write(site.directory.path().join("broken.tar.gz"), "no archive").unwrap();
    let broken = site.run("update-instance", &["--from", "broken.tar.gz"]);
    broken.fails(3, &["update-instance: cannot lay out ", "broken.tar.gz: tar: "]);
    assert!(site.home.join("instances/A/shop.jar").exists());
    assert_eq!(site.releases().len(), 3);
}

#[test]
fn the_enabled_instance_is_updated_only_by_force() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("deploy", &[]).ok();
    let pid = site.pid("A");
    site.commit("v2", "");
    let reason =
        "update-instance: cannot update A: it is enabled, the service would be down; --force does it all the same\n";
    site.run("update-instance", &["A"]).is(3, "", reason);
    assert_eq!((site.pid("A"), version(&site, "A").as_str()), (pid, "v1"));
    site.run("update-instance", &["A", "-f"]).masked(&site).is(0, "RELEASE\n", "");
    assert_eq!(version(&site, "A"), "v2");
    site.run("pid", &["A"]).is(1, "", "");
}

#[test]
fn an_instance_that_runs_is_stopped_for_a_new_release_and_left_alone_for_its_own() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("update-instance", &["A"]).ok();
    site.run("start-instance", &["A"]).ok();
    let pid = site.pid("A");
    site.run("update-instance", &["A"]).ok();
    assert_eq!(site.pid("A"), pid);
    site.commit("v2", "");
    site.run("update-instance", &["A"]).ok();
    site.run("pid", &["A"]).is(1, "", "");
}

#[test]
fn a_build_that_fails_is_quoted_and_leaves_the_instance_as_it_was() {
    let build = "[build]\ncommand = \"echo compiling $RELEASE; echo 'no such symbol' >&2; test $(cat VERSION) = v1\"\n";
    let site = Site::new(Sample::Static, &format!("{build}{BRISK}"));
    let first = site.run("update-instance", &["A"]).ok();
    let log = fs::read_to_string(site.home.join(format!("logs/build-{}.log", first.trim()))).unwrap();
    assert_eq!(log, format!("compiling {}\nno such symbol\n", first.trim()));
    site.run("start-instance", &["A"]).ok();
    let pid = site.pid("A");
    site.commit("v2", "");
    let failed = site.run("update-instance", &["A"]);
    failed.fails(3, &[": exit status 1: compiling 2", " | no such symbol (all of it: "]);
    assert!(failed.stderr.starts_with("update-instance: cannot build 2"), "{failed:?}");
    assert_eq!((site.pid("A"), version(&site, "A").as_str()), (pid, "v1"));
    assert_eq!(site.releases(), [first.trim()]);
}

#[test]
fn a_build_that_takes_too_long_is_ended_with_all_it_started() {
    let build = "[build]\ncommand = \"echo linking; sleep 600 & sleep 600\"\ntimeout = \"2s\"\n";
    let site = Site::new(Sample::Static, &format!("{build}{BRISK}"));
    let before = site.processes();
    let ran = site.run("update-instance", &["A"]);
    ran.fails(124, &["sh did not end in time and was killed: linking (all of it: "]);
    assert_eq!(site.processes(), before);
}

/// A program that is another process each time one looks, and says that it is still there.
const CHAIN: &str = r#"
import os, time
said = open(os.path.abspath("../../chain"), "a", buffering=1)
end = time.monotonic() + 10
while time.monotonic() < end:
    said.write("here\n")
    if os.fork():
        os._exit(0)
"#;

#[test]
fn a_build_that_forks_again_and_again_is_ended_when_its_time_is_up() {
    let build =
        "[build]\ncommand = \"for n in 1 2 3 4 5 6 7 8; do python3 chain.py & done; sleep 600\"\ntimeout = \"1s\"\n";
    let site = Site::new(Sample::Static, &format!("{build}{BRISK}"));
    fs::write(site.source().join("chain.py"), CHAIN).unwrap();
    site.commit("v1", "");
    site.run("update-instance", &["A"]).fails(124, &["sh did not end in time and was killed"]);
    let said = || fs::metadata(site.home.join("chain")).unwrap().len();
    let ended = said();
    assert!(ended > 0);
    // Long enough for a hundred more.
    thread::sleep(Duration::from_millis(300));
    assert_eq!(said(), ended);
}

#[test]
fn a_remote_out_of_reach_is_an_error_and_asks_nothing() {
    let site = Site::new(Sample::Static, BRISK);
    fs::rename(site.source(), site.directory.path().join("elsewhere")).unwrap();
    let ran = site.run("update-instance", &[]);
    ran.masked(&site).fails(3, &["update-instance: cannot fetch SITE/source: git: fatal: "]);
    assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
}

/// What the printed release was made from, as its id says.
fn made_from(ran: &Ran) -> &str {
    ran.stdout.trim().split_once('-').unwrap().1
}

/// The version of the release that an instance has.
fn version(site: &Site, instance: &str) -> String {
    fs::read_to_string(site.home.join("instances").join(instance).join("VERSION")).unwrap().trim().to_owned()
}

#[test]
fn a_pre_release_is_not_the_latest_tag_even_where_there_is_no_other() {
    let site = Site::new(Sample::Static, BRISK);
    site.git(&["tag", "v1.0.0-rc.1"]);
    let ran = site.run("update-instance", &["A", "--ref", "latest-tag"]);
    ran.fails(3, &["has pre-releases only, such as v1.0.0-rc.1; name the one that is wanted as the ref"]);
    site.run("update-instance", &["A", "--ref", "v1.0.0-rc.1"]).ok();
}

#[test]
fn a_release_from_a_directory_holds_no_repository() {
    let site = Site::new(Sample::Static, BRISK);
    let make = "cd source && mkdir -p vendor/lib/.git .github vendor/.gitx && echo secret >vendor/lib/.git/config && \
        echo gitdir: elsewhere >vendor/.git && echo x | tee .gitignore .github/x vendor/.gitx/x 'with a space' vendor/lib/x && \
        ln -s ../.git vendor/link && ln -s .git alias && chmod 700 . && touch -d 2001-01-01 VERSION && test -d .git";
    site.shell(&format!("cd {} && {make}", site.directory.path().display())).ok();
    let release = site.run("update-instance", &["A", "--from", "source"]).ok();
    let release = site.home.join("releases").join(release.trim());
    let list = |place: &std::path::Path| {
        let find = format!(
            "cd {} && find . -name .git -prune -o -type f -printf '%p %m %T@\\n' -o -printf '%p %m %l\\n' | sort",
            place.display()
        );
        site.shell(&find).ok()
    };
    assert_eq!(list(&release), list(&site.source()));
    site.shell(&format!("find {} -name .git", release.display())).is(0, "", "");
    site.shell(&format!("rm -r {0:?}/* {0:?}/.[!.]*", site.source())).ok();
    site.run("update-instance", &["A", "--from", "source"]).ok();
}

#[test]
fn a_mirror_that_a_power_cut_has_damaged_is_made_anew() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("update-instance", &["A"]).ok();
    let damages = [
        ": >HEAD",
        ": >config",
        "for ref in refs/heads/*; do : >$ref; done",
        "find objects -type f | while read object; do chmod u+w $object; : >$object; done",
        "git --git-dir . repack -adq; for pack in objects/pack/*.pack; do chmod u+w $pack; echo broken >$pack; done",
        ": >packed-refs; rm -r refs",
    ];
    for (number, damage) in damages.iter().enumerate() {
        // Also when there is nothing new to fetch.
        site.shell(&format!("cd {:?} && {damage}", site.home.join("repo.git"))).ok();
        site.run("update-instance", &["A"]).masked(&site).is(0, "RELEASE\n", "");
        site.shell(&format!("cd {:?} && {damage}", site.home.join("repo.git"))).ok();
        site.commit(&format!("after damage {number}"), "");
        site.run("update-instance", &["A"]).masked(&site).is(0, "RELEASE\n", "");
        assert_eq!(version(&site, "A"), format!("after damage {number}"));
    }
    // A source that does not answer is no reason to throw the mirror away.
    fs::rename(site.source(), site.source().with_extension("away")).unwrap();
    site.run("update-instance", &["A"]).fails(3, &["cannot fetch "]);
    assert!(site.home.join("repo.git/HEAD").exists());
}
