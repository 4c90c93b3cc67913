//! Plays of uploads whose answer arrives before they are over.
//!
//! As long as both peers take part no body is cut, whatever the answer; and no client that was not
//! told of a close loses its next request, whatever the backend does (RFC 9112 §9.3, §9.6).

use std::{thread, time::Duration};

use crate::{
    backend::{Script, Visit, plays},
    client::{Client, Response, get},
    scripts::{chunk, ok},
    stage::{Driver, Stage, eventually},
    wire::Broken,
};

on_both_drivers!(
    an_early_answer_cuts_no_upload_and_loses_no_request,
    a_slow_upload_goes_on_behind_its_answer,
    whatever_becomes_of_the_backend_no_request_is_lost_unless_told,
    a_body_that_nobody_takes_is_dropped_and_the_next_request_served,
    where_the_end_is_not_sure_the_head_says_so,
    a_client_that_was_told_of_the_close_sees_it_at_once,
    a_body_that_nobody_waits_for_is_not_waited_for,
);

// Without those where a reset overtakes the answer in the bridge.
over_tls!(
    an_early_answer_cuts_no_upload_and_loses_no_request,
    a_slow_upload_goes_on_behind_its_answer,
    a_body_that_nobody_takes_is_dropped_and_the_next_request_served,
    where_the_end_is_not_sure_the_head_says_so,
    a_client_that_was_told_of_the_close_sees_it_at_once,
    a_body_that_nobody_waits_for_is_not_waited_for,
);

/// The size of a body, and how it is framed.
#[derive(Clone, Copy, Debug)]
struct Body {
    bytes: usize,
    chunked: bool,
}

impl Body {
    fn head(self, path: &str, more: &str) -> String {
        let framing = if self.chunked {
            "Transfer-Encoding: chunked".to_owned()
        } else {
            format!("Content-Length: {}", self.bytes)
        };
        format!("PUT {path} HTTP/1.1\r\nHost: play.test\r\n{more}{framing}\r\n\r\n")
    }

    fn bytes(self) -> Vec<u8> {
        (0..self.bytes).map(|at| b'a' + (at % 23) as u8).collect()
    }

    /// Its bytes on the wire, after the head.
    fn framed(self) -> Vec<u8> {
        let bytes = self.bytes();
        if !self.chunked {
            return bytes;
        }
        let text = String::from_utf8(bytes).unwrap();
        let chunks = text.as_bytes().chunks(9_999);
        let mut framed: String =
            chunks.map(|piece| chunk(std::str::from_utf8(piece).unwrap())).collect();
        framed.push_str("0\r\n\r\n");
        framed.into_bytes()
    }
}

/// Answers each request before it has read any of its body, and then reads it to its end. The
/// target's last part says what the answer is.
fn answers_and_reads_on(connection: &'static str) -> Script {
    plays(move |visit| {
        loop {
            let (head, framing) = visit.head()?;
            if head.start.starts_with("GET ") {
                visit.rest_of(head, framing)?;
                visit.send(ok("next"))?;
                continue;
            }
            let target = head.start.split(' ').nth(1).unwrap();
            let status = target.rsplit('/').next().unwrap();
            let body = if matches!(status, "204" | "304") { "" } else { "ok" };
            let length =
                if body.is_empty() { String::new() } else { "Content-Length: 2\r\n".to_owned() };
            visit.send(format!("HTTP/1.1 {status} X\r\n{length}{connection}\r\n{body}"))?;
            visit.rest_of(head, framing)?;
            if !connection.is_empty() {
                return Ok(());
            }
        }
    })
}

/// Writes all of it concurrently, and returns the client.
fn beside(client: &mut Client, pieces: Vec<Vec<u8>>, pause: Duration) -> thread::JoinHandle<bool> {
    let mut stream = client.wire().stream().try_clone().unwrap();
    thread::spawn(move || {
        for piece in pieces {
            if std::io::Write::write_all(&mut stream, &piece).is_err() {
                return false;
            }
            thread::sleep(pause);
        }
        true
    })
}

/// Rounds of each status, size, framing and pace: not one body may be cut, not one next request
/// lost.
fn an_early_answer_cuts_no_upload_and_loses_no_request(driver: Driver) {
    let stage = Stage::on(driver).backend(answers_and_reads_on("")).start();
    for round in 0..64 {
        let status = [200, 204, 304, 401, 413, 500, 503][round % 7];
        let bytes = [20_000, 70_000, 300_000, 1_000_000][round % 4];
        let body = Body { bytes, chunked: round / 4 % 2 == 1 };
        let in_the_pipe = round / 8 % 2 == 1;
        let mut client = stage.connect();
        let mut all = body.framed();
        if in_the_pipe {
            all.extend_from_slice(get("/next").as_bytes());
        }
        let (first, rest) = all.split_at(if round % 3 == 0 { 0 } else { 5_000 });
        client.send([body.head(&format!("/{status}"), "").as_bytes(), first].concat());
        let writing = beside(&mut client, vec![rest.to_vec()], Duration::ZERO);
        let response = client.response_to("PUT");
        assert_eq!(response.status, status, "round {round}");
        assert!(!response.closes(), "round {round}: {}", response.head.raw);
        assert!(writing.join().unwrap(), "round {round}: {body:?}");
        if !in_the_pipe {
            client.send(get("/next"));
        }
        client.response().expect(200, "next");
        let puts = || whole_puts(&stage);
        let puts = eventually("the body arrives whole", puts, |puts| puts.len() == round + 1);
        assert!(puts.last() == Some(&body.bytes()), "round {round}: {body:?}");
    }
    // The next client may ask at the moment in which the connection is returned.
    let visits = stage.backend(0).visits();
    assert!(visits <= 8, "the backend's connections are kept: {visits} in 64 rounds");
}

/// The bodies of the uploads that arrived whole.
fn whole_puts(stage: &Stage) -> Vec<Vec<u8>> {
    let requests = stage.backend(0).requests().into_iter();
    requests.filter(|request| request.method() == "PUT").map(|request| request.body).collect()
}

fn a_slow_upload_goes_on_behind_its_answer(driver: Driver) {
    let stage = Stage::on(driver).backend(answers_and_reads_on("")).start();
    for chunked in [false, true] {
        let body = Body { bytes: 40_000, chunked };
        let mut client = stage.connect();
        client.send(body.head("/200", "")).response().expect(200, "ok");
        assert_eq!(stage.count("requests_in_flight"), 1, "it is not over");
        let pieces = body.framed().chunks(4_000).map(<[u8]>::to_vec).collect();
        assert!(beside(&mut client, pieces, Duration::from_millis(10)).join().unwrap());
        client.get("/next").expect(200, "next");
        assert!(whole_puts(&stage).pop() == Some(body.bytes()));
    }
    assert_eq!(stage.backend(0).visits(), 1);
}

/// What a backend does after its early answer.
const ENDS: [&str; 5] = ["closes", "resets", "stops", "half-closes", "leaves in the middle"];

fn ends(how: &'static str, answer: &'static str) -> Script {
    plays(move |visit| {
        let (head, framing) = visit.head()?;
        if head.start.starts_with("GET ") {
            visit.rest_of(head, framing)?;
            let last = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnext";
            return visit.send(last);
        }
        visit.send(answer)?;
        end(visit, how)
    })
}

fn end(visit: &mut Visit, how: &str) -> Result<(), Broken> {
    match how {
        "closes" => Ok(()),
        "resets" => {
            // A reset at once would overtake the answer.
            visit.pause(Duration::from_millis(20))?;
            visit.reset();
            Ok(())
        }
        "half-closes" => {
            visit.wire().half_close();
            visit.drain()
        }
        "stops" => visit.pause(Duration::from_secs(3)),
        _ => visit.wire().bytes(10_000).map(drop),
    }
}

/// A client that was not told of a close is answered: over all rounds no request is lost.
fn whatever_becomes_of_the_backend_no_request_is_lost_unless_told(driver: Driver) {
    let (mut told, mut served) = (0, 0);
    for how in ENDS {
        let stage = Stage::on(driver)
            .pool("timeouts = { write = \"300ms\" }\nconnections = { max-requests = 1 }")
            .backend(ends(how, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
            .start();
        let rounds = if how == "stops" { 8 } else { 24 };
        let clients: Vec<_> = (0..rounds)
            .map(|round| {
                let bytes = [20_000, 150_000, 3_000_000][round % 3];
                let body = Body { bytes, chunked: round / 3 % 2 == 1 };
                let mut client = stage.connect();
                let next = if round % 2 == 0 { get("/next") } else { String::new() };
                let all = [body.framed(), next.into_bytes()].concat();
                client.send(body.head("/early", ""));
                let pieces = all.chunks(100_000).map(<[u8]>::to_vec).collect();
                let writing = beside(&mut client, pieces, Duration::ZERO);
                (round, client, writing)
            })
            .collect();
        for (round, mut client, writing) in clients {
            let response: Response = client.response_to("PUT");
            let text = String::from_utf8_lossy(&response.body);
            assert_eq!((response.status, &*text), (200, "ok"), "{how}, round {round}");
            if response.closes() {
                told += 1;
                continue;
            }
            assert!(writing.join().unwrap(), "{how}, round {round}: it was promised");
            if round % 2 == 1 {
                client.send(get("/next"));
            }
            client.response().expect(200, "next");
            served += 1;
        }
    }
    println!("{told} were told of a close, {served} were served");
    assert!(served > 0);
}

/// The backend is gone before anything of the body: each byte of it is dropped here.
fn a_body_that_nobody_takes_is_dropped_and_the_next_request_served(driver: Driver) {
    let answer = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno";
    let stage = Stage::on(driver).backend(ends("closes", answer)).start();
    for chunked in [false, true] {
        let body = Body { bytes: 2_000_000, chunked };
        let mut client = stage.connect();
        let response = client.send(body.head("/early", "")).response();
        response.expect(403, "no");
        assert!(!response.closes());
        eventually("the backend leaves", || stage.backend(0).open_visits(), |open| *open == 0);
        client.send(body.framed());
        client.get("/next").expect(200, "next");
    }
    assert!(whole_puts(&stage).is_empty());
}

fn where_the_end_is_not_sure_the_head_says_so(driver: Driver) {
    for (pool, limits, connection, chunked) in [
        ("timeouts = { request = \"20s\" }", "", "", false),
        ("", "body-size = \"1MiB\"", "", true),
        ("", "", "Connection: close\r\n", false),
    ] {
        let backend = answers_and_reads_on(connection);
        let stage = Stage::on(driver).pool(pool).limits(limits).backend(backend).start();
        let body = Body { bytes: 500_000, chunked };
        let mut client = stage.connect();
        let response = client.send(body.head("/200", "")).response();
        response.expect(200, "ok");
        assert!(response.closes(), "{pool} {limits} {connection:?}");
        // It goes on all the same, as long as both take part.
        client.send(body.framed()).expect_end();
        let all = body.bytes();
        eventually("it arrives", || whole_puts(&stage), |puts| puts.last() == Some(&all));
    }
}

fn a_client_that_was_told_of_the_close_sees_it_at_once(driver: Driver) {
    let backend = answers_and_reads_on("Connection: close\r\n");
    let stage = Stage::on(driver).backend(backend).start();
    let mut client = stage.connect();
    let body = Body { bytes: 500_000, chunked: false };
    client.send(body.head("/401", "")).send("the beginning").response().expect(401, "ok");
    client.expect_end();
    drop(client);
    stage.expect_count("requests_in_flight", 0);
}

/// RFC 9110 §10.1.1: a client that was never told to go on need not send its body.
fn a_body_that_nobody_waits_for_is_not_waited_for(driver: Driver) {
    let stage = Stage::on(driver).backend(answers_and_reads_on("")).start();
    let mut client = stage.connect();
    let head = Body { bytes: 500_000, chunked: false }.head("/417", "Expect: 100-continue\r\n");
    let response = client.send(head).response();
    response.expect(417, "ok");
    assert!(response.closes());
    client.expect_end();
    stage.expect_count("requests_in_flight", 0);
}
