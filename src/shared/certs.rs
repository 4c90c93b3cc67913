//! What TLS needs from files: the certificates of each listener by name, and whom pools trust.
//!
//! A store never changes. The thread that reads certificates makes the next one whole, and each
//! core is sent it by a message, like a plan: a lookup takes no lock and writes nothing but the
//! count of the certificate that it returns, as rustls demands. Connections keep theirs.

use std::{collections::HashMap, fmt, sync::Arc};

use rustls::{
    SignatureScheme,
    client::danger::ServerCertVerifier,
    server::{ClientHello, ResolvesServerCert, danger::ClientCertVerifier},
    sign::CertifiedKey,
};

use crate::plan::{ListenerId, PoolId, Table};

/// The protocol by which an authority asks for a challenge certificate (RFC 8737 §6.2).
pub(crate) const ACME_TLS: &[u8] = b"acme-tls/1";

/// All of it, for one plan.
#[derive(Clone, Default)]
pub(crate) struct Certs {
    /// Of the listeners that speak TLS.
    pub(crate) listeners: Table<ListenerId, ListenerCerts>,
    /// Of the pools whose backends speak TLS.
    pub(crate) pools: Table<PoolId, PoolCerts>,
}

/// What a listener that speaks TLS needs.
#[derive(Clone)]
pub(crate) struct ListenerCerts {
    pub(crate) store: Arc<Store>,
    /// Decides about certificates of clients; none = no client is asked for one.
    pub(crate) clients: Option<Arc<dyn ClientCertVerifier>>,
}

/// What a pool whose backends speak TLS needs.
#[derive(Clone)]
pub(crate) struct PoolCerts {
    /// Decides about certificates of backends.
    pub(crate) backends: Arc<dyn ServerCertVerifier>,
    /// The certificate that is shown to backends that ask for one.
    pub(crate) identity: Option<Arc<CertifiedKey>>,
}

/// What an authority looks for to see whether a name is ours (RFC 8555 §8). ACME brings it, and
/// takes it away when the authority has seen it.
#[derive(Default)]
pub(crate) struct Challenges {
    /// Certificates by name, for clients that speak `acme-tls/1` (RFC 8737).
    pub(crate) certificates: HashMap<Arc<str>, Arc<CertifiedKey>>,
    /// Answers by the last part of the path, under `/.well-known/acme-challenge/`.
    pub(crate) answers: HashMap<Box<[u8]>, Box<[u8]>>,
}

/// Where authorities look for answers (RFC 8555 §8.3).
const ANSWERS: &[u8] = b"/.well-known/acme-challenge/";

impl Challenges {
    /// The answer at a path, if it is that of a challenge.
    pub(crate) fn answer(&self, path: &[u8]) -> Option<&[u8]> {
        self.answers.get(path.strip_prefix(ANSWERS)?).map(|answer| &**answer)
    }
}

/// A certificate for a store.
#[derive(Clone)]
pub(crate) struct StoreEntry {
    /// The names it is for, in lower case: `a.example`, `*.example`.
    pub(crate) names: Vec<Arc<str>>,
    pub(crate) certified: Arc<CertifiedKey>,
}

/// The certificates of one listener by name.
#[derive(Default)]
pub(crate) struct Store {
    exact: HashMap<Arc<str>, Keys>,
    /// By the rest of the name: `*.example` by `example`.
    wildcard: HashMap<Arc<str>, Keys>,
    /// For clients that name no host, and for hosts without a certificate.
    default: Keys,
    /// Whether a host without a certificate is refused.
    refuses: bool,
    /// For authorities that check a name, and nobody else.
    challenges: Option<Arc<Challenges>>,
}

/// The certificates for one name, the best first: of different kinds of keys, as clients differ.
type Keys = Vec<Arc<CertifiedKey>>;

impl Store {
    /// Of these certificates, the best first; the first is the default.
    #[cfg(test)]
    pub(crate) fn new(entries: &[StoreEntry], refuses: bool) -> Store {
        match entries.first() {
            Some(default) => Store::with_default(default, entries, refuses),
            None => Store { refuses, ..Store::default() },
        }
    }

    /// Of these certificates, the best first, of which one is the default.
    pub(crate) fn with_default(
        default: &StoreEntry,
        entries: &[StoreEntry],
        refuses: bool,
    ) -> Store {
        let mut store = Store { refuses, ..Store::default() };
        for StoreEntry { names, certified } in entries {
            for name in names {
                let keys = match name.strip_prefix("*.") {
                    Some(rest) => store.wildcard.entry(Arc::from(rest)).or_default(),
                    None => store.exact.entry(Arc::clone(name)).or_default(),
                };
                if !keys.iter().any(|other| Arc::ptr_eq(other, certified)) {
                    keys.push(Arc::clone(certified));
                }
            }
        }
        // The same name may have a certificate of another kind, which goes first if it is better.
        let found = default.names.first().and_then(|name| match name.strip_prefix("*.") {
            Some(rest) => store.wildcard.get(rest),
            None => store.exact.get(name),
        });
        store.default = match found {
            Some(keys) => keys.clone(),
            None => vec![Arc::clone(&default.certified)],
        };
        store
    }

    #[allow(dead_code, reason = "ACME brings them")]
    /// The same with these for authorities that check names.
    pub(crate) fn with_challenges(mut self, challenges: Arc<Challenges>) -> Store {
        self.challenges = Some(challenges);
        self
    }

    /// Whether authorities find something here.
    pub(crate) fn has_challenges(&self) -> bool {
        self.challenges.as_ref().is_some_and(|it| !it.certificates.is_empty())
    }

    /// The certificate for a client: by its name, exact before wildcard before the default, and of
    /// a kind whose signatures the client can verify. None: the handshake fails.
    pub(crate) fn resolve(&self, hello: &ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asks_for_challenge = hello.alpn().is_some_and(|mut list| {
            // Alone: an authority offers nothing else (RFC 8737 §3).
            list.next().is_some_and(|only| only == ACME_TLS) && list.next().is_none()
        });
        // Without any the protocol is not offered, and rustls refuses it.
        if let Some(challenges) = self.challenges.as_ref().filter(|_| asks_for_challenge)
            && !challenges.certificates.is_empty()
        {
            return challenges.certificates.get(hello.server_name()?).map(Arc::clone);
        }
        self.choose(hello.server_name(), hello.signature_schemes())
    }

    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let keys = self.keys(name)?;
        let fits = |certified: &&Arc<CertifiedKey>| certified.key.choose_scheme(schemes).is_some();
        // If none fits, rustls fails the handshake with the alert for it.
        keys.iter().find(fits).or(keys.first()).map(Arc::clone)
    }

    /// Whether a client that asks for this name is refused by `unrecognized_name`.
    pub(crate) fn refuses(&self, name: &str) -> bool {
        self.keys(Some(name)).is_none()
    }

    /// Whether a request for this host may come over a connection that was made for this name: one
    /// certificate serves both. Otherwise it is misdirected (421).
    pub(crate) fn agrees(&self, name: Option<&str>, host: &str) -> bool {
        if name.is_some_and(|name| name.eq_ignore_ascii_case(host)) {
            return true;
        }
        let (Some(ours), Some(theirs)) = (self.keys(name), self.keys(Some(host))) else {
            return false;
        };
        ours.iter().any(|one| theirs.iter().any(|other| Arc::ptr_eq(one, other)))
    }

    /// The certificates for a name; none if it is refused.
    fn keys(&self, name: Option<&str>) -> Option<&Keys> {
        let Some(name) = name else { return Some(&self.default) };
        let name = name.strip_suffix('.').unwrap_or(name);
        // rustls gives names in lower case, a Host field need not be.
        let lowered;
        let name = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            lowered = name.to_ascii_lowercase();
            lowered.as_str()
        } else {
            name
        };
        let wildcard = || self.wildcard.get(name.split_once('.')?.1);
        match self.exact.get(name).or_else(wildcard) {
            Some(keys) => Some(keys),
            None if self.refuses => None,
            None => Some(&self.default),
        }
    }
}

impl ResolvesServerCert for Store {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Store::resolve(self, &hello)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.exact.len() + self.wildcard.len();
        f.debug_struct("Store").field("names", &names).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
    use rustls::crypto::aws_lc_rs;

    const ECDSA: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;
    const ED25519: SignatureScheme = SignatureScheme::ED25519;

    fn entry(names: &[&str], ed25519: bool) -> StoreEntry {
        let key = KeyPair::generate_for(match ed25519 {
            true => &PKCS_ED25519,
            false => &PKCS_ECDSA_P256_SHA256,
        });
        let key = key.unwrap();
        let params =
            CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>());
        let cert = params.unwrap().self_signed(&key).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let key = aws_lc_rs::sign::any_supported_type(&key).unwrap();
        let certified = Arc::new(CertifiedKey::new(vec![cert.der().clone()], key));
        StoreEntry { names: names.iter().map(|name| Arc::from(*name)).collect(), certified }
    }

    /// Which of the entries a client gets, by its index.
    fn chosen(
        store: &Store,
        entries: &[StoreEntry],
        name: Option<&str>,
        schemes: &[SignatureScheme],
    ) -> Option<usize> {
        let found = store.choose(name, schemes)?;
        entries.iter().position(|entry| Arc::ptr_eq(&entry.certified, &found))
    }

    #[test]
    fn an_exact_name_goes_before_a_wildcard_and_that_before_the_default() {
        let entries = [
            entry(&["first.example"], false),
            entry(&["*.example"], false),
            entry(&["a.example"], false),
        ];
        let store = Store::new(&entries, false);
        for (name, expected) in [
            (None, 0),
            (Some("first.example"), 0),
            (Some("a.example"), 2),
            (Some("A.Example."), 2),
            (Some("b.example"), 1),
            // A wildcard stands for one label (RFC 9525 §6.3).
            (Some("c.b.example"), 0),
            (Some("example"), 0),
            (Some("unknown.test"), 0),
        ] {
            assert_eq!(chosen(&store, &entries, name, &[ECDSA]), Some(expected), "{name:?}");
        }
    }

    #[test]
    fn an_unknown_name_is_refused_where_that_is_configured_and_no_name_is_not() {
        let entries = [entry(&["a.example"], false)];
        let store = Store::new(&entries, true);
        assert_eq!(chosen(&store, &entries, Some("b.example"), &[ECDSA]), None);
        assert_eq!(chosen(&store, &entries, None, &[ECDSA]), Some(0));
        assert!(store.refuses("b.example") && !store.refuses("a.example"));
        assert!(!Store::new(&entries, false).refuses("b.example"));
    }

    #[test]
    fn of_two_kinds_of_keys_for_one_name_the_client_decides() {
        let entries = [entry(&["a.example"], true), entry(&["a.example"], false)];
        let store = Store::new(&entries, false);
        for name in [Some("a.example"), None] {
            assert_eq!(chosen(&store, &entries, name, &[ECDSA]), Some(1));
            assert_eq!(chosen(&store, &entries, name, &[ED25519]), Some(0));
            assert_eq!(chosen(&store, &entries, name, &[ECDSA, ED25519]), Some(0), "ours first");
            let others = [SignatureScheme::RSA_PSS_SHA256];
            assert_eq!(chosen(&store, &entries, name, &others), Some(0), "rustls says why not");
        }
    }

    #[test]
    fn hosts_agree_with_a_connection_if_one_certificate_serves_both() {
        let entries = [entry(&["a.example", "b.example"], false), entry(&["c.example"], false)];
        let store = Store::new(&entries, false);
        for (name, host, agrees) in [
            (Some("a.example"), "a.example", true),
            (Some("a.example"), "B.Example", true),
            (Some("a.example"), "c.example", false),
            (Some("c.example"), "b.example", false),
            // Both get the default, which is the one of a.example.
            (Some("a.example"), "unknown.test", true),
            (Some("c.example"), "unknown.test", false),
            (None, "10.0.0.1", true),
            (None, "c.example", false),
        ] {
            assert_eq!(store.agrees(name, host), agrees, "{name:?} {host}");
        }
        let strict = Store::new(&entries, true);
        assert!(!strict.agrees(Some("a.example"), "unknown.test"));
    }
}
