//! Model checking of shared cells with loom: every order of the threads, and every value that
//! memory may show them.
//!
//! The tests are under the code that they test, in `src/shared`. There each runs once, on real
//! threads; the same files are included here with loom's atomics and threads in place of
//! `src/shared/atomics.rs`, and `every_order` does what its name says.

#![allow(dead_code, unreachable_pub, reason = "who uses the cells is not included")]

#[path = "../src/base"]
mod base {
    pub(crate) mod backend_set;
    pub(crate) mod ids;
    pub(crate) mod moment;
    pub(crate) mod segments;
}

#[path = "../src/shared"]
mod shared {
    mod atomics {
        pub(crate) use loom::{
            sync::atomic::{
                AtomicU64,
                Ordering::{Acquire, Relaxed, Release, SeqCst},
                fence,
            },
            thread::spawn,
        };

        pub(crate) const PUBLISHED_WORDS: usize = 2;

        pub(crate) fn every_order(test: impl Fn() + Send + Sync + 'static) {
            loom::model(test);
        }
    }

    mod budget;
    mod rooms;
    mod standing;
    mod trials;
    mod waiting_since;
}
