//! Plays of clients that leave, in every phase: each abort is counted, and nothing stays behind.
//!
//! When a stage is struck it checks that no connection and no request stays counted; here it is
//! also checked that the backend is released at once.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    backend::{Cue, plays},
    client::{Client, get, post},
    pace::Watch,
    scripts::{answers, answers_each, answers_on, delays, never_answers, ok},
    stage::{Driver, Stage, eventually},
    wire::Broken,
};

on_both_drivers!(
    a_client_may_leave_in_the_middle_of_a_head,
    a_client_may_leave_in_the_middle_of_a_body,
    a_client_may_leave_while_it_waits,
    a_client_that_ends_its_stream_while_it_waits_has_left,
    what_lies_unread_hides_no_leave,
    what_is_no_request_hides_no_leave,
    a_place_that_a_client_left_is_free,
    a_client_may_be_allowed_to_close_its_half_and_wait,
    requests_that_were_read_before_the_end_are_answered,
    a_client_may_leave_in_a_pause_of_its_answer,
    a_client_may_leave_between_interim_and_answer,
    a_client_may_leave_in_the_middle_of_an_answer,
    a_client_may_leave_a_pipeline_behind,
    what_a_half_close_cuts_costs_no_answer_before_it,
    an_empty_line_is_nothing_that_was_begun,
    a_crowd_may_leave_at_once,
    what_is_given_up_is_reset_unless_it_may_be_carried_out,
);

// Without those where what the bridge sees of an abort comes with its own timing.
over_tls!(
    a_client_may_leave_in_the_middle_of_a_body,
    a_client_may_leave_while_it_waits,
    a_client_that_ends_its_stream_while_it_waits_has_left,
    what_lies_unread_hides_no_leave,
    what_is_no_request_hides_no_leave,
    a_place_that_a_client_left_is_free,
    a_client_may_be_allowed_to_close_its_half_and_wait,
    requests_that_were_read_before_the_end_are_answered,
    a_client_may_leave_in_a_pause_of_its_answer,
    a_client_may_leave_between_interim_and_answer,
    a_client_may_leave_in_the_middle_of_an_answer,
    a_client_may_leave_a_pipeline_behind,
    an_empty_line_is_nothing_that_was_begun,
    a_crowd_may_leave_at_once,
);

// In front without those about a head that is cut, a pipeline, or one half of a connection.
over_http_2!(
    a_client_may_leave_in_the_middle_of_a_body,
    a_client_may_leave_while_it_waits,
    a_client_that_ends_its_stream_while_it_waits_has_left,
    a_place_that_a_client_left_is_free,
    a_client_may_leave_between_interim_and_answer,
    a_client_may_leave_in_the_middle_of_an_answer,
    a_crowd_may_leave_at_once,
    ; behind:
    what_lies_unread_hides_no_leave,
    what_is_no_request_hides_no_leave,
    a_client_may_be_allowed_to_close_its_half_and_wait,
    requests_that_were_read_before_the_end_are_answered,
    a_client_may_leave_in_a_pause_of_its_answer,
    a_client_may_leave_a_pipeline_behind,
    what_a_half_close_cuts_costs_no_answer_before_it,
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
        client.reset();
        expect_forgotten(&stage, aborts);
    }
}

/// How long it may take to notice that a client has left: each is checked once a second.
const NOTICED: Duration = Duration::from_millis(1_250 + 350);

/// A close, or one half of it: there is no telling the two apart.
fn a_client_that_ends_its_stream_while_it_waits_has_left(driver: Driver) {
    let stage = Stage::on(driver).backend(never_answers()).start();
    let long = "x".repeat(300_000);
    let requests = [get("/"), post("/", "short"), post("/", &long)];
    let mut aborts = 0;
    for request in &requests {
        for closes in [false, true] {
            let mut client = stage.connect();
            client.send(request);
            aborts += 1;
            let requests = || stage.backend(0).requests().len() as u64;
            eventually("it is asked", requests, |requests| *requests == aborts);
            let watch = Watch::start();
            let client = if closes {
                drop(client);
                None
            } else {
                client.half_close();
                Some(client)
            };
            let counted = || stage.count("client_aborts_total");
            eventually("it is noticed", counted, |counted| *counted == aborts);
            watch.took().expect_at_most(NOTICED);
            if let Some(mut client) = client {
                client.expect_end();
            }
            expect_forgotten(&stage, aborts);
        }
    }
}

/// Its next request is in the socket, which is not read before the present answer.
fn what_lies_unread_hides_no_leave(driver: Driver) {
    let stage = Stage::on(driver).backend(never_answers()).start();
    let long = post("/", &"x".repeat(300_000));
    for (request, aborts) in [(get("/1"), 1), (post("/1", "short"), 2), (long, 3)] {
        let mut client = stage.connect();
        client.send(request);
        eventually("it is asked", || stage.backend(0).requests().len(), |asked| *asked == aborts);
        std::thread::sleep(Duration::from_millis(100));
        client.send(get("/2")).half_close();
        stage.expect_count("client_aborts_total", aborts as u64);
        stage.expect_count("backend_in_flight", 0);
        client.expect_gone();
        stage.expect_count("connections", 0);
    }
    assert_eq!(stage.backend(0).requests().len(), 3, "what was not read is not asked");
}

/// An empty line after a request (RFC 9112 §2.2), or the beginning of another request, in the same
/// read.
fn what_is_no_request_hides_no_leave(driver: Driver) {
    let stage = Stage::on(driver).backend(never_answers()).start();
    let requests = [get("/"), post("/", "short"), post("/", &"x".repeat(300_000))];
    let mut aborts = 0;
    for request in &requests {
        for behind in ["\r\n", "\r\n\r\n", "G", "\r\nGET /next HTTP/1.1\r\nHost: a\r\n"] {
            let mut client = stage.connect();
            client.send([request, behind].concat());
            aborts += 1;
            let asked = || stage.backend(0).requests().len() as u64;
            eventually("it is asked", asked, |asked| *asked == aborts);
            let watch = Watch::start();
            client.half_close();
            let counted = || stage.count("client_aborts_total");
            eventually("it is noticed", counted, |counted| *counted == aborts);
            watch.took().expect_at_most(NOTICED);
            client.expect_gone();
            expect_forgotten(&stage, aborts);
        }
    }
    // Nor does the beginning of a request that is now the present one.
    let stage = Stage::on(driver)
        .backend(plays(|visit| {
            while visit.request()?.target() == "/quick" {
                visit.send(ok("ok"))?;
            }
            visit.drain()
        }))
        .start();
    let mut client = stage.connect();
    client.send([&get("/quick"), "GET /"].concat()).response().expect(200, "ok");
    client.send("slow HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is asked", || stage.backend(0).requests().len(), |asked| *asked == 2);
    drop(client);
    stage.expect_count("client_aborts_total", 1);
    stage.expect_count("backend_in_flight", 0);
}

fn a_place_that_a_client_left_is_free(driver: Driver) {
    let stage = Stage::on(driver)
        .each("max-in-flight = 2")
        .backend(plays(|visit| {
            let request = visit.request()?;
            if request.target() == "/quick" {
                return visit
                    .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok");
            }
            visit.drain()
        }))
        .start();
    let clients: Vec<_> = (0..2)
        .map(|_| {
            let mut client = stage.connect();
            client.send(get("/slow"));
            client
        })
        .collect();
    stage.expect_count("backend_in_flight", 2);
    assert_eq!(stage.get("/quick").status, 503);
    drop(clients);
    stage.expect_count("backend_in_flight", 0);
    stage.get("/quick").expect(200, "ok");
}

/// More than two looks at each client.
const LONG: Duration = Duration::from_millis(2_500);

fn a_client_may_be_allowed_to_close_its_half_and_wait(driver: Driver) {
    let stage =
        Stage::on(driver).listener("half-close = true").backend(delays(LONG, "late")).start();
    let mut clients =
        [get("/"), post("/", "short"), post("/", &"x".repeat(300_000))].map(|request| {
            let mut client = stage.connect();
            client.send(request).half_close();
            client
        });
    for client in &mut clients {
        client.response().expect(200, "late");
        client.expect_end();
    }
    assert_eq!(stage.count("client_aborts_total"), 0);
}

fn requests_that_were_read_before_the_end_are_answered(driver: Driver) {
    let stage = Stage::on(driver).backend(delays(LONG, "late")).start();
    let long = post("/1", &"x".repeat(300_000));
    let mut clients = [
        [get("/1"), get("/2")].concat(),
        [post("/1", "short"), get("/2")].concat(),
        [long, get("/2")].concat(),
    ]
    .map(|requests| {
        let mut client = stage.connect();
        client.send(requests);
        client
    });
    // They have been read when the first are asked.
    eventually("they are asked", || stage.backend(0).requests().len(), |asked| *asked == 3);
    std::thread::sleep(Duration::from_millis(100));
    for client in &mut clients {
        client.half_close();
    }
    for client in &mut clients {
        client.response().expect(200, "late");
        client.response().expect(200, "late");
        client.expect_end();
    }
    assert_eq!(stage.count("client_aborts_total"), 0);
}

/// A client that closes a half and reads on is there; one that closes while nothing comes is not.
fn a_client_may_leave_in_a_pause_of_its_answer(driver: Driver) {
    for framing in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
        let piece = if framing.ends_with("chunked") { "5\r\npiece\r\n" } else { "piece" };
        let stage = Stage::on(driver)
            .backend(plays(move |visit| {
                visit.request()?;
                visit.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{piece}"))?;
                for _ in 0..6 {
                    visit.pause(Duration::from_millis(400))?;
                    visit.send(piece)?;
                }
                visit.drain()
            }))
            .start();
        let mut client = stage.connect();
        client.send(get("/"));
        let head = client.response_head("GET").unwrap().head;
        client.half_close();
        for _ in 0..7 {
            if head.lists("transfer-encoding", "chunked") {
                assert_eq!(client.wire().chunk().unwrap(), b"piece");
            } else {
                assert_eq!(client.wire().bytes(5).unwrap(), b"piece");
            }
        }
        expect_forgotten(&stage, 1);
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

/// The answer is in the proxy's send buffer when the connection ends: a reset would destroy it.
fn what_a_half_close_cuts_costs_no_answer_before_it(driver: Driver) {
    const BODY: usize = 48 << 10;
    let long = answers_each(|_| ok("b".repeat(BODY)).into_bytes());
    let stage = Stage::on(driver).listener("half-close = true").backend(long).start();
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

/// RFC 9112 §2.2 allows one before a request; some clients send one after each.
fn an_empty_line_is_nothing_that_was_begun(driver: Driver) {
    let times = "timeouts = { client-header = \"500ms\" }";
    let stage = Stage::on(driver).listener(times).backend(answers("ok")).start();
    let mut client = stage.connect();
    client.send([&get("/"), "\r\n"].concat()).response().expect(200, "ok");
    client.expect_end();
    assert_eq!(stage.count("client_aborts_total"), 0);
}

/// A close would keep our port for a minute (TIME_WAIT), and there are 28,000 of them towards one
/// backend. Of what is to be done there, once it is all there, nothing is dropped.
fn what_is_given_up_is_reset_unless_it_may_be_carried_out(driver: Driver) {
    let ends = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&ends);
    let stage = Stage::on(driver)
        .pool("timeouts = { response = \"1s\" }")
        .backend(plays(move |visit| {
            let (head, framing) = visit.head()?;
            let is_begun = head.start.contains(" /begun ");
            if is_begun {
                visit.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab")?;
            }
            let read = match visit.rest_of(head, framing) {
                Ok(_) => visit.wire().some().map(|bytes| bytes.len()),
                Err(broken) => Err(broken),
            };
            heard.lock().unwrap().push(match read {
                Err(Broken::Reset) => "a reset",
                Ok(0) | Err(Broken::Cut) => "an end",
                Ok(_) | Err(_) => "something else",
            });
            Ok(())
        }))
        .start();
    let part =
        |method: &str| format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab");
    let long = "x".repeat(300_000);
    let cases = [
        (get("/"), true, "a reset"),
        (get("/begun"), true, "a reset"),
        (get("/late"), false, "a reset"),
        (part("POST"), true, "a reset"),
        (part("GET"), true, "a reset"),
        (post("/", "short"), true, "an end"),
        (post("/", &long), true, "an end"),
        (post("/begun", "short"), true, "an end"),
        (post("/late", "short"), false, "an end"),
    ];
    for (asked, (request, leaves, end)) in cases.into_iter().enumerate() {
        let mut client = stage.connect();
        client.send(&request);
        eventually("it is asked", || stage.backend(0).heads().len(), |heads| *heads > asked);
        if leaves {
            if request.contains("/begun ") {
                client.response_head("GET").unwrap();
            }
            drop(client);
        } else {
            client.response().expect_fault(504, "response_timeout");
        }
        eventually("it ends", || ends.lock().unwrap().len(), |ends| *ends > asked);
        let line = request.lines().next();
        assert_eq!(ends.lock().unwrap().last(), Some(&end), "{line:?}");
    }
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
