//! Input that nobody would write, made up at random: never a panic, never half an effect, always a message that names it.
//! PROPTEST_CASES=10000 makes up more of it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use cutover::app::Config;
use cutover::layout::TOOLS;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;

use crate::bare_home::BareHome;

/// All keys, with values that are fine.
const WHOLE: &str = r#"app = "shop"
runner = "direct"
[instances]
A = 24001
B = 24002
[source]
git = "https://example.org/shop.git"
ref = "main"
[build]
command = "npm ci"
timeout = "15m"
[run]
command = "npm start -- --port=$PORT"
env_file = "env"
stop_signal = "SIGTERM"
stop_signal_to = "main"
stop_timeout = "30s"
[health]
path = "/"
status = "2xx"
timeout = "60s"
body = "ready|well"
[nginx]
listen = ["80"]
server_name = "_"
status_port = 24000
failover = true
sticky = false
conf_dir = "/etc/nginx/conf.d"
own = false
[deploy]
keep_releases = 5
standby = "keep"
drain_timeout = "30s"
soak = "3s"
timeout = "30m"
"#;

/// Configurations that once were, or might have been, mistaken for good ones or answered with a panic.
const CORPUS: [&str; 14] = [
    "",
    "\u{feff}app = \"shop\"",
    "app",
    "app = ",
    "[[instances]]\nA = 1",
    "[instances]\nA = 99999999999999999999",
    "[instances]\n\"\" = 1\nB = 2",
    "[health]\nbody = \"(\"",
    "[health]\nbody = \"(a{1000}){1000}\"",
    "[deploy]\nsoak = \"-1s\"",
    "[deploy]\ntimeout = \"999999999999999999999y\"",
    "[deploy]\nkeep_releases = -1",
    "[nginx]\nlisten = [[]]",
    "a.b.c.d.e = {f = {g = [[[[[[1]]]]]]}}",
];

/// Pieces from which values and keys are made.
fn piece() -> impl Strategy<Value = String> {
    let odd = select(vec![
        "",
        "\"",
        "\"\"\"",
        "'",
        "[",
        "]]",
        "{",
        "=",
        "#",
        "\n",
        "\r\n",
        "\0",
        "\u{202e}",
        "é",
        "0",
        "-1",
        "1e400",
        "65536",
        "99999999999999999999",
        "nan",
        "true",
        "1979-05-27T07:32:00Z",
        "[]",
        "{}",
        "\"\\u0000\"",
        "\"\\uD800\"",
        "\"5s\"",
    ]);
    prop_oneof![odd.prop_map(str::to_owned), "\\PC{0,12}", "\"[^\"\\\\]{0,12}\""]
}

/// A good configuration with some of its lines, keys or values replaced, doubled or gone.
fn damaged() -> impl Strategy<Value = String> {
    let lines: Vec<String> = WHOLE.lines().map(str::to_owned).collect();
    let damage = (0..lines.len(), 0..6u8, piece(), piece());
    proptest::collection::vec(damage, 1..4).prop_map(move |damages| {
        let mut lines = lines.clone();
        for (at, how, one, other) in damages {
            let line = &mut lines[at];
            let (key, value) = line.split_once(" = ").unwrap_or((line, ""));
            *line = match how {
                0 => one,
                1 => format!("{key} = {one}"),
                2 => format!("{one} = {value}"),
                3 => format!("{line}\n{line}"),
                4 => String::new(),
                _ => format!("{line}{one}{other}"),
            };
        }
        lines.join("\n")
    })
}

/// A rejection begins with where the mistake is.
fn is_told_well(text: &str, mistake: &str) -> bool {
    let names_a_place = mistake.strip_prefix("line ").is_some_and(|rest| {
        let number = rest.split(':').next().and_then(|number| number.parse::<usize>().ok());
        number.is_some_and(|number| (1..=text.lines().count() + 1).contains(&number))
    });
    names_a_place || mistake.starts_with('[')
}

fn config() -> ProptestConfig {
    // What is found goes into the corpus above, by hand.
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

#[test]
fn the_corpus_of_bad_configurations_is_refused_with_the_place_of_the_mistake() {
    Config::parse(WHOLE).unwrap();
    for text in CORPUS {
        let mistake = Config::parse(text).unwrap_err();
        assert!(is_told_well(text, &mistake), "{text:?}: {mistake:?}");
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_damaged_configuration_is_good_or_refused_with_the_place_of_the_mistake(text in damaged()) {
        if let Err(mistake) = Config::parse(&text) {
            prop_assert!(is_told_well(&text, &mistake), "{mistake:?}");
        }
    }

    #[test]
    fn any_text_is_a_configuration_or_refused_with_the_place_of_the_mistake(text in "[\\PC\n]{0,80}") {
        if let Err(mistake) = Config::parse(&text) {
            prop_assert!(is_told_well(&text, &mistake), "{mistake:?}");
        }
    }
}

/// An argument: an option of some tool, something like one, or anything that the kernel passes on.
fn argument() -> impl Strategy<Value = OsString> {
    let options = vec![
        "--wait",
        "--force",
        "--json",
        "--watch",
        "--dry-run",
        "--ref",
        "--from",
        "--to",
        "-n",
        "-f",
        "--remove",
        "--purge",
        "--user",
        "--config",
        "--",
        "-",
        "A",
        "b",
        "instanceA",
        "C",
        "main",
        "/nowhere",
        "20261121T093000Z-1a2b3c4d5e6f",
        "../..",
        "",
        "--home=/nowhere",
        "-nnnn",
        "-n=-1",
        "--lines=99999999999999999999",
    ];
    prop_oneof![
        4 => select(options).prop_map(OsString::from),
        1 => proptest::collection::vec(1u8.., 0..20).prop_map(OsString::from_vec),
        1 => "\\PC{0,20}".prop_map(OsString::from),
        1 => Just(OsString::from("x".repeat(10_000))),
    ]
}

/// What lies there, but for the lock, which may have been taken to look.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(contents(&path));
        }
        if !path.ends_with("run/deploy.lock") {
            found.insert(path.clone(), fs::read(&path).ok());
        }
    }
    found
}

/// Whatever the arguments, a tool ends with a status that it has a meaning for, says what it does not like in lines that
/// begin with its name, and has done nothing when it was the arguments that it did not like.
fn bears_any_arguments(tool: &str, arguments: &[OsString], home: &BareHome) -> Result<(), TestCaseError> {
    let before = contents(home.path());
    let words: Vec<&OsStr> = arguments.iter().map(OsString::as_os_str).collect();
    let ran = home.run_with(tool, &words);
    prop_assert!([0, 1, 2, 3, 75, 124].contains(&ran.code), "{ran:?}");
    if ran.code >= 2 {
        prop_assert_eq!(&ran.stdout, "");
        prop_assert!(ran.stderr.lines().all(|line| line.starts_with(&format!("{tool}: "))), "{ran:?}");
        prop_assert!(!ran.stderr.replace('\n', "").contains(char::is_control), "{ran:?}");
        prop_assert!(ran.stderr.len() < 2000, "{ran:?}");
    }
    if ran.code == 2 {
        prop_assert!(contents(home.path()) == before, "it changed something: {ran:?}");
    }
    Ok(())
}

#[test]
fn every_tool_bears_any_arguments() {
    for tool in TOOLS {
        // bootup starts an nginx; install is given a home and a configuration which it refuses before it does anything.
        let home = BareHome::numbered(1);
        if tool == "bootup" || tool == "install" {
            fs::write(home.path().join("config.toml"), "app = 1\n").unwrap();
        }
        let mut runner = TestRunner::new(ProptestConfig { cases: config().cases / 8, ..config() });
        let held = runner.run(&proptest::collection::vec(argument(), 0..5), |mut arguments| {
            // logs -f goes on until it is killed: a test of its own has that.
            arguments.retain(|argument| tool != "logs" || argument != "-f");
            bears_any_arguments(tool, &arguments, &home)
        });
        held.unwrap_or_else(|failure| panic!("{tool}: {failure}"));
    }
}
