//! Why a handshake failed, in words for the people who run the other side of it.
//!
//! The sentences are a closed set, so that equal failures can be counted and said once; what
//! differs between two of them is beside the sentence.

use std::fmt;

use rustls::{CertificateError, Error, PeerIncompatible};

use super::alert::Alert;

/// Why a handshake failed.
#[derive(Debug)]
pub(crate) enum Failed {
    /// The peer broke it off by this alert.
    Told(Alert),
    /// The peer asked for this name, which is refused.
    UnknownName(Box<str>),
    /// As rustls says.
    Because(Error),
}

/// What is said of the handshake of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Why {
    pub(crate) sentence: &'static str,
    pub(crate) detail: Option<Box<str>>,
}

impl Why {
    /// A sentence that says it all.
    pub(crate) fn plain(sentence: &'static str) -> Why {
        Why { sentence, detail: None }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence)?;
        match &self.detail {
            Some(detail) => write!(f, " ({detail})"),
            None => Ok(()),
        }
    }
}

impl Failed {
    /// What an operator should know of the failed handshake of a client.
    pub(crate) fn of_client(&self) -> Why {
        match self {
            Failed::Told(alert) => {
                let detail = (*alert != Alert::CLOSE_NOTIFY).then(|| alert.to_string().into());
                Why { sentence: told(*alert), detail }
            }
            Failed::UnknownName(name) => Why {
                sentence: "no certificate is for the name that the client asks for",
                detail: Some(name.clone()),
            },
            Failed::Because(error) => because(error),
        }
    }
}

fn told(alert: Alert) -> &'static str {
    match alert.0 {
        0 | 90 => "the client left in the middle of it",
        48 => "the client does not know the authority of our certificate",
        42..=46 => "the client does not accept our certificate",
        40 | 47 | 70 | 71 => "the client and this listener agree on no version, suite or key",
        _ => "the client broke it off",
    }
}

#[rustfmt::skip] // a table
fn because(error: &Error) -> Why {
    let sentence = match error {
        Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerSentOversizedRecord => "the client sends what is no TLS handshake",
        Error::PeerIncompatible(why) => incompatible(why),
        Error::NoApplicationProtocol => "the client speaks no protocol that is offered here (ALPN)",
        Error::NoCertificatesPresented => "the client has no certificate, and `client-auth` requires one",
        Error::InvalidCertificate(why) => certificate(why),
        Error::DecryptError => "the client's records cannot be opened",
        // What rustls says where the chooser had none.
        Error::General(what) if what.contains("no server certificate") => {
            "no certificate of this listener is of a kind that the client can verify"
        }
        error => {
            let detail = Some(error.to_string().into());
            return Why { sentence: "the client breaks the rules of TLS", detail };
        }
    };
    Why::plain(sentence)
}

#[rustfmt::skip] // a table
fn incompatible(why: &PeerIncompatible) -> &'static str {
    match why {
        // The extension is in every hello from TLS 1.2 on.
        PeerIncompatible::SignatureAlgorithmsExtensionRequired
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::SupportedVersionsExtensionRequired => {
            "the client speaks no version of TLS that is allowed here (`min-version`)"
        }
        PeerIncompatible::NoCipherSuitesInCommon => "the client offers no cipher suite that is safe",
        PeerIncompatible::NoKxGroupsInCommon
        | PeerIncompatible::NamedGroupsExtensionRequired
        | PeerIncompatible::KeyShareExtensionRequired
        | PeerIncompatible::NoEcPointFormatsInCommon
        | PeerIncompatible::EcPointsExtensionRequired => "the client offers no key exchange that is safe",
        PeerIncompatible::NoSignatureSchemesInCommon
        | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon => {
            "no certificate of this listener is of a kind that the client can verify"
        }
        _ => "the client and this listener agree on no version, suite or key",
    }
}

#[rustfmt::skip] // a table
fn certificate(why: &CertificateError) -> &'static str {
    match why {
        CertificateError::UnknownIssuer => "the client's certificate is signed by no authority of `ca`",
        // As where an authority was made anew under the same name.
        CertificateError::BadSignature => {
            "the client's certificate has another signature than that of the authority it names"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the client's certificate has expired"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the client's certificate is not valid yet"
        }
        CertificateError::Revoked => "the client's certificate was revoked",
        CertificateError::UnknownRevocationStatus => {
            "no list of `crl` is of the authority of the client's certificate"
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the client's certificate is not for clients"
        }
        _ => "the client's certificate cannot be used",
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Failed {
        match error {
            Error::AlertReceived(alert) => Failed::Told(Alert(u8::from(alert))),
            error => Failed::Because(error),
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failed::Told(alert) => write!(f, "the peer ended it: {alert}"),
            Failed::UnknownName(name) => write!(f, "no certificate for {name}"),
            Failed::Because(error) => error.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each sentence stands in this file and in `server/secure.rs` in quotes, and begins so.
    #[test]
    fn the_page_of_operators_has_every_sentence() {
        let page = include_str!("../../../docs/tls.md");
        let sources = [include_str!("failed.rs"), include_str!("../../server/secure.rs")];
        let mut count = 0;
        for source in sources {
            let (source, _) = source.split_once("mod tests").unwrap_or((source, ""));
            let quoted = source.lines().filter(|line| !line.trim_start().starts_with("//"));
            for sentence in quoted.flat_map(|line| line.split('"').skip(1).step_by(2)) {
                let is_one = ["the client", "no certificate is", "no certificate of", "no list "];
                if is_one.iter().any(|start| sentence.starts_with(start)) {
                    assert!(page.contains(&format!("| {sentence} |")), "{sentence}");
                    count += 1;
                }
            }
        }
        assert!(count > 20, "{count}");
    }

    #[test]
    fn what_differs_stands_behind_a_sentence_that_does_not() {
        for (failed, expected) in [
            (
                Failed::Told(Alert(48)),
                "the client does not know the authority of our certificate (unknown_ca)",
            ),
            (Failed::Told(Alert(0)), "the client left in the middle of it"),
            (Failed::Told(Alert(200)), "the client broke it off (alert 200)"),
            (
                Failed::UnknownName("b.example".into()),
                "no certificate is for the name that the client asks for (b.example)",
            ),
            (
                Failed::Because(Error::PeerIncompatible(
                    PeerIncompatible::Tls12NotOfferedOrEnabled,
                )),
                "the client speaks no version of TLS that is allowed here (`min-version`)",
            ),
            (
                Failed::Because(Error::InvalidCertificate(CertificateError::Revoked)),
                "the client's certificate was revoked",
            ),
            (
                Failed::Because(Error::BadMaxFragmentSize),
                "the client breaks the rules of TLS (the supplied max_fragment_size was too small \
                 or large)",
            ),
        ] {
            assert_eq!(failed.of_client().to_string(), expected);
        }
    }
}
