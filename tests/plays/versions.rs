//! Plays of HTTP/1.0 on either side, and of unsupported versions.
//!
//! Each side gets what its version understands: chunks never reach 1.0, and what 1.0 ends by
//! closing reaches 1.1 in chunks, so that a cut can be seen.

use crate::{
    client::get,
    scripts::{answers, answers_target, chunk, sends, sends_and_closes},
    stage::{Driver, Stage},
    wire::Framing,
};

on_both_drivers!(
    a_client_of_1_0_gets_one_answer,
    a_client_of_1_0_may_keep_the_connection,
    a_client_of_1_0_never_sees_chunks,
    a_request_of_1_0_is_forwarded_as_1_1,
    an_expectation_of_1_0_is_ignored,
    chunks_in_a_request_of_1_0_are_refused,
    a_backend_of_1_0_is_not_asked_again_on_its_connection,
    a_backend_of_1_0_may_keep_its_connection,
    a_backend_of_1_0_that_ends_by_closing_is_relayed_in_chunks,
    chunks_from_a_backend_of_1_0_are_a_fault,
    other_versions_are_refused,
);

fn a_client_of_1_0_gets_one_answer(driver: Driver) {
    let stage = Stage::on(driver).backend(answers("one")).start();
    let mut client = stage.connect();
    client.send("GET / HTTP/1.0\r\n\r\n");
    client.response().expect(200, "one");
    client.expect_end();
}

fn a_client_of_1_0_may_keep_the_connection(driver: Driver) {
    let stage = Stage::on(driver).backend(answers_target()).start();
    let mut client = stage.connect();
    for path in ["/1", "/2"] {
        client.send(format!("GET {path} HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
        let response = client.response();
        response.expect(200, path);
        assert!(response.head.lists("connection", "keep-alive"), "1.0 must be told");
    }
    client.send("GET /3 HTTP/1.0\r\n\r\n").response().expect(200, "/3");
    client.expect_end();
}

fn a_client_of_1_0_never_sees_chunks(driver: Driver) {
    let chunked = ["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &chunk("abc")].concat();
    let stage = Stage::on(driver).backend(sends([&chunked, "0\r\nA: b\r\n\r\n"].concat())).start();
    for keep_alive in ["", "Connection: keep-alive\r\n"] {
        let mut client = stage.connect();
        client.send(format!("GET / HTTP/1.0\r\n{keep_alive}\r\n"));
        let response = client.response();
        response.expect(200, "abc");
        assert_eq!(response.framing, Framing::UntilClose);
        assert!(!response.head.lists("connection", "keep-alive"));
    }
}

fn a_request_of_1_0_is_forwarded_as_1_1(driver: Driver) {
    let stage = Stage::on(driver).backend(answers("one")).start();
    let mut client = stage.connect();
    client
        .send("POST /old HTTP/1.0\r\nContent-Length: 4\r\n\r\nbody")
        .response()
        .expect(200, "one");
    let request = stage.last_request();
    assert_eq!(request.head.start, "POST /old HTTP/1.1");
    assert_eq!(request.body, b"body");
    assert!(request.field("via").is_some_and(|via| via.starts_with("1.0 ringway-")));
}

fn an_expectation_of_1_0_is_ignored(driver: Driver) {
    let stage = Stage::on(driver).backend(answers("one")).start();
    let mut client = stage.connect();
    client.send("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody");
    client.response().expect(200, "one");
    assert_eq!(stage.last_request().field("expect"), None);
}

fn chunks_in_a_request_of_1_0_are_refused(driver: Driver) {
    let stage = Stage::on(driver).backend(answers("never")).start();
    let mut client = stage.connect();
    client.send("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n");
    client.response().expect_fault(400, "bad_request");
    client.expect_end();
    assert_eq!(stage.backend(0).heard(), "");
}

fn a_backend_of_1_0_is_not_asked_again_on_its_connection(driver: Driver) {
    let raw = "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold";
    let stage = Stage::on(driver).backend(sends(raw)).start();
    let mut client = stage.connect();
    for visits in 1..=3 {
        let response = client.get("/");
        response.expect(200, "old");
        assert!(response.head.start.starts_with("HTTP/1.1 "));
        assert_eq!(stage.backend(0).visits(), visits);
    }
}

fn a_backend_of_1_0_may_keep_its_connection(driver: Driver) {
    let raw = "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nold";
    let stage = Stage::on(driver).backend(sends(raw)).start();
    let mut client = stage.connect();
    for _ in 0..3 {
        client.get("/").expect(200, "old");
    }
    assert_eq!(stage.backend(0).visits(), 1);
}

fn a_backend_of_1_0_that_ends_by_closing_is_relayed_in_chunks(driver: Driver) {
    let raw = "HTTP/1.0 200 OK\r\n\r\nuntil the end";
    let stage = Stage::on(driver).backend(sends_and_closes(raw)).start();
    let mut client = stage.connect();
    for _ in 0..2 {
        let response = client.get("/");
        response.expect(200, "until the end");
        assert_eq!(response.framing, Framing::Chunked);
    }
}

fn chunks_from_a_backend_of_1_0_are_a_fault(driver: Driver) {
    let raw = "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
    let stage = Stage::on(driver).backend(sends(raw)).start();
    stage.get("/").expect_fault(502, "backend_protocol");
}

fn other_versions_are_refused(driver: Driver) {
    let stage = Stage::on(driver).backend(answers("never")).start();
    for (line, status, code) in [
        ("GET / HTTP/2.0", 505, "version_refused"),
        ("PRI * HTTP/2.0", 505, "version_refused"),
        ("GET /", 400, "bad_request"),
        ("GET / HTTP/1.1 ", 400, "bad_request"),
        ("GET / http/1.1", 400, "bad_request"),
    ] {
        let mut client = stage.connect();
        client.send(format!("{line}\r\nHost: a\r\n\r\n")).send_what_is_taken(get("/behind"));
        client.response().expect_fault(status, code);
        client.expect_end();
    }
    assert_eq!(stage.backend(0).heard(), "");
}
