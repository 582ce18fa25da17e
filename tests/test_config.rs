//! The configuration and the env file: each mistake is one line that names the file, the line and what is wanted.

use std::fs;
use std::os::unix::fs::symlink;

use crate::bare_home::BareHome;
use crate::site::chmod;

const GOOD: &str = "\
app = \"shop\"
[instances]
A = 24001
B = 24002
[source]
git = \"/nowhere\"
[run]
command = \"true\"
[nginx]
status_port = 24000
own = true
";

/// Asserts that the configuration with `old` replaced by `new` is refused, with an error that names the file, this line
/// (None: a mistake of the whole) and these words.
#[track_caller]
fn refused(old: &str, new: &str, line: usize, words: &[&str]) {
    assert!(GOOD.contains(old), "{old:?} is not in the configuration, so this shows nothing");
    let home = BareHome::new(&GOOD.replacen(old, new, 1));
    let file = home.path().canonicalize().unwrap().join("config.toml");
    let ran = home.run("disabled-instance", &[]);
    assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
    ran.fails(2, &[&format!("disabled-instance: cannot use {}: line {line}: ", file.display())]);
    ran.fails(2, words);
}

#[test]
fn the_good_configuration_is_good() {
    BareHome::new(GOOD).run("disabled-instance", &[]).is(0, "A\n", "");
    let least = "app = \"shop\"\nsource.git = \"/nowhere\"\nrun.command = \"true\"\nnginx.own = true\n";
    BareHome::new(least).run("disabled-port", &[]).is(0, "20201\n", "");
}

#[test]
fn an_unknown_key_is_named_with_those_that_there_are() {
    refused("own = true", "owned = true", 11, &["unknown key `owned`", "`own`"]);
    refused("[nginx]", "[ngnix]", 9, &["unknown key `ngnix`", "`nginx`"]);
    refused("app =", "apps = 1\napp =", 1, &["unknown key `apps`", "`app`"]);
}

#[test]
fn a_value_of_the_wrong_type_is_named() {
    refused("own = true", "own = \"yes\"", 11, &["invalid type: string \"yes\"", "boolean"]);
    refused("A = 24001", "A = \"24001\"", 3, &["invalid type: string \"24001\""]);
    refused("app = \"shop\"", "app = 7", 1, &["invalid type: integer `7`", "string"]);
    refused("own = true", "own =", 11, &[]);
}

#[test]
fn a_port_is_a_number_from_1_to_65535_and_used_once() {
    refused("A = 24001", "A = 0", 3, &["a port is a number from 1 to 65535, not 0"]);
    refused("B = 24002", "B = 70000", 4, &["a port is a number from 1 to 65535, not 70000"]);
    refused("= 24000", "= -1", 10, &["a port is a number from 1 to 65535, not -1"]);
    refused("B = 24002", "B = 24001", 2, &["instances A and B have the same port 24001"]);
    refused("= 24000", "= 24002", 10, &["status_port 24002 is the port of instance B; give it a port of its own"]);
}

#[test]
fn there_are_exactly_two_instances_that_can_be_told_apart() {
    refused("B = 24002\n", "", 2, &["exactly two instances"]);
    refused("B = 24002", "B = 24002\nC = 24003", 2, &["exactly two instances"]);
    refused("B = 24002", "a = 24002", 2, &["instances A and a cannot be told apart"]);
    refused("B = 24002", "instanceA = 24002", 2, &["instances A and instanceA cannot be told apart"]);
    refused(
        "B = 24002",
        "\"B/..\" = 24002",
        2,
        &["an instance's name is 1 to 32 letters, digits, - and _, not \"B/..\""],
    );
    refused("B = 24002", "enabled = 24002", 2, &["no instance can be named `enabled`"]);
    for taken in ["workers", "deploy", "hooks", "build-20261121T093000Z-a"] {
        refused(
            "B = 24002",
            &format!("{taken} = 24002"),
            2,
            &[&format!("no instance can be named `{taken}`: a file of ")],
        );
    }
}

#[test]
fn durations_and_other_texts_are_as_people_write_them() {
    let duration = "expected a duration such as \"30s\" or \"5m\", got ";
    refused("own = true", "[deploy]\nsoak = \"soon\"", 12, &[duration, "\"soon\""]);
    refused("own = true", "[health]\ntimeout = \"30\"", 12, &[duration, "\"30\""]);
    refused("own = true", "[health]\ntimeout = \"500000000000y\"", 12, &[duration, "\"500000000000y\""]);
    refused(
        "own = true",
        "[health]\npath = \"health\"",
        12,
        &["expected a path such as \"/health\", or \"\", got \"health\""],
    );
    refused("own = true", "[health]\nstatus = \"good\"", 12, &["expected a status such as 2xx or 200,204, got `good`"]);
    refused("own = true", "[health]\nbody = \"(\"", 12, &["body is not a regular expression"]);
    refused("own = true", "[deploy]\nstandby = \"kept\"", 12, &["unknown variant `kept`", "`keep`", "`stop`"]);
    refused(
        "\"true\"",
        "\"true\"\nstop_signal = \"TERMINATE\"",
        9,
        &["expected a signal such as \"SIGTERM\", got \"TERMINATE\""],
    );
    refused("\"true\"", "\" \"", 8, &["expected a command, got an empty string"]);
    refused("\"/nowhere\"", "\"--upload-pack=reboot\"", 6, &["\"--upload-pack=reboot\" would be taken for an option"]);
    refused("own = true", "listen = [\"80; include /etc/passwd\"]", 11, &["cannot stand in nginx's configuration"]);
}

#[test]
fn an_app_has_a_plain_name() {
    for name in ["Shop", "", "1shop", "shop/..", "my_shop", "a23456789012345678901234567890123"] {
        refused("\"shop\"", &format!("{name:?}"), 1, &["an app's name is ", &format!("not {name:?}")]);
    }
}

#[test]
fn what_has_no_default_is_asked_for() {
    refused("app = \"shop\"\n", "", 1, &["missing key `app`"]);
    refused("[source]\ngit = \"/nowhere\"\n", "[push]\npoll = \"1m\"\n", 1, &["missing key `source`"]);
    refused("git = \"/nowhere\"\n", "", 5, &["missing key `git`"]);
    refused("command = \"true\"\n", "", 7, &["missing key `command`"]);
}

#[test]
fn containers_need_other_sections_than_processes() {
    const COMPOSE: &str = "[compose]\nimage = \"user/shop\"\nimage_variable = \"SHOP_IMAGE\"\n";
    let with = |more: &str| BareHome::new(&format!("app = \"shop\"\nnginx.own = true\n{more}{COMPOSE}"));
    with("").run("disabled-port", &[]).is(0, "20201\n", "");
    // Sections that the runner does not use may stay: to try the other one takes one word.
    let both = format!("{GOOD}{COMPOSE}").replace("app =", "runner = \"direct\"\napp =");
    BareHome::new(&both).run("disabled-instance", &[]).is(0, "A\n", "");
    with("runner = \"direct\"\n").run("disabled-instance", &[]).fails(2, &["missing key `run`"]);
    refused("app =", "runner = \"compose\"\napp =", 1, &["missing key `compose`"]);

    let section = |text: &str| format!("own = true\n{}", COMPOSE.replace("image = \"user/shop\"", text));
    refused("own = true", &section(""), 12, &["missing key `image`"]);
    for image in ["user/shop:v1", "user/shop@sha256:12", "User/Shop", "-shop", "user/", "", "a b"] {
        let text = format!("image = {image:?}");
        refused("own = true", &section(&text), 13, &["expected an image without a tag, such as \"user/app\", got"]);
    }
    let more = |key: &str| section(&format!("image = \"registry.example:5000/user/shop\"\n{key}"));
    refused("own = true", &more("pull = \"often\""), 14, &["unknown variant `often`", "`always`", "`missing`"]);
    refused("own = true", &more("docker_host = \"tcp://10.0.0.1\""), 14, &["expected unix:///PATH"]);
    refused("own = true", &more("ref = \"-x\""), 14, &["\"-x\" would be taken for an option"]);
    refused("own = true", &more("services = 1"), 14, &["unknown key `services`", "`image_variable`"]);
    let variable = more("").replace("SHOP_IMAGE", "SHOP-IMAGE");
    refused("own = true", &variable, 15, &["expected a variable's name such as \"APP_IMAGE\", got \"SHOP-IMAGE\""]);
}

#[test]
fn containers_are_told_apart_by_what_is_said_of_both() {
    let section = |lines: &str| format!("own = true\n[compose]\nimage = \"user/shop\"\n{lines}");
    let wrong = |lines: &str, line: usize, parts: &[&str]| refused("own = true", &section(lines), line, parts);
    wrong("", 12, &["[compose] missing key `image_variable`, or `tag_variable`"]);
    wrong("image_variable = \"X\"\ntag_variable = \"Y\"", 15, &["both image_variable and tag_variable"]);
    wrong("tag_variable = \"X\"\nport_variable = \"X\"", 15, &["port_variable and tag_variable are both X"]);
    let wrong = |lines: &str, parts: &[&str]| wrong(&format!("tag_variable = \"X\"\n{lines}"), 15, parts);
    wrong("file = { A = \"a.yml\" }", &["file says nothing of B"]);
    wrong("file = { A = \"a.yml\", blue = \"b.yml\" }", &["file names \"blue\": the instances are A and B"]);
    wrong("file = \"\"", &["expected a path, got an empty string"]);
    wrong("file = { A = \"a.yml\", B = 1 }", &["expected a path, or a list of paths, or one for each instance"]);
    wrong("file = []", &["expected a path, got an empty list"]);
    wrong("service = [\"a\", \"b\"]", &["expected a name, or one for each instance such as { A = "]);
    wrong("env_file = { B = \".env.b\" }", &["env_file says nothing of A"]);
    wrong("service = \"-app\"", &["expected a service's name such as \"app\", got \"-app\""]);
    wrong("service = { A = \"a/b\", B = \"b\" }", &["got \"a/b\""]);
    wrong("project = \"Shop\"", &["a project's name is lower-case letters, digits, - and _, not \"Shop\""]);
    wrong("project = \"shop\"\nservice = \"app\"", &["both instances are service app of project shop"]);
    wrong("project = { A = \"shop\", B = \"shop\" }\nservice = { A = \"app\", B = \"app\" }", &["give each a project"]);
    for fine in [
        "service = \"app\"",
        "project = \"shop\"",
        "file = [\"a.yml\", \"b.yml\"]",
        "file = { A = [\"base.yml\", \"a.yml\"], B = \"b.yml\" }",
        "file = { A = \"a\", B = \"b\" }\nservice = \"app\"\nproject = { A = \"1\", B = \"2\" }",
    ] {
        let compose = format!("[compose]\nimage = \"user/shop\"\ntag_variable = \"X\"\n{fine}\n");
        let home = BareHome::new(&format!("app = \"shop\"\nnginx.own = true\n{compose}"));
        home.run("disabled-instance", &[]).is(0, "A\n", "");
    }
}

#[test]
fn a_configuration_that_is_not_there_is_named_with_what_lays_it() {
    let home = BareHome::new(GOOD);
    let file = home.path().canonicalize().unwrap().join("config.toml");
    fs::remove_file(&file).unwrap();
    let reason = "No such file or directory (os error 2); install --config FILE lays it";
    let said = format!("disabled-instance: cannot read configuration {}: {reason}\n", file.display());
    home.run("disabled-instance", &[]).is(2, "", &said);
    fs::write(&file, b"app = \"\xff\"").unwrap();
    home.run("disabled-instance", &[]).fails(2, &[&format!("{}: ", file.display())]);
}

/// Starts an instance whose env file holds this, and expects an error that says this after naming the file.
#[track_caller]
fn env_refused(run: &str, env: Option<(&str, u32)>, said: &str) {
    let home = BareHome::new(&GOOD.replace("[run]\n", &format!("[run]\n{run}")));
    let release = home.path().join("releases/20260101T000000Z-abcdef");
    fs::create_dir(&release).unwrap();
    symlink(&release, home.path().join("instances/A")).unwrap();
    let file = home.path().canonicalize().unwrap().join("env");
    if let Some((text, mode)) = env {
        fs::write(&file, text).unwrap();
        chmod(&file, mode);
    }
    let said = said.replace("ENV", &file.display().to_string());
    home.run("start-instance", &["A"]).is(
        2,
        "",
        &format!("start-instance: cannot start A: cannot read env file {said}\n"),
    );
}

#[test]
fn an_env_file_that_is_named_must_be_there() {
    let said = "ENV: No such file or directory (os error 2); it is named by env_file in [run]";
    env_refused("env_file = \"env\"\n", None, said);
}

#[test]
fn an_env_file_that_others_may_read_is_refused() {
    env_refused("", Some(("SECRET=1\n", 0o644)), "ENV: others may read it; chmod 600 ENV");
    env_refused("env_file = \"env\"\n", Some(("SECRET=1\n", 0o640)), "ENV: others may read it; chmod 600 ENV");
}

#[test]
fn a_line_of_the_env_file_that_sets_nothing_is_named_by_its_number_and_never_quoted() {
    for line in ["hunter2", "=hunter2", "1KEY=hunter2", "MY KEY=hunter2", "SECRET: hunter2"] {
        let text = format!("# secrets\n\nGOOD=1\n{line}\n");
        env_refused("", Some((&text, 0o600)), "ENV line 4: expected KEY=VALUE, all of it on one line");
    }
}

#[test]
fn processes_and_their_limits_are_in_bounds() {
    let run = "command = \"true\"";
    let with = |line: &str| format!("{run}\n{line}");
    for odd in ["0", "65", "-1", "\"four\"", "true"] {
        refused(run, &with(&format!("processes = {odd}")), 9, &["expected a number from 1 to 64, or \"max\""]);
    }
    for odd in ["\"\"", "\"300\"", "\"-1M\"", "\"3 M\"", "\"M\"", "\"99999999999999999999G\"", "\"18014398509481984K\""]
    {
        refused(run, &with(&format!("max_memory = {odd}")), 9, &["expected a size of at least \"1M\""]);
    }
    refused(run, &with("open_files = 3"), 9, &["expected a number of at least 16, got 3"]);
    refused(run, &with("nice = 20"), 9, &["expected a number from -20 to 19, got 20"]);
    let all = with("processes = \"max\"\nmax_memory = \"300M\"\nopen_files = 4096\nnice = -20");
    BareHome::new(&GOOD.replace(run, &all)).run("disabled-instance", &[]).is(0, "A\n", "");
}

#[test]
fn each_process_has_a_port_of_its_own() {
    let processes = |count: u32, ports: &str| {
        GOOD.replace("command = \"true\"", &format!("command = \"true\"\nprocesses = {count}"))
            .replace("B = 24002", ports)
    };
    let refused = |config: String, words: &[&str]| {
        BareHome::new(&config).run("disabled-instance", &[]).fails(2, words);
    };
    BareHome::new(&processes(64, "B = 24002")).run("disabled-instance", &[]).is(0, "A\n", "");
    refused(
        processes(3, "B = 24021"),
        &["24021 is the port of instance B, and the port of process 2 of instance A: see Ports in cutover-config(5)"],
    );
    refused(processes(64, "B = 65000"), &["there are no ports for so many behind 65000, of instance B"]);
    refused(
        processes(2, "B = 23990"),
        &["status_port 24000 is the port of process 1 of instance B; give it a port of its own"],
    );
    for taken in ["24011", "*:24011", "127.0.0.1:24011 default_server", "[::]:24011"] {
        let listen =
            processes(2, "B = 24002").replace("own = true", &format!("own = true\nlisten = [\"80\", \"{taken}\"]"));
        let at = listen.lines().position(|line| line.starts_with("listen")).unwrap() + 1;
        let told = format!("line {at}: listen {taken:?} takes the port of process 1 of instance A; give nginx another");
        refused(listen.clone(), &[&told]);
        // Of another address, nothing is taken.
        let elsewhere = listen.replace(taken, "192.0.2.1:24011");
        BareHome::new(&elsewhere).run("disabled-instance", &[]).is(0, "A\n", "");
    }
}

#[test]
fn a_worker_has_a_name_of_its_own_and_a_command() {
    let with = |lines: &str| format!("[[worker]]\n{lines}\n[nginx]");
    refused("[nginx]", &with("name = \"mail\""), 9, &["missing key `command`"]);
    refused("[nginx]", &with("name = \"Mail\"\ncommand = \"x\""), 10, &["a worker's name is a lower-case letter"]);
    refused("[nginx]", &with("name = \"mail\"\ncommand = \" \""), 11, &["expected a command"]);
    refused("[nginx]", &with("name = \"mail\"\ncommand = \"x\"\ncount = 0"), 12, &["expected a number from 1 to 64"]);
    refused("[nginx]", &with("name = \"mail\"\ncommand = \"x\"\ncounts = 1"), 12, &["unknown key `counts`"]);
    let one = "name = \"mail\"\ncommand = \"x\"\n";
    refused("[nginx]", &with(&format!("{one}[[worker]]\n{one}")), 9, &["two workers are called \"mail\""]);
    let many = with(&format!("{one}args = [\"a b\", \"\"]\ncount = 8\noverlap = true"));
    BareHome::new(&GOOD.replace("[nginx]", &many)).run("disabled-instance", &[]).is(0, "A\n", "");
    let containers = "[compose]\nimage_variable = \"X\"\nimage = \"x\"\n";
    let home =
        BareHome::new(&GOOD.replace("[nginx]", &with(one)).replace("[source]", &format!("{containers}[source]")));
    home.run("disabled-instance", &[]).fails(2, &["[[worker]] is not for containers"]);
}
