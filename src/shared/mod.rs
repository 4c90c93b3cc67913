//! State shared between threads: the only atomics in the crate.
//!
//! Floor 3. Each has one writer, named in its comment, with these exceptions: permits, trials and
//! budgets, words that any core changes, and only while such a limit is in use; `rooms`, bits that
//! any core sets while requests wait on another; the flags of `outcomes`, touched when a request
//! fails or was a trial, and those of `spares`, touched when no descriptor is left; `dropped`,
//! touched when a text or an event finds no room; `unreachable`, which decides nothing and is
//! touched only when a connection is made or fails.

mod atomics;
pub(crate) mod bell;
pub(crate) mod budget;
pub(crate) mod certs;
pub(crate) mod counters;
pub(crate) mod dropped;
pub(crate) mod durations;
pub(crate) mod inbox;
pub(crate) mod levels;
pub(crate) mod listener;
pub(crate) mod load;
pub(crate) mod outcomes;
pub(crate) mod passages;
pub(crate) mod permits;
pub(crate) mod pool;
pub(crate) mod queue;
pub(crate) mod request_times;
pub(crate) mod rooms;
pub(crate) mod spares;
pub(crate) mod standing;
pub(crate) mod tally;
pub(crate) mod trials;
pub(crate) mod unreachable;
pub(crate) mod waiting_since;
