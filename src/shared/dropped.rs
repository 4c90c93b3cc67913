//! How many texts or events found no room in a queue: a count that any thread adds to.

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

    /// What has been added since the start, or since it was taken.
    pub(crate) fn read(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// What has been added since this was called last.
    pub(crate) fn take(&self) -> u64 {
        self.0.swap(0, Relaxed)
    }
}
