//! Plays of upgraded connections: a tunnel both ways, each half with an end of its own.
//!
//! Upgrades that are agreed, refused, or not relayed at all. The contents of a tunnel do not
//! matter, only that all of it arrives and that the tunnel ends.

use std::time::{Duration, Instant};

use crate::{
    backend::plays,
    client::{Client, Response},
    pace::{Watch, ms},
    scripts::{SWITCHING, answers, chunk, upgrades_and_echoes},
    stage::{Driver, Stage, eventually, expect_about},
};

on_both_drivers!(
    an_upgrade_opens_a_tunnel,
    an_upgrade_opens_a_tunnel_whatever_length_it_is_agreed_to_with,
    bytes_right_behind_the_heads_are_part_of_the_tunnel,
    a_client_may_end_its_half_first,
    a_backend_may_end_its_half_first,
    much_passes_through_a_tunnel_both_ways_at_once,
    a_refused_upgrade_is_an_answer_like_any_other,
    an_upgrade_nobody_offered_to_relay_stays_here,
    a_client_that_leaves_ends_the_tunnel,
    a_backend_that_leaves_ends_the_tunnel,
    an_idle_tunnel_is_ended,
    an_upgrade_may_have_a_body,
    a_body_may_end_behind_the_agreement,
    a_body_that_is_cut_opens_no_tunnel,
    a_tunnel_of_which_one_end_has_closed_ends_when_the_other_is_silent,
    ; at a pace:
    a_busy_tunnel_is_not_ended,
    a_half_closed_tunnel_goes_on_while_bytes_come,
);

// Without those where the bridge reads ahead.
over_tls!(
    an_upgrade_opens_a_tunnel,
    an_upgrade_opens_a_tunnel_whatever_length_it_is_agreed_to_with,
    bytes_right_behind_the_heads_are_part_of_the_tunnel,
    a_client_may_end_its_half_first,
    a_backend_may_end_its_half_first,
    much_passes_through_a_tunnel_both_ways_at_once,
    a_refused_upgrade_is_an_answer_like_any_other,
    an_upgrade_nobody_offered_to_relay_stays_here,
    a_client_that_leaves_ends_the_tunnel,
    a_backend_that_leaves_ends_the_tunnel,
    an_idle_tunnel_is_ended,
    an_upgrade_may_have_a_body,
    a_body_may_end_behind_the_agreement,
    a_body_that_is_cut_opens_no_tunnel,
);

// WebSockets over HTTP/2 (RFC 8441), without those about how HTTP/1 asks.
over_http_2!(
    a_client_may_end_its_half_first,
    a_backend_may_end_its_half_first,
    much_passes_through_a_tunnel_both_ways_at_once,
    a_client_that_leaves_ends_the_tunnel,
    a_backend_that_leaves_ends_the_tunnel,
    an_idle_tunnel_is_ended,
    ; behind:
    bytes_right_behind_the_heads_are_part_of_the_tunnel,
);

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
                       Connection: keep-alive, Upgrade\r\nSec-WebSocket-Key: x\r\n\r\n";

/// A client with an agreed upgrade.
#[track_caller]
fn upgraded(stage: &Stage) -> Client {
    let mut client = stage.connect();
    client.send(UPGRADE);
    let response = client.response();
    assert_eq!(response.status, 101);
    assert_eq!(response.field("upgrade"), Some("websocket"));
    assert!(response.head.lists("connection", "upgrade"));
    client
}

fn an_upgrade_opens_a_tunnel(driver: Driver) {
    let stage = Stage::on(driver).backend(upgrades_and_echoes()).start();
    let mut client = upgraded(&stage);
    let request = stage.last_request();
    assert_eq!(request.field("upgrade"), Some("websocket"));
    assert!(request.head.lists("connection", "upgrade"));
    assert_eq!(request.field("sec-websocket-key"), Some("x"));
    for word in ["one", "GET / HTTP/1.1\r\n\r\n", "\0\u{1}\u{2}", "four"] {
        client.send(word);
        assert_eq!(client.wire().bytes(word.len()).unwrap(), word.as_bytes());
    }
    assert_eq!(stage.count("tunnels"), 1);
    client.half_close().expect_end();
    assert_eq!(stage.backend(0).visits(), 1);
}

/// RFC 9112 §6.3, 1: a 101 ends with its head.
fn an_upgrade_opens_a_tunnel_whatever_length_it_is_agreed_to_with(driver: Driver) {
    for fields in [
        "Content-Length: 0\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 4\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: gzip\r\n",
    ] {
        let head = SWITCHING.replace("Upgrade: websocket", &format!("{fields}Upgrade: websocket"));
        let agrees = plays(move |visit| {
            visit.request()?;
            visit.send(&head)?;
            let hello = visit.wire().bytes(5)?;
            visit.send(hello)
        });
        let stage = Stage::on(driver).backend(agrees).start();
        let mut client = upgraded(&stage);
        client.send("hello");
        assert_eq!(client.wire().bytes(5).unwrap(), b"hello", "{fields}");
        client.half_close().expect_end();
    }
}

fn bytes_right_behind_the_heads_are_part_of_the_tunnel(driver: Driver) {
    let eager = plays(|visit| {
        visit.request()?;
        visit.send([SWITCHING, "welcome"].concat())?;
        let hello = visit.wire().bytes(5)?;
        visit.send(hello)
    });
    let stage = Stage::on(driver).backend(eager).start();
    let mut client = stage.connect();
    client.send([UPGRADE, "hello"].concat());
    assert_eq!(client.response_head("GET").unwrap().status, 101);
    assert_eq!(client.wire().bytes(12).unwrap(), b"welcomehello");
    client.half_close().expect_end();
}

fn a_client_may_end_its_half_first(driver: Driver) {
    let patient = plays(|visit| {
        visit.request()?;
        visit.send(SWITCHING)?;
        let all = visit.wire().until_end()?;
        // The other half is still open: everything goes back only now.
        visit.send(all)?;
        visit.send(" and good bye")
    });
    let stage = Stage::on(driver).backend(patient).start();
    let mut client = upgraded(&stage);
    client.send("all I have").half_close();
    assert_eq!(client.wire().until_end().unwrap(), b"all I have and good bye");
}

fn a_backend_may_end_its_half_first(driver: Driver) {
    let brief = plays(|visit| {
        visit.request()?;
        visit.send([SWITCHING, "that is all"].concat())?;
        visit.wire().half_close();
        let all = visit.wire().until_end()?;
        assert_eq!(all, b"but I have more");
        Ok(())
    });
    let stage = Stage::on(driver).backend(brief).start();
    let mut client = upgraded(&stage);
    assert_eq!(client.wire().until_end().unwrap(), b"that is all");
    client.send("but I have ").send("more").half_close();
    eventually("the tunnel ends", || stage.count("tunnels"), |open| *open == 0);
    let heard = || stage.backend(0).heard();
    eventually("all has arrived", heard, |heard| heard.ends_with("but I have more"));
}

fn much_passes_through_a_tunnel_both_ways_at_once(driver: Driver) {
    const SIZE: usize = 8 << 20;
    let stage = Stage::on(driver).backend(upgrades_and_echoes()).start();
    let mut client = upgraded(&stage);
    let bytes: Vec<u8> = (0..SIZE).map(|at| (at % 251) as u8).collect();
    let sending = std::thread::spawn({
        let mut stream = client.wire().stream().try_clone().unwrap();
        let bytes = bytes.clone();
        move || {
            std::io::Write::write_all(&mut stream, &bytes).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        }
    });
    assert!(client.wire().until_end().unwrap() == bytes, "other bytes came back");
    sending.join().unwrap();
}

fn a_refused_upgrade_is_an_answer_like_any_other(driver: Driver) {
    let stage = Stage::on(driver).backend(answers("speak HTTP")).start();
    let mut client = stage.connect();
    client.send(UPGRADE).response().expect(200, "speak HTTP");
    client.get("/next").expect(200, "speak HTTP");
    assert_eq!(stage.count("tunnels"), 0);
}

fn an_upgrade_nobody_offered_to_relay_stays_here(driver: Driver) {
    let stage = Stage::on(driver).backend(answers("plain")).start();
    for head in [
        // Without the option, the field is not for us.
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
        // HTTP in a tunnel would pass every rule of ours.
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\
         Connection: Upgrade, HTTP2-Settings\r\n\r\n",
        // RFC 9110 §7.8: in 1.0 it is ignored.
        "GET / HTTP/1.0\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    ] {
        stage.connect().send(head).response().expect(200, "plain");
        let request = stage.last_request();
        assert_eq!(request.field("upgrade"), None, "{head}");
        assert_eq!(request.field("http2-settings"), None, "{head}");
    }
}

fn a_client_that_leaves_ends_the_tunnel(driver: Driver) {
    let stage = Stage::on(driver).backend(upgrades_and_echoes()).start();
    let client = upgraded(&stage);
    let resetting = upgraded(&stage);
    stage.expect_count("tunnels", 2);
    drop(client);
    resetting.reset();
    stage.expect_count("tunnels", 0);
    eventually("both ends close", || stage.backend(0).open_visits(), |open| *open == 0);
}

fn a_backend_that_leaves_ends_the_tunnel(driver: Driver) {
    let leaving = plays(|visit| {
        visit.request()?;
        visit.send(SWITCHING)?;
        visit.wire().bytes(3)?;
        visit.reset();
        Ok(())
    });
    let stage = Stage::on(driver).backend(leaving).start();
    let mut client = upgraded(&stage);
    client.send("bye").expect_gone();
    stage.expect_count("tunnels", 0);
}

fn an_idle_tunnel_is_ended(driver: Driver) {
    let stage = Stage::on(driver)
        .listener("timeouts = { tunnel = \"500ms\" }")
        .backend(upgrades_and_echoes())
        .start();
    let watch = Watch::start();
    upgraded(&stage).expect_gone();
    expect_about(watch.took(), Duration::from_millis(500));
    stage.expect_count("tunnels", 0);
}

fn a_busy_tunnel_is_not_ended(driver: Driver, slower: u32) {
    let of = |millis| Duration::from_millis(millis) * slower;
    let (long, short) = (ms(of(500)), ms(of(300)));
    let stage = Stage::on(driver)
        .listener(&format!(
            "timeouts = {{ tunnel = {long}, idle = {short}, client-header = {short} }}"
        ))
        .pool(&format!("timeouts = {{ response = {short}, body = {short} }}"))
        .backend(upgrades_and_echoes())
        .start();
    let mut client = upgraded(&stage);
    let since = Instant::now();
    while since.elapsed() < of(1_500) {
        client.send("still here");
        assert_eq!(client.wire().bytes(10).as_deref(), Ok(&b"still here"[..]));
        client.expect_silence(of(150));
    }
    client.half_close().expect_end();
}

/// A request for an upgrade with a body in this framing, as `docker exec` sends it.
fn exec(framing: &str, body: &str) -> String {
    format!(
        "POST /exec/1/start HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         {framing}\r\n\r\n{body}"
    )
}

const BODY: &str = "{\"Detach\":false,\"Tty\":true}\r\n";

#[track_caller]
fn expect_switched(response: &Response) {
    assert_eq!(response.status, 101, "{response:#?}");
    assert!(response.head.lists("connection", "upgrade"));
}

fn an_upgrade_may_have_a_body(driver: Driver) {
    let stage = Stage::on(driver).backend(upgrades_and_echoes()).start();
    let long = "x".repeat(300_000);
    for (framing, framed, body) in [
        (format!("Content-Length: {}", BODY.len()), BODY.to_owned(), BODY),
        ("Transfer-Encoding: chunked".to_owned(), chunk(BODY) + "0\r\n\r\n", BODY),
        ("Content-Length: 300000".to_owned(), long.clone(), &long),
        ("Content-Length: 0".to_owned(), String::new(), ""),
    ] {
        // All at once with the first bytes of the other protocol, and each by itself.
        for pieces in [vec![exec(&framing, &framed) + "hello"], {
            let (first, rest) = framed.split_at(framed.len() / 2);
            vec![exec(&framing, first), rest.to_owned(), "hello".to_owned()]
        }] {
            let mut client = stage.connect();
            for piece in &pieces {
                client.send(piece);
            }
            expect_switched(&client.response());
            assert_eq!(client.wire().bytes(5).unwrap(), b"hello", "{framing}");
            client.send("more");
            assert_eq!(client.wire().bytes(4).unwrap(), b"more", "{framing}");
            client.half_close().expect_end();
            let request = stage.last_request();
            assert_eq!(request.field("upgrade"), Some("websocket"));
            assert_eq!(String::from_utf8_lossy(&request.body), body);
        }
    }
}

/// 101 comes before the body has: what follows it belongs to the tunnel, but what the client sends
/// does only after the body's end.
fn a_body_may_end_behind_the_agreement(driver: Driver) {
    let hasty = plays(|visit| {
        let (head, framing) = visit.head()?;
        visit.send([SWITCHING, "welcome"].concat())?;
        visit.rest_of(head, framing)?;
        let hello = visit.wire().bytes(5)?;
        visit.send(hello)
    });
    let stage = Stage::on(driver).backend(hasty).start();
    for (framing, rest) in [
        (format!("Content-Length: {}", BODY.len()), BODY.to_owned()),
        ("Transfer-Encoding: chunked".to_owned(), chunk(BODY) + "0\r\n\r\n"),
    ] {
        let mut client = stage.connect();
        client.send(exec(&framing, ""));
        expect_switched(&client.response_head("POST").unwrap());
        assert_eq!(client.wire().bytes(7).unwrap(), b"welcome");
        client.send(rest + "hello");
        assert_eq!(client.wire().bytes(5).unwrap(), b"hello");
        client.half_close().expect_end();
        assert_eq!(String::from_utf8_lossy(&stage.last_request().body), BODY);
    }
}

fn a_body_that_is_cut_opens_no_tunnel(driver: Driver) {
    let hasty = plays(|visit| {
        visit.head()?;
        visit.send(SWITCHING)?;
        visit.drain()
    });
    let stage = Stage::on(driver).backend(hasty).start();
    for (framing, bad) in
        [("Transfer-Encoding: chunked", "nonsense\r\n"), ("Content-Length: 9", "half")]
    {
        let mut client = stage.connect();
        client.send(exec(framing, ""));
        expect_switched(&client.response_head("POST").unwrap());
        client.send(bad).half_close().expect_gone();
        eventually("it is closed", || stage.backend(0).open_visits(), |open| *open == 0);
    }
    assert!(!stage.backend(0).heard().contains("nonsense"));
}

/// Either end closes its half; the other sees it and stays.
fn a_tunnel_of_which_one_end_has_closed_ends_when_the_other_is_silent(driver: Driver) {
    const MUCH: usize = 16 << 20;
    for (backend_closes, speaks) in [(false, false), (true, false), (false, true)] {
        let patient = plays(move |visit| {
            visit.request()?;
            visit.send(SWITCHING)?;
            if backend_closes {
                visit.wire().half_close();
            }
            if speaks {
                return visit.send(vec![b'a'; MUCH]);
            }
            visit.drain()?;
            visit.pause(Duration::from_secs(5))
        });
        let stage = Stage::on(driver)
            .listener("timeouts = { half-closed = \"500ms\" }")
            .backend(patient)
            .start();
        let mut client = upgraded(&stage);
        let watch = Watch::start();
        if !backend_closes {
            client.half_close();
        }
        eventually("it is ended", || stage.count("tunnels"), |open| *open == 0);
        expect_about(watch.took(), Duration::from_millis(500));
    }
}

fn a_half_closed_tunnel_goes_on_while_bytes_come(driver: Driver, slower: u32) {
    let of = |millis| Duration::from_millis(millis) * slower;
    let pause = of(150);
    let slow = plays(move |visit| {
        visit.request()?;
        visit.send(SWITCHING)?;
        visit.drain()?;
        for _ in 0..10 {
            visit.send("still here")?;
            visit.pause(pause)?;
        }
        Ok(())
    });
    let stage = Stage::on(driver)
        .listener(&format!("timeouts = {{ half-closed = {} }}", ms(of(500))))
        .backend(slow)
        .start();
    let mut client = upgraded(&stage);
    client.half_close();
    assert_eq!(client.wire().until_end().unwrap(), "still here".repeat(10).as_bytes());
}
