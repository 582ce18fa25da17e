//! What holds of every request, whatever bytes it is made of. The fuzzers look for bytes of which it does not hold, and
//! the tests try those again that were worth keeping.

// Each program that includes this uses a part of it.
#![allow(dead_code)]

use std::io::Read;
use std::sync::LazyLock;

use cutover::app::Config;
use cutover::http::request::{Refusal, Request};
use cutover::push::{self, Asked, Secret};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// How long a body may be here: short, so that a fuzzer gets beyond it.
const LIMIT: u64 = 512;
/// How long a text may be that goes into an answer and a log, in characters.
const LONGEST_TEXT: usize = 400;
/// How long a name or an id may be that goes into a record, in characters.
const LONGEST_NAME: usize = 100;
/// No input holds it.
const SECRET: &[u8] = b"a6d1bb0ea1d7e8a2f6c8b1b7bd2c2c35";

/// Configurations that differ in what is to have been pushed.
static CONFIGS: LazyLock<[Config; 2]> = LazyLock::new(|| {
    ["main", "latest-tag"].map(|reference| {
        let text = format!(
            "app = \"shop\"\n[source]\ngit = \"/nowhere\"\nref = \"{reference}\"\n[run]\ncommand = \"true\"\n[push]\nrepository = \"octo/shop\"\n"
        );
        Config::parse(&text).expect("the configuration is a good one")
    })
});

/// A request is read as a second, simpler reader reads it, however its bytes arrive and whatever follows it; a part of it
/// is no request.
pub fn request(data: &[u8]) {
    let read = read(data);
    if let Err(refusal) = &read {
        assert!([400, 413, 417, 431, 501].contains(&refusal.status), "{refusal:?}");
        is_line(&refusal.reason, LONGEST_TEXT);
    }
    let Ok(Some(Sent { body, told, .. })) = read else { return };
    assert!(body.len() as u64 <= LIMIT);
    assert!(told.is_empty() || told == b"HTTP/1.1 100 Continue\r\n\r\n");
    let (expected, end) = plainly_read(data).expect("its end is beyond doubt");
    assert_eq!(body, expected);
    let by_bytes = self::read(Drops(&data[..end])).expect("it can be read in pieces").expect("it is there");
    assert_eq!(by_bytes.body, expected);
    let cut = number_of(data) % end;
    assert!(!matches!(self::read(&data[..cut]), Ok(Some(_))), "its first {cut} bytes of {end} are a request");
}

/// A request is genuine when whoever sent it knows the secret, and is not when one bit is another. What a genuine one asks
/// for can go into an answer, a log and the queue.
pub fn push(data: &[u8]) {
    let secret = Secret::new(SECRET).expect("it is not empty");
    let Ok(Some(Sent { request, body, .. })) = read(data) else { return };
    assert!(!push::is_genuine(&secret, &request, &body), "it is genuine without the secret");
    let number = number_of(data);
    let signature = Hmac::<Sha256>::new_from_slice(SECRET).expect("any length will do").chain_update(&body);
    let signature = signature.finalize().into_bytes().to_vec();
    let proof = if number % 5 == 2 { SECRET } else { &signature };
    let written = |proof: &[u8]| match number % 5 {
        0 => format!("X-Hub-Signature-256: sha256={}", hex(proof)),
        1 => format!("X-Gitea-Signature: {}", hex(proof)),
        2 => format!("X-Gitlab-Token: {}", String::from_utf8_lossy(proof)),
        3 => format!("X-Hub-Signature: sha256={}", hex(proof)),
        _ => format!("X-Gogs-Signature: {}", hex(proof)),
    };
    // One of SHA-1 is none, but in its place there can be no other.
    let has_proof = push::is_signed(&request) || number % 5 == 3 && request.has("x-hub-signature");
    let signed = with_field(data, &written(proof));
    let Ok(Some(sent)) = read(&*signed) else { return };
    assert_eq!(sent.body, body);
    // A wrong proof is not made good by a right one beside it.
    assert_eq!(push::is_genuine(&secret, &sent.request, &body), !has_proof);
    if has_proof {
        return;
    }
    let part = &proof[..number % proof.len()];
    for (what, wrong) in
        [("a bit of its proof is another", &*flipped(proof, number)), ("its proof is a part of one", part)]
    {
        if let Ok(Some(forged)) = read(&*with_field(data, &written(wrong))) {
            assert!(!push::is_genuine(&secret, &forged.request, &body), "{what}");
        }
    }
    if number % 5 != 2 {
        assert!(!push::is_genuine(&secret, &sent.request, &flipped(&body, number)), "a bit of its body is another");
    }
    for config in CONFIGS.iter() {
        match push::asked(config, &sent.request, &body) {
            Ok(Asked::Deploy(push)) => {
                is_line(&push.commit, 12);
                push.who.iter().chain(&push.delivery).for_each(|text| is_line(text, LONGEST_NAME));
                assert_ne!(push.delivery.as_deref(), Some(""), "the next one would be taken for the same");
            }
            Ok(Asked::Nothing(why)) => is_line(&why, LONGEST_TEXT),
            Err(refusal) => {
                assert!([400, 415].contains(&refusal.status), "{refusal:?}");
                is_line(&refusal.reason, LONGEST_TEXT);
            }
        }
    }
}

/// A request that was read, with its body, and what was said meanwhile.
struct Sent<R> {
    request: Request<R>,
    body: Vec<u8>,
    told: Vec<u8>,
}

fn read<R: Read>(input: R) -> Result<Option<Sent<R>>, Refusal> {
    let Some(mut request) = Request::read(input)? else { return Ok(None) };
    let mut told = Vec::new();
    let body = request.body(LIMIT, &mut told)?;
    Ok(Some(Sent { request, body, told }))
}

/// Hands out one byte at a time.
struct Drops<'a>(&'a [u8]);

impl Read for Drops<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = buffer.len().min(1);
        self.0.read(&mut buffer[..count])
    }
}

/// A request's body, and where the request ends, when every reader must see both alike: lines end in CR LF, there is one
/// Host, and one length at most, written in digits or as `chunked` (RFC 9112).
fn plainly_read(data: &[u8]) -> Option<(Vec<u8>, usize)> {
    let start = find(data, b"\r\n\r\n")? + 4;
    let head = data[..start - 4].strip_prefix(b"\r\n").unwrap_or(&data[..start - 4]);
    let text: String = head.iter().map(|byte| char::from(*byte)).collect();
    let mut lines = text.split("\r\n");
    let line: Vec<&str> = lines.next()?.split(' ').collect();
    let fields = lines.map(|line| line.split_once(':')).collect::<Option<Vec<_>>>()?;
    let is_clean = |text: &str| !text.contains(|byte: char| byte != '\t' && byte.is_ascii_control());
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|byte| byte.is_ascii_graphic());
    let is_plain = fields.iter().all(|(name, value)| is_name(name) && is_clean(value));
    let values = |wanted: &str| -> Vec<&str> {
        let wanted = fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        wanted.map(|(_, value)| value.trim_matches([' ', '\t'])).collect()
    };
    let is_new = line.get(2) == Some(&"HTTP/1.1");
    if line.len() != 3 || !is_plain || !(is_new && values("host").len() == 1 || line[2] == "HTTP/1.0") {
        return None;
    }
    let rest = &data[start..];
    let number = |text: &str, radix| {
        text.bytes().all(|digit| char::from(digit).is_digit(radix)).then(|| usize::from_str_radix(text, radix).ok())?
    };
    match (&values("content-length")[..], &values("transfer-encoding")[..]) {
        ([], []) => Some((Vec::new(), start)),
        ([length], []) => {
            let length = number(length, 10)?;
            Some((rest.get(..length)?.to_vec(), start + length))
        }
        ([], [coding]) if is_new && coding.eq_ignore_ascii_case("chunked") => {
            let (mut body, mut at) = (Vec::new(), 0);
            loop {
                let length = find(&rest[at..], b"\r\n")?;
                let line = std::str::from_utf8(&rest[at..at + length]);
                let line = line.map_or_else(|error| &rest[at..at + error.valid_up_to()], str::as_bytes);
                let size = line.split(|byte| *byte == b';').next()?.trim_ascii();
                let size = number(std::str::from_utf8(size).ok()?, 16)?;
                at += length + 2;
                if size == 0 {
                    let trailer = if rest[at..].starts_with(b"\r\n") { 2 } else { find(&rest[at..], b"\r\n\r\n")? + 4 };
                    return Some((body, start + at + trailer));
                }
                body.extend_from_slice(rest.get(at..at + size)?);
                at += size;
                rest[at..].starts_with(b"\r\n").then_some(())?;
                at += 2;
            }
        }
        _ => None,
    }
}

fn find(data: &[u8], what: &[u8]) -> Option<usize> {
    data.windows(what.len()).position(|window| window == what)
}

/// A request with one more header field.
fn with_field(request: &[u8], field: &str) -> Vec<u8> {
    let at = find(request, b"\r\n\r\n").expect("the head has an end") + 2;
    [&request[..at], field.as_bytes(), b"\r\n", &request[at..]].concat()
}

/// The same with one bit another; of nothing, something.
fn flipped(bytes: &[u8], number: usize) -> Vec<u8> {
    let mut flipped = bytes.to_vec();
    match bytes.len() * 8 {
        0 => flipped.push(0),
        bits => flipped[number % bits / 8] ^= 1 << (number % 8),
    }
    flipped
}

/// A number that another input has another of, most likely.
fn number_of(data: &[u8]) -> usize {
    data.iter().fold(0, |number: usize, byte| number.wrapping_mul(31).wrapping_add(usize::from(*byte)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Asserts that a text can stand in a line.
#[track_caller]
fn is_line(text: &str, longest: usize) {
    assert!(text.chars().count() <= longest, "{} characters: {text:?}", text.chars().count());
    assert!(!text.contains(char::is_control), "{text:?}");
}
