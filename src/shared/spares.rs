//! Spare descriptors of each core, held by idle connections to backends: a core that lacks
//! descriptors and has no such connection asks the core that has most.
//!
//! A core is told once, however often it is asked before it reads that.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use super::{
    bell::Rope,
    counters::{Counter, Slab},
};

/// The idle connections of all cores.
#[derive(Clone)]
pub(crate) struct Spares(Arc<[Core]>);

struct Core {
    /// The core's own counters.
    counters: Arc<Slab>,
    /// Set by any core, cleared by its own.
    is_asked: AtomicBool,
    rope: Rope,
}

impl Spares {
    /// For cores with these counters, woken by these ropes.
    pub(crate) fn new(
        counters: impl Iterator<Item = Arc<Slab>>,
        ropes: impl Iterator<Item = Rope>,
    ) -> Spares {
        let core = |(counters, rope)| Core { counters, is_asked: AtomicBool::new(false), rope };
        Spares(counters.zip(ropes).map(core).collect())
    }

    /// Asks the core with the most to close some; false if none has any.
    pub(crate) fn ask(&self) -> bool {
        let kept = |core: &&Core| core.counters.read(Counter::BackendIdle);
        let Some(most) = self.0.iter().max_by_key(kept).filter(|core| kept(core) > 0) else {
            return false;
        };
        if !most.is_asked.swap(true, SeqCst) {
            most.rope.pull();
        }
        true
    }

    /// Whether a core was asked since its last call.
    pub(crate) fn is_asked(&self, core: usize) -> bool {
        self.0.get(core).is_some_and(|core| core.is_asked.swap(false, SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_keeps_most_is_asked_once_until_it_looks() {
        let slabs = [Slab::new(), Slab::new(), Slab::new()];
        let ropes = (0..3).map(|_| Rope::new().unwrap());
        let spares = Spares::new(slabs.iter().cloned(), ropes);
        assert!(!spares.ask(), "nobody keeps any");
        slabs[1].add(Counter::BackendIdle, 2);
        slabs[2].add(Counter::BackendIdle, 1);
        assert!(spares.ask() && spares.ask());
        let asked = || [0, 1, 2, 3].map(|core| spares.is_asked(core));
        assert_eq!(asked(), [false, true, false, false]);
        assert_eq!(asked(), [false; 4]);
    }
}
