//! install: everything is laid out, again changes only what differs, and --remove leaves what is the user's.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::holder::Holder;
use crate::server::Server;
use crate::site::{BRISK, Ran, Sample, Site, built, chmod, eventually, explains_itself};

#[test]
fn it_explains_itself() {
    let about =
        "Lay everything out: directories, tools, configuration, nginx's files. Run again, it changes only what differs";
    explains_itself("install", about);
}

#[test]
fn an_install_that_was_killed_in_its_first_file_of_nginxs_is_finished_by_the_next() {
    for name in ["choice.conf", "push.conf"] {
        let site = Site::unlaid(Sample::Static, BRISK);
        let includes = site.home.join("nginx/conf.d/shop.d");
        fs::create_dir_all(&includes).unwrap();
        fs::write(site.home.join(".cutover"), "# Laid by cutover's install for shop\n").unwrap();
        fs::write(includes.join(format!(".{name}.new")), "").unwrap();
        site.install(&[]).ok();
    }
}

#[test]
fn what_is_missing_or_wrong_is_an_error_before_anything_is_laid() {
    let site = Site::unlaid(Sample::Static, BRISK);
    let install =
        |arguments: &[&str]| Ran::of(&site.command(&built().join("install")).args(arguments).output().unwrap());
    let reason = "install: no configuration: say --config FILE; cutover-config(5) describes it\n";
    install(&[]).is(2, "", reason);
    let reason = "install: cannot read nowhere.toml: No such file or directory (os error 2)\n";
    install(&["--config", "nowhere.toml"]).is(2, "", reason);
    let reason = "install: the following required arguments were not provided: --remove; see install --help\n";
    install(&["--config", "shop.toml", "--purge"]).is(2, "", reason);
    let reason = "install: cannot find user \"nobody-of-that-name\": neither /etc/passwd lists it nor does getent know it; useradd makes one\n";
    install(&["--config", "shop.toml", "--user", "nobody-of-that-name"]).is(2, "", reason);

    site.write_config("[nginx]\nown = true\nserver_name = \"x; include /etc/passwd\"\n");
    let line = fs::read_to_string(site.config()).unwrap().lines().count();
    let reason = format!("install: cannot use shop.toml: line {line}: ");
    install(&["--config", "shop.toml"]).fails(2, &[&reason, "cannot stand in nginx's configuration"]);

    site.write_config(BRISK);
    let holder = Holder::of(site.ports.second);
    let (port, described) = (site.ports.second, holder.described());
    let reason =
        format!("install: cannot give port {port} to B: {described} holds it; choose another in [instances]\n");
    site.install(&[]).is(3, "", &reason);
    assert!(!site.home.exists() && !site.directory.path().join(".profile").exists());
}

#[test]
fn a_dry_run_prints_what_a_run_would_lay_and_lays_nothing() {
    let site = Site::unlaid(Sample::Static, BRISK);
    let dry = site.install(&["--dry-run"]).masked(&site);
    assert_eq!((dry.code, dry.stderr.as_str()), (0, ""));
    assert!(!site.home.exists() && !site.directory.path().join(".profile").exists());
    let laid = site.install(&[]).masked(&site);
    assert_eq!((laid.code, laid.stdout.as_str()), (0, ""));
    let would: Vec<&str> = dry.stdout.lines().map(|line| line.strip_prefix("lay ").unwrap()).collect();
    let did: Vec<&str> = laid.stderr.lines().filter_map(|line| line.strip_prefix("install: lay ")).collect();
    assert_eq!(sorted(would), sorted(did.clone()));
    for path in ["directory HOME/releases", "19 tools in HOME/bin", "HOME/config.toml", "HOME/nginx/nginx.conf"] {
        assert!(did.contains(&path), "{path} is not in {did:?}");
    }
    let last = laid.stderr.lines().last().unwrap();
    assert_eq!(last, "install: shop is laid out; next: HOME/bin/deploy");
    site.install(&["--dry-run"]).is(0, "", "");
}

#[test]
fn a_second_install_has_nothing_to_do_and_changes_nothing() {
    let site = Site::new(Sample::Static, BRISK);
    let before = everything(&site.home);
    let said = "install: nothing to do: shop is laid out in HOME\n";
    site.install(&[]).masked(&site).is(0, "", said);
    assert_eq!(everything(&site.home), before);
    // Its own configuration serves when no other is given.
    let mut own = site.tool("install", &["--home"]);
    Ran::of(&own.arg(&site.home).output().unwrap()).masked(&site).is(0, "", said);
    assert_eq!(everything(&site.home), before);
    assert_eq!(fs::metadata(site.home.join("env")).unwrap().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&site.home).unwrap().mode() & 0o777, 0o750);
}

#[test]
fn the_path_line_is_added_once_and_taken_out_again() {
    let site = Site::unlaid(Sample::Static, BRISK);
    let profile = site.directory.path().join(".profile");
    let own = "# mine\nexport EDITOR=vi";
    fs::write(&profile, own).unwrap();
    site.install(&[]).ok();
    let line = format!("PATH=$PATH:{}/bin # laid by cutover's install\n", site.home.display());
    assert_eq!(fs::read_to_string(&profile).unwrap(), format!("{own}\n{line}"));
    site.install(&[]).ok();
    assert_eq!(fs::read_to_string(&profile).unwrap(), format!("{own}\n{line}"));
    let found = site.command(Path::new("/bin/sh")).args(["-c", ". ./.profile; command -v deploy"]).output().unwrap();
    Ran::of(&found).masked(&site).is(0, "HOME/bin/deploy\n", "");
    site.install(&["--remove", "--force"]).ok();
    assert_eq!(fs::read_to_string(&profile).unwrap(), format!("{own}\n"));
}

/// On RHEL and its like bash has a file of its own, and zsh always has.
#[test]
fn login_shells_find_the_tools_whatever_they_read() {
    for (shell, before, asked) in [
        ("/bin/bash", "echo 'test -f ~/.bashrc && . ~/.bashrc' >.bash_profile", "bash"),
        ("/bin/bash", "echo '# mine' >.bash_login", "bash"),
        ("/bin/bash", "touch .bash_login .bash_profile .zprofile", "bash"),
        ("/bin/bash", "touch .zprofile", "zsh"),
        ("/usr/bin/zsh", "true", "zsh"),
        ("/bin/sh", "true", "bash"),
        ("/bin/sh", "true", "sh"),
    ] {
        let Some(server) = Server::boot() else { return };
        let changed = format!("s,/home/potados:/bin/sh,/home/potados:{shell},");
        server.run(&format!("sed '{changed}' /etc/passwd >/run/passwd && cat /run/passwd >/etc/passwd")).ok();
        server.run(&format!("cd /home/potados && runuser -u potados -- sh -c \"{before}\"")).ok();
        let files = || server.run("cd /home/potados && grep -c '' .profile .bash_* .z* 2>/dev/null").stdout;
        let at_first = files();
        server.install("").ok();
        server.install("").ok();
        let found = server.run(&format!(
            "runuser -u potados -- env -i HOME=/home/potados PATH=/usr/bin:/bin {asked} -l -c 'command -v rollback'"
        ));
        found.is(0, "/home/potados/.cafeteria/bin/rollback\n", "");
        server.run("$TOOLS/install --remove --force --home /home/potados/.cafeteria").ok();
        let lines =
            |text: &str| text.lines().filter(|line| !line.ends_with(":0")).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(lines(&files()), lines(&at_first), "{shell} {before}");
    }
}

#[test]
fn a_server_block_that_was_edited_is_left_alone_and_taken_up() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("deploy", &[]).ok();
    let path = site.home.join("nginx/conf.d/shop-server.conf");
    let laid = fs::read_to_string(&path).unwrap();
    let workers = || site.shell(&format!("pgrep -P $(cat {})", site.home.join("nginx/nginx.pid").display())).ok();
    let header = || site.shell(&format!("curl -si 127.0.0.1:{} | grep X-Edit", site.ports.listen)).stdout;
    for edit in ["X-Edit one", "X-Edit two"] {
        let edited = laid.replace("server_name _;", &format!("server_name _; add_header {edit} always;"));
        fs::write(&path, &edited).unwrap();
        let said = site.install(&[]).masked(&site);
        let told = "install: left HOME/nginx/conf.d/shop-server.conf alone: it was edited\ninstall: nginx uses them\n";
        assert!(said.code == 0 && said.stdout.is_empty() && said.stderr.contains(told), "{said:?}");
        assert_eq!(header().trim(), edit.replace(' ', ": "));
        assert_eq!(fs::read_to_string(&path).unwrap(), edited);
        let before = workers();
        site.install(&["--dry-run"]).is(0, "", "");
        assert!(!site.install(&[]).stderr.contains("nginx uses them"));
        assert_eq!(workers(), before);
    }
    site.install(&["--remove", "--force"]).ok();
}

#[test]
fn what_nginx_does_not_take_of_an_edited_server_block_is_told_by_its_line() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("deploy", &[]).ok();
    let path = site.home.join("nginx/conf.d/shop-server.conf");
    let laid = fs::read_to_string(&path).unwrap();
    for (edit, told) in [
        ("server_name _; add_header X-Edit {", "directive \"add_header\" is not terminated by \";\""),
        ("server_name _; no_such_thing on;", "unknown directive \"no_such_thing\""),
        ("server_name _; include missing.conf;", "missing.conf\" failed (2: No such file or directory)"),
        ("server_name _; ssl_certificate none.pem;", "none.pem"),
        ("server_name _; } }", "unexpected \"}\""),
    ] {
        fs::write(&path, laid.replace("server_name _;", edit)).unwrap();
        let refused = ["install: nginx refuses its present configuration: mend that first: nginx: ", told];
        site.install(&[]).fails(3, &refused);
        assert_eq!(site.get("/").1, "v1\n", "{edit}");
    }
    fs::write(&path, laid).unwrap();
    site.install(&[]).ok();
    assert_eq!(site.get("/").1, "v1\n");
}

#[test]
fn an_edit_that_nginx_takes_and_that_keeps_clients_out_is_named() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("deploy", &[]).ok();
    let path = site.home.join("nginx/conf.d/shop-server.conf");
    let laid = fs::read_to_string(&path).unwrap();
    fs::write(&path, laid.replace("server_name _;", "server_name _; return 503;")).unwrap();
    let named = format!("install: nginx uses what {} was edited to: mend that: ", path.display());
    site.install(&[]).fails(3, &[&named]);
    fs::write(&path, laid).unwrap();
    site.install(&[]).ok();
    assert_eq!(site.get("/").1, "v1\n");
}

#[test]
fn tools_are_upgraded_while_the_app_runs() {
    let site = Site::new(Sample::Static, BRISK);
    // A former version, as far as anybody can tell: the same program, and a byte more.
    for tool in ["supervise", "deploy"] {
        let path = site.home.join("bin").join(tool);
        let former = [fs::read(&path).unwrap(), vec![0]].concat();
        fs::write(&path, former).unwrap();
        chmod(&path, 0o755);
    }
    site.run("deploy", &[]).ok();
    let before = (site.processes(), site.pid("A"));
    let said = "install: lay 19 tools in HOME/bin\ninstall: shop is laid out; next: HOME/bin/deploy\n";
    site.install(&[]).masked(&site).is(0, "", said);
    assert_eq!((site.processes(), site.pid("A")), before);
    for tool in ["supervise", "deploy", "pid"] {
        assert!(fs::read(site.home.join("bin").join(tool)).unwrap() == fs::read(built().join(tool)).unwrap(), "{tool}");
    }
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
}

#[test]
fn what_nginx_refuses_is_put_back() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("deploy", &[]).ok();
    let before = contents(&site.home.join("nginx/conf.d"));
    let config = fs::read_to_string(site.home.join("config.toml")).unwrap();
    site.write_config(&format!(
        "[nginx]\nown = true\nlisten = [\"nonsense:port:x\"]\nstatus_port = {}\n{BRISK}",
        site.ports.status
    ));
    let refused = site.install(&[]);
    refused.fails(3, &["install: nginx refuses the new configuration, the old one is back: nginx: "]);
    assert!(refused.stderr.contains("nonsense:port:x"), "{refused:?}");
    assert_eq!(contents(&site.home.join("nginx/conf.d")), before);
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
    assert_eq!(fs::read_to_string(site.home.join("config.toml")).unwrap(), config, "the tools' and nginx's differ");
    site.write_config(BRISK);
    site.install(&[]).masked(&site).is(0, "", "install: nothing to do: shop is laid out in HOME\n");
}

#[test]
fn ports_are_not_changed_under_instances_that_run() {
    let site = Site::new(Sample::Static, BRISK);
    site.run("deploy", &[]).ok();
    let port = site.ports.first;
    let text = fs::read_to_string(site.config()).unwrap();
    fs::write(site.config(), text.replace(&format!("A = {port}"), &format!("A = {}", site.ports.second + 3))).unwrap();
    let before = everything(&site.home);
    let reason = format!(
        "install: stop the instances first: cannot change [instances]: A runs on port {port}; --force does it all the same\n"
    );
    site.install(&[]).is(3, "", &reason);
    assert_eq!(everything(&site.home), before);
    fs::write(site.config(), text).unwrap();
}

#[test]
fn removing_ends_everything_and_leaves_what_is_the_users() {
    let site = Site::new(Sample::Static, BRISK);
    fs::write(site.home.join("env"), "SECRET=1\n").unwrap();
    fs::write(site.home.join("hooks/after"), "#!/bin/sh\n").unwrap();
    site.run("deploy", &[]).ok();
    let reason = "install: cannot remove shop: it would be stopped; --force does it all the same\n";
    site.install(&["--remove"]).is(3, "", reason);
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));

    let removed = site.install(&["--remove", "--force"]).masked(&site);
    assert_eq!((removed.code, removed.stdout.as_str()), (0, ""));
    for said in ["stopped A", "removed HOME/state", "removed HOME/bin/deploy", "took HOME/bin out of SITE/.profile"] {
        assert!(removed.stderr.contains(&format!("install: {said}\n")), "{said:?} is not in {removed:?}");
    }
    eventually("all processes have ended, nginx included", || site.processes().is_empty());
    for gone in ["bin", "state", "run", "nginx"] {
        assert!(!site.home.join(gone).exists(), "{gone}");
    }
    for (kept, text) in [("env", "SECRET=1\n"), ("hooks/after", "#!/bin/sh\n"), ("instances/A/VERSION", "v1\n")] {
        assert_eq!(fs::read_to_string(site.home.join(kept)).unwrap(), text);
    }
    assert!(site.home.join("config.toml").exists() && site.home.join("logs/A.log").exists());

    // Laid out again, it has its releases still.
    site.install(&[]).ok();
    site.run("deploy", &[]).ok();
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
    site.install(&["--remove", "--force", "--purge"]).ok();
    assert!(!site.home.exists());
}

fn sorted(mut lines: Vec<&str>) -> Vec<&str> {
    lines.sort_unstable();
    lines
}

/// Each file and directory below, with its inode and the time of its last change.
fn everything(directory: &Path) -> BTreeMap<PathBuf, (u64, i64, i64)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let meta = entry.metadata().unwrap();
        if meta.is_dir() {
            found.extend(everything(&entry.path()));
        }
        found.insert(entry.path(), (meta.ino(), meta.mtime(), meta.mtime_nsec()));
    }
    found
}

fn contents(directory: &Path) -> BTreeMap<PathBuf, String> {
    let files = everything(directory).into_keys().filter(|path| path.is_file());
    files.map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn the_systemd_runner_is_refused_where_it_cannot_be() {
    let is_booted = Path::new("/run/systemd/system").is_dir();
    let site = Site::unlaid(Sample::Static, BRISK);
    let text = fs::read_to_string(site.config()).unwrap();
    fs::write(site.config(), text.replace("runner = \"direct\"", "runner = \"systemd\"")).unwrap();
    let planned = site.install(&["--dry-run"]);
    match (nix::unistd::Uid::effective().is_root(), is_booted) {
        (true, true) => assert!(planned.stdout.contains("lay /etc/systemd/system/shop@.service\n"), "{planned:?}"),
        (true, false) => planned.fails(2, &["cannot use the systemd runner: systemd does not run this machine"]),
        (false, _) => planned.fails(2, &["cannot use the systemd runner: run install with sudo"]),
    }
}

#[test]
fn what_the_commands_begin_with_must_be_there() {
    let site = Site::unlaid(Sample::Static, "[build]\ncommand = \"no-such-program ci\"\n[deploy]\nsoak = \"1s\"\n");
    let missing =
        "install: cannot find no-such-program, which command in [build] begins with, in the PATH that the app gets";
    let first = site.install(&[]);
    assert!(first.code == 0 && first.stderr.contains(missing), "{first:?}");
    site.install(&[]).fails(3, &[missing]);
    // What takes a shell to tell, or lies in the release, is left to the build.
    for command in ["NODE_ENV=production ./build", "./build", "cd web && npm ci", "exec \\\"$SHELL\\\" build"] {
        site.write_config(&format!("[build]\ncommand = \"{command}\"\n[deploy]\nsoak = \"1s\"\n"));
        site.install(&["--dry-run"]).ok();
    }
}

#[test]
fn install_ends_by_deploying_when_asked() {
    let site = Site::unlaid(Sample::Static, BRISK);
    let installed = site.install(&["--deploy"]);
    assert!(installed.stderr.contains("deploy: A is enabled, "), "{installed:?}");
    installed.ok();
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
    site.commit("v2", "exit");
    site.install(&["--deploy"]).fails(3, &["deploy: cannot start B: it died: "]);
    site.install(&["--deploy", "--dry-run"]).fails(2, &["cannot be used with"]);
}

#[test]
fn nginx_must_be_able_to_listen_where_it_is_told_to() {
    let site = Site::unlaid(Sample::Static, BRISK);
    let holder = Holder::of(site.ports.listen);
    let refused = site.install(&[]);
    let reason = format!("install: nginx cannot listen on port {}: ", site.ports.listen);
    refused.fails(3, &[&reason, "holds it; choose another in [nginx] listen"]);
    assert!(!site.home.exists());
    drop(holder);
    site.install(&[]).ok();
}

#[test]
fn a_home_behind_a_link_is_laid_out_and_named_by_its_real_path() {
    let site = Site::unlaid(Sample::Static, BRISK);
    let link = site.directory.path().join("link");
    std::os::unix::fs::symlink(site.directory.path(), &link).unwrap();
    let mut install = site.command(&built().join("install"));
    install.arg("--config").arg(site.config()).arg("--home").arg(link.join(".shop"));
    let said = Ran::of(&install.output().unwrap()).said();
    assert!(said.contains(&format!("next: {}/bin/deploy", site.home.display())), "{said}");
    site.install(&[]).masked(&site).is(0, "", "install: nothing to do: shop is laid out in HOME\n");
}
