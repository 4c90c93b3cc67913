//! HTTP/2 between scripted peers, under a whole worker: frames that are split and cut at every
//! byte, and what backends get and clients are answered then.

use crate::net::stream::script::{Step, says};
use crate::proto::h2::conn_tests::{GET, data, greeting, head, words};
use crate::testkit::scene::{Scene, Seen, after_a_head};

const LISTENER: &str = "protocols = [\"h1\", \"h2\"]";

/// Two requests, of which the second has a body in pieces and trailers.
fn two() -> Vec<u8> {
    let post = GET.replace("GET", "POST").replace(": /", ": /post");
    [
        greeting(),
        head(1, true, &format!("{GET}x: y\n")),
        head(3, false, &post),
        data(3, false, "hello"),
        data(3, false, ""),
        data(3, false, " there"),
        head(3, true, "checksum: 1"),
    ]
    .concat()
}

fn answers() -> Vec<Vec<Step>> {
    let answer = |body: &str| {
        let length = body.len();
        says(format!("HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: {length}\r\n\r\n{body}"))
    };
    vec![
        after_a_head(vec![answer("one")]),
        vec![Step::HearsOf("checksum: 1\r\n\r\n"), answer("two")],
    ]
}

#[track_caller]
fn play(client: Vec<Step>) -> Seen {
    let client = client.into_iter().chain([Step::Pauses, Step::Pauses, Step::Ends]).collect();
    let seen = Scene { client, backends: answers(), listener: LISTENER, ..Scene::default() }.play();
    seen.check();
    seen
}

/// The frames in words, those of each stream in their order.
fn sorted(seen: &Seen) -> Vec<String> {
    let mut words = words(&seen.client_bytes);
    words.sort_by_key(|word| word.split(' ').next().and_then(|id| id.parse::<u32>().ok()));
    words
}

#[test]
fn frames_mean_the_same_however_they_are_split() {
    let all = two();
    let whole = play(vec![says(&all)]);
    assert_eq!(
        sorted(&whole),
        [
            "goaway 3 0",
            "1 head :status=200 date=x content-length=3",
            "1 data \"one\" end",
            "3 head :status=200 date=x content-length=3",
            "3 data \"two\" end",
        ]
    );
    let mut heard: Vec<&str> = whole.backends.iter().map(|backend| &*backend.heard).collect();
    heard.sort_unstable();
    assert!(heard[0].starts_with("GET / HTTP/1.1\r\nhost: a\r\nx: y\r\n"), "{heard:#?}");
    assert!(heard[1].starts_with("POST /post HTTP/1.1\r\nhost: a\r\n"), "{heard:#?}");
    let body = heard[1].split_once("\r\n\r\n").unwrap().1;
    let (body, rest) = crate::testkit::scene::dechunked(body);
    assert_eq!((body.as_deref(), rest), (Some("hello there (checksum: 1)"), ""));
    for at in (1..all.len()).step_by(if cfg!(debug_assertions) { 3 } else { 1 }) {
        let seen = play(vec![says(&all[..at]), Step::Pauses, says(&all[at..])]);
        assert_eq!(sorted(&seen), sorted(&whole), "split at {at}");
    }
    let bytes = all.chunks(1).map(says).collect();
    assert_eq!(sorted(&play(bytes)), sorted(&whole), "byte by byte");
}

/// A client that leaves in the middle has asked for what was whole, and for nothing else.
#[test]
fn a_connection_may_end_at_any_byte() {
    let all = two();
    for at in (0..all.len()).step_by(if cfg!(debug_assertions) { 3 } else { 1 }) {
        for end in [Step::Ends, Step::Resets] {
            let client = vec![says(&all[..at]), end];
            let seen =
                Scene { client, backends: answers(), listener: LISTENER, ..Scene::default() }
                    .play();
            assert_eq!((seen.count("in flight"), seen.count("open")), (0, 0), "cut at {at}");
        }
    }
}

/// What is no preface is answered as HTTP/1 would be.
#[test]
fn a_plain_listener_tells_the_versions_apart() {
    let h1 = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    for cut in 1..h1.len() {
        let client = vec![says(&h1[..cut]), Step::Pauses, says(&h1[cut..])];
        let seen = play(client);
        assert_eq!(seen.told(), "200 one", "cut at {cut}");
    }
    let seen = play(vec![says("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n")]);
    assert_eq!(seen.told(), "505 version_refused");
    let seen = play(vec![says("PRI / HTTP/1.1\r\nHost: a\r\n\r\n")]);
    assert_eq!(seen.told(), "200 one");
}
