//! Plays of request smuggling: every head or body that two readers could read differently is
//! answered with 400, the connection is closed, and nothing after it reaches a backend.
//!
//! The tables of `http` have the same rows; here the whole proxy must refuse them.

use crate::{
    client::{get, post},
    scripts::{answers, answers_target},
    stage::{Driver, Stage},
};

on_both_drivers!(
    over tls too:
    ambiguous_heads_are_refused_before_a_backend_sees_them,
    ambiguous_chunks_end_the_request_where_they_stand,
    unknown_codings_are_refused,
    lengths_and_chunks_that_are_well_formed_pass,
    the_next_client_is_not_harmed,
);

/// The request that an attacker hopes to get through.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// Heads, without their request line and Host, and what follows them.
#[rustfmt::skip]
const HEADS: &[(&str, &str)] = &[
    ("a length and chunks", "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("chunks and a length", "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n"),
    ("chunks and no length", "Transfer-Encoding: chunked\r\nContent-Length:\r\n\r\n0\r\n\r\n"),
    ("two lengths", "Content-Length: 0\r\nContent-Length: 36\r\n\r\n"),
    ("one length twice", "Content-Length: 0\r\nContent-Length: 0\r\n\r\n"),
    ("a list of lengths", "Content-Length: 0, 36\r\n\r\n"),
    ("a list of one length", "Content-Length: 0, 0\r\n\r\n"),
    ("a length with a sign", "Content-Length: +0\r\n\r\n"),
    ("a length below nought", "Content-Length: -1\r\n\r\n"),
    ("a length in hexadecimal", "Content-Length: 0x0\r\n\r\n"),
    ("a length with a point", "Content-Length: 0.0\r\n\r\n"),
    ("a length with a space inside", "Content-Length: 0 0\r\n\r\n"),
    ("a length with underscores", "Content-Length: 0_0\r\n\r\n"),
    ("a length that is empty", "Content-Length: \r\n\r\n"),
    ("a length beyond all bounds", "Content-Length: 18446744073709551616\r\n\r\n"),
    ("a length of a quoted number", "Content-Length: \"0\"\r\n\r\n"),
    ("a coding that is none", "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("a coding that is empty", "Transfer-Encoding:\r\n\r\n0\r\n\r\n"),
    ("a coding in quotes", "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
    ("a coding with a parameter", "Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n"),
    ("chunks twice", "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    ("chunks on two lines", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("chunks that do not come last", "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    ("chunks with a trailing comma", "Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n"),
    ("identity alone", "Transfer-Encoding: identity\r\n\r\n"),
    ("gzip alone", "Transfer-Encoding: gzip\r\n\r\n"),
    ("a space before the colon", "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    ("a tab before the colon", "Content-Length\t: 4\r\n\r\n"),
    ("a space before the name", " Content-Length: 4\r\n\r\n"),
    ("a folded line", "X: a\r\n Content-Length: 4\r\n\r\n"),
    ("a folded coding", "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    ("a vertical tab in a coding", "Transfer-Encoding: \u{b}chunked\r\n\r\n0\r\n\r\n"),
    ("a bare LF between fields", "X: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("a bare LF at the end", "X: a\r\n\n"),
    ("bare LFs alone", "X: a\n\n"),
    ("a bare CR between fields", "X: a\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("a bare CR in a value", "X: a\rb\r\n\r\n"),
    ("a NUL in a value", "X: a\0b\r\n\r\n"),
    ("a NUL in a name", "X\0Y: a\r\n\r\n"),
    ("a name that is empty", ": a\r\n\r\n"),
    ("a line without a colon", "Transfer-Encoding chunked\r\n\r\n"),
    ("a name that is no token", "X(Y): a\r\n\r\n"),
    ("a name in quotes", "\"Content-Length\": 4\r\n\r\n"),
    ("another host", "Host: b\r\n\r\n"),
    ("the same host again", "Host: a\r\n\r\n"),
];

/// Bodies after a head with `Transfer-Encoding: chunked`.
#[rustfmt::skip]
const CHUNKS: &[(&str, &str)] = &[
    ("no size", "\r\n\r\n"),
    ("a size of nothing", ";a=b\r\n\r\n"),
    ("a size with a prefix", "0x3\r\nabc\r\n0\r\n\r\n"),
    ("a size with a sign", "+3\r\nabc\r\n0\r\n\r\n"),
    ("a size below nought", "-0\r\n\r\n"),
    ("a size with a space before", " 3\r\nabc\r\n0\r\n\r\n"),
    ("a size with an underscore", "0_3\r\nabc\r\n0\r\n\r\n"),
    ("a size that is no number", "xyz\r\nabc\r\n0\r\n\r\n"),
    ("a size with a comma", "3,3\r\nabc\r\n0\r\n\r\n"),
    ("a size beyond all bounds", "fffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
    ("a size that overflows to three", "10000000000000003\r\nabc\r\n0\r\n\r\n"),
    ("a size of many noughts", "00000000000000000000000000000003\r\nabc\r\n0\r\n\r\n"),
    ("a size ended by LF", "3\nabc\r\n0\r\n\r\n"),
    ("a size ended by CR", "3\rabc\r\n0\r\n\r\n"),
    ("a chunk ended by LF", "3\r\nabc\n0\r\n\r\n"),
    ("a chunk that is too short", "3\r\nab\r\n0\r\n\r\n"),
    ("a chunk that is too long", "3\r\nabcd\r\n0\r\n\r\n"),
    ("a chunk without an end", "3\r\nabc0\r\n\r\n"),
    ("an end by LF", "3\r\nabc\r\n0\n\r\n"),
    ("an empty line of LF", "3\r\nabc\r\n0\r\n\n"),
    ("an extension with a LF", "3;a\nb\r\nabc\r\n0\r\n\r\n"),
    ("an extension with a CR", "3;a\rb\r\nabc\r\n0\r\n\r\n"),
    ("an extension with a NUL", "3;a\0b\r\nabc\r\n0\r\n\r\n"),
    ("a trailer without a colon", "0\r\nno trailer\r\n\r\n"),
    ("a folded trailer", "0\r\nX: a\r\n b\r\n\r\n"),
    ("a trailer with a space before the colon", "0\r\nX : a\r\n\r\n"),
    ("a trailer ended by LF", "0\r\nX: a\n\r\n"),
];

fn ambiguous_heads_are_refused_before_a_backend_sees_them(driver: Driver) {
    let stage = Stage::on(driver).backend(answers("never")).start();
    for (what, rest) in HEADS {
        let mut client = stage.connect();
        client.send(format!("POST /bad HTTP/1.1\r\nHost: a\r\n{rest}{SMUGGLED}"));
        expect_refusal(&mut client, what);
        assert_eq!(stage.backend(0).heard(), "", "{what}");
    }
}

fn ambiguous_chunks_end_the_request_where_they_stand(driver: Driver) {
    let stage = Stage::on(driver).backend(answers("never")).start();
    for (what, body) in CHUNKS {
        let mut client = stage.connect();
        client.send("POST /bad HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send(format!("{body}{SMUGGLED}"));
        expect_refusal(&mut client, what);
    }
    // The head may have gone out before the body was seen to be bad; it must stay unfinished.
    assert!(stage.backend(0).requests().is_empty());
    assert!(!stage.backend(0).heard().contains("smuggled"));
    assert_eq!(stage.backend(0).complaints(), Vec::<String>::new());
}

#[track_caller]
fn expect_refusal(client: &mut crate::client::Client, what: &str) {
    match client.try_response() {
        Ok(response) => {
            assert!(response.status == 400, "{what}: {response:#?}");
            response.expect_fault(400, "bad_request");
            assert!(response.closes(), "{what}: {response:#?}");
        }
        Err(broken) => panic!("{what}: {broken:?}"),
    }
    client.expect_end();
}

fn unknown_codings_are_refused(driver: Driver) {
    let stage = Stage::on(driver).backend(answers("never")).start();
    for (coding, status) in [
        ("gzip, chunked", 501),
        ("identity, chunked", 501),
        ("x\r\nTransfer-Encoding: chunked", 501),
    ] {
        let mut client = stage.connect();
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {coding}\r\n\r\n");
        client.send([&head, "0\r\n\r\n", SMUGGLED].concat());
        assert_eq!(client.response().status, status, "{coding}");
        client.expect_end();
    }
    assert_eq!(stage.backend(0).heard(), "");
}

fn lengths_and_chunks_that_are_well_formed_pass(driver: Driver) {
    let stage = Stage::on(driver).backend(answers_target()).start();
    let mut client = stage.connect();
    for (path, rest) in [
        ("/1", "Content-Length: 00\r\n\r\n"),
        ("/2", "content-LENGTH:   3  \r\n\r\nabc"),
        ("/3", "Transfer-Encoding:chunked\r\n\r\n0\r\n\r\n"),
        ("/4", "TRANSFER-encoding: \t Chunked\t \r\n\r\n003;x=y\r\nabc\r\n00\r\nX: y\r\n\r\n"),
        ("/5", "Transfer-Encoding: chunked\r\n\r\nA\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n"),
    ] {
        client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\n{rest}"));
        client.response().expect(200, path);
    }
    client.half_close().expect_end();
}

fn the_next_client_is_not_harmed(driver: Driver) {
    let stage = Stage::on(driver).backend(answers_target()).start();
    for (_, rest) in HEADS {
        let mut attacker = stage.connect();
        let mut victim = stage.connect();
        attacker.send(format!("POST /bad HTTP/1.1\r\nHost: a\r\n{rest}{SMUGGLED}"));
        victim.send([get("/victim"), post("/victim2", "body")].concat());
        victim.response().expect(200, "/victim");
        victim.response().expect(200, "/victim2");
        attacker.response();
        attacker.expect_end();
    }
    for (_, body) in CHUNKS {
        let mut attacker = stage.connect();
        attacker.send("POST /bad HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        let mut victim = stage.connect();
        victim.get("/victim").expect(200, "/victim");
        attacker.send(format!("{body}{SMUGGLED}"));
        victim.get("/victim2").expect(200, "/victim2");
        attacker.response();
        attacker.expect_end();
    }
}
