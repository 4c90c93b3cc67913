//! The choice of a backend: for the first try, for a retry, and after a wait in the queue.
//!
//! The pool (`worker::PoolView`) has the sets and `policy::balance` the algorithms; an `Errand`
//! passes them what they need of the exchange.

use std::rc::Rc;

use super::Exchange;
use crate::base::moment::Deadline;
use crate::http::{framing::BodyLength, head::RequestHead};
use crate::worker::{NoPick, Pick, PoolView, Wanted, Worker};

/// What is wanted of a pool: a backend for one request, or for anything else that asks one.
pub(super) struct Errand<'a> {
    pub(super) pool: &'a Rc<PoolView>,
    pub(super) wanted: Wanted<'a>,
    /// When all of it must be over.
    pub(super) deadline: Deadline,
}

impl Exchange {
    /// What it wants of its pool now.
    #[inline]
    pub(super) fn errand(&self, worker: &Worker) -> Errand<'_> {
        let Exchange { scratch, length, .. } = self;
        let wanted = Wanted {
            tried: &scratch.tried,
            key: scratch.key,
            pinned: scratch.reading.pinned(),
            avoids_trials: avoids_trials(&scratch.request, *length),
            since: self.queued_since,
            now: worker.clock.tick(),
        };
        Errand { pool: self.in_force.pool(self.pool), wanted, deadline: self.deadline }
    }
}

/// A backend to ask, which has one more request in flight from here on.
#[inline]
pub(super) fn choose(errand: &Errand<'_>) -> Result<Pick, NoPick> {
    errand.pool.pick(&errand.wanted)
}

/// Whether a request is better not a trial: it cannot be retried, or may keep its backend waiting.
pub(super) fn avoids_trials(request: &RequestHead, length: BodyLength) -> bool {
    !request.method.is_idempotent() || may_be_slow(length)
}

/// Whether its answer may have to wait for its client, which sends a body as fast as it likes.
fn may_be_slow(body: BodyLength) -> bool {
    match body {
        BodyLength::None | BodyLength::Fixed(0) => false,
        BodyLength::Fixed(_) | BodyLength::Chunked | BodyLength::UntilClose => true,
    }
}
