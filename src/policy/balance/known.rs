//! What one core knows of each backend by how requests ended: its own requests, and those that the
//! other cores publish.

use super::times::Times;
use crate::base::{ids::BackendId, moment::Tick};

/// The share of failures covers at most this many requests of all cores, and at least one of this
/// core. What one core sees stands for what all see, so with many cores each uses fewer.
const FAILING_OF: usize = 32;
const FAILING_OF_MIN: usize = 2;

/// What one core knows of each backend.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// The least weight of one request of this core in the share of failures.
    part: f32,
    /// What this core saw itself.
    own: Vec<Times>,
    /// What the other cores have published, merged.
    others: Vec<Times>,
    /// Both.
    all: Vec<Times>,
    /// When a backend last returned: older samples no longer count.
    returned: Vec<Option<Tick>>,
}

impl Known {
    /// Knows nothing yet.
    pub(super) fn new(cores: usize, backends: usize) -> Known {
        let failing_of = (FAILING_OF / cores.max(1)).max(FAILING_OF_MIN);
        let unknown = vec![Times::default(); backends];
        Known {
            part: 1.0 / failing_of as f32,
            own: unknown.clone(),
            others: unknown.clone(),
            all: unknown,
            returned: vec![None; backends],
        }
    }

    /// Continues with what another instance knows.
    pub(super) fn take_over(&mut self, before: Known) {
        fn copy<T>(to: &mut [T], from: Vec<T>) {
            to.iter_mut().zip(from).for_each(|(to, from)| *to = from);
        }
        copy(&mut self.own, before.own);
        copy(&mut self.others, before.others);
        copy(&mut self.all, before.all);
        copy(&mut self.returned, before.returned);
    }

    /// What all cores know of a backend.
    #[inline]
    pub(super) fn of(&self, id: BackendId) -> Option<&Times> {
        self.all.get(id.index()).filter(|times| times.is_known())
    }

    /// Records the end of a request of this core.
    pub(super) fn see(&mut self, id: BackendId, micros: f32, failed: bool, now: Tick) {
        if let Some(own) = self.own.get_mut(id.index()) {
            own.see(micros, failed, self.part, now);
        }
        self.join(id, now);
    }

    /// What this core itself knows of a backend, packed.
    pub(super) fn published(&self, id: BackendId) -> u64 {
        self.own.get(id.index()).map_or(0, Times::packed)
    }

    /// Merges what the other cores have published about a backend.
    pub(super) fn merge(&mut self, id: BackendId, others: impl Iterator<Item = u64>, now: Tick) {
        let returned = self.returned.get(id.index()).copied().unwrap_or_default();
        let others = others.filter_map(|word| Times::unpacked(word, now));
        if let Some(known) = self.others.get_mut(id.index()) {
            *known = Times::merged(others.filter(|times| times.is_later_than(returned)), now);
        }
        self.join(id, now);
    }

    /// A backend returned: what was known of it no longer counts, here or on a core that has not
    /// asked it since and still publishes old samples.
    pub(super) fn forget(&mut self, id: BackendId, now: Tick) {
        if let Some(returned) = self.returned.get_mut(id.index()) {
            *returned = Some(now);
        }
        for times in [&mut self.own, &mut self.others, &mut self.all] {
            if let Some(times) = times.get_mut(id.index()) {
                *times = Times::default();
            }
        }
    }

    fn join(&mut self, id: BackendId, now: Tick) {
        let index = id.index();
        let both = [self.own.get(index), self.others.get(index)].into_iter().flatten().copied();
        if let Some(all) = self.all.get_mut(index) {
            *all = Times::merged(both, now);
        }
    }

    /// Invariants after every step.
    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        for ((own, others), all) in self.own.iter().zip(&self.others).zip(&self.all) {
            for times in [own, others, all] {
                times.check_invariants();
            }
            assert_eq!(all.is_known(), own.is_known() || others.is_known());
        }
    }
}
