//! Plays of eviction: which connections make room first, and that no client is served on a slot
//! that has a new owner.
//!
//! Races are tried with many clients and several seeds; what the kernel shows decides.

use std::{
    collections::VecDeque,
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use ringway::Stop;

use crate::{
    backend::Cue,
    client::{Client, get},
    kernel::held,
    pace::Watch,
    scripts::{answers, answers_on},
    stage::{Driver, Stage, eventually},
};

on_both_drivers!(
    a_place_has_one_holder_whatever_happens_at_the_limit,
    those_that_have_said_nothing_go_first,
    what_is_idle_at_one_listener_does_not_hide_what_is_at_another,
    a_stop_does_not_wait_for_those_that_have_said_nothing,
);

const LIMIT: usize = 24;

/// Connections that one batch may take and one turn of the core has yet to close.
const IN_ONE_TURN: usize = 32;

/// Idle clients are evicted at the moment in which they send a request.
fn a_place_has_one_holder_whatever_happens_at_the_limit(driver: Driver) {
    for seed in 1..=2 {
        let cue = Cue::default();
        cue.give();
        let limit = format!("connections = {LIMIT}");
        // Asking the kernel takes long on a busy machine; no timeout may pass meanwhile.
        let stage = Stage::on(driver)
            .limits(&limit)
            .listener("timeouts = { client-header = \"10m\", idle = \"10m\" }")
            .backend(answers_on(&cue, "ok"))
            .start();
        let (open, most) = storm(stage.address(), seed);
        assert!(most <= LIMIT + IN_ONE_TURN, "seed {seed}: {most} held at once");
        // Refused clients are held for a moment, until they have read their answer.
        let held_at_rest = || held(stage.address()) as u64;
        let counted = || stage.count("connections");
        eventually("the kernel holds what is counted", held_at_rest, |held| *held == counted());
        assert!(counted() <= LIMIT as u64, "seed {seed}: {} hold {LIMIT} places", counted());
        drop(open);
        stage.expect_count("connections", 0);
        eventually("nobody is held", held_at_rest, |held| *held == 0);
        // No slot is lost, none gained.
        let mut busy: Vec<Client> = (0..LIMIT).map(|_| stage.connect()).collect();
        for client in &mut busy {
            client.get("/").expect(200, "ok");
        }
        // A client of the storm that is accepted only now, and gone, is held for a moment.
        let both = || (held(stage.address()), stage.count("connections"));
        eventually("each has one slot", both, |both| *both == (LIMIT, LIMIT as u64));
        let asks = |client: &mut Client| _ = client.send("GET / HTTP/1.1\r\nHost: a\r\nX: ");
        busy.iter_mut().for_each(asks);
        let full = || {
            let mut late = stage.connect();
            late.send_what_is_taken(get("/")).response().status
        };
        eventually("all are busy", full, |status| *status == 503);
        // A refused client is held for a moment, so that it can be told.
        eventually("the busy are held", || held(stage.address()), |held| *held == LIMIT);
    }
}

/// New clients come, and those idle longest ask at that moment: returns the ones left, and the most
/// that were ever held.
fn storm(address: SocketAddr, seed: u64) -> (VecDeque<TcpStream>, usize) {
    let mut chance = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut below = |most: u64| {
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        chance % most
    };
    // In the order in which they asked last.
    let (mut open, mut most): (VecDeque<TcpStream>, usize) = (VecDeque::new(), 0);
    for step in 0..600 {
        let (new, asking) = (below(3), below(4));
        let is_first = below(4) == 0;
        if is_first {
            ask(&mut open, asking);
        }
        for _ in 0..new {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_nonblocking(true).unwrap();
            open.push_back(stream);
        }
        if !is_first {
            ask(&mut open, asking);
        }
        for _ in 0..new {
            if below(6) > 0
                && let Some(mut new) = open.pop_back()
            {
                let _ = new.write_all(get("/").as_bytes());
                open.push_back(new);
            }
        }
        if below(3) == 0 {
            thread::sleep(Duration::from_millis(1));
            open.retain_mut(is_open);
        }
        if step % 60 == 0 {
            most = most.max(held(address));
        }
    }
    (open, most)
}

/// Those idle longest ask, and are the latest then.
fn ask(open: &mut VecDeque<TcpStream>, count: u64) {
    for _ in 0..count {
        let Some(mut one) = open.pop_front() else { return };
        let _ = one.write_all(get("/").as_bytes());
        open.push_back(one);
    }
}

/// Takes what has come; returns whether there may be more.
fn is_open(stream: &mut TcpStream) -> bool {
    let mut room = [0; 4096];
    loop {
        match stream.read(&mut room) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}

fn those_that_have_said_nothing_go_first(driver: Driver) {
    let stage = Stage::on(driver).limits("connections = 6").backend(answers("ok")).start();
    let mut honest: Vec<Client> = (0..2).map(|_| stage.connect()).collect();
    for client in &mut honest {
        client.get("/").expect(200, "ok");
    }
    let mut silent: Vec<Client> = (0..4).map(|_| stage.connect()).collect();
    stage.expect_count("connections", 6);
    for client in &mut silent {
        stage.connect().get("/").expect(200, "ok");
        client.expect_end();
    }
    for client in &mut honest {
        client.get("/").expect(200, "ok");
    }
}

fn what_is_idle_at_one_listener_does_not_hide_what_is_at_another(driver: Driver) {
    let stage = Stage::on(driver)
        .limits("connections = 1202")
        .sections("[listener.other]\nbind = \"127.0.0.1:0\"\npool = \"app\"\nmax-connections = 1")
        .backend(answers("ok"))
        .start();
    let mut many: Vec<Client> = (0..1_100).map(|_| stage.connect()).collect();
    many.iter_mut().for_each(|client| client.get("/").expect(200, "ok"));
    let mut first = Client::connect(stage.address_of("other"));
    first.get("/").expect(200, "ok");
    for _ in 0..3 {
        Client::connect(stage.address_of("other")).get("/").expect(200, "ok");
    }
    first.expect_end();
}

/// `client-header` is 10 s: a stop does not wait for clients that have not asked anything.
fn a_stop_does_not_wait_for_those_that_have_said_nothing(driver: Driver) {
    let mut stage = Stage::on(driver).backend(answers("ok")).start();
    let mut silent: Vec<Client> = (0..3).map(|_| stage.connect()).collect();
    stage.expect_count("connections", 3);
    let watch = Watch::start();
    let (_, finished) = stage.stop_beside(Stop::Graceful).join().unwrap();
    watch.took().expect_at_most(Duration::from_secs(4));
    assert!(finished);
    silent.iter_mut().for_each(Client::expect_end);
}
