//! Plays of backends that are told by a PROXY header who the client is.
//!
//! Most are asked through a second Ringway, which reads that header; the bytes themselves are those
//! that a plain server has heard.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::Duration,
};

use crate::{
    addresses,
    client::get,
    scripts::answers,
    secure::Identity,
    stage::{Driver, Stage},
};

on_both_drivers!(
    a_second_proxy_knows_the_client_of_the_first,
    each_client_has_a_connection_of_its_own,
    a_connection_of_tcp_begins_with_the_header,
    what_a_proxy_in_front_has_added_is_passed_on,
    the_handshake_with_the_client_is_told,
    a_header_goes_before_the_tls_of_the_backend,
    a_probe_speaks_for_itself,
    after_a_reload_no_connection_without_a_header_is_used,
);

const PATIENCE: Duration = Duration::from_secs(20);
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A server of HTTP behind a header: answers one request, and says what came before the request.
fn listens() -> (SocketAddr, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind((addresses::host(), 0)).unwrap();
    let (address, (said, heard)) = (listener.local_addr().unwrap(), channel());
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let said = said.clone();
            thread::spawn(move || answers_one(stream, &said));
        }
    });
    (address, heard)
}

fn answers_one(mut stream: TcpStream, said: &Sender<Vec<u8>>) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut all, mut room) = (Vec::new(), [0; 4096]);
    loop {
        let begins = all.windows(4).position(|four| four == b"GET ");
        if let Some(begins) = begins
            && all.ends_with(b"\r\n\r\n")
        {
            all.truncate(begins);
            let _ = said.send(std::mem::take(&mut all));
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
            continue;
        }
        match stream.read(&mut room) {
            Ok(count) if count > 0 => all.extend_from_slice(&room[..count]),
            // A probe says no request.
            Ok(_) | Err(_) => {
                let _ = said.send(all);
                return;
            }
        }
    }
}

#[track_caller]
fn next(heard: &Receiver<Vec<u8>>) -> Vec<u8> {
    loop {
        // The end of a connection that has served says nothing.
        let header = heard.recv_timeout(PATIENCE).unwrap();
        if !header.is_empty() {
            return header;
        }
    }
}

fn line(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let (from_ip, to_ip) = (from.ip(), to.ip());
    format!("PROXY TCP4 {from_ip} {to_ip} {} {}\r\n", from.port(), to.port()).into_bytes()
}

/// The additions of a header of version 2 about two IPv4 addresses.
fn additions(header: &[u8]) -> Vec<(u8, Vec<u8>)> {
    assert!(header.starts_with(SIGNATURE), "{}", header.escape_ascii());
    assert_eq!(header[12..14], [0x21, 0x11]);
    let (mut rest, mut all) = (&header[16 + 12..], Vec::new());
    while let [kind, high, low, value @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        all.push((*kind, value[..len].to_vec()));
        rest = &value[len..];
    }
    all
}

fn a_second_proxy_knows_the_client_of_the_first(driver: Driver) {
    for version in [1, 2] {
        let second = Stage::on(driver)
            .listener("proxy-protocol = { from = [\"127.0.0.0/8\"] }")
            .backend(answers("ok"))
            .start();
        let first = Stage::on(driver)
            .written(second.address().to_string())
            .pool(&format!("send-proxy-protocol = {version}"))
            .start();
        let mut client = first.connect();
        for _ in 0..3 {
            client.send(get("/")).response().expect(200, "ok");
            let request = second.last_request();
            let from = client.wire().stream().local_addr().unwrap();
            let told = request.field("x-forwarded-for").unwrap().to_owned();
            // The first proxy is not trusted: the address is that of the header.
            assert_eq!(told, from.ip().to_string());
            let port = first.address().port().to_string();
            assert_eq!(request.field("x-forwarded-port"), Some(&*port));
        }
    }
}

fn each_client_has_a_connection_of_its_own(driver: Driver) {
    let (backend, heard) = listens();
    let stage =
        Stage::on(driver).written(backend.to_string()).pool("send-proxy-protocol = 1").start();
    let mut clients = [stage.connect(), stage.connect()];
    for _ in 0..3 {
        for client in &mut clients {
            client.send(get("/")).response().expect(200, "ok");
            let from = client.wire().stream().local_addr().unwrap();
            assert_eq!(next(&heard), line(from, stage.address()));
        }
    }
    assert_eq!(stage.count("backend_connection_reuse_total"), 0);
}

fn a_connection_of_tcp_begins_with_the_header(driver: Driver) {
    let (backend, heard) = listens();
    let stage = Stage::on(driver)
        .listener("mode = \"tcp\"")
        .written(backend.to_string())
        .pool("send-proxy-protocol = 1")
        .start();
    let mut client = stage.connect();
    client.send(get("/")).response().expect(200, "ok");
    let from = client.wire().stream().local_addr().unwrap();
    assert_eq!(next(&heard), line(from, stage.address()));
}

fn what_a_proxy_in_front_has_added_is_passed_on(driver: Driver) {
    let (backend, heard) = listens();
    let stage = Stage::on(driver)
        .listener("proxy-protocol = { from = [\"127.0.0.0/8\"] }")
        .written(backend.to_string())
        .pool("send-proxy-protocol = 2")
        .start();
    let addresses = [192, 0, 2, 7, 203, 0, 113, 9, 0xdc, 0x04, 0x11, 0x4e];
    let added = [&[5, 0, 2][..], b"id", &[2, 0, 1], b"a", &[0xee, 0, 1], b"x"].concat();
    let len = (addresses.len() + added.len()) as u8;
    let header = [SIGNATURE, &[0x21, 0x11, 0, len], &addresses, &added].concat();
    stage.connect().send(&header).send(get("/")).response().expect(200, "ok");
    let told = next(&heard);
    assert_eq!(told[16..28], addresses);
    assert_eq!(additions(&told), [(5, b"id".to_vec()), (2, b"a".to_vec())]);
}

fn the_handshake_with_the_client_is_told(driver: Driver) {
    let (backend, heard) = listens();
    let identity = Identity::of(&["a.example"]);
    let stage = Stage::on(driver)
        .listener(&identity.line(""))
        .written(backend.to_string())
        .pool("send-proxy-protocol = 2")
        .start();
    let mut config = identity.trusting(&crate::secure::VERSIONS);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    identity.connect_as(stage.address(), config).send(get("/")).response().expect(200, "ok");
    let told = additions(&next(&heard));
    let kinds: Vec<u8> = told.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [1, 2, 0x20]);
    assert_eq!((&*told[0].1, &*told[1].1), (&b"http/1.1"[..], &b"a.example"[..]));
    // Of TLS, and no certificate was shown.
    assert_eq!(told[2].1[..5], [1, 0, 0, 0, 1]);
    assert_eq!(told[2].1[5..15], *b"\x21\0\x07TLSv1.3");
}

fn a_header_goes_before_the_tls_of_the_backend(driver: Driver) {
    let identity = Identity::of(&["b.example"]);
    let second = Stage::on(driver)
        .listener("proxy-protocol = { from = [\"127.0.0.0/8\"] }")
        .listener(&identity.line(""))
        .backend(answers("ok"))
        .start();
    let first = Stage::on(driver)
        .written(second.address().to_string())
        .pool("send-proxy-protocol = 2")
        .pool(&identity.pool_line())
        .start();
    first.connect().send(get("/")).response().expect(200, "ok");
    assert_eq!(second.last_request().field("x-forwarded-proto"), Some("https"));
}

fn a_probe_speaks_for_itself(driver: Driver) {
    for (version, expected) in
        [(1, b"PROXY UNKNOWN\r\n".to_vec()), (2, [SIGNATURE, b"\x20\0\0\0"].concat())]
    {
        for kind in ["http", "tcp"] {
            let (backend, heard) = listens();
            let _stage = Stage::on(driver)
                .written(backend.to_string())
                .pool(&format!(
                    "send-proxy-protocol = {version}\n\
                     health = {{ type = \"{kind}\", interval = \"200ms\", timeout = \"200ms\" }}"
                ))
                .start();
            assert_eq!(next(&heard), expected, "{kind}");
        }
    }
}

fn after_a_reload_no_connection_without_a_header_is_used(driver: Driver) {
    let (backend, heard) = listens();
    let pool = |line: &str| format!("[pool.app2]\nbackends = [\"{backend}\"]\n{line}\n");
    let route = "[[route]]\nname = \"r\"\npath = \"/\"\npool = \"app2\"\n";
    let mut stage = Stage::on(driver).sections(&[route, &pool("")].concat()).start();
    let mut client = stage.connect();
    client.send(get("/")).response().expect(200, "ok");
    stage.reload_sections(&[route, &pool("send-proxy-protocol = 1")].concat());
    client.send(get("/")).response().expect(200, "ok");
    let from = client.wire().stream().local_addr().unwrap();
    assert_eq!(next(&heard), line(from, stage.address()));
}
