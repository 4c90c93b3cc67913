//! TLS of a plan, made of its certificates and secrets before any thread hears of it.

use std::sync::Arc;

use super::StartError;
use crate::net::tls::{Back, Backs, Ends, Front, Tickets};
use crate::plan::{ListenerId, ListenerTls, Plan, Table};
use crate::policy::sticky::Secrets;
use crate::shared::certs::Certs;
use crate::worker::Next;

/// TLS of a plan, with these certificates and these secrets of tickets.
///
/// # Errors
/// What rustls does not accept, which is a mistake of ours.
pub(super) fn ends(
    plan: &Plan,
    certs: &Certs,
    secrets: &Table<ListenerId, Secrets>,
) -> Result<Arc<Ends>, StartError> {
    let said = |error: rustls::Error| StartError::Plan(format!("TLS: {error}"));
    let mut ends = Ends::default();
    for (id, listener) in &plan.listeners {
        let (Some(tls), Some(secrets), Some(certs)) =
            (&listener.tls, secrets.get(id), certs.listeners.get(id))
        else {
            continue;
        };
        let tickets = Tickets::new(secrets.keys(), scope(&listener.name, tls));
        ends.fronts.insert(
            id,
            Front::new((tls, listener.protocols), certs, Arc::new(tickets)).map_err(said)?,
        );
    }
    ends.backs = backs(plan, certs).map_err(said)?;
    Ok(Arc::new(ends))
}

/// The same for a plan in force, with what files of certificates have become. Tickets stay.
///
/// # Errors
/// Like `ends`.
pub(super) fn renewed(next: &Next, certs: &Certs) -> Result<Arc<Ends>, rustls::Error> {
    let mut ends = Ends::default();
    for (id, listener) in &next.plan.listeners {
        let (Some(tls), Some(certs)) = (&listener.tls, certs.listeners.get(id)) else { continue };
        let Some(before) = next.tls.fronts.get(id) else { continue };
        ends.fronts.insert(
            id,
            Front::new((tls, listener.protocols), certs, Arc::clone(&before.config.ticketer))?,
        );
    }
    ends.backs = backs(&next.plan, certs)?;
    Ok(Arc::new(ends))
}

fn backs(plan: &Plan, certs: &Certs) -> Result<Backs, rustls::Error> {
    let mut backs = Backs::new();
    for (id, pool) in &plan.pools {
        let (Some(tls), Some(certs)) = (&pool.tls, certs.pools.get(id)) else { continue };
        backs.insert(id, Arc::new(Back::new((tls, pool.protocol), certs)?));
    }
    Ok(backs)
}

/// What a ticket is bound to: it must not spare a client what it would have to show.
fn scope(listener: &str, tls: &ListenerTls) -> Vec<u8> {
    format!("{listener}\0{:?}", tls.client_auth).into_bytes()
}
