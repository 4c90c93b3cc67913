//! The client of an exchange, whatever protocol it speaks: one request at a time.
//!
//! Not a connection: an HTTP/2 connection has one of these for each of its streams. A stream is
//! never used again, so what concerns the next request on a connection is HTTP/1's alone.

use std::{net::SocketAddr, rc::Rc};

use crate::base::moment::{Deadline, Micros, Moment};
use crate::http::{
    fault::{Fault, StreamReset},
    framing::BodyLength,
    head::{ResponseHead, Version},
    parse::HeadLimits,
};
use crate::net::{
    deadlines::Unmet,
    fd,
    leaving::{ForClient, Leaves},
};

use super::{Sink, Source, Waits, h1, h2, peer::Peer};

/// A client, with one request at a time.
pub(crate) enum Client {
    H1(h1::Client),
    H2(h2::Asking),
}

impl Client {
    /// The other end of its connection.
    #[inline]
    pub(crate) fn peer(&self) -> &Rc<Peer> {
        match self {
            Client::H1(client) => &client.peer,
            Client::H2(asking) => asking.peer(),
        }
    }

    /// When the present request began; none if it is not logged and its head was there at once.
    #[inline]
    pub(crate) fn began(&self) -> Option<Moment> {
        match self {
            Client::H1(client) => client.began,
            Client::H2(asking) => asking.began(),
        }
    }

    /// A request begins; its head has been taken. `keeps`: the connection may be kept after it.
    #[inline]
    pub(crate) fn begin(&mut self, keeps: bool) {
        match self {
            Client::H1(client) => client.begin(keeps),
            Client::H2(_) => {}
        }
    }

    /// The request is over, at this moment if it is logged. Anything else that has come is the
    /// next.
    #[inline]
    pub(crate) fn end(&mut self, ended: Option<Moment>) {
        match self {
            Client::H1(client) => client.end(ended),
            Client::H2(_) => {}
        }
    }

    /// Sets the length of the body after the head just taken.
    #[inline]
    pub(crate) fn expect_body(&mut self, length: BodyLength, limits: HeadLimits) {
        match self {
            Client::H1(client) => client.expect_body(length, limits),
            Client::H2(_) => {}
        }
    }

    /// The source of the rest of the request's body; none if it has been taken already.
    pub(crate) fn body(&mut self) -> Option<Source> {
        match self {
            Client::H1(client) => client.body(),
            Client::H2(asking) => asking.body().map(Source::H2),
        }
    }

    /// Takes it back, if it is known what comes next from it. Nothing is awaited from the client
    /// now.
    pub(crate) fn put_back(&mut self, source: Option<Source>) {
        match self {
            Client::H1(client) => client.put_back(source),
            Client::H2(asking) => asking.put_back(source.is_some()),
        }
    }

    /// What is left of the body, if all of that has come and its length is known (empty if there is
    /// none): it can be sent again.
    #[inline]
    pub(crate) fn held_body(&self) -> Option<&[u8]> {
        match self {
            Client::H1(client) => client.held_body(),
            Client::H2(asking) => asking.held_body(),
        }
    }

    /// Whether some of the body has come, of a length that is known.
    pub(crate) fn has_some_body(&self) -> bool {
        match self {
            Client::H1(client) => client.has_some_body(),
            Client::H2(asking) => asking.has_some_body(),
        }
    }

    /// Whether nothing more of the body comes.
    pub(crate) fn has_whole_body(&self) -> bool {
        match self {
            Client::H1(client) => client.has_whole_body(),
            Client::H2(asking) => asking.has_whole_body(),
        }
    }

    /// Drops what has come of the body; returns whether the whole request has been read now, and
    /// how many bytes these were.
    #[inline]
    pub(crate) fn skip_body(&mut self) -> (bool, u64) {
        match self {
            Client::H1(client) => client.skip_body(),
            Client::H2(asking) => asking.skip_body(),
        }
    }

    /// Bytes that have come and have not been taken.
    pub(crate) fn buffered(&self) -> u64 {
        match self {
            Client::H1(client) => client.buffered(),
            Client::H2(asking) => asking.head_bytes(),
        }
    }

    /// Whether more has come than the present request, as far as that is known before its end, or
    /// came before it was answered.
    #[inline]
    pub(crate) fn is_pipelined(&self) -> bool {
        match self {
            Client::H1(client) => client.is_pipelined(),
            Client::H2(_) => false,
        }
    }

    /// The address of ours that it is connected to, if that can be asked for.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Client::H1(client) => fd::local_address(client.stream().raw()),
            Client::H2(_) => None,
        }
    }

    /// The client as one on whose behalf a backend is waited for; `leaves` is the sign that it
    /// left. That of a stream is always its end.
    #[inline]
    pub(crate) fn waiting(&self, leaves: Leaves) -> ForClient {
        match self {
            Client::H1(client) => client.waiting(leaves),
            Client::H2(asking) => asking.waiting(),
        }
    }

    /// Whether it has left, by what it waits for.
    pub(crate) fn has_left(&self, waiting: ForClient) -> bool {
        match self {
            Client::H1(_) => waiting.has_left(),
            Client::H2(asking) => asking.has_left(),
        }
    }

    /// Until it does something that may be a sign of its leaving.
    pub(crate) async fn stirs(&self) -> Result<(), Unmet> {
        match self {
            Client::H1(client) => client.stirs().await,
            Client::H2(asking) => {
                asking.stirs().await;
                Ok(())
            }
        }
    }

    /// Whether its connection may be kept after the present request.
    #[inline]
    pub(crate) fn keeps(&self) -> bool {
        match self {
            Client::H1(client) => client.keeps(),
            Client::H2(_) => false,
        }
    }

    /// Its connection will not be kept.
    #[inline]
    pub(crate) fn will_close(&mut self) {
        match self {
            Client::H1(client) => client.will_close(),
            Client::H2(_) => {}
        }
    }

    /// Whether a final answer has begun: then no other can be given.
    #[inline]
    pub(crate) fn has_answered(&self) -> bool {
        match self {
            Client::H1(client) => client.has_answered(),
            Client::H2(asking) => asking.has_answered(),
        }
    }

    /// Whether the end of the connection is the end of the answer's body.
    pub(crate) fn ends_by_close(&self) -> bool {
        match self {
            Client::H1(client) => client.ends_by_close(),
            Client::H2(_) => false,
        }
    }

    /// Begins a final answer, whose body has this length, to a request of this version. Its head
    /// leaves with the first piece of its body, which is written at once.
    #[inline]
    pub(crate) fn answer(
        &mut self,
        head: &ResponseHead,
        length: BodyLength,
        version: Version,
        room: Vec<u8>,
    ) -> Sink {
        match self {
            Client::H1(client) => client.answer(head, length, version, room),
            Client::H2(asking) => Sink::H2(asking.answer(head, length, room)),
        }
    }

    /// Sends an interim answer; returns how many bytes it had.
    ///
    /// # Errors
    /// Those of a sink.
    pub(crate) async fn interim(
        &self,
        head: &ResponseHead,
        room: &mut Vec<u8>,
        by: impl Fn() -> Deadline,
    ) -> Result<u64, Fault> {
        match self {
            Client::H1(client) => client.interim(head, room, by).await,
            Client::H2(asking) => asking.interim(head, room),
        }
    }

    /// Sends the answer that switches protocols, after which a tunnel begins; returns how many
    /// bytes it had.
    ///
    /// # Errors
    /// Those of a sink.
    pub(crate) async fn switch(
        &mut self,
        head: &ResponseHead,
        room: &mut Vec<u8>,
        by: impl Fn() -> Deadline,
    ) -> Result<u64, Fault> {
        match self {
            Client::H1(client) => client.switch(head, room, by).await,
            Client::H2(asking) => asking.switch(head, room),
        }
    }

    /// The sink of a tunnel to it.
    pub(crate) fn tunnel(&self) -> Sink {
        match self {
            Client::H1(client) => client.tunnel(),
            Client::H2(asking) => Sink::H2(asking.tunnel()),
        }
    }

    /// Whether bytes of it have come already: as one of TCP.
    pub(crate) fn has_said(&self) -> bool {
        match self {
            Client::H1(client) => client.has_said(),
            Client::H2(_) => false,
        }
    }

    /// A hold on waits for it.
    pub(crate) fn waits(&self) -> Waits {
        match self {
            Client::H1(client) => client.waits(),
            Client::H2(asking) => Waits::H2(Rc::clone(asking.stream())),
        }
    }

    /// From now on the time is measured for which writes wait for it.
    pub(crate) fn time_stalls(&self) {
        match self {
            Client::H1(client) => client.time_stalls(),
            Client::H2(asking) => asking.time_stalls(),
        }
    }

    /// How long writes waited for it since the last call.
    pub(crate) fn take_stalled(&self) -> Micros {
        match self {
            Client::H1(client) => client.take_stalled(),
            Client::H2(asking) => asking.take_stalled(),
        }
    }

    /// The reset by which its stream ended, if it is one and that is what did.
    pub(crate) fn stream_reset(&self) -> Option<StreamReset> {
        match self {
            Client::H1(_) => None,
            Client::H2(asking) => asking.stream().reset(),
        }
    }
}
