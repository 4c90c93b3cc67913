//! One core's part of a pool, in two halves.
//!
//! `core` lives on from plan to plan: the backends that can be asked, the algorithm's state, the
//! waiting requests, what is in flight. `view` is what one plan says of the pool, made once and
//! never changed; the requests that began under a plan keep its view. Every concern about backends
//! is a set of them, and a pick sees only the intersection. Nothing is decided here: the algorithms
//! are in `policy`, `conns` opens connections, and the health thread decides which backends are
//! healthy.

mod core;
mod eligible;
mod explain;
mod load;
mod pick;
mod view;

pub(crate) use self::{
    core::PoolCore,
    explain::{Explained, Standing},
    pick::{LeftOut, NoPick, Pick, Wanted, Way},
    view::PoolView,
};
use super::{Core, NextPool, queue};
