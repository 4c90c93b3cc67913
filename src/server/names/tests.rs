//! Tests of the resolver thread, with scripted answers, alone and under a whole balancer.
//!
//! Every lookup waits for the test to give its answer, so nothing here depends on luck: the effect
//! of an answer has been posted when the next lookup begins.

use std::{
    cell::RefCell,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
};

use crossbeam_channel::RecvTimeoutError;

use super::*;
use crate::config;
use crate::observe::{
    event::Event,
    reports::{self, ToHub},
};
use crate::plan::Checked;
use crate::policy::resolve::Change;
use crate::server::{
    Handle, Stop,
    spawn::Death,
    start::{Setup, begin},
};
use crate::shared::{
    counters::Counter,
    inbox::{Inbox, MovedBackend, mailbox},
};

/// However slow the machine is.
const PATIENCE: Duration = Duration::from_secs(20);

type Given = io::Result<Vec<SocketAddr>>;

/// A script's answer for a name.
type Named = (&'static str, Given);

/// A resolver that asks the test: what is looked up, and where to send the answer.
struct Script {
    asked: Receiver<(String, Sender<Given>)>,
    /// Where the answer to the last lookup goes.
    last: RefCell<Option<Sender<Given>>>,
}

impl Script {
    fn new() -> (Script, Lookup) {
        let (ask, asked) = bounded(0);
        let lookup = move |host: &str, port: u16| {
            let over = || io::Error::other("the test is over");
            let (answer, given) = bounded(0);
            ask.send((format!("{host}:{port}"), answer)).map_err(|_| over())?;
            given.recv().map_err(|_| over())?
        };
        (Script { asked, last: RefCell::default() }, Arc::new(lookup))
    }

    /// Waits until a lookup begins; returns its name.
    #[track_caller]
    fn asked(&self) -> String {
        let (name, answer) = self.asked.recv_timeout(PATIENCE).expect("no lookup begins");
        *self.last.borrow_mut() = Some(answer);
        name
    }

    #[track_caller]
    fn answers(&self, given: Given) {
        let answer = self.last.take().expect("no lookup is under way");
        answer.send_timeout(given, PATIENCE).expect("nobody waits for it");
    }

    /// The same for another thread.
    fn lent(&self) -> Script {
        Script { asked: self.asked.clone(), last: RefCell::default() }
    }

    /// Answers the next lookup.
    #[track_caller]
    fn next(&self, given: Given) {
        self.asked();
        self.answers(given);
    }
}

fn at(addresses: &[&str]) -> Given {
    Ok(addresses.iter().map(|address| address.parse().unwrap()).collect())
}

fn nowhere() -> Given {
    Err(io::Error::other("no such host"))
}

fn plan(backends: &str) -> Plan {
    let text = format!(
        "[global]\ncores = 1\npin = false\n[listener.web]\nbind = \"127.0.0.1:0\"\npool = \"app\"\n\
         [pool.app]\nresolve = \"100ms\"\ntimeouts = {{ connect = \"400ms\" }}\n\
         backends = [{backends}]\n"
    );
    config::parse("names.toml", &text)
        .unwrap_or_else(|problems| panic!("{problems}"))
        .plan
        .into_plan()
}

/// The thread alone, beside one mailbox.
struct Alone {
    script: Script,
    names: Names,
    readers: Readers,
    inbox: Inbox<ToCore>,
    health: Inbox<ToHealth>,
    told: Receiver<ToHub>,
}

impl Alone {
    fn begin(backends: &str) -> Alone {
        let (script, lookup) = Script::new();
        let (outbox, inbox) = mailbox().unwrap();
        let (reporter, told) = reports::channel();
        let (to_health, health) = mailbox().unwrap();
        let readers = Readers { cores: vec![outbox], health: to_health };
        let begun = Names::begin(
            &plan(backends),
            lookup,
            Death::new(false, &reporter),
            reporter,
            readers.clone(),
        );
        Alone { script, names: begun.unwrap().unwrap(), readers, inbox, health, told }
    }

    /// The result of a start when the first lookups give this.
    fn first(&mut self, mut given: Vec<Named>) -> usize {
        let Alone { script, names, readers, .. } = self;
        let script = script.lent();
        thread::scope(|scope| {
            scope.spawn(move || {
                while !given.is_empty() {
                    let asked = script.asked();
                    let place = given.iter().position(|(name, _)| *name == asked).unwrap();
                    script.answers(given.swap_remove(place).1);
                }
            });
            names.first(PATIENCE, readers)
        })
    }

    /// The addresses posted since the last call, backend by backend.
    fn posted(&self) -> Vec<(u16, String)> {
        let mut posted = Vec::new();
        while self.health.next().is_some() {}
        while let Some(ToCore::Addresses(found)) = self.inbox.next() {
            for MovedBackend { backend, addresses, .. } in &*found {
                posted.push((backend.0, format!("{addresses:?}")));
            }
        }
        posted
    }

    /// The events since the last call; the effect of an answer has been reported when the next
    /// lookup begins.
    fn told(&self) -> Vec<String> {
        self.told.try_iter().filter_map(ToHub::told).map(said).collect()
    }
}

/// An event, in short.
fn said(what: Report) -> String {
    let Report::Name(PoolId(0), BackendId(id), news) = what else { panic!("{what:?}") };
    match *news {
        (Change::Same, _) => format!("{id} same"),
        (Change::Kept, why) => format!("{id} kept: {why}"),
        (Change::Unknown, why) => format!("{id} unknown: {why}"),
        (Change::Now { addresses, gone }, _) => format!("{id} now {addresses:?}, not {gone:?}"),
    }
}

#[test]
fn a_start_gets_the_first_answers_and_notes_of_those_that_fail() {
    let mut alone = Alone::begin(
        "\"a.test:80\", \"10.0.0.9:80\", \"localhost:1\", \
         { address = \"b.test:81\", name = \"b\" }",
    );
    let unknown = alone
        .first(vec![("a.test:80", at(&["10.0.0.1:80", "10.0.0.2:80"])), ("b.test:81", nowhere())]);
    assert_eq!(unknown, 1);
    assert_eq!(alone.told(), ["3 unknown: no such host"]);
    assert_eq!(alone.posted(), [(0, "[10.0.0.1:80, 10.0.0.2:80]".to_owned())]);
    let one = alone.script.asked();
    let _unanswered = alone.script.last.take();
    assert_ne!(one, alone.script.asked(), "both are looked up again, beside each other");
    assert_eq!(alone.told(), [""; 0]);
}

#[test]
fn a_change_is_posted_and_told_once() {
    let mut alone = Alone::begin("\"a.test:80\"");
    alone.first(vec![("a.test:80", nowhere())]);
    alone.script.asked();
    alone.told();
    for (given, posted, told) in [
        (nowhere(), "", ""),
        (at(&["10.0.0.1:80"]), "[10.0.0.1:80]", "0 now [10.0.0.1:80], not []"),
        (at(&["10.0.0.1:80"]), "", ""),
        (nowhere(), "", "0 kept: no such host"),
        (at(&[]), "", ""),
        (at(&["10.0.0.1:80"]), "", "0 same"),
        (
            at(&["10.0.0.2:80", "10.0.0.1:80"]),
            "[10.0.0.1:80, 10.0.0.2:80]",
            "0 now [10.0.0.1:80, 10.0.0.2:80], not []",
        ),
        (at(&["10.0.0.2:80"]), "[10.0.0.2:80]", "0 now [10.0.0.2:80], not [10.0.0.1:80]"),
    ] {
        alone.script.answers(given);
        alone.script.asked();
        let seen: Vec<String> = alone.posted().into_iter().map(|(_, found)| found).collect();
        assert_eq!(seen.concat(), posted, "{told}");
        assert_eq!(alone.told().concat(), told);
    }
}

#[test]
fn a_core_that_is_busy_gets_one_message_and_then_the_latest() {
    let mut alone = Alone::begin("\"a.test:80\"");
    alone.first(vec![("a.test:80", nowhere())]);
    let again = |given| {
        alone.script.answers(given);
        alone.script.asked();
    };
    alone.script.asked();
    again(at(&["10.0.0.1:80"]));
    let held = (alone.inbox.next(), alone.health.next());
    assert!(held.0.is_some() && held.1.is_some());
    again(at(&["10.0.0.2:80"]));
    again(at(&["10.0.0.3:80"]));
    assert_eq!(alone.posted(), []);
    drop(held);
    again(at(&["10.0.0.3:80"]));
    assert_eq!(alone.posted(), [(0, "[10.0.0.3:80]".to_owned())]);
}

#[test]
fn a_start_does_not_wait_for_a_lookup_that_hangs() {
    let mut alone = Alone::begin("\"a.test:80\"");
    let unknown = alone.names.first(Duration::from_millis(50), &alone.readers);
    assert_eq!(unknown, 1);
    assert_eq!(alone.told(), ["0 unknown: no answer after 50ms"]);
    alone.script.next(at(&["10.0.0.1:80"]));
    alone.script.asked();
    assert_eq!(alone.posted(), [(0, "[10.0.0.1:80]".to_owned())]);
    assert_eq!(alone.told(), ["0 now [10.0.0.1:80], not []"]);
}

#[test]
fn silent_names_delay_nobody() {
    let mut backends: Vec<String> = (0..100).map(|name| format!("\"s{name}.test:80\"")).collect();
    backends.insert(40, "\"good.test:80\"".to_owned());
    let mut alone = Alone::begin(&backends.join(", "));
    let script = alone.script.lent();
    let answering = thread::spawn(move || {
        let mut silent = Vec::new();
        // Until it is asked again while all the others are silent.
        while let Ok((name, answer)) = script.asked.recv_timeout(PATIENCE) {
            match &*name {
                "good.test:80" if silent.len() == 100 => break,
                "good.test:80" => answer.send(at(&["10.0.0.1:80"])).unwrap(),
                _ => silent.push(answer),
            }
        }
        silent.len()
    });
    let unknown = alone.names.first(PATIENCE / 4, &alone.readers);
    assert_eq!(unknown, 100);
    assert_eq!(answering.join().unwrap(), 100);
    assert_eq!(alone.posted(), [(40, "[10.0.0.1:80]".to_owned())]);
}

#[test]
fn an_end_does_not_wait_for_a_lookup_that_hangs() {
    let mut alone = Alone::begin("\"a.test:80\"");
    alone.first(vec![("a.test:80", nowhere())]);
    let Alone { script, names, inbox, told, .. } = alone;
    told.try_iter().for_each(drop);
    script.asked();
    drop(names);
    script.answers(at(&["10.0.0.1:80"]));
    // The thread takes its end of the script with it.
    let ended = script.asked.recv_timeout(PATIENCE).map(|(name, _)| name);
    assert_eq!(ended, Err(RecvTimeoutError::Disconnected));
    assert!(inbox.next().is_none());
    assert!(told.is_empty());
}

#[test]
fn no_thread_is_started_for_nothing() {
    let plan = plan("\"127.0.0.1:1\", \"localhost:1\"");
    let lookup: Lookup = Arc::new(|_, _| nowhere());
    let readers = Readers { cores: Vec::new(), health: mailbox().unwrap().0 };
    let begun = Names::begin(&plan, lookup, Death::Exit, reports::channel().0, readers);
    assert!(begun.unwrap().is_none());
}

/// A whole balancer whose names are scripted.
struct Balancer {
    script: Script,
    handle: Handle,
}

impl Balancer {
    fn start(more: &str, first: Given) -> Balancer {
        let (script, lookup) = Script::new();
        let mut plan = plan("\"a.test:80\"");
        if more == "each connection serves one request" {
            plan.pools.get_mut(PoolId(0)).unwrap().connections.requests_max = 1;
        }
        let setup = Setup { lookup, ..Setup::default() };
        let handle = thread::scope(|scope| {
            let script = script.lent();
            scope.spawn(move || script.next(first));
            begin(Checked::new(plan), setup).unwrap()
        });
        Balancer { script, handle }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.handle.addresses()[0].1.tcp().unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    #[track_caller]
    fn expect_count(&self, counter: Counter, expected: u64) {
        eventually(&format!("{counter:?}"), || self.handle.total(counter) == expected);
    }
}

#[track_caller]
fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "{what} never came true");
        thread::yield_now();
    }
}

fn send(mut stream: &TcpStream, target: &str) {
    write!(stream, "GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap();
}

/// The status and the body of the next answer.
fn answer(mut stream: &TcpStream) -> (u16, String) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(char::from(byte[0].to_ascii_lowercase()));
    }
    let (_, length) = head.split_once("content-length: ").unwrap();
    let mut body = vec![0; length.split('\r').next().unwrap().parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    (head[9..12].parse().unwrap(), String::from_utf8(body).unwrap())
}

fn get(stream: &TcpStream, target: &str) -> (u16, String) {
    send(stream, target);
    answer(stream)
}

/// A server that answers with its name and a dot; `/held` only once it is told to.
struct Origin {
    address: String,
    /// How many connections there have been, and how many of them have ended.
    opened: Receiver<()>,
    closed: Receiver<()>,
    go_on: Sender<()>,
}

impl Origin {
    fn open(name: &'static str) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (opens, opened) = crossbeam_channel::unbounded();
        let (closes, closed) = crossbeam_channel::unbounded();
        let (go_on, told) = crossbeam_channel::unbounded();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (closes, told) = (closes.clone(), told.clone());
                let _ = opens.send(());
                thread::spawn(move || {
                    serve(stream.unwrap(), name, &told);
                    closes.send(())
                });
            }
        });
        Origin { address, opened, closed, go_on }
    }
}

fn serve(mut stream: TcpStream, name: &str, told: &Receiver<()>) {
    let mut head = String::new();
    let mut byte = [0];
    while stream.read_exact(&mut byte).is_ok() {
        head.push(char::from(byte[0]));
        if !head.ends_with("\r\n\r\n") {
            continue;
        }
        if head.starts_with("GET /held ") {
            let _ = told.recv();
        }
        head.clear();
        let length = name.len() + 1;
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}.");
    }
}

#[test]
fn each_address_has_connections_of_its_own_and_loses_them_with_it() {
    let (one, two) = (Origin::open("one"), Origin::open("two"));
    let balancer = Balancer::start("", at(&[&one.address, &two.address]));
    let idle = Counter::BackendIdle;
    let (first, second) = (balancer.connect(), balancer.connect());
    // While the one is held, a new connection begins with the other.
    send(&first, "/held");
    one.opened.recv_timeout(PATIENCE).unwrap();
    assert_eq!(get(&second, "/").1, "two.");
    one.go_on.send(()).unwrap();
    assert_eq!(answer(&first).1, "one.");
    balancer.expect_count(idle, 2);
    let order: String = (0..4).map(|_| get(&first, "/").1).collect();
    assert!(["one.two.one.two.", "two.one.two.one."].contains(&&*order), "{order}");
    balancer.script.next(at(&[&two.address]));
    one.closed.recv_timeout(PATIENCE).expect("its idle connection is closed");
    balancer.expect_count(idle, 1);
    for _ in 0..3 {
        assert_eq!(get(&first, "/").1, "two.");
    }
    assert_eq!(two.opened.try_iter().count(), 1, "the other stays, and is used");
    assert!(two.closed.is_empty());
    assert_eq!(balancer.handle.total(Counter::BackendOpened), 2);
    drop((first, second));
    assert!(balancer.handle.stop(Stop::Graceful));
}

#[test]
fn a_connection_in_use_ends_with_its_address_once_it_has_answered() {
    let (one, two) = (Origin::open("one"), Origin::open("two"));
    let balancer = Balancer::start("", at(&[&one.address]));
    let client = balancer.connect();
    send(&client, "/held");
    one.opened.recv_timeout(PATIENCE).unwrap();
    balancer.script.next(at(&[&two.address]));
    // Another client's answer shows that the core knows. Before that it may get a connection to the
    // first as well, which is idle when the address goes.
    let other = balancer.connect();
    eventually("the move", || get(&other, "/").1 == "two.");
    for _ in one.opened.try_iter() {
        one.closed.recv_timeout(PATIENCE).expect("an idle connection is closed");
    }
    assert!(one.closed.is_empty(), "one in use is not");
    one.go_on.send(()).unwrap();
    assert_eq!(answer(&client), (200, "one.".to_owned()));
    one.closed.recv_timeout(PATIENCE).expect("it is not kept");
    assert_eq!(get(&client, "/").1, "two.");
}

#[test]
fn a_dead_address_leaves_time_for_the_others() {
    let alive = Origin::open("alive");
    // A full backlog: the kernel drops every further connect.
    let dead = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&dead, 0).unwrap();
    let address = dead.local_addr().unwrap();
    let fill = || TcpStream::connect_timeout(&address, Duration::from_millis(50));
    let _full: Vec<TcpStream> = std::iter::from_fn(|| fill().ok()).collect();
    let balancer = Balancer::start(
        "each connection serves one request",
        at(&[&address.to_string(), &alive.address]),
    );
    let client = balancer.connect();
    for _ in 0..4 {
        assert_eq!(get(&client, "/"), (200, "alive.".to_owned()));
    }
    assert_eq!(balancer.handle.total(Counter::BackendConnectFailures), 1, "then it is avoided");
    let statistics = balancer.handle.statistics().unwrap();
    assert!(statistics.pools[0].retries.is_empty());
}

#[test]
fn an_embedder_hears_that_a_name_stopped_resolving() {
    let origin = Origin::open("here");
    let balancer = Balancer::start("", at(&[&origin.address]));
    let events = balancer.handle.events();
    balancer.script.next(nowhere());
    let stale = || match &events.next_within(PATIENCE).expect("nothing is told").event {
        Event::NameStale { name, cause } => Some((name.clone(), cause.to_string())),
        _ => None,
    };
    let (name, cause) = std::iter::repeat_with(stale).find_map(|it| it).unwrap();
    assert_eq!((&*name.pool, &*name.address, &*cause), ("app", "a.test:80", "no such host"));
    assert_eq!(get(&balancer.connect(), "/").1, "here.");
}

#[test]
fn a_backend_without_an_address_is_asked_once_it_has_one() {
    let origin = Origin::open("here");
    let balancer = Balancer::start("", nowhere());
    assert_eq!(balancer.handle.backends_without_address(), 1);
    let client = balancer.connect();
    let (status, body) = get(&client, "/");
    assert_eq!(status, 503);
    assert!(body.contains("No healthy backends available"), "{body}");
    balancer.script.next(at(&[&origin.address]));
    eventually("the answer", || get(&client, "/") == (200, "here.".to_owned()));
}
