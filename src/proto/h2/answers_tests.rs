//! Tests of a connection to a backend, frame by frame, without input and output.
//!
//! Like `conn_tests`, for the other end: what is to be sent is taken from the state, and a wait is
//! a future that is polled once.

use std::{
    cell::Cell,
    future::Future,
    pin::pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use super::{
    Backend, Bell, Conn, PREFACE, Reason,
    conn_tests::{block, data, frame, head, words},
    frame::{flag, kind},
};
use crate::base::{
    ids::{BackendId, PoolId},
    moment::{Deadline, Tick},
    rng::Rng,
};
use crate::http::{
    fault::{Cause, Fault},
    framing,
    head::{RequestHead, ResponseHead},
    parse::{self, HeadLimits},
};
use crate::net::{
    buffer::Buffers,
    clock::Clock,
    deadlines::{Deadlines, Watch},
    leaving::{ForClient, Leaves},
};
use crate::proto::{Arriving, Asking};

const LIMITS: HeadLimits =
    HeadLimits { head_bytes_max: 4 << 10, line_bytes_max: 2 << 10, fields_max: 20 };

/// A connection to a backend.
struct Bare {
    conn: Rc<Conn>,
    buffers: Rc<Buffers>,
    client: ForClient,
    rest: Vec<u8>,
}

impl Bare {
    fn new() -> Bare {
        let buffers = Buffers::new(4);
        let deadlines = Deadlines::new(Rc::new(Clock::new()));
        let conn = Conn::to_backend(&buffers, &deadlines, &LIMITS, &Rc::<Bell>::default());
        let client = deadlines.watch(-1, Watch::Stream).waits_as_stream(Leaves::Reset);
        let mut bare = Bare { conn, buffers, client, rest: Vec::new() };
        assert!(bare.sent_bytes().starts_with(PREFACE));
        bare
    }

    /// One whose backend has said how it speaks.
    fn greeted() -> Bare {
        let mut bare = Bare::new();
        assert_eq!(bare.gets(frame(kind::SETTINGS, 0, 0, "")), Ok(()));
        bare.sent();
        bare
    }

    fn gets(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), Reason> {
        self.rest.extend_from_slice(bytes.as_ref());
        let (used, result) = self.conn.receive(&self.rest, &LIMITS, (Tick::from_millis(1), None));
        self.rest.drain(..used);
        result
    }

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

    fn reserve(&self) -> Backend {
        Backend::new(self.conn.reserve((PoolId(0), BackendId(0))), b"http")
    }

    /// Sends a request; its head is that of HTTP/1.
    fn asks(&self, backend: &mut Backend, text: &str, body: &str) -> Result<bool, Fault> {
        let mut request = RequestHead::default();
        parse::request(format!("{text}\r\n\r\n").as_bytes(), &LIMITS, &mut request).unwrap();
        let asking = Asking {
            length: framing::request(&request).unwrap(),
            head: &request,
            host: None,
            before: None,
            held: Some(body.as_bytes()),
            body_follows: false,
        };
        let mut room = Vec::new();
        now(backend.ask(&asking, &mut room, || Deadline::NEVER)).expect("it waits")
    }

    /// A request that was sent.
    fn asked(&mut self) -> Backend {
        let mut backend = self.reserve();
        assert_eq!(self.asks(&mut backend, "GET / HTTP/1.1\r\nHost: a", ""), Ok(true));
        self.sent();
        backend
    }

    /// The next head of its answer, if that has come or will not.
    fn answer(&self, backend: &Backend) -> Option<Result<ResponseHead, Cause>> {
        let mut head = ResponseHead::default();
        let (by, client) = (Cell::new(Deadline::NEVER), Cell::new(self.client));
        let mut arriving = Arriving::new(false);
        let read = now(backend.head(&mut arriving, &mut head, (&by, &client)))?;
        Some(read.map(|()| head).map_err(|fault| fault.cause))
    }

    fn fails(&self, backend: &Backend) -> Option<Cause> {
        self.answer(backend).and_then(Result::err)
    }
}

/// What a future has at once.
fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// RFC 9113 §8.3.1, §8.2.2.
#[test]
fn a_request_is_written_as_its_standard_wants_it() {
    let mut bare = Bare::greeted();
    let mut backend = bare.reserve();
    let text = "POST /a?b HTTP/1.1\r\nHost: x:1\r\nContent-Length: 2\r\nConnection: te\r\n\
                TE: trailers\r\nKeep-Alive: 5\r\nUpgrade: y\r\nX-Own: Z";
    assert_eq!(bare.asks(&mut backend, text, "ab"), Ok(true));
    let head = "1 head :method=POST :scheme=http :authority=x:1 :path=/a?b x-own=Z te=trailers \
                content-length=2";
    assert_eq!(bare.sent(), [head, "1 data \"ab\" end"]);
}

/// RFC 9113 §5.1.1.
#[test]
fn numbers_grow_in_the_order_of_the_wire() {
    let mut bare = Bare::greeted();
    let (mut one, mut two) = (bare.reserve(), bare.reserve());
    assert!(!one.is_reused() && two.is_reused());
    assert_eq!(bare.asks(&mut two, "GET /two HTTP/1.1\r\nHost: a", ""), Ok(true));
    assert_eq!(bare.asks(&mut one, "GET /one HTTP/1.1\r\nHost: a", ""), Ok(true));
    let path = |at: usize, sent: &[String]| sent[at].split("path=").nth(1).unwrap().to_owned();
    let sent = bare.sent();
    assert!(sent[0].starts_with("1 head") && path(0, &sent) == "/two end", "{sent:?}");
    assert!(sent[1].starts_with("3 head") && path(1, &sent) == "/one end", "{sent:?}");
}

#[test]
fn answers_come_in_order_and_a_body_has_the_line_that_http_1_needs() {
    let mut bare = Bare::greeted();
    let backend = bare.asked();
    assert!(bare.answer(&backend).is_none() && !backend.has_begun());
    bare.gets(head(1, false, ":status: 103\nlink: x\n")).unwrap();
    bare.gets(head(1, false, ":status: 200\nserver: s\n")).unwrap();
    bare.gets(data(1, false, "body")).unwrap();
    let text = |head: ResponseHead| {
        let text = String::from_utf8(head.headers.bytes).unwrap();
        text.split_once("\r\n").unwrap().1.to_owned()
    };
    let interim = bare.answer(&backend).unwrap().unwrap();
    assert_eq!((interim.status, text(interim)), (103, "link: x\r\n".to_owned()));
    let last = bare.answer(&backend).unwrap().unwrap();
    assert_eq!(text(last), "server: s\r\ntransfer-encoding: chunked\r\n");
    let mut source = backend.source();
    let piece = source.first().unwrap();
    assert!(piece.bytes() == b"body" && !piece.ends());
    source.done(piece);
    bare.gets(head(1, true, "stamp: 1\n")).unwrap();
    let piece = source.first().unwrap();
    assert!(piece.ends() && piece.has_trailers());
    source.done(piece);
    // One that has come whole has a length, and one that is not there has none.
    for (frames, expected) in [
        (vec![head(3, false, ":status: 200\n"), data(3, true, "abc")], "content-length: 3\r\n"),
        (vec![head(5, true, ":status: 200\n")], "content-length: 0\r\n"),
        (vec![head(7, true, ":status: 204\n")], ""),
        (vec![head(9, true, ":status: 304\n")], ""),
    ] {
        let backend = bare.asked();
        bare.gets(frames.concat()).unwrap();
        assert_eq!(text(bare.answer(&backend).unwrap().unwrap()), expected);
    }
    drop((backend, source));
    assert!(bare.conn.is_idle());
    bare.conn.check();
}

#[test]
fn there_is_room_when_the_backend_has_said_so_and_for_as_many_as_it_takes() {
    let mut bare = Bare::new();
    assert!(!bare.conn.has_room(), "nothing is asked before its settings");
    bare.gets(frame(kind::SETTINGS, 0, 0, [0, 3, 0, 0, 0, 2])).unwrap();
    let one = bare.asked();
    assert!(bare.conn.has_room());
    let two = bare.reserve();
    assert!(!bare.conn.has_room());
    drop(two);
    assert!(bare.conn.has_room(), "a place that was not used is free");
    bare.gets(head(1, true, ":status: 200\n")).unwrap();
    drop(one);
    assert!(bare.sent().iter().all(|it| !it.contains("reset")), "its answer was whole");
    // However many it takes.
    bare.gets(frame(kind::SETTINGS, 0, 0, [0, 3, 255, 255, 255, 255])).unwrap();
    let many: Vec<Backend> = (0..100).map(|_| bare.asked()).collect();
    assert!(!bare.conn.has_room());
    drop(many);
    let sent = bare.sent();
    assert!(sent.len() == 100 && sent.iter().all(|it| it.ends_with("reset 8")), "{sent:?}");
}

/// RFC 9113 §8.7, §6.8.
#[test]
fn what_the_backend_has_not_processed_is_said_to_be_so() {
    let mut bare = Bare::greeted();
    let all: Vec<Backend> = (0..4).map(|_| bare.asked()).collect();
    let mut late = bare.reserve();
    bare.gets(frame(kind::RST_STREAM, 0, 1, [0, 0, 0, 7])).unwrap();
    bare.gets(frame(kind::RST_STREAM, 0, 3, [0, 0, 0, 2])).unwrap();
    bare.gets(frame(kind::GOAWAY, 0, 0, [0, 0, 0, 5, 0, 0, 0, 0])).unwrap();
    let faults: Vec<Option<Cause>> = all.iter().map(|one| bare.fails(one)).collect();
    let unprocessed = Some(Cause::BackendUnprocessed);
    assert_eq!(faults, [unprocessed, Some(Cause::BackendReset), None, unprocessed]);
    assert!(!bare.conn.has_room() && bare.conn.is_spent());
    let asked = bare.asks(&mut late, "GET / HTTP/1.1\r\nHost: a", "");
    assert_eq!(asked.map_err(|fault| fault.cause), Err(Cause::BackendUnprocessed));
    bare.gets(head(5, true, ":status: 200\n")).unwrap();
    assert_eq!(bare.answer(&all[2]).unwrap().unwrap().status, 200);
}

#[test]
fn of_a_connection_that_breaks_one_stream_says_so_of_the_backend() {
    let mut bare = Bare::greeted();
    let all: Vec<Backend> = (0..4).map(|_| bare.asked()).collect();
    bare.gets(head(7, true, ":status: 200\n")).unwrap();
    bare.conn.broke();
    let faults: Vec<Option<Cause>> = all.iter().map(|one| bare.fails(one)).collect();
    let (reset, stale) = (Some(Cause::BackendReset), Some(Cause::BackendStale));
    assert_eq!(faults, [reset, stale, stale, None]);
    // What breaks a rule is a broken rule.
    let mut bare = Bare::greeted();
    let all = [bare.asked(), bare.asked()];
    let reason = bare.gets(frame(kind::DATA, 0, 0, "x")).unwrap_err();
    bare.conn.blames(Cause::BackendProtocol);
    bare.conn.end(reason);
    assert_eq!(all.each_ref().map(|one| bare.fails(one)), [Some(Cause::BackendProtocol), stale]);
    // It was closing while the request was on its way.
    let mut bare = Bare::greeted();
    drop(bare.asked());
    bare.gets(frame(kind::PING, 0, 0, [1; 8])).unwrap();
    let one = bare.asked();
    bare.conn.broke();
    assert_eq!(bare.fails(&one), stale);
}

#[test]
fn an_answer_that_breaks_a_rule_ends_its_stream() {
    for frames in [
        head(1, true, ":status: 103\n"),
        head(1, false, ":status: 101\n"),
        head(1, false, "x: y\n"),
        head(1, true, ":status: 200\ncontent-length: 5\n"),
        head(1, false, ":status: 200\ncontent-length: x\n"),
        data(1, false, "body"),
        [head(1, false, ":status: 200\n"), head(1, false, ":status: 200\n")].concat(),
        [head(1, false, ":status: 200\ncontent-length: 1\n"), data(1, true, "ab")].concat(),
        (0..40).flat_map(|_| head(1, false, ":status: 103\n")).collect(),
    ] {
        let mut bare = Bare::greeted();
        let backend = bare.asked();
        assert_eq!(bare.gets(&frames), Ok(()), "{frames:x?}");
        let sent = bare.sent();
        assert!(sent.iter().any(|it| it.starts_with("1 reset")), "{sent:?} for {frames:x?}");
        while let Some(Ok(_)) = bare.answer(&backend) {}
        assert_eq!(bare.fails(&backend), Some(Cause::ResponseRefused), "{frames:x?}");
        assert!(bare.asked().keeps(), "the connection goes on");
    }
    for frames in [
        head(3, true, ":status: 200\n"),
        head(2, true, ":status: 200\n"),
        frame(kind::PUSH_PROMISE, 4, 1, [0, 0, 0, 2]),
        frame(kind::HEADERS, flag::END_HEADERS, 1, [0x80]),
    ] {
        let mut bare = Bare::greeted();
        let _backend = bare.asked();
        assert!(bare.gets(&frames).is_err(), "{frames:x?}");
    }
}

#[test]
fn a_body_waits_for_room_and_an_answer_ends_the_wait() {
    let mut bare = Bare::new();
    // A first window of ten bytes.
    bare.gets(frame(kind::SETTINGS, 0, 0, [0, 4, 0, 0, 0, 10])).unwrap();
    bare.sent();
    let mut backend = bare.reserve();
    let mut request = RequestHead::default();
    let text = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 24\r\n\r\n";
    parse::request(text, &LIMITS, &mut request).unwrap();
    let asking = Asking {
        length: framing::request(&request).unwrap(),
        head: &request,
        host: None,
        before: Some((b"before", false)),
        held: Some(b"and what was held."),
        body_follows: false,
    };
    let mut room = Vec::new();
    {
        let mut asked = pin!(backend.ask(&asking, &mut room, || Deadline::NEVER));
        let mut looks = || asked.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(looks().is_pending());
        assert_eq!(bare.sent()[1..], ["1 data \"before\"", "1 data \"and \""]);
        bare.gets(frame(kind::WINDOW_UPDATE, 0, 1, 4_u32.to_be_bytes())).unwrap();
        assert!(looks().is_pending());
        assert_eq!(bare.sent(), ["1 data \"what\""]);
        bare.gets(head(1, true, ":status: 413\n")).unwrap();
        assert_eq!(looks(), Poll::Ready(Ok(true)));
    }
    assert_eq!(bare.answer(&backend).unwrap().unwrap().status, 413);
    drop(backend);
    assert_eq!(bare.sent(), ["1 reset 8"]);
}

/// Arbitrary frames: nothing panics, what they make us hold is bounded, every stream ends.
#[test]
fn arbitrary_frames_do_no_harm() {
    for seed in 0..3_000 {
        let mut rng = Rng::seeded(seed);
        let mut bare = Bare::greeted();
        let mut open: Vec<Backend> = Vec::new();
        for _ in 0..rng.below(60) {
            if rng.below(3) == 0 && bare.conn.has_room() {
                let mut backend = bare.reserve();
                let method = ["GET", "HEAD", "POST"][rng.below(3) as usize];
                let text = format!("{method} / HTTP/1.1\r\nHost: a");
                assert!(bare.asks(&mut backend, &text, "").is_ok());
                open.push(backend);
            }
            let id = [0, 1, 1, 3, 3, 5, 7, 9, 2, rng.next() as u32][rng.below(10) as usize];
            let status = ["100", "200", "204", "304", "500"][rng.below(5) as usize];
            let sound = rng.below(3) > 0;
            let bytes = match rng.below(if sound { 6 } else { 12 }) {
                0 | 1 => head(id | 1, rng.below(3) == 0, &format!(":status: {status}\n")),
                2 => data(id, rng.below(4) == 0, vec![1; rng.below(3_000) as usize]),
                3 => frame(kind::WINDOW_UPDATE, 0, id, (rng.next() as u32 >> 8).to_be_bytes()),
                4 => frame(kind::RST_STREAM, 0, id, [0, 0, 0, 8]),
                5 => frame(kind::GOAWAY, 0, 0, [0, 0, 0, rng.below(12) as u8, 0, 0, 0, 0]),
                6 => frame(kind::HEADERS, 4, id, block("x: y\n")),
                _ => {
                    let payload: Vec<u8> = (0..rng.below(40)).map(|_| rng.next() as u8).collect();
                    frame(rng.below(20) as u8, rng.next() as u8, id, payload)
                }
            };
            if let Err(reason) = bare.gets(bytes) {
                bare.conn.end(reason);
                break;
            }
            if !open.is_empty() && rng.below(3) == 0 {
                let backend = open.swap_remove(rng.below(open.len() as u32) as usize);
                if let Some(Ok(_)) = bare.answer(&backend)
                    && let Ok(piece) = backend.source().first()
                    && rng.below(2) == 0
                {
                    backend.source().done(piece);
                }
            }
            let _ = bare.sent_bytes();
            bare.conn.check();
        }
        bare.conn.broke();
        for backend in open.drain(..) {
            let mut came = 0;
            while let Some(Ok(_)) = bare.answer(&backend) {
                came += 1;
            }
            assert!(came < 40, "seed {seed}");
        }
        assert!(bare.conn.is_idle(), "seed {seed}");
        assert_eq!(Rc::strong_count(&bare.conn), 1, "seed {seed}: a stream is left");
    }
}
