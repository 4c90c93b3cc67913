//! The queue of one core in front of a full pool: requests that wait, first come first served.
//!
//! Room is made when a request ends: that core calls the first of its own waiting requests, or
//! tells another core if none waits here, or one on the other has waited longer. A called request
//! checks for itself whether the room is still there, and whether it leaves room for the next.
//! Retries that wait for another backend block no other request, nor do clients that wait for the
//! backend they stay with, except at that backend: its room is left to the one that has waited
//! longest for it. Periodically all are checked: whether their time is over, and whether their
//! clients have left.

mod place;
#[cfg(test)]
mod tests;

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
};

pub(crate) use self::place::Place;
use super::Core;
use crate::base::{
    backend_set::BackendSet,
    ids::{BackendId, PoolId},
    moment::{Deadline, Tick},
};
use crate::net::{leaving::ForClient, signal::Signal};
use crate::shared::{pool::PoolState, waiting_since::Oldest};

/// The requests that wait on this core in front of one pool.
pub(super) struct Queue {
    pool: PoolId,
    core: Rc<Core>,
    /// Its `line` is what the cores tell each other of waiting requests.
    state: Arc<PoolState>,
    /// In the order of `since`. A called request is removed, except those that stay with a backend:
    /// its room is left to them until they have checked.
    tickets: RefCell<VecDeque<Rc<Ticket>>>,
    /// Whether requests may wait, by the newest plan; and for the backend that they stay with.
    may_wait: Cell<bool>,
    has_sticky: Cell<bool>,
}

/// A waiting request, until it is called.
struct Ticket {
    called: Signal,
    /// Since when it waits.
    since: Tick,
    /// When its time is over.
    by: Deadline,
    client: Option<ForClient>,
    waits_for: Cell<WaitsFor>,
    /// The backends that take new traffic by its plan: it has no use for others.
    taking: BackendSet,
}

/// Which backend's room a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitsFor {
    Any,
    /// That of any backend that it has not tried.
    Untried,
    /// That of the one that it stays with.
    Sticky(BackendId),
}

impl Ticket {
    /// Whether it wants room, and no request behind it may have it first: any room, or that of this
    /// backend.
    fn goes_first(&self, at: Option<BackendId>) -> bool {
        match self.waits_for.get() {
            WaitsFor::Any => at.is_none_or(|id| self.taking.contains(id)),
            WaitsFor::Untried => false,
            WaitsFor::Sticky(id) => Some(id) == at,
        }
    }

    /// The backend that it stays with and waits for.
    fn sticky(&self) -> Option<BackendId> {
        if let WaitsFor::Sticky(id) = self.waits_for.get() { Some(id) } else { None }
    }
}

impl Queue {
    /// An empty queue, in which none may wait yet.
    pub(super) fn new(pool: PoolId, core: Rc<Core>, state: Arc<PoolState>) -> Queue {
        let (tickets, [may_wait, has_sticky]) = (RefCell::default(), [false, false].map(Cell::new));
        Queue { pool, core, state, tickets, may_wait, has_sticky }
    }

    /// From now on requests may wait, or may not; and for the backend that their client stays with.
    pub(super) fn arrange(&self, may_wait: bool, has_sticky: bool) {
        self.may_wait.set(may_wait);
        self.has_sticky.set(has_sticky);
    }

    /// Whether no request waits on this core.
    fn is_empty(&self) -> bool {
        self.tickets.borrow().is_empty()
    }

    /// The backends that requests on this core wait for and that no other may overtake.
    pub(super) fn waited_for(&self) -> BackendSet {
        let tickets = self.tickets.borrow();
        let first = tickets.iter().filter(|ticket| ticket.goes_first(None));
        first.fold(BackendSet::EMPTY, |all, ticket| all | ticket.taking)
    }

    /// Whether the room of this backend is left to requests that stay with it, by one that waits
    /// since then; none = one that has just come.
    pub(super) fn keeps(&self, id: BackendId, since: Option<Tick>) -> bool {
        self.has_sticky.get() && self.state.queue.keeps(self.core.index, id, since)
    }

    /// There is room, or may be, perhaps at this backend: calls the first waiting request, here or
    /// on another core.
    pub(super) fn room(&self, at: Option<BackendId>) {
        if self.may_wait.get() || !self.is_empty() {
            self.call(at).into_iter().for_each(|core| self.tell(core));
        }
    }

    /// There may be room in the pool: it goes to the requests that wait for it. `rooms` is called
    /// only if clients wait for one backend.
    pub(super) fn offer(&self, rooms: impl Fn() -> BackendSet) {
        let rooms = if self.has_sticky.get() { rooms() } else { BackendSet::EMPTY };
        if rooms.is_empty() {
            self.room(None);
        }
        rooms.iter().for_each(|id| self.room(Some(id)));
    }

    /// A called request cannot use the room there is: it is for those that stay with its backend,
    /// whichever others have waited longer.
    fn pass_on(&self, rooms: impl Fn() -> BackendSet) {
        if self.has_sticky.get() {
            for id in rooms().iter() {
                self.call_at_home(id).into_iter().for_each(|core| self.tell(core));
            }
        }
    }

    /// These are the backends that can be asked now: calls the first, and all that wait for a
    /// backend that cannot be asked any more. Other cores notice by themselves within a quarter of
    /// a second.
    pub(super) fn look_around(&self, can_be_asked: BackendSet) {
        if !self.is_empty() {
            let _ = self.call(None);
            self.call_the_lost(can_be_asked);
        }
    }

    /// Tells another core that there may be room; it checks for itself where.
    fn tell(&self, core: usize) {
        let process = &self.core.process;
        if process.rooms.tell(core, self.pool)
            && let Some(rope) = process.ropes.get(core)
        {
            rope.pull();
        }
    }

    /// Calls the first, or returns which core to tell.
    fn call(&self, at: Option<BackendId>) -> Option<usize> {
        let first = self.first(|ticket| ticket.goes_first(at));
        if first.as_ref().is_some_and(|first| first.called.is_raised()) {
            // It has yet to check, and then calls the next.
            return None;
        }
        let first = first.map(|first| Oldest::Since(first.since)).or_else(|| self.in_no_way());
        let sticky = at.filter(|_| self.has_sticky.get());
        let other = self.state.queue.before(self.core.index, sticky, first);
        // Requests that may not want this room do not keep it from another core, nor it from them.
        if (other.is_none() || first == Some(Oldest::InNoWay)) && self.call_first(at) {
            self.note(WaitsFor::Any);
        }
        other
    }

    /// Like `call`, only for requests that stay with this backend.
    fn call_at_home(&self, id: BackendId) -> Option<usize> {
        let first = self.first(|ticket| ticket.sticky() == Some(id));
        let since = first.as_ref().map(|first| Oldest::Since(first.since));
        let other = self.state.queue.before_at(self.core.index, id, since);
        if other.is_none()
            && let Some(first) = first
        {
            first.called.raise();
        }
        other
    }

    /// Calls those that wait for a backend that cannot be asked any more.
    fn call_the_lost(&self, can_be_asked: BackendSet) {
        let is_lost =
            |ticket: &Ticket| ticket.sticky().is_some_and(|id| !can_be_asked.contains(id));
        let tickets = self.tickets.borrow();
        tickets.iter().filter(|it| is_lost(it)).for_each(|it| it.called.raise());
    }

    fn first(&self, is_meant: impl Fn(&Ticket) -> bool) -> Option<Rc<Ticket>> {
        self.tickets.borrow().iter().find(|ticket| is_meant(ticket)).cloned()
    }

    /// What others see if the only waiting requests let all go first.
    fn in_no_way(&self) -> Option<Oldest> {
        self.first(|ticket| ticket.waits_for.get() == WaitsFor::Untried).map(|_| Oldest::InNoWay)
    }

    /// Calls the first, and the next if the first may not want this room; false if none wants any.
    fn call_first(&self, at: Option<BackendId>) -> bool {
        let wants = |ticket: &Rc<Ticket>| match ticket.sticky() {
            Some(sticky) => Some(sticky) == at && !ticket.called.is_raised(),
            None => at.is_none_or(|id| ticket.taking.contains(id)),
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
        if ticket.sticky().is_none() {
            tickets.remove(place);
        }
        drop(tickets);
        ticket.called.raise();
        Some(ticket)
    }

    /// Calls those whose time is over, those that have left or wait for a backend that cannot be
    /// asked any more, and the first of all, and of each backend, in case its call was lost.
    pub(super) fn look_after(&self, now: Tick, can_be_asked: BackendSet) {
        if self.is_empty() {
            return;
        }
        let due = |ticket: &Rc<Ticket>| {
            ticket.by.is_over(now) || ticket.client.is_some_and(ForClient::has_left)
        };
        let (mut called, mut sticky_backends): (Vec<_>, _) = (Vec::new(), BackendSet::EMPTY);
        self.tickets.borrow_mut().retain(|ticket| {
            let sticky = ticket.sticky();
            let is_first = sticky.is_some_and(|sticky| !sticky_backends.contains(sticky));
            let is_due = due(ticket);
            if is_due || is_first {
                called.push(Rc::clone(ticket));
            }
            sticky
                .into_iter()
                .filter(|_| !is_due)
                .for_each(|sticky| sticky_backends.insert(sticky));
            sticky.is_some() || !is_due
        });
        called.iter().for_each(|ticket| ticket.called.raise());
        self.call_first(None);
        self.note(WaitsFor::Any);
        self.call_the_lost(can_be_asked);
    }

    /// Publishes to other cores since when the first of those that wait for this waits.
    fn note(&self, what: WaitsFor) {
        let since = |is_meant: &dyn Fn(&Ticket) -> bool| {
            self.first(is_meant).map(|it| Oldest::Since(it.since))
        };
        let queue = &self.state.queue;
        if let WaitsFor::Sticky(id) = what {
            let first = since(&|ticket| ticket.sticky() == Some(id));
            return queue.wait_at(self.core.index, id, first);
        }
        let first = since(&|ticket| ticket.goes_first(None)).or_else(|| self.in_no_way());
        queue.wait(self.core.index, first);
    }

    /// Inserts it by its age.
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
