//! A stranger that holds a port: a process that no tool started, listening.

use std::process::{Child, Command, Stdio};

use crate::site::eventually;

/// The stranger; it is ended when this is dropped.
pub struct Holder(Child);

impl Holder {
    /// Listens on this port of 127.0.0.1, and answers nothing.
    pub fn of(port: u16) -> Holder {
        let script =
            format!("import socket, time; held = socket.create_server(('127.0.0.1', {port})); time.sleep(600)");
        let child = Command::new("python3").args(["-c", &script]).stdin(Stdio::null()).spawn().unwrap();
        let holder = Holder(child);
        eventually("the stranger listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        holder
    }

    /// As the tools describe it.
    pub fn described(&self) -> String {
        format!("python3 (pid {})", self.0.id())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
