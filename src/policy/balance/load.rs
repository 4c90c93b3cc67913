//! Requests under way at a backend, for its weight: compared without a division.

use std::cmp::Ordering;

/// Requests under way at a backend, for its weight, which is above 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    pub(super) in_flight: u32,
    pub(super) weight: u16,
}

impl PartialOrd for Load {
    #[inline]
    fn partial_cmp(&self, other: &Load) -> Option<Ordering> {
        let ours = u64::from(self.in_flight) * u64::from(other.weight);
        let theirs = u64::from(other.in_flight) * u64::from(self.weight);
        Some(ours.cmp(&theirs))
    }
}

impl PartialEq for Load {
    #[inline]
    fn eq(&self, other: &Load) -> bool {
        self.partial_cmp(other) == Some(Ordering::Equal)
    }
}
