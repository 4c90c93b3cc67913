//! Plays of clients that never stop asking: each has its turn, everybody else too, and what is due
//! by time is done in time.
//!
//! Requests that we answer ourselves, and those that a quick backend answers, come in a pipeline
//! without end. Beside eight such clients an honest one is answered soon, and a head that does not
//! end is refused when its time is over.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use crate::{
    client::get,
    pace::Took,
    scripts::answers,
    stage::{Driver, Stage},
};

on_both_drivers!(
    nobody_waits_for_those_whom_we_answer_ourselves,
    nobody_waits_for_those_whom_quick_backends_answer,
    nobody_waits_for_those_who_come_and_are_refused,
);

/// Clients that flood.
const FLOODS: usize = 8;

/// How long each kind of request floods: the head that does not end is refused meanwhile.
const TIME: Duration = Duration::from_millis(900);

/// An honest client's median and its worst wait but one in a hundred: the machine is full of
/// threads that flood, and hands out slices of several milliseconds.
const MEDIAN: Duration = Duration::from_millis(120);
const WORST: Duration = Duration::from_millis(500);

fn nobody_waits_for_those_whom_we_answer_ourselves(driver: Driver) {
    for flood in [
        "GET /none HTTP/1.1\r\nHost: a\r\n\r\n",
        "HEAD /none HTTP/1.1\r\nHost: a\r\n\r\n",
        "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n",
        "POST /none HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        "POST /none HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    ] {
        beside(driver, flood, true);
    }
}

fn nobody_waits_for_those_whom_quick_backends_answer(driver: Driver) {
    for flood in [
        "GET /good HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /good HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    ] {
        beside(driver, flood, true);
    }
}

fn nobody_waits_for_those_who_come_and_are_refused(driver: Driver) {
    beside(driver, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", false);
    beside(driver, "GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", false);
}

/// Floods with this request, over and over on one connection each, or each on its own.
fn beside(driver: Driver, flood: &'static str, pipelined: bool) {
    let stage = Stage::on(driver)
        .without_default_pool()
        .sections("[[route]]\nname = \"good\"\npath = \"/good\"\npool = \"app\"")
        .listener("timeouts = { client-header = \"400ms\" }")
        .backend(answers("ok"))
        .start();
    let (address, over) = (stage.address(), AtomicBool::new(false));
    thread::scope(|scope| {
        let over = &over;
        let floods: Vec<_> = (0..FLOODS)
            .map(|_| {
                scope.spawn(move || match pipelined {
                    true => pipeline(address, flood, over),
                    false => connections(address, flood, over),
                })
            })
            .collect();
        let refused = scope.spawn(|| {
            let mut slow = stage.connect();
            let took = slow.waits(|slow| {
                slow.send("GET / HTTP/1.1\r\nHos");
                slow.response().expect_fault(408, "request_timeout");
            });
            took.expect_at_least(Duration::from_millis(350));
            // The sweep's quarter of a second, and a turn of a busy core.
            took.expect_at_most(Duration::from_millis(400 + 250) + WORST);
        });
        let mut waits = honest(&stage);
        over.store(true, SeqCst);
        refused.join().expect("the sweep is late");
        let answered: usize = floods.into_iter().map(|flood| flood.join().unwrap()).sum();
        assert!(answered > FLOODS, "the floods were served too: {answered} bytes of {flood:?}");
        waits.sort();
        let at = |share: usize| waits[(waits.len() * share / 100).min(waits.len() - 1)];
        println!("{driver:?} {flood:?}: {} waits, {:?} {:?}", waits.len(), at(50), at(99));
        at(50).expect_at_most(MEDIAN);
        at(99).expect_at_most(WORST);
    });
}

/// Asks one request after the other; how long each took.
fn honest(stage: &Stage) -> Vec<Took> {
    let (mut client, since) = (stage.connect(), Instant::now());
    let mut waits = Vec::new();
    while since.elapsed() < TIME {
        waits.push(client.waits(|client| client.send(get("/good")).response().expect(200, "ok")));
        thread::sleep(Duration::from_millis(1));
    }
    waits
}

/// Sends the request again and again and takes the answers, whatever they are; their bytes.
fn pipeline(address: SocketAddr, flood: &str, over: &AtomicBool) -> usize {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nonblocking(true).unwrap();
    let many = flood.repeat(1 + (64 << 10) / flood.len());
    let (mut sent, mut taken, mut room) = (0, 0, [0; 64 << 10]);
    while !over.load(SeqCst) {
        let wrote = stream.write(&many.as_bytes()[sent..]);
        let read = stream.read(&mut room);
        for broken in [&wrote, &read].into_iter().filter_map(|it| it.as_ref().err()) {
            assert_eq!(broken.kind(), ErrorKind::WouldBlock, "{flood:?}");
        }
        assert!(!matches!(read, Ok(0)), "an end of {flood:?}");
        sent = (sent + wrote.as_ref().unwrap_or(&0)) % many.len();
        taken += read.as_ref().unwrap_or(&0);
        if wrote.is_err() && read.is_err() {
            thread::sleep(Duration::from_micros(200));
        }
    }
    taken
}

/// Comes, asks, takes the answer and goes, again and again; the bytes of the answers.
fn connections(address: SocketAddr, flood: &str, over: &AtomicBool) -> usize {
    let (mut taken, mut room) = (0, [0; 4096]);
    while !over.load(SeqCst) {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(flood.as_bytes()).unwrap();
        while let Ok(count @ 1..) = stream.read(&mut room) {
            taken += count;
        }
    }
    taken
}
