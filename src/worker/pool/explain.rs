//! A pick that is explained: decided as any other (`pick.rs`), but nothing is taken, and why each
//! backend is left out is written down.
//!
//! It decides on a copy of the algorithm's state, so whose turn it is stays, and two questions have
//! one answer.

use super::{
    PoolView,
    pick::{LeftOut, NoPick, Picking, Wanted, Way},
};
use crate::base::{backend_set::BackendSet, ids::BackendId, moment::Tick};
use crate::policy::balance::Balancer;
use crate::shared::{permits::Permit, trials::Trial};

/// What would be decided for a request, and why.
#[derive(Clone, Debug)]
pub(crate) struct Explained {
    pub(crate) picked: Result<BackendId, NoPick>,
    pub(crate) way: Way,
    /// Each backend of the pool.
    pub(crate) backends: Vec<(BackendId, Standing)>,
}

/// Whether a backend may be asked for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It may.
    MayBeAsked,
    /// It may in general, but not for this request or at this moment.
    LeftOut(LeftOut),
    /// It has no address.
    NoAddress,
    /// It is left out for its answers: it is asked if there is no other.
    Spare,
    /// It may not, as the health thread has decided.
    Out,
}

/// A decision that takes nothing.
struct Explaining {
    balancer: Balancer,
    way: Way,
    left_out: Vec<(BackendSet, LeftOut)>,
}

impl Picking for Explaining {
    type Taken = BackendId;

    fn balance(
        &mut self,
        view: &PoolView,
        usable: BackendSet,
        wanted: &Wanted<'_>,
    ) -> Option<BackendId> {
        let (narrowed, _) = self.balancer.narrowed(&usable, &view.weights);
        let taking = usable & *view.weights.taking();
        self.narrows(usable, taking, LeftOut::NoWeight);
        self.narrows(taking, narrowed, LeftOut::Backup);
        view.balance(&mut self.balancer, usable, wanted)
    }

    fn slot(&mut self, view: &PoolView, id: BackendId) -> Option<Permit> {
        view.has_slot(id).then_some(Permit::NONE)
    }

    fn trial(&mut self, view: &PoolView, id: BackendId, now: Tick) -> Option<Option<Trial>> {
        let needs_none = !view.core.eligible.on_trial().contains(id);
        (needs_none || view.core.state.trials.has_one(id, now)).then_some(None)
    }

    fn take(
        &mut self,
        _: &PoolView,
        id: BackendId,
        _: (Permit, Option<Trial>),
    ) -> Result<BackendId, NoPick> {
        Ok(id)
    }

    fn narrows(&mut self, from: BackendSet, to: BackendSet, why: LeftOut) {
        self.left_out.push((from & !to, why));
    }

    fn goes(&mut self, way: Way) {
        self.way = way;
    }
}

impl PoolView {
    /// What `pick` would decide now, and why.
    pub(crate) fn explain(&self, wanted: &Wanted<'_>) -> Explained {
        let balancer = self.core.balancer.borrow().clone();
        let mut explaining = Explaining { balancer, way: Way::Balanced, left_out: Vec::new() };
        let picked = self.decide(wanted, &mut explaining);
        let Explaining { way, left_out, .. } = explaining;
        let eligible = &self.core.eligible;
        let (asked, spare) = (eligible.can_be_asked(), eligible.spare());
        let standing = |id: BackendId| {
            let last = left_out.iter().rev().find(|(who, _)| who.contains(id));
            if picked == Ok(id) {
                Standing::MayBeAsked
            } else if let Some((_, why)) = last {
                Standing::LeftOut(*why)
            } else if asked.contains(id) {
                Standing::MayBeAsked
            } else if !eligible.has_address(id) {
                Standing::NoAddress
            } else if spare.contains(id) {
                Standing::Spare
            } else {
                Standing::Out
            }
        };
        let backends = self.backends.ids().map(|id| (id, standing(id))).collect();
        Explained { picked, way, backends }
    }
}
