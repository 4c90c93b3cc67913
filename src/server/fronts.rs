//! TLS of the listeners of a plan, made of certificates and secrets before any thread hears of it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::server::danger::ClientCertVerifier;

use super::StartError;
use crate::certs::{self, Files};
use crate::config;
use crate::net::{
    clock::Clock,
    tls::{Front, Fronts, Tickets},
};
use crate::plan::{
    CertificateFiles, ClientAuth, ClientAuthMode, ListenerId, ListenerTls, Plan, Table, UnknownName,
};
use crate::policy::sticky::Secrets;
use crate::shared::certs::{ListenerCerts, Store, StoreEntry};

/// TLS of the listeners of a plan, with these secrets of tickets.
///
/// # Errors
/// A sentence about a file that cannot be used.
pub(super) fn fronts(
    plan: &Plan,
    secrets: &Table<ListenerId, Secrets>,
) -> Result<Arc<Fronts>, StartError> {
    let mut fronts = Fronts::new();
    for (id, listener) in &plan.listeners {
        let (Some(tls), Some(secrets)) = (&listener.tls, secrets.get(id)) else { continue };
        let certs = certs(tls).map_err(StartError::Plan)?;
        let tickets = Tickets::new(secrets.keys(), scope(&listener.name, tls));
        let front = Front::new(tls, &certs, Arc::new(tickets));
        fronts.insert(id, front.map_err(|error| StartError::Plan(error.to_string()))?);
    }
    Ok(Arc::new(fronts))
}

/// What a ticket is bound to: it must not spare a client what it would have to show.
fn scope(listener: &str, tls: &ListenerTls) -> Vec<u8> {
    format!("{listener}\0{:?}", tls.client_auth).into_bytes()
}

fn certs(tls: &ListenerTls) -> Result<ListenerCerts, String> {
    let files = config::Machine;
    let mut all: Vec<_> = tls.certificates.iter().map(paths).collect();
    if let Some(folder) = &tls.directory {
        let found = certs::pairs_in(&files, folder);
        all.extend(found.map_err(|why| format!("{}: {why}", folder.display()))?);
    }
    let entries: Result<Vec<StoreEntry>, String> = all
        .iter()
        .map(|(cert, key, ocsp)| {
            let pair = certs::read(&files, cert, key, ocsp.as_deref());
            let pair = pair.map_err(|(_, finding)| format!("{} {finding}", cert.display()))?;
            let names = pair.facts.names.clone();
            Ok(StoreEntry { names, certified: pair.certified })
        })
        .collect();
    let store = Store::new(&entries?, tls.unknown_name == UnknownName::Refuse);
    let clients = tls.client_auth.as_ref().map(|auth| clients(&files, auth)).transpose()?;
    Ok(ListenerCerts { store: Arc::new(store), clients })
}

fn paths(files: &CertificateFiles) -> (PathBuf, PathBuf, Option<PathBuf>) {
    (files.cert.clone(), files.key.clone(), files.ocsp.clone())
}

fn clients(files: &dyn Files, auth: &ClientAuth) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let bytes = |path: &Path| {
        files.bytes(path).map_err(|why| format!("{} cannot be read: {why}", path.display()))
    };
    let crl = auth.crl.as_deref().map(bytes).transpose()?;
    let is_required = auth.mode == ClientAuthMode::Required;
    let now = Clock::unix_now();
    let (verifier, _) = certs::clients(&bytes(&auth.ca)?, crl.as_deref(), is_required, now)
        .map_err(|(_, finding)| format!("{} {finding}", auth.ca.display()))?;
    Ok(verifier)
}
