//! Tests of what goes both ways at once, over scripted streams: early answers, refused bodies and
//! tunnels, split at every byte and closed at every byte, as tables.
//!
//! Beside `wire_tests.rs`, which has requests and answers that follow each other.

use std::time::Duration;

use super::wire_tests::{GET, OK, OK_CHUNKED, PUT, TWO};
use crate::net::stream::script::{Closed, Step, says};
use crate::testkit::scene::{Scene, after_a_head, client, pieces};

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: ws\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 S\r\nUpgrade: ws\r\nConnection: upgrade\r\n\r\n";

/// Answered before its body has come: the body goes on to the backend, and both connections stay
/// open. What the backend does not take any more is read and dropped.
#[test]
fn a_body_goes_on_behind_an_early_answer() {
    for answer in [OK, OK_CHUNKED] {
        for (last, kept) in [(Step::HearsOf("body"), 2), (Step::Takes(0), 1), (Step::Resets, 1)] {
            let request = PUT.strip_suffix("body").unwrap();
            let waits = if last == Step::Takes(0) { Step::HearsOf("two") } else { Step::Pauses };
            let late = [says("bo"), Step::Pauses, says("dy"), Step::Pauses, says(GET), waits];
            let seen = Scene {
                client: client([&[says(request), Step::HearsOf("d")][..], &late].concat()),
                backends: vec![
                    after_a_head(vec![says(answer), last.clone()]),
                    after_a_head(vec![says(TWO)]),
                ],
                pool: "timeouts = { write = \"1s\" }",
                ..Scene::default()
            };
            let seen = seen.play();
            let good = if answer == OK { "200 good" } else { "200 good (A: b)" };
            let told = format!("{good}, 200 two");
            assert_eq!((seen.told(), seen.count("kept")), (told, kept), "{last:?} {seen:#?}");
        }
    }
}

#[test]
fn a_tunnel_carries_what_comes_in_whatever_pieces() {
    let ways = pieces(&format!("{UPGRADE}ping"));
    let answers = pieces(&format!("{SWITCHED}pong"));
    for (says_it, answer) in ways.iter().zip(answers.iter().cycle()) {
        let client = says_it.iter().cloned().chain([Step::HearsOf("pong"), Step::Ends]).collect();
        let backend = after_a_head(
            answer
                .iter()
                .cloned()
                .chain([Step::HearsOf("ping"), Step::Pauses, Step::Ends])
                .collect(),
        );
        let seen = Scene { client, backends: vec![backend], ..Scene::default() }.play();
        seen.check();
        assert!(seen.client.ends_with("\r\n\r\npong"), "{seen:#?}");
        assert!(seen.backends[0].heard.ends_with("\r\n\r\nping"), "{seen:#?}");
        assert!(!seen.backends[0].is_kept());
    }
}

/// A backend that closes or breaks off at each byte of its 101 and of what follows.
#[test]
fn a_tunnel_ends_where_its_backend_does() {
    let answer = format!("{SWITCHED}pong");
    for cut in 0..=answer.len() {
        for end in [Step::Ends, Step::Resets] {
            let first = after_a_head(vec![says(&answer[..cut]), end.clone()]);
            let seen = Scene {
                client: client(vec![says(UPGRADE)]),
                backends: vec![first, after_a_head(vec![says(TWO)])],
                ..Scene::default()
            }
            .play();
            seen.check();
            match cut {
                0 => assert_eq!(seen.told(), "200 two"),
                _ if cut < SWITCHED.len() => assert_eq!(seen.told(), "502 backend_protocol"),
                _ => {
                    let (head, behind) = seen.client.split_once("\r\n\r\n").unwrap();
                    assert!(head.starts_with("HTTP/1.1 101 "), "{seen:#?}");
                    assert_eq!(behind, &answer[SWITCHED.len()..cut], "{end:?}");
                    let closed = if end == Step::Ends { Closed::Half } else { Closed::Reset };
                    assert_eq!(seen.closed, closed, "{cut} {end:?}");
                }
            }
            assert_eq!(seen.asked(), [1, usize::from(cut == 0)], "{cut} {end:?}");
        }
    }
}

/// A client that closes its half or breaks off behind each byte that it sends through a tunnel.
#[test]
fn a_tunnel_ends_where_its_client_does() {
    for cut in 0..=4 {
        for end in [Step::Ends, Step::Resets] {
            let ping = says(&"ping"[..cut]);
            let backend = after_a_head(vec![says(SWITCHED), Step::Pauses, Step::Pauses]);
            let seen = Scene {
                client: vec![says(UPGRADE), Step::HearsOf(" 101 "), ping, end.clone()],
                backends: vec![[backend, vec![says("pong"), Step::Ends]].concat()],
                ..Scene::default()
            }
            .play();
            seen.check();
            let (_, behind) = seen.backends[0].heard.split_once("\r\n\r\n").unwrap();
            assert_eq!(behind, &"ping"[..cut], "{end:?}");
            let (closed, pong) = match end {
                Step::Ends => (Closed::Half, true),
                _ => (Closed::Reset, false),
            };
            assert_eq!(seen.backends[0].closed, closed, "{cut} {end:?}");
            assert_eq!(seen.client.ends_with("pong"), pong, "{cut} {end:?}");
        }
    }
}

#[test]
fn an_early_answer_is_the_same_in_whatever_pieces_it_comes() {
    let head = PUT.strip_suffix("body").unwrap();
    for (answer, end, told) in [(OK, "good", "200 good"), (OK_CHUNKED, "A: b", "200 good (A: b)")] {
        for pieces in pieces(answer) {
            let body = [says("bo"), Step::Pauses, says("dy")];
            let seen = Scene {
                client: client([&[says(head), Step::HearsOf(end)], &body[..]].concat()),
                backends: vec![after_a_head(pieces.clone())],
                // The client keeps its body back for longer than a slow one may.
                limits: "body-rate = \"0B\"",
                ..Scene::default()
            }
            .play();
            seen.check();
            assert_eq!(seen.told(), told, "{pieces:?}");
            assert!(seen.backends[0].heard.ends_with("\r\n\r\nbody"), "{seen:#?}");
            assert!(seen.backends[0].is_kept(), "{pieces:?}");
        }
    }
}

/// A backend that closes at each byte of an answer to a request of which it has not all.
#[test]
fn an_early_answer_that_is_cut_is_never_whole() {
    let request = PUT.strip_suffix("body").unwrap();
    for (answer, whole) in [(OK, "200 good"), (OK_CHUNKED, "200 good (A: b)")] {
        let head = answer.find("\r\n\r\n").unwrap() + 4;
        for cut in 0..=answer.len() {
            for end in [Step::Ends, Step::Resets] {
                let first = after_a_head(vec![says(&answer[..cut]), end.clone()]);
                let late = [says(request), Step::Pauses, says("bo"), Step::Pauses, says("dy")];
                let seen = Scene {
                    client: client(late.to_vec()),
                    backends: vec![first, vec![Step::HearsOf("body"), says(TWO)]],
                    ..Scene::default()
                }
                .play();
                seen.check();
                let expected = match cut {
                    0 => "200 two",
                    _ if cut < head => "502 backend_protocol",
                    _ if cut == answer.len() => whole,
                    _ => "200 cut",
                };
                assert_eq!(seen.told(), expected, "{cut} {end:?} {seen:#?}");
                assert_eq!(seen.asked(), [1, usize::from(cut == 0)], "{cut} {end:?}");
                assert!(!seen.backends[0].is_kept(), "{cut} {end:?}");
            }
        }
    }
}

/// A backend that refuses a body behind each byte of it, and closes.
#[test]
fn a_refusal_of_a_part_of_the_body_is_passed_on_wherever_it_comes() {
    let large = "HTTP/1.1 413 Large\r\nDate: x\r\nContent-Length: 5\r\n\r\nlarge";
    let pieces = ["PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo", "dy"];
    let client = || client(vec![says(pieces[0]), Step::Pauses, says(pieces[1])]);
    let backends = vec![vec![Step::HearsOf("body"), says(large)]];
    let whole = Scene { client: client(), backends, ..Scene::default() }.play();
    assert_eq!(whole.told(), "413 large");
    for hears in 1..=whole.backends[0].heard.len() {
        for end in [Step::Ends, Step::Resets] {
            let backend = vec![Step::Hears(hears), says(large), end.clone()];
            let seen = Scene { client: client(), backends: vec![backend], ..Scene::default() };
            let seen = seen.play();
            seen.check();
            assert_eq!(seen.told(), "413 large", "{hears} {end:?}");
            assert_eq!((seen.asked(), seen.count("retries")), (vec![1], 0), "{hears} {end:?}");
        }
    }
}

/// A body that is too large, in any pieces, of a client that ends, breaks off, or stops behind it:
/// it is read until it ends, as a close over unread bytes would destroy its answer.
#[test]
fn a_client_that_is_refused_sees_its_answer_and_no_reset() {
    let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\ntoo large";
    let seconds = Duration::from_secs;
    for pieces in pieces(request) {
        for (end, took) in [(Some(Step::Ends), 0), (Some(Step::Resets), 0), (None, 5)] {
            let pauses = pieces.iter().filter(|step| **step == Step::Pauses).count() as u32;
            let seen = Scene {
                client: pieces.iter().cloned().chain([Step::Pauses]).chain(end.clone()).collect(),
                limits: "body-size = \"8B\"",
                ..Scene::default()
            }
            .play();
            seen.check();
            assert_eq!(seen.told(), "413 body_too_large", "{pieces:?} {end:?}");
            assert_eq!((seen.closed, seen.asked()), (Closed::Half, vec![]), "{pieces:?} {end:?}");
            let late = seen.took.checked_sub(seconds(took));
            let most = Duration::from_millis(250) * (pauses + 2);
            assert!(late.is_some_and(|late| late <= most), "{pieces:?} {end:?}: {:?}", seen.took);
        }
    }
}

/// Steps with a pause behind each: of a tenth of a second, or more where the sweep runs meanwhile.
fn slowly(steps: impl Iterator<Item = Step>) -> Vec<Step> {
    steps.flat_map(|step| [step, Step::Pauses]).collect()
}

/// More than the ten seconds for which a body may be slower than `body-rate`.
fn long_pause() -> impl Iterator<Item = Step> {
    std::iter::repeat_n(Step::Pauses, 130)
}

/// No gap is long; but of the kibibyte that is due each second after ten seconds not a tenth comes.
/// Of ten bytes all come, until none comes for twelve seconds.
#[test]
fn a_body_may_be_so_slow_and_no_slower() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n";
    for (rate, told, took) in [
        ("body-rate = \"1KiB\"", "408 request_timeout", 10_000..=10_500),
        ("body-rate = \"10B\"", "408 request_timeout", 29_000..=32_000),
    ] {
        let seen = Scene {
            client: slowly([says(head)].into_iter().chain((0..150).map(|_| says("abcde")))),
            backends: vec![vec![]],
            listener: "timeouts = { client-body = \"12s\" }",
            limits: rate,
            ..Scene::default()
        }
        .play();
        seen.check();
        assert_eq!(seen.told(), told, "{rate}");
        assert!(took.contains(&seen.times[0]), "{rate}: {:?}", seen.times);
    }
}

/// A backend that takes nothing for long, or answers late, and a client that waits for a 100: the
/// client's time stands still meanwhile.
#[test]
fn no_client_is_slow_because_of_its_backend() {
    let go_on = "HTTP/1.1 100 Continue\r\n\r\n";
    let waits = PUT.replace("\r\n\r\nbody", "\r\nExpect: 100-continue\r\n\r\n");
    let head = PUT.strip_suffix("body").unwrap();
    let takes_late = [Step::Takes(0)].into_iter().chain(long_pause());
    let takes_late = takes_late.chain([Step::Takes(9), Step::HearsOf("body"), says(OK)]);
    let says_late = long_pause().chain([says(go_on), Step::HearsOf("body"), says(OK)]);
    let answers_late = [Step::HearsOf("body")].into_iter().chain(long_pause()).chain([says(OK)]);
    for (client, backend, told) in [
        (vec![says(head), says("bo"), says("dy")], after_a_head(takes_late.collect()), ""),
        (
            vec![says(waits), Step::HearsOf(" 100 "), says("body")],
            { after_a_head(says_late.collect()) },
            "100 , ",
        ),
        (vec![says(head), says("body")], answers_late.collect(), ""),
    ] {
        let seen = Scene {
            client,
            backends: vec![backend],
            limits: "body-rate = \"100MiB\"",
            ..Scene::default()
        }
        .play();
        assert_eq!(seen.told(), format!("{told}200 good"), "{seen:#?}");
        assert!(seen.took >= Duration::from_secs(13), "{:?}", seen.took);
    }
}
