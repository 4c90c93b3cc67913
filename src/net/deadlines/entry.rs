//! The entry of one watched descriptor, and how an overdue wait on it ends.

use std::{os::fd::RawFd, task::Waker};

use super::{
    ended::{End, Ended},
    resting::{NONE, Rest},
};
use crate::base::{
    ids::{BackendId, ListenerId, PoolId},
    moment::{Deadline, Tick},
};
use crate::net::{
    fd::{self, Half},
    leaving::Leaves,
};

/// What is watched: it determines how an overdue wait ends, and whether the connection may rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Watch {
    /// A client of this listener. Only a wait to read ends, by waking its task: the client can
    /// still be answered. It may rest.
    Client(ListenerId),
    /// A client that is refused; the same, but it never rests.
    Refused,
    /// A backend. A late one is useless: the whole connection ends, with a reset.
    Backend,
    /// A task without a descriptor of its own, such as one that connects to a backend: every wait
    /// ends by waking it.
    Task,
    /// A stream of a connection to a backend, which has no descriptor of its own: it ends as a
    /// whole, by waking its task.
    Asked,
    /// A stream of a client's connection, which has no descriptor of its own: a wait ends by waking
    /// its task, and one to read leaves the other half open, as with a client.
    Stream,
}

/// The use of an entry: a `Watch` without its listener, which is kept separately, so that an entry
/// fits in one cache line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Free,
    Client,
    /// A client whose connection carries streams: it is told before it is closed, by its task.
    Multiplexed,
    Refused,
    Backend,
    /// A backend that has the whole of a request, and may carry it out whether or not anybody waits
    /// for its answer: a reset could drop what it has not read yet.
    Entrusted,
    Asked,
    Task,
    Stream,
    /// Either socket of a tunnel: a half ends by waking its task. Nothing is said to the peer, who
    /// would take it for an end of what it is sent.
    Tunnel,
}

/// Whether a wait on a descriptor is for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnBehalf {
    Nobody,
    /// For one that leaves by this.
    Client(Leaves),
    /// For one that leaves by a lasting end, and has left if that is so at the next check.
    Doubtful,
}

/// One cache line: a request touches two entries a few times, the sweep touches all.
#[repr(align(64))]
pub(super) struct Entry {
    pub(super) fd: RawFd,
    pub(super) kind: Kind,
    /// The listener of a client: room may be needed at one listener alone.
    pub(super) listener: ListenerId,
    pub(super) on_behalf: OnBehalf,
    /// The descriptor of that client.
    pub(super) client_fd: RawFd,
    pub(super) read_by: Deadline,
    pub(super) write_by: Deadline,
    /// Since when it rests, or rested last; before that since it is watched.
    pub(super) since: Tick,
    /// Of a client: its neighbours among those in the same kind of rest. Of a backend, which never
    /// rests: which one it is (`packed`), and the entry of the client that it was last waited for.
    /// Of a stream, the second: the entry of the backend that was last waited for on its behalf.
    pub(super) previous: u32,
    pub(super) next: u32,
    /// Why reading, and why writing, has ended.
    pub(super) reading: Option<Ended>,
    pub(super) writing: Option<Ended>,
    pub(super) rest: Option<Rest>,
    /// Of a client: whether to wake its task when it has been idle for `STAY`. Of a backend:
    /// whether to wake that of its client in the next round.
    pub(super) stays: bool,
    /// The task to wake, if it waits to read.
    pub(super) task: Option<Waker>,
}

const _: () = assert!(size_of::<Entry>() == 64, "an entry is one line of the cache");

/// Which backend it is, in the room that an entry has for that.
pub(super) fn packed(PoolId(pool): PoolId, BackendId(backend): BackendId) -> u32 {
    u32::from(pool) << 16 | u32::from(backend)
}

impl Entry {
    /// For a descriptor that is watched from now on.
    pub(super) fn new(fd: RawFd, watch: Watch, now: Tick) -> Entry {
        let (kind, listener) = match watch {
            Watch::Client(listener) => (Kind::Client, listener),
            Watch::Refused => (Kind::Refused, ListenerId(0)),
            Watch::Backend => (Kind::Backend, ListenerId(0)),
            Watch::Asked => (Kind::Asked, ListenerId(0)),
            Watch::Task => (Kind::Task, ListenerId(0)),
            Watch::Stream => (Kind::Stream, ListenerId(0)),
        };
        Entry {
            fd,
            kind,
            listener,
            on_behalf: OnBehalf::Nobody,
            client_fd: -1,
            read_by: Deadline::NEVER,
            write_by: Deadline::NEVER,
            since: now,
            previous: NONE,
            next: NONE,
            reading: None,
            writing: None,
            rest: None,
            stays: false,
            task: None,
        }
    }

    pub(super) fn end_reading(&mut self, why: Ended) {
        match self.kind {
            Kind::Client | Kind::Multiplexed | Kind::Refused | Kind::Stream | Kind::Tunnel => {
                self.reading = Some(why);
                self.wake();
            }
            Kind::Backend | Kind::Entrusted | Kind::Asked | Kind::Task | Kind::Free => {
                self.end_both(why);
            }
        }
    }

    /// Ends a connection that rests. A client with streams is told so by its task.
    pub(super) fn end_resting(&mut self, why: Ended) {
        self.reading = Some(why);
        if self.kind != Kind::Multiplexed {
            self.writing = Some(why);
        }
        self.wake();
    }

    /// Ends both halves; one that had ended before keeps its reason.
    pub(super) fn end_both(&mut self, why: Ended) {
        self.reading.get_or_insert(why);
        self.writing.get_or_insert(why);
        match self.kind {
            Kind::Task | Kind::Stream | Kind::Asked | Kind::Tunnel => {}
            Kind::Backend => fd::abort(self.fd),
            Kind::Free | Kind::Client | Kind::Multiplexed | Kind::Refused | Kind::Entrusted => {
                fd::shut_down(self.fd, Half::Both)
            }
        }
        self.wake();
    }

    /// Whether it is a connection to a backend.
    #[inline]
    pub(super) fn is_backend(&self) -> bool {
        matches!(self.kind, Kind::Backend | Kind::Entrusted)
    }

    pub(super) fn wake(&self) {
        if let Some(task) = &self.task {
            task.wake_by_ref();
        }
    }

    pub(super) fn ended(&self, end: End) -> Option<Ended> {
        match end {
            End::Reading => self.reading,
            End::Writing => self.writing,
        }
    }

    /// Records the task to wake; it is the same one as long as the connection lasts.
    pub(super) fn note(&mut self, task: &Waker) {
        if !self.task.as_ref().is_some_and(|known| known.will_wake(task)) {
            self.task = Some(task.clone());
        }
    }
}
