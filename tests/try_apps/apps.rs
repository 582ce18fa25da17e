//! The apps: which there are, what each needs, and what is asked of it. How each is configured is in docs/apps.md.

/// An app. Its sources lie in the directory of its name, with `@VERSION@` where its version belongs.
#[derive(Debug)]
pub struct App {
    /// Its name: in the page, in its configuration, and of its directory.
    pub name: &'static str,
    /// What it runs on, for the table.
    pub what: &'static str,
    /// What it needs of the system, as tests/set-up.sh names it.
    pub needs: &'static [&'static str],
    /// What its user has laid into the home before: a line for the shell that runs there.
    pub laid: &'static str,
    /// What runs beside it on this machine, such as a database: a line for the shell, PORT is a free one.
    pub service: &'static str,
    /// How its developer makes the lock of its dependencies: a line for the shell that runs in the repository. It is made each
    /// time, because locks are long; what is asked for by name is pinned.
    pub lock: &'static str,
    /// What GETs ask for; the answer holds the version.
    pub get: &'static str,
    /// Whether it echoes POSTs to /echo.
    pub echoes: bool,
    /// A program whose lines go on as long as its connection does, for the shell in the release; URL is the site's.
    pub stream: &'static str,
    /// The pause between two requests of a connection, in milliseconds.
    pub pace: u64,
    /// Whether the gate has the time for it.
    pub is_light: bool,
}

/// Most apps.
const APP: App = App {
    name: "",
    what: "",
    needs: &[],
    laid: "",
    service: "",
    lock: "",
    get: "/",
    echoes: true,
    stream: "",
    pace: 20,
    is_light: false,
};

const NPM: &str = "npm install --package-lock-only --no-audit --no-fund --loglevel=error";

/// Lays what nvm and Bun's installer would, which get programs from places that not every machine reaches: npm has the same.
const NVM: &str = "npm install --prefix .nvm/versions/node/v22.23.3 --loglevel=error node@22.23.3 pnpm@10.34.8 && \
                   ln -s node_modules/.bin .nvm/versions/node/v22.23.3/bin";
const BUN: &str = "npm install --prefix .bun --loglevel=error bun@1.4.5 && ln -s node_modules/.bin .bun/bin";

/// Those that are tried, in their order.
pub const APPS: &[App] = &[
    App {
        name: "chat",
        what: "Express and socket.io, two processes",
        needs: &["node", "npm"],
        lock: NPM,
        stream: "exec node client.js",
        is_light: true,
        ..APP
    },
    App { name: "nest", what: "NestJS, two processes", needs: &["node", "npm"], lock: NPM, ..APP },
    App { name: "next", what: "Next.js", needs: &["node", "npm"], lock: NPM, pace: 250, ..APP },
    App {
        name: "workspace",
        what: "Fastify in a pnpm workspace",
        needs: &["node", "npm"],
        laid: NVM,
        lock: "PATH=$HOME/.nvm/versions/node/v22.23.3/bin:$PATH pnpm install --lockfile-only",
        ..APP
    },
    App {
        name: "hono",
        what: "Hono on Bun",
        needs: &["node", "npm"],
        laid: BUN,
        lock: "$HOME/.bun/bin/bun install --lockfile-only",
        ..APP
    },
    App { name: "packages", what: "verdaccio", needs: &["node", "npm"], lock: NPM, echoes: false, pace: 50, ..APP },
    App { name: "django", what: "Django, gunicorn", needs: &["python3", "python3-venv"], is_light: true, ..APP },
    App {
        name: "fastapi",
        what: "FastAPI, uvicorn, SSE",
        needs: &["python3", "python3-venv", "curl"],
        stream: "exec curl --silent --no-buffer $URL/events",
        is_light: true,
        ..APP
    },
    App {
        name: "orders",
        what: "Flask, gunicorn, Celery",
        needs: &["python3", "python3-venv", "curl", "redis-server"],
        service: "exec redis-server --bind 127.0.0.1 --port $PORT --save ''",
        stream: "while curl --silent --fail $URL/sum; do sleep 0.2; done",
        ..APP
    },
    App {
        name: "datasette",
        what: "datasette",
        needs: &["python3", "python3-venv"],
        get: "/shop/dishes.json",
        echoes: false,
        pace: 100,
        is_light: true,
        ..APP
    },
    App { name: "sinatra", what: "Sinatra, Puma", needs: &["puma", "ruby-sinatra"], is_light: true, ..APP },
    App { name: "php", what: "PHP's own server", needs: &["php"], is_light: true, ..APP },
    App { name: "fpm", what: "php-fpm", needs: &["php-fpm"], is_light: true, ..APP },
    App {
        name: "tomcat",
        what: "a jar with Tomcat",
        needs: &["javac", "libtomcat10-embed-java", "libtomcat10-java"],
        ..APP
    },
    App { name: "go", what: "Go", needs: &["go"], ..APP },
    App { name: "axum", what: "Rust, axum", lock: "cargo generate-lockfile", ..APP },
    App {
        name: "static",
        what: "static files",
        needs: &["node", "npm"],
        lock: NPM,
        echoes: false,
        is_light: true,
        ..APP
    },
];
