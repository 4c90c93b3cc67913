//! Plays of limits, each from both sides: what just fits passes, what is one over is refused.
//!
//! Sizes of heads and bodies, counts of connections, and the crowd that tries to use them all up.
//! `early.rs` plays how a refusal reaches a client that still sends.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    backend::Cue,
    client::{Client, get},
    scripts::{answers, answers_on, chunk, sends},
    stage::{Driver, Stage, eventually, long},
    wire::Broken,
};

on_both_drivers!(
    a_head_may_be_so_large_and_no_larger,
    a_head_may_be_larger_than_usual_where_that_is_allowed,
    a_target_may_be_so_long_and_no_longer,
    a_head_may_have_so_many_fields_and_no_more,
    a_length_may_be_so_large_and_no_larger,
    chunks_may_be_so_many_bytes_and_no_more,
    trailers_are_bounded,
    at_the_limit_of_connections_an_idle_one_makes_room,
    at_the_limit_of_connections_a_busy_proxy_says_so,
    a_listener_has_a_limit_of_its_own,
    a_connection_that_ends_makes_room,
    a_crowd_of_slow_heads_does_not_slow_others,
    two_limits_at_once_stay_exact,
    ; at a pace:
    who_is_turned_away_sees_why_whatever_it_sends,
);

fn a_head_may_be_so_large_and_no_larger(driver: Driver) {
    let stage = Stage::on(driver).limits("header-size = \"2KiB\"").backend(answers("ok")).start();
    let empty = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
    for (size, status) in [(2_047, 200), (2_048, 200), (2_049, 431), (4_096, 431)] {
        let mut client = stage.connect();
        let value = "x".repeat(size - empty);
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {value}\r\n\r\n"));
        let response = client.response();
        assert_eq!(response.status, status, "{size} bytes");
        if status == 431 {
            response.expect_fault(431, "head_too_large");
            client.expect_end();
        }
    }
}

fn a_head_may_be_larger_than_usual_where_that_is_allowed(driver: Driver) {
    let large = format!("HTTP/1.1 200 OK\r\nX: {}\r\n", "y".repeat(55_000));
    let stage = Stage::on(driver)
        .limits("header-size = \"60KiB\"")
        .backend(sends([&large, "Content-Length: 2\r\n\r\nok"].concat()))
        .start();
    let mut client = stage.connect();
    for _ in 0..2 {
        let value = "x".repeat(55_000);
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX: {value}\r\n\r\n"));
        let response = client.response();
        response.expect(200, "ok");
        assert_eq!(response.field("x").map(str::len), Some(55_000));
        assert_eq!(stage.last_request().field("x").map(str::len), Some(55_000));
    }
}

fn a_target_may_be_so_long_and_no_longer(driver: Driver) {
    let stage = Stage::on(driver).backend(answers("ok")).start();
    for (size, status) in [(8_000, 200), (16_000, 200), (17_000, 414), (60_000, 414)] {
        let mut client = stage.connect();
        client.send(get(&format!("/{}", "x".repeat(size))));
        let response = client.response();
        assert_eq!(response.status, status, "{size} bytes");
        if status == 414 {
            response.expect_fault(414, "uri_too_long");
            client.expect_end();
        }
    }
}

fn a_head_may_have_so_many_fields_and_no_more(driver: Driver) {
    let stage = Stage::on(driver).limits("headers = 10").backend(answers("ok")).start();
    for (count, status) in [(10, 200), (11, 431), (90, 431)] {
        let mut client = stage.connect();
        let fields = "X: y\r\n".repeat(count - 1);
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        assert_eq!(client.response().status, status, "{count} fields");
    }
}

fn a_length_may_be_so_large_and_no_larger(driver: Driver) {
    let stage = Stage::on(driver).limits("body-size = \"1KiB\"").backend(answers("ok")).start();
    let mut client = stage.connect();
    let request = |size: usize| {
        let body = "x".repeat(size);
        format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n{body}")
    };
    client.send(request(1_024)).response().expect(200, "ok");
    client.send(request(1_025)).response().expect_fault(413, "body_too_large");
    client.expect_end();
    assert_eq!(stage.backend(0).heads().len(), 1, "the second never left");
}

fn chunks_may_be_so_many_bytes_and_no_more(driver: Driver) {
    let stage = Stage::on(driver).limits("body-size = \"1KiB\"").backend(answers("ok")).start();
    let mut client = stage.connect();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (half, last) = (chunk("x".repeat(512)), "0\r\n\r\n");
    client.send([head, &half, &half, last].concat()).response().expect(200, "ok");
    client.send([head, &half, &half, &chunk("x"), last].concat());
    client.response().expect_fault(413, "body_too_large");
    client.expect_end();
    let mut client = stage.connect();
    client.send([head, &chunk("x".repeat(1_025))].concat());
    client.response().expect_fault(413, "body_too_large");
    assert_eq!(stage.backend(0).requests().len(), 1, "no backend takes a part for the whole");
}

fn trailers_are_bounded(driver: Driver) {
    let stage = Stage::on(driver).backend(answers("ok")).start();
    let mut client = stage.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n");
    client.send_what_is_taken("X: y\r\n".repeat(20_000));
    client.response().expect_fault(431, "head_too_large");
    client.expect_end();
    assert!(stage.backend(0).requests().is_empty());
}

fn at_the_limit_of_connections_an_idle_one_makes_room(driver: Driver) {
    let stage = Stage::on(driver).limits("connections = 4").backend(answers("ok")).start();
    let mut clients: Vec<Client> = (0..4).map(|_| stage.connect()).collect();
    for client in &mut clients {
        client.get("/").expect(200, "ok");
    }
    // The first has been used again since: the second is idle longest.
    clients[0].get("/").expect(200, "ok");
    let mut fifth = stage.connect();
    fifth.get("/").expect(200, "ok");
    clients[1].expect_end();
    for index in [0, 2, 3] {
        clients[index].get("/").expect(200, "ok");
    }
    assert_eq!(stage.count("connections_idle_evicted_total"), 1);
}

/// Clients with a request in flight that is not answered before the cue.
fn busy(stage: &Stage, count: usize) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..count).map(|_| stage.connect()).collect();
    for client in &mut clients {
        client.send(get("/"));
    }
    eventually("all ask", || stage.backend(0).requests().len(), |asking| *asking == count);
    clients
}

fn at_the_limit_of_connections_a_busy_proxy_says_so(driver: Driver) {
    let cue = Cue::default();
    let stage = Stage::on(driver).limits("connections = 4").backend(answers_on(&cue, "ok")).start();
    let mut clients = busy(&stage, 4);
    for _ in 0..3 {
        let mut late = stage.connect();
        late.send_what_is_taken(get("/"));
        let response = late.response();
        response.expect_fault(503, "overloaded");
        assert!(response.closes());
        late.expect_end();
    }
    cue.give();
    for client in &mut clients {
        client.response().expect(200, "ok");
    }
    let rejected = stage.count("connections_rejected_total{reason=\"overloaded\"}");
    assert_eq!(rejected, 3);
}

fn a_listener_has_a_limit_of_its_own(driver: Driver) {
    let cue = Cue::default();
    let stage =
        Stage::on(driver).listener("max-connections = 2").backend(answers_on(&cue, "ok")).start();
    let mut clients = busy(&stage, 2);
    let mut late = stage.connect();
    late.send_what_is_taken(get("/")).response().expect_fault(503, "overloaded");
    late.expect_end();
    cue.give();
    for client in &mut clients {
        client.response().expect(200, "ok");
    }
    // Now they are idle, and one of them makes room.
    stage.get("/").expect(200, "ok");
}

fn a_connection_that_ends_makes_room(driver: Driver) {
    let cue = Cue::default();
    let stage = Stage::on(driver).limits("connections = 2").backend(answers_on(&cue, "ok")).start();
    let mut clients = busy(&stage, 2);
    clients.remove(1).reset();
    stage.expect_count("connections", 1);
    cue.give();
    clients[0].response().expect(200, "ok");
    for _ in 0..20 {
        stage.get("/").expect(200, "ok");
    }
}

fn a_crowd_of_slow_heads_does_not_slow_others(driver: Driver) {
    let crowd = if long() { 8_000 } else { 400 };
    let stage = Stage::on(driver)
        .listener("timeouts = { client-header = \"2s\" }")
        .backend(answers("ok"))
        .start();
    let mut crowd: Vec<Client> = (0..crowd).map(|_| stage.connect()).collect();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Each sends a byte now and then, for ever, and a head never ends.
            let head = get("/never");
            for byte in head.as_bytes().iter().take(30) {
                for client in &mut crowd {
                    client.send_what_is_taken([*byte]);
                }
                std::thread::sleep(Duration::from_millis(100));
                if over.load(Ordering::SeqCst) {
                    break;
                }
            }
        });
        let mut good = stage.connect();
        let (since, mut waits) = (Instant::now(), Vec::new());
        while since.elapsed() < Duration::from_millis(2_500) {
            waits.push(good.waits(|client| client.get("/").expect(200, "ok")));
        }
        over.store(true, Ordering::SeqCst);
        waits.into_iter().for_each(|took| took.expect_at_most(Duration::from_millis(500)));
    });
    for client in &mut crowd {
        match client.try_response() {
            Ok(response) => response.expect_fault(408, "request_timeout"),
            // More was sent than is accepted, or nothing before it was too late.
            Err((broken, _)) => assert!(matches!(broken, Broken::Reset | Broken::Ended)),
        }
    }
}

/// At both limits a connection used to be closed to make room, the newcomer refused all the same,
/// and its permit returned twice.
fn two_limits_at_once_stay_exact(driver: Driver) {
    let cue = Cue::default();
    let stage = Stage::on(driver)
        .limits("connections = 3")
        .listener("max-connections = 1")
        .sections("[listener.other]\nbind = \"127.0.0.1:0\"\npool = \"app\"")
        .backend(answers_on(&cue, "ok"))
        .start();
    let other = || Client::connect(stage.address_of("other"));
    let overloaded = |mut client: Client| {
        client.send_what_is_taken(get("/")).response().expect_fault(503, "overloaded");
    };
    let mut asking = vec![stage.connect(), other()];
    for client in &mut asking {
        client.send(get("/"));
    }
    eventually("both ask", || stage.backend(0).requests().len(), |count| *count == 2);
    // An idle one of the other listener makes no room if one's own listener is full.
    for _ in 0..3 {
        let mut idle = other();
        idle.send("OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n");
        assert_eq!(idle.response().status, 204);
        overloaded(stage.connect());
        drop(idle);
        stage.expect_count("connections", 2);
    }
    assert_eq!(stage.count("connections_idle_evicted_total"), 0);
    asking.push(other());
    asking[2].send(get("/"));
    eventually("three ask", || stage.backend(0).requests().len(), |count| *count == 3);
    overloaded(other());
    cue.give();
    for client in &mut asking {
        client.response().expect(200, "ok");
    }
}

/// A client that was refused with 503 and went on sending used to be reset before it could read
/// that.
fn who_is_turned_away_sees_why_whatever_it_sends(driver: Driver, _: u32) {
    let cue = Cue::default();
    let stage = Stage::on(driver).limits("connections = 1").backend(answers_on(&cue, "ok")).start();
    let mut asking = stage.connect();
    asking.send(get("/"));
    eventually("one asks", || stage.backend(0).requests().len(), |count| *count == 1);
    for _ in 0..5 {
        let mut client = stage.connect();
        // Sent when the answer has arrived and the connection, apart from lingering, is closed.
        thread::sleep(Duration::from_millis(20));
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
        for _ in 0..10 {
            client.send([b'x'; 10_000]);
        }
        client.response().expect_fault(503, "overloaded");
        client.expect_end();
    }
    cue.give();
    asking.response().expect(200, "ok");
}
