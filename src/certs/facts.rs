//! What people should know of a certificate: its names, its times, its kind of key, its issuer.
//!
//! And what clients refuse in it. Whether a signature is right is not looked at.

use std::sync::Arc;

use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, oid_registry::Oid, prelude::FromDer,
    public_key::PublicKey, x509::X509Name,
};

use super::Finding;
use crate::base::{calendar, moment::UnixSeconds};

/// A day.
const DAY_SECONDS: u64 = 24 * 3600;

/// A certificate that ends within this time is worth a warning.
const SOON_DAYS: i64 = 30;

/// What is known of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The names it is for, in lower case: `a.example`, `*.example`, addresses.
    pub(crate) names: Vec<Arc<str>>,
    /// Who has signed it.
    pub(crate) issuer: Arc<str>,
    pub(crate) not_before: UnixSeconds,
    pub(crate) not_after: UnixSeconds,
    /// `ECDSA P-256`, `RSA 2048`.
    pub(crate) key: Arc<str>,
    pub(crate) serial: String,
}

impl Facts {
    /// Whole days until it ends; negative when it has ended.
    pub(crate) fn days_left(&self, now: UnixSeconds) -> i64 {
        let days = |seconds: u64| i64::try_from(seconds / DAY_SECONDS).unwrap_or(i64::MAX);
        match self.not_after.0.checked_sub(now.0) {
            Some(left) => days(left),
            None => -days(now.0 - self.not_after.0) - 1,
        }
    }

    /// The day it ends: `2027-02-28`.
    pub(crate) fn last_day(&self) -> String {
        day(self.not_after)
    }

    /// How many days it was made for.
    pub(crate) fn lifetime_days(&self) -> i64 {
        let days = self.not_after.0.saturating_sub(self.not_before.0) / DAY_SECONDS;
        i64::try_from(days).unwrap_or(i64::MAX)
    }

    /// Whether it is valid at this moment.
    pub(crate) fn is_current(&self, now: UnixSeconds) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// What a person should look at in its times.
    pub(crate) fn about_times(&self, now: UnixSeconds) -> Option<Finding> {
        let left = self.days_left(now);
        if self.not_after < now {
            return Some(
                Finding::new(format!("has expired on {}", self.last_day()))
                    .help("clients refuse it: renew it"),
            );
        }
        if self.not_before > now {
            return Some(
                Finding::new(format!("is not valid before {}", day(self.not_before)))
                    .help("clients refuse it until then; is the clock of this machine right?"),
            );
        }
        // A short one is renewed when a third of its time is left.
        let soon = SOON_DAYS.min(self.lifetime_days() / 3);
        (left < soon).then(|| {
            Finding::new(format!("expires in {}, on {}", days_in_words(left), self.last_day()))
                .help("renew it")
        })
    }
}

/// `1 day`, `12 days`.
pub(crate) fn days_in_words(days: i64) -> String {
    if days == 1 { "1 day".to_owned() } else { format!("{days} days") }
}

fn day(at: UnixSeconds) -> String {
    let (year, month, day) = calendar::civil(at.0 / DAY_SECONDS);
    format!("{year:04}-{month:02}-{day:02}")
}

/// A parsed certificate.
pub(super) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Finding> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(Finding::new("has a section that is not a certificate")),
    }
}

/// What is known of any bytes, if they are a certificate.
#[cfg(any(test, feature = "bench"))]
pub(crate) fn describe(der: &[u8]) -> Option<Facts> {
    Some(of(&parse(der).ok()?).0)
}

/// What is known of a certificate, and what should be looked at in it besides its times.
pub(super) fn of(certificate: &X509Certificate<'_>) -> (Facts, Vec<Finding>) {
    let mut findings = Vec::new();
    let names = names(certificate, &mut findings);
    weaknesses(certificate, &mut findings);
    let seconds = |time: i64| UnixSeconds(u64::try_from(time).unwrap_or(0));
    let validity = certificate.validity();
    let facts = Facts {
        names,
        issuer: Arc::from(title(certificate.issuer())),
        not_before: seconds(validity.not_before.timestamp()),
        not_after: seconds(validity.not_after.timestamp()),
        key: Arc::from(kind_of_key(certificate)),
        serial: certificate.tbs_certificate.raw_serial_as_string(),
    };
    (facts, findings)
}

/// How people call a subject: its common name, else all of it.
pub(super) fn title(name: &X509Name<'_>) -> String {
    let common = name.iter_common_name().next().and_then(|name| name.as_str().ok());
    common.map_or_else(|| name.to_string(), ToOwned::to_owned)
}

fn names(certificate: &X509Certificate<'_>, findings: &mut Vec<Finding>) -> Vec<Arc<str>> {
    let mut names: Vec<Arc<str>> = Vec::new();
    if let Ok(Some(extension)) = certificate.subject_alternative_name() {
        for name in &extension.value.general_names {
            match name {
                GeneralName::DNSName(name) => names.push(Arc::from(name.to_ascii_lowercase())),
                GeneralName::IPAddress(bytes) => names.extend(address(bytes).map(Arc::from)),
                _ => {}
            }
        }
    }
    if names.is_empty() {
        let common = title(certificate.subject()).to_ascii_lowercase();
        findings.push(
            Finding::new("has no name in subjectAltName")
                .help(format!("clients ignore its common name, \"{common}\": have it made anew")),
        );
        names.push(Arc::from(common));
    }
    names
}

/// The address in four or sixteen bytes.
fn address(bytes: &[u8]) -> Option<String> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Some(std::net::Ipv4Addr::from(bytes).to_string());
    }
    let bytes = <[u8; 16]>::try_from(bytes).ok()?;
    Some(std::net::Ipv6Addr::from(bytes).to_string())
}

/// What clients refuse.
fn weaknesses(certificate: &X509Certificate<'_>, findings: &mut Vec<Finding>) {
    let signed_by = certificate.signature_algorithm.algorithm.to_id_string();
    let weak = match signed_by.as_str() {
        "1.2.840.113549.1.1.4" => Some("MD5"),
        "1.2.840.113549.1.1.5" | "1.2.840.10045.4.1" => Some("SHA-1"),
        _ => None,
    };
    if let Some(weak) = weak {
        findings.push(
            Finding::new(format!("is signed with {weak}")).help("clients refuse it: renew it"),
        );
    }
    if let Ok(Some(usage)) = certificate.extended_key_usage()
        && !usage.value.any
        && !usage.value.server_auth
    {
        findings.push(
            Finding::new("is not made for servers")
                .help("clients refuse it: its extended key usage lacks serverAuth"),
        );
    }
}

fn kind_of_key(certificate: &X509Certificate<'_>) -> String {
    let info = certificate.public_key();
    match info.parsed() {
        Ok(PublicKey::RSA(key)) => format!("RSA {}", key.key_size()),
        Ok(PublicKey::EC(_)) => {
            let curve = info.algorithm.parameters.as_ref().and_then(|any| any.as_oid().ok());
            format!("ECDSA {}", curve.map_or_else(|| "?".to_owned(), |oid| curve_name(&oid)))
        }
        _ if info.algorithm.algorithm.to_id_string() == "1.3.101.112" => "Ed25519".to_owned(),
        _ => info.algorithm.algorithm.to_id_string(),
    }
}

fn curve_name(oid: &Oid<'_>) -> String {
    match oid.to_id_string().as_str() {
        "1.2.840.10045.3.1.7" => "P-256".to_owned(),
        "1.3.132.0.34" => "P-384".to_owned(),
        "1.3.132.0.35" => "P-521".to_owned(),
        other => other.to_owned(),
    }
}
