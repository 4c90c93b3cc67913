//! Plays of backends that speak HTTP/2, behind clients of both versions.
//!
//! Bodies of each kind, trailers, interim answers and ends of each kind, and what only connections
//! of many requests have: their limit, how one is opened, what a backend sends back unprocessed,
//! what is silent, and who pays when one breaks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use ringway::Stop;

use crate::{
    backend::{Cue, plays},
    client::{Client, get, post},
    frames::{DATA, END_HEADERS, END_STREAM, Frame, HEADERS, Http2, PING, RST_STREAM, block},
    logs::Folder,
    pace::ms,
    scripts::{answers, chunk},
    secure::{self, Identity},
    stage::{Driver, Setting, Stage, eventually},
    streams::{STREAMS_MAX, Streams, echoes, speaks, tells_paths},
};

on_both_drivers!(
    requests_of_both_versions_share_one_connection,
    a_request_is_told_as_http_2_tells_it,
    bodies_of_each_kind_go_both_ways,
    trailers_and_interim_answers_go_both_ways,
    an_answer_without_a_body_has_none,
    with_tls_both_sides_agree_and_what_speaks_http_1_is_named,
    what_speaks_http_1_without_tls_is_named,
    a_burst_opens_one_connection,
    a_second_connection_is_opened_when_the_first_is_full,
    what_was_refused_is_asked_again_even_a_post,
    what_a_backend_leaves_behind_is_asked_again_even_a_post,
    a_backend_that_leaves_ends_what_it_has_begun,
    a_connection_that_breaks_counts_once,
    a_request_that_may_have_had_an_effect_is_not_repeated,
    a_client_that_leaves_resets_its_stream_alone,
    a_slow_client_holds_back_its_stream_alone,
    an_upload_is_held_back_by_its_stream_alone,
    a_cut_answer_is_a_cut_answer,
    an_answer_that_breaks_a_rule_ends_its_stream_alone,
    an_early_answer_ends_an_upload_that_is_not_wanted,
    idle_connections_end_in_time_and_say_so,
    a_stop_lets_requests_end,
    a_client_that_has_sent_half_a_body_is_late_alone,
    a_call_that_ends_with_a_status_that_is_named_is_asked_again,
    the_log_says_who_reset_a_stream_and_why;
    at a pace:
    probes_are_sent_over_http_2,
    a_backend_of_grpc_is_asked_whether_it_serves,
    a_silent_connection_is_asked_and_left,
);

/// A stage whose pool speaks HTTP/2 without TLS.
fn on(driver: Driver) -> Setting {
    Stage::on(driver).listener("protocols = [\"h1\", \"h2\"]").pool("protocol = \"h2c\"")
}

fn requests_of_both_versions_share_one_connection(driver: Driver) {
    let stage = on(driver).backend(tells_paths(&[])).start();
    let (mut one, mut two) = (stage.connect(), Http2::connect(stage.address()));
    for number in 0..20 {
        let path = format!("/{number}?x=y");
        one.get(&path).expect(200, &path);
        two.get(&path).expect(200, &path);
    }
    assert_eq!(stage.backend(0).visits(), 1);
    stage.expect_count("backend_connections_opened_total", 1);
    stage.expect_count("backend_connection_reuse_total", 39);
    stage.expect_count("backend_connections{state=\"idle\"}", 1);
}

fn a_request_is_told_as_http_2_tells_it(driver: Driver) {
    let backend = speaks(&[], |streams| {
        loop {
            let asked = streams.request()?;
            let told: String = asked
                .fields
                .iter()
                .filter(|(name, _)| !name.starts_with("x-") && name != "via")
                .filter(|(name, _)| name != "traceparent")
                .map(|(name, value)| format!("{name}={value};"))
                .collect();
            streams.answers(asked.id, "server: s\n", told.as_bytes())?;
        }
    });
    let stage = on(driver).backend(backend).start();
    let mut client = stage.connect();
    client.send(
        "GET /a?b HTTP/1.1\r\nHost: X.y:8080\r\nConnection: close, te, x-hop\r\nTE: trailers\r\n\
         X-Hop: 1\r\nKeep-Alive: 5\r\nCookie: a=1; b=2\r\nAccept: */*\r\n\r\n",
    );
    let response = client.response();
    response.expect(
        200,
        ":method=GET;:scheme=http;:authority=X.y:8080;:path=/a?b;cookie=a=1; b=2;accept=*/*;\
         te=trailers;",
    );
    assert_eq!(response.field("server"), Some("s"));
    assert!(response.field("date").is_some());
    let mut client = stage.connect();
    client.send("OPTIONS * HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n");
    client.response().expect(200, ":method=OPTIONS;:scheme=http;:authority=a;:path=*;");
    let mut client = stage.connect();
    client.send(post("/p", "body"));
    assert!(client.response().text().contains("content-length=4;"));
}

fn bodies_of_each_kind_go_both_ways(driver: Driver) {
    let stage = on(driver).backend(echoes(&[])).start();
    let large = "0123456789abcdef".repeat(20_000);
    let (mut one, mut two) = (stage.connect(), Http2::connect(stage.address()));
    for body in ["", "x", &large[..65_535], &large[..65_536], &large] {
        one.send(post("/", body)).response().expect(200, body);
        let mut chunked =
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
        for piece in body.as_bytes().chunks(7_000) {
            chunked += &chunk(std::str::from_utf8(piece).unwrap());
        }
        one.send(chunked + "0\r\n\r\n").response().expect(200, body);
        if body.len() < 65_536 {
            let id =
                two.ask("POST /", &format!("content-length: {}\n", body.len()), body.is_empty());
            if !body.is_empty() {
                two.body(id, body.as_bytes(), true);
            }
            two.answer(id).expect(200, body);
        }
    }
    assert_eq!(stage.backend(0).visits(), 1);
}

fn trailers_and_interim_answers_go_both_ways(driver: Driver) {
    let backend = speaks(&[], |streams| {
        loop {
            let asked = streams.request()?;
            streams.head(asked.id, "103", "link: </x>\n", false)?;
            streams.head(asked.id, "200", "", false)?;
            streams.body(asked.id, &asked.body, false)?;
            streams.trailers(asked.id, &asked.trailers)?;
        }
    });
    let stage = on(driver).backend(backend).start();
    let mut one = stage.connect();
    one.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: te\r\n\
         Transfer-Encoding: chunked\r\n\r\n{}0\r\nStamp: 9\r\n\r\n",
        chunk("body")
    ));
    let interim = one.response_head("HEAD").unwrap();
    assert_eq!((interim.status, interim.field("link")), (103, Some("</x>")));
    let response = one.response();
    response.expect(200, "body");
    assert_eq!(response.trailers, [("stamp".to_owned(), "9".to_owned())]);
    let mut two = Http2::connect(stage.address());
    let id = two.ask("POST /", "te: trailers\n", false);
    two.body(id, b"up", false);
    two.send(&Frame::new(HEADERS, END_HEADERS | END_STREAM, id, block("stamp: 8\n")));
    let answer = two.answer(id);
    answer.expect(200, "up");
    assert_eq!(answer.interim, [103]);
    assert_eq!(answer.trailers, [("stamp".to_owned(), "8".to_owned())]);
}

fn an_answer_without_a_body_has_none(driver: Driver) {
    let backend = speaks(&[], |streams| {
        loop {
            let asked = streams.request()?;
            match (asked.field(":method"), asked.path()) {
                (Some("HEAD"), _) => streams.head(asked.id, "200", "content-length: 5\n", true)?,
                (_, "/empty") => streams.head(asked.id, "200", "", true)?,
                (_, "/late-end") => {
                    streams.head(asked.id, "200", "", false)?;
                    streams.body(asked.id, b"", true)?;
                }
                (_, "/304") => streams.head(asked.id, "304", "content-length: 5\n", true)?,
                _ => streams.head(asked.id, "204", "", true)?,
            }
        }
    });
    let stage = on(driver).backend(backend).start();
    let mut one = stage.connect();
    one.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(one.response_to("HEAD").field("content-length"), Some("5"));
    one.get("/empty").expect(200, "");
    one.get("/late-end").expect(200, "");
    assert_eq!(one.send(get("/304")).response().status, 304);
    assert_eq!(one.send(get("/204")).response().status, 204);
    let mut two = Http2::connect(stage.address());
    let head = two.ask("HEAD /", "", true);
    assert_eq!(two.answer(head).field("content-length"), Some("5"));
    for path in ["/empty", "/late-end"] {
        two.get(path).expect(200, "");
    }
    for (path, status) in [("/304", 304), ("/204", 204)] {
        let answer = two.get(path);
        assert!(answer.is_whole && answer.status == status, "{answer:?}");
    }
}

/// A backend with this script behind TLS that offers these protocols.
fn behind_tls(identity: &Identity, offered: &[&[u8]], to: std::net::SocketAddr) -> String {
    let mut server = identity.server(&secure::VERSIONS, None);
    server.alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
    secure::behind(to, server, false).address.to_string()
}

fn with_tls_both_sides_agree_and_what_speaks_http_1_is_named(driver: Driver) {
    let identity = Identity::of(&["play.test"]);
    let two = crate::backend::Backend::open(tells_paths(&[]));
    let one = crate::backend::Backend::open(answers("one"));
    let stage = |to: String| {
        Stage::on(driver)
            .pool("protocol = \"h2\"\nretry = { attempts = 1 }")
            .pool(&identity.pool_line())
            .written(to)
            .start()
    };
    let agreed = stage(behind_tls(&identity, &[b"h2", b"http/1.1"], two.address()));
    for _ in 0..3 {
        agreed.get("/x").expect(200, "/x");
    }
    assert_eq!(two.visits(), 1);
    // It knows nothing of ALPN, and would speak HTTP/1.
    let silent = stage(behind_tls(&identity, &[], one.address()));
    silent.get("/").expect_fault(502, "backend_protocol");
    let refuses = stage(behind_tls(&identity, &[b"http/1.1"], one.address()));
    refuses.get("/").expect_fault(502, "backend_tls");
    assert_eq!(one.heads().len(), 0, "nothing was asked of what speaks HTTP/1");
}

fn what_speaks_http_1_without_tls_is_named(driver: Driver) {
    let says_400 = plays(|visit| {
        visit.wire().bytes(24)?;
        visit.send("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
    });
    let closes = plays(|visit| visit.wire().bytes(24).map(|_| ()));
    let alerts = plays(|visit| {
        visit.wire().bytes(24)?;
        visit.send([21, 3, 3, 0, 2, 2, 70])
    });
    for (script, code) in
        [(says_400, "backend_protocol"), (closes, "connect_failed"), (alerts, "backend_tls")]
    {
        let stage = on(driver).pool("retry = { attempts = 1 }").backend(script).start();
        let mut client = stage.connect();
        client.send(post("/", "x"));
        client.response().expect_fault(502, code);
    }
}

fn a_burst_opens_one_connection(driver: Driver) {
    let (cue, seen) = (Cue::default(), Cue::default());
    let (given, sees) = (cue.clone(), seen.clone());
    // It says how it speaks when it is told to.
    let backend = plays(move |visit| {
        let mut streams = Streams::begin(visit)?;
        sees.give();
        streams.visit().wait_for(&given)?;
        streams.says(&[])?;
        loop {
            let asked = streams.request()?;
            streams.answers(asked.id, "", b"late")?;
        }
    });
    let stage = on(driver).backend(backend).start();
    let mut client = Http2::connect(stage.address());
    let asked: Vec<u32> = (0..80).map(|_| client.ask("GET /", "", true)).collect();
    stage.expect_count("backend_in_flight", 80);
    eventually("it is being opened", || seen.given(), |given| *given);
    cue.give();
    asked.into_iter().for_each(|id| client.answer(id).expect(200, "late"));
    assert_eq!(stage.backend(0).visits(), 1);
}

fn a_second_connection_is_opened_when_the_first_is_full(driver: Driver) {
    let cue = Cue::default();
    let given = cue.clone();
    let came = Arc::new(AtomicUsize::new(0));
    let comes = Arc::clone(&came);
    let backend = speaks(&[(STREAMS_MAX, 3)], move |streams| {
        let mut waiting = Vec::new();
        loop {
            waiting.push(streams.request()?.id);
            comes.fetch_add(1, SeqCst);
            if waiting.len() > 3 {
                return Err(crate::wire::Broken::Wrong("more streams than allowed".to_owned()));
            }
            if waiting.len() == 3 {
                streams.visit().wait_for(&given)?;
                for id in waiting.drain(..) {
                    let number = streams.number().to_string();
                    streams.answers(id, "", number.as_bytes())?;
                }
            }
        }
    });
    let stage = on(driver).backend(backend).start();
    let mut client = Http2::connect(stage.address());
    let asked: Vec<u32> = (0..9).map(|_| client.ask("GET /", "", true)).collect();
    eventually("all have come", || came.load(SeqCst), |came| *came == 9);
    cue.give();
    let mut answers: Vec<String> =
        asked.into_iter().map(|id| client.answer(id).text().to_owned()).collect();
    answers.sort_unstable();
    assert_eq!(answers.concat(), "000111222");
    // What comes one after the other goes to the first.
    assert_eq!(stage.backend(0).visits(), 3);
}

fn what_was_refused_is_asked_again_even_a_post(driver: Driver) {
    let backend = speaks(&[], |streams| {
        let mut count = 0;
        loop {
            let asked = streams.request()?;
            count += 1;
            if count % 2 == 1 {
                streams.resets(asked.id, 7)?;
            } else {
                streams.answers(asked.id, "", &asked.body)?;
            }
        }
    });
    let stage = on(driver).pool("retry = { on = [] }").backend(backend).start();
    let mut one = stage.connect();
    one.send(post("/", "held")).response().expect(200, "held");
    one.send(format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
        chunk("kept")
    ));
    one.response().expect(200, "kept");
    let mut two = Http2::connect(stage.address());
    let id = two.ask("POST /", "", false);
    two.body(id, b"streamed", true);
    two.answer(id).expect(200, "streamed");
    assert_eq!(stage.backend(0).visits(), 1, "the connection is as good as before");
    stage.expect_count("retries_total{reason=\"unprocessed\"}", 0);
}

fn what_a_backend_leaves_behind_is_asked_again_even_a_post(driver: Driver) {
    let backend = speaks(&[], |streams| {
        if streams.number() == 0 {
            let first = streams.request()?;
            streams.answers(first.id, "", b"first")?;
            let left = streams.next_head()?;
            streams.leaves(left.id - 2, 0)?;
            return streams.until_end();
        }
        loop {
            let asked = streams.request()?;
            streams.answers(asked.id, "", &asked.body)?;
        }
    });
    let stage = on(driver).pool("retry = { on = [] }").backend(backend).start();
    let mut client = stage.connect();
    client.get("/").expect(200, "first");
    client.send(post("/", "again")).response().expect(200, "again");
    client.get("/").expect(200, "");
    assert_eq!(stage.backend(0).visits(), 2);
}

fn a_backend_that_leaves_ends_what_it_has_begun(driver: Driver) {
    let cue = Cue::default();
    let given = cue.clone();
    let backend = speaks(&[], move |streams| {
        if streams.number() > 0 {
            let asked = streams.request()?;
            return streams.answers(asked.id, "", b"elsewhere");
        }
        let asked = streams.request()?;
        streams.leaves(asked.id, 0)?;
        streams.visit().wait_for(&given)?;
        streams.answers(asked.id, "", b"whole")
    });
    let stage = on(driver).backend(backend).start();
    let mut client = Http2::connect(stage.address());
    let begun = client.ask("GET /", "", true);
    stage.expect_count("backend_in_flight", 1);
    eventually(
        "another is made",
        || stage.connect().get("/").text().to_owned(),
        |text| text == "elsewhere",
    );
    cue.give();
    client.answer(begun).expect(200, "whole");
}

fn a_connection_that_breaks_counts_once(driver: Driver) {
    let breaks = speaks(&[], |streams| {
        for _ in 0..10 {
            streams.request()?;
        }
        Ok(())
    });
    let stage = on(driver)
        .pool("retry = { attempts = 1 }\npassive = { max-failures = 3 }")
        .backend(breaks.clone())
        .backend(breaks)
        .start();
    let mut client = Http2::connect(stage.address());
    for _ in 0..2 {
        let asked: Vec<u32> = (0..20).map(|_| client.ask("POST /", "", true)).collect();
        for id in asked {
            let answer = client.answer(id);
            assert!(answer.status == 502 && answer.text().contains("backend_reset"), "{answer:?}");
        }
    }
    stage.expect_count("backend_ejections_total", 0);
}

fn a_request_that_may_have_had_an_effect_is_not_repeated(driver: Driver) {
    let backend = speaks(&[], |streams| {
        if streams.number() == 0 {
            streams.request()?;
            return Ok(());
        }
        let asked = streams.request()?;
        streams.answers(asked.id, "", b"again")
    });
    let stage = on(driver).backend(backend).start();
    stage.connect().send(post("/", "once")).response().expect_fault(502, "backend_reset");
    stage.connect().get("/").expect(200, "again");
}

fn a_client_that_leaves_resets_its_stream_alone(driver: Driver) {
    for by_reset in [false, true] {
        let cues: [Cue; 4] = Default::default();
        let [first, second, left, cue] = cues.clone();
        let it_has_come = |cue: &Cue| _ = eventually("it has come", || cue.given(), |came| *came);
        let backend = speaks(&[], move |streams| {
            let [first, second, left, cue] = &cues;
            let stays = streams.next_head()?;
            first.give();
            let goes = streams.next_head()?;
            second.give();
            if streams.until_reset(goes.id)? != 8 {
                return Err(crate::wire::Broken::Wrong("not CANCEL".to_owned()));
            }
            left.give();
            streams.visit().wait_for(cue)?;
            streams.answers(stays.id, "", b"stays")?;
            streams.until_end()
        });
        let stage = on(driver).backend(backend).start();
        let mut stays = stage.connect();
        stays.send(get("/"));
        it_has_come(&first);
        if by_reset {
            let mut goes = Http2::connect(stage.address());
            let id = goes.ask("GET /", "", true);
            it_has_come(&second);
            goes.send(&Frame::new(RST_STREAM, 0, id, 8_u32.to_be_bytes()));
            eventually("it is told", || left.given(), |left| *left);
        } else {
            let mut goes = stage.connect();
            goes.send(get("/"));
            it_has_come(&second);
            drop(goes);
            eventually("it is told", || left.given(), |left| *left);
        }
        stage.expect_count("backend_in_flight", 1);
        cue.give();
        stays.response().expect(200, "stays");
    }
}

fn a_slow_client_holds_back_its_stream_alone(driver: Driver) {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let piece = vec![7; 16_384];
    let backend = speaks(&[], move |streams| {
        let large = streams.request()?;
        streams.head(large.id, "200", "", false)?;
        let mut others = Vec::new();
        loop {
            // As much as there is room for, and then the others.
            while streams.room(large.id) >= piece.len() {
                streams.body(large.id, &piece, false)?;
                count.fetch_add(piece.len(), SeqCst);
            }
            let asked = streams.request()?;
            others.push(asked.id);
            streams.answers(asked.id, "", b"small")?;
        }
    });
    let stage = on(driver).backend(backend).start();
    let mut slow = Http2::connect(stage.address());
    slow.gives_room = false;
    slow.ask("GET /large", "", true);
    stage.expect_count("backend_in_flight", 1);
    let mut client = stage.connect();
    for _ in 0..50 {
        client.get("/small").expect(200, "small");
    }
    let most = sent.load(SeqCst);
    assert!(most < 1 << 20, "{most} bytes for a client that takes nothing");
    assert_eq!(stage.backend(0).visits(), 1);
}

fn an_upload_is_held_back_by_its_stream_alone(driver: Driver) {
    let backend = speaks(&[], |streams| {
        streams.gives_room = false;
        loop {
            let frame = streams.take()?;
            if frame.ends() && frame.kind == HEADERS {
                streams.answers(frame.id, "", b"small")?;
            }
        }
    });
    let stage = on(driver).backend(backend).start();
    let mut slow = stage.connect();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n";
    slow.send(head);
    let pieces = "x".repeat(60_000);
    slow.send(&pieces);
    stage.expect_count("backend_in_flight", 1);
    let mut client = stage.connect();
    for _ in 0..20 {
        client.get("/small").expect(200, "small");
    }
    assert_eq!(stage.backend(0).visits(), 1);
    slow.reset();
    stage.expect_count("backend_in_flight", 0);
}

fn a_cut_answer_is_a_cut_answer(driver: Driver) {
    let backend = speaks(&[], |streams| {
        loop {
            let asked = streams.request()?;
            let length = if asked.path() == "/length" { "content-length: 10\n" } else { "" };
            streams.head(asked.id, "200", length, false)?;
            streams.body(asked.id, b"half", false)?;
            streams.resets(asked.id, 2)?;
        }
    });
    let stage = on(driver).backend(backend).start();
    for path in ["/length", "/chunks"] {
        let mut client = stage.connect();
        client.send(get(path));
        assert!(client.try_response().is_err(), "half of an answer");
        let answer = Http2::connect(stage.address()).get(path);
        assert_eq!((answer.is_whole, answer.reset), (false, Some(2)), "RFC 9113 §8.1");
    }
    stage.expect_count("responses_incomplete_total", 4);
    assert_eq!(stage.backend(0).visits(), 1);
}

fn an_answer_that_breaks_a_rule_ends_its_stream_alone(driver: Driver) {
    const WRONG: [(&str, &str); 6] = [
        ("200", "Upper: case\n"),
        ("200", "connection: close\n"),
        ("200", "x: a\u{b}\n"),
        ("2xx", ""),
        ("101", ""),
        ("200", "content-length: 1\ncontent-length: 2\n"),
    ];
    let backend = speaks(&[], |streams| {
        loop {
            let asked = streams.request()?;
            if let Ok(number) = asked.path()[1..].parse::<usize>() {
                let (status, fields) = WRONG[number];
                streams.head(asked.id, status, fields, false)?;
                if streams.until_reset(asked.id)? != 1 {
                    return Err(crate::wire::Broken::Wrong("not PROTOCOL_ERROR".to_owned()));
                }
                continue;
            }
            match asked.path() {
                "/large" => {
                    let large = format!("x: {}\n", "y".repeat(40_000));
                    let block = block(&format!(":status: 200\n{large}"));
                    let id = asked.id;
                    streams.send(&Frame::new(HEADERS, 0, id, &block[..16_000]))?;
                    streams.send(&Frame::new(9, 0, id, &block[16_000..32_000]))?;
                    streams.send(&Frame::new(9, END_HEADERS, id, &block[32_000..]))?;
                }
                "/longer" => {
                    streams.head(asked.id, "200", "content-length: 1\n", false)?;
                    streams.send(&Frame::new(DATA, END_STREAM, asked.id, "two"))?;
                }
                _ => streams.answers(asked.id, "", b"sound")?,
            }
        }
    });
    let stage = on(driver).backend(backend).start();
    for number in 0..WRONG.len() {
        stage.get(&format!("/{number}")).expect_fault(502, "backend_protocol");
    }
    stage.get("/large").expect_fault(502, "response_head_too_large");
    let mut client = stage.connect();
    client.send(get("/longer"));
    assert!(!matches!(client.try_response(), Ok(response) if response.status == 200));
    stage.get("/").expect(200, "sound");
    assert_eq!(stage.backend(0).visits(), 1);
}

fn an_early_answer_ends_an_upload_that_is_not_wanted(driver: Driver) {
    let backend = speaks(&[], |streams| {
        streams.gives_room = false;
        loop {
            let asked = streams.next_head()?;
            streams.head(asked.id, "413", "", true)?;
            streams.resets(asked.id, 0)?;
        }
    });
    let stage = on(driver).backend(backend).start();
    let mut one = stage.connect();
    one.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n");
    one.send_what_is_taken("x".repeat(100_000));
    assert_eq!(one.response().status, 413);
    let mut two = Http2::connect(stage.address());
    let id = two.ask("POST /", "", false);
    two.body(id, &[7; 40_000], false);
    assert_eq!(two.answer(id).status, 413);
    stage.expect_count("backend_in_flight", 0);
    assert_eq!(stage.backend(0).visits(), 1);
}

fn idle_connections_end_in_time_and_say_so(driver: Driver) {
    let left = Cue::default();
    let leaves = left.clone();
    let backend = speaks(&[], move |streams| {
        loop {
            match streams.take() {
                Ok(frame) if frame.kind == HEADERS => streams.answers(frame.id, "", b"x")?,
                Ok(_) => {}
                Err(broken) => {
                    if streams.left == Some(0) {
                        leaves.give();
                    }
                    return Err(broken);
                }
            }
        }
    });
    let stage =
        on(driver).pool("connections = { idle-timeout = \"300ms\" }").backend(backend).start();
    stage.get("/").expect(200, "x");
    stage.expect_count("backend_connections{state=\"idle\"}", 0);
    eventually("it is told", || left.given(), |left| *left);
    stage.get("/").expect(200, "x");
    assert_eq!(stage.backend(0).visits(), 2);
}

fn a_stop_lets_requests_end(driver: Driver) {
    let cue = Cue::default();
    let given = cue.clone();
    let backend = speaks(&[], move |streams| {
        let asked = streams.request()?;
        streams.visit().wait_for(&given)?;
        streams.answers(asked.id, "", b"whole")?;
        streams.until_end()
    });
    let mut stage = on(driver).backend(backend).start();
    let mut client = stage.connect();
    client.send(get("/"));
    stage.expect_count("backend_in_flight", 1);
    let stopping = stage.stop_beside(Stop::Graceful);
    cue.give();
    client.response().expect(200, "whole");
    assert!(stopping.join().unwrap().1, "everything had finished");
}

fn a_client_that_has_sent_half_a_body_is_late_alone(driver: Driver) {
    let stage =
        on(driver).listener("timeouts = { client-body = \"300ms\" }").backend(echoes(&[])).start();
    let mut slow = stage.connect();
    slow.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    stage.connect().send(post("/", "other")).response().expect(200, "other");
    slow.response().expect_fault(408, "request_timeout");
    stage.connect().send(post("/", "other")).response().expect(200, "other");
    assert_eq!(stage.backend(0).visits(), 1);
    stage.expect_count("backend_in_flight", 0);
}

/// Every call is a POST, and one that ends without a message has its status in its head.
fn a_call_that_ends_with_a_status_that_is_named_is_asked_again(driver: Driver) {
    let unavailable = speaks(&[], |streams| {
        loop {
            let asked = streams.request()?;
            let fields = "content-type: application/grpc\ngrpc-status: 14\n";
            streams.head(asked.id, "200", fields, true)?;
        }
    });
    let serves = || {
        speaks(&[], |streams| {
            loop {
                let asked = streams.request()?;
                streams.head(asked.id, "200", "content-type: application/grpc\n", false)?;
                streams.body(asked.id, &asked.body, false)?;
                streams.trailers(asked.id, &[("grpc-status".to_owned(), "0".to_owned())])?;
            }
        })
    };
    let call = |client: &mut Http2| {
        let fields = "content-type: application/grpc\nte: trailers\n";
        let id = client.ask("POST /a.B/C", fields, false);
        client.body(id, b"\0\0\0\0\x01x", true);
        client.answer(id)
    };
    let log = Folder::new();
    let retry = "retry = { on = [\"grpc:unavailable\"] }";
    let stage = on(driver).listener(&log.line("json")).pool(retry);
    let stage = stage.backend(unavailable.clone()).backend(serves()).start();
    let mut client = Http2::connect(stage.address());
    for _ in 0..6 {
        let answer = call(&mut client);
        assert!(answer.is_whole && answer.body == b"\0\0\0\0\x01x", "{answer:?}");
        assert_eq!(answer.trailers, [("grpc-status".to_owned(), "0".to_owned())]);
    }
    let again = stage.count("retries_total{reason=\"grpc:unavailable\"}");
    assert!((1..=6).contains(&again), "{again}");
    drop(client);
    let lines = log.lines(stage);
    let tried = lines.iter().find_map(|line| line.get("tries")).expect("one of two tries");
    let first = ["fault", "why"].map(|key| tried[0][key].as_str().unwrap_or_default());
    assert_eq!(first, ["grpc:unavailable"; 2]);
    // Not by itself, and not for another status.
    for retry in ["", "retry = { on = [\"grpc:internal\"] }"] {
        let stage = on(driver).pool(retry).backend(unavailable.clone()).start();
        let answer = call(&mut Http2::connect(stage.address()));
        assert_eq!(answer.field("grpc-status"), Some("14"));
        assert_eq!(stage.count("retries_total"), 0);
    }
}

fn the_log_says_who_reset_a_stream_and_why(driver: Driver) {
    let backend = speaks(&[], |streams| {
        loop {
            let asked = streams.request()?;
            match asked.path() {
                "/inside" => {
                    streams.head(asked.id, "200", "", false)?;
                    streams.body(asked.id, b"half", false)?;
                    streams.resets(asked.id, 2)?;
                }
                "/odd" => streams.resets(asked.id, 77)?,
                "/wrong" => streams.head(asked.id, "200", "Upper: case\n", true)?,
                "/slow" => {}
                _ => streams.answers(asked.id, "", b"whole")?,
            }
        }
    });
    let log = Folder::new();
    let stage = on(driver).listener(&log.line("json")).pool("retry = { attempts = 1 }");
    let stage = stage.backend(backend).start();
    let mut client = Http2::connect(stage.address());
    for path in ["/", "/inside", "/odd", "/wrong"] {
        client.get(path);
    }
    let slow = client.ask("GET /slow", "", true);
    stage.expect_count("backend_in_flight", 1);
    client.send(&Frame::new(RST_STREAM, 0, slow, 8_u32.to_be_bytes()));
    stage.expect_count("backend_in_flight", 0);
    drop(client);
    let lines = log.lines(stage);
    let said = |line: &serde_json::Map<String, serde_json::Value>| {
        ["path", "term", "stream_reset"].map(|key| match line.get(key) {
            Some(value) => value.as_str().unwrap_or("null").to_owned(),
            None => "-".to_owned(),
        })
    };
    let said: Vec<_> = lines.iter().map(said).collect();
    let expected = [
        ["/", "ok", "-"],
        ["/inside", "response_incomplete", "backend INTERNAL_ERROR"],
        ["/odd", "backend_reset", "backend 77"],
        ["/wrong", "backend_protocol", "ringway PROTOCOL_ERROR"],
        ["/slow", "client_abort", "client CANCEL"],
    ];
    assert_eq!(said, expected.map(|row| row.map(str::to_owned)));
}

/// Quick probes of this kind.
fn probed(slower: u32, keys: &str) -> String {
    let beat = ms(Duration::from_millis(80) * slower);
    format!("health = {{ interval = {beat}, timeout = {beat}, rise = 1, fall = 1{keys} }}")
}

/// Waits until requests are answered with this status.
#[track_caller]
fn becomes(stage: &Stage, status: u16) {
    let asked = || stage.get("/").status;
    eventually(&format!("answers of {status}"), asked, |seen| *seen == status);
}

fn probes_are_sent_over_http_2(driver: Driver, slower: u32) {
    let status = Arc::new(AtomicU32::new(200));
    let said = Arc::clone(&status);
    let backend = speaks(&[], move |streams| {
        loop {
            let asked = streams.request()?;
            if asked.path() != "/healthz" {
                streams.answers(asked.id, "", b"served")?;
                continue;
            }
            if asked.field("x-probe") != Some("1") || asked.field("user-agent") != Some("ringway") {
                return Err(crate::wire::Broken::Wrong(format!("{asked:?}")));
            }
            let status = said.load(SeqCst);
            streams.head(asked.id, &status.to_string(), "", false)?;
            streams.body(asked.id, b"all is well", true)?;
        }
    });
    let keys = ", path = \"/healthz\", headers = { x-probe = \"1\" }, body = \"is well\"";
    let stage = on(driver).pool(&probed(slower, keys)).backend(backend).start();
    becomes(&stage, 200);
    status.store(500, SeqCst);
    becomes(&stage, 503);
    status.store(204, SeqCst);
    becomes(&stage, 200);
}

fn a_backend_of_grpc_is_asked_whether_it_serves(driver: Driver, slower: u32) {
    let mode = Arc::new(AtomicU32::new(1));
    let said = Arc::clone(&mode);
    let backend = speaks(&[], move |streams| {
        loop {
            let asked = streams.request()?;
            if asked.path() != "/grpc.health.v1.Health/Check" {
                streams.answers(asked.id, "", b"served")?;
                continue;
            }
            let is_grpc = asked.field("content-type") == Some("application/grpc")
                && asked.field("te") == Some("trailers")
                && asked.body == b"\0\0\0\0\x0c\x0a\x0aapp.Orders";
            if !is_grpc {
                return Err(crate::wire::Broken::Wrong(format!("{asked:?}")));
            }
            let grpc = "content-type: application/grpc\n";
            match said.load(SeqCst) {
                // It does not know the question.
                12 => {
                    streams.head(asked.id, "200", &format!("{grpc}grpc-status: 12\n"), true)?;
                }
                status => {
                    streams.head(asked.id, "200", grpc, false)?;
                    streams.body(asked.id, &[0, 0, 0, 0, 2, 8, status as u8], false)?;
                    let ok = ("grpc-status".to_owned(), "0".to_owned());
                    streams.trailers(asked.id, &[ok])?;
                }
            }
        }
    });
    let keys = ", type = \"grpc\", service = \"app.Orders\"";
    let stage = on(driver).pool(&probed(slower, keys)).backend(backend).start();
    becomes(&stage, 200);
    for no in [2, 12] {
        mode.store(no, SeqCst);
        becomes(&stage, 503);
        mode.store(1, SeqCst);
        becomes(&stage, 200);
    }
    assert!(stage.count("backend_check_failures_total{reason=\"not_serving\"}") > 0);
    assert!(stage.count("backend_check_failures_total{reason=\"grpc_status\"}") > 0);
}

/// What does not answer a ping is not there: the first request is asked of it and fails, and the
/// next is asked of another.
fn a_silent_connection_is_asked_and_left(driver: Driver, _slower: u32) {
    let backend = speaks(&[], |streams| {
        if streams.number() == 0 {
            let asked = streams.request()?;
            streams.answers(asked.id, "", b"first")?;
            streams.pongs = false;
            let wakes = loop {
                if streams.take()?.kind == PING {
                    break true;
                }
            };
            assert!(wakes);
            return streams.until_end();
        }
        loop {
            let asked = streams.request()?;
            streams.answers(asked.id, "", b"second")?;
        }
    });
    let stage = on(driver).pool("timeouts = { connect = \"20s\" }").backend(backend).start();
    let mut client = Client::connect(stage.address());
    client.get("/").expect(200, "first");
    // Longer than it is trusted.
    std::thread::sleep(Duration::from_millis(1_600));
    client.send(post("/", "x"));
    client.response().expect(200, "second");
    assert_eq!(stage.backend(0).visits(), 2);
}
