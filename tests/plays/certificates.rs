//! Plays of certificates: which one a client gets, what becomes of files that are replaced while
//! clients come and go, and which clients are let in by theirs.
//!
//! The clients are rustls, so what they accept is what a browser would.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256,
    RevokedCertParams, SerialNumber, date_time_ymd,
};
use ringway::events::Event;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, SignatureScheme, StreamOwned,
    client::WebPkiServerVerifier,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use crate::{
    scripts::answers,
    stage::{Driver, Stage, eventually, long},
};

on_both_drivers!(
    names_choose_the_certificate,
    a_host_of_another_certificate_is_misdirected,
    an_answer_of_ocsp_is_stapled_and_replaced,
    the_kind_of_key_is_one_that_the_client_can_verify,
    a_folder_of_certificates_serves_what_is_put_into_it,
    only_clients_with_a_good_certificate_are_let_in_where_one_is_required,
    a_certificate_that_is_replaced_serves_new_connections_and_connections_keep_theirs,
    certificates_are_replaced_under_load_without_an_error,
);

/// A folder of certificates, all signed by one authority.
struct Shop {
    folder: PathBuf,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Shop {
    fn new() -> Shop {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = format!("ringway-plays-shop-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        fs::create_dir_all(folder.join("certs.d")).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let shop = Shop { folder, authority };
        shop.put("ca.pem", &shop.authority.pem());
        shop
    }

    /// Replaces a file as careful programs do.
    fn put(&self, name: &str, text: &str) {
        let new = self.folder.join(format!("{name}.new"));
        fs::write(&new, text).unwrap();
        fs::rename(new, self.folder.join(name)).unwrap();
    }

    /// Makes `STEM.pem` with certificate and key, and returns the certificate.
    fn make(&self, stem: &str, names: &[&str], rsa: bool) -> CertificateDer<'static> {
        let (cert, key) = self.pair(names, rsa, 1);
        self.put(&format!("{stem}.pem"), &format!("{}{}", cert.pem(), key.serialize_pem()));
        cert.der().clone()
    }

    fn pair(&self, names: &[&str], rsa: bool, serial: u64) -> (rcgen::Certificate, KeyPair) {
        let key = if rsa { &PKCS_RSA_SHA256 } else { &PKCS_ECDSA_P256_SHA256 };
        let key = KeyPair::generate_for(key).unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.serial_number = Some(SerialNumber::from(serial));
        (params.signed_by(&key, &self.authority).unwrap(), key)
    }

    /// A client that trusts the authority.
    fn client(&self) -> ClientConfig {
        self.client_of(aws_lc_rs::default_provider(), None)
    }

    fn client_of(
        &self,
        provider: CryptoProvider,
        own: Option<(rcgen::Certificate, KeyPair)>,
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let provider = Arc::new(provider);
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_webpki_verifier(verifier.build().unwrap());
        let Some((cert, key)) = own else { return config.with_no_client_auth() };
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        config.with_client_auth_cert(vec![cert.der().clone()], key).unwrap()
    }

    fn stage(&self, driver: Driver, tls: &str) -> Stage {
        let tls = tls.replace('~', &self.folder.to_string_lossy());
        let line = format!("tls = {tls}");
        Stage::on(driver).cores(2).listener(&line).backend(answers("ok")).start()
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.folder));
    }
}

type Secure = StreamOwned<ClientConnection, TcpStream>;

/// A client that has shaken hands and been answered once; or why not.
fn connect(address: SocketAddr, config: &ClientConfig, name: &str) -> Result<Secure, String> {
    let mut config = config.clone();
    config.resumption = rustls::client::Resumption::disabled();
    let name = name.to_owned().try_into().unwrap();
    let tls = ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut stream = StreamOwned::new(tls, stream);
    ask(&mut stream).map_err(|error| error.to_string())?;
    Ok(stream)
}

fn ask(stream: &mut Secure) -> std::io::Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")?;
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\nok") {
        let mut bytes = [0; 1024];
        match stream.read(&mut bytes)? {
            0 => return Err(std::io::Error::other("an end without an answer")),
            count => seen.extend_from_slice(&bytes[..count]),
        }
    }
    if !seen.starts_with(b"HTTP/1.1 200") && !seen.starts_with(b"HTTP/1.1 421") {
        return Err(std::io::Error::other(String::from_utf8_lossy(&seen).into_owned()));
    }
    Ok(())
}

/// The certificate that a client gets by this name.
#[track_caller]
fn shown(address: SocketAddr, config: &ClientConfig, name: &str) -> CertificateDer<'static> {
    let name = name.to_owned().try_into().unwrap();
    let mut tls = ClientConnection::new(Arc::new(config.clone()), name).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    while tls.is_handshaking() {
        tls.complete_io(&mut stream).expect("no handshake");
    }
    tls.peer_certificates().unwrap()[0].clone().into_owned()
}

/// Waits until a client gets this certificate.
#[track_caller]
fn expect_shown(address: SocketAddr, config: &ClientConfig, it: &CertificateDer<'static>) {
    eventually("the new one is shown", || shown(address, config, "a.example") == *it, |is| *is);
}

fn names_choose_the_certificate(driver: Driver) {
    let shop = Shop::new();
    let first = shop.make("first", &["first.example", "10.0.0.1"], false);
    let exact = shop.make("exact", &["a.example"], false);
    let wild = shop.make("wild", &["*.example"], false);
    let stage = shop.stage(
        driver,
        "{ certificates = [{ cert = \"~/first.pem\" }, { cert = \"~/wild.pem\" }, \
         { cert = \"~/exact.pem\" }] }",
    );
    let config = looking_at_all();
    for (name, expected) in [
        ("first.example", &first),
        ("a.example", &exact),
        ("b.example", &wild),
        // An address is no name: the default.
        ("10.0.0.1", &first),
    ] {
        assert!(shown(stage.address(), &config, name) == *expected, "{name}");
    }
}

/// RFC 9110 §15.5.20.
fn a_host_of_another_certificate_is_misdirected(driver: Driver) {
    let shop = Shop::new();
    shop.make("a", &["a.example", "c.example"], false);
    shop.make("b", &["b.example"], false);
    let stage =
        shop.stage(driver, "{ certificates = [{ cert = \"~/a.pem\" }, { cert = \"~/b.pem\" }] }");
    let mut stream = connect(stage.address(), &shop.client(), "a.example").unwrap();
    for (host, status) in [
        ("b.example", 421),
        ("a.example", 200),
        ("A.Example:443", 200),
        // One certificate is for both.
        ("c.example", 200),
        // For neither is there another than the first.
        ("unknown.example", 200),
        ("B.example:443", 421),
    ] {
        write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
        let mut seen = String::new();
        while !seen.ends_with("ok") && !seen.ends_with("}\n") {
            let mut bytes = [0; 1024];
            let count = stream.read(&mut bytes).unwrap();
            assert!(count > 0, "{host}: {seen}");
            seen.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
        assert!(seen.starts_with(&format!("HTTP/1.1 {status}")), "{host}: {seen}");
        assert_eq!(seen.contains("\"misdirected\""), status == 421, "{seen}");
    }
}

fn an_answer_of_ocsp_is_stapled_and_replaced(driver: Driver) {
    let shop = Shop::new();
    shop.make("a", &["a.example"], false);
    let answer = |last: u8| vec![0x30, 0x82, 0x01, 0x00, 0x0a, 0x01, 0x00, last];
    fs::write(shop.folder.join("a.ocsp"), answer(1)).unwrap();
    let stage =
        shop.stage(driver, "{ certificates = [{ cert = \"~/a.pem\", ocsp = \"~/a.ocsp\" }] }");
    let stapled = || {
        let provider = aws_lc_rs::default_provider();
        let schemes = provider.signature_verification_algorithms.supported_schemes();
        let looking = Arc::new(Looking { schemes, staple: Mutex::default() });
        let mut config = looking_at_all();
        config.dangerous().set_certificate_verifier(Arc::clone(&looking) as _);
        shown(stage.address(), &config, "a.example");
        looking.staple.lock().unwrap().clone()
    };
    assert_eq!(stapled(), answer(1));
    fs::write(shop.folder.join("a.ocsp.new"), answer(2)).unwrap();
    fs::rename(shop.folder.join("a.ocsp.new"), shop.folder.join("a.ocsp")).unwrap();
    eventually("the new one is stapled", stapled, |staple| *staple == answer(2));
}

fn the_kind_of_key_is_one_that_the_client_can_verify(driver: Driver) {
    let shop = Shop::new();
    let ecdsa = shop.make("ecdsa", &["a.example"], false);
    let rsa = shop.make("rsa", &["a.example"], true);
    let stage = shop
        .stage(driver, "{ certificates = [{ cert = \"~/rsa.pem\" }, { cert = \"~/ecdsa.pem\" }] }");
    let config = looking_at_all();
    assert!(shown(stage.address(), &config, "a.example") == ecdsa, "ours is first");
    let config = looking(&[SignatureScheme::RSA_PSS_SHA256, SignatureScheme::RSA_PKCS1_SHA256]);
    assert!(shown(stage.address(), &config, "a.example") == rsa);
}

/// A client that can verify these signatures, and accepts any certificate.
fn looking(schemes: &[SignatureScheme]) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Looking {
            schemes: schemes.to_vec(),
            staple: Mutex::default(),
        }))
        .with_no_client_auth()
}

fn looking_at_all() -> ClientConfig {
    let provider = aws_lc_rs::default_provider();
    looking(&provider.signature_verification_algorithms.supported_schemes())
}

/// Looks at certificates and accepts them all.
#[derive(Debug)]
struct Looking {
    schemes: Vec<SignatureScheme>,
    /// What was stapled to the last one.
    staple: Mutex<Vec<u8>>,
}

impl rustls::client::danger::ServerCertVerifier for Looking {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        staple: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        *self.staple.lock().unwrap() = staple.to_vec();
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

fn a_folder_of_certificates_serves_what_is_put_into_it(driver: Driver) {
    let shop = Shop::new();
    let default = shop.make("certs.d/default", &["first.example"], false);
    let stage = shop.stage(driver, "{ directory = \"~/certs.d\" }");
    let config = looking_at_all();
    assert!(shown(stage.address(), &config, "first.example") == default);
    let other = shop.make("certs.d/aaa", &["a.example"], false);
    expect_shown(stage.address(), &config, &other);
    assert!(shown(stage.address(), &config, "first.example") == default, "the default stays");
}

fn only_clients_with_a_good_certificate_are_let_in_where_one_is_required(driver: Driver) {
    let shop = Shop::new();
    shop.make("a", &["a.example"], false);
    let revoked = RevokedCertParams {
        serial_number: SerialNumber::from(7),
        revocation_time: date_time_ymd(2020, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 1, 1),
        next_update: date_time_ymd(2100, 1, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![revoked],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    shop.put("crl.pem", &list.signed_by(&shop.authority).unwrap().pem().unwrap());
    let stranger = Shop::new();
    let clients = |serial| Some(shop.pair(&["client.example"], false, serial));
    for (mode, without) in [("required", false), ("optional", true)] {
        let stage = shop.stage(
            driver,
            &format!(
                "{{ certificates = [{{ cert = \"~/a.pem\" }}], client-auth = {{ \
                 ca = \"~/ca.pem\", crl = \"~/crl.pem\", mode = \"{mode}\" }} }}"
            ),
        );
        for (what, own, is_let_in) in [
            ("none", None, without),
            ("a good one", clients(1), true),
            ("a revoked one", clients(7), false),
            ("a stranger's", Some(stranger.pair(&["client.example"], false, 1)), false),
        ] {
            let config = shop.client_of(aws_lc_rs::default_provider(), own);
            let connected = connect(stage.address(), &config, "a.example");
            assert_eq!(connected.is_ok(), is_let_in, "{mode}, {what}: {:?}", connected.err());
        }
    }
}

fn a_certificate_that_is_replaced_serves_new_connections_and_connections_keep_theirs(
    driver: Driver,
) {
    let shop = Shop::new();
    let one = shop.make("a", &["a.example"], false);
    let stage = shop.stage(driver, "{ certificates = [{ cert = \"~/a.pem\" }] }");
    let (config, events) = (shop.client(), stage.events());
    let mut old = connect(stage.address(), &config, "a.example").unwrap();
    // Half a file changes nothing.
    let text = fs::read_to_string(shop.folder.join("a.pem")).unwrap();
    fs::write(shop.folder.join("a.pem"), &text[..text.len() / 3]).unwrap();
    let next = || loop {
        let happened = events.next_within(Duration::from_secs(20)).expect("no event");
        if happened.event.word().starts_with("certificate") {
            return happened.event.clone();
        }
    };
    assert!(matches!(next(), Event::CertificateRefused { .. }));
    assert!(shown(stage.address(), &config, "a.example") == one);
    stage.expect_count("tls_certificate_refused", 1);
    let two = shop.make("a", &["a.example"], false);
    assert!(matches!(next(), Event::CertificateReplaced(_)));
    expect_shown(stage.address(), &config, &two);
    stage.expect_count("tls_certificate_refused", 0);
    ask(&mut old).expect("the connection was cut");
    assert!(old.conn.peer_certificates().unwrap()[0] == one);
}

fn certificates_are_replaced_under_load_without_an_error(driver: Driver) {
    let shop = Shop::new();
    shop.make("a", &["a.example"], false);
    let stage = shop.stage(driver, "{ certificates = [{ cert = \"~/a.pem\" }] }");
    let (address, config) = (stage.address(), Arc::new(shop.client()));
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let (config, over) = (Arc::clone(&config), Arc::clone(&over));
            std::thread::spawn(move || {
                let mut count = 0_u32;
                while !over.load(Ordering::Relaxed) {
                    let mut stream = connect(address, &config, "a.example").unwrap();
                    ask(&mut stream).unwrap();
                    count += 1;
                }
                count
            })
        })
        .collect();
    for _ in 0..if long() { 100 } else { 5 } {
        let next = shop.make("a", &["a.example"], false);
        expect_shown(address, &config, &next);
    }
    over.store(true, Ordering::Relaxed);
    for client in clients {
        let count = client.join().expect("a client met an error");
        assert!(count > 0);
    }
}
