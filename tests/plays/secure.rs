//! TLS for plays: certificates made for the occasion, and a bridge that lets a scripted client that
//! knows no TLS speak it.
//!
//! The bridge is a thread between two sockets, with rustls on one side, as the client or as the
//! server. An end without `close_notify` is a reset on the play's side, so that no play can take it
//! for an end.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use rcgen::{CertificateParams, DnType, KeyPair};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::sockopt,
};
use rustls::{
    ClientConfig, ClientConnection, Connection, HandshakeKind, RootCertStore, ServerConfig,
    ServerConnection, SupportedProtocolVersion,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};

use crate::client::Client;

/// The versions that plays go through.
pub(crate) const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A certificate with its key, in a folder of its own.
pub(crate) struct Identity {
    folder: PathBuf,
    cert: CertificateDer<'static>,
    key: Vec<u8>,
    name: String,
}

impl Identity {
    /// Signed by itself, for these names.
    pub(crate) fn of(names: &[&str]) -> Identity {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = format!("ringway-plays-tls-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        let all: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(all).unwrap();
        // It is told from another by its own name.
        params.distinguished_name.push(DnType::CommonName, format!("{} {number}", names[0]));
        let key = KeyPair::generate().unwrap();
        let made = params.self_signed(&key).unwrap();
        std::fs::write(folder.join("cert.pem"), made.pem()).unwrap();
        std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
        let (cert, key) = (made.der().clone(), key.serialize_der());
        Identity { folder, cert, key, name: names[0].to_owned() }
    }

    /// Where its files are, as a table of a configuration.
    pub(crate) fn files(&self) -> String {
        let folder = self.folder.display();
        format!("{{ cert = \"{folder}/cert.pem\", key = \"{folder}/key.pem\" }}")
    }

    /// The line of a listener that shows it, with more keys of `tls`.
    pub(crate) fn line(&self, more: &str) -> String {
        format!("tls = {{ certificates = [{}]{more} }}", self.files())
    }

    /// The line of a pool whose backends show it.
    pub(crate) fn pool_line(&self) -> String {
        format!("tls = {{ server-name = \"{}\", ca = \"{}\" }}", self.name, self.cert())
    }

    /// The path of its certificate.
    pub(crate) fn cert(&self) -> String {
        format!("{}/cert.pem", self.folder.display())
    }

    /// The path of its key.
    pub(crate) fn key(&self) -> String {
        format!("{}/key.pem", self.folder.display())
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.cert.clone()).unwrap();
        roots
    }

    /// A server that shows it, and asks for a certificate that this other one has signed.
    pub(crate) fn server(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        client: Option<&Identity>,
    ) -> ServerConfig {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = match client {
            None => WebPkiClientVerifier::no_client_auth(),
            Some(client) => {
                let roots = Arc::new(client.roots());
                let provider = Arc::clone(&provider);
                WebPkiClientVerifier::builder_with_provider(roots, provider).build().unwrap()
            }
        };
        let key = PrivateKeyDer::try_from(self.key.clone()).unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![self.cert.clone()], key)
            .unwrap();
        config.ticketer = aws_lc_rs::Ticketer::new().unwrap();
        config
    }

    /// A client that trusts it.
    pub(crate) fn trusting(&self, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        self.trusting_with(aws_lc_rs::default_provider(), versions)
    }

    /// The same with this cryptography.
    pub(crate) fn trusting_with(
        &self,
        provider: CryptoProvider,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ClientConfig {
        ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(self.roots())
            .with_no_client_auth()
    }

    /// The same, which shows this other one.
    pub(crate) fn trusting_as(&self, own: &Identity) -> ClientConfig {
        let key = PrivateKeyDer::try_from(own.key.clone()).unwrap();
        ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&VERSIONS)
            .unwrap()
            .with_root_certificates(self.roots())
            .with_client_auth_cert(vec![own.cert.clone()], key)
            .unwrap()
    }

    /// Its certificate as a field (RFC 9440), made by a tool of others.
    pub(crate) fn field(&self) -> String {
        let pem = std::fs::read_to_string(self.cert()).unwrap();
        let lines: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
        format!(":{lines}:")
    }

    /// A client that trusts it and has shaken hands.
    #[track_caller]
    pub(crate) fn connect(&self, address: SocketAddr) -> Client {
        self.connect_as(address, self.trusting(&VERSIONS))
    }

    /// The same with these settings.
    #[track_caller]
    pub(crate) fn connect_as(&self, address: SocketAddr, config: ClientConfig) -> Client {
        let name = self.name.clone().try_into().unwrap();
        let tls = ClientConnection::new(Arc::new(config), name).unwrap();
        Client::over(bridge(address, tls))
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

/// The listeners of stages that speak TLS, and what they show. An address is used once.
static LISTENERS: Mutex<Vec<(SocketAddr, Arc<Identity>)>> = Mutex::new(Vec::new());

/// From now on clients that connect there speak TLS.
pub(crate) fn speaks_tls(address: SocketAddr, identity: Arc<Identity>) {
    LISTENERS.lock().unwrap().push((address, identity));
}

/// That stage is struck.
pub(crate) fn forget(address: SocketAddr) {
    LISTENERS.lock().unwrap().retain(|(at, _)| *at != address);
}

/// What is shown at an address, if TLS is spoken there.
pub(crate) fn identity_at(address: SocketAddr) -> Option<Arc<Identity>> {
    let listeners = LISTENERS.lock().unwrap();
    listeners.iter().find(|(at, _)| *at == address).map(|(_, identity)| Arc::clone(identity))
}

/// A plain end whose bytes reach an address through TLS.
#[track_caller]
pub(crate) fn bridge(address: SocketAddr, tls: ClientConnection) -> TcpStream {
    bridge_that(address, tls, false)
}

/// The same; `changes_keys`: it changes its keys with every piece.
#[track_caller]
pub(crate) fn bridge_that(
    address: SocketAddr,
    tls: ClientConnection,
    changes_keys: bool,
) -> TcpStream {
    let secure = TcpStream::connect(address).expect("no connection");
    let between = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let ours = TcpStream::connect(between.local_addr().unwrap()).unwrap();
    let (plain, _) = between.accept().unwrap();
    for stream in [&secure, &plain, &ours] {
        stream.set_nodelay(true).unwrap();
    }
    let mut bridge = Bridge::new(plain, secure, tls.into());
    bridge.changes_keys = changes_keys;
    std::thread::spawn(move || bridge.cross());
    ours
}

/// A backend behind TLS.
pub(crate) struct Behind {
    pub(crate) address: SocketAddr,
    /// How each handshake went.
    pub(crate) handshakes: Arc<Mutex<Vec<HandshakeKind>>>,
    /// How many connections have ended without `close_notify`.
    pub(crate) cuts: Arc<AtomicU32>,
}

/// Puts TLS in front of a backend. `changes_keys`: it changes its keys with every piece.
pub(crate) fn behind(backend: SocketAddr, config: ServerConfig, changes_keys: bool) -> Behind {
    let (config, handshakes) = (Arc::new(config), Arc::new(Mutex::new(Vec::new())));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (known, cuts) = (Arc::clone(&handshakes), Arc::new(AtomicU32::new(0)));
    let cut = Arc::clone(&cuts);
    // It ends with the process.
    std::thread::spawn(move || {
        for secure in listener.incoming() {
            let (Ok(secure), Ok(plain)) = (secure, TcpStream::connect(backend)) else { continue };
            let _ = (secure.set_nodelay(true), plain.set_nodelay(true));
            let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut bridge = Bridge::new(plain, secure, tls.into());
            (bridge.known, bridge.cuts) = (Some(Arc::clone(&known)), Some(Arc::clone(&cut)));
            bridge.changes_keys = changes_keys;
            std::thread::spawn(move || bridge.cross());
        }
    });
    Behind { address, handshakes, cuts }
}

struct Bridge {
    plain: TcpStream,
    secure: TcpStream,
    tls: Connection,
    /// What the play has not read yet.
    to_plain: Vec<u8>,
    /// Whether the play has ended its half.
    ended: bool,
    /// Whether the other side has said that it sends no more.
    closed: bool,
    changes_keys: bool,
    /// Where to say how the handshake went.
    known: Option<Arc<Mutex<Vec<HandshakeKind>>>>,
    /// Where to count an end without `close_notify`.
    cuts: Option<Arc<AtomicU32>>,
}

/// What is read ahead of the play.
const AHEAD: usize = 64 << 10;

impl Bridge {
    fn new(plain: TcpStream, secure: TcpStream, tls: Connection) -> Bridge {
        let (ended, closed, changes_keys) = (false, false, false);
        let (to_plain, known, cuts) = (Vec::new(), None, None);
        Bridge { plain, secure, tls, to_plain, ended, closed, changes_keys, known, cuts }
    }

    fn cross(mut self) {
        let ran = self.run();
        if let (Err(error), Some(cuts)) = (&ran, &self.cuts)
            && error.kind() == ErrorKind::UnexpectedEof
        {
            cuts.fetch_add(1, Ordering::Relaxed);
        }
        if ran.is_err() {
            // Whatever was cut looks cut.
            for stream in [&self.plain, &self.secure] {
                let _ = sockopt::set_socket_linger(stream, Some(Duration::ZERO));
            }
        }
    }

    fn run(&mut self) -> std::io::Result<()> {
        self.plain.set_nonblocking(true)?;
        self.secure.set_nonblocking(true)?;
        let (mut told_end, mut told_plain_end) = (false, false);
        loop {
            self.wait()?;
            self.take_plain()?;
            while self.tls.wants_write() {
                match self.tls.write_tls(&mut &self.secure) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
            if self.ended && !told_end && !self.tls.wants_write() && !self.tls.is_handshaking() {
                told_end = true;
                self.secure.shutdown(Shutdown::Write)?;
            }
            self.take_secure()?;
            if self.closed && self.to_plain.is_empty() && !told_plain_end {
                told_plain_end = true;
                self.plain.shutdown(Shutdown::Write)?;
            }
            if told_plain_end && told_end {
                return Ok(());
            }
        }
    }

    fn wait(&self) -> std::io::Result<()> {
        let mut of_plain = PollFlags::empty();
        let is_read = !self.ended && !self.tls.wants_write() && !self.tls.is_handshaking();
        of_plain.set(PollFlags::IN, is_read);
        of_plain.set(PollFlags::OUT, !self.to_plain.is_empty());
        let mut of_secure = PollFlags::empty();
        of_secure.set(PollFlags::IN, self.to_plain.len() < AHEAD && !self.closed);
        of_secure.set(PollFlags::OUT, self.tls.wants_write());
        let mut both = [PollFd::new(&self.plain, of_plain), PollFd::new(&self.secure, of_secure)];
        poll(&mut both, Some(&Timespec { tv_sec: 30, tv_nsec: 0 }))?;
        Ok(())
    }

    fn take_plain(&mut self) -> std::io::Result<()> {
        let mut room = [0; 16 << 10];
        if self.ended || self.tls.wants_write() || self.tls.is_handshaking() {
            return Ok(());
        }
        match (&self.plain).read(&mut room) {
            Ok(0) => {
                self.ended = true;
                self.tls.send_close_notify();
                Ok(())
            }
            Ok(count) => {
                if self.changes_keys {
                    self.tls.refresh_traffic_keys().map_err(std::io::Error::other)?;
                }
                self.tls.writer().write_all(&room[..count])
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn take_secure(&mut self) -> std::io::Result<()> {
        if self.to_plain.len() < AHEAD && !self.closed {
            match self.tls.read_tls(&mut &self.secure) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            let processed = self.tls.process_new_packets();
            if let Err(error) = processed {
                let _ = self.tls.write_tls(&mut &self.secure);
                return Err(std::io::Error::other(error));
            }
            if !self.tls.is_handshaking()
                && let Some(known) = self.known.take()
            {
                known.lock().unwrap().extend(self.tls.handshake_kind());
            }
            let mut room = [0; 16 << 10];
            loop {
                match self.tls.reader().read(&mut room) {
                    Ok(0) => {
                        self.closed = true;
                        break;
                    }
                    Ok(count) => self.to_plain.extend_from_slice(&room[..count]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        while !self.to_plain.is_empty() {
            match (&self.plain).write(&self.to_plain) {
                Ok(count) => drop(self.to_plain.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
