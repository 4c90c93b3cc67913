//! Plays of retries: with their bodies, in time, and what the client gets if no backend does
//! better.
//!
//! The second backend reads as strictly as the first: it must get a whole request.

use std::time::{Duration, Instant};

use crate::{
    backend::{Script, plays},
    client::Client,
    pace::ms,
    scripts::{answers, answers_each, delays, ok, sends, sends_and_closes},
    stage::{Driver, Setting, Stage, expect_about},
};

on_both_drivers!(
    over tls too:
    an_answer_that_was_declined_is_better_than_a_fault,
    a_body_that_came_in_pieces_is_sent_again,
    a_body_that_is_still_coming_is_sent_again,
    a_body_is_sent_again_as_often_as_it_takes,
    a_body_that_outgrows_its_bound_is_not_sent_again,
    a_post_is_not_sent_again_however_small,
    refusals_are_counted_by_reason,
    retries_keep_to_their_budget,
    a_body_that_is_asked_for_again_is_sent_again,
    ; at a pace:
    a_try_that_takes_too_long_makes_room_for_another,
);

over_http_2!(
    an_answer_that_was_declined_is_better_than_a_fault,
    a_body_that_came_in_pieces_is_sent_again,
    a_body_that_is_still_coming_is_sent_again,
    a_body_is_sent_again_as_often_as_it_takes,
    a_body_that_outgrows_its_bound_is_not_sent_again,
    a_post_is_not_sent_again_however_small,
    retries_keep_to_their_budget,
    a_body_that_is_asked_for_again_is_sent_again,
    ; behind:
    refusals_are_counted_by_reason,
);

const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy";

fn an_answer_that_was_declined_is_better_than_a_fault(driver: Driver) {
    let stage = Stage::on(driver)
        .pool("retry = { attempts = 2, on = [\"connect-failure\", \"503\"] }")
        .pool("passive = { max-failures = 0 }")
        .backend(sends(BUSY))
        .backend(Script::Refuses)
        .start();
    let mut client = stage.connect();
    client.get("/").expect(503, "busy");
    assert_eq!(stage.count("retries_total"), 1, "whichever was asked first");
    for _ in 0..3 {
        client.get("/").expect(503, "busy");
    }
    assert_eq!(stage.backend(0).requests().len(), 4);
}

/// Answers with the body it received.
fn echoes_bodies() -> Script {
    answers_each(|request| ok(String::from_utf8_lossy(&request.body)).into_bytes())
}

/// Reads this many bytes of a request's body and closes.
fn reads_some_and_closes() -> Script {
    plays(|visit| {
        visit.head()?;
        Ok(())
    })
}

/// The first backends of the stage, so many, answer nobody: each time that one was asked, another
/// was asked after it.
#[track_caller]
fn expect_retries_of(stage: &Stage, failing: usize) {
    let visits: Vec<usize> = (0..failing).map(|index| stage.backend(index).visits()).collect();
    assert!(visits.iter().all(|count| *count > 0), "all had a turn: {visits:?}");
    assert_eq!(stage.count("retries_total"), visits.iter().sum::<usize>() as u64);
}

/// A stage whose first backend does this, and whose second echoes.
fn before_an_echo(driver: Driver, first: Script) -> Setting {
    Stage::on(driver).pool("passive = { max-failures = 0 }").backend(first).backend(echoes_bodies())
}

const PIECES: [&str; 3] = ["one ", "two ", "three"];

/// A PUT that comes in pieces, its body of known length or in chunks.
fn put_in_pieces(client: &mut Client, chunked: bool, between: impl Fn()) -> &mut Client {
    let whole: usize = PIECES.iter().map(|piece| piece.len()).sum();
    if chunked {
        client.send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    } else {
        client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {whole}\r\n\r\n"));
    }
    for piece in PIECES {
        between();
        if chunked {
            client.send(format!("{:x}\r\n{piece}\r\n", piece.len()));
        } else {
            client.send(piece);
        }
    }
    if chunked {
        client.send("0\r\n\r\n");
    }
    client
}

fn a_body_that_came_in_pieces_is_sent_again(driver: Driver) {
    for chunked in [false, true] {
        let stage = before_an_echo(driver, sends_and_closes("")).start();
        let mut client = stage.connect();
        for _ in 0..4 {
            let pause = || std::thread::sleep(Duration::from_millis(5));
            put_in_pieces(&mut client, chunked, pause).response().expect(200, "one two three");
        }
        expect_retries_of(&stage, 1);
    }
}

fn a_body_that_is_still_coming_is_sent_again(driver: Driver) {
    for chunked in [false, true] {
        let stage = before_an_echo(driver, reads_some_and_closes()).start();
        for _ in 0..2 {
            let mut client = stage.connect();
            // The rest of the body comes when the first backend is long gone.
            let gone = || std::thread::sleep(Duration::from_millis(30));
            put_in_pieces(&mut client, chunked, gone).response().expect(200, "one two three");
        }
        expect_retries_of(&stage, 1);
    }
}

fn a_body_is_sent_again_as_often_as_it_takes(driver: Driver) {
    for chunked in [false, true] {
        let stage = Stage::on(driver)
            .pool("retry = { attempts = 3 }\npassive = { max-failures = 0 }")
            .backend(reads_some_and_closes())
            .backend(sends_and_closes(""))
            .backend(echoes_bodies())
            .start();
        for _ in 0..3 {
            let mut client = stage.connect();
            let pause = || std::thread::sleep(Duration::from_millis(10));
            put_in_pieces(&mut client, chunked, pause).response().expect(200, "one two three");
        }
        expect_retries_of(&stage, 2);
    }
}

fn a_body_that_outgrows_its_bound_is_not_sent_again(driver: Driver) {
    let stage = Stage::on(driver)
        .pool("retry = { body = \"8B\" }\npassive = { max-failures = 0 }")
        .backend(sends_and_closes(""))
        .backend(sends_and_closes(""))
        .start();
    let mut client = stage.connect();
    let pause = || std::thread::sleep(Duration::from_millis(5));
    put_in_pieces(&mut client, false, pause).response().expect_fault(502, "backend_reset");
    assert_eq!(stage.count("retries_total"), 0);
    stage.expect_count("retries_refused_total{reason=\"body_gone\"}", 1);
}

fn a_post_is_not_sent_again_however_small(driver: Driver) {
    let stage = before_an_echo(driver, sends_and_closes("")).start();
    let mut client = stage.connect();
    let mut faults = 0;
    for _ in 0..4 {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nb");
        std::thread::sleep(Duration::from_millis(5));
        let response = client.send("ody").response();
        match response.status {
            200 => response.expect(200, "body"),
            _ => response.expect_fault(502, "backend_reset"),
        }
        faults += usize::from(response.status != 200);
    }
    let asked = [0, 1].map(|index| stage.backend(index).requests().len());
    assert_eq!((asked, faults), ([2, 2], 2), "each was sent once");
    assert_eq!(stage.count("retries_total"), 0);
}

fn a_try_that_takes_too_long_makes_room_for_another(driver: Driver, slower: u32) {
    let per_try = Duration::from_millis(300) * slower;
    let retry =
        format!("retry = {{ attempts = 2, on = [\"timeout\"], per-try = {} }}", ms(per_try));
    let stage = Stage::on(driver)
        .pool(&retry)
        .backend(delays(Duration::from_secs(30), "late"))
        .backend(answers("b"))
        .start();
    let mut client = stage.connect();
    let mut waits = [0, 1].map(|_| client.waits(|client| client.get("/").expect(200, "b")));
    // At least one of them reached the slow backend first.
    waits.sort();
    expect_about(waits[1], per_try);
    expect_retries_of(&stage, 1);
}

fn refusals_are_counted_by_reason(driver: Driver) {
    let stage = Stage::on(driver)
        .pool("retry = { attempts = 2, on = [\"connect-failure\"] }")
        .backend(sends_and_closes(""))
        .start();
    stage.get("/").expect_fault(502, "backend_reset");
    stage.expect_count("retries_refused_total{reason=\"not_named\"}", 1);
    let mut client = stage.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
    client.response().expect_fault(502, "backend_reset");
    stage.expect_count("retries_refused_total{reason=\"not_idempotent\"}", 1);
}

fn retries_keep_to_their_budget(driver: Driver) {
    // One a second, of the last ten: ten at once, and one more for each second that this takes.
    let since = Instant::now();
    let stage = Stage::on(driver)
        .pool("retry = { budget = { ratio = 0.0, per-second = 1 } }")
        .pool("passive = { max-failures = 0 }")
        .backend(sends_and_closes(""))
        .backend(sends_and_closes(""))
        .start();
    for _ in 0..20 {
        stage.get("/").expect_fault(502, "backend_reset");
    }
    let retries = stage.count("retries_total");
    let at_most = 11 + since.elapsed().as_secs();
    assert!((10..=at_most).contains(&retries), "{retries}");
    stage.expect_count("retries_refused_total{reason=\"budget_spent\"}", 20 - retries);
}

/// A retried status used to come after the body had been given up: the second backend got a length
/// without a body, and would have taken the next request for it.
fn a_body_that_is_asked_for_again_is_sent_again(driver: Driver) {
    let stage = Stage::on(driver)
        .pool("retry = { attempts = 2, on = [\"503\"] }\ntimeouts = { response = \"2s\" }")
        .backend(sends("HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"))
        .backend(answers_each(|request| ok(String::from_utf8_lossy(&request.body)).into_bytes()))
        .start();
    let mut client = stage.connect();
    for _ in 0..4 {
        client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        client.response().expect(200, "hello");
    }
}
