//! The atomics of the model-checked cells, in one place.
//!
//! `tests/interleavings.rs` includes those cells with loom's atomics in place of this file.

pub(crate) use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
    fence,
};

/// Words of a set that are published: all, as a pool may grow to any size while it serves. (With
/// loom two are enough: it tries all orders of all words.)
pub(crate) const PUBLISHED_WORDS: usize = crate::base::backend_set::WORDS;

#[cfg(test)]
pub(crate) use std::thread::spawn;

/// Runs a test of threads, here once.
#[cfg(test)]
pub(crate) fn every_order(test: impl Fn() + Send + Sync + 'static) {
    test();
}
