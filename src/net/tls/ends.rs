//! TLS of a plan: of the listeners that speak it, and of the pools whose backends do.
//!
//! Made whole by the thread that owns the plan, of the plan, the certificates and the secrets of
//! tickets, and sent to every thread like a plan. Replaced when a certificate is; what is under way
//! keeps what it began with.

use super::{back::Backs, front::Fronts};

/// TLS of a plan.
#[derive(Default)]
pub(crate) struct Ends {
    pub(crate) fronts: Fronts,
    pub(crate) backs: Backs,
}
