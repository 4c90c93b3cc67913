//! Random plays of corrupted pipelines: what arrives is what the client has sent.
//!
//! Sound pipelines, whose bodies are full of further requests, are mutated a little and sent in
//! random pieces. A second reader, written here from the text of RFC 9112 and of our own rules,
//! says which messages the bytes contain, up to the first that can be read in two ways. A backend
//! may see these and no others, with the same bodies; and a client gets no more answers than it has
//! sent requests, and one refusal.

use crate::{
    backend::Request,
    chance::{Chance, rounds},
    client::Client,
    scripts::{answers_each, ok},
    stage::{Driver, Stage},
    wire::Broken,
};

on_both_drivers!(
    spoiled_pipelines_bring_no_request_that_was_not_sent,
    sound_pipelines_are_read_by_both_in_the_same_way,
);

/// A request according to its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Message {
    method: String,
    target: String,
    body: Vec<u8>,
}

impl From<&Request> for Message {
    fn from(request: &Request) -> Message {
        let (method, target) = (request.method().to_owned(), request.target().to_owned());
        Message { method, target, body: request.body.clone() }
    }
}

/// The messages in these bytes, up to the first that is cut or may be refused.
fn messages(mut bytes: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some((message, rest)) = message(bytes) {
        messages.push(message);
        bytes = rest;
    }
    messages
}

fn message(bytes: &[u8]) -> Option<(Message, &[u8])> {
    // One empty line is allowed (RFC 9112 §2.2).
    let bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let (head, rest) = parted(bytes, b"\r\n\r\n")?;
    let head = std::str::from_utf8(head).ok()?;
    let mut lines = head.split("\r\n");
    let [method, target, version] = Vec::from_iter(lines.next()?.split(' ')).try_into().ok()?;
    let fields = lines.map(field).collect::<Option<Vec<_>>>()?;
    let minor = version.strip_prefix("HTTP/1.")?;
    let line = token(method)
        && target.starts_with('/')
        && target.bytes().all(|byte| (0x21..0x7f).contains(&byte) && byte != b'#')
        && minor.len() == 1
        && minor.bytes().all(|byte| byte.is_ascii_digit());
    let all = |name: &str| -> Vec<&str> {
        let named = fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        named.map(|(_, value)| *value).collect()
    };
    let hosts = all("host").len();
    if !line || hosts > 1 || (hosts == 0 && minor != "0") {
        return None;
    }
    let (body, rest) = match (&all("content-length")[..], &all("transfer-encoding")[..]) {
        ([], []) => (Vec::new(), rest),
        ([length], []) if !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit()) => {
            let (body, rest) = rest.split_at_checked(length.parse().ok()?)?;
            (body.to_vec(), rest)
        }
        ([], [coding]) if coding.eq_ignore_ascii_case("chunked") && minor != "0" => chunks(rest)?,
        _ => return None,
    };
    Some((Message { method: method.to_owned(), target: target.to_owned(), body }, rest))
}

/// A line of a head or of trailers (RFC 9112 §5).
fn field(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once(':')?;
    let sound = |byte: u8| byte == b'\t' || (0x20..0x7f).contains(&byte);
    (token(name) && value.bytes().all(sound)).then(|| (name, value.trim_matches([' ', '\t'])))
}

fn token(text: &str) -> bool {
    let is_one = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_one)
}

/// A chunked body and the bytes after it (RFC 9112 §7.1).
fn chunks(mut rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut body = Vec::new();
    loop {
        let (line, behind) = parted(rest, b"\r\n")?;
        let line = std::str::from_utf8(line).ok()?;
        let (digits, extension) = line.split_at(line.find([';', ' ', '\t']).unwrap_or(line.len()));
        let extension = extension.trim_start_matches([' ', '\t']);
        let sound = (1..=16).contains(&digits.len())
            && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
            && line.bytes().all(|byte| byte == b'\t' || (0x20..0x7f).contains(&byte))
            && (extension.starts_with(';') || line.len() == digits.len());
        let size = usize::from_str_radix(digits, 16).ok().filter(|_| sound)?;
        if size == 0 {
            rest = behind;
            break;
        }
        let (chunk, behind) = behind.split_at_checked(size)?;
        body.extend_from_slice(chunk);
        rest = behind.strip_prefix(b"\r\n")?;
    }
    loop {
        let (line, behind) = parted(rest, b"\r\n")?;
        if line.is_empty() {
            return Some((body, behind));
        }
        field(std::str::from_utf8(line).ok()?)?;
        rest = behind;
    }
}

/// The bytes before the first occurrence, and those after it.
fn parted<'a>(bytes: &'a [u8], by: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes.windows(by.len()).position(|window| window == by)?;
    Some((&bytes[..at], &bytes[at + by.len()..]))
}

/// Requests one after the other; the bodies hold further ones, and framing.
fn pipeline(chance: &mut Chance, round: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in 0..1 + chance.below(4) {
        let method = chance.of(&["GET", "POST", "PUT", "DELETE", "PROPFIND"]);
        let version = chance.of(&["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0"]);
        let decoy = format!("GET /smuggled{number} HTTP/1.1\r\nHost: a\r\n\r\n");
        let text = chance.of(&["", "x", "0\r\n\r\n", "\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n"]);
        let body = [text, decoy.as_str(), text].concat();
        let mut request = format!("{method} /r{round}-{number}?q HTTP/1.1\r\nHost: a\r\n");
        if version == "HTTP/1.0" {
            request = request.replace("HTTP/1.1\r", "HTTP/1.0\r") + "Connection: keep-alive\r\n";
        }
        request += chance.of(&["", "", "A: b\r\n", "A:  b \t\r\nEmpty:\r\n", "TE: trailers\r\n"]);
        match chance.below(3) {
            0 if version == "HTTP/1.1" => {
                let size = 1 + chance.below(body.len());
                let extension = chance.of(&["", ";a=b", ";a=\"b\"", " ; a", ";"]);
                request += "Transfer-Encoding: chunked\r\n\r\n";
                for piece in body.as_bytes().chunks(size) {
                    let piece = std::str::from_utf8(piece).unwrap();
                    request += &format!("{:x}{extension}\r\n{piece}\r\n", piece.len());
                }
                request += chance.of(&["0\r\n\r\n", "000\r\n\r\n", "0;a\r\nT: u\r\n\r\n"]);
            }
            1 => request += "\r\n",
            _ => request += &format!("Content-Length: {}\r\n\r\n{body}", body.len()),
        }
        bytes.extend(request.bytes());
    }
    bytes
}

/// Lines that make a message ambiguous, or look as if they did.
const LINES: &[&str] = &[
    "Content-Length: 0\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 5, 5\r\n",
    "Content-Length: +5\r\n",
    "Content-Length : 5\r\n",
    "Content_Length: 5\r\n",
    "Content-Length:\r\n 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "Transfer-Encoding : chunked\r\n",
    "Transfer_Encoding: chunked\r\n",
    "Transfer-Encoding: \x0bchunked\r\n",
    "Transfer-Encoding: x\r\n chunked\r\n",
    "Connection: close\r\n",
    "Connection: Content-Length, Transfer-Encoding\r\n",
    "Host: b\r\n",
    "Expect: 100-continue\r\n",
    "X: a\n",
    "\r\n",
];

/// Single bytes that are read in several ways.
const BYTES: &[u8] = b"\r\n \t\0:;,0159aAfF+-_=\"\\x\x0b\x0c\x7f./?#";

/// Changes the bytes a little, anywhere or at the end of a line.
fn spoil(bytes: &mut Vec<u8>, chance: &mut Chance) {
    let ends: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] == b'\n').collect();
    let at = match chance.below(3) {
        0 => chance.below(bytes.len()),
        _ => ends.get(chance.below(ends.len().max(1))).copied().unwrap_or_default(),
    };
    let byte = BYTES[chance.below(BYTES.len())];
    match chance.below(9) {
        0 => bytes[at] = byte,
        1 => bytes.insert(at, byte),
        2 => bytes.insert(at.saturating_sub(1), byte),
        3 => _ = bytes.remove(at),
        4 => _ = bytes.remove(at.saturating_sub(1)),
        5 | 6 => {
            let line = LINES[chance.below(LINES.len())].bytes();
            drop(bytes.splice((at + 1).min(bytes.len())..(at + 1).min(bytes.len()), line));
        }
        7 => {
            let end = (at + 1 + chance.below(40)).min(bytes.len());
            let again = bytes[at..end].to_vec();
            drop(bytes.splice(at..at, again));
        }
        _ => {
            let end = (at + 1 + chance.below(40)).min(bytes.len());
            drop(bytes.drain(at..end));
        }
    }
    if bytes.is_empty() {
        bytes.push(byte);
    }
}

/// Sends bytes in pieces, then shuts down; returns how many answers come.
fn answers_to(stage: &Stage, chance: &mut Chance, bytes: &[u8]) -> usize {
    let mut client: Client = stage.connect();
    for piece in chance.pieces(bytes) {
        client.send_what_is_taken(piece);
    }
    client.half_close();
    let mut answers = 0;
    loop {
        match client.try_response() {
            Ok(response) if response.status < 200 => {}
            Ok(_) => answers += 1,
            Err((Broken::Ended | Broken::Cut | Broken::Reset, _)) => return answers,
            Err((broken, read)) => {
                panic!("{broken:?} to {:?}: {read:#?}", bytes.escape_ascii().to_string())
            }
        }
    }
}

/// A stage whose backend answers everything that it understands.
fn stage(driver: Driver) -> Stage {
    let strict = answers_each(|request| ok(request.target()).into_bytes());
    // The client says that it is done by closing its writing half, and waits for its answers.
    Stage::on(driver).listener("half-close = true").backend(strict).start()
}

/// What a backend has seen in these rounds, once nothing more can come of them.
#[track_caller]
fn expect_no_other(stage: &Stage, mut sent: Vec<Message>) {
    stage.expect_count("connections", 0);
    stage.expect_count("backend_in_flight", 0);
    let seen = stage.backend(0).requests();
    for request in &seen {
        let message = Message::from(request);
        let Some(place) = sent.iter().position(|one| *one == message) else {
            panic!("nobody has sent this:\n{}\n{:?}", request.head.raw, message.body.escape_ascii())
        };
        sent.swap_remove(place);
        let disguised = |name: &str| {
            let name = name.replace('_', "-").to_ascii_lowercase();
            matches!(name.as_str(), "content-length" | "transfer-encoding")
        };
        let framing = request.head.fields.iter().filter(|(name, _)| disguised(name)).count();
        assert!(framing <= 1, "framed twice:\n{}", request.head.raw);
    }
    assert!(!seen.is_empty());
}

fn spoiled_pipelines_bring_no_request_that_was_not_sent(driver: Driver) {
    let mut chance = Chance::new();
    let stage = stage(driver);
    let mut sent = Vec::new();
    for round in 0..rounds(600) {
        let mut bytes = pipeline(&mut chance, round);
        for _ in 0..1 + chance.below(3) {
            spoil(&mut bytes, &mut chance);
        }
        let messages = messages(&bytes);
        let answers = answers_to(&stage, &mut chance, &bytes);
        let text = bytes.escape_ascii();
        assert!(answers <= messages.len() + 1, "{answers} answers to {messages:#?} in {text}");
        sent.extend(messages);
        if round % 500 == 499 {
            expect_no_other(&stage, sent.clone());
        }
    }
    expect_no_other(&stage, sent);
}

/// The reader above is useless if it reads less than what is forwarded.
fn sound_pipelines_are_read_by_both_in_the_same_way(driver: Driver) {
    let mut chance = Chance::new();
    let stage = stage(driver);
    for round in 0..rounds(40) {
        let bytes = pipeline(&mut chance, round);
        let messages = messages(&bytes);
        let before = stage.backend(0).requests().len();
        assert_eq!(answers_to(&stage, &mut chance, &bytes), messages.len());
        let seen = &stage.backend(0).requests()[before..];
        assert_eq!(Vec::from_iter(seen.iter().map(Message::from)), messages, "round {round}");
    }
}
