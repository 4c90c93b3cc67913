//! TLS on both sides: which files, which versions, who must show a certificate.
//!
//! Only what was configured. The files are read by the thread that looks after certificates, and
//! what it makes of them is in `shared/certs.rs`.

use std::path::PathBuf;

/// TLS in front of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ListenerTls {
    /// Its certificates; the first is the default.
    pub certificates: Vec<CertificateFiles>,
    /// A folder with more of them: pairs by stem, or both in one file.
    pub directory: Option<PathBuf>,
    /// The lowest version that is spoken.
    pub version_min: TlsVersion,
    /// Which clients must show a certificate; none = no client is asked.
    pub client_auth: Option<ClientAuth>,
    /// What a client gets that asks for a name without a certificate.
    pub unknown_name: UnknownName,
    /// The file of the secret that session tickets are sealed with; none = a generated one.
    pub ticket_secret_file: Option<PathBuf>,
}

/// The files of one certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct CertificateFiles {
    /// The certificate, followed by its chain (PEM).
    pub cert: PathBuf,
    /// Its private key (PEM); the same file if both are in one.
    pub key: PathBuf,
    /// An OCSP response that is stapled (DER); none = nothing is stapled.
    pub ocsp: Option<PathBuf>,
}

impl CertificateFiles {
    /// A certificate and its key, in two files or in one.
    #[must_use]
    pub fn new(cert: PathBuf, key: PathBuf) -> CertificateFiles {
        CertificateFiles { cert, key, ocsp: None }
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TlsVersion {
    /// RFC 5246, with the suites that are still good.
    #[default]
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// What a client gets that asks for a name without a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnknownName {
    /// The default certificate.
    #[default]
    Default,
    /// The alert `unrecognized_name` (RFC 6066 §3).
    Refuse,
}

/// Which clients must show a certificate, and which certificates are accepted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ClientAuth {
    /// The certificates of the authorities that may have signed it (PEM).
    pub ca: PathBuf,
    /// Whether a client without one is turned away.
    pub mode: ClientAuthMode,
    /// The certificates that were revoked (PEM); none = not looked up.
    pub crl: Option<PathBuf>,
    /// How many certificates may stand between that of a client and an authority of `ca`.
    pub depth: u8,
}

impl ClientAuth {
    /// The bound of the verifier itself (webpki).
    pub const DEPTH_MAX: u8 = 6;
}

/// Whether a client without a certificate is turned away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClientAuthMode {
    /// It is.
    #[default]
    Required,
    /// It is not; a certificate that is shown must be good.
    Optional,
}

/// TLS to the backends of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolTls {
    /// The name that is asked for and that the certificate must have; none = the backend's host.
    pub server_name: Option<String>,
    /// The authorities that may have signed the certificate (PEM); none = those of the system.
    pub ca: Option<PathBuf>,
    /// The certificate that is shown to backends that ask for one.
    pub identity: Option<CertificateFiles>,
    /// Whether the certificate of a backend must be good.
    pub verify: bool,
}

impl Default for PoolTls {
    fn default() -> PoolTls {
        PoolTls { server_name: None, ca: None, identity: None, verify: true }
    }
}
