//! Plays of the typed events that an embedder gets from `Handle::events`.

use std::time::Duration;

use ringway::events::{Event, Events};

use crate::{
    addresses::free,
    backend::Backend,
    scripts::answers,
    stage::{Driver, Stage, eventually},
};

on_both_drivers!(
    an_embedder_hears_what_happens_by_name,
    a_backend_that_cannot_be_reached_is_an_event_each_way,
    the_queue_ends_with_the_balancer,
);

/// However slow the machine is.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for an event for which this returns something.
#[track_caller]
fn heard<T>(events: &Events, what: impl Fn(&Event) -> Option<T>) -> T {
    let mut others = Vec::new();
    loop {
        let Some(told) = events.next_within(PATIENCE) else { panic!("not heard: {others:#?}") };
        match what(&told.event) {
            Some(found) => return found,
            None => others.push(told),
        }
    }
}

fn an_embedder_hears_what_happens_by_name(driver: Driver) {
    let address = free();
    let stage = Stage::on(driver)
        .written(address.to_string())
        .backend(answers("ok"))
        .pool("passive = { max-failures = 2 }")
        .start();
    let (events, other) = (stage.events(), stage.events());
    // A core that was refused skips the backend for a second.
    let is_ejected =
        |happened: &Vec<Event>| happened.iter().any(|it| it.word() == "backend_ejected");
    let asked = || {
        stage.get("/").expect(200, "ok");
        stage.happened()
    };
    eventually("the backend is ejected", asked, is_ejected);
    for events in [&events, &other] {
        let ejected = heard(events, |event| match event {
            Event::BackendEjected(it) => Some(it.clone()),
            _ => None,
        });
        assert_eq!((&*ejected.pool, &*ejected.backend), ("app", &*address.to_string()));
        let cause = ejected.cause.to_string();
        assert_eq!(cause, "2 failures in a row, the last: connect_failed");
        assert_eq!(events.dropped(), 0);
    }
    let count = |family: &str| stage.count(&format!("{family}{{backend=\"{address}\"}}"));
    assert_eq!((count("backend_up"), count("backend_ejections_total")), (0, 1));
    assert_eq!(stage.count("backend_state{state=\"ejected\"}"), 1);
    assert_eq!(stage.count("backend_up"), 1, "the other");
}

fn a_backend_that_cannot_be_reached_is_an_event_each_way(driver: Driver) {
    let address = free();
    let stage = Stage::on(driver).written(address.to_string()).start();
    let events = stage.events();
    stage.get("/").expect_fault(502, "connect_failed");
    let is_it = |backend: &str| assert_eq!(backend, address.to_string());
    let code = heard(&events, |event| match event {
        Event::BackendUnreachable { backend, code, .. } => {
            is_it(&backend.backend);
            Some(*code)
        }
        _ => None,
    });
    assert_eq!(code, "connect_failed");
    let _back = Backend::open_at(address, answers("ok"));
    stage.get("/").expect(200, "ok");
    let reachable = heard(&events, |event| match event {
        Event::BackendReachable(backend) => Some(backend.clone()),
        _ => None,
    });
    is_it(&reachable.backend);
}

fn the_queue_ends_with_the_balancer(driver: Driver) {
    let mut stage = Stage::on(driver).backend(answers("ok")).start();
    let events = stage.events();
    stage.stop_beside(ringway::Stop::Now).join().unwrap();
    let last = events.last().unwrap();
    assert!(matches!(last.event, Event::Stopped { finished: false, .. }), "{last:?}");
}
