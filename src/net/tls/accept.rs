//! Handshake with a client: what its connection must get through before anything is served.
//!
//! While it waits it holds no buffer, only what has come of a record. Its deadline is set by the
//! caller. A client that speaks plain HTTP is told from garbage, so that it can be answered.

use std::{rc::Rc, sync::Arc};

use rustls::ServerConfig;

use super::{
    failed::Failed,
    gate::Gate,
    handshake::{self, Agreed, Handshake},
};
use crate::base::moment::Deadline;
use crate::net::{
    buffer::{Buffer, Buffers},
    deadlines::Unmet,
    fd,
    stream::{InVain, Stream},
};

/// Why a connection does not speak TLS.
#[derive(Debug)]
pub(crate) enum NoTls {
    /// The client, or the network, or our deadline ended it.
    Ended(Unmet),
    /// The client closed before it was done.
    Left,
    /// The client speaks plain HTTP.
    PlainHttp,
    /// The handshake failed; the client has been told why.
    Failed(Failed),
}

/// What handshakes of a core share.
pub(crate) struct Means<'a> {
    pub(crate) buffers: &'a Rc<Buffers>,
    pub(crate) gate: &'a Gate,
}

/// Shakes hands with a client; from then on the bytes of the stream go through TLS.
///
/// # Errors
/// Why it does not speak TLS.
pub(crate) async fn accept(
    stream: &mut Stream,
    config: &Arc<ServerConfig>,
    means: Means<'_>,
    by: impl Fn() -> Deadline,
) -> Result<Agreed, NoTls> {
    let mut handshake: Option<Handshake> = None;
    let (mut come, mut name) = (Vec::new(), None);
    let mut in_vain = InVain::default();
    loop {
        stream.readable().await.map_err(NoTls::Ended)?;
        match receive(stream, means.buffers, &mut come) {
            Ok(1..) => {}
            Ok(0) => return Err(NoTls::Left),
            Err(Unmet::NotNow) => {
                in_vain.pause().await;
                continue;
            }
            Err(unmet) => return Err(NoTls::Ended(unmet)),
        }
        let mut shaking = match handshake.take() {
            Some(handshake) => handshake,
            None if is_http(&come) => return Err(NoTls::PlainHttp),
            None => Handshake::server(config).map_err(NoTls::Failed)?,
        };
        let mut out = Vec::new();
        let advanced = {
            let passing =
                if handshake::has_record(&come) { Some(means.gate.pass().await) } else { None };
            if passing.is_some() && fd::has_left(stream.raw()) {
                return Err(NoTls::Left);
            }
            shaking.advance(&mut come, &mut out)
        };
        name = handshake::take_name().or(name);
        if out.is_empty() && advanced.is_err() {
            // rustls says nothing to what is no handshake at all.
            out.extend_from_slice(&NO_HANDSHAKE);
        }
        if !out.is_empty() {
            let sent = stream.send_vec(out, &by).await.0;
            if advanced.is_ok() {
                sent.map_err(NoTls::Ended)?;
            }
        }
        let advanced = advanced.map_err(NoTls::Failed)?;
        come.drain(..advanced.used);
        if advanced.is_done {
            let (records, agreed) = shaking.finish(name).map_err(NoTls::Failed)?;
            stream.secure(records, come, means.buffers);
            return Ok(agreed);
        }
        handshake = Some(shaking);
    }
}

/// The alert `decode_error` (RFC 8446 §6), before there are keys.
const NO_HANDSHAKE: [u8; 7] = [21, 3, 3, 0, 2, 2, 50];

/// Reads what is there behind what has come.
pub(super) fn receive(
    stream: &Stream,
    buffers: &Buffers,
    come: &mut Vec<u8>,
) -> Result<usize, Unmet> {
    if come.len() > MESSAGES_MAX {
        return Err(Unmet::Broken(std::io::ErrorKind::InvalidData.into()));
    }
    let mut buffer: Buffer = buffers.take().map_err(Unmet::Broken)?;
    let read = stream.recv_now(&mut buffer);
    come.extend_from_slice(buffer.bytes());
    buffers.give(buffer);
    read
}

/// What a client may send that is of no use yet: a message, of 64 KiB at most, and what follows.
const MESSAGES_MAX: usize = 128 << 10;

/// Whether this is the beginning of a request: a method in capital letters.
fn is_http(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(u8::is_ascii_uppercase)
}
