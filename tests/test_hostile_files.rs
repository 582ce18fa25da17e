//! Whatever lies where a tool looks for a file: no tool waits for it, fills the memory with it, or panics.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::bare_home::BareHome;
use crate::site::{Ran, built, chmod};

pub const RELEASE: &str = "20261121T093000Z-1a2b3c4d5e6f";
const COMPOSE: &str = "app = \"shop\"\nrunner = \"compose\"\n[compose]\nimage_variable = \"IMAGE\"\nimage = \"user/app\"\n\
                       docker_host = \"unix:///nowhere/docker.sock\"\n[nginx]\nown = true\n";
pub const DIRECT: &str = "app = \"shop\"\nrunner = \"direct\"\n[source]\ngit = \"/nowhere\"\n[run]\ncommand = \"true\"\n\
                      [nginx]\nown = true\n[push]\nrepository = \"a/b\"\n";

/// A home whose enabled instance has a release.
pub fn with_release(config: &str) -> BareHome {
    let home = BareHome::new(config);
    home.enable("A");
    fs::create_dir(home.path().join("releases").join(RELEASE)).unwrap();
    symlink(format!("../releases/{RELEASE}"), home.path().join("instances/A")).unwrap();
    home
}

/// Runs a tool in 300 MB of address space and half a minute.
pub fn confined(home: &BareHome, tool: &str, arguments: &[&str]) -> Ran {
    let mut command = Command::new("/usr/bin/timeout");
    command.env_clear().current_dir("/");
    command.args(["--signal=KILL", "30", "/usr/bin/prlimit", "--as=300000000", "--core=0", "--"]);
    command.arg(built().join(tool)).arg("--home").arg(home.path()).args(arguments);
    Ran::run(&mut command)
}

/// What can lie in a file's place that is no sensible file.
const KINDS: [&str; 4] = ["a pipe", "a device behind a link", "a link to another file", "a file of 4 GB"];

fn put(kind: &str, path: &Path) {
    let _ = fs::remove_file(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    match kind {
        "a pipe" => mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap(),
        "a device behind a link" => symlink("/dev/zero", path).unwrap(),
        "a link to another file" => symlink("/etc/passwd", path).unwrap(),
        _ => File::create(path).unwrap().set_len(4 << 30).unwrap(),
    }
    if !path.is_symlink() {
        chmod(path, 0o600);
    }
}

#[track_caller]
fn ends_well(what: &str, ran: &Ran, codes: &[i32]) {
    assert!(codes.contains(&ran.code), "{what}: {ran:?}");
    assert!(!ran.stderr.contains("panicked") && !ran.stderr.contains("root:"), "{what}: {ran:?}");
    assert!(!ran.stdout.contains("root:"), "{what}: {ran:?}");
}

#[test]
fn a_file_of_the_repositorys_is_not_taken_for_an_image() {
    let home = with_release(DIRECT);
    let place = home.path().join("releases").join(RELEASE).join("image.json");
    for kind in KINDS {
        put(kind, &place);
        let ran = confined(&home, "status", &[]);
        ends_well(kind, &ran, &[0]);
        assert!(ran.stdout.contains("1a2b3c4d5e6f"), "{ran:?}");
    }
    fs::remove_file(&place).unwrap();
    fs::write(&place, r#"{"reference": "app:\u001b[2Jlie", "id": "sha256:77", "digest": null}"#).unwrap();
    let ran = confined(&home, "status", &[]);
    ends_well("an image's own words", &ran, &[0]);
    assert!(!ran.stdout.contains("lie"), "{ran:?}");
}

#[test]
fn whatever_an_image_is_called_it_is_shown() {
    let home = with_release(COMPOSE);
    let place = home.path().join("releases").join(RELEASE).join("image.json");
    // A character may begin within the bytes that are shown of a digest, end there, or be all there is.
    for reference in [
        "x@sha256:aaaaaaaaaaaäää",
        "x@ääääääääääää",
        "x@\u{1f600}\u{1f600}\u{1f600}\u{1f600}\u{1f600}",
        "x@",
        "@",
        "",
        "ä:ö@ü",
    ] {
        fs::write(&place, serde_json::json!({"reference": reference, "id": "ä", "digest": null}).to_string()).unwrap();
        ends_well(reference, &confined(&home, "status", &[]), &[0]);
    }
    for kind in KINDS {
        put(kind, &place);
        ends_well(kind, &confined(&home, "status", &[]), &[0]);
    }
}

#[test]
fn no_file_in_a_home_holds_a_tool_up() {
    let lock_and_queue = ["run/deploy.lock", "queue/push", "run/A.lock"];
    let looks: [(&str, &[&str]); 3] = [("status", &[]), ("status", &["--json"]), ("history", &[])];
    for kind in KINDS {
        for file in ["config.toml", "logs/history.jsonl", "logs/A.log", "logs/deploy.log"].iter().chain(&lock_and_queue)
        {
            let home = with_release(DIRECT);
            put(kind, &home.path().join(file));
            let what = format!("{kind} in place of {file}");
            for (tool, arguments) in looks {
                ends_well(&what, &confined(&home, tool, arguments), &[0, 1, 2, 3]);
            }
            for arguments in [&["A", "-n", "5"][..], &["--deploys", "-n", "5"], &["-n", "5"]] {
                ends_well(&what, &confined(&home, "logs", arguments), &[0, 1, 2, 3]);
            }
            // These take the lock, and write what they say.
            ends_well(&what, &confined(&home, "stop-instance", &["B"]), &[0, 1, 2, 3]);
        }
        for file in ["env", "hooks/before-build"] {
            let home = with_release(DIRECT);
            put(kind, &home.path().join(file));
            let what = format!("{kind} in place of {file}");
            let ran = confined(&home, "start-instance", &["A"]);
            ends_well(&what, &ran, &[2, 3]);
        }
    }
}
