//! Tests of the running health thread, on both drivers, and of its reaction to what cores post.
//!
//! A test plays the cores: it counts in their rows, posts, and reads what is published. Tests of
//! `policy` check what follows from what.

use std::{
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam_channel::Receiver;

use super::{HealthJob, ToHealth, verdicts::Verdicts};
use crate::base::{
    ids::BackendId,
    ids::PoolId,
    moment::{Deadline, Micros, Tick},
    rng::Rng,
};
use crate::observe::reports::{self, Report, ToHub};
use crate::plan::{Driver, Duty, Plan};
use crate::policy::{
    health::ProbeFault,
    standing::{BackendState, Change, Present, State},
};
use crate::shared::{
    bell::Rope,
    counters::Slab,
    inbox::{Outbox, mailbox},
    outcomes::{self, How, Outcomes},
    pool::PoolState,
    rooms::Rooms,
    tally::Key,
};
use crate::worker::{Next, States};

const POOL: PoolId = PoolId(0);

/// A pool of this many backends; three failures in a row eject.
fn plan(backends: usize) -> Plan {
    let list: Vec<String> = (1..=backends).map(|port| format!("\"127.0.0.1:{port}\"")).collect();
    let text = format!(
        "[listener.web]\nbind = \"127.0.0.1:0\"\npool = \"app\"\n\
         [pool.app]\nbackends = [{}]\npassive = {{ eject = \"60s\" }}\n",
        list.join(", ")
    );
    crate::config::parse("health.toml", &text).unwrap().plan.into_plan()
}

/// The shared state of the pool.
fn state(next: &Next) -> Arc<PoolState> {
    Arc::clone(&next.pools.get(POOL).unwrap().state)
}

/// A core counts a failure and posts it.
fn fail(state: &PoolState, outcomes: &Outcomes, backend: BackendId) {
    state.load.row(0, backend).unwrap().failed();
    outcomes.failed(POOL, backend, state.load.ended(backend), How::Status(503));
}

/// Notices to no core.
fn calls() -> (Rooms, Arc<[Rope]>) {
    (Rooms::new(0), Arc::default())
}

/// A running thread.
struct Running {
    outbox: Outbox<ToHealth>,
    outcomes: Outcomes,
    state: Arc<PoolState>,
    told: Receiver<ToHub>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start(driver: Driver, count: usize) -> Running {
        let mut plan = plan(count);
        plan.global.driver = driver;
        let (outbox, inbox) = mailbox().unwrap();
        let (outcomes, posted) = outcomes::channel(outbox.rope().clone());
        let (reporter, told) = reports::channel();
        let next = States::first(plan, 1);
        let state = state(&next);
        let (ready, is_ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let (rooms, ropes) = calls();
            let counters = Slab::new();
            let carried = Vec::new();
            let job = HealthJob { next, inbox, posted, reporter, counters, rooms, ropes, carried };
            job.run(move || ready.send(()).unwrap()).unwrap();
        });
        is_ready.recv_timeout(Duration::from_secs(10)).unwrap();
        Running { outbox, outcomes, state, told, thread: Some(thread) }
    }

    fn fail(&self, backend: BackendId) {
        fail(&self.state, &self.outcomes, backend);
    }

    fn is_usable(&self, backend: BackendId) -> bool {
        self.state.published.after(0).is_none_or(|who| who.usable.contains(backend))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let until = Instant::now() + Duration::from_secs(10);
        self.outbox.send(ToHealth::Stop, until).unwrap();
        self.thread.take().map(JoinHandle::join);
    }
}

/// No deadline is near: what a core posts must wake the thread.
#[test]
fn a_verdict_is_published_as_soon_as_the_failure_that_decides_is_posted() {
    for driver in [Driver::Auto, Driver::Epoll] {
        let running = Running::start(driver, 200);
        for backend in (0..100).map(BackendId) {
            (0..3).for_each(|_| running.fail(backend));
            let until = Instant::now() + Duration::from_secs(10);
            while running.is_usable(backend) {
                assert!(Instant::now() < until, "{backend:?} is still usable");
                std::thread::yield_now();
            }
        }
    }
}

#[test]
fn each_change_is_told_once() {
    let running = Running::start(Driver::Epoll, 4);
    for _ in 0..10 {
        running.fail(BackendId(1));
    }
    let told = running.told.recv_timeout(Duration::from_secs(10)).unwrap().told();
    let Some(Report::Standing(POOL, Change::Backend { backend, to, .. })) = told else {
        panic!("{told:?}")
    };
    assert_eq!((backend, to), (BackendId(1), State::Ejected));
    assert!(running.told.recv_timeout(Duration::from_millis(50)).is_err());
}

fn at(millis: u64) -> Tick {
    Tick::from_millis(millis)
}

/// The state of the thread, without a thread.
fn alone(count: usize, room: usize) -> (Verdicts, Arc<PoolState>, Receiver<ToHub>) {
    let next = States::first(plan(count), 1);
    let (reporter, told) = reports::channel_of(room);
    let counters = Slab::new();
    let verdicts = Verdicts::new(&next, (reporter, counters), calls(), &mut Rng::seeded(1), at(1));
    (verdicts, state(&next), told)
}

#[test]
fn failures_that_found_no_room_are_caught_up_from_the_rows() {
    let (mut verdicts, state, _told) = alone(4, 16);
    let (outcomes, posted) = outcomes::channel(Rope::new().unwrap());
    while outcomes.tried(POOL, BackendId(0), 9, true) {}
    let usable = |state: &PoolState| -> Vec<u16> {
        state.published.after(0).unwrap().usable.iter().map(|id| id.0).collect()
    };
    fail(&state, &outcomes, BackendId(2));
    verdicts.hear(&posted, at(5));
    for heard in 6..8 {
        assert_eq!(usable(&state), [0, 1, 2, 3]);
        fail(&state, &outcomes, BackendId(2));
        verdicts.hear(&posted, at(heard));
    }
    assert_eq!(usable(&state), [0, 1, 3], "the first of three in a row was not posted");
}

#[test]
fn what_people_cannot_be_told_now_they_are_told_later() {
    let (mut verdicts, state, told) = alone(8, 2);
    let (outcomes, posted) = outcomes::channel(Rope::new().unwrap());
    for place in 0..4 {
        for _ in 0..3 {
            fail(&state, &outcomes, BackendId(place));
        }
    }
    verdicts.hear(&posted, at(5));
    assert_eq!(verdicts.turn(at(5)), Deadline::at(at(5 + 20)), "there is room for two");
    let said = || told.try_iter().filter_map(ToHub::told).collect::<Vec<_>>();
    let first = said();
    assert!(verdicts.turn(at(25)).tick().is_some_and(|due| due > at(1_000)));
    let then = said();
    let ejected = |what: &Report| match what {
        Report::Standing(_, Change::Backend { backend, to: State::Ejected, .. }) => backend.0,
        other => panic!("{other:?}"),
    };
    assert_eq!(first.iter().chain(&then).map(ejected).collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[test]
fn state_ejections_and_failed_probes_are_counted_until_the_backend_is_forgotten() {
    let next = States::first(plan(4), 1);
    let (state, counters) = (state(&next), Slab::new());
    let tells = (reports::channel().0, Arc::clone(&counters));
    let mut verdicts = Verdicts::new(&next, tells, calls(), &mut Rng::seeded(1), at(1));
    let (outcomes, posted) = outcomes::channel(Rope::new().unwrap());
    let (bad, other) = (BackendId(1), BackendId(2));
    (0..3).for_each(|_| fail(&state, &outcomes, bad));
    verdicts.hear(&posted, at(5));
    for backend in [bad, other] {
        verdicts.probed((POOL, backend), Err(ProbeFault::Timeout), at(6));
    }
    let read = |key| counters.tally().read(key);
    let present = |backend| Present(read(Key::Present(POOL, backend))).with(Duty::Up);
    let failed = |backend| read(Key::FailedProbes(POOL, backend, ProbeFault::Timeout.kind()));
    assert_eq!((present(bad), present(other)), (BackendState::Ejected, BackendState::Up));
    assert_eq!((read(Key::Ejections(POOL, bad)), failed(bad), failed(other)), (1, 1, 1));
    verdicts.forget(&[(POOL, Some(bad))], at(7));
    assert_eq!((present(bad), failed(other)), (BackendState::Up, 1));
    assert_eq!((read(Key::Ejections(POOL, bad)), failed(bad)), (0, 0));
}

#[test]
fn a_trial_of_an_earlier_period_says_nothing() {
    let (mut verdicts, state, _told) = alone(4, 16);
    let (outcomes, posted) = outcomes::channel(Rope::new().unwrap());
    for _ in 0..3 {
        fail(&state, &outcomes, BackendId(1));
    }
    verdicts.hear(&posted, at(5));
    let mut now = at(5);
    let on_trial = |state: &PoolState| {
        state.published.after(0).is_some_and(|who| who.on_trial.contains(BackendId(1)))
    };
    while !on_trial(&state) {
        now = verdicts.turn(now).tick().unwrap_or(now);
        assert!(now < at(100_000), "it is to return");
    }
    let trial = state.trials.take(BackendId(1), now).expect("permits come before the news");
    assert!(state.trials.take(BackendId(1), now).is_none());
    assert!(outcomes.tried(POOL, BackendId(1), trial.epoch().wrapping_sub(1), true));
    verdicts.hear(&posted, now);
    assert!(on_trial(&state));
    assert!(outcomes.tried(POOL, BackendId(1), trial.epoch(), true));
    verdicts.hear(&posted, now);
    assert!(!on_trial(&state));
    assert!(state.published.after(0).unwrap().usable.contains(BackendId(1)));
}

#[test]
fn the_watch_ends_while_nothing_is_asked_and_goes_on_while_anything_waits() {
    let (mut verdicts, state, _told) = alone(4, 16);
    let mut now = 1;
    let mut look = |verdicts: &mut Verdicts| {
        let due = verdicts.watch(at(now)).tick();
        now = due.map_or(now, Tick::millis);
        due.is_some()
    };
    assert!((0..8).any(|_| !look(&mut verdicts)));
    assert!(!look(&mut verdicts), "woken for another reason");
    let row = state.load.row(0, BackendId(2)).unwrap();
    row.begin();
    assert!((0..100).all(|_| look(&mut verdicts)));
    row.begins_to_answer();
    row.end();
    assert!((0..8).any(|_| !look(&mut verdicts)));
}

/// Usual times, totals and states are those of the thread; the cores' part is played.
#[test]
fn a_silent_backend_is_ejected_for_its_silence_where_there_are_no_probes() {
    let (mut verdicts, state, _told) = alone(4, 64);
    let silent = BackendId(2);
    for _ in 0..20 {
        state.times.of(0, silent).unwrap().record(Micros(900));
    }
    let row = |id| state.load.row(0, id).unwrap();
    (0..3).for_each(|_| row(silent).begin());
    for step in 0..60 {
        row(BackendId(0)).begin();
        row(BackendId(0)).begins_to_answer();
        verdicts.watch(at(100 + 25 * step));
        let is_usable = state.published.after(0).unwrap().usable.contains(silent);
        // Three spans after the first, and as much as two looks each are late.
        assert!(is_usable || step >= 40, "{step}");
    }
    let last = state.published.after(0).unwrap();
    assert!(!last.usable.contains(silent) && last.out.contains(silent));
    assert_eq!(verdicts.suspects(), [(POOL, silent)]);
}
