//! What is known of a backend, as people are shown it: in each respect since when, and why.

use std::time::Duration;

use super::{Cause, Standing};
use crate::base::{ids::BackendId, moment::Tick};

/// What is known of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// By its probes, its answers and its breaker: for how long it is as it is, and why; none = it
    /// has never changed.
    pub(crate) respects: [(Duration, Option<Cause>); 3],
    /// For how long an operator's decision about it stands.
    pub(crate) decided: Duration,
    /// Whether its name has an address.
    pub(crate) has_address: bool,
}

impl Standing {
    /// What is known of each backend.
    pub(crate) fn seen(&self, now: Tick) -> impl Iterator<Item = (BackendId, Seen)> {
        self.slots.iter().map(move |(id, slot)| {
            let lasted = slot.since.map(|since| now.since(since));
            let mut respects = lasted.map(|lasted| (lasted, None));
            respects.iter_mut().zip(slot.causes).for_each(|((_, why), cause)| *why = cause);
            let decided = now.since(slot.duty.1);
            (id, Seen { respects, decided, has_address: slot.has_address })
        })
    }
}
