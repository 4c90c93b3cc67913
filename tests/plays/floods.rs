//! Plays of clients of HTTP/2 that take what others need: with connection after connection, or on
//! many at once. Others, with other addresses, are served.
//!
//! What ends a connection for what comes on it is played in `http2`.

use std::{
    net::Ipv4Addr,
    thread::sleep,
    time::{Duration, Instant},
};

use ringway::events::Event;

use crate::{
    frames::{Frame, Http2, PING, SETTINGS},
    pace::Watch,
    scripts::{answers, answers_each, never_answers, ok},
    stage::{Driver, Setting, Stage, eventually, expect_about},
};

on_both_drivers!(
    who_comes_back_after_each_flood_is_refused_and_nobody_else_is,
    who_leaves_what_it_asks_for_again_and_again_is_refused,
    what_a_trusted_proxy_passes_on_is_not_its_own,
    behind_a_proxy_header_the_client_that_it_names_is_refused,
    streams_of_one_client_have_so_many_places_and_others_have_theirs;
    at a pace:
    streams_that_are_given_no_room_give_their_backends_back,
);

const BAD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const REFUSED: &str = "connections_rejected_total{reason=\"abuse\"}";

fn on(driver: Driver) -> Setting {
    Stage::on(driver).listener("protocols = [\"h1\", \"h2\"]")
}

/// With a backend that never answers and takes one request; the others wait.
fn queueing(driver: Driver) -> Stage {
    on(driver)
        .pool("queue = { size = 5000, timeout = \"1h\" }")
        .each("max-in-flight = 1")
        .backend(never_answers())
        .start()
}

/// Ten connections at once do this, again and again until some are refused: what it counts seeps
/// away, also on a machine that is late.
#[track_caller]
fn until_refused(stage: &Stage, does: impl Fn(&mut Http2), ends: impl Fn(&mut Http2)) {
    let connects = || Http2::connect_from(BAD, stage.address());
    until_refused_by(stage, connects, does, ends);
}

/// The same, with connections of this kind.
#[track_caller]
fn until_refused_by(
    stage: &Stage,
    connects: impl Fn() -> Option<Http2>,
    does: impl Fn(&mut Http2),
    ends: impl Fn(&mut Http2),
) {
    for _ in 0..20 {
        let mut clients: Vec<Http2> = (0..10).filter_map(|_| connects()).collect();
        clients.iter_mut().for_each(&does);
        clients.iter_mut().for_each(&ends);
        drop(clients);
        if stage.count(REFUSED) > 0 {
            return;
        }
    }
    panic!("it is still let in");
}

fn pings(client: &mut Http2) {
    client.try_send_raw(&Frame::new(PING, 0, 0, "12345678").bytes().repeat(3_000));
}

/// Whether all that it has sent was taken.
fn is_heard(client: &mut Http2) -> bool {
    client.try_send(&Frame::new(PING, 0, 0, "12345678")) && client.comes(PING)
}

fn who_comes_back_after_each_flood_is_refused_and_nobody_else_is(driver: Driver) {
    let stage = on(driver).backend(answers("x")).start();
    let mut before = Http2::connect_from(BAD, stage.address()).unwrap();
    before.get("/").expect(200, "x");
    until_refused(&stage, pings, |client| _ = client.goaway());
    stage.get("/").expect(200, "x");
    Http2::connect(stage.address()).get("/").expect(200, "x");
    before.get("/").expect(200, "x");
    assert!(stage.count("http2_abuse_total") >= 8, "eight connections are borne");
    let said = || {
        let is_it = |event: &Event| match event {
            Event::Http2Abuse { cause, .. } => cause.contains("refused for ten seconds"),
            _ => false,
        };
        stage.happened().into_iter().filter(is_it).count()
    };
    eventually("it is said once", said, |count| *count == 1);
    let since = Instant::now();
    let mut again = loop {
        assert!(since.elapsed() < Duration::from_secs(60), "it is over by itself");
        let client = Http2::connect_from(BAD, stage.address());
        if let Some(mut client) = client
            && is_heard(&mut client)
        {
            break client;
        }
        sleep(Duration::from_millis(50));
    };
    again.get("/").expect(200, "x");
}

fn who_leaves_what_it_asks_for_again_and_again_is_refused(driver: Driver) {
    let stage = queueing(driver);
    let asks = |client: &mut Http2| {
        let _ = (0..100).all(|_| client.try_ask("GET /", true));
    };
    until_refused(&stage, asks, |client| _ = is_heard(client));
    assert_eq!(stage.count("http2_abuse_total"), 0, "no connection has broken a bound");
    stage.expect_count("requests_in_flight", 0);
    let mut other = Http2::connect(stage.address());
    other.ask("GET /", "", true);
    stage.expect_count("requests_in_flight", 1);
}

/// It speaks for many, and what one of them does is not what the others do.
fn what_a_trusted_proxy_passes_on_is_not_its_own(driver: Driver) {
    let stage =
        on(driver).listener("trusted-proxies = \"127.0.0.2\"").backend(answers("x")).start();
    for _ in 0..20 {
        let mut client = Http2::connect_from(BAD, stage.address()).unwrap();
        pings(&mut client);
        client.goaway();
    }
    stage.expect_count("http2_abuse_total", 20);
    Http2::connect_from(BAD, stage.address()).unwrap().get("/").expect(200, "x");
    assert_eq!(stage.count(REFUSED), 0);
}

/// The balancer in front of it has one address for all of its clients.
fn behind_a_proxy_header_the_client_that_it_names_is_refused(driver: Driver) {
    let stage = on(driver)
        .listener("proxy-protocol = { from = [\"127.0.0.2\"] }")
        .backend(answers("x"))
        .start();
    let named = |last: u8| {
        let header = format!("PROXY TCP4 192.0.2.{last} 203.0.113.9 56324 443\r\n");
        Http2::introduced_from(BAD, header.as_bytes(), stage.address())
    };
    until_refused_by(&stage, || named(7), pings, |client| _ = client.goaway());
    named(8).unwrap().get("/").expect(200, "x");
    let is_let_in = named(7).is_some_and(|mut client| is_heard(&mut client));
    assert!(!is_let_in, "it is refused when its header has come");
}

fn streams_of_one_client_have_so_many_places_and_others_have_theirs(driver: Driver) {
    let stage = queueing(driver);
    let from = |from| Http2::connect_from(from, stage.address()).unwrap();
    let fill = |client: &mut Http2| (0..100).for_each(|_| _ = client.ask("POST /", "", false));
    let mut bad: Vec<Http2> = (0..10).map(|_| from(BAD)).collect();
    bad.iter_mut().for_each(fill);
    stage.expect_count("requests_in_flight", 1_000);
    let mut more = from(BAD);
    let id = more.ask("GET /", "", true);
    assert_eq!(more.answer(id).reset, Some(7), "REFUSED_STREAM: it may be asked elsewhere");
    let mut other = from(Ipv4Addr::LOCALHOST);
    fill(&mut other);
    stage.expect_count("requests_in_flight", 1_100);
    // A place is free as soon as its stream has ended.
    drop(bad.pop());
    stage.expect_count("requests_in_flight", 1_000);
    more.ask("GET /", "", true);
    stage.expect_count("requests_in_flight", 1_001);
}

fn streams_that_are_given_no_room_give_their_backends_back(driver: Driver, slower: u32) {
    let time = Duration::from_millis(500) * slower;
    let stage = on(driver)
        .listener(&format!("timeouts = {{ client-write = \"{}ms\" }}", time.as_millis()))
        .backend(answers_each(|_| ok("x".repeat(300_000)).into_bytes()))
        .start();
    let mut client = Http2::connect(stage.address());
    // SETTINGS_INITIAL_WINDOW_SIZE.
    client.send(&Frame::new(SETTINGS, 0, 0, [0, 4, 0, 0, 0, 0]));
    let watch = Watch::start();
    let asked: Vec<u32> = (0..20).map(|_| client.ask("GET /", "", true)).collect();
    for id in asked {
        let answer = client.answer(id);
        assert_eq!((answer.status, answer.reset, answer.text()), (200, Some(2), ""), "{id}");
    }
    expect_about(watch.took(), time);
    eventually("the backend was left", || stage.backend(0).open_visits(), |open| *open == 0);
    client.send(&Frame::new(PING, 0, 0, "12345678"));
    assert!(client.comes(PING), "its connection goes on");
}
