//! Everything that two threads can both see: the only atomics in the house.
//!
//! Floor 3. Each has one writer, named in its comment, except the permits, which are the named
//! exception: one counter on its own cache line, touched only where a limit is set; and `lost`,
//! which decides nothing and is touched only where a connection is made.

mod atomics;
pub(crate) mod backends;
pub(crate) mod bell;
pub(crate) mod budget;
pub(crate) mod counters;
pub(crate) mod inbox;
pub(crate) mod line;
#[allow(dead_code, reason = "the health thread, being written, uses it")]
pub(crate) mod load;
pub(crate) mod lost;
pub(crate) mod outcomes;
pub(crate) mod permits;
#[allow(dead_code, reason = "the health thread, being written, uses it")]
pub(crate) mod standing;
#[allow(dead_code, reason = "the health thread, being written, uses it")]
pub(crate) mod trials;
