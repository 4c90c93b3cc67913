//! What is in the files that `tls` names: certificates that can be used, keys that fit them, dates.
//!
//! The files are read as the running process reads them, by `certs`; this says where in the
//! configuration they are named. What is only doubtful is a warning: a process that serves a
//! hundred names starts even if one of their certificates has expired.

use std::{path::Path, sync::Arc};

use super::Check;
use crate::certs::{self, Finding, Pair, Part, TrustPart};
use crate::config::{problem::Problem, source::Position};
use crate::plan::{CertificateFiles, ClientAuth, ClientAuthMode, ListenerTls, PoolTls};

/// An error or a warning, by its title.
type Kind = fn(String) -> Problem;

/// Where the files of a certificate are named.
#[derive(Clone, Copy)]
pub(super) struct Named {
    pub(super) cert: Position,
    /// Also where no key is named, since it is in the file of the certificate then.
    pub(super) key: Position,
    pub(super) ocsp: Position,
}

/// A certificate that was read.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) files: CertificateFiles,
    pub(crate) facts: Arc<certs::Facts>,
}

impl Check<'_> {
    /// Reads a certificate and its key.
    pub(super) fn pair(&mut self, named: Named, files: &CertificateFiles) {
        match certs::read(self.lookup, &files.cert, &files.key, files.ocsp.as_deref()) {
            Ok(pair) => self.found(named, files, &pair),
            Err((part, finding)) => {
                self.note(said(Problem::error, part, files, &finding).at(
                    match part {
                        Part::Cert => named.cert,
                        Part::Key => named.key,
                        Part::Ocsp => named.ocsp,
                    },
                    "this file cannot be used",
                ));
            }
        }
    }

    fn found(&mut self, named: Named, files: &CertificateFiles, pair: &Pair) {
        for (part, finding) in pair.findings(self.lookup.now()) {
            let at = if part == Part::Cert { named.cert } else { named.key };
            let problem = said(Problem::warning, part, files, &finding);
            self.note(problem.at(at, "the certificate in this file"));
        }
        let facts = Arc::clone(&pair.facts);
        self.certificates.push(Found { files: files.clone(), facts });
    }

    /// Reads the certificates of a folder.
    pub(super) fn folder(&mut self, at: Position, folder: &Path, tls: &ListenerTls) {
        let pairs = match certs::pairs_in(self.lookup, folder) {
            Ok(pairs) => pairs,
            Err(why) => {
                let title = format!("`directory` cannot be read: {why}");
                self.note(Problem::error(title).at(at, "must exist before the start"));
                return;
            }
        };
        if pairs.is_empty() {
            let kind = if tls.certificates.is_empty() { Problem::error } else { Problem::warning };
            self.note(
                kind(format!("{} has no certificates", folder.display()))
                    .at(at, "no NAME.pem and no NAME.crt in it")
                    .help(
                        "put the certificate in NAME.crt, its key in NAME.key; or both in NAME.pem",
                    ),
            );
        }
        let named = Named { cert: at, key: at, ocsp: at };
        for (cert, key, ocsp) in pairs {
            let mut files = CertificateFiles::new(cert, key);
            files.ocsp = ocsp;
            self.pair(named, &files);
        }
    }

    /// Reads the authorities for clients, and what they have revoked.
    pub(super) fn client_trust(&mut self, (ca, crl): (Position, Position), auth: &ClientAuth) {
        let (Ok(ca_bytes), Ok(crl_bytes)) = (
            self.lookup.bytes(&auth.ca),
            auth.crl.as_ref().map(|crl| self.lookup.bytes(crl)).transpose(),
        ) else {
            return;
        };
        let is_required = auth.mode == ClientAuthMode::Required;
        let now = self.lookup.now();
        let crl_bytes = crl_bytes.as_deref();
        let trusted = certs::clients(&ca_bytes, crl_bytes, (is_required, auth.depth), now);
        let path = |part| match part {
            TrustPart::Ca => (ca, auth.ca.as_path()),
            TrustPart::Crl => (crl, auth.crl.as_deref().unwrap_or(&auth.ca)),
        };
        self.trust(trusted.map(|(_, findings)| findings), path);
    }

    /// Reads the authorities for backends.
    pub(super) fn backend_trust(&mut self, at: Position, tls: &PoolTls) {
        let Some(ca) = &tls.ca else { return };
        let Ok(bytes) = self.lookup.bytes(ca) else { return };
        let trusted = certs::servers(Some(&bytes), &[], self.lookup.now());
        self.trust(trusted.map(|(_, findings)| findings), |_| (at, ca.as_path()));
    }

    fn trust<'p>(
        &mut self,
        trusted: Result<Vec<(TrustPart, Finding)>, (TrustPart, Finding)>,
        named: impl Fn(TrustPart) -> (Position, &'p Path),
    ) {
        let (kind, label, findings): (Kind, _, _) = match trusted {
            Ok(findings) => (Problem::warning, "in this file", findings),
            Err(finding) => (Problem::error, "this file cannot be used", vec![finding]),
        };
        for (part, finding) in findings {
            let (at, path) = named(part);
            let title = format!("{} {}", path.display(), finding.what);
            self.note(kind(title).at(at, label).help_if(finding.help));
        }
    }
}

/// `a.key has no private key`, and what to do about it.
fn said(kind: Kind, part: Part, files: &CertificateFiles, finding: &Finding) -> Problem {
    let path = match part {
        Part::Cert => &files.cert,
        Part::Key => &files.key,
        Part::Ocsp => files.ocsp.as_ref().unwrap_or(&files.cert),
    };
    kind(format!("{} {}", path.display(), finding.what)).help_if(finding.help.clone())
}
