//! Everything that two threads can both see: the only atomics in the house.
//!
//! Floor 3. Each has one writer, named in its comment, except these: permits, trials and budgets,
//! words that any core changes, and only where such a limit is in play; `rooms`, bits that any core
//! sets while clients wait on another; the flags of `outcomes`, touched where a request fails or
//! was a trial, and those of `spares`, where no descriptor is left; `dropped`, touched where a text
//! or an event finds no room; `unreachable`, which decides nothing and is touched only where a
//! connection is made or fails.

mod atomics;
pub(crate) mod bell;
pub(crate) mod budget;
pub(crate) mod counters;
pub(crate) mod dropped;
#[cfg_attr(not(test), expect(dead_code, reason = "as `base::histogram`"))]
pub(crate) mod durations;
pub(crate) mod firsts;
pub(crate) mod inbox;
pub(crate) mod line;
pub(crate) mod listener;
pub(crate) mod load;
pub(crate) mod outcomes;
pub(crate) mod permits;
pub(crate) mod pool;
pub(crate) mod rooms;
pub(crate) mod spares;
pub(crate) mod standing;
pub(crate) mod trials;
pub(crate) mod unreachable;
