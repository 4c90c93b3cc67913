//! Plays of timeouts: every wait has an end, which comes when it should and ends what it should.
//!
//! A timeout holds to a quarter of a second, the interval of the sweep; `expect_about` allows for a
//! busy machine. Where a play sleeps, the passing of time is its subject. Peers that are slow but
//! in time play at a pace that the machine keeps.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    backend::{Cue, Script, plays},
    client::{Client, get},
    pace::{Watch, ms},
    scripts::{answers, chunk, delays, never_answers, never_reads, ok, sends},
    stage::{Driver, Stage, expect_about},
    wire::Broken,
};

on_both_drivers!(
    a_head_that_does_not_end_is_answered_with_408,
    a_trickle_does_not_prolong_a_head,
    a_connection_without_a_request_is_closed,
    a_body_that_stops_is_answered_with_408,
    an_idle_connection_is_closed,
    a_client_that_stops_reading_is_cut,
    a_backend_that_cannot_be_reached_is_answered_with_504,
    a_backend_that_stops_reading_is_answered_with_504,
    a_backend_that_does_not_answer_is_answered_with_504,
    a_trickle_does_not_prolong_a_response_head,
    an_answer_that_stops_is_cut,
    a_request_has_an_end_of_its_own,
    a_request_that_ends_in_the_middle_of_its_answer_is_cut,
    a_response_head_has_an_end_even_behind_an_upload,
    a_request_ends_though_its_client_does_not_read,
    ; at a pace:
    a_body_that_is_slow_may_go_on,
    a_busy_connection_is_not_idle,
    a_slow_request_does_not_count_against_its_backend,
    an_answer_that_is_slow_may_go_on,
    a_timeout_ends_nobody_else,
);

// In front without those about a connection of HTTP/1, which the end of a stream does not end.
over_http_2!(
    a_backend_that_does_not_answer_is_answered_with_504,
    a_trickle_does_not_prolong_a_response_head,
    an_answer_that_stops_is_cut,
    a_request_has_an_end_of_its_own,
    a_request_that_ends_in_the_middle_of_its_answer_is_cut,
    a_response_head_has_an_end_even_behind_an_upload,
    ; behind:
    a_body_that_stops_is_answered_with_408,
    a_client_that_stops_reading_is_cut,
    a_backend_that_stops_reading_is_answered_with_504,
);

const WAIT: Duration = Duration::from_millis(500);
/// For peers that are slow but in time: allows for the quarter of a second that a timeout may come
/// early.
const GAP: Duration = Duration::from_millis(100);

fn a_head_that_does_not_end_is_answered_with_408(driver: Driver) {
    let stage = listening(driver, "client-header = \"500ms\"", answers("never"));
    for head in ["G", "GET / HTTP/1.1\r\nHost: a\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r"] {
        let mut client = stage.connect();
        let took = client.waits(|client| {
            let response = client.send(head).response();
            response.expect_fault(408, "request_timeout");
            assert!(response.closes());
        });
        expect_about(took, WAIT);
        client.expect_end();
    }
    assert_eq!(stage.backend(0).heard(), "");
}

fn a_trickle_does_not_prolong_a_head(driver: Driver) {
    let stage = listening(driver, "client-header = \"500ms\"", answers("never"));
    let mut client = stage.connect();
    let took = client.waits(|client| {
        let sending = client.wire().stream().try_clone().unwrap();
        let trickle = std::thread::spawn(move || trickle(&sending, &get("/slow")));
        client.response().expect_fault(408, "request_timeout");
        client.expect_end();
        let _ = client.wire().stream().shutdown(std::net::Shutdown::Both);
        trickle.join().unwrap();
    });
    expect_about(took, WAIT + Duration::from_millis(50));
}

fn a_connection_without_a_request_is_closed(driver: Driver) {
    let stage = listening(driver, "client-header = \"500ms\", idle = \"5s\"", answers("never"));
    let watch = Watch::start();
    let mut client = stage.connect();
    match client.try_response() {
        Ok(response) => response.expect_fault(408, "request_timeout"),
        Err((broken, _)) => assert_eq!(broken, Broken::Ended),
    }
    expect_about(watch.took(), WAIT);
    client.expect_end();
}

fn a_body_that_stops_is_answered_with_408(driver: Driver) {
    let stage = listening(driver, "client-body = \"500ms\"", answers("never"));
    for head in ["Content-Length: 100\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"]
    {
        let mut client = stage.connect();
        let took = client.waits(|client| {
            client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{head}"));
            let response = client.response();
            response.expect_fault(408, "request_timeout");
            assert!(response.closes());
        });
        expect_about(took, WAIT);
        client.expect_end();
    }
    assert!(stage.backend(0).requests().is_empty(), "no backend takes a part for the whole");
}

fn a_body_that_is_slow_may_go_on(driver: Driver, slower: u32) {
    let wait = ms(WAIT * slower);
    let timeouts = format!("client-body = {wait}, client-header = {wait}");
    let stage = listening(driver, &timeouts, answers("ok"));
    let mut client = stage.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n");
    client.send_slowly("abcdefgh", GAP * slower).response().expect(200, "ok");
    client.get("/next").expect(200, "ok");
}

fn an_idle_connection_is_closed(driver: Driver) {
    let stage = listening(driver, "idle = \"500ms\"", answers("ok"));
    let mut client = stage.connect();
    let took = client.waits(|client| {
        client.get("/").expect(200, "ok");
        client.expect_end();
    });
    expect_about(took, WAIT);
    // A client that asks again at once is waited for in another way, but no longer.
    let mut quick = stage.connect();
    for _ in 0..4 {
        quick.get("/").expect(200, "ok");
    }
    expect_about(quick.waits(Client::expect_end), WAIT);
}

fn a_busy_connection_is_not_idle(driver: Driver, slower: u32) {
    let stage = listening(driver, &format!("idle = {}", ms(WAIT * slower)), answers("ok"));
    let mut busy = stage.connect();
    for _ in 0..6 {
        busy.get("/").expect(200, "ok");
        std::thread::sleep(GAP * slower);
    }
}

fn a_client_that_stops_reading_is_cut(driver: Driver) {
    let stage = listening(driver, "client-write = \"500ms\"", fountain());
    let mut client = Client::connect_with_small_buffer(stage.address(), 32 << 10);
    client.send(get("/"));
    assert_eq!(client.response_head("GET").unwrap().status, 200);
    stage.expect_count("client_timeouts_total", 1);
    stage.expect_count("connections", 0);
    stage.expect_count("backend_in_flight", 0);
    // What is in the kernel still comes; it must not look whole.
    assert!(matches!(client.wire().until_end(), Ok(_) | Err(Broken::Reset)));
}

fn a_backend_that_cannot_be_reached_is_answered_with_504(driver: Driver) {
    let stage = pooled(driver, "connect = \"500ms\"", Script::Unreachable);
    let mut client = stage.connect();
    let took = client.waits(|client| client.get("/").expect_fault(504, "connect_timeout"));
    expect_about(took, WAIT);
}

fn a_backend_that_stops_reading_is_answered_with_504(driver: Driver) {
    let stage = pooled(driver, "write = \"500ms\"", never_reads());
    let mut client = stage.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n");
    let sending = client.wire().stream().try_clone().unwrap();
    let flood = std::thread::spawn(move || {
        let piece = [b'a'; 64 << 10];
        while std::io::Write::write_all(&mut &sending, &piece).is_ok() {}
    });
    let response = client.response();
    assert_eq!(response.status, 504);
    assert!(response.closes());
    let _ = client.wire().stream().shutdown(std::net::Shutdown::Both);
    flood.join().unwrap();
}

fn a_backend_that_does_not_answer_is_answered_with_504(driver: Driver) {
    let stage = pooled(driver, "response = \"500ms\"", never_answers());
    let mut client = stage.connect();
    let took = client.waits(|client| {
        let response = client.get("/");
        response.expect_fault(504, "response_timeout");
        assert!(response.text().contains("\"error\":\"Gateway Timeout\""));
        assert!(!response.closes(), "the request was read whole");
    });
    expect_about(took, WAIT);
    stage.expect_count("backend_in_flight", 0);
    assert_eq!(stage.count("retries_total"), 0, "not asked for");
}

fn a_trickle_does_not_prolong_a_response_head(driver: Driver) {
    let stage =
        pooled(driver, "response = \"500ms\"", trickles("", "HTTP/1.1 200 OK\r\nX: trickle", GAP));
    let mut client = stage.connect();
    let took = client.waits(|client| client.get("/").expect_fault(504, "response_timeout"));
    expect_about(took, WAIT);
}

fn a_slow_request_does_not_count_against_its_backend(driver: Driver, slower: u32) {
    let stage = pooled(driver, &format!("response = {}", ms(3 * GAP * slower)), answers("ok"));
    let mut client = stage.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n");
    client.send_slowly("abcdef", GAP * slower).response().expect(200, "ok");
}

fn an_answer_that_stops_is_cut(driver: Driver) {
    for head in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\n\r\nabc",
    ] {
        let stage = pooled(driver, "body = \"500ms\"", sends(head));
        let mut client = stage.connect();
        let took = client.waits(|client| {
            client.send(get("/"));
            let (broken, read) = client.try_response().expect_err("it cannot look whole");
            assert!(matches!(broken, Broken::Cut | Broken::Reset), "{broken:?}");
            assert_eq!(read.map(|response| response.body), Some(b"abc".to_vec()));
        });
        expect_about(took, WAIT);
        stage.expect_count("responses_incomplete_total", 1);
    }
}

fn an_answer_that_is_slow_may_go_on(driver: Driver, slower: u32) {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n";
    let wait = ms(WAIT * slower);
    let slow = trickles(head, "abcdefgh", GAP * slower);
    let stage = pooled(driver, &format!("body = {wait}, response = {wait}"), slow);
    stage.get("/").expect(200, "abcdefgh");
}

fn a_request_has_an_end_of_its_own(driver: Driver) {
    let stage = pooled(driver, "request = \"500ms\"", delays(Duration::from_secs(5), "too late"));
    let mut client = stage.connect();
    let took = client.waits(|client| {
        let response = client.get("/");
        response.expect_fault(504, "deadline");
        assert!(response.text().contains("\"error\":\"Gateway Timeout\""));
    });
    expect_about(took, WAIT);
}

fn a_request_that_ends_in_the_middle_of_its_answer_is_cut(driver: Driver) {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n";
    let stage = pooled(driver, "request = \"500ms\"", trickles(head, "abcdefghijklmnop", GAP));
    let mut client = stage.connect();
    let took = client.waits(|client| {
        client.send(get("/"));
        let (broken, _) = client.try_response().expect_err("it cannot look whole");
        assert!(matches!(broken, Broken::Cut | Broken::Reset), "{broken:?}");
    });
    expect_about(took, WAIT);
}

fn a_timeout_ends_nobody_else(driver: Driver, slower: u32) {
    let some = plays(|visit| {
        loop {
            let request = visit.request()?;
            if request.target() == "/never" {
                visit.drain()?;
            }
            visit.send(ok("ok"))?;
        }
    });
    let stage = pooled(driver, &format!("response = {}", ms(WAIT * slower)), some);
    let mut doomed: Vec<_> = (0..5).map(|_| stage.connect()).collect();
    for client in &mut doomed {
        client.send(get("/never"));
    }
    // Descriptors come and go meanwhile: a deadline must end only the one it was set for.
    let since = Instant::now();
    let mut kept = stage.connect();
    while since.elapsed() < 2 * WAIT * slower {
        stage.get("/").expect(200, "ok");
        kept.get("/").expect(200, "ok");
    }
    for client in &mut doomed {
        client.response().expect_fault(504, "response_timeout");
    }
}

fn listening(driver: Driver, timeouts: &str, script: Script) -> Stage {
    Stage::on(driver).listener(&format!("timeouts = {{ {timeouts} }}")).backend(script).start()
}

fn pooled(driver: Driver, timeouts: &str, script: Script) -> Stage {
    Stage::on(driver).pool(&format!("timeouts = {{ {timeouts} }}")).backend(script).start()
}

/// Sends a head at once and the rest byte by byte.
fn trickles(head: &'static str, rest: &'static str, gap: Duration) -> Script {
    plays(move |visit| {
        visit.request()?;
        visit.send(head)?;
        for byte in rest.bytes() {
            visit.pause(gap)?;
            visit.send([byte])?;
        }
        visit.drain()
    })
}

/// Answers with an endless body.
fn fountain() -> Script {
    plays(|visit| {
        visit.request()?;
        visit.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")?;
        loop {
            visit.send([b'a'; 64 << 10])?;
        }
    })
}

fn trickle(mut stream: &std::net::TcpStream, text: &str) {
    for byte in text.bytes() {
        if std::io::Write::write_all(&mut stream, &[byte]).is_err() {
            break;
        }
        std::thread::sleep(GAP / 3);
    }
}

/// While an upload went on, the wait for the head used to have no end; it got one when the upload
/// ended, and lost it with the first bytes of the head.
fn a_response_head_has_an_end_even_behind_an_upload(driver: Driver) {
    let stage = Stage::on(driver)
        .pool("timeouts = { response = \"500ms\" }")
        .backend(plays(|visit| {
            visit.request()?;
            visit.send("HTTP/1.1 200 OK\r\n")?;
            visit.wait_for(&Cue::default())
        }))
        .start();
    let mut client = stage.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(chunk("hello"));
    thread::sleep(Duration::from_millis(100));
    let took = client.waits(|client| {
        client.send("0\r\n\r\n").response().expect_fault(504, "response_timeout");
    });
    expect_about(took, Duration::from_millis(500));
}

/// The time for the whole request used not to end a wait for the client to read.
fn a_request_ends_though_its_client_does_not_read(driver: Driver) {
    let stage = Stage::on(driver)
        .pool("timeouts = { request = \"500ms\" }")
        .backend(plays(|visit| {
            visit.request()?;
            visit.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")?;
            while visit.send([b'x'; 65_536]).is_ok() {}
            Ok(())
        }))
        .start();
    let mut client = stage.connect();
    let took = client.waits(|client| {
        client.send(get("/"));
        assert_eq!(client.response_head("GET").unwrap().status, 200);
        stage.expect_count("connections", 0);
    });
    expect_about(took, Duration::from_millis(500));
}
