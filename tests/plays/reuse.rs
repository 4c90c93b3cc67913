//! Plays of connection pools: which connections are reused, and which never are.
//!
//! A backend may close a kept connection at any moment; a client must not notice if the standard
//! allows a retry (RFC 9112 §9.3.1).

use std::time::Duration;

use crate::{
    backend::{Script, plays},
    client::{get, post},
    pace::Watch,
    scripts::{answers, closes_after, closes_after_or_idle, ok, sends},
    stage::{Driver, Stage, eventually, expect_about, long},
};

on_both_drivers!(
    a_connection_is_used_again_and_again,
    each_request_under_way_has_its_own_connection,
    a_connection_closed_while_idle_is_noticed,
    a_connection_that_was_given_up_is_not_used_again,
    a_stale_connection_is_hidden_from_what_may_be_repeated,
    a_stale_connection_is_hidden_where_all_places_are_taken,
    a_stale_connection_is_hidden_only_where_the_request_may_be_repeated,
    a_body_with_a_stale_connection_is_not_lost,
    a_connection_serves_as_many_requests_as_allowed,
    no_more_connections_are_kept_than_allowed,
    an_idle_connection_expires,
    a_backend_may_say_how_long_it_keeps_a_connection,
    a_backend_may_say_how_many_requests_it_takes,
    an_origin_that_closes_every_connection_is_no_fault,
    an_origin_that_closes_idle_connections_is_no_fault,
);

const IDLE: &str = "backend_connections{state=\"idle\"}";
const CLOSED: &str = "backend_connections_closed_total{reason=\"closed\"}";
const EXPIRED: &str = "backend_connections_closed_total{reason=\"expired\"}";

fn a_connection_is_used_again_and_again(driver: Driver) {
    let stage = Stage::on(driver).backend(answers("again")).start();
    for _ in 0..20 {
        stage.get("/").expect(200, "again");
    }
    assert_eq!(stage.backend(0).visits(), 1, "clients come and go, the connection stays");
    assert_eq!(stage.count("backend_connections_opened_total"), 1);
    assert_eq!(stage.count("backend_connection_reuse_total"), 19);
}

fn each_request_under_way_has_its_own_connection(driver: Driver) {
    let cue = crate::backend::Cue::default();
    let stage = Stage::on(driver).backend(crate::scripts::answers_on(&cue, "now")).start();
    let mut clients: Vec<_> = (0..10).map(|_| stage.connect()).collect();
    for client in &mut clients {
        client.send(get("/"));
    }
    eventually("all ask", || stage.backend(0).requests().len(), |count| *count == 10);
    assert_eq!(stage.backend(0).visits(), 10);
    for gauge in ["connections", "requests_in_flight", "backend_in_flight"] {
        stage.expect_count(gauge, 10);
    }
    cue.give();
    for client in &mut clients {
        client.response().expect(200, "now");
    }
    stage.expect_count(IDLE, 10);
}

fn a_connection_closed_while_idle_is_noticed(driver: Driver) {
    let stage = Stage::on(driver).backend(closes_after(1, "once")).start();
    for round in 1..=5 {
        // A POST could not be retried: it must not get the closed connection at all.
        stage.connect().send(post("/", "body")).response().expect(200, "once");
        stage.expect_count(CLOSED, round);
    }
    assert_eq!(stage.count("backend_connections_stale_total"), 0);
    assert_eq!(stage.count("retries_total"), 0);
}

/// RFC 9110 §15.5.9: a backend that sends 408 wants to close the connection, and may forget to say
/// so.
fn a_connection_that_was_given_up_is_not_used_again(driver: Driver) {
    let raw = "HTTP/1.1 408 Request Timeout\r\nContent-Length: 4\r\n\r\nlate";
    let stage = Stage::on(driver).backend(sends(raw)).start();
    let mut client = stage.connect();
    for visits in 1..=3 {
        client.get("/").expect(408, "late");
        assert_eq!(stage.backend(0).visits(), visits);
    }
}

/// Answers once on its first connection, then closes it upon the second request; answers well on
/// every other.
fn goes_stale() -> Script {
    plays(|visit| {
        loop {
            visit.request()?;
            if visit.number() == 0 && visit.served() == 2 {
                return Ok(());
            }
            visit.send(ok("good"))?;
        }
    })
}

fn a_stale_connection_is_hidden_from_what_may_be_repeated(driver: Driver) {
    for request in [
        get("/"),
        "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "OPTIONS / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "DELETE / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "PROPFIND / HTTP/1.1\r\nHost: a\r\nDepth: 1\r\n\r\n".to_owned(),
        "REPORT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody".to_owned(),
        "VERSION-CONTROL / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "QUERY /?a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nb".to_owned(),
    ] {
        // Even without a configured retry: keeping the connection was our own decision.
        let stage =
            Stage::on(driver).pool("retry = { attempts = 1 }").backend(goes_stale()).start();
        let mut client = stage.connect();
        client.get("/first").expect(200, "good");
        client.send(&request);
        let method = request.split(' ').next().unwrap();
        assert_eq!(client.response_to(method).status, 200, "{request}");
        assert_eq!(stage.backend(0).visits(), 2);
        assert_eq!(stage.count("backend_connections_stale_total"), 1);
    }
}

/// A request that is sent again keeps its slot: others want it all the time, on another core too.
fn a_stale_connection_is_hidden_where_all_places_are_taken(driver: Driver) {
    let stale_when_used_again = plays(|visit| {
        visit.request()?;
        visit.send(ok("good"))?;
        visit.request().map(drop)
    });
    let stage =
        Stage::on(driver).cores(2).each("max-in-flight = 2").backend(stale_when_used_again).start();
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                let mut client = stage.connect();
                for _ in 0..400 {
                    let response = client.get("/");
                    if response.status != 200 {
                        response.expect_fault(503, "queue_full");
                    }
                }
            });
        }
    });
    assert!(stage.count("backend_connections_stale_total") > 0);
}

fn a_stale_connection_is_hidden_only_where_the_request_may_be_repeated(driver: Driver) {
    for method in ["POST", "PATCH", "LOCK", "propfind", "INVENTED"] {
        let stage = Stage::on(driver).backend(goes_stale()).start();
        let mut client = stage.connect();
        client.get("/first").expect(200, "good");
        client.send(format!("{method} /once HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"));
        // A young connection is used, and then it is unknown whether the request was acted on. On a
        // machine that stood still for a second a new one is made.
        match stage.backend(0).visits() {
            1 => client.response().expect_fault(502, "backend_reset"),
            _ => client.response().expect(200, "good"),
        }
        let heads = stage.backend(0).heads();
        assert_eq!(heads.iter().filter(|head| head.start.contains("/once")).count(), 1);
    }
}

fn a_body_with_a_stale_connection_is_not_lost(driver: Driver) {
    let stage = Stage::on(driver).backend(goes_stale()).start();
    let mut client = stage.connect();
    client.get("/first").expect(200, "good");
    client.send("PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
    // In whatever pieces the body comes; `exchange/wire_tests.rs` has them all.
    client.response().expect(200, "good");
    for request in stage.backend(0).requests().iter().skip(1) {
        assert_eq!(request.body, b"body");
    }
}

fn a_connection_serves_as_many_requests_as_allowed(driver: Driver) {
    let stage =
        Stage::on(driver).pool("connections = { max-requests = 3 }").backend(answers("ok")).start();
    let mut client = stage.connect();
    for _ in 0..9 {
        client.get("/").expect(200, "ok");
    }
    assert_eq!(stage.backend(0).visits(), 3);
}

fn no_more_connections_are_kept_than_allowed(driver: Driver) {
    let cue = crate::backend::Cue::default();
    let stage = Stage::on(driver)
        .pool("connections = { max-idle = 2 }")
        .backend(crate::scripts::answers_on(&cue, "now"))
        .start();
    let mut clients: Vec<_> = (0..6).map(|_| stage.connect()).collect();
    for client in &mut clients {
        client.send(get("/"));
    }
    eventually("all ask", || stage.backend(0).visits(), |visits| *visits == 6);
    cue.give();
    for client in &mut clients {
        client.response().expect(200, "now");
    }
    stage.expect_count(IDLE, 2);
    eventually("the others close", || stage.backend(0).open_visits(), |open| *open == 2);
}

fn an_idle_connection_expires(driver: Driver) {
    let stage = Stage::on(driver)
        .pool("connections = { idle-timeout = \"500ms\" }")
        .backend(answers("ok"))
        .start();
    let watch = Watch::start();
    stage.get("/").expect(200, "ok");
    eventually("it is closed", || stage.backend(0).open_visits(), |open| *open == 0);
    expect_about(watch.took(), Duration::from_millis(500));
    stage.expect_count(EXPIRED, 1);
    stage.expect_count(IDLE, 0);
    stage.get("/").expect(200, "ok");
}

fn a_backend_may_say_how_long_it_keeps_a_connection(driver: Driver) {
    let stages = ["max=9, timeout=2", "Timeout = 2", "timeout=2;max=3"].map(|said| {
        let raw = format!("HTTP/1.1 200 OK\r\nKeep-Alive: {said}\r\nContent-Length: 2\r\n\r\nok");
        (said, Stage::on(driver).backend(sends(raw)).start())
    });
    let watches = stages.each_ref().map(|(_, stage)| {
        let watch = Watch::start();
        stage.get("/").expect(200, "ok");
        watch
    });
    for ((said, stage), watch) in stages.iter().zip(watches) {
        eventually(said, || stage.backend(0).open_visits(), |open| *open == 0);
        // A second less than it said, so that we close first.
        expect_about(watch.took(), Duration::from_secs(1));
    }
}

/// The number of requests that may still come (RFC 2068 §19.7.1.1), given once or with each answer.
fn a_backend_may_say_how_many_requests_it_takes(driver: Driver) {
    for (said, each) in [
        (&["max=0"; 9][..], 1),
        (&["timeout=9;max=1"; 1], 2),
        (&["Max = 2", "max=1", "max=0"], 3),
        (&["", "max=1"], 3),
        (&["max=2"; 1], 3),
        (&["max=100"; 1], 12),
    ] {
        let counts = plays(move |visit| {
            loop {
                visit.request()?;
                let said = said.get(visit.served() - 1).copied().unwrap_or_default();
                let fields = format!("Keep-Alive: {said}\r\nContent-Length: 2");
                visit.send(format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nok"))?;
            }
        });
        let stage = Stage::on(driver).backend(counts).start();
        let mut client = stage.connect();
        for asked in 0..12 {
            client.get("/").expect(200, "ok");
            assert_eq!(stage.backend(0).visits(), 1 + asked / each, "{said:?}");
        }
    }
}

fn an_origin_that_closes_every_connection_is_no_fault(driver: Driver) {
    let count = if long() { 25_000 } else { 1_000 };
    let stage = Stage::on(driver).backend(closes_after(100, "ok")).start();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = stage.connect();
                for _ in 0..count {
                    client.get("/").expect(200, "ok");
                }
            });
        }
    });
    assert!(stage.backend(0).visits() >= 40);
}

fn an_origin_that_closes_idle_connections_is_no_fault(driver: Driver) {
    let idle = Duration::from_millis(4);
    let stage = Stage::on(driver).backend(closes_after_or_idle(100, idle, "ok")).start();
    std::thread::scope(|scope| {
        for number in 0..4_u64 {
            let stage = &stage;
            scope.spawn(move || {
                let mut client = stage.connect();
                // Pauses around the idle time, in small steps, to hit the moment of the close.
                for step in 0..150_u64 {
                    client.get("/").expect(200, "ok");
                    std::thread::sleep(Duration::from_micros(
                        3_500 + (step * 37 + number * 211) % 1_500,
                    ));
                }
            });
        }
    });
}
