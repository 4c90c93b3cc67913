//! Deadlines of one worker: a slab of waits, swept four times a second while it is not empty.
//!
//! No operation has a timer object of its own. A task records the deadline of its wait
//! (`watched.rs`); the sweep ends what is overdue, one half or both, and leaves a mark by which the
//! task can tell a timeout from a close by the peer (`ended.rs`). A client's wait to read is ended
//! by waking its task, and its socket stays open, because it may still be answered and read; every
//! other end of a socket is `shutdown(2)`, which completes operations in flight. The sweep also
//! checks clients on whose behalf a slow backend is waited for: when one has left, the wait is
//! ended (`sweep.rs`). Timeouts are accurate to a quarter of a second. `resting.rs` has the
//! connections that rest, and make room for others.
//!
//! A guard removes an entry before its socket is closed: descriptor numbers are reused, and a late
//! entry would shut down another connection.

mod called;
mod ended;
mod entry;
mod resting;
mod sweep;
mod watched;

use std::{
    cell::{Cell, RefCell},
    os::fd::RawFd,
    rc::Rc,
    task::Waker,
};

pub(crate) use self::{
    ended::{End, Ended, Unmet},
    entry::Watch,
    resting::Rest,
    watched::Watched,
};
use self::{
    entry::{Entry, Kind},
    resting::Resting,
};
use super::clock::Clock;
use crate::base::moment::Tick;

/// Entries that are checked before other tasks get their turn, and connections that are closed in
/// one round of a drain: all of them may be closed then, at a few microseconds each.
const SLICE: usize = 4_096;

#[derive(Default)]
struct Slab {
    entries: Vec<Entry>,
    free: Vec<u32>,
    resting: Resting,
    round: u32,
    /// When the last round began, and how many clients had asked since the one before.
    begun: Option<Tick>,
    asked: u32,
}

/// The deadlines of one worker.
pub(crate) struct Deadlines {
    slab: RefCell<Slab>,
    clock: Rc<Clock>,
    sweeper: Cell<Option<Waker>>,
    awake: Cell<bool>,
}

impl Deadlines {
    pub(crate) fn new(clock: Rc<Clock>) -> Rc<Deadlines> {
        Rc::new(Deadlines {
            slab: RefCell::default(),
            clock,
            sweeper: Cell::new(None),
            awake: Cell::new(false),
        })
    }

    /// Watches a descriptor until the guard is dropped.
    pub(crate) fn watch(self: &Rc<Deadlines>, fd: RawFd, watch: Watch) -> Watched {
        let entry = Entry::new(fd, watch, self.clock.tick());
        let slab = &mut *self.slab.borrow_mut();
        let index = if let Some(index) = slab.free.pop() {
            slab.entries[index as usize] = entry;
            index
        } else {
            slab.entries.push(entry);
            slab.entries.len() as u32 - 1
        };
        if !self.awake.get() {
            self.clock.renew();
            if let Some(waker) = self.sweeper.take() {
                waker.wake();
            }
        }
        Watched { deadlines: Rc::clone(self), index }
    }

    /// How many descriptors are watched.
    pub(crate) fn len(&self) -> usize {
        let slab = self.slab.borrow();
        slab.entries.len() - slab.free.len()
    }

    /// How many clients had asked, as of the last round, since the one before.
    pub(crate) fn asked(&self) -> u32 {
        self.slab.borrow().asked
    }

    /// Whether nothing is watched.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shuts everything down at once.
    pub(crate) fn close_all(&self) {
        let slab = &mut *self.slab.borrow_mut();
        slab.entries
            .iter_mut()
            .filter(|it| it.kind != Kind::Free)
            .for_each(|it| it.end_both(Ended::Closed));
    }
}

#[cfg(test)]
mod tests;
