//! install --from-pm2, by many ecosystem files of the kinds that people have: each one is installed, deployed and asked through nginx.
//! Where install cannot know, it says so, and what it says is done.

use crate::ecosystem::{SERVE, Shape};

const IGNORED: (&str, &str) = (".gitignore", "node_modules\ndist\nvenv\n.env\n/build\n.output\n");
/// A package that builds what is in main.js, as compilers do.
const COMPILER: [(&str, &str); 2] = [
    ("tools/compile/package.json", r#"{ "name": "compile", "version": "1.0.0", "bin": { "compile": "compile.js" } }"#),
    (
        "tools/compile/compile.js",
        "#!/usr/bin/env node\nconst fs = require('fs');\nfs.mkdirSync('dist', { recursive: true });\nfs.copyFileSync('main.js', 'dist/main.js');\n",
    ),
];
/// What brings yarn, pnpm and bun, as the ecosystem file of who has them in a place of his own says it.
const PATH: &str = "PATH: '/home/js/node_modules/.bin:' + process.env.PATH";
const BUILT: &str = r#"{ "name": "shop", "version": "1.0.0", "scripts": { "build": "compile", "start": "node dist/main.js" },
    "devDependencies": { "compile": "file:tools/compile" } }"#;

/// A program that listens there and answers what it is.
fn listening(place: &str) -> String {
    format!("{SERVE}serve({place});\n")
}

/// One on PORT.
fn server() -> String {
    listening("process.env.PORT")
}

#[test]
fn a_script_of_nodes() {
    let server = server();
    let files = [("server.js", server.as_str())];
    let shape = Shape { files: &files, answer: "server.js blue", ..Shape::default() };
    let app = "{ apps: [{ name: 'shop', script: 'server.js', env: { PORT: 3000, MODE: 'blue' } }] }";
    Shape { ecosystem: app, told: &["pm2's port of shop is left out"], ..shape }.tried();
    // A name that cannot be one here, two processes, and a time to listen that is too short for a deploy.
    let app = "[{ name: 'My Shop', script: './server.js', exec_mode: 'cluster', instances: 2, wait_ready: true, \
               listen_timeout: 1000, kill_timeout: 3000, env: { MODE: 'blue' } }]";
    Shape {
        files: &files,
        ecosystem: app,
        told: &["is called my-shop here"],
        answer: "server.js blue",
        ..Shape::default()
    }
    .tried();
    // As pm2's own `init` writes it, with an interpreter by its whole path and an option.
    let files = [("server.js", server.as_str()), ("load.js", "process.env.MODE = 'loaded';")];
    let app = "{ apps: { script: 'server', interpreter: process.execPath, node_args: '-r ./load.js' } }";
    let files = [files[0], files[1], ("server", server.as_str())];
    Shape { files: &files, ecosystem: app, answer: "server loaded", ..Shape::default() }.tried();
    // In a package of modules, with a key of pm2's own.
    let files = [files[0], ("package.json", r#"{ "type": "commonjs" }"#)];
    let app = r#"{ "pm2": [{ "name": "shop", "exec": "server.js", "port": 3000, }] } // as in a package.json"#;
    Shape { files: &files, name: "process.json", ecosystem: app, answer: "server.js -", ..Shape::default() }.tried();
}

#[test]
fn packages_in_a_production_environment() {
    let main = server();
    for (manager, lock) in
        [("npm", "npm ci"), ("yarn", "yarn install"), ("pnpm", "pnpm install"), ("bun", "bun install")]
    {
        let files = [IGNORED, COMPILER[0], COMPILER[1], ("main.js", &main), ("package.json", BUILT)];
        let app = format!(
            "{{ apps: [{{ name: 'shop', script: 'dist/main.js', env: {{ NODE_ENV: 'production', PORT: 3000, {PATH} }} }}] }}"
        );
        let before = format!("{manager} install >/dev/null 2>&1; rm -rf node_modules");
        let shape = Shape { files: &files, ecosystem: &app, before: &before, answer: "main.js -", ..Shape::default() };
        let said = shape.tried();
        assert!(!said.contains("nothing makes"), "{lock}: {said}");
    }
}

#[test]
fn packages_with_the_lock_files_of_other_years() {
    let main = server();
    let modern = "PATH: '/home/js/berry/node_modules/.bin:/home/js/node_modules/.bin:' + process.env.PATH";
    for (files, path, install) in [
        (
            &[(".yarnrc.yml", "nodeLinker: node-modules\nenableTelemetry: false\n")][..],
            modern,
            "PATH=/home/js/berry/node_modules/.bin:$PATH yarn install",
        ),
        (&[("bunfig.toml", "[install]\nsaveTextLockfile = false\n")], PATH, "bun install; test -e bun.lockb"),
        (&[], PATH, "npm shrinkwrap; npm install"),
    ] {
        let built = [IGNORED, COMPILER[0], COMPILER[1], ("main.js", &main), ("package.json", BUILT)];
        let files: Vec<_> = built.into_iter().chain(files.iter().copied()).collect();
        let app = format!(
            "{{ apps: [{{ name: 'shop', script: 'dist/main.js', env: {{ NODE_ENV: 'production', PORT: 3000, {path} }} }}] }}"
        );
        let before = format!("({install}) >/dev/null 2>&1; rm -rf node_modules .yarn");
        let shape = Shape { files: &files, ecosystem: &app, before: &before, answer: "main.js -", ..Shape::default() };
        let said = shape.tried();
        assert!(!said.contains("nothing makes"), "{install}: {said}");
    }
}

#[test]
fn packages_that_are_started_by_their_manager() {
    let main = server();
    // Two lock files, of which package.json names the one that counts.
    let package = BUILT.replace("\"version\"", "\"packageManager\": \"pnpm@9.15.9\", \"version\"");
    let files = [IGNORED, COMPILER[0], COMPILER[1], ("main.js", &main), ("package.json", &package), ("yarn.lock", "")];
    let app = format!(
        "{{ apps: [{{ name: 'shop', script: 'pnpm', args: 'start', interpreter: 'none', env: {{ {PATH} }} }}] }}"
    );
    let before = "pnpm install >/dev/null 2>&1";
    let told = ["nothing tells shop its port: it must listen on the one in PORT"];
    Shape { files: &files, ecosystem: &app, before, told: &told, answer: "main.js -", ..Shape::default() }.tried();
    // And none of which is named.
    let files = [
        IGNORED,
        COMPILER[0],
        COMPILER[1],
        ("main.js", &main),
        ("package.json", BUILT),
        ("yarn.lock", "# yarn lockfile v1\n"),
    ];
    let app = "{ apps: [{ name: 'shop', script: 'npm', args: 'run start', env: { PORT: 8080 } }] }";
    let told = ["there are lock files of npm and yarn: npm installs the packages"];
    Shape {
        files: &files,
        ecosystem: app,
        before: "npm install --silent",
        told: &told,
        answer: "main.js -",
        ..Shape::default()
    }
    .tried();
    // bun, which runs TypeScript as well, and no lock file.
    let files = [("index.ts", main.as_str()), ("package.json", "{}")];
    let app = format!(
        "{{ apps: [{{ name: 'shop', script: 'index.ts', interpreter: 'bun', env: {{ {PATH}, MODE: 'bun' }} }}] }}"
    );
    Shape { files: &files, ecosystem: &app, answer: "index.ts bun", ..Shape::default() }.tried();
}

/// By its name, by its path, and by npx.
#[test]
fn programs_of_packages() {
    let main = server();
    let files = [
        IGNORED,
        ("run/package.json", r#"{ "name": "run", "version": "1.0.0", "bin": "run.js" }"#),
        ("run/run.js", "#!/usr/bin/env node\nrequire(process.cwd() + '/' + process.argv[2]);"),
        ("main.js", &main),
        ("package.json", r#"{ "dependencies": { "run": "file:run" } }"#),
    ];
    for app in [
        "{ apps: [{ name: 'shop', script: 'run', args: 'main.js', env: { PORT: 80 } }] }",
        "{ apps: [{ name: 'shop', script: 'run', args: 'main.js', interpreter: 'node', node_args: '--no-warnings' }] }",
        "{ apps: [{ name: 'shop', script: './node_modules/.bin/run', args: ['main.js'] }] }",
        "{ apps: [{ name: 'shop', script: 'node_modules/run/run.js', args: ['main.js'] }] }",
        "{ apps: [{ name: 'shop', script: 'npx', args: 'run main.js' }] }",
    ] {
        Shape {
            files: &files,
            ecosystem: app,
            before: "npm install --silent",
            answer: "main.js -",
            ..Shape::default()
        }
        .tried();
    }
}

/// A library that a build makes, an app that needs it, and another one beside.
fn workspace(packages: &str, needed: &str) -> [(&'static str, String); 8] {
    [
        (IGNORED.0, IGNORED.1.to_owned()),
        ("package.json", format!(r#"{{ "name": "root", "private": true{packages} }}"#)),
        ("packages/words/package.json", r#"{ "name": "@x/words", "version": "1.0.0", "main": "dist/index.js", "scripts": { "build": "mkdir -p dist && cp index.js dist" } }"#.to_owned()),
        ("packages/words/index.js", "module.exports = 'words';\n".to_owned()),
        ("apps/web/package.json", format!(r#"{{ "name": "web", "version": "1.0.0", "scripts": {{ "build": "node -e 'require(`@x/words`)' && mkdir -p dist && cp main.js dist", "start": "node dist/main.js" }}, "dependencies": {{ "@x/words": "{needed}" }} }}"#)),
        ("apps/web/main.js", format!("process.env.MODE = require('@x/words');\n{}", server())),
        ("apps/jobs/package.json", format!(r#"{{ "name": "jobs", "version": "1.0.0", "scripts": {{ "build": "mkdir -p dist && cp jobs.js dist" }}, "dependencies": {{ "@x/words": "{needed}" }} }}"#)),
        ("apps/jobs/jobs.js", "require('@x/words'); setInterval(() => {}, 1000);\n".to_owned()),
    ]
}

#[test]
fn workspaces() {
    let listed = r#", "workspaces": ["apps/*", "packages/*"]"#;
    let apps = format!("{{ apps: [
        {{ name: 'web', cwd: './apps/web', script: 'npm', args: 'start', env: {{ PORT: 3000, NODE_ENV: 'production', {PATH} }} }},
        {{ name: 'jobs', cwd: './apps/jobs', script: 'dist/jobs.js' }},
    ] }}");
    let of_root = r#", "workspaces": { "packages": ["./apps/**", "packages/words", "!apps/old"] }, "scripts": { "build": "npm run build -w packages/words -w apps/web -w apps/jobs" }"#;
    for (manager, packages, needed) in [
        ("npm", listed, "1.0.0"),
        ("npm", of_root, "*"),
        ("yarn", listed, "1.0.0"),
        ("pnpm", "", "workspace:*"),
        ("bun", listed, "workspace:*"),
    ] {
        let files = workspace(packages, needed);
        let mut files: Vec<(&str, &str)> = files.iter().map(|(name, content)| (*name, content.as_str())).collect();
        if manager == "pnpm" {
            files.push((
                "pnpm-workspace.yaml",
                "packages:\n  - apps/*\n  - 'packages/*'\nonlyBuiltDependencies: [esbuild]\n",
            ));
        }
        let before = format!(
            "{manager} install >/dev/null 2>&1; rm -rf node_modules apps/*/node_modules packages/*/node_modules"
        );
        let shape =
            Shape { files: &files, ecosystem: &apps, before: &before, answer: "main.js words", ..Shape::default() };
        let said = shape.tried();
        assert!(!said.contains("not in git") && !said.contains("nothing makes"), "{manager}: {said}");
    }
}

#[test]
fn directories() {
    let server = server();
    let package = r#"{ "name": "shop", "scripts": { "build": "mkdir -p dist && cp server.js dist" } }"#;
    let of_root = [IGNORED, ("server.js", server.as_str()), ("package.json", package)];
    let app = "{ apps: [{ name: 'shop', script: 'dist/server.js', env: { PORT: 3000 } }] }";
    let taken = "that is taken to be the repository's root, not config";
    let shape = Shape {
        files: &of_root,
        name: "config/ecosystem.config.js",
        ecosystem: app,
        answer: "server.js -",
        ..Shape::default()
    };
    Shape { told: &[taken], ..shape }.tried();
    let app = "{ apps: [{ name: 'shop', cwd: '..', script: 'server.js' }] }";
    Shape {
        files: &of_root,
        name: "deployment/ecosystem.config.cjs",
        ecosystem: app,
        answer: "server.js -",
        ..Shape::default()
    }
    .tried();
    // A project below, to which only the script leads; nothing at all in the root.
    let below = [
        IGNORED,
        ("backend/server.js", server.as_str()),
        ("backend/package.json", package),
        ("frontend/package.json", r#"{ "scripts": { "build": "exit 1" } }"#),
    ];
    let app = "{ apps: [{ name: 'shop', script: './backend/dist/server.js', env: { PORT: 3000 } }] }";
    Shape { files: &below, ecosystem: app, answer: "server.js -", ..Shape::default() }.tried();
    let app = "{ apps: [{ name: 'shop', script: 'dist/server.js' }] }";
    Shape {
        files: &below,
        name: "backend/ecosystem.config.js",
        ecosystem: app,
        answer: "server.js -",
        ..Shape::default()
    }
    .tried();
    // Written for another machine.
    for app in [
        "{ apps: [{ name: 'shop', cwd: '/var/www/shop-pro/backend', script: 'dist/server.js', instances: 2 }] }",
        "{ apps: [{ name: 'shop', script: '/srv/old/backend/server.js' }, { name: 'x', cwd: '/srv/old/frontend', script: 'sleep', args: '60' }] }",
    ] {
        let above = if app.contains("/srv") { "/srv/old" } else { "/var/www/shop-pro" };
        let told = format!("{above} is not here: the repository is taken for it");
        Shape {
            files: &below,
            ecosystem: app,
            told: &[&told],
            answer: "server.js -",
            before: "sed -i s/exit.1/true/ frontend/package.json",
            ..Shape::default()
        }
        .tried();
    }
}

#[test]
fn ports_in_other_places() {
    let server = server();
    let on = |variable: &str| listening(&format!("process.env.{variable}, '127.0.0.1'"));
    let (nitro, tts) = (on("NITRO_PORT || 1"), on("TTS_PORT"));
    let argument = listening("process.argv[process.argv.indexOf('--port') + 1]");
    let address = listening("...process.env.LISTEN_ADDR.split(':').reverse()");
    let bound = listening("...process.argv.pop().split(':').reverse()");
    for (file, app, told) in [
        (
            &nitro,
            "script: 'server.js', exec_mode: 'cluster', instances: 2, env: { NITRO_PORT: 3001, NITRO_HOST: '127.0.0.1' }",
            "env NITRO_PORT of shop is set by the command, from PORT",
        ),
        (
            &tts,
            "script: 'server.js', env: { TTS_PORT: 7400, REDIS_PORT: 6379 }",
            "env TTS_PORT of shop is set by the command, from PORT",
        ),
        (
            &address,
            "script: 'server.js', env: { LISTEN_ADDR: '0.0.0.0:8080' }",
            "env LISTEN_ADDR of shop is set by the command, from PORT",
        ),
        (
            &server,
            "script: 'server.js', env: { PORT: 3000, WS_PORT: 3001 }",
            "env WS_PORT of shop may be a port on which both instances would listen",
        ),
        (&argument, "script: 'server.js', args: '--port 3000'", "pm2's port of shop is left out"),
        (&bound, "script: 'server.js', args: ['--bind', '0.0.0.0:8000']", "pm2's port of shop is left out"),
        (&argument, "script: 'node server.js --port 3000'", "pm2's port of shop is left out"),
        (&server, "script: 'PORT=3000 node server.js'", "pm2's port of shop is left out"),
        (&server, "script: 'start.sh', interpreter: 'bash'", "nothing tells shop its port"),
    ] {
        let files = [("server.js", file.as_str()), ("start.sh", "exec node server.js\n")];
        let ecosystem = format!("{{ apps: [{{ name: 'shop', {app} }}] }}");
        Shape { files: &files, ecosystem: &ecosystem, told: &[told], answer: "server.js -", ..Shape::default() }
            .tried();
    }
}

/// Only its author can take it away.
#[test]
fn ports_in_scripts_of_package_json() {
    let argument = listening("process.argv[process.argv.indexOf('--port') + 1]");
    let files = [
        ("server.js", argument.as_str()),
        ("package.json", r#"{ "scripts": { "start": "node server.js --port 3000" } }"#),
    ];
    let app = "{ apps: [{ name: 'shop', script: 'npm', args: 'start', env: { PORT: 3000 } }] }";
    let told =
        ["the script start in package.json names a port, by which each instance would go: write $PORT in its place"];
    let remedy = "cd shop; runuser -u potados -- sh -c 'sed -i s/3000/\\$PORT/ package.json && git commit -qam port && git push -q'";
    Shape { files: &files, ecosystem: app, told: &told, remedy, answer: "server.js -", ..Shape::default() }.tried();
}

#[test]
fn environments() {
    let server = server();
    let files = [IGNORED, ("server.js", server.as_str())];
    let app = "{ apps: [{ name: 'shop', script: 'server.js', env: { MODE: 'development', PORT: 3000 }, \
               env_production: { MODE: 'production', PORT: 8080 }, env_staging: { MODE: 'staging' } }], \
               deploy: { production: { 'post-deploy': 'npm ci && npx prisma generate && pm2 reload x --env production', env: { MODE: 'x', A: 'b' } } } }";
    let besides = "yours does besides: npx prisma generate";
    let chosen = Shape {
        files: &files,
        ecosystem: app,
        arguments: "--env production",
        answer: "server.js production",
        ..Shape::default()
    };
    let said = Shape { told: &[besides], ..chosen }.tried();
    assert!(!said.contains("env_") && !said.contains("staging"), "{said}");
    let told = ["the variables are those of env alone: --env production or staging adds those of the other"];
    Shape { files: &files, ecosystem: app, told: &told, answer: "server.js development", ..Shape::default() }.tried();
    // A file of variables that git ignores, which Node would not start without.
    let app = "{ apps: [{ name: 'shop', script: 'server.js', node_args: '--env-file=.env' }] }";
    let told = [
        "--env-file of shop is left out: the file is not in git; write its lines into the env file",
        "not in git, so in no release: .env; write",
    ];
    Shape {
        files: &files,
        ecosystem: app,
        since: "echo MODE=ours >.env",
        told: &told,
        answer: "server.js -",
        ..Shape::default()
    }
    .tried();
    // What was made with a variable that is not there, and a name that only here means something.
    let app = "{ apps: [{ name: 'shop', script: 'server.js', env: { MODE: `m-${process.env.ABSENT}`, HOST: '10.9.9.9', WORKER: 'x' } }] }";
    let told = ["env MODE of shop is left out: it was made with a variable that is not there"];
    Shape { files: &files, ecosystem: app, told: &told, answer: "server.js -", ..Shape::default() }.tried();
}

#[test]
fn pythons() {
    let api = "import http.server, os\n\
        class Answer(http.server.BaseHTTPRequestHandler):\n    def do_GET(self):\n        self.send_response(200); self.end_headers(); self.wfile.write(b'api')\n\
        http.server.HTTPServer(('127.0.0.1', int(os.environ['PORT'])), Answer).serve_forever()\n";
    let wsgi = "def app(environ, start):\n    start('200 OK', [])\n    return [b'wsgi']\n";
    let asgi = "async def app(scope, receive, send):\n    if scope['type'] == 'http':\n        await send({'type': 'http.response.start', 'status': 200})\n        await send({'type': 'http.response.body', 'body': b'asgi'})\n";
    let required = "--no-index\n--find-links /home/wheels\ngunicorn\nuvicorn\n";
    let files = [IGNORED, ("requirements.txt", required), ("api.py", api), ("app.py", wsgi), ("main.py", asgi)];
    for (app, answer, told) in [
        ("script: 'api.py', interpreter: './venv/bin/python', env: { PORT: 8000 }", "api", ""),
        (
            "script: 'api.py', interpreter: 'python3', env: { PORT: 8000 }",
            "api",
            "runs with the packages that this machine's python3 has",
        ),
        (
            "script: 'gunicorn', interpreter: './venv/bin/python', args: '--bind 0.0.0.0:8000 --workers 2 app:app'",
            "wsgi",
            "",
        ),
        ("script: './venv/bin/gunicorn', interpreter: 'none', args: '-b unix:/tmp/shop.sock app:app'", "wsgi", ""),
        (
            "script: 'venv/bin/uvicorn', interpreter: __dirname + '/venv/bin/python', args: 'main:app --host 0.0.0.0 --port 8001'",
            "asgi",
            "",
        ),
    ] {
        let ecosystem = format!("{{ apps: [{{ name: 'shop', {app} }}] }}");
        Shape { files: &files, ecosystem: &ecosystem, told: &[told], answer, ..Shape::default() }.tried();
    }
}

/// In directories of their own.
#[test]
fn python_beside_node() {
    let wsgi = "def app(environ, start):\n    start('200 OK', [])\n    return [b'wsgi']\n";
    let required = "--no-index\n--find-links /home/wheels\ngunicorn\n";
    let files = [
        IGNORED,
        ("requirements.txt", required),
        ("backend/app.py", wsgi),
        ("web/package.json", "{}"),
        ("web/web.js", "setInterval(() => {}, 999)"),
    ];
    let app = "{ apps: [{ name: 'web', cwd: 'web', script: 'web.js' }, \
               { name: 'api', cwd: './backend', script: 'gunicorn', interpreter: '../venv/bin/python3', args: 'app:app -b :8000' }] }";
    Shape { files: &files, ecosystem: app, answer: "wsgi", ..Shape::default() }.tried();
}

#[test]
fn other_languages() {
    let index = "<?php echo 'php';\n";
    let files = [IGNORED, ("public/index.php", index), ("composer.json", "{}"), ("vendor/autoload.php", "<?php\n")];
    let app = "{ apps: [{ name: 'shop', script: 'php', args: '-S localhost:8000 -t public', interpreter: 'none' }] }";
    Shape { files: &files, ecosystem: app, answer: "php", ..Shape::default() }.tried();
    let app =
        "{ apps: [{ name: 'shop', script: 'artisan', interpreter: 'php', args: 'serve --host=0.0.0.0 --port=8000' }] }";
    let artisan = "<?php passthru('exec php -S 127.0.0.1:' . substr($argv[3], 7) . ' -t public');\n";
    let files = [IGNORED, files[1], ("artisan", artisan), ("package.json", r#"{ "scripts": { "build": "true" } }"#)];
    Shape { files: &files, ecosystem: app, answer: "php", ..Shape::default() }.tried();
}

/// What only the clone has, nothing makes in a release unless [build] is told how.
#[test]
fn programs_that_something_must_make() {
    let java = "import com.sun.net.httpserver.*;\npublic class App { public static void main(String[] words) throws Exception {\n\
        HttpServer server = HttpServer.create(new java.net.InetSocketAddress(\"127.0.0.1\", Integer.parseInt(words[0].split(\"=\")[1])), 0);\n\
        server.createContext(\"/\", exchange -> { exchange.sendResponseHeaders(200, 4); exchange.getResponseBody().write(\"java\".getBytes()); exchange.close(); });\n\
        server.start(); } }\n";
    let files = [IGNORED, ("App.java", java)];
    let app = "{ apps: [{ name: 'shop', script: 'java', args: '-Xmx64m -jar build/app.jar --server.port=8080', interpreter: 'none' }] }";
    let told = ["shop needs build/app.jar, which is not in git and nothing makes: put what does into [build] command"];
    let remedy = "$install --dry-run >shop.toml 2>/dev/null; \
        printf '[build]\\ncommand = \"mkdir -p build && javac -d build App.java && jar cfe build/app.jar App -C build .\"\\n' >>shop.toml; \
        $TOOLS/install --config shop.toml --user potados";
    Shape { files: &files, ecosystem: app, told: &told, remedy, answer: "java", ..Shape::default() }.tried();
    // A program in the repository, and one that only the clone has.
    let script = "#!/usr/bin/env python3\nimport http.server, sys\nhttp.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[2].split(':')[1]), bind='127.0.0.1')\n";
    let files = [IGNORED, ("bin/server", script), ("index.html", "binary")];
    let app = "{ apps: [{ name: 'shop', script: './bin/server', args: '-addr :8080', interpreter: 'none' }] }";
    Shape { files: &files, ecosystem: app, answer: "binary", ..Shape::default() }.tried();
    let app = "{ apps: [{ name: 'shop', script: './build/server', args: '-addr :8080', interpreter: 'none' }] }";
    let told = ["shop needs build/server, which is not in git and nothing makes"];
    let remedy = "$install --dry-run >shop.toml 2>/dev/null; printf '[build]\\ncommand = \"mkdir build && cp bin/server build\"\\n' >>shop.toml; \
                  $TOOLS/install --config shop.toml --user potados";
    Shape {
        files: &files,
        ecosystem: app,
        told: &told,
        remedy,
        before: "mkdir build && cp bin/server build",
        answer: "binary",
        ..Shape::default()
    }
    .tried();
}

#[test]
fn static_files() {
    let server = server();
    let site = ("index.html", "page");
    let files = [site, ("server.js", server.as_str())];
    let serve = "script: 'serve', env: { PM2_SERVE_PATH: '.', PM2_SERVE_PORT: 8080, PM2_SERVE_SPA: 'true' }";
    let app = format!(
        "{{ apps: [{{ name: 'front', {serve} }}, {{ name: 'shop', script: 'server.js', env: {{ PORT: 3000 }} }}] }}"
    );
    let told = ["pm2 serves the files of front by itself, which nothing does here: give it an installation of its own"];
    let said = Shape { files: &files, ecosystem: &app, told: &told, answer: "server.js -", ..Shape::default() }.tried();
    assert!(!said.contains("PM2_SERVE"), "{said}");
    let remedy = "$install --dry-run 2>/dev/null | sed 's/^# command = .*/command = \"exec python3 -m http.server --bind $HOST $PORT\"/' >shop.toml; \
                  $TOOLS/install --config shop.toml --user potados";
    let told = [
        "write into [run] what serves its directory, such as python3 -m http.server",
        "it does not tell command in [run]",
    ];
    let app = format!("{{ apps: [{{ name: 'front', {serve} }}] }}");
    Shape { files: &files, ecosystem: &app, told: &told, remedy, answer: "page", ..Shape::default() }.tried();
    let app = r#"{ "static": [{ "path": "./dist", "port": 8080, "spa": true }] }"#;
    let told = ["pm2 serves the files of static-page-server-8080 by itself"];
    Shape {
        files: &files,
        name: "static.json",
        ecosystem: app,
        told: &told,
        remedy,
        answer: "page",
        ..Shape::default()
    }
    .tried();
    // The package of the same name, which is another program.
    let package = r#"{ "dependencies": { "serve": "file:serve" } }"#;
    let fake = "#!/usr/bin/env node\nrequire('http').createServer((request, response) => response.end('served')).listen(process.argv[process.argv.indexOf('-l') + 1]);\n";
    let files = [
        IGNORED,
        site,
        ("package.json", package),
        ("serve/package.json", r#"{ "name": "serve", "version": "1.0.0", "bin": "serve.js" }"#),
        ("serve/serve.js", fake),
    ];
    let app = "{ apps: [{ name: 'shop', script: 'npx', args: 'serve -s . -l 3000' }] }";
    Shape { files: &files, ecosystem: app, before: "npm install --silent", answer: "served", ..Shape::default() }
        .tried();
}

#[test]
fn several_apps_that_npm_starts() {
    let server = server();
    let packages = ["api", "mailer"].map(|name| {
        format!(r#"{{ "name": "{name}", "scripts": {{ "start": "node main.js", "worker": "node main.js" }} }}"#)
    });
    let files = [
        ("api/package.json", packages[0].as_str()),
        ("api/main.js", &server),
        ("mailer/package.json", &packages[1]),
        ("mailer/main.js", "setInterval(() => {}, 999)"),
    ];
    let app = "{ apps: [{ name: 'api', cwd: './api', script: 'npm', args: 'start' }, { name: 'mailer', cwd: './mailer', script: 'npm', args: 'run worker' }] }";
    let told = ["none of pm2's apps seems to serve HTTP: api, the first, is taken for the web app"];
    Shape { files: &files, ecosystem: app, told: &told, answer: "main.js -", ..Shape::default() }.tried();
    let app = "{ apps: [{ name: 'jobs', cwd: 'mailer', script: 'main.js' }, { name: 'api', cwd: 'api', script: 'main.js', env: { API_PORT: 3000 } }] }";
    let on_api_port = listening("process.env.API_PORT");
    let files = [files[0], ("api/main.js", on_api_port.as_str()), files[2], files[3]];
    Shape { files: &files, ecosystem: app, answer: "main.js -", ..Shape::default() }.tried();
}

#[test]
fn node_of_a_version_manager() {
    let server = server();
    let files = [("server.js", server.as_str()), ("package.json", r#"{ "scripts": { "build": "true" } }"#)];
    // The only node and npm are those of the user's.
    let before = "cd ~/shop; place=~/.nvm/versions/node; mkdir -p $place/v9.1.0/bin $place/v20.1.0/bin $place/v20.1.0/lib; \
                  cp $(which node) $place/v20.1.0/bin; cp -r $(dirname $(readlink -f $(which npm)))/.. $place/v20.1.0/lib/npm; \
                  ln -s ../lib/npm/bin/npm-cli.js $place/v20.1.0/bin/npm";
    let app = "{ apps: [{ name: 'shop', script: 'server.js', env: { PORT: 3000 } }] }";
    let told = ["PATH in the env file is /home/potados/.nvm/versions/node/v20.1.0/bin:"];
    let hidden =
        "for program in node npm; do for path in $(which -a $program); do mount --bind /dev/null $path; done; done";
    Shape { files: &files, ecosystem: app, before, hidden, told: &told, answer: "server.js -", ..Shape::default() }
        .tried();
    // One of several, by its version.
    let app = "{ apps: [{ name: 'shop', script: 'server.js', interpreter: 'node@20' }] }";
    Shape { files: &files, ecosystem: app, before, answer: "server.js -", ..Shape::default() }.tried();
    let app = "{ apps: [{ name: 'shop', script: 'server.js', interpreter: 'node@18.2.0' }] }";
    let told = ["pm2's interpreter of shop asks for node 18.2.0, which nvm has not here: it is the one in PATH"];
    Shape { files: &files, ecosystem: app, told: &told, answer: "server.js -", ..Shape::default() }.tried();
}

#[test]
fn clones_that_differ_from_their_origin() {
    let server = server();
    let files = [IGNORED, ("server.js", server.as_str())];
    let app = "{ apps: [{ name: 'shop', script: 'server.js', env: { PORT: 3000 } }] }";
    let since = "echo '// mended last night' >>server.js; git commit -qam mended; echo // >>server.js; mkdir uploads; echo x >uploads/1; \
                 echo MODE=x >.env; echo k >key.json; mkdir -p dist; echo y >dist/y; echo z >debug.log";
    let told = [
        "install: 1 commit is not at origin, so in no release: git push\n",
        "install: changed and not committed, so in no release: server.js\n",
        "install: not in git, so in no release: .env; write its lines into the env file\n",
        "install: not in git, so in no release: key.json, uploads/; commit what the app needs, and keep what it writes outside",
    ];
    Shape { files: &files, ecosystem: app, since, told: &told, answer: "server.js -", ..Shape::default() }.tried();
    // Whatever git is to show of it.
    let before = "git config status.showUntrackedFiles no; git config status.branch true; git config color.ui always; git config status.short true";
    Shape { files: &files, ecosystem: app, before, since, told: &told, answer: "server.js -", ..Shape::default() }
        .tried();
    // A branch that follows one of another name at a remote of another name.
    let since = "git push -q github live:main; git branch -q --set-upstream-to=github/main";
    let before = "git remote rename origin github; git symbolic-ref HEAD refs/heads/live; \
                  git() { if [ $1 = push ]; then command git push -q github live:main; else command git \"$@\"; fi; }";
    let said =
        Shape { files: &files, ecosystem: app, before, since, answer: "server.js -", ..Shape::default() }.tried();
    assert!(!said.contains("no release"), "{said}");
    // No branch at all.
    let told = ["no branch is checked out: ref is the commit that is"];
    let since =
        "git checkout -q --detach; git branch -qD main; git commit -q --allow-empty -m x; git reset -q --hard HEAD~";
    Shape { files: &files, ecosystem: app, since, told: &told, answer: "server.js -", ..Shape::default() }.tried();
    // One that is not at the origin, which is told; and what is there that the clone lacks.
    let told = ["shop-2 is not at origin, so far as the clone knows: git push --set-upstream origin shop-2"];
    let remedy = "cd shop; runuser -u potados -- git push -q --set-upstream origin shop-2";
    Shape {
        files: &files,
        ecosystem: app,
        since: "git checkout -qb shop-2",
        told: &told,
        remedy,
        answer: "server.js -",
        ..Shape::default()
    }
    .tried();
    let told = ["2 commits are at origin and not in the clone: the first deploy brings what does not run yet"];
    let since =
        "git commit -q --allow-empty -m x; git commit -q --allow-empty -m y; git push -q; git reset -q --hard HEAD~2";
    Shape { files: &files, ecosystem: app, since, told: &told, answer: "server.js -", ..Shape::default() }.tried();
}
