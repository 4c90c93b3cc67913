//! The client of an exchange, whatever protocol it speaks: one request at a time.
//!
//! Not a connection: an HTTP/2 connection will have one of these for each of its streams.

use std::{future::Future, rc::Rc};

use crate::base::moment::{Deadline, Micros, Moment};
use crate::http::{
    fault::Fault,
    framing::BodyLength,
    head::{ResponseHead, Version},
    parse::HeadLimits,
};
use crate::net::{
    deadlines::Unmet,
    leaving::{ForClient, Leaves},
};

use super::{Sink, Source, Waits, h1, peer::Peer};

/// A client, with one request at a time.
pub(crate) enum Client {
    H1(h1::Client),
}

impl Client {
    #[inline]
    fn h1(&self) -> &h1::Client {
        let Client::H1(client) = self;
        client
    }

    #[inline]
    fn h1_mut(&mut self) -> &mut h1::Client {
        let Client::H1(client) = self;
        client
    }

    /// The other end of its connection.
    #[inline]
    pub(crate) fn peer(&self) -> &Rc<Peer> {
        &self.h1().peer
    }

    /// When the present request began; none if it is not logged.
    #[inline]
    pub(crate) fn began(&self) -> Option<Moment> {
        self.h1().began
    }

    /// A request begins; its head has been taken. `keeps`: the connection may be kept after it.
    #[inline]
    pub(crate) fn begin(&mut self, keeps: bool) {
        self.h1_mut().begin(keeps);
    }

    /// The request is over, at this moment if it is logged. Anything else that has come is the
    /// next.
    #[inline]
    pub(crate) fn end(&mut self, ended: Option<Moment>) {
        self.h1_mut().end(ended);
    }

    /// Sets the length of the body after the head just taken.
    #[inline]
    pub(crate) fn expect_body(&mut self, length: BodyLength, limits: HeadLimits) {
        self.h1_mut().expect_body(length, limits);
    }

    /// The source of the rest of the request's body; none if it has been taken already.
    pub(crate) fn body(&mut self) -> Option<Source> {
        self.h1_mut().body()
    }

    /// Takes it back, if it is known what comes next from it. Nothing is awaited from the client
    /// now.
    pub(crate) fn put_back(&mut self, source: Option<Source>) {
        self.h1_mut().put_back(source);
    }

    /// What is left of the body, if all of that has come and its length is known (empty if there is
    /// none): it can be sent again.
    #[inline]
    pub(crate) fn held_body(&self) -> Option<&[u8]> {
        self.h1().held_body()
    }

    /// Whether some of the body has come, of a length that is known.
    pub(crate) fn has_some_body(&self) -> bool {
        self.h1().has_some_body()
    }

    /// Whether nothing more of the body comes.
    pub(crate) fn has_whole_body(&self) -> bool {
        self.h1().has_whole_body()
    }

    /// Drops what has come of the body; returns whether the whole request has been read now, and
    /// how many bytes these were.
    #[inline]
    pub(crate) fn skip_body(&mut self) -> (bool, u64) {
        self.h1_mut().skip_body()
    }

    /// Bytes that have come and have not been taken.
    pub(crate) fn buffered(&self) -> u64 {
        self.h1().buffered()
    }

    /// Whether more has come than the present request, as far as that is known before its end, or
    /// came before it was answered.
    #[inline]
    pub(crate) fn is_pipelined(&self) -> bool {
        self.h1().is_pipelined()
    }

    /// The client as one on whose behalf a backend is waited for; `leaves` is the sign that it
    /// left.
    #[inline]
    pub(crate) fn waiting(&self, leaves: Leaves) -> ForClient {
        self.h1().waiting(leaves)
    }

    /// Until it does something that may be a sign of its leaving.
    pub(crate) fn stirs(&self) -> impl Future<Output = Result<(), Unmet>> {
        self.h1().stirs()
    }

    /// Whether its connection may be kept after the present request.
    #[inline]
    pub(crate) fn keeps(&self) -> bool {
        self.h1().keeps()
    }

    /// Its connection will not be kept.
    #[inline]
    pub(crate) fn will_close(&mut self) {
        self.h1_mut().will_close();
    }

    /// Whether a final answer has begun: then no other can be given.
    #[inline]
    pub(crate) fn has_answered(&self) -> bool {
        self.h1().has_answered()
    }

    /// Whether the end of the connection is the end of the answer's body.
    pub(crate) fn ends_by_close(&self) -> bool {
        self.h1().ends_by_close()
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
        self.h1_mut().answer(head, length, version, room)
    }

    /// Sends an interim answer; returns how many bytes it had.
    ///
    /// # Errors
    /// Those of a sink.
    pub(crate) fn interim(
        &self,
        head: &ResponseHead,
        room: &mut Vec<u8>,
        by: impl Fn() -> Deadline,
    ) -> impl Future<Output = Result<u64, Fault>> {
        self.h1().interim(head, room, by)
    }

    /// Sends the answer that switches protocols, after which a tunnel begins; returns how many
    /// bytes it had.
    ///
    /// # Errors
    /// Those of a sink.
    pub(crate) fn switch(
        &mut self,
        head: &ResponseHead,
        room: &mut Vec<u8>,
        by: impl Fn() -> Deadline,
    ) -> impl Future<Output = Result<u64, Fault>> {
        self.h1_mut().switch(head, room, by)
    }

    /// The sink of a tunnel to it.
    pub(crate) fn tunnel(&self) -> Sink {
        self.h1().tunnel()
    }

    /// A hold on waits for it.
    pub(crate) fn waits(&self) -> Waits {
        self.h1().waits()
    }

    /// From now on the time is measured for which writes wait for it.
    pub(crate) fn time_stalls(&self) {
        self.h1().time_stalls();
    }

    /// How long writes waited for it since the last call.
    pub(crate) fn take_stalled(&self) -> Micros {
        self.h1().take_stalled()
    }
}
