//! Tests of a connection's state, frame by frame, and frames as tests write and read them.
//!
//! Nothing waits here: what is to be sent is taken from the state, and streams have no task but the
//! test. `server/http2_wire_tests.rs` has the same under a whole worker.

use std::{collections::VecDeque, rc::Rc};

use super::{
    Abuse, Asking, Conn, PREFACE, Places, Reason, Share,
    conn::REQUESTS_MAX,
    frame::{FrameHead, HEAD_BYTES, PAYLOAD_MAX, flag, kind},
    hpack::{self, Decoder},
};
use crate::base::{moment::Tick, rng::Rng};
use crate::http::{
    forward::{self, Forward, ForwardedFor, MadeIds},
    framing,
    head::RequestHead,
    headers::Span,
    parse::{self, HeadLimits, Parse},
    write,
};
use crate::net::{buffer::Buffers, clock::Clock, deadlines::Deadlines};
use crate::plan::ListenerId;
use crate::proto::peer::{Peer, PeerAddress};

const LIMITS: HeadLimits =
    HeadLimits { head_bytes_max: 4 << 10, line_bytes_max: 2 << 10, fields_max: 20 };

/// A frame.
pub(crate) fn frame(kind: u8, flags: u8, id: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut frame = FrameHead { len: payload.len(), kind, flags, id }.bytes().to_vec();
    frame.extend_from_slice(payload);
    frame
}

/// The block of these fields, one a line, as `name: value`.
pub(crate) fn block(fields: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for line in fields.lines().filter(|line| !line.is_empty()) {
        let at = line[1..].find(": ").expect("a field") + 1;
        // Not by `hpack::field`, which writes names in lower case.
        block.push(0);
        for part in [&line[..at], &line[at + 2..]] {
            assert!(part.len() < 127);
            block.push(part.len() as u8);
            block.extend_from_slice(part.as_bytes());
        }
    }
    block
}

/// A frame with the whole head of a request, or with trailers.
pub(crate) fn head(id: u32, ends: bool, fields: &str) -> Vec<u8> {
    let flags = flag::END_HEADERS | if ends { flag::END_STREAM } else { 0 };
    frame(kind::HEADERS, flags, id, block(fields))
}

/// A frame of a body.
pub(crate) fn data(id: u32, ends: bool, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    frame(kind::DATA, if ends { flag::END_STREAM } else { 0 }, id, bytes)
}

/// What a client begins with.
pub(crate) fn greeting() -> Vec<u8> {
    [&PREFACE[..], &frame(kind::SETTINGS, 0, 0, "")].concat()
}

/// The fields of a GET.
pub(crate) const GET: &str = ":method: GET\n:scheme: http\n:authority: a\n:path: /\n";

/// Frames in words, one a line. What a connection always begins with is left out.
pub(crate) fn words(mut bytes: &[u8]) -> Vec<String> {
    let (mut words, mut decoder) = (Vec::new(), Decoder::default());
    while let Some(head) = FrameHead::read(bytes) {
        let Some(payload) = bytes.get(HEAD_BYTES..HEAD_BYTES + head.len) else { break };
        bytes = &bytes[HEAD_BYTES + head.len..];
        let number = || u32::from_be_bytes(payload[payload.len() - 4..].try_into().unwrap());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let ends = if head.has(flag::END_STREAM) { " end" } else { "" };
        let id = head.id;
        words.push(match head.kind {
            kind::DATA => format!("{id} data {:?}{ends}", text(payload)),
            kind::HEADERS => {
                let mut fields = String::new();
                let read = decoder.read(payload, |name, value| {
                    fields += &format!(" {}={}", text(name), text(value));
                });
                read.unwrap();
                format!("{id} head{fields}{ends}")
            }
            kind::RST_STREAM => format!("{id} reset {}", number()),
            kind::SETTINGS if head.has(flag::ACK) => continue,
            kind::SETTINGS => continue,
            kind::PING => format!("ping {} {}", head.flags, text(payload)),
            kind::GOAWAY => format!(
                "goaway {} {}",
                u32::from_be_bytes(payload[..4].try_into().unwrap()),
                number()
            ),
            kind::WINDOW_UPDATE if id == 0 && number() == (1 << 20) - 65_535 => continue,
            kind::WINDOW_UPDATE => format!("{id} window {}", number()),
            other => format!("{id} kind {other}"),
        });
    }
    assert!(bytes.is_empty(), "{bytes:x?} behind {words:?}");
    words
}

/// A connection without input and output.
struct Bare {
    conn: Rc<Conn>,
    peer: Rc<Peer>,
    buffers: Rc<Buffers>,
    /// What came and is no whole frame yet.
    rest: Vec<u8>,
    streams: VecDeque<Asking>,
}

impl Bare {
    fn new() -> Bare {
        Bare::with(Rc::new(Places::default()).share(None, usize::MAX))
    }

    fn with(places: Share) -> Bare {
        let buffers = Buffers::new(4);
        let deadlines = Deadlines::new(Rc::new(Clock::new()));
        let address = PeerAddress::of(None);
        let peer = Rc::new(Peer::new(ListenerId(0), (address, 80), &[], None));
        let conn = Conn::new(Rc::clone(&buffers), deadlines, (&LIMITS, places));
        Bare { conn, peer, buffers, rest: Vec::new(), streams: VecDeque::new() }
    }

    /// One that has had the settings of its peer.
    fn greeted() -> Bare {
        Bare::new().after_settings()
    }

    fn after_settings(mut self) -> Bare {
        assert_eq!(self.gets(frame(kind::SETTINGS, 0, 0, "")), Ok(()));
        assert!(self.sent().is_empty());
        self
    }

    fn gets(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), Reason> {
        self.rest.extend_from_slice(bytes.as_ref());
        loop {
            let result = self.turn();
            self.streams.extend(std::iter::from_fn(|| self.conn.next(&self.peer)));
            if result.is_err() || !self.conn.has_frame(&self.rest) {
                return result.map(|_| ());
            }
        }
    }

    /// Takes what it does in one turn; returns how many bytes that was.
    fn turn(&mut self) -> Result<usize, Reason> {
        let (used, result) = self.conn.receive(&self.rest, &LIMITS, (Tick::from_millis(1), None));
        self.rest.drain(..used);
        result.map(|()| used)
    }

    /// What it sends, in words.
    fn sent(&mut self) -> Vec<String> {
        words(&self.sent_bytes())
    }

    fn sent_bytes(&mut self) -> Vec<u8> {
        let mut sent = Vec::new();
        while let Some(buffer) = self.conn.output_now() {
            sent.extend_from_slice(buffer.bytes());
            self.buffers.give(buffer);
        }
        sent
    }

    /// The head of the next request, as HTTP/1 would have it.
    fn request(&mut self) -> (Asking, String) {
        let mut asking = self.streams.pop_front().expect("a request");
        let mut head = RequestHead::default();
        asking.take_head(&mut head).expect("a head");
        let text = String::from_utf8(head.headers.bytes.clone()).unwrap();
        (asking, text)
    }
}

#[track_caller]
fn becomes(fields: &str, expected: &str) {
    let mut bare = Bare::greeted();
    assert_eq!(bare.gets(head(1, true, fields)), Ok(()));
    let (_, text) = bare.request();
    assert_eq!(text, expected.replace('\n', "\r\n"), "{fields}");
}

/// RFC 9113 §8.3.1, §8.2.3.
#[test]
fn a_request_becomes_the_head_that_http_1_has() {
    becomes(GET, "GET / HTTP/1.1\nhost: a\n");
    becomes(
        ":path: /a?b\n:authority: x.y:80\n:scheme: https\n:method: POST\nte: trailers\nx: y\n",
        "POST /a?b HTTP/1.1\nhost: x.y:80\nte: trailers\nx: y\n",
    );
    becomes(
        ":method: OPTIONS\n:scheme: http\n:authority: a\n:path: *\n",
        "OPTIONS * HTTP/1.1\nhost: a\n",
    );
    let without = ":method: GET\n:scheme: http\n:path: /\n";
    becomes(&format!("{without}host: b\n"), "GET / HTTP/1.1\nhost: b\n");
    becomes(&format!("{GET}host: A\nx: y\n"), "GET / HTTP/1.1\nhost: a\nx: y\n");
    becomes(
        &format!("{GET}cookie: a=1\nx: y\ncookie: b=2\ncookie: c\n"),
        "GET / HTTP/1.1\nhost: a\nx: y\ncookie: a=1; b=2; c\n",
    );
    becomes(&format!("{GET}content-length: 0\n"), "GET / HTTP/1.1\nhost: a\ncontent-length: 0\n");
}

/// RFC 9113 §8.1.1, §8.2, §8.3.
#[test]
fn a_malformed_request_is_reset_and_nothing_else_is() {
    let without = |name: &str| -> String {
        GET.lines().filter(|line| !line.starts_with(name)).map(|line| format!("{line}\n")).collect()
    };
    let mut malformed: Vec<String> = [":method", ":scheme", ":path", ":authority"]
        .iter()
        .flat_map(|name| [without(name), format!("{GET}{name}: x\n")])
        .collect();
    for fields in [
        ":x: y",
        "X: y",
        "x : y",
        "x(: y",
        "x: a\u{0}b",
        "x: a\u{7f}b",
        "x:  y",
        "x: y ",
        "x: \ty",
        "connection: close",
        "connection: x",
        "keep-alive: x",
        "proxy-connection: x",
        "transfer-encoding: chunked",
        "upgrade: h2c",
        "te: gzip",
        "te: trailers, gzip",
        "te: ",
        "host: b",
        "host: a, b",
        "content-length: 5",
        "content-length: x",
        "content-length: +0",
        "content-length: 0\ncontent-length: 0",
        ":status: 200",
        "x: y\n:path: /",
    ] {
        malformed.push(format!("{GET}{fields}\n"));
    }
    for path in ["", "*", "a", "http://a/", "/a b", "/a#b", "//\u{e9}"] {
        malformed.push(format!("{}:path: {path}\n", without(":path")));
    }
    for (name, value) in [
        (":method", ""),
        (":method", "G T"),
        (":scheme", "ftp"),
        (":scheme", ""),
        (":authority", ""),
        (":authority", "u@a"),
        (":authority", "a/b"),
        (":authority", "a,b"),
    ] {
        malformed.push(format!("{}{name}: {value}\n", without(name)));
    }
    let mut bare = Bare::greeted();
    for (number, fields) in malformed.iter().enumerate() {
        let id = 2 * number as u32 + 1;
        assert_eq!(bare.gets(head(id, true, fields)), Ok(()), "{fields}");
        let came = bare.streams.pop_front().is_some();
        assert!(!came, "{fields}");
        assert_eq!(bare.sent(), [format!("{id} reset 1")], "{fields}");
    }
    assert_eq!(bare.gets(head(9_001, true, GET)), Ok(()));
    assert!(bare.request().1.starts_with("GET"), "the connection goes on");
}

/// What is a request, but too large or not served, is answered.
#[test]
fn a_request_that_is_too_large_is_refused_like_one() {
    let many: String = (0..21).map(|number| format!("x{number}: y\n")).collect();
    let long = "x".repeat(120);
    let wide: String = (0..40).map(|number| format!("x{number}: {long}\n")).collect();
    for (fields, status) in [
        (format!("{GET}{many}"), 431),
        (format!("{GET}{wide}"), 431),
        (":method: CONNECT\n:authority: a:80\n".to_owned(), 405),
        (format!("{GET}expect: x\n"), 417),
    ] {
        let mut bare = Bare::greeted();
        let bytes = block(&fields);
        assert_eq!(bare.gets(frame(kind::HEADERS, 5, 1, &bytes)), Ok(()));
        let mut asking = bare.streams.pop_front().expect("a request");
        let fault = asking.take_head(&mut RequestHead::default()).unwrap_err();
        assert_eq!(fault.status(), status, "{fields}");
    }
}

/// Frames on the whole connection, and the reason for which it ends.
#[test]
fn what_breaks_the_rules_of_the_connection_ends_it() {
    let big = vec![0; PAYLOAD_MAX + 1];
    let get = head(1, true, GET);
    let begun = frame(kind::HEADERS, 0, 1, block(GET));
    let set = |name: u16, value: u32| {
        let payload = [&name.to_be_bytes()[..], &value.to_be_bytes()].concat();
        frame(kind::SETTINGS, 0, 0, payload)
    };
    for (what, reason) in [
        (frame(kind::DATA, 0, 1, &big), Reason::FRAME_SIZE),
        (frame(kind::DATA, 0, 0, "x"), Reason::PROTOCOL),
        (data(1, true, "x"), Reason::PROTOCOL),
        (data(2, true, "x"), Reason::PROTOCOL),
        (frame(kind::HEADERS, 5, 0, block(GET)), Reason::PROTOCOL),
        (head(2, true, GET), Reason::PROTOCOL),
        (frame(kind::HEADERS, 5, 1, [0x80]), Reason::COMPRESSION),
        (frame(kind::HEADERS, 0x0d, 1, [9, 0x82]), Reason::PROTOCOL),
        (frame(kind::HEADERS, 0x0d, 1, []), Reason::FRAME_SIZE),
        (frame(kind::HEADERS, 0x25, 1, [0, 0, 0, 0]), Reason::FRAME_SIZE),
        (frame(kind::PRIORITY, 0, 0, [0; 5]), Reason::PROTOCOL),
        (frame(kind::RST_STREAM, 0, 1, [0; 4]), Reason::PROTOCOL),
        (frame(kind::RST_STREAM, 0, 0, [0; 4]), Reason::PROTOCOL),
        ([&get[..], &frame(kind::RST_STREAM, 0, 1, [0; 3])].concat(), Reason::FRAME_SIZE),
        (frame(kind::SETTINGS, 0, 1, ""), Reason::PROTOCOL),
        (frame(kind::SETTINGS, 0, 0, [0; 5]), Reason::FRAME_SIZE),
        (frame(kind::SETTINGS, 1, 0, [0; 6]), Reason::FRAME_SIZE),
        (set(2, 2), Reason::PROTOCOL),
        (set(4, 1 << 31), Reason::FLOW_CONTROL),
        (set(5, 16_383), Reason::PROTOCOL),
        (set(5, 1 << 24), Reason::PROTOCOL),
        (frame(kind::PUSH_PROMISE, 4, 1, [0; 4]), Reason::PROTOCOL),
        (frame(kind::PING, 0, 1, [0; 8]), Reason::PROTOCOL),
        (frame(kind::PING, 0, 0, [0; 7]), Reason::FRAME_SIZE),
        (frame(kind::GOAWAY, 0, 1, [0; 8]), Reason::PROTOCOL),
        (frame(kind::GOAWAY, 0, 0, [0; 7]), Reason::FRAME_SIZE),
        (frame(kind::WINDOW_UPDATE, 0, 0, [0; 4]), Reason::PROTOCOL),
        (frame(kind::WINDOW_UPDATE, 0, 0, [0; 3]), Reason::FRAME_SIZE),
        (frame(kind::WINDOW_UPDATE, 0, 0, [0x7f, 255, 255, 255]), Reason::FLOW_CONTROL),
        (frame(kind::WINDOW_UPDATE, 0, 1, [0, 0, 0, 1]), Reason::PROTOCOL),
        (frame(kind::CONTINUATION, 4, 1, block(GET)), Reason::PROTOCOL),
        ([&begun[..], &frame(kind::PING, 0, 0, [0; 8])].concat(), Reason::PROTOCOL),
        ([&begun[..], &frame(kind::CONTINUATION, 4, 3, "")].concat(), Reason::PROTOCOL),
        (frame(kind::PRIORITY_UPDATE, 0, 1, [0; 4]), Reason::PROTOCOL),
        (frame(kind::PRIORITY_UPDATE, 0, 0, [0; 3]), Reason::FRAME_SIZE),
    ] {
        let mut bare = Bare::greeted();
        assert_eq!(bare.gets(&what), Err(reason), "{what:x?}");
    }
    let mut bare = Bare::new();
    assert_eq!(bare.gets(get), Err(Reason::PROTOCOL), "settings come first");
}

/// Frames of one stream that end it, and leave the others.
#[test]
fn what_breaks_the_rules_of_a_stream_ends_that_stream() {
    let post = GET.replace("GET", "POST");
    let (open, sized) = (head(1, false, &post), format!("{post}content-length: 3\n"));
    let sized = head(1, false, &sized);
    let update = |by: u32| frame(kind::WINDOW_UPDATE, 0, 1, by.to_be_bytes());
    for (what, reason) in [
        ([&sized[..], &data(1, false, "four")].concat(), 1),
        ([&sized[..], &data(1, true, "tw")].concat(), 1),
        ([&sized[..], &head(1, true, "x: y")].concat(), 1),
        ([&open[..], &data(1, true, "x"), &data(1, false, "y")].concat(), 5),
        ([&open[..], &head(1, false, "x: y")].concat(), 1),
        ([&open[..], &head(1, true, "X: y")].concat(), 1),
        ([&open[..], &head(1, true, ":path: /")].concat(), 1),
        ([&open[..], &update(0)].concat(), 1),
        ([&open[..], &update(0x7fff_ffff)].concat(), 3),
        ([&open[..], &frame(kind::PRIORITY, 0, 1, [0; 4])].concat(), 6),
    ] {
        let mut bare = Bare::greeted();
        assert_eq!(bare.gets(&what), Ok(()), "{what:x?}");
        assert_eq!(bare.sent().last(), Some(&format!("1 reset {reason}")), "{what:x?}");
        assert_eq!(bare.gets(head(3, true, GET)), Ok(()));
        assert!(bare.streams.pop_back().is_some());
    }
}

/// RFC 9113 §6.9: each byte that may be sent is said to be, and no other is taken.
#[test]
fn windows_are_kept_and_what_was_taken_may_come_again() {
    let post = GET.replace("GET", "POST");
    let piece = vec![7; PAYLOAD_MAX];
    let mut bare = Bare::greeted();
    assert_eq!(bare.gets(head(1, false, &post)), Ok(()));
    for _ in 0..3 {
        assert_eq!(bare.gets(data(1, false, &piece)), Ok(()));
    }
    assert_eq!(bare.gets(data(1, false, &piece[1..])), Ok(()), "the window is full");
    assert!(bare.sent().is_empty(), "nothing was taken");
    let (mut asking, _) = bare.request();
    let mut source = asking.body().unwrap();
    let taken = source.first().unwrap();
    assert_eq!(taken.bytes().len(), 65_535);
    assert!(bare.sent().is_empty(), "a piece on its way still counts");
    source.done(taken);
    assert_eq!(bare.sent(), ["0 window 65535", "1 window 65535"]);
    for _ in 0..3 {
        assert_eq!(bare.gets(data(1, false, &piece)), Ok(()));
    }
    assert_eq!(bare.gets(data(1, false, &piece)), Ok(()));
    assert_eq!(bare.sent(), ["1 reset 3"], "one byte too many");
    drop((asking, source));
    assert!(bare.conn.is_idle());
}

/// A block in several frames is one head; a hundred frames are an attack.
#[test]
fn a_block_may_come_in_frames_but_not_in_any_number() {
    let bytes = block(GET);
    let mut bare = Bare::greeted();
    assert_eq!(bare.gets(frame(kind::HEADERS, 1, 1, &bytes[..5])), Ok(()));
    for byte in &bytes[5..30] {
        assert_eq!(bare.gets(frame(kind::CONTINUATION, 0, 1, [*byte])), Ok(()));
    }
    assert_eq!(bare.gets(frame(kind::CONTINUATION, 4, 1, &bytes[30..])), Ok(()));
    assert_eq!(bare.request().1, "GET / HTTP/1.1\r\nhost: a\r\n");
    for piece in [&b""[..], &[0; 4_000]] {
        let mut bare = Bare::greeted();
        assert_eq!(bare.gets(frame(kind::HEADERS, 1, 1, "")), Ok(()));
        let flood = (0..100).find_map(|_| bare.gets(frame(kind::CONTINUATION, 0, 1, piece)).err());
        assert_eq!(flood, Some(Reason::ENHANCE_YOUR_CALM));
    }
}

/// Whatever frames come, valid or not: no panic, no window below zero, and in the end nothing is
/// left of any stream.
#[test]
fn arbitrary_frames_do_no_harm() {
    for seed in 0..3_000 {
        let mut rng = Rng::seeded(seed);
        let mut bare = Bare::greeted();
        let mut open: Vec<Asking> = Vec::new();
        for _ in 0..rng.below(60) {
            let id = [0, 1, 1, 3, 3, 5, 7, 9, 2, rng.next() as u32][rng.below(10) as usize];
            let sound = rng.below(3) > 0;
            let bytes = match rng.below(if sound { 6 } else { 12 }) {
                0 | 1 => head(id | 1, rng.below(2) == 0, &GET.replace("GET", "PUT")),
                2 => data(id, rng.below(4) == 0, vec![1; rng.below(3_000) as usize]),
                3 => frame(kind::WINDOW_UPDATE, 0, id, (rng.next() as u32 >> 8).to_be_bytes()),
                4 => frame(kind::RST_STREAM, 0, id, [0, 0, 0, 8]),
                5 => frame(kind::PING, 0, 0, [3; 8]),
                6 => head(id, true, "x: y"),
                _ => {
                    let payload: Vec<u8> = (0..rng.below(40)).map(|_| rng.next() as u8).collect();
                    frame(rng.below(20) as u8, rng.next() as u8, id, payload)
                }
            };
            let cut = rng.below(20) == 0;
            let bytes = if cut { &bytes[..bytes.len() / 2] } else { &bytes[..] };
            if let Err(reason) = bare.gets(bytes) {
                bare.conn.end(reason);
                break;
            }
            open.extend(bare.streams.drain(..));
            if !open.is_empty() && rng.below(3) == 0 {
                let mut asking = open.swap_remove(rng.below(open.len() as u32) as usize);
                let mut head = RequestHead::default();
                if asking.take_head(&mut head).is_ok() {
                    goes_as_meant(head);
                }
                if let Some(mut source) = asking.body().filter(|_| asking.held_body().is_none())
                    && let Ok(piece) = source.first()
                    && rng.below(2) == 0
                {
                    source.done(piece);
                }
                bare.conn.check();
            }
            let _ = bare.sent_bytes();
            bare.conn.check();
        }
        drop(open);
        drop(bare.streams.drain(..));
        assert!(bare.conn.is_idle(), "seed {seed}");
        bare.conn.broke();
        assert_eq!(Rc::strong_count(&bare.conn), 1, "seed {seed}: a stream is left");
    }
}

/// What is written for a backend is read by HTTP/1 as the same request, whole.
fn goes_as_meant(mut head: RequestHead) {
    let Ok(body) = framing::request(&head) else { return };
    let from = ForwardedFor {
        peer: b"192.0.2.1",
        trusted: false,
        scheme: b"http",
        port: b"80",
        pseudonym: b"ringway-test",
    };
    let made = MadeIds::of(1 << 80);
    if forward::request(&mut head, &from, &made) != Ok(Forward::Send) {
        return;
    }
    let (mut out, mut again) = (Vec::new(), RequestHead::default());
    write::request(&head, None, body, &mut out);
    let limits = HeadLimits { head_bytes_max: 64 << 10, fields_max: 200, ..LIMITS };
    let sent = parse::request(&out, &limits, &mut again);
    assert_eq!(sent, Ok(Parse::Done { used: out.len() }), "{}", out.escape_ascii());
    assert_eq!(framing::request(&again), Ok(body));
    let spans: [fn(&RequestHead) -> Span; 3] =
        [|head| head.target, |head| head.authority, |head| head.method_span];
    for span in spans {
        assert_eq!(again.bytes(span(&again)), head.bytes(span(&head)));
    }
}

/// Random fields with every kind of byte: what is not refused is to a backend what was meant.
#[test]
fn a_random_request_reaches_a_backend_as_meant_or_not_at_all() {
    let mut passed = 0;
    for seed in 0..20_000 {
        let mut rng = Rng::seeded(seed);
        let mut text = |of: &[&str]| -> Vec<u8> {
            let mut text = of[rng.below(of.len() as u32) as usize].as_bytes().to_vec();
            if rng.below(12) == 0 {
                let at = rng.below(text.len() as u32 + 1) as usize;
                text.insert(at, rng.next() as u8);
            }
            text
        };
        let mut fields = vec![
            (text(&[":method"]), text(&["GET", "POST", "OPTIONS", "PUT"])),
            (text(&[":scheme"]), text(&["http", "https"])),
            (text(&[":authority"]), text(&["a", "a.example:80", "[::1]"])),
            (text(&[":path"]), text(&["/", "/a?b=c", "/%2e/x", "*"])),
        ];
        for _ in 0..4 {
            fields.push((
                text(&["x", "cookie", "host", "content-length", "te", "accept", "expect", "via"]),
                text(&["a", "0", "trailers", "a=b", "1.1 x", "", "100-continue"]),
            ));
        }
        let mut block = Vec::new();
        for (name, value) in fields {
            block.push(0);
            for part in [name, value] {
                block.push(part.len() as u8);
                block.extend(part);
            }
        }
        let mut bare = Bare::greeted();
        let ends = if seed % 2 == 0 { 5 } else { 4 };
        assert_eq!(bare.gets(frame(kind::HEADERS, ends, 1, block)), Ok(()));
        if let Some(mut asking) = bare.streams.pop_front() {
            let mut head = RequestHead::default();
            if asking.take_head(&mut head).is_ok() {
                goes_as_meant(head);
                passed += 1;
            }
        }
    }
    assert!(passed > 500, "{passed}");
}

/// RFC 9218 §10, and what is said nothing of shares.
#[test]
fn streams_take_turns_and_the_urgent_go_first() {
    let mut bare = Bare::greeted();
    let windows = [&[0, 4][..], &0x7fff_ffff_u32.to_be_bytes()].concat();
    assert_eq!(bare.gets(frame(kind::SETTINGS, 0, 0, windows)), Ok(()));
    let more = frame(kind::WINDOW_UPDATE, 0, 0, 0x3fff_ffff_u32.to_be_bytes());
    assert_eq!(bare.gets(more), Ok(()));
    let mut asked = Vec::new();
    for (id, priority) in [(1, ""), (3, ""), (5, "priority: u=1"), (7, "priority: u=3")] {
        assert_eq!(bare.gets(head(id, true, &format!("{GET}{priority}"))), Ok(()));
        asked.push((bare.request().0, 0));
    }
    let body = vec![1; 100_000];
    let mut order = Vec::new();
    for _ in 0..60 {
        for (asking, sent) in &mut asked {
            if *sent < body.len() {
                *sent += bare.conn.put(asking.stream(), &body[*sent..], true).taken;
            }
        }
        let frames = bare.sent();
        order.extend(frames.iter().filter(|it| it.contains("data")).map(|it| it[..1].to_owned()));
    }
    let order = order.concat();
    // The first has all the room until others wait for it.
    let rest = order.trim_start_matches('1');
    assert!(rest.starts_with("5555555"), "{order}");
    let rest = rest.trim_start_matches('5');
    assert!(rest.starts_with("7777777"), "who does not share goes before who does: {order}");
    let rest = rest.trim_start_matches('7');
    assert!(rest.starts_with("3131") || rest.starts_with("1313"), "{order}");
    assert!(asked.iter().all(|(_, sent)| *sent == body.len()), "{order}");
}

/// The writer of fields and the reader of blocks agree with the table of words above.
#[test]
fn what_is_sent_can_be_read() {
    let mut bare = Bare::greeted();
    assert_eq!(bare.gets(head(1, true, GET)), Ok(()));
    let (asking, _) = bare.request();
    let mut fields = Vec::new();
    hpack::status(204, &mut fields);
    hpack::field(b"Server", b"x", &mut fields);
    bare.conn.put_block(asking.stream(), &fields, true);
    assert_eq!(bare.sent(), ["1 head :status=204 server=x end"]);
    drop(asking);
    assert!(bare.sent().is_empty(), "a whole exchange leaves nothing behind");
}

/// Each kind of flood, and what it is called.
#[test]
fn floods_end_the_connection_for_what_they_are() {
    let post = GET.replace("GET", "POST");
    let one = |kind, id, payload: &[u8]| frame(kind, 0, id, payload);
    let settings = one(kind::SETTINGS, 0, b"");
    let update = one(kind::WINDOW_UPDATE, 0, &[0, 0, 0, 1]);
    type Flood = Box<dyn Fn(u32) -> Vec<u8>>;
    let same = |frame: Vec<u8>| -> Flood { Box::new(move |_| frame.clone()) };
    let large = format!("{GET}{}", "x: y\n".repeat(30));
    let floods: [(Abuse, Flood); 12] = [
        (
            Abuse::Resets,
            Box::new(|n| {
                let id = 2 * n + 3;
                [head(id, true, GET), frame(kind::RST_STREAM, 0, id, [0, 0, 0, 8])].concat()
            }),
        ),
        (Abuse::Provoked, Box::new(|n| head(2 * n + 3, true, "x: y"))),
        (
            Abuse::Provoked,
            Box::new(move |n| {
                let id = 2 * n + 3;
                let update = frame(kind::WINDOW_UPDATE, 0, id, [0; 4]);
                [head(id, false, &post), update].concat()
            }),
        ),
        (Abuse::Heads, Box::new(move |n| head(2 * n + 3, true, &large))),
        (Abuse::Settings, same(settings)),
        (Abuse::Pings, same(one(kind::PING, 0, &[7; 8]))),
        (Abuse::Priorities, same(one(kind::PRIORITY, 1, &[0; 5]))),
        (Abuse::Priorities, same(one(kind::PRIORITY_UPDATE, 0, b"\0\0\0\x01u=1"))),
        (Abuse::WindowUpdates, same(update)),
        (Abuse::EmptyData, same(data(1, false, ""))),
        (Abuse::Useless, same(one(99, 7, b"what"))),
        (Abuse::Useless, same(one(kind::RST_STREAM, 1, &[0, 0, 0, 8]))),
    ];
    for (expected, flood) in floods {
        let mut bare = Bare::greeted();
        assert_eq!(bare.gets(head(1, false, &GET.replace("GET", "POST"))), Ok(()));
        let mut ended = None;
        for number in 0..3_000 {
            if let Err(reason) = bare.gets(flood(number)) {
                ended = Some(reason);
                break;
            }
            bare.streams.clear();
            let _ = bare.sent_bytes();
        }
        assert_eq!(ended, Some(Reason::ENHANCE_YOUR_CALM), "{expected:?}");
        assert_eq!(bare.conn.abuse(), Some(expected));
    }
}

/// Whatever fills a buffer of 64 KiB, it is taken in parts, and all of it in the end.
#[test]
fn a_turn_takes_a_bounded_part_of_what_has_come() {
    const LINE: &str = concat!(
        "x: 0123456789012345678901234567890123456789012345678901234567890",
        "123456789012345678901234567890123456789012345678901234567\n"
    );
    let heads = |count, fields: &str| -> Vec<u8> {
        (0..count).flat_map(|n| head(2 * n + 1, true, fields)).collect()
    };
    let requests = heads(100, GET);
    let large = heads(30, &format!("{GET}{}", LINE.repeat(12)));
    let post = head(1, false, &GET.replace("GET", "POST"));
    let small = [post.clone(), data(1, false, "x").repeat(1_500)].concat();
    let body = [post, data(1, false, "x".repeat(15_000)).repeat(4)].concat();
    let cases = [(small, 2, 1), (requests, 1, 100), (large, 2, 30), (body, 1, 1)];
    for (bytes, turns, streams) in cases {
        let mut bare = Bare::greeted();
        bare.rest = bytes;
        let mut taken = 0;
        while bare.conn.has_frame(&bare.rest) {
            assert!(bare.turn().unwrap() > 0);
            bare.streams.extend(std::iter::from_fn(|| bare.conn.next(&bare.peer)));
            let _ = bare.sent_bytes();
            taken += 1;
        }
        assert_eq!((taken, bare.streams.len(), bare.rest.len()), (turns, streams, 0));
    }
}

/// A request that its client leaves before it has an answer, or that it gives no room for one.
#[test]
fn what_a_client_begins_for_nothing_is_counted_against_what_it_lets_be_answered() {
    let leaves = |bare: &mut Bare| bare.gets(frame(kind::RST_STREAM, 0, 1, [0, 0, 0, 8]));
    let breaks = |bare: &mut Bare| bare.gets(frame(kind::WINDOW_UPDATE, 0, 1, [0; 4]));
    let hangs_up = |bare: &mut Bare| {
        bare.conn.has_left();
        bare.conn.broke();
        Ok(())
    };
    type Ends<'a> = &'a dyn Fn(&mut Bare) -> Result<(), Reason>;
    let ends: [Ends<'_>; 3] = [&leaves, &breaks, &hangs_up];
    for (place, ends) in ends.into_iter().enumerate() {
        let mut bare = Bare::greeted();
        assert_eq!(bare.gets(head(1, true, GET)), Ok(()));
        assert_eq!(bare.conn.waste(), 0);
        ends(&mut bare).unwrap();
        assert_eq!(bare.conn.waste(), 1, "{place}");
        // With an answer that is on its way it is no waste to leave it, if it had room.
        for (room, wasted) in [(1, 0), (0, 1)] {
            let mut bare = Bare::greeted();
            let window = frame(kind::SETTINGS, 0, 0, [0, 4, 0, 0, 0, room]);
            assert_eq!(bare.gets(window), Ok(()));
            assert_eq!(bare.gets(head(1, true, GET)), Ok(()));
            let (asking, _) = bare.request();
            bare.conn.put_block(&asking.stream, b"x", false);
            ends(&mut bare).unwrap();
            let wasted = if place == 1 { 1 } else { wasted };
            assert_eq!(bare.conn.waste(), wasted, "{place}, room {room}");
        }
        // What was answered excuses as much.
        let mut bare = Bare::greeted();
        assert_eq!(bare.gets(head(3, true, GET)), Ok(()));
        let (answered, _) = bare.request();
        bare.conn.put_block(&answered.stream, b"x", true);
        assert_eq!(bare.gets(head(5, true, GET)), Ok(()));
        bare.conn.has_left();
        assert_eq!(bare.conn.waste(), 0);
    }
    // An answer that came before the request was whole excuses nothing.
    let post = GET.replace("GET", "POST");
    for (ends, wasted) in [(false, 1), (true, 0)] {
        let mut bare = Bare::greeted();
        assert_eq!(bare.gets(head(1, false, &post)), Ok(()));
        let (asking, _) = bare.request();
        bare.conn.put_block(&asking.stream, b"x", true);
        if ends {
            assert_eq!(bare.gets(data(1, true, "x")), Ok(()));
        }
        bare.conn.has_left();
        assert_eq!(bare.conn.waste(), wasted, "{ends}");
    }
    let mut bare = Bare::greeted();
    let large = format!("{GET}{}", "x: y\n".repeat(30));
    assert_eq!(bare.gets(head(1, true, &large)), Ok(()));
    assert!(bare.conn.waste() > 1, "it was read to its end");
}

/// What a client that leaves has under way is given up one by one, and says nothing any more.
#[test]
fn what_is_under_way_at_the_end_waits_to_be_given_up() {
    let mut bare = Bare::greeted();
    for id in [1, 3, 5] {
        assert_eq!(bare.gets(head(id, false, &GET.replace("GET", "POST"))), Ok(()));
    }
    let asked: Vec<Asking> = (0..3).map(|_| bare.request().0).collect();
    assert_eq!(bare.gets(data(1, false, "x".repeat(1_000))), Ok(()));
    bare.conn.end(Reason::NO_ERROR);
    assert_eq!(bare.sent(), ["goaway 5 0"]);
    bare.conn.has_left();
    assert_eq!(bare.conn.waste(), 0, "we have ended it");
    let open = || asked.iter().filter(|asking| !asking.stream.is_over()).count();
    for left in (0..3).rev() {
        // What still runs may not say any more.
        bare.conn.put_block(&asked[0].stream, b"x", false);
        assert!(!bare.conn.put(&asked[0].stream, b"x", true).is_done);
        assert!(bare.conn.has_streams());
        bare.conn.gives_up();
        assert_eq!(open(), left);
    }
    assert!(!bare.conn.has_streams());
    drop(asked);
    assert!(bare.conn.is_idle() && bare.sent().is_empty());
    bare.conn.broke();
    assert_eq!(Rc::strong_count(&bare.conn), 1, "a stream is left");
    // One that is dropped before its turn is reset by nobody.
    let mut bare = Bare::greeted();
    assert_eq!(bare.gets(head(1, true, GET)), Ok(()));
    let (asking, _) = bare.request();
    bare.conn.end(Reason::NO_ERROR);
    assert_eq!(bare.sent(), ["goaway 1 0"]);
    drop(asking);
    assert!(bare.sent().is_empty(), "what was said was the last");
    assert!(!bare.conn.has_streams());
}

/// Places are given back when tasks end, and with what no task has had.
#[test]
fn streams_take_places_and_give_them_back() {
    let places = Rc::new(Places::default());
    let mut bare = Bare::with(places.share(None, 3)).after_settings();
    let requests: Vec<u8> = (0..4).flat_map(|n| head(2 * n + 1, true, GET)).collect();
    assert_eq!(bare.gets(requests), Ok(()));
    assert_eq!((bare.streams.len(), bare.sent()), (3, vec!["7 reset 7".to_owned()]));
    bare.streams.pop_front();
    bare.rest = [head(9, true, GET), head(11, true, GET)].concat();
    assert!(bare.turn().is_ok());
    assert_eq!(bare.sent().last().map(String::as_str), Some("11 reset 7"));
    bare.conn.broke();
    bare.streams.clear();
    let mut other = Bare::with(places.share(None, 3)).after_settings();
    let requests: Vec<u8> = (0..4).flat_map(|n| head(2 * n + 1, true, GET)).collect();
    assert_eq!(other.gets(requests), Ok(()));
    assert_eq!(other.streams.len(), 3, "all were given back");
}

/// RFC 9113 §6.8: in two steps, since requests are on their way when it is said.
#[test]
fn a_connection_that_has_had_its_requests_takes_those_on_their_way_and_no_more() {
    let mut bare = Bare::greeted();
    let last = 2 * REQUESTS_MAX + 1;
    assert_eq!(bare.gets(head(last - 2, true, GET)), Ok(()));
    assert!(bare.sent().is_empty());
    assert_eq!(bare.gets(head(last, true, GET)), Ok(()));
    assert_eq!(bare.sent(), ["goaway 2147483647 0", "ping 0 ringway\0"]);
    assert_eq!(bare.gets(head(last + 2, true, GET)), Ok(()));
    assert_eq!(bare.streams.len(), 3, "it was on its way");
    assert_eq!(bare.gets(frame(kind::PING, flag::ACK, 0, "ringway\0")), Ok(()));
    assert_eq!(bare.sent(), [format!("goaway {} 0", last + 2)]);
    assert_eq!(bare.gets(head(last + 4, true, GET)), Ok(()));
    assert_eq!(bare.streams.len(), 3, "its number says that it was not served");
}
