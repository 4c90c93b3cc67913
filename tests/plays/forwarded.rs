//! Plays of what backends are told about the client, and which peers are believed.
//!
//! A stranger is never believed and cannot have the truth dropped either; a trusted proxy is
//! believed, and is itself added to the chain.

use crate::{
    backend::Request,
    client::Client,
    scripts::answers,
    stage::{Driver, Stage},
};

on_both_drivers!(
    a_backend_is_told_who_asks,
    what_a_stranger_says_about_the_client_is_dropped,
    what_a_trusted_proxy_says_is_kept,
    a_trusted_proxy_that_says_nothing_adds_nothing,
    several_lines_are_one_list,
    a_forwarded_of_a_trusted_proxy_is_continued,
    a_port_goes_with_the_scheme_it_belongs_to,
    a_stranger_cannot_have_the_truth_dropped,
    a_trusted_proxy_cannot_have_the_truth_dropped,
    names_that_look_alike_are_dropped,
    a_client_of_ipv6_is_told_as_such,
);

const LIES: &str = "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n\
                    X-Forwarded-Host: bank.test\r\nX-Forwarded-Port: 443\r\n\
                    X-Real-IP: 203.0.113.7\r\nForwarded: for=203.0.113.7;proto=https\r\n";

const TRUSTING: &str = "trusted-proxies = [\"10.0.0.0/8\", \"127.0.0.0/8\"]";

/// What a backend receives for a request with these fields.
#[track_caller]
fn forwarded(stage: &Stage, fields: &str) -> Request {
    let mut client: Client = stage.connect();
    client.send(format!("GET / HTTP/1.1\r\nHost: play.test\r\n{fields}\r\n"));
    client.response().expect(200, "ok");
    stage.last_request()
}

#[track_caller]
fn expect_truth(stage: &Stage, request: &Request) {
    let port = stage.address().port().to_string();
    for (name, value) in [
        ("x-forwarded-for", Some("127.0.0.1")),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-host", Some("play.test")),
        ("x-forwarded-port", Some(port.as_str())),
        ("x-real-ip", None),
        ("forwarded", None),
    ] {
        assert_eq!(request.field(name), value, "{name} in\n{}", request.head.raw);
    }
}

fn a_backend_is_told_who_asks(driver: Driver) {
    let stage = Stage::on(driver).backend(answers("ok")).start();
    expect_truth(&stage, &forwarded(&stage, ""));
}

fn what_a_stranger_says_about_the_client_is_dropped(driver: Driver) {
    let stage = Stage::on(driver).backend(answers("ok")).start();
    expect_truth(&stage, &forwarded(&stage, LIES));
    let elsewhere = "trusted-proxies = [\"10.0.0.0/8\"]";
    let stage = Stage::on(driver).listener(elsewhere).backend(answers("ok")).start();
    expect_truth(&stage, &forwarded(&stage, LIES));
}

fn what_a_trusted_proxy_says_is_kept(driver: Driver) {
    let stage = Stage::on(driver).listener(TRUSTING).backend(answers("ok")).start();
    let request = forwarded(&stage, LIES);
    for (name, value) in [
        ("x-forwarded-for", "203.0.113.7, 127.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "bank.test"),
        ("x-forwarded-port", "443"),
        ("x-real-ip", "203.0.113.7"),
    ] {
        assert_eq!(request.field(name), Some(value), "{name} in\n{}", request.head.raw);
    }
}

/// RFC 7239 §4: each proxy adds the peer that asked it.
fn a_forwarded_of_a_trusted_proxy_is_continued(driver: Driver) {
    let stage = Stage::on(driver).listener(TRUSTING).backend(answers("ok")).start();
    let first = "for=\"[2001:db8::7]:443\";proto=https";
    let request =
        forwarded(&stage, &format!("Forwarded: {first}\r\nA: b\r\nForwarded: for=10.1.2.3\r\n"));
    let list = format!("{first}, for=10.1.2.3, for=127.0.0.1;host=\"play.test\";proto=http");
    assert_eq!(request.head.all("forwarded"), [list]);
    assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(forwarded(&stage, "").field("forwarded"), None, "it is not begun here");
}

fn a_port_goes_with_the_scheme_it_belongs_to(driver: Driver) {
    let stage = Stage::on(driver).listener(TRUSTING).backend(answers("ok")).start();
    let request = forwarded(&stage, "X-Forwarded-Proto: https\r\n");
    assert_eq!(request.field("x-forwarded-proto"), Some("https"));
    assert_eq!(request.field("x-forwarded-port"), None, "ours is no port of https");
}

fn a_trusted_proxy_that_says_nothing_adds_nothing(driver: Driver) {
    let stage = Stage::on(driver).listener(TRUSTING).backend(answers("ok")).start();
    expect_truth(&stage, &forwarded(&stage, ""));
}

fn several_lines_are_one_list(driver: Driver) {
    let stage = Stage::on(driver).listener(TRUSTING).backend(answers("ok")).start();
    let lines = "X-Forwarded-For: 192.0.2.1\r\nA: b\r\nX-Forwarded-For: 203.0.113.7, 10.1.2.3\r\n";
    let request = forwarded(&stage, lines);
    let list = request.head.all("x-forwarded-for").join(", ");
    assert_eq!(list, "192.0.2.1, 203.0.113.7, 10.1.2.3, 127.0.0.1");
}

fn a_stranger_cannot_have_the_truth_dropped(driver: Driver) {
    let stage = Stage::on(driver).backend(answers("ok")).start();
    let attack = "Connection: X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, close\r\n";
    expect_truth(&stage, &forwarded(&stage, attack));
    expect_truth(&stage, &forwarded(&stage, &[attack, LIES].concat()));
}

fn a_trusted_proxy_cannot_have_the_truth_dropped(driver: Driver) {
    let stage = Stage::on(driver).listener(TRUSTING).backend(answers("ok")).start();
    let attack = "Connection: X-Forwarded-For\r\nX-Forwarded-For: 203.0.113.7\r\n";
    let request = forwarded(&stage, attack);
    assert_eq!(request.field("x-forwarded-for"), Some("203.0.113.7, 127.0.0.1"));
}

/// To CGI and its descendants these names are the same variable as a guarded one.
fn names_that_look_alike_are_dropped(driver: Driver) {
    let alike = "X_Forwarded_For: 203.0.113.7\r\nX-Forwarded_Proto: https\r\n\
        x_forwarded-host: bank.test\r\nX_FORWARDED_PREFIX: /a\r\nX_Real_IP: 203.0.113.7\r\n\
        Client_Cert: :AA==:\r\nClient_Cert-Chain: :AA==:\r\nContent_Length: 5\r\n\
        Transfer_Encoding: chunked\r\nProxy_Authorization: Basic eDp5\r\nKeep_Alive: 1\r\n";
    for trusting in ["", TRUSTING] {
        let stage = Stage::on(driver).listener(trusting).backend(answers("ok")).start();
        let request = forwarded(&stage, alike);
        assert!(!request.head.raw.contains('_'), "{}", request.head.raw);
        let request = forwarded(&stage, &format!("{alike}My_Own: 1\r\n"));
        assert_eq!(request.field("my_own"), Some("1"), "{}", request.head.raw);
        let mut client = stage.connect();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n");
        client.send(format!("Trailer: x\r\n\r\n0\r\n{alike}Sum: 1\r\n\r\n"));
        client.response().expect(200, "ok");
        assert_eq!(stage.last_request().trailers, [("Sum".to_owned(), "1".to_owned())]);
    }
}

fn a_client_of_ipv6_is_told_as_such(driver: Driver) {
    let stage = Stage::on(driver)
        .sections("[listener.six]\nbind = \"[::1]:0\"\npool = \"app\"")
        .backend(answers("ok"))
        .start();
    let six = stage.address_of("six");
    Client::connect(six).get("/").expect(200, "ok");
    let request = stage.last_request();
    assert_eq!(request.field("x-forwarded-for"), Some("::1"));
    assert_eq!(request.field("x-forwarded-port"), Some(six.port().to_string().as_str()));
    stage.get("/").expect(200, "ok");
    assert_eq!(stage.last_request().field("x-forwarded-for"), Some("127.0.0.1"));
}
