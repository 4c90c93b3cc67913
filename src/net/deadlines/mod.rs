//! The sweep: one slab of deadlines per worker, looked at every quarter of a second while it holds
//! anything.
//!
//! No operation has a timer object of its own. Who waits for a socket notes until when; the sweep
//! ends what is overdue, one half or both, and leaves a mark that says whose doing it was
//! (`ended.rs`). A client's wait to read is ended by waking its task, and its socket stays as it
//! is, because it may still be answered and read; every other end is `shutdown(2)`, which completes
//! what is in flight. The sweep also looks after clients that wait for a slow backend: when one has
//! left, the wait for the backend is ended. Timeouts hold to a quarter of a second. Which
//! connections rest, and make room for others, stands in `resting.rs`.
//!
//! An entry is taken out before its socket is closed, by a guard: descriptor numbers are reused,
//! and a late entry would shut down a stranger.

mod ended;
mod resting;

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    os::fd::RawFd,
    rc::Rc,
    task::{Poll, Waker},
    time::Duration,
};

use self::resting::{NONE, Resting};
pub(crate) use self::{
    ended::{End, Ended, Unmet},
    resting::Rest,
};
use super::{
    clock::Clock,
    fd::{self, Half},
    io::sleep,
    leaving::{ForClient, Look},
    turns::next_turn,
};
use crate::base::moment::{Deadline, Micros, Tick};

/// How often the sweep looks.
const ROUND: Duration = Duration::from_millis(250);

/// A quarter of the waiting clients is looked at in each round.
const WATCH_ROUNDS: u32 = 4;

/// Entries that are looked at before others have their turn, and connections that are closed in one
/// round of a drain: all of them may be closed then, at a few microseconds each.
const SLICE: usize = 4_096;

/// Between two rounds of more than this the process stood still. What lies in the sockets came in
/// time, for all we know: it is read first, and the next round looks again.
const STOOD_STILL: Micros = Micros(2 * 250_000);

/// How the sweep ends a wait to read that is overdue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// The wait alone, by waking its task: a client is still to be answered.
    Wait,
    /// All of the connection: a backend that is late is of no more use.
    Both,
}

struct Entry {
    fd: RawFd,
    /// The client that waits for this one, if any, and whether it may have left.
    client: Option<ForClient>,
    doubtful: bool,
    read_by: Deadline,
    write_by: Deadline,
    /// Since when it rests, or rested last; before that since it is watched.
    since: Tick,
    /// Its place among those that rest alike.
    previous: u32,
    next: u32,
    /// Which listener it came from: room may be needed at one listener alone.
    tag: u16,
    ends: Ends,
    /// Why there is no more reading, and no more writing.
    reading: Option<Ended>,
    writing: Option<Ended>,
    rest: Option<Rest>,
    used: bool,
    /// Whether its task is to be told when it has been idle for `STAY`.
    stays: bool,
    /// The task that waits to read, where that is woken.
    task: Option<Waker>,
}

/// For how long an idle client that may go on at once keeps what a burst of requests needs, and at
/// most a round longer.
const STAY: Duration = Duration::from_millis(250);

/// The tag of descriptors that no listener has: they never rest.
pub(crate) const NO_TAG: u16 = u16::MAX;

#[derive(Default)]
struct Slab {
    entries: Vec<Entry>,
    free: Vec<u32>,
    resting: Resting,
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
            client: None,
            doubtful: false,
            read_by: Deadline::NEVER,
            write_by: Deadline::NEVER,
            since: self.clock.tick(),
            previous: NONE,
            next: NONE,
            tag,
            ends,
            reading: None,
            writing: None,
            rest: None,
            used: true,
            stays: false,
            task: None,
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

    /// Closes the client connection that is the next to make room, of one listener if `tag` says
    /// so; false where none rests. One whose request lies in its socket already does not rest.
    pub(crate) fn make_room(&self, tag: Option<u16>) -> bool {
        let slab = &mut *self.slab.borrow_mut();
        let next = slab.resting.next_to_go(&slab.entries, tag, Entry::may_go);
        let Some(index) = next else { return false };
        slab.close_resting(index);
        true
    }

    /// Closes the connection that has lingered longest.
    pub(crate) fn close_longest_lingering(&self) {
        let slab = &mut *self.slab.borrow_mut();
        let longest = (0..slab.resting.tags())
            .map(|tag| slab.resting.first(tag, Rest::Lingering))
            .filter(|place| *place != NONE)
            .min_by_key(|place| slab.entries[*place as usize].since);
        if let Some(index) = longest {
            slab.close_resting(index);
        }
    }

    /// Closes client connections that have been silent or idle since `until` or longer, the longest
    /// of each listener first, and not more than a slice of them.
    pub(crate) fn close_resting_since(&self, until: Tick) {
        let slab = &mut *self.slab.borrow_mut();
        let mut left = SLICE;
        for tag in 0..slab.resting.tags() {
            for kind in [Rest::Silent, Rest::Idle] {
                let mut place = slab.resting.first(tag, kind);
                while place != NONE && left > 0 {
                    let entry = &slab.entries[place as usize];
                    if entry.since > until {
                        break;
                    }
                    let (index, may_go) = (place, entry.may_go());
                    place = entry.next;
                    left -= 1;
                    if may_go {
                        slab.close_resting(index);
                    }
                }
            }
        }
    }

    /// Shuts everything down at once.
    pub(crate) fn close_all(&self) {
        let slab = &mut *self.slab.borrow_mut();
        slab.entries.iter_mut().filter(|it| it.used).for_each(|it| it.end_both(Ended::Closed));
    }

    /// Sweeps for ever; `each_round` is called after each round.
    pub(crate) async fn sweep(&self, mut each_round: impl FnMut()) {
        let mut stood_still = false;
        loop {
            self.wait_until_needed().await;
            let before = Clock::moment();
            sleep(ROUND).await;
            let slept = self.clock.renew().since(before);
            // Never twice in a row: a core that is always late has deadlines all the same.
            stood_still = slept > STOOD_STILL && !stood_still;
            if !stood_still {
                self.round().await;
            }
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
    async fn round(&self) {
        self.slab.borrow_mut().begin_round();
        let mut from = 0;
        while let Some(next) = self.slice(from) {
            next_turn().await;
            from = next;
        }
    }

    /// Looks at a slice of the entries; where the next begins, if there is one.
    fn slice(&self, from: usize) -> Option<usize> {
        let now = self.clock.tick();
        let slab = &mut *self.slab.borrow_mut();
        let until = (from + SLICE).min(slab.entries.len());
        let turn = slab.round;
        for (index, entry) in (from..).zip(slab.entries.get_mut(from..until)?) {
            if entry.used {
                let watches = (index as u32).wrapping_add(turn).is_multiple_of(WATCH_ROUNDS);
                entry.look(now, watches);
            }
        }
        (until < slab.entries.len()).then_some(until)
    }
}

impl Slab {
    fn begin_round(&mut self) {
        self.round = self.round.wrapping_add(1);
    }

    /// Says that this is the end and wakes the task, which closes; nothing is read before.
    fn close_resting(&mut self, index: u32) {
        self.resting.remove(&mut self.entries, index);
        let entry = &mut self.entries[index as usize];
        fd::shut_down(entry.fd, Half::Writing);
        (entry.reading, entry.writing) = (Some(Ended::Closed), Some(Ended::Closed));
        entry.wake();
    }
}

impl Entry {
    /// Whether it rests indeed: what lies in its socket is a request that came before us.
    fn may_go(&self) -> bool {
        self.rest == Some(Rest::Lingering) || !fd::has_bytes(self.fd)
    }

    /// Ends what is overdue. Reading and writing are late apart, and one has nothing to say about
    /// the other.
    fn look(&mut self, now: Tick, watches: bool) {
        if self.stays && self.rest == Some(Rest::Idle) && self.since + STAY <= now {
            self.stays = false;
            self.wake();
        }
        if self.writing.is_none() && self.write_by.is_over(now) {
            self.end_both(Ended::Overdue);
        } else if self.reading.is_some() {
            // Nobody reads any more.
        } else if self.read_by.is_over(now) {
            self.end_reading(Ended::Overdue);
        } else if watches && self.client_has_left() {
            self.end_reading(Ended::ClientLeft);
        }
    }

    /// Whether the client has left for whom this one is waited for.
    fn client_has_left(&mut self) -> bool {
        match self.client.map(ForClient::look) {
            None | Some(Look::There) => false,
            Some(Look::Doubtful) => std::mem::replace(&mut self.doubtful, true),
            Some(Look::Left) => true,
        }
    }

    fn end_reading(&mut self, why: Ended) {
        match self.ends {
            Ends::Both => self.end_both(why),
            Ends::Wait => {
                self.reading = Some(why);
                self.wake();
            }
        }
    }

    /// Ends both halves; one that had its end before keeps its reason.
    fn end_both(&mut self, why: Ended) {
        self.reading.get_or_insert(why);
        self.writing.get_or_insert(why);
        fd::shut_down(self.fd, Half::Both);
        self.wake();
    }

    fn wake(&self) {
        if let Some(task) = &self.task {
            task.wake_by_ref();
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

    /// Reading must go on by then.
    #[inline]
    pub(crate) fn read_by(&self, deadline: Deadline) {
        self.with(|entry| entry.read_by = deadline);
    }

    /// Writing must go on by then.
    #[inline]
    pub(crate) fn write_by(&self, deadline: Deadline) {
        self.with(|entry| entry.write_by = deadline);
    }

    /// Reading must go on by then, and it is for this client, if any: when it leaves, so ends the
    /// wait.
    #[inline]
    pub(crate) fn read_for(&self, deadline: Deadline, client: Option<ForClient>) {
        self.with(|entry| {
            entry.read_by = deadline;
            entry.client = client;
            entry.doubtful = false;
        });
    }

    /// Where reading is for a client: it is for this one.
    pub(crate) fn waits_for(&self, client: ForClient) {
        self.with(|entry| {
            if let Some(known) = &mut entry.client {
                *known = client;
            }
        });
    }

    /// Joins those that rest, and make room when it is needed; something must come by then. Nothing
    /// where it rests already: nobody becomes less idle by being looked at.
    #[inline]
    pub(crate) fn rests(&self, kind: Rest, now: Tick, deadline: Deadline) {
        let slab = &mut *self.deadlines.slab.borrow_mut();
        let entry = &mut slab.entries[self.index as usize];
        if entry.rest.is_some() || entry.tag == NO_TAG {
            return;
        }
        entry.since = now;
        entry.read_by = deadline;
        slab.resting.push(&mut slab.entries, self.index, kind);
    }

    /// Rests no more.
    #[inline]
    pub(crate) fn busy(&self) {
        let slab = &mut *self.deadlines.slab.borrow_mut();
        slab.resting.remove(&mut slab.entries, self.index);
    }

    /// Whether it became idle so lately that its client may be one who asks again at once.
    #[inline]
    pub(crate) fn is_idle_lately(&self, now: Tick) -> bool {
        self.with(|entry| entry.rest == Some(Rest::Idle) && now <= entry.since + STAY)
    }

    /// From now on this task is woken when the connection has been idle for a while.
    #[inline]
    pub(crate) fn stay(&self, task: &Waker) {
        self.with(|entry| {
            entry.stays = true;
            entry.note(task);
        });
    }

    /// Whether that has not come to pass.
    #[inline]
    pub(crate) fn stays(&self) -> bool {
        self.with(|entry| entry.stays)
    }

    /// Whether, and why, we ended this half; else `task` is woken when we do, where that takes a
    /// wake-up.
    #[inline]
    pub(crate) fn ended_or_wakes(&self, end: End, task: &Waker) -> Option<Ended> {
        self.with(|entry| {
            let ended = entry.ended(end);
            if ended.is_none() && end == End::Reading && entry.ends == Ends::Wait {
                entry.note(task);
            }
            ended
        })
    }

    /// Whether, and why, we ended this half.
    #[inline]
    pub(crate) fn ended(&self, end: End) -> Option<Ended> {
        self.with(|entry| entry.ended(end))
    }

    /// Whether, and why, we ended reading.
    #[cfg(test)]
    pub(crate) fn reading(&self) -> Option<Ended> {
        self.ended(End::Reading)
    }

    /// Ends whatever is waited for, and says why.
    pub(crate) fn end(&self, why: Ended) {
        self.with(|entry| entry.end_both(why));
    }

    /// The request is over, however its reading ended: what comes now is read and forgotten until
    /// then. Nothing where the connection was closed.
    pub(crate) fn lingers(&self, now: Tick, deadline: Deadline) {
        let lingers = self.with(|entry| {
            if entry.reading != Some(Ended::Closed) {
                entry.reading = None;
            }
            entry.read_by = deadline;
            entry.rest == Some(Rest::Lingering)
        });
        if !lingers {
            self.busy();
            self.rests(Rest::Lingering, now, deadline);
        }
    }
}

impl Entry {
    fn ended(&self, end: End) -> Option<Ended> {
        match end {
            End::Reading => self.reading,
            End::Writing => self.writing,
        }
    }

    /// Notes the task to wake; it is the same one as long as the connection lasts.
    fn note(&mut self, task: &Waker) {
        if !self.task.as_ref().is_some_and(|known| known.will_wake(task)) {
            self.task = Some(task.clone());
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let slab = &mut *self.deadlines.slab.borrow_mut();
        slab.resting.remove(&mut slab.entries, self.index);
        let entry = &mut slab.entries[self.index as usize];
        entry.used = false;
        let task = entry.task.take();
        slab.free.push(self.index);
        // Give the room of a peak back once nobody is watched.
        if slab.free.len() == slab.entries.len() {
            slab.entries.clear();
            slab.free.clear();
            if slab.entries.capacity() > SLICE {
                slab.entries.shrink_to(64);
                slab.free.shrink_to(64);
            }
        }
        drop(task);
    }
}

#[cfg(test)]
mod tests;
