//! An address of a site, as people write it: `https://shop.example.org`, `http://127.0.0.1:8080/up`.

use std::str::FromStr;

use ureq::http::Uri;

/// A site's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Whether it is reached over TLS.
    pub is_tls: bool,
    /// The name, or the IP address, one of version 6 in brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The path; empty: none is given.
    pub path: String,
}

/// What `check` in `[nginx]` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Check {
    /// The site is asked where `listen` says.
    #[default]
    Listen,
    /// It is asked here.
    At(Address),
    /// Nobody asks.
    Off,
}

impl Address {
    /// Host and port as a request names them: without the port where it is the scheme's own.
    pub fn authority(&self) -> String {
        match (self.is_tls, self.port) {
            (true, 443) | (false, 80) => self.host.clone(),
            _ => format!("{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Address, String> {
        let mistaken = || format!("expected an address such as \"https://shop.example.org\", got {text:?}");
        let uri: Uri = text.parse().map_err(|_| mistaken())?;
        let (scheme, authority) = (uri.scheme_str().unwrap_or_default(), uri.authority().ok_or_else(mistaken)?);
        let is_tls = match scheme {
            "http" => false,
            "https" => true,
            _ => return Err(mistaken()),
        };
        if authority.as_str().contains('@') || authority.host().is_empty() || uri.query().is_some() {
            return Err(mistaken());
        }
        // One that is none is none to this parser.
        if authority.as_str() != authority.host() && uri.port_u16().is_none_or(|port| port == 0) {
            return Err(mistaken());
        }
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let has_path = text.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
        let path = if has_path { uri.path().to_owned() } else { String::new() };
        Ok(Address { is_tls, host: authority.host().to_owned(), port, path })
    }
}

impl FromStr for Check {
    type Err = String;

    fn from_str(text: &str) -> Result<Check, String> {
        match text {
            "off" => Ok(Check::Off),
            address => address.parse().map(Check::At).map_err(|mistake| format!("{mistake}, or \"off\"")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_address_has_a_scheme_a_host_and_perhaps_a_port_and_a_path() {
        let address =
            |is_tls, host: &str, port, path: &str| Address { is_tls, host: host.into(), port, path: path.into() };
        for (text, expected, authority) in [
            ("https://shop.example.org", address(true, "shop.example.org", 443, ""), "shop.example.org"),
            ("http://shop.example.org:8080", address(false, "shop.example.org", 8080, ""), "shop.example.org:8080"),
            ("http://192.0.2.7/", address(false, "192.0.2.7", 80, "/"), "192.0.2.7"),
            ("https://[::1]:444/up", address(true, "[::1]", 444, "/up"), "[::1]:444"),
        ] {
            let parsed: Address = text.parse().unwrap();
            assert_eq!((parsed.authority().as_str(), &parsed), (authority, &expected), "{text}");
        }
        for text in [
            "",
            "shop.example.org",
            "ftp://x",
            "http://",
            "http://u:p@x",
            "http://x y",
            "/up",
            "http://x?q",
            "http://x:99999",
            "http://x:0",
            "http://x:44x3",
            "http://x:",
        ] {
            assert!(text.parse::<Check>().is_err(), "{text}");
        }
        assert_eq!("off".parse(), Ok(Check::Off));
    }
}
