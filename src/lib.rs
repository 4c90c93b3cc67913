//! Ringway: a load balancer and reverse proxy for Linux, one pinned thread and one io_uring per
//! core.
//!
//! The modules in reading order, from the ground up; a module uses only those above it in this
//! list, and its own folder.

mod base;

mod http;

pub mod plan;

pub mod config;
mod policy;
mod shared;

mod net;
mod observe;

mod proto;

mod conns;

mod worker;

mod exchange;

mod health;

pub mod server;

mod demo;

pub mod cli;

#[cfg(any(test, feature = "bench"))]
#[doc(hidden)]
pub mod bench;

#[cfg(test)]
mod testkit;

/// What happens in a running balancer, as typed values: `Handle::events`.
pub mod events {
    pub use crate::observe::{
        event::{AccessLog, Attempt, Backend, Event, Named, Transition, Usable},
        events::{Events, Happened},
    };
    pub use crate::policy::{health::ProbeFault, standing::Cause};
}

pub use server::{Handle, StartError, Stop, start};
