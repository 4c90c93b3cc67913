//! Exchanges over scripted streams: each split at every byte and closed at every byte, as tables.
//!
//! No socket, no kernel, no clock of the wall: what is proved here is proved for each order that a
//! script can say, and not for those that a machine happens to run (`testkit::play`).

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use super::{Reuse, run};
use crate::base::ids::ListenerId;
use crate::net::{
    deadlines::Watch,
    fd::Half,
    stream::script::{self, Answers, Closed, Script, Step, says},
};
use crate::proto::{
    Client,
    h1::{self, HeadRead},
    peer::{Peer, PeerAddress},
};
use crate::shared::counters::Counter;
use crate::testkit::{beside, play};
use crate::worker::Worker;

/// What a client says, what the backends that are connected to do, and how the pool is configured.
#[derive(Default)]
struct Scene {
    client: Vec<Step>,
    backends: Vec<Vec<Step>>,
    /// Whether they are all one backend.
    alone: bool,
    /// Keys of the pool, and of the listener.
    pool: &'static str,
    listener: &'static str,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    /// What the client was sent, in writes of which lengths, and how its connection ended.
    client: String,
    writes: Vec<usize>,
    closed: Closed,
    backends: Vec<Backend>,
    counts: Counts,
    /// How long it took, by the clock of the play.
    took: Duration,
}

/// What one backend was sent, and how its connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Backend {
    heard: String,
    writes: Vec<usize>,
    closed: Closed,
    is_gone: bool,
    was_asked: bool,
}

impl Backend {
    /// Whether its connection is kept for the next request.
    fn is_kept(&self) -> bool {
        !self.is_gone && self.was_asked
    }
}

/// The counters that are not zero, but for those of every request.
type Counts = BTreeMap<&'static str, u64>;

/// Who was told of a close by these is not read any more: a time at which nothing else goes on.
const QUIET: Duration = Duration::from_secs(60);

impl Scene {
    fn play(self) -> Seen {
        play(async {
            let text = format!(
                "[listener.web]\nbind = \"127.0.0.1:0\"\npool = \"app\"\n{}\n[pool.app]\n\
                 backends = [\"127.0.0.1:1\"{}]\n{}\n",
                self.listener,
                if self.alone { "" } else { ", \"127.0.0.1:2\"" },
                self.pool
            );
            let worker = Worker::crew(&text, 1).remove(0);
            let backends: Vec<_> = self.backends.into_iter().map(Script::new).collect();
            script::answers(backends.iter().map(|script| Answers::Ok(Rc::clone(script))));
            let client = Script::new(self.client);
            let sweeping = Rc::clone(&worker);
            let began = worker.clock.tick();
            let serving = serve(&worker, &client);
            beside(serving, sweeping.deadlines.sweep(|| sweeping.turn())).await;
            let text = |script: &Script| String::from_utf8(script.heard()).expect("text");
            let counts = [
                ("retries", Counter::Retries),
                ("stale", Counter::BackendStale),
                ("kept", Counter::BackendIdle),
                ("in flight", Counter::BackendInFlight),
                ("refused", Counter::Refused),
                ("incomplete", Counter::Incomplete),
                ("aborts", Counter::ClientAborts),
                ("unasked", Counter::BackendUnasked),
            ];
            let backend = |script: &Rc<Script>| Backend {
                heard: text(script),
                writes: script.writes(),
                closed: script.closed(),
                is_gone: script.is_gone(),
                was_asked: !script.heard().is_empty(),
            };
            let count = |(name, counter)| (name, worker.counters.read(counter));
            Seen {
                client: text(&client),
                writes: client.writes(),
                closed: client.closed(),
                backends: backends.iter().map(backend).collect(),
                counts: counts.map(count).into_iter().filter(|(_, count)| *count > 0).collect(),
                took: worker.clock.tick().since(began),
            }
        })
    }
}

/// Serves a client as `server::connection` does, but for what it does about idleness.
async fn serve(worker: &Rc<Worker>, script: &Rc<Script>) {
    let stream =
        Rc::new(script.stream(|fd| worker.deadlines.watch(fd, Watch::Client(ListenerId(0)))));
    let address = PeerAddress::of(Some(([127, 0, 0, 9], 999).into()));
    let peer = Peer::new(ListenerId(0), (address, 80), &[], false);
    let buffer = worker.buffers.take().unwrap();
    let client = h1::Client::new(Rc::clone(&stream), Rc::new(peer), buffer, None);
    let mut client = Client::H1(client);
    let reuse = loop {
        if client.buffered() == 0 && !read(worker, &mut client).await {
            break Reuse::Close;
        }
        let mut scratch = worker.scratch();
        let Client::H1(h1) = &mut client;
        match h1.take_head(&mut scratch.request, &worker.head_limits(), 0) {
            HeadRead::Head(bytes) => {
                scratch.record.request_bytes = bytes as u64;
                match run::run(worker, &mut client, scratch).await {
                    Reuse::Keep => {}
                    other => break other,
                }
            }
            HeadRead::Refused(fault) => {
                break run::refuse(worker, &mut client, scratch, fault).await;
            }
            HeadRead::Partial => {
                if !read(worker, &mut client).await {
                    break Reuse::Close;
                }
            }
        }
    };
    match reuse {
        Reuse::Reset => stream.reset_on_close(),
        Reuse::Keep | Reuse::Close | Reuse::Linger => stream.shut_down(Half::Writing),
    }
    let Client::H1(mut client) = client;
    client.take_buffer().into_iter().for_each(|buffer| worker.buffers.give(buffer));
}

async fn read(worker: &Worker, client: &mut Client) -> bool {
    let Client::H1(client) = client;
    let Some(mut buffer) = client.take_buffer() else { return false };
    buffer.rewind();
    let read = client.stream().recv(&mut buffer, worker.clock.after(QUIET)).await;
    client.put_buffer(buffer);
    matches!(read, Ok(1..))
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
const PUT: &str = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody";
const CHUNKED: &str = "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
     3\r\nbod\r\n1;x\r\ny\r\n0\r\nA: b\r\n\r\n";

const OK: &str = "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 4\r\n\r\ngood";
const OK_CHUNKED: &str = "HTTP/1.1 200 OK\r\nDate: x\r\nTransfer-Encoding: chunked\r\n\r\n\
     3\r\ngoo\r\n1;x\r\nd\r\n0\r\nA: b\r\n\r\n";
const OK_UNTIL_CLOSE: &str = "HTTP/1.1 200 OK\r\nDate: x\r\n\r\ngood";

/// A backend that hears a head and then does this.
fn after_a_head(steps: Vec<Step>) -> Vec<Step> {
    std::iter::once(Step::HearsOf("\r\n\r\n")).chain(steps).collect()
}

/// What the client was told, answer by answer: status, and the body, or the code of a fault, or
/// `cut` where the answer ends before its end.
fn told(client: &str, closed: bool) -> String {
    let (mut rest, mut told) = (client, Vec::new());
    while !rest.is_empty() {
        let Some((head, behind)) = rest.split_once("\r\n\r\n") else {
            told.push("cut head".to_owned());
            break;
        };
        let field = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(": "));
            lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
        };
        let status = head.split(' ').nth(1).unwrap_or("?");
        let length = field("content-length").map(|length| length.parse().unwrap());
        let (body, behind) = match length {
            _ if status.starts_with('1') => (Some(String::new()), behind),
            Some(length) => match behind.split_at_checked(length) {
                Some((body, behind)) => (Some(body.to_owned()), behind),
                None => (None, ""),
            },
            None if field("transfer-encoding").is_some() => dechunked(behind),
            None if status == "204" || status == "304" => (Some(String::new()), behind),
            None => (Some(behind.to_owned()).filter(|_| closed), ""),
        };
        let code = body.as_ref().and_then(|body| body.split("\"code\":\"").nth(1));
        let code = code.and_then(|code| code.split('"').next()).map(str::to_owned);
        let what = code.or(body).unwrap_or_else(|| "cut".to_owned());
        told.push(format!("{status} {what}"));
        rest = behind;
    }
    told.join(", ")
}

/// A chunked body, and what is behind it; none where it was cut.
fn dechunked(mut rest: &str) -> (Option<String>, &str) {
    let mut body = String::new();
    loop {
        let Some((size, behind)) = rest.split_once("\r\n") else { return (None, "") };
        let size = usize::from_str_radix(size, 16).expect("a size");
        if size == 0 {
            return match behind.split_once("\r\n") {
                Some(("", behind)) => (Some(body), behind),
                _ => match behind.split_once("\r\n\r\n") {
                    Some((trailers, behind)) => (Some(format!("{body} ({trailers})")), behind),
                    None => (None, ""),
                },
            };
        }
        let Some((chunk, behind)) = behind.split_at_checked(size) else { return (None, "") };
        body.push_str(chunk);
        let Some(behind) = behind.strip_prefix("\r\n") else { return (None, "") };
        rest = behind;
    }
}

impl Seen {
    /// What the client was told.
    fn told(&self) -> String {
        told(&self.client, self.closed < Closed::Reset)
    }

    fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }

    /// How often each backend was asked, by what it heard.
    fn asked(&self) -> Vec<usize> {
        let asked = |heard: &String| heard.matches(" HTTP/1.1\r\n").count();
        self.backends.iter().map(|backend| asked(&backend.heard)).collect()
    }

    /// What holds whatever happens.
    #[track_caller]
    fn check(&self) {
        assert_eq!(self.count("in flight"), 0, "{self:#?}");
        assert_eq!(self.count("unasked"), 0, "{self:#?}");
        let kept = self.backends.iter().filter(|it| it.is_kept()).count();
        assert_eq!(self.count("kept"), kept as u64, "{self:#?}");
    }
}

/// In all pairs of pieces, in one, and byte by byte: at once, and each when the one before has been
/// dealt with.
fn pieces(what: &str) -> Vec<Vec<Step>> {
    let mut cuts: Vec<Vec<&str>> =
        (1..what.len()).map(|at| vec![&what[..at], &what[at..]]).collect();
    cuts.push(vec![what]);
    cuts.push((0..what.len()).map(|at| &what[at..=at]).collect());
    let at_once = cuts.iter().map(|cut| cut.iter().map(says).collect());
    let late = cuts.iter().map(|cut| cut.iter().flat_map(|it| [Step::Pauses, says(it)]).collect());
    at_once.chain(late).collect()
}

/// A client that says this, and leaves when nothing happens any more.
fn client(says_it: Vec<Step>) -> Vec<Step> {
    says_it.into_iter().chain([Step::Pauses, Step::Pauses, Step::Ends]).collect()
}

const TWO: &str = "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 3\r\n\r\ntwo";

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
                    // Not a byte of an answer: another is asked.
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

/// A kept connection that the backend closes: while it is idle, or when it has heard the next
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
                        // Its head ends with the second empty line that it hears.
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

/// A backend that closes at each byte that it hears: another is sent all of the body.
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
                let asked = usize::from(cut >= head);
                assert_eq!(seen.asked(), [asked], "{cut} {end:?}");
                assert_eq!(seen.count("aborts"), asked as u64, "{cut} {end:?}");
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

/// Answered before its body has come: the body goes on to the backend, and both connections stay.
/// What the backend does not take any more is read and dropped.
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
fn a_tunnel_carries_what_comes_in_whatever_pieces() {
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: ws\r\n\r\n";
    let switched = "HTTP/1.1 101 S\r\nUpgrade: ws\r\nConnection: upgrade\r\n\r\n";
    let ways = pieces(&format!("{request}ping"));
    let answers = pieces(&format!("{switched}pong"));
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
        // Trailers go behind their body, apart.
        assert_eq!(seen.writes.len(), if answer == OK { 1 } else { 2 }, "{seen:#?}");
    }
}

#[test]
fn an_answer_that_was_declined_is_better_than_none() {
    let busy = "HTTP/1.1 503 Busy\r\nDate: x\r\nContent-Length: 4\r\n\r\nbusy";
    let seen = Scene {
        client: client(vec![says(GET)]),
        // Who connects next is refused.
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
