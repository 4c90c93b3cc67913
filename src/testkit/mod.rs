//! What tests of several floors share: a runtime of either driver, connected sockets, counted
//! allocations.
//!
//! Only tests see it, and it sees everything; so the rules of the floors do not hold here. It
//! plays no part of HTTP: scripted peers are in `tests/plays`.

mod allocations;
pub(crate) mod play;
mod runtime;

pub(crate) use self::{
    allocations::allocations,
    play::{beside, play},
    runtime::{bytes, eventually, on_both_drivers, pair},
};
