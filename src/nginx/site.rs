//! The site as its clients reach it: its own address and name. What is asked there shows whether the server block that answers
//! is one that passes requests to the app, which nginx's status port cannot tell.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::ifaddrs::getifaddrs;

use super::{parse, render};
use crate::app::config::{Address, Check};
use crate::app::{App, Instance};
use crate::bounded::{self, Links};
use crate::command::{self, Run};
use crate::deadline::Deadline;
use crate::http::{self, Answer, connection};

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long an nginx that is just restarting is waited for.
const RESTART: Duration = Duration::from_secs(1);
/// The pause between two questions.
const POLL: Duration = Duration::from_millis(20);
/// How many redirects are followed, as from http to https.
const REDIRECTS: usize = 3;
/// The program that asks over TLS: which certificate nginx shows is between it and its clients.
const CURL: &str = "curl";
/// How much of an answer's head is read, in bytes.
const HEAD: usize = 64 * 1024;
/// How many header fields of an answer are read.
const FIELDS: usize = 256;

/// Where clients reach the app, and by which name.
#[derive(Clone, Debug)]
pub struct Site {
    address: Address,
    /// The addresses of this machine on which nginx may listen for it, the likeliest first.
    places: Vec<IpAddr>,
    /// The path that is to be answered well; None: what the app's health check asks for.
    path: Option<String>,
}

impl Site {
    /// What `check` in `[nginx]` says, else the first place in `listen` where a client could ask; None: there is none, or nobody
    /// is to ask.
    pub fn of(app: &App) -> Option<Site> {
        match &app.config.nginx.check {
            Check::Off => None,
            Check::At(address) => {
                let path = Some(address.path.clone()).filter(|path| !path.is_empty());
                Some(Site { places: places_of(&address.host), address: address.clone(), path })
            }
            Check::Listen => {
                let nginx = &app.config.nginx;
                let edited = Some(nginx).filter(|nginx| !nginx.listen.is_empty()).and_then(|_| edited(app));
                let (listen, names) = edited.unwrap_or_else(|| (nginx.listen.clone(), nginx.server_name.clone()));
                let mut places: Vec<(bool, IpAddr, u16)> = listen.iter().filter_map(|listen| place(listen)).collect();
                // Over TLS it takes a program more.
                places.sort_by_key(|(is_tls, ..)| *is_tls);
                let (is_tls, ip, port) = places.into_iter().next()?;
                let host = host_of(&names, ip);
                let address = Address { is_tls, host, port, path: String::new() };
                Some(Site { address, places: vec![ip], path: None })
            }
        }
    }

    /// Whether asking takes a program that is not there.
    pub fn check_means(&self) -> Result<()> {
        let remedy = "over TLS the site is asked with curl: install it, or set check = \"off\" in [nginx]";
        let needed = self.address.is_tls.then(|| command::find(CURL).context(remedy));
        needed.transpose().map(drop)
    }

    /// The path that is to be answered well; None: what the app's health check asks for.
    pub fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// The port on which it is reached.
    pub fn port(&self) -> u16 {
        self.address.port
    }

    /// Checks whether requests of clients get to this app, and to this instance if one is named. nginx is given a moment, in
    /// case it is restarting, and asked twice at least: an answer that does not come takes longer than that. The error is in
    /// words.
    pub fn leads_to(&self, app: &App, instance: Option<&Instance>) -> Result<(), String> {
        let patience = Deadline::after(RESTART);
        let mut asked = 0;
        loop {
            asked += 1;
            match self.look(app, instance) {
                Err(reason) if !patience.sleep(POLL) && asked > 1 => {
                    return Err(format!("clients of {self} do not get there: {reason}"));
                }
                Err(_) => {}
                Ok(()) => return Ok(()),
            }
        }
    }

    /// The same without patience.
    pub fn leads_to_at_once(&self, app: &App) -> bool {
        self.look(app, None).is_ok()
    }

    fn look(&self, app: &App, instance: Option<&Instance>) -> Result<(), String> {
        let (_, answer) = self.follow(&render::mark_path(app))?;
        let field = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok());
        if field("cutover-app") != Some(app.name()) {
            let block = render::instance_file(app);
            return Err(format!(
                "another server block answers, with status {}, or one that does not include {}",
                answer.status,
                block.display()
            ));
        }
        match (instance, field("cutover-instance").unwrap_or_default()) {
            (Some(instance), used) if used != instance.name() => Err(format!("nginx uses {used} there")),
            _ => Ok(()),
        }
    }

    /// Asks for a path as a client does, and follows redirects that do not lead to another host. Returns the last answer, and the
    /// path that was asked for then. The error is in words.
    pub fn follow(&self, path: &str) -> Result<(String, Answer), String> {
        let (mut site, mut path) = (self.clone(), path.to_owned());
        for _ in 0..=REDIRECTS {
            let answer = site.get(&path)?;
            let location = answer.headers.get("location").filter(|_| (300..400).contains(&answer.status));
            match location.and_then(|location| site.redirected(location.to_str().ok()?)) {
                Some(next) => (site, path) = next,
                None => return Ok((path, answer)),
            }
        }
        Err("it redirects for ever".to_owned())
    }

    /// Where a redirect leads: the site and the path; None: elsewhere.
    fn redirected(&self, location: &str) -> Option<(Site, String)> {
        let location = location.split('#').next()?;
        if location.starts_with('/') && !location.starts_with("//") {
            return Some((self.clone(), location.to_owned()));
        }
        let (address, query) = location.split_once('?').map_or((location, None), |(path, query)| (path, Some(query)));
        let address: Address = address.parse().ok()?;
        let path = if address.path.is_empty() { "/" } else { &address.path };
        let path = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
        address.host.eq_ignore_ascii_case(&self.address.host).then(|| (Site { address, ..self.clone() }, path))
    }

    /// Asks for a path as a client does. The error is in words.
    fn get(&self, path: &str) -> Result<Answer, String> {
        let mut reason = "this machine has no such address".to_owned();
        for place in &self.places {
            let at = SocketAddr::new(*place, self.address.port);
            match connection::connect(at, PATIENCE) {
                Ok(_) => return self.get_at(at, path),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                    reason = format!("connection refused on port {}", self.address.port);
                }
                Err(error) => reason = error.to_string(),
            }
        }
        Err(reason)
    }

    fn get_at(&self, at: SocketAddr, path: &str) -> Result<Answer, String> {
        let host = self.address.authority();
        match self.address.is_tls {
            false => http::ask(at, &host, path, PATIENCE),
            true => over_tls(at, &self.address, &format!("https://{host}{path}")),
        }
    }
}

impl std::fmt::Display for Site {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.address.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.address.authority())
    }
}

/// One question over TLS, of which only the answer's head is read.
fn over_tls(at: SocketAddr, address: &Address, url: &str) -> Result<Answer, String> {
    let seconds = PATIENCE.as_secs().to_string();
    let place = match at.ip() {
        IpAddr::V6(ip) => format!("[{ip}]"),
        IpAddr::V4(ip) => ip.to_string(),
    };
    let resolved = format!("{}:{}:{place}", address.host, address.port);
    // It is the address itself where that is what clients ask for; curl could not read the other for one of version 6.
    let resolved = if address.host == place { Vec::new() } else { vec!["--resolve", &resolved] };
    // From the same address, as over plain HTTP.
    let from = at.ip().to_string();
    let from: Vec<&str> = if connection::is_local(at.ip()) { vec!["--interface", &from] } else { Vec::new() };
    // The user's own options, of ~/.curlrc, are not for this.
    let words = [
        "--disable",
        "--globoff",
        "--silent",
        "--show-error",
        "--insecure",
        "--http1.1",
        "--noproxy",
        "*",
        "--max-time",
        &seconds,
    ]
    .into_iter()
    .chain(from)
    .chain(["--dump-header", "-", "--output", "/dev/null"])
    .chain(resolved)
    .chain([url]);
    let asked = command::find(CURL).and_then(|curl| Run::new(&curl, words).output(Deadline::after(2 * PATIENCE)));
    let head = asked.map_err(|error| format!("{error:#}"))?.stdout;
    http::read_head(head.get(..HEAD).unwrap_or(&head).as_bytes(), FIELDS)
        .ok_or_else(|| "the answer is no HTTP".to_owned())
}

/// Where the server block that passes requests to the app listens, and its names, where it was laid and edited since; None: it is
/// as configured.
fn edited(app: &App) -> Option<(Vec<String>, String)> {
    let read = || Ok(bounded::read_text(&render::server_file(app), Links::Refused, bounded::LARGE)?);
    // That of an nginx of the user's own is the user's.
    let text = if app.config.nginx.own { app.owner.lend(read) } else { read() }.ok()?;
    if render::is_as_laid(&text) {
        return None;
    }
    let included = render::instance_file(app);
    let passes = |server: &parse::Server| server.includes.iter().any(|file| Path::new(file) == included);
    let server = parse::servers_of_file(&text).into_iter().find(passes)?;
    (!server.listen.is_empty()).then(|| (server.listen, server.names.join(" ")))
}

/// Where nginx listens by one entry of `listen`, and whether for TLS; None: nobody can ask there who speaks plain HTTP.
fn place(listen: &str) -> Option<(bool, IpAddr, u16)> {
    let mut words = listen.split_whitespace();
    let address = words.next()?;
    let flags: Vec<&str> = words.collect();
    // Before 1.25 nginx takes nothing but HTTP/2 where that is without TLS.
    let is_http2 = flags.contains(&"http2") && !flags.contains(&"ssl");
    if is_http2 || flags.contains(&"proxy_protocol") || flags.contains(&"quic") {
        return None;
    }
    let (host, port) = match (address.rsplit_once(':'), address.parse::<u16>()) {
        (_, Ok(port)) => ("*", port),
        (Some((host, port)), _) => match port.parse() {
            Ok(port) => (host, port),
            Err(_) => (address, http::PORT),
        },
        (None, _) => (address, http::PORT),
    };
    let ip = match host {
        "*" | "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        host => host.trim_start_matches('[').trim_end_matches(']').parse().ok()?,
    };
    let ip = match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    Some((flags.contains(&"ssl"), ip, port))
}

/// By which name a client asks for a server of this `server_name`, the first of them that one can ask for; by the address where
/// there is none.
fn host_of(server_name: &str, ip: IpAddr) -> String {
    let names = server_name.split_whitespace().filter(|name| !name.starts_with('~') && *name != "_");
    let mut names = names.map(|name| name.trim_start_matches('.').replace('*', "cutover"));
    names.find(|name| format!("http://{name}").parse::<Address>().is_ok()).unwrap_or_else(|| match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    })
}

/// On which of this machine's addresses nginx may listen for a host: that address, or any.
fn places_of(host: &str) -> Vec<IpAddr> {
    if let Ok(ip) = host.trim_start_matches('[').trim_end_matches(']').parse() {
        return vec![ip];
    }
    let mut places = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    for interface in getifaddrs().into_iter().flatten() {
        let Some(address) = interface.address else { continue };
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        let v6 = address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip()));
        // One of a link only takes the link's name as well.
        let is_whole = |ip: &IpAddr| !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
        places.extend(v4.or(v6).filter(is_whole).filter(|ip| !ip.is_loopback()));
    }
    places
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_client_asks_where_nginx_listens() {
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        for (listen, expected) in [
            ("80", Some((false, local, 80))),
            ("*:8080 default_server", Some((false, local, 8080))),
            ("0.0.0.0:80", Some((false, local, 80))),
            ("443 ssl", Some((true, local, 443))),
            ("127.0.0.1", Some((false, local, 80))),
            ("localhost:81", Some((false, local, 81))),
            ("192.0.2.7:81", Some((false, "192.0.2.7".parse().unwrap(), 81))),
            ("[::]:443 ssl http2", Some((true, "::1".parse().unwrap(), 443))),
            ("[2001:db8::7]:80", Some((false, "2001:db8::7".parse().unwrap(), 80))),
            ("80 proxy_protocol", None),
            ("80 http2", None),
            ("443 quic reuseport", None),
            ("unix:/run/shop.sock", None),
            ("shop.example.org:80", None),
        ] {
            assert_eq!(place(listen), expected, "{listen}");
        }
    }

    #[test]
    fn a_client_asks_by_a_name_of_the_server_s() {
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        for (server_name, host) in [
            ("_", "127.0.0.1"),
            ("shop.example.org", "shop.example.org"),
            ("*.example.org", "cutover.example.org"),
            (".example.org", "example.org"),
            ("~^shop\\d+$", "127.0.0.1"),
            ("shop.example.org www.shop.example.org", "shop.example.org"),
            ("_ ~^shop *.example.org", "cutover.example.org"),
            ("", "127.0.0.1"),
        ] {
            assert_eq!(host_of(server_name, local), host, "{server_name}");
        }
        assert_eq!(host_of("_", "::1".parse().unwrap()), "[::1]");
    }
}
