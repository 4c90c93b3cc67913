//! Plays of what an intermediary adds and takes away (RFC 9110 §7.6), field by field.
//!
//! In both directions, with what no client may have taken away, Via and loops, Host and Date. What
//! is said about the client's address is in `forwarded.rs`.

use crate::{
    client::Client,
    scripts::{answers, sends},
    stage::{Driver, Stage},
};

on_both_drivers!(
    fields_of_one_hop_stay_on_it,
    a_connection_cannot_name_away_what_guards,
    a_response_loses_the_fields_of_its_hop,
    a_backend_that_closes_does_not_close_the_client,
    every_request_carries_our_name,
    a_request_in_a_circle_is_refused,
    a_date_is_added_where_there_is_none,
    order_and_repeats_are_kept,
    the_host_is_the_clients,
    the_host_may_be_another,
    what_is_forwarded_is_written_anew,
    nobody_is_told_what_the_process_is_called,
);

#[track_caller]
fn send_fields(client: &mut Client, fields: &[&str]) {
    let lines: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    client.send(format!("GET / HTTP/1.1\r\nHost: play.test\r\n{lines}\r\n"));
    client.response().expect(200, "ok");
}

fn fields_of_one_hop_stay_on_it(driver: Driver) {
    let stage = Stage::on(driver).backend(answers("ok")).start();
    let mut client = stage.connect();
    let fields = [
        "Connection: keep-alive, X-Mine",
        "Connection: x-also-mine",
        "X-Mine: 1",
        "X-Also-Mine: 2",
        "X-also-mine: 3",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "Proxy-Authorization: Basic eDp5",
        "TE: gzip",
        "Upgrade: websocket",
        "X-Yours: 4",
    ];
    send_fields(&mut client, &fields);
    let request = stage.last_request();
    for name in ["connection", "x-mine", "x-also-mine", "keep-alive", "proxy-connection", "te"] {
        assert_eq!(request.field(name), None, "{}", request.head.raw);
    }
    for name in ["upgrade", "proxy-authorization", "transfer-encoding", "content-length"] {
        assert_eq!(request.field(name), None, "{}", request.head.raw);
    }
    assert_eq!(request.field("x-yours"), Some("4"));
}

fn a_connection_cannot_name_away_what_guards(driver: Driver) {
    let stage = Stage::on(driver).backend(answers("ok")).start();
    let mut client = stage.connect();
    let fields = [
        "Connection: Host, Authorization, Cookie, X-Forwarded-For, X-Forwarded-Proto, Via",
        "Connection: Content-Type, Traceparent, X-Forwarded-Host, X-Forwarded-Port",
        "Authorization: Basic eDp5",
        "Cookie: a=b",
        "Content-Type: text/plain",
    ];
    send_fields(&mut client, &fields);
    let request = stage.last_request();
    assert_eq!(request.field("host"), Some("play.test"));
    assert_eq!(request.field("authorization"), Some("Basic eDp5"));
    assert_eq!(request.field("cookie"), Some("a=b"));
    assert_eq!(request.field("content-type"), Some("text/plain"));
    assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(request.field("x-forwarded-proto"), Some("http"));
    assert!(request.field("via").is_some());
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: content-length\r\nContent-Length: 4\r\n\r\n",
    );
    client.send("body").response().expect(200, "ok");
    assert_eq!(stage.last_request().body, b"body");
}

fn a_response_loses_the_fields_of_its_hop(driver: Driver) {
    let raw = "HTTP/1.1 200 OK\r\nConnection: X-Mine, keep-alive\r\nX-Mine: 1\r\n\
               Keep-Alive: timeout=5\r\nProxy-Connection: close\r\nUpgrade: h2c\r\n\
               X-Yours: 2\r\nContent-Length: 2\r\n\r\nok";
    let stage = Stage::on(driver).backend(sends(raw)).start();
    let mut client = stage.connect();
    let response = client.get("/");
    response.expect(200, "ok");
    for name in ["connection", "x-mine", "keep-alive", "proxy-connection", "upgrade"] {
        assert_eq!(response.field(name), None, "{}", response.head.raw);
    }
    assert_eq!(response.field("x-yours"), Some("2"));
}

fn a_backend_that_closes_does_not_close_the_client(driver: Driver) {
    let raw = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
    let stage = Stage::on(driver).backend(sends(raw)).start();
    let mut client = stage.connect();
    for visits in 1..=3 {
        let response = client.get("/");
        response.expect(200, "ok");
        assert!(!response.closes());
        assert_eq!(stage.backend(0).visits(), visits, "what says close is not used again");
    }
}

/// The name of this process in Via.
fn pseudonym(stage: &Stage) -> String {
    stage.get("/").expect(200, "ok");
    let via = stage.last_request().field("via").expect("no Via").to_owned();
    let name = via.strip_prefix("1.1 ").expect("no version in Via").to_owned();
    let digits = name.strip_prefix("ringway-").expect("another pseudonym");
    assert!(digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "{via}");
    name
}

fn every_request_carries_our_name(driver: Driver) {
    let stage = Stage::on(driver).backend(answers("ok")).start();
    let name = pseudonym(&stage);
    send_fields(&mut stage.connect(), &["Via: 1.0 fred, 1.1 other (comment)"]);
    let via = stage.last_request().head.all("via").join(", ");
    assert_eq!(via, format!("1.0 fred, 1.1 other (comment), 1.1 {name}"));
}

fn a_request_in_a_circle_is_refused(driver: Driver) {
    let stage = Stage::on(driver).backend(answers("ok")).start();
    let name = pseudonym(&stage);
    let mut client = stage.connect();
    let via = |times: usize| vec![format!("1.1 {name}"); times].join(", ");
    send_fields(&mut client, &[&format!("Via: 1.1 x, {}", via(4))]);
    let circling = format!("Via: {}\r\nVia: {}", via(2), via(3));
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{circling}\r\n\r\n"));
    client.response().expect_fault(502, "loop");
    send_fields(&mut client, &["Via: 1.1 ringway-00000000, 1.1 x, 1.1 x, 1.1 x, 1.1 x, 1.1 x"]);
    assert_eq!(stage.backend(0).requests().len(), 3);
}

fn a_date_is_added_where_there_is_none(driver: Driver) {
    let stage = Stage::on(driver).backend(answers("ok")).start();
    let date = stage.get("/").field("date").expect("no Date").to_owned();
    assert!(date.len() == 29 && date.ends_with(" GMT") && date[3..].starts_with(", "), "{date}");
    let dated =
        "HTTP/1.1 200 OK\r\nDate: Tue, 15 Nov 1994 08:12:31 GMT\r\nContent-Length: 0\r\n\r\n";
    let stage = Stage::on(driver).backend(sends(dated)).start();
    assert_eq!(stage.get("/").field("date"), Some("Tue, 15 Nov 1994 08:12:31 GMT"));
}

fn order_and_repeats_are_kept(driver: Driver) {
    let raw = "HTTP/1.1 200 Alright then\r\nSet-Cookie: a=1\r\nX: 1\r\nSet-Cookie: b=2, c=3\r\n\
               x: 2\r\nEmpty:\r\nServer: origin\r\nContent-Length: 2\r\n\r\nok";
    let stage = Stage::on(driver).backend(sends(raw)).start();
    let mut client = stage.connect();
    send_fields(&mut client, &["A: 1", "B: 2", "a: 3", "Cookie: x=1", "C:", "A: 4"]);
    let request = stage.last_request();
    assert_eq!(request.head.all("a"), ["1", "3", "4"]);
    assert_eq!(request.field("c"), Some(""));
    let response = client.get("/");
    assert_eq!(response.head.start, "HTTP/1.1 200 Alright then");
    assert_eq!(response.head.all("set-cookie"), ["a=1", "b=2, c=3"]);
    assert_eq!(response.head.all("x"), ["1", "2"]);
    assert_eq!(response.field("empty"), Some(""));
    assert_eq!(response.field("server"), Some("origin"));
}

fn the_host_is_the_clients(driver: Driver) {
    let stage = Stage::on(driver).backend(answers("ok")).start();
    for host in ["play.test", "PLAY.test:8080", "[::1]:80", "under_score.test."] {
        stage.connect().send(format!("GET / HTTP/1.1\r\nhOST:{host}\r\n\r\n")).response();
        assert_eq!(stage.last_request().field("host"), Some(host));
    }
}

fn the_host_may_be_another(driver: Driver) {
    let stage = Stage::on(driver).pool("host = \"backend\"").backend(answers("ok")).start();
    stage.get("/").expect(200, "ok");
    let address = stage.backend(0).address().to_string();
    assert_eq!(stage.last_request().field("host"), Some(address.as_str()));
    assert_eq!(stage.last_request().field("x-forwarded-host"), Some("play.test"));
    let stage = Stage::on(driver).pool("host = \"app.internal\"").backend(answers("ok")).start();
    stage.get("/").expect(200, "ok");
    assert_eq!(stage.last_request().field("host"), Some("app.internal"));
}

fn what_is_forwarded_is_written_anew(driver: Driver) {
    let stage = Stage::on(driver).backend(answers("ok")).start();
    let mut client = stage.connect();
    client.send("GET / HTTP/1.1\r\nHost:  \t a \t \r\nX:1\r\nY: \t2 \t\r\n\r\n");
    client.response().expect(200, "ok");
    let raw = stage.last_request().head.raw;
    assert!(raw.starts_with("GET / HTTP/1.1\r\n"), "{raw}");
    for line in raw.trim_end().split("\r\n").skip(1) {
        let (_, value) = line.split_once(": ").expect("a colon and one space");
        assert_eq!(value, value.trim_matches([' ', '\t']), "{raw}");
    }
}

fn nobody_is_told_what_the_process_is_called(driver: Driver) {
    let name = "cellar-7";
    let stage = Stage::on(driver)
        .global(&format!("instance = \"{name}\""))
        .without_default_pool()
        .sections("[[route]]\nname = \"one\"\npath = \"/there\"\npool = \"app\"")
        .backend(answers("ok"))
        .start();
    let mut client = stage.connect();
    let answer = client.get("/there");
    let refusal = client.get("/elsewhere");
    refusal.expect_fault(404, "no_route");
    let request = stage.last_request();
    let told = [&answer.head.raw, &request.head.raw, &refusal.head.raw, refusal.text()];
    assert!(told.iter().all(|text| !text.contains(name)), "{told:#?}");
}
