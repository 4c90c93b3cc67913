//! The stage itself, rehearsed without a proxy: a client speaks straight to a scripted backend.
//!
//! It checks that the strict readers notice what they must, so that a play that passes means
//! something.

use std::time::Duration;

use crate::{
    backend::{Backend, Cue, Script},
    client::{Client, get, post},
    scripts::{
        answers, answers_on, answers_target, closes_after, echoes, sends, sends_and_closes,
        sends_and_resets,
    },
    wire::Broken,
};

fn rehearse(script: Script) -> (Backend, Client) {
    let backend = Backend::open(script);
    let client = Client::connect(backend.address());
    (backend, client)
}

/// What a client makes of these bytes followed by a close.
fn broken(raw: &str) -> Broken {
    let (_backend, mut client) = rehearse(sends_and_closes(raw));
    client.send(get("/"));
    client.try_response().expect_err("this should not be a response").0
}

#[test]
fn a_backend_records_what_it_received() {
    let (backend, mut client) = rehearse(answers("hello"));
    client.send(post("/path", "four"));
    client.response().expect(200, "hello");
    let requests = backend.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!((requests[0].method(), requests[0].target()), ("POST", "/path"));
    assert_eq!(requests[0].body, b"four");
    assert_eq!(backend.heard(), post("/path", "four"));
}

#[test]
fn answers_come_in_the_order_of_a_pipeline() {
    let (_backend, mut client) = rehearse(answers_target());
    client.send([get("/1"), get("/2"), get("/3")].concat());
    for path in ["/1", "/2", "/3"] {
        client.response().expect(200, path);
    }
}

#[test]
fn a_chunked_body_is_echoed_with_its_framing() {
    let (_backend, mut client) = rehearse(echoes());
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
    client.response().expect(200, "abcde");
    client.send(post("/", "fgh"));
    client.response().expect(200, "fgh");
}

#[test]
fn a_client_notices_wrong_framing() {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let cut = [
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc".to_owned(),
        format!("{chunked}3\r\nabc\r\n"),
        format!("{chunked}3\r\nabc\r\n0\r\n"),
        format!("{chunked}3\r\nab"),
    ];
    for raw in cut {
        assert_eq!(broken(&raw), Broken::Cut, "{raw:?}");
    }
    let wrong = [
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\na".to_owned(),
        "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n".to_owned(),
        "HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n".to_owned(),
        "HTTP/2 200 OK\r\n\r\n".to_owned(),
        "HTTP/1.1 20 OK\r\n\r\n".to_owned(),
        format!("{chunked}3;extension\r\nabc\r\n0\r\n\r\n"),
        format!("{chunked}3\r\nabcd\r\n0\r\n\r\n"),
        format!("{chunked}\r\n0\r\n\r\n"),
        format!("{chunked}0\n\n"),
    ];
    for raw in wrong {
        assert!(matches!(broken(&raw), Broken::Wrong(_)), "{raw:?}");
    }
}

#[test]
fn a_client_tells_a_close_from_a_reset() {
    let (_backend, mut client) = rehearse(sends_and_resets("HTTP/1.1 200 OK\r\n\r\nabc"));
    client.send(get("/"));
    let (broken, response) = client.try_response().expect_err("a reset is no end");
    assert_eq!(
        (broken, response.map(|response| response.body)),
        (Broken::Reset, Some(b"abc".to_vec()))
    );
    let (_backend, mut client) = rehearse(closes_after(1, "bye"));
    client.get("/").expect(200, "bye");
    client.expect_end();
}

#[test]
#[should_panic(expected = "extra bytes")]
fn a_client_notices_extra_bytes() {
    let (_backend, mut client) = rehearse(sends("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naX"));
    client.get("/").expect(200, "a");
    client.half_close().expect_end();
}

#[test]
fn a_backend_complains_of_what_no_proxy_should_send() {
    let not_canonical = [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\nA: b\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;a=b\r\na\r\n0\r\n\r\n",
    ];
    for raw in not_canonical {
        let (backend, mut client) = rehearse(answers("never"));
        client.send(raw).expect_gone();
        assert_eq!(backend.complaints().len(), 1, "{raw:?}");
    }
}

#[test]
fn a_cue_lets_a_backend_go_on() {
    let cue = Cue::default();
    let (_backend, mut client) = rehearse(answers_on(&cue, "at last"));
    client.send(get("/")).expect_silence(Duration::from_millis(50));
    cue.give();
    client.response().expect(200, "at last");
}

#[test]
fn refusing_and_unreachable_backends_are_what_they_say() {
    let refusing = Backend::open(Script::Refuses);
    let wait = Duration::from_millis(300);
    let refused = std::net::TcpStream::connect_timeout(&refusing.address(), wait);
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    let unreachable = Backend::open(Script::Unreachable);
    let hung = std::net::TcpStream::connect_timeout(&unreachable.address(), wait);
    assert_eq!(hung.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
}
