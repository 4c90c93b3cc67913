//! The handshake of a TLS connection, and what rustls keeps for it afterwards. The only file that
//! knows how rustls moves bytes: its unbuffered API until the handshake is done, and then the one
//! for kernels, which hands over the keys (`records.rs` does the rest; DECISIONS 121).
//!
//! Pure: bytes in, bytes out. It is shown one record more each time, so that it never sees one that
//! belongs to `records.rs`.

use std::{cell::RefCell, sync::Arc};

use rustls::{ClientConfig, ServerConfig};
use rustls::{
    CommonState, ConnectionTrafficSecrets, ExtractedSecrets, HandshakeKind, ProtocolVersion,
    client::{ClientConnectionData, UnbufferedClientConnection},
    kernel::KernelConnection,
    pki_types::{CertificateDer, ServerName},
    server::{ClientHello, ResolvesServerCert, ServerConnectionData, UnbufferedServerConnection},
    sign::CertifiedKey,
    unbuffered::{ConnectionState, UnbufferedConnectionCommon, UnbufferedStatus},
};

use super::{
    alert::Alert,
    failed::Failed,
    keys::{Cipher, HEADER, Keys, Secrets},
    records::Records,
};
use crate::shared::certs::Store;

/// A handshake under way.
pub(crate) struct Handshake {
    side: Side,
    /// How many bytes rustls has been shown and still needs: a message in several records.
    shown: usize,
}

enum Side {
    Server(Box<UnbufferedServerConnection>),
    Client(Box<UnbufferedClientConnection>),
}

/// What a handshake has agreed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub(crate) is_tls13: bool,
    /// Its name in the standard, but for TLS 1.3 with `TLS13_` in front.
    pub(crate) suite: &'static str,
    pub(crate) alpn: Option<Box<[u8]>>,
    pub(crate) is_resumed: bool,
    /// The name that the client asked for.
    pub(crate) name: Option<Box<str>>,
    /// The certificates of the peer, its own first; empty if it has shown none.
    pub(crate) certificates: Vec<CertificateDer<'static>>,
}

/// How far a handshake has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Advanced {
    /// How many bytes were used.
    pub(crate) used: usize,
    pub(crate) is_done: bool,
}

impl Handshake {
    /// With a client.
    pub(crate) fn server(config: &Arc<ServerConfig>) -> Result<Handshake, Failed> {
        let connection = UnbufferedServerConnection::new(Arc::clone(config));
        Ok(Handshake { side: Side::Server(Box::new(connection?)), shown: 0 })
    }

    /// With a server of this name.
    pub(crate) fn client(
        config: &Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Handshake, Failed> {
        let connection = UnbufferedClientConnection::new(Arc::clone(config), name);
        Ok(Handshake { side: Side::Client(Box::new(connection?)), shown: 0 })
    }

    /// Goes on with what has come; appends what has to be sent to `out`, also if it fails.
    pub(crate) fn advance(
        &mut self,
        come: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<Advanced, Failed> {
        NAMED.take();
        let sent = out.len();
        let advanced = match &mut self.side {
            Side::Server(it) => advance(it, (come, &mut self.shown), out, process_of_server),
            Side::Client(it) => advance(it, (come, &mut self.shown), out, process_of_client),
        };
        if NAMED.with_borrow(|named| named.is_refused) && advanced.is_err() {
            // rustls has another alert for it.
            out.truncate(sent);
            out.extend_from_slice(&[super::keys::ALERT, 3, 3, 0, 2, 2, UNRECOGNIZED_NAME]);
            return Err(Failed::UnknownName(take_name().unwrap_or_default()));
        }
        advanced
    }

    /// The records of the connection, once the handshake is done, and what was agreed on.
    pub(crate) fn finish(self, name: Option<Box<str>>) -> Result<(Records, Agreed), Failed> {
        let (agreed, secrets, kept) = match self.side {
            Side::Server(it) => {
                let agreed = agreed(&it, name);
                let (secrets, kept) = it.dangerous_into_kernel_connection()?;
                (agreed, secrets, Kept::Server(Box::new(kept)))
            }
            Side::Client(it) => {
                let agreed = agreed(&it, name);
                let (secrets, kept) = it.dangerous_into_kernel_connection()?;
                (agreed, secrets, Kept::Client(Box::new(kept)))
            }
        };
        let ExtractedSecrets { tx, rx } = secrets;
        let keys = |(sequence, secrets)| {
            keys(agreed.is_tls13, sequence, &secrets)
                .ok_or_else(|| Failed::Because(rustls::Error::HandshakeNotComplete))
        };
        Ok((Records::new(keys(tx)?, keys(rx)?, kept), agreed))
    }
}

/// The alert of RFC 6066 §3.
const UNRECOGNIZED_NAME: u8 = 112;

type Processed<'c, 'i, Data> = UnbufferedStatus<'c, 'i, Data>;

fn process_of_server<'c, 'i>(
    connection: &'c mut UnbufferedConnectionCommon<ServerConnectionData>,
    bytes: &'i mut [u8],
) -> Processed<'c, 'i, ServerConnectionData> {
    connection.process_tls_records(bytes)
}

fn process_of_client<'c, 'i>(
    connection: &'c mut UnbufferedConnectionCommon<ClientConnectionData>,
    bytes: &'i mut [u8],
) -> Processed<'c, 'i, ClientConnectionData> {
    connection.process_tls_records(bytes)
}

fn advance<Data>(
    connection: &mut UnbufferedConnectionCommon<Data>,
    (come, shown): (&mut [u8], &mut usize),
    out: &mut Vec<u8>,
    process: impl for<'c, 'i> Fn(
        &'c mut UnbufferedConnectionCommon<Data>,
        &'i mut [u8],
    ) -> Processed<'c, 'i, Data>,
) -> Result<Advanced, Failed> {
    let mut used = 0;
    loop {
        let records = come.get_mut(used..used + *shown).unwrap_or(&mut []);
        let UnbufferedStatus { discard, state, .. } = process(connection, records);
        let discard = discard.min(*shown);
        used += discard;
        *shown -= discard;
        let wants_more = match state {
            Err(error) => {
                // Its alert is left to be taken, and what was ready before.
                while connection.wants_write() {
                    let records = come.get_mut(used..used + *shown).unwrap_or(&mut []);
                    match process(connection, records).state {
                        Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, out),
                        Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                        Ok(_) | Err(_) => break,
                    }
                }
                return Err(error.into());
            }
            Ok(ConnectionState::EncodeTlsData(mut data)) => {
                encode(&mut data, out);
                false
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                false
            }
            Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => true,
            // Neither comes before the end of a handshake; an end by the peer is one, though.
            Ok(_) => return Err(Failed::Told(Alert::CLOSE_NOTIFY)),
        };
        if !connection.is_handshaking() && !connection.wants_write() {
            return Ok(Advanced { used, is_done: true });
        }
        if wants_more {
            match next_record(come.get(used + *shown..).unwrap_or(&[])) {
                Some(len) => *shown += len,
                None => return Ok(Advanced { used, is_done: false }),
            }
        }
    }
}

fn encode<Data>(data: &mut rustls::unbuffered::EncodeTlsData<'_, Data>, out: &mut Vec<u8>) {
    let before = out.len();
    // What the smallest flight needs; the error says how much this one does.
    let mut room = 0;
    loop {
        out.resize(before + room, 0);
        match data.encode(out.get_mut(before..).unwrap_or(&mut [])) {
            Ok(written) => return out.truncate(before + written),
            Err(rustls::unbuffered::EncodeError::InsufficientSize(size))
                if size.required_size > room =>
            {
                room = size.required_size;
            }
            Err(_) => return out.truncate(before),
        }
    }
}

/// Whether there is something to advance with.
pub(crate) fn has_record(bytes: &[u8]) -> bool {
    next_record(bytes).is_some()
}

/// The length of the record at the front; none if it is incomplete. What is no record is shown
/// whole, to be refused.
fn next_record(bytes: &[u8]) -> Option<usize> {
    const LONGEST: usize = HEADER + (1 << 14) + (2 << 10);
    let Some(&[kind, _, _, high, low]) = bytes.first_chunk::<HEADER>() else {
        let is_garbage = bytes.first().is_some_and(|kind| !(20..=23).contains(kind));
        return is_garbage.then_some(bytes.len());
    };
    let len = HEADER + usize::from(u16::from_be_bytes([high, low]));
    if len > LONGEST || !(20..=23).contains(&kind) {
        return Some(bytes.len());
    }
    (bytes.len() >= len).then_some(len)
}

fn agreed(state: &CommonState, name: Option<Box<str>>) -> Agreed {
    let suite = state.negotiated_cipher_suite();
    Agreed {
        is_tls13: state.protocol_version() == Some(ProtocolVersion::TLSv1_3),
        suite: suite.and_then(|suite| suite.suite().as_str()).unwrap_or("unknown"),
        alpn: state.alpn_protocol().map(Box::from),
        is_resumed: state.handshake_kind() == Some(HandshakeKind::Resumed),
        name,
        certificates: state.peer_certificates().map(<[_]>::to_vec).unwrap_or_default(),
    }
}

fn keys(is_tls13: bool, sequence: u64, secrets: &ConnectionTrafficSecrets) -> Option<Keys> {
    let (cipher, key, iv) = match secrets {
        ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (Cipher::Aes128Gcm, key, iv),
        ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (Cipher::Aes256Gcm, key, iv),
        ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => {
            (Cipher::Chacha20Poly1305, key, iv)
        }
        _ => return None,
    };
    let secrets = Secrets { cipher, key: key.as_ref(), iv: iv.as_ref(), sequence };
    Keys::new(is_tls13, &secrets)
}

/// What is kept of a handshake: the next keys, and at a client where tickets go.
pub(super) enum Kept {
    Server(Box<KernelConnection<ServerConnectionData>>),
    Client(Box<KernelConnection<ClientConnectionData>>),
}

impl Kept {
    pub(super) fn is_tls13(&self) -> bool {
        let version = match self {
            Kept::Server(it) => it.protocol_version(),
            Kept::Client(it) => it.protocol_version(),
        };
        version == ProtocolVersion::TLSv1_3
    }

    pub(super) fn is_client(&self) -> bool {
        matches!(self, Kept::Client(_))
    }

    pub(super) fn next_sealing(&mut self) -> Result<Keys, Alert> {
        next(match self {
            Kept::Server(it) => it.update_tx_secret(),
            Kept::Client(it) => it.update_tx_secret(),
        })
    }

    pub(super) fn next_opening(&mut self) -> Result<Keys, Alert> {
        next(match self {
            Kept::Server(it) => it.update_rx_secret(),
            Kept::Client(it) => it.update_rx_secret(),
        })
    }

    /// Keeps a ticket for the next connection.
    pub(super) fn take_ticket(&mut self, message: &[u8]) -> Result<(), Alert> {
        match self {
            Kept::Server(_) => Err(Alert::UNEXPECTED_MESSAGE),
            Kept::Client(it) => {
                it.handle_new_session_ticket(message).map_err(|_| Alert::DECODE_ERROR)
            }
        }
    }
}

fn next(secrets: Result<(u64, ConnectionTrafficSecrets), rustls::Error>) -> Result<Keys, Alert> {
    let (sequence, secrets) = secrets.map_err(|_| Alert::INTERNAL_ERROR)?;
    keys(true, sequence, &secrets).ok_or(Alert::INTERNAL_ERROR)
}

/// What a client asked for, noted while its certificate is chosen.
#[derive(Default)]
struct Named {
    name: Option<Box<str>>,
    is_refused: bool,
}

thread_local! {
    /// Of the handshake that advances on this thread: rustls tells nobody else.
    static NAMED: RefCell<Named> = RefCell::default();
}

/// The name that the client has asked for, if it did in the last step.
pub(crate) fn take_name() -> Option<Box<str>> {
    NAMED.take().name
}

/// Chooses from a store, and notes what for.
#[derive(Debug)]
pub(super) struct Chooser(pub(super) Arc<Store>);

impl ResolvesServerCert for Chooser {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let (name, chosen) = (hello.server_name(), self.0.resolve(&hello));
        let is_refused = chosen.is_none() && name.is_some_and(|name| self.0.refuses(name));
        NAMED.set(Named { name: name.map(Box::from), is_refused });
        chosen
    }
}
