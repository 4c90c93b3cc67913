//! What a connection of TCP shows of its backend, besides that it was taken.
//!
//! A program that is broken may take every connection and break it. So a connection counts as a
//! success when a byte has come from the backend (and, where a shortest life is configured, it has
//! lasted that long), or at its end if nothing was wrong. It counts as a failure, like a connection
//! that was refused, if the backend broke it without a byte, or ended it before its shortest life.
//! Nothing that the client does counts.

use std::{cell::Cell, rc::Rc, time::Duration};

use super::tunnel::Ending;
use crate::base::{ids::BackendId, moment::Tick};
use crate::http::fault::{Cause, Side};
use crate::observe::record::Term;
use crate::policy::{
    balance::Sample,
    blame::{Verdict, broken_unheard},
    retry::TryOutcome,
};
use crate::shared::tally::{CUT, Key};
use crate::worker::{PoolView, Worker};

/// What one connection has yet to show.
pub(super) struct Proof {
    /// None once it has counted.
    view: Cell<Option<Rc<PoolView>>>,
    is_due: Cell<bool>,
    backend: BackendId,
    joined: Tick,
    /// From when on it has lasted long enough.
    lasting: Tick,
}

impl Proof {
    /// Of a backend that has taken a connection at this moment.
    pub(super) fn new(
        view: &Rc<PoolView>,
        backend: BackendId,
        joined: Tick,
        life_min: Duration,
    ) -> Proof {
        let view = Cell::new(Some(Rc::clone(view)));
        Proof { view, is_due: Cell::new(true), backend, joined, lasting: joined + life_min }
    }

    /// Something has come from the backend.
    #[inline]
    pub(super) fn has_come(&self, now: Tick) {
        if self.is_due.get() && !self.is_short(now) {
            self.is_well();
        }
    }

    /// The connection has ended; so much had come from the backend.
    pub(super) fn ends(&self, worker: &Worker, ending: &Ending, received: u64) {
        let now = worker.clock.renew().tick();
        let is_broken = matches!(ending.term, Term::Cut(_));
        let (verdict, cause) = match ending.by {
            Side::Backend if is_broken && received == 0 => {
                let is_short = self.is_short(now);
                let verdict =
                    if is_short { Verdict::Failed } else { broken_unheard(self.joined, now) };
                (verdict, Cause::BackendReset)
            }
            Side::Backend if self.is_short(now) => (Verdict::Failed, Cause::ResponseIncomplete),
            Side::Backend | Side::Client | Side::Proxy => return self.is_well(),
        };
        let Some(view) = self.view.take() else { return };
        let (pool, outcome) = (view.core.id, TryOutcome::Fault(cause.into()));
        let why = cause.failure().map_or(CUT, |failure| failure as u16);
        worker.counters.tally().add(Key::Failed(pool, self.backend, why), 1);
        let times = (self.joined, now);
        if view.cut(self.backend, (verdict, outcome), times) && view.needs().outcomes {
            view.observe(self.backend, Sample::Failed(0), now);
        }
    }

    fn is_short(&self, now: Tick) -> bool {
        now < self.lasting
    }

    fn is_well(&self) {
        self.is_due.set(false);
        if let Some(view) = self.view.take() {
            view.whole(self.backend);
        }
    }
}
