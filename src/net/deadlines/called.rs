//! Calls: the tasks that wait for a backend are woken, to see for themselves what has become of it.
//!
//! All entries are checked, which is rare: it happens when a backend was taken out. A task that is
//! called for nothing waits on.

use super::{
    Deadlines, SLICE,
    entry::{Entry, Kind, packed},
};
use crate::base::ids::{BackendId, PoolId};
use crate::net::turns::next_turn;

impl Deadlines {
    /// Wakes the tasks that wait for these backends of a pool: that have sent a request there, or
    /// connect to them.
    pub(crate) async fn call(&self, pool: PoolId, backends: impl Iterator<Item = BackendId>) {
        let mut called: Vec<u32> = backends.map(|backend| packed(pool, backend)).collect();
        called.sort_unstable();
        let mut from = 0;
        while let Some(next) = self.call_slice(&called, from) {
            next_turn().await;
            from = next;
        }
    }

    /// Checks a slice of the entries; returns where the next begins, if there is one.
    pub(super) fn call_slice(&self, called: &[u32], from: usize) -> Option<usize> {
        let slab = self.slab.borrow();
        let until = (from + SLICE).min(slab.entries.len());
        for entry in slab.entries.get(from..until)? {
            match entry.kind {
                Kind::Backend | Kind::Entrusted if entry.is_one_of(called) => {
                    // The client may have left, and its entry may be another's by now.
                    slab.entries.get(entry.next as usize).into_iter().for_each(Entry::wake);
                }
                Kind::Task | Kind::Asked if entry.is_one_of(called) => entry.wake(),
                Kind::Backend
                | Kind::Entrusted
                | Kind::Asked
                | Kind::Task
                | Kind::Stream
                | Kind::Tunnel
                | Kind::Free
                | Kind::Client
                | Kind::Multiplexed
                | Kind::Refused => {}
            }
        }
        (until < slab.entries.len()).then_some(until)
    }
}

impl Entry {
    fn is_one_of(&self, called: &[u32]) -> bool {
        called.binary_search(&self.previous).is_ok()
    }
}
