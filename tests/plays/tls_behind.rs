//! Plays of backends that speak TLS: certificates, kept connections, resumption, probes, and what
//! becomes of requests where TLS fails.
//!
//! The backends are plain scripts with a bridge of rustls in front of them (`secure.rs`).

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::atomic::Ordering,
    time::Duration,
};

use ringway::events::Event;
use rustls::{
    HandshakeKind,
    version::{TLS12, TLS13},
};

use crate::{
    backend::Backend,
    client::{get, post},
    scripts::{answers, answers_target, close_delimited, echoes},
    secure::{Behind, Identity, VERSIONS, behind},
    stage::{Driver, Setting, Stage, eventually},
};

on_both_drivers!(
    a_kept_connection_serves_request_after_request_and_survives_late_tickets,
    large_bodies_go_both_ways_while_keys_change,
    new_connections_are_resumed,
    a_certificate_that_is_not_good_is_a_fault_and_nothing_is_sent,
    a_backend_that_speaks_plain_http_is_named_as_that,
    a_backend_that_speaks_tls_is_named_as_that,
    a_client_certificate_is_shown_where_it_is_asked_for,
    an_answer_that_ends_by_close_ends_by_close_notify,
    a_pool_that_does_not_verify_takes_any_certificate,
    probes_go_the_same_way,
);

/// A stage before a backend with TLS in front; `tls` are keys of the pool's `tls`.
fn before(driver: Driver, behind: &Behind, tls: &str) -> Setting {
    Stage::on(driver).written(behind.address.to_string()).pool(&format!("tls = {{ {tls} }}"))
}

fn trusts(identity: &Identity) -> String {
    format!("server-name = \"back.test\", ca = \"{}\"", identity.cert())
}

fn back() -> Identity {
    Identity::of(&["back.test"])
}

fn a_kept_connection_serves_request_after_request_and_survives_late_tickets(driver: Driver) {
    for version in VERSIONS {
        let (identity, backend) = (back(), Backend::open(answers_target()));
        let behind = behind(backend.address(), identity.server(&[version], None), false);
        let stage = before(driver, &behind, &trusts(&identity)).start();
        let mut client = stage.connect();
        for number in 0..20 {
            let path = format!("/{number}");
            client.get(&path).expect(200, &path);
            if number % 5 == 0 {
                std::thread::sleep(Duration::from_millis(30));
            }
        }
        assert_eq!(behind.handshakes.lock().unwrap().len(), 1);
        assert_eq!(stage.count("backend_connections_closed_total"), 0);
    }
}

fn large_bodies_go_both_ways_while_keys_change(driver: Driver) {
    let (identity, backend) = (back(), Backend::open(echoes()));
    let body = "0123456789abcdef".repeat(40_000);
    for (version, changes_keys) in [(&TLS12, false), (&TLS13, false), (&TLS13, true)] {
        let behind = behind(backend.address(), identity.server(&[version], None), changes_keys);
        let stage = before(driver, &behind, &trusts(&identity)).start();
        let mut client = stage.connect();
        for _ in 0..3 {
            client.send(post("/", &body));
            let got = client.response().body;
            let same = got.iter().zip(body.as_bytes()).take_while(|(a, b)| a == b).count();
            assert!(got == body.as_bytes(), "{version:?} {changes_keys} {} {same}", got.len());
        }
    }
}

fn new_connections_are_resumed(driver: Driver) {
    for version in VERSIONS {
        let (identity, backend) = (back(), Backend::open(answers("ok")));
        let behind = behind(backend.address(), identity.server(&[version], None), false);
        let stage = before(driver, &behind, &trusts(&identity))
            .pool("connections = { max-requests = 1 }")
            .start();
        for _ in 0..5 {
            stage.get("/").expect(200, "ok");
        }
        let handshakes = behind.handshakes.lock().unwrap();
        assert_eq!(handshakes.len(), 5);
        let resumed = handshakes.iter().filter(|kind| **kind == HandshakeKind::Resumed).count();
        assert!(resumed >= 3, "{handshakes:?}");
        // Each was told of the end (RFC 8446 §6.1).
        eventually("all have ended", || backend.open_visits(), |open| *open == 0);
        assert_eq!(behind.cuts.load(Ordering::Relaxed), 0);
    }
}

fn a_certificate_that_is_not_good_is_a_fault_and_nothing_is_sent(driver: Driver) {
    let (identity, other, backend) = (back(), back(), Backend::open(answers("never")));
    let behind = behind(backend.address(), identity.server(&VERSIONS, None), false);
    let wrong_name = format!("server-name = \"other.test\", ca = \"{}\"", identity.cert());
    for tls in [trusts(&other), wrong_name, format!("ca = \"{}\"", identity.cert()), String::new()]
    {
        let stage = before(driver, &behind, &tls).start();
        let response = stage.get("/");
        response.expect_fault(502, "backend_tls");
        let said = response.field("proxy-status");
        assert_eq!(said, Some("ringway; error=tls_certificate_error"), "{tls}");
        let why = eventually(
            "the reason",
            || {
                stage.happened().into_iter().find_map(|event| match event {
                    Event::BackendTlsFailed { cause, .. } => Some(cause),
                    _ => None,
                })
            },
            Option::is_some,
        );
        assert!(why.as_deref().unwrap().contains("certificate"), "{why:?}");
    }
    assert!(backend.requests().is_empty());
}

fn a_backend_that_speaks_plain_http_is_named_as_that(driver: Driver) {
    let identity = back();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
            let _ = stream.read(&mut [0; 4096]).and_then(|_| stream.write_all(answer));
        }
    });
    let stage = Stage::on(driver)
        .written(address.to_string())
        .pool(&format!("tls = {{ {} }}", trusts(&identity)))
        .start();
    let response = stage.get("/");
    response.expect_fault(502, "backend_tls");
    assert!(response.text().contains("speaks plain HTTP where TLS is configured"));
    drop(stage);
}

fn a_backend_that_speaks_tls_is_named_as_that(driver: Driver) {
    let (identity, backend) = (back(), Backend::open(answers("never")));
    let behind = behind(backend.address(), identity.server(&VERSIONS, None), false);
    let stage = Stage::on(driver).written(behind.address.to_string()).start();
    let response = stage.get("/");
    response.expect_fault(502, "backend_tls");
    assert!(response.text().contains("speaks TLS where plain HTTP is configured"));
}

fn a_client_certificate_is_shown_where_it_is_asked_for(driver: Driver) {
    for version in VERSIONS {
        let (identity, ours, backend) =
            (back(), Identity::of(&["us.test"]), Backend::open(answers("ok")));
        let server = identity.server(&[version], Some(&ours));
        let behind = behind(backend.address(), server, false);
        let with =
            format!("{}, cert = \"{}\", key = \"{}\"", trusts(&identity), ours.cert(), ours.key());
        before(driver, &behind, &with).start().get("/").expect(200, "ok");
        before(driver, &behind, &trusts(&identity)).start().get("/").expect_fault(
            502,
            match version.version {
                rustls::ProtocolVersion::TLSv1_2 => "backend_tls",
                // It is refused after our end of the handshake is done.
                _ => "backend_reset",
            },
        );
    }
}

fn an_answer_that_ends_by_close_ends_by_close_notify(driver: Driver) {
    let (identity, backend) = (back(), Backend::open(close_delimited("the whole")));
    let behind = behind(backend.address(), identity.server(&VERSIONS, None), false);
    let stage = before(driver, &behind, &trusts(&identity)).start();
    stage.get("/").expect(200, "the whole");
}

fn a_pool_that_does_not_verify_takes_any_certificate(driver: Driver) {
    let (identity, backend) = (back(), Backend::open(answers("ok")));
    let behind = behind(backend.address(), identity.server(&VERSIONS, None), false);
    before(driver, &behind, "verify = false").start().get("/").expect(200, "ok");
}

fn probes_go_the_same_way(driver: Driver) {
    let (identity, backend) = (back(), Backend::open(answers("ok")));
    let behind = behind(backend.address(), identity.server(&VERSIONS, None), false);
    let probes =
        "health = { path = \"/health\", interval = \"1s\", timeout = \"1s\", rise = 1, fall = 1 }";
    let stage = before(driver, &behind, &trusts(&identity)).pool(probes).start();
    eventually("a probe", || backend.requests().len(), |count| *count > 1);
    assert_eq!(stage.count("backend_check_failures_total"), 0);
    stage.connect().send(get("/")).response().expect(200, "ok");
    let other = back();
    let stage = before(driver, &behind, &trusts(&other)).pool(probes).start();
    let failed = || stage.count("backend_check_failures_total{reason=\"tls\"}");
    eventually("a probe that fails", failed, |count| *count > 1);
    stage.get("/").expect_fault(503, "no_backend");
}
