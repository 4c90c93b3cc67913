//! Plays of sticky pools: which client stays with which backend, and the cookies that clients get
//! and backends never see.
//!
//! Cookies that the proxy would no longer write, or not yet, are written here, by code of the
//! play's own: it knows the secret and the format of a cookie, and nothing else.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::{
    backend::{Cue, Script, plays},
    client::{Client, Response},
    queue::held_and_probed,
    scripts::{SWITCHING, answers, answers_each, answers_on, closes_after, ok, sends},
    stage::{Driver, Setting, Stage, eventually},
};

on_both_drivers!(
    a_client_stays_with_the_backend_that_answered_first,
    clients_without_a_cookie_go_round,
    backends_never_see_the_cookie,
    a_cookie_has_its_attributes,
    a_cookie_is_secure_where_the_clients_scheme_is_https,
    a_client_moves_when_its_backend_is_gone,
    a_backend_that_refuses_is_passed_over_by_its_clients_too,
    a_backend_that_is_left_out_loses_its_clients,
    a_client_stays_when_only_its_connection_was_bad,
    a_backend_without_weight_keeps_its_clients,
    a_client_waits_for_its_full_backend_where_there_is_a_queue,
    a_client_leaves_its_full_backend_where_there_is_none,
    a_client_waits_no_more_for_a_backend_that_goes_down,
    who_waits_too_long_for_its_backend_is_told_and_who_leaves_gives_its_place_up,
    no_client_waits_much_longer_for_its_backend_than_another,
    what_is_not_valid_counts_as_none,
    of_several_cookies_the_first_valid_one_counts,
    a_cookie_holds_as_long_as_the_plan_says,
    a_new_secret_moves_nobody,
    cookies_hold_wherever_the_secret_is,
    an_upgrade_is_sticky_too,
    answers_of_our_own_have_no_cookie,
    interim_answers_have_no_cookie,
    no_shared_cache_keeps_a_cookie,
    a_pool_that_is_not_sticky_has_none_of_it,
    a_secret_that_is_too_short_refuses_the_start,
);

over_http_2!(
    a_client_stays_with_the_backend_that_answered_first,
    clients_without_a_cookie_go_round,
    answers_of_our_own_have_no_cookie,
    interim_answers_have_no_cookie,
    ; in front:
    of_several_cookies_the_first_valid_one_counts,
    an_upgrade_is_sticky_too,
);

const SECRET: &str = "a secret for plays";

/// A file with secrets, for one play.
struct Secret(PathBuf);

impl Secret {
    fn new(text: &str) -> Secret {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let name = format!("ringway-sticky-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::write(&path, text).unwrap();
        Secret(path)
    }

    /// A stage whose pool is sticky, with further keys of `sticky`.
    fn stage(&self, driver: Driver, keys: &str) -> Setting {
        let path = self.0.display();
        Stage::on(driver).pool(&format!("sticky = {{ secret-file = \"{path}\"{keys} }}"))
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn mac(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).unwrap();
    mac.chain_update(bytes).finalize().into_bytes().to_vec()
}

/// The value of a cookie that names the backend of that number.
fn cookie(stage: &Stage, backend: usize, issued: u64, seen: u64) -> String {
    named(&stage.backend(backend).address().to_string(), issued, seen)
}

fn named(backend: &str, issued: u64, seen: u64) -> String {
    let key = mac(&Sha256::digest(SECRET), b"app");
    let mut bytes = vec![1];
    bytes.extend(&mac(&key, format!("\0{backend}").as_bytes())[..8]);
    bytes.extend((issued as u32).to_be_bytes());
    bytes.extend((seen as u32).to_be_bytes());
    bytes.extend(&mac(&key, &bytes)[..16]);
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let spell = |three: &[u8]| {
        let word = three.iter().fold(0, |word, byte| word << 8 | usize::from(*byte));
        [18, 12, 6, 0].map(|shift| char::from(letters[word >> shift & 63]))
    };
    bytes.chunks(3).flat_map(spell).collect()
}

/// Asks with these cookies on a connection that stays.
#[track_caller]
fn ask(client: &mut Client, cookies: &str) -> Response {
    let field = if cookies.is_empty() { String::new() } else { format!("Cookie: {cookies}\r\n") };
    client.send(format!("GET / HTTP/1.1\r\nHost: play.test\r\n{field}\r\n")).response()
}

/// What the client is told to keep: the cookie's value, and its attributes.
#[track_caller]
fn given(response: &Response) -> (String, String) {
    let lines = response.head.all("set-cookie");
    let [line] = lines[..] else { panic!("not one cookie:\n{}", response.head.raw) };
    let (value, attributes) = line.strip_prefix("ringway=").unwrap().split_once("; ").unwrap();
    (value.to_owned(), attributes.to_owned())
}

#[track_caller]
fn expect_none(response: &Response) {
    assert!(response.head.all("set-cookie").is_empty(), "{}", response.head.raw);
    assert!(response.head.all("cache-control").is_empty(), "{}", response.head.raw);
}

/// How often each outcome of a cookie occurred.
fn counts(stage: &Stage) -> Vec<(&'static str, u64)> {
    let words = ["kept", "refreshed", "moved", "new", "malformed", "forged", "expired", "unknown"];
    let counted =
        words.map(|word| (word, stage.count(&format!("sticky_total{{result=\"{word}\"}}"))));
    counted.into_iter().filter(|(_, count)| *count > 0).collect()
}

fn three(setting: Setting) -> Stage {
    setting.backend(answers("a")).backend(answers("b")).backend(answers("c")).start()
}

fn a_client_stays_with_the_backend_that_answered_first(driver: Driver) {
    let secret = Secret::new(SECRET);
    let stage = three(secret.stage(driver, ""));
    for _ in 0..4 {
        let first = ask(&mut stage.connect(), "");
        let (value, _) = given(&first);
        let mut client = stage.connect();
        for _ in 0..5 {
            let again = ask(&mut client, &format!("ringway={value}"));
            again.expect(200, first.text());
            expect_none(&again);
        }
    }
    assert_eq!(counts(&stage), [("kept", 20), ("new", 4)]);
}

fn clients_without_a_cookie_go_round(driver: Driver) {
    let secret = Secret::new(SECRET);
    let stage = three(secret.stage(driver, ""));
    let mut client = stage.connect();
    let mut order: Vec<String> = (0..3).map(|_| ask(&mut client, "").text().to_owned()).collect();
    order.sort();
    assert_eq!(order, ["a", "b", "c"]);
}

fn backends_never_see_the_cookie(driver: Driver) {
    let secret = Secret::new(SECRET);
    let stage = secret.stage(driver, "").backend(answers("a")).start();
    let mut client = stage.connect();
    let ours = format!("ringway={}", cookie(&stage, 0, now(), now()));
    for (sent, seen) in [
        (ours.clone(), None),
        (format!("a=1; {ours}; b=\"2\""), Some("a=1; b=\"2\"")),
        (format!("{ours}; a=1;b=2"), Some("a=1;b=2")),
        (format!("{ours}; ringway=other; Ringway=1"), Some("Ringway=1")),
        ("a=1; ringway=forged".to_owned(), Some("a=1")),
        ("a=1".to_owned(), Some("a=1")),
    ] {
        ask(&mut client, &sent).expect(200, "a");
        assert_eq!(stage.last_request().field("cookie"), seen, "{sent}");
    }
    let fields = format!("Cookie: a=1\r\nX: y\r\nCookie: {ours}\r\nCookie: b=2\r\n");
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).response().expect(200, "a");
    assert_eq!(stage.last_request().head.all("cookie"), ["a=1", "b=2"]);
}

fn a_cookie_has_its_attributes(driver: Driver) {
    let plain = "Path=/; HttpOnly; SameSite=Lax";
    let secret = Secret::new(SECRET);
    for (keys, expected) in [
        ("", plain.to_owned()),
        (", max-idle = \"10m\"", format!("{plain}; Max-Age=600")),
        (", max-life = \"2h\"", format!("{plain}; Max-Age=7200")),
        (", max-idle = \"10m\", max-life = \"1m\"", format!("{plain}; Max-Age=60")),
    ] {
        let stage = secret.stage(driver, keys).backend(answers("a")).start();
        let response = stage.get("/");
        assert_eq!(given(&response).1, expected);
        assert_eq!(response.head.all("cache-control"), ["private"]);
    }
    let named = ", cookie = \"__lb\"";
    let stage = secret.stage(driver, named).backend(answers("a")).start();
    let response = ask(&mut stage.connect(), "ringway=1");
    assert!(response.field("set-cookie").unwrap().starts_with("__lb="));
    assert_eq!(stage.last_request().field("cookie"), Some("ringway=1"));
}

fn a_cookie_is_secure_where_the_clients_scheme_is_https(driver: Driver) {
    const HTTPS: &str = "X-Forwarded-Proto: https\r\n";
    const FORWARDED: &str = "Forwarded: for=192.0.2.1;proto=https\r\n";
    for (trusted, same_site, fields, expected) in [
        ("10.0.0.0/8", "lax", HTTPS, "SameSite=Lax"),
        ("10.0.0.0/8", "lax", FORWARDED, "SameSite=Lax"),
        ("127.0.0.0/8", "lax", "", "SameSite=Lax"),
        ("127.0.0.0/8", "lax", HTTPS, "SameSite=Lax; Secure"),
        ("127.0.0.0/8", "lax", FORWARDED, "SameSite=Lax; Secure"),
        ("127.0.0.0/8", "strict", HTTPS, "SameSite=Strict; Secure"),
        ("127.0.0.0/8", "strict", "X-Forwarded-Proto: http\r\n", "SameSite=Strict"),
        ("10.0.0.0/8", "none", "", "SameSite=None; Secure"),
    ] {
        let secret = Secret::new(SECRET);
        let stage = secret
            .stage(driver, &format!(", same-site = \"{same_site}\""))
            .listener(&format!("trusted-proxies = [\"{trusted}\"]"))
            .backend(answers("ok"))
            .start();
        let mut client = stage.connect();
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        let (_, attributes) = given(&client.response());
        assert_eq!(attributes, format!("Path=/; HttpOnly; {expected}"), "{trusted} {fields}");
    }
}

fn a_client_moves_when_its_backend_is_gone(driver: Driver) {
    let secret = Secret::new(SECRET);
    let gone = plays(|visit| {
        visit.request()?;
        visit.reset();
        Ok(())
    });
    for (script, asked) in [(Script::Refuses, 0), (gone, 1)] {
        let stage = secret.stage(driver, "").backend(script).backend(answers("b")).start();
        let ours = format!("ringway={}", cookie(&stage, 0, now(), now()));
        let mut client = stage.connect();
        let moved = ask(&mut client, &format!("{ours}; a=1"));
        moved.expect(200, "b");
        let (value, _) = given(&moved);
        // None of the tries shows it.
        for backend in [0, 1] {
            for request in stage.backend(backend).requests() {
                assert_eq!(request.field("cookie"), Some("a=1"));
            }
        }
        assert_eq!(stage.backend(0).requests().len(), asked);
        let kept = ask(&mut client, &format!("ringway={value}"));
        kept.expect(200, "b");
        expect_none(&kept);
        assert_eq!(counts(&stage), [("kept", 1), ("moved", 1)]);
    }
}

fn a_backend_that_refuses_is_passed_over_by_its_clients_too(driver: Driver) {
    let secret = Secret::new(SECRET);
    let stage = secret
        .stage(driver, "")
        .pool("passive = { max-failures = 0 }")
        .backend(Script::Refuses)
        .backend(answers("b"))
        .start();
    let ours = format!("ringway={}", cookie(&stage, 0, now(), now()));
    let mut client = stage.connect();
    for _ in 0..50 {
        ask(&mut client, &ours).expect(200, "b");
    }
    let failures = stage.count("backend_connect_failures_total");
    assert!((1..10).contains(&failures), "{failures} connections were tried for 50 requests");
}

fn a_backend_that_is_left_out_loses_its_clients(driver: Driver) {
    let failing = plays(|visit| {
        visit.request()?;
        visit.reset();
        Ok(())
    });
    let secret = Secret::new(SECRET);
    let stage = secret
        .stage(driver, "")
        .pool("passive = { max-failures = 2, eject = \"60s\" }")
        .backend(failing)
        .backend(answers("b"))
        .start();
    let ours = format!("ringway={}", cookie(&stage, 0, now(), now()));
    let mut client = stage.connect();
    let mut asked_for_one_request = || {
        let before = stage.backend(0).requests().len();
        ask(&mut client, &ours).expect(200, "b");
        stage.backend(0).requests().len() - before
    };
    assert_eq!(asked_for_one_request(), 1, "it is asked first");
    eventually("it is left out", &mut asked_for_one_request, |asked| *asked == 0);
    for _ in 0..10 {
        assert_eq!(asked_for_one_request(), 0);
    }
    assert!(stage.count("sticky_total{result=\"moved\"}") > 11);
}

fn a_client_stays_when_only_its_connection_was_bad(driver: Driver) {
    let secret = Secret::new(SECRET);
    let stage = secret
        .stage(driver, "")
        .backend(closes_after(1, "a"))
        .backend(closes_after(1, "b"))
        .start();
    let ours = format!("ringway={}", cookie(&stage, 1, now(), now()));
    let mut client = stage.connect();
    for _ in 0..40 {
        ask(&mut client, &ours).expect(200, "b");
    }
    assert_eq!(counts(&stage), [("kept", 40)]);
}

fn a_backend_without_weight_keeps_its_clients(driver: Driver) {
    let secret = Secret::new(SECRET);
    let stage = secret.stage(driver, "").weighted(answers("a"), 0).backend(answers("b")).start();
    let ours = format!("ringway={}", cookie(&stage, 0, now(), now()));
    let mut client = stage.connect();
    for _ in 0..5 {
        ask(&mut client, &ours).expect(200, "a");
        ask(&mut client, "").expect(200, "b");
    }
}

/// Sends a request with these cookies and leaves it at that.
fn sends_with(stage: &Stage, cookies: &str) -> Client {
    let mut client = stage.connect();
    client.send(format!("GET / HTTP/1.1\r\nHost: play.test\r\nCookie: {cookies}\r\n\r\n"));
    client
}

fn a_client_waits_for_its_full_backend_where_there_is_a_queue(driver: Driver) {
    let (secret, cue) = (Secret::new(SECRET), Cue::default());
    let stage = secret
        .stage(driver, "")
        .each("max-in-flight = 1")
        .pool("queue = { size = 2, timeout = \"30s\" }")
        .backend(answers_on(&cue, "a"))
        .backend(answers("b"))
        .start();
    let ours = format!("ringway={}", cookie(&stage, 0, now(), now()));
    let mut first = sends_with(&stage, &ours);
    stage.expect_count("backend_in_flight", 1);
    let mut waiting = [sends_with(&stage, &ours), sends_with(&stage, &ours)];
    stage.expect_count("requests_queued", 2);
    // All others are not blocked, and need no place in the queue.
    let mut client = stage.connect();
    (0..5).for_each(|_| ask(&mut client, "").expect(200, "b"));
    sends_with(&stage, &ours).response().expect_fault(503, "queue_full");
    assert_eq!(stage.count("requests_queued"), 2);
    cue.give();
    for client in std::iter::once(&mut first).chain(&mut waiting) {
        let answer = client.response();
        answer.expect(200, "a");
        expect_none(&answer);
    }
    assert_eq!(counts(&stage), [("kept", 3), ("new", 5)]);
}

fn a_client_leaves_its_full_backend_where_there_is_none(driver: Driver) {
    let (secret, cue) = (Secret::new(SECRET), Cue::default());
    let stage = secret
        .stage(driver, "")
        .each("max-in-flight = 1")
        .backend(answers_on(&cue, "a"))
        .backend(answers("b"))
        .start();
    let ours = format!("ringway={}", cookie(&stage, 0, now(), now()));
    let mut first = sends_with(&stage, &ours);
    stage.expect_count("backend_in_flight", 1);
    ask(&mut stage.connect(), &ours).expect(200, "b");
    cue.give();
    first.response().expect(200, "a");
    assert_eq!(counts(&stage), [("kept", 1), ("moved", 1)]);
}

fn a_client_waits_no_more_for_a_backend_that_goes_down(driver: Driver) {
    let (secret, cue, well) =
        (Secret::new(SECRET), Cue::default(), Arc::new(AtomicBool::new(true)));
    let stage = secret
        .stage(driver, "")
        .each("max-in-flight = 1")
        .pool("queue = { size = 2, timeout = \"30s\" }")
        .pool("health = { interval = \"60ms\", timeout = \"60ms\", path = \"/health\" }")
        .backend(held_and_probed(&cue, &well))
        .backend(answers("b"))
        .start();
    let ours = format!("ringway={}", cookie(&stage, 0, now(), now()));
    let mut first = sends_with(&stage, &ours);
    stage.expect_count("backend_in_flight", 1);
    let mut waits = sends_with(&stage, &ours);
    stage.expect_count("requests_queued", 1);
    // No request comes by which its core could hear of it.
    well.store(false, Ordering::SeqCst);
    waits.response().expect(200, "b");
    cue.give();
    first.response().expect(200, "held");
}

fn who_waits_too_long_for_its_backend_is_told_and_who_leaves_gives_its_place_up(driver: Driver) {
    let (secret, cue) = (Secret::new(SECRET), Cue::default());
    let stage = secret
        .stage(driver, "")
        .each("max-in-flight = 1")
        .pool("queue = { size = 1, timeout = \"300ms\" }")
        .backend(answers_on(&cue, "a"))
        .start();
    let ours = format!("ringway={}", cookie(&stage, 0, now(), now()));
    let mut first = sends_with(&stage, &ours);
    stage.expect_count("backend_in_flight", 1);
    let refused = ask(&mut stage.connect(), &ours);
    refused.expect_fault(503, "queue_timeout");
    assert!(refused.field("retry-after").is_some() && refused.field("set-cookie").is_none());
    let leaves = sends_with(&stage, &ours);
    stage.expect_count("requests_queued", 1);
    leaves.reset();
    stage.expect_count("requests_queued", 0);
    cue.give();
    first.response().expect(200, "a");
    // Nothing is left over of either: the next request finds the room.
    stage.connect().get("/").expect(200, "a");
    assert_eq!(stage.backend(0).requests().len(), 2);
}

/// Answers after a moment with how many requests it has had.
fn numbers(had: &Arc<AtomicUsize>) -> Script {
    let had = Arc::clone(had);
    plays(move |visit| {
        loop {
            visit.request()?;
            let number = had.fetch_add(1, Ordering::SeqCst) + 1;
            visit.pause(Duration::from_millis(15))?;
            visit.send(ok(number.to_string()))?;
        }
    })
}

/// On two cores, and while the others ask again as soon as they are answered: between a request and
/// its answer few others are answered.
fn no_client_waits_much_longer_for_its_backend_than_another(driver: Driver) {
    const CLIENTS: usize = 12;
    const EACH: usize = 6;
    let (secret, had) = (Secret::new(SECRET), Arc::default());
    let stage = secret
        .stage(driver, "")
        .cores(2)
        .each("max-in-flight = 1")
        .pool("queue = { size = 20, timeout = \"60s\" }")
        .backend(numbers(&had))
        .start();
    let ours = format!("ringway={}", cookie(&stage, 0, now(), now()));
    let done = AtomicUsize::new(0);
    let asks = || {
        let (mut client, mut most) = (stage.connect(), 0);
        for number in 1.. {
            let before = had.load(Ordering::SeqCst);
            let answer = ask(&mut client, &ours);
            let Ok(at) = answer.text().parse::<usize>() else { return usize::MAX };
            most = most.max(at - before);
            let all = done.fetch_add(usize::from(number == EACH), Ordering::SeqCst);
            if all == CLIENTS || at > 50 * CLIENTS {
                break;
            }
        }
        most
    };
    let waited: Vec<usize> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(asks)).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    assert!(
        waited.iter().all(|most| *most <= 3 * CLIENTS),
        "the most that each waited: {waited:?}"
    );
    assert!(counts(&stage).iter().all(|(word, _)| *word == "kept"), "{:?}", counts(&stage));
}

fn what_is_not_valid_counts_as_none(driver: Driver) {
    let secret = Secret::new(SECRET);
    let stage = three(secret.stage(driver, ", max-life = \"1h\""));
    let mut client = stage.connect();
    let good = cookie(&stage, 0, now(), now());
    let mut other = good.clone();
    other.replace_range(20..21, if &good[20..21] == "A" { "B" } else { "A" });
    let late = cookie(&stage, 0, now() - 3700, now());
    let ahead = cookie(&stage, 0, now() + 100_000, now());
    let gone = named("10.0.0.1:80", now(), now());
    let mut bodies = Vec::new();
    for value in ["", "x", &good[..40], &other, &late, &ahead, &gone] {
        let response = ask(&mut client, &format!("ringway={value}"));
        assert_eq!(response.status, 200);
        assert_ne!(given(&response).0, value);
        bodies.push(response.text().to_owned());
    }
    // They take turns like clients without a cookie.
    assert_eq!(bodies[..3], bodies[3..6]);
    assert_ne!(bodies[0], bodies[1]);
    let expected = [("malformed", 3), ("forged", 1), ("expired", 2), ("unknown", 1)];
    assert_eq!(counts(&stage), expected);
}

fn of_several_cookies_the_first_valid_one_counts(driver: Driver) {
    let secret = Secret::new(SECRET);
    let stage = three(secret.stage(driver, ""));
    let [b, c] = [1, 2].map(|backend| format!("ringway={}", cookie(&stage, backend, 0, now())));
    let mut client = stage.connect();
    for (cookies, expected) in [
        (format!("{b}; {c}"), "b"),
        (format!("{c}; {b}"), "c"),
        (format!("ringway=x; a=1; {c}; {b}"), "c"),
        (format!("ringway=x\r\nCookie: {b}\r\nCookie: {c}"), "b"),
    ] {
        let response = ask(&mut client, &cookies);
        response.expect(200, expected);
        expect_none(&response);
    }
}

fn a_cookie_holds_as_long_as_the_plan_says(driver: Driver) {
    let secret = Secret::new(SECRET);
    let stage = three(secret.stage(driver, ", max-idle = \"100s\", max-life = \"1000s\""));
    let mut client = stage.connect();
    let now = now();
    let mut check = |issued: u64, seen: u64, is_given: bool| {
        let response = ask(&mut client, &format!("ringway={}", cookie(&stage, 2, issued, seen)));
        assert_eq!(response.head.all("set-cookie").len(), usize::from(is_given));
        response
    };
    check(now - 500, now - 10, false).expect(200, "c");
    // Seen longer ago than a quarter of what it may be idle: it is refreshed, with its old date of
    // issue.
    let refreshed = check(now - 950, now - 40, true);
    refreshed.expect(200, "c");
    let (value, attributes) = given(&refreshed);
    assert!((0..5).any(|late| value == cookie(&stage, 2, now - 950, now + late)));
    let left = attributes.rsplit_once("Max-Age=").unwrap().1.parse::<u64>().unwrap();
    assert!((45..=50).contains(&left), "{attributes}");
    check(now - 500, now - 110, true);
    check(now - 1010, now - 10, true);
    assert_eq!(counts(&stage), [("kept", 1), ("refreshed", 1), ("expired", 2)]);
}

fn a_new_secret_moves_nobody(driver: Driver) {
    let secret = Secret::new(&format!("the secret of now\n{SECRET}\n"));
    let stage = three(secret.stage(driver, ""));
    let mut client = stage.connect();
    let old = cookie(&stage, 1, now(), now());
    let response = ask(&mut client, &format!("ringway={old}"));
    response.expect(200, "b");
    let (new, _) = given(&response);
    assert_ne!(new, old);
    let response = ask(&mut client, &format!("ringway={new}"));
    response.expect(200, "b");
    expect_none(&response);
    assert_eq!(counts(&stage), [("kept", 1), ("refreshed", 1)]);
}

fn cookies_hold_wherever_the_secret_is(driver: Driver) {
    let secret = Secret::new(SECRET);
    let first = three(secret.stage(driver, ""));
    let response = ask(&mut first.connect(), "");
    let mut second = secret.stage(driver, "").cores(2);
    // In another order, and with one more.
    for backend in [2, 0, 1] {
        second = second.written(first.backend(backend).address().to_string());
    }
    let second = second.backend(answers("d")).start();
    let ours = format!("ringway={}", given(&response).0);
    for _ in 0..8 {
        ask(&mut second.connect(), &ours).expect(200, response.text());
    }
    assert_eq!(counts(&second), [("kept", 8)]);
}

fn an_upgrade_is_sticky_too(driver: Driver) {
    const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
                           Connection: Upgrade\r\n";
    let says = |name: &'static str| {
        plays(move |visit| {
            visit.request()?;
            visit.send([SWITCHING, name].concat())
        })
    };
    let secret = Secret::new(SECRET);
    let stage = secret.stage(driver, "").backend(says("a")).backend(says("b")).start();
    let chat = |fields: &str| {
        let mut client = stage.connect();
        client.send(format!("{UPGRADE}{fields}\r\n"));
        let response = client.response_head("GET").unwrap();
        assert_eq!(response.status, 101);
        let name = client.half_close().wire().until_end().unwrap();
        (response, String::from_utf8(name).unwrap())
    };
    let (first, name) = chat("");
    let (value, _) = given(&first);
    // A switch of protocols is never cached.
    assert!(first.head.all("cache-control").is_empty());
    for _ in 0..4 {
        let (again, same) = chat(&format!("Cookie: ringway={value}\r\n"));
        assert_eq!(same, name);
        expect_none(&again);
    }
    assert_eq!(counts(&stage), [("kept", 4), ("new", 1)]);
}

fn answers_of_our_own_have_no_cookie(driver: Driver) {
    let secret = Secret::new(SECRET);
    let stage = secret.stage(driver, "").backend(sends("nonsense\r\n\r\n")).start();
    let ours = cookie(&stage, 0, now(), now());
    for cookies in ["", "ringway=x", &format!("ringway={ours}")] {
        let mut client = stage.connect();
        let response = ask(&mut client, cookies);
        assert_eq!(response.status, 502);
        assert!(response.head.all("set-cookie").is_empty());
    }
    let mut client = stage.connect();
    client.send("OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n");
    expect_none(&client.response());
    assert_eq!(counts(&stage), []);
}

fn interim_answers_have_no_cookie(driver: Driver) {
    let hints = answers_each(|_| {
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n".to_vec()
    });
    let secret = Secret::new(SECRET);
    let stage = secret.stage(driver, "").backend(hints).start();
    let mut client = stage.connect();
    let hint = ask(&mut client, "");
    assert_eq!(hint.status, 103);
    expect_none(&hint);
    let answer = client.response();
    assert_eq!(answer.status, 204);
    given(&answer);
}

fn no_shared_cache_keeps_a_cookie(driver: Driver) {
    let secret = Secret::new(SECRET);
    for (control, expected) in [
        ("", &["private"][..]),
        ("Cache-Control: public, max-age=60\r\n", &["public, max-age=60", "private"]),
        ("Cache-Control: no-cache\r\n", &["no-cache", "private"]),
        ("Cache-Control: private=\"x\"\r\n", &["private=\"x\"", "private"]),
        ("Cache-Control: max-age=60, Private\r\n", &["max-age=60, Private"]),
        ("Cache-Control: no-store\r\n", &["no-store"]),
        // What a backend says about its connection is not about our lines.
        ("Connection: cache-control, set-cookie\r\n", &["private"]),
    ] {
        let raw =
            format!("HTTP/1.1 200 OK\r\n{control}Set-Cookie: a=1\r\nContent-Length: 0\r\n\r\n");
        let stage = secret.stage(driver, "").backend(sends(raw)).start();
        let mut client = stage.connect();
        let first = ask(&mut client, "");
        assert_eq!(first.head.all("cache-control"), expected);
        let cookies = first.head.all("set-cookie");
        assert!(cookies[0] == "a=1" && cookies[1].starts_with("ringway="), "{cookies:?}");
        // An answer without our cookie is as cacheable as its backend says.
        let ours = format!("ringway={}", cookie(&stage, 0, now(), now()));
        let kept = ask(&mut client, &ours);
        assert_eq!(kept.head.all("set-cookie"), ["a=1"]);
        assert_eq!(kept.head.all("cache-control").len(), usize::from(control.starts_with("Ca")));
    }
}

fn a_pool_that_is_not_sticky_has_none_of_it(driver: Driver) {
    let stage = three(Stage::on(driver));
    let ours = format!("ringway={}; a=1", cookie(&stage, 0, now(), now()));
    let mut client = stage.connect();
    for _ in 0..3 {
        expect_none(&ask(&mut client, &ours));
    }
    assert_eq!(stage.last_request().field("cookie"), Some(&*ours));
    assert_eq!(counts(&stage), []);
}

fn a_secret_that_is_too_short_refuses_the_start(driver: Driver) {
    let secret = Secret::new("too short\n");
    let refused = secret.stage(driver, "").backend(answers("a")).try_start().err().unwrap();
    let why = "holds a secret of 9 bytes: it takes 16 or more";
    let expected = format!("pool \"app\": the secret file {} {why}", secret.0.display());
    assert_eq!(refused, expected);
}
