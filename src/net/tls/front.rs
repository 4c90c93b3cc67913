//! TLS of a listener, as handshakes with its clients need it.
//!
//! Made whole by the thread that owns the plan, of the plan, the certificates and the secret of
//! tickets; never changed, only replaced. One for all cores: a handshake takes a count of it, and
//! writes nothing else that another core reads.

use std::sync::Arc;

use rustls::{
    ServerConfig, SupportedCipherSuite,
    crypto::{
        CryptoProvider,
        aws_lc_rs::{self, cipher_suite},
    },
    server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier},
    version::{TLS12, TLS13},
};

use super::handshake::Chooser;
use crate::plan::{ListenerId, ListenerTls, Protocols, Table, TlsVersion};
use crate::shared::certs::{ACME_TLS, ListenerCerts, Store};

/// TLS of the listeners that speak it.
pub(crate) type Fronts = Table<ListenerId, Front>;

/// What is offered to clients, the best first: the first one that a client offers as well is agreed
/// on. Besides the protocols of HTTP that of authorities (RFC 8737), while there is something that
/// they look for.
fn offered(protocols: Protocols, store: &Store) -> Vec<Vec<u8>> {
    let challenges = store.has_challenges();
    [(protocols.h2, &b"h2"[..]), (protocols.h1, b"http/1.1"), (challenges, ACME_TLS)]
        .into_iter()
        .filter(|(is_spoken, _)| *is_spoken)
        .map(|(_, name)| name.to_vec())
        .collect()
}

/// The suites that are offered, the best first, and ours is the order that counts. 128 bits are
/// enough, and SHA-256 has instructions where SHA-384 has none.
const SUITES: [SupportedCipherSuite; 9] = [
    cipher_suite::TLS13_AES_128_GCM_SHA256,
    cipher_suite::TLS13_AES_256_GCM_SHA384,
    cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
];

/// TLS of one listener.
#[derive(Clone)]
pub(crate) struct Front {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) store: Arc<Store>,
}

impl Front {
    /// # Errors
    /// If rustls does not accept it, which is a mistake of ours.
    pub(crate) fn new(
        (tls, protocols): (&ListenerTls, Protocols),
        certs: &ListenerCerts,
        tickets: Arc<dyn ProducesTickets>,
    ) -> Result<Front, rustls::Error> {
        let versions: &[_] = match tls.version_min {
            TlsVersion::Tls12 => &[&TLS13, &TLS12],
            TlsVersion::Tls13 => &[&TLS13],
        };
        let clients = certs.clients.clone();
        let clients = clients.unwrap_or_else(WebPkiClientVerifier::no_client_auth);
        let cipher_suites = SUITES.to_vec();
        let provider = CryptoProvider { cipher_suites, ..aws_lc_rs::default_provider() };
        let builder = ServerConfig::builder_with_provider(Arc::new(provider));
        let mut config = builder
            .with_protocol_versions(versions)?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::new(Chooser(Arc::clone(&certs.store))));
        config.alpn_protocols = offered(protocols, &certs.store);
        config.ignore_client_order = true;
        config.ticketer = tickets;
        // A second one costs a client nothing but us a tenth of the handshake.
        config.send_tls13_tickets = 1;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.max_early_data_size = 0;
        // For records.rs: this process reads its own keys.
        config.enable_secret_extraction = true;
        Ok(Front { config: Arc::new(config), store: Arc::clone(&certs.store) })
    }
}
