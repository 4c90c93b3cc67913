//! Tests of the queue on one core and on two.
//!
//! Which request is called when there is room, here or there. Plays test that a call wakes the
//! waiting request, and what it does then.

use std::os::fd::AsRawFd;

use super::*;
use crate::base::ids::PoolId;
use crate::net::{deadlines::Watch, leaving::Leaves};
use crate::shared::tally::Key;
use crate::worker::{NoPick, Pick, PoolView, Wanted, Worker};

const POOL: PoolId = PoolId(0);

const TEXT: &str = r#"
    [listener.web]
    bind = "127.0.0.1:0"
    pool = "app"

    [pool.app]
    backends = [{ address = "127.0.0.1:9", max-in-flight = 1 }]
    queue = { size = 9 }
"#;

/// A core's view of the pool.
fn view(worker: &Worker) -> Rc<PoolView> {
    Rc::clone(worker.in_force().pool(POOL))
}

/// A place in the queue since then.
fn waits(view: &PoolView, since: u64, what: WaitsFor) -> Place {
    Place::take(view, Deadline::NEVER, (Tick::from_millis(since), None), what).unwrap()
}

#[test]
fn who_waits_on_another_core_is_told_of_room_where_it_is_nobodys_here_before() {
    let workers = Worker::crew(TEXT, 2);
    let [here, there] = [0, 1].map(|core: usize| view(&workers[core]));
    let told = || [0, 1].map(|core| workers[0].core.process.rooms.take(core).count());
    let room = |view: &PoolView| view.core.queue.room(None);
    room(&here);
    assert_eq!(told(), [0, 0], "nobody waits");
    let place = waits(&there, 500, WaitsFor::Any);
    room(&here);
    room(&here);
    assert_eq!(told(), [0, 1], "once");
    assert!(!place.called().is_raised(), "its own core calls it");
    let nearer = waits(&here, 505, WaitsFor::Any);
    room(&here);
    assert!(nearer.called().is_raised());
    assert_eq!(told(), [0, 0]);
    let later = waits(&here, 900, WaitsFor::Any);
    room(&here);
    assert!(!later.called().is_raised(), "the other has waited for long");
    assert_eq!(told(), [0, 1]);
    room(&there);
    assert!(place.called().is_raised());
}

/// Those that are called, of some that wait in this order when this backend has room.
#[track_caller]
fn check(waiting: &[WaitsFor], has_room: Option<u16>, expected: &[usize]) {
    let workers = sticky();
    let view = view(&workers[0]);
    let queue = &view.core.queue;
    let (since, by, taking) = (Tick::from_millis(1), Deadline::NEVER, view.taking());
    let ticket = |waits_for| {
        let (called, waits_for) = (Signal::default(), Cell::new(waits_for));
        Rc::new(Ticket { called, since, by, client: None, waits_for, taking })
    };
    let tickets: Vec<_> = waiting.iter().map(|waits_for| ticket(*waits_for)).collect();
    queue.tickets.borrow_mut().extend(tickets.iter().cloned());
    assert_eq!(queue.call(has_room.map(BackendId)), None);
    let called = tickets.iter().enumerate().filter(|(_, ticket)| ticket.called.is_raised());
    assert_eq!(called.map(|(place, _)| place).collect::<Vec<_>>(), expected, "{waiting:?}");
    let sticky_backends =
        expected.iter().filter(|place| tickets[**place].sticky().is_some()).count();
    assert_eq!(queue.tickets.borrow().len() + expected.len(), waiting.len() + sticky_backends);
}

#[test]
fn room_is_offered_to_the_first_who_wants_it_and_not_to_those_of_another_backend() {
    use WaitsFor::{Any, Sticky, Untried};
    let [a, b] = [0, 1].map(|id| Sticky(BackendId(id)));
    check(&[Any, Any], Some(0), &[0]);
    check(&[Untried, Any, Any], Some(0), &[0, 1]);
    check(&[b, a, Any], Some(0), &[1]);
    check(&[b, Any, a], Some(0), &[1]);
    check(&[a, a, b, b], Some(1), &[2]);
    check(&[Untried, a, a], Some(0), &[0, 1]);
    check(&[a, b, Any], None, &[2]);
    check(&[a, b], None, &[]);
}

/// Two cores whose clients may stay with either of two backends that each have one at once.
fn sticky() -> Vec<Rc<Worker>> {
    let text = r#"
        [listener.web]
        bind = "127.0.0.1:0"
        pool = "app"

        [pool.app]
        backends = ["127.0.0.1:9", "127.0.0.1:10"]
        sticky = {}
        queue = { size = 9 }
    "#;
    let each = |address| format!("{{ address = \"127.0.0.1:{address}\", max-in-flight = 1 }}");
    let bounded = format!("[{}, {}]", each(9), each(10));
    let text = text.replace(r#"["127.0.0.1:9", "127.0.0.1:10"]"#, &bounded);
    Worker::crew(&text, 2)
}

/// Whether a core was told of room; it has then checked for it.
fn looks(workers: &[Rc<Worker>], core: usize) -> bool {
    let rooms = &workers[core].core.process.rooms;
    let told: Vec<PoolId> = rooms.take(core).collect();
    for pool in &told {
        let _ = rooms.tell(core, *pool);
    }
    workers[core].look_at_notices();
    !told.is_empty()
}

const A: BackendId = BackendId(0);

/// A pick of one that stays with A and waits since then, or has just come.
fn pick_at(view: &PoolView, since: Option<u64>) -> Result<Pick, NoPick> {
    let (tried, now) = (&BackendSet::EMPTY, Tick::from_millis(1));
    let since = since.map(Tick::from_millis);
    view.pick(&Wanted { tried, key: None, pinned: Some(A), avoids_trials: false, since, now })
}

/// The same, returned at once.
fn pick(view: &PoolView, since: Option<u64>) -> Result<BackendId, NoPick> {
    pick_at(view, since).map(|pick| pick.backend())
}

#[test]
fn room_is_left_to_whoever_has_waited_longest_for_it_on_any_core() {
    let workers = sticky();
    let looks = |core| looks(&workers, core);
    let [here, there] = [0, 1].map(|core: usize| view(&workers[core]));
    let full = Err(NoPick::AllFull(WaitsFor::Sticky(A)));
    let busy = pick_at(&here, None).ok().unwrap();
    assert_eq!(pick(&here, None), full);
    let (early, late) =
        (waits(&there, 100, WaitsFor::Sticky(A)), waits(&here, 200, WaitsFor::Sticky(A)));
    drop(busy);
    assert!(!late.called().is_raised() && !early.called().is_raised());
    assert_eq!((pick(&here, None), pick(&here, Some(200))), (full, full), "it is the other's");
    assert!(!looks(0) && looks(1));
    assert!(early.called().is_raised());
    assert_eq!((pick(&there, None), pick(&there, Some(100))), (full, Ok(A)));
    assert!(!looks(0), "who was called is gone, and has not looked");
    drop(early);
    there.core.offers_room();
    assert!(looks(0));
    assert_eq!((pick(&here, Some(200)), pick(&there, None)), (Ok(A), full));
    drop(late);
    assert_eq!((pick(&here, None), pick(&there, None)), (Ok(A), Ok(A)));
}

#[test]
fn room_that_the_first_does_not_want_is_passed_on_to_those_of_the_backend() {
    let workers = sticky();
    let looks = |core| looks(&workers, core);
    let [here, there] = [0, 1].map(|core: usize| view(&workers[core]));
    let any = waits(&here, 50, WaitsFor::Any);
    let sticky = waits(&here, 100, WaitsFor::Sticky(A));
    assert!(!sticky.looks_at_once());
    assert!(any.called().is_raised() && !sticky.called().is_raised());
    any.woke();
    any.passes_on();
    assert!(sticky.called().is_raised() && !any.called().is_raised());
    drop(sticky);
    let sticky = waits(&there, 100, WaitsFor::Sticky(A));
    any.passes_on();
    assert!(looks(1));
    assert!(!sticky.called().is_raised(), "who has waited longer is told first");
    assert!(looks(0));
}

#[test]
fn those_whose_backend_is_gone_are_all_called_and_nothing_is_left_over() {
    let workers = sticky();
    let [here, there] = [0, 1].map(|core: usize| view(&workers[core]));
    let (client, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    let sticky = WaitsFor::Sticky(A);
    let watched = workers[0].deadlines.watch(client.as_raw_fd(), Watch::Refused);
    let client = watched.waits(client.as_raw_fd(), Leaves::End);
    let join = |now| {
        let now = (Tick::from_millis(now), Some(client));
        Place::take(&here, Deadline::NEVER, now, sticky).unwrap()
    };
    let places = [join(100), join(200)];
    here.move_to(A, &[]);
    here.core.look_after_queue(Tick::from_millis(300));
    assert!(places.iter().all(|place| place.called().is_raised()));
    assert_eq!(pick(&there, None), Err(NoPick::AllFull(WaitsFor::Sticky(A))));
    assert!(places[0].wants(WaitsFor::Any) && !places[0].wants(WaitsFor::Any));
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _places = places;
        panic!("while they wait");
    }));
    assert!(unwound.is_err());
    assert!(here.core.queue.is_empty());
    assert_eq!(
        (pick(&there, None), workers[0].counters.tally().read(Key::Queued(PoolId(0)))),
        (Ok(A), 0)
    );
}

/// A backend that only the next plan has is of no use to requests that wait under this one.
#[test]
fn room_that_the_first_has_no_use_for_goes_to_the_next() {
    let workers = sticky();
    let view = view(&workers[0]);
    let queue = &view.core.queue;
    let new = BackendId(2);
    let ticket = |taking| {
        let (called, waits_for) = (Signal::default(), Cell::new(WaitsFor::Any));
        let (since, by) = (Tick::from_millis(1), Deadline::NEVER);
        Rc::new(Ticket { called, since, by, client: None, waits_for, taking })
    };
    let old = ticket(view.taking());
    let later = ticket(view.taking() | [new].into_iter().collect());
    queue.tickets.borrow_mut().extend([&old, &later].map(Rc::clone));
    assert!(queue.waited_for().contains(new));
    assert_eq!(queue.call(Some(new)), None);
    assert!(!old.called.is_raised() && later.called.is_raised());
    assert!(!queue.waited_for().contains(new), "the first leaves it to all");
    assert_eq!(queue.call(Some(A)), None);
    assert!(old.called.is_raised());
}
