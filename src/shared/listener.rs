//! The state of a listener that all threads share, whatever plan is in force.

use super::permits::Permits;

/// The state of a listener that all threads share. It lives on from plan to plan.
pub(crate) struct ListenerState {
    connections: Permits,
}

impl ListenerState {
    /// For a listener without connections.
    pub(crate) fn new() -> ListenerState {
        ListenerState { connections: Permits::new(0) }
    }

    /// Its client connections, up to `max`; 0 = no bound.
    pub(crate) fn connections(&self, max: u32) -> Permits {
        self.connections.with_max(max)
    }
}
