//! Plays of clients that are late in reading and in writing at once: each direction has its own
//! deadline, and the end of one says nothing about the other.

use std::time::Duration;

use crate::{
    backend::{Script, plays},
    client::{Client, get, post},
    pace::Watch,
    scripts::answers,
    stage::{Driver, Stage, expect_about},
    wire::Broken,
};

on_both_drivers!(
    who_does_not_read_is_cut_although_its_body_is_late_too,
    who_does_not_read_is_cut_although_it_has_closed_its_half,
    a_head_has_its_time_whatever_came_before_it,
    urgent_data_buys_no_time,
);

/// Answers at once and without end.
fn floods(head: &'static str, piece: &'static [u8]) -> Script {
    plays(move |visit| {
        visit.head()?;
        visit.send(head)?;
        while visit.send(piece).is_ok() {}
        Ok(())
    })
}

/// Answers without end: one that is spliced, one in chunks, one that ends with its connection.
fn endless() -> [Script; 3] {
    // Large enough that all buffers on the way are full soon: only then the time begins.
    static CHUNK: &[u8; 4_096 + 8] = &{
        let mut chunk = [b'x'; 4_096 + 8];
        let (mut at, frame) = (0, b"1000\r\n\r\n");
        while at < frame.len() {
            chunk[if at < 6 { at } else { 4_096 + at }] = frame[at];
            at += 1;
        }
        chunk
    };
    [
        floods("HTTP/1.1 200 OK\r\nContent-Length: 900000000\r\n\r\n", &[b'x'; 60_000]),
        floods("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", CHUNK),
        floods("HTTP/1.1 200 OK\r\n\r\n", &[b'x'; 60_000]),
    ]
}

/// After the end of its reading, the end of its writing used not to be checked any more.
fn who_does_not_read_is_cut_although_its_body_is_late_too(driver: Driver) {
    for script in endless() {
        let stage = Stage::on(driver)
            .listener("timeouts = { client-body = \"300ms\", client-write = \"700ms\" }")
            .backend(script)
            .start();
        let mut client = Client::connect_with_small_buffer(stage.address(), 16 << 10);
        let watch = Watch::start();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nsome of it");
        stage.expect_count("requests_in_flight", 1);
        stage.expect_count("connections", 0);
        watch.took().expect_at_most(Duration::from_millis(300 + 700 + 2 * 600));
    }
}

/// io_uring ends a poll for room at once if the peer has closed its half: the deadline used to
/// begin anew each time, and the core spun.
fn who_does_not_read_is_cut_although_it_has_closed_its_half(driver: Driver) {
    for script in endless() {
        let stage = Stage::on(driver)
            .listener("timeouts = { client-write = \"500ms\" }")
            .backend(script)
            .start();
        let mut client = Client::connect_with_small_buffer(stage.address(), 16 << 10);
        let watch = Watch::start();
        client.send(get("/"));
        assert_eq!(client.response_head("GET").unwrap().status, 200);
        client.half_close();
        stage.expect_count("connections", 0);
        watch.took().expect_at_most(Duration::from_millis(500 + 2 * 600));
    }
}

/// What a client does before the head that does not end: writes, and answers that it reads.
#[derive(Clone)]
enum Before {
    Sends(String),
    Pauses(u64),
    Reads,
}

use Before::{Pauses, Reads, Sends};

/// A deadline used to be lost depending on how an earlier request had come (slowloris).
fn a_head_has_its_time_whatever_came_before_it(driver: Driver) {
    let in_two = || {
        let whole = get("/");
        let (first, second) = whole.split_at(9);
        vec![Sends(first.into()), Pauses(50), Sends(second.into()), Reads]
    };
    let begun = "GET /partial HTTP/1.1\r\nHo";
    let own = "OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n";
    let befores: [Vec<Before>; 8] = [
        vec![],
        vec![Sends(get("/")), Reads],
        vec![Sends(get("/")), Reads, Pauses(600), Sends(get("/")), Reads],
        [vec![Sends(get("/")), Reads], in_two()].concat(),
        [in_two(), in_two()].concat(),
        [vec![Sends(get("/")), Reads, Sends(get("/")), Reads], in_two()].concat(),
        [
            vec![Sends(post("/", "a body")), Reads, Sends("\r\n".into()), Pauses(20)],
            vec![Sends(get("/")), Reads],
        ]
        .concat(),
        vec![Sends(get("/")), Reads, Sends(own.into()), Reads],
    ];
    for idle in ["6s", "0s"] {
        let timeouts = format!("timeouts = {{ client-header = \"500ms\", idle = \"{idle}\" }}");
        let stage = Stage::on(driver).listener(&timeouts).backend(answers("ok")).start();
        std::thread::scope(|scope| {
            for before in &befores {
                // By itself, and together with the last request.
                for apart in [true, false] {
                    let stage = &stage;
                    scope.spawn(move || partial(stage, before, begun, apart));
                }
            }
        });
    }
}

fn partial(stage: &Stage, before: &[Before], begun: &str, apart: bool) {
    let mut client = stage.connect();
    let last = before.iter().rposition(|step| matches!(step, Sends(_)));
    let mut watch = Watch::start();
    let mut is_sent = false;
    for (at, step) in before.iter().enumerate() {
        match step {
            Sends(bytes) if Some(at) == last && !apart => {
                watch = Watch::start();
                client.send([bytes, begun].concat());
                is_sent = true;
            }
            Sends(bytes) => _ = client.send(bytes),
            Pauses(time) => std::thread::sleep(Duration::from_millis(*time)),
            Reads => assert!(client.response_to("GET").status < 300),
        }
    }
    if !is_sent {
        watch = Watch::start();
        client.send(begun);
    }
    client.response().expect_fault(408, "request_timeout");
    expect_about(watch.took(), Duration::from_millis(500));
    client.expect_end();
}

/// Two bytes of urgent data used to make a new connection readable without a byte, and so idle.
fn urgent_data_buys_no_time(driver: Driver) {
    let stage = Stage::on(driver)
        .listener("timeouts = { client-header = \"500ms\", idle = \"60s\" }")
        .backend(answers("ok"))
        .start();
    for (sends, status) in [(&b"ab"[..], Some(408)), (b"\r\n", None), (b"GE", Some(408))] {
        let mut client = stage.connect();
        let watch = Watch::start();
        for byte in sends {
            let urgent = rustix::net::SendFlags::OOB;
            assert_eq!(rustix::net::send(client.wire().stream(), &[*byte], urgent).unwrap(), 1);
            std::thread::sleep(Duration::from_millis(10));
        }
        match client.try_response() {
            Ok(response) => assert_eq!(Some(response.status), status, "{response:?}"),
            Err((broken, _)) => assert_eq!((broken, None), (Broken::Ended, status)),
        }
        watch.took().expect_at_most(Duration::from_millis(500 + 600));
    }
    // After a request, and before the next: it is a byte like any other.
    let mut client = stage.connect();
    client.get("/").expect(200, "ok");
    let urgent = rustix::net::SendFlags::OOB;
    rustix::net::send(client.wire().stream(), get("/").as_bytes(), urgent).unwrap();
    client.response().expect(200, "ok");
}
