//! The sweep: one slab of deadlines per worker, looked at every quarter of a second while it holds
//! anything.
//!
//! No operation has a timer object of its own. Who waits for a socket notes until when; the sweep
//! ends an overdue wait by `shutdown(2)`, which completes polls and receives alike, and leaves a
//! mark so that the one who waited knows whose doing it was. It also keeps the list of idle client
//! connections, longest idle first, and looks after clients that wait for a slow backend: when one
//! has left, the wait for the backend is ended. Timeouts hold to a quarter of a second.
//!
//! An entry is taken out before its socket is closed, by a guard: descriptor numbers are reused,
//! and a late entry would shut down a stranger.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    os::fd::RawFd,
    rc::Rc,
    task::{Poll, Waker},
    time::Duration,
};

use super::{
    clock::Clock,
    fd::{self, Half},
    io::sleep,
};

/// How often the sweep looks.
const ROUND: Duration = Duration::from_millis(250);

/// A quarter of the waiting clients is looked at in each round.
const WATCH_ROUNDS: u32 = 4;

const NONE: u32 = u32::MAX;

/// What the sweep shuts down when a wait for reading is overdue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// The reading half: a client is still to be answered.
    Reading,
    /// All of it: a backend that is late is of no more use.
    Both,
}

/// Why a wait was ended by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was not: whatever the socket says is the peer's doing.
    No,
    /// It was overdue.
    Overdue,
    /// The client that it was for has left.
    ClientLeft,
    /// The worker stops, or needs the room.
    Closed,
}

struct Entry {
    fd: RawFd,
    /// The client's descriptor while it waits for this one; -1 = none.
    client: RawFd,
    read_by: u64,
    write_by: u64,
    idle_since: u64,
    previous: u32,
    next: u32,
    /// Which listener it came from: eviction may be for one listener alone.
    tag: u16,
    ends: Ends,
    ended: Ended,
    idle: bool,
    used: bool,
}

/// The tag of descriptors that no listener has.
pub(crate) const NO_TAG: u16 = u16::MAX;

/// How far the list of idle connections is searched for one of a certain listener.
const SEARCH_MAX: usize = 1024;

#[derive(Default)]
struct Slab {
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// Ends of the list of idle entries: the longest idle, the latest.
    first_idle: Option<u32>,
    last_idle: Option<u32>,
    round: u32,
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
    pub(crate) fn watch(self: &Rc<Deadlines>, fd: RawFd, ends: Ends, tag: u16) -> Watched {
        let entry = Entry {
            fd,
            client: -1,
            read_by: 0,
            write_by: 0,
            idle_since: 0,
            previous: NONE,
            next: NONE,
            tag,
            ends,
            ended: Ended::No,
            idle: false,
            used: true,
        };
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

    /// Whether nothing is watched.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes the client connection that has been idle longest, of one listener if `tag` says so;
    /// false where none is idle.
    pub(crate) fn close_longest_idle(&self, tag: Option<u16>) -> bool {
        let slab = &mut *self.slab.borrow_mut();
        let Some(index) = slab.longest_idle(tag) else { return false };
        slab.unlink(index);
        slab.entries[index as usize].end(Ended::Closed);
        true
    }

    /// Closes every client connection that has been idle since `until` or longer.
    pub(crate) fn close_idle_since(&self, until: u64) {
        let slab = &mut *self.slab.borrow_mut();
        while let Some(index) = slab.first_idle {
            if slab.entries[index as usize].idle_since > until {
                return;
            }
            slab.unlink(index);
            slab.entries[index as usize].end(Ended::Closed);
        }
    }

    /// Shuts everything down at once.
    pub(crate) fn close_all(&self) {
        let slab = &mut *self.slab.borrow_mut();
        for entry in slab.entries.iter_mut().filter(|entry| entry.used) {
            entry.ends = Ends::Both;
            entry.end(Ended::Closed);
        }
    }

    /// Sweeps for ever; `each_round` is called after each round.
    pub(crate) async fn sweep(&self, mut each_round: impl FnMut()) {
        loop {
            self.wait_until_needed().await;
            sleep(ROUND).await;
            self.clock.renew();
            self.round();
            each_round();
        }
    }

    async fn wait_until_needed(&self) {
        poll_fn(|cx| {
            self.awake.set(!self.is_empty());
            if self.awake.get() {
                return Poll::Ready(());
            }
            self.sweeper.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    /// One round: ends what is overdue, and what is done for clients that have left.
    fn round(&self) {
        let now = self.clock.now();
        let slab = &mut *self.slab.borrow_mut();
        slab.round = slab.round.wrapping_add(1);
        let turn = slab.round;
        let overdue = |by: u64| by != 0 && by <= now;
        for (index, entry) in slab.entries.iter_mut().enumerate() {
            if !entry.used || entry.ended != Ended::No {
                continue;
            }
            if overdue(entry.write_by) {
                entry.ends = Ends::Both;
                entry.end(Ended::Overdue);
            } else if overdue(entry.read_by) {
                entry.end(Ended::Overdue);
            } else if entry.client >= 0
                && (index as u32).wrapping_add(turn).is_multiple_of(WATCH_ROUNDS)
                && fd::has_left(entry.client)
            {
                entry.end(Ended::ClientLeft);
            }
        }
    }
}

impl Entry {
    fn end(&mut self, why: Ended) {
        self.ended = why;
        fd::shut_down(
            self.fd,
            match self.ends {
                Ends::Reading => Half::Reading,
                Ends::Both => Half::Both,
            },
        );
    }
}

impl Slab {
    fn longest_idle(&self, tag: Option<u16>) -> Option<u32> {
        let mut place = self.first_idle;
        for _ in 0..SEARCH_MAX {
            let entry = &self.entries[place? as usize];
            if tag.is_none_or(|tag| tag == entry.tag) {
                return place;
            }
            place = (entry.next != NONE).then_some(entry.next);
        }
        None
    }

    fn link(&mut self, index: u32) {
        let previous = self.last_idle.replace(index);
        match previous {
            Some(last) => self.entries[last as usize].next = index,
            None => self.first_idle = Some(index),
        }
        let entry = &mut self.entries[index as usize];
        entry.idle = true;
        entry.previous = previous.unwrap_or(NONE);
        entry.next = NONE;
    }

    fn unlink(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        if !entry.idle {
            return;
        }
        entry.idle = false;
        let (previous, next) = (entry.previous, entry.next);
        match previous {
            NONE => self.first_idle = (next != NONE).then_some(next),
            place => self.entries[place as usize].next = next,
        }
        match next {
            NONE => self.last_idle = (previous != NONE).then_some(previous),
            place => self.entries[place as usize].previous = previous,
        }
    }
}

/// A watched descriptor. Dropping it ends the watch; drop it before the socket.
pub(crate) struct Watched {
    deadlines: Rc<Deadlines>,
    index: u32,
}

impl Watched {
    #[inline]
    fn with<T>(&self, act: impl FnOnce(&mut Entry) -> T) -> T {
        act(&mut self.deadlines.slab.borrow_mut().entries[self.index as usize])
    }

    /// Reading must go on by then; 0 = no bound.
    #[inline]
    pub(crate) fn read_by(&self, deadline: u64) {
        self.with(|entry| entry.read_by = deadline);
    }

    /// Writing must go on by then; 0 = no bound.
    #[inline]
    pub(crate) fn write_by(&self, deadline: u64) {
        self.with(|entry| entry.write_by = deadline);
    }

    /// Reading must go on by then, and it is for this client: when it leaves, so ends the wait.
    #[inline]
    pub(crate) fn read_for(&self, deadline: u64, client: RawFd) {
        self.with(|entry| {
            entry.read_by = deadline;
            entry.client = client;
        });
    }

    /// Joins the idle, of whom the longest idle goes first when room is needed.
    #[inline]
    pub(crate) fn idle(&self, now: u64, deadline: u64) {
        let slab = &mut *self.deadlines.slab.borrow_mut();
        slab.unlink(self.index);
        slab.link(self.index);
        let entry = &mut slab.entries[self.index as usize];
        entry.idle_since = now;
        entry.read_by = deadline;
    }

    /// Leaves the idle.
    #[inline]
    pub(crate) fn busy(&self) {
        let slab = &mut *self.deadlines.slab.borrow_mut();
        slab.unlink(self.index);
    }

    /// Ends whatever is waited for, and says why.
    pub(crate) fn end(&self, why: Ended) {
        self.with(|entry| {
            entry.ends = Ends::Both;
            entry.end(why);
        });
    }

    /// Whether, and why, we ended the wait.
    #[inline]
    pub(crate) fn ended(&self) -> Ended {
        self.with(|entry| entry.ended)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let slab = &mut *self.deadlines.slab.borrow_mut();
        slab.unlink(self.index);
        slab.entries[self.index as usize].used = false;
        slab.free.push(self.index);
        // Give the room of a peak back once nobody is watched.
        if slab.free.len() == slab.entries.len() {
            slab.entries.clear();
            slab.free.clear();
            if slab.entries.capacity() > 4096 {
                slab.entries.shrink_to(64);
                slab.free.shrink_to(64);
            }
        }
    }
}
