//! Tests of the names thread with scripted answers, and of the lookups themselves with a name
//! server of their own.
//!
//! A scripted lookup waits for the test to give its answer, so nothing depends on luck: the effect
//! of an answer has been posted when the next lookup begins.

use std::{cell::RefCell, net::SocketAddr};

use crossbeam_channel::RecvTimeoutError;

use super::*;
use crate::observe::{
    event::Event,
    reports::{self, Report, ToHub},
};
use crate::policy::{
    overlay::Want,
    resolve::{Found, Service},
};
use crate::testkit::name_server::{NameServer, Record};

/// However slow the machine is.
const PATIENCE: Duration = Duration::from_secs(20);

type Given = Result<Answer, String>;

/// A resolver that asks the test: what is looked up, and what takes the answer.
struct Script {
    asked: Receiver<(String, Answered)>,
    /// What takes the answer to the last lookup.
    last: RefCell<Option<Answered>>,
}

impl Script {
    fn new() -> (Script, Lookup) {
        let (to_test, asked) = unbounded();
        let lookup = move || -> Ask {
            let to_test = to_test.clone();
            Box::new(move |address: Address, answered| {
                let _ = to_test.send((address.to_string(), answered));
            })
        };
        (Script { asked, last: RefCell::default() }, Arc::new(lookup))
    }

    /// Waits until a lookup begins; returns its name.
    #[track_caller]
    fn asked(&self) -> String {
        let (name, answered) = self.asked.recv_timeout(PATIENCE).expect("no lookup begins");
        *self.last.borrow_mut() = Some(answered);
        name
    }

    #[track_caller]
    fn answers(&self, given: Given) {
        self.last.take().expect("no lookup is under way")(given);
    }
}

fn at(addresses: &[&str]) -> Given {
    let found = |text: &&str| Found { at: text.parse().unwrap(), service: None };
    Ok(Answer { found: addresses.iter().map(found).collect(), time_to_live: None })
}

fn nowhere() -> Given {
    Err("no such host".to_owned())
}

fn name(text: &str) -> Address {
    crate::config::backend_address(text).unwrap()
}

/// These names, each as the backend of that name of pool `app`.
fn wanted(names: &[&str]) -> Wanted {
    let want = |text: &&str| {
        let by = vec![("app".to_owned(), (*text).to_owned())];
        (name(text), Want { resolve: Duration::from_millis(100), by })
    };
    names.iter().map(want).collect()
}

/// The thread alone.
struct Alone {
    script: Script,
    names: Names,
    posted: Receiver<Members>,
    told: Receiver<ToHub>,
}

impl Alone {
    fn begin(names: &[&str]) -> Alone {
        let (script, lookup) = Script::new();
        let (reporter, told) = reports::channel();
        let death = Death::new(false, &reporter);
        let (means, posted) = Means::new(lookup, &reporter, &death);
        let names = Names::begin(&means, wanted(names)).unwrap();
        Alone { script, names, posted, told }
    }

    /// The addresses of all names as posted last, if they were since the last call.
    fn posted(&self) -> String {
        let Some(members) = self.posted.try_iter().last() else { return String::new() };
        let one = |(name, found): (&Address, &Arc<[Found]>)| {
            let addresses: Vec<String> = found.iter().map(|it| it.at.to_string()).collect();
            format!("{name}={}", addresses.join(","))
        };
        members.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    /// The events since the last call; the effect of an answer has been reported when the next
    /// lookup begins.
    fn told(&self) -> Vec<String> {
        self.told.try_iter().filter_map(ToHub::told).map(said).collect()
    }
}

/// An event, in short.
fn said(what: Report) -> String {
    let Report::Event(event) = what else { panic!("{what:?}") };
    let fields = event.fields();
    let (word, address) = (event.word(), fields.address.unwrap_or_default());
    assert_eq!((fields.pool, fields.backend), (Some("app"), fields.address));
    match &*event {
        Event::NameMoved { addresses, gone, .. } => {
            format!("{word} {address} {addresses:?} not {gone:?}")
        }
        _ => format!("{word} {address} {}", fields.cause.unwrap_or_default()),
    }
}

#[test]
fn a_start_gets_the_first_answers_and_notes_of_those_that_fail() {
    let alone = Alone::begin(&["a.test:80", "b.test:81"]);
    let known = alone.names.foresee(wanted(&["a.test:80", "b.test:81"]));
    for _ in 0..2 {
        let answer = match &*alone.script.asked() {
            "a.test:80" => at(&["10.0.0.2:80", "10.0.0.1:80"]),
            _ => nowhere(),
        };
        alone.script.answers(answer);
    }
    assert_eq!(known.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
    assert_eq!(alone.posted(), "a.test:80=10.0.0.1:80,10.0.0.2:80");
    let one = alone.script.asked();
    let _unanswered = alone.script.last.take();
    assert_ne!(one, alone.script.asked(), "both are looked up again, beside each other");
    assert_eq!(alone.told(), ["name_unknown b.test:81 no such host"]);
}

#[test]
fn a_change_is_posted_and_told_once() {
    let alone = Alone::begin(&["a.test:80"]);
    alone.script.asked();
    for (given, posted, told) in [
        (nowhere(), "", "name_unknown a.test:80 no such host"),
        (nowhere(), "", ""),
        (
            at(&["10.0.0.1:80"]),
            "a.test:80=10.0.0.1:80",
            "name_moved a.test:80 [10.0.0.1:80] not []",
        ),
        (at(&["10.0.0.1:80"]), "", ""),
        (nowhere(), "", "name_stale a.test:80 no such host"),
        (at(&[]), "", ""),
        (at(&["10.0.0.1:80"]), "", "name_resolved a.test:80 "),
        (
            at(&["10.0.0.2:80", "10.0.0.1:80"]),
            "a.test:80=10.0.0.1:80,10.0.0.2:80",
            "name_moved a.test:80 [10.0.0.1:80, 10.0.0.2:80] not []",
        ),
        (
            at(&["10.0.0.2:80"]),
            "a.test:80=10.0.0.2:80",
            "name_moved a.test:80 [10.0.0.2:80] not [10.0.0.1:80]",
        ),
        (
            at(&["10.0.0.3:80"]),
            "a.test:80=10.0.0.2:80,10.0.0.3:80",
            "name_moved a.test:80 [10.0.0.2:80, 10.0.0.3:80] not []\
             name_held a.test:80 1 are lacking: 10.0.0.2:80",
        ),
    ] {
        alone.script.answers(given);
        alone.script.asked();
        assert_eq!(alone.posted(), posted, "{told}");
        assert_eq!(alone.told().concat(), told);
    }
}

#[test]
fn a_start_does_not_wait_for_a_lookup_that_hangs() {
    let alone = Alone::begin(&["a.test:80"]);
    alone.script.asked();
    alone.names.first(wanted(&["a.test:80"]), Duration::from_millis(50));
    alone.script.answers(at(&["10.0.0.1:80"]));
    alone.script.asked();
    assert_eq!(alone.posted(), "a.test:80=10.0.0.1:80");
    let told = alone.told();
    let [late, then] = &told[..] else { panic!("{told:?}") };
    assert_eq!(late, "name_unknown a.test:80 no answer after 50ms");
    assert_eq!(then, "name_moved a.test:80 [10.0.0.1:80] not []");
}

#[test]
fn silent_names_delay_nobody() {
    let silent: Vec<String> = (0..100).map(|number| format!("s{number}.test:80")).collect();
    let mut names: Vec<&str> = silent.iter().map(String::as_str).collect();
    names.push("a.test:80");
    let alone = Alone::begin(&names);
    let mut unanswered = Vec::new();
    // Until it is asked again while all the others are silent.
    let mut answered = 0;
    while answered == 0 || unanswered.len() < 100 {
        match &*alone.script.asked() {
            "a.test:80" => {
                answered += 1;
                alone.script.answers(at(&["10.0.0.1:80"]));
            }
            _ => unanswered.push(alone.script.last.take()),
        }
    }
    assert_eq!(alone.script.asked(), "a.test:80");
    assert_eq!(alone.posted(), "a.test:80=10.0.0.1:80");
}

#[test]
fn names_that_are_not_wanted_any_more_are_forgotten_and_the_others_stay() {
    let alone = Alone::begin(&["a.test:80"]);
    alone.script.asked();
    alone.script.answers(at(&["10.0.0.1:80"]));
    alone.script.asked();
    assert_eq!(alone.posted(), "a.test:80=10.0.0.1:80");
    let _unanswered = alone.script.last.take();
    let known = alone.names.foresee(wanted(&["b.test:80"]));
    assert_eq!(alone.script.asked(), "b.test:80");
    alone.script.answers(at(&["10.0.0.2:80"]));
    assert_eq!(known.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
    assert_eq!(alone.posted(), "a.test:80=10.0.0.1:80 b.test:80=10.0.0.2:80");
    alone.names.want(wanted(&["b.test:80"]));
    alone.script.asked();
    alone.script.answers(at(&["10.0.0.2:80", "10.0.0.3:80"]));
    alone.script.asked();
    assert_eq!(alone.posted(), "b.test:80=10.0.0.2:80,10.0.0.3:80");
}

#[test]
fn an_end_does_not_wait_for_a_lookup_that_hangs() {
    let alone = Alone::begin(&["a.test:80"]);
    alone.script.asked();
    let Alone { script, names, posted, told } = alone;
    drop(names);
    script.answers(at(&["10.0.0.1:80"]));
    // The thread takes its end of the script with it.
    let ended = script.asked.recv_timeout(PATIENCE).map(|(name, _)| name);
    assert_eq!(ended, Err(RecvTimeoutError::Disconnected));
    assert!(posted.is_empty() && told.is_empty());
}

/// What this server says of a name: its addresses, or why there are none; and for how long.
fn looked_up(server: &NameServer, text: &str) -> (String, Option<Duration>) {
    let (to_test, given) = bounded(1);
    let mut ask = by_the_system(vec![server.address()])();
    ask(name(text), Box::new(move |answer| to_test.send(answer).unwrap()));
    let given: Given = given.recv_timeout(PATIENCE).expect("it is not answered");
    match given {
        Err(why) => (why, None),
        Ok(Answer { mut found, time_to_live }) => {
            found.sort();
            let one = |Found { at, service }: &Found| match service {
                None => at.to_string(),
                Some(Service { target, priority, weight }) => {
                    format!("{at} {target} {priority} {weight}")
                }
            };
            (found.iter().map(one).collect::<Vec<_>>().join(", "), time_to_live)
        }
    }
}

fn host(text: &str) -> Record {
    Record::Host(text.parse().unwrap())
}

#[track_caller]
fn check(server: &NameServer, text: &str, expected: &str, seconds: u64) {
    let (found, time) = looked_up(server, text);
    assert_eq!(found, expected, "{text}");
    // It has been on its way.
    let time = time.map_or(0, |time| (time + Duration::from_millis(900)).as_secs());
    assert_eq!(time, seconds, "{text}");
}

#[test]
fn a_name_server_is_asked_for_addresses_of_both_families_and_how_long_they_are_valid() {
    let server = NameServer::open();
    server.says("four.test", 30, vec![host("10.0.0.2"), host("10.0.0.1")]);
    server.says("six.test", 7, vec![host("fd00::1")]);
    server.says("both.test", 9, vec![host("::1"), host("127.0.0.1"), host("127.0.0.2")]);
    server.says("none.test", 9, vec![]);
    server.fails("bad.test");
    check(&server, "four.test:80", "10.0.0.1:80, 10.0.0.2:80", 30);
    check(&server, "six.test:81", "[fd00::1]:81", 7);
    check(&server, "both.test:82", "127.0.0.1:82, 127.0.0.2:82", 9);
    check(&server, "none.test:80", "it has no address", 0);
    check(&server, "no.test:80", "there is no such name", 0);
    let (why, _) = looked_up(&server, "bad.test:80");
    assert!(why.contains("Server Failure"), "{why}");
}

#[test]
fn what_was_answered_is_asked_again() {
    let server = NameServer::open();
    for number in 1..=5 {
        let address = format!("10.0.0.{number}");
        server.says("a.test", 600, vec![host(&address)]);
        check(&server, "a.test:80", &format!("{address}:80"), 600);
    }
}

#[test]
fn an_answer_that_is_too_long_for_a_packet_is_asked_for_again() {
    let server = NameServer::open();
    let all: Vec<String> = (0..1_000).map(|at| format!("10.0.{}.{}", at / 250, at % 250)).collect();
    server.says("many.test", 60, all.iter().map(|address| host(address)).collect());
    let (found, _) = looked_up(&server, "many.test:80");
    assert_eq!(found.split(", ").count(), 1_000, "{found}");
    assert!(all.iter().all(|address| found.contains(&format!("{address}:80"))));
}

#[test]
fn services_have_hosts_ports_weights_and_priorities() {
    let server = NameServer::open();
    let service = Record::Service;
    let records = vec![
        service(1, 20, 81, "a.test"),
        service(1, 10, 82, "b.test"),
        service(2, 0, 83, "a.test"),
        service(2, 0, 84, "gone.test"),
    ];
    server.says("_http._tcp.app.test", 60, records);
    server.says("a.test", 20, vec![host("10.0.0.1")]);
    server.says("b.test", 40, vec![host("10.0.0.2"), host("10.0.0.3")]);
    let expected = "10.0.0.1:81 a.test 1 20, 10.0.0.1:83 a.test 2 0, \
                    10.0.0.2:82 b.test 1 10, 10.0.0.3:82 b.test 1 10";
    check(&server, "srv:_http._tcp.app.test", expected, 20);
    server.fails("b.test");
    let (why, _) = looked_up(&server, "srv:_http._tcp.app.test");
    assert!(why.contains("Server Failure"), "{why}");
    server.says("_http._tcp.app.test", 60, vec![]);
    check(&server, "srv:_http._tcp.app.test", "it has no address", 0);
}

#[test]
fn the_file_of_hosts_is_honoured_whatever_servers_say() {
    let lines = std::fs::read_to_string("/etc/hosts").unwrap();
    let of_line = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address: std::net::IpAddr = words.next()?.parse().ok()?;
        let name = words.next()?.to_owned();
        (address.is_ipv4() && !name.contains("localhost")).then_some((address, name))
    };
    let Some((address, name)) = lines.lines().find_map(of_line) else { return };
    let server = NameServer::open();
    server.says(&name, 60, vec![host("10.0.0.1")]);
    let expected = SocketAddr::new(address, 80).to_string();
    let (found, time) = looked_up(&server, &format!("{name}:80"));
    assert!(found.contains(&expected) && time.is_none(), "{found}");
    assert_eq!(server.asked(), [""; 0]);
}
