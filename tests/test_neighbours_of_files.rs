//! Files in a home that no tool made: of odd kinds, with odd contents, in places where nobody has looked for them yet.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::site::Ran;
use crate::test_hostile_files::{DIRECT, confined, with_release};

#[track_caller]
fn ends_well(what: &str, ran: &Ran) {
    assert!([0, 1, 2, 3].contains(&ran.code), "{what}: {ran:?}");
    assert!(!ran.stderr.contains("panicked") && ran.stderr.len() < 20_000, "{what}: {ran:?}");
    let last = ran.stderr.lines().last().unwrap_or("cannot");
    assert!(ran.code != 3 || last.contains("cannot"), "{what}: {ran:?}");
}

const LOOKS: [(&str, &[&str]); 8] = [
    ("status", &[]),
    ("status", &["--json"]),
    ("history", &[]),
    ("history", &["--releases"]),
    ("logs", &["-n", "5"]),
    ("logs", &["--deploys", "-n", "5"]),
    ("logs", &["--build"]),
    ("enabled-instance", &[]),
];

#[test]
fn sockets_and_directories_and_loops_hold_no_tool_up() {
    for file in [
        "config.toml",
        "logs/history.jsonl",
        "logs/A.log",
        "logs/A.log.1",
        "logs/deploy.log",
        "logs/build-20261121T093000Z-1a2b3c4d5e6f.log",
        "run/deploy.lock",
        "run/A.lock",
        "queue/push",
        "queue/deliveries",
        "instances/A",
        "instances/B",
        "releases",
        "logs",
        "run",
        "state/enabled",
        "state/workers",
        "pulled",
    ] {
        for kind in
            ["a socket", "a directory", "a loop", "a link through a file", "a long name behind a link", "a pipe"]
        {
            let home = with_release(DIRECT);
            let path = home.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
            match kind {
                "a socket" => drop(UnixListener::bind(&path).unwrap()),
                "a directory" => fs::create_dir(&path).unwrap(),
                "a loop" => symlink(&path, &path).unwrap(),
                "a link through a file" => symlink("/etc/passwd/x", &path).unwrap(),
                "a pipe" => mkfifo(&path, Mode::S_IRWXU).unwrap(),
                _ => symlink("x".repeat(4000), &path).unwrap(),
            }
            for (tool, arguments) in LOOKS {
                ends_well(&format!("{kind} in place of {file}: {tool}"), &confined(&home, tool, arguments));
            }
            ends_well(&format!("{kind} in place of {file}: a stop"), &confined(&home, "stop-instance", &["B"]));
        }
    }
}

fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn no_content_of_a_file_brings_a_tool_down() {
    let long = "x".repeat(5_000_000);
    let deep = format!("{}1{}", "[".repeat(200_000), "]".repeat(200_000));
    let contents: Vec<Vec<u8>> = vec![
        b"\xff\xfe\x00\x00".to_vec(),
        vec![0; 100_000],
        b"{}\n[]\nnull\n1\n\"\"\n".to_vec(),
        deep.into_bytes(),
        long.clone().into_bytes(),
        format!("{{\"at\": \"{long}\"}}\n").into_bytes(),
        b"{\"at\":\"9999999-99-99T99:99:99Z\",\"who\":1,\"what\":[],\"outcome\":{},\"seconds\":{\"total\":-1e308}}\n"
            .to_vec(),
        b"{\"at\":\"2026-11-21T09:30:04Z\",\"who\":\"\xc3\",\"what\":\"deploy\"}\n".to_vec(),
        "1 {\"tool\":\"x\",\"what\":\"\u{e4}\",\"target\":null,\"since\":18446744073709551615}\n".into(),
        b"-1 {\"tool\":\"x\",\"what\":\"y\",\"target\":null,\"since\":-1}\n".to_vec(),
        b"99999999999999999999 {\"tool\":\"x\"}\n".to_vec(),
        b"{\"at\":18446744073709551615,\"by\":18446744073709551615,\"what\":\"\"}".to_vec(),
        b"2026-11-21T09:30:00.000Z".to_vec(),
        b"2026-11-21T09:30:00.000Z \n-292277026596-01-01T00:00:00.000Z 0 x\n+999999-12-31T23:59:59.999Z 0 y\n".to_vec(),
        "2026-11-21T09:30:00.000Z \u{e4}\u{1f600} \u{1f600}\n".repeat(3).into_bytes(),
        b"\r\r\r\n\r\n".to_vec(),
    ];
    for file in [
        "logs/history.jsonl",
        "logs/A.log",
        "logs/deploy.log",
        "logs/build-20261121T093000Z-1a2b3c4d5e6f.log",
        "run/deploy.lock",
        "run/A.lock",
        "queue/push",
        "queue/deliveries",
    ] {
        let home = with_release(DIRECT);
        for (number, content) in contents.iter().enumerate() {
            write(&home.path().join(file), content);
            for (tool, arguments) in LOOKS {
                ends_well(&format!("content {number} in {file}: {tool}"), &confined(&home, tool, arguments));
            }
            let since = confined(&home, "logs", &["A", "--since", "1h", "--grep", "x", "-t"]);
            ends_well(&format!("content {number} in {file}: logs --since"), &since);
        }
    }
}

#[test]
fn names_of_255_bytes_and_of_no_utf_8_are_borne() {
    use std::os::unix::ffi::OsStrExt;
    let home = with_release(DIRECT);
    let names: [Vec<u8>; 6] = [
        vec![b'x'; 255],
        [b".making-".to_vec(), vec![b'y'; 245]].concat(),
        "\u{e4}".repeat(127).into_bytes(),
        b"\xff\xfe-20261121T093000Z".to_vec(),
        b"20261121T093000Z-\xff".to_vec(),
        b"build-\xc3.log".to_vec(),
    ];
    for place in ["releases", "instances", "logs", "run", "hooks", "queue", "state"] {
        for name in &names {
            let path = home.path().join(place).join(std::ffi::OsStr::from_bytes(name));
            fs::create_dir_all(path).unwrap();
        }
    }
    for (tool, arguments) in LOOKS {
        ends_well(tool, &confined(&home, tool, arguments));
    }
    assert!(confined(&home, "status", &[]).stdout.contains("1a2b3c4d5e6f"));
    for argument in ["x".repeat(255), "x".repeat(100_000), format!("{}/x", "y".repeat(5000))] {
        for (tool, option) in [("rollback", "--to"), ("logs", "--build"), ("deploy", "--from"), ("deploy", "--ref")] {
            let ran = confined(&home, tool, &[option, &argument]);
            assert!([1, 2, 3].contains(&ran.code) && !ran.stderr.contains("panicked"), "{tool}: {:?}", ran.code);
        }
    }
}
