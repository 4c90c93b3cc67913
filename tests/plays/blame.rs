//! Plays of blame: nothing that a client does or fails to do counts against a backend.
//!
//! In each a client causes many times as many failures at once as would eject a backend, and both
//! backends go on answering. The table of `policy/blame.rs` tests what counts against which side;
//! `failure` and `trials` test that a backend that really hangs is left out.

use std::time::Duration;

use crate::{
    backend::{Script, Visit, plays},
    client::Client,
    pace::ms,
    scripts::ok,
    stage::{Driver, Setting, Stage, eventually, settled},
    wire::Broken,
};

on_both_drivers!(
    ; at a pace:
    a_slow_path_ejects_nobody_who_answers_others,
    a_slow_path_ejects_nobody_whichever_way_it_ends,
    a_client_that_waits_for_a_continue_ejects_nobody,
    a_slow_upload_ejects_nobody,
    a_wait_in_line_ejects_nobody,
    answers_that_are_cut_take_their_backend_out,
    an_answer_that_its_client_ends_ejects_nobody,
);

/// Requests of one client at once: four times as many as eject.
const MANY: usize = 12;

/// What a backend does to `/slow`, whose body it reads.
#[derive(Clone, Copy)]
enum Slow {
    /// Nothing.
    Nothing,
    /// Resets the connection after that long.
    Resets(Duration),
    /// Answers 504 after that long, as a gateway does.
    Gives(Duration),
}

/// Answers everything but `/slow` with its name.
fn answers_others(name: &'static str, slow: Slow) -> Script {
    plays(move |visit| {
        loop {
            let (head, framing) = visit.head()?;
            if !head.start.contains("/slow") {
                visit.rest_of(head, framing)?;
                visit.send(ok(name))?;
                continue;
            }
            match slow {
                Slow::Nothing => return visit.drain(),
                Slow::Resets(wait) => {
                    visit.pause(wait)?;
                    visit.reset();
                    return Ok(());
                }
                Slow::Gives(wait) => {
                    visit.rest_of(head, framing)?;
                    visit.pause(wait)?;
                    visit.send("HTTP/1.1 504 Late\r\nContent-Length: 0\r\n\r\n")?;
                }
            }
        }
    })
}

/// Two backends; three failures in a row eject for good.
fn two(driver: Driver, slow: Slow) -> Setting {
    Stage::on(driver)
        .pool("passive = { max-failures = 3, max-ejected = 1.0, eject = \"60s\" }")
        .backend(answers_others("a", slow))
        .backend(answers_others("b", slow))
}

/// Sends this many times at once, each time on a new connection.
fn many(stage: &Stage, request: &str) -> Vec<Client> {
    let begin = || {
        let mut client = stage.connect();
        client.send(request);
        client
    };
    (0..MANY).map(|_| begin()).collect()
}

/// An honest client asks one request after another until all the others have this status.
#[track_caller]
fn until_all_have(stage: &Stage, others: Vec<Client>, status: u16) {
    let mut honest = stage.connect();
    for mut other in others {
        other.wire().wait_at_most(Duration::from_millis(5));
        let _ = eventually(
            "its answer",
            || {
                assert_eq!(honest.get("/").status, 200);
                other.response_head("GET").map(|head| head.status)
            },
            |answer| *answer == Ok(status),
        );
    }
}

/// Fails unless both answer, also once the health thread has decided.
#[track_caller]
fn expect_both(stage: &Stage) {
    let mut client = stage.connect();
    let mut round = || -> String {
        let mut names: Vec<_> = (0..8).map(|_| client.get("/").text().to_owned()).collect();
        names.sort_unstable();
        names.concat()
    };
    assert_eq!(settled(&mut round), "aaaabbbb");
}

/// Requests for a slow path, without a body, and with one that is held and sent at once.
const SLOW: [&str; 3] = [
    "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nxy",
    "PUT /slow HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nxy\r\n0\r\n\r\n",
];

fn a_slow_path_ejects_nobody_who_answers_others(driver: Driver, slower: u32) {
    for (request, key) in SLOW
        .into_iter()
        .flat_map(|request| ["response", "request"].into_iter().map(move |key| (request, key)))
    {
        let time = ms(Duration::from_millis(300) * slower);
        let stage = two(driver, Slow::Nothing)
            .cores(2)
            .pool(&format!("timeouts = {{ {key} = {time} }}"))
            .start();
        until_all_have(&stage, many(&stage, request), 504);
        expect_both(&stage);
    }
}

fn a_slow_path_ejects_nobody_whichever_way_it_ends(driver: Driver, slower: u32) {
    let time = Duration::from_millis(1_300) * slower;
    for (slow, status) in [(Slow::Resets(time), 502), (Slow::Gives(time), 504)] {
        let stage = two(driver, slow).start();
        until_all_have(&stage, many(&stage, SLOW[0]), status);
        expect_both(&stage);
    }
}

/// The backend never sent a 100; a client need not wait for that for ever (RFC 9110 §10.1.1), but a
/// hostile one does.
fn a_client_that_waits_for_a_continue_ejects_nobody(driver: Driver, slower: u32) {
    let time = ms(Duration::from_millis(300) * slower);
    let stage = two(driver, Slow::Nothing)
        .listener(&format!("timeouts = {{ client-body = {time} }}"))
        .start();
    let request =
        "POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    for mut client in many(&stage, request) {
        client.response().expect_fault(408, "request_timeout");
    }
    expect_both(&stage);
}

/// The client's time or that of the request ends while it still sends; the time of a try has not
/// begun.
fn a_slow_upload_ejects_nobody(driver: Driver, slower: u32) {
    let (short, long) = [300, 900].map(|time| ms(Duration::from_millis(time) * slower)).into();
    let request = "PUT /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nx";
    for (pool, status, code) in [
        (format!("retry = {{ per-try = {short} }}"), 408, "request_timeout"),
        (format!("timeouts = {{ request = {short} }}"), 504, "deadline"),
    ] {
        let listener = format!("timeouts = {{ client-body = {long} }}");
        let stage = two(driver, Slow::Nothing).listener(&listener).pool(&pool).start();
        for mut client in many(&stage, request) {
            client.response().expect_fault(status, code);
        }
        expect_both(&stage);
    }
}

/// The time of a request has nearly passed when its turn comes.
fn a_wait_in_line_ejects_nobody(driver: Driver, slower: u32) {
    let time = ms(Duration::from_millis(600) * slower);
    let busy = Duration::from_millis(500) * slower;
    let stage = Stage::on(driver)
        .pool("passive = { max-failures = 1, max-ejected = 1.0, eject = \"60s\" }")
        .pool(&format!("timeouts = {{ request = {time} }}"))
        .pool("queue = { size = 20, timeout = \"10s\" }")
        .each("max-in-flight = 2")
        .backend(answers_after(busy, "a"))
        .backend(answers_after(busy, "b"))
        .start();
    let clients = many(&stage, "GET /busy HTTP/1.1\r\nHost: a\r\n\r\n");
    let statuses: Vec<u16> = clients.into_iter().map(|mut one| one.response().status).collect();
    assert!(statuses.contains(&504) && statuses.contains(&200), "{statuses:?}");
    expect_both(&stage);
}

/// Answers `/busy` after a while, all else at once.
fn answers_after(wait: Duration, name: &'static str) -> Script {
    plays(move |visit| {
        loop {
            if visit.request()?.target() == "/busy" {
                visit.pause(wait)?;
            }
            visit.send(ok(name))?;
        }
    })
}

/// How an answer continues and ends; all begin well.
#[derive(Clone, Copy)]
enum End {
    Closes,
    Resets,
    Stops,
}

/// Answers everything with the beginning of a long answer, and ends like that.
fn cuts(head: &'static str, bytes: usize, end: End) -> Script {
    plays(move |visit| {
        visit.request()?;
        visit.send(head)?;
        visit.send(vec![b'a'; bytes])?;
        match end {
            End::Closes => return Ok(()),
            // The reset would overtake what the proxy has not read yet.
            End::Resets => {
                visit.pause(Duration::from_millis(50))?;
                visit.reset();
            }
            End::Stops => visit.drain()?,
        }
        Ok(())
    })
}

/// Each began with 200 and used to count as a success for that.
fn answers_that_are_cut_take_their_backend_out(driver: Driver, slower: u32) {
    let long = "HTTP/1.1 200 OK\r\nContent-Length: 500000\r\n\r\n";
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n";
    for (head, bytes, end) in [
        (long, 3, End::Closes),
        (long, 400_000, End::Closes),
        (chunked, 3, End::Resets),
        (chunked, 3, End::Stops),
        (long, 3, End::Stops),
    ] {
        let time = ms(Duration::from_millis(300) * slower);
        let stage = Stage::on(driver)
            .pool("passive = { max-failures = 3, eject = \"60s\" }")
            .pool(&format!("timeouts = {{ body = {time} }}"))
            .backend(cuts(head, bytes, end))
            .backend(answers_others("b", Slow::Nothing))
            .start();
        let round = || -> Vec<bool> {
            let whole = |_| {
                let mut client = stage.connect();
                client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
                client.try_response().is_ok()
            };
            (0..6).map(whole).collect()
        };
        eventually("it is left out", round, |whole| whole.iter().all(|whole| *whole));
    }
}

/// Sends a long answer while the client takes it, and resets once it has not for this long.
fn loses_patience(visit: &mut Visit, wait: Duration) -> Result<(), Broken> {
    visit.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")?;
    let stream = visit.wire().stream().try_clone().unwrap();
    stream.set_write_timeout(Some(wait)).unwrap();
    while std::io::Write::write_all(&mut &stream, &[b'a'; 65_536]).is_ok() {}
    drop(stream);
    visit.reset();
    Ok(())
}

/// The client leaves in the middle, or takes nothing for so long that the backend loses patience,
/// or the whole exchange takes too long.
fn an_answer_that_its_client_ends_ejects_nobody(driver: Driver, slower: u32) {
    let wait = Duration::from_millis(1_500) * slower;
    let two = |pool: &str| {
        let backend = |name: &'static str| {
            plays(move |visit| {
                loop {
                    if visit.request()?.target() == "/long" {
                        return loses_patience(visit, wait);
                    }
                    visit.send(ok(name))?;
                }
            })
        };
        Stage::on(driver)
            .pool("passive = { max-failures = 3, max-ejected = 1.0, eject = \"60s\" }")
            .pool(pool)
            .backend(backend("a"))
            .backend(backend("b"))
            .start()
    };
    let ask = |stage: &Stage| {
        let mut client = Client::connect_with_small_buffer(stage.address(), 4_096);
        client.send("GET /long HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.response_head("GET").unwrap().status, 200);
        client
    };
    let stage = two("");
    (0..MANY).map(|_| ask(&stage)).collect::<Vec<_>>().into_iter().for_each(Client::reset);
    stage.expect_count("requests_in_flight", 0);
    expect_both(&stage);
    let held: Vec<_> = (0..MANY).map(|_| ask(&stage)).collect();
    std::thread::sleep(wait);
    // A client that reads now finds what is left, and then the end.
    for mut client in held {
        while matches!(client.wire().some(), Ok(some) if !some.is_empty()) {}
    }
    stage.expect_count("requests_in_flight", 0);
    expect_both(&stage);
    let stage = two(&format!("timeouts = {{ request = {} }}", ms(wait / 5)));
    let held: Vec<_> = (0..MANY).map(|_| ask(&stage)).collect();
    stage.expect_count("requests_in_flight", 0);
    drop(held);
    expect_both(&stage);
}
