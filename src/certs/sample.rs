//! Certificates for tests, made anew each time.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519,
    PKCS_RSA_SHA256, RevokedCertParams, SerialNumber, date_time_ymd,
};

/// Kinds of keys.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Ecdsa,
    Ed25519,
    Rsa,
}

/// A certificate and its key in PEM.
#[derive(Clone)]
pub(crate) struct Sample {
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// An authority.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

fn key(kind: Kind) -> KeyPair {
    KeyPair::generate_for(match kind {
        Kind::Ecdsa => &PKCS_ECDSA_P256_SHA256,
        Kind::Ed25519 => &PKCS_ED25519,
        Kind::Rsa => &PKCS_RSA_SHA256,
    })
    .unwrap()
}

/// Valid from 2020 to the end of this year.
fn params(names: &[&str], until: i32) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names.clone()).unwrap();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(until, 12, 31);
    let title = names.first().cloned().unwrap_or_else(|| "no name".to_owned());
    params.distinguished_name.push(DnType::CommonName, title);
    params
}

/// A certificate for these names that has signed itself.
pub(crate) fn own(names: &[&str], kind: Kind, until: i32) -> Sample {
    let key = key(kind);
    let cert = params(names, until).self_signed(&key).unwrap();
    Sample { cert: cert.pem(), key: key.serialize_pem() }
}

impl Authority {
    /// One that has signed itself.
    pub(crate) fn root(title: &str) -> Authority {
        let issuer = CertifiedIssuer::self_signed(ca(title), key(Kind::Ecdsa)).unwrap();
        Authority { issuer }
    }

    /// One that this one has signed.
    pub(crate) fn below(&self, title: &str) -> Authority {
        let issuer = CertifiedIssuer::signed_by(ca(title), key(Kind::Ecdsa), &self.issuer).unwrap();
        Authority { issuer }
    }

    /// Its certificate in PEM.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate for these names.
    pub(crate) fn signs(&self, names: &[&str], kind: Kind) -> Sample {
        let key = key(kind);
        let cert = params(names, 2100).signed_by(&key, &self.issuer).unwrap();
        Sample { cert: cert.pem(), key: key.serialize_pem() }
    }

    /// Its list of revoked certificates, which it has promised to replace by the end of this year.
    pub(crate) fn revokes(&self, serial: u64, until: i32) -> String {
        let issuer: &Issuer<'_, KeyPair> = &self.issuer;
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(until, 12, 31),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(issuer).unwrap().pem().unwrap()
    }
}

fn ca(title: &str) -> CertificateParams {
    let mut params = params(&[], 2100);
    params.distinguished_name.push(DnType::CommonName, title);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params
}
