//! TLS of the listeners of a plan, made of certificates and secrets before any thread hears of it.

use std::sync::Arc;

use super::StartError;
use crate::net::tls::{Front, Fronts, Tickets};
use crate::plan::{ListenerId, ListenerTls, Plan, Table};
use crate::policy::sticky::Secrets;
use crate::shared::certs::Certs;

/// TLS of the listeners of a plan, with these certificates and secrets of tickets.
///
/// # Errors
/// If rustls does not accept it, which is a mistake of ours.
pub(super) fn fronts(
    plan: &Plan,
    certs: &Certs,
    secrets: &Table<ListenerId, Secrets>,
) -> Result<Arc<Fronts>, StartError> {
    let mut fronts = Fronts::new();
    for (id, listener) in &plan.listeners {
        let (Some(tls), Some(certs)) = (&listener.tls, certs.listeners.get(id)) else { continue };
        let Some(secrets) = secrets.get(id) else { continue };
        let tickets = Tickets::new(secrets.keys(), scope(&listener.name, tls));
        let front = Front::new(tls, certs, Arc::new(tickets));
        fronts.insert(id, front.map_err(|error| StartError::Plan(error.to_string()))?);
    }
    Ok(Arc::new(fronts))
}

/// The same with what files of certificates have become.
///
/// # Errors
/// Like `fronts`.
pub(super) fn renewed(
    plan: &Plan,
    certs: &Certs,
    before: &Fronts,
) -> Result<Arc<Fronts>, StartError> {
    let mut fronts = Fronts::new();
    for (id, listener) in &plan.listeners {
        let (Some(tls), Some(certs)) = (&listener.tls, certs.listeners.get(id)) else { continue };
        let Some(before) = before.get(id) else { continue };
        let front = Front::new(tls, certs, Arc::clone(&before.config.ticketer));
        fronts.insert(id, front.map_err(|error| StartError::Plan(error.to_string()))?);
    }
    Ok(Arc::new(fronts))
}

/// What a ticket is bound to: it must not spare a client what it would have to show.
fn scope(listener: &str, tls: &ListenerTls) -> Vec<u8> {
    format!("{listener}\0{:?}", tls.client_auth).into_bytes()
}
