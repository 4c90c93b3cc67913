//! Shared test support: a runtime of either driver, connected sockets, counted allocations.
//!
//! Only tests use it, and it may use everything; so the rules of the floors do not apply. It
//! contains no HTTP: scripted peers are in `tests/plays`.

mod allocations;
#[allow(dead_code, reason = "plays use more of it")]
#[path = "../../tests/plays/name_server.rs"]
pub(crate) mod name_server;
pub(crate) mod play;
mod runtime;
pub(crate) mod scene;

pub(crate) use self::{
    allocations::allocations,
    play::{beside, play},
    runtime::{bytes, eventually, on_both_drivers, pair},
};
