//! TLS to the backends of a pool, as handshakes with them need it.
//!
//! Made whole by the thread that owns the plan, one for all cores, and never changed. Each core
//! makes of it what it needs for one backend (`ToBackend`): the same settings with sessions of its
//! own, so that no core waits for another, and no backend is shown the ticket of another.

use std::sync::Arc;

use rustls::{
    ClientConfig,
    client::Resumption,
    crypto::aws_lc_rs,
    pki_types::ServerName,
    sign::SingleCertAndKey,
    version::{TLS12, TLS13},
};

use crate::plan::{PoolId, PoolTls, Protocol, Table};
use crate::shared::certs::PoolCerts;

/// TLS of the pools whose backends speak it.
pub(crate) type Backs = Table<PoolId, Arc<Back>>;

/// Servers of which a core keeps sessions for one backend: it has one name, and rustls keeps eight
/// tickets of a name.
const SESSIONS: usize = 1;

/// TLS to the backends of one pool.
pub(crate) struct Back {
    config: Arc<ClientConfig>,
    /// The name of all of them; none = each has its own host.
    name: Option<ServerName<'static>>,
}

/// TLS to one backend, from one core.
pub(crate) struct ToBackend {
    of: Arc<Back>,
    pub(super) config: Arc<ClientConfig>,
    pub(super) name: ServerName<'static>,
}

impl Back {
    /// # Errors
    /// If rustls does not accept it, which is a mistake of ours.
    pub(crate) fn new(
        (tls, protocol): (&PoolTls, Protocol),
        certs: &PoolCerts,
    ) -> Result<Back, rustls::Error> {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder
            .with_protocol_versions(&[&TLS13, &TLS12])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&certs.backends));
        let mut config = match &certs.identity {
            Some(identity) => {
                let identity = SingleCertAndKey::from(Arc::clone(identity));
                builder.with_client_cert_resolver(Arc::new(identity))
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![match protocol {
            Protocol::H1 | Protocol::H2c => b"http/1.1".to_vec(),
            Protocol::H2 => b"h2".to_vec(),
        }];
        // For records.rs: this process reads its own keys.
        config.enable_secret_extraction = true;
        let name = tls.server_name.as_deref().and_then(server_name);
        Ok(Back { config: Arc::new(config), name })
    }
}

impl ToBackend {
    /// For the backend at this host; none if that can be no name.
    pub(crate) fn new(of: &Arc<Back>, host: &str) -> Option<ToBackend> {
        let name = match &of.name {
            Some(name) => name.clone(),
            None => server_name(host)?,
        };
        let mut config = ClientConfig::clone(&of.config);
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Some(ToBackend { of: Arc::clone(of), config: Arc::new(config), name })
    }

    /// Whether it was made of this.
    pub(crate) fn is_of(&self, back: &Arc<Back>) -> bool {
        Arc::ptr_eq(&self.of, back)
    }
}

/// A host name or an address, with or without brackets.
fn server_name(host: &str) -> Option<ServerName<'static>> {
    let host = host.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(host);
    let host = host.strip_suffix('.').unwrap_or(host);
    ServerName::try_from(host.to_owned()).ok()
}
