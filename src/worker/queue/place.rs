//! The place of one request in the queue in front of a full pool.

use std::{cell::Cell, rc::Rc};

use super::{Ticket, WaitsFor};
use crate::base::moment::{Deadline, Tick};
use crate::net::{leaving::ForClient, signal::Signal};
use crate::shared::{permits::Permit, tally::Key};
use crate::worker::{PoolCore, PoolView};

/// A place in the queue; given up when it is dropped.
pub(crate) struct Place {
    pool: Rc<PoolCore>,
    ticket: Rc<Ticket>,
    /// The permit of the place.
    _permit: Permit,
}

impl Place {
    /// The last place of the queue; none if the queue is full.
    pub(crate) fn take(
        view: &PoolView,
        by: Deadline,
        (now, client): (Tick, Option<ForClient>),
        what: WaitsFor,
    ) -> Option<Place> {
        let permit = view.places.as_ref()?.take()?;
        let pool = Rc::clone(&view.core);
        let (called, waits_for, taking) = (Signal::default(), Cell::new(what), view.taking());
        let ticket = Rc::new(Ticket { called, since: now, by, client, waits_for, taking });
        pool.queue.tickets.borrow_mut().push_back(Rc::clone(&ticket));
        pool.queue.note(what);
        pool.queue.core.counters.tally().add(Key::Queued(pool.id), 1);
        Some(Place { pool, ticket, _permit: permit })
    }

    /// Whether it may check for room at once: no earlier request on this core would take the room
    /// it waits for. If so, the earlier ones are called, in case they do not want the room of its
    /// backend.
    pub(crate) fn looks_at_once(&self) -> bool {
        let sticky = self.ticket.sticky();
        let is_own = |ticket: &Ticket| std::ptr::eq(ticket, Rc::as_ptr(&self.ticket));
        let first = self.pool.queue.first(|ticket| is_own(ticket) || ticket.goes_first(sticky));
        let is_first = first.is_none_or(|first| is_own(&first));
        if !is_first {
            self.waits_behind();
        }
        is_first
    }

    /// Waits for this from now on; false if it does already. One that waits for something else
    /// checks once more.
    pub(crate) fn wants(&self, what: WaitsFor) -> bool {
        let former = self.ticket.waits_for.replace(what);
        if former == what {
            return false;
        }
        self.pool.queue.note(what);
        self.pool.queue.note(former);
        true
    }

    /// It was called and found no room for itself: any room is for others.
    pub(crate) fn passes_on(&self) {
        match self.ticket.sticky() {
            Some(_) => self.waits_behind(),
            None => self.pool.queue.pass_on(|| self.pool.rooms()),
        }
    }

    /// Others wait before it that may not want the room of its backend: they are called.
    fn waits_behind(&self) {
        let sticky = self.ticket.sticky().filter(|sticky| self.pool.rooms().contains(*sticky));
        if sticky.is_some() {
            self.pool.queue.room(sticky);
        }
    }

    /// It was called. It waits again, before all that came later, unless it finds room.
    pub(crate) fn woke(&self) {
        self.ticket.called.lower();
        let queue = &self.pool.queue;
        if !queue.tickets.borrow().iter().any(|other| Rc::ptr_eq(other, &self.ticket)) {
            queue.put(&self.ticket);
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
        self.pool.queue.remove(&self.ticket);
        self.pool.queue.core.counters.tally().sub(Key::Queued(self.pool.id), 1);
    }
}
