//! Backends of a pool that are reported as unreachable, for all workers: so that only the first
//! failure and the first success after it are reported.
//!
//! Written by any worker, and only when a backend becomes unreachable or reachable; read when a
//! connection is made or fails, which is rare. Nothing is decided by it.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::base::{ids::BackendId, segments::Segments};

/// The backends of a pool that are reported as unreachable. It lives on from plan to plan.
pub(crate) struct Unreachable(Segments<AtomicBool>);

impl Unreachable {
    /// For no backends yet.
    pub(crate) const fn new() -> Unreachable {
        Unreachable(Segments::new())
    }

    /// Makes room for this many backends.
    pub(crate) fn grow(&self, backends: usize) {
        self.0.grow(backends, AtomicBool::default);
    }

    /// Another backend has this seat now, of which nothing was reported.
    pub(crate) fn forget(&self, backend: BackendId) {
        if let Some(known) = self.0.get(backend.index()) {
            known.store(false, Relaxed);
        }
    }

    /// A worker could, or could not, connect to this backend. If that is news it is reported, and
    /// recorded unless `tell` returns that it found no room.
    ///
    /// It is reported before it is recorded: if two workers see different things at once, the next
    /// connection that ends otherwise than last reported is news again.
    pub(crate) fn note(
        &self,
        backend: BackendId,
        is_unreachable: bool,
        tell: impl FnOnce() -> bool,
    ) {
        let Some(known) = self.0.get(backend.index()) else { return };
        if known.load(Relaxed) != is_unreachable && tell() {
            known.store(is_unreachable, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_no_news() {
        let known = Unreachable::new();
        known.grow(2);
        let other = &known;
        let is_news = |known: &Unreachable, backend, is_unreachable, has_room| {
            let mut told = false;
            known.note(BackendId(backend), is_unreachable, || {
                told = true;
                has_room
            });
            told
        };
        assert!(!is_news(&known, 1, false, true), "it begins as reachable");
        assert!(is_news(&known, 1, true, false), "there is no room");
        assert!(is_news(&known, 1, true, true));
        assert!(!is_news(other, 1, true, true) && !is_news(other, 0, false, true));
        assert!(is_news(other, 1, false, true));
        assert!(!is_news(&known, 1, false, true));
        assert!(!is_news(&known, 2, true, true), "there is none");
    }
}
