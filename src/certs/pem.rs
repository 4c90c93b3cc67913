//! What is in a file of PEM, and a sentence for each way in which it is not what was expected.

use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, PrivatePkcs1KeyDer,
    PrivatePkcs8KeyDer, PrivateSec1KeyDer,
    pem::{Error, PemObject, SectionKind},
};

use super::Finding;

/// The sections of a file, in their order.
#[derive(Debug, Default)]
pub(super) struct Pem {
    pub(super) certificates: Vec<CertificateDer<'static>>,
    pub(super) keys: Vec<PrivateKeyDer<'static>>,
    pub(super) crls: Vec<CertificateRevocationListDer<'static>>,
    /// Whether it has a key that asks for a passphrase.
    encrypted: bool,
    /// Whether it has a request in place of a certificate.
    request: bool,
    /// Whether it has a key that is not secret.
    public_key: bool,
    /// Whether it is in DER, not in PEM.
    der: bool,
}

/// Reads a file.
///
/// # Errors
/// If it was not written to its end, or a section is not base64.
pub(super) fn read(bytes: &[u8]) -> Result<Pem, Finding> {
    let has = |words: &str| memchr::memmem::find(bytes, words.as_bytes()).is_some();
    let mut pem = Pem {
        encrypted: has("-----BEGIN ENCRYPTED PRIVATE KEY") || has("4,ENCRYPTED"),
        der: bytes.starts_with(&[0x30]),
        ..Pem::default()
    };
    if pem.encrypted {
        // The inside of such a section is not a key.
        return Ok(pem);
    }
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes) {
        let (kind, der) = section.map_err(|error| broken(&error))?;
        match kind {
            SectionKind::Certificate => pem.certificates.push(CertificateDer::from(der)),
            SectionKind::PrivateKey => pem.keys.push(PrivatePkcs8KeyDer::from(der).into()),
            SectionKind::RsaPrivateKey => pem.keys.push(PrivatePkcs1KeyDer::from(der).into()),
            SectionKind::EcPrivateKey => pem.keys.push(PrivateSec1KeyDer::from(der).into()),
            SectionKind::Crl => pem.crls.push(der.into()),
            SectionKind::Csr => pem.request = true,
            SectionKind::PublicKey => pem.public_key = true,
            // Parameters of curves and the like.
            _ => {}
        }
    }
    Ok(pem)
}

fn broken(error: &Error) -> Finding {
    match error {
        Error::MissingSectionEnd { .. } => {
            Finding::new("ends in the middle of a section").help("was it written to its end?")
        }
        Error::IllegalSectionStart { .. } => {
            Finding::new("has a line with a broken \"-----BEGIN\"")
        }
        Error::Base64Decode(_) => Finding::new("has a section that is not base64"),
        _ => Finding::new("is not PEM"),
    }
}

impl Pem {
    /// Why there is no certificate in it.
    pub(super) fn without_certificate(&self) -> Finding {
        let finding = Finding::new("has no certificate");
        if self.der {
            return Finding::new("is not PEM").help(
                "it looks like DER: openssl x509 -inform der -in FILE -out FILE.pem (or, if it is \
                 PKCS #12: openssl pkcs12 -in FILE -out FILE.pem -nodes)",
            );
        }
        if self.request {
            return finding.help("it is a request for one; the authority's answer belongs here");
        }
        if !self.keys.is_empty() || self.encrypted {
            return finding.help("it has a private key; are the two files swapped?");
        }
        finding.help("expected \"-----BEGIN CERTIFICATE-----\"")
    }

    /// The one private key in it.
    pub(super) fn key(mut self) -> Result<PrivateKeyDer<'static>, Finding> {
        if self.encrypted {
            return Err(Finding::new("has an encrypted private key").help(
                "nobody is there to type a passphrase at a start: decrypt it once with \
                 `openssl pkey -in FILE -out NEW` and protect the new file by its permissions",
            ));
        }
        match (self.keys.pop(), self.keys.len()) {
            (Some(key), 0) => Ok(key),
            (Some(_), more) => Err(Finding::new(format!("has {} private keys", more + 1))
                .help("leave the one of the certificate")),
            (None, _) => {
                let finding = Finding::new("has no private key");
                Err(match (self.der, self.public_key, self.certificates.is_empty()) {
                    (true, ..) => Finding::new("is not PEM")
                        .help("it looks like DER: openssl pkey -inform der -in FILE -out FILE.pem"),
                    (_, true, _) => finding.help("it has a public key"),
                    (.., false) => finding.help("it has a certificate; name its key by `key`"),
                    _ => finding.help("expected \"-----BEGIN PRIVATE KEY-----\""),
                })
            }
        }
    }
}
