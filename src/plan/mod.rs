//! The plan: the checked configuration as immutable data, with ids in place of names.
//!
//! Floor 2. A `Checked` plan has been checked (`config` does it) and is not checked again. No logic
//! beyond defaults; every limit carries the reason for its number.

mod balance;
mod checked;
mod global;
mod health;
mod limits;
mod listener;
mod overlay;
mod pool;
mod retry;
mod route;
mod share;
mod sticky;
mod tls;
mod webhook;

use std::sync::Arc;

pub use self::{
    balance::{Algorithm, HashOf},
    checked::Checked,
    global::{Admin, Cores, Driver, Global, LogFormat, LogLevel, Shutdown},
    health::{Breaker, GrpcProbe, Health, HttpProbe, Passive, Probe, Statuses},
    limits::Limits,
    listener::{
        AccessLog, AccessLogFormat, Listener, ListenerTimeouts, Mode, Protocols, SocketFile,
    },
    overlay::{Amendment, Duty, Overlay, Settings, Subject},
    pool::{
        Address, Backend, Connections, HostHeader, Member, Pool, PoolTimeouts, Protocol,
        ProxyVersion, Queue,
    },
    retry::{Hedge, HedgeAfter, Retry, RetryBudget, RetryOn},
    route::{HostPattern, PathPattern, Route, Specificity, path_regex},
    share::Share,
    sticky::{SameSite, Sticky},
    tls::{
        CertificateFiles, ClientAuth, ClientAuthMode, ListenerTls, PoolTls, TlsVersion, UnknownName,
    },
    webhook::{EVENT_WORDS, Webhook},
};
pub use crate::base::{
    ids::{BackendId, Id, ListenerId, PoolId, RouteId},
    table::Table,
};

/// Everything the threads need to serve, as one value.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Plan {
    /// Settings of the whole process.
    pub global: Global,
    /// The limits of the whole process.
    pub limits: Limits,
    /// Where connections are accepted.
    pub listeners: Table<ListenerId, Listener>,
    /// Which requests go to which pool. Their order has no meaning. What stays the same from one
    /// plan to the next is one value for both, so an earlier plan that is still held costs little.
    pub routes: Table<RouteId, Arc<Route>>,
    /// The backends, in pools; shared like the routes.
    pub pools: Table<PoolId, Arc<Pool>>,
}

impl Plan {
    /// The listener of an id of this plan.
    #[must_use]
    pub fn listener(&self, id: ListenerId) -> &Listener {
        known(self.listeners.get(id))
    }

    /// The pool of an id of this plan.
    #[must_use]
    pub fn pool(&self, id: PoolId) -> &Pool {
        known(self.pools.get(id).map(|pool| &**pool))
    }

    /// The route of an id of this plan.
    #[must_use]
    pub fn route(&self, id: RouteId) -> &Route {
        known(self.routes.get(id).map(|route| &**route))
    }
}

/// The row of an id of the same plan. An id of another plan is a bug.
fn known<T>(row: Option<&T>) -> &T {
    match row {
        Some(row) => row,
        None => unreachable!("an id of another plan"),
    }
}
