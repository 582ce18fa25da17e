//! install --from-pm2: what an ecosystem file says becomes a configuration, what has no counterpart is told, and no value
//! of a variable is.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use cutover::app::Config;
use nix::unistd::Uid;
use tempfile::TempDir;

use crate::server::Server;
use crate::site::{BRISK, Ran, Sample, Site, built};

const ORIGIN: &str = "https://example.org/shop.git";
const SECRET: &str = "q7-recognisable-value";

/// A clone with an ecosystem file in it.
struct Clone {
    directory: TempDir,
}

impl Clone {
    /// A clone of [`ORIGIN`] with these files, by name and content.
    fn with(files: &[(&str, &str)]) -> Clone {
        let directory = tempfile::Builder::new().prefix("cutover-test-").tempdir().unwrap();
        let clone = Clone { directory };
        fs::create_dir(clone.path()).unwrap();
        for (name, content) in files {
            let path = clone.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        clone.git(&["init", "--quiet", "--initial-branch=develop"]);
        clone.git(&["config", "remote.origin.url", ORIGIN]);
        clone
    }

    /// Commits all that is there, and has it at the origin, so far as the clone knows.
    fn push(&self) {
        self.git(&["add", "--all"]);
        let identity = ["-c", "user.name=p", "-c", "user.email=p@example.org"];
        self.git(&[&identity[..], &["commit", "--quiet", "--allow-empty", "--message", "all"]].concat());
        self.git(&["update-ref", "refs/remotes/origin/develop", "HEAD"]);
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("shop")
    }

    fn git(&self, arguments: &[&str]) {
        Ran::run(Command::new("git").arg("-C").arg(self.path()).args(arguments)).ok();
    }

    /// Runs install on one of the files, beside it.
    fn install(&self, file: &str, arguments: &[&str]) -> Ran {
        let mut command = Command::new(built().join("install"));
        let inherited = std::env::var_os("PATH").unwrap();
        command.env_clear().env("PATH", inherited).env("HOME", self.directory.path()).current_dir(self.path());
        Ran::run(command.args(["--from-pm2", file]).args(arguments))
    }

    /// What is made of a file: the configuration, and what is told.
    #[track_caller]
    fn translated(&self, file: &str) -> (String, Vec<String>) {
        self.push();
        let ran = self.install(file, &["--dry-run"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        let told = ran.stderr.lines().map(|line| line.strip_prefix("install: ").unwrap().to_owned()).collect();
        (ran.stdout, told)
    }
}

/// The end of a configuration, which depends on who installs.
fn nginx() -> &'static str {
    match Uid::effective().is_root() {
        true => "[nginx]\n# listen = []: with a server block of your own, see cutover-config(5)\n",
        false => "[nginx]\nown = true\nlisten = [\"8080\"]\n",
    }
}

const HEALTH: &str = "path = \"/\"  # must answer 2xx once the app can serve; \"\": it is enough that it listens";
const NO_PORT: &str = "nothing tells example its port: it must listen on the one in PORT";

#[test]
fn a_json_file_with_comments_becomes_a_configuration() {
    let json = r#"{
"apps": [
{
"name": "example", // what the process is called
"script": "dist/main.js", // what pm2 starts
"instances": 0, // 0, -1 => as many as there are cores
"exec_mode": "cluster" // as a cluster
}
]
}
// the end"#;
    let (text, told) = Clone::with(&[("ecosystem.json", json), ("dist/main.js", "")]).translated("ecosystem.json");
    let expected = format!(
        r#"# Made from pm2's ecosystem.json; see cutover-config(5)
app = "example"

[source]
git = "{ORIGIN}"
ref = "develop"

[run]
command = "exec node dist/main.js"
processes = "max"
stop_signal = "SIGINT"  # what pm2 sends

[health]
{HEALTH}

{}"#,
        nginx()
    );
    assert_eq!(text, expected);
    assert_eq!(told, [NO_PORT]);
    Config::parse(&text).unwrap();
}

/// The file of a NestJS app, in a directory of its own in the repository.
#[test]
fn a_cluster_that_tells_when_it_is_ready_becomes_a_configuration() {
    let package = r#"{ "scripts": { "build": "nest build" } }"#;
    let clone = Clone::with(&[
        ("server/package.json", package),
        ("server/package-lock.json", "{}"),
        ("server/.env", ""),
        (".gitignore", ".env"),
    ]);
    let file = |cwd: &str| {
        format!(
            r#"module.exports = {{
apps: [{{
name: "server", // what the process is called
script: "dist/main.js",
cwd: {cwd},
instances: 0, // as max
exec_mode: "cluster",
wait_ready: true,
listen_timeout: 90000,
kill_timeout: 5000
}}]
}}"#
        )
    };
    fs::write(clone.path().join("server/ecosystem.config.js"), file("__dirname")).unwrap();
    fs::write(clone.path().join("ecosystem.config.js"), file("\"./server\"")).unwrap();
    let expected = format!(
        r#"# Made from pm2's ecosystem.config.js; see cutover-config(5)
app = "server"

[source]
git = "{ORIGIN}"
ref = "develop"

[build]
command = "cd server && npm ci --include=dev && npm run build"

[run]
command = "cd server && exec node dist/main.js"
processes = "max"
stop_signal = "SIGINT"  # what pm2 sends
stop_timeout = "5s"

[health]
{HEALTH}
timeout = "1m 30s"  # listen_timeout; pm2 goes on then anyway, a deploy fails

{}"#,
        nginx()
    );
    let expected_told = [
        "not in git, so in no release: server/.env; write its lines into the env file",
        "nothing tells server its port: it must listen on the one in PORT",
        "pm2's wait_ready of server has no counterpart: the health check tells what is ready; process.send is undefined \
         here and a call of it crashes: write process.send?.('ready')",
    ];
    for name in ["server/ecosystem.config.js", "ecosystem.config.js"] {
        let (text, told) = clone.translated(name);
        assert_eq!((text, told), (expected.clone(), expected_told.map(str::to_owned).into()), "{name}");
    }
    Config::parse(&expected).unwrap();

    // The same file from another machine: that directory is not here.
    fs::write(clone.path().join("server/ecosystem.config.js"), file("\"/root/Web04/server\"")).unwrap();
    let (text, told) = clone.translated("server/ecosystem.config.js");
    assert_eq!(text, expected);
    assert_eq!(told[0], "/root/Web04 is not here: the repository is taken for it");

    // With the port that pm2 gave it.
    let with_port =
        r#"module.exports = { apps: [{ name: "server", script: "dist/main.js", env: { PORT: "8080" } }] };"#;
    fs::write(clone.path().join("server/ecosystem.config.js"), with_port).unwrap();
    let (text, told) = clone.translated("server/ecosystem.config.js");
    assert!(!text.replace(nginx(), "").contains("8080"), "{text}");
    assert_eq!(told[1], "pm2's port of server is left out: PORT tells each process its own; nginx listens for people");
}

/// As people keep one file in their home for several clones.
#[test]
fn a_file_that_lies_outside_of_the_clone_leads_to_it() {
    let clone = Clone::with(&[
        ("api/package.json", "{}"),
        ("api/server.js", ""),
        ("bin/www", "#!/usr/bin/env node\n"),
        ("bin/mail.sh", ""),
    ]);
    let root = clone.path().canonicalize().unwrap();
    let file = format!(
        r#"{{ apps: [
  {{ name: 'api', script: '{0}/api/server.js', cwd: 'shop/api', instances: 2 }},
  {{ name: 'www', script: '{0}/bin/www', cwd: '{0}/api/../api' }},
  {{ name: 'mail', script: 'mail.sh', cwd: '{0}/bin' }},
  {{ name: 'log', script: '/usr/bin/logger', interpreter: 'none', args: '-t shop', cwd: '/var/log' }},
] }}"#,
        root.display()
    );
    fs::write(clone.directory.path().join("ecosystem.json"), file).unwrap();
    let (text, told) = clone.translated("../ecosystem.json");
    let config = Config::parse(&text).unwrap();
    assert_eq!((config.source.git.as_str(), config.source.reference.as_str()), (ORIGIN, "develop"));
    assert_eq!(config.build.command.as_deref(), Some("cd api && npm install --include=dev"));
    assert_eq!(config.run.command, "cd api && exec node server.js");
    let commands: Vec<&str> = config.workers.iter().map(|worker| worker.command.as_str()).collect();
    assert_eq!(commands, ["cd api && exec node ../bin/www", "cd bin && exec bash mail.sh", "exec /usr/bin/logger"]);
    let of_log: Vec<&String> = told.iter().filter(|line| line.contains(" of log ")).collect();
    assert!(
        of_log[0].starts_with("pm2's cwd of log has no counterpart: it lies outside of the repository"),
        "{told:?}"
    );
    assert_eq!(of_log[1], "pm2's script of log lies outside of the repository: it is the same for all releases");
}

/// Sixteen consumers that are told by their arguments what they consume.
#[test]
fn a_crowd_of_workers_leaves_open_what_serves() {
    let file = r#"
const apps = [];
for (const kind of ['single', 'multi']) {
  for (let number = 1; number <= 8; number++) {
    apps.push({
      name: `${kind}0${number}transmission`,
      script: './bin/main.js',
      args: [`10.0.0.${number}`, 9000 + number],
      instances: 1,
      watch: true,
    });
  }
}
module.exports = { apps };
"#;
    let clone = Clone::with(&[("ecosystem.config.js", file), ("package.json", "{}"), ("bin/main.js", "")]);
    let (text, told) = clone.translated("ecosystem.config.js");
    assert_eq!(
        told,
        [
            "none of pm2's 16 apps, which all run the same script, seems to serve HTTP: all are workers; write into [run] \
             what runs the web app",
            "pm2's watch of single01transmission, single02transmission, single03transmission and 13 others has no \
             counterpart: deploy brings new code, by hand or, with [push], at each push; where you work, deploy --watch",
        ]
    );
    let open = "[run]\n# command = \"…\": what runs the web app, on the port in PORT\nstop_signal = \"SIGINT\"";
    assert!(text.contains(open), "{text}");
    assert!(Config::parse(&text).unwrap_err().contains("missing key `command`"));
    let completed = text.replace("# command = \"…\": ", "command = \"exec node web.js\" # ");
    let config = Config::parse(&completed).unwrap();
    assert_eq!((config.app.as_str(), config.build.command.as_deref()), ("shop", Some("npm install --include=dev")));
    let workers: Vec<(&str, &str, Vec<&str>)> = config
        .workers
        .iter()
        .map(|one| (one.name.as_str(), one.command.as_str(), one.args.iter().map(String::as_str).collect()))
        .collect();
    assert_eq!(workers.len(), 16);
    assert_eq!(workers[0], ("single01transmission", "exec node ./bin/main.js", vec!["10.0.0.1", "9001"]));
    assert_eq!(workers[15], ("multi08transmission", "exec node ./bin/main.js", vec!["10.0.0.8", "9008"]));

    let reason = "cannot install from ecosystem.config.js: it does not tell command in [run]; --dry-run prints a \
                  configuration: complete it, and say --config";
    clone.install("ecosystem.config.js", &[]).fails(2, &[reason]);
    clone.git(&["config", "--unset", "remote.origin.url"]);
    let reason = "it does not tell git in [source] and command in [run]; ";
    clone.install("ecosystem.config.js", &[]).fails(2, &[reason]);
    let (text, _) = clone.translated("ecosystem.config.js");
    assert!(text.contains("[source]\n# git = \"…\": the repository that is deployed: a URL, or a path on this host\n"));
    assert!(!clone.directory.path().join(".shop").exists());
}

/// A web program and the listener for webhooks beside it, both started with `-i max`, the one with `--watch`.
#[test]
fn a_second_app_that_serves_is_a_worker_and_told_to_be() {
    let file = r#"[
  { script: 'index.js', instances: 'max', watch: true, ignore_watch: ['node_modules'] },
  { script: 'webhook.js', instances: 'max' },
]"#;
    let clone = Clone::with(&[("ecosystem.json", file), ("index.js", ""), ("webhook.js", "")]);
    let (text, told) = clone.translated("ecosystem.json");
    let config = Config::parse(&text).unwrap();
    assert_eq!((config.app.as_str(), config.run.command.as_str()), ("index", "exec node index.js"));
    let webhook = &config.workers[0];
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(
        (webhook.name.as_str(), webhook.command.as_str(), webhook.count),
        ("webhook", "exec node webhook.js", cores)
    );
    let serves = "webhook seems to serve HTTP as well: it is a worker here, of which nginx knows nothing; better give it an \
                  installation of its own";
    assert_eq!(told[0], serves);
    for key in ["watch", "ignore_watch"] {
        let lost = format!("pm2's {key} of index has no counterpart: deploy brings new code");
        assert_eq!(told.iter().filter(|line| line.starts_with(&lost)).count(), 1, "{told:?}");
    }
}

#[test]
fn each_key_is_taken_over_or_told() {
    let file = r#"
exports.deploy = { production: { user: 'node', 'post-deploy': 'npm install' } };
exports.title = 'ours';
exports.apps = [
  {
    name: 'mail', exec: 'mail.py', execMode: 'fork_mode', treekill: false, args: '-v "two words"', instances: 3, killTimeout: 7000,
    max_memory_restart: '100M', cron: '0 3 * * *', listen_timeout: 1,
  },
  {
    name: 'Shop_API', script: 'npm', args: ['start', '--', '--port=3000'], cwd: '.', instances: '-1', env: {},
    env_production: { NODE_ENV: 'production', DB: 'x' }, kill_timeout: 1600, max_memory_restart: 1024 * 1024 * 300,
    autorestart: true, watch: false, max_restarts: 10, out: 'a.log', err_file: 'b.log', merge_logs: true, time: true,
    pid: 'x.pid', cron_restart: '0 4 * * *', source_map_support: true, treekill: false, uid: 'www', vizion: false,
    namespace: 'x', surprise: 1, 'odd\nkey': 1, shutdown_with_message: true, instance_var: 'ID', deep_monitoring: true,
    post_update: ['npm ci'], env_file: '.env.production',
  },
  { name: 'migrate', script: 'migrate.sh', autorestart: false },
];
"#;
    let clone =
        Clone::with(&[("ecosystem.config.cjs", file), ("yarn.lock", ""), ("package.json", "{}"), ("mail.py", "")]);
    let (text, told) = clone.translated("ecosystem.config.cjs");
    let expected = format!(
        r#"# Made from pm2's ecosystem.config.cjs; see cutover-config(5)
app = "shop-api"

[source]
git = "{ORIGIN}"
ref = "develop"

[build]
command = "yarn install --frozen-lockfile --production=false"

[run]
command = "exec npm start -- --port=$PORT"
processes = "max"
max_memory = "300M"
stop_signal = "SIGINT"  # what pm2 sends
stop_signal_to = "main"
stop_timeout = "7s"

[health]
{HEALTH}

{}
[[worker]]
name = "mail"
command = "exec python3 mail.py"
args = ["-v","two words"]
count = 3
max_memory = "100M"
stop_signal_to = "main"
"#,
        nginx()
    );
    assert_eq!(text, expected);
    Config::parse(&text).unwrap();
    let mut told = told;
    let mut expected = [
        "pm2's deploy has no counterpart: [source] and [build] say what deploy does",
        "pm2's title is not known, and left out",
        "the variables are those of env alone: --env production adds those of the other",
        "pm2's autorestart of migrate has no counterpart: it is left out, for a worker is kept running; call it from a \
         hook, or from the crontab",
        "pm2's \"Shop_API\" is called shop-api here",
    ]
    .map(str::to_owned)
    .to_vec();
    expected.extend(
        [
            ("port", "is left out: PORT tells each process its own; nginx listens for people"),
            ("instances", "becomes one for each processor, not for all but 1"),
            ("surprise", "is not known, and left out"),
            ("odd\u{fffd}key", "is not known, and left out"),
        ]
        .map(|(key, becomes)| format!("pm2's {key} of shop-api {becomes}")),
    );
    let logs = "logs shows what it prints, which lies in the home's logs or in the journal";
    let cron = "put reload into the crontab: it starts everything afresh, and loses no request";
    expected.extend(
        [
            ("max_restarts", "what ends is started again for ever, after 100 ms at first and 10 s at last"),
            ("out_file", logs),
            ("error_file", logs),
            ("merge_logs", logs),
            ("time", "logs --timestamps prints when each line was printed"),
            ("pid_file", "pid prints it"),
            ("cron_restart", cron),
            ("source_map_support", "put node's --enable-source-maps into the command"),
            ("uid", "all of it runs as the home's owner: install --user"),
            ("shutdown_with_message", "no message comes: stop_signal in [run] asks it to end"),
            ("instance_var", "PROCESS_INDEX counts an instance's processes, and WORKER_INDEX a worker's"),
            ("deep_monitoring", "nothing reports to pm2.io; status --json tells pids, memory, health and restarts"),
            ("post_update", "put its commands into [build] command"),
            ("env_file", "write its lines into the env file"),
        ]
        .map(|(key, instead)| format!("pm2's {key} of shop-api has no counterpart: {instead}")),
    );
    expected.extend(
        [
            ("listen_timeout", "a worker serves no HTTP, and nobody waits for it to listen"),
            ("cron_restart", "a worker that ends by itself is started again; what is a job belongs into the crontab"),
        ]
        .map(|(key, instead)| format!("pm2's {key} of mail has no counterpart: {instead}")),
    );
    told.sort();
    expected.sort();
    assert_eq!(told, expected);
}

#[test]
fn every_form_of_the_file_says_the_same() {
    let app = "{ name: 'shop', script: 'a.js', wait_ready: true }";
    let forms = [
        ("one.config.js", format!("module.exports = {{ apps: [{app}] }}")),
        ("list.config.js", format!("console.log('reading'); module.exports = [{app}];")),
        ("single.config.cjs", format!("setInterval(() => {{}}, 1000); module.exports = {app};")),
        ("module.config.mjs", format!("export default {{ apps: [{app}] }};")),
        ("named.config.mjs", format!("export const apps = [{app}];")),
        ("alone.config.js", format!("exports.apps = {app};")),
        ("plain.json", "{\"apps\":[{\"name\":\"shop\",\"script\":\"a.js\",\"wait_ready\":true}]}".to_owned()),
    ];
    let mut files: Vec<(&str, &str)> = forms.iter().map(|(name, content)| (*name, content.as_str())).collect();
    files.push(("a.js", ""));
    let clone = Clone::with(&files);
    let said: Vec<(String, Vec<String>)> = forms
        .iter()
        .map(|(name, _)| {
            let (text, told) = clone.translated(name);
            (text.replace(name, "FILE"), told)
        })
        .collect();
    assert!(said[0].0.contains("command = \"exec node a.js\""), "{said:?}");
    assert!(said.iter().all(|one| *one == said[0]), "{said:#?}");
}

#[test]
fn what_cannot_be_read_is_told_with_its_line_before_anything_is_laid() {
    let clone = Clone::with(&[
        ("broken.config.js", "module.exports = {\n  apps: [,\n  ]]\n};\n"),
        ("throws.config.js", "\n\nundefined.apps;\n"),
        ("broken.json", "{\n \"apps\": [\n}\n"),
        ("empty.config.js", ""),
        ("none.json", "{ apps: [] }"),
        ("number.json", "7"),
        ("cyclic.config.js", "const a = {}; a.a = a; module.exports = a;"),
        ("process.yml", "apps: []"),
        ("process.toml", ""),
        ("named.json", "{ script: 'a.js', env_staging: {}, env_production: {} }"),
    ]);
    fs::create_dir(clone.path().join("directory.js")).unwrap();
    for (file, reason) in [
        ("broken.config.js", "node: line 3: SyntaxError: "),
        ("throws.config.js", "node: line 3: TypeError: "),
        ("broken.json", "node: line 3: SyntaxError: "),
        ("empty.config.js", "an app in it has no script"),
        ("none.json", "there is no app in it"),
        ("number.json", "an app in it has no script"),
        ("cyclic.config.js", "node: TypeError: "),
        ("process.yml", "YAML is not understood; write it as JSON or JavaScript"),
        ("process.toml", "expected a file that ends in .js, .cjs, .mjs or .json"),
        ("nowhere.json", "No such file or directory (os error 2)"),
        ("directory.js", "it is no file"),
    ] {
        for arguments in [&[][..], &["--dry-run"]] {
            let ran = clone.install(file, arguments);
            ran.fails(2, &[&format!("install: cannot read {file}: {reason}")]);
            assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
        }
    }
    let reason = "install: cannot read named.json: it has no env_prod; --env takes production, staging";
    clone.install("named.json", &["--env", "prod"]).fails(2, &[reason]);
    let reason = "install: cannot read none.json: there is no app in it";
    clone.install("none.json", &["--env", "production"]).fails(2, &[reason]);
    let unfit = "the argument '--from-pm2 <FILE>' cannot be used with '";
    clone.install("none.json", &["--config", "none.json"]).fails(2, &[unfit, "--config"]);
    clone.install("none.json", &["--remove"]).fails(2, &[unfit, "--remove"]);
}

#[test]
fn variables_are_told_by_their_names_only() {
    let file = format!(
        r#"module.exports = {{ apps: [
  {{ name: 'shop', script: 'a.js', env: {{
    PORT: 3000, TOKEN: '{SECRET}', FLAG: true, LIST: ['{SECRET}'], HOST: '{SECRET}', 'A-B': '{SECRET}',
    KEY: '{SECRET}\nsecond line', ABSENT: process.env.SURELY_ABSENT,
  }} }},
  {{ name: 'mail', script: 'm.js', env: {{ TOKEN: 'other-{SECRET}', MAIL: '{SECRET}', FLAG: 'true' }} }},
], }};"#
    );
    let clone = Clone::with(&[("ecosystem.config.js", &file), ("a.js", ""), ("m.js", "")]);
    let (text, told) = clone.translated("ecosystem.config.js");
    assert!(!text.contains(SECRET) && !told.concat().contains(SECRET), "{text}{told:?}");
    let names = "# Into the env file, by you where it is not install --from-pm2: FLAG, LIST, MAIL, TOKEN\n";
    assert!(text.contains(names), "{text}");
    let ours = "is left out: it is told by what runs the app; see cutover(7)";
    for note in [
        &format!("pm2's env HOST of shop {ours}"),
        "pm2's env A-B of shop is left out: an env file cannot hold it",
        "pm2's env KEY of shop is left out: an env file cannot hold it",
        "pm2's env ABSENT of shop has no value here: it comes from the environment; write it into the env file",
        "pm2's env TOKEN of mail is left out: another app has another value, and there is one env file; set it in the \
         command",
    ] {
        assert!(told.contains(&note.to_owned()), "{note:?} is not in {told:#?}");
    }
    assert_eq!(told.len(), 6, "{told:#?}");
}

#[test]
fn a_password_in_the_origin_is_left_out() {
    let clone = Clone::with(&[("ecosystem.json", "{ name: 'shop', script: 'a.js' }")]);
    clone.git(&["config", "remote.origin.url", &format!("https://deployer:{SECRET}@example.org/shop.git")]);
    let (text, told) = clone.translated("ecosystem.json");
    assert!(text.contains(&format!("git = \"{ORIGIN}\"\n")), "{text}");
    assert_eq!(told[0], "the password in origin's URL is left out: let git's credential helper tell it");
}

/// What --dry-run prints, completed by hand, is a configuration that deploys.
#[test]
fn what_is_printed_is_completed_installed_and_deployed() {
    let site = Site::unlaid(Sample::Node, BRISK);
    let file = "module.exports = { apps: [{ name: 'shop', script: './server.js', args: '--port 3000', exec_mode: 'cluster' }] };";
    fs::write(site.source().join("ecosystem.config.js"), file).unwrap();
    site.commit("v1", "");
    site.git(&["config", "remote.origin.url", "."]);
    let mut install = site.command(&built().join("install"));
    let printed =
        Ran::of(&install.args(["--from-pm2", "source/ecosystem.config.js", "--dry-run"]).output().unwrap()).ok();
    let (printed, _) = printed.split_once("\n[nginx]\n").unwrap();
    assert!(printed.contains("command = \"exec node ./server.js --port $PORT\"\n"), "{printed}");
    let (first, second, status, listen) = (site.ports.first, site.ports.second, site.ports.status, site.ports.listen);
    let ports = format!("[instances]\nA = {first}\nB = {second}\n");
    let nginx = format!("[nginx]\nown = true\nlisten = [\"127.0.0.1:{listen}\"]\nstatus_port = {status}\n");
    let completed = format!("runner = \"direct\"\n{printed}\n{ports}{nginx}{BRISK}");
    fs::write(site.config(), completed).unwrap();
    site.install(&["--deploy"]).ok();
    assert_eq!(site.get("/"), (200, "v1\n".to_owned()));
    site.commit("v2", "");
    site.run("deploy", &[]).ok();
    assert_eq!(site.get("/"), (200, "v2\n".to_owned()));
}

/// In a server: a clone of potados', with a file that says who reads it.
const CLONE: &str = r#"
set -eu
mkdir /home/potados/shop && cd /home/potados/shop
cp "$SAMPLES"/node/* . && echo v1 >VERSION
cat >ecosystem.config.js <<'END'
const fs = require('fs');
let back = 'no way back';
try {
  process.setuid(0);
  back = 'root again';
} catch {}
fs.writeFileSync('/home/potados/read-by', `${process.getuid()} ${process.getgid()} ${process.env.HOME}, ${back}\n`);
module.exports = { apps: [{
  name: 'shop', script: 'server.js', exec_mode: 'cluster', env: { PORT: 3000, NODE_ENV: 'production', TOKEN: "q7 '#value" },
}] };
END
chown -R potados:potados .
git() { runuser -u potados -- git -c user.name=p -c user.email=p@example.org "$@"; }
git init --quiet --initial-branch=trunk && git add --all && git commit --quiet --message v1
git config remote.origin.url /home/potados/shop
"#;

#[test]
fn root_has_the_file_read_by_the_apps_user_and_lays_the_variables() {
    let Some(server) = Server::boot() else { return };
    server.run(CLONE).ok();
    let install = "cd /home/potados && $TOOLS/install --from-pm2 shop/ecosystem.config.js --user potados";
    let home = "/home/potados/.shop";
    let laid = server.run(install);
    assert_eq!((laid.code, laid.stdout.as_str()), (0, ""), "{laid:?}");
    assert!(
        laid.stderr.contains("lay /home/potados/.shop/env, for the app's secrets, with NODE_ENV, TOKEN\n"),
        "{laid:?}"
    );
    server.run("cat /home/potados/read-by").is(0, "15000 15000 /home/potados, no way back\n", "");
    server.run("find /home/potados -not -user potados").is(0, "", "");
    server.run(&format!("cat {home}/env; stat -c %a {home}/env")).is(
        0,
        "NODE_ENV=production\nTOKEN=\"q7 '#value\"\n600\n",
        "",
    );
    assert!(!laid.stderr.contains("#value"), "{laid:?}");
    server.run(&format!("grep -r '#value' {home} --exclude=env --exclude-dir=repo.git")).is(1, "", "");
    assert!(server.run(install).stderr.ends_with("install: nothing to do: shop is laid out in /home/potados/.shop\n"));

    let deployed = server.run(&format!("{home}/bin/deploy"));
    assert_eq!(deployed.code, 0, "{deployed:?}");
    assert_eq!(server.served(), "v1\n");
    let environment = server.run("curl --silent --max-time 5 http://127.0.0.1/env").ok();
    for variable in ["NODE_ENV=production\n", "TOKEN=q7 '#value\n", "PORT=20201\n"] {
        assert!(environment.contains(variable), "{environment}");
    }

    // A configuration that has become another than the one made is not lost by the way.
    server.run(&format!("echo '# mine' >>{home}/config.toml")).ok();
    let said = format!(
        "cannot make {home}/config.toml from pm2's file: what is there would be lost; --force does it all the same"
    );
    server.run(install).fails(3, &[&said]);
    server.run(&format!("tail -n 1 {home}/config.toml")).is(0, "# mine\n", "");
    server.run(&format!("{install} --force")).ok();
    server.run(&format!("grep -c mine {home}/config.toml")).is(1, "0\n", "");

    // What is there already is the user's.
    server.run(&format!("echo TOKEN=mine >{home}/env")).ok();
    let again = server.run(install);
    let said = "install: left /home/potados/.shop/env alone: of what pm2 was told it lacks NODE_ENV\n";
    assert!(again.code == 0 && again.stderr.contains(said), "{again:?}");
    server.run(&format!("cat {home}/env")).is(0, "TOKEN=mine\n", "");
}

#[test]
fn a_file_that_the_apps_user_cannot_read_is_not_read_and_neither_is_one_without_node() {
    let Some(server) = Server::boot() else { return };
    server.run(CLONE).ok();
    server.run("mkdir -m 700 /home/closed && cp /home/potados/shop/ecosystem.config.js /home/closed/").ok();
    let install = |file: &str| server.run(&format!("cd / && $TOOLS/install --from-pm2 {file} --user potados"));
    let reason = "install: cannot read /home/closed/ecosystem.config.js: Permission denied (os error 13)\n";
    install("/home/closed/ecosystem.config.js").is(2, "", reason);
    server.run("mkfifo /home/potados/pipe.js").ok();
    install("/home/potados/pipe.js").is(2, "", "install: cannot read /home/potados/pipe.js: it is no file\n");
    server.run("for node in $(which -a node); do mount --bind /dev/null $node; done").ok();
    let reason = "install: cannot read /home/potados/shop/ecosystem.config.js: cannot find node: install it, or add it to PATH\n";
    install("/home/potados/shop/ecosystem.config.js").is(3, "", reason);
    server.run("ls -A /home/potados | grep -v -e shop -e pipe.js").is(1, "", "");
}

/// By the app's user alone, with an nginx of its own; what the file leaves open is asked on the terminal.
#[test]
fn without_root_what_the_file_leaves_open_is_answered_on_a_terminal() {
    let Some(server) = Server::boot() else { return };
    server.run(CLONE).ok();
    server.run("cd /home/potados/shop && runuser -u potados -- git config --unset remote.origin.url").ok();
    server.run("mkdir /home/tools && find $TOOLS -maxdepth 1 -type f -perm -1 -exec cp {} /home/tools ';'").ok();
    let terminal = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
    let install = "/home/tools/install --from-pm2 shop/ecosystem.config.js --deploy";
    let asked = server.run(&format!(
        "cd /home/potados && echo /home/potados/shop | runuser -u potados -- env HOME=/home/potados python3 -c '{terminal}' {install}"
    ));
    assert_eq!(asked.code, 0, "{asked:?}");
    assert!(asked.stdout.contains("The git repository it is deployed from (URL or path): "), "{asked:?}");
    assert!(!asked.stdout.contains("The command") && asked.stdout.contains("deploy: A is enabled"), "{asked:?}");
    server.run("curl --silent --max-time 5 http://127.0.0.1:8080/").is(0, "v1\n", "");
    let text = fs::read_to_string(server.path("/home/potados/.shop/config.toml")).unwrap();
    assert!(text.contains("[source]\ngit = \"/home/potados/shop\"\n# git = \"…\": the repository"), "{text}");
}

#[test]
fn packages_that_start_a_browser_are_told_once() {
    let app = "module.exports = { apps: [{ name: 'shop', script: 'server.js' }, { name: 'pdf', script: 'pdf.js' }] };";
    let told = |dependencies: &str| {
        let files = [("ecosystem.config.js", app), ("server.js", ""), ("pdf.js", ""), ("package.json", dependencies)];
        let (_, told) = Clone::with(&files).translated("ecosystem.config.js");
        told.into_iter().filter(|line| line.contains("a browser")).collect::<Vec<_>>()
    };
    for name in ["puppeteer", "puppeteer-core", "playwright", "playwright-core"] {
        let lines = told(&format!(r#"{{ "dependencies": {{ "express": "4", "{name}": "1" }} }}"#));
        let remedy =
            "under systemd its unit refuses that; \"A browser in an app\" in docs/apps.md has the lines that allow it";
        assert_eq!(lines, [format!("{name} may start a browser with a sandbox: {remedy}")]);
    }
    assert_eq!(told(r#"{ "devDependencies": { "playwright": "1" } }"#), Vec::<String>::new());
    assert_eq!(told(r#"{ "dependencies": { "express": "4", "puppet": "1" } }"#), Vec::<String>::new());
}
