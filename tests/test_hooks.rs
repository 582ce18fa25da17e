//! Hooks: when they run, what they are told, what a failure of theirs does.

use std::fs;
use std::path::Path;

use crate::site::{BRISK, Sample, Site, chmod, none_lost};

/// Lays a hook that runs this script.
fn hook(site: &Site, name: &str, script: &str) {
    let path = site.home.join("hooks").join(name);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    chmod(&path, 0o755);
}

/// A site with v1 deployed, and hooks that write down when they run, where, and what they are told.
fn recording() -> Site {
    let site = Site::new(Sample::Static, BRISK);
    fs::write(site.home.join("env"), "TOKEN=abc\n").unwrap();
    for name in ["before-build", "after-build", "before-connect", "after-deploy", "on-failure"] {
        hook(
            &site,
            name,
            &format!(
                "printf '%s %s i=%s p=%s r=%s before=%s o=%s t=%s why=%s\\n' {name} \"$(basename \"$PWD\")\" \"$INSTANCE\" \
                 \"$PORT\" \"$RELEASE\" \"$PREVIOUS_RELEASE\" \"$OUTCOME\" \"$TOKEN\" \"$REASON\" >>'{}'",
                site.directory.path().join("told").display()
            ),
        );
    }
    site.run("deploy", &[]).ok();
    site
}

/// What the hooks have written down since the last call.
fn told(site: &Site) -> Vec<String> {
    let path = site.directory.path().join("told");
    let text = fs::read_to_string(&path).unwrap_or_default();
    let _ = fs::remove_file(path);
    text.lines().map(str::to_owned).collect()
}

fn release(site: &Site, instance: &str) -> String {
    let link = fs::read_link(site.home.join("instances").join(instance)).unwrap();
    link.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn each_hook_runs_at_its_point_and_is_told_what_is_known() {
    let site = recording();
    let (one, [a, b]) = (release(&site, "A"), [site.ports.first, site.ports.second]);
    assert_eq!(
        told(&site),
        [
            format!("before-build {one} i=A p={a} r={one} before= o= t=abc why="),
            format!("after-build {one} i=A p={a} r={one} before= o= t=abc why="),
            format!("before-connect {one} i=A p={a} r={one} before= o= t=abc why="),
            format!("after-deploy {one} i=A p={a} r={one} before= o=done t=abc why="),
        ]
    );
    site.run("deploy", &[]).ok();
    assert_eq!(told(&site), [""; 0], "nothing was deployed");

    site.commit("v2", "");
    site.run("update-instance", &[]).ok();
    let two = release(&site, "B");
    assert_eq!(
        told(&site),
        [
            format!("before-build {two} i=B p={b} r={two} before={one} o= t=abc why="),
            format!("after-build {two} i=B p={b} r={two} before={one} o= t=abc why="),
        ]
    );
    site.run("deploy", &[]).ok();
    assert_eq!(
        told(&site),
        [
            format!("before-connect {two} i=B p={b} r={two} before={one} o= t=abc why="),
            format!("after-deploy {two} i=B p={b} r={two} before={one} o=done t=abc why="),
        ]
    );
    site.run("rollback", &[]).ok();
    site.run("bootup", &[]).ok();
    assert_eq!(told(&site), [""; 0]);

    site.commit("v3", "exit");
    let failed = site.run("deploy", &[]);
    let why = failed.stderr.lines().last().unwrap().strip_prefix("deploy: ").unwrap();
    let said = told(&site);
    assert_eq!((failed.code, said.len()), (3, 3), "{said:?}");
    let home = site.home.file_name().unwrap().to_str().unwrap();
    let begin = format!("on-failure {home} i=B p={b} r=");
    assert!(
        said[2].starts_with(&begin) && said[2].contains(&format!(" before={one} o=failed t=abc why=cannot start B")),
        "{said:?}"
    );
    assert!(why.starts_with("cannot start B: it died: exit status 3"), "{why}");

    // What fails later is told as it is in the history.
    site.write_config("[deploy]\nsoak = \"30s\"\ndrain_timeout = \"100ms\"\n");
    site.install(&[]).ok();
    site.commit("v4", "dies 1");
    assert_eq!(site.run("deploy", &[]).code, 4);
    let said = told(&site);
    assert!(said.last().unwrap().contains(" o=rolled back t=abc why=B died after the cutover"), "{said:?}");
    assert_eq!(site.run("deploy", &["--ref", "nowhere"]).code, 3);
    let said = told(&site);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].contains(&format!("i=B p={b} r= before={one} o=failed t=abc why=cannot find ref")), "{said:?}");
}

#[test]
fn a_hook_that_fails_before_the_cutover_ends_the_deploy_and_loses_nothing() {
    let site = recording();
    let first = site.get("/");
    let load = site.load();
    for name in ["before-build", "after-build", "before-connect"] {
        site.commit(name, "");
        let good = fs::read(site.home.join("hooks").join(name)).unwrap();
        hook(&site, name, "echo seen; echo 'the migration is not possible' >&2; exit 7");
        let failed = site.run("deploy", &[]);
        let log = site.home.join("logs/hooks.log");
        let reason =
            format!("hooks/{name}: exit status 7: seen | the migration is not possible (all of it: {})", log.display());
        failed.fails(3, &[&reason]);
        let log = fs::read_to_string(log).unwrap();
        assert!(
            log.contains(&format!("Z {name} for ")) && log.contains("\nseen\nthe migration is not possible\n"),
            "{log}"
        );
        assert_eq!(site.get("/"), first);
        assert_eq!(site.run("enabled-instance", &[]).ok(), "A\n");
        site.run("pid", &["B"]).is(1, "", "");
        let left = site.releases();
        assert!(left.iter().all(|name| !name.starts_with('.')), "{left:?}");
        fs::write(site.home.join("hooks").join(name), good).unwrap();
    }
    // With the hooks in order again the same command goes through.
    site.run("deploy", &[]).ok();
    assert_eq!(site.get("/"), (200, "before-connect\n".to_owned()));
    none_lost(&load.stop());
}

#[test]
fn before_connect_sees_the_new_instance_while_the_old_one_has_the_traffic() {
    let site = recording();
    let (through_nginx, seen) = (site.address(), site.directory.path().join("seen"));
    hook(
        &site,
        "before-connect",
        &format!(
            "echo \"$(curl -fsS http://127.0.0.1:$PORT/) $(curl -fsS http://{through_nginx}/)\" >'{}'",
            seen.display()
        ),
    );
    site.commit("v2", "");
    site.run("deploy", &[]).ok();
    assert_eq!(fs::read_to_string(seen).unwrap(), "v2 v1\n");
    assert_eq!(site.get("/"), (200, "v2\n".to_owned()));
}

#[test]
fn a_hook_that_fails_afterwards_is_only_told_of() {
    let site = recording();
    hook(&site, "after-deploy", "exit 1");
    hook(&site, "on-failure", "exit 2");
    site.commit("v2", "");
    let done = site.run("deploy", &[]).said();
    assert!(done.ends_with("deploy: hooks/after-deploy: exit status 1\n"), "{done}");
    site.commit("v3", "exit");
    let failed = site.run("deploy", &[]);
    assert!(failed.stderr.contains("deploy: hooks/on-failure: exit status 2\ndeploy: cannot start A: "), "{failed:?}");
    assert_eq!((failed.code, site.get("/").1.as_str()), (3, "v2\n"));
}

#[test]
fn hooks_that_cannot_be_run_are_told_before_anything_is_begun() {
    let site = recording();
    let path = site.home.join("hooks/before-connect");
    let shown = path.display().to_string();
    site.commit("v2", "");
    for tool in ["deploy", "update-instance"] {
        chmod(&path, 0o644);
        site.run(tool, &[]).is(2, "", &format!("{tool}: cannot run {shown}: it is no executable file; chmod +x it\n"));
    }
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("nowhere", &path).unwrap();
    site.run("deploy", &[]).is(2, "", &format!("deploy: cannot run {shown}: it is a link to nothing\n"));
    assert_eq!(site.get("/").1, "v1\n");
    // Hooks that cannot be looked for are not taken for none.
    let (hooks, away) = (site.home.join("hooks"), site.home.join("away"));
    fs::rename(&hooks, &away).unwrap();
    fs::write(&hooks, "").unwrap();
    site.run("deploy", &[]).fails(2, &["cannot run ", "hooks/before-build: Not a directory"]);
    fs::remove_file(&hooks).unwrap();
    fs::rename(&away, &hooks).unwrap();
    // Without a first line that names its interpreter it is the shell's, as at a prompt.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "exit 5\n").unwrap();
    chmod(&path, 0o755);
    site.run("deploy", &[]).fails(3, &["hooks/before-connect: exit status 5"]);
}

#[test]
fn a_hook_has_a_deadline_and_ends_with_the_deploy() {
    let site = recording();
    site.write_config(&format!("{BRISK}[hooks]\ntimeout = \"3s\"\n"));
    site.install(&[]).ok();
    hook(&site, "before-connect", "sleep 600 & sleep 600");
    site.commit("v2", "");
    site.run("deploy", &[])
        .fails(124, &["cannot connect B: hooks/before-connect: ", "did not end in time and was killed"]);
    assert_eq!(site.get("/").1, "v1\n");
    // Neither it nor what it has started is left.
    let sleeps = || {
        let name = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        site.processes().iter().filter(|pid| name(pid) == "sleep\n").count()
    };
    crate::site::eventually("the hook has gone", || sleeps() == 0);

    site.write_config(BRISK);
    site.install(&[]).ok();
    let mut deploy = site.tool("deploy", &[]).stderr(std::process::Stdio::null()).spawn().unwrap();
    crate::site::eventually("the hook runs", || sleeps() == 2);
    deploy.kill().unwrap();
    deploy.wait().unwrap();
    crate::site::eventually("the hook has gone", || sleeps() == 0);
    hook(&site, "before-connect", "true");
    site.run("deploy", &[]).ok();
    assert_eq!(site.get("/").1, "v2\n");
}

#[test]
fn a_hook_may_use_the_tools_once_the_deploy_is_over() {
    let site = recording();
    let bin = site.home.join("bin");
    hook(&site, "after-deploy", &format!("{}/rollback", Path::new(&bin).display()));
    site.commit("v2", "");
    site.run("deploy", &[]).ok();
    assert_eq!(site.get("/").1, "v1\n");
}

#[test]
fn a_hook_may_deploy_and_what_it_leaves_running_is_not_of_the_instance() {
    let site = Site::new(Sample::Static, BRISK).with_standby();
    let home = site.home.display().to_string();
    // What a hook is told, the instance and its port among it, is what the instance's own programs are told too.
    hook(&site, "before-connect", &format!("sleep 60 & echo $! >'{home}/left'"));
    hook(&site, "on-failure", &format!("'{home}/bin/deploy' --ref good && touch '{home}/hooked'"));
    site.commit("v3", "");
    site.git(&["tag", "good"]);
    site.commit("v4", "exit");
    site.run("deploy", &[]).fails(3, &["cannot start A"]);
    assert!(site.home.join("hooked").exists(), "the hook's own deploy was killed");
    assert_eq!(site.get("/").1, "v3\n");
    let left = fs::read_to_string(site.home.join("left")).unwrap();
    let is_there = || Path::new("/proc").join(left.trim()).exists();
    assert!(is_there());
    site.run("stop-instance", &["--force", "A"]).ok();
    site.run("start-instance", &["A"]).ok();
    assert!(is_there(), "what a hook has left running was taken for a part of the instance");
    site.shell(&format!("kill {}", left.trim())).ok();
}
