//! Plays of clients that leave, in every phase: counted, and nothing stays behind.
//!
//! That no connection and no request is counted for ever is checked when each stage is struck;
//! here also that the backend is let go at once.

use std::time::Duration;

use crate::{
    backend::{Cue, plays},
    client::{Client, get},
    scripts::{answers, answers_each, answers_on, delays, never_answers, ok},
    stage::{Driver, Stage, eventually},
};

on_both_drivers!(
    a_client_may_leave_in_the_middle_of_a_head,
    a_client_may_leave_in_the_middle_of_a_body,
    a_client_may_leave_while_it_waits,
    a_client_may_leave_between_interim_and_answer,
    a_client_may_leave_in_the_middle_of_an_answer,
    a_client_may_leave_a_pipeline_behind,
    what_a_half_close_cuts_costs_no_answer_before_it,
    an_empty_line_is_nothing_that_was_begun,
    a_crowd_may_leave_at_once,
);

/// How a client leaves.
const LEAVE: [fn(Client); 2] = [drop, Client::reset];

/// Waits until the abort has been counted and nothing of it is left.
#[track_caller]
fn expect_forgotten(stage: &Stage, aborts: u64) {
    stage.expect_count("client_aborts_total", aborts);
    stage.expect_count("connections", 0);
    stage.expect_count("requests_in_flight", 0);
    stage.expect_count("backend_in_flight", 0);
    eventually("the backend is let go", || stage.backend(0).open_visits(), |open| *open == 0);
}

fn a_client_may_leave_in_the_middle_of_a_head(driver: Driver) {
    let stage = Stage::on(driver).backend(never_answers()).start();
    for (leave, aborts) in LEAVE.into_iter().zip(1..) {
        let mut client = stage.connect();
        client.send("GET / HTTP/1.1\r\nHo");
        leave(client);
        expect_forgotten(&stage, aborts);
    }
    assert_eq!(stage.backend(0).visits(), 0);
}

fn a_client_may_leave_in_the_middle_of_a_body(driver: Driver) {
    let stage = Stage::on(driver).backend(never_answers()).start();
    let bodies = ["Content-Length: 9\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"];
    let mut aborts = 0;
    for body in bodies {
        for leave in LEAVE {
            let mut client = stage.connect();
            client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{body}"));
            aborts += 1;
            let heads = || stage.backend(0).heads().len();
            eventually("the head is forwarded", heads, |heads| *heads as u64 == aborts);
            leave(client);
            expect_forgotten(&stage, aborts);
        }
    }
    assert!(stage.backend(0).requests().is_empty(), "no backend takes a part for the whole");
}

fn a_client_may_leave_while_it_waits(driver: Driver) {
    let stage = Stage::on(driver).backend(never_answers()).start();
    for aborts in 1..=3 {
        let mut client = stage.connect();
        client.send(get("/"));
        let requests = || stage.backend(0).requests().len() as u64;
        eventually("it is asked", requests, |requests| *requests == aborts);
        // Only a reset: a close cannot be told from a half-close, which is no abort.
        client.reset();
        expect_forgotten(&stage, aborts);
    }
}

fn a_client_may_leave_between_interim_and_answer(driver: Driver) {
    let hints = plays(|visit| {
        visit.request()?;
        visit.send("HTTP/1.1 103 Early Hints\r\n\r\n")?;
        visit.drain()
    });
    let stage = Stage::on(driver).backend(hints).start();
    let mut client = stage.connect();
    assert_eq!(client.get("/").status, 103);
    client.reset();
    expect_forgotten(&stage, 1);
}

fn a_client_may_leave_in_the_middle_of_an_answer(driver: Driver) {
    for framing in
        ["Content-Length: 100000000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n10000\r\n", "\r\n"]
    {
        let endless = plays(move |visit| {
            visit.request()?;
            visit.send(format!("HTTP/1.1 200 OK\r\n{framing}"))?;
            let (piece, chunked) = ("a".repeat(0x10000), framing.contains("chunked"));
            loop {
                visit.send(&piece)?;
                if chunked {
                    visit.send("\r\n10000\r\n")?;
                }
            }
        });
        let stage = Stage::on(driver).backend(endless).start();
        for (leave, aborts) in LEAVE.into_iter().zip(1..) {
            let mut client = stage.connect();
            client.send(get("/"));
            assert_eq!(client.response_head("GET").unwrap().status, 200);
            client.wire().bytes(100_000).unwrap();
            leave(client);
            expect_forgotten(&stage, aborts);
        }
    }
}

fn a_client_may_leave_a_pipeline_behind(driver: Driver) {
    let cue = Cue::default();
    let stage = Stage::on(driver).backend(answers_on(&cue, "late")).start();
    let mut client = stage.connect();
    client.send([get("/1"), get("/2"), get("/3")].concat());
    eventually("it is asked", || stage.backend(0).requests().len(), |requests| *requests == 1);
    client.reset();
    stage.expect_count("client_aborts_total", 1);
    stage.expect_count("connections", 0);
    cue.give();
    stage.get("/next").expect(200, "late");
    let targets: Vec<String> =
        stage.backend(0).requests().iter().map(|request| request.target().to_owned()).collect();
    assert_eq!(targets, ["/1", "/next"], "nobody waits for the others");
}

/// The answer stands in the proxy's send buffer when the connection ends: a reset would destroy it.
fn what_a_half_close_cuts_costs_no_answer_before_it(driver: Driver) {
    const BODY: usize = 48 << 10;
    let long = answers_each(|_| ok("b".repeat(BODY)).into_bytes());
    let stage = Stage::on(driver).backend(long).start();
    for (cut, aborts) in [
        ("GET /cut HTTP/1.1\r\nHo", 1),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc", 2),
        ("\r\n", 2),
    ] {
        let mut client = Client::connect_with_small_buffer(stage.address(), 4 << 10);
        client.send([&get("/"), cut].concat()).half_close();
        stage.expect_count("connections", 0);
        let response = client.response();
        assert_eq!((response.status, response.body.len()), (200, BODY), "before {cut:?}");
        client.expect_end();
        stage.expect_count("client_aborts_total", aborts);
    }
}

/// RFC 9112 §2.2 forgives one before a request; there are clients that send one behind each.
fn an_empty_line_is_nothing_that_was_begun(driver: Driver) {
    let times = "timeouts = { client-header = \"500ms\" }";
    let stage = Stage::on(driver).listener(times).backend(answers("ok")).start();
    let mut client = stage.connect();
    client.send([&get("/"), "\r\n"].concat()).response().expect(200, "ok");
    client.expect_end();
    assert_eq!(stage.count("client_aborts_total"), 0);
}

fn a_crowd_may_leave_at_once(driver: Driver) {
    let stage =
        Stage::on(driver).cores(2).backend(delays(Duration::from_millis(100), "late")).start();
    let mut clients: Vec<Client> = (0..200).map(|_| stage.connect()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        match number % 4 {
            0 => client,
            1 => client.send("GET / HT"),
            2 => client.send(get("/")),
            _ => client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc"),
        };
    }
    for (number, client) in clients.into_iter().enumerate() {
        LEAVE[number / 4 % 2](client);
    }
    stage.expect_count("connections", 0);
    stage.expect_count("backend_in_flight", 0);
    stage.get("/").expect(200, "late");
}
