//! Drop counter: texts or events that found no room in a queue; any thread adds to it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// The count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Dropped(Arc<AtomicU64>);

impl Dropped {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Relaxed);
    }

    /// The number added since the start, or since it was taken.
    pub(crate) fn read(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// The number added since the last call.
    pub(crate) fn take(&self) -> u64 {
        self.0.swap(0, Relaxed)
    }
}
