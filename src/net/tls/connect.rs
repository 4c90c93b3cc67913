//! Handshake with a backend, on a connection that has just been made.
//!
//! It may be dropped at any wait, and the connection with it: nothing is handed to the ring here.
//! A backend that speaks plain HTTP is told from garbage, so that it can be named.

use std::rc::Rc;

use super::{
    accept::{NoTls, receive},
    back::ToBackend,
    handshake::{Agreed, Handshake},
};
use crate::base::moment::Deadline;
use crate::net::{
    buffer::Buffers,
    deadlines::Unmet,
    stream::{InVain, Stream},
};

/// Shakes hands with a backend, until then; from then on the bytes of the stream go through TLS.
///
/// # Errors
/// Why it does not speak TLS.
pub(crate) async fn connect(
    stream: &mut Stream,
    to: &ToBackend,
    buffers: &Rc<Buffers>,
    by: Deadline,
) -> Result<Agreed, NoTls> {
    let handshake = Handshake::client(&to.config, to.name.clone());
    let mut shaking = handshake.map_err(NoTls::Failed)?;
    let (mut come, mut is_first) = (Vec::new(), true);
    let mut in_vain = InVain::default();
    stream.watched().read_by(by);
    loop {
        let mut out = Vec::new();
        let advanced = shaking.advance(&mut come, &mut out);
        if !out.is_empty() {
            let sent = stream.send_all(&out, false, || by).await;
            if advanced.is_ok() {
                sent.map_err(NoTls::Ended)?;
            }
        }
        let advanced = advanced.map_err(NoTls::Failed)?;
        come.drain(..advanced.used);
        if advanced.is_done {
            let (records, agreed) = shaking.finish(None).map_err(NoTls::Failed)?;
            stream.watched().read_by(Deadline::NEVER);
            stream.secure(records, come, buffers);
            return Ok(agreed);
        }
        loop {
            stream.readable().await.map_err(NoTls::Ended)?;
            match receive(stream, buffers, &mut come) {
                Ok(1..) => break,
                Ok(0) => return Err(NoTls::Left),
                Err(Unmet::NotNow) => in_vain.pause().await,
                Err(unmet) => return Err(NoTls::Ended(unmet)),
            }
        }
        if std::mem::take(&mut is_first) && come.starts_with(b"HTTP/") {
            return Err(NoTls::PlainHttp);
        }
    }
}
