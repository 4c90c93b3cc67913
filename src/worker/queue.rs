//! Who waits on this core in front of a full pool, first come first served.
//!
//! Room is made where a request ends: that core calls the first of its own, or tells another core
//! where nobody waits there, or somebody on the other has waited longer. Who is called looks for
//! itself whether the room is still there, and whether it leaves room for the next. Who was asked
//! already and waits for somebody else is in nobody's way. Once in a while everybody is looked at:
//! whose time is over, and who has left.

use std::{cell::RefCell, collections::VecDeque, os::fd::RawFd, rc::Rc};

use super::InForce;
use crate::base::ids::PoolId;
use crate::net::{fd, signal::Signal};
use crate::shared::{
    counters::Counter,
    line::{IN_NO_WAY, Line},
    permits::Permit,
};

/// Who waits on this core.
pub(super) struct Queue {
    line: Line,
    core_index: usize,
    tickets: RefCell<VecDeque<Rc<Ticket>>>,
}

/// One who waits, until it is called.
pub(crate) struct Ticket {
    called: Signal,
    /// Since when it waits, in coarse milliseconds.
    since: u64,
    /// When its time is over, in coarse milliseconds; 0 = never.
    by: u64,
    client: RawFd,
    /// Whether it does not wait for any backend, but for those that it has not tried.
    is_picky: bool,
}

/// A place in the line; given up when it is dropped.
pub(crate) struct Place {
    in_force: Rc<InForce>,
    pool: PoolId,
    ticket: Rc<Ticket>,
    /// The place itself.
    _permit: Permit,
}

impl Queue {
    pub(super) fn new(line: Line, core_index: usize) -> Queue {
        Queue { line, core_index, tickets: RefCell::default() }
    }

    /// Whether nobody waits on this core.
    pub(super) fn is_empty(&self) -> bool {
        self.tickets.borrow().is_empty()
    }

    /// There is room, or may be: calls the first, or says which core to tell.
    pub(super) fn call(&self) -> Option<usize> {
        let since = self.since();
        let other = self.line.before(self.core_index, since);
        // Those who may not want this room do not keep it from another core, nor it from them.
        if other.is_none() || since == Some(IN_NO_WAY) {
            self.call_own();
        }
        other
    }

    /// The same, where nobody else can be told.
    pub(super) fn call_own(&self) {
        if self.call_first() {
            self.note();
        }
    }

    /// Since when the first waits who takes any room.
    fn since(&self) -> Option<u64> {
        let tickets = self.tickets.borrow();
        let first = tickets.iter().find(|ticket| !ticket.is_picky);
        first.map(|first| first.since).or((!tickets.is_empty()).then_some(IN_NO_WAY))
    }

    /// Calls the first, and the next where the first may not want this room; false where nobody
    /// waits.
    fn call_first(&self) -> bool {
        let mut called = false;
        loop {
            let first = self.tickets.borrow_mut().pop_front();
            let Some(first) = first else { return called };
            first.called.raise();
            called = true;
            if !first.is_picky {
                return called;
            }
        }
    }

    /// Calls those whose time is over, those who have left, and the first of all in case that its
    /// call was lost.
    pub(super) fn look_after(&self, now: u64) {
        let due = |ticket: &Rc<Ticket>| {
            (ticket.by != 0 && now >= ticket.by) || fd::has_closed(ticket.client)
        };
        let mut called: Vec<_> = Vec::new();
        self.tickets.borrow_mut().retain(|ticket| {
            let stays = !due(ticket);
            if !stays {
                called.push(Rc::clone(ticket));
            }
            stays
        });
        called.iter().for_each(|ticket| ticket.called.raise());
        self.call_first();
        self.note();
    }

    /// Lets other cores know.
    fn note(&self) {
        self.line.wait(self.core_index, self.since());
    }

    fn remove(&self, ticket: &Rc<Ticket>) {
        self.tickets.borrow_mut().retain(|other| !Rc::ptr_eq(other, ticket));
        self.note();
    }
}

impl Place {
    /// The last place of the line; none where the line is full. `is_picky`: who takes it has tried
    /// some backends already.
    pub(crate) fn take(
        in_force: &Rc<InForce>,
        pool: PoolId,
        by: u64,
        (now, client): (u64, RawFd),
        is_picky: bool,
    ) -> Option<Place> {
        let queue = in_force.pool(pool).queue.as_ref()?;
        let permit = queue.line.place()?;
        let called = Signal::default();
        let ticket = Rc::new(Ticket { called, since: now, by, client, is_picky });
        queue.tickets.borrow_mut().push_back(Rc::clone(&ticket));
        queue.note();
        in_force.counters.add(Counter::Queued, 1);
        Some(Place { in_force: Rc::clone(in_force), pool, ticket, _permit: permit })
    }

    /// Waits again, as the first: who was called found no room.
    pub(crate) fn renew(&mut self) {
        let Some(queue) = self.in_force.pool(self.pool).queue.as_ref() else { return };
        let Ticket { since, by, client, is_picky, .. } = *self.ticket;
        let called = Signal::default();
        self.ticket = Rc::new(Ticket { called, since, by, client, is_picky });
        queue.tickets.borrow_mut().push_front(Rc::clone(&self.ticket));
        queue.note();
    }

    /// Whether nobody on this core waits before it who would take any room.
    pub(crate) fn is_first(&self) -> bool {
        let Some(queue) = self.in_force.pool(self.pool).queue.as_ref() else { return true };
        let tickets = queue.tickets.borrow();
        let is_own = |ticket: &&Rc<Ticket>| Rc::ptr_eq(ticket, &self.ticket);
        tickets
            .iter()
            .find(|ticket| is_own(ticket) || !ticket.is_picky)
            .is_none_or(|it| is_own(&it))
    }

    /// Up when it is called.
    pub(crate) fn called(&self) -> &Signal {
        &self.ticket.called
    }

    /// Until when it may wait; 0 = for ever.
    pub(crate) fn by(&self) -> u64 {
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
    use super::*;
    use crate::shared::{
        counters::Slab,
        inbox::{Message, mailbox},
    };
    use crate::worker::{Common, Own, Worker};

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
        let (outboxes, inboxes): (Vec<_>, Vec<_>) = (0..2).map(|_| mailbox().unwrap()).unzip();
        let common = Common::of_text(TEXT, outboxes);
        let own = |core_index| Own { core_index, counters: Slab::new(), outlets: Vec::new() };
        let [here, there] = [0, 1].map(|core| Worker::new(common.clone(), own(core)).in_force());
        let told = || inboxes.iter().map(|inbox| inbox.next().is_some()).collect::<Vec<_>>();
        let join = |core, now| Place::take(core, POOL, 0, (now, -1), false).unwrap();
        here.made_room(POOL);
        assert_eq!(told(), [false, false], "nobody waits");
        let place = join(&there, 500);
        here.made_room(POOL);
        assert_eq!(inboxes[1].next(), Some(Message::Room(POOL)));
        assert_eq!(told(), [false, false]);
        assert!(!place.called().is_raised(), "its own core calls it");
        let nearer = join(&here, 505);
        here.made_room(POOL);
        assert!(nearer.called().is_raised());
        assert_eq!(told(), [false, false]);
        let later = join(&here, 900);
        here.made_room(POOL);
        assert!(!later.called().is_raised(), "the other has waited for long");
        assert_eq!(inboxes[1].next(), Some(Message::Room(POOL)));
        there.made_room(POOL);
        assert!(place.called().is_raised());
    }
}
