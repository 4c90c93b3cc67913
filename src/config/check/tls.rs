//! `tls` of a listener and of a pool: which files, which versions, who must show a certificate.
//!
//! Whether the files can be read is checked here; what is in them, by `certs`.

use std::path::PathBuf;

use super::{Check, address::is_host_name, both, certificates::Named, section};
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
            self.folder(place, path.as_ref(), &tls);
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
        let ocsp = written.ocsp.as_ref();
        self.identity(written.cert.as_ref(), written.key.as_ref(), ocsp)
    }

    /// A certificate with its key, if they are named.
    fn identity(
        &mut self,
        cert: Option<&Written<String>>,
        key: Option<&Written<String>>,
        ocsp: Option<&Written<String>>,
    ) -> Option<CertificateFiles> {
        let before = self.problems.len();
        let at = cert?.place;
        let place = |key: Option<&Written<String>>| key.map_or(at, |key| key.place);
        let named = Named { cert: at, key: place(key), ocsp: place(ocsp) };
        let cert = self.file_named("cert", cert);
        let key = self.file_named("key", key);
        let ocsp = self.file_named("ocsp", ocsp);
        let cert = cert?;
        let files = CertificateFiles { key: key.unwrap_or_else(|| cert.clone()), cert, ocsp };
        if self.problems.len() == before {
            self.pair(named, &files);
        }
        Some(files)
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
        let mut depth = ClientAuth::DEPTH_MAX;
        self.whole_number(written.depth.as_ref(), 0..=i64::from(depth), &mut depth);
        let auth = ClientAuth { ca: ca?, mode, crl, depth };
        let place = |key: Option<&Written<String>>| key.map(|key| key.place).unwrap_or_default();
        self.client_trust((place(written.ca.as_ref()), place(written.crl.as_ref())), &auth);
        Some(auth)
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
        if let Some(ca) = &written.ca {
            self.backend_trust(ca.place, &tls);
        }
        tls.identity = self.identity(written.cert.as_ref(), written.key.as_ref(), None);
        if let (None, Some((place, _))) = (&written.cert, both(written.key.as_ref())) {
            self.note(
                Problem::error("key without a certificate")
                    .at(place, "no `cert` beside it")
                    .help("add the certificate that is shown to backends: cert = \"me.pem\""),
            );
        }
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
    use std::{
        fs,
        path::Path,
        sync::atomic::{AtomicU32, Ordering},
    };

    use super::*;
    use crate::certs::sample::{Authority, Kind, own};
    use crate::config::{self, Loaded, foreign};
    use crate::plan::{ListenerId, PoolId};

    /// A folder with a few certificates, which goes with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Folder {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let path = std::env::temp_dir().join(format!("ringway-tls-{process}-{count}"));
            fs::create_dir_all(path.join("certs.d")).unwrap();
            let folder = Folder(path);
            let a = own(&["a.example"], Kind::Ecdsa, 2100);
            folder.write("a.pem", &a.cert);
            folder.write("a.key", &a.key);
            let b = own(&["b.example"], Kind::Ecdsa, 2100);
            folder.write("b.pem", &format!("{}{}", b.cert, b.key));
            folder.write("certs.d/b.pem", &format!("{}{}", b.cert, b.key));
            let old = own(&["old.example"], Kind::Ecdsa, 2021);
            folder.write("old.pem", &format!("{}{}", old.cert, old.key));
            let ca = Authority::root("root");
            folder.write("ca.pem", &ca.pem());
            folder.write("crl.pem", &ca.revokes(1, 2100));
            fs::write(folder.0.join("a.ocsp"), [0x30, 0x03, 0x0a, 0x01, 0x00]).unwrap();
            folder
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.0.join(name), text).unwrap();
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }

        /// A configuration with these keys, in which `~` is the folder.
        fn load(&self, listener: &str, pool: &str) -> Result<Loaded, config::Problems> {
            let text = format!(
                "[listener.web]\nbind = \"127.0.0.1:0\"\npool = \"app\"\n{listener}\n\
                 [pool.app]\nbackends = [\"127.0.0.1:9\"]\n{pool}\n"
            );
            config::parse("tls.toml", &text.replace('~', &self.0.to_string_lossy()))
        }

        /// The titles of what is wrong, and of the warnings where nothing is.
        fn titles(&self, listener: &str, pool: &str) -> Vec<String> {
            foreign::OPEN.set(true);
            let problems = match self.load(listener, pool) {
                Ok(loaded) => loaded.warnings,
                Err(problems) => problems,
            };
            let short = |title: &str| title.replace(&*self.0.to_string_lossy(), "~");
            problems.iter().map(|problem| short(problem.title())).collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn every_key_has_its_place_in_the_plan_and_is_printed_as_it_is_read() {
        foreign::OPEN.set(true);
        let folder = Folder::new();
        let loaded = folder.load(
            "tls = { certificates = [{ cert = \"~/a.pem\", key = \"~/a.key\", \
             ocsp = \"~/a.ocsp\" }, { cert = \"~/b.pem\" }], directory = \"~/certs.d\", \
             min-version = \"1.3\", client-auth = { ca = \"~/ca.pem\", mode = \"optional\", \
             crl = \"~/crl.pem\", depth = 1 }, unknown-name = \"refuse\", \
             ticket-secret-file = \"~/a.key\" }",
            "client-cert = true\ntls = { server-name = \"api.internal\", ca = \"~/ca.pem\", \
             cert = \"~/a.pem\", key = \"~/a.key\", verify = true }",
        );
        let loaded = loaded.unwrap_or_else(|wrong| panic!("{wrong}"));
        let tls = ListenerTls {
            certificates: vec![
                CertificateFiles {
                    cert: folder.path("a.pem"),
                    key: folder.path("a.key"),
                    ocsp: Some(folder.path("a.ocsp")),
                },
                CertificateFiles::new(folder.path("b.pem"), folder.path("b.pem")),
            ],
            directory: Some(folder.path("certs.d")),
            version_min: TlsVersion::Tls13,
            client_auth: Some(ClientAuth {
                ca: folder.path("ca.pem"),
                mode: ClientAuthMode::Optional,
                crl: Some(folder.path("crl.pem")),
                depth: 1,
            }),
            unknown_name: UnknownName::Refuse,
            ticket_secret_file: Some(folder.path("a.key")),
        };
        assert_eq!(loaded.plan.listener(ListenerId(0)).tls, Some(tls));
        let pool = loaded.plan.pool(PoolId(0));
        assert!(pool.client_cert);
        let backends = pool.tls.as_ref().unwrap();
        assert_eq!(backends.server_name.as_deref(), Some("api.internal"));
        assert_eq!(backends.ca.as_deref(), Some(&*folder.path("ca.pem")));
        assert!(backends.verify);
        let printed = loaded.effective();
        let again = config::parse("printed.toml", &printed);
        let again = again.unwrap_or_else(|wrong| panic!("{wrong}\n{printed}"));
        assert_eq!(again.plan.listener(ListenerId(0)), loaded.plan.listener(ListenerId(0)));
        assert_eq!(again.plan.pool(PoolId(0)), pool);
        assert_eq!(loaded.certificates.len(), 4, "that of the pool, three of the listener");
    }

    #[test]
    fn a_listener_is_told_what_its_tls_lacks() {
        let folder = Folder::new();
        for (tls, expected) in [
            ("{}", "TLS of listener \"web\" without a certificate"),
            ("{ certificates = [{}] }", "certificate without a file"),
            ("{ certificates = [{ cert = \"no.pem\" }] }", "`cert` cannot be read: there is no"),
            ("{ directory = \"no.d\" }", "`directory` cannot be read: there is no such file"),
            ("{ directory = \"~/a.pem\" }", "`directory` cannot be read: it is not a directory"),
            ("{ directory = \"src\" }", "src has no certificates"),
            (
                "{ directory = \"~/certs.d\", min-version = \"1.1\" }",
                "unknown version of TLS \"1.1\"",
            ),
            ("{ directory = \"~/certs.d\", unknown-name = \"drop\" }", "unknown answer \"drop\""),
            (
                "{ directory = \"~/certs.d\", client-auth = {} }",
                "`client-auth` without an authority",
            ),
            (
                "{ directory = \"~/certs.d\", client-auth = { ca = \"~/ca.pem\", \
                 mode = \"off\" } }",
                "unknown mode \"off\"",
            ),
            (
                "{ directory = \"~/certs.d\", client-auth = { ca = \"~/a.key\" } }",
                "~/a.key has no certificate",
            ),
            (
                "{ directory = \"~/certs.d\", ticket-secret-file = \"no.key\" }",
                "`ticket-secret-file` cannot be read: there is no such file",
            ),
            (
                "{ directory = \"src\", cert = \"a.pem\" }",
                "unknown key `cert` in `tls` of listener",
            ),
            (
                "{ certificates = [{ cert = \"~/a.pem\", key = \"~/b.pem\" }] }",
                "~/b.pem does not fit the certificate (of \"a.example\")",
            ),
            ("{ certificates = [{ cert = \"~/a.pem\" }] }", "~/a.pem has no private key"),
            (
                "{ certificates = [{ cert = \"~/old.pem\" }] }",
                "~/old.pem has expired on 2021-12-31",
            ),
        ] {
            let titles = folder.titles(&format!("tls = {tls}"), "");
            let found = titles.iter().any(|title| title.starts_with(expected));
            let only = titles.len() == 1 || tls.contains("src");
            assert!(found && only, "{tls}: {titles:?}");
        }
    }

    #[test]
    fn a_pool_is_told_what_its_tls_lacks_and_what_does_not_protect() {
        let folder = Folder::new();
        for (keys, expected) in [
            ("tls = {}", &[][..]),
            ("tls = { server-name = \"a:443\" }", &["`a:443` is not the name of a server"]),
            ("tls = { key = \"~/a.key\" }", &["key without a certificate"]),
            ("tls = { cert = \"~/a.pem\" }", &["~/a.pem has no private key"]),
            ("tls = { ca = \"no.pem\" }", &["`ca` cannot be read: there is no such file"]),
            ("tls = { ca = \"~/a.key\" }", &["~/a.key has no certificate"]),
            ("tls = { verify = false }", &["certificates of pool \"app\" are not verified"]),
            (
                "tls = { verify = false, ca = \"~/ca.pem\" }",
                &["certificates of pool \"app\" are not verified", "`ca` has no effect"],
            ),
            ("client-cert = true", &["`client-cert` has no effect"]),
            ("client-cert = false", &[]),
        ] {
            assert_eq!(folder.titles("", keys), expected, "{keys}");
        }
    }

    #[test]
    fn the_certificate_that_expires_first_is_known() {
        foreign::OPEN.set(true);
        let folder = Folder::new();
        let pairs = "[{ cert = \"~/b.pem\" }, { cert = \"~/old.pem\" }]";
        let loaded = folder.load(&format!("tls = {{ certificates = {pairs} }}"), "").unwrap();
        let (first, days) = loaded.first_to_expire().unwrap();
        assert_eq!(first.files.cert, Path::new(&folder.path("old.pem")));
        assert!(days < 0, "{days}");
    }
}
