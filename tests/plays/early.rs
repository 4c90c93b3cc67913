//! Plays of answers that come before their request is over, and of the lingering close.
//!
//! A client in the middle of a body must see the answer and not a reset, however much it had sent
//! that is never read. `uploads` tests what becomes of the rest of the body.

use std::time::Duration;

use crate::{
    backend::{Script, plays},
    client::Client,
    scripts::{answers, answers_early, ok},
    stage::{Driver, Stage, eventually},
    wire::Broken,
};

on_both_drivers!(
    an_answer_before_the_body_is_relayed_at_once,
    the_connection_of_an_upload_that_was_left_is_not_used_again,
    a_client_sees_an_early_answer_whatever_it_still_sends,
    a_fault_of_the_backend_in_the_middle_of_a_body_is_seen,
    a_bad_request_is_answered_not_reset,
    a_body_too_large_is_answered_not_reset,
    a_head_too_large_is_answered_not_reset,
    a_target_too_long_is_answered_not_reset,
    a_late_body_is_answered_not_reset,
    whatever_is_refused_is_answered_not_reset,
    a_body_that_was_refused_is_never_a_request,
    a_backend_may_answer_and_leave_before_the_body,
    a_body_that_no_backend_took_is_never_a_request,
    a_body_whose_backend_died_is_never_a_request,
    lingering_ends,
    an_answer_cut_for_its_clients_fault_does_not_look_whole,
);

// Without those where the bridge reads ahead, lets a reset overtake an answer, or would listen
// where nobody does.
over_tls!(
    an_answer_before_the_body_is_relayed_at_once,
    the_connection_of_an_upload_that_was_left_is_not_used_again,
    a_client_sees_an_early_answer_whatever_it_still_sends,
    a_fault_of_the_backend_in_the_middle_of_a_body_is_seen,
    a_bad_request_is_answered_not_reset,
    a_body_too_large_is_answered_not_reset,
    a_head_too_large_is_answered_not_reset,
    a_target_too_long_is_answered_not_reset,
    a_late_body_is_answered_not_reset,
    a_body_that_was_refused_is_never_a_request,
    lingering_ends,
    an_answer_cut_for_its_clients_fault_does_not_look_whole,
);

over_http_2!(
    an_answer_before_the_body_is_relayed_at_once,
    a_client_sees_an_early_answer_whatever_it_still_sends,
    ; behind:
    a_bad_request_is_answered_not_reset,
    a_body_too_large_is_answered_not_reset,
    a_late_body_is_answered_not_reset,
    a_body_that_was_refused_is_never_a_request,
    a_backend_may_answer_and_leave_before_the_body,
    a_body_whose_backend_died_is_never_a_request,
    lingering_ends,
);

const REFUSAL: &str = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno";

/// More than a client can have sent unnoticed, less than what is read and dropped.
const UNREAD: usize = 200 << 10;

fn an_answer_before_the_body_is_relayed_at_once(driver: Driver) {
    let stage = Stage::on(driver).backend(answers_early(REFUSAL)).start();
    let mut client = stage.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nthe beginning");
    client.response().expect(401, "no");
    client.half_close().expect_end();
}

fn the_connection_of_an_upload_that_was_left_is_not_used_again(driver: Driver) {
    let stage = Stage::on(driver).backend(answers_early(REFUSAL)).start();
    for visits in 1..=3 {
        let mut client = stage.connect();
        client
            .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n");
        client.response().expect(401, "no");
        client.half_close().expect_end();
        assert_eq!(stage.backend(0).visits(), visits);
        eventually("no connection is kept", || stage.backend(0).open_visits(), |open| *open == 0);
    }
}

fn a_client_sees_an_early_answer_whatever_it_still_sends(driver: Driver) {
    let stage = Stage::on(driver).backend(answers_early(REFUSAL)).start();
    let mut client = stage.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
    client.send(vec![b'a'; UNREAD]);
    client.response().expect(401, "no");
    client.half_close().expect_end();
}

fn a_fault_of_the_backend_in_the_middle_of_a_body_is_seen(driver: Driver) {
    let stage = Stage::on(driver).backend(answers_early("garbage\r\n\r\n")).start();
    let mut client = stage.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
    client.send_what_is_taken(vec![b'a'; UNREAD]);
    let response = client.response();
    response.expect_fault(502, "backend_protocol");
    assert!(response.closes(), "the request was not read whole");
    client.expect_end();
}

fn a_bad_request_is_answered_not_reset(driver: Driver) {
    let stage = Stage::on(driver).backend(answers_early(REFUSAL)).start();
    let mut client = stage.connect();
    refused(&mut client, "GET / HTTP/1.1\r\nno host: 1\r\n\r\n", 400, "bad_request");
    assert_eq!(stage.backend(0).heard(), "");
}

fn a_body_too_large_is_answered_not_reset(driver: Driver) {
    let stage =
        Stage::on(driver).limits("body-size = \"1KiB\"").backend(answers_early(REFUSAL)).start();
    let mut client = stage.connect();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 204800\r\n\r\n";
    refused(&mut client, head, 413, "body_too_large");
    assert_eq!(stage.backend(0).heard(), "", "a length that is too large is known at once");
}

fn a_head_too_large_is_answered_not_reset(driver: Driver) {
    let stage = Stage::on(driver).backend(answers_early(REFUSAL)).start();
    let mut client = stage.connect();
    refused(&mut client, "GET / HTTP/1.1\r\nHost: a\r\nX: ", 431, "head_too_large");
}

fn a_target_too_long_is_answered_not_reset(driver: Driver) {
    let stage = Stage::on(driver).backend(answers_early(REFUSAL)).start();
    let mut client = stage.connect();
    refused(&mut client, "GET /", 414, "uri_too_long");
}

fn a_late_body_is_answered_not_reset(driver: Driver) {
    let stage = Stage::on(driver)
        .listener("timeouts = { client-body = \"300ms\" }")
        .backend(crate::scripts::never_reads())
        .start();
    let mut client = stage.connect();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";
    refused(&mut client, head, 408, "request_timeout");
}

fn whatever_is_refused_is_answered_not_reset(driver: Driver) {
    let stage = Stage::on(driver).backend(Script::Refuses).start();
    for (head, status, code) in [
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505, "version_refused"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nExpect: x\r\nContent-Length: 999999\r\n\r\n",
            417,
            "expectation_failed",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            501,
            "not_implemented",
        ),
        ("TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999\r\n\r\n", 405, "method_refused"),
        (
            "CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 999999\r\n\r\n",
            405,
            "method_refused",
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999\r\n\r\n", 502, "connect_failed"),
    ] {
        refused(&mut stage.connect(), head, status, code);
    }
}

fn a_body_that_was_refused_is_never_a_request(driver: Driver) {
    let stage = Stage::on(driver).limits("body-size = \"10B\"").backend(answers("evil")).start();
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for (line, framing, status) in [
        ("POST / HTTP/1.1", "Content-Length: 38", 413),
        ("TRACE / HTTP/1.1", "Content-Length: 38", 405),
        ("CONNECT a:1 HTTP/1.1", "Content-Length: 38", 405),
        ("CONNECT a:1 HTTP/1.1", "Transfer-Encoding: chunked", 405),
        ("TRACE / HTTP/1.1", "Transfer-Encoding: chunked", 405),
        ("POST / HTTP/1.1", "Transfer-Encoding: gzip, chunked", 501),
        ("POST / HTTP/1.1", "Content-Length: 38\r\nExpect: x", 417),
    ] {
        let mut client = stage.connect();
        client.send(format!("{line}\r\nHost: a\r\n{framing}\r\n\r\n{smuggled}"));
        assert_eq!(client.response().status, status, "{line} {framing}");
        client.half_close().expect_end();
    }
    assert_eq!(stage.backend(0).heard(), "");
}

fn a_backend_may_answer_and_leave_before_the_body(driver: Driver) {
    let hasty = plays(|visit| {
        visit.head()?;
        visit.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
    });
    let stage = Stage::on(driver).backend(hasty).start();
    for _ in 0..10 {
        let mut client = stage.connect();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
        client.send_what_is_taken(vec![b'a'; UNREAD]);
        client.response().expect(413, "no");
        client.half_close().expect_end();
    }
}

fn a_body_that_no_backend_took_is_never_a_request(driver: Driver) {
    const ANSWER: usize = 6 << 20;
    let hasty = plays(|visit| {
        if visit.head()?.0.start.contains("/smuggled") {
            return visit.send(ok("evil"));
        }
        visit.wire().bytes(5)?;
        visit.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {ANSWER}\r\n\r\n"))?;
        visit.send("a".repeat(ANSWER))?;
        // Closing with bytes unread is a reset: later bytes are not taken.
        visit.pause(Duration::from_millis(300))?;
        visit.reset();
        Ok(())
    });
    let stage = Stage::on(driver).backend(hasty).start();
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut client = Client::connect_with_small_buffer(stage.address(), 4 << 10);
    let length = smuggled.len() + 5;
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\nfirst"));
    let head = client.response_head("POST").unwrap();
    eventually("the backend leaves", || stage.backend(0).open_visits(), |open| *open == 0);
    // The rest of the body comes when nothing takes it any more and the answer is on its way.
    client.send(smuggled);
    std::thread::sleep(Duration::from_millis(50));
    let body = client.wire().body(head.framing).map(|(body, _)| body.len());
    assert!(matches!(body, Ok(ANSWER) | Err(Broken::Cut | Broken::Reset)), "{body:?}");
    if body.is_ok() {
        client.half_close().expect_gone();
    }
    assert_eq!(stage.backend(0).heads().len(), 1);
}

fn a_body_whose_backend_died_is_never_a_request(driver: Driver) {
    let dying = plays(|visit| {
        if visit.head()?.0.start.contains("/smuggled") {
            return visit.send(ok("evil"));
        }
        visit.reset();
        Ok(())
    });
    let stage = Stage::on(driver).backend(dying).start();
    let body = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n".repeat(20);
    for round in 0..40 {
        let mut client = stage.connect();
        let (framing, size) = ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ", body.len());
        let (first, rest) = body.split_at(round * 17);
        client.send(format!("{framing}{size}\r\n\r\n{first}"));
        client.send_what_is_taken(&rest[..rest.len() / 2]);
        client.send_what_is_taken(&rest[rest.len() / 2..]);
        assert_eq!(client.response().status, 502, "round {round}");
        client.half_close().expect_end();
    }
    assert!(stage.backend(0).heads().iter().all(|head| head.start.starts_with("POST / ")));
}

fn lingering_ends(driver: Driver) {
    let stage = Stage::on(driver).backend(answers_early(REFUSAL)).start();
    let mut other = stage.connect();
    other.send("GET / HTTP/1.1\r\nbad\r\n\r\n");
    other.send_what_is_taken(vec![b'a'; 4 << 20]);
    stage.expect_count("connections", 0);
}

/// Sends a head and much more, and only then reads: the refusal is there, and a clean end.
#[track_caller]
fn refused(client: &mut Client, head: &str, status: u16, code: &str) {
    client.send(head);
    client.send(vec![b'a'; UNREAD]);
    let response = client.response();
    response.expect_fault(status, code);
    assert!(response.closes());
    client.expect_end();
}

/// An answer without a length that we ended used to get a last chunk.
fn an_answer_cut_for_its_clients_fault_does_not_look_whole(driver: Driver) {
    let stage = Stage::on(driver)
        .backend(plays(|visit| {
            visit.head()?;
            visit.send("HTTP/1.1 200 OK\r\n\r\nthe beginning")?;
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
