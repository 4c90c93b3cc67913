//! Plays of bodies: every framing in both directions, streamed, with trailers, or absent.
//!
//! Well-behaved peers only; bodies that break the rules are in `smuggling.rs` and
//! `misbehaviour.rs`, random bodies in `random.rs`.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::{
    backend::{Script, plays},
    client::{Client, get, post},
    scripts::{answers, answers_each, chunk, close_delimited, echoes, ok, sends},
    stage::{Driver, Stage, has_http_2, settled},
    wire::Framing,
};

on_both_drivers!(
    bodies_with_a_length_pass_both_ways,
    chunked_bodies_pass_both_ways,
    chunks_are_written_anew,
    a_body_that_ends_by_closing_becomes_chunked,
    trailers_of_an_answer_are_relayed,
    trailers_of_a_request_are_relayed,
    trailers_cannot_smuggle_framing,
    the_answer_to_a_head_has_no_body,
    an_answer_without_content_has_no_body,
    an_answer_not_modified_has_no_body,
    one_length_said_twice_is_one,
    a_get_may_have_a_body,
    both_bodies_flow_at_once,
    a_large_answer_passes_whole,
    a_slow_reader_slows_the_backend,
);

// Without those where the bridge reads ahead.
over_tls!(
    bodies_with_a_length_pass_both_ways,
    chunked_bodies_pass_both_ways,
    chunks_are_written_anew,
    a_body_that_ends_by_closing_becomes_chunked,
    trailers_of_an_answer_are_relayed,
    trailers_of_a_request_are_relayed,
    trailers_cannot_smuggle_framing,
    the_answer_to_a_head_has_no_body,
    an_answer_without_content_has_no_body,
    an_answer_not_modified_has_no_body,
    one_length_said_twice_is_one,
    a_get_may_have_a_body,
    both_bodies_flow_at_once,
    a_large_answer_passes_whole,
);

// Without those that are about how HTTP/1 writes a body.
over_http_2!(
    bodies_with_a_length_pass_both_ways,
    chunked_bodies_pass_both_ways,
    a_body_that_ends_by_closing_becomes_chunked,
    trailers_of_an_answer_are_relayed,
    trailers_of_a_request_are_relayed,
    the_answer_to_a_head_has_no_body,
    an_answer_without_content_has_no_body,
    an_answer_not_modified_has_no_body,
    a_get_may_have_a_body,
    both_bodies_flow_at_once,
    a_large_answer_passes_whole,
    ; behind:
    trailers_cannot_smuggle_framing,
    a_slow_reader_slows_the_backend,
);

fn bodies_with_a_length_pass_both_ways(driver: Driver) {
    let stage = Stage::on(driver).backend(echoes()).start();
    let mut client = stage.connect();
    for size in [0, 1, 100, 4_095, 16_384, 65_537, 300_000] {
        let body = text(size);
        client.send(post("/", &body));
        let response = client.response();
        assert_eq!(response.framing, Framing::Length(size as u64));
        assert!(response.text() == body, "another body of {} bytes", response.body.len());
    }
    assert_eq!(stage.backend(0).visits(), 1);
}

fn chunked_bodies_pass_both_ways(driver: Driver) {
    let stage = Stage::on(driver).backend(echoes()).start();
    let mut client = stage.connect();
    for sizes in [vec![], vec![1], vec![3, 1, 4, 1, 5], vec![70_000], vec![20_000; 20]] {
        let body: String = sizes.iter().map(|size| text(*size)).collect();
        send_in_chunks(&mut client, &sizes);
        let response = client.response();
        assert!(response.framing == Framing::Chunked || has_http_2());
        assert!(response.text() == body, "another body of {} bytes", response.body.len());
    }
    assert_eq!(stage.backend(0).visits(), 1);
}

fn chunks_are_written_anew(driver: Driver) {
    let odd = "HTTP/1.1 200 OK\r\nTransfer-Encoding: CHUNKED\r\n\r\n\
               0003;a=b;c=\"d\"\r\nabc\r\n00A\r\n0123456789\r\n000;last\r\n\r\n";
    let stage = Stage::on(driver).backend(sends(odd)).start();
    let mut client = stage.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n");
    client.send("0004;extension\r\nbody\r\n0\r\n\r\n");
    // Either side reads strictly: an extension passed on would fail here.
    client.response().expect(200, "abc0123456789");
    let request = stage.last_request();
    assert_eq!((request.framing, request.body.as_slice()), (Framing::Chunked, &b"body"[..]));
    assert!(!stage.backend(0).heard().contains("extension"));
}

fn a_body_that_ends_by_closing_becomes_chunked(driver: Driver) {
    let stage = Stage::on(driver).backend(close_delimited("until the end")).start();
    let mut client = stage.connect();
    for _ in 0..3 {
        let response = client.get("/");
        response.expect(200, "until the end");
        assert!(response.framing == Framing::Chunked || has_http_2());
    }
    assert_eq!(stage.backend(0).visits(), 3);
}

fn trailers_of_an_answer_are_relayed(driver: Driver) {
    let raw = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, X-More\r\n\r\n\
               3\r\nabc\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n";
    let stage = Stage::on(driver).backend(sends(raw)).start();
    let mut client = stage.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n");
    let response = client.response();
    response.expect(200, "abc");
    assert_eq!(response.field("trailer"), Some("X-Sum, X-More"));
    assert_eq!(named(&response.trailers), ["x-sum: 1", "x-more: 2"]);
    let request = stage.last_request();
    assert_eq!(request.field("te"), Some("trailers"));
    assert!(request.head.lists("connection", "te"));
    client.send(get("/again")).response().expect(200, "abc");
}

fn trailers_of_a_request_are_relayed(driver: Driver) {
    let stage = Stage::on(driver).backend(answers("thanks")).start();
    let mut client = stage.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send("3\r\nabc\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n");
    client.response().expect(200, "thanks");
    let request = stage.last_request();
    assert_eq!(request.body, b"abc");
    assert_eq!(named(&request.trailers), ["x-sum: 1", "x-more: 2"]);
}

fn trailers_cannot_smuggle_framing(driver: Driver) {
    let stage = Stage::on(driver).backend(answers("thanks")).start();
    for (trailer, status) in [
        ("Content-Length: 5", 200),
        ("Transfer-Encoding: chunked", 200),
        ("Host: b", 200),
        ("Via: 1.1 x", 200),
        ("Content-Length : 5", 400),
    ] {
        let mut client = stage.connect();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send(format!("3\r\nabc\r\n0\r\n{trailer}\r\nX-Sum: 1\r\n\r\n"));
        assert_eq!(client.response().status, status, "{trailer}");
    }
    for request in stage.backend(0).requests() {
        assert!(request.trailers.iter().all(|(name, _)| name.eq_ignore_ascii_case("x-sum")));
    }
}

fn the_answer_to_a_head_has_no_body(driver: Driver) {
    let heads = answers_each(|request| match (request.method(), request.target()) {
        ("HEAD", "/length") => b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n".to_vec(),
        ("HEAD", "/chunked") => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
        ("HEAD", _) => b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
        _ => ok("body").into_bytes(),
    });
    let stage = Stage::on(driver).backend(heads).start();
    let mut client = stage.connect();
    for path in ["/length", "/chunked", "/nothing"] {
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        let response = client.response_to("HEAD");
        assert_eq!((response.status, response.framing), (200, Framing::Nothing));
        let length = (path == "/length").then_some("1000");
        assert_eq!(response.field("content-length"), length, "a length is told, never made up");
        client.get("/after").expect(200, "body");
    }
    assert_eq!(stage.backend(0).visits(), 1);
}

fn an_answer_without_content_has_no_body(driver: Driver) {
    let stage = Stage::on(driver).backend(bodiless("204 No Content")).start();
    let mut client = stage.connect();
    client.get("/bodiless").expect(204, "");
    client.get("/").expect(200, "body");
    assert_eq!(stage.backend(0).visits(), 1);
}

fn an_answer_not_modified_has_no_body(driver: Driver) {
    let stage = Stage::on(driver)
        .backend(bodiless("304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 4"))
        .start();
    let mut client = stage.connect();
    let response = client.get("/bodiless");
    response.expect(304, "");
    assert_eq!(response.field("etag"), Some("\"a\""));
    client.get("/").expect(200, "body");
    assert_eq!(stage.backend(0).visits(), 1);
}

fn a_get_may_have_a_body(driver: Driver) {
    let stage = Stage::on(driver).backend(echoes()).start();
    let mut client = stage.connect();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
    client.response().expect(200, "body");
}

fn both_bodies_flow_at_once(driver: Driver) {
    let stage = Stage::on(driver).backend(echoes()).start();
    let mut client = stage.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    // The answer begins before the request has ended, and each piece comes back before the next one
    // is sent: no step may wait for a whole body.
    assert_eq!(client.response_head("POST").unwrap().status, 200);
    for number in 0..50 {
        let piece = format!("piece {number}");
        client.send(chunk(&piece));
        let mut back = Vec::new();
        while back.len() < piece.len() {
            back.extend(client.wire().chunk().unwrap());
        }
        assert_eq!(back, piece.as_bytes());
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.wire().bytes(5).unwrap(), b"0\r\n\r\n");
    client.send(post("/", "next")).response().expect(200, "next");
}

fn a_large_answer_passes_whole(driver: Driver) {
    const SIZE: usize = 20 << 20;
    let large = answers_each(|request| {
        let mut bytes = match request.target() {
            "/length" => format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n").into_bytes(),
            _ => {
                format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{SIZE:x}\r\n").into()
            }
        };
        bytes.extend(pattern(SIZE));
        if request.target() == "/chunked" {
            bytes.extend(b"\r\n0\r\n\r\n");
        }
        bytes
    });
    let stage = Stage::on(driver).backend(large).start();
    let mut client = stage.connect();
    for path in ["/length", "/chunked"] {
        let response = client.get(path);
        assert!(response.body == pattern(SIZE), "{path}: another body");
    }
}

fn a_slow_reader_slows_the_backend(driver: Driver) {
    const SIZE: usize = 128 << 20;
    let sent = Arc::new(AtomicUsize::new(0));
    let fountain = plays({
        let sent = sent.clone();
        move |visit| {
            visit.request()?;
            visit.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"))?;
            let piece = [b'a'; 64 << 10];
            for _ in 0..SIZE / piece.len() {
                visit.send(piece)?;
                sent.fetch_add(piece.len(), Ordering::SeqCst);
            }
            Ok(())
        }
    });
    let stage = Stage::on(driver).backend(fountain).start();
    let mut client = Client::connect_with_small_buffer(stage.address(), 64 << 10);
    client.send(get("/"));
    let head = client.response_head("GET").unwrap();
    // What fits is in the kernel's buffers of four sockets (up to 32 MiB each where they may grow),
    // not in the proxy, whose memory `process` checks.
    let taken = settled(|| sent.load(Ordering::SeqCst));
    assert!(0 < taken && taken < SIZE / 2, "{taken} bytes were taken for a client that reads none");
    let mut came = 0;
    client.wire().body_into(head.framing, &mut |piece| came += piece.len()).unwrap();
    assert_eq!(came, SIZE);
}

/// RFC 9112 §6.3, 5.
fn one_length_said_twice_is_one(driver: Driver) {
    for lines in [
        "Content-Length: 2\r\nContent-Length: 2\r\n",
        "Content-Length: 2, 2\r\n",
        "content-length: 2,02 , 2\r\nA: b\r\nContent-Length: 2\r\n",
    ] {
        let raw = format!("HTTP/1.1 200 OK\r\n{lines}\r\n");
        let stage = Stage::on(driver).backend(answers_each(move |request| {
            let body = if request.method() == "HEAD" { "" } else { "ok" };
            format!("{raw}{body}").into_bytes()
        }));
        let stage = stage.start();
        let mut client = stage.connect();
        for _ in 0..3 {
            let response = client.get("/");
            response.expect(200, "ok");
            assert_eq!(response.field("content-length"), Some("2"), "{lines:?}");
            client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(client.response_to("HEAD").field("content-length"), Some("2"), "{lines:?}");
        }
        assert_eq!(stage.backend(0).visits(), 1, "{lines:?}");
    }
}

/// Answers `/bodiless` with this status line's rest and everything else with a body.
fn bodiless(status: &'static str) -> Script {
    answers_each(move |request| match request.target() {
        "/bodiless" => format!("HTTP/1.1 {status}\r\n\r\n").into_bytes(),
        _ => ok("body").into_bytes(),
    })
}

fn send_in_chunks(client: &mut Client, sizes: &[usize]) {
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for size in sizes {
        client.send(chunk(text(*size)));
    }
    client.send("0\r\n\r\n");
}

fn named(trailers: &[(String, String)]) -> Vec<String> {
    trailers.iter().map(|(name, value)| format!("{}: {value}", name.to_lowercase())).collect()
}

/// Bytes without a period that any buffer has.
fn pattern(size: usize) -> Vec<u8> {
    let mut bytes = b"abcdefghijklmnopqrstuvw".repeat(size / 23 + 1);
    bytes.truncate(size);
    bytes
}

fn text(size: usize) -> String {
    String::from_utf8(pattern(size)).unwrap()
}
