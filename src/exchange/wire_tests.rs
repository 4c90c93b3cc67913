//! Tests of exchanges over scripted streams: each split at every byte and closed at every byte, as
//! tables.
//!
//! No socket, no kernel, no real time: a result holds for every order that a script can express,
//! not just for those that a machine happens to run (`testkit::play`).

use std::{sync::Arc, time::Duration};

use crate::net::stream::script::{Closed, Step, says};
use crate::shared::certs::Challenges;
use crate::testkit::scene::{Scene, after_a_head, client, dechunked, pieces};

pub(super) const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
pub(super) const PUT: &str = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
const CHUNKED: &str = "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
     3\r\nbod\r\n1;x\r\ny\r\n0\r\nA: b\r\n\r\n";

pub(super) const OK: &str = "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 4\r\n\r\ngood";
pub(super) const OK_CHUNKED: &str = "HTTP/1.1 200 OK\r\nDate: x\r\n\
     Transfer-Encoding: chunked\r\n\r\n3\r\ngoo\r\n1;x\r\nd\r\n0\r\nA: b\r\n\r\n";
const OK_UNTIL_CLOSE: &str = "HTTP/1.1 200 OK\r\nDate: x\r\n\r\ngood";
pub(super) const TWO: &str = "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 3\r\n\r\ntwo";

#[test]
fn an_answer_is_the_same_in_whatever_pieces_it_comes() {
    for (answer, told) in
        [(OK, "200 good"), (OK_CHUNKED, "200 good (A: b)"), (OK_UNTIL_CLOSE, "200 good")]
    {
        for pieces in pieces(answer) {
            let closes = (answer == OK_UNTIL_CLOSE).then_some(Step::Ends);
            let seen = Scene {
                client: client(vec![says(GET), Step::HearsOf("d")]),
                backends: vec![after_a_head(pieces.iter().cloned().chain(closes).collect())],
                ..Scene::default()
            }
            .play();
            seen.check();
            assert_eq!(seen.told(), told, "{pieces:?}");
            assert_eq!(seen.backends[0].is_kept(), answer != OK_UNTIL_CLOSE, "{pieces:?}");
        }
    }
}

#[test]
fn a_request_is_the_same_in_whatever_pieces_it_comes() {
    for request in [GET, POST, PUT, CHUNKED] {
        let mut heard = Vec::new();
        for pieces in pieces(request) {
            let last = if request == GET { "\r\n\r\n" } else { "y" };
            let backend = [Step::HearsOf("\r\n\r\n"), Step::HearsOf(last)];
            let whole = (request == CHUNKED).then_some(Step::HearsOf("0\r\nA: b\r\n\r\n"));
            let backend = backend.into_iter().chain(whole).chain([says(OK)]).collect();
            let seen =
                Scene { client: client(pieces), backends: vec![backend], ..Scene::default() };
            let seen = seen.play();
            seen.check();
            assert_eq!(seen.told(), "200 good", "{seen:#?}");
            assert!(seen.backends[0].is_kept());
            let (head, body) = seen.backends[0].heard.split_once("\r\n\r\n").unwrap();
            // Each request has ids of its own.
            let (head, _) = head.split_once("x-request-id: ").unwrap();
            let body = match request {
                CHUNKED => dechunked(body).0.unwrap(),
                _ => body.to_owned(),
            };
            heard.push(format!("{head} {body}"));
        }
        heard.dedup();
        assert_eq!(heard.len(), 1, "{heard:#?}");
    }
}

#[test]
fn an_answer_that_is_cut_is_never_whole() {
    for (answer, whole) in
        [(OK, "200 good"), (OK_CHUNKED, "200 good (A: b)"), (OK_UNTIL_CLOSE, "200 good")]
    {
        let head = answer.find("\r\n\r\n").unwrap() + 4;
        for cut in 0..=answer.len() {
            for end in [Step::Ends, Step::Resets] {
                let first = after_a_head(vec![says(&answer[..cut]), end.clone()]);
                let seen = Scene {
                    client: client(vec![says(GET)]),
                    backends: vec![first, after_a_head(vec![says(TWO)])],
                    ..Scene::default()
                }
                .play();
                seen.check();
                let ends_by_close = answer == OK_UNTIL_CLOSE && end == Step::Ends;
                let expected = match cut {
                    // Not a byte of an answer: another backend is asked.
                    0 => "200 two",
                    _ if cut < head => "502 backend_protocol",
                    _ if cut == answer.len() && (answer != OK_UNTIL_CLOSE || ends_by_close) => {
                        whole
                    }
                    _ if ends_by_close => "200 ",
                    _ => "200 cut",
                };
                let told = seen.told();
                let cut_well =
                    ends_by_close && cut > head && told == format!("200 {}", &answer[head..cut]);
                assert!(told == expected || cut_well, "{cut} {end:?}: {told}, not {expected}");
                assert_eq!(seen.count("retries"), u64::from(cut == 0), "{cut} {end:?}");
                assert_eq!(seen.count("incomplete"), u64::from(told == "200 cut"), "{cut}");
                assert_eq!(seen.asked(), [1, usize::from(cut == 0)], "{cut} {end:?}");
            }
        }
    }
}

/// A kept connection that the backend closes: while it is idle, or when it has received the next
/// request.
#[test]
fn a_stale_connection_is_hidden_where_the_request_can_be_repeated() {
    let put_in_pieces = ["PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo", "dy"];
    for (request, pool, heard_and_closed) in [
        (&[GET][..], "", "200 two"),
        (&[PUT], "", "200 two"),
        (&[POST], "", "502 backend_reset"),
        (&put_in_pieces, "", "200 two"),
        (&put_in_pieces, "retry = { body = \"1B\" }", "502 backend_reset"),
        (&put_in_pieces, "retry = { attempts = 1 }", "502 backend_reset"),
        (&[GET], "retry = { attempts = 1 }", "200 two"),
    ] {
        for hears in [false, true] {
            let again = request.iter().flat_map(|piece| [says(piece), Step::Pauses]);
            let again = again.collect::<Vec<_>>();
            let seen = Scene {
                client: client([vec![says(GET), Step::HearsOf("good")], again].concat()),
                backends: vec![
                    after_a_head(match hears {
                        false => vec![says(OK), Step::Ends],
                        // Its head ends with the second empty line that it receives.
                        true => vec![says(OK), Step::HearsTwice("\r\n\r\n"), Step::Ends],
                    }),
                    after_a_head(vec![says(TWO)]),
                ],
                alone: true,
                pool,
                ..Scene::default()
            }
            .play();
            seen.check();
            let expected = if hears { heard_and_closed } else { "200 two" };
            let told = seen.told();
            assert_eq!(told, format!("200 good, {expected}"), "{request:?} {pool} {hears}");
            assert_eq!(seen.count("stale"), u64::from(hears), "{request:?} {pool} {hears}");
            assert_eq!(seen.count("retries"), 0, "it counts as no try");
            if expected == "200 two" && request[0].starts_with("PUT") {
                assert!(seen.backends[1].heard.ends_with("\r\n\r\nbody"), "{seen:#?}");
            }
        }
    }
}

#[test]
fn a_post_whose_body_comes_late_is_asked_once() {
    let pieces = ["POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nb", "ody"];
    for late in [false, true] {
        let pause = late.then_some(Step::Pauses);
        let client =
            client([says(pieces[0])].into_iter().chain(pause).chain([says(pieces[1])]).collect());
        let backends = vec![after_a_head(vec![Step::Ends]), after_a_head(vec![says(TWO)])];
        let seen = Scene { client, backends, ..Scene::default() }.play();
        seen.check();
        assert_eq!(seen.told(), "502 backend_reset");
        assert_eq!((seen.count("retries"), seen.asked()), (0, vec![1, 0]));
    }
}

/// A backend that closes at each byte that it receives: another gets all of the body.
#[test]
fn a_body_is_sent_again_wherever_its_backend_closed() {
    let fixed = ["PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n", "bo", "dy"];
    let chunked = [
        "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "2\r\nbo\r\n",
        "2\r\ndy\r\n0\r\n\r\n",
    ];
    for request in [fixed, chunked] {
        let scene = |first: Vec<Step>| Scene {
            client: client(request.iter().flat_map(|it| [says(it), Step::Pauses]).collect()),
            backends: vec![first, vec![Step::HearsOf("dy"), says(TWO)]],
            pool: "passive = { max-failures = 0 }",
            ..Scene::default()
        };
        let whole = scene(vec![Step::HearsOf("dy"), says(OK)]).play();
        assert_eq!(whole.told(), "200 good");
        let heard = &whole.backends[0].heard;
        for hears in 1..=heard.len() {
            for end in [Step::Ends, Step::Resets] {
                let seen = scene(vec![Step::Hears(hears), end]).play();
                seen.check();
                assert_eq!(seen.told(), "200 two", "{hears}: {seen:#?}");
                assert_eq!((seen.count("retries"), seen.asked()), (1, vec![1, 1]), "{hears}");
                let (_, body) = seen.backends[1].heard.split_once("\r\n\r\n").unwrap();
                let body = match request == chunked {
                    true => dechunked(body).0,
                    false => Some(body.to_owned()),
                };
                assert_eq!(body.as_deref(), Some("body"), "{hears}: {seen:#?}");
            }
        }
    }
}

#[test]
fn a_client_that_leaves_in_the_middle_of_its_request_costs_nothing_more() {
    for request in [GET, PUT, CHUNKED] {
        let head = request.find("\r\n\r\n").unwrap() + 4;
        for cut in 0..request.len() {
            for end in [Step::Ends, Step::Resets] {
                let seen = Scene {
                    client: vec![says(&request[..cut]), Step::Pauses, end.clone()],
                    backends: vec![vec![]],
                    ..Scene::default()
                }
                .play();
                seen.check();
                assert_eq!(seen.told(), "", "{cut} {end:?}: {seen:#?}");
                assert_eq!(seen.asked(), [usize::from(cut >= head)], "{cut} {end:?}");
                assert_eq!(seen.count("aborts"), u64::from(cut > 0), "{cut} {end:?}");
                assert!(!seen.backends[0].is_kept(), "{cut} {end:?}");
            }
        }
    }
}

#[test]
fn a_client_that_leaves_while_it_waits_is_found_out_within_a_second() {
    for end in [Step::Ends, Step::Resets] {
        let backends = vec![after_a_head(vec![])];
        let seen = Scene { client: vec![says(GET), end], backends, ..Scene::default() }.play();
        seen.check();
        assert_eq!((seen.told().as_str(), seen.count("aborts")), ("", 1));
        assert!(seen.took <= Duration::from_millis(1_250), "{:?}", seen.took);
    }
}

/// A backend that stops at each byte of its answer.
#[test]
fn a_backend_that_stops_is_late_wherever_it_stops() {
    let timeouts = "timeouts = { response = \"2s\", body = \"3s\" }\nretry = { attempts = 1 }";
    for answer in [OK, OK_CHUNKED] {
        let head = answer.find("\r\n\r\n").unwrap() + 4;
        for cut in 0..answer.len() {
            let seen = Scene {
                client: client(vec![says(GET), Step::HearsOf(" 504 ")]),
                backends: vec![after_a_head(vec![says(&answer[..cut])])],
                pool: timeouts,
                ..Scene::default()
            }
            .play();
            seen.check();
            let (told, seconds) =
                if cut < head { ("504 response_timeout", 2) } else { ("200 cut", 3) };
            assert_eq!(seen.told(), told, "{cut}: {seen:#?}");
            let late = Duration::from_millis(500);
            let after = seen.took.checked_sub(Duration::from_secs(seconds));
            assert!(after.is_some_and(|after| after <= late), "{cut}: {:?}", seen.took);
        }
    }
}

#[test]
fn interim_answers_are_relayed_in_whatever_pieces_they_come() {
    let all = format!("HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 102 P\r\n\r\n{OK}");
    for pieces in pieces(&all) {
        let backends = vec![after_a_head(pieces.clone())];
        let seen = Scene { client: client(vec![says(GET)]), backends, ..Scene::default() }.play();
        seen.check();
        assert_eq!(seen.told(), "103 , 102 , 200 good", "{pieces:?}");
        assert!(seen.backends[0].is_kept());
    }
}

#[test]
fn requests_in_one_piece_are_answered_in_order() {
    let second = "GET /2 HTTP/1.1\r\nHost: a\r\n\r\n";
    for first in [GET, PUT, CHUNKED] {
        for pieces in pieces(&format!("{first}{second}")) {
            let last = if first == GET { "\r\n\r\n" } else { "y" };
            let seen = Scene {
                client: client(pieces.clone()),
                backends: vec![vec![
                    Step::HearsOf("\r\n\r\n"),
                    Step::HearsOf(last),
                    Step::Pauses,
                    says(OK),
                    Step::HearsOf("/2 HTTP/1.1\r\n"),
                    says(TWO),
                ]],
                ..Scene::default()
            }
            .play();
            seen.check();
            assert_eq!(seen.told(), "200 good, 200 two", "{pieces:?} {seen:#?}");
        }
    }
}

#[test]
fn a_head_leaves_with_the_first_of_its_body_in_one_write() {
    for (request, answer) in [(GET, OK), (PUT, OK), (GET, OK_CHUNKED), (PUT, OK_CHUNKED)] {
        let seen = Scene {
            client: client(vec![says(request), Step::HearsOf("d")]),
            backends: vec![after_a_head(vec![says(answer)])],
            ..Scene::default()
        };
        let seen = seen.play();
        assert_eq!(seen.backends[0].writes.len(), 1, "{seen:#?}");
        // Trailers follow their body, separately.
        assert_eq!(seen.writes.len(), if answer == OK { 1 } else { 2 }, "{seen:#?}");
    }
}

#[test]
fn an_answer_that_was_declined_is_better_than_none() {
    let busy = "HTTP/1.1 503 Busy\r\nDate: x\r\nContent-Length: 4\r\n\r\nbusy";
    let seen = Scene {
        client: client(vec![says(GET)]),
        // The next connect is refused.
        backends: vec![after_a_head(vec![says(busy)])],
        pool: "retry = { attempts = 2, on = [\"connect-failure\", \"503\"] }\n\
               passive = { max-failures = 0 }",
        ..Scene::default()
    };
    let seen = seen.play();
    seen.check();
    assert_eq!((seen.told().as_str(), seen.count("retries")), ("503 busy", 1));
}

#[test]
fn a_try_that_takes_too_long_makes_room_for_another() {
    let seen = Scene {
        client: client(vec![says(GET), Step::HearsOf("two")]),
        backends: vec![after_a_head(vec![]), after_a_head(vec![says(TWO)])],
        pool: "retry = { attempts = 2, on = [\"timeout\"], per-try = \"1s\" }",
        ..Scene::default()
    };
    let seen = seen.play();
    seen.check();
    assert_eq!((seen.told().as_str(), seen.count("retries")), ("200 two", 1));
}

#[test]
fn trailers_are_bounded() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
    for (trailers, told) in [
        ("X: y\r\n".repeat(200), "431 head_too_large"),
        (format!("X: {}\r\n", "y".repeat(60_000)), "431 head_too_large"),
    ] {
        let said = says(format!("{head}{trailers}\r\n"));
        let backends = vec![vec![]];
        let seen = Scene { client: client(vec![said]), backends, ..Scene::default() }.play();
        seen.check();
        assert_eq!(seen.told(), told);
    }
}

#[test]
fn an_answer_is_the_same_in_whatever_pieces_it_is_taken() {
    for (answer, told) in [(OK, "200 good"), (OK_CHUNKED, "200 good (A: b)")] {
        for takes in 0..answer.len() {
            let slowly = [Step::Pauses, Step::Takes(1), Step::Pauses, Step::Takes(1_000)];
            let seen = Scene {
                client: client([&[Step::Takes(takes), says(GET)], &slowly[..]].concat()),
                backends: vec![after_a_head(vec![says(answer)])],
                ..Scene::default()
            };
            let seen = seen.play();
            seen.check();
            assert_eq!(seen.told(), told, "{takes}: {seen:#?}");
            assert!(seen.backends[0].is_kept(), "{takes}");
        }
    }
}

#[test]
fn a_client_that_takes_no_more_is_cut_in_time() {
    for answer in [OK, OK_CHUNKED] {
        for takes in 0..answer.len() - 10 {
            let seen = Scene {
                client: vec![Step::Takes(takes), says(GET)],
                backends: vec![after_a_head(vec![says(answer)])],
                listener: "timeouts = { client-write = \"1s\" }",
                ..Scene::default()
            };
            let seen = seen.play();
            seen.check();
            assert_eq!(seen.client.len(), takes, "{seen:#?}");
            assert_eq!(seen.closed, Closed::Both, "{takes}: {seen:#?}");
            assert!(seen.took <= Duration::from_millis(1_500), "{takes}: {:?}", seen.took);
            assert!(!seen.backends[0].is_kept(), "{takes}");
        }
    }
}

/// A client that stops at each byte of its request's body.
#[test]
fn a_client_that_stops_is_told_so_wherever_it_stops() {
    for request in [PUT, CHUNKED] {
        let head = request.find("\r\n\r\n").unwrap() + 4;
        for cut in head..request.len() {
            let seen = Scene {
                client: vec![says(&request[..cut])],
                backends: vec![vec![]],
                listener: "timeouts = { client-body = \"1s\" }",
                ..Scene::default()
            };
            let seen = seen.play();
            seen.check();
            assert_eq!(seen.told(), "408 request_timeout", "{cut}: {seen:#?}");
            // Then it lingers: five seconds for a client that sends nothing more.
            let late = seen.took.checked_sub(Duration::from_secs(6));
            assert!(late.is_some_and(|late| late <= Duration::from_millis(500)), "{cut}");
            assert_eq!((seen.asked(), seen.count("retries")), (vec![1], 0), "{cut}");
            assert!(!seen.backends[0].is_kept(), "{cut}");
        }
    }
}

/// A refusal is the same in any pieces, and no backend is asked.
#[test]
fn what_is_no_request_is_refused_in_whatever_pieces_it_comes() {
    for (request, told) in [
        ("GET / HTTP/1.1\r\n\r\n", "400 bad_request"),
        ("GET / HTTP/2.5\r\nHost: a\r\n\r\n", "505 version_refused"),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", "405 method_refused"),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "501 not_implemented",
        ),
    ] {
        for pieces in pieces(request) {
            let seen = Scene { client: client(pieces.clone()), ..Scene::default() }.play();
            seen.check();
            assert_eq!(seen.told(), told, "{pieces:?} {seen:#?}");
            assert_eq!(seen.writes.len(), 1, "{seen:#?}");
        }
    }
}

/// Each pause of a peer is a tenth of a second: none of it was spent here.
#[test]
fn the_time_of_a_request_is_told_by_what_was_waited_for() {
    let (head, rest) = OK.split_at(10);
    let (most, last) = OK.split_at(OK.len() - 1);
    let at_once = || vec![says(GET)];
    let paused = |first, second| after_a_head(vec![says(first), Step::Pauses, says(second)]);
    let takes_late = vec![Step::Takes(9), says(GET), Step::Pauses, Step::Takes(1_000)];
    let sends_late = vec![says(&PUT[..PUT.len() - 1]), Step::Pauses, says("y")];
    let hears_all = vec![Step::HearsOf("body"), says(OK)];
    let (line, fields) = GET.split_at(9);
    let asks_late = vec![says(line), Step::Pauses, says(fields)];
    let answers = || after_a_head(vec![says(OK)]);
    // All, here, to be accepted, for the handshake, the head, in the queue, for a connection that
    // is kept, to connect, to the first byte, from there on, and for the client.
    for (client, backend, expected) in [
        (at_once(), answers(), [0; 11]),
        (asks_late, answers(), [0, 0, 0, 0, 100, 0, 0, 0, 0, 0, 0]),
        (
            at_once(),
            after_a_head(vec![Step::Pauses, says(OK)]),
            [100, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0],
        ),
        (at_once(), paused(head, rest), [100, 0, 0, 0, 0, 0, 0, 0, 0, 100, 0]),
        (at_once(), paused(most, last), [100, 0, 0, 0, 0, 0, 0, 0, 0, 100, 0]),
        (takes_late, answers(), [100, 0, 0, 0, 0, 0, 0, 0, 0, 100, 100]),
        (sends_late, hears_all, [100, 0, 0, 0, 0, 0, 0, 0, 100, 0, 0]),
    ] {
        let seen = Scene { client, backends: vec![backend], ..Scene::default() }.play();
        assert_eq!(seen.times, expected, "{seen:#?}");
    }
}

/// RFC 8555 §8.3: an authority asks in plain HTTP, and gets its answer whatever the routes say.
#[test]
fn what_an_authority_looks_for_is_there_before_any_route() {
    let challenge = |method: &str, token: &str| {
        format!("{method} /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: a\r\n\r\n")
    };
    for (request, told, asks_a_backend) in [
        (challenge("GET", "token"), "200 token.key", false),
        (challenge("GET", "other"), "200 good", true),
        (challenge("POST", "token"), "200 good", true),
        ("GET /token HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "200 good", true),
    ] {
        let mut challenges = Challenges::default();
        challenges.answers.insert((*b"token").into(), (*b"token.key").into());
        let seen = Scene {
            client: client(vec![says(&request), Step::HearsOf("\r\n\r\n")]),
            backends: vec![after_a_head(vec![says(OK)])],
            challenges: Some(Arc::new(challenges)),
            ..Scene::default()
        }
        .play();
        seen.check();
        assert_eq!(seen.told(), told, "{request}");
        assert_eq!(seen.backends[0].was_asked, asks_a_backend, "{request}");
    }
}

/// What cannot be sent again (a POST, a body in chunks that may be gone) goes on a connection that
/// was in use a moment ago, or else on a new one.
#[test]
fn what_cannot_be_sent_again_prefers_a_young_connection() {
    let twice = |pieces: &[&str], pauses| {
        let pieces = pieces.iter().map(says);
        let again = std::iter::repeat_n(Step::Pauses, pauses).chain(pieces.clone());
        client(pieces.chain([Step::HearsOf("good")]).chain(again).collect())
    };
    for request in [&[POST][..], &[&CHUNKED[..CHUNKED.len() - 9], &CHUNKED[CHUNKED.len() - 9..]]] {
        for (pauses, asked) in [(1, [2, 0]), (8, [2, 0]), (13, [1, 1])] {
            let last = if request[0] == POST { "body" } else { "A: b" };
            let answers = vec![Step::HearsOf(last), says(OK), Step::HearsTwice(last), says(OK)];
            let seen = Scene {
                client: twice(request, pauses),
                backends: vec![answers, vec![Step::HearsOf(last), says(OK)]],
                alone: true,
                ..Scene::default()
            }
            .play();
            assert_eq!(seen.asked(), asked, "{pauses} {seen:#?}");
            assert_eq!(seen.told(), "200 good, 200 good", "{pauses}");
        }
    }
}
