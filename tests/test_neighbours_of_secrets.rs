//! Secrets beside the known ones: mistakes in the lines that hold them, variables that change, passwords with odd
//! characters that are used.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use crate::git_server::{GitServer, Serves};
use crate::site::{BRISK, Ran, Sample, Site, built};
use crate::watched::Watch;

const SECRET: &str = "q9-recognisable-value";

#[track_caller]
fn is_silent(what: &str, ran: &Ran) {
    assert!(!ran.stdout.contains(SECRET) && !ran.stderr.contains(SECRET), "{what}: {ran:?}");
}

/// All files below a place that hold the secret.
fn holders(place: &Path, secret: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(place).unwrap().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            found.extend(holders(&path, secret));
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap_or_default();
            let holds = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            found.extend(holds.then(|| path.display().to_string()));
        }
    }
    found
}

#[test]
fn a_mistake_beside_a_password_does_not_show_it() {
    let url = format!("https://deployer:{SECRET}@example.org/x.git");
    for (section, line) in [
        ("[source]", format!("git = {url}")),
        ("[source]", format!("git = \"{url}")),
        ("[source]", format!("git = '{url}'x")),
        ("[source]", format!("git = \"{url}\"\ngit = \"{url}\"")),
        ("[source]", format!("git = {{ url = \"{url}\" }}")),
        ("[source]", format!("git = [\"{url}\"]")),
        ("[source]", format!("url = \"{url}\"")),
        ("[source]", format!("git = \"{url}\"\nref = 5")),
        ("[source]", format!("git = \"{url}\\q\"")),
        ("[source]", format!("git = \"{url} \\u0007\"")),
        ("[source]", format!("git = \"{url}?x\"")),
    ] {
        let site = Site::unlaid(Sample::Static, "");
        let text = fs::read_to_string(site.config()).unwrap();
        let source = format!("git = {:?}", site.source());
        assert!(text.contains(&source));
        fs::write(site.config(), text.replace(&format!("{section}\n{source}"), &format!("{section}\n{line}"))).unwrap();
        let ran = site.install(&["--dry-run"]);
        if ran.code == 0 {
            // It is only known to be none when it is asked.
            site.install(&[]).ok();
            for (tool, arguments) in [("deploy", &[][..]), ("deploy", &["--if-new"]), ("update-instance", &[])] {
                let ran = site.run(tool, arguments);
                assert!(matches!(ran.code, 2 | 3), "{line}: {ran:?}");
                is_silent(&line, &ran);
            }
            let held = holders(&site.home, SECRET);
            assert!(held.iter().all(|path| path.ends_with("/config.toml")), "{line}: {held:?}");
        }
        is_silent(&line, &ran);
    }
}

#[test]
fn a_scheme_in_another_spelling_hides_its_password_as_well() {
    for scheme in ["HTTP://", "Http://", "hTTps://"] {
        let url = format!("{scheme}deployer:{SECRET}@127.0.0.1:9/x.git");
        let site = Site::new(Sample::Static, &format!("[source]\ngit = \"{url}\"\n{BRISK}"));
        let watch = Watch::start(SECRET, "git");
        let said = [site.run("deploy", &[]), site.run("deploy", &["--if-new"])];
        assert_eq!(watch.seen().0, Vec::<String>::new(), "{scheme}");
        said.iter().for_each(|ran| is_silent(scheme, ran));
        let held = holders(&site.home, SECRET);
        assert!(held.iter().all(|path| path.ends_with("/config.toml")), "{scheme}: {held:?}");
    }
}

#[test]
fn no_line_of_an_env_file_is_quoted_whatever_is_wrong_with_it() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("deploy", &[]).ok();
    for line in [
        format!("export TOKEN {SECRET}"),
        format!("TOKEN: {SECRET}"),
        SECRET.to_owned(),
        format!("={SECRET}"),
        format!("1TOKEN={SECRET}"),
        format!("TO KEN={SECRET}"),
        format!("TOKEN={SECRET}\0"),
        format!("TOKEN=\"{SECRET}"),
        format!("-----BEGIN KEY-----\n{SECRET}\n-----END KEY-----"),
        format!("\u{feff}TOKEN {SECRET}"),
        format!("TOKEN\t{SECRET}"),
    ] {
        site.write_env(&format!("A=1\n{line}\n"));
        for tool in ["deploy", "reload", "start-instance"] {
            let ran = site.run(tool, if tool == "start-instance" { &["B"] } else { &[] });
            is_silent(&line, &ran);
        }
        is_silent(&line, &site.run("logs", &["--deploys"]));
    }
    let held = holders(&site.home, SECRET);
    assert!(held.iter().all(|path| path.ends_with("/env")), "{held:?}");
}

#[test]
fn a_value_that_changes_is_told_by_its_name_alone() {
    let site = Site::new(Sample::Static, BRISK);
    for text in ["TOKEN=one\n", "TOKEN=V\nOTHER=V\n", "OTHER=V2\nTOKEN=V\n", "# TOKEN=V\n", "TOKEN='V'\nTOKEN=V\n"] {
        site.write_env(&text.replace('V', SECRET));
        let ran = site.run("reload", &[]);
        is_silent(text, &ran);
        is_silent(text, &site.run("deploy", &[]));
    }
    for (tool, arguments) in [("history", vec!["--json"]), ("status", vec!["--json"]), ("logs", vec!["--deploys"])] {
        is_silent(tool, &site.run(tool, &arguments));
    }
    let held = holders(&site.home, SECRET);
    assert!(held.iter().all(|path| path.ends_with("/env")), "{held:?}");
}

#[test]
fn passwords_with_odd_characters_work_and_stay_out_of_sight() {
    let below = tempfile::tempdir().unwrap();
    let repository = Site::unlaid(Sample::Static, "");
    symlink(repository.source(), below.path().join("source")).unwrap();
    for (userinfo, authorization) in [
        // deployer and q9-recognised@:/?#% in percent signs; a user without a password.
        ("deployer:q9%2Drecognised%40%3A%2F%3F%23%25", "Basic ZGVwbG95ZXI6cTktcmVjb2duaXNlZEA6Lz8jJQ=="),
        ("q9-recognised:", "Basic cTktcmVjb2duaXNlZDo="),
        // As GitHub and GitLab want tokens.
        ("x-access-token:q9-recognised", "Basic eC1hY2Nlc3MtdG9rZW46cTktcmVjb2duaXNlZA=="),
    ] {
        let serves = Serves::Repositories { below: below.path().to_owned(), authorization: authorization.to_owned() };
        let server = GitServer::start(serves, Duration::from_millis(100));
        let source = format!("[source]\ngit = \"http://{userinfo}@127.0.0.1:{}/source\"\n", server.port);
        let site = Site::new(Sample::Static, &format!("{source}{BRISK}"));
        let watch = Watch::start("recognised", "git-remote-http");
        let deployed = site.run("deploy", &[]);
        let asked = site.run("deploy", &["--if-new"]);
        watch.saw_nothing();
        assert_eq!((deployed.code, asked.code), (0, 0), "{userinfo}: {deployed:?} {asked:?}");
        assert!(!format!("{deployed:?}{asked:?}").contains("recognised"), "{deployed:?} {asked:?}");
        let held = [holders(&site.home, "q9-recognised"), holders(&site.home, "q9%2Drecognised")].concat();
        assert!(held.iter().all(|path| path.ends_with("/config.toml")), "{userinfo}: {held:?}");
        assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
    }
}

#[test]
fn a_secret_of_webhooks_that_is_no_plain_file_of_the_owners_is_not_used() {
    for (made, reason) in [
        ("rm F; mkfifo F", ""),
        ("rm F; mkdir F", ""),
        ("rm F; ln -s /dev/zero F", ""),
        ("chmod 644 F", "chmod 600"),
        ("chmod 620 F", "chmod 600"),
        (": >F", ""),
        ("truncate -s 5G F", ""),
    ] {
        let site = Site::new(Sample::Static, &format!("{BRISK}[push]\nrepository = \"octo/shop\"\nport = PUSH_PORT\n"));
        let secret = site.home.join("push-secret");
        assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
        site.shell(&format!("cd .shop && cp -p push-secret kept && {}", made.replace('F', "push-secret"))).ok();
        let request = "POST /.cutover/push HTTP/1.1\\r\\nHost: x\\r\\nX-GitHub-Event: ping\\r\\nX-Hub-Signature-256: sha256=00\\r\\nContent-Length: 0\\r\\n\\r\\n";
        let on_push = built().join("on-push");
        let run = format!(
            "printf '{request}' | timeout --signal=KILL 20 prlimit --as=300000000 {} --home .shop",
            on_push.display()
        );
        let ran = site.shell(&run);
        assert_eq!(ran.code, 3, "{made}: {ran:?}");
        assert!(ran.stdout.starts_with("HTTP/1.1 503 "), "{made}: {ran:?}");
        assert!(ran.stderr.contains(reason) && ran.stderr.contains("push-secret"), "{made}: {ran:?}");
    }
}
