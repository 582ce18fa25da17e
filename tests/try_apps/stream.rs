//! Programs beside an app: a client whose connection is to last, such as a WebSocket, which prints a line for each message,
//! and what the app needs on the machine, such as a database.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::site::{Site, eventually};

/// A program beside an app; dropping it ends it.
pub struct Service(Child);

impl Service {
    /// Starts it by the shell, for a port that nobody else uses.
    pub fn start(site: &Site, command: &str) -> Service {
        let mut program = site.command("/bin/sh".as_ref());
        program.args(["-c", command]).env("PORT", site.ports.push.to_string()).stdout(Stdio::null());
        Service(program.spawn().unwrap())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A client; dropping it ends it.
pub struct Stream {
    child: Service,
    lines: Arc<AtomicU64>,
}

impl Stream {
    /// Starts it in the release of the enabled instance, by the shell, and waits for its first line.
    pub fn open(site: &Site, command: &str) -> Stream {
        let enabled = site.run("enabled-instance", &[]).ok();
        let mut program = site.command("/bin/sh".as_ref());
        program.args(["-c", command]).env("URL", format!("http://{}", site.address()));
        program.current_dir(site.home.join("instances").join(enabled.trim()).canonicalize().unwrap());
        let mut child = program.stdout(Stdio::piped()).spawn().unwrap();
        let lines = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&lines);
        let output = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            for _ in output.lines().map_while(Result::ok) {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        let stream = Stream { child: Service(child), lines };
        eventually("a stream's first line", || stream.lines.load(Ordering::Relaxed) > 0);
        stream
    }

    /// Whether more lines come, on the same connection.
    pub fn goes_on(&mut self) -> bool {
        let before = self.lines.load(Ordering::Relaxed);
        // A line may have been under way.
        eventually("a stream's next line, or its end", || {
            self.lines.load(Ordering::Relaxed) > before + 1 || self.child.0.try_wait().unwrap().is_some()
        });
        self.child.0.try_wait().unwrap().is_none()
    }
}
