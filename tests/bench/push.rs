//! What pushes cost: the look whether there is something new, a webhook's request, and a flood of forged ones.

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cutover::lock::Lock;

use crate::promises::Promises;
use crate::pushed_site::SECTION;
use crate::site::{Site, get};
use crate::timing::{self, Times, ms, ratio, whole_ms};
use crate::webhook::{github_push, response};
use crate::{Scale, note, print_table, row, warm_site};

/// How often each is run.
const PAIRS: u64 = 100;
/// How many requests of the app's are timed with, and without, a flood beside them.
const REQUESTS: u64 = 2_000;
/// How many forged requests a second a flood has.
const FLOOD: u32 = 1_000;

/// How many requests a connection is used for: nginx ends it after a thousand.
const AT_ONCE: u32 = 500;

/// What a look may take beyond git's own question.
const LOOK_LIMIT: Duration = Duration::from_millis(50);
/// What an answer may take beyond a program that does nothing; its two files are flushed.
const ANSWER_LIMIT: Duration = Duration::from_millis(20);
/// What an app's request may take with a flood beside it, as a multiple of what it takes without.
const FLOODED_LIMIT: f64 = 3.0;

pub fn measure(scale: Scale, promises: &mut Promises) {
    let site = warm_site(SECTION);
    let mut rows = vec![row(["", "takes", "beside", "takes", "limit", ""])];
    note("push, nothing new");
    let source = site.source();
    let mut question = timing::program(Path::new("/usr/bin/git"), &["ls-remote", source.to_str().unwrap(), "main"]);
    let tool = site.home.join("bin/deploy");
    let (mut poll, mut deploy) = (timing::program(&tool, &["--if-new"]), timing::program(&tool, &[]));
    let [poll, deploy, question] = timing::in_turns(
        scale.of(PAIRS),
        [&mut || timing::of_process(&mut poll), &mut || timing::of_process(&mut deploy), &mut || {
            timing::of_process(&mut question)
        }],
    );
    for (what, took) in [("deploy --if-new, nothing new", &poll), ("deploy, nothing new", &deploy)] {
        let (took, asked) = (took.median(), question.median());
        let verdict =
            promises.judge(&format!("{what}: at most 50 ms more than git ls-remote"), took < asked + LOOK_LIMIT);
        rows.push(row([
            what,
            &ms(took),
            "git ls-remote",
            &ms(asked),
            &format!("{} more", whole_ms(LOOK_LIMIT)),
            verdict,
        ]));
    }

    note("push, a request");
    // Nobody deploys it meanwhile.
    let idle = Lock::take(&site.home.join("run/queued-deploy.lock")).unwrap().unwrap();
    let request = github_push(&site.webhook_secret(), &"1".repeat(40), "again and again");
    let request = String::from_utf8(request).unwrap().replace("X-GitHub-Delivery", "X-No-Delivery").into_bytes();
    let mut nothing = timing::program(Path::new("/bin/true"), &[]);
    let [answered, nothing] = timing::in_turns(
        scale.of(PAIRS),
        [&mut || timing::of(|| on_push(&site, &request)), &mut || timing::of_process(&mut nothing)],
    );
    drop(idle);
    let (answered, nothing) = (answered.median(), nothing.median());
    let what = "on-push, a push that is queued and flushed";
    let verdict = promises.judge("on-push: at most 20 ms more than /bin/true", answered < nothing + ANSWER_LIMIT);
    let limit = format!("{} more", whole_ms(ANSWER_LIMIT));
    rows.push(row([what, &ms(answered), "/bin/true", &ms(nothing), &limit, verdict]));

    note("push, a flood");
    let ends = AtomicBool::new(false);
    let quiet = requests(&site, scale.of(REQUESTS));
    let flooded = thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| flood(&site, &ends));
        }
        // The first two hundred are served.
        thread::sleep(Duration::from_secs(1));
        let flooded = requests(&site, scale.of(REQUESTS));
        ends.store(true, Ordering::Relaxed);
        flooded
    });
    let (flooded, quiet) = (flooded.median(), quiet.median());
    let what = "the app's answer, 1,000 forged requests a second beside it";
    let kept = ratio(flooded, quiet) <= FLOODED_LIMIT;
    let verdict = promises.judge("a flood of forged requests: the app's answers take at most 3 x", kept);
    rows.push(row([what, &ms(flooded), "without them", &ms(quiet), &format!("{FLOODED_LIMIT} x"), verdict]));
    print_table("Pushes, medians", &rows);
}

/// A request on on-push's stdin, which must be queued.
fn on_push(site: &Site, request: &[u8]) {
    let mut command = Command::new(site.home.join("bin/on-push"));
    command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(request).unwrap();
    let said = child.wait_with_output().unwrap();
    assert!(said.stdout.starts_with(b"HTTP/1.1 202 "), "{said:?}");
}

/// The times of the app's answers through nginx, on one connection.
fn requests(site: &Site, count: u64) -> Times {
    assert_eq!(get(site.ports.listen, "/").0, 200);
    let (mut connection, mut asked) = (TcpStream::connect(site.address()).unwrap(), 0);
    let mut ask = || {
        asked += 1;
        if asked % AT_ONCE == 0 {
            connection = TcpStream::connect(site.address()).unwrap();
        }
        connection.write_all(b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n").unwrap();
        assert_eq!(response(&mut connection).unwrap().0, 200);
    };
    (0..count).map(|_| timing::of(&mut ask)).collect()
}

/// A tenth of a flood.
fn flood(site: &Site, ends: &AtomicBool) {
    let forged = github_push(b"a guess", &"1".repeat(40), "guessed");
    let (mut connection, mut sent) = (TcpStream::connect(site.address()).unwrap(), 0);
    let mut pace = Instant::now();
    while !ends.load(Ordering::Relaxed) {
        sent += 1;
        if sent % AT_ONCE == 0 {
            connection = TcpStream::connect(site.address()).unwrap();
        }
        pace += Duration::from_secs(10) / FLOOD;
        thread::sleep(pace.saturating_duration_since(Instant::now()));
        connection.write_all(&forged).unwrap();
        let status = response(&mut connection).unwrap().0;
        assert!([401, 429].contains(&status), "{status}");
    }
}
