//! One request under way at a backend: counted from the pick on, so that no two picks of a core see
//! the same load, and taken back when it is dropped, whichever way it ended.

use std::rc::Rc;

use super::InForce;
use crate::base::ids::{BackendId, PoolId};
use crate::shared::{counters::Counter, permits::Permit};

/// One request under way at a backend.
pub(crate) struct InFlight {
    in_force: Rc<InForce>,
    pool: PoolId,
    backend: BackendId,
    /// One of the backend's `max-in-flight`.
    slot: Permit,
}

impl InFlight {
    pub(super) fn begin(
        in_force: &Rc<InForce>,
        pool: PoolId,
        backend: BackendId,
        slot: Permit,
    ) -> InFlight {
        in_force.pool(pool).begin(backend);
        in_force.counters.add(Counter::BackendInFlight, 1);
        InFlight { in_force: Rc::clone(in_force), pool, backend, slot }
    }

    /// Where it is under way.
    #[inline]
    pub(crate) fn backend(&self) -> BackendId {
        self.backend
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.in_force.pool(self.pool).end(self.backend);
        self.in_force.counters.sub(Counter::BackendInFlight, 1);
        if self.slot.is_of_a_limit() {
            self.slot = Permit::NONE;
            self.in_force.made_room(self.pool, Some(self.backend));
        }
    }
}
