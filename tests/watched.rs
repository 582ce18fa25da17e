//! What everybody on the machine can see of the programs that run: their arguments.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Somebody who looks at the arguments of all processes, all the time.
pub struct Watch {
    ends: Arc<AtomicBool>,
    /// Arguments that held the secret, and how many looks met the program.
    seen: Arc<Mutex<(Vec<String>, usize)>>,
    thread: thread::JoinHandle<()>,
}

impl Watch {
    /// Begins to look for a secret, and for a program that uses it.
    pub fn start(secret: &str, program: &str) -> Watch {
        let (ends, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new((Vec::new(), 0))));
        let (ended, noted) = (Arc::clone(&ends), Arc::clone(&seen));
        let (secret, program) = (secret.to_owned(), program.to_owned());
        let thread = thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(1));
                for entry in fs::read_dir("/proc").unwrap().flatten() {
                    let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
                    let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
                    let mut noted = noted.lock().unwrap();
                    noted.1 += usize::from(arguments.contains(&program));
                    if arguments.contains(&secret) {
                        noted.0.push(arguments);
                    }
                }
            }
        });
        Watch { ends, seen, thread }
    }

    /// Arguments that held the secret, and how many looks met the program.
    pub fn seen(self) -> (Vec<String>, usize) {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        std::mem::take(&mut self.seen.lock().unwrap())
    }

    /// Asserts that nobody saw the secret, although the program was seen.
    #[track_caller]
    pub fn saw_nothing(self) {
        let (arguments, met) = self.seen();
        assert!(arguments.is_empty(), "{arguments:?}");
        assert!(met > 0, "the program was never seen");
    }
}
