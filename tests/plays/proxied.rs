//! Plays of listeners behind a proxy that begins each connection with a PROXY header.

use std::{
    io::{self, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use ringway::events::Event;

use crate::{
    addresses,
    client::Client,
    pace::ms,
    scripts::answers,
    secure::Identity,
    stage::{Driver, Setting, Stage, eventually, expect_about},
};

on_both_drivers!(
    the_client_of_a_header_is_the_client_everywhere,
    a_header_may_come_in_pieces_with_the_request_behind_it,
    a_proxy_may_speak_for_itself,
    what_is_no_header_is_reset_and_said,
    only_proxies_may_connect,
    a_header_goes_before_tls,
    ; at a pace:
    a_header_has_its_time,
);

const V1: &str = "PROXY TCP4 192.0.2.7 203.0.113.9 56324 4430\r\n";
const GET: &str = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";

/// The same in version 2, with an addition that nobody knows.
fn v2() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10".to_vec();
    header.extend([192, 0, 2, 7, 203, 0, 113, 9, 0xdc, 0x04, 0x11, 0x4e]);
    header.extend([0xe7, 0, 1, b'x']);
    header
}

fn behind(driver: Driver, from: &str) -> Setting {
    Stage::on(driver)
        .listener(&format!("proxy-protocol = {{ from = [\"{from}\"] }}"))
        .backend(answers("ok"))
}

fn the_client_of_a_header_is_the_client_everywhere(driver: Driver) {
    let stage = behind(driver, "127.0.0.0/8").start();
    for header in [V1.as_bytes().to_vec(), v2()] {
        let mut client = stage.connect();
        client.send(&header);
        for _ in 0..2 {
            client.send(GET);
            client.response().expect(200, "ok");
            let request = stage.last_request();
            assert_eq!(request.field("x-forwarded-for"), Some("192.0.2.7"));
            assert_eq!(request.field("x-forwarded-port"), Some("4430"));
        }
    }
}

fn a_header_may_come_in_pieces_with_the_request_behind_it(driver: Driver) {
    let stage = behind(driver, "127.0.0.0/8").start();
    for header in [V1.as_bytes().to_vec(), v2()] {
        let all = [&header[..], GET.as_bytes()].concat();
        stage.connect().send(&all).response().expect(200, "ok");
        stage.connect().send_in_single_bytes(&all).response().expect(200, "ok");
        assert_eq!(stage.last_request().field("x-forwarded-for"), Some("192.0.2.7"));
    }
}

fn a_proxy_may_speak_for_itself(driver: Driver) {
    let stage = behind(driver, "127.0.0.0/8").start();
    for header in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        let mut client = stage.connect();
        client.send(header).send(GET);
        client.response().expect(200, "ok");
        let from = stage.last_request().field("x-forwarded-for").map(str::to_owned);
        assert!(from.is_some_and(|from| from.starts_with("127.")));
    }
}

fn what_is_no_header_is_reset_and_said(driver: Driver) {
    let stage = behind(driver, "127.0.0.0/8").start();
    for bytes in [GET, "PROXY TCP4 999.1.1.1 203.0.113.9 1 2\r\n", "\x16\x03\x01\0\x05hello"] {
        let mut client = stage.connect();
        client.send_what_is_taken(bytes);
        client.expect_gone();
    }
    assert_eq!(stage.backend(0).visits(), 0);
    stage.expect_count("connections_rejected_total{reason=\"proxy_header\"}", 3);
    let said = || {
        let causes = stage.happened().into_iter().filter_map(|event| match event {
            Event::ProxyHeaderRefused { cause, .. } => Some(cause.to_string()),
            _ => None,
        });
        causes.collect::<Vec<_>>()
    };
    let causes = eventually("reasons", said, |causes| !causes.is_empty());
    assert!(
        causes.iter().any(|cause| cause == "it does not begin with a PROXY header"),
        "{causes:?}"
    );
}

fn only_proxies_may_connect(driver: Driver) {
    let stage = behind(driver, "10.0.0.0/8").start();
    match TcpStream::connect(stage.address()) {
        // The reset may be there before the connect has returned.
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        Ok(stream) => {
            let mut client = Client::over(stream);
            client.send_what_is_taken(V1).send_what_is_taken(GET);
            client.expect_gone();
        }
    }
    assert_eq!(stage.backend(0).visits(), 0);
}

fn a_header_goes_before_tls(driver: Driver) {
    let identity = Identity::of(&["a"]);
    let stage = behind(driver, "127.0.0.0/8").listener(&identity.line("")).start();
    let mut client = identity.connect(says_whom(stage.address()));
    client.send(GET);
    client.response().expect(200, "ok");
    assert_eq!(stage.last_request().field("x-forwarded-for"), Some("192.0.2.7"));
    assert_eq!(stage.last_request().field("x-forwarded-proto"), Some("https"));
}

/// A proxy of one connection, which says first whom it is for.
fn says_whom(address: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind((addresses::host(), 0)).unwrap();
    let own = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut near, _) = listener.accept().unwrap();
        let mut far = TcpStream::connect(address).unwrap();
        far.write_all(V1.as_bytes()).unwrap();
        let (mut from_far, mut to_near) = (far.try_clone().unwrap(), near.try_clone().unwrap());
        thread::spawn(move || io::copy(&mut from_far, &mut to_near));
        let _ = io::copy(&mut near, &mut far);
    });
    own
}

fn a_header_has_its_time(driver: Driver, slower: u32) {
    let time = Duration::from_millis(300) * slower;
    let timeouts = format!("timeouts = {{ proxy-header = {} }}", ms(time));
    let stage = behind(driver, "127.0.0.0/8").listener(&timeouts).start();
    let mut client = stage.connect();
    client.send(&V1[..9]);
    expect_about(client.waits(Client::expect_gone), time);
}
