//! The order of a chain: the certificate of the key first, then each issuer of the one before
//! (RFC 8446 §4.4.2). Files are often made in another order, which some clients refuse.

use rustls::pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, x509::SubjectPublicKeyInfo};

use super::{Finding, facts};

/// A chain in the order of the handshake.
pub(super) struct Chain {
    pub(super) certificates: Vec<CertificateDer<'static>>,
    /// What was mended.
    pub(super) findings: Vec<Finding>,
}

/// Orders the certificates of a file; the first becomes that of the key whose public half is
/// `public`.
///
/// # Errors
/// If the key fits none of them.
pub(super) fn order(
    certificates: Vec<CertificateDer<'static>>,
    public: &SubjectPublicKeyInfo<'_>,
) -> Result<Chain, Finding> {
    let parsed: Vec<X509Certificate<'_>> =
        certificates.iter().map(|der| facts::parse(der)).collect::<Result<_, _>>()?;
    let is_own = |it: &X509Certificate<'_>| {
        let theirs = it.public_key();
        theirs.subject_public_key.data == public.subject_public_key.data
            && theirs.algorithm.algorithm == public.algorithm.algorithm
    };
    let Some(own) = parsed.iter().position(is_own) else {
        let of = parsed.first().map(|it| facts::title(it.subject())).unwrap_or_default();
        return Err(Finding::new(format!("does not fit the certificate (of \"{of}\")"))
            .help("certificate and key must have been made for each other"));
    };
    let mut order = vec![own];
    while let Some(last) = order.last().and_then(|at| parsed.get(*at)) {
        if last.issuer().as_raw() == last.subject().as_raw() {
            break;
        }
        let is_issuer = |(at, it): &(usize, &X509Certificate<'_>)| {
            !order.contains(at) && it.subject().as_raw() == last.issuer().as_raw()
        };
        match parsed.iter().enumerate().find(is_issuer) {
            Some((next, _)) => order.push(next),
            None => break,
        }
    }
    let mut findings = Vec::new();
    if !order.is_sorted() || own != 0 {
        findings.push(
            Finding::new("has its certificates out of order")
                .help("they are sent in the right one; in the file the server's comes first"),
        );
    }
    let spare = (0..parsed.len()).filter(|at| !order.contains(at)).count();
    if spare > 0 {
        let what =
            if spare == 1 { "1 certificate".to_owned() } else { format!("{spare} certificates") };
        findings.push(
            Finding::new(format!("has {what} outside the chain of its own"))
                .help("they are not sent; is one in between missing?"),
        );
    }
    drop(parsed);
    let mut slots: Vec<Option<CertificateDer<'static>>> =
        certificates.into_iter().map(Some).collect();
    let taken = order.iter().filter_map(|at| slots.get_mut(*at)?.take());
    Ok(Chain { certificates: taken.collect(), findings })
}
