//! The backend of one exchange, whatever protocol it speaks: requests to it, answers from it.

use std::{cell::Cell, future::Future, rc::Rc};

use super::{Sink, Source, Waits, h1};
use crate::base::moment::{Deadline, Micros, Moment};
use crate::http::{
    fault::Fault,
    framing::BodyLength,
    head::{RequestHead, ResponseHead},
    parse::HeadLimits,
};
use crate::net::{
    buffer::{Buffer, Buffers},
    clock::Clock,
    deadlines::Ended,
    leaving::ForClient,
};

/// The backend of one exchange.
pub(crate) enum Backend {
    H1(h1::Backend),
}

/// A request as the backend should get it.
pub(crate) struct Asking<'a> {
    pub(crate) head: &'a RequestHead,
    /// The value of Host, if not the client's.
    pub(crate) host: Option<&'a [u8]>,
    pub(crate) length: BodyLength,
    /// The part of the body that other backends got before, and whether that is all of it.
    pub(crate) before: Option<(&'a [u8], bool)>,
    /// All of the body after `before`, if it is at hand and its length is known.
    pub(crate) held: Option<&'a [u8]>,
    /// Whether the first of the body follows at once.
    pub(crate) body_follows: bool,
}

/// What has come of an answer.
#[derive(Default)]
pub(crate) struct Arriving {
    pub(super) buffer: Option<Buffer>,
    /// Whether any byte of an answer has come.
    pub(super) is_seen: bool,
    /// Whether what comes is timed.
    is_timed: bool,
    /// When the first byte of the latest head came, if it has.
    pub(super) at: Option<Moment>,
    /// When something came last.
    last: Option<Moment>,
}

impl Arriving {
    /// Nothing yet. `is_timed`: it is to be noted when something comes.
    #[inline]
    pub(crate) fn new(is_timed: bool) -> Arriving {
        Arriving { is_timed, ..Arriving::default() }
    }

    /// When the first byte of the latest head came, if it has and that is recorded.
    #[inline]
    pub(crate) fn at(&self) -> Option<Moment> {
        self.at
    }

    /// When something came last, if it has and that is recorded.
    #[inline]
    pub(crate) fn last(&self) -> Option<Moment> {
        self.last
    }

    /// Something has come.
    #[inline]
    pub(super) fn note(&mut self) {
        self.is_seen = true;
        if self.is_timed {
            let now = Clock::moment();
            self.at.get_or_insert(now);
            self.last = Some(now);
        }
    }
}

impl Backend {
    #[inline]
    fn h1(&self) -> &h1::Backend {
        let Backend::H1(backend) = self;
        backend
    }

    #[inline]
    fn h1_mut(&mut self) -> &mut h1::Backend {
        let Backend::H1(backend) = self;
        backend
    }

    /// A request is sent on its connection now; from now on the time is measured for which it
    /// waits, if that is wanted.
    #[inline]
    pub(crate) fn begin(&mut self, is_timed: bool) {
        self.h1_mut().begin(is_timed);
    }

    /// Whether its connection has carried a request before the present one.
    #[inline]
    pub(crate) fn is_reused(&self) -> bool {
        self.h1().is_reused()
    }

    /// Whether its connection may be reused after the present answer.
    #[inline]
    pub(crate) fn keeps(&self) -> bool {
        self.h1().keeps()
    }

    /// Whether it has not taken the head of the present request.
    #[inline]
    pub(crate) fn has_refused(&self) -> bool {
        self.h1().has_refused()
    }

    /// Whether any byte of the present answer has come.
    pub(crate) fn has_begun(&self) -> bool {
        self.h1().has_begun()
    }

    /// Sends the head of a request, with all of its body that is at hand; returns whether it was
    /// taken, or is on its way: a small request is not waited for, and `head` hears of it. A
    /// backend that does not take a request may have answered it all the same.
    ///
    /// # Errors
    /// If it takes nothing in time, or we ran out of something.
    pub(crate) fn ask(
        &mut self,
        asking: &Asking<'_>,
        room: &mut Vec<u8>,
        by: impl Fn() -> Deadline,
    ) -> impl Future<Output = Result<bool, Fault>> {
        self.h1_mut().ask(asking, room, by)
    }

    /// The sink for the rest of the body that was announced with the head.
    pub(crate) fn body(&self, length: BodyLength) -> Sink {
        self.h1().body(length)
    }

    /// Reads the next head of an answer; `into` also has the room of the request. The deadline and
    /// the client may be set while it waits.
    ///
    /// # Errors
    /// If none comes, or no valid one.
    pub(crate) fn head(
        &self,
        arriving: &mut Arriving,
        into: (&mut ResponseHead, &mut Vec<u8>),
        with: (&HeadLimits, &Buffers),
        bounds: (&Cell<Deadline>, &Cell<ForClient>),
    ) -> impl Future<Output = Result<(), Fault>> {
        self.h1().head(arriving, into, with, bounds)
    }

    /// The source of the body after the final head.
    #[inline]
    pub(crate) fn source(
        &mut self,
        arriving: Arriving,
        head: (&ResponseHead, BodyLength),
        limits: HeadLimits,
    ) -> Option<Source> {
        self.h1_mut().source(arriving, head, limits)
    }

    /// The source of all that comes from it, if nothing has come yet.
    pub(crate) fn all(&self, buffers: &Rc<Buffers>) -> Source {
        Source::H1(self.h1().all(buffers))
    }

    /// The sink of a tunnel to it.
    pub(crate) fn tunnel(&self) -> Sink {
        self.h1().tunnel()
    }

    /// A hold on waits for it.
    pub(crate) fn waits(&self) -> Waits {
        self.h1().waits()
    }

    /// How long writes waited for it since the last call.
    pub(crate) fn take_stalled(&self) -> Micros {
        self.h1().take_stalled()
    }

    /// Whether, and why, we ended reading it.
    pub(crate) fn read_ended(&self) -> Option<Ended> {
        self.h1().read_ended()
    }
}
