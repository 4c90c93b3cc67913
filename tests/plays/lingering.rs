//! Plays of the last answer of a connection: its client sees all of it, whatever it still sends.
//!
//! A client that goes on sending is read for a bounded time; those bounds are tested in
//! `server/linger.rs`, where time can be short.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::Duration,
};

use crate::{
    backend::plays,
    client::{Client, get},
    scripts::{answers, answers_early, ok},
    stage::{Driver, Stage},
};

on_both_drivers!(
    a_slow_upload_that_is_refused_sees_its_status,
    a_last_answer_is_whole_whatever_comes_before_it_is_read,
    those_who_were_refused_make_room_first,
);

const PIECE: usize = 16 << 10;

/// A client that reads its answer after it has sent everything used to be cut off after a second,
/// or a quarter of a mebibyte.
fn a_slow_upload_that_is_refused_sees_its_status(driver: Driver) {
    let early = answers_early("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno");
    let stage = Stage::on(driver)
        .limits("body-size = \"64KiB\"")
        .listener("timeouts = { client-header = \"1s\" }")
        .backend(early)
        .start();
    let post = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let cases = [
        (post("Content-Length: 450000\r\n"), 413, PIECE, 28),
        (post("Content-Length: 1\r\nContent-Length: 2\r\n"), 400, PIECE, 28),
        (format!("GET /{} HTTP/1.1\r\n", "x".repeat(20_000)), 414, PIECE, 28),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(40_000)), 431, PIECE, 28),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n".to_owned(), 505, PIECE, 28),
        // So little and so slowly that time ended it.
        (post("Content-Length: 450000\r\n"), 413, 1_000, 30),
        // Without a pause, and much.
        (post("Content-Length: 9000000\r\n"), 413, 1 << 20, 8),
    ];
    thread::scope(|scope| {
        for (head, status, piece, count) in &cases {
            let stage = &stage;
            scope.spawn(move || {
                let mut client = stage.connect();
                client.send(head);
                for _ in 0..*count {
                    // A client that stops at an error would never see the answer.
                    client.send(vec![b'a'; *piece]);
                    thread::sleep(Duration::from_millis(60));
                }
                let response = client.response();
                assert_eq!(response.status, *status, "{response:?}");
                assert!(response.closes());
                client.expect_end();
            });
        }
        // A head that is late.
        scope.spawn(|| {
            let mut client = stage.connect();
            client.send("GET / HTTP/1.1\r\nHost: a\r\n");
            thread::sleep(Duration::from_millis(1_500));
            for _ in 0..20 {
                client.send("more and more");
                thread::sleep(Duration::from_millis(60));
            }
            client.response().expect_fault(408, "request_timeout");
            client.expect_end();
        });
    });
}

/// Bytes after the last request used to reset the connection under an answer on its way.
fn a_last_answer_is_whole_whatever_comes_before_it_is_read(driver: Driver) {
    let body = "x".repeat(400_000);
    let with_length = ok(&body);
    let until_close = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{body}");
    for (answer, minor) in [(with_length.clone(), 1), (with_length, 0), (until_close, 1)] {
        let stage = Stage::on(driver)
            .backend(plays(move |visit| {
                visit.request()?;
                visit.send(&answer)
            }))
            .start();
        let strays = ["\r\n".to_owned(), get("/next"), get("/next").repeat(2_000)];
        for (stray, wait) in strays.iter().zip([50, 50, 0]) {
            let mut client = Client::connect_with_small_buffer(stage.address(), 8 << 10);
            client.send(format!("GET / HTTP/1.{minor}\r\nHost: a\r\nConnection: close\r\n\r\n"));
            thread::sleep(Duration::from_millis(wait));
            client.send(stray);
            thread::sleep(Duration::from_millis(50));
            let response = client.response();
            assert!(response.status == 200 && response.body.len() == body.len());
            client.expect_end();
        }
    }
}

fn those_who_were_refused_make_room_first(driver: Driver) {
    let stage = Stage::on(driver).limits("connections = 3").backend(answers("ok")).start();
    let mut idle = stage.connect();
    idle.get("/").expect(200, "ok");
    let mut refused: Vec<TcpStream> = (0..2)
        .map(|_| {
            let mut stream = TcpStream::connect(stage.address()).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nbad\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
            stream
        })
        .collect();
    stage.expect_count("connections", 3);
    let mut new: Vec<Client> = (0..2).map(|_| stage.connect()).collect();
    new.iter_mut().for_each(|client| client.get("/").expect(200, "ok"));
    idle.get("/").expect(200, "ok");
    // They go on sending, and are told that nothing is read any more.
    for stream in &mut refused {
        while stream.write_all(b"more").is_ok() {
            thread::sleep(Duration::from_millis(5));
        }
    }
}
