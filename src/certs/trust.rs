//! Whom we trust: the authorities for certificates of clients and of backends, and what they have
//! revoked.
//!
//! What cannot be read is refused; what is only out of date is said, and goes on refusing.

use std::sync::Arc;

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime},
    server::{
        VerifierBuilderError, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use x509_parser::{prelude::FromDer, revocation_list::CertificateRevocationList};

use super::{Finding, facts, pem};
use crate::base::moment::UnixSeconds;

/// The file that a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrustPart {
    Ca,
    Crl,
}

/// What decides about certificates, and what a person should look at.
type Trusted<T> = (Arc<T>, Vec<(TrustPart, Finding)>);

/// Decides about certificates of clients: signed by one of these authorities, with at most `depth`
/// certificates between, and, if there are lists, in none of them.
///
/// # Errors
/// Why a file cannot be used.
pub(crate) fn clients(
    ca: &[u8],
    crl: Option<&[u8]>,
    (is_required, depth): (bool, u8),
    now: UnixSeconds,
) -> Result<Trusted<dyn ClientCertVerifier>, (TrustPart, Finding)> {
    let of_ca = |finding| (TrustPart::Ca, finding);
    let of_crl = |finding| (TrustPart::Crl, finding);
    let (roots, mut findings) = roots(ca, now).map_err(of_ca)?;
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    if let Some(crl) = crl {
        let (lists, stale) = revoked(crl, now).map_err(of_crl)?;
        findings.extend(stale.into_iter().map(of_crl));
        // A list that is too old still refuses what is in it.
        builder = builder.with_crls(lists).only_check_end_entity_revocation();
    }
    if !is_required {
        builder = builder.allow_unauthenticated();
    }
    let verifier = builder.build().map_err(|error| match error {
        VerifierBuilderError::InvalidCrl(_) => of_crl(Finding::new("has a list that is broken")),
        _ => of_ca(Finding::new("has no certificate of an authority")),
    })?;
    Ok((Arc::new(Shallow { verifier, depth: usize::from(depth) }), findings))
}

/// Decides about certificates of backends: signed by one of these authorities; without a file, by
/// one of those of the system.
///
/// # Errors
/// Why a file cannot be used.
pub(crate) fn servers(
    ca: Option<&[u8]>,
    system: &[CertificateDer<'static>],
    now: UnixSeconds,
) -> Result<Trusted<dyn ServerCertVerifier>, (TrustPart, Finding)> {
    let of_ca = |finding| (TrustPart::Ca, finding);
    let (roots, findings) = match ca {
        Some(ca) => roots(ca, now).map_err(of_ca)?,
        None => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(system.iter().cloned());
            (roots, Vec::new())
        }
    };
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
    let verifier = verifier.build().map_err(|_| {
        of_ca(
            Finding::new("has no certificate of an authority")
                .help("install ca-certificates, or name the authority by `ca`"),
        )
    })?;
    Ok((verifier, findings))
}

/// Accepts any certificate of a backend, if the backend has its key.
pub(crate) fn unverified() -> Arc<dyn ServerCertVerifier> {
    Arc::new(Unverified(provider()))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn roots(
    ca: &[u8],
    now: UnixSeconds,
) -> Result<(RootCertStore, Vec<(TrustPart, Finding)>), Finding> {
    let mut file = pem::read(ca)?;
    let certificates = std::mem::take(&mut file.certificates);
    if certificates.is_empty() {
        return Err(file.without_certificate());
    }
    let (mut roots, mut findings) = (RootCertStore::empty(), Vec::new());
    for certificate in certificates {
        let parsed = facts::parse(&certificate)?;
        let title = facts::title(parsed.subject());
        let ends = parsed.validity().not_after.timestamp();
        if u64::try_from(ends).unwrap_or(0) < now.0 {
            findings.push((
                TrustPart::Ca,
                Finding::new(format!("has an authority that has expired: \"{title}\"")),
            ));
        }
        drop(parsed);
        roots.add(certificate).map_err(|_| {
            Finding::new(format!("has a certificate that cannot be used: \"{title}\""))
        })?;
    }
    Ok((roots, findings))
}

/// The lists of a file, and those that should have been replaced.
fn revoked(
    crl: &[u8],
    now: UnixSeconds,
) -> Result<(Vec<CertificateRevocationListDer<'static>>, Option<Finding>), Finding> {
    let lists = pem::read(crl)?.crls;
    if lists.is_empty() {
        return Err(Finding::new("has no list of revoked certificates")
            .help("expected \"-----BEGIN X509 CRL-----\""));
    }
    let mut stale = None;
    for list in &lists {
        let Ok((_, parsed)) = CertificateRevocationList::from_der(list) else {
            return Err(Finding::new("has a list that is broken"));
        };
        let next = parsed.next_update().map(|time| u64::try_from(time.timestamp()).unwrap_or(0));
        if next.is_some_and(|next| next < now.0) {
            let issuer = facts::title(parsed.issuer());
            stale = Some(
                Finding::new(format!("is out of date: \"{issuer}\" has promised a newer list"))
                    .help("what was revoked since then is still accepted: fetch it anew"),
            );
        }
    }
    Ok((lists, stale))
}

/// When the first list of a file should have been replaced; none = it does not say.
pub(crate) fn next_update(crl: &[u8]) -> Option<UnixSeconds> {
    let lists = pem::read(crl).ok()?.crls;
    let next = lists.iter().filter_map(|list| {
        let (_, parsed) = CertificateRevocationList::from_der(list).ok()?;
        u64::try_from(parsed.next_update()?.timestamp()).ok()
    });
    next.min().map(UnixSeconds)
}

/// Looks at no more of a client's chain than this, in the order in which it was sent: that of the
/// issuers (RFC 8446 §4.4.2).
#[derive(Debug)]
struct Shallow {
    verifier: Arc<dyn ClientCertVerifier>,
    depth: usize,
}

impl ClientCertVerifier for Shallow {
    fn offer_client_auth(&self) -> bool {
        self.verifier.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.verifier.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.verifier.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let between = between.get(..self.depth).unwrap_or(between);
        self.verifier.verify_client_cert(own, between, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// Accepts any certificate; the handshake still proves that the peer has its key.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
