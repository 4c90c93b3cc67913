//! Plays of `max-in-flight` and of the queue in front of it.
//!
//! A play knows which requests are in flight and which wait by the gauges alone: both are exact for
//! the process, and zero when every client has left.

use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use ringway::Stop;

use crate::{
    backend::{Cue, Script, plays},
    client::{Client, get},
    pace::{Watch, ms},
    scripts::{answers, answers_on, ok, sends_and_closes, upgrades_and_echoes},
    stage::{Driver, Setting, Stage, eventually, expect_about},
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
    no_core_keeps_the_room_that_it_makes,
    who_is_asked_again_waits_in_line_too,
    who_waits_for_another_backend_is_in_nobodys_way,
    a_tunnel_has_its_place_until_its_end,
    who_waits_is_told_when_the_proxy_stops,
    ; at a pace:
    all_the_room_of_a_backend_that_comes_back_is_used_at_once,
);

/// Answers after a moment, and not before it has had this many in flight; the most that it had in
/// flight at once is noted.
fn counts(most: &Arc<AtomicUsize>, allowed: usize) -> Script {
    let (most, now) = (Arc::clone(most), Arc::new(AtomicUsize::new(0)));
    plays(move |visit| {
        loop {
            visit.request()?;
            most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            while most.load(SeqCst) < allowed {
                visit.pause(Duration::from_millis(1))?;
            }
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
            .pool("queue = { size = 10, timeout = \"1m\" }")
            .backend(counts(&most, allowed))
            .start();
        eight_ask_thrice(&stage);
        assert_eq!(most.load(SeqCst), allowed);
    }
}

fn room_made_on_one_core_is_found_by_another(driver: Driver) {
    let most = Arc::default();
    let stage = one_at_once(driver)
        .cores(2)
        .pool("queue = { size = 10, timeout = \"1m\" }")
        .backend(counts(&most, 1))
        .start();
    eight_ask_thrice(&stage);
    assert_eq!(most.load(SeqCst), 1);
}

/// However many wait on either core, and whichever has the backend: all get their turns.
fn no_core_keeps_the_room_that_it_makes(driver: Driver) {
    const CLIENTS: usize = 12;
    let stage = one_at_once(driver)
        .cores(2)
        .pool("queue = { size = 20, timeout = \"60s\" }")
        .backend(counts(&Arc::default(), 1))
        .start();
    let begin = Barrier::new(CLIENTS);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (stage, begin) = (&stage, &begin);
            scope.spawn(move || {
                let mut connection = stage.connect();
                begin.wait();
                for _ in 0..8 {
                    connection.get(&format!("/{client}")).expect(200, "counted");
                }
            });
        }
    });
    let requests = stage.backend(0).requests();
    let firsts = (0..CLIENTS).map(|client| {
        let target = format!("/{client}");
        requests.iter().position(|request| request.target() == target).unwrap()
    });
    let last = firsts.max().unwrap();
    assert!(last < 3 * CLIENTS, "somebody was the {last}th of {}", requests.len());
}

fn a_full_backend_is_passed_over(driver: Driver) {
    let cue = Cue::default();
    let stage = one_at_once(driver).backend(answers_on(&cue, "a")).backend(answers("b")).start();
    let mut first = held_by_the_first(&stage);
    for _ in 0..6 {
        stage.get("/").expect(200, "b");
    }
    cue.give();
    first.response().expect(200, "a");
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
    let took = second.waits(|client| {
        let refused = client.get("/");
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

fn who_is_asked_again_waits_in_line_too(driver: Driver) {
    let cue = Cue::default();
    let stage = one_at_once(driver)
        .pool("queue = { size = 2 }\npassive = { max-failures = 0 }")
        .backend(sends_and_closes(""))
        .backend(answers_on(&cue, "b"))
        .start();
    let mut first = stage.connect();
    first.send(get("/"));
    eventually("it is asked", || stage.backend(1).requests().len(), |count| *count == 1);
    let mut second = stage.connect();
    second.send(get("/"));
    stage.expect_count("requests_queued", 1);
    cue.give();
    first.response().expect(200, "b");
    second.response().expect(200, "b");
}

/// Closes on a request for `/close`, and answers all else with this text.
fn closes_when_asked(text: &'static str) -> Script {
    plays(move |visit| {
        while visit.request()?.target() != "/close" {
            visit.send(ok(text))?;
        }
        Ok(())
    })
}

/// A client whose request is held by the first of two backends; if it reached the other first, it
/// has asked again. (A process begins anywhere: of two in a row each reaches one.)
fn held_by_the_first(stage: &Stage) -> Client {
    let mut client = stage.connect();
    client.send(get("/"));
    let asked = || (stage.backend(0).requests().len(), stage.backend(1).requests().len());
    if eventually("one is asked", asked, |(first, other)| first + other == 1) == (0, 1) {
        client.response().expect(200, "b");
        client.send(get("/"));
        eventually("the other is asked", asked, |asked| *asked == (1, 1));
    }
    client
}

fn who_waits_for_another_backend_is_in_nobodys_way(driver: Driver) {
    let cue = Cue::default();
    let stage = one_at_once(driver)
        .pool("queue = { size = 9, timeout = \"30s\" }\npassive = { max-failures = 0 }")
        .backend(answers_on(&cue, "a"))
        .backend(closes_when_asked("b"))
        .start();
    let mut first = held_by_the_first(&stage);
    // The other fails this one, which waits for the first.
    let mut waits = stage.connect();
    waits.send(get("/close"));
    stage.expect_count("requests_queued", 1);
    eight_ask_b_thrice(&stage);
    assert_eq!(stage.count("requests_queued"), 1);
    cue.give();
    first.response().expect(200, "a");
    waits.response().expect(200, "a");
}

fn eight_ask_b_thrice(stage: &Stage) {
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = stage.connect();
                (0..3).for_each(|_| client.get("/").expect(200, "b"));
            });
        }
    });
}

/// Answers with this text on a cue, and probes with 200 while the switch is on.
pub(crate) fn held_and_probed(cue: &Cue, switch: &Arc<AtomicBool>) -> Script {
    let (cue, switch) = (cue.clone(), Arc::clone(switch));
    plays(move |visit| {
        loop {
            if visit.request()?.target() != "/health" {
                visit.wait_for(&cue)?;
            } else if !switch.load(SeqCst) {
                visit.send("HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n")?;
                continue;
            }
            visit.send(ok("held"))?;
        }
    })
}

fn all_the_room_of_a_backend_that_comes_back_is_used_at_once(driver: Driver, slower: u32) {
    const EACH: usize = 12;
    let beat = ms(Duration::from_millis(60) * slower);
    let (cue, well, always) = (Cue::default(), Arc::default(), Arc::new(AtomicBool::new(true)));
    let stage = Stage::on(driver)
        .each(&format!("max-in-flight = {EACH}"))
        .pool(&format!(
            "queue = {{ size = 100 }}\nhealth = {{ interval = {beat}, timeout = {beat} }}"
        ))
        .backend(held_and_probed(&cue, &well))
        .backend(held_and_probed(&cue, &always))
        .start();
    eventually("it is down", || stage.backend(0).heads().len(), |probes| *probes > 3);
    let mut clients: Vec<_> = (0..2 * EACH).map(|_| stage.connect()).collect();
    for client in &mut clients {
        client.send(get("/"));
    }
    stage.expect_count("requests_queued", EACH as u64);
    well.store(true, SeqCst);
    eventually("it is asked", || stage.count("requests_queued"), |count| *count < EACH as u64);
    let watch = Watch::start();
    stage.expect_count("requests_queued", 0);
    let took = watch.took();
    cue.give();
    for client in &mut clients {
        client.response().expect(200, "held");
    }
    took.expect_at_most(Duration::from_millis(600));
}

fn a_tunnel_has_its_place_until_its_end(driver: Driver) {
    let stage = one_at_once(driver).backend(upgrades_and_echoes()).start();
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    for _ in 0..2 {
        let mut tunnel = stage.connect();
        assert_eq!(tunnel.send(upgrade).response().status, 101);
        tunnel.send("x");
        assert_eq!(tunnel.wire().bytes(1).unwrap(), b"x");
        assert_eq!(stage.count("backend_in_flight"), 1);
        stage.get("/").expect_fault(503, "queue_full");
        tunnel.half_close().expect_end();
        stage.expect_count("backend_in_flight", 0);
    }
}

fn who_waits_is_told_when_the_proxy_stops(driver: Driver) {
    for more in ["", "GET /more HTTP/1.1\r\nHost: a\r\n\r\n"] {
        for how in [Stop::Now, Stop::Graceful] {
            let cue = Cue::default();
            let mut stage = one_at_once(driver)
                .cores(2)
                .global("shutdown = { drain = \"300ms\" }")
                .pool("queue = { size = 9, timeout = \"30s\" }")
                .backend(answers_on(&cue, "a"))
                .start();
            let mut clients: Vec<_> = (0..6).map(|_| stage.connect()).collect();
            for (place, client) in clients.iter_mut().enumerate() {
                client.send(get("/"));
                stage.expect_count("requests_queued", place as u64);
                client.send(more);
            }
            let (took, _) = stage.stop_beside(how).join().unwrap();
            took.expect_at_most(Duration::from_secs(3));
            for client in &mut clients {
                let _ = client.try_response();
            }
        }
    }
}
