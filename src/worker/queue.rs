//! Who waits on this core in front of a full pool, first come first served.
//!
//! Room is made where a request ends: that core calls the first of its own, or tells another core
//! where nobody waits there, or somebody on the other has waited longer. Who is called looks for
//! itself whether the room is still there, and whether it leaves room for the next. Who was asked
//! already and waits for somebody else is in nobody's way, nor is who waits for the backend that it
//! stays with, but at that backend: its room is left to whoever has waited longest for it. Once in
//! a while everybody is looked at: whose time is over, and who has left.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
};

use super::InForce;
use crate::base::{
    backend_set::BackendSet,
    ids::{BackendId, PoolId},
    moment::{Deadline, Tick},
};
use crate::net::{leaving::ForClient, signal::Signal};
use crate::shared::{counters::Counter, firsts::First, line::Line, permits::Permit};

/// Who waits on this core.
pub(super) struct Queue {
    line: Line,
    core_index: usize,
    /// In the order of `since`. Who is called is taken out, but those who stay with a backend: its
    /// room is left to them until they have looked.
    tickets: RefCell<VecDeque<Rc<Ticket>>>,
}

/// One who waits, until it is called.
pub(crate) struct Ticket {
    called: Signal,
    /// Since when it waits.
    since: Tick,
    /// When its time is over.
    by: Deadline,
    client: Option<ForClient>,
    waits_for: Cell<WaitsFor>,
}

/// Whose room somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitsFor {
    Anybody,
    /// That of backends that it has not tried.
    Untried,
    /// That of the one that it stays with.
    Home(BackendId),
}

/// A place in the line; given up when it is dropped.
pub(crate) struct Place {
    in_force: Rc<InForce>,
    pool: PoolId,
    ticket: Rc<Ticket>,
    /// The place itself.
    _permit: Permit,
}

impl Ticket {
    /// Whether it wants room, and nobody behind it may have it first: any, or that of this backend.
    fn goes_first(&self, at: Option<BackendId>) -> bool {
        match self.waits_for.get() {
            WaitsFor::Anybody => true,
            WaitsFor::Untried => false,
            WaitsFor::Home(id) => Some(id) == at,
        }
    }

    /// The backend that it stays with and waits for.
    fn home(&self) -> Option<BackendId> {
        if let WaitsFor::Home(id) = self.waits_for.get() { Some(id) } else { None }
    }
}

impl Queue {
    pub(super) fn new(line: Line, core_index: usize) -> Queue {
        Queue { line, core_index, tickets: RefCell::default() }
    }

    /// Whether nobody waits on this core.
    pub(super) fn is_empty(&self) -> bool {
        self.tickets.borrow().is_empty()
    }

    /// Whether somebody waits on this core whom nobody may overtake.
    pub(super) fn holds_up(&self) -> bool {
        self.tickets.borrow().iter().any(|ticket| ticket.goes_first(None))
    }

    /// Whether clients may wait for the backend that they stay with.
    pub(super) fn has_homes(&self) -> bool {
        self.line.has_homes()
    }

    /// Whether the room of this backend is left to those who stay with it, by somebody who waits
    /// since then; none = who has just come.
    pub(super) fn keeps(&self, id: BackendId, since: Option<Tick>) -> bool {
        self.line.keeps(self.core_index, id, since)
    }

    /// There is room, or may be, perhaps at this backend: calls the first, or says which core to
    /// tell.
    pub(super) fn call(&self, at: Option<BackendId>) -> Option<usize> {
        let first = self.first(|ticket| ticket.goes_first(at));
        if first.as_ref().is_some_and(|first| first.called.is_raised()) {
            // It has yet to look, and then calls the next.
            return None;
        }
        let first = first.map(|first| First::Since(first.since)).or_else(|| self.in_no_way());
        let other = self.line.before(self.core_index, at, first);
        // Those who may not want this room do not keep it from another core, nor it from them.
        if other.is_none() || first == Some(First::InNoWay) {
            self.call_own(at);
        }
        other
    }

    /// The same, of those who wait on this core alone.
    fn call_own(&self, at: Option<BackendId>) {
        if self.call_first(at) {
            self.note(WaitsFor::Anybody);
        }
    }

    /// As `call`, but of those who stay with this backend alone.
    pub(super) fn call_at_home(&self, id: BackendId) -> Option<usize> {
        let first = self.first(|ticket| ticket.home() == Some(id));
        let since = first.as_ref().map(|first| First::Since(first.since));
        let other = self.line.before_at(self.core_index, id, since);
        if other.is_none()
            && let Some(first) = first
        {
            first.called.raise();
        }
        other
    }

    /// Calls those who stay with any other backend than these.
    pub(super) fn call_all_but(&self, those: BackendSet) {
        let is_other = |ticket: &Ticket| ticket.home().is_some_and(|id| !those.contains(id));
        let tickets = self.tickets.borrow();
        tickets.iter().filter(|it| is_other(it)).for_each(|it| it.called.raise());
    }

    fn first(&self, is_meant: impl Fn(&Ticket) -> bool) -> Option<Rc<Ticket>> {
        self.tickets.borrow().iter().find(|ticket| is_meant(ticket)).cloned()
    }

    /// What others see of those that let all go first, where any wait.
    fn in_no_way(&self) -> Option<First> {
        self.first(|ticket| ticket.waits_for.get() == WaitsFor::Untried).map(|_| First::InNoWay)
    }

    /// Calls the first, and the next where the first may not want this room; false where nobody
    /// wants any.
    fn call_first(&self, at: Option<BackendId>) -> bool {
        let wants = |ticket: &Rc<Ticket>| match ticket.home() {
            Some(home) => Some(home) == at && !ticket.called.is_raised(),
            None => true,
        };
        let mut called = false;
        loop {
            let place = self.tickets.borrow().iter().position(wants);
            let Some(place) = place else { return called };
            let Some(first) = self.call_this(place) else { return called };
            called = true;
            if first.waits_for.get() != WaitsFor::Untried {
                return called;
            }
        }
    }

    fn call_this(&self, place: usize) -> Option<Rc<Ticket>> {
        let mut tickets = self.tickets.borrow_mut();
        let ticket = Rc::clone(tickets.get(place)?);
        if ticket.home().is_none() {
            tickets.remove(place);
        }
        drop(tickets);
        ticket.called.raise();
        Some(ticket)
    }

    /// Calls those whose time is over, those who have left, and the first of all, and of those of
    /// each backend, in case that its call was lost.
    pub(super) fn look_after(&self, now: Tick) {
        let due = |ticket: &Rc<Ticket>| {
            ticket.by.is_over(now) || ticket.client.is_some_and(ForClient::has_left)
        };
        let (mut called, mut homes): (Vec<_>, _) = (Vec::new(), BackendSet::EMPTY);
        self.tickets.borrow_mut().retain(|ticket| {
            let home = ticket.home();
            let is_first_at_home = home.is_some_and(|home| !homes.contains(home));
            let is_due = due(ticket);
            if is_due || is_first_at_home {
                called.push(Rc::clone(ticket));
            }
            home.into_iter().filter(|_| !is_due).for_each(|home| homes.insert(home));
            home.is_some() || !is_due
        });
        called.iter().for_each(|ticket| ticket.called.raise());
        self.call_first(None);
        self.note(WaitsFor::Anybody);
    }

    /// Lets other cores know since when the first waits of those who wait for this.
    fn note(&self, what: WaitsFor) {
        let since = |is_meant: &dyn Fn(&Ticket) -> bool| {
            self.first(is_meant).map(|it| First::Since(it.since))
        };
        if let WaitsFor::Home(id) = what {
            let first = since(&|ticket| ticket.home() == Some(id));
            return self.line.wait_at(self.core_index, id, first);
        }
        let first = since(&|ticket| ticket.goes_first(None)).or_else(|| self.in_no_way());
        self.line.wait(self.core_index, first);
    }

    /// Puts it where it belongs by its age.
    fn put(&self, ticket: &Rc<Ticket>) {
        let mut tickets = self.tickets.borrow_mut();
        let place = tickets.partition_point(|other| other.since < ticket.since);
        tickets.insert(place, Rc::clone(ticket));
        drop(tickets);
        self.note(ticket.waits_for.get());
    }

    fn remove(&self, ticket: &Rc<Ticket>) {
        self.tickets.borrow_mut().retain(|other| !Rc::ptr_eq(other, ticket));
        self.note(ticket.waits_for.get());
    }
}

impl Place {
    /// The last place of the line; none where the line is full.
    pub(crate) fn take(
        in_force: &Rc<InForce>,
        pool: PoolId,
        by: Deadline,
        (now, client): (Tick, Option<ForClient>),
        what: WaitsFor,
    ) -> Option<Place> {
        let queue = in_force.pool(pool).queue.as_ref()?;
        let permit = queue.line.place()?;
        let (called, waits_for) = (Signal::default(), Cell::new(what));
        let ticket = Rc::new(Ticket { called, since: now, by, client, waits_for });
        queue.tickets.borrow_mut().push_back(Rc::clone(&ticket));
        queue.note(what);
        in_force.counters.add(Counter::Queued, 1);
        Some(Place { in_force: Rc::clone(in_force), pool, ticket, _permit: permit })
    }

    /// Waits again, before all who came later: who was called found no room.
    pub(crate) fn renew(&self) {
        let Some(queue) = self.in_force.pool(self.pool).queue.as_ref() else { return };
        self.ticket.called.lower();
        if !queue.tickets.borrow().iter().any(|other| Rc::ptr_eq(other, &self.ticket)) {
            queue.put(&self.ticket);
        }
    }

    /// Waits for this from now on; false where it does already. Who waits for something else looks
    /// once more.
    pub(crate) fn wait_for(&self, what: WaitsFor) -> bool {
        let former = self.ticket.waits_for.replace(what);
        if former == what {
            return false;
        }
        if let Some(queue) = self.in_force.pool(self.pool).queue.as_ref() {
            queue.note(what);
            queue.note(former);
        }
        true
    }

    /// Whether nobody on this core waits before it who would take the room that it waits for.
    pub(crate) fn is_first(&self) -> bool {
        let Some(queue) = self.in_force.pool(self.pool).queue.as_ref() else { return true };
        let home = self.ticket.home();
        let is_own = |ticket: &Ticket| std::ptr::eq(ticket, Rc::as_ptr(&self.ticket));
        let first = queue.first(|ticket| is_own(ticket) || ticket.goes_first(home));
        first.is_none_or(|first| is_own(&first))
    }

    /// It was called and found no room for itself: whatever room there is, is for others.
    pub(crate) fn passes_on(&self) {
        match self.ticket.home() {
            Some(home) => self.in_force.waits_behind(self.pool, home),
            None => self.in_force.passes_on(self.pool),
        }
    }

    /// It has come behind others, who may not want the room that its backend has.
    pub(crate) fn comes_behind(&self) {
        if let Some(home) = self.ticket.home() {
            self.in_force.waits_behind(self.pool, home);
        }
    }

    /// Up when it is called.
    pub(crate) fn called(&self) -> &Signal {
        &self.ticket.called
    }

    /// Since when it waits.
    pub(crate) fn since(&self) -> Tick {
        self.ticket.since
    }

    /// Until when it may wait.
    pub(crate) fn by(&self) -> Deadline {
        self.ticket.by
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(queue) = self.in_force.pool(self.pool).queue.as_ref() {
            queue.remove(&self.ticket);
        }
        self.in_force.counters.sub(Counter::Queued, 1);
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use crate::net::leaving::Leaves;

    use super::*;
    use crate::shared::counters::Slab;
    use crate::worker::{Common, InFlight, Nobody, Own, Wanted, Worker};

    const POOL: PoolId = PoolId(0);

    const TEXT: &str = r#"
        [listener.web]
        bind = "127.0.0.1:0"
        pool = "app"

        [pool.app]
        backends = [{ address = "127.0.0.1:9", max-in-flight = 1 }]
        queue = { size = 9 }
    "#;

    #[test]
    fn who_waits_on_another_core_is_told_of_room_where_it_is_nobodys_here_before() {
        let common = Common::of_text(TEXT, 2);
        let own =
            |core_index| Own { core_index, counters: Slab::new(), outlets: Default::default() };
        let [here, there] = [0, 1].map(|core| Worker::new(common.clone(), own(core)).in_force());
        let told = || [0, 1].map(|core| common.rooms.take(core).count());
        let join = |core, now| {
            Place::take(
                core,
                POOL,
                Deadline::NEVER,
                (Tick::from_millis(now), None),
                WaitsFor::Anybody,
            )
            .unwrap()
        };
        here.made_room(POOL, None);
        assert_eq!(told(), [0, 0], "nobody waits");
        let place = join(&there, 500);
        here.made_room(POOL, None);
        here.made_room(POOL, None);
        assert_eq!(told(), [0, 1], "once");
        assert!(!place.called().is_raised(), "its own core calls it");
        let nearer = join(&here, 505);
        here.made_room(POOL, None);
        assert!(nearer.called().is_raised());
        assert_eq!(told(), [0, 0]);
        let later = join(&here, 900);
        here.made_room(POOL, None);
        assert!(!later.called().is_raised(), "the other has waited for long");
        assert_eq!(told(), [0, 1]);
        there.made_room(POOL, None);
        assert!(place.called().is_raised());
    }

    /// Those who are called, of some who wait in this order where this backend has room.
    #[track_caller]
    fn check(waiting: &[WaitsFor], has_room: Option<u16>, expected: &[usize]) {
        let queue = Queue::new(Line::new(9, 1, 2), 0);
        let ticket = |waits_for| {
            let (called, waits_for) = (Signal::default(), Cell::new(waits_for));
            Rc::new(Ticket {
                called,
                since: Tick::from_millis(1),
                by: Deadline::NEVER,
                client: None,
                waits_for,
            })
        };
        let tickets: Vec<_> = waiting.iter().map(|waits_for| ticket(*waits_for)).collect();
        queue.tickets.borrow_mut().extend(tickets.iter().cloned());
        assert_eq!(queue.call(has_room.map(BackendId)), None);
        let called = tickets.iter().enumerate().filter(|(_, ticket)| ticket.called.is_raised());
        assert_eq!(called.map(|(place, _)| place).collect::<Vec<_>>(), expected, "{waiting:?}");
        let homes = expected.iter().filter(|place| tickets[**place].home().is_some()).count();
        assert_eq!(queue.tickets.borrow().len() + expected.len(), waiting.len() + homes);
    }

    #[test]
    fn room_is_offered_to_the_first_who_wants_it_and_not_to_those_of_another_backend() {
        use WaitsFor::{Anybody, Home, Untried};
        let [a, b] = [0, 1].map(|id| Home(BackendId(id)));
        check(&[Anybody, Anybody], Some(0), &[0]);
        check(&[Untried, Anybody, Anybody], Some(0), &[0, 1]);
        check(&[b, a, Anybody], Some(0), &[1]);
        check(&[b, Anybody, a], Some(0), &[1]);
        check(&[a, a, b, b], Some(1), &[2]);
        check(&[Untried, a, a], Some(0), &[0, 1]);
        check(&[a, b, Anybody], None, &[2]);
        check(&[a, b], None, &[]);
    }

    /// Two cores whose clients may stay with either of two backends that each have one at once.
    fn sticky() -> ([Rc<Worker>; 2], Common) {
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
        let common = Common::of_text(&text, 2);
        let own =
            |core_index| Own { core_index, counters: Slab::new(), outlets: Default::default() };
        let workers = [0, 1].map(|core| Worker::new(common.clone(), own(core)));
        (workers, common)
    }

    /// Whether a core was told of room; it has looked for it, then.
    fn looks(workers: &[Rc<Worker>; 2], common: &Common, core: usize) -> bool {
        let told: Vec<PoolId> = common.rooms.take(core).collect();
        for pool in &told {
            let _ = common.rooms.tell(core, *pool);
        }
        workers[core].look_for_room();
        !told.is_empty()
    }

    const A: BackendId = BackendId(0);

    /// What somebody gets that stays with A and waits since then, or has just come.
    fn pick(core: &Rc<InForce>, since: Option<u64>) -> Result<BackendId, Nobody> {
        let (tried, now) = (&BackendSet::EMPTY, Tick::from_millis(1));
        let since = since.map(Tick::from_millis);
        let wanted = Wanted { tried, key: None, pinned: Some(A), careful: false, since, now };
        let picked = core.pool(POOL).pick(core, &wanted);
        picked.map(|picked| picked.in_flight.backend())
    }

    fn home_at(core: &Rc<InForce>, since: u64) -> Place {
        Place::take(
            core,
            POOL,
            Deadline::NEVER,
            (Tick::from_millis(since), None),
            WaitsFor::Home(A),
        )
        .unwrap()
    }

    #[test]
    fn room_is_left_to_whoever_has_waited_longest_for_it_on_any_core() {
        let (workers, common) = sticky();
        let looks = |core| looks(&workers, &common, core);
        let [here, there] = [0, 1].map(|core: usize| workers[core].in_force());
        let waits = Err(Nobody::Free(WaitsFor::Home(A)));
        let busy = InFlight::begin(
            &here,
            POOL,
            A,
            common.pools.get(POOL).unwrap().slots[0].take().unwrap(),
        );
        assert_eq!(pick(&here, None), waits);
        let (early, late) = (home_at(&there, 100), home_at(&here, 200));
        drop(busy);
        assert!(!late.called().is_raised() && !early.called().is_raised());
        assert_eq!(
            (pick(&here, None), pick(&here, Some(200))),
            (waits, waits),
            "it is the other's"
        );
        assert!(!looks(0) && looks(1));
        assert!(early.called().is_raised());
        assert_eq!((pick(&there, None), pick(&there, Some(100))), (waits, Ok(A)));
        assert!(!looks(0), "who was called is gone, and has not looked");
        drop(early);
        there.left_the_queue(POOL);
        assert!(looks(0));
        assert_eq!((pick(&here, Some(200)), pick(&there, None)), (Ok(A), waits));
        drop(late);
        assert_eq!((pick(&here, None), pick(&there, None)), (Ok(A), Ok(A)));
    }

    #[test]
    fn room_that_the_first_does_not_want_is_passed_on_to_those_of_the_backend() {
        let (workers, common) = sticky();
        let looks = |core| looks(&workers, &common, core);
        let [here, there] = [0, 1].map(|core: usize| workers[core].in_force());
        let any = Place::take(
            &here,
            POOL,
            Deadline::NEVER,
            (Tick::from_millis(50), None),
            WaitsFor::Anybody,
        )
        .unwrap();
        let home = home_at(&here, 100);
        assert!(!home.is_first());
        home.comes_behind();
        assert!(any.called().is_raised() && !home.called().is_raised());
        any.renew();
        any.passes_on();
        assert!(home.called().is_raised() && !any.called().is_raised());
        drop(home);
        let home = home_at(&there, 100);
        any.passes_on();
        assert!(looks(1));
        assert!(!home.called().is_raised(), "who has waited longer is told first");
        assert!(looks(0));
    }

    #[test]
    fn those_whose_backend_is_gone_are_all_called_and_nothing_is_left_over() {
        let (workers, _) = sticky();
        let [here, there] = [0, 1].map(|core: usize| workers[core].in_force());
        let (client, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let home = WaitsFor::Home(A);
        let client = ForClient::new(client.as_raw_fd(), Leaves::End);
        let join = |now| {
            Place::take(&here, POOL, Deadline::NEVER, (Tick::from_millis(now), Some(client)), home)
                .unwrap()
        };
        let places = [join(100), join(200)];
        here.pool(POOL).move_to(A, &[]);
        here.pool(POOL).look_after_queue(Tick::from_millis(300));
        assert!(places.iter().all(|place| place.called().is_raised()));
        assert_eq!(pick(&there, None), Err(Nobody::Free(WaitsFor::Home(A))));
        assert!(places[0].wait_for(WaitsFor::Anybody) && !places[0].wait_for(WaitsFor::Anybody));
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _places = places;
            panic!("while they wait");
        }));
        assert!(unwound.is_err());
        assert!(here.pool(POOL).queue.as_ref().unwrap().is_empty());
        assert_eq!((pick(&there, None), here.counters.read(Counter::Queued)), (Ok(A), 0));
    }
}
