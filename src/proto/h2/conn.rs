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
//! `taking` has what each frame changes, `request` what the rules of HTTP say of messages;
//! `answers` and `answer` have the same for the other end, that of a backend.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
};

use super::{
    Asking,
    answers::Asked,
    frame::{
        FrameHead, HEAD_BYTES, PAYLOAD_MAX, PREFACE, Reason, WINDOW_MAX, flag, kind, of_number,
        setting,
    },
    guard::{Abuse, Guard},
    hpack::Decoder,
    out::Out,
    request::Room,
    stream::{Stream, Turn},
    turns::Turns,
};
use crate::base::moment::{Moment, Tick};
use crate::http::{head::RequestHead, parse::HeadLimits};
use crate::net::{
    buffer::{Buffer, Buffers},
    deadlines::Deadlines,
};
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

/// A frame that we send may be answered by so many that give room, for its stream and for all.
const ROOMS_A_FRAME: u32 = 4;

/// Requests of one connection: then it is ended, and made anew elsewhere if need be.
pub(super) const REQUESTS_MAX: u32 = 1 << 20;

/// Heads that are kept for the next requests.
const HEADS_KEPT: usize = 32;

/// The state of a connection.
pub(crate) struct Conn {
    pub(super) buffers: Rc<Buffers>,
    pub(super) deadlines: Rc<Deadlines>,
    /// What there is to know of a backend; none = the peer is a client.
    pub(super) asked: Option<Asked>,
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
    pub(super) room: Room,
    pub(super) heads: Vec<RequestHead>,
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
    /// The task that reads and writes.
    pub(super) driver: Option<Waker>,
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

/// What became of bytes that were to be sent.
pub(super) struct Put {
    pub(super) taken: usize,
    /// Whether all of them were, and the end too, if it was to be sent.
    pub(super) is_done: bool,
}

impl Conn {
    /// A connection on which a client has sent its preface. Its settings are to be sent.
    pub(crate) fn new(
        buffers: Rc<Buffers>,
        deadlines: Rc<Deadlines>,
        limits: &HeadLimits,
    ) -> Rc<Conn> {
        let settings = [
            (setting::STREAMS_MAX, STREAMS_MAX as u32),
            (setting::HEAD_LIST_MAX, u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX)),
            (setting::EXTENDED_CONNECT, 1),
            (setting::NO_OLD_PRIORITIES, 1),
        ];
        Conn::begun((buffers, deadlines), None, &settings, CONN_WINDOW)
    }

    /// One that says this first, and on which the peer may send so much.
    pub(super) fn begun(
        (buffers, deadlines): (Rc<Buffers>, Rc<Deadlines>),
        asked: Option<Asked>,
        settings: &[(u16, u32)],
        window: i64,
    ) -> Rc<Conn> {
        let mut state = State {
            decoder: Decoder::default(),
            room: Room::default(),
            heads: Vec::new(),
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
            running: Cell::new(0),
            malformed: Cell::new(0),
            abuse: Cell::new(None),
            state: state.into(),
        })
    }

    pub(super) fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    /// Takes the whole frames at the front of these bytes; returns how many bytes they had.
    ///
    /// # Errors
    /// If they break a rule that concerns the whole connection.
    pub(crate) fn receive(
        self: &Rc<Conn>,
        bytes: &[u8],
        limits: &HeadLimits,
        (now, began): (Tick, Option<Moment>),
    ) -> (usize, Result<(), Reason>) {
        let mut used = 0;
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
            self.running.set(self.running.get().saturating_sub(1));
        }
    }

    /// Sends a head or trailers.
    pub(super) fn put_block(&self, stream: &Stream, block: &[u8], ends: bool) {
        let state = &mut *self.state.borrow_mut();
        if stream.is_over() || state.leaving == Leaving::Over {
            return;
        }
        state.out.push_block((stream.id.get(), ends), block, state.frame_max, &self.buffers);
        if ends {
            state.sent_end(stream);
        }
        state.wake_driver();
    }

    /// Sends bytes of a body, as far as there is room, and its end behind the last.
    pub(super) fn put(&self, stream: &Rc<Stream>, bytes: &[u8], ends: bool) -> Put {
        let state = &mut *self.state.borrow_mut();
        state.turns.is_used(stream);
        let mut taken = 0;
        loop {
            let rest = bytes.get(taken..).unwrap_or_default();
            if rest.is_empty() && !(ends && taken == 0 && bytes.is_empty()) {
                if stream.turn.replace(Turn::None) == Turn::Its {
                    give_turn(state);
                }
                return Put { taken, is_done: true };
            }
            let turn = stream.turn.get();
            if turn != Turn::Its && !rest.is_empty() && state.turns.are_wanted() {
                state.turns.wait(stream);
                return Put { taken, is_done: false };
            }
            let windows = stream.send_window.get().min(state.send_window).max(0);
            let room = state.out.room().min(state.frame_max);
            let count = rest.len().min(room).min(usize::try_from(windows).unwrap_or_default());
            if count == 0 && !rest.is_empty() {
                if stream.send_window.get() > 0 {
                    state.turns.wait(stream);
                } else if stream.turn.replace(Turn::None) == Turn::Its {
                    give_turn(state);
                }
                return Put { taken, is_done: false };
            }
            let (piece, behind) = rest.split_at_checked(count).unwrap_or((rest, &[]));
            let is_last = ends && behind.is_empty();
            let flags = if is_last { flag::END_STREAM } else { 0 };
            let head = FrameHead { len: piece.len(), kind: kind::DATA, flags, id: stream.id.get() };
            state.out.push([&head.bytes(), piece], &self.buffers);
            state.send_window -= count as i64;
            state.guard.excuses(Abuse::WindowUpdates, ROOMS_A_FRAME);
            stream.send_window.set(stream.send_window.get() - count as i64);
            taken += count;
            state.wake_driver();
            if is_last {
                state.sent_end(stream);
            }
            if behind.is_empty() {
                if stream.turn.replace(Turn::None) == Turn::Its {
                    give_turn(state);
                }
                return Put { taken, is_done: true };
            }
            if state.turns.are_wanted() {
                // A turn is one frame.
                stream.turn.set(Turn::None);
                state.turns.wait(stream);
                give_turn(state);
                return Put { taken, is_done: false };
            }
        }
    }

    /// The task of a stream has ended. What of it is still open is ended too.
    pub(super) fn done(&self, stream: &Stream, otherwise: Reason) {
        self.running.set(self.running.get().saturating_sub(1));
        let state = &mut *self.state.borrow_mut();
        self.leaves_turn(state, stream);
        let left = stream.came.borrow().rest().len();
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
            self.reset(state, stream.id.get(), Reason::CANCEL);
        }
        stream.ends(Reason::CANCEL);
    }

    /// A head for a later request.
    pub(super) fn give_back(&self, head: RequestHead) {
        let heads = &mut self.state.borrow_mut().heads;
        if heads.len() < HEADS_KEPT && head.headers.bytes.capacity() <= 4 << 10 {
            heads.push(head);
        }
    }

    /// Waits for something to send; none when the last has been sent. Its buffer is the caller's.
    pub(crate) async fn output(&self) -> Option<Buffer> {
        poll_fn(|cx| {
            let state = &mut *self.state.borrow_mut();
            if let Some(buffer) = self.take_output(state) {
                return Poll::Ready(Some(buffer));
            }
            if state.leaving == Leaving::Over {
                return Poll::Ready(None);
            }
            if !state.driver.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                state.driver = Some(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// Takes what is to be sent next, which makes room for more.
    fn take_output(&self, state: &mut State) -> Option<Buffer> {
        let buffer = state.out.take(&self.buffers)?;
        give_turn(state);
        Some(buffer)
    }

    /// What is to be sent now.
    #[cfg(test)]
    pub(super) fn output_now(&self) -> Option<Buffer> {
        self.take_output(&mut self.state.borrow_mut())
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

    /// Tells the peer that the connection will end (RFC 9113 §6.8): it opens no more streams, and
    /// those that are on their way are still served. Its answer to a ping tells when they have
    /// come.
    pub(crate) fn warn(&self) {
        self.warn_in(&mut self.state.borrow_mut());
    }

    pub(super) fn warn_in(&self, state: &mut State) {
        if state.leaving != Leaving::No {
            return;
        }
        state.leaving = Leaving::Told;
        self.send_goaway(state, WINDOW_MAX as u32, Reason::NO_ERROR);
        let ping = FrameHead { len: 8, kind: kind::PING, flags: 0, id: 0 };
        self.send(state, [&ping.bytes(), b"ringway\0"]);
    }

    /// Ends the connection: all streams end, and the peer is told why as the last.
    pub(crate) fn end(&self, reason: Reason) {
        let state = &mut *self.state.borrow_mut();
        let is_open = matches!(state.leaving, Leaving::No | Leaving::Told);
        if is_open || (reason != Reason::NO_ERROR && state.leaving == Leaving::Closed) {
            self.close(state, reason);
        }
        self.over(state);
    }

    /// The connection is broken: nothing can be sent any more.
    pub(crate) fn broke(&self) {
        let state = &mut *self.state.borrow_mut();
        state.out.clear(&self.buffers);
        self.over(state);
    }

    fn over(&self, state: &mut State) {
        state.leaving = Leaving::Over;
        state.new.clear();
        for stream in std::mem::take(&mut state.streams) {
            state.turns.leave(&stream);
            match &self.asked {
                Some(asked) => stream.fails(Reason::CANCEL, asked.lost(&stream)),
                None => stream.ends(Reason::CANCEL),
            }
        }
        state.wake_driver();
        if let Some(asked) = &self.asked {
            asked.changed();
        }
    }

    pub(super) fn close(&self, state: &mut State, reason: Reason) {
        state.leaving = Leaving::Closed;
        // A backend begins no streams.
        let last = if self.asked.is_some() { 0 } else { state.last };
        self.send_goaway(state, last, reason);
    }

    fn send_goaway(&self, state: &mut State, last: u32, reason: Reason) {
        let head = FrameHead { len: 8, kind: kind::GOAWAY, flags: 0, id: 0 };
        let [mut payload, code] = [last, reason.0].map(|number| number.to_be_bytes().to_vec());
        payload.extend(code);
        self.send(state, [&head.bytes(), &payload]);
    }

    /// Gives back what is not needed while nothing is under way.
    pub(crate) fn rest(&self) {
        let state = &mut *self.state.borrow_mut();
        state.decoder.rest();
        state.heads = Vec::new();
        state.room = Room::default();
        state.streams.shrink_to_fit();
        state.new.shrink_to_fit();
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
            self.forget(stream.id.get());
        }
    }

    pub(super) fn wake_driver(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }
}

/// Gives the next turn, if there is room for a frame.
pub(super) fn give_turn(state: &mut State) {
    if state.turns.are_wanted() && state.send_window > 0 && state.out.room() > 0 {
        state.turns.give();
    }
}
