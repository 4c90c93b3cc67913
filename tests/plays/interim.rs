//! Plays of interim responses (RFC 9110 §15.2) and of Expect (§10.1.1): which side waits for which.
//!
//! A proxy relays what it did not ask for itself, in order, and waits for neither side: a client
//! that does not wait for the go-ahead is as good as one that does.

use std::time::Duration;

use crate::{
    backend::plays,
    client::get,
    scripts::{answers, ok, sends},
    stage::{Driver, Stage},
};

on_both_drivers!(
    over tls too:
    an_expectation_is_forwarded_and_the_go_ahead_relayed,
    a_client_need_not_wait_for_the_go_ahead,
    a_refused_expectation_ends_the_connection,
    an_expectation_is_met_by_an_answer_without_go_ahead,
    unknown_expectations_are_refused,
    hints_are_relayed_before_the_answer,
    hints_are_never_sent_to_1_0,
    interim_responses_keep_their_order,
    interim_responses_without_end_are_a_fault,
    an_unasked_switch_of_protocols_is_a_fault,
    who_sends_nothing_of_a_body_is_late_itself_and_no_backend,
);

// Without those about the connection of HTTP/1, and about its 101.
over_http_2!(
    an_expectation_is_forwarded_and_the_go_ahead_relayed,
    a_client_need_not_wait_for_the_go_ahead,
    an_expectation_is_met_by_an_answer_without_go_ahead,
    hints_are_relayed_before_the_answer,
    interim_responses_keep_their_order,
    interim_responses_without_end_are_a_fault,
    who_sends_nothing_of_a_body_is_late_itself_and_no_backend,
    ; in front:
    an_unasked_switch_of_protocols_is_a_fault,
    ; behind:
    unknown_expectations_are_refused,
    hints_are_never_sent_to_1_0,
);

const GO_AHEAD: &str = "HTTP/1.1 100 Continue\r\n\r\n";
const HINT: &str = "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n";
const EXPECTING: &str =
    "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";

fn an_expectation_is_forwarded_and_the_go_ahead_relayed(driver: Driver) {
    let careful = plays(|visit| {
        loop {
            let (head, framing) = visit.head()?;
            assert_eq!(head.field("expect"), Some("100-continue"));
            visit.send(GO_AHEAD)?;
            visit.rest_of(head, framing)?;
            visit.send(ok("thanks"))?;
        }
    });
    let stage = Stage::on(driver).backend(careful).start();
    let mut client = stage.connect();
    for _ in 0..3 {
        client.send(EXPECTING);
        assert_eq!(client.response_head("POST").unwrap().status, 100);
        client.send("body");
        client.response().expect(200, "thanks");
    }
    assert_eq!(stage.backend(0).visits(), 1);
    assert_eq!(stage.last_request().body, b"body");
}

fn a_client_need_not_wait_for_the_go_ahead(driver: Driver) {
    let stage = Stage::on(driver).backend(answers("thanks")).start();
    let mut client = stage.connect();
    client.send([EXPECTING, "body", &get("/next")].concat());
    client.response().expect(200, "thanks");
    client.response().expect(200, "thanks");
}

fn a_refused_expectation_ends_the_connection(driver: Driver) {
    let refuses = plays(|visit| {
        visit.head()?;
        visit.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")?;
        visit.drain()
    });
    let stage = Stage::on(driver).backend(refuses).start();
    let mut client = stage.connect();
    client.send(EXPECTING);
    let response = client.response();
    response.expect(413, "no");
    // Whether the body still comes is open, so what follows could not be told from it.
    assert!(response.closes());
    client.expect_end();
    stage.get("/fresh").expect(413, "no");
    assert_eq!(stage.backend(0).visits(), 2, "the first connection is in the middle of a request");
}

fn an_expectation_is_met_by_an_answer_without_go_ahead(driver: Driver) {
    let hasty = plays(|visit| {
        let (head, framing) = visit.head()?;
        visit.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        visit.rest_of(head, framing)?;
        visit.send("6\r\nthanks\r\n0\r\n\r\n")?;
        visit.drain()
    });
    let stage = Stage::on(driver).backend(hasty).start();
    let mut client = stage.connect();
    client.send(EXPECTING);
    let head = client.response_head("POST").unwrap();
    assert_eq!(head.status, 200);
    client.send("body");
    assert_eq!(client.wire().body(head.framing).unwrap().0, b"thanks");
}

fn unknown_expectations_are_refused(driver: Driver) {
    let stage = Stage::on(driver).backend(answers("never")).start();
    let mut client = stage.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\nContent-Length: 4\r\n\r\nbody");
    client.response().expect_fault(417, "expectation_failed");
    client.expect_end();
    assert_eq!(stage.backend(0).heard(), "");
}

fn hints_are_relayed_before_the_answer(driver: Driver) {
    let stage = Stage::on(driver).backend(sends([HINT, &ok("styled")].concat())).start();
    let mut client = stage.connect();
    for _ in 0..3 {
        let hint = client.get("/");
        assert_eq!(hint.status, 103);
        assert_eq!(hint.field("link"), Some("</style.css>; rel=preload"));
        client.response().expect(200, "styled");
    }
    assert_eq!(stage.backend(0).visits(), 1);
}

fn hints_are_never_sent_to_1_0(driver: Driver) {
    let stage = Stage::on(driver).backend(sends([HINT, GO_AHEAD, &ok("plain")].concat())).start();
    let mut client = stage.connect();
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    client.response().expect(200, "plain");
}

fn interim_responses_keep_their_order(driver: Driver) {
    let slow = plays(|visit| {
        visit.request()?;
        visit.send(GO_AHEAD)?;
        visit.pause(Duration::from_millis(30))?;
        visit.send("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 10")?;
        visit.pause(Duration::from_millis(30))?;
        visit.send(&HINT["HTTP/1.1 10".len()..])?;
        visit.pause(Duration::from_millis(30))?;
        visit.send(ok("done"))
    });
    let stage = Stage::on(driver).backend(slow).start();
    let mut client = stage.connect();
    client.send(get("/"));
    for status in [100, 102, 103] {
        assert_eq!(client.response_head("GET").unwrap().status, status);
    }
    client.response().expect(200, "done");
}

fn interim_responses_without_end_are_a_fault(driver: Driver) {
    let endless = plays(|visit| {
        visit.request()?;
        loop {
            visit.send(HINT)?;
        }
    });
    let stage = Stage::on(driver).backend(endless).start();
    let mut client = stage.connect();
    client.send(get("/"));
    for _ in 0..1_000 {
        let response = client.response();
        if response.status != 103 {
            return response.expect_fault(502, "backend_protocol");
        }
    }
    panic!("a thousand hints and no end");
}

fn an_unasked_switch_of_protocols_is_a_fault(driver: Driver) {
    let stage = Stage::on(driver).backend(sends(crate::scripts::SWITCHING)).start();
    stage.get("/").expect_fault(502, "backend_protocol");
}

/// RFC 9110 §10.1.1: a client need not wait for a 100 for ever. One client could take out a pool.
fn who_sends_nothing_of_a_body_is_late_itself_and_no_backend(driver: Driver) {
    let waits = || {
        plays(|visit| {
            loop {
                let (head, framing) = visit.head()?;
                if head.start.starts_with("GET ") {
                    visit.rest_of(head, framing)?;
                    visit.send(ok("well"))?;
                    continue;
                }
                visit.drain()?;
            }
        })
    };
    for expects in ["", "Expect: 100-continue\r\n"] {
        let stage = Stage::on(driver)
            .listener("timeouts = { client-body = \"500ms\" }")
            .pool("retry = { per-try = \"250ms\" }")
            .backend(waits())
            .backend(waits())
            .start();
        let mut clients: Vec<_> = (0..16).map(|_| stage.connect()).collect();
        for client in &mut clients {
            let line = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n";
            client.send(format!("{line}{expects}\r\n"));
        }
        for client in &mut clients {
            client.response().expect_fault(408, "request_timeout");
        }
        (0..8).for_each(|_| stage.get("/").expect(200, "well"));
        for number in 0..2 {
            let gets = stage.backend(number).requests().len();
            assert!(gets > 0, "backend {number} is left out");
        }
    }
}
