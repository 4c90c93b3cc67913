//! Plays of what a reviewer suspected: each was a defect once, or nearly.
//!
//! They stand together because they have nothing else in common than how they were found; each
//! says what went wrong.

use std::{
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use ringway::Stop;

use crate::{
    backend::{Cue, plays},
    client::{Client, get},
    scripts::{answers, answers_each, answers_on, chunk, ok, sends},
    stage::{Driver, Stage, eventually, expect_about},
    wire::Broken,
};

on_both_drivers!(
    a_body_that_is_asked_for_again_is_sent_again,
    a_response_head_has_an_end_even_behind_an_upload,
    an_answer_cut_for_its_clients_fault_does_not_look_whole,
    a_request_ends_though_its_client_does_not_read,
    urgent_data_in_a_long_answer_cuts_it,
    two_limits_at_once_stay_exact,
    a_client_that_is_let_in_is_served_by_a_stop,
    a_backend_that_says_nothing_to_an_expectation_is_at_fault,
    ; at a pace:
    a_body_that_cannot_be_sent_again_goes_on_a_young_connection,
    who_is_turned_away_sees_why_whatever_it_sends,
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
    thread::sleep(Duration::from_millis(100));
    let took = client.waits(|client| {
        client.send("0\r\n\r\n").response().expect_fault(504, "response_timeout");
    });
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
        assert_eq!(client.response_head("GET").unwrap().status, 200);
        stage.expect_count("connections", 0);
    });
    expect_about(took, Duration::from_millis(500));
}

/// On epoll the relay of a long answer span for ever: readable, and nothing to splice.
fn urgent_data_in_a_long_answer_cuts_it(driver: Driver) {
    let stage = Stage::on(driver)
        .backend(plays(|visit| {
            visit.request()?;
            visit.send([HEAD, "Content-Length: 1000000\r\n\r\n"].concat())?;
            visit.send([b'x'; 200_000])?;
            visit.pause(Duration::from_millis(100))?;
            visit.urgent(b'!');
            visit.send([b'x'; 200_000])?;
            visit.drain()
        }))
        .start();
    let mut client = stage.connect();
    client.send(get("/"));
    let end = client.try_response();
    assert!(matches!(end, Err((Broken::Cut | Broken::Reset, Some(_)))), "{end:?}");
}

/// At both limits a connection was closed to make room, the newcomer refused all the same, and its
/// permit given back twice.
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
    // An idle one of the other listener makes room for nobody whose own listener is full.
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

/// A drain that found no connection open was over before it had looked into the queue.
fn a_client_that_is_let_in_is_served_by_a_stop(driver: Driver) {
    for _ in 0..10 {
        let mut stage = Stage::on(driver).backend(answers("served")).start();
        let address = stage.address();
        let served = Arc::new(AtomicUsize::new(0));
        let hammering: Vec<_> = (0..4)
            .map(|_| {
                let served = Arc::clone(&served);
                thread::spawn(move || hammer(address, &served))
            })
            .collect();
        eventually("they hammer", || served.load(SeqCst), |served| *served > 20);
        let stopping = stage.stop_beside(Stop::Graceful);
        assert!(stopping.join().unwrap().1, "it finished by itself");
        for hammer in hammering {
            hammer.join().unwrap();
        }
    }
}

/// Asks on connection after connection until none is made; each must be served.
fn hammer(address: SocketAddr, served: &AtomicUsize) {
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        let mut client = Client::over(stream);
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        client.response().expect(200, "served");
        served.fetch_add(1, SeqCst);
    }
}

/// The client, which rightly waited for 100 (Continue), was told that it was late.
fn a_backend_that_says_nothing_to_an_expectation_is_at_fault(driver: Driver) {
    let stage = Stage::on(driver)
        .listener("timeouts = { client-body = \"500ms\" }")
        .backend(plays(|visit| {
            visit.head()?;
            visit.drain()
        }))
        .start();
    let mut client = stage.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    client.response().expect_fault(504, "response_timeout");
}

/// A body that is streamed is as little repeatable as a POST, whatever the method.
fn a_body_that_cannot_be_sent_again_goes_on_a_young_connection(driver: Driver, _: u32) {
    let stage = Stage::on(driver).backend(answers("ok")).start();
    let mut client = stage.connect();
    client.get("/").expect(200, "ok");
    let put = "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    client.send(put).response().expect(200, "ok");
    assert_eq!(stage.backend(0).visits(), 1);
    thread::sleep(Duration::from_millis(1_500));
    client.send(put).response().expect(200, "ok");
    assert_eq!(stage.backend(0).visits(), 2);
}

/// A client that was turned away with 503 and sent on was reset before it could read that.
fn who_is_turned_away_sees_why_whatever_it_sends(driver: Driver, _: u32) {
    let cue = Cue::default();
    let stage = Stage::on(driver).limits("connections = 1").backend(answers_on(&cue, "ok")).start();
    let mut asking = stage.connect();
    asking.send(get("/"));
    eventually("one asks", || stage.backend(0).requests().len(), |count| *count == 1);
    for _ in 0..5 {
        let mut client = stage.connect();
        // Sent when the answer is there and the connection, but for us, closed.
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
