//! Scenes: one client and its backends, scripted, and the result.
//!
//! The client is served by `server::connection` itself, to the end of its connection, and by a
//! whole worker.

use std::{collections::BTreeMap, rc::Rc, sync::Arc, time::Duration};

use super::{
    beside,
    play::{self, play},
};
use crate::base::ids::{ListenerId, PoolId};
use crate::net::{
    deadlines::Watch,
    stream::script::{self, Answers, Closed, Script, Step, says},
};
use crate::server::connection::serve;
use crate::shared::{
    certs::Challenges,
    counters::Counter,
    request_times::{Phase, Timed},
    tally::Key,
};
use crate::worker::Worker;

/// What a client sends, what the backends do, and how the pool is configured.
#[derive(Default)]
pub(crate) struct Scene {
    pub(crate) client: Vec<Step>,
    pub(crate) backends: Vec<Vec<Step>>,
    /// Whether they are all one backend.
    pub(crate) alone: bool,
    /// Keys of the pool, of the listener, and of the limits of all.
    pub(crate) pool: &'static str,
    pub(crate) listener: &'static str,
    pub(crate) limits: &'static str,
    /// What authorities look for.
    pub(crate) challenges: Option<Arc<Challenges>>,
}

/// The result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// What the client got, the lengths of the writes, and how its connection ended.
    pub(crate) client: String,
    pub(crate) client_bytes: Vec<u8>,
    pub(crate) writes: Vec<usize>,
    pub(crate) closed: Closed,
    pub(crate) backends: Vec<Backend>,
    pub(crate) counts: Counts,
    /// The times that were counted, in milliseconds: of requests, of what they spent here, and of
    /// each of their phases.
    pub(crate) times: Vec<u64>,
    /// How long it took, by the clock of the play.
    pub(crate) took: Duration,
}

/// What one backend got, and how its connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backend {
    pub(crate) heard: String,
    pub(crate) writes: Vec<usize>,
    pub(crate) closed: Closed,
    pub(crate) is_gone: bool,
    pub(crate) was_asked: bool,
}

impl Backend {
    /// Whether its connection is kept for the next request.
    pub(crate) fn is_kept(&self) -> bool {
        !self.is_gone && self.was_asked
    }
}

/// The counters that are not zero, except those of every request.
pub(crate) type Counts = BTreeMap<&'static str, u64>;

impl Scene {
    pub(crate) fn play(self) -> Seen {
        play(async {
            let text = format!(
                "[global.limits]\n{}\n\
                 [listener.web]\nbind = \"127.0.0.1:0\"\npool = \"app\"\n{}\n\
                 [pool.app]\nbackends = [\"127.0.0.1:1\"{}]\n{}\n",
                self.limits,
                self.listener,
                if self.alone { "" } else { ", \"127.0.0.1:2\"" },
                self.pool
            );
            let worker = Worker::crew(&text, 1).remove(0);
            worker.answer_challenges(self.challenges);
            let backends: Vec<_> = self.backends.into_iter().map(Script::new).collect();
            script::answers(backends.iter().map(|script| Answers::Ok(Rc::clone(script))));
            let client = Script::new(self.client);
            let sweeping = Rc::clone(&worker);
            let began = worker.clock.tick();
            let watch = Watch::Client(ListenerId(0));
            let stream = client.stream(|fd| worker.deadlines.watch(fd, watch));
            let serving = async {
                serve(&worker, stream, ListenerId(0)).await;
                play::tasks_end().await;
            };
            beside(serving, sweeping.deadlines.sweep(|| sweeping.turn())).await;
            let text = |script: &Script| String::from_utf8(script.heard()).expect("text");
            let counts = [
                ("stale", Counter::BackendStale),
                ("kept", Counter::BackendIdle),
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
            let mut counts: Counts =
                counts.map(|(name, counter)| (name, worker.counters.read(counter))).into();
            let retries = worker.counters.tally().all();
            let retries = retries.filter(|(key, _)| matches!(key, Key::Retries(..)));
            counts.insert("retries", retries.map(|(_, count)| count).sum());
            counts.insert("open", worker.counters.read(Counter::Connections));
            counts.insert("in flight", worker.in_force().pool(PoolId(0)).core.all_in_flight());
            counts.retain(|_, count| *count > 0);
            let times = [Timed::Request(None), Timed::Own].into_iter();
            let times = times.chain(Phase::ALL.map(Timed::Phase)).map(|what| {
                let reading = worker.counters.times().read(what);
                reading.map_or(0, |reading| reading.micros / 1_000)
            });
            Seen {
                times: times.collect(),
                client: String::from_utf8_lossy(&client.heard()).into_owned(),
                client_bytes: client.heard(),
                writes: client.writes(),
                closed: client.closed(),
                backends: backends.iter().map(backend).collect(),
                counts,
                took: worker.clock.tick().since(began),
            }
        })
    }
}

/// A backend that receives a head and then does this.
pub(crate) fn after_a_head(steps: Vec<Step>) -> Vec<Step> {
    std::iter::once(Step::HearsOf("\r\n\r\n")).chain(steps).collect()
}

/// The client's answers, one by one: status, and the body, or the code of a fault, or `cut` if the
/// answer ends early.
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

/// A chunked body, and what follows it; none if it was cut.
pub(crate) fn dechunked(mut rest: &str) -> (Option<String>, &str) {
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
    /// The client's answers.
    pub(crate) fn told(&self) -> String {
        told(&self.client, self.closed < Closed::Reset)
    }

    pub(crate) fn count(&self, name: &str) -> u64 {
        self.counts.get(name).copied().unwrap_or(0)
    }

    /// How often each backend was asked, by what it received.
    pub(crate) fn asked(&self) -> Vec<usize> {
        let asked = |heard: &String| heard.matches(" HTTP/1.1\r\n").count();
        self.backends.iter().map(|backend| asked(&backend.heard)).collect()
    }

    /// Invariants of every result.
    #[track_caller]
    pub(crate) fn check(&self) {
        assert_eq!((self.count("in flight"), self.count("open")), (0, 0), "{self:#?}");
        assert_eq!(self.count("unasked"), 0, "{self:#?}");
        let kept = self.backends.iter().filter(|it| it.is_kept()).count();
        assert_eq!(self.count("kept"), kept as u64, "{self:#?}");
    }
}

/// In all pairs of pieces, in one, and byte by byte: at once, and each when the one before has been
/// handled.
pub(crate) fn pieces(what: &str) -> Vec<Vec<Step>> {
    let mut cuts: Vec<Vec<&str>> =
        (1..what.len()).map(|at| vec![&what[..at], &what[at..]]).collect();
    cuts.push(vec![what]);
    cuts.push((0..what.len()).map(|at| &what[at..=at]).collect());
    let at_once = cuts.iter().map(|cut| cut.iter().map(says).collect());
    let late = cuts.iter().map(|cut| cut.iter().flat_map(|it| [Step::Pauses, says(it)]).collect());
    at_once.chain(late).collect()
}

/// A client that sends this, and leaves when nothing happens any more.
pub(crate) fn client(says_it: Vec<Step>) -> Vec<Step> {
    says_it.into_iter().chain([Step::Pauses, Step::Pauses, Step::Ends]).collect()
}
