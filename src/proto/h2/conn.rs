//! The state of one connection, without its input and output (RFC 9113).
//!
//! # What a connection can hold
//!
//! | what | at most |
//! |---|---|
//! | streams | 100: the least that RFC 9113 §6.5.2 recommends |
//! | bodies that come | 1 MiB, 64 KiB a stream: the windows |
//! | bodies that go | a piece of 64 KiB a stream, and 128 KiB that are being sent |
//! | a block of fields | twice `header-size`, in 32 frames: more cannot become a head |
//! | heads and small frames to be sent | 32 KiB, and what streams under way add |
//! | the table of HPACK | 4 KiB: the standard's |
//!
//! One to a backend carries the requests of many clients, and a client that does not take its
//! answer must hold back nobody else's: its window is that of all its streams together, 6.25 MiB.
//!
//! `sending` has what leaves, `ending` how it ends, `taking` what each frame changes, `request`
//! what the rules of HTTP say of messages; `answers` and `answer` have the same for the other end,
//! that of a backend.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    task::Waker,
};

use super::{
    Asking,
    answers::Asked,
    bounds::{self, WORK_A_TURN},
    frame::{FrameHead, HEAD_BYTES, PAYLOAD_MAX, PREFACE, Reason, kind, of_number, setting},
    guard::{Abuse, Guard},
    hpack::Decoder,
    out::Out,
    places::Share,
    sending::give_turn,
    spare,
    stream::Stream,
    turns::Turns,
};
use crate::base::moment::{Moment, Tick};
use crate::http::parse::HeadLimits;
use crate::net::{buffer::Buffers, deadlines::Deadlines};
use crate::proto::peer::Peer;

/// Streams that a peer may have open at once.
pub(super) const STREAMS_MAX: usize = 100;

/// The window of a stream: that of the standard (RFC 9113 §6.5.2).
pub(super) const WINDOW: i64 = 65_535;

/// The window of a connection: sixteen streams can send at full speed.
const CONN_WINDOW: i64 = 1 << 20;

/// The window of a connection to a backend: all of its streams, whatever the others do.
pub(super) const ASKED_WINDOW: i64 = STREAMS_MAX as i64 * WINDOW;

/// So much of a window is used before the peer is told that it is free again.
const SAID_EACH: u32 = 32 << 10;

/// Frames of one block: with none of them empty, twice as many as its bytes need.
pub(super) const BLOCK_FRAMES_MAX: u32 = 32;

/// Requests of one connection: then it is ended, and made anew elsewhere if need be.
pub(super) const REQUESTS_MAX: u32 = 1 << 20;

/// Streams for which an idle connection keeps its lists.
const LISTED: usize = 4;

/// The state of a connection.
pub(crate) struct Conn {
    pub(super) buffers: Rc<Buffers>,
    pub(super) deadlines: Rc<Deadlines>,
    /// What there is to know of a backend; none = the peer is a client.
    pub(super) asked: Option<Asked>,
    /// The places of a client's streams; none = the peer is a backend.
    pub(super) places: Option<Share>,
    /// Streams whose tasks have not ended.
    pub(super) running: Cell<usize>,
    /// Requests that broke a rule and have not been counted.
    pub(super) malformed: Cell<u32>,
    /// What the peer does too often.
    pub(super) abuse: Cell<Option<Abuse>>,
    pub(super) state: RefCell<State>,
}

pub(super) struct State {
    pub(super) decoder: Decoder,
    /// The open streams, by their numbers.
    pub(super) streams: Vec<Rc<Stream>>,
    /// Those that no task has yet.
    pub(super) new: VecDeque<Rc<Stream>>,
    /// The highest number that the peer has used.
    pub(super) last: u32,
    /// A block of which not all has come.
    pub(super) block: Option<Block>,
    pub(super) has_settings: bool,
    pub(super) out: Out,
    pub(super) turns: Turns,
    /// How much we may send, in all and at first on each stream.
    pub(super) send_window: i64,
    pub(super) first_window: i64,
    pub(super) frame_max: usize,
    /// How much the peer may send, and what has been taken and not been said yet.
    pub(super) window: i64,
    pub(super) unsaid: u32,
    pub(super) leaving: Leaving,
    pub(super) guard: Guard,
    /// Requests that were answered whole, and those that were begun for nothing.
    pub(super) answered: u32,
    pub(super) wasted: u32,
    /// The task that reads and writes.
    pub(super) driver: Option<Waker>,
}

/// Who is at the other end, and what is known of it.
pub(super) enum OtherEnd {
    Backend(Asked),
    Client(Share),
}

/// How far the connection has come with its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leaving {
    No,
    /// The peer was told that an end comes, and streams on their way are still taken.
    Told,
    /// No more streams are taken.
    Closed,
    /// Nothing is read any more, and what is to be sent is the last.
    Over,
}

/// A block of fields that comes in several frames.
pub(super) struct Block {
    pub(super) id: u32,
    pub(super) ends: bool,
    pub(super) bytes: Vec<u8>,
    pub(super) frames: u32,
}

impl Conn {
    /// A connection on which a client has sent its preface. Its settings are to be sent.
    pub(crate) fn new(
        buffers: Rc<Buffers>,
        deadlines: Rc<Deadlines>,
        (limits, places): (&HeadLimits, Share),
    ) -> Rc<Conn> {
        let settings = [
            (setting::STREAMS_MAX, STREAMS_MAX as u32),
            (setting::HEAD_LIST_MAX, u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX)),
            (setting::EXTENDED_CONNECT, 1),
            (setting::NO_OLD_PRIORITIES, 1),
        ];
        Conn::begun((buffers, deadlines), OtherEnd::Client(places), &settings, CONN_WINDOW)
    }

    /// One that says this first, and on which the peer may send so much.
    pub(super) fn begun(
        (buffers, deadlines): (Rc<Buffers>, Rc<Deadlines>),
        other: OtherEnd,
        settings: &[(u16, u32)],
        window: i64,
    ) -> Rc<Conn> {
        let (asked, places) = match other {
            OtherEnd::Backend(asked) => (Some(asked), None),
            OtherEnd::Client(places) => (None, Some(places)),
        };
        let mut state = State {
            decoder: Decoder::default(),
            streams: Vec::new(),
            new: VecDeque::new(),
            last: 0,
            block: None,
            has_settings: false,
            out: Out::default(),
            turns: Turns::default(),
            send_window: WINDOW,
            first_window: WINDOW,
            frame_max: PAYLOAD_MAX,
            window,
            unsaid: 0,
            leaving: Leaving::No,
            guard: Guard::default(),
            answered: 0,
            wasted: 0,
            driver: None,
        };
        if asked.is_some() {
            state.out.push([PREFACE, &[]], &buffers);
        }
        let mut payload = Vec::with_capacity(32);
        for (name, value) in settings {
            payload.extend_from_slice(&name.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        let head = FrameHead { len: payload.len(), kind: kind::SETTINGS, flags: 0, id: 0 };
        state.out.push([&head.bytes(), &payload], &buffers);
        let more = of_number(kind::WINDOW_UPDATE, 0, (window - WINDOW) as u32);
        state.out.push([&more, &[]], &buffers);
        Rc::new(Conn {
            buffers,
            deadlines,
            asked,
            places,
            running: Cell::new(0),
            malformed: Cell::new(0),
            abuse: Cell::new(None),
            state: state.into(),
        })
    }

    pub(super) fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// Takes the whole frames at the front of these bytes, of a client as many as one turn may
    /// have; returns how many bytes they had.
    ///
    /// # Errors
    /// If they break a rule that concerns the whole connection.
    pub(crate) fn receive(
        self: &Rc<Conn>,
        bytes: &[u8],
        limits: &HeadLimits,
        (now, began): (Tick, Option<Moment>),
    ) -> (usize, Result<(), Reason>) {
        let (mut used, mut work) = (0, 0);
        match &self.asked {
            None => self.state.borrow_mut().guard.looks(now),
            Some(asked) => asked.heard(now),
        }
        while let Some(rest) = bytes.get(used..)
            && let Some(head) = FrameHead::read(rest)
        {
            if head.len > PAYLOAD_MAX {
                return (used, Err(Reason::FRAME_SIZE));
            }
            let Some(payload) = rest.get(HEAD_BYTES..HEAD_BYTES + head.len) else { break };
            used += HEAD_BYTES + head.len;
            if let Err(reason) = self.take(head, payload, limits, began) {
                return (used, Err(reason));
            }
            work += bounds::work(head);
            if self.asked.is_none() && (work >= WORK_A_TURN || self.has_many_new()) {
                break;
            }
        }
        (used, Ok(()))
    }

    /// Bytes that came have been taken: the peer may send as many more.
    pub(super) fn said(&self, state: &mut State, count: usize) {
        state.unsaid += count as u32;
        if state.unsaid >= SAID_EACH {
            let count = std::mem::take(&mut state.unsaid);
            state.window += i64::from(count);
            self.send(state, [&of_number(kind::WINDOW_UPDATE, 0, count), &[]]);
        }
    }

    /// Bytes of a stream's body have been taken.
    pub(super) fn took(&self, stream: &Stream, count: usize) {
        let state = &mut *self.state.borrow_mut();
        self.said(state, count);
        let unsaid = stream.unsaid.get() + count as u32;
        stream.unsaid.set(unsaid);
        if unsaid >= SAID_EACH && !stream.has_ended.get() && !stream.is_over() {
            stream.unsaid.set(0);
            stream.window.set(stream.window.get() + i64::from(unsaid));
            self.send(state, [&of_number(kind::WINDOW_UPDATE, stream.id.get(), unsaid), &[]]);
        }
    }

    pub(super) fn send(&self, state: &mut State, parts: [&[u8]; 2]) {
        if state.leaving == Leaving::Over {
            // What there was to send was the last.
            return;
        }
        state.out.push(parts, &self.buffers);
        state.wake_driver();
    }

    pub(super) fn send_reset(&self, state: &mut State, id: u32, reason: Reason) {
        self.send(state, [&of_number(kind::RST_STREAM, id, reason.0), &[]]);
    }

    /// Ends a stream for a fault of the peer's.
    pub(super) fn reset(&self, state: &mut State, id: u32, reason: Reason) {
        self.send_reset(state, id, reason);
        if let Some(stream) = state.forget(id) {
            stream.ends(reason);
            self.leaves_turn(state, &stream);
        }
    }

    pub(super) fn leaves_turn(&self, state: &mut State, stream: &Stream) {
        if state.turns.leave(stream) {
            give_turn(state);
        }
    }

    /// The next request of this client, if there is one that no task has.
    pub(crate) fn next(&self, peer: &Rc<Peer>) -> Option<Asking> {
        loop {
            let stream = self.state.borrow_mut().new.pop_front()?;
            if !stream.is_over() {
                return Some(Asking::new(stream, Rc::clone(peer)));
            }
            // It was reset before anything was done for it.
            self.ran(1);
        }
    }

    /// The task of a stream has ended. What of it is still open is ended too.
    pub(super) fn done(&self, stream: &Stream, otherwise: Reason) {
        self.ran(1);
        let state = &mut *self.state.borrow_mut();
        self.leaves_turn(state, stream);
        let left = {
            let mut came = stream.came.borrow_mut();
            let left = came.rest().len();
            if left == 0 {
                spare::give_body(std::mem::take(&mut came.bytes));
                came.taken = 0;
            }
            left
        };
        self.said(state, left + stream.out.take() as usize);
        if state.forget(stream.id.get()).is_some() {
            // RFC 9113 §8.1: the answer is whole, and the rest of the request is not wanted.
            let is_answered = self.asked.is_none() && stream.is_sent.get();
            let reason = if is_answered { Reason::NO_ERROR } else { otherwise };
            self.send_reset(state, stream.id.get(), reason);
            stream.ends(reason);
        }
        if self.running.get() == 0 {
            state.wake_driver();
        }
        if let Some(asked) = &self.asked {
            asked.changed();
        }
    }

    /// A stream is cut.
    pub(super) fn cut(&self, stream: &Stream) {
        let state = &mut *self.state.borrow_mut();
        if state.find(stream.id.get()).is_some() {
            if self.asked.is_none() && stream.send_window.get() <= 0 {
                // It was given no room until its time was over.
                state.wasted += u32::from(stream.is_waste());
            }
            self.reset(state, stream.id.get(), Reason::CANCEL);
        }
        stream.ends(Reason::CANCEL);
    }

    /// Checks what must always be so.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let state = self.state.borrow();
        let window = if self.asked.is_some() { ASKED_WINDOW } else { CONN_WINDOW };
        assert!(state.window >= 0 && state.window + i64::from(state.unsaid) <= window);
        assert!(state.streams.len() <= STREAMS_MAX && self.running.get() <= STREAMS_MAX);
        assert!(state.streams.is_sorted_by_key(|stream| stream.id.get()));
        let held: usize = state.streams.iter().map(|it| it.came.borrow().bytes.len()).sum();
        assert!(held as i64 <= window, "{held} bytes of bodies");
    }

    /// Whether the peer may be read: not while it does not take what it made us send.
    pub(crate) fn may_read(&self) -> bool {
        !self.state.borrow().out.is_crowded()
    }

    /// What the peer has done too often, if that has ended the connection.
    pub(crate) fn abuse(&self) -> Option<Abuse> {
        self.abuse.take()
    }

    /// Requests that broke a rule since the last call.
    pub(crate) fn take_malformed(&self) -> u32 {
        self.malformed.take()
    }

    /// Whether nothing is under way.
    #[inline]
    pub(crate) fn is_idle(&self) -> bool {
        self.running.get() == 0
    }

    /// Whether a block has begun and not ended.
    pub(crate) fn is_in_block(&self) -> bool {
        self.state.borrow().block.is_some()
    }

    /// Whether the peer knows that no more streams are taken.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.state.borrow().leaving, Leaving::Closed | Leaving::Over)
    }

    /// Gives back what is not needed while nothing is under way.
    pub(crate) fn rest(&self) {
        let state = &mut *self.state.borrow_mut();
        state.decoder.rest();
        state.streams.shrink_to(LISTED);
        state.new.shrink_to(LISTED);
    }
}

impl State {
    /// Whether no stream of this number has been open yet.
    pub(super) fn is_unused(&self, id: u32) -> bool {
        id > self.last || id.is_multiple_of(2)
    }

    fn place(&self, id: u32) -> Option<usize> {
        self.streams.binary_search_by_key(&id, |stream| stream.id.get()).ok()
    }

    pub(super) fn find(&self, id: u32) -> Option<Rc<Stream>> {
        self.place(id).and_then(|at| self.streams.get(at)).map(Rc::clone)
    }

    /// A stream is open no more.
    pub(super) fn forget(&mut self, id: u32) -> Option<Rc<Stream>> {
        self.place(id).map(|at| self.streams.remove(at))
    }

    pub(super) fn sent_end(&mut self, stream: &Stream) {
        stream.is_sent.set(true);
        if stream.has_ended.get() {
            self.answered += 1;
            self.forget(stream.id.get());
        }
    }

    pub(super) fn wake_driver(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }
}
