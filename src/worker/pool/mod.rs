//! One core's part of a pool, in two halves.
//!
//! `core` is what lives on from plan to plan: who can be asked, the algorithm's state, who waits,
//! what is in flight. `view` is what one plan says of the pool, made once and never changed; the
//! requests that began under a plan keep its view. Every concern about backends is a set of them,
//! and a pick sees only what is left of all sets. Nothing here decides; the algorithms stand in
//! `policy`, connections are opened in `conns`, and which backends are well is decided by the
//! health thread.

mod core;
mod eligible;
mod load;
mod pick;
mod view;

pub(crate) use self::{
    core::PoolCore,
    pick::{Nobody, Pick, Wanted},
    view::PoolView,
};
use super::{Core, NextPool, queue};
