//! What is secret stays so: values of the env file and passwords in URLs appear nowhere, and no file is wider than needed.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::git_server::{GitServer, Serves};
use crate::site::{BRISK, Ran, Sample, Site, chmod};
use crate::watched::Watch;

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

/// What a server is sent by `deployer` with the secret, and by the secret as the user.
const BASIC: &str = "Basic ZGVwbG95ZXI6cTctcmVjb2duaXNhYmxlLXZhbHVl";
const BASIC_OF_USER: &str = "Basic cTctcmVjb2duaXNhYmxlLXZhbHVlOg==";

fn deploys_from(port: u16, userinfo: &str, watch: bool) -> Site {
    // git takes a third slash for nothing.
    let slash = if userinfo.contains('%') { "/" } else { "" };
    let source = format!("[source]\ngit = \"http://{slash}{userinfo}@127.0.0.1:{port}/source\"\n");
    let site = Site::new(Sample::Static, &format!("{source}{BRISK}"));
    let watch = watch.then(|| Watch::start(SECRET, "git-remote-http"));
    site.run("deploy", &[]).ok();
    site.run("deploy", &["--if-new"]).is(0, "", "");
    watch.into_iter().for_each(Watch::saw_nothing);
    is_nowhere(&site, "config.toml", &looks(&site));
    site
}

#[test]
fn a_password_is_in_no_arguments_while_git_uses_it() {
    let below = tempfile::tempdir().unwrap();
    let of = |authorization: &str| {
        let serves = Serves::Repositories { below: below.path().to_owned(), authorization: authorization.to_owned() };
        GitServer::start(serves, Duration::from_millis(200))
    };
    let repository = Site::unlaid(Sample::Static, "");
    std::os::unix::fs::symlink(repository.source(), below.path().join("source")).unwrap();
    // As both, as the user alone, and encoded.
    let server = of(BASIC);
    deploys_from(server.port, &format!("deployer:{SECRET}"), true);
    assert!(server.authorizations().iter().all(|sent| sent == BASIC), "{:?}", server.authorizations());
    deploys_from(server.port, "deployer:q7%2Drecognisable%2Dvalue", true);
    deploys_from(of(BASIC_OF_USER).port, SECRET, true);

    // A helper of the user's own that knows another password is not asked for one that is written down, and is asked for
    // the user's that is named.
    let site = deploys_from(server.port, &format!("deployer:{SECRET}"), false);
    let helper = |command: &str| {
        let mirror = site.home.join("repo.git").into_os_string().into_string().unwrap();
        site.git(&["--git-dir", &mirror, "config", "credential.helper", command]);
    };
    helper("!echo username=deployer; echo password=wrong; :");
    site.run("deploy", &["--ref", "main"]).ok();
    // In no arguments of its own either: another test looks for it in everybody's.
    let file = site.directory.path().join("password");
    fs::write(&file, SECRET).unwrap();
    helper(&format!("!grep -q username=deployer && echo password=$(cat {}); :", file.display()));
    site.reconfigure(&format!("deployer:{SECRET}@"), "deployer@");
    site.run("update-instance", &["--ref", "main"]).ok();
    helper("!grep -q username=deployer && echo password=wrong; :");
    site.run("update-instance", &["--ref", "main"]).fails(3, &["Authentication failed for 'http://127.0.0.1:"]);
}

#[test]
fn a_password_does_not_go_to_another_server() {
    let thief = GitServer::start(
        Serves::Repositories { below: "/nowhere".into(), authorization: "nobody knows".into() },
        Duration::ZERO,
    );
    let server = GitServer::start(Serves::Redirect { port: thief.port }, Duration::ZERO);
    for userinfo in [format!("deployer:{SECRET}"), SECRET.to_owned()] {
        let source = format!("[source]\ngit = \"http://{userinfo}@127.0.0.1:{}/source\"\n", server.port);
        let site = Site::new(Sample::Static, &format!("{source}{BRISK}"));
        let before = thief.requests();
        let ran = site.run("deploy", &[]);
        ran.fails(3, &["cannot fetch http://127.0.0.1:"]);
        assert!(thief.requests() > before, "{ran:?}");
        // To another server git knows nothing to say.
        assert!(thief.authorizations().iter().all(|sent| sent == "Basic Og=="), "{:?}", thief.authorizations());
        is_nowhere(&site, "config.toml", &[ran]);
    }
}

#[test]
fn no_form_of_a_sources_url_shows_its_secret() {
    let says = format!("you sent {SECRET}, deployer:{SECRET}@here\n");
    let server = GitServer::start(Serves::Refusal { says }, Duration::ZERO);
    let here = format!("127.0.0.1:{}", server.port);
    for url in [
        format!("http://deployer:{SECRET}@{here}/p.git"),
        format!("http://{SECRET}@{here}/p.git"),
        format!("http://u:{SECRET}@TOKEN@{here}/p.git"),
        format!("http://u:pa/{SECRET}@{here}/p.git"),
        "http://u:q7%2Drecognisable%2Dvalue@127.0.0.1:9/p".to_owned(),
        format!("http://{here}/p.git?token={SECRET}"),
        format!("http://{here}/p.git#{SECRET}"),
        format!("git://u:{SECRET}@127.0.0.1:9/p.git"),
        format!("ssh://u:{SECRET}@127.0.0.1:9/p.git"),
        format!("git+ssh://u:{SECRET}@127.0.0.1:9/p.git"),
        format!("u:{SECRET}@127.0.0.1:p.git"),
        format!("https::http://u:{SECRET}@127.0.0.1:9/p.git"),
        format!("ftp://u:{SECRET}@127.0.0.1:9/p.git"),
    ] {
        let site = Site::new(Sample::Static, &format!("[source]\ngit = {url:?}\n{BRISK}"));
        let hooks = site.home.join("hooks");
        fs::write(
            hooks.join("on-failure"),
            format!("#!/bin/sh\nenv >>{}\n", site.home.join("logs/hooks.env").display()),
        )
        .unwrap();
        chmod(&hooks.join("on-failure"), 0o755);
        let watch = Watch::start(SECRET, "git");
        let mut said = vec![
            site.run("deploy", &[]),
            site.run("deploy", &["--if-new"]),
            site.run("update-instance", &["--ref", "v1"]),
        ];
        assert_eq!(watch.seen().0, Vec::<String>::new(), "{url}");
        assert!(said.iter().all(|ran| matches!(ran.code, 2 | 3)), "{url}: {said:?}");
        said.extend(looks(&site));
        said.extend([site.run("history", &["--json"]), site.run("logs", &["--deploys"])]);
        is_nowhere(&site, "config.toml", &said);
        assert!(said[0].code == 2 || site.home.join("logs/hooks.env").exists(), "{url}: the hook was told");
        for ran in &said {
            let all = format!("{}{}", ran.stdout, ran.stderr);
            assert!(!all.contains("TOKEN@") && !all.contains("q7%2D"), "{url}: {ran:?}");
        }
    }
    // Nor is it in what is wrong with the configuration.
    for url in
        [format!("-http://u:{SECRET}@h"), format!("http://u:{SECRET}\\u0007@h"), format!("[\"http://u:{SECRET}@h\"]")]
    {
        let site = Site::unlaid(Sample::Static, "");
        let text = fs::read_to_string(site.config()).unwrap();
        let source = format!("git = {:?}", site.source());
        let value = if url.starts_with('[') { url } else { format!("\"{url}\"") };
        fs::write(site.config(), text.replace(&source, &format!("git = {value}"))).unwrap();
        let ran = site.install(&[]);
        assert!(ran.code == 2 && !ran.stderr.contains(SECRET), "{ran:?}");
    }
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
        ("config.toml", 0o600),
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
