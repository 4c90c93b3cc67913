//! Plays of response poisoning: a backend sends more than its answer, and no client may get it.
//!
//! The surplus is an answer of its own. What a read takes together with the end of the answer is
//! noticed at once; these answers end with a full read or are spliced, so that the surplus stays in
//! the socket. Many clients ask at once, so that a returned connection is taken at once.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    backend::{Cue, Script, plays},
    client::{Client, get},
    scripts::{answers_each, ok},
    stage::{Driver, Stage, eventually, long},
};

on_both_drivers!(
    what_lies_behind_an_answer_is_nobodys_answer,
    what_lies_behind_an_answer_is_not_the_answer_of_a_request_in_the_queue,
    what_lies_behind_an_answer_is_not_the_answer_of_a_request_in_the_pipeline,
    what_comes_a_moment_later_is_nobodys_answer,
    one_surplus_that_is_seen_ends_all_shifts,
    answers_that_end_with_a_read_cost_no_connection,
    a_new_connection_rests_after_its_first_answer,
);

const CLIENTS: usize = 16;

const REUSED: &str = "backend_connection_reuse_total";
const OPENED: &str = "backend_connections_opened_total";
const UNASKED: &str = "backend_connections_closed_total{reason=\"unasked\"}";
const SUSPECTED: &str = "backend_connections_closed_total{reason=\"suspected\"}";

/// Most bytes that the proxy reads at once.
const READ: usize = 64 << 10;

/// How a backend frames its answer to a target; both times the body is `body_of`.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// By a length; the body is this long.
    Body(usize),
    /// By a length; the whole answer is this long.
    Whole(usize),
    /// Like `Body`, from a backend of HTTP/1.0 that keeps its connections.
    Old(usize),
    /// By one chunk; the whole answer is this long.
    Chunked(usize),
}

const SHAPES: [Shape; 10] = [
    Shape::Body(2),
    Shape::Whole(READ),
    Shape::Whole(READ - 1),
    Shape::Whole(READ + 1),
    Shape::Whole(2 * READ),
    Shape::Chunked(READ),
    Shape::Chunked(2 * READ),
    Shape::Body(96 << 10),
    Shape::Body(300_000),
    Shape::Old(300_000),
];

impl Shape {
    /// The answer to a target.
    fn answer(self, target: &str) -> Vec<u8> {
        match self {
            Shape::Body(length) => with_length("1.1", "", target, length),
            Shape::Old(length) => with_length("1.0", "Connection: keep-alive\r\n", target, length),
            Shape::Whole(whole) => {
                let head = with_length("1.1", "", target, whole).len() - whole;
                with_length("1.1", "", target, whole - head)
            }
            Shape::Chunked(whole) => {
                let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                // The size of the chunk is written with all digits, so that it always has the same
                // length.
                let body = body_of(target, whole - head.len() - "00000\r\n\r\n0\r\n\r\n".len());
                [format!("{head}{:05x}\r\n", body.len()).as_bytes(), &body, b"\r\n0\r\n\r\n"]
                    .concat()
            }
        }
    }
}

fn with_length(version: &str, fields: &str, target: &str, length: usize) -> Vec<u8> {
    // Always as many digits, so that the head always has the same length.
    let head = format!("HTTP/{version} 200 OK\r\n{fields}Content-Length: {length:07}\r\n\r\n");
    [head.as_bytes(), &body_of(target, length)].concat()
}

/// A body that says which request it answers.
fn body_of(target: &str, length: usize) -> Vec<u8> {
    target.bytes().chain(std::iter::repeat(b'.')).take(length).collect()
}

fn surplus() -> Vec<u8> {
    ok("poison").into_bytes()
}

/// Each answer has a surplus after it, in the same write.
fn poisons(shape: Shape) -> Script {
    answers_each(move |request| [shape.answer(request.target()), surplus()].concat())
}

/// Asks for a target and checks that the answer is the right one, by the start of its body.
fn ask(client: &mut Client, target: &str) {
    expect_own(client.send(get(target)), target);
}

#[track_caller]
fn expect_own(client: &mut Client, target: &str) {
    let response = client.response();
    let begins = String::from_utf8_lossy(&response.body[..response.body.len().min(16)]);
    assert_eq!(response.status, 200, "{begins}");
    let of_target = &target.as_bytes()[..response.body.len().min(target.len())];
    assert!(response.body.starts_with(of_target), "{target} was answered {begins}");
}

/// Sixteen clients ask at once, each `rounds` times on one connection.
fn all_ask(stage: &Stage, rounds: usize) {
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            scope.spawn(move || {
                let mut client = stage.connect();
                for round in 0..rounds {
                    ask(&mut client, &format!("/{number}/{round}"));
                }
            });
        }
    });
}

fn what_lies_behind_an_answer_is_nobodys_answer(driver: Driver) {
    let rounds = if long() { 500 } else { 12 };
    for shape in SHAPES {
        let stage = Stage::on(driver).backend(poisons(shape)).start();
        all_ask(&stage, rounds);
        let asked = (CLIENTS * rounds) as u64;
        assert_eq!(stage.count(OPENED), asked, "{shape:?}: none may be used again");
    }
}

/// A request in the queue is called in the turn in which the connection is returned.
fn what_lies_behind_an_answer_is_not_the_answer_of_a_request_in_the_queue(driver: Driver) {
    for shape in [Shape::Whole(READ), Shape::Body(300_000)] {
        let stage = Stage::on(driver)
            .each("max-in-flight = 2")
            .pool("queue = { size = 16, timeout = \"1m\" }")
            .backend(poisons(shape))
            .start();
        all_ask(&stage, 12);
    }
}

fn what_lies_behind_an_answer_is_not_the_answer_of_a_request_in_the_pipeline(driver: Driver) {
    for shape in SHAPES {
        let stage = Stage::on(driver).backend(poisons(shape)).start();
        let mut client = stage.connect();
        let targets: Vec<String> = (0..20).map(|number| format!("/{number}/")).collect();
        client.send(targets.iter().map(|target| get(target)).collect::<String>());
        for target in &targets {
            expect_own(&mut client, target);
        }
    }
}

/// The surplus comes alone, before the next request is sent. (Bytes that come while a request is on
/// its way to the backend cannot be told from its answer.)
fn what_comes_a_moment_later_is_nobodys_answer(driver: Driver) {
    let rounds = if long() { 200 } else { 10 };
    for shape in [Shape::Body(2), Shape::Whole(READ), Shape::Chunked(READ), Shape::Body(300_000)] {
        let said = Arc::new(AtomicUsize::new(0));
        let (tell, asked) = (Arc::clone(&said), AtomicUsize::new(0));
        let backend = plays(move |visit| {
            loop {
                let request = visit.request()?;
                // Each connection is in use in each round: none is taken between its two answers.
                let round = asked.fetch_add(1, SeqCst) / CLIENTS + 1;
                while asked.load(SeqCst) < CLIENTS * round {
                    visit.pause(Duration::from_millis(1))?;
                }
                visit.send(shape.answer(request.target()))?;
                visit.pause(Duration::from_millis(1))?;
                visit.send(surplus())?;
                tell.fetch_add(1, SeqCst);
            }
        });
        let stage = Stage::on(driver).backend(backend).start();
        thread::scope(|scope| {
            for number in 0..CLIENTS {
                let (stage, said) = (&stage, &said);
                scope.spawn(move || {
                    let mut client = stage.connect();
                    for round in 1..=rounds {
                        ask(&mut client, &format!("/{number}/{round}"));
                        // All of them have been answered, and sent more than that.
                        let is_said = |said: &usize| *said >= CLIENTS * round;
                        eventually("all surpluses are sent", || said.load(SeqCst), is_said);
                    }
                });
            }
        });
        let asked = (CLIENTS * rounds) as u64;
        assert_eq!(stage.count(OPENED), asked, "{shape:?}: none may be used again");
        let closed = || stage.count(UNASKED) + stage.count(SUSPECTED);
        eventually("all are closed", closed, |closed| *closed == asked);
    }
}

/// A surplus that comes while the next request is on its way is taken for its answer; from then on
/// each answer is that of the request before. The first surplus that is noticed ends this on all
/// connections.
fn one_surplus_that_is_seen_ends_all_shifts(driver: Driver) {
    let cue = Cue::default();
    let wait = cue.clone();
    let backend = plays(move |visit| {
        loop {
            let request = visit.request()?;
            if request.target() == "/seen" {
                visit.send([ok("/seen"), ok("poison")].concat())?;
                return visit.drain();
            }
            if request.target() == "/held" {
                visit.wait_for(&wait)?;
            }
            visit.send(ok(request.target()))?;
            // Longer than a new connection rests, so that the next request is on its way.
            visit.pause(Duration::from_millis(if visit.served() == 1 { 20 } else { 1 }))?;
            visit.send(surplus())?;
        }
    });
    let stage = Stage::on(driver).pool("retry = { attempts = 1 }").backend(backend).start();
    let mut held = stage.connect();
    held.send(get("/held"));
    eventually("it is asked", || stage.backend(0).requests().len(), |asked| *asked == 1);
    ask(&mut stage.connect(), "/seen");
    stage.expect_count(UNASKED, 1);
    // A connection in use at that moment is not reused either, nor is a new one.
    cue.give();
    expect_own(&mut held, "/held");
    for round in 0..5 {
        ask(&mut held, &format!("/held/{round}"));
    }
    all_ask(&stage, 12);
    assert_eq!(stage.count(REUSED), 0);
    // On a busy machine a surplus may still come together with its answer.
    let asked = (2 + 5 + CLIENTS * 12) as u64;
    let closed = || stage.count(UNASKED) + stage.count(SUSPECTED);
    eventually("none is kept", closed, |closed| *closed == asked);
}

/// A backend that sends just its answers loses nothing by the distrust of others.
fn answers_that_end_with_a_read_cost_no_connection(driver: Driver) {
    for shape in [Shape::Body(2), Shape::Whole(READ), Shape::Chunked(READ), Shape::Body(96 << 10)] {
        for each in ["max-in-flight = 1000", "max-in-flight = 4"] {
            let backend = answers_each(move |request| shape.answer(request.target()));
            let stage = Stage::on(driver)
                .each(each)
                .pool("queue = { size = 16, timeout = \"1m\" }")
                .backend(backend)
                .start();
            all_ask(&stage, 15);
            let (opened, reused) = (stage.count(OPENED), stage.count(REUSED));
            assert!(opened <= CLIENTS as u64, "{shape:?}: {opened} connections were opened");
            assert_eq!(opened + reused, (CLIENTS * 15) as u64);
            for why in ["unasked", "closed"] {
                let closed = format!("backend_connections_closed_total{{reason=\"{why}\"}}");
                assert_eq!(stage.count(&closed), 0, "{shape:?}");
            }
        }
    }
}

/// Once in the life of a connection its backend has a moment to show that it sends more than its
/// answers. A busy machine only makes that longer.
fn a_new_connection_rests_after_its_first_answer(driver: Driver) {
    let rested = Arc::new(Mutex::new(Vec::new()));
    let rests = Arc::clone(&rested);
    let backend = plays(move |visit| {
        let mut answered = None;
        loop {
            visit.request()?;
            if visit.served() == 2 {
                rests.lock().unwrap().extend(answered.map(|since: Instant| since.elapsed()));
            }
            answered = Some(Instant::now());
            visit.send(ok("well"))?;
        }
    });
    let stage = Stage::on(driver).backend(backend).start();
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = stage.connect();
                (0..20).for_each(|_| client.get("/").expect(200, "well"));
            });
        }
    });
    assert!(stage.count(OPENED) <= CLIENTS as u64);
    let rested = rested.lock().unwrap();
    assert!(!rested.is_empty());
    assert!(rested.iter().all(|time| *time >= Duration::from_millis(8)), "{rested:?}");
}
