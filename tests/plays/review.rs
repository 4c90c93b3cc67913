//! Plays of what a reviewer suspected: each was a defect once, or nearly.
//!
//! They stand together because they have nothing else in common than how they were found; each
//! says what went wrong.

use std::time::Duration;

use crate::{
    backend::{Cue, plays},
    client::get,
    scripts::{answers_each, chunk, ok, sends},
    stage::{Driver, Stage, expect_about},
    wire::Broken,
};

on_both_drivers!(
    a_body_that_is_asked_for_again_is_sent_again,
    a_response_head_has_an_end_even_behind_an_upload,
    an_answer_cut_for_its_clients_fault_does_not_look_whole,
    a_request_ends_though_its_client_does_not_read,
);

const HEAD: &str = "HTTP/1.1 200 OK\r\n";

/// A status that is retried came when the body had been given up: the second backend was sent a
/// length without a body, and would have taken the next request for it.
fn a_body_that_is_asked_for_again_is_sent_again(driver: Driver) {
    let stage = Stage::on(driver)
        .pool("retry = { attempts = 2, on = [\"503\"] }\ntimeouts = { response = \"2s\" }")
        .backend(sends("HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"))
        .backend(answers_each(|request| ok(String::from_utf8_lossy(&request.body)).into_bytes()))
        .start();
    let mut client = stage.connect();
    for _ in 0..4 {
        client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        client.response().expect(200, "hello");
    }
}

/// While an upload went on, the wait for the head had no end; it was given one when the upload
/// ended, and lost it with the first bytes of the head.
fn a_response_head_has_an_end_even_behind_an_upload(driver: Driver) {
    let stage = Stage::on(driver)
        .pool("timeouts = { response = \"500ms\" }")
        .backend(plays(|visit| {
            visit.request()?;
            visit.send(HEAD)?;
            visit.wait_for(&Cue::default())
        }))
        .start();
    let mut client = stage.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(chunk("hello"));
    std::thread::sleep(Duration::from_millis(100));
    client.send("0\r\n\r\n");
    let took = client.waits(|client| client.response().expect_fault(504, "response_timeout"));
    expect_about(took, Duration::from_millis(500));
}

/// An answer without a length was ended with the last chunk when it was we who ended it.
fn an_answer_cut_for_its_clients_fault_does_not_look_whole(driver: Driver) {
    let stage = Stage::on(driver)
        .backend(plays(|visit| {
            visit.head()?;
            visit.send([HEAD, "\r\nthe beginning"].concat())?;
            visit.drain()
        }))
        .start();
    for body in ["nonsense\r\n", "5\r\nhello0\r\n"] {
        let mut client = stage.connect();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        let head = client.response_head("POST").unwrap();
        client.send(body);
        let end = client.wire().body(head.framing);
        assert!(matches!(end, Err(Broken::Cut | Broken::Reset)), "{end:?}");
    }
}

/// The time for the whole request ended no wait for the client to read.
fn a_request_ends_though_its_client_does_not_read(driver: Driver) {
    let stage = Stage::on(driver)
        .pool("timeouts = { request = \"500ms\" }")
        .backend(plays(|visit| {
            visit.request()?;
            visit.send([HEAD, "Content-Length: 1000000000\r\n\r\n"].concat())?;
            while visit.send([b'x'; 65_536]).is_ok() {}
            Ok(())
        }))
        .start();
    let mut client = stage.connect();
    let took = client.waits(|client| {
        client.send(get("/"));
        stage.expect_count("connections", 1);
        stage.expect_count("connections", 0);
    });
    expect_about(took, Duration::from_millis(500));
}
