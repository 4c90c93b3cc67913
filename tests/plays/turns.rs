//! Plays of clients that never stop asking: each has its turn, all others too, and what is due by
//! time is done in time.
//!
//! Requests that we answer ourselves, and those that a quick backend answers, come in an endless
//! pipeline. Beside eight such clients an honest one is answered soon, and an endless head is
//! refused when its time is over.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use crate::{
    backend::{Script, plays},
    client::get,
    pace::{Crowd, Took},
    scripts::ok,
    stage::{Driver, Stage},
};

on_both_drivers!(
    nobody_waits_for_those_whom_we_answer_ourselves,
    nobody_waits_for_those_whom_quick_backends_answer,
    nobody_waits_for_those_who_come_and_are_refused,
    nobody_waits_for_fast_transfers,
);

/// Clients that flood.
const FLOODS: usize = 8;

/// How long each kind of request floods: the endless head is refused meanwhile.
const TIME: Duration = Duration::from_millis(900);

/// An honest client's median and its worst wait but one in a hundred, if the proxy's thread had a
/// core to itself. The machine is full of threads that flood: how much longer work takes there is
/// measured meanwhile (`Crowd`).
const SOON: [Duration; 2] = [Duration::from_millis(60), Duration::from_millis(250)];
/// The same beside fast transfers: a turn of each takes a buffer of 64 KiB, and ten thousand chunks
/// in one cost a debug build 10 ms and more.
const LATER: [Duration; 2] = [Duration::from_millis(500), Duration::from_millis(1_000)];

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

/// Endless bodies, as fast as they are taken: spliced, in chunks, copied; and as fast as they are
/// sent.
fn nobody_waits_for_fast_transfers(driver: Driver) {
    for (head, piece) in [
        ("GET /good/spliced", &b""[..]),
        ("GET /good/chunks", b""),
        ("GET /good/until-close", b""),
        ("POST /good/sink HTTP/1.1\r\nContent-Length: 90000000000", &[b'x'; 1 << 16]),
        ("POST /good/sink HTTP/1.1\r\nTransfer-Encoding: chunked", CHUNKS),
    ] {
        let version = if piece.is_empty() { " HTTP/1.1" } else { "" };
        let head = format!("{head}{version}\r\nHost: a\r\n\r\n");
        let flood = |address, over: &_| transfer(address, &head, piece, over);
        floods_beside(driver, &head, LATER, flood);
    }
}

const CHUNKS: &[u8] = b"1\r\na\r\n5\r\nhello\r\n2\r\nbc\r\n1\r\nd\r\n3\r\nefg\r\n1\r\nh\r\n";

/// Answers endlessly, takes endlessly, or says that it is well.
fn tireless() -> Script {
    plays(|visit| {
        loop {
            let (head, framing) = visit.head()?;
            let (answer, piece): (_, &[u8]) = match head.start.split(' ').nth(1) {
                Some("/good/spliced") => {
                    ("HTTP/1.1 200 OK\r\nContent-Length: 90000000000\r\n\r\n", &[b'x'; 1 << 16])
                }
                Some("/good/chunks") => {
                    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", CHUNKS)
                }
                Some("/good/until-close") => ("HTTP/1.1 200 OK\r\n\r\n", &[b'x'; 1 << 16]),
                Some("/good/sink") => return visit.drain(),
                _ => {
                    visit.rest_of(head, framing)?;
                    visit.send(ok("ok"))?;
                    continue;
                }
            };
            visit.send(answer)?;
            let many = piece.repeat(1 + (1 << 16) / piece.len());
            while visit.send(&many).is_ok() {}
            return Ok(());
        }
    })
}

/// Floods with this request, over and over on one connection each, or each on its own.
fn beside(driver: Driver, flood: &'static str, pipelined: bool) {
    floods_beside(driver, flood, SOON, |address, over| match pipelined {
        true => pipeline(address, flood, over),
        false => connections(address, flood, over),
    });
}

/// An honest client, and an endless head, beside many that flood.
fn floods_beside(
    driver: Driver,
    flood: &str,
    [median, worst]: [Duration; 2],
    floods: impl Fn(SocketAddr, &AtomicBool) -> usize + Sync,
) {
    let stage = Stage::on(driver)
        .without_default_pool()
        .sections("[[route]]\nname = \"good\"\npath = \"/good\"\npool = \"app\"")
        .listener("timeouts = { client-header = \"400ms\" }")
        .backend(tireless())
        .start();
    let (address, over, floods) = (stage.address(), AtomicBool::new(false), &floods);
    thread::scope(|scope| {
        let over = &over;
        let floods: Vec<_> =
            (0..FLOODS).map(|_| scope.spawn(move || floods(address, over))).collect();
        let refused = scope.spawn(|| {
            let mut slow = stage.connect();
            slow.waits(|slow| {
                slow.send("GET / HTTP/1.1\r\nHos");
                slow.response().expect_fault(408, "request_timeout");
            })
        });
        let crowd = scope.spawn(|| Crowd::measure(over));
        let mut waits = {
            let _ends = Ends(over);
            honest(&stage)
        };
        let crowd = crowd.join().unwrap();
        let refused = refused.join().expect("the sweep is late");
        refused.expect_at_least(Duration::from_millis(350));
        // The sweep's quarter of a second, and a turn of a busy core.
        refused.expect_at_most(Duration::from_millis(400 + 250) + crowd.time(worst));
        let answered: usize = floods.into_iter().map(|flood| flood.join().unwrap()).sum();
        assert!(answered > FLOODS, "the floods were served too: {answered} bytes of {flood:?}");
        waits.sort();
        let at = |share: usize| waits[(waits.len() * share / 100).min(waits.len() - 1)];
        let (middle, last) = (at(50), at(99));
        println!("{driver:?} {flood:?}: {} waits, {middle:?} {last:?}, {crowd:?}", waits.len());
        // What the floods had sent is read to its end: megabytes, in tiny chunks.
        let since = Instant::now();
        while stage.count("connections") > 0 && since.elapsed() < Duration::from_secs(60) {
            thread::sleep(Duration::from_millis(20));
        }
        middle.expect_at_most(crowd.time(median));
        last.expect_at_most(crowd.time(worst));
    });
}

/// Ends the floods even in a play that has failed: otherwise they would never leave the stage.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Asks one request after the other; returns how long each took.
fn honest(stage: &Stage) -> Vec<Took> {
    let (mut client, since) = (stage.connect(), Instant::now());
    let mut waits = Vec::new();
    while since.elapsed() < TIME {
        waits.push(client.waits(|client| client.send(get("/good")).response().expect(200, "ok")));
        thread::sleep(Duration::from_millis(1));
    }
    waits
}

/// Sends the request again and again and takes the answers, whatever they are; returns their bytes.
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

/// Connects, asks, takes the answer and leaves, again and again; returns the bytes of the answers.
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

/// Asks once and sends this endlessly, or takes what comes; returns the bytes.
fn transfer(address: SocketAddr, head: &str, piece: &[u8], over: &AtomicBool) -> usize {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    stream.set_nonblocking(true).unwrap();
    let many = piece.repeat((1 << 16) / piece.len().max(1));
    let (mut sent, mut bytes, mut room) = (0, 0, vec![0; 1 << 16]);
    while !over.load(SeqCst) {
        let moved = match piece.is_empty() {
            true => stream.read(&mut room),
            false => stream.write(&many[sent..]),
        };
        match moved {
            Ok(count) => {
                assert!(count > 0, "an end of {head:?}");
                bytes += count;
                sent = if many.is_empty() { 0 } else { (sent + count) % many.len() };
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock, "{head:?}");
                thread::sleep(Duration::from_micros(200));
            }
        }
    }
    bytes
}
