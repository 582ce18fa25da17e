//! Which of pm2's apps is the web app, which are workers, and what they are called here.

use super::entry::Entry;
use super::notes::{Notes, listed};

/// How long a name may be: see cutover-config(5).
const LONGEST_NAME: usize = 32;

/// Apps by the names that they have here.
pub struct Roles {
    /// What serves HTTP; None: none of them seems to.
    pub web_app: Option<(String, Entry)>,
    /// The others.
    pub workers: Vec<(String, Entry)>,
}

impl Roles {
    /// The roles of these apps, beside static sites of these names.
    pub fn of(entries: Vec<Entry>, sites: &[String], notes: &mut Notes) -> Roles {
        let mut entries = kept_running(without_sites(entries, sites, notes), notes);
        let serving = entries.iter().position(Entry::seems_to_serve);
        let web_app = match serving {
            None if entries.is_empty() || are_alike(&entries) => None,
            found => Some(entries.remove(found.unwrap_or(0))),
        };
        let web_app = web_app.map(|entry| (named(&entry.name(), "app", &[], notes), entry));
        let mut workers: Vec<(String, Entry)> = Vec::new();
        for entry in entries {
            let name = named(&entry.name(), "worker", &workers, notes);
            if entry.seems_to_serve() {
                let reason =
                    "it is a worker here, of which nginx knows nothing; better give it an installation of its own";
                notes.say(format!("{name} seems to serve HTTP as well: {reason}"));
            }
            workers.push((name, entry));
        }
        note_guess(web_app.as_ref(), serving.is_some(), &workers, notes);
        Roles { web_app, workers }
    }

    /// All of them, the web app first.
    pub fn all(&self) -> impl Iterator<Item = &(String, Entry)> {
        self.web_app.iter().chain(&self.workers)
    }
}

/// Without pm2's own servers of static files, of which there is none here.
fn without_sites(entries: Vec<Entry>, sites: &[String], notes: &mut Notes) -> Vec<Entry> {
    let (found, others): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(Entry::is_static);
    let names: Vec<String> = found.iter().map(Entry::name).chain(sites.iter().cloned()).collect();
    if !names.is_empty() {
        let instead = match others.is_empty() {
            true => "write into [run] what serves its directory, such as python3 -m http.server --directory dist $PORT",
            false => "give it an installation of its own, or lay its files where nginx may read them",
        };
        notes.say(format!("pm2 serves the files of {} by itself, which nothing does here: {instead}", listed(&names)));
    }
    others
}

/// Without those that pm2 does not start again: a worker is always kept running.
fn kept_running(entries: Vec<Entry>, notes: &mut Notes) -> Vec<Entry> {
    if !entries.iter().any(Entry::is_kept_running) {
        return entries;
    }
    let (kept, jobs): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(Entry::is_kept_running);
    for job in jobs {
        let instead = "it is left out, for a worker is kept running; call it from a hook, or from the crontab";
        notes.lost("autorestart", &job.name(), instead);
    }
    kept
}

/// Whether these are several apps that run the same script: a crowd of workers, none of which is the web app. What a program from
/// PATH runs, as npm does, its arguments say.
fn are_alike(entries: &[Entry]) -> bool {
    let [first, others @ ..] = entries else { return false };
    let runs = |entry: &Entry| {
        let arguments = if entry.script().contains(['/', '.']) { Vec::new() } else { entry.words("args") };
        (entry.script().to_owned(), entry.text("cwd").map(str::to_owned), arguments)
    };
    !others.is_empty() && others.iter().all(|entry| runs(entry) == runs(first))
}

/// Tells when the web app, or that there is none, is only guessed.
fn note_guess(web_app: Option<&(String, Entry)>, serves: bool, workers: &[(String, Entry)], notes: &mut Notes) {
    match web_app {
        None if workers.is_empty() => {}
        None => notes.say(format!(
            "none of pm2's {} apps, which all run the same script, seems to serve HTTP: all are workers; \
             write into [run] what runs the web app",
            workers.len()
        )),
        Some((name, _)) if !serves && !workers.is_empty() => {
            notes.say(format!("none of pm2's apps seems to serve HTTP: {name}, the first, is taken for the web app"));
        }
        Some(_) => {}
    }
}

/// The name that an app has here, which none of these has.
fn named(name: &str, otherwise: &str, taken: &[(String, Entry)], notes: &mut Notes) -> String {
    let plain = plain_name(name, otherwise);
    let is_free = |name: &String| taken.iter().all(|(other, _)| other != name);
    let numbered = (2..).map(|number| {
        let number = format!("-{number}");
        format!("{}{number}", plain.get(..LONGEST_NAME.saturating_sub(number.len())).unwrap_or(&plain))
    });
    let free = std::iter::once(plain.clone()).chain(numbered).find(is_free).unwrap_or(plain);
    if free != name {
        notes.say(format!("pm2's {name:?} is called {free} here"));
    }
    free
}

/// A name of lower-case letters, digits and dashes that is as near as can be to this one.
pub fn plain_name(name: &str, otherwise: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let words: Vec<&str> = lower.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let plain = match words.join("-") {
        plain if plain.starts_with(|first: char| first.is_ascii_lowercase()) => plain,
        plain if plain.is_empty() => otherwise.to_owned(),
        plain => format!("{otherwise}-{plain}"),
    };
    plain.get(..LONGEST_NAME).unwrap_or(&plain).trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The web app's name, the workers', and what is told.
    fn roles(apps: Vec<Value>) -> (Option<String>, Vec<String>, Vec<String>) {
        let mut notes = Notes::default();
        let roles = Roles::of(apps.into_iter().filter_map(|app| Entry::of(app, None)).collect(), &[], &mut notes);
        let names = roles.workers.into_iter().map(|(name, _)| name).collect();
        (roles.web_app.map(|(name, _)| name), names, notes.lines())
    }

    #[test]
    fn the_first_that_seems_to_serve_is_the_web_app() {
        let mail = json!({ "name": "mail", "script": "mail.js" });
        let web = json!({ "name": "web", "script": "web.js", "env": { "PORT": 80 } });
        let admin = json!({ "name": "admin", "script": "admin.js", "instances": 2 });
        let (web_app, workers, told) = roles(vec![mail.clone(), web, admin]);
        assert_eq!((web_app.as_deref(), workers), (Some("web"), vec!["mail".to_owned(), "admin".to_owned()]));
        assert!(told[0].starts_with("admin seems to serve HTTP as well"), "{told:?}");
        let (web_app, workers, told) = roles(vec![mail, json!({ "name": "poll", "script": "poll.js" })]);
        assert_eq!((web_app.as_deref(), workers), (Some("mail"), vec!["poll".to_owned()]));
        assert_eq!(told, ["none of pm2's apps seems to serve HTTP: mail, the first, is taken for the web app"]);
    }

    #[test]
    fn one_that_pm2_does_not_start_again_is_no_worker() {
        let job = json!({ "name": "job", "script": "job.js", "autorestart": false });
        let (web_app, workers, told) = roles(vec![job.clone(), json!({ "name": "web", "script": "web.js" })]);
        assert_eq!((web_app.as_deref(), workers.len()), (Some("web"), 0));
        assert!(told[0].starts_with("pm2's autorestart of job has no counterpart: it is left out"), "{told:?}");
        assert_eq!(roles(vec![job]).0.as_deref(), Some("job"));
    }

    #[test]
    fn names_become_plain_and_stay_different() {
        for (name, plain) in [
            ("shop", "shop"),
            ("Shop_API v2", "shop-api-v2"),
            ("--x--", "x"),
            ("9lives", "worker-9lives"),
            ("서버", "worker"),
            ("an-app-with-a-name-of-more-than-32-letters", "an-app-with-a-name-of-more-than"),
        ] {
            assert_eq!(plain_name(name, "worker"), plain, "{name}");
        }
        let app = |name: &str| json!({ "name": name, "script": "same.js" });
        let (web_app, workers, told) = roles(vec![app("서버"), app("single_01"), app("single-01"), app("서버")]);
        assert_eq!(
            (web_app, workers),
            (None, ["worker", "single-01", "single-01-2", "worker-2"].map(str::to_owned).into())
        );
        assert_eq!(told[1], "pm2's \"single_01\" is called single-01 here");
        assert!(
            told[4].starts_with("none of pm2's 4 apps, which all run the same script, seems to serve HTTP"),
            "{told:?}"
        );
    }
}
