//! The guard of a watched descriptor, by which its task sets the deadlines of its waits.
//!
//! It has the index of an entry and nothing else: each call is a look into the slab. What ends an
//! overdue wait is in `entry.rs` and `sweep.rs`.

use std::{os::fd::RawFd, rc::Rc, task::Waker, time::Duration};

use super::{
    Deadlines, End, Ended, SLICE,
    entry::{Entry, Kind, OnBehalf, packed},
    resting::Rest,
};
use crate::base::{
    ids::{BackendId, PoolId},
    moment::{Deadline, Tick},
};
use crate::net::leaving::{ForClient, Leaves, OF_STREAM};

/// How long an idle client that may ask again at once keeps what a burst of requests needs; at most
/// a round longer.
pub(super) const STAY: Duration = Duration::from_millis(250);

/// A watched descriptor. Dropping it ends the watch; drop it before the socket.
pub(crate) struct Watched {
    pub(super) deadlines: Rc<Deadlines>,
    pub(super) index: u32,
}

impl Watched {
    #[inline]
    fn with<T>(&self, act: impl FnOnce(&mut Entry) -> T) -> T {
        act(&mut self.deadlines.slab.borrow_mut().entries[self.index as usize])
    }

    /// Reading must progress by then.
    #[inline]
    pub(crate) fn read_by(&self, deadline: Deadline) {
        self.with(|entry| entry.read_by = deadline);
    }

    /// Writing must progress by then.
    #[inline]
    pub(crate) fn write_by(&self, deadline: Deadline) {
        self.with(|entry| entry.write_by = deadline);
    }

    /// Reading must progress by then, and it is on behalf of this client, if any: when that leaves,
    /// the wait ends.
    #[inline]
    pub(crate) fn read_for(&self, deadline: Deadline, client: Option<ForClient>) {
        self.with(|entry| entry.reads_for(deadline, client));
        self.link(client);
    }

    /// Like `read_for`, for an answer. `calls`: the task of the client is woken in the next round,
    /// once, as it has something to look after that it does not wait for.
    #[inline]
    pub(crate) fn awaits(&self, deadline: Deadline, client: Option<ForClient>, calls: bool) {
        self.with(|entry| {
            entry.reads_for(deadline, client);
            entry.stays = calls;
        });
        self.link(client);
    }

    /// The answer has come.
    #[inline]
    pub(crate) fn awaits_no_more(&self) {
        self.awaits(Deadline::NEVER, None, false);
    }

    /// If reading is on behalf of a client: of this one.
    pub(crate) fn waits_for(&self, client: ForClient) {
        self.with(|entry| match (entry.on_behalf, client.leaves) {
            (OnBehalf::Nobody, _) | (OnBehalf::Doubtful, Leaves::LastingEnd) => {}
            (OnBehalf::Client(_) | OnBehalf::Doubtful, leaves) => {
                entry.on_behalf = OnBehalf::Client(leaves);
                entry.client_fd = client.fd;
                entry.next = client.entry;
            }
        });
        self.link(Some(client));
    }

    /// The entry of a stream learns who waits on its behalf, so that the end of the stream can end
    /// that wait: there is no socket to look at.
    #[inline]
    fn link(&self, client: Option<ForClient>) {
        if let Some(client) = client.filter(|client| client.fd == OF_STREAM) {
            self.link_stream(client.entry as usize);
        }
    }

    #[cold]
    fn link_stream(&self, stream: usize) {
        let slab = &mut *self.deadlines.slab.borrow_mut();
        let Some(entry) = slab.entries.get_mut(stream) else { return };
        entry.next = self.index;
        if entry.reading == Some(Ended::ClientLeft) {
            slab.entries[self.index as usize].end_reading(Ended::ClientLeft);
        }
    }

    /// A stream is over: its waits end, and a wait on its behalf.
    pub(crate) fn leave(&self) {
        let slab = &mut *self.deadlines.slab.borrow_mut();
        let entry = &mut slab.entries[self.index as usize];
        entry.end_both(Ended::ClientLeft);
        let waits = entry.next as usize;
        if let Some(backend) = slab.entries.get_mut(waits)
            && (backend.is_backend() || backend.kind == Kind::Asked)
            && backend.on_behalf != OnBehalf::Nobody
            && (backend.client_fd, backend.next) == (OF_STREAM, self.index)
        {
            backend.end_reading(Ended::ClientLeft);
        }
    }

    /// As a stream on whose behalf a backend is waited for.
    pub(crate) fn waits_as_stream(&self, leaves: Leaves) -> ForClient {
        ForClient::new((OF_STREAM, self.index), leaves)
    }

    /// It is a client whose connection carries streams.
    pub(crate) fn is_multiplexed(&self) {
        self.with(|entry| entry.kind = Kind::Multiplexed);
    }

    /// It is a socket of a tunnel.
    pub(crate) fn is_of_tunnel(&self) {
        self.with(|entry| entry.kind = Kind::Tunnel);
    }

    /// It is a client whose tunnel has ended.
    pub(crate) fn is_client_again(&self) {
        self.with(|entry| entry.kind = Kind::Client);
    }

    /// Wakes its task.
    #[inline]
    pub(crate) fn wake(&self) {
        self.with(|entry| entry.wake());
    }

    /// It is a connection to this backend, or a task that makes one.
    pub(crate) fn is_of(&self, pool: PoolId, backend: BackendId) {
        self.with(|entry| entry.previous = packed(pool, backend));
    }

    /// This task is woken when its backend is `called`.
    pub(crate) fn wakes(&self, task: &Waker) {
        self.with(|entry| entry.note(task));
    }

    /// As a client on whose behalf a backend is waited for; `leaves` is the sign that it left.
    #[inline]
    pub(crate) fn waits(&self, fd: RawFd, leaves: Leaves) -> ForClient {
        ForClient::new((fd, self.index), leaves)
    }

    /// Joins the connections that rest, and make room when it is needed; bytes must come by then.
    /// Does nothing if it rests already: a check makes no connection less idle.
    #[inline]
    pub(crate) fn rests(&self, kind: Rest, now: Tick, deadline: Deadline) {
        let slab = &mut *self.deadlines.slab.borrow_mut();
        let entry = &mut slab.entries[self.index as usize];
        if entry.rest.is_some() || !matches!(entry.kind, Kind::Client | Kind::Multiplexed) {
            return;
        }
        entry.since = now;
        entry.read_by = deadline;
        slab.resting.push(&mut slab.entries, self.index, kind);
    }

    /// Goes on here, although it was to be given away.
    pub(crate) fn goes_on(&self) {
        self.with(|entry| (entry.reading, entry.writing) = (None, None));
    }

    /// Rests no more.
    #[inline]
    pub(crate) fn busy(&self) {
        let slab = &mut *self.deadlines.slab.borrow_mut();
        slab.resting.remove(&mut slab.entries, self.index);
    }

    /// Whether it became idle so recently that its client may be one that asks again at once.
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

    /// Whether that has not happened.
    #[inline]
    pub(crate) fn stays(&self) -> bool {
        self.with(|entry| entry.stays)
    }

    /// Whether, and why, we ended this half; otherwise `task` is woken when we do, if that takes a
    /// wake-up.
    #[inline]
    pub(crate) fn ended_or_wakes(&self, end: End, task: &Waker) -> Option<Ended> {
        self.with(|entry| {
            let ended = entry.ended(end);
            let is_woken = match entry.kind {
                Kind::Client | Kind::Multiplexed | Kind::Refused => end == End::Reading,
                Kind::Task | Kind::Stream | Kind::Asked | Kind::Tunnel => true,
                Kind::Backend | Kind::Entrusted | Kind::Free => false,
            };
            if ended.is_none() && is_woken {
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

    /// Whether it is a backend that may carry out what it was asked, whoever leaves.
    pub(crate) fn is_entrusted(&self) -> bool {
        self.with(|entry| entry.kind == Kind::Entrusted)
    }

    /// Says whether it is one, of a backend.
    pub(crate) fn entrusts(&self, it_is: bool) {
        self.with(|entry| {
            if entry.is_backend() {
                entry.kind = if it_is { Kind::Entrusted } else { Kind::Backend };
            }
        });
    }

    /// Ends every wait for this reason.
    pub(crate) fn end(&self, why: Ended) {
        self.with(|entry| entry.end_both(why));
    }

    /// The request is over, however its reading ended: further bytes are read and dropped until
    /// then. Does nothing if the connection was closed.
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
    #[inline]
    fn reads_for(&mut self, deadline: Deadline, client: Option<ForClient>) {
        self.read_by = deadline;
        self.on_behalf = OnBehalf::Nobody;
        if let Some(client) = client {
            self.on_behalf = OnBehalf::Client(client.leaves);
            self.client_fd = client.fd;
            self.next = client.entry;
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let slab = &mut *self.deadlines.slab.borrow_mut();
        slab.resting.remove(&mut slab.entries, self.index);
        let entry = &mut slab.entries[self.index as usize];
        entry.kind = Kind::Free;
        let task = entry.task.take();
        slab.free.push(self.index);
        // Free the memory of a peak once nothing is watched.
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
