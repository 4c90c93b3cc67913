//! Tests of a core that changes plans: what stays, what is removed, and when a plan is returned.
//!
//! Seats are as the owner of the plan would assign them; `policy/seats` tests that it does.

use std::{
    os::{fd::AsRawFd, unix::net::UnixStream},
    rc::Rc,
    sync::Arc,
};

use crossbeam_channel::{Receiver, unbounded};

use super::*;
use crate::base::{
    backend_set::BackendSet,
    moment::{Deadline, Tick},
};
use crate::http::head::RequestHead;
use crate::net::deadlines::{Ended, Rest, Watch};
use crate::plan::{self, BackendId, ListenerId, Plan, PoolId, RouteId, Table};
use crate::shared::counters::{Counter, Slab};

const TEXT: &str = r#"
    [listener.web]
    bind = "127.0.0.1:0"
    pool = "app"

    [listener.other]
    bind = "127.0.0.1:0"
    pool = "app"

    [pool.app]
    balance = "least-response-time"
    backends = ["127.0.0.1:9", "127.0.0.1:10", "127.0.0.1:11"]

    [pool.gone]
    backends = ["127.0.0.1:9"]
"#;

const APP: PoolId = PoolId(0);

fn parse(text: &str) -> Plan {
    crate::config::parse("plans.toml", text).unwrap().plan.into_plan()
}

fn pick(view: &PoolView) -> Option<Pick> {
    let (tried, now) = (BackendSet::EMPTY, Tick::from_millis(1));
    let wanted =
        Wanted { tried: &tried, key: None, pinned: None, avoids_trials: false, since: None, now };
    view.pick(&wanted).ok()
}

/// A core, its process, and the shared state of the plan that it serves.
fn served() -> (Rc<Worker>, States, Receiver<Retired>) {
    let (retired, freed) = unbounded();
    let process = Process { retired, ..Process::alone(1) };
    let (plan, mut states) = (parse(TEXT), States::default());
    states.grow(&plan, 1, &process.rooms);
    let next = states.next((1, 1, Arc::new(plan)), Default::default(), (0, None));
    let own = WorkerSeed { core_index: 0, counters: Slab::new(), outlets: Table::default() };
    (Worker::new(process, &next, own), states, freed)
}

/// Changes to the plan of this text, whose seats are those of the one before.
fn change(worker: &Worker, states: &mut States, generation: u64, plan: Plan) {
    states.grow(&plan, 1, &worker.core.process.rooms);
    let next = states.next((generation, 1, Arc::new(plan)), Default::default(), (0, None));
    worker.change(&next, None, Table::new());
}

#[test]
fn what_stays_goes_on_and_a_plan_is_given_back_when_its_last_request_has_ended() {
    let (worker, mut states, freed) = served();
    let first = worker.in_force();
    let view = Rc::clone(first.pool(APP));
    let under_way = pick(&view).unwrap();
    let mut plan = parse(TEXT);
    Arc::make_mut(plan.pools.get_mut(APP).unwrap()).queue.size = 7;
    change(&worker, &mut states, 2, plan);
    let second = worker.in_force();
    assert!(Rc::ptr_eq(&second.pool(APP).core, &view.core));
    assert!(!Rc::ptr_eq(second.pool(APP), &view), "it is another plan's");
    assert!(Rc::ptr_eq(second.pool(PoolId(1)), first.pool(PoolId(1))), "nothing has changed");
    assert!(std::ptr::eq(under_way.conns(), second.pool(APP).conns_of(under_way.backend())));
    assert!(freed.try_recv().is_err(), "a request holds the first");
    assert_eq!(view.core.state.load.in_flight(under_way.backend()), 1);
    drop((first, under_way));
    let Retired { generation, plan, .. } = freed.try_recv().unwrap();
    assert_eq!((generation, plan.unwrap().pools.len()), (Some(1), 2));
    assert!(view.core.state.load.busy().is_empty());
    let remnant = second.remnant();
    change(&worker, &mut states, 3, parse(TEXT));
    drop(second);
    assert_eq!(freed.try_recv().unwrap().generation, Some(2), "a remnant holds none");
    drop(remnant);
    assert_eq!(freed.try_recv().unwrap().generation, None);
}

/// A request that goes on under an earlier plan has found its route.
#[test]
fn the_routes_of_a_plan_are_returned_when_the_next_has_others() {
    let (worker, mut states, freed) = served();
    let first = worker.in_force();
    change(&worker, &mut states, 2, parse(TEXT));
    assert!(freed.try_recv().is_err(), "the same routes serve on");
    let other = format!("{TEXT}[[route]]\nname = \"r\"\npath = \"/r\"\npool = \"gone\"\n");
    change(&worker, &mut states, 3, parse(&other));
    let returned: Vec<Retired> = freed.try_iter().collect();
    assert_eq!(returned.iter().filter(|it| it.router.is_some()).count(), 1, "{returned:?}");
    let asked = |plan: &Rc<InForce>| {
        let mut head = RequestHead::default();
        let text = b"GET /r HTTP/1.1\r\nHost: a\r\n\r\n";
        crate::http::parse::request(text, &plan.head_limits, &mut head).unwrap();
        worker.routes_of(plan).find(ListenerId(0), &head).unwrap()
    };
    assert_eq!(asked(&worker.in_force()), Some(RouteId(0)));
    drop(first);
}

#[test]
fn each_request_has_the_backends_of_its_own_plan() {
    let (worker, mut states, _freed) = served();
    let old = Rc::clone(worker.in_force().pool(APP));
    let mut plan = parse(TEXT);
    let app = Arc::make_mut(plan.pools.get_mut(APP).unwrap());
    let gone = app.backends.remove(BackendId(0)).unwrap();
    let new = plan::Backend { name: "new".into(), ..gone };
    app.backends.insert(BackendId(7), new);
    plan.pools.remove(PoolId(1));
    change(&worker, &mut states, 2, plan);
    // As the health thread would, which knows both plans.
    let all: BackendSet = [0, 1, 2, 7].map(BackendId).into_iter().collect();
    let none = BackendSet::EMPTY;
    old.core.state.published.publish((all, none), (none, none, none));
    let view = Rc::clone(worker.in_force().pool(APP));
    assert!(worker.in_force().pools.get(PoolId(1)).is_none());
    for (view, expected) in [(&old, [0, 1, 2]), (&view, [1, 2, 7])] {
        let picked: BackendSet =
            (0..200).filter_map(|_| pick(view)).map(|pick| pick.backend()).collect();
        assert_eq!(picked.iter().map(|id| id.0).collect::<Vec<_>>(), expected);
    }
    // All that it has refuse connections; another plan's does not, and is no choice.
    [1, 2, 7].into_iter().for_each(|id| old.core.was_refused(BackendId(id)));
    assert!(pick(&view).is_some_and(|pick| pick.backend() != BackendId(0)));
    assert!(Rc::ptr_eq(&old.core, &view.core));
    assert_eq!(view.authority(BackendId(7)), b"127.0.0.1:9");
    assert_eq!(view.core.state.load.ended(BackendId(7)), Default::default());
}

#[test]
fn a_listener_that_goes_lets_nobody_in_and_closes_what_rests() {
    let (worker, mut states, _freed) = served();
    let (web, other) = (ListenerId(0), ListenerId(1));
    let admitted = [web, other].map(|id| Admitted::enter(&worker, id).unwrap());
    let sockets = [web, other].map(|_| UnixStream::pair().unwrap().0);
    let watched = [0, 1].map(|at| {
        let fd = sockets[at].as_raw_fd();
        let watched = worker.deadlines.watch(fd, Watch::Client(ListenerId(at as u16)));
        watched.rests(Rest::Idle, Tick::from_millis(1), Deadline::NEVER);
        watched
    });
    let address = |port| Endpoint::Tcp(([127, 0, 0, 1], port).into());
    let listening = [(web, 1), (other, 2), (web, 3)]
        .map(|(id, port)| worker.begin_to_accept((id, address(port)), false));
    let mut plan = parse(TEXT);
    plan.listeners.remove(other);
    change(&worker, &mut states, 2, plan);
    worker.leave((other, address(2)));
    worker.hand_over((web, address(3)), other);
    worker.leave((web, address(3)));
    assert_eq!(listening.each_ref().map(|at| at.listener()), [web, other, other]);
    assert!(worker.serves(web) && !worker.serves(other));
    assert!(Admitted::enter(&worker, web).is_some() && Admitted::enter(&worker, other).is_none());
    let closed = watched.each_ref().map(|it| it.reading() == Some(Ended::Closed));
    assert_eq!(closed, [false, true]);
    assert_eq!(listening.each_ref().map(|at| at.ends.is_raised()), [false, true, false]);
    listening.iter().for_each(|at| worker.end_to_accept(at));
    drop(admitted);
    assert_eq!(worker.counters.read(Counter::Connections), 0);
    assert_eq!(worker.in_force().timeouts(other), Default::default());
}

#[test]
fn a_limit_that_moves_counts_those_who_are_there() {
    let (worker, mut states, _freed) = served();
    let web = ListenerId(0);
    let with_max = |max| {
        let mut plan = parse(TEXT);
        plan.listeners.get_mut(web).unwrap().connections_max = max;
        plan
    };
    change(&worker, &mut states, 2, with_max(2));
    let both = [web, web].map(|id| Admitted::enter(&worker, id).unwrap());
    assert!(Admitted::enter(&worker, web).is_none());
    change(&worker, &mut states, 3, with_max(3));
    let third = Admitted::enter(&worker, web).unwrap();
    change(&worker, &mut states, 4, with_max(2));
    drop(third);
    assert!(Admitted::enter(&worker, web).is_none());
    drop(both);
    assert!(Admitted::enter(&worker, web).is_some());
}
