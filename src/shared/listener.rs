//! What all threads share of one listener, whatever plan is in force.

use super::permits::Permits;

/// What all threads share of one listener. It lives on from plan to plan.
pub(crate) struct ListenerState {
    connections: Permits,
}

impl ListenerState {
    /// Of one that has no connections yet.
    pub(crate) fn new() -> ListenerState {
        ListenerState { connections: Permits::new(0) }
    }

    /// Its client connections, of which there may be so many; 0 = no bound.
    pub(crate) fn connections(&self, max: u32) -> Permits {
        self.connections.with_max(max)
    }
}
