//! Where a command or a variable says on which port an app listens, and ours in its place.

use regex::{Captures, Regex};
use serde_json::Value;

use super::entry::{self, Entry};

/// Options that take a port, or an address with one, each with the values that count. Elsewhere `-b` is a batch and `-l` a level.
const ARGUMENTS: [(&str, &str); 5] = [
    (
        r"-{1,2}D?(?:(?:server|http|web|app|api|quarkus|streamlit|listen)[._-])*(?:port|bind|listen|addr|address|http)|-p",
        ANY,
    ),
    (r"runserver|http\.server|(?:NITRO_|NUXT_|SERVER_|APP_|API_|HTTP_|WEB_|LISTEN_|FLASK_RUN_)?PORT", ANY),
    ("-b|-S|-l", r"(?P<place>[^\s':]*(?:://)?[^\s':]*:|\[[0-9a-fA-F:]*\]:)(?P<port>\d{2,5})"),
    ("-l", r"(?P<place>)(?P<port>\d{4,5})"),
    ("--bind|-b", r"(?P<place>unix:)(?P<port>[^\s']+)"),
];
const ANY: &str = r"(?P<place>|\w+://[^\s':]*:|[\w.*-]*:|\[[0-9a-fA-F:]*\]:)(?P<port>\d{2,5})";
/// An option that names the address alone.
const HOST: &str =
    r"(?P<before>(?:^|\s)(?:--host(?:name)?|-H)[=\s]\s*)(?:localhost|\d+\.\d+\.\d+\.\d+|'?\[?::1?\]?'?)(?P<after>\s|$)";
/// Variables by which frameworks go before they look at PORT.
const FIRST: [&str; 7] = [
    "ASPNETCORE_URLS",
    "FLASK_RUN_PORT",
    "N8N_PORT",
    "NITRO_PORT",
    "NUXT_PORT",
    "STREAMLIT_SERVER_PORT",
    "UVICORN_PORT",
];
/// Words in the names of variables that tell the port of something else.
const OTHERS: &str = "ADMIN|AMQP|CACHE|CLICKHOUSE|CLIENT|CONSUL|DATABASE|DB|DEBUG|ELASTIC|ELASTICSEARCH|EMAIL|ES|FTP|IMAP|INFLUX|INSPECT|\
    KAFKA|LDAP|MAIL|MAILER|MARIADB|MEMCACHED|METRICS|MONGO|MONGODB|MQTT|MSSQL|MYSQL|NATS|PEER|PG|POSTGRES|POSTGRESQL|PROMETHEUS|PROXY|\
    RABBIT|RABBITMQ|REDIS|REMOTE|RPC|SFTP|SMTP|SOLR|SQL|SSH|STATSD|SYSLOG|TARGET|UPSTREAM|ZOOKEEPER";

/// Where an app's variables have it listen.
#[derive(Default)]
pub struct Listening {
    /// Variables that are the port's, and what a shell is to set them to.
    pub ours: Vec<(String, String)>,
    /// Variables that may be: which of them the app goes by is not known.
    pub doubtful: Vec<String>,
}

impl Listening {
    /// Where this app's variables have it listen, besides PORT.
    pub fn of(entry: &Entry) -> Listening {
        let command = format!("{} {}", entry.script(), entry.words("args").join(" "));
        let plain = entry.variables("env").find(|(name, _)| *name == "PORT").map(|(_, value)| value);
        let main = plain.or(entry.settings().get("port")).map(entry::plain).or_else(|| of_command(&command));
        let found: Vec<(&String, String, String)> = entry
            .variables("env")
            .filter(|(name, _)| *name != "PORT" && is_listening(name))
            .filter_map(|(name, value)| ours_of(value).map(|(port, ours)| (name, port, ours)))
            .collect();
        let is_only = main.is_none() && found.len() == 1;
        let mut listening = Listening::default();
        for (name, port, ours) in found {
            match FIRST.contains(&name.as_str()) || is_only || main.as_ref() == Some(&port) {
                true => listening.ours.push((name.clone(), ours)),
                false => listening.doubtful.push(name.clone()),
            }
        }
        listening
    }
}

/// Whether one of these variables says on which port an app listens.
pub fn is_told_by(name: &str, value: &Value) -> bool {
    name == "PORT" || (is_listening(name) && ours_of(value).is_some())
}

/// A command with our port, and our address with it, in the place of each that it names; None: it names none.
pub fn with_ours(command: &str) -> Option<String> {
    let mut ours = command.to_owned();
    for pattern in patterns() {
        // Two that stand side by side share the space between them.
        while pattern.is_match(&ours) {
            ours = pattern
                .replace(&ours, |found: &Captures| {
                    format!("{}{}{}{}", &found["before"], &found["option"], port_of(found), &found["after"])
                })
                .into_owned();
        }
    }
    if ours == command {
        return None;
    }
    Some(Regex::new(HOST).map_or(ours.clone(), |host| host.replace(&ours, "${before}$$HOST${after}").into_owned()))
}

/// The first port that a command names; None: it names none.
pub fn of_command(command: &str) -> Option<String> {
    patterns().find_map(|pattern| pattern.captures(command).map(|found| found["port"].to_owned()))
}

fn patterns() -> impl Iterator<Item = Regex> {
    ARGUMENTS.iter().filter_map(|(options, value)| {
        Regex::new(&format!(r"(?P<before>^|\s)'?(?P<option>(?:{options})(?:=|\s+))'?(?:{value})'?(?P<after>\s|$)")).ok()
    })
}

/// What a shell makes our port, or our address, of.
fn port_of(found: &Captures) -> String {
    match &found["place"] {
        "" => "$PORT".to_owned(),
        ":" => ":$PORT".to_owned(),
        place => format!(
            "{}$HOST:$PORT",
            place.split_once("://").map_or(String::new(), |(scheme, _)| format!("{scheme}://"))
        ),
    }
}

fn is_listening(name: &str) -> bool {
    let is_one = |pattern: &str| Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(name));
    is_one(r"(?i)^(?:\w+_)?(?:PORT|ADDR|BIND|LISTEN|URLS)$") && !is_one(&format!("(?i)(?:^|_)(?:{OTHERS})_"))
}

/// The port that a variable's value names, and ours in its place; None: it names none.
fn ours_of(value: &Value) -> Option<(String, String)> {
    let pattern = Regex::new(&format!("^(?:{ANY})$")).ok()?;
    let value = entry::plain(value);
    let found = pattern.captures(&value)?;
    Some((found["port"].to_owned(), port_of(&found)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_port_in_a_command_becomes_ours() {
        for (theirs, ours) in [
            ("exec npm start -- --port=3000", "exec npm start -- --port=$PORT"),
            ("next start -p 3000 -H 0.0.0.0", "next start -p $PORT -H $HOST"),
            ("next start -H localhost -p 3000", "next start -H $HOST -p $PORT"),
            ("vite preview --host --port 4173", "vite preview --host --port $PORT"),
            ("gunicorn --bind 0.0.0.0:8000 --workers 2 app:app", "gunicorn --bind $HOST:$PORT --workers 2 app:app"),
            ("gunicorn --bind=localhost:8000 a:b", "gunicorn --bind=$HOST:$PORT a:b"),
            ("gunicorn -w 4 -b :8000 a:b", "gunicorn -w 4 -b :$PORT a:b"),
            ("gunicorn a:b '--bind=[::]:8000'", "gunicorn a:b --bind=$HOST:$PORT"),
            ("gunicorn a:b --bind '[::]:8000'", "gunicorn a:b --bind $HOST:$PORT"),
            ("gunicorn -b unix:/run/shop.sock a:b", "gunicorn -b $HOST:$PORT a:b"),
            ("gunicorn -b 127.0.0.1:8000 -b 10.0.0.7:8000 a:b", "gunicorn -b $HOST:$PORT -b $HOST:$PORT a:b"),
            ("uvicorn main:app --host 0.0.0.0 --port 8001", "uvicorn main:app --host $HOST --port $PORT"),
            ("serve -s build -l 3000", "serve -s build -l $PORT"),
            ("serve -s build -l tcp://0.0.0.0:3000", "serve -s build -l tcp://$HOST:$PORT"),
            ("java -jar app.jar --server.port=8080", "java -jar app.jar --server.port=$PORT"),
            ("java -Dserver.port=8080 -jar app.jar", "java -Dserver.port=$PORT -jar app.jar"),
            ("java -Dquarkus.http.port=8080 -jar x.jar", "java -Dquarkus.http.port=$PORT -jar x.jar"),
            ("streamlit run a.py --server.port 8501", "streamlit run a.py --server.port $PORT"),
            ("php -S localhost:8000 -t public", "php -S $HOST:$PORT -t public"),
            ("php artisan serve --host=0.0.0.0 --port=8000", "php artisan serve --host=$HOST --port=$PORT"),
            ("python manage.py runserver 0.0.0.0:8000", "python manage.py runserver $HOST:$PORT"),
            ("python3 -m http.server 8000", "python3 -m http.server $PORT"),
            ("./server -addr :8080", "./server -addr :$PORT"),
            ("./server -http=127.0.0.1:8080", "./server -http=$HOST:$PORT"),
            ("PORT=3000 node x.js", "PORT=$PORT node x.js"),
            ("NODE_ENV=x SERVER_PORT=3000 PORT=3000 node x.js", "NODE_ENV=x SERVER_PORT=$PORT PORT=$PORT node x.js"),
        ] {
            assert_eq!(with_ours(theirs).as_deref(), Some(ours), "{theirs}");
        }
        for other in [
            "node x.js --ports=3000 3000",
            "node --inspect=9229 x.js",
            "node x.js --redis-port=6379 --db.port 5432 --metrics-port 9100",
            "celery -A app worker -l info -b redis",
            "train.py -b 32 -l 100",
            "node x.js DB_PORT=5432 --host 0.0.0.0",
            "streamlit run a.py --server.address 0.0.0.0",
        ] {
            assert_eq!(with_ours(other), None, "{other}");
        }
        assert_eq!(of_command("gunicorn -b 0.0.0.0:8000").as_deref(), Some("8000"));
    }

    #[test]
    fn a_port_in_a_variable_becomes_ours_where_it_is_the_apps() {
        let listening = |env: Value, args: &str| {
            let entry = Entry::of(json!({ "script": "x.js", "env": env, "args": args }), None).unwrap();
            let Listening { ours, doubtful } = Listening::of(&entry);
            let ours: Vec<String> = ours.into_iter().map(|(name, ours)| format!("{name}={ours}")).collect();
            (ours.join(" "), doubtful.join(" "))
        };
        for (env, args, ours, doubtful) in [
            (json!({ "NITRO_PORT": 3001, "PORT": 3000 }), "", "NITRO_PORT=$PORT", ""),
            (json!({ "SERVER_PORT": "3001", "DB_PORT": 5432, "REDIS_PORT": 6379 }), "", "SERVER_PORT=$PORT", ""),
            (json!({ "port": 3001 }), "", "port=$PORT", ""),
            (json!({ "TTS_PORT": 7400 }), "", "TTS_PORT=$PORT", ""),
            (json!({ "API_PORT": 3000, "PORT": 3000 }), "", "API_PORT=$PORT", ""),
            (json!({ "API_PORT": 3000 }), "--port 3000", "API_PORT=$PORT", ""),
            (json!({ "WS_PORT": 3001, "PORT": 3000 }), "", "", "WS_PORT"),
            (json!({ "WEB_PORT": 3001, "WS_PORT": 3000 }), "", "", "WEB_PORT WS_PORT"),
            (json!({ "LISTEN_ADDR": "0.0.0.0:8080" }), "", "LISTEN_ADDR=$HOST:$PORT", ""),
            (json!({ "ADDR": ":8080" }), "", "ADDR=:$PORT", ""),
            (json!({ "ASPNETCORE_URLS": "http://+:5000" }), "", "ASPNETCORE_URLS=http://$HOST:$PORT", ""),
            (json!({ "PORTAL": "3000", "SUPPORT": 24, "APP_PORT": "auto", "MAIL_ADDR": "a:25" }), "", "", ""),
        ] {
            assert_eq!(listening(env.clone(), args), (ours.to_owned(), doubtful.to_owned()), "{env} {args}");
        }
    }
}
