//! Descriptor pressure: closes idle connections to backends when descriptors run short.
//!
//! Every client connection may need one to a backend, and there are descriptors for that many
//! (`server/descriptors.rs`). Idle connections beyond that are closed, longest idle first:
//! periodically if this core has more sockets than its share; at once if the process has no
//! descriptor left, on the core that has the most if this one has none.

use std::time::Duration;

use super::Worker;
use crate::shared::counters::Counter;

/// How many are closed at once: a core without a descriptor for one has none for the next either.
const AT_ONCE: usize = 16;

/// How long closed ones may take to become free, also on another core.
const FREED: Duration = Duration::from_millis(20);

impl Worker {
    /// There is no descriptor left: closes unused connections to backends. Returns whether there
    /// will be descriptors in a moment, from these or from earlier ones.
    pub(crate) fn frees_descriptors(&self) -> bool {
        self.clock.renew();
        let now = self.clock.tick();
        if self.close_longest_idle(AT_ONCE) > 0 || self.core.process.spares.ask() {
            self.freed_until.set(Some(now + FREED));
        }
        self.freed_until.get().is_some_and(|until| now < until)
    }

    /// Closes some if another core has asked for it.
    pub(crate) fn look_for_descriptors(&self) {
        if self.core.process.spares.is_asked(self.core.index) {
            self.close_longest_idle(AT_ONCE);
        }
    }

    /// Closes idle ones while this worker has more sockets than its share.
    pub(super) fn keep_to_share(&self) {
        self.close_longest_idle(self.deadlines.len().saturating_sub(self.in_force().share));
    }

    /// Closes this many of the connections to backends, those idle longest; returns how many there
    /// were to close.
    fn close_longest_idle(&self, count: usize) -> usize {
        if count == 0 || self.counters.read(Counter::BackendIdle) == 0 {
            return 0;
        }
        let in_force = self.in_force();
        let conns = || in_force.pools.values().flat_map(|pool| pool.all_conns());
        let mut since = Vec::new();
        conns().for_each(|conns| conns.borrow().idle_since(&mut since));
        let Some(last) = count.min(since.len()).checked_sub(1) else { return 0 };
        let (_, until, _) = since.select_nth_unstable(last);
        let mut left = last + 1;
        conns().for_each(|conns| conns.borrow_mut().close_idle_since(*until, &mut left));
        last + 1 - left
    }
}
