//! Plays of listeners that speak TLS: handshakes, what clients and backends see of them, and
//! clients that do not get through.
//!
//! `net/tls` tests records byte by byte; here is the whole proxy.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

use ringway::events::Event;
use rustls::{
    ClientConfig, ClientConnection, NamedGroup, StreamOwned,
    crypto::{
        CryptoProvider,
        aws_lc_rs::{self, kx_group},
    },
    version::{TLS12, TLS13},
};

use crate::{
    client::{Client, get, post},
    logs::Folder,
    scripts::{
        answers, answers_each, answers_target, close_delimited, echoes, ok, sends_and_closes,
        upgrades_and_echoes,
    },
    secure::{Identity, VERSIONS},
    stage::{Driver, Stage, eventually, expect_about, long},
    wire::{Broken, PATIENCE},
};

on_both_drivers!(
    a_connection_serves_request_after_request,
    large_bodies_go_both_ways,
    a_body_goes_on_while_the_client_changes_its_keys,
    the_key_is_made_of_two_where_the_client_can,
    a_tunnel_is_open_both_ways_and_ends_half_by_half,
    backends_and_the_log_are_told_of_it,
    a_sticky_cookie_is_secure,
    backends_are_told_the_certificate_of_a_client_and_by_us_alone,
    clients_come_again_with_a_ticket_to_any_core,
    bytes_may_come_one_by_one,
    plain_http_is_told_so_in_plain_http,
    garbage_is_refused_by_an_alert,
    why_a_handshake_fails_is_said_in_words,
    an_answer_that_ends_by_close_is_cut_where_it_is_cut,
    an_upload_that_ends_without_close_notify_is_an_abort,
    a_client_that_closes_its_side_is_answered_if_that_is_wished;
    at a pace:
    a_handshake_has_its_time_and_no_more,
    half_open_handshakes_leave_others_alone,
);

fn name() -> Identity {
    Identity::of(&["play.test"])
}

fn a_connection_serves_request_after_request(driver: Driver) {
    let identity = name();
    let stage = Stage::on(driver).listener(&identity.line("")).backend(answers_target()).start();
    for version in VERSIONS {
        let mut client = identity.connect_as(stage.address(), identity.trusting(&[version]));
        for number in 0..20 {
            let path = format!("/{number}");
            let response = client.get(&path);
            response.expect(200, &path);
            assert!(!response.closes());
        }
        client.send("GET / HTTP/1.1\r\nHost: play.test\r\nConnection: close\r\n\r\n");
        assert!(client.response().closes());
        client.expect_end();
    }
    stage.expect_count("tls_handshakes_total{version=\"1.2\",resumed=\"no\"}", 1);
    stage.expect_count("tls_handshakes_total{version=\"1.3\",resumed=\"no\"}", 1);
}

fn large_bodies_go_both_ways(driver: Driver) {
    let identity = name();
    let stage = Stage::on(driver).listener(&identity.line("")).backend(echoes()).start();
    let body = "0123456789abcdef".repeat(40_000);
    for version in VERSIONS {
        let mut client = identity.connect_as(stage.address(), identity.trusting(&[version]));
        for _ in 0..3 {
            client.send(post("/", &body));
            assert!(client.response().body == body.as_bytes());
        }
    }
}

fn a_body_goes_on_while_the_client_changes_its_keys(driver: Driver) {
    let identity = name();
    let stage = Stage::on(driver).listener(&identity.line("")).backend(echoes()).start();
    let name = "play.test".try_into().unwrap();
    let config = Arc::new(identity.trusting(&[&TLS13]));
    let tls = ClientConnection::new(config, name).unwrap();
    let mut client = Client::over(crate::secure::bridge_that(stage.address(), tls, true));
    let body = "0123456789abcdef".repeat(40_000);
    for _ in 0..2 {
        client.send(post("/", &body));
        assert!(client.response().body == body.as_bytes());
    }
}

fn the_key_is_made_of_two_where_the_client_can(driver: Driver) {
    let identity = name();
    let stage = Stage::on(driver).listener(&identity.line("")).backend(answers("ok")).start();
    for (groups, expected) in [
        (&[kx_group::X25519MLKEM768, kx_group::X25519][..], NamedGroup::X25519MLKEM768),
        // What the client has guessed costs no second flight.
        (&[kx_group::X25519, kx_group::X25519MLKEM768], NamedGroup::X25519),
        (&[kx_group::X25519], NamedGroup::X25519),
        (&[kx_group::SECP256R1], NamedGroup::secp256r1),
    ] {
        let provider =
            CryptoProvider { kx_groups: groups.to_vec(), ..aws_lc_rs::default_provider() };
        let config = identity.trusting_with(provider, &[&TLS13]);
        let name = "play.test".try_into().unwrap();
        let mut tls = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = TcpStream::connect(stage.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut stream).unwrap();
        }
        assert_eq!(tls.negotiated_key_exchange_group().unwrap().name(), expected);
    }
}

fn a_tunnel_is_open_both_ways_and_ends_half_by_half(driver: Driver) {
    let identity = name();
    let stage =
        Stage::on(driver).listener(&identity.line("")).backend(upgrades_and_echoes()).start();
    let mut client = identity.connect(stage.address());
    client.send(
        "GET / HTTP/1.1\r\nHost: play.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    );
    assert_eq!(client.response().status, 101);
    for word in ["one", "\0\u{1}\u{2}", "three"] {
        client.send(word);
        assert_eq!(client.wire().bytes(word.len()).unwrap(), word.as_bytes());
    }
    client.half_close().expect_end();
}

fn backends_and_the_log_are_told_of_it(driver: Driver) {
    let (identity, log) = (name(), Folder::new());
    let stage =
        log.stage(driver, "json").listener(&identity.line("")).backend(answers("ok")).start();
    let mut config = identity.trusting(&[&TLS13]);
    config.alpn_protocols = vec![b"h3".to_vec(), b"http/1.1".to_vec()];
    let mut client = identity.connect_as(stage.address(), config);
    client.get("/").expect(200, "ok");
    let request = stage.last_request();
    assert_eq!(request.field("x-forwarded-proto"), Some("https"));
    let port = stage.address().port().to_string();
    assert_eq!(request.field("x-forwarded-port"), Some(&*port));
    client.half_close().expect_end();
    let lines = log.lines(stage);
    assert_eq!(lines[0]["scheme"], "https");
    assert_eq!(lines[0]["tls"], "TLSv1.3 TLS_AES_128_GCM_SHA256 http/1.1 new play.test");
}

fn backends_are_told_the_certificate_of_a_client_and_by_us_alone(driver: Driver) {
    let (identity, own) = (name(), Identity::of(&["client.test"]));
    let auth = format!(", client-auth = {{ ca = \"{}\", mode = \"optional\" }}", own.cert());
    let forged = "GET / HTTP/1.1\r\nHost: play.test\r\nClient-Cert: :Zm9v:\r\n\
                  client_cert: :Zm9v:\r\nClient-Cert-Chain: :Zm9v:\r\n\r\n";
    for (is_wanted, shows) in [(true, true), (true, false), (false, true)] {
        let stage = Stage::on(driver)
            .listener(&identity.line(&auth))
            .pool(&format!("client-cert = {is_wanted}"))
            .backend(answers("ok"))
            .start();
        let config = match shows {
            true => identity.trusting_as(&own),
            false => identity.trusting(&VERSIONS),
        };
        let mut client = identity.connect_as(stage.address(), config);
        for _ in 0..2 {
            client.send(forged).response().expect(200, "ok");
            let request = stage.last_request();
            let expected = (is_wanted && shows).then(|| own.field());
            assert_eq!(request.field("client-cert"), expected.as_deref());
            assert_eq!(request.field("client_cert"), None);
            assert_eq!(request.field("client-cert-chain"), None);
        }
    }
}

fn a_sticky_cookie_is_secure(driver: Driver) {
    let identity = name();
    let stage = Stage::on(driver)
        .listener(&identity.line(""))
        .pool("sticky = {}")
        .backend(answers("ok"))
        .start();
    let response = identity.connect(stage.address()).get("/");
    let cookie = response.field("set-cookie").expect("no cookie");
    assert!(cookie.contains("; Secure"), "{cookie}");
}

fn clients_come_again_with_a_ticket_to_any_core(driver: Driver) {
    let identity = name();
    let stage =
        Stage::on(driver).cores(2).listener(&identity.line("")).backend(answers("ok")).start();
    for (version, label) in [(&TLS12, "1.2"), (&TLS13, "1.3")] {
        let config = Arc::new(identity.trusting(&[version]));
        for _ in 0..12 {
            let name = "play.test".try_into().unwrap();
            let tls = ClientConnection::new(Arc::clone(&config), name).unwrap();
            let mut client = Client::over(crate::secure::bridge(stage.address(), tls));
            client.get("/").expect(200, "ok");
        }
        let resumed = format!("tls_handshakes_total{{version=\"{label}\",resumed=\"yes\"}}");
        stage.expect_count(&resumed, 11);
    }
}

fn bytes_may_come_one_by_one(driver: Driver) {
    let identity = name();
    let stage = Stage::on(driver).listener(&identity.line("")).backend(echoes()).start();
    for version in VERSIONS {
        let name = "play.test".try_into().unwrap();
        let config = Arc::new(identity.trusting(&[version]));
        let mut tls = ClientConnection::new(config, name).unwrap();
        let stream = TcpStream::connect(stage.address()).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        tls.writer().write_all(post("/", "byte by byte").as_bytes()).unwrap();
        let mut got = Vec::new();
        while !got.ends_with(b"byte by byte") {
            let mut all = Vec::new();
            while tls.wants_write() {
                tls.write_tls(&mut all).unwrap();
            }
            for byte in all {
                (&stream).write_all(&[byte]).unwrap();
            }
            assert!(tls.read_tls(&mut (&stream).take(1)).unwrap() > 0);
            tls.process_new_packets().unwrap();
            let mut room = [0; 1_000];
            if let Ok(count) = tls.reader().read(&mut room) {
                got.extend_from_slice(&room[..count]);
            }
        }
    }
}

fn plain_http_is_told_so_in_plain_http(driver: Driver) {
    let (identity, log) = (name(), Folder::new());
    let stage =
        log.stage(driver, "json").listener(&identity.line("")).backend(answers("never")).start();
    let mut client = stage.connect();
    client.send(get("/"));
    let response = client.response();
    assert!(response.status == 400 && response.closes(), "{response:?}");
    assert!(response.field("content-type").unwrap().starts_with("text/plain"));
    assert!(response.text().contains("speaks HTTPS"), "{}", response.text());
    client.expect_end();
    stage.expect_count("tls_handshake_failures_total{reason=\"plain_http\"}", 1);
    assert_eq!(stage.backend(0).visits(), 0);
    let lines = log.lines(stage);
    assert_eq!((&lines[0]["status"], &lines[0]["term"]), (&400.into(), &"bad_request".into()));
}

fn garbage_is_refused_by_an_alert(driver: Driver) {
    let identity = name();
    let stage = Stage::on(driver).listener(&identity.line("")).backend(answers("ok")).start();
    for garbage in [
        &b"\x80\x2e\x01\x03\x01"[..],
        b"\x16\x03\x01\x00\x05hello",
        b"\x00\x00",
        b"\x17\x03\x03\xff\xff",
    ] {
        let mut stream = TcpStream::connect(stage.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(garbage).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        // An alert, fatal.
        assert!(matches!(answer[..], [21, 3, _, 0, 2, 2, _]), "{garbage:?} {answer:?}");
    }
    stage.expect_count("tls_handshake_failures_total{reason=\"refused\"}", 4);
    identity.connect(stage.address()).get("/").expect(200, "ok");
}

/// Shakes hands as this client until one side gives up.
fn fails_as(address: std::net::SocketAddr, config: ClientConfig, name: &'static str) {
    let tls = ClientConnection::new(Arc::new(config), name.try_into().unwrap()).unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = StreamOwned::new(tls, stream);
    // In TLS 1.3 a client may believe that it is done.
    let failed = stream.write_all(get("/").as_bytes()).and_then(|()| stream.read(&mut [0; 99]));
    assert!(failed.is_err(), "{failed:?}");
}

fn why_a_handshake_fails_is_said_in_words(driver: Driver) {
    let (identity, other) = (name(), name());
    let tls = format!(
        ", unknown-name = \"refuse\", min-version = \"1.3\", client-auth = {{ ca = \"{}\" }}",
        other.cert()
    );
    let stage = Stage::on(driver).listener(&identity.line(&tls)).backend(answers("never")).start();
    let at = stage.address();
    let mut config = identity.trusting(&VERSIONS);
    fails_as(at, config.clone(), "b.test");
    config.alpn_protocols = vec![b"imap".to_vec()];
    fails_as(at, config, "play.test");
    fails_as(at, identity.trusting(&[&TLS12]), "play.test");
    fails_as(at, other.trusting(&VERSIONS), "play.test");
    fails_as(at, identity.trusting(&VERSIONS), "play.test");
    fails_as(at, identity.trusting_as(&identity), "play.test");
    let mut garbage = TcpStream::connect(at).unwrap();
    garbage.write_all(b"\x16\x03\x01\x00\x05hello").unwrap();
    let mut plain = stage.connect();
    plain.send(get("/"));
    assert_eq!(plain.response().status, 400);
    let expected = [
        "no certificate is for the name that the client asks for (b.test)",
        "the client speaks no protocol that is offered here (ALPN)",
        "the client speaks no version of TLS that is allowed here (`min-version`)",
        "the client does not know the authority of our certificate (unknown_ca)",
        "the client has no certificate, and `client-auth` requires one",
        "the client's certificate is signed by no authority of `ca`",
        "the client sends what is no TLS handshake",
        "the client speaks plain HTTP",
    ];
    let said = || {
        let cause = |event| match event {
            Event::HandshakeFailed { listener, client, cause, .. } => {
                assert_eq!((&*listener, client), ("web", Some([127, 0, 0, 1].into())));
                Some(cause)
            }
            _ => None,
        };
        stage.happened().into_iter().filter_map(cause).collect::<Vec<_>>()
    };
    let said = eventually("all of them", said, |said| said.len() >= expected.len());
    let mut said: Vec<&str> = said.iter().map(|cause| &**cause).collect();
    let mut expected = expected.to_vec();
    said.sort_unstable();
    expected.sort_unstable();
    assert_eq!(said, expected);
    // The same once more is not said again.
    let mut again = TcpStream::connect(at).unwrap();
    again.write_all(b"\x16\x03\x01\x00\x05hello").unwrap();
    stage.expect_count("tls_handshake_failures_total", 9);
}

/// The bridge makes an end without `close_notify` a reset.
fn an_answer_that_ends_by_close_is_cut_where_it_is_cut(driver: Driver) {
    let identity = name();
    let whole = Stage::on(driver)
        .listener(&identity.line(""))
        .backend(close_delimited("the whole"))
        .start();
    let mut client = identity.connect(whole.address());
    client.send("GET / HTTP/1.0\r\nHost: play.test\r\n\r\n");
    client.response().expect(200, "the whole");
    let cut = Stage::on(driver)
        .listener(&identity.line(""))
        .backend(sends_and_closes("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnot all"))
        .start();
    let mut client = identity.connect(cut.address());
    client.send(get("/"));
    let (broken, _) = client.try_response().unwrap_err();
    assert!(matches!(broken, Broken::Reset | Broken::Cut), "{broken:?}");
}

fn an_upload_that_ends_without_close_notify_is_an_abort(driver: Driver) {
    let identity = name();
    let stage = Stage::on(driver).listener(&identity.line("")).backend(echoes()).start();
    let name = "play.test".try_into().unwrap();
    let config = Arc::new(identity.trusting(&[&TLS13]));
    let mut tls = ClientConnection::new(config, name).unwrap();
    let mut stream = TcpStream::connect(stage.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    tls.complete_io(&mut stream).unwrap();
    let head = "POST / HTTP/1.1\r\nHost: play.test\r\nContent-Length: 10\r\n\r\nhalf";
    tls.writer().write_all(head.as_bytes()).unwrap();
    tls.complete_io(&mut stream).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    stage.expect_count("client_aborts_total", 1);
}

fn a_client_that_closes_its_side_is_answered_if_that_is_wished(driver: Driver) {
    let identity = name();
    let stage = Stage::on(driver)
        .listener(&identity.line(""))
        .listener("half-close = true")
        .backend(answers_each(|request| ok(request.target()).into_bytes()))
        .start();
    let mut client = identity.connect(stage.address());
    client.send(get("/last")).half_close();
    client.response().expect(200, "/last");
    client.expect_end();
}

fn a_handshake_has_its_time_and_no_more(driver: Driver, slower: u32) {
    let identity = name();
    let wait = Duration::from_millis(500) * slower;
    let stage = Stage::on(driver)
        .listener(&identity.line(""))
        .listener(&format!("timeouts = {{ tls-handshake = \"{}ms\" }}", wait.as_millis()))
        .backend(answers("never"))
        .start();
    let mut silent = stage.connect();
    let mut begins = stage.connect();
    begins.send(b"\x16\x03\x01\x02");
    expect_about(silent.waits(|client| client.expect_end()), wait);
    begins.expect_end();
    stage.expect_count("tls_handshake_failures_total{reason=\"timeout\"}", 2);
}

/// As many handshakes that go no further.
fn half_open(identity: &Identity, stage: &Stage, count: usize) -> Vec<TcpStream> {
    let begins = |number: usize| {
        let mut stream = TcpStream::connect(stage.address()).unwrap();
        // Some say nothing, some a part, some a hello and no more.
        let name = "play.test".try_into().unwrap();
        let config = Arc::new(identity.trusting(&VERSIONS));
        let mut tls = ClientConnection::new(config, name).unwrap();
        let mut hello = Vec::new();
        tls.write_tls(&mut hello).unwrap();
        let share = [0, 40, hello.len()][number % 3];
        stream.write_all(&hello[..share]).unwrap();
        stream
    };
    (0..count).map(begins).collect()
}

/// The time within which 99 of 100 requests of each client are answered; they take turns, so that
/// the machine is as late to one as to the other.
fn p99(clients: &mut [Client; 2]) -> [Duration; 2] {
    let mut times = [const { Vec::new() }; 2];
    for _ in 0..300 {
        for (client, times) in clients.iter_mut().zip(&mut times) {
            let since = Instant::now();
            client.get("/").expect(200, "ok");
            times.push(since.elapsed());
        }
    }
    times.map(|mut times| {
        times.sort_unstable();
        times[times.len() * 99 / 100]
    })
}

fn half_open_handshakes_leave_others_alone(driver: Driver, slower: u32) {
    let identity = name();
    let start = || Stage::on(driver).listener(&identity.line("")).backend(answers("ok")).start();
    let (quiet, stage) = (start(), start());
    // All plays share the descriptors of one process.
    let count = if long() { 1_000 } else { 300 };
    let half_open = half_open(&identity, &stage, count);
    stage.expect_count("connections", count as u64);
    let mut clients = [&quiet, &stage].map(|stage| identity.connect(stage.address()));
    // One look may be spoilt by the machine; what they cost would show in each.
    let looks: Vec<_> = (0..5).map(|_| p99(&mut clients)).collect();
    let is_as_ever = |[alone, beside]: &[Duration; 2]| *beside <= *alone * 3 / 2 + SLACK * slower;
    assert!(looks.iter().any(is_as_ever), "without and with them: {looks:?}");
    assert_eq!(stage.count("connections"), count as u64 + 1);
    assert_eq!(stage.count("tls_handshakes_total"), 1);
    drop(half_open);
}

/// How much longer an answer may take for no reason of ours.
const SLACK: Duration = Duration::from_micros(500);
