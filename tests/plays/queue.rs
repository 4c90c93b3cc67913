//! Plays of backends that may have only so much in flight, and of those who wait in front.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use crate::{
    backend::{Cue, Script, plays},
    client::get,
    scripts::{answers, answers_on, ok},
    stage::{Driver, Setting, Stage, expect_about},
};

on_both_drivers!(
    a_backend_never_has_more_in_flight_than_it_may,
    a_full_backend_is_passed_over,
    a_full_pool_without_a_queue_refuses,
    those_who_wait_are_answered_in_their_order,
    who_waits_too_long_is_told,
    a_client_that_leaves_gives_its_place_up_at_once,
    a_client_with_more_to_say_waits_like_all_others,
    room_made_on_one_core_is_found_by_another,
);

/// Answers after a moment; the most that it had in flight at once is noted.
fn counts(most: &Arc<AtomicUsize>) -> Script {
    let (most, now) = (Arc::clone(most), Arc::new(AtomicUsize::new(0)));
    plays(move |visit| {
        loop {
            visit.request()?;
            most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            visit.pause(Duration::from_millis(20))?;
            now.fetch_sub(1, SeqCst);
            visit.send(ok("counted"))?;
        }
    })
}

/// One at once.
fn one_at_once(driver: Driver) -> Setting {
    Stage::on(driver).each("max-in-flight = 1")
}

/// Eight clients ask thrice each.
fn eight_ask_thrice(stage: &Stage) {
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = stage.connect();
                for _ in 0..3 {
                    client.get("/").expect(200, "counted");
                }
            });
        }
    });
}

fn a_backend_never_has_more_in_flight_than_it_may(driver: Driver) {
    for allowed in [1, 2] {
        let most = Arc::default();
        let stage = Stage::on(driver)
            .each(&format!("max-in-flight = {allowed}"))
            .pool("queue = { size = 10 }")
            .backend(counts(&most))
            .start();
        eight_ask_thrice(&stage);
        assert_eq!(most.load(SeqCst), allowed);
    }
}

fn room_made_on_one_core_is_found_by_another(driver: Driver) {
    let most = Arc::default();
    let stage =
        one_at_once(driver).cores(2).pool("queue = { size = 10 }").backend(counts(&most)).start();
    eight_ask_thrice(&stage);
    assert_eq!(most.load(SeqCst), 1);
}

fn a_full_backend_is_passed_over(driver: Driver) {
    let cue = Cue::default();
    let stage = one_at_once(driver).backend(answers_on(&cue, "a")).backend(answers("b")).start();
    let mut first = stage.connect();
    let mut others: Vec<String> = Vec::new();
    first.send(get("/"));
    stage.expect_count("backend_in_flight", 1);
    for _ in 0..6 {
        others.push(stage.get("/").text().to_owned());
    }
    cue.give();
    let firsts = first.response().text().to_owned();
    // The first may have met either; whoever came later met the one that had room.
    assert!(firsts == "a" || firsts == "b");
    assert!(others.iter().all(|text| text == "b") || firsts == "b", "{others:?}");
}

fn a_full_pool_without_a_queue_refuses(driver: Driver) {
    let cue = Cue::default();
    let stage = one_at_once(driver).backend(answers_on(&cue, "a")).start();
    let mut first = stage.connect();
    first.send(get("/"));
    stage.expect_count("backend_in_flight", 1);
    let refused = stage.get("/");
    refused.expect_fault(503, "queue_full");
    assert!(refused.field("retry-after").is_some_and(|after| after.parse::<u32>().is_ok()));
    cue.give();
    first.response().expect(200, "a");
    stage.get("/").expect(200, "a");
}

fn those_who_wait_are_answered_in_their_order(driver: Driver) {
    let cue = Cue::default();
    let stage =
        one_at_once(driver).pool("queue = { size = 3 }").backend(answers_on(&cue, "a")).start();
    let mut clients: Vec<_> = (0..4).map(|_| stage.connect()).collect();
    for (place, client) in clients.iter_mut().enumerate() {
        client.send(get(&format!("/{place}")));
        stage.expect_count("backend_in_flight", 1);
        stage.expect_count("requests_queued", place as u64);
    }
    stage.get("/more").expect_fault(503, "queue_full");
    cue.give();
    for client in &mut clients {
        client.response().expect(200, "a");
    }
    let requests = stage.backend(0).requests();
    let order: Vec<&str> = requests.iter().map(|request| request.target()).collect();
    assert_eq!(order, ["/0", "/1", "/2", "/3"]);
}

fn who_waits_too_long_is_told(driver: Driver) {
    let cue = Cue::default();
    let stage = one_at_once(driver)
        .pool("queue = { size = 3, timeout = \"300ms\" }")
        .backend(answers_on(&cue, "a"))
        .start();
    let mut first = stage.connect();
    first.send(get("/"));
    stage.expect_count("backend_in_flight", 1);
    let mut second = stage.connect();
    let took = second.send(get("/")).waits(|client| {
        let refused = client.response();
        refused.expect_fault(503, "queue_timeout");
        assert!(refused.field("retry-after").is_some());
    });
    expect_about(took, Duration::from_millis(300));
    cue.give();
    first.response().expect(200, "a");
    second.get("/").expect(200, "a");
}

fn a_client_that_leaves_gives_its_place_up_at_once(driver: Driver) {
    for resets in [false, true] {
        let cue = Cue::default();
        let stage =
            one_at_once(driver).pool("queue = { size = 1 }").backend(answers_on(&cue, "a")).start();
        let mut first = stage.connect();
        first.send(get("/first"));
        stage.expect_count("backend_in_flight", 1);
        let mut second = stage.connect();
        second.send(get("/second"));
        stage.expect_count("requests_queued", 1);
        if resets {
            second.reset();
        } else {
            drop(second);
        }
        stage.expect_count("requests_queued", 0);
        stage.expect_count("client_aborts_total", 1);
        let mut third = stage.connect();
        third.send(get("/third"));
        stage.expect_count("requests_queued", 1);
        cue.give();
        first.response().expect(200, "a");
        third.response().expect(200, "a");
        let asked = stage.backend(0).requests().iter().any(|seen| seen.target() == "/second");
        assert!(!asked, "nobody is asked for a client that has left");
    }
}

fn a_client_with_more_to_say_waits_like_all_others(driver: Driver) {
    let cue = Cue::default();
    let stage =
        one_at_once(driver).pool("queue = { size = 2 }").backend(answers_on(&cue, "a")).start();
    let mut first = stage.connect();
    first.send(get("/"));
    stage.expect_count("backend_in_flight", 1);
    let mut second = stage.connect();
    second.send(get("/one"));
    stage.expect_count("requests_queued", 1);
    second.send(get("/two"));
    cue.give();
    first.response().expect(200, "a");
    second.response().expect(200, "a");
    second.response().expect(200, "a");
}
