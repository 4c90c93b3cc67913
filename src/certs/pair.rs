//! A certificate with its key, ready to sign with.

use std::{path::Path, sync::Arc};

use rustls::{
    crypto::aws_lc_rs,
    pki_types::PrivateKeyDer,
    sign::{CertifiedKey, SigningKey},
};
use x509_parser::{prelude::FromDer, x509::SubjectPublicKeyInfo};

use super::{Facts, Files, Finding, chain, facts, pem};
use crate::base::moment::UnixSeconds;

/// The file that a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Cert,
    Key,
    Ocsp,
}

/// A certificate with its key.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certified: Arc<CertifiedKey>,
    pub(crate) facts: Arc<Facts>,
    /// What a person should look at besides its times.
    pub(crate) findings: Vec<(Part, Finding)>,
}

impl Pair {
    /// What a person should look at now.
    pub(crate) fn findings(&self, now: UnixSeconds) -> impl Iterator<Item = (Part, Finding)> {
        let times = self.facts.about_times(now).map(|finding| (Part::Cert, finding));
        self.findings.iter().cloned().chain(times)
    }
}

/// Reads a pair from its files.
///
/// # Errors
/// Why it cannot be used, and the file that is to blame.
pub(crate) fn read(
    files: &dyn Files,
    cert: &Path,
    key: &Path,
    ocsp: Option<&Path>,
) -> Result<Pair, (Part, Finding)> {
    let bytes = |part, path| {
        let unread = |why| (part, Finding::new(format!("cannot be read: {why}")));
        files.bytes(path).map_err(unread)
    };
    let key = if key == cert { None } else { Some(bytes(Part::Key, key)?) };
    let ocsp = ocsp.map(|ocsp| bytes(Part::Ocsp, ocsp)).transpose()?;
    load(&bytes(Part::Cert, cert)?, key.as_deref(), ocsp)
}

/// Makes a pair of the bytes of its files; without those of a key, it is in the file of the
/// certificate.
///
/// # Errors
/// Why it cannot be used, and the file that is to blame.
pub(crate) fn load(
    cert: &[u8],
    key: Option<&[u8]>,
    ocsp: Option<Vec<u8>>,
) -> Result<Pair, (Part, Finding)> {
    let of_cert = |finding| (Part::Cert, finding);
    let of_key = |finding| (Part::Key, finding);
    let mut certs = pem::read(cert).map_err(of_cert)?;
    let certificates = std::mem::take(&mut certs.certificates);
    let secret = match key {
        Some(key) => pem::read(key).map_err(of_key)?,
        None => certs,
    };
    if certificates.is_empty() {
        // In one file an encrypted key comes first.
        return Err(match key {
            Some(_) => of_cert(pem::read(cert).map_err(of_cert)?.without_certificate()),
            None => match secret.key() {
                Err(finding) if finding.what.contains("encrypted") => of_key(finding),
                _ => of_cert(pem::read(cert).map_err(of_cert)?.without_certificate()),
            },
        });
    }
    let key = signing(&secret.key().map_err(of_key)?).map_err(of_key)?;
    let public = key.public_key().ok_or_else(|| of_key(Finding::new("has an unknown key")))?;
    let public = SubjectPublicKeyInfo::from_der(&public)
        .map_err(|_| of_key(Finding::new("has an unknown key")))?
        .1;
    let chain = chain::order(certificates, &public).map_err(|finding| {
        match finding.what.starts_with("does not fit") {
            true => of_key(finding),
            false => of_cert(finding),
        }
    })?;
    let own = chain.certificates.first().map_or(&[][..], |own| own);
    let (facts, mut findings) = facts::of(&facts::parse(own).map_err(of_cert)?);
    findings.extend(chain.findings);
    let mut certified = CertifiedKey::new(chain.certificates, key);
    if let Some(ocsp) = ocsp {
        stapled(&ocsp).map_err(|finding| (Part::Ocsp, finding))?;
        certified.ocsp = Some(ocsp);
    }
    let findings = findings.into_iter().map(of_cert).collect();
    Ok(Pair { certified: Arc::new(certified), facts: Arc::new(facts), findings })
}

/// What signs with a key.
fn signing(key: &PrivateKeyDer<'_>) -> Result<Arc<dyn SigningKey>, Finding> {
    aws_lc_rs::sign::any_supported_type(key).map_err(|_| {
        Finding::new("has a private key that cannot be used")
            .help("use ECDSA (P-256, P-384, P-521), Ed25519, or RSA of 2048 to 8192 bits")
    })
}

/// Whether it is an OCSP response that says something (RFC 6960 §4.2.1).
fn stapled(der: &[u8]) -> Result<(), Finding> {
    // SEQUENCE, its length in one to three bytes, ENUMERATED of length 1: successful.
    let successful = [0x0a, 0x01, 0x00];
    let content = match der {
        [0x30, short, rest @ ..] if *short < 0x80 => rest,
        [0x30, 0x81, _, rest @ ..] | [0x30, 0x82, _, _, rest @ ..] => rest,
        _ => {
            return Err(Finding::new("is not an OCSP response")
                .help("expected DER, as `openssl ocsp … -respout FILE` writes it"));
        }
    };
    match content.starts_with(&successful) {
        true => Ok(()),
        false => Err(Finding::new("has an OCSP response without an answer").help("fetch it again")),
    }
}
