//! Plays of balancing: shares, weights, and what happens when a backend cannot be reached.
//!
//! Seen from the backends: how many requests each received, and which were asked twice. The tables
//! of `policy` test the order itself.

use std::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    time::Duration,
};

use crate::{
    backend::Script,
    client::post,
    scripts::{answers, delays, sends, sends_and_closes, sends_and_resets},
    stage::{Driver, Stage},
};

on_both_drivers!(
    requests_go_round,
    processes_begin_anywhere,
    a_backend_that_fails_at_once_attracts_nobody,
    weights_are_shares,
    a_weight_of_nought_gets_nothing,
    a_refused_connection_is_retried_on_the_next_backend,
    a_backend_that_refuses_is_skipped,
    a_post_is_retried_where_nothing_was_sent,
    a_backend_that_closes_before_an_answer_is_replaced_for_a_get,
    a_backend_that_closes_before_an_answer_is_not_replaced_for_a_post,
    attempts_are_counted_and_bounded,
    without_retry_the_first_fault_stands,
    an_answer_is_an_answer_whatever_its_status,
    a_pool_without_a_backend_says_so,
    a_backend_that_comes_too_late_is_replaced,
);

#[track_caller]
fn shares(stage: &Stage, count: usize, backends: usize) -> Vec<usize> {
    for _ in 0..count {
        assert_eq!(stage.get("/").status, 200);
    }
    (0..backends).map(|index| stage.backend(index).requests().len()).collect()
}

fn requests_go_round(driver: Driver) {
    let stage =
        Stage::on(driver).backend(answers("a")).backend(answers("b")).backend(answers("c")).start();
    let mut client = stage.connect();
    let order: Vec<String> = (0..6).map(|_| client.get("/").text().to_owned()).collect();
    assert_eq!(order[..3], order[3..]);
    assert_eq!(shares(&stage, 24, 3), [10, 10, 10]);
}

/// All processes used to ask the first backend first.
fn processes_begin_anywhere(driver: Driver) {
    let first = || {
        let setting = Stage::on(driver).backend(answers("a")).backend(answers("b"));
        setting.backend(answers("c")).start().get("/").text().to_owned()
    };
    let firsts: Vec<String> = (0..16).map(|_| first()).collect();
    assert!(firsts.iter().any(|name| *name != firsts[0]), "16 begin with {}", firsts[0]);
}

/// It never has anything in flight, and used to look like the least busy of all.
fn a_backend_that_fails_at_once_attracts_nobody(driver: Driver) {
    for (balance, cores) in [("least-connections", 1), ("least-connections", 2), ("random", 1)] {
        let stage = Stage::on(driver)
            .cores(cores)
            .pool(&format!("balance = \"{balance}\""))
            .backend(sends("HTTP/1.1 500 No\r\nContent-Length: 1\r\n\r\na"))
            .backend(delays(Duration::from_millis(20), "b"))
            .backend(delays(Duration::from_millis(20), "c"))
            .start();
        let failed = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut client = stage.connect();
                    let statuses = (0..30).map(|_| client.get("/").status);
                    failed.fetch_add(statuses.filter(|status| *status == 500).count(), SeqCst);
                });
            }
        });
        let failed = failed.into_inner();
        assert!(failed <= 60, "{balance}, {cores} cores: {failed} of 240, a share would be 80");
    }
}

fn weights_are_shares(driver: Driver) {
    let stage = Stage::on(driver).weighted(answers("a"), 3).weighted(answers("b"), 1).start();
    let order: String = (0..8).map(|_| stage.get("/").text().to_owned()).collect();
    // Smooth: the light one comes between the turns of the heavy one, not after them all.
    assert!(!order.contains("aaaa"), "{order}");
    assert_eq!(shares(&stage, 32, 2), [30, 10]);
}

fn a_weight_of_nought_gets_nothing(driver: Driver) {
    let stage = Stage::on(driver).weighted(answers("a"), 0).backend(answers("b")).start();
    assert_eq!(shares(&stage, 10, 2), [0, 10]);
}

fn a_refused_connection_is_retried_on_the_next_backend(driver: Driver) {
    let stage = Stage::on(driver).backend(Script::Refuses).backend(answers("b")).start();
    let mut client = stage.connect();
    for _ in 0..20 {
        client.get("/").expect(200, "b");
    }
    let failures = stage.count("backend_connect_failures_total");
    assert!(failures > 0);
    assert_eq!(stage.count("retries_total"), failures);
}

fn a_backend_that_refuses_is_skipped(driver: Driver) {
    let stage = Stage::on(driver).backend(Script::Refuses).backend(answers("b")).start();
    let mut client = stage.connect();
    for _ in 0..100 {
        client.get("/").expect(200, "b");
    }
    let failures = stage.count("backend_connect_failures_total");
    assert!(failures < 20, "{failures} connections were tried of at most 50");
}

fn a_post_is_retried_where_nothing_was_sent(driver: Driver) {
    let stage = Stage::on(driver).backend(Script::Refuses).backend(answers("b")).start();
    let mut client = stage.connect();
    for _ in 0..4 {
        client.send(post("/", "body")).response().expect(200, "b");
    }
    for request in stage.backend(1).requests() {
        assert_eq!(request.body, b"body", "the body goes to whom it is for");
    }
}

fn a_backend_that_closes_before_an_answer_is_replaced_for_a_get(driver: Driver) {
    for script in [sends_and_closes(""), sends_and_resets("")] {
        let stage = Stage::on(driver).backend(script).backend(answers("b")).start();
        let mut client = stage.connect();
        for _ in 0..10 {
            client.get("/").expect(200, "b");
        }
        let closed = stage.backend(0).requests().len() as u64;
        assert!(closed >= 1);
        assert_eq!(stage.count("retries_total"), closed);
    }
}

fn a_backend_that_closes_before_an_answer_is_not_replaced_for_a_post(driver: Driver) {
    let stage = Stage::on(driver).backend(sends_and_closes("")).backend(answers("b")).start();
    let mut client = stage.connect();
    let statuses: Vec<u16> =
        (0..4).map(|_| client.send(post("/", "body")).response().status).collect();
    let faults = statuses.iter().filter(|status| **status == 502).count();
    let asked = [0, 1].map(|index| stage.backend(index).requests().len());
    assert_eq!(asked, [faults, 4 - faults], "each was sent once: {statuses:?}");
    assert!(faults >= 1);
}

fn attempts_are_counted_and_bounded(driver: Driver) {
    let stage = Stage::on(driver)
        .pool("retry = { attempts = 3 }")
        .backend(sends_and_closes(""))
        .backend(sends_and_closes(""))
        .backend(sends_and_closes(""))
        .backend(sends_and_closes(""))
        .start();
    stage.get("/").expect_fault(502, "backend_reset");
    let asked: Vec<usize> = (0..4).map(|index| stage.backend(index).requests().len()).collect();
    assert_eq!(asked.iter().sum::<usize>(), 3, "{asked:?}");
    assert!(asked.iter().all(|count| *count <= 1), "each at most once: {asked:?}");
    assert_eq!(stage.count("retries_total"), 2);
}

fn without_retry_the_first_fault_stands(driver: Driver) {
    let stage = Stage::on(driver)
        .pool("retry = { attempts = 1 }")
        .backend(Script::Refuses)
        .backend(answers("b"))
        .start();
    let statuses: Vec<u16> = (0..2).map(|_| stage.get("/").status).collect();
    assert!(statuses.contains(&502) && statuses.contains(&200), "{statuses:?}");
    assert_eq!(stage.count("retries_total"), 0);
}

fn an_answer_is_an_answer_whatever_its_status(driver: Driver) {
    for status in [500, 502, 503, 504, 404, 429] {
        let raw = format!("HTTP/1.1 {status} Its Own\r\nContent-Length: 4\r\n\r\nmine");
        let stage = Stage::on(driver).backend(sends(raw.clone())).backend(sends(raw)).start();
        stage.get("/").expect(status, "mine");
        assert_eq!(stage.count("retries_total"), 0);
    }
    let raw = "HTTP/1.1 503 Its Own\r\nContent-Length: 4\r\n\r\nmine";
    let asking = "retry = { attempts = 2, on = [\"503\"] }";
    let stage = Stage::on(driver).pool(asking).backend(sends(raw)).backend(answers("b")).start();
    for _ in 0..4 {
        stage.get("/").expect(200, "b");
    }
    let stage = Stage::on(driver).pool(asking).backend(sends(raw)).backend(sends(raw)).start();
    stage.get("/").expect(503, "mine");
}

fn a_pool_without_a_backend_says_so(driver: Driver) {
    let stage = Stage::on(driver).weighted(answers("a"), 0).weighted(answers("b"), 0).start();
    let mut client = stage.connect();
    for _ in 0..3 {
        let response = client.get("/");
        response.expect_fault(503, "no_backend");
        assert!(response.text().contains("No healthy backends available"));
    }
    client.half_close().expect_end();
}

fn a_backend_that_comes_too_late_is_replaced(driver: Driver) {
    let stage = Stage::on(driver)
        .pool("retry = { attempts = 2, on = [\"timeout\", \"connect-failure\"] }")
        .pool("timeouts = { connect = \"300ms\", response = \"300ms\" }")
        .backend(delays(Duration::from_secs(5), "late"))
        .backend(answers("b"))
        .backend(Script::Unreachable)
        .backend(answers("b"))
        .start();
    for _ in 0..4 {
        stage.get("/").expect(200, "b");
    }
}
