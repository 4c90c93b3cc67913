//! Plays of one client connection: request after request, pipelines, how it ends.
//!
//! All peers behave, except for the one bad request or answer in the middle of a pipeline, which is
//! answered in its place. `reuse.rs` plays connections to backends.

use crate::{
    client::{get, post},
    scripts::{answers, answers_each, answers_target, ok},
    stage::{Driver, Stage},
};

on_both_drivers!(
    over tls too:
    a_connection_serves_request_after_request,
    a_request_may_ask_for_the_end,
    a_client_that_only_connects_and_leaves_is_no_fault,
    pipelined_requests_are_answered_in_order,
    pipelined_bodies_end_where_they_end,
    a_half_close_after_a_whole_request_is_not_an_abort,
    a_bad_request_in_a_pipeline_is_answered_in_its_place_and_ends_it,
    a_fault_of_a_backend_in_a_pipeline_is_answered_in_its_place,
    requests_may_come_byte_by_byte,
    a_request_may_be_split_anywhere,
    an_empty_line_before_a_request_is_forgiven,
    many_clients_each_get_their_own_answers,
);

fn a_connection_serves_request_after_request(driver: Driver) {
    let stage = Stage::on(driver).backend(answers_target()).start();
    let mut client = stage.connect();
    for number in 0..20 {
        let path = format!("/{number}");
        let response = client.get(&path);
        response.expect(200, &path);
        assert!(!response.closes());
    }
    assert_eq!(stage.backend(0).visits(), 1, "one warm connection serves them all");
    client.half_close().expect_end();
}

fn a_request_may_ask_for_the_end(driver: Driver) {
    let stage = Stage::on(driver).backend(answers("bye")).start();
    let mut client = stage.connect();
    client.get("/").expect(200, "bye");
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: foo, CLOSE\r\n\r\n");
    let response = client.response();
    response.expect(200, "bye");
    assert!(response.closes());
    client.expect_end();
}

fn a_client_that_only_connects_and_leaves_is_no_fault(driver: Driver) {
    let stage = Stage::on(driver).backend(answers("never")).start();
    drop(stage.connect());
    stage.connect().reset();
    stage.connect().half_close().expect_end();
    assert_eq!(stage.count("client_aborts_total"), 0);
    assert_eq!(stage.backend(0).visits(), 0);
}

fn pipelined_requests_are_answered_in_order(driver: Driver) {
    let stage = Stage::on(driver).backend(answers_target()).start();
    let mut client = stage.connect();
    let paths: Vec<String> = (0..50).map(|number| format!("/{number}")).collect();
    client.send(paths.iter().map(|path| get(path)).collect::<String>());
    for path in &paths {
        client.response().expect(200, path);
    }
    client.half_close().expect_end();
}

fn pipelined_bodies_end_where_they_end(driver: Driver) {
    let echo = answers_each(|request| {
        let body = String::from_utf8_lossy(&request.body);
        ok(format!("{} {body}", request.target())).into_bytes()
    });
    let stage = Stage::on(driver).backend(echo).start();
    let mut client = stage.connect();
    let chunked = "POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                   4\r\nbody\r\n0\r\n\r\n";
    let body = "GET /not HTTP/1.1\r\n\r\n";
    client.send([&post("/1", body), chunked, &get("/3"), &post("/4", ""), &get("/5")].concat());
    client.response().expect(200, &format!("/1 {body}"));
    client.response().expect(200, "/2 body");
    for path in ["/3 ", "/4 ", "/5 "] {
        client.response().expect(200, path);
    }
    client.half_close().expect_end();
}

fn a_half_close_after_a_whole_request_is_not_an_abort(driver: Driver) {
    let stage = Stage::on(driver).backend(answers_target()).start();
    let mut client = stage.connect();
    client.send([get("/1"), get("/2")].concat()).half_close();
    client.response().expect(200, "/1");
    client.response().expect(200, "/2");
    client.expect_end();
    assert_eq!(stage.count("client_aborts_total"), 0);
}

fn a_bad_request_in_a_pipeline_is_answered_in_its_place_and_ends_it(driver: Driver) {
    let stage = Stage::on(driver).backend(answers_target()).start();
    let mut client = stage.connect();
    let bad = "GET /bad HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n";
    client.send([&get("/1"), &get("/2"), bad, &get("/3")].concat());
    client.response().expect(200, "/1");
    client.response().expect(200, "/2");
    let refusal = client.response();
    refusal.expect_fault(400, "bad_request");
    assert!(refusal.closes());
    client.expect_end();
    let targets: Vec<String> =
        stage.backend(0).requests().iter().map(|request| request.target().to_owned()).collect();
    assert_eq!(targets, ["/1", "/2"]);
}

fn a_fault_of_a_backend_in_a_pipeline_is_answered_in_its_place(driver: Driver) {
    let faulty = answers_each(|request| match request.target() {
        "/bad" => b"nonsense\r\n\r\n".to_vec(),
        target => ok(target).into_bytes(),
    });
    let stage = Stage::on(driver).backend(faulty).start();
    let mut client = stage.connect();
    client.send([get("/1"), get("/bad"), get("/2"), get("/3")].concat());
    client.response().expect(200, "/1");
    client.response().expect_fault(502, "backend_protocol");
    client.response().expect(200, "/2");
    client.response().expect(200, "/3");
    client.half_close().expect_end();
}

fn requests_may_come_byte_by_byte(driver: Driver) {
    let stage = Stage::on(driver).backend(answers_target()).start();
    let mut client = stage.connect();
    let chunked = "POST /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                   4;extension=1\r\nbody\r\n0\r\nTrailer: t\r\n\r\n";
    client.send_in_single_bytes([&get("/1"), chunked, &post("/3", "body"), &get("/4")].concat());
    for path in ["/1", "/2", "/3", "/4"] {
        client.response().expect(200, path);
    }
    for request in &stage.backend(0).requests()[1..3] {
        assert_eq!(request.body, b"body");
    }
}

fn a_request_may_be_split_anywhere(driver: Driver) {
    let stage = Stage::on(driver).backend(answers_target()).start();
    let mut client = stage.connect();
    let bytes = post("/split", "a body").into_bytes();
    for at in 1..bytes.len() {
        let (first, second) = bytes.split_at(at);
        client.send(first);
        // Another client's exchange passes in between: by then the first part has been read.
        if at % 8 == 0 {
            stage.get("/between").expect(200, "/between");
        }
        client.send(second).response().expect(200, "/split");
    }
}

fn an_empty_line_before_a_request_is_forgiven(driver: Driver) {
    let stage = Stage::on(driver).backend(answers_target()).start();
    let mut client = stage.connect();
    client.send(["\r\n", &post("/1", "body"), "\r\n", &get("/2")].concat());
    client.response().expect(200, "/1");
    client.response().expect(200, "/2");
}

fn many_clients_each_get_their_own_answers(driver: Driver) {
    let stage =
        Stage::on(driver).cores(2).backend(answers_target()).backend(answers_target()).start();
    std::thread::scope(|scope| {
        for client in 0..8 {
            let stage = &stage;
            scope.spawn(move || {
                let mut connection = stage.connect();
                for request in 0..50 {
                    let path = format!("/{client}/{request}");
                    connection.get(&path).expect(200, &path);
                }
            });
        }
    });
    let shares = [stage.backend(0).requests().len(), stage.backend(1).requests().len()];
    assert_eq!(shares.iter().sum::<usize>(), 400);
}
