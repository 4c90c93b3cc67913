//! Plays of WebSockets (RFC 6455, RFC 8441): every byte arrives as it was sent, whatever it is cut
//! into and however slowly it is read, over each pair of versions.
//!
//! `tunnel.rs` has how a tunnel begins and ends. The frames here are those of the standard, but
//! Ringway knows nothing of them.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use ringway::Stop;

use crate::{
    backend::{Script, plays},
    chance::{Chance, rounds},
    client::Client,
    frames::{DATA, END_HEADERS, END_STREAM, Frame, HEADERS, Http2, block},
    scripts::{SWITCHING, upgrades_and_echoes},
    stage::{Driver, Setting, Stage, settled},
    streams::{EXTENDED_CONNECT, speaks},
    wire::{Broken, Wire},
};

on_both_drivers!(
    messages_of_any_size_arrive_whole_however_they_are_cut,
    a_client_that_reads_nothing_holds_its_backend_back,
    a_backend_that_reads_nothing_holds_its_client_back,
    a_websocket_goes_where_a_request_would_go,
    a_websocket_is_served_through_a_drain_until_that_ends,
    a_websocket_goes_through_a_stream_from_clients_of_both_versions,
    what_takes_no_websocket_is_asked_without,
);

over_http_2!(
    messages_of_any_size_arrive_whole_however_they_are_cut,
    a_client_that_reads_nothing_holds_its_backend_back,
    a_backend_that_reads_nothing_holds_its_client_back,
    a_websocket_goes_where_a_request_would_go,
    a_websocket_is_served_through_a_drain_until_that_ends,
);

/// Opens a WebSocket as HTTP/1 does, for this user.
fn upgraded(stage: &Stage, user: &str) -> Client {
    let mut client = stage.connect();
    client.send(UPGRADE.replace("\r\n\r\n", &format!("\r\nX-User: {user}\r\n\r\n")));
    assert_eq!(client.response_head("HEAD").unwrap().status, 101);
    client
}

/// A frame (RFC 6455 §5.2) of binary data, masked as those of clients are.
fn frame(payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    let mut frame = vec![0x82];
    match payload.len() {
        short @ ..126 => frame.push(masked | short as u8),
        middle @ ..0x1_0000 => {
            frame.push(masked | 126);
            frame.extend((middle as u16).to_be_bytes());
        }
        long => {
            frame.push(masked | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend(mask.unwrap_or_default().iter().filter(|_| mask.is_some()));
    let mask = mask.unwrap_or_default();
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The payload of the next frame.
fn payload(wire: &mut Wire) -> Result<Vec<u8>, Broken> {
    let head = wire.bytes(2)?;
    if head[0] != 0x82 {
        return Err(Broken::Wrong(format!("a frame that begins with {head:x?}")));
    }
    let length = match head[1] & 0x7f {
        126 => u64::from(u16::from_be_bytes(wire.bytes(2)?.try_into().unwrap())),
        127 => u64::from_be_bytes(wire.bytes(8)?.try_into().unwrap()),
        short => short.into(),
    };
    let mask = if head[1] & 0x80 > 0 { wire.bytes(4)? } else { vec![0; 4] };
    let payload = wire.bytes(length as usize)?;
    Ok(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect())
}

/// Sends each message back, in a frame of its own.
fn echoes_messages() -> Script {
    plays(|visit| {
        visit.request()?;
        visit.send(SWITCHING)?;
        loop {
            let message = payload(visit.wire())?;
            visit.send(frame(&message, None))?;
        }
    })
}

fn messages_of_any_size_arrive_whole_however_they_are_cut(driver: Driver) {
    let stage = Stage::on(driver).backend(echoes_messages()).start();
    let mut chance = Chance::new();
    for _ in 0..rounds(4) {
        let mut client = upgraded(&stage, "a");
        let mut sizes = vec![0, 1, 125, 126, 65_535, 65_536, 2 << 20];
        sizes.extend((0..30).map(|_| chance.size()));
        let bytes = |size| (0..size).map(|_| chance.below(256) as u8).collect();
        let messages: Vec<Vec<u8>> = sizes.into_iter().map(bytes).collect();
        let frames: Vec<u8> =
            messages.iter().flat_map(|message| frame(message, Some([7, 1, 0, 255]))).collect();
        let mut stream = client.wire().stream().try_clone().unwrap();
        let mut cuts = chance.split();
        let sending = std::thread::spawn(move || {
            let mut rest = &frames[..];
            while !rest.is_empty() {
                // From single bytes to more than a buffer.
                let most = 1 << cuts.below(18);
                let count = (1 + cuts.below(most)).min(rest.len());
                stream.write_all(&rest[..count]).unwrap();
                rest = &rest[count..];
            }
        });
        for message in &messages {
            let came = payload(client.wire()).unwrap();
            assert!(came == *message, "another message of {} bytes", message.len());
        }
        sending.join().unwrap();
        client.half_close().expect_gone();
    }
}

/// More than all the buffers between two ends hold.
const MUCH: usize = 128 << 20;

fn a_client_that_reads_nothing_holds_its_backend_back(driver: Driver) {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let fountain = plays(move |visit| {
        visit.request()?;
        visit.send(SWITCHING)?;
        let piece = frame(&[b'a'; 65_536 - 4], None);
        for _ in 0..MUCH / piece.len() {
            visit.send(&piece)?;
            count.fetch_add(piece.len(), SeqCst);
        }
        Ok(())
    });
    let stage = Stage::on(driver).backend(fountain).start();
    let mut client = upgraded(&stage, "a");
    let taken = settled(|| sent.load(SeqCst));
    assert!(0 < taken && taken < MUCH / 2, "{taken} bytes for a client that reads none");
    // Then all of it comes.
    assert_eq!(client.wire().until_end().unwrap().len(), MUCH / 65_536 * 65_536);
}

fn a_backend_that_reads_nothing_holds_its_client_back(driver: Driver) {
    let reads = Arc::new(AtomicUsize::new(0));
    let may = Arc::clone(&reads);
    let patient = plays(move |visit| {
        visit.request()?;
        visit.send(SWITCHING)?;
        while may.load(SeqCst) == 0 {
            visit.pause(Duration::from_millis(5))?;
        }
        let mut count = 0;
        loop {
            match visit.wire().some()?.len() {
                0 => return visit.send(format!("{count} bytes")),
                more => count += more,
            }
        }
    });
    let stage = Stage::on(driver).backend(patient).start();
    let mut client = upgraded(&stage, "a");
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let mut stream = client.wire().stream().try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        let piece = [b'a'; 65_536];
        for _ in 0..MUCH / piece.len() {
            stream.write_all(&piece).unwrap();
            count.fetch_add(piece.len(), SeqCst);
        }
        stream.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let taken = settled(|| sent.load(SeqCst));
    assert!(0 < taken && taken < MUCH / 2, "{taken} bytes for a backend that reads none");
    reads.store(1, SeqCst);
    sending.join().unwrap();
    assert_eq!(client.wire().until_end().unwrap(), format!("{MUCH} bytes").as_bytes());
}

fn a_websocket_goes_where_a_request_would_go(driver: Driver) {
    let mut setting = Stage::on(driver).pool("balance = { hash = \"header:x-user\" }");
    for name in ["0", "1", "2"] {
        setting = setting.backend(plays(move |visit| {
            while visit.request()?.field("upgrade").is_none() {
                visit.send(crate::scripts::ok(name))?;
            }
            visit.send([SWITCHING, name].concat())?;
            visit.drain()
        }));
    }
    let stage = setting.start();
    let mut seen = std::collections::BTreeSet::new();
    for user in ["ann", "bob", "cid", "dan", "eve", "fay", "gus", "hal"] {
        let mut client = stage.connect();
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-User: {user}\r\n\r\n"));
        let asked = client.response().text().to_owned();
        for _ in 0..3 {
            let mut client = upgraded(&stage, user);
            assert_eq!(client.wire().bytes(1).unwrap(), asked.as_bytes(), "{user}");
        }
        seen.insert(asked);
    }
    assert!(seen.len() > 1, "all on one");
}

fn a_websocket_is_served_through_a_drain_until_that_ends(driver: Driver) {
    let mut stage = Stage::on(driver)
        .global("shutdown = { drain = \"1s\" }")
        .backend(upgrades_and_echoes())
        .start();
    let mut client = upgraded(&stage, "a");
    let stopping = stage.stop_beside(Stop::Graceful);
    crate::stage::expect_closed(stage.address());
    client.send("still here");
    assert_eq!(client.wire().bytes(10).unwrap(), b"still here");
    let (took, finished) = stopping.join().unwrap();
    assert!(!finished, "{took:?}");
    took.expect_at_least(Duration::from_millis(900));
    client.expect_gone();
}

/// A stage whose pool speaks HTTP/2 without TLS.
fn http_2(driver: Driver) -> Setting {
    Stage::on(driver).listener("protocols = [\"h1\", \"h2\"]").pool("protocol = \"h2c\"")
}

/// Opens a WebSocket as HTTP/1 does, with the key of the standard's example.
const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n\
                       Upgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

fn a_websocket_goes_through_a_stream_from_clients_of_both_versions(driver: Driver) {
    let backend = speaks(&[(EXTENDED_CONNECT, 1)], |streams| {
        let asked = streams.next_head()?;
        let is_it = asked.field(":method") == Some("CONNECT")
            && asked.field(":protocol") == Some("websocket")
            && asked.path() == "/chat"
            && asked.field("sec-websocket-version") == Some("13")
            && asked.field("sec-websocket-key").is_none()
            && !asked.is_whole;
        if !is_it {
            return Err(crate::wire::Broken::Wrong(format!("{asked:?}")));
        }
        streams.head(asked.id, "200", "sec-websocket-protocol: x\n", false)?;
        loop {
            let frame = streams.take()?;
            if frame.kind == DATA {
                streams.body(frame.id, &frame.payload, frame.ends())?;
            }
            if frame.ends() {
                return streams.until_end();
            }
        }
    });
    let sent: Vec<u8> = (0..200_000_u32).map(|at| (at * 7) as u8).collect();
    let stage = http_2(driver).backend(backend.clone()).start();
    let mut one = stage.connect();
    one.send(UPGRADE);
    let head = one.response_head("HEAD").unwrap();
    assert_eq!((head.status, head.field("upgrade")), (101, Some("websocket")));
    assert_eq!(head.field("sec-websocket-protocol"), Some("x"));
    // RFC 6455 §1.3.
    assert_eq!(head.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    stage.expect_count("tunnels", 1);
    for piece in sent.chunks(30_000) {
        one.send(piece);
        let came = one.wire().bytes(piece.len()).unwrap();
        assert!(came == piece, "byte for byte");
    }
    one.half_close().expect_end();
    stage.expect_count("tunnels", 0);
    let stage = http_2(driver).backend(backend).start();
    let mut two = Http2::connect(stage.address());
    let connect = ":method: CONNECT\n:protocol: websocket\n:scheme: http\n:authority: a\n\
                   :path: /chat\nsec-websocket-version: 13\n";
    two.send(&Frame::new(HEADERS, END_HEADERS, 1, block(connect)));
    let fields = crate::frames::fields(&two.until(HEADERS).payload);
    assert_eq!(fields[0], (":status".to_owned(), "200".to_owned()));
    for piece in sent[..60_000].chunks(777) {
        two.send(&Frame::new(DATA, 0, 1, piece));
    }
    let mut came = Vec::new();
    while came.len() < 60_000 {
        came.extend(two.until(DATA).payload);
    }
    assert!(came == sent[..60_000], "byte for byte");
    two.send(&Frame::new(DATA, END_STREAM, 1, ""));
    assert!(two.until(DATA).ends(), "the end is passed on, and comes back");
    stage.expect_count("tunnels", 0);
}

fn what_takes_no_websocket_is_asked_without(driver: Driver) {
    let backend = speaks(&[], |streams| {
        loop {
            let asked = streams.request()?;
            if asked.field(":protocol").is_some() || asked.field(":method") != Some("GET") {
                return Err(crate::wire::Broken::Wrong(format!("{asked:?}")));
            }
            streams.answers(asked.id, "", b"a page")?;
        }
    });
    let stage = http_2(driver).backend(backend).start();
    stage.connect().send(UPGRADE).response().expect(200, "a page");
    stage.expect_count("tunnels", 0);
}
