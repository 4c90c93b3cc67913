//! How the requests of one backend ended, counted since the process began.

/// Requests by how they ended, over all cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) ok: u64,
    /// What the backend is to blame for; a client that left is counted nowhere.
    pub(crate) failed: u64,
}
