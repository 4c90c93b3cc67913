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
//! Which frame is allowed when is decided here; what the rules of HTTP say of messages, in
//! `request`.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    rc::Rc,
    task::{Poll, Waker},
};

use super::{
    Asking,
    frame::{
        FrameHead, HEAD_BYTES, PAYLOAD_MAX, Reason, WINDOW_MAX, flag, kind, number, of_number,
        setting,
    },
    hpack::Decoder,
    out::Out,
    request::{self, NoHead, Room},
    stream::{Came, Priority, Stream, Turn},
    turns::Turns,
};
use crate::base::moment::{Micros, Moment};
use crate::http::{
    framing::{self, BodyLength},
    head::RequestHead,
    parse::HeadLimits,
};
use crate::net::{
    buffer::{Buffer, Buffers},
    deadlines::{Deadlines, Watch},
};
use crate::proto::peer::Peer;

/// Streams that a peer may have open at once.
const STREAMS_MAX: usize = 100;

/// The window of a stream: that of the standard (RFC 9113 §6.5.2).
const WINDOW: i64 = 65_535;

/// The window of a connection: sixteen streams can send at full speed.
const CONN_WINDOW: i64 = 1 << 20;

/// So much of a window is used before the peer is told that it is free again.
const SAID_EACH: u32 = 32 << 10;

/// Frames of one block: with none of them empty, twice as many as its bytes need.
const BLOCK_FRAMES_MAX: u32 = 32;

/// Heads that are kept for the next requests.
const HEADS_KEPT: usize = 32;

/// The state of a connection.
pub(crate) struct Conn {
    buffers: Rc<Buffers>,
    deadlines: Rc<Deadlines>,
    peer: Rc<Peer>,
    /// Streams whose tasks have not ended.
    running: Cell<usize>,
    state: RefCell<State>,
}

struct State {
    decoder: Decoder,
    room: Room,
    heads: Vec<RequestHead>,
    /// The open streams, by their numbers.
    streams: Vec<Rc<Stream>>,
    /// Those that no task has yet.
    new: VecDeque<Rc<Stream>>,
    /// The highest number that the peer has used.
    last: u32,
    /// A block of which not all has come.
    block: Option<Block>,
    has_settings: bool,
    out: Out,
    turns: Turns,
    /// How much we may send, in all and at first on each stream.
    send_window: i64,
    first_window: i64,
    frame_max: usize,
    /// How much the peer may send, and what has been taken and not been said yet.
    window: i64,
    unsaid: u32,
    leaving: Leaving,
    /// The task that reads and writes.
    driver: Option<Waker>,
}

/// How far the connection has come with its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    No,
    /// The peer was told that an end comes, and streams on their way are still taken.
    Told,
    /// No more streams are taken.
    Closed,
    /// Nothing is read any more, and what is to be sent is the last.
    Over,
}

/// A block of fields that comes in several frames.
struct Block {
    id: u32,
    ends: bool,
    bytes: Vec<u8>,
    frames: u32,
}

/// What became of bytes that were to be sent.
pub(super) struct Put {
    pub(super) taken: usize,
    /// Whether all of them were, and the end too, if it was to be sent.
    pub(super) is_done: bool,
}

/// What a frame asks for beside changing the state.
type Taken = Result<(), Reason>;

impl Conn {
    /// A connection on which a client has sent its preface. Its settings are to be sent.
    pub(crate) fn new(
        peer: Rc<Peer>,
        buffers: Rc<Buffers>,
        deadlines: Rc<Deadlines>,
        limits: &HeadLimits,
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
            window: CONN_WINDOW,
            unsaid: 0,
            leaving: Leaving::No,
            driver: None,
        };
        let settings = [
            (setting::STREAMS_MAX, STREAMS_MAX as u32),
            (setting::HEAD_LIST_MAX, u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX)),
            (setting::NO_OLD_PRIORITIES, 1),
        ];
        let mut payload = Vec::with_capacity(32);
        for (name, value) in settings {
            payload.extend_from_slice(&name.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        let head = FrameHead { len: payload.len(), kind: kind::SETTINGS, flags: 0, id: 0 };
        state.out.push([&head.bytes(), &payload], &buffers);
        let more = of_number(kind::WINDOW_UPDATE, 0, (CONN_WINDOW - WINDOW) as u32);
        state.out.push([&more, &[]], &buffers);
        Rc::new(Conn { buffers, deadlines, peer, running: Cell::new(0), state: state.into() })
    }

    pub(super) fn peer(&self) -> &Rc<Peer> {
        &self.peer
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
        began: Option<Moment>,
    ) -> (usize, Result<(), Reason>) {
        let mut used = 0;
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

    fn take(
        self: &Rc<Conn>,
        head: FrameHead,
        payload: &[u8],
        limits: &HeadLimits,
        began: Option<Moment>,
    ) -> Taken {
        let state = &mut *self.state.borrow_mut();
        if state.leaving == Leaving::Over {
            return Ok(());
        }
        if !state.has_settings && (head.kind != kind::SETTINGS || head.has(flag::ACK)) {
            return Err(Reason::PROTOCOL);
        }
        if state.block.is_some() && head.kind != kind::CONTINUATION {
            return Err(Reason::PROTOCOL);
        }
        match head.kind {
            kind::DATA => self.data(state, head, payload),
            kind::HEADERS => {
                let block = headers(head, payload)?;
                self.headers(state, head, block, limits, began)
            }
            kind::CONTINUATION => self.continuation(state, head, payload, limits, began),
            kind::PRIORITY if head.id == 0 => Err(Reason::PROTOCOL),
            kind::PRIORITY if payload.len() != 5 => {
                self.reset(state, head.id, Reason::FRAME_SIZE);
                Ok(())
            }
            kind::RST_STREAM => self.rst_stream(state, head, payload),
            kind::SETTINGS => self.settings(state, head, payload),
            kind::PUSH_PROMISE => Err(Reason::PROTOCOL),
            kind::PING => self.ping(state, head, payload),
            kind::GOAWAY if head.id != 0 => Err(Reason::PROTOCOL),
            kind::GOAWAY if payload.len() < 8 => Err(Reason::FRAME_SIZE),
            kind::WINDOW_UPDATE => self.window_update(state, head, payload),
            kind::PRIORITY_UPDATE => priority_update(state, head, payload),
            // RFC 9113 §5.5: what is unknown means nothing.
            _ => Ok(()),
        }
    }

    fn data(&self, state: &mut State, head: FrameHead, payload: &[u8]) -> Taken {
        if head.id == 0 || state.is_unused(head.id) {
            return Err(Reason::PROTOCOL);
        }
        let body = unpadded(head, payload)?;
        let whole = payload.len() as i64;
        state.window -= whole;
        if state.window < 0 {
            return Err(Reason::FLOW_CONTROL);
        }
        let Some(stream) = state.find(head.id) else {
            // It came for a stream that has ended here.
            self.said(state, payload.len());
            return Ok(());
        };
        if stream.has_ended.get() {
            self.said(state, payload.len());
            self.reset(state, head.id, Reason::STREAM_CLOSED);
            return Ok(());
        }
        stream.window.set(stream.window.get() - whole);
        if stream.window.get() < 0 {
            self.said(state, payload.len());
            self.reset(state, head.id, Reason::FLOW_CONTROL);
            return Ok(());
        }
        let left = stream.announced.get().map(|left| left.checked_sub(body.len() as u64));
        if left == Some(None) {
            self.said(state, payload.len());
            self.reset(state, head.id, Reason::PROTOCOL);
            return Ok(());
        }
        stream.announced.set(left.flatten());
        stream.came.borrow_mut().bytes.extend_from_slice(body);
        // Padding is taken at once.
        let padding = payload.len() - body.len();
        self.said(state, padding);
        stream.unsaid.set(stream.unsaid.get() + padding as u32);
        if head.has(flag::END_STREAM) {
            self.ended(state, &stream);
        }
        stream.wake();
        Ok(())
    }

    /// The peer has ended its half of a stream.
    fn ended(&self, state: &mut State, stream: &Rc<Stream>) {
        if stream.announced.get().is_some_and(|left| left > 0) {
            return self.reset(state, stream.id, Reason::PROTOCOL);
        }
        stream.has_ended.set(true);
        if stream.is_sent.get() {
            state.forget(stream.id);
        }
    }

    fn headers(
        self: &Rc<Conn>,
        state: &mut State,
        head: FrameHead,
        block: &[u8],
        limits: &HeadLimits,
        began: Option<Moment>,
    ) -> Taken {
        if head.id.is_multiple_of(2) {
            return Err(Reason::PROTOCOL);
        }
        let ends = head.has(flag::END_STREAM);
        if head.has(flag::END_HEADERS) {
            return self.whole_block(state, (head.id, ends), block, limits, began);
        }
        let bytes = block.to_vec();
        state.block = Some(Block { id: head.id, ends, bytes, frames: 1 });
        Ok(())
    }

    fn continuation(
        self: &Rc<Conn>,
        state: &mut State,
        head: FrameHead,
        payload: &[u8],
        limits: &HeadLimits,
        began: Option<Moment>,
    ) -> Taken {
        let Some(block) = state.block.as_mut().filter(|block| block.id == head.id) else {
            return Err(Reason::PROTOCOL);
        };
        block.frames += 1;
        let length = block.bytes.len() + payload.len();
        if block.frames > BLOCK_FRAMES_MAX || length > 2 * limits.head_bytes_max {
            return Err(Reason::ENHANCE_YOUR_CALM);
        }
        block.bytes.extend_from_slice(payload);
        if !head.has(flag::END_HEADERS) {
            return Ok(());
        }
        let Some(Block { id, ends, bytes, .. }) = state.block.take() else { return Ok(()) };
        self.whole_block(state, (id, ends), &bytes, limits, began)
    }

    /// All of a block has come: a request, or trailers.
    fn whole_block(
        self: &Rc<Conn>,
        state: &mut State,
        (id, ends): (u32, bool),
        block: &[u8],
        limits: &HeadLimits,
        began: Option<Moment>,
    ) -> Taken {
        if id <= state.last {
            return self.trailers(state, (id, ends), block, limits);
        }
        state.last = id;
        let mut head = state.heads.pop().unwrap_or_default();
        let read =
            request::request(&mut state.decoder, block, limits, (&mut head, &mut state.room));
        let length = match read {
            Err(NoHead::Unreadable) => return Err(Reason::COMPRESSION),
            Ok(()) => framing::request(&head).map_err(|_| NoHead::Malformed),
            Err(no_head) => Err(no_head),
        };
        if matches!(state.leaving, Leaving::Closed | Leaving::Over) {
            // RFC 9113 §6.8: the peer learns from the number in GOAWAY that it was not served.
            return Ok(());
        }
        if state.streams.len() >= STREAMS_MAX || self.running.get() >= STREAMS_MAX {
            self.send_reset(state, id, Reason::REFUSED);
            return Ok(());
        }
        let announced = match length {
            Ok(BodyLength::Fixed(bytes)) => Some(bytes),
            Ok(BodyLength::None | BodyLength::Chunked | BodyLength::UntilClose) | Err(_) => None,
        };
        let malformed =
            length == Err(NoHead::Malformed) || (ends && announced.is_some_and(|bytes| bytes > 0));
        if malformed {
            self.send_reset(state, id, Reason::PROTOCOL);
            return Ok(());
        }
        let priority = head.headers.named(b"priority").next().map(Priority::of);
        let head_bytes = (HEAD_BYTES + block.len()) as u64;
        let stream = Rc::new(Stream {
            id,
            conn: Rc::clone(self),
            watched: self.deadlines.watch(-1, Watch::Stream),
            head: RefCell::new(Some(length.map(|_| head))),
            head_bytes,
            began,
            came: RefCell::new(Came::default()),
            announced: Cell::new(announced),
            has_ended: Cell::new(ends),
            window: Cell::new(WINDOW),
            unsaid: Cell::new(0),
            send_window: Cell::new(state.first_window),
            is_sent: Cell::new(false),
            over: Cell::new(None),
            out: Cell::new(0),
            turn: Cell::new(Turn::None),
            served: Cell::new(0),
            priority: Cell::new(priority.unwrap_or_default()),
            timed: Cell::new(false),
            stalled: Cell::new(Micros(0)),
        });
        self.running.set(self.running.get() + 1);
        state.streams.push(Rc::clone(&stream));
        state.new.push_back(stream);
        Ok(())
    }

    fn trailers(
        &self,
        state: &mut State,
        (id, ends): (u32, bool),
        block: &[u8],
        limits: &HeadLimits,
    ) -> Taken {
        let trailers = match request::trailers(&mut state.decoder, block, limits) {
            Err(NoHead::Unreadable) => return Err(Reason::COMPRESSION),
            trailers => trailers,
        };
        // They may come for a stream that has ended here.
        let Some(stream) = state.find(id) else { return Ok(()) };
        match trailers {
            // RFC 9113 §8.1: trailers end the stream.
            _ if stream.has_ended.get() => self.reset(state, id, Reason::STREAM_CLOSED),
            Ok(trailers) if ends => {
                if !trailers.fields.is_empty() {
                    stream.came.borrow_mut().trailers = Some(Box::new(trailers));
                }
                self.ended(state, &stream);
                stream.wake();
            }
            Ok(_) | Err(_) => self.reset(state, id, Reason::PROTOCOL),
        }
        Ok(())
    }

    fn rst_stream(&self, state: &mut State, head: FrameHead, payload: &[u8]) -> Taken {
        if head.id == 0 || state.is_unused(head.id) {
            return Err(Reason::PROTOCOL);
        }
        let code = number(payload).filter(|_| payload.len() == 4).ok_or(Reason::FRAME_SIZE)?;
        if let Some(stream) = state.forget(head.id) {
            stream.ends(Reason(code));
            self.leaves_turn(state, &stream);
        }
        Ok(())
    }

    fn settings(&self, state: &mut State, head: FrameHead, payload: &[u8]) -> Taken {
        if head.id != 0 {
            return Err(Reason::PROTOCOL);
        }
        if head.has(flag::ACK) {
            return if payload.is_empty() { Ok(()) } else { Err(Reason::FRAME_SIZE) };
        }
        if !payload.len().is_multiple_of(6) {
            return Err(Reason::FRAME_SIZE);
        }
        state.has_settings = true;
        for setting in payload.chunks_exact(6) {
            let [a, b, rest @ ..] = setting else { continue };
            let value = number(rest).unwrap_or_default();
            match u16::from_be_bytes([*a, *b]) {
                setting::ENABLE_PUSH if value > 1 => return Err(Reason::PROTOCOL),
                setting::INITIAL_WINDOW => set_first_window(state, i64::from(value))?,
                setting::FRAME_MAX if !(16_384..=0xff_ffff).contains(&value) => {
                    return Err(Reason::PROTOCOL);
                }
                _ => {}
            }
        }
        let ack = FrameHead { len: 0, kind: kind::SETTINGS, flags: flag::ACK, id: 0 };
        self.send(state, [&ack.bytes(), &[]]);
        Ok(())
    }

    fn ping(&self, state: &mut State, head: FrameHead, payload: &[u8]) -> Taken {
        if head.id != 0 {
            return Err(Reason::PROTOCOL);
        }
        if payload.len() != 8 {
            return Err(Reason::FRAME_SIZE);
        }
        if head.has(flag::ACK) {
            // What the peer sent before it heard of our end has come.
            if state.leaving == Leaving::Told {
                self.close(state, Reason::NO_ERROR);
            }
            return Ok(());
        }
        self.send(state, [&FrameHead { flags: flag::ACK, ..head }.bytes(), payload]);
        Ok(())
    }

    fn window_update(&self, state: &mut State, head: FrameHead, payload: &[u8]) -> Taken {
        if payload.len() != 4 {
            return Err(Reason::FRAME_SIZE);
        }
        let more = i64::from(number(payload).unwrap_or_default() & 0x7fff_ffff);
        if head.id == 0 {
            state.send_window += more;
            if more == 0 {
                return Err(Reason::PROTOCOL);
            }
            if state.send_window > WINDOW_MAX {
                return Err(Reason::FLOW_CONTROL);
            }
            give_turn(state);
            return Ok(());
        }
        if state.is_unused(head.id) {
            return Err(Reason::PROTOCOL);
        }
        let Some(stream) = state.find(head.id) else { return Ok(()) };
        let window = stream.send_window.get() + more;
        if more == 0 {
            self.reset(state, head.id, Reason::PROTOCOL);
        } else if window > WINDOW_MAX {
            self.reset(state, head.id, Reason::FLOW_CONTROL);
        } else {
            stream.send_window.set(window);
            stream.wake();
        }
        Ok(())
    }

    /// Bytes that came have been taken: the peer may send as many more.
    fn said(&self, state: &mut State, count: usize) {
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
            self.send(state, [&of_number(kind::WINDOW_UPDATE, stream.id, unsaid), &[]]);
        }
    }

    fn send(&self, state: &mut State, parts: [&[u8]; 2]) {
        state.out.push(parts, &self.buffers);
        state.wake_driver();
    }

    fn send_reset(&self, state: &mut State, id: u32, reason: Reason) {
        self.send(state, [&of_number(kind::RST_STREAM, id, reason.0), &[]]);
    }

    /// Ends a stream for a fault of the peer's.
    fn reset(&self, state: &mut State, id: u32, reason: Reason) {
        self.send_reset(state, id, reason);
        if let Some(stream) = state.forget(id) {
            stream.ends(reason);
            self.leaves_turn(state, &stream);
        }
    }

    fn leaves_turn(&self, state: &mut State, stream: &Stream) {
        if state.turns.leave(stream) {
            give_turn(state);
        }
    }

    /// The next request, if there is one that no task has.
    pub(crate) fn next(&self) -> Option<Asking> {
        loop {
            let stream = self.state.borrow_mut().new.pop_front()?;
            if !stream.is_over() {
                return Some(Asking::new(stream));
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
        state.out.push_block((stream.id, ends), block, state.frame_max, &self.buffers);
        if ends {
            state.sent_end(stream);
        }
        state.wake_driver();
    }

    /// Sends bytes of a body, as far as there is room, and its end behind the last.
    pub(super) fn put(&self, stream: &Rc<Stream>, bytes: &[u8], ends: bool) -> Put {
        let state = &mut *self.state.borrow_mut();
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
            let head = FrameHead { len: piece.len(), kind: kind::DATA, flags, id: stream.id };
            state.out.push([&head.bytes(), piece], &self.buffers);
            state.send_window -= count as i64;
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
        if state.forget(stream.id).is_some() {
            // RFC 9113 §8.1: the answer is whole, and the rest of the request is not wanted.
            let reason = if stream.is_sent.get() { Reason::NO_ERROR } else { otherwise };
            self.send_reset(state, stream.id, reason);
            stream.ends(reason);
        }
        if self.running.get() == 0 {
            state.wake_driver();
        }
    }

    /// A stream is cut.
    pub(super) fn cut(&self, stream: &Stream) {
        self.reset(&mut self.state.borrow_mut(), stream.id, Reason::CANCEL);
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
            if let Some(buffer) = state.out.take(&self.buffers) {
                give_turn(state);
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

    /// What is to be sent now.
    #[cfg(test)]
    pub(super) fn output_now(&self) -> Option<Buffer> {
        self.state.borrow_mut().out.take(&self.buffers)
    }

    /// Checks what must always be so.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let state = self.state.borrow();
        assert!(state.window >= 0 && state.window + i64::from(state.unsaid) <= CONN_WINDOW);
        assert!(state.streams.len() <= STREAMS_MAX && self.running.get() <= STREAMS_MAX);
        assert!(state.streams.is_sorted_by_key(|stream| stream.id));
        let held: usize = state.streams.iter().map(|it| it.came.borrow().bytes.len()).sum();
        assert!(held as i64 <= CONN_WINDOW, "{held} bytes of bodies");
    }

    /// Whether the peer may be read: not while it does not take what it made us send.
    pub(crate) fn may_read(&self) -> bool {
        !self.state.borrow().out.is_crowded()
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
        let state = &mut *self.state.borrow_mut();
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
            stream.ends(Reason::CANCEL);
        }
        state.wake_driver();
    }

    fn close(&self, state: &mut State, reason: Reason) {
        state.leaving = Leaving::Closed;
        self.send_goaway(state, state.last, reason);
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
    fn is_unused(&self, id: u32) -> bool {
        id > self.last || id.is_multiple_of(2)
    }

    fn place(&self, id: u32) -> Option<usize> {
        self.streams.binary_search_by_key(&id, |stream| stream.id).ok()
    }

    fn find(&self, id: u32) -> Option<Rc<Stream>> {
        self.place(id).and_then(|at| self.streams.get(at)).map(Rc::clone)
    }

    /// A stream is open no more.
    fn forget(&mut self, id: u32) -> Option<Rc<Stream>> {
        self.place(id).map(|at| self.streams.remove(at))
    }

    fn sent_end(&mut self, stream: &Stream) {
        stream.is_sent.set(true);
        if stream.has_ended.get() {
            self.forget(stream.id);
        }
    }

    fn wake_driver(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
    }
}

/// Gives the next turn, if there is room for a frame.
fn give_turn(state: &mut State) {
    if state.turns.are_wanted() && state.send_window > 0 && state.out.room() > 0 {
        state.turns.give();
    }
}

/// The first window of the peer's streams changes, and those of the present ones by as much (RFC
/// 9113 §6.9.2).
fn set_first_window(state: &mut State, window: i64) -> Taken {
    if window > WINDOW_MAX {
        return Err(Reason::FLOW_CONTROL);
    }
    let change = window - state.first_window;
    state.first_window = window;
    for stream in &state.streams {
        let window = stream.send_window.get() + change;
        if window > WINDOW_MAX {
            return Err(Reason::FLOW_CONTROL);
        }
        stream.send_window.set(window);
        stream.wake();
    }
    Ok(())
}

/// RFC 9218 §7.1.
fn priority_update(state: &mut State, head: FrameHead, payload: &[u8]) -> Taken {
    let Some((id, value)) = payload.split_first_chunk::<4>() else {
        return Err(Reason::FRAME_SIZE);
    };
    let id = u32::from_be_bytes(*id) & 0x7fff_ffff;
    if head.id != 0 || id == 0 {
        return Err(Reason::PROTOCOL);
    }
    if let Some(stream) = state.find(id) {
        stream.priority.set(Priority::of(value));
    }
    Ok(())
}

/// A payload without its padding (RFC 9113 §6.1).
fn unpadded(head: FrameHead, payload: &[u8]) -> Result<&[u8], Reason> {
    if !head.has(flag::PADDED) {
        return Ok(payload);
    }
    let (count, rest) = payload.split_first().ok_or(Reason::FRAME_SIZE)?;
    let left = rest.len().checked_sub(usize::from(*count)).ok_or(Reason::PROTOCOL)?;
    Ok(rest.get(..left).unwrap_or_default())
}

/// The block of HEADERS, without padding and the priority of RFC 7540, which means nothing.
fn headers(head: FrameHead, payload: &[u8]) -> Result<&[u8], Reason> {
    let rest = unpadded(head, payload)?;
    if !head.has(flag::PRIORITY) {
        return Ok(rest);
    }
    rest.get(5..).ok_or(Reason::FRAME_SIZE)
}
