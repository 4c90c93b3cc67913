//! How the requests of one backend ended, counted since the process began.

/// Requests by how they ended, over all cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) ok: u64,
    /// What the backend is to blame for; a client that left is counted nowhere.
    pub(crate) failed: u64,
    /// What it is to blame for as well, and has answered others since: no sign of what it is now.
    pub(crate) late: u64,
}

impl Totals {
    /// All that failed, whatever it is a sign of.
    pub(crate) fn with_late(self) -> Totals {
        Totals { ok: self.ok, failed: self.failed + self.late, late: 0 }
    }
}
