//! The way of the project's seed, to compare with: an nginx whose configuration names the one enabled port, in a file
//! that is replaced, followed by `nginx -s reload`.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::unistd::Uid;

use crate::load;
use crate::site::{Ports, Site};

/// How long the first answer may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A second nginx, which lies in a site's directory.
pub struct Reload<'a> {
    site: &'a Site,
    prefix: PathBuf,
    listen: Ports,
}

impl<'a> Reload<'a> {
    /// Starts it in front of what listens on this port.
    pub fn before(site: &'a Site, port: u16) -> Reload<'a> {
        let prefix = site.directory.path().join("reload");
        for directory in ["logs", "temp", "conf.d"] {
            fs::create_dir_all(prefix.join(directory)).unwrap();
        }
        let reload = Reload { site, prefix, listen: Ports::claim() };
        fs::write(reload.prefix.join("nginx.conf"), main_configuration()).unwrap();
        reload.write_server(port);
        reload.nginx(&[]);
        let deadline = Instant::now() + PATIENCE;
        while let Err(failure) = load::slow(reload.address(), Duration::ZERO) {
            assert!(Instant::now() < deadline, "the nginx that is to be reloaded does not answer: {failure}");
        }
        reload
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.listen.listen))
    }

    /// Cuts over to the instance on this port.
    pub fn connect(&self, port: u16) {
        self.write_server(port);
        self.nginx(&["-s", "reload"]);
    }

    fn write_server(&self, port: u16) {
        let listen = self.address();
        let server = format!(
            "server {{\n\
             listen {listen};\n\
             client_max_body_size 100m;\n\
             location / {{\n\
             proxy_pass http://127.0.0.1:{port};\n\
             proxy_http_version 1.1;\n\
             proxy_set_header Upgrade $http_upgrade;\n\
             proxy_set_header Connection $connection_upgrade;\n\
             }}\n\
             }}\n"
        );
        fs::write(self.prefix.join("conf.d/app.conf"), server).unwrap();
    }

    fn nginx(&self, arguments: &[&str]) {
        let binary = cutover::command::find("nginx").unwrap();
        let mut command = self.site.command(&binary);
        command.arg("-p").arg(&self.prefix).args(["-c", "nginx.conf"]).args(arguments);
        let output = command.output().unwrap();
        assert!(output.status.success(), "nginx {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Reload<'_> {
    fn drop(&mut self) {
        self.nginx(&["-s", "stop"]);
    }
}

/// As the tools' own, but for the switch.
fn main_configuration() -> String {
    let user = if Uid::effective().is_root() { "user root;" } else { "" };
    format!(
        "{user}\n\
         worker_processes auto;\n\
         pid nginx.pid;\n\
         error_log logs/error.log warn;\n\
         events {{ worker_connections 1024; }}\n\
         http {{\n\
         access_log off;\n\
         client_body_temp_path temp/body;\n\
         proxy_temp_path temp/proxy;\n\
         fastcgi_temp_path temp/fastcgi;\n\
         uwsgi_temp_path temp/uwsgi;\n\
         scgi_temp_path temp/scgi;\n\
         tcp_nodelay on;\n\
         map $http_upgrade $connection_upgrade {{ default upgrade; '' close; }}\n\
         include conf.d/*.conf;\n\
         }}\n"
    )
}
