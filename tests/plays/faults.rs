//! Plays of Ringway's own answers: form, language, and what follows them.
//!
//! One table in `http` has the status of each cause; here a few causes of each kind are provoked,
//! and what a script may rely on is checked.

use crate::{
    backend::{Script, plays},
    client::{Client, Response},
    scripts::{answers, sends, sends_and_closes},
    stage::{Driver, Stage},
    wire::Framing,
};

on_both_drivers!(
    every_fault_has_the_shape_that_scripts_rely_on,
    the_fixed_sentences_are_what_they_are,
    the_language_is_the_one_the_client_prefers,
    the_answer_to_a_head_is_told_but_not_given,
    a_fault_keeps_the_connection_if_the_request_was_read_whole,
    a_fault_to_1_0_is_understood_by_1_0,
    no_fault_names_a_backend,
    every_answer_of_ours_has_another_id,
);

/// The request, the backend's script, and the expected answer.
type Case = (&'static str, Script, u16, &'static str, &'static str);

#[rustfmt::skip]
fn cases() -> Vec<Case> {
    let ok = || answers("ok");
    vec![
        ("GET / HTTP/1.1\r\n\r\n", ok(), 400, "bad_request", "http_request_error"),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", ok(), 405, "method_refused", "http_request_denied"),
        ("POST / HTTP/1.1\r\nHost: a\r\nExpect: x\r\nContent-Length: 1\r\n\r\na", ok(), 417, "expectation_failed", "http_request_error"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", ok(), 501, "not_implemented", "http_request_error"),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", ok(), 505, "version_refused", "http_request_error"),
        (GET, Script::Refuses, 502, "connect_failed", "connection_refused"),
        (GET, sends_and_closes(""), 502, "backend_reset", "connection_terminated"),
        (GET, sends("nonsense\r\n\r\n"), 502, "backend_protocol", "http_protocol_error"),
        (GET, Script::Unreachable, 504, "connect_timeout", "connection_timeout"),
        (GET, plays(crate::backend::Visit::drain), 504, "response_timeout", "http_response_timeout"),
    ]
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

fn stage(driver: Driver, script: Script) -> Stage {
    Stage::on(driver).backend(script).start()
}

/// A stage for this case: short timeouts if it is about time, long ones otherwise.
fn stage_for(driver: Driver, script: Script, status: u16) -> Stage {
    let timeouts = match status {
        504 => "timeouts = { connect = \"100ms\", response = \"100ms\" }",
        _ => "",
    };
    Stage::on(driver).pool(timeouts).backend(script).start()
}

fn every_fault_has_the_shape_that_scripts_rely_on(driver: Driver) {
    for (request, script, status, code, error) in cases() {
        let stage = stage_for(driver, script, status);
        let mut client = stage.connect();
        let response = client.send(request).response();
        expect_shape(&response, status, code, error);
        client.half_close().expect_end();
    }
    let stage = Stage::on(driver).weighted(answers("never"), 0).start();
    let response = stage.get("/");
    expect_shape(&response, 503, "no_backend", "destination_unavailable");
    assert_eq!(stage.backend(0).visits(), 0);
}

#[track_caller]
fn expect_shape(response: &Response, status: u16, code: &str, error: &str) {
    response.expect_fault(status, code);
    assert_eq!(response.field("content-type"), Some("application/problem+json"));
    assert_eq!(response.field("cache-control"), Some("no-store"));
    let proxy_status = format!("ringway; error={error}");
    assert_eq!(response.field("proxy-status"), Some(proxy_status.as_str()));
    assert_eq!(response.framing, Framing::Length(response.body.len() as u64));
    assert!(response.field("date").is_some());
    let id = response.field("x-request-id").expect("no request id");
    let reason = response.head.start.splitn(3, ' ').nth(2).unwrap();
    let text = response.text().trim_end();
    assert!(text.starts_with("{\"error\":\"") && text.ends_with('}'), "{text}");
    for member in [
        format!("\"code\":\"{code}\""),
        format!("\"status\":{status}"),
        format!("\"title\":\"{reason}\""),
        format!("\"request_id\":\"{id}\""),
    ] {
        assert!(text.contains(&member), "no {member} in {text}");
    }
}

fn the_fixed_sentences_are_what_they_are(driver: Driver) {
    let none = Stage::on(driver).weighted(answers("never"), 0).start().get("/");
    assert!(none.text().starts_with("{\"error\":\"No healthy backends available\","));
    let late = stage_for(driver, Script::Unreachable, 504).get("/");
    assert!(late.text().starts_with("{\"error\":\"Gateway Timeout\","));
}

fn the_language_is_the_one_the_client_prefers(driver: Driver) {
    let stage = stage(driver, Script::Refuses);
    for (accept, content_type) in [
        ("*/*", "application/problem+json"),
        ("application/json", "application/problem+json"),
        ("application/problem+json", "application/problem+json"),
        ("image/png", "application/problem+json"),
        ("text/plain", "text/plain"),
        ("text/html", "text/html"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html"),
        ("text/plain;q=0.5, text/html", "text/html"),
        ("text/plain, text/html;q=0.5", "text/plain"),
        ("application/json, text/html;q=0.9", "application/problem+json"),
        ("text/html;q=0, text/plain;q=0, */*", "application/problem+json"),
    ] {
        let mut client: Client = stage.connect();
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\n\r\n"));
        let response = client.response();
        assert_eq!(response.status, 502, "{response:#?}");
        let given = response.field("content-type").expect("no type");
        assert!(given.split(';').next() == Some(content_type), "{accept}: {given}");
        let html = response.text().to_lowercase().contains("<html");
        assert_eq!(html, content_type == "text/html", "{accept}: {}", response.text());
        assert!(response.text().contains("The backend refused the connection"), "{response:#?}");
    }
}

fn the_answer_to_a_head_is_told_but_not_given(driver: Driver) {
    let stage = stage(driver, Script::Refuses);
    let mut client = stage.connect();
    for _ in 0..3 {
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        let response = client.response_to("HEAD");
        assert_eq!(response.status, 502, "{response:#?}");
        assert!(!response.closes());
        let length = response.field("content-length").map(|length| length.parse::<u32>());
        assert!(matches!(length, Some(Ok(1..))), "{response:#?}");
    }
    client.half_close().expect_end();
}

fn a_fault_keeps_the_connection_if_the_request_was_read_whole(driver: Driver) {
    let stage = stage(driver, Script::Refuses);
    let mut client = stage.connect();
    for _ in 0..3 {
        assert!(!client.get("/").closes(), "nothing was left unread");
    }
    // An unread body: the connection may be kept only if the body is out of the way.
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nthe beginning");
    let response = client.response();
    assert_eq!(response.status, 502, "{response:#?}");
    assert!(response.closes(), "the body is on its way");
    client.expect_end();
}

fn a_fault_to_1_0_is_understood_by_1_0(driver: Driver) {
    let stage = stage(driver, Script::Refuses);
    let mut client = stage.connect();
    client.send("GET / HTTP/1.0\r\n\r\n").response().expect_fault(502, "connect_failed");
    client.expect_end();
}

fn no_fault_names_a_backend(driver: Driver) {
    for (request, script, status, ..) in cases() {
        let stage = stage_for(driver, script, status);
        let response = stage.connect().send(request).response();
        let port = stage.backend(0).address().port().to_string();
        let all = [&response.head.raw, response.text()].concat();
        assert!(!all.contains("127.0.0.1") && !all.contains(&format!(":{port}")), "{all}");
    }
}

fn every_answer_of_ours_has_another_id(driver: Driver) {
    let stage = stage(driver, Script::Refuses);
    let mut client = stage.connect();
    let ids: std::collections::BTreeSet<String> =
        (0..50).map(|_| client.get("/").field("x-request-id").unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 50);
}
