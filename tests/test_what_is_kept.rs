//! Which releases are kept, what a deploy says of another reference than before, and files that are not what they seem.

use std::fs;

use crate::site::{BRISK, Sample, Site, chmod};

fn release(site: &Site, instance: &str) -> String {
    let link = fs::read_link(site.home.join("instances").join(instance)).unwrap();
    link.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn releases_that_never_served_take_no_place_among_those_that_are_kept() {
    let site = Site::new(Sample::Static, &format!("{BRISK}keep_releases = 3\n"));
    let mut good = Vec::new();
    for version in 1..=3 {
        site.commit(&format!("v{version}"), "");
        site.run("deploy", &[]).ok();
        good.push(release(&site, site.run("enabled-instance", &[]).ok().trim()));
    }
    for version in 1..=4 {
        site.commit(&format!("bad{version}"), "exit");
        assert_eq!(site.run("deploy", &[]).code, 3);
        let kept = site.releases();
        assert_eq!(kept[..3], good, "what served is still there");
        assert_eq!(kept.len(), 4, "of what did not, only the newest is: {kept:?}");
    }
    site.run("rollback", &["--to", &good[0]]).ok();
    site.commit("v4", "");
    site.run("deploy", &[]).ok();
    let kept = site.releases();
    // The first one is the standby's.
    good.push(release(&site, site.run("enabled-instance", &[]).ok().trim()));
    assert_eq!(kept, good);
    // Where nobody knows which served, all may have.
    fs::remove_file(site.home.join("logs/history.jsonl")).unwrap();
    site.commit("bad5", "exit");
    assert_eq!(site.run("deploy", &[]).code, 3);
    assert!(kept.iter().filter(|id| site.releases().contains(id)).count() >= 2);
}

#[test]
fn a_plain_deploy_after_one_of_another_reference_says_so() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("deploy", &[]).ok();
    site.git(&["tag", "v9"]);
    site.commit("main", "");
    let ran = site.run("deploy", &["--ref", "v9"]);
    assert!(!ran.stderr.contains("as configured"), "{ran:?}");
    // That was current already; another one is made now.
    site.commit("later", "");
    site.git(&["tag", "v10"]);
    site.git(&["reset", "--quiet", "--hard", "HEAD~1"]);
    site.run("deploy", &["--ref", "v10"]).ok();
    assert_eq!(site.get("/").1, "later\n");
    let ran = site.run("deploy", &[]);
    assert!(ran.stderr.contains("deploy: main is wanted, as configured; the last deploy was of v10\n"), "{ran:?}");
    assert_eq!(site.get("/").1, "main\n");
    site.commit("last", "");
    let ran = site.run("deploy", &[]);
    assert!(ran.code == 0 && !ran.stderr.contains("as configured"), "{ran:?}");
}

#[test]
fn a_rollback_after_a_reload_names_the_other_way_back() {
    let site = Site::new(Sample::Static, BRISK).with_standby();
    let [first, second] = ["A", "B"].map(|instance| release(&site, instance));
    site.write_env("COLOUR=red\n");
    site.run("reload", &[]).ok();
    let ran = site.run("rollback", &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.stderr.contains(&format!("rollback: B is enabled with {second}, ")), "{ran:?}");
    let hint = format!("rollback --to {first} goes to the one before\n");
    assert!(ran.stderr.ends_with(&hint), "{ran:?}");
    let ran = site.run("rollback", &["--to", &first]);
    assert!(ran.code == 0 && !ran.stderr.contains("goes to the one before"), "{ran:?}");
    assert_eq!(site.get("/").1, "v1\n");
}

const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";

#[test]
fn a_pointer_of_git_lfs_is_no_file_and_is_named() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("deploy", &[]).ok();
    let source = site.source();
    fs::create_dir_all(source.join("web/images")).unwrap();
    fs::write(source.join("web/.gitattributes"), "*.png filter=lfs diff=lfs merge=lfs -text\n").unwrap();
    for name in ["a.png", "b c.png"] {
        fs::write(source.join("web/images").join(name), POINTER).unwrap();
    }
    site.commit("v2", "");
    let told =
        ["cannot build ", "web/images/a.png is only a pointer of Git LFS and so is 1 other: ", "hooks/before-build"];
    site.run("deploy", &[]).fails(3, &told);
    // Nor out of a checkout, or an archive of one.
    site.run("deploy", &["--from", &source.display().to_string()]).fails(3, &told);
    site.shell("tar -czf checkout.tar.gz -C source .").ok();
    site.run("deploy", &["--from", "checkout.tar.gz"]).fails(3, &told);
    assert_eq!(site.get("/").1, "v1\n");
    // Whoever fetches them, or has no use for them, may deploy.
    for script in ["for png in web/images/*.png; do echo real >\"$png\"; done", "rm -r web/images"] {
        let hook = site.home.join("hooks/after-build");
        fs::write(&hook, format!("#!/bin/sh\n{script}\n")).unwrap();
        chmod(&hook, 0o755);
        site.run("deploy", &["--again"]).ok();
        assert_eq!(site.get("/").1, "v2\n");
    }
    // A text that only speaks of it is none.
    fs::remove_file(site.home.join("hooks/after-build")).unwrap();
    site.git(&["rm", "-r", "--quiet", "web/images"]);
    fs::write(source.join("README"), format!("A pointer looks like this:\n{POINTER}")).unwrap();
    site.commit("v3", "");
    site.run("deploy", &[]).ok();
}

#[test]
fn a_submodule_that_is_empty_is_told() {
    let site = Site::new(Sample::Static, BRISK);
    let told =
        |path: &str| format!("{path} is a git submodule, which is not fetched: have hooks/before-build do that\n");
    let another =
        "git init -q another && git -C another -c user.name=p -c user.email=p@example.org commit -q --allow-empty -m x";
    site.shell(another).ok();
    site.git(&["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", "../another", "themes/plain"]);
    site.commit("v1", "");
    let ran = site.run("deploy", &[]);
    assert!(ran.code == 0 && ran.stderr.contains(&format!("deploy: {}", told("themes/plain"))), "{ran:?}");
    // One that .gitmodules does not name.
    let hash = site.git(&["-C", "themes/plain", "rev-parse", "HEAD"]);
    site.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{},vendor/b \u{e4}", hash.trim())]);
    site.git(&["commit", "--quiet", "--message", "vendor"]);
    let ran = site.run("update-instance", &["--again"]);
    let both = "update-instance: themes/plain and 1 more are git submodules, which are not fetched: have ";
    assert!(ran.code == 0 && ran.stderr.contains(both), "{ran:?}");
    // Who fetches them is told nothing.
    let hook = site.home.join("hooks/before-build");
    fs::write(
        &hook,
        "#!/bin/sh\nmkdir -p themes/plain 'vendor/b \u{e4}' && touch themes/plain/x 'vendor/b \u{e4}/x'\n",
    )
    .unwrap();
    chmod(&hook, 0o755);
    let ran = site.run("deploy", &["--again"]);
    assert!(ran.code == 0 && !ran.stderr.contains("submodule"), "{ran:?}");
}
