//! Plays of the stop: running requests are finished, clients that ask again are told, and the port
//! is free.
//!
//! Graceful and at once, through the handle of the library; `process.rs` plays the signals of the
//! binary. Starting where another process listens is here too: it is about the same port.

use std::{
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use ringway::Stop;

use crate::{
    backend::{Cue, plays},
    client::{Client, get},
    pace::Took,
    scripts::{answers, answers_on, delays, never_answers, ok},
    stage::{Driver, Stage, eventually, expect_closed},
};

on_both_drivers!(
    an_idle_proxy_stops_at_once,
    what_runs_is_finished_and_told_that_it_was_the_last,
    a_connection_idle_for_long_is_closed,
    clients_that_keep_asking_see_no_error,
    a_drain_has_an_end,
    a_stop_now_waits_for_nobody,
    the_port_is_free_afterwards,
    two_proxies_on_one_port_are_refused,
    an_address_that_is_not_ours_is_refused,
    a_client_that_is_let_in_is_served_by_a_stop,
    ; at a pace:
    a_kept_connection_is_told_on_its_next_answer,
    clients_in_the_queue_are_served,
);

// In front without those whose clients hear of the end by an answer.
over_http_2!(
    an_idle_proxy_stops_at_once,
    what_runs_is_finished_and_told_that_it_was_the_last,
    a_connection_idle_for_long_is_closed,
    a_drain_has_an_end,
    a_stop_now_waits_for_nobody,
    ; behind:
    clients_that_keep_asking_see_no_error,
    a_client_that_is_let_in_is_served_by_a_stop,
);

const SOON: Duration = Duration::from_secs(2);

fn an_idle_proxy_stops_at_once(driver: Driver) {
    for how in [Stop::Graceful, Stop::Now] {
        let mut stage = Stage::on(driver).cores(2).backend(answers("ok")).start();
        stage.get("/").expect(200, "ok");
        stage.stop_beside(how).join().unwrap().0.expect_at_most(SOON);
    }
}

fn what_runs_is_finished_and_told_that_it_was_the_last(driver: Driver) {
    let cue = Cue::default();
    let mut stage = Stage::on(driver).backend(answers_on(&cue, "finished")).start();
    let mut client = stage.connect();
    client.send(get("/"));
    eventually("it is asked", || stage.backend(0).requests().len(), |requests| *requests == 1);
    let stopping = stage.stop_beside(Stop::Graceful);
    expect_closed(stage.address());
    client.expect_silence(Duration::from_millis(300));
    cue.give();
    let response = client.response();
    response.expect(200, "finished");
    assert!(response.closes());
    client.expect_end();
    expect_finished(stopping);
}

/// A stop closes clients that have been idle for a second: one that asks later is not told.
fn a_kept_connection_is_told_on_its_next_answer(driver: Driver, _: u32) {
    let cue = Cue::default();
    let slow = {
        let cue = cue.clone();
        plays(move |visit| {
            loop {
                if visit.request()?.target() == "/slow" {
                    visit.wait_for(&cue)?;
                }
                visit.send(ok("ok"))?;
            }
        })
    };
    let mut stage = Stage::on(driver).backend(slow).start();
    let mut busy = stage.connect();
    busy.send(get("/slow"));
    eventually("it is asked", || stage.backend(0).requests().len(), |requests| *requests == 1);
    let mut kept = stage.connect();
    assert!(!kept.get("/").closes());
    let stopping = stage.stop_beside(Stop::Graceful);
    expect_closed(stage.address());
    let last = kept.get("/");
    last.expect(200, "ok");
    assert!(last.closes());
    kept.expect_end();
    cue.give();
    busy.response().expect(200, "ok");
    expect_finished(stopping);
}

fn a_connection_idle_for_long_is_closed(driver: Driver) {
    let mut stage = Stage::on(driver).backend(answers("ok")).start();
    let mut idle = stage.connect();
    idle.get("/").expect(200, "ok");
    let stopping = stage.stop_beside(Stop::Graceful);
    idle.waits(Client::expect_end).expect_at_most(SOON);
    expect_finished(stopping);
}

fn clients_in_the_queue_are_served(driver: Driver, _: u32) {
    let mut stage = Stage::on(driver).backend(answers("ok")).start();
    let mut clients: Vec<Client> = (0..200).map(|_| stage.connect()).collect();
    let stopping = stage.stop_beside(Stop::Graceful);
    for client in &mut clients {
        client.send(get("/"));
    }
    for client in &mut clients {
        client.response().expect(200, "ok");
        client.expect_end();
    }
    expect_finished(stopping);
}

fn clients_that_keep_asking_see_no_error(driver: Driver) {
    let mut stage =
        Stage::on(driver).cores(2).backend(delays(Duration::from_millis(2), "ok")).start();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let mut client = stage.connect();
            std::thread::spawn(move || {
                let mut answers = 0;
                loop {
                    let response = client.get("/");
                    response.expect(200, "ok");
                    answers += 1;
                    if response.closes() {
                        client.expect_end();
                        return answers;
                    }
                }
            })
        })
        .collect();
    let asked = || stage.backend(0).requests().len();
    eventually("all are asking", asked, |requests| *requests > 100);
    let stopping = stage.stop_beside(Stop::Graceful);
    for client in clients {
        assert!(client.join().unwrap() > 0);
    }
    expect_finished(stopping);
}

fn a_drain_has_an_end(driver: Driver) {
    let mut stage = Stage::on(driver)
        .global("shutdown = { drain = \"500ms\" }")
        .backend(never_answers())
        .start();
    let mut client = stage.connect();
    client.send(get("/"));
    eventually("it is asked", || stage.backend(0).requests().len(), |requests| *requests == 1);
    let (took, finished) = stage.stop_beside(Stop::Graceful).join().unwrap();
    assert!(!finished, "{took:?}");
    took.expect_at_least(Duration::from_millis(450));
    took.expect_at_most(SOON);
    // Told or cut, but not left hanging.
    if let Ok(response) = client.try_response() {
        response.expect_fault(503, "shutting_down");
    }
}

fn a_stop_now_waits_for_nobody(driver: Driver) {
    let mut stage = Stage::on(driver).cores(2).backend(never_answers()).start();
    let mut waiting = stage.connect();
    waiting.send(get("/"));
    let mut half = stage.connect();
    half.send("GET / HT");
    let idle = stage.connect();
    eventually("it is asked", || stage.backend(0).requests().len(), |requests| *requests == 1);
    let (took, _) = stage.stop_beside(Stop::Now).join().unwrap();
    took.expect_at_most(SOON);
    for mut client in [waiting, half, idle] {
        assert!(client.try_response().is_err());
    }
}

fn the_port_is_free_afterwards(driver: Driver) {
    let mut stage = Stage::on(driver).cores(2).backend(answers("first")).start();
    let address = stage.address();
    stage.get("/").expect(200, "first");
    expect_finished(stage.stop_beside(Stop::Graceful));
    expect_closed(stage.address());
    let again = Stage::on(driver).cores(2).bind(address).backend(answers("second")).start();
    again.get("/").expect(200, "second");
}

fn two_proxies_on_one_port_are_refused(driver: Driver) {
    let first = Stage::on(driver).cores(2).backend(answers("first")).start();
    let second = Stage::on(driver).bind(first.address()).backend(answers("second")).try_start();
    let error = second.err().expect("two on one port");
    assert!(error.contains(&first.address().to_string()), "{error}");
    for _ in 0..20 {
        first.get("/").expect(200, "first");
    }
    assert_eq!(first.backend(0).requests().len(), 20);
}

fn an_address_that_is_not_ours_is_refused(driver: Driver) {
    let elsewhere = "192.0.2.1:8080".parse().unwrap();
    let stage = Stage::on(driver).bind(elsewhere).backend(answers("never")).try_start();
    assert!(stage.err().expect("an address of nobody").contains("192.0.2.1:8080"));
}

/// Fails unless the proxy stops before long, and because everything had finished.
#[track_caller]
fn expect_finished(stopping: JoinHandle<(Took, bool)>) {
    let (took, finished) = stopping.join().unwrap();
    assert!(finished, "{took:?}");
    took.expect_at_most(2 * SOON);
}

/// A drain that found no open connection used to end before it had looked into the accept queue.
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
