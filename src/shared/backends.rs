//! What threads share about the backends of all pools.

use std::sync::Arc;

use super::{load::Load, standing::Published, trials::Trials};

/// What threads share about the backends of all pools: one clone for each thread.
#[derive(Clone)]
pub(crate) struct Backends {
    /// What each worker counts of each backend.
    pub(crate) load: Load,
    /// Who may be asked, of each pool; the health thread's to write.
    pub(crate) published: Arc<[Published]>,
    /// The permits of those on trial.
    pub(crate) trials: Trials,
}

impl Backends {
    /// For so many workers, and pools that have so many backends each.
    pub(crate) fn new(workers: usize, sizes: impl Iterator<Item = usize> + Clone) -> Backends {
        Backends {
            load: Load::new(workers, sizes.clone()),
            published: sizes.clone().map(Published::new).collect(),
            trials: Trials::new(sizes),
        }
    }
}
