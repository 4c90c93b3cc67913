//! Plays of clients that speak HTTP/2, in front of backends that speak HTTP/1.
//!
//! The rules of frames are tested where they are (`proto/h2`); here is the whole proxy: bodies of
//! each kind, many streams, what is cut, what is late, and how a connection ends.

use std::{process::Command, time::Duration};

use ringway::{Stop, events::Event};
use rustls::version::TLS13;

use crate::{
    backend::Cue,
    client::{get, post},
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, Http2, PING,
        RST_STREAM, SETTINGS, WINDOW_UPDATE, block,
    },
    logs::Folder,
    pace::Watch,
    scripts::{
        answers, answers_each, answers_on, answers_target, chunk, close_delimited, delays, echoes,
        never_answers, ok, sends, sends_and_closes, upgrades_and_echoes,
    },
    secure::{Identity, bridge},
    stage::{Driver, Setting, Stage, eventually, expect_about},
};

on_both_drivers!(
    requests_are_answered_on_one_connection,
    a_plain_port_speaks_both_versions,
    with_tls_both_sides_agree_on_a_version,
    bodies_of_each_kind_go_both_ways,
    trailers_go_both_ways,
    interim_answers_are_passed_on,
    a_hundred_streams_at_once_do_not_mix,
    one_stream_more_than_allowed_is_refused,
    a_cut_answer_is_a_reset_and_the_connection_goes_on,
    a_client_that_resets_a_stream_ends_the_try,
    a_malformed_request_reaches_no_backend,
    a_connection_that_breaks_the_rules_is_told_why,
    a_slow_reader_holds_its_backend_back_and_nobody_else,
    an_upload_is_held_back_by_its_backend,
    a_drain_lets_streams_end_and_takes_no_more,
    an_idle_connection_ends_at_once_on_drain,
    the_log_names_the_version,
    floods_end_their_connection_and_are_said,
    a_client_of_grpc_is_told_in_its_own_words,
    the_time_of_grpc_bounds_an_exchange,
    a_websocket_goes_through_a_stream,
    a_backend_that_does_not_switch_makes_no_tunnel,
    curl_is_answered;
    at a pace:
    a_late_body_ends_its_stream_alone,
    an_idle_connection_has_its_time,
);

fn on(driver: Driver) -> Setting {
    Stage::on(driver).listener("protocols = [\"h1\", \"h2\"]")
}

fn requests_are_answered_on_one_connection(driver: Driver) {
    let stage = on(driver).backend(answers_target()).start();
    let mut client = Http2::connect(stage.address());
    for number in 0..20 {
        let path = format!("/{number}?x");
        client.get(&path).expect(200, &path);
    }
    let request = stage.last_request();
    assert_eq!(request.field("host"), Some("a"));
    assert!(request.field("via").unwrap().starts_with("2.0 ringway-"));
    assert_eq!(request.field("x-forwarded-host"), Some("a"));
    stage.expect_count("connections_accepted_total", 1);
    stage.expect_count("core_requests_total", 20);
}

fn a_plain_port_speaks_both_versions(driver: Driver) {
    let stage = on(driver).backend(answers_target()).start();
    let (mut one, mut two) = (stage.connect(), Http2::silent(stage.address()));
    one.get("/one").expect(200, "/one");
    for byte in b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" {
        two.send_raw(&[*byte]);
    }
    two.send(&Frame::new(SETTINGS, 0, 0, ""));
    two.get("/two").expect(200, "/two");
    one.get("/three").expect(200, "/three");
    let only = Stage::on(driver).listener("protocols = \"h2\"").backend(answers("x")).start();
    let mut client = Http2::silent(only.address());
    client.send_raw(get("/").as_bytes());
    assert_eq!(client.goaway(), Some((1, 0)), "only HTTP/2 is spoken there");
}

fn with_tls_both_sides_agree_on_a_version(driver: Driver) {
    let (identity, other) = (Identity::of(&["a"]), Identity::of(&["b"]));
    let both = format!("tls = {{ certificates = [{}, {}] }}", identity.files(), other.files());
    let stage = on(driver).listener(&both).backend(answers_target()).start();
    for (offered, is_h2) in [
        (vec![b"h2".to_vec(), b"http/1.1".to_vec()], true),
        (vec![b"http/1.1".to_vec()], false),
        (vec![], false),
    ] {
        let mut config = identity.trusting(&[&TLS13]);
        config.alpn_protocols = offered;
        if !is_h2 {
            identity.connect_as(stage.address(), config).get("/one").expect(200, "/one");
            continue;
        }
        let name = "a".try_into().unwrap();
        let tls = rustls::ClientConnection::new(config.into(), name).unwrap();
        let mut client = Http2::over(bridge(stage.address(), tls));
        client.send_raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        client.send(&Frame::new(SETTINGS, 0, 0, ""));
        client.get("/two").expect(200, "/two");
        assert_eq!(stage.last_request().field("x-forwarded-proto"), Some("https"));
        let other = client.ask("GET /", "", true);
        client.answer(other).expect(200, "/");
        client.send(&Frame::new(
            HEADERS,
            END_HEADERS | END_STREAM,
            99,
            block(":method: GET\n:scheme: https\n:authority: b\n:path: /\n"),
        ));
        assert_eq!(client.answer(99).status, 421, "RFC 9110 §15.5.20");
    }
}

fn bodies_of_each_kind_go_both_ways(driver: Driver) {
    let stage = on(driver).backend(echoes()).start();
    let large: Vec<u8> = (0..300_000_u32).flat_map(u32::to_be_bytes).collect();
    let mut client = Http2::connect(stage.address());
    let text = "0123456789".repeat(6_000);
    for body in [&b""[..], b"x", text.as_bytes()] {
        // At once, with its length.
        let length = format!("content-length: {}\n", body.len());
        let id = client.ask("POST /", &length, body.is_empty());
        client.body(id, body, true);
        client.answer(id).expect(200, std::str::from_utf8(body).unwrap_or("?"));
        let heads = stage.backend(0).heads();
        assert_eq!(heads.last().unwrap().field("transfer-encoding"), None);
        // Later, without its length.
        let id = client.ask("POST /", "", false);
        client.send(&Frame::new(DATA, 0, id, ""));
        client.body(id, body, true);
        client.send(&Frame::new(PING, 0, 0, "12345678"));
        if body.is_empty() {
            client.send(&Frame::new(DATA, END_STREAM, id, ""));
        }
        client.answer(id).expect(200, std::str::from_utf8(body).unwrap_or("?"));
    }
    // Longer than the windows: as much at a time as there is room for.
    let id = client.ask("POST /", "", false);
    let (mut rest, mut room) = (&large[..], 65_535_usize);
    let mut answer = crate::frames::Answer::default();
    while !rest.is_empty() || !answer.is_whole {
        let count = room.min(rest.len()).min(16_000);
        if count > 0 {
            let (piece, behind) = rest.split_at(count);
            client.body(id, piece, behind.is_empty());
            (rest, room) = (behind, room - count);
            continue;
        }
        if rest.is_empty() {
            answer = client.answer(id);
        } else {
            let frame = client.until(WINDOW_UPDATE);
            room += if frame.id == id { frame.number() as usize } else { 0 };
        }
    }
    assert!(answer.body == large, "{} of {} bytes", answer.body.len(), large.len());
    let ends = on(driver).backend(close_delimited("until the end")).start();
    Http2::connect(ends.address()).get("/").expect(200, "until the end");
    let mut client = Http2::connect(stage.address());
    let head = client.ask("HEAD /", "", true);
    assert!(client.answer(head).is_whole);
}

fn trailers_go_both_ways(driver: Driver) {
    let answer = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\nChecksum: 7\r\n\r\n",
        chunk("body")
    );
    let stage = on(driver).backend(sends(answer)).start();
    let mut client = Http2::connect(stage.address());
    let id = client.ask("POST /", "te: trailers\n", false);
    client.body(id, b"up", false);
    client.send(&Frame::new(HEADERS, END_HEADERS | END_STREAM, id, block("stamp: 9\nhost: b\n")));
    let answer = client.answer(id);
    answer.expect(200, "body");
    assert_eq!(answer.trailers, [("checksum".to_owned(), "7".to_owned())]);
    let request = stage.last_request();
    assert_eq!(request.body, b"up");
    assert_eq!(request.trailers, [("stamp".to_owned(), "9".to_owned())]);
    assert_eq!(request.field("te"), Some("trailers"));
}

fn interim_answers_are_passed_on(driver: Driver) {
    let raw = format!("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n{}", ok("then"));
    let stage = on(driver).backend(sends(raw)).start();
    let answer = Http2::connect(stage.address()).get("/");
    answer.expect(200, "then");
    assert_eq!(answer.interim, [103]);
}

fn a_hundred_streams_at_once_do_not_mix(driver: Driver) {
    let large = |target: &str| target.repeat(20_000 / target.len());
    let stage = on(driver)
        .backend(answers_each(move |request| {
            let body = large(request.target());
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
        }))
        .start();
    let mut client = Http2::connect(stage.address());
    for round in 0..3 {
        let asked: Vec<(u32, String)> = (0..100)
            .map(|number| format!("/{round}/{number}"))
            .map(|path| (client.ask(&format!("GET {path}"), "", true), path))
            .collect();
        for (id, path) in asked {
            client.answer(id).expect(200, &path.repeat(20_000 / path.len()));
        }
    }
    stage.expect_count("connections_accepted_total", 1);
}

fn one_stream_more_than_allowed_is_refused(driver: Driver) {
    let cue = Cue::default();
    let stage = on(driver).backend(answers_on(&cue, "late")).start();
    let mut client = Http2::connect(stage.address());
    let asked: Vec<u32> = (0..101).map(|_| client.ask("GET /", "", true)).collect();
    assert_eq!(client.answer(asked[100]).reset, Some(7), "RFC 9113 §5.1.2");
    cue.give();
    asked[..100].iter().for_each(|id| client.answer(*id).expect(200, "late"));
    client.get("/").expect(200, "late");
}

fn a_cut_answer_is_a_reset_and_the_connection_goes_on(driver: Driver) {
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf";
    let stage = on(driver).backend(sends_and_closes(cut)).start();
    let mut client = Http2::connect(stage.address());
    for _ in 0..3 {
        let answer = client.get("/");
        assert_eq!((answer.status, answer.text()), (200, "half"));
        assert_eq!((answer.is_whole, answer.reset), (false, Some(2)), "RFC 9113 §8.1");
    }
    stage.expect_count("responses_incomplete_total", 3);
}

fn a_client_that_resets_a_stream_ends_the_try(driver: Driver) {
    let stage = on(driver).backend(never_answers()).start();
    let mut client = Http2::connect(stage.address());
    let id = client.ask("GET /", "", true);
    stage.expect_count("backend_in_flight", 1);
    client.send(&Frame::new(RST_STREAM, 0, id, 8_u32.to_be_bytes()));
    stage.expect_count("backend_in_flight", 0);
    stage.expect_count("client_aborts_total", 1);
    eventually("the backend was left", || stage.backend(0).open_visits(), |open| *open == 0);
    // So does a client that leaves.
    client.ask("GET /", "", true);
    stage.expect_count("backend_in_flight", 1);
    drop(client);
    stage.expect_count("backend_in_flight", 0);
}

fn a_malformed_request_reaches_no_backend(driver: Driver) {
    let stage = on(driver).backend(answers("never")).start();
    let mut client = Http2::connect(stage.address());
    for fields in ["X: y\n", "connection: close\n", "content-length: 5\n", "x: a\u{b}b\n"] {
        let id = client.ask("GET /", fields, true);
        assert_eq!(client.answer(id).reset, Some(1), "{fields}");
    }
    // A body that disagrees with its length is cut for the backend, and never whole.
    let id = client.ask("POST /", "content-length: 5\n", false);
    client.body(id, b"sevenxx", true);
    assert_eq!(client.answer(id).reset, Some(1));
    let id = client.ask("GET /", "host: b\n", true);
    assert_eq!(client.answer(id).reset, Some(1));
    assert_eq!(stage.backend(0).requests().len(), 0);
    let many = format!("x: {}\n", "y".repeat(40_000));
    let pieces = block(&format!(":method: GET\n:scheme: http\n:authority: a\n:path: /\n{many}"));
    client.send(&Frame::new(HEADERS, END_STREAM, 99, &pieces[..16_000]));
    client.send(&Frame::new(CONTINUATION, 0, 99, &pieces[16_000..32_000]));
    client.send(&Frame::new(CONTINUATION, END_HEADERS, 99, &pieces[32_000..]));
    assert_eq!(client.answer(99).status, 431);
}

fn a_connection_that_breaks_the_rules_is_told_why(driver: Driver) {
    let stage = on(driver).backend(answers("x")).start();
    for (frame, code) in [
        (Frame::new(DATA, 0, 0, "x"), 1),
        (Frame::new(HEADERS, 5, 1, [0x80]), 9),
        (Frame::new(PING, 0, 0, "short"), 6),
        (Frame::new(WINDOW_UPDATE, 0, 0, 0x7fff_ffff_u32.to_be_bytes()), 3),
    ] {
        let mut client = Http2::connect(stage.address());
        client.get("/").expect(200, "x");
        client.send(&frame);
        assert_eq!(client.goaway().map(|(code, _)| code), Some(code), "{frame:?}");
    }
}

fn a_slow_reader_holds_its_backend_back_and_nobody_else(driver: Driver) {
    let body = "x".repeat(8 << 20);
    let stage = on(driver)
        .backend(answers_each(move |request| {
            let body = if request.target() == "/large" { &body[..] } else { "small" };
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
        }))
        .start();
    let mut client = Http2::connect(stage.address());
    // Room in the connection's window for others, and none more on this stream.
    client.send(&Frame::new(WINDOW_UPDATE, 0, 0, (1_u32 << 20).to_be_bytes()));
    client.gives_room = false;
    let large = client.ask("GET /large", "", true);
    for _ in 0..10 {
        client.get("/small").expect(200, "small");
    }
    client.gives_room = true;
    client.send(&Frame::new(WINDOW_UPDATE, 0, large, (16_u32 << 20).to_be_bytes()));
    assert_eq!(client.answer(large).body.len(), 8 << 20);
}

fn an_upload_is_held_back_by_its_backend(driver: Driver) {
    let stage = on(driver).backend(crate::scripts::never_reads()).start();
    let mut client = Http2::connect(stage.address());
    let id = client.ask("POST /", "", false);
    // The windows, and what the sockets of the backend hold.
    let piece = vec![7; 16_384];
    let (mut room, mut sent) = (65_535, 0);
    client.gives_room = false;
    let mut quiet = false;
    while !quiet {
        while room >= piece.len() {
            client.body(id, &piece, false);
            (room, sent) = (room - piece.len(), sent + piece.len());
        }
        client.send(&Frame::new(PING, 0, 0, "are you?"));
        let mut more = 0;
        loop {
            let frame = client.frame().expect("a frame");
            match frame.kind {
                PING => break,
                WINDOW_UPDATE if frame.id == id => more += frame.number() as usize,
                _ => {}
            }
        }
        room += more;
        quiet = more == 0 && room < piece.len() && sent > 65_535;
        assert!(sent < 64 << 20, "nothing holds it back");
    }
    client.send(&Frame::new(RST_STREAM, 0, id, 8_u32.to_be_bytes()));
    stage.expect_count("requests_in_flight", 0);
}

fn a_drain_lets_streams_end_and_takes_no_more(driver: Driver) {
    let cue = Cue::default();
    let mut stage = on(driver).backend(answers_on(&cue, "late")).start();
    let mut client = Http2::connect(stage.address());
    let under_way = client.ask("GET /", "", true);
    stage.expect_count("backend_in_flight", 1);
    let stopping = stage.stop_beside(Stop::Graceful);
    let first = client.until(GOAWAY);
    assert_eq!((first.number(), first.payload[..4].to_vec()), (0, vec![0x7f, 255, 255, 255]));
    cue.give();
    client.answer(under_way).expect(200, "late");
    let (code, last) = client.goaway().expect("a second one");
    assert_eq!((code, last), (0, under_way), "RFC 9113 §6.8");
    assert!(stopping.join().unwrap().1, "everything had finished");
}

fn an_idle_connection_ends_at_once_on_drain(driver: Driver) {
    let mut stage = on(driver).backend(answers("x")).start();
    let mut client = Http2::connect(stage.address());
    client.get("/").expect(200, "x");
    let stopping = stage.stop_beside(Stop::Graceful);
    assert_eq!(client.goaway(), Some((0, 1)));
    assert!(stopping.join().unwrap().1);
}

fn the_log_names_the_version(driver: Driver) {
    let log = Folder::new();
    let stage = log
        .stage(driver, "json")
        .listener("protocols = [\"h1\", \"h2\"]")
        .backend(answers("ok"))
        .start();
    let mut client = Http2::connect(stage.address());
    client.get("/a").expect(200, "ok");
    let id = client.ask("POST /b", "", false);
    client.body(id, b"12345", true);
    client.answer(id).expect(200, "ok");
    drop(client);
    let lines = log.lines(stage);
    assert_eq!(lines[0]["protocol"], "HTTP/2.0");
    assert_eq!((&lines[0]["path"], &lines[0]["host"]), (&"/a".into(), &"a".into()));
    assert_eq!(lines[1]["method"], "POST");
    assert!(lines[1]["request_bytes"].as_u64() > Some(5 + 40), "{:?}", lines[1]);
}

fn a_late_body_ends_its_stream_alone(driver: Driver, slower: u32) {
    let time = Duration::from_millis(500) * slower;
    let stage = on(driver)
        .listener(&format!("timeouts = {{ client-body = \"{}ms\" }}", time.as_millis()))
        .backend(answers("x"))
        .start();
    let mut client = Http2::connect(stage.address());
    let watch = Watch::start();
    let id = client.ask("POST /", "content-length: 10\n", false);
    client.body(id, b"half", false);
    assert_eq!(client.answer(id).status, 408);
    expect_about(watch.took(), time);
    client.get("/").expect(200, "x");
}

fn an_idle_connection_has_its_time(driver: Driver, slower: u32) {
    let time = Duration::from_millis(500) * slower;
    let stage = on(driver)
        .listener(&format!("timeouts = {{ idle = \"{}ms\" }}", time.as_millis()))
        .backend(delays(time * 2, "x"))
        .start();
    let mut client = Http2::connect(stage.address());
    client.get("/").expect(200, "x");
    let watch = Watch::start();
    assert_eq!(client.goaway(), Some((0, 1)));
    expect_about(watch.took(), time);
}

/// Another implementation (nghttp2), if there is one.
fn curl_is_answered(driver: Driver) {
    let stage = on(driver).backend(echoes()).start();
    let url = format!("http://{}/", stage.address());
    let body = "0123456789abcdef".repeat(20_000);
    let curl = Command::new("curl")
        .args(["-s", "--http2-prior-knowledge", "--max-time", "20", "-w", " %{http_version}"])
        .args(["--data-binary", "@-", &url])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn();
    let Ok(mut curl) = curl else {
        assert!(std::env::var("CI").is_err(), "no curl");
        return;
    };
    let mut input = curl.stdin.take().unwrap();
    let sent = body.clone();
    let sending = std::thread::spawn(move || {
        std::io::Write::write_all(&mut input, sent.as_bytes()).unwrap();
    });
    let output = curl.wait_with_output().unwrap();
    sending.join().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text == format!("{body} 2"), "{}", &text[text.len().saturating_sub(200)..]);
    stage.connect().send(post("/", "one")).response().expect(200, "one");
}

fn floods_end_their_connection_and_are_said(driver: Driver) {
    let stage = on(driver).backend(answers("x")).start();
    for (name, reason) in [("pings", 0), ("settings", 1), ("resets", 2), ("empty_data", 3)] {
        let mut client = Http2::connect(stage.address());
        let body = client.ask("POST /", "", false);
        for number in 0..3_000 {
            let frame = match reason {
                0 => Frame::new(PING, 0, 0, "12345678"),
                1 => Frame::new(SETTINGS, 0, 0, ""),
                2 => {
                    let id = 2 * number + 3;
                    let fields = block(":method: GET\n:scheme: http\n:authority: a\n:path: /\n");
                    let head = Frame::new(HEADERS, END_HEADERS | END_STREAM, id, fields);
                    // It may have ended between the two.
                    client.try_send(&head);
                    Frame::new(RST_STREAM, 0, id, 8_u32.to_be_bytes())
                }
                _ => Frame::new(DATA, 0, body, ""),
            };
            if !client.try_send(&frame) {
                break;
            }
        }
        // A client that goes on sending may find a reset in place of the reason.
        assert!(client.goaway().is_none_or(|(code, _)| code == 11), "{name}");
        stage.expect_count("http2_abuse_total", reason + 1);
    }
    let said = || {
        let is_it = |event: &Event| matches!(event, Event::Http2Abuse { .. });
        stage.happened().into_iter().filter(is_it).count()
    };
    eventually("each is said once", said, |count| *count == 4);
    Http2::connect(stage.address()).get("/").expect(200, "x");
    stage.expect_count("requests_in_flight", 0);
}

fn a_client_of_grpc_is_told_in_its_own_words(driver: Driver) {
    let stage = on(driver).written("127.0.0.1:9").start();
    let mut client = Http2::connect(stage.address());
    let grpc = "content-type: application/grpc\nte: trailers\n";
    let id = client.ask("POST /package.Service/Method", grpc, true);
    let answer = client.answer(id);
    assert!(answer.is_whole && answer.body.is_empty(), "{answer:?}");
    assert_eq!((answer.status, answer.field("grpc-status")), (200, Some("14")));
    assert_eq!(answer.field("content-type"), Some("application/grpc"));
    assert!(answer.field("grpc-message").is_some());
    let id = client.ask("POST /", "content-type: application/json\n", true);
    assert_eq!(client.answer(id).status, 502);
}

fn the_time_of_grpc_bounds_an_exchange(driver: Driver) {
    let stage = on(driver).backend(never_answers()).start();
    let mut client = Http2::connect(stage.address());
    let fields = "content-type: application/grpc\ngrpc-timeout: 300m\n";
    let id = client.ask("POST /", fields, true);
    assert_eq!(client.answer(id).field("grpc-status"), Some("4"));
    assert_eq!(stage.backend(0).heads()[0].field("grpc-timeout"), Some("300m"));
}

const WEBSOCKET: &str = ":method: CONNECT\n:protocol: websocket\n:scheme: http\n\
                         :authority: a\n:path: /chat\nsec-websocket-version: 13\n";

fn a_websocket_goes_through_a_stream(driver: Driver) {
    let stage = on(driver).backend(upgrades_and_echoes()).start();
    let mut client = Http2::connect(stage.address());
    client.send(&Frame::new(HEADERS, END_HEADERS, 1, block(WEBSOCKET)));
    let head = client.until(HEADERS);
    let fields = crate::frames::fields(&head.payload);
    assert_eq!(fields[0], (":status".to_owned(), "200".to_owned()));
    assert!(fields.iter().all(|(name, _)| name != "upgrade" && name != "sec-websocket-accept"));
    let asked = &stage.backend(0).heads()[0];
    assert!(asked.start.starts_with("GET /chat HTTP/1.1"), "{asked:?}");
    assert_eq!(asked.field("upgrade"), Some("websocket"));
    assert!(asked.lists("connection", "upgrade"));
    assert_eq!(asked.field("sec-websocket-key").map(str::len), Some(24));
    let sent: Vec<u8> = (0..60_000_u32).map(|at| (at * 7) as u8).collect();
    for piece in sent.chunks(777) {
        client.send(&Frame::new(DATA, 0, 1, piece));
    }
    let mut came = Vec::new();
    while came.len() < sent.len() {
        came.extend(client.until(DATA).payload);
    }
    assert!(came == sent, "byte for byte");
    stage.expect_count("tunnels", 1);
    client.send(&Frame::new(DATA, END_STREAM, 1, ""));
    assert!(client.until(DATA).flags & END_STREAM != 0, "the end is passed on, and comes back");
    stage.expect_count("tunnels", 0);
    client.send(&Frame::new(HEADERS, END_HEADERS, 3, block(WEBSOCKET)));
    client.until(HEADERS);
    client.send(&Frame::new(RST_STREAM, 0, 3, 8_u32.to_be_bytes()));
    stage.expect_count("tunnels", 0);
}

fn a_backend_that_does_not_switch_makes_no_tunnel(driver: Driver) {
    let stage = on(driver).backend(answers("no")).start();
    let mut client = Http2::connect(stage.address());
    client.send(&Frame::new(HEADERS, END_HEADERS, 1, block(WEBSOCKET)));
    assert_eq!(client.answer(1).status, 502, "a 200 would say that the protocol is spoken");
    let other = WEBSOCKET.replace("websocket\n:scheme", "connect-udp\n:scheme");
    client.send(&Frame::new(HEADERS, END_HEADERS, 3, block(&other)));
    assert_eq!(client.answer(3).status, 501);
    let wrong = WEBSOCKET.replace("CONNECT", "GET");
    client.send(&Frame::new(HEADERS, END_HEADERS, 5, block(&wrong)));
    assert_eq!(client.answer(5).reset, Some(1));
}
