//! Request totals of one backend by how the requests ended, since the process began, and how many
//! of them wait.

use super::moment::Tick;

/// Requests by how they ended, over all cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Answers that ended well, or that the client broke off.
    pub(crate) ok: u64,
    /// Failures of the backend. A client that left is counted in no total.
    pub(crate) failed: u64,
    /// Failures of the backend as well, but it has answered other requests since: they say nothing
    /// about its state now.
    pub(crate) late: u64,
    /// When an answer that is no failure last began; none = never, or not recorded.
    pub(crate) answered_at: Option<Tick>,
}

impl Totals {
    /// Without what an earlier backend counted in the same seat.
    pub(crate) fn without(self, before: Totals) -> Totals {
        Totals {
            ok: self.ok.wrapping_sub(before.ok),
            failed: self.failed.wrapping_sub(before.failed),
            late: self.late.wrapping_sub(before.late),
            ..self
        }
    }

    /// With late failures counted as failures.
    pub(crate) fn with_late(self) -> Totals {
        Totals { failed: self.failed + self.late, late: 0, ..self }
    }
}

/// How many tries a backend has got, answered and lost, over all workers. They go round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tries {
    pub(crate) asked: u32,
    /// Those whose answer has begun.
    pub(crate) answers: u32,
    /// Those that ended, or are not expected to be answered soon, without that.
    pub(crate) left: u32,
}

impl Tries {
    /// How many wait for a first byte.
    pub(crate) fn waiting(self) -> u32 {
        self.asked.wrapping_sub(self.answers).wrapping_sub(self.left)
    }
}
