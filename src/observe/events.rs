//! What cores tell of themselves: small events, rarely, over a bounded channel that nobody waits
//! for.
//!
//! A core neither formats nor writes. `Events` is the end that it holds, and tells nothing of one
//! kind more than once a second; what people are told of it says `digest`, for all cores together.

use std::{cell::Cell, time::Duration};

use crossbeam_channel::{Receiver, Sender, bounded};

use super::request_id::RequestId;
use crate::base::moment::{Micros, Tick};
use crate::http::fault::Cause;
use crate::plan::{BackendId, LogLevel, PoolId};
use crate::policy::{
    retry::{Outcome, Refusal},
    standing::Change,
};
use crate::shared::lost::Lost;

/// Events that may wait to be told; what is too much is forgotten, as a core tells it again.
const WAITING_MAX: usize = 256;

/// About one thing people are told at most once in so long.
pub(super) const PERIOD: Duration = Duration::from_secs(1);

/// What a core tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A connection to a backend could not be made. Told of where the health thread does not say
    /// soon that it leaves the backend out.
    Unreachable(PoolId, BackendId, Cause),
    /// It could be made again.
    Reachable(PoolId, BackendId),
    Limit(Limit),
    /// The health thread has decided.
    Standing(PoolId, Change),
    /// A probe of this pool began so long after it was due; the health thread says so rarely.
    ProbesLate(PoolId, Duration),
    /// A try gave no answer that was taken.
    Tried(Tried),
    /// No core tells anything any more.
    End,
}

/// A try that gave no answer that was taken; told only where the log is to say that much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tried {
    pub(crate) request: RequestId,
    pub(crate) pool: PoolId,
    pub(crate) backend: BackendId,
    /// Whether a connection was made.
    pub(crate) connected: bool,
    /// What it gave instead.
    pub(crate) outcome: Outcome,
    /// How long it took.
    pub(crate) took: Micros,
    /// Why the request was not asked again; none = it was.
    pub(crate) refusal: Option<Refusal>,
}

/// What there was too little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Client connections.
    Connections,
    /// Descriptors of the process.
    Descriptors,
    /// Room for lines of access logs.
    LogLines,
    /// Descriptors, ports or memory for a connection to a backend.
    Outgoing,
}

pub(super) const LIMITS: usize = 4;

/// The channel between the cores and whoever tells people.
pub(crate) fn channel() -> (Sender<Event>, Receiver<Event>) {
    bounded(WAITING_MAX)
}

/// The end that a core holds.
pub(crate) struct Events {
    to: Sender<Event>,
    lost: Lost,
    /// Whether single tries are told of.
    tells_tries: bool,
    /// When each limit was told of last, if ever.
    limits: [Cell<Option<Tick>>; LIMITS],
}

impl Events {
    pub(crate) fn new(to: Sender<Event>, lost: Lost, level: LogLevel) -> Events {
        let tells_tries = level >= LogLevel::Debug;
        Events { to, lost, tells_tries, limits: Default::default() }
    }

    /// Whether single tries are told of.
    #[inline]
    pub(crate) fn tells_tries(&self) -> bool {
        self.tells_tries
    }

    /// A try gave no answer that was taken.
    pub(crate) fn tried(&self, tried: Tried) {
        self.tell(Event::Tried(tried));
    }

    /// A limit is hit.
    pub(crate) fn limit(&self, limit: Limit, now: Tick) {
        if is_due(&self.limits[limit as usize], now) {
            self.tell(Event::Limit(limit));
        }
    }

    /// A connection to a backend could not be made. `told` is when this core said so last.
    pub(crate) fn unreachable(
        &self,
        (pool, backend): (PoolId, BackendId),
        cause: Cause,
        told: &Cell<Option<Tick>>,
        now: Tick,
    ) {
        if is_due(told, now) {
            self.lost.note(pool, backend);
            self.tell(Event::Unreachable(pool, backend, cause));
        }
    }

    /// A connection to a backend was made.
    pub(crate) fn reachable(&self, pool: PoolId, backend: BackendId) {
        if self.lost.found(pool, backend) {
            self.tell(Event::Reachable(pool, backend));
        }
    }

    fn tell(&self, event: Event) {
        // Where there is no room, or nobody listens any more, it is not told.
        let _ = self.to.try_send(event);
    }
}

/// Whether the last time is long ago; it is now, then.
fn is_due(last: &Cell<Option<Tick>>, now: Tick) -> bool {
    let due = last.get().is_none_or(|last| now >= last + PERIOD);
    if due {
        last.set(Some(now));
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOWN: Event = Event::Unreachable(PoolId(0), BackendId(1), Cause::ConnectFailed);
    const UP: Event = Event::Reachable(PoolId(0), BackendId(1));

    #[test]
    fn a_core_tells_rarely_and_never_waits() {
        let (to, from) = bounded(2);
        let lost = Lost::new([2].into_iter());
        let [events, other] =
            [(); 2].map(|()| Events::new(to.clone(), lost.clone(), LogLevel::Info));
        let told = Cell::new(None);
        for now in [1, 2, 1_001, 1_500, 2_001] {
            events.unreachable(
                (PoolId(0), BackendId(1)),
                Cause::ConnectFailed,
                &told,
                Tick::from_millis(now),
            );
        }
        assert_eq!(from.try_iter().collect::<Vec<_>>(), [DOWN, DOWN], "no room for the third");
        for core in [&other, &other, &events] {
            core.reachable(PoolId(0), BackendId(1));
        }
        assert_eq!(from.try_iter().collect::<Vec<_>>(), [UP]);
        for now in [1, 2, 1_001] {
            events.limit(Limit::LogLines, Tick::from_millis(now));
        }
        assert_eq!(from.len(), 2);
    }
}
