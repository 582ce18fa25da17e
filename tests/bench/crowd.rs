//! Many processes that do nothing, and many connections that are over, so that a tool which walks over all of them
//! shows it.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Child;

use crate::timing;

/// Processes that sleep until this is dropped.
pub struct Crowd(Vec<Child>);

impl Crowd {
    pub fn gather(count: u64) -> Crowd {
        let mut crowd = Crowd(Vec::new());
        for _ in 0..count {
            // They end by themselves too, should this program be killed.
            crowd.0.push(timing::program(Path::new("/bin/sleep"), &["600"]).spawn().unwrap());
        }
        crowd
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for sleeper in &mut self.0 {
            let _ = sleeper.kill();
        }
        for sleeper in &mut self.0 {
            let _ = sleeper.wait();
        }
    }
}

/// Opens and closes this many connections, which the kernel remembers for a minute (TIME_WAIT).
pub fn close_connections(count: u64) {
    const TO_ONE_PORT: u64 = 1_000;
    for done in (0..count).step_by(TO_ONE_PORT as usize) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        for _ in 0..TO_ONE_PORT.min(count - done) {
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, _) = listener.accept().unwrap();
            drop(client);
            drop(server);
        }
    }
}
