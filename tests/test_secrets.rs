//! What is secret stays so: values of the env file and passwords in URLs appear nowhere, and no file is wider than needed.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::site::{BRISK, Ran, Sample, Site, chmod};

const SECRET: &str = "q7-recognisable-value";

/// All files and directories below a place, links not followed.
fn everything(place: &Path) -> Vec<PathBuf> {
    let mut found = vec![place.to_owned()];
    if place.is_dir() && !place.is_symlink() {
        for entry in fs::read_dir(place).unwrap() {
            found.extend(everything(&entry.unwrap().path()));
        }
    }
    found
}

/// Asserts that the secret is in no file of the home but this one, in nothing that a tool said, and in no process's
/// arguments.
#[track_caller]
fn is_nowhere(site: &Site, but: &str, said: &[Ran]) {
    let holds = |bytes: &[u8]| bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes());
    for path in everything(&site.home) {
        if path != site.home.join(but) && path.is_file() {
            assert!(!holds(&fs::read(&path).unwrap_or_default()), "{} holds it", path.display());
        }
    }
    for ran in said {
        assert!(!ran.stdout.contains(SECRET) && !ran.stderr.contains(SECRET), "{ran:?}");
    }
    for pid in site.processes() {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(!holds(&arguments), "{}", String::from_utf8_lossy(&arguments));
    }
}

fn looks(site: &Site) -> Vec<Ran> {
    [("status", vec![]), ("status", vec!["--json"]), ("logs", vec!["-n", "1000"])]
        .map(|(tool, arguments)| site.run(tool, &arguments))
        .into()
}

#[test]
fn values_of_the_env_file_appear_in_no_log_record_error_or_list_of_processes() {
    let build = "[build]\ncommand = \"test \\\"$TOKEN\\\" && test ! -e fails\"\n";
    let deploy = "[deploy]\nsoak = \"2s\"\ndrain_timeout = \"100ms\"\n";
    let site = Site::new(Sample::Static, &format!("{build}{deploy}"));
    let env = site.home.join("env");
    fs::write(&env, format!("TOKEN={SECRET}\n")).unwrap();
    let mut said = vec![site.run("deploy", &[])];
    assert_eq!(said[0].code, 0, "{said:?}");
    let environment = site.get("/env").1;
    assert!(environment.contains(SECRET), "the app has it: {environment}");
    // Deploys that fail at every step.
    fs::write(site.source().join("fails"), "").unwrap();
    site.commit("v2", "");
    said.push(site.run("deploy", &[]));
    fs::remove_file(site.source().join("fails")).unwrap();
    for behaviour in ["exit", "dies 0.5"] {
        site.commit("v3", behaviour);
        said.push(site.run("deploy", &[]));
    }
    fs::write(&env, format!("TOKEN {SECRET}\n")).unwrap();
    said.push(site.run("deploy", &[]));
    fs::write(&env, format!("TOKEN={SECRET}\n")).unwrap();
    chmod(&env, 0o644);
    said.push(site.run("start-instance", &["B"]));
    chmod(&env, 0o600);
    assert!(said[1..].iter().all(|ran| ran.code != 0), "{said:?}");
    said.extend(looks(&site));
    is_nowhere(&site, "env", &said);
}

#[test]
fn a_password_in_the_sources_url_appears_only_in_the_configuration() {
    let source = format!("[source]\ngit = \"http://deployer:{SECRET}@127.0.0.1:9/shop.git\"\n");
    let site = Site::new(Sample::Static, &format!("{source}{BRISK}"));
    let mut said = vec![site.run("deploy", &[]), site.run("update-instance", &["--ref", "v1"])];
    for ran in &said {
        ran.fails(3, &["cannot fetch http://127.0.0.1:9/shop.git"]);
    }
    said.extend(looks(&site));
    is_nowhere(&site, "config.toml", &said);
}

#[test]
fn files_are_no_wider_than_they_need_to_be_whatever_the_callers_umask() {
    let site = Site::unlaid(Sample::Static, &format!("[build]\ncommand = \"true\"\n{BRISK}"));
    let install = crate::site::built().join("install");
    let laid =
        format!("umask 000; {} --config {} --home {}", install.display(), site.config().display(), site.home.display());
    site.shell(&laid).ok();
    site.shell("umask 000; deploy && deploy --from source && rollback").ok();
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777;
    for path in everything(&site.home) {
        let meta = fs::symlink_metadata(&path).unwrap();
        // git decides over the objects of its mirror, nginx over its own files; neither may be written by others.
        assert!(meta.is_symlink() || meta.mode() & 0o022 == 0, "{} is {:o}", path.display(), mode(&path));
    }
    let expected = [
        ("", 0o750),
        ("env", 0o600),
        ("config.toml", 0o640),
        ("logs", 0o750),
        ("logs/A.log", 0o640),
        ("logs/history.jsonl", 0o640),
        ("run", 0o750),
        ("run/deploy.lock", 0o640),
        ("run/A.lock", 0o640),
        ("releases", 0o750),
        ("bin", 0o755),
        ("bin/deploy", 0o755),
        ("state", 0o755),
    ];
    for (name, wanted) in expected {
        assert_eq!(mode(&site.home.join(name)), wanted, "{name}: {:o}", mode(&site.home.join(name)));
    }
    for path in everything(&site.home.join("logs")) {
        let is_build_log = path.file_name().unwrap().to_str().unwrap().starts_with("build-");
        assert!(!is_build_log || mode(&path) == 0o640, "{} is {:o}", path.display(), mode(&path));
    }
}
