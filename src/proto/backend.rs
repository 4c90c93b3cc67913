//! The backend of one exchange, whatever protocol it speaks: requests to it, answers from it.
//!
//! Not a connection: one of HTTP/2 has one of these for each of its streams. Dropping it ends what
//! is under way with it.

use std::{cell::Cell, rc::Rc};

use super::{Sink, Source, Waits, h1, h2};
use crate::base::moment::{Deadline, Micros, Moment};
use crate::http::{
    fault::{Fault, StreamReset},
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
    H2(h2::Backend),
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
    /// A request is sent on its connection now; from now on the time is measured for which it
    /// waits, if that is wanted.
    #[inline]
    pub(crate) fn begin(&mut self, is_timed: bool) {
        match self {
            Backend::H1(backend) => backend.begin(is_timed),
            Backend::H2(backend) => backend.begin(is_timed),
        }
    }

    /// Whether its connection has carried a request before the present one.
    #[inline]
    pub(crate) fn is_reused(&self) -> bool {
        match self {
            Backend::H1(backend) => backend.is_reused(),
            Backend::H2(backend) => backend.is_reused(),
        }
    }

    /// Whether its connection may be reused after the present answer.
    #[inline]
    pub(crate) fn keeps(&self) -> bool {
        match self {
            Backend::H1(backend) => backend.keeps(),
            Backend::H2(backend) => backend.keeps(),
        }
    }

    /// Whether it has not taken the head of the present request.
    #[inline]
    pub(crate) fn has_refused(&self) -> bool {
        match self {
            Backend::H1(backend) => backend.has_refused(),
            Backend::H2(_) => false,
        }
    }

    /// Whether any byte of the present answer has come.
    pub(crate) fn has_begun(&self) -> bool {
        match self {
            Backend::H1(backend) => backend.has_begun(),
            Backend::H2(backend) => backend.has_begun(),
        }
    }

    /// Sends the head of a request, with all of its body that is at hand; returns whether it was
    /// taken, or is on its way: a small request is not waited for, and `head` hears of it. A
    /// backend that does not take a request may have answered it all the same.
    ///
    /// # Errors
    /// If it takes nothing in time, or we ran out of something.
    #[inline]
    pub(crate) async fn ask(
        &mut self,
        asking: &Asking<'_>,
        room: &mut Vec<u8>,
        by: impl Fn() -> Deadline,
    ) -> Result<bool, Fault> {
        match self {
            Backend::H1(backend) => backend.ask(asking, room, by).await,
            Backend::H2(backend) => backend.ask(asking, room, by).await,
        }
    }

    /// The sink for the rest of the body that was announced with the head.
    pub(crate) fn body(&self, length: BodyLength) -> Sink {
        match self {
            Backend::H1(backend) => backend.body(length),
            Backend::H2(backend) => Sink::H2(backend.body()),
        }
    }

    /// Reads the next head of an answer; `into` also has the room of the request. The deadline and
    /// the client may be set while it waits.
    ///
    /// # Errors
    /// If none comes, or no valid one.
    #[inline]
    pub(crate) async fn head(
        &self,
        arriving: &mut Arriving,
        into: (&mut ResponseHead, &mut Vec<u8>),
        with: (&HeadLimits, &Buffers),
        bounds: (&Cell<Deadline>, &Cell<ForClient>),
    ) -> Result<(), Fault> {
        match self {
            Backend::H1(backend) => backend.head(arriving, into, with, bounds).await,
            Backend::H2(backend) => backend.head(arriving, into.0, bounds).await,
        }
    }

    /// The source of the body after the final head.
    #[inline]
    pub(crate) fn source(
        &mut self,
        arriving: Arriving,
        head: (&ResponseHead, BodyLength),
        limits: HeadLimits,
    ) -> Option<Source> {
        match self {
            Backend::H1(backend) => backend.source(arriving, head, limits),
            Backend::H2(backend) => Some(Source::H2(backend.source())),
        }
    }

    /// Its answer is whole, and so is the request.
    #[inline]
    pub(crate) fn is_done(&self) {
        match self {
            Backend::H1(backend) => backend.is_done(),
            Backend::H2(_) => {}
        }
    }

    /// The source of all that comes from it, if nothing has come yet.
    pub(crate) fn all(&self, buffers: &Rc<Buffers>) -> Source {
        match self {
            Backend::H1(backend) => Source::H1(backend.all(buffers)),
            Backend::H2(backend) => Source::H2(backend.source()),
        }
    }

    /// The sink of a tunnel to it.
    pub(crate) fn tunnel(&self) -> Sink {
        match self {
            Backend::H1(backend) => backend.tunnel(),
            Backend::H2(backend) => Sink::H2(backend.tunnel()),
        }
    }

    /// A hold on waits for it.
    pub(crate) fn waits(&self) -> Waits {
        match self {
            Backend::H1(backend) => backend.waits(),
            Backend::H2(backend) => backend.waits(),
        }
    }

    /// How long writes waited for it since the last call.
    pub(crate) fn take_stalled(&self) -> Micros {
        match self {
            Backend::H1(backend) => backend.take_stalled(),
            Backend::H2(backend) => backend.take_stalled(),
        }
    }

    /// Whether, and why, we ended reading it.
    pub(crate) fn read_ended(&self) -> Option<Ended> {
        match self {
            Backend::H1(backend) => backend.read_ended(),
            Backend::H2(backend) => backend.read_ended(),
        }
    }

    /// The reset by which its stream ended, if it is one and that is what did.
    pub(crate) fn stream_reset(&self) -> Option<StreamReset> {
        match self {
            Backend::H1(_) => None,
            Backend::H2(backend) => backend.reset(),
        }
    }
}
