//! `tls` of a listener and of a pool: which files, which versions, who must show a certificate.
//!
//! Whether the files can be read is checked here; what is in them, by `certs`.

use std::path::PathBuf;

use super::{Check, address::is_host_name, both, section};
use crate::config::{
    file,
    problem::Problem,
    source::Position,
    written::{Tables, Written},
};
use crate::plan::{
    CertificateFiles, ClientAuth, ClientAuthMode, Listener, ListenerTls, PoolTls, TlsVersion,
    UnknownName,
};

pub(crate) const TLS_VERSIONS: &[(&str, TlsVersion)] =
    &[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];

pub(crate) const UNKNOWN_NAMES: &[(&str, UnknownName)] =
    &[("default", UnknownName::Default), ("refuse", UnknownName::Refuse)];

pub(crate) const CLIENT_AUTH_MODES: &[(&str, ClientAuthMode)] =
    &[("required", ClientAuthMode::Required), ("optional", ClientAuthMode::Optional)];

impl Check<'_> {
    /// TLS in front of a listener, if the key is present.
    pub(super) fn listener_tls(
        &mut self,
        listener: &str,
        key: Option<&Written<file::ListenerTls>>,
    ) -> Option<ListenerTls> {
        let key = key?;
        let written = key.value.as_ref()?;
        let mut tls = ListenerTls::default();
        if written.certificates.0.is_empty() && written.directory.is_none() && !key.holes {
            self.note(
                Problem::error(format!("TLS of listener \"{listener}\" without a certificate"))
                    .at(key.place, "has neither `certificates` nor `directory`")
                    .help("add for example: certificates = [{ cert = \"a.pem\", key = \"a.key\" }]")
                    .help("for a trial: ringway proxy --tls-self-signed"),
            );
        }
        for item in &written.certificates.0 {
            tls.certificates.extend(self.certificate(item));
        }
        if let Some((place, path)) = both(written.directory.as_ref()) {
            if let Err(why) = self.lookup.folder(path) {
                let title = format!("`directory` cannot be read: {why}");
                self.note(Problem::error(title).at(place, "must exist before the start"));
            }
            tls.directory = Some(PathBuf::from(path));
        }
        let versions = written.min_version.as_ref();
        self.word("version of TLS", versions, TLS_VERSIONS, &mut tls.version_min);
        tls.client_auth = self.client_auth(written.client_auth.as_ref());
        let unknown = written.unknown_name.as_ref();
        self.word("answer", unknown, UNKNOWN_NAMES, &mut tls.unknown_name);
        tls.ticket_secret_file =
            self.secret_named("ticket-secret-file", written.ticket_secret_file.as_ref());
        Some(tls)
    }

    fn certificate(&mut self, key: &Written<file::Certificate>) -> Option<CertificateFiles> {
        let written = key.value.as_ref()?;
        if written.cert.is_none() && !key.holes {
            self.note(
                Problem::error("certificate without a file")
                    .at(key.place, "has no `cert`")
                    .help("write for example: { cert = \"a.pem\", key = \"a.key\" }"),
            );
        }
        let cert = self.file_named("cert", written.cert.as_ref());
        let key = self.file_named("key", written.key.as_ref());
        let ocsp = self.file_named("ocsp", written.ocsp.as_ref());
        let cert = cert?;
        Some(CertificateFiles { key: key.unwrap_or_else(|| cert.clone()), cert, ocsp })
    }

    fn client_auth(&mut self, key: Option<&Written<file::ClientAuth>>) -> Option<ClientAuth> {
        let key = key?;
        let written = key.value.as_ref()?;
        if written.ca.is_none() && !key.holes {
            self.note(
                Problem::error("`client-auth` without an authority")
                    .at(key.place, "has no `ca`")
                    .help("add the file with the certificates that may sign: ca = \"ca.pem\""),
            );
        }
        let mut mode = ClientAuthMode::default();
        self.word("mode", written.mode.as_ref(), CLIENT_AUTH_MODES, &mut mode);
        let ca = self.file_named("ca", written.ca.as_ref());
        let crl = self.file_named("crl", written.crl.as_ref());
        Some(ClientAuth { ca: ca?, mode, crl })
    }

    /// TLS to the backends of a pool, if the key is present.
    pub(super) fn pool_tls(
        &mut self,
        pool: &str,
        key: Option<&Written<file::PoolTls>>,
    ) -> Option<PoolTls> {
        let written = key?.value.as_ref()?;
        let mut tls = PoolTls::default();
        if let Some((place, name)) = both(written.server_name.as_ref()) {
            if is_host_name(name) || name.parse::<std::net::IpAddr>().is_ok() {
                tls.server_name = Some(name.clone());
            } else {
                self.note(
                    Problem::error(format!("`{name}` is not the name of a server"))
                        .at(place, "expected a host name or an IP address, without a port"),
                );
            }
        }
        tls.ca = self.file_named("ca", written.ca.as_ref());
        let cert = self.file_named("cert", written.cert.as_ref());
        let key = self.file_named("key", written.key.as_ref());
        if let (None, Some((place, _))) = (&written.cert, both(written.key.as_ref())) {
            self.note(
                Problem::error("key without a certificate")
                    .at(place, "no `cert` beside it")
                    .help("add the certificate that is shown to backends: cert = \"me.pem\""),
            );
        }
        tls.identity = cert.map(|cert| CertificateFiles {
            key: key.unwrap_or_else(|| cert.clone()),
            cert,
            ocsp: None,
        });
        if let Some((place, false)) = both(written.verify.as_ref()).map(|(at, is)| (at, *is)) {
            tls.verify = false;
            self.unverified(pool, place, written);
        }
        Some(tls)
    }

    /// Warns at every start: whoever is in between can read and change everything.
    fn unverified(&mut self, pool: &str, place: Position, written: &file::PoolTls) {
        self.note(
            Problem::warning(format!("certificates of pool \"{pool}\" are not verified"))
                .at(place, "any server in between can read and change what is sent")
                .help("name the authority that signed them: ca = \"ca.pem\""),
        );
        if let Some((place, _)) = both(written.ca.as_ref()) {
            self.note(
                Problem::warning("`ca` has no effect")
                    .at(place, "nothing is verified, as `verify` is false"),
            );
        }
    }

    /// Warns where backends would be told of certificates that no client is asked for.
    pub(super) fn client_certs(&mut self, written: &Tables<file::Pool>, listeners: &[Listener]) {
        let asks = |listener: &Listener| {
            listener.tls.as_ref().is_some_and(|tls| tls.client_auth.is_some())
        };
        if listeners.iter().any(asks) {
            return;
        }
        for (_, pool) in &written.0 {
            let key = section(Some(pool)).and_then(|pool| both(pool.client_cert.as_ref()));
            if let Some((place, true)) = key.map(|(at, is)| (at, *is)) {
                self.note(
                    Problem::warning("`client-cert` has no effect")
                        .at(place, "no listener asks clients for a certificate")
                        .help("add to the `tls` of a listener: client-auth = { ca = \"ca.pem\" }"),
                );
            }
        }
    }

    /// The path of a file that must exist, if the key is present.
    fn file_named(&mut self, what: &str, key: Option<&Written<String>>) -> Option<PathBuf> {
        let (place, path) = both(key)?;
        if let Err(why) = self.lookup.readable(path) {
            let title = format!("`{what}` cannot be read: {why}");
            self.note(Problem::error(title).at(place, "must exist before the start"));
        }
        Some(PathBuf::from(path))
    }

    /// The path of a file with a secret, whose name is never shown: by mistake it may be the secret
    /// itself.
    fn secret_named(&mut self, what: &str, key: Option<&Written<String>>) -> Option<PathBuf> {
        let (place, path) = both(key)?;
        if let Err(why) = self.lookup.readable(path) {
            self.note(
                Problem::error(format!("`{what}` cannot be read: {why}"))
                    .at(place, "must exist before the start")
                    .help(
                        "make one: (umask 077; openssl rand -base64 48 > tickets.key); or leave it \
                         out: a secret is then generated",
                    ),
            );
        }
        Some(PathBuf::from(path))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{self, foreign};
    use crate::plan::{ListenerId, PoolId};

    /// A file that can be read, whatever is in it.
    const THERE: &str = "Cargo.toml";

    fn text(listener: &str, pool: &str) -> String {
        let text = format!(
            "[listener.web]\nbind = \"127.0.0.1:0\"\npool = \"app\"\n{listener}\n\
             [pool.app]\nbackends = [\"127.0.0.1:9\"]\n{pool}\n"
        );
        text.replace("THERE", THERE)
    }

    /// The titles of what is wrong, and of the warnings where nothing is.
    fn titles(listener: &str, pool: &str) -> Vec<String> {
        foreign::OPEN.set(true);
        let problems = match config::parse("tls.toml", &text(listener, pool)) {
            Ok(loaded) => loaded.warnings,
            Err(problems) => problems,
        };
        problems.iter().map(|problem| problem.title().to_owned()).collect()
    }

    #[test]
    fn every_key_has_its_place_in_the_plan_and_is_printed_as_it_is_read() {
        foreign::OPEN.set(true);
        let text = text(
            "tls = { certificates = [{ cert = \"THERE\", key = \"README.md\", ocsp = \"THERE\" }, \
             { cert = \"THERE\" }], directory = \"src\", min-version = \"1.3\", \
             client-auth = { ca = \"THERE\", mode = \"optional\", crl = \"THERE\" }, \
             unknown-name = \"refuse\", ticket-secret-file = \"THERE\" }",
            "client-cert = true\ntls = { server-name = \"api.internal\", ca = \"THERE\", \
             cert = \"THERE\", key = \"README.md\", verify = true }",
        );
        let loaded = config::parse("tls.toml", &text).unwrap();
        let there = || PathBuf::from(THERE);
        let tls = ListenerTls {
            certificates: vec![
                CertificateFiles {
                    cert: there(),
                    key: PathBuf::from("README.md"),
                    ocsp: Some(there()),
                },
                CertificateFiles::new(there(), there()),
            ],
            directory: Some(PathBuf::from("src")),
            version_min: TlsVersion::Tls13,
            client_auth: Some(ClientAuth {
                ca: there(),
                mode: ClientAuthMode::Optional,
                crl: Some(there()),
            }),
            unknown_name: UnknownName::Refuse,
            ticket_secret_file: Some(there()),
        };
        assert_eq!(loaded.plan.listener(ListenerId(0)).tls, Some(tls));
        let pool = loaded.plan.pool(PoolId(0));
        assert!(pool.client_cert);
        let backends = pool.tls.as_ref().unwrap();
        assert_eq!(backends.server_name.as_deref(), Some("api.internal"));
        assert_eq!(backends.ca.as_deref(), Some(Path::new(THERE)));
        assert!(backends.verify);
        let printed = loaded.effective();
        let again = config::parse("printed.toml", &printed);
        let again = again.unwrap_or_else(|wrong| panic!("{wrong}\n{printed}"));
        assert_eq!(again.plan.listener(ListenerId(0)), loaded.plan.listener(ListenerId(0)));
        assert_eq!(again.plan.pool(PoolId(0)), pool);
    }

    #[test]
    fn a_listener_is_told_what_its_tls_lacks() {
        for (tls, expected) in [
            ("{}", "TLS of listener \"web\" without a certificate"),
            ("{ certificates = [{}] }", "certificate without a file"),
            ("{ certificates = [{ cert = \"no.pem\" }] }", "`cert` cannot be read: there is no"),
            ("{ directory = \"no.d\" }", "`directory` cannot be read: there is no such file"),
            ("{ directory = \"src\", min-version = \"1.1\" }", "unknown version of TLS \"1.1\""),
            ("{ directory = \"src\", unknown-name = \"drop\" }", "unknown answer \"drop\""),
            ("{ directory = \"src\", client-auth = {} }", "`client-auth` without an authority"),
            (
                "{ directory = \"src\", client-auth = { ca = \"THERE\", mode = \"off\" } }",
                "unknown mode \"off\"",
            ),
            (
                "{ directory = \"src\", ticket-secret-file = \"no.key\" }",
                "`ticket-secret-file` cannot be read: there is no such file",
            ),
            (
                "{ directory = \"src\", cert = \"a.pem\" }",
                "unknown key `cert` in `tls` of listener",
            ),
        ] {
            let titles = titles(&format!("tls = {tls}"), "");
            let [only] = titles.as_slice() else { panic!("{tls}: {titles:?}") };
            assert!(only.starts_with(expected), "{tls}: {only}");
        }
    }

    #[test]
    fn a_pool_is_told_what_its_tls_lacks_and_what_does_not_protect() {
        for (keys, expected) in [
            ("tls = {}", &[][..]),
            ("tls = { server-name = \"a:443\" }", &["`a:443` is not the name of a server"]),
            ("tls = { key = \"THERE\" }", &["key without a certificate"]),
            ("tls = { ca = \"no.pem\" }", &["`ca` cannot be read: there is no such file"]),
            ("tls = { verify = false }", &["certificates of pool \"app\" are not verified"]),
            (
                "tls = { verify = false, ca = \"THERE\" }",
                &["certificates of pool \"app\" are not verified", "`ca` has no effect"],
            ),
            ("client-cert = true", &["`client-cert` has no effect"]),
            ("client-cert = false", &[]),
        ] {
            assert_eq!(titles("", keys), expected, "{keys}");
        }
    }

    #[test]
    fn keys_are_refused_until_their_capability_is_there() {
        for (listener, pool) in
            [("tls = { directory = \"src\" }", ""), ("", "tls = {}"), ("", "client-cert = true")]
        {
            let wrong = config::parse("tls.toml", &text(listener, pool)).unwrap_err().to_string();
            assert!(wrong.contains("is not built yet: it comes with TLS"), "{wrong}");
        }
    }
}
