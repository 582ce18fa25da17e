//! The repository's URL without what is secret in it: git gets that in its arguments, where everybody on the machine can
//! read it, and the credentials through its environment.
#![deny(clippy::arithmetic_side_effects)]

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;

use anyhow::Result;

use crate::outcome::usage;

/// The shortest password that is hidden wherever it occurs, in bytes; a shorter one is hidden where a URL has it.
const SHORTEST_PASSWORD: usize = 4;
/// The same of a user without a password, which may be a token, or a word that occurs elsewhere.
const SHORTEST_TOKEN: usize = 8;
/// What stands for a secret.
const HIDDEN: &str = "***";
/// The variables by which git's helper knows the credentials.
const USER: &str = "CUTOVER_GIT_USER";
const PASSWORD: &str = "CUTOVER_GIT_PASSWORD";
/// The program that hands them to git, a function of the shell's: it has no secret in its arguments either.
const HELPER: &str = "!f() { if [ \"$1\" = get ]; then \
                      printf 'username=%s\\npassword=%s\\n' \"$CUTOVER_GIT_USER\" \"$CUTOVER_GIT_PASSWORD\"; fi; }; f";

/// A repository's URL or path, as the configuration has it.
#[derive(Default)]
pub struct Address {
    configured: String,
    /// Without user, password and query; with the user where that is ssh's.
    plain: String,
    /// What stood before the `@`, as it was written; empty: nothing did.
    userinfo: String,
    credentials: Option<Credentials>,
    /// Pieces that are hidden wherever they occur, as they were written and as they are meant.
    secrets: Vec<String>,
    has_query: bool,
}

/// What a server is told that asks for it.
struct Credentials {
    /// The only server that is told: `https://example.org:8443`.
    server: String,
    user: Vec<u8>,
    /// None: git asks the user's own helpers first.
    password: Option<Vec<u8>>,
}

impl fmt::Display for Address {
    /// As it may be shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.plain)
    }
}

impl Address {
    /// Takes a URL apart.
    pub fn of(configured: &str) -> Address {
        match configured.split_once("://") {
            Some((scheme, rest)) => Address::of_url(configured, scheme, rest),
            None => Address::of_path(configured),
        }
    }

    fn of_url(configured: &str, scheme: &str, rest: &str) -> Address {
        let scheme_name = scheme.to_ascii_lowercase();
        let asks_for_password = matches!(scheme_name.as_str(), "http" | "https" | "ftp" | "ftps");
        // git takes one with too many slashes.
        let rest = if asks_for_password { rest.trim_start_matches('/') } else { rest };
        let (userinfo, rest) = split_userinfo(rest);
        let query = rest.find(['?', '#']).and_then(|at| rest.split_at_checked(at));
        let (place, query) = query.unwrap_or((rest, ""));
        let server = place.split('/').next().unwrap_or_default();
        let (user, password) = split_user(userinfo);
        // ssh takes the user, whom everybody may know, from its arguments, and no password from anywhere.
        let is_ssh = scheme_name.contains("ssh");
        let kept = if is_ssh && !user.is_empty() { format!("{user}@") } else { String::new() };
        let is_told = asks_for_password && !userinfo.is_empty();
        let credentials = is_told.then(|| Credentials {
            server: format!("{scheme}://{server}"),
            user: decoded(user),
            password: password.map(decoded),
        });
        let mut secrets = secrets_of(user, password, is_ssh);
        let values =
            query.split(['?', '#', '&', ';']).map(|pair| pair.split_once('=').map_or(pair, |(_, value)| value));
        values.for_each(|value| add(&mut secrets, value, SHORTEST_PASSWORD));
        Address {
            configured: configured.to_owned(),
            plain: format!("{scheme}://{kept}{place}"),
            userinfo: userinfo.to_owned(),
            credentials,
            secrets: longest_first(secrets),
            has_query: !query.is_empty(),
        }
    }

    /// A path, or `user@host:path`, which ssh serves, also where somebody has written a password into it.
    fn of_path(configured: &str) -> Address {
        let with_password = || {
            let (user, rest) = configured.split_once(':')?;
            let (password, place) = rest.split_at_checked(rest.split('/').next()?.rfind('@')?)?;
            let place = place.strip_prefix('@')?;
            let has_host = place.split('/').next()?.contains(':');
            (has_host && !user.contains(['/', '@'])).then_some((user, password, place))
        };
        let configured = configured.to_owned();
        let Some((user, password, place)) = with_password() else {
            return Address { plain: configured.clone(), configured, ..Address::default() };
        };
        Address {
            plain: format!("{user}@{place}"),
            userinfo: format!("{user}:{password}"),
            secrets: longest_first(secrets_of(user, Some(password), true)),
            configured,
            ..Address::default()
        }
    }

    /// Fails when it holds what git could not be told in secret.
    pub fn check(&self) -> Result<()> {
        if self.has_query {
            let remedy = "write user and password in front of the host: https://USER:PASSWORD@HOST/PATH";
            return Err(usage(format!("cannot use {self}: what is behind its ? or # cannot be kept secret; {remedy}")));
        }
        let is_text = |bytes: &[u8]| !bytes.iter().any(|byte| byte.is_ascii_control());
        let credentials = self.credentials.iter();
        let mut parts = credentials.flat_map(|known| [Some(&known.user), known.password.as_ref()]).flatten();
        match parts.all(|part| is_text(part)) {
            true => Ok(()),
            false => Err(usage(format!("cannot use {self}: its user or password holds a control character"))),
        }
    }

    /// git's own options, to stand before its command. They have no secret in them.
    pub fn options(&self) -> Vec<OsString> {
        let Some(Credentials { server, password, .. }) = &self.credentials else { return Vec::new() };
        // An empty one makes git forget the user's own helpers, which may know another password.
        let forget = password.as_ref().map(|_| "");
        let helpers = forget.into_iter().chain([HELPER]);
        helpers
            .flat_map(|helper| ["-c".to_owned(), format!("credential.{server}.helper={helper}")])
            .map(Into::into)
            .collect()
    }

    /// The variables in which git gets the credentials. A git before 2.31 does not ask the user's own helpers for the user
    /// that is named, but for any.
    pub fn environment(&self) -> Vec<(OsString, OsString)> {
        let Some(Credentials { server, user, password }) = &self.credentials else { return Vec::new() };
        let text = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        let key = format!("credential.{server}.username");
        let mut variables =
            vec![(USER.into(), text(user)), (PASSWORD.into(), text(password.as_deref().unwrap_or_default()))];
        if !user.is_empty() {
            let named = [
                ("GIT_CONFIG_COUNT", "1".into()),
                ("GIT_CONFIG_KEY_0", key.into()),
                ("GIT_CONFIG_VALUE_0", text(user)),
            ];
            variables.extend(named.map(|(name, value)| (name.into(), value)));
        }
        variables
    }

    /// A text, whoever wrote it, without what is secret here.
    pub fn hide(&self, text: &str) -> String {
        let mut text = text.replace(&self.configured, &self.plain);
        if !self.userinfo.is_empty() && !self.plain.contains(&format!("//{}@", self.userinfo)) {
            text = text.replace(&format!("{}@", self.userinfo), "");
        }
        self.secrets.iter().fold(text, |text, secret| text.replace(secret, HIDDEN))
    }
}

/// What stands before the `@` of a URL behind its scheme, and what follows it.
fn split_userinfo(rest: &str) -> (&str, &str) {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) || authority.starts_with('[');
    let end = match authority.rfind('@') {
        Some(at) => Some(at),
        // What would be no port is the beginning of a password in which somebody has not encoded a slash.
        None if authority.rsplit_once(':').is_some_and(|(_, port)| !is_port(port)) => rest.rfind('@'),
        None => None,
    };
    let parts = end.and_then(|at| rest.split_at_checked(at));
    parts.map_or(("", rest), |(userinfo, rest)| (userinfo, rest.strip_prefix('@').unwrap_or(rest)))
}

fn split_user(userinfo: &str) -> (&str, Option<&str>) {
    userinfo.split_once(':').map_or((userinfo, None), |(user, password)| (user, Some(password)))
}

/// What is to be hidden of a user and a password; a user of ssh's is not secret.
fn secrets_of(user: &str, password: Option<&str>, is_ssh: bool) -> Vec<String> {
    let mut secrets = Vec::new();
    match password {
        Some(password) => add(&mut secrets, password, SHORTEST_PASSWORD),
        None if is_ssh => {}
        None => add(&mut secrets, user, SHORTEST_TOKEN),
    }
    // `x-oauth-basic` and the like stand beside a token that is the user.
    if password.is_some_and(|password| password.is_empty() || password.starts_with("x-oauth")) {
        add(&mut secrets, user, SHORTEST_TOKEN);
    }
    secrets
}

/// Adds a secret as it is written and as it is meant, and its pieces, one of which a program may take for a host.
fn add(secrets: &mut Vec<String>, secret: &str, shortest: usize) {
    let meant = String::from_utf8_lossy(&decoded(secret)).into_owned();
    for known in [secret, &meant] {
        let pieces = known.split(['@', ':', '/', '?', '#']).chain([known]);
        secrets.extend(pieces.filter(|piece| piece.len() >= shortest).map(str::to_owned));
    }
}

/// A longer one may hold a shorter one.
fn longest_first(mut secrets: Vec<String>) -> Vec<String> {
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets
}

/// A part of a URL without its `%40`s. A `%` that begins none stays.
fn decoded(part: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = part.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let digits =
            behind.first_chunk::<2>().filter(|digits| *first == b'%' && digits.iter().all(u8::is_ascii_hexdigit));
        let byte = digits.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = match byte {
            Some(_) => behind.get(2..).unwrap_or_default(),
            None => behind,
        };
    }
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_form_of_a_url_keeps_its_secrets() {
        for (url, plain) in [
            ("https://user:s3cr3t-42@host/p.git", "https://host/p.git"),
            ("https://s3cr3t-42@host:8443/p.git", "https://host:8443/p.git"),
            ("https://:s3cr3t-42@host", "https://host"),
            ("https://s3cr3t-42:@host", "https://host"),
            ("https://s3cr3t-42:x-oauth-basic@host/p", "https://host/p"),
            ("http://u:s3cr3t-42@T0KEN@host/p", "http://host/p"),
            ("http://u:pa/s3cr3t-42@host/p", "http://host/p"),
            ("http://u:p%40s3cr3t-42%2f@[::1]:80/p@v1", "http://[::1]:80/p@v1"),
            ("HTTPS://u:s3cr3t-42@host/p", "HTTPS://host/p"),
            ("git://u:s3cr3t-42@host/p", "git://host/p"),
            ("ssh://git:s3cr3t-42@host:22/p", "ssh://git@host:22/p"),
            ("git+ssh://git:s3cr3t-42@host/p", "git+ssh://git@host/p"),
            ("u:s3cr3t-42@host:p/q", "u@host:p/q"),
            ("u:a@s3cr3t-42@host:p", "u@host:p"),
            ("https://host/p.git?token=s3cr3t-42&x=1", "https://host/p.git"),
            ("https://u:s3cr3t-42@host?private_token=s3cr3t-43", "https://host"),
            ("https://host/p.git#s3cr3t-42", "https://host/p.git"),
            ("ftp://u:s3cr3t-42@host/p", "ftp://host/p"),
            ("https::https://u:s3cr3t-42@host/p", "https::https://host/p"),
        ] {
            let address = Address::of(url);
            assert_eq!(address.to_string(), plain);
            let said =
                address.hide(&format!("fatal: {url}: no s3cr3t-42 {:?}, '{}/'", url, &url[url.find("s3").unwrap()..]));
            assert!(!said.contains("s3cr3t") && !said.contains("T0KEN@"), "{said}");
            let options = format!("{:?}", address.options());
            assert!(!options.contains("s3cr3t"), "{options}");
        }
    }

    #[test]
    fn what_is_not_secret_stays() {
        for plain in [
            "https://host/p.git",
            "https://host:8443/p@v1:x",
            "git@host:team/p.git",
            "host:p@v1",
            "ssh://git@host/p",
            "/srv/p.git",
            "./odd:name@x",
            "../p?x",
            "file:///srv/p@v1",
        ] {
            let address = Address::of(plain);
            assert_eq!(
                (address.to_string(), address.hide(&format!("in {plain} of git")).as_str()),
                (plain.to_owned(), format!("in {plain} of git").as_str())
            );
            assert!(address.options().is_empty() && address.environment().is_empty());
            address.check().unwrap();
        }
    }

    #[test]
    fn git_gets_the_credentials_as_they_are_meant() {
        let told = |url: &str| {
            let variables = Address::of(url).environment();
            let of = |name: &str| {
                variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone().into_string().unwrap())
            };
            (of(USER).unwrap(), of(PASSWORD).unwrap())
        };
        let pair = |user: &str, password: &str| (user.to_owned(), password.to_owned());
        assert_eq!(told("https://a%40b:p%3a%25q%@host"), pair("a@b", "p:%q%"));
        assert_eq!(told("https://token@host"), pair("token", ""));
        assert_eq!(told("http://u:SECRET@TOKEN@host"), pair("u", "SECRET@TOKEN"));
        assert_eq!(Address::of("https://token@host").options().len(), 2);
        assert_eq!(Address::of("https://u:p@host").options().len(), 4);
        for bad in ["https://u:p%0aq@host", "https://u%0d:p@host", "https://host?x", "https://u:p@host#x"] {
            Address::of(bad).check().unwrap_err();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_is_an_address(text in "\\PC{0,40}|[a-z:/@?#%\\[\\]é]{0,40}", said in "\\PC{0,40}") {
            let address = Address::of(&text);
            let _ = (address.check(), address.options(), address.environment(), address.hide(&said));
        }

        #[test]
        fn a_password_is_never_shown(password in "[a-zA-Z0-9!$&'()*+,;=._~%@:-]{8,40}", scheme in "https?|git|ssh|ftp") {
            let address = Address::of(&format!("{scheme}://user:{password}@host/p"));
            prop_assert_eq!(address.to_string(), if scheme == "ssh" { "ssh://user@host/p".to_owned() } else { format!("{scheme}://host/p") });
            prop_assert!(!address.hide(&["no ", &password, " here"].concat()).contains(&password));
        }
    }
}
