//! Plays of methods and targets: what is forwarded as it came, what is rewritten, what is refused.
//!
//! Nothing is normalised on its way to a backend; the tables of `http` test which spellings of a
//! path match a route.

use crate::{
    client::get,
    scripts::{answers, answers_target},
    stage::{Driver, Stage},
};

on_both_drivers!(
    over tls too:
    connect_and_trace_are_refused,
    unknown_methods_are_forwarded,
    options_with_forwards_left_loses_one,
    options_with_no_forwards_left_is_answered_here,
    max_forwards_of_other_methods_passes,
    an_absolute_target_is_split_into_host_and_path,
    options_of_everything_stays_an_asterisk,
    the_path_is_forwarded_as_it_came,
    targets_that_are_none_are_refused,
    a_route_takes_its_path_and_the_rest_has_none,
    no_spelling_leads_past_a_route,
);

fn connect_and_trace_are_refused(driver: Driver) {
    let stage = Stage::on(driver).backend(answers("never")).start();
    for request in [
        "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n",
        "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n",
        "TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n",
    ] {
        let mut client = stage.connect();
        client.send(request).response().expect_fault(405, "method_refused");
        client.half_close().expect_end();
    }
    assert_eq!(stage.backend(0).heard(), "");
}

fn unknown_methods_are_forwarded(driver: Driver) {
    let stage = Stage::on(driver).backend(answers_target()).start();
    let mut client = stage.connect();
    for method in ["PATCH", "PROPFIND", "get", "M-SEARCH"] {
        client
            .send(format!("{method} /x HTTP/1.1\r\nHost: a\r\n\r\n"))
            .response()
            .expect(200, "/x");
        assert_eq!(stage.last_request().method(), method);
    }
}

fn options_with_forwards_left_loses_one(driver: Driver) {
    let stage = Stage::on(driver).backend(answers_target()).start();
    let mut client = stage.connect();
    client.send("OPTIONS /x HTTP/1.1\r\nHost: a\r\nMax-Forwards: 5\r\n\r\n");
    client.response().expect(200, "/x");
    assert_eq!(stage.last_request().field("max-forwards"), Some("4"));
}

fn options_with_no_forwards_left_is_answered_here(driver: Driver) {
    let stage = Stage::on(driver).backend(answers("never")).start();
    let mut client = stage.connect();
    for target in ["*", "/x"] {
        client.send(format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n"));
        let response = client.response();
        assert_eq!(response.status, 204);
        assert!(response.field("date").is_some() && !response.closes());
    }
    // A body that is still to come is not waited for, and its client is told so.
    let head = "OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\nContent-Length: 2\r\n\r\n";
    client.send([head, "hi"].concat());
    assert!(!client.response().closes());
    assert!(client.send(head).response().closes());
    client.send("hi").expect_end();
    let mut old = stage.connect();
    old.send("OPTIONS * HTTP/1.0\r\nConnection: keep-alive\r\nMax-Forwards: 0\r\n\r\n");
    assert_eq!(old.response().field("connection"), Some("keep-alive"));
    assert_eq!(stage.backend(0).heard(), "");
}

fn max_forwards_of_other_methods_passes(driver: Driver) {
    let stage = Stage::on(driver).backend(answers("one")).start();
    let mut client = stage.connect();
    client
        .send("GET / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n")
        .response()
        .expect(200, "one");
    assert_eq!(stage.last_request().field("max-forwards"), Some("0"));
}

fn an_absolute_target_is_split_into_host_and_path(driver: Driver) {
    let stage = Stage::on(driver).backend(answers_target()).start();
    let mut client = stage.connect();
    for (target, host, path) in [
        ("http://example.com/x?y=http://z", "example.com", "/x?y=http://z"),
        ("HTTP://example.com:8080/", "example.com:8080", "/"),
        ("http://example.com", "example.com", "/"),
        ("http://example.com?q", "example.com", "/?q"),
        ("http://[2001:db8::1]:80/x", "[2001:db8::1]:80", "/x"),
    ] {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: other.test\r\n\r\n"));
        client.response().expect(200, path);
        assert_eq!(stage.last_request().field("host"), Some(host), "{target}");
        assert_eq!(stage.last_request().field("x-forwarded-host"), Some(host), "{target}");
    }
}

fn options_of_everything_stays_an_asterisk(driver: Driver) {
    let stage = Stage::on(driver).backend(answers_target()).start();
    let mut client = stage.connect();
    for (target, forwarded) in
        [("*", "*"), ("http://a.test", "*"), ("http://a.test/", "/"), ("/", "/")]
    {
        client.send(format!("OPTIONS {target} HTTP/1.1\r\nHost: a.test\r\n\r\n"));
        client.response().expect(200, forwarded);
    }
}

fn the_path_is_forwarded_as_it_came(driver: Driver) {
    let stage = Stage::on(driver).backend(answers_target()).start();
    let mut client = stage.connect();
    for path in [
        "/a//b///c",
        "/%2F%2f;x=1/+?q=1&%20=+&&=?",
        "/a;b=c/\\d%5c%3B;",
        "/UPPER/lower/%e4%b8%ad",
        "/a|b\"{}^`",
        "//example.com/",
        "/?",
    ] {
        client.get(path).expect(200, path);
    }
}

fn targets_that_are_none_are_refused(driver: Driver) {
    let stage = Stage::on(driver).backend(answers("never")).start();
    for target in [
        "x",
        "*",
        "example.com:80",
        "http://",
        "http:///x",
        "http://user@example.com/",
        "ftp://example.com/",
        "/#fragment",
        "/a\u{e4}",
        "/a\u{1}b",
        "/a\tb",
        "",
    ] {
        let mut client = stage.connect();
        client
            .send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"))
            .send_what_is_taken(get("/"));
        client.response().expect_fault(400, "bad_request");
        client.expect_end();
    }
    assert_eq!(stage.backend(0).heard(), "");
}

fn a_route_takes_its_path_and_the_rest_has_none(driver: Driver) {
    let stage = Stage::on(driver)
        .backend(answers_target())
        .without_default_pool()
        .sections("[[route]]\nname = \"api\"\npath = \"/api\"\npool = \"app\"")
        .start();
    let mut client = stage.connect();
    client.get("/api").expect(200, "/api");
    client.get("/other").expect_fault(404, "no_route");
    client.get("/apiary").expect_fault(404, "no_route");
    client.get("/api/x").expect(200, "/api/x");
    client.half_close().expect_end();
}

/// Routes match all spellings, and the backend gets the one that came.
fn no_spelling_leads_past_a_route(driver: Driver) {
    let stage = Stage::on(driver)
        .backend(answers_target())
        .without_default_pool()
        .sections("[[route]]\nname = \"admin\"\npath = \"/admin\"\npool = \"app\"")
        .start();
    let mut client = stage.connect();
    for path in [
        "/admin;x",
        "/admin%3Bx/y",
        "/;/admin",
        "/;a=b;c/;/admin;d?e;f",
        "/\\admin",
        "/%5cadmin",
        "/%5C;%2f/adm%69n\\",
        "//admin/",
    ] {
        client.get(path).expect(200, path);
    }
    for path in ["/administrator;/admin", "/a;/admin", "/x\\admin", "/ad;/min"] {
        client.get(path).expect_fault(404, "no_route");
    }
    for path in ["/a/../admin", "/%2e%2e/admin", "/x/..;/admin", "/x\\..\\admin", "/.%5cadmin"] {
        client.get(path).expect_fault(400, "bad_request");
        client = stage.connect();
    }
}
