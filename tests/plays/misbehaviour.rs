//! Plays of backends that break the protocol: too much, too early, twice, too large, cut short.
//!
//! Two promises: no client's answer is ever another's, and no answer that was cut looks whole.

use std::time::Duration;

use crate::{
    backend::{Cue, Script, plays},
    client::{Client, get},
    scripts::{ok, sends, sends_and_closes, sends_and_resets},
    stage::{Driver, Stage, eventually},
    wire::Broken,
};

on_both_drivers!(
    what_comes_behind_an_answer_is_nobodys_answer,
    what_comes_while_idle_is_nobodys_answer,
    a_body_where_none_can_be_is_nobodys_answer,
    spaces_where_none_belong_are_taken_out_of_answers,
    an_answer_without_a_body_is_taken_whatever_its_fields_say,
    what_an_answer_without_a_body_announces_is_nobodys_answer,
    answers_that_are_none_become_502,
    a_status_beyond_those_of_the_standard_is_passed_on,
    a_status_beyond_those_of_the_standard_counts_where_it_is_listed,
    an_answer_that_is_not_taken_for_its_form_takes_nobody_out,
    a_body_that_is_not_taken_for_its_form_takes_nobody_out,
    a_body_that_is_cut_takes_a_backend_out,
    what_is_no_answer_takes_a_backend_out,
    connections_that_end_before_an_answer_become_502,
    a_head_beyond_all_bounds_becomes_502,
    a_cut_length_stays_cut,
    a_cut_chunked_body_stays_cut,
    broken_chunks_cut_the_answer,
    a_reset_where_the_end_is_the_length_stays_cut,
    a_client_of_1_0_sees_a_cut_as_a_reset,
    a_cut_is_counted_and_the_next_request_is_served,
    urgent_data_in_a_long_answer_cuts_it,
);

const UNASKED: &str = "backend_connections_closed_total{reason=\"unasked\"}";

fn what_comes_behind_an_answer_is_nobodys_answer(driver: Driver) {
    let evil = ok("evil");
    for behind in [evil.as_str(), "\r\n", "x", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"] {
        let stage = Stage::on(driver).backend(sends([&ok("good"), behind].concat())).start();
        let mut client = stage.connect();
        for visits in 1..=10 {
            client.get("/").expect(200, "good");
            assert_eq!(stage.backend(0).visits(), visits, "{behind:?}: not to be used again");
        }
        client.half_close().expect_end();
    }
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n";
    let stage = Stage::on(driver).backend(sends([chunked, &ok("evil")].concat())).start();
    let mut client = stage.connect();
    for _ in 0..10 {
        client.get("/").expect(200, "good");
    }
}

fn what_comes_while_idle_is_nobodys_answer(driver: Driver) {
    for unasked in [ok("evil"), "x".to_owned(), "HTTP/1.1 408 Request Timeout\r\n\r\n".to_owned()] {
        let cue = Cue::default();
        let talkative = {
            let cue = cue.clone();
            plays(move |visit| {
                loop {
                    visit.request()?;
                    visit.send(ok("good"))?;
                    if visit.number() == 0 {
                        visit.wait_for(&cue)?;
                        visit.send(&unasked)?;
                    }
                }
            })
        };
        let stage = Stage::on(driver).backend(talkative).start();
        let mut client = stage.connect();
        client.get("/1").expect(200, "good");
        stage.expect_count("backend_connections{state=\"idle\"}", 1);
        cue.give();
        stage.expect_count(UNASKED, 1);
        client.get("/2").expect(200, "good");
        client.get("/3").expect(200, "good");
        assert_eq!(stage.backend(0).visits(), 3, "what came behind an answer makes it suspected");
    }
}

fn a_body_where_none_can_be_is_nobodys_answer(driver: Driver) {
    for (method, raw, status) in [
        ("HEAD", ok("evil"), 200),
        ("HEAD", format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{}", ok("evil")), 200),
        ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil".to_owned(), 204),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil".to_owned(), 304),
    ] {
        let stage = Stage::on(driver).backend(sends(raw)).start();
        let mut client = stage.connect();
        for visits in 1..=5 {
            client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
            assert_eq!(client.response_to(method).status, status);
            assert_eq!(stage.backend(0).visits(), visits);
        }
        client.half_close().expect_end();
    }
}

/// RFC 9112 §5.1 and §7.1.1.
fn spaces_where_none_belong_are_taken_out_of_answers(driver: Driver) {
    for raw in [
        "HTTP/1.1 200 OK\r\nA : b\r\nContent-Length \t: 4\r\n\r\nbody",
        "HTTP/1.1 200 OK\r\nA\t:b\r\nTransfer-Encoding : chunked\r\n\r\n\
         3  \r\nbod\r\n1\t \t\r\ny\r\n0 \r\nB : c\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\nTransfer-Encoding: chunked\r\n\r\n\
         0004    \r\nbody\r\n0      \r\n\r\n",
    ] {
        let stage = Stage::on(driver).backend(sends(raw)).start();
        let mut client = stage.connect();
        for _ in 0..3 {
            let response = client.get("/");
            response.expect(200, "body");
            assert_eq!(response.field("a"), Some("b"), "{raw:?}");
            assert!(response.head.raw.contains("\r\nA: b\r\n"), "{raw:?}");
            let trailed = raw.contains("B :").then(|| ("B".to_owned(), "c".to_owned()));
            assert_eq!(response.trailers, Vec::from_iter(trailed), "{raw:?}");
        }
        assert_eq!(stage.backend(0).visits(), 1, "{raw:?}");
    }
}

/// Framing that makes a body unreadable, or announces one where there must be none.
const UNSOUND: &[&str] = &[
    "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    "Content-Length: 0\r\nContent-Length: 1\r\n",
    "Content-Length: 4, 5\r\n",
    "Content-Length: nought\r\n",
    "Content-Length:\r\n",
    "Content-Length: -1\r\n",
    "Content-Length: 99999999999999999999\r\n",
    "Transfer-Encoding: gzip\r\n",
    "Transfer-Encoding: identity, chunked\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
];

/// RFC 9112 §6.3, 1: it ends with its head. Whether the backend agrees is unknown, so the next
/// request goes on another connection.
fn an_answer_without_a_body_is_taken_whatever_its_fields_say(driver: Driver) {
    for (method, line) in [
        ("HEAD", "HTTP/1.1 200 OK"),
        ("HEAD", "HTTP/1.1 404 Not Found"),
        ("GET", "HTTP/1.1 204 No Content"),
        ("DELETE", "HTTP/1.1 204 No Content"),
        ("GET", "HTTP/1.1 304 Not Modified"),
    ] {
        for fields in UNSOUND {
            let stage = Stage::on(driver).backend(sends(format!("{line}\r\n{fields}A: b\r\n\r\n")));
            let stage = stage.start();
            let mut client = stage.connect();
            for visits in 1..=2 {
                client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
                let response = client.response_to(method);
                assert_eq!(response.head.start, line, "{fields:?}");
                assert_eq!(response.field("content-length"), None, "{line} {fields:?}");
                assert_eq!(response.field("transfer-encoding"), None, "{line} {fields:?}");
                assert_eq!(response.field("a"), Some("b"));
                assert!(!response.closes(), "the client's connection is as good as before");
                assert_eq!(stage.backend(0).visits(), visits, "{line} {fields:?}");
            }
            client.half_close().expect_end();
            assert_eq!(stage.count("backend_answers_refused_total"), 0);
        }
    }
}

/// What a 204 announces comes a moment later, when another client may have the connection.
fn what_an_answer_without_a_body_announces_is_nobodys_answer(driver: Driver) {
    for fields in ["Transfer-Encoding: chunked\r\n", "Content-Length: 38\r\n"] {
        let head = format!("HTTP/1.1 204 No Content\r\n{fields}\r\n");
        let late = plays(move |visit| {
            visit.request()?;
            visit.send(&head)?;
            visit.request()?;
            visit.send(ok("evil"))
        });
        let stage = Stage::on(driver).backend(late).start();
        let mut client = stage.connect();
        for visits in 1..=5 {
            assert_eq!(client.get("/").status, 204);
            assert_eq!(stage.backend(0).visits(), visits, "{fields}");
        }
    }
}

/// What a backend sends instead of an answer, and then stays open.
#[rustfmt::skip]
const NO_ANSWERS: &[&str] = &[
    "garbage\r\n\r\n",
    "\r\n\r\n",
    "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\n",
    "HTTP/1.1 200 OK\r\nContent-Length : 0, 1\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 1\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 0, 1\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na",
    "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551616\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n",
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
];

fn answers_that_are_none_become_502(driver: Driver) {
    for raw in NO_ANSWERS {
        let behind = [raw.as_bytes(), ok("evil").as_bytes()].concat();
        let stage = Stage::on(driver).backend(sends(behind)).start();
        let mut client = stage.connect();
        for visits in 1..=2 {
            let response = client.get("/");
            assert_eq!(response.status, 502, "{raw:?}");
            response.expect_fault(502, "backend_protocol");
            assert!(!response.closes(), "{raw:?}: the request was read whole");
            assert_eq!(stage.backend(0).visits(), visits, "{raw:?}");
        }
        client.half_close().expect_end();
    }
}

/// RFC 9110 §15: like any 5xx, so it is an answer.
fn a_status_beyond_those_of_the_standard_is_passed_on(driver: Driver) {
    for line in ["HTTP/1.1 600 X", "HTTP/1.1 799 ", "HTTP/1.0 999 Denied", "HTTP/1.1 599 X"] {
        let raw = format!("{line}\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nno");
        let stage = two_bad_at_one_path(driver, raw.as_bytes(), false);
        let mut client = stage.connect();
        let (mut passed, status) = (0, line[9..12].parse().unwrap());
        for _ in 0..12 {
            let response = client.get("/bad");
            if response.text() == "no" {
                response.expect(status, "no");
                assert_eq!(response.head.start.replace("1.1", "1.0"), line.replace("1.1", "1.0"));
                passed += 1;
            }
        }
        assert_eq!(passed, 6, "{line}");
        let names = round_of_bad(&mut client);
        assert_eq!(names.matches('a').count(), 6, "{line}: nobody is ejected");
        assert_eq!(stage.backend(0).visits(), 1, "{line}: its connection is used again");
        assert_eq!(stage.count("retries_total"), 0, "{line}: nor is it asked again");
    }
}

fn a_status_beyond_those_of_the_standard_counts_where_it_is_listed(driver: Driver) {
    let raw = "HTTP/1.1 999 Denied\r\nContent-Length: 2\r\n\r\nno";
    let stage = Stage::on(driver)
        .pool("passive = { statuses = [\"500-999\"], eject = \"60s\" }")
        .backend(bad_at_one_path("a", raw.into(), false))
        .backend(bad_at_one_path("b", ok("b").into(), false))
        .start();
    let mut client = stage.connect();
    eventually("it is ejected", || round_of_bad(&mut client), |names| !names.contains('a'));
}

/// Answers `/bad` with these bytes, and then closes if `closes`; all else with its name.
fn bad_at_one_path(name: &'static str, raw: Vec<u8>, closes: bool) -> Script {
    plays(move |visit| {
        loop {
            if visit.request()?.target() != "/bad" {
                visit.send(ok(name))?;
                continue;
            }
            visit.send(&raw)?;
            if closes {
                return Ok(());
            }
        }
    })
}

/// Two backends that answer `/bad` like this, and are ejected for long if it counts.
fn two_bad_at_one_path(driver: Driver, raw: &[u8], closes: bool) -> Stage {
    Stage::on(driver)
        .pool("passive = { max-failures = 3, eject = \"60s\" }")
        .backend(bad_at_one_path("a", raw.to_vec(), closes))
        .backend(bad_at_one_path("b", ok("b").into_bytes(), false))
        .start()
}

/// Asks for `/bad` a dozen times; returns the backends that answer the next dozen of others.
fn round_of_bad(client: &mut Client) -> String {
    (0..12).for_each(|_| _ = client.get("/bad"));
    (0..12).map(|_| client.get("/").text().to_owned()).collect()
}

fn an_answer_that_is_not_taken_for_its_form_takes_nobody_out(driver: Driver) {
    let large = |bytes: usize| format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(bytes));
    let many = |fields: usize| format!("HTTP/1.1 404 No\r\n{}\r\n", "X: a\r\n".repeat(fields));
    for raw in [
        large(40 << 10),
        many(101),
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".to_owned(),
        "HTTP/1.1 500 No\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
        "HTTP/1.1 404 No\r\nTransfer-Encoding: gzip\r\n\r\n".to_owned(),
        "HTTP/1.0 302 Found\r\nLocation: /\0\r\n\r\n".to_owned(),
        "HTTP/1.1 302 Found\nLocation: /\n\n".to_owned(),
        "HTTP/1.1 200 OK\r\nno field\r\n\r\n".to_owned(),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n".to_owned(),
    ] {
        let stage = two_bad_at_one_path(driver, raw.as_bytes(), false);
        let mut client = stage.connect();
        for refused in [6, 12, 18] {
            let names = round_of_bad(&mut client);
            let start = &raw[..raw.len().min(60)];
            assert_eq!(names.matches('a').count(), 6, "{start:?}: {names}");
            stage.expect_count("backend_answers_refused_total", refused);
        }
    }
}

/// Chunks and trailers that break a rule. The longest are beyond the bound of a line.
fn broken_chunks() -> Vec<String> {
    let fixed = [
        "xyz\r\n",
        "-1\r\n",
        "\r\n",
        "111111111111111111111111111111\r\n",
        "2\nok\n0\n\n",
        "2\r\nokX",
        "2\r\nok\r\nxyz\r\n",
        "2\r\nok\r\n0\r\nno field\r\n\r\n",
    ];
    let extension = format!("2;{}\r\nok\r\n0\r\n\r\n", "a".repeat(70_000));
    let trailer = format!("0\r\nX: {}\r\n\r\n", "a".repeat(40_000));
    let trailers = format!("0\r\n{}\r\n", "A: b\r\n".repeat(150));
    fixed.map(str::to_owned).into_iter().chain([extension, trailer, trailers]).collect()
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

fn a_body_that_is_not_taken_for_its_form_takes_nobody_out(driver: Driver) {
    for broken in broken_chunks() {
        for begun in ["", "2\r\nno\r\n"] {
            let (head, broken) = ([CHUNKED, begun].concat(), broken.clone());
            let start = broken[..broken.len().min(60)].to_owned();
            let bad = plays(move |visit| {
                while visit.request()?.target() != "/bad" {
                    visit.send(ok("a"))?;
                }
                visit.send(&head)?;
                if head.len() > CHUNKED.len() {
                    // The head and the first chunk go out alone.
                    visit.pause(Duration::from_millis(10))?;
                }
                visit.send(&broken)?;
                visit.drain()
            });
            let stage = Stage::on(driver)
                .pool("passive = { max-failures = 3, eject = \"60s\" }")
                .backend(bad)
                .backend(bad_at_one_path("b", ok("b").into_bytes(), false))
                .start();
            for refused in [6, 12] {
                for _ in 0..12 {
                    _ = stage.connect().send(get("/bad")).try_response();
                }
                let names: String = (0..12).map(|_| stage.get("/").text().to_owned()).collect();
                assert_eq!(names.matches('a').count(), 6, "{begun:?} {start:?}: {names}");
                stage.expect_count("backend_answers_refused_total", refused);
            }
        }
    }
}

fn a_body_that_is_cut_takes_a_backend_out(driver: Driver) {
    for cut in ["", "2", "2\r\no", "2\r\nok\r\n", "2\r\nok\r\n0\r\n"] {
        let raw = [CHUNKED, cut].concat();
        let stage = two_bad_at_one_path(driver, raw.as_bytes(), true);
        let who = || {
            for _ in 0..12 {
                _ = stage.connect().send(get("/bad")).try_response();
            }
            (0..12).map(|_| stage.get("/").text().to_owned()).collect::<String>()
        };
        eventually("it is ejected", who, |names| !names.contains('a'));
        assert_eq!(stage.count("backend_answers_refused_total"), 0, "{cut:?}");
    }
}

fn what_is_no_answer_takes_a_backend_out(driver: Driver) {
    for (raw, closes) in [
        ("garbage\r\n\r\n", false),
        ("HTTP/1.1 2000 OK\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\nContent-Le", true),
        ("", true),
    ] {
        let stage = two_bad_at_one_path(driver, raw.as_bytes(), closes);
        let mut client = stage.connect();
        let who = || round_of_bad(&mut client);
        eventually("it is ejected", who, |names| !names.contains('a'));
        assert_eq!(stage.count("backend_answers_refused_total"), 0);
    }
}

fn connections_that_end_before_an_answer_become_502(driver: Driver) {
    let hint = "HTTP/1.1 103 Early Hints\r\n\r\n";
    for (raw, code) in [
        ("", "backend_reset"),
        // A cut head is no answer, but the sign of one: not to be retried.
        ("H", "backend_protocol"),
        ("HTTP/1.1 200 OK\r\nContent-Le", "backend_protocol"),
        (hint, "backend_"),
    ] {
        for script in [sends_and_closes(raw), sends_and_resets(raw)] {
            let stage = Stage::on(driver).backend(script).start();
            let mut client = stage.connect();
            client.send(get("/"));
            if raw == hint {
                assert_eq!(client.response().status, 103);
            }
            let response = client.response();
            assert!(response.status == 502 && response.text().contains(code), "{response:#?}");
            assert!(!response.closes(), "the request was read whole");
            client.half_close().expect_end();
            assert_eq!(stage.count("retries_total"), 0, "there is nobody else");
        }
    }
}

fn a_head_beyond_all_bounds_becomes_502(driver: Driver) {
    let endless = plays(|visit| {
        visit.request()?;
        visit.send("HTTP/1.1 200 OK\r\n")?;
        loop {
            visit.send(format!("X: {}\r\n", "a".repeat(1_000)))?;
        }
    });
    let one_line = [b"HTTP/1.1 200 OK\r\nX: ".to_vec(), vec![b'a'; 40 << 10]].concat();
    let many = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n", "X: a\r\n".repeat(100));
    for script in [endless, sends(one_line), sends(many)] {
        let stage = Stage::on(driver).backend(script).start();
        stage.get("/").expect_fault(502, "response_head_too_large");
    }
    let most = format!("HTTP/1.1 200 OK\r\n{}Content-Length: 2\r\n\r\nok", "X: a\r\n".repeat(99));
    Stage::on(driver).backend(sends(most)).start().get("/").expect(200, "ok");
}

/// Sends the second piece on a cue: when the first has been relayed.
fn in_two_pieces(first: &'static str, second: String, cue: &Cue) -> Script {
    let cue = cue.clone();
    plays(move |visit| {
        visit.request()?;
        visit.send(first)?;
        visit.wait_for(&cue)?;
        visit.send(&second)?;
        visit.drain()
    })
}

/// Asks and expects an answer that has `body` and then ends in the middle.
#[track_caller]
fn expect_cut(script: Script, driver: Driver, body: &str) {
    expect_cut_after(&Cue::default(), script, driver, body);
}

/// Like `expect_cut`, with a cue for the backend once the head has arrived.
#[track_caller]
fn expect_cut_after(cue: &Cue, script: Script, driver: Driver, body: &str) {
    let stage = Stage::on(driver).backend(script).start();
    let mut client: Client = stage.connect();
    client.send(get("/"));
    let head = client.response_head("GET").unwrap();
    assert_eq!(head.status, 200);
    cue.give();
    let mut came = Vec::new();
    let end = client.wire().body_into(head.framing, &mut |piece| came.extend_from_slice(piece));
    assert!(matches!(end, Err(Broken::Cut | Broken::Reset)), "a cut answer: {end:?}, {came:?}");
    assert!(body.as_bytes().starts_with(&came), "{came:?}");
    stage.expect_count("responses_incomplete_total", 1);
}

fn a_cut_length_stays_cut(driver: Driver) {
    let raw = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nthe beginning";
    expect_cut(sends_and_closes(raw), driver, "the beginning");
    expect_cut(sends_and_resets(raw), driver, "the beginning");
}

fn a_cut_chunked_body_stays_cut(driver: Driver) {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for rest in
        ["5\r\nabcde\r\n", "5\r\nabcde", "5\r\nabc", "5\r\nabcde\r\n0\r\n", "5\r\nabcde\r\n0"]
    {
        expect_cut(sends_and_closes([head, rest].concat()), driver, "abcde");
        expect_cut(sends_and_resets([head, rest].concat()), driver, "abcde");
    }
}

fn broken_chunks_cut_the_answer(driver: Driver) {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n";
    for rest in ["xyz\r\n", "\r\n", "5\nabcde\r\n", "5\r\nabcdef\r\n", "0\r\nbad trailer\r\n\r\n"] {
        let cue = Cue::default();
        let script = in_two_pieces(head, [rest, "0\r\n\r\n"].concat(), &cue);
        expect_cut_after(&cue, script, driver, "abcdeabcde");
        // If all came at once, the answer need not have begun.
        let stage = Stage::on(driver).backend(sends([head, rest, "0\r\n\r\n"].concat())).start();
        let mut client = stage.connect();
        client.send(get("/"));
        if let Ok(response) = client.try_response() {
            response.expect_fault(502, "backend_protocol");
        }
    }
}

fn a_reset_where_the_end_is_the_length_stays_cut(driver: Driver) {
    expect_cut(sends_and_resets("HTTP/1.1 200 OK\r\n\r\nthe beginning"), driver, "the beginning");
}

fn a_client_of_1_0_sees_a_cut_as_a_reset(driver: Driver) {
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n";
    let second = |cue: &Cue| in_two_pieces(chunked, "nonsense\r\n".to_owned(), cue);
    let scripts: [&dyn Fn(&Cue) -> Script; 4] =
        [&|_| sends_and_closes(chunked), &|_| sends_and_resets(chunked), &second, &|_| {
            sends_and_resets("HTTP/1.1 200 OK\r\n\r\nabcde")
        }];
    for script in scripts {
        let cue = Cue::default();
        let stage = Stage::on(driver).backend(script(&cue)).start();
        let mut client = stage.connect();
        client.send("GET / HTTP/1.0\r\n\r\n");
        let end = client.response_head("GET").and_then(|head| {
            cue.give();
            client.wire().body(head.framing)
        });
        assert_eq!(end.expect_err("an end would look whole"), Broken::Reset);
    }
}

fn a_cut_is_counted_and_the_next_request_is_served(driver: Driver) {
    let once = plays(|visit| {
        visit.request()?;
        if visit.number() == 0 {
            visit.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")?;
            visit.pause(Duration::from_millis(50))?;
            return Ok(());
        }
        visit.send(ok("good"))?;
        visit.drain()
    });
    let stage = Stage::on(driver).backend(once).start();
    let mut first = stage.connect();
    first.send([get("/1"), get("/behind")].concat());
    assert!(first.try_response().is_err());
    stage.expect_count("responses_incomplete_total", 1);
    // Requests pipelined after the cut answer are not served on that connection.
    stage.get("/2").expect(200, "good");
    let targets: Vec<_> = stage.backend(0).heads().into_iter().map(|head| head.start).collect();
    assert_eq!(targets, ["GET /1 HTTP/1.1", "GET /2 HTTP/1.1"]);
}

/// On epoll the relay of a long answer used to spin for ever: readable, and nothing to splice.
fn urgent_data_in_a_long_answer_cuts_it(driver: Driver) {
    let stage = Stage::on(driver)
        .backend(plays(|visit| {
            visit.request()?;
            visit.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")?;
            visit.send([b'x'; 200_000])?;
            visit.pause(Duration::from_millis(100))?;
            visit.urgent(b'!');
            visit.send([b'x'; 200_000])?;
            visit.drain()
        }))
        .start();
    let mut client = stage.connect();
    client.send(get("/"));
    let end = client.try_response();
    assert!(matches!(end, Err((Broken::Cut | Broken::Reset, Some(_)))), "{end:?}");
}
