//! How the requests of one backend ended, counted since the process began.

use super::moment::Tick;

/// Requests by how they ended, over all cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Whose answers ended as they should, or were ended by their clients.
    pub(crate) ok: u64,
    /// What the backend is to blame for; a client that left is counted nowhere.
    pub(crate) failed: u64,
    /// What it is to blame for as well, and has answered others since: no sign of what it is now.
    pub(crate) late: u64,
    /// When an answer that is no failure last began; none = never, or that is of no interest.
    pub(crate) answered_at: Option<Tick>,
}

impl Totals {
    /// Without those that were counted before, of another that had the same seat.
    pub(crate) fn without(self, before: Totals) -> Totals {
        Totals {
            ok: self.ok.wrapping_sub(before.ok),
            failed: self.failed.wrapping_sub(before.failed),
            late: self.late.wrapping_sub(before.late),
            ..self
        }
    }

    /// All that failed, whatever it is a sign of.
    pub(crate) fn with_late(self) -> Totals {
        Totals { failed: self.failed + self.late, late: 0, ..self }
    }
}
