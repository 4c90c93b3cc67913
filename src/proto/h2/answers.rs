//! What a connection to a backend has besides that of a client: streams that are opened here, their
//! answers, and what the backend says of itself (RFC 9113 §5.1.2, §6.8, §8.7).
//!
//! A stream gets its number when its request is sent. A request that the backend says it has not
//! processed, by a reset or by the number in its GOAWAY, is a fault of its own (`Unprocessed`): any
//! request may be sent again then. When the connection breaks, one of its streams says so of the
//! backend; the others only say that it has ended, so that one failure counts once.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
};

use super::{
    answer,
    bell::Bell,
    conn::{ASKED_WINDOW, Conn, Leaving, OtherEnd, REQUESTS_MAX, STREAMS_MAX, State},
    frame::{FrameHead, Reason, kind, number, setting},
    request::NoHead,
    stream::Stream,
    taking::Taken,
};
use crate::base::{
    ids::{BackendId, PoolId},
    moment::Tick,
};
use crate::http::{
    fault::{Cause, Side},
    framing::{self, BodyLength},
    head::{Method, ResponseHead},
    names::Name,
    parse::HeadLimits,
};
use crate::net::{
    buffer::Buffers,
    deadlines::{Deadlines, Watch},
};

/// Interim answers that lie here: more than any honest backend sends before its final one.
const INTERIM_MAX: usize = 32;

/// Heads that are kept for the next answers.
const HEADS_KEPT: usize = 32;

/// What is known of the backend at the other end.
#[derive(Default)]
pub(crate) struct Asked {
    /// Rung when there may be room, or an end.
    bell: Rc<Bell>,
    /// Streams that it takes at once; none = it has not said.
    streams_max: Cell<Option<u32>>,
    /// Whether it speaks other protocols than HTTP on streams (RFC 8441 §3).
    takes_connect: Cell<bool>,
    /// Requests so far, including those that are about to be sent.
    pub(super) requests: Cell<u32>,
    /// When something came last, and how often that was.
    heard_at: Cell<Option<Tick>>,
    heard: Cell<u64>,
    /// Since when an answer to a ping is waited for.
    pinged_at: Cell<Option<Tick>>,
    /// What its end says of the backend; none once a stream has said it.
    says: Cell<Option<Cause>>,
    heads: RefCell<Vec<ResponseHead>>,
}

/// The answers to one stream.
#[derive(Default)]
pub(crate) struct Answers {
    /// The first that was not taken, and those behind it: there are some only while interim ones
    /// come faster than they are taken.
    head: RefCell<Option<ResponseHead>>,
    behind: RefCell<VecDeque<ResponseHead>>,
    /// Whether any head has come, and whether the final one has.
    pub(super) has_begun: Cell<bool>,
    pub(super) has_final: Cell<bool>,
    /// Whether the request is a HEAD.
    pub(super) is_to_head: Cell<bool>,
    /// Whether it asks for a WebSocket by CONNECT: a 2xx begins a tunnel (RFC 8441 §4).
    pub(super) is_tunnel: Cell<bool>,
    /// Why the stream ended early, if it did.
    pub(super) fault: Cell<Option<Cause>>,
    /// How often something had come on its connection when its request was sent.
    heard: Cell<u64>,
    /// Whether the connection had carried others before it.
    pub(super) is_reused: bool,
}

impl Answers {
    pub(super) fn take(&self) -> Option<ResponseHead> {
        let next = self.head.take();
        if next.is_some() && !self.behind.borrow().is_empty() {
            *self.head.borrow_mut() = self.behind.borrow_mut().pop_front();
        }
        next
    }

    fn push(&self, head: ResponseHead) {
        let mut first = self.head.borrow_mut();
        match &*first {
            Some(_) => self.behind.borrow_mut().push_back(head),
            None => *first = Some(head),
        }
    }
}

impl Asked {
    pub(super) fn heard(&self, now: Tick) {
        self.heard_at.set(Some(now));
        self.heard.set(self.heard.get() + 1);
        if self.pinged_at.take().is_some() {
            // Whatever it was: the backend is there.
            self.bell.ring();
        }
    }

    #[inline]
    pub(super) fn changed(&self) {
        self.bell.ring();
    }

    /// What the end of the connection says of the backend, of one of its streams.
    pub(super) fn lost(&self, stream: &Stream) -> Cause {
        let Some(answers) = stream.answers.get() else { return Cause::BackendReset };
        // It was closing while the request was on its way (RFC 9112 §9.3.1 has the same).
        let is_stale = answers.is_reused && answers.heard.get() == self.heard.get();
        match self.says.get() {
            Some(Cause::BackendReset) if is_stale => Cause::BackendStale,
            Some(cause) => {
                self.says.set(None);
                cause
            }
            None => Cause::BackendStale,
        }
    }

    pub(super) fn give_back(&self, head: ResponseHead) {
        let mut heads = self.heads.borrow_mut();
        if heads.len() < HEADS_KEPT && head.headers.bytes.capacity() <= 4 << 10 {
            heads.push(head);
        }
    }
}

impl Conn {
    /// A connection to a backend. Our preface and settings are to be sent.
    pub(crate) fn to_backend(
        buffers: &Rc<Buffers>,
        deadlines: &Rc<Deadlines>,
        limits: &HeadLimits,
        bell: &Rc<Bell>,
    ) -> Rc<Conn> {
        let bell = Rc::clone(bell);
        let asked = Asked { bell, says: Cell::new(Some(Cause::BackendReset)), ..Asked::default() };
        let settings = [
            (setting::ENABLE_PUSH, 0),
            (setting::HEAD_LIST_MAX, u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX)),
            (setting::NO_OLD_PRIORITIES, 1),
        ];
        let of = (Rc::clone(buffers), Rc::clone(deadlines));
        Conn::begun(of, OtherEnd::Backend(asked), &settings, ASKED_WINDOW)
    }

    /// Whether the backend has said how it speaks.
    pub(crate) fn has_settings(&self) -> bool {
        self.state.borrow().has_settings
    }

    /// Whether it takes no more requests, or will take none.
    pub(crate) fn is_spent(&self) -> bool {
        let requests = self.asked.as_ref().map_or(0, |asked| asked.requests.get());
        requests >= REQUESTS_MAX || self.state.borrow().leaving != Leaving::No
    }

    /// Whether nothing is read or written any more.
    pub(crate) fn is_over(&self) -> bool {
        self.state.borrow().leaving == Leaving::Over
    }

    /// Whether it takes another request now.
    pub(crate) fn has_room(&self) -> bool {
        let most = self.asked.as_ref().and_then(|asked| asked.streams_max.get());
        let most = most.map_or(STREAMS_MAX, |most| STREAMS_MAX.min(most as usize));
        self.running.get() < most && self.has_settings() && !self.is_spent()
    }

    /// Requests that it has been given so far.
    pub(crate) fn requests(&self) -> u32 {
        self.asked.as_ref().map_or(0, |asked| asked.requests.get())
    }

    /// When something came last; none = never.
    pub(crate) fn heard_at(&self) -> Option<Tick> {
        self.asked.as_ref().and_then(|asked| asked.heard_at.get())
    }

    /// Since when it has not answered a ping.
    pub(crate) fn pinged_at(&self) -> Option<Tick> {
        self.asked.as_ref().and_then(|asked| asked.pinged_at.get())
    }

    /// Asks whether the backend is there, unless that is being asked.
    pub(crate) fn probe(&self, now: Tick) {
        let Some(asked) = self.asked.as_ref().filter(|asked| asked.pinged_at.get().is_none())
        else {
            return;
        };
        asked.pinged_at.set(Some(now));
        let ping = FrameHead { len: 8, kind: kind::PING, flags: 0, id: 0 };
        self.send(&mut self.state.borrow_mut(), [&ping.bytes(), b"ringway\0"]);
    }

    /// What its end says of the backend, if no stream has said it.
    pub(crate) fn says(&self) -> Option<Cause> {
        self.asked.as_ref().and_then(|asked| asked.says.get())
    }

    /// What its end says of the backend, if that is not that it closed the connection.
    pub(crate) fn blames(&self, cause: Cause) {
        if let Some(asked) = &self.asked {
            asked.says.set(asked.says.get().map(|_| cause));
        }
    }

    /// A stream for a request that is sent soon, in a connection that has room.
    pub(crate) fn reserve(self: &Rc<Conn>, (pool, backend): (PoolId, BackendId)) -> Rc<Stream> {
        let window = self.state.borrow().first_window;
        let stream = self.stream(0, Watch::Asked, window);
        stream.watched.is_of(pool, backend);
        let requests = self.requests();
        let _ = stream.answers.set(Answers { is_reused: requests > 0, ..Answers::default() });
        self.running.set(self.running.get() + 1);
        if let Some(asked) = &self.asked {
            asked.requests.set(requests + 1);
        }
        Rc::new(stream)
    }

    /// Sends the head of a request, and its end with it if nothing follows; false if the backend
    /// takes none any more.
    pub(super) fn opens(
        &self,
        (stream, answers): (&Rc<Stream>, &Answers),
        block: &[u8],
        ends: bool,
    ) -> bool {
        let state = &mut *self.state.borrow_mut();
        if state.leaving != Leaving::No || stream.is_over() {
            return false;
        }
        state.last = if state.last == 0 { 1 } else { state.last + 2 };
        stream.id.set(state.last);
        stream.send_window.set(state.first_window);
        answers.heard.set(self.asked.as_ref().map_or(0, |asked| asked.heard.get()));
        state.streams.push(Rc::clone(stream));
        state.out.push_block((state.last, ends), block, state.frame_max, &self.buffers);
        if ends {
            state.sent_end(stream);
        }
        state.wake_driver();
        true
    }

    /// A setting whose meaning depends on who says it.
    pub(super) fn is_told(&self, name: u16, value: u32) {
        let Some(asked) = &self.asked else { return };
        match name {
            setting::STREAMS_MAX => asked.streams_max.set(Some(value)),
            setting::EXTENDED_CONNECT => asked.takes_connect.set(value == 1),
            _ => {}
        }
    }

    /// Whether another protocol may be asked for on a stream.
    pub(super) fn takes_connect(&self) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.takes_connect.get())
    }

    /// The backend begins no more streams, and tells which it has begun.
    pub(super) fn goaway(&self, state: &mut State, payload: &[u8]) -> Taken {
        let Some(asked) = &self.asked else { return Ok(()) };
        let last = number(payload).unwrap_or_default() & 0x7fff_ffff;
        if state.leaving == Leaving::No {
            state.leaving = Leaving::Closed;
        }
        let begun = state.streams.partition_point(|stream| stream.id.get() <= last);
        for stream in state.streams.split_off(begun) {
            stream.fails(Reason::REFUSED, Cause::BackendUnprocessed);
            self.leaves_turn(state, &stream);
        }
        state.wake_driver();
        asked.changed();
        Ok(())
    }

    /// All of a block has come: a head of an answer, or trailers.
    pub(super) fn answer(
        &self,
        state: &mut State,
        (id, ends): (u32, bool),
        block: &[u8],
        limits: &HeadLimits,
    ) -> Taken {
        let Some(asked) = self.asked.as_ref().filter(|_| !state.is_unused(id)) else {
            return Err(Reason::PROTOCOL);
        };
        let stream = state.find(id);
        let has_final = |stream: &Rc<Stream>| {
            stream.answers.get().is_some_and(|answers| answers.has_final.get())
        };
        if stream.as_ref().is_some_and(has_final) {
            return self.trailers(state, (id, ends), block, limits);
        }
        // Read in any case: the next block builds on it.
        let mut head = asked.heads.borrow_mut().pop().unwrap_or_default();
        let read = answer::read(&mut state.decoder, block, limits, &mut head);
        if read == Err(NoHead::Unreadable) {
            return Err(Reason::COMPRESSION);
        }
        let Some(stream) = stream else { return Ok(()) };
        let Some(answers) = stream.answers.get() else { return Ok(()) };
        let head_bytes_max_is_broken = matches!(read, Err(NoHead::Refused(_)));
        if head_bytes_max_is_broken {
            stream.is_reset(Side::Proxy, Reason::CANCEL);
            stream.fails(Reason::CANCEL, Cause::ResponseHeadTooLarge);
            self.reset(state, id, Reason::CANCEL);
            return Ok(());
        }
        let is_final = head.status >= 200;
        let method = if answers.is_to_head.get() { Method::Head } else { Method::Get };
        let begins_tunnel = answers.is_tunnel.get() && matches!(head.status, 200..=299);
        let length = if begins_tunnel {
            // RFC 9110 §9.3.6: its length means nothing.
            head.headers.remove(Name::ContentLength);
            Ok(BodyLength::UntilClose)
        } else {
            framing::response(method, &mut head)
        };
        let waiting = answers.behind.borrow().len();
        let is_sound = match (is_final, length) {
            (true, Ok(BodyLength::Fixed(bytes))) => !ends || bytes == 0,
            (true, Ok(_)) => true,
            // RFC 9113 §8.1.1, §8.6.
            (false, Ok(_)) => !ends && head.status != 101 && waiting < INTERIM_MAX,
            (_, Err(_)) => false,
        };
        if read.is_err() || !is_sound {
            return self.provoked(state, id, Reason::PROTOCOL);
        }
        if let (true, Ok(BodyLength::Fixed(bytes))) = (is_final, length) {
            stream.announced.set(Some(bytes));
        }
        answers.has_begun.set(true);
        answers.has_final.set(is_final);
        answers.push(head);
        if ends {
            self.ended(state, &stream)?;
        }
        stream.wake();
        Ok(())
    }
}

/// What a reset by the peer says, if that is a backend.
pub(super) fn was_reset(reason: Reason) -> Cause {
    if reason == Reason::REFUSED { Cause::BackendUnprocessed } else { Cause::BackendReset }
}
